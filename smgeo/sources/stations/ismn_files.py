"""Files of an ISMN download in its three formats: the sensors of a file, and its rows.

- *header+values*: a first line `CSE network station latitude longitude elevation depth_from depth_to sensor`, then rows of
  UTC date, time, value, ISMN flag, provider's flag; one sensor and variable a file.
  https://ismn.bafg.de/data/header-value-files
- *CEOP, variables in separate files*: the same names; every row has nominal and actual UTC date and time, CSE, network,
  station, latitude, longitude, elevation, depth_from, depth_to, value, ISMN flag, provider's flag. (Readme.txt of such a
  download, as in the `ismn` package's tests: TUW-GEO/ismn, tests/test_data/Data_seperate_files_20170810_20180809.)
- *CEOP*: one file a station with all depths (`CSE_network_station_start_end.stm`); every row has nominal and actual UTC date
  and time, CSE, network, station, latitude, longitude, elevation, sensor height, soil temperature, its flag, soil moisture, its
  flag. Heights are negative below the surface; missing is -999.99.
  https://archive.eol.ucar.edu/projects/ceop/dm/documents/refdata_report/ceop_soils_format.html
  (ISMN writes the sign and the depth apart, `-   0.05`.)

A file's format is recognised by its content, not by its name. The actual time of a row counts, as in header+values. Lines may
end in LF, CRLF or CR; the download has all of them.
"""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from smgeo.errors import SmgeoError
from smgeo.sources.stations.archive import UNREADABLE, Archive, decode
from smgeo.sources.stations.sensors import Sensor
from smgeo.sources.stations.series import Readings

# ISMN's code of a variable, and the long name that its description of the formats uses.
CODES = {
    "sm": "sm",
    "ts": "soil_temperature",
    "p": "precipitation",
    "Soil-Moisture": "sm",
    "Soil-Temperature": "soil_temperature",
    "Precipitation": "precipitation",
}
HEADER_VALUES, CEOP_SEPARATE, CEOP = "header+values", "CEOP in separate files", "CEOP"

_NAME = re.compile(
    r"(?P<head>.+)_(?P<code>[A-Za-z][A-Za-z-]*)_(?P<top>-?\d+\.\d+)_(?P<bottom>-?\d+\.\d+)(?:_(?P<sensor>.+))?_\d{8}_\d{8}"
)
_DATE = re.compile(r"\d{4}/\d{2}/\d{2}")
_STAMP = "%Y/%m/%d %H:%M"
_STAMP_DIGITS = r"\d{4}/\d{2}/\d{2} \d{2}:\d{2}"
# Earlier and later ones are errors of loggers: no station is older.
_YEARS = (1900, 2100)
_NO_ELEVATION = (-99.0, -99.9)
_CEOP_COLUMNS = 16


def find_sensors(
    archive: Archive, members: list[str], variables: set[str], networks: set[str] | None
) -> tuple[list[Sensor[str]], dict[str, str]]:
    """Return the sensors of the wanted variables and networks; and the files that cannot be read, with the reason.

    In files with one sensor, only the first and last lines are read. CEOP files are read whole, because only their rows
    name the stations and depths.
    """
    sensors: list[Sensor[str]] = []
    unreadable: dict[str, str] = {}
    for member in members:
        path = PurePosixPath(member)
        if path.suffix.lower() != ".stm":
            continue
        # A slash in a sensor's name makes a folder of the name's first part.
        name = _NAME.fullmatch(path.stem) or _NAME.fullmatch(f"{path.parent.name}/{path.stem}")
        if name and CODES.get(name["code"]) not in variables:
            continue
        head = name["head"].split("_") if name else []
        if networks is not None and len(head) == 3 and head[1] not in networks:
            continue
        try:
            found = _describe(archive, member, name)
        # Whatever is wrong with a file, the file is named and reported.
        except UNREADABLE as error:
            kind = "" if isinstance(error, SmgeoError) else f"{type(error).__name__}: "
            unreadable[member] = f"not readable as ISMN ({kind}{error})"
            continue
        sensors += [s for s in found if s.variable in variables and (networks is None or s.network in networks)]
    return sensors, unreadable


def _describe(archive: Archive, member: str, name: re.Match[str] | None) -> list[Sensor[str]]:
    first, last = archive.ends(member)
    tokens = [line.split() for line in first[:2]]
    form = _form(tokens, last)
    if form == CEOP:
        return _describe_ceop(archive, member)
    if name is None:
        raise SmgeoError(f"the name is not CSE_network_station_variable_depth_depth_sensor_start_end.stm: {member}")
    place = tokens[0] if form == HEADER_VALUES else tokens[0][4:]
    began = tokens[1][:2] if form == HEADER_VALUES else tokens[0][2:4]
    ended = last.split()[:2] if form == HEADER_VALUES else last.split()[2:4]
    network, station = _split_names(name["head"], place)
    latitude, longitude, elevation, top, bottom = (float(t) for t in place[3:8])
    position = _position(latitude, longitude, elevation)
    first_row, last_row = _ends(archive, member, form, [began, ended])
    variable, sensor = CODES[name["code"]], name["sensor"] or ""
    return [
        Sensor(network, station, variable, (top, bottom), *position, first_row, last_row, sensor, (member,), form),
    ]


def _form(tokens: list[list[str]], last: str) -> str:
    """Return the format of a file, by its first two lines and its last."""
    first = tokens[0] if tokens else []
    dated = len(first) > 3 and _DATE.fullmatch(first[0]) and _DATE.fullmatch(first[2])
    if dated and len(first) >= 15 and (first[10] == "-" or not _is_number(first[12])):
        return CEOP
    if dated and len(first) >= 14:
        return CEOP_SEPARATE
    if not dated and len(first) >= 8 and all(_is_number(t) for t in first[3:8]):
        if len(tokens) < 2:
            raise SmgeoError("the file has a header but no values")
        return HEADER_VALUES
    raise SmgeoError("neither header+values nor CEOP" if first else "the file is empty")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _ends(archive: Archive, member: str, form: str, ends: list[list[str]]) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the first and last time of a file, from its first and last row if their times are possible."""
    stamps = _stamps(pd.Series([" ".join(tokens) for tokens in ends]), member, skipped=0)
    if stamps.isna().any():
        stamps = _separate(archive.read(member), member, form)[0]
    stamps = stamps.dropna()
    if stamps.empty:
        raise SmgeoError("no row has a possible time")
    return stamps.min(), stamps.max()


def _position(latitude: float, longitude: float, elevation: float) -> tuple[float, float, float]:
    """Return latitude, longitude and elevation; NaN for an impossible elevation, which stands for an unknown one."""
    if not (abs(latitude) <= 90 and abs(longitude) <= 360):
        raise SmgeoError(f"{latitude}, {longitude} is not a latitude and longitude")
    unknown = not -500 <= elevation <= 9000 or elevation in _NO_ELEVATION
    return latitude, longitude, math.nan if unknown else elevation


def _split_names(head: str, place: list[str]) -> tuple[str, str]:
    """Return network and station of `CSE_network_station`; names with underscores are split as in the file's rows."""
    parts = head.split("_")
    if len(parts) == 3:
        return parts[1], parts[2]
    prefix = f"{place[0]}_{place[1]}_"
    if head.startswith(prefix) and len(head) > len(prefix):
        return place[1], head.removeprefix(prefix)
    if len(parts) < 3:
        raise SmgeoError(f"the name {head!r} is not CSE_network_station")
    return parts[1], "_".join(parts[2:])


def _describe_ceop(archive: Archive, member: str) -> list[Sensor[str]]:
    """Return the sensors of a CEOP file: one per station, depth and variable that has a value."""
    table = _ceop_table(archive.read(member), member)
    typical = table.loc[table["sm"] > -99, "sm"].median()
    if typical > 1:
        raise SmgeoError(
            f"soil moisture is in percent (median {typical:g}), as in CEOP's own files; ISMN's are in m3 m-3. Divide it by 100"
        )
    sensors = []
    for (network, station, _), rows in table.groupby(["network", "station", "depth"]):
        if rows[["latitude", "longitude"]].nunique().max() > 1:
            raise SmgeoError(f"the position of {network}/{station} changes within the file")
        latitude, longitude, elevation = (float(rows[n].iloc[0]) for n in ("latitude", "longitude", "elevation"))
        position = _position(latitude, longitude, elevation)
        depth, first, last = float(rows["depth"].iloc[0]), rows["time"].min(), rows["time"].max()
        sensors += [
            Sensor(str(network), str(station), variable, (depth, depth), *position, first, last, "", (member,), CEOP)
            for variable in ("sm", "soil_temperature")
            if (rows[variable] > -99).any()
        ]
    return sensors


def _ceop_table(data: bytes, member: str) -> pd.DataFrame:
    """Return the rows of a CEOP file: time, network, station, latitude, longitude, elevation, depth (m, down), values, flags."""
    raw = _rows(data, _CEOP_COLUMNS)
    # The sign of a height is a word of its own in ISMN's files, and not in CEOP's own.
    apart = (raw[10] == "-").to_numpy()
    height, temperature, temperature_flag, moisture, moisture_flag = (
        raw[k].where(~apart, raw[k + 1]) for k in range(10, 15)
    )
    table = pd.DataFrame(dict(zip(("cse", "network", "station"), (raw[k] for k in range(4, 7)), strict=True)))
    for k, name in zip(range(7, 10), ("latitude", "longitude", "elevation"), strict=True):
        table[name] = _numbers(raw[k], member)
    heights = _numbers(height, member)
    table["depth"] = np.where(apart, heights, -heights)
    table["time"] = _stamps(raw[2] + " " + raw[3], member, skipped=0)
    table["sm"], table["sm_flag"] = _numbers(moisture, member), moisture_flag
    table["soil_temperature"], table["soil_temperature_flag"] = _numbers(temperature, member), temperature_flag
    return table


def _rows(data: bytes, columns: int, skipped: int = 0) -> pd.DataFrame:
    """Return the words of a file as text, one row a line; missing words at the end of a line are NaN."""
    text = decode(data).replace("\r\n", "\n").replace("\r", "\n")
    # Flags of providers may contain blanks and quotation marks; they are the last words of a line.
    most = max(len(line.split()) for line in text.split("\n"))
    table: pd.DataFrame = pd.read_csv(
        io.StringIO(text),
        sep=r"\s+",
        header=None,
        names=range(max(columns, most)),
        quoting=csv.QUOTE_NONE,
        skiprows=skipped,
        dtype=str,
        keep_default_na=False,
        na_values=[""],
    )
    return table.iloc[:, :columns]


def _numbers(column: pd.Series, member: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    bad = np.flatnonzero((numbers.isna() & (column.str.lower() != "nan")).to_numpy())
    if bad.size:
        raise SmgeoError(f"{member}, line {bad[0] + 1}: expected a number, found {column.iloc[bad[0]]!r}")
    return numbers


def _stamps(text: pd.Series, member: str, skipped: int) -> pd.DatetimeIndex:
    """Return times, NaT for those that are written as times and are impossible."""
    parsed = pd.to_datetime(text, format=_STAMP, errors="coerce").astype("datetime64[us]")
    parsed = parsed.where(parsed.dt.year.between(*_YEARS))
    bad = np.flatnonzero((parsed.isna() & ~text.str.fullmatch(_STAMP_DIGITS)).to_numpy())
    if bad.size:
        raise SmgeoError(
            f"{member}, line {bad[0] + skipped + 1}: {text.iloc[bad[0]]!r} is not a time such as 2007/01/31 23:00"
        )
    return pd.DatetimeIndex(parsed.astype("datetime64[ns]"))


def read_sensor(path: Path, flags: tuple[str, ...], sensor: Sensor[str]) -> Readings:
    """Return the rows of one sensor.

    Raises
    ------
    SmgeoError
        Naming the file and line that cannot be read. Broken archives raise an error of `archive.UNREADABLE`.
    """
    (member,) = sensor.files
    with Archive(path) as archive:
        data = archive.read(member)
    stamps, values, given = (
        _separate(data, member, sensor.form) if sensor.form != CEOP else _of_station(data, member, sensor)
    )
    combinations = {c: set(map(str.strip, c.split(","))) <= set(flags) for c in given.unique()}
    return stamps, values.to_numpy("float64"), given.map(combinations).to_numpy(bool)


def _separate(data: bytes, member: str, form: str) -> tuple[pd.DatetimeIndex, pd.Series, pd.Series]:
    if form == HEADER_VALUES:
        raw, at, date, skipped = _rows(data, 5, skipped=1), 2, 0, 1
    else:
        raw, at, date, skipped = _rows(data, 15), 12, 2, 0
    stamps = _stamps(raw[date].fillna("") + " " + raw[date + 1].fillna(""), member, skipped)
    return stamps, pd.to_numeric(raw[at], errors="coerce"), raw[at + 1].fillna("").astype(str)


def _of_station(data: bytes, member: str, sensor: Sensor[str]) -> tuple[pd.DatetimeIndex, pd.Series, pd.Series]:
    table = _ceop_table(data, member)
    mine = (table["network"] == sensor.network) & (table["station"] == sensor.station)
    rows = table[mine & (table["depth"] == sensor.depth[0])]
    flags = rows[f"{sensor.variable}_flag"].fillna("").astype(str)
    return pd.DatetimeIndex(rows["time"]), rows[sensor.variable], flags
