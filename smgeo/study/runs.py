"""Runs of a recipe: whole, or up to its cubes, its searches or its models."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smgeo.bounds import check_arguments, check_given
from smgeo.errors import DivergedError, SmgeoError, nearest
from smgeo.hpc.machine import Workers, find_machine
from smgeo.maps import list_maps
from smgeo.recipe.models import NETWORKS
from smgeo.recipe.search import SearchSpec
from smgeo.recipe.spec import parse_spec
from smgeo.recipe.study import Recipe, parse_recipe, read_recipe
from smgeo.report.results import find_versions
from smgeo.study.context import Context, Found
from smgeo.study.inputs import check_inputs
from smgeo.study.ledger import Ledger
from smgeo.study.progress import Reporter
from smgeo.study.stages import CUBES, MODELS, RUN, SEARCHES, run_stages


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    folder : Path
        The run's folder.
    results : dict
        Content of `results.json`.
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
    with _at_work(_read(recipe), out, data, reporter, Workers(cluster, workers, partition, account)) as run:
        found = run_stages(run, RUN)
    _refuse_failed(found, run.folder / "report.html")
    return Run(run.folder, found.results)


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
    with _at_work(_read(recipe), out, data, reporter, Workers(cluster, workers, partition, account)) as run:
        run_stages(run, CUBES)
    return run.folder


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
    asked = _with_search(checked, models, options or {})
    with _at_work(asked, out, data, reporter, Workers(cluster)) as run:
        return run.folder, run_stages(run, SEARCHES).results["search"]


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
    check_arguments("train", workers=workers)
    with _at_work(checked, out, data, reporter, Workers(cluster), models=models, processes=workers) as run:
        found = run_stages(run, MODELS)
    _refuse_failed(found, run.folder / "models")
    return run.folder, {name: about["scores"] for name, about in found.models.items()}


def _refuse_failed(found: Found, rest: Path) -> None:
    """Raise an error at the end of a run in which a model failed, so that no script takes it for complete."""
    if found.failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.failed.items())
        raise DivergedError(
            f"{len(found.failed)} of the models failed ({reasons}); the others are complete, see {rest}"
        )


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


@contextmanager
def _at_work(
    recipe: Recipe,
    out: str | Path | None,
    data: str | Path | None,
    reporter: Reporter | None,
    workers: Workers,
    *,
    models: Sequence[str] = (),
    processes: int = 1,
) -> Iterator[Context]:
    """Check a run's folder and inputs, keep others out of it, and have the cluster's workers there when they are needed."""
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    root = folder / "world" if recipe.world else Path(data or os.environ.get("SMGEO_DATA") or ".")
    if folder.exists() and not folder.is_dir():
        raise SmgeoError(f"--out {folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ".stages").is_dir():
        raise SmgeoError(f"--out {folder} is not empty and is not the folder of a run; give a new or an empty folder")
    if not recipe.world and not root.is_dir():
        raise SmgeoError(f"data folder {root} not found; give the folder that contains the recipe's data with --data")
    reporter, ledger = reporter or Reporter(), Ledger(folder, find_versions())
    opened = check_inputs(recipe, root, folder)
    check_given("cluster", workers=workers.count)
    machine = find_machine(workers, folder / ".stages" / "cluster", reporter.say)
    with ledger.lock(), closing(machine):
        yield Context(
            recipe, folder, root, ledger, reporter, machine, tuple(models) or tuple(recipe.models), opened, processes
        )
