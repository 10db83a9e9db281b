"""Boosted trees: grown by scikit-learn, LightGBM or XGBoost; evaluated by compiled code."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
from dask.system import CPU_COUNT

from smgeo.bounds import weigh_memory
from smgeo.errors import SmgeoError, missing_extra, nearest
from smgeo.files import JsonObject
from smgeo.models.base import Epochs, SoilMoistureModel
from smgeo.models.boosting_engines import (
    Engine,
    Growing,
    Growth,
    Nodes,
    grow_by_lightgbm,
    grow_by_sklearn,
    grow_by_xgboost,
)
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.rows import Rows
from smgeo.models.team import Team
from smgeo.models.trees import NODE_BYTES, Trees, check_width

_ENGINES: dict[str, Engine] = {"sklearn": grow_by_sklearn, "lightgbm": grow_by_lightgbm, "xgboost": grow_by_xgboost}
# scikit-learn bins all rows again each time that it continues.
_STEP = 50
# A number of the rows that engines copy.
_VALUE_BYTES = 8
# One standard deviation of a normal distribution on each side of its median.
_QUANTILES = {"low": 0.1587, "high": 0.8413}


@dataclass(kw_only=True, eq=False, repr=False)
class Boosting(SoilMoistureModel):
    """Gradient-boosted trees on histograms (Friedman 2001, Ann. Stat. 29, 1189-1232).

    The defaults are for places without a station: a low rate, few features at each split and a penalty keep trees from learning stations by
    heart. A library's own defaults err more there (`docs/models.md` has the table).

    Parameters
    ----------
    engine : {"sklearn", "lightgbm", "xgboost"}
        Library that grows the trees; the last two need the extra `boosting`. Whichever it was, the file and estimates need only smgeo.
    trees : int
        Number of trees; the most, with `patience`.
    learning_rate : float
        Share of each tree's estimate that counts.
    max_leaves : int
        Maximum number of leaves of a tree.
    max_depth : int, optional
        Maximum depth of a tree; as deep as its leaves allow by default.
    min_examples : int
        Minimum number of rows in a leaf.
    feature_share : float
        Share of the features that are tried at each split, above 0 and at most 1.
    l2 : float
        Penalty of large leaf values: a leaf's estimate is divided by its rows and so many more.
    patience : int, optional
        Keep the best number of trees at the validation rows, and stop after so many trees without a better one. By default, and without
        validation data, all trees are grown.
    monotone : dict of str to int, optional
        Features with which the estimate may only rise (1) or only fall (-1), such as `{precipitation_7d: 1}`. The quantiles of `spread` are
        free.
    spread : bool
        Estimate two quantiles besides (16 % and 84 %), from as many trees each: prediction intervals are then wide where errors are. Half of
        the distance between the two is `predict_spread`'s second answer. Takes three times as long.
    threads : int, optional
        Number of threads; all cores by default. The result does not depend on it.
    seed : int
    """

    kind: ClassVar[str] = "boosting"

    engine: str = "sklearn"
    trees: int = 300
    learning_rate: float = 0.03
    max_leaves: int = 31
    max_depth: int | None = None
    min_examples: int = 20
    feature_share: float = 0.15
    l2: float = 30.0
    patience: int | None = None
    monotone: dict[str, int] | None = None
    spread: bool = False
    threads: int | None = None
    seed: int = 0

    @property
    def uses_validation(self) -> bool:
        """True if `fit` stops early on validation data: with `patience`."""
        return self.patience is not None

    @property
    def has_spread(self) -> bool:
        """True with `spread`."""
        return self.spread

    def check_params(self) -> None:
        """Refuse values that a library would refuse later, or misread."""
        if self.engine not in _ENGINES:
            raise SmgeoError(f"boosting: unknown engine {self.engine!r}; {nearest(self.engine, tuple(_ENGINES))}")
        counts = (self.trees, self.min_examples, self.max_depth, self.patience, self.threads)
        if min(n for n in counts if n is not None) < 1 or self.max_leaves < 2:
            raise SmgeoError(
                "boosting: trees, min_examples, max_depth, patience and threads must be 1 or more, and max_leaves 2 or more"
            )
        if not (0 < self.learning_rate <= 1 and 0 < self.feature_share <= 1 and self.l2 >= 0):
            raise SmgeoError(
                "boosting: learning_rate and feature_share must be above 0 and at most 1, and l2 0 or more; got "
                f"{self.learning_rate:g}, {self.feature_share:g} and {self.l2:g}"
            )
        _check_monotone(self.monotone)

    def check_installed(self) -> None:
        """Refuse a library that is not installed."""
        if find_spec(self.engine) is None:
            raise missing_extra(f"boosting by {self.engine} (engine='sklearn' needs nothing more)", "boosting")

    def _fit(
        self,
        x: Rows,
        y: np.ndarray,
        validation: tuple[Rows, np.ndarray] | None,
        checkpoint: Checkpoint | None,
        team: Team | None,
    ) -> Epochs:
        check_width(self.kind, x.shape[-1])
        self._weigh(len(y), x.shape[-1])
        rows = x.all()
        heads = self._heads(rows, y)
        stopping = None
        if validation is not None and self.patience is not None:
            stopping = _Stopping(heads["mean"].base, validation[0].all(), validation[1], self.patience, self._threads)
        grown: dict[str, list[Nodes]] = {head: [] for head in heads}
        self._bases = {head: growing.base for head, growing in heads.items()}
        while True:
            steps = {head: next(growing.steps, []) for head, growing in heads.items()}
            if not any(steps.values()):
                return
            for head, step in steps.items():
                grown[head] += step
            best = None if stopping is None else stopping.add(steps["mean"])
            self._trees = {head: Trees.of(trees[:best]) for head, trees in grown.items()}
            scores: dict[str, float] = {"epoch": len(grown["mean"]), "epochs": self.trees}
            yield scores if stopping is None else {**scores, "val_rmse": stopping.rmse[-1]}
            if stopping is not None and stopping.is_over:
                return

    def _heads(self, rows: np.ndarray, y: np.ndarray) -> dict[str, Growing]:
        """Return the growth of the mean, and with `spread` of its two quantiles."""
        quantiles = {"mean": None, **(_QUANTILES if self.spread else {})}
        how = Growth(
            trees=self.trees,
            learning_rate=self.learning_rate,
            max_leaves=self.max_leaves,
            max_depth=self.max_depth,
            min_examples=self.min_examples,
            feature_share=self.feature_share,
            l2=self.l2,
            monotone=self._constraints(),
            quantile=None,
            threads=self._threads,
            seed=self.seed,
        )
        grow = _ENGINES[self.engine]
        free = (0,) * len(how.monotone)  # no library keeps a quantile monotone
        grown = {h: how if q is None else replace(how, quantile=q, monotone=free) for h, q in quantiles.items()}
        return {head: grow(each, rows, y, _STEP) for head, each in grown.items()}

    def _weigh(self, rows: int, features: int) -> None:
        """Refuse trees, and a copy of the rows, that would not fit in memory."""
        leaves = min(self.max_leaves, max(rows // self.min_examples, 1))
        nodes = 2 * leaves * self.trees * (3 if self.spread else 1)
        what = f"boosting of {self.trees:,} trees on {rows:,} rows of {features:,} features"
        weigh_memory(what, nodes * NODE_BYTES + rows * features * _VALUE_BYTES)

    def _constraints(self) -> tuple[int, ...]:
        """Return -1, 0 or 1 for each column of X, by the features' names."""
        wanted = self.monotone or {}
        prepared = self.preparation_
        if prepared is not None:
            names = list(prepared["features"])
            flags = names if prepared["missing"] > 0 else []  # a channel that says where a feature was observed
            day = [*(wanted.get(n, 0) for n in names), *(0 for _ in flags)]
            columns = day * (self.n_features_in_ // len(day))
        else:
            names = [str(n) for n in getattr(self, "feature_names_in_", ())]
            columns = [wanted.get(n, 0) for n in names] if names else [0] * self.n_features_in_
        if unknown := [n for n in wanted if n not in names]:
            known = nearest(unknown[0], names) if names else "X has no names of columns; give windows or a table"
            raise SmgeoError(f"boosting: monotone names {unknown[0]!r}, which is no feature; {known}")
        return tuple(columns)

    @property
    def _threads(self) -> int:
        return self.threads or CPU_COUNT

    def _estimate(self, x: Rows, *heads: str) -> np.ndarray:
        """Return the estimates of some heads, (heads, n) float32."""
        out = np.empty((len(heads), len(x)), dtype="float32")
        for block, values in x.blocks():
            for i, head in enumerate(heads):
                out[i, block] = self._bases[head] + self._trees[head].total(values, self._threads)
        return out

    def _predict(self, x: Rows) -> np.ndarray:
        return np.asarray(self._estimate(x, "mean")[0])

    def _predict_spread(self, x: Rows) -> tuple[np.ndarray, np.ndarray]:
        mean, low, high = self._estimate(x, "mean", *_QUANTILES)
        return mean, np.maximum(high - low, 0) / 2

    def _describe_training(self) -> JsonObject:
        return {"trees": len(self._trees["mean"].depths), "bases": self._bases}

    def _save_weights(self, folder: Path) -> None:
        for head, trees in self._trees.items():
            trees.save(folder / f"{head}.npz")

    def _load_weights(self, folder: Path, trusted: Collection[str]) -> None:
        heads = ("mean", *(_QUANTILES if self.spread else ()))
        bases, count = self.training_.get("bases"), self.training_.get("trees")
        if not isinstance(bases, dict) or set(bases) != set(heads) or not all(map(_is_finite, bases.values())):
            raise SmgeoError(f"{folder}: the estimates before its first tree are damaged; train the model again")
        trees = {head: Trees.load(folder / f"{head}.npz", self.n_features_in_) for head in heads}
        if len(trees["mean"].depths) != count or any(len(t.depths) > self.trees for t in trees.values()):
            raise SmgeoError(f"{folder}: its trees are not as many as its parameters describe; train the model again")
        self._trees, self._bases = trees, bases


class _Stopping:
    """The validation RMSE after each tree, and when to stop."""

    def __init__(self, base: float, x: np.ndarray, y: np.ndarray, patience: int, threads: int) -> None:
        self._x, self._y, self._patience, self._threads = x, y.astype("float64"), patience, threads
        self._estimate = np.full(len(y), base)
        self.rmse: list[float] = []

    def add(self, trees: Sequence[Nodes]) -> int:
        """Score more trees one by one, until it is over; return how many of all are best."""
        for tree in trees:
            if self.rmse and self.is_over:
                break
            self._estimate += Trees.of([tree]).total(self._x, self._threads)
            self.rmse.append(float(np.sqrt(np.mean((self._estimate - self._y) ** 2))))
        return self._best

    @property
    def _best(self) -> int:
        return int(np.argmin(self.rmse)) + 1

    @property
    def is_over(self) -> bool:
        """True after `patience` trees without a better one."""
        return len(self.rmse) - self._best >= self._patience


def _is_finite(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


def _check_monotone(monotone: object) -> None:
    if monotone is None:
        return
    if not isinstance(monotone, dict) or not all(
        isinstance(n, str) and type(v) is int and v in (-1, 0, 1) for n, v in monotone.items()
    ):
        raise SmgeoError(
            f"boosting: monotone must name features with 1 (rises) or -1 (falls), such as {{precipitation_7d: 1}}; got {monotone!r}"
        )
