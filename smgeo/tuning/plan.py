"""A search that was checked without its data: the space, the parameters of every trial, and the most epochs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from smgeo.errors import SmgeoError, missing_extra
from smgeo.files import JsonObject
from smgeo.models.parameters import plain_number
from smgeo.models.registry import Kind, make_model
from smgeo.recipe.models import is_network
from smgeo.recipe.search import Range, SearchSpec
from smgeo.tuning.searchers import check_installed, check_searcher
from smgeo.tuning.space import Choices, check_space, default_space


@dataclass(frozen=True)
class SearchPlan:
    """A search that was checked.

    Attributes
    ----------
    kind : str or scikit-learn regressor
        As for `make_model`.
    spec : SearchSpec
        The search as it was asked for.
    space : mapping
        Parameter -> `Range` or list of values; the spec's, or the kind's own.
    fixed : dict
        Parameters of every trial, `seed` among them.
    epochs : int
        Maximum number of epochs of a trial; 1 for models without epochs.
    """

    kind: Kind
    spec: SearchSpec
    space: Mapping[str, Choices]
    fixed: JsonObject
    epochs: int

    @property
    def seed(self) -> int:
        """Seed of the models, unless it is searched."""
        return int(self.fixed["seed"])


def check_search(kind: Kind, spec: SearchSpec, params: Mapping[str, object]) -> SearchPlan:
    """Return the plan of a search, after all checks that need no data.

    Raises
    ------
    SmgeoError
        If a parameter or the space is not as the model needs it.
    """
    if kind == "ensemble":
        raise SmgeoError(
            "search: an ensemble is not searched; search its members, which it then takes as they were found"
        )
    space = _as_json(default_space(kind) if spec.space is None else spec.space)
    fixed: JsonObject = {"seed": spec.seed or 0, **{n: plain_number(v) for n, v in params.items()}}
    model = make_model(kind, **fixed)
    own = model.get_params()["epochs"] if is_network(kind) else None
    if "epochs" in space:
        raise SmgeoError("search: epochs is not searched; set epochs, the maximum number of epochs of a trial")
    if spec.epochs is not None:
        if own is None:
            raise SmgeoError(f"search: {kind} is not trained in epochs; leave epochs out")
        fixed["epochs"] = spec.epochs
    if own is not None and model.get_params()["patience"] is None and "patience" not in space:
        # Trials are compared by their best epochs, so a network keeps its own, in its trial and wherever it is trained again.
        fixed["patience"] = fixed.get("epochs", own)
    check_space(kind, space, fixed)
    check_searcher(spec.search, space)
    return SearchPlan(kind, spec, space, fixed, int(fixed.get("epochs", own or 1)))


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
    """Return the space as it comes back from a table: a choice that is a tuple is a list there."""
    try:
        return {
            n: c if isinstance(c, Range) else json.loads(json.dumps(list(c), allow_nan=False, default=_plain))
            for n, c in space.items()
        }
    except (TypeError, ValueError) as error:
        raise SmgeoError(
            f"space: choices must be finite numbers, text, true, false, null or lists of these ({error})"
        ) from None


def _plain(value: object) -> object:
    number = plain_number(value)
    if number is value:
        raise TypeError(f"{value!r} is a {type(value).__name__}")
    return number
