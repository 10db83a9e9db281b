"""Variables of gridded files as lazy arrays, on a grid or at stations.

One task makes one block of the output: it opens each file of the block's days once and reads the part that is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.typing import Key
from odc.geo.geobox import GeoBox

from smgeo.catalog import Feature
from smgeo.cube.chunks import GRID_SHARD
from smgeo.sources.gridded.cuts import Cut, Layout, Reading, Scattered, cut_pixels, cut_window, open_band, scatter
from smgeo.sources.gridded.files import File
from smgeo.sources.pixels.daily import Rule, combine_day
from smgeo.sources.pixels.footprint import Footprints
from smgeo.sources.pixels.gate import screen
from smgeo.sources.pixels.observation import Observation
from smgeo.sources.pixels.warp import aligned_shift, choose_resampling, is_geographic, pieces, resample, split_blocks

_TOGETHER = 2**24  # values of one variable that a task reads of a file at a time: 64 MiB as float32


@dataclass(frozen=True)
class Series:
    """One variable: how it is read, and how its observations become days.

    Attributes
    ----------
    reading : Reading
        How it is read.
    dynamic : bool
        True if it varies in time.
    places : tuple of (day, file, position)
        Each observation, in order: position of its day on the axis, its file, position of its time in the file.
    rule : str
        How several observations of a day become one.
    whole : int or None
        Number of observations that a day must have; None if any number will do.
    several : bool
        True if a day has several observations.
    feature : Feature
        The variable: its unit and valid range.
    attrs : dict
        The variable's attributes.
    """

    reading: Reading
    dynamic: bool
    places: tuple[tuple[int, File, int], ...]
    rule: Rule
    whole: int | None
    several: bool
    feature: Feature
    attrs: dict[str, object]

    @property
    def decibels(self) -> bool:
        """True if means are taken in linear power."""
        return self.feature.units == "dB"

    def within(self, first: int, last: int) -> Series:
        """Return the part for the days first..last, counted from the first, so that a task contains no other files."""
        places = tuple((day - first, file, p) for day, file, p in self.places if first <= day < last)
        if not self.reading.others:
            return replace(self, places=places)
        files = {file for _, file, _ in places}
        others = tuple((file, layout) for file, layout in self.reading.others if file in files)
        return replace(self, places=places, reading=replace(self.reading, others=others))


def _blocks(
    series: Series, chunks: tuple[tuple[int, ...], ...], name: str, read: Callable[..., np.ndarray]
) -> da.Array:
    """Return a lazy array, each block of which is one task: read(series of its days, number of days, *other slices)."""
    bounds = [list(itertools.pairwise(itertools.accumulate(sizes, initial=0))) for sizes in chunks]
    days, *others = bounds if series.dynamic else [[(0, 1)], *bounds]
    graph: dict[Key, object] = {}
    for k, (first, last) in enumerate(days):
        part = series.within(first, last)
        for index in itertools.product(*(range(len(b)) for b in others)):
            key: Key = (name, k, *index) if series.dynamic else (name, *index)
            graph[key] = (partial(read, part, last - first, *(b[i] for b, i in zip(others, index, strict=True))),)
    layer = HighLevelGraph.from_collections(name, graph, dependencies=[])
    return da.Array(layer, name, chunks, dtype="float32", meta=np.empty((0,) * len(chunks), "float32"))


def _read_days(
    series: Series, together: int, take: Callable[[Cut, Layout, slice], np.ndarray]
) -> Iterator[tuple[int, Observation]]:
    """Yield (day, values) of the days that have values, in order; at most `together` times are read at once."""
    for day, group in itertools.groupby(_read_times(series, together, take), key=lambda found: found[0]):
        values = [found for _, found in group]
        if series.whole is None or len(values) == series.whole:
            combined = combine_day(values, series.rule, decibels=series.decibels)
            yield day, Observation(screen(combined.values, series.feature, power=combined.power), combined.power)


def _read_times(
    series: Series, together: int, take: Callable[[Cut, Layout, slice], np.ndarray]
) -> Iterator[tuple[int, Observation]]:
    """Yield (day, values) of each time, in order."""
    power = series.reading.power
    for file, group in itertools.groupby(series.places, key=lambda p: p[1]):
        layout = series.reading.layout_in(file)
        with open_band(file, series.reading) as cut:
            for days, run in _runs([(day, position) for day, _, position in group], together):
                values = screen(take(cut, layout, run), series.feature, power=power)
                yield from zip(days, (Observation(v, power) for v in values), strict=True)


def _runs(times: list[tuple[int, int]], most: int) -> Iterator[tuple[list[int], slice]]:
    """Yield days and positions of consecutive times in a file, at most `most` together.

    >>> list(_runs([(0, 4), (1, 5), (2, 6), (3, 9)], 2))
    [([0, 1], slice(4, 6, None)), ([2], slice(6, 7, None)), ([3], slice(9, 10, None))]
    """
    start = 0
    for end in range(1, len(times) + 1):
        if end == len(times) or times[end][1] != times[end - 1][1] + 1 or end - start == most:
            yield [day for day, _ in times[start:end]], slice(times[start][1], times[end - 1][1] + 1)
            start = end


# On a grid


def grid_variable(
    series: Series,
    feature: Feature,
    box: GeoBox,
    asked: str,
    days: pd.DatetimeIndex | None,
    states: Mapping[File, Hashable],
) -> xr.Variable:
    """Return a variable on a grid, lazily: (time, y, x), or (y, x) if it does not vary in time."""
    layout = series.reading.layout
    own = layout.box
    method = choose_resampling(asked, feature, box, own)
    shift = aligned_shift(box, own) if layout.lattice is None else None
    if shift is not None and is_geographic(own) and not 0 <= shift[1] <= own.shape.x - box.shape.x:
        shift = None  # columns beyond the source's edge may be at its other end
    chunks = split_blocks(box.shape.yx, (GRID_SHARD["y"], GRID_SHARD["x"]))
    if series.dynamic and days is not None:
        chunks = (*split_blocks((len(days),), (GRID_SHARD["time"],)), *chunks)
    name = f"gridded-{tokenize(list(states.values()), series, box, method)}"
    values = _blocks(series, chunks, name, partial(_read_grid_block, box, method, shift))
    dims = ("time", "y", "x") if series.dynamic else ("y", "x")
    return xr.Variable(dims, values, {**series.attrs, "grid_mapping": "spatial_ref"})


def _read_grid_block(
    box: GeoBox,
    method: str,
    shift: tuple[int, int] | None,
    series: Series,
    days: int,
    y: tuple[int, int],
    x: tuple[int, int],
) -> np.ndarray:
    out = np.full((days, y[1] - y[0], x[1] - x[0]), np.nan, dtype="float32")
    if shift is not None:
        _copy_block(series, (y[0] + shift[0], y[1] + shift[0]), (x[0] + shift[1], x[1] + shift[1]), out)
    else:
        _warp_block(series, box[slice(*y), slice(*x)], method, out)
    return out if series.dynamic else out[0]


def _copy_block(series: Series, rows: tuple[int, int], columns: tuple[int, int], out: np.ndarray) -> None:
    """Copy rows and columns of the source's grid, which may reach beyond it, into `out`."""
    height, width = series.reading.layout.box.shape.yx
    r, c = (max(0, rows[0]), min(height, rows[1])), (max(0, columns[0]), min(width, columns[1]))
    if r[0] >= r[1] or c[0] >= c[1]:
        return
    part = out[:, r[0] - rows[0] : r[1] - rows[0], c[0] - columns[0] : c[1] - columns[0]]
    for day, values in _read_windows(series, r, c):
        part[day] = values.stored()


def _warp_block(series: Series, part: GeoBox, method: str, out: np.ndarray) -> None:
    """Resample onto the target; decibels in linear power if the method makes means."""
    own = series.reading.layout.box
    in_power = series.decibels and method != "nearest"
    for rows, columns, found in pieces(part, own, method, _TOGETHER, series.reading.layout.lattice):
        for day, values in _read_windows(series, *found.window):
            window = values.linear().astype("float32") if in_power else values.stored()
            resample(window, found, own, out[day, rows, columns])
    if in_power:
        out[...] = Observation(out, power=True).stored()
    if method == "cubic":  # whose weights may leave the range though no pixel did
        screen(out, series.feature)


def _read_windows(series: Series, rows: tuple[int, int], columns: tuple[int, int]) -> Iterator[tuple[int, Observation]]:
    together = max(1, _TOGETHER // ((rows[1] - rows[0]) * (columns[1] - columns[0])))
    return _read_days(series, together, lambda cut, layout, run: cut_window(cut, layout, run, rows, columns))


# At stations


def station_variable(
    series: Series,
    pixels: Footprints,
    where: tuple[np.ndarray, np.ndarray, float | None],
    days: pd.DatetimeIndex | None,
    states: Mapping[File, Hashable],
) -> xr.Variable:
    """Return a variable at all stations, lazily: (station, time), or (station,) if it does not vary in time."""
    count, radius_m = where[0].size, where[2]
    chunks: tuple[tuple[int, ...], ...] = ((count,),)
    if series.dynamic and days is not None:
        chunks = (*split_blocks((len(days),), (GRID_SHARD["time"],)), (count,))
    name = f"gridded-stations-{tokenize(list(states.values()), series, *where)}"
    values = _blocks(series, chunks, name, partial(_read_station_block, pixels))
    footprint = {} if radius_m is None else {"footprint": f"mean of the pixels within {radius_m:g} m"}
    dims = ("time", "station") if series.dynamic else ("station",)
    return xr.Variable(dims, values, series.attrs | footprint).transpose("station", ...)


def _read_station_block(pixels: Footprints, series: Series, days: int, stations: tuple[int, int]) -> np.ndarray:
    reading = series.reading
    in_files: dict[Layout, Scattered] = {
        layout: scatter(pixels, layout, reading.tile) for layout in (reading.layout, *(o for _, o in reading.others))
    }
    count, largest = pixels.rows.size, max(found.largest for found in in_files.values())
    # Decibels that are averaged, over a day or a footprint, are linear power until both means have been taken.
    power = series.decibels and (series.several or pixels.covered.size < pixels.stations.size)
    values = np.full((count, days), np.nan, dtype="float64" if power else "float32")
    if count:
        together = max(1, _TOGETHER // largest)
        for day, found in _read_days(series, together, lambda cut, layout, run: cut_pixels(cut, in_files[layout], run)):
            values[:, day] = found.linear() if power else found.stored()
    out = np.full((days, stations[1] - stations[0]), np.nan, dtype="float32")
    held, means = pixels.observe(Observation(values, power), decibels=series.decibels)
    out[:, held] = means.stored().T
    return out if series.dynamic else out[0]
