"""Times of one gridded file: instants and the intervals that values refer to, UTC.

Units, calendars and bounds follow the CF conventions 1.11 (chapters 4.4 and 7.1).
"""

from __future__ import annotations

import datetime as dt
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.sources.gridded.files import File, Stored
from smgeo.sources.gridded.packing import read_packing

_CONVERT = "xarray.open_dataset(FILE).convert_calendar('standard', align_on='{}', use_cftime=False).to_netcdf(NEW)"


@dataclass(frozen=True, eq=False)
class Times:
    """Times along a dimension of a file, UTC. Arithmetic is done in the file's own calendar, which may lack 29 February.

    Attributes
    ----------
    at, ended : DatetimeIndex
        As written, and one second before.
    start, middle, last : DatetimeIndex or None
        First second, middle and last second of the intervals that values refer to (CF bounds), if the file has them.
    hours : array or None
        Length of these intervals.
    """

    at: pd.DatetimeIndex
    ended: pd.DatetimeIndex
    start: pd.DatetimeIndex | None = None
    middle: pd.DatetimeIndex | None = None
    last: pd.DatetimeIndex | None = None
    hours: np.ndarray | None = None


def read_times(stored: Stored, variables: Mapping[str, Stored], file: File) -> Times:
    """Return the times of a time coordinate.

    Raises
    ------
    SmgeoError
        If a time is missing, its calendar has other days than the standard one, or it cannot be decoded.
    """
    with _explained(stored, file):
        at = _decode(stored, stored, "time", file)
        times = Times(_labels(at), _labels(_second_before(at)))
        name = stored.attrs.get("bounds")
        if name is None:
            return times
        bounds = variables.get(str(name))
        if bounds is None or int(np.prod(bounds.shape)) != 2 * at.size:
            lacks = "the file lacks" if bounds is None else f"has the shape {bounds.shape}"
            warnings.warn(
                f"{file}: the bounds of its times, {name!r}, {lacks}, so that times count as written; if they are the ends of "
                "intervals, set stamp: end",
                SmgeoWarning,
                stacklevel=2,
            )
            return times
        start, end = np.sort(_decode(bounds, stored, str(name), file).reshape(-1, 2), axis=1).T
        seconds = np.array(
            [d / np.timedelta64(1, "s") if isinstance(d, np.timedelta64) else d.total_seconds() for d in end - start]
        )
        middle = _labels(start + (end - start) / 2)
        return replace(
            times, start=_labels(start), middle=middle, last=_labels(_second_before(end)), hours=seconds / 3600
        )


@contextmanager
def _explained(stored: Stored, file: File) -> Iterator[None]:
    try:
        yield
    except (ValueError, OverflowError, ImportError) as error:
        if isinstance(error, SmgeoError):
            raise
        calendar, reason = stored.attrs.get("calendar", "standard"), str(error).split(". Try ")[0]
        raise SmgeoError(
            f"{file}: times in {stored.attrs['units']!r} (calendar {calendar}) cannot be decoded to days of the standard calendar ({reason}); "
            "rewrite them, for example in 'hours since 1970-01-01', or remove the time coordinate and set dates"
        ) from None


def _second_before(times: np.ndarray) -> np.ndarray:
    second = dt.timedelta(seconds=1) if times.dtype == object else np.timedelta64(1, "s")
    return np.asarray(times - second)


def _labels(times: np.ndarray) -> pd.DatetimeIndex:
    """Return dates as they are written; one that the standard calendar lacks raises ValueError."""
    if times.dtype == object:
        times = np.array([pd.Timestamp(str(t)) for t in times], dtype="datetime64[ns]")
    return pd.DatetimeIndex(times).as_unit("ns").round("s")


def _decode(stored: Stored, described: Stored, name: str, file: File) -> np.ndarray:
    """Return times as datetime64, or as dates of another calendar."""
    units = str(stored.attrs.get("units", described.attrs["units"]))
    calendar = _known_calendar(str(described.attrs.get("calendar", "standard")).strip().lower(), units, file)
    raw = np.asarray(stored.values[...]).ravel()
    packing = read_packing(raw.dtype, stored.packing, f"{file}: {name}", default_fills=True, honour_valid_range=False)
    numbers = packing.numbers(raw)
    _refuse_missing(packing.missing(numbers), raw, name, file)
    if packing.scale != 1 or packing.offset != 0:
        numbers = packing.unpack(raw)[0]
    variable = xr.Variable(("t",), numbers, {"units": units, "calendar": calendar})
    decoded = np.asarray(xr.coding.times.CFDatetimeCoder().decode(variable, name=name).to_numpy())
    _refuse_missing(pd.isna(decoded), raw, name, file)
    return decoded


def _refuse_missing(missing: np.ndarray, raw: np.ndarray, name: str, file: File) -> None:
    if missing.any():
        i = int(missing.argmax())
        raise SmgeoError(
            f"{file}: position {i} of {name} (counted from 0, of {raw.size}) is a fill value ({raw[i]}), so the day of its values is "
            "unknown; correct the file or leave it out"
        )


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
