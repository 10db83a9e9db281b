"""Scores of estimates against observations: pooled, per station, with intervals over clusters of stations, and between models.

RMSE, ubRMSE, bias and r follow Entekhabi et al. 2010 (J. Hydrometeorol. 11, 832-840): bias = mean(estimate - observation),
ubRMSE^2 = RMSE^2 - bias^2. They equal those of pytesmo. All are computed from the moments of each
station, so that intervals cost no pass over rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pandas as pd

from smgeo.evaluation.intervals import (
    FISHER,
    LOG,
    PLAIN,
    RESAMPLES,
    Clusters,
    Interval,
    Scale,
    count_equal,
    interval_of_mean,
    interval_of_median,
    interval_of_sums,
)

NAMES = ("rmse", "ubrmse", "bias", "r")
# A station of fewer rows has no ubRMSE and no r: of one row they would be 0 and nothing.
LEAST_ROWS = 10


class StationMedians(TypedDict):
    """Medians over stations of the scores of each; None where no station has the score."""

    rmse_median: float | None
    ubrmse_median: float | None
    bias_median: float | None
    r_median: float | None


class Scores(TypedDict):
    """Scores of one model on one part, as in `results.json`, in the target's unit; None where a score is not defined."""

    rmse: float | None
    ubrmse: float | None
    bias: float | None
    r: float | None
    n: int
    stations: int
    per_station: StationMedians


class PairScores(TypedDict):
    """Paired test between two models, see `compare_pair`."""

    n: int
    stations: int
    clusters: int
    clusters_unequal: int
    rmse_first: float
    rmse_second: float
    difference: float
    interval: Interval
    stations_first_better: int
    stations_second_better: int
    p_value: float | None
    effect: float | None


@dataclass(frozen=True)
class Moments:
    """Counts, means and sums of squared deviations of each station, float64 (stations,).

    `oo`, `pp`, `op` and `ee` are sums over a station's rows of products of deviations from its means: observations,
    estimates, observations times estimates, and errors. Sums about the mean keep the digits that sums of squares lose.
    """

    station: np.ndarray
    n: np.ndarray
    observed: np.ndarray
    predicted: np.ndarray
    oo: np.ndarray
    pp: np.ndarray
    op: np.ndarray
    ee: np.ndarray

    @classmethod
    def of(cls, observed: np.ndarray, predicted: np.ndarray, station: np.ndarray) -> Moments:
        """Compute the moments of each station from its rows; (n,) arrays without missing values."""
        names, first, at = np.unique(station, return_index=True, return_inverse=True)
        o, p = observed.astype("float64"), predicted.astype("float64")
        n = np.bincount(at, minlength=names.size).astype("float64")

        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(at, weights=values, minlength=names.size)

        # Relative to each station's first value, so that the spread of a constant series is exactly 0.
        d_o, d_p = o - o[first][at], p - p[first][at]
        mean_o, mean_p = total(d_o) / n, total(d_p) / n
        d_o, d_p = d_o - mean_o[at], d_p - mean_p[at]
        mean_o, mean_p = mean_o + o[first], mean_p + p[first]
        return cls(names, n, mean_o, mean_p, total(d_o**2), total(d_p**2), total(d_o * d_p), total((d_p - d_o) ** 2))

    def pool(self, weights: np.ndarray) -> np.ndarray:
        """Return the scores over all rows, with each station counted as often as its weight.

        Parameters
        ----------
        weights : numpy.ndarray
            (..., stations); ones count every station once.

        Returns
        -------
        numpy.ndarray
            (..., 4): rmse, ubrmse, bias, r. NaN without a row; r is NaN where observations or estimates are constant.
        """
        w = weights.astype("float64")
        total = w @ self.n
        # Relative to the first station's means, for the same reason.
        o, p = self.observed - self.observed[0], self.predicted - self.predicted[0]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_o, mean_p = (w @ (self.n * o)) / total, (w @ (self.n * p)) / total

            def spread(within: np.ndarray, a: np.ndarray, b: np.ndarray, mean: np.ndarray) -> np.ndarray:
                return np.asarray(w @ (within + self.n * a * b) - total * mean)

            oo, pp = spread(self.oo, o, o, mean_o**2), spread(self.pp, p, p, mean_p**2)
            op, ee = spread(self.op, o, p, mean_o * mean_p), spread(self.ee, p - o, p - o, (mean_p - mean_o) ** 2)
            shift = self.predicted[0] - self.observed[0]
            return _stack_scores(np.maximum(ee, 0) / total, mean_p - mean_o + shift, oo, pp, op)

    def sums(self, cluster: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the sums of each cluster, and the bias that was taken from its errors.

        Parameters
        ----------
        cluster : numpy.ndarray
            int (stations,), from 0.

        Returns
        -------
        numpy.ndarray, float
            (clusters, 7): rows, and sums of observations and estimates about their means over all rows, of their squares, of their
            product, and of the squared errors about the bias; and the bias.
        """
        total = self.n.sum()
        middle = [float((self.n * v).sum() / total) for v in (self.observed, self.predicted)]
        o, p = self.observed - middle[0], self.predicted - middle[1]
        n = self.n
        each = [
            n,
            n * o,
            n * p,
            self.oo + n * o * o,
            self.pp + n * p * p,
            self.op + n * o * p,
            self.ee + n * (p - o) ** 2,
        ]
        return np.stack([np.bincount(cluster, weights=v) for v in each], axis=1), middle[1] - middle[0]

    @property
    def table(self) -> pd.DataFrame:
        """Scores with one row per station: n, rmse, ubrmse, bias, r (NaN where observations or estimates are constant)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            each = _stack_scores(self.ee / self.n, self.predicted - self.observed, self.oo, self.pp, self.op)
        table = pd.DataFrame(each, columns=list(NAMES), index=pd.Index(self.station, name="station"))
        table.insert(0, "n", self.n.astype("int64"))
        return table


def _stack_scores(variance: np.ndarray, bias: np.ndarray, oo: np.ndarray, pp: np.ndarray, op: np.ndarray) -> np.ndarray:
    """Return rmse, ubrmse, bias and r along a last axis, from the variance of the errors, their mean, and sums of products."""
    r = np.where((oo > 0) & (pp > 0), op / np.sqrt(oo * pp), np.nan)
    return np.stack([np.sqrt(variance + bias**2), np.sqrt(variance), bias, np.clip(r, -1, 1)], axis=-1)


def compute_scores(observed: np.ndarray, predicted: np.ndarray, station: np.ndarray) -> Scores:
    """Return the scores over all rows, and the medians over stations.

    Parameters
    ----------
    observed, predicted : numpy.ndarray
        (n,), same unit, no missing values.
    station : numpy.ndarray
        (n,), station of each row.

    Returns
    -------
    dict
        `rmse`, `ubrmse`, `bias`, `r`, `n`, `stations`, and `per_station` with `rmse_median`, `ubrmse_median`,
        `bias_median`, `r_median`. A score that is not defined (r of a constant series) is None.
    """
    pooled, medians, stations = [np.nan] * 4, [np.nan] * 4, 0
    if observed.size:
        moments = Moments.of(observed, predicted, station)
        pooled, each = moments.pool(np.ones(moments.n.size)).tolist(), moments.table
        medians, stations = [each[n].median() for n in NAMES], len(each)
    rmse, ubrmse, bias, r = map(finite_or_none, pooled)
    of_station = dict(zip(NAMES, map(finite_or_none, medians), strict=True))
    return {
        "rmse": rmse,
        "ubrmse": ubrmse,
        "bias": bias,
        "r": r,
        "n": int(observed.size),
        "stations": stations,
        "per_station": {
            "rmse_median": of_station["rmse"],
            "ubrmse_median": of_station["ubrmse"],
            "bias_median": of_station["bias"],
            "r_median": of_station["r"],
        },
    }


def finite_or_none(value: float) -> float | None:
    """Return a number as JSON can store it: None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def score_intervals(
    observed: np.ndarray,
    predicted: np.ndarray,
    station: np.ndarray,
    clusters: Clusters | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return 95 % intervals of the four pooled scores over clusters of stations, see `smgeo.evaluation.intervals`.

    They estimate how the score would vary with other clusters of the same kind. With fewer than five clusters, or with one that holds most
    rows, there is none.

    Parameters
    ----------
    observed, predicted, station : numpy.ndarray
        (n,), as for `compute_scores`.
    clusters : Clusters, optional
        The cluster of each station, such as its place or its network; by default each station is one.

    Returns
    -------
    dict
        `rmse`, `ubrmse`, `bias`, `r` -> [low, high]; None where an interval is not defined.
    """
    if not observed.size:
        return {n: [None, None] for n in NAMES}
    moments = Moments.of(observed, predicted, station)
    sums, shift = moments.sums(_number(moments.station, clusters))
    scores: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Scale]] = {
        "rmse": (lambda m: np.sqrt(m[..., 6] / m[..., 0] + 2 * shift * _error(m) + shift**2), LOG),
        "ubrmse": (lambda m: np.sqrt(m[..., 6] / m[..., 0] - _error(m) ** 2), LOG),
        "bias": (lambda m: _error(m) + shift, PLAIN),
        "r": (_correlation, FISHER),
    }
    return {
        name: interval_of_sums(sums, score, scale, resamples=resamples, seed=seed)
        for name, (score, scale) in scores.items()
    }


def _error(m: np.ndarray) -> np.ndarray:
    return np.asarray((m[..., 2] - m[..., 1]) / m[..., 0])


def _correlation(m: np.ndarray) -> np.ndarray:
    n, o, p, oo, pp, op = (m[..., i] for i in range(6))
    return np.asarray((op - o * p / n) / np.sqrt((oo - o * o / n) * (pp - p * p / n)))


def _number(stations: np.ndarray, clusters: Clusters | None) -> np.ndarray:
    return np.arange(stations.size) if clusters is None else clusters.number(stations.tolist())


class StationScore(TypedDict):
    """Mean and median of one score over stations, with their intervals."""

    mean: float | None
    mean_interval: Interval
    median: float | None
    median_interval: Interval


class StationScores(TypedDict):
    """Scores over stations, see `score_stations`."""

    stations: int
    stations_of_few_rows: int
    least_rows: int
    clusters: int
    clusters_equal: float | None
    clusters_by: str
    networks_of_several: int | None
    rmse: StationScore
    ubrmse: StationScore
    bias: StationScore
    r: StationScore


def score_stations(
    observed: np.ndarray,
    predicted: np.ndarray,
    station: np.ndarray,
    clusters: Clusters | None = None,
    *,
    seed: int = 0,
) -> StationScores:
    """Return mean and median of each score over stations, every station counted once, with 95 % intervals over clusters.

    Parameters
    ----------
    observed, predicted, station, clusters
        As for `score_intervals`.

    Returns
    -------
    dict
        `stations`; `stations_of_few_rows`, whose ubRMSE and r do not count because they have fewer than `least_rows` rows; `clusters`, their
        number, `clusters_equal`, how many of equal size they count as, and `clusters_by`; `networks_of_several`, how many networks have several
        clusters (None if there are no networks); and for `rmse`, `ubrmse`, `bias` and `r`
        `mean`, `mean_interval`, `median`, `median_interval`. A station of a constant series has no r either.
    """
    moments = Moments.of(observed, predicted, station)
    table, at = moments.table, _number(moments.station, clusters)
    few = (table["n"] < LEAST_ROWS).to_numpy()

    def over_stations(name: str) -> StationScore:
        values = table[name].to_numpy()
        seen = np.isfinite(values) & ~few if name in ("ubrmse", "r") else np.isfinite(values)
        if not seen.any():
            return {"mean": None, "mean_interval": [None, None], "median": None, "median_interval": [None, None]}
        values, of = values[seen], at[seen]
        scale = LOG if name in ("rmse", "ubrmse") else PLAIN
        ends = interval_of_mean(values, of, scale, seed=seed)
        return {
            "mean": float(values.mean()),
            # A mean of correlations is one.
            "mean_interval": [None if v is None else min(max(v, -1.0), 1.0) for v in ends] if name == "r" else ends,
            "median": float(np.median(values)),
            "median_interval": interval_of_median(values, of),
        }

    return {
        "stations": len(table),
        "stations_of_few_rows": int(few.sum()),
        "least_rows": LEAST_ROWS,
        "clusters": int(at.max()) + 1 if at.size else 0,
        "clusters_equal": count_equal(np.bincount(at, weights=moments.n)) if at.size else None,
        "clusters_by": "station" if clusters is None else clusters.by,
        "networks_of_several": None if clusters is None else clusters.networks_of_several,
        "rmse": over_stations("rmse"),
        "ubrmse": over_stations("ubrmse"),
        "bias": over_stations("bias"),
        "r": over_stations("r"),
    }


def compare_pair(
    observed: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    station: np.ndarray,
    clusters: Clusters | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairScores:
    """Compare two models at the same rows: a paired test on the RMSEs of stations, averaged in each cluster.

    Parameters
    ----------
    observed, first, second : numpy.ndarray
        (n,): observations, and the estimates of both models at the same rows.
    station : numpy.ndarray
        (n,), station of each row.
    clusters : Clusters, optional
        The cluster of each station; by default each station is one.

    Returns
    -------
    dict
        `n`, `stations`, `clusters`, and `clusters_unequal`, in which the models differ; `rmse_first`, `rmse_second` pooled over these rows,
        `difference` (first - second) and its `interval` over clusters; `stations_first_better`, `stations_second_better`; `p_value` of
        the two-sided Wilcoxon signed-rank test on the clusters' mean differences of station RMSEs (exact below 50 clusters without ties);
        `effect`, the matched-pairs rank-biserial correlation of the same (Kerby 2014), from -1 (the first model is better in every
        cluster) to 1. The last two are None if all differences are 0. Of m clusters that differ, p cannot fall below 2 / 2^m, whatever
        the models.
    """
    from scipy.stats import rankdata, wilcoxon

    both = [Moments.of(observed, p, station) for p in (first, second)]
    ones = np.ones(both[0].n.size)
    a, b = (float(m.pool(ones)[0]) for m in both)
    differences = (both[0].table["rmse"] - both[1].table["rmse"]).to_numpy()
    at = _number(both[0].station, clusters)
    of_clusters = np.bincount(at, weights=differences) / np.bincount(at)
    nonzero = of_clusters[of_clusters != 0]
    p_value = effect = None
    if nonzero.size:
        p_value = float(wilcoxon(nonzero).pvalue)
        ranks = rankdata(np.abs(nonzero))
        effect = float((ranks * np.sign(nonzero)).sum() / ranks.sum())
    squares = [np.bincount(at, weights=m.n * m.table["rmse"].to_numpy() ** 2) for m in both]
    sums = np.stack([np.bincount(at, weights=both[0].n), *squares], axis=1)
    return {
        "n": int(observed.size),
        "stations": int(ones.size),
        "clusters": len(sums),
        "clusters_unequal": int(nonzero.size),
        "rmse_first": a,
        "rmse_second": b,
        "difference": a - b,
        "interval": interval_of_sums(sums, difference_of_rmse, resamples=resamples, seed=seed),
        "stations_first_better": int((differences < 0).sum()),
        "stations_second_better": int((differences > 0).sum()),
        "p_value": p_value,
        "effect": effect,
    }


def difference_of_rmse(m: np.ndarray) -> np.ndarray:
    """Return the RMSE of the second column minus that of the third; columns are rows and two sums of squared errors."""
    return np.asarray(np.sqrt(m[..., 1] / m[..., 0]) - np.sqrt(m[..., 2] / m[..., 0]))


def adjust_holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for the number of tests (Holm 1979, Scand. J. Stat. 6, 65-70).

    >>> adjust_holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    out: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(p * (len(known) - rank), 1.0))
        out[i] = least
    return out


def score_groups(
    observed: np.ndarray, predicted: np.ndarray, station: np.ndarray, group: Mapping[str, str]
) -> pd.DataFrame:
    """Return the scores of groups of stations: one row per group, with `stations`, `n` and the four pooled scores.

    `group` maps stations to their group. Stations that are missing there, or have an empty name, are left out.
    """
    moments = Moments.of(observed, predicted, station)
    of_station = np.array([group.get(s) or "" for s in moments.station.tolist()], dtype=object)
    rows = {}
    for name in sorted({g for g in of_station if g}):
        inside = (of_station == name).astype("float64")
        counts = {"stations": int(inside.sum()), "n": int((inside * moments.n).sum())}
        rows[name] = {**counts, **dict(zip(NAMES, moments.pool(inside).tolist(), strict=True))}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["stations", "n", *NAMES])
