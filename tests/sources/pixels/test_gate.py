"""The gate of pixels: what is infinite or impossible is missing and counted, before it is averaged; another unit is refused."""

from __future__ import annotations

import math

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin

from smgeo.catalog import FEATURES, Feature
from smgeo.cube.tally import counting_dropped
from smgeo.errors import SmgeoError
from smgeo.sources import open_rasters
from smgeo.sources.pixels.gate import (
    INFINITE,
    OUTSIDE,
    refuse_decibels,
    refuse_double_offset,
    refuse_other_unit,
    screen,
)

NAN = np.nan
S1 = {"bands": {"s1_vv": 1}, "dates": "%Y%m%d.tif"}


def write(folder, values, *, nodata=None, mask=None, dtype="float32", name="20200101.tif", unit=None):
    values = np.atleast_2d(np.asarray(values, dtype=dtype))
    place = {"crs": "EPSG:32632", "transform": from_origin(500000, 5600000, 10, 10), "nodata": nodata}
    shape = {"height": values.shape[0], "width": values.shape[1]}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(folder / name, "w", driver="GTiff", count=1, dtype=dtype, **shape, **place) as dst,
    ):
        dst.write(values, 1)
        if mask is not None:
            dst.write_mask(np.atleast_2d(np.asarray(mask, dtype="uint8")))
        if unit:
            dst.set_band_unit(1, unit)
    return folder


def opened(folder, **spec):
    return open_rasters({"path": "*.tif", **S1, **spec}, root=folder)


def counted(ds):
    """The values, and what was dropped while they were computed by one thread."""
    with counting_dropped() as dropped, dask.config.set(scheduler="synchronous"):
        values = {n: v.values for n, v in ds.data_vars.items()}
    return values, dropped


# One value at a time


@given(
    st.lists(st.one_of(st.floats(width=32), st.sampled_from([0.0, 1.0, -0.0, NAN, np.inf])), min_size=1, max_size=20),
    st.sampled_from(["sm", "s1_vv", "l8_b10", "temperature"]),
)
@settings(deadline=None)  # the loop is compiled at the first
def test_each_value_is_kept_or_missing_and_counted(numbers, name):
    feature = FEATURES[name]
    low, high = feature.valid_range
    # Within rounding of an end a value is that end.
    slack = 1e-6 * max(abs(low), abs(high))
    numbers = [v for v in numbers if not (low - 2 * slack < v < low or high < v < high + 2 * slack)]
    expected = [v if low <= v <= high else NAN for v in numbers]
    with counting_dropped() as dropped:
        found = screen(np.array(numbers, dtype="float32"), feature)
    np.testing.assert_array_equal(found, np.array(expected, dtype="float32"))
    reasons = {
        INFINITE: sum(map(math.isinf, numbers)),
        OUTSIDE: sum(math.isfinite(v) and not low <= v <= high for v in numbers),
    }
    assert dropped.get(name, {}) == {reason: n for reason, n in reasons.items() if n}


def test_the_ends_of_a_range_are_inside_as_float32_stores_them():
    feature = Feature("share", "share", "1", "dynamic", "test", (0.1, 0.6))
    assert screen(np.float32([0.1, 0.6]), feature).tolist() == pytest.approx([0.1, 0.6])
    assert np.isfinite(screen(np.float32([1e-4, 10.0]), FEATURES["s1_vv"], power=True)).all()  # -40 and 10 dB


def test_rounding_of_scale_and_offset_does_not_lose_an_end_of_the_range():
    found = np.arange(0, 2000, 100, dtype="uint16") * np.float32(1e-4) + np.float32(-0.05)
    assert found[5] < 0
    with counting_dropped() as dropped:
        kept = screen(found, FEATURES["s2_b4"])
    np.testing.assert_allclose(kept[5:], np.arange(0, 0.15, 0.01), atol=1e-7)
    assert (kept[5:] >= 0).all()
    assert np.isnan(kept[:5]).all()
    assert dropped == {"s2_b4": {OUTSIDE: 5}}


def test_a_part_of_an_array_is_screened_in_place():
    whole = np.arange(12, dtype="float64").reshape(3, 4)
    part = whole[:, 1:3]
    screen(part, FEATURES["sm"])
    np.testing.assert_array_equal(whole[:, 1:3], [[1, NAN], [NAN, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(whole[:, [0, 3]], [[0, 3], [4, 7], [8, 11]])


# In files


def test_one_impossible_pixel_does_not_enter_a_mean(tmp_path):
    values = np.full((2, 8), -12.0)
    values[0, 1], values[1, 0], values[1, 4] = -np.inf, 9.97e36, -75.0
    box = GeoBox((1, 4), from_origin(500000, 5600000, 20, 20), "EPSG:32632")
    ds = open_rasters({"path": "*.tif", **S1, "resampling": "average"}, root=write(tmp_path, values), geobox=box)
    found, dropped = counted(ds)
    np.testing.assert_allclose(found["s1_vv"], np.full((1, 1, 4), -12.0), rtol=1e-6)
    assert dropped == {"s1_vv": {INFINITE: 1, OUTSIDE: 2}}


def test_power_that_is_not_positive_is_counted_and_a_border_that_is_tagged_is_not(tmp_path):
    power = np.full((4, 5), 0.1)
    power[0], power[1, 0] = 0, -1e-5
    convert = {"s1_vv": "power_to_db"}
    expected = np.full((1, 4, 5), -10.0)
    expected[0, 0], expected[0, 1, 0] = NAN, NAN
    for nodata, count in ((None, 6), (0, 1)):
        found, dropped = counted(opened(write(tmp_path, power, nodata=nodata), convert=convert))
        np.testing.assert_allclose(found["s1_vv"], expected, rtol=1e-6)
        assert dropped == {"s1_vv": {OUTSIDE: count}}
    mask = np.where(power == 0, 0, 255)
    assert counted(opened(write(tmp_path, power, mask=mask), convert=convert))[1] == {"s1_vv": {OUTSIDE: 1}}


def test_radiance_that_is_not_positive_is_counted(tmp_path):
    write(tmp_path, [[8.0, 0.0, -1.0, NAN, 9.0]])
    spec = {"bands": {"l8_b10": 1}, "convert": {"l8_b10": "landsat8_b10_to_kelvin"}}
    found, dropped = counted(opened(tmp_path, **spec))
    # 1321.0789 / ln(774.8853 / 8 + 1) and of 9
    np.testing.assert_allclose(found["l8_b10"], [[[288.2221, NAN, NAN, NAN, 295.7393]]], rtol=1e-6)
    assert dropped == {"l8_b10": {OUTSIDE: 2}}


@pytest.mark.parametrize(
    ("dtype", "missing"), [("int16", (-32768, 255)), ("float32", (1e20, 255)), ("uint8", (255, -1))]
)
def test_numbers_that_mean_missing_are_compared_as_stored(tmp_path, dtype, missing):
    own = Feature("share", "share", "percent", "dynamic", "test", (0.0, 100.0), missing=missing)
    write(tmp_path, [[10, missing[0] if missing[0] != -1 else 255, 255, 20]], dtype=dtype)
    spec = {"path": "*.tif", "dates": "%Y%m%d.tif", "bands": {"share": 1}, "scale": {"share": 0.1}}
    found, dropped = counted(open_rasters(spec, root=tmp_path, catalog={"share": own}))
    np.testing.assert_allclose(found["share"], [[[1, NAN, NAN, 2]]], rtol=1e-6)
    assert dropped == {}


# Another unit

STATIONS = xr.Dataset(coords={"station": ["N/a"], "longitude": ("station", [9.0]), "latitude": ("station", [50.54])})


@pytest.mark.parametrize(
    "where",
    [{}, {"stations": STATIONS}, {"geobox": GeoBox((4, 4), from_origin(500000, 5600000, 20, 20), "EPSG:32632")}],
)
@pytest.mark.parametrize(
    ("power", "options"),
    [
        (np.full((4, 4), 0.1), {}),
        (np.pad(np.full((4, 4), 0.1), 8), {}),  # a border without a tag
        (np.pad(np.full((4, 4), 0.1), 8, constant_values=-9999), {"nodata": -9999}),
        (np.pad(np.full((4, 4), 0.1), 8, constant_values=-12.0), {"mask": np.pad(np.full((4, 4), 255), 8)}),
        # Nothing in the middle: the values are in one quarter.
        (np.pad(np.full((200, 500), 0.1), ((0, 400), (0, 1300)), constant_values=NAN), {}),
    ],
)
def test_backscatter_in_linear_power_is_refused(tmp_path, power, options, where):
    spec = {"path": "*.tif", **S1}
    with pytest.raises(SmgeoError, match=r"20200101\.tif: 100 % .*linear power.*convert: \{s1_vv: power_to_db\}"):
        open_rasters(spec, root=write(tmp_path, power, **options), **where)


def test_decibels_that_would_be_converted_are_refused(tmp_path):
    write(tmp_path, np.full((3, 3), -12.0))
    with pytest.raises(SmgeoError, match=r"below 0 \(median -12\), as decibels are.*convert: \{s1_vv: none\}"):
        opened(tmp_path, convert={"s1_vv": "power_to_db"})
    assert float(opened(tmp_path, convert={"s1_vv": "none"})["s1_vv"].mean()) == -12
    write(tmp_path, np.full((3, 3), 0.1), unit="decibels")
    with pytest.raises(SmgeoError, match="in 'decibels' already"):
        opened(tmp_path, convert={"s1_vv": "power_to_db"})


def test_a_unit_in_the_file_that_is_not_the_cubes_names_the_conversion(tmp_path):
    write(tmp_path, np.full((3, 3), -12.0), unit="linear")
    with pytest.raises(SmgeoError, match=r"'linear', but the cube stores 'dB'; .*convert: \{s1_vv: power_to_db\}"):
        opened(tmp_path)
    write(tmp_path, np.full((3, 3), 280.0), unit="K")
    spec = {"bands": {"temperature": 1}}
    with pytest.raises(SmgeoError, match=r"offset: \{temperature: -273\.15\}"):
        opened(tmp_path, **spec)
    np.testing.assert_allclose(
        opened(tmp_path, **spec, offset={"temperature": -273.15})["temperature"], 6.85, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "values", "advice"),
    [
        ("s2_b4", np.full(9, 1200.0), r"counts of 1/10000, set scale: \{s2_b4: 0\.0001\}"),
        ("temperature", np.full(9, 290.0), r"kelvin, set offset: \{temperature: -273\.15\}"),
        ("l8_b10", np.full(9, 15.0), r"degrees Celsius, set offset: \{l8_b10: 273\.15\}"),
        ("clay", np.full(9, 250.0), r"per mille, set scale: \{clay: 0\.1\}"),
        ("clay", np.r_[np.full(6, -9999.0), 20, 30], r"set nodata: -9999"),
        ("s1_vv", np.full(9, -1200.0), r"hundredths of dB, set scale: \{s1_vv: 0\.01\}"),
    ],
)
def test_a_sample_in_another_unit_is_refused_with_its_conversion(name, values, advice):
    with pytest.raises(SmgeoError, match=advice):
        refuse_other_unit(values, FEATURES[name], "x.tif")


def test_the_advice_for_a_unit_works():
    for name, found, scale, offset in (
        ("s2_b4", 1200.0, 1e-4, 0.0),
        ("temperature", 290.0, 1.0, -273.15),
        ("l8_b10", 15.0, 1.0, 273.15),
        ("clay", 250.0, 0.1, 0.0),
    ):
        refuse_other_unit(np.full(9, found) * scale + offset, FEATURES[name], "x.tif")


def test_a_sample_of_nothing_or_of_few_values_is_not_judged():
    for values in ([], [NAN], [0.0, 2.0, 3.0]):
        refuse_other_unit(np.array(values), FEATURES["s1_vv"], "x.tif")
    refuse_decibels(np.array([0.1, 0.2, -1e-6, 0.0]), FEATURES["s1_vv"], "x.tif")  # noise that was subtracted


def test_reflectance_with_its_offset_twice_is_refused():
    vegetation = np.array([0.02, 0.03, 0.04, 0.3, 0.31, 0.35, 0.4, 0.05, 0.06, 0.07])
    with pytest.raises(SmgeoError, match=r"60 % .*offset: \{s2_b4: 0\}"):
        refuse_double_offset(vegetation - 0.1, FEATURES["s2_b4"], "x.tif")
    for kept in (vegetation, vegetation - 0.03, np.full(9, -9999.0), np.full(9, NAN)):
        refuse_double_offset(kept, FEATURES["s2_b4"], "x.tif")
    refuse_double_offset(vegetation - 0.1, FEATURES["ndvi"], "x.tif")
