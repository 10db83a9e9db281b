"""A real SLURM for the tests of this folder: the testbed, in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smgeo.hpc.sites.testbed import start_testbed, stop_testbed


class Slurm:
    """What tests ask of SLURM."""

    def job(self, number: int) -> dict[str, str]:
        """What SLURM knows of a job."""
        told = subprocess.run(["scontrol", "show", "job", str(number)], capture_output=True, text=True, check=True)
        return dict(re.findall(r"(\w+)=(\S+)", told.stdout))

    def running(self, name: str) -> list[int]:
        """Numbers of running jobs of this name."""
        command = ["squeue", "--noheader", "--states=RUNNING", f"--name={name}", "--format=%i"]
        return [int(n) for n in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]

    def wait(self, number: int, seconds: float = 300) -> dict[str, str]:
        """The job when it has ended."""
        return self.until(lambda: (job := self.job(number))["JobState"] in _ENDED and job, seconds, f"job {number}")

    def until(self, ready, seconds: float, what: str):
        """The first true value of `ready`."""
        end = time.monotonic() + seconds
        while not (value := ready()):
            assert time.monotonic() < end, f"{what}: waited {seconds} s in vain"
            time.sleep(0.2)
        return value


_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


@contextmanager
def _running_slurm(gpus: int = 0) -> Iterator[Slurm]:
    """Start the testbed, and stop it: absent, a user's tests skip and CI fails."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacking = [p for p in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(p, path=path) is None]
    if lacking:
        reason = f"SLURM is not installed ({', '.join(lacking)}): sudo apt install slurm-wlm munge"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="smgeo-slurm-", dir="/tmp"))  # short, for sockets
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(start_testbed(folder, gpus=gpus))
    try:
        yield Slurm()
    finally:
        stop_testbed(folder)
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm():
    """SLURM with two nodes of 4 CPUs, all of them this machine."""
    with _running_slurm() as running:
        yield running


@pytest.fixture(scope="module")
def slurm_with_gpus():
    """The same with 3 GPUs a node in its books; not for a module that uses `slurm`, because programs know one of them."""
    with _running_slurm(gpus=3) as running:
        yield running


@pytest.fixture
def study(toy_recipe, tmp_path):
    """(changes of the recipe) -> the path of a small study's recipe."""
    import yaml

    def write(**changes):
        path = tmp_path / "small.yaml"
        values = {**toy_recipe, "name": "small", "models": {"rf": {"trees": 5}}, **changes}
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write
