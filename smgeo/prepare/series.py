"""The features of a station cube as arrays (station, time, feature): held whole, or read a block of stations at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import dask
import numba
import numpy as np
import xarray as xr

from smgeo.cube import STATION_DIMS
from smgeo.errors import SmgeoError

# A lazy cube up to this size is held in memory; a fixed number, so that a recipe gives the same order of batches everywhere.
IN_MEMORY_BYTES = 4e9
# Chunks are joined to blocks of about this size, so that a few blocks hold many stations.
_BLOCK_BYTES = 64e6
# Stations interleaved at once: what they hold of all features stays in a core's cache.
_AT_ONCE = 4


@numba.njit(cache=True, nogil=True)
def _interleave(values: np.ndarray, out: np.ndarray, feature: int) -> None:
    for s in range(values.shape[0]):
        for t in range(values.shape[1]):
            out[s, t, feature] = values[s, t]


def _stack(variables: Sequence[np.ndarray], out: np.ndarray) -> None:
    """`variables`, (station, time) each, into `out` (station, time, feature)."""
    for start in range(0, out.shape[0], _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        for f, values in enumerate(variables):
            _interleave(values[rows], out[rows], f)


class Series:
    """Features of a station cube, block by block of stations.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube, lazy or not.
    names : sequence of str
        Variables, along the last axis; static and calendar ones are repeated.
    in_memory : bool, optional
        Whether all stations are one block, held; by default where `ds` is not lazy or is small.
    keep : int
        Blocks held at once where they are read; one more is read ahead.

    Attributes
    ----------
    bounds : numpy.ndarray of int64
        First station of each block, and the number of stations.
    """

    def __init__(self, ds: xr.Dataset, names: Sequence[str], *, in_memory: bool | None = None, keep: int = 4) -> None:
        self._ds, self._names, self._keep = ds, list(names), keep
        self.shape = (ds.sizes["station"], ds.sizes["time"], len(self._names))
        lazy = any(ds[n].chunks is not None for n in self._names)
        small = 4 * int(np.prod(self.shape)) <= IN_MEMORY_BYTES
        self.held = (not lazy or small) if in_memory is None else in_memory
        parts = _join_chunks(ds, self._names)
        self.bounds = np.array([0, self.shape[0]]) if self.held else parts
        self._whole = self._read_whole(parts) if self.held else None
        if self.held:
            del self._ds
        self._start()

    def _start(self) -> None:
        self._blocks: dict[int, Future[np.ndarray]] = {}
        self._reader: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self.expect(range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        """Without what is read and the thread that reads."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_blocks", "_reader", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.bounds) - 1

    def read(self, blocks: Sequence[int]) -> list[np.ndarray]:
        """Blocks, each (stations, time, feature) float32; the one expected after them is read ahead."""
        if self._whole is not None:
            return [self._whole] * len(blocks)
        with self._lock:
            asked = {b: self._hold(b) for b in sorted(blocks, key=self._turn)}
        values = [asked[b].result() for b in blocks]
        with self._lock:
            after = 1 + max(map(self._turn, blocks), default=len(self._sequence))
            if after < len(self._sequence):
                self._hold(self._sequence[after])
        return values

    def parts(self, stations: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """(first station, last + 1, values) all through: views of `stations` stations where held, whole blocks where read."""
        if self._whole is not None:
            for first in range(0, max(self.shape[0], 1), stations):
                part = self._whole[first : first + stations]
                yield first, first + part.shape[0], part
            return
        self.expect(range(len(self)))
        for block in range(len(self)):
            yield int(self.bounds[block]), int(self.bounds[block + 1]), self.read([block])[0]

    @property
    def whole(self) -> np.ndarray:
        """All stations as one array, where they are held."""
        if self._whole is None:
            raise SmgeoError(
                "the features are read block by block, so they are not there as one array; use batches or to_keras, or make the "
                "windows with in_memory=True"
            )
        return self._whole

    def expect(self, sequence: Iterable[int]) -> None:
        """Say in which order blocks will be asked for: the next is read ahead, and the first are let go first."""
        with self._lock:
            self._sequence = [int(b) for b in sequence]
            self._place = {b: i for i, b in enumerate(self._sequence)}
            soon = set(self._sequence[: self._keep])
            self._blocks = {b: held for b, held in self._blocks.items() if b in soon}

    def _turn(self, block: int) -> int:
        """When a block is expected; before all others if it is not."""
        return self._place.get(block, -1)

    def _hold(self, block: int) -> Future[np.ndarray]:
        if block not in self._blocks:
            while len(self._blocks) > self._keep:
                del self._blocks[min(self._blocks, key=self._turn)]
            if self._reader is None:
                self._reader = ThreadPoolExecutor(1, thread_name_prefix="smgeo-series")
            self._blocks[block] = self._reader.submit(self._read_block, block)
        return self._blocks[block]

    def _read_block(self, block: int) -> np.ndarray:
        first, last = int(self.bounds[block]), int(self.bounds[block + 1])
        out = np.empty((last - first, *self.shape[1:]), dtype="float32")
        _read_stations(self._ds, self._names, first, last, out)
        return out

    def _read_whole(self, parts: np.ndarray) -> np.ndarray:
        out = np.empty(self.shape, dtype="float32")
        for first, last in pairwise(parts):
            _read_stations(self._ds, self._names, int(first), int(last), out[first:last])
        return out


def _read_stations(ds: xr.Dataset, names: Sequence[str], first: int, last: int, out: np.ndarray) -> None:
    """Stations `first` to `last` into `out`; all variables are computed together, so that they share what they are made from."""
    parts = []
    for name in names:
        variable = ds.variables[name]
        variable = variable.transpose(*(d for d in STATION_DIMS if d in variable.dims))
        parts.append(variable[first:last] if "station" in variable.dims else variable)
    arrays = [p.values[:, None] if p.dims == ("station",) else p.values for p in dask.compute(*parts)]
    _stack([np.broadcast_to(a, out.shape[:2]) for a in arrays], out)


def _join_chunks(ds: xr.Dataset, names: Sequence[str]) -> np.ndarray:
    """Bounds of blocks of stations: the chunks of the finest variable, joined up to a size."""
    size = 4 * ds.sizes["time"] * len(names)
    chunks: Sequence[int] = max(
        (v.chunksizes["station"] for v in (ds.variables[n] for n in names) if "station" in v.chunksizes),
        key=len,
        default=(),
    )
    if not chunks:
        step = max(int(_BLOCK_BYTES // max(size, 1)), 1)
        return np.array([*range(0, max(ds.sizes["station"], 1), step), ds.sizes["station"]])
    bounds, held = [0], 0
    for chunk in chunks:
        if held and (held + chunk) * size > _BLOCK_BYTES:
            bounds.append(bounds[-1] + held)
            held = 0
        held += chunk
    return np.array([*bounds, bounds[-1] + held])


def shuffle_blocks(sizes: Sequence[int], buffer: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An order of rows that needs only `buffer` blocks at a time, and the order in which it needs the blocks.

    Blocks come in random order. Each block's rows are shuffled and spread over the `buffer` rounds in which it is
    held (the first blocks over fewer); the rows of a round, from `buffer` blocks, are shuffled together. So a batch is a
    random sample of `buffer` blocks, and with one block this is a plain permutation.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each block; row numbers run through the blocks.
    buffer : int
    rng : numpy.random.Generator

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        Row numbers, each once, and block numbers.

    Examples
    --------
    >>> rows, blocks = shuffle_blocks([2, 2, 2], 1, np.random.default_rng(0))
    >>> blocks.tolist(), [sorted(r) for r in rows.reshape(3, 2).tolist()]
    ([2, 0, 1], [[4, 5], [0, 1], [2, 3]])
    """
    total = int(np.sum(sizes))
    # The smallest type, because there may be a hundred million rows.
    dtype = np.uint32 if total < 2**32 else np.int64
    if len(sizes) == 1:
        order = np.arange(total, dtype=dtype)
        rng.shuffle(order)
        return order, np.zeros(1, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    blocks = rng.permutation(len(sizes))
    rounds: list[list[np.ndarray]] = [[] for _ in blocks]
    out, filled = np.empty(total, dtype=dtype), 0
    for at in range(len(blocks)):
        # Round `at` needs the blocks up to `at + buffer - 1`, the last of them for the first time.
        for i in range(at if at == 0 else at + buffer - 1, min(at + buffer, len(blocks))):
            rows = np.arange(starts[blocks[i]], starts[blocks[i] + 1], dtype=dtype)
            rng.shuffle(rows)
            first = max(0, i - buffer + 1)
            for when, part in zip(range(first, i + 1), np.array_split(rows, i + 1 - first), strict=True):
                rounds[when].append(part)
        together = np.concatenate(rounds[at])
        rounds[at] = []
        rng.shuffle(together)
        out[filled : filled + together.size] = together
        filled += together.size
    return out, blocks
