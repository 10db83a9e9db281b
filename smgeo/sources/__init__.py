"""One module a kind of source; each turns a spec into a lazy Dataset and knows nothing of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.rasters import AnyRaster, EarthEngineSource, GriddedSource, RasterSource, StacSource, parse_raster
from smgeo.sources.earthengine.reader import open_earthengine
from smgeo.sources.gridded.reader import gridded_files, open_gridded
from smgeo.sources.scenes.geotiff import geotiff_files, open_geotiffs
from smgeo.sources.stac.reader import open_stac
from smgeo.sources.stations.ismn import open_ismn
from smgeo.sources.stations.matrix import open_matrix
from smgeo.sources.stations.tables import open_table
from smgeo.sources.stations.tereno import open_tereno
from smgeo.sources.world.simulation import simulate

__all__ = ["open_earthengine", "open_rasters", "open_source", "open_stac", "open_stations", "raster_files", "simulate"]


def _open_table(path: Any, depth_m: Any, period: Any, flags: Any, **options: Any) -> xr.Dataset:
    return open_table(path, depth_m, period, **options)


def _open_matrix(path: Any, depth_m: Any, period: Any, flags: Any, **options: Any) -> xr.Dataset:
    return open_matrix(path, depth_m, period, **options)


_KINDS: dict[str, Callable[..., xr.Dataset]] = {
    "ismn": open_ismn,
    "tereno": open_tereno,
    "csv": _open_table,
    "matrix": _open_matrix,
}


def open_stations(
    path: str | Path,
    kind: str = "ismn",
    depth_m: tuple[float, float] = (0.0, 0.10),
    period: tuple[Any, Any] | None = None,
    flags: Sequence[str] = ("G",),
    **options: Any,
) -> xr.Dataset:
    """Station series of an archive, a table or matrices, as a lazy daily station cube.

    Parameters
    ----------
    path : str or Path
        Archive, table or folder.
    kind : {"ismn", "tereno", "csv", "matrix"}
        Reader. Its own options are those of

        - `smgeo.sources.stations.ismn.open_ismn`: `target`, `variables`, `networks`, `min_valid_share`, `depth_rule`, `nearest_to_m`;
        - `smgeo.sources.stations.tereno.open_tereno`: the same without `networks`, and `columns`, `stations`, `network`, `time_column`,
          `time_format`, `utc_offset_hours`, `separator`, `missing`;
        - `smgeo.sources.stations.tables.open_table`: `columns`, `target`, `layout`, `stations`, `crs`, `network`, `min_valid_share`,
          `utc_offset_hours`;
        - `smgeo.sources.stations.matrix.open_matrix`: `variables`, `static`, `target`, `years`, `missing`, `network`, `coordinates`,
          `dates`, `static_folder`.
    depth_m : (float, float)
        Range of sensor depths, m below the surface; a matrix has none.
    period : (date, date), optional
        First and last day.
    flags : sequence of str
        Quality flags that count as valid: ISMN's, or TERENO's (`G` stands for its `ok`). Tables and matrices have none.

    Returns
    -------
    xarray.Dataset
        Dims (station, time), float32, days in UTC; what was left out, and why, in `attrs["left_out"]` (JSON); what was counted
        on the way in variables of kind `diagnostic`; what a station's target is made of in the coordinate `sensors` (JSON).

    Raises
    ------
    SmgeoError
        If the kind is unknown, or the reader refuses the input.
    """
    if kind not in _KINDS:
        raise SmgeoError(f"unknown kind of stations {kind!r}; {nearest(kind, list(_KINDS))}")
    return _KINDS[kind](path, depth_m, period, flags, **options)


_RASTERS: dict[type, Callable[..., xr.Dataset]] = {
    RasterSource: open_geotiffs,
    GriddedSource: open_gridded,
    EarthEngineSource: open_earthengine,
    StacSource: open_stac,
}


def open_source(
    spec: AnyRaster,
    *,
    root: str | Path = ".",
    geobox: GeoBox | None = None,
    stations: xr.Dataset | None = None,
    period: tuple[Any, Any] | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """The rasters of one source of any kind, lazily, on a grid or at stations; parameters as of `open_rasters`."""
    return _RASTERS[type(spec)](spec, root=root, geobox=geobox, stations=stations, period=period, catalog=catalog)


def open_rasters(
    spec: RasterSource | GriddedSource | Mapping[str, Any],
    *,
    root: str | Path = ".",
    geobox: GeoBox | None = None,
    stations: xr.Dataset | None = None,
    period: tuple[Any, Any] | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Rasters in files, lazily: GeoTIFF and COG (local, http, s3, gs), NetCDF, HDF5, Zarr, CSV grids.

    Parameters
    ----------
    spec : RasterSource, GriddedSource or mapping
        `kind` (geotiff where a mapping says none; netcdf, zarr, csv_grid), `path`, `bands`, and the options of
        `smgeo.sources.scenes.geotiff.open_geotiffs` or `smgeo.sources.gridded.reader.open_gridded`.
    root : str or Path
        Where relative paths start.
    geobox : odc.geo.geobox.GeoBox, optional
        Target grid; without it and without stations, the files' own.
    stations : xarray.Dataset, optional
        With latitude and longitude on `station`: values there instead of a grid.
    period : (date, date), optional
        Gives every day of the period; by default the days that the files have.
    catalog : mapping
        Kind and unit of each variable.

    Returns
    -------
    xarray.Dataset
        float32, lazy; (time, y, x), (y, x), or at stations (station, time), (station,).

    Raises
    ------
    SmgeoError
        If the spec or a file is not as it must be.
    """
    source = parse_raster(spec, "open_rasters")
    return open_source(source, root=root, geobox=geobox, stations=stations, period=period, catalog=catalog)


def raster_files(spec: AnyRaster, root: str | Path) -> list[Path]:
    """The local files a source reads; none of a remote one."""
    if isinstance(spec, RasterSource):
        return geotiff_files(spec, root)
    found = gridded_files(spec, root) if isinstance(spec, GriddedSource) else []
    return [f for f in found if isinstance(f, Path)]
