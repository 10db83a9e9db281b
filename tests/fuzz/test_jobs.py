"""Job scripts of hostile options: each is refused in words, or is a script that shells read and in which nothing runs but the job."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

import smgeo
from smgeo.errors import SmgeoError
from smgeo.hpc.sites.profile import find_sites

SITES = sorted(find_sites())
EXAMPLES = 30 * int(os.environ.get("SOAK_ROUNDS", "1"))
HOSTILE = (
    *("$(touch ran)", "`touch ran`", "a;touch ran", "a&&touch ran", "a|touch ran", "a>ran", "a\ntouch ran", "a\n#SBATCH --wrap=x", "\r\n"),
    *("'", '"', "'\"$(touch ran)'\"", "\\", "\\\n", "-x", "--wrap=touch ran", "", " ", "\x00", "\x1b[0m", "{{7*7}}", "${PATH}", "!x", "*", "~", "%j"),
    *("../x", "/a b/c", "\u202e", "é" * 300, "EOF", "a b", "#", "a\ttouch ran"),
)  # fmt: skip
PLAIN = {
    "partition": ("cpu", "batch", "dc-gpu"),
    "nodes": (1, 2),
    "tasks": (1, 2),
    "cpus": (1, 4),
    "gpus": (0, 1, 4),
    "memory": ("2G", "0", "1T"),
    "time": ("00:10:00", "1-00:00:00"),
    "account": ("soil1",),
    "qos": ("normal",),
    "constraint": ("a100", "a&b"),
    "job_name": ("soil",),
    "array": ("0-9%2", "1,3"),
    "dependency": ("afterok:12",),
    "mail": ("a@b.org",),
    "venv": ("/v",),
    "conda": ("soil",),
    "container": ("/c.sif",),
    "launcher": ("srun", "horovod", "pytorch-ddp", "deepspeed", "tensorflow"),
    "stop_before_s": (60,),
    "restarts": (2,),
}
NUMBERS = (-1, 0, 10**9, 2**63, 1.5, float("nan"), float("inf"), True, None)
WORDS = {"run": ["quickstart"], "train": ["quickstart"], "tune": ["quickstart"], "predict": ["m", "c.zarr", "o"]}


def draw(rng: random.Random) -> tuple[str, list[str], dict[str, object]]:
    """Return a workload, its words and options, one or two of them hostile."""
    workload = rng.choice((*WORDS, "any"))
    options: dict[str, object] = {n: rng.choice(PLAIN[n]) for n in rng.sample(sorted(PLAIN), rng.randrange(4))}
    options.setdefault("account", "soil1")
    words = list(WORDS.get(workload, ["python", "x.py"]))
    for _ in range(rng.choice((1, 1, 2))):
        value = rng.choice(HOSTILE)
        match rng.randrange(6):
            case 0:
                words.append(value) if workload == "any" else options.update(extra=["--x", value])
            case 1:
                options[rng.choice(("out", "data"))] = value
            case 2 if workload != "any":
                words[-1] = value
            case 3:
                options[rng.choice(sorted(PLAIN))] = rng.choice(NUMBERS)
            case _:
                options[rng.choice(sorted(PLAIN))] = value
    return workload, words, options


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which a script's Python and srun do nothing; a command that runs besides them leaves the file `ran`."""
    for name in (
        "python",
        "srun",
        "mpirun",
        "conda",
        "apptainer",
        "singularity",
        "module",
        "scontrol",
        "horovodrun",
        "deepspeed",
        "torchrun",
    ):
        (tmp_path / name).write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path


@pytest.mark.parametrize("system", SITES)
def test_hostile_options_run_nothing(system, folder):
    environment = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "HOME": str(folder),
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "n1",
        "TMPDIR": str(folder),
    }
    found, made = {}, 0
    for seed in range(EXAMPLES):
        workload, words, options = draw(random.Random(f"{system}-{seed}"))
        try:
            text = smgeo.jobscript(system, workload, *words, **options)
        except SmgeoError as error:
            if len(str(error)) > 4000:
                found[seed] = f"{len(str(error))} letters"
            continue
        except Exception as error:
            found[seed] = f"{workload} {words} {options}: {error!r}"
            continue
        made += 1
        asked = [line for line in text.splitlines() if line.startswith("#SBATCH")]
        if odd := [line for line in asked if not re.fullmatch(r"#SBATCH --[a-z-]+(=[^\s$`;|<>\\]+)?", line)]:
            found[seed] = f"{workload} {words} {options}: {odd}"
        ran = subprocess.run(
            ["bash", "--noprofile", "-s"], input=text, text=True, capture_output=True, env=environment, timeout=60
        )
        left = [p.name for p in Path.cwd().iterdir()]
        if left or "syntax error" in ran.stderr:
            found[seed] = f"{workload} {words} {options}: {left} {ran.stderr[-300:]}"
    assert found == {}
    assert made
