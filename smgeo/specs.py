"""Specs of sources and grids: what a recipe says about where data come from, checked and frozen. Opens no data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

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
        problems = []
        for item in error.errors()[:4]:
            place = ".".join(str(p) for p in item["loc"])
            message = item["msg"].removeprefix("Value error, ")
            problems.append(f"{place}: {message}" if place else message)
        raise SmgeoError(f"{where}: " + "; ".join(problems)) from None


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


AnyStations = Annotated[IsmnSource | TerenoSource | TableSource | MatrixSource, Field(discriminator="kind")]


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
        return self
