"""Ctrl-C and SIGTERM end a command within 10 s, whatever code is running.

Python's own handlers run only between two lines of Python in the main thread, which a call of C code (trees in training, a read that
waits for a server) may not reach for minutes. Therefore a thread gets the number of each signal too. It ends the process if the
ordinary way, `KeyboardInterrupt` in the main thread, takes too long. Files are written beside their place and renamed, and finished
work is kept, so that this costs no more than `kill -9`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import psutil

from smgeo.processes import end_processes, note, start_watcher

_SENTENCE = "interrupted; the same command again continues where this one stopped"
# Seconds that the ordinary way may take. A busy machine needs the rest of the 10 s.
_ORDERLY_S = 5.0


class Stop:
    """A request to stop: `code` is the exit code of the command, None while nobody has asked."""

    def __init__(self) -> None:
        self.code: int | None = None
        self._raised = False
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._said = threading.Lock()

    def listen(self) -> None:
        """Get the signals from now on; only the main thread can."""
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGTERM, self._ask)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        if hasattr(os, "register_at_fork"):  # a forked child shares the socket: its signals are not this process's
            os.register_at_fork(after_in_child=_forget)
        threading.Thread(target=self._watch, name="smgeo-stop", daemon=True).start()

    def release(self) -> None:
        """Get no signals any more, and end the watching thread."""
        signal.set_wakeup_fd(-1)
        self._write.close()

    def _say(self) -> None:
        """Print once how to go on. It takes no lock of `sys.stderr`, which a thread may hold for ever."""
        if self._said.acquire(blocking=False):
            with suppress(OSError):  # the terminal is gone
                os.write(2, f"smgeo: {_SENTENCE}\n".encode())

    def _ask(self, number: int, frame: FrameType | None) -> None:
        """Raise `KeyboardInterrupt` at the first signal; later ones must not end the clean-up."""
        self._note(number)
        if self._raised:
            return
        self._raised = True
        sys.unraisablehook = _hush  # in a callback the exception is lost, and the watching thread ends the process
        threading.excepthook = _hush
        current = signal.getsignal(signal.SIGINT)
        if callable(current) and current != self._ask:  # a search ends its trials first
            current(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt

    def _note(self, number: int) -> None:
        if self.code is None:
            self.code = 128 + number

    def _watch(self) -> None:
        """End the process at the second Ctrl-C, or some seconds after the first signal."""
        deadline = None
        while True:
            self._read.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
            try:
                numbers = self._read.recv(64)
            except TimeoutError:
                self.end()
            if not numbers:  # released
                self._read.close()
                return
            for number in numbers:
                if deadline is not None and number == signal.SIGINT:
                    self.end()
                if number in (signal.SIGINT, signal.SIGTERM) and deadline is None:
                    self._note(number)
                    deadline = time.monotonic() + _ORDERLY_S

    def end(self) -> NoReturn:
        """Say how to go on, and end this process and then its children, without the interpreter's clean-up."""
        try:
            self._say()
            _watcher = _end_children_later()  # its pipe must be open until this process is gone
        finally:
            os._exit(self.code or 128 + signal.SIGINT)


def _end_children_later() -> object:
    """Let all processes that this one has started, and theirs, end once it is gone.

    Not before: Ray ends a process with an exit code of its own when the daemons that it talks to are gone.
    """
    children = []
    with suppress(psutil.Error):
        children = note(psutil.Process().children(recursive=True))
    try:
        return start_watcher(children) if children else None
    except Exception:  # no process or no memory left, or no Python to start
        end_processes(children)
        return None


@contextmanager
def stopping_in_order() -> Iterator[Stop]:
    """Let SIGINT and SIGTERM end the block. After a request to stop the watch goes on until the process has ended."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = Stop()
    stop.listen()
    try:
        yield stop
    finally:
        if stop.code is None:
            stop.release()
            for number, handler in before.items():
                signal.signal(number, handler)


def _forget() -> None:
    """Give a forked child the usual handlers."""
    with suppress(ValueError):  # forked by another thread than the main one
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _hush(raised: object, /) -> None:
    """Print nothing of an exception that nobody handles: it follows from the stop."""
