"""Where a run's work is done beside its own process: workers that are started when they are first needed, and ended with the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from smgeo.errors import SmgeoError
from smgeo.hpc.allocation import Allocation
from smgeo.hpc.dask_cluster import dask_workers
from smgeo.hpc.ray_cluster import ray_nodes
from smgeo.hpc.sites import load_site


class LocalMachine:
    """The process alone: cubes on its threads, searches on a Ray of this machine."""

    def cubes(self, *, remote: bool = False) -> AbstractContextManager[None]:
        """Where regions of cubes and maps are computed while this lasts."""
        return nullcontext()

    def searches(self) -> AbstractContextManager[None]:
        """Where trials run while this lasts."""
        return nullcontext()

    def close(self) -> None:
        """End what was started."""


class Cluster(LocalMachine):
    """A SLURM machine, by its profile: Dask workers for cubes and maps, and inside a job of several nodes Ray for searches.

    Parameters
    ----------
    system : str or Path
        A site profile, by name or path.
    folder : str or Path
        A folder that all nodes see, for scripts and logs.
    workers, partition, account
        As for `smgeo.hpc.dask_cluster.dask_workers`.
    say : callable
        Told what is started and waited for.
    """

    def __init__(
        self,
        system: str | Path,
        folder: str | Path,
        workers: int | None = None,
        partition: str | None = None,
        account: str | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        if workers is not None and workers < 1:
            raise SmgeoError(f"--workers must be 1 or more; got {workers}")
        self.site = load_site(system)
        self.allocation = Allocation.current()
        self._folder, self._workers, self._account, self._say = Path(folder).absolute(), workers, account, say
        self._partition = (
            self.site.partition(partition)[0] if self.allocation is None else os.environ.get("SLURM_JOB_PARTITION")
        )
        self._stack = ExitStack()
        self._client: Any = None

    @contextmanager
    def cubes(self, *, remote: bool = False) -> Iterator[None]:
        """Dask workers compute regions while this lasts; where a `remote` source is read and they do not reach the internet, this process."""
        if remote and not self._reaches_internet():
            yield
            return
        if self._client is None:
            made = dask_workers(self.site, self._folder, self._workers, self._partition, self._account, self._say)
            self._client = self._stack.enter_context(made)
        with self._client.as_current():
            yield

    @contextmanager
    def searches(self) -> Iterator[None]:
        """Ray on all nodes of the job while this lasts; on this machine where the job has one node, or there is none."""
        if self.allocation is None or len(self.allocation.nodes) == 1:
            yield
            return
        with ray_nodes(self.site, self._folder, self.allocation, self._say):
            yield

    def close(self) -> None:
        """End the workers."""
        self._client = None
        self._stack.close()

    def _reaches_internet(self) -> bool:
        limits = self.site.partitions.get(self._partition or "")
        if limits is None or limits.internet:
            return True
        where = f"the profile of {self.site.name} says that partition {self._partition} does not reach the internet"
        if self.allocation is not None:
            raise SmgeoError(
                f"{where}, and this recipe reads remote sources: build its cubes on a login node first (`smgeo cube RECIPE`), or "
                "correct `internet` in a profile of your own"
            )
        if not self.site.login_internet:
            raise SmgeoError(
                f"{where}, nor does its login node; correct `internet` or `login_internet` in a profile of your own"
            )
        self._say(f"{where}: remote sources are read by this process")
        return False
