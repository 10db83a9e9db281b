"""A recipe's stages, in order. A new stage is one function `(Context, Found) -> Found` and one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smgeo.study.baseline import fit_baseline
from smgeo.study.context import Context, Found
from smgeo.study.cubes import (
    build_grid,
    build_stations,
    describe_grid_cube,
    describe_station_cube,
    hash_inputs,
    keep_recipe,
    simulate_world,
)
from smgeo.study.maps import make_maps
from smgeo.study.models import choose_split, choose_threshold, fit_models, search_models
from smgeo.study.output import count_removed, draw_report, write_results
from smgeo.study.prepared import prepare_stations
from smgeo.study.validation import (
    audit_station_cube,
    cross_validate_models,
    measure_areas,
    measure_coverage,
    measure_importance,
    repeat_models,
    score_models,
    trace_learning_curves,
)

# Each stage reads the context, the recipe's data and what earlier stages wrote; does nothing where the recipe does not ask for it; writes
# (and removes) only its own outputs in the run's folder; and returns what it found with the findings of the stages before it.
Stage = Callable[[Context, Found], Found]

_SOURCES: tuple[Stage, ...] = (keep_recipe, simulate_world, hash_inputs, build_stations)
CUBES: tuple[Stage, ...] = (*_SOURCES, build_grid)
SEARCHES: tuple[Stage, ...] = (*_SOURCES, choose_split, choose_threshold, prepare_stations, search_models)
MODELS: tuple[Stage, ...] = (*SEARCHES, fit_models)
RUN: tuple[Stage, ...] = (
    *_SOURCES,
    audit_station_cube,
    choose_split,
    build_grid,
    choose_threshold,
    prepare_stations,
    search_models,
    fit_models,
    fit_baseline,
    score_models,
    cross_validate_models,
    repeat_models,
    measure_importance,
    trace_learning_curves,
    measure_coverage,
    measure_areas,
    make_maps,
    count_removed,
    describe_station_cube,
    describe_grid_cube,
    write_results,
    draw_report,
)


def run_stages(run: Context, stages: Sequence[Stage]) -> Found:
    """Run stages one after the other and return everything that they found."""
    found = Found(run.recipe.prepare)
    for stage in stages:
        found = stage(run, found)
    return found
