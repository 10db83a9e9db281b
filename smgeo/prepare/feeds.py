"""Batches in the form that Keras and TensorFlow ask for; both are imported when asked for."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from smgeo.errors import missing_extra


class BatchSource(Protocol):
    """What a feed needs: how many rows, an order of them for an epoch, and the arrays of some of them."""

    def __len__(self) -> int: ...

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Positions of all rows, shuffled or not."""
        ...

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """x, y and perhaps a mask of y."""
        ...


def keras_batches(source: BatchSource, size: int, seed: int | None) -> Any:
    """A `keras.utils.PyDataset`: gathered as asked for, in a new order each epoch, or in order without a seed.

    Its `state` says which epoch's order comes next, and may be set to one that it had.
    """
    try:
        import keras
    except ImportError:
        raise missing_extra("feeding Keras", "nn") from None

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._rng = np.random.default_rng(seed) if seed is not None else None
            self._draw()

        def _draw(self) -> None:
            # As it was before the order was drawn, so that the same order can be drawn again.
            self._state = None if self._rng is None else self._rng.bit_generator.state
            self._order, self._used_up = source.order(self._rng), False

        @property
        def state(self) -> Any:
            """Where the order of epochs stands, JSON types."""
            return self._state

        @state.setter
        def state(self, value: Any) -> None:
            if self._rng is not None:
                self._rng.bit_generator.state = value
                self._draw()

        def __len__(self) -> int:
            return -(-len(source) // size)

        def __getitem__(self, i: int) -> tuple[np.ndarray, ...]:
            self._used_up = self._used_up or i == len(self) - 1
            return _weighted(*source.batch(self._order[i * size : (i + 1) * size]))

        def on_epoch_end(self) -> None:
            # Keras looks at the first batches and calls this when `fit` starts too; an order that was not used up is kept,
            # because windows are read from their store in this order, ahead of the batches.
            if self._used_up:
                self._draw()

    return Batches()


def _weighted(x: np.ndarray, y: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """(x, y), and with a mask (x, y with a last axis of one output, weights)."""
    return (x, y) if mask is None else (x, y[..., None], mask.astype("float32"))


def tf_dataset(windows: Any, size: int, seed: int | None) -> Any:
    """A `tf.data.Dataset` over `smgeo.Windows` held in memory: TensorFlow holds the features and gathers in its graph."""
    try:
        import tensorflow as tf
    except ImportError:
        raise missing_extra("feeding TensorFlow", "nn") from None
    base, starts = windows.flat_index()
    length, fill = windows.shape[1], windows.fill
    series, first = tf.constant(base), tf.constant(starts)
    y = tf.constant(windows.y if windows.y is not None else np.full(len(windows), np.nan, dtype="float32"))
    mask = None if windows.mask is None else tf.constant(windows.mask)
    rng = np.random.default_rng(seed) if seed is not None else None

    def positions() -> Any:
        order = windows.order(rng).astype("int64")
        yield from (order[i : i + size] for i in range(0, len(order), size))

    def gather(rows: Any) -> tuple[Any, ...]:
        x = tf.gather(series, tf.gather(first, rows)[:, None] + tf.range(length, dtype=tf.int64))
        if fill is not None:
            seen = ~tf.math.is_nan(x)
            x = tf.where(seen, x, tf.constant(fill, tf.float32))
            if windows.missing > 0:
                x = tf.concat([x, tf.cast(seen, tf.float32)], axis=-1)
        if mask is None:
            return x, tf.gather(y, rows)
        return x, tf.gather(y, rows)[..., None], tf.cast(tf.gather(mask, rows), tf.float32)

    rows = tf.data.Dataset.from_generator(positions, output_signature=tf.TensorSpec([None], tf.int64))
    rows = rows.apply(tf.data.experimental.assert_cardinality(-(-len(windows) // size)))
    return rows.map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
