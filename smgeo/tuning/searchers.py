"""Searchers: the parameters of the next trial, given the scores of those before. Independent of how trials are run."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from smgeo.errors import SmgeoError, missing_extra, nearest
from smgeo.files import JsonObject
from smgeo.recipe.search import Range
from smgeo.tuning.space import Choices, sample_params

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class Searcher(Protocol):
    """Suggests trials, and learns from their scores.

    Several trials may be suggested before the first has a score. A search is rebuilt by telling a new searcher, in the order of their
    numbers, the scores of trials that it never suggested, and by booking those that are still to run.
    """

    def suggest(self, trial: int) -> JsonObject:
        """Return parameters of this trial, of Python's own types."""

    def book(self, trial: int, params: JsonObject) -> None:
        """Note that a trial that another searcher suggested runs with these parameters; its score comes later."""

    def tell(self, trial: int, params: JsonObject, rmse: float | None) -> None:
        """Learn the RMSE of a trial, or None if it failed."""


class RandomSearcher:
    """Samples each trial by itself, whatever the scores of the others; see `sample_params`."""

    def __init__(self, space: Mapping[str, Choices], seed: int) -> None:
        self.space = space
        self.seed = seed

    def suggest(self, trial: int) -> JsonObject:
        """Return parameters of this trial."""
        return sample_params(self.space, trial, self.seed)

    def book(self, trial: int, params: JsonObject) -> None:
        """Do nothing: no suggestion depends on it."""

    def tell(self, trial: int, params: JsonObject, rmse: float | None) -> None:
        """Do nothing: no suggestion depends on it."""


class AxSearcher:
    """Bayesian optimisation by Ax (https://ax.dev): a Gaussian process of the RMSE, and the point with the highest expected gain.

    The first trials follow Ax's own rule: the middle of the space, then points of a Sobol sequence until there are five trials
    of which two have a score (failed ones do not count). In a search of one trial at a time, the same seed gives the same trials;
    a search that was rebuilt continues with other trials than one that never stopped.

    Needs a space of more than one point; see `check_searcher`.
    """

    def __init__(self, space: Mapping[str, Choices], seed: int) -> None:
        self.space = space
        self.seed = seed
        self._at: dict[int, int] = {}
        self._free = _free(space)
        self._points = math.prod(math.inf if isinstance(c, Range) else len(c) for c in space.values())
        self._client = _import_ax().Client(random_seed=seed)
        self._client.configure_experiment(parameters=[_ax_parameter(name, c) for name, c in self._free.items()])
        self._client.configure_optimization(objective="-rmse")
        self._client.configure_generation_strategy(
            initialization_random_seed=seed,
            allow_exceeding_initialization_budget=True,  # or more trials at once than five would wait
        )

    def suggest(self, trial: int) -> JsonObject:
        """Return parameters of this trial; if a space of lists has no untried ones left, some at random."""
        from ax.exceptions.core import OptimizationComplete

        if len(self._at) >= self._points:  # Ax takes half a minute to find that out
            return sample_params(self.space, trial, self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about fits that BoTorch repeats, which no user can change
            try:
                ((self._at[trial], positions),) = self._client.get_next_trials(max_trials=1).items()
            except OptimizationComplete:
                self._points = 0
                return self.suggest(trial)
        return {name: _value(c, positions.get(name, 0)) for name, c in self.space.items()}

    def book(self, trial: int, params: JsonObject) -> None:
        """Note a trial that runs; it is not suggested again."""
        positions = _positions(self.space, trial, params)
        self._at[trial] = self._client.attach_trial({name: positions[name] for name in self._free})

    def tell(self, trial: int, params: JsonObject, rmse: float | None) -> None:
        """Learn the RMSE of a trial; one that failed is not suggested again."""
        if trial not in self._at:
            self.book(trial, params)
        if rmse is None or not math.isfinite(rmse):
            self._client.mark_trial_abandoned(self._at[trial])
        else:
            self._client.complete_trial(self._at[trial], raw_data={"rmse": rmse})


def _import_ax() -> ModuleType:
    """Return Ax, with its log limited to errors: it reports every trial, and its storage already at import."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import ax
        from ax.utils.common.logger import set_ax_logger_levels
    finally:
        logging.disable(disabled)
    set_ax_logger_levels(logging.ERROR)
    return ax


def _ax_parameter(name: str, choices: Choices) -> object:
    ax = _import_ax()
    scale = _scale(choices)
    if isinstance(scale, int):
        return ax.ChoiceParameterConfig(name, list(range(scale)), "int", is_ordered=False)
    scaling = "log" if scale.log is not None else "linear"
    return ax.RangeParameterConfig(name, scale.ends, "int" if scale.integer is not None else "float", scaling=scaling)


class OptunaSearcher:
    """Tree-structured Parzen estimator by Optuna (https://optuna.org; Bergstra et al. 2011).

    The first trials follow Optuna's own rule: ten at random. Each suggestion depends on the seed, the trial's number, and the scores
    before it: in a search of one trial at a time, the same seed gives the same trials, resumed or not.
    """

    def __init__(self, space: Mapping[str, Choices], seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.seed = seed
        self._scales = {name: _optuna_distribution(c) for name, c in space.items()}
        self._study = optuna.create_study()
        self._asked: dict[int, int] = {}

    def suggest(self, trial: int) -> JsonObject:
        """Return parameters of this trial."""
        from optuna.samplers import TPESampler

        seed = int(np.random.SeedSequence([self.seed, trial]).generate_state(1)[0])
        # constant_liar: running trials keep others out of their neighbourhood.
        self._study.sampler = TPESampler(seed=seed, constant_liar=True)
        asked = self._study.ask(self._scales)
        self._asked[trial] = asked.number
        return {name: _value(c, asked.params[name]) for name, c in self.space.items()}

    def book(self, trial: int, params: JsonObject) -> None:
        """Note a trial that runs; others keep out of its neighbourhood."""
        from optuna.trial import TrialState, create_trial

        positions = _positions(self.space, trial, params)
        # Optuna numbers trials as they come.
        self._asked[trial] = len(self._study.get_trials(deepcopy=False))
        self._study.add_trial(create_trial(state=TrialState.RUNNING, params=positions, distributions=self._scales))

    def tell(self, trial: int, params: JsonObject, rmse: float | None) -> None:
        """Learn the RMSE of a trial; one that failed counts as worse than all others."""
        from optuna.trial import TrialState

        if trial not in self._asked:
            self.book(trial, params)
        failed = rmse is None or not math.isfinite(rmse)
        # Optuna learns nothing from a failed trial; a pruned one without a value counts as the worst.
        state, value = (TrialState.PRUNED, None) if failed else (TrialState.COMPLETE, rmse)
        self._study.tell(self._asked.pop(trial), value, state)


def _optuna_distribution(choices: Choices) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    scale = _scale(choices)
    if isinstance(scale, int):
        return CategoricalDistribution(range(scale))
    if scale.integer is not None:
        return IntDistribution(*scale.integer)
    return FloatDistribution(*scale.ends, log=scale.log is not None)


def _scale(choices: Choices) -> Range | int:
    """Return the range that a library searches: for a list of rising numbers, the range of positions in it; for other lists their length.

    Positions stand for values of any type, which the libraries would refuse or change.

    >>> _scale([16, 32, 128]), _scale(["relu", "tanh"])
    (Range(integer=(0, 2), uniform=None, log=None), 2)
    """
    if isinstance(choices, Range):
        return choices
    numbers = [c for c in choices if isinstance(c, int | float) and type(c) in (int, float)]
    rising = len(numbers) == len(choices) > 1 and all(a < b for a, b in pairwise(numbers))
    return Range(integer=(0, len(choices) - 1)) if rising else len(choices)


def _value(choices: Choices, position: float) -> object:
    return position if isinstance(choices, Range) else choices[int(position)]


def _positions(space: Mapping[str, Choices], trial: int, params: JsonObject) -> JsonObject:
    """Return the parameters of a trial that another searcher suggested, as the libraries know them."""
    if set(params) == set(space) and all(_is_in(space[name], value) for name, value in params.items()):
        return {name: v if isinstance(c := space[name], Range) else list(c).index(v) for name, v in params.items()}
    raise SmgeoError(
        f"trial {trial} has the parameters {params}, which are not in the space {dict(space)}; go on with the space that the "
        "search began with, or start another in a new folder"
    )


def _is_in(choices: Choices, value: object) -> bool:
    if not isinstance(choices, Range):
        return value in choices
    return isinstance(value, int | float) and choices.ends[0] <= value <= choices.ends[1]


def _free(space: Mapping[str, Choices]) -> dict[str, Choices]:
    """Return the parameters with more than one value; Ax knows no others."""
    return {name: c for name, c in space.items() if isinstance(c, Range) or len(c) > 1}


_SEARCHERS: dict[str, Callable[[Mapping[str, Choices], int], Searcher]] = {
    "random": RandomSearcher,
    "ax": AxSearcher,
    "optuna": OptunaSearcher,
}


# Package of a searcher, and the extra that installs it.
_NEEDS = {"ax": ("ax", "ax"), "optuna": ("optuna", "tune")}


def check_searcher(search: str, space: Mapping[str, Choices]) -> None:
    """Refuse what a searcher cannot search; loads no library.

    Raises
    ------
    SmgeoError
        If the name is unknown, or, for Ax, every parameter has only one value.
    """
    if search not in _SEARCHERS:
        raise SmgeoError(f"unknown searcher {search!r}; {nearest(search, list(_SEARCHERS))}")
    if search == "ax" and not _free(space):
        raise SmgeoError(
            f"space: {', '.join(space)} have one value each, so there is nothing to search; give ranges or lists"
        )


def check_installed(search: str) -> None:
    """Refuse a searcher whose library is not installed; does not load it."""
    package, extra = _NEEDS.get(search, ("", ""))
    if package and find_spec(package) is None:
        raise missing_extra(f"search: {search}", extra)


def make_searcher(search: str, space: Mapping[str, Choices], seed: int) -> Searcher:
    """Return a searcher by name.

    Parameters
    ----------
    search : {"random", "ax", "optuna"}
    space : mapping
        Parameter -> `Range` or list of values.
    seed : int

    Raises
    ------
    SmgeoError
        As `check_searcher`, or if the searcher's library is not installed.
    """
    check_searcher(search, space)
    check_installed(search)
    return _SEARCHERS[search](space, seed)
