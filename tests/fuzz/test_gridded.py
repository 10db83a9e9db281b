"""Any mixture of number types, fills, signs, scales, ranges, calendars and stamps in a gridded file: no value that other readers call missing or another.

The other readers are xarray and cftime; what they leave open (default fills, valid ranges, nodata, days) is worked out here number by number.
"""

from __future__ import annotations

import datetime as dt
import math
import tempfile
import warnings
from pathlib import Path

import cftime
import netCDF4
import numpy as np
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.sources.gridded.reader import open_gridded

LIMIT = 1e30
CATALOG = {
    **FEATURES,
    "any": Feature("any", "any number", "1", "static", "none", (-LIMIT, LIMIT)),
    "heat": Feature("heat", "any number that varies", "1", "dynamic", "none", (-LIMIT, LIMIT)),
}
FORMATS = ("NETCDF4", "NETCDF3_CLASSIC", "zarr 2", "zarr 3")


# Numbers


@st.composite
def packed(draw):
    """A file's numbers and attributes, and the recipe's keys for them."""
    form = draw(st.sampled_from(FORMATS))
    types = (
        ("i1", "i2", "i4", "f4", "f8")
        if form == "NETCDF3_CLASSIC"
        else ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
    )
    dtype = np.dtype(draw(st.sampled_from(types)))
    some = _some_numbers(dtype)
    numbers = np.array(draw(st.lists(st.sampled_from(some), min_size=12, max_size=12)), dtype=dtype).reshape(3, 4)
    attrs = {}
    if dtype.kind in "iu" and draw(st.booleans()):
        attrs["_Unsigned"] = "true" if dtype.kind == "i" else "false"
    if draw(st.booleans()):
        attrs["_FillValue"] = dtype.type(
            draw(st.sampled_from(some[form == "zarr 2" :]))
        )  # of zarr 2, 0 may be anybody's
    if draw(st.booleans()):
        attrs["missing_value"] = dtype.type(draw(st.sampled_from(some)))
    if draw(st.booleans()):
        kind = draw(st.sampled_from(("f4", "f8")))
        attrs["scale_factor"] = np.dtype(kind).type(draw(st.sampled_from((0.5, 0.01, 2.0))))
        if draw(st.booleans()):
            attrs["add_offset"] = np.dtype(kind).type(draw(st.sampled_from((0.0, 273.15, -20.0))))
    if draw(st.booleans()):
        attrs |= draw(_ranges(dtype, attrs.get("scale_factor"), some))
    nodata = draw(st.none() | st.sampled_from([float(n) for n in some if np.isfinite(n)]))
    return form, numbers, attrs, nodata


def _some_numbers(dtype):
    default = netCDF4.default_fillvals[dtype.str[1:]]
    if dtype.kind == "f":
        return [dtype.type(v) for v in (0, 1, -1, 10, 0.3, -9999.9, default, np.nan, np.inf)]
    info = np.iinfo(dtype)
    return [
        dtype.type(v) for v in dict.fromkeys((0, 1, 10, 100, info.min, info.min + 1, info.max, info.max - 1, default))
    ]


@st.composite
def _ranges(draw, dtype, scale, some):
    low, high = sorted(draw(st.tuples(*[st.sampled_from([n for n in some if np.isfinite(n)])] * 2)))
    if scale is not None and draw(st.booleans()):
        return {"valid_range": np.array([-5, 50], dtype=scale.dtype)}
    form = draw(st.sampled_from(("valid_range", "valid_min", "valid_max")))
    return (
        {"valid_range": np.array([low, high], dtype)}
        if form == "valid_range"
        else {form: low if form == "valid_min" else high}
    )


def write(path, form, numbers, attrs):
    """Write numbers as they are, with the library of the format."""
    if form.startswith("zarr"):
        ds = xr.Dataset({"v": (("lat", "lon"), numbers, {k: v for k, v in attrs.items() if k != "_FillValue"})})
        ds = ds.assign_coords(lat=[2.0, 1, 0], lon=[0.0, 1, 2, 3])
        ds["v"].attrs |= {k: v.tolist() for k, v in ds["v"].attrs.items() if isinstance(v, np.generic | np.ndarray)}
        fill = {"_FillValue": attrs.get("_FillValue")}
        ds.to_zarr(path, zarr_format=int(form[-1]), consolidated=False, encoding={"v": fill})
        return
    with netCDF4.Dataset(path, "w", format=form) as f:
        for name, positions in (("lat", [2.0, 1, 0]), ("lon", [0.0, 1, 2, 3])):
            f.createDimension(name, len(positions))
            f.createVariable(name, "f8", (name,))[:] = positions
        v = f.createVariable("v", numbers.dtype, ("lat", "lon"), fill_value=attrs.get("_FillValue"))
        v.set_auto_maskandscale(False)
        v.setncatts({k: a for k, a in attrs.items() if k != "_FillValue"})
        v[:] = numbers


def meaning(bits, form, attrs, nodata):
    """Return the value of one number, NaN if it is missing, by the rules of the formats."""
    dtype = bits.dtype
    sign = {"true": "u", "false": "i"}.get(attrs.get("_Unsigned"), dtype.kind)
    read_as = np.dtype(f"{sign}{dtype.itemsize}") if dtype.kind in "iu" else dtype

    def number(stored):
        return np.asarray(stored, dtype=dtype).view(read_as).item()

    n = number(bits)
    fills = [number(attrs[k]) for k in ("_FillValue", "missing_value") if k in attrs]
    if form.startswith("NETCDF") and "_FillValue" not in attrs and dtype.itemsize > 1:
        fills.append(number(netCDF4.default_fillvals[dtype.str[1:]]))
    if nodata is not None:
        fills += [nodata, number(nodata)] if dtype.kind == "f" else [nodata, *_other_sign(nodata, read_as, dtype)]
    if math.isnan(n) or n in fills:
        return math.nan
    scale, offset = (attrs.get(k) for k in ("scale_factor", "add_offset"))
    value = n * (1.0 if scale is None else float(scale)) + (0.0 if offset is None else float(offset))
    low, high, unpacked = _limits(attrs, number, json=form.startswith("zarr"), dtype=dtype)
    if not low <= (value if unpacked else n) <= high:
        return math.nan
    return value if abs(value) <= LIMIT else math.nan


def _other_sign(nodata, read_as, dtype):
    """The number with the same bits in the type that is read, if the recipe has it with the other sign."""
    if read_as == dtype or not float(nodata).is_integer():
        return []
    info = np.iinfo(dtype)
    return [np.array(int(nodata), dtype).view(read_as).item()] if info.min <= nodata <= info.max else []


def _limits(attrs, number, *, json, dtype):
    pair = attrs.get(
        "valid_range", np.array([attrs.get("valid_min", -math.inf), attrs.get("valid_max", math.inf)], dtype=object)
    )
    scale, offset = attrs.get("scale_factor"), attrs.get("add_offset")
    packing = {np.asarray(v).dtype for v in (scale, offset) if v is not None}
    own = next((np.asarray(attrs[k]).dtype for k in ("valid_range", "valid_min", "valid_max") if k in attrs), None)
    if json and own is not None:  # JSON has one kind of whole numbers and one of others
        own, packing = np.dtype("f8" if own.kind == "f" else "i8"), {np.dtype("f8") for _ in packing}
    wider = (
        own is not None
        and bool(packing)
        and own == max(packing)
        and (own.kind, own.itemsize) > ("f" if dtype.kind == "f" else "", dtype.itemsize)
    )
    if wider and own.kind == "f":
        return float(pair[0]), float(pair[1]), True
    ends = [e if isinstance(e, float) and math.isinf(e) else number(e) for e in pair]
    return ends[0], ends[1], False


@given(packed())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_numbers_mean_what_their_formats_say(drawn):
    form, numbers, attrs, nodata = drawn
    kind = "zarr" if form.startswith("zarr") else "netcdf"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / ("v.zarr" if kind == "zarr" else "v.nc")
        write(path, form, numbers, attrs)
        try:
            got = open_gridded(
                {"kind": kind, "path": str(path), "bands": {"any": "v"}, "nodata": nodata}, catalog=CATALOG
            )
        except SmgeoError as error:  # most numbers are out of range
            assert "of a sample" in str(error)
            return
        values = got["any"].values
        truth = np.array([meaning(n, form, attrs, nodata) for n in numbers.ravel()]).reshape(numbers.shape)
        np.testing.assert_allclose(values, truth.astype("f4"), rtol=2e-6, err_msg=str(drawn))
        # xarray: what it calls missing is missing, and no value is another.
        try:
            other = xr.open_dataset(
                path,
                engine="zarr" if kind == "zarr" else None,
                mask_and_scale=True,
                **({"consolidated": False} if kind == "zarr" else {}),
            )["v"].values
        except (OverflowError, TypeError, KeyError):  # of some signs
            return
        seen = np.isfinite(values)
        np.testing.assert_allclose(values[seen], other[seen].astype("f8"), rtol=1e-5, atol=1e-4, err_msg=str(drawn))


# Times


@st.composite
def stamped(draw):
    """Times of one or two files: step, form of the stamps, which are left out and which are given again."""
    step = draw(st.sampled_from((1, 3, 6, 24)))
    count = draw(st.integers(30 // step if step < 24 else 3, 96 // step + 2))
    form = draw(st.sampled_from(("start", "end", "bounds")))
    calendar = draw(st.sampled_from(("standard", "proleptic_gregorian", "noleap", "365_day", "all_leap")))
    first = draw(st.integers(0, 23 // step)) * step
    left_out = draw(st.sets(st.integers(0, count - 1), max_size=3))
    again = draw(st.sets(st.integers(0, count - 1), max_size=4))
    values = draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))
    rule = draw(st.sampled_from(("sum", "mean")))
    return step, form, calendar, first, left_out, again, values, rule


def write_times(path, numbers, values, step, form, calendar):
    with netCDF4.Dataset(path, "w") as f:
        for name, positions in (("lat", [1.0, 0]), ("lon", [0.0, 1])):
            f.createDimension(name, 2)
            f.createVariable(name, "f8", (name,))[:] = positions
        f.createDimension("time", len(numbers))
        f.createDimension("two", 2)
        t = f.createVariable("time", "i4", ("time",))
        t.setncatts({"units": "hours since 2020-02-27", "calendar": calendar})
        t[:] = numbers
        if form == "bounds":
            t.bounds = "time_bnds"
            f.createVariable("time_bnds", "i4", ("time", "two"))[:] = [[n - step, n] for n in numbers]
        f.createVariable("v", "f4", ("time", "lat", "lon"))[:] = np.array(values)[:, None, None] * np.ones((1, 2, 2))


@given(stamped())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_days_are_those_of_the_times(drawn):
    step, form, calendar, first, left_out, again, values, rule = drawn
    name = "precipitation" if rule == "sum" else "heat"
    kept = [i for i in range(len(values)) if i not in left_out]
    gaps = np.diff(kept)
    if not gaps.size or (gaps == 1).sum() < max((gaps == g).sum() for g in gaps):  # the usual step is another
        return
    numbers = [first + step * i for i in range(len(values))]
    spec = {"kind": "netcdf", "path": "*.nc", "bands": {name: "v"}, "daily": rule}
    if form != "bounds":
        spec["stamp"] = form
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        write_times(f"{folder}/a.nc", [numbers[i] for i in kept], [values[i] for i in kept], step, form, calendar)
        repeated = sorted(again & set(kept))
        if repeated:
            write_times(f"{folder}/b.nc", [numbers[i] for i in repeated], [99] * len(repeated), step, form, calendar)
        found = open_gridded(spec, root=folder, catalog=CATALOG)[name]
        got = dict(zip((str(d)[:10] for d in found["time"].values), found.values[:, 0, 0].tolist(), strict=True))
    of_days: dict[str, list[int]] = {}
    for i in kept:
        at = cftime.num2date(numbers[i], "hours since 2020-02-27", calendar)
        inside = at if form == "start" else at - dt.timedelta(hours=step / 2)
        of_days.setdefault(inside.strftime("%Y-%m-%d"), []).append(values[i])
    if rule == "sum":
        truth = {d: float(sum(v)) if len(v) == 24 // step else math.nan for d, v in of_days.items()}
    else:
        truth = {d: sum(v) / len(v) for d, v in of_days.items()}
    assert got.keys() == truth.keys(), drawn
    np.testing.assert_allclose([got[d] for d in truth], list(truth.values()), rtol=1e-6, err_msg=str(drawn))
    said = [str(w.message) for w in told if issubclass(w.category, SmgeoWarning)]
    assert any(f"{len(repeated)} time" in s and "again" in s for s in said) == bool(repeated)
