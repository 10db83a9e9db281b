"""Distances from held-out stations, and from the pixels of a map, to the nearest training station.

They say what scores are scores of: a model is estimated where it was trained if test stations lie beside training stations, and
not where it is used if a map is farther from them (Milà et al. 2022, Methods Ecol. Evol. 13, 1304-1316).
"""

from __future__ import annotations

import numpy as np
import odc.geo.xr  # noqa: F401 - registers the accessor `.odc`
import pandas as pd
import xarray as xr

from smgeo.cube.schema import PIXEL_SIZE, station_positions
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject
from smgeo.prepare import Split
from smgeo.prepare.places import coordinates_of, nearest_m

# Nearer than this, a held-out station has the weather, and most pixels, of a training station.
_NEAR_M = 1_000.0
# A median below this is the distance of neighbours on one field.
BESIDE_KM = 0.1
# Of the test stations, so many beside training stations make their scores those of a random split.
_MANY = 0.25
# A map whose median distance is more than so many times that of the test stations is farther than they are.
_FARTHER = 2.0
_FAR_MAP = (
    "The map is farther from training stations than the test stations are: errors on it may be larger than the scores."
)
_BESIDE = "Many test stations lie beside training stations: this is a random split in disguise."


def describe_distances(ds: xr.Dataset, split: Split, pixels: np.ndarray | None = None) -> JsonObject:
    """Return the distances of a split: from held-out stations, and pixels of a map, to the nearest training station.

    Great-circle distances. Stations without coordinates are left out.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube with the stations of the split. Coordinates and static variables with the attribute `pixel_size_m` are read.
    split : Split
        By stations; in a split in time distances are not defined.
    pixels : numpy.ndarray, optional
        Latitude and longitude of pixels of a map, degrees, (n, 2), such as `smgeo.prepare.prediction_points.sample_pixels` draws. Not finite ones
        are left out.

    Returns
    -------
    dict
        Empty for a split in time, or if no distance is known. Otherwise:

        - `test` and `validation`, if a station of the part has a distance: `stations` that have one; `km_min`, `km_median`, `km_max`;
          `within_1_km` and `within_100_m`, the numbers of stations nearer than that to a training station; and `shared_pixels`, by static variable the
          number of stations that share a pixel with a training station: nearer than its `pixel_size_m`, and of the same value.
        - `map`, if `pixels` are given: their number `pixels`, `km_median` and `km_max`.
        - `warning`: what the distances say against the scores of the test part, or empty text.

    Raises
    ------
    SmgeoError
        If the cube lacks a station of the split, or `pixels` have another shape.
    """
    if split.periods:
        return {}
    degrees = coordinates_of(ds)
    train = station_positions(ds, split.train)
    out: JsonObject = {}
    for part in ("validation", "test"):
        held = station_positions(ds, getattr(split, part))
        found = _describe_part(ds, degrees, np.array(train, dtype=np.intp), np.array(held, dtype=np.intp))
        out |= {part: found} if found["stations"] else {}
    if pixels is not None:
        found = _describe_map(_check_pixels(pixels), degrees[train])
        out |= {"map": found} if found["pixels"] else {}
    return {**out, "warning": _warn(out)} if out else {}


def _check_pixels(pixels: np.ndarray) -> np.ndarray:
    degrees = np.asarray(pixels, dtype="float64")
    if degrees.ndim != 2 or degrees.shape[1] != 2:
        raise SmgeoError(f"distances: pixels are latitude and longitude, (n, 2); got shape {degrees.shape}")
    return degrees


def _describe_part(ds: xr.Dataset, degrees: np.ndarray, train: np.ndarray, held: np.ndarray) -> JsonObject:
    metres = nearest_m(degrees[held], degrees[train])
    known = metres[np.isfinite(metres)]
    names = [str(n) for n, v in ds.data_vars.items() if v.dims == ("station",) and PIXEL_SIZE in v.attrs]
    layers = sorted(names) if known.size else []  # a store lists its variables in any order
    return {
        "stations": int(known.size),
        **_spread_km(known),
        "within_1_km": int((known < _NEAR_M).sum()),
        "within_100_m": int((known < 1000 * BESIDE_KM).sum()),
        "shared_pixels": {
            n: _count_shared(ds[n].values, degrees, train, held, float(ds[n].attrs[PIXEL_SIZE])) for n in layers
        },
    }


def _describe_map(pixels: np.ndarray, training: np.ndarray) -> JsonObject:
    metres = nearest_m(pixels, training)
    known = metres[np.isfinite(metres)]
    spread = _spread_km(known)
    return {"pixels": int(known.size), "km_median": spread["km_median"], "km_max": spread["km_max"]}


def _spread_km(metres: np.ndarray) -> dict[str, float | None]:
    """Return minimum, median and maximum in km; None without values."""
    three = np.quantile(metres, [0, 0.5, 1]) / 1000 if metres.size else [None] * 3
    names = ("km_min", "km_median", "km_max")
    return {name: None if v is None else float(v) for name, v in zip(names, three, strict=True)}


def _count_shared(values: np.ndarray, degrees: np.ndarray, train: np.ndarray, held: np.ndarray, size_m: float) -> int:
    """Count held-out stations that are nearer than a pixel to a training station of the same value; a missing value is no value."""
    code = np.where(np.isfinite(values), pd.factorize(values)[0], -1)
    total = 0
    for same in np.intersect1d(code[train], code[held]):
        if same >= 0:
            here, there = (degrees[part[code[part] == same]] for part in (held, train))
            total += int((nearest_m(here, there) < size_m).sum())
    return total


def _warn(found: JsonObject) -> str:
    """Return what the distances say against the scores of the test part."""
    if "test" not in found:
        return ""
    test = found["test"]["km_median"]
    farther = "map" in found and found["map"]["km_median"] > _FARTHER * test
    # For a map that is as near as the test stations, such as one of the field on which they stand, their scores are fair.
    many = found["test"]["within_100_m"] >= _MANY * found["test"]["stations"]
    beside = many and (farther or "map" not in found)
    return " ".join([*([_BESIDE] if beside else []), *([_FAR_MAP] if farther else [])])
