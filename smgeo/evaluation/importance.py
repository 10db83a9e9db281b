"""Permutation importance and learning curves: the features that drive a model, and the stations that it needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypedDict

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.bounds import check_arguments, check_each, checked, weigh_memory
from smgeo.cube.schema import select_stations, text_of
from smgeo.errors import SmgeoError, nearest
from smgeo.evaluation.clusters import clusters_of
from smgeo.evaluation.intervals import interval_of_sums
from smgeo.evaluation.parts import predict_stations
from smgeo.evaluation.scores import difference_of_rmse, score_intervals
from smgeo.models.protocol import Model
from smgeo.prepare import Split, part_rows, repeat_steps, training_windows
from smgeo.prepare.places import group_numbers
from smgeo.prepare.target import check_target_is_observed
from smgeo.recipe.preparation import PrepareSpec

# A shift of a month or more breaks the season of a year.
_LEAST_SHIFT_DAYS = 30

Part = Literal["train", "validation", "test"]


class _Increase(TypedDict):
    """Increase of the RMSE by the exchange of one group of features."""

    increase: float
    low: float | None
    high: float | None
    stations_worse: float
    rows: int


@checked
def permutation_importance(
    model: Model,
    ds: xr.Dataset,
    split: Split,
    part: Part = "test",
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    repeats: int = 5,
    seed: int = 0,
    cluster: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Measure how much the error of a model grows when a feature no longer belongs to the place.

    The whole series of a feature is exchanged between stations of different places or groups (the value of a static feature), so that its
    course in time stays possible and the days of a station stay together. A series that all stations share, such as the day of year or the
    only weather station of a field (whatever its gaps), is shifted in time by at least a month.
    The method follows Breiman 2001 (Mach. Learn. 45, 5-32), with stations instead of rows. If features are correlated, the
    model finds in one what was taken from the other, and each of them looks unimportant. Put such features in one group.

    Parameters
    ----------
    model : fitted model
        From `make_model(...).fit(windows)` or `load_model`.
    ds : xarray.Dataset
        Station cube, as opened or prepared as the training data were.
    split : Split
        Stations of each part, or its days.
    part : {"train", "validation", "test"}
        Stations on which errors are measured; two or more.
    groups : mapping, optional
        Name -> features that are exchanged together; by default each feature separately.
    repeats : int
        Exchanges of each group; their squared errors are averaged.
    seed : int
        Seed of the exchanges.
    cluster : str, optional
        What the interval takes for independent, see `smgeo.evaluation.parts.Evaluation.cluster`.
    progress : callable, optional
        Called with (groups done, total groups).

    Returns
    -------
    pandas.DataFrame
        One row per group, the most important first: `increase` of the RMSE (target's unit), the ends of its 95 % interval
        over clusters of stations (`low`, `high`), `stations_worse` (share of stations with a larger error), and `rows`. A row
        that an exchange leaves without enough values does not count in that exchange, neither before nor after it.

    Raises
    ------
    SmgeoError
        If the model was fitted on bare arrays, a feature is unknown, or there are not two places or groups to exchange between.
    """
    preparation = getattr(model, "preparation_", None)
    if not preparation:
        raise SmgeoError("permutation importance: the model was fitted on bare arrays; fit it on Windows")
    check_arguments("permutation importance", repeats=repeats, seed=seed)
    features = preparation["features"]
    if groups is not None and not groups:
        raise SmgeoError("permutation importance: groups is empty; name at least one, or leave it out")
    named = {f: [f] for f in features} if groups is None else {str(k): list(v) for k, v in groups.items()}
    for name, members in named.items():
        for member in members:
            if member not in features:
                raise SmgeoError(f"groups[{name!r}]: the model has no feature {member!r}; {nearest(member, features)}")
    target = preparation["target"]
    stations = select_stations(ds, getattr(split, part))
    prepared = part_rows(repeat_steps(stations, preparation["steps"]), split, part, target).compute()
    check_target_is_observed(prepared, target)
    unit = group_numbers(prepared)
    if unit.size == 0 or unit.max() == 0:
        raise SmgeoError(
            f"permutation importance exchanges series between places and needs {part} stations at two or more; found {unit.size} "
            f"station(s) in {len(np.unique(unit))} group(s)"
        )
    clusters = clusters_of(prepared, cluster).of
    of_station = np.array([clusters[i] for i in text_of(prepared["station"]).tolist()])
    before = _squared_errors(model, prepared)
    weigh_memory(f"permutation importance with {repeats} repeats", 2 * repeats * np.asarray(before).nbytes)
    rows = {}
    for done, (name, members) in enumerate(named.items()):
        random = np.random.default_rng([seed, done])
        after = [_squared_errors(model, _exchange(prepared, members, unit, random)) for _ in range(repeats)]
        rows[name] = _increase(before, after, of_station, seed)
        if progress:
            progress(done + 1, len(named))
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.sort_values("increase", ascending=False, kind="stable")


def _squared_errors(model: Model, prepared: xr.Dataset) -> np.ndarray:
    """Return squared errors (station, day), NaN where there is no estimate."""
    observed, predicted, windows = predict_stations(model, prepared)
    out = np.full((prepared.sizes["station"], prepared.sizes["time"]), np.nan)
    out[windows.targets] = (predicted.astype("float64") - observed) ** 2
    return out


def _exchange(ds: xr.Dataset, features: Iterable[str], unit: np.ndarray, random: np.random.Generator) -> xr.Dataset:
    """Return the cube with the features of other stations; every station gets all of them from one station of another group."""
    days = ds.sizes["time"]
    order = random.permutation(unit.max() + 1)
    other = np.empty(order.size, dtype=np.intp)
    other[order] = np.roll(order, 1)  # one cycle through all groups, so that none keeps its own
    members = [np.flatnonzero(unit == u) for u in range(order.size)]
    giver = np.empty(unit.size, dtype=np.intp)
    for u, stations in enumerate(members):
        giver[stations] = np.resize(members[other[u]], stations.size)
    least = min(_LEAST_SHIFT_DAYS, days // 2)
    shift = int(random.integers(least, max(days - least, least) + 1))
    changed = {}
    for name in features:
        variable = ds[name]
        if _is_shared(variable):
            values = np.roll(variable.values, shift, axis=variable.get_axis_num("time"))
        else:
            values = np.take(variable.values, giver, axis=variable.get_axis_num("station"))
        changed[name] = variable.copy(data=values)
    return ds.assign(changed)


def _is_shared(variable: xr.DataArray) -> bool:
    """Return True if a variable in time is equal at all stations on every day on which two or more have a value."""
    if "station" not in variable.dims:
        return True
    if "time" not in variable.dims:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # for days without a value
        spread = variable.max("station") - variable.min("station")
    return bool((variable.count("station") > 1).any() and not (spread > 0).any())


def _increase(before: np.ndarray, after: Sequence[np.ndarray], cluster: np.ndarray, seed: int) -> _Increase:
    both = [np.isfinite(before) & np.isfinite(a) for a in after]
    n = np.sum([b.sum(axis=1) for b in both], axis=0).astype("float64")
    sums = [
        np.sum([np.where(b, e, 0.0).sum(axis=1) for b, e in zip(both, errors, strict=True)], axis=0)
        for errors in ([before] * len(after), after)
    ]
    seen = n > 0
    n, (old, new) = n[seen], (s[seen] for s in sums)
    if not n.size:
        return {"increase": np.nan, "low": np.nan, "high": np.nan, "stations_worse": np.nan, "rows": 0}
    _, at = np.unique(cluster[seen], return_inverse=True)
    of_clusters = np.stack([np.bincount(at, weights=v) for v in (n, new, old)], axis=1)
    low, high = interval_of_sums(of_clusters, difference_of_rmse, seed=seed)
    return {
        "increase": float(difference_of_rmse(of_clusters.sum(axis=0))),
        "low": low,
        "high": high,
        "stations_worse": float(np.mean(new > old)),
        "rows": int(n.sum() // len(after)),
    }


@checked
def learning_curve(
    make: Callable[[], Model],
    ds: xr.Dataset,
    split: Split,
    prepare: PrepareSpec,
    features: Iterable[str],
    target: str = "sm",
    *,
    length: int = 1,
    fractions: Sequence[float] = (0.1, 0.2, 0.4, 0.7, 1.0),
    seed: int = 0,
    cluster: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Score models that are trained on more and more training stations, at the test stations.

    Each set of stations contains the smaller ones. Everything that is learned, including the statistics of preparation, is
    learned from each set separately. Models that stop early do so on all validation stations.

    Parameters
    ----------
    make : callable
        Returns an unfitted model.
    ds : xarray.Dataset
        Station cube, not prepared.
    split : Split
        Split of the stations.
    prepare : PrepareSpec
        Preparation of each set.
    features, target : iterable of str, str
        Variables used.
    length : int
        Days in a window; 1 for models on rows.
    fractions : sequence of float
        Shares of the training places (or groups), each above 0 and at most 1; a share is at least one of them.
    seed : int
        Seed of the order in which places are added.
    cluster : str, optional
        What the interval takes for independent, see `smgeo.evaluation.parts.Evaluation.cluster`.
    progress : callable, optional
        Called with (models trained, total models).

    Returns
    -------
    pandas.DataFrame
        One row per fraction: `stations`, `rows` trained on, `train_rmse`; at the test stations `rmse` with the ends of its
        95 % interval (`low`, `high`) and `n`. RMSE is in the target's unit.

    Raises
    ------
    SmgeoError
        If a fraction is not above 0 and at most 1, the split is in time, or a set of stations has no row to train on.
    """
    names = list(features)
    check_target_is_observed(ds, target)
    if split.periods:
        raise SmgeoError(
            "learning curve: it adds training stations, but this split is in time; use a split from split_stations"
        )
    check_arguments("learning curve", seed=seed, length=length)
    check_each("learning curve", "fractions", fractions, "fraction")
    unit = group_numbers(select_stations(ds, split.train))
    order = np.random.default_rng(seed).permutation(unit.max() + 1)
    test = select_stations(ds, split.test)
    clusters = clusters_of(test, cluster)
    rows = []
    for done, fraction in enumerate(sorted(fractions)):
        some = order[: max(round(fraction * len(order)), 1)]
        ids = [s for s, u in zip(split.train, unit, strict=True) if u in some]
        model = make()
        held = select_stations(ds, split.validation) if split.validation else None
        learn = select_stations(ds, ids)
        _, train, validation = training_windows(
            learn, held, prepare, names, target, length=length, mode=model.window_mode
        )
        if not len(train):
            raise SmgeoError(
                f"learning curve: {len(ids)} training station(s) have no row to train on; use larger fractions"
            )
        steps = train.preparation["steps"]
        model.fit(train, validation=validation)
        scores = {}
        for part, stations in (("train", learn), ("test", test)):
            observed, predicted, windows = predict_stations(model, repeat_steps(stations, steps))
            scores[part] = observed, predicted, windows.stations_at(windows.targets[0])
        rmse = {p: float(np.sqrt(np.mean((e.astype("float64") - o) ** 2))) for p, (o, e, _) in scores.items()}
        low, high = score_intervals(*scores["test"], clusters, seed=seed)["rmse"]
        rows.append(
            {
                "fraction": float(fraction),
                "stations": len(ids),
                "rows": train.count,
                "train_rmse": rmse["train"],
                "rmse": rmse["test"],
                "low": low,
                "high": high,
                "n": int(scores["test"][0].size),
            }
        )
        if progress:
            progress(done + 1, len(fractions))
    return pd.DataFrame(rows).set_index("fraction")
