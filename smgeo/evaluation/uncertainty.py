"""How sure estimates are: intervals learned on held-out stations, and where a model is applicable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError
from smgeo.evaluation.importance import permutation_importance
from smgeo.models.applicability import Applicability
from smgeo.models.calibration import Calibration
from smgeo.prepare import Split, Windows, part_rows, repeat_steps, windows_like
from smgeo.prepare.target import check_target_is_observed, target_scale, target_scaler

# Training rows that new places are compared with; more say little more, and are slower to search.
REFERENCE_ROWS = 20_000
Part = Literal["train", "validation", "test"]


def predict_spread(model: Any, windows: Windows) -> tuple[np.ndarray, np.ndarray | None]:
    """Estimates of the values that `windows.pick` gives, and the model's own spread where it has one, in the target's unit."""
    back = target_scaler(model.preparation_)
    if not getattr(model, "has_spread", False):
        return back(windows.pick(model.predict(windows))), None
    predicted, spread = model.predict_spread(windows)
    found = target_scale(model.preparation_)
    scale = np.float32(1 if found is None else found[1])
    return back(windows.pick(predicted)), windows.pick(spread) * scale


def last_days(windows: Windows) -> np.ndarray:
    """Features of the day of each value that `windows.pick` gives, (n, features) float32: what is missing has the windows' fill."""
    base, _ = windows.flat_index()
    station, day = windows.targets
    rows = base[station.astype(np.int64) * windows.days + day]
    if windows.fill is None:
        return rows
    return np.where(np.isnan(rows), np.array(windows.fill, dtype="float32"), rows)


def calibrate(model: Any, ds: xr.Dataset, split: Split, part: Part = "validation") -> Calibration:
    """Learn prediction intervals from a model's errors at stations that it was not trained on; the model then keeps them.

    Split-conformal with stations as groups (see `smgeo.models.calibration.Calibration`): an interval of 90 % holds the truth
    at nine of ten rows of a place that is to the calibration stations as they are to each other. It says nothing where places
    differ from them, and stations that were put into training for their extremes are missing among them. Where a model
    stopped early on the same stations, its errors there are a little too small.

    Parameters
    ----------
    model : fitted model
        From `make_model(...).fit(windows)` or `load_model`; it gets the attribute `calibration_`, which `save` keeps.
    ds : xarray.Dataset
        Station cube, as opened.
    split : Split
    part : {"validation", "test", "train"}
        Stations to learn from; those of the test part can no longer test the intervals.

    Returns
    -------
    Calibration

    Raises
    ------
    SmgeoError
        If the model was trained on one of the stations or fitted on bare arrays, or fewer than two stations have values.
    """
    windows = _windows_of(model, ds, split, part)
    predicted, spread = predict_spread(model, windows)
    target = model.preparation_["target"]
    limits = FEATURES[target].valid_range if target in FEATURES else (-np.inf, np.inf)
    model.calibration_ = Calibration.learn(
        _observed(model, windows),
        predicted,
        windows.targets[0],
        spread,
        part=part,
        limits=(float(limits[0]), float(limits[1])),
    )
    # Scores at these stations are no longer those of places that the model never saw.
    known = model.training_.get("validation_stations", [])
    model.training_["validation_stations"] = sorted({*known, *map(str, windows.stations)})
    model.digest_ = None
    return model.calibration_


def interval_coverage(
    model: Any, ds: xr.Dataset, split: Split, part: Part = "test", level: float = 0.9
) -> pd.DataFrame:
    """How often a calibrated model's intervals hold the truth at stations that were neither trained nor calibrated on.

    Parameters
    ----------
    model : fitted model
        Calibrated.
    ds, split, part
        As for `calibrate`.
    level : float
        Coverage that the intervals are made for.

    Returns
    -------
    pandas.DataFrame
        One row a station: `rows`, `covered` (share of rows), `width` (mean, target's unit).

    Raises
    ------
    SmgeoError
        If the model is not calibrated, was calibrated on this part, or was trained on one of the stations.
    """
    calibration = model.calibration_
    if calibration is None:
        raise SmgeoError("the model has no intervals whose coverage could be told; calibrate it first")
    if calibration.part == part:
        raise SmgeoError(f"the model was calibrated on the {part} part, which can't say how well its intervals hold")
    windows = _windows_of(model, ds, split, part)
    predicted, spread = predict_spread(model, windows)
    lower, upper = calibration.bounds(predicted, spread, level)
    observed, station = _observed(model, windows), np.asarray(windows.stations_at(windows.targets[0]), dtype=str)
    table = pd.DataFrame(
        {"station": station, "covered": (observed >= lower) & (observed <= upper), "width": upper - lower}
    )
    by = table.groupby("station", sort=False)
    return pd.DataFrame({"rows": by.size(), "covered": by["covered"].mean(), "width": by["width"].mean()})


def find_applicability(
    model: Any,
    ds: xr.Dataset,
    split: Split,
    importance: Mapping[str, float] | None = None,
    *,
    folds: int = 10,
    rows: int = REFERENCE_ROWS,
    seed: int = 0,
) -> Applicability:
    """Learn where a model is asked for what its training data were like; the model then keeps it.

    See `smgeo.models.applicability.Applicability`. A row is the features of the target's day, prepared as the model sees them: of
    a recurrent model the days before it do not count.

    Parameters
    ----------
    model : fitted model
        From `make_model(...).fit(windows)` or `load_model`; it gets the attribute `applicability_`, which `save` keeps.
    ds : xarray.Dataset
        Station cube, as opened.
    split : Split
        Its training stations are the reference.
    importance : mapping, optional
        Weight of each feature; by default what `permutation_importance` finds at the validation stations, else at the training stations.
    folds : int
        Groups of training stations; a row's distance for the threshold is to the other groups.
    rows : int
        Training rows at most, as many of each station, chosen at random.
    seed : int
        Of the choice of rows, of the folds, and of the importance.

    Returns
    -------
    Applicability

    Raises
    ------
    SmgeoError
        If `importance` names an unknown feature, or lacks one; or there are fewer than two training stations.
    """
    features = model.preparation_["features"]
    weights = {} if importance is None else dict(importance)
    if importance is None:
        part: Part = "validation" if len(split.validation) > 1 and not split.periods else "train"
        found = permutation_importance(model, ds, split, part, repeats=1, seed=seed)["increase"]
        weights = {str(name): float(value) for name, value in found.items()}
    if wrong := sorted(set(features) ^ set(weights)):
        raise SmgeoError(
            f"importance must have a number for each feature of the model, and no other; differing: {', '.join(wrong)}"
        )
    windows = _windows_of(model, ds, split, "train", trained=True)
    x, station = last_days(windows), windows.targets[0]
    chosen = _choose_rows(station, rows, seed)
    ids = np.unique(station)
    fold_of = np.random.default_rng([seed, 1]).permutation(len(ids)) % min(folds, len(ids))
    model.applicability_ = Applicability.learn(
        x[chosen],
        fold_of[np.searchsorted(ids, station[chosen])],
        features,
        np.nan_to_num(np.array([weights[f] for f in features], dtype="float64")),
        rows=len(x),
        stations=len(ids),
    )
    model.digest_ = None
    return model.applicability_


def score_applicability(model: Any, ds: xr.Dataset, split: Split, part: Part = "test") -> dict[str, Any]:
    """Errors of a model inside and outside its area of applicability, at stations that it was not trained on.

    Returns
    -------
    dict
        `rows`, `share_inside`, `rmse_inside`, `rmse_outside` (target's unit; None where there is no row), and `index_median`, of the
        dissimilarity index.
    """
    area = model.applicability_
    if area is None:
        raise SmgeoError("the model does not know its area of applicability; find_applicability finds it")
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
    """Positions of at most `most` rows: as many of each station, as far as it has them."""
    random = np.random.default_rng([seed, 0])
    order = random.permutation(len(station))
    # The how-manieth row of its station each is, in this order.
    by_station = order[np.argsort(station[order], kind="stable")]
    _, first, counts = np.unique(station[by_station], return_index=True, return_counts=True)
    rank = np.arange(len(station)) - np.repeat(first, counts)
    return np.sort(by_station[np.argsort(rank, kind="stable")[:most]])


def _observed(model: Any, windows: Windows) -> np.ndarray:
    assert windows.y is not None
    return target_scaler(model.preparation_)(windows.pick(windows.y))


def _windows_of(model: Any, ds: xr.Dataset, split: Split, part: str, *, trained: bool = False) -> Windows:
    """Windows with a target at the stations of a part, which the model must not have been trained on."""
    preparation = getattr(model, "preparation_", None)
    if not preparation:
        raise SmgeoError("intervals and areas need a model fitted on Windows; this one was fitted on bare arrays")
    if split.periods:
        raise SmgeoError(
            "intervals and the area of applicability are for new places, and this split holds the same stations at other times; split by station"
        )
    seen = set((model.training_ or {}).get("stations", ())) & set(getattr(split, part))
    if seen and not trained:
        raise SmgeoError(
            f"the model was trained on {len(seen)} of the {part} stations ({', '.join(sorted(seen)[:3])}): intervals must come from others"
        )
    prepared = repeat_steps(ds, preparation["steps"])
    check_target_is_observed(prepared, preparation["target"])
    return windows_like(preparation, part_rows(prepared, split, part, preparation["target"]))
