"""A Zarr v3 store written as a whole: planned, begun beside its place, written region by region, resumed, then put in its place."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask.array as da
import xarray as xr
from dask.base import tokenize

from smgeo.errors import SmgeoError
from smgeo.regions import (
    LEDGER,
    Job,
    Progress,
    Records,
    Region,
    adopt,
    read_ledger,
    resume_store,
    say_full_disk,
    seal,
    write_ledger,
    write_regions,
)


def write_store(
    template: xr.Dataset,
    plan: Mapping[str, Mapping[str, Any]],
    regions: Sequence[Region],
    inputs: Mapping[str, str],
    jobs: Callable[[Region], Job],
    path: Path,
    *,
    resume: bool = True,
    old: set[str] | None = None,
    finish: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a store region by region, beside `path` first, put in its place when complete; by `only_writer`.

    Parameters
    ----------
    template : xarray.Dataset
        Dims, coordinates, attributes, and what is no region; values of regions are not looked at.
    plan : mapping
        Variable -> encoding: `chunks`, and `shards` where several chunks make one.
    regions : sequence of Region
        All of the store, each a shard of its variables.
    inputs : mapping
        Region -> digest of what it is made from; what an interrupted or an earlier write made from the same is kept.
    jobs : callable
        What computes a region, as for `smgeo.regions.write_regions`.
    path : Path
        A folder that is new, or holds a store.
    resume : bool
        False keeps nothing.
    old : set of str, optional
        Regions that are kept of the finished store whatever their digests say.
    finish : callable, optional
        Called with the store's folder when all regions are written, to add what is known only then.
    progress : callable, optional
        Called with (regions done, regions in all).

    Raises
    ------
    SmgeoError
        If the disk is full.
    """
    part = path.with_name(path.name + ".part")
    names = list(dict.fromkeys(n for r in regions for n in r.variables))
    shards = shards_of(plan, names)
    layout = _sign_layout(template, plan, names)
    before = (read_ledger(path) if path.exists() and (resume or old) else None) or Records()
    kept = {
        r.name
        for r in regions
        if (r.name in before.regions if old and r.name in old else before.inputs.get(r.name) == inputs[r.name])
    }
    with say_full_disk(path):
        resumed = resume_store(part, layout) if resume else None
        records = resumed or _start_store(template, plan, names, shards, part, layout)
        kept = kept if _same_layout(path, part, names) else set()
        if resumed is None and kept:
            adopt(path, part, [r for r in regions if r.name in kept], records)
            write_ledger(part, records)
        done = {n for n in records.regions if records.inputs[n] == inputs.get(n)}
        done |= {n for n, files in records.regions.items() if n in kept and files == before.regions[n]}
        todo = [r for r in regions if r.name not in done]
        write_regions(jobs, todo, part, inputs, progress=progress, done=len(regions) - len(todo))
        if finish is not None:
            finish(part)
        seal(part)
        replace_folder(part, path)
    return path


def shards_of(plan: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """What of each variable is one file: a shard, or a chunk where chunks are not joined."""
    return {n: plan[n].get("shards", plan[n]["chunks"]) for n in names}


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keep other processes of this machine (where the file system says so, of all) from writing the same; a killed one leaves no lock.

    Raises
    ------
    SmgeoError
        If another is at it.
    """
    lock = path.with_name(f".{path.name.removeprefix('.')}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = lock.exists() and os.fstat(handle.fileno()).st_ino == lock.stat().st_ino
        except BlockingIOError:
            mine = False
        except OSError:  # a file system without locks
            mine = True
        if not mine:
            raise SmgeoError(f"another process is writing {path}; wait for it, or give another path")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _start_store(
    ds: xr.Dataset, plan: Any, names: list[str], shards: Mapping[str, tuple[int, ...]], part: Path, layout: str
) -> Records:
    """An unfinished store with all metadata and coordinates in place, and no region."""
    # The ledger first: of a removal that is killed half-way, nothing may call itself finished.
    shutil.rmtree(part / LEDGER, ignore_errors=True)
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    template = ds.assign(
        {n: ds[n].copy(data=da.zeros(ds[n].shape, chunks=shards[n], dtype=ds[n].dtype)) for n in names}
    )
    template.to_zarr(part, mode="w", zarr_format=3, consolidated=False, encoding=plan, compute=False)
    write_ledger(part, Records(layout))
    return seal(part)


def _sign_layout(ds: xr.Dataset, plan: Mapping[str, Any], regions: Iterable[str]) -> str:
    """What a store holds beside its regions: version, layout, coordinates, attributes, values written with them."""
    coords = {str(n): (c.dims, tokenize(c.values), str(c.attrs)) for n, c in ds.coords.items()}
    variables = {str(n): (v.shape, str(v.dtype), str(v.attrs)) for n, v in ds.data_vars.items()}
    small = {str(n): tokenize(v.values) for n, v in ds.drop_vars(regions).data_vars.items()}
    return str(tokenize(version("smgeo"), plan, coords, variables, small, str(ds.attrs)))


def _same_layout(old: Path, new: Path, names: Iterable[str]) -> bool:
    """Whether a shard of one store is one of the other: the same chunks, data type, fill value and codecs."""
    said = ("data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")
    try:
        a, b = ({n: json.loads((s / n / "zarr.json").read_text(encoding="utf-8")) for n in names} for s in (old, new))
    except (OSError, ValueError):  # there is no old one, it lacks a variable, or its metadata are damaged
        return False
    return all(a[n].get(key) == b[n].get(key) for n in names for key in said)


def check_replaceable(path: Path, marker: str) -> None:
    """Refuse to write over a folder that is not of the kind to be written.

    Raises
    ------
    SmgeoError
        If `path` is a file, or a folder with something in it but no file `marker`.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / marker).is_file()):
        raise SmgeoError(
            f"{path} exists and is not what would replace it (no {marker} in it); give another path, or remove it"
        )


def replace_folder(part: Path, path: Path, marker: str = "zarr.json") -> None:
    """Put the complete folder `part` in the place of `path`, which may exist as a folder of the same kind.

    On Linux's local file systems in one step, so that a reader finds the old one or the new one at every moment.
    """
    check_replaceable(path, marker)
    # No name that a user would choose for a copy of his own.
    old = path.with_name(f".{path.name.removeprefix('.')}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists() and exchange_folders(part, path):
        os.replace(part, old)
    else:
        if path.exists():
            os.replace(path, old)
        os.replace(part, path)
    shutil.rmtree(old, ignore_errors=True)


def exchange_folders(a: Path, b: Path) -> bool:
    """Let two folders take each other's place in one step; False, and nothing done, where the system can't.

    Linux, renameat2(2): -100 is AT_FDCWD, 2 is RENAME_EXCHANGE.
    """
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    return rename is not None and rename(-100, os.fsencode(a), -100, os.fsencode(b), 2) == 0
