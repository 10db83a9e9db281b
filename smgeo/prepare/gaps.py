"""Gap filling along time, within one place, limited to half the revisit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numba
import numpy as np
import xarray as xr

from smgeo.catalog import FEATURES
from smgeo.cube import check_daily, variables_of_kind
from smgeo.errors import SmgeoError, nearest
from smgeo.prepare.steps import with_step

_MEASURE = -1.0


@numba.njit(cache=True, nogil=True)
def _fill_series(x: np.ndarray, out: np.ndarray, revisit: float, fallback: float, limit: int) -> None:
    """Fill one series; `limit` < 0 means half of `revisit`, and `revisit` < 0 means: measure it here."""
    n = x.size
    observed = np.empty(n, dtype=np.int64)
    count = 0
    for i in range(n):
        out[i] = x[i]
        if not np.isnan(x[i]):
            observed[count] = i
            count += 1
    if count == 0:
        return
    if limit < 0:
        if revisit < 0:
            revisit = np.median(np.diff(observed[:count])) if count > 1 else fallback
        limit = int(np.floor(revisit / 2))
    if limit == 0:
        return
    first, last = observed[0], observed[count - 1]
    for i in range(max(0, first - limit), first):
        out[i] = x[first]
    for i in range(last + 1, min(n, last + limit + 1)):
        out[i] = x[last]
    for k in range(count - 1):
        a, b = observed[k], observed[k + 1]
        if b - a < 2:
            continue
        x0 = np.float64(x[a])
        slope = (np.float64(x[b]) - x0) / (b - a)
        for i in range(a + 1, b):
            if i - a <= limit or b - i <= limit:
                out[i] = slope * (i - a) + x0


@numba.njit(cache=True, nogil=True)
def _fill_rows(x: np.ndarray, revisit: np.ndarray, fallback: float, limit: int) -> np.ndarray:
    out = np.empty_like(x)
    for r in range(x.shape[0]):
        _fill_series(x[r], out[r], revisit[r], fallback, limit)
    return out


def _fill_block(x: np.ndarray, revisit: np.ndarray, fallback: float, limit: int) -> np.ndarray:
    """Fill along the last axis; `revisit` has the other axes' shape."""
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    days = np.ascontiguousarray(np.broadcast_to(revisit, x.shape[:-1]), dtype=np.float64).reshape(-1)
    return _fill_rows(rows, days, fallback, limit).reshape(x.shape)


@numba.njit(cache=True, nogil=True)
def _median_gaps(x: np.ndarray) -> np.ndarray:
    out = np.full(x.shape[0], np.nan)
    for r in range(x.shape[0]):
        seen = np.flatnonzero(~np.isnan(x[r]))
        if seen.size > 1:
            out[r] = np.median(np.diff(seen))
    return out


def measure_revisit(variable: xr.DataArray) -> xr.DataArray:
    """Median days between observations of each place; NaN where there are fewer than two.

    >>> import numpy as np, xarray as xr
    >>> x = xr.DataArray([[1, np.nan, np.nan, 2, np.nan, np.nan, 3.0]], dims=("station", "time"))
    >>> measure_revisit(x).values
    array([3.])
    """
    return xr.apply_ufunc(
        lambda x: _median_gaps(np.ascontiguousarray(x).reshape(-1, x.shape[-1])).reshape(x.shape[:-1]),
        variable.chunk({"time": -1}) if variable.chunks is not None else variable,
        input_core_dims=[["time"]],
        dask="parallelized",
        output_dtypes=[np.float64],
    )


def _revisit_of(variable: xr.DataArray, revisit: str) -> xr.DataArray:
    """Days between observations for each series, or -1 where the series itself is to be measured."""
    others = [d for d in variable.dims if d != "time"]
    shape = [variable.sizes[d] for d in others]
    known = variable.attrs.get("revisit_days")
    if revisit == "measured" or known is None:
        return xr.DataArray(np.full(shape, _MEASURE), dims=others)
    days = np.asarray(known, dtype=np.float64)
    if days.ndim and list(days.shape) != shape:
        raise SmgeoError(
            f"{variable.name}: attrs['revisit_days'] has {days.size} numbers for {shape} places; set one number, or fill "
            "with revisit='measured'"
        )
    # A place never measured twice has no revisit of its own.
    return xr.DataArray(np.broadcast_to(np.where(np.isnan(days), _MEASURE, days), shape).copy(), dims=others)


def fill_gaps(
    ds: xr.Dataset,
    limit: Literal["half-revisit"] | int | Mapping[str, int] = "half-revisit",
    *,
    revisit: Literal["attribute", "measured"] = "attribute",
) -> xr.Dataset:
    """Interpolate dynamic variables linearly along time, within each station or pixel, up to a limit.

    Equals pandas `interpolate(method="linear", limit=L, limit_direction="both")` on each series: a gap longer than
    2 L is filled L days in from either side and stays open between, and up to L days before the first and after
    the last observation hold that observation. Observations after a day are used to fill it: for forecasts this
    is not causal. The target, static and calendar variables are never touched.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube or grid cube with a daily time axis.
    limit : "half-revisit", int or mapping
        L in whole days: `floor(revisit / 2)`, one number, or one a variable (others are left alone). 0 fills nothing.
    revisit : {"attribute", "measured"}
        Where the revisit comes from: the variable's `revisit_days` (one number, or one a place) and, where that is
        missing, the median days between observations of the series; or always the latter. The catalogue's nominal
        revisit serves a series with fewer than two observations.

    Returns
    -------
    xarray.Dataset
        As lazy as `ds`; each task holds one spatial chunk over the whole series.

    Raises
    ------
    SmgeoError
        If the time axis is not daily, or the limit is not one of the above.
    """
    check_daily(ds)
    dynamic = variables_of_kind(ds, "dynamic")
    if isinstance(limit, str) and limit != "half-revisit":
        raise SmgeoError(f"limit must be 'half-revisit', a number of days, or a mapping of them; got {limit!r}")
    limits: Mapping[str, int | str]
    if isinstance(limit, Mapping):
        limits = limit
        for name in limits:
            if name not in dynamic:
                raise SmgeoError(
                    f"limit names {name!r}, which is no dynamic variable of the cube; {nearest(name, dynamic)}"
                )
    else:
        limits = dict.fromkeys(dynamic, limit)
    filled = {}
    for name, days in limits.items():
        if not isinstance(days, str) and (days < 0 or int(days) != days):
            raise SmgeoError(f"limit for {name!r} must be a whole number of days, 0 or more; got {days}")
        variable = ds[name]
        known = FEATURES.get(name)
        fallback = known.revisit_days if known is not None and known.revisit_days is not None else 0.0
        result = xr.apply_ufunc(
            _fill_block,
            variable.chunk({"time": -1}) if variable.chunks is not None else variable,
            _revisit_of(variable, revisit),
            kwargs={"fallback": fallback, "limit": -1 if isinstance(days, str) else int(days)},
            input_core_dims=[["time"], []],
            output_core_dims=[["time"]],
            dask="parallelized",
            output_dtypes=[variable.dtype],
            keep_attrs=True,
        )
        filled[name] = result.transpose(*variable.dims).assign_attrs(variable.attrs)
    # What other places will be filled by: a number where these had one for all, their own revisit otherwise.
    record = {n: _limit_elsewhere(ds[n], days, revisit) for n, days in limits.items()}
    return with_step(ds.assign(filled), "fill_gaps", limit=record, revisit=revisit)


def _limit_elsewhere(variable: xr.DataArray, days: int | str, revisit: str) -> int | str:
    known = variable.attrs.get("revisit_days")
    if not isinstance(days, str):
        return int(days)
    return "half-revisit" if revisit == "measured" or known is None or np.ndim(known) else int(known // 2)
