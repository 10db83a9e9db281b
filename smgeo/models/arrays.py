"""Files of named arrays in a model's folder, which may come from anybody: `.npz` without pickle, and HDF5, which Keras reads."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
import psutil

# Share of the free memory that the arrays of one file may take.
_SHARE = 0.5
# Groups and arrays of a network's weights, at most.
_MOST_PARTS = 20_000
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
            weigh(sum(m.file_size for m in members))
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


def check_hdf5(file: Path) -> int:
    """Return how many numbers a file of weights in HDF5 has, after it was found to lead nowhere else.

    Raises
    ------
    ValueError
        If there is a link or storage outside the file, a group that stands in two places, or a view on another file; if it is larger than
        half of the free memory; or if it is no HDF5 file.
    """
    import h5py

    seen: set[int] = set()

    def look(group: h5py.Group) -> Iterator[h5py.Dataset]:
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is a link")
            part = group[name]
            address = h5py.h5o.get_info(part.id).addr
            if address in seen or len(seen) > _MOST_PARTS:
                raise ValueError(f"{name} is a link, or one part of too many")
            seen.add(address)
            if isinstance(part, h5py.Group):
                yield from look(part)
            elif not isinstance(part, h5py.Dataset) or part.external or part.is_virtual or part.dtype.hasobject:
                raise ValueError(f"{name} has its numbers elsewhere")
            else:
                yield part

    try:
        with h5py.File(file, "r") as root:
            sizes = [(part.size, part.nbytes) for part in look(root)]
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"it is damaged or not a file of weights: {error!r}") from None
    weigh(sum(size for _, size in sizes))
    return int(sum(count for count, _ in sizes))


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
