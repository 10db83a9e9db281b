"""Dask workers on SLURM: separate jobs from a login node, or processes on the nodes of the current job."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from smgeo.errors import SmgeoError, missing_extra
from smgeo.files import JsonObject
from smgeo.hpc.jobs.request import ask_memory
from smgeo.hpc.jobs.script import check_script
from smgeo.hpc.sites.network import find_address
from smgeo.hpc.sites.profile import PLAIN, PLAIN_FORM, NetworkSpec, Site, format_time, parse_time
from smgeo.hpc.workers.allocation import Allocation, Step
from smgeo.hpc.workers.worker_jobs import WorkerJobs

if TYPE_CHECKING:
    from distributed import Client

# A region whose workers died this many times is given up: the region itself kills them.
ALLOWED_FAILURES = 3
# Seconds in which the workers of an allocation must start; separate jobs wait in the queue without a limit.
_START_S = 180
# Share of a node's memory; the rest is for this process, and for memory that workers do not count.
_WORKERS_SHARE = 0.8
# No quoting reaches `#SBATCH` lines.
_PATH = re.compile(r"[A-Za-z0-9/_.+@=-]+")
_LOOK_S, _NO_WORKERS_S = 2, 60


@contextmanager
def dask_workers(
    site: Site,
    folder: Path,
    allocation: Allocation | None = None,
    workers: int | None = None,
    partition: str | None = None,
    account: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    lost: Callable[[str], None] = lambda reason: None,
) -> Iterator[Client]:
    """Yield a client of Dask workers on SLURM; connections are encrypted and need a certificate of this run.

    Parameters
    ----------
    site : Site
        The machine's profile.
    folder : Path
        A folder that all nodes see, for scripts, logs and certificates.
    allocation : Allocation, optional
        Job that this process runs in; without one, workers are separate jobs.
    workers : int, optional
        Outside an allocation, the maximum number of jobs: 2 by default, none while there is no work. Inside, the total number; by default
        as many as the CPUs of the nodes give, `workers.threads` of the profile each.
    partition, account : str, optional
        Partition and project account of the jobs.
    say : callable
        Called with the dashboard's address, and with what is waited for.
    lost : callable
        Called with the reason if jobs of workers fail again and again; the client is closed then.

    Raises
    ------
    SmgeoError
        If dask-jobqueue is not installed, the profile lacks values, or the workers of an allocation do not start.
    """
    try:
        import dask_jobqueue  # noqa: F401 - asked for here, with a message of its own
    except ImportError:
        raise missing_extra("Dask workers on SLURM", "hpc") from None
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = (
        _inside(site, folder, workers, allocation, say)
        if allocation
        else _jobs(site, folder, workers, partition, account, say, lost)
    )
    with made as client:
        say(f"Dask dashboard: {client.dashboard_link}")
        yield client


@contextmanager
def _jobs(
    site: Site,
    folder: Path,
    workers: int | None,
    partition: str | None,
    account: str | None,
    say: Callable[[str], None],
    lost: Callable[[str], None],
) -> Iterator[Client]:
    """Run workers as separate jobs, submitted when there is work and ended when there is none."""
    import dask
    from distributed import Client
    from distributed.security import Security

    from smgeo.hpc.workers.submitted_job import SubmittedJobs

    options = job_options(site, folder, partition, account, say)
    most = workers or 2
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": ALLOWED_FAILURES}))
        secret = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tls-", dir=folder)))
        security = Security(**write_certificates(secret), require_encryption=True)
        cluster = stack.enter_context(SubmittedJobs(**options, security=security))
        if not shutil.which("sbatch"):
            raise SmgeoError(
                f"sbatch is not found, so no workers of {site.name} can be submitted; run this on a login node of it, or without --cluster"
            )
        check_script(cluster.job_script())  # this process would wait forever for a job that SLURM refuses
        client = stack.enter_context(Client(cluster, set_as_default=False))
        cluster.adapt(
            minimum_jobs=0,
            maximum_jobs=most,
            interval="2s",
            target_duration="1s",
            wait_count=max(1, math.ceil(site.workers.idle_s / 2)),
        )
        say(
            f"Dask workers: up to {most} jobs of {options['cores']} CPU(s) in {options['queue'] or 'the default partition'}; logs in {folder}"
        )
        stack.callback(WorkerJobs(cluster, client, folder, lost, say).stop)
        yield client


def _login_address(network: NetworkSpec, say: Callable[[str], None]) -> str:
    """Return the address of the scheduler, on a login node that may lack the fast network of the nodes."""
    lacks = network.interface and network.interface not in psutil.net_if_addrs()
    address = find_address(NetworkSpec() if lacks else network)
    if lacks:
        say(
            f"network.interface {network.interface!r} is not on this node; workers use it, and reach the scheduler at {address}"
        )
    return address


def job_options(
    site: Site,
    folder: Path,
    partition: str | None = None,
    account: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> JsonObject:
    """Return the arguments of `dask_jobqueue.SLURMCluster`.

    Raises
    ------
    SmgeoError
        If the profile lacks the cores or the memory of a worker's job, or an account is missing.
    """
    name, limits = site.partition(partition)
    spec = site.workers
    if not _PATH.fullmatch(str(folder)):
        raise SmgeoError(
            f"the scripts of Dask's workers cannot contain the path {str(folder)!r}: only letters, digits and "
            "/ _ . + @ = - are allowed; give another --out"
        )
    cores = spec.cores or limits.cores
    memory_gb = spec.memory_gb or limits.memory_gb
    if cores is None or memory_gb is None:
        lacking = " and ".join(k for k, v in (("workers.cores", cores), ("workers.memory_gb", memory_gb)) if v is None)
        raise SmgeoError(
            f"the profile of {site.name} lacks {lacking}, which the jobs of Dask workers need; add them to a profile of your "
            "own (`smgeo systems new`)"
        )
    account = account or os.environ.get("SBATCH_ACCOUNT") or os.environ.get("SLURM_ACCOUNT")
    if site.account_required and not account:
        raise SmgeoError(f"--account is missing: {site.name} requires a project account; give --account NAME")
    if account and not PLAIN.fullmatch(account):
        raise SmgeoError(f"--account {account!r}: {PLAIN_FORM}")
    seconds = parse_time(spec.time)
    if limits.time_limit is not None:
        seconds = min(seconds, parse_time(limits.time_limit))
    if site.container:
        raise SmgeoError(
            f"the profile of {site.name} has a container, but worker jobs start this Python; use a venv or conda, or "
            "`smgeo jobscript ... run`"
        )
    node = limits.model_copy(update={"cores": limits.cores or cores, "memory_gb": limits.memory_gb or memory_gb})
    memory = ask_memory(site, node, "0" if limits.exclusive else f"{int(memory_gb * 1024)}M", cores)
    scratch = site.scratch or tempfile.gettempdir()
    # A worker stops before SLURM ends it, and another job takes over; the region that it was computing is computed again.
    leave = ["--lifetime", f"{max(seconds - 120, seconds // 2)}s", "--lifetime-stagger", "20s"]
    return {
        "queue": name,
        "account": account,
        "cores": cores,
        "processes": max(cores // spec.threads, 1),
        "memory": f"{memory_gb} GiB",
        "job_directives_skip": ["--mem="],  # rounded up to gigabytes, and a node may have a little less
        "walltime": format_time(seconds),
        "job_extra_directives": [
            "--export=ALL",
            *site.directives,
            *(["--exclusive"] if limits.exclusive else []),
            *([f"--constraint={limits.constraint}"] if limits.constraint else []),
            *([f"--{memory}"] if memory else []),
        ],
        "shebang": "#!/bin/bash -l",
        "job_script_prologue": [
            *site.module_lines(limits),
            *site.setup,
            *(f"export {k}={shlex.quote(v)}" for k, v in site.variables.items()),
            # A folder that only its user can read: others could put files where Dask keeps values.
            f"SMGEO_SCRATCH=$(mktemp -d {shlex.quote(f'{scratch}/smgeo-dask-XXXXXXXX')}) || exit 1",
            """trap 'rm -rf "$SMGEO_SCRATCH"' EXIT""",
        ],
        "worker_extra_args": leave,
        "local_directory": '"$SMGEO_SCRATCH"',
        "log_directory": str(folder),
        "interface": site.network.interface,
        "scheduler_options": {
            "dashboard_address": ":0",
            "host": _login_address(site.network, say),
        },
        "death_timeout": 120,
        "name": "smgeo",
        "job_name": "smgeo-dask",
        "python": shlex.quote(sys.executable),
    }


@contextmanager
def _inside(
    site: Site, folder: Path, workers: int | None, allocation: Allocation, say: Callable[[str], None]
) -> Iterator[Client]:
    """Run workers on the nodes of this job, started by one step of it."""
    from distributed import Client

    threads = min(site.workers.threads, allocation.cpus)
    workers = workers or len(allocation.nodes) * max(allocation.cpus // threads, 1)
    on_a_node = math.ceil(workers / len(allocation.nodes))
    memory = None if allocation.memory_mb is None else int(allocation.memory_mb * 2**20 * _WORKERS_SHARE / on_a_node)
    with tempfile.TemporaryDirectory(prefix=f"dask-{allocation.job_id}-", dir=folder) as name:
        here = Path(name)
        security = write_certificates(here)
        asked = {
            "allowed_failures": ALLOWED_FAILURES,
            "network": site.network.model_dump(),
            "security": security,
            "worker": {
                "nthreads": threads,
                "memory_limit": memory or "auto",
            },
            "scratch": site.scratch or tempfile.gettempdir(),
        }
        (here / "dask.json").write_text(json.dumps(asked), encoding="utf-8")
        step = allocation.start(
            [sys.executable, "-m", "smgeo.hpc.workers.dask_ranks", str(here)],
            here / "dask-%t.log",
            tasks=workers + 1,
            cpus_per_task=1,
            # A lost worker must not end the others.
            flags=[*site.launcher.srun, "--kill-on-bad-exit=0"],
        )
        client, ended = None, threading.Event()
        try:
            file = here / "scheduler.json"
            step.wait_for(file.exists, _START_S, lambda: "Dask's scheduler did not start")
            from distributed.security import Security

            client = Client(
                scheduler_file=str(file), security=Security(**security, require_encryption=True), set_as_default=False
            )
            step.wait_for(
                lambda: len(client.scheduler_info(n_workers=-1)["workers"]) >= workers,
                _START_S,
                lambda: f"{len(client.scheduler_info(n_workers=-1)['workers'])} of {workers} Dask workers started",
            )
            say(f"Dask workers: {workers} of {threads} thread(s) on {', '.join(allocation.nodes)}")
            threading.Thread(target=_watch, args=(client, step, ended), daemon=True).start()
            yield client
        finally:
            ended.set()
            if client is not None and client.status == "running":
                client.shutdown()
                client.close()
            step.stop(after_s=10)


def _watch(client: Client, step: Step, ended: threading.Event) -> None:
    """Close the client when its scheduler or all workers are gone, because callers would wait for them forever."""
    seen = time.monotonic()
    while not ended.wait(_LOOK_S):
        try:
            there = bool(client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, RuntimeError, ValueError):  # the scheduler does not answer
            there = False
        if there:
            seen = time.monotonic()
        elif step.ended is not None or time.monotonic() - seen > _NO_WORKERS_S:
            client.close()
            return


def write_certificates(folder: Path) -> dict[str, str]:
    """Write a certificate and a key for this run to files that only its user can read; return arguments of `distributed.Security`."""
    from distributed.security import Security

    made = Security.temporary().get_tls_config_for_role("client")
    files = {}
    for name, text in (("ca_file", made["ca_file"]), ("cert", made["cert"]), ("key", made["key"])):
        file = folder / f"tls-{name}.pem"
        file.touch(0o600)
        file.write_text(text, encoding="utf-8")
        files[name] = str(file)
    return {
        "tls_ca_file": files["ca_file"],
        **{f"tls_{role}_{part}": files[part] for role in ("client", "scheduler", "worker") for part in ("cert", "key")},
    }
