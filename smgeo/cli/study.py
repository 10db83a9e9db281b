"""Commands of a study: run, cube, tune, train, report, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smgeo.cli.console import console
from smgeo.cli.options import Account, ClusterName, DataFolder, Partition, RecipeName, RunFolder, Workers
from smgeo.cli.tables import print_best_trials, print_results
from smgeo.errors import SmgeoError


def run_command(
    recipe: RecipeName,
    out: RunFolder = None,
    data: DataFolder = None,
    cluster: ClusterName = None,
    workers: Workers = None,
    partition: Partition = None,
    account: Account = None,
) -> None:
    """Run a whole study; the same command again continues it."""
    from smgeo.report.schema import parse_results
    from smgeo.study.runs import run

    result = run(recipe, out, data, cluster=cluster, workers=workers, partition=partition, account=account)
    print_results(parse_results(result.results), console)
    console.print(f"report: {result.report}", markup=False)
    if result.maps:
        console.print(f"maps: {len(result.maps)} GeoTIFFs in {result.folder / 'maps'}", markup=False)
        for path in result.maps:
            console.print(f"  {path}", markup=False)


def tune_command(
    recipe: RecipeName,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model to tune (repeatable); by default those of the recipe's search, or every network."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Total number of trials; a larger number continues a search.")
    ] = None,
    search: Annotated[str | None, typer.Option(help="Searcher: random, ax or optuna.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Scheduler: asha or none.")] = None,
    out: RunFolder = None,
    data: DataFolder = None,
    cluster: Annotated[str | None, typer.Option(help="Site profile; trials run on all nodes of the job.")] = None,
) -> None:
    """Run a study up to the search of its models' parameters; the same command again continues it."""
    import pandas as pd

    from smgeo.recipe.study import read_recipe
    from smgeo.recipe.yaml_format import dump_yaml
    from smgeo.study.runs import tune_recipe

    options = {k: v for k, v in (("trials", trials), ("search", search), ("scheduler", scheduler)) if v is not None}
    checked = read_recipe(recipe)
    folder, found = tune_recipe(checked, out, data, models=model or (), options=options, cluster=cluster)
    for name, entry in found.items():
        nodes = pd.read_parquet(folder / "search" / name / "trials.parquet").set_index("trial")["node"].to_dict()
        print_best_trials(name, entry, nodes, console)
        console.print(f"trials: {folder / 'search' / name / 'trials.parquet'}", markup=False)
    lacking = {
        n: {"trials": len(e["trials"]), **options} for n, e in found.items() if n not in checked.search or options
    }
    if lacking:
        console.print("for `smgeo run` to train with what was found, put into the recipe:", markup=False)
        console.print(dump_yaml({"search": lacking}).rstrip(), markup=False)


def audit_command(
    cube: Annotated[Path, typer.Argument(help="A station cube (Zarr), such as RUN/stations.zarr.")],
    features: Annotated[
        str | None,
        typer.Option(help="Comma-separated variables; all dynamic, static and calendar ones by default."),
    ] = None,
    target: Annotated[str, typer.Option(help="Variable to estimate.")] = "sm",
    folds: Annotated[int, typer.Option(help="Number of folds of each of the three ways to hold rows out.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of folds and model.")] = 0,
    gap_days: Annotated[int, typer.Option(help="Days between training and held-out periods.")] = 30,
) -> None:
    """Show how much of a score is leakage: random rows, other periods, other locations."""
    from smgeo.cube.reading import open_cube
    from smgeo.evaluation.leakage import audit_leakage
    from smgeo.study.progress import Reporter

    names = [n.strip() for n in features.split(",") if n.strip()] if features is not None else None
    with Reporter().task("leakage audit") as update:
        audit = audit_leakage(
            open_cube(cube), names, target, folds=folds, seed=seed, gap_days=gap_days, progress=update
        )
    console.print(str(audit), markup=False)


def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Folder of a run; several runs are compared.", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="Page for several runs; comparison.html by default.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for the pictures of one run as PNG files.")] = None,
) -> None:
    """Rewrite the report and tables of a run, or compare several runs on one page."""
    from smgeo.report.comparison import compare_runs
    from smgeo.report.page import write_report

    if len(runs) == 1 and out is not None:
        raise SmgeoError(
            "--out applies only to several runs; the report of one run is report.html in its folder, so leave it out"
        )
    if len(runs) > 1 and pictures is not None:
        raise SmgeoError("--pictures applies only to one run; give the runs one by one")
    if len(runs) == 1:
        write_report(runs[0], pictures=pictures)
        console.print(f"report: {runs[0] / 'report.html'}; tables: {runs[0] / 'tables'}", markup=False)
    else:
        out = out or Path("comparison.html")
        compare_runs(runs, out)
        console.print(f"report: {out}; tables: {out.with_name(out.stem + '_tables')}", markup=False)


def cube_command(
    recipe: RecipeName,
    out: RunFolder = None,
    data: DataFolder = None,
    cluster: ClusterName = None,
    workers: Workers = None,
    partition: Partition = None,
    account: Account = None,
) -> None:
    """Build only the cubes of a study; `smgeo run` then continues from them."""
    from smgeo.study.runs import build_cubes

    folder = build_cubes(recipe, out, data, cluster=cluster, workers=workers, partition=partition, account=account)
    for name in ("stations.zarr", "grid.zarr"):
        if (folder / name).exists():
            console.print(f"cube: {folder / name}", markup=False)


def train_command(
    recipe: RecipeName,
    model: Annotated[list[str] | None, typer.Option(help="Model to train (repeatable); all by default.")] = None,
    workers: Annotated[int, typer.Option(help="Number of processes that train each network together.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(help="Site profile; inside a job, processes run on all its nodes.")
    ] = None,
    out: RunFolder = None,
    data: DataFolder = None,
) -> None:
    """Run a study up to its fitted models; `smgeo run` then continues from them."""
    from smgeo.study.runs import train_recipe

    folder, found = train_recipe(recipe, out, data, models=model or (), workers=workers, cluster=cluster)
    for name, parts in found.items():
        scores = ", ".join(f"{part} {s['rmse']:.4f}" for part, s in parts.items() if s["rmse"] is not None)
        console.print(f"{name}: {folder / 'models' / name}, RMSE {scores}", markup=False)
