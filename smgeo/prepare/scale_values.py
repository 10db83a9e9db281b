"""Apply a center and a scale to values, and undo it: float32 from arithmetic in float64."""

# mypy: untyped-calls-exclude="dask"

from __future__ import annotations

from collections.abc import Callable, Mapping

import dask.array as da
import numpy as np
import xarray as xr

from smgeo.prepare.moments import as_float
from smgeo.threads import compiled, map_threads

# A compiled loop: values, center, scale, and the memory for the result.
Kernel = Callable[[np.ndarray, float, float, np.ndarray], None]


@compiled(error_model="numpy")
def scale(x: np.ndarray, center: float, scale: float, out: np.ndarray) -> None:
    """Write `(x - center) / scale` to `out`; NaN where `x` is infinite, which is missing."""
    for i in range(x.size):
        value = (np.float64(x[i]) - center) / scale
        out[i] = value if np.isfinite(value) else np.nan


@compiled()
def unscale(x: np.ndarray, center: float, scale: float, out: np.ndarray) -> None:
    """Write `x * scale + center` to `out`."""
    for i in range(x.size):
        out[i] = np.float64(x[i]) * scale + center


def map_variables(
    kernel: Kernel, variables: Mapping[str, xr.Variable], params: Mapping[str, tuple[float, float]]
) -> dict[str, np.ndarray | da.Array]:
    """Apply `kernel` to each variable with its center and scale: float32, one Dask layer for a lazy variable."""
    lazy = {n: v.data for n, v in variables.items() if v.chunks is not None}
    out: dict[str, np.ndarray | da.Array] = {}
    out |= _map_arrays(kernel, {n: v.values for n, v in variables.items() if n not in lazy}, params)
    for n, data in lazy.items():
        empty = np.empty((0,) * data.ndim, dtype=np.float32)
        out[n] = da.map_blocks(_map_block, data, kernel, *params[n], dtype=np.float32, meta=empty)
    return out


def _map_arrays(
    kernel: Kernel, values: Mapping[str, np.ndarray], params: Mapping[str, tuple[float, float]]
) -> dict[str, np.ndarray]:
    """Apply `kernel` to arrays, on threads."""
    ends = np.cumsum([0, *(x.size for x in values.values())])
    # Parts of one array, because large memory comes in large pages: otherwise allocation takes longer than the work.
    together = np.empty(ends[-1], dtype=np.float32)
    out = {n: together[a:b] for n, a, b in zip(values, ends[:-1], ends[1:], strict=True)}
    made = map_threads(lambda n: _map_array(as_float(values[n]), kernel, *params[n], out[n]), values)
    return dict(zip(values, made, strict=True))


def _map_block(x: np.ndarray, kernel: Kernel, center: float, scale: float) -> np.ndarray:
    return _map_array(as_float(x), kernel, center, scale, np.empty(x.size, dtype=np.float32))


def _map_array(x: np.ndarray, kernel: Kernel, center: float, scale: float, out: np.ndarray) -> np.ndarray:
    """Apply `kernel` to `x` in its memory order, into the memory `out`: filled series have time last."""
    axes = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    ordered = x.transpose(axes)
    kernel(np.ravel(ordered), center, scale, out)
    return out.reshape(ordered.shape).transpose(np.argsort(axes))
