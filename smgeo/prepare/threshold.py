"""Choice of the z-score threshold of outliers, on training and validation stations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.bounds import check_arguments, check_each, checked
from smgeo.cube.schema import select_stations
from smgeo.errors import SmgeoError, nearest
from smgeo.files import JsonObject
from smgeo.prepare.outliers import OutlierRows, drop_outlier_rows, flag_outliers
from smgeo.prepare.quick_forest import Regressor, fit_forest, table_of
from smgeo.prepare.splits import Split

THRESHOLDS = (3.0, 3.5, 4.0, 4.5, 5.0)


@dataclass(frozen=True)
class ChosenThreshold:
    """Result of `choose_z`.

    Attributes
    ----------
    z : float
        Chosen threshold.
    table : pandas.DataFrame
        One row per threshold, the last one without dropping (z infinite): `z`, `rows_dropped` (of training stations),
        `validation_rmse` (in the target's unit, over all validation rows), and `standard_error` of the difference between its
        mean squared error and that of the best threshold.
    """

    z: float
    table: pd.DataFrame

    def to_dict(self) -> JsonObject:
        """Return `z` and `thresholds`, one row each, as JSON types; z is None without dropping."""
        rows = self.table.to_dict("records")
        return {"z": self.z, "thresholds": [{**r, "z": r["z"] if np.isfinite(r["z"]) else None} for r in rows]}


@checked
def choose_z(
    ds: xr.Dataset,
    split: Split,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    features: Sequence[str],
    target: str = "sm",
    variables: Sequence[str] | None = None,
    per_station: bool = False,
    model: Regressor | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ChosenThreshold:
    """Choose the outlier threshold whose remaining training rows estimate the validation stations best.

    For each threshold, and without any, a quick model is trained on the remaining training rows and estimates all rows of the
    validation stations; none of these is dropped. The result is the largest threshold, which drops least, whose mean
    squared error is within one standard error of the minimum (the one-standard-error rule: Breiman et al. 1984,
    Classification and Regression Trees, section 3.4.3). The standard error is that of the mean difference between the two
    errors over validation stations, because rows of one station are not independent. The table also shows the error without
    dropping, but this is not chosen.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube, with gaps filled or not, lazy or not. Values of training and validation stations are loaded; no value
        of another station is read.
    split : Split
        Statistics and training rows come from `split.train`, scores from `split.validation`.
    thresholds : sequence of float
        Candidates.
    features, target : sequence of str, str
        Features of the model, and the variable that it estimates.
    variables, per_station : optional
        Variables whose flags drop a row (see `drop_outlier_rows`), and the statistics of flags (see `flag_outliers`).
    model : scikit-learn regressor, optional
        Cloned for each threshold; it must accept missing values if features have them. By default a forest of 50 trees, each
        on at most 10,000 rows.
    seed : int
        Seed of the default model.
    progress : callable, optional
        Called with (models trained, total models).

    Returns
    -------
    ChosenThreshold
        The threshold, and the scores of all candidates.

    Raises
    ------
    SmgeoError
        If no threshold is given, the split is in time, the cube lacks a station of the split, or a part has no row with a
        target.
    """
    from sklearn.base import clone

    if split.periods:
        raise SmgeoError(
            "choose_z: it scores validation stations, but this split is in time; use a split from split_stations"
        )
    check_arguments("choose_z", seed=seed)
    if not features:
        raise SmgeoError("choose_z: features is empty; name at least one")
    for name in [*features, target, *(variables or ())]:
        if name not in ds:
            raise SmgeoError(
                f"choose_z: the cube has no variable {name!r}; {nearest(name, [str(v) for v in ds.data_vars])}"
            )
    check_each("choose_z", "thresholds", thresholds, "z")
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
        fitted: Regressor = fit_forest(x_left, y_left, seed) if model is None else clone(model).fit(x_left, y_left)
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
    """Return the standard error of the mean over all rows, with whole stations as the sample; 0 for a single station.

    Cochran 1977, Sampling Techniques, eq. 6.13 (a ratio estimate: stations have rows of unequal number).
    """
    places, counts = np.unique(station, return_counts=True)
    if places.size < 2:
        return 0.0
    sums = np.bincount(np.searchsorted(places, station), weights=difference)
    spread = sums - counts * difference.mean()
    return float(np.sqrt(places.size / (places.size - 1) * (spread**2).sum()) / difference.size)
