"""Days of files: from their names, by a pattern."""

from __future__ import annotations

import datetime as dt
import re

import pandas as pd

from smgeo.errors import SmgeoError

_DIRECTIVES = {"Y": r"\d{4}", "y": r"\d{2}", "j": r"\d{3}", "b": r"[A-Za-z]{3}", "B": r"[A-Za-z]+"} | dict.fromkeys(
    "mdHMS", r"\d{2}"
)


def date_in_name(name: str, pattern: str) -> pd.Timestamp:
    """The UTC day that a file's name holds.

    Parameters
    ----------
    name : str
        The whole file name.
    pattern : str
        The same with %Y, %m, %d (or %j) in place of the date, and `*` for any text.

    Raises
    ------
    SmgeoError
        If the name does not match.

    Examples
    --------
    >>> date_in_name("BOA_2022-12-31_T36SXA.tif", "BOA_%Y-%m-%d_*.tif")
    Timestamp('2022-12-31 00:00:00')
    """
    found: list[str] = []
    parts = []
    for part in re.split(r"(%.|\*)", pattern):
        if part[:1] == "%" and part[1:] in _DIRECTIVES:
            found.append(part)
            parts.append(f"({_DIRECTIVES[part[1:]]})")
        else:
            parts.append(".*?" if part == "*" else re.escape(part))
    match = re.fullmatch("".join(parts), name)
    try:
        if match is None or not found:
            raise ValueError
        return pd.Timestamp(dt.datetime.strptime(" ".join(match.groups()), " ".join(found))).normalize()
    except ValueError:
        raise SmgeoError(
            f"{name} does not match dates {pattern!r}; write the whole file name with %Y, %m, %d (or %j) in place of its "
            "date and * for any text"
        ) from None


def day_axis(days: list[pd.Timestamp], period: tuple[object, object] | None) -> pd.DatetimeIndex:
    """Every day of the period, or without one the days there are, in order."""
    if period is not None:
        first, last = (pd.Timestamp(str(p)) if not isinstance(p, pd.Timestamp) else p for p in period)
        return pd.date_range(first, last, freq="D", name="time")
    return pd.DatetimeIndex(sorted(set(days)), name="time")
