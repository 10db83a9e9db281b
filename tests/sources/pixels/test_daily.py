"""Several observations of a day: rules by hand."""

from __future__ import annotations

import numpy as np
import pytest

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError
from smgeo.sources.pixels.daily import choose_rule, combine_day, rule_in_words
from smgeo.sources.pixels.observation import Observation, mean_observation

NAN = np.nan
VV, NDVI, RAIN = FEATURES["s1_vv"], FEATURES["ndvi"], FEATURES["precipitation"]


def day(*values):
    return [Observation(np.array(v, dtype="float32")) for v in values]


def combined(scenes, rule, *, decibels):
    return combine_day(scenes, rule, decibels=decibels).stored()


def test_what_auto_means():
    assert choose_rule("auto", NDVI, masked=True) == "clearest"
    assert choose_rule("auto", NDVI, masked=False) == "mean"
    for asked in ("mean", "clearest", "sum"):
        assert choose_rule(asked, RAIN, masked=True) == asked
    with pytest.raises(SmgeoError, match="sum of s1_vv in dB"):
        choose_rule("sum", VV, masked=False)


def test_mean_of_the_values_there_are():
    got = combined(day([1, 2, NAN], [3, NAN, NAN]), "mean", decibels=False)
    np.testing.assert_array_equal(got, [2, 2, NAN])
    assert got.dtype == np.float32


def test_decibels_are_averaged_as_power():
    # 0.1 and 0.01: 0.055, that is -12.596 dB.
    got = combined(day([-10, NAN], [-20, -7]), "mean", decibels=True)
    np.testing.assert_allclose(got, [-12.596373, -7], rtol=1e-6)
    # No power at all has no decibels.
    assert np.isnan(combined(day([-np.inf], [-np.inf]), "mean", decibels=True)).all()
    mean = mean_observation(Observation(np.array([[-np.inf], [0.0]])), decibels=True)
    np.testing.assert_allclose(mean.stored(), [10 * np.log10(0.5)], rtol=1e-6)


def test_the_clearest_first_and_the_next_where_it_has_none():
    scenes = day([1, NAN, NAN, NAN], [5, 6, NAN, NAN], [9, 9, 9, NAN])
    np.testing.assert_array_equal(combined(scenes, "clearest", decibels=False), [1, 6, 9, NAN])
    # The scenes stay as they are.
    np.testing.assert_array_equal(scenes[0].values, [1, NAN, NAN, NAN])


def test_a_sum_is_missing_where_one_is():
    np.testing.assert_array_equal(combined(day([1, 2], [3, NAN], [5, 6]), "sum", decibels=False), [9, NAN])


@pytest.mark.parametrize("rule", ["mean", "clearest", "sum"])
def test_one_observation_is_the_day_s(rule):
    # To the last bit: not through power and back.
    values = day([-10.1, NAN, 3.3])
    np.testing.assert_array_equal(combined(values, rule, decibels=rule == "mean"), values[0].values)


def test_the_order_of_scenes_does_not_change_a_mean():
    rng = np.random.default_rng(0)
    scenes = day(*(np.where(rng.random(50) < 0.3, NAN, rng.normal(-12, 3, 50)) for _ in range(4)))
    forth, back = (combined(s, "mean", decibels=True) for s in (scenes, scenes[::-1]))
    np.testing.assert_allclose(forth, back, rtol=1e-6)


def test_rules_in_words():
    assert rule_in_words("mean", VV) == "mean of a day's observations (UTC) in linear power, stored in dB"
    assert rule_in_words("mean", RAIN) == "mean of a day's observations (UTC)"
    assert rule_in_words("clearest", VV).startswith("the clearest")
    assert "missing where one is missing" in rule_in_words("sum", RAIN)
