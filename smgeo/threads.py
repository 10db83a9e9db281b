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
    """`work` of each item, in order: on so many threads, by default as many as there are CPUs.

    Called on a thread that is not the main one, it stays on it: that thread is one of several that share the CPUs already, as
    those of Dask are, and of `write_cube` and `predict_map`.
    """
    if threads == 1 or threading.current_thread() is not threading.main_thread():
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
