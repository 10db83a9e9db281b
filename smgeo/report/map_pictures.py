"""Pictures of maps: estimate, width of the interval and area of applicability side by side, with a scale bar and the stations."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from smgeo.bounds import check_day
from smgeo.errors import SmgeoError
from smgeo.maps.block import APPLICABLE
from smgeo.maps.check import open_map
from smgeo.report.palette import soil_moisture

# Pictures are at most so many pixels wide or high.
_PIXELS = 800
MISSING = (220, 220, 220)
_INSIDE = ListedColormap(["#b35806", "#d8daeb"])

_Raster = TypeVar("_Raster", xr.DataArray, xr.Dataset)


@contextmanager
def without_formulas() -> Iterator[None]:
    """Draw `$` in names and units, which come from data, as it is written: it begins no formula."""
    with mpl.rc_context({"text.parse_math": False}):
        yield


@dataclass(frozen=True)
class Layer:
    """One panel of a map.

    Attributes
    ----------
    label : str
    values : xarray.DataArray
        (time, y, x), coarse enough for a picture.
    colours : matplotlib.colors.Colormap
    limits : (float, float)
    """

    label: str
    values: xr.DataArray
    colours: Colormap
    limits: tuple[float, float]


def layers_of(made: xr.Dataset, target: str = "sm") -> list[Layer]:
    """Return the layers of a map: the estimate, and, if the map has them, the width of its interval and the area of applicability.

    Raises
    ------
    SmgeoError
        If the map lacks the target.
    """
    if target not in made:
        raise SmgeoError(f"the map has no variable {target!r}; it contains {', '.join(map(str, made.data_vars))}")
    coarse = _coarse(made)
    estimate = coarse[target].load()
    units = made[target].attrs.get("units", "")
    out = [Layer(f"{target} ({units})", estimate, soil_moisture(), _limits(estimate))]
    if f"{target}_lower" in coarse:
        width = (coarse[f"{target}_upper"] - coarse[f"{target}_lower"]).load()
        level = made[f"{target}_lower"].attrs.get("coverage")
        share = "" if level is None else f"{100 * float(level):g} % "
        out.append(Layer(f"width of the {share}interval ({units})", width, colormaps["cividis"], _limits(width)))
    if APPLICABLE in coarse:
        out.append(Layer("inside the area of applicability", coarse[APPLICABLE].load(), _INSIDE, (0.0, 1.0)))
    return out


def _limits(values: xr.DataArray) -> tuple[float, float]:
    seen = values.values[np.isfinite(values.values)]
    low, high = np.quantile(seen, [0.01, 0.99]) if seen.size else (0.0, 0.0)
    if high - low < 1e-4 * abs(high):  # constant except for rounding
        return 0.9 * float(low), 1.1 * float(high)
    return float(low), float(max(high, low + 1e-6))


@without_formulas()
def draw_map(
    path: str | Path | xr.Dataset,
    day: str | dt.date | np.datetime64,
    stations: xr.Dataset | None = None,
    *,
    against: xr.DataArray | xr.Dataset | None = None,
    target: str = "sm",
) -> Figure:
    """Draw one day of a map in its own CRS, one panel a layer.

    Parameters
    ----------
    path : str, Path or xarray.Dataset
        As for `open_map`, or its result.
    day : str, date or datetime64
        A day of the map.
    stations : xarray.Dataset, optional
        Station cube. Stations are points in the colour of their observation on that day; stations without one are crosses.
    against : xarray.DataArray or Dataset, optional
        (time, y, x) on the same grid, such as a truth or another map. The difference, map minus `against`, is another panel.
    target : str

    Raises
    ------
    SmgeoError
        If the map does not contain the day or the target, or `against` has another grid.
    """
    made = path if isinstance(path, xr.Dataset) else open_map(path)
    when = pd.Timestamp(check_day("draw_map", day))
    days = pd.DatetimeIndex(made.indexes["time"])
    if when not in days:
        raise SmgeoError(f"the map has no day {when.date()}; its days are from {days[0].date()} to {days[-1].date()}")
    one = made.sel(time=[when])
    layers = layers_of(one, target)
    if against is not None:
        against = against[target] if isinstance(against, xr.Dataset) else against
        layers.insert(1, _difference(one[target], against))
    box = made.odc.geobox
    height, width = box.shape.yx
    shape = min(max(height / width, 0.3), 2.0)
    figure = Figure(figsize=(4.2 * len(layers), 3.2 * shape + 0.9), layout="constrained")
    panels = figure.subplots(1, len(layers), squeeze=False, sharex=True, sharey=True)[0]
    for axes, layer in zip(panels, layers, strict=True):
        _draw_layer(figure, axes, layer, box)
    _draw_scale_bar(panels[0], box)
    if stations is not None:
        _draw_stations(panels[0], stations, box, when, layers[0], target)
    figure.suptitle(str(when.date()), fontsize=10)
    return figure


def _difference(estimate: xr.DataArray, other: xr.DataArray) -> Layer:
    days = pd.DatetimeIndex(other.indexes["time"]) if "time" in other.indexes else []
    for day in estimate.indexes["time"]:
        if day not in days:
            raise SmgeoError(f"`against` has no {day.date()}; give one with the day of the map")
    other = other.sel(time=estimate["time"])
    for dim in ("y", "x"):
        here, there = (v.sortby(dim)[dim].values for v in (estimate, other))
        if here.shape != there.shape or not np.allclose(
            here, there, rtol=0, atol=np.abs(np.diff(here)[:1]).sum() / 100
        ):
            raise SmgeoError(f"`against` is on another grid (other {dim}); resample it to the grid of the map")
    values = _coarse(estimate)
    values = values.copy(data=values.values - _coarse(other.transpose("time", "y", "x")).values)
    most = _limits(abs(values))[1]
    return Layer(f"difference ({estimate.attrs.get('units', '')})", values, colormaps["PuOr"], (-most, most))


def _coarse(values: _Raster) -> _Raster:
    """Return every n-th pixel, few enough for a picture, from north to south."""
    if values.sizes["y"] > 1 and values["y"][0] < values["y"][-1]:
        values = values.isel(y=slice(None, None, -1))
    step = max(math.ceil(max(values.sizes["y"], values.sizes["x"]) / _PIXELS), 1)
    return values.isel(y=slice(step // 2, None, step), x=slice(step // 2, None, step))


def _draw_layer(figure: Figure, axes: Axes, layer: Layer, box: GeoBox) -> None:
    b = box.boundingbox
    drawn = axes.imshow(
        layer.values.values[0],
        extent=(b.left, b.right, b.bottom, b.top),
        vmin=layer.limits[0],
        vmax=layer.limits[1],
        cmap=layer.colours,
        interpolation="nearest",
    )
    axes.set_facecolor((MISSING[0] / 255, MISSING[1] / 255, MISSING[2] / 255))
    axes.set_title(layer.label, fontsize=8)
    axes.tick_params(labelsize=6)
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.grid(visible=False)
    if layer.colours is _INSIDE:
        bar = figure.colorbar(drawn, ax=axes, shrink=0.7, ticks=[0.25, 0.75])
        bar.ax.set_yticklabels(["outside", "inside"], fontsize=7)
    else:
        figure.colorbar(drawn, ax=axes, shrink=0.7).ax.tick_params(labelsize=7)


def scale_bar_m(width_m: float) -> float:
    """Return the length of a scale bar: the largest of 1, 2, 5 times a power of ten that is at most a third of the map's width.

    >>> scale_bar_m(10_000), scale_bar_m(580)
    (2000.0, 100.0)
    """
    most = width_m / 3
    power = 10 ** math.floor(math.log10(most))
    return float(max(f * power for f in (1, 2, 5) if f * power <= most))


def scale_bar_text(length_m: float) -> str:
    """Return the label of a scale bar."""
    return f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"


def metres_a_unit(box: GeoBox) -> float:
    """Return the length of one unit of the CRS in metres, across the middle of the map."""
    crs = box.crs
    assert crs is not None
    if not crs.geographic:
        return float(crs.proj.axis_info[0].unit_conversion_factor)
    b = box.boundingbox
    return 111_320 * math.cos(math.radians((b.bottom + b.top) / 2))


def _draw_scale_bar(axes: Axes, box: GeoBox) -> None:
    b, metres = box.boundingbox, metres_a_unit(box)
    length = scale_bar_m((b.right - b.left) * metres)
    x, y = b.left + 0.05 * (b.right - b.left), b.bottom + 0.06 * (b.top - b.bottom)
    axes.plot([x, x + length / metres], [y, y], color="k", lw=2.5, solid_capstyle="butt", clip_on=False)
    middle, above = x + length / metres / 2, y + 0.02 * (b.top - b.bottom)
    axes.text(middle, above, scale_bar_text(length), ha="center", va="bottom", fontsize=7)


def place_stations(stations: xr.Dataset, box: GeoBox) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x and y of stations in the CRS of a map, and a mask of those inside it."""
    crs, b = box.crs, box.boundingbox
    assert crs is not None
    move = Transformer.from_crs("EPSG:4326", crs.to_wkt(), always_xy=True)
    x, y = move.transform(stations["longitude"].values, stations["latitude"].values)
    return x, y, (x >= b.left) & (x <= b.right) & (y >= b.bottom) & (y <= b.top)


def _draw_stations(
    axes: Axes, stations: xr.Dataset, box: GeoBox, when: pd.Timestamp, layer: Layer, target: str
) -> None:
    x, y, inside = place_stations(stations, box)
    days = pd.DatetimeIndex(stations.indexes["time"])
    measured = np.full(len(x), np.nan)
    if target in stations and when in days:
        measured = stations[target].sel(time=when).values
    seen = inside & np.isfinite(measured)
    axes.scatter(x[inside & ~seen], y[inside & ~seen], c="black", marker="x", s=18, linewidths=0.9, zorder=3)
    low, high = layer.limits
    axes.scatter(
        x[seen],
        y[seen],
        c=measured[seen],
        cmap=layer.colours,
        vmin=low,
        vmax=high,
        s=26,
        edgecolors="k",
        linewidths=0.7,
        zorder=3,
    )


def frames_of(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Return each day of a layer as indices of colours, uint8 (time, y, x), 0 for no value; and the colours, RGB uint8 (256, 3)."""
    low, high = layer.limits
    values = layer.values.values
    scaled = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
    numbers = np.where(np.isfinite(values), 1 + np.round(scaled * 254), 0).astype("uint8")
    palette = np.full((256, 3), MISSING, dtype="uint8")
    palette[1:] = np.round(layer.colours(np.linspace(0, 1, 255))[:, :3] * 255)
    return numbers, palette
