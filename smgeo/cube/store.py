"""A Zarr v3 store written as a whole: planned, begun beside its place, written region by region, resumed, then put in its place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask.array as da
import xarray as xr
from dask.base import tokenize

from smgeo.cube.executor import Job, say_full_disk, write_regions
from smgeo.cube.ledger import LEDGER, Records, adopt, read_ledger, resume_store, seal, write_ledger
from smgeo.cube.regions import Progress, Region
from smgeo.files import replace_folder


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
        What computes a region, as for `smgeo.cube.executor.write_regions`.
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
