"""Studies that are split in time: what is learned, what is scored, and what of the held-out days can change."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import smgeo
from smgeo.errors import SmgeoError
from smgeo.evaluation.parts import compare_models, evaluate
from smgeo.recipe.preparation import PrepareSpec
from smgeo.study.runs import tune_recipe

STATIONS = 6
PERIODS = (("2020-01-01", "2020-02-09"), ("2020-02-10", "2020-02-29"))


def test_parts_are_days_and_every_row_of_the_test_days_is_scored(tmp_path, station_table, table_study):
    rows = station_table()
    run = table_study(tmp_path / "a", rows)
    scores = run.results["models"]["HistGradientBoostingRegressor"]
    late = rows["day"] >= "2020-02-10"
    assert set(scores) == {"train", "test"}
    assert (scores["test"]["n"], scores["test"]["stations"]) == (int(late.sum()), STATIONS)
    assert scores["train"]["n"] == int((~late).sum())
    # Stations differ by their mean far more than by anything else, and the mean is known.
    assert scores["test"]["rmse"] < 0.02
    kept = xr.open_zarr(run.folder / "predictions" / "HistGradientBoostingRegressor.zarr", consolidated=False)
    parts = pd.Series(kept["part"].values, index=kept.indexes["time"])
    assert set(parts[:"2020-02-09"]) == {"train"}
    assert set(parts["2020-02-10":]) == {"test"}
    assert run.results["split"]["periods"]["test"] == ["2020-02-10", "2020-02-29"]
    important = run.results["importance"]["HistGradientBoostingRegressor"]
    assert important[0]["feature"] == "target_mean"
    assert important[0]["rows"] == int(late.sum())
    assert run.report.is_file()


def test_nothing_that_is_learned_changes_with_the_held_out_days(tmp_path, station_table, table_study):
    rows = station_table()
    other = rows.copy()
    late = other["day"] >= "2020-02-10"
    other.loc[late, "sm"], other.loc[late, "t"] = 0.5, 30.0
    models = []
    for name, values in (("a", rows), ("b", other)):
        run = table_study(tmp_path / name, values)
        models.append(smgeo.load_model(run.folder / "models" / "HistGradientBoostingRegressor"))
    a, b = models
    assert a.preparation_ == b.preparation_
    x = np.random.default_rng(1).normal(size=(50, a.n_features_in_)).astype("float32")
    np.testing.assert_array_equal(a.predict(x), b.predict(x))


def test_models_of_other_preparations_are_counted_apart_and_compared_on_common_rows(
    tmp_path, station_table, table_study
):
    rows = station_table()
    rows.loc[rows.index[5], "sm"] = 0.9  # an outlier
    model = {"kind": "HistGradientBoostingRegressor", "params": {"max_iter": 20}}
    models = {"plain": model, "all_rows": {**model, "prepare": {"outliers": None}}}
    run = table_study(tmp_path / "a", rows, models=models, importance=None)
    train = int((rows["day"] < "2020-02-10").sum())
    assert run.results["outliers"]["rows"] == 1
    assert {n: t["rows"] for n, t in run.results["training"].items()} == {"plain": train - 1, "all_rows": train}
    removed = {r["step"]: r["removed"] for r in run.results["rows"]}
    assert removed["all_rows: outliers of training stations, with this model's own preparation"] == 0
    assert removed["plain: windows of 1 day(s) with enough values"] == 0
    assert removed["all_rows: windows of 1 day(s) with enough values"] == 0
    (pair,) = run.results["comparisons"]
    assert pair["n"] == int((rows["day"] >= "2020-02-10").sum())
    cube = smgeo.open_cube(run.folder / "stations.zarr")
    split = smgeo.split_periods(cube, *PERIODS)
    found = {n: evaluate(smgeo.load_model(run.folder / "models" / n), cube, split) for n in models}
    assert compare_models(found)["n"].tolist() == [pair["n"]]
    assert found["plain"].scores["test"] == run.results["models"]["plain"]["test"]
    assert json.loads((run.folder / "provenance.json").read_text())["stages"]["model plain"]["peak_memory_bytes"] > 50e6


def test_periods_without_a_day_or_a_row_are_refused_before_anything_is_trained(tmp_path, station_table, table_study):
    rows = station_table()
    with pytest.raises(SmgeoError, match="periods.test: 2020-02-10 to 2020-02-29 is outside the stations' days"):
        table_study(tmp_path / "a", rows[rows["day"] < "2020-02-01"])
    assert not (tmp_path / "a" / "run").exists()
    rows.loc[rows["day"] >= "2020-02-10", "sm"] = np.nan
    wanted = r"no station has a value of the target from 2020-02-10 to 2020-02-29 \(test\)"
    with pytest.raises(SmgeoError, match=wanted):
        table_study(tmp_path / "b", rows)


WITH_VALIDATION = {
    "train": ["2020-01-01", "2020-01-31"],
    "validation": ["2020-02-01", "2020-02-09"],
    "test": ["2020-02-10", "2020-02-29"],
}


@pytest.mark.soak
def test_test_days_stop_no_network_and_score_no_trial(tmp_path, station_table, table_study):
    """Gaps before the test days would be filled from them, and networks stopped by it."""
    rows = station_table()
    gap = (rows["day"] >= "2020-02-06") & (rows["day"] < "2020-02-10")
    rows.loc[gap & (rows["id"] != "s0"), "t"] = np.nan
    other = rows.copy()
    late = other["day"] >= "2020-02-10"
    other.loc[late, "sm"], other.loc[late, "t"] = 0.5, 30.0
    prepare = {"fill": {"limit": 6}, "outliers": None, "scale": "standard", "split": {"periods": WITH_VALIDATION}}
    models = {"ann": {"units": 4, "layers": 1, "epochs": 4, "learning_rate": 0.05, "dropout": 0.0}}
    search = {"HistGradientBoostingRegressor": {"trials": 3, "space": {"max_depth": [1, 2, 3]}}}
    models |= {"HistGradientBoostingRegressor": {"max_iter": 5}}
    found = []
    for name, values in (("a", rows), ("b", other)):
        run = table_study(tmp_path / name, values, prepare=prepare, models=models, importance=None, search=search)
        found.append((smgeo.load_model(run.folder / "models" / "ann").history_, run.results["search"]))
    assert len(found[0][0]["val_rmse"]) == 4
    assert found[0] == found[1]


def test_a_search_without_validation_days_is_refused_before_any_work(tmp_path, station_table, table_study):
    rows = station_table()
    run = table_study(tmp_path / "a", rows, importance=None)
    recipe = run.folder / "recipe.yaml"
    with pytest.raises(SmgeoError, match="a trial is scored on the validation days; give periods.validation"):
        tune_recipe(recipe, tmp_path / "out", tmp_path / "a", models=["HistGradientBoostingRegressor"])
    assert not (tmp_path / "out").exists()


def test_what_needs_stations_to_hold_out_refuses_a_split_of_days(make_station_cube):
    cube = make_station_cube(stations=4, days=20)
    split = smgeo.split_periods(cube, ("2020-01-01", "2020-01-12"), ("2020-01-13", "2020-01-20"))
    with pytest.raises(SmgeoError, match="learning curve: it adds training stations, but this split is in time"):
        smgeo.learning_curve(lambda: smgeo.make_model("Ridge"), cube, split, PrepareSpec(), ["s1_vv"])
    with pytest.raises(SmgeoError, match="choose_z: it scores validation stations, but this split is in time"):
        smgeo.choose_z(cube, split, features=["s1_vv"])
    with pytest.raises(SmgeoError, match="objective as a number makes folds of stations"):
        smgeo.tune("Ridge", cube, split, out="never", objective=3, space={"alpha": [1.0]})


def test_rows_in_no_period_are_a_step_of_their_own(tmp_path, station_table, table_study):
    rows = station_table()
    rows.loc[(rows["id"] == "s5") & (rows["day"] < "2020-02-10"), "sm"] = np.nan  # known in the test days alone
    periods = {"train": ["2020-01-11", "2020-02-09"], "test": ["2020-02-10", "2020-02-19"]}
    prepare = {"fill": None, "outliers": None, "split": {"periods": periods}}
    run = table_study(tmp_path / "a", rows, prepare=prepare, importance=None)
    known = rows[rows["sm"].notnull()]
    used = known[(known["day"] >= "2020-01-11") & (known["day"] <= "2020-02-19") & (known["id"] != "s5")]
    (step,) = [r for r in run.results["rows"] if r["step"].startswith("days in no period")]
    assert (step["stations"], step["rows"], step["removed"]) == (5, len(used), len(known) - len(used))
    assert run.results["rows"][-1]["removed"] == 0
    assert run.results["left_out"]["TABLE/s5"] == "no training day with a value of sm"
