"""Pixels of a grid that belong to a station: the one that contains it, or those of its footprint.

Own code rather than a zonal library: distances are geodesic on any grid, the pixel that contains the station always
counts, and decibels are averaged in linear power.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from pyproj import Geod

from smgeo.errors import SmgeoError
from smgeo.sources.pixels.lattice import Lattice
from smgeo.sources.pixels.observation import Observation, mean_observation
from smgeo.sources.pixels.warp import (
    apply_affine,
    crs_text,
    is_geographic,
    period_columns,
    pixel_metres,
    position,
    transformer,
)

_WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True, eq=False)
class Footprints:
    """Pixels of a grid, station by station.

    Attributes
    ----------
    stations : array of int
        Position of the station of each pixel, ascending.
    rows, columns : array of int
        The pixels.
    """

    stations: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @property
    def covered(self) -> np.ndarray:
        """The positions of the stations that have a pixel."""
        return np.unique(self.stations)

    def mean(self, values: np.ndarray, *, decibels: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return positions of stations and float32 values of each, as `observe`, in the variable's own unit."""
        ids, found = self.observe(Observation(values), decibels=decibels)
        return ids, found.stored()

    def observe(self, pixels: Observation, *, decibels: bool) -> tuple[np.ndarray, Observation]:
        """Return positions of stations and the mean of each one's pixels (pixel, ...); of decibels as linear power.

        If every station has one pixel, its value is not changed.
        """
        ids, first, counts = np.unique(self.stations, return_index=True, return_counts=True)
        if (counts == 1).all():
            return ids, pixels
        parts = [
            mean_observation(Observation(pixels.values[i : i + n], pixels.power), decibels=decibels).values
            for i, n in zip(first, counts, strict=True)
        ]
        return ids, Observation(np.stack(parts), power=decibels)


def check_target(caller: str, geobox: object, stations: object) -> None:
    """Check the target of values: a grid, stations, or neither.

    Raises
    ------
    SmgeoError
        If both are given, or one is something else.
    """
    if geobox is not None and stations is not None:
        raise SmgeoError(f"{caller}: give a grid or stations, not both")
    if geobox is not None and not isinstance(geobox, GeoBox):
        raise SmgeoError(
            f"{caller}: geobox must be an odc.geo.geobox.GeoBox, such as ds.odc.geobox of a Dataset on the grid; got a "
            f"{type(geobox).__name__}"
        )
    if stations is not None:
        _check_stations(stations, f"{caller}: ")


def _check_stations(stations: object, where: str = "") -> None:
    if not isinstance(stations, xr.Dataset) or "station" not in stations.dims:
        what = "one without it" if isinstance(stations, xr.Dataset) else f"a {type(stations).__name__}"
        raise SmgeoError(
            f"{where}stations must be an xarray.Dataset with latitude and longitude on the dimension station, as "
            f"smgeo.open_stations gives it; got {what}"
        )


def station_places(stations: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return longitudes and latitudes of stations, degrees, float64.

    Raises
    ------
    SmgeoError
        If it is not a Dataset of stations, lacks them, or one is missing or no place on Earth.
    """
    _check_stations(stations)
    if lacking := [k for k in ("latitude", "longitude") if k not in stations]:
        raise SmgeoError(f"stations lack {' and '.join(lacking)}, so their pixels are unknown; add them")
    lons, lats = (stations[k].to_numpy().astype("float64") for k in ("longitude", "latitude"))
    bad = ~(np.isfinite(lons) & np.isfinite(lats))
    if bad.any():
        raise SmgeoError(
            f"station {stations['station'].values[bad][0]} has no latitude or longitude; give them or leave it out"
        )
    bad = (np.abs(lats) > 90) | (np.abs(lons) > 360)
    if bad.any():
        raise SmgeoError(
            f"station {stations['station'].values[bad][0]} is at latitude {lats[bad][0]:g}, longitude {lons[bad][0]:g}, which is no place on Earth; "
            "are they exchanged, or coordinates of a projection?"
        )
    return lons, lats


def stations_dataset(
    data: Mapping[str, xr.Variable], stations: xr.Dataset, covered: np.ndarray, label: str
) -> xr.Dataset:
    """Return variables with the coordinates of `stations`; `attrs["left_out"]` (JSON) names those not covered."""
    coords: dict[Hashable, object] = {k: v for k, v in stations.coords.items() if v.dims == ("station",)}
    coords |= {k: stations[k] for k in ("latitude", "longitude")}
    left_out = {str(s): f"outside {label}" for s in stations["station"].values[~covered]}
    return xr.Dataset(data, coords, {"left_out": json.dumps(left_out)})


def find_footprints(
    lons: np.ndarray, lats: np.ndarray, box: GeoBox, radius_m: float | None, lattice: Lattice | None = None
) -> Footprints:
    """Return the pixel that contains each station, and with a radius also all pixels whose centres are within it.

    A station on an edge between two pixels has the one with the higher row or column. Stations outside the grid have none.
    Distances are on the WGS84 ellipsoid. A lattice has the positions of unevenly spaced pixels.
    """
    there = transformer("EPSG:4326", crs_text(box) if lattice is None else lattice.crs)
    xs, ys = (np.asarray(v, dtype="float64") for v in there.transform(lons, lats))
    with np.errstate(invalid="ignore"):
        # As for pixels of a target grid: rounding must not move a station that is on an edge.
        columns, rows = (np.round(v, 8) for v in position(xs, ys, box, lattice))
        if lattice is None and (period := period_columns(box)):
            columns = columns % period
        inside = (columns >= 0) & (rows >= 0) & (columns < box.shape.x) & (rows < box.shape.y)
    held = np.flatnonzero(inside)
    rows, columns = rows[held].astype(int), columns[held].astype(int)
    if radius_m is None:
        return Footprints(held, rows, columns)
    parts = [
        _within(r, c, lons[i], lats[i], box, radius_m, lattice) for i, r, c in zip(held, rows, columns, strict=True)
    ] or [np.empty((0, 2), dtype=int)]
    pixels = np.concatenate(parts)
    return Footprints(np.repeat(held, [len(p) for p in parts][: len(held)]), pixels[:, 0], pixels[:, 1])


def _within(
    row: int, column: int, lon: float, lat: float, box: GeoBox, radius_m: float, lattice: Lattice | None
) -> np.ndarray:
    """Return (row, column) of the pixels whose centres are within the radius, and of the one that contains the station."""
    height, width = box.shape.yx
    goes_round = is_geographic(box) and abs(abs(box.affine.a) * width - 360) < 1e-3
    reach_x, reach_y = (int(np.ceil(radius_m / max(m, 1e-6))) + 1 for m in pixel_metres(box, lon, lat))
    if lattice is not None:  # pixels may be narrower than typical
        reach_x, reach_y = 3 * reach_x, 3 * reach_y
    reach_x = min(reach_x, (width - 1) // 2 if goes_round else width)
    rows = np.arange(max(0, row - reach_y), min(height, row + reach_y + 1))
    columns = np.arange(column - reach_x, column + reach_x + 1)
    if not goes_round:
        columns = columns[(columns >= 0) & (columns < width)]
    r, c = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
    if lattice is None:
        xs, ys = apply_affine(box.affine, c + 0.5, r + 0.5)
    else:
        xs, ys = lattice.centres(r, c % width)
    there = transformer("EPSG:4326", crs_text(box) if lattice is None else lattice.crs)
    clon, clat = there.transform(xs, ys, direction="INVERSE")
    _, _, metres = _WGS84.inv(np.full(r.size, lon), np.full(r.size, lat), clon, clat)
    near = (metres <= radius_m) | ((r == row) & (c == column))
    return np.stack([r[near], c[near] % width], axis=1)


def tiles_of(rows: np.ndarray, columns: np.ndarray, tile: tuple[int, int]) -> list[np.ndarray]:
    """Return the positions of the pixels of each tile of a file, so that a tile is read once.

    >>> [t.tolist() for t in tiles_of(np.array([0, 9, 1]), np.array([0, 0, 1]), (8, 8))]
    [[0, 2], [1]]
    """
    keys = np.stack([rows // tile[0], columns // tile[1]], axis=1)
    _, member = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(member.ravel(), kind="stable")
    return np.split(order, np.flatnonzero(np.diff(member.ravel()[order])) + 1) if order.size else []
