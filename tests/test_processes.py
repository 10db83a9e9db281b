"""Processes that end with this one, and others that have got their number."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from smgeo.processes import Noted, end_processes, ending_with_this_process, folder_of_this_process


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "600"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def runs(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_process_is_killed(sleeper):
    end_processes([Noted(sleeper.pid, sleeper.create_time())])
    assert psutil.wait_procs([sleeper], timeout=10)[1] == []


def test_another_process_with_the_number_of_one_that_has_ended_is_left_alone(sleeper):
    end_processes([Noted(sleeper.pid, sleeper.create_time() - 60)])
    time.sleep(0.2)
    assert runs(sleeper)


def test_a_process_that_has_ended_is_no_error():
    process = subprocess.Popen(["true"])
    created = psutil.Process(process.pid).create_time()
    process.wait()
    end_processes([Noted(process.pid, created)])


def test_processes_live_on_when_the_context_is_left(sleeper):
    with ending_with_this_process([Noted(sleeper.pid, sleeper.create_time())]):
        pass
    assert runs(sleeper)


SCRIPT = """
import os, sys, time
from smgeo.processes import Noted, ending_with_this_process

with ending_with_this_process([Noted(int(sys.argv[1]), float(sys.argv[2])), Noted(int(sys.argv[3]), 1.0)]):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_takes_those_with_it_that_it_noted(sleeper):
    other = psutil.Process(subprocess.Popen(["sleep", "600"]).pid)
    command = [sys.executable, "-c", SCRIPT, str(sleeper.pid), repr(sleeper.create_time()), str(other.pid)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout.readline() == "ready\n"
        assert runs(sleeper)
        parent.send_signal(signal.SIGKILL)
    assert psutil.wait_procs([sleeper], timeout=30)[1] == []
    assert runs(other)
    other.kill()


FOLDER = """
import sys, time
from pathlib import Path
from smgeo.processes import folder_of_this_process

with folder_of_this_process("kept-", sys.argv[1]) as folder:
    Path(folder, "file").touch()
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_folder_is_removed_at_the_end_and_when_its_process_is_killed(tmp_path, stopped, hidden):
    """So are daemons that would make it again: those that name it on their command line, and those with a file open in it."""
    with folder_of_this_process("kept-", str(tmp_path)) as folder:
        Path(folder, "file").touch()
    assert list(tmp_path.iterdir()) == []
    command = [sys.executable, "-c", FOLDER, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout.readline() == "ready\n"
        (file,) = tmp_path.glob("kept-*/file")
        words = "$F" if hidden else file.parent
        daemon = subprocess.Popen(
            ["sh", "-c", f"exec 3> {words}/log; sleep 4; mkdir -p {words}; sleep 600"],
            env={**os.environ, **({"F": str(file.parent)} if hidden else {})},
        )
        while not (file.parent / "log").exists():
            time.sleep(0.02)
        if stopped:  # such a process ends its children first
            while any(runs(child) for child in psutil.Process(parent.pid).children()):
                time.sleep(0.05)
            for child in psutil.Process(parent.pid).children(recursive=True):
                child.kill()
        parent.send_signal(signal.SIGKILL)
    assert daemon.wait(30) == -signal.SIGTERM
    end = time.monotonic() + 30
    while list(tmp_path.iterdir()) and time.monotonic() < end:
        time.sleep(0.1)
    assert list(tmp_path.iterdir()) == []
