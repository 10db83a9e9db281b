"""Slope and aspect of a raster of elevation, on a grid and at stations, by the same function."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from smgeo.assemble.slopes import choose_slopes, derive_slopes
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import EarthEngineSource, RasterSource
from smgeo.terrain import slope_aspect

BOX = GeoBox((7, 9), Affine(30, 0, 500_000, 0, -30, 5_000_000), "EPSG:32632")
HILLS = np.random.default_rng(1).uniform(100, 200, BOX.shape.yx).astype("float32")


@pytest.fixture
def source(tmp_path):
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": 7, "width": 9}
    with rasterio.open(tmp_path / "dem.tif", "w", crs="EPSG:32632", transform=BOX.affine, **profile) as dst:
        dst.write(HILLS, 1)
    return RasterSource(kind="geotiff", path="dem.tif", bands={"elevation": 1}, resampling="nearest")


def stations_at(rows, columns):
    """Stations in the middle of pixels."""
    x, y = BOX.affine * (np.array(columns) + 0.5, np.array(rows) + 0.5)
    lon, lat = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform(x, y)
    ids = [f"N/s{i}" for i in range(len(rows))]
    return xr.Dataset(coords={"station": ids, "longitude": ("station", lon), "latitude": ("station", lat)})


@pytest.mark.parametrize("names", [["slope"], ["aspect"], ["slope", "aspect"]])
def test_grid_and_stations_have_the_same_slopes(source, tmp_path, names):
    truth = dict(zip(("slope", "aspect"), slope_aspect(HILLS, 30, 30), strict=True))
    grid = derive_slopes(names, source, BOX[1:-1, 1:-1], tmp_path)
    rows, columns = [1, 3, 5, 4], [1, 7, 2, 4]
    places = derive_slopes(names, source, stations_at(rows, columns), tmp_path)
    assert list(grid) == list(places) == names
    for name in names:
        assert grid[name].chunks is not None
        assert places[name].chunks is not None
        np.testing.assert_array_equal(grid[name], truth[name][1:-1, 1:-1])
        np.testing.assert_array_equal(places[name], truth[name][rows, columns])


def test_a_footprint_averages_slope_and_keeps_the_pixels_aspect(source, tmp_path):
    slope, aspect = slope_aspect(HILLS, 30, 30)
    around = source.model_copy(update={"radius_m": 31.0})  # the pixel and its four neighbours
    found = derive_slopes(["slope", "aspect"], around, stations_at([3], [4]), tmp_path)
    expected = np.mean([slope[3, 4], slope[2, 4], slope[4, 4], slope[3, 3], slope[3, 5]])
    np.testing.assert_allclose(found["slope"], [expected], rtol=1e-6)
    assert found["aspect"].values.tolist() == [aspect[3, 4]]


def test_slopes_are_chosen_only_if_a_raster_of_elevation_gives_them(source):
    other = source.model_copy(update={"bands": {"clay": 1}})
    given = source.model_copy(update={"bands": {"slope": 1}})
    assert choose_slopes(["aspect", "slope", "clay"], [other, source]) == ["slope", "aspect"]
    assert choose_slopes(["aspect", "slope"], [given, source]) == ["aspect"]
    assert choose_slopes(["aspect", "slope"], [other]) == []
    assert choose_slopes(["clay"], [source]) == []
    at = stations_at([1], [1]).assign(slope=("station", [3.0]))
    assert choose_slopes(["aspect", "slope"], [source], at) == ["aspect"]


def test_a_source_of_single_places_gives_no_slopes(tmp_path):
    source = EarthEngineSource(kind="earthengine", bands={"elevation": "elevation"})
    with pytest.raises(SmgeoError, match="slope at stations: earthengine gives elevation only at the stations"):
        derive_slopes(["slope"], source, stations_at([1], [1]), tmp_path)
