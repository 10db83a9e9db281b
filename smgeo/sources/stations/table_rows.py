"""Rows of one or several tables of stations: columns found and converted, stations named, placed, and times in UTC."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from smgeo.catalog import Feature
from smgeo.errors import SmgeoError, SmgeoWarning, nearest
from smgeo.recipe.tables import PLACE_COLUMNS, TEXT_COLUMNS, Column, TableSource
from smgeo.sources.stations.csv_files import (
    MISSING,
    FrameTable,
    PlainForm,
    RawTable,
    describe_lacking,
    find_column,
    open_tables,
    read_places,
    to_numbers,
)
from smgeo.sources.stations.layout import Period
from smgeo.sources.stations.times import parse_times, to_utc

# Rows of a station may differ in its position by as much as rounding does, 11 m at most.
_SAME_PLACE_DEGREES = 1e-4
_MOST_FAULTS = 8


@dataclass(frozen=True)
class Rows:
    """Rows of all tables.

    Attributes
    ----------
    table : DataFrame
        One row a row: `station` (`NETWORK/NAME`), `network`, `time` (UTC), `latitude`, `longitude`, perhaps `group`, `depth`
        and `station_elevation`, and variables. The index is the number of the row in all tables.
    depths : dict
        Variable -> its columns in the table -> their depth (m) and name, of variables with a column for each depth.
    sources : Sources
        Say where a row is.
    """

    table: pd.DataFrame
    depths: dict[str, dict[str, tuple[float, str]]]
    sources: Sources

    def columns_of(self, name: str) -> list[str]:
        """Return the columns of a variable."""
        return list(self.depths.get(name, (name,)))

    def variables(self) -> list[str]:
        """Return the names of variables."""
        own = {c for several in self.depths.values() for c in several}
        return [*(str(c) for c in self.table.columns if c not in PLACE_COLUMNS and c not in own), *self.depths]


class Sources:
    """The tables that rows are from."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._tables: list[RawTable] = []
        self._starts: list[int] = []

    def add(self, table: RawTable, start: int) -> None:
        """Add a table whose first row has the number `start`."""
        self._tables.append(table)
        self._starts.append(start)

    def place(self, row: int) -> str:
        """Return words for the place of a row: its line, and its file if there are several."""
        i = int(np.searchsorted(self._starts, row, side="right")) - 1
        table = self._tables[i]
        line = table.place(row - self._starts[i])
        return line if len(self._tables) == 1 else f"{PurePosixPath(table.where).name}, {line}"


def read_rows(
    spec: TableSource,
    frame: pd.DataFrame | None,
    *,
    root: Path,
    target: str,
    period: Period | None,
    catalog: Mapping[str, Feature],
) -> Rows:
    """Return the rows of a source's tables within the period.

    Parameters
    ----------
    frame : DataFrame, optional
        The table, in place of files.

    Raises
    ------
    SmgeoError
        Listing what is wrong with the tables.
    """
    file = root / spec.path
    _check_variables(spec, target, catalog, file)
    places = None
    if spec.stations is not None:
        form = PlainForm(decimal=spec.decimal, encoding=spec.encoding)
        places = read_places(root / spec.stations, form, spec.station_columns, projected=True)
    patterns = [_pattern(p) for p in spec.file_name]
    tables: Iterable[RawTable] = (
        [FrameTable(frame, "the DataFrame")] if frame is not None else open_tables(file, spec, patterns)
    )
    where = "the DataFrame" if frame is not None else str(file)
    sources = Sources(where)
    depths: dict[str, dict[str, tuple[float, str]]] = {}
    parts: list[pd.DataFrame] = []
    faults: list[str] = []
    start = 0
    for table in tables:
        try:
            part, found = _read_table(table, spec, target, places, patterns, catalog)
        except SmgeoError as error:
            faults.append(str(error))
            if len(faults) == _MOST_FAULTS:
                break
            continue
        sources.add(table, start)
        part.index += start
        start += len(part)
        part = part[~part.pop("empty")]
        parts.append(part)
        for name, several in found.items():
            depths.setdefault(name, {}).update(several)
    if faults:
        raise SmgeoError("; ".join(dict.fromkeys(faults)))
    rows = pd.concat(parts) if len(parts) > 1 else parts[0]
    if rows.empty:
        raise SmgeoError(f"{where} has names of columns but no rows")
    rows = _name_and_place(rows, spec, places, sources)
    rows = _with_times(rows, spec, sources)
    if period is not None:
        first, last = pd.Timestamp(period[0]), pd.Timestamp(period[1])
        rows = rows[(rows["time"] >= first) & (rows["time"] < last + pd.Timedelta(days=1))]
        if rows.empty:
            raise SmgeoError(f"{where}: no row between {period[0]} and {period[1]}")
    return Rows(rows, depths, sources)


def _check_variables(spec: TableSource, target: str, catalog: Mapping[str, Feature], file: Path) -> None:
    names = spec.gives(target)
    faults = []
    if unknown := [f"{n!r} ({nearest(n, list(catalog))})" for n in sorted(names) if n not in catalog]:
        faults.append(f"columns for unknown variables {', '.join(unknown)}; or describe them in variables")
    for key, named in (("valid", spec.valid), ("daily", spec.daily)):
        faults += [
            f"{key}: {n!r} is no variable of the table; {nearest(n, sorted(names))}" for n in named if n not in names
        ]
    faults += [
        f"{n} is given in {c.units!r}, but the cube needs {catalog[n].units!r}; convert it with scale and offset and leave units out"
        for n in spec.columns
        for c in spec.columns_of(n)
        if c.units and n in catalog and c.units != catalog[n].units
    ]
    if faults:
        raise SmgeoError(f"{file}: {'; '.join(faults)}")


def _pattern(text: str) -> re.Pattern[str]:
    """Return the pattern of a file's name, with groups `station` and `network`."""
    parts = {"*": ".*", "?": ".", "{station}": "(?P<station>.+?)", "{network}": "(?P<network>.+?)"}
    pieces = re.split(r"(\*|\?|\{station\}|\{network\})", text)
    return re.compile("".join(parts.get(p, re.escape(p)) for p in pieces))


# ---- one table


@dataclass(frozen=True)
class _Found:
    """A column of a spec in a table: variable or place, name in the result, and positions of the column and of its flags."""

    name: str
    result: str
    column: Column
    at: int | None
    flag: int | None = None


def _read_table(
    table: RawTable,
    spec: TableSource,
    target: str,
    places: pd.DataFrame | None,
    patterns: Sequence[re.Pattern[str]],
    catalog: Mapping[str, Feature],
) -> tuple[pd.DataFrame, dict[str, dict[str, tuple[float, str]]]]:
    """Return a table's rows, numbered from 0, with `empty` for rows without any value; and its columns for depths."""
    if spec.layout == "wide":
        assert places is not None  # refused by the spec
        return _read_wide(table, spec, target, list(places["station"]), catalog), {}
    found, faults = _find_columns(table, spec, target)
    if faults:
        if len(table.names) == 1:
            faults.append(f"the table has one column, {table.names[0][:60]!r}, so set separator")
        raise SmgeoError(f"{table.where}: {'; '.join(faults)}")
    out = _convert(table, spec, found, catalog)
    matched = next((m for p in patterns if (m := p.fullmatch(PurePosixPath(table.where.split(": ")[-1]).name))), None)
    for key, value in (matched.groupdict() if matched else {}).items():
        if key not in out:
            out[key] = value
    placed = {"latitude", "longitude"} <= set(out) or {"x", "y"} <= set(out)
    if "station" not in out and not placed:
        raise SmgeoError(
            f"{table.where}: no column names the station, and no pattern in file_name fits; set columns.station, such as {{value: A}} for "
            "a file of one station"
        )
    depths: dict[str, dict[str, tuple[float, str]]] = {}
    for f in found:
        if f.column.depth is not None:
            label = table.names[f.at] if f.at is not None else ""
            depths.setdefault(f.name, {})[f.result] = (f.column.depth, label)
    return out, depths


def _find_columns(table: RawTable, spec: TableSource, target: str) -> tuple[list[_Found], list[str]]:
    """Return the columns of a spec in a table, of several at one depth the first; and what is wrong."""
    found: list[_Found] = []
    faults: list[str] = []
    for name in spec.columns:
        several = spec.columns_of(name)
        mine: dict[float | None, _Found] = {}
        lacking: dict[float | None, str] = {}
        for number, column in enumerate(several):
            key = number if name == "time" else column.depth
            if key in mine:
                continue
            result = name if key is None else f"{name} {number}"
            try:
                at = None if column.column is None else find_column(column.column, table.names)
                flag = None if column.flag is None else find_column(column.flag, table.names)
            except SmgeoError as error:
                faults.append(str(error))
                continue
            if column.column is not None and at is None:
                lacking.setdefault(key, describe_lacking(column.column, name, table.names))
            elif column.flag is not None and flag is None and not column.optional:
                faults.append(describe_lacking(column.flag, f"flags of {name}", table.names))
            else:
                mine[key] = _Found(name, result, column, at, flag)
        found += mine.values()
        absent = [words for key, words in lacking.items() if key not in mine]
        # A preset knows more columns and depths than a file has.
        if all(c.optional for c in several):
            absent = absent[:1] if not mine and name in (target, "time") else []
        faults += absent
    if target not in spec.columns:
        faults.append(f"`columns` does not name the column of the target {target!r}")
    return found, faults


def _convert(
    table: RawTable, spec: TableSource, found: Sequence[_Found], catalog: Mapping[str, Feature]
) -> pd.DataFrame:
    """Return the found columns: text as it is, numbers in the cube's unit, missing as NaN."""
    text = {f.at for f in found if f.at is not None and f.name in TEXT_COLUMNS} | {
        f.flag for f in found if f.flag is not None
    }
    numbers = {f.at for f in found if f.at is not None and f.name not in TEXT_COLUMNS}
    words = [*MISSING, *(m for m in spec.missing if isinstance(m, str))]
    codes = [float(m) for m in spec.missing if _is_number(m)]
    raw = table.read(text, numbers, words)
    out: dict[str, object] = {"empty": _empty_rows(raw, text)}
    faults = []
    for f in found:
        if f.name in TEXT_COLUMNS:
            out[f.result] = raw[f.at] if f.at is not None else _constant(table, f.column)
            continue
        try:
            values = (
                to_numbers(raw[f.at], table, f.name, spec.decimal)
                if f.at is not None
                else np.full(len(raw), _number(table, f))
            )
        except SmgeoError as error:
            faults.append(str(error))
            continue
        lost = np.isin(values, [*codes, *(catalog[f.name].missing if f.name in catalog else ())])
        if f.flag is not None:
            lost |= ~_is_good(raw[f.flag], f.column.good)
        out[f.result] = np.where(lost, np.nan, values) * f.column.scale + f.column.offset
    rows = pd.DataFrame(out, index=raw.index)
    for name in ("station", "network"):
        unnamed = np.flatnonzero((rows[name] == "") & ~rows["empty"]) if name in rows else np.array([])
        if unnamed.size:
            faults.append(
                f"{table.where}, {table.place(int(unnamed[0]))}: a row has no {name} ({unnamed.size} in all); name it, or remove such rows"
            )
    if faults:
        raise SmgeoError("; ".join(faults))
    return rows


def _empty_rows(raw: pd.DataFrame, text: Collection[int]) -> np.ndarray:
    """Return where a row has no value at all, as below the last row of a spreadsheet."""
    first = raw[min(text)] if text else None
    if first is None or first.dtype.kind == "M" or not (first == "").any():
        return np.zeros(len(raw), dtype=bool)
    empty: np.ndarray = (raw.isna() | raw.isin([""])).all(axis=1).to_numpy(bool)
    return empty


def _constant(table: RawTable, column: Column) -> str:
    return str(column.value) if column.line is None else table.field(*column.line)


def _number(table: RawTable, found: _Found) -> float:
    word = _constant(table, found.column)
    if not _is_number(word):
        raise SmgeoError(f"{table.where}: {word!r} (for {found.name}) is not a number")
    return float(word)


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _is_good(flags: pd.Series, good: Sequence[str | int | float]) -> np.ndarray:
    """Return where a flag is one of those that count as valid: 0 is 0.0."""
    numbers = [float(g) for g in good if _is_number(g)]
    given = flags.isin([str(g) for g in good]) | pd.to_numeric(flags, errors="coerce").isin(numbers)
    return given.to_numpy(bool)


def _read_wide(
    table: RawTable, spec: TableSource, target: str, stations: Sequence[str], catalog: Mapping[str, Feature]
) -> pd.DataFrame:
    """Return the rows of a table with a column for each station."""
    clocks = [c.column for c in spec.columns_of("time") if c.column is not None]
    at = {name: find_column(name, table.names) for name in [*clocks, *stations]}
    faults = [
        describe_lacking(name, "time" if name in clocks else target, table.names) for name, i in at.items() if i is None
    ]
    named = {table.names[i] for i in at.values() if i is not None}
    if unknown := sorted(set(table.names) - named):
        faults.append(f"columns of stations without a position in {spec.stations}: {', '.join(unknown[:10])}")
    if faults:
        raise SmgeoError(f"{table.where}: {'; '.join(faults)}")
    rule = spec.columns_of(target)[0] if target in spec.columns else Column(column=target)
    times = [
        _Found("time", f"time {i}", c, at[c.column])
        for i, c in enumerate(spec.columns_of("time"))
        if c.column is not None
    ]
    values = [_Found(target, f"value {i}", rule, at[s]) for i, s in enumerate(stations)]
    rows = _convert(table, spec, [*times, *values], catalog)
    clock = rows[[t.result for t in times]]
    parts = [clock.assign(station=s, **{target: rows[v.result]}) for s, v in zip(stations, values, strict=True)]
    # A row is repeated for each station; its number says its line only within the first.
    return pd.concat(parts, ignore_index=True).assign(empty=np.tile(rows["empty"].to_numpy(bool), len(stations)))


# ---- all tables


def _name_and_place(
    table: pd.DataFrame, spec: TableSource, places: pd.DataFrame | None, sources: Sources
) -> pd.DataFrame:
    """Return rows with their station's id and position in degrees."""
    if places is not None:
        if "station" not in table:
            raise SmgeoError(f"{sources.where}: a table of stations needs columns.station to be joined by")
        table = _join_places(table, places, Path(str(spec.stations)))
    if "network" not in table:
        table["network"] = spec.network
    if "station" in table:
        table["station"] = table["network"] + "/" + table["station"]
    table = _with_degrees(table, spec.crs, sources)
    if "station" not in table:
        degrees = zip(table["latitude"], table["longitude"], strict=True)
        table["station"] = (
            table["network"] + "/" + pd.Series([f"{a:.5f}_{b:.5f}" for a, b in degrees], index=table.index)
        )
    for name in ("latitude", "longitude"):
        _check_same(table, name, sources)
    if "group" in table:
        groups = table.groupby("station")["group"].nunique()
        if (groups > 1).any():
            raise SmgeoError(
                f"{sources.where}: group varies within {', '.join(groups.index[groups > 1][:5])}; a station has one group"
            )
    return table


def _join_places(table: pd.DataFrame, places: pd.DataFrame, file: Path) -> pd.DataFrame:
    """Return the table with each station's position; every station must have one."""
    unknown = sorted(set(table["station"]) - set(places["station"]))
    if unknown:
        raise SmgeoError(
            f"{file} lacks stations of the data: {', '.join(unknown[:10])}; add them, or remove their rows from the data"
        )
    own = table.drop(columns=[c for c in places.columns if c != "station" and c in table])
    return own.join(places.set_index("station"), on="station")


def _with_degrees(table: pd.DataFrame, crs: str, sources: Sources) -> pd.DataFrame:
    """Return the table with latitude and longitude from -180 to 180 degrees, also of x and y."""
    if not {"latitude", "longitude"} <= set(table):
        if not {"x", "y"} <= set(table):
            raise SmgeoError(
                f"{sources.where}: stations have no position; name columns of latitude and longitude, or of x and y with crs, or set "
                "stations, a table of positions"
            )
        try:
            to_degrees = Transformer.from_crs(CRS.from_user_input(crs), "EPSG:4326", always_xy=True)
        except CRSError as error:
            raise SmgeoError(
                f"{sources.where}: crs {crs!r} is unknown to PROJ ({error}); use one such as EPSG:32632"
            ) from None
        table["longitude"], table["latitude"] = to_degrees.transform(table["x"].to_numpy(), table["y"].to_numpy())
    low, high = (table["latitude"].abs() > 90), (table["longitude"].abs() > 360)
    wrong = np.flatnonzero((low | high | np.isinf(table["latitude"]) | np.isinf(table["longitude"])).to_numpy())
    if wrong.size:
        row = table.iloc[wrong[0]]
        hint = "; are x and y in another crs?" if "x" in table else "; are columns exchanged, or is missing to be set?"
        raise SmgeoError(
            f"{sources.where}, {sources.place(int(table.index[wrong[0]]))}: {row['latitude']:g}, {row['longitude']:g} is not a latitude and "
            f"longitude in degrees{hint}"
        )
    if "station" in table:  # a position in one row of a station is enough
        for name in ("latitude", "longitude"):
            if table[name].isna().any():
                table[name] = table[name].fillna(table.groupby("station")[name].transform("first"))
    lost = np.flatnonzero(table[["latitude", "longitude"]].isna().any(axis=1).to_numpy())
    if lost.size:
        raise SmgeoError(
            f"{sources.where}, {sources.place(int(table.index[lost[0]]))}: a row has no position ({lost.size} in all); add it, or remove "
            "such rows"
        )
    table["longitude"] = table["longitude"].where(table["longitude"] <= 180, table["longitude"] - 360)
    return table


def _check_same(table: pd.DataFrame, name: str, sources: Sources) -> None:
    """Refuse stations whose rows are at two places."""
    ends = table.groupby("station")[name].agg(["min", "max"])
    moved = ends[(ends["max"] - ends["min"]) > _SAME_PLACE_DEGREES]
    if not moved.empty:
        station = moved.index[0]
        rows = table.loc[table["station"] == station, name]
        low, high = rows.idxmin(), rows.idxmax()
        first, second = sorted((int(low), int(high)))
        raise SmgeoError(
            f"{sources.where}: {station} has rows at two places, {name} {rows[first]:g} ({sources.place(first)}) and {rows[second]:g} "
            f"({sources.place(second)}); {len(moved)} station(s) in all. Correct the position, name a column that tells the stations apart as "
            "station or network, or leave station out: then every place is a station"
        )


def _with_times(table: pd.DataFrame, spec: TableSource, sources: Sources) -> pd.DataFrame:
    """Return the table with one column of times in UTC."""
    columns = [c for c in table.columns if re.fullmatch(r"time \d+", str(c))]

    def place(row: int) -> str:
        return sources.place(int(table.index[row]))

    times, of_day, zoned = parse_times([table[c] for c in columns], spec, place, sources.where)
    local = of_day & ~zoned
    own = "utc_offset_hours" in table
    hours = table["utc_offset_hours"] if own else pd.Series(spec.utc_offset_hours, index=table.index)
    if own and (wrong := ~hours.between(-14, 14)).any():
        raise SmgeoError(
            f"{sources.where}: utc_offset_hours of {table['station'][wrong].iloc[0]} is {hours[wrong].iloc[0]:g}; give hours from -14 to 14"
        )
    if spec.local_times and not own and "utc_offset_hours" not in spec.model_fields_set and local.any():
        warnings.warn(
            f"{sources.where}: times are local and say no offset from UTC, so days are taken as UTC's; set utc_offset_hours, or name a "
            "column of it in the table of stations",
            SmgeoWarning,
        )
    out = table.drop(columns=[*columns, "utc_offset_hours"], errors="ignore")
    return out.assign(time=to_utc(times, local, of_day, hours, spec.stamps))
