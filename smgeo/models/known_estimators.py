"""The estimators that a model's file may contain: classes of scikit-learn that are data alone, and checks of what compiled code follows.

An estimator is on the list if nothing that stands in its attributes is called or looked up by name. `StackingRegressor`, which calls
methods that it has the names of, is not.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from dask.system import CPU_COUNT
from sklearn.dummy import DummyRegressor

_BOOSTING = "sklearn.ensemble._hist_gradient_boosting"

_KNOWN = {
    "sklearn.compose": "TransformedTargetRegressor",
    "sklearn.cross_decomposition": "CCA PLSCanonical PLSRegression",
    "sklearn.decomposition": "PCA TruncatedSVD",
    "sklearn.dummy": "DummyRegressor",
    "sklearn.ensemble": "AdaBoostRegressor BaggingRegressor ExtraTreesRegressor GradientBoostingRegressor HistGradientBoostingRegressor "
    "RandomForestRegressor VotingRegressor",
    f"{_BOOSTING}.binning": "_BinMapper",
    f"{_BOOSTING}.predictor": "TreePredictor",
    "sklearn.feature_selection": "VarianceThreshold",
    "sklearn.gaussian_process": "GaussianProcessRegressor",
    "sklearn.gaussian_process.kernels": "ConstantKernel DotProduct ExpSineSquared Exponentiation Matern PairwiseKernel Product RBF "
    "RationalQuadratic Sum WhiteKernel",
    "sklearn.impute": "SimpleImputer",
    "sklearn.isotonic": "IsotonicRegression",
    "sklearn.kernel_approximation": "Nystroem RBFSampler",
    "sklearn.kernel_ridge": "KernelRidge",
    "sklearn.linear_model": "ARDRegression BayesianRidge ElasticNet ElasticNetCV GammaRegressor HuberRegressor Lars LarsCV Lasso LassoCV "
    "LassoLars LassoLarsCV LassoLarsIC LinearRegression OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV "
    "PassiveAggressiveRegressor PoissonRegressor QuantileRegressor RANSACRegressor Ridge RidgeCV SGDRegressor TheilSenRegressor "
    "TweedieRegressor",
    "sklearn.neighbors": "KNeighborsRegressor RadiusNeighborsRegressor",
    "sklearn.neural_network": "MLPRegressor",
    "sklearn.pipeline": "FeatureUnion Pipeline",
    "sklearn.preprocessing": "FunctionTransformer MaxAbsScaler MinMaxScaler Normalizer PolynomialFeatures PowerTransformer "
    "QuantileTransformer RobustScaler StandardScaler",
    "sklearn.svm": "LinearSVR NuSVR SVR",
    "sklearn.tree": "DecisionTreeRegressor ExtraTreeRegressor",
}
# What an estimator needs only to be fitted, or what is made again from the rest.
_LEFT_OUT = {
    "GammaRegressor": ("_base_loss",),
    "GaussianProcessRegressor": ("_rng",),
    "GradientBoostingRegressor": ("_loss", "_rng"),
    "HistGradientBoostingRegressor": ("_loss", "_feature_subsample_rng", "_scorer"),
    "IsotonicRegression": ("f_",),
    "KNeighborsRegressor": ("_tree",),
    "MLPRegressor": ("_optimizer", "_random_state"),
    "PoissonRegressor": ("_base_loss",),
    "RadiusNeighborsRegressor": ("_tree",),
    "TweedieRegressor": ("_base_loss",),
}
# Attributes of fitted estimators whose compiled code trusts them: no other is read.
_ATTRIBUTES = {
    "GradientBoostingRegressor": {
        *(
            "n_features_in_",
            "n_trees_per_iteration_",
            "init_",
            "estimators_",
            "train_score_",
            "n_estimators_",
            "max_features_",
        ),
        *("oob_improvement_", "oob_scores_", "oob_score_"),
    },
    "HistGradientBoostingRegressor": {
        *(
            "is_categorical_",
            "_preprocessor",
            "_is_categorical_remapped",
            "n_features_in_",
            "n_trees_per_iteration_",
            "_random_seed",
        ),
        *(
            "_n_features",
            "do_early_stopping_",
            "_use_validation_data",
            "_bin_mapper",
            "_baseline_prediction",
            "_predictors",
        ),
        *("train_score_", "validation_score_"),
    },
}
_FORESTS = ("ExtraTreesRegressor", "RandomForestRegressor")
_METRICS = ("chebyshev", "cityblock", "euclidean", "l1", "l2", "manhattan", "minkowski")
_MOST_PRODUCTS = 10**6
_Estimator = Any


@cache
def known_class(name: str) -> type | None:
    """Return the class of a name such as `sklearn.linear_model.Ridge`, if it is on the list; nothing else is imported."""
    module, _, own = name.rpartition(".")
    if own not in _KNOWN.get(module, "").split():
        return None
    found = getattr(importlib.import_module(module), own, None)
    return found if isinstance(found, type) else None


@cache
def known_name(kind: type) -> str | None:
    """Return the name under which a class is on the list; None if it is not."""
    names = (f"{module}.{kind.__name__}" for module, listed in _KNOWN.items() if kind.__name__ in listed.split())
    return next((n for n in names if known_class(n) is kind), None)


def left_out(kind: type) -> tuple[str, ...]:
    """Return the attributes of an estimator that its file does not contain."""
    return _LEFT_OUT.get(kind.__name__, ()) if known_name(kind) else ()


def complete(estimator: _Estimator) -> None:
    """Check a known estimator that was read from a file, and make again what its file does not contain.

    Raises
    ------
    ValueError, TypeError, AttributeError, KeyError
        If something in it does not fit, so that compiled code would leave its arrays, or code of others would run.
    """
    kind = type(estimator)
    params = set(kind._get_param_names()) if hasattr(kind, "_get_param_names") else set()
    # An attribute of that name would be used in the place of the class' method.
    for name in vars(estimator):
        if name not in params and hasattr(kind, name):
            raise ValueError(f"{kind.__name__} has an attribute {name!r} in the place of its own")
    if (known := _ATTRIBUTES.get(kind.__name__)) is not None and (odd := set(vars(estimator)) - params - known):
        raise ValueError(f"{kind.__name__} has an attribute {min(odd)!r}, which scikit-learn does not give it")
    if kind.__name__ != "HistGradientBoostingRegressor" and any(map(_is_part_of_boosting, _values(vars(estimator)))):
        raise ValueError(f"{kind.__name__} contains a part of histogram boosting")
    if "n_jobs" in vars(estimator):
        # Forests use threads, which cost little; others start processes.
        jobs, allowed = estimator.n_jobs, range(-1, CPU_COUNT + 1) if kind.__name__ in _FORESTS else ()
        estimator.n_jobs = jobs if type(jobs) is int and jobs in allowed else None
    if hasattr(kind, "_parameter_constraints"):
        estimator._validate_params()  # as `fit` does
    if (check := _COMPLETE.get(kind.__name__)) is not None:
        check(estimator)


def numbers_a_row(estimator: object) -> int:
    """Return about how many numbers an estimator holds at once for each row that it estimates, such as distances to its training rows.

    Trees need none that count.
    """
    most, waiting, seen = 1, [estimator], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        own = [v for v in _values(vars(part)) if v is not part]
        sides = [n for v in own if isinstance(v, np.ndarray) for n in v.shape]
        products = vars(part).get("n_output_features_", 0)
        most += max([*sides, products], default=0)
        waiting += [
            v for v in own if hasattr(v, "__dict__") and not isinstance(v, type) and not _is_part_of_boosting(v)
        ]
    return most


def _values(value: object) -> Iterator[object]:
    """Return the values in containers, one after the other."""
    if isinstance(value, dict):
        for part in value.values():
            yield from _values(part)
    elif isinstance(value, list | tuple | set) or (isinstance(value, np.ndarray) and value.dtype == object):
        for part in np.ravel(value) if isinstance(value, np.ndarray) else value:
            yield from _values(part)
    else:
        yield value


def _is_part_of_boosting(value: object) -> bool:
    return type(value).__name__ in ("_BinMapper", "TreePredictor")


def _need(condition: object, what: str) -> None:
    if not condition:
        raise ValueError(what)


def _is_fitted(estimator: _Estimator) -> bool:
    return any(n.endswith("_") and not n.startswith("_") for n in vars(estimator))


def _features(estimator: _Estimator) -> int:
    found = vars(estimator).get("n_features_in_")
    _need(type(found) is int and found > 0, f"{type(estimator).__name__} has no number of features")
    return int(estimator.n_features_in_)


def _no_cache(estimator: _Estimator) -> None:
    # joblib reads pickles from it when the pipeline is fitted again.
    _need(getattr(estimator, "memory", None) is None, "a pipeline with a cache")


def _tree(estimator: _Estimator) -> None:
    if _is_fitted(estimator):
        _need(estimator.tree_.n_features == _features(estimator), "a tree of another number of features")
        _need(estimator.tree_.n_outputs == estimator.n_outputs_ == 1, "a tree of several outputs")


def _dummy(estimator: _Estimator) -> None:
    if _is_fitted(estimator):
        _need(type(estimator.n_outputs_) is int and estimator.n_outputs_ == 1, "a mean of several outputs")
        _need(np.shape(estimator.constant_) == (1, 1), "a mean of several outputs")


def _polynomials(estimator: _Estimator) -> None:
    """Weigh the products of features, whose number grows with the degree as a power."""
    if not _is_fitted(estimator):
        return
    degree = estimator.degree
    low, high = (0, degree) if isinstance(degree, int) else degree
    _need(type(low) is int and type(high) is int and 0 <= low <= high <= 20, "a degree that is none")
    count = math.comb(_features(estimator) + high, high)
    _need(count <= _MOST_PRODUCTS, f"{count} products of features")
    numbers = [vars(estimator).get(n) for n in ("_min_degree", "_max_degree", "_n_out_full", "n_output_features_")]
    _need(numbers[:2] == [low, high], "a degree that is none")
    _need(all(type(n) is int and 0 <= n <= count for n in numbers[2:]), "another number of products")


def _trees(estimator: _Estimator) -> None:
    """Check a forest, or scikit-learn's older boosting: compiled code evaluates their trees without a look at the rows."""
    if not _is_fitted(estimator):
        return
    from sklearn.tree import BaseDecisionTree

    trees = list(np.ravel(estimator.estimators_))
    width = _features(estimator)
    _need(trees and all(isinstance(t, BaseDecisionTree) for t in trees), "an ensemble without trees")
    _need(all(_features(t) == width and _is_fitted(t) for t in trees), "trees of different numbers of features")
    outputs = vars(estimator).get("n_outputs_", 1)
    _need(type(outputs) is int and outputs == 1, "a forest of several outputs")


def _gradient_boosting(estimator: _Estimator) -> None:
    _trees(estimator)
    if _is_fitted(estimator):
        _need(estimator.estimators_.ndim == 2 and estimator.estimators_.shape[1] == 1, "boosting of several outputs")
        _need(vars(estimator).get("n_trees_per_iteration_", 1) == 1, "boosting of several outputs")
        # Compiled code adds to what it estimates, one number for each row.
        start = estimator.init_
        _need(
            isinstance(start, DummyRegressor) or (isinstance(start, str) and start == "zero"), "a start of another kind"
        )
        estimator._loss = estimator._get_loss(sample_weight=None)


def _hist_gradient_boosting(estimator: _Estimator) -> None:
    if not _is_fitted(estimator):
        return
    from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper
    from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

    width, bins = _features(estimator), estimator._bin_mapper
    _need(type(bins) is _BinMapper and estimator._preprocessor is None, "boosting with another preparation")
    categorical = np.asarray(bins.is_categorical_)
    _need(categorical.shape == bins.n_bins_non_missing_.shape == (width,), "features of another number")
    _need(categorical.dtype == np.uint8 and not categorical.any(), "categories, which smgeo's data have not")
    _need(estimator.n_trees_per_iteration_ == 1, "boosting of several outputs")
    _need(np.shape(estimator._baseline_prediction) == (1, 1), "boosting of several outputs")
    for stage in estimator._predictors:
        _need(len(stage) == 1 and type(stage[0]) is TreePredictor, "boosting of several outputs")
        _check_nodes(stage[0], width)
    estimator._loss = estimator._get_loss(sample_weight=None)


def _check_nodes(predictor: _Estimator, width: int) -> None:
    """Check a tree of histogram boosting; a child comes after its parent, so that a row arrives at a leaf."""
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    nodes = predictor.nodes
    _need(nodes.dtype == PREDICTOR_RECORD_DTYPE and nodes.ndim == 1 and len(nodes), "nodes of another kind")
    inner, number = nodes["is_leaf"] == 0, np.arange(len(nodes))
    for side in ("left", "right"):
        child = nodes[side].astype("int64")
        _need(((child > number) & (child < len(nodes)))[inner].all(), "a node points out of its tree")
    feature = nodes["feature_idx"]
    _need(((feature >= 0) & (feature < width))[inner].all(), "a node compares a feature that is none")
    _need(not nodes["is_categorical"].any(), "a node of categories, which smgeo's data have not")


def _neighbors(estimator: _Estimator) -> None:
    if not _is_fitted(estimator):
        return
    from sklearn.neighbors import BallTree, KDTree

    rows = estimator._fit_X
    _need(rows.ndim == 2 and rows.shape[1] == _features(estimator), "neighbours of another number of features")
    _need(len(rows) == len(estimator._y) == estimator.n_samples_fit_, "neighbours without values")
    made = {"kd_tree": KDTree, "ball_tree": BallTree, "brute": None}[estimator._fit_method]
    metric = estimator.effective_metric_
    _need(isinstance(metric, str) and metric in _METRICS, "a metric of another kind")
    for given in (estimator.effective_metric_params_, estimator.metric_params or {}):
        power = given.get("p", 2)
        _need(set(given) <= {"p"} and isinstance(power, int | float) and 1 <= power < 1e3, "arguments of a metric")
    estimator._tree = (
        None if made is None else made(rows, estimator.leaf_size, metric=metric, **estimator.effective_metric_params_)
    )


def _support_vectors(estimator: _Estimator) -> None:
    if not _is_fitted(estimator):
        return
    vectors, width = estimator.support_vectors_, _features(estimator)
    _need(estimator.kernel in ("linear", "poly", "rbf", "sigmoid"), "a kernel of another kind")
    _need(estimator._sparse is False and vectors.dtype == "float64", "vectors of another kind")
    count = len(vectors)
    expected = {
        "support_vectors_": (count, width),
        "support_": (count,),
        "_n_support": (2,),
        "dual_coef_": (1, count),
        "_dual_coef_": (1, count),
        "intercept_": (1,),
        "_intercept_": (1,),
        "_probA": (0,),
        "_probB": (0,),
    }
    for name, shape in expected.items():
        array = getattr(estimator, name)
        kind = "int32" if name in ("support_", "_n_support") else "float64"
        _need(array.shape == shape and array.dtype == kind, f"{name} of another shape")
    _need((estimator._n_support == count).all(), "vectors of another number")


def _generalized_linear(estimator: _Estimator) -> None:
    if _is_fitted(estimator):
        estimator._base_loss = estimator._get_loss()


def _isotonic(estimator: _Estimator) -> None:
    if _is_fitted(estimator):
        estimator._build_f(estimator.X_thresholds_, estimator.y_thresholds_)


_COMPLETE: dict[str, Callable[[_Estimator], None]] = {
    "DecisionTreeRegressor": _tree,
    "DummyRegressor": _dummy,
    "ExtraTreeRegressor": _tree,
    "ExtraTreesRegressor": _trees,
    "GammaRegressor": _generalized_linear,
    "GradientBoostingRegressor": _gradient_boosting,
    "HistGradientBoostingRegressor": _hist_gradient_boosting,
    "IsotonicRegression": _isotonic,
    "KNeighborsRegressor": _neighbors,
    "NuSVR": _support_vectors,
    "Pipeline": _no_cache,
    "PoissonRegressor": _generalized_linear,
    "PolynomialFeatures": _polynomials,
    "RadiusNeighborsRegressor": _neighbors,
    "RandomForestRegressor": _trees,
    "SVR": _support_vectors,
    "TweedieRegressor": _generalized_linear,
}
