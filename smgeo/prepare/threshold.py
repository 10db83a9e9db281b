"""The threshold of the z-score, chosen on training and validation stations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.cube.schema import select_stations
from smgeo.errors import SmgeoError
from smgeo.prepare.outliers import OutlierRows, drop_outlier_rows, flag_outliers
from smgeo.prepare.quick_forest import fit_forest, table_of
from smgeo.prepare.splits import Split

THRESHOLDS = (3.0, 3.5, 4.0, 4.5, 5.0)


@dataclass(frozen=True)
class ChosenThreshold:
    """What `choose_z` found.

    Attributes
    ----------
    z : float
        The threshold.
    table : pandas.DataFrame
        A row a threshold, the last one without dropping (z infinite): `z`, `rows_dropped` (of training stations),
        `validation_rmse` (in the target's unit, over all validation rows), and `standard_error` of the difference of its mean
        squared error from the best threshold's.
    """

    z: float
    table: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """As JSON types: `z`, and `thresholds`, a row each; z is None without dropping."""
        rows = self.table.to_dict("records")
        return {"z": self.z, "thresholds": [{**r, "z": r["z"] if np.isfinite(r["z"]) else None} for r in rows]}


def choose_z(
    ds: xr.Dataset,
    split: Split,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    features: Sequence[str],
    target: str = "sm",
    variables: Sequence[str] | None = None,
    per_station: bool = False,
    model: Any = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ChosenThreshold:
    """The threshold whose remaining training rows estimate the validation stations best.

    For each threshold, and for none, a quick model learns the training rows that are left and estimates all rows of the
    validation stations, none of which is dropped. Of the thresholds whose mean squared error lies within one standard
    error of the least, the greatest is taken, which drops least. The standard error is that of the mean difference of the
    two errors over validation stations, because rows of one station are not independent (the one-standard-error rule:
    Breiman et al. 1984, Classification and Regression Trees, section 3.4.3). Not dropping is shown, not chosen.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube, with gaps filled or not, lazy or not. Values of training and validation stations are loaded; no value
        of another station is read.
    split : Split
        Statistics and training rows come from `split.train`, scores from `split.validation`.
    thresholds : sequence of float
    features, target : sequence of str, str
        Variables the model learns from, and what it estimates.
    variables, per_station : optional
        Whose flags cost a row (see `drop_outlier_rows`), and whose statistics make flags (see `flag_outliers`).
    model : scikit-learn regressor, optional
        Cloned for each threshold; must take missing values where features have them. By default a forest
        of 50 trees, each of 10,000 rows at most.
    seed : int
        Of the default model.
    progress : callable, optional
        Called with (models trained, models in all).

    Returns
    -------
    ChosenThreshold

    Raises
    ------
    SmgeoError
        If no threshold is given, the cube lacks a station of the split, or a part of it has no row with a target.
    """
    from sklearn.base import clone

    if split.periods:
        raise SmgeoError(
            "choose_z: it scores validation stations, and this split is of days; give one of split_stations"
        )
    if not len(thresholds):
        raise SmgeoError("choose_z: give at least one threshold, such as (3.0, 4.0, 5.0)")
    names = list(dict.fromkeys([*features, target, *(variables or ())]))
    learn, held = (select_stations(ds[names], part).load() for part in (split.train, split.validation))
    x, y, station = table_of(held, features, target)
    if not y.size:
        raise SmgeoError(f"choose_z: the validation stations have no row with a value of {target!r}")
    dropped, errors = [], []
    candidates = [*sorted(thresholds), np.inf]
    for number, z in enumerate(candidates):
        kept, lost = learn, OutlierRows()
        if np.isfinite(z):
            flags = flag_outliers(learn, z, None if per_station else split.train, per_station=per_station)
            kept, lost = drop_outlier_rows(learn, flags, split.train, target, variables)
        x_left, y_left, _ = table_of(kept, features, target)
        if not y_left.size:
            raise SmgeoError(
                f"choose_z: with z {z:g} the training stations have no row left with a value of {target!r}"
            )
        fitted = fit_forest(x_left, y_left, seed) if model is None else clone(model).fit(x_left, y_left)
        errors.append((fitted.predict(x) - y) ** 2)
        dropped.append(lost.rows)
        if progress:
            progress(number + 1, len(candidates))
    best = int(np.argmin([e.mean() for e in errors[:-1]]))
    table = pd.DataFrame(
        {
            "z": candidates,
            "rows_dropped": dropped,
            "validation_rmse": [float(np.sqrt(e.mean())) for e in errors],
            "standard_error": [_standard_error(e - errors[best], station) for e in errors],
        }
    )
    worse = np.array([e.mean() for e in errors]) - errors[best].mean()
    tied = np.flatnonzero((worse <= table["standard_error"])[:-1])
    return ChosenThreshold(float(candidates[tied.max()]), table)


def _standard_error(difference: np.ndarray, station: np.ndarray) -> float:
    """Of the mean over all rows, with whole stations as the sample; 0 of a single station.

    Cochran 1977, Sampling Techniques, eq. 6.13 (a ratio estimate: stations have rows of unequal number).
    """
    places, counts = np.unique(station, return_counts=True)
    if places.size < 2:
        return 0.0
    sums = np.bincount(np.searchsorted(places, station), weights=difference)
    spread = sums - counts * difference.mean()
    return float(np.sqrt(places.size / (places.size - 1) * (spread**2).sum()) / difference.size)
