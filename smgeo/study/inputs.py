"""What a recipe reads: opened, listed, and checked before any work."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from smgeo.assemble.grid import open_grid
from smgeo.assemble.stations import merge_stations
from smgeo.errors import SmgeoError
from smgeo.models import make_model
from smgeo.polygons import pixels_inside, read_outline
from smgeo.prepare.folds import FOLDS, OF_STATIONS
from smgeo.recipe.study import Recipe
from smgeo.sources import open_source, open_stations, raster_files
from smgeo.sources.world.simulation import START as WORLD_START
from smgeo.tuning.plan import check_libraries, check_search


def open_all_stations(recipe: Recipe, root: Path) -> xr.Dataset:
    """The stations of all sources, lazily, on every day of the period."""
    sources = []
    for source in recipe.stations:
        options = {"target": recipe.target.variable, **source.options(root)}
        if source.takes_catalog:
            options["catalog"] = recipe.catalog
        sources.append(open_stations(root / source.path, source.kind, recipe.target.depth_m, recipe.period, **options))
    return merge_stations(sources, recipe.period)


def input_files(recipe: Recipe, root: Path) -> list[Path]:
    """Every local file that the cubes are made from."""
    files: list[Path] = []
    for source in recipe.stations:
        path = root / source.path
        files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        files += source.more_files(root)
    for raster in recipe.rasters:
        files += raster_files(raster, root)
    if recipe.grid and recipe.grid.like:
        files.append(root / recipe.grid.like)
    return sorted(set(files))


def check_inputs(recipe: Recipe, root: Path, folder: Path) -> None:
    """All that can be known before any work: parameters of models, and, of real data, files, grids and sizes.

    Raises
    ------
    SmgeoError
        Naming the first thing that is not as it must be.
    """
    _check_models(recipe, folder)
    if recipe.world is not None:
        _check_sizes(recipe, recipe.world.stations)
        first = pd.Timestamp(WORLD_START)
        last = first + pd.Timedelta(days=recipe.world.days - 1)
        _check_map_dates(recipe, first, last)
        _check_periods(recipe, first, last)
        return
    _check_outline(recipe, root)
    stations = open_all_stations(recipe, root) if recipe.stations else None
    if stations is not None:
        _check_sizes(recipe, stations.sizes["station"])
        _check_map_dates(recipe, stations["time"].values[0], stations["time"].values[-1])
        _check_periods(recipe, stations["time"].values[0], stations["time"].values[-1])
    _check_rasters(recipe, root, folder, stations)


def _check_models(recipe: Recipe, folder: Path) -> None:
    for name, model in recipe.models.items():
        try:
            make_model(model.kind, **model.params)
        except SmgeoError as error:
            raise SmgeoError(f"models.{name}: {error}") from None
        if name not in recipe.search:
            continue
        try:
            check_search(model.kind, recipe.search[name], model.params)
            # A search that was begun may be done, and then needs none.
            if not (folder / "search" / name).exists():
                check_libraries(recipe.search[name])
        except SmgeoError as error:
            raise SmgeoError(f"search.{name}: {error}") from None


def _check_outline(recipe: Recipe, root: Path) -> None:
    if recipe.grid is not None and recipe.report is not None and recipe.report.outline is not None:
        box = open_grid(recipe.grid, root)
        pixels_inside(read_outline(root / recipe.report.outline, box.crs), box)


def _check_sizes(recipe: Recipe, stations: int) -> None:
    _check_folds(recipe, stations)
    if not recipe.models or recipe.prepare.split.periods is not None:
        return
    fractions = recipe.prepare.split.fractions
    for part, fraction in zip(("validation", "test"), fractions[1:], strict=True):
        if round(fraction * stations) == 0:
            raise SmgeoError(
                f"prepare.split.fractions: {part} would hold {fraction:g} of {stations} stations, that is none; "
                "use more stations or a larger fraction"
            )


def _check_folds(recipe: Recipe, stations: int) -> None:
    """Folds of whole stations need as many stations; where no number of folds is said, locations are their own."""
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
    for where, folds in asked:
        if folds > stations:
            raise SmgeoError(f"{where}: {folds} folds of {stations} stations; use {stations} or fewer")


def _check_periods(recipe: Recipe, first: Any, last: Any) -> None:
    """Each period of a split in time has days that the stations have."""
    periods = recipe.prepare.split.periods if recipe.models else None
    start, end = (pd.Timestamp(d).date() for d in (first, last))
    for part in ("train", "validation", "test"):
        days = getattr(periods, part, None)
        if days is not None and (days[1] < start or days[0] > end):
            raise SmgeoError(
                f"prepare.split.periods.{part}: {days[0]} to {days[1]} lies outside the stations' days, {start} to {end}"
            )


def _check_map_dates(recipe: Recipe, first: Any, last: Any) -> None:
    """Before models are trained: the days to map lie in the grid cube's period, with room for a window before them."""
    if recipe.maps is None:
        return
    days = recipe.grid.period if recipe.grid and recipe.grid.period else (first, last)
    start, end = (pd.Timestamp(d).normalize() for d in days)
    outside = [str(d) for d in recipe.maps.dates if not start <= pd.Timestamp(d) <= end]
    if outside:
        raise SmgeoError(
            f"maps.dates: {', '.join(outside)} outside the grid cube's days, {start.date()} to {end.date()}"
        )
    for name in recipe.maps.models or recipe.models:
        length = recipe.prepare_of(name).window.length
        early = [str(d) for d in recipe.maps.dates if pd.Timestamp(d) < start + pd.Timedelta(days=length - 1)]
        if early and make_model(recipe.models[name].kind).uses_window:
            raise SmgeoError(
                f"maps.dates: {', '.join(early)} leave no room for the window of {length} days that {name} needs in the grid "
                f"cube, which starts on {start.date()}; map later days, start grid.period earlier, or name other maps.models"
            )


def _check_rasters(recipe: Recipe, root: Path, folder: Path, stations: xr.Dataset | None) -> None:
    """Every source opens at the stations and on the grid; a remote one is asked only while its cube is still to come."""
    days = (stations["time"].values[0], stations["time"].values[-1]) if stations is not None else recipe.period
    box = open_grid(recipe.grid, root) if recipe.grid is not None else None
    for source in recipe.rasters:
        remote = not raster_files(source, root)
        opened = partial(open_source, source, root=root, catalog=recipe.catalog)
        if stations is not None and not (remote and (folder / "stations.zarr").exists()):
            opened(stations=stations, period=days)
        if box is not None and not (remote and (folder / "grid.zarr").exists()):
            opened(geobox=box, period=recipe.grid_period or days)
