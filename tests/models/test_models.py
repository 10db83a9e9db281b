"""Every kind keeps one contract: it learns, repeats itself, and comes back from its file bit by bit."""

import hashlib
import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from sklearn.base import clone

from smgeo.errors import SmgeoError
from smgeo.models import load_model, make_model
from smgeo.prepare import Windows

pytest.importorskip("ydf")
pytest.importorskip("tensorflow")

NETWORK = {"epochs": 3, "batch_size": 16, "learning_rate": 0.02, "dropout": 0.0}
PARAMS = {
    "rf": {"trees": 20, "threads": 2},
    "rf by scikit-learn": {"engine": "sklearn", "trees": 20, "threads": 2},
    "extra_trees": {"trees": 20, "threads": 2, "sample_rows": 400},
    "boosting": {"trees": 40, "feature_share": 0.6, "learning_rate": 0.2, "l2": 0.0},
    "scikit-learn": {"max_iter": 40, "max_features": 0.6},
    "ann": {"layers": 1, "units": 24, **NETWORK},
    "cnn": {"layers": 1, "filters": 8, "kernel": 3, **NETWORK},
    "gru": {"units": 8, **NETWORK},
    "lstm": {"units": 16, **NETWORK, "learning_rate": 0.03},
}
# Name here -> kind, where they differ.
KIND = {"rf by scikit-learn": "rf", "scikit-learn": "HistGradientBoostingRegressor"}
NAMES = list(PARAMS)


def _make(name, **params):
    return make_model(KIND.get(name, name), **{**PARAMS[name], **params})


def _smooth(name, n=700, seed=0):
    """X and a smooth y of it: of one day's three features, or of the last two days of four."""
    rng = np.random.default_rng(seed)
    if not _make(name).uses_window:
        x = rng.random((n, 3), dtype="float32")
        return x, 0.1 + 0.3 * x[:, 0] + 0.1 * np.sin(3 * x[:, 1])
    x = rng.random((n, 4, 2), dtype="float32")
    return x, 0.1 + 0.2 * x[:, -1, 0] + 0.15 * x[:, -2, 1]


@cache
def _fitted(name):
    x, y = _smooth(name)
    return _make(name, seed=1).fit(x[:500], y[:500])


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(name):
    return _fitted(name)


def test_learns_a_smooth_target(name, fitted):
    x, y = _smooth(name)
    predicted = fitted.predict(x[500:])
    assert predicted.dtype == np.float32
    assert predicted.shape == (200,)
    assert np.sqrt(np.mean((predicted - y[500:]) ** 2)) < 0.5 * y[500:].std()
    assert fitted.score(x[500:], y[500:]) > 0.75


def test_the_same_seed_gives_the_same_bits(name, fitted):
    x, y = _smooth(name)
    again = clone(fitted).fit(x[:500], y[:500])
    assert np.array_equal(again.predict(x), fitted.predict(x))
    if name in ("rf", "rf by scikit-learn", "extra_trees", "boosting", "scikit-learn", "ann"):
        other = clone(fitted).set_params(seed=2).fit(x[:500], y[:500])
        assert not np.array_equal(other.predict(x), fitted.predict(x))


def test_prediction_of_a_row_does_not_depend_on_the_others(name, fitted):
    x, _ = _smooth(name)
    together = fitted.predict(x)
    assert np.array_equal(
        np.concatenate([fitted.predict(x[:1]), fitted.predict(x[1:333]), fitted.predict(x[333:])]), together
    )
    assert fitted.predict(x[:0]).shape == (0,)


def test_the_contract_of_scikit_learn(name, fitted):
    params = fitted.get_params()
    assert params["seed"] == 1
    for param, value in PARAMS[name].items():
        assert params[f"estimator__{param}" if name == "scikit-learn" else param] == value
    copy = clone(fitted)
    assert type(copy) is type(fitted)
    assert repr(copy.get_params()) == repr(params)
    assert fitted.n_features_in_ == _smooth(name)[0].shape[-1]
    with pytest.raises(SmgeoError, match="not fitted"):
        copy.predict(_smooth(name)[0])


def test_saved_models_give_the_same_bits_in_another_process(tmp_path):
    for name in NAMES:
        model, (x, _) = _fitted(name), _smooth(name)
        model.save(tmp_path / name)
        np.save(tmp_path / f"{name}_x.npy", x)
        np.save(tmp_path / f"{name}_y.npy", model.predict(x))
    code = """
import sys, numpy as np
from pathlib import Path
from smgeo.models import load_model
root = Path(sys.argv[1])
for kind in sys.argv[2:]:
    model = load_model(root / kind)
    same = np.array_equal(model.predict(np.load(root / f"{kind}_x.npy")), np.load(root / f"{kind}_y.npy"))
    print(kind, type(model).__name__, same)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *NAMES], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "rf Forest True",
        "rf by scikit-learn Forest True",
        "extra_trees ExtraTrees True",
        "boosting Boosting True",
        "scikit-learn Regressor True",
        "ann Ann True",
        "cnn Cnn True",
        "gru Gru True",
        "lstm Lstm True",
    ]


def test_a_loaded_model_is_saved_alike(name, fitted, tmp_path):
    fitted.save(tmp_path / "a")
    loaded = load_model(tmp_path / "a")
    loaded.save(tmp_path / "b")
    x, _ = _smooth(name)
    assert np.array_equal(load_model(tmp_path / "b").predict(x), fitted.predict(x))
    first, second = (json.loads((tmp_path / n / "model.json").read_text()) for n in "ab")
    for key in ("kind", "params", "input_shape", "training", "preparation"):
        assert first[key] == second[key]


def test_no_pickle_in_the_model_file(fitted, tmp_path):
    files = [p for p in fitted.save(tmp_path / "m").rglob("*") if p.is_file()]
    assert len(files) > 1
    assert not [
        p for p in files if p.suffix in {".pkl", ".pickle", ".joblib", ".keras"} or p.read_bytes()[:1] == b"\x80"
    ]


def test_a_flipped_byte_is_refused_by_file_name(fitted, tmp_path):
    path = fitted.save(tmp_path / "m")
    weights = [p for p in sorted(path.rglob("*")) if p.is_file() and p.name != "model.json" and p.stat().st_size]
    for file in weights:
        good = file.read_bytes()
        middle = len(good) // 2
        file.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
        with pytest.raises(SmgeoError, match=file.name):
            load_model(path)
        file.write_bytes(good)
    weights[0].unlink()
    with pytest.raises(SmgeoError, match=weights[0].name):
        load_model(path)


@pytest.fixture
def small_forest(tmp_path):
    x, y = _smooth("rf", n=60)
    return make_model("rf", trees=2).fit(x, y).save(tmp_path / "m")


@pytest.mark.parametrize("bit", [0x01, 0x04, 0x80])
@pytest.mark.parametrize("place", ["n_features", "better_default", "sha", "{"])
def test_a_flipped_byte_in_the_manifest_is_refused(small_forest, bit, place):
    file = small_forest / "model.json"
    good = file.read_bytes()
    at = good.index(b'"files"') + 60 if place == "sha" else good.index(place.encode())
    file.write_bytes(good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :])
    with pytest.raises(SmgeoError, match="m"):
        load_model(small_forest)


def test_a_changed_number_in_the_manifest_is_refused(small_forest):
    file = small_forest / "model.json"
    text = file.read_text()
    file.write_text(text.replace('"rows": 60', '"rows": 61'))
    assert file.read_text() != text
    with pytest.raises(SmgeoError, match=r"model\.json"):
        load_model(small_forest)


def test_model_files_that_are_none(tmp_path, small_forest):
    with pytest.raises(SmgeoError, match=r"no model\.json"):
        load_model(tmp_path)
    manifest = json.loads((small_forest / "model.json").read_text())
    manifest.pop("sha256", None)
    for change, message in (
        ({"format": 99}, "newer smgeo"),
        ({"files": {"../x": "", "trees.npz": ""}}, "outside the model"),
    ):
        changed = manifest | change
        digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()
        (small_forest / "model.json").write_text(json.dumps(changed | {"sha256": digest}))
        with pytest.raises(SmgeoError, match=message):
            load_model(small_forest)


def test_parameters_from_numpy_can_be_saved(tmp_path):
    x, y = _smooth("rf", n=60)
    model = make_model("rf", trees=np.int64(3), seed=np.int64(5)).fit(x, y)
    assert np.array_equal(load_model(model.save(tmp_path / "m")).predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("rff", {}, "did you mean 'rf'"),
        ("lstmm", {}, "did you mean 'lstm'"),
        ("rf", {"tree": 3}, "did you mean 'trees'"),
        ("ann", {"unit": 3}, "did you mean 'units'"),
        ("rf", {"template": "better"}, "better_default"),
        ("rf", {"trees": 0}, "1 or more"),
        ("rf", {"threads": 0}, "1 or more"),
        ("rf", {"feature_share": 0.0}, "feature_share must be above 0 and at most 1"),
        (
            "extra_trees",
            {"sample_rows": 0},
            "trees, max_depth, min_examples, sample_rows and threads must be 1 or more",
        ),
        ("rf", {"engine": "sklern"}, "did you mean 'sklearn'"),
        ("rf", {"trees": 2.5}, "trees must be a whole number"),
        ("rf", {"trees": True}, "trees must be a whole number"),
        ("rf", {"seed": -1}, "seed must be from 0 to 4294967295"),
        (
            "forrest",
            {},
            "known: rf, extra_trees, boosting, ensemble, ann, cnn, gru, lstm, and scikit-learn's regressors",
        ),
        ("HistGradientBostingRegressor", {}, "did you mean 'HistGradientBoostingRegressor'"),
        ("HistGradientBoostingClassifier", {}, "unknown model"),
        ("VotingRegressor", {}, "unknown model"),
        ("HistGradientBoostingRegressor", {"max_iters": 3}, "did you mean 'max_iter'"),
        (
            "HistGradientBoostingRegressor",
            {"max_iter": -3},
            "'max_iter' parameter of HistGradientBoostingRegressor must be",
        ),
        ("ann", {"activation": "rely"}, "did you mean 'relu'"),
        ("gru", {"optimizer": "adm"}, "did you mean 'adam'"),
        ("cnn", {"dropout": 1.0}, "dropout"),
        ("lstm", {"units": 2.5}, "units must be a whole number"),
        ("gru", {"learning_rate": 0}, "learning_rate"),
    ],
)
def test_what_is_unknown_or_impossible_is_refused(kind, params, message):
    with pytest.raises(SmgeoError, match=message):
        make_model(kind, **params)


@pytest.mark.parametrize("kind", ["rf", "ann", "gru"])
def test_bad_arrays_are_refused(kind):
    model, (x, y) = make_model(kind), _smooth(kind, n=20)
    wrong = x[:, 0] if x.ndim == 3 else x[:, None]
    with pytest.raises(SmgeoError, match=r"needs X of shape \(n, "):
        model.fit(wrong, y)
    gap = x.copy()
    gap[3, 0] = np.nan
    with pytest.raises(SmgeoError, match="missing values"):
        model.fit(gap, y)
    with pytest.raises(SmgeoError, match="y contains 1 missing"):
        model.fit(x, np.where(np.arange(20) == 3, np.nan, y))
    with pytest.raises(SmgeoError, match="20 rows, y has 19"):
        model.fit(x, y[:19])
    with pytest.raises(SmgeoError, match="requires y"):
        model.fit(x)
    with pytest.raises(SmgeoError, match="no rows"):
        model.fit(x[:0], y[:0])


def test_other_shapes_than_trained_on_are_refused(name, fitted):
    x, _ = _smooth(name)
    with pytest.raises(SmgeoError, match="the model was fitted on|X has 2 features"):
        fitted.predict(x[..., :-1])
    with pytest.raises(SmgeoError, match="missing values"):
        fitted.predict(np.full_like(x, np.nan))


def test_early_stopping_keeps_the_best_weights():
    """Training fits noise that validation lacks, so that validation gets worse after some epochs."""
    rng = np.random.default_rng(0)
    x, held = rng.random((40, 3), dtype="float32"), rng.random((200, 3), dtype="float32")
    y, truth = x[:, 0] + rng.normal(0, 0.5, 40).astype("float32"), held[:, 0]
    model = make_model("ann", layers=1, units=64, epochs=40, patience=3, learning_rate=0.05, batch_size=8, dropout=0.0)
    seen = []
    model.fit(x, y, validation=(held, truth), progress=lambda done, total, logs: seen.append((done, total)))
    validation = model.history_["val_rmse"]
    best = int(np.argmin(validation))
    assert best < len(validation) - 1
    assert len(validation) == min(best + 1 + 3, 40)
    assert np.sqrt(np.mean((model.predict(held) - truth) ** 2)) == pytest.approx(validation[best], rel=1e-4)
    assert seen == [(i + 1, 40) for i in range(len(validation))]


def test_a_fit_that_was_left_open_does_not_touch_the_next():
    rng = np.random.default_rng(0)
    x = rng.random((60, 3), dtype="float32")
    model = make_model("ann", layers=1, units=8, epochs=4, learning_rate=0.05, batch_size=8)
    left = model.fit_by_epoch(x, x[:, 0], validation=(x, x[:, 0]))
    next(left)
    estimates = model.fit(x, 1 - x[:, 0]).predict(x)
    left.close()
    np.testing.assert_array_equal(model.predict(x), estimates)


def test_a_fit_that_has_not_begun_is_no_fit(tmp_path):
    x = np.random.default_rng(0).random((60, 3), dtype="float32")
    model = make_model("ann", layers=1, units=8, epochs=1).fit(x, x[:, 0])
    model.fit_by_epoch(x, x[:, 1])
    for use in (lambda: model.predict(x), lambda: model.save(tmp_path / "m")):
        with pytest.raises(SmgeoError, match="not fitted yet"):
            use()


def test_a_channel_that_never_varied_is_not_blown_up():
    """Such as the mask of a static feature, which is 1 at every station, and 0 on a pixel without it."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.random(200), np.full(200, 0.1)]).astype("float32")
    model = make_model("ann", layers=1, units=8, epochs=2).fit(x, x[:, 0])
    x[:, 1] = 0.0
    assert np.abs(model.predict(x)).max() < 3


def test_who_stops_asking_has_the_best_epoch_so_far():
    rng = np.random.default_rng(0)
    x, held = rng.random((40, 3), dtype="float32"), rng.random((200, 3), dtype="float32")
    y, truth = x[:, 0] + rng.normal(0, 0.5, 40).astype("float32"), held[:, 0]
    model = make_model("ann", layers=1, units=64, epochs=40, patience=40, learning_rate=0.05, batch_size=8, dropout=0.0)
    epochs, scores = model.fit_by_epoch(x, y, validation=(held, truth)), []
    for told in epochs:
        scores.append(told["val_rmse"])
        if len(scores) > int(np.argmin(scores)) + 2:
            break
    epochs.close()
    assert int(np.argmin(scores)) < len(scores) - 1 < 39
    assert np.sqrt(np.mean((model.predict(held) - truth) ** 2)) == pytest.approx(min(scores), rel=1e-4)
    assert model.training_["epochs"] == len(scores)


@pytest.mark.parametrize("kind", ["rf", "extra_trees", "boosting"])
def test_trees_are_told_fifty_at_a_time_and_are_usable_between(kind):
    x, y = _smooth(kind)
    told = []
    model = make_model(kind, trees=120, threads=1)
    for scores in model.fit_by_epoch(x, y):
        told.append((scores["epoch"], scores["epochs"]))
        assert np.isfinite(model.predict(x[:5])).all()
    assert told == [(50, 120), (100, 120), (120, 120)]


def test_a_forest_of_several_steps_has_the_trees_of_each(tmp_path):
    """Trees of later steps have seeds of their own; the file holds all of them, and their mean and spread are as in memory."""
    x, y = _smooth("rf")
    few, many = (make_model("rf", trees=n, threads=1).fit(x, y) for n in (50, 110))
    mean, spread = many.predict_spread(x)
    first = few.predict_spread(x)[0]
    rest = (110 * mean - 50 * first) / 60
    assert np.abs(rest - first).max() > 1e-3  # not the same trees again
    many.save(tmp_path / "m")
    np.testing.assert_array_equal(load_model(tmp_path / "m").predict_spread(x), (mean, spread))


@pytest.mark.parametrize("kind", ["rf", "rf by scikit-learn", "extra_trees"])
def test_fewer_rows_a_tree_make_smaller_trees(kind):
    x, y = _smooth(kind)
    whole, some = (_make(kind, sample_rows=n).fit(x, y) for n in (None, 70))
    assert some._trees.starts[-1] < 0.3 * whole._trees.starts[-1]


def test_epochs_one_by_one_are_the_epochs_of_one_fit(name, fitted):
    x, y = _smooth(name)
    model = _make(name, seed=1)
    told = list(model.fit_by_epoch(x[:500], y[:500]))
    trees = PARAMS[name].get("trees")  # of these, fifty at a time
    assert [t["epoch"] for t in told] == ([trees] if trees else list(range(1, len(told) + 1)))
    assert {t["epochs"] for t in told} == {trees or len(told)}
    np.testing.assert_array_equal(model.predict(x[500:]), fitted.predict(x[500:]))


def test_nothing_is_trained_before_wrong_input_is_refused():
    with pytest.raises(SmgeoError, match="missing values"):
        make_model("ann").fit_by_epoch(np.full((4, 2), np.nan, "float32"), np.zeros(4))


@pytest.mark.parametrize(
    ("options", "batch", "rate"),
    [
        ({}, 64, 0.001 * 2**0.5),  # 6,500 rows: 101 steps
        ({"optimizer": "sgd"}, 64, 0.02),
        ({"batch_size": 128}, 128, 0.002),
        ({"learning_rate": 0.05}, 64, 0.05),
    ],
)
def test_batch_and_rate_follow_the_number_of_rows(options, batch, rate):
    x = np.random.default_rng(0).random((6500, 2), dtype="float32")
    model = make_model("ann", layers=1, units=2, epochs=1, **options).fit(x, x[:, 0])
    assert model.training_["batch_size"] == batch
    assert model.training_["learning_rate"] == pytest.approx(rate)
    assert model.get_params()["batch_size"] == options.get("batch_size")


@pytest.mark.parametrize(("kind", "missing"), [("rf", 0.0), ("rf", 0.5), ("gru", 0.0), ("ann", 0.5)])
def test_windows_and_the_same_array_give_the_same_fit(make_station_cube, kind, missing):
    ds = make_station_cube(stations=3, gaps=0.3)
    features = ["s1_vv", "clay"]
    ds["s1_vv"] = ds["s1_vv"] / 12
    ds["clay"] = ds["clay"] / 25
    length = 3 if kind == "gru" else 1
    windows = Windows(ds, features, length=length, missing=missing, fill=[-1, 1])
    x = windows.gather(np.arange(len(windows)))
    array = x if kind == "gru" else x[:, 0]
    few = PARAMS[kind] | ({"epochs": 1} if kind != "rf" else {})
    a, b = make_model(kind, **few).fit(windows), make_model(kind, **few).fit(array, windows.y)
    assert np.array_equal(a.predict(windows), b.predict(array))
    assert np.array_equal(b.predict(windows), a.predict(array))
    assert a.preparation_ == windows.preparation
    assert b.preparation_ is None


def test_rows_of_several_days_lie_side_by_side(make_station_cube):
    windows = Windows(make_station_cube(), ["s1_vv", "clay"], length=3)
    flat = windows.gather(np.arange(len(windows))).reshape(len(windows), 6)
    a, b = make_model("rf", trees=3).fit(windows), make_model("rf", trees=3).fit(flat, windows.y)
    assert np.array_equal(a.predict(windows), b.predict(flat))


def test_importing_loads_no_heavy_library():
    code = "import sys, smgeo, smgeo.models; smgeo.make_model; print([m for m in ('tensorflow', 'keras', 'ydf', 'ray', 'ee') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["ann", "gru"])
def test_a_standardizing_network_does_not_care_how_features_were_scaled(name):
    x, y = _smooth(name)
    other = (50 * x - 7).astype("float32")
    same = [_make(name, seed=1).fit(v[:500], y[:500]).predict(v[500:]) for v in (x, other)]
    np.testing.assert_allclose(*same, atol=1e-3)
    plain = [_make(name, seed=1, standardize=False).fit(v[:500], y[:500]).predict(v[500:]) for v in (x, other)]
    assert np.abs(plain[0] - plain[1]).max() > 0.02


def test_inputs_are_standardized_by_the_training_rows():
    x, y = _smooth("gru")
    model = _make("gru", epochs=1).fit(x[:400], y[:400])
    layer = model._model.get_layer("standardize")
    np.testing.assert_allclose(layer.adapt_mean, x[:400].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(layer.adapt_variance, x[:400].var((0, 1)), rtol=1e-5)


def test_a_falling_learning_rate_ends_low_and_an_unknown_schedule_is_refused():
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 3)).astype("float32")
    y = (x[:, 0] + random.normal(0, 0.1, 64)).astype("float32")
    options = {"units": 4, "layers": 1, "batch_size": 16, "learning_rate": 0.01, "epochs": 2}
    rates = {s: make_model("ann", **options, schedule=s).fit(x, y) for s in ("constant", "cosine")}
    # Half a cosine from 0.01 to nothing after two epochs: the second begins half-way.
    assert float(rates["cosine"]._model.optimizer.learning_rate) == pytest.approx(0.005)
    assert float(rates["constant"]._model.optimizer.learning_rate) == pytest.approx(0.01)
    assert rates["cosine"].history_["rmse"][0] == rates["constant"].history_["rmse"][0]
    assert rates["cosine"].history_["rmse"][1] != rates["constant"].history_["rmse"][1]
    with pytest.raises(SmgeoError, match="unknown schedule 'cosin'"):
        make_model("ann", schedule="cosin")
