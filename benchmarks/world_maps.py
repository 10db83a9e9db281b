"""Maps of the built-in world against its truth at every pixel: errors, intervals, area of applicability.

Run: python benchmarks/world_maps.py FOLDER [--side 1000] [--inner-side 300] [--stations 120] [--seed 0]
A world of 1,000 x 1,000 km in pixels of 1 km, four models trained at 120 stations over 400 days, 30 days of maps: of the same 300 x 300 pixels
by each model, and of all of it by rf and ann. Scores at test stations are of the same 30 days. Intervals are learned by `folds`.
The second run in the same folder goes on from what the first finished.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import yaml
from pyproj import Transformer
from scipy.spatial import KDTree

import smgeo
from smgeo.cube.reading import open_cube
from smgeo.evaluation.parts import rows_in_part
from smgeo.report.results import open_truth

DAYS = pd.date_range("2016-08-01", periods=30)
# Gaps are filled from both sides, and windows look 30 days back.
PERIOD = ["2016-06-28", "2016-09-04"]
LEVEL = 0.9
# A pixel is far from all stations beyond so many metres.
FAR_M = 10_000


def write_recipe(folder: Path, side: int, stations: int, seed: int) -> Path:
    recipe = yaml.safe_load((Path(__file__).parents[1] / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
    recipe |= {"name": "world-maps", "applicability": True, "intervals": {"level": LEVEL, "method": "folds"}}
    recipe["world"] |= {"shape": [side, side], "stations": stations, "seed": seed}
    recipe["grid"]["period"] = PERIOD
    recipe["maps"] = {"dates": [str(DAYS[0].date())], "models": ["rf"]}  # a run without maps builds no grid cube
    path = folder / "world_maps.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def score(made: xr.Dataset, truth: xr.DataArray, far: np.ndarray) -> dict[str, Any]:
    """Of all pixel-days with a value; coverage where no station is near."""
    names = ("sm", "sm_lower", "sm_upper", "applicable")
    estimate, low, high, flag = (made[n].values.reshape(len(DAYS), -1) for n in names)
    true = truth.values.reshape(len(DAYS), -1)
    seen = np.isfinite(estimate) & np.isfinite(true)
    error = np.where(seen, estimate - true, np.nan)
    inside, outside = seen & (flag == 1), seen & (flag == 0)
    held = (true >= low) & (true <= high)

    def rmse(where: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(error[where], dtype="float64")))) if where.any() else float("nan")

    bias = float(np.mean(error[seen], dtype="float64"))
    remote = seen & far.reshape(-1)
    return {
        "pixel-days": int(seen.sum()),
        "without a value": 1 - seen.mean(),
        "RMSE": rmse(seen),
        "bias": bias,
        "ubRMSE": float(np.sqrt(rmse(seen) ** 2 - bias**2)),
        "r": float(np.corrcoef(estimate[seen], true[seen])[0, 1]),
        "far from stations": remote.sum() / seen.sum(),
        "coverage there": held[remote].mean(),
        "coverage inside": held[remote & inside].mean(),
        "coverage outside": held[remote & outside].mean() if (remote & outside).any() else float("nan"),
        "mean width": float(np.mean((high - low)[remote], dtype="float64")),
        "share inside": inside.sum() / seen.sum(),
        "RMSE inside": rmse(inside),
        "RMSE outside": rmse(outside),
    }


def score_stations(run: smgeo.study.Run, name: str) -> dict[str, float]:
    """Of the test stations on the days of the maps; coverage on all days, over places."""
    rows = rows_in_part(open_cube(run.folder / "predictions" / f"{name}.zarr", dask=False), "test")
    rows = rows.sel(time=rows["time"].isin(DAYS))
    error = (rows["predicted"] - rows["observed"]).values
    covered = run.results["prediction_intervals"][name]
    return {
        "test stations": rows.sizes["station"],
        "RMSE at test stations": float(np.sqrt(np.nanmean(error**2))),
        "coverage at test stations": covered["covered_groups"],
        "width at test stations": covered["width"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=1000)
    parser.add_argument("--inner-side", type=int, default=300)
    parser.add_argument("--stations", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    run = smgeo.run(write_recipe(asked.folder, asked.side, asked.stations, asked.seed), asked.folder / "run")
    grid = smgeo.open_cube(run.folder / "grid.zarr")
    cube = smgeo.open_cube(run.folder / "stations.zarr")
    move = Transformer.from_crs("EPSG:4326", grid.odc.crs.to_wkt(), always_xy=True)
    places = KDTree(np.column_stack(move.transform(cube["longitude"].values, cube["latitude"].values)))
    rows = {}
    inner = min(asked.side, asked.inner_side)
    for name, side in [(n, inner) for n in ("rf", "ann", "gru", "lstm")] + [(n, asked.side) for n in ("rf", "ann")]:
        first = (asked.side - side) // 2
        part = grid.isel(y=slice(first, first + side), x=slice(first, first + side))
        model = smgeo.load_model(run.folder / "models" / name)
        out = smgeo.predict_map(
            model, part, asked.folder / f"{name}-{side}.zarr", list(DAYS), intervals=LEVEL, applicability=True
        )
        made = smgeo.open_map(out).load()
        x, y = np.meshgrid(made["x"].values, made["y"].values)
        far = places.query(np.column_stack([x.ravel(), y.ravel()]))[0].reshape(x.shape) > FAR_M
        column = f"{name} {side}"
        rows[column] = score(made, open_truth(run.folder / "world" / "truth.zarr", made), far) | score_stations(
            run, name
        )
        print(column, rows[column], flush=True)
    print(pd.DataFrame(rows).to_string(float_format=lambda v: f"{v:.4f}"))


if __name__ == "__main__":
    main()
