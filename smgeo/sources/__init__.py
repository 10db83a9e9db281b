"""One module a kind of source; each turns a spec into a lazy Dataset and knows nothing of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox

from smgeo.bounds import check_each, check_period
from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import AnyRaster, EarthEngineSource, GriddedSource, RasterSource, StacSource, parse_raster
from smgeo.recipe.station_source import StationSource
from smgeo.recipe.stations import AnySource, IsmnSource, MatrixSource, TerenoSource, parse_stations
from smgeo.recipe.tables import PLACE_COLUMNS, TableSource
from smgeo.sources.earthengine.reader import open_earthengine
from smgeo.sources.gridded.reader import gridded_files, open_gridded
from smgeo.sources.scenes.geotiff import geotiff_files, open_geotiffs
from smgeo.sources.stac.reader import open_stac
from smgeo.sources.stations.ismn import open_ismn
from smgeo.sources.stations.layout import Period
from smgeo.sources.stations.matrix import open_matrix
from smgeo.sources.stations.tables import open_table
from smgeo.sources.stations.tereno import open_tereno
from smgeo.sources.world.simulation import simulate

__all__ = [
    "open_earthengine",
    "open_rasters",
    "open_source",
    "open_stac",
    "open_station_source",
    "open_stations",
    "raster_files",
    "simulate",
]

_STATIONS: dict[type[StationSource], Callable[..., xr.Dataset]] = {
    IsmnSource: open_ismn,
    TerenoSource: open_tereno,
    TableSource: open_table,
    MatrixSource: open_matrix,
}


def open_station_source(
    spec: AnySource,
    *,
    root: str | Path = ".",
    target: str = "sm",
    depth_m: tuple[float, float] = (0.0, 0.10),
    period: Period | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Return the stations of one source of any kind, lazily; a matrix, and a table without depths, do not use `depth_m`."""
    check_period("open_stations", period)
    return _STATIONS[type(spec)](spec, root=root, target=target, depth_m=depth_m, period=period, catalog=catalog)


def open_stations(
    path: str | Path | pd.DataFrame | AnySource | Mapping[str, object],
    kind: str | None = None,
    depth_m: tuple[float, float] | None = None,
    period: Period | None = None,
    flags: Sequence[str] | None = None,
    *,
    target: str = "sm",
    root: str | Path = ".",
    catalog: Mapping[str, Feature] = FEATURES,
    **options: object,
) -> xr.Dataset:
    """Return the stations of an archive, a table or matrices as a lazy daily station cube.

    Parameters
    ----------
    path : str, Path, DataFrame, spec or mapping
        Archive, table or folder; a DataFrame (kind csv), whose columns may have the names of the cube; or a whole source as in
        a recipe's `stations`, with its own `kind`, `flags` and options.
    kind : {"ismn", "tereno", "csv", "matrix"}
        Reader, "ismn" by default. Its options are the attributes of

        - `smgeo.recipe.stations.IsmnSource`: `variables`, `networks`, `min_valid_share`, `depth_rule`, `nearest_to_m`;
        - `smgeo.recipe.stations.TerenoSource`: the same without `networks`, and `columns`, `stations`, `network`, `time_column`,
          `time_format`, `utc_offset_hours`, `separator`, `missing`;
        - `smgeo.recipe.tables.TableSource`: `preset`, `columns`, and how the table is written;
        - `smgeo.recipe.stations.MatrixSource`: `variables`, `static`, `years`, `missing`, `network`, `coordinates`,
          `dates`, `static_folder`.
    depth_m : (float, float)
        Range of sensor depths, m below the surface; (0.0, 0.10) by default. Not for a matrix or a table without a column of depths.
    period : (date, date), optional
        First and last day.
    flags : sequence of str
        Quality flags that count as valid: ISMN's, or TERENO's (`G` stands for its `ok`); ("G",) by default. Tables and
        matrices have none.
    target : str
        The variable that stations must have.
    root : str or Path
        Where relative paths start.
    catalog : mapping
        Kind, unit and valid range of each variable.

    Returns
    -------
    xarray.Dataset
        Dims (station, time), float32, days in UTC. `attrs["left_out"]` (JSON) contains what was left out, with the reason.
        Variables of kind `diagnostic` are counts; the coordinate `sensors` (JSON) lists the sensors of a station's target.

    Raises
    ------
    SmgeoError
        Listing unknown or wrong options, and those that do not apply to the kind; or if the reader refuses the input.
    """
    given = {"kind": kind, "flags": flags}
    options |= {name: value for name, value in given.items() if value is not None}
    frame = path if isinstance(path, pd.DataFrame) else None
    spec: AnySource
    if isinstance(path, pd.DataFrame):
        spec = _table_of(path, options, {target, *(n for n, f in catalog.items() if not f.derived_from)})
    elif isinstance(path, str | Path):
        spec = parse_stations({"path": path, **options}, "open_stations")
    elif options:
        raise SmgeoError(
            f"open_stations: {', '.join(sorted(options))} must be in the source that was passed as first argument"
        )
    else:
        spec = path if isinstance(path, StationSource) else parse_stations(path, "open_stations")
    if depth_m is None:
        depth_m = (0.0, 0.10)
    elif isinstance(spec, MatrixSource):
        raise SmgeoError("open_stations: depth_m does not apply to kind matrix, which has no depths; leave it out")
    elif isinstance(spec, TableSource) and not spec.has_depths:
        raise SmgeoError(
            "open_stations: depth_m needs a column of depths; name it in columns (depth: ...), give depths of columns "
            "(sm: {sm_5cm: 0.05}), or leave depth_m out"
        )
    check_each("open_stations", "depth_m", depth_m, "depth_m")
    check_period("open_stations", period)
    if frame is not None and isinstance(spec, TableSource):
        return open_table(spec, frame=frame, root=root, target=target, depth_m=depth_m, period=period, catalog=catalog)
    return open_station_source(spec, root=root, target=target, depth_m=depth_m, period=period, catalog=catalog)


def _table_of(frame: pd.DataFrame, options: Mapping[str, object], variables: set[str]) -> TableSource:
    """Return the source of a DataFrame: columns that `columns` does not name may have the names of the cube."""
    named = options.get("columns") or {}
    if options.get("kind", "csv") != "csv" or not isinstance(named, Mapping):
        raise SmgeoError("open_stations: a DataFrame is of kind csv, and columns maps names to its columns")
    used = {c for c in named.values() if isinstance(c, str)}
    known = {*PLACE_COLUMNS, *variables} - {*named, *used}
    own = {str(c): str(c) for c in (*frame.index.names, *frame.columns) if c in known}
    if "preset" in options or options.get("layout") == "wide":
        own = {}
    values = {**options, "kind": "csv", "path": "DataFrame", "columns": {**own, **named}}
    spec = parse_stations(values, "open_stations")
    assert isinstance(spec, TableSource)
    return spec


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
    period: Period | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Return the rasters of one source of any kind, lazily, on a grid or at stations; parameters as in `open_rasters`."""
    check_period("open_rasters", period)
    return _RASTERS[type(spec)](spec, root=root, geobox=geobox, stations=stations, period=period, catalog=catalog)


def open_rasters(
    spec: RasterSource | GriddedSource | Mapping[str, object],
    *,
    root: str | Path = ".",
    geobox: GeoBox | None = None,
    stations: xr.Dataset | None = None,
    period: Period | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Return rasters in files, lazily: GeoTIFF and COG (local, http, s3, gs), NetCDF, HDF5, Zarr, CSV grids.

    Parameters
    ----------
    spec : RasterSource, GriddedSource or mapping
        `kind` (geotiff by default; netcdf, zarr, csv_grid), `path`, `bands`, and the options of
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
        If the spec or a file is invalid.
    """
    source = parse_raster(spec, "open_rasters")
    return open_source(source, root=root, geobox=geobox, stations=stations, period=period, catalog=catalog)


def raster_files(spec: AnyRaster, root: str | Path) -> list[Path]:
    """Return the local files that a source reads; none for a remote one."""
    if isinstance(spec, RasterSource):
        return geotiff_files(spec, root)
    found = gridded_files(spec, root) if isinstance(spec, GriddedSource) else []
    return [f for f in found if isinstance(f, Path)]
