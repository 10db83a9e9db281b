"""Times of one gridded file: instants and the intervals that values refer to, UTC.

Units, calendars and bounds follow the CF conventions 1.11 (chapters 4.4 and 7.1).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.sources.gridded.files import File, Stored
from smgeo.sources.gridded.packing import read_packing

_CONVERT = "xarray.open_dataset(FILE).convert_calendar('standard', align_on='{}', use_cftime=False).to_netcdf(NEW)"


@dataclass(frozen=True, eq=False)
class Times:
    """Times along a dimension of a file, UTC.

    Attributes
    ----------
    at : DatetimeIndex
        As written.
    start, end : DatetimeIndex or None
        Ends of the intervals that the values refer to (CF bounds), if the file has them.
    """

    at: pd.DatetimeIndex
    start: pd.DatetimeIndex | None = None
    end: pd.DatetimeIndex | None = None


def read_times(stored: Stored, variables: Mapping[str, Stored], file: File) -> Times:
    """Return the times of a time coordinate.

    Raises
    ------
    SmgeoError
        If a time is missing, its calendar has other days than the standard one, or it cannot be decoded.
    """
    at = _decode(stored, stored, "time", file)
    name = stored.attrs.get("bounds")
    if name is None:
        return Times(at)
    bounds = variables.get(str(name))
    if bounds is None or int(np.prod(bounds.shape)) != 2 * at.size:
        lacks = "the file lacks" if bounds is None else f"has the shape {bounds.shape}"
        warnings.warn(
            f"{file}: the bounds of its times, {name!r}, {lacks}, so that times count as written; if they are the ends of "
            "intervals, set stamp: end",
            SmgeoWarning,
            stacklevel=2,
        )
        return Times(at)
    ends = np.sort(_decode(bounds, stored, str(name), file).to_numpy().reshape(-1, 2), axis=1)
    return Times(at, pd.DatetimeIndex(ends[:, 0]), pd.DatetimeIndex(ends[:, 1]))


def _decode(stored: Stored, described: Stored, name: str, file: File) -> pd.DatetimeIndex:
    units = str(stored.attrs.get("units", described.attrs["units"]))
    calendar = _known_calendar(str(described.attrs.get("calendar", "standard")).strip().lower(), units, file)
    raw = np.asarray(stored.values[...]).ravel()
    packing = read_packing(raw.dtype, stored.packing, f"{file}: {name}", default_fills=True, honour_valid_range=False)
    numbers = packing.numbers(raw)
    if (missing := packing.missing(numbers)).any():
        i = int(missing.argmax())
        raise SmgeoError(
            f"{file}: position {i} of {name} (counted from 0, of {raw.size}) is a fill value ({raw[i]}), so the day of its values is "
            "unknown; correct the file or leave it out"
        )
    if packing.scale != 1 or packing.offset != 0:
        numbers = packing.unpack(raw)[0]
    variable = xr.Variable(("t",), numbers, {"units": units, "calendar": calendar})
    try:
        decoded = xr.coding.times.CFDatetimeCoder().decode(variable, name=name).to_numpy()
        if decoded.dtype == object:  # dates of another calendar, of which those are kept that the standard one has
            decoded = np.array([pd.Timestamp(str(t)) for t in decoded], dtype="datetime64[ns]")
        return pd.DatetimeIndex(decoded).as_unit("ns").round("s")
    except (ValueError, OverflowError, ImportError) as error:
        raise SmgeoError(
            f"{file}: {name} in {units!r} (calendar {calendar}) cannot be decoded to days of the standard calendar: {error}"
        ) from None


def _known_calendar(calendar: str, units: str, file: File) -> str:
    """Return the calendar to decode with; one whose days are not those of the standard calendar is refused."""
    if calendar == "julian":
        # IMERG's: from 1900 to 2100 it has the standard calendar's leap years, so the date as written is correct.
        if re.search(r"since\s+(19|20)\d\d", units):
            return "standard"
        raise SmgeoError(
            f"{file}: times are counted in {units!r} in the calendar julian, whose days are not those of the standard calendar; "
            f"convert the file: {_CONVERT.format('date')}"
        )
    if calendar == "360_day":
        raise SmgeoError(
            f"{file}: the calendar 360_day has twelve months of 30 days, which are not the days of stations and scenes; convert "
            f"the file: {_CONVERT.format('year')}"
        )
    return calendar
