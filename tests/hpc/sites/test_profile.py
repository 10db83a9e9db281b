"""Site profiles: those that ship, a user's own, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
import yaml

from smgeo.errors import SmgeoError
from smgeo.hpc.jobs.request import JobRequest
from smgeo.hpc.jobs.script import submit_script
from smgeo.hpc.sites import slurm
from smgeo.hpc.sites.new_profile import describe_site, parse_partitions, write_site
from smgeo.hpc.sites.profile import Site, find_sites, format_time, load_site, parse_site, parse_time
from smgeo.recipe.spec import Spec, parse_spec

SHIPPED = ["cyclone", "deep", "generic", "jureca", "juwels", "lumi", "testbed", "vega"]


def test_profiles_that_ship():
    assert sorted(find_sites()) == SHIPPED
    sites = {name: load_site(name) for name in SHIPPED}
    assert [s.name for s in sites.values()] == SHIPPED
    # The limits of partitions, as the public job scripts give them.
    assert sites["juwels"].partition("booster")[1].nodes == 384
    assert sites["juwels"].partition()[0] == "batch"
    assert {n: p.nodes for n, p in sites["vega"].partitions.items()} == {
        "dev": 8,
        "cpu": 960,
        "longcpu": 6,
        "gpu": 60,
        "largemem": 192,
    }
    assert sites["lumi"].partition("standard-g")[1].gpus == 8
    assert sites["deep"].launcher.mpi == "pspmix"
    assert [n for n, s in sites.items() if s.verified] == ["testbed"]
    assert all(s.source for s in sites.values())


@pytest.mark.parametrize(("text", "seconds"), [("00:00:30", 30), ("36:00:00", 129_600), ("1-12:30:05", 131_405)])
def test_wall_times(text, seconds):
    assert parse_time(text) == seconds
    assert parse_time(format_time(seconds)) == seconds


@pytest.mark.parametrize("text", ["10", "20:00", "1:2:3:4", "00:75:00", "1-2", "", "-1:00:00", "01:00:00\n#SBATCH"])
def test_a_wall_time_of_another_form_is_refused(text):
    with pytest.raises(SmgeoError, match="HH:MM:SS"):
        parse_time(text)


def test_a_users_own_profile_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "smgeo" / "sites"
    folder.mkdir(parents=True)
    (folder / "vega.yaml").write_text("name: vega\naccount_required: true\n", encoding="utf-8")
    (folder / "ours.yaml").write_text("name: ours\n", encoding="utf-8")
    assert load_site("vega").account_required
    assert load_site("ours").name == "ours"
    elsewhere = tmp_path / "here.yaml"
    elsewhere.write_text("name: here\n", encoding="utf-8")
    assert load_site(elsewhere).name == "here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "no mapping"),
        ("name: [", "not YAML"),
        ("name: x\npartitons: {}\n", "did you mean 'partitions'"),
        ("name: x\npartitions: {a: {nodes: 0}}\ndefault_partition: a\n", "nodes"),
        ("name: x\npartitions: {a: {nods: 1}}\ndefault_partition: a\n", "did you mean 'nodes'"),
        ("name: x\npartitions: {a: {}}\ndefault_partition: b\n", "default_partition 'b' is not in partitions"),
        ("name: x\npartitions: {a: {}}\n", "default_partition None is not in partitions"),
        ("name: x\npartitions: {a: {time_limit: soon}}\ndefault_partition: a\n", "HH:MM:SS"),
        ("name: 'x y'\n", "letters, digits"),
        ('name: "x\\n#SBATCH --wrap=id"\n', "letters, digits"),
        ("name: x\nvenv: /a\nconda: b\n", "give only one of venv, conda, container"),
        ("name: x\nvariables: {'A;B': c}\n", "not a valid name of an environment variable"),
        ('name: x\nmodules: ["a\\nid"]\n', "one line"),
        ("name: x\ndirectives: ['mem=4G']\n", "directives"),
    ],
)
def test_a_wrong_profile_is_refused(text, message):
    with pytest.raises(SmgeoError, match=message):
        parse_site(text, "x.yaml")


def test_a_system_that_is_not_there():
    with pytest.raises(SmgeoError, match="did you mean 'juwels'"):
        load_site("juwls")


def test_a_profile_from_what_slurm_says(tmp_path):
    partitions = (
        "PartitionName=cpu AllowGroups=ALL Default=YES MaxNodes=UNLIMITED MaxTime=2-00:00:00 OverSubscribe=NO TotalNodes=40\n"
        "PartitionName=gpu Default=NO MaxNodes=8 MaxTime=UNLIMITED OverSubscribe=EXCLUSIVE TotalNodes=20\n"
    )
    # Two kinds of nodes in a partition: a job may get the smaller one.
    nodes = "cpu|128|256000|(null)\ncpu|64|512000|(null)\ngpu|48+|515000+|gpu:a100:4(S:0-1)\n"
    found, default, left_out = parse_partitions(partitions, nodes)
    assert (default, left_out) == ("cpu", [])
    assert found == {
        "cpu": {"nodes": 40, "time_limit": "2-00:00:00", "cores": 64, "memory_gb": 250.0, "gpus": 0},
        "gpu": {"nodes": 8, "exclusive": True, "cores": 48, "memory_gb": 515_000 / 1024, "gpus": 4},
    }
    answers = {
        "default_partition": "cpu",
        "modules": "GCC Python",
        "internet": "yes",
        "host_suffix": "i",
        "scratch": "",
    }
    path = write_site(describe_site("ours", found, answers), tmp_path / "sites" / "ours.yaml")
    site = load_site(path)
    assert (site.default_partition, site.modules, site.network.host_suffix) == ("cpu", ("GCC Python",), "i")
    assert site.partition("gpu")[1].internet
    assert not site.verified
    with pytest.raises(SmgeoError, match="exists already"):
        write_site(yaml.safe_load(path.read_text(encoding="utf-8")), path)


def test_what_slurm_cannot_say_of_a_partition_is_left_out_and_told():
    partitions = (
        "PartitionName=none Default=YES MaxNodes=4 MaxTime=1:00:00 TotalNodes=0\n"
        "PartitionName=staff Hidden=YES MaxNodes=4 MaxTime=02:00:00 TotalNodes=2\n"
        "PartitionName=odd#1 MaxNodes=4 MaxTime=02:00:00 TotalNodes=2\n"
        "PartitionName=new MaxNodes=UNLIMITED MaxTime=INFINITE TotalNodes=3\n"
        "PartitionName=mig MaxNodes=1 MaxTime=30 TotalNodes=3\n"
    )
    nodes = (
        "new|n/a|n/a|(null)\nnew|0|1|(null)\nnew|16|1|\n\nnonsense\n"
        "mig|64|256000|gpu:1g.5gb:7,gpu:3g.20gb:2(S:0)\nmig|64|256000|gpu:a100:4,gpu:v100:2(S:0-1),lscratch:100\nstaff|8|8000|gpu:1\n"
    )
    found, default, left_out = parse_partitions(partitions, nodes)
    assert found == {
        "new": {"nodes": 3, "cores": 16, "gpus": 0},
        "mig": {"nodes": 1, "cores": 64, "memory_gb": 250.0, "gpus": 6},
    }
    assert default == "new"
    assert left_out == [
        "partition none has no nodes",
        "partition staff is hidden",
        "partition odd#1 has a name that a script cannot contain",
        "a node that SLURM has no numbers of: 'new|n/a|n/a|(null)'",
        "a node that SLURM has no numbers of: 'new|0|1|(null)'",
        "a node that SLURM has no numbers of: ''",
        "a node that SLURM has no numbers of: 'nonsense'",
    ]


def test_answers_are_never_lost(tmp_path):
    values = describe_site("ours", {}, {"modules": "GCC", "venv": "~/venv"})
    path = tmp_path / "ours.yaml"
    with pytest.raises(
        SmgeoError, match=r"venv: .*your answers are kept in .*ours.yaml.draft: correct it and rename it"
    ):
        write_site(values, path)
    draft = path.with_name("ours.yaml.draft")
    assert yaml.safe_load(draft.read_text())["venv"] == "~/venv"
    path.write_text(draft.read_text().replace("~", "/home/me"))
    assert load_site(path).modules == ("GCC",)


# ---- a controller that answers late

LATE = """#!/bin/sh
echo call >> "$0.calls"
if [ "$(wc -l < "$0.calls")" -lt 3 ]; then echo 'error: Socket timed out on send/recv operation' >&2; exit 1; fi
echo answer
"""


def test_a_question_to_a_busy_controller_is_asked_again_and_a_job_is_submitted_once(tmp_path, monkeypatch):
    for name in ("squeue", "sbatch"):
        (tmp_path / name).write_text(LATE)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(slurm, "_WAITS_S", (0, 0))
    assert slurm.run_slurm(["squeue"]).stdout == "answer\n"
    with pytest.raises(
        SmgeoError, match=r"did not answer in time .*accepted all the same: look with `squeue --me` before"
    ):
        submit_script("#!/bin/sh\n")
    assert (tmp_path / "sbatch.calls").read_text() == "call\n"


# ---- what follows an accepted text

HOSTILE = [
    "\n#SBATCH --wrap=id",
    ";id",
    "$(id)",
    "`id`",
    " id",
    "'\"",
    "\x00",
    "\r",
    "\u2028id",
    "|id",
    "&",
    ">x",
    "\\",
    "\u0661",
]
LINE_BREAKS = ["\n#SBATCH --wrap=id", "\x00", "\r"]
# Texts of a form, by their keys: `cpu` stands for any key of a mapping, `[]` for an item of a list and `{}` for a key itself.
OF_A_SITE = {
    "name": "ours",
    "default_partition": "cpu",
    "directives[]": "--constraint=gpu",
    "launcher.mpi": "pmix",
    "network.interface": "ib0",
    "network.host_suffix": "-ib.example",
    "workers.time": "01:00:00",
    "partitions{}": "gpu",
    "partitions.cpu.time_limit": "01:00:00",
    "partitions.cpu.gpu_type": "a100",
    "partitions.cpu.constraint": "ib&nvme",
    "variables{}": "NCCL_DEBUG",
}
OF_A_JOB = {
    "partition": "cpu,long",
    "time": "01:00:00",
    "memory": "32G",
    "account": "project1",
    "qos": "normal",
    "constraint": "[rack1*2|rack2*4]",
    "job_name": "map",
    "array": "0-9%4",
    "dependency": "afterok:12",
    "mail": "a.b@example.org",
    "mail_type[]": "END",
}
# Texts of any form, which scripts quote or take as lines of shell: only a second line is refused.
LINES_OF_A_SITE = {
    "title": "ours",
    "source": "us",
    "modules[]": "GCC",
    "setup[]": "true",
    "venv": "/venv",
    "conda": "soil",
    "container": "/image.sif",
    "scratch": "/scratch",
    "variables.cpu": "1",
    "launcher.srun[]": "--cpu-bind=none",
    "partitions.cpu.modules[]": "CUDA",
}
LINES_OF_A_JOB = {"venv": "/venv", "conda": "soil", "container": "/image.sif"}
# In no script.
FREE = {"partitions.cpu.note"}
BASE = {"name": "ours", "default_partition": "cpu", "partitions": {"cpu": {}}}


def _texts(kind: object, key: str = "") -> set[str]:
    """Return the keys of all texts of a spec, however deep."""
    if isinstance(kind, type) and issubclass(kind, Spec):
        fields = [(f.annotation, f"{key}.{name}" if key else name) for name, f in kind.model_fields.items()]
        return set().union(*(_texts(annotation, inner) for annotation, inner in fields))
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _texts(arguments[0], key)
    if origin is tuple:
        return _texts(arguments[0], f"{key}[]")
    if origin is dict:
        return {f"{key}{{}}"} | _texts(arguments[1], f"{key}.cpu")
    if origin in (Union, UnionType):
        return set().union(*(_texts(one, key) for one in arguments))
    assert kind in (str, int, float, bool, type(None)) or origin is Literal, f"{key}: {kind}"
    return {key} if kind is str else set()


def test_every_text_of_a_profile_and_of_a_job_is_tried_below():
    assert _texts(Site) == OF_A_SITE.keys() | LINES_OF_A_SITE.keys() | FREE
    assert _texts(JobRequest) == OF_A_JOB.keys() | LINES_OF_A_JOB.keys()


def _nested(key: str, value: str, values: dict) -> dict:
    first, _, rest = key.partition(".")
    if rest:
        return {**values, first: _nested(rest, value, values.get(first, {}))}
    if first.endswith("{}"):
        inside = values.get(first[:-2], {})
        return {**values, first[:-2]: {**inside, value: {} if first == "partitions{}" else "1"}}
    return {**values, first[:-2]: [value]} if first.endswith("[]") else {**values, first: value}


def _specs(of_a_site: dict[str, str], of_a_job: dict[str, str]) -> list[tuple[type[Spec], dict, str, str]]:
    return [*((Site, BASE, k, v) for k, v in of_a_site.items()), *((JobRequest, {}, k, v) for k, v in of_a_job.items())]


@pytest.mark.parametrize(("spec", "base", "key", "value"), _specs(OF_A_SITE, OF_A_JOB))
def test_no_pattern_lets_anything_follow(spec, base, key, value):
    parse_spec(spec, _nested(key, value, base), "here")
    for suffix in HOSTILE:
        # An option of sbatch has a value of any form, on its line; in a constraint | is SLURM's.
        after = suffix in LINE_BREAKS if key == "directives[]" else not (suffix == "|id" and "constraint" in key)
        for text in (*((value + suffix,) if after else ()), suffix + value):
            with pytest.raises(SmgeoError):
                parse_spec(spec, _nested(key, text, base), "here")


@pytest.mark.parametrize(("spec", "base", "key", "value"), _specs(LINES_OF_A_SITE, LINES_OF_A_JOB))
def test_a_line_is_one_line(spec, base, key, value):
    parse_spec(spec, _nested(key, value, base), "here")
    for suffix in LINE_BREAKS:
        with pytest.raises(SmgeoError):
            parse_spec(spec, _nested(key, value + suffix, base), "here")


def test_no_spec_uses_a_pattern_that_is_searched_for():
    """A pattern of pydantic's own matches anywhere in the text."""
    import smgeo

    files = Path(smgeo.__file__).parent.rglob("*.py")
    assert [f.name for f in files if "pattern=r" in f.read_text(encoding="utf-8")] == []
