"""The command line: parse, call, print."""

from __future__ import annotations

import signal
import sys
import warnings
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from smgeo import cli_hpc
from smgeo.cli_options import Account, ClusterName, DataFolder, Partition, RecipeName, RunFolder, Workers
from smgeo.cli_tables import print_map_scores, print_results, scores_table, trials_table
from smgeo.errors import SmgeoError, SmgeoWarning

_INTERRUPTED = 130

app = typer.Typer(
    name="smgeo",
    help="Surface soil moisture at high resolution: from stations and rasters to maps with honest scores.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
# A log or a pipe has no width of its own; tables are not cut there.
_out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)


def _print_version(asked: bool) -> None:
    if asked:
        import importlib.metadata
        import platform

        _out.print(
            f"smgeo {importlib.metadata.version('smgeo')}, Python {platform.python_version()}, {platform.node()}"
        )
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print versions and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    context.obj = {"debug": debug}


@app.command("run")
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
    from smgeo.study import run

    result = run(recipe, out, data, cluster=cluster, workers=workers, partition=partition, account=account)
    print_results(result.results, _out)
    _out.print(f"report: {result.report}", markup=False)
    if result.maps:
        _out.print(f"maps: {len(result.maps)} GeoTIFFs in {result.folder / 'maps'}", markup=False)
        for path in result.maps:
            _out.print(f"  {path}", markup=False)


@app.command("tune")
def tune_command(
    recipe: RecipeName,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model to search (again for more); those of the recipe's search, else every network."),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials in all; more than before continue a search.")] = None,
    search: Annotated[str | None, typer.Option(help="random, ax or optuna.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="asha or none.")] = None,
    out: RunFolder = None,
    data: DataFolder = None,
    cluster: Annotated[str | None, typer.Option(help="A site profile: trials on all nodes of the job.")] = None,
) -> None:
    """Run a study up to the search of its models' parameters; the same command again continues it."""
    import pandas as pd
    import yaml

    from smgeo.recipe.study import read_recipe
    from smgeo.study import tune_recipe

    options = {k: v for k, v in (("trials", trials), ("search", search), ("scheduler", scheduler)) if v is not None}
    checked = read_recipe(recipe)
    folder, found = tune_recipe(checked, out, data, models=model or (), options=options, cluster=cluster)
    for name, entry in found.items():
        nodes = pd.read_parquet(folder / "search" / name / "trials.parquet").set_index("trial")["node"].to_dict()
        _out.print(trials_table(name, entry, nodes))
        _out.print(f"trials: {folder / 'search' / name / 'trials.parquet'}", markup=False)
    lacking = {
        n: {"trials": len(e["trials"]), **options} for n, e in found.items() if n not in checked.search or options
    }
    if lacking:
        _out.print("for `smgeo run` to train with what was found, put into the recipe:", markup=False)
        _out.print(yaml.safe_dump({"search": lacking}, sort_keys=False).rstrip(), markup=False)


@app.command("simulate")
def simulate_command(
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not exist yet.")],
    stations: Annotated[int, typer.Option(help="Number of stations.")] = 317,
    days: Annotated[int, typer.Option(help="Number of days.")] = 1684,
    height: Annotated[int, typer.Option(help="Rows of the grid.")] = 256,
    width: Annotated[int, typer.Option(help="Columns of the grid.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of every random process.")] = 0,
) -> None:
    """Write the built-in world: stations, rasters, and the truth."""
    from smgeo.progress import Reporter
    from smgeo.sources import simulate

    with Reporter().task("simulate") as update:
        path = simulate(out, stations, days, (height, width), seed, progress=update)
    _out.print(f"world: {path}", markup=False)


@app.command("features")
def features_command() -> None:
    """List every feature smgeo knows, and where Earth Engine, STAC catalogues and files keep it."""
    from smgeo.catalog import EARTHENGINE, FEATURES, FILES, STAC

    table = Table("name", "unit", "kind", "revisit (d)", "valid", "meaning", "source")
    for f in FEATURES.values():
        low, high = f.valid_range
        revisit = "" if f.revisit_days is None else f"{f.revisit_days:g}"
        source = f"from {', '.join(f.derived_from)}" if f.derived_from else f.source
        table.add_row(f.name, f.units, f.kind, revisit, f"{low:g} to {high:g}", f.long_name, source)
    _out.print(table)
    engine = Table(
        "name",
        Column("asset", overflow="fold"),
        "band",
        "value",
        "mask",
        "note",
        title="Google Earth Engine",
        title_justify="left",
    )
    for name, e in EARTHENGINE.items():
        engine.add_row(name, e.asset, e.band, _scaling(e.scale, e.offset), e.mask, e.note)
    stac = Table(
        "name",
        Column("collection", overflow="fold"),
        "assets",
        "value",
        "mask",
        "note",
        title="STAC catalogues",
        title_justify="left",
    )
    for name, b in STAC.items():
        stac.add_row(name, b.collection, ", ".join(b.assets), _scaling(b.scale, b.offset), b.mask, b.note)
    files = Table("name", "product", "layout", "value", "fill", "mask", title="files", title_justify="left")
    for name, k in FILES.items():
        fill = "" if k.nodata is None else f"{k.nodata:g}"
        files.add_row(name, k.product, k.layout, _scaling(k.scale, k.offset), fill, k.mask)
    for where in (engine, stac, files):
        _out.print(where)


def _scaling(scale: float, offset: float) -> str:
    """`band * 0.02 - 273.15`, or nothing where the band is the value."""
    text = "" if scale == 1 and not offset else f"band * {scale:g}"
    return f"{text} {'-' if offset < 0 else '+'} {abs(offset):g}" if offset else text


@app.command("predict")
def predict_command(
    model: Annotated[Path, typer.Argument(help="A model's folder, such as RUN/models/rf.")],
    cube: Annotated[Path, typer.Argument(help="A grid cube (Zarr).")],
    out: Annotated[Path, typer.Argument(help="A path that ends in .zarr, or a folder for GeoTIFFs.")],
    date: Annotated[list[str] | None, typer.Option(help="Day to map (again for more); all days by default.")] = None,
    region: Annotated[
        str | None,
        typer.Option(
            help="Polygon file (.gpkg, .geojson), or left,bottom,right,top in the grid's CRS; all of it by default."
        ),
    ] = None,
    intervals: Annotated[
        float | None,
        typer.Option(help="Coverage of prediction intervals, 0 for none; 0.9 by default if the model is calibrated."),
    ] = None,
    applicability: Annotated[
        bool | None,
        typer.Option(help="Flag the model's area of applicability; by default if the model knows it."),
    ] = None,
    overviews: Annotated[bool, typer.Option(help="Give a Zarr store coarser copies for viewers.")] = False,
    cluster: Annotated[str | None, typer.Option(help="A site profile: blocks by Dask workers on SLURM.")] = None,
    workers: Workers = None,
    partition: Partition = None,
    account: Account = None,
) -> None:
    """Map a grid cube with a model; the same command again continues it."""
    from smgeo.cube.reading import open_cube
    from smgeo.hpc.cluster import find_machine
    from smgeo.maps import predict_map
    from smgeo.models import load_model
    from smgeo.progress import Reporter

    reporter = Reporter()
    # Beside the map, where all nodes see it.
    place = out.absolute().with_name(f".{out.name}.cluster")
    machine = find_machine(cluster, place, workers, partition, account, reporter.say)
    with closing(machine), machine.cubes(), reporter.task("predict") as update:
        path = predict_map(
            load_model(model),
            open_cube(cube),
            out,
            date or None,
            region=_region_of(region),
            intervals=intervals,
            applicability=applicability,
            overviews=overviews,
            progress=update,
        )
    _out.print(f"maps: {path}", markup=False)


@app.command("show")
def show_command(
    path: Annotated[Path, typer.Argument(help="A map (Zarr, or a folder of GeoTIFFs).")],
    out: Annotated[Path, typer.Argument(help="An HTML page, or an animation (.gif, .webp).")],
    stations: Annotated[Path | None, typer.Option(help="A station cube, whose stations the page shows.")] = None,
    target: Annotated[str, typer.Option(help="Variable that is shown.")] = "sm",
) -> None:
    """Write a page with a slider over a map's days, or an animation of them."""
    from smgeo.cube.reading import open_cube
    from smgeo.report import write_animation, write_slider

    if out.suffix.lower() in (".html", ".htm"):
        write_slider(path, out, None if stations is None else open_cube(stations), title=path.stem, target=target)
    else:
        write_animation(path, out, target=target)
    _out.print(f"map: {out}", markup=False)


def _region_of(text: str | None) -> Any:
    """Numbers, or a path."""
    parts = (text or "").split(",")
    try:
        return text if len(parts) == 1 else tuple(float(p) for p in parts)
    except ValueError:  # a path with commas
        return text


@app.command("evaluate")
def evaluate_command(
    what: Annotated[Path, typer.Argument(help="A map (Zarr, or a folder of GeoTIFFs), or a model's folder.")],
    cube: Annotated[Path, typer.Argument(help="A station cube (Zarr).")],
    run: Annotated[Path | None, typer.Option(help="Of a model: the run whose split is used.")] = None,
    target: Annotated[str, typer.Option(help="Of a map: the variable that is scored.")] = "sm",
) -> None:
    """Score a map at stations that its model never saw, or a model on the parts of a run's split."""
    import json

    from smgeo.cube.reading import open_cube

    if not (what / "model.json").is_file():
        from smgeo.maps import evaluate_map

        if run is not None:
            raise SmgeoError(
                f"--run is of a model, and {what} is none (no model.json in it); a map says itself what it was trained on"
            )
        print_map_scores(evaluate_map(what, open_cube(cube), target=target), _out)
        return
    from smgeo.evaluation.parts import evaluate
    from smgeo.models import load_model
    from smgeo.prepare import Split

    if run is None:
        raise SmgeoError("--run is missing: give the run whose split tells the model's training and test stations")
    if not (run / "results.json").is_file():
        raise SmgeoError(f"{run} holds no finished run (no results.json), so no split")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    if "split" not in results:
        raise SmgeoError(f"{run} is a run without stations, so it has no split to score on; give another --run")
    parts = Split.from_dict(results["split"])
    found = evaluate(load_model(what), open_cube(cube), parts)
    _out.print(scores_table({"models": {what.name: found.scores}, "intervals": {what.name: found.intervals}}))


@app.command("audit")
def audit_command(
    cube: Annotated[Path, typer.Argument(help="A station cube (Zarr), such as RUN/stations.zarr.")],
    features: Annotated[
        str | None,
        typer.Option(help="Variables with commas between; all dynamic, static and calendar ones by default."),
    ] = None,
    target: Annotated[str, typer.Option(help="Variable that is estimated.")] = "sm",
    folds: Annotated[int, typer.Option(help="Folds of each of the three ways to hold rows out.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of folds and model.")] = 0,
    gap_days: Annotated[int, typer.Option(help="Days between training and held-out periods.")] = 30,
) -> None:
    """Show how much of a score is leakage: random rows, other periods, other locations."""
    from smgeo.cube.reading import open_cube
    from smgeo.evaluation.leakage import audit_leakage
    from smgeo.progress import Reporter

    names = [n.strip() for n in features.split(",") if n.strip()] if features is not None else None
    with Reporter().task("leakage audit") as update:
        audit = audit_leakage(
            open_cube(cube), names, target, folds=folds, seed=seed, gap_days=gap_days, progress=update
        )
    _out.print(str(audit), markup=False)


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(help="A run's folder; several are put side by side.", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="The page of several runs; comparison.html by default.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for the pictures of one run as PNG files too.")] = None,
) -> None:
    """Write a run's report.html and tables again, or one page and tables of several runs."""
    from smgeo.report.comparison import compare_runs
    from smgeo.report.page import write_report

    if len(runs) == 1 and out is not None:
        raise SmgeoError("--out is the page of several runs; of one it is report.html in its folder")
    if len(runs) > 1 and pictures is not None:
        raise SmgeoError("--pictures is of one run; give the runs one by one")
    if len(runs) == 1:
        write_report(runs[0], pictures=pictures)
        _out.print(f"report: {runs[0] / 'report.html'}; tables: {runs[0] / 'tables'}", markup=False)
    else:
        out = out or Path("comparison.html")
        compare_runs(runs, out)
        _out.print(f"report: {out}; tables: {out.with_name(out.stem + '_tables')}", markup=False)


@app.command("info")
def info_command(
    path: Annotated[Path, typer.Argument(help="A store, a model or a run.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read a store (or a run's stores) back; name damage.")
    ] = False,
) -> None:
    """Say what is in a store, a model or a run."""
    import json

    from smgeo.cube.reading import open_cube

    if verify:
        _verify(path)
    elif (path / "results.json").is_file():
        print_results(json.loads((path / "results.json").read_text(encoding="utf-8")), _out)
    elif (path / "model.json").is_file():
        model = json.loads((path / "model.json").read_text(encoding="utf-8"))
        _out.print(f"model: {model['kind']} {model['params']}", markup=False)
        preparation = model["preparation"] or {}
        _out.print(f"features: {', '.join(preparation.get('features', [])) or 'bare arrays'}", markup=False)
        _out.print(
            f"window: {preparation.get('length')} day(s), trained on {model['training'].get('rows')} rows", markup=False
        )
    else:
        _out.print(repr(open_cube(path)), markup=False)


def _verify(path: Path) -> None:
    """Compare every file of a store, or of all stores of a run, with its checksum."""
    from smgeo.cube.ledger import LEDGER, find_damage, read_ledger

    stores = [path] if (path / "zarr.json").is_file() else sorted(p.parent for p in path.rglob(LEDGER))
    if not stores:
        raise SmgeoError(f"{path} holds no store with a ledger of checksums; give a Zarr store or the folder of a run")
    damaged = 0
    for store in stores:
        damage = find_damage(store)
        damaged += len(damage)
        records = read_ledger(store)
        regions = len(records.regions) if records else 0
        _out.print(f"{store}: {regions} regions, {len(damage) or 'none'} damaged", markup=False, soft_wrap=True)
        for region, files in damage.items():
            _out.print(f"  {region}: {', '.join(files)}", markup=False, soft_wrap=True)
    if damaged:
        raise SmgeoError(
            f"{path}: {damaged} damaged region(s), named above; remove their files and run the same command that wrote them "
            "again: they alone are written again"
        )


def _say_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """One line on stderr; where in the code a warning comes from helps no user."""
    said = "warning: " if issubclass(category, SmgeoWarning) else f"{category.__name__}: "
    print(f"smgeo: {said}{message}", file=sys.stderr)


def _stop_in_order(number: int, frame: Any) -> None:
    """SIGTERM (a job that is told to stop) ends a command as Ctrl-C does: what is done is kept, and helpers are ended."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not end the tidying up
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's command in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


def main() -> None:
    """Run the command line; an error the user can mend is one paragraph on stderr, exit code 1."""
    debug = "--debug" in sys.argv
    warnings.showwarning = _say_warning
    signal.signal(signal.SIGTERM, _stop_in_order)
    try:
        cli_hpc.check_words(sys.argv[1:])
        app()
    except SmgeoError as error:
        if debug:
            raise
        print(f"smgeo: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a folder that can't be written to, a file under a file
        if debug or error.filename is None:
            raise
        print(f"smgeo: {error.strerror}: {error.filename}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as stop:
        # typer turns Ctrl-C into exit code 130 without a word.
        if stop.code == _INTERRUPTED:
            print("smgeo: interrupted; the same command again continues where this one stopped", file=sys.stderr)
        raise


app.command("cube")(cli_hpc.cube_command)
app.command("train")(cli_hpc.train_command)
app.command("jobscript")(cli_hpc.jobscript_command)
app.add_typer(cli_hpc.systems, name="systems")
app.add_typer(cli_hpc.testbed, name="testbed")


if __name__ == "__main__":
    main()
