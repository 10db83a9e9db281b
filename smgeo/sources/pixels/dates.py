"""Days of files: from their names, by a pattern."""

from __future__ import annotations

import datetime as dt
import re

import pandas as pd

from smgeo.errors import SmgeoError

_DIRECTIVES = {"Y": r"\d{4}", "y": r"\d{2}", "j": r"\d{3}", "b": r"[A-Za-z]{3}", "B": r"[A-Za-z]+"} | dict.fromkeys(
    "mdHMS", r"\d{2}"
)
_PARTS = {"Y": "year", "y": "year", "j": "day of the year", "b": "month", "B": "month", "m": "month", "d": "day"} | {
    "H": "hour",
    "M": "minute",
    "S": "second",
}


def has_hour(pattern: str) -> bool:
    """Return True if a pattern of file names has the hour, so that a name gives a time and not only a day."""
    return "%H" in pattern


def date_in_name(name: str, pattern: str, file: str | None = None) -> pd.Timestamp:
    """Return the UTC day in a file's name, as `moment_in_name`.

    Examples
    --------
    >>> date_in_name("BOA_2022-12-31_T36SXA.tif", "BOA_%Y-%m-%d_*.tif")
    Timestamp('2022-12-31 00:00:00')
    """
    return moment_in_name(name, pattern, file).normalize()


def moment_in_name(name: str, pattern: str, file: str | None = None) -> pd.Timestamp:
    """Return the UTC time in a file's name.

    Parameters
    ----------
    name : str
        The whole file name.
    pattern : str
        The same with %Y, %m, %d (or %j) in place of the date, and `*` for any text.
    file : str, optional
        Name of the file for messages, if `name` contains `{band}` in place of a band's text.

    Raises
    ------
    SmgeoError
        If the name does not match, the date does not exist, or the pattern has no year or one of its parts twice.

    Examples
    --------
    >>> moment_in_name("RY2020013112.nc", "RY%Y%m%d%H.nc")
    Timestamp('2020-01-31 12:00:00')
    """
    found: list[str] = []
    parts = []
    for part in re.split(r"(%.|\*)", pattern):
        if part[:1] == "%" and part[1:] in _DIRECTIVES:
            found.append(part)
            parts.append(f"({_DIRECTIVES[part[1:]]})")
        else:
            parts.append(".*?" if part == "*" else re.escape(part))
    if not {"%Y", "%y"} & set(found) or len(set(found)) < len(found):
        raise SmgeoError(
            f"dates {pattern!r} needs a year (%Y), and each of %Y, %m, %d, ... once; write * for a second date"
        )
    match = re.fullmatch("".join(parts), name)
    if match is None:
        apart = "{band} in place of the name of a band, " if "{band}" in name and "{band}" not in pattern else ""
        raise SmgeoError(
            f"{file or name} does not match dates {pattern!r}; write the whole file name with %Y, %m, %d (or %j) in place of "
            f"its date, {apart}and * for any text"
        )
    try:
        return pd.Timestamp(dt.datetime.strptime(" ".join(match.groups()), " ".join(found)))
    except ValueError:
        read = ", ".join(f"{_PARTS[d[1]]} {text}" for d, text in zip(found, match.groups(), strict=True))
        raise SmgeoError(
            f"{file or name} matches dates {pattern!r}, but its date would be {read}, which does not exist; correct the order "
            "of %Y, %m, %d"
        ) from None


def day_axis(days: list[pd.Timestamp], period: tuple[object, object] | None) -> pd.DatetimeIndex:
    """Return every day of the period, or without one the given days, in order."""
    if period is not None:
        return pd.date_range(*period_days(period), freq="D", name="time")
    return pd.DatetimeIndex(sorted(set(days)), name="time")


def period_days(period: tuple[object, object]) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the first and last UTC day of a period.

    Raises
    ------
    SmgeoError
        If one is not a date, or the last is before the first.
    """
    first, last = map(_day, period)
    if last < first:
        raise SmgeoError(f"period: {last:%Y-%m-%d} is before {first:%Y-%m-%d}; put the first day first")
    return first, last


def _day(value: object) -> pd.Timestamp:
    moment = pd.to_datetime(str(value), errors="coerce")
    if pd.isna(moment):
        raise SmgeoError(f"period: {value!r} is not a date; write 2020-01-31")
    return (moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment).normalize()
