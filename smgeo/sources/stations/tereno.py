"""Stations of the TERENO data portal (TEODOOR): text exports of its time series, as a lazy station cube.

`smgeo.sources.stations.tereno_files` lists what of the layout is documented and what is assumed. TERENO's
stations in the ISMN are read as any ISMN network.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import xarray as xr

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.recipe.stations import TerenoSource
from smgeo.sources.stations.archive import UNREADABLE, Archive, list_members, list_reasons
from smgeo.sources.stations.csv_files import PlainForm, read_places
from smgeo.sources.stations.layout import Period
from smgeo.sources.stations.sensors import Sensor, choose_sensors, name_variables
from smgeo.sources.stations.series import assemble_stations, days_of
from smgeo.sources.stations.tereno_files import Part, Place, describe_file, read_sensor

_VARIABLES = ("sm", "soil_temperature")
_SUFFIXES = (".csv", ".txt")
_Exported: TypeAlias = Sensor[tuple[Part, ...]]


def open_tereno(
    spec: TerenoSource,
    *,
    root: str | Path = ".",
    target: str = "sm",
    depth_m: tuple[float, float] = (0.0, 0.10),
    period: Period | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Return the stations of exports of the TERENO data portal as a lazy daily station cube.

    Parameters
    ----------
    spec, root, target, depth_m, period, catalog
        As in `smgeo.sources.stations.ismn.open_ismn`.

    Returns
    -------
    xarray.Dataset
        As `open_ismn` returns, with the same diagnostics; `sm` in m3 m-3. Opening reads the two ends of each file.

    Raises
    ------
    SmgeoError
        If nothing is at the path, no file is readable, a variable or unit is unknown, or no station has the target in the range
        of depths.
    """
    path = Path(root) / spec.path
    names = name_variables(spec, target, _VARIABLES, f"{path}: an export of TERENO")
    is_file = path.is_file() and path.suffix.lower() in _SUFFIXES
    folder, members = (path.parent, [path.name]) if is_file else (path, list_members(path, "TERENO export"))
    sensors, unreadable = _find_sensors(folder, members, spec, _places(spec, Path(root)))
    sensors = [s for s in sensors if s.variable in names]
    if unreadable and not sensors:
        raise SmgeoError(f"{path}: no file can be read as an export of TERENO: {list_reasons(unreadable)}")
    if unreadable:
        warnings.warn(
            f"{path}: {len(unreadable)} file(s) cannot be read and are left out: {list_reasons(unreadable)}",
            SmgeoWarning,
        )
    chosen, left_out = choose_sensors(sensors, spec, target, depth_m, path)
    _warn_of_no_flags(path, [s for by_name in chosen.values() for several in by_name.values() for s in several])
    ds = assemble_stations(
        chosen,
        names,
        target,
        days_of(chosen, period),
        partial(read_sensor, folder, spec),
        spec,
        catalog,
        source="TERENO",
    )
    return ds.assign_attrs(left_out=json.dumps({**left_out, **unreadable}))


def _places(spec: TerenoSource, root: Path) -> dict[str, Place]:
    """Return the positions in the spec's table of stations, by the stations' names."""
    if spec.stations is None:
        return {}
    table = read_places(root / spec.stations, PlainForm(), projected=False)
    columns = table.reindex(columns=["latitude", "longitude", "station_elevation"]).to_numpy("float64")
    return {str(name): Place(*map(float, row)) for name, row in zip(table["station"], columns, strict=True)}


def _warn_of_no_flags(path: Path, sensors: Sequence[_Exported]) -> None:
    bare = sorted({f"{s.id} {s.name}" for s in sensors if not all(part.flags for part in s.form)})
    if bare:
        warnings.warn(
            f"{path}: {len(bare)} sensor(s) have no column of quality flags, so that all their values count: "
            f"{', '.join(bare[:10])}; name it in columns if there is one",
            SmgeoWarning,
        )


def _find_sensors(
    folder: Path, members: Sequence[str], spec: TerenoSource, places: Mapping[str, Place]
) -> tuple[list[_Exported], dict[str, str]]:
    """Return the sensors of all files, one of a station's several files; and the files that cannot be read."""
    found: dict[tuple[object, ...], _Exported] = {}
    unreadable: dict[str, str] = {}
    with Archive(folder) as archive:
        for member in members:
            if PurePosixPath(member).suffix.lower() not in _SUFFIXES:
                continue
            try:
                described = describe_file(archive, member, spec, places)
            # Whatever is wrong with a file, the file is named and reported.
            except UNREADABLE as error:
                unreadable[member] = str(error)
                continue
            for sensor in described:
                key = (sensor.id, sensor.variable, sensor.depth, sensor.name)
                found[key] = _join(found[key], sensor) if key in found else sensor
    return list(found.values()), unreadable


def _join(a: _Exported, b: _Exported) -> _Exported:
    """Return one sensor of two files."""
    if max(abs(a.latitude - b.latitude), abs(a.longitude - b.longitude)) > 1e-4:
        raise SmgeoError(
            f"{a.files[0]} and {b.files[0]} give different positions of {a.id}; give the right one in a table, `stations`"
        )
    return replace(
        a, first=min(a.first, b.first), last=max(a.last, b.last), files=(*a.files, *b.files), form=(*a.form, *b.form)
    )
