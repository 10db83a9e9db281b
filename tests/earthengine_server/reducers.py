"""Reducers, and what they are applied to: columns of tables, stacks of images, regions of images.

Semantics: Earth Engine guides "Reducer Overview" (/guides/reducers_intro), "Weighted Reductions"
(/guides/reducers_weighting) and "Statistics of Image Regions" (/guides/reducers_reduce_regions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from .errors import EarthEngineError
from .grids import LONLAT, Pixels, Projection
from .images import Answer, Band, Image, stacked
from .values import Feature, convert_geometry

# Guide "Weighted Reductions": weights of pixels in a region are kept as 8-bit integers; below 1 of 255 a pixel is out.
WEIGHTS = 255


@dataclass(frozen=True)
class Reducer:
    """A reducer by its name.

    `inputs` columns, `optional` of them at the end may be null; `weighted` inputs; `outputs` names; `repeat` copies.
    """

    kind: str
    outputs: tuple[str, ...]
    weighted: bool = False
    inputs: int = 1
    optional: int = 0
    tuples: bool = False
    repeat: int | None = None


REDUCERS = {
    "first": Reducer("first", ("first",)),
    "firstNonNull": Reducer("first", ("first",)),
    "last": Reducer("last", ("last",)),
    "mean": Reducer("mean", ("mean",), weighted=True),
    "sum": Reducer("sum", ("sum",), weighted=True),
    "min": Reducer("min", ("min",)),
    "max": Reducer("max", ("max",)),
    "count": Reducer("count", ("count",)),
    "median": Reducer("median", ("median",)),
}


def reduce_arrays(reducer: Reducer, values: np.ndarray, weights: np.ndarray) -> Answer:
    """Along the last axis; what has no weight is not there. Values and masks."""
    there = weights > 0
    any_there = np.asarray(there.any(-1))
    if not reducer.weighted:
        weights = there.astype(float)
    if reducer.kind in ("first", "last"):
        at = there.argmax(-1) if reducer.kind == "first" else there.shape[-1] - 1 - there[..., ::-1].argmax(-1)
        out = np.take_along_axis(values, at[..., None], -1)[..., 0]
    elif reducer.kind == "mean":
        total = weights.sum(-1)
        out = (weights * np.where(there, values, 0)).sum(-1) / np.where(any_there, total, 1)
    elif reducer.kind == "sum":
        out = (weights * np.where(there, values, 0)).sum(-1)
    elif reducer.kind == "count":
        return there.sum(-1).astype(float), np.ones(any_there.shape)
    elif reducer.kind in ("min", "max"):
        out = np.where(there, values, np.inf if reducer.kind == "min" else -np.inf)
        out = out.min(-1) if reducer.kind == "min" else out.max(-1)
    elif reducer.kind == "median":
        filled = np.where(there, values, np.nan)
        out = np.nanmedian(np.where(any_there[..., None], filled, 0), -1)
    else:
        raise EarthEngineError(f"Reducer.{reducer.kind} cannot be applied to pixels.")
    return np.where(any_there, out, 0), any_there.astype(float)


# Tables ----------------------------------------------------------------------------------------------------------


def reduce_columns(reducer: Reducer, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """API reference: ee.FeatureCollection.reduceColumns: output name -> value.

    `toList`: rows with a null among the inputs that are not optional are dropped.
    """
    if reducer.repeat is not None:
        single = replace(reducer, repeat=None)
        columns = [reduce_columns(single, [[r[i]] for r in rows]) for i in range(reducer.repeat)]
        return {name: [c[name] for c in columns] for name in reducer.outputs}
    if reducer.kind == "toList":
        needed = reducer.inputs - reducer.optional
        kept = [list(r) for r in rows if all(v is not None for v in r[:needed])]
        return {reducer.outputs[0]: kept if reducer.tuples else [r[0] for r in kept]}
    values = [r[0] for r in rows if r[0] is not None]
    if reducer.kind in ("first", "last"):
        return {reducer.outputs[0]: (values[0] if reducer.kind == "first" else values[-1]) if values else None}
    if not values:
        return {reducer.outputs[0]: 0 if reducer.kind == "count" else None}
    out, _ = reduce_arrays(reducer, np.asarray(values, float), np.ones(len(values)))
    return {reducer.outputs[0]: float(out)}


# Stacks of images ------------------------------------------------------------------------------------------------


def reduce_bands(reducer: Reducer, bands: Sequence[Band], like: Band) -> Band:
    """One band of all these, pixel by pixel, weighted by their masks."""

    def read(pixels: Pixels) -> Answer:
        return reduce_arrays(reducer, *stacked(bands, pixels))

    kind = like.dtype if reducer.kind in ("first", "last", "min", "max") else np.dtype("float64")
    return replace(like, dtype=kind, read=read)


# Regions ---------------------------------------------------------------------------------------------------------


def reduce_region(image: Image, geometry: BaseGeometry, reducer: Reducer, projection: Projection) -> dict[str, Any]:
    """Output name -> value, null where no pixel takes part.

    Guide "Weighted Reductions": an unweighted reducer takes the pixels whose centre is in the region; a weighted one
    those with about 0.4 % of their area in it, weighted by mask times that share. A point takes the pixel it lies in.
    """
    pixels, share = region_pixels(geometry, projection, reducer.weighted)
    out = {}
    for name, band in zip(output_names(image, reducer), image.bands, strict=True):
        values, mask = band.at(pixels)
        value, there = reduce_arrays(reducer, values, mask * share)
        out[name] = float(value) if there > 0 else None
    return out


def output_names(image: Image, reducer: Reducer) -> list[str]:
    """Guide "Statistics of Image Regions": the reducer's output for one band, the names of the bands for several."""
    if reducer.inputs != 1 or len(reducer.outputs) != 1:
        raise EarthEngineError("Image.reduceRegions: Need 1 input and 1 output here; use a reducer for one band.")
    return list(reducer.outputs) if len(image.bands) == 1 else image.names


def region_pixels(geometry: BaseGeometry, projection: Projection, weighted: bool) -> tuple[Pixels, np.ndarray]:
    """Pixels of a region in raster order, and the share of each that lies in it (1 where the reducer is unweighted)."""
    shape = convert_geometry(geometry, Projection(LONLAT), projection)
    if isinstance(shape, shapely.Point | shapely.MultiPoint):
        points = np.unique(np.floor(shapely.get_coordinates(shape)).astype(np.int64), axis=0)
        return Pixels(projection, points[:, 0], points[:, 1]), np.ones(len(points))
    left, top, right, bottom = shape.bounds
    rows, cols = np.mgrid[int(np.floor(top)) : int(np.ceil(bottom)), int(np.floor(left)) : int(np.ceil(right))]
    rows, cols = rows.ravel(), cols.ravel()
    if weighted:
        share = shapely.area(shapely.intersection(shapely.box(cols, rows, cols + 1, rows + 1), shape))
        share = np.floor(share * WEIGHTS + 1e-6) / WEIGHTS
        kept = share > 0
    else:
        kept = shapely.contains_xy(shape, cols + 0.5, rows + 0.5)
        share = np.ones(kept.shape)
    return Pixels(projection, cols[kept], rows[kept]), share[kept]


def reduce_regions(
    image: Image, features: Sequence[Feature], reducer: Reducer, projection: Projection
) -> list[Feature]:
    """API reference: ee.Image.reduceRegions: the features, each with the reducer's outputs."""
    points = [isinstance(f.geometry, shapely.Point) for f in features]
    if features and all(points) and reducer.kind != "count":
        return _at_points(image, features, reducer, projection)
    done = []
    for feature in features:
        values = reduce_region(image, feature.geometry, reducer, projection)  # type: ignore[arg-type]
        done.append(_augmented(feature, values))
    return done


def _at_points(image: Image, features: Sequence[Feature], reducer: Reducer, projection: Projection) -> list[Feature]:
    """All points at once: each takes the pixel it lies in, so every reducer gives that pixel's value."""
    lon, lat = np.array([[f.geometry.x, f.geometry.y] for f in features]).T  # type: ignore[union-attr]
    col, row = projection.from_lonlat(lon, lat)
    pixels = Pixels(projection, np.floor(col).astype(np.int64), np.floor(row).astype(np.int64))
    names = output_names(image, reducer)
    answers = [b.at(pixels) for b in image.bands]
    return [
        _augmented(f, {n: float(v[i]) if m[i] > 0 else None for n, (v, m) in zip(names, answers, strict=True)})
        for i, f in enumerate(features)
    ]


def _augmented(feature: Feature, values: dict[str, Any]) -> Feature:
    properties = {**feature.properties, **values}
    return Feature(feature.geometry, {k: v for k, v in properties.items() if v is not None})
