"""Files `.npz` of named arrays in a model's folder, which may come from anybody: no pickle, and sizes are weighed first."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import psutil

# Bytes that a byte of a file may unpack to, and bytes that any may: numbers that were learned pack ten times at most.
_PACKED, _PACKED_LEAST = 50, 256 * 2**20
# Share of the free memory that the arrays of one file may take.
_SHARE = 0.5
# The greatest length of an array without numbers.
_LONGEST_EMPTY = 4096
# Bytes of a `.npy` file before its numbers, at most.
_LONGEST_HEAD = 65_536


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, compressed."""
    np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file, after their sizes have been weighed: a small archive can hold a great many zeros.

    Raises
    ------
    ValueError
        If the file is no such archive, is damaged, contains a pickle, or is larger than half of the free memory.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            size = sum(m.file_size for m in members)
            weigh(size)
            if size > max(_PACKED * file.stat().st_size, _PACKED_LEAST):
                raise ValueError(
                    f"its arrays are {size / 1e9:.1f} GB, and the file has {file.stat().st_size / 1e6:.1f} MB, as only zeros are packed"
                )
            # zipfile unpacks others in one piece, whatever size they say they have.
            if any(m.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for m in members):
                raise ValueError("one of its arrays is packed in another way than NumPy's")
            if len({m.filename for m in members}) < len(members):
                raise ValueError("two of its arrays have one name")
            return {m.filename.removesuffix(".npy"): _read_array(archive, m) for m in members}
    except ValueError:
        raise
    except Exception as error:  # zipfile, zlib, lzma and NumPy's parser of heads each have their own
        raise ValueError(f"it is damaged or not a file of arrays: {error!r}") from None


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        _check_head(stream, member)
        stream.seek(0)
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False, max_header_size=_LONGEST_HEAD)
    return array


def weigh(size: int) -> None:
    """Refuse what takes more than half of the free memory.

    Raises
    ------
    ValueError
        With both sizes.
    """
    free = psutil.virtual_memory().available
    if size > _SHARE * free:
        raise ValueError(
            f"its arrays take {size / 1e9:.1f} GB, more than half of the {free / 1e9:.1f} GB of free memory"
        )


def _check_head(stream: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Refuse an array whose head promises more numbers than follow, for which NumPy would allocate memory."""
    version = np.lib.format.read_magic(stream)
    read_head = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_head is None:
        raise ValueError(f"{member.filename} has an unknown version {version}")
    shape, _, dtype = read_head(stream, max_header_size=_LONGEST_HEAD)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} contains Python objects")
    if dtype.itemsize == 0 or any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename} has fewer numbers than its shape {shape}")
    if not math.prod(shape) and max(shape) > _LONGEST_EMPTY:  # what is computed from it may have that size
        raise ValueError(f"{member.filename} is empty and has the shape {shape}")
