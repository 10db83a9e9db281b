"""Regressors of scikit-learn as models: what they learn is what scikit-learn learns by hand, on windows, in files, on maps."""

import copy
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor

import smgeo
from smgeo.errors import SmgeoError
from smgeo.models import load_model, make_model
from smgeo.models.registry import _regressors
from smgeo.prepare import Windows

REGRESSORS = [
    HistGradientBoostingRegressor(max_iter=10, max_features=0.5),
    RandomForestRegressor(5),
    ExtraTreesRegressor(5),
    make_pipeline(StandardScaler(), SVR()),
    make_pipeline(FunctionTransformer(np.log1p), KNeighborsRegressor(3)),
    LinearRegression(),
    GaussianProcessRegressor(alpha=0.1),
    make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=20)),
]


class Nearest(RegressorMixin, BaseEstimator):
    """A regressor of a user's own: the y of the nearest row."""

    def fit(self, X, y):
        self.x_, self.y_ = X, y
        return self

    def predict(self, X):
        return self.y_[np.argmin(((X[:, None] - self.x_) ** 2).sum(-1), axis=1)]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    x = rng.random((150, 4), dtype="float32")
    return x, 0.1 + 0.3 * x[:, 0] + 0.1 * np.sin(3 * x[:, 1])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("regressor", REGRESSORS, ids=lambda r: str(r).split("(")[0] + str(len(str(r))))
def test_it_is_what_scikit_learn_gives_by_hand(regressor, rows, tmp_path):
    x, y = rows
    model = make_model(regressor, seed=3).fit(x, y)
    hand = clone(regressor)
    seeds = [p for p in hand.get_params() if p.endswith("random_state")]
    hand.set_params(**dict.fromkeys(seeds, 3)).fit(x.astype("float64"), y.astype("float64"))
    expected = hand.predict(x.astype("float64")).astype("float32")
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-6)
    assert not hasattr(regressor, "n_features_in_")
    loaded = load_model(model.save(tmp_path / "m"), trusted=["numpy.log1p"] if "log1p" in str(regressor) else ())
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    assert repr(loaded) == repr(model)
    np.testing.assert_array_equal(clone(loaded).fit(x, y).predict(x), model.predict(x))


def test_a_random_state_of_the_user_s_own_stays(rows):
    x, y = rows
    own = SGDRegressor(random_state=5).fit(x.astype("float64"), y.astype("float64"))
    model = make_model(SGDRegressor(random_state=5), seed=1).fit(x, y)
    np.testing.assert_array_equal(model.predict(x), own.predict(x.astype("float64")).astype("float32"))


def test_parameters_of_names_objects_and_pipelines():
    named = make_model("HistGradientBoostingRegressor", max_iter=7, seed=2)
    brought = make_model(HistGradientBoostingRegressor(), max_iter=np.int64(7), seed=2)
    assert repr(named) == repr(brought) == "Regressor(estimator=HistGradientBoostingRegressor(max_iter=7), seed=2)"
    pipe = make_pipeline(StandardScaler(), DecisionTreeRegressor())
    assert make_model(pipe, decisiontreeregressor__max_depth=2).estimator[-1].max_depth == 2
    assert pipe[-1].max_depth is None
    with pytest.raises(SmgeoError, match="'max_depth' parameter of DecisionTreeRegressor"):
        make_model(pipe, decisiontreeregressor__max_depth=-1)
    with pytest.raises(SmgeoError, match="did you mean 'decisiontreeregressor__max_depth'"):
        make_model(pipe, decisiontreeregressor_maxdepth=2)


@pytest.mark.parametrize(
    "wrong", [LogisticRegression(), StandardScaler(), HistGradientBoostingRegressor, 3, None, make_model("Ridge")]
)
def test_what_is_no_regressor_is_refused(wrong):
    with pytest.raises(SmgeoError, match="needs a scikit-learn regressor"):
        make_model(wrong)


def test_named_regressors_estimate_one_value_and_need_no_other():
    names = _regressors()
    assert {"HistGradientBoostingRegressor", "RandomForestRegressor", "Ridge", "SVR", "MLPRegressor"} <= set(names)
    assert not {"StackingRegressor", "MultiOutputRegressor", "MultiTaskLasso", "LogisticRegression"} & set(names)


def test_windows_are_long_rows(make_station_cube):
    windows = Windows(make_station_cube(gaps=0.2), ["s1_vv", "clay"], length=3, missing=0.5, fill=[-12, 25])
    model = make_model(DecisionTreeRegressor(max_depth=4)).fit(windows)
    flat = np.array([windows[i][0].ravel() for i in range(len(windows))], dtype="float64")
    hand = DecisionTreeRegressor(max_depth=4, random_state=0).fit(flat, windows.y.astype("float64"))
    np.testing.assert_array_equal(model.predict(windows), hand.predict(flat).astype("float32"))
    assert model.n_features_in_ == 3 * 2 * 2


def test_a_regressor_of_the_user_s_own_is_loaded_when_it_is_trusted(rows, tmp_path):
    x, y = rows
    model = make_model(Nearest()).fit(x, y)
    path = model.save(tmp_path / "m")
    name = f"{Nearest.__module__}.Nearest"
    with pytest.raises(SmgeoError, match=f"contains {name}, which could run code"):
        load_model(path)
    np.testing.assert_array_equal(load_model(path, trusted=[name]).predict(x), y)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", sorted(_regressors()))
def test_every_regressor_is_loaded_without_a_word_of_trust(name, rows, tmp_path):
    x, y = rows
    x = x[:, :1] if name == "IsotonicRegression" else x
    components = {"n_components": 1} if name in ("CCA", "PLSCanonical") else {}
    model = make_model(name, **components).fit(x, y)
    loaded = load_model(model.save(tmp_path / "m"))
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    np.testing.assert_array_equal(clone(loaded).fit(x, y).predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"func": lambda x: x}, "<lambda>, which no other process can import"),
        ({"kw_args": {"x": (i for i in [1])}}, "cannot be saved without pickle"),
    ],
)
def test_what_cannot_be_saved_says_so(rows, tmp_path, held, message):
    x, y = rows
    model = make_model(make_pipeline(DecisionTreeRegressor())).fit(x, y)
    model.estimator_.steps.insert(0, ("odd", FunctionTransformer(**held)))
    with pytest.raises(SmgeoError, match=message):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_what_scikit_learn_cannot_fit_is_one_paragraph(rows):
    x, y = rows
    with pytest.raises(SmgeoError, match="^GammaRegressor: Some value"):
        make_model("GammaRegressor").fit(x, y - 1)


def test_maps_of_a_regressor_are_its_estimates_of_pixels(make_station_cube, make_grid_cube, tmp_path):
    features = ["s1_vv", "clay"]
    windows = Windows(make_station_cube(), features, length=1)
    model = make_model("HistGradientBoostingRegressor", max_iter=10).fit(windows)
    grid = make_grid_cube(days=4, height=3, width=5)
    path = smgeo.predict_map(load_model(model.save(tmp_path / "m")), grid, tmp_path / "map.zarr")
    found = smgeo.open_cube(path)["sm"].transpose("time", "y", "x").values
    vv = grid["s1_vv"].transpose("time", "y", "x").values
    clay = np.broadcast_to(grid["clay"].transpose("y", "x").values, vv.shape)
    expected = model.predict(np.stack([vv.ravel(), clay.ravel()], axis=1)).reshape(vv.shape)
    there = ~np.isnan(vv)
    np.testing.assert_array_equal(found[there], expected[there])
    assert np.isnan(found[~there]).all()


@pytest.mark.soak
def test_a_recipe_searches_trains_and_maps_regressors(toy_recipe, tmp_path):
    recipe = copy.deepcopy(toy_recipe)
    recipe["models"] = {
        "boosting": {"kind": "HistGradientBoostingRegressor", "max_iter": 15},
        "forest": {"kind": "rf", "engine": "sklearn", "trees": 3},
    }
    recipe["search"] = {"boosting": {"trials": 3, "space": {"max_leaf_nodes": [3, 15]}}}
    recipe["maps"]["dates"] = recipe["maps"]["dates"][:1]
    run = smgeo.run(recipe, out=tmp_path / "run")
    search = run.results["search"]["boosting"]
    best = min(search["trials"], key=lambda t: t["validation_rmse"])
    model = load_model(run.folder / "models" / "boosting")
    assert model.estimator.get_params() == HistGradientBoostingRegressor(max_iter=15, **best["params"]).get_params()
    assert run.results["models"]["boosting"]["validation"]["rmse"] == pytest.approx(best["validation_rmse"])
    assert [p.parent.name for p in run.maps] == ["boosting", "forest"]
    recipe["models"]["boosting"]["max_iters"] = 3
    with pytest.raises(SmgeoError, match=r"models\.boosting: .* did you mean 'max_iter'"):
        smgeo.run(recipe, out=tmp_path / "other")


def test_making_a_model_of_smgeo_s_own_imports_no_other_library():
    code = "import sys, smgeo; smgeo.make_model('rf', engine='sklearn'); print([m for m in ('ydf', 'keras') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
