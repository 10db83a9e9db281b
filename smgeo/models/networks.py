"""Networks in Keras 3: dense, 1-D convolution, GRU, LSTM.

With `mode="sequence"` recurrent networks train on pieces of half a year: a whole series is one example, and a few hundred of them
make few steps an epoch. Each piece begins with the days that a window looks back, so that no day is learned without a past.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from smgeo.bounds import weigh_memory
from smgeo.models.backend import import_keras, most_windows
from smgeo.models.keras_model import KerasModel
from smgeo.models.recurrence import recurrent_layer
from smgeo.models.rows import Rows

if TYPE_CHECKING:
    from keras import Layer

# Sets of weights of a recurrent unit.
_GATES = {"GRU": 3, "LSTM": 4}
# Of each weight: float32, its gradient, and the two moments that Adam keeps.
_WEIGHT_BYTES = 4 * 4


def _weigh(kind: str, weights: float) -> None:
    """Refuse a network whose weights would not fit in memory; those of inputs and outputs are few."""
    weigh_memory(f"{kind}: a network of about {weights:,} weights", _WEIGHT_BYTES * weights)


@dataclass(kw_only=True, eq=False, repr=False)
class Ann(KerasModel):
    """Dense network on the day's features; `smgeo.models.keras_model.KerasModel` describes the parameters that networks share.

    `batch_size` is 32 to 4,096 by default, and `dropout` is applied after each layer.

    Parameters
    ----------
    units : int
        Neurons in each hidden layer; the study's best network had 2 layers of 254.
    activation : str
        `relu`, `tanh`, `sigmoid`, `gelu`, `elu` or `linear`.
    """

    kind: ClassVar[str] = "ann"

    units: int = 254
    activation: str = "relu"
    epochs: int = 60
    patience: int | None = 8

    @property
    def _batch_limits(self) -> tuple[int, int]:
        return 32, 4096

    def _hidden(self, keras: ModuleType) -> list[Layer]:
        _weigh(self.kind, self.layers * self.units**2)
        layers = keras.layers
        return [
            part
            for _ in range(self.layers)
            for part in (layers.Dense(self.units, self.activation), layers.Dropout(self.dropout))
        ]


@dataclass(kw_only=True, eq=False, repr=False)
class Recurrent(KerasModel):
    """Recurrent network on windows of days or whole series; `smgeo.models.keras_model.KerasModel` describes shared parameters.

    `batch_size` is 32 to 512 windows by default (64 with JAX on a CPU), or 8 to 32 pieces of series. A piece counts as 64 rows where the
    learning rate is chosen by the batch size. `dropout` is applied to the last layer's outputs. By default all of few epochs are trained, along a
    falling rate: an epoch that is the best at a handful of validation stations is seldom the best elsewhere (`benchmarks/recurrent.py`).

    Parameters
    ----------
    mode : {"window", "sequence"}
        "window" sees the days of one window and estimates its last; the study's. "sequence" runs along a whole series and
        estimates every day of it from all days before: a day is seen once and not in each of the windows that contain it.
    crop_days : int
        In mode "sequence", days that count in each of the pieces that series are cut into for training. A piece begins with the days that a
        window looks back, which do not count there, so that each day with a target counts once. Estimates run along the whole series.
    units : int
        Units in each layer.
    """

    _layer: ClassVar[str]

    mode: str = "window"
    crop_days: int = 180
    layers: int = 1
    units: int = 64
    dropout: float = 0.4
    input_dropout: float = 0.3
    schedule: str = "cosine"
    epochs: int = 8
    patience: int | None = None

    @property
    def uses_window(self) -> bool:
        """True: it sees several days."""
        return True

    @property
    def uses_series(self) -> bool:
        """True if the model is trained on whole series, sequence to sequence."""
        return self.mode == "sequence"

    @property
    def _batch_limits(self) -> tuple[int, int]:
        return (8, 32) if self.uses_series else (32, most_windows(import_keras()))

    @property
    def _rows_per_example(self) -> int:
        # Found by trying rates on batches of 8, 16 and 32 pieces: the days of a piece are not independent rows.
        return 64 if self.uses_series else 1

    def _examples(self, x: Rows, y: np.ndarray) -> tuple[Rows, np.ndarray]:
        return x.crop(self.crop_days) if self.uses_series else (x, y)

    def _hidden(self, keras: ModuleType) -> list[Layer]:
        # A unit has weights of its inputs and of its own last output.
        _weigh(self.kind, self.layers * _GATES[self._layer] * 2 * self.units**2)
        layer = recurrent_layer(keras, self._layer)
        every = [self.uses_series or i < self.layers - 1 for i in range(self.layers)]
        return [*(layer(self.units, return_sequences=e) for e in every), keras.layers.Dropout(self.dropout)]


class Gru(Recurrent):
    """Gated recurrent units (Cho et al. 2014); parameters of `Recurrent`."""

    kind: ClassVar[str] = "gru"
    _layer: ClassVar[str] = "GRU"


class Lstm(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); parameters of `Recurrent`."""

    kind: ClassVar[str] = "lstm"
    _layer: ClassVar[str] = "LSTM"


@dataclass(kw_only=True, eq=False, repr=False)
class Cnn(KerasModel):
    """1-D convolution along the days of a window; `smgeo.models.keras_model.KerasModel` describes the shared parameters.

    `batch_size` is 32 to 512 windows by default, and `dropout` is applied to the outputs of the last layer.

    Parameters
    ----------
    filters, kernel : int
        Filters of each layer, and days that a filter spans.
    activation : str
        As for `Ann`.
    """

    kind: ClassVar[str] = "cnn"

    filters: int = 64
    kernel: int = 5
    activation: str = "relu"

    @property
    def uses_window(self) -> bool:
        """True: it sees several days."""
        return True

    @property
    def _batch_limits(self) -> tuple[int, int]:
        return 32, 512

    def _hidden(self, keras: ModuleType) -> list[Layer]:
        _weigh(self.kind, self.layers * self.kernel * self.filters**2)
        layers = keras.layers
        convolutions = [
            layers.Conv1D(self.filters, self.kernel, padding="causal", activation=self.activation)
            for _ in range(self.layers)
        ]
        return [*convolutions, layers.Flatten(), layers.Dropout(self.dropout)]
