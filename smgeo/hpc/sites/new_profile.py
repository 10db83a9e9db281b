"""Write a profile for a site that has none, from what SLURM reports and what the user answers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from smgeo.errors import SmgeoError
from smgeo.files import written_beside
from smgeo.hpc.sites.profile import parse_site
from smgeo.recipe.yaml_format import dump_yaml

_FIELD = re.compile(r"(\w+)=(\S+)")
_GPUS = re.compile(r"gpu(?::[^:,()]+)?:(\d+)")
_UNLIMITED = ("UNLIMITED", "INFINITE", "NONE")
# Values of one partition, as a profile has them.
Partition: TypeAlias = dict[str, int | float | str]


def read_partitions() -> tuple[dict[str, Partition], str]:
    """Return the partitions that SLURM reports here and the name of the default one; nothing if it does not answer."""
    try:
        partitions = _ask(["scontrol", "show", "partition", "--oneliner"])
        nodes = _ask(["sinfo", "--noheader", "--Node", "--format=%R|%c|%m|%G"])
    except (OSError, subprocess.CalledProcessError):
        return {}, ""
    return parse_partitions(partitions, nodes)


def parse_partitions(partitions: str, nodes: str) -> tuple[dict[str, Partition], str]:
    """Parse the output of `scontrol show partition --oneliner` and `sinfo --Node --format=%R|%c|%m|%G`.

    If nodes differ, the smallest counts, because a job may get any of them.

    Examples
    --------
    >>> parse_partitions("PartitionName=a Default=YES MaxNodes=4 MaxTime=02:00:00 TotalNodes=9", "a|8|2048|gpu:a100:2")
    ({'a': {'nodes': 4, 'time_limit': '02:00:00', 'cores': 8, 'memory_gb': 2.0, 'gpus': 2}}, 'a')
    """
    found: dict[str, Partition] = {}
    default = ""
    for line in partitions.splitlines():
        fields = dict(_FIELD.findall(line))
        if "PartitionName" not in fields:
            continue
        name = fields["PartitionName"]
        default = name if fields.get("Default") == "YES" else default or name
        limits = [int(fields[k]) for k in ("MaxNodes", "TotalNodes") if fields.get(k, "").isdigit()]
        spec: Partition = {"nodes": min(limits)} if limits else {}
        if fields.get("MaxTime", "NONE") not in _UNLIMITED:
            spec["time_limit"] = fields["MaxTime"]
        if fields.get("OverSubscribe") == "EXCLUSIVE":
            spec["exclusive"] = True
        found[name] = spec
    smallest: dict[str, dict[str, float]] = {name: {} for name in found}
    for line in nodes.splitlines():
        name, cores, memory, gres = line.split("|")
        if name not in found:
            continue
        values: dict[str, float] = {
            "cores": int(cores.rstrip("+")),
            "memory_gb": int(memory.rstrip("+")) / 1024,
            "gpus": sum(map(int, _GPUS.findall(gres))),
        }
        for key, value in values.items():
            smallest[name][key] = min(smallest[name].get(key, value), value)
    for name, has in smallest.items():
        found[name] |= has
    return found, default


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
        If a value is invalid, or the file exists already.
    """
    text = dump_yaml(dict(values), width=150)
    parse_site(text, str(path))
    check_new(path)
    with written_beside(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _ask(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - no shell
