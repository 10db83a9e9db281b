"""NetCDF, HDF5, Zarr and CSV grids as a lazy Dataset: on a grid, at stations, or as they lie.

One task makes one block of the output: it opens each file that falls into the block's days once, and reads of it what
the block needs.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.highlevelgraph import HighLevelGraph
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from smgeo.catalog import FEATURES, Feature
from smgeo.cube.chunks import GRID_SHARD
from smgeo.cube.schema import DAY_INPUTS
from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.rasters import GriddedSource
from smgeo.recipe.spec import parse_spec
from smgeo.sources.gridded.files import (
    Cut,
    File,
    Reading,
    cut_pixels,
    cut_window,
    file_state,
    list_files,
    open_band,
    scatter,
)
from smgeo.sources.gridded.headers import Header, read_headers
from smgeo.sources.pixels.daily import Rule, choose_rule, combine_day, rule_in_words
from smgeo.sources.pixels.dates import date_in_name, day_axis
from smgeo.sources.pixels.footprint import Footprints, check_target, find_footprints, station_places
from smgeo.sources.pixels.observation import Observation
from smgeo.sources.pixels.units import known_unit
from smgeo.sources.pixels.warp import aligned_shift, choose_resampling, is_geographic, pieces, resample, split_blocks

_NEO_FILL = 99999.0
_TOGETHER = 2**24  # values of one variable that a task reads of a file at a time: 64 MiB as float32


@dataclass(frozen=True)
class _Series:
    """One variable: how it is read, and what a task needs to make days of it.

    Attributes
    ----------
    reading : Reading
        How.
    dynamic : bool
        Whether it has days.
    places : tuple of (day, file, position)
        Where each observation is, in order: position of its day on the axis, its file, position of its time in it.
    rule, per_day, decibels : str, int, bool
        How several observations of a day become one; how many a whole day has; whether in linear power.
    attrs : dict
        The variable's attributes.
    """

    reading: Reading
    dynamic: bool
    places: tuple[tuple[int, File, int], ...]
    rule: Rule
    per_day: int
    decibels: bool
    attrs: dict[str, Any]

    def within(self, first: int, last: int) -> _Series:
        """What is needed for the days first..last, counted from the first: a task carries no other files."""
        places = tuple((day - first, file, p) for day, file, p in self.places if first <= day < last)
        return replace(self, places=places)


def open_gridded(
    spec: GriddedSource | Mapping[str, Any],
    *,
    root: str | Path = ".",
    geobox: GeoBox | None = None,
    stations: xr.Dataset | None = None,
    period: tuple[Any, Any] | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """The arrays of one source, lazily: on a grid, at stations, or as they lie in the files.

    Parameters
    ----------
    spec : GriddedSource or mapping
        `kind` (netcdf, zarr, csv_grid), `path` (a file, a glob pattern, a URL or a list), `bands` (variable -> name in
        the file), and optionally `dates` (strptime pattern of the whole file name, `*` for any text; used where the
        file has no time coordinate), `group`, `crs` (where the file says none), `scale` and `offset` (applied to what
        the file's own packing gives, as a conversion of units), `nodata` (a further value that means missing, before
        scale and offset), `resampling`, `daily`, `radius_m`.
    root : str or Path
        Where relative paths start.
    geobox : odc.geo.geobox.GeoBox, optional
        Target grid; `resampling: auto` chooses as `smgeo.sources.pixels.warp.choose_resampling` says.
    stations : xarray.Dataset, optional
        With latitude and longitude on `station`: the pixel that holds each station, or with `radius_m` the mean of
        the pixels whose centres lie within so many metres and of the one that holds it.
    period : (date, date), optional
        Gives every day of the period, missing where there is no file; by default the days there are.
    catalog : mapping
        Kind and unit of each variable.

    Returns
    -------
    xarray.Dataset
        float32, lazy. (time, y, x) or (y, x) in blocks of at most (30, 256, 256) with the CRS in `spatial_ref`. At
        stations (station, time) or (station,), all stations as given in one block of at most 30 days, so that a chunk
        of a file is read once however many stations lie in it; stations that no pixel covers are missing, and named
        in `attrs["left_out"]` (JSON). Several times of a UTC day become one by `daily`: the mean of the values there
        are (of decibels, in linear power), or the sum, which is missing where a value is missing or the day has fewer
        times than others. The coordinate `day_inputs` on `time` is a digest of what each day is made from.

    Raises
    ------
    SmgeoError
        If no file matches, a variable, its coordinates, CRS or date are not found, coordinates are not evenly spaced,
        files lie on different grids, a unit is not the one the cube holds, or a day has several times and no rule.
    """
    source = spec if isinstance(spec, GriddedSource) else parse_spec(GriddedSource, spec, "open_gridded")
    check_target("open_gridded", geobox, stations)
    _check_source(source, catalog)
    files = tuple(list_files(source, root))
    headers = read_headers(list(files), source)
    observed = {n: _observations(n, catalog[n], files, headers[n], source) for n in source.bands}
    dynamic = [o for o in observed.values() if o is not None]
    days = day_axis([day for times in dynamic for day, _, _ in times], period) if dynamic else None
    series = {n: _series(n, catalog[n], files, headers[n], observed[n], days, source) for n in source.bands}
    states = {f: (str(f), *file_state(f)) for f in files}
    where: Any
    if stations is not None:
        out = _at_stations(series, stations, source, days, states)
        where = (*station_places(stations), source.radius_m)
    else:
        where = geobox if geobox is not None else _own_grid(headers, files)
        data = {n: _grid_variable(s, catalog[n], where, source.resampling, days, states) for n, s in series.items()}
        out = xr.Dataset(data, xr_coords(where, dims=("y", "x")))
    if days is None:
        return out
    inputs = ("time", _inputs_of_days(series, states, (where, source.resampling), len(days)))
    return out.assign_coords({"time": xr.DataArray(days, dims="time", name="time"), DAY_INPUTS: inputs})


def gridded_files(spec: GriddedSource, root: str | Path) -> list[Path]:
    """The local files a source reads (folders, for Zarr)."""
    return [f for f in list_files(spec, root) if isinstance(f, Path)]


def _check_source(source: GriddedSource, catalog: Mapping[str, Feature]) -> None:
    if source.daily == "clearest":
        raise SmgeoError(f"{source.label}: daily: clearest is for scenes with clouds; choose mean or sum")
    if source.kind == "csv_grid" and len(source.bands) > 1:
        raise SmgeoError(f"{source.label}: a CSV grid holds one variable, bands names {', '.join(source.bands)}")
    if unknown := [n for n in source.bands if n not in catalog]:
        raise SmgeoError(f"{source.label}: {unknown[0]!r} is no known variable; {nearest(unknown[0], list(catalog))}")


def _own_grid(headers: Mapping[str, Header], files: tuple[File, ...]) -> GeoBox:
    """The grid that all variables lie on."""
    first, *others = headers
    for name in others:
        if headers[name].layout.box != headers[first].layout.box:
            raise SmgeoError(f"{files[0]}: {name} lies on another grid than {first}; give a grid, or two sources")
    return headers[first].layout.box


# Days


def _observations(
    name: str, feature: Feature, files: tuple[File, ...], header: Header, source: GriddedSource
) -> list[tuple[pd.Timestamp, int, int]] | None:
    """(day, file, position in the file) of each time of a variable, in order; None of what does not vary in time."""
    if feature.kind == "static":
        count = sum(len(s) if s is not None else 1 for s in header.stamps)
        if count > 1:
            raise SmgeoError(
                f"{source.label}: {name} does not vary in time, but there are {count} times in {len(files)} files; name one"
            )
        return None
    found = []
    for i, (file, stamps) in enumerate(zip(files, header.stamps, strict=True)):
        times = stamps if stamps is not None else (_date_of_name(file, source, name),)
        found += [(t.normalize(), i, p) for p, t in enumerate(times)]
    return sorted(found)


def _date_of_name(file: File, source: GriddedSource, name: str) -> pd.Timestamp:
    if isinstance(source.dates, dt.date):
        return pd.Timestamp(source.dates)
    if source.dates is None:
        raise SmgeoError(
            f"{file}: {name} varies in time, and the file has no time coordinate; give dates: the file's name with "
            "%Y, %m, %d (or %j) in place of its date and * for any text"
        )
    return date_in_name(Path(file).name, source.dates)


def _series(
    name: str,
    feature: Feature,
    files: tuple[File, ...],
    header: Header,
    observed: list[tuple[pd.Timestamp, int, int]] | None,
    days: pd.DatetimeIndex | None,
    source: GriddedSource,
) -> _Series:
    """What a task needs of one variable."""
    per_day = int(pd.Series([day for day, _, _ in observed or ()]).value_counts().max()) if observed else 1
    if per_day > 1 and source.daily == "auto":
        busiest = pd.Series([day for day, _, _ in observed or ()]).value_counts().idxmax()
        raise SmgeoError(
            f"{source.label}: {name} has {per_day} times on {busiest:%Y-%m-%d} (UTC); say how they make a day's value: "
            "daily: mean, or daily: sum"
        )
    _check_units(files[0], header.units, name, source, feature, summed=per_day == 1 or source.daily == "sum")
    rule = choose_rule(source.daily, feature, masked=False)
    attrs: dict[str, Any] = {**feature.attrs(), "source": f"{feature.source}; {Path(source.patterns[0]).name}"}
    if per_day > 1:
        attrs["daily_rule"] = rule_in_words(rule, feature)
    places: tuple[tuple[int, File, int], ...] = ((0, files[0], 0),)
    if observed is not None and days is not None:
        position = {d: i for i, d in enumerate(days)}
        places = tuple((position[d], files[i], p) for d, i, p in observed if d in position)
    nodata = source.nodata if source.nodata is not None or source.kind != "csv_grid" else _NEO_FILL
    scale, offset = source.scale.get(name, 1.0), source.offset.get(name, 0.0)
    band = str(source.bands[name])
    reading = Reading(source.kind, band, source.group, header.layout, header.tile, scale, offset, nodata)
    return _Series(reading, observed is not None, places, rule, per_day, feature.units == "dB", attrs)


def _check_units(
    file: File, found: str | None, name: str, source: GriddedSource, feature: Feature, *, summed: bool
) -> None:
    """Refuse a unit that is not the cube's. IMERG V06 writes a day's total as mm; a day's sum of mm is mm a day."""
    if found is None or name in source.scale or name in source.offset:
        return
    canonical = known_unit(found)
    if canonical == known_unit(feature.units):
        return
    if feature.units == "mm d-1" and canonical == "mm" and summed:
        return
    kelvin = {("K", "degC"): -273.15, ("degC", "K"): 273.15}.get((canonical, feature.units))
    hint = f"write offset: {{{name}: {kelvin}}}" if kelvin else "convert it with scale and offset"
    raise SmgeoError(f"{file}: {name} is in {found!r}, the cube holds {feature.units!r}; {hint}")


def _inputs_of_days(series: Mapping[str, _Series], states: Mapping[File, Any], where: Any, days: int) -> np.ndarray:
    """Digest of what each day is made from: the files and their state, how they are read, and the target."""
    made_from: list[list[Any]] = [[] for _ in range(days)]
    for name, one in series.items():
        for day, file, position in one.places if one.dynamic else ():
            made_from[day].append((name, states[file], position))
    how = [(n, s.reading, s.rule, s.per_day) for n, s in series.items() if s.dynamic]
    common = da.core.tokenize(how, where)
    return np.array([da.core.tokenize(common, day) for day in made_from], dtype=object)


# Reading


def _blocks(
    series: _Series, chunks: tuple[tuple[int, ...], ...], name: str, read: Callable[..., np.ndarray]
) -> da.Array:
    """A lazy array, each block of which is one task: read(series of its days, number of days, *other slices)."""
    bounds = [list(itertools.pairwise(itertools.accumulate(sizes, initial=0))) for sizes in chunks]
    days, *others = bounds if series.dynamic else [[(0, 1)], *bounds]
    graph: dict[Any, Any] = {}
    for k, (first, last) in enumerate(days):
        part = series.within(first, last)
        for index in itertools.product(*(range(len(b)) for b in others)):
            key = (name, k, *index) if series.dynamic else (name, *index)
            graph[key] = (partial(read, part, last - first, *(b[i] for b, i in zip(others, index, strict=True))),)
    layer = HighLevelGraph.from_collections(name, graph, dependencies=[])
    return da.Array(layer, name, chunks, dtype="float32", meta=np.empty((0,) * len(chunks), "float32"))


def _read_days(
    series: _Series, together: int, take: Callable[[Cut, slice], np.ndarray]
) -> Iterator[tuple[int, Observation]]:
    """Yield (day, values) of the days that have values, in order; at most `together` times are read at once."""
    for day, group in itertools.groupby(_read_times(series, together, take), key=lambda found: found[0]):
        values = [Observation(v) for _, v in group]
        if series.rule != "sum" or len(values) == series.per_day:
            yield day, combine_day(values, series.rule, decibels=series.decibels)


def _read_times(
    series: _Series, together: int, take: Callable[[Cut, slice], np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """(day, values) of each time, in order."""
    for file, group in itertools.groupby(series.places, key=lambda p: p[1]):
        with open_band(file, series.reading) as cut:
            for days, run in _runs([(day, position) for day, _, position in group], together):
                yield from zip(days, take(cut, run), strict=True)


def _runs(times: list[tuple[int, int]], most: int) -> Iterator[tuple[list[int], slice]]:
    """Days and positions of times that follow each other in a file, at most so many together.

    >>> list(_runs([(0, 4), (1, 5), (2, 6), (3, 9)], 2))
    [([0, 1], slice(4, 6, None)), ([2], slice(6, 7, None)), ([3], slice(9, 10, None))]
    """
    start = 0
    for end in range(1, len(times) + 1):
        if end == len(times) or times[end][1] != times[end - 1][1] + 1 or end - start == most:
            yield [day for day, _ in times[start:end]], slice(times[start][1], times[end - 1][1] + 1)
            start = end


# On a grid


def _grid_variable(
    series: _Series,
    feature: Feature,
    box: GeoBox,
    asked: str,
    days: pd.DatetimeIndex | None,
    states: Mapping[File, Any],
) -> xr.Variable:
    own = series.reading.layout.box
    method = choose_resampling(asked, feature, box, own)
    shift = aligned_shift(box, own)
    if shift is not None and is_geographic(own) and not 0 <= shift[1] <= own.shape.x - box.shape.x:
        shift = None  # columns beyond the source's may be had round the Earth
    chunks = split_blocks(box.shape.yx, (GRID_SHARD["y"], GRID_SHARD["x"]))
    if series.dynamic and days is not None:
        chunks = (*split_blocks((len(days),), (GRID_SHARD["time"],)), *chunks)
    name = f"gridded-{da.core.tokenize(list(states.values()), series, box, method)}"
    values = _blocks(series, chunks, name, partial(_read_grid_block, box, method, shift))
    dims = ("time", "y", "x") if series.dynamic else ("y", "x")
    return xr.Variable(dims, values, {**series.attrs, "grid_mapping": "spatial_ref"})


def _read_grid_block(
    box: GeoBox,
    method: str,
    shift: tuple[int, int] | None,
    series: _Series,
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


def _copy_block(series: _Series, rows: tuple[int, int], columns: tuple[int, int], out: np.ndarray) -> None:
    """Rows and columns of the source's grid, which may reach beyond it, into `out`."""
    height, width = series.reading.layout.box.shape.yx
    r, c = (max(0, rows[0]), min(height, rows[1])), (max(0, columns[0]), min(width, columns[1]))
    if r[0] >= r[1] or c[0] >= c[1]:
        return
    part = out[:, r[0] - rows[0] : r[1] - rows[0], c[0] - columns[0] : c[1] - columns[0]]
    for day, values in _read_windows(series, r, c):
        part[day] = values.stored()


def _warp_block(series: _Series, part: GeoBox, method: str, out: np.ndarray) -> None:
    own = series.reading.layout.box
    for rows, columns, found in pieces(part, own, method, _TOGETHER):
        for day, values in _read_windows(series, *found.window):
            resample(values.stored(), found, own, out[day, rows, columns])


def _read_windows(
    series: _Series, rows: tuple[int, int], columns: tuple[int, int]
) -> Iterator[tuple[int, Observation]]:
    together = max(1, _TOGETHER // ((rows[1] - rows[0]) * (columns[1] - columns[0])))
    layout = series.reading.layout
    return _read_days(series, together, lambda cut, run: cut_window(cut, layout, run, rows, columns))


# At stations


def _at_stations(
    series: Mapping[str, _Series],
    stations: xr.Dataset,
    source: GriddedSource,
    days: pd.DatetimeIndex | None,
    states: Mapping[File, Any],
) -> xr.Dataset:
    lons, lats = station_places(stations)
    covered = np.ones(lons.size, dtype=bool)
    data = {}
    for name, one in series.items():
        pixels = find_footprints(lons, lats, one.reading.layout.box, source.radius_m)
        covered &= np.isin(np.arange(lons.size), pixels.covered)
        data[name] = _station_variable(one, pixels, (lons, lats, source.radius_m), days, states)
    coords = {str(k): v for k, v in stations.coords.items() if v.dims == ("station",)}
    coords |= {k: stations[k] for k in ("latitude", "longitude")}
    left_out = {str(s): f"outside {source.label}" for s in stations["station"].values[~covered]}
    return xr.Dataset(data, coords, {"left_out": json.dumps(left_out)})


def _station_variable(
    series: _Series,
    pixels: Footprints,
    where: tuple[np.ndarray, np.ndarray, float | None],
    days: pd.DatetimeIndex | None,
    states: Mapping[File, Any],
) -> xr.Variable:
    """(station, time) of all stations, or (station,)."""
    count, radius_m = where[0].size, where[2]
    chunks: tuple[tuple[int, ...], ...] = ((count,),)
    if series.dynamic and days is not None:
        chunks = (*split_blocks((len(days),), (GRID_SHARD["time"],)), (count,))
    name = f"gridded-stations-{da.core.tokenize(list(states.values()), series, *where)}"
    values = _blocks(series, chunks, name, partial(_read_station_block, pixels))
    footprint = {} if radius_m is None else {"footprint": f"mean of the pixels within {radius_m:g} m"}
    dims = ("time", "station") if series.dynamic else ("station",)
    return xr.Variable(dims, values, series.attrs | footprint).transpose("station", ...)


def _read_station_block(pixels: Footprints, series: _Series, days: int, stations: tuple[int, int]) -> np.ndarray:
    scattered = scatter(pixels, series.reading)
    # Decibels that are averaged, over a day or a footprint, are linear power until both means have been taken.
    power = series.decibels and (series.per_day > 1 or pixels.covered.size < pixels.stations.size)
    values = np.full((scattered.count, days), np.nan, dtype="float64" if power else "float32")
    if scattered.count:
        together = max(1, _TOGETHER // scattered.largest)
        for day, found in _read_days(series, together, lambda cut, run: cut_pixels(cut, scattered, run)):
            values[:, day] = found.linear() if power else found.values
    out = np.full((days, stations[1] - stations[0]), np.nan, dtype="float32")
    held, means = pixels.observe(Observation(values, power), decibels=series.decibels)
    out[:, held] = means.stored().T
    return out if series.dynamic else out[0]


__all__ = ["gridded_files", "open_gridded"]
