"""Search spaces: each kind's own, checks of a user's, and samples of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from smgeo.errors import SmgeoError
from smgeo.files import JsonObject
from smgeo.models.registry import Kind, make_model
from smgeo.recipe.search import Range

# Values of a parameter: a list to choose from, or a range.
Choices: TypeAlias = Sequence[object] | Range

_RECURRENT: dict[str, Choices] = {
    "layers": Range(integer=(1, 2)),
    "units": Range(integer=(16, 128)),
    "dropout": Range(uniform=(0.0, 0.5)),
    "input_dropout": Range(uniform=(0.0, 0.5)),
    "learning_rate": Range(log=(0.0005, 0.02)),
    "optimizer": ("adam", "rmsprop"),
}
_SPACES: dict[str, dict[str, Choices]] = {
    # The study's own.
    "ann": {
        "layers": Range(integer=(1, 10)),
        "units": Range(integer=(64, 256)),
        "activation": ("tanh", "sigmoid", "relu"),
        "dropout": Range(uniform=(0.1, 0.2)),
        "learning_rate": Range(log=(0.001, 0.1)),
        "optimizer": ("adam", "rmsprop", "sgd"),
    },
    "gru": _RECURRENT,
    "lstm": _RECURRENT,
    "cnn": {
        "layers": Range(integer=(1, 3)),
        "filters": Range(integer=(16, 128)),
        "kernel": Range(integer=(2, 9)),
        "activation": ("tanh", "relu"),
        "dropout": Range(uniform=(0.0, 0.3)),
        "learning_rate": Range(log=(0.0005, 0.02)),
        "optimizer": ("adam", "rmsprop"),
    },
    # Parameters of both engines. More trees never hurt, so their number is limited by time and not searched.
    "rf": {
        "max_depth": Range(integer=(4, 24)),
        "min_examples": Range(integer=(2, 100)),
        "feature_share": Range(uniform=(0.05, 1.0)),
    },
    "extra_trees": {
        "min_examples": Range(integer=(2, 50)),
        "feature_share": Range(uniform=(0.2, 1.0)),
    },
    # Likewise, and what slows learning down: a low rate needs more trees than a search waits for.
    "boosting": {
        "learning_rate": Range(log=(0.01, 0.2)),
        "max_leaves": Range(integer=(4, 63)),
        "min_examples": Range(integer=(5, 200)),
        "feature_share": Range(uniform=(0.1, 1.0)),
        "l2": Range(log=(0.01, 100.0)),
    },
}


def default_space(kind: Kind) -> dict[str, Choices]:
    """Return the search space of a kind of model, used if a recipe gives none.

    Parameters
    ----------
    kind : {"ann", "gru", "lstm", "cnn", "rf", "extra_trees", "boosting"}
        The space of `ann` is the study's.

    Returns
    -------
    dict
        Parameter -> `Range` or list of values; a new dict.

    Raises
    ------
    SmgeoError
        If the kind has no space of its own, such as regressors of scikit-learn.
    """
    if not isinstance(kind, str) or kind not in _SPACES:
        raise SmgeoError(
            f"{kind} has no search space of its own (these have: {', '.join(_SPACES)}); give its parameters in space, such as "
            "{max_leaf_nodes: {integer: [7, 63]}}"
        )
    return dict(_SPACES[kind])


def check_space(kind: Kind, space: Mapping[str, Choices], fixed: Mapping[str, object] | None = None) -> None:
    """Refuse a space that a model would refuse in the middle of a search.

    The model's own checks see both ends of every range and every choice, with the other parameters as they are fixed.

    Parameters
    ----------
    kind : str or scikit-learn regressor
        As for `make_model`.
    space : mapping
        Parameter -> `Range` or list of values.
    fixed : mapping, optional
        The model's other parameters.

    Raises
    ------
    SmgeoError
        Naming the parameter and the value.
    """
    make_model(kind, **(fixed or {}))
    for name, choices in space.items():
        for value in choices.ends if isinstance(choices, Range) else choices:
            try:
                make_model(kind, **{**(fixed or {}), name: value})
            except SmgeoError as error:
                raise SmgeoError(f"space.{name}: {error}") from None


def sample_params(space: Mapping[str, Choices], trial: int, seed: int = 0) -> JsonObject:
    """Return the parameters of one trial; the same trial of the same seed has the same parameters, whichever ran before.

    Parameters
    ----------
    space : mapping
        Parameter -> list of values to choose from, or a `Range`.
    trial, seed : int
        Number of the trial, and seed of the search.

    Examples
    --------
    >>> space = {"layers": Range(integer=(1, 10)), "learning_rate": Range(log=(0.001, 0.1)), "activation": ["relu", "tanh"]}
    >>> params = sample_params(space, trial=3)
    >>> params == sample_params(space, trial=3), 1 <= params["layers"] <= 10, 0.001 <= params["learning_rate"] <= 0.1
    (True, True, True)
    """
    rng = np.random.default_rng([seed, trial])
    return {name: _sample(space[name], rng) for name in sorted(space)}


def _sample(choice: Choices, rng: np.random.Generator) -> object:
    if not isinstance(choice, Range):
        return choice[int(rng.integers(len(choice)))]
    if choice.integer is not None:
        return int(rng.integers(choice.integer[0], choice.integer[1] + 1))
    if choice.log is not None:
        return float(np.exp(rng.uniform(*np.log(choice.log))))
    assert choice.uniform is not None
    return float(rng.uniform(*choice.uniform))
