"""The area of applicability: the places that are similar to the training data of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.spatial import KDTree
from typing_extensions import TypedDict  # pydantic reads no TypedDict of Python 3.11

from smgeo.errors import SmgeoError
from smgeo.models.arrays import read_arrays, write_arrays
from smgeo.models.near_points import arrange, count_near, find_near, group_around_some
from smgeo.models.ranges import mean_in_ranges

_ARRAYS = ("center", "scale", "weights", "reference")
# Arrays that older files lack.
_LATER = ("group", "error_index", "error")
# Numbers beyond it have no square in float32.
_LARGEST = 1e15
# Rows of a reference, at most: searching very many equal ones takes minutes.
MOST_ROWS = 1_000_000
# An error is learned for so many ranges of the index, if there are so many groups for each.
_RANGES, _GROUPS_OF_RANGE = 20, 5
# Indices that differ by less are one: they differ by rounding.
_SAME_INDEX = 1e-6
# A row is inside up to so much more than the threshold, which is often the index of a row itself: distances are rounded in several ways.
_SLACK = 1 + 1e-5
_MOST_GROUPS = 20_000


class ApplicabilityState(TypedDict):
    """The parts of an `Applicability` that are no arrays, as JSON types."""

    features: list[str]
    mean_distance: float
    threshold: float
    rows: int
    folds: int
    stations: int


def _nothing() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, eq=False)
class Applicability:
    """Dissimilarity of places to the training data, and the threshold beyond which a model is not applicable.

    After Meyer and Pebesma 2021 (Methods Ecol. Evol. 12, 1620-1633): features are brought to unit spread and weighted by their
    importance; the dissimilarity index is the distance to the nearest training row, over the mean distance between training
    rows; the threshold is the upper whisker of the index of training rows, each compared only with the rows of other folds.
    The code is our own because the method's package, CAST, is in R.

    Attributes
    ----------
    features : tuple of str
    center, scale, weights : numpy.ndarray
        (features,): mean and standard deviation of the training rows, and weights, 0 or more.
    reference : numpy.ndarray
        (rows, features with a weight, the heaviest first) float32, scaled and weighted.
    mean_distance : float
        Mean distance between two training rows.
    threshold : float
        Largest index inside the area.
    rows, folds, stations : int
        Training rows from which the reference is drawn, folds from which the threshold was computed, and stations.
    group : numpy.ndarray of int
        (rows,): the group of stations (place) of each row of the reference; empty if it is not known.
    error_index, error : numpy.ndarray
        Indices, ascending, and the RMSE that is to be expected at each, in the target's unit; empty before `learn_errors`.
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
    group: np.ndarray = field(default_factory=_nothing)
    error_index: np.ndarray = field(default_factory=_nothing)
    error: np.ndarray = field(default_factory=_nothing)

    @classmethod
    def learn(
        cls,
        x: np.ndarray,
        fold: np.ndarray,
        features: Sequence[str],
        weights: np.ndarray,
        *,
        group: np.ndarray | None = None,
        compared: Mapping[int, np.ndarray] | None = None,
        rows: int | None = None,
        stations: int = 0,
    ) -> Self:
        """Learn the area from training rows.

        Parameters
        ----------
        x : numpy.ndarray
            (rows, features).
        fold : numpy.ndarray of int
            (rows,): a row is compared with those of other folds; with all others, if each row has its own fold.
        features : sequence of str
        weights : numpy.ndarray
            (features,); those below 0 count as 0.
        group : numpy.ndarray of int, optional
            (rows,): the place of a row; by default each row is a place.
        compared : mapping of int to numpy.ndarray of bool, optional
            Fold -> (rows,): the rows with which those of the fold are compared; by default all of other folds.
        rows, stations : int, optional
            Number of rows and stations from which `x` was drawn.

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
        scale = np.where(scale > 0, scale, 1)
        points = _scaled(x.astype("float32"), center, scale, weights)
        mean = _mean_distance(points)
        nearest = np.full(len(points), np.inf)
        for f in found:
            others = fold != f if compared is None else compared[int(f)]
            if others.any():
                nearest[fold == f] = _nearest(KDTree(points[others]), points[fold == f])
        nearest = nearest[np.isfinite(nearest)]
        if not nearest.size:
            raise SmgeoError(
                "the area of applicability: no training row is far enough from another to be compared; use a smaller buffer"
            )
        return cls(
            tuple(features),
            center,
            scale,
            weights,
            points,
            mean,
            _upper_whisker(nearest / mean),
            len(x) if rows is None else rows,
            len(found),
            stations,
            (np.arange(len(x)) if group is None else group).astype("int32"),
        )

    def learn_errors(
        self, x: np.ndarray, errors: np.ndarray, group: np.ndarray, fold: np.ndarray, trained: Sequence[np.ndarray] = ()
    ) -> Self:
        """Return the area with the error that is to be expected at an index, learned from errors at rows that a model did not see.

        After Meyer and Pebesma 2021 (and R's CAST), with places that weigh the same in the place of rows: mean squared errors in up to
        twenty ranges of the index inside the area, five places each at least, that never fall as the index grows (isotonic regression). Rows with
        the same index are in one range. With fewer than five places inside, nothing is learned.

        Parameters
        ----------
        x : numpy.ndarray
            (rows, features), as in `learn`.
        errors : numpy.ndarray
            (rows,), in the target's unit.
        group, fold : numpy.ndarray of int
            (rows,): the place of a row, numbered as in `learn`; and the fold that it was left out with, or a number below 0 if it is no
            training row, which is compared with all of them.
        trained : sequence of numpy.ndarray of int
            The places that the model of each fold was trained on: with these its rows are compared.
        """
        points, index = self._points(x.astype("float32")), np.full(len(x), np.inf)
        for f in np.unique(fold):
            rows = fold == f
            others = np.isin(self.group, trained[f]) if f >= 0 else np.ones(len(self.reference), dtype=np.bool_)
            if others.any():
                index[rows] = _nearest(KDTree(self.reference[others]), points[rows]) / self.mean_distance
        inside = self.contains(index)
        _, of, rows_of = np.unique(group[inside], return_inverse=True, return_counts=True)
        if len(rows_of) < _GROUPS_OF_RANGE:
            return self
        weights = 1 / rows_of[of]
        distinct, which = np.unique(np.round(index[inside] / _SAME_INDEX), return_inverse=True)
        total = np.bincount(which, weights)
        squares = np.bincount(which, weights * errors[inside] ** 2) / total
        ranges = min(len(rows_of) // _GROUPS_OF_RANGE, _RANGES)
        at, squares, weight = mean_in_ranges(distinct * _SAME_INDEX, squares, total, ranges)
        return replace(self, error_index=at, error=np.sqrt(isotonic_regression(squares, weights=weight).x))

    def index(self, x: np.ndarray) -> np.ndarray:
        """Return the dissimilarity index of rows (n, features): (n,) float32; infinite for numbers too large to be compared."""
        points = self._points(x)
        index, known = np.full(len(x), np.inf, dtype="float32"), np.isfinite(points).all(axis=1)
        index[known] = _nearest(self._tree, points[known]) / self.mean_distance
        return index

    def contains(self, index: np.ndarray) -> np.ndarray:
        """Return which rows, of these dissimilarity indices, are inside the area: bool (n,)."""
        inside: np.ndarray = index <= self.threshold * _SLACK
        return inside

    @property
    def _reach(self) -> float:
        return float(np.float32(self.threshold * _SLACK * self.mean_distance))

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Return 1 for rows (n, features) in the area of applicability, else 0: (n,) float32.

        The result is that of `index`, ten times as fast: one training row that is near enough is sufficient, and neighbouring rows of a map
        often share it.
        """
        out = np.empty(len(x), dtype=np.bool_)
        centers, radius, points, distance, starts = self._groups
        find_near(self._points(x), centers, radius, points, distance, starts, self._reach, self._rounding, out)
        return out.astype("float32")

    def local_point_density(self, x: np.ndarray) -> np.ndarray:
        """Return how many training places have a row within the threshold of rows (n, features): (n,) float32; 0 outside the area.

        As the local point density of R's CAST, which counts rows; with one row at each place it is the same. Days of one place are
        like each other, so that many similar rows may be those of a single place.

        Raises
        ------
        SmgeoError
            If the places of the training rows are not known.
        """
        self.check_groups()
        out = np.empty(len(x), dtype="float32")
        centers, radius, points, distance, starts = self._places
        count_near(self._points(x), centers, radius, points, distance, starts, self._reach, self._rounding, out)
        return out

    def expected_error(self, index: np.ndarray) -> np.ndarray:
        """Return the RMSE that is to be expected at dissimilarity indices: (n,) float32, in the target's unit; NaN outside the area.

        Raises
        ------
        SmgeoError
            If no errors were learned.
        """
        self.check_errors()
        found = np.interp(index, self.error_index, self.error)
        return np.where(self.contains(index), found, np.nan).astype("float32")

    def check_groups(self) -> None:
        """Refuse `local_point_density` of an area whose places are not known."""
        if not self.group.size:
            raise SmgeoError(
                "local_point_density: the model's area of applicability is from an older version; find it again with smgeo.find_applicability"
            )

    def check_errors(self) -> None:
        """Refuse `expected_error` of an area that has learned no errors."""
        if not self.error.size:
            raise SmgeoError(
                "expected_error: the model's area of applicability knows no errors at five held-out places or more; find it again with "
                "smgeo.find_applicability and a split that has validation stations, or in a recipe with intervals from folds"
            )

    @cached_property
    def _rounding(self) -> float:
        """Return how far a distance to a centre may be wrong: it decides what is compared at all."""
        return float(np.float32(1e-5 * np.abs(self.reference).max(initial=0)))

    def _points(self, x: np.ndarray) -> np.ndarray:
        return _scaled(x, self.center, self.scale, self.weights)

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(self.reference)

    @cached_property
    def _groups(self) -> tuple[np.ndarray, ...]:
        return group_around_some(self.reference)

    @cached_property
    def _places(self) -> tuple[np.ndarray, ...]:
        _ids, of = np.unique(self.group, return_inverse=True)
        rows = np.bincount(of)
        centers = np.stack([np.bincount(of, column) / rows for column in self.reference.T], axis=1).astype("float32")
        return arrange(self.reference, centers, of)

    def save(self, file: Path) -> ApplicabilityState:
        """Write the arrays to `file` (`.npz`, no pickle), and return the rest as JSON types."""
        write_arrays(file, {name: getattr(self, name) for name in (*_ARRAYS, *_LATER)})
        return {
            "features": list(self.features),
            "mean_distance": float(self.mean_distance),
            "threshold": float(self.threshold),
            "rows": int(self.rows),
            "folds": int(self.folds),
            "stations": int(self.stations),
        }

    @classmethod
    def load(cls, file: Path, about: ApplicabilityState) -> Self:
        """Return the area that `save` wrote.

        Raises
        ------
        SmgeoError
            If the file is another: compiled code reads its arrays without checks.
        """
        try:
            arrays = read_arrays(file)
            if not set(_ARRAYS) <= set(arrays) <= {*_ARRAYS, *_LATER}:
                raise ValueError(f"its arrays are {', '.join(sorted(arrays))}")
            area = cls(
                tuple(about["features"]),
                arrays["center"],
                arrays["scale"],
                arrays["weights"],
                arrays["reference"],
                about["mean_distance"],
                about["threshold"],
                about["rows"],
                about["folds"],
                about["stations"],
                *(arrays.get(name, _nothing()) for name in _LATER),
            )
            area._check()
        except (ValueError, KeyError, TypeError) as error:
            raise SmgeoError(
                f"{file} contains no area of applicability ({error}); find it again with smgeo.find_applicability"
            ) from None
        return area

    def _check(self) -> None:
        for name in ("center", "scale", "weights"):
            array = getattr(self, name)
            if array.shape != (len(self.features),) or array.dtype != "float64":
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
        numbers = np.concatenate([self.center, self.scale, self.weights, [self.mean_distance, self.threshold]])
        if not np.isfinite(numbers).all() or not (self.scale > 0).all() or not (self.weights >= 0).all():
            raise ValueError("its numbers are not finite, or below 0")
        with np.errstate(all="ignore"):  # estimates are made in float32
            factor = (self.weights / self.scale).astype("float32")
        large = max(
            float(np.abs(factor).max()), float(np.abs(self.center).max()), float(np.abs(self.reference).max(initial=0))
        )
        if not large < _LARGEST or (factor[self.weights > 0] == 0).any():
            raise ValueError("its numbers are too large or too small")
        if not len(self.reference) <= min(self.rows, MOST_ROWS):
            raise ValueError(f"its reference has {len(self.reference)} rows")
        width = int((self.weights > 0).sum())
        if self.reference.dtype != "float32" or self.reference.ndim != 2 or self.reference.shape[1] != width:
            raise ValueError(f"its reference is {self.reference.dtype} of shape {self.reference.shape}")
        if not np.isfinite(self.reference).all():
            raise ValueError("its reference is not finite")
        if not self.reference.size or not self.mean_distance > 0 or not self.threshold >= 0:
            raise ValueError("it has no rows to compare with, or no scale")
        if self.group.size and (self.group.dtype != "int32" or self.group.shape != self.reference.shape[:1]):
            raise ValueError(f"its groups are {self.group.dtype} of shape {self.group.shape}")
        if len(np.unique(self.group)) > _MOST_GROUPS:
            raise ValueError(f"its rows are of more than {_MOST_GROUPS} groups")
        for name in ("error_index", "error"):
            values = getattr(self, name)
            fits = values.dtype == "float64" and values.shape == (self.error.size,) and values.size <= _RANGES
            rising = (np.diff(values) >= 0).all() and values.min(initial=0) >= 0 and values.max(initial=0) < _LARGEST
            if not fits or not rising:
                raise ValueError(f"its {name} is none that is learned")


def _scaled(x: np.ndarray, center: np.ndarray, scale: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return rows (n, features) float32 in units of their spread, weighted, features with a weight alone; too large ones are infinite."""
    used = _used(weights)
    factor = (weights[used] / scale[used]).astype("float32")
    with np.errstate(over="ignore"):
        points: np.ndarray = (x[:, used] - center[used].astype("float32")) * factor
    return points


def _used(weights: np.ndarray) -> np.ndarray:
    """Return features with a weight, the heaviest first: they show soonest that two rows are far apart.

    >>> _used(np.array([0.5, 0.0, 2.0])).tolist()
    [2, 0]
    """
    return np.argsort(-weights, kind="stable")[: int((weights > 0).sum())]


def _nearest(tree: KDTree, points: np.ndarray) -> np.ndarray:
    distance: np.ndarray = tree.query(points)[0]
    return distance


def _mean_distance(points: np.ndarray) -> float:
    """Return the mean Euclidean distance between two different points."""
    total, n = 0.0, len(points)
    for start in range(0, n, 512):
        part = points[start : start + 512].astype("float64")
        squares = (part**2).sum(axis=1)[:, None] + (points.astype("float64") ** 2).sum(axis=1) - 2 * part @ points.T
        total += float(np.sqrt(np.maximum(squares, 0)).sum())
    return total / (n * (n - 1))


def _upper_whisker(values: np.ndarray) -> float:
    """Return the end of a box plot's upper whisker: 1.5 times the box above it, or the largest value.

    >>> _upper_whisker(np.array([0.0, 1.0, 2.0, 3.0, 4.0])), _upper_whisker(np.array([0.0, 1.0, 2.0, 3.0, 50.0]))
    (4.0, 6.0)
    """
    low, high = np.quantile(values, [0.25, 0.75])
    return float(min(high + 1.5 * (high - low), values.max()))
