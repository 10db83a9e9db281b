"""Files of named arrays in a model's folder, which may come from anybody: `.npz` without pickle, and HDF5, which Keras reads."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import psutil

# Share of the free memory that the arrays of one file may take.
_SHARE = 0.5
# Groups inside of groups, at most: a group may contain itself.
_DEEPEST = 20
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
            _weigh(sum(m.file_size for m in archive.infolist()))
            for member in archive.infolist():
                with archive.open(member) as stream:
                    _check_size(stream, member)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, KeyError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"it is damaged or not a file of arrays: {error}") from None


def check_hdf5(file: Path) -> None:
    """Refuse weights in HDF5 that lead out of their file, or are larger than half of the free memory.

    Raises
    ------
    ValueError
        If there is a link or storage outside the file, or a view on another one; or if it is no HDF5 file.
    """
    import h5py

    def look(group: h5py.Group, depth: int) -> int:
        size = 0
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink) or depth > _DEEPEST:
                raise ValueError(f"{name} is a link")
            part = group[name]
            if isinstance(part, h5py.Group):
                size += look(part, depth + 1)
            elif part.external or part.is_virtual or part.dtype.hasobject:
                raise ValueError(f"{name} has its numbers elsewhere")
            else:
                size += part.nbytes
        return size

    try:
        with h5py.File(file, "r") as root:
            size = look(root, 0)
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"it is damaged or not a file of weights: {error}") from None
    _weigh(size)


def _weigh(size: int) -> None:
    free = psutil.virtual_memory().available
    if size > _SHARE * free:
        raise ValueError(
            f"its arrays take {size / 1e9:.1f} GB, more than half of the {free / 1e9:.1f} GB of free memory"
        )


def _check_size(stream: IO[bytes], member: zipfile.ZipInfo) -> None:
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
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename} has fewer numbers than its shape {shape}")
