"""Coarser copies of a map inside its store, for viewers: Zarr's convention `multiscales`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from smgeo.maps.layout import geozarr_attrs, plan_map

_LARGEST = 256
_CONVENTION = {
    "uuid": "d35379db-88df-4056-af3a-620245f8e347",
    "name": "multiscales",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v1/README.md",
    "description": "Multiscale layout of zarr datasets",
}


def write_overviews(store: Path) -> None:
    """Add groups `2`, `4`, `8`, ... to a map store: its variables with pixels so many times as wide.

    Each pixel is the mean of those of 2 x 2 pixels of the level before that hold a value; of a flag (`kind` "flag") it is the
    share of them on which it is 1, float32. The coarsest level fits into 256 x 256 pixels. The store's attribute `multiscales`
    lists them all; each group opens in xarray with its own coordinates (`xarray.open_zarr(store, group="4")`).
    """
    ds = _open(store)
    names = [str(n) for n in ds.data_vars if ds[n].dims == ("time", "y", "x")]
    levels: list[dict[str, Any]] = [{"asset": name, "transform": {"scale": [1.0, 1.0, 1.0]}} for name in names]
    before, factor = "", 1
    while max(ds.sizes["y"], ds.sizes["x"]) > _LARGEST:
        factor *= 2
        coarse = _halve(ds[names])
        coarse.to_zarr(store, group=str(factor), zarr_format=3, consolidated=False, encoding=plan_map(coarse))
        levels += [
            {
                "asset": f"{factor}/{name}",
                "derived_from": f"{before}{name}",
                "transform": {"scale": [1.0, 2.0, 2.0], "translation": [0.0, 0.5, 0.5]},
            }
            for name in names
        ]
        before, ds = f"{factor}/", _open(store, str(factor))
    attrs: Any = zarr.open_group(store, mode="r+").attrs
    said = {"layout": levels, "resampling_method": "average"}
    attrs.update(zarr_conventions=[*attrs["zarr_conventions"], _CONVENTION], multiscales=said)


def remove_overviews(store: Path) -> None:
    """Remove the groups of a `write_overviews` that was killed."""
    for group in store.iterdir():
        if group.name.isdigit():
            shutil.rmtree(group)


def _open(store: Path, group: str | None = None) -> xr.Dataset:
    return xr.open_zarr(store, group=group, consolidated=False, chunks={}, decode_coords="all")


def _halve(ds: xr.Dataset) -> xr.Dataset:
    """The same area in pixels twice as wide; where their number is odd, the last reach beyond it."""
    box = ds.odc.geobox
    height, width = (-(-n // 2) for n in box.shape.yx)
    wide = GeoBox((height, width), box.affine * Affine.scale(2), box.crs)
    plan = plan_map(ds)
    data = {}
    for name, variable in ds.data_vars.items():
        # Chunks of the store are even, but for the last.
        values = da.asarray(variable.data)
        chunks = (values.chunks[0], *(tuple(-(-n // 2) for n in sizes) for sizes in values.chunks[1:]))
        coarse = values.map_blocks(_mean_of_four, dtype="float32", chunks=chunks, meta=np.empty((0, 0, 0), "float32"))
        shape = (variable.sizes["time"], height, width)
        shard = plan[str(name)].get("shards", plan[str(name)]["chunks"])
        coarse = coarse.rechunk(tuple(min(s, n) for s, n in zip(shard, shape, strict=True)))
        attrs = {k: v for k, v in variable.attrs.items() if not k.endswith(("_share", "share_inside", "flag_values"))}
        data[name] = (variable.dims, coarse, {**attrs, "grid_mapping": "spatial_ref"})
    coords = {"time": ds["time"], **xr_coords(wide, dims=("y", "x"))}
    return xr.Dataset(data, coords, geozarr_attrs(wide)).drop_encoding()


def _mean_of_four(values: np.ndarray) -> np.ndarray:
    days, height, width = values.shape
    padded = np.pad(values, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=np.nan)
    four = padded.reshape(days, -(-height // 2), 2, -(-width // 2), 2)
    held = ~np.isnan(four)
    count = held.sum(axis=(2, 4))
    total = np.where(held, four, 0).sum(axis=(2, 4), dtype="float64")
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype("float32")
