"""Layers of a scene: missing values as each type stores them, masks that a file holds itself, flags."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from smgeo.catalog import FEATURES, MASKS, Mask
from smgeo.sources import open_rasters
from smgeo.sources.scenes.layers import is_masked

NAN = np.nan


def write(path, *bands, dtype="float32", nodata=None, mask=None, **options):
    bands = np.asarray(bands, dtype=dtype)
    profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    place = {"crs": "EPSG:32632", "transform": from_origin(500000, 5600000, 100, 100)}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile, **place, dtype=dtype, nodata=nodata, **options) as dst,
    ):
        dst.write(bands)
        if mask is not None:
            dst.write_mask(np.asarray(mask, dtype="uint8"))
    return path


def elevation(path, **spec):
    """Its values, of any size."""
    anything = {"elevation": replace(FEATURES["elevation"], valid_range=(-3e38, 3e38))}
    return open_rasters({"path": str(path), "bands": {"elevation": 1}, **spec}, catalog=anything)["elevation"].values


@pytest.mark.parametrize(
    ("dtype", "numbers", "nodata", "expected"),
    [
        ("uint16", [32768, 1], -32768, [32768, 1]),  # which wraps to 32768 as uint16
        ("uint8", [241, 0], -9999, [241, 0]),  # to 241 as uint8
        ("uint8", [0, 1], 0.5, [0, 1]),
        ("int16", [-32768, 1], -32768, [NAN, 1]),
        ("float32", [-3.4e38, 1], -3.4e38, [NAN, 1]),
        ("float32", [NAN, 1], 1, [NAN, NAN]),
    ],
)
def test_missing_is_what_the_type_can_store(tmp_path, dtype, numbers, nodata, expected):
    path = write(tmp_path / "a.tif", [numbers], dtype=dtype)
    np.testing.assert_array_equal(elevation(path, nodata=nodata), np.asarray([expected], dtype="float32"))


def test_a_scaled_integer_is_compared_before_it_is_scaled(tmp_path):
    path = write(tmp_path / "a.tif", [[-32768, 120, 0]], dtype="int16", nodata=-32768)
    np.testing.assert_array_equal(elevation(path, scale={"elevation": 0.1}), np.float32([[NAN, 12, 0]]))


def test_a_files_own_mask_leaves_pixels_out(tmp_path):
    path = write(tmp_path / "a.tif", [[1, 2], [3, 4]], dtype="uint8", mask=[[255, 0], [255, 255]])
    np.testing.assert_array_equal(elevation(path), [[1, NAN], [3, 4]])


def test_an_alpha_band_leaves_transparent_pixels_out(tmp_path):
    path = write(tmp_path / "a.tif", [[1, 2, 3]], [[255, 0, 128]], dtype="uint8", alpha="yes")
    np.testing.assert_array_equal(elevation(path), [[1, NAN, 3]])


@pytest.mark.parametrize(
    ("rule", "clear", "hidden"),
    [
        # 2720: clear, all confidences low; 2800: cloud, high; 2976: shadow, high; 6816: cirrus, high; 3744: snow, high.
        ("landsat_c1", [2720, 3744], [1, 2800, 2976, 6816]),
        # 21824: clear; 21952: water, clear; 30048: snow, clear; 22280: cloud; 23888: shadow; 54596: cirrus; 21826: dilated.
        ("landsat_c2", [21824, 21952, 30048], [1, 22280, 23888, 54596, 21826]),
        ("s2_scl", [2, 4, 5, 6, 7, 11], [0, 1, 3, 8, 9, 10]),
        # 65: produced, error of 2 K at most.
        ("modis_lst", [0, 65], [2, 3]),
    ],
)
@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_flags_mean_what_their_specification_says(rule, clear, hidden, dtype):
    assert not is_masked(np.array(clear, dtype=dtype), MASKS[rule]).any()
    assert is_masked(np.array(hidden, dtype=dtype), MASKS[rule]).all()


def test_a_flag_that_is_no_number_says_nothing_of_a_clear_sky():
    assert is_masked(np.float32([0, NAN, 4]), Mask(bits=(2,))).tolist() == [False, True, True]
