"""Stop a command in order when it is asked to: by Ctrl-C (exit code 130) or SIGTERM (143), within ten seconds.

Python runs the handler of a signal only between two steps of its own code. Compiled code may not come back for long (a read from a dead server,
a lock), or may swallow the interruption. So a thread, which Python tells of a signal at once, ends the process if nothing else does. That
loses only the work in hand: what smgeo writes is either complete or absent at any time.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Self

import psutil

# Seconds in which a command ends by itself.
_LIMIT_S = 8.0
_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_SENTENCE = "smgeo: interrupted; the same command again continues where this one stopped"


class Stopping:
    """A context in which Ctrl-C and SIGTERM raise KeyboardInterrupt, and end the process if that does not; for the main thread.

    A second Ctrl-C ends the process at once; a second SIGTERM changes nothing, because it must not end the clean-up.

    Attributes
    ----------
    code : int or None
        Exit code, once the process was asked to stop.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self._before = {number: signal.getsignal(number) for number in _CODES}
        self._heard, self._told = socket.socketpair()
        self._said = False

    def __enter__(self) -> Self:
        for number, handler in self._before.items():
            if handler != signal.SIG_IGN:  # a shell's command in the background is deaf to Ctrl-C
                signal.signal(number, self._interrupt)
        self._told.setblocking(False)
        self._fd = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="smgeo-stopping", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is not None:
            return  # the process ends, and its threads may hang
        signal.set_wakeup_fd(self._fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._told.close()

    def exit_if_asked(self, error: BaseException) -> None:
        """Say how to go on, and exit, if an error came after the process was asked to stop: what is interrupted may fail in any way.

        Raises
        ------
        SystemExit
            With the exit code.
        """
        # typer turns Ctrl-C into this exit code, without a word.
        interrupted = isinstance(error, KeyboardInterrupt) or getattr(error, "code", None) == _CODES[signal.SIGINT]
        failed = not isinstance(error, SystemExit) or error.code not in (0, None)
        if interrupted or (self.code is not None and failed):
            self._say()
            sys.exit(self.code or _CODES[signal.SIGINT])

    def _say(self) -> None:
        if not self._said:
            self._said = True
            print(_SENTENCE, file=sys.stderr, flush=True)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.code is None or number == signal.SIGINT:
            self.code = self.code or _CODES[signal.Signals(number)]
            raise KeyboardInterrupt

    def _watch(self) -> None:
        """Wait for a signal, then end the process when its time is over or Ctrl-C is pressed again."""
        first = self._next()
        if first is None:
            return
        self._heard.settimeout(_LIMIT_S)
        try:
            while self._next() not in (None, signal.SIGINT):
                pass
        except TimeoutError:
            pass
        self._say()
        _end(_CODES[first])

    def _next(self) -> signal.Signals | None:
        """Return the next of the signals that stop; None when the context has ended."""
        while sent := self._heard.recv(1):
            if sent[0] in _CODES:
                return signal.Signals(sent[0])
        return None


def _end(code: int) -> None:
    """End this process and all that it started."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.Error:
            continue
    os._exit(code)
