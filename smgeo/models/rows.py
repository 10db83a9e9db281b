"""Rows that models read their input from, a batch at a time: of an array, of windows, or of whole series."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from smgeo.prepare.steps import Preparation

# Rows of a block.
_BLOCK = 65_536


@runtime_checkable
class WindowSource(Protocol):
    """The parts of `smgeo.Windows` that a model needs."""

    y: np.ndarray | None
    mask: np.ndarray | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(windows, length, channels); for whole series (stations, days, channels)."""
        ...

    @property
    def stations(self) -> np.ndarray:
        """Ids of the stations that have windows."""
        ...

    @property
    def preparation(self) -> Preparation:
        """Preparation of the windows."""
        ...

    def __len__(self) -> int: ...

    def gather(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return windows at `rows`: (len(rows), length, channels) float32, in `out` if it is given."""
        ...

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return positions in the order of an epoch."""
        ...

    def crop(self, days: int) -> Self:
        """Return whole series cut into pieces in which `days` days count."""
        ...

    def pick(self, values: np.ndarray) -> np.ndarray:
        """Return those of the values, in the shape of `y`, that count."""
        ...


@runtime_checkable
class PlaceSource(WindowSource, Protocol):
    """Windows that know which place they are of."""

    def only(self, rows: np.ndarray) -> Self:
        """Return the windows at `rows`, bool (n,)."""
        ...

    def place_folds(self, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return which windows each fold trains on, and which it holds out: whole places."""
        ...


# X of a model: windows, or an array or table.
Input: TypeAlias = WindowSource | ArrayLike
# Validation data: windows, which bring their y, or X and y.
Validation: TypeAlias = WindowSource | tuple[Input, np.ndarray]


class Rows:
    """Rows of X, as an array or gathered from windows batch by batch.

    Attributes
    ----------
    shape : tuple of int
        (n, features), (n, length, features) or (n, days, features).
    mask : numpy.ndarray of bool or None
        (n, days) where rows are whole series: the days that count.
    """

    def __init__(self, source: np.ndarray | WindowSource, flat: bool = False) -> None:
        self._source, self._flat = source, flat
        n, *rest = source.shape
        # A window of one day is a row; one of several days is a long row, for models of one day.
        self.shape: tuple[int, ...] = (n, int(np.prod(rest))) if flat else (n, *rest)
        self.mask = None if isinstance(source, np.ndarray) else source.mask
        self._positions: np.ndarray | None = None  # in the source; None for all of it

    def __len__(self) -> int:
        return int(self.shape[0])

    @property
    def count(self) -> int:
        """Number of values of the target that count: rows, or days of the mask."""
        return len(self) if self.mask is None else int(self.mask.sum())

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return float32 rows at positions `rows`, in `out` if it is given."""
        rows = rows if self._positions is None else self._positions[rows]
        if isinstance(self._source, np.ndarray):
            # Positions are in range; the default mode would copy the rows to a buffer first.
            return np.asarray(np.take(self._source, rows, axis=0, out=out, mode="clip"))
        shape = (len(rows), *self._source.shape[1:])
        x = self._source.gather(rows, None if out is None else out.reshape(shape))
        return x.reshape(len(rows), -1) if self._flat else x

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return positions of all rows, shuffled by `rng`, in an order in which the source is quick to read."""
        assert self._positions is None
        if not isinstance(self._source, np.ndarray):
            return self._source.order(rng)
        return np.arange(len(self)) if rng is None else rng.permutation(len(self))

    def all(self) -> np.ndarray:
        """Return all rows at once."""
        return self.take(np.arange(len(self)))

    def blocks(self, most: int = _BLOCK) -> Iterator[tuple[slice, np.ndarray]]:
        """Iterate over all rows in blocks of at most `most`, with their positions, so that windows are not gathered all at once."""
        size = min(most, _BLOCK)
        for start in range(0, len(self), size):
            block = slice(start, min(start + size, len(self)))
            yield block, self.take(np.arange(block.start, block.stop))

    def place_folds(self, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """Return which rows each fold trains on, and which it holds out: whole places; None if the source does not know places."""
        return self._source.place_folds(folds, seed) if isinstance(self._source, PlaceSource) else None

    def only(self, rows: np.ndarray) -> Rows:
        """Return the rows at `rows`, bool (n,), of a source that knows places."""
        assert self._positions is None
        assert isinstance(self._source, PlaceSource)
        return Rows(self._source.only(rows), self._flat)

    def every(self, first: int, step: int) -> Rows:
        """Return every `step`-th row from `first` on."""
        part = copy.copy(self)
        rows = np.arange(len(self))[first::step]
        part.shape, part.mask = (len(rows), *self.shape[1:]), None if self.mask is None else self.mask[first::step]
        part._positions = rows if self._positions is None else self._positions[rows]
        return part

    def crop(self, days: int) -> tuple[Rows, np.ndarray]:
        """Return whole series cut into pieces in which `days` days count, and the pieces' y."""
        assert not isinstance(self._source, np.ndarray)
        assert self._positions is None
        pieces = self._source.crop(days)
        assert pieces.y is not None
        return Rows(pieces), pieces.y


class Labelled:
    """Rows and their target, as a source of batches."""

    def __init__(self, x: Rows, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return positions of all rows, shuffled by `rng`."""
        return self.x.order(rng)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return X and y, and for whole series the mask, at positions `rows`."""
        mask = () if self.x.mask is None else (self.x.mask[rows],)
        return (self.x.take(rows), self.y[rows], *mask)


class Filled:
    """A source of batches that all have the same number of rows, so that training is compiled once: the last is filled with rows of no weight."""

    def __init__(self, source: Labelled, size: int) -> None:
        self._source, self._size = source, min(size, len(source))

    def __len__(self) -> int:
        return len(self._source)

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return positions of all rows, shuffled by `rng`."""
        return self._source.order(rng)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return X, y and weights, at positions `rows` and at some of these again."""
        x, y, *mask = self._source.batch(np.resize(rows, self._size))
        weights = mask[0] if mask else np.ones(y.shape, dtype=bool)
        weights[len(rows) :] = False
        return x, y, weights
