"""Pictures of a run: stations, scatter, series, importance, learning curves, maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smgeo.cube.reading import open_cube
from smgeo.cube.schema import text_of
from smgeo.evaluation.parts import rows_in_part
from smgeo.maps import open_map
from smgeo.report.map_pictures import draw_map
from smgeo.report.palette import soil_moisture
from smgeo.report.results import open_truth

# Colour-blind safe (Okabe and Ito 2008).
PART_COLOURS = {"train": "#999999", "validation": "#E69F00", "test": "#0072B2", "stations": "#0072B2"}


_MODEL_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#0072B2", "#E69F00")


_SERIES_SHOWN = 4


_MAP_DATES_SHOWN = 4


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
