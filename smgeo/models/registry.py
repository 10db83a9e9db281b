"""Models by name: kinds of smgeo, scikit-learn's regressors, and models from a file."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TypeAlias

from sklearn.base import BaseEstimator, clone

from smgeo.errors import SmgeoError, nearest
from smgeo.files import JsonObject
from smgeo.models.base import SoilMoistureModel
from smgeo.models.model_file import read_model
from smgeo.models.parameters import plain_number
from smgeo.recipe.models import NETWORKS

# A kind of model: its name, or a regressor or pipeline of scikit-learn.
Kind: TypeAlias = str | BaseEstimator

# kind -> module and class; imported only when needed, so that a forest needs no Keras.
_KINDS = {
    "rf": ("smgeo.models.forest", "Forest"),
    "extra_trees": ("smgeo.models.forest", "ExtraTrees"),
    "boosting": ("smgeo.models.boosting", "Boosting"),
    "ensemble": ("smgeo.models.ensemble", "Ensemble"),
    **{kind: ("smgeo.models.networks", kind.capitalize()) for kind in NETWORKS},
}
# Class of the kind under which the file of a scikit-learn regressor is saved.
_OF_SKLEARN = ("smgeo.models.regressor", "Regressor")


def make_model(kind: Kind, **params: object) -> SoilMoistureModel:
    """Return an unfitted model.

    Parameters
    ----------
    kind : {"rf", "extra_trees", "boosting", "ann", "cnn", "gru", "lstm", "ensemble"}, str or scikit-learn regressor
        Random forest, extremely randomised trees, boosted trees, dense network, 1-D convolution, recurrent networks, the mean of several
        models; the name of a regressor of scikit-learn, such as `"Ridge"`; or a regressor or pipeline of your own, which is copied.
    **params
        The model's own parameters (see its class), `seed` among them; for a regressor or pipeline those that its `set_params` takes.

    Raises
    ------
    SmgeoError
        If the kind or a parameter is unknown or has another type, or the library it needs is not installed.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> model = make_model(Ridge(), alpha=2.0, seed=1)
    >>> model, make_model("Ridge").estimator
    (Regressor(estimator=Ridge(alpha=2.0), seed=1), Ridge())
    """
    model = unfitted_model(kind, params)
    model.check_installed()
    return model


def unfitted_model(kind: Kind, params: Mapping[str, object]) -> SoilMoistureModel:
    """Return what `make_model` returns, without asking whether the library that trains it is installed: trees estimate without it."""
    params = {k: plain_number(v) for k, v in params.items()}
    if isinstance(kind, str) and kind in _KINDS:
        found = _import(*_KINDS[kind])
        _check_names(kind, params, list(inspect.signature(found).parameters))
        model: SoilMoistureModel = found(**params)
    else:
        model = _make_regressor(_regressor_named(kind) if isinstance(kind, str) else kind, params)
    model.check_types()
    model.check_params()
    return model


def load_model(path: str | Path, *, trusted: Collection[str] = ()) -> SoilMoistureModel:
    """Return a fitted model from the folder that `save` wrote. Runs no code from it.

    Parameters
    ----------
    path : str or Path
    trusted : collection of str
        For a regressor that is not scikit-learn's: its types, as `module.Name`, if you know who wrote the file. They are imported.

    Raises
    ------
    SmgeoError
        If the folder is no model, is of a newer format, a file in it is missing or damaged, or it contains a type that is not trusted.
    """
    try:
        about = read_model(path)
        model = _unfitted(path, about["kind"], about["params"])
        model.restore(about, Path(path), trusted)
    except SmgeoError:
        raise
    except Exception as error:  # whatever content of another kind leads to, in any library
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise SmgeoError(f"{path} is damaged ({what}); train the model again") from error
    return model


def _unfitted(path: str | Path, kind: str, params: JsonObject) -> SoilMoistureModel:
    if kind == "sklearn":
        _check_names(f"{path}/model.json: {kind}", params, ["seed"])
        return _import(*_OF_SKLEARN)(**params)
    if kind in _KINDS:
        return unfitted_model(kind, params)
    raise SmgeoError(f"{path}/model.json: unknown model {kind!r}; {nearest(kind, list(_KINDS))}")


def _import(module: str, name: str) -> type[SoilMoistureModel]:
    found: type[SoilMoistureModel] = getattr(importlib.import_module(module), name)
    return found


def _check_names(owner: str, params: Collection[str], known: list[str]) -> None:
    for name in params:
        if name not in known:
            raise SmgeoError(f"{owner} has no parameter {name!r}; {nearest(name, known)}")


def _make_regressor(estimator: BaseEstimator, params: Mapping[str, object]) -> SoilMoistureModel:
    found = _import(*_OF_SKLEARN)
    found(estimator).check_params()
    own = {k: v for k, v in params.items() if k != "seed"}
    _check_names(type(estimator).__name__, own, [*estimator.get_params(), "seed"])
    copy = clone(estimator).set_params(**own)
    return found(copy, **{k: v for k, v in params.items() if k == "seed"})


def _regressor_named(name: str) -> BaseEstimator:
    """Return a regressor of scikit-learn with its default parameters."""
    regressors = _regressors()
    if name not in regressors:
        hint = nearest(name, [*_KINDS, *regressors])
        if hint.startswith("known"):
            hint = f"known: {', '.join(_KINDS)}, and scikit-learn's regressors, such as Ridge"
        raise SmgeoError(f"unknown model {name!r}; {hint}")
    return regressors[name]()


@cache
def _regressors() -> dict[str, type[BaseEstimator]]:
    """Return the class of each regressor of scikit-learn that estimates one value a row and needs no other estimator."""
    from sklearn.utils import all_estimators

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # a deprecated one warns again when it is used
        return {
            name: found
            for name, found in all_estimators(type_filter="regressor")
            if all(p.default is not p.empty for p in inspect.signature(found).parameters.values())
            and found().__sklearn_tags__().target_tags.single_output
        }
