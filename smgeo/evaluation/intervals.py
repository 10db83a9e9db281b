"""Intervals and tests over clusters: stations of one place, or of one network, are not independent of each other.

The interval of a score is a studentised cluster bootstrap: whole clusters are drawn, and each resample's score is divided by its own
standard error, on a scale on which the score is nearer to normal (Cameron, Gelbach and Miller 2008, Rev. Econ. Stat. 90, 414-427;
DiCiccio and Efron 1996, Stat. Sci. 11, 189-228). The standard error of the score itself is the jackknife's, a cluster left out at a time
(MacKinnon, Nielsen and Webb 2023, J. Appl. Econom. 38, 671-694). The arms are no shorter than those of Student's t with one degree of freedom
less than there are clusters of equal size: (sum of rows)² / sum of their squares, because a cluster that holds most rows is nearly alone
(Carter, Schnepel and Steigerwald 2017, Rev. Econ. Stat. 99, 698-709). `benchmarks/intervals.py` counts how often such intervals contain the
truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

RESAMPLES = 2000
CONFIDENCE = 0.95
# Fewer clusters have no interval, and of a median none; with fewer than the last, intervals are said to be of little use.
LEAST_CLUSTERS, LEAST_OF_MEDIAN, FEW_CLUSTERS = 5, 6, 10
# An upper end beyond so many times the score is none.
_FARTHEST = 10.0
# Nor have clusters that count as fewer of equal size.
_LEAST_EQUAL = 2.5
# With more, resamples take long and add nothing to Student's t.
_MANY_CLUSTERS = 1_000
# Ends of an interval; None where it is not defined.
Interval = list[float | None]
# Step of the derivatives along the imaginary axis, which cancel no digits.
_STEP = 1e-20


class Clusters(NamedTuple):
    """The cluster of each station, and what a cluster is: `place`, `network`, ...

    `networks_of_several` is the number of networks that have several clusters, which are taken for independent all the same; None without networks.
    """

    by: str
    of: Mapping[object, object]
    networks_of_several: int | None = None

    def number(self, stations: Iterable[object]) -> np.ndarray:
        """Return the number of the cluster of each station, from 0 in order of appearance."""
        return np.asarray(pd.factorize(np.array([str(self.of[s]) for s in stations], dtype=object))[0])


class Scale(NamedTuple):
    """A scale on which scores are nearer to normal, and the way back."""

    there: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


def _same(values: np.ndarray) -> np.ndarray:
    return values


PLAIN = Scale(_same, _same)
# Of a score that is above 0, and of a correlation.
LOG, FISHER = Scale(np.log, np.exp), Scale(np.arctanh, np.tanh)


def draw_clusters(clusters: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Count each cluster in each resample: (resamples, clusters) int, rows sum to `clusters`."""
    random = np.random.default_rng(seed)
    return random.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)


def interval_of_sums(
    sums: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    scale: Scale = PLAIN,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the 95 % interval of a score that is a smooth function of sums over clusters.

    Parameters
    ----------
    sums : numpy.ndarray
        (clusters, k) float64: what each cluster adds to the k sums. The first is its number of rows (or stations), the others such as
        its squared errors.
    score : callable
        (..., k) totals -> (...) score. It must not change when all totals are doubled, and must take complex totals.
    scale : Scale
        Scale on which the interval is found.

    Returns
    -------
    list
        [low, high]; None each, with fewer than five clusters, with one that holds most rows, or where the score is not defined; None for an
        end without bound.
    """
    clusters, equal = len(sums), count_equal(sums[:, 0])
    if clusters < LEAST_CLUSTERS or equal < _LEAST_EQUAL:
        return [None, None]
    with np.errstate(all="ignore"):

        def both(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Return the score on its scale, and its standard error by linearisation, of each row of weights."""
            totals = weights @ sums
            steps = totals[..., None, :] + 1j * _STEP * np.eye(totals.shape[-1])
            slopes = scale.there(score(steps)).imag / _STEP
            added = (slopes @ sums.T) ** 2
            return scale.there(score(totals)), np.sqrt((weights * added).sum(axis=-1) * clusters / (clusters - 1))

        total = sums.sum(axis=0)
        raw = float(score(total))
        if not np.isfinite(raw):
            return [None, None]
        (value,), (linear,) = both(np.ones((1, clusters)))
        without = scale.there(score(total - sums))
        error = np.sqrt((clusters - 1) / clusters * ((without - without.mean()) ** 2).sum())
        if not np.isfinite(value) or not linear > 0:  # a score of 0 or 1, or clusters that are all alike
            return [raw, raw]
        if not np.isfinite(error):  # one cluster alone makes the score what it is
            return [None, None]
        values, errors = both(
            draw_clusters(clusters, resamples if clusters <= _MANY_CLUSTERS else 1, seed).astype("float64")
        )
        ratios = (values - value) / errors
    ratios = ratios[np.isfinite(ratios) & (errors > 1e-9 * linear)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail]) if ratios.size > resamples / 2 else (0.0, 0.0)
    least = float(student.ppf(1 - tail, equal - 1))
    with np.errstate(over="ignore"):
        ends = scale.back(value - error * np.array([max(high, least), min(low, -least)]))
    bounds = (-np.inf, _FARTHEST * raw) if scale is LOG else (-np.inf, np.inf)
    return [float(end) if np.isfinite(end) and bounds[0] <= end <= bounds[1] else None for end in ends]


def count_equal(rows: np.ndarray) -> float:
    """Return how many clusters of equal size so many rows of each cluster count as: (sum of rows)² / sum of their squares.

    >>> count_equal(np.array([5.0, 5.0, 5.0])), round(count_equal(np.array([90.0, 5.0, 5.0])), 2)
    (3.0, 1.23)
    """
    return float(rows.sum() ** 2 / (rows**2).sum())


def interval_of_mean(values: np.ndarray, cluster: np.ndarray, scale: Scale = PLAIN, *, seed: int = 0) -> Interval:
    """Return the 95 % interval of the mean of values (n,), one a station, in clusters (n,)."""
    _, at = np.unique(cluster, return_inverse=True)
    sums = np.stack([np.bincount(at), np.bincount(at, weights=values)], axis=1)
    return interval_of_sums(sums.astype("float64"), lambda m: m[..., 1] / m[..., 0], scale, seed=seed)


def interval_of_median(values: np.ndarray, cluster: np.ndarray) -> Interval:
    """Return the 95 % interval of the median of values (n,), one a station, in clusters (n,).

    The share of values up to the median has a standard error over clusters; the values at the ends of the interval of that share are
    those of the median (Woodruff 1952, J. Am. Stat. Assoc. 47, 635-646). It ends at the smallest and greatest value.
    """
    _, at = np.unique(cluster, return_inverse=True)
    sizes = np.bincount(at).astype("float64")
    equal = count_equal(sizes) if sizes.size else 0.0
    if sizes.size < LEAST_OF_MEDIAN or equal < _LEAST_EQUAL:
        return [None, None]
    below = np.bincount(at, weights=(values <= np.median(values)) - 0.5)
    error = np.sqrt((below**2).sum() * sizes.size / (sizes.size - 1)) / values.size
    # Stations that lie on both sides of the median in each cluster, as by design, are not less uncertain than independent ones.
    error = max(float(error), 0.5 / np.sqrt(values.size))
    reach = float(student.ppf((1 + CONFIDENCE) / 2, equal - 1)) * error
    low, high = np.quantile(values, np.clip([0.5 - reach, 0.5 + reach], 0, 1))
    return [float(low), float(high)]
