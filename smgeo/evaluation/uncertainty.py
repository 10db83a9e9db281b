"""Uncertainty of estimates: intervals learned at held-out stations, and the area of applicability."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypedDict

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.bounds import Bound, check_arguments, check_number, checked
from smgeo.catalog import FEATURES
from smgeo.cube.schema import select_stations, text_of
from smgeo.errors import SmgeoError
from smgeo.evaluation.cross_validation import Learner, fit_fold
from smgeo.evaluation.importance import Part, permutation_importance
from smgeo.models.applicability import MOST_ROWS, Applicability
from smgeo.models.calibration import Calibration
from smgeo.models.protocol import Model
from smgeo.prepare import Split, Windows, cv_folds, part_rows, repeat_steps, windows_like
from smgeo.prepare.places import coordinates_of, group_numbers, grouped, places_as_json
from smgeo.prepare.steps import Preparation
from smgeo.prepare.target import check_target_is_observed, target_scale, target_scaler
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.validation import INTERVAL_FOLDS

# Training rows that new places are compared with. More rows add little and are slower to search.
REFERENCE_ROWS = 20_000


class AreaScores(TypedDict):
    """Errors inside and outside the area of applicability, see `score_applicability`; None without a row."""

    rows: int
    share_inside: float | None
    rmse_inside: float | None
    rmse_outside: float | None
    index_median: float | None


def predict_spread(model: Model, windows: Windows) -> tuple[np.ndarray, np.ndarray | None]:
    """Return estimates of the values that `windows.pick` selects, and the model's own spread if it has one, in the target's unit."""
    preparation = _preparation_of(model)
    back = target_scaler(preparation)
    if not getattr(model, "has_spread", False):
        return back(windows.pick(model.predict(windows))), None
    predicted, spread = model.predict_spread(windows)
    found = target_scale(preparation)
    scale = np.float32(1 if found is None else found[1])
    return back(windows.pick(predicted)), windows.pick(spread) * scale


def last_days(windows: Windows) -> np.ndarray:
    """Return the features of the day of each value that `windows.pick` selects, (n, features) float32, with gaps filled by the windows' fill."""
    base, _ = windows.flat_index()
    station, day = windows.targets
    rows: np.ndarray = base[station.astype(np.int64) * windows.days + day]
    if windows.fill is None:
        return rows
    return np.where(np.isnan(rows), np.array(windows.fill, dtype="float32"), rows)


@checked
def calibrate(model: Model, ds: xr.Dataset, split: Split, part: Part = "validation") -> Calibration:
    """Learn prediction intervals from a model's errors at stations that it was not trained on, and store them in the model.

    The method is split-conformal with places (or groups of stations) as groups, see `smgeo.models.calibration.Calibration`. A 90 %
    interval contains the truth at nine of ten rows of a place that is as similar to the calibration places as they are to each other.
    There is no guarantee for places that differ from them. Stations that were put into training for their extreme values are missing among
    them. If a model stopped early on the same stations, its errors there are slightly too small.

    Parameters
    ----------
    model : fitted model
        From `make_model(...).fit(windows)` or `load_model`. It gets the attribute `calibration_`, which `save` writes.
    ds : xarray.Dataset
        Station cube, as opened.
    split : Split
        Split of the stations.
    part : {"validation", "test", "train"}
        Stations to learn from. Test stations that are used here can no longer test the intervals.

    Returns
    -------
    Calibration
        Widths of the intervals.

    Raises
    ------
    SmgeoError
        If the model was trained on one of the stations or fitted on bare arrays, or fewer than two stations have values.
    """
    windows = _windows_of(model, ds, split, part)
    observed, predicted, spread, group = _rows_of(model, windows, ds)
    calibration = Calibration.learn(
        observed,
        predicted,
        group,
        spread,
        part=part,
        limits=_limits_of(windows.preparation["target"]),
    )
    _remember(model, calibration, windows.stations, windows.places)
    return calibration


def cross_calibrate(
    model: Model,
    learner: Learner,
    ds: xr.Dataset,
    split: Split,
    prepare: PrepareSpec,
    *,
    folds: int = INTERVAL_FOLDS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Learn prediction intervals from errors at all training stations, each estimated by a model that did not see its place.

    `folds` models are trained, each without the places (or groups of stations) of one fold, and everything that is learned is learned again
    for each. Their errors at these places, and those of `model` at the validation stations, give the widths around the estimates of `model`
    (the jackknife with folds in place of single rows, of which Barber et al. 2021, Ann. Stat. 49, 486-507, tell what can be promised: no
    more than that errors of the fold's models are like those of `model`, which is trained on more stations and errs slightly less). So
    nine times as many places as in `calibrate` tell how wide an interval has to be.

    Parameters
    ----------
    model : fitted model
        It gets the attribute `calibration_`, which `save` writes.
    learner : Learner
        How the model is made and trained, see `smgeo.evaluation.cross_validation.Learner`.
    ds : xarray.Dataset
        Station cube, not prepared.
    split : Split
        Split of the stations.
    prepare : PrepareSpec
        Preparation of each fold.
    folds : int
        Number of folds, and of trainings.
    seed : int
        Seed of the folds.
    progress : callable, optional
        Called with (models trained, total models).

    Returns
    -------
    Calibration
        Widths of the intervals.

    Raises
    ------
    SmgeoError
        If the split is in time, the model was fitted on bare arrays, or there are fewer groups than folds.
    """
    check_arguments("intervals", folds=folds, seed=seed)
    preparation = _preparation_of(model)
    features, target = list(preparation["features"]), preparation["target"]
    _check_places(split)
    if learner.make().has_spread != model.has_spread:
        raise SmgeoError("intervals: the learner makes another kind of model than the one that gets them")
    ds = grouped(ds)
    train, validation = (select_stations(ds, ids) for ids in (split.train, split.validation))
    made = cv_folds(train, "group-k-fold", folds, target=target, seed=seed)
    parts = []
    for k in range(len(made)):
        of_fold, held = fit_fold(learner, train, made, k, prepare, features, target)
        parts.append(_rows_of(of_fold, windows_like(_preparation_of(of_fold), held), train))
        if progress:
            progress(k + 1, len(made))
    if split.validation:
        observed, predicted, spread, unit = _rows_of(model, _windows_of(model, ds, split, "validation"), validation)
        # Groups of the validation stations follow those of the training stations.
        parts.append((observed, predicted, spread, unit + 1 + max(int(p[3].max(initial=-1)) for p in parts)))
    observed, predicted, unit = (np.concatenate([p[i] for p in parts]) for i in (0, 1, 3))
    spreads = [p[2] for p in parts if p[2] is not None]
    calibration = Calibration.learn(
        observed,
        predicted,
        unit,
        np.concatenate(spreads) if spreads else None,
        part="train+validation" if split.validation else "train",
        limits=_limits_of(target),
        folds=len(made),
    )
    _remember(model, calibration, split.validation, coordinates_of(validation))
    return calibration


def _rows_of(
    model: Model, windows: Windows, ds: xr.Dataset
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """Return observations, estimates, spread and group of stations (its number in `ds`) of each value, in the target's unit."""
    predicted, spread = predict_spread(model, windows)
    return _observed(model, windows), predicted, spread, _units_of_rows(ds, windows)


def _limits_of(target: str) -> tuple[float, float]:
    low, high = FEATURES[target].valid_range if target in FEATURES else (-np.inf, np.inf)
    return float(low), float(high)


def _remember(model: Model, calibration: Calibration, stations: Iterable[str], degrees: np.ndarray) -> None:
    """Store the calibration in the model, which from now on knows these stations: scores at them are none at unseen places."""
    known = model.training_.get("validation_stations", [])
    model.training_["validation_stations"] = sorted({*known, *map(str, stations)})
    places = [*model.training_.get("validation_places", []), *places_as_json(degrees)]
    model.training_["validation_places"] = sorted(map(list, {tuple(p) for p in places}))
    model.calibration_, model.digest_ = calibration, None


@checked
def interval_coverage(
    model: Model, ds: xr.Dataset, split: Split, part: Part = "test", level: float = 0.9
) -> pd.DataFrame:
    """Measure how often the intervals of a calibrated model contain the truth at stations not used in training or calibration.

    Parameters
    ----------
    model : fitted model
        Calibrated model.
    ds, split, part
        As for `calibrate`.
    level : float
        Nominal coverage of the intervals.

    Returns
    -------
    pandas.DataFrame
        One row per station: `rows`, `covered` (share of rows), `width` (mean, target's unit), `group` (number of its place or group, for
        whose mean the level is promised).

    Raises
    ------
    SmgeoError
        If the model is not calibrated, was calibrated on this part, or was trained on one of the stations.
    """
    check_arguments("intervals", level=level)
    calibration = model.calibration_
    if calibration is None:
        raise SmgeoError("the model has no prediction intervals; run smgeo.calibrate on it first")
    if part in calibration.part.split("+"):
        raise SmgeoError(
            f"the model was calibrated on the {part} part, so its intervals cannot be tested there; use another part"
        )
    windows = _windows_of(model, ds, split, part)
    observed, predicted, spread, group = _rows_of(model, windows, ds)
    lower, upper = calibration.bounds(predicted, spread, level)
    station = np.asarray(windows.stations_at(windows.targets[0]), dtype=str)
    covered = (observed >= lower) & (observed <= upper)
    table = pd.DataFrame({"station": station, "covered": covered, "width": upper - lower, "group": group})
    by = table.groupby("station", sort=False)
    means = {name: by[name].mean() for name in ("covered", "width")}
    return pd.DataFrame({"rows": by.size(), **means, "group": by["group"].first()})


@checked
def find_applicability(
    model: Model,
    ds: xr.Dataset,
    split: Split,
    importance: Mapping[str, float] | None = None,
    *,
    folds: int = 10,
    rows: int = REFERENCE_ROWS,
    seed: int = 0,
) -> Applicability:
    """Learn the area of applicability of a model from its training data, and store it in the model.

    See `smgeo.models.applicability.Applicability`. A row contains the features of the target's day, prepared as the model sees
    them. The earlier days of a recurrent model's window do not count.

    Parameters
    ----------
    model : fitted model
        From `make_model(...).fit(windows)` or `load_model`. It gets the attribute `applicability_`, which `save` writes.
    ds : xarray.Dataset
        Station cube, as opened.
    split : Split
        Its training stations are the reference.
    importance : mapping, optional
        Weight of each feature; by default from `permutation_importance` at the validation stations, or at the training
        stations if there are fewer than two validation stations.
    folds : int
        Folds of training places (or groups of stations). For the threshold, the distance of a row is measured to the other folds.
    rows : int
        Maximum number of training rows, drawn at random in equal numbers per station.
    seed : int
        Seed of the choice of rows, the folds and the importance.

    Returns
    -------
    Applicability
        Reference rows and threshold.

    Raises
    ------
    SmgeoError
        If `importance` names an unknown feature or lacks one, or there are fewer than two training stations.
    """
    check_arguments("area of applicability", folds=folds, seed=seed)
    check_number("area of applicability", "rows", rows, Bound(1, MOST_ROWS))
    features = _preparation_of(model)["features"]
    weights = {} if importance is None else dict(importance)
    for name, weight in weights.items():
        check_number("area of applicability", f"importance[{name!r}]", weight, Bound(-1e12, 1e12, whole=False))
    if importance is None:
        part: Part = "validation" if len(split.validation) > 1 and not split.periods else "train"
        found = permutation_importance(model, ds, split, part, repeats=1, seed=seed)["increase"]
        weights = {str(name): float(value) for name, value in found.items()}
    if wrong := sorted(set(features) ^ set(weights)):
        raise SmgeoError(
            f"importance must have exactly one number for each feature of the model; missing or unknown: {', '.join(wrong)}"
        )
    windows = _windows_of(model, ds, split, "train", trained=True)
    x, station = last_days(windows), windows.targets[0]
    chosen = _choose_rows(station, rows, seed)
    unit = _units_of_rows(ds, windows)
    ids = np.unique(unit)
    fold_of = np.random.default_rng([seed, 1]).permutation(len(ids)) % min(folds, len(ids))
    area = Applicability.learn(
        x[chosen],
        fold_of[np.searchsorted(ids, unit[chosen])],
        features,
        np.nan_to_num(np.array([weights[f] for f in features], dtype="float64")),
        rows=len(x),
        stations=len(np.unique(station)),
    )
    model.applicability_, model.digest_ = area, None
    return area


def score_applicability(model: Model, ds: xr.Dataset, split: Split, part: Part = "test") -> AreaScores:
    """Compute the errors of a model inside and outside its area of applicability, at stations that it was not trained on.

    Returns
    -------
    dict
        `rows`, `share_inside`, `rmse_inside`, `rmse_outside` (target's unit), and `index_median`, the median dissimilarity
        index. None where there is no row.
    """
    area = model.applicability_
    if area is None:
        raise SmgeoError("the model has no area of applicability; run smgeo.find_applicability on it first")
    windows = _windows_of(model, ds, split, part)
    errors = (predict_spread(model, windows)[0] - _observed(model, windows)).astype("float64")
    index = area.index(last_days(windows))
    inside = index <= np.float32(area.threshold)

    def rmse(rows: np.ndarray) -> float | None:
        return float(np.sqrt(np.mean(errors[rows] ** 2))) if rows.any() else None

    return {
        "rows": len(errors),
        "share_inside": float(inside.mean()) if len(errors) else None,
        "rmse_inside": rmse(inside),
        "rmse_outside": rmse(~inside),
        "index_median": float(np.median(index)) if len(errors) else None,
    }


def _choose_rows(station: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Return the positions of at most `most` rows, in equal numbers per station as far as a station has rows."""
    random = np.random.default_rng([seed, 0])
    order = random.permutation(len(station))
    # Rank of each row among those of its station, in this order.
    by_station = order[np.argsort(station[order], kind="stable")]
    _, first, counts = np.unique(station[by_station], return_index=True, return_counts=True)
    rank = np.arange(len(station)) - np.repeat(first, counts)
    return np.sort(by_station[np.argsort(rank, kind="stable")[:most]])


def _preparation_of(model: Model) -> Preparation:
    preparation = getattr(model, "preparation_", None)
    if not preparation:
        raise SmgeoError("intervals and areas: the model was fitted on bare arrays; fit it on Windows")
    known: Preparation = preparation
    return known


def _units_of_rows(ds: xr.Dataset, windows: Windows) -> np.ndarray:
    """Return the group of stations (its number in `ds`) of each value that `windows.pick` selects, int (n,)."""
    positions, at = np.unique(windows.targets[0], return_inverse=True)
    groups = dict(zip(text_of(ds["station"]).tolist(), group_numbers(ds).tolist(), strict=True))
    return np.array([groups[str(s)] for s in windows.stations_at(positions)], dtype=np.intp)[at]


def _observed(model: Model, windows: Windows) -> np.ndarray:
    assert windows.y is not None
    return target_scaler(_preparation_of(model))(windows.pick(windows.y))


def _check_places(split: Split) -> None:
    if split.periods:
        raise SmgeoError(
            "intervals and the area of applicability are for new places, but the parts of this split are periods of the same stations; "
            "split by station"
        )


def _windows_of(model: Model, ds: xr.Dataset, split: Split, part: str, *, trained: bool = False) -> Windows:
    """Return windows with a target at the stations of a part; refuse stations that the model was trained on."""
    preparation = _preparation_of(model)
    _check_places(split)
    seen = set((model.training_ or {}).get("stations", ())) & set(map(str, getattr(split, part)))
    if seen and not trained:
        raise SmgeoError(
            f"the model was trained on {len(seen)} of the {part} stations ({', '.join(sorted(seen)[:3])}): use stations that it was not "
            "trained on"
        )
    prepared = repeat_steps(ds, preparation["steps"])
    check_target_is_observed(prepared, preparation["target"])
    return windows_like(preparation, part_rows(prepared, split, part, preparation["target"]))
