"""Misbehaviour on demand: which requests are answered wrongly, and how."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Sequence

# What a request may get instead of its answer.
KINDS = ("429", "500", "503", "hang", "cut", "short", "html", "shape", "dtype", "drip")


class Faults:
    """A share of the requests goes wrong, in turns of the kinds; or the next ones that `fail_next` names.

    Parameters
    ----------
    share : float
        Of all requests for values and pixels, those that fail.
    seed : int
        Of the choice.
    kinds : sequence of str
        `429`, `500`, `503` (Google's error form); `hang` (no answer until the client has gone, or for `hang_s`); `cut`
        (the connection closes in the middle of the body); `short` (a whole answer with half of the body); `html` (a
        page with status 200); `shape` and `dtype` (pixels of another shape or type; other answers get a 503 instead); `drip` (a byte
        of the answer now and then, for `hang_s`).
    hang_s : float
        The longest hang or drip, in seconds.
    """

    def __init__(
        self, share: float = 0.0, seed: int = 0, kinds: Sequence[str] = KINDS[:-2], hang_s: float = 30.0
    ) -> None:
        if unknown := set(kinds) - set(KINDS):
            raise ValueError(f"unknown kinds of fault: {unknown}; known: {KINDS}")
        self.share, self.kinds, self.hang_s = share, tuple(kinds), hang_s
        self.done: dict[str, int] = {}
        self._random = random.Random(seed)
        self._next: deque[str | None] = deque()
        self._lock = threading.Lock()

    def fail_next(self, *kinds: str | None) -> None:
        """The next requests get these faults, in this order; None: a proper answer."""
        with self._lock:
            self._next.extend(kinds)

    def pick(self, pixels: bool) -> str | None:
        """The fault of this request, or None."""
        with self._lock:
            if self._next:
                kind = self._next.popleft()
            elif self._random.random() < self.share:
                kind = self.kinds[sum(self.done.values()) % len(self.kinds)]
            else:
                return None
            if kind in ("shape", "dtype") and not pixels:
                kind = "503"
            if kind is not None:
                self.done[kind] = self.done.get(kind, 0) + 1
            return kind
