"""Maps as a page with a slider over their days, and as an animation; each is one self-contained file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from PIL import Image, ImageDraw, ImageFont

from smgeo.bounds import check_arguments, checked
from smgeo.errors import SmgeoError
from smgeo.files import written_beside
from smgeo.maps.check import open_map
from smgeo.report.html import embed, write_page
from smgeo.report.map_pictures import (
    Layer,
    frames_of,
    layers_of,
    metres_a_unit,
    place_stations,
    scale_bar_m,
    scale_bar_text,
)

# Pictures with a longer side below this are enlarged, pixel by pixel.
_LEAST = 800


class _Frames(TypedDict):
    """A layer as the page's script takes it: frames are PNG files as text."""

    label: str
    low: str
    high: str
    gradient: str
    frames: list[str]


class _Point(TypedDict):
    """A station on the map, in percent from the upper left corner."""

    name: str
    left: float
    top: float


@checked
def write_slider(
    path: str | Path | xr.Dataset,
    page: str | Path,
    stations: xr.Dataset | None = None,
    *,
    title: str = "Soil moisture",
    target: str = "sm",
) -> Path:
    """Write an HTML page with a slider over the days of a map, a choice of layers, a scale bar, and the stations.

    Parameters
    ----------
    path : str, Path or xarray.Dataset
        As for `open_map`, or its result. A large map is thinned to every n-th pixel, 800 on the longer side.
    page : str or Path
        Written under another name and renamed. It needs no other file and no network; `page.html#2020-05-31` opens on that day.
    stations : xarray.Dataset, optional
        Station cube; its stations are points.
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
        bar_text=scale_bar_text(bar),
        points=[] if stations is None else _points(stations, box),
        shape=list(layers[0].values.shape[1:]),
    )


def _describe(layer: Layer) -> _Frames:
    frames, palette = frames_of(layer)
    stops = [layer.colours(v) for v in np.linspace(0, 1, 17)]
    return {
        "label": layer.label,
        "low": f"{layer.limits[0]:.3g}",
        "high": f"{layer.limits[1]:.3g}",
        "gradient": ", ".join(f"rgb({r * 255:.0f} {g * 255:.0f} {b * 255:.0f})" for r, g, b, _ in stops),
        "frames": [embed(_png(numbers, palette)) for numbers in frames],
    }


def _png(numbers: np.ndarray, palette: np.ndarray) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(numbers, "P")
    picture.putpalette(palette.tobytes())
    picture.save(out, "PNG", transparency=0, optimize=True)
    return out.getvalue()


def _points(stations: xr.Dataset, box: GeoBox) -> list[_Point]:
    """Return the stations inside the map."""
    x, y, inside = place_stations(stations, box)
    b = box.boundingbox
    across, down = 100 * (x - b.left) / (b.right - b.left), 100 * (b.top - y) / (b.top - b.bottom)
    names = [str(s) for s in stations["station"].values]
    return [
        {"name": names[i], "left": round(float(across[i]), 3), "top": round(float(down[i]), 3)}
        for i in np.flatnonzero(inside)
    ]


@checked
def write_animation(
    path: str | Path | xr.Dataset, file: str | Path, *, frame_ms: int = 400, target: str = "sm"
) -> Path:
    """Write the days of a map, each with its date, as an animated GIF or WebP.

    Parameters
    ----------
    path : str, Path or xarray.Dataset
        As for `open_map`, or its result.
    file : str or Path
        Ends in .gif or .webp; written under another name and renamed.
    frame_ms : int
        Milliseconds that each day is shown.
    target : str

    Raises
    ------
    SmgeoError
        If the file has another ending.
    """
    check_arguments("animation", frame_ms=frame_ms)
    file = Path(file)
    kinds = {".gif": "GIF", ".webp": "WEBP"}
    if file.suffix.lower() not in kinds:
        raise SmgeoError(
            f"{file}: an animation is a .gif or .webp file; give such a name (or .html for a page with a slider)"
        )
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
    with written_beside(file) as part:
        pictures[0].save(
            part, kinds[file.suffix.lower()], save_all=True, append_images=pictures[1:], duration=frame_ms, loop=0
        )
    return file
