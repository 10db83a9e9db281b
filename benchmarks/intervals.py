"""How often intervals of scores contain the truth, with few clusters of stations that are not independent.

Run: python benchmarks/intervals.py [REPLICATES]     (300 by default)

Every replicate draws clusters of stations with 100 days each. Errors are the sum of a station's mean error (sd .05, correlated within a
cluster) and of days (sd .05), so that the true RMSE is .071, ubRMSE .071 and bias 0; levels of stations (sd .05) are correlated alike. Three
ways to a nominal 95 % interval are compared: the middle 95 % of resampled stations (a plain bootstrap, which takes stations for
independent), the same of resampled clusters, and smgeo's. The last columns are the mean of station RMSEs and their median, whose truth is
that of 20,000 stations.

Then two models whose errors are drawn alike are compared: how often the paired test rejects at 5 %, and how often the interval of the difference
of pooled RMSEs contains 0, if stations are taken for independent (as places of fewer than ten networks are), and over clusters.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from smgeo.evaluation.intervals import Clusters, Interval, draw_clusters
from smgeo.evaluation.scores import NAMES, Moments, compare_pair, score_intervals, score_stations

# Stations of each cluster, and correlation within one. In the last two, one cluster has half of the stations, and sizes double.
CASES: tuple[tuple[tuple[int, ...], float], ...] = (
    ((1,) * 32, 0.0),
    ((4,) * 8, 0.6),
    ((6,) * 5, 0.6),
    ((1,) * 12, 0.0),
    ((10,) * 30, 0.3),
    ((60, *(5,) * 12), 0.3),
    (tuple(2**i for i in range(8)), 0.3),
)
# Of pairs of models.
PAIRED: tuple[tuple[tuple[int, ...], float], ...] = (
    ((1,) * 32, 0.0),
    ((4,) * 9, 0.3),
    ((4,) * 9, 0.6),
    ((10,) * 9, 0.6),
    ((10,) * 20, 0.6),
)
DAYS = 100
COLUMNS = (*NAMES, "mean of RMSEs", "median of RMSEs")


def draw(random: np.random.Generator, of: np.ndarray, correlation: float) -> tuple[np.ndarray, ...]:
    """Return observations, estimates, and the station of each row; `of` is the cluster of each station."""

    def of_stations() -> np.ndarray:
        common, own = random.standard_normal(of.max() + 1)[of], random.standard_normal(of.size)
        mixed: np.ndarray = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        return mixed[:, None]

    shape = (of.size, DAYS)
    observed = 0.25 + 0.05 * of_stations() + 0.06 * random.standard_normal(shape)
    error = 0.05 * of_stations() + 0.05 * random.standard_normal(shape)
    return observed.ravel(), (observed + error).ravel(), np.repeat(np.arange(of.size), DAYS)


def truth(random: np.random.Generator) -> dict[str, float]:
    observed, error = 0.05**2 + 0.06**2, 2 * 0.05**2
    each = Moments.of(*draw(random, np.arange(20_000), 0.0)).table["rmse"]
    r = observed / np.sqrt(observed * (observed + error))
    values = (np.sqrt(error), np.sqrt(error), 0.0, r, each.mean(), each.median())
    return dict(zip(COLUMNS, map(float, values), strict=True))


def plain(rows: tuple[np.ndarray, ...], of: np.ndarray, seed: int) -> dict[str, Interval]:
    """Return the middle 95 % of 500 resamples of whole clusters, `of` being the cluster of each station."""
    moments = Moments.of(*rows)
    weights = draw_clusters(int(of.max()) + 1, 500, seed)[:, of]
    resampled = {name: moments.pool(weights)[:, i] for i, name in enumerate(NAMES)}
    each = moments.table["rmse"].to_numpy()
    resampled["mean of RMSEs"] = weights @ each / weights.sum(axis=1)
    resampled["median of RMSEs"] = np.array([np.median(np.repeat(each, w)) for w in weights])
    return {name: np.nanquantile(values, [0.025, 0.975]).tolist() for name, values in resampled.items()}


def ours(rows: tuple[np.ndarray, ...], of: np.ndarray, seed: int) -> dict[str, Interval]:
    clusters = Clusters("place", dict(enumerate(of.tolist())))
    found = score_stations(*rows, clusters, seed=seed)["rmse"]
    stations = {"mean of RMSEs": found["mean_interval"], "median of RMSEs": found["median_interval"]}
    return {**score_intervals(*rows, clusters, seed=seed), **stations}


def contains(intervals: Mapping[str, Interval], values: Mapping[str, float]) -> list[bool]:
    """Return for each score whether its interval contains the truth; an end that is None is without bound."""
    low, high = ([np.nan if intervals[name][i] is None else intervals[name][i] for name in COLUMNS] for i in (0, 1))
    return [not (values[n] < a or values[n] > b) for n, a, b in zip(COLUMNS, low, high, strict=True)]


def compare_pairs(random: np.random.Generator, replicates: int) -> None:
    """Print how often a test of two models that are equally good finds a difference."""
    print(
        f"\nshare of {replicates} pairs of equally good models, %: test rejects at 5 %, interval of the difference contains 0"
    )
    print(
        f"{'clusters (stations), correlation':<34}{'stations: rejects':>18}{'contains':>10}{'clusters: rejects':>19}{'contains':>10}"
    )
    for sizes, correlation in PAIRED:
        of = np.repeat(np.arange(len(sizes)), sizes)
        found = []
        for seed in range(replicates):
            observed, first, station = draw(random, of, correlation)
            other, second, _ = draw(random, of, correlation)
            both = observed, first, observed + (second - other), station
            line = []
            for clusters in (None, Clusters("network", dict(enumerate(of.tolist())))):
                pair = compare_pair(*both, clusters, seed=seed)
                low, high = (np.nan if v is None else v for v in pair["interval"])
                line += [pair["p_value"] is not None and pair["p_value"] < 0.05, not (low > 0 or high < 0)]
            found.append(line)
        a, b, c, d = 100 * np.mean(found, axis=0)
        about = f"{len(sizes)} ({min(sizes)}-{max(sizes)}), {correlation:g}"
        print(f"{about:<34}{a:18.1f}{b:10.1f}{c:19.1f}{d:10.1f}", flush=True)


def main() -> None:
    replicates = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    random = np.random.default_rng(0)
    values = truth(random)
    print(f"share of {replicates} nominal 95 % intervals that contain the truth, %")
    print(f"{'clusters (stations), correlation':<34}{'interval':<20}" + "".join(f"{c:>17}" for c in COLUMNS))
    for sizes, correlation in CASES:
        of = np.repeat(np.arange(len(sizes)), sizes)
        about = f"{len(sizes)} ({min(sizes)}-{max(sizes)}), {correlation:g}"
        inside: dict[str, list[list[bool]]] = {"stations, plain": [], "clusters, plain": [], "smgeo": []}
        for seed in range(replicates):
            rows = draw(random, of, correlation)
            inside["stations, plain"].append(contains(plain(rows, np.arange(of.size), seed), values))
            inside["clusters, plain"].append(contains(plain(rows, of, seed), values))
            inside["smgeo"].append(contains(ours(rows, of, seed), values))
        for name, found in inside.items():
            shares = "".join(f"{100 * s:17.1f}" for s in np.mean(found, axis=0))
            print(f"{about:<34}{name:<20}{shares}", flush=True)
    compare_pairs(np.random.default_rng(0), replicates)


if __name__ == "__main__":
    main()
