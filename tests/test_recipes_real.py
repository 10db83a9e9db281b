"""The recipes on real data, at toy size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

import smgeo

pytest.importorskip("tensorflow")
pytest.importorskip("ydf")
pytest.importorskip("ismn")

RECIPES = Path(__file__).parents[1] / "recipes"
CROSS_VALIDATION = {"method", "folds", "r2_mean_of_folds", "r2_pooled", "r2_station_means", "rmse_pooled"}


def shipped(name):
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cookfarm(data, tmp_path_factory):
    recipe = shipped("cookfarm")
    recipe["period"] = ["2011-10-01", "2012-06-30"]
    recipe["models"] = {"rf": {"trees": 5}, "ann": {"units": 4, "epochs": 1}}
    recipe["cross_validation"] = [
        {"method": "leave-location-out", "folds": 2, "models": ["rf"]},
        {"method": "random", "folds": 2, "models": ["rf"]},
    ]
    return smgeo.run(recipe, out=tmp_path_factory.mktemp("cookfarm"), data=data)


def test_cookfarm_map_lies_on_its_grid_and_is_missing_where_the_predictors_are(cookfarm, data):
    assert {p.parent.name for p in cookfarm.maps} == {"rf", "ann"}
    with rasterio.open(data / "cookfarm" / "predictors_2012-03-25.tif") as src:
        expected, transform = np.isnan(src.read(masked=True).filled(np.nan)).any(axis=0), src.transform
    assert expected.any()
    for path in cookfarm.maps:
        with rasterio.open(path) as src:
            assert src.crs.to_epsg() == 26911
            assert src.shape == (58, 101)
            assert src.res == (10.0, 10.0)
            assert src.transform == transform
            values = src.read(1, masked=True).filled(np.nan)
        np.testing.assert_array_equal(np.isnan(values), expected)
        assert 0 < np.nanmean(values) < 0.6


def test_cookfarm_counts_its_stations(cookfarm):
    split = cookfarm.results["split"]
    assert [len(split[p]) for p in ("train", "validation", "test")] == [34, 4, 4]


def test_cookfarm_cross_validation_has_the_keys_of_the_contract(cookfarm):
    found = cookfarm.results["cross_validation"]
    assert all(set(entry) >= CROSS_VALIDATION for entry in found.values())
    methods = {entry["method"]: entry for entry in found.values()}
    assert set(methods) == {"leave-location-out", "random"}
    assert all(entry["folds"] == 2 for entry in found.values())
    # Random rows share their station and their days with the training rows, which flatters any forest on this field.
    assert methods["random"]["r2_pooled"] > methods["leave-location-out"]["r2_pooled"]


def test_cookfarm_run_continues_from_its_own_resolved_recipe(cookfarm, data):
    again = smgeo.run(cookfarm.folder / "recipe.yaml", out=cookfarm.folder, data=data)
    assert again.results == cookfarm.results


def test_ismn(data, tmp_path):
    recipe = shipped("ismn")
    recipe["period"] = ["2024-09-01", "2024-11-30"]
    recipe["models"] = {"rf": {"trees": 5}, "gru": {"units": 4, "epochs": 1}}
    recipe["prepare"]["window"] = {"length": 5, "missing": 0.5}
    recipe["cross_validation"] = {"method": "leave-location-out", "folds": 2, "models": ["rf"]}
    results = smgeo.run(recipe, out=tmp_path / "run", data=data).results
    assert sum(len(results["split"][p]) for p in ("train", "validation", "test")) == 24
    assert len(results["left_out"]) == 2
    assert set(results["models"]) == {"rf", "gru"}
    assert set(results["cross_validation"]["rf"]) >= CROSS_VALIDATION
    assert results["cross_validation"]["rf"]["stations"] == 24
    assert results["models"]["rf"]["test"]["n"] > 0
    assert not (tmp_path / "run" / "grid.zarr").exists()
