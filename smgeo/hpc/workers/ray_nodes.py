"""Ray inside an allocation: the program that srun starts on each node, the head on the first and workers on the others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict, cast

from smgeo.files import load_json, write_json
from smgeo.hpc.sites.network import find_address, port_of_job
from smgeo.hpc.sites.profile import NetworkSpec

# A file that asks all nodes to end.
STOP = "stop"
# Output of `ray start` when its node has joined.
_STARTED = "Ray runtime started"


class Resources(TypedDict):
    """CPUs and GPUs of a node for Ray, and bytes of memory for tasks and for objects (None: Ray decides)."""

    cpus: int
    gpus: int
    memory: int | None
    object_store: int | None


def ray_command(address: str, head: Mapping[str, str] | None, port: int, asked: Resources, sockets: str) -> list[str]:
    """Return `ray start` for the head (if `head` is None) or another node, with the resources of the job, not of the machine.

    All ports except the head's are 0 (any free port): two jobs on a node would both use Ray's default ones.
    """
    first = (
        ["--head", f"--port={port}", "--include-dashboard=false"] if head is None else [f"--address={head['address']}"]
    )
    memory = (
        [f"--memory={asked['memory']}", f"--object-store-memory={asked['object_store']}"] if asked["memory"] else []
    )
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", *first, "--block"),
        f"--node-ip-address={address}",
        *("--node-manager-port=0", "--object-manager-port=0", "--min-worker-port=0", "--max-worker-port=0"),
        *(
            "--dashboard-agent-listen-port=0",
            "--dashboard-agent-grpc-port=0",
            "--runtime-env-agent-port=0",
            "--metrics-export-port=0",
        ),
        f"--num-cpus={asked['cpus']}",
        f"--num-gpus={asked['gpus']}",
        *memory,
        f"--temp-dir={sockets}/ray",
        "--disable-usage-stats",
    ]


def main(folder: Path) -> int:
    """Start Ray on this node, wait until it or the job ends, and return its exit code."""
    asked = load_json(folder / "ray.json", "start the job again")
    rank, node = int(os.environ["SLURM_PROCID"]), os.environ.get("SLURMD_NODENAME", "node")
    address = find_address(NetworkSpec(**asked["network"]))
    file, head, port = folder / "head.json", None, 0
    if rank == 0:
        port = port_of_job(int(os.environ["SLURM_JOB_ID"]), address)
        write_json(file, {"address": f"{address}:{port}", "node": node})
    else:
        while not file.exists():
            time.sleep(0.1)
        head = load_json(file, "start the job again")
    # The path of a socket has at most 107 letters, so it is on the node and not in the run's folder. Ray opens its own folder to everybody;
    # the one around it is its user's alone.
    sockets = tempfile.mkdtemp(prefix=f"smgeo-ray-{os.environ['SLURM_JOB_ID']}-")
    command = ray_command(address, head, port, cast(Resources, asked), sockets)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - no shell
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the clean-up below runs
    assert process.stdout is not None
    # In a thread, because Ray's own processes share this pipe, and may outlive this one.
    threading.Thread(target=_pass_on, args=(process.stdout, folder / f"ready-{node}"), daemon=True).start()
    try:
        # Stopped by a file, because srun leaves its tasks no time to clean up.
        while (code := process.poll()) is None and not (folder / STOP).exists():
            time.sleep(0.2)
        process.terminate()
        return process.wait() if code is None else code
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _pass_on(lines: Iterable[str], ready: Path) -> None:
    """Print the output of Ray, and create `ready` when its node has joined."""
    for line in lines:
        print(line, end="", flush=True)
        if _STARTED in line:
            ready.touch()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
