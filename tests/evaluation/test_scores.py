"""Scores against pytesmo and slow references: moments, intervals over stations, paired tests, groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from smgeo.evaluation.intervals import Clusters, draw_clusters, interval_of_median
from smgeo.evaluation.scores import (
    Moments,
    adjust_holm,
    compare_pair,
    compute_scores,
    score_groups,
    score_intervals,
    score_stations,
)


@pytest.fixture
def rows():
    """Observations and estimates at 9 stations with 5 to 60 days each, biased station by station, in shuffled order."""
    rng = np.random.default_rng(3)
    station = np.repeat([f"N/s{i}" for i in range(9)], rng.integers(5, 60, 9))
    level = dict(zip(np.unique(station), rng.uniform(0.1, 0.4, 9), strict=True))
    observed = np.array([level[s] for s in station]) + 0.05 * rng.standard_normal(station.size)
    predicted = (
        observed + 0.03 * rng.standard_normal(station.size) + 0.1 * (0.25 - np.array([level[s] for s in station]))
    )
    order = rng.permutation(station.size)
    return observed[order], predicted[order], station[order]


def test_scores_are_those_of_pytesmo(rows):
    metrics = pytest.importorskip("pytesmo.metrics")
    observed, predicted, station = rows

    def reference(o, p):
        return [metrics.rmsd(p, o), metrics.ubrmsd(p, o), metrics.bias(p, o), metrics.pearson_r(p, o)]

    moments = Moments.of(observed, predicted, station)
    np.testing.assert_allclose(moments.pool(np.ones(9)), reference(observed, predicted), rtol=1e-10)
    for name, row in moments.table.iterrows():
        here = station == name
        assert row["n"] == here.sum()
        np.testing.assert_allclose(
            row[["rmse", "ubrmse", "bias", "r"]].astype(float), reference(observed[here], predicted[here]), rtol=1e-9
        )
    scores = compute_scores(observed, predicted, station)
    medians = np.median(
        [reference(observed[station == s], predicted[station == s]) for s in np.unique(station)], axis=0
    )
    np.testing.assert_allclose([scores["per_station"][f"{n}_median"] for n in ("rmse", "ubrmse", "bias", "r")], medians)


def test_weights_take_the_rows_of_a_station_so_many_times(rows):
    observed, predicted, station = rows
    weights = np.array([0, 2, 1, 0, 3, 1, 0, 1, 1])
    times = dict(zip(np.unique(station), weights, strict=True))
    repeated = np.repeat(np.arange(station.size), [times[s] for s in station])
    error = predicted[repeated] - observed[repeated]
    expected = [
        np.sqrt(np.mean(error**2)),
        np.std(error),
        np.mean(error),
        np.corrcoef(observed[repeated], predicted[repeated])[0, 1],
    ]
    np.testing.assert_allclose(Moments.of(observed, predicted, station).pool(weights), expected, rtol=1e-9)


def slow_interval(name, observed, predicted, station, cluster, seed):
    """A studentised bootstrap from the rows: derivatives by the weights of clusters in differences, the jackknife, Student's t."""
    clusters = list(dict.fromkeys(cluster[s] for s in sorted(set(station))))
    of_row = np.array([clusters.index(cluster[s]) for s in station])
    count = len(clusters)

    def score(weights):
        w = weights[of_row]
        error = predicted - observed
        bias = np.average(error, weights=w)
        if name == "bias":
            return bias
        if name == "rmse":
            return np.log(np.sqrt(np.average(error**2, weights=w)))
        if name == "ubrmse":
            return np.log(np.sqrt(np.average((error - bias) ** 2, weights=w)))
        o, p = (v - np.average(v, weights=w) for v in (observed, predicted))
        return np.arctanh((w * o * p).sum() / np.sqrt((w * o * o).sum() * (w * p * p).sum()))

    def error_of(weights):
        steps = 1e-5 * np.eye(count)
        slopes = np.array([(score(weights + step) - score(weights - step)) / 2e-5 for step in steps])
        return np.sqrt(count / (count - 1) * (weights * slopes**2).sum())

    drawn = draw_clusters(count, 200, seed).astype(float)
    ones = np.ones(count)
    ratios = [(score(w) - score(ones)) / error_of(w) for w in drawn if (w > 0).sum() > 1]
    low, high = np.quantile(ratios, [0.025, 0.975])
    without = [score(ones - one) for one in np.eye(count)]
    jackknife = np.sqrt((count - 1) * np.var(without))
    rows = np.bincount(of_row)
    t = student.ppf(0.975, rows.sum() ** 2 / (rows**2).sum() - 1)
    ends = score(ones) - jackknife * np.array([max(high, t), min(low, -t)])
    return {"bias": ends, "r": np.tanh(ends)}.get(name, np.exp(ends))


@pytest.mark.parametrize("name", ["rmse", "ubrmse", "bias", "r"])
def test_intervals_are_those_of_a_slow_bootstrap_of_whole_clusters(rows, name):
    observed, predicted, station = rows
    cluster = {f"N/s{i}": "abcddeeff"[i] for i in range(9)}
    found = score_intervals(observed, predicted, station, Clusters("network", cluster), resamples=200, seed=4)[name]
    expected = slow_interval(name, observed, predicted, station, cluster, seed=4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def sample(random, clusters, stations, correlation):
    """Errors of 50 days at stations whose mean errors (sd .05) are correlated within a cluster, and days of sd .05."""
    common, own = random.standard_normal((clusters, 1)), random.standard_normal((clusters, stations))
    mean = 0.05 * (np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own)
    error = mean[..., None] + 0.05 * random.standard_normal((clusters, stations, 50))
    station = np.repeat(np.arange(clusters * stations), 50)
    return error.ravel(), station, {i: i // stations for i in range(clusters * stations)}


def contains(ends, value):
    """Whether an interval contains a value; an end that is None is without bound."""
    low, high = ends
    return (low is None or low <= value) and (high is None or value <= high)


def test_intervals_cover_the_truth_as_often_as_they_say_even_with_few_clusters():
    """Of 200 samples of 8 clusters of 4 stations, about 93 % of the intervals hold the truth; of stations taken for independent 7 of 10."""
    random = np.random.default_rng(0)
    inside, alone = [], []
    for _ in range(200):
        error, station, cluster = sample(random, 8, 4, 0.6)
        for found, clusters in ((inside, Clusters("place", cluster)), (alone, None)):
            ends = score_intervals(np.zeros(error.size), error, station, clusters, resamples=500)
            found.append([contains(ends["rmse"], np.hypot(0.05, 0.05)), contains(ends["bias"], 0)])
    assert (np.mean(inside, axis=0) >= 0.89).all()
    assert (np.mean(inside, axis=0) <= 0.99).all()
    assert (np.mean(alone, axis=0) < 0.89).all()


def test_what_has_no_interval():
    nothing = {n: [None, None] for n in ("rmse", "ubrmse", "bias", "r")}
    assert score_intervals(np.arange(5.0), np.arange(5.0) + 1, np.zeros(5)) == nothing
    assert score_intervals(np.arange(12.0), np.arange(12.0) + 1, np.repeat([0, 1, 2, 3], 3)) == nothing
    # One cluster has nine rows of ten.
    station = np.r_[np.zeros(90), np.arange(1, 11)]
    errors = np.random.default_rng(0).standard_normal(100)
    assert score_intervals(np.zeros(100), errors, station) == nothing
    assert score_intervals(np.empty(0), np.empty(0), np.empty(0)) == nothing
    # Equal errors everywhere have no spread, and a constant series no r.
    equal = score_intervals(np.zeros(10), np.full(10, 0.5), np.repeat(np.arange(5), 2))
    assert (equal["rmse"], equal["ubrmse"], equal["bias"], equal["r"]) == ([0.5] * 2, [0.0] * 2, [0.5] * 2, [None] * 2)


def test_scores_over_stations_by_hand():
    """Six stations, the last of 2 rows only; constant errors of .1, -.2, .4, .3, .2 and .3."""
    random = np.random.default_rng(0)
    rows = [12, 12, 12, 12, 12, 2]
    station = np.repeat(list("abcdef"), rows)
    observed = random.uniform(0.1, 0.4, station.size)
    errors = np.array([0.1, -0.2, 0.4, 0.3, 0.2, 0.3])
    found = score_stations(observed, observed + np.repeat(errors, rows), station)
    assert {k: found[k] for k in ("stations", "stations_of_few_rows", "least_rows", "clusters", "clusters_by")} == {
        "stations": 6,
        "stations_of_few_rows": 1,
        "least_rows": 10,
        "clusters": 6,
        "clusters_by": "station",
    }
    assert found["clusters_equal"] == pytest.approx(62**2 / (5 * 12**2 + 2**2))
    assert (found["rmse"]["mean"], found["rmse"]["median"]) == (pytest.approx(0.25), pytest.approx(0.25))
    assert (found["bias"]["mean"], found["bias"]["median"]) == (pytest.approx(1.1 / 6), pytest.approx(0.25))
    assert found["r"]["mean"] == pytest.approx(1)
    low, high = found["rmse"]["mean_interval"]
    # Student's t on the logarithm of the mean, 5 degrees of freedom: the spread is that of the six RMSEs.
    half = student.ppf(0.975, 5) * np.std(np.abs(errors), ddof=1) / np.sqrt(6) / 0.25
    assert low <= 0.25 * np.exp(-0.98 * half)
    assert high >= 0.25 * np.exp(0.98 * half)
    assert found["rmse"]["median_interval"] == pytest.approx([0.1, 0.4])


def test_an_interval_holds_where_one_network_is_half_of_the_stations():
    """Of 150 samples of a cluster of 60 stations and 12 of 5, nine of ten intervals hold the truth; as equals they would be too narrow."""
    random = np.random.default_rng(0)
    sizes = [60] + [5] * 12
    cluster = np.repeat(np.arange(13), sizes)
    inside = []
    for _ in range(150):
        common = random.standard_normal(13)[cluster]
        mean = 0.05 * (np.sqrt(0.3) * common + np.sqrt(0.7) * random.standard_normal(cluster.size))
        error = (mean[:, None] + 0.05 * random.standard_normal((cluster.size, 20))).ravel()
        station = np.repeat(np.arange(cluster.size), 20)
        of = Clusters("network", dict(enumerate(cluster.tolist())))
        ends = score_intervals(np.zeros(error.size), error, station, of, resamples=300)
        inside.append([contains(ends["rmse"], np.hypot(0.05, 0.05)), contains(ends["bias"], 0)])
    assert (np.mean(inside, axis=0) >= 0.9).all()


def test_the_interval_of_a_median_is_of_order_statistics():
    """With independent values it is close to that of the binomial distribution; of equal clusters it is wider; it is never a point."""
    values = np.random.default_rng(1).permutation(np.arange(100.0))
    low, high = interval_of_median(values, np.arange(100))
    # The binomial interval of the median of 100 values ends at the 40th and the 61st.
    assert low == pytest.approx(39, abs=1)
    assert high == pytest.approx(60, abs=1)
    together = interval_of_median(np.sort(values), np.arange(100) // 10)
    assert together[0] < low - 5
    assert together[1] > high + 5
    # Each place has a station below and one above the median.
    pairs = interval_of_median(
        np.array([1, 2, 1.1, 2.1, 1.2, 2.2, 1.3, 2.3, 1.05, 2.5, 1.15, 2.6]), np.repeat(np.arange(6), 2)
    )
    assert pairs[1] - pairs[0] > 0.5
    assert interval_of_median(values[:50], np.arange(50) // 10) == [None, None]


def test_a_pair_by_hand():
    """Errors of the first model at six stations .1, .25, .31, .12, .14, .2; of the second .2 at each."""
    station = np.repeat(np.arange(6), 2)
    observed = np.zeros(12)
    first = np.repeat([0.1, 0.25, 0.31, 0.12, 0.14, 0.2], 2)
    found = compare_pair(observed, first, np.full(12, 0.2), station)
    # Differences -.10 .05 .11 -.08 -.06 0: ranks of those that are not 0 are 4 1 5 3 2.
    assert (found["stations_first_better"], found["stations_second_better"]) == (3, 2)
    assert found["effect"] == pytest.approx((1 + 5 - 4 - 3 - 2) / 15)
    assert found["rmse_first"] == pytest.approx(np.sqrt(np.mean(first**2)))
    assert found["difference"] == pytest.approx(found["rmse_first"] - 0.2)
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    assert (found["stations"], found["n"]) == (6, 12)


def test_the_exact_p_value_of_a_small_sample():
    """Six stations all better by different amounts: 2 of the 2^6 signs are as extreme, so p = 2 / 64."""
    station = np.repeat(np.arange(6), 3)
    first = np.repeat([0.10, 0.11, 0.12, 0.13, 0.14, 0.15], 3)
    found = compare_pair(np.zeros(18), first, np.full(18, 0.2), station)
    assert found["p_value"] == pytest.approx(2 / 64)
    assert found["effect"] == -1
    same = compare_pair(np.zeros(18), first, first, station)
    assert (same["p_value"], same["effect"], same["difference"]) == (None, None, 0)


def test_a_pair_of_models_in_clusters_counts_clusters_and_not_stations():
    """Twelve stations in six clusters of two: the mean differences of the clusters are tested, and p can be 2 / 64 at the least."""
    station = np.repeat(np.arange(12), 3)
    better = np.array([0.05, 0.09, 0.01, 0.02, 0.03, 0.05, 0.02, 0.01, 0.06, 0.01, 0.10, 0.04])
    first = np.repeat(0.2 - better, 3)
    of = {i: i // 2 for i in range(12)}
    found = compare_pair(np.zeros(36), first, np.full(36, 0.2), station, Clusters("network", of))
    assert (found["stations"], found["clusters"], found["effect"]) == (12, 6, -1)
    assert found["p_value"] == pytest.approx(2 / 64)
    assert compare_pair(np.zeros(36), first, np.full(36, 0.2), station)["p_value"] < 0.005


def test_holm_by_hand():
    assert adjust_holm([0.04, 0.01, 0.5]) == pytest.approx([0.08, 0.03, 0.5])
    assert adjust_holm([]) == []


def test_groups_are_scored_apart(rows):
    observed, predicted, station = rows
    group = {s: "dry" if i < 3 else "wet" for i, s in enumerate(np.unique(station)) if i != 8}
    table = score_groups(observed, predicted, station, group)
    assert table.index.tolist() == ["dry", "wet"]
    assert table["stations"].tolist() == [3, 5]
    for name in ("dry", "wet"):
        here = np.array([group.get(s) == name for s in station])
        assert table.loc[name, "n"] == here.sum()
        assert table.loc[name, "rmse"] == pytest.approx(np.sqrt(np.mean((predicted - observed)[here] ** 2)))
    assert isinstance(table, pd.DataFrame)
