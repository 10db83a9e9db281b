"""The area of applicability: where on the grid a model is asked for what its training data were like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy.spatial import KDTree

from smgeo.errors import SmgeoError


@dataclass(frozen=True, eq=False)
class Applicability:
    """Dissimilarity of places to the training data, and the threshold beyond which a model is not applicable.

    After Meyer and Pebesma 2021 (Methods Ecol. Evol. 12, 1620-1633): features are brought to unit spread and weighted by their
    importance; the dissimilarity index is the distance to the nearest training row, over the mean distance between training
    rows; the threshold is the upper whisker of the index of training rows, each compared with the rows of other folds alone.

    Attributes
    ----------
    features : tuple of str
    center, scale, weights : numpy.ndarray
        (features,): mean and standard deviation of the training rows, and weights, 0 or more.
    reference : numpy.ndarray
        (rows, features with a weight) float32, scaled and weighted.
    mean_distance : float
    threshold : float
        Of the index.
    rows, folds, stations : int
        Training rows that the reference is drawn from, folds that the threshold comes from, stations in all.
    """

    features: tuple[str, ...]
    center: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    reference: np.ndarray
    mean_distance: float
    threshold: float
    rows: int
    folds: int
    stations: int

    @classmethod
    def learn(
        cls,
        x: np.ndarray,
        fold: np.ndarray,
        features: Sequence[str],
        weights: np.ndarray,
        *,
        rows: int | None = None,
        stations: int = 0,
    ) -> Self:
        """From training rows.

        Parameters
        ----------
        x : numpy.ndarray
            (rows, features).
        fold : numpy.ndarray of int
            (rows,): a row is compared with those of other folds. Each row a fold of its own compares it with all others.
        features : sequence of str
        weights : numpy.ndarray
            (features,); those below 0 count as 0.
        rows, stations : int, optional
            What `x` was drawn from.

        Raises
        ------
        SmgeoError
            If there are fewer than two folds, or no feature that varies has a weight.
        """
        found = np.unique(fold)
        if len(found) < 2:
            raise SmgeoError(
                f"the area of applicability needs training rows in two or more folds; there are {len(found)}"
            )
        x = x.astype("float64")
        center, scale = x.mean(axis=0), x.std(axis=0, ddof=1)
        weights = np.where(scale > 0, np.maximum(weights, 0), 0.0)
        if not weights.any():
            raise SmgeoError("the area of applicability needs a feature that varies and has a weight above 0")
        used = weights > 0
        points = ((x - center) / np.where(scale > 0, scale, 1) * weights)[:, used].astype("float32")
        mean = _mean_distance(points)
        nearest = np.empty(len(points))
        for f in found:
            nearest[fold == f] = _nearest(KDTree(points[fold != f]), points[fold == f])
        return cls(
            tuple(features),
            center,
            np.where(scale > 0, scale, 1),
            weights,
            points,
            mean,
            _upper_whisker(nearest / mean),
            len(x) if rows is None else rows,
            len(found),
            stations,
        )

    def index(self, x: np.ndarray) -> np.ndarray:
        """Dissimilarity index of rows (n, features): (n,) float32."""
        return (_nearest(self._tree, self._points(x)) / self.mean_distance).astype("float32")

    def inside(self, x: np.ndarray) -> np.ndarray:
        """1 where rows (n, features) lie in the area of applicability, else 0: (n,) float32."""
        return (self.index(x) <= np.float32(self.threshold)).astype("float32")

    def _points(self, x: np.ndarray) -> np.ndarray:
        used = self.weights > 0
        factor = (self.weights[used] / self.scale[used]).astype("float32")
        return (x[:, used] - self.center[used].astype("float32")) * factor

    @property
    def _tree(self) -> KDTree:
        if "_made" not in self.__dict__:
            object.__setattr__(self, "_made", KDTree(self.reference))
        made: KDTree = self.__dict__["_made"]
        return made

    def save(self, file: Path) -> dict[str, Any]:
        """Write the arrays to `file` (`.npz`, no pickle); the rest as JSON types."""
        arrays = {n: getattr(self, n) for n in ("center", "scale", "weights", "reference")}
        np.savez_compressed(file, allow_pickle=False, **arrays)
        numbers = {n: getattr(self, n) for n in ("mean_distance", "threshold", "rows", "folds", "stations")}
        return {"features": list(self.features), **numbers}

    @classmethod
    def load(cls, file: Path, about: dict[str, Any]) -> Self:
        """What `save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            return cls(**{**about, "features": tuple(about["features"])}, **dict(arrays))


def _nearest(tree: KDTree, points: np.ndarray) -> np.ndarray:
    return np.asarray(tree.query(points)[0])


def _mean_distance(points: np.ndarray) -> float:
    """Mean Euclidean distance between two different points."""
    total, n = 0.0, len(points)
    for start in range(0, n, 512):
        part = points[start : start + 512].astype("float64")
        squares = (part**2).sum(axis=1)[:, None] + (points.astype("float64") ** 2).sum(axis=1) - 2 * part @ points.T
        total += float(np.sqrt(np.maximum(squares, 0)).sum())
    return total / (n * (n - 1))


def _upper_whisker(values: np.ndarray) -> float:
    """The end of a box plot's upper whisker: 1.5 times the box above it, or the largest value.

    >>> _upper_whisker(np.array([0.0, 1.0, 2.0, 3.0, 4.0])), _upper_whisker(np.array([0.0, 1.0, 2.0, 3.0, 50.0]))
    (4.0, 6.0)
    """
    low, high = np.quantile(values, [0.25, 0.75])
    return float(min(high + 1.5 * (high - low), values.max()))
