"""A quick forest on rows, which chooses the threshold of outliers and the features before any model is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from smgeo.cube.schema import STATION_DIMS, observed

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestRegressor


class Regressor(Protocol):
    """A scikit-learn regressor on rows."""

    def fit(self, X: ArrayLike, y: ArrayLike) -> object:
        """Fit to (rows, features) and (rows,)."""
        ...

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return estimates, (rows,)."""
        ...


def fit_forest(
    x: np.ndarray, y: np.ndarray, seed: int, *, trees: int = 50, rows: int = 10_000, threads: int = -1
) -> Regressor:
    """Fit a forest whose trees see at most `rows` rows each.

    It changes less with the seed than boosted trees of the same speed.
    """
    from sklearn.ensemble import RandomForestRegressor

    options = {"max_samples": min(y.size, rows), "min_samples_leaf": 5, "max_features": 1 / 3}
    return fit_repeatably(RandomForestRegressor(trees, **options, n_jobs=threads, random_state=seed), x, y)


def fit_repeatably(forest: RandomForestRegressor, x: np.ndarray, y: np.ndarray) -> Regressor:
    """Fit a forest on the threads that it asks for, and let one thread estimate.

    Several threads would add the estimates of the trees in any order, so the last digits would change from run to run.
    """
    fitted: Regressor = forest.fit(x, y).set_params(n_jobs=1)
    return fitted


def table_of(ds: xr.Dataset, features: Sequence[str], target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (rows, features), target and station position of every row that has a target."""
    known = ds[target].transpose(*STATION_DIMS)
    at = np.nonzero(observed(known).values)
    columns = [ds[f].broadcast_like(known).transpose(*STATION_DIMS).values[at] for f in features]
    table = np.column_stack(columns)
    return np.where(np.isfinite(table), table, np.nan), known.values[at].astype("float64"), at[0]
