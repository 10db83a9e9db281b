"""Prediction intervals by conformal prediction with stations as groups: they are valid at places that the model never saw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from typing_extensions import TypedDict  # pydantic reads no TypedDict of Python 3.11

from smgeo.errors import SmgeoError

# Intervals are kept for coverages of so many parts: thousandths.
_STEPS = 1000


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


@dataclass(frozen=True)
class Calibration:
    """Widths of prediction intervals, learned on stations that the model was not trained on.

    The score of a row is its absolute error, divided by the model's own spread (plus `offset`) if it has one. Each of K stations
    weighs 1 / (K + 1), shared equally by its rows, and the rest of the weight is an error without bound: the quantile of the scores then
    covers a row of a new station with the requested probability, if the station is exchangeable with the K (Lee, Barber and Willett 2023,
    arXiv:2306.06342, hierarchical conformal prediction; Dunn, Wasserman and Ramdas 2022, J. Am. Stat. Assoc. 118).
    The code is our own because libraries such as MAPIE assume that rows are exchangeable, and rows of one station are not.

    Attributes
    ----------
    widths : tuple of float
        Half the width of the interval for coverages of 1, 2, ... thousandths, up to the largest that the stations allow.
    offset : float or None
        Added to the model's spread, in the target's unit; None if the model has no spread, and widths are in the target's unit.
    stations, rows : int
        Number of calibration stations and rows.
    part : str
        Their part of the split.
    limits : (float, float)
        Limits of the target's possible values, at which intervals are cut off.
    """

    widths: tuple[float, ...]
    offset: float | None
    stations: int
    rows: int
    part: str = "validation"
    limits: tuple[float, float] = (-math.inf, math.inf)

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
    ) -> Self:
        """Learn widths from rows of calibration stations: (rows,) each, in the target's unit.

        Raises
        ------
        SmgeoError
            If there are fewer than two stations.
        """
        ids, group = np.unique(station, return_inverse=True)
        if len(ids) < 2:
            raise SmgeoError(f"intervals are learned on two or more {part} stations with values; there are {len(ids)}")
        scores = np.abs(observed.astype("float64") - predicted)
        offset = None
        if spread is not None:
            # So that rows on which all trees happen to agree do not dominate.
            offset = float(np.median(spread))
            scores /= spread + offset
        weights = 1 / ((len(ids) + 1) * np.bincount(group)[group])
        order = np.argsort(scores, kind="stable")
        reached = np.cumsum(weights[order])
        most = _steps_of(len(ids))
        # Slightly less, for sums that rounding has made too small.
        at = np.searchsorted(reached, np.arange(1, most + 1) / _STEPS - 1e-9)
        widths = scores[order][np.minimum(at, len(scores) - 1)]
        return cls(tuple(map(float, widths)), offset, len(ids), len(scores), part, limits)

    def check_level(self, level: float) -> None:
        """Refuse a coverage that the stations do not allow.

        Raises
        ------
        SmgeoError
            If it is above K / (K + 1).
        """
        check_stations(level, self.stations, "the model was calibrated on")

    def bounds(self, predicted: np.ndarray, spread: np.ndarray | None, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper ends of intervals, float32, in the target's unit."""
        self.check_level(level)
        width = self.widths[max(math.ceil(level * _STEPS - 1e-9), 1) - 1]
        half: np.float32 | np.ndarray = np.float32(width)
        if self.offset is not None:
            assert spread is not None
            half = half * (spread + np.float32(self.offset))
        low, high = map(np.float32, self.limits)
        lower = np.maximum(predicted - half, np.minimum(low, predicted))
        return lower, np.minimum(predicted + half, np.maximum(high, predicted))

    def to_dict(self) -> CalibrationState:
        """Return JSON types; an infinite limit is None."""
        return {
            "widths": list(self.widths),
            "offset": self.offset,
            "stations": self.stations,
            "rows": self.rows,
            "part": self.part,
            "limits": [v if math.isfinite(v) else None for v in self.limits],
        }

    @classmethod
    def from_dict(cls, state: CalibrationState) -> Self:
        """Return the calibration of `to_dict`.

        Raises
        ------
        ValueError
            If its numbers are none that `learn` gives.
        """
        low, high = state["limits"]
        limits = (-math.inf if low is None else low, math.inf if high is None else high)
        made = cls(tuple(state["widths"]), state["offset"], state["stations"], state["rows"], state["part"], limits)
        numbers = [*made.widths, made.offset or 0]
        fits = (
            2 <= made.stations <= made.rows and len(made.widths) == _steps_of(made.stations) and limits[0] < limits[1]
        )
        if not fits or not all(0 <= n < math.inf for n in numbers) or list(made.widths) != sorted(made.widths):
            raise ValueError("its intervals are none")
        return made
