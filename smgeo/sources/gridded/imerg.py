"""Runs of GPM IMERG: its final run is calibrated with gauges, the late and early runs are not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from smgeo.files import JsonObject
from smgeo.sources.gridded.files import File

_RUNS = {"": "final", "F": "final", "L": "late", "E": "early"}
# The file's name (3B-DAY-L.MS.MRG.3IMERG.20200101-...), also in FileHeader; ShortName (GPM_3IMERGDL), also in the title; DOIs.
_MARKS = (
    r"3B-(?:DAY|HHR|MO)(?:-([LE]))?\.MS\.MRG\.3IMERG",
    r"GPM_3IMERG(?:D|HH|M)([FLE]?)\b",
    r"10\.5067/GPM/IMERGD([FLE])/",
    r"10\.5067/GPM/IMERG/3B-(?:HH|MONTH)(?:-([LE]))?/",
)
# A day of IMERG, and what is noted of values of a day that are made from fewer.
HALF_HOURS = 48
LACKS_HALF_HOURS = "lacks half hours"
# The run that is used if a time is in files of two.
PREFERENCE = ("final", "late", "early")


def run_of(file: File, attrs: Callable[[], JsonObject]) -> str | None:
    """Return the run of IMERG that a file is of, by its name, else by its attributes; None if it is of another product."""
    if (found := _run_in(PurePosixPath(str(file)).name)) is not None:
        return found
    texts = (str(v) for k, v in attrs().items() if k in ("FileHeader", "ShortName", "DOI", "title"))
    return next(filter(None, map(_run_in, texts)), None)


def _run_in(text: str) -> str | None:
    found = (re.search(mark, text) for mark in _MARKS)
    return next((_RUNS[m[1] or ""] for m in found if m), None)


def runs_in_words(runs: Sequence[str | None]) -> str | None:
    """Return the runs of a source's files: one, or each with its number of files; None if no file is of IMERG.

    >>> runs_in_words(["late", "final", "final"])
    'final (2 files), late (1 file)'
    """
    counts = Counter(r for r in runs if r is not None)
    if len(counts) < 2:
        return next(iter(counts), None)
    return ", ".join(f"{r} ({counts[r]} file{'s' * (counts[r] > 1)})" for r in PREFERENCE if counts[r])
