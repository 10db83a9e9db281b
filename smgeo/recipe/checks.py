"""The rules that compare several keys of a recipe.

One function a rule; each yields its problems, with the key, what is wrong and what to do. `RULES` lists all of them, and all are applied, so
that one reading of a recipe reports everything that is wrong with it. A rule passes over what another rule reports.

A searched model is not cross-validated, because its parameters were chosen on stations that a fold would hold out.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping

from pydantic import ValidationError

from smgeo.addresses import find_address_faults
from smgeo.catalog import COORDINATES, TARGET_MEAN
from smgeo.errors import nearest
from smgeo.recipe.fields import RecipeFields, TargetSpec
from smgeo.recipe.models import OF_WINDOWS, ModelSpec, names_within, parts_of
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.rasters import RasterSource, other_units
from smgeo.recipe.spec import describe_errors
from smgeo.recipe.tables import TableSource

# Keys of `prepare` that a model may override.
_OWN_PREPARE = ("fill", "outliers", "scale", "window")


def find_problems(recipe: RecipeFields) -> list[str]:
    """Return every problem of a recipe whose keys are valid one by one; empty if there is none."""
    return [problem for rule in RULES for problem in rule(recipe)]


# ---- parts that may be left out, and what needs them


def _something_to_build(recipe: RecipeFields) -> Iterator[str]:
    if not recipe.stations and recipe.grid is None:
        yield "stations: a recipe names stations, or a grid to build only a grid cube; this one has neither"


def _left_out_parts(recipe: RecipeFields) -> Iterator[str]:
    if recipe.stations and recipe.models:
        return
    lacking = "models" if recipe.stations else "stations"
    needs_models = ("maps", "cross_validation", "search", "importance", "learning_curve", "intervals", "applicability")
    given = {key: bool(getattr(recipe, key)) for key in needs_models}
    given |= {"seeds": bool(recipe.seeds), "repeats": recipe.repeats > 1}
    if not recipe.stations:
        given |= {
            "models": bool(recipe.models),
            "leakage_audit": recipe.leakage_audit is not None,
            "target": recipe.target != TargetSpec(),
            "prepare": recipe.prepare != PrepareSpec(),
        }
    if asked := [key for key, there in given.items() if there]:
        yield f"{asked[0]}: needs {lacking}, which this recipe leaves out; add {lacking} or drop {', '.join(asked)}"


def _days_without_stations(recipe: RecipeFields) -> Iterator[str]:
    if not recipe.stations and recipe.grid_period is None:
        yield "period: without stations the days of the grid cube must be given; add period or grid.period"


def _grid_of_maps(recipe: RecipeFields) -> Iterator[str]:
    if recipe.maps is not None and recipe.grid is None:
        yield "maps: needs a grid; give grid.like, or grid.crs, grid.resolution and grid.bounds"


def _grid_of_report(recipe: RecipeFields) -> Iterator[str]:
    if recipe.report is not None and recipe.grid is None:
        yield "report: shows the grid cube, so grid is needed"


# ---- variables and the sources that give them


def _known_variables(recipe: RecipeFields) -> Iterator[str]:
    catalog = recipe.catalog
    for place, names in (
        ("features", recipe.features),
        ("target.variable", (recipe.target.variable,)),
        ("stations", sorted(recipe.station_variables - {recipe.target.variable})),
        ("rasters", sorted(recipe.raster_variables)),
    ):
        for name in dict.fromkeys(names):
            if name not in catalog:
                yield f"{place}: unknown variable {name!r}; {nearest(name, list(catalog))}; or describe it in variables"


def _features(recipe: RecipeFields) -> Iterator[str]:
    if not recipe.features:
        yield "features: must name at least one variable"
    if twice := _repeated(recipe.features):
        yield f"features: names a variable twice: {', '.join(twice)}"
    if recipe.stations and recipe.target.variable in recipe.features:
        yield f"features: the target {recipe.target.variable!r} is among the features"


def _reserved_name(recipe: RecipeFields) -> Iterator[str]:
    if TARGET_MEAN in recipe.variables:
        yield f"variables: {TARGET_MEAN!r} is a station's mean in the training days; choose another name"


def _features_are_given(recipe: RecipeFields) -> Iterator[str]:
    given = recipe.station_variables | recipe.raster_variables
    missing = _not_given(recipe, given)
    for name, hint in missing.items():
        yield f"features: {name!r}{hint}: no source gives it; add a source or drop the feature"
    if not recipe.builds_grid:
        return
    why = "no raster gives it, so no map can be made" if recipe.maps else "no raster gives it to the grid cube"
    for name, hint in _not_given(recipe, recipe.raster_variables).items():
        if name not in missing:
            yield f"features: {name!r}{hint}: {why}; add a source or drop the feature"
    kinds = {recipe.catalog[f].kind for f in recipe.features if f in recipe.catalog}
    if kinds == {"calendar"}:
        yield "features: a grid cube needs one that a raster gives; these are computed only from the day"


def _bands_of_several_sources(recipe: RecipeFields) -> Iterator[str]:
    for name in _repeated(b for r in recipe.rasters for b in r.bands):
        yield f"rasters: {name!r} is given by two sources; name it in one of them (path of one source may be a list of files)"


def _dates_of_scenes(recipe: RecipeFields) -> Iterator[str]:
    catalog = recipe.catalog
    for source in recipe.rasters:
        if not isinstance(source, RasterSource) or source.dates is not None or source.dates_table is not None:
            continue
        if moving := [b for b in source.bands if b in catalog and catalog[b].kind != "static"]:
            yield (
                f"rasters {source.label!r}: {', '.join(moving)} vary in time, so dates (a pattern such as 's1_%Y%m%d.tif', or one "
                "date) or dates_table is needed"
            )


def _units_of_sources(recipe: RecipeFields) -> Iterator[str]:
    declared: list[tuple[str, Mapping[str, str]]] = [
        (f"stations {s.path!r}", {n: c.units for n in s.columns for c in s.columns_of(n) if c.units})
        for s in recipe.stations
        if isinstance(s, TableSource)
    ]
    declared += [(f"rasters {r.label!r}", getattr(r, "units", {})) for r in recipe.rasters]
    for where, units in declared:
        yield from (f"{where}: {wrong}" for wrong in other_units(units, recipe.catalog))


# ---- addresses


def _secrets_of_addresses(recipe: RecipeFields) -> Iterator[str]:
    for where, text in _texts(recipe.model_dump()):
        yield from (f"{where}: {fault}" for fault in find_address_faults(text))


def _texts(value: object, where: str = "") -> Iterator[tuple[str, str]]:
    """Return every text of nested values with its place, such as `rasters.0.path`."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _texts(part, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _texts(part, f"{where}.{i}")


# ---- names that refer to other keys


def _names_of_models(recipe: RecipeFields) -> Iterator[str]:
    if not recipe.models:  # reported as a part that is left out
        return
    named: list[tuple[str, Iterable[str] | None]] = [
        ("maps", recipe.maps.models if recipe.maps else None),
        ("search", recipe.search),
        ("importance", recipe.importance.models if recipe.importance else None),
        ("learning_curve", recipe.learning_curve.models if recipe.learning_curve else None),
        ("intervals", recipe.intervals.models if recipe.intervals else None),
        ("applicability", recipe.applicability.models if recipe.applicability else None),
        *(("cross_validation", c.models) for c in recipe.cross_validation),
    ]
    for part, names in named:
        for name in names or ():
            if name not in recipe.models:
                yield f"{part}: model {name!r} is not in models; {nearest(name, list(recipe.models))}"


def _groups_of_features(recipe: RecipeFields) -> Iterator[str]:
    groups = recipe.importance.groups if recipe.importance else None
    for label, group in (groups or {}).items():
        yield from _not_in_features(f"importance.groups.{label}", group, recipe.features)


def _variables_of_report(recipe: RecipeFields) -> Iterator[str]:
    report, catalog = recipe.report, recipe.catalog
    if report is None:
        return
    for key, names in (("rgb", report.rgb or ()), ("series", report.series)):
        yield from _not_in_features(f"report.{key}", names, recipe.features)
        for name in names:
            if name in recipe.features and name in catalog and catalog[name].kind not in ("dynamic", "target"):
                yield f"report.{key}: {name!r} does not vary in time and place; name a dynamic variable"


def _variables_of_preparation(recipe: RecipeFields) -> Iterator[str]:
    yield from _prepared_names(recipe, recipe.prepare, "prepare")
    for name, model in recipe.models.items():
        prepare, _ = _prepare_of(recipe, name)
        if prepare is not None:
            own = PrepareSpec().model_copy(update={k: getattr(prepare, k) for k in _OWN_PREPARE if k in model.prepare})
            yield from _prepared_names(recipe, own, f"models.{name}.prepare")


# ---- days


def _period_in_order(recipe: RecipeFields) -> Iterator[str]:
    if recipe.period is not None and recipe.period[0] > recipe.period[1]:
        yield f"period: ends before it begins: {recipe.period[0]} to {recipe.period[1]}"


def _windows_in_period(recipe: RecipeFields) -> Iterator[str]:
    """All days of a window must be days of the cube."""
    if recipe.period is None:
        return
    days = (recipe.period[1] - recipe.period[0]).days + 1
    for name, model in recipe.models.items():
        prepare, _ = _prepare_of(recipe, name)
        windows = any(
            part.get("kind") in OF_WINDOWS and part.get("mode") != "sequence" for part in _parts_of(recipe, name, model)
        )
        if windows and prepare is not None and 0 < days < prepare.window.length:
            yield (
                f"models.{name}: sees windows of {prepare.window.length} days, and period has {days}; give a longer period, or a shorter "
                "prepare.window.length"
            )


def _parts_of(recipe: RecipeFields, name: str, model: ModelSpec) -> list[Mapping[str, object]]:
    """Return kind and parameters of a model, or of each member of an ensemble."""
    params = parts_of(recipe.models, name)
    if model.kind != "ensemble":
        return [{"kind": model.kind, **params}]
    members = params.get("members")
    known = members if isinstance(members, list | tuple) else ()  # the model itself says what is wrong with others
    return [m if isinstance(m, Mapping) else {"kind": m} for m in known if isinstance(m, str | Mapping)]


def _members_prepared_alike(recipe: RecipeFields) -> Iterator[str]:
    """Members of an ensemble learn from the ensemble's rows, so that a preparation of their own would be ignored."""
    for name in recipe.models:
        for member in names_within(recipe.models, name)[1:]:
            if recipe.models[member].prepare:
                yield (
                    f"models.{name}.members: {member} has a prepare of its own, and an ensemble's members are prepared alike; give prepare to "
                    f"{name}, or leave {member} out"
                )


def _layers_of_maps(recipe: RecipeFields) -> Iterator[str]:
    if recipe.maps is None or not recipe.maps.layers:
        return
    if recipe.applicability is None:
        yield f"maps.layers: {', '.join(recipe.maps.layers)} tell of the area of applicability; add applicability: true"
        return
    known = recipe.applicability.models
    if known is not None and (lost := [n for n in recipe.maps.models or recipe.models if n not in known]):
        yield f"maps.layers: applicability.models leaves out {', '.join(lost)}, which maps.models maps; name the same models in both"


def _days_of_maps(recipe: RecipeFields) -> Iterator[str]:
    if recipe.maps is None:
        return
    for where, period in (("period", recipe.period), ("grid.period", recipe.grid.period if recipe.grid else None)):
        if period is not None and (outside := _outside(recipe.maps.dates, period)):
            yield f"maps.dates: outside {where} ({period[0]} to {period[1]}): {outside}"


def _days_of_report(recipe: RecipeFields) -> Iterator[str]:
    period = recipe.grid_period
    if recipe.report is not None and period is not None and (outside := _outside(recipe.report.dates, period)):
        yield f"report.dates: outside the grid cube's days ({period[0]} to {period[1]}): {outside}"


# ---- what is held out: stations, or days


def _splits_of_days(recipe: RecipeFields) -> Iterator[str]:
    periods = recipe.prepare.split.periods
    if periods is None:
        return
    for part in ("intervals", "applicability"):
        if getattr(recipe, part) is not None:
            yield f"{part}: it is learned for new places, and prepare.split.periods splits days; drop one of them"
    if recipe.learning_curve is not None:
        yield "learning_curve: adds training stations, and prepare.split.periods splits days; drop one of them"
    if _chooses_z(recipe):
        yield "prepare.outliers.z: choose scores validation stations, and periods splits days; give a number"
    if problem := recipe.find_search_problem(recipe.search):
        yield problem
    if periods.validation is None and recipe.importance is not None and recipe.importance.part == "validation":
        yield "importance.part: validation needs prepare.split.periods.validation"


def _own_mean(recipe: RecipeFields) -> Iterator[str]:
    if TARGET_MEAN not in recipe.features:
        return
    if recipe.prepare.split.periods is None:
        yield (
            f"features: {TARGET_MEAN!r} is a station's own mean in the training days, which a station that is held out does not "
            "have, so it would leak the answer; use it only if days are held out: give prepare.split.periods, or drop it"
        )
    if unfair := [c.method for c in recipe.cross_validation if c.method not in ("temporal", "random")]:
        yield (
            f"cross_validation: {', '.join(unfair)} holds stations out, and the feature {TARGET_MEAN!r} is their own mean; drop one"
        )
    if recipe.builds_grid or recipe.maps is not None:
        yield f"maps, report: no pixel has the feature {TARGET_MEAN!r}; drop it, or the maps"


def _names_within(recipe: RecipeFields, name: str) -> list[str]:
    """Return the model and the recipe's models in it; the name alone where it is none of the recipe's."""
    return names_within(recipe.models, name) if name in recipe.models else [name]


def _cross_validation(recipe: RecipeFields) -> Iterator[str]:
    folds = recipe.cross_validation
    if len(recipe.features) < 2 and any(c.select_features for c in folds):
        yield "cross_validation: select_features needs two or more features to choose from"
    for fold in folds:
        if searched := [
            n for n in fold.models or recipe.models if not recipe.search.keys().isdisjoint(_names_within(recipe, n))
        ]:
            yield (
                f"cross_validation: {', '.join(searched)} is searched on the split's validation stations, which a fold would "
                "hold out; name the other models in cross_validation.models"
            )
    if folds and _chooses_z(recipe):
        yield (
            "cross_validation: prepare.outliers.z is chosen on the split's validation stations, which a fold would hold "
            "out; give a number in prepare.outliers.z, or drop cross_validation"
        )


def _pixels_of_knndm(recipe: RecipeFields) -> Iterator[str]:
    if not any(c.method == "knndm" for c in recipe.cross_validation):
        return
    if recipe.grid is None:
        yield (
            "cross_validation: knndm holds places out that are as far from training places as the pixels of the grid are; give grid.like, "
            "or grid.crs, grid.resolution and grid.bounds, or use group-k-fold"
        )
    if recipe.groups.buffer_km:
        yield (
            "groups.buffer_km: changes the distances to held-out places, which knndm in cross_validation matches; drop buffer_km, or use "
            "group-k-fold"
        )


def _repeats_of_splits(recipe: RecipeFields) -> Iterator[str]:
    """Refuse what is chosen at the validation stations of one split, because other splits test these."""
    if recipe.repeats > 1 and recipe.prepare.split.periods is not None:
        yield "repeats: draws other stations for each part, and prepare.split.periods splits days; give seeds, and drop repeats"
    if recipe.repeats > 1 and (recipe.search or _chooses_z(recipe)):
        chosen = "search" if recipe.search else "prepare.outliers.z: choose"
        yield (
            f"repeats: {chosen} chooses at the validation stations of one split, which other splits test; give fixed parameters, or drop repeats"
        )
    for name, model in recipe.models.items():
        own = any("seed" in part for part in _parts_of(recipe, name, model))
        if recipe.seeds and (own or "seed" in model.params):
            yield f"seeds: models.{name} has a seed of its own, so that all seeds would be that; drop models.{name}.seed"


def _choice_of_z(recipe: RecipeFields) -> Iterator[str]:
    if _chooses_z(recipe) and not recipe.models:
        yield "prepare.outliers.z: choose needs a split, so models; give a number, such as 4.0"


def _preparation_of_models(recipe: RecipeFields) -> Iterator[str]:
    """A model may have its own preparation but not its own split: scores are compared on the same stations."""
    for name, model in recipe.models.items():
        where = f"models.{name}.prepare"
        for key in model.prepare:
            if key not in _OWN_PREPARE:
                yield f"{where}: unknown key {key!r}; {nearest(key, _OWN_PREPARE)}"
        prepare, problems = _prepare_of(recipe, name)
        yield from (f"{where}.{problem}" for problem in problems)
        outliers = prepare.outliers if prepare is not None and "outliers" in model.prepare else None
        if outliers is not None and outliers.z == "choose":
            yield f"{where}.outliers.z: choose is for prepare.outliers of the recipe; give a number"


RULES: tuple[Callable[[RecipeFields], Iterator[str]], ...] = (
    _something_to_build,
    _left_out_parts,
    _days_without_stations,
    _grid_of_maps,
    _grid_of_report,
    _known_variables,
    _features,
    _reserved_name,
    _features_are_given,
    _bands_of_several_sources,
    _dates_of_scenes,
    _units_of_sources,
    _secrets_of_addresses,
    _names_of_models,
    _groups_of_features,
    _variables_of_report,
    _variables_of_preparation,
    _period_in_order,
    _windows_in_period,
    _members_prepared_alike,
    _layers_of_maps,
    _days_of_maps,
    _days_of_report,
    _splits_of_days,
    _own_mean,
    _cross_validation,
    _pixels_of_knndm,
    _choice_of_z,
    _repeats_of_splits,
    _preparation_of_models,
)


def _repeated(names: Iterable[str]) -> list[str]:
    listed = list(names)
    return [n for n in dict.fromkeys(listed) if listed.count(n) > 1]


def _outside(days: Iterable[dt.date], period: tuple[dt.date, dt.date]) -> str:
    return ", ".join(str(d) for d in days if not period[0] <= d <= period[1])


def _not_in_features(where: str, names: Iterable[str], known: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{where}: {name!r} is not in features; {nearest(name, known)}"


def _not_given(recipe: RecipeFields, given: set[str]) -> dict[str, str]:
    """Features of the catalogue that cannot be made from the given variables, each with a hint at what it is derived from."""
    catalog, there = recipe.catalog, given.union(COORDINATES)
    needs = {n: catalog[n].derived_from for n in recipe.cube_features if n in catalog and n not in given}
    return {
        name: f" (or {' and '.join(parts)}, from which it is derived)" if parts else ""
        for name, parts in needs.items()
        if not parts or not there.issuperset(parts)
    }


def _chooses_z(recipe: RecipeFields) -> bool:
    return recipe.prepare.outliers is not None and recipe.prepare.outliers.z == "choose"


def _prepare_of(recipe: RecipeFields, name: str) -> tuple[PrepareSpec | None, list[str]]:
    """Preparation of a model, or what is wrong with its own keys."""
    own: Mapping[str, object] = recipe.models[name].prepare
    values = {**recipe.prepare.model_dump(), **{k: v for k, v in own.items() if k in _OWN_PREPARE}}
    try:
        return PrepareSpec.model_validate(values), []
    except ValidationError as error:
        return None, describe_errors(error, values)


def _prepared_names(recipe: RecipeFields, prepare: PrepareSpec, where: str) -> Iterator[str]:
    known = recipe.cube_features
    limit = prepare.fill.limit if prepare.fill is not None else None
    yield from _not_in_features(f"{where}.fill.limit", limit if isinstance(limit, dict) else (), known)
    costly = prepare.outliers.variables if prepare.outliers is not None else None
    yield from _not_in_features(f"{where}.outliers.variables", costly or (), (*known, recipe.target.variable))
