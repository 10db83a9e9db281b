"""Size of the pixels from which static variables at stations are read: the attribute `pixel_size_m`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from odc.geo.geobox import GeoBox

from smgeo.cube.schema import PIXEL_SIZE
from smgeo.sources.pixels.footprint import find_footprints
from smgeo.sources.pixels.warp import pixel_sides

# A size has as many digits, so that the last bits of a projection do not make another attribute of it.
_DIGITS = 6


def pixel_size(boxes: Iterable[GeoBox], lons: np.ndarray, lats: np.ndarray) -> dict[str, float]:
    """Return the attribute `pixel_size_m` of a variable that is read from grids at stations.

    It is the longer side of a pixel on the ground, m, at the latitude of each station: the median over the stations that a grid
    covers. A station that several grids cover has the largest of them.

    Parameters
    ----------
    boxes : iterable of GeoBox
        The grids, rotated or not; one without a CRS has no size.
    lons, lats : numpy.ndarray
        Places of the stations, degrees, (station,).

    Returns
    -------
    dict
        Empty if no grid covers a station, or its pixels have no size there.
    """
    longest = np.full(len(lons), np.nan)
    for box in boxes:
        if box.crs is not None:
            here = find_footprints(lons, lats, box, None).stations
            longest[here] = np.fmax(longest[here], longer_sides(box, lons[here], lats[here]))
    return size_attr(longest)


def longer_sides(box: GeoBox, lons: np.ndarray, lats: np.ndarray) -> np.ndarray:
    """Return the longer side of a grid's pixel at places, m, float64 (place,); NaN where it has none."""
    sides = pixel_sides(box, lons, lats).max(axis=0)
    return np.where(np.isfinite(sides) & (sides > 0), sides, np.nan)


def size_attr(sizes: np.ndarray) -> dict[str, float]:
    """Return the attribute for sizes at stations, m, of which NaN are not known: their median, or nothing."""
    known = sizes[np.isfinite(sizes)]
    return {PIXEL_SIZE: float(f"{np.median(known):.{_DIGITS}g}")} if known.size else {}
