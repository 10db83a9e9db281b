"""Comparison of what an estimator says of itself with what was fitted: else `repr` would show another model than the one that estimates."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.gaussian_process.kernels import Kernel

from smgeo.models.estimator_checks import need

# Parameters that concern a run and not what is learned.
_OF_THE_RUN = ("memory", "n_jobs", "random_state", "verbose", "warm_start")
# Parts that scikit-learn makes where none is given.
_USUAL = {
    ("RANSACRegressor", "estimator"): "LinearRegression",
    ("TransformedTargetRegressor", "regressor"): "LinearRegression",
    ("TransformedTargetRegressor", "transformer"): "FunctionTransformer",
}


def check_fitted(described: object, fitted: object) -> None:
    """Check that an estimator is what fitting makes of the one that describes it: the same class, parameters and parts.

    Raises
    ------
    ValueError
        With what differs. That numbers were learned with these parameters, nobody can tell.
    """
    kind = type(described)
    need(type(fitted) is kind, f"a {kind.__name__} does not become a {type(fitted).__name__} by fitting")
    if not isinstance(described, BaseEstimator):
        return
    params, own = described.get_params(deep=False), fitted.get_params(deep=False)  # type: ignore[attr-defined]
    for name, value in params.items():
        if name not in _OF_THE_RUN:
            _check_alike(value, own[name], f"{kind.__name__}: {name}")
        part = vars(fitted).get(f"{name}_")
        if isinstance(value, BaseEstimator) and isinstance(part, BaseEstimator):
            check_fitted(value, part)
        usual = _USUAL.get((kind.__name__, name))
        if value is None and part is not None and usual is not None:
            need(type(part).__name__ == usual, f"{kind.__name__}: {name} is {part!r:.80}, and usually {usual}")
        if isinstance(value, Kernel):
            need(
                _structure(part) == _structure(value) if part is not None else True,
                f"{kind.__name__}: another kernel was fitted",
            )
    parts = vars(fitted).get("estimators_")
    if isinstance(params.get("estimators"), list) and parts is not None:
        used = [e for _, e in params["estimators"] if not isinstance(e, str)]
        need(len(used) == len(parts), f"{kind.__name__} of {len(used)} estimators has {len(parts)}")
        for value, part in zip(used, parts, strict=True):
            check_fitted(value, part)
    elif "estimator" in params and isinstance(parts, list):
        for part in parts:
            if isinstance(params["estimator"], BaseEstimator):
                check_fitted(params["estimator"], part)
            else:
                need(
                    type(part).__name__ == "DecisionTreeRegressor",
                    f"{kind.__name__} of {part!r:.80}, and usually of trees",
                )


def _structure(kernel: object) -> list[object]:
    """Return the types of a kernel and of its parts."""
    parts = (
        [_structure(v) for _, v in sorted(vars(kernel).items()) if isinstance(v, Kernel)]
        if isinstance(kernel, Kernel)
        else []
    )
    return [type(kernel), *parts]


def _check_alike(described: object, fitted: object, where: str) -> None:
    if isinstance(described, str) and described == "passthrough" and type(fitted).__name__ == "FunctionTransformer":
        need(vars(fitted).get("func") is None, f"{where} is not passed through")  # a union's own
    elif isinstance(described, BaseEstimator):
        check_fitted(described, fitted)
    elif isinstance(described, list | tuple):
        need(type(fitted) is type(described) and len(fitted) == len(described), f"{where} is another one")
        for a, b in zip(described, fitted, strict=True):  # type: ignore[call-overload]
            _check_alike(a, b, where)
    elif isinstance(described, np.ndarray):
        need(np.array_equal(described, fitted, equal_nan=described.dtype.kind == "f"), f"{where} is another one")  # type: ignore[arg-type]
    else:
        same = described == fitted or (described != described and fitted != fitted)  # NaN
        need(type(fitted) is type(described) and same, f"{where} is {fitted!r:.80} and not {described!r:.80}")
