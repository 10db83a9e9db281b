"""Specs of the steps between the cube and the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from smgeo.recipe.spec import Day, Seed, Spec

# Days of a window by default, in recipes, `smgeo.Windows` and `smgeo.tune`.
WINDOW_DAYS = 30


# Days of a gap.
_Limit = Annotated[int, Field(ge=0, le=36_525)]


class FillSpec(Spec):
    """Gap filling along time: limit in days, or half the revisit as measured at each place; `causal` uses no later value."""

    limit: Literal["half-revisit"] | _Limit | dict[str, _Limit] = "half-revisit"
    revisit: Literal["measured", "attribute"] = "measured"
    causal: bool = False


class OutlierSpec(Spec):
    """z-score threshold for rows of training stations; a row is dropped if one of `variables` is flagged (see `smgeo.choose_z`)."""

    z: Annotated[float, Field(gt=0)] | Literal["choose"] = 4.0
    per_station: bool = False
    variables: tuple[str, ...] | None = None


class PeriodsSpec(Spec):
    """First and last day of each part of a split in time, one after the other."""

    train: tuple[Day, Day]
    validation: tuple[Day, Day] | None = None
    test: tuple[Day, Day]

    @model_validator(mode="after")
    def _in_order(self) -> PeriodsSpec:
        given = {"train": self.train, "validation": self.validation, "test": self.test}
        if problem := find_period_problem({n: p for n, p in given.items() if p is not None}):
            raise ValueError(problem)
        return self


def find_period_problem(periods: Mapping[str, tuple[object, object]]) -> str:
    """Return why periods are not in the order training, validation (if given), test; empty if they are.

    Days are dates, or text such as `2015-04-01`.
    """
    parts = ("train", "validation", "test")
    if not {"train", "test"} <= set(periods) <= set(parts):
        return (
            f"periods are train, test and optionally validation, [first day, last day] each; got {', '.join(periods)}"
        )
    before, end = "", ""
    for part in [p for p in parts if p in periods]:
        first, last = map(str, periods[part])
        if first > last:
            return f"the {part} period ends before it begins: {first} to {last}"
        if first <= end:
            return (
                f"{part} begins on {first}, and {before} ends on {end}: periods follow one another, training, validation, test, so that "
                "days are estimated from what was learned before them"
            )
        before, end = part, last
    return ""


class SplitSpec(Spec):
    """Split of stations into training, validation and test; or with `periods`, of the days of all stations."""

    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    extremes_to_train: bool = True
    seed: Seed | None = None
    periods: PeriodsSpec | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> SplitSpec:
        # Compared by value, because a resolved recipe contains all keys.
        fields = type(self).model_fields
        given = [n for n in ("fractions", "extremes_to_train", "seed") if getattr(self, n) != fields[n].default]
        if self.periods is not None and given:
            raise ValueError(f"{', '.join(given)} split stations, and periods splits days; give one of them")
        return self

    @field_validator("fractions")
    @classmethod
    def _sum_to_one(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) <= 0 or abs(sum(value) - 1) > 1e-6:
            raise ValueError(f"three positive shares (train, validation, test) that sum to 1; got {value}")
        return value


class WindowSpec(Spec):
    """Days in a window of a recurrent model, and the share of its values that may be missing (0: complete windows only)."""

    length: int = Field(default=WINDOW_DAYS, ge=1, le=3_660)
    missing: float = Field(default=0.5, ge=0, lt=1)


class PrepareSpec(Spec):
    """All steps between the cube and the models."""

    fill: FillSpec | None = FillSpec()
    outliers: OutlierSpec | None = OutlierSpec()
    split: SplitSpec = SplitSpec()
    scale: Literal["minmax", "robust", "standard"] = "minmax"
    window: WindowSpec = WindowSpec()
