"""Slope and aspect against planes worked out by hand, against GDAL on a real DEM, and in both cubes."""

import os
import shutil
import subprocess

import dask
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
from pyproj import Geod, Transformer

from smgeo.assemble.grid import build_grid_cube
from smgeo.assemble.stations import build_station_cube
from smgeo.errors import SmgeoError
from smgeo.prepare import derive_features, steps_of
from smgeo.recipe.rasters import RasterSource
from smgeo.recipe.study import parse_recipe
from smgeo.terrain import pixel_sizes_m, slope_aspect, terrain

NAN = np.nan
UTM = Affine(30, 0, 500_000, 0, -30, 5_000_000)
# Compass points clockwise from north, as (east, north).
COMPASS = {
    0: (0, 1),
    45: (1, 1),
    90: (1, 0),
    135: (1, -1),
    180: (0, -1),
    225: (-1, -1),
    270: (-1, 0),
    315: (-1, 1),
}


def _elevation(values, transform=UTM, crs="EPSG:32632", **attrs):
    values = np.asarray(values)
    return xr.DataArray(
        values,
        dims=("y", "x"),
        coords=xr_coords(GeoBox(values.shape, transform, crs), dims=("y", "x")),
        attrs={"units": "m", "grid_mapping": "spatial_ref", **attrs},
    )


def _hills(height=9, width=11, seed=0):
    rng = np.random.default_rng(seed)
    return (500 + 40 * rng.standard_normal((height, width))).astype("float32")


def _ring(shape):
    ring = np.ones(shape, dtype=bool)
    ring[1:-1, 1:-1] = False
    return ring


@pytest.mark.parametrize("towards", COMPASS)
@pytest.mark.parametrize(("dx", "dy"), [(10.0, 10.0), (10.0, 25.0)])
def test_planes_that_fall_in_eight_directions(towards, dx, dy):
    # A plane that falls by 3 m in 10 m towards a point of the compass: its slope is atan(0.3) whatever the pixel.
    east, north = np.array(COMPASS[towards]) / np.hypot(*COMPASS[towards])
    row, column = np.indices((5, 6))
    slope, aspect = slope_aspect(700 - 0.3 * (east * column * dx - north * row * dy), dx, dy)
    assert (slope.dtype, aspect.dtype) == ("float32", "float32")
    np.testing.assert_allclose(slope[1:-1, 1:-1], np.degrees(np.arctan(0.3)), atol=1e-4)
    turn = np.abs(aspect[1:-1, 1:-1] - towards)
    assert np.minimum(turn, 360 - turn).max() < 1e-4
    assert aspect[1:-1, 1:-1].min() >= 0
    assert aspect[1:-1, 1:-1].max() < 360


def test_one_pixel_by_hand():
    z = np.array([[1.0, 2, 4], [3, 99, 5], [6, 1, 2]])
    # west 1 + 6 + 6 = 13, east 4 + 10 + 2 = 16, north 1 + 4 + 4 = 9, south 6 + 2 + 2 = 10; distances 2 and 4 m.
    to_east, to_north = (16 - 13) / 16, (9 - 10) / 32
    slope, aspect = slope_aspect(z, 2.0, 4.0)
    assert slope[1, 1] == pytest.approx(np.degrees(np.arctan(np.sqrt(to_east**2 + to_north**2))), rel=1e-6)
    # It rises to the east and falls to the north: downhill is west, a little north.
    assert aspect[1, 1] == pytest.approx(270 + np.degrees(np.arctan(1 / 6)), rel=1e-6)


def test_level_ground_has_a_slope_of_zero_and_no_aspect():
    slope, aspect = slope_aspect(np.full((4, 5), 123.4, dtype="float32"), 10, 10)
    assert (slope[1:-1, 1:-1] == 0).all()
    assert np.isnan(aspect).all()


def test_the_border_and_the_neighbours_of_a_missing_value_are_missing():
    z = _hills()
    z[4, 5] = NAN
    slope, aspect = slope_aspect(z, 30, 30)
    missing = _ring(z.shape)
    missing[3:6, 4:7] = True
    np.testing.assert_array_equal(np.isnan(slope), missing)
    np.testing.assert_array_equal(np.isnan(aspect), missing)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (5, 2), (0, 3)])
def test_a_raster_without_an_inside_has_no_values(shape):
    slope, aspect = slope_aspect(np.ones(shape), 1, 1)
    assert slope.shape == shape
    assert np.isnan(slope).all()
    assert np.isnan(aspect).all()


def test_whole_numbers_are_elevations_too():
    slope, aspect = slope_aspect(np.array([[3, 2, 1]] * 3, dtype="int16"), 1, 1)
    assert (slope[1, 1], aspect[1, 1]) == (45, 90)


def test_what_cannot_be_is_refused():
    with pytest.raises(SmgeoError, match="3 dims"):
        slope_aspect(np.ones((2, 3, 3)), 1, 1)
    with pytest.raises(SmgeoError, match="one for each of 3 rows"):
        slope_aspect(np.ones((3, 4)), np.ones(4), 1)


def test_pixel_sizes_of_projected_grids():
    dx, dy = pixel_sizes_m(GeoBox((3, 4), UTM, "EPSG:32632"))
    assert (dx.tolist(), dy.tolist()) == ([30] * 3, [30] * 3)
    dx, dy = pixel_sizes_m(GeoBox((3, 4), Affine(10, 0, 0, 0, 20, 0), "EPSG:32632"))
    assert (dx.tolist(), dy.tolist()) == ([10] * 3, [-20] * 3)
    # New York Long Island in US survey feet: 1200/3937 m
    dx, dy = pixel_sizes_m(GeoBox((2, 2), Affine(100, 0, 9e5, 0, -100, 2e5), "EPSG:2263"))
    np.testing.assert_allclose([dx, dy], 100 * 1200 / 3937, rtol=1e-12)


def test_pixel_sizes_of_geographic_grids_are_the_ellipsoids_distances():
    geod, step = Geod(ellps="WGS84"), 0.001
    dx, dy = pixel_sizes_m(GeoBox((3, 4), Affine(step, 0, 10, 0, -step, 60), "EPSG:4326"))
    for row in range(3):
        latitude = 60 - step * (row + 0.5)
        across = geod.inv(10, latitude, 10 + step, latitude)[2]
        along = geod.inv(10, latitude - step / 2, 10, latitude + step / 2)[2]
        assert dx[row] == pytest.approx(across, rel=1e-7)
        assert dy[row] == pytest.approx(along, rel=1e-7)
    # On the equator of WGS84 a degree is 111.320 km of longitude and 110.574 km of latitude (tables of NGA TR8350.2).
    dx, dy = pixel_sizes_m(GeoBox((1, 1), Affine(1, 0, 0, 0, -1, 0.5), "EPSG:4326"))
    assert (dx[0], dy[0]) == (pytest.approx(111_320, abs=1), pytest.approx(110_574, abs=1))


def test_rows_at_the_pole_have_no_width():
    dx, _ = pixel_sizes_m(GeoBox((3, 4), Affine(1, 0, 0, 0, -1, 91.5), "EPSG:4326"))
    np.testing.assert_array_equal(np.isnan(dx), [True, True, False])


@pytest.mark.parametrize("towards", COMPASS)
@pytest.mark.parametrize("upwards", [False, True])
def test_a_plane_in_metres_at_60_north(towards, upwards):
    # Elevation falls by 0.2 m a metre, in metres along the ellipsoid east of 10 E and north of 60 N.
    step, n = 1 / 1200, 7
    transform = Affine(step, 0, 10, 0, -step, 60) if not upwards else Affine(step, 0, 10, 0, step, 60 - n * step)
    geod = Geod(ellps="WGS84")
    longitude = 10 + step * (np.arange(n) + 0.5)
    latitude = transform.f + transform.e * (np.arange(n) + 0.5)
    north_m = np.array([geod.inv(10, 60, 10, b)[2] * np.sign(b - 60) for b in latitude])[:, None]
    east_m = np.array([[geod.inv(10, b, a, b)[2] for a in longitude] for b in latitude])
    east, north = np.array(COMPASS[towards]) / np.hypot(*COMPASS[towards])
    out = terrain(_elevation(1000 - 0.2 * (east * east_m + north * north_m), transform, "EPSG:4326"))
    inner = out.isel(y=slice(1, -1), x=slice(1, -1))
    # East is measured on each parallel, and meridians close in by tan(60) / R: over 325 m they turn by 1e-4, 0.005 degrees.
    np.testing.assert_allclose(inner["slope"], np.degrees(np.arctan(0.2)), atol=2e-3)
    turn = np.abs(inner["aspect"].values - towards)
    assert np.minimum(turn, 360 - turn).max() < 0.01


def test_rows_from_south_to_north_and_columns_from_east_to_west():
    z = _hills()
    down = terrain(_elevation(z))
    up = terrain(_elevation(z[::-1], Affine(30, 0, 500_000, 0, 30, 5_000_000 - 30 * len(z))))
    back = terrain(_elevation(z[:, ::-1], Affine(-30, 0, 500_000 + 30 * z.shape[1], 0, -30, 5_000_000)))
    for name in ("slope", "aspect"):
        np.testing.assert_allclose(up[name].values[::-1], down[name].values, rtol=1e-6)
        np.testing.assert_allclose(back[name].values[:, ::-1], down[name].values, rtol=1e-6)


def test_the_dataset_says_what_it_holds():
    elevation = _elevation(_hills(), source="DEM of a valley")
    out = terrain(elevation)
    assert list(out.data_vars) == ["slope", "aspect"]
    assert out.odc.geobox == elevation.odc.geobox
    for name in out.data_vars:
        assert (out[name].dims, str(out[name].dtype)) == (("y", "x"), "float32")
        assert (out[name].attrs["units"], out[name].attrs["kind"]) == ("degree", "static")
        assert out[name].attrs["source"] == "DEM of a valley; Horn 1981"
        assert out[name].attrs["grid_mapping"] == "spatial_ref"
    slope, aspect = slope_aspect(elevation.values, 30, 30)
    np.testing.assert_array_equal(out["slope"], slope)
    np.testing.assert_array_equal(out["aspect"], aspect)
    turned = terrain(elevation.transpose("x", "y"))
    assert turned["slope"].dims == ("x", "y")
    np.testing.assert_array_equal(turned["slope"].values.T, slope)


@pytest.mark.parametrize(
    ("elevation", "said"),
    [
        (_elevation(_hills(), Affine(30, 3, 0, 3, -30, 0)), "rotated"),
        (_elevation(_hills(), units="ft"), "'ft'"),
        (xr.DataArray(_hills(), {"y": np.arange(9.0), "x": np.arange(11.0)}, ("y", "x")), "with a CRS"),
        (xr.DataArray(_hills(), dims=("y", "x")), "coordinates y and x"),
        (xr.DataArray(np.ones(3), dims="station"), "'station'"),
        (_elevation(_hills()).expand_dims("time"), "'time'"),
    ],
)
def test_rasters_that_have_no_terrain(elevation, said):
    with pytest.raises(SmgeoError, match=said):
        terrain(elevation)


@given(st.data(), st.integers(1, 9), st.integers(1, 11), st.booleans())
@settings(max_examples=25, deadline=None)
def test_chunks_do_not_matter(draw, height, width, geographic):
    z = _hills(height, width, seed=height)
    z[height // 2, width // 3] = NAN
    grid = (Affine(0.001, 0, 10, 0, -0.001, 60), "EPSG:4326") if geographic else (UTM, "EPSG:32632")
    elevation = _elevation(z, *grid)
    chunks = {d: draw.draw(st.integers(1, n)) for d, n in (("y", height), ("x", width))}
    lazy = terrain(elevation.chunk(chunks))
    assert lazy["slope"].chunks == elevation.chunk(chunks).chunks
    xr.testing.assert_identical(lazy.compute(scheduler="sync"), terrain(elevation))


def _forbidden(*args, **kwargs):
    raise AssertionError("computed")


def test_it_is_lazy_and_reads_only_the_blocks_around():
    read = []

    def block(values, block_info=None):
        read.append(block_info[0]["chunk-location"])
        return values

    elevation = _elevation(_hills(40, 40)).chunk(y=8, x=8)
    elevation = elevation.copy(data=elevation.data.map_blocks(block, dtype="float32", meta=np.empty((0, 0), "f4")))
    with dask.config.set(scheduler=_forbidden):
        out = terrain(elevation)
        assert out["aspect"].chunks == ((8,) * 5, (8,) * 5)
    out["slope"].isel(y=slice(16, 24), x=slice(0, 8)).compute(scheduler="sync")
    assert sorted(set(read)) == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert len(read) == 6


def test_the_same_raster_gives_the_same_names_of_arrays():
    elevation = _elevation(_hills()).chunk(y=4)
    assert terrain(elevation)["slope"].data.name == terrain(elevation)["slope"].data.name


def _gdaldem(mode, source, out):
    if shutil.which("gdaldem") is None:
        reason = "gdaldem not found: install GDAL's programs (Debian: apt-get install gdal-bin)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    subprocess.run(["gdaldem", mode, str(source), str(out), "-alg", "Horn", "-q"], check=True)
    with rasterio.open(out) as src:
        return src.read(1, masked=True).filled(NAN)


def _dem(data):
    with rasterio.open(data / "cookfarm" / "predictors_2012-03-25.tif") as src:
        return src.read(src.descriptions.index("DEM") + 1), src.transform, src.crs


def test_gdal_agrees_on_a_real_dem(data, tmp_path):
    z, transform, crs = _dem(data)
    # GDAL adds elevations in float32, which at 800 m is off by up to a degree of aspect on nearly level ground. Neither
    # slope nor aspect depends on the datum; 773 m lower, all its sums are exact.
    low = z - np.float32(773)
    np.testing.assert_array_equal(low.astype("float64") + 773, z)
    _tif(tmp_path / "dem.tif", low, transform, crs)
    found = terrain(_elevation(z, transform, crs).chunk(y=20, x=30)).compute()
    for name, most in (("slope", 1e-5), ("aspect", 1e-4)):
        expected = _gdaldem(name, tmp_path / "dem.tif", tmp_path / f"{name}.tif")
        np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(expected))
        assert int(found[name].notnull().sum()) > 3000
        turn = np.abs(found[name].values - expected)
        assert np.nanmax(np.minimum(turn, 360 - turn)) < most


def test_gdal_agrees_on_the_dem_as_it_is_but_for_its_rounding(data, tmp_path):
    z, transform, crs = _dem(data)
    _tif(tmp_path / "dem.tif", z, transform, crs)
    found = terrain(_elevation(z, transform, crs))
    slope, aspect = (
        np.radians(_gdaldem(n, tmp_path / "dem.tif", tmp_path / f"{n}.tif").astype("float64")) for n in found.data_vars
    )
    ours = np.radians(found["slope"].values.astype("float64")), np.radians(found["aspect"].values.astype("float64"))
    np.testing.assert_allclose(np.degrees(ours[0]), np.degrees(slope), atol=1e-3)
    # As gradients: three roundings of half a unit (2.4e-4 m) in sums of four elevations, over 80 m.
    for part in (np.sin, np.cos):
        np.testing.assert_allclose(np.tan(ours[0]) * part(ours[1]), np.tan(slope) * part(aspect), atol=1e-5)


def test_derived_on_a_grid_cube(make_grid_cube):
    ds = make_grid_cube(days=3, height=6, width=7)
    ds["elevation"] = _elevation(_hills(6, 7), source="a DEM").assign_coords(y=ds["y"], x=ds["x"])
    out = derive_features(ds, ["slope", "aspect", "doy_sin"])
    slope, aspect = slope_aspect(ds["elevation"].values, 100, 100)
    np.testing.assert_array_equal(out["slope"], slope)
    np.testing.assert_array_equal(out["aspect"], aspect)
    assert (out["slope"].dims, out["slope"].attrs["kind"]) == (("y", "x"), "static")
    assert out["slope"].attrs["source"] == "a DEM; Horn 1981"
    assert steps_of(out) == [{"step": "derive", "features": ["slope", "aspect", "doy_sin"]}]
    with dask.config.set(scheduler=_forbidden):
        lazy = derive_features(ds.chunk(y=2), ["slope"])["slope"]
    np.testing.assert_array_equal(lazy, slope)


def test_a_station_cube_has_no_surroundings():
    ds = xr.Dataset(
        {"elevation": ("station", [1.0, 2.0])}, {"station": ["a", "b"], "time": pd.date_range("2020", periods=2)}
    )
    with pytest.raises(SmgeoError, match="'slope' is derived from the elevation around a place.*as a raster"):
        derive_features(ds, ["slope"])


def _tif(path, values, transform=UTM, crs="EPSG:32632"):
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": values.shape[0], "width": values.shape[1]}
    with rasterio.open(path, "w", crs=crs, transform=transform, nodata=NAN, **profile) as dst:
        dst.write(values.astype("float32"), 1)


@pytest.fixture
def world(tmp_path):
    """A DEM of 8 x 9 pixels of 30 m, and a source of it."""
    _tif(tmp_path / "dem.tif", _hills(8, 9))
    return RasterSource(kind="geotiff", path="dem.tif", bands={"elevation": 1}, resampling="nearest")


PERIOD = ("2020-01-01", "2020-01-02")


def test_a_grid_cube_has_terrain_up_to_its_border(world, tmp_path):
    inner = GeoBox((8, 9), UTM, "EPSG:32632")[2:6, 1:8]
    with dask.config.set(scheduler=_forbidden):
        cube = build_grid_cube([world], inner, ["slope", "aspect", "doy_sin"], PERIOD, tmp_path)
    assert list(cube.data_vars) == ["slope", "aspect", "doy_sin"]
    assert cube.odc.geobox == inner
    slope, aspect = slope_aspect(_hills(8, 9), 30, 30)
    np.testing.assert_array_equal(cube["slope"], slope[2:6, 1:8])
    np.testing.assert_array_equal(cube["aspect"], aspect[2:6, 1:8])
    assert np.isfinite(cube["slope"]).all()
    # Where the elevation ends with the grid, there is nothing to derive the border from.
    whole = build_grid_cube([world], GeoBox((8, 9), UTM, "EPSG:32632"), ["elevation", "slope"], PERIOD, tmp_path)
    np.testing.assert_array_equal(whole["slope"], slope)
    np.testing.assert_array_equal(whole["elevation"], _hills(8, 9))


def test_terrain_on_a_grid_is_derived_after_resampling(world, tmp_path):
    # Pixels of 10 m within those of 30 m, nearest: level except at the edges of the large pixels.
    fine = GeoBox((12, 15), Affine(10, 0, 500_060, 0, -10, 5_000_000 - 60), "EPSG:32632")
    cube = build_grid_cube([world], fine, ["slope"], PERIOD, tmp_path)
    repeated = np.kron(_hills(8, 9), np.ones((3, 3)))
    expected, _ = slope_aspect(repeated, 10, 10)
    np.testing.assert_array_equal(cube["slope"], expected[6:18, 6:21])
    assert (cube["slope"].values[1::3, 1::3] == 0).all()


def test_a_source_that_gives_slope_is_believed(world, tmp_path):
    _tif(tmp_path / "slope.tif", np.full((8, 9), 7.0))
    given = RasterSource(kind="geotiff", path="slope.tif", bands={"slope": 1}, resampling="nearest")
    box = GeoBox((8, 9), UTM, "EPSG:32632")
    cube = build_grid_cube([world, given], box, ["slope", "aspect"], PERIOD, tmp_path)
    assert (cube["slope"] == 7).all()
    np.testing.assert_array_equal(cube["aspect"], slope_aspect(_hills(8, 9), 30, 30)[1])
    stations = build_station_cube(_stations(), [world, given], ["slope", "aspect"], "sm", tmp_path)
    assert stations["slope"].values.tolist() == [7, 7]
    assert stations["aspect"].values[0] == slope_aspect(_hills(8, 9), 30, 30)[1][1, 2]


def _stations(**variables):
    """Two stations, in row 1, column 2 and in row 6, column 7 of the DEM."""
    x, y = UTM * (np.array([2.5, 7.4]), np.array([1.2, 6.9]))
    lon, lat = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform(x, y)
    return xr.Dataset(
        {
            "sm": (("station", "time"), np.full((2, 2), 0.2, "float32"), {"units": "m3 m-3", "kind": "target"}),
            **{n: ("station", np.full(2, v, "float32"), {"units": "m"}) for n, v in variables.items()},
        },
        {
            "station": np.array(["N/a", "N/b"], dtype=object),
            "time": pd.date_range(*PERIOD),
            "longitude": ("station", lon),
            "latitude": ("station", lat),
        },
    )


@pytest.mark.parametrize("given", [{}, {"elevation": 777.0}])
@pytest.mark.parametrize("features", [["slope"], ["aspect", "elevation", "slope"]])
def test_terrain_at_stations_comes_from_the_rasters_own_grid(world, tmp_path, features, given):
    with dask.config.set(scheduler=_forbidden):
        cube = build_station_cube(_stations(**given), [world], features, "sm", tmp_path)
    assert list(cube.data_vars) == [*features, "sm"]
    assert cube["slope"].chunks is not None
    slope, aspect = slope_aspect(_hills(8, 9), 30, 30)
    assert cube["slope"].values.tolist() == [slope[1, 2], slope[6, 7]]
    if "aspect" in features:
        assert cube["aspect"].values.tolist() == [aspect[1, 2], aspect[6, 7]]
        expected = [given["elevation"]] * 2 if given else [_hills(8, 9)[1, 2], _hills(8, 9)[6, 7]]
        assert cube["elevation"].values.tolist() == expected


def test_stations_that_have_elevation_alone_give_no_slope(tmp_path):
    with pytest.raises(SmgeoError, match="add elevation as a raster, or slope from a source"):
        build_station_cube(_stations(elevation=5.0), [], ["slope"], "sm", tmp_path)


def test_a_recipe_may_ask_for_slope_of_an_elevation_raster():
    recipe = {
        "name": "terrain",
        "stations": [{"kind": "ismn", "path": "archive"}],
        "rasters": [{"kind": "geotiff", "path": "dem.tif", "bands": ["elevation"]}],
        "grid": {"like": "dem.tif"},
        "features": ["slope", "aspect"],
        "models": {"rf": {}},
        "maps": {"dates": ["2020-01-01"]},
    }
    assert parse_recipe(recipe).features == ("slope", "aspect")
    with pytest.raises(SmgeoError, match=r"'slope' \(or elevation, from which it is derived\): no source gives it"):
        parse_recipe({**recipe, "rasters": [{"kind": "geotiff", "path": "clay.tif", "bands": ["clay"]}]})
