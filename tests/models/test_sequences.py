"""Recurrent networks on whole series: what is learned, from which days, and what is estimated."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401 - registers the accessor `.rio`
import xarray as xr

from smgeo.errors import SmgeoError
from smgeo.evaluation.parts import evaluate
from smgeo.maps import predict_map
from smgeo.models import load_model, make_model
from smgeo.prepare import Split, Windows
from smgeo.study.progress import Reporter
from smgeo.study.runs import run

pytest.importorskip("tensorflow")

# They learn a rule without noise, from stations that are alike: nothing is to be left out.
EVERYTHING = {"dropout": 0.0, "input_dropout": 0.0, "schedule": "constant"}
SMALL = {
    **EVERYTHING,
    "units": 16,
    "epochs": 12,
    "patience": 12,
    "learning_rate": 0.02,
    "batch_size": 4,
    "crop_days": 60,
}
STATIONS = [f"N/s{i:02d}" for i in range(12)]
SPLIT = Split(tuple(STATIONS[:8]), tuple(STATIONS[8:10]), tuple(STATIONS[10:]))


def _cube(seed=0, days=150, known=0.5):
    """Return rain, and a store that it wets and that dries: today's soil moisture follows from the days before."""
    rng = np.random.default_rng(seed)
    rain = np.maximum(rng.standard_normal((12, days)), 0)
    store = np.zeros_like(rain)
    for t in range(1, days):
        store[:, t] = 0.8 * store[:, t - 1] + rain[:, t]
    sm = np.where(rng.random(rain.shape) < known, 0.1 + 0.05 * store, np.nan)
    dims = ("station", "time")
    return xr.Dataset(
        {
            "precipitation": (dims, rain.astype("float32"), {"units": "mm d-1", "kind": "dynamic"}),
            "sm": (dims, sm.astype("float32"), {"units": "m3 m-3", "kind": "target"}),
        },
        {"station": STATIONS, "time": pd.date_range("2020-01-01", periods=days)},
    )


def _windows(ds, stations, mode="sequence"):
    return Windows(ds.sel(station=list(stations)), ["precipitation"], length=5, fill=[0.5], mode=mode)


@pytest.fixture(scope="module", params=["gru", "lstm"])
def fitted(request):
    ds = _cube()
    model = make_model(request.param, mode="sequence", **SMALL)
    return model.fit(_windows(ds, SPLIT.train), validation=_windows(ds, SPLIT.validation))


def test_learns_what_lies_further_back_than_a_window(fitted):
    """A window of 5 days misses a third of the store; a series does not."""
    held = _windows(_cube(seed=1), SPLIT.test)
    error = held.pick(fitted.predict(held)) - held.pick(held.y)
    assert np.sqrt(np.mean(error**2)) < 0.25 * held.pick(held.y).std()


def test_a_day_is_estimated_from_itself_and_the_days_before_alone(fitted):
    whole = _windows(_cube(seed=1), SPLIT.test)
    short = Windows(
        _cube(seed=1).isel(time=slice(0, 100)).sel(station=list(SPLIT.test)),
        ["precipitation"],
        length=5,
        fill=[0.5],
        mode="sequence",
    )
    np.testing.assert_allclose(fitted.predict(short), fitted.predict(whole)[:, :100], atol=1e-6)


def test_the_loss_is_the_mean_over_the_days_that_count(monkeypatch):
    """One step of SGD moves the output's bias by the rate times the mean gradient by hand; what stands on other days is nothing to it."""
    windows = _windows(_cube(known=0.2), SPLIT.train)
    crop = Windows.crop

    def planted(self, days):
        pieces = crop(self, days)
        pieces.y = np.where(pieces.mask, pieces.y, np.float32(9))
        return pieces

    monkeypatch.setattr(Windows, "crop", planted)
    options = {**SMALL, "optimizer": "sgd", "batch_size": 64, "crop_days": 1000, "epochs": 1}
    before, after = (
        make_model("gru", mode="sequence", **{**options, "learning_rate": r}).fit(windows) for r in (1e-12, 0.1)
    )
    gradient = 2 * np.mean(before.predict(windows)[windows.mask].astype("float64") - windows.y[windows.mask])
    assert abs(gradient) > 1e-4
    moved = [np.asarray(m._model.get_layer("output").bias)[0] for m in (before, after)]
    assert moved[1] - moved[0] == pytest.approx(-0.1 * gradient, rel=1e-3)


def test_scores_of_an_epoch_are_the_rmse_of_the_days_that_count(fitted):
    held = _windows(_cube(), SPLIT.validation)
    by_hand = np.sqrt(np.mean((fitted.predict(held)[held.mask].astype("float64") - held.y[held.mask]) ** 2))
    assert min(fitted.history_["val_rmse"]) == pytest.approx(by_hand, abs=1e-9)


def test_training_rmse_weighs_each_day_alike():
    """One step on the whole of the data, from known weights: Keras' number is the one by hand."""
    windows = _windows(_cube(known=0.2), SPLIT.train)
    options = {**SMALL, "batch_size": 64, "crop_days": 1000, "epochs": 1, "learning_rate": 1e-12}
    model = make_model("gru", mode="sequence", **options).fit(windows)
    error = model.predict(windows)[windows.mask].astype("float64") - windows.y[windows.mask]
    assert model.history_["rmse"][0] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)


def test_evaluated_day_by_day(fitted):
    ds = _cube(seed=1)
    found = evaluate(fitted, ds, SPLIT)
    held = _windows(ds, SPLIT.test)
    o, p = held.y[held.mask].astype("float64"), fitted.predict(held)[held.mask].astype("float64")
    assert found.scores["test"]["n"] == int(held.mask.sum())
    assert found.scores["test"]["rmse"] == pytest.approx(np.sqrt(np.mean((p - o) ** 2)), abs=1e-7)
    of_test = found.predictions.sel(station=list(SPLIT.test))
    np.testing.assert_array_equal(np.isfinite(of_test["predicted"].values), held.mask)
    np.testing.assert_allclose(of_test["observed"].values[held.mask], held.y[held.mask])


def test_a_saved_model_says_its_mode(fitted, tmp_path):
    held = _windows(_cube(seed=1), SPLIT.test)
    loaded = load_model(fitted.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(held), fitted.predict(held))
    assert loaded.preparation_["mode"] == "sequence"


def test_r2_is_of_the_days_that_count(fitted):
    held = _windows(_cube(seed=1), SPLIT.test)
    o, p = held.y[held.mask].astype("float64"), fitted.predict(held)[held.mask].astype("float64")
    by_hand = 1 - np.sum((o - p) ** 2) / np.sum((o - o.mean()) ** 2)
    assert fitted.score(held) == fitted.score(held, held.y) == pytest.approx(by_hand, abs=1e-6)


def test_what_was_fitted_stays_what_it_is(tmp_path):
    """Parameters that are set after fitting are for the next fit."""
    ds = _cube()
    held = _windows(ds, SPLIT.test)
    model = make_model("gru", mode="sequence", **{**SMALL, "epochs": 1}).fit(_windows(ds, SPLIT.train))
    estimates = model.predict(held)
    model.set_params(mode="window", units=3)
    np.testing.assert_array_equal(model.predict(held), estimates)
    np.testing.assert_array_equal(load_model(model.save(tmp_path / "model")).predict(held), estimates)


_ON_JAX = """
import sys
sys.path.insert(0, sys.argv[1])
from test_sequences import SMALL, SPLIT, _cube, _windows
import keras, numpy as np
from smgeo.models import make_model
assert keras.backend.backend() == "jax"
ds = _cube()
model = make_model("gru", mode="sequence", **SMALL)
model.fit(_windows(ds, SPLIT.train), validation=_windows(ds, SPLIT.validation))
held = _windows(_cube(seed=1), SPLIT.test)
np.save(sys.argv[2] + "/estimates.npy", model.predict(held))
model.save(sys.argv[2] + "/model")
x = np.random.default_rng(0).random((500, 3), dtype="float32")
dense = make_model("ann", layers=1, units=32, epochs=20, learning_rate=0.02, dropout=0.0).fit(x, x[:, 0], validation=(x, x[:, 0]))
np.save(sys.argv[2] + "/dense.npy", dense.predict(x))
dense.save(sys.argv[2] + "/dense")
"""


def test_a_model_trained_on_jax_is_read_on_tensorflow(fitted, tmp_path):
    pytest.importorskip("jax")
    if fitted.kind != "gru":
        pytest.skip("one kind is enough")
    call = [sys.executable, "-c", _ON_JAX, str(Path(__file__).parent), str(tmp_path)]
    subprocess.run(call, check=True, env={**os.environ, "KERAS_BACKEND": "jax"})
    held = _windows(_cube(seed=1), SPLIT.test)
    model = load_model(tmp_path / "model")
    np.testing.assert_allclose(model.predict(held), np.load(tmp_path / "estimates.npy"), atol=1e-5)
    error = held.pick(model.predict(held)) - held.pick(held.y)
    assert np.sqrt(np.mean(error**2)) < 0.25 * held.pick(held.y).std()
    x = np.random.default_rng(0).random((500, 3), dtype="float32")
    dense = load_model(tmp_path / "dense").predict(x)
    np.testing.assert_allclose(dense, np.load(tmp_path / "dense.npy"), atol=1e-5)
    assert np.sqrt(np.mean((dense - x[:, 0]) ** 2)) < 0.05


@pytest.mark.soak
def test_a_recipe_scores_series_on_the_days_of_its_windows(toy_recipe, tmp_path):
    """Gaps, masks, a scaled target and cross-validation: both modes learn from and are scored on the same rows."""
    recipe = copy.deepcopy(toy_recipe)
    small = {**EVERYTHING, "units": 4, "epochs": 10, "learning_rate": 0.02}
    recipe["models"] = {"windows": {"kind": "gru", **small}, "series": {"kind": "gru", "mode": "sequence", **small}}
    recipe["prepare"] = {**recipe["prepare"], "window": {"length": 5, "missing": 0.4}}
    recipe["cross_validation"] = {"method": "group-k-fold", "folds": 2}
    recipe.pop("maps", None)
    found = run(recipe, out=tmp_path / "run", reporter=Reporter(quiet=True)).results
    windows, series = (found["models"][n] for n in ("windows", "series"))
    for part in ("train", "validation", "test"):
        assert windows[part]["n"] == series[part]["n"] > 0
        assert 0 < series[part]["rmse"] < 0.25
    assert found["training"]["series"]["rows"] == found["training"]["windows"]["rows"]
    assert found["cross_validation"]["series"]["n"] == found["cross_validation"]["windows"]["n"]


def test_maps_run_along_the_whole_series_of_a_pixel(fitted, tmp_path):
    """A pixel with a station's rain has the station's estimate, on chosen days too."""
    ds = _cube(seed=1)
    rain = ds["precipitation"].values.T.reshape(150, 3, 4)
    grid = xr.Dataset(
        {"precipitation": (("time", "y", "x"), rain, ds["precipitation"].attrs)},
        {"time": ds["time"], "y": [30.0, 20.0, 10.0], "x": [10.0, 20.0, 30.0, 40.0]},
    ).rio.write_crs("EPSG:32632")
    days = [ds["time"].values[t] for t in (20, 60, 149)]
    out = xr.open_zarr(predict_map(fitted, grid, tmp_path / "map.zarr", days), consolidated=False)["sm"].values
    windows = Windows(ds, ["precipitation"], None, length=5, fill=[0.5], mode="sequence")
    expected = fitted.predict(windows)[:, [20, 60, 149]].T.reshape(3, 3, 4)
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_windows_and_series_are_not_taken_for_each_other(fitted):
    ds = _cube()
    with pytest.raises(SmgeoError, match="takes whole series"):
        fitted.predict(_windows(ds, SPLIT.test, mode="window"))
    with pytest.raises(SmgeoError, match="these are whole series"):
        make_model("gru").fit(_windows(ds, SPLIT.train))
    with pytest.raises(SmgeoError, match="give these Windows fill"):
        make_model("gru", mode="sequence").fit(Windows(ds, ["precipitation"], length=5, mode="sequence"))
    with pytest.raises(SmgeoError, match="bring y"):
        make_model("gru", mode="sequence").fit(np.zeros((2, 9, 1), "float32"), np.zeros(2))
    with pytest.raises(SmgeoError, match="mode 'sequences'.*did you mean 'sequence'"):
        make_model("gru", mode="sequences")
