"""What the inputs of smap.yaml beyond the tutorial's are worth: `python recipes/smap_inputs.py DATA`. Takes about 20 minutes on 2 cores.

The same LSTM and days as in smap.yaml, on the tutorial's own 19 inputs (7 of weather, 12 layers), then with each cell's mean in the training year,
then with its place as well, which are the inputs of smap.yaml. Prints the medians over cells of RMSE, ubRMSE and correlation of each seed, and their
mean. A second argument N takes every Nth cell, 2 epochs and one seed, for a quick look.
"""

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
own = [f for f in recipe.features if f not in ("target_mean", "lat", "lon")]
candidates = {
    "the tutorial's inputs": own,
    "with the mean": [*own, "target_mean"],
    "with mean and place": list(recipe.features),
}
params = recipe.models["lstm_0"].params | ({"epochs": 2} if every > 1 else {})

with TemporaryDirectory() as folder:
    smgeo.run(recipe.model_copy(update={"models": {}, "leakage_audit": None}), out=folder, data=data)
    cube = smgeo.open_cube(Path(folder) / "stations.zarr").isel(station=slice(None, None, every)).load()
days = recipe.prepare.split.periods
split = smgeo.split_periods(cube, train=days.train, test=days.test)
for name, features in candidates.items():
    prepared = prepare_cube(learnable(cube, split), recipe.prepare, features, "sm", split.train)
    windows = prepared.windows(split.train, 1, recipe.prepare.window.missing, "sequence")
    scores = []
    for seed in (0,) if every > 1 else (0, 1, 2):
        model = smgeo.make_model("lstm", **{**params, "seed": seed}).fit(windows)
        medians = smgeo.evaluate(model, cube, split).scores["test"]["per_station"]
        scores.append([medians[k] for k in ("rmse_median", "ubrmse_median", "r_median")])
        print(f"  seed {seed}: RMSE %.4f  ubRMSE %.4f  r %.3f" % tuple(scores[-1]), flush=True)
    print(f"{name:22s} RMSE %.4f  ubRMSE %.4f  r %.3f" % tuple(np.mean(scores, axis=0)), flush=True)
