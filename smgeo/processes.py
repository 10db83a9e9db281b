"""Processes and folders that end with the process that started them, however it ends.

Run as a script, this module is the process that waits for that end. It needs psutil, but not smgeo, which takes seconds to import.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

# Seconds by which two processes may read another creation time: it counts from the boot time, which Linux rounds.
_CLOCK_S = 1.0
# Seconds between the request to end and the end: a step of SLURM ends on all its nodes when its srun is asked.
_GRACE_S = 1.0
# The watching process ends within so many seconds of the line.
_END_S = 10
# A daemon that was just being started makes the folder again within seconds.
_STARTING_S, _REMOVALS = 3.0, 10


class Noted(NamedTuple):
    """A process: its number may belong to another one later, but not with the same creation time."""

    pid: int
    created: float


def note(processes: Iterable[psutil.Process]) -> list[Noted]:
    """Return these processes, less those that have ended."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            found.append(Noted(process.pid, process.create_time()))
    return found


def start_watcher(processes: Iterable[Noted] = (), folder: str = "") -> subprocess.Popen[bytes]:
    """Start the process that ends processes and removes a folder when this process ends without a line to it."""
    noted = [word for process in processes for word in (str(process.pid), repr(process.created))]
    # -P: the modules beside this one must not replace modules of the standard library.
    command = [sys.executable, "-P", __file__, folder, *noted]
    # This process may have found psutil where the other would not look for it.
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(Path(psutil.__file__).parents[1])]
    return subprocess.Popen(  # noqa: S603 - no user's text
        command,
        bufsize=0,
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


@contextmanager
def ending_with_this_process(processes: Iterable[Noted] = (), folder: str = "") -> Iterator[None]:
    """End processes and remove a folder when this process ends without leaving the context."""
    with start_watcher(processes, folder) as watcher:
        assert watcher.stdin is not None
        try:
            yield
        finally:
            with suppress(BrokenPipeError):  # the watcher was killed
                watcher.stdin.write(b"\n")
            with suppress(subprocess.TimeoutExpired):
                watcher.wait(_END_S)
            watcher.kill()  # a stopped one would be waited for


@contextmanager
def folder_of_this_process(prefix: str, where: str | None = None) -> Iterator[str]:
    """Give a temporary folder that is removed at the end of the context, or when this process is killed."""
    with (
        tempfile.TemporaryDirectory(prefix=prefix, dir=where, ignore_cleanup_errors=True) as folder,
        ending_with_this_process(folder=folder),
    ):
        yield folder


def end_processes(processes: Iterable[Noted]) -> None:
    """End processes that still run: ask first, then kill; not those that have the number of one that has ended."""
    running = []
    for pid, created in processes:
        with suppress(psutil.Error):  # it has ended
            process = psutil.Process(pid)
            if abs(process.create_time() - created) <= _CLOCK_S:
                process.terminate()
                running.append(process)
    for process in psutil.wait_procs(running, _GRACE_S)[1]:
        with suppress(psutil.Error):
            process.kill()


def _watch(words: list[str]) -> None:
    """Wait for a line, which means that there is nothing to do, or for the end of input: the other process is gone."""
    folder, *numbers = words
    noted = [Noted(int(pid), float(created)) for pid, created in zip(numbers[::2], numbers[1::2], strict=True)]
    if sys.stdin.buffer.readline():
        return
    end_processes(noted)
    for _ in range(_REMOVALS if folder else 0):
        end_processes(_users_of(folder))
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_STARTING_S)
        if not os.path.exists(folder):
            return


def _users_of(folder: str) -> list[Noted]:
    """Return the processes that were started with a folder, or have a file in it open: those of Ray would make it again.

    Ray's workers hide their command line behind a title.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is another user's
            if process.pid != os.getpid() and (
                any(folder in word for word in process.cmdline())
                or any(file.path.startswith(f"{folder}/") for file in process.open_files())
            ):
                found.append(process)
    return note(found)


if __name__ == "__main__":
    # No child of the other process: one that is told to stop ends its children before it ends.
    if hasattr(os, "fork") and os.fork():
        os._exit(0)
    _watch(sys.argv[1:])
