"""One training by several processes: each takes its share of every batch, and their gradients are added up. TensorFlow only."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from smgeo.errors import SmgeoError
from smgeo.models.backend import import_keras, make_step
from smgeo.prepare.feeds import BatchSource

if TYPE_CHECKING:
    from keras import Model
    from tensorflow import Tensor

    from smgeo.models.backend import TrainStep


class Share:
    """The share of this process in a source of batches: every `size`-th row of each batch, from its `rank` on.

    Examples
    --------
    >>> Share(None, 1, 3).part(np.arange(7))[0].tolist()
    [1, 4]
    """

    def __init__(self, source: BatchSource, rank: int, size: int) -> None:
        self._source, self._rank, self._size = source, rank, size

    def __len__(self) -> int:
        return len(self._source)

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return positions of all rows: the same in all processes, which draw them with the same seed."""
        return self._source.order(rng)

    def part(self, rows: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return rows of this process, and if they count: with fewer rows than processes, some get one that has no weight."""
        mine = rows[self._rank :: self._size]
        return (mine, True) if len(mine) else (rows[:1], False)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return X, y and weights of this process's rows."""
        mine, counts = self.part(rows)
        x, y, *mask = self._source.batch(mine)
        weights = mask[0] if mask else np.ones(y.shape, dtype=bool)
        return x, y, weights & counts


class Team:
    """The processes that train one model together. Create it before using anything else of TensorFlow.

    Parameters
    ----------
    addresses : sequence of str
        `host:port` of each process.
    rank : int
        Number of this process.

    Raises
    ------
    SmgeoError
        If Keras runs on another backend.
    """

    def __init__(self, addresses: Sequence[str], rank: int) -> None:
        self.rank, self.size = rank, len(addresses)
        keras = import_keras()
        check_backend(keras.backend.backend())
        import tensorflow as tf

        task = {"type": "worker", "index": rank}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": list(addresses)}, "task": task})
        # One GPU for each process of a node, among those that this job may use.
        if gpus := tf.config.list_physical_devices("GPU"):
            tf.config.set_visible_devices(gpus[int(os.environ.get("SLURM_LOCALID", rank)) % len(gpus)], "GPU")
        self._tf, self._strategy = tf, tf.distribute.MultiWorkerMirroredStrategy()

    def share(self, source: BatchSource) -> Share:
        """Return this process's share of each batch."""
        return Share(source, self.rank, self.size)

    def check_start(self, epochs: int) -> None:
        """Refuse to begin if processes are at different epochs.

        Raises
        ------
        SmgeoError
            If not all have the same checkpoint.
        """
        total, squares = self.sum(np.array([epochs, epochs**2], dtype="float64"))
        if total**2 != squares * self.size:
            raise SmgeoError(
                f"the processes that train together do not see the same checkpoint (this one is at epoch {epochs}); the file system of the "
                "run's folder is not the same on all nodes, or late"
            )

    def spread_seeds(self, model: Model) -> None:
        """Let each process drop out other neurons; without this, all have the seeds of the first."""
        for variable in model.non_trainable_variables:
            if "seed_generator" in variable.path:  # (seed, how many numbers were drawn)
                variable.assign(np.asarray(variable) + np.array([self.rank, 0], dtype=variable.dtype))

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over all processes, the same in each."""
        return np.asarray(self._add([self._tf.constant(values)])[0])

    def _add(self, values: list[Tensor]) -> list[Tensor]:
        """Add up tensors; every process must call it."""
        tf = self._tf

        def add(given: list[Tensor]) -> list[Tensor]:
            # TensorFlow reduces only tensors that are on a device.
            here = [tf.identity(part) for part in given]
            added: list[Tensor] = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, here)
            return added

        total: list[Tensor] = self._strategy.run(add, args=(values,))
        return total

    def make_step(self, model: Model) -> TrainStep:
        """Return the step of training on this process's share of a batch; every process must call it for each batch."""
        return make_step(model, self._add, any_size=True)


def check_backend(name: str) -> None:
    """Refuse a backend of Keras on which processes cannot train together.

    Raises
    ------
    SmgeoError
        If it is not TensorFlow.
    """
    if name != "tensorflow":
        raise SmgeoError(
            f"training by several processes runs on TensorFlow, and Keras' backend is {name}; set KERAS_BACKEND=tensorflow, or train with one"
        )
