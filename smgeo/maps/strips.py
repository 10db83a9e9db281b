"""Readers of a map that see it strip by strip while its GeoTIFFs are written, so that it is read from disk once."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import xarray as xr


class StripReader(Protocol):
    """Sees all of a map, some rows of some days at a time."""

    def begin(self, whole: xr.Dataset) -> None:
        """Prepare for a map (time, y, x), lazy, rows from north to south."""
        ...

    def read(self, strip: xr.Dataset) -> None:
        """Use a part of it: values in memory, rows from north to south, with coordinates `time`, `y`, `x` of the map."""
        ...


class Thinned:
    """Days evenly spread over a map, with every n-th pixel of these, as pictures show them.

    Parameters
    ----------
    days : int
        Number of days at most.
    pixels : int
        Number of pixels at most along the longer side.

    Attributes
    ----------
    dataset : xarray.Dataset
        (time, y, x), in memory, rows from north to south; all variables of the map with their attributes. Complete after the last strip.
    """

    dataset: xr.Dataset

    def __init__(self, days: int = 60, pixels: int = 800) -> None:
        self.days, self.pixels = days, pixels

    def begin(self, whole: xr.Dataset) -> None:
        """Allocate the thinned map."""
        shown = np.unique(np.linspace(0, whole.sizes["time"] - 1, self.days).round().astype(int))
        step = max(math.ceil(max(whole.sizes["y"], whole.sizes["x"]) / self.pixels), 1)
        every = slice(step // 2, None, step)
        part = whole.isel(time=shown, y=every, x=every)
        empty = {n: (v.dims, np.full(v.shape, np.nan, v.dtype), v.attrs, v.encoding) for n, v in part.data_vars.items()}
        self.dataset = part.assign(empty)

    def read(self, strip: xr.Dataset) -> None:
        """Copy the pixels and days that are shown."""
        common = [
            np.intersect1d(strip[dim].values, self.dataset[dim].values, return_indices=True)[1:]
            for dim in ("time", "y", "x")
        ]
        here, there = (np.ix_(*indices) for indices in zip(*common, strict=True))
        for name, variable in self.dataset.data_vars.items():
            variable.values[there] = strip[name].values[here]
