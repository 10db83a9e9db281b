"""Assembling a grid cube from scenes: against a plain loop that only reads and writes (the limit), and odc-stac.

Run: python benchmarks/assembly.py [SIDE] [SCENES]
Simulated Sentinel-2-like scenes (two bands, uint16, deflate, tiles of 512), one a day; in the second part every other scene
lies in the neighbouring UTM zone, so that it has to be warped. All write the same cube: float32, the same chunks and shards.
The loop reads the window of a shard from every scene (files opened once, by one thread) and writes the shard; it warps
nothing, so in the second part it is a bound that no assembly reaches. odc-stac loads with `chunks` of a shard on threads,
followed by `to_zarr`. Each runs in turn three times; the best counts. The cubes are compared.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dask
import numpy as np
import odc.stac
import pandas as pd
import pystac
import rasterio
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject, transform_bounds, transform_geom

from smgeo.cube.chunks import GRID_CHUNK, GRID_SHARD
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.sources import open_rasters

BANDS = {"s2_b4": "B04", "s2_b8": "B08"}
RUNS = 3
ZONE, NEXT_ZONE = "EPSG:32632", "EPSG:32633"
SCALE = 1e-4


def write_scenes(folder: Path, side: int, count: int, *, two_zones: bool) -> tuple[GeoBox, pd.DatetimeIndex]:
    rng = np.random.default_rng(0)
    days = pd.date_range("2020-01-01", periods=count)
    # Near the border of the zones, where a neighbour's grid is turned by a few degrees.
    box = GeoBox((side, side), from_origin(700_000, 5_700_000, 10, 10), ZONE)
    smooth = np.kron(rng.integers(200, 4000, (side // 16, side // 16)), np.ones((16, 16))).astype("uint16")
    for i, day in enumerate(days):
        bands = [smooth + rng.integers(0, 200, smooth.shape, dtype="uint16") for _ in BANDS]
        crs, transform = ZONE, box.affine
        if two_zones and i % 2:
            bounds = transform_bounds(ZONE, NEXT_ZONE, *box.boundingbox.bbox)
            crs, transform = NEXT_ZONE, from_origin(bounds[0] // 10 * 10, bounds[3] // 10 * 10 + 10, 10, 10)
            height, width = (int((b - a) // 10) + 2 for a, b in ((bounds[1], bounds[3]), (bounds[0], bounds[2])))
            bands = [_warped(b, box, crs, transform, (height, width)) for b in bands]
        for name, band in zip(BANDS.values(), bands, strict=True):
            profile = {
                "driver": "GTiff",
                "count": 1,
                "dtype": "uint16",
                "height": band.shape[0],
                "width": band.shape[1],
            }
            tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "predictor": 2}
            with rasterio.open(
                folder / f"S2_{day:%Y%m%d}_{name}.tif", "w", **profile, **tiles, crs=crs, transform=transform, nodata=0
            ) as dst:
                dst.write(band, 1)
    return box, days


def _warped(band: np.ndarray, box: GeoBox, crs: str, transform: object, shape: tuple[int, int]) -> np.ndarray:
    out = np.zeros(shape, dtype="uint16")
    reproject(band, out, src_transform=box.affine, src_crs=ZONE, dst_transform=transform, dst_crs=crs,
              src_nodata=0, dst_nodata=0, resampling=Resampling.nearest)  # fmt: skip
    return out


def by_smgeo(folder: Path, box: GeoBox, days: pd.DatetimeIndex, out: Path) -> None:
    spec = {
        "path": "S2_*_{band}.tif",
        "bands": BANDS,
        "dates": "S2_%Y%m%d_*.tif",
        "scale": dict.fromkeys(BANDS, SCALE),
        "resampling": "nearest",
    }
    write_cube(open_rasters(spec, root=folder, geobox=box, period=(days[0], days[-1])), out)


def by_loop(folder: Path, box: GeoBox, days: pd.DatetimeIndex, out: Path) -> None:
    group = zarr.open_group(out, mode="w")
    sizes = (len(days), *box.shape.yx)
    shard = tuple(min(s, n) for s, n in zip(GRID_SHARD.values(), sizes, strict=True))
    chunk = tuple(min(c, n) for c, n in zip(GRID_CHUNK.values(), sizes, strict=True))
    for name, band in BANDS.items():
        array = group.create_array(name, shape=sizes, dtype="float32", chunks=chunk, shards=shard, fill_value=np.nan)
        files = [rasterio.open(folder / f"S2_{d:%Y%m%d}_{band}.tif") for d in days]
        for t in range(0, len(days), shard[0]):
            for y in range(0, sizes[1], shard[1]):
                for x in range(0, sizes[2], shard[2]):
                    y1, x1 = min(y + shard[1], sizes[1]), min(x + shard[2], sizes[2])
                    block = [f.read(1, window=((y, y1), (x, x1))) for f in files[t : t + shard[0]]]
                    array[t : t + shard[0], y:y1, x:x1] = np.stack(block).astype("float32") * np.float32(SCALE)
        for f in files:
            f.close()


def by_odc_stac(folder: Path, box: GeoBox, days: pd.DatetimeIndex, out: Path) -> None:
    items = [_item(folder, day) for day in days]
    chunks = {"x": GRID_SHARD["x"], "y": GRID_SHARD["y"]}
    ds = odc.stac.load(
        items, bands=list(BANDS.values()), geobox=box, chunks=chunks, resampling="nearest", groupby="time", nodata=0
    )
    ds = ds.chunk(time=GRID_SHARD["time"])
    ds = (ds.where(ds != 0).astype("float32") * np.float32(SCALE)).rename({b: n for n, b in BANDS.items()})
    size = {d: ds.sizes[d] for d in ("time", "y", "x")}
    encoding = {
        n: {
            "chunks": tuple(min(GRID_CHUNK[d], k) for d, k in size.items()),
            "shards": tuple(min(GRID_SHARD[d], k) for d, k in size.items()),
        }
        for n in BANDS
    }
    ds.drop_vars("spatial_ref").drop_attrs().to_zarr(
        out, mode="w", zarr_format=3, consolidated=False, encoding=encoding
    )


def _item(folder: Path, day: pd.Timestamp) -> pystac.Item:
    first = folder / f"S2_{day:%Y%m%d}_{next(iter(BANDS.values()))}.tif"
    with rasterio.open(first) as src:
        code, transform, shape, bounds = src.crs.to_epsg(), list(src.transform)[:6], list(src.shape), src.bounds
    left, bottom, right, top = bounds
    ring = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    footprint = transform_geom(f"EPSG:{code}", "EPSG:4326", {"type": "Polygon", "coordinates": [ring]})
    bbox = list(transform_bounds(f"EPSG:{code}", "EPSG:4326", *bounds))
    properties = {"proj:code": f"EPSG:{code}", "proj:transform": transform, "proj:shape": shape}
    item = pystac.Item(f"S2_{day:%Y%m%d}", footprint, bbox, day.to_pydatetime(), properties)
    item.stac_extensions = ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"]
    for band in BANDS.values():
        href = str(folder / f"S2_{day:%Y%m%d}_{band}.tif")
        item.add_asset(band, pystac.Asset(href, media_type=pystac.MediaType.COG, roles=["data"]))
    return item


def time_in_turn(ways: dict[str, Callable[[Path], None]], folder: Path) -> dict[str, float]:
    """Best seconds of each, run in turn so that what else the machine does touches all of them."""
    best = dict.fromkeys(ways, np.inf)
    for _ in range(RUNS):
        for name, work in ways.items():
            out = folder / f"{name}.zarr"
            shutil.rmtree(out, ignore_errors=True)
            start = time.perf_counter()
            work(out)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    side, count = (int(a) for a in (*sys.argv[1:3], *("2048", "24")[len(sys.argv) - 1 :]))
    warnings.filterwarnings("ignore")
    print(f"{count} scenes of {side} x {side} pixels, {len(BANDS)} bands, {dask.system.CPU_COUNT} cores")
    for two_zones in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            box, days = write_scenes(folder, side, count, two_zones=two_zones)
            ways = {"smgeo": by_smgeo, "loop": by_loop, "odc-stac": by_odc_stac}
            best = time_in_turn({n: partial(w, folder, box, days) for n, w in ways.items()}, folder)
            print("every other scene in the next zone" if two_zones else "all scenes on the cube's grid")
            megapixels = side * side * count * len(BANDS) / 1e6
            for way, seconds in best.items():
                print(f"  {way:8s} {seconds:6.2f} s  {megapixels / seconds:6.1f} Mpixel/s")
            print(f"  smgeo against the loop (the limit): {best['loop'] / best['smgeo']:.2f} of its throughput")
            print(f"  smgeo against odc-stac: {best['odc-stac'] / best['smgeo']:.2f} times as fast")
            compare(folder)


def compare(folder: Path) -> None:
    ours, theirs = open_cube(folder / "smgeo.zarr"), xr.open_zarr(folder / "odc-stac.zarr", consolidated=False)
    for name in BANDS:
        a, b = ours[name].values, theirs[name].values
        same = np.isclose(a, b, rtol=1e-6, equal_nan=True).mean()
        print(f"  {name}: {100 * same:.2f} % of the values are odc-stac's")


if __name__ == "__main__":
    main()
