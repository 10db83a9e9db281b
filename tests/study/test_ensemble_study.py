"""An ensemble in a recipe: members by the names of its models, with their parameters and those that a search found."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import xarray as xr

import smgeo
from smgeo.errors import SmgeoError
from smgeo.recipe import parse_recipe

pytest.importorskip("keras")


@pytest.fixture
def recipe(toy_recipe):
    values = copy.deepcopy(toy_recipe)
    values["models"] = {
        "trees": {"kind": "extra_trees", "trees": 7, "min_examples": 3},
        "boosting": {"trees": 9},
        "series": {"kind": "lstm", "mode": "sequence", "units": 4, "epochs": 1},
        "mean": {"kind": "ensemble", "members": ["trees", "boosting"]},
        "wide": {
            "kind": "ensemble",
            "members": ["trees", "series", {"kind": "gru", "mode": "sequence", "units": 3, "epochs": 1}],
        },
    }
    values["maps"] = {"dates": ["2016-03-01"], "models": ["mean"]}
    return values


def _estimates(run, name):
    return xr.open_zarr(run.folder / "predictions" / f"{name}.zarr", consolidated=False)["predicted"].load()


def test_a_run_with_ensembles_of_its_models(recipe, tmp_path):
    recipe["cross_validation"] = {"method": "group-k-fold", "folds": 3, "models": ["mean"]}
    run = smgeo.run(recipe, out=tmp_path / "run")
    mean = (_estimates(run, "trees") + _estimates(run, "boosting")) / 2
    np.testing.assert_allclose(_estimates(run, "mean"), mean, rtol=1e-5)
    assert run.results["models"]["mean"]["test"]["n"] == run.results["models"]["trees"]["test"]["n"]
    assert run.results["models"]["wide"]["test"]["n"] == run.results["models"]["series"]["test"]["n"]
    assert run.results["cross_validation"]["mean"]
    model = smgeo.load_model(run.folder / "models" / "mean")
    assert [m.trees for m in model.members_] == [7, 9]
    assert list((run.folder / "maps" / "mean").glob("*.tif"))


def test_a_member_has_what_a_search_found(recipe, tmp_path):
    pytest.importorskip("ray")
    del recipe["models"]["series"], recipe["models"]["wide"], recipe["maps"]
    recipe["search"] = {"boosting": {"trials": 2, "concurrent": 1, "space": {"max_leaves": [5, 6]}}}
    run = smgeo.run(recipe, out=tmp_path / "run")
    found = run.results["search"]["boosting"]
    best = next(t["params"] for t in found["trials"] if t["trial"] == found["best"])
    assert best["max_leaves"] in (5, 6)
    member = smgeo.load_model(run.folder / "models" / "mean").members_[1]
    assert (member.max_leaves, member.trees) == (best["max_leaves"], 9)


def test_what_makes_no_ensemble_is_said_before_any_work(recipe, tmp_path):
    other = copy.deepcopy(recipe)
    other["models"]["trees"]["prepare"] = {"scale": "robust"}
    with pytest.raises(SmgeoError, match=r"models.mean.members: trees has a prepare of its own"):
        parse_recipe(other)
    other = copy.deepcopy(recipe)
    other["models"]["mean"]["members"] = ["trees", "bosting"]
    with pytest.raises(SmgeoError, match=r"models.mean: unknown model 'bosting'"):
        smgeo.run(other, out=tmp_path / "run")
    assert not (tmp_path / "run" / "stations.zarr").exists()
    other = copy.deepcopy(recipe)
    other["models"]["mean"]["members"] = ["trees", "mean"]
    with pytest.raises(SmgeoError, match=r"models.mean: ensemble: a member must be .* no ensemble"):
        smgeo.run(other, out=tmp_path / "run")


def test_an_ensemble_of_windows_needs_a_period_as_long(recipe):
    recipe["models"] = {"mean": {"kind": "ensemble", "members": ["extra_trees", "gru"]}}
    recipe["maps"] = None
    recipe["period"] = ["2016-01-01", "2016-01-05"]
    with pytest.raises(SmgeoError, match=r"models.mean: sees windows of 8 days, and period has 5"):
        parse_recipe(recipe)
