"""A model whose training diverges is named with its reason; the others are complete."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import smgeo
from smgeo.errors import DivergedError
from smgeo.models import make_model

pytest.importorskip("keras")


@pytest.fixture
def diverging(toy_recipe):
    recipe = copy.deepcopy(toy_recipe)
    recipe["models"] = {
        "linear": {"kind": "Ridge"},
        "wild": {"kind": "ann", "units": 64, "layers": 16, "epochs": 3, "learning_rate": 100},
    }
    recipe["maps"] = {"dates": ["2016-02-10"]}
    return recipe


def test_the_other_models_go_on_and_the_run_ends_with_an_error(diverging, tmp_path):
    diverging["cross_validation"] = {"method": "group-k-fold", "folds": 2}
    with pytest.raises(
        DivergedError,
        match=r"1 of the models failed \(wild: ann diverged: after epoch 3 its weights are not all finite",
    ):
        smgeo.run(diverging, out=tmp_path / "run")
    text = (tmp_path / "run" / "results.json").read_text()
    results = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(results["models"]) == list(results["cross_validation"]) == list(results["maps"]) == ["linear"]
    assert list(results["failed"]) == ["wild"]
    assert "lower learning_rate (100 was used)" in results["failed"]["wild"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Models that failed" in page
    assert "wild: ann diverged" in page
    assert not (tmp_path / "run" / "models" / "wild").exists()


def test_all_models_may_fail(diverging, tmp_path):
    del diverging["models"]["linear"], diverging["maps"]
    with pytest.raises(DivergedError, match="1 of the models failed"):
        smgeo.run(diverging, out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["models"] == {}
    assert "wild: ann diverged" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("kind", ["ann", "gru"])
def test_no_training_history_has_a_number_that_is_none(kind):
    x = np.random.default_rng(0).random((64, 5, 3) if kind == "gru" else (64, 3), dtype="float32")
    y = x.reshape(64, -1)[:, 0] * np.float32(1e25)  # its square is more than single precision holds
    model = make_model(kind, units=4, epochs=3)
    with pytest.raises(DivergedError, match=f"{kind} diverged: after epoch"):
        model.fit(x, y)
    assert not hasattr(model, "training_")
