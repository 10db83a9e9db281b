"""Earth Engine's products at stations: one request for some stations and days of a product; days are combined here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
from pyproj import Geod

from smgeo.catalog import FEATURES, Feature
from smgeo.cube.chunks import STATIONS_PER_CHUNK
from smgeo.recipe.rasters import EarthEngineSource
from smgeo.sources.earthengine.expressions import (
    FILL,
    MS_PER_DAY,
    Places,
    lattice_rows,
    static_rows,
    station_columns,
    station_rows,
    touched,
)
from smgeo.sources.earthengine.plan import BATCH_STATIONS, Batch, day_numbers, describe_runs, plan_static, plan_stations
from smgeo.sources.earthengine.products import Product
from smgeo.sources.earthengine.requests import Gate, Rows, fetch_table, requests_sent
from smgeo.sources.earthengine.session import Access
from smgeo.sources.earthengine.tasks import Opened, Task, check_plan, in_units, make_token, split_tasks, stack_array
from smgeo.sources.pixels.gate import screen
from smgeo.sources.pixels.observation import to_decibels
from smgeo.sources.pixels.warp import split_blocks
from smgeo.terrain import TERRAIN, slope_aspect

# Block of one task at stations: the width of a station cube's chunk, and enough days to fill all requests in flight.
STATION_BLOCK = {"station": STATIONS_PER_CHUNK, "time": 512}
# Slope and aspect at a station come from elevations this far apart, about the pixel of the DEM.
LATTICE_M = 30.0
_WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True)
class _StationTask(Task):
    """A task at stations.

    `batches`: one request each, of the products that vary in time. `there`: for each other product, which groups of
    stations it covers.
    """

    places: Places
    radius_m: float | None
    first: int
    batches: tuple[Batch, ...]
    there: tuple[tuple[bool, ...], ...]


def open_places(
    source: EarthEngineSource,
    access: Access,
    catalog: Mapping[str, Feature],
    lons: np.ndarray,
    lats: np.ndarray,
    days: pd.DatetimeIndex,
) -> Opened:
    """List the images at stations and return their variables, (station, time) or (station,)."""
    places = tuple((i, lon, lat) for i, (lon, lat) in enumerate(zip(lons.tolist(), lats.tolist(), strict=True)))
    moving, lasting = split_tasks(source, access, catalog)
    numbers, gate = day_numbers(days), Gate(access)
    batches, listing = plan_stations(gate, moving.products, places, numbers, source.radius_m, STATION_BLOCK["time"])
    parts = [places[s : s + BATCH_STATIONS] for s in range(0, len(places), BATCH_STATIONS)]
    there = plan_static(gate, lasting.products, [partial(touched, p) for p in parts])
    values = len(batches) + sum(_static_requests(lasting, i, there) for i in range(len(parts)))
    access = replace(access, sent=requests_sent(access))
    check_plan(access, values)
    blocks = split_blocks((len(places), len(days)), tuple(STATION_BLOCK.values()))
    tokens = make_token(source, places, numbers, listing), make_token(source, places, there)
    arrays: dict[str, da.Array] = {}
    for task, read, chunks, name in (
        (moving, _read_series, blocks, f"earthengine-series-{tokens[0]}"),
        (lasting, _read_places, blocks[:1], f"earthengine-places-{tokens[1]}"),
    ):
        if task.variables:
            full = _StationTask(
                access, task.products, task.variables, places, source.radius_m, numbers.start, tuple(batches), there
            )
            arrays |= stack_array(full, read, chunks, name)
    inputs = [make_token(source, places, listing.get(d)) for d in numbers]
    return Opened(arrays, gate.asked + values, inputs, describe_runs(moving.products, listing))


def _static_requests(task: Task, part: int, there: Sequence[Sequence[bool]]) -> int:
    """Return the number of requests for one batch of stations: one a product, and one for the elevations around."""
    return sum(t[part] for t in there) + sum(there[i][part] for i in {v.product for v in task.variables if v.terrain})


def _read_series(task: _StationTask, stations: tuple[int, int], days: tuple[int, int]) -> np.ndarray:
    (s0, s1), (t0, t1) = stations, days
    gate = Gate(task.access)
    out = np.full((len(task.variables), s1 - s0, t1 - t0), np.nan, dtype="float32")
    batches = [b for b in task.batches if s0 <= b.start < s1 and t0 <= b.days[0] - task.first < t1]
    tables = gate.together([partial(_read_batch, task, gate, b) for b in batches])
    for batch, rows in zip(batches, tables, strict=True):
        values = daily_values(task.products[batch.product], rows, s1 - s0, t1 - t0, s0, task.first + t0)
        for i, variable in enumerate(task.variables):
            if variable.product == batch.product:
                part = in_units(variable, values[variable.band])
                out[i] = np.where(np.isnan(part), out[i], part)
    return out


def _read_batch(task: _StationTask, gate: Gate, batch: Batch) -> Rows:
    product, places = task.products[batch.product], task.places[batch.start : batch.stop]
    return gate.ask(
        lambda: fetch_table(station_rows(product, batch.days, places, task.radius_m), len(station_columns(product))),
        f"{product.asset} at stations from {np.datetime64(batch.days[0], 'D')}",
    )


def daily_values(
    product: Product, rows: Rows, stations: int, days: int, first_station: int, first_day: int
) -> np.ndarray:
    """Combine the rows of images into one value a station and day, by the product's rule.

    Returns
    -------
    numpy.ndarray
        (band, station, day), float64, the band's own numbers (power in dB), `FILL` where missing.
    """
    out = np.full((len(product.bands), stations, days), FILL)
    if not rows:
        return out
    table = np.asarray(rows, dtype="float64")
    station = table[:, 0].astype(int) - first_station
    day = (table[:, 1] // MS_PER_DAY).astype(int) - first_day
    numbers = table[:, -len(product.bands) :]
    if product.daily == "clearest":
        # The clearest is written last, over the others; of equals the later image, as the last is on top of a mosaic.
        clearness = table[:, 2] if product.quality_band else -table[:, 2]
        order = np.lexsort((table[:, 1], clearness))
        for i in range(len(product.bands)):
            # A mosaic by quality takes the clearest as it is; one by order takes the next where it has no value.
            counts = table[order, 2] != FILL if product.quality_band else numbers[order, i] != FILL
            good = order[counts]
            out[i, station[good], day[good]] = numbers[good, i]
        return out
    for i, band in enumerate(product.bands):
        good = numbers[:, i] != FILL
        total, count = np.zeros((stations, days)), np.zeros((stations, days))
        np.add.at(total, (station[good], day[good]), numbers[good, i])
        np.add.at(count, (station[good], day[good]), 1)
        seen = (count > 0) & ((total > 0) | (not band.power))
        mean = total[seen] / count[seen]
        out[i][seen] = to_decibels(mean) if band.power else mean
    return out


def _read_places(task: _StationTask, stations: tuple[int, int]) -> np.ndarray:
    s0, s1 = stations
    gate = Gate(task.access)
    terrain = {v.product for v in task.variables if v.terrain}
    parts = [
        (i, s)
        for i in range(len(task.products))
        for s in range(s0, s1, BATCH_STATIONS)
        if task.there[i][s // BATCH_STATIONS]
    ]
    calls = [partial(_read_part, task, gate, i, s) for i, s in parts]
    around = [partial(_read_terrain, task, gate, i, s) for i, s in parts if i in terrain]
    answers: list[npt.ArrayLike] = gate.together([*calls, *around])
    out = np.full((len(task.variables), s1 - s0), np.nan, dtype="float32")
    for (product, _), rows in zip(parts, answers, strict=False):
        table = np.asarray(rows, dtype="float64")
        for i, v in enumerate(task.variables):
            if v.product == product and not v.terrain:
                out[i, table[:, 0].astype(int) - s0] = in_units(v, table[:, 1 + v.band])
    for rows in answers[len(calls) :]:
        table = np.asarray(rows)
        for i, v in enumerate(task.variables):
            if v.terrain:
                out[i, table[:, 0].astype(int) - s0] = table[:, 1 + TERRAIN.index(v.feature)]
    return out


def _read_part(task: _StationTask, gate: Gate, number: int, start: int) -> Rows:
    product, places = task.products[number], task.places[start : start + BATCH_STATIONS]
    return gate.ask(
        lambda: fetch_table(static_rows(product, places, task.radius_m), len(station_columns(product))),
        f"{product.asset} at stations",
    )


def _read_terrain(task: _StationTask, gate: Gate, number: int, start: int) -> np.ndarray:
    """Return (station, [number, slope, aspect]) from elevations on 3 x 3 places around each station."""
    product, places = task.products[number], task.places[start : start + BATCH_STATIONS]
    rows = gate.ask(lambda: fetch_table(lattice_rows(product, lattice(places)), 2), f"{product.asset} around stations")
    z = np.full(9 * len(places), np.nan)
    table = np.asarray(rows, dtype="float64")
    good = table[:, 1] != FILL
    z[table[good, 0].astype(int)] = table[good, 1]
    slope, aspect = slope_aspect(screen(z, FEATURES["elevation"]).reshape(-1, 3), LATTICE_M, LATTICE_M)
    return np.stack([[i for i, _, _ in places], slope[1::3, 1], aspect[1::3, 1]], axis=1)


def lattice(places: Places) -> Places:
    """Return 3 x 3 places around each, from the north-west by rows, `LATTICE_M` apart; numbered from 0."""
    lons, lats = (np.repeat([p[k] for p in places], 9) for k in (1, 2))
    east = np.tile([-1, 0, 1] * 3, len(places)) * LATTICE_M
    north = np.tile(np.repeat([1, 0, -1], 3), len(places)) * LATTICE_M
    lons, lats, _ = _WGS84.fwd(lons, lats, np.degrees(np.arctan2(east, north)), np.hypot(east, north))
    return [(i, float(lon), float(lat)) for i, (lon, lat) in enumerate(zip(lons, lats, strict=True))]
