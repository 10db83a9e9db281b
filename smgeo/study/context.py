"""The two records that stages share: the context of a run, which never changes, and what its stages have found so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import xarray as xr

from smgeo.cube.damage import describe_file
from smgeo.cube.ledger import find_damage, is_store
from smgeo.cube.reading import open_cube
from smgeo.cube.schema import observed
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject, explain_full_disk
from smgeo.hpc.machine import LocalMachine
from smgeo.models import make_model
from smgeo.models.base import SoilMoistureModel
from smgeo.models.model_file import read_model
from smgeo.prepare import Split, group_stations
from smgeo.recipe.models import parts_of
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.study import Recipe
from smgeo.study.ledger import Done, Ledger
from smgeo.study.progress import Reporter, Update

Result = TypeVar("Result")


class Asked(Protocol):
    """A part of a recipe that is for some of its models."""

    @property
    def models(self) -> tuple[str, ...] | None:
        """Names of models; None for all."""
        ...


class Seeded(Protocol):
    """A part of a recipe that may have a seed of its own."""

    @property
    def seed(self) -> int | None:
        """The seed; None for the recipe's."""
        ...


@dataclass(frozen=True)
class Found:
    """Findings of the stages so far; a stage returns a copy with its own added.

    Attributes
    ----------
    done : dict of str to Done
        Record of each stage, by its name.
    inputs : dict of str to str
        SHA-256 of each input file, by its path below the data folder.
    prepare : PrepareSpec
        The recipe's preparation, with the threshold of outliers that was chosen.
    split : Split or None
        Stations (or days) of each part.
    searched : dict of str to dict
        Parameters that a search found, by model.
    models : dict of str to dict
        `scores` and `training` of each fitted model.
    baselines : dict of str to dict
        Scores of plain models that nobody tuned, on the same stations.
    failed : dict of str to str
        Reason of each model whose training diverged, and which later stages pass over.
    results : dict
        Entries of `results.json`.
    """

    prepare: PrepareSpec
    done: Mapping[str, Done] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    split: Split | None = None
    searched: Mapping[str, JsonObject] = field(default_factory=dict)
    models: Mapping[str, JsonObject] = field(default_factory=dict)
    baselines: Mapping[str, JsonObject] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    results: JsonObject = field(default_factory=dict)

    def add(self, **entries: object) -> Found:
        """Add entries of `results.json`."""
        return replace(self, results={**self.results, **entries})

    def fail(self, name: str, reason: str) -> Found:
        """Record that a model has failed."""
        return replace(self, failed={**self.failed, name: reason})

    def keys(self, *stages: str) -> dict[str, str]:
        """Return the keys of those stages that this recipe has."""
        return {name: self.done[name].key for name in stages if name in self.done}


@dataclass(frozen=True)
class Context:
    """A run: its recipe, its folder, and what does its work.

    Attributes
    ----------
    recipe : Recipe
    folder, root : Path
        The run's folder, and where relative data paths start.
    ledger : Ledger
        Keys and results of stages that are finished.
    reporter : Reporter
        Where progress goes.
    machine : LocalMachine
        Where cubes are built, searches run and models are trained.
    models : tuple of str
        Models that are searched and trained.
    opened : xarray.Dataset or None
        Stations as the check of the inputs opened them; None if the recipe has none, or simulates them.
    workers : int
        Processes that train each network together.
    """

    recipe: Recipe
    folder: Path
    root: Path
    ledger: Ledger
    reporter: Reporter
    machine: LocalMachine
    models: tuple[str, ...]
    opened: xr.Dataset | None = None
    workers: int = 1

    @property
    def target(self) -> str:
        """Name of the target variable."""
        return self.recipe.target.variable

    @property
    def station_store(self) -> Path:
        """Path of the station cube."""
        return self.folder / "stations.zarr"

    @property
    def groups(self) -> JsonObject:
        """Settings of what stations are held out together, for the keys of stages."""
        return self.recipe.groups.model_dump(mode="json")

    @property
    def grid_store(self) -> Path:
        """Path of the grid cube."""
        return self.folder / "grid.zarr"

    def open_stations(self) -> xr.Dataset:
        """Open the station cube, lazily, with the groups of the recipe."""
        groups = self.recipe.groups
        cube = open_cube(self.station_store)
        return group_stations(cube, groups.by, **groups.model_dump(exclude={"by"}))

    def rows_with_target(self) -> xr.Dataset:
        """Return features and target of the stations that have any, loaded."""
        cube = self.open_stations()
        with_target = cube.isel(station=np.flatnonzero(observed(cube[self.target]).any("time").values))
        return with_target[[*self.recipe.cube_features, self.target]].assign_attrs(cube.attrs).load()

    def do(
        self,
        found: Found,
        name: str,
        work: Callable[[Update], Result],
        inputs: Mapping[str, object],
        outputs: Sequence[Path] = (),
    ) -> tuple[Found, Result]:
        """Do `work` unless it was done with the same inputs; report its progress.

        Parameters
        ----------
        found : Found
        name : str
            Name of the record, unique in a run.
        work : callable
            Called with a function that takes (done, total, note); returns a JSON-able result.
        inputs : mapping
            Everything that the result depends on, JSON-able; keys of earlier stages among it (`Found.keys`).
        outputs : sequence of Path
            Files and folders that it leaves; each must appear complete or not at all.

        Returns
        -------
        (Found, result)
            `found` with the record added, and the result as JSON gives it back.
        """

        def with_progress() -> Result:
            with self.reporter.task(name) as update, explain_full_disk(self.folder):
                return work(update)

        is_whole = {"is_whole": self._is_whole} if self.recipe.verify else {}
        done = self.ledger.run(name, inputs, outputs, with_progress, **is_whole)
        if done.skipped:
            self.reporter.say(f"{name}: unchanged, not run again")
        result: Result = done.result
        return replace(found, done={**found.done, name: done}), result

    def _is_whole(self, output: Path) -> bool:
        """Compare every file of a store or a model with its checksum, and report what differs."""
        try:
            if (output / "model.json").is_file():
                read_model(output)
            damage = find_damage(output) if is_store(output) else {}
        except SmgeoError as error:
            self.reporter.say(f"warning: {error}; it is made again")
            return False
        for files in damage.values():
            for file in files:
                self.reporter.say(f"warning: {output}: {describe_file(output, file)} is damaged; it is made again")
        return not damage

    def seed_of(self, spec: Seeded) -> int:
        """Return the seed that a part of the recipe names, or the recipe's."""
        return self.recipe.seed if spec.seed is None else int(spec.seed)

    def asked(self, found: Found, spec: Asked) -> list[str]:
        """Return the models that a part of the recipe is for, without those that failed."""
        return [name for name in spec.models or self.recipe.models if name not in found.failed]

    def asks(self, spec: Asked | None, name: str) -> bool:
        """Return whether a part of the recipe is given, and is for this model."""
        return spec is not None and name in (spec.models or self.recipe.models)

    def prepare_of(self, found: Found, name: str) -> PrepareSpec:
        """Return how the data of a model are prepared."""
        return self.recipe.prepare_of(name, found.prepare)

    def params_of(self, found: Found, name: str) -> JsonObject:
        """Return a model's parameters, and those of an ensemble's members: the recipe's, and over them what a search found."""
        return {"seed": self.recipe.seed, **parts_of(self.recipe.models, name, found.searched)}

    def new_model(self, found: Found, name: str, **changed: object) -> SoilMoistureModel:
        """Make an unfitted model with these parameters, some of them changed."""
        return make_model(self.recipe.models[name].kind, **{**self.params_of(found, name), **changed})

    def days_seen(self, found: Found, name: str) -> int:
        """Return how many days a model sees: those of its window, or 1."""
        return self.prepare_of(found, name).window.length if self.new_model(found, name).uses_window else 1
