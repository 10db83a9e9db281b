"""Preparation of a station cube as a recipe describes it: fill gaps, drop outlier rows of training stations, scale.

A prepared cube can be kept and opened again; its windows are then the same to the last bit:

    prepared = prepare_cube(cube, spec, features, target, train)
    write_cube(prepared.to_cube(), path)
    prepared = Prepared.from_cube(open_cube(path))

`preparation_key` contains the settings that the prepared values depend on, to decide if a kept cube can be used again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Self

import numpy as np
import xarray as xr

from smgeo.catalog import TARGET_MEAN
from smgeo.cube.schema import select_stations, text_of
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject
from smgeo.prepare.gaps import fill_gaps
from smgeo.prepare.moments import mean_and_std
from smgeo.prepare.outliers import OutlierRows, drop_outlier_rows, flag_outliers
from smgeo.prepare.repeat import repeat_steps, windows_like
from smgeo.prepare.scaling import Scaler
from smgeo.prepare.splits import Split
from smgeo.prepare.steps import steps_of
from smgeo.prepare.target_mean import learn_target_mean
from smgeo.prepare.threshold import ChosenThreshold, choose_z
from smgeo.prepare.windows import Windows
from smgeo.recipe.preparation import PrepareSpec

# Attribute of a kept cube: all of `Prepared` but the Dataset and the scaler, which is in the record of steps.
_ATTRIBUTE = "smgeo_prepared"


@dataclass(frozen=True)
class Prepared:
    """A prepared station cube, and the numbers that were learned on its training stations.

    Attributes
    ----------
    ds : xarray.Dataset
        Filled and scaled; the target is missing on outlier rows of the training stations.
    scaler : Scaler
        Fitted on the training stations.
    features : tuple of str
        Features, in the order of the channels of windows.
    target : str
        Variable that is estimated.
    fill : dict of str to float
        Mean of each feature at the training stations, in scaled units: replaces a missing value in windows.
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
        """Number of training rows removed as outliers."""
        return self.outliers.rows

    def windows(
        self,
        stations: Sequence[str],
        length: int,
        missing: float,
        mode: Literal["window", "sequence"] = "window",
    ) -> Windows:
        """Return windows at `stations`, or their whole series."""
        return Windows(
            select_stations(self.ds, stations),
            self.features,
            self.target,
            length,
            missing,
            [self.fill[f] for f in self.features],
            mode=mode,
        )

    def repeat(self, ds: xr.Dataset) -> xr.Dataset:
        """Prepare another cube in the same way, with the numbers learned here. No row is dropped."""
        return repeat_steps(ds, steps_of(self.ds))

    def to_cube(self) -> xr.Dataset:
        """Return the cube with all that `from_cube` needs, to be written by `write_cube`."""
        state = {"features": self.features, "target": self.target, "fill": self.fill, "outliers": asdict(self.outliers)}
        return self.ds.assign_attrs({_ATTRIBUTE: json.dumps(state)})

    @classmethod
    def from_cube(cls, ds: xr.Dataset) -> Self:
        """Return the preparation from a cube that `to_cube` made, such as an opened store.

        Raises
        ------
        SmgeoError
            If the cube was not made by `to_cube`.
        """
        if _ATTRIBUTE not in ds.attrs:
            raise SmgeoError(f"the cube has no attribute {_ATTRIBUTE!r}; use one that Prepared.to_cube made")
        state = json.loads(ds.attrs[_ATTRIBUTE])
        scaler = Scaler.from_dict(next(s["scaler"] for s in reversed(steps_of(ds)) if s["step"] == "scale"))
        bare = ds.copy()
        del bare.attrs[_ATTRIBUTE]
        lost = OutlierRows(**state["outliers"])
        return cls(bare, scaler, tuple(state["features"]), state["target"], state["fill"], lost)


def prepare_cube(
    ds: xr.Dataset, spec: PrepareSpec, features: Sequence[str], target: str, train: Sequence[str]
) -> Prepared:
    """Prepare a station cube as a recipe describes; every statistic comes from the stations in `train`.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube with all features; not changed.
    spec : PrepareSpec
        The recipe's `prepare` block; its `split` and `window` are not used.
    features, target : sequence of str, str
        Variables used. The target is never filled.
    train : sequence of str
        Ids of the training stations. No value of another station changes any number learned here.

    Returns
    -------
    Prepared
        The prepared cube, as lazy as `ds`; the numbers that were learned; and the number of outlier rows.

    Raises
    ------
    SmgeoError
        If the threshold of outliers is still to be chosen.
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


def preparation_key(spec: PrepareSpec, features: Sequence[str], target: str, train: Sequence[str]) -> JsonObject:
    """Return the settings that the result of `prepare_cube` depends on besides the cube, as JSON types.

    Two calls with equal keys on the same cube give the same values. `split` and `window` of the recipe are not in the key,
    nor gap limits of variables that are not among the features. The caller adds the identity of the cube: its content, its
    stations, and the days that were hidden from it.
    """
    block = spec.model_dump(mode="json", include={"fill", "outliers", "scale"})
    if block["fill"] is not None and isinstance(limit := block["fill"]["limit"], dict):
        block["fill"]["limit"] = {n: days for n, days in limit.items() if n in features}
    return {**block, "features": list(features), "target": target, "train": list(train)}


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
    """Prepare the data of one training: return the prepared training part, its windows, and those of the validation part.

    Parameters
    ----------
    train : xarray.Dataset
        Station cube of all that may be learned from, not prepared.
    validation : xarray.Dataset or None
        Station cube for early stopping. It does not influence the preparation.
    spec, features, target
        As for `prepare_cube`.
    length : int
        Days in a window; 1 for models on rows.
    mode : {"window", "sequence"}
        Windows, or whole series.
    """
    prepared = prepare_cube(train, spec, features, target, text_of(train["station"]).tolist())
    held = None if validation is None else prepared.repeat(validation)
    return (prepared, *windows_of_parts(prepared, held, length=length, missing=spec.window.missing, mode=mode))


def windows_of_parts(
    prepared: Prepared,
    held: xr.Dataset | None,
    *,
    length: int,
    missing: float,
    mode: Literal["window", "sequence"] = "window",
) -> tuple[Windows, Windows | None]:
    """Return windows at all stations of a prepared training part, and of a validation part from `Prepared.repeat`."""
    windows = prepared.windows(text_of(prepared.ds["station"]).tolist(), length, missing, mode)
    return windows, None if held is None else windows_like(windows.preparation, held)


def clean_cube(
    ds: xr.Dataset, spec: PrepareSpec, features: Sequence[str], target: str, train: Sequence[str]
) -> tuple[xr.Dataset, OutlierRows]:
    """Fill gaps, and drop the outlier rows of the stations in `train`; return the cube and the number of these rows.

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
            "prepare.outliers.z is still to be chosen; choose it on a split with choose_outliers, or set a number such as 4.0"
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
    """Choose the threshold of outliers with `choose_z`, with gaps filled and flags counted as the recipe describes."""
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
    # Whatever its name and attributes: an interpolated target would be learned and scored as observations.
    work = work.assign({target: work[target].assign_attrs(kind="target")})
    if spec.fill is None:
        return work
    limit = spec.fill.limit
    chosen = {n: d for n, d in limit.items() if n in features} if isinstance(limit, dict) else limit
    return fill_gaps(work, chosen, revisit=spec.fill.revisit, causal=spec.fill.causal)
