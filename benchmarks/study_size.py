"""The study's size from nothing to prepared windows: minutes and peak memory of each step, each in a process of its own.

Run: python benchmarks/study_size.py [FOLDER]
Simulates 317 stations x 1,684 days and rasters of 256 x 256 pixels (1.3 GB on disk), builds the station cube of the 27 features,
prepares it as the study does (gaps by half the measured revisit, outliers beyond 4 standard deviations of training stations,
MinMax scaling, split 80/10/10 with extremes in training) and makes the windows of 30 days: the study's (complete ones) and
the recipes' (up to half of the values missing). Memory is resident, peak of the process, imports (about 250 MB) included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memory import peak_mb

from smgeo.assemble.stations import build_station_cube, write_station_cube
from smgeo.catalog import FEATURES, STUDY_FEATURES
from smgeo.cube.reading import open_cube
from smgeo.prepare import prepare_cube, split_stations
from smgeo.recipe.study import Recipe, read_recipe
from smgeo.sources.world.simulation import simulate
from smgeo.study.inputs import open_all_stations

STATIONS, DAYS, SHAPE = 317, 1684, (256, 256)


def recipe() -> Recipe:
    return read_recipe("quickstart")


def make_world(folder: Path) -> dict[str, Any]:
    simulate(folder / "world", STATIONS, DAYS, SHAPE, 0)
    return {}


def make_cube(folder: Path) -> dict[str, Any]:
    asked = recipe()
    stations = open_all_stations(asked, folder / "world")
    cube = build_station_cube(stations, asked.rasters, STUDY_FEATURES, "sm", folder / "world", FEATURES)
    write_station_cube(cube, folder / "stations.zarr")
    built = open_cube(folder / "stations.zarr")
    return {"stations": built.sizes["station"], "days": built.sizes["time"], "rows": int(built["sm"].notnull().sum())}


def prepare(folder: Path, missing: float) -> dict[str, Any]:
    cube = open_cube(folder / "stations.zarr")
    split = split_stations(cube, seed=0)
    prepared = prepare_cube(cube, recipe().prepare, STUDY_FEATURES, "sm", split.train)
    parts = {name: prepared.windows(ids, 30, missing) for name, ids in split.parts().items()}
    batches = sum(1 for _ in parts["train"].batches(4096))
    return {
        **{f"{name} windows": len(windows) for name, windows in parts.items()},
        "training batches": batches,
        "outlier rows": prepared.outlier_rows,
        "stations left out of train": len(parts["train"].left_out),
    }


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "simulate": make_world,
    "station cube": make_cube,
    "prepare, complete windows": lambda folder: prepare(folder, 0.0),
    "prepare, up to half missing": lambda folder: prepare(folder, 0.5),
}


def run_all(folder: Path) -> None:
    total = 0.0
    for step in STEPS:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, __file__, str(folder), step], check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        total += seconds
        found = json.loads(done.stdout.splitlines()[-1])
        mb = found.pop("mb")
        print(f"{step:30s}{seconds / 60:7.2f} min{mb:8.0f} MB  {found}", flush=True)
    print(f"{'in all':30s}{total / 60:7.2f} min")


def main() -> None:
    if len(sys.argv) > 2:
        found = STEPS[sys.argv[2]](Path(sys.argv[1]))
        print(json.dumps({**found, "mb": peak_mb()}))
    elif len(sys.argv) > 1:
        run_all(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            run_all(Path(folder))


if __name__ == "__main__":
    main()
