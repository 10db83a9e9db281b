"""Training one network, against Keras' own `fit` with its default batch of 32 and with smgeo's.

Run: python benchmarks/networks.py [ann|gru|lstm|sequence]     (KERAS_BACKEND=jax for JAX)
A complete array of the study's size (see study_array.moisture_cube): 254 training stations, 32 that none was trained on.
`ann` has the study's best: 2 layers of 254, sigmoid, Adam, dropout 0.1; on all 427,736 training rows, 5 epochs. `gru` and `lstm` have one
layer of 64 units, on about 100,000 windows of 30 days, 2 epochs. The peer is the loop that a Keras user writes: the array in memory,
`model.fit(x, y)`; for the ann with the study's learning rate (0.0156) and once more with Keras' default; and each with smgeo's batch and learning rate.
`sequence` is the gru on whole series (mode="sequence") of the same 60 stations as the windows, 10 epochs; its peers are smgeo's gru on these
windows, 2 epochs, and Keras' `fit` on the same pieces of series, with weights of 0 for days that do not count. All are scored on the same rows
after every epoch. Printed are, of each epoch, rows (or days with a target) a second in training, and validation RMSE (m3 m-3); then the ratio of
the median rates, when smgeo's model was first as good as the peer's last epoch, as a share of the peer's whole time (compiling included in both),
and peak memory: smgeo's above what was there before it, and with the peer's arrays.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from memory import forget_peak, peak_mb
from study_array import moisture_cube

import smgeo
from smgeo.prepare import Windows

TRAIN, HELD = 254, 32
# Those of the peer.
RECURRENT = {"units": 64, "dropout": 0.1, "input_dropout": 0.0, "schedule": "constant"}


@dataclass
class Curve:
    """What an epoch gave: seconds since the start, seconds in training, validation RMSE."""

    rows: int
    at: list[float] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    rmse: list[float] = field(default_factory=list)
    batch: int = 32
    rate_used: float | None = None

    @property
    def rate(self) -> float:
        return self.rows / float(np.median(self.training))

    def show(self, name: str) -> None:
        rates = " ".join(f"{self.rows / s:9,.0f}" for s in self.training)
        print(
            f"{name:40s}rows/s {rates}   RMSE {' '.join(f'{v:.4f}' for v in self.rmse)}   {self.at[-1]:6.1f} s",
            flush=True,
        )


def plain(
    make: Callable[[], Any], rate: float | None, train: Windows, held: Windows, epochs: int, batch: int = 32
) -> Curve:
    """Keras' own way with its defaults; batch and learning rate as given."""
    x, y, weights = arrays_of(train)
    hx, hy, counts = arrays_of(held)
    start = time.perf_counter()
    keras.utils.set_random_seed(0)
    model = make()
    options = {} if rate is None else {"learning_rate": rate}
    model.compile(keras.optimizers.Adam(**options), "mse", weighted_metrics=[keras.metrics.RootMeanSquaredError()])
    curve = Curve(int(weights.sum()))
    for _ in range(epochs):
        began = time.perf_counter()
        model.fit(x, y, batch_size=batch, sample_weight=weights, verbose=0)
        curve.training.append(time.perf_counter() - began)
        error = (model.predict(hx, batch_size=4096 if y.ndim == 2 else 32, verbose=0) - hy)[counts > 0]
        curve.rmse.append(float(np.sqrt(np.mean(error.astype("float64") ** 2))))
        curve.at.append(time.perf_counter() - start)
    return curve


def arrays_of(windows: Windows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y with a last axis, and weights; series as pieces in which 180 days count, as smgeo trains on them."""
    if windows.mask is None:
        x, y = windows.to_arrays(flatten=windows.shape[1] == 1)
        return x, y[:, None], np.ones(len(y), dtype="float32")
    pieces = windows.crop(180)
    return pieces.gather(np.arange(len(pieces))), pieces.y[..., None], pieces.mask.astype("float32")


def ours(kind: str, params: dict[str, Any], train: Windows, held: Windows, epochs: int) -> Curve:
    """`fit_by_epoch`, which tells the validation RMSE; the time of that is taken apart by scoring once more."""
    model = smgeo.make_model(kind, epochs=epochs, patience=epochs, **params)
    curve = Curve(len(train) if train.mask is None else int(train.mask.sum()))
    start = began = time.perf_counter()
    for scores in model.fit_by_epoch(train, validation=held):
        done = time.perf_counter()
        curve.at.append(done - start)
        curve.rmse.append(scores["val_rmse"])
        model.predict(held)
        scoring = time.perf_counter() - done
        curve.training.append(done - began - scoring)
        start += scoring
        began = time.perf_counter()
    curve.batch, curve.rate_used = model.batch_size_, model.learning_rate_
    print(f"smgeo chose batches of {curve.batch}, learning rate {curve.rate_used:g}")
    return curve


def windows_of(cube: Any, stations: slice, length: int, mode: Any = "window") -> Windows:
    features = [str(n) for n in cube.data_vars if n != "sm"]
    fill = [0.0] * len(features)  # their means; nothing is missing
    return Windows(cube.isel(station=stations), features, length=length, fill=fill, mode=mode)


def dense() -> Any:
    layers = keras.layers
    hidden = [layer for _ in range(2) for layer in (layers.Dense(254, "sigmoid"), layers.Dropout(0.1))]
    return keras.Sequential([keras.Input((27,)), *hidden, layers.Dense(1)])


def recurrent(kind: str, series: bool = False) -> Any:
    layer = getattr(keras.layers, kind.upper())(64, return_sequences=series)
    days = None if series else 30
    return keras.Sequential([keras.Input((days, 27)), layer, keras.layers.Dropout(0.1), keras.layers.Dense(1)])


def report(found: Curve, name: str, peer: Curve) -> None:
    peer.show(name)
    reached = next((at for at, rmse in zip(found.at, found.rmse, strict=True) if rmse <= peer.rmse[-1]), None)
    share = "not reached" if reached is None else f"{reached:.1f} s, {reached / peer.at[-1]:.2f} of its time"
    print(
        f"  median rows/s {found.rate:,.0f} against {peer.rate:,.0f}, {found.rate / peer.rate:.1f} times; "
        f"its RMSE of {peer.rmse[-1]:.4f} reached after {share}",
        flush=True,
    )


def compare(what: str) -> None:
    cube = moisture_cube()
    held = slice(TRAIN, TRAIN + HELD)
    stations = slice(0, TRAIN if what == "ann" else 60)
    length = 1 if what == "ann" else 30
    train, test = (windows_of(cube, s, length) for s in (stations, held))
    forget_peak()  # that of making the array
    before = peak_mb()
    if what == "ann":
        found = ours("ann", {"layers": 2, "units": 254, "activation": "sigmoid", "dropout": 0.1}, train, test, 5)
    elif what == "sequence":
        series = [windows_of(cube, s, length, "sequence") for s in (stations, held)]
        found = ours("gru", {**RECURRENT, "mode": "sequence"}, *series, 10)
    else:
        found = ours(what, RECURRENT, train, test, 2)
    mine = peak_mb() - before
    print(
        f"{what}: keras {version('keras')} on {keras.backend.backend()}; {found.rows:,} rows; peak {mine:.0f} MB more"
    )
    found.show("smgeo")
    same = f"Keras fit, batches of {found.batch}, rate {found.rate_used:g}", found.rate_used
    if what == "ann":
        report(found, "Keras fit, batches of 32, rate 0.0156", plain(dense, 0.0156, train, test, 5))
        report(found, "Keras fit, batches of 32, its own rate", plain(dense, None, train, test, 5))
        report(found, same[0], plain(dense, same[1], train, test, 5, found.batch))
    elif what == "sequence":
        report(found, "smgeo, windows", ours("gru", RECURRENT, train, test, 2))
        report(found, same[0], plain(lambda: recurrent("gru", series=True), same[1], *series, 10, found.batch))
    else:
        report(found, "Keras fit, batches of 32", plain(lambda: recurrent(what), None, train, test, 2))
        report(found, same[0], plain(lambda: recurrent(what), same[1], train, test, 2, found.batch))
    print(f"peak {peak_mb() - before:.0f} MB more with the peer")


if __name__ == "__main__":
    compare(sys.argv[1] if len(sys.argv) > 1 else "ann")
