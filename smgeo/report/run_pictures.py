"""Pictures of a run: stations, scatter, series, importance, learning curves, maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

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
from smgeo.report.schema import Importance, LearningCurvePoint, Results

# Colour-blind safe (Okabe and Ito 2008).
PART_COLOURS = {"train": "#999999", "validation": "#E69F00", "test": "#0072B2", "stations": "#0072B2"}
_MODEL_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#0072B2", "#E69F00")
_SERIES_SHOWN = 4
_MAP_DATES_SHOWN = 4
_PIXELS = 600  # pictures of maps are read at most so many pixels wide

# Values (y, x), and left, right, bottom, top in CRS units.
_Image: TypeAlias = tuple[np.ndarray, tuple[float, float, float, float]]


def draw_stations(places: xr.Dataset) -> Figure:
    """Draw the places of the stations, coloured by part of the split."""
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


def _limits(predictions: Mapping[str, xr.Dataset]) -> tuple[float, float]:
    values = np.concatenate([ds["observed"].values.ravel() for ds in predictions.values()])
    values = values[np.isfinite(values)]
    return (0.0, 0.5) if values.size == 0 else (float(min(values.min(), 0.0)), float(values.max()) * 1.02)


def draw_scatter(predictions: Mapping[str, xr.Dataset], results: Results) -> Figure:
    """Draw estimates against observations of the test part, one panel a model."""
    columns = min(len(predictions), 4)
    rows = -(-len(predictions) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.0 * rows), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
    units = results.units
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
        score = results.models[name]["test"]
        known = score.rmse is not None
        scores = f": RMSE {score.rmse:.3f}, ubRMSE {score.ubrmse:.3f}, n {score.n:,}" if known else ""
        axes.set_title(f"{name}{scores}", fontsize=8)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel=f"observed ({units})")
    panels[0].set_ylabel(f"estimated ({units})")
    for axes in panels[len(predictions) :]:
        axes.set_axis_off()
    return figure


def choose_series(ds: xr.Dataset, count: int = _SERIES_SHOWN) -> list[int]:
    """Return positions of stations of the test part, spread from the best to the worst RMSE of one model, so that none is picked by hand."""
    part = rows_in_part(ds, "test")
    of_stations = ds["part"].dims == ("station",)
    test = np.flatnonzero(text_of(ds["part"]) == "test") if of_stations else np.arange(ds.sizes["station"])
    error = part["predicted"].values - part["observed"].values
    with np.errstate(invalid="ignore"):
        known = np.isfinite(error).any(axis=1)
        rmse = np.sqrt(np.nanmean(np.where(known[:, None], error, 0.0) ** 2, axis=1))
    order = test[known][np.argsort(rmse[known], kind="stable")]
    if order.size <= count:
        return [int(i) for i in order]
    return [int(i) for i in order[np.linspace(0, order.size - 1, count).round().astype(int)]]


def draw_series(predictions: Mapping[str, xr.Dataset], units: str) -> Figure:
    """Draw observed and estimated series of the test part, at stations from the best to the worst of the first model; up to six models."""
    shown = {
        name: rows_in_part(ds, "test") if ds["part"].dims == ("time",) else ds
        for name, ds in list(predictions.items())[: len(_MODEL_COLOURS)]
    }
    chosen = choose_series(next(iter(shown.values())))
    figure = Figure(figsize=(10.5, 2.1 * max(len(chosen), 1)), layout="constrained")
    panels: np.ndarray = np.atleast_1d(figure.subplots(max(len(chosen), 1), 1, sharex=True))
    for axes, i in zip(panels, chosen, strict=False):
        _draw_one_series(axes, shown, i)
        axes.set_ylabel(units)
    if len(chosen):
        panels[0].legend(ncols=len(shown) + 1, fontsize=8, loc="upper right")
    return figure


def _draw_one_series(axes: Axes, predictions: Mapping[str, xr.Dataset], station: int) -> None:
    for k, (name, ds) in enumerate(predictions.items()):
        one = ds.isel(station=station)
        times = pd.DatetimeIndex(one.indexes["time"])
        if k == 0:
            axes.plot(times, one["observed"].values, ".-", color="k", ms=2.5, lw=1.0, label="observed")
            axes.set_title(str(one["station"].values), fontsize=8, loc="left")
        # Dots too, because a day between two without an estimate has no line.
        colour = _MODEL_COLOURS[k % len(_MODEL_COLOURS)]
        axes.plot(times, one["predicted"].values, ".-", color=colour, ms=2, lw=0.8, label=name)


def draw_importance(models: Mapping[str, Sequence[Importance]], units: str) -> Figure:
    """Draw the increase of the RMSE of each feature or group, one panel a model, the most important at the top."""
    longest = max(len(rows) for rows in models.values())
    figure = Figure(figsize=(3.4 * len(models) + 0.6, 0.24 * longest + 1.0), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False, sharex=True)[0]
    for axes, (name, rows) in zip(panels, models.items(), strict=True):
        at = np.arange(len(rows))[::-1]
        value, low, high = np.array([(r.increase, r.low, r.high) for r in rows], dtype=float).T
        axes.barh(at, value, color="#0072B2", height=0.7)
        axes.hlines(at, low, high, color="k", lw=1.0)
        axes.set_yticks(at, [r.feature for r in rows], fontsize=7)
        axes.axvline(0, color="k", lw=0.6)
        axes.set(title=name, xlabel=f"increase of RMSE ({units})")
    return figure


def draw_learning_curve(models: Mapping[str, Sequence[LearningCurvePoint]], units: str) -> Figure:
    """Draw the RMSE at test stations against the number of training stations."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for k, (name, rows) in enumerate(models.items()):
        colour = _MODEL_COLOURS[k % len(_MODEL_COLOURS)]
        stations, rmse, low, high = np.array([(r.stations, r.rmse, r.low, r.high) for r in rows], dtype=float).T
        axes.plot(stations, rmse, "o-", color=colour, ms=4, lw=1.2, label=name)
        axes.fill_between(stations, low, high, color=colour, alpha=0.12, lw=0)
    axes.set(xlabel="training stations", ylabel=f"RMSE at test stations ({units})")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return figure


def draw_maps(folder: Path, results: Results) -> Figure:
    """Draw the maps of every model for some dates, all in one scale, below the truth where it is known."""
    models = list(results.maps)
    dates = results.maps[models[0]].dates
    chosen = np.unique(np.linspace(0, len(dates) - 1, min(len(dates), _MAP_DATES_SHOWN)).round().astype(int))
    shown = [dates[i] for i in chosen]
    name = _target_of(results)
    rows: dict[str, list[_Image]] = {
        m: [_read_map(folder / "maps" / m / f"{name}_{d}.tif") for d in shown] for m in models
    }
    if any(m.truth for m in results.maps.values()):
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
        figure.colorbar(drawn, ax=panels, label=f"{name} ({results.units})", shrink=0.6, aspect=30)
    return figure


def draw_last_map(folder: Path, results: Results, model: str) -> Figure:
    """Draw the last day of a model's map with the stations.

    Besides the estimate: the difference to the truth if it is known, and the width of intervals and the area of applicability if the map has them.
    """
    found, stations = results.maps[model], open_cube(folder / "stations.zarr")
    truth = _truth_of(folder, model) if found.truth else None
    path = folder / "maps" / f"{model}.zarr"
    return draw_map(path, found.dates[-1], stations, against=truth, target=_target_of(results))


def _target_of(results: Results) -> str:
    assert results.target is not None  # a run with maps has stations
    return results.target.variable


def _truth_of(folder: Path, model: str) -> xr.DataArray:
    """Return the truth of the built-in world on the days and pixels of a model's map; lazy."""
    return open_truth(folder / "world" / "truth.zarr", open_map(folder / "maps" / f"{model}.zarr"))


def _read_map(path: Path) -> _Image:
    """Read a map, coarsened to `_PIXELS`, from the file's overviews if it has any."""
    with rasterio.open(path) as src:
        step = max(src.width // _PIXELS, src.height // _PIXELS, 1)
        image = src.read(1, out_shape=(src.height // step, src.width // step), masked=True).filled(np.nan)
        b = src.bounds
    return image, (b.left, b.right, b.bottom, b.top)
