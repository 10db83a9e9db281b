"""Peak memory of building a grid cube and mapping it, for grids of 1, 4 and 16 times the pixels: it must stay flat.

Run: python benchmarks/memory.py
Prints, per size, the peak resident memory above the imports of the building process and of the mapping process, each in a
process of its own; the building's as a multiple of workers x chunk, where a chunk is one shard of every variable; and the
tasks of the graph by region. Both must stay as they are while the grid grows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import rasterio
import xarray as xr
from rasterio.transform import from_origin

from smgeo.assemble.grid import build_grid_cube, open_grid
from smgeo.cube.chunks import GRID_SHARD
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.maps import predict_map
from smgeo.models import make_model
from smgeo.prepare import Windows
from smgeo.recipe.grid import GridSpec
from smgeo.recipe.rasters import RasterSource

BANDS = ("s1_vv", "s1_vh", "temperature")
DAYS = pd.date_range("2020-01-01", periods=60)
SIDES = (512, 1024, 2048)


def write_scenes(folder: Path, side: int) -> None:
    """A scene every third day, three bands."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "count": 3, "dtype": "float32", "height": side, "width": side, "crs": "EPSG:32632",
               "transform": from_origin(4e5, 5.7e6, 10, 10), "tiled": True, "blockxsize": 256, "blockysize": 256}  # fmt: skip
    for day in DAYS[::3]:
        with rasterio.open(folder / f"s_{day:%Y%m%d}.tif", "w", **profile) as dst:
            for i in range(3):
                dst.write(rng.normal(size=(side, side)).astype("float32"), i + 1)


def open_scenes(folder: Path) -> xr.Dataset:
    source = RasterSource(
        kind="geotiff", path="s_*.tif", dates="s_%Y%m%d.tif", bands={b: i + 1 for i, b in enumerate(BANDS)}
    )
    box = open_grid(GridSpec(like=f"s_{DAYS[0]:%Y%m%d}.tif"), folder)
    return build_grid_cube([source], box, BANDS, (DAYS[0], DAYS[-1]), folder)


def build(folder: Path) -> None:
    write_cube(open_scenes(folder), folder / "grid.zarr")


def tasks_of_a_region(folder: Path) -> float:
    cube = open_scenes(folder)
    regions = np.prod(cube[BANDS[0]].data.numblocks)
    return len(dict(dask.optimize(cube)[0].__dask_graph__())) / regions


def predict(folder: Path) -> None:
    rng = np.random.default_rng(0)
    dims = ("station", "time")
    data = {
        b: (dims, rng.normal(size=(20, 60)).astype("float32"), {"units": u})
        for b, u in zip(BANDS, ("dB", "dB", "degC"), strict=True)
    }
    data["sm"] = (dims, rng.random((20, 60)).astype("float32"), {"units": "m3 m-3", "kind": "target"})
    stations = xr.Dataset(data, {"station": [f"N/{i}" for i in range(20)], "time": DAYS})
    model = make_model("rf", trees=10).fit(Windows(stations, BANDS, "sm", length=1, missing=0.5, fill=[0, 0, 0]))
    predict_map(model, open_cube(folder / "grid.zarr"), folder / "map.zarr", list(DAYS[::6]))


def forget_peak() -> None:
    """Begin to measure the peak anew, from what is held now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """Peak resident memory of this process (Linux; ru_maxrss would count the parent's before exec)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    if len(sys.argv) > 1:
        before = peak_mb()
        {"build": build, "predict": predict}[sys.argv[1]](Path(sys.argv[2]))
        print(round(peak_mb() - before))
        return
    shard_mb = len(BANDS) * np.prod(list(GRID_SHARD.values())) * 4 / 2**20
    workers = dask.system.CPU_COUNT
    print(f"workers x chunk: {workers} x {shard_mb:.1f} MB")
    print("side  pixel-days  build MB  constant  tasks a region  predict MB")
    for side in SIDES:
        with tempfile.TemporaryDirectory() as folder:
            write_scenes(Path(folder), side)
            peaks = [
                int(
                    subprocess.run(
                        [sys.executable, __file__, what, folder], check=True, capture_output=True, text=True
                    ).stdout
                )
                for what in ("build", "predict")
            ]
            tasks = tasks_of_a_region(Path(folder))
        constant = peaks[0] / (workers * shard_mb)
        print(
            f"{side:4d}  {side * side * len(DAYS):10.1e}  {peaks[0]:8d}  {constant:8.2f}  {tasks:14.1f}  {peaks[1]:10d}",
            flush=True,
        )


if __name__ == "__main__":
    main()
