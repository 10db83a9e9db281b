"""One training by several processes: each takes its share of every batch, and their gradients are added up. TensorFlow alone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from smgeo.errors import SmgeoError
from smgeo.models.backend import import_keras
from smgeo.prepare.feeds import BatchSource


class Share:
    """A source of batches of which this process gets its part: every `size`-th row of each batch, from its `rank` on.

    Examples
    --------
    >>> Share(None, 1, 3).part(np.arange(7))[0].tolist()
    [1, 4]
    """

    def __init__(self, source: Any, rank: int, size: int) -> None:
        self._source: BatchSource = source
        self._rank, self._size = rank, size

    def __len__(self) -> int:
        return len(self._source)

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Positions of all rows: the same in all processes, which draw them by the same seed."""
        return self._source.order(rng)

    def part(self, rows: np.ndarray) -> tuple[np.ndarray, bool]:
        """Rows of this process, and whether they count: where there are fewer rows than processes, one of them without weight."""
        mine = rows[self._rank :: self._size]
        return (mine, True) if len(mine) else (rows[:1], False)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """X, y and weights of this process's rows."""
        mine, counts = self.part(rows)
        x, y, *mask = self._source.batch(mine)
        weights = mask[0] if mask else np.ones(y.shape, dtype=bool)
        return x, y, weights & counts


class Team:
    """The processes that train one model together. To be made before anything else of TensorFlow is used.

    Parameters
    ----------
    addresses : sequence of str
        `host:port` of each process.
    rank : int
        Which of them this is.

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
        # One GPU for each process of a node, of those that this job may use.
        if gpus := tf.config.list_physical_devices("GPU"):
            tf.config.set_visible_devices(gpus[int(os.environ.get("SLURM_LOCALID", rank)) % len(gpus)], "GPU")
        self._tf, self._strategy = tf, tf.distribute.MultiWorkerMirroredStrategy()
        self._step: tuple[Any, Any] | None = None

    def share(self, source: Any) -> Share:
        """What of each batch is this process's."""
        return Share(source, self.rank, self.size)

    def check_start(self, epochs: int) -> None:
        """Refuse to begin where processes come from different epochs.

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

    def spread_seeds(self, model: Any) -> None:
        """Let each process drop out other neurons; as they are, all have the seeds of the first."""
        for variable in model.non_trainable_variables:
            if "seed_generator" in variable.path:  # (seed, how many numbers were drawn)
                variable.assign(np.asarray(variable) + np.array([self.rank, 0], dtype=variable.dtype))

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over all processes, the same in each."""
        return np.asarray(self._add(self._tf.constant(values)))

    def _add(self, values: Any) -> Any:
        """Of one tensor or of a list of them; every process must ask for it."""
        tf = self._tf

        def add(given: Any) -> Any:
            here = tf.nest.map_structure(
                tf.identity, given
            )  # made on a device, which TensorFlow asks of what it reduces
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, here)

        return self._strategy.run(add, args=(values,))

    def train_epoch(self, model: Any, batches: Any) -> float:
        """One pass over the batches; RMSE over all rows as they were trained, in the units of y."""
        if self._step is None or self._step[0] is not model:
            self._step = model, self._make_step(model)
        sums = np.zeros(2)
        for i in range(len(batches)):
            sums += np.asarray(self._step[1](*batches[i]))
        batches.on_epoch_end()
        return float(np.sqrt(sums[1] / sums[0]))

    def _make_step(self, model: Any) -> Any:
        tf = self._tf
        variables = model.trainable_variables
        model.optimizer.build(variables)

        def step(x: Any, y: Any, weights: Any) -> Any:
            weights = weights[..., None]
            with tf.GradientTape() as tape:
                squares = tf.reduce_sum(weights * tf.square(model(x, training=True) - y))
            gradients = tape.gradient(squares, variables)
            # Weights are added up with the gradients, so that a mean over the whole batch comes of parts of any size.
            count, total, *gradients = self._add([tf.reduce_sum(weights), squares, *gradients])
            model.optimizer.apply([g / count for g in gradients], variables)
            return tf.cast(tf.stack([count, total]), tf.float64)

        return tf.function(step, reduce_retracing=True)


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
