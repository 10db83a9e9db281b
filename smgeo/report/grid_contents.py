"""Contents of a grid cube: days with observations, shares of valid and masked values, daily means, days to show."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from pathlib import Path
from typing import TypeAlias

import numpy as np
import odc.geo.xr  # noqa: F401 - the accessor .odc
import pandas as pd
import xarray as xr

from smgeo.catalog import FEATURES, Feature
from smgeo.cube.reading import open_cube
from smgeo.files import JsonObject
from smgeo.polygons import pixels_inside, read_outline, write_geojson
from smgeo.recipe.output import ReportSpec
from smgeo.recipe.rasters import AnyRaster, RasterSource
from smgeo.report.variables import describe_variables
from smgeo.sources import open_source

RGB_DAYS = 4
_Day: TypeAlias = dt.date | np.datetime64


def describe_grid(path: Path, names: Sequence[str], catalog: Mapping[str, Feature] = FEATURES) -> JsonObject:
    """Return the grid, its days, and the contents of each variable.

    Parameters
    ----------
    path : Path
        A grid cube. Every value is read once, block by block.
    names : sequence of str
        Its variables, in the order of the result.
    catalog : mapping
        Valid range of each variable.

    Returns
    -------
    dict
        `grid` of the results without what the report shows, see `smgeo.report.schema.Grid`. `valid_share` is the share of all pixels on the days
        on which any pixel has a value; static and calendar variables have no days.
    """
    cube = open_cube(path)
    box, times = cube.odc.geobox, pd.DatetimeIndex(cube.indexes["time"])
    return {
        "crs": f"EPSG:{box.crs.epsg}" if box.crs.epsg else str(box.crs),
        "shape": list(box.shape.yx),
        "resolution": [abs(box.resolution.y), abs(box.resolution.x)],
        "bounds": list(box.boundingbox.bbox),
        "days": {"first": str(times[0].date()), "last": str(times[-1].date()), "count": len(times)},
        "variables": describe_variables(path, names, catalog),
    }


def count_masked(
    cube: xr.Dataset,
    rasters: Sequence[AnyRaster],
    period: tuple[_Day, _Day],
    root: Path,
    catalog: Mapping[str, Feature],
) -> dict[str, float]:
    """Return the share of the values in the files that a quality band removed on the grid, for each variable.

    It is measured on the first variable of each GeoTIFF source with a mask, by reading that band again without the mask, and is the same for the
    other variables of the source, which have the same mask. Fill counts as masked if the source has no `nodata`.
    """
    out: dict[str, float] = {}
    for source in rasters:
        names = [n for n in source.bands if n in cube and "time" in cube[n].dims]
        if not isinstance(source, RasterSource) or source.mask is None or not names:
            continue
        one = _without_mask(source, names[0])
        given = open_source(one, root=root, geobox=cube.odc.geobox, period=period, catalog=catalog)[names[0]]
        counts = xr.Dataset({"kept": cube[names[0]].notnull().sum(), "given": given.notnull().sum()}).compute()
        there = int(counts["given"])
        out |= dict.fromkeys(names, round(1 - int(counts["kept"]) / there, 6) if there else 0.0)
    return out


def _without_mask(source: RasterSource, name: str) -> RasterSource:
    keys = ("units", "scale", "offset", "convert")
    own = {key: {n: v for n, v in getattr(source, key).items() if n == name} for key in keys}
    return source.model_copy(update={"bands": {name: source.bands[name]}, "mask": None, **own})


def describe_shown(folder: Path, spec: ReportSpec, root: Path) -> JsonObject:
    """Return what a report shows of a run's grid cube: `outline`, the days of `rgb`, and the daily means of `series` (`smgeo.report.schema.Grid`).

    The outline is written to the run's folder as `outline.geojson`, so that the report can be rewritten without the data.
    """
    cube, inside = open_cube(folder / "grid.zarr"), None
    shown: JsonObject = {}
    if spec.outline is not None:
        box = cube.odc.geobox
        outline = read_outline(root / spec.outline, box.crs)
        inside = pixels_inside(outline, box)
        write_geojson(outline, box.crs, folder / "outline.geojson")
        shown["outline"] = {"file": "outline.geojson", "source": spec.outline, "pixels": int(inside.sum())}
    if spec.rgb is not None:
        days = [str(d) for d in spec.dates] or choose_days(cube, spec.rgb)
        shown["rgb"] = {"variables": list(spec.rgb), "dates": days}
    if spec.series:
        shown["series"] = average_days(cube, spec.series, inside)
    return shown


def choose_days(cube: xr.Dataset, names: Sequence[str], count: int = RGB_DAYS) -> list[str]:
    """Return the days with the most pixels that have all of `names`; of equally good days, some spread over the period."""
    together = reduce(and_, (cube[n].notnull() for n in names))
    pixels = np.asarray(together.sum(("y", "x")).data.compute())
    return [str(pd.Timestamp(d).date()) for d in cube["time"].values[best_days(pixels, count)]]


def best_days(pixels: np.ndarray, count: int) -> np.ndarray:
    """Return positions of the `count` largest numbers above 0, in order; of numbers tied with the smallest, some spread evenly.

    >>> best_days(np.array([0, 5, 5, 5, 9, 5, 5, 0]), 3).tolist()
    [1, 4, 6]
    """
    seen = np.flatnonzero(pixels)
    if seen.size <= count:
        return seen
    least = np.sort(pixels[seen])[-count]
    better, tied = seen[pixels[seen] > least], seen[pixels[seen] == least]
    spread = tied[np.linspace(0, tied.size - 1, count - better.size).round().astype(int)]
    return np.sort(np.concatenate([better, spread]))


def average_days(cube: xr.Dataset, names: Sequence[str], inside: np.ndarray | None) -> JsonObject:
    """Return daily means of variables over the grid, or over the pixels `inside`, and the number of pixels in each.

    Parameters
    ----------
    cube : xarray.Dataset
        A lazy grid cube; read chunk by chunk.
    names : sequence of str
        Variables with dims (time, y, x).
    inside : array of bool (y, x) or None
        Pixels to average; all if None.

    Returns
    -------
    dict
        Name -> `units`, `days` (those with a value), `mean` (decibels are averaged as linear power), `pixels`.
    """
    where = None if inside is None else xr.DataArray(inside, dims=("y", "x"))
    out: JsonObject = {}
    for name in names:
        values = cube[name].astype("float64") if where is None else cube[name].astype("float64").where(where)
        units = str(cube[name].attrs.get("units", ""))
        power = 10 ** (values / 10) if units == "dB" else values
        sums = xr.Dataset({"mean": power.mean(("y", "x")), "pixels": values.notnull().sum(("y", "x"))}).compute()
        mean, pixels = sums["mean"].values, sums["pixels"].values
        seen = np.flatnonzero(pixels)
        shown = 10 * np.log10(mean[seen]) if units == "dB" else mean[seen]
        out[name] = {
            "units": units,
            "days": [str(pd.Timestamp(d).date()) for d in cube["time"].values[seen]],
            "mean": [float(f"{m:.7g}") for m in shown],
            "pixels": pixels[seen].tolist(),
        }
    return out
