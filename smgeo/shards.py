"""Whole shards (or chunks) of a Zarr v3 array as files, encoded in the calling thread.

zarr-python encodes the inner chunks of a shard through one event loop for the whole process, so that threads which write
different shards wait for each other. Here each thread compresses its own. Formats: Zarr core specification v3 (chunk
keys, `bytes` codec), and its `sharding_indexed` codec: encoded inner chunks, then an index of (offset, length) as
little-endian uint64 in C order, all ones where a chunk is missing, then the CRC32C of the index.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

_MISSING = 2**64 - 1


def write_shard(array: Any, index: tuple[int, ...], values: np.ndarray, file: Path) -> None:
    """Write the shard at `index` (shards along each dim) of an array on disk: complete, or not at all.

    Parameters
    ----------
    array : zarr.Array
        Tells data type, fill value, and codecs; those other than zarr's defaults are left to zarr.
    index : tuple of int
        Which shard (or chunk, of an array without shards).
    values : array
        What it holds; shorter at the array's ends than elsewhere.
    file : Path
        Where it is kept.
    """
    plan = _plan(array)
    if plan is None:
        size = array.shards or array.chunks
        array[tuple(slice(i * s, i * s + n) for i, s, n in zip(index, size, values.shape, strict=True))] = values
        return
    sharded, level = plan
    values = values.astype(array.dtype.newbyteorder("<"), copy=False)
    content = (
        _encode_shard(values, array.shards or (), array.chunks, array.fill_value, level)
        if sharded
        else _encode_chunk(values, array.chunks, array.fill_value, level)
    )
    if content is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _plan(array: Any) -> tuple[bool, int] | None:
    """(whether it has shards, level of compression) of an array laid out by zarr's defaults; None of any other."""
    codecs = array.metadata.codecs
    sharded = len(codecs) == 1 and isinstance(codecs[0], ShardingCodec)
    if sharded:
        codec = codecs[0]
        index = [type(c) for c in codec.index_codecs]
        if index != [BytesCodec, Crc32cCodec] or codec.index_location.value != "end":
            return None
        codecs = codec.codecs
    if [type(c) for c in codecs] != [BytesCodec, ZstdCodec] or codecs[1].checksum:
        return None
    endian = codecs[0].endian
    return (sharded, codecs[1].level) if endian is None or endian.value == "little" else None


def _encode_chunk(values: np.ndarray, shape: Sequence[int], fill: Any, level: int) -> bytes | None:
    """One chunk, filled up to `shape`; None where it holds nothing but the fill value."""
    if _is_empty(values, fill):
        return None
    if values.shape != tuple(shape):
        whole = np.full(tuple(shape), fill, dtype=values.dtype)
        whole[tuple(slice(n) for n in values.shape)] = values
        values = whole
    return bytes(Zstd(level=level).encode(np.ascontiguousarray(values)))


def _encode_shard(
    values: np.ndarray, shape: Sequence[int], chunk: Sequence[int], fill: Any, level: int
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


def _is_empty(values: np.ndarray, fill: Any) -> bool:
    """Whether all values are the fill value, by their bits: -0.0 is not 0.0."""
    width = values.dtype.itemsize
    bits = np.ascontiguousarray(values).view(f"u{width}")
    return bool((bits == np.array(fill, dtype=values.dtype).view(f"u{width}")).all())
