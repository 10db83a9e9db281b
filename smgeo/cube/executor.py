"""Computing and writing regions: one after the other, on threads, or on Dask workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

import dask
import dask.array as da
import numpy as np
from dask.local import get_sync
from dask.optimization import cull
from dask.system import CPU_COUNT

from smgeo.cube.dask_client import INTERNET, KEPT, DaskClient, DaskFuture, Workers, active_client
from smgeo.cube.ledger import append_line
from smgeo.cube.regions import Progress, Region, shard_file
from smgeo.cube.shards import open_array, write_shard
from smgeo.cube.tally import counting_dropped
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject, explain_full_disk, hash_file

if TYPE_CHECKING:
    from dask.typing import Key

P = ParamSpec("P")
T = TypeVar("T")

# Number of workers of a cluster for which regions are submitted at least.
_BEFORE_WORKERS = 4
# Seconds between two looks at those who compute.
_LOOK_S = 5.0

Values = Mapping[str, np.ndarray]
# Describes the values of a region for the ledger; sent to where they are computed.
Summarise = Callable[[Values], JsonObject]


class Job(Protocol):
    """The computation of one region; sent to where it is computed."""

    def compute(self) -> dict[str, np.ndarray]:
        """Return the values of each variable of the region."""
        ...


def write_regions(
    jobs: Callable[[Region], Job],
    regions: Sequence[Region],
    store: Path,
    inputs: Mapping[str, str],
    *,
    summarise: Summarise | None = None,
    progress: Progress | None = None,
    done: int = 0,
) -> None:
    """Compute and write regions, on Dask workers if a client is active, otherwise on threads.

    Parameters
    ----------
    jobs : callable
        Gives the job of a region, called when its turn comes; `jobs_of` makes jobs of arrays.
    regions : sequence of Region
        The regions to write. A region is one task, so memory is bounded by
        workers x a shard of every variable of a region and its intermediate results.
    store : Path
        A Zarr v3 store with all metadata in place.
    inputs : mapping
        Region -> digest of what it is made from, for the ledger.
    summarise : callable, optional
        Gives a summary of a region's values for the ledger.
    progress : callable, optional
        Called with (regions done, regions in all).
    done : int
        Number of regions that were done before.

    Raises
    ------
    SmgeoError
        If the disk is full, or a region ends every worker that computes it; finished regions stay.
    """
    total = done + len(regions)
    if progress:
        progress(done, total)
    with (
        explain_full_disk(store, lambda: f"{done} of {total} regions are written and kept; "),
        _executor(store) as (executor, workers, look),
    ):
        waiting = iter(regions)
        running: dict[Future[None], Region] = {}
        try:
            while True:
                for region in itertools.islice(waiting, max(2 * workers() - len(running), 0)):
                    arguments = (jobs(region), region, str(store), inputs[region.name], summarise)
                    running[executor.submit(_write_region, *arguments)] = region
                if not running:
                    return
                for future in _wait_for_one(running, look):
                    with _explain_lost_workers(store, running.pop(future)):
                        future.result()
                    done += 1
                    if progress:
                        progress(done, total)
        finally:
            for future in running:
                future.cancel()


@contextmanager
def _explain_lost_workers(store: Path, region: Region) -> Iterator[None]:
    """Name the region that Dask gave up because every worker that computed it died.

    Raises
    ------
    SmgeoError
        In place of Dask's own error, which names a key.
    """
    try:
        yield
    except (Exception, CancelledError) as error:
        if isinstance(error, CancelledError):
            raise SmgeoError(f"{store}: Dask's scheduler or all its workers are gone; {KEPT}") from None
        name = type(error).__name__  # of distributed, which may not be installed
        if name in ("NoWorkerError", "NoValidWorkerError"):
            raise SmgeoError(
                f"{store}: Dask's scheduler waited for a worker in vain: {error}; start workers; {KEPT}"
            ) from None
        if name != "KilledWorker":
            raise
        place = ", ".join(f"{d} {s.start} to {s.stop - 1}" for d, s in zip(region.dims, region.slices, strict=True))
        tries = dask.config.get("distributed.scheduler.allowed-failures", 3) + 1
        raise SmgeoError(
            f"{store}: {tries} workers died one after the other at region {region.name} ({', '.join(region.variables)}; positions {place}); "
            f"give workers more memory, or look into their logs; {KEPT}"
        ) from None


def _graph(arrays: Mapping[str, np.ndarray | da.Array]) -> dict[Key, object]:
    """Return all tasks of all arrays, not optimised: Dask's optimisation would copy what several variables share into each."""
    together: dict[Key, object] = {}
    for array in arrays.values():
        if isinstance(array, da.Array):
            together.update(array.__dask_graph__())
    return together


def jobs_of(arrays: Mapping[str, np.ndarray | da.Array]) -> Callable[[Region], Job]:
    """Return the function that gives the job of a region: variable -> NumPy array, or Dask array whose chunks are the shards."""
    graph = _graph(arrays)

    def job(region: Region) -> Job:
        sources: dict[str, np.ndarray | Key] = {}
        for name in region.variables:
            array = arrays[name]
            sources[name] = (array.name, *region.index) if isinstance(array, da.Array) else array[region.slices]
        keys = [s for s in sources.values() if isinstance(s, tuple)]
        return _Part(cull(graph, keys)[0] if keys else {}, sources)

    return job


@dataclass(frozen=True, eq=False)
class _Part:
    """The tasks of a region, and of each variable its key among them or its values.

    A type of its own, so that distributed does not take the graph, given as an argument, for tasks of the cluster.
    """

    graph: dict[Key, object]
    sources: dict[str, np.ndarray | Key]

    def compute(self) -> dict[str, np.ndarray]:
        """Return the values of each variable, computed by the serial scheduler."""
        keys = [s for s in self.sources.values() if isinstance(s, tuple)]
        computed = dict(zip(keys, get_sync(self.graph, keys), strict=True)) if keys else {}
        return {n: np.asarray(computed[s] if isinstance(s, tuple) else s) for n, s in self.sources.items()}


def _write_region(job: Job, region: Region, store: str, inputs: str, summarise: Summarise | None) -> None:
    """Compute one region, write its shards, then record them."""
    with counting_dropped() as dropped:
        computed = job.compute()
    for name, values in computed.items():
        array = open_array(Path(store) / name, "r+")
        write_shard(array, region.index, values, Path(store) / shard_file(name, region.index))
    files = {f: hash_file(Path(store) / f) for f in (shard_file(n, region.index) for n in region.variables)}
    append_line(Path(store), region.name, inputs, files, summarise(computed) if summarise else None, dropped)


class _Serial(Executor):
    """Runs what is submitted at once: the specification of the others."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class _OnWorkers(Executor):
    """Runs what is submitted on the workers of a client.

    Dask's own executor takes a result that is lost with its worker, in the moment between the two, for an error; here it is computed again.
    """

    def __init__(self, client: DaskClient, **options: object) -> None:
        self._client, self._options = client, options

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        made: Future[T] = Future()
        computed = self._client.submit(fn, *args, pure=False, **self._options, **kwargs)
        made.add_done_callback(lambda done: computed.cancel() if done.cancelled() else None)
        computed.add_done_callback(lambda done: _pass_on(done, made))
        return made


def _pass_on(computed: DaskFuture, made: Future[T]) -> None:
    """Give the outcome of a future of Dask to another one, once it is there."""
    try:
        result = computed.result()
    except CancelledError:
        made.cancel()
        made.set_running_or_notify_cancel()
    except BaseException as error:
        if not made.cancelled():
            made.set_exception(error)
    else:
        if not made.cancelled():
            made.set_result(result)


@contextmanager
def _executor(store: Path) -> Iterator[tuple[Executor, Callable[[], int], Callable[[], None]]]:
    """Give the executor of regions: the active Dask client, otherwise as Dask's config says.

    Beside it its number of workers now, and a function to call while it is waited for, which raises an error if
    nobody is left to wait for. A cluster that grows with its work needs to see some before it has workers. If some of the client's
    workers declare the resource `internet`, regions go to them only.
    """
    client = active_client()
    if client is not None:
        crew = Workers(client, store)
        resources = {"resources": {INTERNET: 1}} if crew.online_only else {}
        yield _OnWorkers(client, **resources), lambda: max(_BEFORE_WORKERS, crew.count()), crew.look
    elif dask.config.get("scheduler", None) in ("sync", "synchronous", "single-threaded"):
        yield _Serial(), lambda: 1, lambda: None
    else:
        workers = int(dask.config.get("num_workers", None) or CPU_COUNT)
        with ThreadPoolExecutor(workers) as threads:
            yield threads, lambda: workers, lambda: None


def _wait_for_one(running: Iterable[Future[None]], look: Callable[[], None]) -> set[Future[None]]:
    """Return the futures that are done, at least one; `look` is called every few seconds until then."""
    while not (done := wait(running, _LOOK_S, FIRST_COMPLETED).done):
        look()
    return done
