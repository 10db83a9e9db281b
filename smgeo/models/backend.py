"""Keras and its backends: import, and the differences between TensorFlow and JAX."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from smgeo.errors import SmgeoError
from smgeo.files import read_json

if TYPE_CHECKING:
    from keras import Model
    from tensorflow import Tensor

    from smgeo.prepare.feeds import KerasBatches

    # Trains on x, y and weights; returns the sum of the weights and of weighted squared errors.
    TrainStep = Callable[[Tensor, Tensor, Tensor], Tensor]

# Alignment in bytes of the memory that TensorFlow's and XLA's kernels read.
_ALIGNED = 64


def import_keras() -> ModuleType:
    """Import Keras without the output of its backend, and return it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" in sys.modules:
        return sys.modules["keras"]
    # Its warnings are about how Keras calls it (a new graph for each fold), which no user can change.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        with _quiet_stderr():
            import keras
    except ImportError as error:
        raise SmgeoError(
            f"Keras has no backend to run on ({error}); install smgeo[nn] for TensorFlow, or set KERAS_BACKEND=jax where JAX is installed"
        ) from None
    module: ModuleType = keras
    return module


def keras_backend() -> str:
    """Return the backend that Keras would use, found as Keras finds it, without loading it."""
    if chosen := os.environ.get("KERAS_BACKEND"):
        return chosen
    file = Path(os.environ.get("KERAS_HOME", "~/.keras"), "keras.json").expanduser()
    return str(read_json(file).get("backend", "tensorflow"))


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Discard stderr: TensorFlow writes there while it loads, at any log level; errors are raised, not written."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def be_deterministic(keras: ModuleType, seed: int) -> None:
    """Let the same seed give the same weights on the same machine."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def compiles_whole(keras: ModuleType) -> bool:
    """Return True if XLA compiles a training step as a whole.

    JAX would run it operation by operation otherwise. TensorFlow's own kernels are as fast on a CPU, without seconds of compilation.
    """
    return bool(keras.backend.backend() == "jax")


def make_step(
    model: Model, add: Callable[[list[Tensor]], list[Tensor]] = lambda parts: parts, *, any_size: bool = False
) -> TrainStep:
    """Return TensorFlow's step of training on the mean squared error; Keras' `fit` takes longer for what it does around each step.

    Parameters
    ----------
    model : keras.Model
        Compiled, for its optimiser.
    add : callable, optional
        Adds up tensors over the processes that train together.
    any_size : bool
        One compilation serves batches of any number of rows.
    """
    import tensorflow as tf

    variables = model.trainable_variables
    model.optimizer.build(variables)

    def step(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        weights = weights[..., None]
        with tf.GradientTape() as tape:
            squares = tf.reduce_sum(weights * tf.square(model(x, training=True) - y))
        gradients = tape.gradient(squares, variables)
        # Weights are added up with the gradients, so that parts of any size give a mean over the whole batch.
        count, total, *gradients = add([tf.reduce_sum(weights), squares, *gradients])
        model.optimizer.apply([g / count for g in gradients], variables)
        return tf.cast(tf.stack([count, total]), tf.float64)

    compiled: TrainStep = tf.function(step, reduce_retracing=any_size, autograph=False)
    return compiled


def make_epoch(
    keras: ModuleType, model: Model, batches: KerasBatches, make: Callable[[Model], TrainStep] = make_step
) -> Callable[[], float]:
    """Return a function that trains one pass over the batches, and returns the RMSE of all rows as they were trained, in the units of y.

    `make` returns TensorFlow's step.
    """
    if keras.backend.backend() != "tensorflow":
        # The batches are shuffled already, in an order in which windows are quick to read.
        return lambda: float(model.fit(batches, epochs=1, shuffle=False, verbose=0).history["rmse"][0])
    step = make(model)

    def epoch() -> float:
        # The next batch is gathered while the network learns from one.
        ahead = ThreadPoolExecutor(1)
        try:
            coming, total = ahead.submit(batches.__getitem__, 0), 0.0
            for number in range(1, len(batches) + 1):
                batch = coming.result()
                if number < len(batches):
                    coming = ahead.submit(batches.__getitem__, number)
                total += step(*batch)
        finally:
            # Whoever stops the training does not wait for a batch that is being read.
            ahead.shutdown(wait=False, cancel_futures=True)
        batches.on_epoch_end()
        count, squares = np.asarray(total)
        return float(np.sqrt(squares / count))

    return epoch


def make_predictor(keras: ModuleType, model: Model, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that estimates batches of one shape (float32), compiled once; several threads may call it at once.

    Keras' `predict_on_batch` allows one thread at a time, and takes a millisecond of Python for each batch. Layers over
    several days are compiled by XLA, which runs recurrent ones twice as fast on a CPU as TensorFlow's kernels; on a GPU those are best.
    """
    if keras.backend.backend() == "jax":
        import jax

        run = jax.jit(lambda weights, rest, x: model.stateless_call(weights, rest, x, training=False)[0])

        def by_jax(x: np.ndarray) -> np.ndarray:
            weights, rest = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
            return np.asarray(run(weights, rest, x))

        return by_jax
    import tensorflow as tf

    whole = len(shape) > 2 and not tf.config.list_physical_devices("GPU")
    call = tf.function(lambda x: model(x, training=False), jit_compile=whole, autograph=False)
    graph = call.get_concrete_function(tf.TensorSpec(shape, tf.float32))

    def by_tensorflow(x: np.ndarray) -> np.ndarray:
        aligned = x.flags.c_contiguous and x.ctypes.data % _ALIGNED == 0
        # TensorFlow would copy an array twice otherwise, but cannot read one that is not aligned.
        return np.asarray(graph(tf.experimental.dlpack.from_dlpack(x.__dlpack__()) if aligned else tf.constant(x)))

    return by_tensorflow


def aligned_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 zeros at an address from which backends read an array without a copy."""
    size = 4 * math.prod(shape)
    memory = np.zeros(size + _ALIGNED, dtype="u1")
    first = -memory.ctypes.data % _ALIGNED
    return memory[first : first + size].view("float32").reshape(shape)


def most_windows(keras: ModuleType) -> int:
    """Return the number of windows in a batch beyond which recurrent layers run no faster, or slower.

    TensorFlow's loop over days takes the same time for any batch; XLA's on a CPU is best where a step stays in the cache.
    """
    if keras.backend.backend() != "jax":
        return 512
    import jax

    return 64 if jax.default_backend() == "cpu" else 512
