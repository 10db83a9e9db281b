"""Places of gridded files: longitudes in any form, rounding, single cells, further dimensions, unevenly spaced and curved grids."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import GriddedSource
from smgeo.sources.gridded.reader import open_gridded

CATALOG = {**FEATURES, "own": Feature("own", "own", "1", "static", "x", (-1e6, 1e6))}
SPEC = {"kind": "netcdf", "path": "a.nc", "bands": {"own": "v"}}


def places(lons, lats):
    lons, lats = np.atleast_1d(lons), np.atleast_1d(lats)
    ids = [f"N/{i}" for i in range(lons.size)]
    return xr.Dataset(coords={"station": ids, "latitude": ("station", lats), "longitude": ("station", lons)})


def degrees(values, lat, lon, **more):
    """Return (lat, lon) values with CF coordinates."""
    coords = {
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon, {"units": "degrees_east"}),
        **more,
    }
    return xr.Dataset({"v": ((*more, "lat", "lon"), np.asarray(values, "float64"), {"units": "1"})}, coords)


def read(folder, spec=SPEC, **where):
    return open_gridded(spec, root=folder, catalog=CATALOG, **where)["own"]


# Longitudes

FORMS = [
    pytest.param(np.arange(170.5, 190), id="170 to 190"),
    pytest.param(np.arange(-189.5, -170), id="-190 to -170"),
    pytest.param(np.r_[np.arange(170.5, 180), np.arange(-179.5, -170)], id="170 to -170"),
    pytest.param(np.arange(530.5, 550), id="530 to 550"),
]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("lon", FORMS)
def test_a_grid_across_the_180th_meridian(tmp_path, lon, flip):
    lat = np.arange(10.5, 0, -1)
    number = 100 * np.arange(11)[:, None] + np.arange(20)
    file = degrees(number, lat, lon)
    (file.isel(lon=slice(None, None, -1)) if flip else file).to_netcdf(tmp_path / "a.nc")
    own = read(tmp_path)
    np.testing.assert_array_equal(own.values, number)
    np.testing.assert_allclose(own["x"].values, np.arange(170.5, 190))
    # Each place is in the column of its degree, whatever the form of its longitude.
    at = np.array([170.2, 179.9, -179.9, 180.0, -170.3, 189.7, -189.7, 0.0])
    expected = [0, 9, 10, 10, 19, 19, 0, np.nan]
    np.testing.assert_array_equal(read(tmp_path, stations=places(at, np.full(8, 10.2))).values, expected)
    for left in (175, -185):
        box = GeoBox((2, 10), Affine(1, 0, left, 0, -1, 11), "EPSG:4326")
        np.testing.assert_allclose(read(tmp_path, geobox=box).values, number[:2, 5:15], rtol=1e-5)
    wide = GeoBox((1, 36), Affine(10, 0, -180, 0, -10, 11), "EPSG:4326")
    means = read(tmp_path, {**SPEC, "resampling": "average"}, geobox=wide).values[0]
    np.testing.assert_allclose(means[[0, -1]], [number[:10, 10:].mean(), number[:10, :10].mean()])
    assert np.isnan(means[1:-1]).all()


def test_a_grid_from_358_to_1(tmp_path):
    degrees([[1, 2, 3, 4]] * 2, [50.0, 49.0], [358.0, 359.0, 0.0, 1.0]).to_netcdf(tmp_path / "a.nc")
    assert read(tmp_path).odc.geobox.affine[:6] == (1, 0, -2.5, 0, -1, 50.5)
    at = places([-2, 358.4, 359.3, -0.4, 0.6, 1.4, 1.6], np.full(7, 50.0))
    np.testing.assert_array_equal(read(tmp_path, stations=at).values, [1, 1, 2, 3, 4, 4, np.nan])


def test_a_rolled_globe_that_begins_anywhere(tmp_path):
    lon = (np.arange(0, 360, 10.0) + 95) % 360
    degrees(np.stack([lon, lon]), [5.0, -5.0], lon).to_netcdf(tmp_path / "a.nc")
    own = read(tmp_path)
    np.testing.assert_allclose(own["x"].values, np.arange(-175, 180, 10))
    np.testing.assert_allclose(own.values[0], np.arange(-175, 180, 10) % 360)


# Rounding


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_coordinates_that_differ_by_rounding_are_one_grid(tmp_path, order):
    lat, lon = np.array([50.2, 50.1, 50.0]), np.array([8.0, 8.1, 8.2])
    forms = [(lat, lon), (lat.astype("f4").astype("f8"), lon.astype("f4").astype("f8"))]
    for day, i in enumerate(order, 1):
        time = ("time", [np.datetime64(f"2020-01-0{day}")])
        ds = degrees(np.full((1, 3, 3), day), *forms[i], time=time)
        ds.to_netcdf(tmp_path / f"t{day}.nc")
    spec = {"kind": "netcdf", "path": "t?.nc", "bands": {"ndvi": "v"}}
    spec["scale"] = {"ndvi": 0.1}
    box = GeoBox((3, 3), Affine(0.1, 0, 7.95, 0, -0.1, 50.25), "EPSG:4326")
    for where in ({}, {"geobox": box}):
        ndvi = open_gridded(spec, root=tmp_path, **where)["ndvi"]
        np.testing.assert_allclose(ndvi.values[:, 1, 1], [0.1, 0.2], rtol=1e-6)
        np.testing.assert_allclose(ndvi["x"].values, lon, atol=1e-12)


def test_files_in_another_order_of_rows_are_one_grid(tmp_path):
    number = np.arange(6.0).reshape(1, 2, 3) / 10
    ds = degrees(number, [1.0, 0.0], [10.0, 11.0, 12.0], time=("time", [np.datetime64("2020-01-01")]))
    ds.to_netcdf(tmp_path / "t1.nc")
    ds = ds.assign_coords(time=[np.datetime64("2020-01-02")]).isel(lat=[1, 0]).rename(lat="latitude")
    ds.assign_coords(lon=("lon", ds.lon.values + 360, ds.lon.attrs)).to_netcdf(tmp_path / "t2.nc")
    spec = {"kind": "netcdf", "path": "t?.nc", "bands": {"ndvi": "v"}}
    np.testing.assert_allclose(open_gridded(spec, root=tmp_path)["ndvi"].values, np.repeat(number, 2, axis=0))
    at = open_gridded(spec, root=tmp_path, stations=places([11.2, 12.0], [1.2, -0.3]))["ndvi"]
    np.testing.assert_allclose(at.values, [[0.1, 0.1], [0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    ("lat", "lon", "words"),
    [
        ([50.2, 50.1], [8.01, 8.11], r"it begins at x = 7\.96, not 7\.95"),
        ([50.2, 50.1], [8.0, 8.1, 8.2], r"it has 2 x 3 pixels .rows x columns., not 2 x 2"),
        ([50.2, 50.0], [8.0, 8.1], r"pixels are 0\.2 high, not 0\.1"),
        ([50.202, 50.102], [8.0, 8.1], r"it begins at y = 50\.252, not 50\.25\."),
    ],
)
def test_the_message_shows_what_differs(tmp_path, lat, lon, words):
    for day, (y, x) in enumerate((([50.2, 50.1], [8.0, 8.1]), (lat, lon)), 1):
        time = ("time", [np.datetime64(f"2020-01-0{day}")])
        degrees(np.zeros((1, len(y), len(x))), y, x, time=time).to_netcdf(tmp_path / f"t{day}.nc")
    with pytest.raises(SmgeoError, match=r"t2\.nc: ndvi is on another grid than in .*t1\.nc: " + words):
        open_gridded({"kind": "netcdf", "path": "t?.nc", "bands": {"ndvi": "v"}}, root=tmp_path)


def test_latitudes_beyond_90_are_refused(tmp_path):
    degrees(np.zeros((2, 2)), [5_000_100.0, 5_000_000.0], [8.0, 9.0]).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(SmgeoError, match=r"'lat' reaches 5\.0001e\+06, which is not a latitude; set crs"):
        read(tmp_path)


# Single cells


def test_a_single_cell_with_bounds(tmp_path):
    ds = degrees([[7.0]], [50.0], [8.25])
    ds["lat_bnds"] = (("lat", "nv"), [[50.25, 49.75]])
    ds["west_east"] = (("lon", "nv"), [[8.0, 9.0]])
    ds.lon.attrs["bounds"] = "west_east"
    ds.to_netcdf(tmp_path / "a.nc")
    own = read(tmp_path)
    assert own.odc.geobox.affine[:6] == (1, 0, 8, 0, -0.5, 50.25)
    at = places([8.9, 8.01, 7.9, 8.5], [50.2, 49.8, 50.0, 50.3])
    np.testing.assert_array_equal(read(tmp_path, stations=at).values, [7, 7, np.nan, np.nan])


def test_a_single_cell_of_a_stated_size(tmp_path):
    degrees([[7.0]], [50.0], [188.0]).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(SmgeoError, match=r"'lon' has one position and no bounds.*set pixel_size"):
        read(tmp_path)
    assert read(tmp_path, {**SPEC, "pixel_size": 0.5}).odc.geobox.affine[:6] == (0.5, 0, -172.25, 0, -0.5, 50.25)
    spec = {**SPEC, "pixel_size": [2, 1]}
    assert read(tmp_path, spec).odc.geobox.affine[:6] == (2, 0, -173, 0, -1, 50.5)
    assert read(tmp_path, spec, stations=places(187.2, 50.4)).values == 7
    parsed = GriddedSource.model_validate(spec)
    assert GriddedSource.model_validate(json.loads(parsed.model_dump_json())) == parsed


# Further dimensions


@pytest.mark.parametrize(
    ("dim", "values", "wanted", "position", "listed"),
    [
        ("expver", [1, 5], 5, 1, r"values 1, 5\)"),
        ("expver", np.array(["0001", "0005"], dtype=object), 5, 1, r"values 0001, 0005\)"),
        ("depth", np.array([0.05, 0.3], "float32"), 0.05, 0, r"values 0\.05, 0\.3\)"),
        ("depth", [0.05, 0.3], "0.3", 1, r"values 0\.05, 0\.3\)"),
        ("step", np.array([1, 2], "timedelta64[h]").astype("timedelta64[ns]"), "2h", 1, r"values 1h, 2h\)"),
        ("number", None, 1, 1, r"positions 0 to 1, without a coordinate\)"),
        ("model", np.array(["era5", "gldas"], dtype=object), "gldas", 1, r"values era5, gldas\)"),
        ("run", np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]"), "2020-01-02", 1, r"values 2020-01-01, 2020"),
    ],
)
def test_select_a_position_by_its_value(tmp_path, dim, values, wanted, position, listed):
    number = np.arange(18.0).reshape(1, 2, 3, 3) / 100
    coords = {} if values is None else {dim: values}
    ds = degrees(
        number, [2.0, 1.0, 0.0], [8.0, 9.0, 10.0], time=("time", [np.datetime64("2020-01-01")]), **{dim: (dim, [0, 1])}
    )
    ds = ds.drop_vars(dim).assign_coords(coords)
    ds.to_netcdf(tmp_path / "a.nc")
    spec = {**SPEC, "bands": {"ndvi": "v"}}
    with pytest.raises(
        SmgeoError, match=rf"v has a dimension '{dim}' of 2 that is neither x, y nor time \({listed}.*select: "
    ):
        open_gridded(spec, root=tmp_path)
    chosen = {**spec, "select": {dim: wanted}}
    expected = ds["v"].isel({dim: position})
    got = open_gridded(chosen, root=tmp_path)["ndvi"]
    np.testing.assert_allclose(got.values, expected.transpose("time", "lat", "lon").values, rtol=1e-6)
    at = open_gridded(chosen, root=tmp_path, stations=places(9.1, 0.2))["ndvi"]
    np.testing.assert_allclose(at.values[0, 0], expected.sel(lat=0, lon=9).item(), rtol=1e-6)
    with pytest.raises(SmgeoError, match=rf"select {dim}: 77: "):
        open_gridded({**spec, "select": {dim: 77}}, root=tmp_path)
    with pytest.raises(SmgeoError, match="select names 'dept', which no file has"):
        open_gridded({**chosen, "select": {**chosen["select"], "dept": 0}}, root=tmp_path)


def test_files_that_lack_a_dimension_or_have_other_positions(tmp_path):
    """ERA5: expver (1 final, 5 preliminary) only in files of the last months."""
    time = {"time": ("time", [np.datetime64("2020-01-01")])}
    degrees(np.full((1, 2, 2), 0.1), [1, 0], [8, 9], **time).to_netcdf(tmp_path / "t1.nc")
    time = {"time": ("time", [np.datetime64("2020-01-02")])}
    both = np.stack([np.full((2, 2), 0.5), np.full((2, 2), 0.2)])[None]
    degrees(both, [1, 0], [8, 9], **time, expver=("expver", [5, 1])).to_netcdf(tmp_path / "t2.nc")
    spec = {"kind": "netcdf", "path": "t?.nc", "bands": {"ndvi": "v"}, "select": {"expver": 1}}
    np.testing.assert_allclose(open_gridded(spec, root=tmp_path)["ndvi"].values[:, 0, 0], [0.1, 0.2], rtol=1e-6)
    with pytest.raises(SmgeoError, match=r"t2\.nc: v: select expver: 2: there is no such value; it has values 5, 1"):
        open_gridded({**spec, "select": {"expver": 2}}, root=tmp_path)


def test_all_dimensions_to_select_are_named_at_once(tmp_path):
    ds = degrees(np.zeros((2, 3, 2, 2)), [1, 0], [8, 9], expver=("expver", [1, 5]), depth=("depth", [0.1, 0.2, 0.4]))
    ds.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(
        SmgeoError, match=r"'expver' of 2 .* and a dimension 'depth' of 3 .*select: \{expver: 1, depth: 0.1\}"
    ):
        read(tmp_path)
    assert read(tmp_path, {**SPEC, "select": {"expver": 1, "depth": 0.4}}).shape == (2, 2)


# Unevenly spaced rows


def ease_latitudes(height=90):
    """Return latitudes of rows of the EASE-Grid 2.0 (EPSG:6933) of 2 x `height` rows."""
    top = Transformer.from_crs(4326, 6933, always_xy=True).transform(0, 83)[1]
    y = top - (np.arange(2 * height) + 0.5) * top / height
    return Transformer.from_crs(6933, 4326, always_xy=True).transform(np.zeros(y.size), y)[1]


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("kind", ["ease", "gaussian"])
def test_uneven_latitudes(tmp_path, kind, up):
    """Stations get the row of the nearest latitude, as by xarray; on a grid what varies linearly is interpolated exactly."""
    lat = ease_latitudes() if kind == "ease" else np.degrees(np.arcsin(np.polynomial.legendre.leggauss(16)[0]))[::-1]
    lat = lat[::-1] if up else lat
    lon = np.arange(0, 360, 2.0)
    ds = degrees(np.repeat(lat[:, None], lon.size, axis=1), lat, lon)
    ds.to_netcdf(tmp_path / "a.nc")
    rng = np.random.default_rng(0)
    at = places(rng.uniform(-180, 180, 200), rng.uniform(-80, 80, 200))
    expected = ds["v"].sel(lat=xr.DataArray(at.latitude.values), lon=0, method="nearest")
    np.testing.assert_allclose(read(tmp_path, stations=at).values, expected, rtol=1e-6)
    box = GeoBox((60, 30), Affine(0.1, 0, 177, 0, -0.1, 60), "EPSG:4326")
    np.testing.assert_allclose(
        read(tmp_path, geobox=box).values, np.tile(box.coords["latitude"].values[:, None], 30), atol=2e-5
    )
    if kind == "ease":
        with pytest.raises(SmgeoError, match=r"pixels of own are not evenly spaced.*set a grid"):
            read(tmp_path)


def test_means_of_uneven_rows(tmp_path):
    """A target pixel gets the mean of the rows in it, weighted by the part of their height."""
    edges = np.array([10, 9, 7.7, 6.0, 4.0])
    ds = degrees(np.repeat([[1.0], [2], [3], [4]], 3, axis=1), (edges[1:] + edges[:-1]) / 2, [0.0, 1, 2])
    ds["lat_bnds"] = (("lat", "nv"), np.stack([edges[:-1], edges[1:]], axis=1))
    ds.to_netcdf(tmp_path / "a.nc")
    box = GeoBox((1, 1), Affine(2, 0, 0, 0, -5, 10), "EPSG:4326")
    got = read(tmp_path, {**SPEC, "resampling": "average"}, geobox=box).values
    # Of the five degrees, 1 is of the first row, 1.3 of the second, 1.7 of the third, 1 of the last.
    np.testing.assert_allclose(got, [[(1 * 1 + 1.3 * 2 + 1.7 * 3 + 1 * 4) / 5]], rtol=1e-6)


def test_a_gap_between_rows_is_refused(tmp_path):
    degrees(np.zeros((5, 3)), [5.0, 4.0, 3.0, 1.0, 0.0], [8.0, 9.0, 10.0]).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(SmgeoError, match="'lat' is not evenly spaced: a step of -2 after 3"):
        read(tmp_path)


# A latitude and longitude for each pixel


def curved(shape=(40, 50), step_m=20_000, centre=(175, 60), angle=30.0):
    """Return longitudes and latitudes, (row, column), of a rotated grid in an azimuthal projection."""
    there = CRS.from_proj4(f"+proj=laea +lat_0={centre[1]} +lon_0={centre[0]} +datum=WGS84")
    turned = Affine.rotation(angle) * Affine.scale(step_m, -step_m) * Affine.translation(-shape[1] / 2, -shape[0] / 2)
    columns, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    x, y = turned * (columns, rows)
    return Transformer.from_crs(there, 4326, always_xy=True).transform(x, y)


def on_sphere(lon, lat):
    lon, lat = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def in_degrees(points):
    x, y, z = np.moveaxis(points, -1, 0)
    return np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))


def two_dimensional(values, lon, lat, dims=("south_north", "west_east")):
    coords = {"XLAT": (dims, lat, {"units": "degree_north"}), "XLONG": (dims, lon, {"units": "degree_east"})}
    return xr.Dataset({"v": (dims, values, {"units": "1", "coordinates": "XLONG XLAT"})}, coords)


@pytest.mark.parametrize("centre", [(175, 60), (9, 50), (0, 89)])
def test_curved_grid_at_stations(tmp_path, centre):
    """The nearest pixel by geodesic distance, by brute force; nothing beyond the border."""
    lon, lat = curved(centre=centre)
    number = np.arange(lon.size, dtype="float64").reshape(lon.shape)
    two_dimensional(number, lon, lat).to_netcdf(tmp_path / "a.nc")
    rng = np.random.default_rng(1)
    r, c = rng.uniform(0, 39, 60), rng.uniform(0, 49, 60)
    i, j = r.astype(int), c.astype(int)
    # Places inside the grid: weighted means of four neighbours on the sphere.
    unit = on_sphere(lon, lat)
    u, v = (r - i)[:, None], (c - j)[:, None]
    p = (
        (1 - u) * (1 - v) * unit[i, j]
        + u * (1 - v) * unit[i + 1, j]
        + (1 - u) * v * unit[i, j + 1]
        + u * v * unit[i + 1, j + 1]
    )
    at = places(*in_degrees(p))
    geod = Geod(ellps="WGS84")
    nearest = [
        np.argmin(geod.inv(np.full(lon.size, x), np.full(lon.size, y), lon.ravel(), lat.ravel())[2])
        for x, y in zip(at.longitude.values, at.latitude.values, strict=True)
    ]
    np.testing.assert_array_equal(read(tmp_path, stations=at).values, nearest)
    # Half a pixel and more beyond the border, and at the other end of the Earth, there is nothing.
    x, y = in_degrees(2 * unit[0, 0] - unit[1, 1])
    beyond = places([x, (centre[0] + 180) % 360], [y, -centre[1]])
    assert np.isnan(read(tmp_path, stations=beyond).values).all()
    # The pixels within a radius.
    radius = 45_000
    mean = read(tmp_path, {**SPEC, "radius_m": radius}, stations=at.isel(station=[0, 1, 2])).values
    for k in range(3):
        metres = geod.inv(
            np.full(lon.size, at.longitude.values[k]),
            np.full(lon.size, at.latitude.values[k]),
            lon.ravel(),
            lat.ravel(),
        )[2]
        np.testing.assert_allclose(mean[k], number.ravel()[metres <= radius].mean(), rtol=1e-5)


@pytest.mark.parametrize("left", [172, -188])
def test_curved_grid_on_a_grid(tmp_path, left):
    """Values that vary smoothly are interpolated; pixels of the target beyond the source are missing."""
    lon, lat = curved()
    two_dimensional(lat, lon, lat).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(SmgeoError, match="pixels of own are not evenly spaced"):
        read(tmp_path)
    box = GeoBox((40, 60), Affine(0.1, 0, left, 0, -0.1, 62), "EPSG:4326")
    got = read(tmp_path, geobox=box).values
    np.testing.assert_allclose(got, np.tile(box.coords["latitude"].values[:, None], 60), atol=2e-3)
    wide = GeoBox((10, 20), Affine(1, 0, left, 0, -1, 64), "EPSG:4326")
    means = read(tmp_path, geobox=wide).values
    assert 0 < np.isfinite(means).sum() < means.size
    np.testing.assert_allclose(means[2:5, 2:4], np.tile(wide.coords["latitude"].values[2:5, None], 2), atol=0.05)
    far = GeoBox((40, 60), Affine(0.1, 0, left + 180, 0, -0.1, 62), "EPSG:4326")
    assert np.isnan(read(tmp_path, geobox=far).values).all()


def test_curved_grid_with_fill_in_its_coordinates_and_transposed_dims(tmp_path):
    lon, lat = curved(centre=(9, 50))
    number = np.arange(lon.size, dtype="float64").reshape(lon.shape)
    ds = two_dimensional(number, lon.copy(), lat.copy())
    for name in ("XLAT", "XLONG"):
        ds[name][:5] = -9999.0
    ds["v"] = ds["v"].transpose()
    ds.to_netcdf(tmp_path / "a.nc")
    at = places([lon[0, 10], lon[20, 30] + 0.01], [lat[0, 10], lat[20, 30]])
    np.testing.assert_array_equal(read(tmp_path, stations=at).values, [np.nan, number[20, 30]])


@pytest.mark.parametrize("form", ["packed", "radians"])
def test_two_dimensional_coordinates_that_are_packed_or_in_radians(tmp_path, form):
    lon, lat = curved(centre=(9, 50))
    number = np.arange(lon.size, dtype="float64").reshape(lon.shape)
    ds = two_dimensional(number, lon.copy(), lat.copy())
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 20.0, "_FillValue": -32768}
    if form == "radians":
        for name in ("XLAT", "XLONG"):
            ds[name] = np.radians(ds[name]).assign_attrs(units="radian")
    ds.to_netcdf(tmp_path / "a.nc", encoding=dict.fromkeys(("XLAT", "XLONG"), packing if form == "packed" else {}))
    at = places([lon[0, 10], lon[20, 30]], [lat[0, 10], lat[20, 30]])
    np.testing.assert_array_equal(read(tmp_path, stations=at).values, [number[0, 10], number[20, 30]])


def test_select_by_a_packed_coordinate(tmp_path):
    ds = degrees(np.arange(18).reshape(2, 3, 3), [1.0, 0, -1], [1.0, 2, 3], depth=("depth", [0.05, 0.1]))
    ds.to_netcdf(tmp_path / "a.nc", encoding={"depth": {"dtype": "int16", "scale_factor": 0.01}})
    got = read(tmp_path, {**SPEC, "select": {"depth": 0.1}}, stations=places(2.0, 0.0))
    assert got.values.tolist() == [13]


@pytest.mark.parametrize(("units", "factor"), [("degrees", 180 / np.pi), ("microradian", 1e6), ("1", 1.0)])
def test_scan_angles_in_other_units(tmp_path, units, factor):
    mapping = {
        "grid_mapping_name": "geostationary", "perspective_point_height": 35786023.0, "semi_major_axis": 6378137.0,
        "semi_minor_axis": 6356752.31414, "longitude_of_projection_origin": 0.0, "latitude_of_projection_origin": 0.0,
        "sweep_angle_axis": "y",
    }  # fmt: skip
    angle = np.array([-1e-4, 0, 1e-4]) * factor
    ds = xr.Dataset({"v": (("y", "x"), np.arange(9.0).reshape(3, 3), {"grid_mapping": "p"}), "p": ((), 0, mapping)})
    for axis, turn in (("x", 1), ("y", -1)):
        ds[axis] = (axis, turn * angle, {"units": units, "standard_name": f"projection_{axis}_coordinate"})
    ds.to_netcdf(tmp_path / "a.nc")
    east = places(np.degrees(1e-4 * 35786023 / 6378137), 0.0)  # straight below, an angle is an arc of the equator
    if units == "1":
        with pytest.raises(SmgeoError, match="units: rad"):
            read(tmp_path, stations=east)
    else:
        assert read(tmp_path, stations=east).values.tolist() == [5]


def test_two_dimensional_coordinates_of_other_files_must_agree(tmp_path):
    lon, lat = curved(centre=(9, 50))
    for day, shift in ((1, 0.0), (2, 1e-4), (3, 0.1)):
        ds = two_dimensional(np.full(lon.shape, day / 10), lon + shift, lat)
        ds.expand_dims(time=[np.datetime64(f"2020-01-0{day}")]).assign_coords(XLAT=ds.XLAT, XLONG=ds.XLONG).to_netcdf(
            tmp_path / f"t{day}.nc"
        )
    spec = {"kind": "netcdf", "path": "t[12].nc", "bands": {"ndvi": "v"}}
    at = places(9.0, 50.0)
    np.testing.assert_allclose(open_gridded(spec, root=tmp_path, stations=at)["ndvi"].values, [[0.1, 0.2]], rtol=1e-6)
    with pytest.raises(
        SmgeoError, match=r"t3\.nc: ndvi is on another grid than in .*t1\.nc: the coordinates of its pixels differ"
    ):
        open_gridded({**spec, "path": "t[13].nc"}, root=tmp_path, stations=at)


def test_projected_coordinates_are_preferred_to_two_dimensional_ones(tmp_path):
    """EASE-Grid 2.0 with x and y in metres, a grid mapping, and latitude and longitude of each pixel: a regular grid."""
    x, y = 700_000 + 9000 * np.arange(3.0), 5_600_000 - 9000 * np.arange(4.0)
    lon, lat = Transformer.from_crs(6933, 4326, always_xy=True).transform(*np.meshgrid(x, y))
    ds = xr.Dataset(
        {"v": (("y", "x"), np.arange(12.0).reshape(4, 3), {"units": "1", "grid_mapping": "crs"})},
        {
            "x": ("x", x, {"units": "m", "standard_name": "projection_x_coordinate"}),
            "y": ("y", y, {"units": "m", "standard_name": "projection_y_coordinate"}),
            "crs": ((), 0, CRS.from_epsg(6933).to_cf()),
            "lat": (("y", "x"), lat, {"units": "degrees_north"}),
            "lon": (("y", "x"), lon, {"units": "degrees_east"}),
        },
    )
    ds.to_netcdf(tmp_path / "a.nc")
    own = read(tmp_path)
    assert own.odc.geobox.crs.epsg == 6933
    assert own.odc.geobox.affine[:6] == (9000, 0, 695_500, 0, -9000, 5_604_500)
    # Without the mapping the places of pixels are known from their latitudes and longitudes alone.
    del ds["v"].attrs["grid_mapping"]
    ds.drop_vars("crs").to_netcdf(tmp_path / "a.nc")
    np.testing.assert_array_equal(read(tmp_path, stations=places(lon[2, 1], lat[2, 1])).values, 7)


def test_rotated_pole_without_its_mapping_is_not_taken_for_degrees(tmp_path):
    ds = degrees(np.zeros((3, 3)), [1.0, 0, -1], [1.0, 2, 3])
    for name, axis in (("latitude", "Y"), ("longitude", "X")):
        ds[name[:3]].attrs = {"standard_name": f"grid_{name}", "units": "degrees", "axis": axis}
    ds.rename(lat="rlat", lon="rlon").to_netcdf(tmp_path / "a.nc")
    with pytest.raises(SmgeoError, match="neither a grid mapping nor coordinates in degrees"):
        read(tmp_path)


def test_days_are_read_from_a_curved_grid(tmp_path):
    """WRF repeats latitude and longitude at each time."""
    lon, lat = curved(centre=(9, 50))
    dims = ("Time", "south_north", "west_east")
    days = pd.date_range("2020-01-01", periods=3)
    values = np.arange(3)[:, None, None] / 10 + np.zeros((3, *lon.shape))
    ds = two_dimensional(np.tile(values, 1), np.stack([lon] * 3), np.stack([lat] * 3), dims)
    ds = ds.assign_coords(Time=("Time", days))
    ds.to_netcdf(tmp_path / "a.nc")
    got = open_gridded({**SPEC, "bands": {"ndvi": "v"}}, root=tmp_path, stations=places([9.0, 9.5], [50.0, 50.1]))[
        "ndvi"
    ]
    np.testing.assert_allclose(got.values, [[0, 0.1, 0.2]] * 2, rtol=1e-6)


@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
def test_a_coordinate_along_time_selects_times(tmp_path, kind):
    """ERA5 of the newer data store: expver is text along time; the preliminary days (0005) are left missing."""
    days = pd.date_range("2020-01-01", periods=3)
    ds = degrees(np.full((3, 2, 2), 0.1), [1, 0], [8, 9], time=("time", days))
    ds = ds.assign_coords(expver=("time", np.array(["0001", "0001", "0005"], dtype="O" if kind == "netcdf" else "U4")))
    ds.to_netcdf(tmp_path / "a.nc") if kind == "netcdf" else ds.to_zarr(tmp_path / "a.nc", zarr_format=2)
    spec = {**SPEC, "kind": kind, "bands": {"ndvi": "v"}, "select": {"expver": 1}}
    for where in ({}, {"stations": places(8.1, 0.1)}):
        got = open_gridded(spec, root=tmp_path, **where)["ndvi"].values.reshape(-1)
        np.testing.assert_allclose(got, np.repeat([0.1, 0.1, np.nan], 1 if where else 4), rtol=1e-6)


def test_what_is_no_grid_is_refused(tmp_path):
    """A list of cells, and longitudes that are none."""
    place = {
        "lat": ("cell", [50.0, 51, 52], {"units": "degrees_north"}),
        "lon": ("cell", [8.0, 9, 10], {"units": "degrees_east"}),
    }
    xr.Dataset({"v": ("cell", [1.0, 2, 3], {"units": "1"})}, place).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(SmgeoError, match="v is a list of pixels along 'cell' .*not read; bring it onto a regular grid"):
        read(tmp_path)
    degrees(np.zeros((2, 2)), [1, 0], [5000.0, 5001.0]).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(SmgeoError, match="'lon' reaches 5001, which is not a longitude"):
        read(tmp_path)
