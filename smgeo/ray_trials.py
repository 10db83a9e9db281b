"""Trials on Ray Tune: one process a trial at a time, one thread each, the data in shared memory."""

from __future__ import annotations

import logging
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import ray
from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from smgeo.errors import SmgeoError
from smgeo.models import load_model, make_model
from smgeo.models.estimator import SoilMoistureModel
from smgeo.objective import Objective, Pair, fit_epochs
from smgeo.searchers import Searcher
from smgeo.trials import Trial, TrialTable

METRIC = "validation_rmse"
THREADS = 1
_ERROR_LETTERS = 500
# One thread a trial: small networks lose more by waiting for each other's threads than they gain, and two trials with a thread
# each use two cores. Read when a library is first imported.
_ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": str(THREADS),
    "TF_NUM_INTEROP_THREADS": str(THREADS),
    "OMP_NUM_THREADS": str(THREADS),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
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


class TrialActor(tune.Trainable):
    """Trains one trial after the other in one process; a step is an epoch."""

    def setup(self, config: dict[str, Any], objective: Objective) -> None:  # type: ignore[override] # with_parameters gives it
        """Begin the first trial; `objective` is a view of shared memory."""
        os.environ.update(_ONE_THREAD)  # a Ray that others started has not heard of it
        self._objective = objective
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial."""
        self._epochs = self._objective.run(new_config["params"])
        return True

    def step(self) -> dict[str, Any]:
        """Scores of one epoch; `done` after the last one, with `failed`, a line, where it failed.

        An error is told and not raised, because Ray would end the process and start another.
        """
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
        "runtime_env": {"env_vars": _ONE_THREAD},
    }
    guard: AbstractContextManager[None] = nullcontext()
    if "RAY_ADDRESS" in os.environ:
        try:
            ray.init(**options)
        except ConnectionError as error:
            raise SmgeoError(
                f"RAY_ADDRESS is {os.environ['RAY_ADDRESS']!r}, and no cluster answers there ({error}); start it, give the token "
                "with which it was started (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN), or unset RAY_ADDRESS to search on this machine"
            ) from None
    else:  # not one that Ray may find on this machine: it could be another search's, and end with it
        cpus = max(concurrent or 1, os.cpu_count() or 1)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **options)
        guard = _ending_agents()
    with guard:
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _ending_agents() -> Iterator[None]:
    """End Ray's agents with this process, should it be killed: of all that Ray starts, they alone live on for a minute."""
    children = psutil.Process().children(recursive=True)
    agents = [str(c.pid) for c in children if "agent" in " ".join(c.cmdline()).lower()]
    # A line at the end, and nothing is done; the end of input without one means that this process is gone.
    command = ["/bin/sh", "-c", 'read line || kill -9 "$@" 2>/dev/null', "sh", *agents]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as watcher:  # noqa: S603 - no user's text
        assert watcher.stdin is not None
        yield
        watcher.stdin.write(b"\n")


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


class _Suggestions(_NotSaved, tune.search.Searcher):
    """A searcher of smgeo as Ray asks for it, which books every trial before it is run."""

    def __init__(self, searcher: Searcher, table: TrialTable, trials: int, seed: int) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._searcher, self._table, self._seed = searcher, table, seed
        cut_off = [n for n, t in sorted(table.trials.items()) if t.status == "running"]
        self._numbers = iter([*cut_off, *(n for n in range(trials) if n not in table.trials)])
        self.booked: dict[str, Trial] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial: first those that were cut off, with the parameters that they had."""
        number = next(self._numbers, None)
        if number is None:
            return self.FINISHED
        known = self._table.trials.get(number)
        params = known.params if known else self._searcher.suggest(number)
        trial = Trial(number, params, int(params.get("seed", self._seed)), pd.Timestamp.now(tz="UTC"), threads=THREADS)
        self._table.trials[number] = self.booked[trial_id] = trial
        self._table.write()
        return {"number": number, "params": params}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the searcher."""
        trial = self.booked[trial_id]
        self._searcher.tell(trial.number, trial.params, None if error else trial.score)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the table holds it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""


class _Recorder(_NotSaved, tune.Callback):
    """Writes into the table what becomes of each trial."""

    def __init__(
        self, table: TrialTable, booked: dict[str, Trial], epochs: int, progress: Callable[[], None] | None
    ) -> None:
        self._table, self._booked, self._epochs, self._progress = table, booked, epochs, progress

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is done, or the trial failed or is done."""
        row = self._booked[trial.trial_id]
        row.seconds, row.node, row.pid = float(result["time_total_s"]), result["hostname"], int(result["pid"])
        if "failed" in result:
            row.status, row.error = "failed", result["failed"]
        elif METRIC in result:
            row.validation_rmse.append(float(result[METRIC]))
            if "rmse" in result:
                row.rmse.append(float(result["rmse"]))
        elif row.status == "running":
            row.status = "finished"
        self._tell()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial has ended by itself, or the scheduler stopped it."""
        row = self._booked[trial.trial_id]
        if row.status == "running":
            row.status = "finished" if len(row.validation_rmse) >= self._epochs else "stopped"
        self._tell()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The process died."""
        row = self._booked[trial.trial_id]
        # Ray's file names the failure in its first line, and then says what is known of it.
        said = Path(trial.error_file).read_text(encoding="utf-8").splitlines()[1:] if trial.error_file else []
        row.status, row.error = "failed", _one_line("the process that ran it ended: " + " ".join(said))
        self._tell()

    def _tell(self) -> None:
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
    """Run the trials that the table lacks, and those that were cut off. Needs a running Ray."""
    kept = [t for _, t in sorted(table.trials.items()) if t.status != "running"]
    remaining = trials - len(kept)
    for trial in kept:
        searcher.tell(trial.number, trial.params, trial.score)
    suggestions = _Suggestions(searcher, table, trials, seed)
    recorder = _Recorder(table, suggestions.booked, epochs, progress)
    trainable = tune.with_resources(tune.with_parameters(TrialActor, objective=objective), {"cpu": 1})
    with tempfile.TemporaryDirectory(prefix="smgeo-tune-") as folder:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=suggestions,
                scheduler=make_scheduler(scheduler, epochs, kept),
                num_samples=remaining,
                max_concurrent_trials=concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                verbose=0,
                callbacks=[recorder],
                log_to_file=False,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()


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


def retrain_apart(kind: str, params: dict[str, Any], pair: Pair, epochs: int) -> SoilMoistureModel:
    """A trial's model trained once more, in a process with the threads of a trial. Needs a running Ray."""
    files = ray.get(_retrain.remote(kind, params, ray.put(pair), epochs))
    with tempfile.TemporaryDirectory(prefix="smgeo-tune-") as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        return load_model(folder)


@ray.remote(num_cpus=1, max_retries=0, runtime_env={"env_vars": _ONE_THREAD})
def _retrain(kind: str, params: dict[str, Any], pair: Pair, epochs: int) -> dict[str, bytes]:
    model = fit_epochs(make_model(kind, **params), pair, epochs)
    with tempfile.TemporaryDirectory(prefix="smgeo-tune-") as folder:
        path = model.save(Path(folder) / "model")
        return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
