"""The base class of networks: shared parameters, training in Keras 3 with early stopping, prediction, weights.

Backends are named only in `smgeo.models.backend`.
"""

from __future__ import annotations

import threading
import warnings
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from smgeo.errors import DivergedError, SmgeoError, SmgeoWarning, missing_extra, nearest
from smgeo.files import JsonObject
from smgeo.models.backend import (
    aligned_zeros,
    be_deterministic,
    compiles_whole,
    import_keras,
    make_epoch,
    make_predictor,
    make_step,
)
from smgeo.models.base import Epochs, SoilMoistureModel
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.model_file import Manifest
from smgeo.models.network_file import load_network, save_network
from smgeo.models.rates import choose_batch, choose_rate, rate_at
from smgeo.models.rows import Filled, Labelled, Rows
from smgeo.models.team import Team
from smgeo.prepare.feeds import KerasBatches, keras_batches

if TYPE_CHECKING:
    from keras import Layer, Model, Variable

# Parameters with a list of values, and those that are counts from 1; a network has some of them.
_CHOICES = {
    "activation": ("relu", "tanh", "sigmoid", "gelu", "elu", "linear"),
    "optimizer": ("adam", "rmsprop", "sgd"),
    "mode": ("window", "sequence"),
    "schedule": ("constant", "cosine"),
}
_COUNTS = ("layers", "units", "filters", "kernel", "batch_size", "epochs", "patience", "crop_days")
# Keras itself begins at 0.001 to 1; beyond this, nothing is learned.
_LARGEST_RATE = 100
# Rows or windows, and days of series, that are estimated at once. All batches have one shape, the last one padded, so that
# prediction is compiled once.
_PREDICT_BATCH = {False: 8192, True: 4096}
_PREDICT_DAYS = 131_072
# Numbers of the widest layer for these, at most; the gates of a recurrent layer count four times.
_PREDICT_NUMBERS = 2**27
# Days of training rows, windows or series from which the mean and spread of inputs are computed: enough for three digits.
_STANDARDIZE_DAYS = 524_288
# A network whose first epoch was its best has learned something if its error is below this share of that of the mean.
_HARDLY = 0.95
# One thread compiles, and others wait for the result.
_COMPILING = threading.Lock()


@dataclass(kw_only=True, eq=False, repr=False)
class KerasModel(SoilMoistureModel):
    """A network: training with early stopping, prediction in batches of one shape, weights in HDF5.

    A dataclass, so that each kind of network adds its own parameters to these and changes their defaults; its constructor only
    stores, and its signature names all of them, as scikit-learn needs it.

    Parameters
    ----------
    layers : int
        Hidden layers.
    dropout : float
        Share of neurons left out in training.
    input_dropout : float
        Share of channels left out in training, of a window or series on all of its days: a network then relies less on the few that tell
        one station from another, and errs less at others.
    optimizer : {"adam", "rmsprop", "sgd"}
    learning_rate : float, optional
        By default Keras' own for a batch of 32, scaled with the batch: by its root for Adam and RMSprop, in proportion for SGD.
    schedule : {"constant", "cosine"}
        A constant learning rate, or one that falls along half a cosine to 0 over `epochs` (Loshchilov and Hutter 2017,
        arXiv:1608.03983): the last weights then depend less on the last batches, and on the seed.
    batch_size : int, optional
        Rows a step (windows, or pieces of series). By default as many as leave 100 steps an epoch, within the limits of the kind: small
        batches leave a processor idle.
    epochs : int
        Number of epochs; with `patience` at most.
    patience : int or None
        Epochs without a better validation RMSE before training stops; the weights of the best epoch are then kept. With None all epochs are
        trained and the last weights are kept: validation rows are scored, and decide nothing.
    standardize : bool
        Add a first layer that brings each channel to mean 0 and standard deviation 1 over the training rows: networks learn faster
        than on values between 0 and 1, and the earlier scaling of features no longer matters.
    seed : int

    Attributes
    ----------
    history_ : dict of list of float
        `rmse` of each epoch, as trained (with dropout), and with validation data `val_rmse`; in the units of y.
    """

    layers: int = 2
    dropout: float = 0.1
    input_dropout: float = 0.0
    optimizer: str = "adam"
    learning_rate: float | None = None
    schedule: str = "constant"
    batch_size: int | None = None
    epochs: int = 30
    patience: int | None = 5
    standardize: bool = True
    seed: int = 0

    @property
    def uses_validation(self) -> bool:
        """True if it stops early on validation data."""
        return self.patience is not None

    def _hidden(self, keras: ModuleType) -> list[Layer]:
        """Return the layers between input and output."""
        raise NotImplementedError

    @property
    def _batch_limits(self) -> tuple[int, int]:
        """Least and most rows of a batch whose size is chosen here."""
        raise NotImplementedError

    @property
    def _rows_per_example(self) -> int:
        """Rows that an example counts as where the learning rate is chosen by the batch size."""
        return 1

    def _examples(self, x: Rows, y: np.ndarray) -> tuple[Rows, np.ndarray]:
        """Return the x and y that are trained on, or pieces of them."""
        return x, y

    def check_params(self) -> None:
        """Refuse values that Keras would refuse later, or misread."""
        if find_spec("keras") is None:
            raise missing_extra(f"the network {self.kind!r}", "nn")
        for name, known in _CHOICES.items():
            value = getattr(self, name, known[0])
            if value not in known:
                raise SmgeoError(f"{self.kind}: unknown {name} {value!r}; {nearest(str(value), known)}")
        for name in ("dropout", "input_dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise SmgeoError(f"{self.kind}: {name} must be in [0, 1); got {value}")
        for name in _COUNTS:
            value = getattr(self, name, None)
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise SmgeoError(f"{self.kind}: {name} must be a whole number, 1 or more; got {value!r}")
        if self.learning_rate is not None and not 0 < self.learning_rate <= _LARGEST_RATE:
            raise SmgeoError(
                f"{self.kind}: learning_rate must be above 0 and at most {_LARGEST_RATE}; got {self.learning_rate}"
            )

    # ---- training

    def _build(self, keras: ModuleType) -> Model:
        first = [keras.layers.Normalization(name="standardize")] if self.standardize else []
        if self.input_dropout:
            # The same channels on all days.
            shape = (None, *(1 for _ in self.input_shape_[:-1]), None)
            first.append(keras.layers.Dropout(self.input_dropout, noise_shape=shape, name="input_dropout"))
        last = keras.layers.Dense(1, name="output")
        return keras.Sequential([keras.Input(self.input_shape_), *first, *self._hidden(keras), last])

    def _start(self, x: Rows, y: np.ndarray) -> None:
        """Set first weights from which learning is quick: inputs of mean 0 and spread 1, and an output that is the mean of y."""
        known = y if x.mask is None else y[x.mask]
        output = self._model.get_layer("output")
        self._mean = known.mean(dtype="float64")
        output.bias.assign(np.full(1, self._mean, dtype="float32"))
        if self.standardize:
            values = x.take(_some(len(x), max(_STANDARDIZE_DAYS // int(np.prod(x.shape[1:-1])), 1), self.seed))
            axes = tuple(range(values.ndim - 1))
            mean, variance = values.mean(axes, dtype="float64"), values.var(axes, dtype="float64")
            # A channel that is constant in training has no information; another value later must not become a huge one.
            variance[variance <= (1e-6 * mean) ** 2] = 1
            layer = self._model.get_layer("standardize")
            layer.adapt_mean.assign(mean.astype("float32"))
            layer.adapt_variance.assign(variance.astype("float32"))
            layer.finalize_state()

    def _compile(self, keras: ModuleType) -> None:
        optimizer = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD}[
            self.optimizer
        ]
        # Gradients are clipped, because one saturated day can make a recurrent network diverge. Weights of days count in the loss
        # as they do in the score: days without a target are not days with an error of 0.
        self._model.compile(
            optimizer=optimizer(self.learning_rate_, clipnorm=1.0),
            loss=keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
            weighted_metrics=[keras.metrics.RootMeanSquaredError(name="rmse")],
            jit_compile=compiles_whole(keras),
        )

    def _fit(
        self,
        x: Rows,
        y: np.ndarray,
        validation: tuple[Rows, np.ndarray] | None,
        checkpoint: Checkpoint | None,
        team: Team | None,
    ) -> Epochs:
        keras = import_keras()
        be_deterministic(keras, self.seed)
        x, y = self._examples(x, y)
        self.batch_size_ = int(self.batch_size or choose_batch(len(x), *self._batch_limits))
        self.learning_rate_ = float(
            self.learning_rate or choose_rate(self.optimizer, self.batch_size_ * self._rows_per_example)
        )
        self._model = self._build(keras)
        self._start(x, y)
        self._compile(keras)
        names = ["rmse"] if validation is None else ["rmse", "val_rmse"]
        self.history_: dict[str, list[float]] = {name: [] for name in names}
        source = Labelled(x, y)
        shared = Filled(source, self.batch_size_) if team is None else team.share(source)
        batches = keras_batches(shared, self.batch_size_, self.seed)
        training = {} if checkpoint is None else self._name_training(keras, x, y, validation)
        kept = _Kept(checkpoint, training, self._model, batches, self.history_)
        kept.writes = team is None or team.rank == 0
        yield from self._train(batches, validation, kept, team)

    def _name_training(
        self, keras: ModuleType, x: Rows, y: np.ndarray, validation: tuple[Rows, np.ndarray] | None
    ) -> JsonObject:
        """Return what identifies this training in a checkpoint: parameters, versions, and the target and preparation of its data."""
        held = None if validation is None else [list(validation[0].shape), zlib.crc32(validation[1].tobytes())]
        versions = {"keras": keras.__version__, "backend": keras.backend.backend()}
        return {
            "kind": self.kind,
            "params": self.get_params(deep=False),
            "rows": [list(x.shape), zlib.crc32(np.ascontiguousarray(y).tobytes())],
            "validation": held,
            "preparation": self.preparation_,
            **versions,
        }

    def _train(
        self, batches: KerasBatches, validation: tuple[Rows, np.ndarray] | None, kept: _Kept, team: Team | None
    ) -> Epochs:
        """Train all epochs; or until the validation RMSE has not fallen for `patience` of them, and keep the weights of the best one."""
        model, history = self._model, self.history_  # of this fit, even if another begins before it is closed
        best_weights = kept.restore()
        if team is not None:
            team.check_start(len(history["rmse"]))
            team.spread_seeds(model)
        train = make_epoch(import_keras(), model, batches, make_step if team is None else team.make_step)
        scores = history.get("val_rmse", [])
        done = len(history["rmse"])
        best, since = (min(scores), done - 1 - int(np.argmin(scores))) if scores else (np.inf, 0)
        try:
            for epoch in range(1, done + 1):
                yield {"epoch": epoch, "epochs": self.epochs, **{k: v[epoch - 1] for k, v in history.items()}}
            for epoch in range(done + 1, self.epochs + 1):
                if self.patience is not None and since >= self.patience:
                    break
                if self.schedule == "cosine":
                    model.optimizer.learning_rate = rate_at(self.learning_rate_, epoch, self.epochs)
                history["rmse"].append(train())
                self._check_finite("training", history["rmse"])
                if validation is not None:
                    history["val_rmse"].append(self._rmse(*validation, team))
                    self._check_finite("validation", history["val_rmse"])
                    since = 0 if history["val_rmse"][-1] < best else since + 1
                    if since == 0:
                        best = history["val_rmse"][-1]
                        best_weights = None if self.patience is None else model.get_weights()
                kept.save(best_weights)
                yield {"epoch": epoch, "epochs": self.epochs, **{k: v[-1] for k, v in history.items()}}
            if not all(np.isfinite(w).all() for w in model.get_weights()):
                self._refuse_diverged("its weights are not all finite", len(history["rmse"]))
            if scores and validation is not None:
                self._warn_of_nothing_learned(scores, validation)
        finally:
            if best_weights is not None:
                model.set_weights(best_weights)

    def _warn_of_nothing_learned(self, scores: list[float], validation: tuple[Rows, np.ndarray]) -> None:
        """Warn where training ended before it began. The words have no scores, so that folds and trials say it once."""
        known = validation[1] if validation[0].mask is None else validation[1][validation[0].mask]
        what = find_nothing_learned(scores, float(np.sqrt(np.mean((known - self._mean) ** 2))))
        if what is not None:
            warnings.warn(
                SmgeoWarning(
                    f"{self.kind}: training ended before it began: {what}. Validation stations may be too few, or unlike the training "
                    "stations; give more, lower learning_rate, or use a model that needs fewer stations (extra_trees)"
                ),
                stacklevel=2,
            )

    def _check_finite(self, part: str, scores: list[float]) -> None:
        if not np.isfinite(scores[-1]):
            self._refuse_diverged(f"its {part} RMSE is {scores[-1]}", len(scores))

    def _refuse_diverged(self, what: str, epoch: int) -> NoReturn:
        raise DivergedError(
            f"{self.kind} diverged: after epoch {epoch} {what}; lower learning_rate ({self.learning_rate_:g} was used), and see the table of "
            "features for a variable with extreme values"
        )

    def _rmse(self, x: Rows, y: np.ndarray, team: Team | None = None) -> float:
        if team is not None:
            x, y = x.every(team.rank, team.size), y[team.rank :: team.size]
        error = self._predict(x).astype("float64") - y if len(x) else np.empty(y.shape)
        squares = np.square(error if x.mask is None else error[x.mask])
        if team is None:
            return float(np.sqrt(np.mean(squares)))
        total, count = team.sum(np.array([squares.sum(), squares.size], dtype="float64"))
        return float(np.sqrt(total / count))

    # ---- use

    def _predict(self, x: Rows) -> np.ndarray:
        series = self.input_shape_[0] is None
        size = self._rows_at_once(len(x), x.shape[1:])
        out = np.empty(x.shape[:2] if series else len(x), dtype="float32")
        # Memory is allocated once for all batches: allocating it for each takes longer than copying into it.
        batch = aligned_zeros((size, *x.shape[1:]))
        for start in range(0, len(x), size):
            stop = min(start + size, len(x))
            x.take(np.arange(start, stop), out=batch[: stop - start])
            try:
                out[start:stop] = self._predictor(batch.shape)(batch)[: stop - start, ..., 0]
            except (RuntimeError, MemoryError) as error:
                raise self._cannot(error) from error
            except Exception as error:
                if type(error).__module__.partition(".")[0] not in ("tensorflow", "jax", "jaxlib"):
                    raise
                raise self._cannot(error) from error
        return out

    def _cannot(self, error: Exception) -> SmgeoError:
        return SmgeoError(f"{self.kind}: the network does not estimate: {type(error).__name__}: {str(error)[:300]}")

    def _rows_at_once(self, rows: int, shape: tuple[int, ...]) -> int:
        """Return how many rows (windows, series) of a shape are estimated at once: fewer if the layers are wide."""
        days = int(np.prod(shape[:-1])) + getattr(self, "kernel", 0)
        widest = max(getattr(self, "units", 1), getattr(self, "filters", 1), shape[-1])
        usual = _series_at_once(rows, days) if self.input_shape_[0] is None else _PREDICT_BATCH[self.uses_window]
        return min(usual, max(_PREDICT_NUMBERS // (4 * days * widest), 1))

    def _predictor(self, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function that estimates batches of this shape, compiled at its first use."""
        with _COMPILING:
            # Stored with the network, which another fit replaces, and in its dictionary, where Keras does not track it.
            made: dict[tuple[int, ...], Callable[[np.ndarray], np.ndarray]] = self._model.__dict__.setdefault(
                "_smgeo_predictors", {}
            )
            if shape not in made:
                made[shape] = make_predictor(import_keras(), self._model, shape)
            return made[shape]

    def _describe_training(self) -> JsonObject:
        return {
            "epochs": len(self.history_["rmse"]),
            "batch_size": self.batch_size_,
            "learning_rate": self.learning_rate_,
            "history": self.history_,
        }

    def _check_size(self, numbers: int) -> None:
        """Refuse parameters that make a larger network than a file has weights for, before it is built."""
        width = max(getattr(self, name, 0) for name in ("units", "filters"))
        least = max(width, self.layers, (self.layers - 1) * width**2, width * int(self.input_shape_[-1] or 0))
        if max(least, getattr(self, "kernel", 0)) > numbers:
            raise ValueError(f"its {numbers} numbers are not those of a network with these parameters")

    def restore(self, about: Manifest, folder: Path, trusted: Collection[str] = ()) -> None:
        """Become the fitted model of a folder, also of one from before there was `input_dropout`."""
        if "input_dropout" not in about["params"]:
            self.input_dropout = 0.0
        super().restore(about, folder, trusted)

    def _save_weights(self, folder: Path) -> None:
        save_network(self._model, folder)

    def _load_weights(self, folder: Path, trusted: Collection[str]) -> None:
        keras = import_keras()

        def build(numbers: int) -> Model:
            self._check_size(numbers)
            model = self._build(keras)
            model.jit_compile = compiles_whole(keras)
            return model

        self._model = load_network(folder, build)
        self.history_ = dict(self.training_.get("history", {}))


class _Kept:
    """The part of a training that goes into its checkpoint, and back."""

    def __init__(
        self,
        file: Checkpoint | None,
        training: JsonObject,
        model: Model,
        batches: KerasBatches,
        history: dict[str, list[float]],
    ) -> None:
        self._file, self._training, self._model, self._batches, self._history = file, training, model, batches, history
        self.writes = True  # in a team only one process does

    def restore(self) -> list[np.ndarray] | None:
        """Restore weights, optimiser, order of batches and history; return the best weights so far, or None."""
        kept = self._file.load(self._training) if self._file is not None else None
        if kept is None:
            return None
        arrays, state = kept
        self._model.optimizer.build(self._model.trainable_variables)
        for variable, value in zip(self._variables(), arrays["variables"], strict=True):
            variable.assign(value)
        self._batches.state = state["order"]
        self._history.update(state["history"])
        return arrays["best"] or None

    def save(self, best: list[np.ndarray] | None) -> None:
        """Write the checkpoint, if one is due."""
        if self._file is not None and self.writes and self._file.due:
            arrays = {"variables": [np.asarray(v) for v in self._variables()], "best": best or []}
            self._file.save(self._training, arrays, {"order": self._batches.state, "history": self._history})

    def _variables(self) -> list[Variable]:
        """Return weights, seeds of dropout and the state of the optimiser, without the metrics, which are reset each epoch."""
        metrics = {id(v) for m in self._model.metrics for v in m.variables}
        return [v for v in self._model.variables if id(v) not in metrics] + list(self._model.optimizer.variables)


def _some(n: int, most: int, seed: int) -> np.ndarray:
    """Return at most `most` positions of `n`, in ascending order."""
    return np.sort(np.random.default_rng(seed).choice(n, min(n, most), replace=False))


def find_nothing_learned(scores: list[float], of_mean: float) -> str | None:
    """Return why the validation RMSE of each epoch, and that of the mean of the target, show that nothing was learned; None otherwise.

    >>> find_nothing_learned([0.11, 0.12, 0.13], 0.1)
    'at no epoch it was better at the validation rows than the mean of the training rows'
    >>> find_nothing_learned([0.098, 0.12, 0.11], 0.1)
    'its first epoch was its best, and hardly better at the validation rows than the mean of the training rows'
    >>> find_nothing_learned([0.06, 0.07], 0.1), find_nothing_learned([0.12, 0.07], 0.1)
    (None, None)
    """
    if min(scores) >= of_mean:
        return "at no epoch it was better at the validation rows than the mean of the training rows"
    if scores[0] == min(scores) and scores[0] > _HARDLY * of_mean:
        return (
            "its first epoch was its best, and hardly better at the validation rows than the mean of the training rows"
        )
    return None


def _series_at_once(series: int, days: int) -> int:
    """Return how many series to estimate at once: as memory allows, and with few shapes for few series.

    >>> _series_at_once(5000, 1684), _series_at_once(5, 1684)
    (77, 8)
    """
    return min(max(_PREDICT_DAYS // days, 1), 1 << (series - 1).bit_length())
