"""Gap filling along time within each place, limited to half the revisit.

The revisit is measured at each station and pixel as the median gap between observations, in training and on the grid alike. The
catalogue's nominal revisit is used if there are fewer than two observations. In a station cube each variable keeps the
measured days in `revisit_days` and their stations in `revisit_stations`: a list in the order of a cube would be silently
wrong once stations are sorted, chosen or joined.
"""

# mypy: untyped-calls-exclude="dask"

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Literal, TypedDict

import dask.array as da
import numpy as np
import xarray as xr

from smgeo.bounds import checked
from smgeo.catalog import FEATURES
from smgeo.cube.schema import check_daily, check_numbers, crs_encoding, observed, text_of, variables_of_kind
from smgeo.errors import SmgeoError, nearest
from smgeo.files import JsonObject
from smgeo.prepare.moments import as_series
from smgeo.prepare.steps import with_step
from smgeo.threads import compiled, map_threads

# Limit of filling in days, by variable if they differ.
GapLimit = int | Literal["half-revisit"] | Mapping[str, int | Literal["half-revisit"]]
# Codes for a revisit that is measured from the series, and for a limit of half the revisit.
_MEASURE = -1.0
_HALF = -1


@compiled()
def _find_observed(x: np.ndarray, days: np.ndarray) -> int:
    """Write the positions of the observations to `days`, which is one longer than `x`; return their number."""
    count = 0
    for i in range(x.size):
        # Always written, so that there is no branch to mispredict if gaps are random.
        days[count] = i
        count += np.isfinite(x[i])
    return count


@compiled()
def _median(histogram: np.ndarray, count: int) -> float:
    """Return the median of `count` whole numbers from their histogram."""
    seen, value = 0, 0
    while seen <= (count - 1) // 2:
        seen += histogram[value]
        value += 1
    lower = value - 1
    while seen <= count // 2:
        seen += histogram[value]
        value += 1
    return (lower + value - 1) / 2


@compiled()
def _median_gap(days: np.ndarray, count: int, histogram: np.ndarray) -> float:
    """Return the median of the steps between `days`; `histogram` is all zeros before and after."""
    for k in range(1, count):
        histogram[days[k] - days[k - 1]] += 1
    median = _median(histogram, count - 1)
    for k in range(1, count):
        histogram[days[k] - days[k - 1]] = 0
    return median


@compiled()
def _fill_both_ways(x: np.ndarray, out: np.ndarray, days: np.ndarray, count: int, limit: int) -> None:
    """Interpolate linearly up to `limit` days from an observation; extend the first and the last one."""
    first, last = days[0], days[count - 1]
    for i in range(max(0, first - limit), first):
        out[i] = x[first]
    for i in range(last + 1, min(x.size, last + limit + 1)):
        out[i] = x[last]
    for k in range(1, count):
        a, b = days[k - 1], days[k]
        if b - a < 2:
            continue
        x0, x1 = np.float64(x[a]), np.float64(x[b])
        slope = (x1 - x0) / (b - a)
        for i in range(a + 1, min(a + limit + 1, b)):
            out[i] = slope * (i - a) + x0
        for i in range(max(b - limit, a + limit + 1), b):
            out[i] = slope * (i - a) + x0


@compiled()
def _hold_last(
    x: np.ndarray, out: np.ndarray, days: np.ndarray, count: int, limit: int, fallback: float, histogram: np.ndarray
) -> None:
    """Extend each observation by up to `limit` days; a limit of `_HALF` is measured from the gaps up to the observation."""
    for k in range(count):
        hold = limit
        if limit == _HALF:
            if k > 0:
                histogram[days[k] - days[k - 1]] += 1
            hold = int((_median(histogram, k) if k > 0 else fallback) // 2)
        end = days[k + 1] if k + 1 < count else x.size
        for i in range(days[k] + 1, min(days[k] + hold + 1, end)):
            out[i] = x[days[k]]
    histogram[:] = 0


@compiled()
def _fill_rows(x: np.ndarray, out: np.ndarray, revisit: np.ndarray, fallback: float, limit: int, causal: bool) -> None:
    """Fill every row of `x` into `out`; `limit` may be `_HALF`, and `revisit` of a row `_MEASURE`."""
    days = np.empty(x.shape[1] + 1, dtype=np.int64)
    histogram = np.zeros(x.shape[1] + 1, dtype=np.int64)
    for r in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[r, i] = x[r, i] if np.isfinite(x[r, i]) else np.nan
        count = _find_observed(x[r], days)
        if count == 0:
            continue
        most = limit
        if limit == _HALF and revisit[r] != _MEASURE:
            most = int(revisit[r] // 2)
        if causal:
            _hold_last(x[r], out[r], days, count, most, fallback, histogram)
            continue
        if most == _HALF:
            most = int((_median_gap(days, count, histogram) if count > 1 else fallback) // 2)
        _fill_both_ways(x[r], out[r], days, count, most)


@compiled()
def _median_gaps(x: np.ndarray) -> np.ndarray:
    out = np.full(x.shape[0], np.nan)
    days = np.empty(x.shape[1] + 1, dtype=np.int64)
    histogram = np.zeros(x.shape[1] + 1, dtype=np.int64)
    for r in range(x.shape[0]):
        count = _find_observed(x[r], days)
        if count > 1:
            out[r] = _median_gap(days, count, histogram)
    return out


def _fill_block(
    x: np.ndarray, revisit: np.ndarray | float, *, axis: int, fallback: float, limit: int, causal: bool
) -> np.ndarray:
    """Fill along `axis`; `revisit` is one number, or one per series, with a length of 1 along `axis`."""
    series = as_series(x, axis)
    # A copy with time last is filled in place: only observations are read, and none is overwritten.
    out = np.empty_like(series) if np.may_share_memory(series, x) else series
    places = (*series.shape[:-1], 1)
    each = np.moveaxis(revisit, axis, -1) if isinstance(revisit, np.ndarray) else revisit
    days = np.broadcast_to(np.asarray(each, dtype=np.float64), places)
    rows = (-1, series.shape[-1])
    _fill_rows(series.reshape(rows), out.reshape(rows), days.ravel(), fallback, limit, causal)
    return np.moveaxis(out, -1, axis)


def _measure_block(x: np.ndarray, *, axis: int) -> np.ndarray:
    series = as_series(x, axis)
    return _median_gaps(series.reshape(-1, series.shape[-1])).reshape(series.shape[:-1])


def measure_revisit(variable: xr.DataArray) -> xr.DataArray:
    """Return the median days between observations of each place; NaN if there are fewer than two.

    Parameters
    ----------
    variable : xarray.DataArray
        Dims (station, time) or (time, y, x), daily; NaN and infinite values are no observations.

    Returns
    -------
    xarray.DataArray
        Without time, float64, days; as lazy as `variable`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> x = xr.DataArray([[1, np.nan, np.nan, 2, np.nan, np.nan, 3.0]], dims=("station", "time"))
    >>> measure_revisit(x).values
    array([3.])
    """
    axis, data = variable.get_axis_num("time"), variable.data
    template = variable.isel(time=0, drop=True)
    if isinstance(data, da.Array):
        whole = data.rechunk({axis: -1})
        meta = np.empty((0,) * template.ndim)
        found = whole.map_blocks(_measure_block, axis=axis, drop_axis=axis, dtype="float64", meta=meta)
    else:
        found = _measure_block(np.asarray(data), axis=axis)
    return xr.DataArray(found, template.coords, template.dims)


def _revisit_of(variable: xr.DataArray, revisit: str, causal: bool) -> np.ndarray | float:
    """Return days between observations, one number or one per place; `_MEASURE` if it is measured from the series itself."""
    known = variable.attrs.get("revisit_days")
    # A number per station was measured over the whole series: it depends on later observations.
    if revisit == "measured" or known is None or (causal and np.ndim(known)):
        return _MEASURE
    days = _days_of_stations(variable) if np.ndim(known) else np.asarray(known, dtype=np.float64)
    # A place with fewer than two observations has no revisit.
    days = np.where(np.isnan(days), _MEASURE, days)
    return np.expand_dims(days, variable.get_axis_num("time")) if days.ndim else float(days)


def _days_of_stations(variable: xr.DataArray) -> np.ndarray:
    """Return the list `revisit_days` in the order of the variable's stations; NaN at stations without a number."""
    days = np.atleast_1d(variable.attrs["revisit_days"]).astype(np.float64)
    stations = text_of(variable["station"]) if "station" in variable.coords else np.empty(0, dtype=object)
    ids = [str(s) for s in np.atleast_1d(variable.attrs.get("revisit_stations", stations))]
    if days.size != len(ids):
        raise SmgeoError(
            f"{variable.name}: attrs['revisit_days'] has {days.size} numbers for {len(ids)} stations; set one number, or one for each "
            "station in attrs['revisit_stations'] (by default those of the cube, in its order), or fill with revisit='measured'"
        )
    of_station = dict(zip(ids, days.tolist(), strict=True))
    return np.array([of_station.get(s, np.nan) for s in stations], dtype=np.float64)


class _FillOptions(TypedDict):
    axis: int
    fallback: float
    limit: int
    causal: bool


def _fill_variable(
    variable: xr.DataArray, revisit: np.ndarray | float, limit: int, causal: bool
) -> np.ndarray | da.Array:
    """Return the filled values, lazy if the variable is: one layer of tasks."""
    axis: int = variable.get_axis_num("time")
    data: np.ndarray | da.Array = variable.data
    if data.dtype.kind != "f":  # integers have no gaps
        return data
    nominal = FEATURES[str(variable.name)].revisit_days if variable.name in FEATURES else None
    how: _FillOptions = {"axis": axis, "fallback": float(nominal or 0), "limit": limit, "causal": causal}
    if not isinstance(data, da.Array):
        return _fill_block(np.asarray(data), revisit, **how)
    lazy: da.Array = data.rechunk({axis: -1})
    if isinstance(revisit, np.ndarray):
        revisit = da.from_array(revisit, chunks=tuple((1,) if i == axis else c for i, c in enumerate(lazy.chunks)))
    dtype = np.result_type(data.dtype, np.float32)
    filled: da.Array = da.map_blocks(
        _fill_block, lazy, revisit, dtype=dtype, meta=np.empty((0,) * data.ndim, dtype), **how
    )
    return filled


@checked
def fill_gaps(
    ds: xr.Dataset,
    limit: GapLimit = "half-revisit",
    *,
    revisit: Literal["attribute", "measured"] = "attribute",
    causal: bool = False,
    target: bool = False,
    mask: bool = False,
) -> xr.Dataset:
    """Interpolate dynamic variables linearly along time, within each station or pixel, up to a limit of L days.

    Equals pandas `interpolate(method="linear", limit=L, limit_direction="both")` on each series; an infinite value is a gap. A gap longer than 2 L is
    filled L days in from either side and stays open between. Up to L days before the first and after the last observation
    get the value of that observation. So a filled day is at most L days from an observation. It depends on both ends of its
    gap, however much later the far one is (and, if the revisit is measured, on the days of later observations). With
    `causal` it depends on nothing later. Static and calendar variables are never changed. A variable with a time axis, no
    attribute `kind` and a name that the catalogue lacks counts as dynamic: set `attrs["kind"] = "target"` on your own target.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube or grid cube with a daily time axis.
    limit : "half-revisit", int or mapping
        L in whole days: `floor(revisit / 2)`, one number, or one number per variable (others are not filled). 0 fills
        nothing.
    revisit : {"attribute", "measured"}
        Source of the revisit. "attribute" uses the variable's `revisit_days`: one number, or one for each station in its
        `revisit_stations`, in any order (without these names, one for each station of `ds`); if it is missing, the median
        days between observations of the series. "measured" always uses the latter. A series with fewer than two
        observations has the catalogue's nominal revisit.
    causal : bool
        Extend the last observation by up to L days, and use no later one. On each day, a measured revisit is then the median
        of the gaps between the observations up to that day (the catalogue's, before there are two). The same applies to
        `revisit_days` with one number per station, because these were measured over the whole series.
    target : bool
        Fill the target too. `repeat_steps` does not repeat this on new data: models are scored on observations, and
        `evaluate` refuses a cube with a filled target.
    mask : bool
        For each filled variable, add `<name>_filled`: bool, same dims, as lazy, True on filled days, of kind "flag". The
        variable lists it in `ancillary_variables` (CF conventions 1.11, section 3.4). A mask of an earlier filling is always
        updated.

    Returns
    -------
    xarray.Dataset
        As lazy as `ds`; each task has one spatial chunk over the whole series in memory. In-memory variables are filled on
        threads. float32, or float64 if `ds` is. The attribute `gaps_filled` of a filled variable contains its limit.

    Raises
    ------
    SmgeoError
        If the time axis is not daily, a dynamic variable is not numeric, `revisit_days` does not have one number for each
        station, or `limit` or `revisit` is not one of the above.
    """
    check_daily(ds)
    if revisit not in ("attribute", "measured"):
        raise SmgeoError(f"revisit must be 'attribute' or 'measured'; got {revisit!r}")
    limits = _check_limit(limit, variables_of_kind(ds, "dynamic", *(["target"] if target else [])))
    check_numbers(ds, limits, "fill_gaps")
    halves = [n for n, days in limits.items() if isinstance(days, str)]
    revisits = {n: _revisit_of(ds[n], revisit, causal) if n in halves else _MEASURE for n in limits}

    def fill(name: str) -> np.ndarray | da.Array:
        days = limits[name]
        return _fill_variable(ds[name], revisits[name], _HALF if name in halves else int(days), causal)

    arrays = dict(zip(limits, map_threads(fill, limits), strict=True))
    attrs = {n: {**ds[n].attrs, "gaps_filled": _limit_elsewhere(ds[n], days, revisit)} for n, days in limits.items()}
    out = ds.assign({n: xr.Variable(ds[n].dims, a, attrs[n], crs_encoding(ds[n])) for n, a in arrays.items()})
    out = _with_masks(out, ds, [n for n in limits if mask or f"{n}_filled" in ds])
    return with_step(out, "fill_gaps", **_record(ds, limits, revisit, causal=causal, mask=mask))


def _check_limit(limit: GapLimit, fillable: list[str]) -> dict[str, int | str]:
    """Return the limit of each variable that is filled."""
    limits: dict[str, int | str] = dict(limit) if isinstance(limit, Mapping) else dict.fromkeys(fillable, limit)
    for name, days in limits.items():
        if name not in fillable:
            raise SmgeoError(
                f"limit names {name!r}, which is not a dynamic variable of the cube (nor its target with target=True); "
                f"{nearest(name, fillable)}"
            )
        whole = isinstance(days, Real) and not isinstance(days, bool) and 0 <= days < 2**31 and float(days).is_integer()
        if days != "half-revisit" and not whole:
            raise SmgeoError(
                f"limit for {name!r} must be 'half-revisit' or a whole number of days, 0 or more; got {days!r}"
            )
    return limits


def _with_masks(filled: xr.Dataset, ds: xr.Dataset, names: list[str]) -> xr.Dataset:
    masks = {}
    for name in names:
        mask = ~observed(ds[name]) & observed(filled[name])
        if f"{name}_filled" in ds:
            mask = mask | ds[f"{name}_filled"]
        # A mask has the variable's grid mapping, but not its unit or source.
        place = {k: v for k, v in ds[name].attrs.items() if k == "grid_mapping"}
        long_name = f"{ds[name].attrs.get('long_name', name)}: filled by fill_gaps"
        mask.encoding = crs_encoding(ds[name])
        mask.attrs = {**place, "kind": "flag", "long_name": long_name}
        masks[f"{name}_filled"] = mask
        ancillary = [*str(ds[name].attrs.get("ancillary_variables", "")).split(), f"{name}_filled"]
        filled[name].attrs["ancillary_variables"] = " ".join(dict.fromkeys(ancillary))
    return filled.assign(masks)


def _record(ds: xr.Dataset, limits: Mapping[str, int | str], revisit: str, **options: bool) -> JsonObject:
    """Return the parameters that are repeated on other data: only those of dynamic variables."""
    dynamic = variables_of_kind(ds, "dynamic")
    elsewhere = {n: _limit_elsewhere(ds[n], days, revisit) for n, days in limits.items() if n in dynamic}
    # Only options that are set, so that older models still recognise their own preparation.
    return {"limit": elsewhere, "revisit": revisit, **{key: True for key, chosen in options.items() if chosen}}


def _limit_elsewhere(variable: xr.DataArray, days: int | str, revisit: str) -> int | str:
    """Return the limit for other places: a number if these had one for all, otherwise half of the places' own revisit."""
    known = variable.attrs.get("revisit_days")
    if not isinstance(days, str):
        return int(days)
    if revisit == "measured" or known is None or np.ndim(known) or np.isnan(known):
        return "half-revisit"
    return int(known // 2)
