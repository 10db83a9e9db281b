"""Size of pixels on the ground at 60 degrees north, by hand, whatever kind of source has them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer

import smgeo
from smgeo.assemble.stations import build_station_cube, write_station_cube
from smgeo.catalog import FEATURES
from smgeo.recipe.rasters import RasterSource, parse_raster
from smgeo.sources import open_source
from smgeo.sources.pixels.sizes import pixel_size

# A degree of the meridian and of the parallel of WGS84 at 60 N, m.
MERIDIAN, PARALLEL = 111_412.0, 55_800.0
# UTM at its central meridian, where 100 m of the map are 100 / 0.9996 m of the ground.
UTM = Affine(100, 0, 499_800, 0, -100, 6_651_600)
DEGREES = Affine(0.03, 0, 8.97, 0, -0.01, 60.02)  # wider than high on the ground: 1674 m and 1114 m
SIDES = {"EPSG:32632": (UTM, 100 / 0.9996), "EPSG:4326": (DEGREES, 0.03 * PARALLEL)}


def stations(lons=(9.0,), lats=(60.0,)):
    ids = [f"N/s{i}" for i in range(len(lons))]
    return xr.Dataset(
        coords={"station": ids, "longitude": ("station", list(lons)), "latitude": ("station", list(lats))}
    )


def size_of(transform, crs, at):
    found = pixel_size([GeoBox((40, 40), transform, crs)], at["longitude"].values, at["latitude"].values)
    return found.get("pixel_size_m")


def test_a_square_in_degrees_is_as_long_as_its_meridian():
    assert size_of(Affine(0.01, 0, 8.9, 0, -0.01, 60.2), "EPSG:4326", stations()) == pytest.approx(
        MERIDIAN / 100, rel=1e-4
    )


def test_web_mercator_is_half_as_long_on_the_ground():
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(9, 60)
    found = size_of(Affine(100, 0, x - 1000, 0, -100, y + 1000), "EPSG:3857", stations())
    assert found == pytest.approx(50, rel=0.005)


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 180])
def test_turning_a_grid_does_not_change_its_pixels(degrees):
    there = Affine.translation(500_000, 6_651_400) * Affine.rotation(degrees) * Affine.translation(-2_000, -800)
    found = size_of(there * Affine.scale(100, 40), "EPSG:32632", stations())
    assert found == pytest.approx(100 / 0.9996, rel=1e-4)


def test_the_median_of_stations_and_the_largest_of_grids():
    # The height of a pixel of 0.1 degrees at 0, 60 and 80 N, of which the middle one counts.
    globe = Affine(0.1, 0, 0, 0, -0.1, 81)
    at = stations((9.05, 9.05, 9.05), (0.05, 60.0, 80.0))
    box = GeoBox((820, 200), globe, "EPSG:4326")
    found = pixel_size([box], at["longitude"].values, at["latitude"].values)["pixel_size_m"]
    assert found == pytest.approx(MERIDIAN / 10, rel=1e-3)
    fine = GeoBox((40, 40), UTM, "EPSG:32632")
    for boxes in ([box, fine], [fine, box]):
        assert pixel_size(boxes, np.array([9.0]), np.array([60.0]))["pixel_size_m"] == pytest.approx(11_141, rel=1e-3)


def test_what_has_no_size():
    at = stations()
    assert size_of(UTM, None, at) is None
    assert size_of(UTM, "EPSG:32632", stations((40.0,), (10.0,))) is None  # beside the grid
    assert pixel_size([], np.array([9.0]), np.array([60.0])) == {}
    # Half of the pixel at the pole would be beyond it.
    assert size_of(Affine(1, 0, 0, 0, -1, -89.5), "EPSG:4326", stations((9.5,), (-89.9,))) is None


def write_tiff(path, transform, crs, value):
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": 4, "width": 4}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as dst:
        dst.write(np.full((4, 4), value, "float32"), 1)


def grid_of(transform, crs):
    box = GeoBox((4, 4), transform, crs)
    clay = (("y", "x"), np.full((4, 4), 20.0, "float32"), {"units": "%", "kind": "static", "pixel_size_m": 7.0})
    rain = (("time", "y", "x"), np.ones((2, 4, 4), "float32"), {"units": "mm d-1", "kind": "dynamic"})
    time = pd.date_range("2020-01-01", periods=2)
    return xr.Dataset({"clay": clay, "precipitation": rain}, {"time": time, **xr_coords(box, dims=("y", "x"))})


@pytest.mark.parametrize("crs", SIDES)
def test_sources_and_grid_cubes_give_the_size_at_stations(tmp_path, crs):
    transform, side = SIDES[crs]
    write_tiff(tmp_path / "clay.tif", transform, crs, 20)
    grid_of(transform, crs)[["clay"]].to_netcdf(tmp_path / "clay.nc")
    specs = [
        {"kind": "geotiff", "path": "clay.tif", "bands": {"clay": 1}},
        {"kind": "netcdf", "path": "clay.nc", "bands": {"clay": "clay"}, "crs": crs},
    ]
    for spec in specs:
        found = open_source(parse_raster(spec, "test"), root=tmp_path, stations=stations())["clay"]
        assert isinstance(found.attrs["pixel_size_m"], float)
        assert found.attrs["pixel_size_m"] == pytest.approx(side, rel=1e-4)
    assert smgeo.extract(specs[0], stations(), root=tmp_path)["clay"].attrs["pixel_size_m"] == pytest.approx(
        side, rel=1e-4
    )
    grid = smgeo.extract(grid_of(transform, crs), stations())
    assert grid["clay"].attrs["pixel_size_m"] == pytest.approx(side, rel=1e-4)
    assert "pixel_size_m" not in grid["precipitation"].attrs


def test_each_layer_has_the_pixels_of_its_own_file(tmp_path):
    """Two files of one scene, of which the second is coarser."""
    write_tiff(tmp_path / "soil_clay.tif", UTM, "EPSG:32632", 20)
    write_tiff(tmp_path / "soil_sand.tif", UTM * Affine.scale(3), "EPSG:32632", 40)
    spec = RasterSource(kind="geotiff", path="soil_{band}.tif", bands={"clay": "clay", "sand": "sand"})
    found = open_source(spec, root=tmp_path, stations=stations())
    sizes = {name: found[name].attrs["pixel_size_m"] for name in ("clay", "sand")}
    assert sizes == pytest.approx({"clay": 100.04, "sand": 300.12}, rel=1e-4)


def test_the_size_is_in_the_station_cube_that_is_read_back(tmp_path):
    write_tiff(tmp_path / "dem.tif", UTM, "EPSG:32632", 300)
    days = pd.date_range("2020-01-01", periods=2)
    cube = stations((9.0, 9.001), (60.0, 60.0)).assign_coords(time=days)
    cube["sm"] = (("station", "time"), np.full((2, 2), 0.2, "float32"), FEATURES["sm"].attrs())
    source = RasterSource(kind="geotiff", path="dem.tif", bands={"elevation": 1})
    built = build_station_cube(cube, [source], ["elevation", "slope", "doy_sin"], "sm", tmp_path)
    read = smgeo.open_cube(write_station_cube(built, tmp_path / "stations.zarr"))
    for name in ("elevation", "slope"):
        assert read[name].attrs["pixel_size_m"] == pytest.approx(100.04, rel=1e-4)
    assert "pixel_size_m" not in read["sm"].attrs
    assert "pixel_size_m" not in read["doy_sin"].attrs
