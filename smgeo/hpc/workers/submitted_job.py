"""A job of Dask workers, submitted within time limits. It needs dask-jobqueue, which the other modules of this package import when asked."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from dask_jobqueue import SLURMCluster
from dask_jobqueue.slurm import SLURMJob
from distributed.deploy.spec import ProcessInterface

from smgeo.errors import SmgeoError
from smgeo.hpc.jobs.script import submit_script


class SubmittedJob(SLURMJob):
    """A job of dask-jobqueue that smgeo submits, once.

    dask-jobqueue waits for sbatch without a limit, logs its failure as a traceback and still counts the job, so that no other one is
    submitted and callers wait forever. Here the job keeps the reason, for `WorkerJobs` to act on.

    Attributes
    ----------
    failure : str or None
        Why SLURM did not take it.
    failed_at : float
        Time of the failure, by `time.monotonic`.
    """

    failure: str | None = None
    failed_at = 0.0

    async def start(self) -> None:
        """Submit the job."""
        try:
            await SLURMJob.start(self)
        except (SmgeoError, OSError, ValueError) as error:
            self.failure, self.failed_at = str(error), time.monotonic()
            await ProcessInterface.start(self)

    async def _submit_job(self, script_filename: str) -> str:
        return str(await asyncio.to_thread(submit_script, Path(script_filename).read_text(encoding="utf-8")))


class SubmittedJobs(SLURMCluster):
    """A cluster of such jobs."""

    job_cls = SubmittedJob
