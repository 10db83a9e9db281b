"""The plain forest of each run, against scikit-learn by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.ensemble import RandomForestRegressor

import smgeo

STATIONS, DAYS = 30, 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of stations without a gap: soil moisture is a rule of clay and rain, with noise."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("baseline")
    clay, rain = random.uniform(5, 50, STATIONS), random.gamma(0.7, 4, (STATIONS, DAYS)).round(2)
    sm = 0.1 + 0.004 * clay[:, None] + 0.004 * rain + 0.01 * random.standard_normal((STATIONS, DAYS))
    table = pd.DataFrame(
        {
            "station": np.repeat([f"s{i:02d}" for i in range(STATIONS)], DAYS),
            "time": np.tile(pd.date_range("2020-01-01", periods=DAYS).strftime("%Y-%m-%d"), STATIONS),
            "latitude": np.repeat(45 + 0.1 * np.arange(STATIONS), DAYS),
            "longitude": 9.0,
            "depth": 0.05,
            "sm": sm.round(4).ravel(),
            "clay": np.repeat(clay.round(1), DAYS),
            "precipitation": rain.ravel(),
        }
    )
    table.to_csv(folder / "t.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def recipe():
    names = ("station", "time", "latitude", "longitude", "depth", "sm", "clay", "precipitation")
    return {
        "name": "plain",
        "stations": [{"kind": "csv", "path": "t.csv", "columns": {n: n for n in names}}],
        "features": ["clay", "precipitation"],
        "prepare": {
            "fill": None,
            "outliers": None,
            "split": {"fractions": [0.6, 0.2, 0.2], "extremes_to_train": False},
        },
        "models": {"linear": {"kind": "LinearRegression"}},
    }


@pytest.fixture(scope="module")
def run(folder, recipe):
    return smgeo.run(recipe, out=folder / "run", data=folder)


def test_it_is_the_forest_that_a_plain_user_would_take(run, folder):
    table, split = pd.read_csv(folder / "t.csv"), run.results["split"]
    part = {name: table["station"].isin([s.split("/")[1] for s in split[name]]) for name in ("train", "test")}
    x, y = table[["clay", "precipitation"]].to_numpy(), table["sm"].to_numpy()
    forest = RandomForestRegressor(
        100, min_samples_leaf=5, max_features=1 / 3, max_samples=part["train"].sum(), random_state=0
    )
    estimate = forest.fit(x[part["train"]], y[part["train"]]).predict(x[part["test"]])
    rmse = np.sqrt(np.mean((estimate - y[part["test"]]) ** 2))
    found = run.results["baselines"]["forest"]["test"]
    assert found["n"] == part["test"].sum()
    assert found["rmse"] == pytest.approx(rmse, rel=0.01)
    kept = xr.open_zarr(run.folder / "baselines" / "forest.zarr", consolidated=False)
    assert kept["predicted"].sel(station=split["test"]).notnull().all()


def test_each_model_is_tested_against_it(run):
    (pair,) = run.results["against_baseline"]
    assert (pair["first"], pair["second"]) == ("linear", "forest")
    assert pair["rmse_first"] == pytest.approx(run.results["models"]["linear"]["test"]["rmse"], rel=1e-6)
    assert pair["rmse_second"] == pytest.approx(run.results["baselines"]["forest"]["test"]["rmse"], rel=1e-6)
    # The rule is linear, and six places all say so: p is 2 / 64.
    assert (pair["clusters"], pair["stations_first_better"]) == (6, 6)
    assert pair["p_value"] == pytest.approx(2 / 64)
    page = run.report.read_text()
    assert "Against a plain forest" in page
    assert "linear beats the plain forest" in page
    assert "forest" not in run.results["models"]


def test_it_may_be_left_out_and_is_the_same_again(run, folder, recipe):
    again = smgeo.run(recipe, out=folder / "again", data=folder)
    assert again.results["baselines"] == run.results["baselines"]
    without = smgeo.run({**recipe, "baseline": False}, out=folder / "again", data=folder)
    assert not {"baselines", "against_baseline"} & set(without.results)
