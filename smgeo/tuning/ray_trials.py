"""Trials on Ray Tune: one process a trial at a time, one thread each, the data in shared memory."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import ray
from ray import tune
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from smgeo.errors import SmgeoError
from smgeo.files import FullDiskError, JsonObject
from smgeo.models import load_model, make_model
from smgeo.models.base import SoilMoistureModel
from smgeo.models.registry import Kind
from smgeo.processes import folder_of_this_process
from smgeo.tuning.objective import METRIC, Objective, Pair, fit_epochs
from smgeo.tuning.plan import SearchPlan
from smgeo.tuning.ray_records import Recorder, Suggestions
from smgeo.tuning.ray_session import Patience, gpu_share, worker_environment
from smgeo.tuning.searchers import Searcher
from smgeo.tuning.trials import Trial, TrialTable, one_line

# A trial whose process dies begins again so often: a node that was lost says nothing of the trial, one that runs out of memory dies again.
_LOSSES = 1
# Errors of the machine: a full or failing disk, one that is read-only now, no more files or memory.
_OF_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}
# Seconds between two looks at a process that has not started.
_LOOK_S = 2


class TrialActor(tune.Trainable):
    """Trains one trial after the other in one process; a step is an epoch."""

    def setup(  # type: ignore[override] # with_parameters gives the others
        self, config: JsonObject, objective: Objective, environment: dict[str, str], kept: Path
    ) -> None:
        """Begin the first trial; `objective` is a view of shared memory, `kept` the folder of checkpoints."""
        os.environ.update(environment)  # a Ray that others started does not have it
        self._objective, self._kept = objective, kept
        self.reset_config(config)

    def reset_config(self, new_config: JsonObject) -> bool:
        """Begin another trial."""
        self._epochs = self._objective.run(new_config["params"], self._kept / str(new_config["number"]))
        return True

    def step(self) -> JsonObject:
        """Return the scores of one epoch; `done` after the last one, with `failed` or `hindered`, a line, if there are none.

        Errors are returned, not raised, because Ray would end the process and start another. A trial fails by itself; what hinders it is
        the machine's (a full disk), and would hinder others too. `node` is SLURM's name if there is one: two of its nodes may be one machine.
        """
        return {"node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(), **self._step()}

    def _step(self) -> JsonObject:
        try:
            scores = next(self._epochs, None)
        except Exception as error:
            hindered = isinstance(error, FullDiskError) or (isinstance(error, OSError) and error.errno in _OF_MACHINE)
            return {"done": True, "hindered" if hindered else "failed": one_line(f"{type(error).__name__}: {error}")}
        if scores is None:
            return {"done": True}
        if not np.isfinite(scores[METRIC]):
            return {"done": True, "failed": f"the validation RMSE is {scores[METRIC]}"}
        return dict(scores)


def run_trials(
    objective: Objective,
    searcher: Searcher,
    table: TrialTable,
    plan: SearchPlan,
    *,
    concurrent: int,
    progress: Callable[[], None] | None = None,
) -> None:
    """Run the trials that the table lacks, and those that were cut off or lost. Needs a running Ray.

    Raises
    ------
    SmgeoError
        If trials are still to be run because the search was interrupted.
    """
    trials = plan.spec.trials
    rows = [t for _, t in sorted(table.trials.items())]
    kept = [t for t in rows if t.status not in ("running", "lost")]
    cut_off = [t for t in rows if t.status in ("running", "lost")]
    for trial in kept:
        searcher.tell(trial.number, trial.params, trial.score)
    for trial in cut_off:
        trial.status = "running"
        searcher.book(trial.number, trial.params)
    suggestions = Suggestions(searcher, table, [t.number for t in cut_off], plan)
    recorder = Recorder(table, suggestions, plan.epochs, progress)
    gpu = gpu_share(concurrent) if objective.is_network else 0.0
    checkpoints = (table.path.parent / "checkpoints").absolute()
    actor = tune.with_parameters(TrialActor, objective=objective, environment=worker_environment(), kept=checkpoints)
    config = tune.TuneConfig(
        search_alg=suggestions,
        scheduler=make_scheduler(plan.spec.scheduler, plan.epochs, kept),
        num_samples=trials - len(kept),
        max_concurrent_trials=concurrent,
        reuse_actors=True,
        trial_dirname_creator=lambda trial: str(trial.trial_id),
    )
    with folder_of_this_process("smgeo-tune-") as folder, _interruptible():
        trainable = tune.with_resources(actor, {"cpu": 1, "gpu": gpu})
        tune.Tuner(trainable, tune_config=config, run_config=_run_config(folder, recorder)).fit()
    if suggestions.errors:
        raise suggestions.errors[0]
    ended = len(table.trials) - table.count("running")
    if ended < trials:
        raise SmgeoError(f"the search was interrupted after {ended} of {trials} trials; the same command continues it")
    shutil.rmtree(checkpoints, ignore_errors=True)


def _run_config(folder: str, recorder: Recorder) -> tune.RunConfig:
    """Return settings by which only the recorder keeps and reports anything."""
    return tune.RunConfig(
        name="search",
        storage_path=folder,
        verbose=0,
        callbacks=[recorder],
        log_to_file=False,
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        failure_config=tune.FailureConfig(max_failures=_LOSSES),
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Tune end its trials on Ctrl-C, as on SIGUSR1, before KeyboardInterrupt is raised; a second Ctrl-C raises at once.

    Raised in the middle of Tune it would leave trials and their CPUs behind in a Ray that lives on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGUSR1)}
    pressed = []

    def end(number: int, frame: FrameType | None) -> None:
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
    """Return ASHA (Li et al. 2020, MLSys 2, 230-246), or a scheduler that stops nothing.

    ASHA compares trials after 1, 3, 9, ... epochs with all that came as far before, and stops those that are not among the best
    third. It gets the trials of an earlier run of the search, so that later ones are compared with them too.
    """
    if scheduler == "none":
        return FIFOScheduler()
    asha = ASHAScheduler(
        metric=METRIC, mode="min", max_t=epochs, grace_period=1, reduction_factor=3, time_attr="training_iteration"
    )
    for trial in kept:
        stub = RayTrial("smgeo", trial_id=f"kept{trial.number}", stub=True)
        asha.on_trial_add(None, stub)  # type: ignore[arg-type] # it does not use the controller
        for epoch, rmse in enumerate(trial.validation_rmse, 1):
            asha.on_trial_result(None, stub, {"training_iteration": epoch, METRIC: rmse})  # type: ignore[arg-type]
    return asha


def retrain_apart(kind: Kind, params: JsonObject, pair: Pair, epochs: int, concurrent: int) -> SoilMoistureModel:
    """Return a trial's network trained again in a process with the threads and the GPU of a trial. Needs a running Ray.

    Raises
    ------
    SmgeoError
        If Ray has no room for the process, or the process ends before the model is trained.
    """
    options = {"runtime_env": {"env_vars": worker_environment()}, "num_cpus": 1, "num_gpus": gpu_share(concurrent)}
    actor = ray.remote(_Retraining).options(**options).remote()
    assert isinstance(actor, ActorHandle)
    started: ray.ObjectRef[None] = actor.start.remote()
    patience = Patience("the training of the best trial's network")
    try:
        while not ray.wait([started], timeout=_LOOK_S)[0]:
            patience.look()
        files = ray.get(actor.train.remote(kind, params, ray.put(pair), epochs))
    except RayActorError as error:
        raise SmgeoError(
            f"the process that trained the best trial's network again ended: {one_line(str(error))}. Its memory may have run out; the "
            "trials are kept, and the same command continues from them"
        ) from None
    finally:
        ray.kill(actor)
    with tempfile.TemporaryDirectory(prefix="smgeo-tune-") as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        return load_model(folder)


class _Retraining:
    """A process of its own; `start` returns when Ray has given it a place, which a task does not tell."""

    @ray.method
    def start(self) -> None:
        """Do nothing."""

    @ray.method
    def train(self, kind: Kind, params: JsonObject, pair: Pair, epochs: int) -> dict[str, bytes]:
        """Return the files of the fitted model."""
        model = fit_epochs(make_model(kind, **params), pair, epochs)
        with tempfile.TemporaryDirectory(prefix="smgeo-tune-") as folder:
            path = model.save(Path(folder) / "model")
            return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
