"""Checks of cubes against the catalogue's valid ranges."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from smgeo.catalog import Feature
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import AnyRaster, GriddedSource, RasterSource

_MOSTLY = 0.5  # a larger share of impossible values is not due to outliers


def check_ranges(ds: xr.Dataset, catalog: Mapping[str, Feature], where: str) -> None:
    """Refuse a variable if most of its values are impossible, because it is then in another unit.

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
                f"{where}: {outside:.0%} of the values of {name} are outside {low:g} to {high:g} {catalog[name].units} (median "
                f"{np.median(values):g}), so they are in another unit: give scale, offset or convert for {name}, or a variable "
                "of your own with its valid"
            )


def check_grid_ranges(cube: xr.Dataset, rasters: Sequence[AnyRaster], catalog: Mapping[str, Feature]) -> None:
    """Apply `check_ranges` to variables from files, on the middle block of the first, middle and last days, before a cube is written."""
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
