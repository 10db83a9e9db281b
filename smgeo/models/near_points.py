"""Points near to rows, compiled: whether one is within reach of a row, and of how many groups one is."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.spatial import KDTree

from smgeo.threads import compiled

# Points that were near to previous rows, which are compared first.
_RECENT = 4


def group_around_some(points: np.ndarray) -> tuple[np.ndarray, ...]:
    """Group points around some of them, see `arrange`."""
    count = max(int(np.sqrt(len(points))), 1)
    centers = points[np.linspace(0, len(points) - 1, count).astype(int)]
    return arrange(points, centers, KDTree(centers).query(points)[1])


def arrange(points: np.ndarray, centers: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, ...]:
    """Arrange points group by group.

    Returns
    -------
    tuple of numpy.ndarray
        Centres, radius of each group, points group by group from its centre outwards, their distances from it, and first point of each group.
    """
    distance = np.sqrt(((points - centers[group]).astype("float64") ** 2).sum(axis=1))
    order = np.lexsort((distance, group))
    distance, group = distance[order].astype("float32"), group[order]
    starts = np.searchsorted(group, np.arange(len(centers) + 1))
    # Nothing is near a group without points (its centre is there twice).
    radius = np.array([distance[b - 1] if b > a else -np.inf for a, b in itertools.pairwise(starts)], dtype="float32")
    return centers, radius, np.ascontiguousarray(points[order]), distance, starts


@compiled()
def _is_near(a: np.ndarray, b: np.ndarray, most: float) -> bool:
    """Return True if the squared distance is at most `most`."""
    total = np.float32(0)
    for j in range(a.size):
        total += (a[j] - b[j]) ** 2
        if j % 8 == 7 and total > most:
            return False
    return bool(total <= most)


@compiled()
def _measure_centers(row: np.ndarray, centers: np.ndarray, away: np.ndarray) -> int:
    """Write the distance of each centre to `away`, and return the nearest."""
    nearest = 0
    for g in range(len(centers)):
        total = np.float32(0)
        for j in range(row.size):
            total += (row[j] - centers[g, j]) ** 2
        away[g] = np.sqrt(total)
        if away[g] < away[nearest]:
            nearest = g
    return nearest


@compiled()
def _find_in_group(
    row: np.ndarray,
    points: np.ndarray,
    distance: np.ndarray,
    first: int,
    last: int,
    away: float,
    slack: np.float32,
    most: float,
) -> int:
    """Return a point from `first` to `last` whose squared distance is at most `most`, or -1; the row is `away` from their centre."""
    for p in range(first, last):
        if distance[p] < away - slack:
            continue
        if distance[p] > away + slack:
            break
        if _is_near(row, points[p], most):
            return p
    return -1


@compiled()
def find_near(
    rows: np.ndarray,
    centers: np.ndarray,
    radius: np.ndarray,
    points: np.ndarray,
    distance: np.ndarray,
    starts: np.ndarray,
    reach: float,
    rounding: float,
    out: np.ndarray,
) -> None:
    """Write to `out` if each row has a point within `reach`; the triangle inequality excludes most from comparison."""
    recent = np.zeros(_RECENT, dtype=np.int64)
    oldest = 0
    away = np.empty(len(centers), dtype=np.float32)
    most = reach * reach
    slack = reach * np.float32(1.0001) + rounding
    for i in range(len(rows)):
        found = -1
        for k in range(_RECENT):
            if _is_near(rows[i], points[recent[k]], most):
                found = recent[k]
                break
        out[i] = found >= 0
        if found >= 0:
            continue
        nearest = _measure_centers(rows[i], centers, away)
        for turn in range(-1, len(centers)):
            g = nearest if turn < 0 else turn
            if turn == nearest or away[g] - radius[g] > slack:
                continue
            found = _find_in_group(rows[i], points, distance, starts[g], starts[g + 1], away[g], slack, most)
            if found >= 0:
                break
        if found >= 0:
            out[i] = True
            recent[oldest] = found
            oldest = (oldest + 1) % _RECENT


@compiled()
def count_near(
    rows: np.ndarray,
    centers: np.ndarray,
    radius: np.ndarray,
    points: np.ndarray,
    distance: np.ndarray,
    starts: np.ndarray,
    reach: float,
    rounding: float,
    out: np.ndarray,
) -> None:
    """Write to `out` how many groups have a point within `reach` of each row; as in `find_near`, most points are not compared."""
    recent = starts[:-1].copy()
    away = np.empty(len(centers), dtype=np.float32)
    most = reach * reach
    slack = reach * np.float32(1.0001) + rounding
    for i in range(len(rows)):
        count = 0
        _measure_centers(rows[i], centers, away)
        for g in range(len(centers)):
            if away[g] - radius[g] > slack:
                continue
            if _is_near(rows[i], points[recent[g]], most):
                count += 1
                continue
            found = _find_in_group(rows[i], points, distance, starts[g], starts[g + 1], away[g], slack, most)
            if found >= 0:
                count += 1
                recent[g] = found
        out[i] = count
