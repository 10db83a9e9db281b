"""What a job asks for, checked against what its site allows, before any script is written."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from smgeo.errors import SmgeoError, nearest
from smgeo.hpc.sites.profile import (
    UNIT_MB,
    Line,
    PartitionSpec,
    Plain,
    Site,
    WallTime,
    WholePath,
    format_time,
    parse_time,
)
from smgeo.recipe.spec import Spec

WORKLOADS = ("run", "cube", "train", "tune", "predict", "any")
# How `any` starts the user's own program: one process a task by srun, or by what the software brings.
LAUNCHERS = ("srun", "pytorch-ddp", "horovod", "deepspeed", "tensorflow")
# Those whose processes are started by srun, one for each GPU; the others start their own on each node.
_RANK_A_GPU = ("horovod", "deepspeed")
_ONE_TASK = ("pytorch-ddp", "tensorflow")
_HOUR, _RESTARTS, _STOP_BEFORE_S = 3600, 10, 300
_MEMORY = re.compile(r"(\d+)([KMGT])", re.IGNORECASE)
_ARRAY = re.compile(r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%\d+)?")
_DEPENDENCY = re.compile(
    r"(singleton|(after|afterany|afterok|afternotok|aftercorr)(:\d+(_\d+)?(\+\d+)?)+)"
    r"([,?](singleton|(after|afterany|afterok|afternotok|aftercorr)(:\d+(_\d+)?(\+\d+)?)+))*"
)
_MAIL = re.compile(r"[^\s@,;'\"<>|&$`\\]+@[A-Za-z0-9.-]+")
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


def _matching(pattern: re.Pattern[str], form: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{form}; got {value!r}")
        return value

    return AfterValidator(check)


def parse_memory(text: str) -> float:
    """Megabytes of a memory as SLURM writes it, with its unit: SLURM would take a bare 64 for megabytes.

    >>> parse_memory("32G"), parse_memory("500M")
    (32768, 500)
    """
    found = _MEMORY.fullmatch(text)
    if not found or not int(found[1]):
        raise SmgeoError(f"a memory is a whole number with K, M, G or T, such as 32G; got {text!r}")
    return int(found[1]) * UNIT_MB[found[2].upper()]


def _memory(value: str) -> str:
    parse_memory(value)
    return value


class JobRequest(Spec):
    """What a job asks of SLURM; all of it of each node, but `nodes`.

    Attributes
    ----------
    cpus, gpus, memory
        By default the CPUs of a node, and of GPUs and memory what SLURM gives.
    tasks : int
        Processes that `any` starts on each node.
    time : str
        Wall time; by default an hour, or the partition's limit where that is shorter.
    stop_before_s : int
        Seconds before the wall time's end at which the job is told to stop and go back to the queue; 300 by default, or a quarter of
        a shorter time. SLURM looks at its clock every 30 to 60 s.
    restarts : int
        How often a job may go back to the queue by itself; by default 10 times, and `any` never, since a program that keeps
        nothing would begin anew each time.
    """

    partition: Plain | None = None
    nodes: int = Field(1, ge=1)
    tasks: int | None = Field(None, ge=1)
    cpus: int | None = Field(None, ge=1)
    gpus: int | None = Field(None, ge=0)
    memory: Annotated[str, AfterValidator(_memory)] | None = None
    time: WallTime | None = None
    account: Plain | None = None
    qos: Plain | None = None
    job_name: Plain | None = None
    array: Annotated[str, _matching(_ARRAY, "an array is such as 0-9, 1,3,5 or 0-99%4")] | None = None
    dependency: Annotated[str, _matching(_DEPENDENCY, "a dependency is such as afterok:123 or afterany:1:2")] | None = (
        None
    )
    mail: Annotated[str, _matching(_MAIL, "an address for mail is such as name@example.org")] | None = None
    mail_type: tuple[str, ...] = ("END", "FAIL", "REQUEUE")
    venv: WholePath | None = None
    conda: Line | None = None
    container: WholePath | None = None
    launcher: Literal["srun", "pytorch-ddp", "horovod", "deepspeed", "tensorflow"] = "srun"
    stop_before_s: int | None = Field(None, ge=1, le=65_535)
    restarts: int | None = Field(None, ge=0)

    @field_validator("mail_type")
    @classmethod
    def _known_types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            if kind not in _MAIL_TYPES:
                raise ValueError(f"unknown kind of mail {kind!r}; {nearest(kind, _MAIL_TYPES)}")
        return value


def fit_request(request: JobRequest, site: Site, workload: str) -> dict[str, Any]:
    """All values of a job's script header, after checking them against the site's limits.

    Raises
    ------
    SmgeoError
        Naming the option, what was asked and the limit.
    """
    name, limits = site.partition(request.partition)
    where = f"{site.name}'s partition {name}" if name else site.name
    _check_most("--nodes", request.nodes, limits.nodes, f"{where} gives a job at most", "nodes")
    gpus = _choose_gpus(request, site, name, limits)
    cpus = request.cpus if request.cpus is not None else limits.cores
    _check_most("--cpus", request.cpus, limits.cores, f"a node of {where} has", "cores")
    if (
        request.memory is not None
        and limits.memory_gb is not None
        and parse_memory(request.memory) > limits.memory_gb * 1024
    ):
        raise SmgeoError(
            f"--memory {request.memory}: a node of {where} has {limits.memory_gb:g}G; ask for that or less"
        )
    account = request.account
    if site.account_required and account is None:
        raise SmgeoError(
            f"--account is missing: {site.name} runs no job without a project's account; give --account NAME"
        )
    seconds = _wall_time(request, limits, where)
    if request.tasks is not None and workload != "any":
        raise SmgeoError(f"--tasks {request.tasks} is for `any`; {workload} starts its own processes on each node")
    if request.launcher != "srun" and workload != "any":
        raise SmgeoError(f"--launcher {request.launcher} is for `any`; {workload} starts its own processes")
    tasks = request.tasks or (gpus if request.launcher in _RANK_A_GPU else 0) or 1
    if tasks > 1 and request.launcher in _ONE_TASK:
        raise SmgeoError(
            f"--tasks {tasks}: {request.launcher} takes one on each node, and starts or is the others itself; leave it out"
        )
    if cpus is not None and tasks > cpus:
        raise SmgeoError(
            f"--tasks {tasks}: more than the {cpus} CPUs of a node that are asked for; give --cpus, or fewer tasks"
        )
    stop_before_s = min(_STOP_BEFORE_S, seconds // 4) if request.stop_before_s is None else request.stop_before_s
    if stop_before_s >= seconds:
        raise SmgeoError(
            f"--stop-before {stop_before_s} s is not less than the wall time, {format_time(seconds)}; give a longer --time "
            "or a smaller --stop-before"
        )
    if sum(v is not None for v in (request.venv, request.conda, request.container)) > 1:
        raise SmgeoError("--venv, --conda and --container: give one of them")
    return {
        "partition": name,
        "nodes": request.nodes,
        "tasks": tasks,
        "cpus": cpus,
        "cpus_per_task": None if cpus is None else cpus // tasks,
        # TensorFlow lets whoever reaches a process that trains with others run anything in it, so nobody else may be on the node.
        "exclusive": limits.exclusive or cpus is None or (workload == "train" and request.nodes * max(gpus, 1) > 1),
        "gpus": gpus,
        "memory": request.memory,
        "time": format_time(seconds),
        "stop_before_s": stop_before_s,
        "account": account,
        "restarts": request.restarts if request.restarts is not None else 0 if workload == "any" else _RESTARTS,
    }


def _check_most(option: str, asked: int | None, most: int | None, limit: str, what: str) -> None:
    if asked is not None and most is not None and asked > most:
        raise SmgeoError(f"{option} {asked}: {limit} {most} {what}; ask for {most} or fewer")


def _choose_gpus(request: JobRequest, site: Site, name: str | None, limits: PartitionSpec) -> int:
    """GPUs of each node: those asked for, else all that a node of the partition is known to have."""
    if request.gpus and limits.gpus == 0:
        with_gpus = [p for p, spec in site.partitions.items() if spec.gpus]
        hint = f"partitions with GPUs: {', '.join(with_gpus)}" if with_gpus else "no partition of its profile has any"
        raise SmgeoError(f"--gpus {request.gpus}: a node of {site.name}'s partition {name} has 0 GPUs; {hint}")
    _check_most("--gpus", request.gpus, limits.gpus, f"a node of {site.name}'s partition {name} has", "GPUs")
    return request.gpus if request.gpus is not None else limits.gpus or 0


def _wall_time(request: JobRequest, limits: PartitionSpec, where: str) -> int:
    most = parse_time(limits.time_limit) if limits.time_limit else None
    if request.time is None:
        return min(_HOUR, most) if most else _HOUR
    seconds = parse_time(request.time)
    if not seconds:
        raise SmgeoError("--time 0: SLURM takes it for no limit, which no partition allows; give HH:MM:SS")
    if most is not None and seconds > most:
        raise SmgeoError(
            f"--time {request.time}: {where} lets a job run for at most {limits.time_limit}; ask for that or less"
        )
    return seconds
