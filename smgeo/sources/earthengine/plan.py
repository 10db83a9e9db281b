"""Plan of the requests of a build: days and places that have images, cut into requests within Earth Engine's limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox

from smgeo.sources.earthengine.expressions import (
    MOST_ELEMENTS,
    MS_PER_DAY,
    Places,
    image_places,
    image_times,
    tile_times,
    time_columns,
)
from smgeo.sources.earthengine.products import Product
from smgeo.sources.earthengine.requests import Gate, Rows, fetch_table
from smgeo.sources.earthengine.session import import_ee
from smgeo.sources.pixels.warp import apply_affine, crs_text, transformer

if TYPE_CHECKING:
    from ee import Geometry, List

# Of one request at stations; with one image a day, its rows stay below MOST_ELEMENTS.
BATCH_STATIONS, BATCH_DAYS = 64, 64
# Days count from 1970-01-01.
Days = range


@dataclass(frozen=True)
class Batch:
    """One request at stations: numbers of a product and of its stations, and the days that have images of them."""

    product: int
    start: int
    stop: int
    days: tuple[int, ...]


def day_numbers(days: pd.DatetimeIndex) -> Days:
    """Return a daily axis as numbers."""
    first = int((days[0] - pd.Timestamp("1970-01-01")).days)
    return range(first, first + len(days))


def outline(box: GeoBox, points: int = 16) -> tuple[tuple[float, float], ...]:
    """Return the border of a grid in degrees, as a ring of (longitude, latitude) with `points` corners a side."""
    height, width = box.shape.yx
    along = np.linspace(0, 1, points, endpoint=False)
    columns = np.concatenate([along, np.ones(points), 1 - along, np.zeros(points), [0]]) * width
    rows = np.concatenate([np.zeros(points), along, np.ones(points), 1 - along, [0]]) * height
    x, y = apply_affine(box.affine, columns, rows)
    lons, lats = transformer(crs_text(box), "EPSG:4326").transform(x, y)
    return tuple(zip(np.asarray(lons).tolist(), np.asarray(lats).tolist(), strict=True))


def polygon(ring: Sequence[tuple[float, float]]) -> Geometry:
    """Return a ring of (longitude, latitude) as a geometry with straight edges in degrees."""
    geometry: Geometry = import_ee().Geometry.Polygon([[list(p) for p in ring]], None, False)
    return geometry


# Day -> its inputs: (number of a product, time in ms of an image, places it touches, its status in a product with runs).
Listing = dict[int, list[tuple[int, int, int, str]]]


def plan_grid(
    gate: Gate, products: Sequence[Product], ring: Sequence[tuple[float, float]], days: Days
) -> tuple[dict[int, tuple[int, ...]], Listing]:
    """Return day -> numbers of the products that have an image of the area, without the days that have none, and the listing."""
    asks = [partial(_list_spans, gate, p, partial(_times, p, None if p.images_a_day else ring), days) for p in products]
    listing: Listing = {}
    for number, rows in enumerate(gate.together(asks)):
        _enter(listing, number, rows)
    return {day: tuple(sorted({i for i, *_ in found})) for day, found in listing.items()}, listing


def plan_stations(
    gate: Gate, products: Sequence[Product], places: Places, days: Days, radius_m: float | None, block_days: int
) -> tuple[list[Batch], Listing]:
    """Return the requests of products that vary in time, and the listing.

    No request crosses a multiple of `block_days`, or has too many rows.
    """
    parts = [(s, min(s + BATCH_STATIONS, len(places))) for s in range(0, len(places), BATCH_STATIONS)]
    keys: list[tuple[int, tuple[int, int] | None]] = []
    for i, product in enumerate(products):
        keys += [(i, None)] if product.images_a_day else [(i, part) for part in parts]
    asks = []
    for i, part in keys:
        product = products[i]
        ask = (
            partial(_times, product, None)
            if part is None
            else partial(_counts, product, places[slice(*part)], radius_m)
        )
        asks.append(partial(_list_spans, gate, product, ask, days))
    batches: list[Batch] = []
    listing: Listing = {}
    for (i, part), rows in zip(keys, gate.together(asks), strict=True):
        _enter(listing, i, rows)
        for start, stop in [part] if part is not None else parts:
            # Of global products each station gets one row a day, however many images make it.
            counted = _rows_by_day(rows) if part is not None else dict.fromkeys(_rows_by_day(rows), stop - start)
            batches += [Batch(i, start, stop, d) for d in cut_days(counted, days.start, block_days)]
    return batches, dict(sorted(listing.items()))


def _enter(listing: Listing, number: int, rows: Rows) -> None:
    for ms, count, status in sorted((int(ms), int(count), "".join(status)) for ms, count, *status in rows):
        listing.setdefault(ms // MS_PER_DAY, []).append((number, ms, count, status))


def describe_runs(products: Sequence[Product], listing: Listing) -> dict[str, str]:
    """Return the runs of each product that has them, with the number of days of each if they differ."""
    out = {}
    for number, product in enumerate(products):
        if not product.runs:
            continue
        days: dict[str, int] = {}
        for found in listing.values():
            names = {product.runs.get(status, "unknown") for i, _, _, status in found if i == number}
            if names:
                days[" and ".join(sorted(names))] = days.get(" and ".join(sorted(names)), 0) + 1
        out[product.asset] = (
            next(iter(days), "") if len(days) < 2 else ", ".join(f"{n} on {k} days" for n, k in sorted(days.items()))
        )
    return out


def plan_static(
    gate: Gate, products: Sequence[Product], areas: Sequence[Callable[[], Geometry]]
) -> tuple[tuple[bool, ...], ...]:
    """Return True for each product that has an image in each area; single images are taken to cover every area."""
    keys = [(i, area) for i, p in enumerate(products) if not p.image for area in range(len(areas))]
    asks = [partial(_ask, gate, partial(_tiles, products[i], areas[area]), products[i]) for i, area in keys]
    found = [[True] * len(areas) for _ in products]
    for (i, area), rows in zip(keys, gate.together(asks), strict=True):
        found[i][area] = bool(rows)
    return tuple(map(tuple, found))


def cut_days(rows: Mapping[int, int], first: int, block_days: int) -> list[tuple[int, ...]]:
    """Group days, with their numbers of rows, into one request each, in order.

    >>> cut_days({0: 1, 1: 4999, 2: 2, 80: 1}, first=0, block_days=512)
    [(0, 1), (2,), (80,)]
    """
    groups: list[list[int]] = []
    total = 0
    for day, count in sorted(rows.items()):
        total += count
        if (
            not groups
            or total > MOST_ELEMENTS
            or day - groups[-1][0] >= BATCH_DAYS
            or (day - first) // block_days != (groups[-1][0] - first) // block_days
        ):
            groups.append([])
            total = count
        groups[-1].append(day)
    return [tuple(g) for g in groups]


def _rows_by_day(rows: Rows) -> dict[int, int]:
    out: dict[int, int] = {}
    for ms, count, *_ in rows:
        day = int(ms // MS_PER_DAY)
        out[day] = out.get(day, 0) + int(count)
    return {day: count for day, count in out.items() if count}


# Listings --------------------------------------------------------------------------------------------------------


def _list_spans(gate: Gate, product: Product, expression: Callable[[int, int], List], days: Days) -> Rows:
    """Return [time, places] of all images in a period; a span whose listing may be incomplete is halved.

    A day that lacks one of the images of a product that covers the globe has none: its sum is not known.
    """
    longest = max(1, MOST_ELEMENTS // product.images_a_day - 1) if product.images_a_day else len(days)
    rows: Rows = []
    for first in range(days.start, days.stop, longest):
        rows += _list_span(gate, product, expression, first, min(first + longest, days.stop))
    images = Counter(int(row[0]) // MS_PER_DAY for row in rows)
    return [row for row in rows if images[int(row[0]) // MS_PER_DAY] >= (product.images_a_day or 1)]


def _list_span(gate: Gate, product: Product, expression: Callable[[int, int], List], first: int, end: int) -> Rows:
    columns = len(time_columns(product))
    rows = _ask(gate, partial(expression, first * MS_PER_DAY, end * MS_PER_DAY), product, columns)
    if len(rows) < MOST_ELEMENTS or end - first == 1:
        return rows
    middle = (first + end) // 2
    return [
        *_list_span(gate, product, expression, first, middle),
        *_list_span(gate, product, expression, middle, end),
    ]


def _ask(gate: Gate, expression: Callable[[], List], product: Product, columns: int = 2) -> Rows:
    return gate.ask(lambda: fetch_table(expression(), columns), f"the listing of {product.asset}")


def _times(product: Product, ring: Sequence[tuple[float, float]] | None, first_ms: int, end_ms: int) -> List:
    return image_times(product, first_ms, end_ms, None if ring is None else polygon(ring))


def _counts(product: Product, places: Places, radius_m: float | None, first_ms: int, end_ms: int) -> List:
    return image_places(product, first_ms, end_ms, places, radius_m)


def _tiles(product: Product, area: Callable[[], Geometry]) -> List:
    return tile_times(product, area())
