"""What parameters of trees do at places that were left out: how the defaults of `rf`, `extra_trees` and `boosting` were found.

Run: python benchmarks/trees.py DATA [scan] [uscrn] [poland] [ismn] [cookfarm]     (all by default)

Of `scan`, `uscrn` and `poland` half of the places (or fields) are used, drawn by a seed, so that the scores of all places in
`benchmarks/science.py` are of places half of which shaped no default; of the small `ismn` and `cookfarm` all. Eight folds of places (or
fields). Features are as they are in the station cube, 0 where they are missing. RMSE over all rows, m3 m-3; seconds of the eight trainings and
estimates. Sixty trees of forests, 300 of boosting.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

import smgeo
from smgeo.cube.schema import observed, select_stations, text_of
from smgeo.prepare import cv_folds, group_stations
from smgeo.prepare.quick_forest import table_of
from smgeo.recipe.study import read_recipe

NAMES = ("scan", "uscrn", "poland", "ismn", "cookfarm")
# Recipes whose places, or fields, are many enough to leave half of them alone.
HALVED = ("scan", "uscrn", "poland")
FOLDS, SEED = 8, 12345
# As `scikit-learn` has them.
OWN = {"learning_rate": 0.1, "feature_share": 1.0, "l2": 0.0}
SLOW = {"learning_rate": 0.03, "l2": 0.0}
TRIED: dict[str, tuple[str, dict[str, object]]] = {
    "forest, a third of the features": ("rf", {"engine": "sklearn", "sample_rows": None, "feature_share": 1 / 3}),
    "forest, 0.15 of the features": ("rf", {"engine": "sklearn", "sample_rows": None, "feature_share": 0.15}),
    "forest, all features": ("rf", {"engine": "sklearn", "sample_rows": None, "feature_share": 1.0}),
    "ydf, a third": ("rf", {"sample_rows": None, "feature_share": 1 / 3}),
    "ydf, 0.15": ("rf", {"sample_rows": None, "feature_share": 0.15}),
    "ydf, a third, 5,000 rows a tree": ("rf", {"sample_rows": 5_000, "feature_share": 1 / 3}),
    "extra trees, all rows": ("extra_trees", {"sample_rows": None}),
    "extra trees, 10,000 rows a tree": ("extra_trees", {}),
    "extra trees, 2,000 rows a tree": ("extra_trees", {"sample_rows": 2_000}),
    "extra trees, half of the features": ("extra_trees", {"feature_share": 0.5}),
    "extra trees, leaves of 20 rows": ("extra_trees", {"min_examples": 20}),
    "boosting, scikit-learn's defaults": ("boosting", OWN),
    "boosting, rate 0.03": ("boosting", {**SLOW, "feature_share": 1.0}),
    "boosting, rate 0.03, 0.3 of the features": ("boosting", {**SLOW, "feature_share": 0.3}),
    "boosting, rate 0.03, 0.15 of the features": ("boosting", {**SLOW, "feature_share": 0.15}),
    "the same, l2 30": ("boosting", {}),
    "the same, leaves of 100 rows": ("boosting", {"min_examples": 100}),
    "the same, 8 leaves": ("boosting", {"max_leaves": 8}),
}


def cube_of(name: str, data: Path, folder: Path) -> xr.Dataset:
    """Return the station cube of a recipe, grouped, with half of the places of those that have many."""
    recipe = read_recipe(name)
    ds = smgeo.open_cube(smgeo.build_cubes(name, folder / name, data) / "stations.zarr")
    by = {"by": "place"} if name == "ismn" else {"by": recipe.groups.by}  # of two networks there are no eight folds
    ds = group_stations(ds, **by, **recipe.groups.model_dump(exclude={"by"}))
    ds = ds.isel(station=np.flatnonzero(observed(ds[recipe.target.variable]).any("time").values)).load()
    if name in HALVED:
        groups = np.unique(ds["group"].values)
        half = np.random.default_rng(SEED).permutation(groups)[: groups.size // 2]
        ds = select_stations(ds, text_of(ds["station"])[np.isin(ds["group"].values, half)])
    return ds


def rows_of(name: str, data: Path, folder: Path) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Return features, target and the folds' rows of a recipe's station cube."""
    recipe, ds = read_recipe(name), cube_of(name, data, folder)
    x, y, _ = table_of(ds, list(recipe.features), recipe.target.variable)
    folds = cv_folds(ds, "group-k-fold", FOLDS, target=recipe.target.variable)
    return np.nan_to_num(x).astype("float32"), y.astype("float32"), [(t[folds.rows], h[folds.rows]) for t, h in folds]


def score(
    x: np.ndarray, y: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]], make: Callable[[], object]
) -> float:
    errors = np.empty(len(y))
    for train, held in folds:
        errors[held] = make().fit(x[train], y[train]).predict(x[held]) - y[held]
    return float(np.sqrt(np.mean(errors**2)))


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    names = sys.argv[2:] or NAMES
    print(f"{'':<44}" + "".join(f"{name:>16}" for name in names))
    with tempfile.TemporaryDirectory() as folder:
        tables = [rows_of(name, Path(sys.argv[1]), Path(folder)) for name in names]
        for words, (kind, params) in TRIED.items():
            trees = 300 if kind == "boosting" else 60
            print(f"{words:<44}", end="", flush=True)
            for table in tables:
                begin = time.monotonic()
                rmse = score(*table, partial(smgeo.make_model, kind, trees=trees, seed=0, **params))
                print(f"{rmse:9.4f}{time.monotonic() - begin:5.0f} s", end="", flush=True)
            print()


if __name__ == "__main__":
    main()
