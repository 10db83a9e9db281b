"""Computing and writing regions: one after the other, on threads, or on Dask workers."""

from __future__ import annotations

import errno
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dask
import dask.array as da
import numpy as np
from dask.optimization import cull
from dask.system import CPU_COUNT

from smgeo.cube.ledger import append_line
from smgeo.cube.regions import Progress, Region, shard_file
from smgeo.cube.shards import open_array, write_shard
from smgeo.errors import SmgeoError
from smgeo.files import hash_file

# Resource of Dask workers that reach the internet, where others of the cluster do not (`dask worker --resources
# "internet=1"`, one for each thread): cubes are built on these, since their sources may be remote.
INTERNET = "internet"


# Regions are given out for so many workers of a cluster at least.
_BEFORE_WORKERS = 4


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
    append_line(Path(store), region.name, inputs, files)


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
