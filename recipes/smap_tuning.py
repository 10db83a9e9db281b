"""How the parameters of smap.yaml were found, on its training year alone: `python recipes/smap_tuning.py DATA`. Takes about 15 minutes on 2 cores.

Learns April to December 2015, scores January to March 2016, the last months of the training year; no day of the test year is read. Prints for each
candidate the medians over cells of RMSE, ubRMSE and correlation, each the mean of two seeds. A second argument N takes every Nth cell, 2 epochs and one
seed, for a quick look.
"""

import datetime as dt
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import smgeo
from smgeo.prepare import learnable, prepare_cube
from smgeo.recipe import read_recipe

data = Path(sys.argv[1] if len(sys.argv) > 1 else "data")
every = int(sys.argv[2]) if len(sys.argv) > 2 else 1
recipe = read_recipe("smap")
fixed = recipe.models["lstm_0"].params | {"schedule": "constant"} | ({"epochs": 2} if every > 1 else {})
# Days of the window before which no day counts, days of a piece, pieces of a batch; then what else differs.
candidates = {
    "30, 180, 32": (30, 180, 32, {}),
    "10, 180, 32": (10, 180, 32, {}),
    "1, whole year, 32": (1, 366, 32, {}),
    "1, whole year, 32, falling rate": (1, 366, 32, {"schedule": "cosine"}),
}

with TemporaryDirectory() as folder:
    year = {"models": {}, "leakage_audit": None, "period": (dt.date(2015, 4, 1), dt.date(2016, 3, 31))}
    smgeo.run(recipe.model_copy(update=year), out=folder, data=data)
    cube = smgeo.open_cube(Path(folder) / "stations.zarr").isel(station=slice(None, None, every)).load()
split = smgeo.split_periods(cube, train=("2015-04-01", "2015-12-31"), test=("2016-01-01", "2016-03-31"))
prepared = prepare_cube(learnable(cube, split), recipe.prepare, recipe.features, "sm", split.train)
for name, (length, crop, batch, params) in candidates.items():
    windows = prepared.windows(split.train, length, recipe.prepare.window.missing, "sequence")
    scores = []
    for seed in (0,) if every > 1 else (0, 1):
        changes = {"crop_days": crop, "batch_size": batch, "seed": seed, **params}
        model = smgeo.make_model("lstm", **{**fixed, **changes}).fit(windows)
        medians = smgeo.evaluate(model, cube, split).scores["test"]["per_station"]
        scores.append([medians[k] for k in ("rmse_median", "ubrmse_median", "r_median")])
    print(f"{name:34s} RMSE %.4f  ubRMSE %.4f  r %.3f" % tuple(np.mean(scores, axis=0)), flush=True)
