"""The study's recipe at toy size: its models, each with its own preparation, and its searches."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import smgeo

pytest.importorskip("tensorflow")
pytest.importorskip("ydf")
pytest.importorskip("ray")
pytest.importorskip("ax")

pytestmark = pytest.mark.soak  # fifteen models

RECIPE = Path(__file__).parents[2] / "recipes" / "study.yaml"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    recipe["world"] = {"stations": 24, "days": 70, "shape": [24, 24], "seed": 0}
    recipe["prepare"]["window"] = {"length": 5, "missing": 0.5}
    recipe["prepare"]["outliers"] = {"z": 2.5}
    recipe["prepare"]["split"]["extremes_to_train"] = False
    small = {"rf": {"trees": 5}, "gru": {"units": 4, "epochs": 1}, "ann": {"units": 8, "epochs": 1}}
    for name, params in recipe["models"].items():
        params |= small[params.get("kind", name) if name != "lstm" else "gru"]
    recipe["search"] = {n: {**recipe["search"][n], "trials": 2, "epochs": 1} for n in ("ann_ax", "ann_ray_robust")}
    return smgeo.run(recipe, out=tmp_path_factory.mktemp("study") / "run")


def test_all_rows_of_both_tables_are_there(study):
    models = study.results["models"]
    assert set(models) >= {"rf", "gru", "lstm", "ann", "ann_robust", "ann_all_rows", "ann_ax", "ann_ray"}
    assert set(models) >= {"ann_ray_robust", "ann_ray_all_rows", "gru_series"}
    assert all(parts["test"]["n"] > 0 for parts in models.values())
    assert len(study.results["comparisons"]) == len(models) * (len(models) - 1) // 2
    assert {n: len(s["trials"]) for n, s in study.results["search"].items()} == {"ann_ax": 2, "ann_ray_robust": 2}
    assert (study.folder / "tables" / "cost.csv").is_file()


def test_each_model_is_prepared_as_its_row_says(study):
    def steps(name):
        preparation = smgeo.load_model(study.folder / "models" / name).preparation_
        return {s["step"]: s for s in preparation["steps"]}

    assert {n: steps(n)["scale"]["scaler"]["kind"] for n in ("ann", "ann_robust", "ann_ray_robust")} == {
        "ann": "minmax",
        "ann_robust": "robust",
        "ann_ray_robust": "robust",
    }
    rows = {n: t["rows"] for n, t in study.results["training"].items()}
    lost = study.results["outliers"]["rows"]
    assert lost > 0
    # Rows that are outliers may lack a feature, and then are no rows of either model.
    assert rows["ann"] < rows["ann_all_rows"] <= rows["ann"] + lost
    assert rows["ann"] == rows["ann_robust"] == rows["rf"]
    # Series count the same days as windows.
    assert rows["gru_series"] == rows["gru"] == rows["lstm"]
