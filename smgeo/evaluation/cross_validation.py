"""Cross-validation: everything that is learned is learned again in each fold."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.catalog import FEATURES
from smgeo.cube.schema import select_stations, text_of
from smgeo.errors import SmgeoError
from smgeo.evaluation.clusters import clusters_of
from smgeo.evaluation.intervals import Interval
from smgeo.evaluation.parts import predict_stations
from smgeo.evaluation.scores import (
    Scores,
    StationScores,
    compute_scores,
    finite_or_none,
    score_intervals,
    score_stations,
)
from smgeo.models.protocol import Model
from smgeo.prepare import Folds, cv_folds, hide_days, repeat_steps, select_features, training_windows
from smgeo.prepare.folds import GAP_DAYS, OF_STATIONS
from smgeo.prepare.knndm import UNITS, Match
from smgeo.prepare.places import grouped
from smgeo.prepare.target import check_target_is_observed
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.validation import CrossValidationSpec, FoldOptions


@dataclass(frozen=True)
class Learner:
    """A model that is trained several times, and the data that it is trained on.

    Attributes
    ----------
    make : callable
        Returns an unfitted model.
    length : int
        Days in a window; 1 for models on rows.
    mode : {"window", "sequence"}
        Train on windows or on whole series.
    needs_validation : bool
        The model stops early on validation data.
    """

    make: Callable[[], Model]
    length: int = 1
    mode: Literal["window", "sequence"] = "window"
    needs_validation: bool = False

    @classmethod
    def of(cls, make: Callable[[], Model], length: int) -> Learner:
        """Describe the models that `make` returns; `length` is their window in days, or 1."""
        model = make()
        return cls(make, length, model.window_mode, model.uses_validation)


class FoldScores(TypedDict):
    """Scores of cross-validation over the held-out rows of all folds; None where a score is not defined."""

    r2_mean_of_folds: float | None
    r2_pooled: float | None
    r2_station_means: float | None
    rmse_pooled: float | None
    n: int
    stations: int
    r2_of_folds: list[float | None]


class Distances(TypedDict):
    """How well folds of `knndm` match the map's pixels, as in `results.json`, see `smgeo.prepare.knndm.Match`.

    Distances are in `unit`. `median_predicted` is from pixels to the nearest training place, `median_left_out` from places to each other,
    `median_held_out` from held-out places to those of other folds.
    """

    w: float
    space: str
    unit: str
    clusters: int | None
    features: list[str] | None
    median_predicted: float
    median_left_out: float
    median_held_out: float


class _Choices(TypedDict, total=False):
    gap_days: int
    knndm: Distances
    selected: list[list[str]]


class CrossValidation(FoldScores, _Choices):
    """Result of `cross_validate`, as in `results.json`: the scores of folds, and the scores that a part of a split has."""

    method: str
    folds: int
    scores: Scores
    intervals: dict[str, Interval]
    over_stations: StationScores


def score_folds(
    observed: Sequence[np.ndarray], predicted: Sequence[np.ndarray], station: Sequence[np.ndarray]
) -> FoldScores:
    """Compute the scores of cross-validation from the held-out rows of each fold.

    Parameters
    ----------
    observed, predicted : sequence of numpy.ndarray
        One array per fold, (rows,), same unit, no missing values.
    station : sequence of numpy.ndarray
        Station of each row.

    Returns
    -------
    dict
        `r2_mean_of_folds` is the squared correlation in each fold, averaged. `r2_pooled` is 1 - SSE/SST over all rows.
        `r2_station_means` is the same over the means of the stations: the share of the pattern in space that is explained.
        `rmse_pooled` is in the target's unit. Also `n`, `stations`, `r2_of_folds`. A score that is not defined is None.
    """
    fold_r = [
        compute_scores(o, p, np.zeros(o.size, dtype="int8"))["r"] for o, p in zip(observed, predicted, strict=True)
    ]
    of_folds = [float("nan") if r is None else r**2 for r in fold_r]
    o, p = (np.concatenate(parts).astype("float64") for parts in (observed, predicted))
    means = pd.DataFrame({"s": np.concatenate(station), "o": o, "p": p}).groupby("s").mean()
    known = [v for v in of_folds if np.isfinite(v)]
    return {
        "r2_mean_of_folds": float(np.mean(known)) if known else None,
        "r2_pooled": finite_or_none(explained(o, p)),
        "r2_station_means": finite_or_none(explained(means["o"].to_numpy(), means["p"].to_numpy())),
        "rmse_pooled": finite_or_none(float(np.sqrt(np.mean((p - o) ** 2)))),
        "n": int(o.size),
        "stations": int(means.shape[0]),
        "r2_of_folds": [finite_or_none(v) for v in of_folds],
    }


def explained(observed: np.ndarray, predicted: np.ndarray) -> float:
    """Return 1 - SSE/SST: below 0 if the mean of the observations is a better estimate, NaN if they are constant.

    >>> explained(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    0.5
    """
    total = float(np.sum((observed - observed.mean()) ** 2))
    return 1 - float(np.sum((predicted - observed) ** 2)) / total if total > 0 else float("nan")


def cross_validate(
    learner: Learner,
    ds: xr.Dataset,
    spec: CrossValidationSpec,
    prepare: PrepareSpec,
    features: Iterable[str],
    target: str,
    *,
    selected: Sequence[Sequence[str]] | None = None,
    cluster: str | None = None,
    prediction: np.ndarray | xr.Dataset | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CrossValidation:
    """Cross-validate one model. Everything that is learned is learned again in each fold.

    Parameters
    ----------
    learner : Learner
        Model, and its window.
    ds : xarray.Dataset
        Station cube, not prepared.
    spec : CrossValidationSpec
        Method and folds, see `smgeo.cv_folds`. `gap_days`, where periods are held out, defaults to the days that a window of
        `prepare.window.length` days of these features looks back (sums over days included), whatever the model sees, and to
        at least 30 days; 58 for 30-day windows of `precipitation_30d`.
    prepare : PrepareSpec
        Preparation of each fold, with statistics of its training stations and days. Where periods are held out, nothing that is learned
        and no training or validation window uses a value of the held-out period (or, with `forward_only`, of later days).
        These values are hidden before gaps are filled. The catalogue's sums over days are hidden for as many days after the
        period as they look back; a user's own variable that is such a sum is not recognised. A revisit given per station is
        measured again on the remaining days. Held-out rows keep their own past, which may include training days. In
        `random`, every station and day is a training one, so the statistics include features of held-out rows, but not
        their target.
    features, target : iterable of str, str
        Variables used.
    selected : sequence of sequences of str, optional
        Features of each fold, from `select_in_folds` for these folds. By default they are selected here if `spec` asks for
        it.
    cluster : str, optional
        What intervals take for independent, see `smgeo.evaluation.clusters.clusters_of`.
    prediction : numpy.ndarray or xarray.Dataset, optional
        Prediction points of `knndm`, see `smgeo.cv_folds`. In `feature` space distances are between the features used.
    seed : int
        Seed of the folds, unless `spec` has one.
    progress : callable, optional
        Called with (folds done, total folds).

    Returns
    -------
    dict
        `method`, `folds`, the scores of `score_folds`, and over the held-out rows of all folds `scores`, `intervals` and `over_stations`, as
        of a part of a split. Where periods are held out also `gap_days`; in `knndm` also `knndm`, see `Distances`; with `select_features`
        also `selected`, the features of each fold.

    Raises
    ------
    SmgeoError
        If the target's gaps were filled, `selected` does not match the folds, or a fold has no row to train on.
    """
    features = list(features)
    check_target_is_observed(ds, target)
    ds = grouped(ds)
    clusters_of(ds, cluster)  # says what is wrong with it before any work
    seed = spec.seed if spec.seed is not None else seed
    folds = _folds_of(ds, spec, features, target, seed, prediction, _default_gap(features, prepare.window.length))
    if selected is None and spec.select_features:
        selected = select_in_folds(ds, spec, features, target, prediction=prediction, seed=seed)
    if selected is not None and len(selected) != len(folds):
        raise SmgeoError(
            f"cross-validation: `selected` has features for {len(selected)} folds, but there are {len(folds)} folds"
        )
    estimates = []
    for k in range(len(folds)):
        names = selected[k] if selected else features
        estimates.append(_estimate_fold(learner, ds, folds, k, prepare, names, target))
        if progress:
            progress(k + 1, len(folds))
    observed, predicted, station = zip(*estimates, strict=True)
    more: _Choices = {"gap_days": folds.gap_days} if folds.held_out_days(0) else {}
    if folds.match is not None:
        more["knndm"] = _describe_match(folds.match)
    if selected:
        more["selected"] = [list(names) for names in selected]
    o, p, ids = (np.concatenate(parts) for parts in (observed, predicted, station))
    clusters = clusters_of(select_stations(ds, dict.fromkeys(ids.tolist())), cluster)
    return {
        "method": spec.method,
        "folds": len(folds),
        **more,
        **score_folds(observed, predicted, station),
        "scores": compute_scores(o, p, ids),
        "intervals": score_intervals(o, p, ids, clusters),
        "over_stations": score_stations(o, p, ids, clusters),
    }


def fit_fold(
    learner: Learner,
    ds: xr.Dataset,
    folds: Folds,
    k: int,
    prepare: PrepareSpec,
    features: Sequence[str],
    target: str,
) -> tuple[Model, xr.Dataset]:
    """Train on fold `k`; return the model and its held-out rows, prepared as its training data were."""
    train, held = folds[k]
    apart, stops = folds.set_apart(k), learner.needs_validation
    if stops and not (train & ~apart).any():
        raise SmgeoError(
            f"cross-validation ({folds.method}): fold {k + 1} of {len(folds)} has no row left to train on after rows were set "
            "apart for early stopping; use more folds"
        )
    seen = _hide_held_out_days(ds, folds, k)
    # Rows set apart come last, also if they are trained on: a forest draws rows by position.
    train_ds = _rows_of(seen, target, folds, train & ~apart, *(() if stops else (apart,)))
    held_ds = _rows_of(seen, target, folds, apart) if stops else None
    _, windows, validation = training_windows(
        train_ds, held_ds, prepare, features, target, length=learner.length, mode=learner.mode
    )
    model = learner.make().fit(windows, validation=validation)
    return model, repeat_steps(_rows_of(ds, target, folds, held), windows.preparation["steps"])


def _estimate_fold(
    learner: Learner,
    ds: xr.Dataset,
    folds: Folds,
    k: int,
    prepare: PrepareSpec,
    features: Sequence[str],
    target: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train on fold `k`; return observations, estimates and stations of its held-out rows."""
    model, held = fit_fold(learner, ds, folds, k, prepare, features, target)
    observed, predicted, made = predict_stations(model, held)
    return observed, predicted, text_of(held["station"])[made.targets[0]]


def select_in_folds(
    ds: xr.Dataset,
    spec: CrossValidationSpec,
    features: Iterable[str],
    target: str,
    *,
    prediction: np.ndarray | xr.Dataset | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[str]]:
    """Select features on the training stations of each fold, see `smgeo.select_features`. Held-out stations and days are not used.

    Parameters
    ----------
    ds, spec, features, target, prediction, seed
        As for `cross_validate`.
    progress : callable, optional
        Called with (folds done, total folds).

    Returns
    -------
    list of list of str
        Features of each fold, in the order of `features`.
    """
    names = list(features)
    seed = spec.seed if spec.seed is not None else seed
    folds = _folds_of(ds, spec, names, target, seed, prediction, _default_gap(names, 1))
    out = []
    for k, (train, _) in enumerate(folds):
        seen = _hide_held_out_days(ds, folds, k)
        found = select_features(_rows_of(seen, target, folds, train), names, target, seed=seed).features
        out.append([f for f in names if f in found])
        if progress:
            progress(k + 1, len(folds))
    return out


def _folds_of(
    ds: xr.Dataset,
    spec: CrossValidationSpec,
    features: Sequence[str],
    target: str,
    seed: int,
    prediction: np.ndarray | xr.Dataset | None,
    gap_days: int,
) -> Folds:
    options: FoldOptions = {"gap_days": gap_days, **spec.options}
    if spec.space == "feature" and isinstance(prediction, xr.Dataset):
        prediction = prediction.drop_vars([n for n in prediction.data_vars if n not in features])
    return cv_folds(ds, spec.method, spec.folds, target=target, seed=seed, prediction=prediction, **options)


def _describe_match(match: Match) -> Distances:
    summaries = match.summaries()
    return {
        "w": match.w,
        "space": match.space,
        "unit": UNITS[match.space],
        "clusters": match.clusters,
        "features": list(match.features) or None,
        "median_predicted": summaries["predicted"]["q50"],
        "median_left_out": summaries["left_out"]["q50"],
        "median_held_out": summaries["held_out"]["q50"],
    }


def _looks_back(name: Hashable) -> int:
    """Return the number of earlier days that a value of the variable is computed from, as far as the catalogue knows."""
    return FEATURES[str(name)].looks_back_days if name in FEATURES else 0


def _default_gap(features: Sequence[str], window_days: int) -> int:
    """Return the days that the first day of a window, and the sums on it, look back; at least `GAP_DAYS`.

    >>> _default_gap(["s1_vv", "precipitation_30d"], 30), _default_gap(["s1_vv"], 1)
    (58, 30)
    """
    return max(GAP_DAYS, window_days - 1 + max(map(_looks_back, features)))


def _rows_of(ds: xr.Dataset, target: str, folds: Folds, *rows: np.ndarray) -> xr.Dataset:
    """Return the cube with the target only on `rows`; if folds hold out whole stations, only their stations, part by part."""
    some = xr.DataArray(np.logical_or.reduce(rows), dims=("station", "time"))
    kept = ds[target].transpose("station", "time").where(some)
    ds = ds.assign({target: kept.assign_attrs(ds[target].attrs)})
    if folds.method not in OF_STATIONS:
        return ds
    stations = np.concatenate([np.flatnonzero(part.any(axis=1)) for part in rows])
    return select_stations(ds, text_of(ds["station"])[stations])


def _hide_held_out_days(ds: xr.Dataset, folds: Folds, k: int) -> xr.Dataset:
    """Return the cube without values computed from days of the period that fold `k` holds out, or from any later day in forward folds."""
    days = folds.held_out_days(k)
    if days is None:
        return ds
    first, last = days
    day = xr.DataArray(np.arange(ds.sizes["time"]), dims="time")
    end = {n: day.size if folds.forward_only else last + _looks_back(n) for n in ds.data_vars}
    return ds.assign(hide_days(ds, {n: (day >= first) & (day <= end[n]) for n in ds.data_vars}))
