"""Numbers in gridded files and the values that they mean, by hand and by xarray."""

from __future__ import annotations

import warnings
from dataclasses import replace

import h5netcdf
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from smgeo.catalog import FEATURES, Feature
from smgeo.cube.tally import counting_dropped
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.sources.gridded.packing import read_packing
from smgeo.sources.gridded.reader import open_gridded

NAN = np.nan
# A variable whose range leaves every number of these files in.
ANY = {"any": Feature("any", "any number", "1", "static", "none", (-1e30, 1e30))}
DEFAULTS = netCDF4.default_fillvals  # the library's own


def netcdf(path, values, attrs=None, *, fill=None, format="NETCDF4"):
    """A file of one row of numbers, written by the netCDF library; `fill` is `_FillValue`."""
    values = np.atleast_2d(values)
    with netCDF4.Dataset(path, "w", format=format) as f:
        f.createDimension("lat", values.shape[0] + 1)
        f.createDimension("lon", values.shape[1])
        for name, positions in (("lon", np.arange(values.shape[1])), ("lat", [1.0, 0.0])):
            f.createVariable(name, "f8", (name,))[:] = positions
        v = f.createVariable("v", values.dtype, ("lat", "lon"), fill_value=fill)
        v.set_auto_maskandscale(False)
        v.setncatts(attrs or {})
        v[:] = np.concatenate([values, values])
    return path


def read(path, *, kind="netcdf", name="any", **keys):
    ds = open_gridded({"kind": kind, "path": str(path), "bands": {name: "v"}, **keys}, catalog={**FEATURES, **ANY})
    return ds[name].values[0]


@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_default_fills_mean_missing_unless_a_fill_is_declared(tmp_path, dtype):
    numbers = np.array([1, DEFAULTS[dtype], 3], dtype=dtype)
    np.testing.assert_array_equal(read(netcdf(tmp_path / "a.nc", numbers)), [1, NAN, 3])
    # With another fill value the default one is a number like any other.
    declared = read(netcdf(tmp_path / "b.nc", numbers, fill=numbers.dtype.type(3)), name="any")
    assert np.isnan(declared[2])
    assert np.isnan(declared[1]) == (abs(float(DEFAULTS[dtype])) > 1e30)  # out of the range of the variable


@pytest.mark.parametrize("dtype", ["i1", "u1"])
def test_bytes_have_no_default_fill(tmp_path, dtype):
    numbers = np.array([1, DEFAULTS[dtype], 3], dtype=dtype)
    np.testing.assert_array_equal(read(netcdf(tmp_path / "a.nc", numbers)), numbers)


def test_classic_files_are_read_alike(tmp_path):
    numbers = np.array([-2, DEFAULTS["i2"], 300], dtype="i2")
    path = netcdf(tmp_path / "a.nc", numbers, {"_Unsigned": "true"}, format="NETCDF3_CLASSIC")
    np.testing.assert_array_equal(read(path), [65534, NAN, 300])


@pytest.mark.parametrize(
    ("dtype", "attrs", "fill", "truth"),
    [
        ("i1", {"_Unsigned": "true"}, -1, [1, 200, NAN]),
        ("u1", {}, 255, [1, 200, NAN]),
        ("i1", {"_Unsigned": "true", "missing_value": np.int16(255)}, None, [1, 200, NAN]),
        ("i1", {"_Unsigned": "true", "missing_value": np.int8(-56)}, None, [1, NAN, 255]),
        ("i1", {"missing_value": np.int16(255)}, None, [1, -56, -1]),  # 255 is no signed byte
        ("u1", {"_Unsigned": "false"}, 255, [1, -56, NAN]),
        ("u1", {"missing_value": "200"}, None, [1, NAN, 255]),
        ("u1", {"missing_value": np.array([1, 255], "u1")}, None, [NAN, 200, NAN]),
    ],
)
def test_fills_have_the_sign_of_the_numbers(tmp_path, dtype, attrs, fill, truth):
    numbers = np.array([1, 200, 255], dtype="u1").view(dtype)
    path = netcdf(tmp_path / "a.nc", numbers, attrs, fill=None if fill is None else numbers.dtype.type(fill))
    np.testing.assert_array_equal(read(path), truth)


def test_a_fill_of_another_precision(tmp_path):
    numbers = np.array([-9999.9, 1, 2])
    np.testing.assert_array_equal(
        read(netcdf(tmp_path / "d.nc", numbers, {"missing_value": np.float32(-9999.9)})), [NAN, 1, 2]
    )
    single = numbers.astype("f4")
    np.testing.assert_array_equal(read(netcdf(tmp_path / "s.nc", single, {"missing_value": -9999.9})), [NAN, 1, 2])


@pytest.mark.parametrize(
    ("attrs", "truth"),
    [
        # Numbers 0, 10, 20, 30 as shorts, scaled by a tenth.
        ({"valid_range": np.array([10, 20], "i2")}, [NAN, 1, 2, NAN]),
        ({"valid_min": np.int16(10)}, [NAN, 1, 2, 3]),
        ({"valid_max": np.int16(20)}, [0, 1, 2, NAN]),
        # Of the scale's type, which is wider than the numbers': in the unit of the values.
        ({"valid_range": np.array([0.5, 2.0], "f4")}, [NAN, 1, 2, NAN]),
        ({"valid_max": np.float32(2)}, [0, 1, 2, NAN]),
        # Of a type that is neither: in that of the numbers.
        ({"valid_range": np.array([10, 20], "f8")}, [NAN, 1, 2, NAN]),
        ({"valid_range": np.array([10, 20], "i4")}, [NAN, 1, 2, NAN]),
        ({"valid_range": "10, 20"}, [NAN, 1, 2, NAN]),
        ({"valid_range": np.array([10], "i2")}, [0, 1, 2, 3]),  # no range
    ],
)
def test_valid_range_by_the_users_guide(tmp_path, attrs, truth):
    numbers = np.array([0, 10, 20, 30], dtype="i2")
    path = netcdf(tmp_path / "a.nc", numbers, {"scale_factor": np.float32(0.1), **attrs})
    np.testing.assert_allclose(read(path), truth, rtol=1e-6)
    every = read(path, honour_valid_range=False)
    np.testing.assert_allclose(every, [0, 1, 2, 3], rtol=1e-6)


def test_valid_range_of_unsigned_bytes(tmp_path):
    numbers = np.array([0, 100, 200, 250], dtype="u1").view("i1")
    attrs = {"_Unsigned": "true", "valid_range": np.array([0, 200], "u1").view("i1")}
    np.testing.assert_array_equal(read(netcdf(tmp_path / "a.nc", numbers, attrs)), [0, 100, 200, NAN])


def test_values_outside_the_file_s_range_are_counted_and_fills_are_not(tmp_path):
    numbers = np.array([0, 1, 2, -99], dtype="f4")
    path = netcdf(tmp_path / "a.nc", numbers, {"valid_min": np.float32(1)}, fill=np.float32(-99))
    with counting_dropped() as dropped:
        read(path)
    assert dropped == {"any": {"outside the file's valid_range": 2}}  # in each of two rows


def test_a_range_that_excludes_nearly_everything_is_refused(tmp_path):
    numbers = np.arange(10, dtype="i2")
    path = netcdf(tmp_path / "a.nc", numbers, {"valid_max": np.int16(1)})
    with pytest.raises(SmgeoError, match=r"16 of 20.*honour_valid_range: false"):
        read(path)
    np.testing.assert_array_equal(read(path, honour_valid_range=False), numbers)


def test_nodata_is_the_number_in_the_file(tmp_path):
    numbers = np.array([0, 10, 20], dtype="i2")
    path = netcdf(tmp_path / "a.nc", numbers, {"scale_factor": 0.5, "add_offset": 15.0})
    np.testing.assert_array_equal(read(path, nodata=20), [15, 20, NAN])  # and not 10, whose value it is
    xr.open_dataset(path, mask_and_scale=False).to_zarr(tmp_path / "a.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmgeoWarning)
        np.testing.assert_array_equal(read(tmp_path / "a.zarr", kind="zarr", nodata=20), [15, 20, NAN])
    (tmp_path / "a.csv").write_text("lat,0,1,2\n1,0,-9999.9,2\n0,0,-9999.9,2\n")
    got = read(tmp_path / "a.csv", kind="csv_grid", nodata=-9999.9, scale={"any": 2})
    np.testing.assert_array_equal(got, [0, NAN, 4])


def test_digits_that_single_precision_lacks(tmp_path):
    # 16777217 is no float32; less 16777216 it is 1.
    for dtype in ("i4", "i8", "f8"):
        numbers = np.array([2**24, 2**24 + 1, 2**24 + 3], dtype=dtype)
        path = netcdf(tmp_path / f"{dtype}.nc", numbers)
        np.testing.assert_array_equal(read(path, offset={"any": -(2**24)}), [0, 1, 3])
    (tmp_path / "a.csv").write_text("lat,0,1\n1,16777217,16777219\n0,16777217,16777219\n")
    got = read(tmp_path / "a.csv", kind="csv_grid", offset={"any": -(2**24)})
    np.testing.assert_array_equal(got, [1, 3])


def test_what_is_no_number_is_refused(tmp_path):
    with pytest.raises(SmgeoError, match=r"v contains no numbers but .*; name another variable"):
        read_packing(np.dtype("S4"), {}, "a.nc: v")
    with pytest.raises(SmgeoError, match="scale_factor is not one number"):
        read_packing(np.dtype("i2"), {"scale_factor": "x"}, "a.nc: v")
    path = netcdf(tmp_path / "a.nc", np.array([1, 2], "i2"), {"scale_factor": "0.5"})
    np.testing.assert_array_equal(read(path), [0.5, 1])


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_s_own_fill_value_is_kept_and_counted(tmp_path, version):
    group = zarr.open_group(tmp_path / "z.zarr", mode="w", zarr_format=version)
    numbers = np.array([[0, 1, 2], [0, 0, 3]], dtype="f4")

    def array(name, data, dims, **attrs):
        names = {"dimension_names": dims} if version == 3 else {}
        a = group.create_array(name, shape=data.shape, dtype=data.dtype, **names)
        a[...] = data
        a.attrs.update({"_ARRAY_DIMENSIONS": dims, **attrs} if version == 2 else attrs)
        return a

    array("lat", np.array([1.0, 0]), ["lat"])
    array("lon", np.array([0.0, 1, 2]), ["lon"])
    v = array("v", numbers, ["lat", "lon"])
    spec = {"kind": "zarr", "path": "z.zarr", "bands": {"sand": "v"}}
    with pytest.warns(SmgeoWarning, match=r"3 of 6 values of v equal the array's fill_value 0, .* set nodata: 0"):
        sand = open_gridded(spec, root=tmp_path)["sand"]
    np.testing.assert_array_equal(sand.values, numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SmgeoWarning)
        missing = open_gridded({**spec, "nodata": 0}, root=tmp_path)["sand"].values
        np.testing.assert_array_equal(missing, np.where(numbers == 0, NAN, numbers))
        # An attribute declares it.
        ds = xr.Dataset({"v": (("lat", "lon"), numbers)}, {"lat": [1.0, 0], "lon": [0.0, 1, 2]})
        if version == 3:
            ds.to_zarr(
                tmp_path / "x.zarr", zarr_format=3, encoding={"v": {"_FillValue": np.float32(0)}}, consolidated=False
            )
        else:
            v.attrs["_FillValue"] = 0.0
        declared = {**spec, "path": "x.zarr" if version == 3 else "z.zarr"}
        np.testing.assert_array_equal(open_gridded(declared, root=tmp_path)["sand"].values, missing)


@pytest.mark.parametrize("version", [2, 3])
def test_fill_values_that_xarray_writes_to_zarr(tmp_path, version):
    ds = xr.Dataset({"v": (("lat", "lon"), [[1.0, NAN], [3, 4]])}, {"lat": [1.0, 0], "lon": [0.0, 1]})
    packing = {"dtype": "int16", "_FillValue": np.int16(-5), "scale_factor": 0.5}
    for encoding in ({}, {"v": {"_FillValue": -5.0}}, {"v": packing}):
        ds.to_zarr(tmp_path / "z.zarr", mode="w", zarr_format=version, encoding=encoding, consolidated=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error", SmgeoWarning)
            got = open_gridded({"kind": "zarr", "path": "z.zarr", "bands": {"sand": "v"}}, root=tmp_path)["sand"]
        np.testing.assert_array_equal(got.values, ds["v"].values)


def backscatter(path, values, units=None):
    ds = xr.Dataset({"v": (("time", "lat", "lon"), np.asarray(values, "f4"))}, {"time": [pd.Timestamp("2020-01-01")]})
    ds = ds.assign_coords(lat=np.arange(ds.sizes["lat"])[::-1] * 1.0, lon=np.arange(ds.sizes["lon"]) * 1.0)
    if units:
        ds["v"].attrs["units"] = units
    ds.to_netcdf(path, engine="h5netcdf")
    return {"kind": "netcdf", "path": str(path), "bands": {"s1_vv": "v"}}


def test_backscatter_in_linear_power_is_refused_and_converted(tmp_path):
    power = np.array([[[0.1, 0.01, 0.05, 0.02, 0.3, 0.1], [0.2, 0.0, 0.03, 0.04, 0.01, 0.06]]])
    for units in (None, "1"):
        spec = backscatter(tmp_path / "p.nc", power, units)
        with pytest.raises(SmgeoError, match=r"convert: \{s1_vv: power_to_db\}"):
            open_gridded(spec)
    spec["convert"] = {"s1_vv": "power_to_db"}
    with np.errstate(divide="ignore"):
        truth = 10 * np.log10(power)
    truth[0, 1, 1] = NAN
    np.testing.assert_allclose(open_gridded(spec)["s1_vv"].values, truth, rtol=1e-6)
    coarse = GeoBox((1, 1), Affine(6, 0, -0.5, 0, -2, 1.5), "EPSG:4326")
    got = open_gridded({**spec, "resampling": "average"}, geobox=coarse)["s1_vv"].values
    np.testing.assert_allclose(got, [[[10 * np.log10(power.sum() / 11)]]], rtol=1e-5)


def test_decibels_are_resampled_in_linear_power(tmp_path):
    spec = backscatter(tmp_path / "d.nc", [[[-10, -20], [-10, -20]]], "dB")
    box = GeoBox((1, 1), Affine(2, 0, -0.5, 0, -2, 1.5), "EPSG:4326")
    for method, centre in (("average", 0), ("bilinear", 0)):
        got = open_gridded({**spec, "resampling": method}, geobox=box)["s1_vv"].values
        np.testing.assert_allclose(got, [[[10 * np.log10(0.055) + centre]]], rtol=1e-6)
    nearest = open_gridded({**spec, "resampling": "nearest"}, geobox=box)["s1_vv"].values
    assert nearest.item() in (-10, -20)


def test_a_source_in_another_unit_is_refused(tmp_path):
    ds = xr.Dataset({"v": (("lat", "lon"), np.full((2, 3), 0.4, "f4"))}, {"lat": [1.0, 0], "lon": [0.0, 1, 2]})
    ds["v"] = ds["v"] * 1000
    ds.to_netcdf(tmp_path / "g.nc", engine="h5netcdf")
    with pytest.raises(
        SmgeoError, match=r"g\.nc: v: 100 % of a sample of sand is outside 0 to 100 percent .*scale: \{sand: 0.1\}"
    ):
        open_gridded({"kind": "netcdf", "path": "g.nc", "bands": {"sand": "v"}}, root=tmp_path)


def test_numbers_of_big_endian_files(tmp_path):
    with h5netcdf.File(tmp_path / "b.nc", "w") as f:
        f.dimensions = {"lat": 2, "lon": 2}
        f.create_variable("lon", ("lon",), "f8", data=[0.0, 1])
        f.create_variable("lat", ("lat",), "f8", data=[1.0, 0])
        v = f.create_variable("v", ("lat", "lon"), ">i2", data=np.array([[1, -2], [-1, 300]], dtype=">i2"))
        v.attrs.update({"_Unsigned": "true", "missing_value": np.int16(-1)})
    got = open_gridded({"kind": "netcdf", "path": "b.nc", "bands": {"any": "v"}}, root=tmp_path, catalog=ANY)["any"]
    np.testing.assert_array_equal(got.values, [[1, 65534], [NAN, 300]])


def test_numbers_that_the_variable_calls_missing(tmp_path):
    own = {"any": replace(ANY["any"], missing=(-99.0, 7.0))}
    path = netcdf(tmp_path / "a.nc", np.array([-99, 7, 14], "i2"), {"scale_factor": 0.5})
    got = open_gridded({"kind": "netcdf", "path": str(path), "bands": {"any": "v"}, "nodata": 3}, catalog=own)["any"]
    np.testing.assert_array_equal(got.values[0], [NAN, NAN, 7])


def test_decibels_are_not_converted_again(tmp_path):
    spec = backscatter(tmp_path / "d.nc", [[[-10, -12, -9, -11]] * 2], "dB")
    with pytest.raises(SmgeoError, match="below 0 .* as decibels are"):
        open_gridded({**spec, "convert": {"s1_vv": "power_to_db"}})
