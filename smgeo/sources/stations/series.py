"""Daily series of chosen sensors: hours become days, rows are counted, and the cube of all stations is lazy.

Values outside the catalogue's valid range never enter: such hours count as flagged.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.delayed import delayed

from smgeo.catalog import FEATURES, Feature
from smgeo.cube.tally import note_dropped
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.recipe.stations import SensorSource
from smgeo.sources.pixels.gate import INFINITE, OUTSIDE
from smgeo.sources.stations.archive import UNREADABLE
from smgeo.sources.stations.layout import Entry, Period, count, day_axis, station_coordinates
from smgeo.sources.stations.sensors import Chosen, Form, Sensor

HOURS = 24

# A day's sum is the mean of its valid hours times 24, so that a missing hour is not a dry one.
_SUMS = frozenset({"precipitation"})

# Counts of the target's sensors, per station.
TALLY = {
    "hours_read": "rows read within the period",
    "hours_flagged": "rows removed by their flag, or outside the valid range",
    "days_incomplete": "days removed for too few valid hours",
    "files_unreadable": "files broken after the header, left out",
    "rows_same_time": "rows of a time that the same sensor had already given",
    "rows_same_hour": "rows of an hour that the same sensor had already given, averaged into it",
    "rows_unsorted": "rows earlier than the row before them",
    "rows_outside_period": "rows before or after the period",
    "rows_bad_time": "rows of an impossible time, left out",
    "hours_without_row": "hours without any row between a sensor's first and last row within the period",
    "days_overlapping": "days on which several sensors of one depth have a value, averaged",
    "days_partial": "days made of fewer depths than the station's sensors have",
}

# Times (UTC, NaT if impossible), values float64, and whether all flags of a row are valid.
Readings: TypeAlias = tuple[pd.DatetimeIndex, np.ndarray, np.ndarray]


def days_of(chosen: Chosen[Form], period: Period | None) -> pd.DatetimeIndex:
    """Return every day of the period, or from the first row of the chosen sensors to the last."""
    if period is not None:
        return day_axis(*period)
    sensors = [s for by_name in chosen.values() for several in by_name.values() for s in several]
    return day_axis(min(s.first for s in sensors).normalize(), max(s.last for s in sensors).normalize())


def assemble_stations(
    chosen: Chosen[Form],
    names: Sequence[str],
    target: str,
    times: pd.DatetimeIndex,
    read: Callable[[Sensor[Form]], Readings],
    spec: SensorSource,
    catalog: Mapping[str, Feature],
    *,
    source: str,
    static: Mapping[str, np.ndarray] | None = None,
) -> xr.Dataset:
    """Return the lazy station cube of chosen sensors.

    Parameters
    ----------
    names : sequence of str
        Series of the cube, the target among them.
    read : callable
        Reads a sensor. Raises one of `archive.UNREADABLE` for a broken file, which is then named, counted and left out.
        Called inside tasks: it must be picklable.
    spec : SensorSource
        Gives `min_valid_share`, and the target's attribute `depth_rule`.
    catalog : mapping
        Valid range of each variable.
    source : str
        Name of the source in attributes.
    static : mapping
        Variable -> (station,) float32.

    Returns
    -------
    xarray.Dataset
        Series (station, time) float32, one Dask chunk and one task a station; counts (station,) int64 by the names of
        `TALLY`, of the target's sensors; `sensor_depth` (station,) float32, m: the mean of the chosen depths;
        coordinate `sensors` (station,): JSON, the target's sensors with depths, first and last day.

    Raises
    ------
    SmgeoError
        If the catalogue has a variable in another unit than the source.
    """
    for name in [*names, *(static or {})]:
        if name in catalog and catalog[name].units != FEATURES[name].units:
            raise SmgeoError(
                f"{source} gives {name} in {FEATURES[name].units!r}, and the catalogue has it in {catalog[name].units!r}; "
                "name the catalogue's variable otherwise"
            )
    features = {n: catalog.get(n, FEATURES[n]) for n in [*names, *(static or {})]}
    ranges = {n: features[n].valid_range for n in names}
    rows: dict[str, list[da.Array]] = {n: [] for n in names}
    counts: list[da.Array] = []
    load = delayed(_load_station, pure=True)
    for by_name in chosen.values():
        loaded = load(read, by_name, ranges, target, times, spec.min_valid_share)
        for name in names:
            rows[name].append(da.from_delayed(loaded[0][name], (times.size,), dtype="float32"))
        counts.append(da.from_delayed(loaded[1], (len(TALLY),), dtype="int64"))
    data: dict[str, Entry] = {n: (("station", "time"), da.stack(rows[n]), features[n].attrs()) for n in names}
    data[target] = (*data[target][:2], {**data[target][2], "depth_rule": spec.depth_rule})
    stacked = da.stack(counts)
    data |= {name: count(stacked[:, i], words, source) for i, (name, words) in enumerate(TALLY.items())}
    for name, values in (static or {}).items():
        data[name] = (
            ("station",),
            values,
            {**features[name].attrs(), "source": f"{source} static variables and headers"},
        )
    depths = [np.mean(sorted({s.middle for s in b[target]})) for b in chosen.values()]
    attrs = {"kind": "diagnostic", "units": "m", "long_name": f"depth of the {target} sensor", "source": source}
    data["sensor_depth"] = ("station",), np.array(depths, dtype="float32"), attrs
    first = [by_name[target][0] for by_name in chosen.values()]
    coords = station_coordinates(
        list(chosen),
        times,
        [s.latitude for s in first],
        [s.longitude for s in first],
        elevation=[s.elevation for s in first],
        networks=[s.network for s in first],
        sensors=[json.dumps([s.record() for s in by_name[target]]) for by_name in chosen.values()],
        target=target,
    )
    return xr.Dataset(data, coords)


def _load_station(
    read: Callable[[Sensor[Form]], Readings],
    by_name: Mapping[str, list[Sensor[Form]]],
    ranges: Mapping[str, tuple[float, float]],
    target: str,
    times: pd.DatetimeIndex,
    min_valid_share: float,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the daily series of one station (time,), NaN where missing, and the counts of its target in `TALLY`'s order."""
    out = {n: np.full(times.size, np.nan, dtype="float32") for n in ranges}
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
                warnings.warn(f"{files} cannot be read to the end and is left out ({reason})", SmgeoWarning)
                continue
            low, high = ranges[name]
            possible = (values >= low) & (values <= high)
            good = wanted & possible
            infinite = np.isinf(values)
            note_dropped(name, INFINITE, int(infinite.sum()))
            note_dropped(name, OUTSIDE, int((wanted & ~possible & ~infinite & ~np.isnan(values)).sum()))
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
    """Return the mean of sensors at one depth, then of depths; the days with several sensors; those with fewer depths."""
    layers = np.stack([_mean(np.stack(sensors)) for sensors in depths])
    series = _mean(layers)
    several = np.any([np.isfinite(sensors).sum(axis=0) > 1 for sensors in depths], axis=0)
    given = np.isfinite(layers).sum(axis=0)
    return series, int(several.sum()), int(((given > 0) & (given < len(depths))).sum())


def _mean(rows: np.ndarray) -> np.ndarray:
    """Return the mean of the rows that have a value, NaN where none has."""
    # np.nanmean warns of days without a value, and silencing warnings is not safe in threads.
    given = np.isfinite(rows)
    n = given.sum(axis=0)
    return np.where(n > 0, np.where(given, rows, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)


def to_days(
    stamps: pd.DatetimeIndex, values: np.ndarray, good: np.ndarray, times: pd.DatetimeIndex, min_valid_share: float
) -> tuple[np.ndarray, dict[str, int]]:
    """Return the mean of each day's valid hours, and counts of rows, hours and days.

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
    Two valid hours are enough here; the row at 01:30 belongs to the same hour as that at 01:00.

    >>> stamps = pd.DatetimeIndex(["2020-01-01 00:00", "2020-01-01 01:00", "2020-01-01 01:30"])
    >>> day = pd.date_range("2020-01-01", periods=1)
    >>> daily, tally = to_days(stamps, np.array([0.1, 0.2, 0.4]), np.ones(3, bool), day, 2 / 24)
    >>> float(daily[0].round(6)), tally["rows_same_hour"]
    (0.2, 1)
    """
    timed = np.asarray(stamps.notna())
    bad_time = int((~timed).sum())
    stamps, values, good = stamps[timed], values[timed], good[timed]
    inside = np.asarray((stamps >= times[0]) & (stamps < times[-1] + pd.Timedelta(days=1)))
    unsorted = int((np.diff(stamps.to_numpy().astype("int64")) < 0).sum())
    stamps, values, good = stamps[inside], values[inside], good[inside]
    hour = (stamps.normalize() - times[0]).days.to_numpy() * HOURS + stamps.hour.to_numpy()
    # Two values of one hour count as one hour, so that duplicates cannot complete a day.
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
        "rows_bad_time": bad_time,
        "hours_without_row": int(given[-1] - given[0] + 1 - given.size) if given.size else 0,
    }
