"""Loads at the edge of what users have: minutes and peak memory of each, every one in a process of its own.

Run: python benchmarks/load.py [LOAD ...]     (all by default; the names are the keys of LOADS)

- `stations`: a station cube of 2,000 stations x 3,000 days x 10 features on disk, prepared (gaps, outliers, scaling), and a forest of 20
  trees on its training rows.
- `scenes`: 5,000 GeoTIFFs of 64 x 64 pixels listed and opened on their grid, values at 50 stations, and a grid cube of them.
- `models`: a study of 60 forests on one table, with scores, paired tests and the report.
- `one station`: a study of one station, split in time.
- `regions`: a cube of 100,000 regions on two Dask workers, one of which is killed and replaced every 15 s; every value is compared.

Memory is the peak of the process and of those that it starts, imports (about 250 MB) included.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import rasterio
import xarray as xr
from rasterio.transform import from_origin

import smgeo
from smgeo.catalog import FEATURES
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.prepare import prepare_cube, split_stations
from smgeo.recipe.preparation import PrepareSpec
from smgeo.study.memory import PeakMemory

DYNAMIC = ("s1_vv", "s1_vh", "s2_b4", "s2_b8", "precipitation", "temperature")
STATIC = ("clay", "sand", "elevation", "slope")
LEVELS = {"s1_vv": -12, "s1_vh": -18, "s2_b4": 0.2, "s2_b8": 0.3, "precipitation": 3, "temperature": 12, "clay": 25,
          "sand": 40, "elevation": 400, "slope": 3, "sm": 0.25}  # fmt: skip


def station_cube(stations: int, days: int) -> xr.Dataset:
    """A cube with a third of the dynamic values missing, made block by block."""

    def draw(block: np.ndarray, level: float, gaps: float, block_info: Any = None) -> np.ndarray:
        rng = np.random.default_rng(abs(hash((level, *block_info[0]["chunk-location"]))))
        values = (level * (1 + 0.2 * rng.standard_normal(block.shape))).astype("float32")
        values[rng.random(block.shape) < gaps] = np.nan
        return values

    def lazy(name: str, shape: tuple[int, ...], gaps: float) -> da.Array:
        return da.zeros(shape, chunks=(256, *shape[1:]), dtype="float32").map_blocks(
            draw, level=LEVELS[name], gaps=gaps, dtype="float32"
        )

    variables = {n: (("station", "time"), lazy(n, (stations, days), 1 / 3), FEATURES[n].attrs()) for n in DYNAMIC}
    variables |= {n: (("station",), lazy(n, (stations,), 0.0), FEATURES[n].attrs()) for n in STATIC}
    variables["sm"] = (("station", "time"), lazy("sm", (stations, days), 0.1), FEATURES["sm"].attrs())
    return xr.Dataset(
        variables,
        {
            "station": np.array([f"N/s{i}" for i in range(stations)], dtype=object),
            "time": pd.date_range("2015-01-01", periods=days),
            "latitude": ("station", 40.0 + 0.005 * np.arange(stations)),
            "longitude": ("station", 9.0 + 0.005 * np.arange(stations)),
        },
    )


def load_stations(folder: Path) -> dict[str, Any]:
    write_cube(station_cube(2_000, 3_000), folder / "stations.zarr", token="load")
    cube = open_cube(folder / "stations.zarr")
    split = split_stations(cube, seed=0)
    spec = PrepareSpec.model_validate({"fill": {"limit": 3}, "outliers": {"z": 4}, "scale": "minmax"})
    prepared = prepare_cube(cube, spec, [*DYNAMIC, *STATIC], "sm", split.train)
    windows = prepared.windows(split.train, 1, 0.5)
    model = smgeo.make_model("rf", trees=20).fit(windows)
    return {"training rows": len(windows), "trees": model.trees}


def load_scenes(folder: Path) -> dict[str, Any]:
    rng, days = np.random.default_rng(0), pd.date_range("2010-01-01", periods=5_000)
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "height": 64, "width": 64, "crs": "EPSG:32632",
               "transform": from_origin(5e5, 5e6, 100, 100)}  # fmt: skip
    for i, day in enumerate(days):
        with rasterio.open(folder / f"t_{day:%Y%m%d}.tif", "w", **profile) as dst:
            dst.write(np.full((64, 64), i / 200 - 10, "float32"), 1)
    begin = time.monotonic()
    ds = smgeo.open_rasters(
        {"kind": "geotiff", "path": str(folder / "t_*.tif"), "dates": "t_%Y%m%d.tif", "bands": {"temperature": 1}}
    )
    opened = time.monotonic() - begin
    x, y = rng.uniform(500_100, 506_300, 50), rng.uniform(4_993_700, 4_999_900, 50)
    from pyproj import Transformer

    longitude, latitude = Transformer.from_crs(32632, 4326, always_xy=True).transform(x, y)
    places = xr.Dataset(coords={"station": [f"N/{i}" for i in range(50)], "latitude": ("station", latitude),
                                "longitude": ("station", longitude)})  # fmt: skip
    begin = time.monotonic()
    values = smgeo.extract(ds, places)["temperature"].transpose("station", "time").values
    assert np.array_equal(values, np.broadcast_to((np.arange(5_000) / 200 - 10).astype("float32"), (50, 5_000)))
    extracted = time.monotonic() - begin
    begin = time.monotonic()
    write_cube(ds, folder / "grid.zarr")
    assert float(open_cube(folder / "grid.zarr")["temperature"][-1, 0, 0]) == np.float32(4_999 / 200 - 10)
    return {"open s": round(opened, 1), "extract s": round(extracted, 1), "cube s": round(time.monotonic() - begin, 1)}


def _table_study(folder: Path, stations: int, **changes: Any) -> smgeo.study.Run:
    days = pd.date_range("2019-01-01", periods=200)
    rng = np.random.default_rng(0)
    temperature = rng.normal(12, 5, (stations, 200))
    table = pd.DataFrame(
        {
            "id": np.repeat([f"s{i}" for i in range(stations)], 200),
            "day": np.tile(days, stations),
            "lat": np.repeat(45 + np.arange(stations) / 10, 200),
            "lon": 9.0,
            "sm": (0.2 + 0.005 * temperature + rng.normal(0, 0.02, temperature.shape)).clip(0, 0.6).ravel(),
            "t": temperature.ravel(),
        }
    )
    table.to_csv(folder / "table.csv", index=False)
    columns = {"station": "id", "time": "day", "latitude": "lat", "longitude": "lon", "sm": "sm", "temperature": "t"}
    recipe = {
        "name": "load",
        "stations": [{"kind": "csv", "path": "table.csv", "columns": columns}],
        "features": ["temperature", "doy_sin"],
        "prepare": {"window": {"length": 1}, "split": {"extremes_to_train": False}},
        "models": {"rf": {"trees": 5}},
        **changes,
    }
    return smgeo.run(recipe, out=folder / "run", data=folder)


def load_models(folder: Path) -> dict[str, Any]:
    run = _table_study(folder, 40, models={f"rf{i}": {"kind": "rf", "trees": 3 + i} for i in range(60)})
    return {
        "models": len(run.results["models"]),
        "paired tests": len(run.results.get("comparisons", [])),
        "report MB": round(run.report.stat().st_size / 2**20, 1),
    }


def load_one_station(folder: Path) -> dict[str, Any]:
    periods = {"train": ["2019-01-01", "2019-05-31"], "test": ["2019-06-01", "2019-07-19"]}
    run = _table_study(folder, 1, prepare={"window": {"length": 1}, "split": {"periods": periods}})
    return {"test rmse": round(run.results["models"]["rf"]["test"]["rmse"], 4)}


@contextmanager
def workers_that_come_and_go(file: Path, every_s: float = 15.0):
    """Two Dask workers; every so many seconds one is killed and another started. Yields a list that grows by one each time."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    end, lost = threading.Event(), []

    def start(what: str, *options: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.dask_{what}",
            "--scheduler-file",
            str(file),
            "--no-dashboard",
        ]
        return subprocess.Popen([*command, *options], **quiet)

    def change() -> None:
        while not end.wait(every_s):
            gone = workers.pop(random.randrange(2))
            gone.kill()
            gone.wait()
            lost.append(gone.pid)
            workers.append(start("worker", "--nthreads", "1"))

    scheduler = start("scheduler", "--port", "0")
    workers = [start("worker", "--nthreads", "1") for _ in range(2)]
    thread = threading.Thread(target=change)
    thread.start()
    try:
        while not file.exists():
            time.sleep(0.1)
        yield lost
    finally:
        end.set()
        thread.join()
        for process in (*workers, scheduler):
            process.terminate()
            process.wait()


def number_of(block_info: Any = None) -> np.ndarray:
    """The position of a block, as its one value."""
    return np.full((1, 1), block_info[None]["chunk-location"][0], "float32")


def load_regions(folder: Path) -> dict[str, Any]:
    from distributed import Client

    count = int(os.environ.get("REGIONS", "100000"))
    lazy = da.map_blocks(number_of, chunks=((1,) * count, (1,)), dtype="float32", meta=np.empty((0, 0), "float32"))
    stations = np.array([f"N/{i}" for i in range(count)], dtype=object)
    ds = xr.Dataset(
        {"temperature": (("station", "time"), lazy, {"units": "degC", "kind": "dynamic"})},
        {"station": stations, "time": [np.datetime64("2020-01-01", "ns")]},
    )
    file = folder / "scheduler.json"
    with (
        workers_that_come_and_go(file) as lost,
        Client(scheduler_file=str(file), set_as_default=False) as client,
        client.as_current(),
    ):
        client.wait_for_workers(2)
        write_cube(ds, folder / "c.zarr", chunks={"station": 1, "time": 1}, token="load")
    begin = time.monotonic()
    values = open_cube(folder / "c.zarr")["temperature"].values[:, 0]
    assert np.array_equal(values, np.arange(count, dtype="float32"))
    return {"regions": count, "workers lost": len(lost), "reading s": round(time.monotonic() - begin, 1)}


LOADS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "stations": load_stations,
    "scenes": load_scenes,
    "models": load_models,
    "one station": load_one_station,
    "regions": load_regions,
}


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--in":
        with PeakMemory() as memory:
            found = LOADS[sys.argv[3]](Path(sys.argv[2]))
        print(json.dumps({**found, "mb": memory.bytes / 2**20}))
        return
    for load in sys.argv[1:] or LOADS:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            command = [sys.executable, __file__, "--in", folder, load]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            minutes = (time.perf_counter() - start) / 60
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{load:12s}{minutes:7.2f} min{found.pop('mb'):8.0f} MB  {found}", flush=True)


if __name__ == "__main__":
    main()
