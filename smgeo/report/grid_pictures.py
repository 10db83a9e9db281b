"""Pictures of a grid cube: colours of some days, daily means, the last day of each variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import odc.geo.xr  # noqa: F401 - the accessor .odc
import pandas as pd
import shapely
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from smgeo.cube.reading import open_cube
from smgeo.polygons import read_outline
from smgeo.report.schema import Colours, DailyMeans, GridVariable, Outline

STRETCH = (2.0, 98.0)  # percentiles of a band that become black and full colour
_PIXELS = 600  # pictures are read at most so many pixels wide
_COLUMNS = 4
_LINE, _BARS, _MISSING = "#0072B2", "#c8ced4", "#b0b0b0"  # white could be a value
_OUTLINE = ("#D55E00", 1.1)

_Raster = TypeVar("_Raster", xr.DataArray, xr.Dataset)


def draw_rgb(folder: Path, colours: Colours, outline: Outline | None = None) -> Figure:
    """Draw colour pictures of some days, all with one stretch, with the outline if there is one.

    Each band is stretched from its 2nd to its 98th percentile over all the days shown, so that days can be compared.
    """
    cube = open_cube(folder / "grid.zarr")
    names, days = colours.variables, colours.dates
    bands = _coarse(cube[[*dict.fromkeys(names)]].sel(time=pd.DatetimeIndex(days))).load()
    pictures = stretch([bands[n].values for n in names])
    polygons = None if outline is None else read_outline(folder / outline.file, cube.odc.geobox.crs)
    figure, panels = _panels(len(days), cube)
    for axes, day, picture in zip(panels, days, pictures, strict=False):
        _show(axes, picture, cube)
        if polygons is not None:
            _draw_outline(axes, polygons)
        axes.set_title(day, fontsize=8)
    return figure


def stretch(bands: Sequence[np.ndarray]) -> np.ndarray:
    """Return three bands (day, y, x) as colours (day, y, x, RGBA) between 0 and 1, transparent where one of them is missing."""
    out = np.zeros((*bands[0].shape, 4), dtype="float32")
    for i, band in enumerate(bands):
        seen = band[np.isfinite(band)]
        low, high = np.percentile(seen, STRETCH) if seen.size else (0.0, 1.0)
        out[..., i] = np.clip((np.nan_to_num(band) - low) / max(high - low, 1e-12), 0, 1)
    out[..., 3] = np.isfinite(np.stack(bands)).all(axis=0)
    return out


def draw_last_days(folder: Path, variables: Mapping[str, GridVariable]) -> Figure:
    """Draw a map of each variable: dynamic ones on their last day with a value, and static ones."""
    cube = open_cube(folder / "grid.zarr")
    drawn = {n: v for n, v in variables.items() if v.last_day or v.kind == "static"}
    figure, panels = _panels(len(drawn), cube, width=3.4)
    for axes, (name, about) in zip(panels, drawn.items(), strict=False):
        layer = cube[name].sel(time=about.last_day) if about.last_day else cube[name]
        image = _coarse(layer).values
        seen = image[np.isfinite(image)]
        low, high = np.percentile(seen, STRETCH) if seen.size else (0.0, 1.0)
        shown = _show(axes, image, cube, (low, high))
        axes.set_title(f"{name}, {about.last_day or 'static'}", fontsize=8)
        bar = figure.colorbar(shown, ax=axes, shrink=0.8)
        bar.set_label("" if about.units == "1" else about.units, fontsize=7)
        bar.ax.tick_params(labelsize=6)
    return figure


def draw_daily_means(series: Mapping[str, DailyMeans]) -> Figure:
    """Draw daily means as lines with points, and the number of pixels in each as bars (right axis), one panel a variable."""
    figure = Figure(figsize=(9.5, 2.3 * len(series)), layout="constrained")
    panels = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, one) in zip(panels, series.items(), strict=True):
        days = pd.DatetimeIndex(one.days)
        count = axes.twinx()
        count.bar(days, one.pixels, width=max(1.0, len(_span(series)) / 150), color=_BARS)
        most = max([*one.pixels, 1])
        count.set_ylim(0, most * 3)  # bars stay in the lower third
        count.set_yticks([0, most])
        count.set_ylabel("valid pixels", fontsize=7, loc="bottom")
        count.tick_params(labelsize=6)
        count.grid(visible=False)
        axes.set_zorder(count.get_zorder() + 1)
        axes.patch.set_visible(False)
        axes.plot(days, one.mean, color=_LINE, lw=1.0, marker="o", ms=3.5)
        axes.set_ylabel(name if one.units in ("", "1") else f"{name} ({one.units})")
    return figure


def _span(series: Mapping[str, DailyMeans]) -> pd.DatetimeIndex:
    days = [d for one in series.values() for d in one.days]
    return pd.date_range(min(days), max(days)) if days else pd.DatetimeIndex([])


def _panels(count: int, cube: xr.Dataset, width: float = 2.9) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels for maps of the cube's grid, and axes named after its CRS."""
    columns = min(max(count, 1), _COLUMNS)
    rows = -(-max(count, 1) // columns)
    crs = CRS(cube.odc.geobox.crs)
    left, right, bottom, top = _extent(cube)
    aspect = 1 / max(np.cos(np.deg2rad((bottom + top) / 2)), 0.1) if crs.is_geographic else 1.0
    height = min(max((top - bottom) / (right - left) * aspect, 0.3), 3.0)
    figure = Figure(figsize=(width * columns + 0.4, (2.6 * height + 0.5) * rows + 0.3), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel())
    for axes in panels:
        axes.set_aspect(aspect)
        axes.set_facecolor(_MISSING)
        axes.tick_params(labelsize=6)
        axes.ticklabel_format(useOffset=False, style="plain")
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.grid(visible=False)
    for axes in panels[count:]:
        axes.set_axis_off()
    names = ("longitude (degrees)", "latitude (degrees)") if crs.is_geographic else _axis_names(crs)
    code = crs.to_epsg()
    figure.supxlabel(f"{names[0]}, {f'EPSG:{code}' if code else crs.name}", fontsize=8)
    figure.supylabel(names[1], fontsize=8)
    return figure, panels


def _show(
    axes: Axes, image: np.ndarray, cube: xr.Dataset, limits: tuple[float, float] | tuple[None, None] = (None, None)
) -> AxesImage:
    # imshow has its own aspect and order of rows.
    origin: Literal["upper", "lower"] = "upper" if cube.odc.geobox.affine.e < 0 else "lower"
    return axes.imshow(
        image,
        extent=_extent(cube),
        aspect=axes.get_aspect(),
        origin=origin,
        interpolation="nearest",
        vmin=limits[0],
        vmax=limits[1],
        cmap="viridis",
    )


def _axis_names(crs: CRS) -> tuple[str, str]:
    unit = crs.axis_info[0].unit_name if crs.axis_info else "m"
    return f"x ({unit})", f"y ({unit})"


def _extent(cube: xr.Dataset) -> tuple[float, float, float, float]:
    box = cube.odc.geobox.boundingbox
    return box.left, box.right, box.bottom, box.top


def _coarse(values: _Raster) -> _Raster:
    """Return every n-th pixel, so that a large grid is not read whole."""
    step = max(values.sizes["y"] // _PIXELS, values.sizes["x"] // _PIXELS, 1)
    return values.isel(y=slice(None, None, step), x=slice(None, None, step))


def _draw_outline(axes: Axes, outline: BaseGeometry) -> None:
    for polygon in shapely.get_parts(outline):
        for ring in (polygon.exterior, *polygon.interiors):
            x, y = np.asarray(ring.coords).T[:2]
            axes.plot(x, y, color=_OUTLINE[0], lw=_OUTLINE[1])
