"""Spec of tables of stations: how a table is written, what its columns are, and presets of these keys for known networks.

A preset is a YAML file of keys in `presets/`; its columns may be absent from a file. To add a network, add a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, field_validator, model_validator

from smgeo.errors import nearest
from smgeo.recipe.spec import AnyNumber, Spec
from smgeo.recipe.station_source import FilePath, StationSource

# Columns of a table that are text, and all that describe its rows or stations and are no variables.
TEXT_COLUMNS = ("station", "time", "network", "group")
PLACE_COLUMNS = (
    *TEXT_COLUMNS,
    "x",
    "y",
    "latitude",
    "longitude",
    "depth",
    "station_elevation",
    "utc_offset_hours",
)
_PRESETS = Path(__file__).parent / "presets"
_SEPARATORS = {"tab": "\t", "\\t": "\t", "blank": " ", "blanks": " ", "whitespace": " ", "\\s+": " "}


class Column(Spec):
    """One column of a table: value = column * scale + offset, in `units`.

    Attributes
    ----------
    column : str or int
        Name in the header, with `*` for any text, or number from 1.
    scale, offset : float
    units : str, optional
        Unit after scale and offset, to be checked.
    depth : float, optional
        Depth of the column's sensor, m below the surface.
    value : str or float, optional
        The same value for all rows, in place of a column.
    line : (int, int), optional
        Line above the header and its field, both from 1, that contain the value for all rows.
    flag : str or int, optional
        Column of quality flags.
    good : tuple
        Flags that count as valid.
    optional : bool
        The table may lack the column.
    """

    column: str | int | None = None
    scale: float = 1.0
    offset: float = 0.0
    units: str | None = None
    depth: float | None = Field(None, ge=0, le=100)
    value: str | int | float | None = None
    line: tuple[int, int] | None = None
    flag: str | int | None = None
    good: tuple[str | int | float, ...] = ()
    optional: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Column:
        if sum(v is not None for v in (self.column, self.value, self.line)) != 1:
            raise ValueError("needs one of column, value and line")
        if self.flag is not None and not self.good:
            raise ValueError("flag needs good: the flags that count as valid")
        return self


class TableSource(StationSource):
    """Tables of stations: text, plain or compressed, or Parquet.

    Attributes
    ----------
    path : str
        A file, a pattern (`*`, `?`), a folder, or a zip of files. All files are one table.
    preset : str, optional
        Name of a set of keys for a known network; keys given here have precedence.
    layout : {"long", "wide"}
        A row per station and day; or a time column and one column a station, with `stations` a second table of
        station, latitude, longitude (or x, y).
    columns : dict of str to Column
        Column (its name, number, or a mapping), or several with their depths, of each variable and of `station`, `time`, `x`,
        `y` or `longitude`, `latitude`, `depth`, `network`, `group`, `station_elevation`, `utc_offset_hours`. Several columns of
        `time` are joined. Without `station`, every place is a station. A wide table has one variable, the target.
    stations : str, optional
        Table of the stations' positions.
    station_columns : dict of str to Column
        Columns of that table; by default they have the names above.
    crs : str
        CRS of `x` and `y`.
    network : str
        Name of the network, if no column contains it. Ids are `NETWORK/STATION`.
    file_name : str or tuple of str, optional
        Pattern of the files' names, with `{station}` for the station's name: of several, the first that a file has.
    separator, decimal, encoding, comment : str
        How the text is written. By default the separator is found (`,`, `;`, tab, `|`, else blanks) and the encoding is UTF-8.
    skip_rows, units_rows : int
        Lines above the header; lines between the header and the values.
    header : bool
        False for files without names of columns.
    names : tuple of str
        Names of the columns, in place of those in the file.
    missing : tuple
        Words and numbers that stand for a missing value, besides empty fields, NaN, NA and null.
    valid : dict of str to (float, float)
        Valid range of variables, in the cube's unit.
    time_format : str, optional
        Format for `pandas.to_datetime`. ISO 8601, `YYYYmmddHHMM` and names of months need none.
    day_first : bool, optional
        Whether 01/02/2020 is the first of February; needed if the table does not show it.
    stamps : {"start", "end"}
        Whether times mark the start or the end of their interval: 00:00 then belongs to the day before.
    utc_offset_hours : float
        Offset from UTC of times without one (`2012-03-25 06:00`): -7 for Mountain Standard Time. Times with an offset
        (`2012-03-25T06:00-07:00`) keep it, and a date without a time of day (`2012-03-25`) is that day.
    local_times : bool
        Times without an offset are local: warn if no offset from UTC is given.
    daily : dict of str to {"mean", "sum"}
        How several rows of a day become one value. Variables in `mm d-1` are summed by default if rows are shorter than a day.
    min_valid_share : float
        Share of the usual number of rows a day (the table's median) that a day needs. A sum needs all rows of a day unless
        this is given; missing rows then count as the mean of the others.
    one_depth : bool
        Of columns at several depths, take the same one for all stations; by default, each station's nearest that has a value.
    """

    kind: Literal["csv"]
    preset: str | None = None
    layout: Literal["long", "wide"] = "long"
    columns: dict[str, Column | tuple[Column, ...]]
    stations: FilePath | None = None
    station_columns: dict[str, Column | tuple[Column, ...]] = Field({})
    crs: str = "EPSG:4326"
    network: str = "TABLE"
    file_name: tuple[str, ...] = ()
    separator: str | None = None
    decimal: Literal[".", ","] = "."
    encoding: str | None = None
    comment: str | None = None
    skip_rows: int = Field(0, ge=0)
    units_rows: int = Field(0, ge=0)
    header: bool = True
    names: tuple[str, ...] = ()
    missing: tuple[str | int | AnyNumber, ...] = ()
    valid: dict[str, tuple[AnyNumber, AnyNumber]] = Field({})
    time_format: str | None = None
    day_first: bool | None = None
    stamps: Literal["start", "end"] = "start"
    utc_offset_hours: float = Field(0.0, ge=-14, le=14)
    local_times: bool = False
    daily: dict[str, Literal["mean", "sum"]] = Field({})
    min_valid_share: float = Field(0.0, ge=0, le=1)
    one_depth: bool = False

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        name = values.get("preset")
        if name is None:
            return values
        if name not in (known := preset_names()):
            raise ValueError(f"preset: unknown preset {name!r}; {nearest(str(name), known)}")
        given = {k: v for k, v in values.items() if v is not None}
        preset = load_preset(str(name))
        for key in ("columns", "station_columns"):
            own, known_columns = given.get(key, {}), preset.get(key, {})
            if isinstance(own, Mapping) and isinstance(known_columns, Mapping):
                merged = {**known_columns, **own}
                given[key] = {k: v for k, v in merged.items() if v is not None}
        # A recipe that was resolved contains the preset's keys, not its name: columns that were removed stay away.
        return {k: v for k, v in {**preset, **given}.items() if k != "preset"}

    @field_validator("columns", "station_columns", mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        several = {k: _expand_column(v) for k, v in value.items()}
        return {k: v[0] if len(v) == 1 else v for k, v in several.items()}

    @field_validator("file_name", "missing", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str | int | float) else value

    @field_validator("separator", mode="before")
    @classmethod
    def _named_separator(cls, value: object) -> object:
        return _SEPARATORS.get(value.lower(), value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> TableSource:
        placed = {"latitude", "longitude"} <= set(self.columns) or {"x", "y"} <= set(self.columns)
        named = "station" in self.columns or bool(self.file_name) or placed
        lacks = [c for c, there in (("station", named), ("time", "time" in self.columns)) if not there]
        if lacks and self.layout == "long":
            raise ValueError(f"columns lacks {', '.join(lacks)}: name the table's column for each")
        if self.layout == "wide" and (self.stations is None or "time" not in self.columns):
            raise ValueError("a wide table needs columns.time and stations: a table of station, latitude, longitude")
        if self.separator is not None and len(self.separator) != 1:
            raise ValueError(f"separator: must be one character, tab or blanks; got {self.separator!r}")
        if wrong := [n for n, (low, high) in self.valid.items() if not low < high]:
            raise ValueError(f"valid: {', '.join(wrong)} needs [lowest, highest]")
        if not self.header and self.names and self.units_rows:
            raise ValueError("units_rows are below a header, and header is false; use skip_rows")
        return self

    @property
    def has_depths(self) -> bool:
        """True if the table contains the depths of its sensors."""
        return "depth" in self.columns or any(
            c.depth is not None for name in self.columns for c in self.columns_of(name)
        )

    def columns_of(self, name: str) -> tuple[Column, ...]:
        """Return the columns of a variable or a place."""
        return as_columns(self.columns[name])

    def gives(self, target: str) -> set[str]:
        """Return the names of the variables that the source gives."""
        return {target, *(c for c in self.columns if c not in PLACE_COLUMNS)}


def as_columns(given: Column | tuple[Column, ...]) -> tuple[Column, ...]:
    """Return one or several columns as several."""
    return (given,) if isinstance(given, Column) else given


def _expand_column(value: object) -> tuple[object, ...]:
    """Return mappings of `VW`, `3`, `{column: VW}`, `{VW_5: 0.05, VW_20: 0.2}` or a list of these."""
    if isinstance(value, list | tuple):
        return tuple(c for v in value for c in _expand_column(v))
    if isinstance(value, str | int) and not isinstance(value, bool):
        return ({"column": value},)
    if not isinstance(value, Mapping):
        return (value,)
    depths = (
        value and all(isinstance(v, int | float) for v in value.values()) and not set(value) & set(Column.model_fields)
    )
    several = value if depths else value.get("column")
    if not isinstance(several, Mapping):
        return (value,)
    rest = {} if depths else {k: v for k, v in value.items() if k != "column"}
    return tuple({**rest, "column": name, "depth": depth} for name, depth in several.items())


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(p.stem for p in _PRESETS.glob("*.yaml"))


@cache
def _read_preset(name: str) -> str:
    return (_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")


def load_preset(name: str) -> dict[str, object]:
    """Return the keys of a preset, with columns that a file may lack."""
    preset: dict[str, object] = yaml.safe_load(_read_preset(name))
    for key in ("columns", "station_columns"):
        columns = preset.get(key, {})
        assert isinstance(columns, dict)
        preset[key] = {
            name: [{**dict(c), "optional": True} for c in _expand_column(value) if isinstance(c, Mapping)]
            for name, value in columns.items()
        }
    return preset
