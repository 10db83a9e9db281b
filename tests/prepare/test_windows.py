"""Windows against a list of every window, made slowly."""

import pickle
import threading
import weakref

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold

import smgeo
from smgeo.errors import SmgeoError
from smgeo.prepare import Windows, series

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
    lacking = [name for name in FEATURES if set(ds[name].dims) == {"station", "time"}]
    assert windows.left_out == [
        str(s)
        for i, s in enumerate(ds["station"].values)
        if np.isnan(ds["clay"].values[i])
        or any(np.isnan(ds[n].transpose("station", "time").values[i]).all() for n in lacking)
    ]
    assert "N/s1" in windows.left_out
    assert ("N/s2" in windows.left_out) >= seed % 2
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


@given(
    st.integers(1, 9),
    st.integers(1, 14),
    st.sampled_from([0.0, 0.5]),
    st.integers(1, 3),
    st.sampled_from(["window", "sequence"]),
)
@settings(max_examples=25, deadline=None)
def test_read_block_by_block_they_are_the_same(cube, per_station, per_time, missing, buffer, mode):
    ds = cube(stations=9, seed=per_time, gaps=0.1)
    ds["s1_vv"][1] = np.nan
    ds["clay"][4] = np.nan
    args = {"length": 3, "missing": missing, "fill": [-9.0, 1.0, 2.0, 3.0], "mode": mode}
    held = Windows(ds, FEATURES, **args)
    read = Windows(ds.chunk(station=per_station, time=per_time), FEATURES, in_memory=False, buffer=buffer, **args)
    assert read.shape == held.shape
    assert read.left_out == held.left_out
    for name in ("station_index", "time_index", "y", "mask", "groups"):
        np.testing.assert_array_equal(getattr(read, name), getattr(held, name))
    everything = np.arange(len(held))
    np.testing.assert_array_equal(read.gather(everything), held.gather(everything))
    backwards = everything[::-2]
    np.testing.assert_array_equal(read.gather(backwards), held.gather(backwards))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of one chunk each, as those of a large cube are."""
    monkeypatch.setattr(series, "_BLOCK_BYTES", 1)


def _counted(ds, reads, lock):
    """The cube, lazy, that writes down the stations of each chunk of s1_vv that is computed."""

    def note(block):
        with lock:
            reads.append(sorted(set((block[:, 0] // 100).astype(int).tolist())))
        return block

    lazy = ds.chunk(station=2)
    numbered = lazy["s1_vv"] * 0 + 100 * xr.DataArray(np.arange(ds.sizes["station"]), dims="station").chunk(station=2)
    return lazy.assign(
        s1_vv=numbered.copy(data=numbered.data.map_blocks(note, dtype="float32", meta=np.empty((0, 0), "float32")))
    )


@pytest.mark.parametrize("buffer", [1, 2, 4])
def test_an_epoch_reads_each_block_once_and_holds_few(cube, small_blocks, buffer):
    reads, lock = [], threading.Lock()
    ds = _counted(cube(stations=12, gaps=0.0), reads, lock)
    windows = Windows(ds, FEATURES, length=3, in_memory=False, buffer=buffer)
    assert sorted(reads) == [[2 * i, 2 * i + 1] for i in range(6)]
    for seed in range(3):
        reads.clear()
        batches = list(windows.batches(5, seed=seed))
        # A block that the epoch before left behind need not be read again.
        assert len(reads) == len({tuple(r) for r in reads}) <= 6
        assert sum(len(y) for _, y in batches) == len(windows)
        for x, _ in batches:
            # The last round of one step and the first of the next may share a batch.
            assert len(np.unique(x[:, 0, 0] // 200)) <= buffer + 1


def test_rows_from_all_over_the_cube_need_few_blocks_at_a_time(cube, small_blocks):
    ds = cube(stations=12, gaps=0.0)
    windows = Windows(ds.chunk(station=1), FEATURES, length=3, in_memory=False, buffer=2)
    read, alive, counts = windows._series._read_block, weakref.WeakValueDictionary(), []

    def note(block):
        alive[block] = values = read(block)
        counts.append(len(alive))
        return values

    windows._series._read_block = note
    rows = np.random.default_rng(0).permutation(len(windows))
    np.testing.assert_array_equal(windows.gather(rows), Windows(ds, FEATURES, length=3).gather(rows))
    assert len(counts) == 12
    assert max(counts) <= 2 + 2


def test_out_of_core_batches_hold_each_window_once_for_a_seed(cube, small_blocks):
    ds = cube(stations=9, gaps=0.05).chunk(station=2)
    windows = Windows(ds, FEATURES, length=3, in_memory=False, buffer=2)
    rows = windows.order(np.random.default_rng(7))
    assert sorted(rows.tolist()) == list(range(len(windows)))
    assert rows.tolist() != sorted(rows.tolist())
    x, y = (np.concatenate(part) for part in zip(*windows.batches(4, seed=7), strict=True))
    np.testing.assert_array_equal(x, windows.gather(rows))
    np.testing.assert_array_equal(y, windows.y[rows])


@given(st.integers(1, 7), st.booleans(), st.sampled_from(["window", "sequence"]))
@settings(max_examples=25, deadline=None)
def test_shards_are_the_windows_cut_in_parts(cube, world_size, equal, mode):
    windows = Windows(cube(stations=7, gaps=0.05), FEATURES, length=3, mode=mode, fill=[0.0] * 4)
    shards = [windows.shard(rank, world_size, equal=equal) for rank in range(world_size)]
    sizes = [len(s) for s in shards]
    assert max(sizes) - min(sizes) <= (0 if equal else 1)
    assert sum(sizes) == len(windows) - (len(windows) % world_size if equal else 0)
    whole = np.arange(sum(sizes))
    np.testing.assert_array_equal(np.concatenate([s.gather(np.arange(len(s))) for s in shards]), windows.gather(whole))
    for name in ("y", "station_index", "time_index", "groups"):
        parts = np.concatenate([getattr(s, name) for s in shards])
        np.testing.assert_array_equal(parts, getattr(windows, name)[whole])
    batches = list(shards[-1].batches(3))
    assert sum(len(b[0]) for b in batches) == sizes[-1]


def test_a_shard_reads_its_own_blocks_only(cube, small_blocks):
    reads, lock = [], threading.Lock()
    ds = _counted(cube(stations=12, gaps=0.0), reads, lock)
    windows = Windows(ds, FEATURES, length=3, in_memory=False)
    reads.clear()
    half = windows.shard(1, 2)
    list(half.batches(4))
    assert {s for r in reads for s in r} <= {*np.unique(half.station_index).tolist(), int(half.station_index[0]) - 1}
    with pytest.raises(SmgeoError, match="rank must be from 0"):
        windows.shard(2, 2)


def test_sequences_by_hand():
    time = pd.date_range("2020-01-01", periods=5)
    rain = [[0, 1, 2, 3, 4], [5, np.nan, 7, 8, 9], [np.nan] * 5, [1, 2, 3, 4, 5]]
    sm = [[0.1, 0.2, np.nan, 0.4, 0.5], [0.1] * 5, [0.1] * 5, [np.nan] * 5]
    dims = ("station", "time")
    ds = xr.Dataset(
        {"rain": (dims, np.array(rain, "float32")), "sm": (dims, np.array(sm, "float32"))},
        {"station": list("abcd"), "time": time},
    )
    sequences = Windows(ds, ["rain"], length=2, mode="sequence", fill=[-1])
    assert sequences.shape == (2, 5, 1)
    assert sequences.left_out == ["c"]  # d has rain, and no target
    assert sequences.groups.tolist() == ["a", "b"]
    np.testing.assert_array_equal(sequences.gather(np.arange(2))[:, :, 0], [[0, 1, 2, 3, 4], [5, -1, 7, 8, 9]])
    # a: its first day ends no window of two days, its third has no target. b: days 2 and 3 lack a value of rain.
    np.testing.assert_array_equal(sequences.mask, [[False, True, False, True, True], [False, False, False, True, True]])
    np.testing.assert_array_equal(sequences.y, np.array([[0, 0.2, 0, 0.4, 0.5], [0, 0, 0, 0.1, 0.1]], "float32"))
    x, y, mask = sequences[1]
    assert (x.shape, y.shape, mask.shape) == ((5, 1), (5,), (5,))
    (batch,) = sequences.batches(2, shuffle=False)
    for part, values in zip(batch, (sequences.gather(np.arange(2)), sequences.y, sequences.mask), strict=True):
        np.testing.assert_array_equal(part, values)
    with pytest.raises(SmgeoError, match="features have gaps; pass `fill`"):
        Windows(ds, ["rain"], length=2, mode="sequence")
    channels = Windows(ds, ["rain"], length=2, mode="sequence", missing=0.5, fill=[-1])
    np.testing.assert_array_equal(channels[1][0], [[5, 1], [-1, 0], [7, 1], [8, 1], [9, 1]])
    np.testing.assert_array_equal(channels.mask[1], [False, True, True, True, True])


def test_sequences_without_target(cube):
    sequences = Windows(cube(gaps=0.0), FEATURES, None, length=3, mode="sequence")
    x, y, mask = next(sequences.batches(4, shuffle=False))
    assert x.shape == (4, 14, 4)
    assert y.shape == mask.shape == (4, 14)
    assert np.isnan(y).all()
    assert mask.sum(axis=1).tolist() == [12] * 4


def test_shards_read_on_their_own(cube, small_blocks):
    """Two workers of one process do not take each other's blocks away."""
    reads, lock = [], threading.Lock()
    windows = Windows(_counted(cube(stations=12, gaps=0.0), reads, lock), FEATURES, length=3, in_memory=False, buffer=1)
    reads.clear()
    for _ in zip(*(windows.shard(rank, 2).batches(4) for rank in range(2)), strict=True):
        pass
    assert 6 <= len(reads) <= 7  # both may have windows of the block in the middle


@given(st.integers(0, 50), st.sampled_from([0.0, 0.4]))
@settings(max_examples=20, deadline=None)
def test_sequences_count_the_days_on_which_windows_end(cube, seed, missing):
    ds = cube(seed=seed, gaps=0.1)
    fill = [-9.0, 1.0, 2.0, 3.0]
    sequences = Windows(ds, FEATURES, length=4, missing=missing, fill=fill, mode="sequence")
    expected = np.zeros((4, 14), dtype=bool)
    for s, end, *_ in _every_window(ds, 4, missing, fill):
        expected[s, end] = True
    with_any = expected.any(axis=1)
    np.testing.assert_array_equal(sequences.mask, expected[with_any])
    np.testing.assert_array_equal(sequences.y, np.where(expected, ds["sm"].values, 0)[with_any])


@given(days=st.integers(1, 20), seed=st.integers(0, 5), missing=st.sampled_from([0.0, 0.3]))
@settings(max_examples=40, deadline=None)
def test_pieces_hold_each_day_that_counts_once_with_its_past(cube, days, seed, missing):
    fill = [-9.0, 1.0, 2.0, 3.0]
    whole = Windows(cube(seed=seed, gaps=0.1), FEATURES, length=4, missing=missing, fill=fill, mode="sequence")
    pieces = whole.crop(days)
    assert pieces.shape[1:] == (min(days + 3, 14), whole.shape[2])
    assert pieces.count == whole.count
    x, y, mask = pieces.batch(np.arange(len(pieces)))
    stations, ends = pieces.targets
    assert sorted(zip(stations, ends, strict=True)) == sorted(zip(*whole.targets, strict=True))
    piece, place = np.nonzero(mask)
    for p, at, station, end, value in zip(piece, place, stations, ends, pieces.pick(y), strict=True):
        series, known, _ = whole[whole.station_index.tolist().index(station)]
        assert at >= 3  # the three days that a window of four looks back
        np.testing.assert_array_equal(x[p, : at + 1], series[end - at : end + 1])
        assert value == known[end]


def test_windows_are_not_cropped(cube):
    with pytest.raises(SmgeoError, match="whole series"):
        Windows(cube(gaps=0.0), FEATURES, length=4).crop(8)


def test_series_without_a_complete_day_need_no_fill(cube):
    """A pixel of the sea among others."""
    ds = cube(gaps=0.0)
    ds["s1_vv"] = ds["s1_vv"].where(ds["station"] != ds["station"][1])
    assert Windows(ds, FEATURES, None, length=3, mode="sequence").station_index.tolist() == [0, 2, 3]


def test_arrays_for_scikit_learn(cube):
    windows = Windows(cube(stations=8, gaps=0.0), FEATURES, length=2)
    x, y = windows.to_arrays()
    assert windows.get_feature_names_out() == [f"{f} lag {lag}" for lag in (1, 0) for f in FEATURES]
    np.testing.assert_array_equal(x, [windows[i][0].ravel() for i in range(len(windows))])
    np.testing.assert_array_equal(windows.to_arrays(flatten=False)[0], windows.gather(np.arange(len(windows))))
    assert windows.groups.tolist() == [f"N/s{i}" for i in windows.station_index]
    for train, test in GroupKFold(4).split(x, y, windows.groups):
        assert not set(windows.groups[train]) & set(windows.groups[test])
    assert LinearRegression().fit(x, y).n_features_in_ == 8


def test_windows_travel_to_another_process(cube):
    for windows in (
        Windows(cube(), FEATURES, length=3),
        Windows(cube().chunk(station=1), FEATURES, length=3, in_memory=False),
    ):
        windows.gather(np.arange(2))
        again = pickle.loads(pickle.dumps(windows))
        np.testing.assert_array_equal(again.gather(np.arange(len(again))), windows.gather(np.arange(len(windows))))


def test_progress_counts_stations(cube):
    seen = []
    Windows(cube(stations=5).chunk(station=2), FEATURES, in_memory=False, progress=lambda *at: seen.append(at))
    assert seen[-1] == (5, 5)


@pytest.mark.parametrize("mode", ["window", "sequence"])
@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("lazy", [True, False])
def test_a_cube_without_stations_has_no_windows(cube, mode, in_memory, lazy):
    ds = cube().isel(station=slice(0, 0))
    windows = Windows(ds.chunk() if lazy else ds, FEATURES, length=3, mode=mode, in_memory=in_memory)
    assert windows.shape == (0, 14 if mode == "sequence" else 3, 4)
    assert windows.gather(np.arange(0)).shape == windows.shape
    assert list(windows.batches(4)) == []


def _assert_each_window(windows, ds, length):
    """Against a list of windows made from pandas tables of the features, station by station."""
    expected = []
    for station in ds["station"].values:
        one = ds.sel(station=station).drop_vars(["latitude", "longitude", "network"], errors="ignore")
        table = pd.DataFrame({f: np.broadcast_to(one[f].values, ds.sizes["time"]) for f in windows.features})
        sm = one["sm"].values
        for end in range(length - 1, len(table)):
            part = table.iloc[end - length + 1 : end + 1]
            if not np.isnan(sm[end]) and not part.isna().any(axis=None):
                expected.append((station, end, part.to_numpy("float32"), sm[end]))
    assert len(windows) == len(expected) > 100
    assert windows.groups.tolist() == [e[0] for e in expected]
    assert windows.time_index.tolist() == [e[1] for e in expected]
    np.testing.assert_array_equal(windows.gather(np.arange(len(windows))), np.stack([e[2] for e in expected]))
    np.testing.assert_array_equal(windows.y, np.array([e[3] for e in expected], dtype="float32"))


def test_windows_of_the_real_stations(data):
    archive = data / "ismn" / "ISMN_DWD_SMOSMANIA_20240825_20250825.zip"
    ds = smgeo.open_stations(archive, kind="ismn", variables=["soil_temperature", "clay"]).isel(station=slice(0, 26, 4))
    ds = smgeo.fill_gaps(smgeo.derive_features(ds, ["doy_sin"]).load(), 2)
    features = ["soil_temperature", "clay", "doy_sin"]
    _assert_each_window(Windows(ds, features, length=30), ds, 30)
    _assert_each_window(Windows(ds.chunk(station=2), features, length=30, in_memory=False), ds, 30)


def test_windows_of_smap_cells(data):
    folder = data / "hydrodl_smap" / "CONUSv4f1"
    variables = {"sm": "SMAP_AM", "precipitation": {"file": "APCP_FORA", "scale": 24.0}}
    ds = smgeo.open_stations(folder, kind="matrix", variables=variables, static={"clay": "Clay"}, years=["2015"])
    ds = ds.isel(station=slice(0, 412, 60)).load()
    _assert_each_window(Windows(ds, ["precipitation", "clay"], length=10), ds, 10)


def test_index_errors(cube):
    windows = Windows(cube(), FEATURES, length=2)
    np.testing.assert_array_equal(windows[-1][0], windows[len(windows) - 1][0])
    with pytest.raises(IndexError):
        windows[len(windows)]
    for rows in ([-1], [len(windows)], np.ones(len(windows), dtype=bool), [0.0]):
        with pytest.raises(IndexError, match="positions of windows"):
            windows.gather(np.array(rows))
    with pytest.raises(SmgeoError, match="size must be a whole number from 1"):
        next(windows.batches(0))


def test_refusals(cube, make_grid_cube):
    ds = cube()
    for kwargs, message in (
        ({"features": ["s1_v"]}, "did you mean 's1_vv'"),
        ({"features": FEATURES, "target": "smm"}, "did you mean 'sm'"),
        ({"features": FEATURES, "length": 0}, "length must be a whole number from 1"),
        ({"features": FEATURES, "missing": 1.0}, "missing must be a number of at least 0 and below 1"),
        ({"features": FEATURES, "missing": 0.5}, "needs fill"),
        ({"features": FEATURES, "mode": "series"}, "'window' or 'sequence'"),
        ({"features": FEATURES, "buffer": 0}, "buffer must be a whole number from 1"),
        ({"features": FEATURES, "missing": 0.5, "fill": [1, 2, 3]}, "one finite number for each of the 4"),
        ({"features": FEATURES, "missing": 0.5, "fill": [1, 2, 3, np.nan]}, "one finite number for each of the 4"),
        ({"features": FEATURES, "fill": [1, 2, 3]}, "one finite number for each of the 4"),
        ({"features": FEATURES, "length": 5.5}, "length must be a whole number"),
        ({"features": FEATURES, "ends": [-1]}, "positions on the time axis, 0 to 13"),
        ({"features": FEATURES, "ends": [14]}, "positions on the time axis, 0 to 13"),
        ({"features": "s1_vv"}, "features must be a list of names"),
        ({"features": []}, "list of one variable or more"),
    ):
        with pytest.raises(SmgeoError, match=message):
            Windows(ds, **kwargs)
    with pytest.raises(SmgeoError, match="predict_map"):
        Windows(make_grid_cube(), ["s1_vv"])
    with pytest.raises(SmgeoError, match="daily"):
        Windows(ds.isel(time=[0, 2, 3]), FEATURES)
