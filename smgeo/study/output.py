"""The last stages: rows that each step removed, `results.json`, `provenance.json`, and the report."""

from __future__ import annotations

import json
from dataclasses import replace

from smgeo.cube.reading import open_cube
from smgeo.cube.schema import observed
from smgeo.evaluation.distances import describe_distances
from smgeo.files import write_json
from smgeo.prepare import OutlierRows, clean_cube
from smgeo.prepare.prediction_points import sample_pixels
from smgeo.report import write_report
from smgeo.report.results import (
    broken_stations,
    count_in_buffer,
    count_rows,
    count_used,
    describe_outliers,
    describe_provenance,
    describe_split,
)
from smgeo.report.schema import check_results
from smgeo.study.context import Context, Found
from smgeo.study.cubes import hash_outline
from smgeo.study.prepared import prepared_stations


def count_removed(run: Context, found: Found) -> Found:
    """Count the rows that each step removed, and name the stations that were left out."""
    if not run.recipe.stations:
        return found
    target = run.recipe.target
    units = run.recipe.catalog[target.variable].units
    found = found.add(target={"variable": target.variable, "units": units, "depth_m": list(target.depth_m)})
    return _count_of_models(run, found) if found.split is not None else _count_of_cube(run, found)


def _count_of_models(run: Context, found: Found) -> Found:
    cube, split = run.open_stations(), found.split
    assert split is not None
    kept = len({s for part in split.parts().values() for s in part})
    lost = prepared_stations(run, found, found.prepare, split).train().outliers
    used = count_used(cube, split, run.target) if split.periods else None
    chosen = found.results.get("threshold")
    when = "training day" if split.periods else "day"
    without = dict.fromkeys(split.left_out, f"no {when} with a value of {run.target}")
    buffered = len(split.in_buffer), count_in_buffer(cube, split, run.target)
    distances = describe_distances(cube, split, sample_pixels(open_cube(run.grid_store)) if _has_grid(run) else None)
    return found.add(
        split=describe_split(split, cube),
        **({"distances": distances} if distances else {}),
        rows=count_rows(found.results["rows"], kept, lost.rows, found.models, used, buffered),
        left_out={**json.loads(cube.attrs.get("left_out", "{}")), **broken_stations(cube), **without},
        training={name: about["training"] for name, about in found.models.items()},
        **describe_outliers(found.prepare.outliers, lost, chosen),
    )


def _has_grid(run: Context) -> bool:
    return run.recipe.builds_grid and run.grid_store.is_dir()


def _count_of_cube(run: Context, found: Found) -> Found:
    """Count what preparation would remove of the station cube, for recipes without models."""
    cube, recipe = run.open_stations(), run.recipe
    kept = [str(s) for s in cube["station"].values[observed(cube[run.target]).any("time").values]]
    lost = clean_cube(cube, recipe.prepare, recipe.cube_features, run.target, kept)[1] if kept else OutlierRows()
    return found.add(
        stations=kept,
        rows=count_rows(found.results["rows"], len(kept), lost.rows, {}),
        left_out={**json.loads(cube.attrs.get("left_out", "{}")), **broken_stations(cube)},
        **describe_outliers(recipe.prepare.outliers, lost),
    )


def write_results(run: Context, found: Found) -> Found:
    """Write `results.json` and `provenance.json`."""
    known = {name: value for name, value in found.results.items() if name != "threshold"}
    failed = {"failed": dict(found.failed)} if found.failed else {}
    results = check_results({"name": run.recipe.name, "models": {}, **known, **failed})
    inputs = {**found.inputs, **hash_outline(run)}
    write_json(run.folder / "results.json", results)
    write_json(
        run.folder / "provenance.json",
        describe_provenance(run.recipe.name, run.recipe.seed, inputs, {n: d.record() for n, d in found.done.items()}),
    )
    return replace(found, results=results)


def draw_report(run: Context, found: Found) -> Found:
    """Write `report.html`, and `tables/` of the models."""
    inputs = {"results": found.results, "keys": found.keys(*found.done)}
    written = [run.folder / name for name in ("report.html", *(["tables"] if found.models else []))]
    return run.do(found, "report", lambda progress: write_report(run.folder, progress=progress), inputs, written)[0]
