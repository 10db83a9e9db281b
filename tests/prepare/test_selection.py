"""Forward selection of features: what carries over to other locations is found, what only tells stations apart is not."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smgeo.errors import SmgeoError
from smgeo.evaluation.cross_validation import select_in_folds
from smgeo.prepare import cv_folds, select_features
from smgeo.recipe.validation import CrossValidationSpec

STATIONS, DAYS = 24, 40
FEATURES = ["number", "rain", "clay", "noise"]


@pytest.fixture
def cube():
    random = np.random.default_rng(0)
    rain = random.gamma(1.0, 3.0, (STATIONS, DAYS))
    clay = random.uniform(10, 40, STATIONS)
    sm = 0.05 + 0.01 * rain + 0.006 * clay[:, None] + random.normal(0, 0.005, (STATIONS, DAYS))
    both, one = ("station", "time"), ("station",)
    data = {
        "number": (one, random.permutation(STATIONS).astype(float), {"kind": "static"}),
        "rain": (both, rain, {"kind": "dynamic"}),
        "clay": (one, clay, {"kind": "static"}),
        "noise": (both, random.normal(size=(STATIONS, DAYS)), {"kind": "dynamic"}),
        "sm": (both, sm, {"kind": "target", "units": "m3 m-3"}),
    }
    coords = {
        "station": [f"N/s{i}" for i in range(STATIONS)],
        "time": pd.date_range("2020-01-01", periods=DAYS),
        "latitude": ("station", 45 + np.arange(STATIONS)),
        "longitude": ("station", np.zeros(STATIONS)),
    }
    return xr.Dataset(data, coords).astype("float32")


def test_features_that_hold_at_other_locations_are_chosen(cube):
    found = select_features(cube, FEATURES, folds=4, seed=1)
    assert set(found.features) == {"rain", "clay"}
    assert found.table["features"].tolist() == [2]
    # Without a number for each station and noise a forest still errs by less than half of what the mean of all would.
    assert found.table["rmse"].iloc[0] < float(cube["sm"].std()) / 2


def test_a_third_feature_is_added_while_it_helps(cube):
    wet = xr.DataArray(np.random.default_rng(1).normal(size=(STATIONS, DAYS)), dims=("station", "time"))
    more = cube.assign(wet=wet, sm=cube["sm"] + 0.05 * wet)
    found = select_features(more, [*FEATURES, "wet"], folds=4, seed=1)
    assert set(found.features) == {"rain", "clay", "wet"}
    assert found.table["features"].tolist() == [2, 3]
    assert found.table["rmse"].is_monotonic_decreasing


def test_held_out_stations_choose_nothing(cube):
    spec = CrossValidationSpec(method="leave-location-out", folds=4, select_features=True, seed=3)
    found = select_in_folds(cube, spec, FEATURES, "sm")
    assert [set(f) for f in found] == [{"rain", "clay"}] * 4
    held = cv_folds(cube, "leave-location-out", 4, seed=3)[2][1]
    spoiled = cube.assign(sm=cube["sm"].where(~held, 0.01 * cube["number"] + 0 * cube["sm"]))
    again = select_in_folds(spoiled, spec, FEATURES, "sm")
    assert again[2] == found[2]


def test_one_feature_leaves_nothing_to_choose(cube):
    with pytest.raises(SmgeoError, match="needs two or more features"):
        select_features(cube, ["rain"])
