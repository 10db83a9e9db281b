"""recipes/gee_ismn.yaml on the real DWD archive, with a local server in Earth Engine's place, at toy size."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import smgeo
from smgeo.catalog import EARTHENGINE, STUDY_FEATURES
from smgeo.cube.ledger import find_damage
from smgeo.cube.reading import open_cube
from smgeo.study.progress import Reporter

pytest.importorskip("ee", reason="needs smgeo[gee]")
pytest.importorskip("tensorflow")
pytest.importorskip("ydf")
pytest.importorskip("ismn")

from tests.earthengine_server import Place, Server, build_world
from tests.earthengine_server.world import GLO30

START, DAYS = dt.date(2024, 8, 25), 40


@pytest.fixture(scope="module")
def recipe():
    path = Path(__file__).parents[2] / "recipes" / "gee_ismn.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["period"] = [str(START), str(START + dt.timedelta(days=DAYS - 1))]
    values["prepare"]["window"] = {"length": 3, "missing": 0.9}
    values["models"] = {"rf": {"trees": 5}, "gru": {"units": 2, "epochs": 1}}
    return values


@pytest.fixture(scope="module")
def places(recipe, data):
    stations = smgeo.open_stations(data / recipe["stations"][0]["path"], period=recipe["period"])
    names = [str(s).replace("/", "_") for s in stations["station"].values]
    where = zip(names, stations["longitude"].values, stations["latitude"].values, strict=True)
    return [Place(name, float(lon), float(lat), 300.0) for name, lon, lat in where]


@pytest.fixture(scope="module")
def server(places, tmp_path_factory):
    world = build_world(places, DAYS, start=START, half_hours=2, levels=False)
    rain = replace(EARTHENGINE["precipitation"], images_a_day=2)  # in place of 48
    with pytest.MonkeyPatch.context() as patch, Server(world, require_token=True) as running:
        patch.setitem(EARTHENGINE, "precipitation", rain)
        running.key = running.write_key_file(tmp_path_factory.mktemp("key") / "key.json")
        yield running


@pytest.fixture(scope="module")
def run(recipe, server, data, tmp_path_factory):
    source = {**recipe["rasters"][0], "url": server.url, "credentials": str(server.key), "project": "p"}
    recipe = {**recipe, "rasters": [source]}
    out = tmp_path_factory.mktemp("gee") / "run"
    done = smgeo.run(recipe, out=out, data=data, reporter=Reporter(quiet=True))
    asked = server.counters.requests.copy()
    smgeo.run(recipe, out=out, data=data, reporter=Reporter(quiet=True))
    assert server.counters.requests == asked  # a finished run asks nothing
    return done


def test_all_features_have_values_at_every_station(run, places):
    cube = open_cube(run.folder / "stations.zarr")
    assert set(cube.data_vars) >= {*STUDY_FEATURES, "sm"}
    assert cube.sizes["station"] == len(places)
    for name in STUDY_FEATURES:
        seen = cube[name].notnull()
        share = float((seen.any("time") if "time" in seen.dims else seen).mean())
        # Clouds, and holes in static layers, leave a few without.
        assert share > 0.75, name


def test_elevation_is_that_of_the_tile_at_each_station(run, server):
    cube = open_cube(run.folder / "stations.zarr")
    assert "GLO-30" in cube["elevation"].attrs["source"]
    tiles = [bands["DEM"] for asset, bands in server.world.stored.items() if asset.startswith(GLO30)]
    where = zip(cube["longitude"].values, cube["latitude"].values, strict=True)
    # Some pixels of a tile are holes.
    truth = [next((v for t in tiles if np.isfinite(v := t.value(lon, lat))), np.nan) for lon, lat in where]
    assert np.isfinite(truth).sum() > 20
    np.testing.assert_allclose(cube["elevation"].values, truth, rtol=1e-6)


def test_models_are_scored_on_unseen_stations(run):
    for name in ("rf", "gru"):
        scores = run.results["models"][name]
        assert scores["test"]["stations"] == len(run.results["split"]["test"])
        assert 0 < scores["test"]["rmse"] < 1


def test_the_requests_are_those_that_were_planned(run, server):
    parts = open_cube(run.folder / "parts" / "0-earthengine.zarr")
    asked = server.counters.requests["value"]
    # The check before the run asks once more which days have images.
    assert parts.attrs["requests"] < asked < 2 * parts.attrs["requests"]
    assert server.counters.most_in_flight <= 20


def test_nothing_of_the_key_is_in_the_runs_folder(run, server):
    key = yaml.safe_load(Path(server.key).read_text())
    secrets = [line for line in key["private_key"].splitlines() if "PRIVATE" not in line]
    files = [f for f in run.folder.rglob("*") if f.is_file()]
    assert len(files) > 20
    for file in files:
        content = file.read_bytes()
        assert not any(s.encode() in content for s in secrets if s), file
        assert not any(t.encode() in content for t in server.tokens.granted), file


def test_what_the_source_gave_can_be_verified(run):
    assert find_damage(run.folder / "parts" / "0-earthengine.zarr") == {}
    assert find_damage(run.folder / "stations.zarr") == {}
