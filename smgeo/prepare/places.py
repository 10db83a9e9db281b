"""Places, and the groups of places that are held out together.

A place is a site: stations so near to each other that they measure the same soil, such as two probes of one mast, or one site
in two networks. A station is never tested against its own place. The groups of a cube are its coordinate `group`, which
`group_stations` makes; splits, folds, searches and calibration hold them out as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import xarray as xr
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.spatial.distance import pdist

from smgeo.bounds import check_arguments, check_given, checked
from smgeo.cube.schema import text_of
from smgeo.errors import SmgeoError, nearest

# Two GPS readings of one site, and its probes, differ by less; the pixels of Sentinel-1 and Sentinel-2 are smaller.
SAME_PLACE_M = 30.0
# Mean radius of the Earth (IUGG), m.
EARTH_M = 6_371_008.8
# Distances between pairs are held in memory, at most so many.
_MOST_PAIRS = 100_000_000
GROUP = "group"


@checked
def group_stations(
    ds: xr.Dataset,
    by: str | None = None,
    *,
    same_place_m: float = SAME_PLACE_M,
    km: float | None = None,
    buffer_km: float = 0.0,
) -> xr.Dataset:
    """Return the cube with the coordinate `group`, whose stations splits and folds never part.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube, lazy or not; only its coordinates are read.
    by : str, optional
        What a group is; by default `group` if the cube has it, else `place`.

        - `place`: stations that are no farther apart than `same_place_m`, each from each other (complete linkage), so that
          places do not chain. In a row of stations with shorter steps, neighbours can be of two places: give a larger size, or a buffer.
          A station without coordinates is a place of its own.
        - `station`: a station, whatever lies beside it. This is for published protocols.
        - `clusters`: places that are no farther apart than `km`, each from each other.
        - the name of a coordinate of the stations, such as `network`, or `group`, which tables fill from a column (a field,
          a catchment). A place without a name is a group of its own.

        A place belongs to one group: that of most of its stations, or the first of them in the cube.
    same_place_m : float
        Size of a place in metres. Set it to the pixel of a coarse layer to keep stations of one pixel together.
    km : float, optional
        Size of `clusters` in km.
    buffer_km : float
        Stations that are nearer than this to one that is held out from them are in no part: of training and validation to a test station,
        of training to a validation station; in folds, of training to a held-out station.

    Returns
    -------
    xarray.Dataset
        With `group` (station,), text, whose attributes are the arguments.

    Raises
    ------
    SmgeoError
        If the cube has no such coordinate, or lacks coordinates that `clusters` or a buffer needs.
    """
    check_arguments("groups", same_place_m=same_place_m, buffer_km=buffer_km)
    check_given("groups", km=km)
    by = by or (GROUP if GROUP in ds.coords else "place")
    if (km is not None) != (by == "clusters"):
        raise SmgeoError("groups: `km` is the size of `clusters`; give it with them, and only with them")
    degrees = coordinates_of(ds)
    if lacking := int((~np.isfinite(degrees).all(axis=1)).sum()) if by == "clusters" or buffer_km else 0:
        raise SmgeoError(
            f"groups: clusters and buffers need latitude and longitude of every station, and {lacking} of {len(degrees)} have "
            "none; add them, or group by place"
        )
    place = np.arange(len(degrees)) if by == "station" else number_places(degrees, same_place_m)
    names = text_of(ds["station"])[_first(place)]
    if by == "clusters":
        assert km is not None
        names = names[_first(_of_most(place, number_places(degrees, 1000 * km)))]
    elif by not in ("place", "station"):
        labels = _labels(ds, by)
        # In brackets, because a label may be the id of a station.
        names = _of_most(place, np.where(labels == "", [f"({name})" for name in names], labels))
    attrs = {"long_name": "stations that are held out together", "by": by, "same_place_m": float(same_place_m)}
    attrs |= {"buffer_km": float(buffer_km)} | ({} if km is None else {"km": float(km)})
    return ds.assign_coords({GROUP: ("station", names.astype(object), attrs)})


def group_numbers(ds: xr.Dataset) -> np.ndarray:
    """Return the number of the group of each station, int (station,), from 0 in the order of the cube.

    A cube that `group_stations` has not seen is grouped by its defaults.
    """
    return number_keys(text_of(grouped(ds)[GROUP]))


def grouped(ds: xr.Dataset) -> xr.Dataset:
    """Return the cube as `group_stations` gave it, or with its defaults. Group a cube before stations are selected from it."""
    return ds if GROUP in ds.coords and "by" in ds[GROUP].attrs else group_stations(ds)


def place_numbers(ds: xr.Dataset, same_place_m: float | None = None) -> np.ndarray:
    """Return the number of the place of each station, int (station,); of the size with which the cube was grouped, or 30 m."""
    known = ds[GROUP].attrs if GROUP in ds.coords else {}
    if known.get("by") == "station":
        return np.arange(ds.sizes["station"])
    size = known.get("same_place_m", SAME_PLACE_M) if same_place_m is None else same_place_m
    return number_places(coordinates_of(ds), float(size))


def places_as_json(degrees: Iterable[Iterable[float]]) -> list[list[float]]:
    """Return known positions as JSON keeps them: [latitude, longitude] to a tenth of a metre."""
    rounded = [[round(float(v), 6) for v in position] for position in degrees]
    return [position for position in rounded if np.isfinite(position).all()]


def find_unseen(
    ds: xr.Dataset, seen: Iterable[str], places: Iterable[Iterable[float]] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Return which stations a model has not seen, and which it has not but lie at the place, or in the group, of one that it has.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube; only its coordinates are read.
    seen : iterable of str
        Station ids.
    places : iterable of (float, float)
        Latitude and longitude of stations that the model has seen, in whatever cube: stations within the size of a place are beside them.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        bool (station,) each: unseen places, and unseen stations at seen places.
    """
    ds = grouped(ds)
    known = np.isin(text_of(ds["station"]).astype(str), [str(s) for s in seen])
    number = group_numbers(ds)
    there = np.array([*places], dtype="float64").reshape(-1, 2)
    size = float(ds[GROUP].attrs.get("same_place_m", SAME_PLACE_M))
    near = nearest_m(coordinates_of(ds), there) <= size if len(there) else np.zeros(known.size, dtype=np.bool_)
    touched = known | near
    beside = np.isin(number, number[touched]) & ~known
    return ~known & ~beside, beside


def buffer_of(ds: xr.Dataset) -> float:
    """Return the km around held-out stations within which none is trained on."""
    return float(ds[GROUP].attrs.get("buffer_km", 0.0)) if GROUP in ds.coords else 0.0


def coordinates_of(ds: xr.Dataset) -> np.ndarray:
    """Return latitude and longitude of each station in degrees, float64 (station, 2); NaN where they are unknown.

    Raises
    ------
    SmgeoError
        If `ds` has no stations, or a position is none on Earth.
    """
    if "station" not in ds.dims:
        raise SmgeoError(f"needs a station cube, with dims (station, time); found {tuple(ds.dims)}")
    if not {"latitude", "longitude"} <= set(ds.variables):
        return np.full((ds.sizes["station"], 2), np.nan)
    both = [ds[n] for n in ("latitude", "longitude")]
    if any(v.dims != ("station",) or v.dtype.kind not in "fiu" for v in both):
        raise SmgeoError("latitude and longitude are numbers in degrees, one a station")
    degrees = np.stack([v.values.astype("float64") for v in both], axis=1)
    wrong = (np.abs(degrees[:, 0]) > 90) | (np.abs(degrees[:, 1]) > 360)
    if wrong.any():
        first = np.flatnonzero(wrong)[0]
        raise SmgeoError(
            f"station {text_of(ds['station'])[first]} has latitude {degrees[first, 0]:g} and longitude {degrees[first, 1]:g}, which is no place on "
            "Earth; are they swapped, or in metres?"
        )
    return np.where(np.isfinite(degrees).all(axis=1)[:, None], degrees, np.nan)


def on_sphere(degrees: np.ndarray) -> np.ndarray:
    """Convert degrees (n, 2) to unit vectors (n, 3), which have no date line."""
    latitude, longitude = np.deg2rad(degrees).T
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )


def middles(degrees: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the middle of the positions (n, 2) of each label (n,), numbered from 0: degrees (labels, 2); NaN where one is unknown.

    >>> middles(np.array([[0.0, 179.0], [0.0, -179.0], [4.0, 5.0]]), np.array([0, 0, 1])).round(9).tolist()
    [[0.0, 180.0], [4.0, 5.0]]
    """
    x, y, z = (np.bincount(label, weights=along) for along in on_sphere(degrees).T)
    return np.asarray(np.rad2deg(np.stack([np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x)], axis=1)))


def nearest_m(of: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return great-circle metres from each of `of` (n, 2), in degrees, to the nearest of `among`; NaN where unknown.

    >>> nearest_m(np.array([[0.0, 179.5]]), np.array([[0.0, -179.5], [10.0, 0.0]])).round(-2)
    array([111200.])
    """
    out = np.full(len(of), np.nan)
    known, there = np.isfinite(of).all(axis=1), among[np.isfinite(among).all(axis=1)]
    if known.any() and len(there):
        out[known] = arc_m(KDTree(on_sphere(there)).query(on_sphere(of[known]))[0])
    return out


def near_stations(degrees: np.ndarray, held: np.ndarray, km: float) -> np.ndarray:
    """Return which stations are nearer than `km` to one of the mask `held`, bool (station,); none if `km` is 0."""
    if km <= 0 or not held.any():
        return np.zeros(len(degrees), dtype=np.bool_)
    return np.asarray(nearest_m(degrees, degrees[held]) < 1000 * km)


def number_places(degrees: np.ndarray, size_m: float) -> np.ndarray:
    """Number places whose members are at most `size_m` apart, each from each other; an unknown position is its own place.

    Those nearest to each other are joined first (complete linkage).

    Parameters
    ----------
    degrees : numpy.ndarray
        Latitude and longitude, (n, 2).
    size_m : float
        Largest great-circle distance within a place, m.

    Returns
    -------
    numpy.ndarray
        int (n,), from 0 in order of appearance.

    Raises
    ------
    SmgeoError
        If places of this size would have to be found among too many stations that are near to each other.
    """
    place = np.arange(len(degrees))
    known = np.flatnonzero(np.isfinite(degrees).all(axis=1))
    if not known.size:
        return place
    # Each position once, in an order of their own: stations at one point are many, and the order of a cube is arbitrary.
    positions, at = np.unique(degrees[known], axis=0, return_inverse=True)
    points = on_sphere(positions)
    label = np.arange(len(points))
    chord = 2 * np.sin(min(size_m / (2 * EARTH_M), np.pi / 2))
    for members in _chained(points, chord, size_m):
        found = fcluster(linkage(pdist(points[members]), method="complete"), chord, criterion="distance")
        label[members] = members[_first(found)]
    place[known] = len(degrees) + label[at.ravel()]
    return number_keys(place)


def _chained(points: np.ndarray, chord: float, size_m: float) -> Iterator[np.ndarray]:
    """Yield the positions of points that are joined by steps of at most `chord`, two or more each."""
    tree = KDTree(points)
    if tree.count_neighbors(tree, chord) > _MOST_PAIRS:
        raise SmgeoError(
            f"places of {size_m:g} m: too many of {len(points):,} stations are that near; give a smaller distance, or group by station"
        )
    near = tree.query_pairs(chord, output_type="ndarray")
    joined = coo_array((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(len(points), len(points)))
    label = connected_components(joined, directed=False)[1]
    for members in _members(label):
        if members.size**2 > _MOST_PAIRS:
            raise SmgeoError(
                f"places of {size_m:g} m: steps of this length join {members.size:,} stations; give a smaller distance, or group by station"
            )
        if members.size > 1:
            yield members


def _members(label: np.ndarray) -> list[np.ndarray]:
    """Return the positions of each label, in order."""
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def arc_m(chord: np.ndarray) -> np.ndarray:
    """Convert distances between unit vectors to great-circle metres."""
    return np.asarray(2 * EARTH_M * np.arcsin(np.minimum(chord / 2, 1.0)))


def number_keys(keys: np.ndarray) -> np.ndarray:
    """Number the distinct keys in order of appearance, from 0."""
    return np.asarray(pd.factorize(keys)[0], dtype=np.intp)


def _first(label: np.ndarray) -> np.ndarray:
    """Return for each item the position of the first one with its label."""
    _, first, at = np.unique(label, return_index=True, return_inverse=True)
    return np.asarray(first[at])


def _of_most(place: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return for each station the label of most stations of its place; the first in the cube, if several are of as many."""
    table = pd.DataFrame({"place": place, "label": label, "at": np.arange(len(place))})
    counts = table.groupby(["place", "label"], sort=False)["at"].agg(["size", "min"]).reset_index()
    chosen = counts.sort_values(["size", "min"], ascending=[False, True]).drop_duplicates("place").set_index("place")
    return np.asarray(chosen["label"].reindex(place))


def _labels(ds: xr.Dataset, name: str) -> np.ndarray:
    """Return a coordinate of the stations as text."""
    known = [str(c) for c in ds.coords if ds[c].dims == ("station",) and c != "station"]
    if name not in known:
        raise SmgeoError(
            f"groups: the stations have no coordinate {name!r}; {nearest(name, ['place', 'station', 'clusters', *known])}"
        )
    return np.where(pd.isna(ds[name].values), "", text_of(ds[name])).astype(object)
