"""The nodes that SLURM gave this job, and processes started on them."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from smgeo.errors import SmgeoError
from smgeo.hpc.sites.profile import UNIT_MB

_END_S = 20
_LAST_LINES = 4
# Of a node's memory, and the bytes below which Ray does not start.
_OBJECTS, _LEAST_OBJECTS = 0.25, 80 * 2**20
# What srun would read as options of a step from the job's own.
_OPTIONS_OF_JOB = re.compile(
    r"SLURM_(NTASKS|NPROCS|NTASKS_PER_NODE|TASKS_PER_NODE|CPUS_PER_TASK|DISTRIBUTION|MEM_BIND|CPU_BIND|EXPORT_ENV)\w*|SRUN_CPUS_PER_TASK"
)


@dataclass(frozen=True)
class Allocation:
    """What SLURM gave to this job.

    Attributes
    ----------
    job_id : int
    nodes : tuple of str
    cpus, gpus : int
        Of each node; the least where nodes differ.
    memory_mb : int or None
        Of each node; None where SLURM says nothing of it.
    """

    job_id: int
    nodes: tuple[str, ...]
    cpus: int
    gpus: int
    memory_mb: int | None

    @classmethod
    def current(cls) -> Allocation | None:
        """The allocation that this process is in, by the variables that SLURM sets; None outside."""
        job, nodes = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_JOB_NODELIST")
        if not job or not nodes:
            return None
        names = tuple(_scontrol("hostnames", nodes).split())
        counted, listed = os.environ.get("SLURM_GPUS_ON_NODE"), os.environ.get("SLURM_JOB_GPUS", "")
        return cls(
            int(job),
            names,
            least(os.environ.get("SLURM_JOB_CPUS_PER_NODE", "1")),
            int(counted) if counted else len([g for g in listed.split(",") if g]),
            # SLURM's variables say it only where the job asked for some.
            parse_memory_of_job(_scontrol("job", job), len(names)),
        )

    @property
    def object_store(self) -> int | None:
        """Bytes of a node's memory for Ray's store of objects, which else takes its share of the machine's; None where SLURM says nothing."""
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
        """Start processes over all nodes, in turn; each gets its number in `SLURM_PROCID`.

        Parameters
        ----------
        command : sequence of str
            What each process is.
        log : Path
            Where their output goes; `%t` in its name is the number of the process.
        tasks, cpus_per_task : int
        flags : sequence of str
            More options of srun, of the site's profile.
        environment : dict, optional
            More variables for them.
        """
        # `--overlap`: this process has the job's CPUs and memory too. CPUs are not bound, as one task of all is there for order alone.
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
    """Processes that were started on an allocation, and end with `stop`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    @property
    def ended(self) -> int | None:
        """Exit code of what has ended; None while it runs."""
        return self._process.poll()

    def wait_for(self, ready: Callable[[], bool], seconds: float, missing: Callable[[], str]) -> None:
        """Wait until `ready`.

        Raises
        ------
        SmgeoError
            If the processes end before, or are not ready in time; with what is `missing` and the last lines they wrote.
        """
        end = time.monotonic() + seconds
        while not ready():
            if self.ended is not None:
                raise SmgeoError(f"{missing()}: its processes ended with exit code {self.ended}. {self.last_lines()}")
            if time.monotonic() > end:
                raise SmgeoError(f"{missing()} within {seconds:g} s. {self.last_lines()}")
            time.sleep(0.1)

    def last_lines(self) -> str:
        """The last lines of each log, for a message."""
        return read_last_lines(self._log)

    def stop(self, after_s: float = 0) -> None:
        """End the processes, those that do not end by themselves within `after_s` seconds by force."""
        for seconds, end in ((after_s, self._process.terminate), (_END_S, self._process.kill)):
            try:
                self._process.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                end()
        self._process.wait()


def read_last_lines(log: Path) -> str:
    """The last lines of the logs of several processes, for a message; `%t` in the name stands for any."""
    found = []
    for file in sorted(log.parent.glob(log.name.replace("%t", "*"))):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        if told := " / ".join(line.strip() for line in lines if line.strip()):
            found.append(f"{file.name} ends: {told}")
    return "; ".join(found) or f"nothing was written to {log}"


def least(text: str) -> int:
    """The least of the counts that SLURM lists for nodes.

    >>> least("4(x2),2"), least("16")
    (2, 16)
    """
    return min(int(part.split("(")[0]) for part in text.split(","))


def _scontrol(what: str, name: str) -> str:
    """What `scontrol show` says.

    Raises
    ------
    SmgeoError
        If there is no `scontrol`, or it does not know.
    """
    try:
        done = subprocess.run(["scontrol", "show", what, name], capture_output=True, text=True)  # noqa: S603, S607 - no shell
    except FileNotFoundError:
        raise SmgeoError(
            "scontrol is not found in this job; processes on its nodes need SLURM's programs (srun, scontrol) in PATH"
        ) from None
    if done.returncode:
        raise SmgeoError(f"scontrol show {what} {name}: {done.stderr.strip()}")
    return done.stdout


def parse_memory_of_job(text: str, nodes: int) -> int | None:
    """Megabytes of each node, of what `scontrol show job` says.

    >>> parse_memory_of_job("NumNodes=2 TRES=cpu=6,mem=12G,node=2,billing=6", 2)
    6144
    >>> parse_memory_of_job("ReqTRES=cpu=1,mem=2000M,node=1 AllocTRES=cpu=64,mem=500G,node=1", 1)
    512000
    """
    given = re.search(r"\bAllocTRES=(\S*)", text) or re.search(r"\bTRES=(\S*)", text)
    found = re.search(r"mem=([\d.]+)([KMGT])", given[1]) if given else None
    return None if found is None else int(float(found[1]) * UNIT_MB[found[2]] / nodes)
