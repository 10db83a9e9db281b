"""The mean target of each station over the training days, as a feature of models that are split in time.

A recipe that holds stations out refuses it, because a held-out station has no training days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from smgeo.catalog import TARGET_MEAN
from smgeo.cube.schema import is_grid, observed, select_stations, text_of
from smgeo.errors import SmgeoError
from smgeo.prepare.steps import with_step


def learn_target_mean(ds: xr.Dataset, target: str, train: Sequence[str]) -> xr.Dataset:
    """Add `target_mean` (station,), in the target's unit: the mean of each station in `train`; missing at other stations."""
    learned = select_stations(ds[[target]], train)[target]
    means = learned.where(observed(learned)).mean("time", dtype="float64").compute()
    values = dict(zip(map(str, train), means.values.tolist(), strict=True))
    known = {s: v for s, v in values.items() if np.isfinite(v)}
    return add_target_mean(ds, known, str(ds[target].attrs.get("units", "")))


def add_target_mean(ds: xr.Dataset, values: Mapping[str, float], units: str) -> xr.Dataset:
    """Add learned means, by station id, and record the step.

    Raises
    ------
    SmgeoError
        If `ds` is a grid cube, or has only stations without a mean.
    """
    if is_grid(ds):
        raise SmgeoError(
            f"the feature {TARGET_MEAN!r} is the mean of each training station, which pixels do not have: this model estimates other days "
            "of its training stations; for a map, train a model without this feature"
        )
    here = np.array([values.get(s, np.nan) for s in text_of(ds["station"])], dtype="float32")
    if here.size and not np.isfinite(here).any():
        raise SmgeoError(
            f"the feature {TARGET_MEAN!r} is the mean of each training station, and none of these {here.size} stations was trained on; for "
            "stations without observations, train a model without this feature"
        )
    attrs = {
        "units": units,
        "long_name": "mean of the target in the training days",
        "source": "computed",
        "kind": "static",
    }
    out = ds.assign({TARGET_MEAN: ("station", here, attrs)})
    return with_step(out, TARGET_MEAN, values=dict(values), units=units)
