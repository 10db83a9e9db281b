"""Samples of gridded files, read before any work: another unit, numbers that may mean missing, and sums that add up through a day."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

from smgeo.catalog import Feature
from smgeo.cube.tally import counting_dropped
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.sources.gridded.cuts import Reading, cut_window, open_band, packing_of
from smgeo.sources.gridded.files import File, open_variables
from smgeo.sources.gridded.packing import OUTSIDE_FILE_RANGE
from smgeo.sources.pixels.gate import (
    refuse_decibels,
    refuse_double_offset,
    refuse_other_unit,
    screen,
    spread,
    warn_of_zeros,
)
from smgeo.sources.pixels.observation import Observation

Place: TypeAlias = tuple[File, int]  # a file, and the position of a time in it
_WIDE, _NARROW = 512, 64  # pixels of a side of the window, in the middle of the grid
_WHOLE = 2**22  # values of a source that is read as a whole
_FEW = 3
_FALL = 0.01  # of the largest value: below this, falls are rounding
_RISES = 3  # steps on which a sum must rise for its rise to be no chance


def check_unit(reading: Reading, feature: Feature, places: Sequence[Place]) -> None:
    """Refuse a variable that is in another unit, by its first, middle and last time.

    Raises
    ------
    SmgeoError
        If most values are outside the variable's range or the file's own, naming a file and what helps.
    """
    chosen = spread(places, _FEW)
    if not chosen:
        return
    with counting_dropped() as dropped:
        values = np.concatenate([_sample(reading, run).ravel() for run in _runs(chosen)])
    where = f"{chosen[0][0]}: {reading.band}"
    excluded = dropped.get(reading.name, {}).get(OUTSIDE_FILE_RANGE, 0)
    if excluded > np.isfinite(values).sum():
        raise SmgeoError(
            f"{where} has most values of a sample outside its own valid_range ({excluded} of {excluded + int(np.isfinite(values).sum())}); "
            "correct the file's attribute, or set honour_valid_range: false to keep them"
        )
    if reading.power:
        refuse_decibels(values, feature, where)
    values = _stored(reading, values)
    refuse_double_offset(values, feature, where)
    refuse_other_unit(values, feature, where)
    if not reading.power:  # of linear power, 0 dB is 1
        warn_of_zeros(values, feature, where)


def warn_of_fill(reading: Reading, fill: float, places: Sequence[Place]) -> None:
    """Warn of values that equal a fill value which no attribute declares, and how many they are."""
    height, width = reading.layout.box.shape.yx
    whole = len(places) * height * width <= _WHOLE
    chosen = list(places) if whole else spread(places, _FEW)
    if not chosen:
        return
    with open_variables(chosen[0][0], reading.kind, reading.group) as variables:
        stored = variables[reading.band]
        number = np.full((1, 1, 1), fill).astype(stored.values.dtype)
        value = reading.convert(packing_of(stored, chosen[0][0], reading).unpack(number)[0])
    side = max(height, width) if whole else _WIDE
    samples = [_sample(reading, run, side) for run in _runs(chosen)]
    count, size = sum(int((s == value).sum()) for s in samples), sum(s.size for s in samples)
    if count:
        warnings.warn(
            f"{chosen[0][0]}: {count} of {size} values of {reading.band}{'' if whole else ' in a sample'} equal the array's fill_value "
            f"{fill:g}, and no attribute _FillValue declares that it means missing; they are kept as values. If they mean missing, set "
            f"nodata: {fill:g}",
            SmgeoWarning,
            stacklevel=2,
        )


def _sample(reading: Reading, run: tuple[File, slice], side: int = _WIDE) -> np.ndarray:
    """Return the middle of the grid at some times of a file, in the cube's unit or in linear power."""
    file, times = run
    rows, columns = ((max(0, (n - side) // 2), min(n, (n + side) // 2)) for n in reading.layout.box.shape.yx)
    with open_band(file, reading) as cut:
        return cut_window(cut, reading.layout_in(file), times, rows, columns)


def _stored(reading: Reading, values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return Observation(values, reading.power).stored()


# Sums since 00 UTC


def check_accumulation(
    reading: Reading, feature: Feature, times: pd.DataFrame, files: Sequence[File], *, accumulated: bool, where: str
) -> None:
    """Compare how values rise through a few days with the rule for them.

    Parameters
    ----------
    reading, feature : Reading, Feature
        The variable.
    times : DataFrame
        `at`, `file`, `position` and `timed` of each time, in order.
    files : sequence of path or URL
        The files.
    accumulated : bool
        True if values are taken for sums since 00 UTC.
    where : str
        Names the source and the variable in messages.

    Raises
    ------
    SmgeoError
        If values that are taken for sums since 00 UTC fall within a day, or others rise as such sums do.
    """
    if feature.valid_range[0] < 0:
        return  # sums of values of both signs rise and fall
    rises, falls, resets = 0, 0, True
    for day in _sample_days(times):
        places = [(files[f], p) for f, p in zip(day["file"], day["position"], strict=True)]
        values = screen(np.concatenate([_sample(reading, run, _NARROW) for run in _runs(places)]), feature)
        least = _FALL * np.abs(values[np.isfinite(values)]).max(initial=0)
        steps = np.diff(values, axis=0)
        inside, after = steps[:-1], steps[-1]  # the last is from 00 UTC to the first time after it
        falls += int((inside < -least).sum())
        rises += int(((inside > least).sum(axis=0) >= _RISES).sum())
        resets &= bool((after[values[-2] > least] < 0).all())
    if accumulated and falls:
        raise SmgeoError(
            f"{where} falls from one time to the next within a day, so its values are no sums since 00 UTC; set daily: sum, with stamp: end "
            "if each value is the total of the step that ends at its time"
        )
    if not accumulated and rises and not falls and resets:
        raise SmgeoError(
            f"{where} rises through each day of a sample and falls after 00 UTC, as sums since 00 UTC do (ERA5-Land); set daily: accumulated. "
            "If each value is the total of its own step all the same, set stamp: start or stamp: end"
        )


def _sample_days(times: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the times from after 00 UTC to the first one after the next 00 UTC, of a few days that have several."""
    known = times[times["timed"]].reset_index(drop=True)
    midnights = known.index[known["at"] == known["at"].dt.floor("D")]
    pairs = [(start + 1, end + 2) for start, end in itertools.pairwise(midnights) if end + 1 < len(known)]
    return [known.iloc[slice(*pair)] for pair in spread(pairs, _FEW) if pair[1] - pair[0] > _RISES]


def _runs(places: Sequence[Place]) -> list[tuple[File, slice]]:
    """Return the places as runs of consecutive times of a file, in order."""
    runs: list[tuple[File, slice]] = []
    for file, position in places:
        if runs and runs[-1][0] == file and runs[-1][1].stop == position:
            runs[-1] = (file, slice(runs[-1][1].start, position + 1))
        else:
            runs.append((file, slice(position, position + 1)))
    return runs
