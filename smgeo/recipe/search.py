"""Search of a recipe: parameters, searcher, and how a trial is scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from smgeo.recipe.spec import Seed, Spec
from smgeo.recipe.yaml_format import YamlValue

# Trials of a search by default: of a recipe, whose other stages wait for it, and of a call of `smgeo.tune`.
RECIPE_TRIALS = 20
TUNE_TRIALS = 100


class Range(Spec):
    """A range of a searched parameter: whole numbers, or numbers on an even or a logarithmic scale; ends included."""

    integer: tuple[int, int] | None = None
    uniform: tuple[float, float] | None = None
    log: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one(self) -> Range:
        given = [r for r in (self.integer, self.uniform, self.log) if r is not None]
        if len(given) != 1:
            raise ValueError("give one of integer, uniform, log, as [least, greatest]")
        least, greatest = given[0]
        if not -math.inf < least < greatest < math.inf:
            raise ValueError(f"a range is [least, greatest], least below greatest; got [{least:g}, {greatest:g}]")
        if self.log is not None and least <= 0:
            raise ValueError(f"log: both ends must be above 0; got [{least:g}, {greatest:g}]")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Least and greatest value."""
        ends = self.integer or self.uniform or self.log
        assert ends is not None
        return ends


class SearchSpec(Spec):
    """Search of one model's parameters; the trial with the least RMSE wins.

    `objective`: stations that score a trial, those of validation or in turn each of so many folds of stations. `epochs`: maximum
    number of epochs of a trial, by default the model's own. `concurrent`: trials at once, by default one a CPU. `space`: by default
    the kind's own; a given one replaces all of it.
    """

    trials: int = Field(default=RECIPE_TRIALS, ge=1, le=100_000)
    search: Literal["random", "ax", "optuna"] = "random"
    scheduler: Literal["asha", "none"] = "asha"
    objective: Literal["validation"] | Annotated[int, Field(ge=2)] = "validation"
    epochs: int | None = Field(default=None, ge=1, le=1_000_000)
    concurrent: int | None = Field(default=None, ge=1, le=10_000)
    seed: Seed | None = None
    space: dict[str, Annotated[tuple[YamlValue, ...], Field(min_length=1)] | Range] | None = Field(
        default=None, min_length=1
    )

    @field_validator("space", mode="before")
    @classmethod
    def _in_order(cls, value: object) -> object:
        if isinstance(value, Mapping):
            for name, choices in value.items():
                if isinstance(choices, set | frozenset):
                    raise ValueError(f"{name} is a set, whose order changes from run to run; give a list")
        return value
