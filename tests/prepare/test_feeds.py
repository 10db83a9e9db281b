"""Windows as Keras and TensorFlow take them: the same windows, each once an epoch, on every backend."""

import os
import subprocess
import sys

import numpy as np
import pytest

from smgeo.errors import SmgeoError
from smgeo.models import make_model
from smgeo.prepare import Windows, series

pytest.importorskip("keras", reason="needs smgeo[nn]")
FEATURES = ["s1_vv", "clay", "precipitation"]


def _windows(make_station_cube, **kwargs):
    ds = make_station_cube(stations=6, days=20, gaps=0.05)
    return Windows(ds, FEATURES, length=3, fill=[-9.0, 20.0, 1.0], **kwargs)


def _rows(x, *others):
    """One row a window, sorted, so that orders do not matter."""
    flat = np.concatenate([np.asarray(a, dtype="float64").reshape(len(x), -1) for a in (x, *others)], axis=1)
    return flat[np.lexsort(flat.T)]


def _joined(batches):
    return [np.concatenate([np.asarray(b[i]) for b in batches]) for i in range(len(batches[0]))]


FEEDS = {
    "keras": lambda w, size, **k: [(lambda d: [d[i] for i in range(len(d))])(w.to_keras(size, **k))][0],
    "tf": lambda w, size, **k: list(w.to_tf(size, **k).as_numpy_iterator()),
}


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_windows_of_an_epoch(make_station_cube, feed, missing):
    windows = _windows(make_station_cube, missing=missing)
    batches = FEEDS[feed](windows, 7, shuffle=False)
    x, y = _joined(batches)
    np.testing.assert_array_equal(x, windows.gather(np.arange(len(windows))))
    np.testing.assert_array_equal(y, windows.y)
    assert [len(b[1]) for b in batches] == [len(b[1]) for b in windows.batches(7)]
    shuffled = _joined(FEEDS[feed](windows, 7, seed=1))
    assert not np.array_equal(shuffled[1], y)
    np.testing.assert_array_equal(_rows(*shuffled), _rows(x, y))
    np.testing.assert_array_equal(shuffled[1], _joined(FEEDS[feed](windows, 7, seed=1))[1])


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_sequences_carry_their_mask_as_weights(make_station_cube, feed, missing):
    windows = _windows(make_station_cube, missing=missing, mode="sequence")
    x, y, weights = _joined(FEEDS[feed](windows, 4, shuffle=False))
    np.testing.assert_array_equal(x, windows.gather(np.arange(len(windows))))
    np.testing.assert_array_equal(y[..., 0], windows.y)
    np.testing.assert_array_equal(weights, windows.mask.astype("float32"))


def test_every_epoch_has_an_order_of_its_own(make_station_cube):
    windows = _windows(make_station_cube)
    data = windows.to_keras(len(windows))
    first = data[0][1]
    data.on_epoch_end()
    assert not np.array_equal(first, data[0][1])
    dataset = windows.to_tf(len(windows))
    first, second = (next(dataset.as_numpy_iterator())[1] for _ in range(2))
    assert not np.array_equal(first, second)


def test_out_of_core_windows_go_to_keras_and_not_into_a_graph(make_station_cube):
    ds = make_station_cube(stations=6, days=20).chunk(station=2)
    windows = Windows(ds, FEATURES, length=3, in_memory=False)
    x, y = _joined(FEEDS["keras"](windows, 8))
    np.testing.assert_array_equal(_rows(x, y), _rows(windows.gather(np.arange(len(windows))), windows.y))
    with pytest.raises(SmgeoError, match="to_keras"):
        windows.to_tf(8)


def test_training_reads_each_block_once_an_epoch(make_station_cube, monkeypatch):
    """Batches in the order of the epoch, which `fit` must not shuffle again."""
    monkeypatch.setattr(series, "_BLOCK_BYTES", 1)
    reads = []

    def note(block):
        reads.append(block.shape)
        return block

    ds = make_station_cube(stations=32, days=20).chunk(station=2)
    ds = ds.assign(s1_vv=ds["s1_vv"].copy(data=ds["s1_vv"].data.map_blocks(note, meta=np.empty((0, 0), "float32"))))
    windows = Windows(ds, FEATURES, length=3, in_memory=False)
    validation = Windows(make_station_cube(stations=2, days=20), FEATURES, length=3)
    reads.clear()
    make_model("gru", units=2, epochs=3, batch_size=16).fit(windows, validation=validation)
    # 16 blocks in each of 3 epochs and to standardise, less what is still held of 4 when an epoch begins; the first of the next
    # may be read ahead, and Keras looks at two batches for their shape.
    assert 16 * 3 < len(reads) <= 16 * 4 + 8


_TRAIN = """
import numpy as np, pandas as pd, xarray as xr, keras
from smgeo.models import make_model
from smgeo.prepare import Windows, series
assert keras.backend.backend() == "{backend}"
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
rain = rng.random((20, 60)).astype("float32")
sm = 0.5 * rain + 0.3 * np.roll(rain, 1, axis=1)
dims = ("station", "time")
ds = xr.Dataset({{"rain": (dims, rain), "sm": (dims, sm)}}, {{"station": [f"s{{i}}" for i in range(20)], "time": pd.date_range("2020", periods=60)}})
windows = Windows(ds, ["rain"], length=2)
model = keras.Sequential([keras.Input((2, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
model.compile("adam", "mse")
model.optimizer.learning_rate = 0.02
model.fit(windows.to_keras(64), shuffle=False, epochs=40, verbose=0)
np.testing.assert_allclose(model.layers[-1].get_weights()[0].ravel(), [0.3, 0.5], atol=0.01)
series = Windows(ds, ["rain"], length=2, mode="sequence")
model = keras.Sequential([keras.Input((None, 1)), keras.layers.Conv1D(1, 2, padding="causal")])
model.compile("adam", "mse")
model.optimizer.learning_rate = 0.02
model.fit(series.to_keras(4), shuffle=False, epochs=120, verbose=0)
np.testing.assert_allclose(model.layers[-1].get_weights()[0].ravel(), [0.3, 0.5], atol=0.01)
print("learned")
"""


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.soak)])
def test_keras_learns_a_known_rule_on_both_backends(backend):
    pytest.importorskip(backend, reason=f"needs {backend}")
    env = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN.format(backend=backend)], env=env, capture_output=True, text=True
    )
    assert done.stdout.strip().endswith("learned"), done.stderr[-2000:]
