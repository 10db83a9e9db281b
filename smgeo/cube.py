"""What a store is: the schema of station and grid cubes, their CF and CRS attributes, opening, and writing.

A station cube has dims `(station, time)`, a grid cube `(time, y, x)`; both hold the same variable names in the
same units, so that a model trained on one predicts on the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import is_dask_collection, tokenize
from xarray.backends import BackendArray
from xarray.core import indexing

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError, nearest
from smgeo.files import check_replaceable, only_writer
from smgeo.regions import Progress, Region, find_damage, jobs_of, plan_regions, read_ledger
from smgeo.shards import open_array, read_region
from smgeo.store import shards_of, write_store

STATION_DIMS = ("station", "time")
GRID_DIMS = ("time", "y", "x")
GRID_SHARD = {"time": 30, "y": 256, "x": 256}
GRID_CHUNK = {"time": 30, "y": 128, "x": 128}
STATIONS_PER_CHUNK = 256
# A coordinate on `time` that sources give beside their values: the digest of what each day is read from. It goes into
# the ledger, not into the store: when a later run finds other scenes, the regions of their days alone are written again.
DAY_INPUTS = "day_inputs"
# Days before its own that a region depends on.
_LOOKS_BACK = max(feature.looks_back_days for feature in FEATURES.values())


def is_grid(ds: xr.Dataset) -> bool:
    """Whether `ds` is a grid cube; a station cube otherwise.

    Raises
    ------
    SmgeoError
        If it is neither.
    """
    if {"y", "x"} <= set(ds.dims):
        return True
    if "station" in ds.dims:
        return False
    raise SmgeoError(f"a cube has dims {STATION_DIMS} or {GRID_DIMS}; found {tuple(ds.dims)}")


def text_of(variable: xr.DataArray) -> np.ndarray:
    """Strings of a coordinate as an object array; Zarr gives them back as NumPy's variable-length strings."""
    return np.array([str(v) for v in variable.values], dtype=object)


def variables_of_kind(ds: xr.Dataset, *kinds: str) -> list[str]:
    """Names of the variables whose `kind` attribute is one of `kinds`; by dims where the attribute is missing."""
    return [str(n) for n, v in ds.data_vars.items() if kind_of(v) in kinds]


def kind_of(variable: xr.DataArray) -> str:
    """`kind` of a variable: its attribute, what the catalogue says of its name, or "flag" if no number, or what its dims say."""
    if "kind" in variable.attrs:
        return str(variable.attrs["kind"])
    if variable.name in FEATURES:
        return FEATURES[str(variable.name)].kind
    # Text, dates and masks are no numbers to prepare.
    if variable.dtype.kind not in "fiu":
        return "flag"
    if variable.dims == ("time",):
        return "calendar"
    return "dynamic" if "time" in variable.dims else "static"


def station_positions(ds: xr.Dataset, stations: Iterable[str]) -> list[int]:
    """Where the given ids lie along `station`; compared as text, so that ids which are whole numbers are found too.

    Raises
    ------
    SmgeoError
        If the cube lacks one of them.
    """
    ids, known = [str(s) for s in stations], {str(s): i for i, s in enumerate(ds["station"].values)}
    if unknown := [s for s in ids if s not in known]:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise SmgeoError(
            f"the cube has no station {', '.join(map(repr, unknown[:5]))}{more}; {nearest(unknown[0], list(known))}"
        )
    return [known[s] for s in ids]


def select_stations(ds: xr.Dataset, stations: Iterable[str]) -> xr.Dataset:
    """The given stations of a station cube, in the order given.

    Raises
    ------
    SmgeoError
        If the cube lacks one of them.
    """
    return ds.isel(station=station_positions(ds, stations))


def check_daily(ds: xr.Dataset) -> pd.DatetimeIndex:
    """The time axis, which must be daily and without gaps.

    Raises
    ------
    SmgeoError
        Naming the first place where it is not.
    """
    if "time" not in ds.coords:
        raise SmgeoError(f"a cube needs a daily time coordinate; found coordinates {sorted(map(str, ds.coords))}")
    times = pd.DatetimeIndex(ds.indexes["time"])
    steps = np.diff(times.values.astype("datetime64[ns]"))
    bad = np.flatnonzero(steps != np.timedelta64(1, "D"))
    if bad.size:
        i = int(bad[0])
        raise SmgeoError(
            f"time must be daily without gaps; {times[i]} is followed by {times[i + 1]}. Use ds.resample(time='1D')"
        )
    return times


def check_units(have: Mapping[str, str], need: Mapping[str, str], where: str) -> None:
    """Refuse variables whose unit differs from the one needed.

    Raises
    ------
    SmgeoError
        Naming every such variable with both units, or every variable that is missing.
    """
    missing = [n for n in need if n not in have]
    if missing:
        raise SmgeoError(f"{where} lacks {', '.join(missing)}; it has {', '.join(sorted(have)) or 'nothing'}")
    wrong = [f"{n} is in {have[n]!r}, needed in {need[n]!r}" for n in need if have[n] != need[n]]
    if wrong:
        raise SmgeoError(
            f"units in {where} do not match: {'; '.join(wrong)}. Convert the values and set attrs['units']"
        )


def check_numbers(ds: xr.Dataset, names: Iterable[str], where: str) -> None:
    """Refuse variables that hold no numbers.

    Raises
    ------
    SmgeoError
        Naming every such variable and what it holds.
    """
    if wrong := [f"{n} ({ds[n].dtype})" for n in names if ds[n].dtype.kind not in "fiub"]:
        raise SmgeoError(
            f"{where}: needed are numbers, found {', '.join(wrong)}; set attrs['kind'] to 'flag' for what is to be carried along, "
            "or encode it as numbers"
        )


def crs_encoding(variable: xr.DataArray) -> dict[str, str]:
    """Of an opened variable's encoding the name of its grid mapping alone: the rest is of values as they were stored."""
    return {k: v for k, v in variable.encoding.items() if k == "grid_mapping"}


def check_known_units(have: Mapping[str, str], need: Mapping[str, str], where: str) -> None:
    """`check_units` of the variables that both name, and of which both say a unit."""
    both = [n for n in need if need[n] and have.get(n)]
    check_units({n: have[n] for n in both}, {n: need[n] for n in both}, where)


def units_of(ds: xr.Dataset, names: Iterable[str]) -> dict[str, str]:
    """Physical unit of each variable in `names` that `ds` has (of a scaled one, the unit before scaling)."""
    return {n: str(ds[n].attrs.get("unscaled_units", ds[n].attrs.get("units", ""))) for n in names if n in ds}


def plan_chunks(ds: xr.Dataset, chunks: Mapping[str, int] | None = None) -> dict[str, dict[str, tuple[int, ...]]]:
    """Zarr chunks and shards of each variable of a cube.

    Parameters
    ----------
    ds : xarray.Dataset
        A station cube or a grid cube.
    chunks : mapping, optional
        Chunk sizes of a station cube by dim, -1 for all of it; by default 256 stations and whole series.

    Returns
    -------
    dict
        Variable -> `{"chunks": ..., "shards": ...}`; no shards where one chunk is enough. Where a dimension is
        no longer than the inner chunk, chunk and shard both take it whole.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> ds = xr.Dataset({"sm": (("time", "y", "x"), np.zeros((45, 300, 100), "float32"))})
    >>> plan_chunks(ds)["sm"]
    {'chunks': (30, 128, 100), 'shards': (30, 256, 100)}
    """
    plan: dict[str, dict[str, tuple[int, ...]]] = {}
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
    """The largest Dask chunk along each dim; nothing of dims that no lazy variable has."""
    sizes: dict[str, int] = {}
    for variable in ds.data_vars.values():
        for dim, parts in zip(variable.dims, variable.chunks or (), strict=False):
            sizes[str(dim)] = max(sizes.get(str(dim), 0), *parts)
    return sizes


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
    """Write a cube to a Zarr v3 store region by region; beside it first, renamed when complete.

    A region is one shard of every variable that shares its dims. An interrupted write goes on with the regions that
    are not done; of a finished store, the regions that are damaged, missing or made from something else are written again.

    Parameters
    ----------
    ds : xarray.Dataset
        A station cube or a grid cube; lazy variables are computed region by region, on the active Dask client's workers or
        on threads, so peak memory is bounded by the number of workers times a shard of every variable. A coordinate
        `day_inputs` on `time` (see `DAY_INPUTS`), as the sources of rasters give it, says what each day is made from.
    path : str or Path
        The store. An old one is replaced only when the new one is complete.
    resume : bool
        Keep what an interrupted or earlier write of the same data finished; False starts again.
    append : bool
        `ds` holds later days of the cube at `path` (or all its days and later ones): its complete regions stay as they are.
    chunks : mapping, optional
        Chunk sizes of a station cube by dim, -1 for all of it; by default 256 stations and whole series.
    token : str, optional
        What the values depend on where no `day_inputs` says it; by default Dask's token of them.
    progress : callable, optional
        Called with (regions done, regions in all).

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    SmgeoError
        If `path` exists and is no Zarr store, `ds` is empty, the disk is full, another process is writing it, or the days do not
        continue those of the store: others of its dims, variables or units, a gap, or a store that is damaged.
    """
    path = Path(path)
    check_replaceable(path, "zarr.json")
    if empty := [str(d) for d, n in ds.sizes.items() if n == 0]:
        raise SmgeoError(
            f"{path}: the cube to write is empty along {', '.join(empty)}; nothing is left of what was chosen"
        )
    kept = 0
    if append and path.exists():
        ds, kept = _continue_cube(ds, path)
    days = [str(v) for v in ds[DAY_INPUTS].values] if DAY_INPUTS in ds.coords else None
    ds = _without_encoding(ds.drop_vars(DAY_INPUTS, errors="ignore"))
    plan = plan_chunks(ds, chunks)
    # Regions hold plain numbers; what CF has to encode (text, dates) is small, and xarray writes it.
    names = [n for n in plan if ds[n].dtype.kind in "fiub"]
    ds = ds.assign({n: v.compute() for n, v in ds.variables.items() if n not in names and is_dask_collection(v)})
    shards = shards_of(plan, names)
    regions = plan_regions({n: tuple(map(str, ds[n].dims)) for n in names}, {n: ds[n].shape for n in names}, shards)
    inputs = _inputs_of_regions(ds, regions, days, token)
    jobs = jobs_of({n: _as_shards(ds[n].data, shards[n]) for n in names})
    # Of an append the digests differ, as the days are not read from the same place; its old regions are as they were.
    old = {r.name for r in regions if _lies_before(r, kept)} if kept else None
    with only_writer(path):
        return write_store(ds, plan, regions, inputs, jobs, path, resume=resume, old=old, progress=progress)


def _without_encoding(ds: xr.Dataset) -> xr.Dataset:
    """A copy whose variables say nothing of how they were stored before."""
    out = ds.copy()
    for name in list(out.variables):
        var = out.variables[name]
        # An opened variable keeps the name of its grid mapping in its encoding, where rioxarray puts it too.
        mapping = var.encoding.get("grid_mapping")
        var.encoding = {}
        if var.dtype.kind == "U":  # text of variable length: Zarr v3 has no stable form of the other
            out[name] = out[name].astype(object)
            var = out.variables[name]
        if mapping is not None:
            var.attrs = {**var.attrs, "grid_mapping": mapping}
    return out


def _as_shards(values: Any, shard: tuple[int, ...]) -> Any:
    """Dask chunks that differ from the shards would make two tasks write one shard (dask#12583)."""
    return values.rechunk(shard) if isinstance(values, da.Array) else values


def _inputs_of_regions(
    ds: xr.Dataset, regions: Iterable[Region], days: list[str] | None, token: str | None
) -> dict[str, str]:
    """Digest of what each region is made from: its days where it has some and they are known, the values' token else."""
    places = {str(n): tokenize(c.values) for n, c in ds.coords.items() if "time" not in c.dims}
    values = {str(n): tokenize(v.data) for n, v in ds.data_vars.items()} if token is None or days is not None else {}
    out = {}
    for region in regions:
        first = [str(ds["time"].values[0])] if "time" in region.dims else []
        if days is not None and "time" in region.dims:
            span = region.slices[region.dims.index("time")]
            made_from: Any = days[max(0, span.start - _LOOKS_BACK) : span.stop]
        else:
            made_from = token if token is not None and days is None else [values[n] for n in region.variables]
        extent = [(s.start, s.stop) for s in region.slices]
        out[region.name] = str(tokenize(version("smgeo"), places, first, extent, region.variables, made_from))
    return out


def _continue_cube(ds: xr.Dataset, path: Path) -> tuple[xr.Dataset, int]:
    """`ds` with the days of the store before it, and how many days the store has."""
    old = open_cube(path)
    days, new = check_daily(old), check_daily(ds)
    for name, index in old.indexes.items():
        if name != "time" and not index.equals(ds.indexes.get(name)):
            raise SmgeoError(f"append: {name} of the new days is not that of {path}; write another cube")
    if set(old.data_vars) != set(ds.data_vars):
        raise SmgeoError(
            f"append: {path} holds {', '.join(sorted(map(str, old.data_vars)))}; the new days hold {', '.join(sorted(map(str, ds.data_vars)))}"
        )
    check_units(units_of(ds, map(str, ds.data_vars)), units_of(old, map(str, old.data_vars)), "append: the new days")
    if new[0] == days[0] and len(new) >= len(days):
        return ds, len(days)
    if new[0] != days[-1] + pd.Timedelta(1, "D"):
        raise SmgeoError(
            f"append: {path} ends on {days[-1].date()}, the new days begin on {new[0].date()}; they must follow, or begin on "
            f"{days[0].date()} too and hold all days until then"
        )
    if damage := find_damage(path) if read_ledger(path) is not None else {}:
        raise SmgeoError(
            f"append: {path} is damaged ({', '.join(list(damage)[:3])}), and its days can't be read again from the new days "
            "alone; append all days, or write the cube again"
        )
    moving = [n for n, v in ds.data_vars.items() if "time" in v.dims]
    together = xr.concat([old[moving], ds[moving]], dim="time", combine_attrs="override", join="exact")
    return old.drop_dims("time").assign_coords(time=together["time"]).merge(together).assign_attrs(old.attrs), len(days)


def _lies_before(region: Region, days: int) -> bool:
    """Whether a region holds no day after the first `days`."""
    return all(d != "time" or s.stop <= days for d, s in zip(region.dims, region.slices, strict=True))


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
