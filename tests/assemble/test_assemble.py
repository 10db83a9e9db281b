"""Pixels under stations, stations of several sources, and rasters on a grid, on paper-sized examples."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer

from smgeo.assemble.extraction import extract
from smgeo.assemble.grid import build_grid_cube, open_grid
from smgeo.assemble.stations import merge_stations, write_station_cube
from smgeo.cube.reading import open_cube
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.prepare import derive_features
from smgeo.recipe.grid import GridSpec
from smgeo.recipe.rasters import RasterSource

DAYS = pd.date_range("2020-01-01", periods=3)


def _stations(lon, lat):
    ids = [f"N/s{i}" for i in range(len(lon))]
    return xr.Dataset(coords={"station": ids, "longitude": ("station", list(lon)), "latitude": ("station", list(lat))})


def _raster(height=4, width=6, transform=None, crs="EPSG:4326"):
    """Values 1000 t + 10 row + column on a grid of quarter degrees from 10 E, 50 N."""
    box = GeoBox((height, width), transform or Affine(0.25, 0, 10, 0, -0.25, 50), crs)
    t, r, c = np.indices((3, height, width))
    values = (1000 * t + 10 * r + c).astype("float32")
    return xr.Dataset(
        {
            "s1_vv": (("time", "y", "x"), values, {"units": "dB", "kind": "dynamic", "grid_mapping": "spatial_ref"}),
            "clay": (("y", "x"), values[0] + 0.5, {"units": "percent", "kind": "static"}),
        },
        {"time": DAYS, **xr_coords(box, dims=("y", "x"))},
    )


def test_pixels_in_degrees_by_hand():
    # 10.3 E: column 1 (10.25 to 10.5); 49.9 N: row 0 (50 to 49.75); 11.49 E, 49.01 N: last column and row
    out = extract(_raster(), _stations([10.3, 11.49, 10.0], [49.9, 49.01, 49.3]))
    assert out["clay"].values.tolist() == [1.5, 35.5, 20.5]
    assert out["s1_vv"].dims == ("station", "time")
    assert out["s1_vv"].values.tolist() == [[1, 1001, 2001], [35, 1035, 2035], [20, 1020, 2020]]
    assert out["s1_vv"].attrs == {"units": "dB", "kind": "dynamic"}
    assert out["station"].values.tolist() == ["N/s0", "N/s1", "N/s2"]
    assert json.loads(out.attrs["left_out"]) == {}


def test_a_station_on_a_corner_lies_in_the_pixel_east_and_south_of_it():
    out = extract(_raster(), _stations([10.25, 10.0, 11.25], [49.75, 50.0, 49.25]))
    assert out["clay"].values.tolist() == [11.5, 0.5, 35.5]


def test_pixels_in_utm():
    transform = Affine(100, 0, 500_000, 0, -100, 5_000_000)
    x, y = np.array([500_010.0, 500_599.0, 500_250.0]), np.array([4_999_999.0, 4_999_601.0, 4_999_750.0])
    lon, lat = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform(x, y)
    out = extract(_raster(transform=transform, crs="EPSG:32632"), _stations(lon, lat))
    assert out["clay"].values.tolist() == [0.5, 35.5, 22.5]


def test_a_grid_that_runs_north():
    out = extract(_raster(transform=Affine(0.25, 0, 10, 0, 0.25, 49)), _stations([10.3], [49.05]))
    assert out["clay"].values.tolist() == [1.5]


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_chunks_do_not_matter(t, y, x, seed):
    rng = np.random.default_rng(seed)
    columns, rows = rng.integers(0, 6, 9), rng.integers(0, 4, 9)
    stations = _stations(
        10 + 0.25 * (columns + rng.uniform(0.01, 0.99, 9)), 50 - 0.25 * (rows + rng.uniform(0.01, 0.99, 9))
    )
    out = extract(_raster().chunk(time=t, y=y, x=x), stations)
    assert out["s1_vv"].chunks is not None
    np.testing.assert_array_equal(out["clay"], 10 * rows + columns + 0.5)
    np.testing.assert_array_equal(out["s1_vv"], (10 * rows + columns)[:, None] + [0, 1000, 2000])


def test_each_chunk_is_read_once():
    reads = []

    def read(block, block_info=None):
        reads.append(block_info[0]["chunk-location"])
        return block

    ds = _raster()[["clay"]].chunk(y=2, x=3)
    ds["clay"] = ds["clay"].copy(
        data=ds["clay"].data.map_blocks(read, dtype="float32", meta=np.empty((0, 0), "float32"))
    )
    out = extract(ds, _stations([10.1, 10.2, 11.4, 10.6], [49.9, 49.8, 49.1, 49.9]))["clay"].compute(scheduler="sync")
    assert out.values.tolist() == [0.5, 0.5, 35.5, 2.5]
    assert sorted(reads) == [(0, 0), (1, 1)]


def test_stations_outside_are_named_and_left_out():
    stations = _stations([10.1, 9.99, 10.1, 11.5], [49.9, 49.9, 48.99, 49.5])
    with pytest.warns(SmgeoWarning, match="3 station.*N/s1, N/s2, N/s3"):
        out = extract(_raster(), stations)
    assert out["station"].values.tolist() == ["N/s0"]
    assert list(json.loads(out.attrs["left_out"])) == ["N/s1", "N/s2", "N/s3"]
    with pytest.raises(SmgeoError, match="none of the 1 stations"):
        extract(_raster(), _stations([0.0], [0.0]))


def test_calendar_variables_of_a_grid_cube_come_along():
    grid = derive_features(_raster(), ["doy_sin"])
    out = extract(grid, _stations([10.3], [49.9]))
    assert out["doy_sin"].dims == ("time",)
    np.testing.assert_array_equal(out["doy_sin"], grid["doy_sin"])


def test_extract_refuses():
    nowhere = _raster().drop_vars("spatial_ref").assign_coords(y=np.arange(4.0), x=np.arange(6.0))
    with pytest.raises(SmgeoError, match="no CRS"):
        extract(nowhere, _stations([10.3], [49.9]))
    with pytest.raises(SmgeoError, match="bilinear"):
        extract(_raster(), _stations([10.3], [49.9]), method="bilinear")
    with pytest.raises(SmgeoError, match="radius_m must be a number above 0"):
        extract(_raster(), _stations([10.3], [49.9]), radius_m=-5)
    with pytest.raises(SmgeoError, match="got a str"):
        extract("clay.tif", _stations([10.3], [49.9]))


@pytest.mark.parametrize("dtype", ["int32", "float64"])
def test_values_are_float32_whatever_the_raster_holds(dtype):
    raster = (_raster()[["clay"]] * 2).astype(dtype).assign_coords(spatial_ref=_raster()["spatial_ref"])
    for one in (raster, raster.chunk(y=2)):
        out = extract(one, _stations([10.3], [49.9]))["clay"]
        assert (out.dtype, out.compute().dtype) == (np.float32, np.float32)
        assert out.values.tolist() == [3]


def _source(ids, start="2020-01-01", days=3, left_out=None, **units):
    data = {
        n: (("station", "time"), np.full((len(ids), days), i + 1.0, "float32"), {"units": u})
        for i, (n, u) in enumerate(units.items())
    }
    coords = {
        "station": np.array(ids, dtype=object),
        "time": pd.date_range(start, periods=days),
        "latitude": ("station", np.arange(len(ids)) + 40.0),
    }
    return xr.Dataset(data, coords, {"left_out": json.dumps(left_out or {})})


def test_sources_are_merged_on_every_day():
    a = _source(["A/1", "A/2"], left_out={"A/9": "no data"}, sm="m3 m-3")
    b = _source(["B/1"], "2020-01-06", 2, {"B/9": "too deep"}, sm="m3 m-3", soil_temperature="degC")
    merged = merge_stations([a, b], None)
    assert merged["station"].values.tolist() == ["A/1", "A/2", "B/1"]
    assert merged.indexes["time"].equals(pd.date_range("2020-01-01", "2020-01-07", name="time"))
    n = np.nan
    np.testing.assert_array_equal(merged["sm"], [[1, 1, 1, n, n, n, n]] * 2 + [[n, n, n, n, n, 1, 1]])
    np.testing.assert_array_equal(merged["soil_temperature"], [[n] * 7] * 2 + [[n, n, n, n, n, 2, 2]])
    assert merged["latitude"].values.tolist() == [40, 41, 40]
    assert json.loads(merged.attrs["left_out"]) == {"A/9": "no data", "B/9": "too deep"}
    known = merge_stations([a.assign_coords(climate=("station", ["Cfb"] * a.sizes["station"])), b], None)
    assert known["climate"].values.tolist() == ["Cfb"] * a.sizes["station"] + [""] * b.sizes["station"]
    period = merge_stations([a, b], ("2020-01-03", "2020-01-08"))
    assert period["sm"].isel(station=0).values.tolist()[0] == 1
    assert (period.sizes["time"], int(period["sm"].notnull().sum())) == (6, 4)
    assert merge_stations([a.chunk(), b.chunk()], None)["sm"].chunks is not None


def test_merging_refuses_doubles_and_mixed_units():
    a = _source(["A/1"], sm="m3 m-3")
    with pytest.raises(SmgeoError, match="two sources: A/1"):
        merge_stations([a, a], None)
    with pytest.raises(SmgeoError, match="sm is in 'percent'"):
        merge_stations([a, _source(["B/1"], sm="percent")], None)


def test_units_are_compared_between_all_sources():
    sources = [
        _source(["A/1"], sm="1"),
        _source(["B/1"], sm="1", soil_temperature="K"),
        _source(["C/1"], sm="1", soil_temperature="degC"),
    ]
    with pytest.raises(SmgeoError, match="soil_temperature is in 'degC', needed in 'K'"):
        merge_stations(sources, None)


def test_the_written_station_cube_knows_its_revisit(tmp_path):
    values = np.full((3, 13), np.nan, dtype="float32")
    values[0, ::4] = 1
    values[1, 5] = 1
    values[2] = 1
    ds = xr.Dataset(
        {"s1_vv": (("station", "time"), values, {"kind": "dynamic", "revisit_days": 6.0})},
        {"station": np.array(["a", "b", "c"], dtype=object), "time": pd.date_range("2020-01-01", periods=13)},
    )
    written = open_cube(write_station_cube(ds, tmp_path / "s.zarr"))["s1_vv"].attrs
    assert dict(zip(written["revisit_stations"], written["revisit_days"], strict=True)) == {"a": 4, "b": 6, "c": 1}


def _tif(path, values, transform, crs="EPSG:32632"):
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": values.shape[0], "width": values.shape[1]}
    with rasterio.open(path, "w", crs=crs, transform=transform, nodata=-9999, **profile) as dst:
        dst.write(values.astype("float32"), 1)


def test_grid_cube_of_scenes_and_a_static_layer(tmp_path):
    fine, coarse = Affine(10, 0, 500_000, 0, -10, 5_000_000), Affine(20, 0, 500_000, 0, -20, 5_000_000)
    scene = -1 - np.arange(16.0).reshape(4, 4)
    _tif(tmp_path / "vv_20200102.tif", scene, fine)
    _tif(tmp_path / "vv_20200104.tif", np.where(scene == -6, -9999, scene - 20), fine)
    _tif(tmp_path / "clay.tif", np.array([[1, 2], [3, 4]]), coarse)
    sources = [
        RasterSource(kind="geotiff", path="clay.tif", bands={"clay": 1}, resampling="nearest"),
        RasterSource(kind="geotiff", path="vv_*.tif", bands={"s1_vv": 1}, dates="vv_%Y%m%d.tif"),
    ]
    box = open_grid(GridSpec(like="vv_20200102.tif"), tmp_path)
    by_bounds = open_grid(
        GridSpec(crs="EPSG:32632", resolution=10, bounds=(500_000, 4_999_960, 500_040, 5_000_000)), tmp_path
    )
    assert box == by_bounds
    names = ["s1_vv", "clay", "doy_cos"]
    cube = build_grid_cube(sources, box, names, ("2020-01-01", "2020-01-04"), tmp_path)
    assert list(cube.data_vars) == names
    assert cube["s1_vv"].chunks is not None
    assert cube.indexes["time"].equals(pd.date_range("2020-01-01", "2020-01-04", name="time"))
    assert cube.odc.geobox == box
    np.testing.assert_array_equal(cube["s1_vv"][1], scene)
    assert np.isnan(cube["s1_vv"][[0, 2]]).all()
    np.testing.assert_array_equal(cube["s1_vv"][3], np.where(scene == -6, np.nan, scene - 20))
    np.testing.assert_array_equal(cube["clay"], np.kron([[1, 2], [3, 4]], np.ones((2, 2))))
    assert cube["doy_cos"].dims == ("time",)


def test_a_grid_cube_of_static_layers_has_the_days_of_its_period(tmp_path):
    _tif(tmp_path / "clay.tif", np.ones((2, 2)), Affine(10, 0, 500_000, 0, -10, 5_000_000))
    box = open_grid(GridSpec(like="clay.tif"), tmp_path)
    source = RasterSource(kind="geotiff", path="clay.tif", bands={"clay": 1})
    cube = build_grid_cube([source], box, ["clay", "doy_sin"], ("2020-01-01", "2020-01-03"), tmp_path)
    assert dict(cube.sizes) == {"y": 2, "x": 2, "time": 3}


def test_grids_that_cannot_be(tmp_path):
    with pytest.raises(SmgeoError, match=r"no\.tif not found"):
        open_grid(GridSpec(like="no.tif"), tmp_path)
    for crs in ("EPSG:999999", "utm", "+proj=nothing"):
        with pytest.raises(SmgeoError, match=rf"grid\.crs: '{re.escape(crs)}' is not a CRS known to PROJ"):
            open_grid(GridSpec(crs=crs, resolution=10, bounds=(0, 0, 20, 20)), tmp_path)


def test_only_an_error_of_the_crs_is_reported_as_one(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("smgeo.assemble.grid.BoundingBox", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        open_grid(GridSpec(crs="EPSG:32632", resolution=10, bounds=(0, 0, 20, 20)), tmp_path)
