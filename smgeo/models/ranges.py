"""Weighted means in ranges of a number that have the same weight each."""

from __future__ import annotations

import numpy as np


def mean_in_ranges(
    by: np.ndarray, values: np.ndarray, weights: np.ndarray, ranges: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean of `by`, the mean of `values` and the weight of each of so many ranges of `by`, ascending; empty ones are left out.

    >>> mean_in_ranges(np.array([1.0, 3, 9, 11]), np.array([0.0, 1, 5, 7]), np.ones(4), 2)
    (array([ 2., 10.]), array([0.5, 6. ]), array([2., 2.]))
    """
    order = np.argsort(by, kind="stable")
    middle = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    of = np.empty(len(order), dtype=np.intp)
    of[order] = np.minimum((middle * ranges).astype(np.intp), ranges - 1)
    total = np.bincount(of, weights, ranges)
    filled = total > 0
    means = [np.bincount(of, weights * v, ranges)[filled] / total[filled] for v in (by, values)]
    return means[0], means[1], total[filled]
