"""Nonsense for every option and argument of the command line, which the parser names itself: a sentence, and nothing is written."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import sys

import pytest
import yaml
from typer.main import get_command

import smgeo
from smgeo import cli
from tests.cli.test_cli import RECIPE, write_raster

LONGEST_S = 60
LONGEST_MESSAGE = 2_000
NONSENSE = [
    *(
        "",
        " ",
        "-1",
        "0",
        "nan",
        "inf",
        "1e309",
        "99999999999999999999",
        "x" * 5000,
        "a\nb",
        "a\x1b[31mb",
        "-x",
        "\udcff",
    ),
    *("no/such", "r.yaml", "run", "/", "/dev/null", "\u202eabc", "$(id)", "[red]"),
]
# No name of a file or folder.
NO_NAME = {"", " ", "x" * 5000, "a\nb", "a\x1b[31mb", "\udcff", "/dev/null", "r.yaml"}
# Command -> words that it would work with.
COMMANDS = {
    "run": ["r.yaml", "--out", "new"],
    "cube": ["r.yaml", "--out", "new"],
    "tune": ["r.yaml", "--out", "new"],
    "train": ["r.yaml", "--out", "new"],
    "simulate": ["new", "--stations", "12", "--days", "30", "--height", "16", "--width", "16"],
    "features": [],
    "predict": ["run/models/rf", "run/grid.zarr", "new"],
    "show": ["run/maps", "new.html"],
    "evaluate": ["run/models/rf", "run/stations.zarr", "--run", "run"],
    "audit": ["run/stations.zarr"],
    "report": ["run"],
    "info": ["run"],
    "jobscript": ["run", "r.yaml", "--system", "generic"],
    "systems": [],
    "systems new": ["new", "--yes"],
    "testbed start": ["--folder", "new"],
    "testbed stop": ["--folder", "new"],
}
# What is no nonsense, by command and parameter, or by parameter.
NAMES = set(NONSENSE) - NO_NAME
MEANT = {
    "out": NAMES,
    "pictures": NAMES,
    "folder": NAMES,
    "recipe": {"r.yaml"},
    "seed": {"0"},
    "gap_days": {"0"},
    "intervals": {"0"},
    "runs": {"run"},
    "path": {"run"},
    "run": {"run"},
    "systems new name": {"0", "nan", "inf", "1e309", "99999999999999999999", "r.yaml", "run"},
    # No SLURM runs there.
    "testbed stop folder": {*NAMES, "r.yaml", "/dev/null"},
    "workload": {"run"},
}
# A few values for the many options of scripts, which are for another machine: tests/hpc has what each may be.
OF_SCRIPTS = {"", "-1", "99999999999999999999", "x" * 5000, "[red]"}


def leaves(command, words=()):
    """Words and command of each command that does something."""
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from leaves(child, (*words, name))
    if not children or (words and command.invoke_without_command):
        yield " ".join(words), command


PARAMETERS = [
    (name, parameter)
    for name, command in leaves(get_command(cli.app))
    for parameter in command.params
    if parameter.name != "help" and not getattr(parameter, "is_flag", False)
]


class Hang(BaseException):
    """A command that has not ended in time."""


def call(words):
    """Exit code, and what is printed to stderr, of the command line in this process."""

    def end(*_):
        raise Hang

    said = io.StringIO()
    before = signal.signal(signal.SIGALRM, end)
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        patch.setattr(sys, "argv", ["smgeo", *words])
        signal.alarm(LONGEST_S)
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code or 0, said.getvalue()
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
    return 0, said.getvalue()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with a recipe and its run; the current one, as is the user's folder of profiles."""
    folder = tmp_path_factory.mktemp("options")
    rows = ["id,day,lat,lon,depth,vw"]
    rows += [f"s{i},2020-01-{d:02d},0.{i}5,0.05,0.05,0.{d:02d}" for i in range(10) for d in range(1, 11)]
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    for day in range(1, 11):
        write_raster(folder / f"p_202001{day:02d}.tif")
    smgeo.run(RECIPE, out=folder / "run", data=folder)
    searched = {**RECIPE, "search": {"rf": {"trials": 1, "space": {"trees": [2, 3]}}}}
    (folder / "r.yaml").write_text(yaml.safe_dump(searched))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CONFIG_HOME", str(folder / "run"))
        patch.setenv("HOME", str(folder / "run"))
        patch.delenv("SLURM_JOB_ID", raising=False)
        yield folder


def with_value(name, parameter, command, value):
    """The words of a command, with a value for one of its parameters; None for an argument that it is not given."""
    words = list(COMMANDS[name])
    if parameter.param_type_name == "option" and parameter.opts[0] in words:
        at = words.index(parameter.opts[0])
        del words[at : at + 2]
    first = next((i for i, w in enumerate(words) if w.startswith("--")), len(words))
    arguments, options = words[:first], words[first:]
    if parameter.param_type_name == "option":
        options += [parameter.opts[0], value]
    else:
        at = [p.name for p in command.params if p.param_type_name == "argument"].index(parameter.name)
        if at >= first:
            return None
        arguments[at] = value
    return [*name.split(), *options, *(["--"] if arguments else []), *arguments]


def listed(folder):
    """All files and folders."""
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", sorted({name for name, _ in PARAMETERS}))
def test_nonsense_is_refused_in_a_sentence(study, name):
    command = dict(leaves(get_command(cli.app)))[name]
    wrong = []
    for parameter in (p for n, p in PARAMETERS if n == name):
        meant = MEANT.get(f"{name} {parameter.name}", MEANT.get(parameter.name, set()))
        for value in NONSENSE:
            if value in meant or (name == "jobscript" and value not in OF_SCRIPTS):
                continue
            words = with_value(name, parameter, command, value)
            if words is None:
                continue
            before = listed(study)
            try:
                code, said = call(words)
            except Hang:
                code, said = "none: it hangs", ""
            except BaseException as error:
                code, said = f"none: {error!r}", ""
            new = listed(study) - before
            for path in sorted(new):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            if (
                code not in ((0, 1, 2) if name == "jobscript" else (1, 2))
                or (code and not said)
                or len(said) > LONGEST_MESSAGE
                or "Traceback" in said
                or new
            ):
                wrong.append(
                    f"{parameter.name}={value[:20]!r}: exit code {code}, wrote {sorted(map(str, new))[:3]}: {said[-300:]}"
                )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "r.yaml", "--out="], "argument 3 is empty ('--out='): is a variable of your shell not set?"),
        (["info", "\udcff"], "argument 2 is not UTF-8"),
        (["info", "a\nb"], r"argument 2 has a control character or a new line in it ('a\nb')"),
        (["info", "x" * 5000], f"File name too long: {'x' * 150}…xxx"),
    ],
)
def test_words_that_mean_nothing_are_refused(words, told):
    code, said = call(words)
    assert code == 1
    assert told in said


def test_every_command_is_tried():
    assert set(COMMANDS) == {name for name, _ in leaves(get_command(cli.app))}
