"""Where a map may be written: on nothing, or on a map."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import xarray as xr

from smgeo.errors import SmgeoError
from smgeo.files import check_replaceable
from smgeo.maps.cog import find_cogs

# Tag of a map's GeoTIFFs, and after `smgeo_` attribute of its store: model, place and what is told, which all days of one map share.
IDENTITY = "map"
# What folders of another kind hold.
_OF_OTHERS = ("zarr.json", "model.json", "results.json", "recipe.yaml")


def check_place(out: Path, cube: xr.Dataset) -> None:
    """Refuse to write over what is no map.

    Raises
    ------
    SmgeoError
        If `out` is a file, a folder of another kind, or the cube itself.
    """
    source = cube.encoding.get("source")
    if source and Path(source).resolve() == out.resolve():
        raise SmgeoError(f"{out} is the cube that is mapped; give another path")
    if out.is_file() or out.suffix.lower() in (".tif", ".tiff"):
        raise SmgeoError(f"{out} is one file; give a folder for GeoTIFFs, one a date, or a path that ends in .zarr")
    if out.suffix != ".zarr":
        found = [name for name in _OF_OTHERS if (out / name).exists()]
        if found:
            raise SmgeoError(f"{out} holds {found[0]}, so it is no folder of maps; give a folder of their own")
        return
    check_replaceable(out, "zarr.json")
    if (out / "zarr.json").is_file():
        said = json.loads((out / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
        if "smgeo_model" not in said:
            raise SmgeoError(
                f"{out} is a Zarr store, but no map, and would be replaced; give another path, or remove it"
            )


def check_others(folder: Path, days: pd.DatetimeIndex, identity: str) -> None:
    """Refuse to put maps beside those of another model, place or level.

    Raises
    ------
    SmgeoError
        If the folder holds such maps of days that are not made again.
    """
    again = {str(day.date()) for day in days}
    for path, tags in find_cogs(folder, but=again).values():
        if tags.get(IDENTITY) != identity:
            raise SmgeoError(
                f"{folder} holds maps of another model, place or level ({path.name}); give another folder, so that each holds one map"
            )
