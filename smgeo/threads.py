"""Work shared among the threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dask.system import CPU_COUNT

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int = CPU_COUNT) -> list[Result]:
    """Return `work(item)` of each item, in order, computed on `threads` threads.

    On a thread other than the main one, all items are computed on that thread: it already shares the CPUs with others, as the threads
    of Dask, `write_cube` and `predict_map` do.
    """
    if threads == 1 or threading.current_thread() is not threading.main_thread():
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
