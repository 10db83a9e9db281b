"""Maps of more days than a run has, with a run's models: `python recipes/predict_region.py RUN OUT [FIELD.gpkg]`. Takes seconds.

RUN is a finished run of recipes/map_cookfarm.yaml. Its grid cube has the weather of one day; the weather of others is in the loggers'
table, the same for the whole field. Data: as for the recipe.
"""

import sys
from pathlib import Path

import pandas as pd
import xarray as xr

import smgeo

run, out = Path(sys.argv[1]), Path(sys.argv[2])
field = sys.argv[3] if len(sys.argv) > 3 else None  # a polygon file: pixels outside of it hold no value
stations, grid = smgeo.open_cube(run / "stations.zarr"), smgeo.open_cube(run / "grid.zarr")

# 2012-03-25 and one day a month around it; a grid cube is daily, so it holds the days between as well.
wanted = pd.DatetimeIndex(["2011-10-25", "2011-11-25", "2011-12-25", "2012-01-25", "2012-02-25", "2012-03-25", "2012-04-25", "2012-05-25",
                           "2012-06-25", "2012-07-25", "2012-08-25", "2012-09-25", "2012-10-25"])  # fmt: skip
days = pd.date_range(wanted[0], wanted[-1], name="time")

# Layers that do not change, from the grid; weather from the loggers: each day the mean of those that were read.
layers = {str(n): v for n, v in grid.data_vars.items() if "time" not in v.dims}
weather = {}
for name in (str(n) for n, v in grid.data_vars.items() if "time" in v.dims):
    series = stations[name].sel(time=days).mean("station", keep_attrs=True).astype("float32")
    weather[name] = series.broadcast_like(grid["elevation"]).transpose("time", "y", "x").assign_attrs(grid[name].attrs)
cube = xr.Dataset({**layers, **weather}, {"time": days, "spatial_ref": grid["spatial_ref"]})

for name in ("rf", "ann"):
    model = smgeo.load_model(run / "models" / name)
    folder = smgeo.predict_map(model, cube, out / name, wanted, region=field)
    made = smgeo.open_map(folder)
    inside = made["applicable"].mean(("y", "x")).values
    width = (made["sm_upper"] - made["sm_lower"]).mean(("y", "x")).values
    print(f"{name}: {folder}")
    for day, mean, wide, share in zip(wanted, made["sm"].mean(("y", "x")).values, width, inside, strict=True):
        print(
            f"  {day.date()}  mean {mean:.3f} m3 m-3, interval {wide:.3f} wide, {share:.0%} of the field inside the area of applicability"
        )
