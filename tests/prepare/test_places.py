"""Places and groups, against a plain search over all pairs and cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import smgeo
from smgeo.errors import SmgeoError
from smgeo.prepare.places import EARTH_M, group_numbers, nearest_m, number_places, place_numbers

# Degrees of latitude in a metre.
METRE = np.rad2deg(1 / EARTH_M)


def metres(a: np.ndarray, b: np.ndarray) -> float:
    """The haversine formula, as every textbook has it."""
    (la, lo), (lb, lp) = np.deg2rad(a), np.deg2rad(b)
    h = np.sin((lb - la) / 2) ** 2 + np.cos(la) * np.cos(lb) * np.sin((lp - lo) / 2) ** 2
    return float(2 * EARTH_M * np.arcsin(np.sqrt(h)))


def cube(north: list[float], **coords: list[str]) -> xr.Dataset:
    """Stations in a row, so many metres north of 50 degrees, each with two days of a target."""
    n = len(north)
    sm = (("station", "time"), np.arange(2.0 * n).reshape(n, 2) / 100, {"units": "m3 m-3", "kind": "target"})
    return xr.Dataset(
        {"sm": sm},
        {
            "station": [f"N/s{i}" for i in range(n)],
            "time": np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]"),
            "latitude": ("station", 50 + METRE * np.array(north)),
            "longitude": ("station", np.full(n, 10.0)),
            **{name: ("station", labels) for name, labels in coords.items()},
        },
    )


def test_a_place_does_not_chain():
    # 20 m steps: the first two are one place of 30 m, and the third is 40 m from the first.
    assert number_places(np.c_[50 + METRE * np.array([0.0, 20, 40, 60, 500]), np.full(5, 10.0)], 30).tolist() == [
        0,
        0,
        1,
        1,
        2,
    ]


def test_those_nearest_to_each_other_are_joined_first():
    degrees = np.c_[50 + METRE * np.array([0.0, 25, 30]), np.full(3, 10.0)]
    assert number_places(degrees, 29).tolist() == [0, 1, 1]


def test_a_place_crosses_the_date_line_and_the_pole():
    assert number_places(np.array([[0.0, 180.0], [0.0, -180.0 + 10 * METRE]]), 30).tolist() == [0, 0]
    assert number_places(np.array([[90.0, 0.0], [90.0, 120.0], [89.0, 0.0]]), 30).tolist() == [0, 0, 1]


def test_an_unknown_position_is_its_own_place():
    assert number_places(np.array([[np.nan, 10.0], [np.nan, 10.0], [50, 10], [50, 10]]), 30).tolist() == [0, 1, 2, 2]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(1, 5_000))
def test_members_are_near_to_each_other_and_nothing_could_be_joined(seed, count, size):
    degrees = np.array([50.0, 10.0]) + np.random.default_rng(seed).normal(0, 0.01, (count, 2))
    place = number_places(degrees, size)
    assert list(dict.fromkeys(place.tolist())) == list(range(place.max() + 1))
    apart = np.array([[metres(a, b) for b in degrees] for a in degrees])
    for p in range(place.max() + 1):
        assert apart[np.ix_(place == p, place == p)].max() <= size * (1 + 1e-6)
        for q in range(p):  # two places that fit into one would have been joined
            assert apart[np.ix_(place == p, place == q)].max() > size * (1 - 1e-6)


def test_distances_are_those_of_the_haversine_formula():
    random = np.random.default_rng(0)
    a, b = random.uniform([-90, -180], [90, 180], (30, 2)), random.uniform([-90, -180], [90, 180], (20, 2))
    np.testing.assert_allclose(nearest_m(a, b), [min(metres(x, y) for y in b) for x in a], rtol=1e-9)
    assert np.isnan(nearest_m(a[:2], b * np.nan)).all()


def test_without_groups_splits_part_places_and_no_twins():
    north = np.repeat(np.arange(20) * 5_000.0, 2) + np.tile([0.0, 10.0], 20)  # 20 sites with two stations each
    ds = cube(north.tolist())
    for seed in range(20):
        split = smgeo.split_stations(ds, (0.7, 0.15, 0.15), extremes_to_train=False, seed=seed)
        parts = [{int(s[3:]) // 2 for s in ids} for ids in split.parts().values()]
        assert sum(map(len, parts)) == 20 == len(set().union(*parts))
        assert len(split.test) == 6
    for method in ("group-k-fold", "leave-location-out", "spatial-blocks"):
        for train, held in smgeo.cv_folds(ds, method, 5):
            site = np.arange(40) // 2
            assert not set(site[train.any(axis=1)]) & set(site[held.any(axis=1)])


def test_groups_by_a_coordinate_clusters_places_and_stations():
    ds = cube([0, 10, 2_000, 2_010, 9_000], network=["A", "B", "A", "A", ""])
    names = {by: smgeo.group_stations(ds, by)["group"].values.tolist() for by in ("place", "station", "network")}
    assert names["place"] == ["N/s0", "N/s0", "N/s2", "N/s2", "N/s4"]
    assert names["station"] == [f"N/s{i}" for i in range(5)]
    # The first place has a station of each network, and goes with the first; the last has no network.
    assert names["network"] == ["A", "A", "A", "A", "(N/s4)"]
    assert group_numbers(smgeo.group_stations(ds, "clusters", km=3)).tolist() == [0, 0, 0, 0, 1]
    wide = smgeo.group_stations(ds, same_place_m=5_000)
    assert group_numbers(wide).tolist() == place_numbers(wide).tolist() == [0, 0, 0, 0, 1]
    assert place_numbers(smgeo.group_stations(ds, "station")).tolist() == [0, 1, 2, 3, 4]


def test_a_column_group_is_the_default_and_never_parts_a_place():
    ds = cube([0, 10, 2_000, 4_000], group=["field 1", "", "field 1", ""])
    assert group_numbers(ds).tolist() == [0, 0, 0, 1]
    assert group_numbers(smgeo.group_stations(ds, "place")).tolist() == [0, 0, 1, 2]


def test_a_buffer_keeps_training_away_from_what_is_held_out():
    ds = smgeo.group_stations(cube((np.arange(30) * 1_000.0).tolist()), buffer_km=1.5)
    split = smgeo.split_stations(ds, (0.6, 0.2, 0.2), extremes_to_train=False, seed=1)
    at = {name: np.array([int(s[3:]) for s in ids]) for name, ids in split.parts().items()}
    held = np.concatenate([at["validation"], at["test"]])
    near = {i for i in range(30) if i not in held and np.abs(held - i).min() <= 1}
    assert {int(s[3:]) for s in split.in_buffer} == near
    assert set(at["train"]) == set(range(30)) - near - set(held)
    folds = smgeo.cv_folds(ds, "leave-location-out", 5)
    for train, held in folds:
        out = np.flatnonzero(held.any(axis=1))
        expected = {i for i in range(30) if np.abs(out - i).min() > 1}
        assert set(np.flatnonzero(train.any(axis=1))) == expected


def test_what_groups_cannot_be():
    ds = cube([0, 10, 2_000])
    with pytest.raises(SmgeoError, match="no coordinate 'networks'.*network|known"):
        smgeo.group_stations(ds, "networks")
    with pytest.raises(SmgeoError, match="`km` is the size of `clusters`"):
        smgeo.group_stations(ds, "clusters")
    with pytest.raises(SmgeoError, match="`km` is the size of `clusters`"):
        smgeo.group_stations(ds, "place", km=3)
    with pytest.raises(SmgeoError, match="need latitude and longitude of every station, and 3 of 3"):
        smgeo.group_stations(ds.drop_vars(["latitude"]), buffer_km=1)
    with pytest.raises(SmgeoError, match="same_place_m must be a number from 0"):
        smgeo.group_stations(ds, same_place_m=-1)


def test_places_do_not_depend_on_the_order_of_stations_or_on_how_many_are_at_a_point():
    north = [0.0, 20, 40, 60, 80, 100, 120]
    degrees = np.c_[50 + METRE * np.array(north), np.full(7, 10.0)]
    expected = {frozenset(np.flatnonzero(number_places(degrees, 30) == p).tolist()) for p in range(7)} - {frozenset()}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(7)
        place = number_places(degrees[order], 30)
        assert {frozenset(order[place == p].tolist()) for p in range(7)} - {frozenset()} == expected
    assert number_places(np.full((50_000, 2), 10.0), 30).max() == 0


def test_a_station_without_a_name_is_in_no_group_of_that_name():
    ds = cube([0, 1_000, 2_000, 3_000], network=[np.nan, np.nan, 1.0, 2.0])
    assert group_numbers(smgeo.group_stations(ds, "network")).tolist() == [0, 1, 2, 3]
    ds = cube([0, 1_000, 2_000, 3_000], network=["N/s1", "", "x", "x"])
    assert group_numbers(smgeo.group_stations(ds, "network")).tolist() == [0, 1, 2, 2]


def test_a_large_group_stays_in_training():
    network = ["big"] * 24 + [f"n{i // 2}" for i in range(16)]
    ds = smgeo.group_stations(cube((np.arange(40) * 1_000.0).tolist(), network=network), "network")
    for seed in range(20):
        split = smgeo.split_stations(ds, (0.6, 0.2, 0.2), extremes_to_train=False, seed=seed)
        assert (len(split.train), len(split.validation), len(split.test)) == (24, 8, 8)
    # Where there are only large groups, the smallest of them is tested.
    ds = smgeo.group_stations(
        cube((np.arange(40) * 1_000.0).tolist(), network=["a"] * 20 + ["b"] * 12 + ["c"] * 8), "network"
    )
    assert len(smgeo.split_stations(ds, (0.8, 0, 0.2), extremes_to_train=False).test) == 8


def test_no_method_of_cross_validation_parts_a_group():
    network = [f"n{i // 5}" for i in range(40)]
    ds = smgeo.group_stations(cube((np.arange(40) * 1_000.0).tolist(), network=network), "network")
    for method in ("group-k-fold", "leave-location-out", "spatial-blocks"):
        for train, held in smgeo.cv_folds(ds, method, 4):
            assert not set(np.flatnonzero(train.any(1)) // 5) & set(np.flatnonzero(held.any(1)) // 5)


def test_the_buffer_lies_between_validation_and_test_too():
    ds = smgeo.group_stations(cube((np.arange(60) * 1_000.0).tolist()), buffer_km=1.5)
    split = smgeo.split_stations(ds, (0.6, 0.2, 0.2), extremes_to_train=False, seed=1)
    at = {name: np.array([int(s[3:]) for s in ids]) for name, ids in split.parts().items()}
    for a, b in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert min(abs(i - j) for i in at[a] for j in at[b]) > 1
    assert sum(map(len, at.values())) + len(split.in_buffer) == 60


def test_positions_that_are_none_on_earth_are_refused():
    swapped = cube([0, 1_000])
    swapped = swapped.assign_coords(latitude=("station", [120.0, 10.0]))
    with pytest.raises(SmgeoError, match="N/s0 has latitude 120 .*swapped"):
        smgeo.group_stations(swapped)
    with pytest.raises(SmgeoError, match="needs a station cube"):
        smgeo.group_stations(xr.Dataset({"a": ("y", [1.0])}))
