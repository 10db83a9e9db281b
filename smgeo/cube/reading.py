"""Opening cubes: lazily with Dask, or lazily without it, each part read by the thread that asks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from dask.base import tokenize
from xarray.backends import BackendArray
from xarray.core import indexing

from smgeo.cube.schema import is_grid
from smgeo.cube.shards import open_array, read_region
from smgeo.errors import SmgeoError


def open_cube(path: str | Path, *, dask: bool = True) -> xr.Dataset:
    """Open a cube lazily, with its CRS.

    Parameters
    ----------
    path : str or Path
        The folder that `write_cube` wrote.
    dask : bool
        Give Dask arrays, one chunk per inner Zarr chunk. Without, indexing stays lazy and the values of a part are read, without a copy,
        by the thread that asks for them; for work on blocks such as `predict_map`. Arithmetic then reads whole variables.

    Returns
    -------
    xarray.Dataset
        `spatial_ref` is a coordinate of grid cubes.

    Raises
    ------
    SmgeoError
        If there is no Zarr store at `path`, or it is not a cube.
    """
    path = Path(path)
    if not (path / "zarr.json").is_file():
        raise SmgeoError(f"{path} is not a Zarr v3 store (no zarr.json in it); give the folder that write_cube wrote")
    ds: xr.Dataset = xr.open_zarr(path, consolidated=False, chunks={} if dask else None, decode_coords="all")
    is_grid(ds)
    store, found = str(ds.encoding["source"]), {}
    for name, variable in ds.data_vars.items():
        if _is_plain(variable):
            array = _StoredArray(store, str(name), variable.shape, variable.dtype)
            data = indexing.LazilyIndexedArray(array)
            stored = xr.Variable(variable.dims, data, variable.attrs, variable.encoding)
            sizes = variable.encoding["preferred_chunks"]
            found[name] = stored.chunk(sizes, name=array.dask_name, inline_array=True) if dask else stored
    return ds.assign(found)


def without_dask(ds: xr.Dataset) -> xr.Dataset:
    """Return a cube whose variables are read from its store as by `open_cube(dask=False)`, where they are still those of the store.

    Variables that were changed since `open_cube`, and cubes that come from elsewhere, stay as they are.
    """
    source = ds.encoding.get("source")
    if source is None or not (Path(source) / "zarr.json").is_file():
        return ds
    names = {str(n): v.data.name for n, v in ds.data_vars.items() if v.chunks}
    # Dask names an array by what it is made of: with the same name it has the same values.
    same = [
        n
        for n, v in ds.data_vars.items()
        if names.get(str(n)) == _StoredArray(source, str(n), v.shape, v.dtype).dask_name
    ]
    return ds.assign({n: v.variable for n, v in open_cube(source, dask=False)[same].data_vars.items()})


def _is_plain(variable: xr.DataArray) -> bool:
    """Return True if the stored numbers are the values: nothing is packed, and no number but NaN stands for a missing one."""
    encoding = variable.encoding
    fill = encoding.get("_FillValue", np.nan)
    packed = {"missing_value", "scale_factor", "add_offset"} & set(encoding)
    stored = encoding.get("dtype") == variable.dtype and variable.dtype.kind in "fiub"
    return bool(variable.dims) and stored and not packed and bool(fill != fill)


class _StoredArray(BackendArray):
    """A variable of a store, read where it is asked for; small to send."""

    def __init__(self, store: str, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.store, self.name, self.shape, self.dtype = store, name, shape, dtype

    @property
    def dask_name(self) -> str:
        """Name of the Dask array of all values: another one as soon as another store is put in the place of this one."""
        return f"{self.name}-{tokenize(self)}"

    def __dask_tokenize__(self) -> object:
        now = Path(self.store).stat()
        return self.store, self.name, now.st_ino, now.st_mtime_ns

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return np.asarray(
            indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)
        )

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
        return values[steps].astype(self.dtype, copy=False)  # some versions of xarray store bool as int8
