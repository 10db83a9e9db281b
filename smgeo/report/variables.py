"""Contents of a cube, variable by variable: unit, source, least, middle and greatest value, share of values, and what was made missing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.catalog import FEATURES, Feature
from smgeo.cube.ledger import read_dropped
from smgeo.cube.reading import open_cube
from smgeo.cube.schema import kind_of, variables_of_kind
from smgeo.cube.tally import Dropped, add_dropped, dropped_before
from smgeo.files import JsonObject
from smgeo.threads import map_threads

# The median of a variable is exact up to so many values; of a larger one, it is that of every second, third, ... value.
EXACT_VALUES = 4_000_000
_SHARE_OF_ONE = 0.5  # a larger share of one value is worth a look
_NO_RANGE = 3.0e38  # a recipe's own variable has this range if it gives none
# Counts of a station cube that are values of the target made missing.
_REMOVED = ("rows_without_target", "hours_flagged", "days_incomplete", "days_outside")


@dataclass(frozen=True)
class _Part:
    """Values of one block, or of several together; `counts` and `looked` are of each day if the variable varies in time."""

    first_day: int
    counts: np.ndarray
    looked: np.ndarray
    infinite: int
    minimum: float
    maximum: float
    sample: np.ndarray


def describe_variables(
    path: Path,
    names: Sequence[str] | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
    *,
    target: str | None = None,
    most: int | None = None,
) -> JsonObject:
    """Return the contents of each variable of a cube; see `smgeo.report.schema.Variable`.

    Parameters
    ----------
    path : Path
        A cube. Its numbers are read once, block by block, so that memory is bounded by the number of CPUs times a block.
    names : sequence of str, optional
        Its variables, in the order of the result; by default all but counts.
    catalog : mapping
        Valid range of each variable, and unit of those that others were derived from.
    target : str, optional
        Variable to which the counts of a station cube belong; by default the first of kind `target`.
    most : int, optional
        Of a variable with more values, only every second, third, ... block is read.

    Returns
    -------
    dict
        Name -> `kind`, `units`, `source`, `minimum`, `median`, `maximum`, `valid_share`, `dropped`, `notes`; on a grid also `days`, `first_day` and
        `last_day` of those that vary in time. Variables that are not in the cube, of which others were derived, have only what was dropped.
    """
    cube = open_cube(path, dask=False)
    dropped = count_dropped(path, cube)
    if target is None:
        target = next(iter(variables_of_kind(cube, "target")), None)
    if target is not None and (removed := _removed_of_target(cube)):
        dropped = add_dropped([dropped, {target: removed}])
    if names is None:
        names = [str(n) for n, v in cube.data_vars.items() if kind_of(v) != "diagnostic"]
    found: JsonObject = {}
    for name in names:
        about = _describe(cube[name], most)
        low, high = catalog[name].valid_range if name in catalog else (0.0, 0.0)
        if low <= -_NO_RANGE and high >= _NO_RANGE:
            about["notes"].append("no valid range given")
        found[name] = {**about, "dropped": dropped.get(name, {})}
    for name in [n for n in dropped if n not in cube.variables]:
        units = catalog[name].units if name in catalog else ""
        found[name] = {"kind": "input", "units": units, "dropped": dropped[name], "notes": ["only read for others"]}
    return found


def count_dropped(path: Path, cube: xr.Dataset | None = None) -> Dropped:
    """Return the number of values that sources dropped for a cube, by variable and reason: in the cube's ledger, and before it was written."""
    cube = open_cube(path, dask=False) if cube is None else cube
    return add_dropped([read_dropped(path), dropped_before(cube)])


def _removed_of_target(cube: xr.Dataset) -> dict[str, int]:
    """Return what readers of stations counted as removed, by the words of the count."""
    counts = {str(cube[n].attrs.get("long_name", n)): int(np.nansum(cube[n].values)) for n in _REMOVED if n in cube}
    return {words: n for words, n in counts.items() if n}


def _describe(variable: xr.DataArray, most: int | None) -> JsonObject:
    attrs = {key: str(variable.attrs.get(key, "")) for key in ("units", "source")}
    about: JsonObject = {"kind": kind_of(variable), **attrs}
    if variable.dtype.kind not in "fiu":
        return {**about, "notes": ["text" if variable.dtype.kind in "OUST" else str(variable.dtype)]}
    seen = _look(variable, most)
    days = np.flatnonzero(seen.counts) if seen.counts.ndim else np.array([0])
    on_grid = {"y", "x"} <= set(variable.dims)
    # A grid is not observed every day: the share is that of the days on which it is.
    looked = int(seen.looked.reshape(-1)[days].sum() if on_grid else seen.looked.sum())
    valid = int(seen.counts.sum())
    about |= {"valid_share": round(valid / looked, 6) if looked else 0.0, "notes": _notes(seen, valid)}
    if on_grid and "time" in variable.dims:
        times = pd.DatetimeIndex(variable.indexes["time"])
        ends = [str(times[days[i]].date()) if days.size else None for i in (0, -1)]
        about |= {"days": int(days.size), "first_day": ends[0], "last_day": ends[1]}
    if valid:
        numbers = {"minimum": seen.minimum, "median": np.median(seen.sample), "maximum": seen.maximum}
        about |= {name: float(f"{number:.7g}") for name, number in numbers.items()}
    return about


def _notes(seen: _Part, valid: int) -> list[str]:
    """Return what is odd about a variable's values."""
    notes = [f"{seen.infinite:,} infinite values"] if seen.infinite else []
    if not valid:
        return ["no value", *notes]
    if seen.minimum == seen.maximum:
        return [*(["constant"] if valid > 1 else []), *notes]
    middle = np.median(seen.sample)
    share = float(np.mean(seen.sample == middle))
    # Most days are without rain, and much land is flat: 0 says nothing.
    return [f"{share:.0%} are {middle:.6g}", *notes] if share > _SHARE_OF_ONE and middle != 0 else notes


def _look(variable: xr.DataArray, most: int | None) -> _Part:
    """Return the finite values of a variable in numbers."""
    blocks = _blocks(variable)
    every = 1 if most is None else max(1, math.ceil(variable.size / most))
    step = max(1, math.ceil(variable.size / every / EXACT_VALUES))
    parts = map_threads(partial(_look_at_block, variable.variable, step), blocks[::every])
    days = (variable.sizes["time"],) if "time" in variable.dims else ()
    counts, looked = np.zeros(days, dtype="int64"), np.zeros(days, dtype="int64")
    for part in parts:
        place = slice(part.first_day, part.first_day + part.counts.size) if days else ...
        counts[place] += part.counts
        looked[place] += part.looked
    return _Part(
        0,
        counts,
        looked,
        sum(part.infinite for part in parts),
        min((part.minimum for part in parts), default=math.inf),
        max((part.maximum for part in parts), default=-math.inf),
        np.concatenate([part.sample for part in parts]) if parts else np.empty(0),
    )


def _blocks(variable: xr.DataArray) -> list[dict[str, slice]]:
    """Return the blocks in which a variable is stored."""
    sizes = variable.encoding.get("preferred_chunks", {})
    edges = {str(d): range(0, n, sizes.get(d, n) or 1) for d, n in variable.sizes.items()}
    return [
        {d: slice(at, at + edges[d].step) for d, at in zip(edges, place, strict=True)}
        for place in itertools.product(*edges.values())
    ]


def _look_at_block(variable: xr.Variable, step: int, block: dict[str, slice]) -> _Part:
    values = variable.isel(block).values
    finite = np.isfinite(values)
    seen = values[finite]
    at = variable.dims.index("time") if "time" in variable.dims else None
    counts = finite.sum(axis=tuple(i for i in range(values.ndim) if i != at))
    looked = np.full_like(counts, values.size // max(counts.size, 1))
    infinite = 0 if seen.size == values.size else int(np.isinf(values).sum())
    ends = (float(seen.min()), float(seen.max())) if seen.size else (math.inf, -math.inf)
    return _Part(block["time"].start if at is not None else 0, counts, looked, infinite, *ends, seen[::step])
