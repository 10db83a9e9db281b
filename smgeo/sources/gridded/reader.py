"""NetCDF, HDF5, Zarr and CSV grids as a lazy Dataset: on a grid, at stations, or on the files' own grid."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from smgeo.catalog import FEATURES, Feature, reference_attr
from smgeo.cube.schema import DAY_INPUTS
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import GriddedSource, read_source
from smgeo.sources.gridded.blocks import Series, grid_variable, station_variable
from smgeo.sources.gridded.cuts import Reading
from smgeo.sources.gridded.files import File, file_state, list_files
from smgeo.sources.gridded.headers import Header, read_headers
from smgeo.sources.pixels.daily import choose_rule, rule_in_words
from smgeo.sources.pixels.dates import date_in_name, day_axis
from smgeo.sources.pixels.footprint import check_target, find_footprints, station_places, stations_dataset
from smgeo.sources.pixels.units import known_unit

_NEO_FILL = 99999.0


def open_gridded(
    spec: GriddedSource | Mapping[str, object],
    *,
    root: str | Path = ".",
    geobox: GeoBox | None = None,
    stations: xr.Dataset | None = None,
    period: tuple[object, object] | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Open the arrays of one source lazily: on a grid, at stations, or on the files' own grid.

    Parameters
    ----------
    spec : GriddedSource or mapping
        `kind` (netcdf, zarr, csv_grid), `path` (a file, a glob pattern, a URL or a list), `bands` (variable -> name in
        the file), and optionally `dates` (strptime pattern of the whole file name, `*` for any text; used if the
        file has no time coordinate), `group`, `crs` (used if the file has none), `scale` and `offset` (applied to the
        unpacked values, as a conversion of units), `nodata` (a further value that means missing, before
        scale and offset), `resampling`, `daily`, `radius_m`.
    root : str or Path
        Folder that relative paths start from.
    geobox : odc.geo.geobox.GeoBox, optional
        Target grid; `resampling: auto` is chosen by `smgeo.sources.pixels.warp.choose_resampling`.
    stations : xarray.Dataset, optional
        With latitude and longitude on `station`: the pixel that contains each station, or with `radius_m` the mean of
        that pixel and those whose centres are within so many metres.
    period : (date, date), optional
        The result has every day of the period, missing where there is no file; by default the days of the files.
    catalog : mapping
        Kind and unit of each variable.

    Returns
    -------
    xarray.Dataset
        float32, lazy. (time, y, x) or (y, x) in blocks of at most (30, 256, 256) with the CRS in `spatial_ref`. At
        stations (station, time) or (station,), all stations as given in one block of at most 30 days, so that a chunk
        of a file is read once for all stations in it; stations that no pixel covers are missing, and named
        in `attrs["left_out"]` (JSON). Several times of a UTC day become one by `daily`: the mean of the valid
        values (of decibels, in linear power), or the sum, which is missing where a value is missing or the day has fewer
        times than others. The coordinate `day_inputs` on `time` is a digest of the inputs of each day.

    Raises
    ------
    SmgeoError
        If no file matches, a variable, its coordinates, CRS or date are not found, coordinates are not evenly spaced,
        files are on different grids, a unit is not that of the cube, or a day has several times and no rule.
    """
    source = read_source(GriddedSource, spec, "open_gridded", catalog)
    check_target("open_gridded", geobox, stations)
    _check_source(source)
    files = tuple(list_files(source, root))
    headers = read_headers(list(files), source)
    observed = {n: _observations(n, catalog[n], files, headers[n], source) for n in source.bands}
    dynamic = [o for o in observed.values() if o is not None]
    days = day_axis([day for times in dynamic for day, _, _ in times], period) if dynamic else None
    series = {n: _series(n, catalog[n], files, headers[n], observed[n], days, source) for n in source.bands}
    states = {f: (str(f), *file_state(f)) for f in files}
    where: object
    if stations is not None:
        out = _at_stations(series, stations, source, days, states)
        where = (*station_places(stations), source.radius_m)
    else:
        where = box = geobox if geobox is not None else _own_grid(headers, files)
        data = {n: grid_variable(s, catalog[n], box, source.resampling, days, states) for n, s in series.items()}
        out = xr.Dataset(data, xr_coords(box, dims=("y", "x")))
    if days is None:
        return out
    inputs = ("time", _inputs_of_days(series, states, (where, source.resampling), len(days)))
    return out.assign_coords({"time": xr.DataArray(days, dims="time", name="time"), DAY_INPUTS: inputs})


def gridded_files(spec: GriddedSource, root: str | Path) -> list[Path]:
    """Return the local files that a source reads (folders, for Zarr)."""
    return [f for f in list_files(spec, root) if isinstance(f, Path)]


def _check_source(source: GriddedSource) -> None:
    if source.daily == "clearest":
        raise SmgeoError(f"{source.label}: daily: clearest applies only to scenes with clouds; choose mean or sum")
    if source.kind == "csv_grid" and len(source.bands) > 1:
        raise SmgeoError(f"{source.label}: a CSV grid contains one variable, but bands names {', '.join(source.bands)}")


def _own_grid(headers: Mapping[str, Header], files: tuple[File, ...]) -> GeoBox:
    """Return the grid of all variables, which must be the same."""
    first, *others = headers
    for name in others:
        if headers[name].layout.box != headers[first].layout.box:
            raise SmgeoError(f"{files[0]}: {name} is on another grid than {first}; set a grid, or give two sources")
    return headers[first].layout.box


# Days


def _observations(
    name: str, feature: Feature, files: tuple[File, ...], header: Header, source: GriddedSource
) -> list[tuple[pd.Timestamp, int, int]] | None:
    """Return (day, file, position in the file) of each time of a variable, in order; None if it does not vary in time."""
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
) -> Series:
    """Return how one variable is read and combined."""
    times = Counter(day for day, _, _ in observed or ())
    busiest, per_day = times.most_common(1)[0] if times else (None, 1)
    if per_day > 1 and source.daily == "auto":
        raise SmgeoError(
            f"{source.label}: {name} has {per_day} times on {busiest:%Y-%m-%d} (UTC); set how they are combined: "
            "daily: mean, or daily: sum"
        )
    _check_units(files[0], header.units, name, source, feature, summed=per_day == 1 or source.daily == "sum")
    rule = choose_rule(source.daily, feature, masked=False)
    attrs: dict[str, object] = {**feature.attrs(), "source": f"{feature.source}; {Path(source.patterns[0]).name}"}
    if refers_to := source.refers_to.get(name):
        attrs[reference_attr(name)] = refers_to
    if per_day > 1:
        attrs["daily_rule"] = rule_in_words(rule, feature)
    places: tuple[tuple[int, File, int], ...] = ((0, files[0], 0),)
    if observed is not None and days is not None:
        position = {d: i for i, d in enumerate(days)}
        places = tuple((position[d], files[i], p) for d, i, p in observed if d in position)
    nodata = source.nodata if source.nodata is not None or source.kind != "csv_grid" else _NEO_FILL
    scale, offset = source.scale.get(name, 1.0), source.offset.get(name, 0.0)
    band = str(source.bands[name])
    reading = Reading(
        source.kind, band, source.group, header.layout, header.tile, scale, offset, nodata, feature.missing
    )
    return Series(reading, observed is not None, places, rule, per_day, feature, attrs)


def _check_units(
    file: File, found: str | None, name: str, source: GriddedSource, feature: Feature, *, summed: bool
) -> None:
    """Raise an error if the unit is not the cube's. IMERG V06 writes a day's total as mm; a day's sum of mm is mm a day."""
    if found is None or name in source.scale or name in source.offset:
        return
    canonical = known_unit(found)
    if canonical == known_unit(feature.units):
        return
    if feature.units == "mm d-1" and canonical == "mm" and summed:
        return
    kelvin = {("K", "degC"): -273.15, ("degC", "K"): 273.15}.get((canonical, feature.units))
    hint = f"set offset: {{{name}: {kelvin}}}" if kelvin else "convert it with scale and offset"
    raise SmgeoError(f"{file}: {name} is in {found!r}, but the cube stores {feature.units!r}; {hint}")


def _inputs_of_days(
    series: Mapping[str, Series], states: Mapping[File, Hashable], where: object, days: int
) -> np.ndarray:
    """Return a digest of the inputs of each day: the files and their state, how they are read, and the target."""
    made_from: list[list[object]] = [[] for _ in range(days)]
    for name, one in series.items():
        for day, file, position in one.places if one.dynamic else ():
            made_from[day].append((name, states[file], position))
    how = [(n, s.reading, s.rule, s.per_day) for n, s in series.items() if s.dynamic]
    common = tokenize(how, where)
    return np.array([tokenize(common, day) for day in made_from], dtype=object)


def _at_stations(
    series: Mapping[str, Series],
    stations: xr.Dataset,
    source: GriddedSource,
    days: pd.DatetimeIndex | None,
    states: Mapping[File, Hashable],
) -> xr.Dataset:
    lons, lats = station_places(stations)
    covered = np.ones(lons.size, dtype=bool)
    data = {}
    for name, one in series.items():
        pixels = find_footprints(lons, lats, one.reading.layout.box, source.radius_m)
        covered &= np.isin(np.arange(lons.size), pixels.covered)
        data[name] = station_variable(one, pixels, (lons, lats, source.radius_m), days, states)
    return stations_dataset(data, stations, covered, source.label)


__all__ = ["gridded_files", "open_gridded"]
