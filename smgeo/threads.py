"""Work shared among the threads of this process, and code that is compiled so that they run at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

import numba
from dask.system import CPU_COUNT

Item = TypeVar("Item")
Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[Function], Function]:
    """Compile a function when it is first called, without Python's lock; the result is kept on disk for the next process.

    Where neither the package nor the user's folder of caches can be written, as in a container on a compute node, each process compiles.
    `$NUMBA_CACHE_DIR` names another folder.

    Parameters
    ----------
    **options
        As for `numba.njit`.
    """

    def decorate(function: Function) -> Function:
        made: Function
        try:
            made = numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # no folder for the cache
            made = numba.njit(nogil=True, **options)(function)
        return made

    return decorate


def map_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int = CPU_COUNT) -> list[Result]:
    """Return `work(item)` of each item, in order, computed on `threads` threads.

    On a thread other than the main one, all items are computed on that thread: it already shares the CPUs with others, as the threads
    of Dask, `write_cube` and `predict_map` do.
    """
    if threads == 1 or threading.current_thread() is not threading.main_thread():
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """Return what a call returns, if it does so in time.

    Libraries limit the wait for the next bytes of an answer, not the whole: a server that sends one now and then keeps them for ever.
    A call that is given up goes on in its thread, which ends with the process at the latest.

    Raises
    ------
    TimeoutError
        If it takes longer.
    """
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), daemon=True, name="smgeo-within").start()
    return result.result(seconds)
