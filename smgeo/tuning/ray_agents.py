"""Ray's agents end with the process that started them, should it be killed: without this they would run for another minute.

Run as a script, this module is the process that waits for that. It needs psutil, but not smgeo, which takes seconds to import.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import psutil

# Agents are known by their script, and by the title that they take a moment later.
_MARKS = ("dashboard/agent.py", "runtime_env/agent/main.py", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
# Seconds by which two processes may read another creation time: it counts from the boot time, which Linux rounds.
_CLOCK_S = 1.0
# The watching process ends within so many seconds of the line.
_END_S = 10


class Noted(NamedTuple):
    """A process: its number may belong to another one later, but not with the same creation time."""

    pid: int
    created: float


@contextmanager
def ending_with_this_process(processes: Iterable[Noted]) -> Iterator[None]:
    """Kill processes when this process ends without leaving the context."""
    noted = [word for process in processes for word in (str(process.pid), repr(process.created))]
    # -P: the modules beside this one must not replace modules of the standard library.
    command = [sys.executable, "-P", __file__, *noted]
    # It gets a line at the end; the end of input without one means that this process is gone.
    with subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, start_new_session=True) as watcher:  # noqa: S603 - no user's text
        assert watcher.stdin is not None
        try:
            yield
        finally:
            with suppress(BrokenPipeError):  # the watcher was killed
                watcher.stdin.write(b"\n")
            with suppress(subprocess.TimeoutExpired):
                watcher.wait(_END_S)
            watcher.kill()  # a stopped one would be waited for


def find_agents() -> list[Noted]:
    """Return the agents of the Ray that this process started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            if any(word.endswith(_MARKS) for word in child.cmdline()):
                found.append(Noted(child.pid, child.create_time()))
    return found


def kill_processes(processes: Iterable[Noted]) -> None:
    """Kill processes that still run; not those that have the number of one that has ended."""
    for pid, created in processes:
        with suppress(psutil.Error):  # it has ended
            process = psutil.Process(pid)
            if abs(process.create_time() - created) <= _CLOCK_S:
                process.kill()


def _watch(words: list[str]) -> None:
    """Wait for a line, which means that there is nothing to do, or for the end of input: the other process is gone."""
    noted = [Noted(int(pid), float(created)) for pid, created in zip(words[::2], words[1::2], strict=True)]
    if not sys.stdin.buffer.readline():
        kill_processes(noted)


if __name__ == "__main__":
    _watch(sys.argv[1:])
