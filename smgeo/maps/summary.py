"""Summary of a map: shares of pixels, and numbers of each day, gathered while its blocks are made, so that no finished map is read for them."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TypedDict

import numpy as np
import xarray as xr
import zarr

from smgeo.catalog import FEATURES
from smgeo.cube.executor import Values
from smgeo.cube.reading import open_cube, open_store
from smgeo.errors import SmgeoWarning
from smgeo.files import JsonObject
from smgeo.maps.block import APPLICABLE, Outputs
from smgeo.maps.layout import NO_FLAG, map_variables

# Attribute of the estimate with the numbers of each day, as JSON: netCDF knows no attributes of more structure.
DAILY = "daily_summary"


class DaySummary(TypedDict):
    """The estimates of one day; mean, min and max are None if no pixel has a value.

    Attributes
    ----------
    date : str
        ISO 8601.
    share : float
        Share of the region's pixels that have a value.
    mean, min, max : float or None
        In the target's unit.
    """

    date: str
    share: float
    mean: float | None
    min: float | None
    max: float | None


class MapSummary(TypedDict):
    """A finished map.

    Attributes
    ----------
    dates : list of str
        Days of the map.
    nodata_share : float
        Share of the region's pixels on all days that have no value.
    impossible_share : float
        Share of the values outside the variable's valid range.
    share_inside : float or None
        Share of the values inside the model's area of applicability; None if the map has no such flag or no value.
    days : list of DaySummary
        Numbers of each day; empty for stores from before they were gathered.
    """

    dates: list[str]
    nodata_share: float
    impossible_share: float
    share_inside: float | None
    days: list[DaySummary]


def summarise_block(values: Values, outputs: Outputs) -> JsonObject:
    """Return the counts of a block, and count, sum, min and max of its estimates on each day, as JSON types."""
    estimate = values[outputs.target]
    low, high = _valid_range(outputs.target)
    out: JsonObject = {"impossible": int(((estimate < low) | (estimate > high)).sum()), "days": []}
    if outputs.applicable:
        flag = values[APPLICABLE]
        out |= {"flagged": int((flag != NO_FLAG).sum()), "inside": int((flag == 1).sum())}
    for day in estimate:
        known = day[~np.isnan(day)]
        # Nine digits: all of float32, and ledgers of many days stay small.
        numbers = (known.sum(dtype="float64"), known.min(), known.max()) if known.size else ()
        out["days"].append([known.size, *(float(f"{n:.9g}") for n in numbers)])
    return out


def write_summary(store: Path, blocks: Collection[JsonObject], outputs: Outputs, inside: xr.DataArray | None) -> None:
    """Write the summary of a map into its attributes, from those of its blocks; warn if it has no value, or impossible ones.

    Parameters
    ----------
    store : Path
        The map, with all blocks in place.
    blocks : collection
        What `summarise_block` gave for each block.
    outputs : Outputs
    inside : xarray.DataArray of bool, or None
        (y, x): pixels of the region; None for all.
    """
    ds = open_store(store, dask=False)
    dates = [str(d)[:10] for d in ds["time"].values]
    pixels = ds.sizes["y"] * ds.sizes["x"] if inside is None else int(inside.sum())
    days = [_sum_day(date, [b["days"][i] for b in blocks], pixels) for i, date in enumerate(dates)]
    count = sum(day[0] for b in blocks for day in b["days"])
    impossible = sum(b["impossible"] for b in blocks)
    group = zarr.open_group(store, mode="r+")
    impossible_share = round(impossible / max(count, 1), 6)
    group[outputs.target].attrs.update(
        nodata_share=round(1 - count / (len(dates) * pixels), 6),
        impossible_share=impossible_share,
        **{DAILY: json.dumps(days)},
    )
    if outputs.applicable:
        flagged, within = (sum(b[key] for b in blocks) for key in ("flagged", "inside"))
        group[APPLICABLE].attrs["share_inside"] = round(within / flagged, 6) if flagged else None
    if not count:
        warnings.warn(
            "no pixel of the map has a value: features are missing everywhere in it", SmgeoWarning, stacklevel=2
        )
    if impossible_share:
        low, high = _valid_range(outputs.target)
        warnings.warn(
            f"{impossible_share:.3%} of the map's values of {outputs.target} are outside {low:g} to {high:g}: the model is extrapolating "
            "beyond its training data",
            SmgeoWarning,
            stacklevel=2,
        )


def _sum_day(date: str, blocks: list[list[float]], pixels: int) -> DaySummary:
    """Return the summary of a day from [count, sum, min, max] of each block, [0] for a block without values."""
    known = [b for b in blocks if b[0]]
    count = int(sum(b[0] for b in known))
    return {
        "date": date,
        "share": round(count / pixels, 6),
        # A sum that does not depend on the order of blocks.
        "mean": round(math.fsum(b[1] for b in known) / count, 6) if count else None,
        "min": round(min(b[2] for b in known), 6) if count else None,
        "max": round(max(b[3] for b in known), 6) if count else None,
    }


def _valid_range(target: str) -> tuple[float, float]:
    return FEATURES[target].valid_range if target in FEATURES else (-np.inf, np.inf)


def read_summary(store: str | Path) -> MapSummary:
    """Return the summary of a map store from its attributes; no value of the map is read.

    Raises
    ------
    SmgeoError
        If there is no map at `store`.
    """
    ds = open_cube(store, dask=False)
    estimate = ds[map_variables(ds, store)[0]].attrs
    return {
        "dates": [str(d)[:10] for d in ds["time"].values],
        "nodata_share": estimate["nodata_share"],
        "impossible_share": estimate["impossible_share"],
        "share_inside": ds[APPLICABLE].attrs["share_inside"] if APPLICABLE in ds else None,
        "days": json.loads(estimate.get(DAILY, "[]")),
    }
