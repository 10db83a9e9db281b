"""Keras and its backends: importing it, and the little that differs between TensorFlow and JAX."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smgeo.errors import SmgeoError

# Bytes: what TensorFlow's and XLA's kernels ask of the memory they read.
_ALIGNED = 64


def import_keras() -> Any:
    """Keras, imported without what its backend writes while it loads."""
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
    return keras


def keras_backend() -> str:
    """The backend that Keras would take, found as Keras finds it, without loading it."""
    if chosen := os.environ.get("KERAS_BACKEND"):
        return chosen
    file = Path(os.environ.get("KERAS_HOME", "~/.keras"), "keras.json").expanduser()
    try:
        return str(json.loads(file.read_text(encoding="utf-8")).get("backend", "tensorflow"))
    except (OSError, ValueError):
        return "tensorflow"


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


def be_deterministic(keras: Any, seed: int) -> None:
    """The same seed gives the same weights on the same machine."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def compiles_whole(keras: Any) -> bool:
    """Whether a training step is compiled as a whole by XLA.

    JAX would run it operation by operation otherwise. TensorFlow's own kernels are as fast on a CPU, and need no seconds of compiling.
    """
    return bool(keras.backend.backend() == "jax")


def make_predictor(keras: Any, model: Any, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """The model's estimates of batches of one shape (float32), compiled once; several threads may call it at once.

    Keras' `predict_on_batch` may be called by one thread at a time, and takes a millisecond of Python for each batch. Layers that look at
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
    call = tf.function(lambda x: model(x, training=False), jit_compile=whole)
    graph = call.get_concrete_function(tf.TensorSpec(shape, tf.float32))

    def by_tensorflow(x: np.ndarray) -> np.ndarray:
        aligned = x.flags.c_contiguous and x.ctypes.data % _ALIGNED == 0
        # TensorFlow would copy an array twice, and reads one that is not aligned by no means.
        return np.asarray(graph(tf.experimental.dlpack.from_dlpack(x.__dlpack__()) if aligned else tf.constant(x)))

    return by_tensorflow


def aligned_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """float32 zeros that start where backends take an array as it is, without a copy."""
    size = 4 * math.prod(shape)
    memory = np.zeros(size + _ALIGNED, dtype="u1")
    first = -memory.ctypes.data % _ALIGNED
    return memory[first : first + size].view("float32").reshape(shape)


def most_windows(keras: Any) -> int:
    """Windows of a batch beyond which recurrent layers run no faster, or slower.

    TensorFlow's loop over days takes its time whatever the batch; XLA's on a CPU is best where a step stays in the cache.
    """
    if keras.backend.backend() != "jax":
        return 512
    import jax

    return 64 if jax.default_backend() == "cpu" else 512
