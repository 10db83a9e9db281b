"""The preparation a recipe describes, in one call: fill, drop outlier rows of training stations, scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dask
import numpy as np
import xarray as xr

from smgeo.prepare.gaps import fill_gaps
from smgeo.prepare.outliers import drop_outlier_rows, flag_outliers
from smgeo.prepare.scaling import Scaler
from smgeo.prepare.windows import Windows
from smgeo.recipe import PrepareSpec


@dataclass(frozen=True)
class Prepared:
    """A prepared station cube, and what of it was learned on the training stations.

    Attributes
    ----------
    ds : xarray.Dataset
        Filled and scaled; the target missing on outlier rows of the training stations.
    scaler : Scaler
        Fitted on the training stations.
    fill : dict of str to float
        Mean of each feature at the training stations, in scaled units: what stands for a missing value.
    outlier_rows : int
        Training rows removed as outliers.
    """

    ds: xr.Dataset
    scaler: Scaler
    features: tuple[str, ...]
    target: str
    fill: dict[str, float]
    outlier_rows: int

    def windows(self, stations: Sequence[str], length: int, missing: float) -> Windows:
        """Windows at `stations`."""
        return Windows(
            self.ds.sel(station=list(stations)),
            self.features,
            self.target,
            length,
            missing,
            [self.fill[f] for f in self.features],
        )


def prepare_cube(
    ds: xr.Dataset, spec: PrepareSpec, features: Sequence[str], target: str, train: Sequence[str]
) -> Prepared:
    """Prepare a station cube as the recipe says; every statistic comes from the stations in `train`.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube with all features.
    spec : PrepareSpec
        The recipe's `prepare` block.
    features, target : sequence of str, str
        Variables used.
    train : sequence of str
        Ids of the training stations. No value of another station changes any number learned here.
    """
    work, dropped = clean_cube(ds, spec, features, target, train)
    learn = work.sel(station=list(train))
    scaler = Scaler(spec.scale).fit(learn)
    means = dask.compute(learn[list(features)].astype("float64").mean())[0]
    fill = {f: float((means[f] - scaler.center_[f]) / scaler.scale_[f]) for f in features}
    assert all(np.isfinite(v) for v in fill.values())
    return Prepared(scaler.transform(work), scaler, tuple(features), target, fill, dropped)


def clean_cube(
    ds: xr.Dataset, spec: PrepareSpec, features: Sequence[str], target: str, train: Sequence[str]
) -> tuple[xr.Dataset, int]:
    """Gaps filled, and rows of outliers of the stations in `train` dropped; and how many rows these are."""
    names = [*features, target]
    work = ds[names].assign_attrs(ds.attrs)
    if spec.fill is not None:
        limit = spec.fill.limit
        chosen = {n: d for n, d in limit.items() if n in names} if isinstance(limit, dict) else limit
        work = fill_gaps(work, chosen, revisit=spec.fill.revisit)
    if spec.outliers is None:
        return work, 0
    return drop_outlier_rows(work, flag_outliers(work, spec.outliers.z, train), train, target)
