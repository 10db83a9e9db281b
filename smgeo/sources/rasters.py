"""GeoTIFFs as a lazy Dataset: one file a date, or layers that do not change.

One task reads one block of the output, from all files that fall into it. Files on another grid are warped onto
the target's by GDAL as they are read.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from smgeo.catalog import FEATURES, Feature
from smgeo.cube import GRID_SHARD
from smgeo.errors import SmgeoError, nearest
from smgeo.specs import RasterSource, parse_spec


@dataclass(frozen=True)
class _Reading:
    """How one variable is read from its files: everything a task needs."""

    band: int
    scale: float | None
    offset: float | None
    nodata: float | None
    resampling: str
    geobox: GeoBox


def open_rasters(
    spec: RasterSource | Mapping[str, Any],
    *,
    root: str | Path = ".",
    geobox: GeoBox | None = None,
    period: tuple[Any, Any] | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """The rasters of one source, lazily.

    Parameters
    ----------
    spec : RasterSource or mapping
        `path` (a file or a glob pattern), `bands` (variable -> band number or name in the file), `dates` (a strptime
        pattern for the file's name, such as `s1_%Y%m%d.tif`, or the one date of a file) or `dates_table` (CSV with
        columns file, date), and optionally `units`, `scale`, `offset`, `nodata`, `resampling`.
    root : str or Path
        Where relative paths start.
    geobox : odc.geo.geobox.GeoBox, optional
        Target grid; by default the files' own, which must then be the same for all.
    period : (date, date), optional
        Gives every day of the period, missing where there is no file; by default the days that have files.
    catalog : mapping
        Kind and unit of each variable.

    Returns
    -------
    xarray.Dataset
        Dynamic variables (time, y, x), static ones (y, x), float32, lazy in blocks of at most (30, 256, 256); CRS in
        `spatial_ref`. Where a day has several files, the mean of their values (in linear power for decibels).

    Raises
    ------
    SmgeoError
        If no file matches, a file has no CRS or no such band, grids differ with no target given, a file's unit is
        not the one the cube holds, or a name holds no date.
    """
    source = (
        spec
        if isinstance(spec, RasterSource)
        else parse_spec(RasterSource, {"kind": "geotiff", **spec}, "open_rasters")
    )
    files = _find(source.path, Path(root))
    own, bands = _check_files(files, source, catalog, same_grid=geobox is None)
    box = geobox if geobox is not None else own
    dates = _dates(source, files, Path(root)) if (source.dates or source.dates_table) else None
    days = _day_axis(dates, period)
    data: dict[str, Any] = {}
    for name, band in bands.items():
        feature = catalog[name]
        reading = _Reading(band, source.scale.get(name), source.offset.get(name), source.nodata, source.resampling, box)
        attrs = {
            **feature.attrs(),
            "source": f"{feature.source}; {Path(source.path).name}",
            "grid_mapping": "spatial_ref",
        }
        if feature.kind == "static":
            if len(files) > 1:
                raise SmgeoError(
                    f"rasters {source.path!r}: {name} does not vary in time, but {len(files)} files match, "
                    f"{files[1].name} among them; name one"
                )
            data[name] = (("y", "x"), _static_array(files[0], reading), attrs)
        else:
            if dates is None or days is None:
                raise SmgeoError(f"rasters {source.path!r}: {name} varies in time, so dates or dates_table is needed")
            decibels = feature.units == "dB"
            if decibels:
                attrs["daily_rule"] = "mean of a day's scenes in linear power, stored in dB"
            data[name] = (("time", "y", "x"), _dynamic_array(files, dates, days, reading, decibels), attrs)
    coords = dict(xr_coords(box, dims=("y", "x")))
    if days is not None and any("time" in d[0] for d in data.values()):
        coords["time"] = xr.DataArray(days, dims="time", name="time")
    return xr.Dataset({n: xr.Variable(*v) for n, v in data.items()}, coords)


def _find(pattern: str, root: Path) -> list[Path]:
    path = Path(pattern)
    absolute = path if path.is_absolute() else root / path
    if not re.search(r"[*?\[]", str(path)):
        files = [absolute] if absolute.is_file() else []
    else:
        anchor = Path(absolute.anchor) if path.is_absolute() else root
        files = sorted(anchor.glob(str(absolute.relative_to(anchor))))
    if not files:
        raise SmgeoError(f"no raster matches {absolute} (relative paths start at --data)")
    return files


def _check_files(
    files: list[Path], source: RasterSource, catalog: Mapping[str, Feature], *, same_grid: bool
) -> tuple[GeoBox, dict[str, int]]:
    """Headers of all files, which must agree; the first one's grid, and the band of each variable."""
    first: GeoBox | None = None
    bands: dict[str, int] = {}
    for file in files:
        try:
            opened = rasterio.open(file)
        except rasterio.errors.RasterioIOError as error:
            raise SmgeoError(f"{file} can't be opened as a raster: {error}") from None
        with opened as src:
            if src.crs is None:
                raise SmgeoError(
                    f"{file} has no CRS, so its place on Earth is not known; add one with: rio edit-info --crs EPSG:... {file}"
                )
            box = GeoBox((src.height, src.width), src.transform, src.crs)
            first = first or box
            if same_grid and box != first:
                raise SmgeoError(
                    f"{file} lies on another grid ({box.crs}, {box.shape.yx}) than {files[0]} ({first.crs}, "
                    f"{first.shape.yx}); give a grid to warp both onto"
                )
            for name, asked in source.bands.items():
                number = _band_number(src, asked, name)
                _check_band_units(file, src.units[number - 1], name, source, catalog)
                if bands.setdefault(name, number) != number:
                    raise SmgeoError(
                        f"{file}: {name} is band {number}, in {files[0]} it is band {bands[name]}; write all files with the same bands"
                    )
    assert first is not None
    return first, bands


def _band_number(src: rasterio.DatasetReader, band: int | str, name: str) -> int:
    if isinstance(band, int):
        if not 1 <= band <= src.count:
            raise SmgeoError(f"{src.name} has bands 1 to {src.count}; {name} asks for band {band}")
        return band
    known = [d or f"band {i + 1}" for i, d in enumerate(src.descriptions)]
    if band not in known:
        raise SmgeoError(
            f"{src.name} has no band named {band!r} (for {name}); {nearest(band, known)}; or give its number"
        )
    return known.index(band) + 1


def _check_band_units(
    file: Path, found: str | None, name: str, source: RasterSource, catalog: Mapping[str, Feature]
) -> None:
    converted = name in source.scale or name in source.offset
    if found and not converted and found != catalog[name].units:
        raise SmgeoError(
            f"{file}: {name} is in {found!r}, the cube holds {catalog[name].units!r}; convert it with scale and offset"
        )


def _dates(source: RasterSource, files: list[Path], root: Path) -> list[pd.Timestamp]:
    if isinstance(source.dates, dt.date):
        return [pd.Timestamp(source.dates)] * len(files)
    if source.dates_table is not None:
        path = root / source.dates_table
        if not path.is_file():
            raise SmgeoError(f"dates_table {path} not found (relative paths start at --data)")
        try:
            table = pd.read_csv(path)
        except ValueError as error:
            raise SmgeoError(f"dates_table {path} can't be read as a table: {error}") from None
        if not {"file", "date"} <= set(table):
            raise SmgeoError(
                f"{root / source.dates_table} needs columns file, date; it has {', '.join(map(str, table))}"
            )
        parsed = pd.to_datetime(table["date"].astype(str), format="ISO8601", errors="coerce", utc=True).dt.tz_localize(
            None
        )
        if parsed.isna().any():
            line = int(np.flatnonzero(parsed.isna().to_numpy())[0])
            raise SmgeoError(f"{path}, line {line + 2}: {table['date'].iloc[line]!r} is no date; write 2012-03-25")
        by_name = dict(zip(table["file"].astype(str), parsed, strict=True))
        lacking = [f.name for f in files if f.name not in by_name]
        if lacking:
            raise SmgeoError(f"{root / source.dates_table} has no date for {', '.join(lacking[:5])}")
        return [pd.Timestamp(by_name[f.name]).normalize() for f in files]
    out = []
    for file in files:
        try:
            out.append(pd.Timestamp(dt.datetime.strptime(file.name, str(source.dates))).normalize())
        except ValueError:
            raise SmgeoError(
                f"{file.name} does not match dates {source.dates!r}; write the whole file name with %Y, %m, %d (or %j) in place "
                "of its date"
            ) from None
    return out


def _day_axis(dates: list[pd.Timestamp] | None, period: tuple[Any, Any] | None) -> pd.DatetimeIndex | None:
    if period is not None:
        return pd.date_range(pd.Timestamp(period[0]), pd.Timestamp(period[1]), freq="D", name="time")
    return None if dates is None else pd.DatetimeIndex(sorted(set(dates)), name="time")


def _blocks(shape: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(min(s, n - i) for i in range(0, n, s)) for n, s in zip(shape, sizes, strict=True))


def _mark(file: Path) -> tuple[str, int, int]:
    """A file and its state, so that the name of an array says which content it is read from."""
    state = file.stat()
    return str(file), state.st_size, state.st_mtime_ns


def _static_array(file: Path, reading: _Reading) -> da.Array:
    chunks = _blocks(reading.geobox.shape.yx, (GRID_SHARD["y"], GRID_SHARD["x"]))
    return da.map_blocks(
        partial(_read_static_block, file, reading),
        chunks=chunks,
        dtype="float32",
        meta=np.empty((0, 0), "float32"),
        name=f"static-{da.core.tokenize(_mark(file), reading)}",
    )


def _dynamic_array(
    files: list[Path], dates: list[pd.Timestamp], days: pd.DatetimeIndex, reading: _Reading, decibels: bool
) -> da.Array:
    position = {d: i for i, d in enumerate(days)}
    per_day: dict[int, list[Path]] = {}
    for file, date in zip(files, dates, strict=True):
        if date in position:
            per_day.setdefault(position[date], []).append(file)
    shape = (len(days), *reading.geobox.shape.yx)
    chunks = _blocks(shape, tuple(GRID_SHARD.values()))
    return da.map_blocks(
        partial(_read_block, per_day, reading, decibels),
        chunks=chunks,
        dtype="float32",
        meta=np.empty((0, 0, 0), "float32"),
        name=f"raster-{da.core.tokenize([_mark(f) for f in files], dates, reading, decibels, list(days))}",
    )


def _read_static_block(file: Path, reading: _Reading, block_info: Any = None) -> np.ndarray:
    (y0, y1), (x0, x1) = block_info[None]["array-location"]
    return _read_window(file, reading, y0, y1, x0, x1)


def _read_block(
    per_day: dict[int, list[Path]], reading: _Reading, decibels: bool, block_info: Any = None
) -> np.ndarray:
    (t0, t1), (y0, y1), (x0, x1) = block_info[None]["array-location"]
    out = np.full((t1 - t0, y1 - y0, x1 - x0), np.nan, dtype="float32")
    for t in range(t0, t1):
        scenes = [_read_window(f, reading, y0, y1, x0, x1) for f in per_day.get(t, ())]
        if len(scenes) == 1:
            out[t - t0] = scenes[0]
        elif scenes:
            out[t - t0] = _mean_of_day(np.stack(scenes), decibels)
    return out


def _mean_of_day(scenes: np.ndarray, decibels: bool) -> np.ndarray:
    """Mean over axis 0 of the values there are; of decibels, in linear power."""
    power = 10 ** (scenes.astype("float64") / 10) if decibels else scenes.astype("float64")
    seen = np.isfinite(power)
    mean = np.where(seen, power, 0).sum(axis=0) / np.where(seen.any(axis=0), seen.sum(axis=0), np.nan)
    return (10 * np.log10(mean) if decibels else mean).astype("float32")


def _untagged_nodata(dtype: str) -> float | None:
    """NaN for floating-point bands, so that warping does not spread it; whole numbers have none."""
    return float("nan") if np.issubdtype(np.dtype(dtype), np.floating) else None


def _read_window(file: Path, reading: _Reading, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    box = reading.geobox
    window = Window(x0, y0, x1 - x0, y1 - y0)
    with rasterio.open(file) as src:
        nodata = reading.nodata if reading.nodata is not None else src.nodata
        # What the recipe does not say, the file's own tags do (1 and 0 without tags).
        scale = reading.scale if reading.scale is not None else src.scales[reading.band - 1]
        offset = reading.offset if reading.offset is not None else src.offsets[reading.band - 1]
        if GeoBox((src.height, src.width), src.transform, src.crs) == box:
            values = src.read(reading.band, window=window).astype("float32")
        else:
            with WarpedVRT(
                src,
                crs=str(box.crs),
                transform=box.affine,
                height=box.shape.y,
                width=box.shape.x,
                src_nodata=nodata if nodata is not None else _untagged_nodata(src.dtypes[reading.band - 1]),
                nodata=np.nan,
                dtype="float32",
                resampling=Resampling[reading.resampling],
            ) as warped:
                values = warped.read(reading.band, window=window)
    if nodata is not None and not np.isnan(nodata):
        values[values == np.float32(nodata)] = np.nan
    return values * np.float32(scale) + np.float32(offset)


def raster_files(source: RasterSource, root: str | Path) -> list[Path]:
    """The files a source reads."""
    return _find(source.path, Path(root))


__all__ = ["open_rasters", "raster_files"]
