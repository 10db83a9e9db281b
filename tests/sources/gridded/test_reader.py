"""Gridded files in the layouts of their products, on grids of a few pixels with values that tell where they belong."""

from __future__ import annotations

import gzip
import json
import re

import dask
import h5netcdf
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from smgeo.cube.schema import DAY_INPUTS
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import GriddedSource
from smgeo.sources.gridded import blocks as gridded
from smgeo.sources.gridded.cuts import open_band
from smgeo.sources.gridded.reader import gridded_files, open_gridded

IMERG = {"kind": "netcdf", "path": "3B-DAY*.nc4", "bands": {"precipitation": "precipitation"}}
NEO = {"kind": "csv_grid", "path": "MOD*.CSV", "bands": {"temperature": "lst"}, "dates": "MOD11C1_*_%Y-%m-%d.CSV"}
# 0.1 degree pixels: latitudes 50.05 to 50.35 (4 rows), longitudes 9.05 to 9.25 (3 columns).
LON = np.array([9.05, 9.15, 9.25], dtype="float32")
LAT = np.array([50.05, 50.15, 50.25, 50.35], dtype="float32")


def imerg(folder, date, value=0.0, *, units="mm/day", band="precipitation", calendar="julian"):
    """GPM_3IMERGDF as its headers say: (time, lon, lat), _FillValue -9999.9, latitudes from south to north.

    Layout: doi:10.5067/GPM/IMERGDF/DAY/07; value at column i, row j from the south is value + 10 i + j.
    """
    path = folder / f"3B-DAY.MS.MRG.3IMERG.{date:%Y%m%d}-S000000-E235959.V07B.nc4"
    data = (value + 10 * np.arange(3)[:, None] + np.arange(4)[None, :]).astype("float32")
    data[2, 3] = -9999.9
    with h5netcdf.File(path, "w") as f:
        f.dimensions = {"time": 1, "lon": 3, "lat": 4}
        t = f.create_variable("time", ("time",), "i4", data=[(date - pd.Timestamp("1970-01-01")).days])
        t.attrs.update({"units": "days since 1970-01-01 00:00:00Z", "calendar": calendar, "standard_name": "time"})
        lon = f.create_variable("lon", ("lon",), "f4", data=LON)
        lon.attrs.update({"units": "degrees_east", "standard_name": "longitude", "axis": "X"})
        lat = f.create_variable("lat", ("lat",), "f4", data=LAT)
        lat.attrs.update({"units": "degrees_north", "standard_name": "latitude", "axis": "Y"})
        v = f.create_variable(band, ("time", "lon", "lat"), "f4", data=data[None], fillvalue=np.float32(-9999.9))
        v.attrs.update({"units": units, "CodeMissingValue": "-9999.9"})
    return path


# Rows from the north, columns from the west: j = 3 first.
IMERG_TRUTH = np.array([[3, 13, np.nan], [2, 12, 22], [1, 11, 21], [0, 10, 20]], dtype="float32")


@pytest.fixture
def days(tmp_path):
    for d in (1, 3):
        imerg(tmp_path, pd.Timestamp(2020, 1, d), 100 * d)
    return tmp_path


def places(*lonlat):
    lons, lats = zip(*lonlat, strict=True)
    names = [f"N/{i}" for i in range(len(lons))]
    return xr.Dataset(
        coords={"station": names, "latitude": ("station", list(lats)), "longitude": ("station", list(lons))}
    )


def grid(data, x, y, *, name="v", units=None, dims=("y", "x"), attrs=None, **coords):
    v = xr.Variable(dims, np.asarray(data, dtype="float32"), {**(attrs or {}), **({"units": units} if units else {})})
    return xr.Dataset({name: v}, {"x": ("x", x), "y": ("y", y), **coords})


def test_imerg_is_turned_north_up_and_its_fill_is_missing(days):
    ds = open_gridded(IMERG, root=days)
    p = ds["precipitation"]
    assert p.dims == ("time", "y", "x")
    assert p.dtype == np.float32
    assert [str(t)[:10] for t in ds["time"].values] == ["2020-01-01", "2020-01-03"]
    np.testing.assert_array_equal(p.values, np.stack([IMERG_TRUTH + 100, IMERG_TRUTH + 300]))
    np.testing.assert_allclose(p.odc.geobox.affine[:6], (0.1, 0, 9.0, 0, -0.1, 50.4), atol=1e-9)
    assert ds.odc.geobox.crs.epsg == 4326
    assert p.attrs["units"] == "mm d-1"
    assert p.attrs["kind"] == "dynamic"
    assert p.attrs["source"].endswith("; 3B-DAY*.nc4")
    assert p.attrs["grid_mapping"] == "spatial_ref"


def test_every_day_of_the_period(days):
    p = open_gridded(IMERG, root=days, period=("2020-01-02", "2020-01-04"))["precipitation"]
    assert p.sizes["time"] == 3
    assert np.isnan(p.values[[0, 2]]).all()
    np.testing.assert_array_equal(p.values[1], IMERG_TRUTH + 300)


def test_v06_holds_totals_in_mm(tmp_path):
    imerg(tmp_path, pd.Timestamp("2019-12-31"), band="precipitationCal", units="mm", calendar="standard")
    spec = {**IMERG, "bands": {"precipitation": "precipitationCal"}}
    np.testing.assert_array_equal(open_gridded(spec, root=tmp_path)["precipitation"].values[0], IMERG_TRUTH)


def test_half_hours_of_imerg_become_a_day(tmp_path):
    """GPM_3IMERGHH: group Grid, seconds since 1970 UTC, mm/hr; doi:10.5067/GPM/IMERG/3B-HH/07."""
    for half_hour in range(48):
        start = pd.Timestamp("2020-01-31") + pd.Timedelta(30 * half_hour, "min")
        with h5netcdf.File(tmp_path / f"3B-HHR.MS.MRG.3IMERG.{start:%Y%m%d-S%H%M%S}.V07B.HDF5", "w") as f:
            g = f.create_group("Grid")
            g.dimensions = {"time": 1, "lon": 3, "lat": 4}
            seconds = int((start - pd.Timestamp("1970-01-01")).total_seconds())
            t = g.create_variable("time", ("time",), "i4", data=[seconds])
            t.attrs.update({"units": "seconds since 1970-01-01 00:00:00 UTC", "calendar": "julian", "axis": "T"})
            g.create_variable("lon", ("lon",), "f4", data=LON).attrs.update({"units": "degrees_east", "axis": "X"})
            g.create_variable("lat", ("lat",), "f4", data=LAT).attrs.update({"units": "degrees_north", "axis": "Y"})
            rain = np.full((1, 3, 4), half_hour % 2, dtype="f4")
            rain[0, 2, 3] = -9999.9
            v = g.create_variable(
                "precipitation", ("time", "lon", "lat"), "f4", data=rain, fillvalue=np.float32(-9999.9)
            )
            v.attrs.update({"units": "mm/hr", "Units": "mm/hr"})
    spec = {**IMERG, "path": "3B-HHR*.HDF5", "group": "Grid", "daily": "mean"}
    with pytest.raises(
        SmgeoError, match="'mm/hr', but the cube stores 'mm d-1'; set scale: {precipitation: 24}, and daily: mean"
    ):
        open_gridded(spec, root=tmp_path)
    p = open_gridded({**spec, "scale": {"precipitation": 24}}, root=tmp_path)["precipitation"]
    assert [str(t)[:10] for t in p["time"].values] == ["2020-01-31"]
    np.testing.assert_array_equal(p.values[0], [[12, 12, np.nan], [12, 12, 12], [12, 12, 12], [12, 12, 12]])
    assert p.attrs["daily_rule"].startswith("mean of a day's observations (UTC); missing where one is missing")
    assert p.attrs["run"] == "final"
    next(tmp_path.glob("*S113000*")).unlink()  # a day that lacks a half hour is not extrapolated
    assert np.isnan(open_gridded({**spec, "scale": {"precipitation": 24}}, root=tmp_path)["precipitation"].values).all()


def test_stations_get_the_pixel_that_holds_them(days):
    stations = places((9.01, 50.39), (9.19, 50.01), (9.26, 50.36), (0, 0))
    p = open_gridded(IMERG, root=days, stations=stations)["precipitation"]
    assert p.dims == ("station", "time")
    np.testing.assert_array_equal(p.values, [[103, 303], [110, 310], [np.nan] * 2, [np.nan] * 2])
    assert set(p.coords) >= {"station", "latitude", "longitude", "time"}
    left_out = json.loads(open_gridded(IMERG, root=days, stations=stations).attrs["left_out"])
    assert left_out == {"N/3": "outside 3B-DAY*.nc4"}  # N/2 lies on the grid, in a pixel without a value


def test_radius_takes_the_mean_of_the_pixels_whose_centres_lie_within(days):
    # A pixel is 7.1 km wide and 11.1 km high: 8 km from a centre reach its west and east neighbours only.
    stations = places((9.15, 50.15), (9.05, 50.15))
    spec = {**IMERG, "radius_m": 8000}
    p = open_gridded(spec, root=days, stations=stations)["precipitation"].values
    np.testing.assert_allclose(p[:, 0], [100 + (1 + 11 + 21) / 3, 100 + (1 + 11) / 2])
    # Less than half a pixel: the pixel that holds it all the same.
    near = open_gridded({**IMERG, "radius_m": 10}, root=days, stations=places((9.19, 50.19)))["precipitation"].values
    np.testing.assert_array_equal(near, [[111, 311]])


def test_decibels_meet_in_power_over_a_day_and_a_footprint(tmp_path):
    hours = pd.to_datetime(["2020-01-01T06", "2020-01-01T18"])
    v = np.array([[[-20, -10, -3]], [[-12, np.nan, -7]]], dtype="float32").repeat(2, axis=1)
    ds = grid(v, [0.0, 1, 2], [1.0, 0], dims=("time", "y", "x"), time=hours).rename(x="lon", y="lat")
    ds["v"].attrs["units"] = "dB"
    ds.to_netcdf(tmp_path / "v.nc")
    spec = {"kind": "netcdf", "path": "v.nc", "bands": {"s1_vv": "v"}, "daily": "mean"}
    power = 10 ** (v[:, 0].astype("float64") / 10)
    day = np.nanmean(power, axis=0)
    for radius_m, expected in ((None, day[1]), (130_000, day.mean())):
        got = open_gridded({**spec, "radius_m": radius_m}, root=tmp_path, stations=places((1.0, 0.5)))["s1_vv"]
        np.testing.assert_allclose(got.values, [[10 * np.log10(expected)]], atol=2e-6)


@pytest.mark.parametrize("zipped", [False, True])
def test_neo_without_header_covers_the_globe(tmp_path, zipped):
    # NEO: rows from north to south, 99999 where there is no value. 8 columns of 45 degrees, 4 rows.
    table = np.arange(32, dtype=float).reshape(4, 8)
    table[0, 0] = 99999.0
    text = "\n".join(",".join(map(str, row)) for row in table) + "\n"
    spec = dict(NEO)
    if zipped:
        (tmp_path / "MOD11C1_E_LSTDA_2016-01-01.CSV.gz").write_bytes(gzip.compress(text.encode()))
        spec |= {"path": "MOD*.gz", "dates": "MOD11C1_*_%Y-%m-%d.CSV.gz"}
    else:
        (tmp_path / "MOD11C1_E_LSTDA_2016-01-01.CSV").write_text(text)
    t = open_gridded(spec, root=tmp_path)["temperature"]
    table[0, 0] = np.nan
    np.testing.assert_array_equal(t.values[0], table)
    assert t.odc.geobox.affine[:6] == (45, 0, -180, 0, -45, 90)
    assert str(t.time.values[0])[:10] == "2016-01-01"
    at = open_gridded(spec, root=tmp_path, stations=places((10, 50), (-170, -80)))["temperature"]
    np.testing.assert_array_equal(at.values[:, 0], [4, 24])


def test_neo_with_longitudes_and_latitudes(tmp_path):
    rows = ["lat/lon,10.5,11.5,12.5", "51.5,1,2,3", "50.5,4,99999.0,6"]
    (tmp_path / "MOD11C1_D_2016-01-02.CSV").write_text("\n".join(rows))
    t = open_gridded(NEO, root=tmp_path)["temperature"]
    np.testing.assert_array_equal(t.values[0], [[1, 2, 3], [4, np.nan, 6]])
    assert t.odc.geobox.affine[:6] == (1, 0, 10, 0, -1, 52)
    other = {**NEO, "path": "MOD*"}
    (tmp_path / "MOD11C1_D_2016-01-03.CSV").write_text("lat/lon,10,12,14\n51,1,2,3\n49,1,2,3\n")
    with pytest.raises(SmgeoError, match="other columns"):
        open_gridded(other, root=tmp_path)


def test_longitudes_of_0_to_360_are_rolled(tmp_path):
    # Centres 30, 90, ..., 330: the last three are -150, -90, -30 and come first.
    ds = grid([[0, 1, 2, 3, 4, 5]] * 2, np.arange(30, 360, 60.0), [60.0, 0.0])
    ds["x"].attrs["units"], ds["y"].attrs["units"] = "degrees_east", "degrees_north"
    ds.rename(x="longitude", y="latitude").to_netcdf(tmp_path / "s.nc", engine="h5netcdf")
    spec = {"kind": "netcdf", "path": "s.nc", "bands": {"sand": "v"}}
    sand = open_gridded(spec, root=tmp_path)["sand"]
    assert sand.dims == ("y", "x")
    np.testing.assert_array_equal(sand.values, [[3, 4, 5, 0, 1, 2]] * 2)
    assert sand.odc.geobox.affine[:6] == (60, 0, -180, 0, -60, 90)
    at = open_gridded(spec, root=tmp_path, stations=places((-31, 10), (31, 10), (330, 10)))["sand"]
    np.testing.assert_array_equal(at.values, [5, 0, 5])
    # A window over the seam of the file, between -60 and 60 degrees.
    box = GeoBox((1, 2), Affine(60, 0, -60, 0, -60, 90), "EPSG:4326")
    np.testing.assert_array_equal(open_gridded(spec, root=tmp_path, geobox=box)["sand"].values, [[5, 0]])


@pytest.fixture
def utm(tmp_path):
    """4 x 4 pixels of 100 m in UTM 32 N, value 10 row + column (rows from the north), written from the south."""
    data = 10 * np.arange(4)[:, None] + np.arange(4)[None, :]
    ds = grid(data[::-1], 500050 + 100 * np.arange(4.0), 5599650 + 100 * np.arange(4.0), attrs={"grid_mapping": "crs"})
    ds["crs"] = xr.Variable((), 0, CRS.from_epsg(32632).to_cf())
    ds["x"].attrs.update(standard_name="projection_x_coordinate", units="m")
    ds["y"].attrs.update(standard_name="projection_y_coordinate", units="m")
    ds.to_netcdf(tmp_path / "utm.nc", engine="h5netcdf")
    return tmp_path, data


UTM_SPEC = {"kind": "netcdf", "path": "utm.nc", "bands": {"elevation": "v", "aspect": "v"}}


def test_crs_from_the_grid_mapping_and_resampling_by_ratio(utm):
    root, data = utm
    native = open_gridded(UTM_SPEC, root=root)
    assert native.odc.geobox.crs.epsg == 32632
    np.testing.assert_array_equal(native["elevation"].values, data)
    coarse = GeoBox((2, 2), Affine(200, 0, 500000, 0, -200, 5600000), "EPSG:32632")
    averaged = open_gridded(UTM_SPEC, root=root, geobox=coarse)
    np.testing.assert_allclose(averaged["elevation"].values, [[5.5, 7.5], [25.5, 27.5]], rtol=1e-6)
    # A circle is not averaged: each value is one of the file's.
    assert set(averaged["aspect"].values.ravel()) <= set(data.ravel().astype("float32"))
    fine = GeoBox((4, 4), Affine(50, 0, 500100, 0, -50, 5599900), "EPSG:32632")
    # Centres at 0.25 and 0.75 of the way between pixel centres: the plane 10 r + c is kept exactly.
    rows, columns = 1 + (np.arange(4) + 0.5) / 2 - 0.5, 1 + (np.arange(4) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(
        open_gridded(UTM_SPEC, root=root, geobox=fine)["elevation"].values,
        10 * rows[:, None] + columns[None, :],
        rtol=1e-5,
    )
    chosen = open_gridded({**UTM_SPEC, "resampling": "nearest"}, root=root, geobox=fine)["elevation"].values
    np.testing.assert_array_equal(chosen, np.repeat(np.repeat(data[1:3, 1:3], 2, 0), 2, 1))


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average", "cubic"])
def test_the_result_does_not_depend_on_blocks(tmp_path, monkeypatch, resampling):
    values = np.random.default_rng(0).uniform(0, 20, size=(2, 40, 50)).astype("float32")
    values[:, 10:14, 20:23] = np.nan
    ds = grid(values, 8 + 0.1 * np.arange(50), 52 - 0.1 * np.arange(40), dims=("time", "y", "x"))
    ds = ds.assign_coords(time=pd.date_range("2020-01-01", periods=2)).rename(x="lon", y="lat")
    ds.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    spec = {"kind": "netcdf", "path": "a.nc", "bands": {"precipitation": "v"}, "resampling": resampling}
    for metres in (5000, 25000):
        box = GeoBox((45, 37), Affine(metres, 0, 450000, 0, -metres, 5750000), "EPSG:32632")
        whole = open_gridded(spec, root=tmp_path, geobox=box)["precipitation"].values
        assert np.isfinite(whole).sum() > 100
        with monkeypatch.context() as patch:
            patch.setattr(gridded, "GRID_SHARD", {"time": 1, "y": 7, "x": 11})
            parts = open_gridded(spec, root=tmp_path, geobox=box)["precipitation"]
            assert len(parts.data.chunks[1]) == 7
            np.testing.assert_array_equal(parts.values, whole)
            patch.setattr(gridded, "_TOGETHER", 60)  # pixels of the file at a time
            np.testing.assert_array_equal(open_gridded(spec, root=tmp_path, geobox=box)["precipitation"].values, whole)


def test_zarr_with_many_days_and_its_own_packing(tmp_path):
    v = np.arange(250, 320, dtype="float64")[:, None, None] * np.ones((1, 3, 3))
    ds = grid(v, [0.0, 1, 2], [2.0, 1, 0], units="K", dims=("time", "y", "x"))
    ds = ds.assign_coords(time=pd.date_range("2020-01-01", periods=70)).rename(x="lon", y="lat")
    packing = {"v": {"dtype": "int16", "scale_factor": 0.5, "add_offset": 100.0, "_FillValue": -32768}}
    ds.to_zarr(tmp_path / "t.zarr", encoding=packing)
    spec = {"kind": "zarr", "path": "t.zarr", "bands": {"temperature": "v"}}
    with pytest.raises(SmgeoError, match=r"'K'.*'degC'.*offset: \{temperature: -273.15\}"):
        open_gridded(spec, root=tmp_path)
    # As it is in the file: 257 K.
    spec |= {"offset": {"temperature": -273.15}, "nodata": (257 - 100) / 0.5}
    t = open_gridded(spec, root=tmp_path)["temperature"]
    assert t.data.chunks[0] == (30, 30, 10)
    truth = np.arange(250, 320) - 273.15
    truth[7] = np.nan
    np.testing.assert_allclose(t.values[:, 1, 1], truth, rtol=1e-6)
    at = open_gridded(spec, root=tmp_path, stations=places((1, 1)))["temperature"]
    np.testing.assert_allclose(at.values[0], truth, rtol=1e-6)


@pytest.mark.parametrize("harm", ["remove", "flip"])
def test_a_damaged_store_of_smgeo_is_no_source(tmp_path, harm):
    values = np.arange(60 * 4 * 4, dtype="float32").reshape(60, 4, 4) % 30
    ds = xr.Dataset({"t": (("time", "y", "x"), values, {"units": "degC"})})
    place = {"time": pd.date_range("2020-01-01", periods=60), "y": [3.0, 2, 1, 0], "x": [0.0, 1, 2, 3]}
    ds = ds.assign_coords({**place, "spatial_ref": ((), 0, {"crs_wkt": CRS("EPSG:4326").to_wkt()})})
    ds["t"].attrs["grid_mapping"] = "spatial_ref"
    store = write_cube(ds, tmp_path / "c.zarr")
    spec = {"kind": "zarr", "path": "c.zarr", "bands": {"temperature": "t"}}
    found = open_gridded(spec, root=tmp_path)["temperature"]
    np.testing.assert_allclose(found.values, values)
    file = store / "t" / "c" / "1" / "0" / "0"
    content = bytearray(file.read_bytes())
    if harm == "remove":
        file.unlink()
        with pytest.raises(SmgeoError, match="c.zarr is damaged: t/c/1/0/0 .*2020-01-31 to 2020-02-29.*: missing"):
            open_gridded(spec, root=tmp_path)
        return
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(SmgeoError, match="c.zarr: t cannot be read: .*checksum"):
        found.compute(scheduler="synchronous")


def test_several_times_a_day_need_a_rule(tmp_path):
    # Two values on 1 January (UTC), two on the 2nd, one on the 3rd, which is therefore no whole day.
    v = np.array([1, 3, np.nan, 7, 9])[:, None, None] * np.ones((1, 2, 2))
    ds = grid(v, [0.0, 1], [0.0, 1], units="mm", dims=("time", "y", "x"))
    times = pd.to_datetime(
        ["2020-01-01 00:00", "2020-01-01 12:00", "2020-01-02", "2020-01-02 12:00", "2020-01-03"], format="ISO8601"
    )
    ds.assign_coords(time=times).rename(x="lon", y="lat").to_netcdf(tmp_path / "h.nc", engine="h5netcdf")
    spec = {"kind": "netcdf", "path": "h.nc", "bands": {"precipitation": "v"}}
    with pytest.raises(SmgeoError, match="2 times on 2020-01-0.*daily: mean, or daily: sum"):
        open_gridded(spec, root=tmp_path)
    total = open_gridded({**spec, "daily": "sum"}, root=tmp_path)["precipitation"]
    np.testing.assert_array_equal(total.values[:, 0, 0], [4, np.nan, np.nan])
    assert total.attrs["daily_rule"].startswith("sum of a day's observations")
    with pytest.raises(SmgeoError, match="'mm'"):
        open_gridded({**spec, "daily": "mean"}, root=tmp_path)
    # An amount a day is not extrapolated from a part of the day; a temperature is the mean of what there is.
    mean = open_gridded({**spec, "daily": "mean", "scale": {"precipitation": 2}}, root=tmp_path)["precipitation"]
    np.testing.assert_array_equal(mean.values[:, 0, 0], [4, np.nan, np.nan])
    warm = {**spec, "bands": {"temperature": "v"}, "daily": "mean", "scale": {"temperature": 2}}
    np.testing.assert_array_equal(open_gridded(warm, root=tmp_path)["temperature"].values[:, 0, 0], [4, 14, 18])


def test_only_a_sample_is_read_and_one_task_makes_a_block(tmp_path, monkeypatch):
    for d in pd.date_range("2020-01-01", periods=40):
        imerg(tmp_path, d)
    monkeypatch.setattr(gridded, "open_band", lambda *a: pytest.fail("read, where nothing must be"))
    box = GeoBox((600, 300), Affine(0.001, 0, 9, 0, -0.001, 50.4), "EPSG:4326")
    with dask.config.set(scheduler=lambda *a, **k: pytest.fail("computed, where nothing must be")):
        ds = open_gridded(IMERG, root=tmp_path, geobox=box)
        at = open_gridded(IMERG, root=tmp_path, stations=places(*[(9.1, 50.1)] * 300))
    p = ds["precipitation"].data
    assert p.chunks == ((30, 10), (256, 256, 88), (256, 44))
    assert len(dict(p.__dask_graph__())) <= 2 * p.npartitions
    assert at["precipitation"].data.chunks == ((300,), (30, 10))
    again = open_gridded(IMERG, root=tmp_path, geobox=box)["precipitation"].data
    assert again.name == p.name
    imerg(tmp_path, pd.Timestamp("2020-01-05"), 1)
    assert open_gridded(IMERG, root=tmp_path, geobox=box)["precipitation"].data.name != p.name


def test_a_block_beside_the_source_is_missing(days):
    box = GeoBox((2, 2), Affine(1, 0, -100, 0, -1, 0), "EPSG:4326")
    assert np.isnan(open_gridded(IMERG, root=days, geobox=box)["precipitation"].values).all()


def test_times_without_dates_are_refused(tmp_path):
    ds = grid(np.ones((3, 2, 2)), [0.0, 1], [1.0, 0], dims=("time", "y", "x")).rename(x="lon", y="lat")
    ds.to_netcdf(tmp_path / "t_20200101.nc", engine="h5netcdf")
    spec = {"kind": "netcdf", "path": "t_*.nc", "bands": {"ndvi": "v"}, "dates": "t_%Y%m%d.nc"}
    with pytest.raises(SmgeoError, match="v has 3 times along 'time', and no coordinate"):
        open_gridded(spec, root=tmp_path)
    # One is that of the name.
    ds.isel(time=[0]).to_netcdf(tmp_path / "t_20200101.nc", engine="h5netcdf")
    assert open_gridded(spec, root=tmp_path)["ndvi"].sizes["time"] == 1


def test_uneven_steps_are_refused(tmp_path):
    grid(np.zeros((2, 3)), [0.0, 1, 3], [0.0, 1]).rename(x="lon", y="lat").to_netcdf(
        tmp_path / "u.nc", engine="h5netcdf"
    )
    with pytest.raises(
        SmgeoError, match=r"u\.nc: 'lon' is not evenly spaced: a step of .* after .*, of 1.5 on average"
    ):
        open_gridded({"kind": "netcdf", "path": "u.nc", "bands": {"sand": "v"}}, root=tmp_path)


def test_refusals_name_what_is_lacking(tmp_path, days):
    spec = {"kind": "netcdf", "path": "p.nc", "bands": {"sand": "v"}}
    plane = grid(np.zeros((2, 3)), [0.0, 100, 200], [0.0, 100])
    plane.to_netcdf(tmp_path / "p.nc", engine="h5netcdf")
    with pytest.raises(SmgeoError, match="neither a grid mapping nor coordinates in degrees; give crs"):
        open_gridded(spec, root=tmp_path)
    assert open_gridded({**spec, "crs": "EPSG:32632"}, root=tmp_path).odc.geobox.crs.epsg == 32632
    with pytest.raises(SmgeoError, match="no time coordinate; give dates"):
        open_gridded({**spec, "crs": "EPSG:32632", "bands": {"ndvi": "v"}}, root=tmp_path)
    with pytest.raises(SmgeoError, match="no netcdf grid matches"):
        open_gridded({**spec, "path": "nothing*.nc"}, root=tmp_path)
    with pytest.raises(SmgeoError, match="no variable 'precip' .for precipitation"):
        open_gridded({**IMERG, "bands": {"precipitation": "precip"}}, root=days)
    with pytest.raises(SmgeoError, match="does not vary in time, but there are 2 times"):
        open_gridded({**IMERG, "bands": {"sand": "precipitation"}}, root=days)
    with pytest.raises(SmgeoError, match="does not match dates"):
        (tmp_path / "MOD_x.CSV").write_text("1,2,3,4\n5,6,7,8\n")
        open_gridded(NEO, root=tmp_path)
    with pytest.raises(SmgeoError, match="not both"):
        open_gridded(IMERG, root=days, stations=places((9, 50)), geobox=GeoBox((1, 1), Affine(1, 0, 0, 0, -1, 0), 4326))


def test_files_in_the_order_of_the_patterns(days):
    spec = GriddedSource.model_validate({**IMERG, "path": ["3B*20200103*.nc4", "3B*.nc4"]})
    assert [re.findall("202001..", f.name)[0] for f in gridded_files(spec, days)] == ["20200103", "20200101"]


def test_smap_in_its_own_projection(tmp_path):
    """SMAP L4-like: EASE-Grid 2.0, variables in a group, coordinates at the root, fill -9999, CF grid mapping.

    Layout: doi:10.5067/EVKPQZ4AFC4D (SPL4SMGP, user guide); the projection is EPSG:6933 (Brodzik et al. 2012).
    """
    x, y = 700_000 + 9000 * np.arange(3.0), 5_600_000 - 9000 * np.arange(4.0)
    values = np.arange(12, dtype="float32").reshape(4, 3) / 100
    values[0, 1] = -9999
    with h5netcdf.File(tmp_path / "SMAP_L4_SM_gph_20150401T013000_Vv7032_001.h5", "w") as f:
        f.dimensions = {"x": 3, "y": 4}
        for name, positions in (("x", x), ("y", y)):
            v = f.create_variable(name, (name,), "f8", data=positions)
            v.attrs.update({"units": "m", "standard_name": f"projection_{name}_coordinate"})
        f.create_variable("EASE2_global_projection", (), "S1", data=b"a").attrs.update(
            {
                "grid_mapping_name": "lambert_cylindrical_equal_area",
                "longitude_of_central_meridian": 0.0,
                "standard_parallel": 30.0,
                "false_easting": 0.0,
                "false_northing": 0.0,
                "semi_major_axis": 6378137.0,
                "inverse_flattening": 298.257223563,
            }
        )
        group = f.create_group("Geophysical_Data")
        v = group.create_variable("sm_surface", ("y", "x"), "f4", data=values, fillvalue=np.float32(-9999))
        v.attrs.update({"units": "m3 m-3", "grid_mapping": "EASE2_global_projection"})
    spec = {"kind": "netcdf", "path": "SMAP*.h5", "group": "Geophysical_Data", "bands": {"sm": "sm_surface"}}
    spec["dates"] = "SMAP_L4_SM_gph_%Y%m%d*.h5"
    ds = open_gridded(spec, root=tmp_path)
    values[0, 1] = np.nan
    np.testing.assert_array_equal(ds["sm"].values[0], values)
    assert ds["sm"].attrs["kind"] == "target"
    assert ds.odc.geobox.affine[:6] == (9000, 0, 695_500, 0, -9000, 5_604_500)
    to_degrees = Transformer.from_crs("EPSG:6933", "EPSG:4326", always_xy=True)
    at = open_gridded(spec, root=tmp_path, stations=places(to_degrees.transform(x[2] - 4000, y[3] + 4000)))
    assert at["sm"].values.tolist() == [[values[3, 2]]]
    with pytest.raises(SmgeoError, match="group 'Geophysical'"):
        open_gridded({**spec, "group": "Geophysical"}, root=tmp_path)


def test_coordinates_in_kilometres_from_south_to_north(tmp_path):
    ds = grid([[3, 4], [1, 2]], [500.5, 501.5], [5600.5, 5601.5], attrs={"grid_mapping": "crs"})
    ds["crs"] = xr.Variable((), 0, CRS.from_epsg(32632).to_cf())
    for axis in "xy":
        ds[axis].attrs.update(standard_name=f"projection_{axis}_coordinate", units="km")
    ds.to_netcdf(tmp_path / "km.nc", engine="h5netcdf")
    got = open_gridded({"kind": "netcdf", "path": "km.nc", "bands": {"sand": "v"}}, root=tmp_path)
    assert got.odc.geobox.affine[:6] == (1000, 0, 500_000, 0, -1000, 5_602_000)
    np.testing.assert_array_equal(got["sand"].values, [[1, 2], [3, 4]])


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_packed_values_with_another_scale_in_each_file(tmp_path, engine):
    # ERA5 as NetCDF: 16-bit numbers, scale and offset of each file its own.
    for day, scale in ((1, 0.5), (2, 0.25)):
        ds = grid([[[10, 20], [30, np.nan]]], [9.0, 10], [51.0, 50], dims=("time", "y", "x"), units="degC")
        ds = ds.assign_coords(time=[pd.Timestamp(2020, 1, day)]).rename(x="longitude", y="latitude")
        packing = {"dtype": "int16", "scale_factor": scale, "add_offset": 5.0, "_FillValue": np.int16(-32767)}
        ds.to_netcdf(tmp_path / f"t{day}.nc", engine=engine, encoding={"v": packing})
    t = open_gridded({"kind": "netcdf", "path": "t*.nc", "bands": {"temperature": "v"}}, root=tmp_path)["temperature"]
    np.testing.assert_array_equal(t.values, [[[10, 20], [30, np.nan]]] * 2)


def test_unsigned_bytes_and_missing_value(tmp_path):
    with h5netcdf.File(tmp_path / "u.nc", "w") as f:
        f.dimensions = {"lat": 1, "lon": 4}
        f.create_variable("lon", ("lon",), "f8", data=[0.0, 1, 2, 3])
        f.create_variable("lat", ("lat",), "f8", data=[0.0])
    with pytest.raises(SmgeoError, match="'lat' has one position"):
        with h5netcdf.File(tmp_path / "u.nc", "a") as f:
            f.create_variable("v", ("lat", "lon"), "i1", data=[[1, 2, 3, 4]])
        open_gridded({"kind": "netcdf", "path": "u.nc", "bands": {"sand": "v"}}, root=tmp_path)
    with h5netcdf.File(tmp_path / "w.nc", "w") as f:
        f.dimensions = {"lat": 2, "lon": 2}
        f.create_variable("lon", ("lon",), "f8", data=[0.0, 1])
        f.create_variable("lat", ("lat",), "f8", data=[1.0, 0])
        v = f.create_variable("v", ("lat", "lon"), "i1", data=np.array([[1, -56], [-1, -2]], dtype="i1"))
        v.attrs.update({"_Unsigned": "true", "scale_factor": 0.5, "missing_value": np.array([-1, -2], dtype="i1")})
    sand = open_gridded({"kind": "netcdf", "path": "w.nc", "bands": {"sand": "v"}}, root=tmp_path)["sand"]
    np.testing.assert_array_equal(sand.values, [[0.5, 100], [np.nan, np.nan]])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_zarr_with_several_times_a_day(tmp_path, version, consolidated):
    # Six times a day over three days, the last of them cut short; chunks of 5 times and 2 x 2 pixels.
    hours = pd.date_range("2020-02-28", periods=17, freq="4h")
    v = np.arange(17.0)[:, None, None] + np.array([[0, 10, 20], [30, 40, 50], [60, 70, 80]])
    v[3, 0, 0] = np.nan
    ds = grid(v, [0.0, 1, 2], [2.0, 1, 0], units="mm", dims=("time", "y", "x"), time=hours).rename(x="lon", y="lat")
    encoding = {"v": {"chunks": (5, 2, 2), "_FillValue": np.float32(-9999)}}
    ds.to_zarr(tmp_path / "h.zarr", zarr_format=version, consolidated=consolidated, encoding=encoding)
    spec = {"kind": "zarr", "path": "h.zarr", "bands": {"precipitation": "v"}}
    total = open_gridded({**spec, "daily": "sum"}, root=tmp_path)["precipitation"].values
    offsets = 6 * np.array([[0, 10, 20], [30, 40, 50], [60, 70, 80]])
    truth = np.stack([15 + offsets, 51 + offsets, np.full((3, 3), np.nan)])
    truth[0, 0, 0] = np.nan
    np.testing.assert_array_equal(total, truth)
    mean = open_gridded({**spec, "daily": "mean", "scale": {"precipitation": 6}}, root=tmp_path)
    np.testing.assert_allclose(mean["precipitation"].values, truth, rtol=1e-6)
    at = open_gridded({**spec, "daily": "sum"}, root=tmp_path, stations=places((2, 0), (0, 2), (0.1, 1.9), (1, 1)))
    np.testing.assert_array_equal(at["precipitation"].values, truth[:, [2, 0, 0, 1], [2, 0, 0, 1]].T)


def test_however_little_is_read_together(tmp_path, monkeypatch):
    v = np.random.default_rng(0).uniform(-1, 1, size=(50, 4, 5)).astype("float32")
    ds = grid(v, np.arange(5.0), 4 - np.arange(4.0), dims=("time", "y", "x"))
    ds.assign_coords(time=pd.date_range("2020-01-01", periods=50)).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    spec = {"kind": "netcdf", "path": "a.nc", "bands": {"ndvi": "v"}, "crs": "EPSG:4326"}
    for together in (1, 47, 10**9):
        monkeypatch.setattr(gridded, "_TOGETHER", together)
        np.testing.assert_array_equal(open_gridded(spec, root=tmp_path)["ndvi"].values, v)
        at = open_gridded(spec, root=tmp_path, stations=places((4, 1), (0, 4)))["ndvi"]
        np.testing.assert_array_equal(at.values, [v[:, 3, 4], v[:, 0, 0]])


def test_a_file_is_opened_once_and_its_chunks_read_once(tmp_path, monkeypatch):
    # Chunks of 300 x 300 in a grid of 600 x 400: four, of which stations lie in three.
    v = np.arange(240_000, dtype="float32").reshape(400, 600) / 2**19
    for day in (1, 2):
        with h5netcdf.File(tmp_path / f"c_2020010{day}.nc", "w") as f:
            f.dimensions = {"lat": 400, "lon": 600}
            f.create_variable("lon", ("lon",), "f8", data=360 - 360 / 600 * (np.arange(600) + 0.5))
            f.create_variable("lat", ("lat",), "f8", data=-40 + 0.2 * (np.arange(400) + 0.5))
            f.create_variable("v", ("lat", "lon"), "f4", data=v + day / 4, chunks=(300, 300))
    opened, cuts = [], []

    def counted(file, reading):
        opened.append(file)
        real = open_band(file, reading)

        class Counted:
            def __enter__(self):
                cut = real.__enter__()
                return lambda run, y, x: cuts.append((y, x)) or cut(run, y, x)

            def __exit__(self, *error):
                return real.__exit__(*error)

        return Counted()

    monkeypatch.setattr(gridded, "open_band", counted)
    spec = {"kind": "netcdf", "path": "c_*.nc", "bands": {"ndvi": "v"}, "dates": "c_%Y%m%d.nc"}
    rng = np.random.default_rng(0)
    lons, lats = rng.uniform(-180, 0, 200), rng.uniform(-40, 19.9, 200)
    lons[:50] += 180
    lats[150:] += 20.1
    at = open_gridded(spec, root=tmp_path, stations=places(*zip(lons, lats, strict=True)))["ndvi"].values
    assert len(opened) == 2
    tiles = {(y.start // 300, (y.stop - 1) // 300, x.start // 300, (x.stop - 1) // 300) for y, x in cuts}
    assert all(a == b and c == d for a, b, c, d in tiles)
    assert len(cuts) == 2 * len(tiles)
    rows = np.floor((lats + 40) / 0.2).astype(int)
    columns = 599 - np.floor(lons % 360 / 0.6).astype(int)
    np.testing.assert_array_equal(at, np.stack([v[rows, columns] + 0.25, v[rows, columns] + 0.5], axis=1))


def test_days_say_what_they_are_made_from(days):
    def inputs(spec=IMERG, **where):
        return open_gridded(spec, root=days, period=("2020-01-01", "2020-01-03"), **where)[DAY_INPUTS].values

    before, stations = inputs(), places((9.1, 50.1))
    assert (before == inputs()).all()
    assert before[1] != before[0] != before[2]
    assert not (before == inputs({**IMERG, "scale": {"precipitation": 2}})).any()
    assert not (before == inputs(stations=stations)).any()
    assert not (inputs(stations=stations) == inputs(stations=places((9.2, 50.1)))).any()
    imerg(days, pd.Timestamp(2020, 1, 2), 200)
    assert (before == inputs()).tolist() == [True, False, True]


def test_variables_on_two_grids_need_a_target(tmp_path):
    ds = grid(np.ones((2, 2)), [0.0, 1], [1.0, 0], name="a").rename(x="lon", y="lat")
    other = grid(np.ones((2, 2)), [0.0, 10], [10.0, 0], name="b").rename(x="longitude", y="latitude")
    ds.merge(other).to_netcdf(tmp_path / "two.nc", engine="h5netcdf")
    spec = {"kind": "netcdf", "path": "two.nc", "bands": {"sand": "a", "silt": "b"}}
    with pytest.raises(SmgeoError, match="silt is on another grid than sand"):
        open_gridded(spec, root=tmp_path)
    at = open_gridded(spec, root=tmp_path, stations=places((0.5, 0.4), (8, 8)))
    np.testing.assert_array_equal(at["sand"].values, [1, np.nan])
    np.testing.assert_array_equal(at["silt"].values, [1, 1])
    assert list(json.loads(at.attrs["left_out"])) == ["N/1"]
    box = GeoBox((1, 1), Affine(1, 0, 0, 0, -1, 1), "EPSG:4326")
    assert open_gridded(spec, root=tmp_path, geobox=box)["silt"].values.tolist() == [[1]]


def test_a_target_that_goes_beyond_the_source(days):
    own = open_gridded(IMERG, root=days).odc.geobox
    wide = open_gridded(IMERG, root=days, geobox=own.pad(2))["precipitation"].values
    truth = np.full((8, 7), np.nan, dtype="float32")
    truth[2:6, 2:5] = IMERG_TRUTH + 100
    np.testing.assert_array_equal(wide[0], truth)


def test_damaged_files_are_named(tmp_path, days):
    (days / "3B-DAY.bad.nc4").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 100)
    with pytest.raises(SmgeoError, match=r"3B-DAY\.bad\.nc4 cannot be opened as netcdf"):
        open_gridded(IMERG, root=days)
    (tmp_path / "MOD11C1_D_2016-01-02.CSV").write_text("1,2,3,4\n5,6,7,8\n")
    t = open_gridded(NEO, root=tmp_path)["temperature"]
    (tmp_path / "MOD11C1_D_2016-01-02.CSV").write_text("1,2,3,4\n")
    with pytest.raises(SmgeoError, match="ends after 1 rows"):
        t.compute(scheduler="synchronous")
    (tmp_path / "MOD11C1_D_2016-01-02.CSV").write_text("1,2,3,4\n5,x,7,8\n")
    with pytest.raises(SmgeoError, match=r"rows 1 to 2 cannot be read as numbers"):
        t.compute(scheduler="synchronous")
    (tmp_path / "MOD11C1_D_2016-01-02.CSV").write_text("")
    with pytest.raises(SmgeoError, match=r"MOD11C1_D_2016-01-02\.CSV cannot be read as a CSV grid: it is empty"):
        open_gridded(NEO, root=tmp_path)


def test_a_chunk_that_is_damaged_is_named(days):
    file = next(days.glob("*20200103*"))
    with h5py.File(file, "r") as f:
        data = f["precipitation"][:]
    with h5py.File(file, "a") as f:
        attrs = dict(f["precipitation"].attrs)
        scales = [d[0] for d in f["precipitation"].dims]
        del f["precipitation"]
        v = f.create_dataset("precipitation", data=data, chunks=data.shape, compression="gzip", fletcher32=True)
        v.attrs["units"] = attrs["units"]
        for dim, scale in zip(v.dims, scales, strict=True):
            dim.attach_scale(scale)
        where = v.id.get_chunk_info(0)
    with file.open("r+b") as raw:
        raw.seek(where.byte_offset + 5)
        sound = raw.read(3)
        raw.seek(where.byte_offset + 5)
        raw.write(b"\xff\xff\xff")
    with pytest.raises(SmgeoError, match=r"20200103.*precipitation cannot be read"):  # by the sample
        open_gridded(IMERG, root=days)
    whole = file.read_bytes()
    with file.open("r+b") as raw:
        raw.seek(where.byte_offset + 5)
        raw.write(sound)
    p = open_gridded(IMERG, root=days)["precipitation"]
    file.write_bytes(whole)
    with pytest.raises(SmgeoError, match=r"20200103.*precipitation cannot be read"):
        p.compute(scheduler="synchronous")
