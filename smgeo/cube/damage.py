"""Damage of a store that is opened or read: files that are missing or differ, in words that name variable, days and place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePath

import numpy as np
import xarray as xr
import zarr

from smgeo.cube.ledger import LEDGER, Records, find_sizes, read_ledger
from smgeo.cube.shards import DamagedFileError, block_slices, open_array
from smgeo.errors import SmgeoError
from smgeo.files import hash_file

# Number of files up to which a store is listed when it is opened; a larger one is checked as it is read.
LISTED = 10_000
# Number of damaged files that a message names.
_NAMED = 3
_LOOKS = 3
_REPAIR = "run the command that wrote the store again, which rebuilds what is damaged and keeps the rest"


def check_files(store: Path) -> None:
    """Refuse a store in which files of its ledger are missing, or have another size; those of Zarr's metadata, also other content.

    Stores without a ledger pass. Of more than `LISTED` files only metadata and coordinates are looked at; other chunks are checked when they
    are read.

    Raises
    ------
    SmgeoError
        Naming the files, their variables, days and places.
    """
    damaged: dict[str, str] = {}
    for _ in range(_LOOKS):  # another store may be put in its place meanwhile
        version = _version_of(store)
        if not (damaged := _find_changed(store, _read(store, version))) or _version_of(store) == version:
            break
    if damaged:
        named = "; ".join(f"{describe_file(store, name)}: {what}" for name, what in list(damaged.items())[:_NAMED])
        more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        raise SmgeoError(f"{store} is damaged: {named}{more}; {_REPAIR}")


def _find_changed(store: Path, records: Records | None) -> dict[str, str]:
    """Return what is wrong with the files of a store, as far as metadata and a list of its files show it."""
    if records is None:
        return {}
    written = _written(records)
    names = written if len(written) <= LISTED else list(records.metadata)
    sizes = find_sizes(store) if names is written else _sizes_of(store, names)
    damaged: dict[str, str] = {}
    for name in names:
        if name not in sizes:
            damaged[name] = "missing"
        elif sizes[name] != records.sizes.get(name, sizes[name]):
            damaged[name] = f"{sizes[name]} bytes instead of {records.sizes[name]}"
        elif PurePath(name).name == "zarr.json" and hash_file(store / name) != records.metadata.get(name):
            damaged[name] = "changed"
    return damaged


def _sizes_of(store: Path, names: Iterable[str]) -> dict[str, int]:
    return {name: (store / name).stat().st_size for name in names if (store / name).is_file()}


def was_written(file: Path, store: Path) -> bool:
    """Return True if the ledger of a store names this file; without a ledger nothing is known, and a missing file is fill value."""
    return file.relative_to(store).as_posix() in _names(store, _version_of(store))


def explain_damage(store: Path, error: DamagedFileError) -> SmgeoError:
    """Return the error for a file that cannot be read: with its variable, days, place, and what repairs it."""
    variable = error.file.relative_to(store).parts[0]
    part = describe_part(store, variable, error.slices)
    # A run compares names and sizes of its stores, so it finds by itself what is missing.
    first = f"remove {error.file} and " if error.file.exists() else ""
    return SmgeoError(f"{store} is damaged: {part}: {error.reason}; {first}{_REPAIR}")


def explain_unreadable(store: Path, error: Exception) -> SmgeoError:
    """Return the error for a store that cannot be opened: with the arrays that cannot be read, among coordinates and metadata."""
    folders = [] if isinstance(error, OSError) else sorted(f for f in store.iterdir() if f.is_dir())
    broken = [folder for folder in folders if not _is_readable(folder)]
    names = f" because of {', '.join(f.name for f in broken)}" if broken else ""
    first = f"remove {', '.join(map(str, broken))} and " if broken else ""
    return SmgeoError(
        f"{store} cannot be opened as a Zarr store{names} ({type(error).__name__}: {error}); {first}{_REPAIR}"
    )


def _is_readable(folder: Path) -> bool:
    """Return True if the metadata of an array or a group can be read, and of an array along one dim all values."""
    try:
        found = zarr.open(str(folder), mode="r")
        if isinstance(found, zarr.Array) and found.ndim < 2:
            found[...]
    # Whatever zarr and its codecs raise for damaged files.
    except Exception:
        return False
    return True


def describe_file(store: Path, name: str) -> str:
    """Return the name of a file, and of a chunk also its variable, days and place."""
    variable, *rest = name.split("/c/")
    try:
        array = open_array(store / variable)
        index = [int(n) for n in rest[0].split("/")]
        slices = block_slices(index, array.shards or array.chunks, array.shape)
    except (OSError, ValueError, IndexError, KeyError, TypeError):  # no chunk, or its metadata are damaged as well
        return name
    return f"{name} ({describe_part(store, variable, slices)})"


def describe_part(store: Path, variable: str, slices: Sequence[slice]) -> str:
    """Return a part of a variable in words, such as `sm, 2020-01-01 to 2020-01-30, y 5000 to 4000, x 0 to 700`."""
    try:
        axes = xr.open_zarr(store, consolidated=False, chunks=None)
        dims = axes[variable].dims
    # Whatever zarr and xarray raise for damaged metadata or coordinates.
    except Exception:
        return f"{variable}, positions " + ", ".join(f"{s.start} to {s.stop - 1}" for s in slices)
    return ", ".join([variable, *(_describe_span(axes, str(d), s) for d, s in zip(dims, slices, strict=True))])


def _describe_span(axes: xr.Dataset, dim: str, span: slice) -> str:
    values = axes[dim].values if dim in axes.coords else np.arange(axes.sizes[dim])
    first, last = values[span.start], values[span.stop - 1]
    if dim == "time" and dim in axes.coords:
        return f"{str(first)[:10]} to {str(last)[:10]}"
    count = f" ({span.stop - span.start})" if dim == "station" else ""
    return f"{dim} {first} to {last}{count}"


def _version_of(store: Path) -> tuple[int, int]:
    """Return a number that is another as soon as the ledger is another."""
    try:
        now = (store / LEDGER / "zarr.json").stat()
    except OSError:
        return 0, 0
    return now.st_ino, now.st_mtime_ns


@lru_cache(maxsize=4)
def _read(store: Path, version: tuple[int, int]) -> Records | None:
    return read_ledger(store)


@lru_cache(maxsize=16)
def _names(store: Path, version: tuple[int, int]) -> frozenset[str]:
    records = _read(store, version)
    return frozenset(_written(records) if records is not None else ())


def _written(records: Records) -> list[str]:
    """Return the files that a store must have; a chunk that is all fill value has none."""
    parts = (*records.regions.values(), records.metadata)
    return [file for files in parts for file, known in files.items() if known is not None]
