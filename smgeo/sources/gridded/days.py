"""UTC days of a source's times: each time once, the day that its value belongs to, and the number of times of a whole day."""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from smgeo.catalog import Feature
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.recipe.rasters import GriddedSource
from smgeo.sources.gridded.files import File
from smgeo.sources.gridded.headers import Header
from smgeo.sources.gridded.imerg import PREFERENCE
from smgeo.sources.gridded.times import Times
from smgeo.sources.pixels.daily import Rule, choose_rule
from smgeo.sources.pixels.dates import has_hour, moment_in_name


@dataclass(frozen=True, eq=False)
class Observed:
    """The times of a variable.

    Attributes
    ----------
    places : tuple of (day, file, position)
        Each time that is used, in order: its day, the number of its file, and its position in it.
    rule : str
        How the times of a day become one.
    whole : int or None
        Number of times that a day must have; None if any number will do.
    several : bool
        True if a day has several times.
    times : DataFrame
        All times once, with `at`, `file` and `position`, in order.
    """

    places: tuple[tuple[pd.Timestamp, int, int], ...]
    rule: Rule
    whole: int | None
    several: bool
    times: pd.DataFrame


def observe(
    name: str, feature: Feature, files: tuple[File, ...], header: Header, source: GriddedSource
) -> Observed | None:
    """Return the times of a variable and how they become days; None if it does not vary in time.

    Raises
    ------
    SmgeoError
        If it must not vary but does, a time is unknown, or the rule `daily` does not suit the times.
    """
    where = f"{source.label}: {name}"
    if feature.kind == "static":
        count = sum(t.at.size if t is not None else 1 for t in header.times)
        if count > 1:
            raise SmgeoError(
                f"{where} does not vary in time, but there are {count} times in {len(files)} files; name one"
            )
        return None
    times = _each_once(_all_times(name, files, header, source), files, where)
    if times.empty:
        raise SmgeoError(f"{where} has no time in {files[0]}{' and the other files' if len(files) > 1 else ''}")
    accumulated = header.step if header.step is not None and "accum" in header.step else _growing_bounds(times)
    rule = choose_rule(source.daily, feature, masked=False)
    if rule == "accumulated":
        if header.step is not None and accumulated is None:
            raise SmgeoError(
                f"{where} has {header.step}, so it is not a sum since 00 UTC; daily: accumulated does not suit it"
            )
        used = _closing(times, where)
        return Observed(_places(used), rule, None, False, times)
    if accumulated is not None and source.stamp is None and not _plain_bounds(times):
        raise SmgeoError(
            f"{where} is accumulated ({accumulated}), so its times can be neither added nor averaged. Set daily: accumulated if values "
            "add up from 00 UTC on and the one at 00 UTC is the total of the day before (ERA5-Land); if each value is the total of the step "
            "that ends at its time (ERA5), set stamp: end and daily: sum"
        )
    times["day"] = _day_of(times, source.stamp)
    return _combined(times, rule, feature, source, where)


def _combined(times: pd.DataFrame, rule: Rule, feature: Feature, source: GriddedSource, where: str) -> Observed:
    counts = times["day"].value_counts(sort=False)
    busiest, most = counts.idxmax(), int(counts.max())
    per_day, step = _step(times)
    total = feature.units.endswith("d-1")  # an amount a day: the mean of a part of the day would be extrapolated
    if source.daily == "auto" and (most > 1 or (total and per_day > 1)):
        raise SmgeoError(
            f"{where} has {most} time{'s' * (most > 1)} on {busiest:%Y-%m-%d} (UTC){'' if most > 1 else f', of {step:g} h'}; set how they "
            "are combined: daily: mean, or daily: sum"
        )
    if rule == "mean" and total and max(most, per_day) > 1:
        rule = "rate"
    whole = None
    if rule in ("sum", "rate"):
        whole = per_day
        _check_steps(times, counts, per_day, step, where)
    return Observed(_places(times), rule, whole, most > 1, times)


def _check_steps(times: pd.DataFrame, counts: pd.Series, per_day: int, step: float, where: str) -> None:
    """Refuse times of which a whole day cannot be known."""
    if not times["timed"].all() and counts.max() > 1:
        raise SmgeoError(
            f"{where} has {counts.max()} files on {counts.idxmax():%Y-%m-%d}, whose hours are unknown, so that a whole day is unknown too; "
            "put %H and %M in dates if the names have them, else daily: mean of a variable that is no daily total"
        )
    if step < 24 and abs(24 / step - per_day) > 0.05:
        raise SmgeoError(
            f"{where} has times {step:g} h apart, which do not divide a day; resample the files to hours first, or give their "
            "daily values"
        )
    if (counts > per_day).any():
        day = counts.idxmax()
        raise SmgeoError(
            f"{where} has {counts.max()} times on {day:%Y-%m-%d}, but its step of {step:g} h gives {per_day} a day; give one source for "
            "each step"
        )


def _places(times: pd.DataFrame) -> tuple[tuple[pd.Timestamp, int, int], ...]:
    times = times.sort_values("day", kind="stable")
    return tuple(zip(times["day"], times["file"].tolist(), times["position"].tolist(), strict=True))


# All times


def _all_times(name: str, files: tuple[File, ...], header: Header, source: GriddedSource) -> pd.DataFrame:
    """Return each time: the columns of `Times` (NaT and NaN if unknown), file, position, rank of its run, and timed (False if only its day is known)."""
    parts = []
    for i, (file, times, run) in enumerate(zip(files, header.times, header.runs, strict=True)):
        timed = True
        if times is None:
            moment, timed = _moment(file, source, name)
            at = pd.DatetimeIndex([moment])
            times = Times(at, at - pd.Timedelta(1, "s"))
        unknown = pd.DatetimeIndex([pd.NaT] * times.at.size)
        intervals = {
            k: unknown if v is None else v
            for k, v in (("start", times.start), ("middle", times.middle), ("last", times.last))
        }
        hours = np.nan if times.hours is None else times.hours
        rank = PREFERENCE.index(run) if run is not None else 0
        columns = {"at": times.at, "ended": times.ended, **intervals, "hours": hours, "file": i}
        parts.append(pd.DataFrame({**columns, "position": np.arange(times.at.size), "rank": rank, "timed": timed}))
    return pd.concat(parts, ignore_index=True).sort_values(["at", "rank", "file", "position"], ignore_index=True)


def _moment(file: File, source: GriddedSource, name: str) -> tuple[pd.Timestamp, bool]:
    """Return the time of a file that has none of its own, and True if it is known to the hour."""
    if isinstance(source.dates, dt.date):
        return pd.Timestamp(source.dates), False
    if source.dates is None:
        raise SmgeoError(
            f"{file}: {name} varies in time, and the file has no time coordinate; give dates: the file's name with "
            "%Y, %m, %d (or %j) in place of its date and * for any text"
        )
    return moment_in_name(Path(file).name, source.dates), has_hour(source.dates)


def _each_once(times: pd.DataFrame, files: Sequence[File], where: str) -> pd.DataFrame:
    """Return times without those that are given again, which a warning counts and names."""
    again = times["timed"] & times.duplicated("at")
    if not again.any():
        return times
    count = int(again.sum())
    first = times[again].iloc[0]
    used = times[times["at"] == first["at"]].iloc[0]
    places = dict.fromkeys(str(files[i]) for i in (used["file"], first["file"]))
    named = ", ".join(f"{t:%Y-%m-%d %H:%M}" for t in times.loc[again, "at"].unique()[:3])
    more = ", ..." if times.loc[again, "at"].nunique() > 3 else ""
    warnings.warn(
        f"{where} has {count} time{'s' * (count > 1)} again that the source already gives ({named}{more}; the first in "
        f"{' and '.join(places)}); each time is used once, from the first of its files",
        SmgeoWarning,
        stacklevel=2,
    )
    return times[~again].reset_index(drop=True)


# Days


def _day_of(times: pd.DataFrame, stamp: str | None) -> pd.Series:
    """Return the day that each value belongs to: that in which its interval is, or without bounds that of its time."""
    at = times["ended"].where(times["timed"], times["at"]) if stamp == "end" else times["at"]
    at = at.where(~(times["hours"] <= 24), times["middle"])
    # A composite of several days has the day of its time, if this is one of them.
    several = times["hours"] > 24
    at = at.where(~(several & (at > times["last"])), times["last"])
    day: pd.Series = at.where(~(several & (at < times["start"])), times["start"]).dt.floor("D")
    return day


def _step(times: pd.DataFrame) -> tuple[int, float]:
    """Return the number of times of a whole day, and the hours of the usual step between times."""
    timed = times[times["timed"]]
    hours = timed["hours"].to_numpy()
    if not hours.size or not (hours > 0).all():
        hours = np.diff(timed["at"].drop_duplicates().to_numpy()) / np.timedelta64(1, "h")
    if not hours.size:
        return 1, 24.0
    minutes, counts = np.unique(np.round(hours * 60), return_counts=True)
    usual = minutes[counts.argmax()] / 60
    step = float(hours[np.abs(hours - usual) <= 0.2 * usual].mean())  # times of few digits are not evenly spaced
    return max(1, round(24 / step)), round(step, 3)


def days_apart(times: pd.DataFrame) -> float:
    """Return the days from one time to the next, or of the intervals of times: the least; 1 if it is not known."""
    hours = times["hours"].to_numpy()
    if not (hours > 0).all():
        hours = np.diff(times["at"].drop_duplicates().to_numpy()) / np.timedelta64(1, "h")
    return float(hours.min()) / 24 if hours.size else 1.0


# Values that add up


def _growing_bounds(times: pd.DataFrame) -> str | None:
    """Return the reason why values add up if the intervals of consecutive times begin together."""
    together = (times["start"].diff() == pd.Timedelta(0)) & (times["hours"].diff() > 0)
    return "the bounds of its times begin together" if together.any() else None


def _plain_bounds(times: pd.DataFrame) -> bool:
    return bool(times["start"].notna().all()) and _growing_bounds(times) is None


def _closing(times: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the times at which the sum since 00 UTC is that of a whole day, with this day."""
    if (times["hours"] > 0).all():
        whole = (times["start"] == times["start"].dt.floor("D")) & ((times["hours"] - 24).abs() < 0.01)
        used: pd.DataFrame = times.assign(day=times["start"])[whole]
    else:
        midnight = times["timed"] & (times["at"] == times["at"].dt.floor("D"))
        used = times.assign(day=times["ended"].dt.floor("D"))[midnight]
    if used.empty:
        raise SmgeoError(
            f"{where} has no time at 00 UTC, when the sum of the day before is complete, so daily: accumulated gives no day; add the files "
            "with these times"
        )
    return used
