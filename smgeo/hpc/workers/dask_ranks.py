"""Dask inside an allocation: the program that srun starts on its nodes, one task as scheduler and the others as workers."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from pathlib import Path


def main(folder: Path) -> None:
    """Run the scheduler or a worker with the options in `dask.json` of the folder, until the client ends all."""
    import dask
    from dask_jobqueue.slurm import SLURMRunner
    from distributed.security import Security

    from smgeo.files import load_json
    from smgeo.hpc.sites.network import find_address
    from smgeo.hpc.sites.profile import NetworkSpec

    asked = load_json(folder / "dask.json", "start the job again")
    dask.config.set({"distributed.scheduler.allowed-failures": asked["allowed_failures"]})
    security = Security(**asked["security"], require_encryption=True)
    both: dict[str, object] = {
        "protocol": "tls://",
        "security": security,
        "host": find_address(NetworkSpec(**asked["network"])),
    }
    scratch = tempfile.mkdtemp(prefix="smgeo-dask-", dir=asked["scratch"])  # its user's alone
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    SLURMRunner(
        scheduler_file=str(folder / "scheduler.json"),
        client=False,
        worker_class="distributed.Nanny",  # which starts a worker that dies again
        scheduler_options={**both, "dashboard_address": ":0"},
        worker_options={**both, **asked["worker"], "local_directory": scratch},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
