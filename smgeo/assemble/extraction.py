# Classes of dask.array have no types.
# mypy: untyped-calls-exclude="dask"
"""Raster values at stations."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.typing import Key

from smgeo.bounds import check_given
from smgeo.catalog import FEATURES, Feature
from smgeo.cube.schema import PIXEL_SIZE, text_of
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.recipe.rasters import AnyRaster, parse_raster
from smgeo.sources import open_source
from smgeo.sources.pixels.footprint import Footprints, find_footprints, station_places, tiles_of
from smgeo.sources.pixels.sizes import longer_sides, size_attr


def extract(
    rasters: xr.Dataset | AnyRaster | Mapping[str, object],
    stations: xr.Dataset,
    method: str = "nearest",
    radius_m: float | None = None,
    *,
    root: str | Path = ".",
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Return raster values at stations: of the pixel that contains a station, or the mean of its footprint.

    Parameters
    ----------
    rasters : xarray.Dataset, or the spec of a source
        Dims (time, y, x) or (y, x), with a CRS; lazy or not. Each of its Dask chunks is read once, however many
        stations it contains. A spec (as in a recipe) is read scene by scene, each in its own CRS: stations around the
        world share no grid.
    stations : xarray.Dataset
        With coordinates `latitude` and `longitude` (EPSG:4326) on `station`.
    method : {"nearest", "mean"}
        The pixel whose area contains the station, or the mean of those whose centres are within `radius_m`.
    radius_m : float, optional
        Radius of the footprint on the ellipsoid, m; if given, the method is `mean`. Decibels are averaged in linear power;
        aspect, which has no mean, is that of the pixel.
    root, catalog : optional
        For a spec: the folder where relative paths start, and kind and unit of each variable.

    Returns
    -------
    xarray.Dataset
        Dims (station, time) or (station,), as lazy as `rasters`. Stations outside the raster are left out, named
        in a warning and in `attrs["left_out"]`. The attribute `pixel_size_m` of a static variable is the longer side of its pixels on
        the ground at the stations (their median), m.

    Raises
    ------
    SmgeoError
        If the raster has no CRS, contains no station, or the mean has no radius.
    """
    check_given("extract", radius_m=radius_m)
    if method not in ("nearest", "mean") or (method == "mean" and radius_m is None):
        raise SmgeoError(f"extract: method is nearest, or mean with radius_m > 0; got {method!r}, radius_m={radius_m}")
    if isinstance(rasters, xr.Dataset):
        values = extract_all(rasters, stations, radius_m)
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


def extract_all(rasters: xr.Dataset, stations: xr.Dataset, radius_m: float | None) -> xr.Dataset:
    """Return values at all stations, missing at those that `attrs["left_out"]` names.

    Raises
    ------
    SmgeoError
        If the raster has no CRS or contains no station.
    """
    box = rasters.odc.geobox
    if box is None or box.crs is None:
        raise SmgeoError("extract: the raster has no CRS; set one with rasters.rio.write_crs('EPSG:...')")
    lons, lats = station_places(stations)
    pixels = find_footprints(lons, lats, box, None)
    around = pixels if radius_m is None else find_footprints(lons, lats, box, radius_m)
    ids = stations["station"].values
    if not pixels.stations.size:
        raise SmgeoError(
            f"extract: none of the {len(ids)} stations is on the raster ({box.crs}, bounds {tuple(box.boundingbox)}); check the "
            "stations' coordinates and the raster's CRS"
        )
    size = size_attr(longer_sides(box, lons[pixels.stations], lats[pixels.stations]))
    data: dict[str, xr.Variable] = {}
    for name, var in rasters.data_vars.items():
        if not {"y", "x"} <= set(var.dims):  # a calendar variable is the same at every station
            data[str(name)] = var.variable
            continue
        attrs = {k: v for k, v in var.attrs.items() if k not in ("grid_mapping", PIXEL_SIZE)}
        lead = [d for d in var.dims if d not in ("y", "x")]
        cyclic = str(name) in FEATURES and FEATURES[str(name)].cyclic
        where = pixels if cyclic else around
        values = _at_all_stations(
            var.transpose(..., "y", "x").data, where, len(ids), decibels=attrs.get("units") == "dB"
        )
        if not lead:
            attrs |= size
        data[str(name)] = xr.Variable((*lead, "station"), values, attrs).transpose("station", *lead)
    coords = {n: stations[n] for n in stations.coords if n != "time" and "time" not in stations[n].dims}
    coords |= {n: c for n, c in rasters.coords.items() if c.dims == ("time",)}
    left_out = {str(s): "outside the raster" for s in np.delete(ids, pixels.stations)}
    return xr.Dataset(data, coords, {"left_out": json.dumps(left_out)})


def _at_all_stations(
    values: np.ndarray | da.Array, where: Footprints, count: int, *, decibels: bool
) -> np.ndarray | da.Array:
    """Turn (..., y, x) into (..., station): the mean of each station's pixels, missing if it has none.

    Each chunk of a Dask array that contains a pixel is read by one task, and one more joins those of a day's chunks.
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
    graph: dict[Key, tuple[object, ...]] = {}
    for lead in np.ndindex(*values.numblocks[:-2]):
        parts = [(pick, *lead, i) for i in range(len(members))]
        for key, block, pixels in zip(parts, blocks, inside, strict=True):
            graph[key] = (_take, (values.name, *lead, *block), *pixels)
        graph[name, *lead, 0] = (_means, parts, order, where, count, decibels)
    return da.Array(
        # Dask's types do not know that an Array is a collection.
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
    """Drop the stations that `attrs["left_out"]` names, with a warning that names them.

    Raises
    ------
    SmgeoError
        If no station is left.
    """
    left_out = json.loads(values.attrs.get("left_out", "{}"))
    kept = ~np.isin(text_of(values["station"]), list(left_out))
    if not kept.any():
        raise SmgeoError(
            f"none of the {kept.size} stations is on the rasters ({next(iter(left_out.values()))}); check the stations' "
            "coordinates and the rasters' CRS"
        )
    gone = [s for s in text_of(values["station"]) if s in left_out]
    if gone:
        warnings.warn(f"{len(gone)} station(s) outside the raster are left out: {', '.join(gone)}", SmgeoWarning)
    return values.isel(station=np.flatnonzero(kept))
