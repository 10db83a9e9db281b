"""Specs of cross-validation, the leakage audit, importance, intervals, applicability and learning curves."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypedDict

from pydantic import Field, model_validator

from smgeo.recipe.spec import Seed, Spec

# Coverage of prediction intervals, by default.
INTERVAL_LEVEL = 0.9
# Models that tell how wide prediction intervals have to be, by default.
INTERVAL_FOLDS = 5


class FoldOptions(TypedDict, total=False):
    """Keyword arguments of `smgeo.cv_folds` that only some methods take."""

    block_km: float
    gap_days: int
    forward_only: bool
    space: str


class CrossValidationSpec(Spec):
    """Cross-validation; the method decides what is held out together, see `smgeo.cv_folds`.

    `space` belongs to `knndm`, whose prediction points are the pixels of the recipe's grid.
    `select_features`: features are chosen again on each fold's training stations, see `smgeo.select_features`.
    """

    method: Literal[
        "leave-location-out",
        "leave-location-and-time-out",
        "group-k-fold",
        "spatial-blocks",
        "knndm",
        "temporal",
        "random",
    ] = "leave-location-out"
    folds: int | None = Field(default=None, ge=2)
    seed: Seed | None = None
    models: tuple[str, ...] | None = None
    block_km: float | None = Field(default=None, gt=0, le=20_000)
    gap_days: int | None = Field(default=None, ge=0, le=36_525)
    forward_only: bool = False
    space: Literal["geographic", "feature"] | None = None
    select_features: bool = False

    @model_validator(mode="after")
    def _options_of_the_method(self) -> CrossValidationSpec:
        periods = ("temporal", "leave-location-and-time-out")
        needs = {"block_km": ("spatial-blocks",), "gap_days": periods, "forward_only": periods, "space": ("knndm",)}
        given = {key: getattr(self, key) not in (None, False) for key in needs}
        for key, there in given.items():
            if there and self.method not in needs[key]:
                raise ValueError(f"{key} belongs to method {' and '.join(needs[key])}; this one is {self.method}")
        if self.select_features and self.method in ("random", "temporal"):
            raise ValueError(
                f"select_features holds locations out, and method {self.method} trains on all of them; drop it"
            )
        return self

    @property
    def options(self) -> FoldOptions:
        """The options of the method that are given."""
        options: FoldOptions = {}
        if self.block_km is not None:
            options["block_km"] = self.block_km
        if self.gap_days is not None:
            options["gap_days"] = self.gap_days
        if self.forward_only:
            options["forward_only"] = True
        if self.space is not None:
            options["space"] = self.space
        return options


class LeakageAuditSpec(Spec):
    """Scores of a quick model on random rows, other periods and other locations, see `smgeo.audit_leakage`."""

    folds: int = Field(default=5, ge=2)
    seed: Seed | None = None
    gap_days: int = Field(default=30, ge=0, le=36_525)


class ImportanceSpec(Spec):
    """Importance of each feature, or group of features, see `smgeo.evaluation.importance.permutation_importance`."""

    models: tuple[str, ...] | None = None
    part: Literal["train", "validation", "test"] = "test"
    groups: dict[str, tuple[str, ...]] | None = None
    repeats: int = Field(default=5, ge=1, le=10_000)
    seed: Seed | None = None


class IntervalsSpec(Spec):
    """Prediction intervals; `level` is their nominal coverage.

    `method: folds` learns them at all training and validation stations, from as many more trainings of each model as it has `folds`, see
    `smgeo.evaluation.uncertainty.cross_calibrate`; `split` at the validation stations alone, without a training, see `smgeo.calibrate`.
    `nearest`: the width at a row is that of so many groups of stations, the nearest in feature space; there is no guarantee for it.
    """

    models: tuple[str, ...] | None = None
    level: float = Field(default=INTERVAL_LEVEL, gt=0, lt=1)
    method: Literal["folds", "split"] = "folds"
    folds: int = Field(default=INTERVAL_FOLDS, ge=2, le=1_000)
    nearest: int | None = Field(default=None, ge=1, le=10_000)
    seed: Seed | None = None

    @model_validator(mode="after")
    def _enough_groups(self) -> IntervalsSpec:
        need = math.ceil(self.level / (1 - self.level) - 1e-9)
        if self.nearest is not None and self.nearest < need:
            raise ValueError(f"intervals of {100 * self.level:g} % need nearest: {need} or more")
        return self


class ApplicabilitySpec(Spec):
    """Area of applicability: pixels that are like the training data, see `smgeo.find_applicability`.

    `weights` of the features: by permutation importance at the validation stations, or equal.
    """

    models: tuple[str, ...] | None = None
    weights: Literal["importance", "equal"] = "importance"
    folds: int = Field(default=10, ge=2)
    rows: int = Field(default=20_000, ge=100, le=10_000_000)
    seed: Seed | None = None


class LearningCurveSpec(Spec):
    """Scores with increasing shares of the training stations, see `smgeo.evaluation.importance.learning_curve`."""

    models: tuple[str, ...] | None = None
    fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(default=(0.1, 0.2, 0.4, 0.7, 1.0), min_length=1)
    seed: Seed | None = None
