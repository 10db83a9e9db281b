"""Texture classes against points of the triangle, and that it has no hole and no overlap."""

import numpy as np
import pytest

from smgeo.report.texture import CLASSES, classify_texture


@pytest.mark.parametrize(
    ("sand", "silt", "clay", "expected"),
    [
        # Middles of the classes in the triangle of the Soil Survey Manual.
        (92, 5, 3, "sand"),
        (82, 12, 6, "loamy sand"),
        (65, 25, 10, "sandy loam"),
        (40, 40, 20, "loam"),
        (20, 65, 15, "silt loam"),
        (7, 87, 6, "silt"),
        (60, 13, 27, "sandy clay loam"),
        (33, 33, 34, "clay loam"),
        (10, 56, 34, "silty clay loam"),
        (52, 7, 41, "sandy clay"),
        (7, 47, 46, "silty clay"),
        (20, 20, 60, "clay"),
    ],
)
def test_middles_of_the_classes(sand, silt, clay, expected):
    assert classify_texture(np.array([sand]), np.array([silt]), np.array([clay])).tolist() == [expected]


def test_every_point_of_the_triangle_has_a_class():
    sand, clay = (v.ravel() for v in np.meshgrid(np.arange(0, 101), np.arange(0, 101)))
    inside = sand + clay <= 100
    sand, clay = sand[inside], clay[inside]
    found = classify_texture(sand, 100 - sand - clay, clay)
    assert set(found) == set(CLASSES)
    # Parts that miss 100 are brought to it.
    assert (classify_texture(3 * sand, 3 * (100 - sand - clay), 3 * clay) == found).all()


def test_missing_parts_have_no_class():
    assert classify_texture(np.array([np.nan, 0.0]), np.array([50.0, 0.0]), np.array([20.0, 0.0])).tolist() == ["", ""]
