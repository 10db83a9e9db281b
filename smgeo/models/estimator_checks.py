"""Checks of known estimators that were read from a file: their parts fit each other, and compiled code stays in its arrays.

scikit-learn checks what it learns from, and not what it has learned.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from dask.system import CPU_COUNT
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyRegressor
from sklearn.gaussian_process.kernels import Kernel
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.tree import BaseDecisionTree

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
_FINITE = ("coef_", "dual_coef_", "intercept_")
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, np.ufunc, type(np.clip))
_TREES = {
    "ExtraTreesRegressor": "ExtraTreeRegressor",
    "GradientBoostingRegressor": "DecisionTreeRegressor",
    "RandomForestRegressor": "DecisionTreeRegressor",
}
# Levels of a tree, and columns that an estimator looks at one by one.
_DEEPEST_TREE, _MOST_COLUMNS = 1000, 10_000
# Kernels in a kernel, each of which holds a number for each training row.
_MOST_KERNELS, _DEEPEST_KERNEL = 20, 8
_Estimator = Any


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
    _check_callables(estimator)
    if hasattr(kind, "_parameter_constraints"):
        estimator._validate_params()  # as `fit` does
    for name in _FINITE:
        value = vars(estimator).get(name)
        if isinstance(value, np.ndarray | float):
            need(np.isfinite(value).all(), f"{name} is not finite")
    check = _kernel if isinstance(estimator, Kernel) else _COMPLETE.get(kind.__name__)
    if check is not None:
        check(estimator)


def numbers_a_row(estimator: object, width: int) -> int:
    """Return about how many numbers an estimator holds at once for each row of `width` numbers, such as distances to its training rows.

    Trees need none that count.
    """
    return _numbers(estimator, width)[1]


def _numbers(estimator: object, width: int) -> tuple[int, int]:
    """Return the numbers of a row that comes out, and that are held."""
    if estimator is None or isinstance(estimator, str) or not hasattr(estimator, "__dict__"):
        return (0 if estimator == "drop" else width), width
    if isinstance(estimator, FeatureUnion):
        parts = [_numbers(part, width) for _, part in estimator.transformer_list]
        return sum(out for out, _ in parts), sum(held for _, held in parts)
    if isinstance(estimator, Pipeline):
        most = width
        for _, part in estimator.steps:
            width, held = _numbers(part, width)
            most = max(most, held)
        return width, most
    values = list(_values(vars(estimator)))
    own = max([width, vars(estimator).get("n_output_features_", 0), *_sides(vars(estimator).values())])
    kernels = sum(_count_kernels(v) for v in values if isinstance(v, Kernel))
    parts = [v for v in values if isinstance(v, BaseEstimator) and not isinstance(v, BaseDecisionTree)]
    inner = sum(_numbers(v, width)[1] for v in parts if not _is_part_of_boosting(v))
    return own, own * max(kernels, 1) + inner


def _sides(values: object) -> Iterator[int]:
    """Return the lengths of arrays, and of lists in the place of arrays."""
    for value in values:  # type: ignore[attr-defined]
        if issparse(value) or (isinstance(value, np.ndarray) and value.dtype != object):
            yield from value.shape
        elif isinstance(value, list | tuple) and not any(isinstance(v, BaseEstimator) for v in value):
            yield len(value)
            yield from _sides(value)


def _count_kernels(kernel: object, depth: int = 0) -> int:
    need(depth < _DEEPEST_KERNEL, f"kernels more than {_DEEPEST_KERNEL} levels deep")
    return 1 + sum(_count_kernels(part, depth + 1) for part in vars(kernel).values() if isinstance(part, Kernel))


def _check_callables(estimator: _Estimator) -> None:
    """Refuse what would be called in the place of a function, but for functions, which the user trusts, and the kernels of a Gaussian process."""
    kernels = isinstance(estimator, Kernel) or type(estimator).__name__ == "GaussianProcessRegressor"
    for value in _values(vars(estimator)):
        if callable(value) and not (isinstance(value, _FUNCTIONS) or (kernels and isinstance(value, Kernel))):
            raise ValueError(f"{type(estimator).__name__} has {value!r:.80} in the place of a function")


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


def need(condition: object, what: str) -> None:
    """Raise a ValueError with these words unless the condition holds."""
    if not condition:
        raise ValueError(what)


def _is_fitted(estimator: _Estimator) -> bool:
    return any(n.endswith("_") and not n.startswith("_") for n in vars(estimator))


def _features(estimator: _Estimator) -> int:
    found = vars(estimator).get("n_features_in_")
    need(type(found) is int and found > 0, f"{type(estimator).__name__} has no number of features")
    return int(estimator.n_features_in_)


def _no_cache(estimator: _Estimator) -> None:
    # joblib reads pickles from it when the pipeline is fitted again.
    need(getattr(estimator, "memory", None) is None, "a pipeline with a cache")


def _tree(estimator: _Estimator) -> None:
    if _is_fitted(estimator):
        need(estimator.tree_.n_features == _features(estimator), "a tree of another number of features")
        need(estimator.tree_.n_outputs == estimator.n_outputs_ == 1, "a tree of several outputs")


def _dummy(estimator: _Estimator) -> None:
    if _is_fitted(estimator):
        need(isinstance(estimator.constant_, np.ndarray), "a mean that is no array")
        need(type(estimator.n_outputs_) is int and estimator.n_outputs_ == 1, "a mean of several outputs")
        need(np.shape(estimator.constant_) == (1, 1), "a mean of several outputs")


def _polynomials(estimator: _Estimator) -> None:
    """Weigh the products of features, whose number grows with the degree as a power."""
    if not _is_fitted(estimator):
        return
    degree = estimator.degree
    low, high = (0, degree) if isinstance(degree, int) else degree
    need(type(low) is int and type(high) is int and 0 <= low <= high <= 20, "a degree that is none")
    count = math.comb(_features(estimator) + high, high)
    need(count <= _MOST_PRODUCTS, f"{count} products of features")
    numbers = [vars(estimator).get(n) for n in ("_min_degree", "_max_degree", "_n_out_full", "n_output_features_")]
    need(numbers[:2] == [low, high], "a degree that is none")
    # scikit-learn fills as many columns as it counts itself, and gives those that it was told of: others would be whatever is in memory.
    of = {
        "n_features": _features(estimator),
        "interaction_only": estimator.interaction_only,
        "include_bias": estimator.include_bias,
    }
    whole, given = (estimator._num_combinations(**of, min_degree=least, max_degree=high) for least in (0, low))
    need(numbers[2:] == [whole, given], "another number of products")


def _trees(estimator: _Estimator) -> None:
    """Check a forest, or scikit-learn's older boosting: compiled code evaluates their trees without a look at the rows."""
    if not _is_fitted(estimator):
        return
    trees = list(np.ravel(estimator.estimators_))
    width = _features(estimator)
    need(trees and all(isinstance(t, BaseDecisionTree) for t in trees), "an ensemble without trees")
    need(all(_features(t) == width and _is_fitted(t) for t in trees), "trees of different numbers of features")
    kind, deepest = _TREES[type(estimator).__name__], estimator.max_depth or _DEEPEST_TREE
    need(
        all(type(t).__name__ == kind and t.tree_.max_depth <= deepest for t in trees), "trees of another kind or depth"
    )
    if type(estimator).__name__ in _FORESTS:
        need(len(trees) == estimator.n_estimators, f"{len(trees)} trees of {estimator.n_estimators}")
    outputs = vars(estimator).get("n_outputs_", 1)
    need(type(outputs) is int and outputs == 1, "a forest of several outputs")


def _gradient_boosting(estimator: _Estimator) -> None:
    _trees(estimator)
    if _is_fitted(estimator):
        need(estimator.estimators_.ndim == 2 and estimator.estimators_.shape[1] == 1, "boosting of several outputs")
        need(vars(estimator).get("n_trees_per_iteration_", 1) == 1, "boosting of several outputs")
        stages = len(estimator.estimators_)
        whole = estimator.n_iter_no_change is None
        need(stages == estimator.n_estimators_, "stages of another number")
        need(
            stages == estimator.n_estimators if whole else stages <= estimator.n_estimators, "stages of another number"
        )
        # Compiled code adds to what it estimates, one number for each row.
        start = estimator.init_
        need(
            isinstance(start, DummyRegressor) or (isinstance(start, str) and start == "zero"), "a start of another kind"
        )
        estimator._loss = estimator._get_loss(sample_weight=None)


def _hist_gradient_boosting(estimator: _Estimator) -> None:
    if not _is_fitted(estimator):
        return
    from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper
    from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

    width, bins = _features(estimator), estimator._bin_mapper
    need(type(bins) is _BinMapper and estimator._preprocessor is None, "boosting with another preparation")
    categorical = np.asarray(bins.is_categorical_)
    need(categorical.shape == bins.n_bins_non_missing_.shape == (width,), "features of another number")
    need(categorical.dtype == np.uint8 and not categorical.any(), "categories, which smgeo's data have not")
    need(estimator.n_trees_per_iteration_ == 1, "boosting of several outputs")
    need(np.shape(estimator._baseline_prediction) == (1, 1), "boosting of several outputs")
    need(1 <= len(estimator._predictors) <= estimator.max_iter, "stages of another number")
    need(estimator.do_early_stopping_ or len(estimator._predictors) == estimator.max_iter, "stages of another number")
    for stage in estimator._predictors:
        need(len(stage) == 1 and type(stage[0]) is TreePredictor, "boosting of several outputs")
        _check_nodes(stage[0], width)
    estimator._loss = estimator._get_loss(sample_weight=None)


def _check_nodes(predictor: _Estimator, width: int) -> None:
    """Check a tree of histogram boosting; a child comes after its parent, so that a row arrives at a leaf."""
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    nodes = predictor.nodes
    need(nodes.dtype == PREDICTOR_RECORD_DTYPE and nodes.ndim == 1 and len(nodes), "nodes of another kind")
    inner, number = nodes["is_leaf"] == 0, np.arange(len(nodes))
    for side in ("left", "right"):
        child = nodes[side].astype("int64")
        need(((child > number) & (child < len(nodes)))[inner].all(), "a node points out of its tree")
    tree_depth(nodes["left"].astype("int64"), nodes["right"].astype("int64"), inner)
    feature = nodes["feature_idx"]
    need(((feature >= 0) & (feature < width))[inner].all(), "a node compares a feature that is none")
    need(not nodes["is_categorical"].any(), "a node of categories, which smgeo's data have not")


def _bagging(estimator: _Estimator) -> None:
    if not _is_fitted(estimator):
        return
    width, parts, chosen = _features(estimator), estimator.estimators_, estimator.estimators_features_
    need(
        isinstance(parts, list) and len(parts) == len(chosen) == estimator.n_estimators, "estimators of another number"
    )
    for part, features in zip(parts, chosen, strict=True):
        right = isinstance(features, np.ndarray) and features.dtype.kind in "iu" and features.ndim == 1
        need(
            right and len(features) == vars(part).get("n_features_in_", len(features)) <= width,
            "features of another number",
        )
        need(((features >= 0) & (features < width)).all(), "a feature that is none")


def _boosted(estimator: _Estimator) -> None:
    if _is_fitted(estimator):
        count = len(estimator.estimators_)
        need(
            1 <= count <= estimator.n_estimators and count <= len(estimator.estimator_weights_),
            "estimators of another number",
        )


def _process(estimator: _Estimator) -> None:
    for kernel in (estimator.kernel, vars(estimator).get("kernel_")):
        if isinstance(kernel, Kernel):
            need(_count_kernels(kernel) <= _MOST_KERNELS, f"a kernel of more than {_MOST_KERNELS} parts")


def _columns(estimator: _Estimator) -> None:
    if _is_fitted(estimator):
        need(
            _features(estimator) <= _MOST_COLUMNS,
            f"more than {_MOST_COLUMNS} features, each of which is transformed alone",
        )


def _perceptron(estimator: _Estimator) -> None:
    if not _is_fitted(estimator):
        return
    hidden = np.atleast_1d(estimator.hidden_layer_sizes).tolist()
    sizes = [_features(estimator), *hidden, 1]
    weights, biases = estimator.coefs_, estimator.intercepts_
    fits = isinstance(weights, list) and isinstance(biases, list)
    need(fits and [np.shape(w) for w in weights] == list(pairwise(sizes)), "layers of other sizes")
    need([np.shape(b) for b in biases] == [(n,) for n in sizes[1:]], "layers of other sizes")


def tree_depth(left: np.ndarray, right: np.ndarray, inner: np.ndarray) -> int:
    """Return the levels below the root of a tree whose `inner` nodes have two children, each behind its parent.

    Raises
    ------
    ValueError
        If a node has two parents, or the tree is deeper than a row should go down.
    """
    children = np.concatenate([left[inner], right[inner]])
    need(len(np.unique(children)) == len(children), "a node has two parents")
    depth, level = 0, np.zeros(1, dtype=np.intp)
    while (level := level[inner[level]]).size:
        level = np.concatenate([left[level], right[level]])
        depth += 1
        need(depth <= _DEEPEST_TREE, f"a tree has more than {_DEEPEST_TREE} levels")
    return depth


def _kernel(kernel: _Estimator) -> None:
    for name, value in vars(kernel).items():
        numbers = isinstance(value, list | tuple) and all(isinstance(v, int | float | np.number) for v in value)
        number = (
            numbers
            or isinstance(value, int | float | np.number)
            or (isinstance(value, np.ndarray) and value.dtype.kind in "fiu")
        )
        need(
            number
            or isinstance(value, Kernel)
            or name.endswith("_bounds")
            or name in ("metric", "pairwise_kernels_kwargs"),
            f"{name} of a kernel is {value!r:.80}",
        )


def _neighbors(estimator: _Estimator) -> None:
    if not _is_fitted(estimator):
        return
    from sklearn.neighbors import BallTree, KDTree

    rows = estimator._fit_X
    need(rows.ndim == 2 and rows.shape[1] == _features(estimator), "neighbours of another number of features")
    need(len(rows) == len(estimator._y) == estimator.n_samples_fit_, "neighbours without values")
    need(estimator._y.shape in ((len(rows),), (len(rows), 1)), "neighbours of several values")
    made = {"kd_tree": KDTree, "ball_tree": BallTree, "brute": None}[estimator._fit_method]
    metric = estimator.effective_metric_
    need(isinstance(metric, str) and metric in _METRICS, "a metric of another kind")
    for given in (estimator.effective_metric_params_, estimator.metric_params or {}):
        power = given.get("p", 2)
        known = set(given) <= {"p", "w"} and given.get("w") is None
        need(known and isinstance(power, int | float) and 1 <= power < 1e3, "arguments of a metric")
    estimator._tree = (
        None if made is None else made(rows, estimator.leaf_size, metric=metric, **estimator.effective_metric_params_)
    )


def _support_vectors(estimator: _Estimator) -> None:
    if not _is_fitted(estimator):
        return
    vectors, width = estimator.support_vectors_, _features(estimator)
    need(estimator.kernel in ("linear", "poly", "rbf", "sigmoid"), "a kernel of another kind")
    need(estimator._sparse is False and vectors.dtype == "float64", "vectors of another kind")
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
        need(array.shape == shape and array.dtype == kind, f"{name} of another shape")
    need((estimator._n_support == count).all(), "vectors of another number")


def _generalized_linear(estimator: _Estimator) -> None:
    if _is_fitted(estimator):
        estimator._base_loss = estimator._get_loss()


def _isotonic(estimator: _Estimator) -> None:
    if _is_fitted(estimator):
        estimator._build_f(estimator.X_thresholds_, estimator.y_thresholds_)


_COMPLETE: dict[str, Callable[[_Estimator], None]] = {
    "AdaBoostRegressor": _boosted,
    "BaggingRegressor": _bagging,
    "DecisionTreeRegressor": _tree,
    "DummyRegressor": _dummy,
    "ExtraTreeRegressor": _tree,
    "ExtraTreesRegressor": _trees,
    "GammaRegressor": _generalized_linear,
    "GaussianProcessRegressor": _process,
    "GradientBoostingRegressor": _gradient_boosting,
    "HistGradientBoostingRegressor": _hist_gradient_boosting,
    "IsotonicRegression": _isotonic,
    "KNeighborsRegressor": _neighbors,
    "MLPRegressor": _perceptron,
    "NuSVR": _support_vectors,
    "Pipeline": _no_cache,
    "PoissonRegressor": _generalized_linear,
    "PolynomialFeatures": _polynomials,
    "PowerTransformer": _columns,
    "QuantileTransformer": _columns,
    "RadiusNeighborsRegressor": _neighbors,
    "RandomForestRegressor": _trees,
    "SVR": _support_vectors,
    "TweedieRegressor": _generalized_linear,
}
