"""Blocks of stations: their bounds, and an order that needs few of them at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.errors import SmgeoError
from smgeo.prepare import series
from smgeo.prepare.series import Series, shuffle_blocks


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(1, 5), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_every_row_once_and_no_more_than_the_buffer_at_a_time(sizes, buffer, seed):
    rows, blocks = shuffle_blocks(sizes, buffer, np.random.default_rng(seed))
    assert sorted(rows.tolist()) == list(range(sum(sizes)))
    assert sorted(blocks.tolist()) == list(range(len(sizes)))
    again = shuffle_blocks(sizes, buffer, np.random.default_rng(seed))[0]
    np.testing.assert_array_equal(rows, again)
    block_of = np.repeat(np.arange(len(sizes)), sizes)
    place = {int(b): i for i, b in enumerate(blocks)}
    newest = -1
    for row in rows:
        at = place[int(block_of[row])]
        newest = max(newest, at)
        # Once a block has come, the one that came `buffer` before it is never asked for again.
        assert at > newest - buffer


def test_one_block_is_a_plain_permutation():
    rows, _ = shuffle_blocks([1000], 4, np.random.default_rng(3))
    np.testing.assert_array_equal(rows, np.random.default_rng(3).permutation(1000))


def test_batches_are_mixed_from_the_whole_buffer():
    """30 blocks of 2,000 rows, 4 held: nearly every batch of 200 holds rows of four blocks, about 50 of each."""
    rows, _ = shuffle_blocks([2000] * 30, 4, np.random.default_rng(0))
    batches = (rows // 2000)[: 200 * 280].reshape(280, 200)
    assert np.mean([len(np.unique(b)) >= 4 for b in batches]) > 0.9
    largest = np.mean([np.bincount(b).max() for b in batches])
    assert 50 <= largest < 75
    # Rows that were neighbours in the cube are far from each other.
    at = np.argsort(rows)
    assert np.median(np.abs(np.diff(at))) > 1000


@pytest.mark.parametrize(
    ("chunks", "block", "bounds"),
    [
        ((1,) * 6, 1, [0, 1, 2, 3, 4, 5, 6]),
        ((1,) * 6, 2, [0, 2, 4, 6]),
        ((1,) * 6, 4, [0, 4, 6]),
        ((5, 1), 2, [0, 5, 6]),  # a chunk is never cut
        ((3, 1, 2), 3, [0, 3, 6]),
        ((2, 2, 2), 5, [0, 4, 6]),
    ],
)
def test_chunks_are_joined_to_blocks(make_station_cube, monkeypatch, chunks, block, bounds):
    ds = make_station_cube(stations=6, days=10).chunk(station=chunks)
    monkeypatch.setattr(series, "_BLOCK_BYTES", block * 4 * 10 * 2)
    assert Series(ds, ["s1_vv", "clay"], in_memory=False).bounds.tolist() == bounds


def test_blocks_end_where_the_chunks_of_all_variables_end(make_station_cube, monkeypatch):
    monkeypatch.setattr(series, "_BLOCK_BYTES", 1)
    ds = make_station_cube(stations=12, days=10)
    ds = ds.assign(
        s1_vv=ds["s1_vv"].chunk(station=2), temperature=ds["temperature"].chunk(station=3), sm=ds["sm"].chunk(station=4)
    )
    assert Series(ds, ["s1_vv", "clay"], in_memory=False).bounds.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert Series(ds, ["s1_vv", "temperature"], in_memory=False).bounds.tolist() == [0, 6, 12]
    assert Series(ds, ["s1_vv", "temperature"], "sm", in_memory=False).bounds.tolist() == [0, 12]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("chunks", [2000, 700, 100])
def test_a_scan_computes_each_chunk_once(make_station_cube, in_memory, chunks):
    reads = []

    def note(block):
        reads.append(block.shape)
        return block

    ds = make_station_cube(stations=2000, days=4).chunk(station=chunks)
    ds = ds.map(lambda v: v.copy(data=v.data.map_blocks(note, meta=np.empty((0,) * v.ndim, "float32"))))
    parts = list(Series(ds, ["s1_vv", "clay"], "sm", in_memory=in_memory).scan())
    assert len(reads) == 3 * -(-2000 // chunks)
    np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), make_station_cube(stations=2000, days=4)["sm"])


def test_small_and_eager_cubes_are_held(make_station_cube, monkeypatch):
    ds = make_station_cube(stations=6, days=10)
    assert Series(ds, ["s1_vv"]).held
    assert Series(ds.chunk(station=1), ["s1_vv"]).held
    monkeypatch.setattr(series, "IN_MEMORY_BYTES", 6 * 10 * 4 - 1)
    assert Series(ds, ["s1_vv"]).held
    lazy = Series(ds.chunk(station=1), ["s1_vv"])
    assert not lazy.held
    np.testing.assert_array_equal(lazy.read(0)[:, :, 0], ds["s1_vv"].values)
    with pytest.raises(SmgeoError, match="in_memory=True"):
        _ = lazy.whole


def test_blocks_are_let_go(make_station_cube, monkeypatch):
    monkeypatch.setattr(series, "_BLOCK_BYTES", 1)
    ds = make_station_cube(stations=9, days=10)
    lazy = Series(ds.chunk(station=1), ["s1_vv"], in_memory=False, keep=2)
    lazy.expect(range(9))
    for block in range(9):
        np.testing.assert_array_equal(lazy.read(block)[0, :, 0], ds["s1_vv"].values[block])
        assert len(lazy._blocks) <= 3


def test_what_fails_while_reading_is_raised_and_read_again(make_station_cube):
    gone = [True]

    def fail(block):
        if gone[0]:
            raise OSError("a chunk is gone")
        return block

    ds = make_station_cube(stations=4)
    lazy = ds.chunk(station=2)
    broken = lazy.assign(
        s1_vv=lazy["s1_vv"].copy(data=lazy["s1_vv"].data.map_blocks(fail, meta=np.empty((0, 0), "float32")))
    )
    blocks = Series(broken, ["s1_vv"], in_memory=False)
    for _ in range(2):
        with pytest.raises(OSError, match="a chunk is gone"):
            blocks.read(0)
    gone[0] = False
    np.testing.assert_array_equal(blocks.read(0)[:, :, 0], ds["s1_vv"].values)
