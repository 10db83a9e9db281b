"""The functions of expressions, by Earth Engine's names; each says whose documented behaviour it follows.

"API reference" is the page of that name under developers.google.com/earth-engine/apidocs; guides are under
developers.google.com/earth-engine/guides. Names of parameters are those of Earth Engine's list of algorithms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely

from .errors import EarthEngineError
from .grids import COMPOSITE, Pixels, Projection
from .images import (
    Answer,
    Band,
    Image,
    apply,
    bilinear,
    constant,
    reduced_resolution,
    reprojected,
    stacked,
    union_footprint,
    unmasked,
)
from .reducers import REDUCERS, Reducer, reduce_arrays, reduce_bands, reduce_columns, reduce_region, reduce_regions
from .values import (
    FILTERS,
    UNITS,
    Collection,
    Date,
    Feature,
    advanced,
    buffered,
    copied_properties,
    property_of,
    to_date,
    to_degrees,
    to_geometry,
    to_range,
    with_properties,
)

FUNCTIONS: dict[str, Callable[..., Any]] = {}


def function(*names: str) -> Callable[[Callable], Callable]:
    """Registers a function under Earth Engine's name for it."""

    def keep(body: Callable) -> Callable:
        FUNCTIONS.update(dict.fromkeys(names, body))
        return body

    return keep


# Loading ---------------------------------------------------------------------------------------------------------


@function("Image.load")
def image_load(world: Any, id: str, version: float = -1) -> Image:
    """API reference: ee.Image: an image by its asset ID, those of collections too."""
    if (image := world.image(id)) is None:
        raise EarthEngineError(
            f"Image.load: Image asset '{id}' not found (does not exist or caller does not have access)."
        )
    return image


@function("ImageCollection.load")
def collection_load(world: Any, id: str, version: float | None = None) -> Collection:
    """API reference: ee.ImageCollection: images in the order of their index."""
    if (images := world.collection(id)) is None:
        raise EarthEngineError(
            f"ImageCollection.load: ImageCollection asset '{id}' not found (does not exist or caller does not have access)."
        )
    return Collection(tuple(images), images=True)


# Bands of images -------------------------------------------------------------------------------------------------


def as_list(value: Any) -> list:
    """A single value where a list is meant."""
    return list(value) if isinstance(value, list | tuple) else [value]


@function("Image.constant")
def image_constant(value: Any) -> Image:
    """API reference: ee.Image.constant: everywhere; bands of a list are constant_0, constant_1, ..."""
    if isinstance(value, list):
        return Image(tuple(constant(v, f"constant_{i}") for i, v in enumerate(value)))
    return Image((constant(value),))


@function("Image.select")
def image_select(input: Image, bandSelectors: Any, newNames: list[str] | None = None) -> Image:
    """API reference: ee.Image.select: by name, regular expression or index; optionally renamed."""
    chosen: list[Band] = []
    for selector in as_list(bandSelectors):
        if isinstance(selector, str):
            found = [b for b in input.bands if b.name == selector]
            found = found or [b for b in input.bands if re.fullmatch(selector, b.name)]
            chosen += found or [input.band(selector)]
        elif 0 <= int(selector) < len(input.bands):
            chosen.append(input.bands[int(selector)])
        else:
            raise EarthEngineError(f"Image.select: Band index {selector} is out of range.")
    return image_rename(input.kept(chosen), newNames) if newNames is not None else input.kept(chosen)


@function("Image.rename")
def image_rename(input: Image, names: list[str]) -> Image:
    """API reference: ee.Image.rename: as many names as bands."""
    names = as_list(names)
    if len(names) != len(input.bands):
        raise EarthEngineError(f"Image.rename: Got {len(names)} names for {len(input.bands)} bands.")
    return input.kept([replace(b, name=n) for b, n in zip(input.bands, names, strict=True)])


@function("Image.addBands")
def image_add_bands(dstImg: Image, srcImg: Image, names: Any = None, overwrite: bool = False) -> Image:
    """API reference: ee.Image.addBands: metadata and footprint of the first; a name that is taken gets a suffix."""
    bands = {b.name: b for b in dstImg.bands}
    new = srcImg.bands if names is None else [srcImg.band(n) for n in as_list(names)]
    for band in new:
        name, number = band.name, 0
        while name in bands and not overwrite:
            number += 1
            name = f"{band.name}_{number}"
        bands[name] = replace(band, name=name)
    return dstImg.kept(list(bands.values()))


@function("Image.cat")
def image_cat(images: list[Image]) -> Image:
    """API reference: ee.Image.cat: the bands of all images."""
    out = images[0]
    for image in images[1:]:
        out = image_add_bands(out, image)
    return out


@function("Image.bandNames")
def image_band_names(image: Image) -> list[str]:
    """API reference: ee.Image.bandNames."""
    return image.names


@function("Image.linkCollection")
def image_link(
    input: Image,
    imageCollection: Collection,
    linkedBands: Any = None,
    linkedProperties: Any = None,
    matchPropertyName: str = "system:index",
) -> Image:
    """API reference: ee.Image.linkCollection: bands and properties of the image with the same index.

    Without a match the bands are fully masked and the properties null; the footprint stays.
    """
    key = input.properties.get(matchPropertyName)
    match = next((i for i in imageCollection.elements if i.properties.get(matchPropertyName) == key), None)
    names = [] if linkedBands is None else as_list(linkedBands)
    if match is None:
        like = imageCollection.elements[0] if imageCollection.elements else None
        bands = [_empty(like.band(n) if like else constant(0.5, n)) for n in names]
    else:
        bands = [match.band(n) for n in names]
    out = image_add_bands(input, Image(tuple(bands)), overwrite=True)
    wanted = [] if linkedProperties is None else as_list(linkedProperties)
    return with_properties(out, {n: None if match is None else match.properties.get(n) for n in wanted})


def _empty(band: Band) -> Band:
    """A band without a valid pixel."""
    return replace(band, read=lambda pixels: (np.zeros(pixels.cols.shape), np.zeros(pixels.cols.shape)))


# Arithmetic ------------------------------------------------------------------------------------------------------


def pairs(image1: Image, image2: Image) -> list[tuple[Band, Band, str]]:
    """API reference: ee.Image.add: how bands of two images are matched.

    One band goes with all of the other's; otherwise by name where the names are the same, else in order.
    """
    one, two = image1.bands, image2.bands
    if len(one) == 1 or len(two) == 1:
        count = max(len(one), len(two)) if one and two else 0
        one, two = (b * count if len(b) == 1 else b for b in (one, two))
    elif len(one) != len(two):
        raise EarthEngineError(
            f"Image: If one image has more than 1 band, the other must have 1 or as many. Got {len(one)} and {len(two)}."
        )
    elif set(image1.names) == set(image2.names):
        two = tuple(image2.band(n) for n in image1.names)
    names = image1.names if len(image1.bands) >= len(image2.bands) else image2.names
    return list(zip(one, two, names, strict=True))


def as_integers(operation: Callable) -> Callable:
    """Bit operations."""
    return lambda a, b: operation(a.astype(np.int64), b.astype(np.int64)).astype(float)


def safe_divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """0 where the divisor is 0, as the API reference says of ee.Image.divide."""
    return np.where(b == 0, 0, a / np.where(b == 0, 1, b))


# Name -> (operation, type of the result: of the inputs, boolean, integer, or double).
BINARY: dict[str, tuple[Callable, str]] = {
    "add": (np.add, "union"),
    "subtract": (np.subtract, "union"),
    "multiply": (np.multiply, "union"),
    "divide": (safe_divide, "double"),
    "pow": (np.power, "double"),
    "mod": (np.fmod, "union"),
    "max": (np.maximum, "union"),
    "min": (np.minimum, "union"),
    "lt": (np.less, "boolean"),
    "lte": (np.less_equal, "boolean"),
    "gt": (np.greater, "boolean"),
    "gte": (np.greater_equal, "boolean"),
    "eq": (np.equal, "boolean"),
    "neq": (np.not_equal, "boolean"),
    "and": (lambda a, b: (a != 0) & (b != 0), "boolean"),
    "or": (lambda a, b: (a != 0) | (b != 0), "boolean"),
    "bitwiseAnd": (as_integers(np.bitwise_and), "integer"),
    "bitwiseOr": (as_integers(np.bitwise_or), "integer"),
    "leftShift": (as_integers(np.left_shift), "integer"),
    "rightShift": (as_integers(np.right_shift), "integer"),
}
UNARY: dict[str, tuple[Callable, str]] = {
    "not": (lambda a: a == 0, "boolean"),
    "log10": (np.log10, "double"),
    "log": (np.log, "double"),
    "exp": (np.exp, "double"),
    "sqrt": (np.sqrt, "double"),
    "abs": (np.abs, "union"),
    "floor": (np.floor, "union"),
    "round": (np.round, "union"),
}
CASTS = {
    "Float": "float32",
    "Double": "float64",
    "Byte": "uint8",
    "Uint8": "uint8",
    "Int8": "int8",
    "Int16": "int16",
    "Short": "int16",
    "Uint16": "uint16",
    "Int": "int32",
    "Int32": "int32",
    "Uint32": "uint32",
    "Int64": "int64",
    "Long": "int64",
}


def result_type(rule: str, *bands: Band) -> np.dtype:
    """The pixel type of a result."""
    if rule == "union":
        return np.result_type(*(b.dtype for b in bands))
    return np.dtype({"boolean": "uint8", "integer": "int64", "double": "float64"}[rule])


def binary(operation: Callable, rule: str) -> Callable[..., Image]:
    """API reference: ee.Image.add and its like; masks intersect (guide "Masking"); metadata are not kept."""

    def compute(image1: Image, image2: Image) -> Image:
        bands = [apply(operation, (a, b), n, result_type(rule, a, b)) for a, b, n in pairs(image1, image2)]
        whose = image1 if image1.footprint is not None else image2
        return replace(image1.computed(bands), footprint=whose.footprint)

    return compute


def unary(operation: Callable, rule: str) -> Callable[..., Image]:
    """API reference: ee.Image.log10 and its like; values that are not finite are masked."""

    def compute(value: Image) -> Image:
        return value.computed([apply(operation, (b,), b.name, result_type(rule, b)) for b in value.bands])

    return compute


def cast(kind: str) -> Callable[..., Image]:
    """API reference: ee.Image.toFloat and its like."""
    dtype = np.dtype(kind)
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (-np.inf, np.inf)

    def convert(values: np.ndarray) -> np.ndarray:
        return np.clip(np.trunc(values), low, high) if dtype.kind in "iu" else values.astype(dtype).astype(float)

    def compute(value: Image) -> Image:
        return value.computed([apply(convert, (b,), b.name, dtype) for b in value.bands])

    return compute


FUNCTIONS.update({f"Image.{name}": binary(*how) for name, how in BINARY.items()})
FUNCTIONS.update({f"Image.{name}": unary(*how) for name, how in UNARY.items()})
FUNCTIONS.update({f"Image.to{name}": cast(kind) for name, kind in CASTS.items()})
FUNCTIONS.update({f"Image.{name.lower()}": cast(kind) for name, kind in CASTS.items()})
for _snake in ("bitwise_and", "bitwise_or", "left_shift", "right_shift"):
    FUNCTIONS[f"Image.{_snake}"] = FUNCTIONS["Image." + re.sub("_(.)", lambda m: m[1].upper(), _snake)]


# Masks -----------------------------------------------------------------------------------------------------------


@function("Image.updateMask")
def image_update_mask(image: Image, mask: Image) -> Image:
    """API reference: ee.Image.updateMask: where the mask is 0 or masked the image is masked; metadata stay."""
    if len(mask.bands) not in (1, len(image.bands)):
        raise EarthEngineError(f"Image.updateMask: The mask has {len(mask.bands)} bands, the image {len(image.bands)}.")
    masks = mask.bands * len(image.bands) if len(mask.bands) == 1 else mask.bands

    def masked(band: Band, by: Band) -> Band:
        def read(pixels: Pixels) -> Answer:
            (values, own), (other, there) = band.at(pixels), by.at(pixels)
            return values, np.minimum(own, np.clip(other, 0, 1) * (there > 0))

        return replace(band, read=read)

    return image.kept([masked(b, m) for b, m in zip(image.bands, masks, strict=True)])


@function("Image.selfMask")
def image_self_mask(image: Image) -> Image:
    """API reference: ee.Image.selfMask."""
    return image_update_mask(image, image)


@function("Image.mask")
def image_mask(image: Image, mask: Image | None = None) -> Image:
    """API reference: ee.Image.mask: the image's mask as an image; with a second argument as updateMask."""
    if mask is not None:
        return image_update_mask(image, mask)

    def own_mask(band: Band) -> Band:
        def read(pixels: Pixels) -> Answer:
            _, m = band.at(pixels)
            return m, np.ones(m.shape)

        return replace(band, dtype=np.dtype("float64"), read=read)

    return image.kept([own_mask(b) for b in image.bands])


@function("Image.unmask")
def image_unmask(input: Image, value: Image | None = None, sameFootprint: bool = True) -> Image:
    """API reference: ee.Image.unmask: 0 by default, within the footprint unless sameFootprint is false."""
    other = value.bands if value is not None else (constant(0),)
    if len(other) not in (1, len(input.bands)):
        raise EarthEngineError("Image.unmask: The value must have 1 band or as many as the image.")
    others = other * len(input.bands) if len(other) == 1 else other
    where = input.footprint if sameFootprint else None
    bands = [unmasked(b, o, where) for b, o in zip(input.bands, others, strict=True)]
    if sameFootprint or (value is not None and value.footprint is not None):
        return input.kept(bands)
    return replace(input, bands=tuple(bands), footprint=None)


# Projections -----------------------------------------------------------------------------------------------------


@function("Projection")
def projection_of(crs: Any, transform: list | None = None, transformWkt: str | None = None) -> Projection:
    """API reference: ee.Projection: a transform of 1 unit a pixel where none is given."""
    code = crs.crs if isinstance(crs, Projection) else str(crs)
    return Projection(code, tuple(float(v) for v in transform) if transform else COMPOSITE.transform)


@function("Image.projection")
def image_projection(image: Image) -> Projection:
    """API reference: ee.Image.projection: an error where bands differ."""
    return image.projection


@function("Projection.nominalScale")
def projection_scale(proj: Projection) -> float:
    """API reference: ee.Projection.nominalScale."""
    return proj.nominal_scale


@function("Projection.atScale")
def projection_at_scale(projection: Projection, meters: float) -> Projection:
    """API reference: ee.Projection.atScale."""
    return projection.at_scale(meters)


@function("Projection.crs")
def projection_crs(projection: Projection) -> str:
    """API reference: ee.Projection.crs."""
    return projection.crs


def working_projection(
    default: Projection, crs: Projection | None, crsTransform: list | None, scale: float | None
) -> Projection:
    """API reference: ee.Image.reduceRegions: the transform replaces that of the CRS; a scale rescales it."""
    if crsTransform is not None and scale is not None:
        raise EarthEngineError("Only one of 'crsTransform' and 'scale' may be specified.")
    base = default if crs is None else crs
    if crsTransform is not None:
        return Projection(base.crs, tuple(float(v) for v in crsTransform))
    return base if scale is None else base.at_scale(scale)


@function("Image.setDefaultProjection")
def image_set_projection(
    image: Image, crs: Projection, crsTransform: list | None = None, scale: float | None = None
) -> Image:
    """API reference: ee.Image.setDefaultProjection: what later operations take as the image's own; no pixel changes."""
    target = working_projection(crs, crs, crsTransform, scale)
    return image.kept([replace(b, projection=target) for b in image.bands])


@function("Image.reproject")
def image_reproject(
    image: Image, crs: Projection, crsTransform: list | None = None, scale: float | None = None
) -> Image:
    """API reference: ee.Image.reproject: computed in that projection and resolution."""
    target = working_projection(crs, crs, crsTransform, scale)
    return image.kept([reprojected(b, target) for b in image.bands])


@function("Image.resample")
def image_resample(image: Image, mode: str = "bilinear") -> Image:
    """API reference: ee.Image.resample: bilinear here; bicubic is not built."""
    if mode != "bilinear":
        raise EarthEngineError(f"Image.resample: mode '{mode}' is not available on this server.")
    return image.kept([bilinear(b) for b in image.bands])


@function("Image.reduceResolution")
def image_reduce_resolution(image: Image, reducer: Reducer, bestEffort: bool = False, maxPixels: int = 64) -> Image:
    """API reference: ee.Image.reduceResolution; guide "Resampling and Reducing Resolution"."""
    _needs_one_input(reducer, "Image.reduceResolution")

    def reduce(values: np.ndarray, weights: np.ndarray) -> Answer:
        return reduce_arrays(reducer, values, weights)

    return image.kept([reduced_resolution(b, reduce, int(maxPixels), bestEffort) for b in image.bands])


def _needs_one_input(reducer: Reducer, where: str) -> None:
    if reducer.inputs != 1 or reducer.kind == "toList":
        raise EarthEngineError(f"{where}: Reducer.{reducer.kind} with {reducer.inputs} inputs is not available here.")


# Regions ---------------------------------------------------------------------------------------------------------


@function("Image.reduceRegions")
def image_reduce_regions(
    image: Image,
    collection: Collection,
    reducer: Reducer,
    scale: float | None = None,
    crs: Projection | None = None,
    crsTransform: list | None = None,
    tileScale: float = 1,
    maxPixelsPerRegion: float | None = None,
) -> Collection:
    """API reference: ee.Image.reduceRegions; guide "Statistics of Image Regions"."""
    target = working_projection(_first_projection(image), crs, crsTransform, scale)
    return Collection(tuple(reduce_regions(image, collection.elements, reducer, target)))


@function("Image.reduceRegion")
def image_reduce_region(
    image: Image,
    reducer: Reducer,
    geometry: Any = None,
    scale: float | None = None,
    crs: Projection | None = None,
    crsTransform: list | None = None,
    bestEffort: bool = False,
    maxPixels: float = 1e7,
    tileScale: float = 1,
) -> dict[str, Any]:
    """API reference: ee.Image.reduceRegion: a dictionary by the names of the bands."""
    target = working_projection(_first_projection(image), crs, crsTransform, scale)
    shape = image.geometry if geometry is None else to_geometry(geometry)
    parts = {b.name: reduce_region(image.kept([b]), shape, reducer, target) for b in image.bands}
    return {name: next(iter(value.values())) for name, value in parts.items()}


def _first_projection(image: Image) -> Projection:
    if not image.bands:
        raise EarthEngineError("Image.reduceRegions: The image has no bands.")
    return image.bands[0].projection


# Composites ------------------------------------------------------------------------------------------------------


def homogeneous(collection: Collection, where: str) -> Sequence[Image]:
    """Guide "Reducing an ImageCollection": all images must have the same bands."""
    images = collection.elements
    for image in images:
        if image.names != images[0].names:
            raise EarthEngineError(
                f"{where}: Expected a homogeneous image collection, but an image with incompatible bands was "
                f"encountered: {image.names}, the first has {images[0].names}."
            )
    return images


def composite(collection: Collection, where: str, make: Callable[[list[Band], Band], Band]) -> Image:
    """Guide "Compositing and Mosaicking"; the default projection is EPSG:4326 at 1 degree (guide "Projections")."""
    images = homogeneous(collection, where)
    bands = []
    for i, first in enumerate(images[0].bands if images else ()):
        like = replace(first, projection=COMPOSITE, dtype=np.result_type(*(m.bands[i].dtype for m in images)))
        bands.append(make([m.bands[i] for m in images], like))
    return Image(tuple(bands), {}, union_footprint(images))


@function("ImageCollection.mosaic")
def collection_mosaic(collection: Collection) -> Image:
    """API reference: ee.ImageCollection.mosaic: the last image that has a value is on top."""
    return composite(collection, "ImageCollection.mosaic", lambda b, like: reduce_bands(REDUCERS["last"], b, like))


@function("ImageCollection.qualityMosaic")
def collection_quality_mosaic(collection: Collection, qualityBand: str) -> Image:
    """API reference: ee.ImageCollection.qualityMosaic: all bands of the image with the greatest quality, per pixel."""
    qualities = [i.band(qualityBand) for i in homogeneous(collection, "ImageCollection.qualityMosaic")]

    def best(bands: list[Band], like: Band) -> Band:
        def read(pixels: Pixels) -> Answer:
            quality, there = stacked(qualities, pixels)
            at = np.where(there > 0, quality, -np.inf).argmax(-1)[..., None]
            values, mask = (np.take_along_axis(a, at, -1)[..., 0] for a in stacked(bands, pixels))
            return values, mask * (there > 0).any(-1)

        return replace(like, read=read)

    return composite(collection, "ImageCollection.qualityMosaic", best)


@function("ImageCollection.reduce")
def collection_reduce(collection: Collection, reducer: Reducer, parallelScale: float = 1) -> Image:
    """API reference: ee.ImageCollection.reduce: bands are named band_output."""
    _needs_one_input(reducer, "ImageCollection.reduce")
    out = composite(collection, "ImageCollection.reduce", lambda b, like: reduce_bands(reducer, b, like))
    return out.kept([replace(b, name=f"{b.name}_{reducer.outputs[0]}") for b in out.bands])


def _short_reducer(name: str) -> Callable[..., Image]:
    def reduce(collection: Collection) -> Image:
        """API reference: ee.ImageCollection.mean and its like: the names of the bands stay."""
        return composite(collection, f"reduce.{name}", lambda b, like: reduce_bands(REDUCERS[name], b, like))

    return reduce


FUNCTIONS.update({f"reduce.{name}": _short_reducer(name) for name in ("mean", "min", "max", "sum", "count", "median")})


@function("Image.reduce")
def image_reduce(image: Image, reducer: Reducer) -> Image:
    """API reference: ee.Image.reduce: one band named by the reducer's output, of all the bands."""
    _needs_one_input(reducer, "Image.reduce")
    first = image.bands[0]
    like = replace(first, name=reducer.outputs[0], dtype=np.result_type(*(b.dtype for b in image.bands)))
    return image.computed([reduce_bands(reducer, image.bands, like)])


# Collections -----------------------------------------------------------------------------------------------------


@function("ImageCollection.fromImages")
def collection_from_images(images: list[Image]) -> Collection:
    """API reference: ee.ImageCollection.fromImages."""
    return Collection(tuple(_indexed(i, n) for n, i in enumerate(images)), images=True)


@function("Collection")
def collection_of(features: list) -> Collection:
    """API reference: ee.FeatureCollection: of features, in order, indexed from 0."""
    made = [f if isinstance(f, Feature | Image | Collection) else Feature(to_geometry(f)) for f in features]
    return Collection(tuple(_indexed(f, n) for n, f in enumerate(made)))


def _indexed(element: Any, number: Any) -> Any:
    if isinstance(element, Collection) or "system:index" in element.properties:
        return element
    return with_properties(element, {"system:index": str(number)})


@function("Collection.filter")
def collection_filter(collection: Collection, filter: Callable[..., bool]) -> Collection:
    """API reference: ee.ImageCollection.filter."""
    return replace(collection, elements=tuple(e for e in collection.elements if filter(e)))


@function("Collection.map")
def collection_map(collection: Collection, baseAlgorithm: Callable, dropNulls: bool = False) -> Collection:
    """API reference: ee.ImageCollection.map: a null is an error unless dropped; the index of the input is kept."""
    out = []
    for element in collection.elements:
        result = baseAlgorithm(element)
        if result is None and not dropNulls:
            raise EarthEngineError("Collection.map: A mapped algorithm must return a Feature or Image.")
        if result is not None:
            out.append(
                result if isinstance(result, Collection) else _indexed(result, element.properties.get("system:index"))
            )
    return replace(collection, elements=tuple(out))


@function("Collection.limit")
def collection_limit(
    collection: Collection, limit: int | None = None, key: str | None = None, ascending: bool = True
) -> Collection:
    """API reference: ee.ImageCollection.limit and .sort: sorted by a property (elements without it last), then cut."""
    elements = list(collection.elements)
    if key is not None:
        have = [e for e in elements if property_of(e, key) is not None]
        lack = [e for e in elements if property_of(e, key) is None]
        elements = sorted(have, key=lambda e: property_of(e, key), reverse=not ascending) + lack
    return replace(collection, elements=tuple(elements if limit is None else elements[: int(limit)]))


@function("Collection.first")
def collection_first(collection: Collection) -> Any:
    """API reference: ee.ImageCollection.first: null of an empty one."""
    return collection.elements[0] if collection.elements else None


@function("Collection.size")
def collection_size(collection: Collection) -> int:
    """API reference: ee.ImageCollection.size."""
    return len(collection.elements)


@function("Collection.toList")
def collection_to_list(collection: Collection, count: int, offset: int = 0) -> list:
    """API reference: ee.ImageCollection.toList."""
    return list(collection.elements[int(offset) : int(offset) + int(count)])


@function("Collection.merge", "ImageCollection.merge")
def collection_merge(collection1: Collection, collection2: Collection) -> Collection:
    """API reference: ee.ImageCollection.merge: indices get the prefixes 1_ and 2_."""
    both = ((1, collection1), (2, collection2))
    return replace(
        collection1,
        elements=tuple(
            with_properties(e, {"system:index": f"{n}_{e.properties.get('system:index')}"})
            for n, c in both
            for e in c.elements
        ),
    )


@function("Collection.flatten")
def collection_flatten(collection: Collection) -> Collection:
    """API reference: ee.FeatureCollection.flatten: the elements of the collections, in order."""
    out: list = []
    for inner in collection.elements:
        if not isinstance(inner, Collection):
            raise EarthEngineError("Collection.flatten: The input is not a collection of collections.")
        out += inner.elements
    return Collection(tuple(out))


@function("Collection.geometry")
def collection_geometry(collection: Collection, maxError: Any = None) -> Any:
    """API reference: ee.FeatureCollection.geometry: merged."""
    return to_geometry(collection)


@function("AggregateFeatureCollection.array")
def aggregate_array(collection: Collection, property: str) -> list:
    """API reference: ee.FeatureCollection.aggregate_array: in order; elements without the property are left out."""
    return [v for e in collection.elements if (v := property_of(e, property)) is not None]


@function("AggregateFeatureCollection.count")
def aggregate_count(collection: Collection, property: str) -> int:
    """API reference: ee.FeatureCollection.aggregate_count: of those that are not null."""
    return len(aggregate_array(collection, property))


@function("AggregateFeatureCollection.min")
def aggregate_min(collection: Collection, property: str) -> Any:
    """API reference: ee.FeatureCollection.aggregate_min."""
    return min(aggregate_array(collection, property), default=None)


@function("AggregateFeatureCollection.max")
def aggregate_max(collection: Collection, property: str) -> Any:
    """API reference: ee.FeatureCollection.aggregate_max."""
    return max(aggregate_array(collection, property), default=None)


@function("Collection.reduceColumns")
def collection_reduce_columns(
    collection: Collection, reducer: Reducer, selectors: list[str], weightSelectors: list[str] | None = None
) -> dict[str, Any]:
    """API reference: ee.FeatureCollection.reduceColumns: a selector for each input of the reducer."""
    selectors = as_list(selectors)
    wanted = reducer.inputs if reducer.repeat is None else reducer.repeat
    if len(selectors) != wanted:
        raise EarthEngineError(
            f"Collection.reduceColumns: Need {wanted} selectors for the reducer; got {len(selectors)}."
        )
    return reduce_columns(reducer, [[property_of(e, s) for s in selectors] for e in collection.elements])


# Reducers --------------------------------------------------------------------------------------------------------


def _reducer(kept: Reducer) -> Callable[[], Reducer]:
    def make() -> Reducer:
        """API reference: ee.Reducer."""
        return kept

    return make


FUNCTIONS.update({f"Reducer.{name}": _reducer(kept) for name, kept in REDUCERS.items()})


@function("Reducer.unweighted")
def reducer_unweighted(reducer: Reducer) -> Reducer:
    """API reference: ee.Reducer.unweighted."""
    return replace(reducer, weighted=False)


@function("Reducer.setOutputs")
def reducer_outputs(reducer: Reducer, outputs: list[str]) -> Reducer:
    """API reference: ee.Reducer.setOutputs."""
    return replace(reducer, outputs=tuple(outputs))


@function("Reducer.repeat")
def reducer_repeat(reducer: Reducer, count: int) -> Reducer:
    """API reference: ee.Reducer.repeat: copies of the reducer, each output a list."""
    return replace(reducer, repeat=int(count), inputs=reducer.inputs * int(count))


@function("Reducer.toList")
def reducer_to_list(tupleSize: int | None = None, numOptional: int = 0) -> Reducer:
    """API reference: ee.Reducer.toList: tuples with a null among those that are not optional are dropped."""
    size = 1 if tupleSize is None else int(tupleSize)
    return Reducer("toList", ("list",), inputs=size, optional=int(numOptional), tuples=tupleSize is not None)


# Elements and geometries -----------------------------------------------------------------------------------------


@function("Feature")
def feature_of(geometry: Any = None, metadata: dict | None = None, geometryKey: str | None = None) -> Feature:
    """API reference: ee.Feature."""
    return Feature(to_geometry(geometry), {k: v for k, v in (metadata or {}).items() if v is not None})


@function("Element.get")
def element_get(object: Any, property: str) -> Any:
    """API reference: ee.Element.get."""
    return property_of(object, property)


@function("Element.getNumber", "Element.getString")
def element_get_typed(object: Any, property: str) -> Any:
    """API reference: ee.Element.getNumber."""
    return property_of(object, property)


@function("Element.set")
def element_set(object: Any, key: str, value: Any = None) -> Any:
    """API reference: ee.Element.set."""
    return with_properties(object, {key: value})


@function("Element.setMulti")
def element_set_multi(object: Any, properties: dict) -> Any:
    """API reference: ee.Element.set, of a dictionary."""
    return with_properties(object, properties)


@function("Element.copyProperties", "Image.copyProperties")
def element_copy(destination: Any = None, source: Any = None, properties: Any = None, exclude: Any = None) -> Any:
    """API reference: ee.Element.copyProperties."""
    lists = [None if v is None else as_list(v) for v in (properties, exclude)]
    return copied_properties(destination, source, *lists)


@function("Element.toDictionary")
def element_to_dictionary(element: Any, properties: list | None = None) -> dict:
    """API reference: ee.Element.toDictionary: all ordinary properties where none are named."""
    names = [n for n in element.properties if not n.startswith("system:")] if properties is None else properties
    return {n: element.properties.get(n) for n in names}


@function("Element.geometry", "Feature.geometry", "Image.geometry")
def element_geometry(feature: Any, maxError: Any = None, proj: Any = None, geodesics: Any = None) -> Any:
    """API reference: ee.Feature.geometry."""
    return to_geometry(feature)


@function("Feature.select")
def feature_select(
    input: Any, propertySelectors: list[str], newProperties: list[str] | None = None, retainGeometry: bool = True
) -> Feature:
    """API reference: ee.Feature.select: these properties, optionally renamed; the index stays."""
    names = newProperties or propertySelectors
    kept = {
        new: input.properties[old] for old, new in zip(propertySelectors, names, strict=True) if old in input.properties
    }
    index = {k: v for k, v in input.properties.items() if k == "system:index"}
    return Feature(input.geometry if retainGeometry else None, {**index, **kept})


@function("GeometryConstructors.Point")
def geometry_point(coordinates: list, crs: Projection | None = None, geodesic: Any = None) -> Any:
    """API reference: ee.Geometry.Point."""
    return to_degrees(shapely.Point(coordinates), crs)


@function("GeometryConstructors.MultiPoint")
def geometry_multi_point(coordinates: list, crs: Projection | None = None) -> Any:
    """API reference: ee.Geometry.MultiPoint."""
    return to_degrees(shapely.MultiPoint(coordinates), crs)


@function("GeometryConstructors.Polygon")
def geometry_polygon(
    coordinates: list, crs: Projection | None = None, geodesic: Any = None, maxError: Any = None, evenOdd: bool = True
) -> Any:
    """API reference: ee.Geometry.Polygon (edges are straight in degrees here, whatever `geodesic` says)."""
    rings = [coordinates] if isinstance(coordinates[0][0], int | float) else coordinates
    return to_degrees(shapely.Polygon(rings[0], rings[1:]), crs)


@function("GeometryConstructors.Rectangle")
def geometry_rectangle(
    coordinates: list, crs: Projection | None = None, geodesic: Any = None, evenOdd: bool = True
) -> Any:
    """API reference: ee.Geometry.Rectangle: two corners, or a ring."""
    points = np.array(coordinates, float).reshape(-1, 2)
    return to_degrees(shapely.box(*points.min(0), *points.max(0)), crs)


@function("GeometryConstructors.BBox")
def geometry_bbox(west: float, south: float, east: float, north: float) -> Any:
    """API reference: ee.Geometry.BBox."""
    return shapely.box(west, south, east, north)


@function("Geometry.buffer")
def geometry_buffer(geometry: Any, distance: float, maxError: Any = None, proj: Projection | None = None) -> Any:
    """API reference: ee.Geometry.buffer."""
    return buffered(to_geometry(geometry), distance, proj)  # type: ignore[arg-type]


@function("Feature.buffer")
def feature_buffer(feature: Any, distance: float, maxError: Any = None, proj: Projection | None = None) -> Feature:
    """API reference: ee.Feature.buffer: the properties stay."""
    return Feature(buffered(feature.geometry, distance, proj), feature.properties)


@function("Geometry.bounds")
def geometry_bounds(geometry: Any, maxError: Any = None, proj: Any = None) -> Any:
    """API reference: ee.Geometry.bounds."""
    return to_geometry(geometry).envelope  # type: ignore[union-attr]


@function("ErrorMargin")
def error_margin(value: float | None = None, unit: str = "meters") -> float | None:
    """API reference: ee.ErrorMargin: ignored, reprojection of points is exact here."""
    return value


# Filters ---------------------------------------------------------------------------------------------------------

FUNCTIONS.update({f"Filter.{name}": make for name, make in FILTERS.items()})


@function("Filter.and")
def filter_and(filters: list) -> Callable[..., bool]:
    """API reference: ee.Filter.and."""
    return lambda left, right=None: all(f(left, right) for f in filters)


@function("Filter.or")
def filter_or(filters: list) -> Callable[..., bool]:
    """API reference: ee.Filter.or."""
    return lambda left, right=None: any(f(left, right) for f in filters)


@function("Filter.not")
def filter_not(filter: Callable[..., bool]) -> Callable[..., bool]:
    """API reference: ee.Filter.not."""
    return lambda left, right=None: not filter(left, right)


@function("Filter.notNull")
def filter_not_null(properties: list[str]) -> Callable[..., bool]:
    """API reference: ee.Filter.notNull."""
    return lambda left, right=None: all(property_of(left, p) is not None for p in properties)


# Dates -----------------------------------------------------------------------------------------------------------


@function("Date")
def date_of(value: Any, timeZone: str | None = None) -> Date:
    """API reference: ee.Date, UTC."""
    return to_date(value)


@function("Date.millis")
def date_millis(date: Date) -> int:
    """API reference: ee.Date.millis."""
    return date.ms


@function("Date.advance")
def date_advance(date: Date, delta: float, unit: str, timeZone: str | None = None) -> Date:
    """API reference: ee.Date.advance."""
    return advanced(date, delta, unit)


@function("Date.difference")
def date_difference(date: Date, start: Date, unit: str) -> float:
    """API reference: ee.Date.difference: date minus start."""
    return (date.ms - start.ms) / UNITS[unit.lower().removesuffix("s")]


@function("Image.date")
def image_date(image: Image) -> Date:
    """API reference: ee.Image.date: of its system:time_start."""
    return to_date(image.properties.get("system:time_start"))


@function("DateRange")
def date_range(start: Any, end: Any = None, timeZone: str | None = None) -> Any:
    """API reference: ee.DateRange."""
    return to_range(start, end)


# Lists, dictionaries, numbers ------------------------------------------------------------------------------------


@function("If")
def if_else(condition: Any = None, trueCase: Any = None, falseCase: Any = None) -> Any:
    """API reference: ee.Algorithms.If: null, 0, an empty string and False are false."""
    return trueCase if condition is not None and condition not in (0, "", False) else falseCase


@function("List.map")
def list_map(list: list, baseAlgorithm: Callable, dropNulls: bool = False) -> list:
    """API reference: ee.List.map."""
    out = [baseAlgorithm(v) for v in list]
    return [v for v in out if v is not None] if dropNulls else out


@function("List.get")
def list_get(list: list, index: int) -> Any:
    """API reference: ee.List.get: negative indices count from the end."""
    if not -len(list) <= int(index) < len(list):
        raise EarthEngineError(f"List.get: List index must be between 0 and {len(list) - 1}, or -{len(list)} and -1.")
    return list[int(index)]


@function("List.size", "List.length")
def list_size(list: list) -> int:
    """API reference: ee.List.size."""
    return len(list)


@function("List.contains")
def list_contains(list: list, element: Any) -> bool:
    """API reference: ee.List.contains."""
    return element in list


@function("List.cat")
def list_cat(list: list, other: list) -> list:
    """API reference: ee.List.cat."""
    return [*list, *other]


@function("List.add")
def list_add(list: list, element: Any) -> list:
    """API reference: ee.List.add."""
    return [*list, element]


@function("List.zip")
def list_zip(list: list, other: list) -> list:
    """API reference: ee.List.zip."""
    return [[a, b] for a, b in zip(list, other, strict=False)]


@function("List.flatten")
def list_flatten(list: list) -> list:
    """API reference: ee.List.flatten."""
    out = []
    for value in list:
        out += list_flatten(value) if isinstance(value, type(list)) else [value]
    return out


@function("List.sequence")
def list_sequence(start: float, end: float | None = None, step: float = 1, count: int | None = None) -> list:
    """API reference: ee.List.sequence: the end is inclusive."""
    if count is not None:
        return (
            np.linspace(start, end, int(count)).tolist()
            if end is not None
            else [start + step * i for i in range(int(count))]
        )
    return (start + step * np.arange(int(np.floor((end - start) / step + 1e-9)) + 1)).tolist()  # type: ignore[operator]


@function("List.distinct")
def list_distinct(list: list) -> list:
    """API reference: ee.List.distinct."""
    return [v for i, v in enumerate(list) if v not in list[:i]]


@function("List.reduce")
def list_reduce(list: list, reducer: Reducer) -> Any:
    """API reference: ee.List.reduce: the value itself where the reducer has one output."""
    return reduce_columns(reducer, [[v] for v in list])[reducer.outputs[0]]


@function("Dictionary")
def dictionary_of(input: Any = None) -> dict:
    """API reference: ee.Dictionary."""
    return dict(input or {})


@function("Dictionary.get")
def dictionary_get(dictionary: dict, key: str, defaultValue: Any = None) -> Any:
    """API reference: ee.Dictionary.get: an error where the key is absent and no default is given."""
    if key not in dictionary and defaultValue is None:
        raise EarthEngineError(f"Dictionary.get: Dictionary does not contain key: '{key}'.")
    return dictionary.get(key, defaultValue)


@function("Dictionary.set")
def dictionary_set(dictionary: dict, key: str, value: Any) -> dict:
    """API reference: ee.Dictionary.set."""
    return {**dictionary, key: value}


@function("Dictionary.combine")
def dictionary_combine(first: dict, second: dict, overwrite: bool = True) -> dict:
    """API reference: ee.Dictionary.combine."""
    return {**first, **second} if overwrite else {**second, **first}


NUMBERS: dict[str, Callable[[float, float], Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "eq": lambda a, b: int(a == b),
    "gt": lambda a, b: int(a > b),
    "gte": lambda a, b: int(a >= b),
    "lt": lambda a, b: int(a < b),
    "lte": lambda a, b: int(a <= b),
}


def _number(operation: Callable[[float, float], Any]) -> Callable[..., Any]:
    def compute(left: float, right: float) -> Any:
        """API reference: ee.Number."""
        return operation(left, right)

    return compute


FUNCTIONS.update({f"Number.{name}": _number(operation) for name, operation in NUMBERS.items()})
