"""Scores against pytesmo and slow references: moments, intervals over stations, paired tests, groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from smgeo.evaluation.scores import (
    Moments,
    adjust_holm,
    compare_pair,
    compute_scores,
    draw_stations,
    interval_of,
    score_groups,
    score_intervals,
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


def test_intervals_are_those_of_a_slow_bootstrap_of_whole_stations(rows):
    observed, predicted, station = rows
    names = np.unique(station)
    counts = draw_stations(9, 300, seed=4)
    assert (counts.sum(axis=1) == 9).all()
    slow = []
    for drawn in counts:
        at = np.concatenate([np.flatnonzero(station == s) for s, k in zip(names, drawn, strict=True) for _ in range(k)])
        error = predicted[at] - observed[at]
        slow.append([np.sqrt(np.mean(error**2)), np.mean(error)])
    found = score_intervals(observed, predicted, station, resamples=300, seed=4)
    for name, column in zip(("rmse", "bias"), np.transpose(slow), strict=True):
        np.testing.assert_allclose(found[name], np.quantile(column, [0.025, 0.975]), rtol=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Of 300 samples of 40 stations whose mean error is 0, 95 % of the intervals of the bias hold 0 (slightly fewer: 40 is few)."""
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(300):
        station = np.repeat(np.arange(40), 20)
        error = np.repeat(0.05 * rng.standard_normal(40), 20) + 0.01 * rng.standard_normal(800)
        low, high = score_intervals(np.zeros(800), error, station, resamples=400, seed=seed)["bias"]
        inside += low <= 0 <= high
    assert 0.90 <= inside / 300 <= 0.98


def test_one_station_has_no_interval():
    found = score_intervals(np.arange(5.0), np.arange(5.0) + 1, np.zeros(5))
    assert found == {n: [None, None] for n in ("rmse", "ubrmse", "bias", "r")}
    assert interval_of(np.array([np.nan, np.nan, 1.0])) == [None, None]


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
