"""Write a profile for a site that has none, from what SLURM reports and what the user answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import count, takewhile
from pathlib import Path
from typing import TypeAlias

from smgeo.errors import SmgeoError
from smgeo.files import written_beside
from smgeo.hpc.sites.profile import PLAIN, PLAIN_FORM, parse_site, parse_time, read_mapping
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
    """Return the values of a profile, without what was not answered; `internet` is of partitions, and nowhere without any."""
    internet = {"internet": True} if answers.get("internet") else {}
    values: dict[str, object] = {
        "name": name,
        "title": answers.get("title", "").strip() or name,
        "source": "smgeo systems new",
        "verified": False,
        "account_required": bool(answers.get("account_required")),
    }
    if partitions:
        values |= {
            "default_partition": answers.get("default_partition", "").strip() or next(iter(partitions)),
            "partitions": {n: {**spec, **internet} for n, spec in partitions.items()},
        }
    if modules := answers.get("modules", "").strip():
        values["modules"] = [modules]
    values |= {k: answers[k].strip() for k in ("venv", "scratch") if answers.get(k, "").strip()}
    if suffix := answers.get("host_suffix", "").strip():
        values["network"] = {"host_suffix": suffix}
    return values


def check_new(name: str, path: Path) -> None:
    """Refuse a name that no profile may have, and to overwrite a profile.

    Raises
    ------
    SmgeoError
        If the name is invalid, or the file exists.
    """
    if not PLAIN.fullmatch(name):
        raise SmgeoError(f"{name!r} cannot be the name of a system: {PLAIN_FORM}")
    _check_free(path)


def _check_free(path: Path) -> None:
    if path.exists():
        raise SmgeoError(f"{path} exists already; give another name or --out, or remove it")


class Draft:
    """A profile in the making, on disk from the first answer on, so that no answer is lost however the questions end.

    Older drafts are kept: this one has a name of its own, `NAME.yaml.draft` or `NAME.yaml.draft2` and so on.

    Attributes
    ----------
    file : Path or None
        The draft's file; None before the first answer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.file: Path | None = None

    def write(self, values: Mapping[str, object]) -> Path:
        """Write the values so far, and return the draft's file."""
        if self.file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self._new_file()
        with written_beside(self.file) as part:
            part.write_text(_yaml(values), encoding="utf-8")
        return self.file

    def _new_file(self) -> Path:
        for file in _draft_names(self._path):
            with suppress(FileExistsError):
                file.touch(exist_ok=False)
                return file
        raise AssertionError("names do not end")

    def remove(self) -> None:
        """Remove the draft, whose profile is written."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


def _draft_names(path: Path) -> Iterator[Path]:
    yield path.with_name(f"{path.name}.draft")
    for number in count(2):
        yield path.with_name(f"{path.name}.draft{number}")


def read_last_draft(path: Path) -> tuple[Path | None, dict[str, str]]:
    """Return the last draft of a profile and the answers in it, the questions' defaults; None and nothing if there is none."""
    found = list(takewhile(Path.exists, _draft_names(path)))
    if not found:
        return None, {}
    try:
        site = read_mapping(found[-1].read_text(encoding="utf-8"), str(found[-1]))
    except SmgeoError:  # changed by hand, to something that is no YAML
        return None, {}
    network, partitions = site.get("network"), site.get("partitions")
    modules = site.get("modules")
    first = next(iter(partitions.values()), None) if isinstance(partitions, dict) else None
    answers = {k: site.get(k) for k in ("title", "default_partition", "venv", "scratch", "account_required")}
    answers["modules"] = " ".join(map(str, modules)) if isinstance(modules, list) else None
    answers["host_suffix"] = network.get("host_suffix") if isinstance(network, dict) else None
    answers["internet"] = first.get("internet") if isinstance(first, dict) else None
    return found[-1], {k: "yes" if v is True else str(v) for k, v in answers.items() if v}


def _yaml(values: Mapping[str, object]) -> str:
    return dump_yaml(dict(values), width=150)


def write_site(values: Mapping[str, object], path: Path, draft: Draft | None = None) -> Path:
    """Check a profile, write it to a temporary file and rename that; an existing file is kept.

    Raises
    ------
    SmgeoError
        If a value is invalid, or the file exists already. The profile is kept as a draft beside `path` then.
    """
    draft = draft or Draft(path)
    text = _yaml(values)
    try:
        parse_site(text, str(path))
        _check_free(path)
    except SmgeoError as error:
        file = draft.write(values)
        raise SmgeoError(f"{error}; your answers are kept in {file}: correct it and rename it to {path.name}") from None
    with written_beside(path) as part:
        part.write_text(text, encoding="utf-8")
    draft.remove()
    return path
