"""Any scikit-learn regressor as a model: trained on windows, saved without pickle, used for maps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar
from zipfile import BadZipFile

import numpy as np
from sklearn.base import BaseEstimator, clone, is_regressor

from smgeo.errors import SmgeoError
from smgeo.files import JsonObject
from smgeo.models.base import Epochs, SoilMoistureModel
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.rows import Rows
from smgeo.models.team import Team

_FILE = "regressor.skops"
_PARTS = ("estimator", "fitted")


class Regressor(SoilMoistureModel):
    """A scikit-learn regressor, or a pipeline that ends in one.

    Windows of several days become long rows: the channels of the first day, then of the second, and so on.

    Parameters
    ----------
    estimator : scikit-learn regressor
        Not changed; a copy of it is fitted. X and y are float64, because linear models lose digits in float32.
    seed : int
        Sets every `random_state` of the estimator and its parts that is None.

    Attributes
    ----------
    estimator_ : scikit-learn regressor
        The fitted copy.
    """

    kind: ClassVar[str] = "sklearn"

    def __init__(self, estimator: BaseEstimator | None = None, *, seed: int = 0) -> None:
        self.estimator = estimator
        self.seed = seed

    def check_params(self) -> None:
        """Refuse anything but a regressor, and parameters that scikit-learn would refuse later."""
        model: BaseEstimator = self.estimator
        known = hasattr(model, "__sklearn_tags__") and not isinstance(model, type | SoilMoistureModel)
        if not known or not is_regressor(model):
            raise SmgeoError(
                f"make_model needs a scikit-learn regressor, such as HistGradientBoostingRegressor(), or a pipeline that ends in "
                f"one; got {model!r}"
            )
        for part in (model, *model.get_params().values()):
            if isinstance(part, BaseEstimator) and hasattr(part, "_parameter_constraints"):
                try:
                    part._validate_params()
                except ValueError as error:
                    raise SmgeoError(str(error)) from None

    def _fit(
        self,
        x: Rows,
        y: np.ndarray,
        validation: tuple[Rows, np.ndarray] | None,
        checkpoint: Checkpoint | None,
        team: Team | None,
    ) -> Epochs:
        estimator = clone(self.estimator)
        unset = [n for n, v in estimator.get_params().items() if v is None and n.split("__")[-1] == "random_state"]
        estimator.set_params(**dict.fromkeys(unset, self.seed))
        try:
            self.estimator_ = estimator.fit(x.all().astype("float64"), y.astype("float64"))
        except ValueError as error:
            raise SmgeoError(f"{type(estimator).__name__}: {error}") from error
        yield {"epoch": 1, "epochs": 1}

    def _predict(self, x: Rows) -> np.ndarray:
        out = np.empty(len(x), dtype="float32")
        for block, values in x.blocks():
            out[block] = np.asarray(self.estimator_.predict(values.astype("float64"))).reshape(len(values))
        return out

    def _file_params(self) -> JsonObject:
        return {"seed": self.seed}

    def _describe_training(self) -> JsonObject:
        return {"estimator": repr(self.estimator)}

    def _save_weights(self, folder: Path) -> None:
        write_sklearn(folder / _FILE, dict(zip(_PARTS, (self.estimator, self.estimator_), strict=True)))

    def _load_weights(self, folder: Path, trusted: Collection[str]) -> None:
        parts = read_sklearn(folder / _FILE, _PARTS, trusted)
        self.estimator, self.estimator_ = (parts[name] for name in _PARTS)
        self.check_params()


# Modules of what scikit-learn's regressors learn, besides the estimators that skops trusts by itself. Names directly in these
# modules are trusted: they contain numbers, and no function in them does harm.
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


def write_sklearn(file: Path, parts: Mapping[str, BaseEstimator]) -> None:
    """Write named estimators to one file.

    Raises
    ------
    SmgeoError
        If one contains something that skops cannot write, such as an open file, or a function without a name, such as a lambda.
    """
    import skops.io

    try:
        skops.io.dump(dict(parts), file)
    except (TypeError, AttributeError) as error:
        raise SmgeoError(
            f"{file.name}: this estimator cannot be saved without pickle ({error}); build it of scikit-learn's own parts"
        ) from None
    nameless = [t for t in skops.io.get_untrusted_types(file=file) if "<" in t]
    if nameless:
        raise SmgeoError(
            f"{file.name}: this estimator contains {', '.join(nameless)}, which no other process can import; define it in a module"
        )


def read_sklearn(file: Path, names: Collection[str], trusted: Collection[str] = ()) -> dict[str, BaseEstimator]:
    """Return the estimators `names` that `write_sklearn` wrote.

    Parameters
    ----------
    file : Path
    names : collection of str
        Names that the file must contain.
    trusted : collection of str
        Types and functions trusted besides scikit-learn's and NumPy's, as `module.Name`.

    Raises
    ------
    SmgeoError
        Naming every type or function that is not trusted, before any of them is imported; or if the file is damaged or another kind of file.
    """
    import skops.io

    content = file.read_bytes()
    try:
        named = skops.io.get_untrusted_types(data=content)
        unknown = [t for t in named if not _is_trusted(t, trusted)]
        if unknown:
            raise SmgeoError(
                f"{file} contains {', '.join(sorted(unknown))}, which could run code; nothing was loaded. Allowed are scikit-learn's "
                "regressors and transformers, NumPy's arrays, numbers and ufuncs. If you know who wrote the file: "
                f"smgeo.load_model(path, trusted={sorted(unknown)!r})"
            )
        parts = skops.io.loads(content, trusted=named)
    except SmgeoError:
        raise
    # A foreign file may lack a key, name a loader that does not exist, or be no archive: skops raises all of these.
    except (BadZipFile, OSError, ValueError, LookupError, TypeError, AttributeError, ImportError) as error:
        raise SmgeoError(
            f"{file} is damaged or not a file of scikit-learn estimators ({error!r}); save the model again"
        ) from None
    if not isinstance(parts, dict) or set(parts) != set(names):
        raise SmgeoError(f"{file} does not contain {', '.join(names)}; another program wrote it. Save the model again")
    return parts


def _is_trusted(name: str, trusted: Collection[str]) -> bool:
    return name in trusted or name.rpartition(".")[0] in _TRUSTED_MODULES
