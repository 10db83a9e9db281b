"""Ctrl-C on a terminal and SIGTERM, in each stage of a run."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import yaml

from tests.kills import small_study

pty = pytest.importorskip("pty")

SENTENCE = "smgeo: interrupted; the same command again continues where this one stopped"
RECIPE = {
    **{key: small_study.RECIPE[key] for key in ("name", "target", "stations", "grid")},
    "world": {"stations": 40, "days": 90, "shape": [16, 16]},
    "rasters": [source for source in small_study.RECIPE["rasters"] if "s1_vv" not in source["bands"]],
    "features": ["temperature", "elevation", "slope"],
    "prepare": {"window": {"length": 5}},
}
FOREST = {"models": {"rf": {"trees": 30_000}}}
SKLEARN = {"models": {"rf": {"trees": 30_000, "engine": "sklearn"}}}
NETWORK = {"models": {"ann": {"units": 4, "epochs": 150, "patience": 150}}}
SEARCH = {**NETWORK, "search": {"ann": {"trials": 40, "epochs": 20, "scheduler": "none", "concurrent": 2}}}


class Ended(NamedTuple):
    code: int
    text: str
    left: list[list[str]]


def on_terminal(folder: Path, recipe: dict, until: str, delay: float = 0.0, keys: int = 1, number: int = 0) -> Ended:
    """Run the recipe on a terminal of its own; when it has printed `until`, press Ctrl-C so often, or send a signal."""
    (folder / "small.yaml").write_text(yaml.safe_dump({**RECIPE, **recipe}), encoding="utf-8")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execv(sys.executable, [sys.executable, "-m", "smgeo", "run", "small.yaml", "--out", "run"])
    text, due = b"", None
    limit = time.monotonic() + 170
    while True:
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                text += os.read(terminal, 65536)
            except OSError:  # the process has closed it
                break
        if due is None and until and re.search(until.encode(), text):
            due = time.monotonic() + delay
        if due is not None and keys and time.monotonic() >= due:
            if number:
                os.kill(pid, number)
            else:
                os.write(terminal, b"\x03")
            keys, due = keys - 1, time.monotonic() + 0.3
        if time.monotonic() > limit:
            os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    end = time.monotonic() + 10
    while (left := _of_session(pid)) and time.monotonic() < end:  # children end when the command has ended
        time.sleep(0.1)
    return Ended(code, text.decode(errors="replace"), left)


def _of_session(session: int) -> list[list[str]]:
    left = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process.cmdline())
        except (OSError, psutil.Error):
            continue
    return left


def check(ended: Ended, code: int = 130) -> None:
    assert ended.code == code, ended.text[-3000:]
    assert ended.text.count(SENTENCE) == 1, ended.text[-3000:]
    assert "Traceback" not in ended.text
    assert "Exception ignored" not in ended.text
    assert ended.left == []


STAGES = {
    "world": (FOREST, "world"),
    "stations": (FOREST, "stations"),
    "preparation": (FOREST, "prepared"),
    "forest": (FOREST, "model rf"),
    "sklearn": (SKLEARN, "model rf"),
    "network": (NETWORK, "model ann"),
    "search": (SEARCH, "search"),
}


@pytest.mark.soak
@pytest.mark.parametrize("delay", [0.0, 1.5, 5.0])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_ends_at_ctrl_c(stage, delay, tmp_path):
    recipe, until = STAGES[stage]
    check(on_terminal(tmp_path, recipe, until, delay))


@pytest.mark.soak
@pytest.mark.parametrize("keys", [1, 2])
def test_the_wait_for_a_dead_server_ends_at_ctrl_c(keys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as dead:  # it takes calls and never answers
        path = f"http://127.0.0.1:{dead.getsockname()[1]}/clay.tif"
        rasters = [*RECIPE["rasters"], {"kind": "geotiff", "path": path, "bands": {"clay": 1}}]
        check(on_terminal(tmp_path, {**FOREST, "rasters": rasters}, "world: done", 6.0, keys=keys))


@pytest.mark.soak
@pytest.mark.parametrize("until", ["stations", "prepared", "model rf", "map rf"])
def test_a_run_that_was_stopped_goes_on_to_the_same_maps(until, tmp_path):
    recipe = {"models": {"rf": {"trees": 3_000}}, "maps": {"models": ["rf"], "dates": ["2016-01-20", "2016-02-10"]}}
    maps = []
    for name in ("stopped", "whole"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "stopped":
            check(on_terminal(folder, recipe, until))
        ended = on_terminal(folder, recipe, "", keys=0)
        assert ended.code == 0, ended.text[-3000:]
        maps.append({f.name: f.read_bytes() for f in (folder / "run" / "maps" / "rf").glob("*.tif")})
    assert len(maps[0]) == 2
    assert maps[0] == maps[1]


def test_a_forest_in_training_ends_at_sigterm(tmp_path):
    check(on_terminal(tmp_path, FOREST, "model rf", 1.0, number=signal.SIGTERM), 143)


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    check(on_terminal(tmp_path, FOREST, "world", keys=2))


ENDING = """
import subprocess, sys
from smgeo.cli.stopping import Stop

print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
sys.executable = {executable}
stop = Stop()
stop.code = 143
stop.end()
"""


@pytest.mark.parametrize("executable", ["sys.executable", "None", "'/nowhere/python'"])
def test_children_end_with_the_command_though_nothing_can_be_started(executable):
    done = subprocess.run(
        [sys.executable, "-c", ENDING.format(executable=executable)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (143, f"{SENTENCE}\n")
    end = time.monotonic() + 20
    while psutil.pid_exists(int(done.stdout)) and time.monotonic() < end:
        if psutil.Process(int(done.stdout)).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    assert not psutil.pid_exists(int(done.stdout))


def test_a_command_that_ends_leaves_no_thread_behind():
    """Notebooks and tests call it many times in one process."""
    from smgeo.cli.stopping import stopping_in_order

    before = threading.active_count()
    for _ in range(20):
        with stopping_in_order():
            pass
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
