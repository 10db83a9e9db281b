"""The grid of a study and its cube."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import xarray as xr
from dask.base import tokenize
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from pyproj import CRS
from pyproj.exceptions import CRSError

from smgeo.assemble.slopes import choose_slopes, derive_slopes
from smgeo.catalog import FEATURES, Feature
from smgeo.cube.schema import DAY_INPUTS
from smgeo.errors import SmgeoError
from smgeo.prepare import derive_features
from smgeo.recipe.grid import GridSpec
from smgeo.recipe.rasters import AnyRaster
from smgeo.sources import open_source


def open_grid(spec: GridSpec, root: str | Path) -> GeoBox:
    """Return the grid that a recipe describes.

    Raises
    ------
    SmgeoError
        If the raster of `like` is missing, cannot be opened or has no CRS, or the CRS is unknown.
    """
    if spec.like is not None:
        path = Path(root) / spec.like
        if not path.is_file():
            raise SmgeoError(f"grid.like: {path} not found (relative paths start at --data)")
        try:
            opened = rasterio.open(path)
        except rasterio.errors.RasterioIOError as error:
            raise SmgeoError(f"grid.like: {path} cannot be opened as a raster: {error}") from None
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
        CRS(spec.crs)
    except CRSError as error:
        raise SmgeoError(
            f"grid.crs: {spec.crs!r} is not a CRS known to PROJ ({error}); write one such as EPSG:32632"
        ) from None
    return GeoBox.from_bbox(BoundingBox(*spec.bounds, crs=spec.crs), resolution=spec.resolution, tight=True)


def build_grid_cube(
    rasters: Sequence[AnyRaster],
    box: GeoBox,
    features: Sequence[str],
    period: tuple[dt.date | str, dt.date | str],
    root: str | Path,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Return the lazy grid cube of a study: every feature on the grid and every day of the period.

    Raises
    ------
    SmgeoError
        If no source has an observation in the period.
    """
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
    if slopes := choose_slopes(features, rasters):
        source = next(s for s in rasters if "elevation" in s.bands)
        derived = derive_slopes(slopes, source, box, root, catalog)
        cube = cube.assign({n: derived[n].variable for n in slopes})
    # The attributes of a source (days observed, requests) do not describe the cube.
    derived = derive_features(cube.drop_attrs(deep=False), features)
    return derived[list(features)].assign_attrs(title="grid cube")


def _join_inputs(sources: Sequence[np.ndarray]) -> np.ndarray:
    """One digest a day, of those of several sources."""
    return np.array([tokenize(*map(str, day)) for day in zip(*sources, strict=True)], dtype=object)
