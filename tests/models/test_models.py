"""Every kind of model keeps one contract: it learns, repeats itself, refuses what it cannot take, and survives its folder."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from smgeo.errors import SmgeoError
from smgeo.models import load_model, make_model

KINDS = ("rf", "ann", "cnn", "gru", "lstm")
NEEDS = {"rf": "ydf", "ann": "keras", "cnn": "keras", "gru": "keras", "lstm": "keras"}
LENGTH, CHANNELS = 6, 4

# Small enough for seconds, large enough to learn a smooth function.
SMALL: dict[str, dict[str, Any]] = {
    "rf": {"trees": 30, "threads": 2},
    "ann": {"units": 32, "dropout": 0.0, "learning_rate": 0.01, "batch_size": 128, "epochs": 12},
    "cnn": {"filters": 16, "kernel": 3, "dropout": 0.0, "learning_rate": 0.01, "batch_size": 128, "epochs": 8},
    "gru": {"units": 16, "dropout": 0.0, "learning_rate": 0.01, "batch_size": 128, "epochs": 8},
    "lstm": {"units": 16, "dropout": 0.0, "learning_rate": 0.01, "batch_size": 128, "epochs": 8},
}


class PlainWindows:
    """Windows over an array that is already there: the protocol, and nothing more."""

    def __init__(self, x: np.ndarray, y: np.ndarray | None) -> None:
        self._x, self.y = x, y
        self.shape = x.shape
        self.preparation = {"features": [f"f{i}" for i in range(x.shape[2])], "units": {"f0": "1"}, "length": x.shape[1]}

    def __len__(self) -> int:
        return len(self._x)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self._x[rows]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(NEEDS[request.param])
    return str(request.param)


def small(kind: str, seed: int = 0, **params: Any) -> Any:
    return make_model(kind, seed=seed, **{**SMALL[kind], **params})


def data(kind: str, n: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """X in the layout of the kind, and a smooth y of its last day with the mean and spread of soil moisture."""
    x = np.random.default_rng(seed).uniform(size=(n, LENGTH, CHANNELS)).astype("float32")
    last = x[:, -1]
    y = (0.1 + 0.2 * last[:, 0] + 0.1 * np.sin(3 * last[:, 1])).astype("float32")
    return (x if make_model(kind).uses_window else np.ascontiguousarray(last)), y


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a.astype("float64") - b) ** 2)))


def test_learns_a_smooth_target(kind: str) -> None:
    x, y = data(kind)
    other, truth = data(kind, 500, seed=1)
    model = small(kind)
    assert model.fit(x, y) is model
    estimate = model.predict(other)
    assert estimate.shape == (500,)
    assert estimate.dtype == np.float32
    assert rmse(estimate, truth) < 0.5 * truth.std()


def test_repeats_itself_with_one_seed(kind: str) -> None:
    x, y = data(kind, 400)
    first, again, other = (small(kind, seed, **_short(kind)).fit(x, y).predict(x) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def _short(kind: str) -> dict[str, Any]:
    return {"trees": 5} if kind == "rf" else {"epochs": 2, "dropout": 0.1}


def test_predicts_the_same_in_another_process(kind: str, tmp_path: Path) -> None:
    x, y = data(kind, 400)
    model = small(kind, **_short(kind)).fit(x, y)
    model.preparation_ = {"features": ["a", "b", "c", "d"], "units": {"a": "dB"}}
    model.save(tmp_path / "m")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np; from smgeo.models import load_model; d = sys.argv[1]\n"
        "m = load_model(d + '/m'); np.save(d + '/p.npy', m.predict(np.load(d + '/x.npy')))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, timeout=120)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), model.predict(x))
    loaded = load_model(tmp_path / "m")
    assert loaded.preparation_ == model.preparation_
    assert loaded.get_params() == model.get_params()
    assert not [p for p in (tmp_path / "m").rglob("*") if p.suffix in (".pkl", ".pickle", ".joblib")]
    assert json.loads((tmp_path / "m" / "model.json").read_text())["kind"] == kind
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_refuses_a_changed_or_missing_file_by_name(kind: str, tmp_path: Path) -> None:
    x, y = data(kind, 200)
    small(kind, **_short(kind)).fit(x, y).save(tmp_path / "m")
    (tmp_path / "m" / "left by the user.txt").write_text("ignored")
    load_model(tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / "model.json").read_text())
    weights = max((tmp_path / "m" / name for name in manifest["files"]), key=lambda p: p.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(SmgeoError, match=weights.name):
        load_model(tmp_path / "m")
    weights.unlink()
    with pytest.raises(SmgeoError, match=weights.name):
        load_model(tmp_path / "m")


def test_refuses_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(SmgeoError, match=r"model\.json"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(SmgeoError, match="damaged"):
        load_model(tmp_path)


def test_refuses_a_manifest_that_leaves_the_folder_or_is_of_tomorrow(tmp_path: Path) -> None:
    pytest.importorskip("ydf")
    x, y = data("rf", 200)
    small("rf", trees=2).fit(x, y).save(tmp_path / "m")
    file = tmp_path / "m" / "model.json"
    manifest = json.loads(file.read_text())
    (tmp_path / "outside").write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    for change, words in (
        ({"files": {"../outside": digest}}, "outside"),
        ({"files": {str(tmp_path / "outside"): digest}}, "outside"),
        ({"format": manifest["format"] + 1}, "newer"),
        ({"kind": "oracle"}, "oracle"),
    ):
        file.write_text(json.dumps(manifest | change))
        with pytest.raises(SmgeoError, match=words):
            load_model(tmp_path / "m")


def test_saving_replaces_an_older_model(tmp_path: Path) -> None:
    pytest.importorskip("ydf")
    x, y = data("rf", 200)
    for trees in (2, 3):
        small("rf", trees=trees).fit(x, y).save(tmp_path / "m")
    assert load_model(tmp_path / "m").get_params()["trees"] == 3


def test_keeps_the_scikit_learn_contract(kind: str) -> None:
    model = make_model(kind, seed=5)
    copy = clone(model)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    assert copy.set_params(seed=6).get_params()["seed"] == 6
    x, y = data(kind, 200)
    fitted = small(kind, **_short(kind)).fit(x, y)
    assert fitted.n_features_in_ == CHANNELS
    assert fitted.preparation_ is None
    with pytest.raises(SmgeoError, match="not fitted"):
        clone(fitted).predict(x)


def test_windows_and_the_equal_array_give_one_model(kind: str) -> None:
    x, y = data(kind, 400)
    windows = PlainWindows(x if x.ndim == 3 else x[:, None, :], y)
    held = PlainWindows(windows.gather(np.arange(50)), y[:50])
    by_windows = small(kind, **_short(kind)).fit(windows, validation=held)
    by_array = small(kind, **_short(kind)).fit(x, y, validation=(x[:50], y[:50]))
    np.testing.assert_array_equal(by_windows.predict(windows), by_array.predict(x))
    assert by_windows.preparation_ == windows.preparation


@pytest.mark.parametrize("kind", ["rf", "ann"])
def test_long_windows_are_laid_out_as_rows(kind: str) -> None:
    pytest.importorskip(NEEDS[kind])
    x, y = data("gru", 300)
    model = small(kind, **_short(kind)).fit(PlainWindows(x, y))
    flat = small(kind, **_short(kind)).fit(x.reshape(300, -1), y)
    np.testing.assert_array_equal(model.predict(PlainWindows(x, None)), flat.predict(x.reshape(300, -1)))


def test_refuses_unknown_names() -> None:
    with pytest.raises(SmgeoError, match="did you mean 'lstm'"):
        make_model("lstn")
    pytest.importorskip("keras")
    with pytest.raises(SmgeoError, match="did you mean 'units'"):
        make_model("ann", unit=3)
    with pytest.raises(SmgeoError, match="did you mean 'sigmoid'"):
        make_model("ann", activation="sigmoyd").fit(*data("ann", 50))


def test_refuses_what_it_cannot_take(kind: str) -> None:
    x, y = data(kind, 100)
    model = small(kind, **_short(kind))
    needed = r"\(n, length, features\)" if model.uses_window else r"\(n, features\)"
    with pytest.raises(SmgeoError, match=needed):
        model.fit(x[:, 0], y)
    with pytest.raises(SmgeoError, match="99"):
        model.fit(x, y[:99])
    with pytest.raises(SmgeoError, match="y"):
        model.fit(x)
    gaps = y.copy()
    gaps[:3] = np.nan
    with pytest.raises(SmgeoError, match=r"y.* 3 "):
        model.fit(x, gaps)
    with pytest.raises(SmgeoError, match="no rows"):
        model.fit(x[:0], y[:0])
    model.fit(x, y)
    with pytest.raises(SmgeoError, match=str(CHANNELS - 1)):
        model.predict(x[..., 1:])


@pytest.mark.parametrize("kind", ["ann", "gru"])
def test_networks_refuse_missing_values(kind: str) -> None:
    pytest.importorskip("keras")
    x, y = data(kind, 100)
    x[:2, ..., 0] = np.nan
    count = str(int(np.isnan(x).sum()))
    with pytest.raises(SmgeoError, match=count):
        small(kind).fit(x, y)


def test_early_stopping_keeps_the_best_weights() -> None:
    pytest.importorskip("keras")
    # Few rows with a noisy target: the validation RMSE soon rises again.
    x, y = data("ann", 60)
    y = y + np.random.default_rng(2).normal(0, 0.1, y.size).astype("float32")
    held, truth = data("ann", 300, seed=1)
    seen: list[int] = []
    model = make_model("ann", units=128, dropout=0.0, learning_rate=0.01, batch_size=16, epochs=80, patience=5)
    model.fit(x, y, validation=(held, truth), progress=lambda done, total, scores: seen.append(done))
    history = model.history_["val_rmse"]
    assert seen == list(range(1, len(history) + 1))
    assert len(history) < 80
    assert history[-1] > min(history)
    assert rmse(model.predict(held), truth) == pytest.approx(min(history), rel=1e-4)


def test_importing_loads_no_library() -> None:
    code = "import sys, smgeo.models; print([m for m in ('tensorflow', 'keras', 'jax', 'ydf') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == "[]"
