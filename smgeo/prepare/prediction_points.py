"""Points for which a map is made, and the features of places, as kNNDM and the report compare them.

Of a grid cube some thousand pixels are drawn. A feature that varies in time counts by its mean over the days with a value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import odc.geo.xr  # noqa: F401  (the accessor `odc`)
import xarray as xr
from pyproj import Transformer

from smgeo.cube.schema import check_known_units, is_grid, units_of
from smgeo.errors import SmgeoError, nearest
from smgeo.prepare.knndm import scale_features, vary

# The share of the pixels within a distance then has a standard error below 1 %.
PIXELS = 5_000
_WHERE = "cross-validation (knndm)"
# Kinds of variables that tell days apart and not places, or are not known on a map.
_NOT_OF_PLACES = ("calendar", "target")


def prediction_degrees(prediction: object, seed: int) -> np.ndarray:
    """Return latitude and longitude of prediction points in degrees, float64 (n, 2).

    Parameters
    ----------
    prediction : numpy.ndarray or xarray.Dataset
        Latitude and longitude, (n, 2), or a grid cube, of which at most 5,000 pixels are drawn; only its axes are read.
    seed : int
        Seed of the pixels.

    Raises
    ------
    SmgeoError
        If it is neither, or the grid cube has no CRS.
    """
    if prediction is None:
        raise SmgeoError(
            f"{_WHERE}: needs the points that a map is made for: give prediction=, latitude and longitude as an array (n, 2), or a grid cube"
        )
    if not isinstance(prediction, xr.Dataset):
        return np.asarray(prediction, dtype="float64") if _are_numbers(prediction) else _refuse(prediction)
    return sample_pixels(_as_grid(prediction), seed)


def sample_pixels(grid: xr.Dataset, seed: int = 0) -> np.ndarray:
    """Return latitude and longitude of the centres of at most 5,000 pixels of a grid cube, degrees, float64 (n, 2).

    They are drawn without repetition by the seed, from all pixels, whatever value they have. No variable is read. A pixel that has no
    place on the Earth, as at the rim of a projection, is NaN.

    Raises
    ------
    SmgeoError
        If the grid has no CRS.
    """
    box = grid.odc.geobox
    if box is None or box.crs is None:
        raise SmgeoError("the grid cube has no CRS; open it with smgeo.open_cube, or set one with rio.write_crs")
    row, column = _drawn(grid, seed)
    to_degrees = Transformer.from_crs(box.crs.to_wkt(), "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform(grid["x"].values[column], grid["y"].values[row])
    degrees = np.stack([latitude, longitude], axis=1).astype("float64")
    return np.where(np.isfinite(degrees), degrees, np.nan)


def features_of_places(
    ds: xr.Dataset,
    station: np.ndarray,
    place: np.ndarray,
    prediction: object,
    target: str,
    features: Sequence[str] | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return standardised features of places and of prediction points, and the features' names.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube, lazy or not. The features are read.
    station, place : numpy.ndarray
        Positions of the stations in the cube, and the number of the place of each, from 0, int (n,).
    prediction : xarray.Dataset
        Grid cube with the features, lazy or not. At most 5,000 pixels are drawn and read; those without a value of a feature are missing.
    target : str
        Variable that is no feature.
    features : sequence of str, optional
        Names. By default all variables of both cubes that vary between places and have a value at a pixel, but not those of kind `calendar`.
    seed : int
        Seed of the pixels.

    Returns
    -------
    places, points : numpy.ndarray
        float64 (places, features) and (pixels, features), in standard deviations over the places. A feature that a place never has is
        the mean of the places, as recipes fill it for models.
    names : tuple of str

    Raises
    ------
    SmgeoError
        If the cubes share no such feature, one that is named is missing or constant over the places, one has another unit, or a value is
        infinite.
    """
    if not isinstance(prediction, xr.Dataset):
        raise SmgeoError(
            f"{_WHERE}: space feature needs the features of prediction points: give prediction=, a grid cube"
        )
    grid = _as_grid(prediction)
    shared = [str(n) for n in ds.data_vars if n in grid and n != target and _is_of_places(ds[n])]
    names = shared if features is None else list(dict.fromkeys(features))
    for name in names:
        if name not in shared:
            raise SmgeoError(
                f"{_WHERE}: {name!r} is no feature of both the stations and the prediction points; {nearest(name, shared)}"
            )
    if not names:
        raise SmgeoError(f"{_WHERE}: the stations and the prediction points have no feature in common")
    check_known_units(units_of(grid, names), units_of(ds, names), f"{_WHERE}: the prediction points")
    of_stations = _means(ds[names].isel(station=station), names)
    count = int(place.max()) + 1
    of_places = np.stack([_mean_by(place, values, count) for values in of_stations.T], axis=1)
    row, column = (xr.DataArray(at, dims="pixel") for at in _drawn(grid, seed))
    points = _means(grid[names].isel(y=row, x=column), names)
    there = ~np.isnan(points).all(axis=0)
    if features is None:
        there &= vary(of_places) | np.isinf(of_places).any(axis=0)  # infinite ones are refused by name
        names = [name for name, used in zip(names, there, strict=True) if used]
        of_places, points = of_places[:, there], points[:, there]
    elif not there.all():
        lacking = ", ".join(name for name, used in zip(names, there, strict=True) if not used)
        raise SmgeoError(f"{_WHERE}: no pixel that was drawn has a value of {lacking}; leave it out")
    if not names:
        raise SmgeoError(f"{_WHERE}: no feature of the pixels varies between the places; use space geographic")
    scaled, points = scale_features(of_places, points, names)
    return np.where(np.isnan(scaled), 0.0, scaled), points, tuple(names)


def _as_grid(prediction: xr.Dataset) -> xr.Dataset:
    if "station" in prediction.dims or not is_grid(prediction):
        raise SmgeoError(f"{_WHERE}: prediction must be a grid cube, with dims y and x; found {tuple(prediction.dims)}")
    return prediction


def _are_numbers(values: object) -> bool:
    try:
        np.asarray(values, dtype="float64")
    except (TypeError, ValueError):
        return False
    return True


def _refuse(prediction: object) -> np.ndarray:
    raise SmgeoError(
        f"{_WHERE}: prediction must be latitude and longitude, an array (n, 2), or a grid cube; got {type(prediction).__name__}"
    )


def _drawn(grid: xr.Dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of pixels that are drawn without repetition, in the order of the grid."""
    height, width = grid.sizes["y"], grid.sizes["x"]
    pixels = height * width
    at = np.random.default_rng(seed).choice(pixels, min(PIXELS, pixels), replace=False, shuffle=False)
    row, column = np.divmod(np.sort(at), width)
    return row, column


def _is_of_places(variable: xr.DataArray) -> bool:
    numeric = np.issubdtype(variable.dtype, np.number)
    return numeric and "station" in variable.dims and variable.attrs.get("kind") not in _NOT_OF_PLACES


def _means(some: xr.Dataset, names: Sequence[str]) -> np.ndarray:
    """Return the features of stations or pixels, float64 (n, features): means over the days with a value."""
    over_days = {n: some[n].astype("float64") for n in names}
    means = xr.Dataset({n: v.mean("time") if "time" in v.dims else v for n, v in over_days.items()}).load()
    return np.stack([means[n].values for n in names], axis=1)


def _mean_by(label: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Return the mean of the values that are not missing, for each label from 0; NaN where there is none."""
    there = ~np.isnan(values)
    number = np.bincount(label[there], minlength=count)
    total = np.bincount(label[there], weights=values[there], minlength=count)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
