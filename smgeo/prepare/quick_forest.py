"""A quick forest on rows: what chooses the threshold of outliers and features, before any model is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from smgeo.cube.schema import STATION_DIMS


def fit_forest(
    x: np.ndarray, y: np.ndarray, seed: int, *, trees: int = 50, rows: int = 10_000, threads: int = -1
) -> Any:
    """A forest whose trees see at most `rows` rows each: steadier under another seed than boosted trees of the same speed."""
    from sklearn.ensemble import RandomForestRegressor

    options = {"max_samples": min(y.size, rows), "min_samples_leaf": 5, "max_features": 1 / 3}
    forest = RandomForestRegressor(trees, **options, n_jobs=threads, random_state=seed).fit(x, y)
    # Several threads would add the trees' estimates in any order, and the last digits would change from run to run.
    return forest.set_params(n_jobs=1)


def table_of(ds: xr.Dataset, features: Sequence[str], target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, target and station of every row that has a target."""
    observed = ds[target].transpose(*STATION_DIMS)
    at = np.nonzero(observed.notnull().values)
    columns = [ds[f].broadcast_like(observed).transpose(*STATION_DIMS).values[at] for f in features]
    return np.column_stack(columns), observed.values[at].astype("float64"), at[0]
