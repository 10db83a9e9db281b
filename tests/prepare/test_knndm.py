"""kNNDM: distances and W against a search over all pairs, folds by hand, figures of the method's first program, and bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from smgeo.errors import SmgeoError
from smgeo.prepare import cv_folds, group_stations
from smgeo.prepare.knndm import Match, match_folds, nearest_of_other, scale_features
from smgeo.prepare.places import EARTH_M, middles
from smgeo.prepare.prediction_points import PIXELS, features_of_places, prediction_degrees

# ---- slow references, which know nothing of trees


def kilometres(a, b):
    """The haversine formula for all pairs, (n, m)."""
    (la, lo), (lb, lp) = np.deg2rad(a).T[:, :, None], np.deg2rad(b).T[:, None, :]
    h = np.sin((lb - la) / 2) ** 2 + np.cos(la) * np.cos(lb) * np.sin((lp - lo) / 2) ** 2
    return 2 * EARTH_M / 1000 * np.arcsin(np.sqrt(np.minimum(h, 1)))


def euclidean(a, b):
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))


def slow_others(between, label):
    """Distance to the nearest one with another label, one by one."""
    return np.array([min(between[i, j] for j in range(len(label)) if label[j] != label[i]) for i in range(len(label))])


def slow_w(first, second):
    """The area between the two step functions, step by step."""
    steps = np.sort(np.concatenate([first, second]))
    return sum(
        (right - left) * abs(np.mean(first <= left) - np.mean(second <= left))
        for left, right in itertools.pairwise(steps)
    )


def check_match(match: Match, between, to_points, group):
    """Everything that a match says of its folds, by the slow references."""
    np.testing.assert_allclose(match.predicted, to_points.min(axis=1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(match.left_out, slow_others(between, group), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(match.held_out, slow_others(between, match.fold), rtol=1e-6, atol=1e-6)
    assert match.w == pytest.approx(slow_w(match.held_out, match.predicted), rel=1e-9, abs=1e-12)
    for one in np.unique(group):
        assert np.unique(match.fold[group == one]).size == 1


# ---- layouts

BOX = (40.0, 50.0)


def uniform(rng, n, low=BOX[0], high=BOX[1]):
    """Latitude and longitude, evenly over a box about as wide as high."""
    return np.stack([rng.uniform(low, high, n), rng.uniform(5, 19, n)], axis=1)


def clustered(rng, n, clusters):
    """Places in clusters of some 5 km."""
    return uniform(rng, clusters)[rng.integers(clusters, size=n)] + rng.normal(0, 0.05, (n, 2))


@given(st.integers(0, 10**6), st.integers(2, 5), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_distances_and_w_are_those_of_a_search_over_all_pairs(seed, folds, grouped, globe):
    rng = np.random.default_rng(seed)
    places = clustered(rng, 60, 7)
    points = np.stack([rng.uniform(-90, 90, 90), rng.uniform(-180, 360, 90)], 1) if globe else uniform(rng, 90)
    group = rng.integers(14, size=60) if grouped else np.arange(60)
    match = match_folds(places, points, folds, group=group, max_share=0.8, seed=seed)
    check_match(match, kilometres(places, places), kilometres(points, places), group)
    held = np.bincount(match.fold, minlength=folds)
    assert held.size == folds
    assert held.min() > 0
    assert held.max() <= 0.8 * 60


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_feature_space_is_euclidean(seed, features, folds):
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(5, features))[rng.integers(5, size=40)] + rng.normal(0, 0.02, (40, features))
    points = rng.normal(size=(70, features))
    match = match_folds(places, points, folds, space="feature", max_share=0.9, seed=seed)
    check_match(match, euclidean(places, places), euclidean(points, places), np.arange(40))


@given(st.integers(0, 10**6), st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_nearest_of_another_label_also_where_it_is_no_near_neighbour(seed, labels):
    rng = np.random.default_rng(seed)
    points = np.round(rng.normal(size=(80, 2)), 1)  # some are at the same place
    label = np.sort(rng.integers(labels, size=80))  # a label may have most of the points around one
    label[0], label[-1] = 0, labels
    points[: label.searchsorted(1)] /= 100
    np.testing.assert_allclose(nearest_of_other(points, label), slow_others(euclidean(points, points), label))


# ---- what the method promises


def test_folds_are_random_where_places_are_spread_as_the_map_is():
    """Distances of neighbours depend on each other, so the test of 5 % errs in about 9 % of such layouts (36 of 400)."""
    random = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        match = match_folds(uniform(rng, 80), uniform(rng, 400), 5, seed=seed)
        random += match.clusters is None
        assert match.clusters is not None or np.bincount(match.fold).tolist() == [16] * 5
    assert random >= 51


@pytest.mark.parametrize("clusters", [4, 12, 40])
@pytest.mark.parametrize("folds", [2, 5, 10])
def test_of_clustered_places_w_is_less_than_that_of_random_folds(clusters, folds):
    for seed in range(4):
        rng = np.random.default_rng([seed, clusters])
        places, points = clustered(rng, 120, clusters), uniform(rng, 500)
        match = match_folds(places, points, folds, seed=seed)
        between = kilometres(places, places)
        for _ in range(5):
            at_random = slow_others(between, rng.permutation(120) % folds)
            assert match.w < slow_w(at_random, match.predicted)
        assert match.clusters is not None
        assert np.bincount(match.fold).max() <= 60
        assert np.median(match.left_out) < np.median(match.held_out)


def test_a_map_of_the_stations_own_places_gets_random_folds():
    places = clustered(np.random.default_rng(0), 100, 5)
    match = match_folds(places, places, 10)
    assert match.clusters is None
    assert match.predicted.max() == pytest.approx(0, abs=1e-4)


def test_two_clusters_and_a_map_as_far_as_they_are_apart():
    # Places at 0 and 10 km north and south of the equator's point; the map is 10 km off each cluster.
    km = np.rad2deg(1000 / EARTH_M)
    places = np.array([[0, 0], [0.1, 0], [0.2, 0], [10, 0], [10.1, 0], [10.2, 0]]) * km
    points = np.repeat([[0.0, -9.8], [0.0, 9.8]], 30, axis=0) * km
    match = match_folds(places, points, 2)
    assert match.fold.tolist() in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    assert match.clusters == 2
    np.testing.assert_allclose(match.held_out, [10, 9.9, 9.8, 9.8, 9.9, 10], atol=1e-6)
    np.testing.assert_allclose(match.left_out, [0.1] * 6, atol=1e-6)
    summary = match.summaries()
    assert summary["held_out"]["q50"] == pytest.approx(9.9)
    assert summary["left_out"]["mean"] == pytest.approx(0.1)
    assert list(summary["predicted"]) == ["mean", "q05", "q25", "q50", "q75", "q95"]


def test_no_division_into_two_folds_is_better_where_clusters_are_plain():
    """All divisions of 8 places are tried."""
    rng = np.random.default_rng(3)
    places, points = clustered(rng, 8, 4), uniform(rng, 200)
    match, between = match_folds(places, points, 2), kilometres(places, places)
    possible = [np.array((0, *rest)) for rest in itertools.product((0, 1), repeat=7) if sum(rest) == 4]
    assert match.w <= np.median([slow_w(slow_others(between, f), match.predicted) for f in possible])


def test_the_same_seed_gives_the_same_folds_and_another_seed_other_random_ones():
    rng = np.random.default_rng(1)
    for places in (uniform(rng, 50), clustered(rng, 50, 6)):
        points = uniform(rng, 200)
        first, again = (match_folds(places, points, 5, seed=4) for _ in range(2))
        np.testing.assert_array_equal(first.fold, again.fold)
        assert first.w == again.w
    spread = uniform(rng, 200)
    one, two = (match_folds(spread, uniform(np.random.default_rng(9), 200), 5, seed=s) for s in (0, 1))
    assert one.clusters is two.clusters is None
    assert (one.fold != two.fold).any()


def test_more_places_than_wards_method_takes():
    rng = np.random.default_rng(5)
    places, points = clustered(rng, 3_200, 60), uniform(rng, 300)
    match = match_folds(places, points, 4)
    assert match.clusters is not None
    at_random = nearest_of_other(places, rng.permutation(3_200) % 4) * 111
    assert match.w < slow_w(at_random[:300], match.predicted) / 2
    held = kilometres(places[:50], places)
    held[match.fold[:50, None] == match.fold[None]] = np.inf
    np.testing.assert_allclose(match.held_out[:50], held.min(axis=1), rtol=1e-6, atol=1e-6)


def test_many_places_at_one_position():
    places = np.repeat([[45.0, 8.0], [46.0, 9.0]], [40, 20], axis=0)
    match = match_folds(places, uniform(np.random.default_rng(0), 100), 3, max_share=0.7)
    assert np.bincount(match.fold).max() <= 42
    check_match(
        match, kilometres(places, places), kilometres(uniform(np.random.default_rng(0), 100), places), np.arange(60)
    )


# ---- figures that the tests of the method's first program, CAST for R, state


def r_uniform(seed, n):
    """Uniform numbers of R's Mersenne twister after `set.seed(seed)`."""
    state = []
    for k in range(675):
        seed = (69069 * seed + 1) % 2**32
        if k > 50:
            state.append(seed)
    random = np.random.RandomState()
    random.set_state(("MT19937", np.array(state, dtype="uint32"), 624))
    return random.randint(0, 2**32, size=n, dtype="uint64") * 2.3283064365386963e-10


def r_grid(points):
    """About so many points of a square of 10 x 10, regular, on a random one of seed 1: x and y."""
    step = np.sqrt(100 / points)
    x, y = (np.arange((10 * u) % step, 10, step) for u in r_uniform(1, 2))
    return np.stack([a.ravel() for a in np.meshgrid(x, y)], axis=1)


SIX = np.array([(1, 1), (1, 2), (2, 2), (2, 3), (1, 4), (5, 4)], dtype="float64")
# Radius of the sphere of s2, km, by which CAST measures.
S2_KM = 6371.01


@pytest.mark.parametrize(("points", "w", "w_metres"), [(20, 1.091896, 121095.2), (1000, 1.2004, 133187.4275)])
def test_w_and_clusters_of_six_points_as_cast_has_them(points, w, w_metres):
    grid = r_grid(points)
    plane = match_folds(SIX, grid, 2, space="feature", max_share=0.8)
    assert plane.w == pytest.approx(w, abs=5e-5 if points == 1000 else 5e-7)
    sphere = match_folds(SIX[:, ::-1], grid[:, ::-1], 2, max_share=0.8)
    assert 1000 * sphere.w * S2_KM / (EARTH_M / 1000) == pytest.approx(w_metres, abs=0.05 if points == 20 else 5e-5)
    assert plane.clusters == sphere.clusters == 3


def test_random_folds_where_cast_has_them():
    u = r_uniform(1, 20)
    places = 10 * np.stack([u[:10], u[10:]], axis=1)
    assert match_folds(places, r_grid(20), 2, space="feature", max_share=0.8).clusters is None


def test_a_hundred_points_in_a_corner_match_as_well_as_with_cast():
    """Its k-means draws from R's generator, so W differs; distances to prediction points do not."""
    u, v = r_uniform(1, 200), r_uniform(1, 2000)
    places, points = 4 * np.stack([u[:100], u[100:]], axis=1), 10 * np.stack([v[:1000], v[1000:]], axis=1)
    theirs = (2.184, 2.286, 2.468, 2.554, 2.570, 2.634, 2.678, 2.694, 2.688)
    for folds, w in enumerate(theirs, start=2):
        match = match_folds(places, points, folds, space="feature", max_share=1 / folds + 0.1)
        assert round(match.predicted[0], 4) == 1.3886
        assert match.w < 1.05 * w
        assert np.bincount(match.fold).max() <= 100 / folds + 10


def test_standardised_distances_as_cast_has_them():
    # A raster of 10 x 10 pixels, numbered from 1 in the upper left corner.
    number = lambda xy: 10 * (9 - np.floor(xy[:, 1:])) + np.floor(xy[:, :1]) + 1  # noqa: E731
    places, points = scale_features(number(SIX), number(r_grid(20)), ["number"])
    match = match_folds(places, points, 2, space="feature")
    assert round(match.left_out.mean(), 4) == 0.3814
    assert round(match.predicted.mean(), 4) == 1.0783


# ---- features


def test_features_are_scaled_by_the_places_and_weighted():
    places, points = np.array([[1.0, 10], [3, 30], [5, 20]]), np.array([[7.0, 20], [np.nan, 10]])
    scaled, there = scale_features(places, points, ["a", "b"], weights=[1, 0.5])
    np.testing.assert_allclose(scaled, [[-1, -0.5], [0, 0.5], [1, 0]])
    np.testing.assert_allclose(there, [[2, 0], [np.nan, -0.5]])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0, 1.0, 1.0], "constant over the places: b"),
        ([0.1 + 0.2, 0.3, 0.3], "constant over the places: b"),
        ([np.nan, 2.0, np.nan], "constant over the places: b"),
        ([np.inf, 2.0, 1.0], "features of places are infinite: b"),
    ],
)
def test_features_that_cannot_be_scaled(column, message):
    places = np.stack([[1.0, 2.0, 3.0], column], axis=1)
    with pytest.raises(SmgeoError, match=message):
        scale_features(places, np.zeros((2, 2)), ["a", "b"])
    with pytest.raises(SmgeoError, match="features of prediction points are infinite: a"):
        scale_features(np.eye(2), np.array([[np.inf, 1.0]]), ["a", "b"])
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [np.nan, 1.0]):
        with pytest.raises(SmgeoError, match="weights must be 2 numbers"):
            scale_features(np.eye(2), np.eye(2), ["a", "b"], weights)


# ---- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 11}, "11 folds of 10 groups with a target; folds must be from 2 to 10"),
        ({"folds": 1}, "folds must be a whole number from 2"),
        ({"folds": 3, "group": np.repeat([0, 1], 5)}, "3 folds of 2 groups"),
        ({"group": np.zeros(3)}, "one number for each of 10 places"),
        ({"group": [0] * 8 + [1, 2]}, "groups of stations are so unequal"),
        ({"max_share": 0.3}, "max_share must be at least 0.5"),
        ({"max_share": 0}, "max_share must be a number"),
        ({"seed": -1}, "seed must be"),
        ({"space": "time"}, "unknown space 'time'"),
        ({"prediction": np.full((4, 2), np.nan)}, "all 4 prediction points lack a number"),
        ({"prediction": np.empty((0, 2))}, "all 0 prediction points"),
        ({"prediction": np.zeros((4, 3))}, r"prediction points must have the shape \(n, 2\)"),
        ({"prediction": [["a", "b"]]}, "prediction points must be an array of numbers"),
        ({"prediction": [[8.0, 120.0], [120.0, 8.0]]}, "the order is latitude, longitude"),
        ({"places": np.full((10, 2), np.nan)}, "latitude and longitude of every place with a target; 10 of 10 lack it"),
        ({"places": np.full((10, 3), np.nan), "space": "feature"}, "places have 3 features and prediction points 2"),
        ({"places": np.full((10, 2), np.inf), "space": "feature"}, "a value of every feature"),
    ],
)
def test_what_cannot_be_matched_is_refused(change, message):
    rng = np.random.default_rng(0)
    given = {"places": clustered(rng, 10, 3), "prediction": uniform(rng, 200), "folds": 2, **change}
    with pytest.raises(SmgeoError, match=message):
        match_folds(given.pop("places"), given.pop("prediction"), given.pop("folds"), **given)


def test_prediction_points_that_are_missing_do_not_count():
    rng = np.random.default_rng(0)
    places, points = clustered(rng, 30, 4), uniform(rng, 100)
    some = np.concatenate([points, [[np.nan, 3.0], [4.0, np.nan]]])
    assert match_folds(places, some, 3).w == match_folds(places, points, 3).w


# ---- folds of a cube


def cube(degrees, days=3, **data):
    """Stations at positions, with a target on each day."""
    n = len(degrees)
    return xr.Dataset(
        {"sm": (("station", "time"), np.full((n, days), 0.2, "float32"), {"kind": "target"}), **data},
        {
            "station": [f"N/{i}" for i in range(n)],
            "time": pd.date_range("2020-03-01", periods=days),
            "latitude": ("station", degrees[:, 0]),
            "longitude": ("station", degrees[:, 1]),
        },
    )


def grid_cube(height=40, width=56, **data):
    """A grid over the box of the layouts, 0.25 degrees wide."""
    box = GeoBox.from_bbox((5, 40, 5 + width / 4, 40 + height / 4), "EPSG:4326", resolution=0.25)
    coords = xr_coords(box, dims=("y", "x"))
    return xr.Dataset({n: (*v, {"grid_mapping": "spatial_ref"}) for n, v in data.items()}, coords)


def test_folds_of_a_cube_are_those_of_its_places():
    rng = np.random.default_rng(2)
    degrees = clustered(rng, 40, 6)
    degrees[30:] = degrees[:10] + np.array([1e-5, 0])  # 1.1 m
    ds = cube(degrees)
    ds["sm"][5] = np.nan  # no row
    points = uniform(rng, 200)
    folds = cv_folds(ds, "knndm", 4, prediction=points)
    number = folds.fold[:, 0]
    for i in range(10):
        assert i == 5 or number[i] == number[30 + i]
    assert number[5] == folds.unit[5, 0] == -1
    assert folds.match.held_out.shape == (30,)
    assert folds.match.space == "geographic"
    stations = np.flatnonzero(number >= 0)
    _, first, place = np.unique(
        np.minimum(stations, np.where(stations >= 30, stations - 30, 99)), return_index=True, return_inverse=True
    )
    middle = middles(degrees[stations], place)
    np.testing.assert_allclose(
        np.sort(folds.match.predicted), np.sort(kilometres(points, middle).min(axis=1)), rtol=1e-6
    )
    slow = slow_others(kilometres(middle, middle), number[stations[first]])
    np.testing.assert_allclose(np.sort(folds.match.held_out), np.sort(slow), rtol=1e-6)
    assert len(folds) == 4


def test_a_group_shares_a_fold():
    rng = np.random.default_rng(2)
    ds = cube(clustered(rng, 40, 6))
    network = np.arange(40) % 9
    ds = group_stations(ds.assign_coords(network=("station", network.astype(str))), "network")
    folds = cv_folds(ds, "knndm", 3, prediction=uniform(rng, 100))
    for one in range(9):
        assert np.unique(folds.fold[network == one, 0]).size == 1
    with pytest.raises(SmgeoError, match="10 folds of 9 groups with a target"):
        cv_folds(ds, "knndm", prediction=uniform(rng, 100))
    near = group_stations(ds, "place", buffer_km=5)
    with pytest.raises(SmgeoError, match="a buffer of 5 km would change them; drop buffer_km"):
        cv_folds(near, "knndm", 3, prediction=uniform(rng, 100))


def test_a_grid_cube_gives_the_middles_of_its_pixels():
    grid = grid_cube(4, 3, s=(("y", "x"), np.zeros((4, 3))))
    degrees = prediction_degrees(grid, 0)
    expected = [(y, x) for y in (40.875, 40.625, 40.375, 40.125) for x in (5.125, 5.375, 5.625)]
    np.testing.assert_allclose(degrees, expected)


def test_a_grid_cube_of_a_projection(make_grid_cube):
    degrees = prediction_degrees(make_grid_cube(height=3, width=4), 0)
    # The upper left corner is on the central meridian of UTM 32, 5,000 km north of the equator.
    assert degrees.shape == (12, 2)
    np.testing.assert_allclose(kilometres(degrees[:1], degrees[1:2]), 0.1, rtol=0.01)
    np.testing.assert_allclose(degrees[0], [45.1525, 9.00064], atol=1e-3)


def test_of_many_pixels_some_are_drawn_by_the_seed():
    grid = grid_cube(100, 80, s=(("y", "x"), np.zeros((100, 80))))
    drawn, again, other = (prediction_degrees(grid, seed) for seed in (1, 1, 2))
    assert drawn.shape == (PIXELS, 2)
    assert len(np.unique(drawn, axis=0)) == PIXELS
    np.testing.assert_array_equal(drawn, again)
    assert (drawn != other).any()


def feature_cubes(rng):
    """Stations in two kinds of soil, and a map with both and something between."""
    n = 24
    soil = np.where(np.arange(n) < 12, 10.0, 30.0) + rng.normal(0, 0.1, n)
    wet = rng.normal(0, 1, (n, 3)) + soil[:, None]
    wet[:, 1] = np.nan
    same = np.full(n, 7.0)
    season = (("station", "time"), np.tile([0.1, 0.2, 0.3], (n, 1)), {"kind": "calendar"})
    ds = cube(
        uniform(rng, n), soil=("station", soil), wet=(("station", "time"), wet), same=("station", same), season=season
    )
    shape = (40, 56)
    on_map = rng.uniform(0, 40, shape)
    moving = on_map + rng.normal(0, 1, (2, *shape))
    grid = grid_cube(
        soil=(("y", "x"), on_map),
        wet=(("time", "y", "x"), moving),
        same=(("y", "x"), np.full(shape, 7.0)),
        season=(("time", "y", "x"), np.zeros((2, *shape))),
    )
    return ds, grid


@pytest.mark.parametrize("lazy", [False, True])
def test_folds_in_feature_space(lazy):
    ds, grid = feature_cubes(np.random.default_rng(0))
    given = (ds.chunk(station=5), grid.chunk(y=7, x=9)) if lazy else (ds, grid)
    folds = cv_folds(given[0], "knndm", 2, prediction=given[1], space="feature")
    assert folds.match.features == ("soil", "wet")
    places = np.stack([ds["soil"].values, np.nanmean(ds["wet"].values, axis=1)], axis=1)
    points = np.stack([grid["soil"].values.ravel(), grid["wet"].mean("time").values.ravel()], axis=1)
    middle, spread = places.mean(axis=0), places.std(axis=0, ddof=1)
    places, points = (places - middle) / spread, (points - middle) / spread
    check_match(folds.match, euclidean(places, places), euclidean(points, places), np.arange(24))
    assert folds.match.w < slow_w(folds.match.left_out, folds.match.predicted)


def test_feature_space_needs_features_of_both():
    ds, grid = feature_cubes(np.random.default_rng(0))
    ask = lambda **more: cv_folds(ds, "knndm", 2, **{"prediction": grid, "space": "feature", **more})  # noqa: E731
    west = grid["x"] < 12
    one_or_other = grid.assign(soil=grid["soil"].where(west), wet=grid["wet"].where(~west))
    assert ask(prediction=grid.assign(wet=grid["wet"].where(False))).match.features == ("soil",)
    assert ask(features=["soil"]).match.features == ("soil",)
    for more, message in (
        ({"features": ["same"]}, "constant over the places: same"),
        ({"features": ["soill"]}, "'soill' is no feature of both"),
        ({"features": ["season"]}, "'season' is no feature of both"),
        (
            {"prediction": np.zeros((3, 2))},
            "space feature needs the features of prediction points: give prediction=, a grid",
        ),
        ({"prediction": grid.drop_vars(list(grid.data_vars))}, "no feature in common"),
        ({"prediction": grid[["same"]]}, "no feature of the pixels varies between the places"),
        ({"prediction": grid.where(False)}, "no feature of the pixels varies between the places"),
        ({"prediction": grid.where(False), "features": ["wet"]}, "no pixel that was drawn has a value of wet"),
        ({"prediction": one_or_other}, "all 2,240 prediction points lack a number"),
        ({"prediction": grid.assign(soil=grid["soil"] / 0)}, "features of prediction points are infinite: soil"),
        ({"space": "time"}, "unknown space 'time'"),
    ):
        with pytest.raises(SmgeoError, match=message):
            ask(**more)
    lacking = ds.assign(soil=ds["soil"].where(ds["soil"] > 20))
    filled = ds.assign(soil=lacking["soil"].fillna(lacking["soil"].mean()))
    there = features_of_places(lacking, np.arange(24), np.arange(24), grid, "sm", None, 0)[0]
    np.testing.assert_array_equal(there[:12, 0], 0)
    assert cv_folds(lacking, "knndm", 2, prediction=grid, space="feature").match.held_out.shape == (24,)
    by_hand = (filled["soil"].values - filled["soil"].values.mean())[12:]
    np.testing.assert_allclose(there[12:, 0] / by_hand, there[12, 0] / by_hand[0])
    places, points, names = features_of_places(ds, np.arange(24), np.arange(24), grid, "sm", None, 0)
    assert (places.shape, points.shape, names) == ((24, 2), (2240, 2), ("soil", "wet"))


def test_a_cube_without_prediction_points_or_coordinates_is_told_what_to_give():
    rng = np.random.default_rng(0)
    ds, points = cube(uniform(rng, 12)), uniform(rng, 50)
    with pytest.raises(SmgeoError, match="give prediction=, latitude and longitude as an array"):
        cv_folds(ds, "knndm", 3)
    with pytest.raises(SmgeoError, match="prediction must be latitude and longitude, .* got str"):
        cv_folds(ds, "knndm", 3, prediction="map.tif")
    with pytest.raises(SmgeoError, match="prediction must be a grid cube"):
        cv_folds(ds, "knndm", 3, prediction=ds)
    with pytest.raises(SmgeoError, match="the grid cube has no CRS"):
        cv_folds(ds, "knndm", 3, prediction=grid_cube().drop_vars("spatial_ref"))
    with pytest.raises(SmgeoError, match="12 of 12 lack it"):
        cv_folds(ds.drop_vars(["latitude", "longitude"]), "knndm", 3, prediction=points)
    with pytest.raises(SmgeoError, match="13 folds of 12 groups"):
        cv_folds(ds, "knndm", 13, prediction=points)
    assert len(cv_folds(ds, "knndm", prediction=points)) == 10


def test_feature_space_needs_the_same_units():
    """Degrees of stations and kelvins of pixels would be 273 apart; a unit that one of the two does not state passes."""
    ds, grid = feature_cubes(np.random.default_rng(0))
    degrees = ds.assign(soil=ds["soil"].assign_attrs(units="degC"))
    cv_folds(degrees, "knndm", 2, prediction=grid, space="feature")
    kelvins = grid.assign(soil=(grid["soil"] + 273.15).assign_attrs(units="K"))
    with pytest.raises(SmgeoError, match="units in .*prediction points do not match: soil is in 'K', needed in 'degC'"):
        cv_folds(degrees, "knndm", 2, prediction=kelvins, space="feature")
