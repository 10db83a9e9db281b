"""What varies by split and what by training: variances by hand and by simulation, and a recipe that asks for both."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest

import smgeo
from smgeo.errors import SmgeoError
from smgeo.evaluation.repeats import REPEATED, summarise_repeats


def table_of(values):
    """A table whose scores are all `values`, (splits, seeds)."""
    rows = [(i, 10 + k, v) for i, row in enumerate(values) for k, v in enumerate(row)]
    return pd.DataFrame([{"split": i, "seed": k, **dict.fromkeys(REPEATED, v)} for i, k, v in rows])


def test_variances_by_hand():
    """Two splits of two seeds: means 2 and 5, variances within each 2 and 2; 4.5 between the means, of which 2 / 2 is training."""
    found = summarise_repeats(table_of([[1.0, 3.0], [4.0, 6.0]]))["rmse"]
    assert found == {
        "mean": 3.5,
        "sd": pytest.approx(np.std([1, 3, 4, 6], ddof=1)),
        "split_sd": pytest.approx(np.sqrt(3.5)),
        "training_sd": pytest.approx(np.sqrt(2)),
    }
    assert summarise_repeats(table_of([[1.0, 3.0]]))["r"] == {
        "mean": 2.0,
        "sd": pytest.approx(np.sqrt(2)),
        "split_sd": None,
        "training_sd": pytest.approx(np.sqrt(2)),
    }
    one_seed = summarise_repeats(table_of([[1.0], [3.0]]))["r"]
    assert one_seed == {"mean": 2.0, "sd": pytest.approx(np.sqrt(2)), "split_sd": None, "training_sd": None}
    assert summarise_repeats(table_of([[0.0, 4.0], [4.0, 0.0]]))["bias"]["split_sd"] == 0
    assert summarise_repeats(table_of([[0.5, np.nan], [0.5, 0.5]]))["r"]["mean"] is None


def test_variances_are_those_that_were_drawn():
    random = np.random.default_rng(0)
    found = [
        summarise_repeats(table_of(0.1 + 0.01 * random.standard_normal((8, 1)) + 0.004 * random.standard_normal((8, 3))))["rmse"]
        for _ in range(200)
    ]  # fmt: skip
    assert np.sqrt(np.mean([f["split_sd"] ** 2 for f in found])) == pytest.approx(0.01, rel=0.06)
    assert np.sqrt(np.mean([f["training_sd"] ** 2 for f in found])) == pytest.approx(0.004, rel=0.06)


@pytest.fixture
def recipe(toy_recipe):
    values = copy.deepcopy(toy_recipe)
    for key in ("maps", "grid"):
        values.pop(key, None)
    values["models"] = {"rf": {"trees": 3}}
    values["prepare"]["split"]["fractions"] = [0.5, 0.25, 0.25]
    values["baseline"] = False
    return values


def test_a_run_scores_other_splits_and_seeds(recipe, tmp_path):
    run = smgeo.run({**recipe, "seeds": [0, 7], "repeats": 2}, out=tmp_path / "run")
    found = run.results["repeats"]["rf"]
    assert [(r["split"], r["seed"]) for r in found["runs"]] == [(0, 0), (0, 7), (1, 0), (1, 7)]
    # The first is the run's own training and split.
    own = run.results["models"]["rf"]["test"]
    assert {k: found["runs"][0][k] for k in ("rmse", "bias", "n", "stations")} == pytest.approx(
        {k: own[k] for k in ("rmse", "bias", "n", "stations")}, rel=1e-5
    )
    scores = [r["rmse"] for r in found["runs"]]
    assert found["scores"]["rmse"]["mean"] == pytest.approx(np.mean(scores))
    assert found["scores"]["rmse"]["training_sd"] == pytest.approx(
        np.sqrt(np.mean([np.var(scores[:2], ddof=1), np.var(scores[2:], ddof=1)]))
    )
    assert "Other splits and seeds" in run.report.read_text()
    assert "baselines" not in run.results


def test_what_cannot_be_repeated(recipe, tmp_path):
    search = {"rf": {"trials": 2, "space": {"trees": [2, 3]}}}
    with pytest.raises(SmgeoError, match="repeats: search chooses at the validation stations of one split"):
        smgeo.run({**recipe, "repeats": 2, "search": search}, out=tmp_path / "run")
    with pytest.raises(SmgeoError, match="seeds: models.rf has a seed of its own"):
        smgeo.run({**recipe, "seeds": [0, 1], "models": {"rf": {"trees": 3, "seed": 4}}}, out=tmp_path / "run")
    with pytest.raises(SmgeoError, match="seeds of training, each once"):
        smgeo.run({**recipe, "seeds": [1, 1]}, out=tmp_path / "run")
    days = {"periods": {"train": ["2016-01-01", "2016-01-31"], "test": ["2016-02-10", "2016-03-01"]}}
    with pytest.raises(SmgeoError, match="repeats: draws other stations"):
        smgeo.run({**recipe, "repeats": 2, "prepare": {**recipe["prepare"], "split": days}}, out=tmp_path / "run")
