"""Windows: the days that lead up to a value of the target, by index arithmetic over a station cube."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast

import numpy as np
import xarray as xr

from smgeo.cube.schema import check_daily, is_grid, text_of, units_of
from smgeo.errors import SmgeoError, nearest
from smgeo.prepare import feeds
from smgeo.prepare.series import Series, shuffle_blocks
from smgeo.prepare.steps import Preparation, steps_of
from smgeo.prepare.window_kernels import copy_windows, copy_windows_filled, find_complete
from smgeo.recipe.preparation import WINDOW_DAYS


class Windows:
    """All windows of `length` days that end on a day with a target and are complete enough.

    An index of (station, last day) over the features of the cube: what windows share is not copied until a batch
    asks for it. The features are held once, as one array (station, time, feature); those of a lazy cube of more than 4 GB
    are read from it a block of stations at a time, ahead of the batches that need them.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube, prepared, lazy or not. It is read once here, to find the windows.
    features : sequence of str
        Variables, in the order of the channels.
    target : str or None
        Variable of `y`; None gives every window, whether or not its last day has a target.
    length : int
        Days in a window; the last one is the target's day. 1 gives rows.
    missing : float
        Share of a window's `length` × features values that may be missing; 0 keeps complete windows alone.
    fill : sequence of float, optional
        What stands for a missing value of each feature, in the units of `ds`; needed if `missing` > 0 (recipes
        give the means of the training stations).
    mode : {"window", "sequence"}
        "sequence" gives each station's whole series instead, with a mask of the days that count: those on which a
        window of `length` days would end. For models that are trained sequence-to-sequence.
    ends : sequence of int, optional
        Keep only windows that end on these positions of the time axis.
    in_memory : bool, optional
        Whether the features are held, or read block by block; by default held unless `ds` is lazy and larger than 4 GB.
        Blocks are the cube's chunks along `station`, joined up to 64 MB: keep whole series in a chunk.
    buffer : int
        Blocks from which batches are mixed where they are read; peak memory is `buffer` + 2 of them.
    progress : callable, optional
        Called with (stations done, stations in all) while the cube is read for the index.

    Attributes
    ----------
    features, channels : list of str
        With `missing` > 0, `channels` holds the features and then `"<feature> observed"`, 1 where observed.
    left_out : list of str
        Stations where one of the features has no value at all. With `missing` 0 they give no window, as in the
        study; above 0 they do, and the masks say what was not there.
    shape : (int, int, int)
        Windows, length, channels; in sequence mode stations, days, channels.
    y : numpy.ndarray of float32 or None
        (windows,); in sequence mode (stations, days), 0 where `mask` is False.
    mask : numpy.ndarray of bool or None
        (stations, days) in sequence mode.
    station_index, time_index : numpy.ndarray of int32
        Of each window: position in `ds` of its station and of its last day.

    Raises
    ------
    SmgeoError
        If a feature or the target is not in `ds`, time is not daily, or missing values have no `fill`.

    Examples
    --------
    >>> import pandas as pd
    >>> time = pd.date_range("2020-01-01", periods=5)
    >>> rain, sm = np.array([[0.0, 1, 2, 3, 4]]), np.array([[0.1, 0.2, 0.3, np.nan, 0.5]])
    >>> ds = xr.Dataset({"rain": (("station", "time"), rain), "sm": (("station", "time"), sm)},
    ...                 {"station": ["N/a"], "time": time})
    >>> w = Windows(ds, ["rain"], length=3)
    >>> len(w), w[1][0].ravel().tolist(), float(w[1][1])
    (2, [2.0, 3.0, 4.0], 0.5)
    """

    def __init__(
        self,
        ds: xr.Dataset,
        features: Sequence[str],
        target: str | None = "sm",
        length: int = WINDOW_DAYS,
        missing: float = 0.0,
        fill: Sequence[float] | None = None,
        *,
        mode: Literal["window", "sequence"] = "window",
        ends: Sequence[int] | None = None,
        in_memory: bool | None = None,
        buffer: int = 4,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        _check(ds, features, target, length, missing, fill, mode, ends, buffer)
        self.features = list(features)
        self.target, self.length, self.missing, self.mode = target, int(length), float(missing), mode
        # Complete windows need no fill; whole series do wherever they have a gap.
        needed = fill is not None and (missing > 0 or mode == "sequence")
        self.fill = [float(v) for v in fill or ()] if needed else None
        self.units = units_of(ds, self.features)
        self._target_units = units_of(ds, [target])[target] if target else None
        self._steps = steps_of(ds)
        self._buffer = buffer
        self._series = Series(ds, self.features, target, in_memory=in_memory, keep=buffer)
        self._stations = text_of(ds["station"])
        self._days = int(ds.sizes["time"])
        self._span = self._days if mode == "sequence" else self.length
        self.left_out: list[str] = []
        self.y: np.ndarray | None = None
        self.mask: np.ndarray | None = None
        parts = self._complete_parts(ends, progress)
        if mode == "sequence":
            self._list_sequences(parts)
        else:
            self._list_windows(parts)

    # ---- the index

    def _complete_parts(
        self, ends: Sequence[int] | None, progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """(on which days a window ends, target if there is one), (station, time) each, part by part of the stations."""
        chosen = np.ones(self._days, dtype=bool) if ends is None else np.isin(np.arange(self._days), list(ends))
        allowed = self.missing * self.length * len(self.features)
        first = 0
        for base, observed in self._series.scan():
            last = first + len(base)
            # A little slack, because a share times a count need not be exact in binary.
            complete, present, gaps = find_complete(base, self.length, allowed + 1e-9)
            self.left_out += [str(s) for s in self._stations[first:last][~present.all(axis=1)]]
            complete &= chosen
            if observed is not None:
                complete &= np.isfinite(observed)
            if self.mode == "sequence" and self.fill is None and gaps[complete.any(axis=1)].any():
                raise SmgeoError(
                    "mode='sequence' gives whole series, and the features have gaps: give fill, one finite number for each of the "
                    f"{len(self.features)} features (their means at the training stations), to stand there"
                )
            yield complete, observed
            first = last
            if progress:
                progress(last, self._series.shape[0])

    def _list_windows(self, parts: Iterator[tuple[np.ndarray, np.ndarray | None]]) -> None:
        # Room for every day of every station; what of it is not written to takes no memory. The smallest type, because
        # there may be a hundred million windows.
        room = len(self._stations) * self._days
        days, y = np.empty(room, dtype=np.min_scalar_type(self._days)), np.empty(room, dtype="float32")
        counts: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]
        filled = 0
        for complete, targets in parts:
            counts.append(complete.sum(axis=1))
            found = slice(filled, filled + int(counts[-1].sum()))
            days[found] = np.nonzero(complete)[1]
            if targets is not None:
                y[found] = targets[complete]
            filled = found.stop
        self._offsets = np.cumsum(np.concatenate(counts))
        self._last_days = days[:filled]
        self.y = y[:filled] if self.target else None

    def _list_sequences(self, parts: Iterator[tuple[np.ndarray, np.ndarray | None]]) -> None:
        counts: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]
        masks, y = [], []
        for complete, targets in parts:
            kept = np.asarray(complete.any(axis=1))
            counts.append(kept)
            masks.append(complete[kept])
            if targets is not None:
                y.append(np.where(complete, targets, np.float32(0))[kept])
        self._offsets = np.cumsum(np.concatenate(counts))
        self._last_days = np.full(int(self._offsets[-1]), self._days - 1)
        self.mask = np.concatenate(masks)
        self.y = np.concatenate(y) if self.target else None

    @property
    def station_index(self) -> np.ndarray:
        """Position in the cube of each window's station."""
        return np.repeat(np.arange(len(self._stations), dtype="int32"), np.diff(self._offsets))

    @property
    def time_index(self) -> np.ndarray:
        """Position in the cube of each window's last day."""
        return self._last_days.astype("int32")

    @property
    def count(self) -> int:
        """How many values of the target count: windows, or in sequence mode days of the mask."""
        return len(self) if self.mask is None else int(self.mask.sum())

    def pick(self, values: np.ndarray) -> np.ndarray:
        """Of values in the shape of `y`, those that count, one a target: all of them, or in sequence mode those on the mask's days."""
        return values if self.mask is None else values[self.mask]

    @property
    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the cube of the station and the day of each value that `pick` gives."""
        if self.mask is None:
            return self.station_index, self.time_index
        series, days = np.nonzero(self.mask)
        first = self._last_days.astype(np.int64) - (self.shape[1] - 1)
        return self.station_index[series], (first[series] + days).astype("int32")

    @property
    def stations(self) -> np.ndarray:
        """Ids of the stations that give windows, in the order of the cube."""
        return self._stations[np.diff(self._offsets) > 0]

    @property
    def days(self) -> int:
        """Days of the cube."""
        return self._days

    def stations_at(self, positions: np.ndarray) -> np.ndarray:
        """Ids of the stations at these positions in the cube."""
        return self._stations[positions]

    @property
    def groups(self) -> np.ndarray:
        """Station id of each window, as scikit-learn's `groups`."""
        return self._stations[self.station_index]

    @property
    def channels(self) -> list[str]:
        """Names along the last axis of `x`."""
        return self.features + ([f"{f} observed" for f in self.features] if self.missing > 0 else [])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(windows, length, channels)."""
        return len(self), self._span, len(self.channels)

    @property
    def preparation(self) -> Preparation:
        """All that is needed to make such windows of other data, as JSON types."""
        return {
            "features": self.features,
            "units": self.units,
            "target": cast(str, self.target),  # None only for windows that no model is fitted on
            "target_units": cast(str, self._target_units),
            "length": self.length,
            "mode": self.mode,
            "missing": self.missing,
            "fill": self.fill,
            "steps": self._steps,
        }

    def shard(self, rank: int, world_size: int, *, equal: bool = False) -> Windows:
        """The part of one worker of several: a contiguous run of the index, so that each reads its own blocks only.

        Parameters
        ----------
        rank, world_size : int
            Which worker, from 0, of how many.
        equal : bool
            Leave the last `len(self) % world_size` windows out, so that all workers make the same number of steps;
            without it parts differ by at most one window and hold each window once.

        Returns
        -------
        Windows
            Shares the features with this one, and sees no more than its part.
        """
        if not 0 <= rank < world_size:
            raise SmgeoError(f"shard: rank must lie in 0 to world_size - 1; got rank={rank}, world_size={world_size}")
        n = len(self) - (len(self) % world_size if equal else 0)
        first, last = n * rank // world_size, n * (rank + 1) // world_size
        part = copy.copy(self)
        part._series = self._series.copy()
        part._offsets = np.clip(self._offsets, first, last) - first
        part._last_days = self._last_days[first:last]
        part.y = None if self.y is None else self.y[first:last]
        part.mask = None if self.mask is None else self.mask[first:last]
        return part

    def crop(self, days: int) -> Windows:
        """Whole series cut into pieces in which at most `days` days count, for training along them.

        A piece begins with the `length` - 1 days that a window looks back, which do not count in it (at the start of a series
        they do not count anyway): its shape is (`days` + `length` - 1, channels), or the whole series where that is shorter. Each day that
        counts does so in one piece. The last piece ends on the last day. Pieces without a day that counts are left out.

        Raises
        ------
        SmgeoError
            If this is not in sequence mode.
        """
        if self.mask is None or self._span != self._days:
            raise SmgeoError("crop cuts whole series: make them with Windows(..., mode='sequence')")
        back = self.length - 1
        span = min(days + back, self._days)
        starts = np.unique(np.minimum(np.arange(0, max(self._days - back, 1), days), self._days - span))
        # From which day on each piece counts: where the piece before it ends.
        counted = np.concatenate([[0], starts[:-1] + span])
        series = np.repeat(np.arange(len(self)), len(starts))
        begin = np.tile(starts, len(self))
        at = begin[:, None] + np.arange(span)
        mask = self.mask[series[:, None], at] & (at >= np.tile(counted, len(self))[:, None])
        kept = mask.any(axis=1)
        part = copy.copy(self)
        part._series, part._span = self._series.copy(), span
        counts = np.zeros(len(self._stations), dtype=np.int64)
        np.add.at(counts, self.station_index[series[kept]], 1)
        part._offsets = np.concatenate([[0], np.cumsum(counts)])
        part._last_days = begin[kept] + span - 1
        part.mask = mask[kept]
        part.y = None if self.y is None else np.where(part.mask, self.y[series[:, None], at][kept], np.float32(0))
        return part

    # ---- values

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def gather(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The windows at positions `rows`: (len(rows), length, channels) float32, into `out` where it is given."""
        rows = np.asarray(rows)
        if rows.dtype.kind not in "iu" or (rows.size and not 0 <= rows.min() <= rows.max() < len(self)):
            raise IndexError(f"rows must be whole numbers from 0 to {len(self) - 1}, the positions of windows")
        if out is None:
            out = np.empty((len(rows), *self.shape[1:]), dtype="float32")
        stations = np.searchsorted(self._offsets, rows, side="right") - 1
        starts = self._last_days[rows].astype(np.int64) - (out.shape[1] - 1)
        blocks = np.searchsorted(self._series.bounds, stations, side="right") - 1
        # One block after the other, because rows from all over the cube need not fit into memory together with it.
        for block in self._series.in_turn(np.unique(blocks).tolist()):
            base, places = self._series.read(block), np.flatnonzero(blocks == block)
            at = stations[places] - self._series.bounds[block], starts[places], places
            if self.fill is None:
                copy_windows(base, *at, out)
            else:
                copy_windows_filled(base, *at, np.array(self.fill, dtype="float32"), out)
        return out

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Windows and their y at positions `rows`, and in sequence mode the mask."""
        x = self.gather(rows)
        mask = () if self.mask is None else (self.mask[rows],)
        y = self.y[rows] if self.y is not None else np.full(mask[0].shape if mask else len(x), np.nan, dtype="float32")
        return (x, y, *mask)

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"window {i} of {len(self)}")
        return tuple(part[0] for part in self.batch(np.array([i % len(self)])))

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Positions in the order of an epoch: shuffled by `rng`, or as they are. Batches in this order read each block once.

        Held in memory, every order is as likely as every other. Read block by block, a batch is mixed from `buffer` blocks:
        see `smgeo.prepare.series.shuffle_blocks`.
        """
        blocks = self._offsets[self._series.bounds]
        if rng is None:
            rows, sequence = np.arange(len(self), dtype=np.min_scalar_type(len(self))), np.arange(len(self._series))
        else:
            rows, sequence = shuffle_blocks(np.diff(blocks), self._buffer, rng)
        # Blocks without windows, in a shard those of other workers, are not read.
        self._series.expect(int(b) for b in sequence if blocks[b + 1] > blocks[b])
        return rows

    def batches(self, size: int, shuffle: bool = True, seed: int = 0) -> Iterator[tuple[np.ndarray, ...]]:
        """Batches of `size` windows (the last may be smaller), each window once; in order without `shuffle`.

        Yields
        ------
        x : (n, length, channels) float32
        y : (n,) float32
        mask : (n, days) bool
            In sequence mode only; then x is (n, days, channels) and y (n, days).
        """
        if size < 1:
            raise SmgeoError(f"a batch has 1 window or more; got size={size}")
        order = self.order(np.random.default_rng(seed) if shuffle else None)
        for start in range(0, len(self), size):
            yield self.batch(order[start : start + size])

    # ---- for libraries

    def to_arrays(self, flatten: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """All windows at once, for scikit-learn: X (n, length × channels) float32 and y; unflattened (n, length, channels).

        This copies what windows share: `length` times the memory of the cube.
        """
        x = self.gather(np.arange(len(self)))
        return (x.reshape(len(x), -1) if flatten else x), self.y

    def get_feature_names_out(self) -> list[str]:
        """Names of the columns of `to_arrays()`: the channel and how many days before the window's last.

        As scikit-learn names it; `["rain lag 2", "rain lag 1", "rain lag 0"]` for three days of rain.
        """
        length = self.shape[1]
        return [f"{c} lag {length - 1 - d}" for d in range(length) for c in self.channels]

    def flat_index(self) -> tuple[np.ndarray, np.ndarray]:
        """The features as rows of days (station × time, feature), and the row in which each window begins (int64).

        Raises
        ------
        SmgeoError
            If the features are read block by block.
        """
        base = self._series.whole
        first_days = self._last_days.astype(np.int64) - (self.shape[1] - 1)
        return base.reshape(-1, base.shape[2]), self.station_index.astype(np.int64) * self._days + first_days

    def to_keras(self, size: int, shuffle: bool = True, seed: int = 0) -> Any:
        """A `keras.utils.PyDataset` of batches, in another order each epoch; for every backend of Keras.

        In sequence mode y is (n, days, 1), and the mask is the weight of each day. Give it to Keras with
        `model.fit(windows.to_keras(256), shuffle=False)`: by default `fit` shuffles the batches once more, with a random
        state of its own, and features that are read block by block are then read many times.
        """
        return feeds.keras_batches(self, size, seed if shuffle else None)

    def to_tf(self, size: int, shuffle: bool = True, seed: int = 0) -> Any:
        """A `tf.data.Dataset` of one epoch's batches that gathers windows inside TensorFlow's graph, in another order each epoch.

        TensorFlow makes a copy of the features, and one more for a moment.

        Raises
        ------
        SmgeoError
            If the features are read block by block: then `to_keras` feeds both backends.
        """
        return feeds.tf_dataset(self, size, seed if shuffle else None)


def _check(
    ds: xr.Dataset,
    features: Sequence[str],
    target: str | None,
    length: int,
    missing: float,
    fill: Sequence[float] | None,
    mode: str,
    ends: Sequence[int] | None,
    buffer: int,
) -> None:
    if is_grid(ds):
        raise SmgeoError("Windows reads a station cube; for a grid cube use predict_map")
    days = len(check_daily(ds))
    if isinstance(features, str) or not features:
        raise SmgeoError(f"features must be a list of one variable or more; got {features!r}")
    for name in [*features, *([target] if target else [])]:
        if name not in ds:
            raise SmgeoError(f"{name!r} is not in the cube; {nearest(name, [str(v) for v in ds.data_vars])}")
        if ds[name].dtype.kind not in "fiub":
            raise SmgeoError(f"{name!r} holds {ds[name].dtype}, not numbers")
    if int(length) != length or length < 1 or not 0 <= missing < 1:
        raise SmgeoError(
            f"a window needs a whole length >= 1 and 0 <= missing < 1; got length={length}, missing={missing}"
        )
    if ends is not None and not all(isinstance(e, int | np.integer) and 0 <= e < days for e in ends):
        raise SmgeoError(f"ends must be positions on the time axis, 0 to {days - 1}; got {list(ends)[:5]}")
    if mode not in ("window", "sequence"):
        raise SmgeoError(f"mode must be 'window' or 'sequence'; got {mode!r}")
    if buffer < 1:
        raise SmgeoError(f"buffer must be 1 block or more; got {buffer}")
    if missing > 0 and fill is None:
        raise SmgeoError(
            f"missing={missing} needs fill: one finite number for each of the {len(features)} features (their means "
            "at the training stations, in the units of the cube)"
        )
    if fill is not None and (len(fill) != len(features) or not np.isfinite(fill).all()):
        raise SmgeoError(f"fill must be one finite number for each of the {len(features)} features; got {list(fill)}")
