"""Sources of stations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from smgeo.recipe.spec import Spec, known_kind


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
    static: dict[str, str | MatrixFile] = Field({})
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
