"""A run with kNNDM folds: the grid's pixels are the prediction points, and results and report say how well folds match them."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import smgeo
from smgeo.errors import SmgeoError
from smgeo.prepare.knndm import SPACES
from smgeo.recipe.study import parse_recipe
from smgeo.report.schema import read_results


@pytest.fixture(scope="module")
def recipe(toy_recipe):
    recipe = copy.deepcopy(toy_recipe)
    recipe["models"] = {"linear": {"kind": "Ridge"}}
    del recipe["maps"]
    recipe["cross_validation"] = [{"method": "knndm", "folds": 3, "space": space} for space in SPACES]
    return recipe


@pytest.fixture(scope="module")
def folder(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("knndm") / "run"
    smgeo.run(recipe, out=folder)
    return folder


def test_results_say_how_far_held_out_places_and_pixels_are(folder, recipe):
    found = read_results(folder).cross_validation
    assert list(found) == ["linear", "linear_knndm"]
    stations, grid = smgeo.open_cube(folder / "stations.zarr"), smgeo.open_cube(folder / "grid.zarr")
    for entry, space, unit in zip(found.values(), SPACES, ("km", "standard deviations"), strict=True):
        assert (entry.method, entry.folds, entry.knndm.space, entry.knndm.unit) == ("knndm", 3, space, unit)
        seen = grid if space == "geographic" else grid[[n for n in parse_recipe(recipe).features if n in grid]]
        folds = smgeo.cv_folds(stations, "knndm", 3, prediction=seen, space=space, seed=recipe.get("seed", 0))
        assert entry.knndm.w == pytest.approx(folds.match.w)
        assert entry.knndm.clusters == folds.match.clusters
        assert sorted(entry.knndm.features or ()) == sorted(folds.match.features)
        assert entry.knndm.median_predicted == pytest.approx(np.median(folds.match.predicted))
        assert entry.knndm.median_left_out == pytest.approx(np.median(folds.match.left_out))
        assert entry.knndm.median_held_out == pytest.approx(np.median(folds.match.held_out))
        assert 0 < entry.n <= folds.rows.sum()  # rows that lack a feature are dropped
    page = (folder / "report.html").read_text()
    assert "kNNDM" in page
    assert "from pixels of the map" in page


def test_folds_are_made_again_if_the_grid_is_another(folder, recipe):
    def keys():
        stages = json.loads((folder / "provenance.json").read_text())["stages"]
        return {name: about["key"] for name, about in stages.items() if name.startswith("cross-validation")}

    before = keys()
    smgeo.run(recipe, out=folder)
    assert keys() == before
    other = copy.deepcopy(recipe)
    other["grid"]["period"] = ["2016-02-01", "2016-02-20"]
    smgeo.run(other, out=folder)
    assert all(keys()[name] != key for name, key in before.items())


def test_more_folds_than_places_are_refused_before_any_work(recipe, tmp_path):
    many = copy.deepcopy(recipe)
    many["cross_validation"] = {"method": "knndm", "folds": 1000}
    with pytest.raises(SmgeoError, match="1000 folds of"):
        smgeo.run(many, out=tmp_path / "run")
