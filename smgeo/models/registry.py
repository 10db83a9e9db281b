"""Models by name: the kinds of smgeo, scikit-learn's regressors, and models from a file."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from smgeo.errors import SmgeoError, nearest
from smgeo.models.applicability import Applicability
from smgeo.models.base import SoilMoistureModel
from smgeo.models.calibration import Calibration
from smgeo.models.model_file import APPLICABILITY_FILE, read_model

# kind -> where its class is; imported when asked for, so that a forest needs no Keras.
_KINDS = {
    "rf": ("smgeo.models.forest", "Forest"),
    "ann": ("smgeo.models.networks", "Ann"),
    "cnn": ("smgeo.models.networks", "Cnn"),
    "gru": ("smgeo.models.networks", "Gru"),
    "lstm": ("smgeo.models.networks", "Lstm"),
}
# The kind under which the file of a scikit-learn regressor is saved.
_OF_SKLEARN = ("smgeo.models.regressor", "Regressor")


def make_model(kind: str | Any, **params: Any) -> SoilMoistureModel:
    """An unfitted model.

    Parameters
    ----------
    kind : {"rf", "ann", "cnn", "gru", "lstm"}, str or scikit-learn regressor
        Random forest, dense network, 1-D convolution, recurrent networks; the name of a regressor of scikit-learn, such as
        `"HistGradientBoostingRegressor"`; or a regressor or pipeline of your own, which is copied.
    **params
        The model's own parameters (see its class), `seed` among them; of a regressor or pipeline those that its `set_params` takes.

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
    # Numbers of NumPy, as a search space gives them, are taken as Python's: libraries and JSON want these.
    params = {k: v.item() if isinstance(v, np.generic) else v for k, v in params.items()}
    if isinstance(kind, str) and kind in _KINDS:
        found = _import(*_KINDS[kind])
        _check_names(kind, params, list(inspect.signature(found).parameters))
        model = found(**params)
    else:
        model = _make_regressor(_regressor_named(kind) if isinstance(kind, str) else kind, params)
    model.check_types()
    model.check_params()
    return model


def load_model(path: str | Path, *, trusted: Collection[str] = ()) -> SoilMoistureModel:
    """A fitted model from the folder that `save` wrote. Runs no code of it.

    Parameters
    ----------
    path : str or Path
    trusted : collection of str
        For a regressor that is not scikit-learn's: its types, as `module.Name`, if you know who wrote the file. They are imported.

    Raises
    ------
    SmgeoError
        If the folder is no model, is of a newer format, a file in it is missing or damaged, or it holds a type that is not trusted.
    """
    about = read_model(path)
    kind, params = about["kind"], about["params"]
    if kind == "sklearn":
        found, options = _import(*_OF_SKLEARN), {"trusted": trusted}
        _check_names(f"{path}/model.json: {kind}", params, ["seed"])
        model = found(**params)
    elif kind in _KINDS:
        model, options = make_model(kind, **params), {}
    else:
        raise SmgeoError(f"{path}/model.json: unknown model {kind!r}; {nearest(str(kind), list(_KINDS))}")
    model.n_features_in_ = int(about["n_features"])
    model.input_shape_ = tuple(about["input_shape"])
    model.preparation_, model.training_, model.params_ = about["preparation"], about["training"], params
    if about["calibration"] is not None:
        model.calibration_ = Calibration.from_dict(about["calibration"])
    if about["applicability"] is not None:
        model.applicability_ = Applicability.load(Path(path) / APPLICABILITY_FILE, about["applicability"])
    if about["feature_names"]:
        model.feature_names_in_ = np.array(about["feature_names"], dtype=object)
    model._load_weights(Path(path), **options)
    model.digest_ = about["digest"]
    return model


def _import(module: str, name: str) -> type[SoilMoistureModel]:
    found: type[SoilMoistureModel] = getattr(importlib.import_module(module), name)
    return found


def _check_names(owner: str, params: Collection[str], known: list[str]) -> None:
    for name in params:
        if name not in known:
            raise SmgeoError(f"{owner} has no parameter {name!r}; {nearest(name, known)}")


def _make_regressor(estimator: Any, params: dict[str, Any]) -> SoilMoistureModel:
    found = _import(*_OF_SKLEARN)
    found(estimator).check_params()
    own = {k: v for k, v in params.items() if k != "seed"}
    _check_names(type(estimator).__name__, own, [*estimator.get_params(), "seed"])
    copy = clone(estimator).set_params(**own)
    return found(copy, **{k: v for k, v in params.items() if k == "seed"})


def _regressor_named(name: str) -> Any:
    """A regressor of scikit-learn with its default parameters."""
    regressors = _regressors()
    if name not in regressors:
        hint = nearest(name, [*_KINDS, *regressors])
        if hint.startswith("known"):
            hint = f"known: {', '.join(_KINDS)}, and scikit-learn's regressors, such as HistGradientBoostingRegressor"
        raise SmgeoError(f"unknown model {name!r}; {hint}")
    return regressors[name]()


@cache
def _regressors() -> dict[str, Any]:
    """Class of each regressor of scikit-learn that estimates one value a row and needs no other estimator."""
    from sklearn.utils import all_estimators

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # a deprecated one says so again when it is used
        return {
            name: found
            for name, found in all_estimators(type_filter="regressor")
            if all(p.default is not p.empty for p in inspect.signature(found).parameters.values())
            and found().__sklearn_tags__().target_tags.single_output
        }
