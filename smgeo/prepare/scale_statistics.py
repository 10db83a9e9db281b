"""Center and scale of variables and columns, from blocks of their values: minmax, robust and standard."""

# mypy: untyped-calls-exclude="dask"

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import Delayed, delayed

from smgeo.prepare.moments import as_float, combine_moments, moments_of_rows
from smgeo.threads import map_threads

_EPS = float(np.finfo(np.float64).eps)
# Center and scale of a variable; NaN without values.
CenterScale = tuple[float, float]


def _extremes(x: np.ndarray) -> np.ndarray:
    """Return the least and the largest finite value; NaN without values."""
    values = as_float(x)
    ends = [ufunc.reduce(values, axis=None, initial=np.nan) for ufunc in (np.fmin, np.fmax)]
    if np.isinf(ends).any():
        return _extremes(_observed(values))
    return np.array(ends, dtype=np.float64)


def _observed(x: np.ndarray) -> np.ndarray:
    """Return the values that are neither missing nor infinite, in one row."""
    x = as_float(x)
    seen: np.ndarray = x[np.isfinite(x)]
    return seen


def _moments(x: np.ndarray) -> np.ndarray:
    """Return the moments of each station's series (of each day's pixels in a grid cube)."""
    x = np.ascontiguousarray(as_float(x))  # at least one dim
    return moments_of_rows(x.reshape(x.shape[0], math.prod(x.shape[1:])))


def _minmax(parts: Sequence[np.ndarray]) -> CenterScale:
    ends = np.array(parts)
    least, largest = float(np.fmin.reduce(ends[:, 0])), float(np.fmax.reduce(ends[:, 1]))
    return least, _unless_constant(largest - least)


def _robust(parts: Sequence[np.ndarray]) -> CenterScale:
    values = np.concatenate(parts)
    if not values.size:
        return math.nan, math.nan
    place = np.array([0.25, 0.5, 0.75]) * (values.size - 1)
    below = place.astype(int)
    above = np.minimum(below + 1, values.size - 1)
    values.partition(np.unique([below, above]))
    low, high = values[below].astype(np.float64), values[above].astype(np.float64)
    lower, median, upper = (low + (high - low) * (place - below)).tolist()
    return median, _unless_constant(upper - lower)


def _standard(parts: Sequence[np.ndarray]) -> CenterScale:
    count, mean, squares = combine_moments(np.concatenate(parts))
    if not count:
        return math.nan, math.nan
    variance = squares / count
    # scikit-learn's bound of what rounding alone can make of a constant (Chan, Golub and LeVeque 1983).
    rounding = count * _EPS * variance + (count * mean * _EPS) ** 2
    return mean, 1.0 if variance <= rounding else math.sqrt(variance)


def _unless_constant(spread: float) -> float:
    """Return `spread`, or 1 if it is so small that scaled values would overflow; scikit-learn's limit for float64."""
    return 1.0 if spread < 10 * _EPS else spread


@dataclass(frozen=True)
class _Statistic:
    """A summary of each block of a variable, and the center and scale from all summaries in their order."""

    of_block: Callable[[np.ndarray], np.ndarray]
    of_all: Callable[[Sequence[np.ndarray]], CenterScale]
    whole_series: bool = False  # a block needs the whole series of its stations


STATISTICS = {
    "minmax": _Statistic(_extremes, _minmax),
    "robust": _Statistic(_observed, _robust),
    "standard": _Statistic(_moments, _standard, whole_series=True),
}


def learn_columns(kind: str, table: np.ndarray) -> list[CenterScale]:
    """Return center and scale of each column of a table (rows, columns)."""
    how = STATISTICS[kind]
    # A column is passed as one row, like the series of a station.
    return map_threads(lambda j: how.of_all([how.of_block(table[:, j][None])]), range(table.shape[1]))


def learn_variables(kind: str, variables: Mapping[str, xr.Variable]) -> dict[str, CenterScale]:
    """Return center and scale of each variable; lazy variables are computed together, in one pass over their chunks."""
    how = STATISTICS[kind]
    lazy = [n for n, v in variables.items() if v.chunks is not None]
    of_block, of_all = delayed(how.of_block), delayed(how.of_all)
    tasks = [of_all([of_block(b) for b in _blocks(variables[n], how.whole_series)]) for n in lazy]
    held = [n for n in variables if n not in lazy]
    done = map_threads(lambda n: how.of_all([how.of_block(variables[n].values)]), held)
    found = dict(zip([*held, *lazy], [*done, *compute(*tasks)], strict=True))
    return {n: found[n] for n in variables}


def _blocks(variable: xr.Variable, whole_series: bool) -> list[Delayed]:
    """Return the chunks of a lazy variable in C order; with `whole_series`, each contains whole series of its stations."""
    data = variable.data
    if whole_series and "y" not in variable.dims:
        data = data.rechunk(dict.fromkeys(range(1, data.ndim), -1))
    # Not optimised: if each variable were optimised by itself, chunks that several share would be read twice.
    return list(data.to_delayed(optimize_graph=False).ravel())
