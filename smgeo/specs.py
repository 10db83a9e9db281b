"""Specs of sources and grids: what a recipe says about where data come from, checked and frozen. Opens no data."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from smgeo.errors import SmgeoError, nearest


class Spec(BaseModel):
    """A frozen part of a recipe that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            known = [f.alias or n for n, f in cls.model_fields.items()]
            for key in values:
                if key not in known:
                    raise ValueError(f"unknown key {key!r}; {nearest(str(key), known)}")
        return values


SpecType = TypeVar("SpecType", bound=Spec)


def parse_spec(spec: type[SpecType], values: Mapping[str, Any], where: str) -> SpecType:
    """Check the values of a recipe or of a part of one.

    Raises
    ------
    SmgeoError
        Naming the first few keys that are wrong, where they are, and what is known there.
    """
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        problems = _problems(error.errors(include_url=False), values)
        raise SmgeoError(f"{where}: " + "; ".join(problems[:4])) from None


def known_kind(*specs: type[Spec]) -> BeforeValidator:
    """Refuses a mapping whose `kind` is none of these specs', or that says none."""
    known = [k for s in specs for k in get_args(s.model_fields["kind"].annotation)]

    def check(value: Any) -> Any:
        if isinstance(value, Mapping) and "kind" not in value:
            raise ValueError(f"kind is missing; known: {', '.join(sorted(known))}")
        if isinstance(value, Mapping) and value["kind"] not in known:
            raise ValueError(f"unknown kind {_shown(value['kind'])}; {nearest(str(value['kind']), known)}")
        return value

    return BeforeValidator(check)


# What pydantic finds, in the words of a recipe: by its error's type, or by the first word of that.
_NEEDS = {
    "literal_error": "{expected}",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number not below {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number not above {le:g}",
    "too_short": "{min_length} or more values",
    "too_long": "no more than {max_length} values",
    "tuple": "a list",
    "dict": "a mapping (key: value)",
    "model": "a mapping (key: value)",
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "date": "a date such as 2020-01-31",
}
_Place = tuple[int | str, ...]


def _problems(errors: Sequence[Any], values: Any) -> list[str]:
    """For each place what is needed there and what was found."""
    at: dict[_Place, list[Any]] = {}
    for item in errors:
        at.setdefault(_place(item, values), []).append(item)
    # Of a value that may have several forms, what is wrong within one form says more than that it is none of the others.
    inner = [p for p in at if not any(len(q) > len(p) and q[: len(p)] == p for q in at)]
    out = []
    for place in inner:
        name, items = ".".join(map(str, place)), at[place]
        if _is_missing_key(items[0]):
            out.append(f"{name} is missing")
        else:
            out.append(f"{name}: {_problem(items)}" if name else _problem(items))
    return out


def _place(item: Any, values: Any) -> _Place:
    """The keys and positions that the recipe has itself; pydantic adds names of kinds and of types."""
    place: list[int | str] = []
    for part in item["loc"]:
        if isinstance(values, Mapping):
            there = part in values
        else:
            there = isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)
        if there:
            values = values[part]
        if there or (_is_missing_key(item) and part == item["loc"][-1]):
            place.append(part)
    return tuple(place)


def _is_missing_key(item: Any) -> bool:
    return item["type"] == "missing" and isinstance(item["loc"][-1], str)


def _problem(items: Sequence[Any]) -> str:
    own = [i["msg"].removeprefix("Value error, ") for i in items if i["type"] == "value_error"]
    if own:
        return str(own[0])
    found, needs = items[0]["input"], list(dict.fromkeys(map(_need, items)))
    if any(i["type"] == "missing" for i in items):  # of a list of a given length
        needs = [f"{max(i['loc'][-1] for i in items if i['type'] == 'missing') + 1} values"]
    hint = ""
    if needs == ["a list"] and isinstance(found, str | int | float | dt.date):
        hint = f"; write [{_plain(found)}]"
    elif needs == ["text"] and isinstance(found, int | float | dt.date):
        hint = "; put it in quotes"
    return f"needs {' or '.join(needs)}; got {_shown(found)}{hint}"


def _need(item: Any) -> str:
    need = _NEEDS.get(item["type"]) or _NEEDS.get(item["type"].split("_")[0])
    return need.format(**item.get("ctx", {})) if need else str(item["msg"])


def _shown(value: Any) -> str:
    """A value as messages show it, without what follows `?` in a URL, where keys may stand."""
    if value is None or isinstance(value, Mapping):
        return "nothing" if value is None else "a mapping"
    text = f"[{', '.join(map(_shown, value))}]" if isinstance(value, list | tuple) else None
    text = text or (repr(_plain(value)) if isinstance(value, str) else _plain(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else re.sub(r"(://[^\s?]*\?)\S+", r"\1...", str(value))


class Column(Spec):
    """One column of a table: value = column * scale + offset, in `units`."""

    column: str
    scale: float = 1.0
    offset: float = 0.0
    units: str | None = None


class StationSource(Spec):
    """What every source of stations says."""

    takes_catalog: ClassVar[bool] = False
    path: str

    def options(self, root: Path) -> dict[str, Any]:
        """Keyword arguments of its reader; other files of the source begin at `root`."""
        given = {n: getattr(self, n) for n in type(self).model_fields if n not in ("kind", "path")}
        if given.get("stations"):
            given["stations"] = str(root / given["stations"])
        return given

    def more_files(self, root: Path) -> list[Path]:
        """Files that it reads beside `path`."""
        places = getattr(self, "stations", None)
        return [root / places] if places else []


class IsmnSource(StationSource):
    """An ISMN archive, zip or folder, in any of its three formats."""

    kind: Literal["ismn"]
    variables: tuple[str, ...] = ()
    flags: tuple[str, ...] = ("G",)
    min_valid_share: float = Field(0.5, ge=0, le=1)
    networks: tuple[str, ...] | None = None
    depth_rule: Literal["nearest", "mean"] = "nearest"
    nearest_to_m: float | None = Field(None, ge=0)

    def gives(self, target: str) -> set[str]:
        """Names of the variables this source gives."""
        return {target, *self.variables}


class TerenoColumn(Spec):
    """One column of a TERENO export; `flag` names the column(s) of its quality flags."""

    variable: str
    depth_m: float | tuple[float, float] | None = None
    units: str | None = None
    flag: str | tuple[str, ...] | None = None
    sensor: str | None = None


class TerenoSource(StationSource):
    """Text exports of the TERENO data portal, a file or a folder of them."""

    kind: Literal["tereno"]
    flags: tuple[str, ...] = ("ok",)
    variables: tuple[str, ...] = ()
    columns: dict[str, TerenoColumn] | None = None
    stations: str | None = None
    network: str = "TERENO"
    min_valid_share: float = Field(0.5, ge=0, le=1)
    depth_rule: Literal["nearest", "mean"] = "nearest"
    nearest_to_m: float | None = Field(None, ge=0)
    time_column: str | None = None
    time_format: str = "ISO8601"
    utc_offset_hours: float = Field(0.0, ge=-14, le=14)
    separator: str | None = None
    missing: tuple[str, ...] = ("noData", "NaN", "-9999")

    def options(self, root: Path) -> dict[str, Any]:
        """Keyword arguments of its reader."""
        given = super().options(root)
        if self.columns is not None:
            given["columns"] = {n: c.model_dump(exclude_none=True) for n, c in self.columns.items()}
        return given

    def gives(self, target: str) -> set[str]:
        """Names of the variables this source gives."""
        return {target, *self.variables}


class MatrixFile(Spec):
    """A matrix's file stem: value = number * scale + offset."""

    file: str
    scale: float = 1.0
    offset: float = 0.0


class MatrixSource(StationSource):
    """A folder of matrices, cells x days, in folders of years, with layers that do not change beside them."""

    takes_catalog: ClassVar[bool] = True
    kind: Literal["matrix"]
    variables: dict[str, str | MatrixFile]
    static: dict[str, str | MatrixFile] = {}
    years: tuple[int | str, ...] | None = None
    missing: float = -9999.0
    network: str = "CELLS"
    coordinates: str = "crd.csv"
    dates: tuple[str, ...] = ("timeStr.csv", "time.csv")
    static_folder: str = "const"

    def options(self, root: Path) -> dict[str, Any]:
        """Keyword arguments of its reader."""
        given = super().options(root)
        for key in ("variables", "static"):
            given[key] = {n: f if isinstance(f, str) else f.model_dump() for n, f in given[key].items()}
        return given

    def gives(self, target: str) -> set[str]:
        """Names of the variables this source gives."""
        return {*self.variables, *self.static}


class TableSource(StationSource):
    """A table of stations, long (a row per station and day) or wide (a column per station), plain or gz."""

    takes_catalog: ClassVar[bool] = True
    kind: Literal["csv"]
    layout: Literal["long", "wide"] = "long"
    columns: dict[str, Column]
    stations: str | None = None
    crs: str = "EPSG:4326"
    network: str = "TABLE"
    min_valid_share: float = Field(0.0, ge=0, le=1)
    utc_offset_hours: float = Field(0.0, ge=-14, le=14)

    @field_validator("columns", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: {"column": v} if isinstance(v, str) else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _complete(self) -> TableSource:
        if missing := [c for c in ("station", "time") if c not in self.columns and self.layout == "long"]:
            raise ValueError(f"columns lacks {', '.join(missing)}: say which column of the table holds it")
        if self.layout == "wide" and (self.stations is None or "time" not in self.columns):
            raise ValueError("a wide table needs columns.time and stations: a table of station, latitude, longitude")
        return self

    def gives(self, target: str) -> set[str]:
        """Names of the variables this source gives."""
        places = {"station", "time", "x", "y", "latitude", "longitude", "depth", "network", "station_elevation"}
        return {target, *(c for c in self.columns if c not in places)}


AnyStations = Annotated[
    IsmnSource | TerenoSource | TableSource | MatrixSource,
    Field(discriminator="kind"),
    known_kind(IsmnSource, TerenoSource, TableSource, MatrixSource),
]


class GridSpec(Spec):
    """The target grid: like a raster, or CRS with resolution (in CRS units) and bounds (left, bottom, right, top).

    `period` limits the grid cube to fewer days than the stations have.
    """

    like: str | None = None
    crs: str | None = None
    resolution: float | None = Field(None, gt=0)
    bounds: tuple[float, float, float, float] | None = None
    period: tuple[dt.date, dt.date] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> GridSpec:
        full = [self.crs, self.resolution, self.bounds]
        if (self.like is None) == any(v is None for v in full):
            raise ValueError("give either like: RASTER, or all of crs, resolution and bounds")
        if self.period is not None and self.period[0] > self.period[1]:
            raise ValueError(f"period ends before it begins: {self.period[0]} to {self.period[1]}")
        if self.bounds is not None and not (self.bounds[0] < self.bounds[2] and self.bounds[1] < self.bounds[3]):
            raise ValueError(f"bounds are left, bottom, right, top; got {self.bounds}")
        if self.bounds is not None and self.resolution is not None:
            width, height = self.bounds[2] - self.bounds[0], self.bounds[3] - self.bounds[1]
            if self.resolution > min(width, height):
                x, y = (math.ceil(side / self.resolution) for side in (width, height))
                raise ValueError(
                    f"resolution {self.resolution:g} is wider than the bounds, {width:g} x {height:g}: {x} x {y} pixels; "
                    f"resolution and bounds are in the units of {self.crs} (degrees for EPSG:4326)"
                )
        return self
