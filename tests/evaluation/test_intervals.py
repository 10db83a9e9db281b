"""Prediction intervals from folds of places, against scikit-learn by hand, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from typer.testing import CliRunner

import smgeo
from smgeo import cli
from smgeo.errors import SmgeoError
from smgeo.evaluation.cross_validation import Learner
from smgeo.evaluation.held_out import estimate_held_out
from smgeo.evaluation.parts import split_unseen
from smgeo.evaluation.uncertainty import calibrate, cross_calibrate, find_applicability, interval_coverage
from smgeo.models.calibration import Calibration
from smgeo.models.nearest_groups import NearestGroups
from smgeo.prepare import Split, Windows, cv_folds
from smgeo.recipe.preparation import PrepareSpec

NAMES = ["s1_vv", "clay"]
PLAIN = PrepareSpec.model_validate({"fill": None, "outliers": None, "scale": "minmax"})


def learner(kind="LinearRegression", **params):
    return Learner.of(lambda: smgeo.make_model(kind, **params), 1)


@pytest.fixture
def cube(make_station_cube):
    """Forty stations, the first two at one place; soil moisture is backscatter with an error of each station, and noise."""
    ds = make_station_cube(stations=40, days=30, seed=1)
    random = np.random.default_rng(0)
    wet = 0.25 + 0.01 * (ds["s1_vv"].values + 12) + 0.03 * random.standard_normal((40, 1))
    wet += 0.01 * random.standard_normal((40, 30))
    ds = ds.assign(sm=ds["sm"].copy(data=wet.astype("float32")))
    latitude = ds["latitude"].values.copy()
    latitude[1] = latitude[0]
    longitude = ds["longitude"].values.copy()
    longitude[1] = longitude[0]
    return ds.assign_coords(latitude=("station", latitude), longitude=("station", longitude))


@pytest.fixture
def split(cube):
    ids = [str(s) for s in cube["station"].values]
    return Split(tuple(ids[:30]), tuple(ids[30:34]), tuple(ids[34:]))


def fitted(cube, split):
    train = cube.sel(station=list(split.train))
    return smgeo.make_model("LinearRegression").fit(Windows(train, NAMES, length=1))


def test_errors_are_those_of_models_without_the_place(cube, split):
    """Three folds by hand: a linear model does not care how features are scaled."""
    model = fitted(cube, split)
    held = estimate_held_out(model, learner(), cube, split, PLAIN, folds=3, seed=5)
    found = cross_calibrate(model, held, cube, split)
    train = cube.sel(station=list(split.train))

    def table(ds):
        x = np.stack([np.broadcast_to(ds[n].values.reshape(len(ds.station), -1), ds["sm"].shape) for n in NAMES], -1)
        return x.reshape(-1, 2).astype("float64"), ds["sm"].values.ravel().astype("float64")

    errors, place, estimates = [], [], []
    station = np.repeat(np.arange(30), 30)
    x, y = table(train)
    for fold_train, held in cv_folds(train, "group-k-fold", 3, seed=5):
        a, b = np.isin(station, np.flatnonzero(fold_train.any(1))), np.isin(station, np.flatnonzero(held.any(1)))
        plain = LinearRegression().fit(x[a], y[a])
        estimates.append(plain.predict(x[b]))
        errors.append(np.abs(y[b] - estimates[-1]))
        place.append(np.where(station[b] == 1, 0, station[b]))
    x_val, y_val = table(cube.sel(station=list(split.validation)))
    estimates.append(LinearRegression().fit(x, y).predict(x_val))
    errors.append(np.abs(y_val - estimates[-1]))
    place.append(np.repeat(np.arange(4), 30) + 100)
    expected = Calibration.learn(
        np.concatenate(errors) + np.concatenate(estimates), np.concatenate(estimates), np.concatenate(place)
    )
    assert (found.stations, found.rows, found.folds, found.part) == (33, 34 * 30, 3, "train+validation")
    np.testing.assert_allclose(found.widths, expected.widths, rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(found.spreads, expected.spreads, rtol=1e-3)
    assert set(model.training_["validation_stations"]) == set(split.validation)
    with pytest.raises(SmgeoError, match="calibrated on the validation part"):
        interval_coverage(model, cube, split, "validation")
    assert 0 < interval_coverage(model, cube, split)["covered"].mean() <= 1


def test_more_places_make_intervals_tighter_than_a_few_do(cube, split):
    """Nine places are just enough for 90 %: their worst error is the width; of 39 it is a quantile."""
    few = Split(split.train, (*split.validation, *split.test[:5]), split.test[5:])
    model = fitted(cube, few)
    wide = calibrate(model, cube, few)
    tight = cross_calibrate(model, estimate_held_out(model, learner(), cube, few, PLAIN, folds=5), cube, few)
    at = np.array([0.25])
    width = [float(np.ptp(c.bounds(at, None, 0.9))) for c in (wide, tight)]
    assert tight.stations == 29 + 9
    assert width[1] < width[0]


def test_what_cannot_be_is_refused(cube, split):
    model = fitted(cube, split)
    with pytest.raises(SmgeoError, match="30 folds of 29 groups"):
        estimate_held_out(model, learner(), cube, split, PLAIN, folds=30)
    with pytest.raises(SmgeoError, match="folds must be a whole number from 2"):
        estimate_held_out(model, learner(), cube, split, PLAIN, folds=1)
    days = Split(split.train, (), split.train, periods={"train": ("2020-01-01", "2020-01-10"), "test": ("2020-01-11", "2020-01-30")})  # fmt: skip
    with pytest.raises(SmgeoError, match="periods of the same stations"):
        estimate_held_out(model, learner(), cube, days, PLAIN)


def test_a_model_is_scored_at_places_of_a_foreign_cube_that_it_has_not_seen(cube, tmp_path):
    """Of forty stations the model saw 4 to 39; of the four others, two lie at one place, and one at the place of a training station."""
    beside = cube["latitude"].values.copy()
    beside[2] = beside[9]
    longitude = cube["longitude"].values.copy()
    longitude[2] = longitude[9]
    cube = cube.assign_coords(latitude=("station", beside), longitude=("station", longitude))
    ids = [str(s) for s in cube["station"].values]
    model = fitted(cube, Split(tuple(ids[4:]), (), ()))
    model.save(tmp_path / "model")
    smgeo.write_cube(cube, tmp_path / "cube.zarr")
    told = CliRunner().invoke(cli.app, ["evaluate", str(tmp_path / "model"), str(tmp_path / "cube.zarr")])
    assert told.exit_code == 0, told.output
    assert "37 stations are left out" in told.output
    error = model.predict(Windows(cube.sel(station=[ids[0], ids[1], ids[3]]), NAMES, length=1))
    error = error - cube["sm"].sel(station=[ids[0], ids[1], ids[3]]).values.ravel()
    assert f"{np.sqrt(np.mean(error**2)):.3f}" in told.output
    assert " 90 " in told.output
    with pytest.raises(SmgeoError, match="saw all 37 stations"):
        split_unseen(model, cube.isel(station=[2, *range(4, 40)]))


def test_a_twin_under_another_name_in_another_cube_is_no_unseen_place(cube, tmp_path):
    ids = [str(s) for s in cube["station"].values]
    model = fitted(cube, Split(tuple(ids[4:30]), (), ()))
    calibrate(model, cube, Split(tuple(ids[4:30]), tuple(ids[30:34]), ()))
    model = smgeo.load_model(model.save(tmp_path / "model"))
    # Under new names: a training station, one 11 m from another, a station that calibrated the intervals, and one of no known place.
    other = cube.isel(station=[5, 6, 31, 39]).assign_coords(station=["B/a", "B/b", "B/c", "B/d"])
    latitude = other["latitude"].values.copy()
    latitude[1] += 0.0001
    other = other.assign_coords(latitude=("station", latitude))
    assert split_unseen(model, other).test == ("B/d",)
    assert split_unseen(model, other).left_out == ("B/a", "B/b", "B/c")


def test_the_area_learns_its_errors_at_held_out_places(cube, split):
    """Against the same rows by hand: index to the training rows of other folds, squared errors, the same weight for each place."""
    model = fitted(cube, split)
    held = estimate_held_out(model, learner(), cube, split, PLAIN, folds=3, seed=5)
    weights = {"s1_vv": 1.0, "clay": 2.0}
    area = find_applicability(model, cube, split, weights, folds=4, held=held)
    x = np.stack([np.broadcast_to(cube[n].values.reshape(40, -1), (40, 30)) for n in NAMES], -1).astype("float64")
    number = {str(s): i for i, s in enumerate(cube["station"].values)}
    at = np.array([number[str(s)] for s in held.station])
    day = np.searchsorted(cube["time"].values, held.time)
    points = (x - x[:30].reshape(-1, 2).mean(axis=0)) / x[:30].reshape(-1, 2).std(axis=0, ddof=1) * [1.0, 2.0]
    fold = {int(s): int(f) for s, f in zip(at, held.fold, strict=True)}
    index = np.empty(len(at))
    for i, (s, d) in enumerate(zip(at, day, strict=True)):
        others = [k for k in range(30) if held.fold[i] < 0 or fold[k] != held.fold[i]]
        index[i] = np.sqrt(((points[others].reshape(-1, 2) - points[s, d]) ** 2).sum(axis=1)).min() / area.mean_distance
    inside = index <= area.threshold
    place = np.where(at == 1, 0, at)  # two stations at one place
    weight = 1 / np.bincount(place[inside], minlength=40)[place[inside]]
    assert np.sum(~inside) > 0
    low = index[inside] <= area.error_index[0]
    assert low.any()
    ranges = len(np.unique(place[inside])) // 5
    order = np.argsort(index[inside], kind="stable")
    first = order[np.cumsum(weight[order]) < weight.sum() / ranges * (1 - 1e-9)]
    mean = np.sqrt(np.average(held.errors[inside][first] ** 2, weights=weight[first]))
    assert area.error_index[0] == pytest.approx(np.average(index[inside][first], weights=weight[first]), rel=0.05)
    assert area.error[0] <= mean * 1.05  # at most: what falls later is joined with it
    pooled = np.sqrt(np.average(held.errors[inside] ** 2, weights=weight))
    assert area.error[0] <= pooled <= area.error[-1]


def test_widths_of_the_nearest_groups_follow_the_error(make_station_cube):
    """Errors are five times as large where clay is high."""
    ds = make_station_cube(stations=90, days=20, seed=3)
    random = np.random.default_rng(1)
    clay = np.where(np.arange(90) % 2, 10.0, 40.0) + random.normal(size=90)
    noise = np.where(clay > 25, 0.10, 0.02)[:, None] * random.standard_normal((90, 20))
    wet = (0.3 + noise).astype("float32")
    ds = ds.assign(sm=ds["sm"].copy(data=wet), clay=ds["clay"].copy(data=clay.astype("float32")))
    ids = [str(s) for s in ds["station"].values]
    split = Split(tuple(ids[:6]), tuple(ids[6:66]), tuple(ids[66:]))
    model = fitted(ds, split)
    find_applicability(model, ds, split, {"s1_vv": 0.0, "clay": 1.0})
    local = calibrate(model, ds, split, nearest=20)
    apart = interval_coverage(model, ds, split)
    assert (local.stations, local.local.nearest) == (60, 20)
    wide = clay[66:] > 25
    assert apart["width"][wide].mean() > 3 * apart["width"][~wide].mean()
    assert apart["covered"][~wide].mean() == pytest.approx(0.95, abs=0.05)
    assert apart["covered"][wide].mean() == pytest.approx(0.95, abs=0.05)
    # One row by hand: 90 % of 21 groups, of which one has errors without bound.
    near = np.argsort(np.abs(clay[6:66] - clay[66]))[:20]
    errors = np.abs(model_errors(model, ds, ids[6:66]))[near]
    width = next(w for w in np.sort(errors.ravel()) if (errors <= w).mean() * 20 / 21 >= 0.9)
    assert apart["width"].iloc[0] / 2 == pytest.approx(width, rel=0.05)


def model_errors(model, ds, ids):
    """Return estimates less observations, (station, day)."""
    part = ds.sel(station=ids)
    windows = Windows(part, NAMES, length=1)
    return (model.predict(windows) - windows.y).reshape(len(ids), -1)


def test_intervals_of_the_nearest_groups_are_saved_and_refused(cube, split, tmp_path):
    model = fitted(cube, split)
    held = estimate_held_out(model, learner(), cube, split, PLAIN, folds=3)
    cross_calibrate(model, held, cube, split, nearest=12)
    before = interval_coverage(model, cube, split)
    again = smgeo.load_model(model.save(tmp_path / "m"))
    after = interval_coverage(again, cube, split)
    np.testing.assert_array_equal(after["width"], before["width"])
    assert after["width"].std() > 0
    with pytest.raises(SmgeoError, match="95 % need 19 stations to learn from; the model was calibrated on 12"):
        interval_coverage(again, cube, split, level=0.95)
    with pytest.raises(SmgeoError, match="200 of 33 groups of stations; use fewer"):
        cross_calibrate(model, held, cube, split, nearest=200)
    with pytest.raises(SmgeoError, match="nearest must be a whole number"):
        cross_calibrate(model, held, cube, split, nearest=0)


def test_widths_of_few_neighbours_are_not_those_of_one_bad_row():
    """Nine neighbours have to hold all: a row of a group far away, with an error six times as large as any other, does not reach them."""
    random = np.random.default_rng(0)
    group, x = np.repeat(np.arange(300), 100), np.repeat(np.arange(300.0), 100)[:, None]
    scores = 0.1 * random.random(30_000)
    scores[29_999] = 0.6
    learned = NearestGroups.learn(x, scores, group, np.ones(1), 9)
    found = learned.widths(np.array([[4.0], [100.0], [298.0]]), 0.9)
    exact = [scores[np.isin(group, range(a, a + 9))].max() for a in (0, 96)]
    np.testing.assert_allclose(found[:2], exact, rtol=0.01)
    assert found[2] == pytest.approx(0.6)
    assert (found[:2] >= exact).all()
    with pytest.raises(SmgeoError, match="no feature varies"):
        NearestGroups.learn(np.ones((30_000, 1)), scores, group, np.ones(1), 9)


def test_a_fold_is_compared_with_what_its_model_was_trained_on(make_station_cube):
    """Pairs a km apart, of one kind of soil each, and a buffer of 5 km: the other of a pair is in no training of its fold."""
    ds = make_station_cube(stations=60, days=10, seed=4)
    pair = np.arange(60) // 2
    soil = (10 + pair + 0.01 * (np.arange(60) % 2)).astype("float32")
    ds = ds.assign(clay=ds["clay"].copy(data=soil))
    ds = ds.assign_coords(
        latitude=("station", 45 + 0.2 * pair + 0.009 * (np.arange(60) % 2)), longitude=("station", np.full(60, 9.0))
    )
    ds = smgeo.group_stations(ds, "place", buffer_km=5)
    ids = [str(s) for s in ds["station"].values]
    split = Split(tuple(ids), (), ())
    model = fitted(ds, split)
    held = estimate_held_out(model, learner(), ds, split, PLAIN, folds=5)
    assert len(held.trained) == 5
    for k, ids_of_fold in enumerate(held.trained):
        pairs = {pair[ids.index(str(s))] for s in held.station[held.fold == k]}
        assert not pairs & {pair[ids.index(str(s))] for s in ids_of_fold}
    area = find_applicability(model, ds, split, {"s1_vv": 0.0, "clay": 1.0}, held=held)
    step = 1 / soil.std(ddof=1) / area.mean_distance  # from a pair to the next, nearly
    assert area.threshold > 0.9 * step
    assert area.error_index[0] == pytest.approx(step, rel=0.05)


def test_estimates_of_something_else_are_refused(cube, split):
    model = fitted(cube, split)
    held = estimate_held_out(model, learner(), cube, split, PLAIN, folds=3)
    other = Split(split.test, split.validation, split.train)
    with pytest.raises(SmgeoError, match="30 of their stations are not in the train.validation part"):
        cross_calibrate(model, held, cube, other)
    forest = smgeo.make_model("rf", trees=3).fit(Windows(cube.sel(station=list(split.train)), NAMES, length=1))
    with pytest.raises(SmgeoError, match="another kind of model"):
        cross_calibrate(forest, held, cube, split)
    at_noon = cube.assign_coords(time=cube["time"] + np.timedelta64(12, "h"))
    with pytest.raises(SmgeoError, match="1020 of 1020 rows are not in the cube"):
        find_applicability(model, at_noon, split, dict.fromkeys(NAMES, 1.0), held=held)


def test_a_model_of_all_stations_has_an_area_without_errors(cube, split):
    both = Split((*split.train, *split.validation), (), split.test)
    model = fitted(cube, both)
    area = find_applicability(model, cube, split, dict.fromkeys(NAMES, 1.0))
    assert not area.error.size
    assert area.threshold > 0


def test_estimates_of_folds_alone_leave_the_validation_stations_out(cube, split):
    """Where parameters were chosen at the validation stations, their errors are too small to learn from."""
    model = fitted(cube, split)
    held = estimate_held_out(model, learner(), cube, split, PLAIN, folds=3)
    assert set(held.station) == {*split.train, *split.validation}
    assert set(held.of_folds().station) == set(split.train)
    found = cross_calibrate(model, held.of_folds(), cube, split)
    assert (found.part, found.stations) == ("train", 29)  # two stations are one place
    assert len(interval_coverage(model, cube, split, "validation")) == 4
