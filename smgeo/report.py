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
import pandas as pd
import rasterio
import xarray as xr
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smgeo.cube.reading import open_cube
from smgeo.cube.schema import text_of
from smgeo.errors import SmgeoError
from smgeo.evaluation.parts import rows_in_part
from smgeo.maps import draw_map, open_map
from smgeo.maps.palette import soil_moisture
from smgeo.pages import write_page
from smgeo.report_cube import draw_daily_means, draw_last_days, draw_rgb
from smgeo.summary import open_truth
from smgeo.tables import tables_of, write_tables

# Colour-blind safe (Okabe and Ito 2008).
PART_COLOURS = {"train": "#999999", "validation": "#E69F00", "test": "#0072B2", "stations": "#0072B2"}
_MODEL_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#0072B2", "#E69F00")
_SERIES_SHOWN = 4
_MAP_DATES_SHOWN = 4


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


def draw_stations(places: xr.Dataset) -> Figure:
    """Where the stations are, by part of the split."""
    figure = Figure(figsize=(6.4, 4.6))
    axes = figure.subplots()
    longitude, latitude, part = places["longitude"].values, places["latitude"].values, text_of(places["part"])
    for name, colour in PART_COLOURS.items():
        here = part == name
        if not here.any():
            continue
        axes.scatter(
            longitude[here],
            latitude[here],
            s=26,
            c=colour,
            edgecolors="k",
            linewidths=0.4,
            label=f"{name} ({here.sum()})",
        )
    axes.set(xlabel="longitude (degrees east)", ylabel="latitude (degrees north)")
    middle = float(np.nanmean(latitude))
    axes.set_aspect(1 / max(np.cos(np.deg2rad(middle)), 0.1), adjustable="datalim")
    axes.ticklabel_format(useOffset=False)
    axes.legend(loc="best", fontsize=8)
    return figure


def _limits(predictions: dict[str, xr.Dataset]) -> tuple[float, float]:
    values = np.concatenate([ds["observed"].values.ravel() for ds in predictions.values()])
    values = values[np.isfinite(values)]
    return (0.0, 0.5) if values.size == 0 else (float(min(values.min(), 0.0)), float(values.max()) * 1.02)


def draw_scatter(predictions: dict[str, xr.Dataset], results: dict[str, Any]) -> Figure:
    """Estimated against observed on the test stations, a panel a model."""
    columns = min(len(predictions), 4)
    rows = -(-len(predictions) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.0 * rows), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
    units = results["target"]["units"]
    low, high = _limits(predictions)
    for axes, (name, ds) in zip(panels, predictions.items(), strict=False):
        test = rows_in_part(ds, "test")
        observed, predicted = test["observed"].values.ravel(), test["predicted"].values.ravel()
        seen = np.isfinite(observed) & np.isfinite(predicted)
        if seen.any():
            axes.hexbin(
                observed[seen],
                predicted[seen],
                gridsize=45,
                extent=(low, high, low, high),
                mincnt=1,
                bins="log",
                cmap="viridis",
            )
        axes.plot([low, high], [low, high], color="k", lw=0.8)
        score = results["models"][name]["test"]
        label = (
            name
            if score["rmse"] is None
            else f"{name}: RMSE {score['rmse']:.3f}, ubRMSE {score['ubrmse']:.3f}, n {score['n']:,}"
        )
        axes.set_title(label, fontsize=8)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel=f"observed ({units})")
    panels[0].set_ylabel(f"estimated ({units})")
    for axes in panels[len(predictions) :]:
        axes.set_axis_off()
    return figure


def choose_series(ds: xr.Dataset, count: int = _SERIES_SHOWN) -> list[int]:
    """Stations of the test part to show: spread from the best to the worst RMSE of one model, so that none is picked by hand."""
    part = rows_in_part(ds, "test")
    of_stations = ds["part"].dims == ("station",)
    test = np.flatnonzero(text_of(ds["part"]) == "test") if of_stations else np.arange(ds.sizes["station"])
    error = part["predicted"].values - part["observed"].values
    with np.errstate(invalid="ignore"):
        known = np.isfinite(error).any(axis=1)
        rmse = np.sqrt(np.nanmean(np.where(known[:, None], error, 0.0) ** 2, axis=1))
    order = test[known][np.argsort(rmse[known], kind="stable")]
    if order.size <= count:
        return order.tolist()
    return order[np.linspace(0, order.size - 1, count).round().astype(int)].tolist()


def draw_series(predictions: dict[str, xr.Dataset], results: dict[str, Any]) -> Figure:
    """Observed and estimated series of the test part at some stations, from the best to the worst of the first model; of the first six models."""
    predictions = {
        name: rows_in_part(ds, "test") if ds["part"].dims == ("time",) else ds
        for name, ds in list(predictions.items())[: len(_MODEL_COLOURS)]
    }
    first = next(iter(predictions.values()))
    chosen = choose_series(first)
    figure = Figure(figsize=(10.5, 2.1 * max(len(chosen), 1)), layout="constrained")
    panels: np.ndarray = np.atleast_1d(figure.subplots(max(len(chosen), 1), 1, sharex=True))
    for axes, i in zip(panels, chosen, strict=False):
        _draw_one_series(axes, predictions, i)
        axes.set_ylabel(results["target"]["units"])
    if len(chosen):
        panels[0].legend(ncols=len(predictions) + 1, fontsize=8, loc="upper right")
    return figure


def _draw_one_series(axes: Axes, predictions: dict[str, xr.Dataset], station: int) -> None:
    for k, (name, ds) in enumerate(predictions.items()):
        one = ds.isel(station=station)
        times = pd.DatetimeIndex(one.indexes["time"])
        if k == 0:
            axes.plot(times, one["observed"].values, ".-", color="k", ms=2.5, lw=1.0, label="observed")
            axes.set_title(str(one["station"].values), fontsize=8, loc="left")
        # Dots too, because a day between two without an estimate has no line.
        colour = _MODEL_COLOURS[k % len(_MODEL_COLOURS)]
        axes.plot(times, one["predicted"].values, ".-", color=colour, ms=2, lw=0.8, label=name)


def draw_importance(results: dict[str, Any]) -> Figure:
    """Increase of the RMSE of each feature or group, a panel a model, the most important above."""
    models = results["importance"]
    longest = max(len(rows) for rows in models.values())
    figure = Figure(figsize=(3.4 * len(models) + 0.6, 0.24 * longest + 1.0), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False, sharex=True)[0]
    for axes, (name, rows) in zip(panels, models.items(), strict=True):
        at = np.arange(len(rows))[::-1]
        value, low, high = (np.array([r[k] for r in rows], dtype=float) for k in ("increase", "low", "high"))
        axes.barh(at, value, color="#0072B2", height=0.7)
        axes.hlines(at, low, high, color="k", lw=1.0)
        axes.set_yticks(at, [r["feature"] for r in rows], fontsize=7)
        axes.axvline(0, color="k", lw=0.6)
        axes.set(title=name, xlabel=f"increase of RMSE ({results['target']['units']})")
    return figure


def draw_learning_curve(results: dict[str, Any]) -> Figure:
    """RMSE at test stations against the number of training stations."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for k, (name, rows) in enumerate(results["learning_curve"].items()):
        stations, colour = [r["stations"] for r in rows], _MODEL_COLOURS[k % len(_MODEL_COLOURS)]
        low, high = (np.array([r[end] for r in rows], dtype=float) for end in ("low", "high"))
        axes.plot(stations, [r["rmse"] for r in rows], "o-", color=colour, ms=4, lw=1.2, label=name)
        axes.fill_between(stations, low, high, color=colour, alpha=0.12, lw=0)
    axes.set(xlabel="training stations", ylabel=f"RMSE at test stations ({results['target']['units']})")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return figure


def draw_maps(folder: Path, results: dict[str, Any]) -> Figure:
    """The maps of every model for some dates, all in one scale; in the built-in world, the truth above them."""
    models = list(results["maps"])
    dates = results["maps"][models[0]]["dates"]
    chosen = np.unique(np.linspace(0, len(dates) - 1, min(len(dates), _MAP_DATES_SHOWN)).round().astype(int))
    shown = [dates[i] for i in chosen]
    name = results["target"]["variable"]
    rows: dict[str, list[tuple[np.ndarray, tuple[float, float, float, float]]]] = {
        m: [_read_map(folder / "maps" / m / f"{name}_{d}.tif") for d in shown] for m in models
    }
    if any("truth" in m for m in results["maps"].values()):
        truth = _truth_of(folder, models[0]).sel(time=shown).values
        extent = rows[models[0]][0][1]
        rows = {"truth": [(image, extent) for image in truth], **rows}
    values = np.concatenate([image[np.isfinite(image)] for images in rows.values() for image, _ in images])
    low, high = np.quantile(values, [0.01, 0.99]) if values.size else (0.0, 0.5)
    height, width = rows[models[0]][0][0].shape
    figure = Figure(figsize=(2.9 * len(shown) + 0.9, (2.6 * height / width + 0.4) * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(shown), squeeze=False, sharex=True, sharey=True)
    drawn = None
    for line, (label, images) in zip(panels, rows.items(), strict=True):
        for axes, day, (image, extent) in zip(line, shown, images, strict=True):
            drawn = axes.imshow(
                image, extent=extent, vmin=low, vmax=high, cmap=soil_moisture(), interpolation="nearest"
            )
            axes.set_title(f"{label}, {day}", fontsize=8)
            axes.set_facecolor("#e8e8e8")
            axes.tick_params(labelsize=6)
            axes.grid(visible=False)
    if drawn is not None:
        figure.colorbar(drawn, ax=panels, label=f"{name} ({results['target']['units']})", shrink=0.6, aspect=30)
    return figure


def draw_last_map(folder: Path, results: dict[str, Any], model: str) -> Figure:
    """The last day of a model's map with its stations: the estimate, and what else is known of it.

    In the built-in world that is the difference to the truth; where the map has them, the width of intervals and the area of applicability.
    """
    truth = _truth_of(folder, model) if "truth" in results["maps"][model] else None
    name, stations = results["target"]["variable"], open_cube(folder / "stations.zarr")
    path, day = folder / "maps" / f"{model}.zarr", results["maps"][model]["dates"][-1]
    return draw_map(path, day, stations, against=truth, target=name)


def _truth_of(folder: Path, model: str) -> xr.DataArray:
    """The truth of the built-in world on the days and pixels of a model's map; lazy."""
    return open_truth(folder / "world" / "truth.zarr", open_map(folder / "maps" / f"{model}.zarr"))


def _read_map(path: Path) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """A map at most 600 pixels wide, from the file's overviews where it has them; and its extent in CRS units."""
    with rasterio.open(path) as src:
        step = max(src.width // 600, src.height // 600, 1)
        image = src.read(1, out_shape=(src.height // step, src.width // step), masked=True).filled(np.nan)
        b = src.bounds
    return image, (b.left, b.right, b.bottom, b.top)
