"""Stages that say what the models are worth: leakage, cross-validation, importance, learning curves, intervals, applicability."""

from __future__ import annotations

from functools import partial

import xarray as xr

from smgeo.cube.reading import open_cube
from smgeo.errors import DivergedError
from smgeo.evaluation.cross_validation import Learner, cross_validate, select_in_folds
from smgeo.evaluation.importance import learning_curve, permutation_importance
from smgeo.evaluation.leakage import audit_leakage
from smgeo.evaluation.repeats import repeat_all, summarise_repeats
from smgeo.evaluation.uncertainty import interval_coverage, score_applicability
from smgeo.files import JsonObject
from smgeo.models import load_model
from smgeo.prepare import split_stations
from smgeo.recipe.validation import CrossValidationSpec, LearningCurveSpec
from smgeo.report.results import describe_baseline, describe_coverage, describe_models, records_of
from smgeo.study.baseline import baseline_store
from smgeo.study.context import Context, Found
from smgeo.study.prepared import prepared_stations
from smgeo.study.progress import Update

# Methods of cross-validation whose folds depend on the grid cube.
_GRID_OF = {"knndm": ("grid",)}


def audit_station_cube(run: Context, found: Found) -> Found:
    """Measure how much of a score is leakage, on the station cube as it was built."""
    spec = run.recipe.leakage_audit
    if spec is None:
        return found
    seed = run.seed_of(spec)

    def work(progress: Update) -> JsonObject:
        features = run.recipe.cube_features
        audit = audit_leakage(
            run.open_stations(),
            features,
            run.target,
            folds=spec.folds,
            gap_days=spec.gap_days,
            seed=seed,
            progress=progress,
        )
        return audit.to_dict()

    inputs = {"spec": spec.model_dump(mode="json"), "seed": seed, "groups": run.groups, **found.keys("stations")}
    found, audit = run.do(found, "leakage audit", work, inputs)
    return found.add(leakage_audit=audit)


def score_models(run: Context, found: Found) -> Found:
    """Add the models' scores, their intervals, tests between models, and scores by groups of stations."""
    if not found.models:
        return found
    scores = {name: about["scores"] for name, about in found.models.items()}
    cluster = run.recipe.cluster
    found = found.add(models=scores, **describe_models(run.folder, scores, run.open_stations(), cluster))
    if not found.baselines:
        return found
    (plain,) = found.baselines
    store = baseline_store(run.folder)
    return found.add(**describe_baseline(run.folder, scores, plain, found.baselines[plain], store, cluster))


def cross_validate_models(run: Context, found: Found) -> Found:
    """Cross-validate the models, in each way that the recipe asks for."""
    out: dict[str, JsonObject] = {}
    for number, spec in enumerate(run.recipe.cross_validation):
        selected = None
        if spec.select_features:
            found, selected = _select_in_folds(run, found, spec, number)
        for name in run.asked(found, spec):
            entry = name if selected is None else f"{name}_selected"
            entry = entry if entry not in out else f"{entry}_{spec.method}"
            entry = entry if entry not in out else f"{entry}_{number}"
            try:
                found, out[entry] = _cross_validate(run, found, name, spec, number, selected)
            except DivergedError as error:
                run.reporter.say(f"cross-validation of {name} failed: {error}")
                found = found.fail(f"cross_validation {entry}", str(error))
    return found.add(cross_validation=out) if out else found


def _prepared(run: Context, found: Found, name: str) -> xr.Dataset:
    """Open the stations as they were prepared for a model."""
    assert found.split is not None
    return prepared_stations(run, found, run.prepare_of(found, name), found.split).stations()


def _pixels(run: Context, spec: CrossValidationSpec) -> xr.Dataset | None:
    """Open the grid cube, whose pixels are the prediction points of kNNDM."""
    return open_cube(run.grid_store) if spec.method == "knndm" else None


def _select_in_folds(
    run: Context, found: Found, spec: CrossValidationSpec, number: int
) -> tuple[Found, list[list[str]]]:
    recipe = run.recipe

    def work(progress: Update) -> list[list[str]]:
        rows, pixels = run.rows_with_target(), _pixels(run, spec)
        return select_in_folds(
            rows, spec, recipe.features, run.target, prediction=pixels, seed=recipe.seed, progress=progress
        )

    asked = spec.model_dump(mode="json", exclude={"models"})
    inputs = {"spec": asked, "seed": recipe.seed, "features": recipe.features, "groups": run.groups}
    inputs |= found.keys("stations", *_GRID_OF.get(spec.method, ()))
    return run.do(found, f"features of folds {number}", work, inputs)


def _cross_validate(
    run: Context,
    found: Found,
    name: str,
    spec: CrossValidationSpec,
    number: int,
    selected: list[list[str]] | None,
) -> tuple[Found, JsonObject]:
    recipe = run.recipe
    learner = Learner.of(lambda: run.new_model(found, name), run.days_seen(found, name))

    def work(progress: Update) -> JsonObject:
        scores = cross_validate(
            learner,
            run.rows_with_target(),
            spec,
            recipe.prepare_of(name),
            recipe.features,
            run.target,
            selected=selected,
            cluster=recipe.cluster,
            prediction=_pixels(run, spec),
            seed=recipe.seed,
            progress=progress,
        )
        return {**scores}

    inputs = {
        "model": {**recipe.models[name].model_dump(mode="json"), "params": run.params_of(found, name)},
        "seed": recipe.seed,
        "groups": run.groups,
        "cluster": recipe.cluster,
        "spec": spec.model_dump(mode="json", exclude={"models"}),
        "selected": selected,
        "prepare": recipe.prepare_of(name).model_dump(mode="json"),
        **found.keys("stations", *_GRID_OF.get(spec.method, ())),
    }
    return run.do(found, f"cross-validation {number} {spec.method} {name}", work, inputs)


def measure_importance(run: Context, found: Found) -> Found:
    """Measure how much each feature of the models matters."""
    spec, split = run.recipe.importance, found.split
    if spec is None or split is None:
        return found
    seed, tables = run.seed_of(spec), {}

    def work(name: str, progress: Update) -> JsonObject:
        table = permutation_importance(
            load_model(run.folder / "models" / name),
            _prepared(run, found, name),
            split,
            spec.part,
            groups=spec.groups,
            repeats=spec.repeats,
            seed=seed,
            cluster=run.recipe.cluster,
            progress=progress,
        )
        return {"rows": records_of(table, "feature")}

    asked = {"spec": spec.model_dump(mode="json", exclude={"models"}), "seed": seed, "cluster": run.recipe.cluster}
    for name in run.asked(found, spec):
        inputs = {**asked, **found.keys(f"model {name}")}
        found, about = run.do(found, f"importance {name}", partial(work, name), inputs)
        tables[name] = about["rows"]
    return found.add(importance=tables)


def trace_learning_curves(run: Context, found: Found) -> Found:
    """Train the models on shares of the training stations."""
    spec = run.recipe.learning_curve
    if spec is None or found.split is None:
        return found
    tables = {}
    for name in run.asked(found, spec):
        inputs = {
            "kind": run.recipe.models[name].kind,
            "params": run.params_of(found, name),
            "spec": spec.model_dump(mode="json", exclude={"models"}),
            "seed": run.seed_of(spec),
            "cluster": run.recipe.cluster,
            "prepare": run.prepare_of(found, name).model_dump(mode="json"),
            **found.keys("stations", "split"),
        }
        found, about = run.do(found, f"learning curve {name}", partial(_trace, run, found, name, spec), inputs)
        tables[name] = about["rows"]
    return found.add(learning_curve=tables)


def _trace(run: Context, found: Found, name: str, spec: LearningCurveSpec, progress: Update) -> JsonObject:
    assert found.split is not None
    table = learning_curve(
        lambda: run.new_model(found, name),
        run.rows_with_target(),
        found.split,
        run.prepare_of(found, name),
        run.recipe.features,
        run.target,
        length=run.days_seen(found, name),
        fractions=spec.fractions,
        seed=run.seed_of(spec),
        cluster=run.recipe.cluster,
        progress=progress,
    )
    return {"rows": records_of(table, "fraction")}


def repeat_models(run: Context, found: Found) -> Found:
    """Train the models on other splits and with other seeds, as the recipe asks for."""
    recipe, split = run.recipe, found.split
    seeds = recipe.seeds or (recipe.seed,)
    if split is None or not found.models or recipe.repeats * len(seeds) == 1:
        return found
    spec = recipe.prepare.split
    first = run.seed_of(spec)

    def work(name: str, progress: Update) -> JsonObject:
        run.reporter.say(f"repeats of {name}: {recipe.repeats * len(seeds)} trainings")
        rows = run.rows_with_target()
        others = range(first + 1, first + recipe.repeats)
        splits = {first: split}
        splits |= {s: split_stations(rows, spec.fractions, spec.extremes_to_train, s) for s in others}
        table = repeat_all(
            lambda seed: Learner.of(lambda: run.new_model(found, name, seed=seed), run.days_seen(found, name)),
            rows,
            splits,
            seeds,
            run.prepare_of(found, name),
            recipe.features,
            run.target,
            progress,
        )
        return {"runs": records_of(table), "scores": {**summarise_repeats(table)}}

    tables = {}
    for name in [n for n in recipe.models if n not in found.failed]:
        inputs = {
            "kind": recipe.models[name].kind,
            "params": run.params_of(found, name),
            "prepare": run.prepare_of(found, name).model_dump(mode="json"),
            "features": recipe.features,
            "seeds": seeds,
            "repeats": recipe.repeats,
            **found.keys("stations", "split"),
        }
        found, tables[name] = run.do(found, f"repeats {name}", partial(work, name), inputs)
    return found.add(repeats=tables)


def measure_coverage(run: Context, found: Found) -> Found:
    """Count how often the models' intervals contain the observations at the test stations."""
    spec, split = run.recipe.intervals, found.split
    if spec is None or split is None:
        return found

    def work(name: str, progress: Update) -> JsonObject:
        model, cube = load_model(run.folder / "models" / name), run.open_stations()
        assert model.calibration_ is not None
        table = interval_coverage(model, _prepared(run, found, name), split, level=spec.level)
        return {
            "level": spec.level,
            "calibrated_on": {"stations": model.calibration_.stations, "rows": model.calibration_.rows},
            **describe_coverage(table, cube, run.recipe.cluster),
        }

    tables = {}
    for name in run.asked(found, spec):
        inputs = {"level": spec.level, "cluster": run.recipe.cluster, **found.keys(f"model {name}")}
        found, tables[name] = run.do(found, f"intervals {name}", partial(work, name), inputs)
    return found.add(prediction_intervals=tables)


def measure_areas(run: Context, found: Found) -> Found:
    """Score the models inside and outside their area of applicability, at the test stations."""
    spec, split = run.recipe.applicability, found.split
    if spec is None or split is None:
        return found

    def work(name: str, progress: Update) -> JsonObject:
        model = load_model(run.folder / "models" / name)
        area = model.applicability_
        assert area is not None
        return {
            "threshold": area.threshold,
            "folds": area.folds,
            "reference_rows": len(area.reference),
            "weights": dict(zip(area.features, map(float, area.weights), strict=True)),
            **score_applicability(model, _prepared(run, found, name), split),
        }

    tables = {}
    for name in run.asked(found, spec):
        found, tables[name] = run.do(found, f"applicability {name}", partial(work, name), found.keys(f"model {name}"))
    return found.add(applicability=tables)
