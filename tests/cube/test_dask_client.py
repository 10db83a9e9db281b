"""The wait for Dask's workers has a limit, whatever is killed or frozen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smgeo.cube import dask_client, executor
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError, SmgeoWarning

pytest.importorskip("distributed")


@pytest.fixture
def start(tmp_path, monkeypatch):
    """(module of distributed, options) -> a running process of it; the limits are seconds."""
    limits = {"_NO_WORKERS_S": 4.0, "_SAY_S": 1.0, "_ANSWER_S": 4.0}
    for name, value in limits.items():
        monkeypatch.setattr(dask_client, name, value)
    monkeypatch.setattr(executor, "_LOOK_S", 0.5)
    with ExitStack() as stack:

        def run(module, *options):
            file = ["--scheduler-file", str(tmp_path / "scheduler.json"), "--no-dashboard"]
            command = [sys.executable, "-m", f"distributed.cli.dask_{module}", *file, *options]
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            stack.callback(process.kill)
            return process

        yield run


@pytest.fixture
def scheduler(start, tmp_path):
    """A scheduler, and its client."""
    from distributed import Client

    process = start("scheduler", "--host", "127.0.0.1", "--port", "0")
    while not (tmp_path / "scheduler.json").exists():
        time.sleep(0.1)
    client = Client(scheduler_file=str(tmp_path / "scheduler.json"))
    yield process, client
    process.kill()
    client.close(timeout=1)


def _begun(folder: str, block: np.ndarray) -> np.ndarray:
    """Note that the block has begun, then take some time."""
    Path(folder, "begun").touch()
    time.sleep(1)
    return block


def slow_cube(folder: Path) -> xr.Dataset:
    values = da.from_array(np.arange(4, dtype="float32").reshape(4, 1), chunks=1)
    slow = da.map_blocks(lambda b: _begun(str(folder), b), values, dtype="float32", meta=np.empty((0, 0), "float32"))
    coords = {"station": [f"N/{i}" for i in range(4)], "time": pd.date_range("2020-01-01", periods=1)}
    return xr.Dataset({"a": (("station", "time"), slow, {"units": "1"})}, coords)


def write(folder: Path) -> None:
    write_cube(slow_cube(folder), folder / "a.zarr", chunks={"station": 1, "time": 1}, token="a")


def worker(start, client, tmp_path, *options):
    process = start("worker", "--no-nanny", "--nthreads", "1", "--local-directory", str(tmp_path), *options)
    client.wait_for_workers(1, timeout=60)
    return process


@pytest.mark.filterwarnings("ignore::smgeo.errors.SmgeoWarning")
def test_a_worker_that_is_gone_is_not_waited_for_without_a_limit(start, scheduler, tmp_path):
    killed = worker(start, scheduler[1], tmp_path)
    watch = executor._wait_for_one

    def kill(running, look):
        while not (tmp_path / "begun").exists():
            time.sleep(0.1)
        killed.kill()
        return watch(running, look)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SmgeoError, match="has had no worker for 4 s; start"):
        patch.setattr(executor, "_wait_for_one", kill)
        write(tmp_path)
    worker(start, scheduler[1], tmp_path)
    write(tmp_path)
    assert open_cube(tmp_path / "a.zarr")["a"].values.ravel().tolist() == [0, 1, 2, 3]


def test_no_worker_is_said_before_it_is_an_error(scheduler, tmp_path):
    with (
        pytest.warns(SmgeoWarning, match="Dask's scheduler has no worker; this ends after 2 s without one"),
        dask.config.set({"distributed.scheduler.no-workers-timeout": "2s"}),
        pytest.raises(
            SmgeoError, match="has had no worker for 2 s; .*NO_WORKERS_TIMEOUT=2h; finished regions are kept"
        ),
    ):
        write(tmp_path)


@pytest.mark.filterwarnings("ignore::smgeo.errors.SmgeoWarning")
def test_workers_that_reach_the_internet_are_not_waited_for_when_only_others_are_left(start, scheduler, tmp_path):
    online = worker(start, scheduler[1], tmp_path, "--resources", "internet=1")
    worker(start, scheduler[1], tmp_path)
    watch = executor._wait_for_one

    def kill(running, look):
        online.kill()
        return watch(running, look)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SmgeoError, match="no worker with the resource internet"):
        patch.setattr(executor, "_wait_for_one", kill)
        write(tmp_path)


def test_a_scheduler_that_does_not_answer_is_not_waited_for(start, scheduler, tmp_path):
    watch = executor._wait_for_one
    worker(start, scheduler[1], tmp_path)

    def freeze(running, look):
        scheduler[0].send_signal(signal.SIGSTOP)
        return watch(running, look)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SmgeoError, match="has not answered for 4 s; look into"):
        patch.setattr(executor, "_wait_for_one", freeze)
        write(tmp_path)


def _mark(folder: str) -> int:
    """Return the process that computed, and leave a file of its name."""
    Path(folder, str(os.getpid())).touch()
    return os.getpid()


def test_a_result_that_is_lost_with_its_worker_is_computed_again(start, scheduler, tmp_path):
    """The worker ends after it has computed, and before its result is asked for."""
    _, client = scheduler
    marks = tmp_path / "marks"
    marks.mkdir()
    first = start("worker", "--no-nanny", "--nthreads", "1")
    client.wait_for_workers(1)
    held = threading.Event()
    client.submit(int, pure=False).add_done_callback(lambda _: held.wait(60))  # all callbacks share one thread
    made = executor._OnWorkers(client).submit(_mark, str(marks))
    while not list(marks.iterdir()):
        time.sleep(0.05)
    time.sleep(1)  # the scheduler knows that it is done
    first.kill()
    while client.scheduler_info()["workers"]:
        time.sleep(0.1)
    second = start("worker", "--no-nanny", "--nthreads", "1")
    held.set()
    assert made.result(60) == second.pid
    assert sorted(p.name for p in marks.iterdir()) == sorted([str(first.pid), str(second.pid)])
