"""Machines on which a run works besides its own process: workers start when they are first needed, and end with the run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dask.system import CPU_COUNT

from smgeo.errors import SmgeoError
from smgeo.hpc.sites.profile import load_site
from smgeo.hpc.workers.allocation import Allocation, Step
from smgeo.hpc.workers.dask_cluster import dask_workers
from smgeo.hpc.workers.local_processes import LocalProcesses, thread_variables
from smgeo.hpc.workers.ray_cluster import ray_nodes

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Workers:
    """Options of a command about workers on a SLURM machine: `--cluster`, `--workers`, `--partition` and `--account`.

    Attributes
    ----------
    system : str or Path, optional
        A site profile, by name or path; without one, the command works in its own process.
    count, partition, account : optional
        As for `smgeo.hpc.workers.dask_cluster.dask_workers`.

    Raises
    ------
    SmgeoError
        If the number of workers is below 1, or something is set without a machine.
    """

    system: str | Path | None = None
    count: int | None = None
    partition: str | None = None
    account: str | None = None

    def __post_init__(self) -> None:
        given = {"--workers": self.count, "--partition": self.partition, "--account": self.account}
        asked = [name for name, value in given.items() if value is not None]
        if self.system is None and asked:
            raise SmgeoError(
                f"{', '.join(asked)}: applies only to workers of a cluster; give --cluster NAME too, or leave it out"
            )
        if self.count is not None and self.count < 1:
            raise SmgeoError(f"--workers must be 1 or more; got {self.count}")


class LocalMachine:
    """Work of this process only: cubes on its threads, searches on a Ray of this machine."""

    def cubes(self, *, remote: bool = False) -> AbstractContextManager[None]:
        """Compute regions of cubes here while the context lasts."""
        return nullcontext()

    def start_searches(self) -> None:
        """Prepare the machine for the trials of searches."""

    @property
    def network(self) -> dict[str, str | None]:
        """Return the rule for the addresses by which processes reach each other, as in a site profile."""
        return {}

    def start(self, command: list[str], log: Path, count: int) -> LocalProcesses | Step:
        """Start a command `count` times, each with its number in `SLURM_PROCID`."""
        return LocalProcesses(command, log, count, thread_variables(max(CPU_COUNT // count, 1)))

    def close(self) -> None:
        """End all workers."""


class Cluster(LocalMachine):
    """A SLURM machine, by its profile: Dask workers for cubes, and inside a job of several nodes Ray for searches.

    Parameters
    ----------
    asked : Workers
        Options of the command; `system` must be set.
    folder : str or Path
        A folder that all nodes see, for scripts and logs.
    say : callable
        Called with a message about what is started or waited for.
    """

    def __init__(self, asked: Workers, folder: str | Path, say: Callable[[str], None] = lambda text: None) -> None:
        assert asked.system is not None
        self.site = load_site(asked.system)
        self.allocation = Allocation.current()
        self._folder, self._asked, self._say = Path(folder).absolute(), asked, say
        self._partition = (
            self.site.partition(asked.partition)[0]
            if self.allocation is None
            else os.environ.get("SLURM_JOB_PARTITION")
        )
        self._stack = ExitStack()
        self._client: Client | None = None
        self._reasons: list[str] = []  # for which workers were lost
        self._has_ray = False

    @contextmanager
    def cubes(self, *, remote: bool = False) -> Iterator[None]:
        """Compute regions on Dask workers while the context lasts.

        This process computes them if a `remote` source is read and the workers do not reach the internet.
        """
        if remote and not self._reaches_internet():
            yield
            return
        if self._client is None:
            made = dask_workers(
                self.site,
                self._folder,
                self.allocation,
                self._asked.count,
                self._partition,
                self._asked.account,
                self._say,
                self._reasons.append,
            )
            self._client = self._stack.enter_context(made)
        try:
            with self._client.as_current():
                yield
        except SmgeoError as error:
            if self._reasons:
                raise SmgeoError(f"{error}: {self._reasons[-1]}") from None
            raise

    def start_searches(self) -> None:
        """Start Ray on all nodes of the job, until `close`; outside a job and on one node, searches start their own."""
        if self.allocation is not None and len(self.allocation.nodes) > 1 and not self._has_ray:
            self._stack.enter_context(ray_nodes(self.site, self._folder, self.allocation, self._say))
            self._has_ray = True

    @property
    def network(self) -> dict[str, str | None]:
        """Return the rule for the addresses by which processes reach each other, as in a site profile."""
        return self.site.network.model_dump()

    def start(self, command: list[str], log: Path, count: int) -> LocalProcesses | Step:
        """Start a command `count` times, on the nodes of the job in turn, or on this machine outside a job."""
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


def find_machine(asked: Workers, folder: str | Path, say: Callable[[str], None] = lambda text: None) -> LocalMachine:
    """Return the machine that a command works on: this process, or the SLURM machine of a profile. Arguments as for `Cluster`.

    Raises
    ------
    SmgeoError
        If there is no such profile.
    """
    return LocalMachine() if asked.system is None else Cluster(asked, folder, say)
