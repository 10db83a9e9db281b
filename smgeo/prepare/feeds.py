"""Batches in the form that Keras and TensorFlow use; both are imported on first use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from smgeo.errors import missing_extra
from smgeo.files import JsonObject

if TYPE_CHECKING:
    import tensorflow as tf


class BatchSource(Protocol):
    """The source of a feed: a number of rows, their order in an epoch, and the arrays of some of them."""

    def __len__(self) -> int: ...

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return the positions of all rows, shuffled or not."""
        ...

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return x, y and, for whole series, a mask of y."""
        ...


class HeldWindows(Protocol):
    """Windows whose features are in memory; see `smgeo.Windows`."""

    y: np.ndarray | None
    mask: np.ndarray | None
    fill: list[float] | None
    missing: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(windows, length, channels)."""
        ...

    def __len__(self) -> int: ...

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return the positions of all windows, shuffled or not."""
        ...

    def flat_index(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the features as rows of days, and the row in which each window begins."""
        ...


class KerasBatches(Protocol):
    """A `keras.utils.PyDataset` whose order of rows can be saved and restored."""

    state: JsonObject | None

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[np.ndarray, ...]: ...

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch."""
        ...


def keras_batches(source: BatchSource, size: int, seed: int | None) -> KerasBatches:
    """Return a `keras.utils.PyDataset` that gathers batches on request, in a new order each epoch, or in order without a seed.

    Its `state` (JSON types) determines the order of the next epoch. Setting an earlier state restores that order.
    """
    try:
        import keras
    except ImportError:
        raise missing_extra("feeding Keras", "nn") from None

    class Batches(keras.utils.PyDataset):  # type: ignore[misc] # Keras has no types
        def __init__(self) -> None:
            super().__init__()
            self._rng = np.random.default_rng(seed) if seed is not None else None
            self._draw()

        def _draw(self) -> None:
            # The state before the order is drawn, so that the same order can be drawn again.
            self._state = None if self._rng is None else dict(self._rng.bit_generator.state)
            self._order, self._used_up = source.order(self._rng), False

        @property
        def state(self) -> JsonObject | None:
            """State of the random generator before the order of the epoch was drawn."""
            return self._state

        @state.setter
        def state(self, value: JsonObject | None) -> None:
            if self._rng is not None and value is not None:
                self._rng.bit_generator.state = value
                self._draw()

        def __len__(self) -> int:
            return -(-len(source) // size)

        def __getitem__(self, i: int) -> tuple[np.ndarray, ...]:
            self._used_up = self._used_up or i == len(self) - 1
            return _weighted(*source.batch(self._order[i * size : (i + 1) * size]))

        def on_epoch_end(self) -> None:
            # Keras reads the first batches and calls this when `fit` starts, too. An order that was not used up is kept,
            # because windows are read from their store in this order, ahead of the batches.
            if self._used_up:
                self._draw()

    batches: KerasBatches = Batches()
    return batches


def _weighted(x: np.ndarray, y: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """Return (x, y); with a mask, (x, y with a last axis of one output, weights)."""
    return (x, y) if mask is None else (x, y[..., None], mask.astype("float32"))


def tf_dataset(windows: HeldWindows, size: int, seed: int | None) -> tf.data.Dataset:
    """Return a `tf.data.Dataset` of windows in memory: TensorFlow keeps the features and gathers windows in its graph."""
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

    def positions() -> Iterator[np.ndarray]:
        order = windows.order(rng).astype("int64")
        yield from (order[i : i + size] for i in range(0, len(order), size))

    def gather(rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
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
