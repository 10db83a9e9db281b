"""Times as tables write them, converted to UTC.

Year first (ISO 8601, `2020/1/31 6:00`, `20200131`, `202001310600`) and names of months (`31 Jan 2020`) are read as they are. `31/01/2020`
and `01/31/2020` are told apart by the whole table, or by `day_first`: pandas and dateutil would decide row by row. 24:00 is
midnight at the end of its day.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from smgeo.errors import SmgeoError
from smgeo.recipe.tables import TableSource

# Formats of words that are only digits, by their number.
_COMPACT = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_YEARS = (1800, 2200)
# Names that pandas has for what is done without a format.
_ANY_FORMAT = (None, "ISO8601", "mixed")
_OFFSET = r"(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
# 24:00 after a date, and among digits only.
_MIDNIGHT = r"(?<=[T\s])24(:?00(?::?00(?:\.0+)?)?)(?=$|Z$|[+-]\d{2}(?::?\d{2})?$)"
_COMPACT_MIDNIGHT = r"^(\d{8})24((?:00){0,2})$"
_MONTHS = r"(?i)(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_CLOCK = r"\d{4}-\d{2}-\d{2}[T ]+[\d:.]+\s*(?:[AaPp]\.?[Mm]\.?)?(?:Z|[+-]\d{2}:?\d{2})?"
_NUMBERS = r"^(\d{1,2})([/.\-])(\d{1,2})\2(\d{4})(?!\d)(.*)$"
_YEAR_FIRST = r"^(\d{4})([/.\-])(\d{1,2})\2(\d{1,2})(?!\d)(.*)$"


def parse_times(
    columns: list[pd.Series], spec: TableSource, place: Callable[[int], str], where: str
) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Return times without zone, in UTC where they have an offset; whether they have a time of day; and an offset.

    Parameters
    ----------
    columns : list of Series
        Words, or times, of one column; or parts of a time, such as a date and an hour, which are joined.
    spec : TableSource
        Gives `time_format` and `day_first`.
    place : callable
        Words for the place of a row.
    where : str
        Names the table in messages.

    Raises
    ------
    SmgeoError
        Naming the first time that cannot be read, or whose day and month cannot be told apart.
    """
    first = columns[0]
    if len(columns) == 1 and (first.dtype.kind == "M" or isinstance(first.dtype, pd.DatetimeTZDtype)):
        has_zone = isinstance(first.dtype, pd.DatetimeTZDtype)
        times = first.dt.tz_convert("UTC").dt.tz_localize(None) if has_zone else first
        if times.isna().any():
            raise SmgeoError(f"{where}, {place(int(np.flatnonzero(times.isna())[0]))}: a row has no time")
        of_day = pd.Series(bool((times != times.dt.normalize()).any()), index=times.index)
        return times.astype("datetime64[ns]"), of_day, pd.Series(has_zone, index=times.index)
    join = _join if spec.time_format in _ANY_FORMAT else partial(_join_by_format, form=str(spec.time_format))
    # A table repeats its times at every station, and each is parsed once.
    if len(columns) == 1:
        codes, distinct = pd.factorize(first)
        unique = join([pd.Series(distinct)])
    else:
        codes, distinct = pd.factorize(join(columns))
        unique = pd.Series(distinct)
    parsed, of_day, zoned = _parse_words(unique, spec, where)
    times, of_day, zoned = (pd.Series(s.to_numpy()[codes], index=first.index) for s in (parsed, of_day, zoned))
    bad = np.flatnonzero(times.isna().to_numpy())
    if bad.size:
        word = unique.iloc[codes[bad[0]]]
        raise SmgeoError(f"{where}, {place(int(bad[0]))}: {word!r} is not a date{_advice(word, spec)}")
    return times.astype("datetime64[ns]"), of_day, zoned


def to_utc(times: pd.Series, local: pd.Series, of_day: pd.Series, offset_hours: pd.Series, stamps: str) -> pd.Series:
    """Return times in UTC; of intervals whose end is given, a time within."""
    out = times.where(~local, times - pd.to_timedelta(offset_hours, unit="h"))
    return out.where(~of_day, out - pd.Timedelta(seconds=1)) if stamps == "end" else out


def _spaced(parts: list[pd.Series]) -> pd.Series:
    words = parts[0]
    for part in parts[1:]:
        words = words + " " + part
    return words.str.strip()


def _as_words(columns: list[pd.Series]) -> list[pd.Series]:
    return [column.astype(str).str.strip().str.replace(r"^(\d+)\.0+$", r"\1", regex=True) for column in columns]


def _join(columns: list[pd.Series]) -> pd.Series:
    """Join a date, or year, month and day, and a time of day: hours (5, 24), or hours and minutes (30, 530, 2400)."""
    parts = _as_words(columns)
    if len(parts) > 2 and parts[0].str.fullmatch(r"\d{4}").all():
        parts[:3] = [parts[0] + "-" + parts[1] + "-" + parts[2]]
    for i, part in enumerate(parts[1:], 1):
        digits = part.str.fullmatch(r"\d{1,4}").to_numpy(bool)
        if digits.any():
            # 30 is half past midnight where other rows have 100.
            with_minutes = int(pd.to_numeric(part[digits]).max()) > 24
            clock = part.str.zfill(4) if with_minutes else part.str.zfill(2) + "00"
            parts[i] = part.where(~digits, clock.str[:2] + ":" + clock.str[2:])
    return _spaced(parts)


def _join_by_format(columns: list[pd.Series], form: str) -> pd.Series:
    """Join parts of a time; hours and minutes without leading zeros get them."""
    parts, forms = _as_words(columns), form.split(" ")
    if len(parts) == len(forms):
        widths = [{"%H%M": 4, "%H%M%S": 6}.get(piece, 0) for piece in forms]
        parts = [part.str.zfill(width) for part, width in zip(parts, widths, strict=True)]
    return _spaced(parts)


def _parse_words(words: pd.Series, spec: TableSource, where: str) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Return times in UTC by their offsets (NaT if they are none), whether they have a time of day, and an offset."""
    if spec.time_format not in _ANY_FORMAT:
        return _parse_format(words, str(spec.time_format))
    words = words.str.replace(r"(?<=\d)\s+(?=[+-]\d{2}:?\d{2}$)", "", regex=True)
    words = words.str.replace(r"(?<=\d)\s*(?:UTC|GMT)$", "Z", regex=True)
    words, late = _without_midnight(words)
    words = _year_first(words, spec, where)
    parsed = pd.Series(pd.NaT, index=words.index, dtype="datetime64[us]")
    compact = words.str.fullmatch(r"\d+").to_numpy(bool)
    for digits, form in _COMPACT.items():
        mine = compact & (words.str.len() == digits).to_numpy()
        if mine.any():
            parsed[mine] = _to_datetime(words[mine], form)
    iso = words.str.match(r"\d{4}-\d{2}-\d{2}(?!\d)|\d{8}T").to_numpy(bool)
    if iso.any():
        parsed[iso] = _to_datetime(words[iso], "ISO8601")
    # Hours of one digit, halves of a day, and names of months, which dateutil reads.
    named = words.str.contains(_MONTHS, regex=True) & words.str.contains(r"\d{4}", regex=True)
    named &= words.str.contains(r"(?<![\d:])\d{1,2}(?![\d:])", regex=True) & (words.str.count(r"[A-Za-z]{3,}") == 1)
    rest = parsed.isna().to_numpy() & (words.str.fullmatch(_CLOCK) | named).to_numpy(bool)
    if rest.any():
        parsed[rest] = _to_datetime(words[rest], "mixed")
    parsed = parsed.where(parsed.dt.year.between(*_YEARS))
    parsed = parsed.where(~late, parsed + pd.Timedelta(days=1))
    of_day = words.str.contains(r":|\dT\d|^\d{4}-\d{2}-\d{2} +\d", regex=True) | (compact & (words.str.len() > 8))
    of_day |= words.str.contains(r"\d\s*[AaPp]\.?[Mm]\.?$", regex=True)
    return parsed, of_day, of_day & words.str.contains(_OFFSET, regex=True)


def _to_datetime(words: pd.Series, form: str) -> pd.Series:
    """Return times in UTC without zone, in microseconds, which reach years that nanoseconds do not."""
    times: pd.Series = pd.to_datetime(words, format=form, errors="coerce", utc=True).dt.tz_localize(None)
    return times.astype("datetime64[us]")


def _without_midnight(words: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return words with 00:00 in place of 24:00, and where that was."""
    out = words.str.replace(_MIDNIGHT, r"00\1", regex=True).str.replace(_COMPACT_MIDNIGHT, r"\g<1>00\2", regex=True)
    return out, out != words


def _parse_format(words: pd.Series, form: str) -> tuple[pd.Series, pd.Series, pd.Series]:
    zoned = "%z" in form
    try:
        parsed = _to_datetime(words, form)
        midnight, late = _without_midnight(words)
        late &= parsed.isna()
        if late.any():
            parsed[late] = _to_datetime(midnight[late], form) + pd.Timedelta(days=1)
    except ValueError as error:
        raise SmgeoError(f"time_format {form!r} is not a format of pandas.to_datetime: {error}") from None
    of_day = any(part in form for part in ("%H", "%I", "%X", "%T", "%c", "%R"))
    parsed = parsed.where(parsed.dt.year.between(*_YEARS))
    return parsed, pd.Series(of_day, index=words.index), pd.Series(zoned, index=words.index)


def _year_first(words: pd.Series, spec: TableSource, where: str) -> pd.Series:
    """Return dates of numbers with the year first, as ISO 8601 has it."""
    numbers = words.str.extract(_YEAR_FIRST)
    there = numbers[0].notna()
    if there.any():
        words = words.where(~there, _iso(numbers[0], numbers[2], numbers[3], numbers[4]))
    numbers = words.str.extract(_NUMBERS)
    there = numbers[0].notna()
    if not there.any():
        return words
    day, month = (numbers[0], numbers[2]) if _day_first(words, numbers, spec, where) else (numbers[2], numbers[0])
    return words.where(~there, _iso(numbers[3], month, day, numbers[4]))


def _iso(year: pd.Series, month: pd.Series, day: pd.Series, rest: pd.Series) -> pd.Series:
    return (
        year
        + "-"
        + month.str.zfill(2)
        + "-"
        + day.str.zfill(2)
        + rest.fillna("").str.replace(r"^[:\s]\s*", " ", regex=True)
    )


def _day_first(words: pd.Series, numbers: pd.DataFrame, spec: TableSource, where: str) -> bool:
    """Return whether the first number of dates is the day."""
    if spec.day_first is not None:
        return spec.day_first
    first, second = (pd.to_numeric(numbers[k]) for k in (0, 2))
    day, month = bool((first > 12).any()), bool((second > 12).any())
    if day != month:
        return day
    example = words[(first > 12) if day else numbers[0].notna()].iloc[0]
    found = (
        f"{example!r} has its day first and {words[second > 12].iloc[0]!r} its month"
        if day
        else f"in {example!r} either may be the day"
    )
    raise SmgeoError(
        f"{where}: {found}; set day_first: true (31/01/2020) or false (01/31/2020), or time_format, such as "
        f"{'%d/%m/%Y'.replace('/', str(numbers[1].dropna().iloc[0]))!r}"
    )


def _advice(word: str, spec: TableSource) -> str:
    if spec.time_format not in _ANY_FORMAT:
        return f" in the time_format {spec.time_format!r}"
    if not word:
        return ": the row has no time"
    if (word.isdigit() and len(word) in (10, 13)) or (
        word.replace(".", "", 1).isdigit() and len(word.split(".")[0]) == 5
    ):
        return " but a number, as of a spreadsheet or of seconds since 1970; write dates as text such as 2012-03-25"
    return "; write 2012-03-25 or 2012-03-25T06:00Z, or set time_format, such as '%d.%m.%y %H:%M'"
