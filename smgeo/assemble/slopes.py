"""Slope and aspect, derived from a raster of elevation if no source gives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import xarray as xr
from odc.geo.geobox import GeoBox

from smgeo.assemble.extraction import extract_all
from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import AnyRaster, GriddedSource, RasterSource
from smgeo.sources import open_source
from smgeo.terrain import TERRAIN, terrain


def choose_slopes(
    features: Collection[str], rasters: Sequence[AnyRaster], given: xr.Dataset | None = None
) -> list[str]:
    """Return which of slope and aspect are to be derived: features that no source gives, if one gives elevation."""
    has = {n for source in rasters for n in source.bands}
    there = has if given is None else has.union(map(str, given.variables))
    return [n for n in TERRAIN if n in features and n not in there] if "elevation" in has else []


def derive_slopes(
    names: Sequence[str],
    source: AnyRaster,
    at: GeoBox | xr.Dataset,
    root: str | Path,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Return slope and aspect of the elevation of one source, on a grid or at stations; lazy.

    Parameters
    ----------
    names : sequence of {"slope", "aspect"}
        The variables wanted.
    source : spec of a raster source
        Has the band `elevation`.
    at : GeoBox or xarray.Dataset
        A grid: elevation is resampled onto it and one pixel further, so that its border has values. Or stations: both are derived on
        the raster's own grid, because they need the pixels around a station, and then extracted.
    root, catalog
        As of `smgeo.sources.open_source`.

    Returns
    -------
    xarray.Dataset
        On a grid (y, x), without coordinates; at stations (station,), missing at those that `attrs["left_out"]` names.

    Raises
    ------
    SmgeoError
        If `at` is stations and the source only gives elevation at single places.
    """
    spec = source.model_copy(update={"bands": {"elevation": source.bands["elevation"]}})
    if isinstance(at, GeoBox):
        elevation = open_source(spec, root=root, geobox=at.pad(1), catalog=catalog)["elevation"]
        inner = terrain(elevation)[list(names)].isel(y=slice(1, -1), x=slice(1, -1))
        # The coordinates of the wider grid may differ from the grid's in the last digit.
        return inner.drop_vars(list(inner.coords))
    if not isinstance(source, RasterSource | GriddedSource):
        raise SmgeoError(
            f"{', '.join(names)} at stations: {source.label} gives elevation only at the stations, and slope needs the pixels "
            "around them; name slope and aspect in bands (earthengine), or give a raster of elevation"
        )
    elevation = open_source(spec, root=root, catalog=catalog)["elevation"]
    return extract_all(terrain(elevation)[list(names)], at, source.radius_m)
