"""The preparation a recipe describes, in one call: fill, drop outlier rows of training stations, scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from smgeo.catalog import TARGET_MEAN
from smgeo.cube.schema import select_stations
from smgeo.errors import SmgeoError
from smgeo.prepare.gaps import fill_gaps
from smgeo.prepare.moments import mean_and_std
from smgeo.prepare.outliers import OutlierRows, drop_outlier_rows, flag_outliers
from smgeo.prepare.repeat import repeat_steps, windows_like
from smgeo.prepare.scaling import Scaler
from smgeo.prepare.splits import Split
from smgeo.prepare.target_mean import learn_target_mean
from smgeo.prepare.threshold import ChosenThreshold, choose_z
from smgeo.prepare.windows import Windows
from smgeo.recipe.preparation import PrepareSpec


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
    outliers : OutlierRows
        Training rows removed as outliers.
    """

    ds: xr.Dataset
    scaler: Scaler
    features: tuple[str, ...]
    target: str
    fill: dict[str, float]
    outliers: OutlierRows

    @property
    def outlier_rows(self) -> int:
        """How many training rows were removed as outliers."""
        return self.outliers.rows

    def windows(
        self,
        stations: Sequence[str],
        length: int,
        missing: float,
        mode: Literal["window", "sequence"] = "window",
    ) -> Windows:
        """Windows at `stations`, or their whole series."""
        return Windows(
            select_stations(self.ds, stations),
            self.features,
            self.target,
            length,
            missing,
            [self.fill[f] for f in self.features],
            mode=mode,
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
        Variables used. The target is never filled.
    train : sequence of str
        Ids of the training stations. No value of another station changes any number learned here.
    """
    work, lost = clean_cube(ds, spec, [f for f in features if f != TARGET_MEAN], target, train)
    if TARGET_MEAN in features:
        work = learn_target_mean(work, target, train)
    learn = select_stations(work, train)
    scaler = Scaler(spec.scale).fit(learn)
    means = mean_and_std(learn, features)
    fill = {f: float((means[f][0] - scaler.center_[f]) / scaler.scale_[f]) for f in features}
    assert all(np.isfinite(v) for v in fill.values())
    return Prepared(scaler.transform(work), scaler, tuple(features), target, fill, lost)


def training_windows(
    train: xr.Dataset,
    validation: xr.Dataset | None,
    spec: PrepareSpec,
    features: Sequence[str],
    target: str,
    *,
    length: int,
    mode: Literal["window", "sequence"] = "window",
) -> tuple[Prepared, Windows, Windows | None]:
    """What a model is fitted on: prepared training data, their windows, and those of the validation data, which shape neither.

    Parameters
    ----------
    train : xarray.Dataset
        Station cube of all that may be learned from, not prepared.
    validation : xarray.Dataset or None
        What training stops early on.
    spec, features, target
        As for `prepare_cube`.
    length : int
        Days in a window; 1 for models on rows.
    mode : {"window", "sequence"}
    """
    ids = [str(s) for s in train["station"].values]
    prepared = prepare_cube(train, spec, features, target, ids)
    windows = prepared.windows(ids, length, spec.window.missing, mode)
    about = windows.preparation
    held = None if validation is None else windows_like(about, repeat_steps(validation, about["steps"]))
    return prepared, windows, held


def clean_cube(
    ds: xr.Dataset, spec: PrepareSpec, features: Sequence[str], target: str, train: Sequence[str]
) -> tuple[xr.Dataset, OutlierRows]:
    """Gaps filled, and rows of outliers of the stations in `train` dropped; and how many rows these are.

    Raises
    ------
    SmgeoError
        If the threshold of outliers is still to be chosen.
    """
    work = _fill(ds, spec, features, target)
    chosen = spec.outliers
    if chosen is None:
        return work, OutlierRows()
    if isinstance(chosen.z, str):
        raise SmgeoError(
            "prepare.outliers.z is still to be chosen; choose_outliers finds it on a split, or give a number such as 4.0"
        )
    flags = flag_outliers(work, chosen.z, None if chosen.per_station else train, per_station=chosen.per_station)
    return drop_outlier_rows(work, flags, train, target, chosen.variables)


def choose_outliers(
    ds: xr.Dataset,
    spec: PrepareSpec,
    features: Sequence[str],
    target: str,
    split: Split,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ChosenThreshold:
    """`choose_z` for the cube filled as the recipe says, with the recipe's rule of which flags cost a row."""
    assert spec.outliers is not None
    return choose_z(
        _fill(ds, spec, features, target),
        split,
        features=features,
        target=target,
        variables=spec.outliers.variables,
        per_station=spec.outliers.per_station,
        seed=seed,
        progress=progress,
    )


def _fill(ds: xr.Dataset, spec: PrepareSpec, features: Sequence[str], target: str) -> xr.Dataset:
    work = ds[[*features, target]].assign_attrs(ds.attrs)
    # Whatever its name and attributes say: interpolated targets would be learned and scored as observations.
    work = work.assign({target: work[target].assign_attrs(kind="target")})
    if spec.fill is None:
        return work
    limit = spec.fill.limit
    chosen = {n: d for n, d in limit.items() if n in features} if isinstance(limit, dict) else limit
    return fill_gaps(work, chosen, revisit=spec.fill.revisit, causal=spec.fill.causal)
