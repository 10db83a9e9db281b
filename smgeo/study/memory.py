"""How much memory a piece of work takes, with the processes that it starts."""

from __future__ import annotations

import threading
from typing import Self

import psutil

_EVERY_S = 0.5
# Linux may make a reader of a process's memory wait; what is lost then is one look.
_JOIN_S = 10


class PeakMemory:
    """Peak of the memory of this process and all below it, while a `with` block runs; looked at twice a second.

    Pages that several processes share (Ray's data, say) count once where the system tells (PSS, on Linux); elsewhere what is each process's own.

    Attributes
    ----------
    bytes : int
        The peak so far.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join(_JOIN_S)
        self._look()

    def _watch(self) -> None:
        while not self._end.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        total, own = 0, psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            try:
                info = process.memory_full_info()
            except (psutil.Error, OSError):  # it has ended, or is another user's
                continue
            total += getattr(info, "pss", 0) or info.uss
        self.bytes = max(self.bytes, total)
