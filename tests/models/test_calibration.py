"""Intervals against quantiles by hand, and against what they promise: coverage at stations that were not there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.errors import SmgeoError
from smgeo.models.calibration import Calibration


def _width_by_hand(errors_of_stations, level):
    """The least error at which the stations' mean share of rows, one more station without bound among them, reaches the level."""
    errors = sorted(e for own in errors_of_stations for e in own)
    for error in errors:
        share = sum(sum(e <= error for e in own) / len(own) for own in errors_of_stations)
        if share / (len(errors_of_stations) + 1) >= level - 1e-9:
            return error
    return None


def _learn(errors_of_stations, **more):
    station = np.repeat(np.arange(len(errors_of_stations)), [len(e) for e in errors_of_stations])
    errors = np.concatenate(errors_of_stations)
    return Calibration.learn(errors, np.zeros(len(errors)), station, **more)


def test_three_stations_by_hand():
    # Two rows, one row, four rows: each station weighs a quarter.
    calibration = _learn([[0.1, 0.4], [0.2], [0.05, 0.1, 0.3, 0.5]])
    assert (calibration.stations, calibration.rows) == (3, 7)
    lower, upper = calibration.bounds(np.array([0.3]), None, 0.5)
    # Up to 0.2: half of the first, all of the second, half of the third station: 2 of 4.
    assert (float(lower[0]), float(upper[0])) == pytest.approx((0.1, 0.5))
    assert calibration.bounds(np.array([0.3]), None, 0.75)[1][0] == pytest.approx(0.8)
    with pytest.raises(SmgeoError, match=r"intervals of 90 % need 9 stations.*calibrated on 3, enough for 75 %"):
        calibration.check_level(0.9)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=6), min_size=2, max_size=12),
    st.integers(1, 999),
)
def test_widths_equal_the_definition(errors, thousandths):
    level = thousandths / 1000
    wanted = _width_by_hand(errors, level)
    calibration = _learn([np.array(e, dtype=float) for e in errors])
    if wanted is None:
        with pytest.raises(SmgeoError, match="stations to learn from"):
            calibration.check_level(level)
    else:
        assert calibration.bounds(np.zeros(1), None, level)[1][0] == wanted


def test_new_stations_are_covered_as_promised():
    """Errors differ between stations much more than within one: rows taken as independent would cover too few of new stations."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        scale = rng.lognormal(sigma=1.0, size=21)
        errors = [np.abs(rng.normal(scale=s, size=200)) for s in scale]
        calibration = _learn(errors[:20])
        width = calibration.bounds(np.zeros(1), None, 0.9)[1][0]
        covered.append(np.mean(errors[20] <= width))
    assert 0.895 <= np.mean(covered) <= 0.96


def test_spread_makes_intervals_as_wide_as_the_model_is_unsure():
    rng = np.random.default_rng(1)
    spread = rng.uniform(0.5, 4, 3000)
    station = np.arange(3000) % 30
    errors = rng.normal(size=3000) * (spread + np.median(spread))
    calibration = Calibration.learn(errors, np.zeros(3000), station, spread)
    lower, upper = calibration.bounds(np.zeros(2), np.array([1.0, 3.0]), 0.9)
    offset = np.median(spread)
    assert (upper[1] - lower[1]) / (upper[0] - lower[0]) == pytest.approx((3 + offset) / (1 + offset), rel=1e-5)


def test_without_a_spread_of_the_model_it_is_the_mean_error_around_the_estimate():
    """Forty stations; errors grow with the estimate, so that intervals do, and hold as many dry rows as wet ones."""
    rng = np.random.default_rng(2)
    estimates, station = rng.uniform(0.05, 0.45, 8_000), np.arange(8_000) % 40
    errors = 0.1 * estimates * rng.standard_normal(8_000)
    found = Calibration.learn(estimates + errors, estimates, station)
    assert len(found.knots) == 8
    # The mean of |e| of a normal error is sqrt(2 / pi) of its standard deviation.
    assert np.array(found.spreads) == pytest.approx(0.1 * np.array(found.knots) * np.sqrt(2 / np.pi), rel=0.08)
    lower, upper = found.bounds(estimates, None, 0.9)
    inside = (estimates + errors >= lower) & (estimates + errors <= upper)
    for part in (estimates < 0.15, estimates > 0.35):
        assert inside[part].mean() == pytest.approx(0.9, abs=0.05)
    assert Calibration.from_dict(found.to_dict()) == found


@pytest.mark.parametrize(
    "change",
    [
        {"knots": [0.1]},
        {"knots": [0.2, 0.1], "spreads": [1.0, 1.0]},
        {"knots": [0.1, 0.2], "spreads": [1.0, 0.0]},
        {"knots": [0.1, 0.2], "spreads": [1.0, np.inf]},
        {"knots": [0.1, np.nan], "spreads": [1.0, 1.0]},
        {"knots": list(range(101)), "spreads": [1.0] * 101},
        {"knots": [0.1, 0.2], "spreads": [1.0, 1.0], "offset": 0.1},
        {"folds": -1},
    ],
)
def test_a_spread_that_is_none_is_not_read(change):
    with pytest.raises(ValueError, match="its intervals are none"):
        Calibration.from_dict({**_learn([[0.1, 0.2], [0.3]]).to_dict(), **change})


def test_ends_stay_possible_and_hold_the_estimate():
    calibration = _learn([[0.2]] * 20, limits=(0.0, 1.0))
    lower, upper = calibration.bounds(np.array([0.1, 0.95, -0.05]), None, 0.9)
    assert lower == pytest.approx([0.0, 0.75, -0.05])
    assert upper == pytest.approx([0.3, 1.0, 0.15])


def test_it_is_the_same_as_json():
    calibration = _learn([[0.1, 0.2], [0.3]], limits=(0.0, np.inf))
    assert Calibration.from_dict(calibration.to_dict()) == calibration


def test_one_station_is_no_group_of_stations():
    with pytest.raises(SmgeoError, match="two or more validation stations with values; there are 1"):
        _learn([[0.1, 0.2]])
