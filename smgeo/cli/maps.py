"""Commands of maps and models: predict, show, evaluate."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from smgeo.cli.console import console
from smgeo.cli.options import Account, Partition, Workers
from smgeo.cli.tables import print_evaluation, print_map_scores
from smgeo.errors import SmgeoError


def predict_command(
    model: Annotated[Path, typer.Argument(help="A model's folder, such as RUN/models/rf.")],
    cube: Annotated[Path, typer.Argument(help="A grid cube (Zarr).")],
    out: Annotated[Path, typer.Argument(help="A path that ends in .zarr, or a folder for GeoTIFFs.")],
    date: Annotated[list[str] | None, typer.Option(help="Day to map (repeatable); all days by default.")] = None,
    region: Annotated[
        str | None,
        typer.Option(
            help="Polygon file (.gpkg, .shp, .fgb, .geojson), or left,bottom,right,top in the grid's CRS; all of it by default."
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
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="More of the area of applicability: dissimilarity, local_point_density or expected_error (repeatable)."
        ),
    ] = None,
    overviews: Annotated[bool, typer.Option(help="Add coarser copies for viewers to a Zarr store.")] = False,
    cluster: Annotated[str | None, typer.Option(help="Site profile; Dask workers on SLURM map the blocks.")] = None,
    workers: Workers = None,
    partition: Partition = None,
    account: Account = None,
) -> None:
    """Map a grid cube with a model; the same command again continues it."""
    from smgeo.cube.reading import open_cube
    from smgeo.hpc import machine as machines
    from smgeo.maps import predict_map
    from smgeo.models import load_model
    from smgeo.study.progress import Reporter

    reporter = Reporter()
    # Next to the map, where all nodes see it.
    place = out.absolute().parent / f".{out.name}.cluster"
    machine = machines.find_machine(machines.Workers(cluster, workers, partition, account), place, reporter.say)
    with closing(machine), machine.cubes(), reporter.task("predict") as update:
        path = predict_map(
            load_model(model),
            open_cube(cube, dask=False),
            out,
            date or None,
            region=_region_of(region),
            intervals=intervals,
            applicability=applicability,
            overviews=overviews,
            layers=layer or (),
            progress=update,
        )
    console.print(f"maps: {path}", markup=False)


def show_command(
    path: Annotated[Path, typer.Argument(help="A map (Zarr, or a folder of GeoTIFFs).")],
    out: Annotated[Path, typer.Argument(help="An HTML page, or an animation (.gif, .webp).")],
    stations: Annotated[Path | None, typer.Option(help="Station cube with the stations to show on the page.")] = None,
    target: Annotated[str, typer.Option(help="Variable to show.")] = "sm",
) -> None:
    """Write a page with a slider over a map's days, or an animation of them."""
    from smgeo.cube.reading import open_cube
    from smgeo.report import write_animation, write_slider

    if out.suffix.lower() in (".html", ".htm"):
        write_slider(path, out, None if stations is None else open_cube(stations), title=path.stem, target=target)
    else:
        write_animation(path, out, target=target)
    console.print(f"map: {out}", markup=False)


def _region_of(text: str | None) -> str | tuple[float, ...] | None:
    """Return the numbers of a region, or the path of its file."""
    parts = (text or "").split(",")
    try:
        return text if len(parts) == 1 else tuple(float(p) for p in parts)
    except ValueError:  # a path with commas
        return text


def evaluate_command(
    what: Annotated[Path, typer.Argument(help="A map (Zarr, or a folder of GeoTIFFs), or a model's folder.")],
    cube: Annotated[Path, typer.Argument(help="A station cube (Zarr).")],
    run: Annotated[
        Path | None,
        typer.Option(help="Run whose split is used (only for a model); without it, all stations that it has not seen."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Variable to score (only for a map); sm by default.")] = None,
) -> None:
    """Score a map or a model at the stations of a cube that the model never saw, or a model on the parts of a run's split."""
    from smgeo.cube.reading import open_cube

    if not (what / "model.json").is_file():
        from smgeo.maps import evaluate_map

        if run is not None:
            raise SmgeoError(
                f"--run applies only to models, and {what} is not one (it has no model.json); a map records its own training stations, so leave it out"
            )
        stations = open_cube(cube)
        variable = "sm" if target is None else target
        found = evaluate_map(what, stations, target=variable)
        print_map_scores(found, str(stations[variable].attrs.get("units", "")), console)
        return
    from smgeo.evaluation.parts import evaluate, split_unseen
    from smgeo.models import load_model
    from smgeo.report.schema import read_results

    if target is not None:
        raise SmgeoError(f"--target applies only to maps, and {what} is a model, which knows its target; leave it out")
    model, stations = load_model(what), open_cube(cube)
    if run is None:
        split = split_unseen(model, stations)
        if split.left_out:
            console.print(f"{len(split.left_out)} stations are left out: the model saw them, or others at their places")
    else:
        known = read_results(run).split
        if known is None:
            raise SmgeoError(f"{run} is a run without stations, so it has no split to score on; give another --run")
        split = known.to_split()
    scored = evaluate(model, stations, split)
    units = str(scored.predictions["observed"].attrs["units"])
    names = {"test": "unseen"} if run is None else {part: part for part in scored.scores}
    tables = (scored.scores, scored.intervals, scored.over_stations)
    scores, intervals, over_stations = ({name: t[part] for part, name in names.items()} for t in tables)
    print_evaluation(what.name, scores, intervals, over_stations, units, console)
