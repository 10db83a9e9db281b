"""Chunks and shards of a cube's store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

import xarray as xr
from zarr.codecs import Crc32cCodec, ZstdCodec

from smgeo.cube.schema import is_grid

GRID_SHARD = {"time": 30, "y": 256, "x": 256}
GRID_CHUNK = {"time": 30, "y": 128, "x": 128}
STATIONS_PER_CHUNK = 256
# Codecs of every chunk: zarr's default, then a checksum of what it gives, so that no damaged byte becomes a number.
CODECS = (ZstdCodec(level=0), Crc32cCodec())


class Encoding(TypedDict):
    """Zarr encoding of a variable; without `shards` each chunk is a file."""

    chunks: tuple[int, ...]
    shards: NotRequired[tuple[int, ...]]
    _FillValue: NotRequired[object]


def plan_chunks(ds: xr.Dataset, chunks: Mapping[str, int] | None = None) -> dict[str, Encoding]:
    """Return the Zarr chunks and shards of each variable of a cube.

    Parameters
    ----------
    ds : xarray.Dataset
        A station cube or a grid cube.
    chunks : mapping, optional
        Chunk sizes of a station cube by dim, -1 for the whole dim; by default 256 stations and whole series.

    Returns
    -------
    dict
        Variable -> `{"chunks": ..., "shards": ...}`, without shards if one chunk is enough. If a dimension is
        no longer than the inner chunk, chunk and shard both contain all of it.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> ds = xr.Dataset({"sm": (("time", "y", "x"), np.zeros((45, 300, 100), "float32"))})
    >>> plan_chunks(ds)["sm"]
    {'chunks': (30, 128, 100), 'shards': (30, 256, 100)}
    """
    plan: dict[str, Encoding] = {}
    grid = is_grid(ds)
    for name, var in ds.data_vars.items():
        if not var.dims:
            continue
        if not grid:
            wanted = {"station": STATIONS_PER_CHUNK, "time": ds.sizes.get("time", 1), **(chunks or {})}
            lengths = {d: ds.sizes.get(d, 1) for d in wanted}
            sizes = {d: lengths[d] if n == -1 else max(1, min(n, lengths[d])) for d, n in wanted.items()}
            plan[str(name)] = {"chunks": tuple(sizes[str(d)] for d in var.dims)}
            continue
        chunk = tuple(min(GRID_CHUNK[str(d)], var.sizes[d]) for d in var.dims)
        shard = tuple(
            c if var.sizes[d] <= GRID_CHUNK[str(d)] else GRID_SHARD[str(d)]
            for c, d in zip(chunk, var.dims, strict=True)
        )
        plan[str(name)] = {"chunks": chunk, "shards": shard} if shard != chunk else {"chunks": chunk}
    return plan


def chunk_sizes(ds: xr.Dataset) -> dict[str, int]:
    """Return the largest Dask chunk along each dim; without the dims that no lazy variable has."""
    sizes: dict[str, int] = {}
    for variable in ds.data_vars.values():
        for dim, parts in zip(variable.dims, variable.chunks or (), strict=False):
            sizes[str(dim)] = max(sizes.get(str(dim), 0), *parts)
    return sizes
