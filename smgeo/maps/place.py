"""Places where a map may be written: new ones, and those of a map."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import xarray as xr

from smgeo.errors import SmgeoError
from smgeo.files import check_replaceable, load_json
from smgeo.maps.cog import find_cogs
from smgeo.maps.layout import IDENTITY

# Files of folders of another kind.
_OF_OTHERS = ("zarr.json", "model.json", "results.json", "recipe.yaml")


def check_place(out: Path, cube: xr.Dataset) -> None:
    """Refuse to overwrite anything but a map.

    Raises
    ------
    SmgeoError
        If `out` is a file, the root folder, a folder of another kind, or the cube itself.
    """
    source = cube.encoding.get("source")
    if source and Path(source).resolve() == out.resolve():
        raise SmgeoError(f"{out} is the cube to map; give another path")
    if not out.resolve().name:
        raise SmgeoError(f"{out} is the root of all files; give a folder for GeoTIFFs, or a path that ends in .zarr")
    if out.is_file() or out.suffix.lower() in (".tif", ".tiff"):
        raise SmgeoError(
            f"{out} is a file; give a folder for GeoTIFFs, one for each date, or a path that ends in .zarr"
        )
    if out.suffix != ".zarr":
        found = [name for name in _OF_OTHERS if (out / name).exists()]
        if found:
            raise SmgeoError(f"{out} contains {found[0]}, so it is not a folder of maps; give another folder")
        return
    check_replaceable(out, "zarr.json")
    if (out / "zarr.json").is_file():
        attributes = load_json(out / "zarr.json", f"remove {out}, or give another path").get("attributes")
        if not isinstance(attributes, dict) or "smgeo_model" not in attributes:
            raise SmgeoError(
                f"{out} is a Zarr store but not a map; refusing to overwrite it: give another path, or remove it"
            )


def check_others(folder: Path, days: pd.DatetimeIndex, identity: str) -> None:
    """Refuse to add maps to a folder of maps of another model, place or level.

    Raises
    ------
    SmgeoError
        If the folder contains such maps of days that are not overwritten.
    """
    again = {str(day.date()) for day in days}
    for path, tags in find_cogs(folder, but=again).values():
        if tags.get(IDENTITY) != identity:
            raise SmgeoError(
                f"{folder} contains maps of another model, place or level ({path.name}); give another folder, so that each contains one map"
            )
