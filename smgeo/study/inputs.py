"""A recipe's inputs: opened, listed, and checked before any work.

A remote source is not asked again while its cube is finished: its scenes are looked up once the recipe's part for it changes, or
the cube is removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.assemble.grid import open_grid
from smgeo.assemble.stations import merge_stations
from smgeo.errors import SmgeoError
from smgeo.evaluation.clusters import clusters_of
from smgeo.models import make_model
from smgeo.polygons import pixels_inside, read_outline
from smgeo.prepare import group_stations
from smgeo.prepare.folds import FOLDS, OF_STATIONS
from smgeo.prepare.places import group_numbers
from smgeo.recipe.models import STACK_FOLDS, is_stacked, parts_of
from smgeo.recipe.station_source import files_of
from smgeo.recipe.study import Recipe
from smgeo.sources import open_source, open_station_source, raster_files
from smgeo.sources.stations.layout import Day
from smgeo.sources.world.simulation import START as WORLD_START
from smgeo.tuning.plan import check_libraries, check_search


def open_all_stations(recipe: Recipe, root: Path) -> xr.Dataset:
    """Return the stations of all sources, lazily, on every day of the period.

    Raises
    ------
    SmgeoError
        Listing what is wrong with each source; or if the sources do not fit together.
    """
    faults = _Faults()
    stations = _open_stations(recipe, root, faults)
    faults.report()
    assert stations is not None
    return stations


def _open_stations(recipe: Recipe, root: Path, faults: _Faults) -> xr.Dataset | None:
    sources: list[xr.Dataset] = []
    target = recipe.target
    for spec in recipe.stations:
        with faults.collect():
            opened = open_station_source(
                spec,
                root=root,
                target=target.variable,
                depth_m=target.depth_m,
                period=recipe.period,
                catalog=recipe.catalog,
            )
            sources.append(opened)
    if len(sources) == len(recipe.stations):
        with faults.collect():
            return merge_stations(sources, recipe.period)
    return None


def input_files(recipe: Recipe, root: Path) -> list[Path]:
    """Return every local file that the cubes are made from."""
    files: list[Path] = []
    for source in recipe.stations:
        files += files_of(root / source.path)
        files += source.more_files(root)
    for raster in recipe.rasters:
        files += raster_files(raster, root)
    if recipe.grid and recipe.grid.like:
        files.append(root / recipe.grid.like)
    return sorted(set(files))


def check_inputs(recipe: Recipe, root: Path, folder: Path) -> xr.Dataset | None:
    """Check all that can be known before any work: parameters of models, and, for real data, files, grids and sizes.

    Returns
    -------
    xarray.Dataset or None
        The opened stations, lazy, so that a run scans its archives once; None without stations, and for a world
        that is still to be simulated.

    Raises
    ------
    SmgeoError
        Listing all that is wrong.
    """
    faults = _Faults()
    _check_models(recipe, folder, faults)
    stations: xr.Dataset | None = None
    if recipe.world is not None:
        first = pd.Timestamp(WORLD_START)
        last = first + pd.Timedelta(days=recipe.world.days - 1)
        faults.found += _find_faults(recipe, recipe.world.stations, recipe.world.stations, first, last)
    else:
        with faults.collect():
            _check_outline(recipe, root)
        if recipe.stations:
            stations = _open_stations(recipe, root, faults)
        if stations is not None:
            days = stations["time"].values
            groups = stations.sizes["station"]
            with faults.collect():
                groups = np.unique(group_numbers(group_stations(stations, **recipe.groups.model_dump()))).size
            with faults.collect("cluster"):
                clusters_of(stations, recipe.cluster)
            faults.found += _find_faults(recipe, stations.sizes["station"], groups, days[0], days[-1])
        _check_rasters(recipe, root, folder, stations, faults)
    faults.report()
    return stations


class _Faults:
    """Messages of all that is wrong, raised as one error."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def collect(self, where: str = "") -> Iterator[None]:
        """Note an error of the block, and go on after it."""
        try:
            yield
        except SmgeoError as error:
            self.found.append(f"{where}: {error}" if where else str(error))

    def report(self) -> None:
        """Raise one error for all messages, if there are any."""
        found = list(dict.fromkeys(self.found))
        if len(found) == 1:
            raise SmgeoError(found[0])
        if found:
            listed = " ".join(f"({i}) {message}" for i, message in enumerate(found, 1))
            raise SmgeoError(f"{len(found)} faults: {listed}")


def _check_models(recipe: Recipe, folder: Path, faults: _Faults) -> None:
    for name, model in recipe.models.items():
        with faults.collect(f"models.{name}"):
            make_model(model.kind, **parts_of(recipe.models, name))
        if name not in recipe.search:
            continue
        with faults.collect(f"search.{name}"):
            check_search(model.kind, recipe.search[name], model.params)
            # A search that was begun may be done, and then needs none.
            if not (folder / "search" / name).exists():
                check_libraries(recipe.search[name])


def _check_outline(recipe: Recipe, root: Path) -> None:
    if recipe.grid is not None and recipe.report is not None and recipe.report.outline is not None:
        box = open_grid(recipe.grid, root)
        assert box.crs is not None
        pixels_inside(read_outline(root / recipe.report.outline, box.crs), box)


def _find_faults(recipe: Recipe, stations: int, groups: int, first: Day, last: Day) -> list[str]:
    """Return what of the recipe does not fit so many stations in so many groups, from the first to the last of their days."""
    return [
        *_fold_faults(recipe, groups),
        *_split_faults(recipe, stations),
        *_period_faults(recipe, first, last),
        *_map_date_faults(recipe, first, last),
    ]


def _split_faults(recipe: Recipe, stations: int) -> Iterator[str]:
    if not recipe.models or recipe.prepare.split.periods is not None:
        return
    fractions = recipe.prepare.split.fractions
    for part, fraction in zip(("validation", "test"), fractions[1:], strict=True):
        if round(fraction * stations) == 0:
            yield (
                f"prepare.split.fractions: {part} would get {fraction:g} of {stations} stations, which is none; "
                "use more stations or a larger fraction"
            )


def _fold_faults(recipe: Recipe, groups: int) -> Iterator[str]:
    """Folds of whole groups of stations need as many groups; by default each place is a fold."""
    asked = [
        (f"cross_validation.folds ({c.method})", c.folds or (0 if c.method == "leave-location-out" else FOLDS))
        for c in recipe.cross_validation
        if c.method in OF_STATIONS
    ]
    if recipe.leakage_audit is not None:
        asked.append(("leakage_audit.folds", recipe.leakage_audit.folds))
    asked += [
        (f"search.{name}.objective", spec.objective)
        for name, spec in recipe.search.items()
        if isinstance(spec.objective, int)
    ]
    asked += [(f"models.{name}.combine", STACK_FOLDS) for name, m in recipe.models.items() if is_stacked(m)]
    for where, folds in asked:
        if folds > groups:
            yield f"{where}: {folds} folds of {groups} groups of stations (places, or those of `groups`); use {groups} or fewer"


def _period_faults(recipe: Recipe, first: Day, last: Day) -> Iterator[str]:
    """Each period of a split in time needs days that the stations have."""
    periods = recipe.prepare.split.periods if recipe.models else None
    start, end = (pd.Timestamp(d).date() for d in (first, last))
    for part in ("train", "validation", "test"):
        days = getattr(periods, part, None)
        if days is not None and (days[1] < start or days[0] > end):
            yield (
                f"prepare.split.periods.{part}: {days[0]} to {days[1]} is outside the stations' days, {start} to {end}"
            )


def _map_date_faults(recipe: Recipe, first: Day, last: Day) -> Iterator[str]:
    """The days to map must be in the grid cube's period, with room for a window before them."""
    if recipe.maps is None:
        return
    days = recipe.grid.period if recipe.grid and recipe.grid.period else (first, last)
    start, end = (pd.Timestamp(d).normalize() for d in days)
    outside = [str(d) for d in recipe.maps.dates if not start <= pd.Timestamp(d) <= end]
    if outside:
        yield f"maps.dates: {', '.join(outside)} outside the grid cube's days, {start.date()} to {end.date()}"
    for name in recipe.maps.models or recipe.models:
        length = recipe.prepare_of(name).window.length
        early = [str(d) for d in recipe.maps.dates if start <= pd.Timestamp(d) < start + pd.Timedelta(days=length - 1)]
        if early and make_model(recipe.models[name].kind, **parts_of(recipe.models, name)).uses_window:
            yield (
                f"maps.dates: {', '.join(early)} leave no room for the window of {length} days that {name} needs in the grid "
                f"cube, which starts on {start.date()}; map later days, start grid.period earlier, or name other maps.models"
            )


def _check_rasters(recipe: Recipe, root: Path, folder: Path, stations: xr.Dataset | None, faults: _Faults) -> None:
    """Open every source at the stations and on the grid; a remote one only while its cube is still to be built."""
    days = (stations["time"].values[0], stations["time"].values[-1]) if stations is not None else recipe.period
    box = None
    with faults.collect():
        box = open_grid(recipe.grid, root) if recipe.grid is not None else None
    for source in recipe.rasters:
        with faults.collect():
            remote = not raster_files(source, root)
            if remote and faults.found:
                continue  # a run that cannot begin sends no requests
            opened = partial(open_source, source, root=root, catalog=recipe.catalog)
            if stations is not None and not (remote and (folder / "stations.zarr").exists()):
                opened(stations=stations, period=days)
            if box is not None and not (remote and (folder / "grid.zarr").exists()):
                opened(geobox=box, period=recipe.grid_period or days)
