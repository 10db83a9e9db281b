"""A recipe: YAML in, frozen and checked specs out. Opens no data.

Every spec refuses unknown keys, with its place and the nearest known key, so that a spelling mistake cannot
pass for a default. What a recipe says of its sources and its grid is in `smgeo.recipe.stations`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from smgeo.catalog import COORDINATES, FEATURES, STUDY_FEATURES, TARGET_MEAN, Feature, Kind
from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.grid import GridSpec
from smgeo.recipe.models import NAME, NETWORKS, ModelSpec, name_kinds
from smgeo.recipe.output import MapSpec, ReportSpec
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.rasters import AnyRaster, RasterSource
from smgeo.recipe.search import SearchSpec
from smgeo.recipe.spec import Spec, parse_spec
from smgeo.recipe.stations import AnyStations, TableSource
from smgeo.recipe.validation import (
    ApplicabilitySpec,
    CrossValidationSpec,
    ImportanceSpec,
    IntervalsSpec,
    LeakageAuditSpec,
    LearningCurveSpec,
)
from smgeo.recipe.yaml_format import RecipeDumper, RecipeLoader

# What of `prepare` a model may have of its own.
_OWN_PREPARE = ("fill", "outliers", "scale", "window")


class WorldSpec(Spec):
    """The built-in world, simulated into the run's folder; the sources' paths are then relative to it."""

    stations: int = 64
    days: int = 400
    shape: tuple[int, int] = (64, 64)
    seed: int = 0


class TargetSpec(Spec):
    """What is estimated: a variable of the stations at a range of depths (m, positive downwards)."""

    variable: str = "sm"
    depth_m: tuple[float, float] = (0.0, 0.10)

    @field_validator("depth_m")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1]:
            raise ValueError(f"depth_m is (upper, lower) in metres below the surface, 0 <= upper <= lower; got {value}")
        return value


class VariableSpec(Spec):
    """A variable the catalogue lacks."""

    units: str
    long_name: str
    kind: Kind
    source: str = "the recipe"
    valid_range: tuple[float, float] = (-3.0e38, 3.0e38)
    revisit_days: float | None = None
    heavy_tailed: bool = False


class Recipe(Spec):
    """A whole study; see `docs/recipes.md` for every key.

    Without `stations` it builds a grid cube and reports on it; without `models` it builds cubes alone.
    """

    name: str
    seed: int = 0
    world: WorldSpec | None = None
    period: tuple[dt.date, dt.date] | None = None
    target: TargetSpec = TargetSpec()
    stations: tuple[AnyStations, ...] = ()
    rasters: tuple[AnyRaster, ...] = ()
    grid: GridSpec | None = None
    features: tuple[str, ...]
    variables: dict[str, VariableSpec] = Field({})
    prepare: PrepareSpec = PrepareSpec()
    models: dict[str, ModelSpec] = Field({})
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
            raise ValueError(f"must be letters, digits, '_' or '-', a letter first; got {value!r}")
        return value

    @field_validator("features", mode="before")
    @classmethod
    def _study(cls, value: Any) -> Any:
        return STUDY_FEATURES if value == "study" else value

    @field_validator("models", mode="before")
    @classmethod
    def _flat_models(cls, value: Any) -> Any:
        return name_kinds(value)

    @field_validator("cross_validation", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value

    @field_validator("leakage_audit", "importance", "learning_curve", "intervals", "applicability", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @property
    def catalog(self) -> dict[str, Feature]:
        """Catalogue and the recipe's own variables, by name."""
        own = {n: Feature(name=n, **v.model_dump()) for n, v in self.variables.items()}
        known = {**FEATURES, **own}
        target = known.get(self.target.variable, FEATURES["sm"])
        mean = replace(
            target, name=TARGET_MEAN, long_name="mean in the training days", kind="static", revisit_days=None
        )
        return {**known, TARGET_MEAN: mean}

    @property
    def cube_features(self) -> tuple[str, ...]:
        """The features that cubes hold: all but what is learned from the training days."""
        return tuple(f for f in self.features if f != TARGET_MEAN)

    def prepare_of(self, name: str, common: PrepareSpec | None = None) -> PrepareSpec:
        """How the data of one model are prepared: the recipe's `prepare` (or `common`), and over it the model's own keys."""
        common = self.prepare if common is None else common
        own = self.models[name].prepare
        return PrepareSpec.model_validate({**common.model_dump(), **own}) if own else common

    def find_search_problem(self, search: Mapping[str, SearchSpec]) -> str:
        """Why the recipe's split does not suit a search; empty where it does."""
        periods = self.prepare.split.periods
        for name, spec in search.items():
            if periods is not None and (periods.validation is None or spec.objective != "validation"):
                return (
                    f"search.{name}: with prepare.split.periods a trial is scored on the validation days; give periods.validation, and no "
                    "folds in objective"
                )
        return ""

    @property
    def station_variables(self) -> set[str]:
        """Variables given by the station sources."""
        return set().union(*(s.gives(self.target.variable) for s in self.stations))

    @property
    def raster_variables(self) -> set[str]:
        """Variables given by the raster sources."""
        return set().union(*(r.gives(self.target.variable) for r in self.rasters)) if self.rasters else set()

    @property
    def reads_remote(self) -> bool:
        """Whether a raster source is read over the internet."""
        return any(r.kind in ("earthengine", "stac") or "://" in str(getattr(r, "path", "")) for r in self.rasters)

    @property
    def networks(self) -> set[str]:
        """Names of models that are trained in epochs, by several processes if asked."""
        return {name for name, model in self.models.items() if model.kind in NETWORKS}

    @property
    def builds_grid(self) -> bool:
        """Whether the run holds a grid cube: maps and the report need it, and a recipe without models is for its cubes."""
        return self.grid is not None and (self.maps is not None or self.report is not None or not self.models)

    @property
    def grid_period(self) -> tuple[dt.date, dt.date] | None:
        """Days of the grid cube; None where they are the stations'."""
        return self.grid.period if self.grid is not None and self.grid.period is not None else self.period

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        """What may be left out, and what may not be asked for then."""
        if not self.features:
            raise ValueError("features must name at least one variable")
        if not self.stations and self.grid is None:
            raise ValueError(
                "stations: a recipe names stations, or a grid to build a grid cube alone; this one has neither"
            )
        lacking = "stations" if not self.stations else "models" if not self.models else None
        needs_models = ("maps", "cross_validation", "search", "importance", "learning_curve")
        given = {key: bool(getattr(self, key)) for key in needs_models}
        if not self.stations:
            given |= {
                "models": bool(self.models),
                "leakage_audit": self.leakage_audit is not None,
                "target": self.target != TargetSpec(),
                "prepare": self.prepare != PrepareSpec(),
            }
        if asked := [key for key, there in given.items() if there and lacking]:
            raise ValueError(
                f"{asked[0]}: needs {lacking}, which this recipe leaves out; add {lacking} or drop {', '.join(asked)}"
            )
        if not self.stations and self.grid_period is None:
            raise ValueError(
                "period: without stations the days of the grid cube must be given; add period or grid.period"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        catalog = self.catalog
        named = [*self.features, self.target.variable, *self.station_variables, *self.raster_variables]
        for name in named:
            if name not in catalog:
                raise ValueError(
                    f"unknown variable {name!r}; {nearest(name, list(catalog))}; or describe it in variables"
                )
        if len(set(self.features)) < len(self.features):
            raise ValueError("features names a variable twice")
        if TARGET_MEAN in self.variables:
            raise ValueError(
                f"variables: {TARGET_MEAN!r} is a station's mean in the training days; name yours otherwise"
            )
        if len(self.features) < 2 and any(c.select_features for c in self.cross_validation):
            raise ValueError("cross_validation: select_features needs two or more features to choose among")
        if self.stations and self.target.variable in self.features:
            raise ValueError(f"the target {self.target.variable!r} is among the features")
        self._check_given(catalog, self.station_variables | self.raster_variables, "no source gives it")
        if self.maps is not None and self.grid is None:
            raise ValueError("maps needs a grid: give grid.like, or grid.crs, grid.resolution and grid.bounds")
        if self.builds_grid:
            why = "no raster gives it, so no map can be made" if self.maps else "no raster gives it to the grid cube"
            self._check_given(catalog, self.raster_variables, why)
            if not any(catalog[f].kind != "calendar" for f in self.features):
                raise ValueError(
                    "features: a grid cube needs one that a raster gives; these are computed from the day alone"
                )
        for part, names in (
            ("maps", self.maps.models if self.maps else None),
            ("search", tuple(self.search)),
            ("importance", self.importance.models if self.importance else None),
            ("learning_curve", self.learning_curve.models if self.learning_curve else None),
            ("intervals", self.intervals.models if self.intervals else None),
            ("applicability", self.applicability.models if self.applicability else None),
            *(("cross_validation", c.models) for c in self.cross_validation),
        ):
            for name in names or ():
                if name not in self.models:
                    raise ValueError(f"{part}: model {name!r} is not in models; {nearest(name, list(self.models))}")
        for label, group in ((self.importance.groups if self.importance else None) or {}).items():
            for name in group:
                if name not in self.features:
                    raise ValueError(
                        f"importance.groups.{label}: {name!r} is not in features; {nearest(name, self.features)}"
                    )
        for part in ("intervals", "applicability"):
            if getattr(self, part) is not None and self.prepare.split.periods is not None:
                raise ValueError(
                    f"{part}: it is learned for new places, and prepare.split.periods splits days; drop one of them"
                )
        for fold in self.cross_validation:
            searched = [n for n in fold.models or self.models if n in self.search]
            if searched:
                raise ValueError(
                    f"cross_validation: {', '.join(searched)} is searched on the split's validation stations, which a fold would "
                    "hold out; name the other models in cross_validation.models"
                )
        for source in self.rasters:
            if isinstance(source, RasterSource) and source.dates is None and source.dates_table is None:
                moving = [b for b in source.bands if catalog[b].kind != "static"]
                if moving:
                    raise ValueError(
                        f"rasters {source.label!r}: {', '.join(moving)} vary in time, so dates (a pattern such "
                        "as 's1_%Y%m%d.tif', or one date) or dates_table is needed"
                    )
        given = [b for r in self.rasters for b in r.bands]
        for name in given:
            if given.count(name) > 1:
                raise ValueError(f"rasters: {name!r} is given by two sources; name it in one of them")
        self._check_units(catalog)
        if self.period is not None and self.period[0] > self.period[1]:
            raise ValueError(f"period ends before it begins: {self.period[0]} to {self.period[1]}")
        for where, period in (("period", self.period), ("grid.period", self.grid.period if self.grid else None)):
            outside = (
                [str(d) for d in self.maps.dates if not period[0] <= d <= period[1]] if self.maps and period else []
            )
            if outside and period:
                raise ValueError(f"maps.dates outside {where} ({period[0]} to {period[1]}): {', '.join(outside)}")
        return self

    @model_validator(mode="after")
    def _split_fits(self) -> Recipe:
        """What a split in time changes: what a station is known by, and what needs stations that are held out."""
        periods = self.prepare.split.periods
        if TARGET_MEAN in self.features:
            if periods is None:
                raise ValueError(
                    f"features: {TARGET_MEAN!r} is a station's own mean in the training days, which a station that is held out does not "
                    "have, so it would give the answer away; it is fair where days are held out: give prepare.split.periods, or drop it"
                )
            if unfair := [c.method for c in self.cross_validation if c.method not in ("temporal", "random")]:
                raise ValueError(
                    f"cross_validation: {unfair[0]} holds stations out, and the feature {TARGET_MEAN!r} is their own mean; drop one"
                )
            if self.builds_grid or self.maps is not None:
                raise ValueError(f"maps, report: no pixel has the feature {TARGET_MEAN!r}; drop it, or the maps")
        if periods is None:
            return self
        if self.learning_curve is not None:
            raise ValueError("learning_curve adds training stations, and prepare.split.periods splits days; drop one")
        if self.prepare.outliers is not None and self.prepare.outliers.z == "choose":
            raise ValueError(
                "prepare.outliers.z: choose scores validation stations, and periods splits days; give a number"
            )
        if problem := self.find_search_problem(self.search):
            raise ValueError(problem)
        if periods.validation is None and self.importance is not None and self.importance.part == "validation":
            raise ValueError("importance.part: validation needs prepare.split.periods.validation")
        return self

    @model_validator(mode="after")
    def _models_prepare(self) -> Recipe:
        """A model may be prepared otherwise, but not split otherwise: scores are compared on the same stations."""
        for name, model in self.models.items():
            where = f"models.{name}.prepare"
            for key in model.prepare:
                if key not in _OWN_PREPARE:
                    raise ValueError(f"{where}: unknown key {key!r}; {nearest(key, _OWN_PREPARE)}")
            try:
                own = self.prepare_of(name).outliers
            except ValidationError as error:
                first = error.errors()[0]
                raise ValueError(f"{where}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
            if "outliers" in model.prepare and own is not None and own.z == "choose":
                raise ValueError(f"{where}.outliers.z: choose is for prepare.outliers of the recipe; give a number")
        return self

    @model_validator(mode="after")
    def _preparation_fits(self) -> Recipe:
        outliers = self.prepare.outliers
        self._check_prepared_names(self.prepare, "prepare")
        for name in self.models:
            self._check_prepared_names(self.prepare_of(name), f"models.{name}.prepare")
        if outliers is not None and outliers.z == "choose":
            if not self.models:
                raise ValueError("prepare.outliers.z: choose needs a split, so models; give a number, such as 4.0")
            if self.cross_validation:
                raise ValueError(
                    "cross_validation: prepare.outliers.z is chosen on the split's validation stations, which a fold would hold "
                    "out; give a number in prepare.outliers.z, or drop cross_validation"
                )
        return self

    @model_validator(mode="after")
    def _report_fits(self) -> Recipe:
        if self.report is None:
            return self
        if self.grid is None:
            raise ValueError("report: shows the grid cube, so grid is needed")
        for key, names in (("rgb", self.report.rgb or ()), ("series", self.report.series)):
            for name in names:
                if name not in self.features:
                    raise ValueError(f"report.{key}: {name!r} is not in features; {nearest(name, self.features)}")
                if self.catalog[name].kind not in ("dynamic", "target"):
                    raise ValueError(f"report.{key}: {name!r} does not vary in time and place; name a dynamic variable")
        period = self.grid_period
        outside = [str(d) for d in self.report.dates if period and not period[0] <= d <= period[1]]
        if outside and period:
            raise ValueError(
                f"report.dates outside the grid cube's days ({period[0]} to {period[1]}): {', '.join(outside)}"
            )
        return self

    def _check_prepared_names(self, prepare: PrepareSpec, where: str) -> None:
        limit = prepare.fill.limit if prepare.fill is not None and isinstance(prepare.fill.limit, dict) else {}
        costly = (prepare.outliers.variables if prepare.outliers is not None else None) or ()
        for key, names, known in (
            ("fill.limit", limit, self.cube_features),
            ("outliers.variables", costly, (*self.cube_features, self.target.variable)),
        ):
            for name in names:
                if name not in known:
                    raise ValueError(f"{where}.{key}: {name!r} is not in features; {nearest(name, known)}")

    def _check_given(self, catalog: dict[str, Feature], given: set[str], why: str) -> None:
        for name in self.cube_features:
            needs = catalog[name].derived_from
            if name in given or (needs and all(n in given or n in COORDINATES for n in needs)):
                continue
            hint = f" (or {' and '.join(needs)}, from which it is derived)" if needs else ""
            raise ValueError(f"features: {name!r}{hint}: {why}; add a source or drop the feature")

    def _check_units(self, catalog: dict[str, Feature]) -> None:
        declared = [
            (f"stations {s.path!r}", n, c.units)
            for s in self.stations
            if isinstance(s, TableSource)
            for n, c in s.columns.items()
            if c.units
        ]
        declared += [(f"rasters {r.label!r}", n, u) for r in self.rasters for n, u in getattr(r, "units", {}).items()]
        for where, name, units in declared:
            if name in catalog and units != catalog[name].units:
                raise ValueError(
                    f"{where}: {name} is given in {units!r}, the cube holds {catalog[name].units!r}; convert it "
                    "with scale and offset and leave units out, or name the variable otherwise"
                )


def find_recipe(name: str | Path) -> Path:
    """The recipe file: `name` itself, or the recipe of that name that ships with smgeo.

    Raises
    ------
    SmgeoError
        If there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if path.stem in shipped and path.suffix in ("", ".yaml") and path.parent.name in ("", "recipes"):
        return shipped[path.stem]
    raise SmgeoError(
        f"recipe {str(name)!r} not found; give a path, or one that ships with smgeo: {', '.join(sorted(shipped))}"
    )


def shipped_recipes() -> dict[str, Path]:
    """Recipes that come with smgeo, by name (in the wheel as data, in a checkout under `recipes/`)."""
    root = Path(str(resources.files("smgeo")))
    for folder in (root / "recipes", root.parent / "recipes"):
        if folder.is_dir():
            return {p.stem: p for p in sorted(folder.glob("*.yaml"))}
    return {}


def parse_recipe(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Check the values of a recipe; errors as `parse_spec`."""
    return parse_spec(Recipe, values, where)


def read_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file.

    Raises
    ------
    SmgeoError
        If the file is missing, is not YAML, or does not say what a recipe must.
    """
    file = find_recipe(path)
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=RecipeLoader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as error:
        raise SmgeoError(f"{file} is not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SmgeoError(f"{file}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, Mapping):
        raise SmgeoError(f"{file}: a recipe is a YAML mapping (name: ..., stations: ..., features: ..., models: ...)")
    return parse_recipe(values, str(file))


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML; reading it gives an equal recipe."""
    unused = None if recipe.stations else {"target", "prepare"}
    return yaml.dump(
        recipe.model_dump(mode="json", exclude=unused), Dumper=RecipeDumper, sort_keys=False, allow_unicode=True
    )
