"""What a store is: the schema of station and grid cubes, their CF and CRS attributes, opening, and writing.

A station cube has dims `(station, time)`, a grid cube `(time, y, x)`; both hold the same variable names in the
same units, so that a model trained on one predicts on the other.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.callbacks import Callback

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError

STATION_DIMS = ("station", "time")
GRID_DIMS = ("time", "y", "x")
GRID_SHARD = {"time": 30, "y": 256, "x": 256}
GRID_CHUNK = {"time": 30, "y": 128, "x": 128}
STATIONS_PER_CHUNK = 256

Progress = Callable[[int, int], None]


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
    """`kind` of a variable: its attribute, or what its dims say."""
    if "kind" in variable.attrs:
        return str(variable.attrs["kind"])
    if variable.name in FEATURES:
        return FEATURES[str(variable.name)].kind
    if variable.dims == ("time",):
        return "calendar"
    return "dynamic" if "time" in variable.dims else "static"


def select_stations(ds: xr.Dataset, stations: Iterable[str]) -> xr.Dataset:
    """The given stations of a station cube; a revisit given for each station goes with its station."""
    ids = list(stations)
    out = ds.sel(station=ids)
    at = ds.indexes["station"].get_indexer(pd.Index(ids))
    for name, variable in out.data_vars.items():
        days = variable.attrs.get("revisit_days")
        if isinstance(days, list | np.ndarray) and len(days) == ds.sizes["station"]:
            out[name].attrs["revisit_days"] = [days[i] for i in at]
    return out


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


def units_of(ds: xr.Dataset, names: Iterable[str]) -> dict[str, str]:
    """Physical unit of each variable in `names` that `ds` has (of a scaled one, the unit before scaling)."""
    return {n: str(ds[n].attrs.get("unscaled_units", ds[n].attrs.get("units", ""))) for n in names if n in ds}


def plan_chunks(ds: xr.Dataset) -> dict[str, dict[str, tuple[int, ...]]]:
    """Zarr chunks and shards of each variable of a cube.

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
            sizes = {"station": min(STATIONS_PER_CHUNK, ds.sizes["station"]), "time": ds.sizes.get("time", 1)}
            plan[str(name)] = {"chunks": tuple(sizes[str(d)] for d in var.dims)}
            continue
        chunk = tuple(min(GRID_CHUNK[str(d)], var.sizes[d]) for d in var.dims)
        shard = tuple(
            c if var.sizes[d] <= GRID_CHUNK[str(d)] else GRID_SHARD[str(d)]
            for c, d in zip(chunk, var.dims, strict=True)
        )
        plan[str(name)] = {"chunks": chunk, "shards": shard} if shard != chunk else {"chunks": chunk}
    return plan


class _TaskProgress(Callback):
    """Calls `progress(done, total)` as Dask's local schedulers finish tasks."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        super().__init__(start_state=self._on_start, posttask=self._on_task)

    def _on_start(self, dsk: Any, state: Any) -> None:
        self._total = sum(len(state[k]) for k in ("ready", "waiting", "running", "finished"))

    def _on_task(self, key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
        self._progress(len(state["finished"]), self._total)


def write_cube(ds: xr.Dataset, path: str | Path, resume: bool = True, *, progress: Progress | None = None) -> Path:
    """Write a cube to a Zarr v3 store, one Dask chunk per shard; beside it first, renamed when complete.

    Parameters
    ----------
    ds : xarray.Dataset
        A station cube or a grid cube; lazy variables are computed chunk by chunk, so peak memory is bounded by
        the number of threads times a shard of every variable, not by the cube.
    path : str or Path
        The store. An old one is replaced only when the new one is complete.
    resume : bool
        Reserved for continuing an interrupted write; today an interrupted write starts again.
    progress : callable, optional
        Called with (tasks done, tasks in all).

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    SmgeoError
        If `path` exists and is no Zarr store.
    """
    path = Path(path)
    check_replaceable(path, "zarr.json")
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    plan = plan_chunks(ds)
    out = ds.copy()
    encoding: dict[str, dict[str, Any]] = {}
    for name in list(out.variables):
        var = out.variables[name]
        # An opened variable keeps the name of its grid mapping in its encoding, where rioxarray puts it too.
        mapping = var.encoding.get("grid_mapping")
        var.encoding = {}
        if mapping is not None:
            var.attrs = {**var.attrs, "grid_mapping": mapping}
        if name in plan:
            encoding[str(name)] = dict(plan[str(name)])
            # Dask chunks that differ from the shards would make two tasks write one shard (dask#12583).
            blocks = dict(zip(var.dims, plan[str(name)].get("shards", plan[str(name)]["chunks"]), strict=True))
            if var.chunks is not None:
                out[name] = out[name].chunk({str(d): n for d, n in blocks.items()})
    job = out.to_zarr(part, mode="w", zarr_format=3, consolidated=False, encoding=encoding, compute=False)
    if progress is None:
        job.compute()
    else:
        with _TaskProgress(progress):
            job.compute()
    replace_folder(part, path)
    return path


def check_replaceable(path: Path, marker: str) -> None:
    """Refuse to write over a folder that is not of the kind to be written.

    Raises
    ------
    SmgeoError
        If `path` is a file, or a folder with something in it but no file `marker`.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / marker).is_file()):
        raise SmgeoError(
            f"{path} exists and is not what would replace it (no {marker} in it); give another path, or remove it"
        )


def replace_folder(part: Path, path: Path, marker: str = "zarr.json") -> None:
    """Put the complete folder `part` in the place of `path`, which may exist as a folder of the same kind."""
    check_replaceable(path, marker)
    old = path.with_name(path.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    os.replace(part, path)
    shutil.rmtree(old, ignore_errors=True)


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
