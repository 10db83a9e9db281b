"""Projections and pixels of projections: where a value is asked for.

Semantics: Earth Engine guide "Projections" (/guides/projections) and "Scale" (/guides/scale).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from pyproj import CRS, Transformer

from .errors import EarthEngineError

# Metres of one degree of the equator of WGS 84: what `Projection.nominalScale` gives for EPSG:4326.
METRES_PER_DEGREE = 6378137.0 * np.pi / 180
# Positions nearer to an edge than this share of a pixel lie on it: the rounding of two affine transforms.
SNAP = 1e-7
LONLAT = "EPSG:4326"
# Earth Engine's code for the sinusoidal grid of MODIS, which pyproj does not know.
SINUSOIDAL = "SR-ORG:6974"
OWN_CODES = {SINUSOIDAL: "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"}


@lru_cache(maxsize=256)
def parse_crs(crs: str) -> CRS:
    """The CRS of a code or a WKT; an error in Earth Engine's words for others."""
    try:
        return CRS.from_user_input(OWN_CODES.get(crs, crs))
    except Exception as error:
        raise EarthEngineError(f"Projection: Unable to parse CRS '{crs[:60]}'.") from error


@lru_cache(maxsize=256)
def transformer(source: str, target: str) -> Transformer:
    """x, y of one CRS to x, y of another."""
    return Transformer.from_crs(parse_crs(source), parse_crs(target), always_xy=True)


@dataclass(frozen=True)
class Projection:
    """A CRS with an affine transform from pixels to its units.

    `transform` is in the order of `ee.Projection`: xScale, xShearing, xTranslation, yShearing, yScale, yTranslation.
    Pixel (0, 0) covers the positions [0, 1) x [0, 1) of pixel space.
    """

    crs: str
    transform: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    @property
    def nominal_scale(self) -> float:
        """Metres of a pixel at the point of true scale (API reference: ee.Projection.nominalScale)."""
        a, b, _, d, e, _ = self.transform
        side = abs(a * e - b * d) ** 0.5
        crs = parse_crs(self.crs)
        return side * (METRES_PER_DEGREE if crs.is_geographic else crs.axis_info[0].unit_conversion_factor)

    def scaled(self, factor: float) -> Projection:
        """Pixels `factor` times as long, the same origin."""
        a, b, c, d, e, f = self.transform
        return Projection(self.crs, (a * factor, b * factor, c, d * factor, e * factor, f))

    def at_scale(self, metres: float) -> Projection:
        """The same origin and axes, with pixels of so many metres (API reference: ee.Projection.atScale)."""
        return self.scaled(metres / self.nominal_scale)

    def to_crs(self, col: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in pixel space -> x, y in the CRS."""
        a, b, c, d, e, f = self.transform
        return a * col + b * row + c, d * col + e * row + f

    def to_pixels(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """X, y in the CRS -> positions in pixel space."""
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        return (e * (x - c) - b * (y - f)) / det, (a * (y - f) - d * (x - c)) / det

    def from_lonlat(self, lon: Any, lat: Any) -> tuple[np.ndarray, np.ndarray]:
        """Degrees -> positions in pixel space."""
        return self.to_pixels(*transformer(LONLAT, self.crs).transform(lon, lat))

    def info(self) -> dict:
        """As `ee.Projection.getInfo()` gives it."""
        code = {"crs": self.crs} if ":" in self.crs[:12] else {"wkt": self.crs}
        return {"type": "Projection", **code, "transform": list(self.transform)}


# What composites have as default projection (guide "Projections", section "The default projection").
COMPOSITE = Projection(LONLAT)


def snapped_floor(position: np.ndarray) -> np.ndarray:
    """Index of the pixel that a position lies in; far outside (and not finite) is -2**62."""
    whole = np.floor(np.asarray(position, float) + SNAP)
    return np.where(np.isfinite(whole) & (abs(whole) < 2**53), whole, -(2.0**62)).astype(np.int64)


@dataclass(eq=False)
class Pixels:
    """Pixels of a projection that are asked for: `cols` and `rows` are int64 arrays of one shape, of any shape.

    `memo` holds what bands have answered, so that a band used twice in an expression is computed once.
    """

    projection: Projection
    cols: np.ndarray
    rows: np.ndarray
    memo: dict = field(default_factory=dict)

    def positions(self, target: Projection) -> tuple[np.ndarray, np.ndarray]:
        """Centres of the pixels, in the pixel space of another projection."""
        return convert(self.projection, target, self.cols + 0.5, self.rows + 0.5)

    def nearest(self, target: Projection) -> Pixels:
        """The pixels of another projection that hold these centres."""
        if target == self.projection:
            return self
        if target not in self.memo:
            col, row = self.positions(target)
            self.memo[target] = Pixels(target, snapped_floor(col), snapped_floor(row))
        return self.memo[target]

    def shifted(self, cols: int, rows: int) -> Pixels:
        """Neighbours."""
        return Pixels(self.projection, self.cols + cols, self.rows + rows)


def convert(source: Projection, target: Projection, col: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the pixel space of one projection -> those of another."""
    if source == target:
        return np.asarray(col, float), np.asarray(row, float)
    x, y = source.to_crs(col, row)
    if source.crs != target.crs and parse_crs(source.crs) != parse_crs(target.crs):
        x, y = transformer(source.crs, target.crs).transform(x, y)
    return target.to_pixels(np.asarray(x), np.asarray(y))


def window(projection: Projection, width: int, height: int) -> Pixels:
    """The grid of `height` x `width` pixels from the origin."""
    rows, cols = np.mgrid[0:height, 0:width]
    return Pixels(projection, cols.astype(np.int64), rows.astype(np.int64))
