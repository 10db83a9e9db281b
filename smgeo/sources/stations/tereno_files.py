"""Text exports of the TERENO data portal (TEODOOR): the sensors of a file, and its rows.

No specification of the portal's text export is public. This reader relies on:

- *Documented.* A column of soil water content is named by depth and sensor, `SoilWaterContent_0.05mSensor1`, two sensors a
  depth; a quality flag is a pair of a generic and a specific word, `ok: ok` (variables and flags of TERENO's exports as
  NCAR's DART reads them in convert_soil_moisture.f90; the generic and specific levels: Devaraju et al. 2015, Q-SOS,
  doi:10.3390/ijgi4031346). In the text of TERENO's Sensor Observation Service the line of column names starts with `#`, a column
  is `NAME in [unit]`, times are ISO 8601 with their offset from UTC, and a missing value is `noData` (as programs of the
  observatory read it).
- *Assumed.* Metadata precede the names as `# key: value`. The flag of a value has a column with the value's
  name and `_QC`, `_Flag` or `QualityFlag` at the end. A file contains one station.

An export that differs is read by naming its columns (`columns`, `time_column`, `separator`, `missing`, `stations`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.stations import TerenoColumn, TerenoSource
from smgeo.sources.stations.archive import Archive, decode
from smgeo.sources.stations.sensors import Sensor
from smgeo.sources.stations.series import Readings

_QUANTITY = re.compile(
    r"(?P<quantity>SoilWaterContent|SoilTemperature)_(?P<depth>\d+(?:\.\d+)?)m(?P<sensor>(?!.*(?:QC|Flag)$).*)",
    re.IGNORECASE,
)
_QUANTITIES: dict[str, Literal["sm", "soil_temperature"]] = {
    "soilwatercontent": "sm",
    "soiltemperature": "soil_temperature",
}
_UNIT = re.compile(r"(?P<name>.+?)\s*(?:\bin\s*)?\[(?P<unit>[^\]]*)\]")
_FLAG_ENDS = ("qc", "flag", "qualityflag", "quality")
_TIME_NAMES = ("timestamp", "time", "date", "datetime", "datetime_utc", "date_time")
_META = re.compile(r"#\s*(?P<key>[^:;=\[\]]+?)\s*[:;=]\s*(?P<value>[^;]+?)\s*;*")
_META_KEYS = {
    "station": ("station", "site", "station name", "station_name", "site code"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "long"),
    "elevation": ("elevation", "altitude", "elev"),
}
# Unit -> (scale, offset) to the catalogue's unit.
_UNITS: dict[str, dict[str, tuple[float, float]]] = {
    "sm": {
        **dict.fromkeys(("%", "vol%", "vol.%", "vol-%", "vol.-%", "%vol", "percent"), (0.01, 0.0)),
        **dict.fromkeys(
            ("m3/m3", "m^3/m^3", "m³/m³", "m3m-3", "cm3/cm3", "cm^3/cm^3", "cm³/cm³", "-", "1"), (1.0, 0.0)
        ),
    },
    "soil_temperature": {**dict.fromkeys(("degc", "°c", "c"), (1.0, 0.0)), "k": (1.0, -273.15)},
}
_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class Part:
    """How one sensor's rows are read from one file."""

    member: str
    names: tuple[str, ...]
    skipped: int
    separator: str
    time: int
    value: int
    flags: tuple[int, ...]
    scale: float
    offset: float


class Place(NamedTuple):
    """Position of a station: EPSG:4326 degrees, and m (NaN if unknown)."""

    latitude: float
    longitude: float
    elevation: float


class _Header(NamedTuple):
    """Metadata of a file; line of the column names, and the names; separator; index of the time column."""

    meta: dict[str, str]
    line: int
    names: list[str]
    separator: str
    time: int


def describe_file(
    archive: Archive, member: str, spec: TerenoSource, places: Mapping[str, Place]
) -> list[Sensor[tuple[Part, ...]]]:
    """Return the sensors of one file; `places` are positions by the names of stations.

    Raises
    ------
    SmgeoError
        If the file is not understood, with the key of the spec that would explain it.
    """
    lines, last = archive.ends(member, size=_HEADER_BYTES)
    header = _read_header(lines, spec)
    if header.line + 1 >= len(lines):
        raise SmgeoError("the file has column names but no values")
    ends = [line.split(header.separator)[header.time].strip('" ') for line in (lines[header.line + 1], last)]
    first, final = sorted(_parse_times(pd.Series(ends), member, spec))
    station = header.meta.get("station", PurePosixPath(member).stem).replace("/", "-")
    place = places.get(station) or _place_of(header.meta, station)
    columns = _recognise(header.names) if spec.columns is None else spec.columns
    sensors: list[Sensor[tuple[Part, ...]]] = []
    for index, name in enumerate(header.names):
        bare, unit = _split_unit(name)
        column = columns.get(name, columns.get(bare))
        if column is None:
            continue
        scale, offset = _conversion(column.variable, column.units or unit, name)
        flags, start = _flag_columns(column, header.names, name), header.line + 1
        part = Part(member, tuple(header.names), start, header.separator, header.time, index, flags, scale, offset)
        about = (spec.network, station, column.variable, column.depth, *place, first, final, column.sensor or bare)
        sensors.append(Sensor(*about, (member,), (part,)))
    if not sensors:
        raise SmgeoError(
            f"no column of soil water content or temperature among {', '.join(header.names[:12])}; name them in columns"
        )
    return sensors


def _read_header(lines: list[str], spec: TerenoSource) -> _Header:
    wanted = (spec.time_column.lower(),) if spec.time_column else _TIME_NAMES
    meta: dict[str, str] = {}
    for at, line in enumerate(lines):
        bare = line.lstrip("# ")
        separator = spec.separator or max(";,\t", key=bare.count)
        names = [n.strip('" ') for n in bare.split(separator)]
        plain = [_split_unit(n)[0].lower() for n in names]
        time = next((plain.index(w) for w in wanted if w in plain), None)
        if time is not None and len(names) > 1:
            return _Header(meta, at, names, separator, time)
        if not line.startswith("#"):
            break
        if match := _META.fullmatch(line):
            for key, words in _META_KEYS.items():
                if match["key"].lower() in words:
                    meta[key] = match["value"].strip('" ')
    raise SmgeoError(
        f"no line of column names with {' or '.join(wanted)} before the values; name the column in time_column"
    )


def _split_unit(name: str) -> tuple[str, str | None]:
    match = _UNIT.fullmatch(name)
    return (match["name"], match["unit"]) if match else (name, None)


def _recognise(names: list[str]) -> dict[str, TerenoColumn]:
    """Return the columns whose names follow the portal's pattern."""
    out = {}
    for name in names:
        bare, unit = _split_unit(name)
        if match := _QUANTITY.fullmatch(bare):
            out[name] = TerenoColumn(
                variable=_QUANTITIES[match["quantity"].lower()],
                depth_m=float(match["depth"]),
                units=unit,
                flag=tuple(other for other in names if _is_flag_of(other, bare)),
                sensor=match["sensor"].strip("_ ") or bare,
            )
    return out


def _flag_columns(spec: TerenoColumn, names: list[str], column: str) -> tuple[int, ...]:
    if absent := [f"{f!r} ({nearest(f, names)})" for f in spec.flag_columns if f not in names]:
        raise SmgeoError(f"columns.{column}: no column of flags {', '.join(absent)}")
    return tuple(names.index(f) for f in spec.flag_columns)


def _is_flag_of(name: str, value: str) -> bool:
    bare = _split_unit(name)[0].lower()
    return bare.startswith(value.lower()) and re.sub(r"[^a-z]", "", bare[len(value) :]) in _FLAG_ENDS


def _conversion(variable: str, unit: str | None, column: str) -> tuple[float, float]:
    """Return scale and offset to the catalogue's unit."""
    known = _UNITS[variable]
    if unit is None:
        raise SmgeoError(f"column {column!r} does not contain its unit; set units in columns: {', '.join(known)}")
    plain = unit.strip().lower().replace(" ", "")
    if plain not in known:
        raise SmgeoError(f"column {column!r}: unknown unit {unit!r} of {variable}; known: {', '.join(known)}")
    return known[plain]


def _place_of(meta: Mapping[str, str], station: str) -> Place:
    try:
        elevation = float(meta.get("elevation", "nan").removesuffix("m"))
        return Place(float(meta["latitude"]), float(meta["longitude"]), elevation)
    except (KeyError, ValueError):
        raise SmgeoError(
            f"no position of {station} (lines `# latitude: ...`, `# longitude: ...`); set `stations`, a table of "
            "station, latitude, longitude"
        ) from None


def _parse_times(column: pd.Series, member: str, spec: TerenoSource, skipped: int = 0) -> pd.DatetimeIndex:
    """Return times in UTC without zone; those without an offset are `utc_offset_hours` ahead of UTC."""
    words = column.fillna("").astype(str)
    parsed = pd.to_datetime(words, format=spec.time_format, errors="coerce", utc=True)
    bad = np.flatnonzero(parsed.isna().to_numpy())
    if bad.size:
        raise SmgeoError(
            f"{member}, line {bad[0] + skipped + 1}: {words.iloc[bad[0]]!r} is not a time such as 2013-01-31T23:00:00+01:00; "
            "set time_format for other forms"
        )
    zoned = words.str.contains(r"(?:Z|[+-]\d{2}:?\d{2})$", regex=True).to_numpy()
    shift = np.where(zoned, 0.0, spec.utc_offset_hours)
    return pd.DatetimeIndex(parsed.dt.tz_localize(None) - pd.to_timedelta(shift, unit="h"))


def read_sensor(folder: Path, spec: TerenoSource, sensor: Sensor[tuple[Part, ...]]) -> Readings:
    """Return the rows of one sensor from all its files, in the catalogue's unit."""
    wanted = frozenset("ok" if f == "G" else f.lower() for f in spec.flags)
    with Archive(folder) as archive:
        parts = [_read_part(archive.read(part.member), part, wanted, spec) for part in sensor.form]
    stamps = pd.DatetimeIndex(np.concatenate([p[0].to_numpy() for p in parts]))
    return stamps, np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts])


def _read_part(data: bytes, part: Part, wanted: frozenset[str], spec: TerenoSource) -> Readings:
    lines = [line for line in decode(data).splitlines() if line.strip()][part.skipped :]
    raw = pd.read_csv(
        io.StringIO("\n".join(lines)),
        sep=part.separator,
        header=None,
        names=list(range(len(part.names))),
        usecols=sorted({part.time, part.value, *part.flags}),
        dtype=str,
        keep_default_na=False,
        skipinitialspace=True,
    )
    stamps = _parse_times(raw[part.time], part.member, spec, part.skipped)
    words = raw[part.value].fillna("").str.strip()
    words = words.mask(words.isin([*spec.missing, ""]))
    values = pd.to_numeric(words, errors="coerce")
    bad = np.flatnonzero((values.isna() & words.notna()).to_numpy())
    if bad.size:
        raise SmgeoError(
            f"{part.member}, line {bad[0] + part.skipped + 1}: {words.iloc[bad[0]]!r} in {part.names[part.value]!r} is neither a "
            "number nor one of `missing`"
        )
    good = np.ones(len(raw), dtype=bool)
    for flag in part.flags:
        given = raw[flag].fillna("").str.strip().str.lower()
        good &= (
            given.isin(wanted) | given.str.split(r"[:_]", n=1, regex=True).str[0].str.strip().isin(wanted)
        ).to_numpy()
    return stamps, values.to_numpy("float64") * part.scale + part.offset, good
