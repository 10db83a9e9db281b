"""A recipe's stages in order, each skipped when its inputs have not changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from smgeo.cube.reading import open_cube
from smgeo.errors import SmgeoError, nearest
from smgeo.files import write_json
from smgeo.hpc.machine import Workers, find_machine
from smgeo.maps import list_maps, open_map, predict_map, write_cogs, write_stac
from smgeo.models import load_model
from smgeo.prepare import OutlierRows, clean_cube, learnable
from smgeo.recipe.models import NETWORKS
from smgeo.recipe.search import SearchSpec
from smgeo.recipe.spec import parse_spec
from smgeo.recipe.study import Recipe, dump_recipe, parse_recipe, read_recipe
from smgeo.report import write_slider
from smgeo.report.page import write_report
from smgeo.report.results import (
    broken_stations,
    count_rows,
    count_used,
    describe_map,
    describe_models,
    describe_outliers,
    describe_provenance,
    describe_split,
)
from smgeo.study.inputs import check_inputs
from smgeo.study.progress import Reporter
from smgeo.study.validation import EvaluationStages

# Of a map with more days, so many are shown in its page, evenly spread.
_SLIDER_DAYS = 60


@dataclass(frozen=True)
class Run:
    """What a finished run left behind.

    Attributes
    ----------
    folder : Path
        The run's folder.
    results : dict
        What is in `results.json`.
    """

    folder: Path
    results: dict[str, Any]

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.folder / "report.html"

    @property
    def maps(self) -> list[Path]:
        """The GeoTIFFs."""
        models = self.results.get("maps", {})
        return [self.folder / "maps" / m for m in list_maps(self.folder / "maps") if Path(m).parts[0] in models]


def run(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | Path | None = None,
    data: str | Path | None = None,
    *,
    cluster: str | Path | None = None,
    workers: int | None = None,
    partition: str | None = None,
    account: str | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Run a whole study.

    Parameters
    ----------
    recipe : path, mapping or Recipe
        A YAML file, the name of a recipe that ships with smgeo, or its content.
    out : str or Path, optional
        The run's folder; `runs/NAME` by default. The same command again continues an interrupted run and skips
        what has not changed.
    data : str or Path, optional
        Where relative data paths start; `$SMGEO_DATA`, else the current folder, by default. A recipe with a
        `world` reads the world it simulates instead.
    cluster : str or Path, optional
        A site profile, by name or path: cubes are computed by Dask workers on SLURM. On a login node these are jobs of their own;
        inside a job they are processes on its nodes, and searches run on all of them too. All else is done by this process.
    workers, partition, account : optional
        Of the cluster: jobs at most (2 by default), or inside a job workers in all; and what the jobs ask for.
    reporter : Reporter, optional
        Where progress goes; the terminal by default.

    Returns
    -------
    Run

    Raises
    ------
    SmgeoError
        If the recipe or the data are not as they must be; before anything is written where that can be known.
    """
    study = _open_study(_read(recipe), out, data, reporter)
    with study.at_work(cluster, workers, partition, account):
        return study.run()


def build_cubes(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | Path | None = None,
    data: str | Path | None = None,
    *,
    cluster: str | Path | None = None,
    workers: int | None = None,
    partition: str | None = None,
    account: str | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Build a study's cubes alone, in the folder in which `run` finds them done; the run's folder. Arguments as for `run`."""
    study = _open_study(_read(recipe), out, data, reporter)
    with study.at_work(cluster, workers, partition, account):
        study.cubes()
    return study.folder


def tune_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | Path | None = None,
    data: str | Path | None = None,
    *,
    models: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    cluster: str | Path | None = None,
    reporter: Reporter | None = None,
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Run a study's stages up to the search, in the folder in which `run` finds them done.

    Parameters
    ----------
    recipe, out, data, cluster, reporter
        As for `run`.
    models : sequence of str
        Models to search; by default those of the recipe's `search`, or where it has none, every network.
    options : mapping, optional
        Keys of `SearchSpec` that are another than in the recipe.

    Returns
    -------
    (Path, dict)
        The run's folder, with the tables `search/NAME/trials.parquet`; and of each model its entry under `search` in `results.json`.

    Raises
    ------
    SmgeoError
        As `run`, or if there is nothing to search.
    """
    checked = _read(recipe)
    study = _open_study(_with_search(checked, models, options or {}), out, data, reporter)
    with study.at_work(cluster):
        return study.folder, study.search()


def train_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | Path | None = None,
    data: str | Path | None = None,
    *,
    models: Sequence[str] = (),
    workers: int = 1,
    cluster: str | Path | None = None,
    reporter: Reporter | None = None,
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Run a study's stages up to its fitted models, in the folder in which `run` finds them done.

    Parameters
    ----------
    recipe, out, data, cluster, reporter
        As for `run`.
    models : sequence of str
        Models to train; by default all of the recipe.
    workers : int
        Processes that train each network together, on this machine or, with `cluster` inside a job, on its nodes. Each takes its
        share of every batch, so the weights are those of one process but for the order in which numbers are added (and for dropout,
        which each process draws by itself). Other models are trained by this process.

    Returns
    -------
    (Path, dict)
        The run's folder, with the models in `models/NAME`; and the scores of each model on the parts of the split.

    Raises
    ------
    SmgeoError
        As `run`, or if there is nothing to train.
    """
    checked = _read(recipe)
    for name in models:
        if name not in checked.models:
            raise SmgeoError(f"--model {name!r} is not in the recipe's models; {nearest(name, list(checked.models))}")
    if not checked.models:
        raise SmgeoError(
            f"recipe {checked.name!r} has no models to train; add some, or build its cubes alone (`smgeo cube`)"
        )
    if workers < 1:
        raise SmgeoError(f"--workers must be 1 or more; got {workers}")
    study = _open_study(checked, out, data, reporter)
    with study.at_work(cluster):
        return study.folder, study.train(models or list(checked.models), workers)


def _read(recipe: str | Path | Mapping[str, Any] | Recipe) -> Recipe:
    if isinstance(recipe, Mapping):
        return parse_recipe(recipe)
    return recipe if isinstance(recipe, Recipe) else read_recipe(recipe)


def _with_search(recipe: Recipe, models: Sequence[str], options: Mapping[str, Any]) -> Recipe:
    """The recipe with a search of these models, and the options over its own."""
    names = list(models) or list(recipe.search) or [n for n in recipe.models if n in recipe.networks]
    if not names:
        raise SmgeoError(
            f"recipe {recipe.name!r} has no search and no network ({', '.join(NETWORKS)}); name a model with --model"
        )
    for name in names:
        if name not in recipe.models:
            raise SmgeoError(f"--model {name!r} is not in the recipe's models; {nearest(name, list(recipe.models))}")
    given = {n: recipe.search[n].model_dump(exclude_none=True) if n in recipe.search else {} for n in names}
    specs = {n: parse_spec(SearchSpec, {**given[n], **options}, f"search.{n}") for n in names}
    if problem := recipe.find_search_problem(specs):
        raise SmgeoError(problem)
    return recipe.model_copy(update={"search": specs})


def _open_study(checked: Recipe, out: str | Path | None, data: str | Path | None, reporter: Reporter | None) -> _Study:
    """A study whose folder and inputs are checked."""
    folder = Path(out) if out is not None else Path("runs") / checked.name
    root = folder / "world" if checked.world else Path(data or os.environ.get("SMGEO_DATA") or ".")
    if folder.exists() and not folder.is_dir():
        raise SmgeoError(f"--out {folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ".stages").is_dir():
        raise SmgeoError(f"--out {folder} is not empty and is not the folder of a run; give a new or an empty folder")
    if not checked.world and not root.is_dir():
        raise SmgeoError(f"data folder {root} not found; give the folder that holds the recipe's data with --data")
    study = _Study(checked, folder, root, reporter or Reporter())
    check_inputs(checked, root, folder)
    return study


class _Study(EvaluationStages):
    """One run: the recipe, its folder, and all its stages."""

    @contextmanager
    def at_work(
        self,
        cluster: str | Path | None = None,
        workers: int | None = None,
        partition: str | None = None,
        account: str | None = None,
    ) -> Iterator[None]:
        """Nobody else is at work in the folder, and the cluster's workers are there when they are needed."""
        where = self.folder / ".stages" / "cluster"
        self.machine = find_machine(Workers(cluster, workers, partition, account), where, self.reporter.say)
        with self.ledger.lock(), closing(self.machine):
            yield

    def _begin(self) -> None:
        (self.folder / "recipe.yaml").write_text(dump_recipe(self.recipe), encoding="utf-8")
        if self.recipe.world is not None:
            self.simulate()
        self.inputs = self.hash_inputs()

    def cubes(self) -> None:
        """The stages up to the cubes alone."""
        self._begin()
        if self.recipe.stations:
            self.build_stations()
        if self.recipe.builds_grid:
            self.build_grid()

    def search(self) -> dict[str, dict[str, Any]]:
        """The stages up to the search alone."""
        self._begin()
        self.build_stations()
        cube = open_cube(self.folder / "stations.zarr")
        split = self.choose_split(cube)
        self.choose_threshold(cube, split)
        return {name: self.search_model(name, cube, split) for name in self.recipe.search}

    def train(self, names: Sequence[str], workers: int) -> dict[str, dict[str, Any]]:
        """The stages up to these models alone; networks by so many processes."""
        self._begin()
        self.build_stations()
        cube = open_cube(self.folder / "stations.zarr")
        split = self.choose_split(cube)
        self.choose_threshold(cube, split)
        found = {}
        for name in names:
            if name in self.recipe.search:
                self.search_model(name, cube, split)
            self.workers = workers if name in self.recipe.networks else 1
            found[name] = self.fit_model(name, cube, split)["scores"]
        return found

    def run(self) -> Run:
        recipe = self.recipe
        self._begin()
        results: dict[str, Any] = {"name": recipe.name, "models": {}}
        if recipe.stations:
            results |= self._run_stations()
        else:
            self.build_grid()
        if recipe.report is not None or (recipe.builds_grid and not recipe.models):
            results["grid"] = self.describe_grid()
        write_json(self.folder / "results.json", results)
        write_json(
            self.folder / "provenance.json",
            describe_provenance(recipe.name, recipe.seed, {**self.inputs, **self.hash_outline()}, self.ledger.done),
        )
        key = {"results": results, "keys": {n: d["key"] for n, d in self.ledger.done.items()}}
        self.stage("report", key, [self.folder / "report.html"], partial(write_report, self.folder))
        return Run(self.folder, results)

    def _run_stations(self) -> dict[str, Any]:
        """From the stations to the maps."""
        recipe = self.recipe
        counts = self.build_stations()
        cube = open_cube(self.folder / "stations.zarr")
        audited = self._audit_leakage(cube)
        if not recipe.models:
            return {**self._run_station_cube(cube, counts), **audited}
        split = self.choose_split(cube)
        if recipe.builds_grid:
            self.build_grid()
        chosen = self.choose_threshold(cube, split)
        searches = {name: self.search_model(name, cube, split) for name in recipe.search}
        models = {name: self.fit_model(name, cube, split) for name in recipe.models}
        results: dict[str, Any] = {
            "target": self._describe_target(),
            "models": {name: m["scores"] for name, m in models.items()},
        }
        results |= describe_models(self.folder, {name: m["scores"] for name, m in models.items()}, cube)
        if recipe.cross_validation:
            results["cross_validation"] = self._cross_validate(cube)
        results |= audited | self._diagnose(cube, split) | self._uncertainty(cube, split)
        if recipe.maps is not None:
            results["maps"] = self._maps()
        if searches:
            results["search"] = searches
        results["split"] = describe_split(split)
        kept = len({s for part in split.parts().values() for s in part})
        lost = clean_cube(learnable(cube, split), self.prepare, recipe.cube_features, self.target, split.train)[1]
        used = count_used(cube, split, self.target) if split.periods else None
        results["rows"] = count_rows(counts, kept, lost.rows, models, used)
        results |= describe_outliers(self.prepare.outliers, lost, chosen)
        when = "training day" if split.periods else "day"
        without = dict.fromkeys(split.left_out, f"no {when} with a value of {self.target}")
        results["left_out"] = {**json.loads(cube.attrs.get("left_out", "{}")), **broken_stations(cube), **without}
        results["training"] = {name: m["training"] for name, m in models.items()}
        return results

    def _run_station_cube(self, cube: xr.Dataset, counts: dict[str, Any]) -> dict[str, Any]:
        """Without models: the grid cube where there is a grid, and what preparation would remove of the station cube."""
        recipe = self.recipe
        if recipe.builds_grid:
            self.build_grid()
        kept = [str(s) for s in cube["station"].values[cube[self.target].notnull().any("time").values]]
        lost = clean_cube(cube, recipe.prepare, recipe.cube_features, self.target, kept)[1] if kept else OutlierRows()
        return {
            "target": self._describe_target(),
            "stations": kept,
            "rows": count_rows(counts, len(kept), lost.rows, {}),
            **describe_outliers(recipe.prepare.outliers, lost),
            "left_out": {**json.loads(cube.attrs.get("left_out", "{}")), **broken_stations(cube)},
        }

    def _describe_target(self) -> dict[str, Any]:
        target = self.recipe.target
        units = self.recipe.catalog[target.variable].units
        return {"variable": target.variable, "units": units, "depth_m": list(target.depth_m)}

    def _maps(self) -> dict[str, Any]:
        maps = self.recipe.maps
        assert maps is not None
        return {name: self._map(name) for name in maps.models or self.recipe.models}

    def _map(self, name: str) -> dict[str, Any]:
        maps = self.recipe.maps
        assert maps is not None
        folder, store, page = (self.folder / "maps" / f"{name}{kind}" for kind in ("", ".zarr", ".html"))

        def work(progress: Callable[[int, int], None]) -> dict[str, Any]:
            shutil.rmtree(folder, ignore_errors=True)
            grid = open_cube(self.folder / "grid.zarr")
            region = self.root / maps.region if isinstance(maps.region, str) else maps.region
            asked = self.recipe.intervals
            with self.machine.cubes():
                predict_map(
                    load_model(self.folder / "models" / name),
                    grid,
                    store,
                    list(maps.dates),
                    region=region,
                    intervals=None if asked is None or not self.asks(asked, name) else asked.level,
                    progress=progress,
                )
            write_cogs(store, folder)
            write_stac(folder, f"{self.recipe.name}: soil moisture by {name}")
            made = open_map(store)
            shown = np.unique(np.linspace(0, made.sizes["time"] - 1, _SLIDER_DAYS).round().astype(int))
            stations = open_cube(self.folder / "stations.zarr")
            write_slider(made.isel(time=shown), page, stations, title=f"{self.recipe.name}, {name}", target=self.target)
            truth = self.root / "truth.zarr" if self.recipe.world is not None else None
            return describe_map(store, self.target, truth)

        inputs = {"maps": maps.model_dump(mode="json", exclude={"models"}), **self.key("grid", f"model {name}")}
        return self.stage(f"map {name}", inputs, [folder, store, page], work)
