"""The report of a run: one self-contained HTML page with its pictures and tables."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from smgeo.cube.reading import open_cube
from smgeo.cube.schema import text_of
from smgeo.recipe.yaml_format import load_yaml
from smgeo.report.grid_pictures import draw_daily_means, draw_last_days, draw_rgb
from smgeo.report.html import embed, write_page
from smgeo.report.map_pictures import without_formulas
from smgeo.report.results import open_predictions
from smgeo.report.run_pictures import (
    PART_COLOURS,
    draw_importance,
    draw_last_map,
    draw_learning_curve,
    draw_maps,
    draw_scatter,
    draw_series,
    draw_stations,
)
from smgeo.report.schema import Results, read_provenance, read_results
from smgeo.report.tables import tables_for_files, tables_of, write_tables


def write_report(
    folder: str | Path, *, pictures: str | Path | None = None, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write `report.html` into a run's folder: scores, stations, series, scatter, maps, grid cube, rows removed, provenance.

    The tables go to `tables/` next to it, each as CSV and as LaTeX.

    Parameters
    ----------
    folder : str or Path
        A run's folder with `results.json` and `provenance.json`, and the data that they describe: `stations.zarr` and `predictions/`,
        `grid.zarr`.
    pictures : str or Path, optional
        Folder for the pictures as PNG files.
    progress : callable, optional
        Called with (pictures drawn, pictures in total).

    Raises
    ------
    SmgeoError
        If the folder is not a finished run, or its results do not fit their schema.
    """
    folder = Path(folder)
    results, provenance = read_results(folder), read_provenance(folder)
    predictions = open_predictions(folder, results.models)
    places = None if results.target is None else _places(folder, results)
    drawings = _plan_drawings(folder, results, predictions, places)
    encoded: dict[str, str] = {}
    style = mpl.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "savefig.bbox": "tight"})
    with style, without_formulas():
        for i, (name, draw) in enumerate(drawings.items()):
            png = encode_picture(draw())
            encoded[name] = embed(png)
            if pictures is not None:
                Path(pictures).mkdir(parents=True, exist_ok=True)
                (Path(pictures) / f"{name}.png").write_bytes(png)
            if progress:
                progress(i + 1, len(drawings))
    tables = tables_of(results, provenance)
    if tables_for_files(tables.values()):
        write_tables(tables.values(), folder / "tables")
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    write_page(
        folder / "report.html",
        "report.html.j2",
        results=results,
        provenance=provenance,
        recipe=load_yaml(recipe),
        recipe_text=recipe,
        pictures=encoded,
        tables=tables,
        sliders=[m for m in results.maps if (folder / "maps" / f"{m}.html").is_file()],
        network_counts=[] if places is None else _network_counts(places),
    )


def _plan_drawings(
    folder: Path, results: Results, predictions: dict[str, xr.Dataset], places: xr.Dataset | None
) -> dict[str, Callable[[], Figure]]:
    """Return the pictures that this run has data for, by name."""
    drawings: dict[str, Callable[[], Figure]] = {}
    if places is not None:
        drawings["stations"] = partial(draw_stations, places)
    if predictions:
        drawings["scatter"] = partial(draw_scatter, predictions, results)
        drawings["series"] = partial(draw_series, predictions, results.units)
    if results.importance:
        drawings["importance"] = partial(draw_importance, results.importance, results.units)
    if results.learning_curve:
        drawings["learning_curve"] = partial(draw_learning_curve, results.learning_curve, results.units)
    if results.maps:
        drawings["maps"] = partial(draw_maps, folder, results)
        drawings |= {f"map_{name}": partial(draw_last_map, folder, results, name) for name in results.maps}
    if (grid := results.grid) is not None:
        if grid.rgb is not None:
            drawings["rgb"] = partial(draw_rgb, folder, grid.rgb, grid.outline)
        if grid.series is not None:
            drawings["daily_means"] = partial(draw_daily_means, grid.series)
        if grid.rgb is None and grid.series is None and not results.models:
            drawings["last_days"] = partial(draw_last_days, folder, grid.variables)
    return drawings


def _places(folder: Path, results: Results) -> xr.Dataset:
    """Return the stations with the target, and the part of the split of each; without parts of their own all have one."""
    split = results.split
    if split is None:
        stations = {"stations": results.stations or []}
    elif split.periods is not None:  # all parts have the same stations
        stations = {"stations": split.train}
    else:
        stations = {"train": split.train, "validation": split.validation, "test": split.test}
    parts = {s: part for part in PART_COLOURS for s in stations.get(part, ())}
    cube = open_cube(folder / "stations.zarr")
    cube = cube.sel(station=[s for s in text_of(cube["station"]) if s in parts])
    return cube.coords.to_dataset().assign_coords(part=("station", [parts[s] for s in text_of(cube["station"])]))


def encode_picture(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _network_counts(places: xr.Dataset) -> list[tuple[str, int]]:
    names, counts = np.unique(text_of(places["network"]), return_counts=True)
    return list(zip(names.tolist(), counts.tolist(), strict=True))
