"""Uncertainty of estimates: intervals learned at held-out stations, and the area of applicability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.bounds import Bound, check_arguments, check_number, checked
from smgeo.catalog import FEATURES
from smgeo.cube.schema import select_stations, text_of
from smgeo.errors import SmgeoError
from smgeo.evaluation.held_out import (
    OF_THE_MODEL,
    HeldOut,
    estimate_part,
    features_at,
    last_days,
    observed_of,
    predict_intervals,
    predict_spread,
    preparation_of,
    units_of_rows,
    units_of_stations,
    windows_of_part,
)
from smgeo.evaluation.importance import Part, permutation_importance
from smgeo.models.applicability import MOST_ROWS, Applicability
from smgeo.models.calibration import Calibration
from smgeo.models.protocol import Model
from smgeo.prepare import Split, Windows
from smgeo.prepare.places import buffer_of, coordinates_of, near_stations, places_as_json

# Training rows that new places are compared with. More rows add little and are slower to search.
REFERENCE_ROWS = 20_000


class AreaScores(TypedDict):
    """Errors inside and outside the area of applicability, see `score_applicability`; None without a row."""

    rows: int
    share_inside: float | None
    rmse_inside: float | None
    rmse_outside: float | None
    rmse_expected: float | None
    index_median: float | None


@checked
def calibrate(
    model: Model, ds: xr.Dataset, split: Split, part: Part = "validation", *, nearest: int | None = None
) -> Calibration:
    """Learn prediction intervals from a model's errors at stations that it was not trained on, and store them in the model.

    The method is split-conformal with places (or groups of stations) as groups, see `smgeo.models.calibration.Calibration`. A 90 %
    interval contains at least nine of ten observations, counted over many new places drawn as the calibration places were, and over many
    such calibrations: one place may have far less, and one calibration some points less. There is no guarantee for places that differ from
    them, such as those of a network that training did not see. Stations that were put into training for their extreme values are missing
    among them. If a model stopped early on the same stations, or its parameters were chosen there, its errors there are too small.

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
    nearest : int, optional
        Take the width at a row from so many groups of stations, those that are nearest to it in feature space (features are weighted as in
        the model's area of applicability, if it is known by now). Widths then follow how the error varies with the features; but there is
        no guarantee for them, and few groups allow low levels only: 9 for 90 %.

    Returns
    -------
    Calibration
        Widths of the intervals.

    Raises
    ------
    SmgeoError
        If the model was trained on one of the stations or fitted on bare arrays, or fewer than two stations have values.
    """
    held = estimate_part(model, ds, split, part)
    return _calibrate_on(model, held, ds, split, part, nearest)


def cross_calibrate(
    model: Model, held: HeldOut, ds: xr.Dataset, split: Split, *, nearest: int | None = None
) -> Calibration:
    """Learn prediction intervals from errors at all training stations, each estimated by a model that did not see its place.

    Errors of the folds' models at training stations, and those of `model` at the validation stations, give the widths around the estimates
    of `model` (the jackknife with folds in place of single rows, of which Barber et al. 2021, Ann. Stat. 49, 486-507, tell what can be
    promised: no more than that errors of the fold's models are like those of `model`, which is trained on more stations and errs slightly
    less). So nine times as many places as in `calibrate` tell how wide an interval has to be.

    Parameters
    ----------
    model : fitted model
        It gets the attribute `calibration_`, which `save` writes.
    held : HeldOut
        From `estimate_held_out` with this model and split; without its validation stations (`held.of_folds()`) if parameters were chosen there.
    ds : xarray.Dataset
        Station cube.
    split : Split
        Split of the stations.
    nearest : int, optional
        As for `calibrate`.

    Returns
    -------
    Calibration
        Widths of the intervals.

    Raises
    ------
    SmgeoError
        If fewer than two groups have values, or the estimates are of other stations or another kind of model.
    """
    by_the_model = bool((held.fold == OF_THE_MODEL).any())
    return _calibrate_on(model, held, ds, split, "train+validation" if by_the_model else "train", nearest)


def _calibrate_on(
    model: Model, held: HeldOut, ds: xr.Dataset, split: Split, part: str, nearest: int | None
) -> Calibration:
    """Learn the intervals of a model, which from now on knows the stations it estimated: scores at them are none at unseen places."""
    target = preparation_of(model)["target"]
    _check_held(model, held, split, part)
    x = weights = None
    if nearest is not None:
        check_arguments("intervals", nearest=nearest)
        parts = [windows_of_part(model, ds, split, p, trained=True) for p in part.split("+")]
        x, known = features_at(held, parts, ds)
        held = held.select(known)
        weights = None if model.applicability_ is None else model.applicability_.weights
    low, high = FEATURES[target].valid_range if target in FEATURES else (-np.inf, np.inf)
    calibration = Calibration.learn(
        held.observed,
        held.predicted,
        held.group,
        held.spread,
        part=part,
        limits=(float(low), float(high)),
        folds=int(held.fold.max(initial=OF_THE_MODEL)) + 1,
        nearest=nearest,
        x=x,
        weights=weights,
    )
    known = np.unique(held.station[held.fold == OF_THE_MODEL].astype(str)).tolist()
    about = model.training_
    about["validation_stations"] = sorted({*about.get("validation_stations", []), *known})
    places = [*about.get("validation_places", []), *places_as_json(coordinates_of(select_stations(ds, known)))]
    about["validation_places"] = sorted(map(list, {tuple(p) for p in places}))
    model.calibration_, model.digest_ = calibration, None
    return calibration


@checked
def interval_coverage(
    model: Model, ds: xr.Dataset, split: Split, part: Part = "test", level: float = 0.9
) -> pd.DataFrame:
    """Measure how often the intervals of a calibrated model contain the observations at stations not used in training or calibration.

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
    windows = windows_of_part(model, ds, split, part)
    _, lower, upper = predict_intervals(model, windows, level)
    observed = observed_of(model, windows)
    station = np.asarray(windows.stations_at(windows.targets[0]), dtype=str)
    covered = (observed >= lower) & (observed <= upper)
    table = pd.DataFrame(
        {"station": station, "covered": covered, "width": upper - lower, "group": units_of_rows(ds, windows)}
    )
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
    held: HeldOut | None = None,
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
    held : HeldOut, optional
        Estimates from `estimate_held_out`, from whose errors the error at a dissimilarity is learned; by default errors of the model at the
        validation stations.

    Returns
    -------
    Applicability
        Reference rows, threshold, and, if there are held-out stations, expected errors.

    Raises
    ------
    SmgeoError
        If `importance` names an unknown feature or lacks one, or there are fewer than two training stations.
    """
    check_arguments("area of applicability", folds=folds, seed=seed)
    check_number("area of applicability", "rows", rows, Bound(1, MOST_ROWS))
    features = preparation_of(model)["features"]
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
    windows = windows_of_part(model, ds, split, "train", trained=True)
    x, station = last_days(windows), windows.targets[0]
    chosen = _choose_rows(station, rows, seed)
    unit = units_of_rows(ds, windows)
    ids = np.unique(unit)
    fold_of = np.random.default_rng([seed, 1]).permutation(len(ids)) % min(folds, len(ids))
    area = Applicability.learn(
        x[chosen],
        fold_of[np.searchsorted(ids, unit[chosen])],
        features,
        np.nan_to_num(np.array([weights[f] for f in features], dtype="float64")),
        group=unit[chosen],
        compared=_outside_buffer(ds, windows, fold_of[np.searchsorted(ids, unit)], chosen),
        rows=len(x),
        stations=len(np.unique(station)),
    )
    # A model that was trained on the validation stations has no errors there to learn from.
    unseen = split.validation and not {*model.training_["stations"]} & {*map(str, split.validation)}
    if held is None and unseen:
        held = estimate_part(model, ds, split, "validation")
    if held is not None and held.station.size:
        _check_held(model, held, split, "train+validation")
        parts = [windows, *([windows_of_part(model, ds, split, "validation")] if unseen else [])]
        at, known = features_at(held, parts, ds)
        group = units_of_stations(ds, held.station[known])
        trained = [units_of_stations(ds, ids) for ids in held.trained]
        area = area.learn_errors(at, held.errors[known], group, held.fold[known], trained)
    model.applicability_, model.digest_ = area, None
    return area


def _outside_buffer(
    ds: xr.Dataset, windows: Windows, fold: np.ndarray, chosen: np.ndarray
) -> dict[int, np.ndarray] | None:
    """Return for each fold which of the chosen rows its rows are compared with: none within the buffer of the cube's groups."""
    km = buffer_of(ds)
    if not km:
        return None
    ids = text_of(ds["station"]).tolist()
    position = {station: i for i, station in enumerate(ids)}
    at = np.array([position[str(s)] for s in windows.stations_at(windows.targets[0][chosen])])
    degrees, of_fold, out = coordinates_of(ds), fold[chosen], {}
    for f in np.unique(of_fold):
        held = np.isin(np.arange(len(ids)), at[of_fold == f])
        out[int(f)] = (of_fold != f) & ~near_stations(degrees, held, km)[at]
    return out


def _check_held(model: Model, held: HeldOut, split: Split, part: str) -> None:
    """Refuse estimates of other stations than a part has, or of another kind of model."""
    known = {str(s) for name in part.split("+") for s in getattr(split, name)}
    if other := sorted({*held.station.astype(str)} - known):
        raise SmgeoError(
            f"held-out estimates: {len(other)} of their stations are not in the {part} part ({', '.join(other[:3])}); make them with this split"
        )
    if (held.spread is not None) != bool(getattr(model, "has_spread", False)):
        raise SmgeoError("held-out estimates: they are those of another kind of model; make them with this one")


def score_applicability(model: Model, ds: xr.Dataset, split: Split, part: Part = "test") -> AreaScores:
    """Compute the errors of a model inside and outside its area of applicability, at stations that it was not trained on.

    Returns
    -------
    dict
        `rows`, `share_inside`, `rmse_inside`, `rmse_outside` (target's unit), `rmse_expected` (that the area expects inside it, from other
        stations), and `index_median`, the median dissimilarity index. None where there is no row, or nothing was learned.
    """
    area = model.applicability_
    if area is None:
        raise SmgeoError("the model has no area of applicability; run smgeo.find_applicability on it first")
    windows = windows_of_part(model, ds, split, part)
    errors = (predict_spread(model, windows)[0] - observed_of(model, windows)).astype("float64")
    index = area.index(last_days(windows))
    inside = area.contains(index)

    def rmse(rows: np.ndarray, values: np.ndarray = errors) -> float | None:
        return float(np.sqrt(np.mean(values[rows] ** 2))) if rows.any() else None

    return {
        "rows": len(errors),
        "share_inside": float(inside.mean()) if len(errors) else None,
        "rmse_inside": rmse(inside),
        "rmse_outside": rmse(~inside),
        "rmse_expected": rmse(inside, area.expected_error(index).astype("float64")) if area.error.size else None,
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
