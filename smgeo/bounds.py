"""Bounds of the numbers and days that users pass to functions, and sizes weighed against the machine.

A name has one meaning in all functions, so its bounds stand here once. Recipes have theirs in `smgeo.recipe`.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
import pandas as pd
import psutil

from smgeo.errors import SmgeoError

# Environment variable that turns the weighing of sizes off.
ANY_SIZE = "SMGEO_ANY_SIZE"
# Share of the free memory, or of the free disk, that one piece of work may take.
_SHARE = 0.9
# Days of an ISO date, with or without a time.
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?", re.ASCII)
# NumPy and scikit-learn take no larger one.
LARGEST_SEED = 2**32 - 1
# Data from before 1900 do not exist, and beyond 2200 a day is a typing error.
FIRST_DAY, LAST_DAY = dt.date(1900, 1, 1), dt.date(2200, 12, 31)

# 100,000 x 100,000 pixels: one day of one variable takes 40 GB.
MOST_PIXELS = 10**10


class Bound(NamedTuple):
    """Smallest and greatest value; `open_low` and `open_high` exclude these themselves."""

    low: float
    high: float
    whole: bool = True
    open_low: bool = False
    open_high: bool = False

    def allows(self, value: float) -> bool:
        """Return True if a number is within the bounds; NaN never is."""
        above = self.low < value if self.open_low else self.low <= value
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        word = "a whole number" if self.whole else "a number"
        if not (self.open_low or self.open_high):
            return f"{word} from {self.low:,} to {self.high:,}"
        low, high = "above" if self.open_low else "of at least", "below" if self.open_high else "at most"
        return f"{word} {low} {self.low:,} and {high} {self.high:,}"


_BOUNDS = {
    "seed": Bound(0, LARGEST_SEED),
    "folds": Bound(2, 1_000_000),
    "nearest": Bound(1, 10_000),
    "gap_days": Bound(0, 36_525),
    "block_km": Bound(0, 20_000, whole=False, open_low=True),
    "same_place_m": Bound(0, 1_000_000, whole=False),
    "km": Bound(0, 20_000, whole=False, open_low=True),
    "buffer_km": Bound(0, 20_000, whole=False),
    "radius_m": Bound(0, 1_000_000, whole=False, open_low=True),
    "z": Bound(0, 1_000_000, whole=False, open_low=True),
    "repeats": Bound(1, 10_000),
    "rows": Bound(1, 10_000_000),
    "fraction": Bound(0, 1, whole=False, open_low=True),
    "share": Bound(0, 1, whole=False),
    "level": Bound(0, 1, whole=False, open_low=True, open_high=True),
    "length": Bound(1, 36_525),
    "missing": Bound(0, 1, whole=False, open_high=True),
    "buffer": Bound(1, 1_000_000),
    "size": Bound(1, 2**31 - 1),
    "limit": Bound(0, 36_525),
    "days": Bound(30, 110_000),
    "stations": Bound(12, 10_000_000),
    "side": Bound(16, 1_000_000),
    "workers": Bound(1, 100_000),
    "frame_ms": Bound(10, 655_350),
    "depth_m": Bound(0, 1_000, whole=False),
}


P = ParamSpec("P")
R = TypeVar("R")
# Annotations of arguments that `checked` knows: what is needed, and whether a value is that.
_KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "bool": ("True or False", lambda v: isinstance(v, bool | np.bool_)),
    "str": ("text", lambda v: isinstance(v, str)),
    # Ids of stations may be whole numbers.
    "Sequence[str]": ("a list of names", lambda v: _is_list(v, str | Integral)),
    "Iterable[str]": ("a list of names", lambda v: _is_list(v, str | Integral)),
    "Sequence[float]": ("a list of numbers", lambda v: _is_list(v, Real)),
    "Sequence[int]": ("a list of whole numbers", lambda v: _is_list(v, Integral)),
    "Part": ("train, validation or test", lambda v: isinstance(v, str) and v in ("train", "validation", "test")),
    "Mapping": ("a mapping", lambda v: isinstance(v, Mapping)),
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with its flags, texts, lists of names and mappings checked by their annotations, before anything else runs.

    Calls raise `SmgeoError` with the argument, what it needs and what was found. Numbers have bounds, see `check_arguments`.
    """
    signature = inspect.signature(function)
    hints = {name: str(hint) for name, hint in function.__annotations__.items()}
    kinds = {n: k for n, h in hints.items() if (k := _KINDS.get(h.removesuffix(" | None").split("[str, ")[0]))}
    optional = {name for name, hint in hints.items() if hint.endswith("| None")}

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **options).arguments
        except TypeError:  # Python's own sentence names the function
            return function(*args, **options)
        for name in kinds.keys() & given.keys():
            needs, fits = kinds[name]
            if not fits(given[name]) and not (given[name] is None and name in optional):
                raise SmgeoError(
                    f"{function.__qualname__.removesuffix('.__init__')}: {name} must be {needs}; got {_shown(given[name])}"
                )
        return function(*args, **options)

    return call


def _is_list(value: object, parts: type | UnionType) -> bool:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return False
    return not isinstance(value, list | tuple | set | np.ndarray) or all(isinstance(v, parts) for v in value)


def check_arguments(where: str, **values: object) -> None:
    """Refuse values that are not numbers within the bounds of their names, such as `seed=-1` or `folds=True`.

    Raises
    ------
    SmgeoError
        With the name, what it needs and what was found.
    """
    for name, value in values.items():
        check_number(where, name, value, _BOUNDS[name])


def check_given(where: str, **values: object) -> None:
    """Check as `check_arguments` does, but allow None: the default of the function."""
    check_arguments(where, **{name: value for name, value in values.items() if value is not None})


def check_each(where: str, name: str, values: object, bound: str) -> None:
    """Refuse anything but a list of one number or more, each within the bounds of the name `bound`.

    Raises
    ------
    SmgeoError
        With the first wrong number.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | np.ndarray) or not len(values):
        raise SmgeoError(f"{where}: {name} must be a list of one number or more; got {_shown(values)}")
    for value in values:
        check_number(where, name, value, _BOUNDS[bound])


def check_number(where: str, name: str, value: object, bound: Bound) -> None:
    """Refuse a value that is not a number within bounds; true and false are no numbers.

    Raises
    ------
    SmgeoError
        With the name, what it needs and what was found.
    """
    fits = isinstance(value, Integral if bound.whole else Real) and not isinstance(value, bool)
    if not fits or not bound.allows(value):  # type: ignore[arg-type]
        raise SmgeoError(f"{where}: {name} must be {bound}; got {_shown(value)}")


def check_day(where: str, value: object) -> dt.date:
    """Return the day of a date, a time or a text such as `2020-01-31`.

    Raises
    ------
    SmgeoError
        If it is anything else, such as the number 20200131 or the text `2020`, or is not from 1900 to 2200.
    """
    text_or_date = isinstance(value, dt.date | np.datetime64) or (isinstance(value, str) and _DAY.fullmatch(value))
    try:
        day = pd.Timestamp(value).date() if text_or_date else None  # type: ignore[arg-type]
    except ValueError:
        day = None
    if day is None or pd.isna(day) or not FIRST_DAY <= day <= LAST_DAY:
        raise SmgeoError(f"{where}: a day is a date from 1900 to 2200, such as 2020-01-31; got {_shown(value)}")
    return day


def check_period(where: str, period: object) -> tuple[dt.date, dt.date] | None:
    """Return the first and the last day of a period, which must be two days in order; None, which is all days, for None.

    Raises
    ------
    SmgeoError
        With what was found.
    """
    if period is None:
        return None
    if isinstance(period, str | bytes) or not isinstance(period, Sequence | np.ndarray) or len(period) != 2:
        raise SmgeoError(f"{where}: period must be a first and a last day; got {_shown(period)}")
    first, last = (check_day(f"{where}: period", day) for day in period)
    if first > last:
        raise SmgeoError(f"{where}: period ends before it begins: {first} to {last}")
    return first, last


def weigh_memory(what: str, size: float) -> None:
    """Refuse work whose estimated memory is not free on this machine, unless `SMGEO_ANY_SIZE=1`.

    Raises
    ------
    SmgeoError
        With both sizes, in bytes.
    """
    machine = psutil.virtual_memory()
    _weigh(what, size, machine.available, f"memory are free, of {in_bytes(machine.total)}")


def weigh_disk(what: str, size: float, folder: Path) -> None:
    """Refuse files whose estimated size does not fit on the disk of a folder, unless `SMGEO_ANY_SIZE=1`.

    Raises
    ------
    SmgeoError
        With both sizes, in bytes.
    """
    there = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())
    disk = psutil.disk_usage(str(there))
    _weigh(what, size, disk.free, f"disk are free at {there}, of {in_bytes(disk.total)}")


def _weigh(what: str, size: float, free: int, words: str) -> None:
    if size > _SHARE * free and os.environ.get(ANY_SIZE) != "1":
        raise SmgeoError(
            f"{what} needs about {in_bytes(size)}, and {in_bytes(free)} of {words}; make it smaller, or set {ANY_SIZE}=1 to try anyway"
        )


def in_bytes(size: float) -> str:
    """Return a size as `1.5 GB`.

    >>> in_bytes(1_500_000_000), in_bytes(999), in_bytes(4e20)
    ('1.5 GB', '999 B', '400,000 PB')
    """
    power = min(int(math.log10(max(size, 1)) // 3), 5)
    return f"{float(f'{size / 1000**power:.3g}'):,g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
