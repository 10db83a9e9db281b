"""Stages of a run's models: the split, the threshold of outliers, searches, and fitting with its scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import xarray as xr

from smgeo.cube.schema import select_stations
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.evaluation.parts import evaluate
from smgeo.evaluation.uncertainty import calibrate, find_applicability
from smgeo.files import digest
from smgeo.hpc.machine import LocalMachine
from smgeo.models import make_model
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.data_parallel import fit_parallel
from smgeo.prepare import (
    Prepared,
    Split,
    Windows,
    choose_outliers,
    learnable,
    part_rows,
    split_periods,
    split_stations,
    training_windows,
)
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.search import SearchSpec
from smgeo.recipe.study import Recipe
from smgeo.study.cubes import CubeStages
from smgeo.study.progress import Reporter
from smgeo.tuning.search import choose_stations, describe_search, search_windows
from smgeo.tuning.trials import OtherSearchError


def _set_aside(folder: Path) -> Path:
    """The folder under the first free name `NAME.1`, `NAME.2`, ...: hours of trials are not thrown away."""
    number = next(n for n in count(1) if not folder.with_name(f"{folder.name}.{n}").exists())
    return folder.rename(folder.with_name(f"{folder.name}.{number}"))


class ModelStages(CubeStages):
    """The stages between a run's station cube and its fitted models."""

    def __init__(
        self, recipe: Recipe, folder: Path, root: Path, reporter: Reporter, machine: LocalMachine | None = None
    ) -> None:
        super().__init__(recipe, folder, root, reporter, machine)
        self.prepare = recipe.prepare  # a threshold of outliers that is to be chosen becomes a number
        self.found: dict[str, dict[str, Any]] = {}
        self.workers = 1  # processes that train a network together

    def choose_split(self, cube: xr.Dataset) -> Split:
        """The stations of each part."""
        spec = self.recipe.prepare.split
        seed = self.seed_of(spec)
        features = [*self.recipe.cube_features, self.target]

        def work(progress: Callable[[int, int], None]) -> dict[str, Any]:
            if (days := spec.periods) is not None:
                return asdict(split_periods(cube[[self.target]], days.train, days.test, days.validation))
            return asdict(split_stations(cube[features], spec.fractions, spec.extremes_to_train, seed))

        inputs = {"spec": spec.model_dump(mode="json"), "seed": seed, **self.key("stations")}
        return Split.from_dict(self.stage("split", inputs, [], work))

    def choose_threshold(self, cube: xr.Dataset, split: Split) -> dict[str, Any] | None:
        """The threshold of outliers, where the recipe leaves it to be chosen; `self.prepare` then holds the number."""
        spec, seed = self.prepare.outliers, self.recipe.seed
        if spec is None or spec.z != "choose":
            return None

        def work(progress: Callable[[int, int], None]) -> dict[str, Any]:
            features = self.recipe.cube_features
            return choose_outliers(cube, self.prepare, features, self.target, split, seed, progress).to_dict()

        inputs = {"prepare": self.prepare.model_dump(mode="json"), "seed": seed, **self.key("stations", "split")}
        chosen: dict[str, Any] = self.stage("outliers", inputs, [], work)
        self.prepare = self.prepare.model_copy(update={"outliers": spec.model_copy(update={"z": chosen["z"]})})
        return chosen

    def prepare_of(self, name: str) -> PrepareSpec:
        """How the data of a model are prepared."""
        return self.recipe.prepare_of(name, self.prepare)

    def days_seen(self, name: str) -> int:
        """Days that a model sees: its window, or the day itself."""
        return self.prepare_of(name).window.length if self.new_model(name).uses_window else 1

    def new_model(self, name: str) -> Any:
        """An unfitted model with the recipe's parameters, and what a search found."""
        return make_model(self.recipe.models[name].kind, **self.params_of(name))

    def params_of(self, name: str) -> dict[str, Any]:
        """A model's parameters: the recipe's, and over them what a search found."""
        return {"seed": self.recipe.seed, **self.recipe.models[name].params, **self.found.get(name, {})}

    def seed_of(self, spec: Any) -> int:
        """The seed that a part of the recipe names, or the recipe's."""
        return self.recipe.seed if spec.seed is None else int(spec.seed)

    def _windows(self, name: str, cube: xr.Dataset, split: Split) -> tuple[Prepared, Windows, Windows | None]:
        """The prepared training part, and training and validation windows of a model; no validation where the split has none."""
        spec = self.prepare_of(name)
        held = part_rows(cube, split, "validation", self.target) if split.validation else None
        length, mode = self.days_seen(name), self.new_model(name).window_mode
        features = self.recipe.features
        prepared, train, validation = training_windows(
            learnable(cube, split), held, spec, features, self.target, length=length, mode=mode
        )
        made = {"training": train} if validation is None else {"training": train, "validation": validation}
        for part, windows in made.items():
            if not len(windows):
                raise SmgeoError(
                    f"models.{name}: no row of the {part} part has enough values for a window of {train.length} days with a "
                    f"share of at most {spec.window.missing:g} missing; allow more in prepare.window.missing, or fill longer gaps"
                )
        return prepared, train, validation

    def _search_pairs(
        self, name: str, cube: xr.Dataset, split: Split, spec: SearchSpec
    ) -> list[tuple[Windows, Windows]]:
        """Training and scoring windows of a search; each fold is prepared anew, so that what it holds out shapes nothing."""
        splits = [split]
        if isinstance(spec.objective, int):
            folds = choose_stations(cube, split, spec.objective, self.target, spec.seed or 0)
            splits = [Split(tuple(train), tuple(held), ()) for train, held in folds]
        pairs = []
        for part in splits:
            _, train, held = self._windows(name, cube, part)
            assert held is not None
            pairs.append((train, held))
        return pairs

    def search_model(self, name: str, cube: xr.Dataset, split: Split) -> dict[str, Any]:
        """Trials of one model; the best one's parameters are used, and the epochs that trials had."""
        kind, params, folder = self.recipe.models[name].kind, self.params_of(name), self.folder / "search" / name
        spec = self.recipe.search[name]
        spec = spec.model_copy(update={"seed": self.seed_of(spec)})

        def work(progress: Callable[..., None]) -> dict[str, Any]:
            pairs = self._search_pairs(name, cube, split, spec)
            run_search = partial(search_windows, kind, pairs, spec, folder, params=params, progress=progress)
            self.machine.start_searches()
            try:
                return describe_search(run_search().table)
            except OtherSearchError as error:  # of other data or another recipe
                kept = _set_aside(folder)
                warnings.warn(
                    SmgeoWarning(
                        f"{folder} holds another search: {error.changes}; it is kept in {kept}, and a new search begins"
                    )
                )
                return describe_search(run_search().table)

        inputs = {
            "kind": kind,
            "params": params,
            "spec": spec.model_dump(mode="json", exclude={"concurrent"}),
            "prepare": self.prepare_of(name).model_dump(mode="json"),
            **self.key("stations", "split"),
        }
        found: dict[str, Any] = self.stage(f"search {name}", inputs, [folder], work)
        epochs = {} if spec.epochs is None else {"epochs": spec.epochs}
        self.found[name] = {**epochs, **next(t["params"] for t in found["trials"] if t["trial"] == found["best"])}
        return found

    def _fit_by_workers(
        self,
        model: Any,
        train: Windows,
        validation: Windows | None,
        kept: Checkpoint,
        progress: Callable[[int, int], None],
    ) -> Any:
        return fit_parallel(
            model,
            train,
            validation=validation,
            workers=self.workers,
            start=partial(self.machine.start, count=self.workers),
            folder=self.folder.absolute() / ".stages" / "training",
            checkpoint=kept,
            network=self.machine.network,
            progress=progress,
            say=self.reporter.say,
        )

    def fit_model(self, name: str, cube: xr.Dataset, split: Split) -> dict[str, Any]:
        """Train, save and score one model: its `scores`, and of its `training` rows, days of a window and stations left out."""
        folder = self.folder / "models" / name
        predictions = self.folder / "predictions" / f"{name}.zarr"

        def work(progress: Callable[[int, int], None]) -> dict[str, Any]:
            model = self.new_model(name)
            prepared, train, validation = self._windows(name, cube, split)
            kept = Checkpoint(self.folder.absolute() / "checkpoints" / f"{name}.npz", key=digest(inputs))
            if self.workers > 1:
                model = self._fit_by_workers(model, train, validation, kept, progress)
            else:
                model.fit(
                    train,
                    validation=validation,
                    checkpoint=kept,
                    progress=lambda done, total, *note: progress(done, total),
                )
            used = dict.fromkeys(s for stations in split.parts().values() for s in stations)
            stations = select_stations(cube, used)
            self._learn_uncertainty(name, model, stations, split)
            model.save(folder)
            kept.remove()
            evaluation = evaluate(model, stations, split)
            write_cube(evaluation.predictions, predictions)
            return {
                "scores": evaluation.scores,
                # A share of missing values lets windows of a station without one feature in.
                "training": {
                    "rows": train.count,
                    "window_days": train.length,
                    **({"workers": self.workers} if self.workers > 1 else {}),
                    "outlier_rows": prepared.outlier_rows,
                    "left_out": [] if train.missing else train.left_out,
                },
            }

        inputs = {
            "kind": self.recipe.models[name].kind,
            "params": self.params_of(name),
            "prepare": self.prepare_of(name).model_dump(mode="json"),
            **self.key("stations", "split"),
            **self._uncertainty_inputs(name),
        }
        return self.stage(f"model {name}", inputs, [folder, predictions], work)

    def asks(self, spec: Any, name: str) -> bool:
        """Whether a part of the recipe is there, and asks for this model."""
        return spec is not None and name in (spec.models or self.recipe.models)

    def _uncertainty_inputs(self, name: str) -> dict[str, Any]:
        """What a model is to know of its errors and its area; nothing where nothing is asked for, as before there was any."""
        area = self.recipe.applicability
        out: dict[str, Any] = {"calibrated": True} if self.asks(self.recipe.intervals, name) else {}
        if area is not None and self.asks(area, name):
            out["applicability"] = {**area.model_dump(mode="json", exclude={"models"}), "seed": self.seed_of(area)}
        return out

    def _learn_uncertainty(self, name: str, model: Any, cube: xr.Dataset, split: Split) -> None:
        if self.asks(self.recipe.intervals, name):
            assert self.recipe.intervals is not None
            calibrate(model, cube, split).check_level(self.recipe.intervals.level)
        area = self.recipe.applicability
        if area is not None and self.asks(area, name):
            weights = dict.fromkeys(self.recipe.features, 1.0) if area.weights == "equal" else None
            find_applicability(model, cube, split, weights, folds=area.folds, rows=area.rows, seed=self.seed_of(area))
