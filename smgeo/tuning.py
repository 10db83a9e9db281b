"""Search over models' parameters: a random search, one trial after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smgeo.recipe import Range


def sample_params(space: Mapping[str, Sequence[Any] | Range], trial: int, seed: int = 0) -> dict[str, Any]:
    """The parameters of one trial; the same trial of the same seed has the same parameters, whichever ran before.

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


def _sample(choice: Sequence[Any] | Range, rng: np.random.Generator) -> Any:
    if not isinstance(choice, Range):
        return choice[int(rng.integers(len(choice)))]
    if choice.integer is not None:
        return int(rng.integers(choice.integer[0], choice.integer[1] + 1))
    if choice.log is not None:
        return float(np.exp(rng.uniform(*np.log(choice.log))))
    assert choice.uniform is not None
    return float(rng.uniform(*choice.uniform))
