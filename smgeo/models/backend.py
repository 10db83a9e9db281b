"""Keras and its backends: importing it, and the little that differs between TensorFlow and JAX."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smgeo.errors import SmgeoError


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


def most_windows(keras: Any) -> int:
    """Windows of a batch beyond which recurrent layers run no faster, or slower.

    TensorFlow's loop over days takes its time whatever the batch; XLA's on a CPU is best where a step stays in the cache.
    """
    if keras.backend.backend() != "jax":
        return 512
    import jax

    return 64 if jax.default_backend() == "cpu" else 512
