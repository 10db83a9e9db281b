"""Forward selection of features, scored at stations that are held out (Meyer et al. 2018).

A quick forest selects, not each model: all models of a fold then get the same features, and hundreds of candidates take
seconds and not hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.bounds import check_arguments, checked
from smgeo.errors import SmgeoError
from smgeo.prepare.folds import cv_folds
from smgeo.prepare.quick_forest import fit_forest, table_of
from smgeo.threads import map_threads

# Few rows and trees suffice to compare features, and hundreds of forests are grown: several at a time, each in one thread.
_FOREST = {"trees": 30, "rows": 1_500, "threads": 1}


@dataclass(frozen=True)
class SelectedFeatures:
    """Result of `select_features`.

    Attributes
    ----------
    features : tuple of str
        Selected features, in the order in which they were added; the first two in the order of the cube.
    table : pandas.DataFrame
        One row per set that was the best of its size: `features` (their number), `added`, `rmse` at held-out stations
        (target's unit).
    """

    features: tuple[str, ...]
    table: pd.DataFrame


@checked
def select_features(
    ds: xr.Dataset, features: Sequence[str], target: str = "sm", *, folds: int = 5, seed: int = 0
) -> SelectedFeatures:
    """Select the features with which a quick forest has the smallest error at locations that it was not trained on.

    All pairs are tried first. Then the feature that helps most is added, one at a time, as long as the error decreases. This
    is the forward feature selection of Meyer et al. 2018 (Environ. Model. Softw. 101, 1-9), scored by the RMSE over all
    held-out rows. Features that only distinguish the training stations are not selected. The selection has seen these
    stations: score a model at others.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube of the training stations only, prepared or not, loaded.
    features, target : sequence of str, str
        Features to select from, and the variable that is estimated.
    folds : int
        Number of folds of locations to score a set; one fold per location if there are fewer locations.
    seed : int
        Seed of folds and forests.

    Returns
    -------
    SelectedFeatures
        Selected features, and the best set of each size.

    Raises
    ------
    SmgeoError
        If there are fewer than two features or locations.
    """
    check_arguments("select_features", folds=folds, seed=seed)
    names = list(features)
    if len(names) < 2:
        raise SmgeoError(f"select_features: needs two or more features to select from; got {len(names)}")
    made = cv_folds(ds, "leave-location-out", target=target, seed=seed)
    if len(made) > folds:
        made = cv_folds(ds, "leave-location-out", folds, target=target, seed=seed)
    x, y, _ = table_of(ds, names, target)
    fold = np.broadcast_to(made.fold, made.rows.shape)[made.rows]

    def rmse(chosen: Sequence[int]) -> float:
        squared = 0.0
        columns = x[:, list(chosen)]
        for k in range(len(made)):
            held = fold == k
            forest = fit_forest(columns[~held], y[~held], seed, **_FOREST)
            squared += float(np.sum((forest.predict(columns[held]) - y[held]) ** 2))
        return float(np.sqrt(squared / y.size))

    def best_of(sets: Sequence[tuple[int, ...]]) -> tuple[float, tuple[int, ...]]:
        return min(zip(map_threads(rmse, sets), sets, strict=True))

    best, chosen = best_of(list(combinations(range(len(names)), 2)))
    steps = [{"features": 2, "added": " and ".join(names[i] for i in chosen), "rmse": best}]
    while left := [i for i in range(len(names)) if i not in chosen]:
        error, larger = best_of([(*chosen, i) for i in left])
        if error >= best:
            break
        best, chosen = error, larger
        steps.append({"features": len(chosen), "added": names[chosen[-1]], "rmse": error})
    return SelectedFeatures(tuple(names[i] for i in chosen), pd.DataFrame(steps))
