"""Ways in which a run ends before its time. Each returns words for what is wrong with how it ended; None if nothing is."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from tests.kills.small_study import FIRST, START, Process

SENTENCE = "smgeo: interrupted; the same command again continues where this one stopped"
BEFORE_START = "smgeo: interrupted before it began; nothing was done"
PROMISED_S = 10
_PAGE = 4096
_WHOLE_SIZE = 256 * 2**20


class Disk:
    """Where a run writes: a small disk of its own, which can be made full; without the right to mount one, a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.mounted = self._mount(f"size={_WHOLE_SIZE}")

    def _mount(self, options: str) -> bool:
        if os.geteuid():
            return False
        return not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)], capture_output=True
        ).returncode

    def leave(self, free: int) -> None:
        """Make the disk so small that so many bytes are free."""
        for _ in range(50):  # what is written meanwhile does not fit into the new size
            with contextlib.suppress(subprocess.CalledProcessError):
                return self._resize((shutil.disk_usage(self.path).used + free) // _PAGE * _PAGE)
        raise AssertionError(f"{self.path} grows too fast to be made small")

    def widen(self) -> None:
        """Give it its whole size again."""
        if self.mounted:
            self._resize(_WHOLE_SIZE)

    def _resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True)

    def close(self) -> None:
        """Unmount it."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)


@contextlib.contextmanager
def own_disk(path: Path) -> Iterator[Disk]:
    """A disk for the time of a block."""
    disk = Disk(path)
    try:
        yield disk
    finally:
        disk.close()


def end_by_sigkill(process: Process, disk: Disk, random: Random) -> str | None:
    """`kill -9` of the process alone: what it has started must end by itself."""
    process.send(signal.SIGKILL)
    return _judge(process, process.wait(), -signal.SIGKILL)


def end_group_by_sigkill(process: Process, disk: Disk, random: Random) -> str | None:
    """`kill -9` of the whole group."""
    process.send_all(signal.SIGKILL)
    return _judge(process, process.wait(), -signal.SIGKILL)


def end_by_sigterm(process: Process, disk: Disk, random: Random) -> str | None:
    """`kill`, as SLURM and systemd do."""
    return _stop(process, process.send, signal.SIGTERM)


def end_by_ctrl_c(process: Process, disk: Disk, random: Random) -> str | None:
    """Ctrl-C, which a terminal sends to the whole group."""
    return _stop(process, process.send_all, signal.SIGINT)


def _stop(process: Process, send: Callable[[int], None], number: int) -> str | None:
    early = process.stage == START
    begin = time.monotonic()
    send(number)
    code = process.wait(60)
    took = time.monotonic() - begin
    # Before the command listens, while Python starts, the system ends it; a shell reports the same code.
    codes = (128 + number, -number) if early else (128 + number,)
    wrong = _judge(process, code, *codes)
    said = process.text.count(SENTENCE) + (process.text.count(BEFORE_START) if early else 0)
    if wrong is None and code == 128 + number and said != 1:
        wrong = f"the sentence is there {said} times"
    if wrong is None and took > PROMISED_S:
        wrong = f"took {took:.1f} s to end"
    return wrong


def end_by_full_disk(process: Process, disk: Disk, random: Random) -> str | None:
    """A disk with little space left; where none can be mounted, a limit of the size of files."""
    if disk.mounted:
        disk.leave(random.randrange(0, 12) * _PAGE)
    else:
        limit = random.randrange(1, 10) * _PAGE
        resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    code = process.wait()
    disk.widen()
    # Maps are weighed against the disk before they are made.
    words = ("no space left", "of disk are free") if disk.mounted else ("larger than its disk",)
    wrong = _judge(process, code, 1)
    if wrong is None and code and not any(w in process.text for w in words):
        wrong = f"does not say {' or '.join(words)}"
    return wrong


def end_beside_second_run(process: Process, disk: Disk, random: Random) -> str | None:
    """A second run in the same folder is refused, even while the first stands still; then the first is killed."""
    process.until(FIRST)  # before it says anything it does not hold the folder
    process.send(signal.SIGSTOP)  # so that it is still in this stage
    second = process.again()
    code = second.wait()
    if process.popen.poll() is None:
        wrong = _judge(second, code, 1)
        if wrong is None and "another run is at work" not in second.text:
            wrong = "the second run does not say why it ends"
        if wrong is not None:
            process.kill()
            return f"{wrong}; the second run: {second.text[-500:]}"
    process.send(signal.SIGKILL)
    return _judge(process, process.wait(), -signal.SIGKILL)


def _judge(process: Process, code: int, *codes: int) -> str | None:
    """Return what is wrong with an exit code and with what was printed; a run that was finished may have its own code 0."""
    if "Traceback" in process.text or "Exception ignored" in process.text:
        return "traceback"
    # While Python ends, after the last line, signals have their usual meaning.
    if code in codes or (process.finished and code in (0, -signal.SIGINT, -signal.SIGTERM)):
        return None
    return f"exit code {code}"


ENDINGS: dict[str, Callable[[Process, Disk, Random], str | None]] = {
    "SIGKILL": end_by_sigkill,
    "SIGKILL, group": end_group_by_sigkill,
    "SIGTERM": end_by_sigterm,
    "Ctrl-C": end_by_ctrl_c,
    "disk full": end_by_full_disk,
    "second run": end_beside_second_run,
}
