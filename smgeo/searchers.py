"""Searchers: which parameters the next trial has, given how the ones before scored. Knows nothing of how trials are run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from smgeo.errors import SmgeoError, nearest
from smgeo.search_space import Choices, sample_params


class Searcher(Protocol):
    """Suggests trials, and is told how they scored.

    Several trials may be suggested before the first is told. A search is rebuilt by telling a new searcher, in the order of their
    numbers, of trials that it never suggested.
    """

    def suggest(self, trial: int) -> dict[str, Any]:
        """Parameters of this trial, of Python's own types."""

    def tell(self, trial: int, params: dict[str, Any], rmse: float | None) -> None:
        """RMSE of a trial, or None where it failed."""


class RandomSearcher:
    """Each trial by itself, whatever the others scored; see `sample_params`."""

    def __init__(self, space: Mapping[str, Choices], seed: int) -> None:
        self.space = space
        self.seed = seed

    def suggest(self, trial: int) -> dict[str, Any]:
        """Parameters of this trial."""
        return sample_params(self.space, trial, self.seed)

    def tell(self, trial: int, params: dict[str, Any], rmse: float | None) -> None:
        """Nothing is learned from it."""


_SEARCHERS: dict[str, Callable[[Mapping[str, Choices], int], Searcher]] = {"random": RandomSearcher}


def make_searcher(search: str, space: Mapping[str, Choices], seed: int) -> Searcher:
    """A searcher by name.

    Parameters
    ----------
    search : {"random"}
    space : mapping
        Parameter -> `Range` or list of values.
    seed : int

    Raises
    ------
    SmgeoError
        If the name is unknown, or the searcher's library is not installed.
    """
    if search not in _SEARCHERS:
        raise SmgeoError(f"unknown searcher {search!r}; {nearest(search, list(_SEARCHERS))}")
    return _SEARCHERS[search](space, seed)
