"""The quickstart by hand: `python recipes/quickstart.py OUT`. Takes about 3 minutes on 2 cores.

Data: none; the built-in world is simulated into OUT/world.
"""

import sys
from pathlib import Path

import smgeo
from smgeo.assemble import build_grid_cube, build_station_cube, open_grid
from smgeo.catalog import STUDY_FEATURES
from smgeo.prepare import drop_outlier_rows
from smgeo.recipe import GridSpec, read_recipe

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart_by_hand")
stations, days, side = (int(a) for a in sys.argv[2:5]) if len(sys.argv) > 4 else (120, 400, 64)
world = smgeo.simulate(out / "world", stations=stations, days=days, shape=(side, side), seed=0)

# Sources: lazy, one Dataset each. The rasters' paths and bands are those of the recipe.
rasters = read_recipe("quickstart").rasters
probes = smgeo.open_stations(world / "ismn", kind="ismn", depth_m=(0.0, 0.10), flags=("G",))
period = (probes["time"].values[0], probes["time"].values[-1])

# Cubes: (station, time) and (time, y, x), the same variables in the same units.
cube = build_station_cube(probes, rasters, STUDY_FEATURES, "sm", world)
box = open_grid(GridSpec(like="rasters/static/terrain.tif"), world)
grid = build_grid_cube(rasters, box, STUDY_FEATURES, period, world)
smgeo.write_cube(cube, out / "stations.zarr")
smgeo.write_cube(grid, out / "grid.zarr")
cube, grid = smgeo.open_cube(out / "stations.zarr"), smgeo.open_cube(out / "grid.zarr")

# Preparation: every statistic comes from the training stations; their outlier rows are dropped.
split = smgeo.split_stations(cube, fractions=(0.8, 0.1, 0.1), extremes_to_train=True, seed=0)
filled = smgeo.fill_gaps(cube, limit="half-revisit", revisit="measured")
flags = smgeo.flag_outliers(filled, z=4, stations=split.train)
kept, _ = drop_outlier_rows(filled, flags, split.train)
scaled = smgeo.Scaler("minmax").fit(kept.sel(station=list(split.train))).transform(kept)
means = scaled.sel(station=list(split.train))[list(STUDY_FEATURES)].mean().compute()
fill = [float(means[f]) for f in STUDY_FEATURES]


def windows(part, length):
    """Windows of one part of the split; up to half of their values may be missing."""
    return smgeo.Windows(scaled.sel(station=list(part)), STUDY_FEATURES, "sm", length, missing=0.5, fill=fill)


models = {
    "rf": {"trees": 100},
    "ann": {"units": 64, "epochs": 40},
    "gru": {"units": 32},
    "lstm": {"units": 32},
}
for name, params in models.items():
    model = smgeo.make_model(name, **params)
    length = 30 if model.uses_window else 1
    model.fit(windows(split.train, length), validation=windows(split.validation, length))
    model.save(out / "models" / name)
    print(name, smgeo.evaluate(model, cube, split).table.round(3).to_string(), sep="\n")
    print("maps:", smgeo.predict_map(model, grid, out / "maps" / name, times=grid["time"].values[-31::10]))
