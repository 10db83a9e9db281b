"""Compiled loops over (station, time, feature) that find windows and copy them."""

from __future__ import annotations

import numpy as np

from smgeo.threads import compiled


@compiled()
def copy_windows(base: np.ndarray, rows: np.ndarray, starts: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
    """Copy window i, the days from `starts[i]` of series `rows[i]`, to `out[places[i]]`."""
    length = out.shape[1]
    for i in range(places.size):
        out[places[i]] = base[rows[i], starts[i] : starts[i] + length]


@compiled()
def copy_windows_filled(
    base: np.ndarray, rows: np.ndarray, starts: np.ndarray, places: np.ndarray, fill: np.ndarray, out: np.ndarray
) -> None:
    """Copy windows with `fill` for missing values; if `out` has room, append 1 for each observed value and 0 for each missing one."""
    features = base.shape[2]
    masks = out.shape[2] > features
    for i in range(places.size):
        for d in range(out.shape[1]):
            day, made = base[rows[i], starts[i] + d], out[places[i], d]
            # No branches, because the processor could not predict them: only NaN differs from itself.
            for f in range(features):
                made[f] = day[f] if day[f] == day[f] else fill[f]
            if masks:
                for f in range(features):
                    made[features + f] = np.float32(day[f] == day[f])


@compiled()
def find_complete(base: np.ndarray, length: int, allowed: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the days on which a window ends: the `length` days up to it lack at most `allowed` values.

    Returns these (station, day), the features of which each station has a value (station, feature), and stations with a gap.
    """
    stations, days, features = base.shape
    complete = np.zeros((stations, days), dtype=np.bool_)
    present = np.zeros((stations, features), dtype=np.bool_)
    lacking = np.zeros(days, dtype=np.int64)
    gaps = np.zeros(stations, dtype=np.bool_)
    for s in range(stations):
        total = 0
        for t in range(days):
            lacking[t] = 0
            for f in range(features):
                if np.isnan(base[s, t, f]):
                    lacking[t] += 1
                else:
                    present[s, f] = True
            gaps[s] |= lacking[t] > 0
            total += lacking[t]
            if t >= length:
                total -= lacking[t - length]
            complete[s, t] = t >= length - 1 and total <= allowed
    return complete, present, gaps
