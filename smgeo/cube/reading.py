"""Opening cubes: lazily with Dask, or lazily without it, each part read by the thread that asks for it."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import xarray as xr
from dask.base import tokenize
from xarray.backends import BackendArray
from xarray.core import indexing

from smgeo.cube.damage import check_files, explain_damage, explain_unreadable, was_written
from smgeo.cube.schema import is_grid
from smgeo.cube.shards import DamagedFileError, check_present, open_array, read_region
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
        If there is no Zarr store at `path`, it is not a cube, or files that its ledger names are missing or have another size.
    """
    path = Path(path)
    check_files(path)
    return open_store(path, dask=dask)


def open_store(path: Path, *, dask: bool = True) -> xr.Dataset:
    """Open a cube as `open_cube`, without looking at its files first: one that is being written, or that was opened before."""
    if not (path / "zarr.json").is_file():
        raise SmgeoError(f"{path} is not a Zarr v3 store (no zarr.json in it); give the folder that write_cube wrote")
    ds = _open_zarr(path)
    is_grid(ds)
    store, found = str(ds.encoding["source"]), {}
    for name, variable in ds.variables.items():
        if name in ds.xindexes or not variable.dims:
            continue
        array = _StoredArray(store, str(name), variable.shape, variable.dtype, plain=_is_plain(variable))
        data = indexing.LazilyIndexedArray(array)
        stored = xr.Variable(variable.dims, data, variable.attrs, variable.encoding)
        sizes = variable.encoding["preferred_chunks"]
        found[name] = stored.chunk(sizes, name=array.dask_name, inline_array=True) if dask else stored
    return ds.assign(found)


def _open_zarr(path: Path) -> xr.Dataset:
    """Open a store with xarray, and read its scalars and the coordinates of its dims.

    Raises
    ------
    SmgeoError
        If metadata or coordinates are damaged.
    """
    try:
        ds: xr.Dataset = xr.open_zarr(path, consolidated=False, chunks=None, decode_coords="all")
        for variable in ds.variables.values():
            if not variable.dims:
                variable.load()
    # Whatever zarr, xarray and their codecs raise for damaged metadata or coordinates.
    except Exception as error:
        raise explain_unreadable(path, error) from None
    return ds


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
    return ds.assign({n: v.variable for n, v in open_store(Path(source), dask=False)[same].data_vars.items()})


def _is_plain(variable: xr.Variable) -> bool:
    """Return True if the stored numbers are the values: nothing is packed, and no number but NaN stands for a missing one."""
    encoding = variable.encoding
    fill = encoding.get("_FillValue", np.nan)
    packed = {"missing_value", "scale_factor", "add_offset"} & set(encoding)
    stored = encoding.get("dtype") == variable.dtype and variable.dtype.kind in "fiub"
    return stored and not packed and bool(fill != fill)


class _StoredArray(BackendArray):
    """A variable of a store, read where it is asked for; small to send. xarray decodes it if its stored numbers are not `plain` values."""

    def __init__(self, store: str, name: str, shape: tuple[int, ...], dtype: np.dtype, *, plain: bool = True) -> None:
        self.store, self.name, self.shape, self.dtype, self.plain = store, name, shape, dtype, plain

    @property
    def dask_name(self) -> str:
        """Name of the Dask array of all values: another one as soon as another store is put in the place of this one."""
        return f"{self.name}-{tokenize(self)}"

    def __dask_tokenize__(self) -> object:
        return self.store, self.name, *_version_of(self.store)

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
        values = self._read_spans(spans) if self.plain else self._decode_spans(spans)
        steps = tuple(
            slice(None, None, r.step) if isinstance(k, slice) else 0 for r, k in zip(wanted, key, strict=True)
        )
        return values[steps].astype(self.dtype, copy=False)  # some versions of xarray store bool as int8

    def _read_spans(self, spans: tuple[slice, ...]) -> np.ndarray:
        store, folder = Path(self.store), Path(self.store) / self.name
        try:
            return read_region(open_array(folder), spans, folder, partial(was_written, store=store))
        except DamagedFileError as error:
            raise explain_damage(store, error) from None

    def _decode_spans(self, spans: tuple[slice, ...]) -> np.ndarray:
        store, folder = Path(self.store), Path(self.store) / self.name
        try:
            check_present(open_array(folder), spans, folder, partial(was_written, store=store))
            return np.asarray(_decoded(self.store, _version_of(self.store)).variables[self.name][spans].values)
        except DamagedFileError as error:
            raise explain_damage(store, error) from None
        except (ValueError, RuntimeError) as error:
            self._read_spans(spans)  # which names the file, if it is damaged
            raise explain_damage(store, DamagedFileError(folder, str(error), spans)) from None


def _version_of(store: str) -> tuple[int, int]:
    """Return numbers that are others as soon as another store is put in the place of this one."""
    now = Path(store).stat()
    return now.st_ino, now.st_mtime_ns


@lru_cache(maxsize=16)
def _decoded(store: str, version: tuple[int, int]) -> xr.Dataset:
    return _open_zarr(Path(store))
