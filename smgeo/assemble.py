"""Sources into cubes: stations merged, rasters extracted at stations, rasters aligned on a grid."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import rasterio
import xarray as xr
import zarr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox

from smgeo.catalog import FEATURES, Feature
from smgeo.cube.ledger import seal
from smgeo.cube.regions import Progress
from smgeo.cube.schema import DAY_INPUTS, check_units, text_of, units_of, variables_of_kind
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.prepare import derive_features, measure_revisit
from smgeo.recipe.grid import GridSpec
from smgeo.recipe.rasters import AnyRaster, GriddedSource, RasterSource, parse_raster
from smgeo.sources import open_source
from smgeo.sources.pixels.footprint import Footprints, find_footprints, station_places, tiles_of
from smgeo.terrain import TERRAIN, terrain

_MOSTLY = 0.5  # share of impossible values that are no outliers

# Writes the lazy values of one source at stations under a name, and opens them again.
Keep = Callable[[str, xr.Dataset], xr.Dataset]


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
    rasters: xr.Dataset | AnyRaster | Mapping[str, Any],
    stations: xr.Dataset,
    method: str = "nearest",
    radius_m: float | None = None,
    *,
    root: str | Path = ".",
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Raster values at stations: of the pixel that a station lies in, or the mean of its footprint.

    Parameters
    ----------
    rasters : xarray.Dataset, or the spec of a source
        Dims (time, y, x) or (y, x), with a CRS; lazy or not. Each of its Dask chunks is read once, however many
        stations fall into it. A spec (as in a recipe) is read scene by scene, each in its own CRS: stations around the
        world share no grid.
    stations : xarray.Dataset
        Has coordinates `latitude` and `longitude` (EPSG:4326) on `station`.
    method : {"nearest", "mean"}
        The pixel whose area holds the station, or the mean of those whose centres lie within `radius_m`.
    radius_m : float, optional
        Radius of the footprint on the ellipsoid, m; given, the method is `mean`. Decibels are averaged in linear power;
        aspect, which has no mean, is that of the pixel.
    root, catalog : optional
        Of a spec: where relative paths start, and kind and unit of each variable.

    Returns
    -------
    xarray.Dataset
        Dims (station, time) or (station,), as lazy as `rasters`. Stations outside the raster are left out, named
        in a warning and in `attrs["left_out"]`.

    Raises
    ------
    SmgeoError
        If the raster has no CRS, no station lies on it, or the mean has no radius.
    """
    if (
        method not in ("nearest", "mean")
        or (method == "mean" and radius_m is None)
        or not (radius_m is None or radius_m > 0)
    ):
        raise SmgeoError(f"extract: method is nearest, or mean with radius_m > 0; got {method!r}, radius_m={radius_m}")
    if isinstance(rasters, xr.Dataset):
        values = _extract(rasters, stations, radius_m)
    else:
        if isinstance(rasters, str | Path | xr.DataArray):
            raise SmgeoError(
                f"extract: rasters is a Dataset or the spec of a source, such as {{path: ..., bands: {{elevation: 1}}}}; got "
                f"a {type(rasters).__name__}"
            )
        spec = parse_raster(rasters, "extract")
        update = {} if radius_m is None else {"radius_m": radius_m}
        values = open_source(spec.model_copy(update=update), root=root, stations=stations, catalog=catalog)
    return drop_left_out(values)


def _extract(rasters: xr.Dataset, stations: xr.Dataset, radius_m: float | None) -> xr.Dataset:
    """Values at all stations, missing at those that `attrs["left_out"]` names."""
    box = rasters.odc.geobox
    if box is None or box.crs is None:
        raise SmgeoError("extract: the raster has no CRS; set one with rasters.rio.write_crs('EPSG:...')")
    lons, lats = station_places(stations)
    held = find_footprints(lons, lats, box, None)
    around = held if radius_m is None else find_footprints(lons, lats, box, radius_m)
    ids = stations["station"].values
    if not held.stations.size:
        raise SmgeoError(
            f"extract: none of the {len(ids)} stations lies on the raster ({box.crs}, bounds {tuple(box.boundingbox)}); check the "
            "stations' coordinates and the raster's CRS"
        )
    data: dict[str, Any] = {}
    for name, var in rasters.data_vars.items():
        if not {"y", "x"} <= set(var.dims):  # a calendar variable is the same at every station
            data[str(name)] = var.variable
            continue
        attrs = {k: v for k, v in var.attrs.items() if k != "grid_mapping"}
        lead = [d for d in var.dims if d not in ("y", "x")]
        cyclic = str(name) in FEATURES and FEATURES[str(name)].cyclic
        where = held if cyclic else around
        values = _at_all_stations(
            var.transpose(..., "y", "x").data, where, len(ids), decibels=attrs.get("units") == "dB"
        )
        data[str(name)] = xr.Variable((*lead, "station"), values, attrs).transpose("station", *lead)
    coords = {n: stations[n] for n in stations.coords if n != "time" and "time" not in stations[n].dims}
    coords |= {n: c for n, c in rasters.coords.items() if c.dims == ("time",)}
    left_out = {str(s): "outside the raster" for s in np.delete(ids, held.stations)}
    return xr.Dataset(data, coords, {"left_out": json.dumps(left_out)})


def _at_all_stations(values: Any, where: Footprints, count: int, *, decibels: bool) -> Any:
    """(..., y, x) to (..., station): the mean of each station's pixels, missing where it has none.

    Of a Dask array each chunk that holds a pixel is read by one task, and one more puts together those of a day's chunks.
    """
    if not isinstance(values, da.Array):
        return _means([values[..., where.rows, where.columns]], None, where, count, decibels)
    edges = [np.cumsum((0, *c)) for c in values.chunks[-2:]]
    ys, xs = (np.searchsorted(e, v, "right") - 1 for e, v in zip(edges, (where.rows, where.columns), strict=True))
    members = tiles_of(ys, xs, (1, 1))
    order = np.argsort(np.concatenate(members)) if members else None
    pick, name = (
        f"{n}-{tokenize(values.name, where.rows, where.columns, where.stations, count, decibels)}"
        for n in ("pick", "at")
    )
    blocks = [(int(ys[mine[0]]), int(xs[mine[0]])) for mine in members]
    inside = [
        (where.rows[mine] - edges[0][y], where.columns[mine] - edges[1][x])
        for mine, (y, x) in zip(members, blocks, strict=True)
    ]
    graph: dict[Any, Any] = {}
    for lead in np.ndindex(*values.numblocks[:-2]):
        parts = [(pick, *lead, i) for i in range(len(members))]
        for key, block, pixels in zip(parts, blocks, inside, strict=True):
            graph[key] = (_take, (values.name, *lead, *block), *pixels)
        graph[name, *lead, 0] = (_means, parts, order, where, count, decibels)
    return da.Array(
        HighLevelGraph.from_collections(name, graph, dependencies=[values]),  # type: ignore[list-item]
        name,
        (*values.chunks[:-2], (count,)),
        dtype="float32",
        meta=np.empty((0,) * (values.ndim - 1), "float32"),
    )


def _take(block: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return block[..., rows, columns]


def _means(
    parts: list[np.ndarray], order: np.ndarray | None, where: Footprints, count: int, decibels: bool
) -> np.ndarray:
    pixels = np.concatenate(parts, axis=-1) if len(parts) != 1 else parts[0]
    pixels = pixels[..., order] if order is not None else pixels
    out = np.full((*pixels.shape[:-1], count), np.nan, dtype="float32")
    ids, means = where.mean(np.moveaxis(pixels, -1, 0), decibels=decibels)
    out[..., ids] = np.moveaxis(means, 0, -1)
    return out


def drop_left_out(values: xr.Dataset) -> xr.Dataset:
    """Without the stations that `attrs["left_out"]` names, which a warning names too.

    Raises
    ------
    SmgeoError
        If none is left.
    """
    left_out = json.loads(values.attrs.get("left_out", "{}"))
    kept = ~np.isin(text_of(values["station"]), list(left_out))
    if not kept.any():
        raise SmgeoError(
            f"none of the {kept.size} stations lies on the rasters ({next(iter(left_out.values()))}); check the stations' "
            "coordinates and the rasters' CRS"
        )
    gone = [s for s in text_of(values["station"]) if s in left_out]
    if gone:
        warnings.warn(f"{len(gone)} station(s) outside the raster are left out: {', '.join(gone)}", SmgeoWarning)
    return values.isel(station=np.flatnonzero(kept))


def merge_stations(sources: Sequence[xr.Dataset], period: tuple[Any, Any] | None) -> xr.Dataset:
    """Stations of several sources in one lazy cube, on every day of the period (or of all sources).

    Raises
    ------
    SmgeoError
        If two sources hold the same station, or one variable in different units.
    """
    known = next((ds["climate"].attrs for ds in sources if "climate" in ds.coords), None)
    if known is not None:  # what a source does not know is empty
        sources = [
            ds
            if "climate" in ds.coords
            else ds.assign_coords(climate=("station", np.full(ds.sizes["station"], "", dtype=object), known))
            for ds in sources
        ]
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
    rasters: Sequence[AnyRaster],
    features: Sequence[str],
    target: str,
    root: str | Path,
    catalog: Mapping[str, Feature] = FEATURES,
    *,
    keep: Keep | None = None,
) -> xr.Dataset:
    """The lazy station cube of a study: target, features (from the stations or the rasters), diagnostics.

    A variable that the stations give is taken from them; the rasters give the others. Derived features are
    added. Stations outside a raster are left out of the cube and named in `attrs["left_out"]`.

    Parameters
    ----------
    stations : xarray.Dataset
        Station cube with the target.
    rasters : sequence of raster specs
        Of any kind.
    features, target : names
        What the cube holds.
    root : str or Path
        Where relative paths start.
    catalog : mapping
        Kind and unit of each variable.
    keep : callable, optional
        Given the name and the lazy values of each source at all stations, writes them and opens them again, so that an
        interrupted build goes on where it was.
    """
    days = pd.DatetimeIndex(stations.indexes["time"])
    needed = {n for f in features for n in (f, *catalog[f].derived_from)} | {target}
    wanted = _terrain_wanted(features, rasters, stations)
    cube = stations
    left_out = json.loads(stations.attrs.get("left_out", "{}"))
    for number, source in enumerate(rasters):
        bands = [n for n in source.bands if n in needed and n not in cube]
        slopes = wanted if "elevation" in source.bands else []
        if not bands and not slopes:
            continue
        values = station_values(source, bands, slopes, stations, (days[0], days[-1]), root, catalog)
        values = keep(f"{number}-{source.kind}", values) if keep is not None else values
        values = drop_left_out(values.sel(station=cube["station"]))
        left_out |= json.loads(values.attrs["left_out"])
        kept = cube.sel(station=values["station"])
        cube = kept.assign({n: v.variable for n, v in values.data_vars.items()})
    cube = derive_features(cube, features)
    diagnostics = [str(n) for n, v in cube.data_vars.items() if v.attrs.get("kind") == "diagnostic"]
    return cube[[*features, target, *diagnostics]].assign_attrs(left_out=json.dumps(left_out), title="station cube")


def station_values(
    source: AnyRaster,
    bands: Sequence[str],
    slopes: Sequence[str],
    stations: xr.Dataset,
    period: tuple[Any, Any],
    root: str | Path,
    catalog: Mapping[str, Feature],
) -> xr.Dataset:
    """What one source gives at all stations, lazily; those it does not cover are missing and in `attrs["left_out"]`."""
    parts = []
    if bands:
        spec = source.model_copy(update={"bands": {n: source.bands[n] for n in bands}})
        parts.append(open_source(spec, root=root, stations=stations, period=period, catalog=catalog))
    if slopes:
        if not isinstance(source, RasterSource | GriddedSource):
            raise SmgeoError(
                f"{', '.join(slopes)} at stations: {source.label} gives elevation at the stations alone, and slope needs the "
                "pixels around them; name slope and aspect in bands (earthengine), or give a raster of elevation"
            )
        # Terrain needs the pixels around a station, so it is derived on the raster's own grid.
        spec = source.model_copy(update={"bands": {"elevation": source.bands["elevation"]}})
        elevation = open_source(spec, root=root, catalog=catalog)["elevation"]
        parts.append(_extract(terrain(elevation)[list(slopes)], stations, source.radius_m))
    return parts[0] if len(parts) == 1 else parts[0].assign({n: v.variable for n, v in parts[1].data_vars.items()})


def _terrain_wanted(features: Sequence[str], rasters: Sequence[AnyRaster], given: Iterable[Any] = ()) -> list[str]:
    """Slope and aspect where they are features that no source gives and a raster of elevation can."""
    has = {n for source in rasters for n in source.bands}
    return [n for n in TERRAIN if n in features and n not in has and n not in given] if "elevation" in has else []


def _terrain_on_grid(
    names: list[str], rasters: Sequence[AnyRaster], box: GeoBox, root: str | Path, catalog: Mapping[str, Feature]
) -> dict[str, xr.Variable]:
    """Slope and aspect on the grid, of elevation resampled onto it and one pixel further, so that its border has values."""
    source = next(s for s in rasters if "elevation" in s.bands)
    spec = source.model_copy(update={"bands": {"elevation": source.bands["elevation"]}})
    elevation = open_source(spec, root=root, geobox=box.pad(1), catalog=catalog)["elevation"]
    inner = terrain(elevation).isel(y=slice(1, -1), x=slice(1, -1))
    # Without coordinates: those of the wider grid may differ from the grid's in the last digit.
    return {n: inner[n].variable for n in names}


def write_station_cube(
    ds: xr.Dataset, path: str | Path, *, token: str | None = None, progress: Progress | None = None
) -> Path:
    """Write a station cube, then put the revisit measured at each station into its variables' attributes.

    `revisit_days` is then a list, and `revisit_stations` the ids that its numbers belong to, so that stations may be
    chosen, sorted or joined to others afterwards.
    """
    path = write_cube(ds, path, token=token, progress=progress)
    group = zarr.open_group(path, mode="r+")
    written = xr.open_zarr(path, consolidated=False, chunks={})
    ids = text_of(written["station"]).tolist()
    for name in variables_of_kind(written, "dynamic"):
        nominal = float(written[name].attrs.get("revisit_days", 1.0))
        days = measure_revisit(written[name]).values
        group[name].attrs["revisit_days"] = [nominal if math.isnan(d) else float(d) for d in days]
        group[name].attrs["revisit_stations"] = ids
    seal(path)
    return path


def build_grid_cube(
    rasters: Sequence[AnyRaster],
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
            parts.append(open_source(spec, root=root, geobox=box, period=period, catalog=catalog))
    cube = parts[0].assign({n: v.variable for part in parts[1:] for n, v in part.data_vars.items()})
    moving = [part for part in parts if "time" in part.dims]
    if moving and all(part.attrs.get("days_observed") == 0 for part in moving):
        first, last = (pd.Timestamp(p).date() for p in period)
        raise SmgeoError(f"no source has an observation between {first} and {last}, so the grid cube would be empty")
    if moving:
        cube = cube.assign_coords(time=moving[0]["time"]).drop_vars(DAY_INPUTS, errors="ignore")
    if moving and all(DAY_INPUTS in part.coords for part in moving):
        cube = cube.assign_coords({DAY_INPUTS: ("time", _join_inputs([part[DAY_INPUTS].values for part in moving]))})
    if "time" not in cube.coords:
        cube = cube.assign_coords(
            time=pd.date_range(pd.Timestamp(period[0]), pd.Timestamp(period[1]), freq="D", name="time")
        )
    if wanted := _terrain_wanted(features, rasters):
        cube = cube.assign(_terrain_on_grid(wanted, rasters, box, root, catalog))
    # What a source says of itself (days observed, requests) is not said of the cube.
    derived = derive_features(cube.drop_attrs(deep=False), features)
    return derived[list(features)].assign_attrs(title="grid cube")


def check_ranges(ds: xr.Dataset, catalog: Mapping[str, Feature], where: str) -> None:
    """Refuse a variable most of whose values are impossible: it is in another unit.

    Raises
    ------
    SmgeoError
        Naming the first such variable, the share, the valid range and the median.
    """
    for name in map(str, ds.data_vars):
        if name not in catalog:
            continue
        low, high = catalog[name].valid_range
        values = ds[name].values[np.isfinite(ds[name].values)]
        outside = float(np.mean((values < low) | (values > high))) if values.size else 0.0
        if outside > _MOSTLY:
            raise SmgeoError(
                f"{where}: {outside:.0%} of the values of {name} lie outside {low:g} to {high:g} {catalog[name].units} (median "
                f"{np.median(values):g}), so they are in another unit: give scale, offset or convert for {name}, or a variable "
                "of your own with its valid_range"
            )


def check_grid_ranges(cube: xr.Dataset, rasters: Sequence[AnyRaster], catalog: Mapping[str, Feature]) -> None:
    """`check_ranges` of what files give, on the middle block of the first, middle and last days, before a cube is written."""
    for source in rasters:
        names = [n for n in source.bands if n in cube and isinstance(source, RasterSource | GriddedSource)]
        for alike in ([n for n in names if "time" in cube[n].dims], [n for n in names if "time" not in cube[n].dims]):
            if not alike:
                continue
            chunks = cube[alike[0]].chunksizes
            parts = {d: [0, len(c) // 2, len(c) - 1] if d == "time" else [len(c) // 2] for d, c in chunks.items()}
            for place in dict.fromkeys(itertools.product(*parts.values())):
                edges = {d: np.cumsum((0, *chunks[d])) for d in parts}
                block = {d: slice(edges[d][i], edges[d][i + 1]) for d, i in zip(parts, place, strict=True)}
                check_ranges(cube[alike].isel(block).compute(), catalog, f"rasters {source.label!r}")


def _join_inputs(sources: Sequence[np.ndarray]) -> np.ndarray:
    """One digest a day of what several sources read."""
    return np.array([tokenize(*map(str, day)) for day in zip(*sources, strict=True)], dtype=object)
