"""The stage that maps the models' estimates on the grid cube."""

from __future__ import annotations

import shutil
from functools import partial

from smgeo.cube.reading import open_cube
from smgeo.files import JsonObject
from smgeo.maps.predict import predict_map_files
from smgeo.maps.request import MapOptions
from smgeo.maps.strips import Thinned
from smgeo.models import load_model
from smgeo.report import write_slider
from smgeo.report.results import score_map
from smgeo.study.context import Context, Found
from smgeo.study.progress import Update

# Days shown in a map's page, evenly spread over those of the map.
_SLIDER_DAYS = 60


def make_maps(run: Context, found: Found) -> Found:
    """Write the maps of each model that the recipe asks for: Zarr, GeoTIFFs with a STAC catalogue, and a page."""
    spec, tables = run.recipe.maps, {}
    if spec is None:
        return found
    for name in run.asked(found, spec):
        inputs = {"maps": spec.model_dump(mode="json", exclude={"models"}), **found.keys("grid", f"model {name}")}
        outputs = [run.folder / "maps" / f"{name}{kind}" for kind in ("", ".zarr", ".html")]
        found, tables[name] = run.do(found, f"map {name}", partial(_map, run, name), inputs, outputs)
    return found.add(maps=tables)


def _map(run: Context, name: str, progress: Update) -> JsonObject:
    spec, intervals = run.recipe.maps, run.recipe.intervals
    assert spec is not None
    folder, store, page = (run.folder / "maps" / f"{name}{kind}" for kind in ("", ".zarr", ".html"))
    shutil.rmtree(folder, ignore_errors=True)
    options = MapOptions(
        region=run.root / spec.region if isinstance(spec.region, str) else spec.region,
        intervals=intervals.level if intervals is not None and run.asks(intervals, name) else None,
        layers=spec.layers,
    )
    shown = Thinned(_SLIDER_DAYS)
    with run.machine.cubes():
        made = predict_map_files(
            load_model(run.folder / "models" / name),
            open_cube(run.grid_store),
            store,
            folder,
            list(spec.dates),
            options=options,
            title=f"{run.recipe.name}: soil moisture by {name}",
            readers=[shown],
            keep_cogs=False,  # so that the same recipe gives the same bytes in another folder
            progress=progress,
        )
    title = f"{run.recipe.name}, {name}"
    write_slider(shown.dataset, page, run.open_stations(), title=title, target=run.target)
    truth = run.root / "truth.zarr" if run.recipe.world is not None else None
    return {"dates": made["dates"], "nodata_share": made["nodata_share"], **score_map(store, run.target, truth)}
