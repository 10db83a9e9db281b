"""Specs of raster sources: what a recipe says about files, Earth Engine and STAC catalogues, checked and frozen."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from smgeo.catalog import EARTHENGINE, MASKS, STAC, STUDY_FEATURES, Conversion, Mask
from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.spec import Spec, known_kind, parse_spec

Resampling = Literal["auto", "nearest", "bilinear", "average", "cubic"]
DailyRule = Literal["auto", "mean", "clearest", "sum"]
Bands = dict[str, int | str]


def _names_to_themselves(value: Any) -> Any:
    """`[s1_vv, s1_vh]` means `{s1_vv: s1_vv, s1_vh: s1_vh}`."""
    return {v: v for v in value} if isinstance(value, list | tuple) else value


class MaskSpec(Spec):
    """Pixels to leave out: where a quality band of the same scene has one of the bits, fields or classes.

    `rule` names a mask of the catalogue (`smgeo.catalog.MASKS`); otherwise `bits` (left out where one of these bits
    is set), `fields` ([first bit, last bit, least value] of a confidence field) and `classes` (values) say it.
    """

    band: int | str
    rule: str | None = None
    bits: tuple[int, ...] = ()
    fields: tuple[tuple[int, int, int], ...] = ()
    classes: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _says_what(self) -> MaskSpec:
        if self.rule is not None and self.rule not in MASKS:
            raise ValueError(f"unknown rule {self.rule!r}; {nearest(self.rule, list(MASKS))}")
        if (self.rule is None) == (not (self.bits or self.fields or self.classes)):
            raise ValueError("give either rule, or some of bits, fields and classes")
        return self

    @property
    def mask(self) -> Mask:
        """What is left out, from the catalogue or from the spec itself."""
        return MASKS[self.rule] if self.rule is not None else Mask(self.bits, self.fields, self.classes)


class _Raster(Spec):
    """What every raster source says.

    `radius_m`: stations get the mean of the pixels whose centres lie within so many metres; without it, the pixel
    they lie in. `daily`: the rule for several scenes a day.
    """

    resampling: Resampling = "auto"
    daily: DailyRule = "auto"
    radius_m: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _says_something(self) -> _Raster:
        if empty := [key for key in ("path", "bands") if hasattr(self, key) and not getattr(self, key)]:
            raise ValueError(f"{empty[0]} is empty")
        return self

    def gives(self, target: str) -> set[str]:
        """Names of the variables this source gives."""
        return set(self.bands)  # type: ignore[attr-defined]

    @property
    def label(self) -> str:
        """How messages and file names call this source."""
        return str(self.kind)  # type: ignore[attr-defined]


class _Files(_Raster):
    """What sources of files say: where these are (a path, a glob pattern, or a list), and what to read of them."""

    path: str | tuple[str, ...]
    bands: Bands

    @field_validator("bands", mode="before")
    @classmethod
    def _list_form(cls, value: Any) -> Any:
        return _names_to_themselves(value)

    @property
    def patterns(self) -> tuple[str, ...]:
        """Paths and patterns, one or many."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def label(self) -> str:
        """How messages and file names call this source."""
        more = len(self.patterns) - 1
        return f"{self.patterns[0]} and {more} more" if more else self.patterns[0]


class RasterSource(_Files):
    """GeoTIFFs or COGs, on disk or remote (http, https, s3, gs): scenes with a date, or layers that do not change.

    `path` may be a glob pattern, a list, and may hold `{band}`, filled with each band's name, where every band is a
    file of its own. Bands of a file that stacks several dates hold `{step}` (empty for the first date, then `_1`,
    `_2`, ..., as Earth Engine names them), with `dates` a list.
    """

    kind: Literal["geotiff"]
    dates: str | dt.date | tuple[dt.date, ...] | None = None
    dates_table: str | None = None
    units: dict[str, str] = Field({})
    scale: dict[str, float] = Field({})
    offset: dict[str, float] = Field({})
    convert: dict[str, Conversion] = Field({})
    nodata: float | None = None
    mask: MaskSpec | None = None

    @field_validator("dates", mode="before")
    @classmethod
    def _one_date(cls, value: Any) -> Any:
        """A date in quotes, as a dumped recipe has it, is a date and no pattern."""
        return (
            dt.date.fromisoformat(value)
            if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value)
            else value
        )

    @model_validator(mode="after")
    def _keys_are_bands(self) -> RasterSource:
        _check_keys(self, ("units", "scale", "offset", "convert"))
        return self


class GriddedSource(_Files):
    """NetCDF, HDF5, Zarr or CSV grids: arrays with coordinates (GPM IMERG, NEO, reanalyses, other people's cubes).

    `bands` names the variable in the file for each variable of the cube. A file without a time coordinate takes its day
    from its name by the pattern `dates`, as GeoTIFFs do.
    """

    kind: Literal["netcdf", "zarr", "csv_grid"]
    dates: str | dt.date | None = None
    group: str | None = None
    crs: str | None = None
    scale: dict[str, float] = Field({})
    offset: dict[str, float] = Field({})
    nodata: float | None = None

    @model_validator(mode="after")
    def _keys_are_bands(self) -> GriddedSource:
        _check_keys(self, ("scale", "offset"))
        return self


class _Remote(_Raster):
    """What the catalogues (Earth Engine, STAC) need beside: which features, and which passes of Sentinel-1."""

    bands: dict[str, str]
    orbit: Literal["ascending", "descending"] | None = None
    mask: bool = True

    @field_validator("bands", mode="before")
    @classmethod
    def _list_form(cls, value: Any) -> Any:
        return {n: n for n in STUDY_FEATURES if n in EARTHENGINE} if value == "study" else _names_to_themselves(value)


class EarthEngineSource(_Remote):
    """Google Earth Engine, by the catalogue's names: `bands: [s1_vv, s1_vh, elevation]`, or `{s1_vv_asc: s1_vv}`.

    `project` is the Cloud project that pays; `$EARTHENGINE_PROJECT` where it is not given. `credentials` is a service
    account's key file (`$GOOGLE_APPLICATION_CREDENTIALS`, or what `earthengine authenticate` left, where not given).
    `requests_in_flight` holds over all workers; `budget` is the most requests a build may send.
    """

    kind: Literal["earthengine"]
    project: str | None = None
    credentials: str | None = None
    url: str | None = None
    requests_in_flight: int = Field(20, ge=1, le=100)
    budget: int | None = Field(None, ge=1)
    timeout_s: float = Field(300.0, gt=0)
    retries: int = Field(8, ge=0)

    @model_validator(mode="after")
    def _known(self) -> EarthEngineSource:
        _check_catalog(self, EARTHENGINE)
        return self


class StacSource(_Remote):
    """A STAC API or a static catalogue: `url`, and either features of the catalogue or `{variable: asset}`.

    `collections` defaults to those of the catalogue's table. `query` goes to the API as it is (STAC API query extension:
    `{eo:cloud_cover: {lt: 50}}`). `bbox` (west, south, east, north, degrees) limits the search; by default it is where
    the grid or the stations are. `quality` replaces the catalogue's quality asset and rule; `mask: false` reads all
    pixels. `sign: planetary_computer` has assets signed at each read.
    """

    kind: Literal["stac"]
    url: str
    collections: tuple[str, ...] = ()
    query: dict[str, Any] = Field({})
    bbox: tuple[float, float, float, float] | None = None
    max_cloud_cover: float | None = Field(None, ge=0, le=100)
    quality: MaskSpec | None = None
    units: dict[str, str] = Field({})
    scale: dict[str, float] = Field({})
    offset: dict[str, float] = Field({})
    convert: dict[str, Conversion] = Field({})
    nodata: float | None = None
    sign: Literal["planetary_computer"] | None = None

    @field_validator("bands", mode="before")
    @classmethod
    def _list_form(cls, value: Any) -> Any:
        return {n: n for n in STUDY_FEATURES if n in STAC} if value == "study" else _names_to_themselves(value)

    @model_validator(mode="after")
    def _checked(self) -> StacSource:
        _check_keys(self, ("units", "scale", "offset", "convert"))
        if lacking := [b for b in self.bands.values() if b not in STAC and not self.collections]:
            raise ValueError(
                f"bands: {lacking[0]!r} is no feature that the catalogue knows in STAC ({nearest(lacking[0], list(STAC))}); "
                "for an asset's name, give collections too"
            )
        if self.quality is not None and isinstance(self.quality.band, int):
            raise ValueError(f"quality.band is the name of an asset, not a number; got {self.quality.band}")
        if self.bbox is not None and not (
            -180 <= self.bbox[0] < self.bbox[2] <= 180 and -90 <= self.bbox[1] < self.bbox[3] <= 90
        ):
            raise ValueError(f"bbox is west, south, east, north in degrees; got {self.bbox}")
        return self

    @property
    def label(self) -> str:
        """How messages and file names call this source; without what follows `?` in its URL, where keys may stand."""
        return f"stac {self.url.split('?', 1)[0]}"


AnyRaster = Annotated[
    RasterSource | GriddedSource | EarthEngineSource | StacSource,
    Field(discriminator="kind"),
    known_kind(RasterSource, GriddedSource, EarthEngineSource, StacSource),
]

_RASTER_KINDS: dict[str, type[_Raster]] = {
    "geotiff": RasterSource,
    **dict.fromkeys(("netcdf", "zarr", "csv_grid"), GriddedSource),
    "earthengine": EarthEngineSource,
    "stac": StacSource,
}


def parse_raster(values: Any, where: str) -> Any:
    """The spec of a raster source of any kind, from a mapping (`kind`: geotiff where it says none) or as it is.

    Raises
    ------
    SmgeoError
        If the kind is unknown or a key is wrong.
    """
    if not isinstance(values, Mapping):
        return values
    kind = str(values.get("kind", "geotiff"))
    if kind not in _RASTER_KINDS:
        raise SmgeoError(f"{where}: unknown kind of rasters {kind!r}; {nearest(kind, list(_RASTER_KINDS))}")
    return parse_spec(_RASTER_KINDS[kind], {"kind": kind, **values}, where)


def _check_keys(source: Any, keys: tuple[str, ...]) -> None:
    for key in keys:
        for name in getattr(source, key):
            if name not in source.bands:
                raise ValueError(f"{key} names {name!r}, which is not in bands; {nearest(name, list(source.bands))}")


def _check_catalog(source: EarthEngineSource, table: Mapping[str, Any]) -> None:
    for name, feature in source.bands.items():
        if feature not in table:
            raise ValueError(
                f"bands: {name} asks for {feature!r}, which the catalogue lacks; {nearest(feature, list(table))}"
            )
    if source.orbit is None and any(f.startswith("s1_") for f in source.bands.values()):
        raise ValueError(
            "Sentinel-1 needs orbit: ascending or descending (passes look at slopes from opposite sides and are not mixed)"
        )
