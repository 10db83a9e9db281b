"""Values at stations: against rasterio's sample, date by date, and xarray's vectorised sel.

Run: python benchmarks/extraction.py [STATIONS] [DATES] [SIDE]
A GeoTIFF a date (float32, tiles of 256, uncompressed and then deflate), stations at random pixels. Three ways to the
same table (station, date): smgeo's reader of scenes at stations; `rasterio.sample` a file at a time; and the files as
one lazy array (rioxarray with Dask chunks of a tile, a file a date) with `sel(x=..., y=..., method="nearest")`. Then
the same from a grid cube (Zarr): `smgeo.extract` against `sel`. Each runs three times, in turn, each time on the files
under new names, so that nothing is found open or in GDAL's memory; the best counts. The tables are compared. Where
tiles are compressed, every way has to unpack each tile in which a station lies: that is the limit then.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import rasterio
import rioxarray
import xarray as xr
from pyproj import Transformer
from rasterio.transform import from_origin

import smgeo
from smgeo.sources import open_rasters

RUNS = 3
CRS = "EPSG:32632"
LEFT, TOP, PIXEL = 500_000, 5_700_000, 10


def write_series(folder: Path, dates: int, side: int, compression: dict[str, object]) -> pd.DatetimeIndex:
    rng = np.random.default_rng(0)
    days = pd.date_range("2018-01-01", periods=dates)
    base = rng.normal(-12, 3, (side, side)).astype("float32")
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "height": side, "width": side, "crs": CRS,
               "transform": from_origin(LEFT, TOP, PIXEL, PIXEL), "tiled": True, "blockxsize": 256, "blockysize": 256}  # fmt: skip
    for i, day in enumerate(days):
        with rasterio.open(folder / f"vv_{day:%Y%m%d}.tif", "w", **profile, **compression) as dst:
            # Decibels in steps of 0.1, as products keep them.
            dst.write(np.round(base + np.float32(np.sin(i)), 1), 1)
    return days


def place_stations(count: int, side: int) -> xr.Dataset:
    rng = np.random.default_rng(1)
    x = LEFT + PIXEL * (rng.integers(0, side, count) + 0.4)
    y = TOP - PIXEL * (rng.integers(0, side, count) + 0.4)
    lon, lat = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(x, y)
    names = [f"N/{i}" for i in range(count)]
    return xr.Dataset(
        coords={"station": names, **{k: ("station", v) for k, v in
                                     {"longitude": lon, "latitude": lat, "x": x, "y": y}.items()}}
    )  # fmt: skip


def by_smgeo(stations: xr.Dataset, days: pd.DatetimeIndex, folder: Path) -> np.ndarray:
    spec = {"path": "vv_*.tif", "dates": "vv_%Y%m%d.tif", "bands": {"s1_vv": 1}}
    return open_rasters(spec, root=folder, stations=stations.drop_vars(["x", "y"]))["s1_vv"].values


def by_sample(stations: xr.Dataset, days: pd.DatetimeIndex, folder: Path) -> np.ndarray:
    places = list(zip(stations["x"].values, stations["y"].values, strict=True))
    columns = []
    for day in days:
        with rasterio.open(folder / f"vv_{day:%Y%m%d}.tif") as src:
            columns.append([v[0] for v in src.sample(places)])
    return np.array(columns).T


def by_sel(stations: xr.Dataset, days: pd.DatetimeIndex, folder: Path) -> np.ndarray:
    chunks = {"x": 256, "y": 256}
    layers = [rioxarray.open_rasterio(folder / f"vv_{d:%Y%m%d}.tif", chunks=chunks).isel(band=0) for d in days]
    series = xr.concat(layers, dim=pd.Index(days, name="time"))
    return series.sel(x=stations["x"], y=stations["y"], method="nearest").transpose("station", "time").values


def by_extract(stations: xr.Dataset, cube: xr.Dataset) -> np.ndarray:
    return smgeo.extract(cube, stations.drop_vars(["x", "y"]))["s1_vv"].values


def by_cube_sel(stations: xr.Dataset, cube: xr.Dataset) -> np.ndarray:
    found = cube["s1_vv"].sel(x=stations["x"], y=stations["y"], method="nearest")
    return found.transpose("station", "time").values


def relink(folder: Path, name: str) -> Path:
    """The same files under other names, so that nothing that a run before kept open or in memory is found again."""
    other = folder / name
    other.mkdir()
    for file in folder.glob("*.tif"):
        os.link(file, other / file.name)
    return other


def reopen(store: Path, name: str) -> xr.Dataset:
    return smgeo.open_cube(store)


def compare(ways: dict[str, Callable[..., np.ndarray]], values: int, inputs: Callable[[str], Any]) -> None:
    """Run each in turn; the best seconds of each, and how many times as fast as the others the first one is."""
    best, tables = dict.fromkeys(ways, np.inf), {}
    for run in range(RUNS):
        given = inputs(f"run{run}")
        for way, work in ways.items():
            start = time.perf_counter()
            tables[way] = work(given)
            best[way] = min(best[way], time.perf_counter() - start)
    ours = next(iter(ways))
    for way, seconds in best.items():
        ratio = "" if way == ours else f"  {ours} is {seconds / best[ours]:.1f} times as fast"
        same = "" if np.array_equal(tables[way], tables[ours]) else "  NOT EQUAL"
        print(f"  {way:16s} {seconds:6.2f} s  {values / seconds:10,.0f} values/s{ratio}{same}", flush=True)


def main() -> None:
    given = [int(a) for a in sys.argv[1:]]
    count, dates, side = given + [300, 500, 1024][len(given) :]
    warnings.filterwarnings("ignore")
    print(f"{count} stations, {dates} dates, scenes of {side} x {side} pixels, {dask.system.CPU_COUNT} cores")
    stations = place_stations(count, side)
    for layout, compression in (("uncompressed", {}), ("deflate", {"compress": "deflate", "zlevel": 1})):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            days = write_series(folder, dates, side, compression)
            print(f"GeoTIFFs, {layout}")
            ways = {"smgeo": by_smgeo, "rasterio.sample": by_sample, "xarray sel": by_sel}
            compare({n: partial(w, stations, days) for n, w in ways.items()}, count * dates, partial(relink, folder))
            if compression:
                continue
            spec = {"path": "vv_*.tif", "dates": "vv_%Y%m%d.tif", "bands": {"s1_vv": 1}}
            store = smgeo.write_cube(smgeo.open_rasters(spec, root=folder), folder / "grid.zarr")
            print("grid cube (Zarr)")
            both = {"smgeo.extract": by_extract, "xarray sel": by_cube_sel}
            compare({n: partial(w, stations) for n, w in both.items()}, count * dates, partial(reopen, store))


if __name__ == "__main__":
    main()
