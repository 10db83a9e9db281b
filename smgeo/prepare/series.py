"""The features of a station cube as arrays (station, time, feature), in memory or read a block of stations at a time."""

# mypy: untyped-calls-exclude="dask"

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import xarray as xr
from dask.base import compute

from smgeo.cube.schema import STATION_DIMS
from smgeo.errors import SmgeoError
from smgeo.threads import compiled

# A lazy cube up to this size is loaded into memory. The number is fixed, so that a recipe gives the same order of batches everywhere.
IN_MEMORY_BYTES = 4e9
# Chunks are joined to blocks of about this size, so that a few blocks contain many stations.
_BLOCK_BYTES = 64e6
# Number of stations interleaved at once: so many that their values of all features stay in a core's cache.
_CACHE_BYTES = 256e3


@compiled()
def _interleave(values: np.ndarray, out: np.ndarray) -> None:
    """Copy (feature, station, time) to (station, time, feature), with NaN for what is infinite: it is missing."""
    for s in range(out.shape[0]):
        for t in range(out.shape[1]):
            for f in range(out.shape[2]):
                value = values[f, s, t]
                out[s, t, f] = value if np.isfinite(value) else np.nan


def _stack(variables: Sequence[np.ndarray], out: np.ndarray) -> None:
    """Copy `variables`, (station, time) each, to `out` (station, time, feature)."""
    stations, days, features = out.shape
    at_once = max(int(_CACHE_BYTES // (4 * days * features)), 1)
    part = np.empty((features, min(at_once, stations), days), dtype=out.dtype)
    for start in range(0, stations, at_once):
        rows = slice(start, min(start + at_once, stations))
        here = part[:, : rows.stop - start]
        for f, values in enumerate(variables):
            here[f] = values[rows]
        _interleave(here, out[rows])


class Series:
    """Features of a station cube, block by block of stations. `scan` reads it for the first time.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube, lazy or not.
    names : sequence of str
        Variables, along the last axis; static and calendar ones are repeated.
    target : str, optional
        Variable that `scan` yields besides them.
    in_memory : bool, optional
        Keep all stations in memory as one block; by default True if `ds` is not lazy, or is small.
    keep : int
        Number of blocks in memory if they are read; one more is read ahead.

    Attributes
    ----------
    bounds : numpy.ndarray of int64
        First station of each block, and the number of stations.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        names: Sequence[str],
        target: str | None = None,
        *,
        in_memory: bool | None = None,
        keep: int = 4,
    ) -> None:
        self._ds, self._names, self._target, self._keep = ds, list(names), target, keep
        self.shape = (ds.sizes["station"], ds.sizes["time"], len(self._names))
        lazy = any(ds.variables[n].chunks is not None for n in self._names)
        small = 4 * int(np.prod(self.shape)) <= IN_MEMORY_BYTES
        self.held = (not lazy or small) if in_memory is None else in_memory
        self._parts = _join_chunks(ds, [*self._names, *([target] if target else [])])
        self.bounds = np.array([0, self.shape[0]]) if self.held else self._parts
        self._whole = np.empty(self.shape, dtype="float32") if self.held else None
        self._start()

    def _start(self) -> None:
        self._blocks: dict[int, Future[np.ndarray]] = {}
        self._reader: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self.expect(range(len(self)))

    def __getstate__(self) -> dict[str, object]:
        """Return the state without the blocks that were read and the thread that reads."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_blocks", "_reader", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._start()

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.bounds) - 1

    def read(self, block: int) -> np.ndarray:
        """Return one block, (stations, time, feature) float32; the next expected block is read ahead."""
        if self._whole is not None:
            return self._whole
        with self._lock:
            asked = self._hold(block)
        try:
            values = asked.result()
        except BaseException:
            with self._lock:  # a block that failed is read again at the next request
                self._blocks.clear()
            raise
        with self._lock:
            after = self._turn(block) + 1
            if 0 < after < len(self._sequence):
                self._hold(self._sequence[after])
        return values

    def in_turn(self, blocks: Iterable[int]) -> list[int]:
        """Return blocks in the order in which they are expected, so that none is released before it is used."""
        return sorted(blocks, key=self._turn)

    def scan(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield features (station, time, feature) and target (station, time) of all stations in parts: one pass over the cube."""
        for first, last in pairwise(map(int, self._parts)):
            values = (
                np.empty((last - first, *self.shape[1:]), "float32") if self._whole is None else self._whole[first:last]
            )
            yield values, _read_stations(self._ds, self._names, self._target, first, last, values)
        if self._whole is not None:
            del self._ds

    @property
    def whole(self) -> np.ndarray:
        """All stations as one array, if they are in memory."""
        if self._whole is None:
            raise SmgeoError(
                "the features are read block by block and are not in memory as one array; use batches or to_keras, or make the windows "
                "with in_memory=True"
            )
        return self._whole

    def expect(self, sequence: Iterable[int]) -> None:
        """Set the order in which blocks will be requested: the next is read ahead, and the first are released first."""
        with self._lock:
            self._sequence = [int(b) for b in sequence]
            self._place = {b: i for i, b in enumerate(self._sequence)}
            soon = set(self._sequence[: self._keep])
            self._blocks = {b: held for b, held in self._blocks.items() if b in soon}

    def _turn(self, block: int) -> int:
        """Return the position of a block in the expected order; before all others if it is not expected."""
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
        _read_stations(self._ds, self._names, None, first, last, out)
        return out

    def copy(self) -> Series:
        """Return the same features, with separate blocks if they are read."""
        other = copy.copy(self)
        other._start()
        return other


def _read_stations(
    ds: xr.Dataset, names: Sequence[str], target: str | None, first: int, last: int, out: np.ndarray
) -> np.ndarray | None:
    """Read features of stations `first` to `last` into `out`; return the target. They are computed together, as they may share chunks."""
    parts = []
    for name in [*names, *([target] if target else [])]:
        variable = ds.variables[name]
        variable = variable.transpose(*(d for d in STATION_DIMS if d in variable.dims))
        parts.append(variable[first:last] if "station" in variable.dims else variable)
    arrays = [p.values[:, None] if p.dims == ("station",) else p.values for p in compute(*parts)]
    whole = [np.broadcast_to(a, out.shape[:2]) for a in arrays]
    _stack(whole[: len(names)], out)
    return whole[-1].astype("float32", copy=False) if target else None


def _join_chunks(ds: xr.Dataset, names: Sequence[str]) -> np.ndarray:
    """Return bounds of blocks of stations: the common bounds of the chunks of all variables, joined up to a size."""
    stations = ds.sizes["station"]
    size = 4 * ds.sizes["time"] * len(names)
    chunks = [v.chunksizes["station"] for v in (ds.variables[n] for n in names) if "station" in v.chunksizes]
    if not chunks:
        step = max(int(_BLOCK_BYTES // max(size, 1)), 1)
        return np.array([*range(0, max(stations, 1), step), stations])
    common = set.intersection(*(set(np.cumsum(c).tolist()) for c in chunks))
    bounds, last = [0], 0
    for bound in sorted(common):
        if last > bounds[-1] and (bound - bounds[-1]) * size > _BLOCK_BYTES:
            bounds.append(last)
        last = bound
    return np.array([*bounds, stations])


def shuffle_blocks(sizes: Sequence[int], buffer: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle rows so that only `buffer` blocks are needed at a time; also return the order in which blocks are needed.

    Blocks are in random order. The rows of each block are shuffled and spread over the `buffer` rounds in which it is in
    memory (the first blocks over fewer rounds). The rows of a round, from `buffer` blocks, are shuffled together. So a batch
    is a random sample of `buffer` blocks. With one block this is a plain permutation.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each block; row numbers continue from block to block.
    buffer : int
        Number of blocks to mix.
    rng : numpy.random.Generator
        Source of randomness.

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
