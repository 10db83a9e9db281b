"""Maps that are interrupted, go on; on threads, on workers and in other chunks they are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import smgeo
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.maps import layout
from smgeo.prepare import prepare_cube
from smgeo.recipe.preparation import PrepareSpec

FEATURES = ["s1_vv", "precipitation", "clay"]
TRAIN = [f"N/s{i}" for i in range(4)]
# Blocks of 4 x 4 pixels, so that there are many; a while between them, so that a kill meets the middle.
SCRIPT = """
import sys, time
import smgeo
from smgeo.maps import layout, predict
layout.MAP_CHUNK = {"time": 4, "y": 4, "x": 4}
whole = predict.predict_block
def slow(*args):
    time.sleep(0.05)
    return whole(*args)
predict.predict_block = slow
smgeo.predict_map(smgeo.load_model(sys.argv[1]), smgeo.open_cube(sys.argv[2]), sys.argv[3])
"""


@pytest.fixture(scope="module")
def folder(make_station_cube, make_grid_cube, tmp_path_factory):
    """A folder with a model and a grid cube."""
    folder = tmp_path_factory.mktemp("maps")
    spec = PrepareSpec.model_validate({"fill": {"limit": 2}, "outliers": None, "scale": "minmax"})
    prepared = prepare_cube(make_station_cube(gaps=0.1), spec, FEATURES, "sm", TRAIN)
    smgeo.make_model("rf", trees=5, threads=1).fit(prepared.windows(TRAIN, 1, 0.0)).save(folder / "rf")
    write_cube(make_grid_cube(days=10, height=24, width=30, gaps=0.3), folder / "grid.zarr")
    return folder


def _content(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def _start(folder, out):
    command = [sys.executable, "-c", SCRIPT, str(folder / "rf"), str(folder / "grid.zarr"), str(out)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("name", ["maps", pytest.param("map.zarr", marks=pytest.mark.soak)])
def test_killed_maps_go_on_to_the_same_bytes(folder, tmp_path, name, monkeypatch):
    monkeypatch.setattr(layout, "MAP_CHUNK", {"time": 4, "y": 4, "x": 4})
    whole = smgeo.predict_map(
        smgeo.load_model(folder / "rf"), smgeo.open_cube(folder / "grid.zarr"), tmp_path / "whole" / name
    )
    out = tmp_path / "killed" / name
    store = "map.zarr.part" if name == "map.zarr" else "maps/.map-*.zarr.part"
    done = []
    for wanted in (5, 20, 35):
        process = _start(folder, out)
        while process.poll() is None and len(list(out.parent.glob(f"{store}/sm/c/*/*/*"))) < wanted:
            time.sleep(0.01)
        assert process.poll() is None, "the map was finished before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = {p: p.stat().st_mtime_ns for p in out.parent.glob(f"{store}/sm/c/*/*/*")}
        assert all(kept[p] == when for p, when in done)
        # What a kill meets after it was written and before it was recorded is written again.
        done = sorted(kept.items(), key=lambda item: item[1])[:-4]
        if name == "maps":
            assert not list(out.glob("*.tif"))
    assert _start(folder, out).wait() == 0
    assert _content(out) == _content(whole)
    assert [p.name for p in out.parent.iterdir()] == [name]


def test_finished_geotiffs_are_not_made_again(folder, tmp_path):
    model, grid = smgeo.load_model(folder / "rf"), smgeo.open_cube(folder / "grid.zarr")
    days = ["2020-01-02", "2020-01-05"]
    out = smgeo.predict_map(model, grid, tmp_path / "maps", days)
    before = {p: p.stat().st_mtime_ns for p in out.glob("*.tif")}
    smgeo.predict_map(model, grid, out, days)
    assert {p: p.stat().st_mtime_ns for p in out.glob("*.tif")} == before
    smgeo.predict_map(model, grid, out, days, resume=False)
    assert all(p.stat().st_mtime_ns > when for p, when in before.items())
    # Another model has other maps.
    other = _other(folder).save(tmp_path / "other")
    smgeo.predict_map(smgeo.load_model(other), grid, out, days)
    with xr.open_dataset(out / "sm_2020-01-05.tif", engine="rasterio") as ds:
        expected = open_cube(smgeo.predict_map(smgeo.load_model(other), grid, tmp_path / "o.zarr", days))
        np.testing.assert_array_equal(ds["band_data"][0], expected["sm"].sel(time="2020-01-05"))


def _other(folder):
    model = smgeo.load_model(folder / "rf")
    again = smgeo.make_model("rf", trees=3, threads=1, seed=5)
    rng = np.random.default_rng(0)
    again.fit(rng.random((200, 3)).astype("float32"), rng.random(200).astype("float32"))
    again.preparation_ = model.preparation_
    assert again.digest_ is None
    return again


@pytest.mark.parametrize("kind", ["rf", "ann"])
def test_workers_of_a_cluster_make_the_same_map(folder, tmp_path, monkeypatch, kind, make_station_cube):
    spec = PrepareSpec.model_validate({"fill": {"limit": 2}, "outliers": None, "scale": "minmax"})
    prepared = prepare_cube(make_station_cube(gaps=0.1), spec, FEATURES, "sm", TRAIN)
    params = {"rf": {"trees": 5, "threads": 1}, "ann": {"units": 4, "epochs": 1}}[kind]
    model = smgeo.make_model(kind, **params).fit(prepared.windows(TRAIN, 1, 0.0))
    grid = smgeo.open_cube(folder / "grid.zarr")
    alone = open_cube(smgeo.predict_map(model, grid, tmp_path / "alone.zarr"))["sm"].load()
    monkeypatch.setattr(layout, "MAP_CHUNK", {"time": 4, "y": 12, "x": 12})
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
        client.as_current(),
    ):
        together = open_cube(smgeo.predict_map(model, grid, tmp_path / "together.zarr"))["sm"].load()
    if kind == "rf":
        xr.testing.assert_equal(together, alone)
    else:
        xr.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-6)
