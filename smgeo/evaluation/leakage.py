"""Leakage audit: scores of one quick model on random rows, other periods and other locations.

It takes the station cube as it was built, with gaps and outliers, so that it describes the data and not a preparation. Its
forest draws few rows for a tree to be quick: it shows gaps between scores, not the best score.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.bounds import check_arguments, checked
from smgeo.cube.schema import units_of
from smgeo.errors import SmgeoError, nearest
from smgeo.evaluation.cross_validation import score_folds
from smgeo.evaluation.distances import BESIDE_KM
from smgeo.evaluation.scores import compute_scores
from smgeo.files import JsonObject
from smgeo.prepare import Folds, cv_folds
from smgeo.prepare.folds import GAP_DAYS
from smgeo.prepare.places import coordinates_of, nearest_m
from smgeo.prepare.quick_forest import Regressor, fit_repeatably
from smgeo.prepare.target import choose_features, known_features

METHODS = ("random", "temporal", "leave-location-out")
_TREES = 100
# Maximum rows × features per tree, so that half a million rows of 27 features take two minutes on 2 cores.
_VALUES_OF_A_TREE = 150_000
# Maximum rows of a fold whose distances are measured, and training rows that they are measured to.
_ROWS_MEASURED, _ROWS_AMONG = 300, 100_000
_ROWS_AT_ONCE = 8_192
_BESIDE = "Locations lie so near to each other that leaving one out is close to a random split; use groups or clusters."
# Periods whose rows are more than so many times as far from training stations as random rows are other places.
_ELSEWHERE = 2.0
# Smaller differences of R2 are not reported as a finding.
_SMALL = 0.05
_SCORES = {
    "rmse": "RMSE",
    "ubrmse": "ubRMSE",
    "bias": "bias",
    "r": "r",
    "r2_pooled": "R2",
    "r2_mean_of_folds": "R2 mean of folds",
    "r2_station_means": "R2 station means",
    "n": "rows",
}
_DISTANCES = {
    "km_median": "km",
    "km_min": "least",
    "km_max": "most",
    "feature_median": "features",
    "feature_min": "least",
    "feature_max": "most",
    "feature_between_stations": "between stations",
}


@dataclass(frozen=True)
class LeakageAudit:
    """Scores of one model under three ways of holding rows out, and distances from held-out rows to training rows.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per split: `random`, `temporal`, `leave-location-out`. NaN where a number is not defined. Columns:

        - `n`: rows scored.
        - `rmse`, `ubrmse`, `bias` (estimate minus observation), in the target's unit, and `r`, all pooled.
        - `r2_pooled`, `r2_mean_of_folds`, `r2_station_means`: see `smgeo.evaluation.cross_validation.score_folds`.
        - `km_median`, `km_min`, `km_max`: from a held-out row to the nearest training station.
        - `feature_median`, `feature_min`, `feature_max`: from a held-out row to the nearest training row, in standard
          deviations of the features.
        - `feature_between_stations`: median of the same from a training row to the nearest one of another station.
    features : tuple of str
        Features of the model.
    target, units : str
        Variable that is estimated, and its unit.
    stations, folds, seed, gap_days : int
        Number of stations, and the arguments of `audit_leakage`.
    model : str
        Class of the model.
    notes : tuple of str
        Distances that were not measured, and the reason.
    """

    table: pd.DataFrame
    features: tuple[str, ...]
    target: str
    units: str
    stations: int
    folds: int
    seed: int
    gap_days: int
    model: str
    notes: tuple[str, ...] = ()

    @property
    def meaning(self) -> str:
        """Interpretation of the differences between the scores, and what the distances say against it."""
        km = self.table["km_median"]
        said = [self._difference]
        if km["leave-location-out"] < BESIDE_KM:
            said.append(_BESIDE)
        if km["temporal"] > max(_ELSEWHERE * km["random"], BESIDE_KM):
            said.append(
                f"Periods are other places here, too ({km['temporal']:.1f} km to training, random rows {km['random']:.1f} km): their score is not "
                "that of another year alone."
            )
        return " ".join(said)

    @property
    def _difference(self) -> str:
        r2 = self.table["r2_pooled"]
        if not np.isfinite(r2).all():
            return "R2 is not defined because the target is constant."
        kinds = {"leave-location-out": ("at locations", "a map"), "temporal": ("in periods", "another year")}
        fallen = [m for m in kinds if r2["random"] - r2[m] >= _SMALL]
        if not fallen:
            return (
                f"Random rows overstate R2 by less than {_SMALL:g} here: the model does about as well at locations and in "
                "periods that it was not trained on."
            )
        found = " and ".join(f"{r2[m]:.2f} {kinds[m][0]}" for m in fallen)
        users = " or ".join(kinds[m][1] for m in fallen)
        return (
            f"Random rows overstate the skill of the model: R2 is {r2['random']:.2f} there, but {found} that it was not trained on; "
            f"expect the latter for {users}."
        )

    def to_dict(self) -> JsonObject:
        """Return the audit as in `results.json`: `splits` is the table by split, with None where a number is not defined."""
        splits = {
            str(method): {str(k): None if pd.isna(v) else int(v) if k == "n" else float(v) for k, v in row.items()}
            for method, row in self.table.iterrows()
        }
        about = {k: getattr(self, k) for k in ("target", "units", "stations", "folds", "seed", "gap_days", "model")}
        return {
            **about,
            "features": list(self.features),
            "splits": splits,
            "meaning": self.meaning,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """Return aligned text: scores, distances, and their interpretation."""
        n = int(self.table["n"].max())
        formats: dict[str, Callable[[float], str]] = {"n": "{:,.0f}".format}
        formats |= dict.fromkeys(("km_median", "km_min", "km_max"), "{:.2f}".format)
        blocks = [
            self.table[list(names)].to_string(
                header=list(names.values()), formatters=formats, float_format="{:.3f}".format, na_rep="-"
            )
            for names in (_SCORES, _DISTANCES)
        ]
        return "\n".join(
            [
                f"Leakage audit: {self.target} ({self.units}) from {len(self.features)} features, {n:,} rows at {self.stations} stations; "
                f"{self.model}, {self.folds} folds",
                "",
                blocks[0],
                "",
                "Distances from held-out rows: km to the nearest training station; in features, standard deviations to the nearest",
                "training row, and the same between training rows of different stations (median, least and most)",
                blocks[1],
                "",
                self.meaning,
                *self.notes,
            ]
        )


@checked
def audit_leakage(
    ds: xr.Dataset,
    features: Sequence[str] | None = None,
    target: str = "sm",
    *,
    folds: int = 5,
    model: Regressor | None = None,
    seed: int = 0,
    gap_days: int = GAP_DAYS,
    progress: Callable[[int, int], None] | None = None,
) -> LeakageAudit:
    """Train one quick model with random, temporal and location folds, and compare the three scores.

    Everything is learned again in each fold. Rows are the station-days with a target, the same in all three splits. They
    are used as they are, including missing features: fill gaps first if you want them filled.

    Distances explain the differences of the scores:

    - On the ground: great-circle distance from the station of a held-out row to the nearest station with a training row.
    - In feature space: Euclidean distance to the nearest training row. Features are standardised with the mean and standard
      deviation of the fold's training rows; a missing value is 0. The same distance from training rows to rows of other
      stations shows how different new locations are.

    The distance in feature space is the unweighted distance of the area of applicability (Meyer and Pebesma 2021, Methods
    Ecol. Evol. 12, 1620-1633, before its division by the mean distance), used as a nearest-neighbour distance (Milà et al.
    2022, Methods Ecol. Evol. 13, 1304-1316). It is measured from 300 rows of each fold to at most 100,000 training rows,
    drawn by the seed.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube, raw or prepared, lazy or not. One variable is read at a time. The table of rows × features is kept in
        memory as float32, with a peak of about ten times that (58 MB and 0.6 GB for 534,000 rows of 27 features).
    features : sequence of str, optional
        Dynamic, static or calendar variables; all of these by default.
    target : str
        Variable that is estimated.
    folds : int
        Number of folds of each split.
    model : scikit-learn regressor, optional
        Cloned for each fold; it must accept missing values if there are any. By default a random forest of 100 trees, each
        on at most 150,000 / features rows (5,555 for 27 features), so that it is quick.
    seed : int
        Seed of folds, forest and samples.
    gap_days : int
        Days between training and held-out days of temporal folds, see `smgeo.cv_folds`. Rows are single days, so 30 is more
        than the catalogue's sums look back.
    progress : callable, optional
        Called with (folds done, total folds).

    Returns
    -------
    LeakageAudit
        `print` it, or use its `table`.

    Raises
    ------
    SmgeoError
        If `ds` is not a station cube, a feature is unknown, or folds cannot be made.
    """
    check_arguments("leakage audit", folds=folds, seed=seed, gap_days=gap_days)
    names = _check_features(ds, features, target)
    all_folds = {m: cv_folds(ds, m, folds, target=target, seed=seed, gap_days=gap_days) for m in METHODS}
    rows = all_folds["random"].rows
    x, y = _table(ds, names, rows), ds[target].transpose("station", "time").values[rows].astype("float64")
    station = np.nonzero(rows)[0]
    places, notes = coordinates_of(ds), _unknown_places(ds, np.unique(station))
    kilometres = {m: _distances_on_the_ground(f, places) for m, f in all_folds.items()}
    table = {}
    for done, (method, of_method) in enumerate(all_folds.items()):
        report = (lambda k, done=done: progress(done * folds + k, len(METHODS) * folds)) if progress else None
        pairs = [(train[rows], held[rows]) for train, held in of_method]
        table[method] = {
            **_score(pairs, x, y, station, model, seed, report),
            **_spread("km", kilometres[method]),
            **_distances_in_features(pairs, x, station, seed),
        }
    return LeakageAudit(
        table=pd.DataFrame.from_dict(table, orient="index", dtype="float64").astype({"n": "int64"}),
        features=tuple(names),
        target=target,
        units=units_of(ds, [target])[target],
        stations=np.unique(station).size,
        folds=folds,
        seed=seed,
        gap_days=gap_days,
        model="RandomForestRegressor" if model is None else type(model).__name__,
        notes=notes,
    )


def _check_features(ds: xr.Dataset, features: Sequence[str] | None, target: str) -> list[str]:
    names = choose_features(ds, features, target, "leakage audit")
    known = known_features(ds, target)
    for name in names:
        if name not in known:
            raise SmgeoError(f"leakage audit: the cube has no feature {name!r}; {nearest(name, known)}")
    return names


def _table(ds: xr.Dataset, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """Return the features of the rows: (rows, features) float32, NaN where missing or infinite."""
    like = xr.DataArray(rows, dims=("station", "time"))
    out = np.empty((int(rows.sum()), len(names)), dtype="float32")
    for i, name in enumerate(names):
        out[:, i] = ds[name].broadcast_like(like).transpose("station", "time").values[rows]
    out[~np.isfinite(out)] = np.nan
    return out


def _unknown_places(ds: xr.Dataset, stations: np.ndarray) -> tuple[str, ...]:
    """Return a note if some of these stations have no coordinates."""
    if not {"latitude", "longitude"} <= set(ds.variables):
        return ("Distances on the ground are unknown: the cube has no latitude and longitude.",)
    lacking = int((~np.isfinite(coordinates_of(ds)[stations]).all(axis=1)).sum())
    note = f"Distances on the ground leave out {lacking} of {stations.size} stations without latitude or longitude."
    return (note,) if lacking else ()


def _distances_on_the_ground(folds: Folds, places: np.ndarray) -> np.ndarray:
    """Return kilometres from each held-out row to the nearest training station, without rows of stations without a place."""
    out = []
    for train, held in folds:
        there, here = (np.flatnonzero(part.any(axis=1)) for part in (train, held))
        km = nearest_m(places[here], places[there]) / 1000
        out.append(np.repeat(km, held[here].sum(axis=1)))
    found = np.concatenate(out)
    return found[np.isfinite(found)]


def _score(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    x: np.ndarray,
    y: np.ndarray,
    station: np.ndarray,
    model: Regressor | None,
    seed: int,
    report: Callable[[int], None] | None,
) -> dict[str, object]:
    """Return the scores of the held-out rows of all folds."""
    from sklearn.base import clone

    observed, predicted, places = [], [], []
    for k, (train, held) in enumerate(pairs):
        fitted = _fit(None if model is None else clone(model), x[train], y[train], seed)
        observed.append(y[held])
        predicted.append(np.asarray(fitted.predict(x[held]), dtype="float64"))
        places.append(station[held])
        if report:
            report(k + 1)
    o, p = np.concatenate(observed), np.concatenate(predicted)
    pooled = compute_scores(o, p, np.zeros(o.size, dtype="int8"))
    found: dict[str, object] = {**pooled, **score_folds(observed, predicted, places)}
    return {k: found[k] for k in _SCORES}


def _fit(model: Regressor | None, x: np.ndarray, y: np.ndarray, seed: int) -> Regressor:
    from sklearn.ensemble import RandomForestRegressor

    if model is not None:
        model.fit(x, y)
        return model
    most = max(_VALUES_OF_A_TREE // x.shape[1], 1)
    # A third of the features at each split is Breiman's choice for regression, and three times as fast as all features.
    samples = most if y.size > most else None
    forest = RandomForestRegressor(_TREES, max_features=1 / 3, max_samples=samples, n_jobs=-1, random_state=seed)
    return fit_repeatably(forest, x, y)


def _spread(name: str, values: np.ndarray) -> dict[str, float]:
    """Return median, minimum and maximum by name; NaN without values."""
    three = np.quantile(values, [0.5, 0, 1]) if values.size else np.full(3, np.nan)
    return {f"{name}_{word}": float(v) for word, v in zip(("median", "min", "max"), three, strict=True)}


def _distances_in_features(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], x: np.ndarray, station: np.ndarray, seed: int
) -> dict[str, float]:
    """Measure distances from held-out rows to training rows, and from training rows to those of other stations."""
    to_training, between = [], []
    for k, (train, held) in enumerate(pairs):
        random = np.random.default_rng([seed, k])
        among = _draw(train, _ROWS_AMONG, random)
        here, there = _draw(held, _ROWS_MEASURED, random), _draw(train, _ROWS_MEASURED, random)
        rows, from_held, from_train = _standardise(x[train], x[among], x[here], x[there])
        to_training.append(_nearest(from_held, rows))
        between.append(_nearest(from_train, rows, station[there], station[among]))
    others = np.concatenate(between)
    median = _spread("other", others[np.isfinite(others)])["other_median"]
    return {**_spread("feature", np.concatenate(to_training)), "feature_between_stations": median}


def _draw(rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Return the indices of at most `count` of the rows."""
    at = np.flatnonzero(rows)
    return at if at.size <= count else np.sort(random.choice(at, count, replace=False))


def _standardise(learn: np.ndarray, *tables: np.ndarray) -> Iterator[np.ndarray]:
    """Yield tables in standard deviations from the mean of `learn`; 0 where a value is missing or a feature is constant."""
    with warnings.catch_warnings():
        # A feature without any value has no mean, and does not distinguish rows.
        warnings.simplefilter("ignore", RuntimeWarning)
        mean, std = np.nanmean(learn, axis=0, dtype="float64"), np.nanstd(learn, axis=0, dtype="float64")
    for table in tables:
        yield np.nan_to_num((table - mean) / np.where(std > 0, std, np.inf), nan=0.0)


def _nearest(
    of: np.ndarray, among: np.ndarray, of_station: np.ndarray | None = None, among_station: np.ndarray | None = None
) -> np.ndarray:
    """Return the Euclidean distance of each row to the nearest of `among`; if stations are given, of another station.

    Infinite if there is no such row.

    >>> _nearest(np.array([[0.0, 0.0]]), np.array([[0.0, 1.0], [3.0, 4.0]]), np.array([7]), np.array([7, 8]))
    array([5.])
    """
    best = np.full(len(of), np.inf)
    for start in range(0, len(among), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        squared: np.ndarray = (of**2).sum(axis=1)[:, None] + (among[some] ** 2).sum(axis=1) - 2 * of @ among[some].T
        if of_station is not None and among_station is not None:
            squared[of_station[:, None] == among_station[some]] = np.inf
        best = np.minimum(best, squared.min(axis=1))
    found: np.ndarray = np.sqrt(np.maximum(best, 0.0))
    return found
