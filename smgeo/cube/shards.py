"""Shards (or chunks) of a Zarr v3 array as files, encoded and decoded in the calling thread.

zarr-python encodes and decodes the inner chunks of a shard through one event loop for the whole process, so that threads which work
on different shards wait for each other. Here each thread does its own. This module ends when the project's lowest Python has a Zarr
whose fused codec pipeline needs no event loop. Formats: Zarr core specification v3 (chunk keys, `bytes` codec), and its
`sharding_indexed` codec: encoded inner chunks, then an index of (offset, length) as little-endian uint64 in C order, all ones for a
missing chunk, then the CRC32C of the index.
"""

from __future__ import annotations

import itertools
import math
import os
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias

import google_crc32c
import numpy as np
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from smgeo.errors import SmgeoError
from smgeo.files import written_beside

if TYPE_CHECKING:
    from zarr.core.metadata import ArrayV3Metadata

    ZarrArray: TypeAlias = zarr.Array[ArrayV3Metadata]

_MISSING = 2**64 - 1


def open_array(folder: Path, mode: Literal["r", "r+"] = "r") -> ZarrArray:
    """Open the array in a folder, once a process, and again if another one was put in its place."""
    return _open(folder, mode, (folder / "zarr.json").stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _open(folder: Path, mode: Literal["r", "r+"], version: int) -> ZarrArray:
    return zarr.open_array(str(folder), mode=mode)


def write_shard(array: ZarrArray, index: tuple[int, ...], values: np.ndarray, file: Path) -> None:
    """Write the shard at `index` (shards along each dim) of an array on disk: complete, or not at all.

    Parameters
    ----------
    array : zarr.Array
        Gives data type, fill value and codecs; codecs other than zarr's defaults are left to zarr.
    index : tuple of int
        Number of the shard along each dim (or of the chunk, for an array without shards).
    values : numpy.ndarray
        Its values; shorter at the array's ends than elsewhere.
    file : Path
        Its file.
    """
    plan = _plan(array)
    if plan is None:
        size = array.shards or array.chunks
        array[tuple(slice(i * s, i * s + n) for i, s, n in zip(index, size, values.shape, strict=True))] = values
        return
    sharded, level = plan
    values = values.astype(array.dtype.newbyteorder("<"), copy=False)
    fill = np.array(array.fill_value, dtype=values.dtype)
    content = (
        _encode_shard(values, array.shards or (), array.chunks, fill, level)
        if sharded
        else _encode_chunk(values, array.chunks, fill, level)
    )
    if content is None:
        file.unlink(missing_ok=True)
        return
    with written_beside(file, shared=True) as part:
        part.write_bytes(content)


def read_region(array: ZarrArray, slices: tuple[slice, ...], folder: Path) -> np.ndarray:
    """Read a region of an array on disk; each inner chunk that it touches is read and decoded once.

    Parameters
    ----------
    array : zarr.Array
        As for `write_shard`.
    slices : tuple of slice
        Start and stop along each dim, without a step.
    folder : Path
        The array's folder.

    Raises
    ------
    SmgeoError
        If a file is damaged.
    """
    plan = _plan(array)
    if plan is None:
        return np.asarray(array[slices])
    size = array.shards or array.chunks
    out = np.empty([s.stop - s.start for s in slices], dtype=array.dtype)
    for index in _touched(slices, size):
        file = folder.joinpath("c", *map(str, index))
        try:
            with file.open("rb") as handle:
                _read_file(handle, index, array, slices, out, sharded=plan[0])
        except FileNotFoundError:
            out[_overlap(index, size, slices)[1]] = array.fill_value
        except (OSError, ValueError, RuntimeError, struct.error) as error:
            raise SmgeoError(
                f"{file} is damaged ({error}); `smgeo info --verify` lists the regions to write again"
            ) from None
    return out


def _touched(slices: Sequence[slice], size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Iterate over the blocks of a size that a region touches."""
    return itertools.product(*(range(s.start // n, -(-s.stop // n)) for s, n in zip(slices, size, strict=True)))


def _read_file(
    handle: BinaryIO,
    index: tuple[int, ...],
    array: ZarrArray,
    slices: tuple[slice, ...],
    out: np.ndarray,
    *,
    sharded: bool,
) -> None:
    """Read the part of a region that is in a file into `out`."""
    chunk = array.chunks
    if not sharded:
        _place(handle.read(), index, array, slices, out)
        return
    counts = [s // c for s, c in zip(array.shards or chunk, chunk, strict=True)]
    begin = [i * n for i, n in zip(index, counts, strict=True)]
    entries = math.prod(counts)
    handle.seek(-(16 * entries + 4), os.SEEK_END)
    footer = handle.read()
    if struct.pack("<I", google_crc32c.value(footer[:-4])) != footer[-4:]:
        raise ValueError("the checksum of its index does not match")
    table = np.frombuffer(footer[:-4], dtype="<u8").reshape(*counts, 2)
    for position in _touched(slices, chunk):
        inner = tuple(p - b for p, b in zip(position, begin, strict=True))
        if not all(0 <= i < n for i, n in zip(inner, counts, strict=True)):
            continue
        offset, length = map(int, table[inner])
        if offset == _MISSING:
            out[_overlap(position, chunk, slices)[1]] = array.fill_value
            continue
        handle.seek(offset)
        _place(handle.read(length), position, array, slices, out)


def _overlap(
    position: Sequence[int], size: Sequence[int], slices: Sequence[slice]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return what a block of a size and a region have in common: as slices of the block, and as slices of the region."""
    here, there = [], []
    for p, n, s in zip(position, size, slices, strict=True):
        first, last = max(p * n, s.start), min((p + 1) * n, s.stop)
        here.append(slice(first - p * n, last - p * n))
        there.append(slice(first - s.start, last - s.start))
    return tuple(here), tuple(there)


def _place(
    encoded: bytes, position: tuple[int, ...], array: ZarrArray, slices: tuple[slice, ...], out: np.ndarray
) -> None:
    """Decode the part of one inner chunk that is in a region into `out`."""
    chunk = array.chunks
    stored = array.dtype.newbyteorder("<")
    here, there = _overlap(position, chunk, slices)
    part = out[there]
    if part.shape == chunk and part.flags.c_contiguous and out.dtype == stored:
        Zstd().decode(encoded, out=part)
    else:
        part[...] = np.frombuffer(Zstd().decode(encoded), dtype=stored).reshape(chunk)[here]


def _plan(array: ZarrArray) -> tuple[bool, int] | None:
    """Return (has shards, level of compression) for an array with zarr's default codecs; None for any other."""
    codecs: Sequence[object] = getattr(array.metadata, "codecs", ())  # none in version 2 of the format
    sharding = codecs[0] if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec) else None
    if sharding is not None:
        index = [type(c) for c in sharding.index_codecs]
        if index != [BytesCodec, Crc32cCodec] or sharding.index_location.value != "end":
            return None
        codecs = sharding.codecs
    if len(codecs) != 2:
        return None
    to_bytes, compressor = codecs
    if not isinstance(to_bytes, BytesCodec) or not isinstance(compressor, ZstdCodec) or compressor.checksum:
        return None
    little = to_bytes.endian is None or to_bytes.endian.value == "little"
    return (sharding is not None, compressor.level) if little else None


def _encode_chunk(values: np.ndarray, shape: Sequence[int], fill: np.ndarray, level: int) -> bytes | None:
    """Encode one chunk, filled up to `shape`; None if it is all fill value."""
    if _is_empty(values, fill):
        return None
    if values.shape != tuple(shape):
        whole = np.full(tuple(shape), fill, dtype=values.dtype)
        whole[tuple(slice(n) for n in values.shape)] = values
        values = whole
    return bytes(Zstd(level=level).encode(np.ascontiguousarray(values)))


def _encode_shard(
    values: np.ndarray, shape: Sequence[int], chunk: Sequence[int], fill: np.ndarray, level: int
) -> bytes | None:
    parts: list[bytes] = []
    index: list[tuple[int, int]] = []
    offset = 0
    for position in itertools.product(*(range(s // c) for s, c in zip(shape, chunk, strict=True))):
        inner = values[tuple(slice(p * c, (p + 1) * c) for p, c in zip(position, chunk, strict=True))]
        encoded = _encode_chunk(inner, chunk, fill, level) if inner.size else None
        if encoded is None:
            index.append((_MISSING, _MISSING))
            continue
        index.append((offset, len(encoded)))
        parts.append(encoded)
        offset += len(encoded)
    if not parts:
        return None
    table = struct.pack(f"<{2 * len(index)}Q", *itertools.chain.from_iterable(index))
    return b"".join([*parts, table, struct.pack("<I", google_crc32c.value(table))])


def _is_empty(values: np.ndarray, fill: np.ndarray) -> bool:
    """Return True if all values are the fill value, by their bits: -0.0 is not 0.0."""
    width = values.dtype.itemsize
    bits = np.ascontiguousarray(values).view(f"u{width}")
    return bool((bits == fill.view(f"u{width}")).all())
