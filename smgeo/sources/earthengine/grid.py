"""Earth Engine's products on a grid: one request for each block and day, and one for each block of static layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import dask.array as da
import numpy as np
import pandas as pd
from affine import Affine
from odc.geo.geobox import GeoBox

from smgeo.cube.chunks import GRID_SHARD
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import EarthEngineSource
from smgeo.sources.earthengine.expressions import band_ids, day_image, static_image
from smgeo.sources.earthengine.plan import day_numbers, outline, plan_grid, plan_static, polygon
from smgeo.sources.earthengine.requests import Gate, fetch_pixels, requests_sent
from smgeo.sources.earthengine.session import Access
from smgeo.sources.earthengine.tasks import (
    BlockInfo,
    Opened,
    Task,
    check_plan,
    in_units,
    make_token,
    split_tasks,
    stack_array,
)
from smgeo.sources.pixels.warp import crs_text, pixel_metres, split_blocks, transformer
from smgeo.terrain import TERRAIN, pixel_sizes_m, slope_aspect


@dataclass(frozen=True)
class _GridTask(Task):
    """A task on a grid; `days`: number of a day (from 1970-01-01) -> numbers of the products that have images on it."""

    box: GeoBox
    ring: tuple[tuple[float, float], ...]
    first: int
    days: Mapping[int, tuple[int, ...]]


def open_grid(source: EarthEngineSource, access: Access, box: GeoBox, days: pd.DatetimeIndex) -> Opened:
    """List the images of a grid and return its variables, (time, y, x) or (y, x)."""
    if box.crs is None:
        raise SmgeoError("earthengine: the grid has no CRS, so its place on Earth is unknown; give one with a CRS")
    moving, lasting = split_tasks(source, access, _pixel_width(box))
    if lasting.wants_terrain:
        pixel_sizes_m(box)  # raises an error if the grid has no size in metres
    ring, numbers, gate = outline(box), day_numbers(days), Gate(access)
    plan, listing = plan_grid(gate, moving.products, ring, numbers)
    there = tuple(
        i for i, (found,) in enumerate(plan_static(gate, lasting.products, [partial(polygon, ring)])) if found
    )
    blocks = split_blocks((len(days), *box.shape.yx), tuple(GRID_SHARD.values()))
    values = len(blocks[1]) * len(blocks[2]) * (len(plan) + bool(there))
    access = replace(access, sent=requests_sent(access))
    check_plan(access, values)
    arrays: dict[str, da.Array] = {}
    if moving.variables:
        task = _GridTask(access, moving.products, moving.variables, box, ring, numbers.start, plan)
        token = make_token(source, box, numbers, listing)
        arrays |= stack_array(task, _read_days, blocks, f"earthengine-days-{token}")
    if lasting.variables:
        task = _GridTask(access, lasting.products, lasting.variables, box, ring, 0, {0: there})
        arrays |= stack_array(task, _read_static, blocks[1:], f"earthengine-static-{make_token(source, box, there)}")
    return Opened(arrays, gate.asked + values, [make_token(source, box, listing.get(d)) for d in numbers])


def _pixel_width(box: GeoBox) -> float:
    """Return the width of a pixel in the middle of a grid, metres."""
    x, y = box.affine * (box.shape.x / 2, box.shape.y / 2)
    lon, lat = transformer(crs_text(box), "EPSG:4326").transform(x, y)
    return float(np.sqrt(np.prod(pixel_metres(box, lon, lat))))


def _read_days(task: _GridTask, block_info: BlockInfo) -> np.ndarray:
    _, (t0, t1), (y0, y1), (x0, x1) = block_info[None]["array-location"]
    out = np.full((len(task.variables), t1 - t0, y1 - y0, x1 - x0), np.nan, dtype="float32")
    gate, box = Gate(task.access), _window(task.box, y0, y1, x0, x1)
    wanted = [t for t in range(t0, t1) if task.first + t in task.days]
    for t, values in zip(wanted, gate.together([partial(_read_day, task, gate, box, t) for t in wanted]), strict=True):
        out[:, t - t0] = values
    return out


def _read_day(task: _GridTask, gate: Gate, box: GeoBox, t: int) -> np.ndarray:
    day = task.first + t
    numbers = task.days[day]
    products = [task.products[i] for i in numbers]
    ids = band_ids(sum(len(p.bands) for p in products))
    pixels = gate.ask(
        lambda: fetch_pixels(day_image(products, day, polygon(task.ring)), box, ids),
        f"pixels of {np.datetime64(day, 'D')}",
    )
    return _values(task, numbers, pixels)


def _read_static(task: _GridTask, block_info: BlockInfo) -> np.ndarray:
    _, (y0, y1), (x0, x1) = block_info[None]["array-location"]
    margin = 1 if task.wants_terrain else 0
    box = _window(task.box, y0 - margin, y1 + margin, x0 - margin, x1 + margin)
    numbers = task.days[0]
    if not numbers:
        return np.full((len(task.variables), y1 - y0, x1 - x0), np.nan, dtype="float32")
    products = [task.products[i] for i in numbers]
    ids = band_ids(sum(len(p.bands) for p in products))
    gate = Gate(task.access)
    pixels = gate.ask(
        lambda: fetch_pixels(static_image(products, polygon(task.ring)), box, ids),
        "pixels of static layers",
    )
    out = _values(task, numbers, pixels)
    if margin:
        elevation = next(out[i] for i, v in enumerate(task.variables) if v.terrain)
        both = dict(zip(TERRAIN, slope_aspect(elevation, *pixel_sizes_m(box)), strict=True))
        for i, v in enumerate(task.variables):
            out[i] = both.get(v.feature, out[i])
        out = out[:, 1:-1, 1:-1]
    return out


def _window(box: GeoBox, y0: int, y1: int, x0: int, x1: int) -> GeoBox:
    """Return rows y0 to y1 and columns x0 to x1 of a grid, which may be outside it."""
    return GeoBox((y1 - y0, x1 - x0), box.affine * Affine.translation(x0, y0), box.crs)


def _values(task: Task, numbers: Sequence[int], pixels: np.ndarray) -> np.ndarray:
    """Return the bands of the products `numbers`, one after the other, as the task's variables in their units."""
    out = np.full((len(task.variables), *pixels.shape[1:]), np.nan, dtype="float32")
    starts = dict(zip(numbers, np.cumsum([0, *(len(task.products[i].bands) for i in numbers)]).tolist(), strict=False))
    for i, variable in enumerate(task.variables):
        if variable.product in starts:
            out[i] = in_units(variable, pixels[starts[variable.product] + variable.band])
    return out
