"""Trials on Ray Tune: one process a trial at a time, one thread each, the data in shared memory."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import ray
from dask.system import CPU_COUNT
from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from smgeo.errors import SmgeoError
from smgeo.hpc.workers.allocation import Allocation
from smgeo.hpc.workers.local_processes import thread_variables
from smgeo.models import load_model, make_model
from smgeo.models.backend import keras_backend
from smgeo.models.base import SoilMoistureModel
from smgeo.tuning.objective import THREADS, Objective, Pair, fit_epochs
from smgeo.tuning.searchers import Searcher
from smgeo.tuning.trials import Trial, TrialTable

METRIC = "validation_rmse"
_ERROR_LETTERS = 500
# Else the first of several trials on a GPU would take all of its memory.
_SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
# What `ray.init` raises where no cluster answers, or not to this process.
_NO_START = (ConnectionError, RuntimeError, RayError)
# A cluster that is there answers within so many seconds.
_ANSWER_S = 10
# Ray counts GPUs in ten-thousandths.
_GPU_PARTS = 10_000
_ONE_XLA_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
# Files of Ray that nobody reads: the table holds it all.
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


def _worker_environment() -> dict[str, str]:
    """What a trial's process needs to be told: threads, and what was chosen here of GPUs and of the backend of Keras."""
    xla = os.environ.get("XLA_FLAGS", "")
    xla = xla if _ONE_XLA_THREAD in xla else f"{xla} {_ONE_XLA_THREAD}".strip()
    gpu = {k: os.environ.get(k, default) for k, default in _SHARED_GPU.items()}
    return {**thread_variables(THREADS), "XLA_FLAGS": xla, **gpu, "KERAS_BACKEND": keras_backend()}


class TrialActor(tune.Trainable):
    """Trains one trial after the other in one process; a step is an epoch."""

    def setup(  # type: ignore[override] # with_parameters gives the others
        self, config: dict[str, Any], objective: Objective, environment: dict[str, str], kept: Path
    ) -> None:
        """Begin the first trial; `objective` is a view of shared memory, `kept` the folder of checkpoints."""
        os.environ.update(environment)  # a Ray that others started has not heard of it
        self._objective, self._kept = objective, kept
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial."""
        self._epochs = self._objective.run(new_config["params"], self._kept / str(new_config["number"]))
        return True

    def step(self) -> dict[str, Any]:
        """Scores of one epoch; `done` after the last one, with `failed`, a line, where it failed.

        An error is told and not raised, because Ray would end the process and start another. `node` is SLURM's name where there is one:
        two of its nodes may be one machine.
        """
        return {"node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(), **self._step()}

    def _step(self) -> dict[str, Any]:
        try:
            scores: dict[str, Any] | None = next(self._epochs, None)
        except Exception as error:
            return {"done": True, "failed": _one_line(f"{type(error).__name__}: {error}")}
        if scores is None:
            return {"done": True}
        if not np.isfinite(scores[METRIC]):
            return {"done": True, "failed": f"the validation RMSE is {scores[METRIC]}"}
        return scores


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_ERROR_LETTERS]


@contextmanager
def start_ray(concurrent: int | None) -> Iterator[int]:
    """A running Ray, and how many trials it runs at once.

    The Ray of this process, else the cluster that `RAY_ADDRESS` names, else one of this machine alone, which ends with the search.
    """
    logger = logging.getLogger("ray")
    level = logger.level
    with _environment(_QUIET), nullcontext() if ray.is_initialized() else _connect(concurrent):
        logger.setLevel(logging.CRITICAL)
        try:
            yield concurrent or max(1, int(ray.cluster_resources().get("CPU", 1)))
        finally:
            logger.setLevel(level)


@contextmanager
def _connect(concurrent: int | None) -> Iterator[None]:
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,
        "runtime_env": {"env_vars": _worker_environment()},
    }
    guard: AbstractContextManager[None] = nullcontext()
    asked_to_end = signal.getsignal(signal.SIGTERM)
    if os.environ.get("RAY_ADDRESS"):
        _join_cluster(os.environ["RAY_ADDRESS"], options)
    else:  # not one that Ray may find on this machine: it could be another search's, and end with it
        try:
            ray.init(address="local", include_dashboard=False, **_resources(concurrent), **options)
        except _NO_START as error:
            raise SmgeoError(
                f"Ray does not start on this machine ({_one_line(str(error))}); where RAY_AUTH_MODE=token is set, give RAY_AUTH_TOKEN too, "
                "or unset it"
            ) from None
        guard = _ending_agents()
    _restore_sigterm(asked_to_end)
    try:
        with guard:
            yield
    finally:
        ray.shutdown()
        _restore_sigterm(asked_to_end)


def _restore_sigterm(handler: Any) -> None:
    """SIGTERM as it was: Ray takes it when it starts, to abort the process, and leaves it without a handler when it ends."""
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def _resources(concurrent: int | None) -> dict[str, Any]:
    """CPUs and memory of a Ray on this machine; in a job those that SLURM gave, since the machine may have more."""
    job = Allocation.current()
    if job is None:
        return {"num_cpus": max(concurrent or 1, CPU_COUNT)}
    memory = {} if job.object_store is None else {"object_store_memory": job.object_store}
    return {"num_cpus": max(concurrent or 1, job.cpus), "num_gpus": job.gpus, **memory}


def _join_cluster(address: str, options: dict[str, Any]) -> None:
    """Connect to the cluster that `RAY_ADDRESS` names."""
    if address.startswith("ray://"):
        raise SmgeoError(
            f"RAY_ADDRESS is {address!r}, and a search cannot run through Ray's client; start it on a node of the cluster, with "
            "RAY_ADDRESS=auto or the address that `ray start` printed"
        )
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():  # Ray itself would wait for minutes
            socket.create_connection((host, int(port)), _ANSWER_S).close()
        ray.init(**options)
    except (*_NO_START, OSError, ValueError, OverflowError) as error:
        raise SmgeoError(
            f"RAY_ADDRESS is {address!r}, and no cluster lets this process in there ({_one_line(str(error))}); start it, give the "
            "token with which it was started (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN), or unset RAY_ADDRESS to search on this machine"
        ) from None


@contextmanager
def _ending_agents() -> Iterator[None]:
    """End Ray's agents with this process, should it be killed: of all that Ray starts, they alone live on for a minute."""
    agents = [str(c.pid) for c in psutil.Process().children(recursive=True) if _is_agent(c)]
    # A line at the end, and nothing is done; the end of input without one means that this process is gone.
    command = ["/bin/sh", "-c", 'read line || kill -9 "$@" 2>/dev/null', "sh", *agents]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as watcher:  # noqa: S603 - no user's text
        assert watcher.stdin is not None
        try:
            yield
        finally:
            watcher.stdin.write(b"\n")


def _is_agent(process: psutil.Process) -> bool:
    """Known by its script, and by the title that it gives itself a moment later."""
    marks = ("dashboard/agent.py", "runtime_env/agent/main.py", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
    try:
        return any(word.endswith(marks) for word in process.cmdline())
    except psutil.Error:  # it has ended
        return False


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables of the environment for a while; those that are set already stay as they are."""
    new = {k: v for k, v in values.items() if k not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


class _NotSaved:
    """Ray saves what it is given, to restore a search by itself; here the table holds it all."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


@contextmanager
def _keeping(errors: list[Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        errors.append(error)


class _Suggestions(_NotSaved, tune.search.Searcher):
    """A searcher of smgeo as Ray asks for it, which books every trial before it is run.

    Attributes
    ----------
    booked : dict of str to Trial
        By Ray's name.
    errors : list of Exception
        Of the searcher and the table: Ray would take them for errors of a trial. After one no trial begins.
    """

    def __init__(self, searcher: Searcher, table: TrialTable, cut_off: list[int], trials: int, seed: int) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._searcher, self._table, self._seed = searcher, table, seed
        self._numbers = iter([*cut_off, *(n for n in range(trials) if n not in table.trials)])
        self.booked: dict[str, Trial] = {}
        self.errors: list[Exception] = []

    def suggest(self, trial_id: str) -> Any:
        """The next trial: first those that were cut off, with the parameters that they had."""
        number = next(self._numbers, None)
        if number is None or self.errors:
            return self.FINISHED
        with _keeping(self.errors):
            return self._book(trial_id, number)
        return self.FINISHED

    def _book(self, trial_id: str, number: int) -> dict[str, Any]:
        known = self._table.trials.get(number)
        params = known.params if known else self._searcher.suggest(number)
        trial = Trial(number, params, int(params.get("seed", self._seed)), pd.Timestamp.now(tz="UTC"), threads=THREADS)
        self._table.trials[number] = self.booked[trial_id] = trial
        self._table.write()
        return {"number": number, "params": params}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the searcher."""
        trial = self.booked[trial_id]
        with _keeping(self.errors):
            self._searcher.tell(trial.number, trial.params, None if error else trial.score)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the table holds it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""


class _Recorder(_NotSaved, tune.Callback):
    """Writes into the table what becomes of each trial."""

    def __init__(
        self, table: TrialTable, suggestions: _Suggestions, epochs: int, progress: Callable[[], None] | None
    ) -> None:
        self._table, self._epochs, self._progress = table, epochs, progress
        self._booked, self._errors = suggestions.booked, suggestions.errors

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is done, or the trial failed or is done."""
        row = self._booked[trial.trial_id]
        row.seconds, row.node, row.pid = float(result["time_total_s"]), result["node"], int(result["pid"])
        if "failed" in result:
            row.status, row.error = "failed", result["failed"]
        elif METRIC in result:
            row.validation_rmse.append(float(result[METRIC]))
            if "rmse" in result:
                row.rmse.append(float(result["rmse"]))
        elif row.status == "running":
            row.status = "finished"
        self._tell(written=row.status != "running")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial has ended by itself, or the scheduler stopped it."""
        row = self._booked[trial.trial_id]
        if row.status == "running":
            row.status = "finished" if len(row.validation_rmse) >= self._epochs else "stopped"
            self._tell(written=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The process died."""
        row = self._booked[trial.trial_id]
        # Ray's file names the failure in its first line, and then says what is known of it.
        said = Path(trial.error_file).read_text(encoding="utf-8").splitlines()[1:] if trial.error_file else []
        row.status, row.error = "lost", _one_line("the process that ran it ended: " + " ".join(said))
        self._tell(written=True)

    def _tell(self, *, written: bool) -> None:
        with _keeping(self._errors):
            if written:
                self._table.write()
            if self._progress:
                self._progress()


def run_trials(
    objective: Objective,
    searcher: Searcher,
    table: TrialTable,
    *,
    trials: int,
    scheduler: str,
    epochs: int,
    seed: int,
    concurrent: int,
    progress: Callable[[], None] | None = None,
) -> None:
    """Run the trials that the table lacks, and those that were cut off or lost. Needs a running Ray.

    Raises
    ------
    SmgeoError
        If trials are still to be run because the search was interrupted.
    """
    rows = [t for _, t in sorted(table.trials.items())]
    kept = [t for t in rows if t.status not in ("running", "lost")]
    cut_off = [t for t in rows if t.status in ("running", "lost")]
    for trial in kept:
        searcher.tell(trial.number, trial.params, trial.score)
    for trial in cut_off:
        trial.status = "running"
        searcher.book(trial.number, trial.params)
    suggestions = _Suggestions(searcher, table, [t.number for t in cut_off], trials, seed)
    recorder = _Recorder(table, suggestions, epochs, progress)
    gpu = gpu_share(concurrent) if objective.is_network else 0.0
    checkpoints = (table.path.parent / "checkpoints").absolute()
    actor = tune.with_parameters(TrialActor, objective=objective, environment=_worker_environment(), kept=checkpoints)
    config = tune.TuneConfig(
        search_alg=suggestions,
        scheduler=make_scheduler(scheduler, epochs, kept),
        num_samples=trials - len(kept),
        max_concurrent_trials=concurrent,
        reuse_actors=True,
        trial_dirname_creator=lambda trial: str(trial.trial_id),
    )
    with tempfile.TemporaryDirectory(prefix="smgeo-tune-") as folder, _interruptible():
        trainable = tune.with_resources(actor, {"cpu": 1, "gpu": gpu})
        tune.Tuner(trainable, tune_config=config, run_config=_run_config(folder, recorder)).fit()
    if suggestions.errors:
        raise suggestions.errors[0]
    ended = len(table.trials) - table.count("running")
    if ended < trials:
        raise SmgeoError(f"the search was interrupted after {ended} of {trials} trials; the same command continues it")
    shutil.rmtree(checkpoints, ignore_errors=True)


def _run_config(folder: str, recorder: _Recorder) -> tune.RunConfig:
    """Nothing is kept or said but by the recorder."""
    return tune.RunConfig(
        name="search",
        storage_path=folder,
        verbose=0,
        callbacks=[recorder],
        log_to_file=False,
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
    )


def gpu_share(concurrent: int) -> float:
    """The part of a GPU of each of so many trials at once: GPUs, where Ray has any, are shared out among them."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if not gpus:
        return 0.0
    return min(1.0, math.floor(_GPU_PARTS / math.ceil(concurrent / gpus)) / _GPU_PARTS)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C lets Tune end its trials, as SIGUSR1 does, and is raised then; a second one is raised at once.

    Raised in the middle of Tune it would leave trials and their CPUs behind in a Ray that lives on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGUSR1)}
    pressed = []

    def end(number: int, frame: Any) -> None:
        pressed.append(number)
        if signal.getsignal(signal.SIGUSR1) == before[signal.SIGUSR1]:  # Tune does not listen yet, or no longer
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGUSR1)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if pressed:
        raise KeyboardInterrupt


def make_scheduler(scheduler: str, epochs: int, kept: list[Trial]) -> TrialScheduler:
    """ASHA (Li et al. 2020, MLSys 2, 230-246), or none.

    ASHA compares trials after 1, 3, 9, ... epochs with all that came as far before, and stops those that are not among the best
    third. It is told of the trials of an earlier run of the search, so that later ones are compared with them too.
    """
    if scheduler == "none":
        return FIFOScheduler()
    asha = ASHAScheduler(
        metric=METRIC, mode="min", max_t=epochs, grace_period=1, reduction_factor=3, time_attr="training_iteration"
    )
    nobody: Any = None  # ASHA asks nothing of the controller
    for trial in kept:
        stub = RayTrial("smgeo", trial_id=f"kept{trial.number}", stub=True)
        asha.on_trial_add(nobody, stub)
        for epoch, rmse in enumerate(trial.validation_rmse, 1):
            asha.on_trial_result(nobody, stub, {"training_iteration": epoch, METRIC: rmse})
    return asha


def retrain_apart(kind: str, params: dict[str, Any], pair: Pair, epochs: int, concurrent: int) -> SoilMoistureModel:
    """A network of a trial trained once more, in a process with the threads and the GPU of a trial. Needs a running Ray."""
    retrain = _retrain.options(runtime_env={"env_vars": _worker_environment()}, num_gpus=gpu_share(concurrent))
    files = ray.get(retrain.remote(kind, params, ray.put(pair), epochs))
    with tempfile.TemporaryDirectory(prefix="smgeo-tune-") as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        return load_model(folder)


@ray.remote(num_cpus=1, max_retries=0)
def _retrain(kind: str, params: dict[str, Any], pair: Pair, epochs: int) -> dict[str, bytes]:
    model = fit_epochs(make_model(kind, **params), pair, epochs)
    with tempfile.TemporaryDirectory(prefix="smgeo-tune-") as folder:
        path = model.save(Path(folder) / "model")
        return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
