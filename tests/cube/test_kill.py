"""`kill -9` of a build with two Dask workers at random moments: nothing is lost, nothing half-written is seen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from smgeo.cube.ledger import find_damage, read_ledger
from smgeo.cube.reading import open_cube
from smgeo.files import hash_file

WORKERS = 2
DAYS = 360

# Its blocks take a while, and each leaves a line when it begins.
BUILD = """
import sys, time
from pathlib import Path
import dask.array as da, numpy as np, pandas as pd, xarray as xr
from distributed import Client
from smgeo.cube import write_cube

store, log = Path(sys.argv[1]), sys.argv[2]

def block(block_info=None):
    (t0, t1), (y0, y1), (x0, x1) = block_info[None]["array-location"]
    with open(log, "a") as handle:
        handle.write(f"{t0} {y0}\\n")
    time.sleep(0.05)
    t, y, x = np.meshgrid(np.arange(t0, t1), np.arange(y0, y1), np.arange(x0, x1), indexing="ij")
    return (t * 1e4 + y * 10 + x).astype("float32")

if __name__ == "__main__":
    lazy = da.map_blocks(block, chunks=((30,) * 12, (256, 44), (10,)), dtype="float32", meta=np.empty((0, 0, 0), "float32"))
    ds = xr.Dataset(
        {"s1_vv": (("time", "y", "x"), lazy)},
        {"time": pd.date_range("2020-01-01", periods=360), "y": np.arange(300.0), "x": np.arange(10.0)},
    )
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        print("begin", flush=True)
        write_cube(ds, store, token="t")
    print("end", flush=True)
"""


def start(script: Path, store: Path, log: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script), str(store), str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_builds_go_on_to_the_same_bytes(tmp_path: Path, times: int) -> None:
    rng = np.random.default_rng(0)
    script = tmp_path / "build.py"
    script.write_text(textwrap.dedent(BUILD))
    store, log = tmp_path / "c.zarr", tmp_path / "log"
    log.touch()
    kills, builds, kills_of_build, begun_twice = 0, 0, 0, []
    while kills < times or not store.exists():
        child = start(script, store, log)
        assert child.stdout is not None
        assert child.stdout.readline() == "begin\n"
        if kills < times:
            time.sleep(float(rng.uniform(0, 0.35)))
            os.killpg(child.pid, signal.SIGKILL)
            kills += 1
            kills_of_build += 1
        child.communicate()
        part = store.with_name("c.zarr.part")
        if store.exists():
            assert find_damage(store) == {}
            begun = log.read_text().splitlines()
            begun_twice.append((len(begun) - len(set(begun)), kills_of_build))
            builds += 1
            truth = store.parent / f"truth{builds}.json"
            written = sorted(p for p in store.rglob("*") if p.is_file())
            truth.write_text(json.dumps({str(p.relative_to(store)): hash_file(p) for p in written}))
            if kills < times:
                subprocess.run(["rm", "-r", str(store)], check=True)
                log.write_text("")
                kills_of_build = 0
        elif (records := read_ledger(part)) is not None:
            # Whatever the ledger calls finished is there, and whole.
            for files in records.regions.values():
                assert all(hash_file(part / f) == checksum for f, checksum in files.items())
    cube = open_cube(store)
    t, y, x = np.meshgrid(np.arange(DAYS), np.arange(300), np.arange(10), indexing="ij")
    np.testing.assert_array_equal(cube["s1_vv"].values, (t * 1e4 + y * 10 + x).astype("float32"))
    assert len({(tmp_path / f"truth{i + 1}.json").read_text() for i in range(builds)}) == 1
    for again, killed in begun_twice:
        assert again <= killed * WORKERS
