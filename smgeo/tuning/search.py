"""Search over a model's parameters on Ray Tune, scored on stations that no trial was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.cube.schema import select_stations
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject
from smgeo.models.base import SoilMoistureModel
from smgeo.models.registry import Kind, make_model
from smgeo.prepare import Split, Windows, cv_folds, learnable, part_rows
from smgeo.prepare.moments import mean_and_std
from smgeo.prepare.target import check_target_is_observed, choose_features
from smgeo.recipe.models import is_network
from smgeo.recipe.preparation import WINDOW_DAYS
from smgeo.recipe.search import TUNE_TRIALS, SearchSpec
from smgeo.recipe.spec import parse_spec
from smgeo.tuning.identity import describe_inputs
from smgeo.tuning.objective import Objective, Pair, fit_epochs
from smgeo.tuning.plan import SearchPlan, check_libraries, check_search
from smgeo.tuning.searchers import make_searcher
from smgeo.tuning.space import Choices
from smgeo.tuning.trials import TrialTable, holds_search

# Called with (trials that ended, trials, a note with the best RMSE so far).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Search:
    """A finished search.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a trial; see `smgeo.tuning.trials.TrialTable`.
    path : Path
        The table's file, `trials.parquet`.
    plan : SearchPlan
        The search as it was checked.
    """

    table: pd.DataFrame
    path: Path
    plan: SearchPlan
    _final: Pair

    @property
    def fixed(self) -> JsonObject:
        """Parameters of every trial."""
        return self.plan.fixed

    @property
    def best(self) -> pd.Series:
        """The row of the trial with the least validation RMSE that did not fail; the first, if several have it."""
        return _best_row(self.table)

    @property
    def params(self) -> JsonObject:
        """All parameters of the best trial, for `make_model`."""
        return {**self.fixed, **json.loads(self.best["params"])}

    def retrain(self, trial: int | None = None) -> SoilMoistureModel:
        """Return the fitted model of a trial.

        It is trained again on the split's training stations with the row's parameters, seed and number of epochs, and with as many
        threads as in the search, because the order in which threads add numbers changes their last digits. After a search with the
        objective `"validation"`, its validation RMSE is the row's; the score over folds is that of several models, and no model has it.

        Parameters
        ----------
        trial : int, optional
            Number of the trial; by default the best.

        Raises
        ------
        SmgeoError
            If there is no such trial, or it has no score.
        """
        number = int(self.best["trial"] if trial is None else trial)
        rows = self.table[(self.table["trial"] == number) & self.table["status"].isin(["finished", "stopped"])]
        if rows.empty:
            raise SmgeoError(f"{self.path} has no trial {number} with a score; see its columns trial and status")
        params = {**self.fixed, **json.loads(rows["params"].iloc[0])}
        kind, epochs = self.plan.kind, int(rows["epochs"].iloc[0])
        if not is_network(kind):
            return fit_epochs(make_model(kind, **params), self._final, epochs)
        from smgeo.tuning.ray_session import start_ray
        from smgeo.tuning.ray_trials import retrain_apart

        with start_ray(self.plan.spec.concurrent) as concurrent:
            return retrain_apart(kind, params, self._final, epochs, concurrent)


def tune(
    kind: Kind,
    ds: xr.Dataset,
    split: Split,
    *,
    out: str | Path,
    spec: SearchSpec | Mapping[str, object] | None = None,
    trials: int = TUNE_TRIALS,
    search: str = "random",
    scheduler: str = "asha",
    resume: bool = True,
    space: Mapping[str, Choices | Mapping[str, object]] | None = None,
    params: Mapping[str, object] | None = None,
    features: Sequence[str] | None = None,
    target: str = "sm",
    length: int | None = None,
    missing: float = 0.0,
    fill: Sequence[float] | None = None,
    objective: str | int = "validation",
    epochs: int | None = None,
    concurrent: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Search:
    """Search for the parameters with which a model has the least error at stations that it was not trained on.

    Trials run on Ray Tune, one CPU and one thread each; the data are in shared memory once. Test stations are not read. Every trial
    is in `out/trials.parquet` as soon as it begins; the same call continues a search that was killed: trials that ended are
    not run again, those that were cut off begin again with the same parameters.

    Parameters
    ----------
    kind : str or scikit-learn regressor
        As for `make_model`.
    ds : xarray.Dataset
        A prepared station cube, `(station, time)`, lazy or not. The training and validation stations are read once.
    split : Split
        From `split_stations`, or from `split_periods` with validation days.
    out : str or Path
        Folder of the table and of `search.json`.
    spec : SearchSpec or mapping, optional
        The search as in a recipe, with the keys `trials` (20 by default, as there), `search`, `scheduler`, `objective`, `epochs`,
        `concurrent`, `seed` and `space`; instead of the keywords of these names.
    trials : int
        Total number of trials; a larger number continues a finished search.
    search : {"random", "ax", "optuna"}
        Method that suggests parameters.
    scheduler : {"asha", "none"}
        `asha` stops trials early that are worse than two thirds of those that came as far (after 1, 3, 9, ... epochs).
    resume : bool
        Continue the search in `out`. If false, a folder with a search is refused; nothing is ever removed.
    space : mapping, optional
        Parameter -> list of choices, `Range`, or `{"integer" | "uniform" | "log": [least, greatest]}`; by default the kind's own.
    params : mapping, optional
        Parameters of every trial that `space` does not search. `{"mode": "sequence"}` trains recurrent networks on whole series.
    features : sequence of str, optional
        Variables; by default all dynamic, static and calendar ones except the target.
    target : str
        Variable that is estimated.
    length : int, optional
        Days that a model sees; 30 by default, 1 for models of one day.
    missing : float
        Share of a window's values that may be missing.
    fill : sequence of float, optional
        Replaces a missing value of each feature; by default the means of the training stations.
    objective : "validation" or int
        RMSE at the validation stations, or over so many folds of the training and validation stations, each held out once; every fold has
        its own model and its own copy of the data. Either is in the target's unit, and the best epoch of a trial (of
        each fold) counts. The preparation of `ds` is the same in all folds; in a recipe each fold is prepared from scratch.
    epochs : int, optional
        Maximum number of epochs of a trial; by default the model's own.
    concurrent : int, optional
        Trials at once; by default one a CPU.
    seed : int
        Seed of suggestions, of folds, and of models if `params` has none. With one trial at a time, or random suggestions without a
        scheduler, the same seed gives the same table of scores.
    progress : callable, optional
        Called with (trials that ended, trials, a note with the best RMSE so far) after every epoch.

    Returns
    -------
    Search

    Raises
    ------
    SmgeoError
        If a value is impossible, `spec` and its keywords are both given, Ray or the searcher's library is not installed, `out` contains
        another search or one is at work in it, the search is interrupted by SIGUSR1, or all trials failed.
    KeyboardInterrupt
        After Ctrl-C, when the trials have been ended.
    """
    asked = {"trials": trials, "search": search, "scheduler": scheduler, "objective": objective, "seed": seed}
    asked |= {"epochs": epochs, "concurrent": concurrent, "space": dict(space) if space is not None else None}
    spec = _read_spec(spec, asked)
    fixed = dict(params or {})
    model = make_model(kind, **fixed)
    names = choose_features(ds, features, target, "tune")
    check_target_is_observed(ds, target)
    mode = model.window_mode
    if fill is None and (missing > 0 or mode == "sequence"):
        means = mean_and_std(learnable(ds, split), names)
        fill = [means[name][0] for name in names]
    days = length if length is not None else WINDOW_DAYS if model.uses_window else 1

    def make(part: xr.Dataset) -> Windows:
        return Windows(part, names, target, days, missing, fill, mode=mode)

    final = make(part_rows(ds, split, "train", target)), make(part_rows(ds, split, "validation", target))
    pairs = [final]
    if isinstance(spec.objective, int):
        folds = choose_stations(ds, split, spec.objective, target, spec.seed or 0)
        pairs = [(make(select_stations(ds, a)), make(select_stations(ds, b))) for a, b in folds]
    return search_windows(kind, pairs, spec, out, final=final, params=fixed, resume=resume, progress=progress)


def _read_spec(spec: SearchSpec | Mapping[str, object] | None, keywords: Mapping[str, object]) -> SearchSpec:
    """Return the search that `tune` was asked for, by a spec or by keywords."""
    if spec is None:
        return parse_spec(SearchSpec, keywords, "tune")
    defaults = signature(tune).parameters
    if double := [name for name, value in keywords.items() if value != defaults[name].default]:
        raise SmgeoError(f"tune: spec and {', '.join(double)} are both given; set {', '.join(double)} in spec")
    return spec if isinstance(spec, SearchSpec) else parse_spec(SearchSpec, spec, "tune: spec")


def describe_search(table: pd.DataFrame) -> JsonObject:
    """Return a search's table as in `results.json`: the number of the best trial, and the outcome of each.

    An outcome is `trial`, `status`, `epochs`, `params` and `validation_rmse` (in the target's unit, None if there is none).
    """
    rows = table.to_dict("records")
    trials = [
        {
            "trial": int(r["trial"]),
            "status": r["status"],
            "epochs": int(r["epochs"]),
            "params": json.loads(r["params"]),
            "validation_rmse": float(r["validation_rmse"]) if np.isfinite(r["validation_rmse"]) else None,
        }
        for r in rows
    ]
    return {"best": int(_best_row(table)["trial"]), "trials": trials}


def _best_row(table: pd.DataFrame) -> pd.Series:
    scored = table[table["status"].isin(["finished", "stopped"])]
    return scored.iloc[int(scored["validation_rmse"].argmin())]


def choose_stations(
    ds: xr.Dataset, split: Split, objective: int, target: str, seed: int
) -> list[tuple[Sequence[str], Sequence[str]]]:
    """Return (training, scoring) stations of each of so many folds of the training and validation stations."""
    if split.periods:
        raise SmgeoError(
            "tune: objective as a number makes folds of stations, and this split is of days; give 'validation'"
        )
    ids = np.array([*split.train, *split.validation])
    folds = cv_folds(select_stations(ds, ids.tolist()), "group-k-fold", objective, target=target, seed=seed)
    return [(ids[a.any(axis=1)].tolist(), ids[b.any(axis=1)].tolist()) for a, b in folds]


def search_windows(
    kind: Kind,
    pairs: Sequence[Pair],
    spec: SearchSpec,
    out: str | Path,
    *,
    final: Pair | None = None,
    params: Mapping[str, object] | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> Search:
    """Search as `tune` does, on windows that were made before.

    Parameters
    ----------
    kind, params, resume, progress
        As for `tune`.
    pairs : sequence of (Windows, Windows)
        Training and scoring windows: one pair, or one a fold.
    spec : SearchSpec
        The rest of a search, as in a recipe.
    out : str or Path
    final : (Windows, Windows), optional
        Windows that `Search.retrain` trains and stops early on; the first pair by default.

    Raises
    ------
    OtherSearchError
        If `out` contains another search.
    SmgeoError
        As `tune`.
    """
    plan = check_search(kind, spec, params or {})
    _check_windows(pairs)
    folder = Path(out)
    about = describe_inputs(plan, pairs)
    if not holds_search(folder):
        check_libraries(spec)
    with TrialTable.open(folder, about, resume=resume) as table:
        _check_table(table, plan.space)
        if table.count("finished", "stopped", "failed") < spec.trials:
            check_libraries(spec)
            from smgeo.tuning.ray_session import start_ray
            from smgeo.tuning.ray_trials import run_trials

            objective = Objective(kind, plan.fixed, pairs)
            searcher = make_searcher(spec.search, plan.space, spec.seed or 0)
            report = None if progress is None else partial(_report, table, spec.trials, progress)
            with start_ray(spec.concurrent) as concurrent:
                run_trials(objective, searcher, table, plan, concurrent=concurrent, progress=report)
        if table.best() is None:
            first = table.trials[min(table.trials)]
            raise SmgeoError(
                f"all {len(table.trials)} trials failed; trial {first.number} with {first.error}. See the column error of "
                f"{table.path}, fix the cause and run the command again"
            )
        return Search(table.frame(), table.path, plan, final or pairs[0])


def _report(table: TrialTable, trials: int, progress: Progress) -> None:
    best, running = table.best(), table.count("running")
    note = "no score yet" if best is None else f"best RMSE {best.score:.4f} (trial {best.number})"
    progress(len(table.trials) - running, trials, f"{note}, {running} running")


def _check_table(table: TrialTable, space: Mapping[str, Choices]) -> None:
    """Refuse rows that this search did not write, whichever searcher would learn from them."""
    for number, trial in table.trials.items():
        if set(trial.params) != set(space):
            raise SmgeoError(
                f"{table.path}: trial {number} has the parameters {', '.join(sorted(trial.params))}, and the search has "
                f"{', '.join(sorted(space))}; the table was changed by another program. Give an empty folder"
            )


def _check_windows(pairs: Sequence[Pair]) -> None:
    for k, pair in enumerate(pairs):
        for part, windows in zip(("training", "validation"), pair, strict=True):
            if not len(windows):
                where = f" of fold {k + 1}" if len(pairs) > 1 else ""
                raise SmgeoError(
                    f"search: the {part} stations{where} have no row with enough values; allow more missing ones, fill longer gaps, "
                    "use fewer folds or more stations"
                )
