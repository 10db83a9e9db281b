"""One table model for all outputs: a page, CSV and LaTeX files, a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import pandas as pd

from smgeo.errors import printable

Output = Literal["page", "files", "terminal"]
Format = Callable[[object], str]
Record = Mapping[str, object]

EVERYWHERE: frozenset[Output] = frozenset({"page", "files", "terminal"})
PAGE: frozenset[Output] = frozenset({"page"})
FILES: frozenset[Output] = frozenset({"files"})
NOT_TERMINAL, NOT_FILES = EVERYWHERE - {"terminal"}, EVERYWHERE - {"files"}
DASH = "–"


def as_text(value: object) -> str:
    """Return any value as text; a dash for None and for empty text."""
    return DASH if _is_missing(value) or value == "" else str(value)


def as_count(value: object) -> str:
    """Return a number without decimals, with a comma between thousands."""
    return f"{value:,.0f}" if isinstance(value, int | float) and not _is_missing(value) else DASH


@cache
def as_number(digits: int = 3) -> Format:
    """Return a format with so many decimals."""
    return lambda value: f"{value:,.{digits}f}" if isinstance(value, int | float) and not _is_missing(value) else DASH


@cache
def as_percent(digits: int = 1) -> Format:
    """Return a format that writes a share as a percentage."""
    number = as_number(digits)
    return lambda value: f"{number(100 * value)} %" if isinstance(value, int | float) and value == value else DASH


def as_value(value: object) -> str:
    """Return a number of any size with four significant digits; with a comma between thousands.

    >>> as_value(0.05), as_value(-12.3456), as_value(8848.86), as_value(9.96921e36)
    ('0.05', '-12.35', '8,849', '9.969e+36')
    """
    if not isinstance(value, int | float) or _is_missing(value):
        return DASH
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"


def as_reasons(value: object) -> str:
    """Return numbers by reason as `outside the valid range 12, infinite 3`."""
    return ", ".join(f"{reason} {n:,}" for reason, n in value.items()) if isinstance(value, Mapping) and value else DASH


def as_interval(value: object) -> str:
    """Return the pair (low, high) as `0.061 to 0.088`; a dash if one end is missing."""
    if not isinstance(value, tuple) or any(map(_is_missing, value)):
        return DASH
    low, high = map(as_number(), value)
    return f"{low} to {high}"


def as_percent_interval(value: object) -> str:
    """Return the pair of shares (low, high) as `86.1 % to 94.0 %`; a dash if one end is missing."""
    if not isinstance(value, tuple) or any(map(_is_missing, value)):
        return DASH
    return " to ".join(map(as_percent(1), value))


def as_pair(value: object) -> str:
    """Return a pair of counts as `4 : 8`."""
    return " : ".join(map(as_count, value)) if isinstance(value, tuple) else DASH


def as_params(value: object) -> str:
    """Return parameters as `units 64, dropout 0.1`."""
    if not isinstance(value, Mapping):
        return as_text(value)
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    names : tuple of str
        Headings in CSV files, and keys of records. With two names (the ends of an interval) a cell is a pair, which is two columns in CSV
        files and one elsewhere.
    heading : str
        Heading for readers.
    format : callable
        Value of a cell -> text.
    align : {"left", "right"}
    unit : str
        Unit of the numbers; empty without one.
    outputs : frozenset of str
        Outputs that show the column.
    optional : bool
        The column is left out if no row has a value.
    """

    names: tuple[str, ...]
    heading: str
    format: Format = as_text
    align: Literal["left", "right"] = "right"
    unit: str = ""
    outputs: frozenset[Output] = EVERYWHERE
    optional: bool = False

    def pick(self, record: Record) -> object:
        """Return the cell of a record."""
        cell = tuple(record.get(name) for name in self.names)
        return cell if len(cell) > 1 else cell[0]


def text_column(
    name: str, heading: str = "", outputs: frozenset[Output] = EVERYWHERE, format: Format = as_text
) -> Column:
    """Return a column of text."""
    return Column((name,), heading or name, format, "left", outputs=outputs)


def count_column(
    name: str, heading: str = "", outputs: frozenset[Output] = EVERYWHERE, optional: bool = False
) -> Column:
    """Return a column of whole numbers."""
    return Column((name,), heading or name, as_count, outputs=outputs, optional=optional)


def number_column(
    name: str,
    heading: str = "",
    unit: str = "",
    outputs: frozenset[Output] = EVERYWHERE,
    *,
    digits: int = 3,
    optional: bool = False,
) -> Column:
    """Return a column of numbers with so many decimals."""
    return Column((name,), heading or name, as_number(digits), unit=unit, outputs=outputs, optional=optional)


def percent_column(
    name: str, heading: str, outputs: frozenset[Output] = EVERYWHERE, *, digits: int = 1, optional: bool = False
) -> Column:
    """Return a column of shares, shown as percentages."""
    return Column((name,), heading, as_percent(digits), outputs=outputs, optional=optional)


def interval_column(
    heading: str,
    unit: str,
    ends: tuple[str, str] = ("low", "high"),
    outputs: frozenset[Output] = EVERYWHERE,
    *,
    optional: bool = False,
) -> Column:
    """Return a column of intervals; `ends` are the names of both ends."""
    return Column(ends, heading, as_interval, unit=unit, outputs=outputs, optional=optional)


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes
    ----------
    cells : tuple
        One value a column; a tuple in a column with two names.
    marked : bool
        Emphasised, such as the scores of the test part.
    detail : bool
        Too much for a terminal.
    """

    cells: tuple[object, ...]
    marked: bool = False
    detail: bool = False


@dataclass(frozen=True)
class Table:
    """A table with all that its outputs need.

    Attributes
    ----------
    name : str
        Name of its files.
    title : str
    columns : tuple of Column
    rows : tuple of Row
    finding : str
        One sentence about this table's numbers, shown with the table in pages and on terminals.
    notes : tuple of str
        Explanations for pages; text between backticks is a file or a name.
    outputs : frozenset of str
        Outputs that show the table.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    finding: str = ""
    notes: tuple[str, ...] = ()
    outputs: frozenset[Output] = EVERYWHERE

    @classmethod
    def of(
        cls,
        name: str,
        title: str,
        columns: Iterable[Column],
        records: Iterable[Record],
        *,
        marked: Callable[[Record], bool] = lambda record: False,
        detail: Callable[[Record], bool] = lambda record: False,
        finding: str = "",
        notes: Iterable[str] = (),
        outputs: frozenset[Output] = EVERYWHERE,
    ) -> Table:
        """Build a table from records: name -> value. Optional columns without any value are left out.

        `marked` and `detail` return these attributes of the row of a record.
        """
        records = list(records)
        kept = tuple(c for c in columns if not c.optional or any(_has_value(c.pick(r)) for r in records))
        rows = tuple(Row(tuple(c.pick(r) for c in kept), marked(r), detail(r)) for r in records)
        return cls(name, title, kept, rows, finding, tuple(filter(None, notes)), outputs)

    def on(self, output: Output) -> Table:
        """Return the columns and rows that one output shows."""
        at = [i for i, column in enumerate(self.columns) if output in column.outputs]
        rows = (r for r in self.rows if not (r.detail and output == "terminal"))
        return replace(
            self,
            columns=tuple(self.columns[i] for i in at),
            rows=tuple(replace(r, cells=tuple(r.cells[i] for i in at)) for r in rows),
        )

    @property
    def text(self) -> list[list[str]]:
        """Cells as readers see them."""
        return [[c.format(cell) for c, cell in zip(self.columns, row.cells, strict=True)] for row in self.rows]

    @property
    def units(self) -> str:
        """Units of the columns, each once."""
        return ", ".join(dict.fromkeys(c.unit for c in self.columns if c.unit))

    @property
    def frame(self) -> pd.DataFrame:
        """The values of the CSV file, with all digits."""
        shown = self.on("files")
        records = []
        for row in shown.rows:
            record: dict[str, object] = {}
            for column, cell in zip(shown.columns, row.cells, strict=True):
                cells = cell if isinstance(cell, tuple) else (cell,) * len(column.names)
                record |= {
                    n: json.dumps(v) if isinstance(v, dict) else v for n, v in zip(column.names, cells, strict=True)
                }
            records.append(record)
        records = [{name: _no_formula(cell) for name, cell in record.items()} for record in records]
        return pd.DataFrame(records, columns=[n for c in shown.columns for n in c.names])

    def to_latex(self) -> str:
        """Return the table for the LaTeX package booktabs, text escaped."""
        shown = self.on("files")
        # A line that begins with a bracket would be an option of the line break before it; two new lines end a paragraph.
        lines = [[" ".join(printable(cell).split()) for cell in line] for line in shown.text]
        lines = [
            [f"\u200b{line[0]}" if line and line[0].startswith(("[", "*")) else line[0], *line[1:]]
            for line in lines
            if line
        ]
        cells = pd.DataFrame(lines, columns=[c.heading for c in shown.columns])
        return cells.to_latex(index=False, escape=True, column_format="".join(c.align[0] for c in shown.columns))


def _no_formula(cell: object) -> object:
    """Return text that a spreadsheet shows and does not compute: an apostrophe stands before what would begin a formula."""
    if not isinstance(cell, str):
        return cell
    text = printable(cell)  # a carriage return would be a new row
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\n")) else text


def _has_value(cell: object) -> bool:
    return any(not _is_missing(v) for v in (cell if isinstance(cell, tuple) else (cell,)))


def join_tables(tables: Mapping[str, Table], column: Column) -> Table:
    """Put tables of the same kind one below the other.

    Parameters
    ----------
    tables : mapping
        Value of the first column -> table. Columns may differ; a table without a column has no value in it.
    column : Column
        The first column.

    Returns
    -------
    Table
        With the title of the first table, the notes that all have, and no finding.
    """
    columns = list(dict.fromkeys(c for table in tables.values() for c in table.columns))
    rows = []
    for label, table in tables.items():
        for row in table.rows:
            cells = dict(zip(table.columns, row.cells, strict=True))
            rows.append(replace(row, cells=(label, *(cells.get(c) for c in columns))))
    first, *others = tables.values()
    notes = tuple(n for n in first.notes if all(n in table.notes for table in others))
    return replace(first, columns=(column, *columns), rows=tuple(rows), notes=notes, finding="")
