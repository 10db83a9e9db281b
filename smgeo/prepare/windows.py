"""Windows: the days that lead up to a value of the target, by index arithmetic over a station cube."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numba
import numpy as np
import xarray as xr

from smgeo.cube import STATION_DIMS, check_daily, is_grid, units_of
from smgeo.errors import SmgeoError, nearest
from smgeo.prepare.steps import steps_of


@numba.njit(cache=True, nogil=True)
def _gather(base: np.ndarray, observed: np.ndarray, rows: np.ndarray, ends: np.ndarray, out: np.ndarray) -> None:
    """Copy window i, the days up to and including `ends[i]` of series `rows[i]`, to out[i]; masks behind features."""
    length, features = out.shape[1], base.shape[2]
    masks = out.shape[2] > features
    for i in range(rows.size):
        start = ends[i] - length + 1
        for d in range(length):
            for f in range(features):
                out[i, d, f] = base[rows[i], start + d, f]
                if masks:
                    out[i, d, features + f] = observed[rows[i], start + d, f]


class Windows:
    """All windows of `length` days that end on a day with a target and are complete enough.

    The cube's features are held once, as one array (station, time, feature); overlapping windows are not copied
    until a batch asks for them.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube, prepared; its values are loaded here, one variable at a time.
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
    ends : sequence of int, optional
        Keep only windows that end on these positions of the time axis.

    Attributes
    ----------
    features, channels : list of str
        With `missing` > 0, `channels` holds the features and then `"<feature> observed"`, 1 where observed.
    left_out : list of str
        Stations where one of the features has no value at all. With `missing` 0 they give no window, as in the
        study; above 0 they do, and the masks say what was not there.
    shape : (int, int, int)
        Windows, length, channels.
    station_index, time_index : numpy.ndarray of int32
        Of each window: position in `ds` of its station and of its last day.

    Raises
    ------
    SmgeoError
        If a feature or the target is not in `ds`, time is not daily, or `missing` > 0 lacks `fill`.

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
        length: int = 30,
        missing: float = 0.0,
        fill: Sequence[float] | None = None,
        *,
        ends: Sequence[int] | None = None,
    ) -> None:
        if is_grid(ds):
            raise SmgeoError("Windows reads a station cube; for a grid cube use predict_map")
        check_daily(ds)
        self.features = list(features)
        for name in [*self.features, *([target] if target else [])]:
            if name not in ds:
                raise SmgeoError(f"{name!r} is not in the cube; {nearest(name, [str(v) for v in ds.data_vars])}")
        if length < 1 or not 0 <= missing < 1:
            raise SmgeoError(f"a window needs length >= 1 and 0 <= missing < 1; got length={length}, missing={missing}")
        if missing > 0 and (fill is None or len(fill) != len(self.features) or not np.isfinite(fill).all()):
            raise SmgeoError(
                f"missing={missing} needs fill: one finite number for each of the {len(self.features)} features (their means "
                "at the training stations, in the units of the cube)"
            )
        self.target, self.length, self.missing = target, int(length), float(missing)
        self.fill = [float(v) for v in fill] if missing > 0 and fill is not None else None
        self.units = units_of(ds, self.features)
        self._target_units = units_of(ds, [target])[target] if target else None
        self._steps = steps_of(ds)
        self._base = _stack(ds, self.features)
        gaps = np.isnan(self._base)
        self._observed = ~gaps if missing > 0 else np.empty((0, 0, 0), dtype=bool)
        present = ~gaps.all(axis=1).any(axis=1)
        self.left_out = [str(s) for s in ds["station"].values[~present]]
        eligible = _eligible(gaps.sum(axis=2), self.length, missing * self.length * len(self.features))
        if self.fill is not None:
            for f, value in enumerate(self.fill):
                self._base[:, :, f][gaps[:, :, f]] = value
        targets = None
        if target:
            targets = ds[target].transpose(*STATION_DIMS).values.astype("float32", copy=False)
            eligible &= np.isfinite(targets)
        if ends is not None:
            chosen = np.zeros(eligible.shape[1], dtype=bool)
            chosen[list(ends)] = True
            eligible &= chosen
        rows, days = np.nonzero(eligible)
        self.station_index, self.time_index = rows.astype("int32"), days.astype("int32")
        self.y: np.ndarray | None = targets[rows, days] if targets is not None else None

    @property
    def channels(self) -> list[str]:
        """Names along the last axis of `x`."""
        return self.features + ([f"{f} observed" for f in self.features] if self.missing > 0 else [])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(windows, length, channels)."""
        return len(self), self.length, len(self.channels)

    @property
    def preparation(self) -> dict[str, Any]:
        """All that is needed to make such windows of other data, as JSON types."""
        return {
            "features": self.features,
            "units": self.units,
            "target": self.target,
            "target_units": self._target_units,
            "length": self.length,
            "missing": self.missing,
            "fill": self.fill,
            "steps": self._steps,
        }

    def __len__(self) -> int:
        return self.station_index.size

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """The windows at positions `rows`: (len(rows), length, channels) float32."""
        out = np.empty((len(rows), self.length, len(self.channels)), dtype="float32")
        _gather(self._base, self._observed, self.station_index[rows], self.time_index[rows], out)
        return out

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.float32]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"window {i} of {len(self)}")
        y = np.float32(np.nan) if self.y is None else self.y[i]
        return self.gather(np.array([i]))[0], y

    def batches(self, size: int, shuffle: bool = True, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of `size` windows (the last may be smaller), each window once; in order without `shuffle`."""
        order = np.random.default_rng(seed).permutation(len(self)) if shuffle else np.arange(len(self))
        y = self.y if self.y is not None else np.full(len(self), np.nan, dtype="float32")
        for start in range(0, len(self), size):
            rows = order[start : start + size]
            yield self.gather(rows), y[rows]


def _stack(ds: xr.Dataset, features: Sequence[str]) -> np.ndarray:
    """Features as one float32 array (station, time, feature); static and calendar ones repeated."""
    base = np.empty((ds.sizes["station"], ds.sizes["time"], len(features)), dtype="float32")
    for f, name in enumerate(features):
        variable = ds[name].transpose(*(d for d in STATION_DIMS if d in ds[name].dims))
        base[:, :, f] = variable.values[:, None] if variable.dims == ("station",) else variable.values
    return base


def _eligible(gaps: np.ndarray, length: int, allowed: float) -> np.ndarray:
    """Whether the `length` days that end on each day lack at most `allowed` values, given gaps a day.

    >>> _eligible(np.array([[0, 2, 0, 0]]), 2, 1.0)
    array([[False, False, False,  True]])
    """
    total = np.zeros((gaps.shape[0], gaps.shape[1] + 1), dtype=np.int64)
    np.cumsum(gaps, axis=1, out=total[:, 1:])
    out = np.zeros(gaps.shape, dtype=bool)
    # A little slack, because a share times a count need not be exact in binary.
    out[:, length - 1 :] = total[:, length:] - total[:, :-length] <= allowed + 1e-9
    return out
