"""Windows: the days that lead up to a value of the target, copied out of a station cube batch by batch.

A missing value in a window is the training mean, with a channel that says so. With `missing` 0 only complete windows are
used, as in the study; a station without any value of a feature then gives none, and is named.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import xarray as xr

from smgeo.bounds import check_arguments, checked
from smgeo.cube.schema import check_daily, is_grid, references_of, text_of, units_of
from smgeo.errors import SmgeoError, nearest
from smgeo.prepare import feeds
from smgeo.prepare.places import buffer_of, coordinates_of, group_numbers, near_stations
from smgeo.prepare.series import Series, shuffle_blocks
from smgeo.prepare.steps import Preparation, steps_of
from smgeo.prepare.window_index import WindowIndex, WindowRule, build_index
from smgeo.prepare.window_kernels import copy_windows, copy_windows_filled
from smgeo.recipe.preparation import WINDOW_DAYS

if TYPE_CHECKING:
    import tensorflow as tf


class Windows:
    """All windows of `length` days that end on a day with a target and are complete enough.

    This is an index of (station, last day) over the features of the cube. Days that windows share are not copied until a batch
    is requested. The features are kept in memory once, as one array (station, time, feature). Those of a lazy cube of more
    than 4 GB are read from it a block of stations at a time, ahead of the batches that need them.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube, prepared, lazy or not. It is read once here, to find the windows.
    features : sequence of str
        Variables, in the order of the channels.
    target : str or None
        Variable of `y`; with None there are windows on days without a target too.
    length : int
        Days in a window; the last one is the day of the target. 1 gives rows.
    missing : float
        Share of a window's `length` × features values that may be missing; 0 keeps only complete windows.
    fill : sequence of float, optional
        Replacement of missing values, one number per feature, in the units of `ds`. Required if `missing` > 0 (recipes use
        the means of the training stations).
    mode : {"window", "sequence"}
        "sequence" gives the whole series of each station, with a mask of the days that count: those on which a window of
        `length` days would end. For models that are trained sequence-to-sequence.
    ends : sequence of int, optional
        Positions on the time axis; only windows that end on these are kept.
    in_memory : bool, optional
        Keep the features in memory rather than read them block by block; by default True unless `ds` is lazy and larger than
        4 GB. Blocks are the cube's chunks along `station`, joined up to 64 MB: keep whole series in a chunk.
    buffer : int
        Number of blocks from which batches are mixed if blocks are read; peak memory is `buffer` + 2 of them.
    progress : callable, optional
        Called with (stations done, total stations) while the cube is read for the index.

    Attributes
    ----------
    features, channels : list of str
        With `missing` > 0, `channels` contains the features and then `"<feature> observed"`, 1 where observed.
    left_out : list of str
        Stations without any value of one of the features. With `missing` 0 they have no window, as in the study. Above 0
        they have windows, and the observed channels show the gaps.
    shape : (int, int, int)
        Windows, length, channels; in sequence mode stations, days, channels.
    y : numpy.ndarray of float32 or None
        (windows,); in sequence mode (stations, days), 0 where `mask` is False.
    mask : numpy.ndarray of bool or None
        (stations, days) in sequence mode.
    station_index, time_index : numpy.ndarray of int32
        Position in `ds` of each window's station, and of its last day.

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

    @checked
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
        self._references = references_of(ds, self.features)
        self._target_units = units_of(ds, [target])[target] if target else None
        self._steps = steps_of(ds)
        self._buffer = buffer
        self._series = Series(ds, self.features, target, in_memory=in_memory, keep=buffer)
        self._stations = text_of(ds["station"])
        self._degrees = coordinates_of(ds)
        self._coordinates = ds.drop_vars(list(ds.data_vars))
        rule = WindowRule(
            self.length, self.missing, target is not None, mode == "sequence", self.fill is not None, ends
        )
        self._use(build_index(self._series, rule, progress))
        self.left_out = [str(s) for s in self._stations[self._index.lacking]]

    def _use(self, index: WindowIndex) -> None:
        self._index, self.y, self.mask = index, index.y, index.mask

    def _with(self, index: WindowIndex) -> Windows:
        """Return windows of the same features with another index."""
        part = copy.copy(self)
        part._series = self._series.copy()
        part._use(index)
        return part

    # ---- the index

    @property
    def station_index(self) -> np.ndarray:
        """Position in the cube of each window's station."""
        return self._index.stations

    @property
    def time_index(self) -> np.ndarray:
        """Position in the cube of each window's last day."""
        return self._index.last_days.astype("int32")

    @property
    def count(self) -> int:
        """Number of values of the target that count: windows, or in sequence mode days of the mask."""
        return len(self) if self.mask is None else int(self.mask.sum())

    def pick(self, values: np.ndarray) -> np.ndarray:
        """Select the values that count from an array in the shape of `y`: all of them, or in sequence mode the mask's days."""
        if self.mask is None:
            return values
        picked: np.ndarray = values[self.mask]
        return picked

    @property
    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the cube of the station and the day of each value that `pick` selects."""
        return self._index.targets

    @property
    def stations(self) -> np.ndarray:
        """Ids of the stations with windows, in the order of the cube."""
        return self._stations[self._index.per_station > 0]

    @property
    def days(self) -> int:
        """Number of days of the cube."""
        return self._series.shape[1]

    @property
    def places(self) -> np.ndarray:
        """Latitude and longitude of the stations with windows, degrees, (n, 2); NaN where unknown."""
        degrees: np.ndarray = self._degrees[self._index.per_station > 0]
        return degrees

    def stations_at(self, positions: np.ndarray) -> np.ndarray:
        """Return the ids of the stations at these positions in the cube."""
        ids: np.ndarray = self._stations[positions]
        return ids

    @property
    def groups(self) -> np.ndarray:
        """Station id of each window, for scikit-learn's `groups`."""
        return self.stations_at(self.station_index)

    @property
    def channels(self) -> list[str]:
        """Names along the last axis of `x`."""
        return self.features + ([f"{f} observed" for f in self.features] if self.missing > 0 else [])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(windows, length, channels)."""
        return len(self), self._index.span, len(self.channels)

    @property
    def preparation(self) -> Preparation:
        """All that is needed to make such windows from other data, as JSON types."""
        made: Preparation = {
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
        if self._references:  # only if some feature has one, so that other models' files stay as they are
            made["references"] = self._references
        return made

    def shard(self, rank: int, world_size: int, *, equal: bool = False) -> Windows:
        """Return the part of one of several workers: a contiguous run of the index, so that each reads only its own blocks.

        Parameters
        ----------
        rank, world_size : int
            Number of the worker, from 0, and number of workers.
        equal : bool
            Leave out the last `len(self) % world_size` windows, so that all workers make the same number of steps. Otherwise
            parts differ by at most one window, and each window is in one part.

        Returns
        -------
        Windows
            Shares the features with this one.
        """
        if not 0 <= rank < world_size:
            raise SmgeoError(f"shard: rank must be from 0 to world_size - 1; got rank={rank}, world_size={world_size}")
        n = len(self) - (len(self) % world_size if equal else 0)
        return self._with(self._index.part(n * rank // world_size, n * (rank + 1) // world_size))

    def only(self, rows: np.ndarray) -> Windows:
        """Return the windows at `rows`, bool (windows,); they share the features with these."""
        chosen = np.asarray(rows)
        if chosen.dtype != bool or chosen.shape != (len(self),):
            raise SmgeoError(f"only: rows must be True or False for each of the {len(self)} windows")
        return self._with(self._index.only(chosen))

    def place_folds(self, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return which windows each fold trains on, and which it holds out, bool (windows,).

        Held out are whole places, or groups of `group_stations`, dealt out by the seed; stations within its buffer around them are in neither.

        Raises
        ------
        SmgeoError
            If there are fewer places with windows than folds.
        """
        station = self.station_index
        group = group_numbers(self._coordinates)
        known = np.unique(group[station])
        if len(known) < folds:
            raise SmgeoError(
                f"{folds} folds of places, and there are windows of {len(known)} places (or groups of stations); give more stations, or use "
                "fewer folds"
            )
        fold = np.full(group.max() + 1, -1)
        fold[known] = np.random.default_rng(seed).permutation(len(known)) % folds
        made = []
        for k in range(folds):
            held = fold[group] == k
            near = near_stations(self._degrees, held, buffer_of(self._coordinates))
            made.append(((~held & ~near)[station], held[station]))
        return made

    def crop(self, days: int) -> Windows:
        """Cut whole series into pieces in which at most `days` days count, to train along them.

        A piece begins with the `length` - 1 days that a window looks back, which do not count in it (at the start of a series
        they never count). Its shape is (`days` + `length` - 1, channels), or the whole series if that is shorter. Each day
        that counts does so in one piece. The last piece ends on the last day. Pieces without a day that counts are left out.

        Raises
        ------
        SmgeoError
            If this is not in sequence mode, or is cut already.
        """
        if self.mask is None or self._index.span != self.days:
            raise SmgeoError("crop cuts whole series: make them with Windows(..., mode='sequence')")
        return self._with(self._index.crop(days, self.length - 1))

    # ---- values

    def __len__(self) -> int:
        return len(self._index)

    def gather(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the windows at positions `rows`: (len(rows), length, channels) float32, in `out` if it is given."""
        rows = np.asarray(rows)
        if rows.dtype.kind not in "iu" or (rows.size and not 0 <= rows.min() <= rows.max() < len(self)):
            raise IndexError(f"rows must be integers from 0 to {len(self) - 1}, the positions of windows")
        if out is None:
            out = np.empty((len(rows), *self.shape[1:]), dtype="float32")
        stations = np.searchsorted(self._index.offsets, rows, side="right") - 1
        starts = self._index.last_days[rows].astype(np.int64) - (out.shape[1] - 1)
        blocks = np.searchsorted(self._series.bounds, stations, side="right") - 1
        # One block at a time, because rows from all over the cube need not fit into memory together.
        for block in self._series.in_turn(np.unique(blocks).tolist()):
            base, places = self._series.read(block), np.flatnonzero(blocks == block)
            at = stations[places] - self._series.bounds[block], starts[places], places
            if self.fill is None:
                copy_windows(base, *at, out)
            else:
                copy_windows_filled(base, *at, np.array(self.fill, dtype="float32"), out)
        return out

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the windows and their y at positions `rows`, and in sequence mode the mask."""
        x = self.gather(rows)
        mask = () if self.mask is None else (self.mask[rows],)
        y = self.y[rows] if self.y is not None else np.full(mask[0].shape if mask else len(x), np.nan, dtype="float32")
        return (x, y, *mask)

    def __getitem__(self, i: int) -> tuple[np.ndarray, ...]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"window {i} of {len(self)}")
        return tuple(part[0] for part in self.batch(np.array([i % len(self)])))

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return positions in the order of an epoch: shuffled by `rng`, or unchanged. Batches in this order read each block once.

        If the features are in memory, every order is equally likely. If they are read block by block, a batch is mixed from
        `buffer` blocks; see `smgeo.prepare.series.shuffle_blocks`.
        """
        blocks = self._index.offsets[self._series.bounds]
        if rng is None:
            rows, sequence = np.arange(len(self), dtype=np.min_scalar_type(len(self))), np.arange(len(self._series))
        else:
            rows, sequence = shuffle_blocks(np.diff(blocks), self._buffer, rng)
        # Blocks without windows are not read; in a shard these are the blocks of other workers.
        self._series.expect(int(b) for b in sequence if blocks[b + 1] > blocks[b])
        return rows

    @checked
    def batches(self, size: int, shuffle: bool = True, seed: int = 0) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield batches of `size` windows (the last may be smaller), each window once; in order without `shuffle`.

        Yields
        ------
        x : (n, length, channels) float32
        y : (n,) float32
        mask : (n, days) bool
            Only in sequence mode; then x is (n, days, channels) and y (n, days).
        """
        check_arguments("batches", size=size, seed=seed)
        order = self.order(np.random.default_rng(seed) if shuffle else None)
        for start in range(0, len(self), size):
            yield self.batch(order[start : start + size])

    # ---- for libraries

    def to_arrays(self, flatten: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """Return all windows at once, for scikit-learn: X (n, length × channels) float32 and y; unflattened (n, length, channels).

        Days that windows share are copied: this needs `length` times the memory of the cube.
        """
        x = self.gather(np.arange(len(self)))
        return (x.reshape(len(x), -1) if flatten else x), self.y

    def get_feature_names_out(self) -> list[str]:
        """Return the names of the columns of `to_arrays()`: the channel, and the days before the window's last day.

        For three days of rain: `["rain lag 2", "rain lag 1", "rain lag 0"]`. The method has scikit-learn's name.
        """
        length = self.shape[1]
        return [f"{c} lag {length - 1 - d}" for d in range(length) for c in self.channels]

    def flat_index(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the features as rows of days (station × time, feature), and the row in which each window begins (int64).

        Raises
        ------
        SmgeoError
            If the features are read block by block.
        """
        base = self._series.whole
        return base.reshape(-1, base.shape[2]), self.station_index.astype(np.int64) * self.days + self._index.starts

    def to_keras(self, size: int, shuffle: bool = True, seed: int = 0) -> feeds.KerasBatches:
        """Return a `keras.utils.PyDataset` of batches, in another order each epoch, for every backend of Keras.

        In sequence mode y is (n, days, 1), and the mask is the weight of each day. Use it with
        `model.fit(windows.to_keras(256), shuffle=False)`: by default `fit` shuffles the batches again with its own random
        state, and features that are read block by block are then read many times.
        """
        return feeds.keras_batches(self, size, seed if shuffle else None)

    def to_tf(self, size: int, shuffle: bool = True, seed: int = 0) -> tf.data.Dataset:
        """Return a `tf.data.Dataset` of one epoch's batches, gathered inside TensorFlow's graph, in another order each epoch.

        TensorFlow copies the features, with a second copy for a short time.

        Raises
        ------
        SmgeoError
            If the features are read block by block; use `to_keras`, which works with all backends.
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
        raise SmgeoError("Windows needs a station cube; for a grid cube use predict_map")
    days = len(check_daily(ds))
    if isinstance(features, str) or not features:
        raise SmgeoError(f"features must be a list of one variable or more; got {features!r}")
    for name in [*features, *([target] if target is not None else [])]:
        if name not in ds:
            raise SmgeoError(f"{name!r} is not in the cube; {nearest(name, [str(v) for v in ds.data_vars])}")
        if ds[name].dtype.kind not in "fiub":
            raise SmgeoError(f"{name!r} has dtype {ds[name].dtype}, but must be numeric")
    check_arguments("Windows", length=length, missing=missing, buffer=buffer)
    if ends is not None and not all(isinstance(e, int | np.integer) and 0 <= e < days for e in ends):
        raise SmgeoError(f"ends must be positions on the time axis, 0 to {days - 1}; got {list(ends)[:5]}")
    if mode not in ("window", "sequence"):
        raise SmgeoError(f"mode must be 'window' or 'sequence'; got {mode!r}")
    if missing > 0 and fill is None:
        raise SmgeoError(
            f"missing={missing} needs fill: one finite number for each of the {len(features)} features (their means at the "
            "training stations, in the units of the cube)"
        )
    if fill is not None and (len(fill) != len(features) or not np.isfinite(fill).all()):
        raise SmgeoError(f"fill must be one finite number for each of the {len(features)} features; got {list(fill)}")
