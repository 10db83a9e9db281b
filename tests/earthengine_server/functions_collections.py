"""Functions of expressions: collections, reducers, elements, geometries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import shapely

from .errors import EarthEngineError
from .grids import Projection
from .images import (
    Image,
)
from .reducers import REDUCERS, Reducer, reduce_columns
from .registry import FUNCTIONS, as_list, function
from .values import (
    Collection,
    Feature,
    buffered,
    copied_properties,
    property_of,
    to_degrees,
    to_geometry,
    with_properties,
)

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
