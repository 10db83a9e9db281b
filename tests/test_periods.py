"""Studies that are split in time: what is learned, what is scored, and what of the held-out days can change."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import smgeo
from smgeo.errors import SmgeoError
from smgeo.evaluation import compare_models, evaluate

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
    assert removed["all_rows: outliers of training stations, prepared for it alone"] == 0
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


def test_a_cube_without_days_of_a_part_is_refused_before_anything_is_trained(tmp_path, station_table, table_study):
    rows = station_table()
    with pytest.raises(
        SmgeoError, match=r"no station has a value of the target from 2020-02-10 to 2020-02-29 \(test\)"
    ):
        table_study(tmp_path / "a", rows[rows["day"] < "2020-02-01"])
