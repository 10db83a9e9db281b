"""Index of windows: the station and last day of each window, its target, and the days that count in whole series."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from smgeo.errors import SmgeoError
from smgeo.prepare.series import Series
from smgeo.prepare.window_kernels import find_complete


@dataclass(frozen=True)
class WindowRule:
    """Rule of which windows there are.

    Attributes
    ----------
    length : int
        Days in a window.
    missing : float
        Share of a window's values that may be missing.
    has_target : bool
        A window's last day needs a value of the target.
    sequence : bool
        List whole series, with a mask of the days on which a window ends.
    filled : bool
        Missing values are replaced when windows are copied out.
    ends : sequence of int, optional
        Positions on the time axis on which windows may end; all by default.
    """

    length: int
    missing: float
    has_target: bool
    sequence: bool
    filled: bool
    ends: Sequence[int] | None = None


@dataclass(frozen=True)
class WindowIndex:
    """Station and last day of each window of a station cube, in the order of the cube.

    Attributes
    ----------
    offsets : numpy.ndarray
        (stations + 1,) int64: number of windows before each station, and in total.
    last_days : numpy.ndarray
        (windows,) whole numbers of the smallest type: position of each window's last day.
    span : int
        Days in a window; in sequence mode, days in a series or a piece of one.
    lacking : numpy.ndarray
        (stations,) bool: stations without any value of one of the features.
    y : numpy.ndarray or None
        float32, (windows,); in sequence mode (windows, span), 0 where `mask` is False.
    mask : numpy.ndarray or None
        In sequence mode, (windows, span) bool: days that count.
    """

    offsets: np.ndarray
    last_days: np.ndarray
    span: int
    lacking: np.ndarray
    y: np.ndarray | None
    mask: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def per_station(self) -> np.ndarray:
        """Number of windows of each station."""
        return np.diff(self.offsets)

    @property
    def stations(self) -> np.ndarray:
        """Position in the cube of each window's station, int32."""
        return np.repeat(np.arange(len(self.offsets) - 1, dtype="int32"), self.per_station)

    @property
    def starts(self) -> np.ndarray:
        """Position of each window's first day, int64."""
        return self.last_days.astype(np.int64) - (self.span - 1)

    @property
    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the cube of the station and the day of each value that counts."""
        if self.mask is None:
            return self.stations, self.last_days.astype("int32")
        series, days = np.nonzero(self.mask)
        return self.stations[series], (self.starts[series] + days).astype("int32")

    def part(self, first: int, last: int) -> WindowIndex:
        """Return the index of the windows from `first` up to `last`."""
        return replace(
            self,
            offsets=np.clip(self.offsets, first, last) - first,
            last_days=self.last_days[first:last],
            y=None if self.y is None else self.y[first:last],
            mask=None if self.mask is None else self.mask[first:last],
        )

    def only(self, rows: np.ndarray) -> WindowIndex:
        """Return the index of the windows at `rows`, bool (windows,)."""
        counts = np.bincount(self.stations[rows], minlength=len(self.offsets) - 1)
        return replace(
            self,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            last_days=self.last_days[rows],
            y=None if self.y is None else self.y[rows],
            mask=None if self.mask is None else self.mask[rows],
        )

    def crop(self, days: int, back: int) -> WindowIndex:
        """Cut whole series into pieces in which at most `days` days count, after `back` days that do not count."""
        assert self.mask is not None
        whole = self.span
        span = min(days + back, whole)
        starts = np.unique(np.minimum(np.arange(0, max(whole - back, 1), days), whole - span))
        # First day that counts in each piece: the end of the piece before it.
        counted = np.concatenate([[0], starts[:-1] + span])
        series = np.repeat(np.arange(len(self)), len(starts))
        begin = np.tile(starts, len(self))
        at = begin[:, None] + np.arange(span)
        mask = self.mask[series[:, None], at] & (at >= np.tile(counted, len(self))[:, None])
        kept = mask.any(axis=1)
        counts = np.zeros(len(self.offsets) - 1, dtype=np.int64)
        np.add.at(counts, self.stations[series[kept]], 1)
        mask = mask[kept]
        return replace(
            self,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            last_days=begin[kept] + span - 1,
            span=span,
            y=None if self.y is None else np.where(mask, self.y[series[:, None], at][kept], np.float32(0)),
            mask=mask,
        )


class _Part(NamedTuple):
    """Some stations of the cube: days on which a window ends and the target, (station, time) each; lacking stations."""

    complete: np.ndarray
    observed: np.ndarray | None
    lacking: np.ndarray


def build_index(series: Series, rule: WindowRule, progress: Callable[[int, int], None] | None = None) -> WindowIndex:
    """Find all windows in one pass over the cube; `progress` is called with (stations done, total stations)."""
    parts = _find_ends(series, rule, progress)
    stations, days, _ = series.shape
    return _list_series(parts, days, rule) if rule.sequence else _list_windows(parts, stations, days, rule)


def _find_ends(series: Series, rule: WindowRule, progress: Callable[[int, int], None] | None) -> Iterator[_Part]:
    stations, days, features = series.shape
    chosen = np.ones(days, dtype=bool) if rule.ends is None else np.isin(np.arange(days), list(rule.ends))
    # A little slack, because a share times a count need not be exact in binary.
    allowed = rule.missing * rule.length * features + 1e-9
    done = 0
    for base, observed in series.scan():
        complete, present, gaps = find_complete(base, rule.length, allowed)
        complete &= chosen
        if observed is not None:
            complete &= np.isfinite(observed)
        if rule.sequence and not rule.filled and gaps[complete.any(axis=1)].any():
            raise SmgeoError(
                "mode='sequence' returns whole series, but the features have gaps; pass `fill`, one finite number for each of the "
                f"{features} features (their means at the training stations)"
            )
        yield _Part(complete, observed, np.logical_not(present.all(axis=1)))
        done += len(base)
        if progress:
            progress(done, stations)


def _list_windows(parts: Iterator[_Part], stations: int, days: int, rule: WindowRule) -> WindowIndex:
    # Room for every day of every station; memory that is not written to is not used. The smallest type, because there may be
    # a hundred million windows.
    last_days = np.empty(stations * days, dtype=np.min_scalar_type(days))
    y = np.empty(stations * days, dtype="float32")
    counts, lacking = [np.zeros(1, dtype=np.int64)], [np.zeros(0, dtype=bool)]
    filled = 0
    for part in parts:
        counts.append(part.complete.sum(axis=1))
        lacking.append(part.lacking)
        found = slice(filled, filled + int(counts[-1].sum()))
        last_days[found] = np.nonzero(part.complete)[1]
        if part.observed is not None:
            y[found] = part.observed[part.complete]
        filled = found.stop
    offsets = np.cumsum(np.concatenate(counts))
    return WindowIndex(
        offsets, last_days[:filled], rule.length, np.concatenate(lacking), y[:filled] if rule.has_target else None
    )


def _list_series(parts: Iterator[_Part], days: int, rule: WindowRule) -> WindowIndex:
    counts, lacking = [np.zeros(1, dtype=np.int64)], [np.zeros(0, dtype=bool)]
    masks, y = [], []
    for part in parts:
        kept = np.asarray(part.complete.any(axis=1))
        counts.append(kept.astype(np.int64))
        lacking.append(part.lacking)
        masks.append(part.complete[kept])
        if part.observed is not None:
            y.append(np.where(part.complete, part.observed, np.float32(0))[kept])
    offsets = np.cumsum(np.concatenate(counts))
    return WindowIndex(
        offsets,
        np.full(int(offsets[-1]), days - 1),
        days,
        np.concatenate(lacking),
        np.concatenate(y) if rule.has_target else None,
        np.concatenate(masks),
    )
