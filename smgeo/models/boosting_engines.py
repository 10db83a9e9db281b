"""Libraries that grow boosted trees, each behind one function: a first estimate, and then trees, some at a time.

Trees come as (left, right, feature, threshold, value) of their nodes, as `smgeo.models.trees.Trees.of` takes them: a row goes right if its
feature is above the threshold. So nothing of a library is needed for an estimate, or in a model file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from smgeo.files import JsonObject
from smgeo.models.trees import float32_below

if TYPE_CHECKING:
    from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

# (left, right, feature, threshold, value) of each node of a tree, the root first; leaves have left -1.
Nodes: TypeAlias = tuple[np.ndarray, ...]
# A tree that adds nothing.
_LEAF: Nodes = (np.array([-1]), np.array([-1]), np.array([0]), np.array([0.0]), np.array([0.0]))


@dataclass(frozen=True)
class Growth:
    """How trees are grown; the words of `smgeo.models.boosting.Boosting`.

    `monotone` is -1, 0 or 1 for each feature; `quantile` is the one that is estimated, None for the mean.
    """

    trees: int
    learning_rate: float
    max_leaves: int
    max_depth: int | None
    min_examples: int
    feature_share: float
    l2: float
    monotone: tuple[int, ...]
    quantile: float | None
    threads: int
    seed: int


class Growing(NamedTuple):
    """The estimate before the first tree, and the trees, as many at a time as the library makes well."""

    base: float
    steps: Iterator[list[Nodes]]


Engine: TypeAlias = Callable[[Growth, np.ndarray, np.ndarray, int], Growing]


def grow_by_sklearn(how: Growth, x: np.ndarray, y: np.ndarray, step: int) -> Growing:
    """Grow `step` trees at a time by scikit-learn's histogram boosting; x is (n, features) float32."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    model = HistGradientBoostingRegressor(
        loss="squared_error" if how.quantile is None else "quantile",
        quantile=how.quantile,
        learning_rate=how.learning_rate,
        max_leaf_nodes=how.max_leaves,
        max_depth=how.max_depth,
        min_samples_leaf=how.min_examples,
        max_features=how.feature_share,
        l2_regularization=how.l2,
        monotonic_cst=list(how.monotone) if any(how.monotone) else None,
        early_stopping=False,
        warm_start=True,
        random_state=how.seed,
    )

    def grow(trees: int) -> list[Nodes]:
        done = 0 if not hasattr(model, "_predictors") else len(model._predictors)
        with threadpool_limits(how.threads, "openmp"):
            model.set_params(max_iter=done + trees).fit(x, y)
        return [_nodes_of_sklearn(predictor) for (predictor,) in model._predictors[done:]]

    first = grow(min(step, how.trees))

    def steps() -> Iterator[list[Nodes]]:
        yield first
        for done in range(step, how.trees, step):
            yield grow(min(step, how.trees - done))

    return Growing(float(model._baseline_prediction.item()), steps())


def _nodes_of_sklearn(predictor: TreePredictor) -> Nodes:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    left = np.where(leaf, -1, nodes["left"].astype(np.int64))
    # A row goes left where its value is at most the threshold, which is a float64.
    return (
        left,
        nodes["right"].astype(np.int64),
        nodes["feature_idx"],
        float32_below(nodes["num_threshold"]),
        nodes["value"],
    )


def grow_by_lightgbm(how: Growth, x: np.ndarray, y: np.ndarray, step: int) -> Growing:
    """Grow by LightGBM (Ke et al. 2017)."""
    import lightgbm

    params: JsonObject = {
        "objective": "regression" if how.quantile is None else "quantile",
        "learning_rate": how.learning_rate,
        "num_leaves": how.max_leaves,
        "max_depth": how.max_depth or -1,
        "min_data_in_leaf": how.min_examples,
        "feature_fraction_bynode": how.feature_share,
        "lambda_l2": how.l2,
        "seed": how.seed,
        "num_threads": how.threads,
        "deterministic": True,
        "force_row_wise": True,  # else the layout is chosen by timing
        "verbosity": -1,
    }
    if how.quantile is not None:
        params["alpha"] = how.quantile
    if any(how.monotone):
        params["monotone_constraints"] = list(how.monotone)
    base = _first_estimate(how, y)
    data = lightgbm.Dataset(x, y, init_score=np.full(len(y), base), params=params)
    booster = lightgbm.Booster(params, data)

    def trees() -> Iterator[Nodes]:
        for _ in range(how.trees):
            if booster.update():  # the features that were drawn split nothing; others may
                yield _LEAF
                continue
            last = booster.current_iteration() - 1
            (tree,) = booster.dump_model(num_iteration=1, start_iteration=last)["tree_info"]
            yield _nodes_of_lightgbm(tree["tree_structure"])

    return Growing(base, _some_at_a_time(trees(), step))


def _nodes_of_lightgbm(root: JsonObject) -> Nodes:
    """Return the nodes of a tree whose children are inside of it."""
    nodes: list[JsonObject] = [root]
    children: list[tuple[int, int]] = []
    for node in nodes:  # which grows
        inner = "left_child" in node
        children.append((len(nodes), len(nodes) + 1) if inner else (-1, -1))
        if inner:
            nodes += [node["left_child"], node["right_child"]]
    left, right = np.array(children).T
    feature = np.array([node.get("split_feature", 0) for node in nodes])
    threshold = np.array([node.get("threshold", 0.0) for node in nodes], dtype="float64")
    return left, right, feature, float32_below(threshold), np.array([node.get("leaf_value", 0.0) for node in nodes])


def grow_by_xgboost(how: Growth, x: np.ndarray, y: np.ndarray, step: int) -> Growing:
    """Grow by XGBoost (Chen and Guestrin 2016), leaf by leaf as the others do."""
    import xgboost

    base = _first_estimate(how, y)
    params: JsonObject = {
        "objective": "reg:squarederror" if how.quantile is None else "reg:quantileerror",
        "tree_method": "hist",
        "grow_policy": "lossguide",
        "learning_rate": how.learning_rate,
        "max_leaves": how.max_leaves,
        "max_depth": how.max_depth or 0,
        "min_child_weight": how.min_examples,
        "colsample_bynode": how.feature_share,
        "lambda": how.l2,
        "base_score": base,
        "seed": how.seed,
        "nthread": how.threads,
        "verbosity": 0,
    }
    if how.quantile is not None:
        params["quantile_alpha"] = how.quantile
    if any(how.monotone):
        params["monotone_constraints"] = tuple(how.monotone)
    data = xgboost.QuantileDMatrix(x, y, nthread=how.threads)
    booster = xgboost.Booster(params, [data])

    def trees() -> Iterator[Nodes]:
        for done in range(how.trees):
            booster.update(data, done)
            content = json.loads(bytes(booster[done : done + 1].save_raw("json")))
            (tree,) = content["learner"]["gradient_booster"]["model"]["trees"]
            yield _nodes_of_xgboost(tree)

    return Growing(base, _some_at_a_time(trees(), step))


def _first_estimate(how: Growth, y: np.ndarray) -> float:
    return float(
        np.mean(y, dtype="float64") if how.quantile is None else np.quantile(y.astype("float64"), how.quantile)
    )


def _some_at_a_time(trees: Iterator[Nodes], step: int) -> Iterator[list[Nodes]]:
    while some := list(islice(trees, step)):
        yield some


def _nodes_of_xgboost(tree: JsonObject) -> Nodes:
    left = np.array(tree["left_children"])
    condition = np.array(tree["split_conditions"], dtype="float32")
    # A row goes left where its value is below the threshold; of a leaf this is its estimate.
    above = np.nextafter(condition, np.float32(-np.inf))
    return left, np.array(tree["right_children"]), np.array(tree["split_indices"]), above, condition
