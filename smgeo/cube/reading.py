"""Opening cubes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from smgeo.cube.schema import is_grid
from smgeo.cube.shards import open_array, read_region
from smgeo.errors import SmgeoError


def open_cube(path: str | Path) -> xr.Dataset:
    """Open a cube lazily, with its CRS.

    Returns
    -------
    xarray.Dataset
        Lazy (Dask, one chunk per inner Zarr chunk); `spatial_ref` is a coordinate of grid cubes.

    Raises
    ------
    SmgeoError
        If there is no Zarr store at `path`, or it is not a cube.
    """
    path = Path(path)
    if not (path / "zarr.json").is_file():
        raise SmgeoError(f"{path} is not a Zarr v3 store (no zarr.json in it); give the folder that write_cube wrote")
    ds = xr.open_zarr(path, consolidated=False, chunks={}, decode_coords="all")
    is_grid(ds)
    return ds


def read_directly(ds: xr.Dataset) -> xr.Dataset:
    """A cube whose variables, as far as they are those of its store, are read from there without Dask, by the thread that asks.

    Parameters
    ----------
    ds : xarray.Dataset
        A cube, opened by `open_cube`, or anything else, which is given back as it is.

    Returns
    -------
    xarray.Dataset
        The same values, still lazy. Variables that were changed since the store was opened keep their Dask graph.
    """
    source = ds.encoding.get("source")
    if source is None or not (Path(source) / "zarr.json").is_file():
        return ds
    stored = open_cube(source)
    found = {}
    for name, variable in ds.data_vars.items():
        known = stored.get(str(name))
        # Dask names an array by what it is made of: the same name, the same values.
        if known is None or not known.chunks or getattr(variable.data, "name", None) != known.data.name:
            continue
        # Not of what CF decodes: numbers that stand for missing ones, or are packed.
        packed = {"missing_value", "scale_factor", "add_offset"} & set(known.encoding)
        fill = known.encoding.get("_FillValue", np.nan)
        if variable.dtype == _StoredArray(source, str(name)).dtype and not packed and fill != fill:
            data = indexing.LazilyIndexedArray(_StoredArray(source, str(name)))
            found[name] = xr.Variable(variable.dims, data, variable.attrs, variable.encoding)
    return ds.assign(found)


class _StoredArray(BackendArray):
    """A variable of a store, read where it is asked for; small to send."""

    def __init__(self, store: str, name: str) -> None:
        self.store, self.name = store, name
        array = open_array(Path(store) / name)
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        wanted = [
            range(n)[k] if isinstance(k, slice) else range(k, k + 1) for k, n in zip(key, self.shape, strict=True)
        ]
        if not all(len(r) for r in wanted):
            return np.empty([len(r) for r, k in zip(wanted, key, strict=True) if isinstance(k, slice)], self.dtype)
        spans = tuple(slice(min(r), max(r) + 1) for r in wanted)
        folder = Path(self.store) / self.name
        values = read_region(open_array(folder), spans, folder)
        steps = tuple(
            slice(None, None, r.step) if isinstance(k, slice) else 0 for r, k in zip(wanted, key, strict=True)
        )
        return values[steps]
