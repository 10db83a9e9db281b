"""Functions of expressions: projections, regions, and composites of collections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .errors import EarthEngineError
from .grids import COMPOSITE, Pixels, Projection
from .images import (
    KERNELS,
    Answer,
    Band,
    Image,
    interpolated,
    reduced_resolution,
    reprojected,
    stacked,
    union_footprint,
)
from .reducers import REDUCERS, Reducer, reduce_arrays, reduce_bands, reduce_region, reduce_regions
from .registry import FUNCTIONS, function
from .values import Collection, to_geometry


def needs_one_input(reducer: Reducer, where: str) -> None:
    if reducer.inputs != 1 or reducer.kind == "toList":
        raise EarthEngineError(f"{where}: Reducer.{reducer.kind} with {reducer.inputs} inputs is not available here.")


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
    """API reference: ee.Image.resample."""
    if mode not in KERNELS:
        raise EarthEngineError(f"Image.resample: Unknown mode '{mode}'; one of {', '.join(KERNELS)}.")
    return image.kept([interpolated(b, mode) for b in image.bands])


@function("Image.reduceResolution")
def image_reduce_resolution(image: Image, reducer: Reducer, bestEffort: bool = False, maxPixels: int = 64) -> Image:
    """API reference: ee.Image.reduceResolution; guide "Resampling and Reducing Resolution"."""
    needs_one_input(reducer, "Image.reduceResolution")

    def reduce(values: np.ndarray, weights: np.ndarray) -> Answer:
        return reduce_arrays(reducer, values, weights)

    return image.kept([reduced_resolution(b, reduce, int(maxPixels), bestEffort) for b in image.bands])


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
    needs_one_input(reducer, "ImageCollection.reduce")
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
    needs_one_input(reducer, "Image.reduce")
    first = image.bands[0]
    like = replace(first, name=reducer.outputs[0], dtype=np.result_type(*(b.dtype for b in image.bands)))
    return image.computed([reduce_bands(reducer, image.bands, like)])
