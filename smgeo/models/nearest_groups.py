"""Widths of prediction intervals from the groups of stations that are nearest to a row in feature space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from scipy.spatial import KDTree

from smgeo.errors import SmgeoError
from smgeo.models.arrays import read_arrays, write_arrays

_ARRAYS = ("center", "factor", "positions", "scores", "shares")
# Scores at which the share of a group's rows is kept: so many of all scores, of the highest of each group, and of the very highest.
_SCORES, _HIGH, _HIGHEST = 256, 512, 256
_LEVELS = (0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
# Bytes of the neighbours that are looked up at once: a position, a distance and a share each.
_AT_ONCE, _NEIGHBOUR = 100e6, 24
MOST_GROUPS = 10_000
# Numbers beyond it have no square in float32.
_LARGEST = 1e15


@dataclass(frozen=True, eq=False)
class NearestGroups:
    """The scores of each group of stations, and where it lies among the features.

    Attributes
    ----------
    center, factor : numpy.ndarray
        (features,): mean of the rows, and weight over standard deviation.
    positions : numpy.ndarray
        (groups, features) float32: the mean of a group's rows, scaled.
    scores : numpy.ndarray
        (scores,) float32, ascending.
    shares : numpy.ndarray
        (groups, scores) float32: share of a group's rows with a score of at most that.
    nearest : int
        How many groups tell the width at a row.
    """

    center: np.ndarray
    factor: np.ndarray
    positions: np.ndarray
    scores: np.ndarray
    shares: np.ndarray
    nearest: int

    @classmethod
    def learn(cls, x: np.ndarray, scores: np.ndarray, group: np.ndarray, weights: np.ndarray, nearest: int) -> Self:
        """Learn from rows: `x` (rows, features), `scores` and `group` (rows,), and the features' `weights`.

        Raises
        ------
        SmgeoError
            If there are fewer groups than `nearest`.
        """
        ids, of, rows = np.unique(group, return_inverse=True, return_counts=True)
        if not 1 <= nearest <= len(ids):
            raise SmgeoError(f"intervals.nearest: {nearest} of {len(ids)} groups of stations; use fewer")
        x = x.astype("float64")
        center, scale = x.mean(axis=0), x.std(axis=0)
        factor = np.divide(weights, scale, out=np.zeros(x.shape[1]), where=scale > 0)
        if not factor.any():
            raise SmgeoError(
                "intervals.nearest: no feature varies and has a weight, so no group is nearer than another"
            )
        scaled = (x - center) * factor
        positions = np.stack([np.bincount(of, column) / rows for column in scaled.T], axis=1)
        kept = _choose_scores(scores, of, rows)
        first = np.searchsorted(kept, scores)
        counts = np.zeros((len(ids), len(kept)))
        np.add.at(counts, (of, first), 1)
        shares = np.cumsum(counts, axis=1) / rows[:, None]
        return cls(center, factor, positions.astype("float32"), kept, shares.astype("float32"), nearest)

    def widths(self, x: np.ndarray, level: float) -> np.ndarray:
        """Return the score that contains `level` of the rows of the groups nearest to each row (n, features): (n,) float32.

        Each of the groups weighs 1 / (nearest + 1); the rest is an error without bound. Of groups that are equally near, any are taken.
        """
        wanted = level * (self.nearest + 1) / self.nearest - 1e-6
        tree = KDTree(self.positions)
        out = np.empty(len(x), dtype="float32")
        at_once = max(int(_AT_ONCE // (_NEIGHBOUR * self.nearest)), 1)
        for start in range(0, len(x), at_once):
            rows = slice(start, start + at_once)
            place = np.clip((x[rows].astype("float64") - self.center) * self.factor, -_LARGEST, _LARGEST)
            near = tree.query(place, k=[*range(1, self.nearest + 1)])[1]
            low, high = np.zeros(len(near), dtype=np.intp), np.full(len(near), len(self.scores) - 1)
            while (low < high).any():
                middle = (low + high) // 2
                enough = self.shares[near, middle[:, None]].mean(axis=1, dtype="float64") >= wanted
                low, high = np.where(enough, low, np.minimum(middle + 1, high)), np.where(enough, middle, high)
            out[rows] = self.scores[high]
        return out

    def save(self, file: Path) -> None:
        """Write the arrays to `file` (`.npz`, no pickle)."""
        write_arrays(file, {name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, file: Path, nearest: int) -> Self:
        """Return what `save` wrote.

        Raises
        ------
        SmgeoError
            If the file is another.
        """
        try:
            arrays = read_arrays(file)
            if set(arrays) != set(_ARRAYS):
                raise ValueError(f"its arrays are {', '.join(sorted(arrays))}")
            made = cls(**arrays, nearest=nearest)
            made._check()
        except (ValueError, TypeError, IndexError) as error:
            raise SmgeoError(f"{file} contains no intervals ({error}); calibrate the model again") from None
        return made

    def _check(self) -> None:
        shapes = {
            "center": ("float64", self.center.shape if self.center.ndim == 1 else None),
            "factor": ("float64", self.center.shape),
            "positions": ("float32", (len(self.shares), self.center.size)),
            "scores": ("float32", (self.scores.size,)),
            "shares": ("float32", (len(self.positions), self.scores.size)),
        }
        for name, (dtype, shape) in shapes.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
            if not np.isfinite(array).all() or not np.abs(array).max(initial=0) < _LARGEST:
                raise ValueError(f"{name} is not finite, or too large")
        rising = (np.diff(self.scores) > 0).all() and (np.diff(self.shares, axis=1) >= 0).all()
        fits = self.scores.size and self.scores[0] >= 0 and self.shares.min(initial=0) >= 0 and (self.factor >= 0).all()
        if not (rising and fits and np.allclose(self.shares[:, -1], 1)):
            raise ValueError("its numbers are none that are learned")
        if not 1 <= self.nearest <= min(len(self.positions), MOST_GROUPS):
            raise ValueError(f"{self.nearest} of {len(self.positions)} groups")


def _choose_scores(scores: np.ndarray, of: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the scores at which shares are kept, float32, ascending; between them a width is rounded up.

    Some are of all scores, each group weighing the same. More are of the highest of each group: with few neighbours the width is close to the
    highest score of one of them.
    """
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1 / rows[of][order]) / len(rows)
    everywhere = scores[order][
        np.minimum(np.searchsorted(reached, np.arange(1, _SCORES + 1) / _SCORES - 1e-9), len(scores) - 1)
    ]
    by_group = np.lexsort((scores, of))
    first = np.cumsum(rows) - rows
    high = [scores[by_group[first + np.ceil(level * rows).astype(np.intp) - 1]] for level in _LEVELS]
    tail = np.sort(np.concatenate(high))
    some = tail[np.linspace(0, len(tail) - 1, min(_HIGH, len(tail))).astype(np.intp)]
    kept = np.concatenate([everywhere, some, tail[-_HIGHEST:]]).astype("float32")
    # So that none is below the score that it stands for.
    return np.unique(np.nextafter(kept, np.float32(np.inf)))
