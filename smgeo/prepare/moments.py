"""Mean and standard deviation of each place and of many places, independent of chunks.

Sums are taken over the whole series of each station and added in the order of the stations, so that a fitted number is the same
to the last bit however the cube is stored.
"""

# mypy: untyped-calls-exclude="dask"

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute

from smgeo.cube.schema import check_numbers
from smgeo.threads import compiled


def as_float(x: np.ndarray) -> np.ndarray:
    """Return float32 or float64 values in the machine's byte order, which compiled code supports."""
    return np.asarray(x, dtype=np.result_type(x, np.float32))


def as_series(x: np.ndarray, axis: int) -> np.ndarray:
    """Return the values with `axis` last, contiguous, in a float type that compiled code supports."""
    x = as_float(x)
    if axis == 0:  # a table is transposed many times faster than a cube
        _, *places = x.shape
        return np.ascontiguousarray(x.reshape(len(x), math.prod(places)).T).reshape(*places, len(x))
    return np.ascontiguousarray(np.moveaxis(x, axis, -1))


@compiled(error_model="numpy")
def moments_of_rows(rows: np.ndarray) -> np.ndarray:
    """Return count, mean, and sum of squares about the mean of each row, (rows, 3) float64, without missing values.

    A row is read twice, the second time from the processor's cache. So the result is exact if the mean is far from 0.
    """
    out = np.zeros((rows.shape[0], 3))
    for r in range(rows.shape[0]):
        count, total, squares = 0, 0.0, 0.0
        for x in rows[r]:
            if np.isfinite(x):
                count += 1
                total += x
        mean = total / count
        for x in rows[r]:
            if np.isfinite(x):
                squares += (x - mean) ** 2
        if count > 0:
            out[r, 0], out[r, 1], out[r, 2] = count, mean, squares
    return out


@compiled()
def combine_moments(rows: np.ndarray) -> tuple[float, float, float]:
    """Return the moments of all rows together, combined in their order (Chan, Golub and LeVeque 1983, eq. 2.1)."""
    count, mean, squares = 0.0, 0.0, 0.0
    for n, m, s in rows:
        if n > 0:
            count += n
            delta = m - mean
            mean += delta * n / count
            squares += s + delta * delta * n * (count - n) / count
    return count, mean, squares


def _moments_of_block(x: np.ndarray, *, axis: int | None) -> np.ndarray:
    """Apply `moments_of_rows` along `axis` (None: each value is its own place); the three moments are last."""
    rows = np.ascontiguousarray(as_float(x)[..., None]) if axis is None else as_series(x, axis)
    return moments_of_rows(rows.reshape(-1, rows.shape[-1])).reshape(*rows.shape[:-1], 3)


def _moments(variable: xr.DataArray) -> np.ndarray | da.Array:
    """Return the moments of each place, (places..., 3) float64, lazy if the variable is.

    Each task has whole series, so the chunks do not matter.
    """
    axis = variable.get_axis_num("time") if "time" in variable.dims else None
    data = variable.data
    if not isinstance(data, da.Array):
        return _moments_of_block(np.asarray(data), axis=axis)
    if axis is not None:
        data = data.rechunk({axis: -1})
    chunks = (*(c for i, c in enumerate(data.chunks) if i != axis), (3,))
    drop = [] if axis is None else [axis]
    meta = np.empty((0,) * len(chunks))
    made: da.Array = data.map_blocks(
        _moments_of_block, axis=axis, drop_axis=drop, new_axis=[len(chunks) - 1], chunks=chunks, meta=meta
    )
    return made


def _moments_of_places(ds: xr.Dataset, names: Iterable[str]) -> dict[str, np.ndarray]:
    names = list(names)
    check_numbers(ds, names, "mean and standard deviation")
    found: dict[str, np.ndarray] = compute({n: _moments(ds[n]) for n in names})[0]
    return found


def _mean_and_std(moments: np.ndarray) -> tuple[float, float]:
    count, mean, squares = combine_moments(moments.reshape(-1, 3))
    return (mean, float(np.sqrt(squares / count))) if count else (float("nan"), float("nan"))


def mean_and_std(ds: xr.Dataset, names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return the mean and population standard deviation of variables over all places and days, in one pass.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube or grid cube, lazy or not; missing and infinite values are left out.
    names : iterable of str
        Numeric variables.

    Returns
    -------
    dict
        Variable -> (mean, standard deviation), float64, in its unit; NaN without values. The same to the last bit for any
        chunking.

    Raises
    ------
    SmgeoError
        If a variable is not numeric.
    """
    return {n: _mean_and_std(m) for n, m in _moments_of_places(ds, names).items()}


def mean_and_std_of_places(ds: xr.Dataset, names: Iterable[str]) -> Mapping[str, tuple[xr.DataArray, xr.DataArray]]:
    """Return the same as `mean_and_std` for the series of each station (or pixel); variables need a time axis."""
    out = {}
    for name, moments in _moments_of_places(ds, names).items():
        dims = [d for d in ds[name].dims if d != "time"]
        count = np.where(moments[..., 0] > 0, moments[..., 0], np.nan)
        mean, std = np.where(np.isnan(count), np.nan, moments[..., 1]), np.sqrt(moments[..., 2] / count)
        out[name] = xr.DataArray(mean, dims=dims), xr.DataArray(std, dims=dims)
    return out
