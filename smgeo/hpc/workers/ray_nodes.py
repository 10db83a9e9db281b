"""Ray inside an allocation: what srun starts on each of its nodes, the head on the first and workers on the others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from smgeo.files import write_json
from smgeo.hpc.sites.network import find_address, port_of_job
from smgeo.hpc.sites.profile import NetworkSpec

# A file that asks all nodes to end.
STOP = "stop"
# What `ray start` says when its node has joined.
_STARTED = "Ray runtime started"


def ray_command(address: str, head: dict[str, Any] | None, port: int, asked: dict[str, Any], sockets: str) -> list[str]:
    """`ray start` for the head (where `head` is None) or for another node; all resources are the job's, not the machine's.

    Ports but the head's are 0, for any that is free: two jobs on a node would meet at Ray's own ones.
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
        f"--temp-dir={sockets}",
        "--disable-usage-stats",
    ]


def main(folder: Path) -> int:
    """Start Ray on this node, and stay until it or the job ends; its exit code."""
    asked = json.loads((folder / "ray.json").read_text(encoding="utf-8"))
    rank, node = int(os.environ["SLURM_PROCID"]), os.environ.get("SLURMD_NODENAME", "node")
    address = find_address(NetworkSpec(**asked["network"]))
    file, head, port = folder / "head.json", None, 0
    if rank == 0:
        port = port_of_job(int(os.environ["SLURM_JOB_ID"]), address)
        write_json(file, {"address": f"{address}:{port}", "node": node})
    else:
        while not file.exists():
            time.sleep(0.1)
        head = json.loads(file.read_text(encoding="utf-8"))
    # The path of a socket has at most 107 letters, so it lies on the node and not in the run's folder.
    sockets = tempfile.mkdtemp(prefix=f"smgeo-ray-{os.environ['SLURM_JOB_ID']}-")
    command = ray_command(address, head, port, asked, sockets)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - no shell
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what follows is tidied up
    assert process.stdout is not None
    # In a thread, as Ray's own processes have this pipe too, and may outlive the one that is waited for.
    threading.Thread(target=_pass_on, args=(process.stdout, folder / f"ready-{node}"), daemon=True).start()
    try:
        # Asked by a file: srun, told to end, leaves its tasks no time to tidy up.
        while (code := process.poll()) is None and not (folder / STOP).exists():
            time.sleep(0.2)
        process.terminate()
        return process.wait() if code is None else code
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _pass_on(lines: Iterable[str], ready: Path) -> None:
    """Print what Ray says, and note when its node has joined."""
    for line in lines:
        print(line, end="", flush=True)
        if _STARTED in line:
            ready.touch()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
