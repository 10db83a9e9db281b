"""Coarser copies of a map inside its store, for viewers: Zarr's convention `multiscales`."""

from __future__ import annotations

import shutil
from pathlib import Path

import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from smgeo.cube.chunks import CODECS
from smgeo.cube.store import shards_of
from smgeo.files import JsonObject
from smgeo.maps.layout import CONVENTIONS, geozarr_attrs, plan_map, write_place
from smgeo.maps.summary import DAILY

_LARGEST = 256
# Attributes of the map's own pixels, or of flags that are no longer 0 or 1.
_OF_THE_WHOLE = ("nodata_share", "impossible_share", DAILY, "share_inside", "flag_values")
_CONVENTION = {
    "uuid": "d35379db-88df-4056-af3a-620245f8e347",
    "name": "multiscales",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v1/README.md",
    "description": "Multiscale layout of zarr datasets",
}


def write_overviews(store: Path) -> None:
    """Add groups `2`, `4`, `8`, ... to a map store: its variables with pixels 2, 4, 8, ... times as wide.

    Each pixel is the mean of the values of 2 x 2 pixels of the level before. For a flag (`kind` "flag") it is the
    share of them whose flag is 1, float32. The coarsest level fits into 256 x 256 pixels. The store's attribute `multiscales`
    lists all groups; each opens in xarray with its own coordinates (`xarray.open_zarr(store, group="4")`).
    """
    ds = _open(store)
    names = [str(n) for n in ds.data_vars if ds[n].dims == ("time", "y", "x")]
    levels: list[JsonObject] = [{"asset": name, "transform": {"scale": [1.0, 1.0, 1.0]}} for name in names]
    before, factor = "", 1
    while max(ds.sizes["y"], ds.sizes["x"]) > _LARGEST:
        factor *= 2
        coarse = _halve(ds[names])
        plan = plan_map(coarse)
        coarse = coarse.chunk(dict(zip(("time", "y", "x"), shards_of(plan, names)[names[0]], strict=True)))
        encoding = {n: {"compressors": CODECS, **plan.get(str(n), {})} for n in coarse.variables}
        coarse.to_zarr(store, group=str(factor), zarr_format=3, consolidated=False, encoding=encoding)
        levels += [
            {
                "asset": f"{factor}/{name}",
                "derived_from": f"{before}{name}",
                "transform": {"scale": [1.0, 2.0, 2.0], "translation": [0.0, 0.5, 0.5]},
            }
            for name in names
        ]
        before, ds = f"{factor}/", _open(store, str(factor))
    scales: JsonObject = {"layout": levels, "resampling_method": "average"}
    zarr.open_group(store, mode="r+").attrs.update(zarr_conventions=[*CONVENTIONS, _CONVENTION], multiscales=scales)


def remove_overviews(store: Path) -> None:
    """Remove the groups that a killed `write_overviews` left."""
    for group in store.iterdir():
        if group.name.isdigit():
            shutil.rmtree(group)


def _open(store: Path, group: str | None = None) -> xr.Dataset:
    ds: xr.Dataset = xr.open_zarr(store, group=group, consolidated=False, chunks={}, decode_coords="all")
    return ds


def _halve(ds: xr.Dataset) -> xr.Dataset:
    """Return the same area in pixels twice as wide; if their number is odd, the last ones reach beyond it."""
    coarse = ds.drop_vars("spatial_ref").coarsen(y=2, x=2, boundary="pad").mean(keep_attrs=True)
    box = ds.odc.geobox
    wide = GeoBox((coarse.sizes["y"], coarse.sizes["x"]), box.affine * Affine.scale(2), box.crs)
    coarse = write_place(coarse.assign_coords(xr_coords(wide, dims=("y", "x"))), wide).drop_encoding()
    coarse.attrs = geozarr_attrs(wide)
    for variable in coarse.data_vars.values():
        variable.attrs = {k: v for k, v in variable.attrs.items() if k not in _OF_THE_WHOLE} | {
            "grid_mapping": "spatial_ref"
        }
    return coarse
