"""Boosted trees: against the libraries that grow them, and against trees by hand."""

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

import smgeo
from smgeo.errors import SmgeoError
from smgeo.models import load_model, make_model
from smgeo.prepare import Windows

PLAIN = {"learning_rate": 0.1, "feature_share": 1.0, "l2": 0.0}
GROWTH = {**PLAIN, "trees": 60, "learning_rate": 0.2, "max_leaves": 15, "min_examples": 7, "seed": 3}


@pytest.fixture(params=["sklearn", "lightgbm", "xgboost"])
def engine(request):
    module = {"sklearn": "sklearn", "lightgbm": "lightgbm", "xgboost": "xgboost"}[request.param]
    pytest.importorskip(module)
    return request.param


def data(rows=2000, features=6, seed=0):
    """Whole numbers and halves, so that many values are at thresholds; noise doubles where the last feature is above 0."""
    rng = np.random.default_rng(seed)
    x = (rng.integers(-6, 7, (rows, features)) / 2).astype("float32")
    y = x[:, 0] + np.sin(x[:, 1]) * x[:, 2] + rng.normal(0, 0.2, rows) * (1 + 2 * (x[:, -1] > 0))
    return x, y.astype("float32")


def by_the_library(engine, x, y, query):
    """Estimates of the library's own model with the same parameters."""
    if engine == "sklearn":
        model = HistGradientBoostingRegressor(
            max_iter=60, learning_rate=0.2, max_leaf_nodes=15, min_samples_leaf=7, random_state=3, early_stopping=False
        )
        return model.fit(x, y).predict(query)
    if engine == "lightgbm":
        import lightgbm

        params = {"num_leaves": 15, "learning_rate": 0.2, "min_data_in_leaf": 7, "seed": 3, "verbosity": -1}
        params |= {"deterministic": True, "force_row_wise": True, "lambda_l2": 0.0}
        train = lightgbm.Dataset(x, y, init_score=np.full(len(y), y.mean(dtype="float64")))
        return y.mean(dtype="float64") + lightgbm.train(params, train, 60).predict(query)
    import xgboost

    params = {"tree_method": "hist", "grow_policy": "lossguide", "max_leaves": 15, "max_depth": 0, "eta": 0.2}
    params |= {"min_child_weight": 7, "lambda": 0.0, "seed": 3, "base_score": float(y.mean(dtype="float64"))}
    return xgboost.train(params, xgboost.QuantileDMatrix(x, y), 60).predict(xgboost.DMatrix(query))


def test_estimates_are_those_of_the_library(engine):
    (x, y), (query, _) = data(), data(20_000, seed=1)
    model = make_model("boosting", engine=engine, **GROWTH).fit(x, y)
    np.testing.assert_allclose(model.predict(query), by_the_library(engine, x, y, query), rtol=1e-5, atol=2e-5)
    assert model.training_["trees"] == 60


def test_one_split_by_hand(engine):
    """Two groups of ten rows; one tree of two leaves with the whole step estimates their means, half a step goes half way."""
    x = np.repeat([[0.0], [1.0]], 10, axis=0).astype("float32")
    y = np.repeat([1.0, 4.0], 10).astype("float32")
    growth = {**PLAIN, "engine": engine, "trees": 1, "max_leaves": 2, "min_examples": 5}
    whole = make_model("boosting", **{**growth, "learning_rate": 1.0}).fit(x, y)
    half = make_model("boosting", **{**growth, "learning_rate": 0.5}).fit(x, y)
    shrunk = make_model("boosting", **{**growth, "learning_rate": 1.0, "l2": 5.0}).fit(x, y)
    assert whole.predict(x[[0, -1]]).tolist() == pytest.approx([1.0, 4.0], abs=1e-6)
    assert half.predict(x[[0, -1]]).tolist() == pytest.approx([1.75, 3.25], abs=1e-6)
    assert shrunk.predict(x[[0, -1]]).tolist() == pytest.approx([1.5, 3.5], abs=1e-6)  # 10 rows of 10 + 5


def test_nothing_to_split_is_the_mean(engine):
    x, y = np.zeros((50, 2), "float32"), np.arange(50, dtype="float32")
    for more in ({}, {"patience": 3}):
        model = make_model("boosting", engine=engine, trees=5, **more).fit(x, y, validation=(x, y))
        assert model.predict(x[:2]).tolist() == pytest.approx([24.5, 24.5], abs=1e-5)
    one = make_model("boosting", engine=engine, trees=5).fit(x[:1], y[7:8])
    assert one.predict(x[:1]).tolist() == pytest.approx([7.0], abs=1e-5)


def test_features_that_split_nothing_do_not_end_growth(engine):
    """One of seven features is tried at a split: most of the time one that tells nothing."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((2000, 7)).astype("float32"), columns=list("abcdefg"))
    y = (table["a"] - 2 * table["b"]).to_numpy()
    model = make_model("boosting", engine=engine, monotone={"b": 1}, learning_rate=0.1, l2=0.0).fit(table, y)
    assert model.training_["trees"] == 300
    line = pd.DataFrame(dict.fromkeys("bcdefg", 0.5) | {"a": np.linspace(0.1, 0.9, 9)})[list("abcdefg")].astype(
        "float32"
    )
    assert 0.5 < np.ptp(model.predict(line)) < 1.3  # 0.8: the slope of the feature that is not held back


def test_more_features_than_a_node_can_name_are_refused():
    x = np.zeros((3, 65_537), "float32")
    for kind in ("boosting", "extra_trees"):
        with pytest.raises(SmgeoError, match="rows of 65,537 features; trees compare at most 65,536"):
            make_model(kind).fit(x, np.arange(3.0))


@pytest.mark.soak
def test_threads_change_nothing_with_many_rows(engine):
    x, y = data(200_000)
    growth = {"engine": engine, "trees": 30, "learning_rate": 0.3}
    one, two = (make_model("boosting", threads=n, **growth).fit(x, y).predict(x) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_threads_change_nothing(engine):
    x, y = data()
    one, two = (make_model("boosting", engine=engine, threads=n, **GROWTH).fit(x, y).predict(x) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_the_seed_draws_the_features_of_a_split(engine):
    x, y = data()
    share = {**GROWTH, "engine": engine, "feature_share": 0.4}
    first, again = (make_model("boosting", **share).fit(x, y).predict(x) for _ in range(2))
    other = make_model("boosting", **{**share, "seed": 4}).fit(x, y).predict(x)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_trees_stop_at_the_best_of_the_validation_rows(engine):
    (x, y), held = data(400), data(300, seed=1)
    growth = {**GROWTH, "engine": engine, "trees": 400, "min_examples": 2, "learning_rate": 0.5}
    scores = []
    model = make_model("boosting", patience=30, **growth)
    model.fit(x, y, validation=held, progress=lambda done, total, s: scores.append((done, total, s["val_rmse"])))
    rmse = [
        np.sqrt(np.mean((make_model("boosting", **{**growth, "trees": n}).fit(x, y).predict(held[0]) - held[1]) ** 2))
        for n in range(1, model.training_["trees"] + 32)
    ]
    best = int(np.argmin(rmse)) + 1
    assert model.training_["trees"] == best < 370
    np.testing.assert_allclose(np.sqrt(np.mean((model.predict(held[0]) - held[1]) ** 2)), min(rmse), rtol=1e-5)
    assert scores[-1][0] <= best + 30 + 50  # trees come fifty at a time
    assert all(total == 400 for _, total, _ in scores)
    assert model.uses_validation
    assert not make_model("boosting").uses_validation


def test_trees_after_patience_ran_out_do_not_count(engine):
    """They come fifty at a time: with a patience of 1 the first tree that is no better ends it, whatever those after it would do."""
    (x, y), held = data(400), data(300, seed=1)
    growth = {**GROWTH, "engine": engine, "trees": 50, "min_examples": 2, "learning_rate": 0.5}
    rmse = [
        np.sqrt(np.mean((make_model("boosting", **{**growth, "trees": n}).fit(x, y).predict(held[0]) - held[1]) ** 2))
        for n in range(1, 51)
    ]
    first_worse = next(n for n in range(1, 50) if rmse[n] >= rmse[n - 1])
    model = make_model("boosting", patience=1, **growth).fit(x, y, validation=held)
    assert model.training_["trees"] == first_worse


def test_without_validation_rows_all_trees_are_grown(engine):
    x, y = data(300)
    assert make_model("boosting", engine=engine, trees=70, patience=5).fit(x, y).training_["trees"] == 70


def test_estimates_rise_with_a_monotone_feature(engine):
    """The truth falls where the feature is large; the constrained estimate does not."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((2000, 3)).astype("float32"), columns=["clay", "rain", "slope"])
    y = (table["rain"] - 2 * np.maximum(table["rain"] - 0.5, 0) + table["clay"]).to_numpy()
    line = pd.DataFrame({"clay": 0.5, "rain": np.linspace(0, 1, 200), "slope": 0.5}).astype("float32")
    free = make_model("boosting", engine=engine, **GROWTH).fit(table, y).predict(line)
    rising = make_model("boosting", engine=engine, monotone={"rain": 1}, **GROWTH).fit(table, y).predict(line)
    falling = make_model("boosting", engine=engine, monotone={"rain": -1}, **GROWTH).fit(table, y).predict(line)
    assert (np.diff(free) < 0).any()
    assert (np.diff(rising) >= 0).all()
    assert rising[-1] > rising[0] + 0.1
    assert (np.diff(falling) <= 0).all()
    wide = make_model("boosting", engine=engine, monotone={"rain": 1}, spread=True, **GROWTH).fit(table, y)
    np.testing.assert_array_equal(wide.predict(line), rising)  # its quantiles are free
    assert (wide.predict_spread(line)[1] >= 0).all()


def test_monotone_features_of_windows_are_found_on_every_day(make_station_cube):
    """Each day of a window has the features, and channels that say where they were observed, which have no direction."""
    ds = make_station_cube(stations=6, days=60, seed=1, gaps=0.2)
    features = ["s1_vv", "precipitation"]
    windows = Windows(ds, features, "sm", length=3, missing=0.5, fill=[-12.0, 2.0])
    model = make_model("boosting", trees=5, monotone={"precipitation": 1}).fit(windows)
    assert model._constraints() == (0, 1, 0, 0) * 3
    with pytest.raises(SmgeoError, match="monotone names 'clay', which is no feature"):
        make_model("boosting", monotone={"clay": 1}).fit(windows)


def test_monotone_needs_names():
    x, y = data(100)
    with pytest.raises(SmgeoError, match="X has no names of columns; give windows or a table"):
        make_model("boosting", monotone={"clay": 1}).fit(x, y)


def test_the_spread_is_wide_where_errors_are(engine):
    (x, y), (query, truth) = data(12_000), data(10_000, seed=1)
    model = make_model("boosting", engine=engine, spread=True, trees=100, seed=0, **PLAIN).fit(x, y)
    mean, spread = model.predict_spread(query)
    np.testing.assert_array_equal(mean, model.predict(query))
    noisy = query[:, -1] > 0
    # One standard deviation of the noise: .2 and .6.
    assert np.median(spread[~noisy]) == pytest.approx(0.2, abs=0.1)
    assert np.median(spread[noisy]) == pytest.approx(0.6, abs=0.15)
    assert np.mean(np.abs(truth - mean) <= spread) == pytest.approx(0.68, abs=0.05)
    with pytest.raises(SmgeoError, match="has no parts"):
        make_model("boosting", engine=engine, trees=5).fit(x[:200], y[:200]).predict_spread(query)


def test_a_file_needs_no_library_and_estimates_the_same(engine, tmp_path, monkeypatch):
    (x, y), (query, _) = data(), data(500, seed=1)
    model = make_model("boosting", engine=engine, spread=True, **GROWTH).fit(x, y)
    model.save(tmp_path / "m")
    if engine != "sklearn":
        monkeypatch.setitem(sys.modules, engine, None)
    loaded = load_model(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_spread(query), model.predict_spread(query))
    assert (loaded.engine, loaded.trees, loaded.has_spread) == (engine, 60, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a["training"].update(bases={"mean": "1"}), "the estimates before its first tree are damaged"),
        (lambda a: a["training"].update(bases={"low": 0.5}), "the estimates before its first tree are damaged"),
        (lambda a: a["training"].update(bases={"mean": float("inf")}), "damaged"),
        (lambda a: a["training"].update(bases=None), "the estimates before its first tree are damaged"),
        (lambda a: a["training"].update(trees=7), "its trees are not as many"),
        (lambda a: a["params"].update(trees=3), "its trees are not as many"),
        (lambda a: a["params"].update(spread=True), "the estimates before its first tree are damaged"),
        (lambda a: a["params"].update(monotone={"a": 2}), "monotone must name features"),
        (lambda a: a["params"].update(engine="os"), "unknown engine 'os'"),
    ],
)
def test_a_forged_file_is_refused(tmp_path, forge, change, message):
    x, y = data(200)
    make_model("boosting", trees=5).fit(x, y).save(tmp_path / "m")
    forge(tmp_path / "m", change)
    with pytest.raises(SmgeoError, match=message):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"engine": "catboost"}, "unknown engine 'catboost'"),
        ({"trees": 0}, "trees, min_examples, max_depth, patience and threads must be 1 or more"),
        ({"max_leaves": 1}, "max_leaves 2 or more"),
        ({"patience": 0}, "1 or more"),
        ({"learning_rate": 0.0}, "learning_rate and feature_share must be above 0 and at most 1"),
        ({"feature_share": 1.5}, "at most 1"),
        ({"l2": -1.0}, "l2 0 or more"),
        ({"monotone": {"rain": 2}}, "monotone must name features with 1"),
        ({"monotone": ["rain"]}, "monotone must name features with 1"),
        ({"trees": "many"}, "trees must be a whole number"),
        ({"leaves": 5}, "max_leaves"),
    ],
)
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(SmgeoError, match=message):
        make_model("boosting", **params)


def test_a_recipe_by_name_and_its_intervals(make_station_cube, tmp_path):
    """The kind works where others do: evaluation, intervals from its spread, and the file."""
    ds = make_station_cube(stations=40, days=40, seed=0, gaps=0.1)
    split = smgeo.split_stations(ds, (0.6, 0.3, 0.1), False)
    train = Windows(ds.sel(station=list(split.train)), ["s1_vv", "clay"], "sm", length=1)
    model = make_model("boosting", trees=30, spread=True, min_examples=5).fit(train)
    smgeo.calibrate(model, ds, split)
    assert model.calibration_.offset is not None
    model.save(tmp_path / "m")
    assert load_model(tmp_path / "m").calibration_ == model.calibration_
    assert set(smgeo.evaluate(model, ds, split).scores) == {"train", "validation", "test"}
