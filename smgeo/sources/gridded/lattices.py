"""Grids whose pixels are not evenly spaced: rows and columns at uneven coordinates, or a latitude and longitude for each pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy.spatial import KDTree

from smgeo.errors import SmgeoError
from smgeo.sources.gridded.files import File, Stored, open_variables
from smgeo.sources.gridded.packing import unpack_coordinate
from smgeo.sources.pixels.warp import crs_text, is_geographic

_SAME = 0.01  # share of a pixel that is rounding
_FAR = 1e4  # pixels beyond the edge up to which positions go on
_REACH = 100  # the same where directions are those of the nearest pixel
_EARTH_M = 6_371_008.8  # mean radius (IUGG)


@dataclass(frozen=True)
class Uneven:
    """Rows and columns at uneven coordinates, such as latitudes of an EASE or Gaussian grid.

    A position between two centres is interpolated, so that edges are in the middle or, of rows, where the file has them.

    Attributes
    ----------
    crs : str
        The CRS of the coordinates.
    x, y : tuple of float
        Edges and centres of columns from west to east, and of rows from north to south.
    period : float
        Degrees after which x repeats itself; 0 if it does not.
    """

    crs: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    period: float = 0.0

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, y_edges: np.ndarray | None, box: GeoBox) -> Uneven:
        """Return the lattice of pixel centres, whose mean spacing is that of `box`; edges of rows are known or in the middle."""
        xs, ys = _knots(x, _middles(x)), _knots(y, _middles(y) if y_edges is None else y_edges)
        if is_geographic(box):
            ys = np.clip(ys, -90, 90)
        return cls(crs_text(box), tuple(xs.tolist()), tuple(ys.tolist()), 360.0 if is_geographic(box) else 0.0)

    @property
    def nearly_even(self) -> bool:
        """True if evenly spaced rows and columns would be less than a twentieth of a pixel away."""
        return all(
            np.abs(c - np.linspace(c[0], c[-1], c.size)).max() < 0.05 * abs(c[-1] - c[0]) / max(1, c.size - 1)
            for c in (np.asarray(v)[1::2] for v in (self.x, self.y))
        )

    @property
    def heights(self) -> np.ndarray:
        """The heights of all rows."""
        return np.abs(np.diff(np.asarray(self.y)[::2]))

    def agrees(self, other: object) -> bool:
        """Return True if another lattice has the same pixels but for rounding."""
        if not isinstance(other, Uneven) or self.crs != other.crs:
            return False
        pairs = [(np.asarray(a), np.asarray(b)) for a, b in ((self.x, other.x), (self.y, other.y))]
        return all(a.size == b.size and np.abs(a - b).max() <= 2 * _SAME * np.abs(np.diff(a)).min() for a, b in pairs)

    def find(self, xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return columns and rows of places, 0 at the left and upper edge; beyond the grid they are below 0 or above its size."""
        x, y = np.asarray(self.x), np.asarray(self.y)
        if self.period:
            middle = (x[0] + x[-1]) / 2
            xs = xs - self.period * np.floor((xs - middle) / self.period + 0.5)
        return _between(xs, x), _between(-ys, -y)

    def centres(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of pixel centres."""
        return np.asarray(self.x)[1::2][columns], np.asarray(self.y)[1::2][rows]


def _middles(centres: np.ndarray) -> np.ndarray:
    """Return the edges of pixels: in the middle of centres, and as far beyond the first and the last."""
    inner = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])


def _knots(centres: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return edge, centre, edge, ..., edge."""
    out = np.empty(2 * centres.size + 1)
    out[::2], out[1::2] = edges, centres
    return out


def _between(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return the positions of values among ascending knots, which are half a pixel apart."""
    first, last = (_FAR * 2 * abs(knots[i] - knots[j]) for i, j in ((1, 0), (-1, -2)))
    pixels = (knots.size - 1) / 2
    at = np.concatenate([[-_FAR], np.arange(knots.size) / 2, [pixels + _FAR]])
    found = np.interp(values, np.concatenate([[knots[0] - first], knots, [knots[-1] + last]]), at)
    return np.where(np.isfinite(values), found, np.nan)


@dataclass(frozen=True)
class Curved:
    """A latitude and longitude for each pixel, read again from the file where they are needed.

    Attributes
    ----------
    digest : str
        Identifies the coordinates.
    shape : (int, int)
        Rows and columns.
    file, kind, group, names, turned
        Where the coordinates are: the names of latitude and longitude, and True if their first dimension is x.
    """

    digest: str
    shape: tuple[int, int]
    file: File = field(compare=False)
    kind: str = field(compare=False)
    group: str | None = field(compare=False)
    names: tuple[str, str] = field(compare=False)
    turned: bool = field(compare=False)

    crs = "EPSG:4326"
    nearly_even = False
    heights = None

    @classmethod
    def read(
        cls,
        variables: Mapping[str, Stored],
        source: tuple[File, str, str | None],
        names: tuple[str, str],
        y: str,
    ) -> Curved:
        """Return the lattice of a file's latitude and longitude, `names`, of which `y` is the dimension of rows.

        Raises
        ------
        SmgeoError
            If they are missing or constant.
        """
        turned = variables[names[0]].dims[-2] != y
        places = _places(variables, names, turned)
        digest = hashlib.sha256(places.tobytes()).hexdigest()[:32]
        found = cls(digest, places.shape[1:], *source, names, turned)
        if min(found.shape) < 2 or np.isfinite(places).all(axis=0).sum() < 4 or not found.spacing > 0:
            raise SmgeoError(
                f"{source[0]}: {names[0]} and {names[1]} place fewer than 2 x 2 pixels, so their size is unknown; name a variable on "
                "rows and columns in bands"
            )
        return found

    @cached_property
    def spacing(self) -> float:
        """The typical width of a pixel, as a part of the Earth's radius: the root of the median area."""
        return _typical_width(_cells(self).points)

    def agrees(self, other: object) -> bool:
        """Return True if another lattice has the same pixels but for rounding."""
        if self == other:
            return True
        if not isinstance(other, Curved) or self.shape != other.shape:
            return False
        a, b = _cells(self).points, _cells(other).points
        known = np.isfinite(a[..., 0])
        return bool(
            (known == np.isfinite(b[..., 0])).all()
            and np.linalg.norm(a - b, axis=-1)[known].max() <= _SAME * self.spacing
        )

    def approximate_box(self) -> GeoBox:
        """Return a grid of as many pixels that have the typical size, in an equal-area projection around their middle."""
        x, y, z = np.nanmean(_cells(self).points.reshape(-1, 3), axis=0)
        lon, lat = np.degrees([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])
        size, (height, width) = self.spacing * _EARTH_M, self.shape
        affine = Affine(size, 0, -size * width / 2, 0, -size, size * height / 2)
        return GeoBox(self.shape, affine, f"+proj=laea +lat_0={lat:.3f} +lon_0={lon:.3f} +datum=WGS84 +units=m")

    def find(self, xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return columns and rows of longitudes and latitudes, by the nearest pixel and the directions to its neighbours.

        NaN where the nearest pixel is far away, or where a neighbour in that direction has no coordinates.
        """
        cells, shape = _cells(self), np.shape(xs)
        there = _on_sphere(np.ravel(xs), np.ravel(ys))
        columns, rows = np.full((2, len(there)), np.nan)
        fine = np.isfinite(there).all(axis=1)
        if fine.any():
            columns[fine], rows[fine] = cells.locate(there[fine])
        return columns.reshape(shape), rows.reshape(shape)

    def centres(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return longitudes and latitudes of pixel centres; NaN where unknown."""
        x, y, z = np.moveaxis(_cells(self).points[rows, columns], -1, 0)
        return np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))


@dataclass(frozen=True, eq=False)
class _Cells:
    """Pixel centres on the unit sphere, (row, column, 3), NaN where unknown; the known ones in a tree, with their positions."""

    points: np.ndarray
    tree: KDTree
    known: np.ndarray

    def locate(self, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return columns and rows of points on the sphere."""
        distance, nearest = self.tree.query(there)
        rows, columns = np.unravel_index(self.known[nearest], self.points.shape[:2])
        here = self.points[rows, columns]
        (east, left, right), (south, up, down) = (self._directions(rows, columns, axis) for axis in (1, 0))
        offset = there - here
        ee, ss, es = ((a * b).sum(axis=1) for a, b in ((east, east), (south, south), (east, south)))
        oe, os = ((offset * v).sum(axis=1) for v in (east, south))
        with np.errstate(divide="ignore", invalid="ignore"):
            area = ee * ss - es**2
            across, along = (ss * oe - es * os) / area, (ee * os - es * oe) / area
            far = distance > _REACH * (np.sqrt(ee) + np.sqrt(ss))
        out = []
        for part, at, low, high, size in (
            (across, columns, left, right, self.points.shape[1]),
            (along, rows, up, down, self.points.shape[0]),
        ):
            # The nearest pixel is the one that contains a place, except beyond the border of the grid.
            part = np.where(low & (part < -0.5), -0.5, np.where(high & (part > 0.5 - 1e-6), 0.5 - 1e-6, part))
            beyond = (~low & (at > 0) & (part < -0.5)) | (~high & (at < size - 1) & (part > 0.5))
            out.append(np.where(far | beyond, np.nan, at + 0.5 + part))
        return out[0], out[1]

    def _directions(
        self, rows: np.ndarray, columns: np.ndarray, axis: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the vector from a pixel to the next along an axis, and whether it has a neighbour before and after."""
        size = self.points.shape[axis]
        at = [rows, columns]
        ends = []
        for turn in (-1, 1):
            moved = list(at)
            moved[axis] = np.clip(at[axis] + turn, 0, size - 1)
            point = self.points[moved[0], moved[1]]
            exists = (moved[axis] != at[axis]) & np.isfinite(point[:, 0])
            ends.append((np.where(exists[:, None], point, self.points[rows, columns]), exists))
        (before, low), (after, high) = ends
        steps = np.maximum(1, low.astype(int) + high)
        return (after - before) / steps[:, None], low, high


@lru_cache(maxsize=4)
def _cells(lattice: Curved) -> _Cells:
    with open_variables(lattice.file, lattice.kind, lattice.group) as variables:
        latitudes, longitudes = _places(variables, lattice.names, lattice.turned)
    points = _on_sphere(longitudes, latitudes)
    known = np.flatnonzero(np.isfinite(points[..., 0]))
    return _Cells(points, KDTree(points.reshape(-1, 3)[known], compact_nodes=False, balanced_tree=False), known)


def _places(variables: Mapping[str, Stored], names: tuple[str, str], turned: bool) -> np.ndarray:
    """Return latitudes and longitudes, (2, row, column), NaN where one of them is none."""
    found = []
    for name, most in zip(names, (90, 360), strict=True):
        stored = variables[name]
        raw = np.asarray(stored.values[(0,) * (len(stored.dims) - 2)])
        values = unpack_coordinate(raw, stored.packing, name).astype("float64")
        if str(stored.attrs.get("units", "")).lower() in ("rad", "radian", "radians"):
            values = np.degrees(values)
        values[~(np.abs(values) <= most)] = np.nan
        found.append(values.T if turned else values)
    places = np.stack(found)
    places[:, np.isnan(places).any(axis=0)] = np.nan
    return places


def _on_sphere(lons: np.ndarray, lats: np.ndarray) -> np.ndarray:
    lon, lat = np.radians(lons), np.radians(lats)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def _typical_width(points: np.ndarray) -> float:
    """Return the root of the median area of cells between four pixel centres, on the unit sphere."""
    east, south = points[:-1, 1:] - points[:-1, :-1], points[1:, :-1] - points[:-1, :-1]
    areas = np.linalg.norm(np.cross(east, south), axis=-1)
    return float(np.sqrt(np.median(areas[np.isfinite(areas)]))) if np.isfinite(areas).any() else 0.0
