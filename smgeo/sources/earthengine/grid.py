"""Earth Engine's products on a grid: one request for each block and day, and one for each block of static layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import dask.array as da
import numpy as np
import pandas as pd
from affine import Affine
from odc.geo.geobox import GeoBox

from smgeo.catalog import FEATURES, Feature
from smgeo.cube.chunks import GRID_SHARD
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import EarthEngineSource
from smgeo.sources.earthengine.expressions import band_ids, day_image, static_image
from smgeo.sources.earthengine.plan import day_numbers, describe_runs, outline, plan_grid, plan_static, polygon
from smgeo.sources.earthengine.products import Product
from smgeo.sources.earthengine.requests import Gate, fetch_pixels, requests_sent
from smgeo.sources.earthengine.session import Access
from smgeo.sources.earthengine.tasks import Opened, Task, check_plan, in_units, make_token, split_tasks, stack_array
from smgeo.sources.pixels.gate import screen
from smgeo.sources.pixels.warp import crs_text, pixel_metres, split_blocks, transformer
from smgeo.terrain import TERRAIN, pixel_sizes_m, slope_aspect

if TYPE_CHECKING:
    from ee import Image

_Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class _GridTask(Task):
    """A task on a grid; `days`: number of a day (from 1970-01-01) -> numbers of the products that have images on it."""

    box: GeoBox
    ring: tuple[tuple[float, float], ...]
    first: int
    days: Mapping[int, tuple[int, ...]]


def open_grid(
    source: EarthEngineSource, access: Access, catalog: Mapping[str, Feature], box: GeoBox, days: pd.DatetimeIndex
) -> Opened:
    """List the images of a grid and return its variables, (time, y, x) or (y, x)."""
    if box.crs is None:
        raise SmgeoError("earthengine: the grid has no CRS, so its place on Earth is unknown; give one with a CRS")
    moving, lasting = split_tasks(source, access, catalog, _pixel_width(box))
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
    inputs = [make_token(source, box, listing.get(d)) for d in numbers]
    return Opened(arrays, gate.asked + values, inputs, describe_runs(moving.products, listing))


def _pixel_width(box: GeoBox) -> float:
    """Return the width of a pixel in the middle of a grid, metres."""
    x, y = box.affine * (box.shape.x / 2, box.shape.y / 2)
    lon, lat = transformer(crs_text(box), "EPSG:4326").transform(x, y)
    return float(np.sqrt(np.prod(pixel_metres(box, lon, lat))))


def _read_days(task: _GridTask, days: _Range, y: _Range, x: _Range) -> np.ndarray:
    t0, t1 = days
    gate, box = Gate(task.access), _window(task.box, y, x)
    out = np.full((len(task.variables), t1 - t0, *box.shape.yx), np.nan, dtype="float32")
    wanted = [t for t in range(t0, t1) if task.first + t in task.days]
    for t, values in zip(wanted, gate.together([partial(_read_day, task, gate, box, t) for t in wanted]), strict=True):
        out[:, t - t0] = values
    return out


def _read_day(task: _GridTask, gate: Gate, box: GeoBox, t: int) -> np.ndarray:
    day = task.first + t
    what = f"pixels of {np.datetime64(day, 'D')}"
    return _fetch(task, gate, box, task.days[day], lambda p: day_image(p, day, polygon(task.ring)), what)


def _read_static(task: _GridTask, y: _Range, x: _Range) -> np.ndarray:
    margin = 1 if task.wants_terrain else 0
    box = _window(task.box, (y[0] - margin, y[1] + margin), (x[0] - margin, x[1] + margin))
    if not task.days[0]:
        return np.full((len(task.variables), y[1] - y[0], x[1] - x[0]), np.nan, dtype="float32")
    gate, what = Gate(task.access), "pixels of static layers"
    out = _fetch(task, gate, box, task.days[0], lambda p: static_image(p, polygon(task.ring)), what)
    if margin:
        elevation, name = next((out[i], v.name) for i, v in enumerate(task.variables) if v.terrain)
        screen(elevation, replace(FEATURES["elevation"], name=name))
        both = dict(zip(TERRAIN, slope_aspect(elevation, *pixel_sizes_m(box)), strict=True))
        for i, v in enumerate(task.variables):
            out[i] = both.get(v.feature, out[i])
        out = out[:, 1:-1, 1:-1]
    return out


def _window(box: GeoBox, y: _Range, x: _Range) -> GeoBox:
    """Return rows y and columns x of a grid, which may be outside it."""
    return GeoBox((y[1] - y[0], x[1] - x[0]), box.affine * Affine.translation(x[0], y[0]), box.crs)


def _fetch(
    task: Task,
    gate: Gate,
    box: GeoBox,
    numbers: Sequence[int],
    image: Callable[[Sequence[Product]], Image],
    what: str,
) -> np.ndarray:
    """Fetch the image of the products `numbers` on a grid and return the task's variables in their units."""
    products = [task.products[i] for i in numbers]
    ends = np.cumsum([0, *(len(p.bands) for p in products)]).tolist()
    pixels = gate.ask(lambda: fetch_pixels(image(products), box, band_ids(ends[-1])), what)
    out = np.full((len(task.variables), *box.shape.yx), np.nan, dtype="float32")
    starts = dict(zip(numbers, ends, strict=False))
    for i, variable in enumerate(task.variables):
        if variable.product in starts:
            out[i] = in_units(variable, pixels[starts[variable.product] + variable.band])
    return out
