"""The quickstart study at toy size: what a run leaves, what a second one skips, and what a kill costs."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
import yaml

import smgeo
from smgeo.recipe.study import parse_recipe, read_recipe

pytest.importorskip("tensorflow")
pytest.importorskip("ydf")
pytest.importorskip("ismn")

RECIPES = Path(__file__).parents[2] / "recipes"
SCORES = {"rmse", "ubrmse", "bias", "r", "n", "stations", "per_station"}
MEDIANS = {"rmse_median", "ubrmse_median", "bias_median", "r_median"}
PARTS = ("train", "validation", "test")
MODELS = ("rf", "ann", "gru", "lstm")


def stage_names(folder):
    return set(json.loads((folder / "provenance.json").read_text())["stages"])


def done_of(folder) -> dict[str, float]:
    """Time of change of each stage's record."""
    records = [p for p in (folder / ".stages").glob("*.json") if p.name != "hashes.json"]
    return {json.loads(p.read_text())["stage"]: p.stat().st_mtime_ns for p in records}


def numbers(results):
    return json.loads(json.dumps(results))


@pytest.fixture
def run_copy(toy_run, tmp_path):
    """The finished run, to change."""
    return Path(shutil.copytree(toy_run.folder, tmp_path / "run"))


def test_results_have_the_keys_of_the_contract(toy_run):
    results = json.loads((toy_run.folder / "results.json").read_text())
    assert set(results["models"]) == set(MODELS)
    for parts in results["models"].values():
        assert set(parts) == set(PARTS)
        for scores in parts.values():
            assert set(scores) == SCORES
            assert set(scores["per_station"]) == MEDIANS
    assert "cross_validation" not in results  # the recipe does not ask for it


def test_scores_are_those_of_the_predictions_kept(toy_run):
    for name in MODELS:
        ds = xr.open_zarr(toy_run.folder / "predictions" / f"{name}.zarr", consolidated=False).load()
        for part in PARTS:
            here = ds.isel(station=np.flatnonzero(np.array([str(v) for v in ds["part"].values]) == part))
            observed, estimated = (here[v].values.astype("float64").ravel() for v in ("observed", "predicted"))
            seen = np.isfinite(observed) & np.isfinite(estimated)
            o, e = observed[seen], estimated[seen]
            scores = toy_run.results["models"][name][part]
            assert scores["n"] == o.size > 0
            assert scores["stations"] == here.sizes["station"] == len(toy_run.results["split"][part])
            assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((e - o) ** 2)), rel=1e-4)
            assert scores["bias"] == pytest.approx(np.mean(e) - np.mean(o), abs=1e-6)
            assert scores["ubrmse"] == pytest.approx(np.std(e - o), rel=1e-4)
            assert scores["r"] == pytest.approx(np.corrcoef(o, e)[0, 1], abs=1e-4)


def test_observations_kept_are_those_of_the_station_cube(toy_run):
    """In m3 m-3, after the way back from scaling."""
    cube = smgeo.open_cube(toy_run.folder / "stations.zarr").load()
    ds = xr.open_zarr(toy_run.folder / "predictions" / "rf.zarr", consolidated=False).load()
    for station in toy_run.results["split"]["test"]:
        observed = ds["observed"].sel(station=station)
        seen = observed.notnull().values
        np.testing.assert_allclose(
            observed.values[seen], cube["sm"].sel(station=station, time=observed["time"]).values[seen], atol=1e-5
        )


def test_parts_share_no_station(toy_run):
    parts = [set(toy_run.results["split"][p]) for p in PARTS]
    sm = smgeo.open_cube(toy_run.folder / "stations.zarr")["sm"].load()
    measured = {str(s) for s in sm["station"].values if bool(sm.sel(station=s).notnull().any())}
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert set.union(*parts) == measured
    assert [len(p) for p in parts] == [len(measured) - 2 * round(0.1 * len(measured))] + [
        round(0.1 * len(measured))
    ] * 2


def test_maps_are_where_and_on_what_grid_they_must_be(toy_run):
    expected = {toy_run.folder / "maps" / m / f"sm_{d}.tif" for m in MODELS for d in ("2016-02-10", "2016-03-01")}
    assert set(toy_run.maps) == expected
    with rasterio.open(toy_run.folder / "world" / "rasters" / "static" / "terrain.tif") as like:
        grid = (like.crs, like.transform, like.shape)
    for path in sorted(expected):
        with rasterio.open(path) as src:
            assert (src.crs, src.transform, src.shape) == grid
            assert src.crs.to_epsg() == 32632
            assert src.descriptions[0] == "sm"
            values = src.read(1, masked=True).filled(np.nan)
        assert np.isfinite(values).any()
        store = smgeo.open_cube(toy_run.folder / "maps" / f"{path.parent.name}.zarr")
        np.testing.assert_allclose(values, store["sm"].sel(time=path.stem.removeprefix("sm_")).values, atol=1e-6)


def test_provenance_has_the_hash_of_every_input_and_stage(toy_run):
    provenance = json.loads((toy_run.folder / "provenance.json").read_text())
    world = toy_run.folder / "world"
    files = [p for part in ("ismn", "rasters") for p in (world / part).rglob("*") if p.is_file()]
    assert provenance["inputs"] == {
        str(p.relative_to(world)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }
    stages = {"world", "stations", "grid", "split", *(f"{k} {m}" for k in ("model", "map") for m in MODELS)}
    assert stages <= set(provenance["stages"])
    assert provenance["versions"]["smgeo"] == smgeo.__version__


def test_resolved_recipe_gives_the_same_study(toy_run, toy_recipe):
    assert read_recipe(toy_run.folder / "recipe.yaml") == parse_recipe(toy_recipe)


def test_second_run_skips_every_stage_and_changes_no_result(run_copy, toy_recipe):
    before, bytes_before = done_of(run_copy), (run_copy / "results.json").read_bytes()
    again = smgeo.run(toy_recipe, out=run_copy)
    assert done_of(run_copy) == before
    assert (run_copy / "results.json").read_bytes() == bytes_before
    assert again.results == json.loads(bytes_before)


def test_changing_models_runs_models_maps_and_report_alone(run_copy, toy_recipe):
    before = done_of(run_copy)
    recipe = copy.deepcopy(toy_recipe)
    recipe["models"]["rf"]["trees"] = 6
    smgeo.run(recipe, out=run_copy)
    after = done_of(run_copy)
    assert {n for n in after if after[n] != before.get(n)} == {"model rf", "map rf", "report"}


def test_lost_map_is_made_again(run_copy, toy_recipe):
    path = run_copy / "maps" / "rf" / "sm_2016-02-10.tif"
    content = path.read_bytes()
    path.unlink()
    smgeo.run(toy_recipe, out=run_copy)
    assert path.read_bytes() == content


def test_map_of_a_model_no_longer_asked_for_is_not_reported(run_copy, toy_recipe):
    recipe = {**copy.deepcopy(toy_recipe), "models": {"rf": {"trees": 5}}}
    again = smgeo.run(recipe, out=run_copy)
    assert set(again.results["models"]) == {"rf"}
    assert {p.parent.name for p in again.maps} == {"rf"}


# ---- inputs that are read, and must be hashed


def make_table_study(folder):
    """Ten stations in a wide table, their places in a second one, precipitation dated by a third."""
    days = [f"2020-01-{d:02d}" for d in range(1, 11)]
    names = [f"s{i}" for i in range(10)]
    rows = [",".join(["day", *names])] + [
        ",".join([d, *(f"0.{(k + i) % 9 + 1}" for i in range(10))]) for k, d in enumerate(days)
    ]
    (folder / "wide.csv").write_text("\n".join(rows) + "\n")
    (folder / "places.csv").write_text(
        "station,latitude,longitude\n" + "\n".join(f"{n},0.{i}5,0.05" for i, n in enumerate(names)) + "\n"
    )
    (folder / "dates.csv").write_text("file,date\n" + "\n".join(f"p{k}.tif,{d}" for k, d in enumerate(days)) + "\n")
    for k in range(10):
        write_plane(folder / f"p{k}.tif", k)
    write_plane(folder / "grid.tif", 0)
    return {
        "name": "table",
        "stations": [
            {"kind": "csv", "path": "wide.csv", "layout": "wide", "stations": "places.csv", "columns": {"time": "day"}}
        ],
        "rasters": [{"kind": "geotiff", "path": "p*.tif", "dates_table": "dates.csv", "bands": {"precipitation": 1}}],
        "grid": {"like": "grid.tif"},
        "features": ["precipitation", "doy_sin"],
        "prepare": {
            "fill": None,
            "split": {"fractions": [0.6, 0.2, 0.2], "extremes_to_train": False},
            "window": {"length": 1},
        },
        "models": {"rf": {"trees": 2}},
        "maps": {"dates": ["2020-01-05"]},
    }


def write_plane(path, value, pixels=10):
    transform = rasterio.transform.from_origin(0, 1, 1 / pixels, 1 / pixels)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=pixels,
        width=pixels,
        count=1,
        dtype="float32",
        crs="EPSG:4326",
        transform=transform,
    ) as dst:
        dst.write(np.full((pixels, pixels), value, "float32"), 1)


def test_every_file_that_is_read_is_hashed_and_a_change_in_it_is_seen(tmp_path):
    recipe, out = make_table_study(tmp_path), tmp_path / "out"
    smgeo.run(recipe, out=out, data=tmp_path)
    inputs = set(json.loads((out / "provenance.json").read_text())["inputs"])
    assert inputs >= {"wide.csv", "p0.tif", "p9.tif"}
    (tmp_path / "places.csv").write_text((tmp_path / "places.csv").read_text().replace("s0,0.05,0.05", "s0,0.05,0.95"))
    smgeo.run(recipe, out=out, data=tmp_path)
    moved = smgeo.open_cube(out / "stations.zarr")["longitude"].sel(station="TABLE/s0")
    assert float(moved) == pytest.approx(0.95)
    (tmp_path / "dates.csv").write_text(
        (tmp_path / "dates.csv").read_text().replace("p0.tif,2020-01-01", "p0.tif,2020-01-02")
    )
    smgeo.run(recipe, out=out, data=tmp_path)
    first = smgeo.open_cube(out / "stations.zarr")["precipitation"].sel(time="2020-01-01")
    assert bool(first.isnull().all())
    write_plane(tmp_path / "grid.tif", 0, pixels=5)
    smgeo.run(recipe, out=out, data=tmp_path)
    assert smgeo.open_cube(out / "grid.zarr").sizes["y"] == 5


# ---- kill -9


def start(recipe, out):
    return subprocess.Popen(
        [sys.executable, "-m", "smgeo", "run", str(recipe), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_killed_runs_continue_to_the_results_of_an_undisturbed_one(toy_run, toy_recipe, tmp_path):
    """Killed in the middle of the world, of the station cube, of a model and of a map; the fifth run finishes."""
    recipe, out = tmp_path / "toy.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(toy_recipe, sort_keys=False))
    for moment in ("world*", "stations.zarr.part", "models/rf", "maps/rf*"):
        process = start(recipe, out)
        try:
            while process.poll() is None and not list(out.glob(moment)):
                time.sleep(0.01)
        finally:
            # A run that ended by itself would make this test say nothing.
            assert process.poll() is None, process.stderr.read().decode()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert not (out / "results.json").exists()
    process = start(recipe, out)
    _, err = process.communicate()
    assert process.returncode == 0, err.decode()
    results = json.loads((out / "results.json").read_text())
    assert results == numbers(toy_run.results)
    for path in toy_run.maps:
        with rasterio.open(path) as a, rasterio.open(out / path.relative_to(toy_run.folder)) as b:
            np.testing.assert_array_equal(a.read(1), b.read(1))
    leftovers = [p.name for p in out.rglob("*") if p.name.endswith((".part", ".old"))]
    assert leftovers == []


# ---- the script


def test_script_by_hand_has_fewer_than_60_lines():
    lines = (RECIPES / "quickstart.py").read_text(encoding="utf-8").splitlines()
    assert 10 < len(lines) < 60


@pytest.mark.soak
def test_search_uses_the_trial_with_the_least_validation_error(toy_recipe, tmp_path):
    recipe = copy.deepcopy(toy_recipe)
    recipe.pop("maps", None)
    recipe.pop("grid", None)
    recipe["models"] = {"rf": {"trees": 3}}
    recipe["search"] = {"rf": {"trials": 3, "space": {"max_depth": {"integer": [1, 12]}, "min_examples": [2, 50]}}}
    out = tmp_path / "run"
    results = smgeo.run(recipe, out=out).results
    found = results["search"]["rf"]
    rmse = [t["validation_rmse"] for t in found["trials"]]
    assert len(set(rmse)) > 1
    assert found["best"] == rmse.index(min(rmse))
    model = json.loads((out / "models" / "rf" / "model.json").read_text())
    best = found["trials"][found["best"]]
    assert {k: model["params"][k] for k in best["params"]} == best["params"]
    # The model that is kept is that trial's, so its validation score is the trial's.
    assert results["models"]["rf"]["validation"]["rmse"] == pytest.approx(best["validation_rmse"], rel=1e-6)


def test_threshold_of_outliers_is_chosen_on_the_split_and_told(tmp_path):
    recipe, out = make_table_study(tmp_path), tmp_path / "out"
    recipe["prepare"]["outliers"] = {"z": "choose", "variables": ["sm", "precipitation"]}
    found = smgeo.run(recipe, out=out, data=tmp_path).results
    about = found["outliers"]
    assert [t["z"] for t in about["thresholds"]] == [3.0, 3.5, 4.0, 4.5, 5.0, None]
    # No value lies beyond three deviations, so that all thresholds are as good, and the greatest drops least.
    assert (about["z"], about["rows"], about["by_variable"]) == (5.0, 0, {"sm": 0, "precipitation": 0})
    assert {t["rows_dropped"] for t in about["thresholds"]} == {0}
    assert "validation RMSE" in (out / "report.html").read_text(encoding="utf-8")
    said = {**recipe, "prepare": {**recipe["prepare"], "outliers": {"z": 1.4}}}
    again = smgeo.run(said, out=tmp_path / "said", data=tmp_path).results
    assert set(again["outliers"]) == {"z", "per_station", "rows", "by_variable"}
    removed = [r["removed"] for r in again["rows"] if r["step"].startswith("outliers")]
    assert removed == [again["outliers"]["rows"]] == [again["outliers"]["by_variable"]["sm"]]  # rain is heavy-tailed
    assert removed[0] > 0
    assert "1.4 standard deviations" in (tmp_path / "said" / "report.html").read_text(encoding="utf-8")


def test_importance_and_learning_curves_are_stages_of_their_own(run_copy, toy_recipe):
    before = done_of(run_copy)
    recipe = copy.deepcopy(toy_recipe)
    recipe["importance"] = {
        "models": ["rf"],
        "groups": {"soil": ["sand", "silt", "clay"], "season": ["doy_sin", "doy_cos"]},
    }
    recipe["learning_curve"] = {"models": ["rf"], "fractions": [0.5, 1.0]}
    results = smgeo.run(recipe, out=run_copy).results
    assert {r["feature"] for r in results["importance"]["rf"]} == {"soil", "season"}
    curve = results["learning_curve"]["rf"]
    assert [r["fraction"] for r in curve] == [0.5, 1.0]
    # Trained on all training stations it is the model of the run.
    assert curve[1]["stations"] == len(results["split"]["train"])
    assert curve[1]["rmse"] == pytest.approx(results["models"]["rf"]["test"]["rmse"], rel=1e-5)
    after = done_of(run_copy)
    assert {n for n in after if after[n] != before.get(n)} == {"importance rf", "learning curve rf", "report"}
    page = (run_copy / "report.html").read_text()
    assert "What the models use" in page
    assert "How many stations it takes" in page


def test_intervals_pairs_and_groups_come_from_the_predictions_kept(toy_run):
    results = toy_run.results
    stores = {n: xr.open_zarr(toy_run.folder / "predictions" / f"{n}.zarr", consolidated=False).load() for n in MODELS}
    for name in MODELS:
        assert set(results["intervals"][name]) == set(PARTS)
        low, high = results["intervals"][name]["train"]["rmse"]
        assert low < results["models"][name]["train"]["rmse"] < high
    pairs = {(c["first"], c["second"]): c for c in results["comparisons"]}
    assert list(pairs) == [
        ("rf", "ann"),
        ("rf", "gru"),
        ("rf", "lstm"),
        ("ann", "gru"),
        ("ann", "lstm"),
        ("gru", "lstm"),
    ]
    test = np.array([str(p) == "test" for p in stores["rf"]["part"].values])
    a, b = (stores[n].isel(station=test) for n in ("rf", "gru"))
    both = a["observed"].notnull() & a["predicted"].notnull() & b["predicted"].notnull()
    assert pairs["rf", "gru"]["n"] == int(both.sum()) > 0
    error = (a["predicted"] - a["observed"]).where(both)
    assert pairs["rf", "gru"]["rmse_first"] == pytest.approx(
        float(np.sqrt((error.astype("float64") ** 2).mean())), rel=1e-5
    )
    networks = {r["group"]: r for r in results["groups"]["network"]["rf"]}
    assert sum(r["n"] for r in networks.values()) == results["models"]["rf"]["test"]["n"]
    assert set(networks) == {str(s).split("/")[0] for s in results["split"]["test"]}
    assert sum(r["stations"] for r in results["groups"]["texture"]["rf"]) == len(results["split"]["test"])
