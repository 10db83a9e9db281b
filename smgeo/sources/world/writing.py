"""Files of the built-in world besides its stations: GeoTIFFs, the true soil moisture, and the description of the world."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyproj
import rasterio
import xarray as xr
from rasterio.io import MemoryFile

from smgeo.catalog import FEATURES
from smgeo.sources.world import physics
from smgeo.sources.world.landscape import PIXEL_M, REGIONS, Landscape, P
from smgeo.sources.world.physics import Array
from smgeo.sources.world.satellites import COARSE
from smgeo.sources.world.stations import PROBES, Station

ORIGIN = (372_000.0, 5_700_000.0)  # west and north edge, m, EPSG:32632
EPSG = 32632
SLAB_DAYS = 30


class Rasters:
    """Writer of GeoTIFFs of one grid, or of its coarse cells, under a folder."""

    def __init__(self, root: Path, shape: tuple[int, int]) -> None:
        self.root, self.shape = root, shape
        self._crs = rasterio.CRS.from_epsg(EPSG)

    def write(self, folder: str, name: str, layers: dict[str, Array]) -> None:
        """Write `layers` (name -> `(y, x)`) as the bands of one float32 file, NaN where missing."""
        data = np.stack(list(layers.values())).astype(np.float32)
        pixel = PIXEL_M if data.shape[1:] == self.shape else PIXEL_M * COARSE
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        options = {"driver": "GTiff", "dtype": "float32", "nodata": np.nan, "compress": "deflate", "zlevel": 1}
        size = {"count": data.shape[0], "height": data.shape[1], "width": data.shape[2]}
        place = {"crs": self._crs, "transform": rasterio.transform.from_origin(*ORIGIN, pixel, pixel)}
        with MemoryFile() as memory:  # GDAL closes a file without an error where the disk did not take its last blocks
            with memory.open(**options, **size, **place) as file:
                file.write(data)
                file.descriptions = tuple(layers)
                file.units = tuple(FEATURES[key].units for key in layers)
            (self.root / folder / f"{name}.tif").write_bytes(memory.getbuffer())


def append_truth(path: Path, slab: Array, times: pd.DatetimeIndex) -> None:
    """Append days of soil moisture `(time, y, x)` to the Zarr store, which the first call creates."""
    _, rows, cols = slab.shape
    attrs = {
        "units": "m3 m-3",
        "long_name": FEATURES["sm"].long_name,
        "source": "smgeo built-in world",
        "kind": "target",
    }
    west, north = ORIGIN
    geo = {**pyproj.CRS.from_epsg(EPSG).to_cf(), "GeoTransform": f"{west} {PIXEL_M} 0.0 {north} 0.0 {-PIXEL_M}"}
    axes = {
        "x": (
            "x",
            west + PIXEL_M * (np.arange(cols) + 0.5),
            {"standard_name": "projection_x_coordinate", "units": "m"},
        ),
        "y": (
            "y",
            north - PIXEL_M * (np.arange(rows) + 0.5),
            {"standard_name": "projection_y_coordinate", "units": "m"},
        ),
    }
    ds = xr.Dataset(
        {"sm": (("time", "y", "x"), slab, attrs)}, {"time": times, **axes, "spatial_ref": ((), np.int64(0), geo)}
    )
    if path.exists():
        ds["sm"].encoding["grid_mapping"] = "spatial_ref"
        ds.to_zarr(path, append_dim="time", consolidated=False)
        return
    encoding = {
        "sm": {"chunks": (SLAB_DAYS, min(rows, 256), min(cols, 256)), "grid_mapping": "spatial_ref"},
        "time": {"units": f"days since {times[0]:%Y-%m-%d}", "dtype": "int64"},
    }
    ds.to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)


def pixel_places(rows: Array, cols: Array) -> tuple[Array, Array]:
    """Return longitude and latitude (degree) of pixel centres."""
    to_degrees = pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True)
    lon, lat = to_degrees.transform(ORIGIN[0] + PIXEL_M * (cols + 0.5), ORIGIN[1] - PIXEL_M * (rows + 0.5))
    return np.asarray(lon), np.asarray(lat)


def write_description(
    path: Path, arguments: dict[str, object], land: Landscape, placed: list[Station], spin_up: int
) -> None:
    """Write the arguments, parameters, regions and stations of a world as JSON."""
    constants = {k: v for k, v in vars(physics).items() if k.isupper()}
    pixels = np.bincount(land.region.ravel(), minlength=len(REGIONS))
    content = {
        "arguments": arguments,
        "grid": {"crs": f"EPSG:{EPSG}", "origin_m": ORIGIN, "pixel_m": PIXEL_M, "coarse_pixels": COARSE},
        "note": "Climates lie side by side; distances and latitudes between them are not to scale.",
        "parameters": asdict(P) | asdict(PROBES) | {"spin_up_days": spin_up},
        "constants": {k: v._asdict() if hasattr(v, "_asdict") else v for k, v in constants.items()},
        "regions": [asdict(r) | {"pixels": int(n)} for r, n in zip(REGIONS, pixels, strict=True)],
        "stations": [asdict(s) for s in placed],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
