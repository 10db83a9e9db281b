"""Write a profile for a site that has none, from what SLURM reports and what the user answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from smgeo.errors import SmgeoError
from smgeo.files import written_beside
from smgeo.hpc.sites.profile import PLAIN, parse_site, parse_time
from smgeo.hpc.sites.slurm import run_slurm
from smgeo.recipe.yaml_format import dump_yaml

_FIELD = re.compile(r"(\w+)=(\S+)")
_GPUS = re.compile(r"gpu(?::[^:,()]+)?:(\d+)")
_NODE = re.compile(r"(?P<partition>[^|]+)\|(?P<cores>[0-9]+)\+?\|(?P<memory>[0-9]+)\+?\|(?P<gres>.*)")
# Values of one partition, as a profile has them.
Partition: TypeAlias = dict[str, int | float | str]


def read_partitions() -> tuple[dict[str, Partition], str, list[str]]:
    """Return what `parse_partitions` does of this machine; nothing if SLURM does not answer."""
    try:
        partitions = run_slurm(["scontrol", "show", "partition", "--oneliner"])
        nodes = run_slurm(["sinfo", "--noheader", "--Node", "--format=%R|%c|%m|%G"])
    except (OSError, SmgeoError):
        return {}, "", []
    if partitions.returncode or nodes.returncode:
        return {}, "", []
    return parse_partitions(partitions.stdout, nodes.stdout)


def parse_partitions(partitions: str, nodes: str) -> tuple[dict[str, Partition], str, list[str]]:
    """Parse the output of `scontrol show partition --oneliner` and `sinfo --Node --format=%R|%c|%m|%G`.

    Returns the partitions, the name of the default one, and why others and some nodes were left out. If nodes differ, the smallest counts,
    because a job may get any of them.

    Examples
    --------
    >>> parse_partitions("PartitionName=a Default=YES MaxNodes=4 MaxTime=02:00:00 TotalNodes=9", "a|8|2048|gpu:a100:2")
    ({'a': {'nodes': 4, 'time_limit': '02:00:00', 'cores': 8, 'gpus': 2, 'memory_gb': 2.0}}, 'a', [])
    """
    found: dict[str, Partition] = {}
    default = ""
    left_out: list[str] = []
    for line in partitions.splitlines():
        fields = dict(_FIELD.findall(line))
        if "PartitionName" not in fields:
            continue
        name = fields["PartitionName"]
        if why := _why_left_out(name, fields):
            left_out.append(f"partition {name} {why}")
            continue
        default = name if fields.get("Default") == "YES" else default or name
        limits = [int(fields[k]) for k in ("MaxNodes", "TotalNodes") if fields.get(k, "").isdigit()]
        spec: Partition = {"nodes": min(limits)} if limits else {}
        if _is_time(fields.get("MaxTime", "")):
            spec["time_limit"] = fields["MaxTime"]
        if fields.get("OverSubscribe") == "EXCLUSIVE":
            spec["exclusive"] = True
        found[name] = spec
    smallest: dict[str, dict[str, float]] = {name: {} for name in found}
    for line in nodes.splitlines():
        read = _NODE.fullmatch(line.strip())
        if read is None or not int(read["cores"]):
            left_out.append(f"a node that SLURM has no numbers of: {line.strip()!r}")
            continue
        name = read["partition"]
        if name not in found:
            continue
        values: dict[str, float] = {"cores": int(read["cores"]), "gpus": sum(map(int, _GPUS.findall(read["gres"])))}
        if int(read["memory"]) > 1:  # SLURM says 1 where nobody has told it
            values["memory_gb"] = int(read["memory"]) / 1024
        for key, value in values.items():
            smallest[name][key] = min(smallest[name].get(key, value), value)
    for name, has in smallest.items():
        found[name] |= has
    return found, default, list(dict.fromkeys(left_out))


def _why_left_out(name: str, fields: Mapping[str, str]) -> str | None:
    if fields.get("TotalNodes") == "0":
        return "has no nodes"
    if fields.get("Hidden") == "YES":
        return "is hidden"
    return None if PLAIN.fullmatch(name) else "has a name that a script cannot contain"


def _is_time(text: str) -> bool:
    try:
        return parse_time(text) > 0
    except SmgeoError:  # UNLIMITED, or of another form
        return False


def describe_site(name: str, partitions: Mapping[str, Partition], answers: Mapping[str, str]) -> dict[str, object]:
    """Return the values of a profile, without what was not answered."""
    internet = {"internet": True} if answers.get("internet") else {}
    values: dict[str, object] = {
        "name": name,
        "title": answers.get("title") or name,
        "source": "smgeo systems new",
        "verified": False,
        "account_required": bool(answers.get("account_required")),
    }
    if partitions:
        values |= {
            "default_partition": answers.get("default_partition") or next(iter(partitions)),
            "partitions": {n: {**spec, **internet} for n, spec in partitions.items()},
        }
    if modules := answers.get("modules", "").strip():
        values["modules"] = [modules]
    values |= {k: answers[k].strip() for k in ("venv", "scratch") if answers.get(k, "").strip()}
    if suffix := answers.get("host_suffix", "").strip():
        values["network"] = {"host_suffix": suffix}
    return values


def check_new(path: Path) -> None:
    """Refuse to overwrite a profile.

    Raises
    ------
    SmgeoError
        If the file exists.
    """
    if path.exists():
        raise SmgeoError(f"{path} exists already; give another name or --out, or remove it")


def write_site(values: Mapping[str, object], path: Path) -> Path:
    """Check a profile, write it to a temporary file and rename that; an existing file is kept.

    Raises
    ------
    SmgeoError
        If a value is invalid, when a draft of the profile is written beside `path`, or the file exists already.
    """
    text = dump_yaml(dict(values), width=150)
    try:
        parse_site(text, str(path))
    except SmgeoError as error:
        draft = path.with_name(f"{path.name}.draft")
        with written_beside(draft) as part:
            part.write_text(text, encoding="utf-8")
        raise SmgeoError(
            f"{error}; your answers are kept in {draft}: correct it and rename it to {path.name}"
        ) from None
    check_new(path)
    with written_beside(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
