"""Nodes that SLURM gave this job, and processes started on them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from smgeo.errors import SmgeoError
from smgeo.hpc.sites.profile import UNIT_MB
from smgeo.hpc.sites.slurm import run_slurm

_END_S = 20
# A list of nodes with one node.
_ONE_NODE = re.compile(r"[^\[\],\s]+")
_LAST_LINES = 4
# Share of a node's memory for Ray's objects, and the bytes below which Ray does not start.
_OBJECTS, _LEAST_OBJECTS = 0.25, 80 * 2**20
# Variables of the job that srun would read as options of a step.
_OPTIONS_OF_JOB = re.compile(
    r"SLURM_(NTASKS|NPROCS|NTASKS_PER_NODE|TASKS_PER_NODE|CPUS_PER_TASK|DISTRIBUTION|MEM_BIND|CPU_BIND|EXPORT_ENV)\w*|SRUN_CPUS_PER_TASK"
)


@dataclass(frozen=True)
class Allocation:
    """Resources that SLURM gave this job.

    Attributes
    ----------
    job_id : int
    nodes : tuple of str
    cpus, gpus : int
        Per node; the smallest if nodes differ.
    memory_mb : int or None
        Per node; None if SLURM does not report it.
    """

    job_id: int
    nodes: tuple[str, ...]
    cpus: int
    gpus: int
    memory_mb: int | None

    @classmethod
    def current(cls) -> Allocation | None:
        """Return the allocation of this process from the variables that SLURM sets; None outside a job, and after its end.

        Without SLURM's programs, as in a container, it is known for jobs of one node.

        Raises
        ------
        SmgeoError
            If the job has several nodes and there is no `scontrol`, or SLURM does not answer.
        """
        job, nodes = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_JOB_NODELIST")
        if not job or not nodes:
            return None
        if shutil.which("scontrol") is None and _ONE_NODE.fullmatch(nodes):
            # In a container, which SLURM's programs do not enter.
            names, about = [nodes], ""
        else:
            shown = ask_scontrol("job", job)
            if shown is None:  # a shell that outlived its job
                return None
            names, about = (ask_scontrol("hostnames", nodes) or "").split(), shown
        counted, listed = os.environ.get("SLURM_GPUS_ON_NODE"), os.environ.get("SLURM_JOB_GPUS", "")
        return cls(
            int(job),
            tuple(names),
            least(os.environ.get("SLURM_JOB_CPUS_PER_NODE", "1")),
            int(counted) if counted else len([g for g in listed.split(",") if g]),
            # SLURM's variables have it only if the job asked for memory.
            parse_memory_of_job(about, len(names)),
        )

    @property
    def object_store(self) -> int | None:
        """Return the bytes for Ray's object store, which would otherwise take a share of the whole machine; None if unknown."""
        return None if self.memory_mb is None else max(int(self.memory_mb * 2**20 * _OBJECTS), _LEAST_OBJECTS)

    def start(
        self,
        command: Sequence[str],
        log: Path,
        *,
        tasks: int,
        cpus_per_task: int,
        flags: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> Step:
        """Start processes on all nodes, in turn; each has its number in `SLURM_PROCID`.

        Parameters
        ----------
        command : sequence of str
            Command of each process.
        log : Path
            File for their output; `%t` in its name is the number of the process.
        tasks, cpus_per_task : int
        flags : sequence of str
            Extra options of srun, from the site's profile.
        environment : dict, optional
            Extra variables for them.
        """
        # `--overlap`: this process uses the job's CPUs and memory too. CPUs are not bound, because one task only coordinates.
        srun = [
            "srun",
            "--overlap",
            "--overcommit",
            f"--nodes={len(self.nodes)}",
            f"--ntasks={tasks}",
            f"--cpus-per-task={cpus_per_task}",
            "--distribution=cyclic",
            "--cpu-bind=none",
            "--export=ALL",
            "--unbuffered",
            f"--output={log}",
            *flags,
        ]
        kept = {k: v for k, v in os.environ.items() if not _OPTIONS_OF_JOB.fullmatch(k)}
        with log.with_name(log.name.replace("%t", "srun")).open("wb") as own:
            process = subprocess.Popen(  # noqa: S603 - no shell
                [*srun, *command], env={**kept, **(environment or {})}, stdout=own, stderr=own, start_new_session=True
            )
        return Step(process, log)


class Step:
    """Processes started on an allocation; `stop` ends them."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    @property
    def ended(self) -> int | None:
        """Return the exit code; None while the processes run."""
        return self._process.poll()

    def wait_for(self, ready: Callable[[], bool], seconds: float, missing: Callable[[], str]) -> None:
        """Wait until `ready`.

        Raises
        ------
        SmgeoError
            If the processes end early or are not ready in time; with the text of `missing` and the last lines of the logs.
        """
        end = time.monotonic() + seconds
        while not ready():
            if self.ended is not None:
                raise SmgeoError(f"{missing()}: its processes ended with exit code {self.ended}. {self.last_lines()}")
            if time.monotonic() > end:
                raise SmgeoError(f"{missing()} within {seconds:g} s. {self.last_lines()}")
            time.sleep(0.1)

    def last_lines(self) -> str:
        """Return the last lines of each log, for a message."""
        return read_last_lines(self._log)

    def stop(self, after_s: float = 0) -> None:
        """End the processes; kill those that do not end by themselves within `after_s` seconds."""
        for seconds, end in ((after_s, self._process.terminate), (_END_S, self._process.kill)):
            try:
                self._process.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                end()
        self._process.wait()


def read_last_lines(log: Path) -> str:
    """Return the last lines of the logs of several processes, for a message; `%t` in the name matches any number."""
    found = []
    for file in sorted(log.parent.glob(log.name.replace("%t", "*"))):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        if last := " / ".join(line.strip() for line in lines if line.strip()):
            found.append(f"{file.name} ends: {last}")
    return "; ".join(found) or f"nothing was written to {log}"


def least(text: str) -> int:
    """Return the smallest of the counts that SLURM lists for nodes.

    >>> least("4(x2),2"), least("16")
    (2, 16)
    """
    return min(int(part.split("(")[0]) for part in text.split(","))


def ask_scontrol(what: str, name: str) -> str | None:
    """Return the output of `scontrol show`; None for a job that is over.

    Raises
    ------
    SmgeoError
        If there is no `scontrol`, or it fails.
    """
    try:
        done = run_slurm(["scontrol", "show", what, name])
    except FileNotFoundError:
        raise SmgeoError(
            "scontrol was not found in this job of several nodes; put SLURM's programs (srun, scontrol) into PATH"
        ) from None
    if done.returncode and "Invalid job id" in done.stderr:
        return None
    if done.returncode:
        raise SmgeoError(f"scontrol show {what} {name}: {done.stderr.strip()}")
    return done.stdout


def parse_memory_of_job(text: str, nodes: int) -> int | None:
    """Return the megabytes of each node from the output of `scontrol show job`.

    >>> parse_memory_of_job("NumNodes=2 TRES=cpu=6,mem=12G,node=2,billing=6", 2)
    6144
    >>> parse_memory_of_job("ReqTRES=cpu=1,mem=2000M,node=1 AllocTRES=cpu=64,mem=500G,node=1", 1)
    512000
    """
    given = re.search(r"\bAllocTRES=(\S*)", text) or re.search(r"\bTRES=(\S*)", text)
    found = re.search(r"mem=([\d.]+)([KMGT])", given[1]) if given else None
    return None if found is None else int(float(found[1]) * UNIT_MB[found[2]] / nodes)
