"""Requests to Earth Engine: bounded over all workers, counted, retried when they fail, and their answers checked."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from dask.base import tokenize
from odc.geo.geobox import GeoBox

from smgeo.errors import SmgeoError
from smgeo.sources.earthengine.session import (
    PASSAGE,
    Access,
    Again,
    auth_errors,
    connect,
    import_ee,
    not_accepted,
    refused,
)
from smgeo.sources.retry import Backoff

if TYPE_CHECKING:
    import ee

T = TypeVar("T")
# Rows of a table, as Earth Engine's JSON gives them: numbers, and the texts of indices.
Rows: TypeAlias = list[list[Any]]

# Waits double from the first to the longest and are drawn evenly from zero up ("full jitter": M. Brooker, "Exponential
# backoff and jitter", AWS Architecture Blog, 2015), so that workers refused together do not come back together.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 64.0


class Gate:
    """Sender of a task's requests, which limits them over all workers, counts them, and retries those that failed.

    Made in the task's own thread, then used by as many threads as there are requests. `asked` counts the latter.
    """

    def __init__(self, access: Access) -> None:
        self.access, self.asked = access, 0
        self._failure: SmgeoError | None = None
        self._closed = threading.Event()
        shared = _in_dask_worker()
        self._slots = _shared_slots(access) if shared else _local_slots(access)
        self._count = _shared_count(access) if shared else _local_count(access)

    def ask(self, send: Callable[[], T], what: str) -> T:
        """Call `send` and return its result; call it again after each `Again`, which it raises for bad answers.

        Raises
        ------
        SmgeoError
            If all attempts fail, the server refuses the request, the budget is used up, or another request through this
            gate failed for good.
        """
        with _local_lock:
            self.asked += 1
        reason = ""
        patience = Backoff(self.access.retries + 1, FIRST_WAIT_S, LONGEST_WAIT_S, least=0.0)
        for _ in patience.attempts(self._closed.wait):
            if self._failure is not None:  # the task has failed, whatever this request returns
                raise SmgeoError(str(self._failure))
            try:
                return self._send(send, what)
            except Again as error:
                reason = str(error)
            except SmgeoError as error:
                raise self._fail(error) from None
        raise self._fail(
            SmgeoError(
                f"earthengine: {what}: {self.access.retries + 1} attempts failed, the last with {reason}. Run the same command "
                "again, which goes on from what is done; raise timeout_s if it is slow, lower requests_in_flight if it is 429"
            )
        )

    def _send(self, send: Callable[[], T], what: str) -> T:
        ee = import_ee()
        passing = PASSAGE.set((self._slots, self.access.timeout_s))
        try:
            connect(self.access)
            self._count(1)
            return send()
        except ee.EEException as error:
            raise SmgeoError(f"{refused(error)} (asked for {what})") from None
        except auth_errors() as error:
            raise not_accepted(self.access, error) from None
        finally:
            PASSAGE.reset(passing)

    def _fail(self, error: SmgeoError) -> SmgeoError:
        """Return the first failure, after which no request is sent."""
        with _local_lock:
            self._failure = self._failure or error
        self._closed.set()
        return SmgeoError(str(self._failure))

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Return the results of calls that each send through this gate, in their order."""
        if not calls:
            return []
        # Some more than may be under way: meanwhile others write their request or read their answer.
        with ThreadPoolExecutor(min(len(calls), self.access.in_flight + 2)) as threads:
            return list(threads.map(lambda call: call(), calls))


def _in_dask_worker() -> bool:
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _group(access: Access) -> str:
    return f"smgeo-earthengine-{tokenize(access.project, access.url, access.credentials)}-{access.in_flight}"


_local_lock = threading.Lock()
_slots_here: dict[str, threading.BoundedSemaphore] = {}
_counted_here: dict[str, int] = {}


def _local_slots(access: Access) -> AbstractContextManager[object]:
    with _local_lock:
        return _slots_here.setdefault(_group(access), threading.BoundedSemaphore(access.in_flight))


def _shared_slots(access: Access) -> AbstractContextManager[object]:
    from distributed import Semaphore

    slots: AbstractContextManager[object] = Semaphore(max_leases=access.in_flight, name=_group(access))
    return slots


def _local_count(access: Access) -> Callable[[int], None]:
    def count(requests: int) -> None:
        with _local_lock:
            sent = _counted_here.get(access.build, access.sent) + requests
            _check_budget(access, sent)
            _counted_here[access.build] = sent

    return count


def _shared_count(access: Access) -> Callable[[int], None]:
    """Return a counter over all workers, in a variable of the scheduler; it counts only if there is a budget."""
    if access.budget is None:
        return lambda requests: None
    from distributed import Semaphore, Variable, get_client

    one = Semaphore(max_leases=1, name=f"smgeo-earthengine-{access.build}")
    variable = Variable(f"smgeo-earthengine-{access.build}", client=get_client())

    def count(requests: int) -> None:
        with one:
            try:
                sent = int(variable.get(timeout=0.5))
            except TimeoutError:  # not set yet
                sent = access.sent
            _check_budget(access, sent + requests)
            variable.set(sent + requests)

    return count


def _check_budget(access: Access, sent: int) -> None:
    if access.budget is not None and sent > access.budget:
        raise SmgeoError(
            f"earthengine: the budget of {access.budget} requests is used up, retries included; what is written is kept. "
            "Raise budget and run the same command again"
        )


def requests_sent(access: Access) -> int:
    """Return the number of requests that this process has sent for a build, retries included."""
    return _counted_here.get(access.build, access.sent)


# Answers ---------------------------------------------------------------------------------------------------------


def fetch_table(expression: ee.List, columns: int) -> Rows:
    """Return the rows of an expression that gives [number of rows, rows].

    Raises
    ------
    Again
        If the answer is not such a table, or lacks rows.
    """
    try:
        answer = import_ee().data.computeValue(expression)
    except (TypeError, KeyError, ValueError):  # the body is not a JSON object with a result
        raise Again("an answer that is not JSON") from None
    if not (
        isinstance(answer, list) and len(answer) == 2 and isinstance(answer[1], list) and answer[0] == len(answer[1])
    ):
        raise Again("an incomplete table")
    if any(not isinstance(row, list) or len(row) != columns for row in answer[1]):
        raise Again(f"a table that does not have {columns} columns")
    return answer[1]


def fetch_pixels(image: ee.Image, box: GeoBox, bands: Sequence[str]) -> np.ndarray:
    """Return the bands of an image on a grid: (band, y, x), float32.

    Raises
    ------
    Again
        If the answer is not such an array.
    """
    request = {"expression": image, "fileFormat": "NUMPY_NDARRAY", "grid": describe_grid(box)}
    try:
        answer = import_ee().data.computePixels(request)
    except (ValueError, EOFError, OSError, SyntaxError) as error:  # the body is not an NPY file, or only a part of one
        raise Again(f"an answer that is not an array ({type(error).__name__})") from None
    if answer.dtype.names != tuple(bands) or answer.shape != box.shape.yx:
        raise Again(f"an array of shape {answer.shape} and bands {answer.dtype.names}")
    if any(answer.dtype[b] != np.float32 for b in bands):
        raise Again(f"an array of {answer.dtype[0]}")
    return np.stack([answer[b] for b in bands])


def describe_grid(box: GeoBox) -> dict[str, object]:
    """Describe a grid as `PixelGrid` of the REST API; WKT 1 where its CRS has no EPSG code."""
    assert box.crs is not None
    a, code = box.affine, box.crs.to_epsg()
    crs = {"crsCode": f"EPSG:{code}"} if code else {"crsWkt": box.crs.proj.to_wkt("WKT1_GDAL")}
    transform = {"scaleX": a.a, "shearX": a.b, "translateX": a.c, "shearY": a.d, "scaleY": a.e, "translateY": a.f}
    return {"dimensions": {"width": box.shape.x, "height": box.shape.y}, "affineTransform": transform, **crs}
