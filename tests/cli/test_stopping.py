"""Ctrl-C at a terminal and SIGTERM end every stage: exit code, one sentence, no traceback, nothing left running."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

from smgeo.models import load_model

_PATIENCE_S = 120  # until a stage begins, on a slow machine
_SENTENCE = "interrupted; the same command again continues"


def write_recipe(folder, rows=400, stations=10, **parts):
    """A recipe over a table of moisture and two features."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2019-01-01", periods=rows)
    frames = []
    for s in range(stations):
        t = np.sin(np.arange(rows) / 9 + s) + rng.normal(0, 0.3, rows)
        table = {"station": f"s{s}", "date": days, "lat": 50 + s / 10, "lon": 8.0, "t": 10 + 5 * t}
        frames.append(
            pd.DataFrame({**table, "rain": rng.gamma(1, 2, rows), "sm": 0.2 + 0.05 * t + rng.normal(0, 0.02, rows)})
        )
    pd.concat(frames).to_csv(folder / "sm.csv", index=False)
    columns = {
        "station": "station",
        "time": "date",
        "latitude": "lat",
        "longitude": "lon",
        "temperature": "t",
        "precipitation": "rain",
    }
    recipe = {
        "name": "stop",
        "stations": [{"kind": "csv", "path": "sm.csv", "columns": {**columns, "sm": {"column": "sm", "depth": 0.05}}}],
        "features": ["temperature", "precipitation"],
        "prepare": {"window": {"length": 10}},
        **parts,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


class Terminal:
    """A command at a terminal of its own, in whose foreground it runs."""

    def __init__(self, folder, *command):
        self.controller, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smgeo", *command],
            cwd=folder,
            stdin=other,
            stdout=other,
            stderr=other,
            preexec_fn=lambda: (signal.signal(signal.SIGINT, signal.default_int_handler), os.login_tty(other)),
        )
        os.close(other)
        self.text = ""

    def until(self, pattern, seconds=_PATIENCE_S):
        """Read until the pattern is there."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, self.text
            self._read()

    def _read(self):
        if not select.select([self.controller], [], [], 0.2)[0]:
            return True
        try:
            self.text += os.read(self.controller, 65536).decode(errors="replace")
        except OSError:  # all have closed it
            return False
        return True

    def press(self, *, times=1):
        """Press Ctrl-C."""
        for _ in range(times):
            os.write(self.controller, b"\x03")
            time.sleep(0.5)

    def end(self, seconds=30):
        """Wait for the end; return the exit code and the processes that are left."""
        until = time.monotonic() + seconds
        while self.process.poll() is None:
            self._read()
            assert time.monotonic() < until, f"still running: {self.text[-2000:]}"
        while self._read() and time.monotonic() < until and select.select([self.controller], [], [], 0)[0]:
            pass
        os.close(self.controller)
        return self.process.returncode, left_of(self.process.pid)


def left_of(session):
    """Processes of a session that still run; a moment is given to those that end."""
    end = time.monotonic() + 5
    while True:
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline())[:200])
            except (psutil.Error, OSError):
                continue
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.2)


LONG = 10**5
STAGES = {
    "forest": ("model rf", {"models": {"rf": {"trees": LONG, "max_depth": 30, "min_examples": 1}}}),
    "sklearn forest": ("model rf", {"models": {"rf": {"engine": "sklearn", "trees": 20_000}}}),
    "boosting": ("model hgb", {"models": {"hgb": {"kind": "HistGradientBoostingRegressor", "max_iter": 1_000_000}}}),
    "network": (r"model ann: \d+ of", {"models": {"ann": {"epochs": LONG, "patience": LONG}}}),
    "recurrent": (r"model gru", {"models": {"gru": {"epochs": LONG, "patience": LONG}}}),
    "search": (
        r"search ann: [1-9]",
        {"models": {"ann": {}}, "search": {"ann": {"trials": 500, "epochs": 50, "scheduler": "none"}}},
    ),
    "start of a search": ("search ann", {"models": {"ann": {}}, "search": {"ann": {"trials": 500, "epochs": 50}}}),
}
QUICK = ("forest", "network")


@pytest.mark.parametrize("stage", [pytest.param(s, marks=[] if s in QUICK else pytest.mark.soak) for s in STAGES])
def test_ctrl_c_ends_a_stage(stage, tmp_path):
    pattern, parts = STAGES[stage]
    write_recipe(tmp_path, **parts)
    terminal = Terminal(tmp_path, "run", "recipe.yaml", "--out", "run")
    terminal.until(pattern)
    time.sleep(2)  # into compiled code
    terminal.press()
    code, left = terminal.end()
    assert code == 130, terminal.text
    assert terminal.text.count(_SENTENCE) == 1
    assert "Traceback" not in terminal.text
    assert "Exception ignored" not in terminal.text
    assert left == []
    assert not list((tmp_path / "run" / "models").glob("*/model.json"))


def test_sigterm_ends_a_stage_with_its_own_code(tmp_path):
    write_recipe(tmp_path, models={"rf": {"trees": LONG}})
    terminal = Terminal(tmp_path, "run", "recipe.yaml", "--out", "run")
    terminal.until("model rf")
    time.sleep(1)
    terminal.process.terminate()
    code, left = terminal.end()
    assert (code, left) == (143, []), terminal.text
    assert terminal.text.count(_SENTENCE) == 1
    assert "Traceback" not in terminal.text


@pytest.mark.soak
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_the_wait_for_a_dead_server(times, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as dead:  # it takes calls and never answers
        path = f"http://127.0.0.1:{dead.getsockname()[1]}/clay.tif"
        write_recipe(
            tmp_path,
            rasters=[{"kind": "geotiff", "path": path, "bands": {"clay": 1}}],
            models={"linear": {"kind": "Ridge"}},
        )
        terminal = Terminal(tmp_path, "run", "recipe.yaml", "--out", "run")
        time.sleep(8)
        assert terminal.process.poll() is None, terminal.text
        terminal.press(times=times)
        code, left = terminal.end()
    assert (code, left) == (130, []), terminal.text
    assert "Traceback" not in terminal.text


@pytest.mark.soak
def test_a_run_that_was_stopped_goes_on_to_the_same_model(tmp_path):
    write_recipe(tmp_path, models={"rf": {"trees": 2000}})
    terminal = Terminal(tmp_path, "run", "recipe.yaml", "--out", "run")
    terminal.until("model rf")
    terminal.press()
    assert terminal.end()[0] == 130
    for out in ("run", "whole"):
        subprocess.run([sys.executable, "-m", "smgeo", "run", "recipe.yaml", "--out", out], cwd=tmp_path, check=True)
    x = np.random.default_rng(1).random((50, 2)) * 10
    first, second = (load_model(tmp_path / out / "models" / "rf").predict(x) for out in ("run", "whole"))
    np.testing.assert_array_equal(first, second)
