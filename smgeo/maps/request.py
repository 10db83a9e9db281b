"""What is to be mapped: a model on a grid cube, days, a region; all that can be refused is refused here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401 - registers the accessor `.odc`
import pandas as pd
import xarray as xr
from dask.base import tokenize
from odc.geo.geobox import GeoBox

from smgeo.catalog import COORDINATES, FEATURES
from smgeo.cube import check_daily, check_units, is_grid, read_directly, units_of
from smgeo.errors import SmgeoError
from smgeo.outline import pixels_inside, read_outline
from smgeo.prepare import derive_features

Region = Sequence[float] | str | Path


@dataclass(frozen=True)
class MapRequest:
    """A checked request.

    Attributes
    ----------
    cube : xarray.Dataset
        The model's features on the grid of the map, in physical units, as lazy as they were given; every day of the cube.
    preparation : dict
        The model's.
    days : pandas.DatetimeIndex
        Days to map, in order.
    ends : numpy.ndarray of int
        Their positions in the cube.
    inside : xarray.DataArray of bool, or None
        (y, x): pixels of the region; None for all of the grid.
    box : GeoBox
        The grid of the map.
    token : str
        Of what the cube holds.
    """

    cube: xr.Dataset
    preparation: dict[str, Any]
    days: pd.DatetimeIndex
    ends: np.ndarray
    inside: xr.DataArray | None
    box: GeoBox
    token: str


def check_request(
    model: Any, cube: xr.Dataset, times: Sequence[Any] | None = None, region: Region | None = None
) -> MapRequest:
    """What `predict_map` is asked for, checked; arguments and errors are its own."""
    preparation = getattr(model, "preparation_", None)
    if not preparation:
        raise SmgeoError(
            "predict_map needs a model fitted on Windows, which know their preparation; this one was fitted on bare arrays"
        )
    if not is_grid(cube):
        raise SmgeoError("predict_map needs a grid cube with dims (time, y, x); for stations use evaluate")
    if "spatial_ref" not in cube.coords:
        raise SmgeoError(
            "the grid cube has no CRS (no coordinate spatial_ref); open it with smgeo.open_cube, or set one with cube.rio.write_crs"
        )
    days = check_daily(cube)
    wanted = _choose_days(days, times)
    token = _token_of(cube, preparation["features"])
    cube = read_directly(cube)
    cube = derive_features(cube, [f for f in preparation["features"] if f not in cube and _derivable(f, cube)])
    check_units(units_of(cube, map(str, cube.data_vars)), preparation["units"], "the grid cube")
    # With the days, which features that do not vary in time would leave behind.
    cube = cube[preparation["features"]].assign_coords(time=cube["time"]).assign_attrs(cube.attrs)
    # What is the same everywhere is read once, not in each block.
    cube = cube.assign({name: v.compute() for name, v in cube.data_vars.items() if v.dims == ("time",)})
    box = cube.odc.geobox
    inside = None
    if region is not None:
        rows, columns, inside = _choose_pixels(cube, region)
        cube, box = cube.isel(y=rows, x=columns), box[rows, columns]
    return MapRequest(cube, preparation, wanted, days.get_indexer(wanted), inside, box, token)


def _token_of(cube: xr.Dataset, features: Sequence[str]) -> str:
    """What the features come from: the names of Dask arrays, and values that are held."""
    used = {n for f in features for n in (f, *(FEATURES[f].derived_from if f in FEATURES else ()))}
    return str(tokenize([(n, v.data) for n, v in sorted(cube.variables.items()) if n in used or n in cube.coords]))


def _derivable(name: str, cube: xr.Dataset) -> bool:
    needs = FEATURES[name].derived_from if name in FEATURES else ()
    return bool(needs) and all(n in cube.variables or n in COORDINATES for n in needs)


def _choose_days(days: pd.DatetimeIndex, times: Sequence[Any] | None) -> pd.DatetimeIndex:
    if times is None:
        return days
    if isinstance(times, str):
        raise SmgeoError(f"predict_map: times is a list of days; write times=[{times!r}]")
    try:
        wanted = pd.DatetimeIndex([pd.Timestamp(t) for t in times]).unique().sort_values()
    except (ValueError, TypeError) as error:
        raise SmgeoError(f"predict_map: times holds what is no day ({error}); write days as 2020-05-31") from None
    if wanted.empty:
        raise SmgeoError("predict_map: times holds no day; give one, or leave times out for all days of the cube")
    outside = [str(t.date()) for t in wanted if t not in days]
    if outside:
        more = f" and {len(outside) - 5} more" if len(outside) > 5 else ""
        raise SmgeoError(
            f"maps: {', '.join(outside[:5])}{more} not in the grid cube, which holds {days[0].date()} to {days[-1].date()}"
        )
    return wanted


def _choose_pixels(cube: xr.Dataset, region: Region) -> tuple[slice, slice, xr.DataArray | None]:
    """Rows and columns of the grid that hold the region, and which pixels of them lie in it where it is no rectangle."""
    box = cube.odc.geobox
    if not isinstance(region, str | Path):
        return *_between(cube, region), None
    inside = pixels_inside(read_outline(region, box.crs), box)
    rows, columns = (_span(inside.any(axis=axis)) for axis in (1, 0))
    held = inside[rows, columns]
    return rows, columns, None if held.all() else xr.DataArray(held, dims=("y", "x"))


def _span(chosen: Any) -> slice:
    """From the first to the last position that is chosen."""
    at = np.flatnonzero(chosen)
    return slice(int(at[0]), int(at[-1]) + 1)


def _between(cube: xr.Dataset, bounds: Sequence[float]) -> tuple[slice, slice]:
    """Rows and columns whose pixels have their centres within bounds."""
    try:
        left, bottom, right, top = map(float, bounds)
    except (TypeError, ValueError):
        raise SmgeoError(
            f"region is (left, bottom, right, top) in the grid's CRS, or the path of a polygon file; got {bounds!r}"
        ) from None
    if not (left < right and bottom < top):
        raise SmgeoError(f"region {tuple(bounds)}: left must lie below right, and bottom below top")
    y, x = cube["y"].values, cube["x"].values
    rows, columns = (y >= bottom) & (y <= top), (x >= left) & (x <= right)
    if not (rows.any() and columns.any()):
        box = cube.odc.geobox
        raise SmgeoError(
            f"region {tuple(bounds)} holds no pixel of the grid (bounds {tuple(box.boundingbox.bbox)}, {box.crs})"
        )
    return _span(rows), _span(columns)
