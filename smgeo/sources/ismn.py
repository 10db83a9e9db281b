"""ISMN archives, zip or folder, read by the `ismn` package into a lazy station cube.

One task a station reads that station's files; nothing but headers is read before.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError, SmgeoWarning, missing_extra, nearest

HOURS = 24


@dataclass(frozen=True)
class _Series:
    """How ISMN names a variable, and how hours become a day."""

    code: str
    daily: Callable[[np.ndarray], np.ndarray]
    at_depth: bool = True


def _mean(hourly: np.ndarray) -> np.ndarray:
    return hourly


def _sum(hourly: np.ndarray) -> np.ndarray:
    return hourly * HOURS


# The day's value is the mean of its valid hours; a sum is that mean times 24, so that a missing hour is not a dry one.
_SERIES = {
    "sm": _Series("sm", _mean),
    "soil_temperature": _Series("ts", _mean),
    "precipitation": _Series("p", _sum, at_depth=False),
}
# In the archive's static_variables.csv, by the package's own names.
_STATIC = {"sand": "sand_fraction", "silt": "silt_fraction", "clay": "clay_fraction"}
_HEADER = ("elevation",)


@dataclass(frozen=True)
class _File:
    """One .stm file, as its name and header describe it."""

    path: str
    network: str
    station: str
    code: str
    depth: tuple[float, float]
    latitude: float
    longitude: float
    elevation: float
    first: pd.Timestamp
    last: pd.Timestamp

    @property
    def id(self) -> str:
        return f"{self.network}/{self.station}"


def known_variables() -> tuple[str, ...]:
    """Variables that an ISMN archive can give."""
    return (*_SERIES, *_STATIC, *_HEADER)


def open_ismn(
    path: str | Path,
    depth_m: tuple[float, float] = (0.0, 0.10),
    period: tuple[Any, Any] | None = None,
    flags: Sequence[str] = ("G",),
    *,
    target: str = "sm",
    variables: Sequence[str] = (),
    min_valid_share: float = 0.5,
    networks: Sequence[str] | None = None,
) -> xr.Dataset:
    """Stations of an ISMN archive (header+values), as a lazy daily station cube.

    Parameters
    ----------
    path : str or Path
        Zip file as downloaded, or its unpacked folder.
    depth_m : (float, float)
        Sensors whose depth lies in this range (m below the surface). Where a station has several, the one whose
        middle is nearest to the range's middle is taken (the shallower of two equals, the mean of sensors at one
        depth) and its depth recorded in `sensor_depth`.
    period : (date, date), optional
        First and last day; all days of the archive by default.
    flags : sequence of str
        ISMN quality flags that count as valid. An hour with several flags needs all of them to be among these.
    target : str
        The variable stations must have.
    variables : sequence of str
        What else to read: `soil_temperature`, `precipitation`, `sand`, `silt`, `clay`, `elevation`.
    min_valid_share : float
        Share of a day's 24 hours that must be valid for the day to have a value.
    networks : sequence of str, optional
        Only these networks.

    Returns
    -------
    xarray.Dataset
        Dims (station, time), float32, one Dask chunk a station. Diagnostics per station: `hours_read`,
        `hours_flagged` (removed by flag, or outside the catalogue's valid range), `days_incomplete`
        (removed for too few valid hours), `files_unreadable` (broken after the header). Files whose header
        can't be read and stations without a sensor in range are in `attrs["left_out"]` (JSON); files are warned about.

    Raises
    ------
    SmgeoError
        If the archive is missing, a zip member points outside it, a variable is unknown, or no station has the
        target in the range of depths.
    """
    names = list(dict.fromkeys([target, *variables]))
    for name in names:
        if name not in known_variables():
            raise SmgeoError(f"an ISMN archive does not give {name!r}; {nearest(name, known_variables())}")
    if target not in _SERIES:
        raise SmgeoError(f"the target must be a series of the archive ({', '.join(_SERIES)}); got {target!r}")
    wanted = {_SERIES[n].code for n in names if n in _SERIES}
    members = _check_members(Path(path))
    files, unreadable = _scan(Path(path), members, wanted, networks)
    chosen, left_out, depths = _choose(files, target, names, depth_m)
    if not chosen:
        found = ", ".join(f"{d:g}" for d in sorted(depths)) or "none"
        raise SmgeoError(
            f"{path}: no station has {target} between {depth_m[0]:g} and {depth_m[1]:g} m; middles of the sensors' depths in "
            f"the archive: {found} m. Change target.depth_m"
        )
    if unreadable:
        warnings.warn(
            f"{path}: {len(unreadable)} file(s) can't be read as ISMN header+values and are left out: "
            f"{', '.join(sorted(unreadable)[:10])}",
            SmgeoWarning,
        )
    times = _days(chosen, period)
    ds = _assemble(Path(path), members, chosen, names, target, times, tuple(flags), min_valid_share)
    return ds.assign_attrs(left_out=json.dumps({**left_out, **unreadable}))


def _check_members(path: Path) -> list[str]:
    """Files of the archive; refuses a zip whose members point outside its folder."""
    if path.is_dir():
        return sorted(str(PurePosixPath(p.relative_to(path))) for p in path.rglob("*") if p.is_file())
    if not path.exists():
        raise SmgeoError(
            f"ISMN archive {path} not found; give the zip or its unpacked folder (relative paths start at --data)"
        )
    if not zipfile.is_zipfile(path):
        raise SmgeoError(f"{path} is neither a folder nor a zip archive")
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    for member in members:
        parts = PurePosixPath(member.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or (parts.parts and parts.parts[0].endswith(":")):
            raise SmgeoError(
                f"{path}: member {member!r} points outside the archive's folder; this is no ISMN download, nothing is read"
            )
    return sorted(m for m in members if not m.endswith("/"))


def _import_ismn() -> tuple[Any, Any, Any]:
    try:
        from ismn.base import IsmnRoot
        from ismn.filehandlers import DataFile, StaticMetaFile
    except ImportError:
        raise missing_extra("reading ISMN archives", "stations") from None
    return IsmnRoot, DataFile, StaticMetaFile


def _scan(
    path: Path, members: list[str], codes: set[str], networks: Sequence[str] | None
) -> tuple[list[_File], dict[str, str]]:
    """Headers of all files of the wanted variables; and the files whose header can't be read, with the reason."""
    IsmnRoot, DataFile, _ = _import_ismn()
    root = IsmnRoot(path)
    files, unreadable = [], {}
    for member in members:
        name = PurePosixPath(member)
        if name.suffix.lower() != ".stm":
            continue
        parts = name.stem.split("_")
        if len(parts) >= 4 and (parts[3] not in codes or (networks and parts[1] not in networks)):
            continue
        try:
            meta = DataFile(root, member).metadata
            depth = meta["instrument"].depth
            described = _File(
                path=member,
                network=parts[1],
                station=parts[2],
                code=parts[3],
                depth=(float(depth.start), float(depth.end)),
                **{k: float(meta[k].val) for k in ("latitude", "longitude", "elevation")},
                first=pd.Timestamp(meta["timerange_from"].val),
                last=pd.Timestamp(meta["timerange_to"].val),
            )
        # The package raises many kinds of errors on a broken file; every one is named, counted and reported.
        except Exception as error:
            unreadable[member] = f"header not readable ({type(error).__name__})"
            continue
        files.append(described)
    root.close()
    return files, unreadable


def _choose(
    files: list[_File], target: str, names: list[str], depth_m: tuple[float, float]
) -> tuple[dict[str, dict[str, list[_File]]], dict[str, str], set[float]]:
    """Files of each station and variable; stations left out with the reason; depths the target is measured at."""
    low, high = depth_m
    middle = (low + high) / 2
    stations: dict[str, dict[str, list[_File]]] = {}
    depths = {sum(f.depth) / 2 for f in files if f.code == _SERIES[target].code}
    for name in names:
        series = _SERIES.get(name)
        if series is None:
            continue
        for file in files:
            if file.code != series.code:
                continue
            inside = low - 1e-9 <= file.depth[0] and file.depth[1] <= high + 1e-9
            if inside or not series.at_depth:
                stations.setdefault(file.id, {}).setdefault(name, []).append(file)
    chosen: dict[str, dict[str, list[_File]]] = {}
    left_out = {f.id: f"no {target} sensor between {low:g} and {high:g} m" for f in files}
    for station, by_name in sorted(stations.items()):
        if target not in by_name:
            continue
        left_out.pop(station)
        chosen[station] = {}
        for name, candidates in by_name.items():
            best = min(candidates, key=lambda f: (round(abs(sum(f.depth) / 2 - middle), 6), f.depth))
            chosen[station][name] = [f for f in candidates if f.depth == best.depth]
    return chosen, left_out, depths


def _days(chosen: dict[str, dict[str, list[_File]]], period: tuple[Any, Any] | None) -> pd.DatetimeIndex:
    if period is not None:
        return pd.date_range(pd.Timestamp(period[0]), pd.Timestamp(period[1]), freq="D", name="time")
    files = [f for by_name in chosen.values() for fs in by_name.values() for f in fs]
    return pd.date_range(
        min(f.first for f in files).normalize(), max(f.last for f in files).normalize(), freq="D", name="time"
    )


def _assemble(
    path: Path,
    members: list[str],
    chosen: dict[str, dict[str, list[_File]]],
    names: list[str],
    target: str,
    times: pd.DatetimeIndex,
    flags: tuple[str, ...],
    min_valid_share: float,
) -> xr.Dataset:
    series_names = [n for n in names if n in _SERIES]
    rows: dict[str, list[da.Array]] = {n: [] for n in series_names}
    counts: list[da.Array] = []
    for by_name in chosen.values():
        loaded = dask.delayed(_load_station, pure=True)(path, by_name, target, times, flags, min_valid_share)
        for name in series_names:
            rows[name].append(da.from_delayed(loaded[0][name], (times.size,), dtype="float32"))
        counts.append(da.from_delayed(loaded[1], (4,), dtype="int64"))
    ids = list(chosen)
    first = [next(iter(chosen[s][target])) for s in ids]
    per_station = np.array([f.depth for f in first], dtype="float32").mean(axis=1)
    data: dict[str, Any] = {n: (("station", "time"), da.stack(rows[n]), FEATURES[n].attrs()) for n in series_names}
    for i, name in enumerate(("hours_read", "hours_flagged", "days_incomplete", "files_unreadable")):
        attrs = {"kind": "diagnostic", "units": "1", "long_name": name.replace("_", " "), "source": "ISMN"}
        data[name] = (("station",), da.stack(counts)[:, i], attrs)
    for name, values in _static_values(path, members, chosen, names).items():
        data[name] = (("station",), values, {**FEATURES[name].attrs(), "source": "ISMN static variables and headers"})
    attrs = {"kind": "diagnostic", "units": "m", "long_name": f"depth of the {target} sensor", "source": "ISMN"}
    data["sensor_depth"] = (("station",), per_station, attrs)
    coords = {
        "station": np.array(ids, dtype=object),
        "time": times,
        "latitude": ("station", [f.latitude for f in first], {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("station", [f.longitude for f in first], {"units": "degrees_east", "standard_name": "longitude"}),
        "station_elevation": ("station", [f.elevation for f in first], {"units": "m"}),
        "network": ("station", np.array([f.network for f in first], dtype=object)),
    }
    return xr.Dataset(data, coords)


def _static_values(
    path: Path, members: list[str], chosen: dict[str, dict[str, list[_File]]], names: list[str]
) -> dict[str, np.ndarray]:
    """Static variables per station, the layer nearest to the surface; NaN where the archive has none."""
    out = {n: np.full(len(chosen), np.nan, dtype="float32") for n in names if n in _STATIC or n in _HEADER}
    if not out:
        return out
    IsmnRoot, _, StaticMetaFile = _import_ismn()
    root = IsmnRoot(path)
    unreadable = []
    for i, by_name in enumerate(chosen.values()):
        file = next(fs[0] for fs in by_name.values())
        if "elevation" in out:
            out["elevation"][i] = file.elevation
        folder = str(PurePosixPath(file.path).parent)
        tables = [m for m in members if m.endswith("_static_variables.csv") and str(PurePosixPath(m).parent) == folder]
        wanted = [n for n in out if n in _STATIC]
        if not wanted:
            continue
        try:
            meta = StaticMetaFile(root, tables[0]).metadata
            for name in wanted:
                layers = [v for v in meta.metadata if v.name == _STATIC[name] and v.depth is not None]
                if layers:
                    out[name][i] = float(min(layers, key=lambda v: v.depth.start).val)
        except Exception as error:
            unreadable.append(f"{file.id} ({type(error).__name__})")
    root.close()
    if unreadable:
        warnings.warn(
            f"{path}: static variables of {len(unreadable)} station(s) can't be read: {', '.join(unreadable[:10])}",
            SmgeoWarning,
        )
    return out


def _load_station(
    path: Path,
    by_name: dict[str, list[_File]],
    target: str,
    times: pd.DatetimeIndex,
    flags: tuple[str, ...],
    min_valid_share: float,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Daily series of one station, and of its target: hours read, hours flagged, days incomplete."""
    IsmnRoot, DataFile, _ = _import_ismn()
    root = IsmnRoot(path)
    out = {n: np.full(times.size, np.nan, dtype="float32") for n in _SERIES}
    counts = np.zeros(4, dtype="int64")
    for name, files in by_name.items():
        sensors = []
        for file in files:
            try:
                table = DataFile(root, file.path).read_data()
                daily, tally = _daily(table, times, flags, min_valid_share, FEATURES[name].valid_range)
            # As for headers: whatever the package raises on a broken line, the file is named and counted.
            except Exception as error:
                counts[3] += 1
                reason = f"{type(error).__name__}: {error}"[:200]
                warnings.warn(f"{path}: {file.path} can't be read to its end and is left out ({reason})", SmgeoWarning)
                continue
            sensors.append(daily)
            if name == target:
                counts[:3] += tally
        if not sensors:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all sensors missing on a day: that day is missing
            out[name] = _SERIES[name].daily(np.nanmean(sensors, axis=0)).astype("float32")
    root.close()
    return out, counts


def _daily(
    table: pd.DataFrame,
    times: pd.DatetimeIndex,
    flags: tuple[str, ...],
    min_valid_share: float,
    valid_range: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each day's valid hours; and hours read, hours with a flag not wanted, days with too few valid hours.

    `table` is what the ismn package reads: index of UTC times, a value column and a `_flag` column.
    """
    flag_column = next(c for c in table.columns if c.endswith("_flag") and not c.endswith("orig_flag"))
    value_column = flag_column.removesuffix("_flag")
    table = table[(table.index >= times[0]) & (table.index < times[-1] + pd.Timedelta(days=1))]
    values = pd.to_numeric(table[value_column], errors="coerce").to_numpy("float64")
    given = table[flag_column].astype(str)
    combinations = {c: set(map(str.strip, c.split(","))) <= set(flags) for c in given.unique()}
    good = given.map(combinations).to_numpy(bool) & (values >= valid_range[0]) & (values <= valid_range[1])
    stamps = pd.DatetimeIndex(table.index)
    day = (stamps.normalize() - times[0]).days.to_numpy()
    # Two values of one hour count as one hour, so that duplicates can't complete a day.
    hour = day * HOURS + stamps.hour.to_numpy()
    total = np.bincount(hour[good], weights=values[good], minlength=times.size * HOURS)
    n = np.bincount(hour[good], minlength=times.size * HOURS)
    hourly = np.where(n > 0, total / np.maximum(n, 1), 0.0).reshape(-1, HOURS)
    valid = (n > 0).reshape(-1, HOURS).sum(axis=1)
    enough = valid >= max(min_valid_share * HOURS, 1)
    daily = np.where(enough, hourly.sum(axis=1) / np.maximum(valid, 1), np.nan)
    incomplete = int(((valid > 0) & ~enough).sum())
    return daily, np.array([len(values), int((~good).sum()), incomplete], dtype="int64")
