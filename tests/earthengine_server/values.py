"""Values that are no images: features, collections, dates, filters, geometries."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
from pyproj import Geod
from shapely.geometry.base import BaseGeometry

from .errors import EarthEngineError
from .grids import LONLAT, Projection, convert
from .images import Image

GEOD = Geod(ellps="WGS84")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, eq=False)
class Feature:
    """A geometry (degrees) with properties."""

    geometry: BaseGeometry | None
    properties: dict[str, Any] = field(default_factory=dict)


Element = Feature | Image


@dataclass(frozen=True, eq=False)
class Collection:
    """Elements in order; what `ImageCollection` and `FeatureCollection` are here."""

    elements: tuple[Any, ...]
    images: bool = False


@dataclass(frozen=True)
class Date:
    """Milliseconds since 1970, UTC."""

    ms: int


@dataclass(frozen=True)
class DateRange:
    """Milliseconds [start, end)."""

    start: float
    end: float


Filter = Callable[..., bool]


# Elements --------------------------------------------------------------------------------------------------------


def property_of(element: Any, name: str) -> Any:
    """API reference: ee.Element.get: a property, null where there is none; `.all` and `.geo` are the geometry."""
    if isinstance(element, dict):
        return element.get(name)
    if name in (".all", ".geo"):
        return element.geometry
    if not isinstance(element, Feature | Image):
        raise EarthEngineError(
            f"Element.get: Parameter 'object' is required to be an Element; got {type(element).__name__}."
        )
    return element.properties.get(name)


def with_properties(element: Any, new: dict[str, Any]) -> Any:
    """API reference: ee.Element.set: a null removes the property."""
    if not isinstance(element, Feature | Image):
        raise EarthEngineError(
            f"Element.set: Parameter 'object' is required to be an Element; got {type(element).__name__}."
        )
    properties = {**element.properties, **new}
    return replace(element, properties={k: v for k, v in properties.items() if v is not None})


def copied_properties(destination: Any, source: Any, properties: list | None, exclude: list | None) -> Any:
    """API reference: ee.Element.copyProperties: the ordinary (non-system) ones where no list is given."""
    if properties is not None and exclude is not None:
        raise EarthEngineError("Element.copyProperties: Only one of 'properties' and 'exclude' may be given.")
    names = properties
    if names is None:
        names = [n for n in source.properties if not n.startswith("system:") and n not in (exclude or ())]
    return with_properties(destination, {n: source.properties.get(n) for n in names})


# Dates -----------------------------------------------------------------------------------------------------------


def to_date(value: Any) -> Date:
    """API reference: ee.Date: milliseconds, an ISO string in UTC, or a Date."""
    if isinstance(value, Date):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Date(round(value))
    if isinstance(value, str):
        try:
            parsed = dt.datetime.fromisoformat(value)
        except ValueError as error:
            raise EarthEngineError(f"Date: Bad date/time '{value}'.") from error
        return Date(round((parsed.replace(tzinfo=parsed.tzinfo or dt.UTC) - EPOCH).total_seconds() * 1000))
    raise EarthEngineError(f"Date: Parameter 'value' is required and may not be {value!r}.")


UNITS = {"second": 1000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 7 * 86_400_000}


def advanced(date: Date, delta: float, unit: str) -> Date:
    """API reference: ee.Date.advance (seconds to weeks; months and years of the calendar in whole numbers)."""
    unit = unit.lower().removesuffix("s")
    if unit in UNITS:
        return Date(round(date.ms + delta * UNITS[unit]))
    if unit in ("month", "year") and float(delta).is_integer():
        at = EPOCH + dt.timedelta(milliseconds=date.ms)
        month = at.month - 1 + int(delta) * (12 if unit == "year" else 1)
        at = at.replace(year=at.year + month // 12, month=month % 12 + 1)
        return Date(round((at - EPOCH).total_seconds() * 1000))
    raise EarthEngineError(f"Date.advance: Unit '{unit}' is not recognized.")


def to_range(start: Any, end: Any) -> DateRange:
    """API reference: ee.DateRange: start inclusive, end exclusive, one millisecond where no end is given."""
    first = to_date(start).ms
    last = first + 1 if end is None else to_date(end).ms
    if last < first:
        raise EarthEngineError(f"DateRange: The end date ({last}) must be after the start date ({first}).")
    return DateRange(first, last)


# Geometries ------------------------------------------------------------------------------------------------------


def to_degrees(geometry: BaseGeometry, crs: Projection | None) -> BaseGeometry:
    """Coordinates of a projection to degrees."""
    if crs is None or crs.crs == LONLAT:
        return geometry
    return shapely.transform(
        geometry, lambda p: np.column_stack(convert(Projection(crs.crs), Projection(LONLAT), *p.T))
    )


def to_geometry(value: Any) -> BaseGeometry | None:
    """The geometry of a geometry, a feature, an image or a collection."""
    if value is None or isinstance(value, BaseGeometry):
        return value
    if isinstance(value, Collection):
        shapes = [g for e in value.elements if (g := to_geometry(e)) is not None]
        return shapely.union_all(shapes) if shapes else shapely.Point()
    if isinstance(value, Feature | Image):
        return value.geometry
    raise EarthEngineError(f"Geometry: cannot be made of {type(value).__name__}.")


def buffered(geometry: BaseGeometry, distance: float, projection: Projection | None, sides: int = 64) -> BaseGeometry:
    """API reference: ee.Geometry.buffer: metres on the globe, or units of a projection.

    A point's buffer is a polygon of `sides` corners on the circle (Earth Engine's own default error is 1 %).
    """
    if projection is not None:
        there = convert_geometry(geometry, Projection(LONLAT), Projection(projection.crs))
        return convert_geometry(there.buffer(distance), Projection(projection.crs), Projection(LONLAT))
    if isinstance(geometry, shapely.Point):
        angles = np.arange(sides) * 360 / sides
        lon, lat, _ = GEOD.fwd(np.full(sides, geometry.x), np.full(sides, geometry.y), angles, np.full(sides, distance))
        return shapely.Polygon(np.column_stack([lon, lat]))
    x, y = geometry.centroid.x, geometry.centroid.y
    local = Projection(f"+proj=aeqd +lat_0={y} +lon_0={x} +datum=WGS84 +units=m")
    return convert_geometry(
        convert_geometry(geometry, Projection(LONLAT), local).buffer(distance), local, Projection(LONLAT)
    )


def convert_geometry(geometry: BaseGeometry, source: Projection, target: Projection) -> BaseGeometry:
    """Coordinates of one projection's pixel space to those of another."""
    return shapely.transform(geometry, lambda p: np.column_stack(convert(source, target, *p.T)))


# Filters ---------------------------------------------------------------------------------------------------------


def comparison(test: Callable[[Any, Any], bool]) -> Callable[..., Filter]:
    """API reference: ee.Filter: a unary filter (field against value) or a binary one (field against field).

    An element that lacks the field does not pass.
    """

    def make(
        leftField: str | None = None,
        rightValue: Any = None,
        rightField: str | None = None,
        leftValue: Any = None,
        maxError: Any = None,
    ) -> Filter:
        def passes(left: Any, right: Any = None) -> bool:
            other = left if right is None else right
            a = leftValue if leftField is None else property_of(left, leftField)
            b = rightValue if rightField is None else property_of(other, rightField)
            return a is not None and b is not None and test(a, b)

        return passes

    return make


def in_range(span: DateRange, date: Any) -> bool:
    """API reference: ee.Filter.date: start inclusive, end exclusive."""
    return span.start <= to_date(date).ms < span.end


def equal(a: Any, b: Any) -> bool:
    """Of numbers and strings; a string never equals a number."""
    return type(a) is type(b) and a == b if isinstance(a, str) or isinstance(b, str) else a == b


FILTERS: dict[str, Callable[..., Filter]] = {
    "equals": comparison(equal),
    "notEquals": comparison(lambda a, b: not equal(a, b)),
    "lessThan": comparison(lambda a, b: a < b),
    "lessThanOrEquals": comparison(lambda a, b: a <= b),
    "greaterThan": comparison(lambda a, b: a > b),
    "greaterThanOrEquals": comparison(lambda a, b: a >= b),
    "listContains": comparison(lambda a, b: any(equal(v, b) for v in a)),
    "inList": comparison(lambda a, b: any(equal(a, v) for v in b)),
    "dateRangeContains": comparison(in_range),
    "stringContains": comparison(lambda a, b: b in a),
    "stringStartsWith": comparison(lambda a, b: a.startswith(b)),
    "stringEndsWith": comparison(lambda a, b: a.endswith(b)),
    "intersects": comparison(lambda a, b: bool(to_geometry(a).intersects(to_geometry(b)))),  # type: ignore[union-attr]
}
SHORT = {"eq": "equals", "neq": "notEquals", "lt": "lessThan", "lte": "lessThanOrEquals", "gt": "greaterThan"}
FILTERS |= {short: FILTERS[name] for short, name in SHORT.items()} | {"gte": FILTERS["greaterThanOrEquals"]}
