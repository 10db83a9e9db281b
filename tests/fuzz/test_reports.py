"""Inputs that went wrong elsewhere, rebuilt as small files: each test is a row of docs/failures.md.

Files are written by xarray, rasterio, zarr or by hand, and the right values are known beforehand.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import warnings
from contextlib import contextmanager

import h5py
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

import smgeo
from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, SmgeoWarning
from tests.range_server import collection

# Its range contains every fill value of these files, so that nothing is missing only because it is impossible.
OWN = {**FEATURES, "any": Feature("any", "any number", "1", "dynamic", "a test", (-1e9, 1e9), 1.0)}
LAT, LON = [50.2, 50.1, 50.0], [8.0, 8.1, 8.2]
NORTH, EAST = {"units": "degrees_north"}, {"units": "degrees_east"}
SQUARE = np.arange(9, dtype="float32").reshape(3, 3)  # no turn or reflection of it is itself
NAN = np.nan


def dataset(values, attrs=None, *, time="2020-01-01", lat=LAT, lon=LON, dims=("time", "lat", "lon")):
    """A Dataset with the variable `v`, on the days from `time` on (or on its stamps)."""
    values = np.asarray(values)
    if values.ndim == 2 and "time" in dims:
        values = values[None]
    if isinstance(time, str):
        time = pd.date_range(time, periods=values.shape[dims.index("time")] if "time" in dims else 1)
    coords = {"lat": ("lat", lat, NORTH), "lon": ("lon", lon, EAST)}
    if "time" in dims:
        coords["time"] = time
    return xr.Dataset({"v": (dims, values, attrs or {})}, coords)


def read(path, name="any", kind="netcdf", **keys):
    where = {k: keys.pop(k) for k in ("stations", "geobox", "period") if k in keys}
    return smgeo.open_rasters({"kind": kind, "path": str(path), "bands": {name: "v"}, **keys}, catalog=OWN, **where)[
        name
    ]


def by_day(values):
    """{day: value of the middle pixel}."""
    middle = values.isel(y=values.sizes["y"] // 2, x=values.sizes["x"] // 2).values
    return dict(zip(values["time"].dt.strftime("%Y-%m-%d").values.tolist(), middle.tolist(), strict=True))


def places(lon, lat):
    names = np.array([f"s{i}" for i in range(len(lon))], dtype=object)
    return xr.Dataset(coords={"station": names, "latitude": ("station", lat), "longitude": ("station", lon)})


def refuses(*words):
    """A refusal whose message contains all the words."""
    return pytest.raises(SmgeoError, match="(?is)" + "".join(f"(?=.*(?:{w}))" for w in words))


@contextmanager
def announces(pattern):
    """A warning or a refusal that matches the pattern."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            yield
        except SmgeoError as error:
            assert re.search(pattern, str(error)), error
            return
    assert any(re.search(pattern, str(w.message)) for w in found), [str(w.message) for w in found]


# NetCDF: numbers


def test_unsigned_numbers_with_a_signed_fill_and_range(tmp_path):
    raw = np.array([[0, 65533], [40000, 65535]], "uint16").view("int16")
    attrs = {
        "_Unsigned": "true",
        "_FillValue": np.int16(-1),
        "valid_range": np.array([0, -6], "int16"),
        "scale_factor": 0.5,
    }
    dataset(raw, attrs, lat=LAT[:2], lon=LON[:2]).to_netcdf(tmp_path / "a.nc")
    np.testing.assert_array_equal(read(tmp_path / "a.nc").values[0], [[0, NAN], [20000, NAN]])


def test_numbers_that_are_declared_signed(tmp_path):
    attrs = {"_Unsigned": "false", "scale_factor": 0.5, "add_offset": 10.0}
    dataset(np.array([[-4, 0], [2, 4]], "int8"), attrs, lat=LAT[:2], lon=LON[:2]).to_netcdf(tmp_path / "a.nc")
    np.testing.assert_array_equal(read(tmp_path / "a.nc").values[0], [[8, 10], [11, 12]])


def test_files_packed_differently(tmp_path):
    for day, (raw, scale, offset) in enumerate([(100, 0.01, 4.0), (100, 0.002, -7.0)], start=1):
        attrs = {"scale_factor": scale, "add_offset": offset}
        dataset(np.full((3, 3), raw, "int16"), attrs, time=f"2020-01-0{day}").to_netcdf(tmp_path / f"{day}.nc")
    assert by_day(read(tmp_path / "?.nc")) == pytest.approx({"2020-01-01": 5.0, "2020-01-02": -6.8})


def test_numbers_written_as_text_in_attributes(tmp_path):
    attrs = {"missing_value": "-32767", "scale_factor": "0.005"}
    raw = np.array([[200, -32767], [-32767, 400]], "int16")
    dataset(raw, attrs, lat=LAT[:2], lon=LON[:2]).to_netcdf(tmp_path / "a.nc")
    np.testing.assert_allclose(read(tmp_path / "a.nc").values[0], [[1, NAN], [NAN, 2]])


def test_several_missing_values(tmp_path):
    raw = np.array([[1, -998], [-999, 2]], "int16")
    attrs = {"missing_value": np.array([-999, -998], "int16")}
    dataset(raw, attrs, lat=LAT[:2], lon=LON[:2]).to_netcdf(tmp_path / "a.nc")
    np.testing.assert_array_equal(read(tmp_path / "a.nc").values[0], [[1, NAN], [NAN, 2]])


def test_fill_of_more_digits_than_the_numbers(tmp_path):
    values = np.array([[0.1, -99.9], [-99.9, 0.2]], "float32")
    dataset(values, lat=LAT[:2], lon=LON[:2]).to_netcdf(tmp_path / "a.nc", encoding={"v": {"_FillValue": None}})
    with h5py.File(tmp_path / "a.nc", "a") as file:
        file["v"].attrs["_FillValue"] = np.float64(-99.9)
    np.testing.assert_allclose(read(tmp_path / "a.nc").values[0], [[0.1, NAN], [NAN, 0.2]])


def test_hours_without_a_value_do_not_sum_to_zero(tmp_path):
    hours = pd.date_range("2020-06-01", periods=72, freq="h")
    rain = np.where(np.arange(72)[:, None, None] // 24 == 1, NAN, np.ones((72, 3, 3), "float32"))
    dataset(rain, {"units": "mm"}, time=hours).to_netcdf(tmp_path / "a.nc")
    got = read(tmp_path / "a.nc", "precipitation", daily="sum").values[:, 1, 1]
    np.testing.assert_array_equal(got, [24, NAN, 24])


def test_totals_of_a_month_are_not_those_of_a_day(tmp_path):
    months = pd.to_datetime(["2020-01-01", "2020-02-01", "2020-03-01"])
    dataset(np.full((3, 3, 3), 90.0, "float32"), {"units": "mm"}, time=months).to_netcdf(tmp_path / "a.nc")
    with refuses("precipitation", "month|days"):
        read(tmp_path / "a.nc", "precipitation")


def test_totals_of_three_hours(tmp_path):
    dataset(np.full((1, 3, 3), 1.0, "float32"), {"units": "mm/3h"}).to_netcdf(tmp_path / "a.nc")
    with refuses("mm/3h", "mm d-1", "scale"):
        read(tmp_path / "a.nc", "precipitation")


@pytest.mark.parametrize("unit", ["kg m-2 d-1", "kg m-2 day-1", "kg m**-2 day**-1"])
def test_kilograms_of_rain_are_millimetres(tmp_path, unit):
    dataset(np.full((1, 3, 3), 7.0, "float32"), {"units": unit}).to_netcdf(tmp_path / "a.nc")
    assert by_day(read(tmp_path / "a.nc", "precipitation")) == {"2020-01-01": 7.0}


def test_flux_of_rain_names_its_conversion(tmp_path):
    dataset(np.full((1, 3, 3), 1e-4, "float32"), {"units": "kg m-2 s-1"}).to_netcdf(tmp_path / "a.nc")
    with refuses("kg m-2 s-1", "86400"):
        read(tmp_path / "a.nc", "precipitation")
    got = read(tmp_path / "a.nc", "precipitation", scale={"precipitation": 86400})
    assert by_day(got) == pytest.approx({"2020-01-01": 8.64})


# NetCDF: times


def stamped(path, values, units, *, dtype="float64", calendar=None):
    """A file with a day's pixels for each number of its time axis."""
    attrs = {"units": units} | ({"calendar": calendar} if calendar else {})
    pixels = np.arange(1, len(values) + 1, dtype="float32")[:, None, None] * np.ones((3, 3), "float32")
    dataset(pixels, time=("time", np.array(values, dtype), attrs)).to_netcdf(path)


def test_months_since(tmp_path):
    stamped(tmp_path / "a.nc", [0, 1, 14], "months since 2019-01-15")
    with refuses("months since", "days since|dates"):
        read(tmp_path / "a.nc")


def test_years_without_leap_days(tmp_path):
    # 2020-02-28 and the next day, of a year of 365 days.
    stamped(tmp_path / "a.nc", [365 + 58, 365 + 59], "days since 2019-01-01", calendar="noleap")
    assert by_day(read(tmp_path / "a.nc")) == {"2020-02-28": 1.0, "2020-03-01": 2.0}


def test_files_count_from_different_dates(tmp_path):
    stamped(tmp_path / "1.nc", [1.0], "days since 2019-12-31")
    stamped(tmp_path / "2.nc", [24.0], "hours since 2020-01-31")
    assert by_day(read(tmp_path / "?.nc")) == {"2020-01-01": 1.0, "2020-02-01": 1.0}


def test_single_precision_times(tmp_path):
    days = [(dt.date(2020, 1, 1) - dt.date(1980, 1, 1)).days + n for n in range(3)]
    stamped(tmp_path / "a.nc", days, "days since 1980-1-1 0:0:0", dtype="float32", calendar="gregorian")
    assert by_day(read(tmp_path / "a.nc")) == {"2020-01-01": 1.0, "2020-01-02": 2.0, "2020-01-03": 3.0}


def test_days_since_the_year_one(tmp_path):
    # The standard calendar has the Julian leap years before 1582, two days more than the proleptic one: GrADS and NOMADS count so.
    stamped(tmp_path / "a.nc", [738841.25, 738842.041667], "days since 1-1-1 00:00:0.0")
    assert by_day(read(tmp_path / "a.nc")) == {"2023-11-16": 1.0, "2023-11-17": 2.0}


def test_times_are_packed(tmp_path):
    stamped(tmp_path / "a.nc", [0, 4], "days since 2020-01-01", dtype="int16")
    with h5py.File(tmp_path / "a.nc", "a") as file:
        file["time"].attrs["scale_factor"] = 0.5
    assert by_day(read(tmp_path / "a.nc")) == {"2020-01-01": 1.0, "2020-01-03": 2.0}


# NetCDF: places


def test_rows_from_south_to_north(tmp_path):
    dataset(SQUARE[::-1], lat=LAT[::-1]).to_netcdf(tmp_path / "a.nc")
    np.testing.assert_array_equal(read(tmp_path / "a.nc").values[0], SQUARE)


def test_longitude_comes_before_latitude(tmp_path):
    dataset(SQUARE.T[None], dims=("time", "lon", "lat")).to_netcdf(tmp_path / "a.nc")
    np.testing.assert_array_equal(read(tmp_path / "a.nc").values[0], SQUARE)


def test_degrees_are_packed(tmp_path):
    ds = dataset(SQUARE)
    packing = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": None}
    ds.to_netcdf(tmp_path / "a.nc", encoding={"lat": packing, "lon": packing})
    got = read(tmp_path / "a.nc", stations=places([8.0, 8.2], [50.1, 50.0]))
    np.testing.assert_array_equal(got.values[:, 0], [3, 8])


def geostationary(folder, *, packed):
    """Pixels of a satellite above 75° W around 97° W, 40° N, as scan angles in radians; and that place."""
    height = 35786023.0
    mapping = {
        "grid_mapping_name": "geostationary", "perspective_point_height": height, "semi_major_axis": 6378137.0,
        "semi_minor_axis": 6356752.31414, "latitude_of_projection_origin": 0.0, "longitude_of_projection_origin": -75.0,
        "sweep_angle_axis": "x",
    }  # fmt: skip
    crs = "+proj=geos +h=35786023 +lon_0=-75 +sweep=x +a=6378137 +b=6356752.31414"
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(-97.0, 40.0)
    step = 56e-6  # rad, 2 km
    ds = xr.Dataset({"v": (("y", "x"), SQUARE, {"grid_mapping": "p"}), "p": ((), 0, mapping)})
    for axis, middle, turn in (("x", x / height, 1), ("y", y / height, -1)):
        attrs = {"units": "rad", "standard_name": f"projection_{axis}_coordinate"}
        first = middle - turn * step
        if packed:
            ds[axis] = (axis, np.arange(3, dtype="int16"), {**attrs, "scale_factor": turn * step, "add_offset": first})
        else:
            ds[axis] = (axis, first + turn * step * np.arange(3), attrs)
    ds.to_netcdf(folder / "g.nc", encoding={n: {"_FillValue": None} for n in ("x", "y")})
    return places([-97.0], [40.0])


@pytest.mark.parametrize("packed", [False, True])
def test_scan_angles_of_a_geostationary_satellite(tmp_path, packed):
    here = geostationary(tmp_path, packed=packed)
    got = read(tmp_path / "g.nc", dates=dt.date(2020, 1, 1), stations=here)
    np.testing.assert_array_equal(got.values, [[4]])


def test_rotated_pole(tmp_path):
    mapping = {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": 39.25,
        "grid_north_pole_longitude": -162.0,
    }
    # The axes of the rotated grid meet at 18° E, 50.75° N: there the pole is 90° away.
    ds = xr.Dataset({"v": (("rlat", "rlon"), SQUARE, {"grid_mapping": "p"}), "p": ((), 0, mapping)})
    ds["rlat"] = ("rlat", [0.11, 0.0, -0.11], {"units": "degrees", "standard_name": "grid_latitude"})
    ds["rlon"] = ("rlon", [-0.11, 0.0, 0.11], {"units": "degrees", "standard_name": "grid_longitude"})
    ds.to_netcdf(tmp_path / "r.nc")
    got = read(
        tmp_path / "r.nc",
        dates=dt.date(2020, 1, 1),
        stations=places([18.0, 18.0 + 0.11 / np.cos(np.radians(50.75))], [50.75, 50.75]),
    )
    np.testing.assert_array_equal(got.values[:, 0], [4, 5])


def test_first_longitude_comes_again_at_the_end(tmp_path):
    lon = np.arange(0, 361, 30.0)
    values = np.tile(np.r_[np.arange(12), 0].astype("float32"), (5, 1))
    dataset(values, lat=[60.0, 30.0, 0.0, -30.0, -60.0], lon=lon).to_netcdf(tmp_path / "a.nc")
    got = read(tmp_path / "a.nc", stations=places([-30.0, 2.0, 150.0, -170.0], [30.0] * 4))
    np.testing.assert_array_equal(got.values[:, 0], [11, 0, 5, 6])


# NetCDF, GRIB and HDF5: what a file is


def test_sign_in_page_in_place_of_a_file(tmp_path):
    (tmp_path / "a.nc").write_text("<!DOCTYPE html>\n<html><head><title>Earthdata Login</title></head></html>\n")
    with refuses("a.nc", "html"):
        read(tmp_path / "a.nc")


def test_classic_file_of_which_a_part_is_lacking(tmp_path):
    dataset(np.ones((40, 3, 3), "float32")).to_netcdf(tmp_path / "whole.nc", format="NETCDF3_64BIT", engine="scipy")
    whole = (tmp_path / "whole.nc").read_bytes()
    (tmp_path / "a.nc").write_bytes(whole[: len(whole) - 800])
    with refuses("a.nc"):
        read(tmp_path / "a.nc").compute()


def test_classic_file_with_numbers_of_64_bits(tmp_path):
    pytest.importorskip("netCDF4")
    dataset(SQUARE).to_netcdf(tmp_path / "a.nc", format="NETCDF3_64BIT_DATA", engine="netcdf4")
    try:
        got = read(tmp_path / "a.nc").values[0]
    except SmgeoError as error:
        assert "netCDF4" in str(error) or "nccopy" in str(error)
    else:
        np.testing.assert_array_equal(got, SQUARE)


def test_numbers_compressed_by_a_plugin(tmp_path):
    dataset(SQUARE).to_netcdf(tmp_path / "a.nc")
    with h5py.File(tmp_path / "a.nc", "a") as file:
        attrs = {k: v for k, v in file["v"].attrs.items() if k != "DIMENSION_LIST"}
        dims = [file[n] for n in ("time", "lat", "lon")]
        del file["v"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 3, 3))
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # Zstandard, a plugin
        space = h5py.h5s.create_simple((1, 3, 3))
        made = h5py.Dataset(h5py.h5d.create(file.id, b"v", h5py.h5t.IEEE_F32LE, space, plist))
        made.id.write_direct_chunk((0, 0, 0), b"not read", 0)
        for key, value in attrs.items():
            if not key.startswith("_Netcdf4"):
                made.attrs[key] = value
        for i, dim in enumerate(dims):
            made.dims[i].attach_scale(dim)
    with refuses("a.nc", "hdf5plugin"):
        read(tmp_path / "a.nc").compute()


def grib(path):
    """280 K at 2 m, as GDAL writes GRIB2."""
    with rasterio.open(
        path.with_suffix(".tif"), "w", driver="GTiff", height=3, width=3, count=1, dtype="float32", crs="EPSG:4326",
        transform=from_origin(7.95, 50.25, 0.1, 0.1),
    ) as dst:  # fmt: skip
        dst.write(np.full((1, 3, 3), 280.0, "float32"))
    rasterio.shutil.copy(
        path.with_suffix(".tif"), path, driver="GRIB", INPUT_UNIT="K", DISCIPLINE="0",
        IDS_REF_TIME="2020-01-01T00:00:00Z", PDS_PDTN="0",
        PDS_TEMPLATE_ASSEMBLED_VALUES="0 0 2 255 99 0 0 1 0 103 0 2 255 0 0",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"GRIB\x00\x00\x00\x02", ["GRIB", "grib_to_netcdf"]),
        (b"\x0e\x03\x13\x01", ["HDF4", "h4toh5"]),
        (b"PK\x03\x04", ["zip", "unpack"]),
        (b"\x1f\x8b\x08", ["gzip", "gunzip"]),
        (b"II*\x00", ["TIFF", "kind: geotiff"]),
        (b"", ["empty", "again"]),
    ],
)
def test_grib_is_not_netcdf(tmp_path, first, words):
    (tmp_path / "a.nc").write_bytes(first + bytes(200) if first else b"")
    with refuses("a.nc", *words):
        read(tmp_path / "a.nc")


def test_grib_turns_kelvin_into_degrees(tmp_path):
    with rasterio.Env() as env:
        if "GRIB" not in env.drivers():
            pytest.skip("GDAL without GRIB")
    grib(tmp_path / "a.grib2")
    spec = {"path": str(tmp_path / "a.grib2"), "dates": "2020-01-01"}
    got = smgeo.open_rasters({**spec, "bands": {"temperature": 1}}).temperature.values
    np.testing.assert_allclose(got, 6.85, atol=0.01)
    with refuses("l8_b10", "offset"):
        smgeo.open_rasters({**spec, "bands": {"l8_b10": 1}})


# Zarr


def test_chunk_that_was_never_written(tmp_path):
    ds = dataset(np.ones((2, 3, 3), "float32"))
    ds.to_zarr(tmp_path / "a.zarr", encoding={"v": {"chunks": (1, 3, 3)}}, consolidated=False)
    (tmp_path / "a.zarr" / "v" / "c" / "1" / "0" / "0").unlink()
    assert by_day(read(tmp_path / "a.zarr", kind="zarr")) == pytest.approx(
        {"2020-01-01": 1.0, "2020-01-02": NAN}, nan_ok=True
    )


@pytest.mark.parametrize("form", [2, 3])
def test_zeros_that_equal_the_default_fill_are_announced(tmp_path, form):
    dataset(np.zeros((1, 3, 3), "int16")).drop_vars("v").to_zarr(
        tmp_path / "a.zarr", zarr_format=form, consolidated=False
    )
    group = zarr.open_group(tmp_path / "a.zarr", mode="a")
    keys = {"dimension_names": ("time", "lat", "lon")} if form == 3 else {}
    array = group.create_array("v", shape=(1, 3, 3), chunks=(1, 3, 3), dtype="int16", fill_value=0, **keys)
    array[:] = np.array([[[0, 1, 2], [0, 4, 5], [6, 7, 8]]], "int16")
    array.attrs["_ARRAY_DIMENSIONS"] = ["time", "lat", "lon"]
    with pytest.warns(SmgeoWarning, match=r"(?s)a\.zarr.*fill"):
        got = read(tmp_path / "a.zarr", kind="zarr").values[0]
    np.testing.assert_array_equal(got[2], [6, 7, 8])


def test_fill_of_the_array_is_no_value(tmp_path):
    dataset(np.zeros((1, 3, 3), "uint16")).drop_vars("v").to_zarr(
        tmp_path / "a.zarr", zarr_format=3, consolidated=False
    )
    group = zarr.open_group(tmp_path / "a.zarr", mode="a")
    array = group.create_array(
        "v", shape=(1, 3, 3), chunks=(1, 3, 3), dtype="uint16", fill_value=65535, dimension_names=("time", "lat", "lon")
    )
    array[:] = np.array([[[65535, 1, 2], [3, 4, 5], [6, 7, 8]]], "uint16")
    with pytest.warns(SmgeoWarning, match="65535"):
        read(tmp_path / "a.zarr", kind="zarr").compute()
    got = read(tmp_path / "a.zarr", kind="zarr", nodata=65535).values[0]
    np.testing.assert_array_equal(got, [[NAN, 1, 2], [3, 4, 5], [6, 7, 8]])


def test_days_appended_after_the_metadata_was_copied(tmp_path):
    where = {"zarr_format": 2}
    dataset(np.ones((1, 3, 3), "float32")).to_zarr(tmp_path / "a.zarr", consolidated=True, **where)
    later = dataset(2 * np.ones((1, 3, 3), "float32"), time="2020-01-02")
    later.to_zarr(tmp_path / "a.zarr", append_dim="time", consolidated=False, **where)
    assert by_day(read(tmp_path / "a.zarr", kind="zarr")) == {"2020-01-01": 1.0, "2020-01-02": 2.0}


# GeoTIFF


def tiff(path, values, *, transform=None, crs="EPSG:4326", scale=None, offset=0.0, mask=None, **tags):
    values = np.atleast_3d(np.asarray(values).T).T  # (band, y, x)
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[1], width=values.shape[2], count=len(values), dtype=values.dtype,
        crs=crs, transform=transform or from_origin(7.95, 50.25, 0.1, 0.1), **tags,
    ) as dst:  # fmt: skip
        dst.write(values)
        if scale is not None:
            dst.scales, dst.offsets = [scale] * len(values), [offset] * len(values)
        if mask is not None:
            dst.write_mask(mask)


def scene(path, name="any", band=1, **keys):
    where = {k: keys.pop(k) for k in ("stations", "geobox", "period") if k in keys}
    spec = {"path": str(path), "dates": "2020-01-01", "bands": {name: band}, **keys}
    return smgeo.open_rasters(spec, catalog=OWN, **where)[name]


def test_scale_and_offset_are_tags(tmp_path):
    tiff(tmp_path / "a.tif", np.array([[100, 0], [0, 300]], "int16"), scale=0.01, offset=-2.0, nodata=0)
    np.testing.assert_allclose(scene(tmp_path / "a.tif").values[0], [[-1, NAN], [NAN, 1]])


def test_missing_value_of_fewer_digits(tmp_path):
    tiff(tmp_path / "a.tif", np.array([[1, -3.4e38], [2, 3]], "float32"), nodata=-3.4e38)
    np.testing.assert_array_equal(scene(tmp_path / "a.tif").values[0], [[1, NAN], [2, 3]])


def test_tiles_without_a_missing_value(tmp_path):
    for n, value in enumerate((0.1, 0.2)):
        tiff(tmp_path / f"{n}.tif", np.full((2, 2), value, "float32"), transform=from_origin(8 + 0.2 * n, 50, 0.1, 0.1))
    box = GeoBox.from_bbox((8, 49.8, 8.4, 50), crs="EPSG:4326", resolution=0.1)
    np.testing.assert_allclose(scene(tmp_path / "?.tif", "s2_b4", geobox=box).values[0], [[0.1, 0.1, 0.2, 0.2]] * 2)


def test_mask_of_the_file(tmp_path):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        tiff(tmp_path / "a.tif", SQUARE, mask=SQUARE > 3)
    np.testing.assert_array_equal(scene(tmp_path / "a.tif").values[0], np.where(SQUARE > 3, SQUARE, NAN))


def test_alpha_band(tmp_path):
    alpha = np.where(SQUARE > 3, 255, 0)
    tiff(tmp_path / "a.tif", np.stack([SQUARE, SQUARE, SQUARE, alpha]).astype("uint8"), photometric="RGB", alpha="yes")
    np.testing.assert_array_equal(scene(tmp_path / "a.tif").values[0], np.where(SQUARE > 3, SQUARE, NAN))


def test_rows_from_south_to_north_in_a_geotiff(tmp_path):
    tiff(tmp_path / "a.tif", SQUARE[::-1], transform=rasterio.Affine(0.1, 0, 7.95, 0, 0.1, 49.95))
    at = scene(tmp_path / "a.tif", stations=places([8.0, 8.2], [50.2, 50.0]))
    np.testing.assert_array_equal(at.values[:, 0], [0, 8])
    box = GeoBox((3, 3), from_origin(7.95, 50.25, 0.1, 0.1), "EPSG:4326")
    np.testing.assert_array_equal(scene(tmp_path / "a.tif", geobox=box).values[0], SQUARE)


def test_masked_pixels_exported_as_zeros(tmp_path):
    values = np.full((10, 10), -12.0, "float32")
    values[:4] = 0
    tiff(tmp_path / "a.tif", values)
    got = scene(tmp_path / "a.tif", "s1_vv", nodata=0).values[0]
    assert np.isnan(got[:4]).all()
    assert (got[4:] == -12).all()
    with pytest.warns(SmgeoWarning, match="(?s)s1_vv.*nodata: 0"):
        scene(tmp_path / "a.tif", "s1_vv").compute()


# STAC


def catalogue(folder, values, properties=None, asset=None, name="sentinel-2-l2a", key="B04"):
    """A static catalogue of one item with one asset."""
    tiff(folder / "a.tif", values, crs="EPSG:32632", transform=from_origin(500000, 5500000, 10, 10), nodata=0)
    with rasterio.open(folder / "a.tif") as src:
        west, south, east, north = transform_bounds(src.crs, "EPSG:4326", *src.bounds)
        shape, transform = list(src.shape), list(src.transform)[:6]
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "one", "collection": name,
        "stac_extensions": [
            f"https://stac-extensions.github.io/{n}/schema.json" for n in ("projection/v2.0.0", "raster/v1.1.0", "eo/v1.1.0")
        ],
        "bbox": [west, south, east, north], "geometry": {"type": "Polygon", "coordinates": [ring]}, "links": [],
        "properties": {"datetime": "2022-11-01T10:00:00Z", "proj:code": "EPSG:32632", **(properties or {})},
        "assets": {key: {
            "href": "./a.tif", "type": "image/tiff; application=geotiff", "roles": ["data"], "proj:shape": shape,
            "proj:transform": transform, **(asset or {}),
        }},
    }  # fmt: skip
    (folder / "one.json").write_text(json.dumps(item))
    links = {"links": [{"rel": "item", "href": "./one.json"}]}
    (folder / "catalog.json").write_text(json.dumps({**collection(name, "."), **links}))
    return GeoBox(tuple(shape), from_origin(500000, 5500000, 10, 10), "EPSG:32632")


def stac(folder, box, **keys):
    spec = {"url": "catalog.json", "bands": ["s2_b4"], "mask": False, **keys}
    return smgeo.open_stac(spec, root=folder, geobox=box, period=("2022-11-01", "2022-11-01"))["s2_b4"].values[0]


DN = np.array([[2000, 3000, 0], [4000, 5000, 6000], [7000, 8000, 9000]], "uint16")
REFLECTANCE = np.where(DN == 0, NAN, (DN - 1000.0) / 10000)


def test_projection_as_a_code(tmp_path):
    box = catalogue(tmp_path, DN, {"s2:processing_baseline": "05.09"})
    np.testing.assert_allclose(stac(tmp_path, box), REFLECTANCE, rtol=1e-5)


def test_transform_of_nine_numbers(tmp_path):
    nine = [10, 0, 500000, 0, -10, 5500000, 0, 0, 1]
    box = catalogue(tmp_path, DN, {"s2:processing_baseline": "05.09"}, {"proj:transform": nine})
    np.testing.assert_allclose(stac(tmp_path, box), REFLECTANCE, rtol=1e-5)


def test_item_has_another_transform_than_its_file(tmp_path):
    wrong = [1, 0, 500000, 0, -1, 5500000]
    box = catalogue(tmp_path, DN, {"s2:processing_baseline": "05.09"}, {"proj:transform": wrong})
    try:
        got = stac(tmp_path, box)
    except SmgeoError as error:
        assert "transform" in str(error)
    else:
        np.testing.assert_allclose(got, REFLECTANCE, rtol=1e-5)


def test_offset_is_applied_already(tmp_path):
    band = {"raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]}
    flag = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}
    box = catalogue(tmp_path, DN, flag, band)
    np.testing.assert_allclose(stac(tmp_path, box), np.where(DN == 0, NAN, DN / 10000), rtol=1e-5)


def test_item_denies_that_its_offset_is_applied(tmp_path):
    band = {"raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]}
    flag = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False}
    box = catalogue(tmp_path, np.full((20, 20), 300, "uint16"), flag, band)  # 0.03, of which -0.07 would be made
    with refuses("s2_b4", "offset"):
        stac(tmp_path, box)


# Tables

COLUMNS = {"station": "site", "time": "t", "sm": "sm", "latitude": "lat", "longitude": "lon"}


def table(folder, text, columns=COLUMNS, **keys):
    (folder / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return smgeo.open_stations(folder / "t.csv", kind="csv", columns=columns, **keys)


def rows(times, values, site="A", place="50,8"):
    return "".join(f"{site},{t},{v},{place}\n" for t, v in zip(times, values, strict=True))


HEAD = "site,t,sm,lat,lon\n"
DAYS = ["2020-01-01", "2020-01-02"]


def test_rows_end_in_a_separator(tmp_path):
    text = HEAD + "".join(f"A,{d},{v},50,8,\n" for d, v in zip(DAYS, (0.1, 0.2), strict=True))
    got = table(tmp_path, text)
    assert list(got.station.values) == ["TABLE/A"]
    np.testing.assert_allclose(got.sm.values, [[0.1, 0.2]])
    assert (float(got.latitude[0]), float(got.longitude[0])) == (50, 8)


def test_two_columns_of_one_name(tmp_path):
    with refuses("t.csv", "sm", "columns"):
        table(tmp_path, "site,t,sm,sm,lat,lon\nA,2020-01-01,0.1,0.3,50,8\n")


def test_day_or_month_first(tmp_path):
    text = HEAD + rows(["10/9/2016", "11/9/2016"], [0.1, 0.2])
    with refuses("10/9/2016", "day_first|time_format"):
        table(tmp_path, text)
    got = table(tmp_path, text, day_first=True)
    assert str(got.time.values[0])[:10] == "2016-09-10"


def test_one_row_shows_that_the_day_is_first(tmp_path):
    got = table(tmp_path, HEAD + rows(["10/9/2016", "30/9/2016"], [0.1, 0.2]))
    assert got.sm.sel(time="2016-09-10").values == pytest.approx([0.1])
    assert got.sm.sel(time="2016-09-30").values == pytest.approx([0.2])


def test_years_of_two_digits(tmp_path):
    text = HEAD + rows(["20-01-02 10:00", "20-01-03 10:00"], [0.1, 0.2])
    with refuses("20-01-02", "time_format"):
        table(tmp_path, text)
    got = table(tmp_path, text, time_format="%y-%m-%d %H:%M")
    assert str(got.time.values[0])[:10] == "2020-01-02"


def test_export_of_a_hobo_logger(tmp_path):
    text = (
        "\ufeff\"Plot Title: Field\"\n\"#\",\"Date Time, GMT-07:00\",\"Temp., °C\",\"Water Content, m³/m³\"\n"
        "1,05/25/20 10:52:42 PM,11.2,0.21\n2,05/25/20 11:08:42 PM,11.1,0.23\n3,05/26/20 10:08:42 PM,11.0,0.31\n"
    )  # fmt: skip
    columns = {
        "station": {"value": "F1"}, "time": "Date Time, GMT-07:00", "sm": "Water Content, m³/m³",
        "latitude": {"value": 50}, "longitude": {"value": 8},
    }  # fmt: skip
    keys = {"skip_rows": 1, "time_format": "%m/%d/%y %I:%M:%S %p", "utc_offset_hours": -7}
    got = table(tmp_path, text, columns, **keys)
    assert str(got.time.values[0])[:10] == "2020-05-26"
    np.testing.assert_allclose(got.sm.values, [[0.22, 0.31]])


def test_export_of_a_campbell_logger(tmp_path):
    text = (
        '"TOA5","Field","CR1000","1031","CR1000.Std.32","CPU:soil.CR1","4062","Day"\n"TIMESTAMP","RECORD","VW_Avg"\n'
        '"TS","RN","m^3/m^3"\n"","","Avg"\n"2020-01-02 00:00:00",0,0.2\n"2020-01-03 00:00:00",1,"NAN"\n'
        '"2020-01-04 00:00:00",2,0.4\n'
    )
    columns = {"sm": "VW_Avg", "latitude": {"value": 50}, "longitude": {"value": 8}}
    got = table(tmp_path, text, columns, preset="campbell-toa5", utc_offset_hours=0)
    found = dict(zip(got.time.dt.strftime("%m-%d").values, got.sm.values[0], strict=True))
    assert found["01-01"] == pytest.approx(0.2)
    assert np.isnan(found["01-02"])
    assert found["01-03"] == pytest.approx(0.4)


def test_hour_24(tmp_path):
    got = table(tmp_path, HEAD + rows(["2020-01-01 12:00", "2020-01-01 24:00", "2020-01-02 12:00"], [0.1, 0.2, 0.4]))
    np.testing.assert_allclose(got.sm.sel(time=DAYS).values, [[0.1, 0.3]])


def test_stamps_at_the_end_of_half_hours(tmp_path):
    times = pd.date_range("2020-01-01 00:30", "2020-01-03 00:00", freq="30min")
    values = np.where(times <= "2020-01-02", 0.1, 0.3)
    got = table(tmp_path, HEAD + rows(times.strftime("%Y-%m-%d %H:%M"), values), stamps="end")
    assert got.sizes["time"] == 2
    np.testing.assert_allclose(got.sm.values, [[0.1, 0.3]])


def test_local_times_of_the_evening_are_the_next_day_in_utc(tmp_path):
    text = HEAD + rows(["2020-06-01 12:00", "2020-06-01 20:00"], [0.1, 0.3])
    got = table(tmp_path, text, utc_offset_hours=-8)
    np.testing.assert_allclose(got.sm.sel(time=["2020-06-01", "2020-06-02"]).values, [[0.1, 0.3]])


def test_offsets_before_and_after_the_change_of_clocks(tmp_path):
    times = ["2020-10-31T18:30-06:00", "2020-11-01T01:30-06:00", "2020-11-01T01:30-07:00", "2020-11-01T17:30-07:00"]
    got = table(tmp_path, HEAD + rows(times, [0.1, 0.2, 0.3, 0.9]))
    np.testing.assert_allclose(got.sm.sel(time=["2020-11-01", "2020-11-02"]).values, [[0.2, 0.9]])


def test_repeated_hour_of_local_clocks(tmp_path):
    times = ["2020-11-01 00:30", "2020-11-01 01:30", "2020-11-01 01:30", "2020-11-01 02:30"]
    with pytest.warns(SmgeoWarning, match="(?s)t.csv.*(averaged|mean)"):
        table(tmp_path, HEAD + rows(times, [0.1, 0.2, 0.3, 0.4]), utc_offset_hours=-7)


def test_some_times_have_fractions_of_seconds(tmp_path):
    got = table(tmp_path, HEAD + rows(["2020-01-01 12:00:00", "2020-01-02 12:00:00.329"], [0.1, 0.2]))
    np.testing.assert_allclose(got.sm.values, [[0.1, 0.2]])


def test_serial_dates_of_a_spreadsheet(tmp_path):
    with refuses("43831", "time_format|not a (date|time)"):
        table(tmp_path, HEAD + rows(["43831", "43832"], [0.1, 0.2]))


def test_decimal_commas(tmp_path):
    text = "site;t;sm;lat;lon\nA;2020-01-01;0,25;50,5;8\nA;2020-01-02;;50,5;8\n"
    with refuses("t.csv", "decimal"):
        table(tmp_path, text, separator=";")
    got = table(tmp_path, text, separator=";", decimal=",")
    np.testing.assert_allclose(got.sm.sel(time=DAYS).values, [[0.25, NAN]])
    assert float(got.latitude[0]) == 50.5


def test_latin_letters_in_a_header(tmp_path):
    text = "site,t,sm,lat,lon,T (°C)\nA,2020-01-01,0.1,50,8,3\n".encode("latin-1")
    with refuses("t.csv", "encoding"):
        table(tmp_path, text)
    np.testing.assert_allclose(table(tmp_path, text, encoding="latin-1").sm.values, [[0.1]])


def test_most_rows_are_missing(tmp_path):
    days = pd.date_range("2020-01-01", periods=5).strftime("%Y-%m-%d")
    text = HEAD + rows(days, [-99.0, -9999.0, -99.0, -99.0, 0.2])
    with refuses("-99", "missing"):
        table(tmp_path, text)
    np.testing.assert_allclose(table(tmp_path, text, missing=[-99, -9999]).sm.sel(time="2020-01-05").values, [0.2])


def test_one_station_is_in_percent(tmp_path):
    text = HEAD + "".join(rows(DAYS, [0.2, 0.3], site, f"50,{8 + n}") for n, site in enumerate("ABC"))
    text += rows(DAYS, [21, 23], "D", "50,12")
    with announces("TABLE/D.*percent"):
        table(tmp_path, text)


def test_station_that_moved(tmp_path):
    with refuses("A", "50", "51"):
        table(tmp_path, HEAD + rows(DAYS[:1], [0.1]) + rows(DAYS[1:], [0.2], place="51,8"))


def test_place_at_zero(tmp_path):
    text = HEAD + rows(DAYS, [0.1, 0.2]) + rows(DAYS, [0.1, 0.2], "B", "0,0")
    with pytest.warns(SmgeoWarning, match="TABLE/B"):
        table(tmp_path, text)


# ISMN


def stm(folder, network, station, values, *, depth=(0.05, 0.05), cse=None, sensor="Probe", place="45.5 3.25 120.0"):
    """A header+values file of hourly values."""
    where = folder / network / station
    where.mkdir(parents=True, exist_ok=True)
    cse = cse or network
    top, bottom = (f"{d:.6f}" for d in depth)
    hours = pd.date_range("2020-01-01", periods=len(values), freq="h")
    lines = [f"{cse} {network} {station} {place} {depth[0]:.4f} {depth[1]:.4f} {sensor}"]
    lines += [f"{t:%Y/%m/%d %H:%M} {v} G M" for t, v in zip(hours, values, strict=True)]
    path = where / f"{cse}_{network}_{station}_sm_{top}_{bottom}_{sensor}_20200101_20200103.stm"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_names_with_underscores(tmp_path):
    stm(tmp_path, "FR_Aqui", "hillan_2", [0.2] * 24, cse="FR_Aqui")
    got = smgeo.open_stations(tmp_path)
    assert list(got.station.values) == ["FR_Aqui/hillan_2"]
    np.testing.assert_allclose(got.sm.values, [[0.2]])


def test_sensor_that_reaches_below_the_range(tmp_path):
    stm(tmp_path, "N", "A", [0.2] * 24)
    stm(tmp_path, "N", "A", [0.4] * 24, depth=(0.0, 0.3), sensor="Cosmic")
    stm(tmp_path, "N", "B", [0.4] * 24, depth=(0.0, 0.3), sensor="Cosmic", place="45.6 3.25 120.0")
    got = smgeo.open_stations(tmp_path)
    assert list(got.station.values) == ["N/A"]
    np.testing.assert_allclose(got.sm.values, [[0.2]])
    assert "N/B" in json.loads(got.attrs["left_out"])


def test_table_of_static_variables_without_a_header(tmp_path):
    path = stm(tmp_path, "N", "A", [0.2] * 24)
    (path.parent / "N_N_A_static_variables.csv").write_text("clay fraction;0.00;0.30;%;20;HWSD;1\n")
    with pytest.warns(SmgeoWarning, match="(?s)static variables.*N/A"):
        got = smgeo.open_stations(tmp_path, variables=["clay"])
    np.testing.assert_allclose(got.sm.values, [[0.2]])


# Cubes


def test_stations_beyond_the_raster(tmp_path):
    dataset(SQUARE).to_netcdf(tmp_path / "a.nc")
    ds = read(tmp_path / "a.nc").to_dataset()
    with pytest.warns(SmgeoWarning, match="s1"):
        got = smgeo.extract(ds, places([8.1, 20.0], [50.1, 50.1]))
    assert list(got.station.values) == ["s0"]
    assert got["any"].values.ravel().tolist() == [4]


def test_days_appended_twice(tmp_path):
    dataset(np.stack([SQUARE, SQUARE + 1])).to_netcdf(tmp_path / "a.nc")
    ds = read(tmp_path / "a.nc").to_dataset()
    for days in (slice(0, 1), slice(0, 2), slice(0, 2)):
        smgeo.write_cube(ds.isel(time=days), tmp_path / "cube.zarr", append=True)
    assert by_day(smgeo.open_cube(tmp_path / "cube.zarr")["any"]) == {"2020-01-01": 4.0, "2020-01-02": 5.0}
