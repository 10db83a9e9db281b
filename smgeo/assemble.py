"""Sources into cubes: stations merged, rasters extracted at stations, rasters aligned on a grid."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import rasterio
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from pyproj import Transformer

from smgeo.catalog import FEATURES, Feature
from smgeo.cube import Progress, check_units, units_of, variables_of_kind, write_cube
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.prepare import derive_features, measure_revisit
from smgeo.regions import seal
from smgeo.sources import open_rasters
from smgeo.specs import GridSpec, RasterSource
from smgeo.terrain import TERRAIN, terrain


def open_grid(spec: GridSpec, root: str | Path) -> GeoBox:
    """The grid that a recipe describes.

    Raises
    ------
    SmgeoError
        If the raster it is like is missing or has no CRS, or the CRS is unknown.
    """
    if spec.like is not None:
        path = Path(root) / spec.like
        if not path.is_file():
            raise SmgeoError(f"grid.like: {path} not found (relative paths start at --data)")
        try:
            opened = rasterio.open(path)
        except rasterio.errors.RasterioIOError as error:
            raise SmgeoError(f"grid.like: {path} can't be opened as a raster: {error}") from None
        with opened as src:
            if src.crs is None:
                raise SmgeoError(
                    f"grid.like: {path} has no CRS; give grid.crs, grid.resolution and grid.bounds instead"
                )
            return GeoBox((src.height, src.width), src.transform, src.crs)
    assert spec.bounds is not None
    assert spec.crs is not None
    assert spec.resolution is not None
    try:
        box = BoundingBox(*spec.bounds, crs=spec.crs)
    except Exception as error:
        raise SmgeoError(
            f"grid.crs: {spec.crs!r} is not a CRS known to PROJ ({error}); write one such as EPSG:32632"
        ) from None
    return GeoBox.from_bbox(box, resolution=spec.resolution, tight=True)


def extract(
    rasters: xr.Dataset, stations: xr.Dataset, method: str = "nearest", radius_m: float | None = None
) -> xr.Dataset:
    """Raster values at stations: the pixel that a station lies in, found in the raster's own CRS.

    Parameters
    ----------
    rasters : xarray.Dataset
        Dims (time, y, x) or (y, x), with a CRS; lazy or not. Each of its Dask chunks is read once, however many
        stations fall into it.
    stations : xarray.Dataset
        Has coordinates `latitude` and `longitude` (EPSG:4326) on `station`.
    method : {"nearest"}
        The pixel whose area holds the station.
    radius_m : None
        Footprint means are not implemented yet.

    Returns
    -------
    xarray.Dataset
        Dims (station, time) or (station,), as lazy as `rasters`. Stations outside the raster are left out, named
        in a warning and in `attrs["left_out"]`.

    Raises
    ------
    SmgeoError
        If the raster has no CRS, or no station lies on it.
    """
    if method != "nearest" or radius_m is not None:
        raise SmgeoError(
            f"extract: method 'nearest' without radius_m is what there is; got {method!r}, radius_m={radius_m}"
        )
    box = rasters.odc.geobox
    if box is None or box.crs is None:
        raise SmgeoError("extract: the raster has no CRS; set one with rasters.rio.write_crs('EPSG:...')")
    to_grid = Transformer.from_crs("EPSG:4326", box.crs.to_wkt(), always_xy=True)
    x, y = to_grid.transform(stations["longitude"].values, stations["latitude"].values)
    inverse = ~box.affine
    columns = inverse.a * np.asarray(x) + inverse.b * np.asarray(y) + inverse.c
    rows = inverse.d * np.asarray(x) + inverse.e * np.asarray(y) + inverse.f
    with np.errstate(invalid="ignore"):
        inside = (columns >= 0) & (rows >= 0) & (columns < box.shape.x) & (rows < box.shape.y)
    ids = stations["station"].values
    left_out = {str(s): "outside the raster" for s in ids[~inside]}
    if not inside.any():
        raise SmgeoError(
            f"extract: none of the {len(ids)} stations lies on the raster ({box.crs}, bounds {tuple(box.boundingbox)}); check the "
            "stations' coordinates and the raster's CRS"
        )
    if left_out:
        warnings.warn(
            f"{len(left_out)} station(s) outside the raster are left out: {', '.join(left_out)}", SmgeoWarning
        )
    kept = stations.isel(station=np.flatnonzero(inside))
    r, c = rows[inside].astype(int), columns[inside].astype(int)
    data: dict[str, Any] = {}
    for name, var in rasters.data_vars.items():
        if not {"y", "x"} <= set(var.dims):  # a calendar variable is the same at every station
            data[str(name)] = var.variable
            continue
        attrs = {k: v for k, v in var.attrs.items() if k != "grid_mapping"}
        lead = [d for d in var.dims if d not in ("y", "x")]
        values = _pick(var.transpose(..., "y", "x").data, r, c)
        data[str(name)] = xr.Variable((*lead, "station"), values, attrs).transpose("station", *lead)
    coords = {n: kept[n] for n in kept.coords if n != "time" and "time" not in kept[n].dims}
    if "time" in rasters.coords:
        coords["time"] = rasters["time"]
    return xr.Dataset(data, coords, {"left_out": json.dumps(left_out)})


def _pick(values: Any, rows: np.ndarray, columns: np.ndarray) -> Any:
    """values[..., rows, columns]; of a Dask array, reading each chunk once."""
    if not isinstance(values, da.Array):
        return values[..., rows, columns]
    y_edges, x_edges = (np.cumsum((0, *values.chunks[axis])) for axis in (-2, -1))
    iy, ix = np.searchsorted(y_edges, rows, "right") - 1, np.searchsorted(x_edges, columns, "right") - 1
    parts, order = [], []
    for by, bx in sorted(set(zip(iy.tolist(), ix.tolist(), strict=True))):
        here = np.flatnonzero((iy == by) & (ix == bx))
        block = values[..., y_edges[by] : y_edges[by + 1], x_edges[bx] : x_edges[bx + 1]]
        last = block.ndim - 1
        parts.append(
            block.map_blocks(
                _pick,
                rows[here] - y_edges[by],
                columns[here] - x_edges[bx],
                dtype=values.dtype,
                drop_axis=last,
                chunks=(*block.chunks[:-2], (here.size,)),
            )
        )
        order.append(here)
    together = da.concatenate(parts, axis=-1)
    position = np.argsort(np.concatenate(order))
    return together if (position == np.arange(position.size)).all() else together[..., position]


def merge_stations(sources: Sequence[xr.Dataset], period: tuple[Any, Any] | None) -> xr.Dataset:
    """Stations of several sources in one lazy cube, on every day of the period (or of all sources).

    Raises
    ------
    SmgeoError
        If two sources hold the same station, or one variable in different units.
    """
    ids = [str(s) for ds in sources for s in ds["station"].values]
    twice = sorted({s for s in ids if ids.count(s) > 1})
    if twice:
        raise SmgeoError(f"stations given by two sources: {', '.join(twice[:10])}; leave one of them out")
    units: dict[str, str] = {}
    for ds in sources:
        found = units_of(ds, map(str, ds.data_vars))
        check_units(found, {n: u for n, u in units.items() if n in found}, "the stations' sources")
        units |= found
    merged = (
        sources[0]
        if len(sources) == 1
        else xr.concat(
            list(sources),
            dim="station",
            join="outer",
            data_vars="all",
            coords="minimal",
            compat="override",
            combine_attrs="override",
        )
    )
    left_out = reduce(lambda a, b: a | b, (json.loads(ds.attrs.get("left_out", "{}")) for ds in sources))
    first, last = period if period else (merged["time"].values[0], merged["time"].values[-1])
    days = pd.date_range(pd.Timestamp(first), pd.Timestamp(last), freq="D", name="time")
    if not days.equals(pd.DatetimeIndex(merged.indexes["time"])):
        merged = merged.reindex(time=days)
    return merged.assign_attrs(left_out=json.dumps(left_out))


def build_station_cube(
    stations: xr.Dataset,
    rasters: Sequence[RasterSource],
    features: Sequence[str],
    target: str,
    root: str | Path,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """The lazy station cube of a study: target, features (from the stations or the rasters), diagnostics.

    A variable that the stations give is taken from them; the rasters give the others. Derived features are
    added. Stations outside a raster are left out of the cube and named in `attrs["left_out"]`.
    """
    days = pd.DatetimeIndex(stations.indexes["time"])
    needed = {n for f in features for n in (f, *catalog[f].derived_from)} | {target}
    wanted = _terrain_wanted(features, rasters, stations)
    cube = stations
    left_out = json.loads(stations.attrs.get("left_out", "{}"))
    for source in rasters:
        bands = {n: b for n, b in source.bands.items() if n in needed and n not in cube}
        slopes = wanted if "elevation" in source.bands else []
        if not bands and not slopes:
            continue
        opened = bands | ({"elevation": source.bands["elevation"]} if slopes else {})
        scenes = open_rasters(
            source.model_copy(update={"bands": opened}), root=root, period=(days[0], days[-1]), catalog=catalog
        )
        # Terrain needs the pixels around a station, so it is derived on the raster's own grid.
        scenes = scenes.assign(terrain(scenes["elevation"])[slopes].data_vars) if slopes else scenes
        values = extract(scenes[[*bands, *slopes]], cube)
        left_out |= json.loads(values.attrs["left_out"])
        cube = cube.sel(station=values["station"]).assign(dict(values.data_vars))
    cube = derive_features(cube, features)
    diagnostics = [str(n) for n, v in cube.data_vars.items() if v.attrs.get("kind") == "diagnostic"]
    return cube[[*features, target, *diagnostics]].assign_attrs(left_out=json.dumps(left_out), title="station cube")


def _terrain_wanted(features: Sequence[str], rasters: Sequence[RasterSource], given: Iterable[Any] = ()) -> list[str]:
    """Slope and aspect where they are features that no source gives and a raster of elevation can."""
    has = {n for source in rasters for n in source.bands}
    return [n for n in TERRAIN if n in features and n not in has and n not in given] if "elevation" in has else []


def _terrain_on_grid(
    names: list[str], rasters: Sequence[RasterSource], box: GeoBox, root: str | Path, catalog: Mapping[str, Feature]
) -> dict[str, xr.Variable]:
    """Slope and aspect on the grid, of elevation resampled onto it and one pixel further, so that its border has values."""
    source = next(s for s in rasters if "elevation" in s.bands)
    spec = source.model_copy(update={"bands": {"elevation": source.bands["elevation"]}})
    elevation = open_rasters(spec, root=root, geobox=box.pad(1), catalog=catalog)["elevation"]
    inner = terrain(elevation).isel(y=slice(1, -1), x=slice(1, -1))
    # Without coordinates: those of the wider grid may differ from the grid's in the last digit.
    return {n: inner[n].variable for n in names}


def write_station_cube(
    ds: xr.Dataset, path: str | Path, *, token: str | None = None, progress: Progress | None = None
) -> Path:
    """Write a station cube, then put the revisit measured at each station into its variables' attributes."""
    path = write_cube(ds, path, token=token, progress=progress)
    group = zarr.open_group(path, mode="r+")
    written = xr.open_zarr(path, consolidated=False, chunks={})
    for name in variables_of_kind(written, "dynamic"):
        nominal = float(written[name].attrs.get("revisit_days", 1.0))
        days = measure_revisit(written[name]).values
        group[name].attrs["revisit_days"] = [nominal if math.isnan(d) else float(d) for d in days]
    seal(path)
    return path


def build_grid_cube(
    rasters: Sequence[RasterSource],
    box: GeoBox,
    features: Sequence[str],
    period: tuple[Any, Any],
    root: str | Path,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """The lazy grid cube of a study: every feature on the grid and every day of the period."""
    needed = {n for f in features for n in (f, *catalog[f].derived_from)}
    parts = []
    for source in rasters:
        bands = {n: b for n, b in source.bands.items() if n in needed}
        if bands:
            spec = source.model_copy(update={"bands": bands})
            parts.append(open_rasters(spec, root=root, geobox=box, period=period, catalog=catalog))
    cube = parts[0].assign({n: v for part in parts[1:] for n, v in part.data_vars.items()})
    if "time" not in cube.coords:
        cube = cube.assign_coords(
            time=pd.date_range(pd.Timestamp(period[0]), pd.Timestamp(period[1]), freq="D", name="time")
        )
    if wanted := _terrain_wanted(features, rasters):
        cube = cube.assign(_terrain_on_grid(wanted, rasters, box, root, catalog))
    return derive_features(cube, features)[list(features)].assign_attrs(title="grid cube")
