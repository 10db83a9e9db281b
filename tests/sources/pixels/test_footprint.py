"""Pixels of stations against brute force: every pixel's geodesic distance, on grids of a few pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

from smgeo.errors import SmgeoError
from smgeo.sources.pixels.footprint import Footprints, find_footprints, station_places, tiles_of

WGS84 = Geod(ellps="WGS84")


def box(shape, left, top, pixel, crs="EPSG:32632"):
    return GeoBox(shape, Affine(pixel, 0, left, 0, -pixel, top), crs)


@lru_cache
def transformer(crs):
    return Transformer.from_crs("EPSG:4326", crs, always_xy=True)


def brute(lon, lat, grid, radius_m):
    """(row, column) of all pixels whose centre lies within the radius, and of the one whose area holds the station."""
    to_grid = transformer(str(grid.crs))
    x, y = to_grid.transform(lon, lat)
    turns = (0, -360, 360) if grid.crs.geographic else (0,)
    found = set()
    for row in range(grid.shape.y):
        for column in range(grid.shape.x):
            left, top = grid.affine * (column, row)
            right, bottom = grid.affine * (column + 1, row + 1)
            centre = to_grid.transform((left + right) / 2, (top + bottom) / 2, direction="INVERSE")
            metres = WGS84.inv(lon, lat, *centre)[2]
            if metres <= radius_m or any(left <= x + turn < right and bottom < y <= top for turn in turns):
                found.add((row, column))
    return found


def pixels_of(found, station):
    mine = found.stations == station
    return set(zip(found.rows[mine].tolist(), found.columns[mine].tolist(), strict=True))


GRIDS = {
    "utm": box((30, 40), 480_017, 5_560_011, 500),
    "degrees": box((30, 40), 8.8, 50.2, 0.006, "EPSG:4326"),
    "laea": box((20, 20), 4_235_000, 3_010_000, 1200, "EPSG:3035"),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("radius_m", [None, 100.0, 1800.0, 6000.0])
def test_pixels_are_those_within_the_radius(name, radius_m):
    rng = np.random.default_rng(0)
    lons, lats = rng.uniform(8.78, 9.06, 12), rng.uniform(50.0, 50.2, 12)
    found = find_footprints(lons, lats, GRIDS[name], radius_m)
    inside = 0
    for i, (lon, lat) in enumerate(zip(lons, lats, strict=True)):
        held = brute(lon, lat, GRIDS[name], 0)
        truth = brute(lon, lat, GRIDS[name], radius_m or 0) if held else set()
        inside += bool(held)
        assert pixels_of(found, i) == truth
        assert (found.stations == i).sum() == len(truth)
    assert inside >= 4
    assert (np.diff(found.stations) >= 0).all()
    assert found.covered.size == inside


def test_a_footprint_goes_over_the_180th_meridian():
    globe = box((18, 36), -180, 90, 10, "EPSG:4326")
    stations = np.array([179.0, -179.0, 181.0]), np.array([5.0, 5.0, 5.0])
    found = find_footprints(*stations, globe, 1_300_000)
    for i in range(3):
        assert pixels_of(found, i) == brute(stations[0][i], 5.0, globe, 1_300_000)
    assert (8, 0) in pixels_of(found, 0)
    assert (8, 35) in pixels_of(found, 1)
    # 181 degrees east are 179 degrees west.
    assert pixels_of(find_footprints(*stations, globe, None), 2) == {(8, 0)}
    # A grid of 170 to 190 degrees.
    region = box((2, 20), 170, 6, 1, "EPSG:4326")
    assert pixels_of(find_footprints(np.array([-175.5]), np.array([5.5]), region, None), 0) == {(0, 14)}
    assert pixels_of(find_footprints(np.array([-179.9]), np.array([5.5]), region, 120_000), 0) == brute(
        180.1, 5.5, region, 120_000
    )


def test_as_wide_as_the_globe_a_pixel_is_taken_once():
    globe = box((2, 5), -180, 90, 72, "EPSG:4326")
    found = find_footprints(np.array([0.0]), np.array([10.0]), globe, 3e7)
    assert len(found.rows) == len(pixels_of(found, 0)) == 10


def test_stations_beside_the_grid_have_none():
    grid = box((2, 2), 500_000, 5_600_000, 100)
    lons, lats = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform(
        [499_999, 500_001, 500_150, 500_201, 500_050], [5_599_950, 5_599_999, 5_599_801, 5_599_950, 5_600_001]
    )
    found = find_footprints(np.array(lons), np.array(lats), grid, 1000)
    assert found.covered.tolist() == [1, 2]
    assert len(found.rows) == 8
    none = find_footprints(np.array([0.0, 179.0]), np.array([-80.0, 80.0]), grid, 1000)
    assert (none.stations.size, none.rows.size, none.columns.size) == (0, 0, 0)


def test_mean_of_a_footprint():
    found = Footprints(np.array([1, 1, 4]), np.array([0, 1, 5]), np.array([2, 2, 5]))
    values = np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.nan], [7.0, 8.0, 9.0]], dtype="float32")
    ids, means = found.mean(values, decibels=False)
    assert ids.tolist() == [1, 4]
    np.testing.assert_array_equal(means, [[2, 4, np.nan], [7, 8, 9]])
    _, power = found.mean(np.array([0.0, 10.0, 3.0]), decibels=True)
    np.testing.assert_allclose(power, [10 * np.log10((1 + 10) / 2), 3], rtol=1e-6)


def test_a_pixel_each_keeps_its_values():
    found = Footprints(np.array([0, 2]), np.array([0, 1]), np.array([2, 2]))
    ids, values = found.mean(np.array([1.5, -np.inf]), decibels=True)
    assert ids.tolist() == [0, 2]
    assert values.tolist() == [1.5, -np.inf]
    nobody = Footprints(*(np.empty(0, dtype=int) for _ in range(3)))
    ids, values = nobody.mean(np.empty((0, 5), dtype="float32"), decibels=False)
    assert ids.size == 0
    assert values.shape == (0, 5)


@pytest.mark.parametrize("width", [0.1, 0.05, 1 / 120])
def test_stations_on_edges_between_pixels(width):
    """1.2 / 0.1 is 11.999999999999998 as computers count, and an edge is the western edge of one pixel all the same."""
    grid = GeoBox((2, 2400), Affine(width, 0, 8.1, 0, -width, 1.0), "EPSG:4326")
    edges = np.arange(2400)
    found = find_footprints(8.1 + edges * width, np.full(2400, 1.0), grid, None)
    assert found.columns.tolist() == edges.tolist()
    globe = GeoBox((2, 4320), Affine(0.083333333, 0, -180, 0, -0.083333333, 1.0), "EPSG:4326")
    assert find_footprints(np.array([180.0, -180, -180 - 1e-14]), np.ones(3), globe, None).columns.tolist() == [0, 0, 0]


def test_places_of_stations():
    coords = {"station": ["N/a", "N/b"], "latitude": ("station", [50.0, 51.0]), "longitude": ("station", [9.0, np.nan])}
    stations = xr.Dataset(coords=coords)
    with pytest.raises(SmgeoError, match="N/b has no latitude or longitude"):
        station_places(stations)
    lons, lats = station_places(stations.isel(station=[0]))
    assert (lons.tolist(), lats.tolist(), lons.dtype) == ([9.0], [50.0], np.float64)
    with pytest.raises(SmgeoError, match="stations lack longitude"):
        station_places(stations.drop_vars("longitude"))


def test_every_pixel_is_in_one_tile():
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(0, 100, 200), rng.integers(0, 70, 200)
    tiles = tiles_of(rows, columns, (16, 32))
    assert sorted(np.concatenate(tiles).tolist()) == list(range(200))
    keys = [set(zip((rows[t] // 16).tolist(), (columns[t] // 32).tolist(), strict=True)) for t in tiles]
    assert all(len(k) == 1 for k in keys)
    assert len(set.union(*keys)) == len(tiles)
    assert tiles_of(rows[:0], columns[:0], (16, 32)) == []
