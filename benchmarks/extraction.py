"""Values at stations: against rasterio's sample, date by date, and xarray's vectorised sel.

Run: python benchmarks/extraction.py [STATIONS] [DATES] [SIDE]
A GeoTIFF a date (float32, deflate, tiles of 256), stations at random pixels. Three ways to the same table (station, date):
smgeo's reader of scenes at stations; `rasterio.sample` a file at a time; and the files as one lazy array (rioxarray with Dask
chunks of a tile, a file a date) with `sel(x=..., y=..., method="nearest")`. Each runs three times, in turn; the best counts.
The tables are compared.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import rasterio
import rioxarray
import xarray as xr
from pyproj import Transformer
from rasterio.transform import from_origin

from smgeo.sources import open_rasters

RUNS = 3
CRS = "EPSG:32632"
LEFT, TOP, PIXEL = 500_000, 5_700_000, 10


def write_series(folder: Path, dates: int, side: int) -> pd.DatetimeIndex:
    rng = np.random.default_rng(0)
    days = pd.date_range("2018-01-01", periods=dates)
    base = rng.normal(-12, 3, (side, side)).astype("float32")
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "height": side, "width": side, "crs": CRS,
               "transform": from_origin(LEFT, TOP, PIXEL, PIXEL), "tiled": True, "blockxsize": 256, "blockysize": 256,
               "compress": "deflate", "zlevel": 1}  # fmt: skip
    for i, day in enumerate(days):
        with rasterio.open(folder / f"vv_{day:%Y%m%d}.tif", "w", **profile) as dst:
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


def by_smgeo(folder: Path, stations: xr.Dataset, days: pd.DatetimeIndex) -> np.ndarray:
    spec = {"path": "vv_*.tif", "dates": "vv_%Y%m%d.tif", "bands": {"s1_vv": 1}}
    return open_rasters(spec, root=folder, stations=stations.drop_vars(["x", "y"]))["s1_vv"].values


def by_sample(folder: Path, stations: xr.Dataset, days: pd.DatetimeIndex) -> np.ndarray:
    places = list(zip(stations["x"].values, stations["y"].values, strict=True))
    columns = []
    for day in days:
        with rasterio.open(folder / f"vv_{day:%Y%m%d}.tif") as src:
            columns.append([v[0] for v in src.sample(places)])
    return np.array(columns).T


def by_sel(folder: Path, stations: xr.Dataset, days: pd.DatetimeIndex) -> np.ndarray:
    chunks = {"x": 256, "y": 256}
    layers = [rioxarray.open_rasterio(folder / f"vv_{d:%Y%m%d}.tif", chunks=chunks).isel(band=0) for d in days]
    series = xr.concat(layers, dim=pd.Index(days, name="time"))
    return series.sel(x=stations["x"], y=stations["y"], method="nearest").transpose("station", "time").values


def main() -> None:
    given = [int(a) for a in sys.argv[1:]]
    count, dates, side = given + [300, 500, 1024][len(given) :]
    warnings.filterwarnings("ignore")
    print(f"{count} stations, {dates} dates, scenes of {side} x {side} pixels, {dask.system.CPU_COUNT} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        days, stations = write_series(folder, dates, side), place_stations(count, side)
        ways: dict[str, Callable[..., np.ndarray]] = {"smgeo": by_smgeo, "sample": by_sample, "sel": by_sel}
        best, tables = dict.fromkeys(ways, np.inf), {}
        for _ in range(RUNS):
            for way, work in ways.items():
                start = time.perf_counter()
                tables[way] = work(folder, stations, days)
                best[way] = min(best[way], time.perf_counter() - start)
    for way, seconds in best.items():
        print(f"  {way:7s} {seconds:6.2f} s  {count * dates / seconds:10,.0f} values/s")
    print(f"  smgeo against rasterio.sample: {best['sample'] / best['smgeo']:.1f} times as fast")
    print(f"  smgeo against xarray's sel: {best['sel'] / best['smgeo']:.1f} times as fast")
    for way in ("sample", "sel"):
        print(f"  equal to {way}: {np.array_equal(tables['smgeo'], tables[way])}")


if __name__ == "__main__":
    main()
