"""The active client of Dask, and the wait for its workers, which Dask itself does not limit."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import dask
from dask.utils import parse_timedelta

from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.files import JsonObject

# Resource of Dask workers that reach the internet while others of the cluster do not (`dask worker --resources
# "internet=1"`, one for each thread): cubes are built on these, since their sources may be remote.
INTERNET = "internet"
# What errors of lost workers say of the work so far.
KEPT = "finished regions are kept, and the same command continues from there"
# Seconds without a worker after which work is given up, and after which it is said what is waited for. Dask's own setting,
# `distributed.scheduler.no-workers-timeout`, replaces the first.
_NO_WORKERS_S, _SAY_S = 600.0, 60.0
# A scheduler that is alive answers within so many seconds.
_ANSWER_S = 300.0
_SETTING = "distributed.scheduler.no-workers-timeout"


class DaskCluster(Protocol):
    """The used part of `distributed.deploy.Cluster`."""

    @property
    def requested(self) -> set[object]: ...  # noqa: D102


class DaskScheduler(Protocol):
    """The used part of a connection to the scheduler."""

    @property
    def addr(self) -> str: ...  # noqa: D102

    def identity(self, *, n_workers: int) -> object: ...  # noqa: D102


class DaskFuture(Protocol):
    """The used part of `distributed.Future`."""

    def result(self) -> Any: ...  # noqa: D102

    def cancel(self) -> None: ...  # noqa: D102

    def add_done_callback(self, fn: Callable[[DaskFuture], None]) -> None: ...  # noqa: D102


class DaskClient(Protocol):
    """The used part of `distributed.Client`, whose methods have no types."""

    @property
    def cluster(self) -> DaskCluster | None: ...  # noqa: D102

    @property
    def scheduler(self) -> DaskScheduler | None: ...  # noqa: D102 - None when the client is closed

    def submit(self, func: Callable[..., object], *args: object, pure: bool, **options: object) -> DaskFuture: ...  # noqa: D102

    def sync(self, func: Callable[..., object], *, n_workers: int, callback_timeout: float) -> JsonObject: ...  # noqa: D102

    def close(self, timeout: float) -> None: ...  # noqa: D102


def active_client() -> DaskClient | None:
    """Return the active Dask client, or None."""
    if "distributed" not in sys.modules:  # no client was made, and importing it takes a second
        return None
    from distributed import get_client

    try:
        return get_client()
    except ValueError:
        return None


class Workers:
    """The workers of a client that may compute regions: those with the resource `internet`, if any has it at the start.

    Parameters
    ----------
    client : DaskClient
    store : Path
        What is written, for messages.
    """

    def __init__(self, client: DaskClient, store: Path) -> None:
        self._client, self._store = client, store
        self._asked, self._threads = -math.inf, 0
        self.online_only = False
        self.online_only = any(_is_online(w) for w in self._ask())
        self._seen, self._said = time.monotonic(), False

    def count(self) -> int:
        """Return the number of their threads, as it was within the last second: asking costs a scheduler as much as a task."""
        if time.monotonic() - self._asked > 1:
            self._threads = sum(w["nthreads"] for w in self._ask() if _is_online(w) or not self.online_only)
            self._asked = time.monotonic()
        return self._threads

    def look(self) -> None:
        """Compare the time without a worker with its limit; workers that a cluster has requested, as from a queue, are waited for.

        Raises
        ------
        SmgeoError
            If the limit is passed, or the scheduler does not answer.
        """
        cluster = self._client.cluster
        if self.count() or (cluster is not None and cluster.requested):
            self._seen, self._said = time.monotonic(), False
            return
        waited, limit = time.monotonic() - self._seen, _no_workers_s()
        where = f"{self._store}: Dask's scheduler"
        what = f"worker with the resource {INTERNET}" if self.online_only else "worker"
        if waited > _SAY_S and not self._said:
            self._said = True
            warnings.warn(SmgeoWarning(f"{where} has no {what}; this ends after {limit:g} s without one"), stacklevel=2)
        if waited > limit:
            raise SmgeoError(
                f"{where} has had no {what} for {limit:g} s; start workers, or wait longer with "
                f"DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT=2h; {KEPT}"
            )

    def _ask(self) -> list[JsonObject]:
        """Return what the scheduler tells of all its workers."""
        scheduler = self._client.scheduler
        if scheduler is None:
            return []
        try:
            found = self._client.sync(scheduler.identity, n_workers=-1, callback_timeout=_ANSWER_S)
        except TimeoutError:
            self._client.close(timeout=1)  # what is submitted cannot be taken back, and would be waited for
            raise SmgeoError(
                f"{self._store}: Dask's scheduler at {scheduler.addr} has not answered for {_ANSWER_S:g} s; look into its log; {KEPT}"
            ) from None
        except (OSError, RuntimeError):  # it is gone: soon all that is submitted counts as cancelled
            return []
        return list(found["workers"].values())


def _is_online(worker: JsonObject) -> bool:
    return bool(worker.get("resources", {}).get(INTERNET, 0) > 0)


def _no_workers_s() -> float:
    """Return the limit of Dask's own setting, or the default."""
    given = dask.config.get(_SETTING, None)
    return _NO_WORKERS_S if given is None else float(parse_timedelta(given))
