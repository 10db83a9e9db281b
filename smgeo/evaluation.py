"""Scores of a model on training, validation and test stations, and cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.cube import select_stations, text_of
from smgeo.errors import SmgeoError
from smgeo.prepare import PARTS, Scaler, Split, Windows, prepare_cube, repeat_steps, station_folds
from smgeo.recipe import CrossValidationSpec, PrepareSpec

Scores = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model.

    Attributes
    ----------
    scores : dict
        Part -> scores as in `results.json`, in the target's unit.
    predictions : xarray.Dataset
        `observed` and `predicted` (station, time) and `part` (station,), in the target's unit; missing where no
        prediction was made.
    """

    scores: dict[str, Scores]
    predictions: xr.Dataset

    @property
    def table(self) -> pd.DataFrame:
        """One row a part: rmse, ubrmse, bias, r, n, stations, and the medians over stations."""
        rows = {
            p: {**{k: v for k, v in s.items() if k != "per_station"}, **s["per_station"]}
            for p, s in self.scores.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")


def _four(observed: np.ndarray, predicted: np.ndarray) -> tuple[float, float, float, float]:
    """RMSE, unbiased RMSE, bias and correlation (Entekhabi et al. 2010, J. Hydrometeorol. 11, 832-840).

    bias = mean(predicted - observed); ubRMSE^2 = RMSE^2 - bias^2.

    >>> [round(v, 6) for v in _four(np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.3, 0.4]))]
    [0.1, 0.0, 0.1, 1.0]
    """
    error = predicted - observed
    bias = float(error.mean())
    # The spread about the bias, which is sqrt(RMSE^2 - bias^2) without the loss of digits.
    ubrmse = float(np.sqrt(np.mean((error - bias) ** 2)))
    rmse = float(np.sqrt(np.mean(error**2)))
    if observed.size > 1 and np.ptp(observed) > 0 and np.ptp(predicted) > 0:
        return rmse, ubrmse, bias, float(np.corrcoef(observed, predicted)[0, 1])
    return rmse, ubrmse, bias, float("nan")


def compute_scores(observed: np.ndarray, predicted: np.ndarray, station: np.ndarray) -> Scores:
    """Scores over all rows, and their medians over stations.

    Parameters
    ----------
    observed, predicted : numpy.ndarray
        (n,), same unit, no missing values.
    station : numpy.ndarray
        (n,), which station each row belongs to.

    Returns
    -------
    dict
        `rmse`, `ubrmse`, `bias`, `r`, `n`, `stations`, and `per_station` with `rmse_median`, `ubrmse_median`,
        `bias_median`, `r_median`. A score that is not defined (r of a constant) is None.
    """
    names = ("rmse", "ubrmse", "bias", "r")
    observed, predicted = observed.astype("float64"), predicted.astype("float64")
    places = np.unique(station)
    if observed.size == 0:
        return {
            **dict.fromkeys(names),
            "n": 0,
            "stations": 0,
            "per_station": dict.fromkeys(f"{n}_median" for n in names),
        }
    pooled = _four(observed, predicted)
    each = np.array([_four(observed[station == s], predicted[station == s]) for s in places])
    medians = [float(np.nanmedian(c)) if np.isfinite(c).any() else float("nan") for c in each.T]
    return {
        **{n: _finite(v) for n, v in zip(names, pooled, strict=True)},
        "n": int(observed.size),
        "stations": int(places.size),
        "per_station": {f"{n}_median": _finite(v) for n, v in zip(names, medians, strict=True)},
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def target_scaler(preparation: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The function that brings a model's output back to the target's unit."""
    scalers = [Scaler.from_dict(s["scaler"]) for s in preparation["steps"] if s["step"] == "scale"]
    target = preparation["target"]
    center = scale = None
    for scaler in scalers:
        if target in scaler.center_:
            center, scale = scaler.center_[target], scaler.scale_[target]
    if center is None or scale is None:
        return lambda y: y.astype("float32")
    return lambda y: (y.astype("float64") * scale + center).astype("float32")


def _windows_like(preparation: dict[str, Any], ds: xr.Dataset) -> Windows:
    p = preparation
    return Windows(ds, p["features"], p["target"], p["length"], p["missing"], p["fill"])


def predict_stations(model: Any, ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray, Windows]:
    """Observed and predicted target of every row of a prepared cube, in the target's unit, and the rows' windows."""
    windows = _windows_like(model.preparation_, ds)
    back = target_scaler(model.preparation_)
    assert windows.y is not None
    predicted = model.predict(windows) if len(windows) else np.empty(0, dtype="float32")
    return back(windows.y), back(predicted), windows


def evaluate(model: Any, ds: xr.Dataset, split: Split) -> Evaluation:
    """Scores of a fitted model on each part of a split, in the target's unit (m3 m-3).

    Parameters
    ----------
    model : fitted model
        From `make_model(...).fit(windows)` or `load_model`.
    ds : xarray.Dataset
        Station cube, as opened (it is then prepared as the model's training data were) or prepared.
    split : Split
        Stations of each part. Every row of a test station that has enough values for a window is scored.

    Returns
    -------
    Evaluation

    Raises
    ------
    SmgeoError
        If the model was fitted on bare arrays, or the cube was prepared otherwise than its training data.
    """
    preparation = getattr(model, "preparation_", None)
    if not preparation:
        raise SmgeoError(
            "evaluate needs a model fitted on Windows, which know their preparation; this one was fitted on bare arrays"
        )
    prepared = repeat_steps(ds, preparation["steps"])
    scores: dict[str, Scores] = {}
    shape = (ds.sizes["station"], ds.sizes["time"])
    observed, predicted = (np.full(shape, np.nan, dtype="float32") for _ in range(2))
    part_of = np.full(shape[0], "", dtype=object)
    row_of = {str(s): i for i, s in enumerate(ds["station"].values)}
    for part in PARTS:
        ids = list(getattr(split, part))
        o, p, windows = predict_stations(model, prepared.sel(station=ids))
        scores[part] = compute_scores(o, p, windows.station_index)
        rows = np.array([row_of[s] for s in ids], dtype=np.intp)
        part_of[rows] = part
        at = rows[windows.station_index], windows.time_index
        observed[at], predicted[at] = o, p
    units = preparation["target_units"]
    attrs = {"units": units, "kind": "target"}
    dims = ("station", "time")
    out = xr.Dataset(
        {"observed": (dims, observed, attrs), "predicted": (dims, predicted, attrs)},
        {**dict(ds.coords), "part": ("station", part_of)},
    )
    return Evaluation(scores, out)


def _r2(observed: np.ndarray, predicted: np.ndarray) -> float:
    """Squared correlation; NaN where it is not defined."""
    return _four(observed, predicted)[3] ** 2


def cross_validate(
    make: Callable[[], Any],
    ds: xr.Dataset,
    spec: CrossValidationSpec,
    prepare: PrepareSpec,
    features: Iterable[str],
    target: str,
    *,
    length: int,
    needs_validation: bool,
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
        `leave-location-out` holds out whole stations; `random` holds out rows of every station, which share
        their days and places with the training rows.
    prepare : PrepareSpec
        How each fold is prepared, with statistics of its training stations. (In `random` every station is one, so
        features of held-out rows enter the statistics; their target does not.)
    features, target : iterable of str, str
    length : int
        Days in a window; 1 for models on rows.
    needs_validation : bool
        Whether a tenth of each fold's training stations (or rows) is set apart for early stopping.

    Returns
    -------
    dict
        As in `results.json`: `r2_mean_of_folds` is the squared correlation in each fold, averaged; `r2_pooled` is
        1 - SSE/SST over all held-out rows; `r2_station_means` the same over the stations' means: how much of the
        pattern in space is explained; `rmse_pooled` in the target's unit; `folds` and `n`.
    """
    features = list(features)
    fold_r2, observed, predicted, station = [], [], [], []
    seed = spec.seed if spec.seed is not None else seed
    folds = (
        _station_parts(ds, spec.folds, seed)
        if spec.method == "leave-location-out"
        else _row_parts(ds, target, spec.folds, seed)
    )
    for k, (train_ds, apart_ds, test_ds) in enumerate(folds):
        validation_ds = apart_ds if needs_validation else None
        if validation_ds is None:
            train_ds = _join(train_ds, apart_ds, target)
        ids = [str(s) for s in train_ds["station"].values]
        prepared = prepare_cube(train_ds, prepare, features, target, ids)
        windows = prepared.windows(ids, length, prepare.window.missing)
        model = make()
        others = {}
        if validation_ds is not None:
            others["validation"] = _windows_like(
                windows.preparation, repeat_steps(validation_ds, windows.preparation["steps"])
            )
        model.fit(windows, **others)
        o, p, held = predict_stations(model, repeat_steps(test_ds, windows.preparation["steps"]))
        ids_here = text_of(test_ds["station"])
        fold_r2.append(_r2(o, p))
        observed.append(o)
        predicted.append(p)
        station.append(ids_here[held.station_index])
        if progress:
            progress(k + 1, spec.folds)
    o, p, s = (np.concatenate(a) for a in (observed, predicted, station))
    o, p = o.astype("float64"), p.astype("float64")
    means = pd.DataFrame({"s": s, "o": o, "p": p}).groupby("s").mean()
    return {
        "method": spec.method,
        "folds": spec.folds,
        "r2_mean_of_folds": _finite(float(np.nanmean(fold_r2))),
        "r2_pooled": _finite(explained(o, p)),
        "r2_station_means": _finite(explained(means["o"].to_numpy(), means["p"].to_numpy())),
        "rmse_pooled": _finite(float(np.sqrt(np.mean((p - o) ** 2)))),
        "n": int(o.size),
        "stations": int(means.shape[0]),
        "r2_of_folds": [_finite(v) for v in fold_r2],
    }


def explained(observed: np.ndarray, predicted: np.ndarray) -> float:
    """1 - SSE/SST; below 0 where the observations' mean would do better.

    >>> explained(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    0.5
    """
    total = float(np.sum((observed - observed.mean()) ** 2))
    return 1 - float(np.sum((predicted - observed) ** 2)) / total if total > 0 else float("nan")


def _station_parts(ds: xr.Dataset, folds: int, seed: int) -> Iterable[tuple[xr.Dataset, xr.Dataset, xr.Dataset]]:
    ids = [str(s) for s in ds["station"].values]
    for k, (train, held) in enumerate(station_folds(ids, folds, seed)):
        order = np.random.default_rng([seed, k]).permutation(len(train))
        n = max(round(0.1 * len(train)), 1)
        validation = {train[i] for i in order[:n]}
        yield (
            select_stations(ds, [s for s in train if s not in validation]),
            select_stations(ds, [s for s in train if s in validation]),
            select_stations(ds, held),
        )


def _row_parts(
    ds: xr.Dataset, target: str, folds: int, seed: int
) -> Iterable[tuple[xr.Dataset, xr.Dataset, xr.Dataset]]:
    shape = (ds.sizes["station"], ds.sizes["time"])
    fold = np.random.default_rng(seed).integers(folds, size=shape)
    for k in range(folds):
        set_apart = np.random.default_rng([seed, k]).random(shape) < 0.1
        chosen = (fold != k) & ~set_apart, (fold != k) & set_apart, fold == k
        train, validation, test = (_with_target_where(ds, target, c) for c in chosen)
        yield train, validation, test


def _with_target_where(ds: xr.Dataset, target: str, mask: np.ndarray) -> xr.Dataset:
    kept = ds[target].transpose("station", "time").where(xr.DataArray(mask, dims=("station", "time")))
    return ds.assign({target: kept.assign_attrs(ds[target].attrs)})


def _join(a: xr.Dataset, b: xr.Dataset, target: str) -> xr.Dataset:
    """The stations, or the rows, of both."""
    if a["station"].equals(b["station"]):
        return a.assign({target: a[target].fillna(b[target]).assign_attrs(a[target].attrs)})
    out = xr.concat(
        [a, b],
        dim="station",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        combine_attrs="override",
        join="override",
    )
    for name, variable in out.data_vars.items():
        if isinstance(variable.attrs.get("revisit_days"), list | np.ndarray):
            variable.attrs["revisit_days"] = [*a[name].attrs["revisit_days"], *b[name].attrs["revisit_days"]]
    return out
