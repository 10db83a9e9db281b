"""One block of a map: prepared as the model's training data were, windows, estimates.

A block of 128 × 128 pixels is read one variable at a time over its whole series and filled, and only the days of the windows
are kept: at most 400 MB. Wider blocks are worked on in strips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.evaluation.held_out import last_days, predict_intervals
from smgeo.models.applicability import Applicability
from smgeo.models.protocol import Model
from smgeo.prepare import Windows, repeat_steps, windows_like
from smgeo.prepare.steps import Preparation, lasting_steps, with_steps
from smgeo.prepare.target import target_scaler
from smgeo.recipe.output import DENSITY, DISSIMILARITY, EXPECTED_ERROR, MapLayer

APPLICABLE = "applicable"
# Bytes of variables read at once, if one variable is not more.
_READ = 64e6
# Bytes of prepared features in memory at once; a block that needs more is worked on in strips.
_BUDGET = 400e6


@dataclass(frozen=True)
class Outputs:
    """The variables of a map.

    Attributes
    ----------
    target : str
        Name of the estimate; `TARGET_lower` and `TARGET_upper` are the ends of its interval.
    level : float or None
        Coverage of the intervals; None for no intervals.
    applicable : bool
        Add a flag of the pixels inside the model's area of applicability.
    layers : tuple of str
        More of the area of applicability.
    """

    target: str
    level: float | None = None
    applicable: bool = False
    layers: tuple[MapLayer, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the variables, the estimate first."""
        interval = [] if self.level is None else [f"{self.target}_lower", f"{self.target}_upper"]
        return [self.target, *interval, *([APPLICABLE] if self.applicable else []), *self.layers]


def predict_block(
    model: Model, block: xr.Dataset, preparation: Preparation, ends: np.ndarray, outputs: Outputs
) -> dict[str, np.ndarray]:
    """Estimate one block.

    Parameters
    ----------
    model : fitted model
    block : xarray.Dataset
        Features of every day, not prepared; read some variables at a time, on the calling thread only.
    preparation : Preparation
        The model's.
    ends : numpy.ndarray of int
        Days to estimate, ascending.
    outputs : Outputs

    Returns
    -------
    dict
        Each output (len(ends), y, x) float32, in the target's unit; NaN if features are missing.
    """
    height, width = block.sizes["y"], block.sizes["x"]
    # Whole series are estimated from their first day on; windows need only the days before each end.
    series = preparation["mode"] == "sequence"
    runs = _plan_runs(ends, int(ends[-1]) + 1 if series else preparation["length"])
    days = sum(r.days.stop - r.days.start for r in runs)
    channels = len(preparation["features"]) * (3 if preparation["missing"] > 0 else 2)
    rows = int(max(1, min(height, _BUDGET // (4 * channels * days * width))))
    parts = [
        _predict_strip(model, block.isel(y=slice(y, y + rows)), preparation, runs, len(ends), outputs)
        for y in range(0, height, rows)
    ]
    together = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
    return dict(zip(outputs.names, together, strict=True))


@dataclass(frozen=True)
class _Run:
    """Consecutive days, and the windows that end in them: their days among these, and their positions in the output."""

    days: slice
    ends: tuple[int, ...]
    slots: tuple[int, ...]


def _plan_runs(ends: np.ndarray, length: int) -> list[_Run]:
    """Return the runs of days that windows of `length` ending on the days `ends` (ascending) need.

    >>> for run in _plan_runs(np.array([5, 7, 40]), 3):
    ...     print(run)
    _Run(days=slice(3, 8, None), ends=(2, 4), slots=(0, 1))
    _Run(days=slice(38, 41, None), ends=(2,), slots=(2,))
    """
    runs = []
    for slots in np.split(np.arange(len(ends)), np.flatnonzero(np.diff(ends) > length) + 1):
        first = max(int(ends[slots[0]]) - length + 1, 0)
        days = slice(first, int(ends[slots[-1]]) + 1)
        runs.append(_Run(days, tuple(int(e) - first for e in ends[slots]), tuple(map(int, slots))))
    return runs


def _predict_strip(
    model: Model, strip: xr.Dataset, preparation: Preparation, runs: list[_Run], n_ends: int, outputs: Outputs
) -> np.ndarray:
    """Estimate some rows of a block: (outputs, ends, y, x)."""
    height, width = strip.sizes["y"], strip.sizes["x"]
    features = preparation["features"]
    kept: dict[str, list[xr.DataArray]] = {}
    # Some variables at a time: whole series are needed to fill gaps, but only the days of the windows are kept.
    for names in _groups(strip, features):
        # With all coordinates, also those that these variables do not vary along.
        read = strip[names].assign_coords(strip.coords).compute(scheduler="synchronous")
        # Derived features are in the block already. All other steps treat each variable by itself.
        prepared = repeat_steps(read, lasting_steps(preparation["steps"]))
        for name in names:
            kept[name] = [_part_of(prepared[name], run.days) for run in runs]
    times = pd.DatetimeIndex(strip.indexes["time"])
    out = np.full((len(outputs.names), n_ends, height * width), np.nan, dtype="float32")
    for i, run in enumerate(runs):
        pixels = xr.Dataset(
            {name: _as_stations(kept[name][i]) for name in features},
            {"station": np.arange(height * width), "time": times[run.days]},
        )
        pixels = with_steps(pixels, preparation["steps"])
        windows = windows_like(preparation, pixels, target=None, ends=run.ends)
        if windows.count == height * width * len(run.ends):  # pixel by pixel, every day of each
            made = estimate(model, windows, outputs).reshape(len(outputs.names), height * width, len(run.ends))
            out[:, run.slots] = made.transpose(0, 2, 1)
        elif len(windows):
            slot_of = np.zeros(run.ends[-1] + 1, dtype=np.intp)
            slot_of[list(run.ends)] = run.slots
            place, day = windows.targets
            out[:, slot_of[day], place] = estimate(model, windows, outputs)
    return out.reshape(-1, n_ends, height, width)


def _part_of(prepared: xr.DataArray, days: slice) -> xr.DataArray:
    """Return some days of a prepared variable; a copy if they are few, since a view would keep all days in memory."""
    if "time" not in prepared.dims:
        return prepared.copy()
    part = prepared.isel(time=days)
    return part if 2 * part.sizes["time"] > prepared.sizes["time"] else part.copy()


def _groups(strip: xr.Dataset, features: list[str]) -> list[list[str]]:
    """Group the variables that are read and prepared together, as many as memory allows.

    >>> series = ("time", "x"), np.zeros((2, 3), "float32")
    >>> ds = xr.Dataset({"a": series, "b": series, "c": series})
    >>> _groups(ds, ["a", "b", "c"])
    [['a', 'b', 'c']]
    """
    groups: list[list[str]] = []
    size = 0
    for name in features:
        size += strip[name].nbytes
        if not groups or size > _READ:
            groups.append([])
            size = strip[name].nbytes
        groups[-1].append(name)
    return groups


def estimate(model: Model, windows: Windows, outputs: Outputs) -> np.ndarray:
    """Return (outputs, values that `windows.pick` gives), in the target's unit."""
    assert model.preparation_ is not None
    if outputs.level is None:
        made = [target_scaler(model.preparation_)(windows.pick(model.predict(windows)))]
    else:
        made = [*predict_intervals(model, windows, outputs.level)]
    if outputs.applicable or outputs.layers:
        made += _look_at_area(model.applicability_, last_days(windows), outputs)
    return np.stack(made).astype("float32", copy=False)


def _look_at_area(area: Applicability | None, x: np.ndarray, outputs: Outputs) -> list[np.ndarray]:
    """Return the flag, if it is asked for, and the layers of the area of applicability at rows (n, features)."""
    assert area is not None
    made: dict[str, np.ndarray] = {}
    if {DISSIMILARITY, EXPECTED_ERROR} & set(outputs.layers):
        made[DISSIMILARITY] = area.index(x)
        made[APPLICABLE] = area.contains(made[DISSIMILARITY])
    elif outputs.applicable:
        made[APPLICABLE] = area.inside(x)
    if DENSITY in outputs.layers:
        made[DENSITY] = area.local_point_density(x)
    if EXPECTED_ERROR in outputs.layers:
        made[EXPECTED_ERROR] = area.expected_error(made[DISSIMILARITY])
    return [made[name] for name in outputs.names if name in made]


def _as_stations(variable: xr.DataArray) -> xr.Variable:
    """Turn (time, y, x) into (station, time), and (y, x) into (station,): each pixel a station, row by row."""
    if variable.dims == ("time",):
        return variable.variable
    if "time" in variable.dims:
        values = variable.transpose("time", "y", "x").values
        return xr.Variable(("station", "time"), values.reshape(values.shape[0], -1).T, variable.attrs)
    return xr.Variable(("station",), variable.transpose("y", "x").values.reshape(-1), variable.attrs)
