"""Progress of long work: a live bar on a terminal, plain lines in a job's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Update = Callable[..., None]
_EVERY_S = 30.0


class Reporter:
    """Tells what a run does and what it is waiting for.

    Parameters
    ----------
    stream : file, optional
        Where lines go; standard error by default, so that standard output stays for results.
    quiet : bool
        Say nothing.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._console = Console(file=self._stream, quiet=quiet, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line; in a log with the time of day before it."""
        if not self._quiet:
            clock = "" if self._console.is_terminal else time.strftime("%H:%M:%S ")
            self._console.print(clock + text, markup=False)

    @contextmanager
    def task(self, name: str) -> Iterator[Update]:
        """A piece of work; yields `update(done, total, note="")`."""
        start = time.monotonic()
        if self._quiet:
            yield lambda *a, **k: None
            return
        if self._console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=self._console, transient=True) as bar:
                handle = bar.add_task(name, total=None, note="")
                yield lambda done, total, note="": bar.update(handle, completed=done, total=total, note=note)
        else:
            self.say(f"{name} ...")
            last = start

            def update(done: int, total: int, note: str = "") -> None:
                nonlocal last
                now = time.monotonic()
                if now - last >= _EVERY_S:
                    last = now
                    self.say(f"{name}: {done} of {total} {note}".rstrip())

            yield update
        self.say(f"{name}: done in {time.monotonic() - start:.1f} s")
