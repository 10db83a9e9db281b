"""Watch the jobs in which Dask workers start: SLURM ends a job whose worker fails, and Dask would wait for it forever."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from smgeo.errors import SmgeoError
from smgeo.hpc.workers.allocation import ask_scontrol, read_last_lines

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client

    from smgeo.hpc.workers.submitted_job import SubmittedJob

_LOOK_S, _SAY_S = 2, 60
# Jobs in a row that may end without a worker: one, which is submitted again twice.
_MOST_FAILED = 3
# Seconds before a job is submitted again because the submission of one failed: a controller may be busy, or start anew.
_PAUSES_S = (30, 120)
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "SUSPENDED", "REQUEUE_HOLD", "SPECIAL_EXIT")
_RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING")


class JobState(NamedTuple):
    """A job as SLURM reports it: its state, the reason for it, and its exit code."""

    state: str
    reason: str
    exit_code: str

    @property
    def ended(self) -> bool:
        """True if the job is over."""
        return self.state not in (*_WAITING, *_RUNNING)


def find_job_state(job_id: str) -> JobState | None:
    """Return the state of a job; None if SLURM does not answer or does not know it any more."""
    try:
        shown = ask_scontrol("job", job_id)
    except SmgeoError:
        return None
    found = dict(re.findall(r"\b(JobState|Reason|ExitCode)=(\S+)", shown or ""))
    return (
        JobState(found["JobState"], found.get("Reason", ""), found.get("ExitCode", "?"))
        if "JobState" in found
        else None
    )


class WorkerJobs:
    """A thread that follows the jobs of a cluster, until `stop`.

    A job that ends before one of its workers has registered is taken off the cluster's list, so that another one is submitted; so is one
    that SLURM did not take, after a pause. The third in a row closes the client, whose waiting callers get an error, and `lost` is called
    with the reason.

    Parameters
    ----------
    cluster, client
        Of dask-jobqueue, and a client of it.
    folder : Path
        Where the jobs' logs are.
    lost : callable
        Called with one sentence that names the job, its state, its exit code and the last lines of its log.
    say : callable
        Called once a minute while no worker is there, with what SLURM says of the jobs.
    """

    def __init__(
        self,
        cluster: SLURMCluster,
        client: Client,
        folder: Path,
        lost: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._cluster, self._client, self._folder, self._lost, self._say = cluster, client, folder, lost, say
        self._ended = threading.Event()
        # Jobs and not names, which the cluster gives again.
        self._good: set[SubmittedJob] = set()
        self._failed: list[str] = []
        self._said = time.monotonic()
        self._thread = threading.Thread(target=self._follow, name="smgeo-worker-jobs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join(_LOOK_S + 1)

    def _follow(self) -> None:
        while not self._ended.wait(_LOOK_S):
            try:
                self._look()
            except (OSError, RuntimeError, ValueError, KeyError):  # the cluster closes meanwhile
                continue
            if len(self._failed) >= _MOST_FAILED:
                self._ended.set()
                self._lost(
                    f"{len(self._failed)} jobs of Dask workers ended one after the other before a worker had started: {self._failed[-1]}; mend "
                    "the cause and run the same command again, which continues from the finished regions"
                )
                self._cluster.adapt(minimum=0, maximum=0)
                self._client.close()

    def _look(self) -> None:
        registered = [str(w["name"]) for w in self._client.scheduler_info(n_workers=-1)["workers"].values()]
        waiting = {}
        for name, job in list(self._cluster.workers.items()):
            if job in self._good:
                continue
            # Also of a job whose submission failed: SLURM may have taken it before sbatch gave up.
            if any(r == str(name) or r.startswith(f"{name}-") for r in registered):
                self._good.add(job)
                self._failed.clear()
            elif job.failure is not None:
                self._look_at_failure(name, job)
            elif job.job_id is not None and (state := find_job_state(str(job.job_id))) is not None:
                if state.ended:
                    logs = read_last_lines(self._folder / f"smgeo-dask-{job.job_id}.%t")
                    self._give_up(name, f"job {job.job_id} is {state.state} with exit code {state.exit_code}. {logs}")
                else:
                    waiting[name] = f"job {job.job_id} is {state.state} ({state.reason})"
        if waiting and not registered and time.monotonic() - self._said > _SAY_S:
            self._said = time.monotonic()
            self._say(f"waiting for Dask workers: {'; '.join(waiting.values())}")

    def _look_at_failure(self, name: object, job: SubmittedJob) -> None:
        pause = _PAUSES_S[min(len(self._failed), len(_PAUSES_S) - 1)]
        if len(self._failed) == _MOST_FAILED - 1 or time.monotonic() - job.failed_at > pause:
            self._give_up(name, f"its submission failed: {job.failure}")

    def _give_up(self, name: object, why: str) -> None:
        self._failed.append(why)
        self._say(f"Dask workers: {why}")
        self._cluster.sync(self._cluster.scale_down, [name])
