"""Where a run's work is done beside its own process: workers that are started when they are first needed, and ended with the run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from dask.system import CPU_COUNT

from smgeo.errors import SmgeoError
from smgeo.hpc.sites.profile import load_site
from smgeo.hpc.workers.allocation import Allocation, Step
from smgeo.hpc.workers.dask_cluster import dask_workers
from smgeo.hpc.workers.local_processes import LocalProcesses, thread_variables
from smgeo.hpc.workers.ray_cluster import ray_nodes


class LocalMachine:
    """The process alone: cubes on its threads, searches on a Ray of this machine."""

    def cubes(self, *, remote: bool = False) -> AbstractContextManager[None]:
        """Where regions of cubes are computed while this lasts."""
        return nullcontext()

    def start_searches(self) -> None:
        """Make ready what trials run on."""

    @property
    def network(self) -> dict[str, Any]:
        """By which address processes reach each other, as in a site profile."""
        return {}

    def start(self, command: list[str], log: Path, count: int) -> LocalProcesses | Step:
        """Start a command so many times, each with its number in `SLURM_PROCID`."""
        return LocalProcesses(command, log, count, thread_variables(max(CPU_COUNT // count, 1)))

    def close(self) -> None:
        """End what was started."""


class Cluster(LocalMachine):
    """A SLURM machine, by its profile: Dask workers for cubes, and inside a job of several nodes Ray for searches.

    Parameters
    ----------
    system : str or Path
        A site profile, by name or path.
    folder : str or Path
        A folder that all nodes see, for scripts and logs.
    workers, partition, account
        As for `smgeo.hpc.workers.dask_cluster.dask_workers`.
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
        self._has_ray = False

    @contextmanager
    def cubes(self, *, remote: bool = False) -> Iterator[None]:
        """Dask workers compute regions while this lasts; where a `remote` source is read and they do not reach the internet, this process."""
        if remote and not self._reaches_internet():
            yield
            return
        if self._client is None:
            made = dask_workers(
                self.site, self._folder, self.allocation, self._workers, self._partition, self._account, self._say
            )
            self._client = self._stack.enter_context(made)
        with self._client.as_current():
            yield

    def start_searches(self) -> None:
        """Ray on all nodes of the job, from now until `close`; on this machine where the job has one node, or there is none."""
        if self.allocation is not None and len(self.allocation.nodes) > 1 and not self._has_ray:
            self._stack.enter_context(ray_nodes(self.site, self._folder, self.allocation, self._say))
            self._has_ray = True

    @property
    def network(self) -> dict[str, Any]:
        """By which address processes reach each other, as in a site profile."""
        return self.site.network.model_dump()

    def start(self, command: list[str], log: Path, count: int) -> LocalProcesses | Step:
        """Start a command so many times, on the nodes of the job in turn; on this machine outside a job."""
        if self.allocation is None:
            return super().start(command, log, count)
        on_a_node = math.ceil(count / len(self.allocation.nodes))
        threads = max(self.allocation.cpus // on_a_node, 1)
        flags = [*self.site.launcher.srun, "--kill-on-bad-exit=1"]
        return self.allocation.start(
            command, log, tasks=count, cpus_per_task=threads, flags=flags, environment=thread_variables(threads)
        )

    def close(self) -> None:
        """End the workers."""
        self._client, self._has_ray = None, False
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


def find_machine(
    system: str | Path | None,
    folder: str | Path,
    workers: int | None = None,
    partition: str | None = None,
    account: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> LocalMachine:
    """What a command works on: the process alone, or the SLURM machine of a profile. Arguments as for `Cluster`.

    Raises
    ------
    SmgeoError
        If there is no such profile, or something is asked of a machine that none is named for.
    """
    if system is not None:
        return Cluster(system, folder, workers, partition, account, say)
    given = {"--workers": workers, "--partition": partition, "--account": account}
    if asked := [name for name, value in given.items() if value is not None]:
        raise SmgeoError(f"{', '.join(asked)}: of a cluster's workers; give --cluster NAME too, or leave it out")
    return LocalMachine()
