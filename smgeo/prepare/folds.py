"""Folds of a station cube's rows for cross-validation: stations, locations, blocks, periods or rows are held out together.

The module is longer than others because a method is one function, and all are in one table.

Random folds hold out the target of rows, while the features of these rows stay in the statistics: every station is a training
station. The method is there to show how much it hides.

Temporal folds hide the held-out period from everything that is learned: its values before gaps are filled, sums over days for as
many days after it as they look back (`looks_back_days` in the catalogue), and revisits measured over the whole series. The
gap, of at least 30 days, then keeps training windows whole and periods apart. Held-out rows near the edge of their period
keep their own past, which is on training days: a user has it on that day too.

Spatial blocks are found by k-means unless a side is given. A length fits one study area only, and squares of a wrong length
leave most blocks empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from pyproj import CRS, Transformer

from smgeo.bounds import check_arguments, check_given, checked
from smgeo.cube.schema import observed
from smgeo.errors import SmgeoError, nearest
from smgeo.prepare.knndm import SPACES, Match, Space, match_folds
from smgeo.prepare.places import (
    GROUP,
    buffer_of,
    coordinates_of,
    group_numbers,
    middles,
    near_stations,
    number_keys,
    on_sphere,
    place_numbers,
)
from smgeo.prepare.prediction_points import features_of_places, prediction_degrees

FOLDS = 10
GAP_DAYS = 30
# Methods that hold out whole stations.
BOTH = "leave-location-and-time-out"
OF_STATIONS = ("group-k-fold", "leave-location-out", BOTH, "spatial-blocks", "knndm")
_SHARE_SET_APART = 0.1


class Parts(NamedTuple):
    """Unit and fold of each row, of a shape that broadcasts to (station, time); of `knndm` also how well distances match."""

    unit: np.ndarray
    fold: np.ndarray
    match: Match | None = None


@dataclass(frozen=True)
class Folds:
    """Pairs (training rows, held-out rows), one per fold; can be iterated over repeatedly.

    Attributes
    ----------
    method : str
        Name in `METHODS`.
    rows : numpy.ndarray
        bool (station, time): the rows, that is the station-days with a target.
    unit : numpy.ndarray
        int, broadcasts to `rows`: the station, location, block, day (since 1970-01-01) or row that is held out as a
        whole; -1 at stations without a row.
    fold : numpy.ndarray
        int, same shape: number of the fold that holds the unit out; -1 if no fold does.
    count : int
        Number of folds.
    seed, gap_days, forward_only
        Arguments of `cv_folds`.
    buffer_km, degrees
        Training stations nearer than this to one that a fold holds out are in neither part of the fold; positions of stations, (station, 2).
    match : smgeo.prepare.knndm.Match or None
        Of `knndm`: the statistic W, and the distances from prediction points, and from held-out places, to training places.
    periods : Folds or None
        Of `leave-location-and-time-out`: the periods. A fold holds out the rows of its places in its period.
    """

    method: str
    rows: np.ndarray
    unit: np.ndarray
    fold: np.ndarray
    count: int
    seed: int
    gap_days: int = 0
    forward_only: bool = False
    buffer_km: float = 0.0
    degrees: np.ndarray | None = None
    match: Match | None = None
    periods: Folds | None = None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self[k] for k in range(self.count))

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return training and held-out rows of fold `k`: bool (station, time) each."""
        if not 0 <= k < self.count:
            raise IndexError(f"fold {k} of {self.count}")
        train, held = self.rows & (self.fold != k), self.rows & (self.fold == k)
        if self.degrees is not None:
            there = self.fold[:, 0] == k
            train &= ~near_stations(self.degrees, there, self.buffer_km)[:, None] | there[:, None]
        if self.method == "temporal":
            train &= self._far_from(k)
        if self.periods is not None:
            then_trained, then_held = self.periods[k]
            train, held = train & then_trained, held & then_held
        return train, held

    def held_out_days(self, k: int) -> tuple[int, int] | None:
        """Return the first and last day with a row, by position in time, of the period that fold `k` holds out; None without periods."""
        if self.periods is not None:
            return self.periods.held_out_days(k)
        if self.method != "temporal":
            return None
        first, last = np.flatnonzero(self.fold[0] == k)[[0, -1]]
        return int(first), int(last)

    def set_apart(self, k: int) -> np.ndarray:
        """Return a tenth of the training units of fold `k` for early stopping: bool (station, time), among its training rows.

        Stations, locations, blocks and rows are drawn by the seed. In `temporal` the last days are taken, so that they are
        neighbours of as few training days as possible.
        """
        train, _ = self[k]
        random = np.random.default_rng([self.seed, k])
        if self.method == "random":
            return train & (random.random(train.shape) < _SHARE_SET_APART)
        units = np.unique(np.broadcast_to(self.unit, train.shape)[train])
        n = max(round(_SHARE_SET_APART * units.size), 1)
        chosen = units[-n:] if self.method == "temporal" else units[random.permutation(units.size)[:n]]
        return train & np.isin(self.unit, chosen)

    def _far_from(self, k: int) -> np.ndarray:
        """Return the days with at least `gap_days` days between them and the held-out period, on both sides or before it."""
        held = self.unit[self.fold == k]
        before: np.ndarray = self.unit < held.min() - self.gap_days
        after: np.ndarray = self.unit > held.max() + self.gap_days
        return before if self.forward_only else before | after


@checked
def cv_folds(
    ds: xr.Dataset,
    method: str,
    folds: int | None = None,
    *,
    target: str = "sm",
    seed: int = 0,
    block_km: float | None = None,
    gap_days: int = GAP_DAYS,
    forward_only: bool = False,
    prediction: np.ndarray | xr.Dataset | None = None,
    space: str = "geographic",
    features: Sequence[str] | None = None,
) -> Folds:
    """Divide the rows of a station cube into folds for cross-validation.

    | method | held out together |
    |---|---|
    | `group-k-fold` | groups of stations: places, or what `group_stations` or a table's column `group` says |
    | `leave-location-out` | places: stations that are no farther apart than 30 m; groups, where the cube has larger ones |
    | `leave-location-and-time-out` | places in a period: fold k trains on no row of its places, and on no day of its period |
    | `spatial-blocks` | all places (or groups, at their first station) of a block |
    | `knndm` | groups, so that held-out places are as far from training places as `prediction` is |
    | `temporal` | all rows of a period |
    | `random` | nothing: each row is drawn separately |

    Every row is held out once and is never in both parts of a fold. `temporal` has two exceptions: rows within `gap_days` of
    the held-out period are in neither part of that fold, and with `forward_only` the first period is never held out. Stations within the
    buffer of `group_stations` around those that are held out are in neither part of that fold. `leave-location-and-time-out` (Meyer et al.
    2018, Environ. Model. Softw. 101, 1-9) divides places into folds as `leave-location-out` and days as `temporal`, and pairs them: of each
    place, the rows of one period are held out, about one in `folds`, and rows of the places or of the period alone are in neither part.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube with the target (station, time), lazy or not. Only the target is read. Rows are the station-days on
        which it has a value.
    method : str
        Method from the table above.
    folds : int, optional
        Number of folds. 10 by default; in `leave-location-out` the number of places.
    target : str
        Variable whose values define the rows.
    seed : int
        Seed of the order in which groups, places and blocks are assigned to folds, of k-means, of random rows, and of pixels.
    block_km : float, optional
        For `spatial-blocks`: side of square blocks in km, in a Lambert azimuthal equal-area projection about the middle of
        the stations, counted from the westernmost and southernmost. It should not be shorter than the distance over which
        residuals are correlated (Roberts et al. 2017, Ecography 40, 913-929). By default there are as many blocks as folds,
        found by k-means on the sphere, which needs no such distance and suits a farm as well as a continent (Brenning
        2012, IGARSS, 5372-5375).
    gap_days : int
        For `temporal` and `leave-location-and-time-out`: minimum number of days between training and held-out days. Training
        rows use no held-out day if this
        is at least (days of a window - 1) + (days that sums look back, 29 for `precipitation_30d`). The default of 30
        suffices for rows of single days, but 30-day windows of 30-day sums need 58. Two-way gap filling joins observations
        that are further apart. So fill each fold separately, without the held-out period, as
        `smgeo.evaluation.cross_validation.cross_validate` does.
    forward_only : bool
        For the same two: train only on days before the held-out period. There are then `folds` + 1 periods.
    prediction : numpy.ndarray or xarray.Dataset, optional
        For `knndm`: the points that a map is made for, latitude and longitude in degrees, (n, 2), or a grid cube, of which at most 5,000
        pixels are drawn by the seed. See `smgeo.prepare.knndm.match_folds` (Linnenbrink et al. 2024, Geosci. Model Dev. 17, 5897-5912).
    space : {"geographic", "feature"}
        For `knndm`: great-circle distances, or distances between standardised features, which need a grid cube with the features.
        Features that vary in time count by their mean over the days with a value.
    features : sequence of str, optional
        For `knndm` in `feature` space: names of the features; by default all numeric variables of both cubes that differ between
        places, but not those of kind `calendar`.

    Returns
    -------
    Folds
        Iterate over it for (training rows, held-out rows): bool (station, time), in the order of the cube. For scikit-learn:

        >>> import numpy as np, xarray as xr
        >>> ds = xr.Dataset({"sm": (("station", "time"), [[0.1, 0.2], [0.3, np.nan], [0.2, 0.4]])}, {"station": list("abc")})
        >>> rows = ds["sm"].notnull().values
        >>> cv = [(np.flatnonzero(train[rows]), np.flatnonzero(held[rows])) for train, held in cv_folds(ds, "group-k-fold", 3)]
        >>> [(train.tolist(), held.tolist()) for train, held in cv]
        [([0, 1, 2], [3, 4]), ([2, 3, 4], [0, 1]), ([0, 1, 3, 4], [2])]

    Raises
    ------
    SmgeoError
        If the method is unknown, there are fewer units than folds, a fold would train on or hold out no row, the cube
        lacks coordinates that `spatial-blocks` and `knndm` need, or `knndm` has no prediction points or a buffer.
    """
    if method not in METHODS:
        raise SmgeoError(f"cross-validation: unknown method {method!r}; {nearest(method, list(METHODS))}")
    if target not in ds:
        raise SmgeoError(
            f"cross-validation: the cube has no target {target!r}; it has {', '.join(map(str, ds.data_vars))}"
        )
    check_arguments("cross-validation", seed=seed, gap_days=gap_days)
    check_given("cross-validation", folds=folds, block_km=block_km)
    if space not in SPACES:
        raise SmgeoError(f"cross-validation (knndm): unknown space {space!r}; {nearest(space, SPACES)}")
    rows = observed(ds[target]).transpose("station", "time").values
    if not rows.any():
        raise SmgeoError(f"cross-validation: no station has a value of the target {target!r}, so there are no rows")
    if folds is None and method != "leave-location-out":
        folds = FOLDS
    asked = _Asked(ds, rows, folds or 0, seed, block_km, forward_only, target, prediction, space, features)
    unit, fold, match = METHODS[method](asked)
    made = Folds(method, rows, unit, fold, folds or int(fold.max()) + 1, seed, gap_days, forward_only, match=match)
    if method in OF_STATIONS and (km := buffer_of(ds)):
        made = replace(made, buffer_km=km, degrees=coordinates_of(ds))
    if method == BOTH:
        periods = Folds("temporal", rows, *_by_period(asked)[:2], made.count, seed, gap_days, forward_only)
        made = replace(made, periods=periods)
    _check_parts(made)
    return made


def _check_parts(folds: Folds) -> None:
    """Raise an error if a fold would train on or hold out no row."""
    # Whole stations or days are in a part or not, so one row represents all of them; but not where both are crossed.
    alike = () if folds.periods else tuple(axis for axis, size in enumerate(folds.unit.shape) if size == 1)
    some = replace(folds, rows=np.logical_or.reduce(folds.rows, axis=alike, keepdims=True))
    for k, (train, held) in enumerate(some):
        if not (train.any() and held.any()):
            lacks = "trains on" if held.any() else "holds out"
            other = f" or a gap_days below {folds.gap_days}" if folds.held_out_days(k) else ""
            other = other if folds.degrees is None else " or a smaller buffer_km"
            raise SmgeoError(
                f"cross-validation ({folds.method}): fold {k + 1} of {len(folds)} {lacks} none of the {folds.rows.sum():,} rows; use "
                f"fewer folds{other}"
            )


@dataclass(frozen=True)
class _Asked:
    """Arguments of `cv_folds`; `rows` is bool (station, time), `folds` is 0 for one fold per unit."""

    ds: xr.Dataset
    rows: np.ndarray
    folds: int
    seed: int
    block_km: float | None
    forward_only: bool
    target: str
    prediction: np.ndarray | xr.Dataset | None
    space: Space
    features: Sequence[str] | None

    @property
    def with_rows(self) -> np.ndarray:
        """Indices of the stations that have a row."""
        return np.flatnonzero(self.rows.any(axis=1))

    @property
    def degrees(self) -> np.ndarray:
        """Latitude and longitude of the stations with rows, (n, 2); NaN where unknown."""
        degrees: np.ndarray = coordinates_of(self.ds)[self.with_rows]
        return degrees


def _deal(asked: _Asked, keys: np.ndarray, word: str, folds: int) -> Parts:
    """Assign units to folds in random order; stations with the same key are one unit."""
    number = number_keys(keys)
    units = int(number.max()) + 1
    if folds > units:
        raise SmgeoError(f"cross-validation: {folds} folds of {units} {word}; folds must be from 2 to {units}")
    fold_of = np.empty(units, dtype=np.intp)
    fold_of[np.random.default_rng(asked.seed).permutation(units)] = np.arange(units) % folds
    unit, fold = (np.full((asked.rows.shape[0], 1), -1, dtype=np.intp) for _ in range(2))
    unit[asked.with_rows, 0], fold[asked.with_rows, 0] = number, fold_of[number]
    return Parts(unit, fold)


def _by_group(asked: _Asked) -> Parts:
    return _deal(asked, group_numbers(asked.ds)[asked.with_rows], "groups with a target", asked.folds)


def _by_place(asked: _Asked) -> Parts:
    keys = _whole_places(asked)
    return _deal(asked, keys, "places with a target", asked.folds or max(np.unique(keys).size, 2))


def _whole_places(asked: _Asked) -> np.ndarray:
    """Return the number of the place of each station with rows; of its group, where the cube has larger ones, which are never parted."""
    named = asked.ds[GROUP].attrs.get("by", GROUP) if GROUP in asked.ds.coords else "place"
    numbers = place_numbers if named in ("place", "station") else group_numbers
    found: np.ndarray = numbers(asked.ds)[asked.with_rows]
    return found


def _by_block(asked: _Asked) -> Parts:
    places = asked.degrees
    if lacking := int((~np.isfinite(places).all(axis=1)).sum()):
        found = "has none" if lacking == len(places) else f"lacks those of {lacking} stations"
        raise SmgeoError(
            f"cross-validation (spatial-blocks): needs latitude and longitude of every station with a target; the cube {found}; "
            "add the coordinates, leave these stations out, or use group-k-fold"
        )
    _, first, location = np.unique(_whole_places(asked), return_index=True, return_inverse=True)
    if asked.block_km is not None:
        blocks, word = _squares(places[first], asked.block_km), f"squares of {asked.block_km:g} km"
    elif asked.folds > first.size:
        raise SmgeoError(
            f"cross-validation: {asked.folds} folds of {first.size} places; folds must be from 2 to {first.size}"
        )
    else:
        blocks, word = _clusters(places[first], asked.folds, asked.seed), "clusters"
    return _deal(asked, blocks[location], word, asked.folds)


def _squares(places: np.ndarray, block_km: float) -> np.ndarray:
    """Return the number of each place's square; squares begin at the westernmost and southernmost place."""
    x, y, z = on_sphere(places).mean(axis=0)
    latitude, longitude = np.rad2deg([np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x)])
    flat = CRS.from_proj4(f"+proj=laea +lat_0={latitude} +lon_0={longitude} +datum=WGS84 +units=m")
    metres = Transformer.from_crs("EPSG:4326", flat).transform(places[:, 0], places[:, 1])
    at = np.stack([np.floor((m - m.min()) / (1000 * block_km)) for m in metres], axis=1)
    return np.asarray(np.unique(at, axis=0, return_inverse=True)[1]).reshape(-1)


def _clusters(places: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the number of each place's cluster, by k-means on the sphere."""
    from sklearn.cluster import KMeans

    found: np.ndarray = KMeans(count, n_init=10, random_state=seed).fit_predict(on_sphere(places))
    return found


def _by_period(asked: _Asked) -> Parts:
    """Divide the days with a row into periods of equal numbers of them, in order."""
    day = pd.DatetimeIndex(asked.ds.indexes["time"]).values.astype("datetime64[D]").astype(np.intp)
    with_rows = np.flatnonzero(asked.rows.any(axis=0))
    periods = asked.folds + asked.forward_only
    if periods > with_rows.size:
        raise SmgeoError(f"cross-validation: {periods} periods of {with_rows.size} days with a target; use fewer folds")
    fold = np.full((1, day.size), -1, dtype=np.intp)
    for number, members in enumerate(np.array_split(with_rows, periods)):
        fold[0, members] = number - asked.forward_only
    return Parts(day[None, :], fold)


def _by_row(asked: _Asked) -> Parts:
    fold = np.random.default_rng(asked.seed).integers(asked.folds, size=asked.rows.shape)
    return Parts(np.arange(asked.rows.size).reshape(asked.rows.shape), fold)


def _by_distance(asked: _Asked) -> Parts:
    """Match the distances of held-out places to those of the prediction points; places of a group share a fold."""
    if km := buffer_of(asked.ds):
        raise SmgeoError(
            f"cross-validation (knndm): distances between held-out and training places are matched, and a buffer of {km:g} km would "
            "change them; drop buffer_km, or use group-k-fold"
        )
    stations = asked.with_rows
    _, first, place = np.unique(place_numbers(asked.ds)[stations], return_index=True, return_inverse=True)
    group = group_numbers(asked.ds)[stations]
    names: tuple[str, ...] = ()
    if asked.space == "geographic":
        places = middles(asked.degrees, place)
        points = prediction_degrees(asked.prediction, asked.seed)
    else:
        places, points, names = features_of_places(
            asked.ds, stations, place, asked.prediction, asked.target, asked.features, asked.seed
        )
    match = match_folds(places, points, asked.folds, space=asked.space, group=group[first], seed=asked.seed)
    unit, fold = (np.full((asked.rows.shape[0], 1), -1, dtype=np.intp) for _ in range(2))
    unit[stations, 0], fold[stations, 0] = number_keys(group), match.fold[place]
    return Parts(unit, fold, replace(match, features=names))


METHODS: dict[str, Callable[[_Asked], Parts]] = {
    "group-k-fold": _by_group,
    "leave-location-out": _by_place,
    BOTH: _by_place,
    "spatial-blocks": _by_block,
    "temporal": _by_period,
    "random": _by_row,
    "knndm": _by_distance,
}
