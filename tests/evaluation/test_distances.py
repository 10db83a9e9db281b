"""Distances of a split against the haversine formula, and shared pixels on rasters that could be drawn on paper."""

from __future__ import annotations

from math import asin, cos, radians, sin, sqrt

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer

import smgeo
from smgeo.errors import SmgeoError
from smgeo.evaluation.distances import describe_distances
from smgeo.prepare import Split
from smgeo.prepare.prediction_points import sample_pixels

RADIUS_KM = 6371.0088
DEGREE_KM = 111.195  # of a great circle


def haversine_km(a, b):
    (lat1, lon1), (lat2, lon2) = ((radians(v) for v in place) for place in (a, b))
    h = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * RADIUS_KM * asin(min(1.0, sqrt(h)))


def cube(places, **layers):
    """Stations at (latitude, longitude), and static variables: name -> (values, size of a pixel or None)."""
    degrees = np.array(places, dtype="float64").reshape(-1, 2)
    ids = np.array([f"N/s{i}" for i in range(len(degrees))], dtype=object)
    data = {
        name: ("station", np.array(values, "float32"), {"kind": "static"} | ({"pixel_size_m": size} if size else {}))
        for name, (values, size) in layers.items()
    }
    coords = {"station": ids, "latitude": ("station", degrees[:, 0]), "longitude": ("station", degrees[:, 1])}
    return xr.Dataset(data, coords)


def split_of(train, validation=(), test=()):
    return Split(*(tuple(f"N/s{i}" for i in part) for part in (train, validation, test)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_distances_are_those_of_the_haversine_formula(seed):
    random = np.random.default_rng(seed)
    places = np.stack([random.uniform(-90, 90, 12), random.uniform(-180, 180, 12)], axis=1)
    places[6] = places[0] + [0.002, 0]  # a test station within a kilometre
    pixels = np.stack([random.uniform(-90, 90, 7), random.uniform(-180, 180, 7)], axis=1)
    train, validation, test = range(5), (5,), range(6, 12)
    found = describe_distances(cube(places), split_of(train, validation, test), pixels)

    def nearest(some):
        return [min(haversine_km(p, places[i]) for i in train) for p in some]

    for part, members in (("validation", validation), ("test", test)):
        km = nearest(places[list(members)])
        expected = [min(km), np.median(km), max(km)]
        assert [found[part][f"km_{end}"] for end in ("min", "median", "max")] == pytest.approx(expected, rel=1e-6)
        assert found[part]["within_1_km"] == sum(d < 1 for d in km)
        assert (found[part]["stations"], found[part]["shared_pixels"]) == (len(members), {})
    km = nearest(pixels)
    assert found["map"] == pytest.approx({"pixels": 7, "km_median": np.median(km), "km_max": max(km)}, rel=1e-6)


def test_nearer_than_a_kilometre():
    metre = 0.001 / DEGREE_KM
    places = [(0, 0), (999 * metre, 0), (1001 * metre, 0), (0, 0)]
    found = describe_distances(cube(places), split_of([0], (), [1, 2, 3]))["test"]
    assert (found["within_1_km"], found["km_min"]) == (2, 0.0)
    assert found["km_max"] == pytest.approx(1.001, rel=1e-5)


# Pixels of a raster of 4 x 4 at 60 N, and stations in them: (row, column), from the upper left corner, in pixels.
RASTERS = {
    "EPSG:4326": Affine(0.02, 0, 9, 0, -0.01, 60.02),  # about 1.1 km each way
    "EPSG:32632": Affine(1000, 0, 500_000, 0, -1000, 6_653_000),
}
VALUES = np.array([[1, 1, 2, 3], [4, 5, 6, 7], [8, 8, 8, 1], [9, 9, 9, np.nan]], dtype="float32")


def stations_in(transform, crs, at):
    x, y = np.array([transform * (column, row) for row, column in at]).T
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return cube(list(zip(latitude, longitude, strict=True)))


@pytest.mark.parametrize("crs", RASTERS)
def test_stations_share_a_pixel_by_hand(crs):
    coords = xr_coords(GeoBox((4, 4), RASTERS[crs], crs), dims=("y", "x"))
    raster = xr.Dataset({"clay": (("y", "x"), VALUES, {"kind": "static", "units": "%"})}, coords)
    at = [(0.5, 0.9), (1.5, 0.5), (2.5, 0.1), (3.5, 3.3)]  # training: values 1, 4, 8, none
    at += [
        (0.2, 0.8),  # in the pixel of the first: shared
        (0.5, 1.2),  # 0.3 pixels from it, in the next one of the same value: cannot be told from it, shared
        (2.5, 3.5),  # of its value, but far from it
        (1.5, 1.1),  # 0.6 pixels from the second, of another value
        (2.5, 2.9),  # 2.8 pixels from the third, of its value
        (3.5, 3.7),  # beside a training station, but neither has a value
    ]
    ds = smgeo.extract(raster, stations_in(RASTERS[crs], crs, at))
    assert ds["clay"].values[:9].tolist() == [1, 4, 8, pytest.approx(np.nan, nan_ok=True), 1, 1, 1, 5, 8]
    found = describe_distances(ds, split_of(range(4), [4], range(5, 10)))
    assert found["test"]["shared_pixels"] == {"clay": 1}
    assert found["validation"]["shared_pixels"] == {"clay": 1}
    split = split_of(range(4), (), range(4, 10))
    assert describe_distances(ds, split)["test"]["shared_pixels"] == {"clay": 2}
    assert describe_distances(ds.chunk(station=3), split)["test"]["shared_pixels"] == {"clay": 2}


def test_layers_without_a_size_are_left_out():
    km = 1 / DEGREE_KM
    places = [(0, 0), (0.3 * km, 0)]
    ds = cube(places, clay=([1, 1], 250), sand=([1, 1], 400), silt=([1, 2], 400), slope=([1, 1], None))
    found = describe_distances(ds, split_of([0], (), [1]))["test"]["shared_pixels"]
    assert found == {"clay": 0, "sand": 1, "silt": 0}


# What the distances say


def line(*km):
    """Places on a meridian, km from its equator."""
    return [(k / DEGREE_KM, 0.0) for k in km]


@pytest.mark.parametrize(
    ("test_km", "pixels_km", "words"),
    [
        (1.0, [1.0, 1.9, 50], []),
        (1.0, [1.0, 2.1, 50], ["map is farther"]),
        (0.09, [0.1], []),
        (0.09, [5], ["random split in disguise", "map is farther"]),
        (0.11, None, []),
    ],
)
def test_warnings(test_km, pixels_km, words):
    pixels = None if pixels_km is None else np.array(line(*pixels_km))
    found = describe_distances(cube(line(0, test_km)), split_of([0], (), [1]), pixels)
    assert [w for w in ("random split in disguise", "map is farther") if w in found["warning"]] == words
    assert (found["warning"] == "") == (not words)
    assert ("map" in found) == (pixels is not None)


def test_what_has_no_distances():
    ds = cube(line(0, 1, 2))
    split = split_of([0], (), [1, 2])
    days = {"train": ("2020-01-01", "2020-01-05"), "test": ("2020-01-06", "2020-01-09")}
    in_time = Split(("N/s0",), (), ("N/s0",), periods=days)
    assert describe_distances(ds, in_time) == {}
    assert describe_distances(ds.drop_vars("latitude"), split) == {}
    assert describe_distances(ds.assign_coords(latitude=ds["latitude"].where(ds["station"] != "N/s0")), split) == {}
    some = describe_distances(ds.assign_coords(latitude=ds["latitude"].where(ds["station"] != "N/s1")), split)
    assert some["test"]["stations"] == 1
    assert "validation" not in some
    assert describe_distances(ds, split_of([0, 1, 2])) == {}


def test_pixels_that_are_none():
    ds, split = cube(line(0, 1)), split_of([0], (), [1])
    assert "map" not in describe_distances(ds, split, np.empty((0, 2)))
    known = describe_distances(ds, split, np.array([[np.inf, np.inf], *line(3)]))
    assert known["map"] == pytest.approx({"pixels": 1, "km_median": 3, "km_max": 3}, rel=1e-5)
    with pytest.raises(SmgeoError, match=r"latitude and longitude, \(n, 2\); got shape \(3,\)"):
        describe_distances(ds, split, np.arange(3))
    with pytest.raises(SmgeoError, match="no station 'N/s7'"):
        describe_distances(ds, split_of([0], (), [7]))


def grid(crs, transform, height, width):
    return xr.Dataset(coords=xr_coords(GeoBox((height, width), transform, crs), dims=("y", "x")))


def test_a_sample_of_pixels():
    small = sample_pixels(grid("EPSG:4326", RASTERS["EPSG:4326"], 2, 3))
    expected = [[60.02 - 0.01 * (r + 0.5), 9 + 0.02 * (c + 0.5)] for r in range(2) for c in range(3)]
    np.testing.assert_allclose(small, expected, atol=1e-9)
    large = grid("EPSG:32632", RASTERS["EPSG:32632"], 110, 50)
    found = sample_pixels(large)
    assert found.shape == (5000, 2)
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True).transform(found[:, 1], found[:, 0])
    columns, rows = (x - 500_000) / 1000 - 0.5, (6_653_000 - y) / 1000 - 0.5
    np.testing.assert_allclose(columns, np.round(columns), atol=1e-4)
    np.testing.assert_allclose(rows, np.round(rows), atol=1e-4)
    assert len({*zip(np.round(rows), np.round(columns), strict=True)}) == 5000
    assert rows.min() >= -1e-4
    assert rows.max() < 109.1
    assert columns.max() < 49.1
    np.testing.assert_array_equal(found, sample_pixels(large))
    with pytest.raises(SmgeoError, match="the grid cube has no CRS"):
        sample_pixels(xr.Dataset(coords={"y": [0.0, 1], "x": [0.0, 1]}))


def test_probes_of_one_mast_are_a_random_split_in_disguise():
    ds = cube(line(0, 0.01, 5, 5.01), sm=([0.1, 0.2, 0.3, 0.4], None))
    assert "random split" in describe_distances(ds, split_of([0, 2], (), [1, 3]))["warning"]
    split = smgeo.split_stations(ds, (0.5, 0, 0.5), extremes_to_train=False, seed=3)
    assert describe_distances(ds, split)["warning"] == ""
    assert describe_distances(ds, split)["test"]["km_min"] == pytest.approx(4.99, rel=1e-4)
