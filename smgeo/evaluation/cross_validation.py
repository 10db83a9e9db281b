"""Cross-validation: everything that is learned is learned again in each fold."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.catalog import FEATURES
from smgeo.cube.schema import select_stations, text_of
from smgeo.errors import SmgeoError
from smgeo.evaluation.parts import predict_stations
from smgeo.evaluation.scores import Scores, compute_scores, finite_or_none
from smgeo.prepare import (
    Folds,
    cv_folds,
    hide_days,
    repeat_steps,
    select_features,
    training_windows,
)
from smgeo.prepare.folds import GAP_DAYS, OF_STATIONS
from smgeo.prepare.target import check_target_is_observed
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.validation import CrossValidationSpec


def score_folds(
    observed: Sequence[np.ndarray], predicted: Sequence[np.ndarray], station: Sequence[np.ndarray]
) -> Scores:
    """Scores of cross-validation, from the held-out rows of each fold.

    Parameters
    ----------
    observed, predicted : sequence of numpy.ndarray
        One array a fold, (rows,), same unit, no missing values.
    station : sequence of numpy.ndarray
        Which station each row belongs to.

    Returns
    -------
    dict
        `r2_mean_of_folds` is the squared correlation in each fold, averaged; `r2_pooled` is 1 - SSE/SST over all rows;
        `r2_station_means` the same over the stations' means: how much of the pattern in space is explained;
        `rmse_pooled` in the target's unit; `n`, `stations`, `r2_of_folds`. A score that is not defined is None.
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
    """1 - SSE/SST; below 0 where the observations' mean would do better.

    >>> explained(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    0.5
    """
    total = float(np.sum((observed - observed.mean()) ** 2))
    return 1 - float(np.sum((predicted - observed) ** 2)) / total if total > 0 else float("nan")


def cross_validate(
    make: Callable[[], Any],
    ds: xr.Dataset,
    spec: CrossValidationSpec,
    prepare: PrepareSpec,
    features: Iterable[str],
    target: str,
    *,
    length: int,
    mode: Literal["window", "sequence"] = "window",
    needs_validation: bool,
    selected: Sequence[Sequence[str]] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Cross-validate one model; everything that is learned is learned anew in each fold.

    Parameters
    ----------
    make : callable
        Gives an unfitted model.
    ds : xarray.Dataset
        Station cube, not prepared.
    spec : CrossValidationSpec
        What is held out together, as `smgeo.cv_folds` says. Without `gap_days` the gap of `temporal` is what a window
        of `prepare.window.length` days of these features looks back (sums over days included), whatever the model sees,
        and 30 days at least; 58 for 30-day windows of `precipitation_30d`.
    prepare : PrepareSpec
        How each fold is prepared, with statistics of its training stations and days. In `temporal` nothing that is
        learned, and no training or validation window, is made of a value of the held-out period (or, with `forward_only`,
        of later days): these are hidden before gaps are filled, and so are, for as many days after the period as they look
        back, the catalogue's sums over days (a variable of your own that is such a sum is not known as one). A revisit
        given for each station is measured again on what is left. Held-out rows keep what their own past holds, which
        may lie on training days. In `random` every station and day is a training one, so features of held-out rows are
        in the statistics; their target is not.
    features, target : iterable of str, str
    length : int
        Days in a window; 1 for models on rows.
    mode : {"window", "sequence"}
        Whether the model sees windows or whole series.
    needs_validation : bool
        Whether a tenth of each fold's training units (stations, locations, blocks, the last days, or rows) is set apart
        for early stopping.
    selected : sequence of sequences of str, optional
        Features of each fold, as `select_in_folds` found them for these folds; found here where `spec` asks for them and they are not given.

    Returns
    -------
    dict
        As in `results.json`: `method`, `folds`, in `temporal` `gap_days`, with `select_features` the features of each fold (`selected`), and
        what `score_folds` gives.
    """
    features = list(features)
    check_target_is_observed(ds, target)
    seed = spec.seed if spec.seed is not None else seed
    folds = _folds_of(ds, spec, target, seed, _default_gap(features, prepare.window.length))
    observed, predicted, station = [], [], []
    if selected is None and spec.select_features:
        selected = select_in_folds(ds, spec, features, target, seed=seed)
    if selected is not None and len(selected) != len(folds):
        raise SmgeoError(
            f"cross-validation: selected has the features of {len(selected)} folds, and there are {len(folds)}"
        )
    for k, (train, held) in enumerate(folds):
        apart = folds.set_apart(k)
        if needs_validation and not (train & ~apart).any():
            raise SmgeoError(
                f"cross-validation ({spec.method}): fold {k + 1} of {len(folds)} leaves no row to train on beside those set apart "
                "for early stopping; use more folds"
            )
        seen = _hide_held_out_days(ds, folds, held)
        # Set apart last, also where they are trained on: a forest draws rows by their place.
        train_ds = _rows_of(seen, target, folds, train & ~apart, *(() if needs_validation else (apart,)))
        used = selected[k] if selected else features
        held_ds = _rows_of(seen, target, folds, apart) if needs_validation else None
        _, windows, validation = training_windows(train_ds, held_ds, prepare, used, target, length=length, mode=mode)
        model = make().fit(windows, validation=validation)
        test_ds = _rows_of(ds, target, folds, held)
        o, p, made = predict_stations(model, repeat_steps(test_ds, windows.preparation["steps"]))
        observed.append(o)
        predicted.append(p)
        station.append(text_of(test_ds["station"])[made.targets[0]])
        if progress:
            progress(k + 1, len(folds))
    more: dict[str, Any] = {"gap_days": folds.gap_days} if spec.method == "temporal" else {}
    if selected:
        more["selected"] = [list(names) for names in selected]
    return {"method": spec.method, "folds": len(folds), **more, **score_folds(observed, predicted, station)}


def select_in_folds(
    ds: xr.Dataset,
    spec: CrossValidationSpec,
    features: Iterable[str],
    target: str,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[str]]:
    """Features chosen on the training stations of each fold, see `smgeo.select_features`; the held-out stations choose nothing.

    Parameters
    ----------
    ds, spec, features, target, seed
        As for `cross_validate`.
    progress : callable, optional
        Called with (folds done, folds in all).

    Returns
    -------
    list of list of str
        Of each fold, in the order of `features`.
    """
    names = list(features)
    seed = spec.seed if spec.seed is not None else seed
    folds = _folds_of(ds, spec, target, seed)
    out = []
    for k, (train, _) in enumerate(folds):
        found = select_features(_rows_of(ds, target, folds, train), names, target, seed=seed).features
        out.append([f for f in names if f in found])
        if progress:
            progress(k + 1, len(folds))
    return out


def _folds_of(ds: xr.Dataset, spec: CrossValidationSpec, target: str, seed: int, gap_days: int = 0) -> Folds:
    gap = {"gap_days": gap_days} if spec.method == "temporal" else {}
    return cv_folds(ds, spec.method, spec.folds, target=target, seed=seed, **{**gap, **spec.options})


def _looks_back(name: Hashable) -> int:
    """How many days before its own a value of the variable is made from too, as far as the catalogue knows."""
    return FEATURES[str(name)].looks_back_days if name in FEATURES else 0


def _default_gap(features: Sequence[str], window_days: int) -> int:
    """Days that the first day of a window, and the sums on it, look back; `GAP_DAYS` at least.

    >>> _default_gap(["s1_vv", "precipitation_30d"], 30), _default_gap(["s1_vv"], 1)
    (58, 30)
    """
    return max(GAP_DAYS, window_days - 1 + max(map(_looks_back, features)))


def _rows_of(ds: xr.Dataset, target: str, folds: Folds, *rows: np.ndarray) -> xr.Dataset:
    """The cube with the target on `rows` alone; where folds are of whole stations, their stations alone, part after part."""
    some = xr.DataArray(np.logical_or.reduce(rows), dims=("station", "time"))
    kept = ds[target].transpose("station", "time").where(some)
    ds = ds.assign({target: kept.assign_attrs(ds[target].attrs)})
    if folds.method not in OF_STATIONS:
        return ds
    stations = np.concatenate([np.flatnonzero(part.any(axis=1)) for part in rows])
    return select_stations(ds, text_of(ds["station"])[stations])


def _hide_held_out_days(ds: xr.Dataset, folds: Folds, held: np.ndarray) -> xr.Dataset:
    """The cube without values made of days of a held-out period, or of those after it in forward folds."""
    if folds.method != "temporal":
        return ds
    first, last = np.flatnonzero(held.any(axis=0))[[0, -1]]
    day = xr.DataArray(np.arange(held.shape[1]), dims="time")
    end = {n: day.size if folds.forward_only else last + _looks_back(n) for n in ds.data_vars}
    return ds.assign(hide_days(ds, {n: (day >= first) & (day <= end[n]) for n in ds.data_vars}))
