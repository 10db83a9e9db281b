"""Estimates at stations that the model which makes them did not see: what intervals and expected errors are learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.bounds import check_arguments
from smgeo.cube.schema import select_stations, text_of
from smgeo.errors import SmgeoError
from smgeo.evaluation.cross_validation import Learner, fit_fold
from smgeo.models.protocol import Model
from smgeo.prepare import Split, Windows, cv_folds, part_rows, repeat_steps, windows_like
from smgeo.prepare.places import group_numbers, grouped
from smgeo.prepare.steps import Preparation
from smgeo.prepare.target import check_target_is_observed, target_scale, target_scaler
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.validation import INTERVAL_FOLDS

# The fold of rows that no fold's model estimated, but the model itself.
OF_THE_MODEL = -1
# Share of the held-out rows that a cube has, at least; folds can drop other outliers than the model.
_LEAST_FOUND = 0.5


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Rows with an observation and an estimate; each array is (rows,).

    Attributes
    ----------
    station : numpy.ndarray of str
    time : numpy.ndarray of datetime64
    observed, predicted : numpy.ndarray
        In the target's unit.
    spread : numpy.ndarray or None
        The model's own spread, in the target's unit, if it has one.
    group : numpy.ndarray of int
        Number of the group of stations (place).
    fold : numpy.ndarray of int
        The fold whose model made the estimate, without this group; `OF_THE_MODEL` if the model itself made it.
    trained : tuple of numpy.ndarray of str
        The stations that the model of each fold was trained on.
    """

    station: np.ndarray
    time: np.ndarray
    observed: np.ndarray
    predicted: np.ndarray
    spread: np.ndarray | None
    group: np.ndarray
    fold: np.ndarray
    trained: tuple[np.ndarray, ...] = ()

    def select(self, rows: np.ndarray) -> HeldOut:
        """Return some rows."""
        return replace(self, **{n: getattr(self, n)[rows] for n in _arrays_of(self)})

    def of_folds(self) -> HeldOut:
        """Return the rows that the folds' models estimated: at training stations."""
        return self.select(self.fold != OF_THE_MODEL)

    @property
    def errors(self) -> np.ndarray:
        """Estimate less observation, float64, in the target's unit."""
        errors: np.ndarray = self.predicted.astype("float64") - self.observed
        return errors


def estimate_part(model: Model, ds: xr.Dataset, split: Split, part: str) -> HeldOut:
    """Estimate the rows of a part whose stations the model was not trained on.

    Raises
    ------
    SmgeoError
        If the model was trained on one of the stations or fitted on bare arrays, or the split is in time.
    """
    return _estimate(model, windows_of_part(model, ds, split, part), ds, OF_THE_MODEL)


def estimate_held_out(
    model: Model,
    learner: Learner,
    ds: xr.Dataset,
    split: Split,
    prepare: PrepareSpec,
    *,
    folds: int = INTERVAL_FOLDS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> HeldOut:
    """Estimate all training and validation rows, each by a model that did not see its place.

    `folds` models are trained, each without the places (or groups of stations) of one fold, and everything that is learned is learned again
    for each. They estimate the training rows; `model` estimates the validation rows.

    Parameters
    ----------
    model : fitted model
        Trained on the training stations of the split.
    learner : Learner
        How it is made and trained, see `smgeo.evaluation.cross_validation.Learner`.
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
    HeldOut
        Training rows, fold by fold, then validation rows.

    Raises
    ------
    SmgeoError
        If the split is in time, the model was fitted on bare arrays, or there are fewer groups than folds.
    """
    check_arguments("intervals", folds=folds, seed=seed)
    preparation = preparation_of(model)
    features, target = list(preparation["features"]), preparation["target"]
    _check_places(split)
    if learner.make().has_spread != model.has_spread:
        raise SmgeoError("intervals: the learner makes another kind of model than the one that gets them")
    ds = select_stations(grouped(ds), (*split.train, *split.validation))
    train = select_stations(ds, split.train)
    made = cv_folds(train, "group-k-fold", folds, target=target, seed=seed)
    parts, trained = [], []
    for k in range(len(made)):
        of_fold, held = fit_fold(learner, train, made, k, prepare, features, target)
        parts.append(_estimate(of_fold, windows_like(preparation_of(of_fold), held), ds, k))
        trained.append(np.array(of_fold.training_["stations"], dtype=object))
        if progress:
            progress(k + 1, len(made))
    if split.validation:
        parts.append(estimate_part(model, ds, split, "validation"))
    return replace(_join(parts), trained=tuple(trained))


def _estimate(model: Model, windows: Windows, ds: xr.Dataset, fold: int) -> HeldOut:
    """Estimate the rows of windows of a cube that has the days of `ds`, and stations of it."""
    observed = observed_of(model, windows)
    return HeldOut(
        *_rows_of(windows, ds),
        observed,
        *predict_spread(model, windows),
        units_of_rows(ds, windows),
        np.full(len(observed), fold),
    )


def _rows_of(windows: Windows, ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return station and time of each value that `windows.pick` selects; the windows have the days of `ds`."""
    station, day = windows.targets
    return windows.stations_at(station), ds.indexes["time"].to_numpy()[day]


def _join(parts: list[HeldOut]) -> HeldOut:
    joined: dict[str, Any] = {n: np.concatenate([getattr(part, n) for part in parts]) for n in _arrays_of(parts[0])}
    return replace(parts[0], **joined)


def _arrays_of(held: HeldOut) -> list[str]:
    return [name for name, values in vars(held).items() if isinstance(values, np.ndarray)]


def predict_spread(model: Model, windows: Windows) -> tuple[np.ndarray, np.ndarray | None]:
    """Return estimates of the values that `windows.pick` selects, and the model's own spread if it has one, in the target's unit."""
    preparation = preparation_of(model)
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


def predict_intervals(model: Model, windows: Windows, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return estimates of the values that `windows.pick` selects, and the ends of their intervals, in the target's unit."""
    assert model.calibration_ is not None
    predicted, spread = predict_spread(model, windows)
    x = None if model.calibration_.local is None else last_days(windows)
    return predicted, *model.calibration_.bounds(predicted, spread, level, x)


def observed_of(model: Model, windows: Windows) -> np.ndarray:
    """Return the observations that `windows.pick` selects, in the target's unit."""
    assert windows.y is not None
    return target_scaler(preparation_of(model))(windows.pick(windows.y))


def features_at(held: HeldOut, parts: Sequence[Windows], ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of the days of held-out rows, as a model sees them.

    Parameters
    ----------
    held : HeldOut
    parts : sequence of Windows
        Windows of the model at the stations of `held`.
    ds : xarray.Dataset
        The cube of the windows.

    Returns
    -------
    x : numpy.ndarray
        (rows found, features) float32.
    known : numpy.ndarray of bool
        (rows of `held`,): the row is found. Another preparation, as of a fold's model, can have kept others.

    Raises
    ------
    SmgeoError
        If most rows are not found.
    """
    x = np.concatenate([last_days(windows) for windows in parts])
    station, time = (np.concatenate(v) for v in zip(*(_rows_of(w, ds) for w in parts), strict=True))
    rows = pd.DataFrame({"station": station.astype(str), "time": time, "row": np.arange(len(x))})
    asked = pd.DataFrame({"station": held.station.astype(str), "time": held.time})
    at = asked.merge(rows, "left", ["station", "time"])["row"]
    known = at.notna().to_numpy()
    if not known.mean() > _LEAST_FOUND:
        raise SmgeoError(
            f"held-out estimates: {int((~known).sum())} of {len(known)} rows are not in the cube, so they are of another one; "
            "make them from the same cube and split"
        )
    return x[at[known].to_numpy(dtype=np.intp)], known


def units_of_rows(ds: xr.Dataset, windows: Windows) -> np.ndarray:
    """Return the group of stations (its number in `ds`) of each value that `windows.pick` selects, int (n,)."""
    positions, at = np.unique(windows.targets[0], return_inverse=True)
    return units_of_stations(ds, windows.stations_at(positions))[at]


def units_of_stations(ds: xr.Dataset, stations: np.ndarray) -> np.ndarray:
    """Return the group (its number in `ds`) of each station id, int (n,)."""
    groups = dict(zip(text_of(ds["station"]).tolist(), group_numbers(ds).tolist(), strict=True))
    return np.array([groups[str(s)] for s in stations], dtype=np.intp)


def windows_of_part(model: Model, ds: xr.Dataset, split: Split, part: str, *, trained: bool = False) -> Windows:
    """Return windows with a target at the stations of a part; refuse stations that the model was trained on, unless `trained`."""
    preparation = preparation_of(model)
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


def preparation_of(model: Model) -> Preparation:
    """Return how the model's data were prepared; refuse a model that was fitted on bare arrays."""
    preparation = getattr(model, "preparation_", None)
    if not preparation:
        raise SmgeoError("intervals and areas: the model was fitted on bare arrays; fit it on Windows")
    known: Preparation = preparation
    return known


def _check_places(split: Split) -> None:
    """Refuse a split in time."""
    if split.periods:
        raise SmgeoError(
            "intervals and the area of applicability are for new places, but the parts of this split are periods of the same stations; "
            "split by station"
        )
