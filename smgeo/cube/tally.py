"""Counts of values that sources drop while a region is computed, by variable and reason.

A source gives its values without those that it dropped, so only the task that reads them can count them. A region is computed by one thread,
which collects the counts here and writes them to the ledger with the region: a resumed write counts as an uninterrupted one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import xarray as xr

# Variable -> reason -> number of values.
Dropped = dict[str, dict[str, int]]

_ATTRIBUTE = "smgeo_dropped"
_counts: ContextVar[Dropped | None] = ContextVar("dropped", default=None)


@contextmanager
def counting_dropped() -> Iterator[Dropped]:
    """Collect what this thread drops meanwhile."""
    counts: Dropped = {}
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


def note_dropped(variable: str, reason: str, number: int) -> None:
    """Count dropped values, if a region is being computed; values that a user computes by hand are not counted."""
    counts = _counts.get()
    if counts is not None and number:
        reasons = counts.setdefault(variable, {})
        reasons[reason] = reasons.get(reason, 0) + int(number)


def add_dropped(parts: Iterable[Mapping[str, Mapping[str, int]]]) -> Dropped:
    """Return the sum of several counts.

    >>> add_dropped([{"sm": {"infinite": 1}}, {"sm": {"infinite": 2, "outside": 1}}])
    {'sm': {'infinite': 3, 'outside': 1}}
    """
    total: dict[str, Counter[str]] = {}
    for part in parts:
        for variable, reasons in part.items():
            total.setdefault(variable, Counter()).update(reasons)
    return {variable: dict(reasons) for variable, reasons in total.items()}


def with_dropped(ds: xr.Dataset, parts: Iterable[Mapping[str, Mapping[str, int]]]) -> xr.Dataset:
    """Return a cube with the counts of what was dropped before it is written, such as in the stores that its values are read from.

    They are in the attribute `smgeo_dropped`, as JSON.
    """
    counts = add_dropped([dropped_before(ds), *parts])
    return ds.assign_attrs({_ATTRIBUTE: json.dumps(counts, sort_keys=True)}) if counts else ds


def dropped_before(ds: xr.Dataset) -> Dropped:
    """Return the counts that `with_dropped` added to a cube."""
    counts: Dropped = json.loads(ds.attrs.get(_ATTRIBUTE, "{}"))
    return counts
