"""Writing cubes, and appending days to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import is_dask_collection, tokenize

from smgeo.bounds import Bound, check_number, checked
from smgeo.catalog import FEATURES
from smgeo.cube.chunks import plan_chunks
from smgeo.cube.executor import jobs_of
from smgeo.cube.ledger import MARKERS, find_damage, read_ledger
from smgeo.cube.reading import open_store
from smgeo.cube.regions import Progress, Region
from smgeo.cube.schema import DAY_INPUTS, check_daily, check_units, units_of
from smgeo.cube.store import StorePlan, regions_of, shards_of, write_store
from smgeo.errors import SmgeoError
from smgeo.files import check_replaceable, only_writer

# Days before its own that a region depends on.
_LOOKS_BACK = max(feature.looks_back_days for feature in FEATURES.values())


@checked
def write_cube(
    ds: xr.Dataset,
    path: str | Path,
    resume: bool = True,
    *,
    append: bool = False,
    chunks: Mapping[str, int] | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a cube to a Zarr v3 store region by region, beside its place first, and rename it when it is complete.

    A region is one shard of every variable that shares its dims. An interrupted write continues with the regions that
    are not done. In a finished store, the regions that are damaged, missing or made from other data are written again.

    Parameters
    ----------
    ds : xarray.Dataset
        A station cube or a grid cube. Lazy variables are computed region by region, on the active Dask client's workers or
        on threads, so peak memory is bounded by the number of workers times a shard of every variable. A coordinate
        `day_inputs` on `time` (see `DAY_INPUTS`), as the sources of rasters give it, identifies what each day is made from.
    path : str or Path
        The store. An old one is replaced only when the new one is complete.
    resume : bool
        Keep what an interrupted or earlier write of the same data finished; False starts from scratch.
    append : bool
        `ds` contains later days of the cube at `path` (or all its days and later ones); complete regions of the store stay as they are.
    chunks : mapping, optional
        Chunk sizes of a station cube by dim, -1 for the whole dim; by default 256 stations and whole series.
    token : str, optional
        Identifies the values if there are no `day_inputs`; by default Dask's token of them.
    progress : callable, optional
        Called with (regions done, regions in all).

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    SmgeoError
        If `path` exists and is not a Zarr store, `ds` is empty, the disk is full, another process is writing the store, or the days to
        append do not continue the store: other dims, variables or units, a gap, or a damaged store.
    """
    for dim, length in (chunks or {}).items():
        if length != -1 or isinstance(length, float):
            check_number("write_cube", f"chunks[{dim!r}]", length, Bound(1, 2**31 - 1))
    path = Path(path)
    check_replaceable(path, *MARKERS)
    if empty := [str(d) for d, n in ds.sizes.items() if n == 0]:
        raise SmgeoError(
            f"{path}: the cube to write is empty along {', '.join(empty)}; the selection matches nothing, so widen it"
        )
    kept = 0
    if append and path.exists():
        ds, kept = _continue_cube(ds, path)
    days = [str(v) for v in ds[DAY_INPUTS].values] if DAY_INPUTS in ds.coords else None
    ds = _without_encoding(ds.drop_vars(DAY_INPUTS, errors="ignore"))
    encoding = plan_chunks(ds, chunks)
    # Regions contain plain numbers; what CF has to encode (text, dates) is small, and xarray writes it.
    names = [n for n in encoding if ds[n].dtype.kind in "fiub"]
    ds = ds.assign({n: v.compute() for n, v in ds.variables.items() if n not in names and is_dask_collection(v)})
    regions = regions_of(ds, encoding, names)
    inputs = _inputs_of_regions(ds, regions, days, token)
    jobs = jobs_of({n: _as_shards(ds[n].data, shard) for n, shard in shards_of(encoding, names).items()})
    # The digests of an append differ, since its days are read from another place; its old regions are unchanged.
    old = {r.name for r in regions if _is_before(r, kept)} if kept else set()
    with only_writer(path):
        plan = StorePlan(ds, encoding, regions, inputs, jobs)
        return write_store(plan, path, resume=resume, old=old, progress=progress)


def _without_encoding(ds: xr.Dataset) -> xr.Dataset:
    """Return a copy whose variables have no encoding from an earlier store."""
    out = ds.copy()
    for name in list(out.variables):
        var = out.variables[name]
        # An opened variable keeps the name of its grid mapping in its encoding, where rioxarray puts it too.
        mapping = var.encoding.get("grid_mapping")
        var.encoding = {}
        if var.dtype.kind == "U":  # text of variable length: Zarr v3 has no stable form for fixed length
            out[name] = out[name].astype(object)
            var = out.variables[name]
        if mapping is not None:
            var.attrs = {**var.attrs, "grid_mapping": mapping}
    return out


def _as_shards(values: np.ndarray | da.Array, shard: tuple[int, ...]) -> np.ndarray | da.Array:
    """Rechunk to the shards: with other Dask chunks, two tasks would write one shard (dask#12583)."""
    return values.rechunk(shard) if isinstance(values, da.Array) else values


def _inputs_of_regions(
    ds: xr.Dataset, regions: Iterable[Region], days: list[str] | None, token: str | None
) -> dict[str, str]:
    """Return the digest of what each region is made from: its days if it has some and they are known, otherwise the values' token."""
    places = {str(n): tokenize(c.values) for n, c in ds.coords.items() if "time" not in c.dims}
    values = {str(n): tokenize(v.data) for n, v in ds.data_vars.items()} if token is None or days is not None else {}
    out = {}
    for region in regions:
        first = [str(ds["time"].values[0])] if "time" in region.dims else []
        if days is not None and "time" in region.dims:
            span = region.slices[region.dims.index("time")]
            made_from: object = days[max(0, span.start - _LOOKS_BACK) : span.stop]
        else:
            made_from = token if token is not None and days is None else [values[n] for n in region.variables]
        extent = [(s.start, s.stop) for s in region.slices]
        out[region.name] = str(tokenize(version("smgeo"), places, first, extent, region.variables, made_from))
    return out


def _continue_cube(ds: xr.Dataset, path: Path) -> tuple[xr.Dataset, int]:
    """Return `ds` with the days of the store before it, and the number of days of the store."""
    old = open_store(path)
    days, new = check_daily(old), check_daily(ds)
    for name, index in old.indexes.items():
        if name != "time" and not index.equals(ds.indexes.get(name)):
            raise SmgeoError(f"append: {name} of the new days differs from that of {path}; write another cube")
    if set(old.data_vars) != set(ds.data_vars):
        raise SmgeoError(
            f"append: {path} contains {', '.join(sorted(map(str, old.data_vars)))}, but the new days contain "
            f"{', '.join(sorted(map(str, ds.data_vars)))}; both need the same variables"
        )
    check_units(units_of(ds, map(str, ds.data_vars)), units_of(old, map(str, old.data_vars)), "append: the new days")
    if new[0] == days[0] and len(new) >= len(days):
        return ds, len(days)
    if new[0] != days[-1] + pd.Timedelta(1, "D"):
        raise SmgeoError(
            f"append: {path} ends on {days[-1].date()}, the new days begin on {new[0].date()}; they must follow, or also begin on "
            f"{days[0].date()} and contain all days until then"
        )
    if damage := find_damage(path) if read_ledger(path) is not None else {}:
        raise SmgeoError(
            f"append: {path} is damaged ({', '.join(list(damage)[:3])}), and the new days do not contain its days; "
            "append all days, or write the cube again"
        )
    moving = [n for n, v in ds.data_vars.items() if "time" in v.dims]
    together = xr.concat([old[moving], ds[moving]], dim="time", combine_attrs="override", join="exact")
    return old.drop_dims("time").assign_coords(time=together["time"]).merge(together).assign_attrs(old.attrs), len(days)


def _is_before(region: Region, days: int) -> bool:
    """Return True if a region contains no day after the first `days`."""
    return all(d != "time" or s.stop <= days for d, s in zip(region.dims, region.slices, strict=True))
