"""A Ray cluster on the nodes of the current job."""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from smgeo.errors import SmgeoError, missing_extra
from smgeo.files import load_json
from smgeo.hpc.sites.profile import Site
from smgeo.hpc.workers.allocation import Allocation
from smgeo.hpc.workers.ray_nodes import STOP

# Nodes that have not joined within this many seconds are named, and the job ends.
START_S = 180
_END_S = 15
# Share of a node's memory that Ray may plan tasks with; besides its object store, the rest is for its own processes and this one.
_TASKS = 0.6


@contextmanager
def ray_nodes(
    site: Site,
    folder: Path,
    allocation: Allocation,
    say: Callable[[str], None] = lambda text: None,
    start_s: float = START_S,
) -> Iterator[str]:
    """Run Ray on all nodes of the allocation; `RAY_ADDRESS` names it while the context lasts.

    Parameters
    ----------
    site : Site
        The machine's profile.
    folder : Path
        A folder that all nodes see, for logs.
    allocation : Allocation
    say : callable
        Called with what is waited for.
    start_s : float
        Seconds to wait for nodes.

    Yields
    ------
    str
        Address of the head.

    Raises
    ------
    SmgeoError
        If Ray is not installed, or nodes do not join in time; they are named.
    """
    if find_spec("ray") is None:
        raise missing_extra("a search over several nodes", "tune")
    if "ray" in sys.modules:  # it reads its token when it is imported
        raise SmgeoError(
            "Ray was imported in this process before its cluster on SLURM was started, so it would be refused; import it later, or "
            "run the search by `smgeo tune` or `smgeo run`"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # For this job only, and never in a file or on a command line: with it, anyone can run code on these nodes.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    asked = {
        "network": site.network.model_dump(),
        "cpus": allocation.cpus,
        "gpus": allocation.gpus,
        "memory": allocation.memory_mb and int(allocation.memory_mb * 2**20 * _TASKS),
        "object_store": allocation.object_store,
    }
    with tempfile.TemporaryDirectory(prefix=f"ray-{allocation.job_id}-", dir=folder) as name:
        here = Path(name)
        (here / "ray.json").write_text(json.dumps(asked), encoding="utf-8")
        say(f"Ray: waiting for {len(allocation.nodes)} node(s), {start_s:g} s at most: {', '.join(allocation.nodes)}")
        step = allocation.start(
            [sys.executable, "-m", "smgeo.hpc.workers.ray_nodes", str(here)],
            here / "ray-%t.log",
            tasks=len(allocation.nodes),
            cpus_per_task=allocation.cpus,
            flags=site.launcher.srun,
            environment=token,
        )
        before = {k: os.environ.get(k) for k in ("RAY_ADDRESS", *token)}
        try:
            step.wait_for(lambda: not _lacking(here, allocation), start_s, lambda: _say_lacking(here, allocation))
            address = str(load_json(here / "head.json", "start the job again")["address"])
            os.environ |= {"RAY_ADDRESS": address, **token}
            say(
                f"Ray: {len(allocation.nodes)} node(s) of {allocation.cpus} CPU(s) and {allocation.gpus} GPU(s) at {address}"
            )
            yield address
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value
            (here / STOP).touch()
            step.stop(after_s=_END_S)


def _lacking(here: Path, allocation: Allocation) -> list[str]:
    return [node for node in allocation.nodes if not (here / f"ready-{node}").exists()]


def _say_lacking(here: Path, allocation: Allocation) -> str:
    lacking = _lacking(here, allocation)
    return f"Ray: {len(lacking)} of {len(allocation.nodes)} node(s) did not come: {', '.join(lacking)}"
