"""Requests of jobs, checked against the limits of a site before any script is written."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from smgeo.errors import SmgeoError, nearest
from smgeo.hpc.sites.profile import (
    LONGEST_LIST,
    PLAIN,
    UNIT_MB,
    Constraint,
    Line,
    PartitionSpec,
    Plain,
    Site,
    WallTime,
    WholePath,
    format_time,
    matching,
    parse_time,
)
from smgeo.recipe.spec import Spec

# Launchers whose processes srun starts, one for each GPU; those of `_ONE_TASK` start their own on each node.
_RANK_A_GPU = ("horovod", "deepspeed")
_ONE_TASK = ("pytorch-ddp", "tensorflow")
_HOUR, _RESTARTS, _STOP_BEFORE_S = 3600, 10, 300
# SLURM counts CPUs and tasks of a node in 16 bits; no machine has so many nodes.
_MOST_OF_NODE, _MOST = 65_533, 1_000_000
# Only ASCII: \d means the digits of all scripts, which SLURM does not read.
_MEMORY = re.compile(r"(\d{1,9})([KMGT])", re.IGNORECASE | re.ASCII)
_ARRAY = re.compile(r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%\d+)?", re.ASCII)
_DEPENDENCY = re.compile(
    r"(singleton|(after|afterany|afterok|afternotok|aftercorr)(:\d+(_\d+)?(\+\d+)?)+)"
    r"([,?](singleton|(after|afterany|afterok|afternotok|aftercorr)(:\d+(_\d+)?(\+\d+)?)+))*",
    re.ASCII,
)
_PARTITIONS = re.compile(rf"{PLAIN.pattern}(,{PLAIN.pattern})*")
_MAIL = re.compile(r"[A-Za-z0-9.!#%*+/=?^_{}~-]+@[A-Za-z0-9.-]+")
_MAIL_TYPES = (
    "BEGIN",
    "END",
    "FAIL",
    "REQUEUE",
    "TIME_LIMIT",
    "TIME_LIMIT_50",
    "TIME_LIMIT_80",
    "TIME_LIMIT_90",
    "ALL",
)


def parse_memory(text: str) -> float:
    """Return the megabytes of an amount of memory, which needs a unit: SLURM would read a bare 64 as megabytes. 0 is all of a node.

    >>> parse_memory("32G"), parse_memory("500M"), parse_memory("0")
    (32768, 500, 0)
    """
    if text == "0":
        return 0
    found = _MEMORY.fullmatch(text)
    if not found or not int(found[1]):
        raise SmgeoError(
            f"memory must be a whole number with K, M, G or T, such as 32G, or 0 for all of a node; got {text!r}"
        )
    return int(found[1]) * UNIT_MB[found[2].upper()]


def _memory(value: str) -> str:
    parse_memory(value)
    return value


class JobRequest(Spec):
    """Request of a job; everything but `nodes` is per node.

    Attributes
    ----------
    cpus, gpus, memory
        By default all CPUs and GPUs of a node, and of memory what SLURM gives, or all of it (0) if the job has its nodes alone.
    tasks : int
        Number of processes that `any` starts on each node.
    time : str
        Wall time; by default one hour, or the partition's limit if that is shorter.
    partition : str
        One, or several (`cpu,long`), of which SLURM takes the one that is free first.
    constraint : str
        Features that the nodes must have, in place of the partition's.
    launcher : str
        How `any` starts the user's program: one process per task by srun, or the launcher of a library.
    stop_before_s : int
        Seconds before the end of the wall time at which the job is asked to stop and go back to the queue; by default 300, or a
        quarter of a shorter time. SLURM checks its clock every 30 to 60 s.
    restarts : int
        How often a job may go back to the queue by itself; by default 10 times, and never for `any`, because a program that keeps
        nothing would start from scratch each time.
    """

    partition: Annotated[str, matching(_PARTITIONS, "partitions must look like cpu or cpu,long")] | None = None
    nodes: int = Field(1, ge=1, le=_MOST)
    tasks: int | None = Field(None, ge=1, le=_MOST_OF_NODE)
    cpus: int | None = Field(None, ge=1, le=_MOST_OF_NODE)
    gpus: int | None = Field(None, ge=0, le=_MOST_OF_NODE)
    memory: Annotated[str, AfterValidator(_memory)] | None = None
    time: WallTime | None = None
    account: Plain | None = None
    qos: Plain | None = None
    constraint: Constraint | None = None
    job_name: Plain | None = None
    array: Annotated[str, matching(_ARRAY, "an array must look like 0-9, 1,3,5 or 0-99%4", LONGEST_LIST)] | None = None
    dependency: (
        Annotated[str, matching(_DEPENDENCY, "a dependency must look like afterok:123 or afterany:1:2", LONGEST_LIST)]
        | None
    ) = None
    mail: Annotated[str, matching(_MAIL, "a mail address must look like name@example.org")] | None = None
    mail_type: tuple[str, ...] = ("END", "FAIL", "REQUEUE")
    venv: WholePath | None = None
    conda: Line | None = None
    container: WholePath | None = None
    launcher: Literal["srun", "pytorch-ddp", "horovod", "deepspeed", "tensorflow"] = "srun"
    stop_before_s: int | None = Field(None, ge=1, le=65_535)
    restarts: int | None = Field(None, ge=0, le=_MOST)

    @field_validator("mail_type")
    @classmethod
    def _known_types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            if kind not in _MAIL_TYPES:
                raise ValueError(f"unknown mail type {kind!r}; {nearest(kind, _MAIL_TYPES)}")
        return value


@dataclass(frozen=True)
class JobHeader:
    """Values of a script's `#SBATCH` lines, checked against the site; CPUs, GPUs and memory are per node."""

    partition: str | None
    nodes: int
    tasks: int
    cpus: int | None
    cpus_per_task: int | None
    exclusive: bool
    gpus: int
    gpu_requests: tuple[str, ...]
    memory_request: str | None
    constraint: str | None
    module_lines: tuple[str, ...]
    time: str
    stop_before_s: int
    account: str | None
    restarts: int

    @property
    def ranks(self) -> int:
        """Number of processes that train a network together: one per GPU, or one per node without GPUs."""
        return self.nodes * max(self.gpus, 1)


def fit_request(request: JobRequest, site: Site, workload: str) -> JobHeader:
    """Fill in what a request leaves out, and check it against the site's limits.

    Raises
    ------
    SmgeoError
        Naming the option, the value and the limit.
    """
    name, limits = site.partition(request.partition)
    where = f"{site.name}'s partition {name}" if name else site.name
    _check_most("--nodes", request.nodes, limits.nodes, f"{where} gives a job at most", "nodes")
    gpus = _choose_gpus(request, site, name, limits)
    cpus = request.cpus if request.cpus is not None else limits.cores
    _check_most("--cpus", request.cpus, limits.cores, f"a node of {where} has", "cores")
    _check_memory(request, site, limits, where)
    if site.account_required and request.account is None:
        raise SmgeoError(f"--account is missing: {site.name} requires a project account; give --account NAME")
    seconds = _wall_time(request, limits, where)
    tasks = _choose_tasks(request, workload, cpus, gpus)
    stop_before_s = _choose_stop(request, seconds)
    if sum(v is not None for v in (request.venv, request.conda, request.container)) > 1:
        raise SmgeoError("--venv, --conda and --container: give only one of them")
    restarts = 0 if workload == "any" else _RESTARTS
    header = JobHeader(
        partition=name,
        nodes=request.nodes,
        tasks=tasks,
        cpus=cpus,
        cpus_per_task=None if cpus is None else cpus // tasks,
        exclusive=limits.exclusive or cpus is None,
        gpus=gpus,
        gpu_requests=_ask_gpus(site, limits, gpus, request.nodes),
        memory_request=None,
        constraint=request.constraint or limits.constraint,
        module_lines=site.module_lines(limits),
        time=format_time(seconds),
        stop_before_s=stop_before_s,
        account=request.account,
        restarts=restarts if request.restarts is None else request.restarts,
    )
    # TensorFlow lets anyone who reaches a process that trains with others run code in it, so nobody else may be on the node.
    header = replace(header, exclusive=True) if workload == "train" and header.ranks > 1 else header
    # A job that has its nodes alone still gets the partition's default memory, if it does not ask for all of it.
    memory = request.memory or ("0" if header.exclusive else None)
    # What SLURM counts: a job that has its nodes alone gets all their CPUs, and another one the same number for each task.
    counted = (limits.cores if header.exclusive else None) or tasks * (header.cpus_per_task or 0)
    return replace(header, memory_request=ask_memory(site, limits, memory, counted))


def _ask_gpus(site: Site, limits: PartitionSpec, gpus: int, nodes: int) -> tuple[str, ...]:
    """Return the options that ask for GPUs, in the site's way.

    A number for the whole job (`--gpus`) says nothing of a node: SLURM gives 4 GPUs on two nodes as 3 and 1 if it likes. So a job of
    several nodes also asks for those of each.

    >>> _ask_gpus(Site(name="a"), PartitionSpec(gpu_type="a100"), 2, nodes=3)
    ('gres=gpu:a100:2',)
    >>> _ask_gpus(Site(name="a", gpu_option="gpus"), PartitionSpec(), 2, nodes=3)
    ('gpus=6', 'gpus-per-node=2')
    """
    if not gpus:
        return ()
    kind = f"{limits.gpu_type}:" if limits.gpu_type else ""
    if site.gpu_option == "gres":
        return (f"gres=gpu:{kind}{gpus}",)
    each = f"gpus-per-node={kind}{gpus}"
    if site.gpu_option == "gpus-per-node":
        return (each,)
    return (f"gpus={kind}{gpus * nodes}", *((each,) if nodes > 1 else ()))


def ask_memory(site: Site, limits: PartitionSpec, memory: str | None, cpus: int | None) -> str | None:
    """Return the option that asks for memory in the site's way: for each node, or for each of the CPUs that a job has there.

    None if nothing is asked for, or the site takes no request, or its numbers are not known.

    Parameters
    ----------
    memory : str, optional
        Of a node; 0 is all of it.
    cpus : int, optional
        CPUs of a node that the job gets.

    >>> site, limits = Site(name="a", memory_option="mem-per-cpu"), PartitionSpec(cores=64, memory_gb=128)
    >>> ask_memory(site, limits, "32G", 8), ask_memory(site, limits, "0", 8), ask_memory(Site(name="b"), limits, "32G", 8)
    ('mem-per-cpu=4096M', 'mem-per-cpu=2048M', 'mem=32G')
    """
    if memory is None or site.memory_option == "none":
        return None
    if site.memory_option == "mem":
        return f"mem={memory}"
    megabytes, cpus = (parse_memory(memory), cpus) if memory != "0" else ((limits.memory_gb or 0) * 1024, limits.cores)
    # 0 would be all of the node's memory for each CPU.
    return f"mem-per-cpu={max(int(megabytes / cpus), 1)}M" if megabytes and cpus else None


def _check_memory(request: JobRequest, site: Site, limits: PartitionSpec, where: str) -> None:
    if request.memory is not None and site.memory_option == "none":
        raise SmgeoError(
            f"--memory {request.memory}: {where} takes no request for memory (memory_option: none); leave it out"
        )
    if request.memory is not None and site.memory_option == "mem-per-cpu":
        _check_memory_of_cpus(request, limits, where)
    if request.memory is None or limits.memory_gb is None:
        return
    if parse_memory(request.memory) > limits.memory_gb * 1024:
        raise SmgeoError(
            f"--memory {request.memory}: a node of {where} has {limits.memory_gb:g}G; ask for that or less"
        )


def _check_memory_of_cpus(request: JobRequest, limits: PartitionSpec, where: str) -> None:
    """Check that the memory of a CPU can be worked out, where a site counts it so."""
    lacking = f"--memory {request.memory}: {where} counts memory by CPU, and"
    if request.memory == "0" and (limits.memory_gb is None or limits.cores is None):
        raise SmgeoError(
            f"{lacking} its profile lacks memory_gb or cores of the partition; add them, or give an amount such as 32G"
        )
    if (request.cpus or limits.cores) is None:
        raise SmgeoError(f"{lacking} the CPUs are unknown; give --cpus")


def _choose_tasks(request: JobRequest, workload: str, cpus: int | None, gpus: int) -> int:
    """Processes that `srun` starts on each node: as requested, or one per GPU where the launcher needs that."""
    if request.tasks is not None and workload != "any":
        raise SmgeoError(
            f"--tasks {request.tasks} applies only to `any`, and {workload} starts its own processes; leave it out"
        )
    if request.launcher != "srun" and workload != "any":
        raise SmgeoError(
            f"--launcher {request.launcher} applies only to `any`, and {workload} starts its own processes; leave it out"
        )
    tasks = request.tasks or (gpus if request.launcher in _RANK_A_GPU else 0) or 1
    if tasks > 1 and request.launcher in _ONE_TASK:
        raise SmgeoError(
            f"--tasks {tasks}: {request.launcher} takes one task on each node and starts the other processes itself; "
            "leave it out"
        )
    if cpus is not None and tasks > cpus:
        raise SmgeoError(
            f"--tasks {tasks}: the job asks for only {cpus} CPUs of a node; give more --cpus, or fewer tasks"
        )
    return tasks


def _choose_stop(request: JobRequest, seconds: int) -> int:
    """Seconds before the end of the wall time at which the job is asked to stop."""
    if request.stop_before_s is None:
        return min(_STOP_BEFORE_S, seconds // 4)
    if request.stop_before_s >= seconds:
        raise SmgeoError(
            f"--stop-before {request.stop_before_s} s is not less than the wall time, {format_time(seconds)}; give a longer "
            "--time or a smaller --stop-before"
        )
    return request.stop_before_s


def _check_most(option: str, asked: int | None, most: int | None, limit: str, what: str) -> None:
    if asked is not None and most is not None and asked > most:
        raise SmgeoError(f"{option} {asked}: {limit} {most} {what}; ask for {most} or fewer")


def _choose_gpus(request: JobRequest, site: Site, name: str | None, limits: PartitionSpec) -> int:
    """Return the GPUs of each node: as requested, or all that a node of the partition is known to have."""
    if request.gpus and limits.gpus == 0:
        with_gpus = [p for p, spec in site.partitions.items() if spec.gpus]
        hint = f"partitions with GPUs: {', '.join(with_gpus)}" if with_gpus else "no partition of its profile has GPUs"
        raise SmgeoError(f"--gpus {request.gpus}: a node of {site.name}'s partition {name} has 0 GPUs; {hint}")
    _check_most("--gpus", request.gpus, limits.gpus, f"a node of {site.name}'s partition {name} has", "GPUs")
    return request.gpus if request.gpus is not None else limits.gpus or 0


def _wall_time(request: JobRequest, limits: PartitionSpec, where: str) -> int:
    most = parse_time(limits.time_limit) if limits.time_limit else None
    if request.time is None:
        return min(_HOUR, most) if most else _HOUR
    seconds = parse_time(request.time)
    if not seconds:
        raise SmgeoError("--time 0: SLURM reads it as no limit, which no partition allows; give HH:MM:SS")
    if most is not None and seconds > most:
        raise SmgeoError(
            f"--time {request.time}: {where} lets a job run for at most {limits.time_limit}; ask for that or less"
        )
    return seconds
