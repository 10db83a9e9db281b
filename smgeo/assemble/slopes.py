"""Slope and aspect, derived from a raster of elevation where no source gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from smgeo.catalog import Feature
from smgeo.recipe.rasters import AnyRaster
from smgeo.sources import open_source
from smgeo.terrain import TERRAIN, terrain


def slopes_wanted(features: Sequence[str], rasters: Sequence[AnyRaster], given: Iterable[Any] = ()) -> list[str]:
    """Slope and aspect where they are features that no source gives and a raster of elevation can."""
    has = {n for source in rasters for n in source.bands}
    return [n for n in TERRAIN if n in features and n not in has and n not in given] if "elevation" in has else []


def slopes_on_grid(
    names: list[str], rasters: Sequence[AnyRaster], box: GeoBox, root: str | Path, catalog: Mapping[str, Feature]
) -> dict[str, xr.Variable]:
    """Slope and aspect on the grid, of elevation resampled onto it and one pixel further, so that its border has values."""
    source = next(s for s in rasters if "elevation" in s.bands)
    spec = source.model_copy(update={"bands": {"elevation": source.bands["elevation"]}})
    elevation = open_source(spec, root=root, geobox=box.pad(1), catalog=catalog)["elevation"]
    inner = terrain(elevation).isel(y=slice(1, -1), x=slice(1, -1))
    # Without coordinates: those of the wider grid may differ from the grid's in the last digit.
    return {n: inner[n].variable for n in names}
