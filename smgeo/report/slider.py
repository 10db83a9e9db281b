"""Maps to look through in a browser, and as an animation: one file each, with nothing from outside."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from pyproj import Transformer

from smgeo.errors import SmgeoError
from smgeo.maps.check import open_map
from smgeo.report.html import write_page
from smgeo.report.map_pictures import Layer, frames_of, layers_of, metres_a_unit, scale_bar_m

# Pictures smaller than this on a side are drawn larger, pixel by pixel.
_LEAST = 800


def write_slider(
    path: str | Path | xr.Dataset,
    page: str | Path,
    stations: xr.Dataset | None = None,
    *,
    title: str = "Soil moisture",
    target: str = "sm",
) -> Path:
    """An HTML page with a slider over the days of a map, its layers to choose among, a scale bar, and the stations.

    Parameters
    ----------
    path : str, Path or xarray.Dataset
        As for `open_map`, or what it gave. Of a large map every n-th pixel is shown, 800 on the longer side.
    page : str or Path
        Written beside and renamed. It needs no other file and no network; `page.html#2020-05-31` opens on that day.
    stations : xarray.Dataset, optional
        Station cube, whose stations are drawn as points.
    title, target : str

    Returns
    -------
    Path
        `page`.
    """
    made = path if isinstance(path, xr.Dataset) else open_map(path)
    layers = layers_of(made, target)
    box, days = made.odc.geobox, pd.DatetimeIndex(made.indexes["time"])
    b = box.boundingbox
    width_m = (b.right - b.left) * metres_a_unit(box)
    bar = scale_bar_m(width_m)
    return write_page(
        Path(page),
        "slider.html.j2",
        title=title,
        days=[str(day.date()) for day in days],
        layers=[_describe(layer) for layer in layers],
        bar_percent=100 * bar / width_m,
        bar_text=f"{bar / 1000:g} km" if bar >= 1000 else f"{bar:g} m",
        points=[] if stations is None else _points(stations, box),
        shape=list(layers[0].values.shape[1:]),
    )


def _describe(layer: Layer) -> dict[str, Any]:
    colours = colormaps[layer.colours] if isinstance(layer.colours, str) else layer.colours
    frames, palette = frames_of(layer)
    stops = [colours(v) for v in np.linspace(0, 1, 17)]
    return {
        "label": layer.label,
        "low": f"{layer.limits[0]:.3g}",
        "high": f"{layer.limits[1]:.3g}",
        "gradient": ", ".join(f"rgb({r * 255:.0f} {g * 255:.0f} {b * 255:.0f})" for r, g, b, _ in stops),
        "frames": [base64.b64encode(_png(numbers, palette)).decode() for numbers in frames],
    }


def _png(numbers: np.ndarray, palette: np.ndarray) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(numbers, "P")
    picture.putpalette(palette.tobytes())
    picture.save(out, "PNG", transparency=0, optimize=True)
    return out.getvalue()


def _points(stations: xr.Dataset, box: Any) -> list[dict[str, Any]]:
    """Name and place of each station on the map, in percent from its upper left corner."""
    move = Transformer.from_crs("EPSG:4326", box.crs.to_wkt(), always_xy=True)
    x, y = move.transform(stations["longitude"].values, stations["latitude"].values)
    b = box.boundingbox
    across, down = 100 * (x - b.left) / (b.right - b.left), 100 * (b.top - y) / (b.top - b.bottom)
    inside = (across >= 0) & (across <= 100) & (down >= 0) & (down <= 100)
    names = [str(s) for s in stations["station"].values]
    return [
        {"name": names[i], "left": round(float(across[i]), 3), "top": round(float(down[i]), 3)}
        for i in np.flatnonzero(inside)
    ]


def write_animation(
    path: str | Path | xr.Dataset, file: str | Path, *, frame_ms: int = 400, target: str = "sm"
) -> Path:
    """The days of a map one after the other, each with its date, as an animated GIF or WebP.

    Parameters
    ----------
    path : str, Path or xarray.Dataset
        As for `open_map`, or what it gave.
    file : str or Path
        Ends in .gif or .webp; written beside and renamed.
    frame_ms : int
        Milliseconds of a day.
    target : str

    Raises
    ------
    SmgeoError
        If the file has another ending.
    """
    file = Path(file)
    kinds = {".gif": "GIF", ".webp": "WEBP"}
    if file.suffix.lower() not in kinds:
        raise SmgeoError(f"{file}: an animation ends in .gif or .webp (and a page with a slider in .html)")
    layer = layers_of(path if isinstance(path, xr.Dataset) else open_map(path), target)[0]
    frames, palette = frames_of(layer)
    factor = max(_LEAST // max(frames.shape[1:]), 1)
    pictures = [Image.fromarray(palette[frame.repeat(factor, 0).repeat(factor, 1)], "RGB") for frame in frames]
    for picture, day in zip(pictures, pd.DatetimeIndex(layer.values.indexes["time"]), strict=True):
        size = max(picture.height // 25, 12)
        draw = ImageDraw.Draw(picture)
        draw.text(
            (size // 2, size // 2),
            str(day.date()),
            "black",
            ImageFont.load_default(size),
            stroke_width=2,
            stroke_fill="white",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    pictures[0].save(
        part, kinds[file.suffix.lower()], save_all=True, append_images=pictures[1:], duration=frame_ms, loop=0
    )
    os.replace(part, file)
    return file
