"""Sensors of stations: which of them a station's series is made of, and how their hours become its days.

What readers of station archives share. A reader describes its files as `Sensor`s and gives a function that reads one;
choice, daily means, counts and the lazy cube are the same for all of them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError, SmgeoWarning, nearest
from smgeo.sources.stations.archive import UNREADABLE

HOURS = 24

# A day's sum is the mean of its valid hours times 24, so that a missing hour is not a dry one. Rain is measured above ground.
_SUMS = frozenset({"precipitation"})

RULES = ("nearest", "mean")

# What is counted of the target's sensors, per station.
TALLY = {
    "hours_read": "rows read within the period",
    "hours_flagged": "rows removed by their flag, or outside the valid range",
    "days_incomplete": "days removed for too few valid hours",
    "files_unreadable": "files broken after the header, left out",
    "rows_same_time": "rows of a time that the same sensor had already given",
    "rows_same_hour": "rows of an hour that the same sensor had already given, averaged into it",
    "rows_unsorted": "rows earlier than the row before them",
    "rows_outside_period": "rows before or after the period",
    "hours_without_row": "hours without any row between a sensor's first and last row within the period",
    "days_overlapping": "days on which several sensors of one depth have a value, averaged",
    "days_partial": "days made of fewer depths than the station's sensors have",
}

Readings = tuple[pd.DatetimeIndex, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Sensor:
    """One sensor's series of one variable, as its files describe it.

    Attributes
    ----------
    network, station : str
        Names; `id` is `NETWORK/STATION`.
    variable : str
        Name in the catalogue.
    depth : (float, float)
        Upper and lower end, m below the surface.
    latitude, longitude, elevation : float
        EPSG:4326 degrees; m.
    first, last : Timestamp
        Times of the first and last row, UTC without zone.
    name : str
        The instrument.
    files : tuple of str
        Paths in the archive.
    form : Any
        What the reader needs to know to read the files.
    """

    network: str
    station: str
    variable: str
    depth: tuple[float, float]
    latitude: float
    longitude: float
    elevation: float
    first: pd.Timestamp
    last: pd.Timestamp
    name: str
    files: tuple[str, ...]
    form: Any = None

    @property
    def id(self) -> str:
        """The station's id in a cube."""
        return f"{self.network}/{self.station}"

    @property
    def middle(self) -> float:
        """Middle of the depths, m."""
        return sum(self.depth) / 2

    def record(self) -> dict[str, Any]:
        """What a cube tells about the sensor."""
        return {
            "sensor": self.name,
            "depth_m": [round(d, 4) for d in self.depth],
            "first": str(self.first.date()),
            "last": str(self.last.date()),
        }


Chosen = dict[str, dict[str, list[Sensor]]]


def choose_sensors(
    sensors: Sequence[Sensor],
    target: str,
    depth_m: tuple[float, float],
    rule: str = "nearest",
    nearest_to_m: float | None = None,
) -> tuple[Chosen, dict[str, str]]:
    """Sensors of each station and variable, and the stations left out with the reason.

    Parameters
    ----------
    depth_m : (float, float)
        A sensor counts if all of it lies in this range (m); precipitation has no depth.
    rule : {"nearest", "mean"}
        `nearest`: of the depths in the range, the one whose middle is nearest to `nearest_to_m`, and all sensors at it
        (the shallower of two as near). `mean`: all sensors in the range.
    nearest_to_m : float, optional
        The middle of the range by default.

    Raises
    ------
    SmgeoError
        If the rule is unknown or does not fit, or no station has the target in the range of depths.
    """
    low, high = depth_m
    if rule not in RULES:
        raise SmgeoError(f"unknown depth_rule {rule!r}; {nearest(rule, RULES)}")
    if nearest_to_m is not None and (rule == "mean" or not low <= nearest_to_m <= high):
        raise SmgeoError(
            f"nearest_to_m {nearest_to_m:g} needs depth_rule nearest, and to lie in depth_m {low:g} to {high:g} m; "
            f"depth_rule is {rule!r}"
        )
    aim = (low + high) / 2 if nearest_to_m is None else nearest_to_m
    found: Chosen = {}
    for sensor in sensors:
        inside = low - 1e-9 <= sensor.depth[0] and sensor.depth[1] <= high + 1e-9
        if inside or sensor.variable in _SUMS:
            found.setdefault(sensor.id, {}).setdefault(sensor.variable, []).append(sensor)
    chosen: Chosen = {}
    left_out = {s.id: f"no {target} sensor between {low:g} and {high:g} m" for s in sensors}
    for station, by_name in sorted(found.items()):
        if target not in by_name:
            continue
        left_out.pop(station)
        chosen[station] = by_name if rule == "mean" else {n: _nearest(c, aim) for n, c in by_name.items()}
    if not chosen:
        depths = sorted({s.middle for s in sensors if s.variable == target})
        there = ", ".join(f"{d:g}" for d in depths) or "none"
        raise SmgeoError(
            f"no station has {target} between {low:g} and {high:g} m; middles of the sensors' depths in the archive: {there} m. "
            "Change target.depth_m"
        )
    return chosen, left_out


def _nearest(candidates: list[Sensor], aim: float) -> list[Sensor]:
    best = min(candidates, key=lambda s: (round(abs(s.middle - aim), 6), s.depth))
    return [s for s in candidates if s.depth == best.depth]


def days_of(chosen: Chosen, period: tuple[Any, Any] | None) -> pd.DatetimeIndex:
    """Every day of the period, or from the first row of the chosen sensors to the last."""
    if period is not None:
        return pd.date_range(pd.Timestamp(period[0]), pd.Timestamp(period[1]), freq="D", name="time")
    sensors = [s for by_name in chosen.values() for several in by_name.values() for s in several]
    first, last = min(s.first for s in sensors), max(s.last for s in sensors)
    return pd.date_range(first.normalize(), last.normalize(), freq="D", name="time")


def assemble_stations(
    chosen: Chosen,
    names: Sequence[str],
    target: str,
    times: pd.DatetimeIndex,
    read: Callable[[Sensor], Readings],
    *,
    min_valid_share: float,
    source: str,
    rule: str,
    static: Mapping[str, np.ndarray] | None = None,
) -> xr.Dataset:
    """The lazy station cube of chosen sensors.

    Parameters
    ----------
    names : sequence of str
        Series of the cube, the target among them.
    read : callable
        Sensor -> (times UTC, values float64, whether their flags are wanted). Raises one of `archive.UNREADABLE` for
        a broken file, which is then named, counted and left out. Called inside tasks: it must be picklable.
    rule : str
        What `choose_sensors` went by, in words; goes into the target's attribute `depth_rule`.
    static : mapping
        Variable -> (station,) float32.

    Returns
    -------
    xarray.Dataset
        Series (station, time) float32, one Dask chunk and one task a station; counts (station,) int64 by the names of
        `TALLY`, of the target's sensors; `sensor_depth` (station,) float32, m: the mean of the chosen depths;
        coordinate `sensors` (station,): JSON, the target's sensors with depths, first and last day.
    """
    rows: dict[str, list[da.Array]] = {n: [] for n in names}
    counts: list[da.Array] = []
    load = dask.delayed(_load_station, pure=True)
    for by_name in chosen.values():
        loaded = load(read, by_name, tuple(names), target, times, min_valid_share)
        for name in names:
            rows[name].append(da.from_delayed(loaded[0][name], (times.size,), dtype="float32"))
        counts.append(da.from_delayed(loaded[1], (len(TALLY),), dtype="int64"))
    data: dict[str, Any] = {n: (("station", "time"), da.stack(rows[n]), FEATURES[n].attrs()) for n in names}
    data[target][2]["depth_rule"] = rule
    stacked = da.stack(counts)
    for i, (name, words) in enumerate(TALLY.items()):
        attrs = {"kind": "diagnostic", "units": "1", "long_name": words, "source": source}
        data[name] = (("station",), stacked[:, i], attrs)
    for name, values in (static or {}).items():
        data[name] = (
            ("station",),
            values,
            {**FEATURES[name].attrs(), "source": f"{source} static variables and headers"},
        )
    depths = np.array([np.mean(sorted({s.middle for s in b[target]})) for b in chosen.values()], dtype="float32")
    attrs = {"kind": "diagnostic", "units": "m", "long_name": f"depth of the {target} sensor", "source": source}
    data["sensor_depth"] = (("station",), depths, attrs)
    return xr.Dataset(data, _coordinates(chosen, target, times))


def _coordinates(chosen: Chosen, target: str, times: pd.DatetimeIndex) -> dict[str, Any]:
    first = [by_name[target][0] for by_name in chosen.values()]
    records = [json.dumps([s.record() for s in by_name[target]]) for by_name in chosen.values()]
    return {
        "station": np.array(list(chosen), dtype=object),
        "time": times,
        "latitude": ("station", [s.latitude for s in first], {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("station", [s.longitude for s in first], {"units": "degrees_east", "standard_name": "longitude"}),
        "station_elevation": ("station", [s.elevation for s in first], {"units": "m"}),
        "network": ("station", np.array([s.network for s in first], dtype=object)),
        "sensors": (
            "station",
            np.array(records, dtype=object),
            {"long_name": f"sensors that {target} is made of, JSON"},
        ),
    }


def _load_station(
    read: Callable[[Sensor], Readings],
    by_name: Mapping[str, list[Sensor]],
    names: tuple[str, ...],
    target: str,
    times: pd.DatetimeIndex,
    min_valid_share: float,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Daily series of one station (time,), NaN where missing, and the counts of its target (in the order of `TALLY`)."""
    out = {n: np.full(times.size, np.nan, dtype="float32") for n in names}
    counts = dict.fromkeys(TALLY, 0)
    for name, sensors in by_name.items():
        by_depth: dict[tuple[float, float], list[np.ndarray]] = {}
        for sensor in sensors:
            try:
                stamps, values, wanted = read(sensor)
            except UNREADABLE as error:
                counts["files_unreadable"] += 1
                reason = f"{type(error).__name__}: {error}"[:200]
                files = ", ".join(sensor.files)
                warnings.warn(f"{files} can't be read to its end and is left out ({reason})", SmgeoWarning)
                continue
            low, high = FEATURES[name].valid_range
            good = wanted & (values >= low) & (values <= high)
            daily, tally = to_days(stamps, values, good, times, min_valid_share)
            by_depth.setdefault(sensor.depth, []).append(daily)
            if name == target:
                counts = {n: c + tally.get(n, 0) for n, c in counts.items()}
        if by_depth:
            series, overlapping, partial = _combine(list(by_depth.values()))
            out[name] = (series * (HOURS if name in _SUMS else 1)).astype("float32")
            if name == target:
                counts["days_overlapping"], counts["days_partial"] = overlapping, partial
    return out, np.array(list(counts.values()), dtype="int64")


def _combine(depths: list[list[np.ndarray]]) -> tuple[np.ndarray, int, int]:
    """One series of several: the mean of sensors at one depth, then of depths; days of several sensors, of fewer depths."""
    layers = np.stack([_mean(np.stack(sensors)) for sensors in depths])
    series = _mean(layers)
    several = np.any([np.isfinite(sensors).sum(axis=0) > 1 for sensors in depths], axis=0)
    given = np.isfinite(layers).sum(axis=0)
    return series, int(several.sum()), int(((given > 0) & (given < len(depths))).sum())


def _mean(rows: np.ndarray) -> np.ndarray:
    """Mean of the rows that have a value, NaN where none has."""
    # np.nanmean warns of days without a value, and silencing warnings is not safe in threads.
    given = np.isfinite(rows)
    n = given.sum(axis=0)
    return np.where(n > 0, np.where(given, rows, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)


def to_days(
    stamps: pd.DatetimeIndex, values: np.ndarray, good: np.ndarray, times: pd.DatetimeIndex, min_valid_share: float
) -> tuple[np.ndarray, dict[str, int]]:
    """Mean of each day's valid hours, and what was counted on the way.

    Parameters
    ----------
    stamps : DatetimeIndex
        Times of the rows, UTC without zone, in any order.
    values, good : array
        (rows,) values, and whether they count.
    times : DatetimeIndex
        The days of the result.
    min_valid_share : float
        Share of the 24 hours that must be valid; at least one hour.

    Returns
    -------
    (array, dict)
        (time,) float64, NaN where too few hours are valid; counts by names of `TALLY`.

    Examples
    --------
    Half of the hours are enough here; the row at 01:30 is of the same hour as that at 01:00.

    >>> stamps = pd.DatetimeIndex(["2020-01-01 00:00", "2020-01-01 01:00", "2020-01-01 01:30"])
    >>> day = pd.date_range("2020-01-01", periods=1)
    >>> daily, tally = to_days(stamps, np.array([0.1, 0.2, 0.4]), np.ones(3, bool), day, 2 / 24)
    >>> float(daily[0].round(6)), tally["rows_same_hour"]
    (0.2, 1)
    """
    inside = np.asarray((stamps >= times[0]) & (stamps < times[-1] + pd.Timedelta(days=1)))
    unsorted = int((np.diff(stamps.to_numpy().astype("int64")) < 0).sum())
    stamps, values, good = stamps[inside], values[inside], good[inside]
    hour = (stamps.normalize() - times[0]).days.to_numpy() * HOURS + stamps.hour.to_numpy()
    # Two values of one hour count as one hour, so that duplicates can't complete a day.
    total = np.bincount(hour[good], weights=values[good], minlength=times.size * HOURS)
    n = np.bincount(hour[good], minlength=times.size * HOURS)
    hourly = np.where(n > 0, total / np.maximum(n, 1), 0.0).reshape(-1, HOURS)
    valid = (n > 0).reshape(-1, HOURS).sum(axis=1)
    enough = valid >= max(min_valid_share * HOURS, 1)
    daily = np.where(enough, hourly.sum(axis=1) / np.maximum(valid, 1), np.nan)
    given = np.unique(hour)
    return daily, {
        "hours_read": len(values),
        "hours_flagged": int((~good).sum()),
        "days_incomplete": int(((valid > 0) & ~enough).sum()),
        "rows_same_time": len(values) - stamps.nunique(),
        "rows_same_hour": len(values) - given.size,
        "rows_unsorted": unsorted,
        "rows_outside_period": int((~inside).sum()),
        "hours_without_row": int(given[-1] - given[0] + 1 - given.size) if given.size else 0,
    }
