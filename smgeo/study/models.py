"""Stages from the station cube to fitted models: the split, the threshold of outliers, searches, training with scores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import xarray as xr

from smgeo.cube.schema import select_stations
from smgeo.cube.writing import write_cube
from smgeo.errors import DivergedError, SmgeoError, SmgeoWarning
from smgeo.evaluation.clusters import clusters_of
from smgeo.evaluation.cross_validation import Learner
from smgeo.evaluation.held_out import estimate_held_out
from smgeo.evaluation.parts import evaluate
from smgeo.evaluation.uncertainty import calibrate, cross_calibrate, find_applicability
from smgeo.files import JsonObject, digest
from smgeo.models.calibration import check_stations
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.data_parallel import fit_parallel
from smgeo.models.protocol import Model
from smgeo.prepare import Split, Windows, choose_outliers, split_periods, split_stations, windows_of_parts
from smgeo.prepare.places import group_numbers
from smgeo.recipe.models import STACK_FOLDS, is_stacked, names_within
from smgeo.recipe.search import SearchSpec
from smgeo.study.context import Context, Found
from smgeo.study.prepared import PreparedStations, prepared_stations, write_prepared
from smgeo.study.progress import Update
from smgeo.tuning.plan import check_search
from smgeo.tuning.search import Search, choose_stations, describe_search, search_windows
from smgeo.tuning.trials import OtherSearchError


def choose_split(run: Context, found: Found) -> Found:
    """Choose the stations (or the days) of each part."""
    if not run.recipe.models:
        return found
    spec = run.recipe.prepare.split
    clusters_of(run.open_stations(), run.recipe.cluster)  # says what is wrong with it before any model is trained
    seed = run.seed_of(spec)
    inputs = {"spec": spec.model_dump(mode="json"), "seed": seed, "groups": run.groups, **found.keys("stations")}
    found, parts = run.do(found, "split", partial(_choose_split, run), inputs)
    split = Split.from_dict(parts)
    stacked = [name for name in run.models if is_stacked(run.recipe.models[name])]
    if stacked and (learned := _count_groups(run, split.train)) < STACK_FOLDS:
        raise SmgeoError(
            f"models.{stacked[0]}.combine: stacked leaves out a fifth of the groups of training stations, and the split has {learned}; use "
            "mean, or more training stations"
        )
    intervals = run.recipe.intervals
    if intervals is not None and not split.periods:
        ids = split.validation if intervals.method == "split" else (*split.train, *split.validation)
        groups = _count_groups(run, ids)
        check_stations(intervals.level, groups, "of such groups of stations the split has")
        if intervals.nearest is not None and intervals.nearest > groups:
            raise SmgeoError(f"intervals.nearest: {intervals.nearest} of {groups} groups of stations; use fewer")
        if intervals.method == "folds" and (learned := _count_groups(run, split.train)) < intervals.folds:
            raise SmgeoError(
                f"intervals.folds: {intervals.folds} folds of {learned} groups of training stations; use fewer"
            )
    return replace(found, split=split)


def _count_groups(run: Context, stations: Sequence[str]) -> int:
    """Return the number of groups that the stations are of."""
    return int(np.unique(group_numbers(select_stations(run.open_stations(), stations))).size)


def _choose_split(run: Context, progress: Update) -> JsonObject:
    spec, cube = run.recipe.prepare.split, run.open_stations()
    if (days := spec.periods) is not None:
        return asdict(split_periods(cube[[run.target]], days.train, days.test, days.validation))
    known = cube[[*run.recipe.cube_features, run.target]]
    return asdict(split_stations(known, spec.fractions, spec.extremes_to_train, run.seed_of(spec)))


def choose_threshold(run: Context, found: Found) -> Found:
    """Choose the threshold of outliers, if the recipe leaves it open; `found.prepare` then has the number."""
    spec, split, seed = found.prepare.outliers, found.split, run.recipe.seed
    if spec is None or spec.z != "choose" or split is None:
        return found

    def work(progress: Update) -> JsonObject:
        features = run.recipe.cube_features
        chosen = choose_outliers(run.open_stations(), found.prepare, features, run.target, split, seed, progress)
        return chosen.to_dict()

    inputs = {"prepare": found.prepare.model_dump(mode="json"), "seed": seed, **found.keys("stations", "split")}
    found, chosen = run.do(found, "outliers", work, inputs)
    outliers = spec.model_copy(update={"z": chosen["z"]})
    return replace(found, prepare=found.prepare.model_copy(update={"outliers": outliers})).add(threshold=chosen)


def search_models(run: Context, found: Found) -> Found:
    """Search the parameters of each model that the recipe asks for; training uses those of the best trial, with the epochs of trials."""
    tables: dict[str, JsonObject] = {}
    asked = {part for name in run.models for part in names_within(run.recipe.models, name)}
    for name in [n for n in run.recipe.search if n in asked]:
        found, tables[name] = _search(run, found, name)
        best = tables[name]["best"]
        fixed = check_search(run.recipe.models[name].kind, run.recipe.search[name], run.params_of(found, name)).fixed
        kept = {key: fixed[key] for key in ("epochs", "patience") if key in fixed}
        params = {**kept, **next(t["params"] for t in tables[name]["trials"] if t["trial"] == best)}
        found = replace(found, searched={**found.searched, name: params})
    return found.add(search=tables) if tables else found


def _search(run: Context, found: Found, name: str) -> tuple[Found, JsonObject]:
    spec = run.recipe.search[name]
    spec = spec.model_copy(update={"seed": run.seed_of(spec)})
    folder = run.folder / "search" / name
    inputs = {
        "kind": run.recipe.models[name].kind,
        "params": run.params_of(found, name),
        "spec": spec.model_dump(mode="json", exclude={"concurrent"}),
        "prepare": run.prepare_of(found, name).model_dump(mode="json"),
        **found.keys("stations", "split"),
    }
    work = partial(_run_search, run, found, name, spec, folder)
    return run.do(found, f"search {name}", work, inputs, [folder])


def _run_search(run: Context, found: Found, name: str, spec: SearchSpec, folder: Path, progress: Update) -> JsonObject:
    kind, params = run.recipe.models[name].kind, run.params_of(found, name)
    pairs = _search_pairs(run, found, name, spec)

    def search() -> Search:
        return search_windows(kind, pairs, spec, folder, params=params, progress=progress)

    run.machine.start_searches()
    try:
        return describe_search(search().table)
    except OtherSearchError as error:  # of other data or another recipe
        kept = _set_aside(folder)
        warnings.warn(
            SmgeoWarning(
                f"{folder} contains another search: {error.changes}; it is kept in {kept}, and a new search begins"
            )
        )
        return describe_search(search().table)


def _set_aside(folder: Path) -> Path:
    """Rename the folder to the first free `NAME.1`, `NAME.2`, ...: hours of trials are not thrown away."""
    number = next(n for n in count(1) if not folder.with_name(f"{folder.name}.{n}").exists())
    return folder.rename(folder.with_name(f"{folder.name}.{number}"))


def _search_pairs(run: Context, found: Found, name: str, spec: SearchSpec) -> list[tuple[Windows, Windows]]:
    """Return training and scoring windows; each fold is prepared by itself, so that what it holds out shapes nothing."""
    assert found.split is not None
    splits = [found.split]
    if isinstance(spec.objective, int):
        cube = run.open_stations()
        folds = choose_stations(cube, found.split, spec.objective, run.target, spec.seed or 0)
        splits = [Split(tuple(train), tuple(held), ()) for train, held in folds]
    pairs = []
    for split in splits:
        _, train, held = _windows(run, found, name, split)
        assert held is not None
        pairs.append((train, held))
    return pairs


def _windows(run: Context, found: Found, name: str, split: Split) -> tuple[PreparedStations, Windows, Windows | None]:
    """Return the prepared stations, and training and validation windows of a model; no validation if the split has none."""
    spec, model = run.prepare_of(found, name), run.new_model(found, name)
    stores = prepared_stations(run, found, spec, split)
    if not (stores.folder / "stations.zarr").exists():  # of a fold; those of the run's split have a stage of their own
        write_prepared(run, spec, split, stores)
    train, validation = windows_of_parts(
        stores.train(),
        stores.validation(split, run.target),
        length=run.days_seen(found, name),
        missing=spec.window.missing,
        mode=model.window_mode,
    )
    made = {"training": train} if validation is None else {"training": train, "validation": validation}
    for part, windows in made.items():
        if not len(windows):
            raise SmgeoError(
                f"models.{name}: no row of the {part} part has enough values for a window of {train.length} days with a "
                f"share of at most {spec.window.missing:g} missing; allow more in prepare.window.missing, or fill longer gaps"
            )
    return stores, train, validation


def fit_models(run: Context, found: Found) -> Found:
    """Train, save and score each model; one whose training diverges does not keep the others from theirs."""
    for name in run.models:
        try:
            found = _fit_model(run, found, name)
        except DivergedError as error:
            run.reporter.say(f"model {name} failed: {error}")
            found = found.fail(name, str(error))
    return found


def _fit_model(run: Context, found: Found, name: str) -> Found:
    inputs = {
        "kind": run.recipe.models[name].kind,
        "params": run.params_of(found, name),
        "prepare": run.prepare_of(found, name).model_dump(mode="json"),
        **found.keys("stations", "split"),
        **_uncertainty_inputs(run, name),
    }
    outputs = [run.folder / "models" / name, run.folder / "predictions" / f"{name}.zarr"]
    work = partial(_fit, run, found, name, inputs)
    found, about = run.do(found, f"model {name}", work, inputs, outputs)
    return replace(found, models={**found.models, name: about})


def _fit(run: Context, found: Found, name: str, inputs: Mapping[str, object], progress: Update) -> JsonObject:
    """Return the model's `scores`, and of its `training` rows, days of a window and stations left out."""
    assert found.split is not None
    split = found.split
    workers = run.workers if name in run.recipe.networks else 1
    prepared, train, validation = _windows(run, found, name, split)
    kept = Checkpoint(run.folder.absolute() / "checkpoints" / f"{name}.npz", key=digest(inputs))
    model = run.new_model(found, name)
    if workers > 1:
        model = fit_parallel(
            model,
            train,
            validation=validation,
            workers=workers,
            start=partial(run.machine.start, count=workers),
            folder=run.folder.absolute() / ".stages" / "training",
            checkpoint=kept,
            network=run.machine.network,
            progress=progress,
            say=run.reporter.say,
        )
    else:
        model.fit(
            train,
            validation=validation,
            checkpoint=kept,
            progress=lambda done, total, *note: progress(done, total),
        )
    stations = prepared.stations()
    _learn_uncertainty(run, found, name, model, stations, progress)
    model.save(run.folder / "models" / name)
    kept.remove()
    evaluation = evaluate(model, stations, split)
    write_cube(evaluation.predictions, run.folder / "predictions" / f"{name}.zarr")
    return {
        "scores": evaluation.scores,
        # A share of missing values lets windows of a station without one feature in.
        "training": {
            "rows": train.count,
            "window_days": train.length,
            **({"workers": workers} if workers > 1 else {}),
            "outlier_rows": prepared.train().outlier_rows,
            "left_out": [] if train.missing else train.left_out,
        },
    }


def _uncertainty_inputs(run: Context, name: str) -> JsonObject:
    """Return what a model has to know of its errors and its area; nothing if nothing is asked for."""
    area = run.recipe.applicability
    out: JsonObject = {}
    intervals = run.recipe.intervals
    if intervals is not None and run.asks(intervals, name):
        out["calibrated"] = {"method": intervals.method}
        if intervals.method == "folds":
            out["calibrated"] |= {"folds": intervals.folds, "seed": run.seed_of(intervals)}
            out["calibrated"] |= {"part": "train"} if _chose_at_validation(run, name) else {}
        if intervals.nearest is not None:
            out["calibrated"]["nearest"] = intervals.nearest
    if area is not None and run.asks(area, name):
        # The version grows with what is learned of an area, so that an older run learns it again.
        out["applicability"] = {
            "version": 2,
            **area.model_dump(mode="json", exclude={"models"}),
            "seed": run.seed_of(area),
        }
    return out


def _chose_at_validation(run: Context, name: str) -> bool:
    """Return True if parameters of a model or a member, or its threshold, are the best at the validation stations: errors there are too small."""
    searches = [run.recipe.search.get(part) for part in names_within(run.recipe.models, name)]
    outliers = run.recipe.prepare_of(name).outliers
    return any(search is not None and search.objective == "validation" for search in searches) or (
        outliers is not None and outliers.z == "choose"
    )


def _learn_uncertainty(
    run: Context, found: Found, name: str, model: Model, prepared: xr.Dataset, progress: Update
) -> None:
    intervals, area, split, held = run.recipe.intervals, run.recipe.applicability, found.split, None
    assert split is not None
    if intervals is not None and intervals.method == "folds" and run.asks(intervals, name):
        run.reporter.say(f"intervals of {name}: {intervals.folds} more trainings, each without a part of the stations")
        held = estimate_held_out(
            model,
            Learner.of(lambda: run.new_model(found, name), run.days_seen(found, name)),
            run.rows_with_target(),
            split,
            run.prepare_of(found, name),
            folds=intervals.folds,
            seed=run.seed_of(intervals),
            progress=progress,
        )
        held = held.of_folds() if _chose_at_validation(run, name) else held
    if area is not None and run.asks(area, name):
        weights = dict.fromkeys(run.recipe.features, 1.0) if area.weights == "equal" else None
        seed = run.seed_of(area)
        find_applicability(model, prepared, split, weights, folds=area.folds, rows=area.rows, seed=seed, held=held)
    if intervals is not None and run.asks(intervals, name):
        if held is None:
            if _chose_at_validation(run, name):
                warnings.warn(
                    SmgeoWarning(
                        f"intervals of {name} are learned at the validation stations, on which its parameters or its threshold of outliers "
                        "were chosen: they are too narrow. Use intervals: {method: folds}"
                    ),
                    stacklevel=2,
                )
            made = calibrate(model, prepared, split, nearest=intervals.nearest)
        else:
            made = cross_calibrate(model, held, prepared, split, nearest=intervals.nearest)
        made.check_level(intervals.level)
