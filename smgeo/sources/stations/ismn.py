"""ISMN archives, zip or folder, in all three formats of the download, as a lazy station cube.

One task a station reads that station's files; before that, the first and last lines of each file (of the old CEOP format,
the file).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import xarray as xr

from smgeo.errors import SmgeoError, SmgeoWarning, missing_extra, nearest
from smgeo.sources.stations.archive import UNREADABLE, Archive, decode, list_members
from smgeo.sources.stations.ismn_files import CODES, find_sensors, read_sensor
from smgeo.sources.stations.sensors import Chosen, assemble_stations, choose_sensors, days_of

_SERIES = tuple(dict.fromkeys(CODES.values()))
# In the archive's static_variables.csv, by the `ismn` package's names.
_STATIC = {"sand": "sand_fraction", "silt": "silt_fraction", "clay": "clay_fraction"}
_HEADER = ("elevation",)
# Koeppen-Geiger maps of the static variables, the newest first.
_CLIMATES = ("koeppen_geiger_2017", "koeppen_geiger_2007")


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
    depth_rule: str = "nearest",
    nearest_to_m: float | None = None,
) -> xr.Dataset:
    """Stations of an ISMN archive, as a lazy daily station cube.

    Header+values, CEOP in separate files and CEOP may lie in one archive; see `smgeo.sources.stations.ismn_files` for the formats and
    their sources. Times are UTC in all of them.

    Parameters
    ----------
    path : str or Path
        Zip file as downloaded, or its unpacked folder.
    depth_m : (float, float)
        Sensors that lie in this range (m below the surface).
    period : (date, date), optional
        First and last day; all days of the archive by default.
    flags : sequence of str
        ISMN quality flags that count as valid (https://ismn.bafg.de/en/data/ismn-quality-flags): G, C01 to C03, D01 to D10, M;
        U (unchecked) in old archives and in CEOP files. Compared whole. An hour with several flags (`D01,D03`) needs all of
        them to be among these.
    target : str
        The variable stations must have.
    variables : sequence of str
        What else to read: `soil_temperature`, `precipitation`, `sand`, `silt`, `clay`, `elevation`.
    min_valid_share : float
        Share of a day's 24 hours that must be valid for the day to have a value.
    networks : sequence of str, optional
        Only these networks.
    depth_rule : {"nearest", "mean"}
        Of a station's sensors in the range of depths: those at the depth whose middle is nearest to `nearest_to_m` (the
        shallower of two as near), or the mean of all. Sensors at one depth, side by side or one after the other, are averaged
        on the days when they overlap (counted in `days_overlapping`), and before depths are.
    nearest_to_m : float, optional
        Depth for the rule `nearest`, m; the middle of the range by default.

    Returns
    -------
    xarray.Dataset
        Dims (station, time), float32, one Dask chunk a station. Diagnostics per station, by the target's sensors:
        `hours_read`, `hours_flagged` (removed by flag, or outside the catalogue's valid range), `days_incomplete`
        (removed for too few valid hours), `files_unreadable` (broken after the header), `rows_same_time`, `rows_same_hour`,
        `rows_unsorted`, `rows_outside_period`, `hours_without_row`, `days_overlapping`, `days_partial` (each says in its `long_name` what it
        counts), and `sensor_depth` (m). Coordinates `sensors`: JSON, what a station's target is made of; `climate`: Koeppen-Geiger class of the
        archive's static variables (of 2017, else of 2007), empty where it has none. Files
        that can't be read and stations without a sensor in range are in `attrs["left_out"]` (JSON); files are warned about.

    Raises
    ------
    SmgeoError
        If the archive is missing, a zip member points outside it, a variable or rule is unknown, or no station has the
        target in the range of depths.
    """
    names = list(dict.fromkeys([target, *variables]))
    for name in names:
        if name not in known_variables():
            raise SmgeoError(f"an ISMN archive does not give {name!r}; {nearest(name, known_variables())}")
    if target not in _SERIES:
        raise SmgeoError(f"the target must be a series of the archive ({', '.join(_SERIES)}); got {target!r}")
    path = Path(path)
    series = [n for n in names if n in _SERIES]
    members = list_members(path, "ISMN archive")
    with Archive(path) as archive:
        sensors, unreadable = find_sensors(archive, members, set(series), set(networks) if networks else None)
    if unreadable:
        warnings.warn(
            f"{path}: {len(unreadable)} file(s) can't be read as ISMN's and are left out: "
            f"{'; '.join(f'{m}: {why}' for m, why in sorted(unreadable.items())[:5])}",
            SmgeoWarning,
        )
    try:
        chosen, left_out = choose_sensors(sensors, target, depth_m, depth_rule, nearest_to_m)
    except SmgeoError as error:
        raise SmgeoError(f"{path}: {error}") from None
    ds = assemble_stations(
        chosen,
        series,
        target,
        days_of(chosen, period),
        partial(read_sensor, path, tuple(flags)),
        min_valid_share=min_valid_share,
        source="ISMN",
        rule=depth_rule,
        static=_static_values(path, members, chosen, names, target),
    )
    climates = _climates(path, members, chosen, target)
    attrs = {"long_name": "climate class (Koeppen-Geiger)", "source": "ISMN static variables"}
    return ds.assign_coords(climate=("station", climates, attrs)).assign_attrs(
        left_out=json.dumps({**left_out, **unreadable})
    )


def _climates(path: Path, members: list[str], chosen: Chosen, target: str) -> np.ndarray:
    """Climate class of each station by its table of static variables; empty where there is no table, or none in it."""
    tables = _static_tables(members)
    out = np.full(len(chosen), "", dtype=object)
    with Archive(path) as archive:
        for i, by_name in enumerate(chosen.values()):
            member = tables.get(str(PurePosixPath(by_name[target][0].files[0]).parent))
            if member is None:
                continue
            try:
                rows = [line.split(";") for line in decode(archive.read(member)).splitlines()]
            except UNREADABLE:
                continue  # named where its numbers are wanted; a score by climate does without the station
            by_source = {r[6]: r[4] for r in rows if len(r) > 6 and r[0] == "climate classification"}
            out[i] = next((by_source[source] for source in _CLIMATES if source in by_source), "")
    return out


def _static_tables(members: list[str]) -> dict[str, str]:
    """Folder -> its table of static variables."""
    return {str(PurePosixPath(m).parent): m for m in members if m.endswith("_static_variables.csv")}


def _static_values(
    path: Path, members: list[str], chosen: Chosen, names: list[str], target: str
) -> dict[str, np.ndarray]:
    """Static variables per station, the layer nearest to the surface; NaN where the archive has none."""
    out = {n: np.full(len(chosen), np.nan, dtype="float32") for n in names if n in _STATIC or n in _HEADER}
    firsts = [by_name[target][0] for by_name in chosen.values()]
    if "elevation" in out:
        out["elevation"][:] = [sensor.elevation for sensor in firsts]
    wanted = [n for n in out if n in _STATIC]
    if not wanted:
        return out
    try:
        from ismn.base import IsmnRoot
        from ismn.filehandlers import StaticMetaFile
    except ImportError:
        raise missing_extra("reading static variables of ISMN archives", "stations") from None
    tables = _static_tables(members)
    root = IsmnRoot(path)
    unreadable = []
    for i, sensor in enumerate(firsts):
        try:
            meta = StaticMetaFile(root, tables[str(PurePosixPath(sensor.files[0]).parent)]).metadata
            for name in wanted:
                layers = [v for v in meta.metadata if v.name == _STATIC[name] and v.depth is not None]
                if layers:
                    out[name][i] = float(min(layers, key=lambda v: v.depth.start).val)
        # The package raises many kinds of errors on a broken table; every one is named and counted.
        except Exception as error:
            unreadable.append(f"{sensor.id} ({type(error).__name__})")
    root.close()
    if unreadable:
        warnings.warn(
            f"{path}: static variables of {len(unreadable)} station(s) can't be read: {', '.join(unreadable[:10])}",
            SmgeoWarning,
        )
    return out
