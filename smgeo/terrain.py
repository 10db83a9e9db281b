# Functions of dask.array have no types.
# mypy: untyped-calls-exclude="dask"
"""Slope and aspect of an elevation raster, in metres on the ground on projected and on geographic grids."""

from __future__ import annotations

import math

import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError
from smgeo.threads import compiled

TERRAIN = ("slope", "aspect")


@compiled(error_model="numpy")
def _horn(z: np.ndarray, dx: np.ndarray, dy: np.ndarray, slope: np.ndarray, aspect: np.ndarray) -> None:
    """Take differences weighted 1, 2, 1 over three rows and three columns; outputs without a value stay as they are."""
    for r in range(1, z.shape[0] - 1):
        for c in range(1, z.shape[1] - 1):
            west = z[r - 1, c - 1] + 2.0 * z[r, c - 1] + z[r + 1, c - 1]
            east = z[r - 1, c + 1] + 2.0 * z[r, c + 1] + z[r + 1, c + 1]
            north = z[r - 1, c - 1] + 2.0 * z[r - 1, c] + z[r - 1, c + 1]
            south = z[r + 1, c - 1] + 2.0 * z[r + 1, c] + z[r + 1, c + 1]
            to_east, to_north = (east - west) / (8.0 * dx[r]), (north - south) / (8.0 * dy[r])
            # The formula does not use the pixel in the middle, but without ground there is no slope.
            if not math.isfinite(to_east + to_north + z[r, c]):
                continue
            slope[r, c] = math.degrees(math.atan(math.hypot(to_east, to_north)))
            if to_east != 0.0 or to_north != 0.0:
                aspect[r, c] = math.degrees(math.atan2(-to_east, -to_north)) % 360.0
                if aspect[r, c] >= 360.0:  # just west of north, rounded to float32
                    aspect[r, c] = 0.0


def slope_aspect(
    elevation: np.ndarray, dx_m: float | np.ndarray, dy_m: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and downhill direction of a surface by Horn's differences over 3 x 3 pixels.

    Parameters
    ----------
    elevation : numpy.ndarray
        (y, x), m, rows from north to south, columns from west to east; missing is NaN.
    dx_m, dy_m : float or numpy.ndarray
        Distance of neighbouring columns and rows in metres: one value, or one per row. `dy_m` is negative if rows run
        from south to north, `dx_m` if columns run from east to west.

    Returns
    -------
    slope, aspect : numpy.ndarray
        (y, x), float32, degrees. Slope from 0 to 90; aspect from 0 up to 360, clockwise from north, the downhill
        direction. Both are NaN on the outermost rows and columns and where one of the nine elevations is missing;
        aspect also where the ground is level.

    Raises
    ------
    SmgeoError
        If `elevation` is not two-dimensional, or a distance has neither one value nor one per row.

    References
    ----------
    Horn, B. K. P. (1981): Hill shading and the reflectance map. Proceedings of the IEEE 69(1), 14-47,
    doi:10.1109/PROC.1981.11918.

    Examples
    --------
    A plane that falls by 1 m in 1 m to the east:

    >>> slope, aspect = slope_aspect(np.array([[3.0, 2.0, 1.0]] * 3), 1.0, 1.0)
    >>> float(slope[1, 1]), float(aspect[1, 1])
    (45.0, 90.0)
    """
    z = np.ascontiguousarray(elevation)
    if z.ndim != 2:
        raise SmgeoError(f"slope and aspect need an elevation with dims (y, x); got {z.ndim} dims, shape {z.shape}")
    z = z if z.dtype.kind == "f" else z.astype("float64")
    dx, dy = (_per_row(d, z.shape[0]) for d in (dx_m, dy_m))
    slope, aspect = (np.full(z.shape, np.nan, dtype="float32") for _ in TERRAIN)
    _horn(z, dx, dy, slope, aspect)
    return slope, aspect


def _per_row(distance: float | np.ndarray, rows: int) -> np.ndarray:
    values = np.asarray(distance, dtype="float64")
    if values.shape not in ((), (1,), (rows,)):
        raise SmgeoError(f"pixel sizes must be one value or one for each of {rows} rows; got shape {values.shape}")
    return np.ascontiguousarray(np.broadcast_to(values, rows))


def pixel_sizes_m(geobox: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances of neighbouring columns and rows of a grid, in metres.

    Parameters
    ----------
    geobox : odc.geo.geobox.GeoBox
        A grid whose rows and columns run along the CRS's axes.

    Returns
    -------
    dx_m, dy_m : numpy.ndarray
        (y,), float64. `dy_m` is negative if rows run from south to north, `dx_m` if columns run from east to west.
        Projected CRS: the pixel in the CRS's linear unit converted to metres, the same in every row; the scale factor of the
        projection is not corrected (Web Mercator doubles distances at 60 degrees). Geographic CRS: the pixel's angles times the
        radii of curvature of the CRS's ellipsoid at the row's latitude; `dx_m` is NaN at and beyond the poles.

    Raises
    ------
    SmgeoError
        If the grid is rotated or sheared, or has no CRS with a place on Earth.

    References
    ----------
    Snyder, J. P. (1987): Map projections: a working manual. USGS Professional Paper 1395, eqs. 4-18 (radius along the
    meridian) and 4-20 (along the parallel: this radius times the cosine of the latitude).
    """
    if geobox.crs is None:
        raise SmgeoError("slope and aspect need a grid with a CRS; set one with elevation.rio.write_crs('EPSG:...')")
    if not geobox.axis_aligned:
        raise SmgeoError(
            f"slope and aspect need rows and columns along the axes of the CRS; this grid is rotated or sheared "
            f"({tuple(geobox.affine)[:6]}). Warp the elevation onto a grid that is not: gdalwarp, or a recipe's grid"
        )
    crs, rows = geobox.crs.proj, geobox.shape.y
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    dx, dy = geobox.affine.a * unit, -geobox.affine.e * unit
    if crs.is_projected:
        return np.full(rows, dx), np.full(rows, dy)
    ellipsoid = crs.get_geod()
    if not crs.is_geographic or ellipsoid is None:
        raise SmgeoError(f"slope and aspect need a projected or geographic CRS; {crs.name!r} is a {crs.type_name}")
    latitude = (geobox.affine.f + geobox.affine.e * (np.arange(rows) + 0.5)) * unit
    bend = 1.0 - ellipsoid.es * np.sin(latitude) ** 2
    along_meridian = ellipsoid.a * (1.0 - ellipsoid.es) / bend**1.5
    along_parallel = ellipsoid.a / np.sqrt(bend) * np.cos(latitude)
    # Where meridians meet, or beyond, a row has no width.
    on_earth = np.abs(latitude) < np.pi / 2 - 1e-9
    return np.where(on_earth, along_parallel * dx, np.nan), along_meridian * dy


def terrain(elevation: xr.DataArray) -> xr.Dataset:
    """Return slope and aspect of an elevation raster on its own grid.

    Parameters
    ----------
    elevation : xarray.DataArray
        Dims (y, x), m, with coordinates and a CRS; missing is NaN. Rows may run from north to south or from south to north.

    Returns
    -------
    xarray.Dataset
        `slope` and `aspect`, (y, x), float32, degrees; aspect clockwise from the grid's north, the downhill
        direction. As lazy as `elevation` and in its chunks: a block reads its neighbours' edges, and values do not depend
        on the chunks. Missing on the raster's border, where one of the nine elevations is missing, and
        (aspect) where the ground is level.

    Raises
    ------
    SmgeoError
        If the dims are others, the unit is not metres, the raster has no CRS or its grid is rotated.
    """
    if set(elevation.dims) != {"y", "x"}:
        raise SmgeoError(f"slope and aspect need an elevation raster with dims (y, x); got dims {elevation.dims}")
    units = elevation.attrs.get("units", "m")
    if units != "m":
        raise SmgeoError(f"slope and aspect need elevation in 'm'; got {units!r}. Convert it and set attrs['units']")
    box = elevation.odc.geobox
    if box is None:
        raise SmgeoError("slope and aspect need a raster with evenly spaced coordinates y and x; this one has none")
    dx, dy = pixel_sizes_m(box)
    z = elevation.transpose("y", "x")
    both = _lazy_slope_aspect(z.data, dx, dy) if isinstance(z.data, da.Array) else slope_aspect(z.data, dx, dy)
    data = {name: z.copy(data=both[i]).assign_attrs(_attrs(name, z)) for i, name in enumerate(TERRAIN)}
    return xr.Dataset({name: array.transpose(*elevation.dims) for name, array in data.items()})


def _attrs(name: str, elevation: xr.DataArray) -> dict[str, str | float]:
    feature = FEATURES[name]
    source = elevation.attrs.get("source", feature.source)
    return {**feature.attrs(), "source": f"{source}; Horn 1981"}


def _lazy_slope_aspect(z: da.Array, dx: np.ndarray, dy: np.ndarray) -> da.Array:
    """Slope and aspect (2, y, x) block by block, each with a margin of one pixel of its neighbours."""
    sizes = da.from_array(np.stack([dx, dy], axis=1), chunks=(z.chunks[0], (2,)))
    both = da.blockwise(
        _of_block,
        "kyx",
        da.overlap.overlap(z, depth={0: 1, 1: 1}, boundary="none"),
        "yx",
        da.overlap.overlap(sizes, depth={0: 1, 1: 0}, boundary="none"),
        "ys",
        new_axes={"k": len(TERRAIN)},
        concatenate=True,
        dtype="float32",
        meta=np.empty((0, 0, 0), "float32"),
    )
    inner: da.Array = da.overlap.trim_internal(both, {0: 0, 1: 1, 2: 1}, boundary="none")
    return inner


def _of_block(z: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.stack(slope_aspect(z, sizes[:, 0], sizes[:, 1]))
