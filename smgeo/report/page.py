"""A run's folder into pictures and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
import yaml
from matplotlib.figure import Figure

from smgeo.cube.reading import open_cube
from smgeo.cube.schema import text_of
from smgeo.errors import SmgeoError
from smgeo.report.grid_pictures import draw_daily_means, draw_last_days, draw_rgb
from smgeo.report.html import write_page
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
from smgeo.report.tables import tables_of, write_tables


def write_report(folder: str | Path, *, pictures: str | Path | None = None, progress: Any = None) -> None:
    """Write `report.html` into a run's folder: station map, scores, series, scatter, maps, grid cube, rows removed, provenance.

    The tables go to `tables/` beside it, each as CSV and as LaTeX.

    Parameters
    ----------
    folder : str or Path
        A run's folder with `results.json` and `provenance.json`, and what these tell of: `stations.zarr` and `predictions/`,
        `grid.zarr`.
    pictures : str or Path, optional
        A folder that receives the pictures as PNG files too.
    progress : callable, optional
        Called with (parts done, parts in all).

    Raises
    ------
    SmgeoError
        If the folder holds no finished run.
    """
    folder = Path(folder)
    if not (folder / "results.json").is_file():
        raise SmgeoError(f"{folder} holds no finished run (no results.json); run the recipe with --out {folder} first")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    predictions = {
        name: xr.open_zarr(folder / "predictions" / f"{name}.zarr", consolidated=False, chunks=None)
        for name in results["models"]
    }
    places = _places(folder, results) if "target" in results else None
    drawings = _plan_drawings(folder, results, predictions, places)
    encoded: dict[str, str] = {}
    with mpl.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "savefig.bbox": "tight"}):
        for i, (name, draw) in enumerate(drawings.items()):
            png = encode_picture(draw())
            encoded[name] = base64.b64encode(png).decode()
            if pictures is not None:
                Path(pictures).mkdir(parents=True, exist_ok=True)
                (Path(pictures) / f"{name}.png").write_bytes(png)
            if progress:
                progress(i + 1, len(drawings))
    if tables := tables_of(results, provenance):
        write_tables(tables, folder / "tables")
    write_page(
        folder / "report.html",
        "report.html.j2",
        results=results,
        provenance=provenance,
        recipe=yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")),
        recipe_text=(folder / "recipe.yaml").read_text(encoding="utf-8"),
        pictures=encoded,
        sliders=[m for m in results.get("maps", {}) if (folder / "maps" / f"{m}.html").is_file()],
        scores=_score_rows(results),
        groups=_group_rows(results),
        network_counts=[] if places is None else _network_counts(places),
    )


def _plan_drawings(
    folder: Path, results: dict[str, Any], predictions: dict[str, xr.Dataset], places: xr.Dataset | None
) -> dict[str, Callable[[], Figure]]:
    """The pictures that this run has something for, by name."""
    drawings: dict[str, Callable[[], Figure]] = {}
    if places is not None:
        drawings["stations"] = lambda: draw_stations(places)
    if predictions:
        drawings["scatter"] = lambda: draw_scatter(predictions, results)
        drawings["series"] = lambda: draw_series(predictions, results)
    if results.get("importance"):
        drawings["importance"] = lambda: draw_importance(results)
    if results.get("learning_curve"):
        drawings["learning_curve"] = lambda: draw_learning_curve(results)
    if results.get("maps"):
        drawings["maps"] = lambda: draw_maps(folder, results)
        drawings |= {f"map_{name}": partial(draw_last_map, folder, results, name) for name in results["maps"]}
    if shown := results.get("grid"):
        if "rgb" in shown:
            drawings["rgb"] = lambda: draw_rgb(folder, shown)
        if "series" in shown:
            drawings["daily_means"] = lambda: draw_daily_means(shown)
        if not {"rgb", "series"} & set(shown):
            drawings["last_days"] = lambda: draw_last_days(folder, shown)
    return drawings


def _places(folder: Path, results: dict[str, Any]) -> xr.Dataset:
    """Stations with the target, and the part of the split each is in; one part of all where there is no split."""
    split = results["split"] if "split" in results else {"stations": results["stations"]}
    if "periods" in split:  # all parts have the same stations
        split = {"stations": split["train"]}
    parts = {s: part for part in PART_COLOURS for s in split.get(part, ())}
    cube = open_cube(folder / "stations.zarr")
    cube = cube.sel(station=[s for s in text_of(cube["station"]) if s in parts])
    return cube.coords.to_dataset().assign_coords(part=("station", [parts[s] for s in text_of(cube["station"])]))


def encode_picture(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _score_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    intervals = results.get("intervals", {})
    return [
        {"model": m, "part": p, **s, "interval": intervals.get(m, {}).get(p, {}).get("rmse")}
        for m, parts in results["models"].items()
        for p, s in parts.items()
    ]


def _group_rows(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Label of the grouping -> a row a group, with the RMSE of each model."""
    out: dict[str, list[dict[str, Any]]] = {}
    for label, models in results.get("groups", {}).items():
        rows: dict[str, dict[str, Any]] = {}
        for model, groups in models.items():
            for g in groups:
                row = rows.setdefault(
                    g["group"], {"group": g["group"], "stations": g["stations"], "n": g["n"], "rmse": {}}
                )
                row["rmse"][model] = g["rmse"]
        out[label] = [rows[group] for group in sorted(rows)]
    return out


def _network_counts(places: xr.Dataset) -> list[tuple[str, int]]:
    names, counts = np.unique(text_of(places["network"]), return_counts=True)
    return list(zip(names.tolist(), counts.tolist(), strict=True))
