"""A running Ray for a search: that of this process, a cluster that is joined, or one of this machine only."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress

import psutil
import ray
from dask.system import CPU_COUNT
from ray.exceptions import RayError

from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.files import JsonObject
from smgeo.hpc.workers.allocation import Allocation
from smgeo.hpc.workers.local_processes import thread_variables
from smgeo.models.backend import keras_backend
from smgeo.processes import Noted, ending_with_this_process, folder_of_this_process, note
from smgeo.tuning.objective import THREADS
from smgeo.tuning.trials import one_line

# Else the first of several trials on a GPU would take all of its memory.
_SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_ONE_XLA_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
# Errors of `ray.init` where no cluster answers, or not to this process.
_NO_START = (ConnectionError, RuntimeError, RayError)
# A running cluster answers within so many seconds.
_ANSWER_S = 10
# Seconds in which Ray must give a process to a trial while no other runs, and after which it is said what is waited for: on a busy machine or a
# slow file system a process takes a minute to import what it needs.
START_S, _SAY_S = 600, 180
# Ray's agents would live on for a minute. They are known by their script, and by the title that they take a moment later.
_AGENTS = ("dashboard/agent.py", "runtime_env/agent/main.py", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
# Characters of a folder in which Ray's folders of sockets, whose paths have at most 107, still have room.
_LONGEST_TEMP = 16
# Ray counts GPUs in ten-thousandths.
_GPU_PARTS = 10_000
# Files of Ray that nobody reads: the table of trials has it all.
_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the result of a failed trial has no score
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the search here as everywhere
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def start_ray(concurrent: int | None) -> Iterator[int]:
    """Start or join Ray, and give the number of trials that it runs at once.

    The Ray of this process, else the cluster that `RAY_ADDRESS` names, else one of this machine only, which ends with the search.
    """
    logger = logging.getLogger("ray")
    level = logger.level
    with _environment(_QUIET), nullcontext() if ray.is_initialized() else _connect(concurrent):
        logger.setLevel(logging.CRITICAL)
        try:
            yield concurrent or max(1, int(_count("CPU")))
        finally:
            logger.setLevel(level)


def gpu_share(concurrent: int) -> float:
    """Return the part of a GPU of each of so many trials at once: GPUs, where Ray has any, are shared out among them."""
    gpus = int(_count("GPU"))
    if not gpus:
        return 0.0
    return min(1.0, math.floor(_GPU_PARTS / math.ceil(concurrent / gpus)) / _GPU_PARTS)


class Patience:
    """The wait for a process of Ray, which has none while its nodes are gone or others use all of them.

    Raises
    ------
    SmgeoError
        By `look`, `START_S` seconds after the last `renew`; with a warning after the first three minutes: a process takes its time to start.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.renew()

    def renew(self) -> None:
        """Begin the wait from scratch: a process runs."""
        self._since, self._said = time.monotonic(), False

    def look(self) -> None:
        """Compare the wait with its limit."""
        waited = time.monotonic() - self._since
        if waited > _SAY_S and not self._said:
            self._said = True
            warnings.warn(
                SmgeoWarning(
                    f"{self._what} waits for a process of Ray: {_describe_cluster()}; it ends after {START_S:g} s"
                ),
                stacklevel=2,
            )
        if waited > START_S:
            raise SmgeoError(
                f"Ray gave no process to {self._what} for {START_S:g} s: {_describe_cluster()}. Add nodes, or wait until others have left some free; "
                "the same command continues it"
            )


def _describe_cluster() -> str:
    free = ray.available_resources()
    return ", ".join(
        f"{free.get(r, 0):g} of {_count(r):g} {r}s are free" for r in ("CPU", "GPU") if r == "CPU" or _count(r)
    )


def worker_environment() -> dict[str, str]:
    """Return the environment of a trial's process: threads, and what was chosen here for GPUs and the backend of Keras."""
    xla = os.environ.get("XLA_FLAGS", "")
    xla = xla if _ONE_XLA_THREAD in xla else f"{xla} {_ONE_XLA_THREAD}".strip()
    gpu = {k: os.environ.get(k, default) for k, default in _SHARED_GPU.items()}
    return {**thread_variables(THREADS), "XLA_FLAGS": xla, **gpu, "KERAS_BACKEND": keras_backend()}


def _count(resource: str) -> float:
    return float(ray.cluster_resources().get(resource, 0))


@contextmanager
def _connect(concurrent: int | None) -> Iterator[None]:
    options: JsonObject = {
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,
        "runtime_env": {"env_vars": worker_environment()},
    }
    guard: AbstractContextManager[None] = nullcontext()
    with ExitStack() as stack:
        with _keeping_sigterm():
            if os.environ.get("RAY_ADDRESS"):
                _join_cluster(os.environ["RAY_ADDRESS"], options)
            else:  # not one that Ray may find on this machine: it could be another search's, and end with it
                folder = stack.enter_context(folder_of_this_process("smgeo-ray-", _place_of_sockets()))
                _start_locally(concurrent, options, folder)
                guard = ending_with_this_process(_find_agents())
        with _keeping_sigterm():
            try:
                with guard:
                    yield
            finally:
                ray.shutdown()


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Restore the handler of SIGTERM: Ray takes it when it starts, to abort the process, and leaves none when it ends."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _place_of_sockets() -> str:
    """Return where the folder of Ray's sockets is made, which is its user's alone: Ray opens its own folder in it to everybody."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= _LONGEST_TEMP else "/tmp"  # noqa: S108 - a new folder is made there


def _start_locally(concurrent: int | None, options: JsonObject, folder: str) -> None:
    try:
        ray.init(
            address="local", include_dashboard=False, _temp_dir=f"{folder}/ray", **_resources(concurrent), **options
        )
    except _NO_START as error:
        raise SmgeoError(
            f"Ray does not start on this machine ({one_line(str(error))}); if RAY_AUTH_MODE=token is set, set RAY_AUTH_TOKEN too, "
            "or unset it"
        ) from None


def _find_agents() -> list[Noted]:
    """Return the agents of the Ray that this process started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            if any(word.endswith(_AGENTS) for word in child.cmdline()):
                found.append(child)
    return note(found)


def _resources(concurrent: int | None) -> JsonObject:
    """Return CPUs and memory of a Ray on this machine; in a job those that SLURM gave, since the machine may have more."""
    job = Allocation.current()
    if job is None:
        return {"num_cpus": max(concurrent or 1, CPU_COUNT)}
    memory = {} if job.object_store is None else {"object_store_memory": job.object_store}
    return {"num_cpus": max(concurrent or 1, job.cpus), "num_gpus": job.gpus, **memory}


def _join_cluster(address: str, options: JsonObject) -> None:
    """Connect to the cluster that `RAY_ADDRESS` names."""
    if address.startswith("ray://"):
        raise SmgeoError(
            f"RAY_ADDRESS is {address!r}, and a search cannot run through Ray's client; start it on a node of the cluster, with "
            "RAY_ADDRESS=auto or the address that `ray start` printed"
        )
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():
            _check_answer(host, int(port))
        ray.init(**options)
    except (*_NO_START, OSError, ValueError, OverflowError) as error:
        raise SmgeoError(
            f"RAY_ADDRESS is {address!r}, and no cluster lets this process in there ({one_line(str(error))}); start the cluster, set the "
            "token with which it was started (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN), or unset RAY_ADDRESS to search on this machine"
        ) from None


def _check_answer(host: str, port: int) -> None:
    """Refuse an address that does not answer as Ray does, by gRPC: Ray itself would wait for minutes, or for ever.

    RFC 9113, section 3.4: after these bytes and an empty frame of settings, either side sends its settings first.
    """
    with socket.create_connection((host, port), _ANSWER_S) as connection:
        if os.environ.get("RAY_USE_TLS") == "1":  # it begins with other bytes
            return
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        try:
            answer = connection.recv(9)
        except TimeoutError:
            raise TimeoutError(f"no answer within {_ANSWER_S} s") from None
    if answer[3:4] != b"\x04":
        raise ConnectionError("what answers there is not Ray")


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment for a while; those that are set already stay as they are."""
    new = {k: v for k, v in values.items() if k not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]
