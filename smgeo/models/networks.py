"""Networks in Keras 3: dense, 1-D convolution, GRU, LSTM."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from smgeo.models.backend import import_keras, most_windows
from smgeo.models.keras_model import KerasModel
from smgeo.models.rows import Rows


class Ann(KerasModel):
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
    learning_rate : float, optional
        By default Keras' own for a batch of 32, scaled with the batch: by its root for Adam and RMSprop, in proportion for SGD.
    schedule : {"constant", "cosine"}
        Whether the learning rate stays, or falls along half a cosine to nothing over `epochs` (Loshchilov and Hutter 2017, arXiv:1608.03983): the
        last weights then depend less on the last batches, and on the seed.
    batch_size : int, optional
        Rows a step. By default as many as leave 100 steps an epoch, 32 to 4,096: small batches leave a processor idle.
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
        learning_rate: float | None = None,
        schedule: str = "constant",
        batch_size: int | None = None,
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
        self.schedule = schedule
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.standardize = standardize
        self.seed = seed

    @property
    def _batches(self) -> tuple[int, int]:
        return 32, 4096

    def _hidden(self, layers: Any) -> list[Any]:
        return [
            part
            for _ in range(self.layers)
            for part in (layers.Dense(self.units, self.activation), layers.Dropout(self.dropout))
        ]


class _Recurrent(KerasModel):
    """Recurrent network on windows of days, or on whole series.

    Parameters
    ----------
    mode : {"window", "sequence"}
        "window" sees the days of one window and estimates its last; the study's. "sequence" runs along a whole series and
        estimates every day of it from all days before: a day is looked at once and not in each of the windows that hold it.
    crop_days : int
        In mode "sequence", days that count in each of the pieces that series are cut into for training. A piece begins with the days that a
        window looks back, which do not count there, so that each day with a target counts once. Estimates run along the whole series.
    layers, units : int
        Recurrent layers and units in each.
    dropout : float
        Share of the last layer's outputs left out in training.
    optimizer : {"adam", "rmsprop", "sgd"}
    learning_rate : float, optional
        By default Keras' own for a batch of 32, scaled with the batch: by its root for Adam and RMSprop, in proportion for SGD. A piece
        of a series counts as 64 rows there.
    schedule : {"constant", "cosine"}
        Whether the learning rate stays, or falls along half a cosine to nothing over `epochs` (Loshchilov and Hutter 2017, arXiv:1608.03983): the
        last weights then depend less on the last batches, and on the seed.
    batch_size : int, optional
        Windows a step, or pieces of series. By default as many as leave 100 steps an epoch: 32 to 512 windows (64 with JAX on a CPU), 8 to 32 pieces.
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
        mode: str = "window",
        crop_days: int = 180,
        layers: int = 1,
        units: int = 64,
        dropout: float = 0.1,
        optimizer: str = "adam",
        learning_rate: float | None = None,
        schedule: str = "constant",
        batch_size: int | None = None,
        epochs: int = 30,
        patience: int = 5,
        standardize: bool = True,
        seed: int = 0,
    ) -> None:
        self.mode = mode
        self.crop_days = crop_days
        self.layers = layers
        self.units = units
        self.dropout = dropout
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.standardize = standardize
        self.seed = seed

    @property
    def uses_series(self) -> bool:
        """Whether it is trained on whole series, sequence to sequence."""
        return self.mode == "sequence"

    @property
    def _batches(self) -> tuple[int, int]:
        return (8, 32) if self.uses_series else (32, most_windows(import_keras()))

    @property
    def _worth(self) -> int:
        # Found by trying rates on batches of 8, 16 and 32 pieces: the days of a piece are no independent rows.
        return 64 if self.uses_series else 1

    def _examples(self, x: Rows, y: np.ndarray) -> tuple[Rows, np.ndarray]:
        return x.crop(self.crop_days) if self.uses_series else (x, y)

    def _hidden(self, layers: Any) -> list[Any]:
        layer = getattr(layers, self._layer)
        every = [self.uses_series or i < self.layers - 1 for i in range(self.layers)]
        return [*(layer(self.units, return_sequences=e) for e in every), layers.Dropout(self.dropout)]


class Gru(_Recurrent):
    """Gated recurrent units (Cho et al. 2014); parameters of `_Recurrent`."""

    kind: ClassVar[str] = "gru"
    _layer: ClassVar[str] = "GRU"


class Lstm(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); parameters of `_Recurrent`."""

    kind: ClassVar[str] = "lstm"
    _layer: ClassVar[str] = "LSTM"


class Cnn(KerasModel):
    """1-D convolution along the days of a window.

    Parameters
    ----------
    layers, filters, kernel : int
        Convolutions, filters of each, and days that a filter spans.
    activation : str
    dropout : float
    optimizer : {"adam", "rmsprop", "sgd"}
    learning_rate : float, optional
        By default Keras' own for a batch of 32, scaled with the batch: by its root for Adam and RMSprop, in proportion for SGD.
    schedule : {"constant", "cosine"}
        Whether the learning rate stays, or falls along half a cosine to nothing over `epochs` (Loshchilov and Hutter 2017, arXiv:1608.03983): the
        last weights then depend less on the last batches, and on the seed.
    batch_size : int, optional
        Windows a step. By default as many as leave 100 steps an epoch, 32 to 512.
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
        learning_rate: float | None = None,
        schedule: str = "constant",
        batch_size: int | None = None,
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
        self.schedule = schedule
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.standardize = standardize
        self.seed = seed

    @property
    def _batches(self) -> tuple[int, int]:
        return 32, 512

    def _hidden(self, layers: Any) -> list[Any]:
        convolutions = [
            layers.Conv1D(self.filters, self.kernel, padding="causal", activation=self.activation)
            for _ in range(self.layers)
        ]
        return [*convolutions, layers.Flatten(), layers.Dropout(self.dropout)]
