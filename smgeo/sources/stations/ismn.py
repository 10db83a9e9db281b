"""ISMN archives, zip or folder, in all three formats of the download, as a lazy station cube.

Opening reads the first and last lines of each file (of the old CEOP format, the whole file). Then one task a station reads that
station's files.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import xarray as xr

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, SmgeoWarning, missing_extra
from smgeo.recipe.stations import IsmnSource
from smgeo.sources.stations.archive import UNREADABLE, Archive, decode, list_members, list_reasons
from smgeo.sources.stations.ismn_files import CODES, find_sensors, read_sensor
from smgeo.sources.stations.layout import Period
from smgeo.sources.stations.sensors import Chosen, choose_sensors, name_variables
from smgeo.sources.stations.series import assemble_stations, days_of

_SERIES = tuple(dict.fromkeys(CODES.values()))
# Names in the archive's static_variables.csv, as the `ismn` package gives them.
_STATIC = {"sand": "sand_fraction", "silt": "silt_fraction", "clay": "clay_fraction"}
_HEADER = ("elevation",)
# Koeppen-Geiger maps of the static variables, the newest first.
_CLIMATES = ("koeppen_geiger_2017", "koeppen_geiger_2007")


def open_ismn(
    spec: IsmnSource,
    *,
    root: str | Path = ".",
    target: str = "sm",
    depth_m: tuple[float, float] = (0.0, 0.10),
    period: Period | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Return the stations of an ISMN archive as a lazy daily station cube.

    One archive may contain header+values, CEOP in separate files and CEOP; see `smgeo.sources.stations.ismn_files` for the formats
    and their sources. Times are UTC in all of them.

    Parameters
    ----------
    spec : IsmnSource
    root : str or Path
        Where relative paths start.
    target : str
        The variable that stations must have.
    depth_m : (float, float)
        Range of the sensors' depths (m below the surface).
    period : (date, date), optional
        First and last day; all days of the archive by default.
    catalog : mapping
        Kind, unit and valid range of each variable.

    Returns
    -------
    xarray.Dataset
        Dims (station, time), float32, one Dask chunk a station. Diagnostics per station, by the target's sensors:
        `hours_read`, `hours_flagged` (removed by flag, or outside the catalogue's valid range), `days_incomplete`
        (removed for too few valid hours), `files_unreadable` (broken after the header), `rows_same_time`, `rows_same_hour`,
        `rows_unsorted`, `rows_outside_period`, `rows_bad_time`, `hours_without_row`, `days_overlapping`, `days_partial` (described in their `long_name`),
        and `sensor_depth` (m). Coordinates `sensors`: JSON, the sensors of a station's target; `climate`: Koeppen-Geiger class of the
        archive's static variables (of 2017, else of 2007), empty if it has none. Files
        that cannot be read and stations without a sensor in range are in `attrs["left_out"]` (JSON); files are warned about.

    Raises
    ------
    SmgeoError
        If the archive is missing, a zip member points outside it, a variable is unknown, or no station has the
        target in the range of depths.
    """
    path = Path(root) / spec.path
    names = name_variables(spec, target, (*_SERIES, *_STATIC, *_HEADER), f"{path}: an ISMN archive")
    if target not in _SERIES:
        raise SmgeoError(f"{path}: the target must be a series of the archive ({', '.join(_SERIES)}); got {target!r}")
    series = [n for n in names if n in _SERIES]
    members = list_members(path, "ISMN archive")
    with Archive(path) as archive:
        sensors, unreadable = find_sensors(archive, members, set(series), set(spec.networks) if spec.networks else None)
    if unreadable:
        warnings.warn(
            f"{path}: {len(unreadable)} file(s) cannot be read as ISMN files and are left out: {list_reasons(unreadable)}",
            SmgeoWarning,
        )
    chosen, left_out = choose_sensors(sensors, spec, target, depth_m, path)
    ds = assemble_stations(
        chosen,
        series,
        target,
        days_of(chosen, period),
        partial(read_sensor, path, spec.flags),
        spec,
        catalog,
        source="ISMN",
        static=_static_values(path, members, chosen, names, target),
    )
    climates = _climates(path, members, chosen, target)
    attrs = {"long_name": "climate class (Koeppen-Geiger)", "source": "ISMN static variables"}
    return ds.assign_coords(climate=("station", climates, attrs)).assign_attrs(
        left_out=json.dumps({**left_out, **unreadable})
    )


def _climates(path: Path, members: Sequence[str], chosen: Chosen[str], target: str) -> np.ndarray:
    """Return the climate class of each station by its table of static variables; empty if there is none."""
    tables = _static_tables(members)
    out = np.full(len(chosen), "", dtype=object)
    with Archive(path) as archive:
        for i, by_name in enumerate(chosen.values()):
            member = _table_beside(by_name[target][0].files[0], tables)
            if member is None:
                continue
            try:
                rows = [line.split(";") for line in decode(archive.read(member)).splitlines()]
            except UNREADABLE:
                continue  # warned about if its numbers are asked for; scores by climate leave the station out
            by_source = {r[6]: r[4] for r in rows if len(r) > 6 and r[0] == "climate classification"}
            out[i] = next((by_source[source] for source in _CLIMATES if source in by_source), "")
    return out


def _static_tables(members: Sequence[str]) -> dict[str, str]:
    """Folder -> its table of static variables."""
    return {str(PurePosixPath(m).parent): m for m in members if m.endswith("_static_variables.csv")}


def _table_beside(member: str, tables: Mapping[str, str]) -> str | None:
    """Return the table of static variables in the folder of a file, which is above that of a sensor's name with a slash."""
    return next((tables[str(p)] for p in PurePosixPath(member).parents if str(p) in tables), None)


def _static_values(
    path: Path, members: Sequence[str], chosen: Chosen[str], names: Sequence[str], target: str
) -> dict[str, np.ndarray]:
    """Return the static variables per station, of the layer nearest to the surface; NaN if the archive has none."""
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
            meta = StaticMetaFile(root, _table_beside(sensor.files[0], tables)).metadata
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
            f"{path}: static variables of {len(unreadable)} station(s) cannot be read: {', '.join(unreadable[:10])}",
            SmgeoWarning,
        )
    return out
