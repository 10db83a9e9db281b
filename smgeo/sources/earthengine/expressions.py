"""Expressions of Earth Engine's client, built from products, days and places by pure functions.

Algorithms used (and no others): ImageCollection.load, ImageCollection.fromImages, Image.load, Collection.filter with
Filter.eq, listContains, dateRangeContains (DateRange) and intersects, Collection.map, limit (also for sorting), first, size,
flatten, reduceColumns, AggregateFeatureCollection.array; Image.select, rename, addBands, updateMask, unmask, toFloat, constant, gte,
lt, eq, bitwiseAnd, rightShift, multiply, exp, log10, resample, reduceResolution, setDefaultProjection, projection, geometry,
linkCollection, reduceRegions; reduce.mean, reduce.count, ImageCollection.mosaic, qualityMosaic; Reducer.first, mean, unweighted, setOutputs,
firstNonNull, toList; Feature, Collection, Geometry.buffer, GeometryConstructors.Point, MultiPoint and Polygon; Element.set, get;
List.size, List.map, List.reduce, Dictionary.get, Number.add.
"""

# The methods of Earth Engine's client return Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, TypeAlias

from smgeo.catalog import MASKS, Mask
from smgeo.sources.earthengine.products import CORNER, L8, MODIS, S1, S2, Band, Product
from smgeo.sources.earthengine.session import import_ee

if TYPE_CHECKING:
    from ee import ComputedObject, Element, Feature, FeatureCollection, Geometry, Image, ImageCollection, List

# Masked pixels come as zero in arrays and not at all in tables; no band has this value, and float32 holds it exactly.
FILL = -9999.0
MS_PER_DAY = 86_400_000
# A computed collection may contain no more (https://developers.google.com/earth-engine/guides/debugging, "Collection query
# aborted after accumulating over 5000 elements").
MOST_ELEMENTS = 5000
CLOUD_SCORE, SCORE_BAND, LEAST_SCORE = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED", "cs", 0.60
_MOST_INPUT_PIXELS = 65_536
_Prepare: TypeAlias = "Callable[[ImageCollection, Product], ImageCollection]"


# Images with their quality applied -------------------------------------------------------------------------------


def images(product: Product, first_ms: int, end_ms: int, where: Geometry | None) -> ImageCollection:
    """Return the images of a product from `first_ms` to before `end_ms` that touch `where` (None: of the whole globe).

    They contain its bands, those of Sentinel-1 in linear power, and the measure of how clear they are; bad pixels are masked.
    """
    return _PREPARE.get(product.asset, _plain)(_found(product, first_ms, end_ms, where), product)


def _found(product: Product, first_ms: int, end_ms: int, where: Geometry | None) -> ImageCollection:
    ee = import_ee()
    collection = ee.ImageCollection(product.asset).filterDate(first_ms, end_ms)
    if where is not None:
        collection = collection.filterBounds(where)
    if product.asset == S1:
        collection = collection.filter(ee.Filter.eq("instrumentMode", "IW"))
        collection = collection.filter(ee.Filter.eq("orbitProperties_pass", str(product.orbit).upper()))
        for polarisation in ("VV", "VH"):
            collection = collection.filter(ee.Filter.listContains("transmitterReceiverPolarisation", polarisation))
    return collection


def _plain(collection: ImageCollection, product: Product) -> ImageCollection:
    return collection.select(product.names)


def _sentinel1(collection: ImageCollection, product: Product) -> ImageCollection:
    decibels = [b.name for b in product.bands if b.power]

    def prepare(image: Image) -> Image:
        if not decibels:
            return image
        # exp keeps the band's own projection; ee.Image(10).pow(...) would take that of the constant.
        return image.addBands(image.select(decibels).multiply(math.log(10) / 10).exp(), None, True)

    return collection.map(prepare).select(product.names)


def _sentinel2(collection: ImageCollection, product: Product) -> ImageCollection:
    ee = import_ee()
    linked = collection.linkCollection(ee.ImageCollection(CLOUD_SCORE), [SCORE_BAND])
    if product.masked:
        linked = linked.map(lambda image: image.updateMask(image.select(SCORE_BAND).gte(LEAST_SCORE)))
    return linked.select([*product.names, product.quality_band] if product.quality_band else product.names)


def _by_quality_bits(band: str, rule: str) -> _Prepare:
    def prepare(collection: ImageCollection, product: Product) -> ImageCollection:
        if product.masked:
            collection = collection.map(lambda image: image.updateMask(clear_pixels(image.select(band), MASKS[rule])))
        return collection.select(product.names)

    return prepare


def clear_pixels(quality: Image, mask: Mask) -> Image:
    """Return 1 where a quality band marks a pixel as good."""
    rules = [quality.bitwiseAnd(sum(1 << bit for bit in mask.bits)).eq(0)] if mask.bits else []
    for first, last, least in mask.fields:
        rules.append(quality.rightShift(first).bitwiseAnd((1 << (last - first + 1)) - 1).lt(least))
    return reduce(lambda a, b: a.multiply(b), rules)


_PREPARE: dict[str, _Prepare] = {
    S1: _sentinel1,
    S2: _sentinel2,
    L8: _by_quality_bits("QA_PIXEL", "landsat_c2"),
    MODIS: _by_quality_bits("QC_Day", "modis_lst"),
}


# Grids -----------------------------------------------------------------------------------------------------------


def day_image(products: Sequence[Product], day: int, area: Geometry) -> Image:
    """Return one image of a day's values (UTC) of all bands of these products, float32, `FILL` where missing.

    `day` counts from 1970-01-01. Each product must have an image on that day that touches `area`.
    """
    return _stacked(band for p in products for band in _day_bands(p, day, area))


def static_image(products: Sequence[Product], area: Geometry) -> Image:
    """Return one image of all bands of products that do not vary in time, float32, `FILL` where missing."""
    return _stacked(resample(still(p, area).select(b.name), b) for p in products for b in p.bands)


def _stacked(bands: Iterable[Image]) -> Image:
    ee = import_ee()
    given = list(bands)
    return ee.Image.cat(*given).rename(band_ids(len(given))).unmask(FILL, False).toFloat()


def band_ids(count: int) -> list[str]:
    """Return the names of the bands of a stacked image."""
    return [f"b{i}" for i in range(count)]


def _day_bands(product: Product, day: int, area: Geometry) -> list[Image]:
    found = images(product, day * MS_PER_DAY, (day + 1) * MS_PER_DAY, None if product.images_a_day else area)
    found = found.map(lambda image: _resampled_image(image, product))
    if product.daily == "mean":
        value = _whole_day(found, product)
    elif product.quality_band:
        value = found.qualityMosaic(product.quality_band)
    else:  # the last one is on top
        value = found.sort(product.quality_property, False).mosaic()
    return [value.select(b.name).log10().multiply(10) if b.power else value.select(b.name) for b in product.bands]


def _whole_day(found: ImageCollection, product: Product) -> Image:
    """Return the mean of a day's images; of a product that covers the globe, missing where one of its images lacks a value."""
    mean = found.mean()
    most = product.images_a_day or 1
    return mean.updateMask(found.count().gte(most)) if most > 1 else mean


def _resampled_image(image: Image, product: Product) -> Image:
    """Resample each band by its own method, and the band of quality by that of the first."""
    bands = list(product.bands)
    if product.quality_band:
        bands.append(replace(bands[0], name=product.quality_band))
    for method in sorted({(b.resampling, b.ratio) for b in bands if b.resampling != "nearest"}):
        same = [b for b in bands if (b.resampling, b.ratio) == method]
        image = image.addBands(resample(image.select([b.name for b in same]), same[0]), None, True)
    return image


def resample(image: Image, band: Band) -> Image:
    """Return an image that is read by the band's method on other grids; Earth Engine's default is the nearest pixel."""
    ee = import_ee()
    if band.resampling == "average":
        # The native grid may be turned against the target's and its pixels narrower than stated.
        needed = math.ceil(2 * band.ratio + 2) ** 2
        return image.reduceResolution(ee.Reducer.mean(), needed > _MOST_INPUT_PIXELS, min(needed, _MOST_INPUT_PIXELS))
    method = {"cubic": "bicubic"}.get(band.resampling, band.resampling)
    return image if method == "nearest" else image.resample(method)


def still(product: Product, area: Geometry) -> Image:
    """Return a product that does not vary in time as one image with a projection of its own."""
    ee = import_ee()
    if product.image:
        return ee.Image(product.asset).select(product.names)
    tiles = ee.ImageCollection(product.asset).filterBounds(area).select(product.names)
    # Tiles are cut from one grid; interpolating each by itself would leave seams.
    return tiles.mosaic().setDefaultProjection(tiles.first().projection())


# Stations --------------------------------------------------------------------------------------------------------

Places = Sequence[tuple[int, float, float]]
_Properties: TypeAlias = "Mapping[str, ComputedObject]"


def station_features(places: Places, radius_m: float | None) -> FeatureCollection:
    """Return stations (number, longitude, latitude) as features: points, or discs of `radius_m` metres."""
    ee = import_ee()
    points = [(i, ee.Geometry.Point([lon, lat])) for i, lon, lat in places]
    return ee.FeatureCollection([ee.Feature(p.buffer(radius_m) if radius_m else p, {"station": i}) for i, p in points])


def touched(places: Places) -> Geometry:
    """Return the stations as one geometry, to find images by."""
    return import_ee().Geometry.MultiPoint([[lon, lat] for _, lon, lat in places])


def station_columns(product: Product) -> list[str]:
    """Return the columns of the rows that stations get: station, time in ms, quality, values; without time and quality if static."""
    if product.static:
        return ["station", *product.names]
    quality = product.quality_band or product.quality_property
    return ["station", "time", *([quality] if quality else []), *product.names]


def station_rows(product: Product, days: Sequence[int], places: Places, radius_m: float | None) -> List:
    """Return the rows of all images from the first to the last of `days`: one for each station that an image touches."""
    ee = import_ee()
    radius_m = product.footprint_m(radius_m)
    stations = station_features(places, radius_m)
    first_ms, end_ms = days[0] * MS_PER_DAY, (days[-1] + 1) * MS_PER_DAY
    everywhere = product.images_a_day is not None
    found = images(product, first_ms, end_ms, None if everywhere else touched(places))
    if everywhere and product.images_a_day != 1:
        found = _daily_means(found, product, days)

    def rows(image: Image) -> FeatureCollection:
        here = stations if everywhere else stations.filterBounds(image.geometry())
        extra = {"time": image.get("system:time_start")}
        if product.quality_property:
            extra[product.quality_property] = image.get(product.quality_property)
        return _sampled(image, product, here, radius_m, extra)

    return table(ee.FeatureCollection(found.map(rows)).flatten(), station_columns(product))


def _daily_means(found: ImageCollection, product: Product, days: Sequence[int]) -> ImageCollection:
    """Return the mean image of each whole day, in the images' own projection."""
    ee = import_ee()

    def mean(start: ComputedObject) -> Element:
        day = found.filterDate(start, ee.Number(start).add(MS_PER_DAY))
        return _whole_day(day, product).setDefaultProjection(day.first().projection()).set("system:time_start", start)

    return ee.ImageCollection.fromImages(ee.List([d * MS_PER_DAY for d in days]).map(mean))


def static_rows(product: Product, places: Places, radius_m: float | None) -> List:
    """Return the rows of a product that does not vary in time, one for each station."""
    radius_m = product.footprint_m(radius_m)
    image = still(product, touched(places))
    stations = _sampled(image, product, station_features(places, radius_m), radius_m, {})
    return table(stations, station_columns(product))


def lattice_rows(product: Product, places: Places) -> List:
    """Return rows of elevation, interpolated at places as they are: pixels of 0.1 m make the nearest centre the place itself."""
    ee = import_ee()
    image = still(product, touched(places)).resample("bilinear")
    sampled = image.reduceRegions(
        station_features(places, None), ee.Reducer.first().setOutputs(product.names), scale=0.1, crs="EPSG:4326"
    )
    return table(sampled.map(lambda f: _filled(f, product.names, {})), station_columns(product))


def _sampled(
    image: Image, product: Product, stations: FeatureCollection, radius_m: float | None, extra: _Properties
) -> FeatureCollection:
    """Return stations with the values of an image, `FILL` where there is none."""
    ee = import_ee()
    reducer = ee.Reducer.mean().unweighted() if radius_m else ee.Reducer.first()
    groups = sampling_groups(product, radius_m)
    for names in groups:
        part = image.select(names)
        # A single output has the reducer's name where there is one band, and the band's where there are several.
        named = reducer.setOutputs(names) if len(names) == 1 else reducer
        stations = part.reduceRegions(stations, named, crs=part.select(names[0]).projection())
    return stations.map(lambda f: _filled(f, [n for names in groups for n in names], extra))


def sampling_groups(product: Product, radius_m: float | None) -> list[list[str]]:
    """Return the bands that are sampled together, in the pixels of the first of each group.

    Each band is sampled in its own pixels, or in the product's finest if a station's disc may miss the centres of its own.
    """
    widths = {b.name: b.pixel_m for b in product.bands}
    if product.quality_band:
        widths[product.quality_band] = product.bands[0].pixel_m
    finest = min(widths.values())
    groups: dict[float, list[str]] = {}
    for name, width in sorted(widths.items(), key=lambda item: item[1]):
        own = radius_m is None or radius_m >= CORNER * width
        groups.setdefault(width if own else finest, []).append(name)
    return list(groups.values())


def _filled(feature: Feature, names: Sequence[str], extra: _Properties) -> Element:
    """Fill missing values: a row that lacks one would be left out of a table."""
    ee = import_ee()
    filled = {n: ee.List([feature.get(n), FILL]).reduce(ee.Reducer.firstNonNull()) for n in names}
    row: Element = feature
    for name, value in {**filled, **extra}.items():
        row = row.set(name, value)
    return row


# Listings --------------------------------------------------------------------------------------------------------


def table(collection: FeatureCollection | ImageCollection, columns: Sequence[str]) -> List:
    """Return [number of rows, rows] of a collection, so that a list cut short is detected."""
    ee = import_ee()
    rows = ee.List(collection.reduceColumns(ee.Reducer.toList(len(columns)), list(columns)).get("list"))
    return ee.List([rows.size(), rows])


def image_times(product: Product, first_ms: int, end_ms: int, area: Geometry | None) -> List:
    """Return [number, [[time in ms, 1], ...]] of the images that touch an area, at most `MOST_ELEMENTS`.

    Each row of a product with runs has a third column: the status of the image, empty if it has none.
    """
    ee = import_ee()
    found = _found(product, first_ms, end_ms, area).limit(MOST_ELEMENTS)

    def row(image: Image) -> Element:
        listed = image.set("places", 1)
        if not product.runs:
            return listed
        return listed.set("run", ee.List([image.get("status"), ""]).reduce(ee.Reducer.firstNonNull()))

    return table(found.map(row), time_columns(product))


def time_columns(product: Product) -> list[str]:
    """Return the columns of `image_times`."""
    return ["system:time_start", "places", *(["run"] if product.runs else [])]


def image_places(product: Product, first_ms: int, end_ms: int, places: Places, radius_m: float | None) -> List:
    """Return [number, [[time in ms, stations that the image touches], ...]], at most `MOST_ELEMENTS`."""
    stations = station_features(places, product.footprint_m(radius_m))
    found = _found(product, first_ms, end_ms, touched(places)).limit(MOST_ELEMENTS)
    counted = found.map(lambda image: image.set("places", stations.filterBounds(image.geometry()).size()))
    return table(counted, ["system:time_start", "places"])


def tile_times(product: Product, area: Geometry) -> List:
    """Return [number, [[index, 1], ...]] of at most one tile of a static collection that touches an area."""
    ee = import_ee()
    tiles = ee.ImageCollection(product.asset).filterBounds(area).limit(1)
    return table(tiles.map(lambda tile: tile.set("places", 1)), ["system:index", "places"])
