"""A whole Zarr v3 store: planned, begun beside its place, written region by region, resumed, then put in its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import dask.array as da
import xarray as xr
from dask.base import tokenize

from smgeo.cube.chunks import CODECS, Encoding
from smgeo.cube.executor import Job, Summarise, write_regions
from smgeo.cube.ledger import (
    LEDGER,
    MARKERS,
    Records,
    adopt,
    read_ledger,
    recover_ledger,
    resume_store,
    seal,
    write_ledger,
)
from smgeo.cube.regions import Progress, Region, plan_regions
from smgeo.files import JsonObject, explain_full_disk, load_json, replace_folder


@dataclass(frozen=True, eq=False)
class StorePlan:
    """The content of a store.

    Attributes
    ----------
    template : xarray.Dataset
        Dims, coordinates, attributes, and all variables without regions; the values of variables with regions are not used.
    encoding : mapping
        Chunks and shards of each variable.
    regions : sequence of Region
        All regions of the store, each a shard of its variables; see `regions_of`.
    inputs : mapping
        Region -> digest of what it is made from.
    jobs : callable
        Gives the job that computes a region.
    summarise : callable, optional
        Gives a summary of a region's values, kept in the ledger.
    """

    template: xr.Dataset
    encoding: Mapping[str, Encoding]
    regions: Sequence[Region]
    inputs: Mapping[str, str]
    jobs: Callable[[Region], Job]
    summarise: Summarise | None = None

    @cached_property
    def names(self) -> list[str]:
        """The variables that have regions."""
        return list(dict.fromkeys(n for r in self.regions for n in r.variables))

    @cached_property
    def layout(self) -> str:
        """Digest of all but the regions: version, encoding, coordinates, attributes, values of the other variables."""
        ds = self.template
        coords = {str(n): (c.dims, tokenize(c.values), str(c.attrs)) for n, c in ds.coords.items()}
        variables = {str(n): (v.shape, str(v.dtype), str(v.attrs)) for n, v in ds.data_vars.items()}
        others = {str(n): tokenize(v.values) for n, v in ds.drop_vars(self.names).data_vars.items()}
        codecs = [codec.to_dict() for codec in CODECS]
        return str(tokenize(version("smgeo"), self.encoding, codecs, coords, variables, others, str(ds.attrs)))

    def find_kept(self, finished: Records, old: Collection[str] = ()) -> set[str]:
        """Return the regions of a finished store that can stay: made from the same, or among `old`; with a summary if one is wanted."""
        return {
            name
            for name in (r.name for r in self.regions)
            if (name in finished.regions if name in old else finished.inputs.get(name) == self.inputs[name])
            and self._is_summarised(name, finished)
        }

    def find_todo(self, begun: Records, finished: Records, kept: Collection[str]) -> list[Region]:
        """Return the regions that are still to be written.

        Parameters
        ----------
        begun : Records
            The unfinished store.
        finished : Records
            The finished store that it will replace.
        kept : collection of str
            Regions of `finished` that can stay, as `find_kept` gives them; they are done if they are in `begun` with the same checksums.
        """

        def is_done(name: str) -> bool:
            if name not in begun.regions or not self._is_summarised(name, begun):
                return False
            adopted = name in kept and begun.regions[name] == finished.regions[name]
            return adopted or begun.inputs[name] == self.inputs[name]

        return [r for r in self.regions if not is_done(r.name)]

    def _is_summarised(self, name: str, records: Records) -> bool:
        return self.summarise is None or name in records.summaries


def regions_of(template: xr.Dataset, encoding: Mapping[str, Encoding], names: Iterable[str]) -> list[Region]:
    """Return all regions of the variables `names` of a store."""
    names = list(names)
    dims = {n: tuple(map(str, template[n].dims)) for n in names}
    return plan_regions(dims, {n: template[n].shape for n in names}, shards_of(encoding, names))


def shards_of(encoding: Mapping[str, Encoding], names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return the part of each variable that is one file: a shard, or a chunk if there are no shards."""
    return {n: encoding[n].get("shards", encoding[n]["chunks"]) for n in names}


def write_store(
    plan: StorePlan,
    path: Path,
    *,
    resume: bool = True,
    old: Collection[str] = (),
    finish: Callable[[Path, Mapping[str, JsonObject]], None] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a store region by region, beside `path` first, and put it in its place when it is complete. Callers hold `only_writer`.

    Parameters
    ----------
    plan : StorePlan
        The content; regions that an interrupted or an earlier write made from the same are kept.
    path : Path
        A new folder, or one that contains a store.
    resume : bool
        False keeps nothing but `old`.
    old : collection of str
        Regions of the finished store that are kept whatever their digests are.
    finish : callable, optional
        Called with the store's folder and the summaries of all regions when these are written, to add what is known only then.
    progress : callable, optional
        Called with (regions done, regions in all).

    Raises
    ------
    SmgeoError
        If the disk is full.
    """
    part = path.with_name(path.name + ".part")
    finished = (recover_ledger(path) if path.exists() and (resume or old) else None) or Records()
    with explain_full_disk(path):
        resumed = resume_store(part, plan.layout) if resume else None
        begun = resumed or _start_store(plan, part)
        kept = plan.find_kept(finished, old) if _same_encoding(path, part, plan.names) else set()
        if resumed is None and kept:
            adopt(path, part, [r for r in plan.regions if r.name in kept], begun)
            write_ledger(part, begun)
        todo = plan.find_todo(begun, finished, kept)
        done = len(plan.regions) - len(todo)
        write_regions(plan.jobs, todo, part, plan.inputs, summarise=plan.summarise, progress=progress, done=done)
        if finish is not None:
            summaries = (read_ledger(part) or Records()).summaries
            finish(part, {r.name: summaries[r.name] for r in plan.regions if r.name in summaries})
        seal(part)
        replace_folder(part, path, *MARKERS)
    return path


def _start_store(plan: StorePlan, part: Path) -> Records:
    """Make an unfinished store with all metadata and coordinates in place, and no region."""
    # The ledger first: after a removal that is killed half-way, no remainder may count as finished.
    shutil.rmtree(part / LEDGER, ignore_errors=True)
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    ds, shards = plan.template, shards_of(plan.encoding, plan.names)
    empty = {n: ds[n].copy(data=da.zeros(ds[n].shape, chunks=shards[n], dtype=ds[n].dtype)) for n in plan.names}
    encoding = {n: {"compressors": CODECS, **plan.encoding.get(str(n), {})} for n in ds.variables}
    ds.assign(empty).to_zarr(part, mode="w", zarr_format=3, consolidated=False, encoding=encoding, compute=False)
    write_ledger(part, Records(plan.layout))
    return seal(part)


def _same_encoding(old: Path, new: Path, names: Iterable[str]) -> bool:
    """Return True if a shard of one store is one of the other: the same chunks, data type, fill value and codecs."""
    keys = ("data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")
    try:
        a, b = ({n: load_json(s / n / "zarr.json", "") for n in names} for s in (old, new))
    except (OSError, ValueError):  # there is no old one, it lacks a variable, or its metadata are damaged
        return False
    return all(a[n].get(key) == b[n].get(key) for n in names for key in keys)
