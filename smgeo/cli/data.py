"""Commands of data: simulate, features, info."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from smgeo.cli.console import console
from smgeo.cli.tables import print_contents, print_results
from smgeo.errors import SmgeoError


def simulate_command(
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    stations: Annotated[int, typer.Option(help="Number of stations.")] = 317,
    days: Annotated[int, typer.Option(help="Number of days.")] = 1684,
    height: Annotated[int, typer.Option(help="Rows of the grid.")] = 256,
    width: Annotated[int, typer.Option(help="Columns of the grid.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of every random process.")] = 0,
) -> None:
    """Write the built-in world: stations, rasters, and the truth."""
    from smgeo.sources import simulate
    from smgeo.study.progress import Reporter

    with Reporter().task("simulate") as update:
        path = simulate(out, stations, days, (height, width), seed, progress=update)
    console.print(f"world: {path}", markup=False)


def features_command() -> None:
    """List every feature that smgeo knows, and where Earth Engine, STAC catalogues and files contain it."""
    from smgeo.catalog import EARTHENGINE, FEATURES, FILES, STAC

    table = Table("name", "unit", "kind", "revisit (d)", "valid", "meaning", "source")
    for f in FEATURES.values():
        low, high = f.valid_range
        revisit = "" if f.revisit_days is None else f"{f.revisit_days:g}"
        source = f"from {', '.join(f.derived_from)}" if f.derived_from else f.source
        table.add_row(f.name, f.units, f.kind, revisit, f"{low:g} to {high:g}", f.long_name, source)
    console.print(table)
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
        console.print(where)


def _scaling(scale: float, offset: float) -> str:
    """Return text such as `band * 0.02 - 273.15`, or nothing if the band is the value."""
    text = "" if scale == 1 and not offset else f"band * {scale:g}"
    return f"{text} {'-' if offset < 0 else '+'} {abs(offset):g}" if offset else text


def info_command(
    path: Annotated[Path, typer.Argument(help="A store, a model or a run.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all files of a store, or of a run's stores, with their checksums.")
    ] = False,
) -> None:
    """Summarise a store, model or run."""
    from smgeo.cube.reading import open_cube
    from smgeo.models.model_file import read_model
    from smgeo.report.schema import read_results

    if verify:
        _verify(path)
    elif (path / "results.json").is_file():
        print_results(read_results(path), console)
    elif (path / "model.json").is_file():
        model = read_model(path)
        console.print(f"model: {model['kind']} {model['params']}", markup=False)
        preparation = model["preparation"]
        console.print(f"features: {', '.join(preparation['features']) if preparation else 'bare arrays'}", markup=False)
        length = f"{preparation['length']} day(s)" if preparation else "none"
        console.print(f"window: {length}, trained on {model['training'].get('rows')} rows", markup=False)
    else:
        console.print(repr(open_cube(path)), markup=False)
        print_contents(path, console)


def _verify(path: Path) -> None:
    """Compare every file of a store, or of all stores of a run, with its checksum."""
    from smgeo.cube.damage import describe_file
    from smgeo.cube.ledger import LEDGER, find_damage, is_store, read_ledger

    stores = [path] if is_store(path) else sorted(p.parent for p in path.rglob(LEDGER))
    if not stores:
        raise SmgeoError(
            f"{path} contains no store with a ledger of checksums; give a Zarr store or the folder of a run"
        )
    damaged = 0
    for store in stores:
        damage = find_damage(store)
        damaged += len(damage)
        records = read_ledger(store)
        regions = len(records.regions) if records else 0
        console.print(f"{store}: {regions} regions, {len(damage) or 'none'} damaged", markup=False, soft_wrap=True)
        for region, files in damage.items():
            console.print(
                f"  {region}: {'; '.join(describe_file(store, f) for f in files)}", markup=False, soft_wrap=True
            )
    if damaged:
        raise SmgeoError(
            f"{path}: {damaged} damaged region(s), named above; remove their files and run the same command that wrote them "
            "again: they alone are written again"
        )
