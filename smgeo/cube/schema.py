"""The schema of a cube: dims, kinds of variables, units, stations and days."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.catalog import FEATURES, reference_attr
from smgeo.errors import SmgeoError, nearest

STATION_DIMS = ("station", "time")
GRID_DIMS = ("time", "y", "x")

# A coordinate on `time` that sources give besides their values: the digest of what each day is read from. It goes into
# the ledger, not into the store: when a later run finds other scenes, only the regions of their days are written again.
DAY_INPUTS = "day_inputs"
# Attribute of a static variable at stations that was read from a raster: the longer side of its pixels on the ground, m.
PIXEL_SIZE = "pixel_size_m"
_LONGEST_NAME = 100
# Names of coordinates, and of the file that Zarr writes beside its arrays.
_TAKEN = ("station", "time", "x", "y", "spatial_ref", "zarr.json")


def check_name(name: str, where: str) -> None:
    """Refuse a name of a variable that a store would take for a path, or that a terminal would not only show.

    Raises
    ------
    SmgeoError
    """
    if (
        not name
        or name in (".", "..")
        or not name.isprintable()
        or len(os.fsencode(name)) > _LONGEST_NAME
        or "/" in name
        or "\\" in name
        or name in _TAKEN
    ):
        raise SmgeoError(
            f"{where}: {name[:60]!r} cannot be the name of a variable; it must have 1 to {_LONGEST_NAME} bytes, without / and \\, "
            f"and not be {', '.join(_TAKEN)}"
        )


def is_grid(ds: xr.Dataset) -> bool:
    """Return True if `ds` is a grid cube, False if it is a station cube.

    Raises
    ------
    SmgeoError
        If it is neither.
    """
    if {"y", "x"} <= set(ds.dims):
        return True
    if "station" in ds.dims:
        return False
    raise SmgeoError(f"a cube has dims {STATION_DIMS} or {GRID_DIMS}; found {tuple(ds.dims)}")


def observed(variable: xr.DataArray) -> xr.DataArray:
    """Return where a variable has a value, as lazy as it is: what is infinite is missing, like NaN."""
    finite: xr.DataArray = xr.ufuncs.isfinite(variable)
    return finite


def text_of(variable: xr.DataArray) -> np.ndarray:
    """Return the strings of a coordinate as an object array; Zarr gives them as NumPy's variable-length strings."""
    return np.array([str(v) for v in variable.values], dtype=object)


def variables_of_kind(ds: xr.Dataset, *kinds: str) -> list[str]:
    """Return the names of the variables whose kind is one of `kinds`; see `kind_of`."""
    return [str(n) for n, v in ds.data_vars.items() if kind_of(v) in kinds]


def kind_of(variable: xr.DataArray) -> str:
    """Return the kind of a variable: its attribute `kind`, else that of the catalogue, else "flag" if it has no numbers, else by its dims."""
    if "kind" in variable.attrs:
        return str(variable.attrs["kind"])
    if variable.name in FEATURES:
        return FEATURES[str(variable.name)].kind
    # Text, dates and masks are not numbers to prepare.
    if variable.dtype.kind not in "fiu":
        return "flag"
    if variable.dims == ("time",):
        return "calendar"
    return "dynamic" if "time" in variable.dims else "static"


def station_positions(ds: xr.Dataset, stations: Iterable[str]) -> list[int]:
    """Return the positions of the given ids along `station`; compared as text, so that ids which are integers are found too.

    Raises
    ------
    SmgeoError
        If the cube lacks one of them.
    """
    ids, known = [str(s) for s in stations], {str(s): i for i, s in enumerate(ds["station"].values)}
    if unknown := [s for s in ids if s not in known]:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise SmgeoError(
            f"the cube has no station {', '.join(map(repr, unknown[:5]))}{more}; {nearest(unknown[0], list(known))}"
        )
    return [known[s] for s in ids]


def select_stations(ds: xr.Dataset, stations: Iterable[str]) -> xr.Dataset:
    """Return the given stations of a station cube, in the order given.

    Raises
    ------
    SmgeoError
        If the cube lacks one of them.
    """
    return ds.isel(station=station_positions(ds, stations))


def check_daily(ds: xr.Dataset) -> pd.DatetimeIndex:
    """Return the time axis, which must be daily and without gaps.

    Raises
    ------
    SmgeoError
        Naming the first gap.
    """
    if "time" not in ds.coords:
        raise SmgeoError(f"a cube needs a daily time coordinate; found coordinates {sorted(map(str, ds.coords))}")
    times = pd.DatetimeIndex(ds.indexes["time"])
    steps = np.diff(times.values.astype("datetime64[ns]"))
    bad = np.flatnonzero(steps != np.timedelta64(1, "D"))
    if bad.size:
        i = int(bad[0])
        raise SmgeoError(
            f"time must be daily without gaps; {times[i]} is followed by {times[i + 1]}. Use ds.resample(time='1D')"
        )
    return times


def check_units(have: Mapping[str, str], need: Mapping[str, str], where: str) -> None:
    """Refuse variables whose unit differs from the one needed.

    Raises
    ------
    SmgeoError
        Naming every such variable with both units, or every variable that is missing.
    """
    missing = [n for n in need if n not in have]
    if missing:
        raise SmgeoError(f"{where} lacks {', '.join(missing)}; it has {', '.join(sorted(have)) or 'nothing'}")
    wrong = [f"{n} is in {have[n]!r}, needed in {need[n]!r}" for n in need if have[n] != need[n]]
    if wrong:
        raise SmgeoError(
            f"units in {where} do not match: {'; '.join(wrong)}. Convert the values and set attrs['units']"
        )


def check_numbers(ds: xr.Dataset, names: Iterable[str], where: str) -> None:
    """Refuse variables that are not numeric.

    Raises
    ------
    SmgeoError
        Naming every such variable and its dtype.
    """
    if wrong := [f"{n} ({ds[n].dtype})" for n in names if ds[n].dtype.kind not in "fiub"]:
        raise SmgeoError(
            f"{where}: expected numeric variables, found {', '.join(wrong)}; set attrs['kind'] to 'flag' to carry a variable along "
            "unprepared, or encode it as numbers"
        )


def crs_encoding(variable: xr.DataArray) -> dict[str, str]:
    """Return only the grid mapping of an opened variable's encoding: the rest belongs to the values as they were stored."""
    return {k: v for k, v in variable.encoding.items() if k == "grid_mapping"}


def check_known_units(have: Mapping[str, str], need: Mapping[str, str], where: str) -> None:
    """Refuse other units as `check_units`, of the variables that both contain with a unit."""
    both = [n for n in need if need[n] and have.get(n)]
    check_units({n: have[n] for n in both}, {n: need[n] for n in both}, where)


def references_of(ds: xr.Dataset, names: Iterable[str]) -> dict[str, str]:
    """Return what the numbers of variables refer to (vertical datum, angle, kind of backscatter), of those that say it."""
    attrs = {n: ds[n].attrs.get(reference_attr(n)) for n in names if n in ds}
    return {n: str(found) for n, found in attrs.items() if found}


def check_references(have: Mapping[str, str], need: Mapping[str, str], where: str) -> None:
    """Refuse variables that refer to something else than needed; those that do not say it on both sides pass.

    Raises
    ------
    SmgeoError
        Naming every such variable with both references.
    """
    wrong = [f"{n} refers to {have[n]}, needed is {need[n]}" for n in need if n in have and have[n] != need[n]]
    if wrong:
        raise SmgeoError(
            f"{where}: {'; '.join(wrong)}; their numbers are not comparable. Read the source that the model was trained on, or train it "
            "on this one"
        )


def units_of(ds: xr.Dataset, names: Iterable[str]) -> dict[str, str]:
    """Return the physical unit of each variable in `names` that `ds` has (for a scaled variable, the unit before scaling)."""
    return {n: str(ds[n].attrs.get("unscaled_units", ds[n].attrs.get("units", ""))) for n in names if n in ds}
