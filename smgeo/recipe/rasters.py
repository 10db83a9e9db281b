"""Specs of raster sources: files, Earth Engine and STAC catalogues."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import Field, PositiveFloat, field_validator, model_validator

from smgeo.addresses import plain
from smgeo.catalog import EARTHENGINE, MASKS, STAC, STUDY_FEATURES, Conversion, Feature, Mask
from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.spec import AnyNumber, Spec, known_kind, parse_spec
from smgeo.recipe.yaml_format import YamlValue

Resampling = Literal["auto", "nearest", "bilinear", "average", "cubic"]
DailyRule = Literal["auto", "mean", "clearest", "sum"]
GriddedRule = Literal["auto", "mean", "clearest", "sum", "accumulated"]
Bands = dict[str, int | str]


def _names_to_themselves(value: object) -> object:
    """Return `{s1_vv: s1_vv, s1_vh: s1_vh}` for `[s1_vv, s1_vh]`."""
    named = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    return {v: v for v in value} if named else value  # type: ignore[attr-defined]


class MaskSpec(Spec):
    """Pixels to mask: where a quality band of the same scene has one of the bits, fields or classes.

    `rule` names a mask of the catalogue (`smgeo.catalog.MASKS`). Otherwise give `bits` (masked where one of these bits
    is set), `fields` ([first bit, last bit, least value] of a confidence field) and `classes` (values).
    """

    band: int | str
    rule: str | None = None
    bits: tuple[int, ...] = ()
    fields: tuple[tuple[int, int, int], ...] = ()
    classes: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _one_form(self) -> MaskSpec:
        if self.rule is not None and self.rule not in MASKS:
            raise ValueError(f"unknown rule {self.rule!r}; {nearest(self.rule, list(MASKS))}")
        if (self.rule is None) == (not (self.bits or self.fields or self.classes)):
            raise ValueError("give either rule, or some of bits, fields and classes")
        return self

    @property
    def mask(self) -> Mask:
        """The mask, from the catalogue or from the spec itself."""
        return MASKS[self.rule] if self.rule is not None else Mask(self.bits, self.fields, self.classes)


class _Raster(Spec):
    """Keys of every raster source.

    `radius_m`: stations get the mean of the pixels whose centres are within this distance, m; without it, the value of the
    pixel that contains them. Each kind has `daily`, the rule for several observations a day. `refers_to`: what the numbers of a variable
    refer to, if the source does not say: `{elevation: EGM2008 geoid}`, `{s1_incidence: local}`.
    """

    resampling: Resampling = "auto"
    radius_m: float | None = Field(None, gt=0, le=1_000_000)
    refers_to: dict[str, str] = Field({})

    @model_validator(mode="after")
    def _not_empty(self) -> _Raster:
        if empty := [key for key in ("path", "bands") if hasattr(self, key) and not getattr(self, key)]:
            raise ValueError(f"{empty[0]} is empty")
        _check_keys(self, ("refers_to",))
        return self


class _Files(_Raster):
    """Keys of sources in files: their path (or a glob pattern, or a list), and the bands to read."""

    path: str | tuple[str, ...]
    bands: Bands

    @field_validator("bands", mode="before")
    @classmethod
    def _list_form(cls, value: object) -> object:
        return _names_to_themselves(value)

    @field_validator("dates", mode="before", check_fields=False)
    @classmethod
    def _one_date(cls, value: object) -> object:
        """Read a date in quotes as a date and not as a pattern."""
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            return dt.date.fromisoformat(value)
        return value

    @property
    def patterns(self) -> tuple[str, ...]:
        """Paths and patterns."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def label(self) -> str:
        """Name of this source in messages."""
        more = len(self.patterns) - 1
        first = plain(self.patterns[0])
        return f"{first} and {more} more" if more else first


class RasterSource(_Files):
    """GeoTIFFs or COGs, on disk or remote (http, https, s3, gs): scenes with a date, or static layers.

    `path` may be a glob pattern or a list. It contains `{band}` if every band is a file of its own; each band's name is put there.
    Bands of a file that stacks several dates contain `{step}` (empty for the first date, then `_1`, `_2`, ..., as Earth Engine
    names them), with `dates` a list.
    """

    kind: Literal["geotiff"]
    daily: DailyRule = "auto"
    dates: str | dt.date | tuple[dt.date, ...] | None = None
    dates_table: str | None = None
    units: dict[str, str] = Field({})
    scale: dict[str, float] = Field({})
    offset: dict[str, float] = Field({})
    convert: dict[str, Conversion] = Field({})
    nodata: AnyNumber | None = None
    mask: MaskSpec | None = None

    @model_validator(mode="after")
    def _keys_are_bands(self) -> RasterSource:
        _check_keys(self, ("units", "scale", "offset", "convert"))
        return self


class GriddedSource(_Files):
    """NetCDF, HDF5, Zarr or CSV grids: arrays with coordinates (GPM IMERG, NEO, reanalyses, other people's cubes).

    `bands` names the variable in the file for each variable of the cube. The day of a file without a time coordinate is read
    from its name by the pattern `dates`, as for GeoTIFFs. `daily: accumulated` is for sums since 00 UTC. `stamp: end` is for values whose
    time is the end of their interval, if files have no bounds of times; either `stamp` states that values do not add up. `select` chooses one
    position along each dimension that is neither x, y nor time, by the value of its coordinate, or by position if it has none. `pixel_size`
    (width, or width and height, in units of the coordinates) is that of a grid with one row or column whose file has no bounds.
    """

    kind: Literal["netcdf", "zarr", "csv_grid"]
    daily: GriddedRule = "auto"
    stamp: Literal["start", "end"] | None = None
    dates: str | dt.date | None = None
    group: str | None = None
    crs: str | None = None
    scale: dict[str, float] = Field({})
    offset: dict[str, float] = Field({})
    convert: dict[str, Literal["none", "power_to_db"]] = Field({})
    nodata: AnyNumber | None = None
    honour_valid_range: bool = True
    select: dict[str, int | float | str] = Field({})
    pixel_size: tuple[PositiveFloat, PositiveFloat] | None = None

    @field_validator("pixel_size", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        return (value, value) if isinstance(value, int | float) else value

    @field_validator("select", mode="before")
    @classmethod
    def _dates_as_text(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {k: v.isoformat() if isinstance(v, dt.date) else v for k, v in value.items()}

    @model_validator(mode="after")
    def _keys_are_bands(self) -> GriddedSource:
        _check_keys(self, ("scale", "offset", "convert"))
        return self


class _Remote(_Raster):
    """Keys of catalogues (Earth Engine, STAC): their features, and the passes of Sentinel-1."""

    bands: dict[str, str]
    daily: DailyRule = "auto"
    orbit: Literal["ascending", "descending"] | None = None
    mask: bool = True

    @field_validator("bands", mode="before")
    @classmethod
    def _list_form(cls, value: object) -> object:
        return {n: n for n in STUDY_FEATURES if n in EARTHENGINE} if value == "study" else _names_to_themselves(value)


class EarthEngineSource(_Remote):
    """Google Earth Engine, by the catalogue's names: `bands: [s1_vv, s1_vh, elevation]`, or `{s1_vv_asc: s1_vv}`.

    `project` is the Cloud project that pays; by default `$EARTHENGINE_PROJECT`. `credentials` is a service account's key file;
    by default `$GOOGLE_APPLICATION_CREDENTIALS`, or the credentials of `earthengine authenticate`. `requests_in_flight` limits
    all workers together; `budget` is the maximum number of requests of a build.
    """

    kind: Literal["earthengine"]
    project: str | None = None
    credentials: str | None = None
    url: str | None = None
    requests_in_flight: int = Field(20, ge=1, le=100)
    budget: int | None = Field(None, ge=1)
    timeout_s: float = Field(300.0, gt=0, le=86_400)
    retries: int = Field(8, ge=0)

    @model_validator(mode="after")
    def _known(self) -> EarthEngineSource:
        for name, feature in self.bands.items():
            if feature not in EARTHENGINE:
                raise ValueError(
                    f"bands: {name} asks for {feature!r}, which the catalogue lacks; {nearest(feature, list(EARTHENGINE))}"
                )
        if self.orbit is None and any(f.startswith("s1_") for f in self.bands.values()):
            raise ValueError(
                "Sentinel-1 needs orbit: ascending or descending (passes look at slopes from opposite sides and are not mixed)"
            )
        return self

    @property
    def label(self) -> str:
        """Name of this source in messages."""
        return self.kind


class StacSource(_Remote):
    """A STAC API or a static catalogue: `url`, and either features of the catalogue or `{variable: asset}`.

    `collections` defaults to those of the catalogue's table. `query` is sent to the API unchanged (STAC API query extension:
    `{eo:cloud_cover: {lt: 50}}`). `bbox` (west, south, east, north, degrees; west > east crosses
    the 180th meridian) limits the search; by default it is that of the grid or the stations. `quality` replaces the catalogue's
    quality asset and rule; `mask: false` reads all pixels. `sign: planetary_computer` signs assets at each read.
    """

    kind: Literal["stac"]
    url: str
    collections: tuple[str, ...] = ()
    query: dict[str, YamlValue] = Field({})
    bbox: tuple[float, float, float, float] | None = None
    max_cloud_cover: float | None = Field(None, ge=0, le=100)
    quality: MaskSpec | None = None
    units: dict[str, str] = Field({})
    scale: dict[str, float] = Field({})
    offset: dict[str, float] = Field({})
    convert: dict[str, Conversion] = Field({})
    nodata: AnyNumber | None = None
    sign: Literal["planetary_computer"] | None = None

    @field_validator("bands", mode="before")
    @classmethod
    def _list_form(cls, value: object) -> object:
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
        if self.bbox is not None:
            west, south, east, north = self.bbox
            # West of -180 or east of 180, and west > east (RFC 7946), are boxes across the 180th meridian.
            if not (-360 <= west <= 360 and -360 <= east <= 360 and west != east and -90 <= south < north <= 90):
                raise ValueError(f"bbox is west, south, east, north in degrees; got {self.bbox}")
        return self

    @property
    def label(self) -> str:
        """Name of this source in messages; without the query of its URL, which may contain keys."""
        return f"stac {self.url.split('?', 1)[0]}"


AnyRaster = Annotated[
    RasterSource | GriddedSource | EarthEngineSource | StacSource,
    Field(discriminator="kind"),
    known_kind(RasterSource, GriddedSource, EarthEngineSource, StacSource),
]

_PARSERS: dict[str, Callable[[Mapping[str, object], str], AnyRaster]] = {
    "geotiff": partial(parse_spec, RasterSource),
    **dict.fromkeys(("netcdf", "zarr", "csv_grid"), partial(parse_spec, GriddedSource)),
    "earthengine": partial(parse_spec, EarthEngineSource),
    "stac": partial(parse_spec, StacSource),
}


def parse_raster(values: AnyRaster | Mapping[str, object], where: str) -> AnyRaster:
    """Return the spec of a raster source of any kind, from a mapping (`kind` defaults to geotiff) or unchanged.

    Raises
    ------
    SmgeoError
        If the kind is unknown or a key is wrong.
    """
    if not isinstance(values, Mapping):
        return values
    kind = str(values.get("kind", "geotiff"))
    if kind not in _PARSERS:
        raise SmgeoError(f"{where}: unknown kind of rasters {kind!r}; {nearest(kind, list(_PARSERS))}")
    return _PARSERS[kind]({"kind": kind, **values}, where)


SourceType = TypeVar("SourceType", RasterSource, GriddedSource, EarthEngineSource, StacSource)


def read_source(
    source: type[SourceType], values: SourceType | Mapping[str, object], where: str, catalog: Mapping[str, Feature]
) -> SourceType:
    """Return the spec of a source of one kind, from a mapping (which may lack a `kind` that is the only one) or unchanged.

    Raises
    ------
    SmgeoError
        If a key is wrong, the catalogue lacks a variable of `bands`, or `units` names another unit than the cube's.
    """
    if isinstance(values, Mapping):
        kinds = get_args(source.model_fields["kind"].annotation)
        values = parse_spec(source, {**({"kind": kinds[0]} if len(kinds) == 1 else {}), **values}, where)
    if unknown := [n for n in values.bands if n not in catalog]:
        raise SmgeoError(
            f"{values.label}: {unknown[0]!r} is not a known variable; {nearest(unknown[0], list(catalog))}; "
            "describe a variable of your own under variables"
        )
    if wrong := other_units(getattr(values, "units", {}), catalog):
        raise SmgeoError(f"{values.label}: {wrong[0]}")
    return values


def other_units(units: Mapping[str, str], catalog: Mapping[str, Feature]) -> list[str]:
    """Return what is wrong with the units that a source declares, by variable: they are not the cube's."""
    return [
        f"{name} is given in {unit!r}, but the cube needs {catalog[name].units!r}; convert it with scale and offset and leave units "
        "out, or choose another name for the variable"
        for name, unit in units.items()
        if name in catalog and unit != catalog[name].units
    ]


def _check_keys(source: _Raster, keys: tuple[str, ...]) -> None:
    bands = list(getattr(source, "bands", ()))
    for key in keys:
        for name in getattr(source, key):
            if name not in bands:
                raise ValueError(f"{key} names {name!r}, which is not in bands; {nearest(name, bands)}")
