"""Ensembles: the mean of members that were trained apart on the same rows, by hand."""

import numpy as np
import pandas as pd
import pytest

import smgeo
from smgeo.errors import SmgeoError
from smgeo.models import load_model, make_model
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.ensemble import least_weights
from smgeo.models.rows import Rows
from smgeo.prepare import Windows, group_stations
from smgeo.prepare.places import group_numbers

NETWORK = {"units": 8, "layers": 1, "epochs": 3, "batch_size": 16, "learning_rate": 0.02}
FEATURES = ["s1_vv", "precipitation", "clay"]


@pytest.fixture
def ds(make_station_cube):
    return make_station_cube(stations=8, days=60, seed=1, gaps=0.1)


def _windows(ds, **options):
    fill = [float(ds[name].mean()) for name in FEATURES]
    return Windows(ds, FEATURES, "sm", missing=0.5, fill=fill, **options)


def test_the_mean_of_models_of_rows_trained_apart(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((300, 4), dtype="float32"), rng.random(300, dtype="float32")
    members = ["extra_trees", {"kind": "boosting", "trees": 20}, {"kind": "Ridge", "alpha": 0.5}]
    model = make_model("ensemble", members=members, seed=3).fit(x, y)
    apart = [
        make_model("extra_trees", seed=3).fit(x, y).predict(x),
        make_model("boosting", trees=20, seed=3).fit(x, y).predict(x),
        make_model("Ridge", alpha=0.5, seed=3).fit(x, y).predict(x),
    ]
    np.testing.assert_allclose(model.predict(x), np.mean(apart, axis=0), rtol=1e-6)
    mean, spread = model.predict_spread(x)
    np.testing.assert_array_equal(mean, model.predict(x))
    np.testing.assert_allclose(spread, np.std(apart, axis=0), rtol=1e-4, atol=1e-7)
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_spread(x), (mean, spread))
    loaded.save(tmp_path / "again")
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["0", "1", "2", "model.json"]


def test_each_member_once_for_each_seed():
    rng = np.random.default_rng(0)
    x, y = rng.random((200, 3), dtype="float32"), rng.random(200, dtype="float32")
    small = [{"kind": "extra_trees", "trees": 5}, {"kind": "rf", "engine": "sklearn", "trees": 5}]
    model = make_model("ensemble", members=small, seeds=[4, 5]).fit(x, y)
    apart = [make_model(seed=s, **m).fit(x, y).predict(x) for s in (4, 5) for m in small]
    np.testing.assert_allclose(model.predict(x), np.mean(apart, axis=0), rtol=1e-6)
    assert [m.seed for m in model.members_] == [4, 4, 5, 5]
    other = make_model("ensemble", members=small, seeds=[4, 5], seed=1).fit(x, y)
    assert not {m.seed for m in other.members_} & {4, 5}
    assert not np.array_equal(other.predict(x), model.predict(x))


def test_a_table_names_the_features_of_members():
    rng = np.random.default_rng(0)
    table, y = pd.DataFrame(rng.random((200, 2)), columns=["rain", "clay"]), rng.random(200)
    members = ["extra_trees", {"kind": "boosting", "trees": np.int64(5), "monotone": {"rain": 1}}]
    model = make_model("ensemble", members=members).fit(table, y)
    line = pd.DataFrame({"rain": np.linspace(0, 1, 50), "clay": 0.5})
    assert (np.diff(model.members_[1].predict(line.to_numpy("float32"))) >= 0).all()


def test_numbers_of_numpy_are_saved(tmp_path):
    x, y = np.random.default_rng(0).random((50, 2), dtype="float32"), np.arange(50.0)
    members = [{"kind": "boosting", "trees": np.int64(5)}, "Ridge"]
    model = make_model("ensemble", members=members).fit(x, y)
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(load_model(tmp_path / "m").predict(x), model.predict(x))


def test_training_that_was_stopped_before_the_last_member_is_not_saved(tmp_path):
    x, y = np.random.default_rng(0).random((50, 2), dtype="float32"), np.arange(50.0)
    model = make_model("ensemble", members=["Ridge", "extra_trees"])
    training = model.fit_by_epoch(x, y)
    next(training)
    training.close()
    with pytest.raises(SmgeoError, match="stopped after 1 of 2 members; fit it to the end"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()
    # The mean of the members done.
    np.testing.assert_allclose(model.predict(x), make_model("Ridge").fit(x, y).predict(x), rtol=1e-5)


def test_members_continue_from_checkpoints_of_their_own(tmp_path):
    pytest.importorskip("keras")
    x, y = np.random.default_rng(0).random((60, 2), dtype="float32"), np.arange(60.0)
    members = [{"kind": "ann", **NETWORK}, {"kind": "ann", **NETWORK, "seed": 5}]
    whole = make_model("ensemble", members=members).fit(x, y)
    kept = Checkpoint(tmp_path / "mean.npz")
    other = Checkpoint(tmp_path / "mean-2.npz")  # of another model
    other.save({}, {}, {})
    training = make_model("ensemble", members=members).fit_by_epoch(x, y, checkpoint=kept)
    for _ in range(NETWORK["epochs"] + 1):  # the first member, and one epoch of the second
        next(training)
    training.close()
    assert {p.name for p in tmp_path.iterdir()} == {"mean.0.npz", "mean.1.npz", "mean-2.npz"}
    again = make_model("ensemble", members=members).fit(x, y, checkpoint=kept)
    np.testing.assert_array_equal(again.predict(x), whole.predict(x))
    kept.remove()
    assert {p.name for p in tmp_path.iterdir()} == {"mean-2.npz"}


def test_members_that_see_one_day_get_the_last_of_each_window(ds, tmp_path):
    pytest.importorskip("keras")
    windows, held = _windows(ds.isel(station=slice(6)), length=5), _windows(ds.isel(station=slice(6, 8)), length=5)
    members = [{"kind": "extra_trees", "trees": 9}, {"kind": "gru", **NETWORK}, {"kind": "ann", **NETWORK}]
    model = make_model("ensemble", members=members, seed=2).fit(windows, validation=held)
    last, last_held = windows.gather(np.arange(len(windows)))[:, -1], held.gather(np.arange(len(held)))[:, -1]
    apart = [
        make_model("extra_trees", trees=9, seed=2).fit(last, windows.y).predict(last_held),
        make_model("gru", seed=2, **NETWORK).fit(windows, validation=held).predict(held),
        make_model("ann", seed=2, **NETWORK).fit(last, windows.y, validation=(last_held, held.y)).predict(last_held),
    ]
    np.testing.assert_allclose(model.predict(held), np.mean(apart, axis=0), rtol=2e-5)
    assert (model.uses_window, model.uses_series, model.uses_validation) == (True, False, True)
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(load_model(tmp_path / "m").predict(held), model.predict(held))


def test_members_that_see_one_day_get_each_day_of_a_series_that_counts(ds, tmp_path):
    pytest.importorskip("keras")
    lstm = {**NETWORK, "mode": "sequence", "crop_days": 30, "batch_size": 2}
    windows = _windows(ds, length=5, mode="sequence")
    members = [{"kind": "extra_trees", "trees": 9}, {"kind": "lstm", **lstm}]
    model = make_model("ensemble", members=members, seed=2).fit(windows)
    x = windows.gather(np.arange(len(windows)))
    trees = make_model("extra_trees", trees=9, seed=2).fit(x[windows.mask], windows.y[windows.mask])
    series = make_model("lstm", seed=2, **lstm).fit(windows).predict(windows)
    found = model.predict(windows)
    assert found.shape == windows.y.shape
    np.testing.assert_allclose(
        windows.pick(found), (trees.predict(x[windows.mask]) + windows.pick(series)) / 2, rtol=2e-5
    )
    assert model.window_mode == "sequence"
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(load_model(tmp_path / "m").predict(windows), found)


def test_intervals_scores_and_a_map_of_an_ensemble(make_station_cube, make_grid_cube, tmp_path):
    ds = make_station_cube(stations=40, days=20, seed=0)
    split = smgeo.split_stations(ds, (0.6, 0.3, 0.1), False)
    members = [{"kind": "extra_trees", "trees": 9}, {"kind": "boosting", "trees": 9}]
    model = make_model("ensemble", members=members).fit(
        Windows(ds.sel(station=list(split.train)), FEATURES, "sm", length=1)
    )
    smgeo.calibrate(model, ds, split)
    assert set(smgeo.evaluate(model, ds, split).scores) == {"train", "validation", "test"}
    model.save(tmp_path / "m")
    grid = make_grid_cube(days=3)
    smgeo.predict_map(load_model(tmp_path / "m"), grid, tmp_path / "map.zarr", ["2020-01-02"], intervals=0.8)
    made = smgeo.open_cube(tmp_path / "map.zarr")
    day = grid.isel(time=1)
    x = np.stack([day[n].values.ravel() for n in FEATURES], axis=1).astype("float32")
    np.testing.assert_allclose(made["sm"].values.ravel(), model.predict(x), rtol=1e-5)
    assert (made["sm_lower"] < made["sm_upper"]).all()


def test_a_map_of_an_ensemble_along_series(ds, make_grid_cube, tmp_path):
    """Each pixel is a series, whose last day the row member sees alone and the network with all days before it."""
    pytest.importorskip("keras")
    lstm = {**NETWORK, "mode": "sequence", "crop_days": 30, "batch_size": 2}
    members = [{"kind": "extra_trees", "trees": 9}, {"kind": "lstm", **lstm}]
    windows = _windows(ds, length=5, mode="sequence")
    model = make_model("ensemble", members=members).fit(windows)
    grid = make_grid_cube(days=12)
    smgeo.predict_map(model, grid, tmp_path / "map.zarr", ["2020-01-12"])
    x = np.stack(
        [np.broadcast_to(grid[n].transpose(..., "y", "x").values, (12, 4, 5)).reshape(12, 20) for n in FEATURES],
        axis=-1,
    )
    x = np.concatenate([x, np.ones_like(x)], axis=-1).transpose(1, 0, 2).astype("float32")  # every value was observed
    trees, network = model.members_
    each = trees.predict(x[:, -1]), network._predict(Rows(x))[:, -1]
    np.testing.assert_allclose(
        smgeo.open_cube(tmp_path / "map.zarr")["sm"].values.ravel(), np.mean(each, axis=0), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"members": "rf"}, "members must be a list of kinds"),
        ({"members": []}, "members must be a list of kinds"),
        ({"members": ["rf"]}, "1 members .*there must be 2 to 32"),
        ({"members": ["rf", "boosting"], "seeds": list(range(17))}, "34 members"),
        ({"members": ["rf"] * 10_000, "seeds": list(range(10_000))}, "100,000,000 members"),
        ({"members": ["rf", "rf"]}, "two members are the same model"),
        ({"members": ["rf"], "seeds": [1, 1]}, "two members are the same model"),
        ({"members": ["rf", "forrest"]}, "unknown model 'forrest'"),
        ({"members": ["rf", {"trees": 5}]}, "a member must be a kind of model"),
        ({"members": ["rf", 3]}, "a member must be a kind of model"),
        ({"members": ["rf", "ensemble"]}, "and no ensemble"),
        (
            {"members": ["rf", {"kind": "boosting", "tres": 5}]},
            "boosting has no parameter 'tres'; did you mean 'trees'",
        ),
        ({"members": ["lstm", {"kind": "gru", "mode": "sequence"}]}, "give both the same mode"),
        ({"seeds": 3}, "seeds must be a list of whole numbers"),
        ({"seeds": [-1]}, "seeds must be a list of whole numbers"),
    ],
)
def test_members_that_make_no_ensemble_are_refused(params, message):
    with pytest.raises(SmgeoError, match=message):
        make_model("ensemble", **params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a["params"]["members"].pop(), "1 members"),
        (lambda a: a["training"]["members"].pop(), "its members are not those"),
        (lambda a: a["training"].update(members=[1, 2]), "its members are not those"),
        (lambda a: a["training"]["members"][1].update(bases={}), "before its first tree are damaged"),
        (lambda a: a["params"]["members"].reverse(), "m/0"),
        (lambda a: a["params"]["members"].append("extra_trees"), "its members are not those"),
        (lambda a: a["params"].update(members=["extra_trees", {"kind": "os.system"}]), "unknown model"),
    ],
)
def test_a_forged_file_is_refused(tmp_path, forge, change, message):
    rng = np.random.default_rng(0)
    x, y = rng.random((100, 3), dtype="float32"), rng.random(100, dtype="float32")
    members = [{"kind": "extra_trees", "trees": 4}, {"kind": "boosting", "trees": 4}]
    make_model("ensemble", members=members).fit(x, y).save(tmp_path / "m")
    forge(tmp_path / "m", change)
    with pytest.raises(SmgeoError, match=message):
        load_model(tmp_path / "m")


# ---- stacked

TREES = [{"kind": "extra_trees", "trees": 9}, {"kind": "Ridge", "alpha": 5.0}, {"kind": "DummyRegressor"}]


@pytest.mark.parametrize("seed", range(5))
def test_weights_have_the_least_error_of_all_shares(seed):
    """By a search over a grid of all shares of three."""
    rng = np.random.default_rng(seed)
    errors = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) + rng.normal(size=3)
    weights = least_weights(errors)
    steps = np.linspace(0, 1, 101)
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-9])
    squares = np.mean((errors @ grid.T) ** 2, axis=0)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    assert np.mean((errors @ weights) ** 2) <= squares.min() + 1e-12
    np.testing.assert_allclose(weights, grid[squares.argmin()], atol=0.02)


def test_weights_of_equal_members_are_shares():
    weights = least_weights(np.ones((4, 2)))
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()


def test_stacked_members_are_weighted_by_their_errors_at_places_left_out(ds, tmp_path):
    """Each member is trained apart without each fifth of the places, on windows of the other stations only."""
    lat, lon = (ds[name].values.copy() for name in ("latitude", "longitude"))
    lat[[1, 3]], lon[[1, 3]] = lat[[0, 2]], lon[[0, 2]]
    ds = ds.assign_coords(latitude=("station", lat), longitude=("station", lon))
    windows = _windows(ds, length=1)
    assert len(np.unique(group_numbers(ds))) == 6  # of eight stations
    model = make_model("ensemble", members=TREES, combine="stacked", seed=1).fit(windows)
    place = group_numbers(ds)
    fold = np.random.default_rng(1).permutation(6) % 5
    errors = []
    for k in range(5):
        held = fold[place] == k
        train, rest = (_windows(ds.isel(station=np.flatnonzero(part)), length=1) for part in (~held, held))
        rest.fill = train.fill = windows.fill
        x, x_rest = train.to_arrays()[0], rest.to_arrays()[0]
        fitted = [make_model(**{"seed": 1, **TREES[0]}), *(make_model(**member) for member in TREES[1:])]
        errors.append(np.stack([m.fit(x, train.y).predict(x_rest) - rest.y for m in fitted], axis=1))
    expected = least_weights(np.concatenate(errors))
    np.testing.assert_allclose(model.weights_, expected, atol=1e-4)
    assert model.training_["weights"] == model.weights_.tolist()
    each = np.stack([m.predict(windows.to_arrays()[0]) for m in model.members_])
    mean, spread = model.predict_spread(windows)
    np.testing.assert_allclose(mean, model.weights_ @ each, rtol=1e-5)
    np.testing.assert_allclose(spread, each.std(axis=0), rtol=1e-3, atol=1e-7)  # each member counts alike
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(load_model(tmp_path / "m").predict_spread(windows), (mean, spread))


def test_stacked_networks_along_series_leave_whole_series_out(ds, tmp_path):
    pytest.importorskip("keras")
    series, held = (_windows(ds.isel(station=part), length=5, mode="sequence") for part in (slice(6), slice(6, 8)))
    members = [{"kind": "extra_trees", "trees": 9}, {"kind": "gru", "mode": "sequence", **NETWORK}]
    kept = Checkpoint(tmp_path / "stack.npz")
    model = make_model("ensemble", members=members, combine="stacked").fit(series, validation=held, checkpoint=kept)
    assert {p.name for p in tmp_path.iterdir()} == {"stack.1.npz", *(f"stack.1-without-{k}.npz" for k in range(5))}
    folds = series.place_folds(5, 0)
    assert sum(held.astype(int) for _, held in folds).tolist() == [1] * 6
    train, rest = folds[0]
    assert (train ^ rest).all()
    part = series.only(train)
    assert part.stations.tolist() == series.stations[train].tolist()
    np.testing.assert_array_equal(part.y, series.y[train])
    np.testing.assert_array_equal(part.gather(np.arange(len(part))), series.gather(np.flatnonzero(train)))
    np.testing.assert_array_equal(part.crop(20).y.sum(), part.y.sum())
    again = make_model("ensemble", members=members, combine="stacked").fit(series, validation=held, checkpoint=kept)
    np.testing.assert_array_equal(again.predict(held), model.predict(held))
    assert again.weights_.tolist() == model.weights_.tolist()
    assert model.weights_.sum() == pytest.approx(1)


def test_stacking_that_was_stopped_is_not_saved(ds, tmp_path):
    model = make_model("ensemble", members=TREES, combine="stacked")
    training = model.fit_by_epoch(_windows(ds, length=1))
    next(training)
    training.close()
    with pytest.raises(SmgeoError, match="stopped after 0 of 3 members"):
        model.save(tmp_path / "m")
    with pytest.raises(SmgeoError, match="stopped before the first member"):
        model.predict(_windows(ds, length=1))


def test_what_cannot_be_stacked(ds):
    x, y = np.zeros((20, 2), dtype="float32"), np.arange(20.0)
    with pytest.raises(SmgeoError, match="an array does not say which place a row is of; give Windows"):
        make_model("ensemble", combine="stacked").fit(x, y)
    with pytest.raises(SmgeoError, match="5 folds of places, and there are windows of 4 places"):
        make_model("ensemble", combine="stacked").fit(_windows(ds.isel(station=slice(4)), length=1))
    with pytest.raises(SmgeoError, match="unknown combine 'median'"):
        make_model("ensemble", combine="median").fit(x, y)


@pytest.mark.parametrize("weights", [[0.5], [0.5, 0.6], [1.5, -0.5], [0.3, 0.7], "x", [None, 1.0]])
def test_weights_of_a_file_that_are_no_shares(weights, tmp_path, forge):
    x, y = np.random.default_rng(0).random((50, 2), dtype="float32"), np.arange(50.0)
    make_model("ensemble", members=["Ridge", "extra_trees"]).fit(x, y).save(tmp_path / "m")

    def change(about):
        about["training"]["weights"] = weights

    forge(tmp_path / "m", change)
    with pytest.raises(SmgeoError, match="weights of its members are not shares of 1"):
        load_model(tmp_path / "m")


def test_stations_within_the_buffer_are_trained_on_in_no_fold_of_places(ds):
    lat = np.array([40.0, 40.5, 42, 44, 46, 48, 50, 52])  # the first two are 56 km apart
    ds = ds.assign_coords(latitude=("station", lat), longitude=("station", np.zeros(8)))
    windows = _windows(group_stations(ds, "place", buffer_km=100), length=1)
    at = {station: windows.groups == station for station in windows.stations}
    near = windows.stations[:2]
    for train, held in windows.place_folds(5, 0):
        assert not (train & held).any()
        for one, other in (near, near[::-1]):
            if held[at[one]].all() and not held[at[other]].any():
                assert not train[at[other]].any()
        far = [s for s in windows.stations[2:] if not held[at[s]].any()]
        assert all(train[at[s]].all() for s in far)
