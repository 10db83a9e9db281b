"""Scenes (GeoTIFFs, each on a grid of its own, on disk or remote) as lazy arrays on a grid or at stations.

One task makes one block for all variables: it reads the window of each scene that the block needs, leaves out what its
quality band masks, resamples it onto the block, and combines a day's scenes into one value. Every valid pixel of a day is kept.
Masks are applied to a scene's own pixels, before it is resampled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import dask.array as da
import numpy as np
import pandas as pd
from affine import Affine
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.typing import Key
from odc.geo.geobox import GeoBox

from smgeo.addresses import plain
from smgeo.bounds import MOST_PIXELS
from smgeo.catalog import Feature
from smgeo.cube.chunks import GRID_SHARD
from smgeo.errors import SmgeoError
from smgeo.sources.pixels.daily import Rule, combine_day
from smgeo.sources.pixels.footprint import Footprints, find_footprints, tiles_of
from smgeo.sources.pixels.gate import screen
from smgeo.sources.pixels.observation import Observation, known_power, to_power
from smgeo.sources.pixels.warp import (
    aligned_shift,
    box_key,
    choose_resampling,
    crs_text,
    is_geographic,
    period_columns,
    pieces,
    resample,
    split_blocks,
    transformer,
)
from smgeo.sources.scenes.files import Header, read_header, read_headers
from smgeo.sources.scenes.layers import Layer, Scene, clip_window, read_layers

STATION_DAYS = 30
_Window = tuple[tuple[int, int], tuple[int, int]]
_TOGETHER = 2**22  # pixels of a scene that a task reads at a time: 16 MiB as float32


@dataclass(frozen=True)
class Reading:
    """How scenes become values: the variables, their daily rules, and the method of resampling.

    `whole_day` is the number of scenes of a whole day of each variable; a day with fewer is missing (sums).
    """

    features: tuple[Feature, ...]
    rules: tuple[Rule, ...]
    resampling: str = "auto"
    whole_day: tuple[int, ...] = ()

    @property
    def names(self) -> list[str]:
        """The variables, in order."""
        return [f.name for f in self.features]


@dataclass(frozen=True, eq=False)
class _Block:
    """Input of one task."""

    reading: Reading
    scenes: tuple[tuple[int, Scene], ...]  # position of the day in the block, clearest first
    days: int
    part: GeoBox | None = None
    whole: GeoBox | None = None  # the target that `part` is of
    stations: int = 0
    places: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))
    radius_m: float | None = None


def scenes_on_grid(
    scenes: Sequence[Scene], reading: Reading, box: GeoBox, days: pd.DatetimeIndex | None
) -> dict[str, da.Array]:
    """Return each variable on a grid: (time, y, x), or (y, x) if `days` is None; float32, missing as NaN.

    Lazy in blocks of at most (30, 256, 256), of all variables together; peak memory of a task is a block of each
    variable and four million pixels of one scene.
    """
    length = 1 if days is None else len(days)
    chunks = split_blocks((length, *box.shape.yx), tuple(GRID_SHARD.values()))
    bounds = [list(itertools.pairwise(itertools.accumulate(c, initial=0))) for c in chunks]
    touched = {key: _blocks_in(area, bounds[1], bounds[2]) for key, area in _touched(scenes, box).items()}
    if touched and not any(touched.values()):
        raise SmgeoError(
            f"none of the {len(scenes)} scenes touches the grid ({crs_text(box)[:40]}, bounds {tuple(box.boundingbox)}), "
            f"{plain(scenes[0].name)} among them; check the grid's bounds and CRS"
        )
    parts = {
        (y, x): box[slice(*rows), slice(*columns)]
        for (y, rows), (x, columns) in itertools.product(enumerate(bounds[1]), enumerate(bounds[2]))
    }
    tasks: dict[tuple[int, ...], _Block] = {}
    for t, (first, last) in enumerate(bounds[0]):
        near: dict[tuple[int, int], list[tuple[int, Scene]]] = {place: [] for place in parts}
        for day, i in _scenes_of(scenes, days, first, last):
            for place in touched[box_key(scenes[i].box)]:
                near[place].append((day, scenes[i]))
        for place, part in parts.items():
            tasks[t, *place] = _Block(reading, tuple(near[place]), last - first, part=part, whole=box)
    token = tokenize(_signature(scenes), reading, box, None if days is None else list(days))
    return _assemble(tasks, _read_grid_block, reading, chunks, f"scenes-{token}", static=days is None)


def scenes_at_stations(
    scenes: Sequence[Scene],
    reading: Reading,
    lons: np.ndarray,
    lats: np.ndarray,
    days: pd.DatetimeIndex | None,
    radius_m: float | None,
) -> tuple[dict[str, da.Array], np.ndarray]:
    """Return each variable at stations: (station, time), or (station,) if `days` is None; and which stations a scene covers.

    Each scene is read on its own grid: the pixel of a station, or the mean of its footprint's unmasked pixels.
    Lazy in blocks of 30 days of all stations, so that a tile of a file is read once for all stations in it.
    """
    held = {key: find_footprints(lons, lats, own, None).stations for key, own in _boxes(scenes).items()}
    covered = np.zeros(len(lons), dtype=bool)
    for stations in held.values():
        covered[stations] = True
    kept = [s for s in scenes if held[box_key(s.box)].size]
    length = 1 if days is None else len(days)
    chunks = split_blocks((length, len(lons)), (STATION_DAYS, max(1, len(lons))))
    edges = np.cumsum((0, *chunks[0]))
    tasks: dict[tuple[int, ...], _Block] = {}
    for t, (t0, t1) in enumerate(itertools.pairwise(edges)):
        mine = tuple((d, kept[i]) for d, i in _scenes_of(kept, days, int(t0), int(t1)))
        tasks[t, 0] = _Block(reading, mine, int(t1 - t0), stations=len(lons), places=(lons, lats), radius_m=radius_m)
    token = tokenize(_signature(kept), reading, lons, lats, radius_m, None if days is None else list(days))
    arrays = _assemble(tasks, _read_station_block, reading, chunks, f"stations-{token}", static=days is None)
    return {n: a.T if days is not None else a for n, a in arrays.items()}, covered


def _boxes(scenes: Iterable[Scene]) -> dict[Hashable, GeoBox]:
    """Return each grid of the scenes once, by its key."""
    return {box_key(s.box): s.box for s in scenes}


def boxes_of_layer(scenes: Iterable[Scene], name: str) -> list[GeoBox]:
    """Return each grid of the files of a layer once; the scene's own grid is that of its first layer's file."""
    files = [(scene, dict(scene.layers)[name].href) for scene in scenes if name in dict(scene.layers)]
    others = {href for scene, href in files if href != scene.layers[0][1].href}
    read_headers(others)
    boxes = (read_header(href).box if href in others else scene.box for scene, href in files)
    return list({box_key(box): box for box in boxes}.values())


def _signature(scenes: Iterable[Scene]) -> list[Hashable]:
    return [(s.name, s.day, s.layers, s.quality, s.mask, s.cloud, s.state, str(s.box)) for s in scenes]


def inputs_of_days(scenes: Iterable[Scene], reading: Reading, where: object, days: pd.DatetimeIndex) -> np.ndarray:
    """Return a digest of the inputs of each day's values: its scenes, the reading, and the target (a grid, or places).

    For the coordinate `smgeo.cube.schema.DAY_INPUTS`.
    """
    by_day: dict[pd.Timestamp | None, list[Scene]] = {}
    for scene in scenes:
        by_day.setdefault(scene.day, []).append(scene)
    common = tokenize(reading, where)
    return np.array([tokenize(common, _signature(by_day.get(d, ()))) for d in days], dtype=object)


def own_grid(scenes: Sequence[Scene]) -> GeoBox:
    """Return the grid that all files of the scenes share, from the first to the last row and column.

    Raises
    ------
    SmgeoError
        If their pixels are not the same, or one is so far from the others that the grid between them is too large.
    """
    first = scenes[0].box
    top, left, bottom, right = 0, 0, *first.shape.yx
    for href in dict.fromkeys(layer.href for scene in scenes for _, layer in scene.layers):
        box = read_header(href).box
        shift = aligned_shift(box, first)
        if shift is None:
            raise SmgeoError(
                f"{plain(href)} is on another grid ({box.crs}, {box.shape.yx}) than {plain(scenes[0].name)} "
                f"({first.crs}, {first.shape.yx}); give a grid to warp both onto"
            )
        top, left = min(top, shift[0]), min(left, shift[1])
        bottom, right = max(bottom, shift[0] + box.shape.y), max(right, shift[1] + box.shape.x)
        if (bottom - top) * (right - left) > MOST_PIXELS:
            raise SmgeoError(
                f"{plain(href)} ({_corner(box)}) and {plain(scenes[0].name)} ({_corner(first)}) are so far apart that a grid of both has "
                f"{bottom - top:.2g} x {right - left:.2g} pixels; at most {MOST_PIXELS:g} make a grid. Check where the files say they are, or "
                "give a grid"
            )
    return GeoBox((bottom - top, right - left), first.affine * Affine.translation(left, top), first.crs)


def _corner(box: GeoBox) -> str:
    return f"upper left corner {box.affine.c:.6g}, {box.affine.f:.6g}"


def _assemble(
    tasks: Mapping[tuple[int, ...], _Block],
    read: Callable[[_Block], np.ndarray],
    reading: Reading,
    chunks: tuple[tuple[int, ...], ...],
    name: str,
    *,
    static: bool,
) -> dict[str, da.Array]:
    """Return each variable as a part of one array of all, which has one task a block."""
    count = len(reading.features)
    graph: dict[Key, object] = {(name, 0, *index): (partial(read, block),) for index, block in tasks.items()}
    together = da.Array(
        HighLevelGraph.from_collections(name, graph, dependencies=[]),
        name,
        ((count,), *chunks),
        dtype="float32",
        meta=np.empty((0,) * (1 + len(chunks)), "float32"),
    )
    return {n: together[i, 0] if static else together[i] for i, n in enumerate(reading.names)}


def _scenes_of(scenes: Sequence[Scene], days: pd.DatetimeIndex | None, start: int, stop: int) -> list[tuple[int, int]]:
    """Return (day in the block, position) of the scenes of a block's days, day by day, clearest first."""
    if days is None:
        return [(0, i) for i in sorted(range(len(scenes)), key=lambda i: (scenes[i].cloud, scenes[i].name))]
    position = {d: i for i, d in enumerate(days[start:stop])}
    found = [(position[s.day], s.cloud, s.name, i) for i, s in enumerate(scenes) if s.day in position]
    return [(day, i) for day, _, _, i in sorted(found)]


def _touched(scenes: Iterable[Scene], box: GeoBox) -> dict[Hashable, tuple[float, float, float, float]]:
    """Return the rows and columns of the target (first, last, first, last) that each of the scenes' grids may touch."""
    out: dict[Hashable, tuple[float, float, float, float]] = {}
    for key, own in _boxes(scenes).items():
        bounds = own.boundingbox
        left, bottom, right, top = transformer(crs_text(own), crs_text(box)).transform_bounds(
            *bounds.bbox, densify_pts=21
        )
        inverse = ~box.affine
        corners = [inverse * (x, y) for x in (left, right) for y in (bottom, top)]
        columns, rows = [c for c, _ in corners], [r for _, r in corners]
        if not all(map(math.isfinite, (*columns, *rows))) or left > right:
            out[key] = (-math.inf, math.inf, -math.inf, math.inf)
            continue
        # A margin, because the bounds of a curved edge are approximate.
        out[key] = (min(rows) - 2, max(rows) + 2, min(columns) - 2, max(columns) + 2)
        wide = box.boundingbox
        if is_geographic(box) and (min(left, wide.left) < -180 - 1e-9 or max(right, wide.right) > 180 + 1e-9):
            out[key] = (*out[key][:2], -math.inf, math.inf)  # a place has several longitudes
    return out


def _blocks_in(
    area: tuple[float, float, float, float], rows: Sequence[tuple[int, int]], columns: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the blocks (y, x) of a target that an area of it touches."""
    ys = [y for y, (first, last) in enumerate(rows) if area[0] < last and area[1] > first]
    xs = [x for x, (first, last) in enumerate(columns) if area[2] < last and area[3] > first]
    return list(itertools.product(ys, xs))


# On a grid


def _read_grid_block(block: _Block) -> np.ndarray:
    part, whole = block.part, block.whole
    assert part is not None
    assert whole is not None
    return _read_block(block, part.shape.yx, lambda scene: _scene_on_grid(scene, block.reading, part, whole))


def _read_block(
    block: _Block, shape: tuple[int, ...], observe: Callable[[Scene], list[tuple[str, Observation]]]
) -> np.ndarray:
    """Return (variable, time, *shape), float32: one value a day of what `observe` returns of its scenes, in the cube's units."""
    reading = block.reading
    out = np.full((len(reading.features), block.days, *shape), np.nan, dtype="float32")
    least = reading.whole_day or (1,) * len(reading.features)
    for day, scenes in _by_day(block.scenes):
        seen: dict[str, list[Observation]] = {n: [] for n in reading.names}
        for scene in scenes:
            for name, found in observe(scene):
                seen[name].append(found)
        for i, (feature, rule) in enumerate(zip(reading.features, reading.rules, strict=True)):
            if len(seen[feature.name]) >= least[i]:
                # Sums, and cubic weights, may leave the range though no pixel did.
                out[i, day] = screen(
                    combine_day(seen[feature.name], rule, decibels=feature.units == "dB").stored(), feature
                )
    return out


def _by_day(scenes: Iterable[tuple[int, Scene]]) -> list[tuple[int, list[Scene]]]:
    days: dict[int, list[Scene]] = {}
    for day, scene in scenes:
        days.setdefault(day, []).append(scene)
    return list(days.items())


def _scene_on_grid(scene: Scene, reading: Reading, part: GeoBox, whole: GeoBox) -> list[tuple[str, Observation]]:
    """Return each variable of a scene on a part of the target; none if the scene does not overlap it.

    The method is chosen for the whole target, so that it is the same for all blocks.
    """
    features = {f.name: f for f in reading.features}
    out: list[tuple[str, Observation]] = []
    for href, layers in _by_file(scene, features):
        header = read_header(href)
        shift = aligned_shift(part, header.box)
        if shift is not None:
            out += _copy(scene, header, layers, features, part, shift).items()
            continue
        methods = [choose_resampling(reading.resampling, features[n], whole, header.box) for n, _ in layers]
        for method in dict.fromkeys(methods):
            chosen = [layer for layer, m in zip(layers, methods, strict=True) if m == method]
            out += _warp(scene, header, chosen, features, part, method).items()
    return out


def _copy(
    scene: Scene,
    header: Header,
    layers: Sequence[tuple[str, Layer]],
    features: Mapping[str, Feature],
    part: GeoBox,
    shift: tuple[int, int],
) -> dict[str, Observation]:
    """Return layers whose pixels are those of the target."""
    out: dict[str, Observation] = {}
    round_the_earth = round(period_columns(header.box))
    for turn in dict.fromkeys((0, round_the_earth, -round_the_earth)):
        row, column = shift[0], shift[1] + turn
        window = clip_window((row, column), part.shape.yx, header.box.shape.yx)
        if window is None:
            continue
        (r0, r1), (c0, c1) = window
        for name, found in read_layers(scene, header, layers, features, window):
            here = out.setdefault(name, Observation(_empty(part), found.power)).values
            here[r0 - row : r1 - row, c0 - column : c1 - column] = found.values
    return out


def _warp(
    scene: Scene,
    header: Header,
    layers: Sequence[tuple[str, Layer]],
    features: Mapping[str, Feature],
    part: GeoBox,
    method: str,
) -> dict[str, Observation]:
    """Return layers resampled, those in dB in linear power if the method makes means."""
    out: dict[str, Observation] = {}
    decibels = {n for n, _ in layers if features[n].units == "dB" and method != "nearest"}
    for rows, columns, where in pieces(part, header.box, method, _TOGETHER):
        for name, found in read_layers(scene, header, layers, features, where.window):
            in_power = found.power or name in decibels
            here = out.setdefault(name, Observation(_empty(part), in_power)).values
            values = to_power(found.values) if in_power and not found.power else found.values
            resample(values, where, header.box, here[rows, columns])
    return {name: Observation(known_power(v), power) if power else Observation(v) for name, (v, power) in out.items()}


def _empty(part: GeoBox) -> np.ndarray:
    return np.full(part.shape.yx, np.nan, dtype="float32")


def _by_file(scene: Scene, features: Mapping[str, Feature]) -> list[tuple[str, list[tuple[str, Layer]]]]:
    """Return the requested layers of a scene, grouped by file, so that a file of many bands is read once."""
    files: dict[str, list[tuple[str, Layer]]] = {}
    for name, layer in scene.layers:
        if name in features:
            files.setdefault(layer.href, []).append((name, layer))
    return list(files.items())


# At stations


def _read_station_block(block: _Block) -> np.ndarray:
    places: dict[Hashable, _Places] = {}
    return _read_block(block, (block.stations,), lambda scene: _scene_at_stations(scene, block, places))


def _scene_at_stations(scene: Scene, block: _Block, places: dict[Hashable, _Places]) -> list[tuple[str, Observation]]:
    features = {f.name: f for f in block.reading.features}
    out = []
    for href, layers in _by_file(scene, features):
        header = read_header(href)
        # A cyclic variable has no mean: its value is that of the station's pixel.
        radii = {n: None if features[n].cyclic else block.radius_m for n, _ in layers}
        for radius_m in dict.fromkeys(radii.values()):
            key = box_key(header.box), header.tile, radius_m
            if key not in places:
                places[key] = _find_places(block, header, radius_m)
            chosen = [layer for layer in layers if radii[layer[0]] == radius_m]
            for name, pixels in _pixels_of(scene, header, chosen, features, places[key]).items():
                ids, means = places[key].where.observe(pixels, decibels=features[name].units == "dB")
                here = np.full(block.stations, np.nan, dtype=means.values.dtype)
                here[ids] = means.values
                out.append((name, Observation(here, means.power)))
    return out


@dataclass(frozen=True, eq=False)
class _Places:
    """Pixels of the stations in a grid, and for each window to read the pixels that are in it and their positions in it."""

    where: Footprints
    windows: tuple[tuple[np.ndarray, _Window, tuple[np.ndarray, np.ndarray]], ...]


def _find_places(block: _Block, header: Header, radius_m: float | None) -> _Places:
    where = find_footprints(*block.places, header.box, radius_m)
    windows = []
    for mine in _together(where, header.tile):
        rows, columns = where.rows[mine], where.columns[mine]
        top, left = int(rows.min()), int(columns.min())
        window = ((top, int(rows.max()) + 1), (left, int(columns.max()) + 1))
        windows.append((mine, window, (rows - top, columns - left)))
    return _Places(where, tuple(windows))


def _together(where: Footprints, tile: tuple[int, int]) -> list[np.ndarray]:
    """Return the pixels to read at once: all, if most tiles between them are needed anyway, or those of a tile each."""
    tiles = tiles_of(where.rows, where.columns, tile)
    if not tiles:
        return []
    height, width = (int(np.ptp(v // size)) + 1 for v, size in zip((where.rows, where.columns), tile, strict=True))
    dense = len(tiles) * 2 >= height * width and height * width * tile[0] * tile[1] <= _TOGETHER
    return [np.arange(where.rows.size)] if dense else tiles


def _pixels_of(
    scene: Scene,
    header: Header,
    layers: Sequence[tuple[str, Layer]],
    features: Mapping[str, Feature],
    places: _Places,
) -> dict[str, Observation]:
    """Return the values of all pixels of the stations, each tile of the file read once."""
    picked: dict[str, Observation] = {}
    for mine, window, pixels in places.windows:
        for name, found in read_layers(scene, header, layers, features, window, pixels):
            empty = np.empty(places.where.rows.size, dtype="float32")
            picked.setdefault(name, Observation(empty, found.power)).values[mine] = found.values
    return picked
