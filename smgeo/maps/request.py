"""Requests for maps: model, grid cube, days, region and outputs, all checked before any work."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, get_args

import numpy as np
import odc.geo.xr  # noqa: F401 - registers the accessor `.odc`
import pandas as pd
import xarray as xr
from dask.base import tokenize
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from smgeo.bounds import check_arguments, check_day
from smgeo.catalog import COORDINATES, FEATURES
from smgeo.cube.chunks import GRID_CHUNK
from smgeo.cube.reading import without_dask
from smgeo.cube.schema import check_daily, check_name, check_references, check_units, is_grid, references_of, units_of
from smgeo.errors import SmgeoError
from smgeo.maps.block import Outputs
from smgeo.models.applicability import Applicability
from smgeo.models.protocol import Model
from smgeo.polygons import pixels_inside, read_outline
from smgeo.prepare import derive_features
from smgeo.prepare.steps import Preparation
from smgeo.recipe.output import DENSITY, EXPECTED_ERROR, MapLayer
from smgeo.recipe.validation import INTERVAL_LEVEL

# (left, bottom, right, top) in the grid's CRS, or a polygon file.
Extent: TypeAlias = Sequence[float] | str | Path
Day: TypeAlias = str | dt.date | np.datetime64


@dataclass(frozen=True)
class MapOptions:
    """The part of a cube to map, and the variables of the map; see `predict_map`."""

    region: Extent | None = None
    intervals: float | bool | None = None
    applicability: bool | None = None
    overviews: bool = False
    layers: Sequence[str] = ()


@dataclass(frozen=True)
class MapRequest:
    """A checked request.

    Attributes
    ----------
    cube : xarray.Dataset
        The model's features on the grid of the map, in physical units; lazy if they were given lazy. Every day of the cube.
    preparation : Preparation
        The model's.
    outputs : Outputs
        Variables of the map.
    days : pandas.DatetimeIndex
        Days to map, in order.
    ends : numpy.ndarray of int
        Their positions in the cube.
    inside : xarray.DataArray of bool, or None
        (y, x): pixels of the region; None for the whole grid.
    box : GeoBox
        The grid of the map.
    token : str
        Identifies the content of the cube.
    """

    cube: xr.Dataset
    preparation: Preparation
    outputs: Outputs
    days: pd.DatetimeIndex
    ends: np.ndarray
    inside: xr.DataArray | None
    box: GeoBox
    token: str


def check_request(model: Model, cube: xr.Dataset, times: Sequence[Day] | None, options: MapOptions) -> MapRequest:
    """Check the arguments of `predict_map`, and raise its errors."""
    preparation: Preparation | None = getattr(model, "preparation_", None)
    if isinstance(model, str | Path):
        raise SmgeoError(f"predict_map takes a model, not its path; give smgeo.load_model({str(model)!r})")
    if not preparation:
        raise SmgeoError(
            "predict_map needs a model fitted on Windows, which know their preparation; this one was fitted on bare arrays"
        )
    if not is_grid(cube):
        raise SmgeoError("predict_map needs a grid cube with dims (time, y, x); for stations use evaluate")
    check_name(preparation["target"], "the model's target")
    outputs = _choose_outputs(model, preparation["target"], options)
    if "spatial_ref" not in cube.coords:
        raise SmgeoError(
            "the grid cube has no CRS (no coordinate spatial_ref); open it with smgeo.open_cube, or set one with cube.rio.write_crs"
        )
    days = check_daily(cube)
    wanted = _choose_days(days, times)
    place = {n: cube.coords[n] for n in ("time", "y", "x", "spatial_ref") if n in cube.coords}
    token = _token_of(cube, preparation["features"])
    cube = _derive(without_dask(cube), [f for f in preparation["features"] if f not in cube and _derivable(f, cube)])
    check_units(units_of(cube, map(str, cube.data_vars)), preparation["units"], "the grid cube")
    check_references(references_of(cube, preparation["features"]), preparation.get("references", {}), "the grid cube")
    # With the coordinates of days and place, also those that no feature varies along.
    cube = cube[preparation["features"]].assign_coords(place).assign_attrs(cube.attrs)
    # Features without a place are read once, not in each block.
    cube = cube.assign({name: v.compute() for name, v in cube.data_vars.items() if v.dims == ("time",)})
    box = _box_of(cube)
    inside = None
    if options.region is not None:
        rows, columns, inside = _choose_pixels(cube, options.region)
        cube, box = cube.isel(y=rows, x=columns), box[rows, columns]
    return MapRequest(cube, preparation, outputs, wanted, days.get_indexer(wanted), inside, box, token)


def _choose_outputs(model: Model, target: str, options: MapOptions) -> Outputs:
    """Return the variables of the map: those asked for, by default all that the model has."""
    calibration, area = (getattr(model, name, None) for name in ("calibration_", "applicability_"))
    intervals, level = options.intervals, None
    if intervals is None or intervals is True:
        level = INTERVAL_LEVEL if calibration is not None or intervals else None
    elif intervals is not False:
        check_arguments("intervals", level=intervals)
        level = float(intervals)
    if level is not None:
        if calibration is None:
            raise SmgeoError(
                "intervals: the model is not calibrated; smgeo.calibrate(model, ds, split) does it on stations that it was not trained on"
            )
        calibration.check_level(level)
    if options.applicability and area is None:
        raise SmgeoError(
            "applicability: the model does not know its area of applicability; smgeo.find_applicability(model, ds, split) finds it"
        )
    wanted = area is not None if options.applicability is None else bool(options.applicability)
    return Outputs(target, level, wanted, _choose_layers(area, options.layers))


def _choose_layers(area: Applicability | None, layers: Sequence[str]) -> tuple[MapLayer, ...]:
    """Return the layers that are asked for, each once, in one order."""
    known: tuple[MapLayer, ...] = get_args(MapLayer)
    if wrong := [layer for layer in layers if layer not in known]:
        raise SmgeoError(f"layers: a list of some of {', '.join(known)}; got {', '.join(map(repr, wrong))}")
    if layers and area is None:
        raise SmgeoError(
            f"layers: {', '.join(layers)} tell of the area of applicability, which the model does not know; "
            "smgeo.find_applicability(model, ds, split) finds it"
        )
    for layer in layers:
        assert area is not None
        if layer == EXPECTED_ERROR:
            area.check_errors()
        elif layer == DENSITY:
            area.check_groups()
    return tuple(layer for layer in known if layer in layers)


def _box_of(cube: xr.Dataset) -> GeoBox:
    """Return the grid of a cube.

    Raises
    ------
    SmgeoError
        If its y and x are not the centres of pixels of one size.
    """
    box: GeoBox | None = cube.odc.geobox if {"y", "x"} <= set(cube.coords) else None
    if box is not None and box.axis_aligned:
        for name, (step, first) in {"x": (box.affine.a, box.affine.c), "y": (box.affine.e, box.affine.f)}.items():
            expected = first + step * (np.arange(cube.sizes[name]) + 0.5)
            if not np.allclose(cube[name].values, expected, rtol=0, atol=abs(step) / 100):
                box = None
                break
    if box is None or not box.axis_aligned:
        raise SmgeoError(
            "the grid cube's y and x are not the centres of pixels of one size in its CRS; give a cube on a regular grid (a grid of one "
            "pixel needs a GeoTransform in spatial_ref)"
        )
    return box


def _token_of(cube: xr.Dataset, features: Sequence[str]) -> str:
    """Identify the features: by the names of Dask arrays, values in memory, and the files of a store as they are now."""
    used = {n for f in features for n in (f, *(FEATURES[f].derived_from if f in FEATURES else ()))}
    # `_data`, since `data` would read what is lazy without Dask.
    values = [
        (n, v.data if n in cube.coords else v._data)
        for n, v in sorted(cube.variables.items())
        if n in {*used, *cube.coords}
    ]
    source = cube.encoding.get("source")
    files = [f for n in sorted(used) for f in sorted(Path(source, n).rglob("*"))] if source else []
    return str(tokenize(values, [(str(f), s.st_size, s.st_mtime_ns) for f in files if (s := f.stat())]))


def _derive(cube: xr.Dataset, features: list[str]) -> xr.Dataset:
    """Add features that are derived from others, lazily: a block computes its own part of them."""
    inputs = {n for f in features for n in FEATURES[f].derived_from if n in cube.data_vars}
    lazy = {
        n: cube[n].variable.chunk({d: GRID_CHUNK[str(d)] for d in cube[n].dims}) for n in inputs if not cube[n].chunks
    }
    derived = derive_features(cube.assign(lazy), features)
    return cube.assign({n: derived[n] for n in features}).assign_attrs(derived.attrs)


def _derivable(name: str, cube: xr.Dataset) -> bool:
    needs = FEATURES[name].derived_from if name in FEATURES else ()
    return bool(needs) and all(n in cube.variables or n in COORDINATES for n in needs)


def _choose_days(days: pd.DatetimeIndex, times: Sequence[Day] | None) -> pd.DatetimeIndex:
    if times is None:
        return days
    if isinstance(times, str):
        raise SmgeoError(f"predict_map: times is a list of days; write times=[{times!r}]")
    for time in times:
        check_day("predict_map: times", time)
    try:
        found = [pd.Timestamp(t) for t in times]
        # Days in UTC, at the hour of those of the cube.
        wanted = pd.DatetimeIndex([t.tz_convert(None) if t.tz else t for t in found]).normalize().unique().sort_values()
    except (ValueError, TypeError) as error:
        raise SmgeoError(f"predict_map: times contains an invalid day ({error}); write days as 2020-05-31") from None
    if wanted.empty:
        raise SmgeoError("predict_map: times contains no day; give one, or leave times out for all days of the cube")
    at = days.normalize().get_indexer(wanted)
    outside = [str(t.date()) for t in wanted[at < 0]]
    if outside:
        more = f" and {len(outside) - 5} more" if len(outside) > 5 else ""
        raise SmgeoError(
            f"maps: {', '.join(outside[:5])}{more} not in the grid cube, which covers {days[0].date()} to {days[-1].date()}"
        )
    return days[at]


def _choose_pixels(cube: xr.Dataset, region: Extent) -> tuple[slice, slice, xr.DataArray | None]:
    """Return the rows and columns of the grid around the region, and which of their pixels are in it if it is not a rectangle."""
    box = cube.odc.geobox
    if not isinstance(region, str | Path):
        return *_between(cube, region), None
    inside = pixels_inside(read_outline(region, box.crs), box)
    rows, columns = (_span(np.asarray(inside.any(axis=axis))) for axis in (1, 0))
    chosen = inside[rows, columns]
    return rows, columns, None if chosen.all() else xr.DataArray(chosen, dims=("y", "x"))


def _name_of(crs: CRS) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.proj.name)


def _span(chosen: np.ndarray) -> slice:
    """Return the slice from the first to the last chosen position."""
    at = np.flatnonzero(chosen)
    return slice(int(at[0]), int(at[-1]) + 1)


def _between(cube: xr.Dataset, bounds: Sequence[float]) -> tuple[slice, slice]:
    """Return the rows and columns of the pixels with centres within bounds."""
    try:
        left, bottom, right, top = map(float, bounds)
    except (TypeError, ValueError):
        raise SmgeoError(
            f"region is (left, bottom, right, top), four numbers in the grid's CRS, or the path of a polygon file; got {bounds!r}"
        ) from None
    if not (left < right and bottom < top):
        raise SmgeoError(f"region {tuple(bounds)}: left must be less than right, and bottom less than top")
    y, x = cube["y"].values, cube["x"].values
    rows, columns = (y >= bottom) & (y <= top), (x >= left) & (x <= right)
    if not (rows.any() and columns.any()):
        box = cube.odc.geobox
        raise SmgeoError(
            f"region {tuple(bounds)} contains no pixel of the grid (bounds {tuple(box.boundingbox.bbox)}, {_name_of(box.crs)})"
        )
    return _span(rows), _span(columns)
