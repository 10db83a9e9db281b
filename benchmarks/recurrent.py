"""What parameters of recurrent networks do at places that were left out, beside a plain forest: how the defaults of `gru` and `lstm` were found.

Run: python benchmarks/recurrent.py DATA [scan] [uscrn] [ismn] [cookfarm]     (all by default)

Of `scan` and `uscrn` half of the places are used, drawn by a seed, so that the scores of all places in `benchmarks/science.py` are of places half
of which shaped no default; of the small `ismn` and `cookfarm` all. Four folds of places. Networks are trained as the recipes prepare their data.
Printed are the RMSEs of `gru` and `lstm` over all rows that they estimated, seed 0, as percent above (or below) that of scikit-learn's forest on
these rows (100 trees, leaves of 5 rows, a third of the features), and the seconds of their trainings and estimates.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from science import held_out, held_out_by_smgeo, plain_forest
from trees import cube_of

import smgeo
from smgeo.evaluation.cross_validation import Learner
from smgeo.prepare import cv_folds
from smgeo.recipe.study import read_recipe

NAMES = ("scan", "uscrn", "ismn", "cookfarm")
FOLDS = 4
SERIES = {"mode": "sequence"}
# As before, and as Keras' users have it: a constant rate, and the epoch that is best at the validation stations.
STOPPED = {"schedule": "constant", "epochs": 30, "patience": 5, "dropout": 0.1, "input_dropout": 0.0}
TRIED: dict[str, dict[str, object]] = {
    "series": SERIES,
    "series, best of 30 epochs, little dropout": {**SERIES, **STOPPED},
    "series, all channels at all times": {**SERIES, "input_dropout": 0.0},
    "series, half of the channels left out": {**SERIES, "input_dropout": 0.5},
    "series, 4 epochs": {**SERIES, "epochs": 4},
    "series, 16 epochs": {**SERIES, "epochs": 16},
    "series, a rate of 0.002, half of its own": {**SERIES, "learning_rate": 0.002},
    "series, a rate of 0.008": {**SERIES, "learning_rate": 0.008},
    "series, 128 units": {**SERIES, "units": 128},
    "windows": {},
    "windows, best of 30 epochs, little dropout": STOPPED,
}


def rmse(found: np.ndarray, ds: xr.Dataset, rows: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - ds["sm"].transpose("station", "time").values)[rows] ** 2)))


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    names = sys.argv[2:] or NAMES
    print(f"{'':<44}" + "".join(f"{name:>24}" for name in names), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        recipes = [read_recipe(name) for name in names]
        cubes = [cube_of(name, Path(sys.argv[1]), Path(folder)) for name in names]
        folds = [cv_folds(ds, "group-k-fold", FOLDS, target="sm") for ds in cubes]
        forests = [
            held_out(ds, list(recipe.features), plain_forest, parts)
            for recipe, ds, parts in zip(recipes, cubes, folds, strict=True)
        ]
        for words, params in TRIED.items():
            print(f"{words:<44}", end="", flush=True)
            for recipe, ds, parts, forest in zip(recipes, cubes, folds, forests, strict=True):
                begin, shown = time.monotonic(), ""
                for kind in ("gru", "lstm"):
                    learner = Learner.of(partial(smgeo.make_model, kind, **params), recipe.prepare.window.length)
                    found = held_out_by_smgeo(ds, list(recipe.features), learner, recipe.prepare, parts)
                    rows = np.isfinite(found) & np.isfinite(forest)
                    shown += f"{100 * (rmse(found, ds, rows) / rmse(forest, ds, rows) - 1):+7.1f}%"
                print(f"{shown}{time.monotonic() - begin:6.0f} s", end="", flush=True)
            print()


if __name__ == "__main__":
    main()
