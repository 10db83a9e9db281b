"""Shards (or chunks) of a Zarr v3 array as files, encoded and decoded in the calling thread.

zarr-python encodes and decodes the inner chunks of a shard through one event loop for the whole process, so that threads which work
on different shards wait for each other. Here each thread does its own. This module ends when the project's lowest Python has a Zarr
whose fused codec pipeline needs no event loop. Formats: Zarr core specification v3 (chunk keys, `bytes` codec), and its
`sharding_indexed` codec: encoded inner chunks, then an index of (offset, length) as little-endian uint64 in C order, all ones for a
missing chunk, then the CRC32C of the index; and `crc32c`: four bytes behind a chunk, little-endian.
"""

from __future__ import annotations

import itertools
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, TypeAlias

import google_crc32c
import numpy as np
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

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
        Gives data type, fill value and codecs; codecs other than smgeo's are left to zarr.
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
    values = values.astype(array.dtype.newbyteorder("<"), copy=False)
    fill = np.array(array.fill_value, dtype=values.dtype)
    content = (
        _encode_shard(values, array.shards or (), array.chunks, fill, plan)
        if plan.sharded
        else _encode_chunk(values, array.chunks, fill, plan)
    )
    if not content:
        file.unlink(missing_ok=True)
        return
    with written_beside(file, shared=True) as part:
        _write_parts(part, content)


class DamagedFileError(Exception):
    """A file of an array that is missing, cannot be read, or has other content than was written.

    Attributes
    ----------
    file : Path
    reason : str
    slices : tuple of slice
        The part of the array that is lost.
    """

    def __init__(self, file: Path, reason: str, slices: tuple[slice, ...]) -> None:
        super().__init__(f"{file}: {reason}")
        self.file, self.reason, self.slices = file, reason, slices


class _DamagedChunkError(ValueError):
    """An inner chunk that cannot be decoded, and its position."""

    def __init__(self, reason: object, position: tuple[int, ...]) -> None:
        super().__init__(str(reason))
        self.position = position


def read_region(
    array: ZarrArray,
    slices: tuple[slice, ...],
    folder: Path,
    was_written: Callable[[Path], bool] = lambda file: False,
) -> np.ndarray:
    """Read a region of an array on disk; each inner chunk that it touches is read and decoded once.

    Parameters
    ----------
    array : zarr.Array
        As for `write_shard`.
    slices : tuple of slice
        Start and stop along each dim, without a step.
    folder : Path
        The array's folder.
    was_written : callable
        True for a file that the array must have; others that are missing are all fill value.

    Raises
    ------
    DamagedFileError
        If a file is damaged or lost.
    """
    plan = _plan(array)
    if plan is None:
        check_present(array, slices, folder, was_written)
        return _read_with_zarr(array, slices, folder)
    size = array.shards or array.chunks
    request = _Request(array, slices, np.empty([s.stop - s.start for s in slices], dtype=array.dtype), plan)
    for index in _touched(slices, size):
        file = folder.joinpath("c", *map(str, index))
        try:
            with file.open("rb") as handle:
                _read_file(handle, index, request)
        except FileNotFoundError:
            if was_written(file):
                raise DamagedFileError(file, "it is missing", block_slices(index, size, array.shape)) from None
            request.out[_overlap(index, size, slices)[1]] = array.fill_value
        except _DamagedChunkError as error:
            place = block_slices(error.position, array.chunks, array.shape)
            raise DamagedFileError(file, str(error), place) from None
        except ValueError as error:
            raise DamagedFileError(file, str(error), block_slices(index, size, array.shape)) from None
    return request.out


def _read_with_zarr(array: ZarrArray, slices: tuple[slice, ...], folder: Path) -> np.ndarray:
    """Read a region of an array with any codecs, chunk by chunk where one of them is damaged, to name it."""
    size = array.shards or array.chunks
    try:
        return np.asarray(array[slices])
    except (ValueError, RuntimeError):
        for index in _touched(slices, size):
            place = block_slices(index, size, array.shape)
            try:
                array[place]
            except (ValueError, RuntimeError) as error:
                raise DamagedFileError(folder.joinpath("c", *map(str, index)), str(error), place) from None
        raise


def check_present(
    array: ZarrArray, slices: tuple[slice, ...], folder: Path, was_written: Callable[[Path], bool]
) -> None:
    """Raise `DamagedFileError` if a file that a region touches is missing although it was written; see `read_region`."""
    size = array.shards or array.chunks
    for index in _touched(slices, size):
        file = folder.joinpath("c", *map(str, index))
        if not file.exists() and was_written(file):
            raise DamagedFileError(file, "it is missing", block_slices(index, size, array.shape))


def block_slices(position: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """Return the part of an array that the block of a size at a position covers.

    >>> block_slices((1, 0), (30, 4), (45, 4))
    (slice(30, 45, None), slice(0, 4, None))
    """
    return tuple(slice(p * s, min((p + 1) * s, n)) for p, s, n in zip(position, size, shape, strict=True))


def _touched(slices: Sequence[slice], size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Iterate over the blocks of a size that a region touches."""
    return itertools.product(*(range(s.start // n, -(-s.stop // n)) for s, n in zip(slices, size, strict=True)))


@dataclass(frozen=True, eq=False)
class _Request:
    """Part of an array, and where its values go."""

    array: ZarrArray
    slices: tuple[slice, ...]
    out: np.ndarray
    codecs: _Codecs


def _read_file(handle: BinaryIO, index: tuple[int, ...], request: _Request) -> None:
    """Read the part of a region that is in a file."""
    array, slices = request.array, request.slices
    chunk = array.chunks
    if not request.codecs.sharded:
        _place(handle.read(), index, request)
        return
    counts = [s // c for s, c in zip(array.shards or chunk, chunk, strict=True)]
    begin = [i * n for i, n in zip(index, counts, strict=True)]
    entries = math.prod(counts)
    footer = 16 * entries + 4
    if handle.seek(0, os.SEEK_END) < footer:
        raise ValueError("it is cut short")
    handle.seek(-footer, os.SEEK_END)
    table = _without_checksum(handle.read(), "its index").view("<u8").reshape(*counts, 2)
    for position in _touched(slices, chunk):
        inner = tuple(p - b for p, b in zip(position, begin, strict=True))
        if not all(0 <= i < n for i, n in zip(inner, counts, strict=True)):
            continue
        offset, length = map(int, table[inner])
        if offset == _MISSING:
            request.out[_overlap(position, chunk, slices)[1]] = array.fill_value
            continue
        handle.seek(offset)
        _place(handle.read(length), position, request)


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


def _without_checksum(content: bytes, what: str) -> np.ndarray:
    """Return the bytes before the CRC32C at the end of `content`, which must fit."""
    inner = np.frombuffer(content, dtype="u1")[:-4]
    if _checksum(inner) != content[-4:]:
        raise ValueError(f"the checksum of {what} does not match")
    return inner


def _place(content: bytes, position: tuple[int, ...], request: _Request) -> None:
    """Decode the part of one inner chunk that is in a region."""
    array, out = request.array, request.out
    chunk, stored = array.chunks, array.dtype.newbyteorder("<")
    here, there = _overlap(position, chunk, request.slices)
    part = out[there]
    try:
        encoded: np.ndarray | bytes = _without_checksum(content, "a chunk") if request.codecs.checked else content
        if part.shape == chunk and part.flags.c_contiguous and out.dtype == stored:
            Zstd().decode(encoded, out=part)
        else:
            part[...] = np.frombuffer(Zstd().decode(encoded), dtype=stored).reshape(chunk)[here]
    except (ValueError, RuntimeError) as error:
        raise _DamagedChunkError(error, position) from None


class _Codecs(NamedTuple):
    """How an array's chunks are encoded: in shards, at this level of compression, with a checksum."""

    sharded: bool
    level: int
    checked: bool


def _plan(array: ZarrArray) -> _Codecs | None:
    """Return the codecs of an array that has smgeo's, or those of its stores without checksums; None for any other."""
    codecs: Sequence[object] = getattr(array.metadata, "codecs", ())  # none in version 2 of the format
    sharding = codecs[0] if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec) else None
    if sharding is not None:
        index = [type(c) for c in sharding.index_codecs]
        if index != [BytesCodec, Crc32cCodec] or sharding.index_location.value != "end":
            return None
        codecs = sharding.codecs
    if [type(c) for c in codecs] not in ([BytesCodec, ZstdCodec], [BytesCodec, ZstdCodec, Crc32cCodec]):
        return None
    to_bytes, compressor = codecs[:2]
    assert isinstance(to_bytes, BytesCodec)
    assert isinstance(compressor, ZstdCodec)
    little = to_bytes.endian is None or to_bytes.endian.value == "little"
    return (
        _Codecs(sharding is not None, compressor.level, len(codecs) == 3)
        if little and not compressor.checksum
        else None
    )


def _write_parts(file: Path, parts: Sequence[bytes]) -> None:
    """Write the parts one after the other, without a copy of them."""
    with file.open("wb") as handle:
        handle.writelines(parts)


def _encode_chunk(values: np.ndarray, shape: Sequence[int], fill: np.ndarray, codecs: _Codecs) -> list[bytes]:
    """Encode one chunk, filled up to `shape`, as parts of a file; none if it is all fill value."""
    if _is_empty(values, fill):
        return []
    if values.shape != tuple(shape):
        whole = np.full(tuple(shape), fill, dtype=values.dtype)
        whole[tuple(slice(n) for n in values.shape)] = values
        values = whole
    encoded = bytes(Zstd(level=codecs.level).encode(np.ascontiguousarray(values)))
    return [encoded, _checksum(encoded)] if codecs.checked else [encoded]


def _encode_shard(
    values: np.ndarray, shape: Sequence[int], chunk: Sequence[int], fill: np.ndarray, codecs: _Codecs
) -> list[bytes]:
    parts: list[bytes] = []
    index: list[tuple[int, int]] = []
    offset = 0
    for position in itertools.product(*(range(s // c) for s, c in zip(shape, chunk, strict=True))):
        inner = values[tuple(slice(p * c, (p + 1) * c) for p, c in zip(position, chunk, strict=True))]
        encoded = _encode_chunk(inner, chunk, fill, codecs) if inner.size else []
        if not encoded:
            index.append((_MISSING, _MISSING))
            continue
        length = sum(map(len, encoded))
        index.append((offset, length))
        parts += encoded
        offset += length
    if not parts:
        return []
    table = struct.pack(f"<{2 * len(index)}Q", *itertools.chain.from_iterable(index))
    return [*parts, table, _checksum(table)]


def _checksum(content: bytes | np.ndarray) -> bytes:
    return struct.pack("<I", google_crc32c.value(content))


def _is_empty(values: np.ndarray, fill: np.ndarray) -> bool:
    """Return True if all values are the fill value, by their bits: -0.0 is not 0.0."""
    width = values.dtype.itemsize
    bits = np.ascontiguousarray(values).view(f"u{width}")
    return bool((bits == fill.view(f"u{width}")).all())
