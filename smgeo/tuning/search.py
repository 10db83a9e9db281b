"""Search over a model's parameters on Ray Tune, scored on stations that no trial was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.cube.schema import select_stations
from smgeo.errors import SmgeoError, missing_extra
from smgeo.models import make_model
from smgeo.models.base import SoilMoistureModel
from smgeo.prepare import Split, Windows, cv_folds, learnable, part_rows
from smgeo.prepare.moments import mean_and_std
from smgeo.prepare.target import check_target_is_observed, choose_features
from smgeo.recipe.models import is_network
from smgeo.recipe.preparation import WINDOW_DAYS
from smgeo.recipe.search import TUNE_TRIALS, Range, SearchSpec
from smgeo.recipe.spec import parse_spec
from smgeo.tuning.identity import describe_inputs
from smgeo.tuning.objective import Objective, Pair, fit_epochs
from smgeo.tuning.searchers import check_installed, check_searcher, make_searcher
from smgeo.tuning.space import Choices, check_space, default_space
from smgeo.tuning.trials import TrialTable, holds_search


@dataclass(frozen=True)
class Search:
    """A finished search.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a trial; see `smgeo.tuning.trials.TrialTable`.
    path : Path
        The table's file, `trials.parquet`.
    fixed : dict
        Parameters of every trial.
    """

    table: pd.DataFrame
    path: Path
    fixed: dict[str, Any]
    _kind: Any
    _final: Pair
    _concurrent: int | None

    @property
    def best(self) -> pd.Series:
        """The row of the trial with the least validation RMSE that did not fail; of equals the first."""
        return _best_row(self.table)

    @property
    def params(self) -> dict[str, Any]:
        """All parameters of the best trial, for `make_model`."""
        return {**self.fixed, **json.loads(self.best["params"])}

    def retrain(self, trial: int | None = None) -> SoilMoistureModel:
        """The fitted model of a trial.

        Trained once more on the split's training stations with the row's parameters, seed and number of epochs, and with as many
        threads as in the search, because the order in which threads add numbers changes their last digits. Of a search with the
        objective `"validation"`, its validation RMSE is the row's; the score of folds is of as many models, and no model has it.

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
        epochs, model = int(rows["epochs"].iloc[0]), make_model(self._kind, **params)
        if not is_network(self._kind):
            return fit_epochs(model, self._final, epochs)
        from smgeo.tuning import ray_trials

        with ray_trials.start_ray(self._concurrent) as concurrent:
            return ray_trials.retrain_apart(self._kind, params, self._final, epochs, concurrent)


def tune(
    kind: str | Any,
    ds: xr.Dataset,
    split: Split,
    *,
    out: str | Path,
    trials: int = TUNE_TRIALS,
    search: str = "random",
    scheduler: str = "asha",
    resume: bool = True,
    space: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    features: Sequence[str] | None = None,
    target: str = "sm",
    length: int | None = None,
    missing: float = 0.0,
    fill: Sequence[float] | None = None,
    objective: str | int = "validation",
    epochs: int | None = None,
    concurrent: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Search:
    """Search for the parameters with which a model errs least at stations that it was not trained on.

    Trials run on Ray Tune, one CPU and one thread each; the data lie once in shared memory. Test stations are not read. Every trial
    is in `out/trials.parquet` as soon as it begins; a search that was killed goes on with the same call: trials that ended are
    not run again, those that were cut off begin again with the same parameters.

    Parameters
    ----------
    kind : str or scikit-learn regressor
        As for `make_model`.
    ds : xarray.Dataset
        A prepared station cube, `(station, time)`, lazy or not. The training and validation stations are read once.
    split : Split
        Of `split_stations`, or of `split_periods` with validation days.
    out : str or Path
        Folder of the table and of `search.json`.
    trials : int
        How many in all; may be raised to continue a finished search.
    search : {"random", "ax", "optuna"}
        What suggests parameters.
    scheduler : {"asha", "none"}
        Whether trials that do worse than two thirds of those that came as far are stopped early (after 1, 3, 9, ... epochs).
    resume : bool
        Continue the search in `out`. If false, a folder with a search is refused; nothing is ever removed.
    space : mapping, optional
        Parameter -> list of choices, `Range`, or `{"integer" | "uniform" | "log": [least, greatest]}`; by default the kind's own.
    params : mapping, optional
        Parameters of every trial that `space` does not search. `{"mode": "sequence"}` trains recurrent networks on whole series.
    features : sequence of str, optional
        Variables; by default all dynamic, static and calendar ones, but for the target.
    target : str
        Variable that is estimated.
    length : int, optional
        Days that a model sees; 30 by default, 1 for models that look at one day.
    missing : float
        Share of a window's values that may be missing.
    fill : sequence of float, optional
        What stands for a missing value of each feature; by default the means of the training stations.
    objective : "validation" or int
        RMSE at the validation stations, or over so many folds of the training and validation stations, each held out once; every fold is
        a model of its own, with a copy of the data of its own. Either is in the target's unit, and the best epoch of a trial (of
        each fold) counts. What `ds` was prepared with is the same in all folds; in a recipe each fold is prepared anew.
    epochs : int, optional
        Most epochs of a trial; by default the model's own.
    concurrent : int, optional
        Trials at once; by default one a CPU.
    seed : int
        Of suggestions, folds, and, where `params` has none, models. With one trial at a time, or random suggestions without a scheduler,
        the same seed gives the same table of scores.
    progress : callable, optional
        Called with (trials that ended, trials, a note with the best RMSE so far) after every epoch.

    Returns
    -------
    Search

    Raises
    ------
    SmgeoError
        If a value is impossible, Ray or the searcher's library is not installed, `out` holds another search or one is at work in it,
        the search is interrupted by SIGUSR1, or all trials failed.
    KeyboardInterrupt
        After Ctrl-C, when the trials have been ended.
    """
    asked = {"trials": trials, "search": search, "scheduler": scheduler, "objective": objective, "seed": seed}
    asked |= {"epochs": epochs, "concurrent": concurrent, "space": dict(space) if space is not None else None}
    spec = parse_spec(SearchSpec, asked, "tune")
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
        folds = choose_stations(ds, split, spec.objective, target, seed)
        pairs = [(make(select_stations(ds, a)), make(select_stations(ds, b))) for a, b in folds]
    return search_windows(kind, pairs, spec, out, final=final, params=fixed, resume=resume, progress=progress)


def describe_search(table: pd.DataFrame) -> dict[str, Any]:
    """A search's table as in `results.json`: number of the best trial, and `trial`, `status`, `epochs`, `params`, `validation_rmse` of each.

    `validation_rmse` is in the target's unit, None where there is none.
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
    """(training, scoring) stations of each of so many folds of the training and validation stations."""
    if split.periods:
        raise SmgeoError(
            "tune: objective as a number makes folds of stations, and this split is of days; give 'validation'"
        )
    ids = np.array([*split.train, *split.validation])
    folds = cv_folds(select_stations(ds, ids.tolist()), "group-k-fold", objective, target=target, seed=seed)
    return [(ids[a.any(axis=1)].tolist(), ids[b.any(axis=1)].tolist()) for a, b in folds]


def search_windows(
    kind: str | Any,
    pairs: Sequence[Pair],
    spec: SearchSpec,
    out: str | Path,
    *,
    final: Pair | None = None,
    params: Mapping[str, Any] | None = None,
    resume: bool = True,
    progress: Callable[[int, int, str], None] | None = None,
) -> Search:
    """`tune` for windows that are made already.

    Parameters
    ----------
    kind, params, resume, progress
        As for `tune`.
    pairs : sequence of (Windows, Windows)
        Training and scoring windows: one pair, or one a fold.
    spec : SearchSpec
        Everything else that a recipe says of a search.
    out : str or Path
    final : (Windows, Windows), optional
        What `Search.retrain` trains and stops early on; the first pair by default.

    Raises
    ------
    OtherSearchError
        If `out` holds another search.
    SmgeoError
        As `tune`.
    """
    space, fixed, epochs = check_search(kind, spec, params or {})
    _check_windows(pairs)
    folder = Path(out)
    about = describe_inputs(kind, pairs, spec, space, fixed, epochs)
    if not holds_search(folder):
        check_libraries(spec)
    with TrialTable.open(folder, about, resume=resume) as table:
        _check_table(table, space)
        if table.count("finished", "stopped", "failed") < spec.trials:
            check_libraries(spec)
            from smgeo.tuning import ray_trials

            searcher = make_searcher(spec.search, space, spec.seed or 0)
            with ray_trials.start_ray(spec.concurrent) as concurrent:
                ray_trials.run_trials(
                    Objective(kind, fixed, pairs),
                    searcher,
                    table,
                    trials=spec.trials,
                    scheduler=spec.scheduler,
                    epochs=epochs,
                    seed=int(fixed["seed"]),
                    concurrent=concurrent,
                    progress=_telling(table, spec.trials, progress),
                )
        if table.best() is None:
            first = table.trials[min(table.trials)]
            raise SmgeoError(
                f"all {len(table.trials)} trials failed; trial {first.number} with {first.error}. See the column error of "
                f"{table.path}, and mend the cause; the same command begins anew"
            )
        return Search(table.frame(), table.path, fixed, kind, final or pairs[0], spec.concurrent)


def _telling(
    table: TrialTable, trials: int, progress: Callable[[int, int, str], None] | None
) -> Callable[[], None] | None:
    if progress is None:
        return None

    def tell() -> None:
        best, running = table.best(), table.count("running")
        note = "no score yet" if best is None else f"best RMSE {best.score:.4f} (trial {best.number})"
        progress(len(table.trials) - running, trials, f"{note}, {running} running")

    return tell


def check_search(
    kind: str | Any, spec: SearchSpec, params: Mapping[str, Any]
) -> tuple[Mapping[str, Choices], dict[str, Any], int]:
    """All of a search that can be known without data: its space, the parameters of every trial, and its most epochs.

    Raises
    ------
    SmgeoError
        If a parameter or the space is not as the model needs it.
    """
    space = _as_json(default_space(kind) if spec.space is None else spec.space)
    params = {n: v.item() if isinstance(v, np.generic) else v for n, v in params.items()}
    fixed = {"seed": spec.seed or 0, **params}
    model = make_model(kind, **fixed)
    own = model.get_params()["epochs"] if is_network(kind) else None
    if "epochs" in space:
        raise SmgeoError("search: epochs is not searched; give epochs: the most epochs of a trial")
    if spec.epochs is not None:
        if own is None:
            raise SmgeoError(f"search: {kind} is not trained in epochs; leave epochs out")
        fixed["epochs"] = spec.epochs
    check_space(kind, space, fixed)
    check_searcher(spec.search, space)
    return space, fixed, int(fixed.get("epochs", own or 1))


def check_libraries(spec: SearchSpec) -> None:
    """Refuse a search whose libraries are not installed; loads none of them.

    Raises
    ------
    SmgeoError
        Naming what to install.
    """
    if find_spec("ray") is None:
        raise missing_extra("the search", "tune")
    check_installed(spec.search)


def _as_json(space: Mapping[str, Choices]) -> dict[str, Choices]:
    """The space as it comes back from a table: a choice that is a tuple is a list there."""
    try:
        return {
            n: c if isinstance(c, Range) else json.loads(json.dumps(list(c), allow_nan=False, default=_plain_number))
            for n, c in space.items()
        }
    except (TypeError, ValueError) as error:
        raise SmgeoError(
            f"space: choices must be finite numbers, text, true, false, null or lists of these ({error})"
        ) from None


def _plain_number(value: Any) -> Any:
    """A number of NumPy as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def _check_table(table: TrialTable, space: Mapping[str, Choices]) -> None:
    """Refuse rows that this search did not write, whichever searcher would be told of them."""
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
