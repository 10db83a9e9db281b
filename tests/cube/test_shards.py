"""Shards written by hand are read by zarr, and hold what zarr itself would have written."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, GzipCodec

from smgeo.cube import shards
from smgeo.cube.regions import shard_file
from smgeo.cube.shards import DamagedFileError, read_region, write_shard
from smgeo.errors import SmgeoError


def make(path, shape, chunks, shards=None, dtype="float32", fill=np.nan, **options):
    group = zarr.open_group(path, mode="a")
    return group.create_array(
        "v", shape=shape, chunks=chunks, shards=shards, dtype=dtype, fill_value=fill, overwrite=True, **options
    )


def write(array, path, values, size):
    """All shards of `values`, one after the other."""
    counts = [-(-n // s) for n, s in zip(values.shape, size, strict=True)]
    for index in np.ndindex(*counts):
        part = values[tuple(slice(i * s, (i + 1) * s) for i, s in zip(index, size, strict=True))]
        write_shard(array, index, part, path / shard_file("v", index))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    chunk=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    times=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dtype=st.sampled_from(["float32", "float64", "int16", "uint8"]),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    sharded=st.booleans(),
    seed=st.integers(0, 99),
)
def test_zarr_reads_what_was_written(tmp_path_factory, shape, chunk, times, dtype, share, sharded, seed):
    path = tmp_path_factory.mktemp("z")
    fill = np.nan if dtype.startswith("float") else 0
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 100, shape).astype(dtype)
    values[rng.random(shape) < share] = fill
    shard = tuple(c * t for c, t in zip(chunk, times, strict=True))
    array = make(path, shape, chunk, shard if sharded else None, dtype, fill)
    write(array, path, values, shard if sharded else chunk)
    np.testing.assert_array_equal(zarr.open_group(path)["v"][:], values)
    files = {f.relative_to(path) for f in path.rglob("c/*/*") if f.is_file()}
    # The files that zarr itself writes, no more and no fewer: what is missing everywhere has none.
    other = tmp_path_factory.mktemp("z")
    make(other, shape, chunk, shard if sharded else None, dtype, fill)[:] = values
    assert files == {f.relative_to(other) for f in other.rglob("c/*/*") if f.is_file()}
    if sharded:
        return
    assert all((path / f).read_bytes() == (other / f).read_bytes() for f in files)


def test_a_shard_that_becomes_missing_has_no_file(tmp_path):
    array = make(tmp_path, (4,), (2,), (4,))
    file = tmp_path / shard_file("v", (0,))
    write_shard(array, (0,), np.arange(4, dtype="float32"), file)
    assert file.is_file()
    write_shard(array, (0,), np.full(4, np.nan, dtype="float32"), file)
    assert not file.exists()


def test_negative_zero_is_a_value(tmp_path):
    array = make(tmp_path, (2,), (2,), fill=0.0)
    write_shard(array, (0,), np.array([-0.0, 0.0], dtype="float32"), tmp_path / shard_file("v", (0,)))
    assert np.signbit(array[:]).tolist() == [True, False]


def test_a_damaged_index_is_noticed_by_zarr(tmp_path):
    array = make(tmp_path, (4,), (2,), (4,))
    file = tmp_path / shard_file("v", (0,))
    write_shard(array, (0,), np.arange(4, dtype="float32"), file)
    content = bytearray(file.read_bytes())
    content[-10] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        array[:]


def test_other_codecs_are_left_to_zarr(tmp_path):
    array = make(tmp_path, (5,), (2,), compressors=GzipCodec(), serializer=BytesCodec(endian="big"))
    values = np.arange(5, dtype="float32")
    write(array, tmp_path, values, (2,))
    np.testing.assert_array_equal(zarr.open_group(tmp_path)["v"][:], values)


def test_a_failed_write_leaves_no_half_of_a_shard(tmp_path, monkeypatch):
    array = make(tmp_path, (4,), (4,))
    file = tmp_path / shard_file("v", (0,))
    write_shard(array, (0,), np.arange(4, dtype="float32"), file)
    before = file.read_bytes()

    def full(file, parts):
        file.write_bytes(b"".join(parts)[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "_write_parts", full)
    with pytest.raises(SmgeoError, match="no space left on the disk of .*make space"):
        write_shard(array, (0,), np.ones(4, dtype="float32"), file)
    assert file.read_bytes() == before
    assert [f.name for f in file.parent.iterdir()] == ["0"]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    chunk=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    times=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dtype=st.sampled_from(["float32", "int16"]),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    sharded=st.booleans(),
    corners=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_regions_are_read_as_zarr_reads_them(tmp_path_factory, shape, chunk, times, dtype, share, sharded, corners):
    path = tmp_path_factory.mktemp("z")
    fill = np.nan if dtype.startswith("float") else 7
    rng = np.random.default_rng(0)
    values = rng.integers(1, 100, shape).astype(dtype)
    values[rng.random(shape) < share] = fill
    shard = tuple(c * t for c, t in zip(chunk, times, strict=True))
    array = make(path, shape, chunk, shard if sharded else None, dtype, fill)
    array[:] = values
    slices = []
    for n, a, b in zip(shape, corners[:2], corners[2:], strict=True):
        first, last = sorted((int(a * n), int(b * n)))
        slices.append(slice(min(first, n - 1), max(last, min(first, n - 1) + 1)))
    np.testing.assert_array_equal(read_region(array, tuple(slices), path / "v"), values[tuple(slices)])


@pytest.mark.parametrize("place", [-2, -30, 3])
def test_a_damaged_shard_is_told_of(tmp_path, place):
    array = make(tmp_path, (4, 4), (2, 2), (4, 4))
    array[:] = np.arange(16.0).reshape(4, 4)
    file = tmp_path / "v" / "c" / "0" / "0"
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(DamagedFileError, match="c/0/0: "):
        read_region(array, (slice(0, 4), slice(0, 4)), tmp_path / "v")


def test_other_codecs_are_left_to_zarr_to_read(tmp_path):
    array = make(tmp_path, (4, 5), (2, 2), compressors=[GzipCodec()])
    values = np.arange(20, dtype="float32").reshape(4, 5)
    array[:] = values
    np.testing.assert_array_equal(read_region(array, (slice(1, 3), slice(0, 5)), tmp_path / "v"), values[1:3])
