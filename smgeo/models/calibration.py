"""Prediction intervals by conformal prediction with places as groups: they are valid at places that the model never saw."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NotRequired, Self

import numpy as np
from typing_extensions import TypedDict  # pydantic reads no TypedDict of Python 3.11

from smgeo.errors import SmgeoError
from smgeo.models.nearest_groups import NearestGroups
from smgeo.models.ranges import mean_in_ranges

# Intervals are kept for coverages of so many parts: thousandths.
_STEPS = 1000
# A spread is learned for so many ranges of the estimate, if there are so many groups for each.
_RANGES, _GROUPS_OF_RANGE = 8, 5
# A group's errors are divided by a spread that the groups of other folds, of so many, have.
_SPREAD_FOLDS = 5
# No more knots are read from a file, and no larger numbers: their products would not be finite.
_MOST_KNOTS, _LARGEST = 100, 1e15


def _steps_of(stations: int) -> int:
    """Return how many levels, in steps, so many stations allow: up to K / (K + 1)."""
    return math.floor(_STEPS * stations / (stations + 1) + 1e-9)


def check_stations(level: float, stations: int, found: str) -> None:
    """Refuse a coverage that needs more calibration stations than there are; it needs no model.

    Raises
    ------
    SmgeoError
        With the number that is needed; `found` begins what is said of the number that there is.
    """
    if math.ceil(level * _STEPS - 1e-9) > _steps_of(stations):
        need = math.ceil(level / (1 - level) - 1e-9)
        raise SmgeoError(
            f"intervals of {100 * level:g} % need {need} stations to learn from; {found} {stations}, enough for "
            f"{100 * _steps_of(stations) / _STEPS:g} %"
        )


class CalibrationState(TypedDict):
    """A `Calibration` as JSON types; an infinite limit is None."""

    widths: list[float]
    offset: float | None
    stations: int
    rows: int
    part: str
    limits: list[float | None]
    knots: NotRequired[list[float]]
    spreads: NotRequired[list[float]]
    folds: NotRequired[int]
    nearest: NotRequired[int]


@dataclass(frozen=True)
class Calibration:
    """Widths of prediction intervals, learned at places that the model was not trained on.

    The score of a row is its absolute error, divided by a spread. The spread is the model's own (plus `offset`) if it has one, such as that
    of a forest's trees; else it is learned from the errors, as their mean in ranges of the estimate (for a score, from those of other groups).
    Each of K groups of stations (places,
    unless the cube says otherwise) weighs 1 / (K + 1), shared equally by its rows, and the rest of the weight is an error without bound: the
    quantile of the scores then covers a row of a new group with the requested probability, if the group is exchangeable with the K (Lee,
    Barber and Willett 2023, arXiv:2306.06342, hierarchical conformal prediction; Dunn, Wasserman and Ramdas 2022, J. Am. Stat. Assoc. 118).
    The code is our own because libraries such as MAPIE assume that rows are exchangeable, and rows of one station are not.

    Attributes
    ----------
    widths : tuple of float
        Half the width of the interval for coverages of 1, 2, ... thousandths, up to the largest that the groups allow, in spreads.
    offset : float or None
        Added to the model's spread, in the target's unit; None if the model has no spread.
    stations, rows : int
        Number of groups of stations, and of rows, that the widths were learned from.
    part : str
        Their part of the split; `train+validation` if the training stations took part, in `folds`.
    limits : (float, float)
        Limits of the target's possible values, at which intervals are cut off.
    knots, spreads : tuple of float
        Estimates, ascending, and the spread at each, in the target's unit, of a model without a spread of its own; between them it is
        interpolated. Empty with few groups: the spread is then 1.
    folds : int
        Number of models that were trained so that each group was left out by one; 0 if widths are from stations of another part alone.
    local : NearestGroups or None
        Widths depend on the groups that are nearest to a row in feature space, with the same weight each; there is no guarantee for them:
        that of all groups rests on a new group being like any other, and the nearest are chosen.
    """

    widths: tuple[float, ...]
    offset: float | None
    stations: int
    rows: int
    part: str = "validation"
    limits: tuple[float, float] = (-math.inf, math.inf)
    knots: tuple[float, ...] = ()
    spreads: tuple[float, ...] = ()
    folds: int = 0
    local: NearestGroups | None = field(default=None, compare=False)

    @classmethod
    def learn(
        cls,
        observed: np.ndarray,
        predicted: np.ndarray,
        station: np.ndarray,
        spread: np.ndarray | None = None,
        *,
        part: str = "validation",
        limits: tuple[float, float] = (-math.inf, math.inf),
        folds: int = 0,
        nearest: int | None = None,
        x: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> Self:
        """Learn widths from rows of calibration stations: (rows,) each, in the target's unit; `station` is the group of a row.

        With `nearest`, widths depend on so many groups, by the features `x` (rows, features) and their `weights` (equal by default).

        Raises
        ------
        SmgeoError
            If there are fewer than two groups, or than `nearest`.
        """
        ids, group = np.unique(station, return_inverse=True)
        if len(ids) < 2:
            raise SmgeoError(f"intervals are learned on two or more {part} stations with values; there are {len(ids)}")
        scores = np.abs(observed.astype("float64") - predicted)
        shares = 1 / ((len(ids) + 1) * np.bincount(group)[group])
        offset, knots, spreads = None, np.empty(0), np.empty(0)
        if spread is not None:
            # So that rows on which all trees happen to agree do not dominate.
            offset = float(np.median(spread)) or float(scores.mean()) or 1.0
            scores /= spread + offset
        else:
            estimates = predicted.astype("float64")
            knots, spreads = _learn_spread(scores, estimates, shares, len(ids))
            if len(knots):
                scores /= _spread_of_others(scores, estimates, shares, group)
        local = None
        if nearest is not None:
            assert x is not None
            local = NearestGroups.learn(x, scores, group, np.ones(x.shape[1]) if weights is None else weights, nearest)
        order = np.argsort(scores, kind="stable")
        reached = np.cumsum(shares[order])
        most = _steps_of(len(ids))
        # Slightly less, for sums that rounding has made too small.
        at = np.searchsorted(reached, np.arange(1, most + 1) / _STEPS - 1e-9)
        widths = scores[order][np.minimum(at, len(scores) - 1)]
        found, knots_found, spreads_found = (tuple(map(float, values)) for values in (widths, knots, spreads))
        return cls(found, offset, len(ids), len(scores), part, limits, knots_found, spreads_found, folds, local)

    def check_level(self, level: float) -> None:
        """Refuse a coverage that the stations do not allow.

        Raises
        ------
        SmgeoError
            If it is above K / (K + 1).
        """
        groups = self.stations if self.local is None else self.local.nearest
        check_stations(level, groups, "the model was calibrated on")

    def bounds(
        self, predicted: np.ndarray, spread: np.ndarray | None, level: float, x: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper ends of intervals, float32, in the target's unit; `local` widths need the features `x`."""
        self.check_level(level)
        half: np.float32 | np.ndarray
        if self.local is not None:
            assert x is not None
            half = self.local.widths(x, level)
        else:
            half = np.float32(self.widths[max(math.ceil(level * _STEPS - 1e-9), 1) - 1])
        if self.offset is not None:
            assert spread is not None
            half = half * (spread + np.float32(self.offset))
        elif self.knots:
            half = half * _spread_at(predicted, np.array(self.knots), np.array(self.spreads)).astype("float32")
        low, high = map(np.float32, self.limits)
        lower = np.maximum(predicted - half, np.minimum(low, predicted))
        return lower, np.minimum(predicted + half, np.maximum(high, predicted))

    def to_dict(self) -> CalibrationState:
        """Return JSON types, without what `local` contains; an infinite limit is None."""
        state: CalibrationState = {
            "widths": list(self.widths),
            "offset": self.offset,
            "stations": self.stations,
            "rows": self.rows,
            "part": self.part,
            "limits": [v if math.isfinite(v) else None for v in self.limits],
            "knots": list(self.knots),
            "spreads": list(self.spreads),
            "folds": self.folds,
        }
        return state if self.local is None else {**state, "nearest": self.local.nearest}

    @classmethod
    def from_dict(cls, state: CalibrationState, file: Path | None = None) -> Self:
        """Return the calibration of `to_dict`; what `local.save` wrote is read from `file`.

        Raises
        ------
        ValueError
            If its numbers are none that `learn` gives.
        SmgeoError
            If the file is another.
        """
        low, high = state["limits"]
        limits = (-math.inf if low is None else low, math.inf if high is None else high)
        knots, spreads = tuple(state.get("knots", ())), tuple(state.get("spreads", ()))
        made = cls(
            tuple(state["widths"]),
            state["offset"],
            state["stations"],
            state["rows"],
            state["part"],
            limits,
            knots,
            spreads,
            state.get("folds", 0),
            NearestGroups.load(file, state["nearest"]) if file is not None and "nearest" in state else None,
        )
        numbers = [*made.widths, made.offset or 0, *spreads]
        fits = (
            2 <= made.stations <= made.rows and len(made.widths) == _steps_of(made.stations) and limits[0] < limits[1]
        )
        rising = all(-math.inf < a < b < math.inf for a, b in pairwise(knots))
        fits &= len(knots) == len(spreads) <= _MOST_KNOTS and len(knots) != 1 and rising and 0 <= made.folds <= _LARGEST
        fits &= (
            min(spreads, default=1) > 1 / _LARGEST
            and not (knots and made.offset is not None)
            and max(numbers) < _LARGEST
        )
        if not fits or not all(0 <= n < math.inf for n in numbers) or list(made.widths) != sorted(made.widths):
            raise ValueError("its intervals are none")
        return made


def _learn_spread(
    errors: np.ndarray, predicted: np.ndarray, weights: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return estimates and the mean absolute error around each, by weight; nothing where groups are too few for two ranges."""
    ranges = min(_RANGES, groups // _GROUPS_OF_RANGE)
    if ranges < 2:
        return np.empty(0), np.empty(0)
    knots, spreads, _ = mean_in_ranges(predicted, errors, weights, ranges)
    # Estimates that are equal in several ranges, and ranges without an error, tell of no spread.
    if len(knots) < 2 or not (np.diff(knots) > 0).all() or not (spreads > 0).all():
        return np.empty(0), np.empty(0)
    return knots, spreads


def _spread_of_others(errors: np.ndarray, predicted: np.ndarray, weights: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the spread at each row as other groups have it: a new group did not shape the spread that its errors are divided by."""
    out = np.ones(len(errors))
    for k in range(_SPREAD_FOLDS):
        mine = group % _SPREAD_FOLDS == k
        learned = _learn_spread(errors[~mine], predicted[~mine], weights[~mine], len(np.unique(group[~mine])))
        if mine.any() and not len(learned[0]):  # constant: the mean error
            out[mine] = np.average(errors[~mine], weights=weights[~mine])
        else:
            out[mine] = _spread_at(predicted[mine], *learned)
    return out


def _spread_at(predicted: np.ndarray, knots: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    return np.interp(predicted, knots, spreads) if len(knots) else np.ones(np.shape(predicted))
