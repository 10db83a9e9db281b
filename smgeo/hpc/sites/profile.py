"""Site profiles: resources and limits of a SLURM machine, and how programs start there; YAML, checked when read."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field, model_validator

from smgeo.errors import SmgeoError, nearest
from smgeo.hpc.sites.templates import cluster_folder
from smgeo.recipe.spec import Spec, parse_spec
from smgeo.recipe.yaml_format import load_yaml

# Names in `#SBATCH` lines, where nothing is quoted.
# A job's log has its name, and names of files have at most 255 bytes.
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+@-]{0,199}")
PLAIN_FORM = "letters, digits and _ . + @ - are allowed, at most 200"
# Lists of jobs, tasks and nodes can be long.
LONGEST_LIST = 65_536
# [0-9], because \d means the digits of all scripts, which SLURM does not read.
_TIME = re.compile(r"(?:(?P<days>[0-9]{1,4})-)?(?P<hours>[0-9]{1,4}):(?P<minutes>[0-9]{2}):(?P<seconds>[0-9]{2})")
_HOST_SUFFIX = re.compile(r"[A-Za-z0-9.-]*")
# Megabytes, as SLURM counts them.
UNIT_MB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}
_DIRECTIVE = re.compile(r"--?[A-Za-z].*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What sbatch(1) describes under --constraint: features joined by & or |, in parentheses, with counts, and one pair of brackets. A site's
# features may have a colon in their names (`GPU_MEM:16GB`). A comma, which sbatch reads but does not describe, is refused.
_FEATURE = r"[A-Za-z0-9_][A-Za-z0-9_.:-]*"
_COUNTED = rf"(?:{_FEATURE}|\({_FEATURE}(?:[&|]{_FEATURE})*\))(?:\*[1-9][0-9]{{0,5}})?"
_IN_BRACKETS = rf"\[{_COUNTED}(?:[&|]{_COUNTED})*\]"
_TERM = rf"(?:{_COUNTED}|{_IN_BRACKETS})"
_CONSTRAINT = re.compile(rf"(?![^\[]*\[[^\[]*\[){_TERM}(?:[&|]{_TERM})*")


def parse_time(text: str) -> int:
    """Return the seconds of a wall time, `HH:MM:SS` or `D-HH:MM:SS`.

    Raises
    ------
    SmgeoError
        If it has another form: SLURM reads a bare number as minutes and `10:30` as minutes and seconds, and many users mean hours.

    Examples
    --------
    >>> parse_time("02:00:00"), parse_time("1-12:30:00")
    (7200, 131400)
    """
    found = _TIME.fullmatch(text)
    if not found or int(found["minutes"]) > 59 or int(found["seconds"]) > 59:
        raise SmgeoError(f"a wall time must be HH:MM:SS or D-HH:MM:SS (half an hour: 00:30:00); got {text!r}")
    days, hours, minutes, seconds = (int(found[k] or 0) for k in ("days", "hours", "minutes", "seconds"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def format_time(seconds: int) -> str:
    """Return a wall time as SLURM writes it.

    >>> format_time(7200), format_time(131400)
    ('02:00:00', '1-12:30:00')
    """
    days, rest = divmod(seconds, 86_400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


def _time(value: str) -> str:
    parse_time(value)
    return value


def _one_line(value: str) -> str:
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError(f"must be one line; got {value!r}")
    return value


def _whole_path(value: str) -> str:
    if value.startswith("~") or "$" in value:
        raise ValueError(
            f"is used as written, so ~ and $ are not allowed; give the whole path, or use a line of setup; got {value!r}"
        )
    return _one_line(value)


def matching(pattern: re.Pattern[str], form: str, longest: int = 1000) -> AfterValidator:
    """Return the check that a whole text has a form. pydantic's own `pattern` is searched for, so that any text may follow it."""

    def check(value: str) -> str:
        if len(value) > longest:
            raise ValueError(f"has {len(value)} characters, and at most {longest} are allowed")
        if not pattern.fullmatch(value):
            raise ValueError(f"{form}; got {value!r}")
        return value

    return AfterValidator(check)


Plain = Annotated[str, matching(PLAIN, f"{PLAIN_FORM}, a letter or a digit first")]
Constraint = Annotated[
    str,
    matching(
        _CONSTRAINT, "a constraint must look like ib, ib&nvme, (amd|intel)&ib, [rack1|rack2] or [rack1*2&rack2*4]"
    ),
]
WallTime = Annotated[str, AfterValidator(_time)]
Line = Annotated[str, AfterValidator(_one_line)]
WholePath = Annotated[str, AfterValidator(_whole_path)]


class PartitionSpec(Spec):
    """Limits of a partition, and resources of its nodes. Values that are not known are left out, and not checked.

    Attributes
    ----------
    nodes : int
        Maximum number of nodes of a job.
    cores : int
        Cores of a node, as SLURM counts CPUs.
    memory_gb : float
        Memory of a node; 1 GB is 1024 MB, as for SLURM.
    gpus : int
        GPUs of a node; 0 if it has none.
    time_limit : str
        Maximum wall time, `HH:MM:SS` or `D-HH:MM:SS`.
    gpu_type : str
        Type of the GPUs where jobs must name it, such as `a100`.
    constraint : str
        Features that its nodes must have (`--constraint`).
    modules : tuple of str
        Modules of its jobs alone, after those of the site: jobs on CPUs need none of CUDA's.
    exclusive : bool
        If true, jobs get whole nodes.
    internet : bool
        If true, its nodes reach the internet.
    """

    nodes: int | None = Field(None, ge=1)
    cores: int | None = Field(None, ge=1)
    memory_gb: float | None = Field(None, gt=0)
    gpus: int | None = Field(None, ge=0)
    time_limit: WallTime | None = None
    gpu_type: Plain | None = None
    constraint: Constraint | None = None
    modules: tuple[Line, ...] = ()
    exclusive: bool = False
    internet: bool = False
    note: str = ""


class LauncherSpec(Spec):
    """Options of `srun`: flags of every step, and the type of MPI for programs that need one."""

    srun: tuple[Line, ...] = ()
    mpi: Plain | None = None


class NetworkSpec(Spec):
    """Address of a node: that of an interface, or of its name with a suffix; by default that of its name."""

    interface: Plain | None = None
    host_suffix: Annotated[str, matching(_HOST_SUFFIX, "letters, digits and . - are allowed")] = ""


class WorkersSpec(Spec):
    """Dask workers as separate jobs (`--cluster` on a login node); by default each asks for what its partition has.

    `threads` is per process, and a job has `cores // threads` processes; a job ends after `idle_s` without work.
    """

    cores: int | None = Field(None, ge=1)
    memory_gb: float | None = Field(None, gt=0)
    threads: int = Field(4, ge=1)
    time: WallTime = "01:00:00"
    idle_s: float = Field(60, gt=0)


class Site(Spec):
    """Profile of a SLURM machine, read from `cluster/sites/NAME.yaml` or a user's own file."""

    name: Plain
    title: Line = ""
    source: Line = ""
    verified: bool = False
    account_required: bool = False
    default_partition: Plain | None = None
    partitions: dict[Plain, PartitionSpec] = Field({})
    modules: tuple[Line, ...] = ()
    setup: tuple[Line, ...] = ()
    venv: WholePath | None = None
    conda: Line | None = None
    container: WholePath | None = None
    variables: dict[str, Line] = Field({})
    gpu_option: Literal["gres", "gpus-per-node", "gpus"] = "gres"
    memory_option: Literal["mem", "mem-per-cpu", "none"] = "mem"
    launcher: LauncherSpec = LauncherSpec()
    network: NetworkSpec = NetworkSpec()
    login_internet: bool = True
    scratch: WholePath | None = None
    workers: WorkersSpec = WorkersSpec()
    directives: tuple[
        Annotated[Line, matching(_DIRECTIVE, "must begin with - or --, as options of sbatch do", LONGEST_LIST)], ...
    ] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Site:
        if self.partitions and self.default_partition not in self.partitions:
            hint = nearest(str(self.default_partition), list(self.partitions))
            raise ValueError(f"default_partition {self.default_partition!r} is not in partitions; {hint}")
        given = [k for k in ("venv", "conda", "container") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: give only one of venv, conda, container")
        for name in self.variables:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"variables: {name!r} is not a valid name of an environment variable")
        return self

    def module_lines(self, partition: PartitionSpec) -> tuple[str, ...]:
        """Return the lines of shell that load the modules of a partition's jobs.

        >>> Site(name="a", modules=("GCC Python",)).module_lines(PartitionSpec(modules=("CUDA/12",)))
        ('module load GCC Python', 'module load CUDA/12')
        """
        return tuple(
            f"module load {' '.join(map(shlex.quote, line.split()))}" for line in (*self.modules, *partition.modules)
        )

    def partition(self, name: str | None = None) -> tuple[str | None, PartitionSpec]:
        """Return the name and limits of a partition, by default of the default one; any name is allowed if the profile lists none.

        Of several (`a,b`), of which SLURM takes the one that is free first, the tightest limits count.

        Raises
        ------
        SmgeoError
            If the profile does not list it, or several need different GPUs, modules or features.
        """
        name = name or self.default_partition
        names = name.split(",") if name else []
        if not all(map(PLAIN.fullmatch, names)):
            raise SmgeoError(f"--partition {name!r}: {PLAIN_FORM}")
        if not self.partitions:
            return name, PartitionSpec()
        for one in names:
            if one not in self.partitions:
                raise SmgeoError(
                    f"--partition {one!r} is not a partition of {self.name}; {nearest(one, list(self.partitions))} (all: "
                    f"{', '.join(self.partitions)})"
                )
        return name, _tightest([self.partitions[one] for one in names], f"--partition {name}")


def _tightest(partitions: Sequence[PartitionSpec], where: str) -> PartitionSpec:
    """Return limits that hold in each of the partitions.

    Raises
    ------
    SmgeoError
        If they need different lines of a script.
    """
    for key in ("gpu_type", "constraint", "modules"):
        if len({getattr(p, key) for p in partitions}) > 1:
            raise SmgeoError(f"{where}: the partitions differ in {key}, and a job has one; give one partition")
    least = {
        key: min((v for p in partitions if (v := getattr(p, key)) is not None), default=None)
        for key in ("nodes", "cores", "memory_gb", "gpus")
    }
    times = [p.time_limit for p in partitions if p.time_limit is not None]
    return partitions[0].model_copy(
        update={
            **least,
            "time_limit": min(times, key=parse_time, default=None),
            "exclusive": any(p.exclusive for p in partitions),
            "internet": all(p.internet for p in partitions),
        }
    )


def user_folder() -> Path:
    """Return the folder of the user's own profiles: `~/.config/smgeo/sites`, or under `$XDG_CONFIG_HOME`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "smgeo" / "sites"


def find_sites() -> dict[str, Path]:
    """Return the files of all profiles by name; a user's own takes precedence over one that ships with smgeo."""
    folders = (cluster_folder() / "sites", user_folder())
    return {f.stem: f for folder in folders if folder.is_dir() for f in sorted(folder.glob("*.yaml"))}


def load_site(name: str | Path) -> Site:
    """Read and check a profile, given its name or the path of its file.

    Raises
    ------
    SmgeoError
        If there is no profile of that name, or it is invalid.
    """
    known = find_sites()
    file = known.get(str(name)) or Path(os.path.expanduser(name))
    if not os.path.isfile(file):
        raise SmgeoError(
            f"system {str(name)!r} not found; {nearest(str(name), list(known))} (`smgeo systems` lists all), or the path of a "
            "profile; `smgeo systems new` writes one"
        )
    return parse_site(file.read_text(encoding="utf-8"), str(file))


def parse_site(text: str, where: str) -> Site:
    """Return the profile in YAML text; errors as in `load_site`."""
    return parse_spec(Site, read_mapping(text, where), where)


def read_mapping(text: str, where: str) -> dict[str, object]:
    """Return the values in the YAML text of a profile, unchecked.

    Raises
    ------
    SmgeoError
        If it is not YAML, or not a mapping.
    """
    try:
        values: object = load_yaml(text)
    except yaml.YAMLError as error:
        raise SmgeoError(f"{where} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise SmgeoError(f"{where} is not a site profile: it contains no mapping (key: value)")
    return values
