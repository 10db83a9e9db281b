"""Stages from the sources to the cubes: the built-in world, the inputs, the station cube, the grid cube."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from smgeo.assemble.grid import build_grid_cube, open_grid
from smgeo.assemble.ranges import check_grid_ranges, check_ranges
from smgeo.assemble.stations import build_station_cube, write_station_cube
from smgeo.cube.chunks import chunk_sizes
from smgeo.cube.ledger import read_dropped, read_ledger
from smgeo.cube.reading import open_cube
from smgeo.cube.tally import with_dropped
from smgeo.cube.writing import write_cube
from smgeo.files import JsonObject, digest
from smgeo.polygons import polygon_files
from smgeo.recipe.study import dump_recipe
from smgeo.report.grid_contents import count_masked, describe_grid, describe_shown
from smgeo.report.results import count_station_rows
from smgeo.report.table import as_reasons
from smgeo.report.variables import count_dropped, describe_variables
from smgeo.sources.world.simulation import simulate
from smgeo.study.context import Context, Found
from smgeo.study.inputs import input_files, open_all_stations
from smgeo.study.progress import Update

# Raised by hand when the contents of a cube are described with other keys.
_CONTENTS = 2


def keep_recipe(run: Context, found: Found) -> Found:
    """Write the resolved recipe into the run's folder."""
    (run.folder / "recipe.yaml").write_text(dump_recipe(run.recipe), encoding="utf-8")
    return found


def simulate_world(run: Context, found: Found) -> Found:
    """Simulate the recipe's world into the folder where its data are looked for."""
    if run.recipe.world is None:
        return found
    spec = run.recipe.world.model_dump(mode="json")
    return run.do(found, "world", partial(_simulate, run), spec, [run.root])[0]


def _simulate(run: Context, progress: Update) -> None:
    spec = run.recipe.world
    assert spec is not None
    shutil.rmtree(run.folder / "world", ignore_errors=True)
    simulate(run.root, spec.stations, spec.days, spec.shape, spec.seed, progress=progress)


def hash_inputs(run: Context, found: Found) -> Found:
    """Hash each file that the cubes are made from."""
    return replace(found, inputs=_hash_files(run, input_files(run.recipe, run.root)))


def _hash_files(run: Context, files: list[Path]) -> dict[str, str]:
    """Return the SHA-256 of files, by their path below the data folder."""
    return {os.path.relpath(f, run.root): h for f, h in run.ledger.hash_files(files).items()}


def build_stations(run: Context, found: Found) -> Found:
    """Write `stations.zarr`, and count its rows."""
    if not run.recipe.stations:
        return found
    keys = {"period", "target", "stations", "rasters", "features", "variables"}
    inputs = {"recipe": run.recipe.model_dump(mode="json", include=keys), "inputs": found.inputs}
    work = partial(_build_stations, run, run.ledger.key("stations", inputs))
    found, rows = run.do(found, "stations", work, inputs, [run.station_store])
    return found.add(rows=rows)


def _build_stations(run: Context, key: str, progress: Update) -> JsonObject:
    recipe, parts = run.recipe, dict[str, object]()
    with run.machine.cubes(remote=recipe.reads_remote):
        cube = build_station_cube(
            open_all_stations(recipe, run.root) if run.opened is None else run.opened,
            recipe.rasters,
            recipe.cube_features,
            run.target,
            run.root,
            recipe.catalog,
            keep=partial(_keep_values, run, progress, parts),
        )
        # The files' hashes do not cover a remote source: only the values kept of it tell whether it has changed.
        write_station_cube(cube, run.station_store, token=digest({"key": key, "parts": parts}), progress=progress)
    _report_dropped(run, run.station_store)
    return count_station_rows(run.open_stations(), run.target)


def _keep_values(run: Context, update: Update, parts: dict[str, object], name: str, values: xr.Dataset) -> xr.Dataset:
    """Write the values of one source at the stations to a store of their own, so that a killed build loses a block and not a series.

    `parts` gets the checksums of the store.
    """
    path = run.folder / "parts" / f"{name}.zarr"
    write_cube(values, path, chunks=chunk_sizes(values), progress=lambda done, total: update(done, total, name))
    records = read_ledger(path)
    parts[name] = records.regions if records else None
    kept = with_dropped(open_cube(path), [read_dropped(path)])
    check_ranges(kept, run.recipe.catalog, f"stations, source {name}")
    return kept


def build_grid(run: Context, found: Found) -> Found:
    """Write `grid.zarr`."""
    if not run.recipe.builds_grid:
        return found
    asked = run.recipe.model_dump(mode="json", include={"period", "rasters", "grid", "features", "variables"})
    inputs = {"recipe": asked, "inputs": found.inputs, **found.keys("stations")}
    work = partial(_build_grid, run, run.ledger.key("grid", inputs))
    return run.do(found, "grid", work, inputs, [run.grid_store])[0]


def _build_grid(run: Context, key: str, progress: Update) -> None:
    recipe, path = run.recipe, run.grid_store
    assert recipe.grid is not None
    with run.machine.cubes(remote=recipe.reads_remote):
        box, period = open_grid(recipe.grid, run.root), _grid_period(run)
        cube = build_grid_cube(recipe.rasters, box, recipe.cube_features, period, run.root, recipe.catalog)
        again = path.exists()
        if not again:  # before hours of work; of what is built again, most is not read, so it is checked after
            check_grid_ranges(cube, recipe.rasters, recipe.catalog)
        write_cube(cube, path, token=key, progress=progress)
        if again:
            check_grid_ranges(open_cube(path), recipe.rasters, recipe.catalog)
    _report_dropped(run, path)


def _report_dropped(run: Context, store: Path) -> None:
    """Report the values that sources dropped for a cube."""
    for variable, reasons in count_dropped(store).items():
        run.reporter.say(f"warning: {store.name}: {variable}: values made missing: {as_reasons(reasons)}")


def _grid_period(run: Context) -> tuple[Any, Any]:
    """Return the first and the last day of the grid cube: the recipe's, or the stations'."""
    if run.recipe.grid_period is not None:
        return run.recipe.grid_period
    times = run.open_stations()["time"].values
    return times[0], times[-1]


def describe_station_cube(run: Context, found: Found) -> Found:
    """Summarise the variables of the station cube."""
    recipe, target = run.recipe, run.target
    if not recipe.stations:
        return found
    inputs = {"contents": _CONTENTS, **found.keys("stations")}

    def describe(progress: Update) -> JsonObject:
        return describe_variables(run.station_store, (target, *recipe.cube_features), recipe.catalog, target=target)

    found, about = run.do(found, "station contents", describe, inputs)
    return found.add(features=about)


def describe_grid_cube(run: Context, found: Found) -> Found:
    """Summarise the grid cube, and choose what the report shows of it."""
    recipe = run.recipe
    if not recipe.builds_grid:
        return found
    masked = recipe.report is not None or not recipe.models  # these shares cost another reading of the files
    inputs = {"contents": _CONTENTS, "masked": masked, **found.keys("grid")}
    found, about = run.do(found, "grid contents", lambda progress: _count_grid(run, masked=masked), inputs)
    if (spec := recipe.report) is not None:
        outputs = [run.folder / "outline.geojson"] if spec.outline is not None else []
        inputs = {"report": spec.model_dump(mode="json"), "inputs": hash_outline(run), **found.keys("grid")}
        found, shown = run.do(
            found, "grid shown", lambda progress: describe_shown(run.folder, spec, run.root), inputs, outputs
        )
        about |= shown
    return found.add(grid=about)


def _count_grid(run: Context, *, masked: bool) -> JsonObject:
    recipe, path = run.recipe, run.grid_store
    about = describe_grid(path, recipe.cube_features, recipe.catalog)
    rasters = recipe.rasters if masked else ()
    shares = count_masked(open_cube(path), rasters, _grid_period(run), run.root, recipe.catalog)
    for name, share in shares.items():
        about["variables"][name]["masked_share"] = share
    return about


def hash_outline(run: Context) -> Mapping[str, str]:
    """Hash the report's outline: of no cube, so that another outline does not build one again."""
    if run.recipe.report is None or run.recipe.report.outline is None:
        return {}
    return _hash_files(run, polygon_files(run.root / run.recipe.report.outline))
