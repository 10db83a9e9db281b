"""Text tables: their columns' names, and rows as text and numbers, with the line of each row for messages.

The separator is found, comments and units are left out, and only a column that is wanted as numbers is ever taken for numbers.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd

from smgeo.errors import SmgeoError, missing_extra, nearest
from smgeo.recipe.station_source import files_of
from smgeo.recipe.tables import PLACE_COLUMNS, TEXT_COLUMNS, Column, TableSource, as_columns
from smgeo.sources.stations.archive import UNREADABLE, Archive, list_members, unpack

# Fields that stand for a missing number in any table: those that pandas knows, and the loggers' "NAN".
MISSING = (
    "", "NAN", "NaN", "nan", "-NaN", "-nan", "NA", "<NA>", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "None",
)  # fmt: skip
_SEPARATORS = (",", ";", "\t", "|")
_BLANKS = " "
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class PlainForm:
    """The form of a table with a header and nothing else to say."""

    decimal: str = "."
    encoding: str | None = None
    separator: str | None = None
    comment: str | None = None
    skip_rows: int = 0
    units_rows: int = 0
    header: bool = True
    names: tuple[str, ...] = ()


# Keys that say how a text table is written.
TextForm: TypeAlias = TableSource | PlainForm


class RawTable(Protocol):
    """A table whose columns are read by their positions."""

    where: str
    names: list[str]

    def read(self, text: Collection[int], numbers: Collection[int], missing: Sequence[str]) -> pd.DataFrame:
        """Return columns by their positions: as text (missing as ""), and as numbers where pandas can (missing as NaN)."""

    def place(self, row: int) -> str:
        """Return words for the place of a row of `read`."""

    def field(self, line: int, number: int) -> str:
        """Return a field of a line above the header, both counted from 1."""


class TextTable:
    """A text table in memory.

    Parameters
    ----------
    data : bytes
    form : TextForm
    where : str
        Names the table in messages.

    Raises
    ------
    SmgeoError
        If the text has another encoding, or no rows.
    """

    def __init__(self, data: bytes, form: TextForm, where: str) -> None:
        self.where = where
        self._decimal = form.decimal
        text = _decode(data, form.encoding, where)
        if "\n" not in text:
            text = text.replace("\r", "\n")
        self._above: list[str] = []
        lines = _Lines(text)
        # Excel's first line for other programs.
        told = re.match(r"sep=(.)\r?\n", text)
        if told and not form.skip_rows:
            lines.take()
        for _ in range(form.skip_rows):
            self._above.append(lines.take())
        self._skip(lines, form.comment)
        first = lines.peek()
        if first is None:
            raise SmgeoError(
                f"{where} is empty" + (" below the rows that skip_rows leaves out" if form.skip_rows else "")
            )
        if form.header:
            lines.take()
            for _ in range(form.units_rows):
                lines.take()
            self._skip(lines, form.comment)
        row = lines.peek()
        self.separator = (
            form.separator
            or (told[1] if told else None)
            or _find_separator([line for line in (first, row) if line is not None])
        )
        fields = [name.strip() for name in _split(first, self.separator)]
        self.names = list(form.names) or (fields if form.header else [str(i + 1) for i in range(len(fields))])
        self._check_first_row(row)
        self._body, self._lines = _without_comments(lines, form.comment)

    def _skip(self, lines: _Lines, comment: str | None) -> None:
        """Pass over empty lines and comments."""
        while (line := lines.peek()) is not None and (
            not line.strip() or (comment and line.lstrip().startswith(comment))
        ):
            self._above.append(lines.take())

    def _check_first_row(self, row: str | None) -> None:
        if row is None:
            return
        fields = _split(row, self.separator)
        more = len(fields) - len(self.names)
        if more > 0 and any(f.strip() for f in fields[len(self.names) :]):
            raise SmgeoError(
                f"{self.where}: {len(self.names)} columns have a name, but the first row has {len(fields)} fields; set separator"
                + (" and decimal if numbers have a decimal comma" if self.separator == "," else "")
                + (", skip_rows if the names are in a lower line, or names" if self.names else "")
            )
        # Lines that end in a separator have one more, empty field.
        self.names += [f"column {len(self.names) + i + 1}" for i in range(more)]

    def read(self, text: Collection[int], numbers: Collection[int], missing: Sequence[str]) -> pd.DataFrame:
        """Return columns by their positions: as text (missing as ""), and as numbers where pandas can (missing as NaN)."""
        try:
            table = self._parse(text, numbers, missing)
        except pd.errors.EmptyDataError:
            raise SmgeoError(f"{self.where} has names of columns but no rows") from None
        except UNREADABLE as error:
            at = re.search(r"in line (\d+)(, saw \d+)?", str(error))
            line = f", {self.place(int(at[1]) - 1)}" if at else ""
            raise SmgeoError(
                f"{self.where}{line} cannot be read as a table: {error}; see separator, decimal, comment, skip_rows"
            ) from None
        more = np.flatnonzero((table.iloc[:, -1].fillna("") != "").to_numpy())
        if more.size:
            raise SmgeoError(
                f"{self.where}, {self.place(int(more[0]))} has more fields than there are columns ({len(self.names)}); set decimal if its "
                "numbers have a decimal comma, or correct the line"
            )
        for i in text:
            table[i] = table[i].fillna("").str.strip()
        return table.iloc[:, :-1]

    def _parse(self, text: Collection[int], numbers: Collection[int], missing: Sequence[str]) -> pd.DataFrame:
        # The first line gets one field more than there are columns: pandas would cut longer lines, and refuse shorter ones.
        first, end, rest = self._body.partition("\n")
        width = len(self.names)
        blank = self.separator == _BLANKS
        pad = (' ""' if blank else self.separator) * (width + 1 - len(_split(first, self.separator)))
        dtypes: Mapping[Any, type] = dict.fromkeys([*text, width], str)
        words: Mapping[Any, list[str]] = {i: list(missing) for i in numbers if i not in text}
        table: pd.DataFrame = pd.read_csv(
            io.StringIO(first.rstrip("\r") + pad + end + rest),
            sep=r"\s+" if blank else self.separator,
            header=None,
            names=range(width + 1),
            usecols=sorted({*text, *numbers, width}),
            dtype=dtypes,
            na_values=words,
            keep_default_na=False,
            decimal=self._decimal,
            skipinitialspace=True,
            low_memory=False,
            index_col=False,
        )
        return table

    def place(self, row: int) -> str:
        """Return words for the place of a row of `read`."""
        return f"line {self._lines[row]}" if row < len(self._lines) else f"row {row + 1}"

    def field(self, line: int, number: int) -> str:
        """Return a field of a line above the header, both counted from 1."""
        fields = _split(self._above[line - 1], self.separator) if line <= len(self._above) else []
        if number > len(fields):
            raise SmgeoError(
                f"{self.where}: line {line} above the names of columns has no field {number}; see skip_rows"
            )
        return fields[number - 1].strip()


class FrameTable:
    """A DataFrame as a table."""

    def __init__(self, frame: pd.DataFrame, where: str) -> None:
        self.where = where
        self._frame = frame.reset_index() if any(name is not None for name in frame.index.names) else frame
        self.names = [str(c) for c in self._frame.columns]

    def read(self, text: Collection[int], numbers: Collection[int], missing: Sequence[str]) -> pd.DataFrame:
        """Return columns by their positions: as text (missing as ""), and as numbers where pandas can (missing as NaN)."""
        columns: dict[int, pd.Series] = {}
        for i in sorted({*text, *numbers}):
            column = self._frame.iloc[:, i].reset_index(drop=True)
            if i in numbers:
                columns[i] = column.mask(column.isin(missing)) if column.dtype.kind not in "iufb" else column
            elif column.dtype.kind == "M" or isinstance(column.dtype, pd.DatetimeTZDtype):
                columns[i] = column
            else:
                columns[i] = _as_text(column)
        return pd.DataFrame(columns)

    def place(self, row: int) -> str:
        """Return words for the place of a row of `read`."""
        return f"row {row + 1}"

    def field(self, line: int, number: int) -> str:
        """Refuse: a DataFrame has no lines above its header."""
        raise SmgeoError(f"{self.where} has no line {line} above a header; give the value itself")


def _as_text(column: pd.Series) -> pd.Series:
    """Return words; 44.0, which a gap in a column makes of 44, is "44"."""
    if column.dtype.kind == "f" and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype(object).where(column.notna(), "").astype(str).str.strip()


class _Lines:
    """Lines of a text, one by one, with their number."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.number = text, 0, 0

    def peek(self) -> str | None:
        """Return the next line, None at the end."""
        if self.at >= len(self.text):
            return None
        end = self.text.find("\n", self.at)
        return self.text[self.at : end if end >= 0 else None].rstrip("\r")

    def take(self) -> str:
        """Return the next line, "" at the end, and go on."""
        line = self.peek()
        end = self.text.find("\n", self.at)
        self.at = end + 1 if end >= 0 else len(self.text)
        self.number += 1
        return line or ""


def _without_comments(lines: _Lines, comment: str | None) -> tuple[str, Sequence[int]]:
    """Return the rest of the text without empty lines and comments, and the number of each line."""
    body = lines.text[lines.at :].rstrip()
    first = lines.number + 1
    mark = re.escape(comment) + ".*" if comment else ""
    left_out = re.compile(rf"^[ \t]*(?:{mark})?\r?$" if mark else r"^[ \t]*\r?$", re.MULTILINE)
    signs = ("\n\n", "\n\r", "\n ", "\n\t", *([f"\n{comment}"] if comment else []))
    # Searching for a few signs first is ten times faster than the pattern.
    if not any(sign in body for sign in signs) or not left_out.search(body):
        return body, range(first, first + body.count("\n") + 1)
    kept = [(i, line) for i, line in enumerate(body.split("\n"), first) if not left_out.fullmatch(line)]
    return "\n".join(line for _, line in kept), [i for i, _ in kept]


def _decode(data: bytes, encoding: str | None, where: str) -> str:
    if encoding is None:
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeError:
        raise SmgeoError(f"{where} is not text in {encoding}; set encoding, such as latin-1 or cp1252") from None
    except LookupError:
        raise SmgeoError(f"{where}: unknown encoding {encoding!r}; set one such as utf-8, latin-1 or cp1252") from None


def _split(line: str, separator: str) -> list[str]:
    if separator == _BLANKS:
        line = " ".join(line.split())
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _find_separator(lines: Sequence[str]) -> str:
    """Return the separator that divides the first lines into the same number of fields, more than one; else the likeliest."""
    counts = {s: [len(_split(line, s)) for line in lines] for s in (*_SEPARATORS, _BLANKS)}
    for among in (_SEPARATORS, (_BLANKS,)):
        alike = [s for s in among if len(set(counts[s])) == 1 and counts[s][0] > 1]
        if alike:
            return max(alike, key=lambda s: counts[s][0])
    likely = max(_SEPARATORS, key=lambda s: counts[s][0])
    return likely if counts[likely][0] > 1 else _BLANKS if counts[_BLANKS][0] > 1 else ","


def open_tables(path: Path, form: TextForm, patterns: Sequence[re.Pattern[str]] = ()) -> Iterator[RawTable]:
    """Yield the tables of a file, a pattern of files, a folder or a zip.

    Parameters
    ----------
    patterns : sequence of re.Pattern
        Of several files, those are read whose names fit the first of these that any name fits.

    Raises
    ------
    SmgeoError
        If there is no file, or one cannot be read.
    """
    found = [(f, m) for f in _files(path) for m in _members(f)]
    if not found:
        raise SmgeoError(f"{path} contains no table")
    if patterns and len(found) > 1:
        fitting = ([(f, m) for f, m in found if p.fullmatch(PurePosixPath(m or f.name).name)] for p in patterns)
        kept = next(filter(None, fitting), [])
        if not kept:
            raise SmgeoError(
                f"{path}: no name of {len(found)} files, such as {found[0][1] or found[0][0].name}, fits file_name; set file_name, such as "
                "'*_{station}_*.csv'"
            )
        found = kept
    for file, member in found:
        where = f"{file}: {member}" if member else str(file)
        if PurePosixPath(member or file.name).suffix.lower() in _PARQUET:
            yield _read_parquet(file, member, where)
        else:
            try:
                table = TextTable(_read_bytes(file, member, where), form, where)
            except csv.Error as error:
                raise SmgeoError(
                    f"{where} cannot be read as a table: {error}; see separator, encoding, skip_rows"
                ) from None
            yield table


def _files(path: Path) -> list[Path]:
    files = [f for f in files_of(path) if f.is_file() and not f.name.startswith(".")]
    if not files:
        raise SmgeoError(f"table {path} not found (relative paths start at --data)")
    return files


def _members(file: Path) -> list[str]:
    """Return the names of a zip's tables, or "" for a file that is no zip."""
    if file.suffix.lower() != ".zip" or not zipfile.is_zipfile(file):
        return [""]
    members = list_members(file, "zip of tables")
    return [m for m in members if not PurePosixPath(m).name.startswith(".") and "__MACOSX" not in m]


def _read_bytes(file: Path, member: str, where: str) -> bytes:
    try:
        if not member:
            return unpack(file.read_bytes(), file.name)
        with Archive(file) as archive:
            return unpack(archive.read(member), member)
    except UNREADABLE as error:
        raise SmgeoError(f"{where} cannot be read as a table: {error}") from None


def _read_parquet(file: Path, member: str, where: str) -> FrameTable:
    try:
        frame: pd.DataFrame = pd.read_parquet(io.BytesIO(_read_bytes(file, member, where)))
    except ImportError:
        raise missing_extra("reading Parquet", "stations") from None
    except UNREADABLE as error:
        raise SmgeoError(f"{where} cannot be read as Parquet: {error}") from None
    return FrameTable(frame, where)


def find_column(column: str | int, names: Sequence[str]) -> int | None:
    """Return the position of a column, None if there is none.

    Raises
    ------
    SmgeoError
        If several columns have the name.

    Examples
    --------
    >>> find_column("SM -2in*", ["Date", "SM -2in (pct)"]), find_column(1, ["Date", "SM"]), find_column("P", ["Date"])
    (1, 0, None)
    """
    if isinstance(column, int):
        return column - 1 if 1 <= column <= len(names) else None
    pattern = re.compile(".*".join(map(re.escape, column.split("*"))))
    found = [i for i, name in enumerate(names) if name == column] or [
        i for i, name in enumerate(names) if pattern.fullmatch(name)
    ]
    if len(found) > 1:
        numbers = ", ".join(str(i + 1) for i in found)
        raise SmgeoError(f"{column!r} is the name of columns {numbers}; give the number of one")
    return found[0] if found else None


def to_numbers(values: pd.Series, table: RawTable, name: str, decimal: str) -> np.ndarray:
    """Return a column as float64, before its scale.

    Raises
    ------
    SmgeoError
        Naming the first field that is not a number, and the key that would help.
    """
    if values.dtype.kind in "iuf" and not isinstance(values.dtype, pd.CategoricalDtype):
        return values.to_numpy("float64", na_value=np.nan)
    words = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    text = words
    if decimal != "." and (commas := words.str.contains(decimal, regex=False)).any():
        # 1.234 among numbers such as 0,5 may be thousands, so it is no number here.
        text = words.where(commas | ~words.str.contains(".", regex=False), "?").str.replace(decimal, ".", regex=False)
    numbers = pd.to_numeric(text, errors="coerce").astype("float64")
    bad = np.flatnonzero((numbers.isna() & ~words.isin(MISSING)).to_numpy())
    if bad.size:
        word, at = words.iloc[bad[0]], int(str(values.name))
        hint = "list it in missing if it stands for a missing value"
        if re.fullmatch(r"[-+]?\d*,\d+", word):
            hint = 'set decimal: ","'
        elif bad[0] == 0 and bad.size == 1:
            hint += ", or set units_rows: 1 if it is a unit"
        raise SmgeoError(
            f"{table.where}, {table.place(int(bad[0]))}: column {table.names[at]!r} (for {name}) contains {word!r}, which is not a "
            f"number; {hint}"
        )
    return numbers.to_numpy()


def read_places(
    file: Path, form: TextForm, columns: Mapping[str, Column | tuple[Column, ...]] | None = None, *, projected: bool
) -> pd.DataFrame:
    """Return a table of stations' positions: station (text), latitude, longitude (or x, y) and other columns of places.

    Parameters
    ----------
    form : TextForm
        Of a table with a header.
    columns : mapping, optional
        Columns that have other names than those of places.
    projected : bool
        Accept x, y in place of latitude, longitude.

    Raises
    ------
    SmgeoError
        If the file or a column is missing, or a station has two rows.
    """
    if not file.is_file():
        raise SmgeoError(f"table of stations {file} not found (relative paths start at --data)")
    (table,) = open_tables(file, form)
    at: dict[str, int] = {}
    own: dict[str, Column] = {}
    lacking = []
    for name in PLACE_COLUMNS:
        several = as_columns((columns or {}).get(name, Column(column=name, optional=True)))
        found = [
            (c, i) for c in several if c.column is not None and (i := find_column(c.column, table.names)) is not None
        ]
        if found and name not in ("time", "depth"):
            own[name], at[name] = found[0]
        elif name in (columns or {}) and not all(c.optional for c in several):
            lacking.append(f"{several[0].column!r} (for {name})")
    placed = {"latitude", "longitude"} <= set(at) or (projected and {"x", "y"} <= set(at))
    if "station" not in at or not placed or lacking:
        needed = "station, latitude, longitude" + (" (or station, x, y)" if projected else "")
        absent = f"; no column {', '.join(lacking)}" if lacking else ""
        raise SmgeoError(
            f"{file} needs columns {needed}; it has {', '.join(table.names)}{absent}. Name them in station_columns"
            if projected
            else f"{file} needs columns {needed}; it has {', '.join(table.names)}{absent}"
        )
    text = {i for n, i in at.items() if n in TEXT_COLUMNS}
    raw = table.read(text, set(at.values()) - text, MISSING)
    places = pd.DataFrame({n: raw[i] for n, i in at.items()})
    for name, i in at.items():
        if i not in text:
            numbers = to_numbers(raw[i], table, name, form.decimal)
            places[name] = numbers * own[name].scale + own[name].offset
    if (unnamed := np.flatnonzero((places["station"] == "").to_numpy())).size:
        raise SmgeoError(f"{file}, {table.place(int(unnamed[0]))}: a row has no station; name it, or remove the row")
    twice = places.loc[places["station"].duplicated(), "station"]
    if not twice.empty:
        raise SmgeoError(f"{file} has several rows of stations: {', '.join(twice[:10])}; keep one of each")
    return places


def describe_lacking(column: str | int, name: str, names: Sequence[str]) -> str:
    """Return words for a column that a table lacks."""
    if isinstance(column, int):
        return f"no column {column} (for {name}); there are {len(names)}"
    return f"no column {column!r} (for {name}); {nearest(column, names)}"
