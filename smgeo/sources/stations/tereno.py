"""Stations of the TERENO data portal (TEODOOR): text exports of its time series, as a lazy station cube.

No specification of the portal's text export is public. What this reader relies on:

- *Documented.* A column of soil water content is named by depth and sensor, `SoilWaterContent_0.05mSensor1`, two sensors a
  depth; a quality flag is a pair of a generic and a specific word, `ok: ok` (variables and flags of TERENO's exports as
  NCAR's DART reads them in convert_soil_moisture.f90; the generic and specific levels: Devaraju et al. 2015, Q-SOS,
  doi:10.3390/ijgi4031346). In the text of TERENO's Sensor Observation Service the line of column names starts with `#`, a column
  is `NAME in [unit]`, times are ISO 8601 with their offset from UTC, and a missing value is `noData` (as programs of the
  observatory read it).
- *Assumed.* That metadata stand before the names as `# key: value`, that a flag has a column beside its value
  named like it with `_QC`, `_Flag` or `QualityFlag` at the end, and that a file holds one station.

An export that differs is read by naming its columns (`columns`, `time_column`, `separator`, `missing`, `stations`). TERENO's
stations in the ISMN are read as any ISMN network.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.errors import SmgeoError, SmgeoWarning, nearest
from smgeo.sources.stations.archive import UNREADABLE, Archive, decode, list_members
from smgeo.sources.stations.sensors import Readings, Sensor, assemble_stations, choose_sensors, days_of

VARIABLES = ("sm", "soil_temperature")
MISSING = ("noData", "NaN", "-9999")

_QUANTITY = re.compile(
    r"(?P<quantity>SoilWaterContent|SoilTemperature)_(?P<depth>\d+(?:\.\d+)?)m(?P<sensor>(?!.*(?:QC|Flag)$).*)",
    re.IGNORECASE,
)
_QUANTITIES = {"soilwatercontent": "sm", "soiltemperature": "soil_temperature"}
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
class _Part:
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


@dataclass(frozen=True)
class _Text:
    """How the text of all files is to be understood."""

    time_column: str | None
    time_format: str
    utc_offset_hours: float
    separator: str | None
    missing: tuple[str, ...]


def open_tereno(
    path: str | Path,
    depth_m: tuple[float, float] = (0.0, 0.10),
    period: tuple[Any, Any] | None = None,
    flags: Sequence[str] = ("ok",),
    *,
    target: str = "sm",
    variables: Sequence[str] = (),
    columns: Mapping[str, Mapping[str, Any]] | None = None,
    stations: str | Path | None = None,
    network: str = "TERENO",
    min_valid_share: float = 0.5,
    depth_rule: str = "nearest",
    nearest_to_m: float | None = None,
    time_column: str | None = None,
    time_format: str = "ISO8601",
    utc_offset_hours: float = 0.0,
    separator: str | None = None,
    missing: Sequence[str] = MISSING,
) -> xr.Dataset:
    """Stations of exports of the TERENO data portal, as a lazy daily station cube.

    The module's text says what of the layout is documented and what is assumed.

    Parameters
    ----------
    path : str or Path
        A file, a folder or a zip of exports (.csv, .txt), each of one station; several of one station are put together.
    depth_m, period, min_valid_share, depth_rule, nearest_to_m
        As in `smgeo.sources.stations.ismn.open_ismn`.
    flags : sequence of str
        Quality flags that count as valid: a flag as a whole, or its generic part (`ok` of `ok: ok`), whatever the case.
        `G`, which `open_stations` gives by default, stands for `ok`. A row without a flag doesn't count where its column has one.
    target, variables : str, sequence of str
        `sm` or `soil_temperature`; what else to read of these.
    columns : mapping, optional
        Column (with or without its unit) -> `variable`, `depth_m` (a number, or upper and lower end), and where needed `units`
        (of the column), `flag` (a column, or several that must all be wanted), `sensor`. By default, columns are known by
        their names, such as `SoilWaterContent_0.05mSensor1 in [%]`.
    stations : str or Path, optional
        CSV of station, latitude, longitude and, if known, station_elevation; needed where files do not say where they are.
        Stations are named as in the files' metadata, or as the files.
    network : str
        Ids are `NETWORK/STATION`.
    time_column, separator : str, optional
        Found in the line of column names by default: timestamp, time, date, datetime or datetime_utc; `;`, `,` or a tab.
    time_format : str
        As for `pandas.to_datetime`.
    utc_offset_hours : float
        Of times that don't say theirs: 1 for Central European Time. Times are turned into UTC before days are made.
    missing : sequence of str
        What stands for a missing value.

    Returns
    -------
    xarray.Dataset
        As `open_ismn` returns, with the same diagnostics; `sm` in m3 m-3. Opening reads the two ends of each file.

    Raises
    ------
    SmgeoError
        If nothing is there, no file is readable, a variable or unit is unknown, or no station has the target in the range of depths.
    """
    names = list(dict.fromkeys([target, *variables]))
    for name in names:
        if name not in VARIABLES:
            raise SmgeoError(f"an export of TERENO does not give {name!r}; {nearest(name, VARIABLES)}")
    path = Path(path)
    folder, members = (path.parent, [path.name]) if _is_text(path) else (path, list_members(path, "TERENO export"))
    places = _read_places(Path(stations)) if stations is not None else {}
    text = _Text(time_column, time_format, utc_offset_hours, separator, tuple(missing))
    sensors, unreadable = _find_sensors(folder, members, columns, places, network, text)
    sensors = [s for s in sensors if s.variable in names]
    if unreadable:
        told = "; ".join(f"{m}: {why}" for m, why in sorted(unreadable.items())[:5])
        if not sensors:
            raise SmgeoError(f"{path}: no file can be read as an export of TERENO: {told}")
        warnings.warn(f"{path}: {len(unreadable)} file(s) can't be read and are left out: {told}", SmgeoWarning)
    try:
        chosen, left_out = choose_sensors(sensors, target, depth_m, depth_rule, nearest_to_m)
    except SmgeoError as error:
        raise SmgeoError(f"{path}: {error}") from None
    _warn_of_no_flags(path, [s for by_name in chosen.values() for several in by_name.values() for s in several])
    wanted = frozenset("ok" if f == "G" else f.lower() for f in flags)
    ds = assemble_stations(
        chosen,
        names,
        target,
        days_of(chosen, period),
        partial(_read_sensor, folder, wanted, text),
        min_valid_share=min_valid_share,
        source="TERENO",
        rule=depth_rule,
    )
    return ds.assign_attrs(left_out=json.dumps({**left_out, **unreadable}))


def _is_text(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (".csv", ".txt")


def _warn_of_no_flags(path: Path, sensors: list[Sensor]) -> None:
    bare = sorted({f"{s.id} {s.name}" for s in sensors if not all(part.flags for part in s.form)})
    if bare:
        warnings.warn(
            f"{path}: {len(bare)} sensor(s) have no column of quality flags, so that all their values count: "
            f"{', '.join(bare[:10])}; name it in columns if there is one",
            SmgeoWarning,
        )


def _find_sensors(
    folder: Path,
    members: list[str],
    columns: Mapping[str, Mapping[str, Any]] | None,
    places: Mapping[str, tuple[float, float, float]],
    network: str,
    text: _Text,
) -> tuple[list[Sensor], dict[str, str]]:
    """Sensors of all files, those of one station's several files put together; and the files that can't be read."""
    found: dict[tuple[Any, ...], Sensor] = {}
    unreadable: dict[str, str] = {}
    with Archive(folder) as archive:
        for member in members:
            if PurePosixPath(member).suffix.lower() not in (".csv", ".txt"):
                continue
            try:
                described = _describe(archive, member, columns, places, network, text)
            # Whatever is wrong with a file, it is named and reported.
            except UNREADABLE as error:
                unreadable[member] = str(error)
                continue
            for sensor in described:
                key = (sensor.id, sensor.variable, sensor.depth, sensor.name)
                found[key] = _join(found[key], sensor) if key in found else sensor
    return list(found.values()), unreadable


def _join(a: Sensor, b: Sensor) -> Sensor:
    """One sensor of two files."""
    if max(abs(a.latitude - b.latitude), abs(a.longitude - b.longitude)) > 1e-4:
        raise SmgeoError(
            f"{a.files[0]} and {b.files[0]} give different positions of {a.id}; say in `stations` which one is right"
        )
    return replace(
        a, first=min(a.first, b.first), last=max(a.last, b.last), files=(*a.files, *b.files), form=(*a.form, *b.form)
    )


def _describe(
    archive: Archive,
    member: str,
    columns: Mapping[str, Mapping[str, Any]] | None,
    places: Mapping[str, tuple[float, float, float]],
    network: str,
    text: _Text,
) -> list[Sensor]:
    """The sensors of one file."""
    lines, last = archive.ends(member, size=_HEADER_BYTES)
    meta, at, names, separator, time = _read_header(lines, text)
    if at + 1 >= len(lines):
        raise SmgeoError("column names and no values")
    ends = [line.split(separator)[time].strip('" ') for line in (lines[at + 1], last)]
    first, final = sorted(_parse_times(pd.Series(ends), member, text))
    station = meta.get("station", PurePosixPath(member).stem).replace("/", "-")
    place = places.get(station) or _place_of(meta, station)
    sensors = []
    for value, (variable, depth, sensor, unit, flags) in _value_columns(names, columns).items():
        scale, offset = _conversion(variable, unit, names[value])
        part = _Part(member, tuple(names), at + 1, separator, time, value, flags, scale, offset)
        sensors.append(
            Sensor(network, station, variable, depth, *place, first, final, name=sensor, files=(member,), form=(part,))
        )
    if not sensors:
        raise SmgeoError(
            f"no column of soil water content or temperature among {', '.join(names[:12])}; name them in columns"
        )
    return sensors


def _read_header(lines: list[str], text: _Text) -> tuple[dict[str, str], int, list[str], str, int]:
    """Metadata; line of the column names and the names; separator; place of the time column."""
    wanted = (text.time_column.lower(),) if text.time_column else _TIME_NAMES
    meta: dict[str, str] = {}
    for at, line in enumerate(lines):
        bare = line.lstrip("# ")
        separator = text.separator or max(";,\t", key=bare.count)
        names = [n.strip('" ') for n in bare.split(separator)]
        plain = [_split_unit(n)[0].lower() for n in names]
        time = next((plain.index(w) for w in wanted if w in plain), None)
        if time is not None and len(names) > 1:
            return meta, at, names, separator, time
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


def _value_columns(
    names: list[str], columns: Mapping[str, Mapping[str, Any]] | None
) -> dict[int, tuple[str, tuple[float, float], str, str | None, tuple[int, ...]]]:
    """Place of each column of values -> variable, depth, sensor, unit, places of its flags."""
    out = {}
    for i, name in enumerate(names):
        bare, unit = _split_unit(name)
        if columns is not None:
            spec = columns.get(name, columns.get(bare))
            if spec is None:
                continue
            out[i] = _named_column(spec, names, name, bare, unit)
        elif match := _QUANTITY.fullmatch(bare):
            depth = float(match["depth"])
            flags = tuple(j for j, other in enumerate(names) if _is_flag_of(other, bare))
            out[i] = (
                _QUANTITIES[match["quantity"].lower()],
                (depth, depth),
                match["sensor"].strip("_ ") or bare,
                unit,
                flags,
            )
    return out


def _named_column(
    spec: Mapping[str, Any], names: list[str], name: str, bare: str, unit: str | None
) -> tuple[str, tuple[float, float], str, str | None, tuple[int, ...]]:
    if unknown := sorted(set(spec) - {"variable", "depth_m", "units", "flag", "sensor"}):
        raise SmgeoError(f"columns.{name}: unknown {unknown[0]!r}; known: depth_m, flag, sensor, units, variable")
    if spec.get("variable") not in VARIABLES or "depth_m" not in spec:
        raise SmgeoError(f"columns.{name} needs variable (one of {', '.join(VARIABLES)}) and depth_m")
    depth = spec["depth_m"]
    top, bottom = depth if isinstance(depth, list | tuple) else (depth, depth)
    given = spec.get("flag") or ()
    given = [given] if isinstance(given, str) else list(given)
    if absent := [f for f in given if f not in names]:
        raise SmgeoError(f"columns.{name}: no column {absent[0]!r} of flags; {nearest(absent[0], names)}")
    return (
        spec["variable"],
        (float(top), float(bottom)),
        str(spec.get("sensor", bare)),
        spec.get("units", unit),
        tuple(names.index(f) for f in given),
    )


def _is_flag_of(name: str, value: str) -> bool:
    bare = _split_unit(name)[0].lower()
    return bare.startswith(value.lower()) and re.sub(r"[^a-z]", "", bare[len(value) :]) in _FLAG_ENDS


def _conversion(variable: str, unit: str | None, column: str) -> tuple[float, float]:
    known = _UNITS[variable]
    if unit is None:
        raise SmgeoError(f"column {column!r} does not say its unit; give it as units in columns: {', '.join(known)}")
    plain = unit.strip().lower().replace(" ", "")
    if plain not in known:
        raise SmgeoError(f"column {column!r}: unknown unit {unit!r} of {variable}; known: {', '.join(known)}")
    return known[plain]


def _place_of(meta: Mapping[str, str], station: str) -> tuple[float, float, float]:
    try:
        return float(meta["latitude"]), float(meta["longitude"]), float(meta.get("elevation", "nan").removesuffix("m"))
    except (KeyError, ValueError):
        raise SmgeoError(
            f"does not say where {station} is (lines `# latitude: ...`, `# longitude: ...`); give `stations`, a table of "
            "station, latitude, longitude"
        ) from None


def _read_places(path: Path) -> dict[str, tuple[float, float, float]]:
    if not path.is_file():
        raise SmgeoError(f"table of stations {path} not found (relative paths start at --data)")
    table = pd.read_csv(path, dtype={"station": str})
    if not {"station", "latitude", "longitude"} <= set(table):
        raise SmgeoError(f"{path} needs columns station, latitude, longitude; it has {', '.join(map(str, table))}")
    elevation = table["station_elevation"] if "station_elevation" in table else pd.Series(np.nan, index=table.index)
    rows = zip(table["station"], table["latitude"], table["longitude"], elevation, strict=True)
    return {name: (float(lat), float(lon), float(high)) for name, lat, lon, high in rows}


def _parse_times(column: pd.Series, member: str, text: _Text, skipped: int = 0) -> pd.DatetimeIndex:
    """Times in UTC without zone; those that say no offset are `utc_offset_hours` ahead of UTC."""
    words = column.fillna("").astype(str)
    parsed = pd.to_datetime(words, format=text.time_format, errors="coerce", utc=True)
    bad = np.flatnonzero(parsed.isna().to_numpy())
    if bad.size:
        raise SmgeoError(
            f"{member}, line {bad[0] + skipped + 1}: {words.iloc[bad[0]]!r} is no time such as 2013-01-31T23:00:00+01:00; "
            "for other forms give time_format"
        )
    zoned = words.str.contains(r"(?:Z|[+-]\d{2}:?\d{2})$", regex=True).to_numpy()
    shift = np.where(zoned, 0.0, text.utc_offset_hours)
    return pd.DatetimeIndex(parsed.dt.tz_localize(None) - pd.to_timedelta(shift, unit="h"))


def _read_sensor(folder: Path, wanted: frozenset[str], text: _Text, sensor: Sensor) -> Readings:
    """Rows of one sensor from all its files: times, values in the catalogue's unit, whether their flags are wanted."""
    with Archive(folder) as archive:
        parts = [_read_part(archive.read(part.member), part, wanted, text) for part in sensor.form]
    stamps = pd.DatetimeIndex(np.concatenate([p[0].to_numpy() for p in parts]))
    return stamps, np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts])


def _read_part(data: bytes, part: _Part, wanted: frozenset[str], text: _Text) -> Readings:
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
    stamps = _parse_times(raw[part.time], part.member, text, part.skipped)
    words = raw[part.value].fillna("").str.strip()
    words = words.mask(words.isin([*text.missing, ""]))
    values = pd.to_numeric(words, errors="coerce")
    bad = np.flatnonzero((values.isna() & words.notna()).to_numpy())
    if bad.size:
        raise SmgeoError(
            f"{part.member}, line {bad[0] + part.skipped + 1}: {words.iloc[bad[0]]!r} in {part.names[part.value]!r} is neither a "
            "number nor among `missing`"
        )
    good = np.ones(len(raw), dtype=bool)
    for flag in part.flags:
        given = raw[flag].fillna("").str.strip().str.lower()
        good &= (
            given.isin(wanted) | given.str.split(r"[:_]", n=1, regex=True).str[0].str.strip().isin(wanted)
        ).to_numpy()
    return stamps, values.to_numpy("float64") * part.scale + part.offset, good
