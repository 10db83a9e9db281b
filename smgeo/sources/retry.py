"""Attempts at a remote request, with pauses that double: for files, catalogues and Earth Engine.

A loop of a dozen lines rather than a library such as tenacity: callers decide by the error whether to go on, and one
waits on an event, so that a lost task stops at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """How often something is tried, and how long the pauses between attempts are.

    Attributes
    ----------
    tries : int
        Attempts in all.
    first_s : float
        Longest first pause, seconds; each later one is twice as long.
    longest_s : float
        Limit of all pauses, seconds.
    least : float
        Pauses are drawn evenly from this share of their length up, so that clients refused together come back apart.
    """

    tries: int
    first_s: float
    longest_s: float
    least: float = 0.5

    def attempts(self, wait: Callable[[float], object] | None = None) -> Iterator[int]:
        """Yield 1 to `tries`, after a pause before each but the first; `wait` defaults to `time.sleep`."""
        for number in range(1, self.tries + 1):
            if number > 1:
                longest = min(self.longest_s, self.first_s * 2 ** (number - 2))
                (wait or time.sleep)(random.uniform(self.least * longest, longest))  # noqa: S311 - jitter
            yield number
