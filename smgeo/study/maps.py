"""The stage that maps the models' estimates on the grid cube."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np

from smgeo.cube.reading import open_cube
from smgeo.files import JsonObject
from smgeo.maps import open_map, predict_map, write_cogs, write_stac
from smgeo.models import load_model
from smgeo.report import write_slider
from smgeo.report.results import describe_map
from smgeo.study.context import Context, Found
from smgeo.study.progress import Update

# Days shown in a map's page, evenly spread over those of the map.
_SLIDER_DAYS = 60


def make_maps(run: Context, found: Found) -> Found:
    """Write the maps of each model that the recipe asks for: Zarr, GeoTIFFs with a STAC catalogue, and a page."""
    spec, tables = run.recipe.maps, {}
    if spec is None:
        return found
    for name in run.asked(spec):
        inputs = {"maps": spec.model_dump(mode="json", exclude={"models"}), **found.keys("grid", f"model {name}")}
        outputs = [run.folder / "maps" / f"{name}{kind}" for kind in ("", ".zarr", ".html")]
        found, tables[name] = run.do(found, f"map {name}", partial(_map, run, name), inputs, outputs)
    return found.add(maps=tables)


def _map(run: Context, name: str, progress: Update) -> JsonObject:
    spec, intervals = run.recipe.maps, run.recipe.intervals
    assert spec is not None
    folder, store, page = (run.folder / "maps" / f"{name}{kind}" for kind in ("", ".zarr", ".html"))
    shutil.rmtree(folder, ignore_errors=True)
    with run.machine.cubes():
        predict_map(
            load_model(run.folder / "models" / name),
            open_cube(run.grid_store),
            store,
            list(spec.dates),
            region=run.root / spec.region if isinstance(spec.region, str) else spec.region,
            intervals=intervals.level if intervals is not None and run.asks(intervals, name) else None,
            progress=progress,
        )
    write_cogs(store, folder)
    write_stac(folder, f"{run.recipe.name}: soil moisture by {name}")
    made = open_map(store)
    shown = np.unique(np.linspace(0, made.sizes["time"] - 1, _SLIDER_DAYS).round().astype(int))
    title = f"{run.recipe.name}, {name}"
    write_slider(made.isel(time=shown), page, run.open_stations(), title=title, target=run.target)
    return describe_map(store, run.target, run.root / "truth.zarr" if run.recipe.world is not None else None)
