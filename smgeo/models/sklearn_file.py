"""scikit-learn's estimators as files that run no code when they are read: skops, not pickle."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from smgeo.errors import SmgeoError

# Where scikit-learn keeps what its regressors learn, beside the estimators that skops trusts by itself. Names directly in these
# modules are trusted: they hold numbers, and no function in them does harm.
_TRUSTED_MODULES = {
    "sklearn._loss.loss",
    "sklearn.ensemble._hist_gradient_boosting.predictor",
    "sklearn.gaussian_process.kernels",
    "sklearn.metrics._dist_metrics",
    "sklearn.neighbors._ball_tree",
    "sklearn.neighbors._kd_tree",
    "sklearn.neural_network._stochastic_optimizers",
    "sklearn.tree._tree",
}


def write_sklearn(file: Path, parts: dict[str, Any]) -> None:
    """Write named estimators to one file.

    Raises
    ------
    SmgeoError
        If one holds what skops cannot write, such as an open file, or a function without a name, such as a lambda.
    """
    import skops.io

    try:
        skops.io.dump(parts, file)
    except (TypeError, AttributeError) as error:
        raise SmgeoError(
            f"{file.name}: this estimator cannot be saved without pickle ({error}); build it of scikit-learn's own parts"
        ) from None
    nameless = [t for t in skops.io.get_untrusted_types(file=file) if "<" in t]
    if nameless:
        raise SmgeoError(
            f"{file.name}: this estimator holds {', '.join(nameless)}, which no other process would find; define it in a module"
        )


def read_sklearn(file: Path, names: Collection[str], trusted: Collection[str] = ()) -> dict[str, Any]:
    """The estimators `names` that `write_sklearn` wrote.

    Parameters
    ----------
    file : Path
    names : collection of str
        What the file must hold.
    trusted : collection of str
        Types and functions trusted beside scikit-learn's and NumPy's, as `module.Name`.

    Raises
    ------
    SmgeoError
        Naming every type or function that is not trusted, before any of them is imported; or if the file is damaged or is none of these.
    """
    import skops.io

    content = file.read_bytes()
    try:
        named = skops.io.get_untrusted_types(data=content)
        unknown = [t for t in named if not _is_trusted(t, trusted)]
        if unknown:
            raise SmgeoError(
                f"{file} holds {', '.join(sorted(unknown))}, which could run code; nothing was loaded. Allowed are scikit-learn's "
                "regressors and transformers, NumPy's arrays, numbers and ufuncs. If you know who wrote the file: "
                f"smgeo.load_model(path, trusted={sorted(unknown)!r})"
            )
        parts = skops.io.loads(content, trusted=named)
    except SmgeoError:
        raise
    # What a foreign file makes skops do is not foreseeable: it may lack a key, name a loader that does not exist, or be no archive.
    except (BadZipFile, OSError, ValueError, LookupError, TypeError, AttributeError, ImportError) as error:
        raise SmgeoError(
            f"{file} is damaged or no file of scikit-learn estimators ({error!r}); save the model again"
        ) from None
    if not isinstance(parts, dict) or set(parts) != set(names):
        raise SmgeoError(f"{file} does not hold {', '.join(names)}; it is another program's file. Save the model again")
    return parts


def _is_trusted(name: str, trusted: Collection[str]) -> bool:
    return name in trusted or name.rpartition(".")[0] in _TRUSTED_MODULES
