"""Features derived from others: day of year, cross ratio, indices, antecedent precipitation, terrain.

They are made of observations, before gaps are filled. A sum over days is missing if one of its days is.
"""

# mypy: untyped-calls-exclude="dask"

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from pyproj import Transformer

from smgeo.bounds import checked
from smgeo.catalog import COORDINATES, FEATURES
from smgeo.cube.schema import check_known_units, is_grid, units_of
from smgeo.errors import SmgeoError
from smgeo.prepare.moments import as_float
from smgeo.prepare.steps import with_step
from smgeo.terrain import TERRAIN, terrain
from smgeo.threads import compiled

_Formula: TypeAlias = Callable[[xr.Dataset], xr.DataArray]


def _day_of_year(ds: xr.Dataset) -> xr.DataArray:
    days = pd.DatetimeIndex(ds.indexes["time"]).day_of_year.to_numpy("float64")
    return xr.DataArray(days, dims="time", coords={"time": ds["time"]})


def _doy_angle(ds: xr.Dataset) -> xr.DataArray:
    """Return the angle of the day in the year: 0 on 1 January, 2 pi after 365.25 days."""
    return (_day_of_year(ds) - 1) * (2 * np.pi / 365.25)


def _normalised_difference(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    total = a + b
    return (a - b) / total.where(total > 0)


@compiled()
def _sum_rows(rows: np.ndarray, days: int, out: np.ndarray) -> None:
    for r in range(rows.shape[0]):
        for t in range(rows.shape[1]):
            total = 0.0 if t + 1 >= days else np.nan
            for d in range(min(days, t + 1)):
                total += rows[r, t - d]
            out[r, t] = total


def _running_sum(values: np.ndarray, days: int) -> np.ndarray:
    """Sum the last `days` entries of the last axis, float32; NaN where one of them is missing.

    >>> _running_sum(np.array([1.0, 2.0, 3.0, np.nan, 1.0]), 2).tolist()
    [nan, 3.0, 5.0, nan, nan]
    """
    rows = np.ascontiguousarray(as_float(values)).reshape(-1, values.shape[-1])
    out = np.empty(rows.shape, dtype="float32")
    _sum_rows(rows, days, out)
    return out.reshape(values.shape)


def _antecedent(days: int) -> _Formula:
    def compute(ds: xr.Dataset) -> xr.DataArray:
        rain = ds["precipitation"]
        # A day's rate in mm d-1 times one day is the day's sum in mm.
        last = rain.transpose(..., "time")
        if isinstance(last.data, da.Array):
            return last.copy(data=_lazy_running_sum(last.data, days)).transpose(*rain.dims)
        return last.copy(data=_running_sum(last.data, days)).transpose(*rain.dims)

    return compute


def _lazy_running_sum(values: da.Array, days: int) -> da.Array:
    """Apply `_running_sum` chunk by chunk, each with the earlier days that it needs, never to the whole series."""
    axis, empty = values.ndim - 1, np.empty((0,) * values.ndim, "float32")

    def of_block(block: np.ndarray, block_info: Mapping[int, Mapping[str, Sequence[int]]]) -> np.ndarray:
        extra = 0 if block_info[0]["chunk-location"][axis] == 0 else days - 1
        return _running_sum(block, days)[..., extra:]

    if values.shape[axis] <= days:
        whole = values.rechunk({axis: -1})
        summed: da.Array = whole.map_blocks(_running_sum, days, dtype="float32", meta=empty)
        return summed
    # Chunks shorter than `days` are joined for the sum, and cut again after it.
    long_enough = values.rechunk({axis: da.overlap.ensure_minimum_chunksize(days, values.chunks[axis])})
    with_past = da.overlap.overlap(long_enough, depth={axis: (days - 1, 0)}, boundary="none")
    summed = with_past.map_blocks(of_block, dtype="float32", chunks=long_enough.chunks, meta=empty)
    rechunked: da.Array = summed.rechunk(values.chunks)
    return rechunked


def _terrain(name: str) -> _Formula:
    def compute(ds: xr.Dataset) -> xr.DataArray:
        elevation = ds["elevation"]
        if not {"y", "x"} <= set(elevation.dims):
            raise SmgeoError(
                f"{name!r} is derived from the elevation around a place, which a cube with dims {tuple(ds.sizes)} lacks; add "
                f"elevation as a raster, or {name} from a source"
            )
        return terrain(elevation)[name]

    return compute


def _degrees(y: np.ndarray, x: np.ndarray, crs: str, name: str) -> np.ndarray:
    """Return latitude or longitude of pixel centres, (y, x) float32."""
    every_x, every_y = np.broadcast_arrays(x, y)
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(every_x, every_y)
    return np.asarray(latitude if name == "latitude" else _one_form(longitude), dtype="float32")


def _one_form(longitude: np.ndarray) -> np.ndarray:
    """Return longitudes from -180 up to 180, so that a place has one, whatever the form of its source.

    >>> _one_form(np.array([262.0, 180.0, -98.0, 8.4])).tolist()
    [-98.0, -180.0, -98.0, 8.4]
    """
    longitude = np.asarray(longitude)
    return np.where((longitude >= -180) & (longitude < 180), longitude, (longitude + 180) % 360 - 180)


def _coordinate(name: str) -> _Formula:
    def compute(ds: xr.Dataset) -> xr.DataArray:
        if name in ds.coords and ds[name].dims == ("station",):
            values = ds[name].values if name == "latitude" else _one_form(ds[name].values)
            return xr.DataArray(values, dims="station", coords={"station": ds["station"]})
        box = ds.odc.geobox if is_grid(ds) else None
        if box is None or box.crs is None:
            raise SmgeoError(
                f"the cube has no {name}: a station cube needs it as a coordinate, a grid cube a CRS (rio.write_crs)"
            )
        y, x = ds["y"].values[:, None], ds["x"].values[None, :]
        chunks = ds.chunksizes
        if "y" in chunks and "x" in chunks:
            y, x = da.from_array(y, (chunks["y"], 1)), da.from_array(x, (1, chunks["x"]))
            made = da.map_blocks(
                _degrees, y, x, box.crs.to_wkt(), name, chunks=(chunks["y"], chunks["x"]), dtype="float32"
            )
        else:
            made = _degrees(y, x, box.crs.to_wkt(), name)
        return xr.DataArray(made, dims=("y", "x"), coords={n: ds[n] for n in ("y", "x")})

    return compute


_FORMULAS: dict[str, _Formula] = {
    "day_of_year": _day_of_year,
    "doy_sin": lambda ds: xr.ufuncs.sin(_doy_angle(ds)),
    "doy_cos": lambda ds: xr.ufuncs.cos(_doy_angle(ds)),
    # A ratio of powers is a difference of decibels.
    "s1_cross_ratio": lambda ds: ds["s1_vh"] - ds["s1_vv"],
    # Rouse et al. 1974.
    "ndvi": lambda ds: _normalised_difference(ds["s2_b8"], ds["s2_b4"]),
    # Gao 1996, on Sentinel-2's B8 and B11.
    "ndmi": lambda ds: _normalised_difference(ds["s2_b8"], ds["s2_b11"]),
    **{name: _antecedent(f.looks_back_days + 1) for name, f in FEATURES.items() if f.looks_back_days},
    **{name: _terrain(name) for name in TERRAIN},
    "lat": _coordinate("latitude"),
    "lon": _coordinate("longitude"),
}


@checked
def derive_features(ds: xr.Dataset, names: Iterable[str]) -> xr.Dataset:
    """Add the derived features in `names` that `ds` lacks.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube or grid cube, lazy or not.
    names : iterable of str
        Features to add; those that `ds` has are not changed.

    Returns
    -------
    xarray.Dataset
        `ds` with the missing features, float32, as lazy as `ds`. A value is missing if one of its inputs is (for an
        antecedent sum: any of its days; for slope and aspect: any of nine pixels, so the raster's border has none).
        Calendar features have only the dim `time`.

    Raises
    ------
    SmgeoError
        If a feature cannot be derived from the variables of `ds` (slope and aspect need the elevation of a grid cube), or if
        an input has another unit than in the catalogue.
    """
    names = list(dict.fromkeys(names))
    added = [n for n in names if n not in ds]
    out = ds
    for name in added:
        feature = FEATURES.get(name)
        if feature is None or name not in _FORMULAS:
            raise SmgeoError(
                f"{name!r} is not in the cube and is not a derived feature; derived: {', '.join(_FORMULAS)}"
            )
        lacking = [n for n in feature.derived_from if n not in ds.variables and n not in COORDINATES]
        if lacking:
            raise SmgeoError(
                f"{name!r} is derived from {', '.join(feature.derived_from)}; the cube lacks {', '.join(lacking)}"
            )
        needed = {n: FEATURES[n].units for n in feature.derived_from if n in FEATURES}
        check_known_units(units_of(ds, needed), needed, f"the variables that {name!r} is derived from")
        made = _FORMULAS[name](ds).astype("float32")
        # The attributes of terrain already name the elevation that it was computed from.
        out = out.assign({name: made if name in TERRAIN else made.assign_attrs(feature.attrs())})
    return with_step(out, "derive", features=added) if added else out
