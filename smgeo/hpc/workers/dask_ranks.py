"""Dask inside an allocation: what srun starts on its nodes, one task a scheduler and the others workers, by `SLURMRunner`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Be the scheduler or a worker, as `dask.json` of the folder says, until the client ends all."""
    import dask
    from dask_jobqueue.slurm import SLURMRunner
    from distributed.security import Security

    from smgeo.hpc.sites.network import find_address
    from smgeo.hpc.sites.profile import NetworkSpec

    asked = json.loads((folder / "dask.json").read_text(encoding="utf-8"))
    dask.config.set({"distributed.scheduler.allowed-failures": asked["allowed_failures"]})
    security = Security(**asked["security"], require_encryption=True)
    both: dict[str, Any] = {
        "protocol": "tls://",
        "security": security,
        "host": find_address(NetworkSpec(**asked["network"])),
    }
    SLURMRunner(
        scheduler_file=str(folder / "scheduler.json"),
        client=False,
        worker_class="distributed.Nanny",  # which starts a worker that dies again
        scheduler_options={**both, "dashboard_address": ":0"},
        worker_options={**both, **asked["worker"]},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
