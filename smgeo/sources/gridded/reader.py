"""NetCDF, HDF5, Zarr and CSV grids as a lazy Dataset: on a grid, at stations, or on the files' own grid."""

from __future__ import annotations

import warnings
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
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.recipe.rasters import GriddedSource, read_source
from smgeo.sources.gridded.blocks import Series, grid_variable, station_variable
from smgeo.sources.gridded.cuts import Reading
from smgeo.sources.gridded.days import Observed, days_apart, observe
from smgeo.sources.gridded.files import File, file_state, list_files
from smgeo.sources.gridded.grids import same_grid
from smgeo.sources.gridded.headers import Header, read_headers
from smgeo.sources.gridded.imerg import runs_in_words
from smgeo.sources.gridded.samples import check_accumulation, check_unit, warn_of_fill
from smgeo.sources.pixels.daily import Rule, rule_in_words
from smgeo.sources.pixels.dates import day_axis
from smgeo.sources.pixels.footprint import check_target, find_footprints, station_places, stations_dataset
from smgeo.sources.pixels.gate import is_backscatter
from smgeo.sources.pixels.sizes import longer_sides, size_attr
from smgeo.sources.pixels.units import conversion_in_words, known_unit

_NEO_FILL = 99999.0
_A_DAY = 1.5  # days between totals of single days, at most


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
        file has no time coordinate; with %H its times), `stamp`, `group`, `crs` (used if the file has none), `pixel_size` (width, or width
        and height, of a grid that has one row or column and no bounds), `select` (dimension that is neither x, y nor time ->
        value of its coordinate, or position if it has none), `scale` and `offset` (applied to the unpacked values, as a conversion of
        units), `convert`, `nodata` (a further number that means missing, as it is in the file), `honour_valid_range`,
        `resampling`, `daily`, `radius_m`.
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
        values (of decibels, in linear power), or the sum, which is missing where a value is missing or the day lacks a time of the
        source's step; so is the mean of a variable in an amount a day. A few values are read for checks. The coordinate `day_inputs` on `time`
        is a digest of the inputs of each day.

    Raises
    ------
    SmgeoError
        If no file matches, a variable, its coordinates, CRS or date are not found, coordinates are not evenly
        spaced and there is no target, files are on different grids, a unit is not that of the cube, a time is a fill value or of
        another calendar, or a day has several times and no rule that suits them.
    """
    source = read_source(GriddedSource, spec, "open_gridded", catalog)
    check_target("open_gridded", geobox, stations)
    _check_source(source)
    files = tuple(list_files(source, root))
    headers = read_headers(list(files), source)
    observed = {n: observe(n, catalog[n], files, headers[n], source) for n in source.bands}
    dynamic = [o for o in observed.values() if o is not None]
    days = day_axis([day for o in dynamic for day, _, _ in o.places], period) if dynamic else None
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
    """Return the grid of all variables, which must be the same and evenly spaced."""
    first, *others = headers
    lattice = headers[first].layout.lattice
    if lattice is not None and not lattice.nearly_even:
        raise SmgeoError(
            f"{files[0]}: the pixels of {first} are not evenly spaced, so they are no grid of a cube; set a grid (grid in a recipe, geobox "
            "in Python) to resample them to, or read them at stations"
        )
    for name in others:
        if not same_grid(headers[name].layout, headers[first].layout):
            raise SmgeoError(f"{files[0]}: {name} is on another grid than {first}; set a grid, or give two sources")
    return headers[first].layout.box


def _series(
    name: str,
    feature: Feature,
    files: tuple[File, ...],
    header: Header,
    observed: Observed | None,
    days: pd.DatetimeIndex | None,
    source: GriddedSource,
) -> Series:
    """Return how one variable is read and combined."""
    summed = observed is None or not observed.several or observed.rule in ("sum", "accumulated")
    apart = 1.0 if observed is None else days_apart(observed.times)
    _check_units(files[0], header.units, name, source, feature, apart if summed else None)
    attrs: dict[str, object] = {**feature.attrs(), "source": f"{feature.source}; {Path(source.patterns[0]).name}"}
    if (runs := _known_runs(header, source)) is not None:
        attrs["run"] = runs
    if refers_to := source.refers_to.get(name):
        attrs[reference_attr(name)] = refers_to
    places: tuple[tuple[int, File, int], ...] = ((0, files[0], 0),)
    rule: Rule = "mean"
    whole, several = None, False
    if observed is not None and days is not None:
        rule, whole, several = observed.rule, observed.whole, observed.several
        if several or rule == "accumulated":
            attrs["daily_rule"] = rule_in_words(rule, feature)
        position = {d: i for i, d in enumerate(days)}
        places = tuple((position[d], files[i], p) for d, i, p in observed.places if d in position)
    reading = _reading(feature, files, header, source)
    _check_samples(reading, feature, header, places, observed, files, source)
    return Series(reading, observed is not None, places, rule, whole, several, feature, attrs)


def _reading(feature: Feature, files: tuple[File, ...], header: Header, source: GriddedSource) -> Reading:
    nodata = source.nodata if source.nodata is not None or source.kind != "csv_grid" else _NEO_FILL
    name = feature.name
    return Reading(
        name=name,
        kind=source.kind,
        band=str(source.bands[name]),
        group=source.group,
        layout=header.layout,
        tile=header.tile,
        scale=source.scale.get(name, 1.0),
        offset=source.offset.get(name, 0.0),
        nodata=(*(() if nodata is None else (nodata,)), *feature.missing),
        power=source.convert.get(name) == "power_to_db",
        honour_valid_range=source.honour_valid_range,
        counts=header.counts,
        select=tuple(source.select.items()),
        others=tuple((f, o) for f, o in zip(files, header.orders, strict=True) if o != header.layout),
    )


def _check_samples(
    reading: Reading,
    feature: Feature,
    header: Header,
    places: tuple[tuple[int, File, int], ...],
    observed: Observed | None,
    files: tuple[File, ...],
    source: GriddedSource,
) -> None:
    """Compare a sample of the values with what is known of them."""
    sampled = [(file, position) for _, file, position in places]
    check_unit(reading, feature, sampled)
    if header.fill is not None:
        warn_of_fill(reading, header.fill, sampled)
    accumulated = observed is not None and observed.rule == "accumulated"
    plain = source.stamp is not None or (observed is not None and bool(observed.times["start"].notna().all()))
    if observed is not None and (accumulated or (observed.whole is not None and not plain)):
        where = f"{source.label}: {reading.name}"
        check_accumulation(reading, feature, observed.times, files, accumulated=accumulated, where=where)


def _known_runs(header: Header, source: GriddedSource) -> str | None:
    """Return the run of IMERG, or its runs, which a warning names."""
    words = runs_in_words(header.runs)
    if len({*header.runs} - {None}) > 1:
        warnings.warn(
            f"{source.label} mixes runs of IMERG: {words}; only the final run is calibrated with gauges. Give one run, or one source for each",
            SmgeoWarning,
            stacklevel=2,
        )
    return words


def _check_units(
    file: File, found: str | None, name: str, source: GriddedSource, feature: Feature, apart: float | None
) -> None:
    """Raise an error if the unit is not the cube's. IMERG V06 writes a day's total as mm; a day's sum of mm is mm a day.

    `apart` is the days between the times of totals; None if values are no totals.
    """
    if found is None or name in source.scale or name in source.offset or source.convert.get(name, "none") != "none":
        return
    canonical = known_unit(found)
    if canonical == known_unit(feature.units):
        return
    if feature.units == "mm d-1" and canonical == "mm" and apart is not None:
        if apart > _A_DAY:
            raise SmgeoError(
                f"{file}: {name} is in {found!r} and its times are {apart:g} days apart, so its values are totals of several days, but the "
                f"cube stores those of a day; divide them by their number of days first, or give them to a variable of your own. If each "
                f"is the total of one day, set scale: {{{name}: 1}}"
            )
        return
    hint = conversion_in_words(found, feature.units)
    if feature.units == "mm d-1" and canonical == "m" and apart is not None and apart <= _A_DAY:
        hint = "set scale: {%s: 1000}"
    if is_backscatter(feature) and canonical == "1":
        hint = "if it is linear power, set convert: {%s: power_to_db}"
    raise SmgeoError(
        f"{file}: {name} is in {found!r}, but the cube stores {feature.units!r}; {hint.replace('%s', name)}"
    )


def _inputs_of_days(
    series: Mapping[str, Series], states: Mapping[File, Hashable], where: object, days: int
) -> np.ndarray:
    """Return a digest of the inputs of each day: the files and their state, how they are read, and the target."""
    made_from: list[list[object]] = [[] for _ in range(days)]
    for name, one in series.items():
        for day, file, position in one.places if one.dynamic else ():
            made_from[day].append((name, states[file], position))
    how = [(n, s.reading, s.rule, s.whole) for n, s in series.items() if s.dynamic]
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
        layout = one.reading.layout
        pixels = find_footprints(lons, lats, layout.box, source.radius_m, layout.lattice)
        covered &= np.isin(np.arange(lons.size), pixels.covered)
        data[name] = station_variable(one, pixels, (lons, lats, source.radius_m), days, states)
        if not one.dynamic:
            # The box of an uneven grid has the typical size of its pixels.
            here = pixels.covered
            data[name].attrs |= size_attr(longer_sides(layout.box, lons[here], lats[here]))
    return stations_dataset(data, stations, covered, source.label)


__all__ = ["gridded_files", "open_gridded"]
