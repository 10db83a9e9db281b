"""Images: bands that give values at the pixels they are asked for.

Nothing is computed before pixels are asked for, and then in the projection of those who ask (guide "Projections":
reprojection is pulled from the output to the input).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely

from .errors import EarthEngineError
from .grids import COMPOSITE, LONLAT, Pixels, Projection, convert, parse_crs, snapped_floor

# Weights below this are the rounding of two affine transforms.
SNAP_WEIGHT = 1e-6
# Values (float64) and masks (float64, 0 to 1) at some pixels.
Answer = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Band:
    """A band: its name, default projection, pixel type, and how to read it at pixels."""

    name: str
    projection: Projection
    dtype: np.dtype
    read: Callable[[Pixels], Answer]

    def at(self, pixels: Pixels) -> Answer:
        """Values and masks, shaped as `pixels`."""
        if self not in pixels.memo:
            pixels.memo[self] = self.read(pixels)
        return pixels.memo[self]


@dataclass(frozen=True, eq=False)
class Image:
    """An image: bands, properties, footprint (in degrees; None: everywhere)."""

    bands: tuple[Band, ...]
    properties: dict[str, Any] = field(default_factory=dict)
    footprint: Any = None

    def band(self, name: str) -> Band:
        """The band of that name."""
        for band in self.bands:
            if band.name == name:
                return band
        raise EarthEngineError(
            f"Image.select: Band pattern '{name}' did not match any bands. Available bands: {self.names}"
        )

    @property
    def names(self) -> list[str]:
        """Names of the bands, in order."""
        return [b.name for b in self.bands]

    @property
    def projection(self) -> Projection:
        """API reference: ee.Image.projection: an error where the bands do not share one."""
        if not self.bands:
            raise EarthEngineError("Image.projection: The image has no bands.")
        first = self.bands[0].projection
        if any(b.projection != first for b in self.bands):
            raise EarthEngineError(
                "Image.projection: The bands of the specified image contains different projections. "
                "Use Image.select to pick a single band."
            )
        return first

    @property
    def geometry(self) -> Any:
        """Its footprint, of the whole world where unbounded."""
        return shapely.box(-180, -90, 180, 90) if self.footprint is None else self.footprint

    def kept(self, bands: Sequence[Band]) -> Image:
        """Other bands, the same metadata and footprint."""
        return replace(self, bands=tuple(bands))

    def computed(self, bands: Sequence[Band]) -> Image:
        """Other bands, the footprint and the index alone: arithmetic drops the other metadata."""
        index = {k: v for k, v in self.properties.items() if k == "system:index"}
        return Image(tuple(bands), index, self.footprint)


# Stored pixels ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Patch:
    """A block of a stored band: `values` (rows, columns) with its first pixel at (`row`, `col`), and where it is valid."""

    row: int
    col: int
    values: np.ndarray
    valid: np.ndarray


def stored_band(
    name: str, projection: Projection, dtype: str, patches: Sequence[Patch], pyramid: str = "mean", levels: bool = True
) -> Band:
    """A band of an asset, read by nearest neighbour from the level of its pyramid that fits.

    Guide "Scale": the level with the closest scale less than or equal to that of the analysis is resampled by nearest
    neighbour. `pyramid` is `mean`, or `sample` for quality bands.
    `levels=False` reads the full resolution always.
    """
    cache: dict[int, list[Patch]] = {0: list(patches)}

    def level_patches(level: int) -> list[Patch]:
        if level not in cache:
            cache[level] = [_halved(p, pyramid) for p in level_patches(level - 1)]
        return cache[level]

    def read(pixels: Pixels) -> Answer:
        level = pyramid_level(projection, pixels.projection) if levels else 0
        at = pixels.nearest(projection.scaled(2**level))
        values, mask = np.zeros(at.cols.shape), np.zeros(at.cols.shape)
        for patch in level_patches(level):
            row, col = at.rows - patch.row, at.cols - patch.col
            inside = (row >= 0) & (row < patch.values.shape[0]) & (col >= 0) & (col < patch.values.shape[1])
            inside[inside] = patch.valid[row[inside], col[inside]] > 0
            values[inside] = patch.values[row[inside], col[inside]]
            mask[inside] = patch.valid[row[inside], col[inside]]
        return values, mask

    return Band(name, projection, np.dtype(dtype), read)


def pyramid_level(native: Projection, asked: Projection) -> int:
    """0 for the full resolution; level k has pixels 2**k as long."""
    ratio = asked.nominal_scale / native.nominal_scale
    return max(0, int(np.floor(np.log2(ratio) + 1e-6)))


def _halved(patch: Patch, policy: str) -> Patch:
    """The next level of a pyramid: 2 x 2 pixels, aligned to the origin of the band; `valid` is the mask, 0 to 1.

    REST reference: PyramidingPolicy: the mean weighted by masks with the mean of the masks, or the upper left pixel
    with its mask.
    """
    top, left = patch.row % 2, patch.col % 2
    height, width = patch.values.shape
    pad = ((top, (top + height) % 2), (left, (left + width) % 2))
    values = np.pad(patch.values.astype(float), pad)
    mask = np.pad(patch.valid.astype(float), pad)
    blocks = values.reshape(values.shape[0] // 2, 2, -1, 2)
    masks = mask.reshape(blocks.shape)
    row, col = (patch.row - top) // 2, (patch.col - left) // 2
    if policy == "sample":
        return Patch(row, col, blocks[:, 0, :, 0], masks[:, 0, :, 0])
    total = masks.sum((1, 3))
    return Patch(row, col, (blocks * masks).sum((1, 3)) / np.where(total > 0, total, 1), total / 4)


def constant(value: float, name: str = "constant") -> Band:
    """API reference: ee.Image.constant: the value everywhere."""
    kind = np.dtype("float64" if isinstance(value, float) and not float(value).is_integer() else "int32")

    def read(pixels: Pixels) -> Answer:
        return np.full(pixels.cols.shape, float(value)), np.ones(pixels.cols.shape)

    return Band(name, COMPOSITE, kind, read)


# Reprojection ----------------------------------------------------------------------------------------------------


def _linear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - abs(x), 0)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Cubic convolution with a = -0.5 (Keys 1981, doi:10.1109/TASSP.1981.1163711)."""
    x = abs(x)
    return np.where(x < 1, (1.5 * x - 2.5) * x**2 + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0))


# Name -> (kernel, the neighbours that it reaches).
KERNELS: dict[str, tuple[Callable, range]] = {"bilinear": (_linear, range(2)), "bicubic": (_cubic, range(-1, 3))}


def interpolated(band: Band, mode: str) -> Band:
    """API reference: ee.Image.resample: interpolated between the centres of the band's own pixels.

    At coarser scales between those of the pyramid's level. A value is valid where all pixels with weight are valid
    (the documents are silent here; this is the stricter reading).
    """
    kernel, reach = KERNELS[mode]

    def read(pixels: Pixels) -> Answer:
        own = band.projection.scaled(2 ** pyramid_level(band.projection, pixels.projection))
        if own == pixels.projection:
            return band.at(pixels)
        col, row = (p - 0.5 for p in pixels.positions(own))
        corner = Pixels(own, snapped_floor(col), snapped_floor(row))
        values, mask = np.zeros(col.shape), (np.isfinite(col) & np.isfinite(row)).astype(float)
        for j in reach:
            for i in reach:
                weight = kernel(row - corner.rows - j) * kernel(col - corner.cols - i)
                v, m = band.at(corner.shifted(i, j))
                used = abs(weight) > SNAP_WEIGHT
                values += np.where(used, weight * v, 0)
                mask = np.where(used, np.minimum(mask, m), mask)
        return values, mask

    kind = band.dtype if band.dtype.kind == "f" else np.dtype("float64")
    return replace(band, dtype=kind, read=read)


def reprojected(band: Band, projection: Projection) -> Band:
    """API reference: ee.Image.reproject: computed in that projection, then taken by nearest neighbour."""
    return replace(band, projection=projection, read=lambda pixels: band.at(pixels.nearest(projection)))


def reduced_resolution(band: Band, reduce: Callable, max_pixels: int, best_effort: bool) -> Band:
    """API reference: ee.Image.reduceResolution; guide "Resampling and Reducing Resolution".

    All input pixels that an output pixel covers go into the reducer, weighted by their mask times the share of the
    output pixel that they cover. Input pixels are those of the band's default projection.
    """

    def read(pixels: Pixels) -> Answer:
        if pixels.projection == band.projection:
            return band.at(pixels)
        values, mask = np.zeros(pixels.cols.size), np.zeros(pixels.cols.size)
        for part, (cols, rows, share), most in _covered_parts(pixels, band.projection):
            if not best_effort and most > max_pixels:
                raise EarthEngineError(
                    "Image.reduceResolution: Too many input pixels per output pixel. Use a larger maxPixels "
                    f"(now {max_pixels}) or bestEffort."
                )
            v, m = _gather(band, cols, rows)
            values[part], mask[part] = reduce(v, m * share)
        return values.reshape(pixels.cols.shape), mask.reshape(pixels.cols.shape)

    kind = band.dtype if band.dtype.kind == "f" else np.dtype("float64")
    return replace(band, dtype=kind, read=read)


def _covered_parts(pixels: Pixels, own: Projection) -> list[tuple[slice, tuple[np.ndarray, ...], int]]:
    """For 4096 pixels at a time: which, what they cover, and the most input pixels of one; found once for all bands."""
    key = ("covered", own)
    if key not in pixels.memo:
        parts = []
        for start in range(0, pixels.cols.size, 4096):
            part = slice(start, start + 4096)
            under = covered(pixels.projection, own, pixels.cols.flat[part], pixels.rows.flat[part])
            parts.append((part, under, _distinct(*under)))
        pixels.memo[key] = parts
    return pixels.memo[key]


def covered(asked: Projection, own: Projection, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Input pixels under each of n output pixels: columns, rows and shares of the output pixel, each (n, k).

    Exact where both have the same CRS and no shear; otherwise by samples, 2 or more across each input pixel.
    """
    straight = not any((asked.transform[1], asked.transform[3], own.transform[1], own.transform[3]))
    if straight and parse_crs(asked.crs) == parse_crs(own.crs):
        first, last = convert(asked, own, cols, rows), convert(asked, own, cols + 1, rows + 1)
        (col, across), (row, down) = (_overlaps(a, b) for a, b in zip(first, last, strict=True))
        shape = (len(cols), col.shape[1] * row.shape[1])
        every = np.ones((1, row.shape[1], col.shape[1]), np.int64)
        share = (down[:, :, None] * across[:, None, :]).reshape(shape)
        return (col[:, None, :] * every).reshape(shape), (row[:, :, None] * every).reshape(shape), share
    ratio = asked.nominal_scale / own.nominal_scale
    count = int(np.clip(np.ceil(2 * ratio), 16, 64))
    step = (np.arange(count) + 0.5) / count
    dx, dy = (a.ravel() for a in np.meshgrid(step, step))
    # The output pixel's corners are projected, what lies between is linear.
    corners = [convert(asked, own, cols + i, rows + j) for j in (0, 1) for i in (0, 1)]
    weights = ((1 - dx) * (1 - dy), dx * (1 - dy), (1 - dx) * dy, dx * dy)
    col, row = (
        np.sum([c[axis][:, None] * w for c, w in zip(corners, weights, strict=True)], axis=0) for axis in (0, 1)
    )
    return snapped_floor(col), snapped_floor(row), np.full(col.shape, 1 / count**2)


def _overlaps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intervals [a, b] in pixel space -> indices (n, k) and the share of the interval in each."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    first = snapped_floor(low)
    index = first[:, None] + np.arange(int(np.ceil((high - low).max() + SNAP_WEIGHT)) + 1)
    inside = np.minimum(high[:, None], index + 1) - np.maximum(low[:, None], index)
    return index, np.where(inside > SNAP_WEIGHT, inside, 0) / (high - low)[:, None]


def _distinct(cols: np.ndarray, rows: np.ndarray, share: np.ndarray) -> int:
    """Most input pixels under one output pixel."""
    counted = (share > 0).sum(1)
    if np.allclose(share, share.flat[0]):  # samples: several in one pixel
        key = (cols - cols.min()) * (np.ptp(rows) + 1) + (rows - rows.min())
        counted = np.array([len(np.unique(k)) for k in key[:: max(1, len(key) // 16)]])
    return int(counted.max(initial=0))


def _gather(band: Band, cols: np.ndarray, rows: np.ndarray) -> Answer:
    """A band at pixels of its own, each distinct pixel computed once."""
    top, left = rows.min(), cols.min()
    height, width = int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1
    if height * width <= 2 * cols.size:
        r, c = np.mgrid[top : top + height, left : left + width]
        values, mask = band.at(Pixels(band.projection, c, r))
        return values[rows - top, cols - left], mask[rows - top, cols - left]
    key, back = np.unique(np.stack([rows.ravel(), cols.ravel()]), axis=1, return_inverse=True)
    values, mask = band.at(Pixels(band.projection, key[1], key[0]))
    return values[back].reshape(cols.shape), mask[back].reshape(cols.shape)


# Per pixel -------------------------------------------------------------------------------------------------------


def apply(function: Callable, bands: Sequence[Band], name: str, dtype: np.dtype) -> Band:
    """A band computed pixel by pixel; masks intersect (guide "Masking"), the default projection is the first's."""

    def read(pixels: Pixels) -> Answer:
        answers = [b.at(pixels) for b in bands]
        mask = np.min([m for _, m in answers], axis=0)
        with np.errstate(all="ignore"):
            values = function(*(v for v, _ in answers))
        good = (mask > 0) & np.isfinite(values)
        return np.where(good, values, 0), np.where(good, mask, 0)

    return Band(name, bands[0].projection, dtype, read)


def unmasked(band: Band, value: Band, footprint: Any) -> Band:
    """API reference: ee.Image.unmask: `value` where the mask is zero, within `footprint` (None: everywhere)."""

    def read(pixels: Pixels) -> Answer:
        v, m = band.at(pixels)
        other, mask = value.at(pixels)
        fill = m == 0
        if footprint is not None:
            x, y = pixels.projection.to_crs(pixels.cols + 0.5, pixels.rows + 0.5)
            lon, lat = convert(Projection(pixels.projection.crs), Projection(LONLAT), x, y)
            fill &= shapely.contains_xy(footprint, lon, lat)
        return np.where(fill, other, v), np.where(fill, mask, m)

    return replace(band, dtype=np.promote_types(band.dtype, value.dtype), read=read)


def stacked(bands: Sequence[Band], pixels: Pixels) -> Answer:
    """Values and masks of several bands, along a new last axis."""
    answers = [b.at(pixels) for b in bands]
    return np.stack([v for v, _ in answers], -1), np.stack([m for _, m in answers], -1)


def union_footprint(images: Sequence[Image]) -> Any:
    """Of a composite."""
    if any(i.footprint is None for i in images):
        return None
    return shapely.union_all([i.footprint for i in images]) if images else shapely.Polygon()
