"""Permutation importance and learning curves, by hand on small cubes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError
from smgeo.evaluation.importance import learning_curve, permutation_importance
from smgeo.models import make_model
from smgeo.prepare import Split, Windows
from smgeo.recipe.preparation import PrepareSpec

NAMES = ["s1_vv", "clay", "doy_sin"]
PLAIN = PrepareSpec.model_validate({"fill": None, "outliers": None, "scale": "minmax"})


@pytest.fixture
def cube(make_station_cube):
    """Eight stations, 40 days; soil moisture is a rule of backscatter and of the season, and clay says nothing."""
    ds = make_station_cube(stations=8, days=40, seed=1)
    season = np.sin(2 * np.pi * np.arange(40) / 40).astype("float32")
    ds = ds.assign(doy_sin=("time", season, FEATURES["doy_sin"].attrs()))
    wet = 0.25 + 0.02 * (ds["s1_vv"].values + 12) + 0.05 * season
    return ds.assign(sm=ds["sm"].copy(data=wet.astype("float32")))


@pytest.fixture
def split(cube):
    ids = [str(s) for s in cube["station"].values]
    return Split(tuple(ids[:5]), (ids[5],), tuple(ids[6:]))


@pytest.fixture
def model(cube, split):
    train = cube.sel(station=list(split.train))
    return make_model("LinearRegression").fit(Windows(train, NAMES, length=1))


def test_two_stations_exchange_their_series(cube, split, model):
    """With two stations there is one exchange; the rule is known, so the error is the difference of their backscatter."""
    table = permutation_importance(model, cube, split, repeats=2)
    here, there = cube["s1_vv"].sel(station=list(split.test)).values.astype("float64")
    assert table.loc["s1_vv", "increase"] == pytest.approx(np.sqrt(np.mean((0.02 * (there - here)) ** 2)), rel=1e-3)
    assert table.loc["clay", "increase"] == pytest.approx(0, abs=1e-6)
    assert table.loc["s1_vv", "stations_worse"] == 1
    assert table.loc["s1_vv", "rows"] == 80
    assert pd.isna(table.loc["s1_vv", ["low", "high"]]).all()  # two stations have no interval


def test_what_stations_share_is_shifted_in_time(cube, split, model):
    """A shift of the season by k of 40 days errs by 0.05 (sin(t - k) - sin(t)): RMSE 0.05 sqrt(2) |sin(pi k / 40)|; k is 20 here."""
    table = permutation_importance(model, cube, split, repeats=1)
    assert table.loc["doy_sin", "increase"] == pytest.approx(0.05 * np.sqrt(2), rel=1e-3)
    assert table.index[0] == "doy_sin"


def test_one_weather_station_for_all_is_shifted_in_time_whatever_its_gaps(cube, split):
    """The season as each station's own series, with gaps of its own: exchanged between stations it would seem to say nothing."""
    season = np.broadcast_to(cube["doy_sin"].values, (8, 40)).copy()
    season[np.random.default_rng(0).random(season.shape) < 0.1] = np.nan
    cube = cube.drop_vars("doy_sin").assign(temperature=(("station", "time"), season, FEATURES["temperature"].attrs()))
    train = cube.sel(station=list(split.train))
    model = make_model("LinearRegression").fit(Windows(train, ["s1_vv", "clay", "temperature"], length=1))
    table = permutation_importance(model, cube, split, repeats=1)
    # Of the days that are left after both gaps: not all of the season, so about as much.
    assert table.loc["temperature", "increase"] == pytest.approx(0.05 * np.sqrt(2), rel=0.1)
    assert 55 <= table.loc["temperature", "rows"] < 80


def test_stations_that_never_measured_at_once_share_nothing(cube, split):
    """Each test station has a half of the days, and a level of its own: exchanged, both err by the difference of the levels."""
    levels = np.zeros((8, 40), dtype="float32")
    levels[6, :20], levels[6, 20:], levels[7, :20], levels[7, 20:] = 1, np.nan, np.nan, 3
    cube = cube.assign(temperature=(("station", "time"), levels, FEATURES["temperature"].attrs()))
    train = cube.sel(station=list(split.train))
    train["temperature"][:] = np.random.default_rng(0).random((5, 40))
    model = make_model("LinearRegression").fit(Windows(train, ["s1_vv", "temperature"], length=1))
    table = permutation_importance(model, cube, split, repeats=1)
    # No day has values of both after an exchange, so nothing can be told; a shift in time would have told something.
    assert table.loc["temperature", "rows"] == 0


def test_groups_are_exchanged_together_and_the_seed_counts(cube, split, model):
    groups = {"place": ["s1_vv", "clay"], "season": ["doy_sin"]}
    table = permutation_importance(model, cube, split, "train", groups=groups, seed=3)
    assert set(table.index) == {"place", "season"}
    assert table.equals(permutation_importance(model, cube, split, "train", groups=groups, seed=3))
    assert (
        table.loc["place", "increase"]
        != permutation_importance(model, cube, split, "train", groups=groups).loc["place", "increase"]
    )


def test_rows_that_an_exchange_leaves_without_values_do_not_count(cube, split, model):
    """The first test station lacks half its backscatter: the second gets that, and 20 rows are common to both."""
    cube["s1_vv"].loc[{"station": split.test[0], "time": cube["time"][:20]}] = np.nan
    table = permutation_importance(model, cube, split, repeats=1)
    assert table.loc["s1_vv", "rows"] == 20 + 20
    assert table.loc["clay", "rows"] == 60
    here, there = cube["s1_vv"].sel(station=list(split.test)).values.astype("float64")[:, 20:]
    assert table.loc["s1_vv", "increase"] == pytest.approx(np.sqrt(np.mean((0.02 * (there - here)) ** 2)), rel=1e-3)


def test_importance_that_cannot_be_is_refused(cube, split, model):
    with pytest.raises(SmgeoError, match=r"groups\['soil'\]: the model has no feature 'clai'.*clay"):
        permutation_importance(model, cube, split, groups={"soil": ["clai"]})
    with pytest.raises(SmgeoError, match="validation stations at two or more; found 1 station"):
        permutation_importance(model, cube, split, "validation")
    with pytest.raises(SmgeoError, match="bare arrays"):
        permutation_importance(make_model("LinearRegression").fit(np.eye(3), np.ones(3)), cube, split)


def test_a_learning_curve_by_hand(cube, split):
    """A model that knows the mean of its training stations alone."""
    said = []
    table = learning_curve(
        lambda: make_model(DummyRegressor()),
        cube,
        split,
        PLAIN,
        ["s1_vv"],
        fractions=(1.0, 0.2, 0.6),
        progress=lambda *a: said.append(a),
    )
    assert table.index.tolist() == [0.2, 0.6, 1.0]
    assert table["stations"].tolist() == [1, 3, 5]
    assert table["rows"].tolist() == [40, 120, 200]
    assert said == [(1, 3), (2, 3), (3, 3)]
    sm = cube["sm"].astype("float64")
    mean, test = float(sm.sel(station=list(split.train)).mean()), sm.sel(station=list(split.test)).values
    assert table.loc[1.0, "rmse"] == pytest.approx(np.sqrt(np.mean((test - mean) ** 2)), rel=1e-4)
    assert table.loc[1.0, "train_rmse"] == pytest.approx(float(sm.sel(station=list(split.train)).std()), rel=1e-4)
    # One station alone: its mean is one of the five.
    of_each = sm.sel(station=list(split.train)).mean("time").values
    by_hand = np.sqrt([np.mean((test - m) ** 2) for m in of_each])
    assert np.isclose(by_hand, table.loc[0.2, "rmse"], rtol=1e-4).any()
    assert (table["n"] == 80).all()


def test_test_stations_change_nothing_that_a_curve_learns(cube, split):
    """Other values at test stations leave the scores at training stations as they are."""

    def curve(ds):
        return learning_curve(lambda: make_model("Ridge"), ds, split, PLAIN, NAMES, fractions=(0.4, 1.0))["train_rmse"]

    changed = cube.copy(deep=True)
    for name in ("s1_vv", "sm", "clay"):
        changed[name].loc[{"station": list(split.test)}] *= 3
    assert curve(cube).equals(curve(changed))


def test_fractions_of_a_curve_are_checked(cube, split):
    with pytest.raises(SmgeoError, match="fractions must be a number above 0 and at most 1; got 0"):
        learning_curve(lambda: make_model("Ridge"), cube, split, PLAIN, NAMES, fractions=(0, 1))


def test_intervals_are_over_the_clusters_that_are_asked_for(make_station_cube):
    """Twenty test stations of four networks: over stations there is an interval; four clusters are too few for one."""
    ds = make_station_cube(stations=26, days=20, seed=2)
    wet = 0.25 + 0.02 * (ds["s1_vv"].values + 12)
    ds = ds.assign(sm=ds["sm"].copy(data=wet.astype("float32")))
    ds = ds.assign_coords(network=("station", np.array([f"N{i % 4}" for i in range(26)], dtype=object)))
    ids = [str(s) for s in ds["station"].values]
    split = Split(tuple(ids[:6]), (), tuple(ids[6:]))
    names = ["s1_vv", "clay"]
    model = make_model("LinearRegression").fit(Windows(ds.sel(station=ids[:6]), names, length=1))
    over_places = permutation_importance(model, ds, split, repeats=1).loc["s1_vv"]
    assert 0 < over_places["low"] < over_places["increase"] < over_places["high"]
    over_networks = permutation_importance(model, ds, split, repeats=1, cluster="network").loc["s1_vv"]
    assert over_networks["increase"] == over_places["increase"]
    assert pd.isna(over_networks[["low", "high"]]).all()
    make = lambda: make_model("LinearRegression")  # noqa: E731
    noisy = ds.assign(sm=ds["sm"] + 0.01 * np.random.default_rng(0).normal(size=(26, 20)).astype("float32"))
    noisy["sm"].attrs = ds["sm"].attrs
    for cluster, known in ((None, True), ("network", False)):
        curve = learning_curve(make, noisy, split, PLAIN, names, fractions=[1.0], cluster=cluster)
        assert curve[["low", "high"]].notna().all(axis=None) == known
