"""Windows against a list of every window, made slowly."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.errors import SmgeoError
from smgeo.prepare import Windows

FEATURES = ["s1_vv", "clay", "precipitation", "doy_sin"]


@pytest.fixture(scope="module")
def cube(make_station_cube):
    def make(stations=4, days=14, seed=0, gaps=0.2):
        rng = np.random.default_rng(seed)
        ds = make_station_cube(stations, days, seed, gaps)
        ds["doy_sin"] = ("time", np.sin(np.arange(days)).astype("float32"), {"kind": "calendar"})
        ds["sm"] = ds["sm"].where(rng.random((stations, days)) > 0.3)
        return ds

    return make


def _every_window(ds, length, missing, fill, ends=None, target=True):
    """(station, day, x, y) of every window, looked at one by one."""
    found = []
    n_days = ds.sizes["time"]
    for s in range(ds.sizes["station"]):
        for end in range(length - 1, n_days):
            x = np.empty((length, len(FEATURES)), dtype="float32")
            for d in range(length):
                for f, name in enumerate(FEATURES):
                    day = end - length + 1 + d
                    x[d, f] = {
                        "clay": lambda: ds["clay"].values[s],
                        "doy_sin": lambda day=day: ds["doy_sin"].values[day],
                    }.get(name, lambda name=name, day=day: ds[name].values[s, day])()
            y = ds["sm"].values[s, end]
            if (
                (target and np.isnan(y))
                or np.isnan(x).sum() > missing * x.size
                or (ends is not None and end not in ends)
            ):
                continue
            if missing > 0:
                seen = ~np.isnan(x)
                x = np.concatenate([np.where(seen, x, np.array(fill, "float32")), seen], axis=1)
            found.append((s, end, x, y))
    return found


def _assert_same(windows, expected, target=True):
    assert len(windows) == len(expected)
    assert windows.station_index.tolist() == [e[0] for e in expected]
    assert windows.time_index.tolist() == [e[1] for e in expected]
    got = windows.gather(np.arange(len(windows)))
    assert got.dtype == np.float32
    assert got.shape == windows.shape
    for i, (_, _, x, y) in enumerate(expected):
        np.testing.assert_array_equal(got[i], x)
        np.testing.assert_array_equal(windows[i][0], x)
        np.testing.assert_array_equal(windows[i][1], y if target else np.nan)


@given(
    st.integers(0, 200), st.integers(1, 16), st.sampled_from([0.0, 0.25, 0.5, 0.75]), st.sampled_from([0.0, 0.2, 0.6])
)
@settings(max_examples=60, deadline=None)
def test_against_every_window(cube, seed, length, missing, gaps):
    ds = cube(seed=seed, gaps=gaps)
    ds["s1_vv"][1] = np.nan
    ds["clay"][2] = np.nan if seed % 2 else 20
    fill = [-9.0, 1.0, 2.0, 3.0]
    windows = Windows(ds, FEATURES, length=length, missing=missing, fill=fill)
    _assert_same(windows, _every_window(ds, length, missing, fill))
    assert windows.left_out == (["N/s1", "N/s2"] if seed % 2 else ["N/s1"])
    assert windows.channels == (FEATURES + [f"{f} observed" for f in FEATURES] if missing else FEATURES)


@given(st.lists(st.integers(0, 13), max_size=6), st.sampled_from([0.0, 0.5]))
@settings(max_examples=30, deadline=None)
def test_chosen_ends_without_target(cube, ends, missing):
    ds = cube(gaps=0.1)
    fill = [0.0] * 4
    windows = Windows(ds, FEATURES, None, 3, missing, fill, ends=ends)
    assert windows.y is None
    _assert_same(windows, _every_window(ds, 3, missing, fill, ends, target=False), target=False)


def test_share_of_missing_values_is_inclusive(cube):
    ds = cube(gaps=0.0)
    ds["sm"][:] = 0.2
    ds["s1_vv"][0, 5:8] = np.nan  # 3 of the 30 values of days 0-9, features s1_vv, clay, precipitation
    names = FEATURES[:3]
    ends = [9]
    assert 0 in Windows(ds, names, length=10, missing=0.1, fill=[0] * 3, ends=ends).station_index
    assert 0 not in Windows(ds, names, length=10, missing=0.09, fill=[0] * 3, ends=ends).station_index


def test_no_window_holds_another_station_or_a_later_day(make_station_cube):
    ds = make_station_cube(stations=3, days=9)
    ds["s1_vv"][:] = 100 * np.arange(3)[:, None] + np.arange(9)
    for i, w in enumerate(windows := Windows(ds, ["s1_vv"], length=4)):
        station, days = np.divmod(w[0][:, 0], 100)
        assert set(station) == {windows.station_index[i]}
        assert days.tolist() == list(range(windows.time_index[i] - 3, windows.time_index[i] + 1))
    assert len(windows) == 3 * 6


@given(st.integers(1, 70), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_batches_hold_each_window_once(cube, size, seed):
    windows = Windows(cube(gaps=0.05), FEATURES, length=3)
    n = len(windows)
    x, y = windows.gather(np.arange(n)), windows.y
    ordered = list(windows.batches(size, shuffle=False))
    np.testing.assert_array_equal(np.concatenate([b[0] for b in ordered]), x)
    np.testing.assert_array_equal(np.concatenate([b[1] for b in ordered]), y)
    assert [len(b[1]) for b in ordered] == [size] * (n // size) + ([n % size] if n % size else [])
    shuffled = list(windows.batches(size, seed=seed))
    again = list(windows.batches(size, seed=seed))
    for a, b in zip(shuffled, again, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    rows = np.concatenate([np.concatenate([b[0].reshape(len(b[0]), -1), b[1][:, None]], axis=1) for b in shuffled])
    whole = np.concatenate([x.reshape(n, -1), y[:, None]], axis=1)
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], whole[np.lexsort(whole.T)])


def test_seeds_give_other_orders(cube):
    windows = Windows(cube(gaps=0.0), FEATURES, length=1)
    first, second = (next(windows.batches(len(windows), seed=s))[1] for s in (0, 1))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, windows.y)


def test_chunks_dimension_order_and_laziness_do_not_matter(cube):
    ds = cube()
    expected = _every_window(ds, 3, 0.0, None)
    _assert_same(Windows(ds.chunk(station=1, time=5), FEATURES, length=3), expected)
    _assert_same(Windows(ds.transpose("time", "station"), FEATURES, length=3), expected)


def test_the_cube_is_not_written_into(cube):
    ds = cube(gaps=0.5)
    before = ds.copy(deep=True)
    Windows(ds, FEATURES, length=3, missing=0.5, fill=[1, 2, 3, 4])
    xr.testing.assert_identical(ds, before)


def test_longer_than_the_series(cube):
    assert Windows(cube(days=5), FEATURES, length=6).shape == (0, 6, 4)
    assert len(Windows(cube(days=5), FEATURES, length=60)) == 0


def test_index_errors(cube):
    windows = Windows(cube(), FEATURES, length=2)
    np.testing.assert_array_equal(windows[-1][0], windows[len(windows) - 1][0])
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_refusals(cube, make_grid_cube):
    ds = cube()
    for kwargs, message in (
        ({"features": ["s1_v"]}, "did you mean 's1_vv'"),
        ({"features": FEATURES, "target": "smm"}, "did you mean 'sm'"),
        ({"features": FEATURES, "length": 0}, "length >= 1"),
        ({"features": FEATURES, "missing": 1.0}, "missing < 1"),
        ({"features": FEATURES, "missing": 0.5}, "needs fill"),
        ({"features": FEATURES, "missing": 0.5, "fill": [1, 2, 3]}, "needs fill"),
        ({"features": FEATURES, "missing": 0.5, "fill": [1, 2, 3, np.nan]}, "needs fill"),
    ):
        with pytest.raises(SmgeoError, match=message):
            Windows(ds, **kwargs)
    with pytest.raises(SmgeoError, match="predict_map"):
        Windows(make_grid_cube(), ["s1_vv"])
    with pytest.raises(SmgeoError, match="daily"):
        Windows(ds.isel(time=[0, 2, 3]), FEATURES)
