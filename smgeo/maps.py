"""Model × grid cube -> blocks -> Zarr and Cloud-Optimised GeoTIFF."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401 - registers the accessor `.odc`
import pandas as pd
import rasterio
import rasterio.shutil
import xarray as xr
import zarr
from rasterio.windows import Window

from smgeo.catalog import COORDINATES, FEATURES
from smgeo.cube import GRID_CHUNK, Progress, check_replaceable, check_units, is_grid, replace_folder, units_of
from smgeo.errors import SmgeoError
from smgeo.evaluation import target_scaler
from smgeo.prepare import derive_features, repeat_steps, windows_like

# Bytes of prepared features held at once; a block that needs more is worked on in strips.
_BUDGET = 400e6


def predict_map(
    model: Any,
    grid_cube: xr.Dataset,
    out: str | Path,
    times: Sequence[Any] | None = None,
    *,
    progress: Progress | None = None,
) -> Path:
    """Estimate soil moisture on a grid.

    The cube is prepared block by block exactly as the model's training data were; gaps are filled over a block's
    whole series.

    Parameters
    ----------
    model : fitted model
        It carries features, units, gap filling, scaler and window.
    grid_cube : xarray.Dataset
        Dims (time, y, x), with a CRS, as opened (not prepared). The model's features, or what they are derived from.
    out : str or Path
        A path that ends in `.zarr`, or a folder of COGs, one a date: `sm_YYYY-MM-DD.tif`.
    times : sequence of dates, optional
        Days to map; all days of the cube by default.
    progress : callable, optional
        Called with (blocks done, blocks in all).

    Returns
    -------
    Path
        `out`. Values in the target's unit; NaN where features are missing (more of them than the model's window
        allows). Peak memory: a block of 128 × 128 pixels of one variable over its whole series, and 400 MB of
        prepared features.

    Raises
    ------
    SmgeoError
        If a feature is missing or in another unit, the cube has no CRS, or a day is not in the cube.
    """
    out = Path(out)
    if out.suffix == ".zarr":
        return _predict_zarr(model, grid_cube, out, times, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".map-") as folder:
        store = _predict_zarr(model, grid_cube, Path(folder) / "map.zarr", times, progress)
        return write_cogs(store, out)


def _predict_zarr(
    model: Any, grid_cube: xr.Dataset, out: Path, times: Sequence[Any] | None, progress: Progress | None
) -> Path:
    preparation = getattr(model, "preparation_", None)
    if not preparation:
        raise SmgeoError(
            "predict_map needs a model fitted on Windows, which know their preparation; this one was fitted on bare arrays"
        )
    check_replaceable(out, "zarr.json")
    cube = _check_cube(grid_cube, preparation)
    days = pd.DatetimeIndex(cube.indexes["time"])
    if isinstance(times, str):
        raise SmgeoError(f"predict_map: times is a list of days; write times=[{times!r}]")
    wanted = days if times is None else pd.DatetimeIndex([pd.Timestamp(t) for t in times]).unique().sort_values()
    if wanted.empty:
        raise SmgeoError("predict_map: times holds no day; give one, or leave times out for all days of the cube")
    outside = [str(t.date()) for t in wanted if t not in days]
    if outside:
        raise SmgeoError(
            f"maps: {', '.join(outside)} not in the grid cube, which holds {days[0].date()} to {days[-1].date()}"
        )
    ends = days.get_indexer(wanted)
    part = out.with_name(out.name + ".part")
    target = _create(part, cube, wanted, preparation, model)
    blocks = list(_blocks(cube.sizes["y"], cube.sizes["x"]))
    missing = 0
    for i, (y, x) in enumerate(blocks):
        values = _predict_block(model, cube.isel(y=y, x=x), preparation, ends)
        missing += int(np.isnan(values).sum())
        target[:, y, x] = values
        if progress:
            progress(i + 1, len(blocks))
    share = missing / max(target.size, 1)
    target.attrs["nodata_share"] = round(share, 6)
    replace_folder(part, out)
    return out


def _check_cube(cube: xr.Dataset, preparation: dict[str, Any]) -> xr.Dataset:
    if not is_grid(cube):
        raise SmgeoError("predict_map needs a grid cube with dims (time, y, x); for stations use evaluate")
    if "spatial_ref" not in cube.coords:
        raise SmgeoError(
            "the grid cube has no CRS (no coordinate spatial_ref); open it with smgeo.open_cube, or set one with cube.rio.write_crs"
        )
    cube = derive_features(cube, [f for f in preparation["features"] if f not in cube and _derivable(f, cube)])
    check_units(units_of(cube, map(str, cube.data_vars)), preparation["units"], "the grid cube")
    # With the days, which features that do not vary in time would leave behind.
    return cube[preparation["features"]].assign_coords(time=cube["time"]).assign_attrs(cube.attrs)


def _derivable(name: str, cube: xr.Dataset) -> bool:
    needs = FEATURES[name].derived_from if name in FEATURES else ()
    return bool(needs) and all(n in cube.variables or n in COORDINATES for n in needs)


def _blocks(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    for y in range(0, height, GRID_CHUNK["y"]):
        for x in range(0, width, GRID_CHUNK["x"]):
            yield slice(y, min(y + GRID_CHUNK["y"], height)), slice(x, min(x + GRID_CHUNK["x"], width))


def _create(
    part: Path, cube: xr.Dataset, days: pd.DatetimeIndex, preparation: dict[str, Any], model: Any
) -> zarr.Array:
    """An empty map store with coordinates and CRS; the array to write into."""
    import dask.array as da

    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(days), cube.sizes["y"], cube.sizes["x"])
    chunks = tuple(min(n, GRID_CHUNK[d]) for n, d in zip(shape, ("time", "y", "x"), strict=True))
    attrs = {
        "units": preparation["target_units"] or "",
        "long_name": "estimated surface soil moisture"
        if preparation["target"] == "sm"
        else f"estimated {preparation['target']}",
        "kind": "target",
        "source": f"smgeo model {type(model).__name__}",
        "grid_mapping": "spatial_ref",
    }
    name = preparation["target"]
    coords = {"time": ("time", days), "y": cube["y"], "x": cube["x"], "spatial_ref": cube["spatial_ref"]}
    empty = xr.Dataset(
        {name: (("time", "y", "x"), da.full(shape, np.nan, dtype="float32", chunks=chunks), attrs)}, coords
    )
    empty.to_zarr(
        part,
        mode="w",
        zarr_format=3,
        consolidated=False,
        compute=False,
        encoding={name: {"chunks": chunks, "_FillValue": np.float32(np.nan)}},
    )
    return zarr.open_group(part, mode="r+")[name]  # type: ignore[return-value]


def _predict_block(model: Any, block: xr.Dataset, preparation: dict[str, Any], ends: np.ndarray) -> np.ndarray:
    """Predictions (len(ends), y, x) of one block, in the target's unit."""
    height, width = block.sizes["y"], block.sizes["x"]
    # Whole series are run along from their first day; windows need the days before each end alone.
    series = preparation["mode"] == "sequence"
    runs = _plan_runs(ends, int(ends[-1]) + 1 if series else preparation["length"])
    days = sum(r.days.stop - r.days.start for r in runs)
    channels = len(preparation["features"]) * (3 if preparation["missing"] > 0 else 2)
    rows = int(max(1, min(height, _BUDGET // (4 * channels * days * width))))
    parts = [
        _predict_strip(model, block.isel(y=slice(y, y + rows)), preparation, runs, len(ends))
        for y in range(0, height, rows)
    ]
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class _Run:
    """A stretch of days, and the windows that end in it: on which day of the stretch, for which place in the output."""

    days: slice
    ends: tuple[int, ...]
    slots: tuple[int, ...]


def _plan_runs(ends: np.ndarray, length: int) -> list[_Run]:
    """Stretches of days that windows of `length` ending on the days `ends` (ascending) need.

    >>> for run in _plan_runs(np.array([5, 7, 40]), 3):
    ...     print(run)
    _Run(days=slice(3, 8, None), ends=(2, 4), slots=(0, 1))
    _Run(days=slice(38, 41, None), ends=(2,), slots=(2,))
    """
    runs = []
    for slots in np.split(np.arange(len(ends)), np.flatnonzero(np.diff(ends) >= length) + 1):
        first = max(int(ends[slots[0]]) - length + 1, 0)
        days = slice(first, int(ends[slots[-1]]) + 1)
        runs.append(_Run(days, tuple(int(e) - first for e in ends[slots]), tuple(map(int, slots))))
    return runs


def _predict_strip(
    model: Any, strip: xr.Dataset, preparation: dict[str, Any], runs: list[_Run], n_ends: int
) -> np.ndarray:
    height, width = strip.sizes["y"], strip.sizes["x"]
    prepared = repeat_steps(strip, preparation["steps"])
    features = preparation["features"]
    # One variable at a time: its whole series is needed to fill gaps, but only the windows' days are kept.
    kept: dict[str, list[xr.DataArray]] = {}
    for name in features:
        whole = prepared[name].compute()
        kept[name] = [whole.isel(time=run.days) if "time" in whole.dims else whole for run in runs]
    times = pd.DatetimeIndex(strip.indexes["time"])
    back = target_scaler(preparation)
    out = np.full((n_ends, height * width), np.nan, dtype="float32")
    for i, run in enumerate(runs):
        pixels = xr.Dataset(
            {name: _as_stations(kept[name][i]) for name in features},
            {"station": np.arange(height * width), "time": times[run.days]},
            prepared.attrs,
        )
        windows = windows_like(preparation, pixels, target=None, ends=run.ends)
        if len(windows):
            slot_of = np.zeros(run.ends[-1] + 1, dtype=np.intp)
            slot_of[list(run.ends)] = run.slots
            place, day = windows.targets
            out[slot_of[day], place] = back(windows.pick(model.predict(windows)))
    return out.reshape(n_ends, height, width)


def _as_stations(variable: xr.DataArray) -> xr.Variable:
    """(time, y, x) as (station, time), (y, x) as (station,): each pixel a station, row by row."""
    if variable.dims == ("time",):
        return variable.variable
    if "time" in variable.dims:
        values = variable.transpose("time", "y", "x").values
        return xr.Variable(("station", "time"), values.reshape(values.shape[0], -1).T, variable.attrs)
    return xr.Variable(("station",), variable.transpose("y", "x").values.reshape(-1), variable.attrs)


def write_cogs(store: str | Path, folder: str | Path) -> Path:
    """A map store as Cloud-Optimised GeoTIFFs, one a date, each complete when it appears.

    Parameters
    ----------
    store : str or Path
        What `predict_map` wrote as Zarr.
    folder : str or Path
        Receives `NAME_YYYY-MM-DD.tif`: float32, band 1 named as the variable, nodata NaN, units and provenance in
        its tags. Read and written in strips of rows.

    Returns
    -------
    Path
        `folder`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ds = xr.open_zarr(store, consolidated=False, chunks=None, decode_coords="all")
    name = next(iter(ds.data_vars))
    variable = ds[name]
    box = variable.odc.geobox
    height, width = variable.sizes["y"], variable.sizes["x"]
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": 1,
        "height": height,
        "width": width,
        "nodata": float("nan"),
        "crs": str(box.crs),
        "transform": box.affine,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "bigtiff": "if_safer",
    }
    for t, day in enumerate(pd.DatetimeIndex(ds.indexes["time"])):
        final = folder / f"{name}_{day.date()}.tif"
        plain, cog = final.with_suffix(".plain.part"), final.with_suffix(".part")
        with rasterio.open(plain, "w", **profile) as dst:
            for y in range(0, height, 256):
                rows = variable.isel(time=t, y=slice(y, y + 256)).values
                dst.write(rows, 1, window=Window(0, y, width, rows.shape[0]))
            dst.set_band_description(1, str(name))
            dst.units = (variable.attrs["units"],)
            dst.update_tags(
                date=str(day.date()),
                units=variable.attrs["units"],
                long_name=variable.attrs["long_name"],
                source=variable.attrs["source"],
            )
        rasterio.shutil.copy(
            plain,
            cog,
            driver="COG",
            compress="DEFLATE",
            predictor="YES",
            overviews="AUTO",
            overview_resampling="average",
        )
        os.replace(cog, final)
        plain.unlink()
    return folder


def list_maps(folder: str | Path) -> list[str]:
    """The COGs in a run's `maps` folder, relative to it."""
    root = Path(folder)
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*.tif"))
