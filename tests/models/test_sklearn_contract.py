"""scikit-learn's own checks of an estimator, and its tools around models: pipelines, folds by station, searches, tables."""

import warnings

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from smgeo.errors import SmgeoError
from smgeo.models import load_model, make_model
from smgeo.prepare import Windows

pytest.importorskip("ydf")
pytest.importorskip("tensorflow")

SMALL_NETWORK = {"layers": 1, "units": 16, "epochs": 15, "batch_size": 16, "learning_rate": 0.03, "dropout": 0.0}
MODELS = {
    "rf": lambda: make_model("rf", trees=10, threads=1),
    "rf by scikit-learn": lambda: make_model("rf", engine="sklearn", trees=10, feature_share=0.5, threads=1),
    "ann": lambda: make_model("ann", **SMALL_NETWORK),
    "extra_trees": lambda: make_model("extra_trees", trees=10, threads=1),
    "boosting": lambda: make_model("boosting", trees=20, min_examples=3, threads=1),
    "scikit-learn": lambda: make_model(HistGradientBoostingRegressor(max_iter=20, min_samples_leaf=3)),
    "pipeline": lambda: make_model(make_pipeline(StandardScaler(), Ridge())),
}
# Check that a model does not pass -> why.
EXPECTED_FAILURES: dict[str, dict[str, str]] = {name: {} for name in MODELS}
# Check that does not run -> why.
EXPECTED_SKIPS = {"check_array_api_input": "it needs SCIPY_ARRAY_API=1 set before SciPy is imported"}


@pytest.fixture(params=list(MODELS))
def model(request):
    return MODELS[request.param]()


@pytest.fixture
def table():
    """Features and target of 6 stations with 20 days each: moister where there is rain and clay."""
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.random((120, 3)), columns=["rain", "clay", "slope"])
    return x, 0.1 + 0.2 * x["rain"] + 0.1 * x["clay"], np.repeat(np.arange(6), 20)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.soak if n in ("ann", "boosting", "scikit-learn") else ()) for n in MODELS
    ],  # a network takes minutes
)
def test_the_checks_of_scikit_learn(name):
    results = check_estimator(
        MODELS[name](), expected_failed_checks=EXPECTED_FAILURES[name], on_skip=None, on_fail=None
    )
    other = {(r["check_name"], r["status"]) for r in results if r["status"] != "passed"}
    expected = {(c, "xfail") for c in EXPECTED_FAILURES[name]} | {(c, "skipped") for c in EXPECTED_SKIPS}
    assert other == expected, [(r["check_name"], r["exception"]) for r in results if r["status"] == "failed"]
    assert len(results) > 45


def test_folds_by_station_score_as_by_hand(model, table):
    x, y, station = table
    scores = cross_val_score(model, x, y, groups=station, cv=GroupKFold(3))
    by_hand = []
    for held in GroupKFold(3).split(x, y, station):
        train, test = (x.index.isin(rows) for rows in held)
        assert not set(station[train]) & set(station[test])
        predicted = model.fit(x[train].to_numpy("float32"), y[train].to_numpy()).predict(x[test].to_numpy("float32"))
        by_hand.append(1 - np.sum((predicted - y[test]) ** 2) / np.sum((y[test] - y[test].mean()) ** 2))
    np.testing.assert_allclose(scores, by_hand, rtol=1e-5)


def test_a_pipeline_scales_before_the_model(model, table):
    x, y, _ = table
    pipe = make_pipeline(MinMaxScaler(), model).fit(x * 1000, y)
    scaled = (x - x.min()) / (x.max() - x.min())
    np.testing.assert_allclose(
        pipe.predict(x * 1000), model.fit(scaled.to_numpy(), y).predict(scaled.to_numpy()), atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("rf", {"trees": [1, 30]}),
        ("rf by scikit-learn", {"trees": [1, 30]}),
        pytest.param("ann", {"epochs": [1, 15]}, marks=pytest.mark.soak),
        pytest.param("scikit-learn", {"estimator__max_iter": [1, 40]}, marks=pytest.mark.soak),
    ],
)
def test_a_grid_search_finds_the_better_parameters(name, grid, table):
    x, y, station = table
    search = GridSearchCV(MODELS[name](), grid, cv=GroupKFold(3)).fit(x, y, groups=station)
    assert list(search.best_params_.values()) == [next(iter(grid.values()))[1]]
    found = search.best_estimator_.get_params()
    assert {n: found[n] for n in grid} == search.best_params_


def test_networks_on_windows_are_cross_validated_too():
    rng = np.random.default_rng(0)
    x = rng.random((60, 4, 2))
    model = make_model("gru", units=8, epochs=10, batch_size=8, learning_rate=0.05, dropout=0.0)
    scores = cross_val_score(model, x, x[:, -1, 0], groups=np.repeat(np.arange(6), 10), cv=GroupKFold(2))
    assert (scores > 0.3).all()


def test_set_params_is_checked_before_training(table):
    x, y, _ = table
    with pytest.raises(SmgeoError, match="1 or more"):
        MODELS["rf"]().set_params(trees=0).fit(x, y)
    with pytest.raises(SmgeoError, match="trees must be a whole number; got '3'"):
        MODELS["rf"]().set_params(trees="3").fit(x, y)
    with pytest.raises(SmgeoError, match="'max_iter' parameter"):
        MODELS["scikit-learn"]().set_params(estimator__max_iter=-1).fit(x, y)


def test_a_model_that_is_not_fitted(model, tmp_path):
    for use in (lambda: model.predict(np.zeros((2, 3))), lambda: model.save(tmp_path / "m")):
        with pytest.raises(NotFittedError, match="not fitted"):
            use()
    assert not (tmp_path / "m").exists()


def test_tables_keep_their_names_in_the_file(model, table, tmp_path):
    x, y, _ = table
    model.fit(x, y)
    assert model.feature_names_in_.tolist() == ["rain", "clay", "slope"]
    loaded = load_model(model.save(tmp_path / "m"))
    assert loaded.feature_names_in_.tolist() == ["rain", "clay", "slope"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    for made in (model, loaded):
        with pytest.raises(SmgeoError, match="missing:\n- clay"):
            made.predict(x.drop(columns="clay"))
        with pytest.raises(SmgeoError, match="unseen at fit time:\n- loam"):
            made.predict(x.assign(loam=1.0))
        with pytest.raises(SmgeoError, match="same order"):
            made.predict(x[["clay", "rain", "slope"]])
    model.fit(x.to_numpy(), y)
    assert not hasattr(model, "feature_names_in_")


def test_fitting_on_windows_forgets_the_names_of_a_table(make_station_cube, table):
    x, y, _ = table
    model = MODELS["rf"]().fit(x, y).fit(Windows(make_station_cube(), ["s1_vv", "clay"], length=1))
    assert not hasattr(model, "feature_names_in_")
    assert model.n_features_in_ == 2


def test_a_column_of_y_is_taken_with_scikit_learn_s_warning(table):
    x, y, _ = table
    with pytest.warns(DataConversionWarning):
        column = MODELS["rf"]().fit(x, y.to_numpy()[:, None])
    np.testing.assert_array_equal(column.predict(x), MODELS["rf"]().fit(x, y).predict(x))
    with pytest.raises(SmgeoError, match="y of shape"):
        MODELS["rf"]().fit(x, np.column_stack([y, y]))


def test_validation_of_another_width_is_refused(table):
    x, y, _ = table
    with pytest.raises(SmgeoError, match="X has 2 features, but Ann is expecting 3"):
        MODELS["ann"]().fit(x.to_numpy(), y, validation=(x.to_numpy()[:, :2], y))
    days = np.zeros((120, 4, 3))
    with pytest.raises(SmgeoError, match=r"validation has shape \(n, 5, 3\)"):
        make_model("gru").fit(days, y, validation=(np.zeros((9, 5, 3)), np.zeros(9)))


@pytest.mark.parametrize("chunks", [(7, 3), (50, 2), (120, 1)])
def test_lazy_arrays_give_lazy_estimates(model, table, chunks):
    x, y, _ = table
    model.fit(x.to_numpy(), y)
    lazy = da.from_array(x.to_numpy(), chunks=chunks)

    def refuse(*_):
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        estimates = model.predict(lazy)
    assert isinstance(estimates, da.Array)
    assert (estimates.shape, estimates.dtype) == ((120,), np.float32)
    np.testing.assert_array_equal(estimates.compute(scheduler="threads"), model.predict(x.to_numpy()))


def test_lazy_arrays_of_another_shape_are_refused_at_once(table):
    x, y, _ = table
    model = MODELS["rf"]().fit(x.to_numpy(), y)
    with pytest.raises(SmgeoError, match=r"X has shape \(n, 2\)"):
        model.predict(da.zeros((10, 2)))
    with pytest.raises(SmgeoError, match="3 dimensions"):
        model.predict(da.zeros((10, 2, 3)))


def test_lazy_tables(table):
    dd = pytest.importorskip("dask.dataframe")
    x, y, _ = table
    model = MODELS["rf"]().fit(x, y)
    estimates = model.predict(dd.from_pandas(x, npartitions=4))
    np.testing.assert_array_equal(estimates.compute(), model.predict(x))
