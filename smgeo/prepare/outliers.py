"""Outliers by z-score, with statistics from training stations alone; flags only, unless rows are dropped by choice."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import dask
import numpy as np
import xarray as xr

from smgeo.cube import variables_of_kind
from smgeo.errors import SmgeoError


def flag_outliers(ds: xr.Dataset, z: float, stations: Sequence[str] | None = None) -> xr.Dataset:
    """Values further than `z` standard deviations from the mean, per variable.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube (or grid cube, without `stations`).
    z : float
        Threshold; the study sought it between 3 and 5.
    stations : sequence of str, optional
        Ids whose values give mean and (population) standard deviation: the training stations. All, where None.

    Returns
    -------
    xarray.Dataset
        bool, True where a value is an outlier; missing values are not. For dynamic, static and target
        variables. Lazy where `ds` is, but for the statistics, which are computed in one pass.

    Raises
    ------
    SmgeoError
        If `z` is not positive.
    """
    if not z > 0:
        raise SmgeoError(f"z must be a positive number; got {z}")
    names = variables_of_kind(ds, "dynamic", "static", "target")
    source = ds[names] if stations is None else ds[names].sel(station=list(stations))
    wide = source.astype("float64")
    with warnings.catch_warnings():
        # A variable without any value has no mean, and flags nothing.
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
        mean, std = dask.compute(wide.mean(), wide.std())
    # Compared as |x - mean| > z std, so that a constant variable (std 0) flags nothing.
    return xr.Dataset({n: np.abs(ds[n].astype("float64") - mean[n]) > z * std[n] for n in names}, coords=ds.coords)


def drop_outlier_rows(
    ds: xr.Dataset, flags: xr.Dataset, stations: Sequence[str], target: str = "sm"
) -> tuple[xr.Dataset, int]:
    """Take the target away on every row of `stations` that holds a flagged value; other stations stay as they are.

    Parameters
    ----------
    ds, flags : xarray.Dataset
        Station cube, and what `flag_outliers` gave for it.
    stations : sequence of str
        The training stations.
    target : str
        The variable whose rows (station and day with a value) are dropped.

    Returns
    -------
    (xarray.Dataset, int)
        The cube with the target missing on dropped rows, and how many rows that were.
    """
    flagged = xr.zeros_like(flags[target], dtype=bool)
    for name in flags.data_vars:
        flagged = flagged | flags[name]
    chosen = flagged & ds["station"].isin(list(stations))
    dropped = int((chosen & ds[target].notnull()).sum())
    kept = ds[target].where(~chosen).astype(ds[target].dtype).transpose(*ds[target].dims)
    return ds.assign({target: kept.assign_attrs(ds[target].attrs)}), dropped
