"""A profile for a site that has none: what SLURM says of its partitions, and what its user knows."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from smgeo.errors import SmgeoError
from smgeo.files import written_beside
from smgeo.hpc.sites.profile import parse_site

_FIELD = re.compile(r"(\w+)=(\S+)")
_GPUS = re.compile(r"gpu(?::[^:,()]+)?:(\d+)")
_UNLIMITED = ("UNLIMITED", "INFINITE", "NONE")


def read_partitions() -> tuple[dict[str, dict[str, Any]], str]:
    """Partitions that SLURM here knows, as a profile has them, and the default one's name; nothing where it does not answer."""
    try:
        partitions = _ask(["scontrol", "show", "partition", "--oneliner"])
        nodes = _ask(["sinfo", "--noheader", "--Node", "--format=%R|%c|%m|%G"])
    except (OSError, subprocess.CalledProcessError):
        return {}, ""
    return parse_partitions(partitions, nodes)


def parse_partitions(partitions: str, nodes: str) -> tuple[dict[str, dict[str, Any]], str]:
    """What `scontrol show partition --oneliner` and `sinfo --Node --format=%R|%c|%m|%G` say.

    Of nodes that differ, what the least of them has: a job may get any.

    Examples
    --------
    >>> parse_partitions("PartitionName=a Default=YES MaxNodes=4 MaxTime=02:00:00 TotalNodes=9", "a|8|2048|gpu:a100:2")
    ({'a': {'nodes': 4, 'time_limit': '02:00:00', 'cores': 8, 'memory_gb': 2.0, 'gpus': 2}}, 'a')
    """
    found: dict[str, dict[str, Any]] = {}
    default = ""
    for line in partitions.splitlines():
        fields = dict(_FIELD.findall(line))
        if "PartitionName" not in fields:
            continue
        name = fields["PartitionName"]
        default = name if fields.get("Default") == "YES" else default or name
        limits = [int(fields[k]) for k in ("MaxNodes", "TotalNodes") if fields.get(k, "").isdigit()]
        spec: dict[str, Any] = {"nodes": min(limits)} if limits else {}
        if fields.get("MaxTime", "NONE") not in _UNLIMITED:
            spec["time_limit"] = fields["MaxTime"]
        if fields.get("OverSubscribe") == "EXCLUSIVE":
            spec["exclusive"] = True
        found[name] = spec
    for line in nodes.splitlines():
        name, cores, memory, gres = line.split("|")
        if name not in found:
            continue
        has = {
            "cores": int(cores.rstrip("+")),
            "memory_gb": int(memory.rstrip("+")) / 1024,
            "gpus": sum(map(int, _GPUS.findall(gres))),
        }
        for key, value in has.items():
            found[name][key] = min(found[name].get(key, value), value)
    return found, default


def describe_site(name: str, partitions: Mapping[str, Mapping[str, Any]], answers: Mapping[str, str]) -> dict[str, Any]:
    """The values of a profile; what was not answered is left out."""
    internet = {"internet": True} if answers.get("internet") else {}
    values: dict[str, Any] = {
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
    """Refuse to write over a profile.

    Raises
    ------
    SmgeoError
        If there is a file.
    """
    if path.exists():
        raise SmgeoError(
            f"{path} is there already, and may hold what you wrote; give another name or --out, or remove it"
        )


def write_site(values: Mapping[str, Any], path: Path) -> Path:
    """Check a profile, then write it beside and rename; a file that is there is kept.

    Raises
    ------
    SmgeoError
        If a value is not as it must be, or there is a file already.
    """
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=150)
    parse_site(text, str(path))
    check_new(path)
    with written_beside(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _ask(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - no shell
