"""What does not vary is said before a model is trained on it."""

from __future__ import annotations

import numpy as np
import pytest

from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.prepare.variation import check_variation

FEATURES = ["s1_vv", "clay", "precipitation"]


def test_features_that_vary_are_not_mentioned(make_station_cube):
    check_variation(make_station_cube(gaps=0.3).chunk({"station": 2}), FEATURES, "sm")


@pytest.mark.parametrize("value", [3.0, np.nan])
def test_features_of_one_value_are_named_before_training(make_station_cube, value):
    cube = make_station_cube()
    cube = cube.assign(clay=cube["clay"] * 0 + value, s1_vv=(cube["s1_vv"] * 0 + 1).where(cube["s1_vv"] < -12))
    with pytest.warns(SmgeoWarning, match="^s1_vv, clay: one value, or none, at all training stations on all days"):
        check_variation(cube, FEATURES, "sm")
    with pytest.raises(SmgeoError, match=r"no feature varies over the training stations \(s1_vv, clay\)"):
        check_variation(cube, FEATURES[:2], "sm")


def test_a_target_of_one_value_is_refused(make_station_cube):
    cube = make_station_cube(gaps=0.3)
    cube["sm"][:] = 0.2
    with pytest.raises(SmgeoError, match="the target sm is the same number at all training stations on all days"):
        check_variation(cube, FEATURES, "sm")
