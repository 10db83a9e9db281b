"""The keys of a recipe, and what follows from them.

Each key is checked here or in the spec of its block. Rules that compare keys are in `smgeo.recipe.checks`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import Field, StrictBool, field_validator

from smgeo.catalog import FEATURES, STUDY_FEATURES, TARGET_MEAN, Feature, Kind
from smgeo.recipe.grid import GridSpec
from smgeo.recipe.groups import GroupsSpec
from smgeo.recipe.models import NAME, ModelSpec, is_network, name_kinds
from smgeo.recipe.output import MapSpec, ReportSpec
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.rasters import AnyRaster
from smgeo.recipe.search import SearchSpec
from smgeo.recipe.spec import AnyNumber, Day, Seed, Spec
from smgeo.recipe.stations import AnyStations
from smgeo.recipe.validation import (
    ApplicabilitySpec,
    CrossValidationSpec,
    ImportanceSpec,
    IntervalsSpec,
    LeakageAuditSpec,
    LearningCurveSpec,
)

# Pixels of the built-in world along one side.
_Side = Annotated[int, Field(ge=8, le=20_000)]


class WorldSpec(Spec):
    """The built-in world, simulated into the run's folder; the sources' paths are then relative to it."""

    stations: int = Field(64, ge=1, le=100_000)
    days: int = Field(400, ge=1, le=36_525)
    shape: tuple[_Side, _Side] = (64, 64)
    seed: Seed = 0


_Depth = Annotated[float, Field(ge=0, le=100)]


class TargetSpec(Spec):
    """The variable to estimate, at a range of depths (m, positive downwards)."""

    variable: str = "sm"
    depth_m: tuple[_Depth, _Depth] = (0.0, 0.10)

    @field_validator("depth_m")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1]:
            raise ValueError(f"depth_m is (upper, lower) in metres below the surface, 0 <= upper <= lower; got {value}")
        return value


class VariableSpec(Spec):
    """A variable that the catalogue lacks.

    `valid`: least and greatest possible value, in `units`; values outside are missing, and counted. `missing`: numbers that mean
    missing in a file or table, before scale, offset and conversion.
    """

    units: str
    long_name: str
    kind: Kind
    source: str = "the recipe"
    valid: tuple[AnyNumber, AnyNumber] = (-3.0e38, 3.0e38)
    missing: tuple[AnyNumber, ...] = ()
    revisit_days: float | None = Field(None, gt=0, le=36_525)
    heavy_tailed: bool = False

    @field_validator("valid")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError(f"valid is [least, greatest possible value]; got {list(value)}")
        return value

    @field_validator("missing", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, int | float) else value

    def feature(self, name: str) -> Feature:
        """Return the variable as the catalogue describes variables."""
        return Feature(name, valid_range=self.valid, **self.model_dump(exclude={"valid"}))


def _renamed(values: Mapping[str, object]) -> dict[str, object]:
    return {"valid" if key == "valid_range" and "valid" not in values else key: v for key, v in values.items()}


class RecipeFields(Spec):
    """The keys of a recipe, each valid by itself."""

    name: str
    seed: Seed = 0
    verify: bool = False
    world: WorldSpec | None = None
    period: tuple[Day, Day] | None = None
    target: TargetSpec = TargetSpec()
    stations: tuple[AnyStations, ...] = ()
    rasters: tuple[AnyRaster, ...] = ()
    grid: GridSpec | None = None
    features: tuple[str, ...]
    variables: dict[str, VariableSpec] = Field({})
    groups: GroupsSpec = GroupsSpec()
    cluster: str | None = Field(None, min_length=1)
    prepare: PrepareSpec = PrepareSpec()
    models: dict[str, ModelSpec] = Field({})
    baseline: StrictBool = True
    seeds: tuple[Seed, ...] = Field((), max_length=1_000)
    repeats: int = Field(1, ge=1, le=1_000)
    search: dict[str, SearchSpec] = Field({})
    cross_validation: tuple[CrossValidationSpec, ...] = ()
    leakage_audit: LeakageAuditSpec | None = None
    importance: ImportanceSpec | None = None
    learning_curve: LearningCurveSpec | None = None
    intervals: IntervalsSpec | None = None
    applicability: ApplicabilitySpec | None = None
    maps: MapSpec | None = None
    report: ReportSpec | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(
                f"must be letters, digits, '_' or '-', a letter first, at most 100 of them; got {value[:150]!r}"
            )
        return value

    @field_validator("features", mode="before")
    @classmethod
    def _study(cls, value: object) -> object:
        return STUDY_FEATURES if value == "study" else value

    @field_validator("variables", mode="before")
    @classmethod
    def _former_name(cls, value: object) -> object:
        """Read `valid_range`, the former name of a variable's `valid`."""
        if not isinstance(value, Mapping):
            return value
        return {n: _renamed(v) if isinstance(v, Mapping) else v for n, v in value.items()}

    @field_validator("models", mode="before")
    @classmethod
    def _flat_models(cls, value: object) -> object:
        return name_kinds(value)

    @field_validator("groups", mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        return {"by": value} if isinstance(value, str) else value

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"seeds of training, each once; got {list(value)}")
        return value

    @field_validator("cross_validation", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, Mapping) else value

    @field_validator("leakage_audit", "importance", "learning_curve", "intervals", "applicability", mode="before")
    @classmethod
    def _yes_or_no(cls, value: object) -> object:
        return ({} if value else None) if isinstance(value, bool) else value

    @property
    def catalog(self) -> dict[str, Feature]:
        """Catalogue and the recipe's own variables, by name."""
        own = {n: v.feature(n) for n, v in self.variables.items()}
        known = {**FEATURES, **own}
        target = known.get(self.target.variable, FEATURES["sm"])
        mean = replace(
            target, name=TARGET_MEAN, long_name="mean in the training days", kind="static", revisit_days=None
        )
        return {**known, TARGET_MEAN: mean}

    @property
    def cube_features(self) -> tuple[str, ...]:
        """Features that cubes contain: all but the one that is learned from the training days."""
        return tuple(f for f in self.features if f != TARGET_MEAN)

    def prepare_of(self, name: str, common: PrepareSpec | None = None) -> PrepareSpec:
        """Return the preparation of one model: the recipe's `prepare` (or `common`), overridden by the model's own keys."""
        common = self.prepare if common is None else common
        own = self.models[name].prepare
        return PrepareSpec.model_validate({**common.model_dump(), **own}) if own else common

    def find_search_problem(self, search: Mapping[str, SearchSpec]) -> str:
        """Return why the recipe's split does not suit a search; empty if it does."""
        periods = self.prepare.split.periods
        if periods is None:
            return ""
        wrong = [n for n, s in search.items() if periods.validation is None or s.objective != "validation"]
        if not wrong:
            return ""
        return (
            f"search.{', '.join(wrong)}: with prepare.split.periods a trial is scored on the validation days; give "
            "periods.validation, and do not set objective to a number of folds"
        )

    @property
    def station_variables(self) -> set[str]:
        """Variables that the station sources give."""
        return set().union(*(s.gives(self.target.variable) for s in self.stations))

    @property
    def raster_variables(self) -> set[str]:
        """Variables that the raster sources give."""
        return set().union(*(r.bands for r in self.rasters))

    @property
    def reads_remote(self) -> bool:
        """True if a raster source is read over the internet."""
        return any(r.kind in ("earthengine", "stac") or "://" in str(getattr(r, "path", "")) for r in self.rasters)

    @property
    def networks(self) -> set[str]:
        """Names of models that are trained in epochs, by several processes if asked."""
        return {name for name, model in self.models.items() if is_network(model.kind)}

    @property
    def builds_grid(self) -> bool:
        """True if the run has a grid cube: maps, the report and kNNDM need it, and a recipe without models only builds cubes."""
        needed = (
            self.maps is not None or self.report is not None or any(c.method == "knndm" for c in self.cross_validation)
        )
        return self.grid is not None and (needed or not self.models)

    @property
    def grid_period(self) -> tuple[dt.date, dt.date] | None:
        """Days of the grid cube; None if they are the stations'."""
        return self.grid.period if self.grid is not None and self.grid.period is not None else self.period
