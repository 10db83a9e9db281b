"""Quickstart's cubes by two Dask workers that are SLURM jobs, against two local Dask workers; and how long workers take to come.

Run: python benchmarks/slurm.py [RUNS]     (needs SLURM: sudo apt install slurm-wlm munge)
A SLURM of two nodes is started on this machine (smgeo testbed). Both kinds are two processes of one thread, and write the same cubes
from the same world: the stages `stations` and `grid` of recipes/quickstart.yaml, whose other stages run in the same process either
way. Runs take turns; the best counts. Start-up is apart: from the asking to the second worker's coming, of SLURM jobs with
the queue empty. The results of both are compared by their checksums.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

import smgeo
from smgeo.cube.ledger import read_ledger
from smgeo.hpc.sites.profile import Site, load_site
from smgeo.hpc.sites.testbed import start_testbed, stop_testbed
from smgeo.hpc.workers.dask_cluster import dask_workers
from smgeo.recipe.study import Recipe, read_recipe
from smgeo.study.progress import Reporter

STAGES = ("stations", "grid")


@contextmanager
def local_workers(folder: Path, site: Site) -> Iterator[Any]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def slurm_workers(folder: Path, site: Site) -> Iterator[Any]:
    with dask_workers(site, folder, workers=2) as client:
        client.cluster.adapt(minimum_jobs=2, maximum_jobs=2)
        yield client


def main(runs: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="smgeo-bench-", dir="/tmp"))
    testbed = load_site("testbed")
    # A job takes a whole node, so that the two are on two nodes, and has one thread.
    site = testbed.model_copy(update={"workers": testbed.workers.model_copy(update={"threads": 1, "idle_s": 600})})
    site = Site.model_validate(
        {**site.model_dump(), "workers": {**site.workers.model_dump(), "cores": 1, "memory_gb": 8}}
    )
    recipe = read_recipe("quickstart")
    try:
        os.environ["SLURM_CONF"] = str(start_testbed(folder / "slurm"))
        smgeo.build_cubes(recipe, folder / "world", reporter=Reporter(quiet=True))
        best: dict[str, list[dict[str, float]]] = {"local": [], "slurm": []}
        sums: dict[str, Any] = {}
        for turn in range(runs):
            for name, workers in (("local", local_workers), ("slurm", slurm_workers)):
                out = folder / f"{name}-{turn}"
                shutil.copytree(folder / "world", out, ignore=shutil.ignore_patterns("*.zarr", "parts"))
                begin = time.monotonic()
                with workers(folder / "jobs", site) as client:
                    client.wait_for_workers(2, timeout=300)
                    came = time.monotonic() - begin
                    with client.as_current():
                        seconds = build(recipe, out)
                best[name].append({"start-up": came, **seconds})
                sums[name] = [checksums(out / f"{s}.zarr") for s in STAGES]
        print(f"two workers, {runs} runs in turn; seconds of the best")
        print(f"{'':10}{'local':>10}{'SLURM':>10}{'ratio':>8}")
        for what in (*STAGES, "both", "start-up"):
            local, slurm = (min(v[what] for v in best[n]) for n in ("local", "slurm"))
            print(f"{what:10}{local:10.2f}{slurm:10.2f}{slurm / local:8.2f}")
        print(f"the same bytes: {sums['local'] == sums['slurm']}")
    finally:
        stop_testbed(folder / "slurm")
        shutil.rmtree(folder, ignore_errors=True)


def build(recipe: Recipe, out: Path) -> dict[str, float]:
    """Seconds of each stage of cubes."""
    import json

    smgeo.build_cubes(recipe, out, reporter=Reporter(quiet=True))
    records = [json.loads(f.read_text(encoding="utf-8")) for f in (out / ".stages").glob("*.json")]
    seconds = {r["stage"]: r["seconds"] for r in records if "stage" in r}
    return {**{s: seconds[s] for s in STAGES}, "both": sum(seconds[s] for s in STAGES)}


def checksums(store: Path) -> Any:
    records = read_ledger(store)
    assert records is not None
    return records.regions


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
