"""Folds of rows: each held out once, never in both parts, whole units together; by hand and as properties."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.errors import SmgeoError
from smgeo.prepare import cv_folds, group_stations
from smgeo.prepare.folds import METHODS

BY_STATION = ("group-k-fold", "leave-location-out", "spatial-blocks", "knndm")
BOTH = "leave-location-and-time-out"
# Points all over the globe, for which a map would be made.
GLOBE = np.stack([a.ravel() for a in np.meshgrid(np.linspace(-60, 60, 7), np.linspace(-180, 150, 12))], axis=1)


def cube(sm, latitude=None, longitude=None):
    """A cube of the target alone, from 1 March 2020."""
    sm = np.asarray(sm, dtype="float32")
    coords = {
        "station": [f"N/{i}" for i in range(sm.shape[0])],
        "time": pd.date_range("2020-03-01", periods=sm.shape[1]),
    }
    if latitude is not None:
        coords |= {"latitude": ("station", latitude), "longitude": ("station", longitude)}
    return xr.Dataset({"sm": (("station", "time"), sm)}, coords)


def drawn(seed, stations, days, missing=0.4):
    """Stations at random places, some two of them at the same, with gaps in the target."""
    rng = np.random.default_rng(seed)
    sm = rng.uniform(0, 0.5, (stations, days))
    sm[rng.random(sm.shape) < missing] = np.nan
    sm[:, 0] = 0.1  # every station has a row
    latitude, longitude = rng.uniform(-60, 60, stations), rng.uniform(-180, 180, stations)
    latitude[-1], longitude[-1] = latitude[0] + 2e-6, longitude[0]
    return cube(sm, latitude, longitude)


def of(method):
    """What a method needs."""
    return {"prediction": GLOBE} if method == "knndm" else {}


def held_days(folds):
    return [np.flatnonzero(held.any(axis=0)).tolist() for _, held in folds]


def trained_days(folds):
    return [np.flatnonzero(train.any(axis=0)).tolist() for train, _ in folds]


@given(st.integers(0, 10**6), st.sampled_from(sorted({*METHODS} - {BOTH})), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_every_row_is_held_out_once_and_never_in_both_parts(seed, method, count):
    ds = drawn(seed, 12, 40)
    rows = ds["sm"].notnull().values
    folds = cv_folds(ds, method, count, seed=seed, gap_days=3, **of(method))
    assert len(folds) == len(list(folds)) == count
    times_held = np.zeros(rows.shape, dtype=int)
    for train, held in folds:
        assert (train.dtype, train.shape) == (bool, rows.shape)
        assert train.any()
        assert not (train & held).any()
        assert not ((train | held) & ~rows).any()
        times_held += held
        if method != "temporal":
            np.testing.assert_array_equal(train | held, rows)
    np.testing.assert_array_equal(times_held, rows.astype(int))


@given(st.integers(0, 10**6), st.sampled_from(sorted(METHODS)), st.integers(1, 12), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_chunks_and_order_of_dims_change_nothing_and_the_seed_gives_the_same_again(seed, method, stations, days):
    ds = drawn(seed, 12, 40)
    chosen = {"seed": seed, "gap_days": 3, **of(method)}
    whole = list(cv_folds(ds, method, 3, **chosen))
    for other in (ds.chunk(station=stations, time=days), ds.transpose("time", "station"), ds):
        for (train, held), (train_2, held_2) in zip(whole, cv_folds(other, method, 3, **chosen), strict=True):
            np.testing.assert_array_equal(train, train_2)
            np.testing.assert_array_equal(held, held_2)


@given(st.integers(0, 10**6), st.sampled_from(BY_STATION), st.integers(2, 5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_stations_locations_and_blocks_are_disjoint(seed, method, count, squares):
    ds = drawn(seed, 12, 6)
    options = {"block_km": 500.0} if squares and method == "spatial-blocks" else of(method)
    for train, held in cv_folds(ds, method, count, seed=seed, **options):
        assert not (train.any(axis=1) & held.any(axis=1)).any()
        if method != "group-k-fold":  # the last station is where the first one is
            assert held[0].any() == held[-1].any()


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(0, 8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_temporal_leaves_a_gap_and_forward_looks_back_alone(seed, count, gap, forward):
    ds = drawn(seed, 5, 80, missing=0.7)
    rows = ds["sm"].notnull().values
    day = np.broadcast_to(np.arange(80), rows.shape)
    end = -1
    for train, held in cv_folds(ds, "temporal", count, gap_days=gap, forward_only=forward):
        first, last = day[held].min(), day[held].max()
        assert first > end  # contiguous, in order
        end = last
        far = (day < first - gap) | ((day > last + gap) & (not forward))
        np.testing.assert_array_equal(train, rows & far)
        np.testing.assert_array_equal(held, rows & (day >= first) & (day <= last))


@given(st.integers(0, 10**6), st.sampled_from(sorted(METHODS)), st.integers(3, 6))
@settings(max_examples=60, deadline=None)
def test_rows_set_apart_are_whole_units_of_training_rows(seed, method, count):
    ds = drawn(seed, 30, 60)
    folds = cv_folds(ds, method, count, seed=seed, gap_days=3, **of(method))
    for k, (train, _) in enumerate(folds):
        apart = folds.set_apart(k)
        rest = train & ~apart
        assert not (apart & ~train).any()
        assert apart.any()
        assert rest.any()
        np.testing.assert_array_equal(apart, folds.set_apart(k))
        if method in (*BY_STATION, BOTH):
            assert not (apart.any(axis=1) & rest.any(axis=1)).any()
        if method == "temporal":
            assert np.flatnonzero(apart.any(axis=0)).min() > np.flatnonzero(rest.any(axis=0)).max()
        if method in ("group-k-fold", "temporal"):
            axis = 1 if method == "group-k-fold" else 0
            parts = np.flatnonzero(train.any(axis=axis)), np.flatnonzero(apart.any(axis=axis))
            if method == "group-k-fold":  # the last station is at the place of the first
                parts = tuple({0 if i == 29 else i for i in part} for part in parts)
            assert len(parts[1]) == max(round(0.1 * len(parts[0])), 1)


@given(st.integers(0, 10**6), st.sampled_from(sorted(METHODS)), st.integers(2, 6), st.integers(0, 12), st.booleans())
@settings(max_examples=100, deadline=None)
def test_folds_are_refused_exactly_where_a_part_of_one_is_empty(seed, method, count, gap, forward):
    """Few rows, at some stations and days alone; parts are told here by the definition of each method."""
    ds = drawn(seed, 8, 20, missing=0.8)
    ds["sm"][1:, 0] = np.nan
    rows = ds["sm"].notnull().values
    options = {"gap_days": gap, "forward_only": forward and method in ("temporal", BOTH), **of(method)}
    refused = False
    try:
        folds = cv_folds(ds, method, count, seed=seed, **options)
        assert all(train.any() and held.any() for train, held in folds)
    except SmgeoError as error:
        if " none of the " not in str(error):  # fewer units than folds
            return
        refused = True
    if method == "random":
        fold = np.random.default_rng(seed).integers(count, size=rows.shape)
        assert refused == any(not (rows & (fold == k)).any() or not (rows & (fold != k)).any() for k in range(count))
    elif method == "temporal":
        day = np.flatnonzero(rows.any(axis=0))
        first = int(forward)
        assert refused == any(
            not ((day < period[0] - gap) | ((day > period[-1] + gap) & (not forward))).any()
            for period in np.array_split(day, count + first)[first:]
        )
    elif method == BOTH:
        of_places = cv_folds(ds, "leave-location-out", count, seed=seed)
        try:
            of_periods = cv_folds(ds, "temporal", count, **options)
        except SmgeoError:
            assert refused
            return
        pairs = zip(of_places, of_periods, strict=True)
        parts = [(train & then, held & then_held) for (train, held), (then, then_held) in pairs]
        assert refused == any(not train.any() or not held.any() for train, held in parts)
    else:
        assert not refused  # as many units as folds at least, each with a row


@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(0, 5), st.booleans(), st.sampled_from([0.0, 800.0]))
@settings(max_examples=60, deadline=None)
def test_places_and_periods_held_out_at_once_share_nothing_with_training(seed, count, gap, forward, buffer_km):
    """Each fold trains on rows of other places, outside the gap around its period; one period of each place is held out."""
    ds = drawn(seed, 16, 60, missing=0.2)
    if buffer_km:
        ds = group_stations(ds, "place", buffer_km=buffer_km)
    rows = ds["sm"].notnull().values
    try:
        folds = cv_folds(ds, BOTH, count, seed=seed, gap_days=gap, forward_only=forward)
    except SmgeoError as error:
        assert buffer_km, error
        return
    day = np.arange(60)
    held_of = np.zeros(rows.shape, dtype=int)
    for k, (train, held) in enumerate(folds):
        held_of += held
        first, last = folds.held_out_days(k)
        there = held.any(axis=1)
        assert not train[there].any()
        within = (day >= first) & (day <= last)
        np.testing.assert_array_equal(held, rows & there[:, None] & within)
        far = (day < first - gap) | ((day > last + gap) & (not forward))
        assert not train[:, ~far].any()
        away = kilometres_between(ds, there) > buffer_km if buffer_km else np.ones(16, dtype=bool)
        np.testing.assert_array_equal(train, rows & (~there & away)[:, None] & far)
    assert held_of.max() == 1
    assert (held_of.any(axis=1)).all()  # each place is tested in one period


def kilometres_between(ds, there):
    """Haversine from each station to the nearest of the mask, km."""
    lat, lon = np.deg2rad(ds["latitude"].values), np.deg2rad(ds["longitude"].values)
    d = np.sin((lat[:, None] - lat[there]) / 2) ** 2
    d += np.cos(lat)[:, None] * np.cos(lat[there]) * np.sin((lon[:, None] - lon[there]) / 2) ** 2
    return (2 * 6371.0088 * np.arcsin(np.sqrt(d))).min(axis=1)


def test_places_and_periods_by_hand():
    """Two places, six days: each fold holds out one place in one half, and trains on the other place in the other half."""
    folds = cv_folds(cube(np.full((2, 6), 0.2)), BOTH, 2, gap_days=0)
    first, second = folds
    a = int(first[1].any(axis=1).argmax())
    for (train, held), place, days in ((first, a, range(3)), (second, 1 - a, range(3, 6))):
        assert {(int(i), int(t)) for i, t in np.argwhere(held)} == {(place, t) for t in days}
        assert {(int(i), int(t)) for i, t in np.argwhere(train)} == {(1 - place, t) for t in range(6) if t not in days}
    assert [folds.held_out_days(k) for k in range(2)] == [(0, 2), (3, 5)]


def test_a_place_without_a_row_in_its_period_is_refused():
    """Two places that take turns, in whose folds a seed pairs each place with its own half, or with the other's."""
    sm = np.full((2, 6), np.nan)
    sm[0, :3], sm[1, 3:] = 0.2, 0.3
    refused = []
    for seed in range(8):
        try:
            first, second = cv_folds(cube(sm), BOTH, 2, gap_days=0, seed=seed)
        except SmgeoError as error:
            assert "fold 1 of 2 holds out none of the 6 rows; use fewer folds" in str(error)
            refused.append(True)
        else:
            assert np.argwhere(first[1]).tolist() == [[0, 0], [0, 1], [0, 2]]
            assert np.argwhere(second[1]).tolist() == [[1, 3], [1, 4], [1, 5]]
            refused.append(False)
    assert set(refused) == {True, False}


def test_periods_by_hand():
    sm = np.full((2, 10), 0.2)
    sm[:, 4] = np.nan  # nine days with a target: 0-2, 3 5 6, 7-9
    ds = cube(sm)
    both = cv_folds(ds, "temporal", 3, gap_days=1)
    assert held_days(both) == [[0, 1, 2], [3, 5, 6], [7, 8, 9]]
    assert trained_days(both) == [[5, 6, 7, 8, 9], [0, 1, 8, 9], [0, 1, 2, 3, 5]]
    forward = cv_folds(ds, "temporal", 2, gap_days=1, forward_only=True)
    assert held_days(forward) == [[3, 5, 6], [7, 8, 9]]
    assert trained_days(forward) == [[0, 1], [0, 1, 2, 3, 5]]


def test_the_gap_is_thirty_days_where_none_is_said():
    first, last = cv_folds(cube(np.full((1, 100), 0.2)), "temporal", 2)
    assert np.flatnonzero(first[0][0]).tolist() == list(range(80, 100))  # held out: 0-49
    assert np.flatnonzero(last[0][0]).tolist() == list(range(20))


def test_locations_by_hand():
    """Three probes at one place, within 1e-4 degrees, are held out together; without coordinates every station is a place."""
    sm = np.full((5, 3), 0.2)
    latitude = [50.0, 50.00001, 50.1, 49.99999, np.nan]
    places = cv_folds(cube(sm, latitude, [7.0, 7.0, 7.0, 7.00002, np.nan]), "leave-location-out")
    assert sorted(np.flatnonzero(held.any(axis=1)).tolist() for _, held in places) == [[0, 1, 3], [2], [4]]
    alone = cv_folds(cube(sm), "leave-location-out")
    assert sorted(np.flatnonzero(held.any(axis=1)).tolist() for _, held in alone) == [[i] for i in range(5)]


def test_stations_without_a_target_are_in_no_fold():
    sm = np.full((5, 3), 0.2)
    sm[2] = np.nan
    folds = cv_folds(cube(sm), "leave-location-out")
    assert sorted(np.flatnonzero(held.any(axis=1)).tolist() for _, held in folds) == [[0], [1], [3], [4]]
    assert not any(train[2].any() for train, _ in folds)


def test_stations_are_dealt_out_as_before():
    """The folds that published figures of recipes stand on."""
    order = np.random.default_rng(7).permutation(11)
    for method in ("group-k-fold", "leave-location-out"):
        for k, (_, held) in enumerate(cv_folds(cube(np.full((11, 2), 0.2)), method, 4, seed=7)):
            assert np.flatnonzero(held.any(axis=1)).tolist() == sorted(order[k::4].tolist())
    fold = np.random.default_rng(7).integers(4, size=(11, 2))
    for k, (_, held) in enumerate(cv_folds(cube(np.full((11, 2), 0.2)), "random", 4, seed=7)):
        np.testing.assert_array_equal(held, fold == k)


def test_squares_by_hand():
    """At the equator 1 degree is 111 km: stations 0.2 degrees apart share a square of 100 km, those 2 degrees apart do not."""
    longitude = [9.4, 9.6, 11.4, 11.6, 7.4, 7.6]  # squares begin at 7.4: columns 2 2 4 4 0 0
    ds = cube(np.full((6, 2), 0.2), [0.1] * 6, longitude)
    assert cv_folds(ds, "spatial-blocks", 3, block_km=100).unit[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_squares_have_their_size_far_north_too():
    """A row of stations 10 km apart on the 65th parallel, where a degree of longitude is 47 km, not 111."""
    step = 10 / (111.32 * np.cos(np.deg2rad(65)))
    ds = cube(np.full((40, 2), 0.2), np.full(40, 65.0), 20 + step * np.arange(40))
    units = cv_folds(ds, "spatial-blocks", 3, block_km=50).unit[:, 0]
    counts = np.unique(units, return_counts=True)[1]
    assert counts.max() == 5
    assert 8 <= counts.size <= 10


def test_clusters_are_the_groups_that_are_there_even_across_the_date_line():
    longitude = [179.9, -179.9, 180.0, 10.0, 10.1, 10.2, -70.0, -70.1, -70.2]
    ds = cube(np.full((9, 2), 0.2), [1.0, 1.1, 1.2] * 3, longitude)
    held = sorted(np.flatnonzero(h.any(axis=1)).tolist() for _, h in cv_folds(ds, "spatial-blocks", 3))
    assert held == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_folds_serve_scikit_learn():
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import GroupKFold, cross_val_score

    ds = drawn(3, 9, 20).drop_vars(["latitude", "longitude"])
    rows = ds["sm"].notnull().values
    y = ds["sm"].values[rows]
    x = np.stack([y**2, np.arange(y.size)], axis=1)
    cv = [(np.flatnonzero(t[rows]), np.flatnonzero(h[rows])) for t, h in cv_folds(ds, "group-k-fold", 9)]
    ours = cross_val_score(LinearRegression(), x, y, cv=cv, scoring="neg_mean_squared_error")
    station = np.broadcast_to(np.arange(9)[:, None], rows.shape)[rows]
    theirs = cross_val_score(
        LinearRegression(), x, y, cv=GroupKFold(9), groups=station, scoring="neg_mean_squared_error"
    )
    np.testing.assert_allclose(sorted(ours), sorted(theirs))


def test_what_cannot_be_is_refused_by_name():
    ds = cube(np.full((3, 4), 0.2))
    with pytest.raises(SmgeoError, match="'leave-location'; did you mean 'leave-location-out'"):
        cv_folds(ds, "leave-location")
    with pytest.raises(SmgeoError, match="no target 'moisture'"):
        cv_folds(ds, "random", target="moisture")
    with pytest.raises(SmgeoError, match="folds must be a whole number from 2 to 1,000,000; got 1"):
        cv_folds(ds, "random", 1)
    with pytest.raises(SmgeoError, match="4 folds of 3 groups"):
        cv_folds(ds, "group-k-fold", 4)
    with pytest.raises(SmgeoError, match="needs latitude and longitude .* has none"):
        cv_folds(ds, "spatial-blocks", 2)
    with pytest.raises(SmgeoError, match="lacks those of 1 stations"):
        cv_folds(cube(ds["sm"], [1.0, np.nan, 2.0], [1.0, 1.0, 1.0]), "spatial-blocks", 2)
    with pytest.raises(SmgeoError, match="3 folds of 2 places"):
        cv_folds(cube(ds["sm"], [1.0, 1.0, 2.0], [1.0, 1.0, 1.0]), "spatial-blocks", 3)
    with pytest.raises(SmgeoError, match="2 folds of 1 squares of 9000 km"):
        cv_folds(cube(ds["sm"], [1.2, 1.0, 1.1], [1.0, 1.0, 1.0]), "spatial-blocks", 2, block_km=9000)
    with pytest.raises(SmgeoError, match="5 periods of 4 days"):
        cv_folds(ds, "temporal", 5)
    with pytest.raises(SmgeoError, match="fold 1 of 2 trains on none of the 12 rows; .* a gap_days below 30"):
        cv_folds(ds, "temporal", 2)
    with pytest.raises(SmgeoError, match="gap_days must be a whole number from 0"):
        cv_folds(ds, "temporal", 2, gap_days=-1)
    with pytest.raises(SmgeoError, match="no station has a value"):
        cv_folds(cube(np.full((3, 4), np.nan)), "random", 2)
