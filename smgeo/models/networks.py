"""Networks in Keras 3: dense, 1-D convolution, GRU, LSTM. Nothing here names a backend but `_be_deterministic`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from smgeo.errors import SmgeoError, missing_extra, nearest
from smgeo.models.estimator import Rows, SoilMoistureModel
from smgeo.prepare.feeds import keras_batches

_ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "elu", "linear")
_OPTIMIZERS = ("adam", "rmsprop", "sgd")
# One shape for all calls, the last batch padded, so that prediction is compiled once.
_PREDICT_BATCH = 4096
# Training rows that the mean and spread of inputs are taken from: enough for three digits.
_STANDARDIZE_ROWS = 65_536


def _import_keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" in sys.modules:
        return sys.modules["keras"]
    # Its warnings are about how Keras calls it (a new graph for each fold), which no user can change.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with _quiet_stderr():
        import keras
    return keras


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Nothing to stderr: TensorFlow writes there while it loads, whatever its log level; errors are raised, not written."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _be_deterministic(keras: Any, seed: int) -> None:
    """The same seed gives the same weights on the same machine."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


class _Network(SoilMoistureModel):
    """What all networks share: training with early stopping, prediction in batches of one shape, weights in HDF5."""

    uses_validation: ClassVar[bool] = True

    # Set by each network's constructor.
    dropout: float
    optimizer: str
    learning_rate: float
    batch_size: int
    epochs: int
    patience: int
    standardize: bool
    seed: int

    def _hidden(self, layers: Any) -> list[Any]:
        """The layers between input and output."""
        raise NotImplementedError

    def check_params(self) -> None:
        """Refuse values that Keras would refuse later, or misread."""
        if find_spec("keras") is None:
            raise missing_extra(f"the network {self.kind!r}", "nn")
        for name, known in (("activation", _ACTIVATIONS), ("optimizer", _OPTIMIZERS)):
            value = getattr(self, name, known[0])
            if value not in known:
                raise SmgeoError(f"{self.kind}: unknown {name} {value!r}; {nearest(str(value), known)}")
        if not 0 <= self.dropout < 1:
            raise SmgeoError(f"{self.kind}: dropout must lie in [0, 1); got {self.dropout}")
        for name in ("layers", "units", "filters", "kernel", "batch_size", "epochs", "patience"):
            value = getattr(self, name, 1)
            if not isinstance(value, int) or value < 1:
                raise SmgeoError(f"{self.kind}: {name} must be a whole number, 1 or more; got {value!r}")
        if not self.learning_rate > 0:
            raise SmgeoError(f"{self.kind}: learning_rate must be positive; got {self.learning_rate}")

    def _build(self, keras: Any) -> Any:
        first = [keras.layers.Normalization(name="standardize")] if self.standardize else []
        last = keras.layers.Dense(1, name="output")
        return keras.Sequential([keras.Input(self.input_shape_), *first, *self._hidden(keras.layers), last])

    def _start(self, x: Rows, y: np.ndarray) -> None:
        """Begin where learning is quick: inputs of mean 0 and spread 1, and an output that is the mean of y."""
        output = self._model.get_layer("output")
        output.bias.assign(np.full(1, y.mean(dtype="float64"), dtype="float32"))
        if self.standardize:
            some = np.random.default_rng(self.seed).permutation(len(x))[:_STANDARDIZE_ROWS]
            values = x.take(np.sort(some))
            axes = tuple(range(values.ndim - 1))
            layer = self._model.get_layer("standardize")
            layer.adapt_mean.assign(values.mean(axes, dtype="float64").astype("float32"))
            layer.adapt_variance.assign(values.var(axes, dtype="float64").astype("float32"))
            layer.finalize_state()

    def _compile(self, keras: Any) -> None:
        optimizer = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD}[
            self.optimizer
        ]
        # Gradients are clipped, because one saturated day can throw a recurrent network off.
        self._model.compile(
            optimizer=optimizer(self.learning_rate, clipnorm=1.0),
            loss="mse",
            metrics=[keras.metrics.RootMeanSquaredError(name="rmse")],
            jit_compile=False,
        )

    def _fit(
        self, x: Rows, y: np.ndarray, validation: tuple[Rows, np.ndarray] | None, progress: Callable[..., None] | None
    ) -> None:
        keras = _import_keras()
        _be_deterministic(keras, self.seed)
        self._model = self._build(keras)
        self._start(x, y)
        self._compile(keras)
        callbacks = [_tell(keras, progress, self.epochs)] if progress else []
        held = None
        if validation is not None:
            held = keras_batches(_Labelled(*validation), _PREDICT_BATCH, None)
            callbacks.append(
                keras.callbacks.EarlyStopping("val_rmse", mode="min", patience=self.patience, restore_best_weights=True)
            )
        history = self._model.fit(
            keras_batches(_Labelled(x, y), self.batch_size, self.seed),
            validation_data=held,
            epochs=self.epochs,
            callbacks=callbacks,
            shuffle=False,  # the batches are shuffled already, in an order in which windows are quick to read
            verbose=0,
        )
        self.history_ = {k: [float(v) for v in values] for k, values in history.history.items()}

    def _predict(self, x: Rows) -> np.ndarray:
        out = np.empty(len(x), dtype="float32")
        for start in range(0, len(x), _PREDICT_BATCH):
            rows = np.arange(start, min(start + _PREDICT_BATCH, len(x)))
            batch = x.take(rows)
            short = _PREDICT_BATCH - len(rows)
            if short:
                batch = np.concatenate([batch, np.zeros((short, *batch.shape[1:]), dtype="float32")])
            out[rows] = np.asarray(self._model.predict_on_batch(batch))[: len(rows), 0]
        return out

    def _describe_training(self) -> dict[str, Any]:
        return {"epochs": len(self.history_["loss"]), "history": self.history_}

    def _save_weights(self, folder: Path) -> None:
        self._model.save_weights(str(folder / "model.weights.h5"))

    def _load_weights(self, folder: Path) -> None:
        keras = _import_keras()
        self._model = self._build(keras)
        self._model.load_weights(str(folder / "model.weights.h5"))
        self.history_ = dict((self.training_ or {}).get("history", {}))


def _tell(keras: Any, progress: Callable[..., None], epochs: int) -> Any:
    def on_epoch_end(epoch: int, logs: dict[str, Any] | None = None) -> None:
        progress(epoch + 1, epochs, dict(logs or {}))

    return keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)


@dataclass(frozen=True)
class _Labelled:
    """Rows and their target, as a feed asks for them."""

    x: Rows
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        return self.x.order(rng)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        return self.x.take(rows), self.y[rows]


class Ann(_Network):
    """Dense network on the day's features.

    Parameters
    ----------
    layers, units : int
        Hidden layers and neurons in each; the study's best had 2 of 254.
    activation : str
        `relu`, `tanh`, `sigmoid`, `gelu`, `elu` or `linear`.
    dropout : float
        Share of neurons left out in training, after each layer.
    optimizer : {"adam", "rmsprop", "sgd"}
    learning_rate : float
    batch_size : int
        Rows a step. Keras' default of 32 leaves most of a CPU idle on layers of this size.
    epochs, patience : int
        Most epochs, and epochs without a better validation RMSE before training stops.
    standardize : bool
        Whether a first layer brings each channel to mean 0 and standard deviation 1 over the training rows; networks
        learn faster so than on values between 0 and 1, and how features were scaled before no longer matters.
    seed : int
    """

    kind: ClassVar[str] = "ann"

    def __init__(
        self,
        *,
        layers: int = 2,
        units: int = 254,
        activation: str = "relu",
        dropout: float = 0.1,
        optimizer: str = "adam",
        learning_rate: float = 0.002,
        batch_size: int = 512,
        epochs: int = 60,
        patience: int = 8,
        standardize: bool = True,
        seed: int = 0,
    ) -> None:
        self.layers = layers
        self.units = units
        self.activation = activation
        self.dropout = dropout
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.standardize = standardize
        self.seed = seed

    def _hidden(self, layers: Any) -> list[Any]:
        return [
            part
            for _ in range(self.layers)
            for part in (layers.Dense(self.units, self.activation), layers.Dropout(self.dropout))
        ]


class _Recurrent(_Network):
    """Recurrent network on windows of days.

    Parameters
    ----------
    layers, units : int
        Recurrent layers and units in each.
    dropout : float
        Share of the last layer's outputs left out in training.
    optimizer : {"adam", "rmsprop", "sgd"}
    learning_rate : float
    batch_size : int
        Windows a step.
    epochs, patience : int
        Most epochs, and epochs without a better validation RMSE before training stops.
    standardize : bool
        Whether a first layer brings each channel to mean 0 and standard deviation 1 over the training rows; networks
        learn faster so than on values between 0 and 1, and how features were scaled before no longer matters.
    seed : int
    """

    uses_window: ClassVar[bool] = True
    _layer: ClassVar[str]

    def __init__(
        self,
        *,
        layers: int = 1,
        units: int = 64,
        dropout: float = 0.1,
        optimizer: str = "adam",
        learning_rate: float = 0.002,
        batch_size: int = 256,
        epochs: int = 30,
        patience: int = 5,
        standardize: bool = True,
        seed: int = 0,
    ) -> None:
        self.layers = layers
        self.units = units
        self.dropout = dropout
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.standardize = standardize
        self.seed = seed

    def _hidden(self, layers: Any) -> list[Any]:
        layer = getattr(layers, self._layer)
        return [
            *(layer(self.units, return_sequences=i < self.layers - 1) for i in range(self.layers)),
            layers.Dropout(self.dropout),
        ]


class Gru(_Recurrent):
    """Gated recurrent units (Cho et al. 2014); parameters of `_Recurrent`."""

    kind: ClassVar[str] = "gru"
    _layer: ClassVar[str] = "GRU"


class Lstm(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); parameters of `_Recurrent`."""

    kind: ClassVar[str] = "lstm"
    _layer: ClassVar[str] = "LSTM"


class Cnn(_Network):
    """1-D convolution along the days of a window.

    Parameters
    ----------
    layers, filters, kernel : int
        Convolutions, filters of each, and days that a filter spans.
    activation : str
    dropout : float
    optimizer : {"adam", "rmsprop", "sgd"}
    learning_rate : float
    batch_size : int
    epochs, patience : int
    standardize : bool
    seed : int
    """

    kind: ClassVar[str] = "cnn"
    uses_window: ClassVar[bool] = True

    def __init__(
        self,
        *,
        layers: int = 2,
        filters: int = 64,
        kernel: int = 5,
        activation: str = "relu",
        dropout: float = 0.1,
        optimizer: str = "adam",
        learning_rate: float = 0.002,
        batch_size: int = 256,
        epochs: int = 30,
        patience: int = 5,
        standardize: bool = True,
        seed: int = 0,
    ) -> None:
        self.layers = layers
        self.filters = filters
        self.kernel = kernel
        self.activation = activation
        self.dropout = dropout
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.standardize = standardize
        self.seed = seed

    def _hidden(self, layers: Any) -> list[Any]:
        convolutions = [
            layers.Conv1D(self.filters, self.kernel, padding="causal", activation=self.activation)
            for _ in range(self.layers)
        ]
        return [*convolutions, layers.Flatten(), layers.Dropout(self.dropout)]
