"""Between Ray Tune and the table of trials: suggestions as Ray asks for them, and results as the table keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from ray import tune
from ray.tune.experiment import Trial as RayTrial

from smgeo.errors import SmgeoError
from smgeo.files import JsonObject
from smgeo.tuning.objective import METRIC, THREADS
from smgeo.tuning.plan import SearchPlan
from smgeo.tuning.ray_session import Patience
from smgeo.tuning.searchers import Searcher
from smgeo.tuning.trials import Trial, TrialTable, one_line


class _NotSaved:
    """Ray saves what it is given, to restore a search by itself; here the table has it all."""

    def __getstate__(self) -> JsonObject:
        return {}


@contextmanager
def _keeping(errors: list[Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        errors.append(error)


class Suggestions(_NotSaved, tune.search.Searcher):
    """A searcher of smgeo as Ray calls it, which books every trial before it runs.

    Attributes
    ----------
    booked : dict of str to Trial
        By Ray's name.
    errors : list of Exception
        Errors of the searcher and the table: Ray would take them for errors of a trial. After one no trial begins.
    """

    def __init__(self, searcher: Searcher, table: TrialTable, cut_off: list[int], plan: SearchPlan) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._searcher, self._table, self._seed = searcher, table, plan.seed
        self._numbers = iter([*cut_off, *(n for n in range(plan.spec.trials) if n not in table.trials)])
        self.booked: dict[str, Trial] = {}
        self.errors: list[Exception] = []

    def suggest(self, trial_id: str) -> JsonObject | str:  # type: ignore[override] # FINISHED is text
        """Return the next trial: first those that were cut off, with the parameters that they had."""
        number = next(self._numbers, None)
        if number is not None and not self.errors:
            with _keeping(self.errors):
                return self._book(trial_id, number)
        return self.FINISHED

    def _book(self, trial_id: str, number: int) -> JsonObject:
        known = self._table.trials.get(number)
        params = known.params if known else self._searcher.suggest(number)
        trial = Trial(number, params, int(params.get("seed", self._seed)), pd.Timestamp.now(tz="UTC"), threads=THREADS)
        self._table.trials[number] = self.booked[trial_id] = trial
        self._table.write()
        return {"number": number, "params": params}

    def on_trial_complete(self, trial_id: str, result: JsonObject | None = None, error: bool = False) -> None:
        """Report the trial's score to the searcher."""
        trial = self.booked[trial_id]
        with _keeping(self.errors):
            self._searcher.tell(trial.number, trial.params, None if error else trial.score)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the table has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, as `save`."""


class Recorder(_NotSaved, tune.Callback):
    """Writes the outcome of each trial into the table."""

    def __init__(
        self, table: TrialTable, suggestions: Suggestions, epochs: int, progress: Callable[[], None] | None
    ) -> None:
        self._table, self._epochs, self._progress = table, epochs, progress
        self._booked, self._errors = suggestions.booked, suggestions.errors
        self._patience = Patience("the search's trials")

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: object) -> None:
        """End a search whose trials Ray cannot place: Tune would wait for ever. The table keeps them as cut off."""
        if any(t.status == RayTrial.RUNNING for t in trials) or all(t.is_finished() for t in trials):
            self._patience.renew()
        else:
            self._patience.look()

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: JsonObject, **info: object
    ) -> None:
        """Record an epoch, or that the trial failed or is done."""
        row = self._booked[trial.trial_id]
        row.seconds, row.node, row.pid = float(result["time_total_s"]), result["node"], int(result["pid"])
        if "failed" in result:
            row.status, row.error = "failed", result["failed"]
        elif "hindered" in result:
            row.status, row.error = "lost", result["hindered"]
            self._errors.append(SmgeoError(f"trial {row.number} on {row.node}: {result['hindered']}"))
        elif METRIC in result:
            row.validation_rmse.append(float(result[METRIC]))
            if "rmse" in result:
                row.rmse.append(float(result["rmse"]))
        elif row.status == "running":
            row.status = "finished"
        self._report(written=row.status != "running")

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        """Record that the trial has ended by itself, or that the scheduler stopped it."""
        row = self._booked[trial.trial_id]
        if row.status == "running":
            row.status = "finished" if len(row.validation_rmse) >= self._epochs else "stopped"
            self._report(written=True)

    def on_trial_recover(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        """Forget the epochs of a process that died: the trial begins again, and reports those that were kept."""
        row = self._booked[trial.trial_id]
        row.rmse.clear()
        row.validation_rmse.clear()

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        """Record that the process died."""
        row = self._booked[trial.trial_id]
        # Ray's file names each failure in a line; details follow. The last one ended the trial.
        text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
        _, _, last = text.rpartition("Failure # ")
        row.status, row.error = "lost", one_line("the process that ran it ended: " + " ".join(last.splitlines()[1:]))
        self._report(written=True)

    def _report(self, *, written: bool) -> None:
        with _keeping(self._errors):
            if written:
                self._table.write()
            if self._progress:
                self._progress()
