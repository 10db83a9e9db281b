"""A station's own mean in the training days: learned there alone, carried by the model, refused where it can't be known."""

import numpy as np
import pytest

from smgeo.errors import SmgeoError
from smgeo.prepare import Split, learnable, part_rows, prepare_cube, repeat_steps, split_periods, steps_of
from smgeo.recipe.preparation import PrepareSpec

TRAIN, TEST = ("2020-01-01", "2020-01-12"), ("2020-01-13", "2020-01-20")
PLAIN = PrepareSpec.model_validate({"fill": None, "outliers": None, "scale": "standard"})
FEATURES = ["s1_vv", "target_mean"]


@pytest.fixture
def cube(make_station_cube):
    ds = make_station_cube(stations=4, days=20)
    ds["sm"].values[:] = np.arange(4)[:, None] / 10 + np.arange(20) / 100
    ds["sm"][1, :6] = np.nan
    return ds


def test_mean_is_of_the_training_days_and_the_same_on_all_others(cube):
    split = split_periods(cube, TRAIN, TEST)
    prepared = prepare_cube(learnable(cube, split), PLAIN, FEATURES, "sm", split.train)
    # Days 0 to 11; station 1 was observed on days 6 to 11.
    truth = np.array([0.055, 0.1 + 0.085, 0.255, 0.355])
    (step, _) = steps_of(prepared.ds)
    assert step["step"] == "target_mean"
    assert list(step["values"]) == ["N/s0", "N/s1", "N/s2", "N/s3"]
    np.testing.assert_allclose(list(step["values"].values()), truth, rtol=1e-6)
    some = Split(("N/s3",), (), ("N/s3", "N/s1"), periods=split.periods)
    held = repeat_steps(part_rows(cube, some, "test", "sm"), steps_of(prepared.ds))
    scaled = (truth - truth.mean()) / truth.std()
    np.testing.assert_allclose(held["target_mean"], scaled[[3, 1]], rtol=1e-5)
    later = cube.copy(deep=True)
    later["sm"][:, 12:] = 9.0
    again = prepare_cube(learnable(later, split), PLAIN, FEATURES, "sm", split.train)
    assert steps_of(again.ds) == steps_of(prepared.ds)


def test_stations_and_pixels_without_a_mean_are_refused(cube, make_grid_cube):
    split = split_periods(cube, TRAIN, TEST)
    steps = steps_of(prepare_cube(learnable(cube, split), PLAIN, FEATURES, "sm", split.train).ds)
    strangers = cube.assign_coords(station=["M/a", "M/b", "M/c", "M/d"])
    with pytest.raises(SmgeoError, match="none of these 4 stations was trained on"):
        repeat_steps(strangers, steps)
    with pytest.raises(
        SmgeoError, match="pixels do not have: this model estimates other days of its training stations"
    ):
        repeat_steps(make_grid_cube(), steps)


def test_rows_dropped_as_outliers_are_not_in_the_mean(cube):
    split = split_periods(cube, TRAIN, TEST)
    cube["sm"][2, 3] = 9.0
    spec = PLAIN.model_copy(update={"outliers": PrepareSpec.model_validate({"outliers": {"z": 5}}).outliers})
    prepared = prepare_cube(learnable(cube, split), spec, FEATURES, "sm", split.train)
    assert prepared.outlier_rows == 1
    (step,) = (s for s in steps_of(prepared.ds) if s["step"] == "target_mean")
    others = [0.2 + day / 100 for day in range(12) if day != 3]
    assert step["values"]["N/s2"] == pytest.approx(np.mean(others), rel=1e-6)
