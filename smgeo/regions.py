"""Writing a Zarr store region by region, with a ledger: what is done stays done, whoever is killed.

A region is one shard-aligned block of all variables that share its dims. One task computes it and writes its shards,
each complete or not at all, then adds a line with their checksums to the ledger. The plan and the serial executor say
what happens; threads and Dask workers do the same.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import dask
import dask.array as da
import numpy as np
from dask.optimization import cull
from dask.system import CPU_COUNT

from smgeo.errors import SmgeoError
from smgeo.shards import open_array, write_shard
from smgeo.threads import map_threads

# A Zarr group without members, so that readers of the store see nothing unknown in it.
LEDGER = "smgeo_ledger"

# Resource of Dask workers that reach the internet, where others of the cluster do not (`dask worker --resources
# "internet=1"`, one for each thread): cubes are built on these, since their sources may be remote.
INTERNET = "internet"
# Regions are given out for so many workers of a cluster at least.
_BEFORE_WORKERS = 4

Files = dict[str, str | None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Region:
    """One block of the variables that share `dims`; `index` counts shards along each dim."""

    dims: tuple[str, ...]
    index: tuple[int, ...]
    slices: tuple[slice, ...]
    variables: tuple[str, ...]

    @property
    def name(self) -> str:
        """How the ledger and messages call it: `time.y.x/0.1.0`."""
        return f"{'.'.join(self.dims)}/{'.'.join(map(str, self.index))}"


def plan_regions(
    dims: Mapping[str, tuple[str, ...]], shapes: Mapping[str, tuple[int, ...]], shards: Mapping[str, tuple[int, ...]]
) -> list[Region]:
    """All regions of a store, in the order in which they are written: static layers first, then along time last.

    Parameters
    ----------
    dims, shapes, shards : mapping
        Dims, sizes and shard sizes of each variable.

    Examples
    --------
    >>> [r.name for r in plan_regions({"a": ("y", "x")}, {"a": (3, 4)}, {"a": (2, 4)})]
    ['y.x/0.0', 'y.x/1.0']
    """
    groups: dict[tuple[tuple[str, ...], tuple[int, ...]], list[str]] = {}
    for name in dims:
        groups.setdefault((dims[name], shards[name]), []).append(name)
    regions = []
    for (where, shard), names in sorted(groups.items(), key=lambda g: len(g[0][0])):
        shape = shapes[names[0]]
        counts = [range(-(-n // s)) for n, s in zip(shape, shard, strict=True)]
        order = _by_squares if where[-2:] == ("y", "x") else None
        for index in sorted(itertools.product(*counts), key=order):
            slices = tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(index, shard, shape, strict=True))
            regions.append(Region(where, index, slices, tuple(names)))
    return regions


def _by_squares(index: tuple[int, ...]) -> tuple[int, ...]:
    """Order of shards of a grid in squares of 2 x 2, since those share the tiles of files, which then are still in memory.

    >>> sorted([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)], key=_by_squares)
    [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2)]
    """
    *lead, y, x = index
    return (*lead, y // 2, x // 2, y % 2, x % 2)


def shard_file(variable: str, index: Iterable[int]) -> str:
    """Where Zarr v3 keeps a shard, relative to the store.

    >>> shard_file("sm", (0, 2))
    'sm/c/0/2'
    """
    return "/".join([variable, "c", *map(str, index)])


def hash_file(path: Path) -> str | None:
    """SHA-256 of a file's content; None where there is no file (Zarr keeps no shard that is all fill value)."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        return None


@dataclass
class Records:
    """What a ledger says.

    Attributes
    ----------
    layout : str
        Digest of the store's metadata: shapes, chunks, coordinates, attributes.
    regions : dict
        Checksums of each finished region's files.
    inputs : dict
        Digest of what each finished region is made from; a region is kept only where it is the same.
    metadata : dict
        Checksums of what is no region.
    """

    layout: str = ""
    regions: dict[str, Files] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    metadata: Files = field(default_factory=dict)


def read_ledger(store: Path) -> Records | None:
    """The ledger of a store, finished or not; None where it has none.

    A line cut short or spoilt by a crash is left out: that region counts as not done.
    """
    folder = store / LEDGER
    try:
        attributes = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError):
        return None
    records = Records(
        *(attributes.get(k, {} if k != "layout" else "") for k in ("layout", "regions", "inputs", "metadata"))
    )
    for lines in sorted(folder.glob("*.jsonl")):
        for line in lines.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            records.regions[entry["region"]] = entry["files"]
            records.inputs[entry["region"]] = entry["inputs"]
    return records


def write_ledger(store: Path, records: Records) -> None:
    """The whole ledger as one file, beside first and renamed; the workers' own lines are then removed."""
    folder = store / LEDGER
    folder.mkdir(parents=True, exist_ok=True)
    value = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "algorithm": "sha256",
            "layout": records.layout,
            "regions": records.regions,
            "inputs": records.inputs,
            "metadata": records.metadata,
        },
    }
    part = folder / "zarr.json.part"
    part.write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
    os.replace(part, folder / "zarr.json")
    for lines in folder.glob("*.jsonl"):
        lines.unlink()


def _append_line(store: Path, region: str, inputs: str, files: Files) -> None:
    """One line in the file of this worker thread, so that no two writers share a file."""
    name = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.jsonl"
    with (store / LEDGER / name).open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({"region": region, "inputs": inputs, "files": files}) + "\n")


def seal(store: Path) -> Records:
    """Record the checksums of what is no region: Zarr's metadata and the coordinates; killed writers' leavings go."""
    records = read_ledger(store) or Records()
    for file in store.rglob("*.part"):
        file.unlink(missing_ok=True)
    known = {f for files in records.regions.values() for f in files}
    records.metadata = {
        name: hash_file(file)
        for file in sorted(store.rglob("*"))
        if file.is_file() and file.parent.name != LEDGER and (name := file.relative_to(store).as_posix()) not in known
    }
    write_ledger(store, records)
    return records


def find_damage(store: Path, regions: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Files that are not as the ledger says, by region (`metadata` for what is none); reads every byte.

    Raises
    ------
    SmgeoError
        If the store has no ledger.
    """
    records = read_ledger(store)
    if records is None:
        raise SmgeoError(
            f"{store} has no ledger of checksums ({LEDGER}/zarr.json), so damage can't be found; write it again"
        )
    parts = {**records.regions, "metadata": records.metadata}
    return _damaged(store, parts if regions is None else {r: parts.get(r, {}) for r in regions})


def _damaged(store: Path, parts: Mapping[str, Files]) -> dict[str, list[str]]:
    """Files that are not as their checksums say, by part; hashed on threads, which share no lock in it."""
    found = map_threads(
        lambda files: [f for f, known in files.items() if hash_file(store / f) != known], parts.values()
    )
    return {part: files for part, files in zip(parts, found, strict=True) if files}


def resume_store(store: Path, layout: str) -> Records | None:
    """What an interrupted write of the same layout finished and is undamaged; None where it can't go on.

    The ledger is written anew, so that lines of what is written again are not found beside those to come.
    """
    records = read_ledger(store)
    if records is None or records.layout != layout:
        return None
    damage = find_damage(store)
    if "metadata" in damage:
        return None
    for region in damage:
        del records.regions[region], records.inputs[region]
    write_ledger(store, records)
    return records


def adopt(old: Path, new: Path, regions: Iterable[Region], records: Records) -> None:
    """Link (or copy) those finished regions of `old` into `new` whose files are undamaged, and record them."""
    known = read_ledger(old)
    if known is None:
        return
    wanted = {r.name: known.regions[r.name] for r in regions if r.name in known.regions}
    damage = _damaged(old, wanted)
    for name, files in wanted.items():
        if name in damage:
            continue
        for file, checksum in files.items():
            if checksum is None:
                continue
            target = new / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(old / file, target)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(old / file, target)
        records.regions[name] = files
        records.inputs[name] = known.inputs.get(name, "")


class Job(Protocol):
    """What computes one region; sent to where it is computed."""

    def compute(self) -> dict[str, np.ndarray]:
        """Values of each variable of the region."""
        ...


def write_regions(
    jobs: Callable[[Region], Job],
    regions: Sequence[Region],
    store: Path,
    inputs: Mapping[str, str],
    *,
    progress: Progress | None = None,
    done: int = 0,
) -> None:
    """Compute and write regions, on Dask workers where a client is active, else on threads.

    Parameters
    ----------
    jobs : callable
        What computes a region, made when its turn comes; `jobs_of` makes them of arrays.
    regions : sequence of Region
        What is to be written; a region is one task whatever it takes to compute it, so memory is bounded by
        workers x a shard of every variable of a region and its intermediate results.
    store : Path
        A Zarr v3 store with all metadata in place.
    inputs : mapping
        Region -> digest of what it is made from, for the ledger.
    progress : callable, optional
        Called with (regions done, regions in all).
    done : int
        Regions that were done before.

    Raises
    ------
    SmgeoError
        If the disk is full, or a region ends every worker that computes it; what is finished stays.
    """
    total = done + len(regions)
    if progress:
        progress(done, total)
    with (
        say_full_disk(store, lambda: f"{done} of {total} regions are written and kept; "),
        _executor() as (executor, workers),
    ):
        waiting = iter(regions)
        running: dict[Future[None], Region] = {}
        try:
            while True:
                for region in itertools.islice(waiting, max(2 * workers() - len(running), 0)):
                    future = executor.submit(_write_region, jobs(region), region, str(store), inputs[region.name])
                    running[future] = region
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    with _say_lost_workers(store, running.pop(future)):
                        future.result()
                    done += 1
                    if progress:
                        progress(done, total)
        finally:
            for future in running:
                future.cancel()


@contextmanager
def _say_lost_workers(store: Path, region: Region) -> Iterator[None]:
    """Name the region that Dask gave up, because every worker that computed it died.

    Raises
    ------
    SmgeoError
        In place of Dask's own error, which names a key.
    """
    try:
        yield
    except (Exception, CancelledError) as error:
        if isinstance(error, CancelledError):
            raise SmgeoError(
                f"{store}: Dask's scheduler or all its workers are gone; what is written is kept, and the same command goes on from there"
            ) from None
        if type(error).__name__ != "KilledWorker":  # of distributed, which need not be there
            raise
        place = ", ".join(f"{d} {s.start} to {s.stop - 1}" for d, s in zip(region.dims, region.slices, strict=True))
        tries = dask.config.get("distributed.scheduler.allowed-failures", 3) + 1
        raise SmgeoError(
            f"{store}: {tries} workers died one after the other at region {region.name} ({', '.join(region.variables)}; positions {place}); "
            "give workers more memory, or look into their logs; what is written is kept, and the same command goes on from there"
        ) from None


@contextmanager
def say_full_disk(store: Path, told: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turn the system's word of a full disk (or quota) into one that says what to do; `told`: what is kept.

    Raises
    ------
    SmgeoError
        If the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SmgeoError(
            f"no space left on the disk of {store}: {told()}make space and run the same command again, which goes on from "
            "there"
        ) from None


def _graph(arrays: Mapping[str, Any]) -> dict[Any, Any]:
    """All tasks of all arrays, as they are: Dask's optimisation would copy what several variables share into each."""
    together: dict[Any, Any] = {}
    for array in arrays.values():
        if isinstance(array, da.Array):
            together.update(array.__dask_graph__())
    return together


def jobs_of(arrays: Mapping[str, Any]) -> Callable[[Region], Job]:
    """Jobs of a region's part of arrays: variable -> NumPy array, or Dask array whose chunks are the shards."""
    graph = _graph(arrays)

    def job(region: Region) -> Job:
        sources = {}
        for name in region.variables:
            array = arrays[name]
            sources[name] = (array.name, *region.index) if isinstance(array, da.Array) else array[region.slices]
        keys = [s for s in sources.values() if isinstance(s, tuple)]
        return _Part(cull(graph, keys)[0] if keys else {}, sources)

    return job


@dataclass(frozen=True, eq=False)
class _Part:
    """What a region is computed from: its part of the graph, and for each variable its key in it or its values.

    A type of its own, so that distributed does not take the graph, given as an argument, for tasks of the cluster.
    """

    graph: dict[Any, Any]
    sources: dict[str, Any]

    def compute(self) -> dict[str, np.ndarray]:
        """Values of each variable, by the serial scheduler."""
        keys = [s for s in self.sources.values() if isinstance(s, tuple)]
        computed = dict(zip(keys, dask.get(self.graph, keys), strict=True)) if keys else {}
        return {n: np.asarray(computed[s] if isinstance(s, tuple) else s) for n, s in self.sources.items()}


def _write_region(job: Job, region: Region, store: str, inputs: str) -> None:
    """Compute one region, write its shards, then record them."""
    for name, values in job.compute().items():
        array = open_array(Path(store) / name, "r+")
        write_shard(array, region.index, values, Path(store) / shard_file(name, region.index))
    files = {f: hash_file(Path(store) / f) for f in (shard_file(n, region.index) for n in region.variables)}
    _append_line(Path(store), region.name, inputs, files)


class _Serial(Executor):
    """Runs what is submitted at once: the specification of the others."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@contextmanager
def _executor() -> Iterator[tuple[Executor, Callable[[], int]]]:
    """Where regions are computed, and by how many workers now: the active Dask client, else as Dask's config says.

    A cluster that grows with its work needs to see some before it has workers. Where some of the client's workers declare the
    resource `internet`, regions go to them alone.
    """
    client = active_client()
    if client is not None:
        known = client.scheduler_info(n_workers=-1)["workers"].values()
        online = [w["nthreads"] for w in known if w.get("resources", {}).get(INTERNET, 0) > 0]
        resources = {"resources": {INTERNET: 1}} if online else {}
        with client.get_executor(pure=False, **resources) as executor:
            yield executor, _now_and_then(lambda: max(_BEFORE_WORKERS, sum(online or client.nthreads().values())))
    elif dask.config.get("scheduler", None) in ("sync", "synchronous", "single-threaded"):
        yield _Serial(), lambda: 1
    else:
        workers = int(dask.config.get("num_workers", None) or CPU_COUNT)
        with ThreadPoolExecutor(workers) as threads:
            yield threads, lambda: workers


def _now_and_then(count: Callable[[], int]) -> Callable[[], int]:
    """The count as it was within the last second: asking a scheduler costs it as much as a task."""
    asked, value = -math.inf, 0

    def recent() -> int:
        nonlocal asked, value
        if time.monotonic() - asked > 1:
            asked, value = time.monotonic(), count()
        return value

    return recent


def active_client() -> Any:
    """The active Dask client, or None."""
    if "distributed" not in sys.modules:  # nobody made a client, and importing it takes a second
        return None
    from distributed import get_client

    try:
        return get_client()
    except ValueError:
        return None
