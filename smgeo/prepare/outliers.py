"""Flags of outliers by z-score and of impossible values, and the removal of rows with flags.

A row (station and day) of a training station is dropped if its target, or a dynamic feature without a heavy tail, is beyond the
threshold. A static value would cost a whole station, and heavy rain is signal. Rows of other stations are never dropped
or clipped. Among thresholds that do equally well within one standard error, the greatest drops the least.
"""

# mypy: untyped-calls-exclude="dask"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from dask.base import compute

from smgeo.bounds import check_arguments, checked
from smgeo.catalog import FEATURES, Feature
from smgeo.cube.schema import check_units, crs_encoding, observed, select_stations, station_positions, variables_of_kind
from smgeo.errors import SmgeoError, nearest
from smgeo.prepare.moments import mean_and_std, mean_and_std_of_places


@dataclass(frozen=True)
class OutlierRows:
    """Rows dropped as outliers.

    Attributes
    ----------
    rows : int
        Station-days that lost their target.
    by_variable : dict of str to int
        Number of these rows by flagged variable; a row counts for every variable that is flagged on it.
    """

    rows: int = 0
    by_variable: dict[str, int] = field(default_factory=dict)


@checked
def flag_outliers(
    ds: xr.Dataset, z: float, stations: Sequence[str] | None = None, *, per_station: bool = False
) -> xr.Dataset:
    """Flag values further than `z` standard deviations from the mean of their variable.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube (or grid cube, without `stations`).
    z : float
        Threshold; the study searched between 3 and 5 (see `choose_z`).
    stations : sequence of str, optional
        Ids of the stations whose values give mean and (population) standard deviation: the training stations. All by default.
    per_station : bool
        Use mean and standard deviation of each station's (or pixel's) own series; variables without a time axis are not
        flagged.

    Returns
    -------
    xarray.Dataset
        bool, of kind "flag", True where a value is an outlier; missing and infinite values are not. For dynamic, static and target
        variables. Lazy if `ds` is, except for the statistics: these are computed in one pass, with whole series of the
        chunks in work in memory, and are the same to the last bit for any chunking.

    Raises
    ------
    SmgeoError
        If `z` is not positive, both `stations` and `per_station` are given, `stations` is empty or has one that the cube
        lacks, or a variable is not numeric.
    """
    check_arguments("flag_outliers", z=z)
    names = variables_of_kind(ds, "dynamic", "static", "target")
    if not per_station:
        if stations is not None and not len(stations):
            raise SmgeoError("flag_outliers: stations is empty; pass the ids of the training stations, or None for all")
        source = ds if stations is None else select_stations(ds, stations)
        return _flag(ds, z, mean_and_std(source, names))
    if stations is not None:
        raise SmgeoError(
            "flag_outliers: with per_station each station has its own mean and standard deviation, so `stations` has no effect; "
            "leave one of the two out"
        )
    return _flag(ds, z, mean_and_std_of_places(ds, [n for n in names if "time" in ds[n].dims]))


def _flag(
    ds: xr.Dataset, z: float, limits: Mapping[str, tuple[xr.DataArray | float, xr.DataArray | float]]
) -> xr.Dataset:
    # Compared as |x - mean| > z std, so that a constant variable (std 0) flags nothing.
    distances = {n: abs(ds[n].astype("float64") - mean) for n, (mean, _) in limits.items()}
    flags = {n: (distances[n] > z * std) & observed(distances[n]) for n, (_, std) in limits.items()}
    return _as_flags(flags, ds)


def _as_flags(flags: Mapping[str, xr.DataArray], ds: xr.Dataset) -> xr.Dataset:
    """Return the flags with the grid mapping of their variables, but without their units and kind."""
    for name, flag in flags.items():
        flag.attrs = {**{k: v for k, v in ds[name].attrs.items() if k == "grid_mapping"}, "kind": "flag"}
        flag.encoding = crs_encoding(ds[name])
    return xr.Dataset(flags, coords=ds.coords)


def flag_out_of_range(ds: xr.Dataset, catalog: Mapping[str, Feature] = FEATURES) -> xr.Dataset:
    """Flag values outside the catalogue's range of physically possible values.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube or grid cube in the catalogue's units, not scaled.
    catalog : mapping
        Valid range and unit of each variable.

    Returns
    -------
    xarray.Dataset
        bool, of kind "flag", as lazy as `ds`, True outside the range (its ends are inside); missing and infinite values are not flagged.
        Variables that the catalogue lacks are left out.

    Raises
    ------
    SmgeoError
        If a variable is in another unit than the catalogue's, or scaled.
    """
    names = [str(n) for n in ds.data_vars if n in catalog]
    have = {n: "scaled units" if "unscaled_units" in ds[n].attrs else str(ds[n].attrs.get("units", "")) for n in names}
    check_units(have, {n: catalog[n].units for n in names}, "the cube whose range is checked")
    flags: dict[str, xr.DataArray] = {}
    for name in names:
        low, high = catalog[name].valid_range
        flags[name] = ((ds[name] < low) | (ds[name] > high)) & observed(ds[name])
    return _as_flags(flags, ds)


def _is_heavy_tailed(variable: xr.DataArray) -> bool:
    """Return the attribute `heavy_tailed`, or the catalogue's entry for the name."""
    known = FEATURES.get(str(variable.name))
    return bool(variable.attrs.get("heavy_tailed", known is not None and known.heavy_tailed))


def drop_outlier_rows(
    ds: xr.Dataset,
    flags: xr.Dataset,
    stations: Sequence[str],
    target: str = "sm",
    variables: Sequence[str] | None = None,
) -> tuple[xr.Dataset, OutlierRows]:
    """Set the target to missing on every row of `stations` with a flagged value; other stations are not changed.

    Parameters
    ----------
    ds, flags : xarray.Dataset
        Station cube, and its flags from `flag_outliers` or `flag_out_of_range`.
    stations : sequence of str
        Ids of the training stations.
    target : str
        Variable whose rows (station and day with a value) are dropped.
    variables : sequence of str, optional
        Variables whose flags drop a row. By default the target and the dynamic variables that are not heavy-tailed (attribute
        `heavy_tailed`, or the catalogue): a flagged static value would drop a whole station, and heavy rain is signal.

    Returns
    -------
    (xarray.Dataset, OutlierRows)
        The cube with the target missing on dropped rows (an integer target becomes float64), as lazy as `ds`; and the number
        of these rows, computed in one pass.

    Raises
    ------
    SmgeoError
        If `variables` names one that `flags` lacks, or `stations` one that the cube lacks.
    """
    if variables is None:
        moving = variables_of_kind(ds, "dynamic")
        variables = [n for n in flags.data_vars if n == target or (n in moving and not _is_heavy_tailed(ds[n]))]
    for name in variables:
        if name not in flags:
            raise SmgeoError(f"flags has no variable {name!r}; {nearest(name, [str(n) for n in flags.data_vars])}")
    chosen = np.zeros(ds.sizes["station"], dtype=bool)
    chosen[station_positions(ds, stations)] = True
    rows = xr.DataArray(chosen, dims="station") & observed(ds[target])
    flagged = {n: flags[n] & rows for n in variables}
    dropped = xr.zeros_like(rows)
    for one in flagged.values():
        dropped = dropped | one
    counts, total = compute({n: one.sum() for n, one in flagged.items()}, dropped.sum())
    kept = ds[target].where(~dropped).transpose(*ds[target].dims)
    lost = OutlierRows(int(total), {n: int(count) for n, count in counts.items()})
    return ds.assign({target: kept.assign_attrs(ds[target].attrs)}), lost
