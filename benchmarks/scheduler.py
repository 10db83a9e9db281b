"""How many nodes one Dask scheduler feeds: its time per region, simulated on this machine, against the time a region takes.

Run: python benchmarks/scheduler.py [REGIONS ...]     (10000 and 100000 by default)
Simulated, and said so: a cube of so many regions is written whose regions are of one value, so that next to nothing but the handing-out
of tasks is left. Its graph is as a cube's from scenes: for each region of two variables one shared task that reads, and one task a
variable. The scheduler is a process of its own (`dask scheduler`), with two workers of one thread; its CPU time over the first 10,000
regions (of any cube: they are given out a few at a time), divided by them, is its time per region. The graph's size is that of
what is sent for a region, pickled, and of the whole graph in this process. Then a region of smgeo's own size (30 days x 256 x 256
pixels of two bands, from simulated scenes as GeoTIFFs) is written by one thread. Threads that one scheduler feeds = seconds of a
region / seconds of the scheduler per region; nodes = threads / 48.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import psutil
import xarray as xr
from assembly import by_smgeo, write_scenes
from dask.highlevelgraph import HighLevelGraph
from distributed import Client

from smgeo.cube.chunks import GRID_SHARD
from smgeo.cube.executor import _graph, jobs_of
from smgeo.cube.regions import plan_regions
from smgeo.cube.writing import write_cube

VARIABLES, CORES, MOST = 2, 48, 10_000


def read_all(i: int) -> np.ndarray:
    return np.full((VARIABLES, 1, 1), i, dtype="float32")


def take(block: np.ndarray, variable: int) -> np.ndarray:
    return block[variable]


def tiny_cube(regions: int) -> xr.Dataset:
    """A region for each station, of one value of each variable."""
    read = {("read", i, 0): (read_all, i) for i in range(regions)}
    source = HighLevelGraph.from_collections("read", read, dependencies=[])
    variables = {}
    for v in range(VARIABLES):
        name = f"take-{v}"
        tasks = {(name, i, 0): (take, ("read", i, 0), v) for i in range(regions)}
        graph = HighLevelGraph({**source.layers, name: tasks}, {"read": set(), name: {"read"}})  # type: ignore[dict-item]
        array = da.Array(graph, name, ((1,) * regions, (1,)), dtype="float32", meta=np.empty((0, 0), "float32"))
        variables[f"v{v}"] = (("station", "time"), array, {"units": "1", "kind": "dynamic"})
    stations = np.array([f"N/{i}" for i in range(regions)], dtype=object)
    return xr.Dataset(variables, {"station": stations, "time": [np.datetime64("2020-01-01", "ns")]})


class EnoughError(Exception):
    """So many regions were measured."""


def stop_at_most(done: int, total: int) -> None:
    if done >= MOST:
        raise EnoughError


def scheduler_cost(regions: int, folder: Path) -> float:
    file = folder / f"scheduler-{regions}.json"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--scheduler-file",
        str(file),
        "--port",
        "0",
        "--no-dashboard",
    ]
    scheduler = subprocess.Popen(command, **quiet)
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        "--scheduler-file",
        str(file),
        "--nthreads",
        "1",
        "--no-dashboard",
    ]
    workers = [subprocess.Popen(worker, **quiet) for _ in range(2)]
    try:
        while not file.exists():
            time.sleep(0.1)
        cube = tiny_cube(regions)
        store = folder / f"tiny-{regions}.zarr"
        arrays = {n: cube[n].data for n in cube.data_vars}
        dims, shapes = dict.fromkeys(arrays, ("station", "time")), {n: a.shape for n, a in arrays.items()}
        plan = plan_regions(dims, shapes, dict.fromkeys(arrays, (1, 1)))
        graph = _graph(arrays)
        size = len(pickle.dumps(jobs_of(arrays)(plan[0])))
        with Client(scheduler_file=str(file), set_as_default=False) as client, client.as_current():
            client.wait_for_workers(2)
            process = psutil.Process(scheduler.pid)
            before, begin = sum(process.cpu_times()[:2]), time.monotonic()
            with suppress(EnoughError):
                write_cube(cube, store, chunks={"station": 1, "time": 1}, progress=stop_at_most)
            seconds, cpu = time.monotonic() - begin, sum(process.cpu_times()[:2]) - before
            memory = process.memory_info().rss
        measured = min(regions, MOST)
        print(
            f"{regions:9,} regions: scheduler {1e3 * cpu / measured:6.2f} ms a region, {memory / 2**20:5.0f} MB; graph {len(graph):9,} tasks, "
            f"{size:5,} bytes sent a region; all {seconds:6.0f} s",
            flush=True,
        )
        return cpu / measured
    finally:
        for started in (*workers, scheduler):
            started.terminate()
            started.wait()


def region_seconds(folder: Path) -> float:
    """One region of smgeo's own size, its two bands from thirty days of scenes, by one thread; the best of three."""
    folder.mkdir()
    box, days = write_scenes(folder, GRID_SHARD["y"], GRID_SHARD["time"], two_zones=False)
    best = float("inf")
    with dask.config.set(scheduler="synchronous"):
        for turn in range(3):
            begin = time.monotonic()
            by_smgeo(folder, box, days, folder / f"{turn}.zarr")
            best = min(best, time.monotonic() - begin)
    return best


def main(counts: list[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="smgeo-bench-") as name:
        region = region_seconds(Path(name) / "scenes")
        print(
            f"a region of {' x '.join(map(str, GRID_SHARD.values()))}, two bands from scenes, one thread: {region:.2f} s",
            flush=True,
        )
        for count in counts:
            cost = scheduler_cost(count, Path(name))
            print(
                f"{'':9} so one scheduler feeds {region / cost:,.0f} threads, {region / cost / CORES:,.1f} nodes of {CORES} cores",
                flush=True,
            )


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]] or [10_000, 100_000])
