"""Processes on this machine, with the numbers that srun would give them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from smgeo.hpc.workers.allocation import read_last_lines

_END_S = 10


def thread_variables(count: int) -> dict[str, str]:
    """Return variables that limit libraries to `count` threads; they are read when a library is first imported."""
    return {name: str(count) for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")}


class LocalProcesses:
    """Several processes of one command, each with its number in `SLURM_PROCID`; if one fails, all are ended.

    Parameters
    ----------
    command : sequence of str
    log : Path
        File for their output; `%t` in its name is the number of the process.
    count : int
    environment : mapping
        Extra variables for them.
    """

    def __init__(self, command: Sequence[str], log: Path, count: int, environment: Mapping[str, str]) -> None:
        self._log = log
        self._processes = []
        for number in range(count):
            with log.with_name(log.name.replace("%t", str(number))).open("wb") as out:
                variables = {**os.environ, **environment, "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)}
                self._processes.append(
                    subprocess.Popen(  # noqa: S603 - no shell
                        command, env=variables, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
                    )
                )

    @property
    def ended(self) -> int | None:
        """Return the exit code of the first that failed, or 0 when all are done; None while they run."""
        codes = [p.poll() for p in self._processes]
        failed = [c for c in codes if c]
        if failed:
            self.stop()
            return failed[0]
        return None if None in codes else 0

    def last_lines(self) -> str:
        """Return the last lines of each log, for a message."""
        return read_last_lines(self._log)

    def stop(self) -> None:
        """End the processes: ask first, then kill."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
