"""Scores of a model on training, validation and test stations, and cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.catalog import FEATURES
from smgeo.cube.schema import check_known_units, is_grid, select_stations, station_positions, text_of, variables_of_kind
from smgeo.errors import SmgeoError
from smgeo.prepare import (
    PARTS,
    Folds,
    Scaler,
    Split,
    Windows,
    cv_folds,
    hide_days,
    part_rows,
    repeat_steps,
    select_features,
    training_windows,
    windows_like,
)
from smgeo.prepare.folds import GAP_DAYS, OF_STATIONS
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.validation import CrossValidationSpec
from smgeo.scores import (
    NAMES,
    Moments,
    Scores,
    adjust_holm,
    compare_pair,
    compute_scores,
    finite_or_none,
    score_groups,
    score_intervals,
)


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model.

    Attributes
    ----------
    scores : dict
        Part -> scores as in `results.json`, in the target's unit.
    predictions : xarray.Dataset
        `observed` and `predicted` (station, time), in the target's unit, missing where no prediction was made; and `part`, of each
        station, or of each day where the split is in time.
    """

    scores: dict[str, Scores]
    predictions: xr.Dataset

    @property
    def table(self) -> pd.DataFrame:
        """One row a part: rmse, ubrmse, bias, r, n, stations, the medians over stations, and the ends of 95 % intervals.

        `rmse_low` and `rmse_high`, and so on: by resampling whole stations, see `smgeo.scores.score_intervals`.
        """
        intervals = self.intervals
        rows = {
            p: {
                **{k: v for k, v in s.items() if k != "per_station"},
                **s["per_station"],
                **{
                    f"{k}_{end}": v
                    for k, both in intervals[p].items()
                    for end, v in zip(("low", "high"), both, strict=True)
                },
            }
            for p, s in self.scores.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    @property
    def intervals(self) -> dict[str, dict[str, list[float | None]]]:
        """Part -> score -> [low, high]: 95 % intervals of the pooled scores over resampled stations."""
        return {part: score_intervals(*self.rows(part)) for part in self.scores}

    @property
    def stations(self) -> pd.DataFrame:
        """One row a station with a prediction: part, network where known, n, rmse, ubrmse, bias, r."""
        tables = []
        for part in self.scores:
            observed, predicted, station = self.rows(part)
            if observed.size:
                tables.append(Moments.of(observed, predicted, station).table.assign(part=part))
        if not tables:
            return pd.DataFrame(columns=["part", "n", *NAMES])
        table = pd.concat(tables)
        ids = text_of(self.predictions["station"])
        if "network" in self.predictions.coords:
            networks = pd.Series(text_of(self.predictions["network"]), index=ids)
            table.insert(0, "network", networks.reindex(table.index))
        table.insert(0, "part", table.pop("part"))
        return table

    def rows(self, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observed, predicted and station id of every row of a part that has both, each (n,)."""
        ds = rows_in_part(self.predictions, part)
        observed, predicted = (ds[n].transpose("station", "time").values for n in ("observed", "predicted"))
        at = np.isfinite(observed) & np.isfinite(predicted)
        return observed[at], predicted[at], text_of(ds["station"])[np.nonzero(at)[0]]

    def by(self, group: Mapping[str, str], part: str = "test") -> pd.DataFrame:
        """Scores of groups of stations: one row a group, with stations, n and the four pooled scores.

        Parameters
        ----------
        group : mapping
            Station id -> name of its group, such as its network, climate or texture class; others are left out.
        part : {"train", "validation", "test"}
        """
        return score_groups(*self.rows(part), group)


def rows_in_part(predictions: xr.Dataset, part: str) -> xr.Dataset:
    """Of what `Evaluation.predictions` holds, the stations (or the days, where the split is in time) of a part."""
    (dim,) = predictions["part"].dims
    return predictions.isel({dim: np.flatnonzero(text_of(predictions["part"]) == part)})


def compare_models(
    evaluations: Mapping[str, Evaluation], part: str = "test", *, pairs: Iterable[tuple[str, str]] | None = None
) -> pd.DataFrame:
    """Paired tests between models, each pair on the rows that both estimated.

    A model that needs more days before a row is scored on fewer rows, so scores of two models are compared on common rows alone.

    Parameters
    ----------
    evaluations : mapping
        Name of the model -> its `Evaluation`. Of different cubes or splits, rows that are in the part of both and have the same
        observation count.
    part : {"train", "validation", "test"}
    pairs : iterable of (str, str), optional
        Which to compare; all by default.

    Returns
    -------
    pandas.DataFrame
        One row a pair: `first`, `second`, and what `smgeo.scores.compare_pair` gives; `p_adjusted` is the p-value adjusted for the
        number of pairs (Holm). Two models with no common row are left out.
    """
    rows = []
    for first, second in combinations(evaluations, 2) if pairs is None else pairs:
        a, b = (rows_in_part(evaluations[n].predictions, part) for n in (first, second))
        a, b = xr.align(a, b, join="inner")
        observed, too, of_a, of_b = (
            d[n].transpose("station", "time").values for n in ("observed", "predicted") for d in (a, b)
        )
        # Observations went through each model's own scaling and back, so that their last digits may differ.
        at = np.isclose(observed, too, rtol=1e-5, atol=1e-6) & np.isfinite(of_a) & np.isfinite(of_b)
        if at.any():
            station = text_of(a["station"])[np.nonzero(at)[0]]
            rows.append({"first": first, "second": second, **compare_pair(observed[at], of_a[at], of_b[at], station)})
    table = pd.DataFrame(rows)
    if len(table):
        table["p_adjusted"] = adjust_holm([None if p is None or np.isnan(p) else p for p in table["p_value"]])
    return table


def target_scale(preparation: dict[str, Any]) -> tuple[float, float] | None:
    """Center and scale of a model's output, where its target was scaled."""
    scalers = [Scaler.from_dict(s["scaler"]) for s in preparation["steps"] if s["step"] == "scale"]
    target = preparation["target"]
    found = [(s.center_[target], s.scale_[target]) for s in scalers if target in s.center_]
    return found[-1] if found else None


def target_scaler(preparation: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The function that brings a model's output back to the target's unit."""
    found = target_scale(preparation)
    if found is None:
        return lambda y: y.astype("float32")
    center, scale = found
    return lambda y: (y.astype("float64") * scale + center).astype("float32")


def known_features(ds: xr.Dataset, target: str) -> list[str]:
    """Dynamic, static and calendar variables but the target; sorted, because stores give them back in another order."""
    return sorted(n for n in variables_of_kind(ds, "dynamic", "static", "calendar") if n != target)


def choose_features(ds: xr.Dataset, features: Sequence[str] | None, target: str, what: str) -> list[str]:
    """The features asked for of a station cube, by default all that `known_features` finds; `what` asks, for messages."""
    if is_grid(ds):
        raise SmgeoError(f"{what}: needs a station cube with the dims station and time; got a grid cube")
    names = known_features(ds, target) if features is None else list(features)
    if not names:
        raise SmgeoError(f"{what}: no feature is named, and the cube has no dynamic, static or calendar variable")
    if target in names:
        raise SmgeoError(f"{what}: the target {target!r} is among the features; leave it out of them")
    return names


def predict_stations(model: Any, ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray, Windows]:
    """Observed and predicted target of every row of a prepared cube, in the target's unit; the rows' places are `Windows.targets`."""
    windows = windows_like(model.preparation_, ds)
    have, need = ({p["target"]: p["target_units"]} for p in (windows.preparation, model.preparation_))
    check_known_units(have, need, "the cube with the observations")
    back = target_scaler(model.preparation_)
    assert windows.y is not None
    predicted = model.predict(windows) if len(windows) else np.empty(windows.y.shape, dtype="float32")
    return back(windows.pick(windows.y)), back(windows.pick(predicted)), windows


def check_target_is_observed(ds: xr.Dataset, target: str) -> None:
    """Refuse a cube whose target `fill_gaps` filled: models are scored on observations."""
    limit = ds[target].attrs.get("gaps_filled", 0)
    if limit != 0:
        raise SmgeoError(
            f"gaps of the target {target!r} were filled (limit {limit}), and models are scored on observations; give the cube with "
            "the target as it was observed, and attrs['kind'] 'target' so that it is not filled by default"
        )


def evaluate(model: Any, ds: xr.Dataset, split: Split) -> Evaluation:
    """Scores of a fitted model on each part of a split, in the target's unit (m3 m-3).

    Parameters
    ----------
    model : fitted model
        From `make_model(...).fit(windows)` or `load_model`.
    ds : xarray.Dataset
        Station cube, as opened (it is then prepared as the model's training data were) or prepared.
    split : Split
        Stations of each part, or its days (`split_periods`). Every row of the test part that has enough values for a window is scored.

    Returns
    -------
    Evaluation

    Raises
    ------
    SmgeoError
        If the model was fitted on bare arrays, or the cube was prepared otherwise than its training data, is in other
        units, or has a target that `fill_gaps` filled: models are scored on observations.
    """
    preparation = getattr(model, "preparation_", None)
    if not preparation:
        raise SmgeoError(
            "evaluate needs a model fitted on Windows, which know their preparation; this one was fitted on bare arrays"
        )
    prepared = repeat_steps(ds, preparation["steps"])
    check_target_is_observed(prepared, preparation["target"])
    scores: dict[str, Scores] = {}
    shape = (ds.sizes["station"], ds.sizes["time"])
    observed, predicted = (np.full(shape, np.nan, dtype="float32") for _ in range(2))
    along = "time" if split.periods else "station"
    part_of = np.full(ds.sizes[along], "", dtype=object)
    for part in [p for p in PARTS if p in split.periods or not split.periods]:
        rows = np.array(station_positions(ds, getattr(split, part)), dtype=np.intp)
        o, p, windows = predict_stations(model, part_rows(prepared, split, part, preparation["target"]))
        stations, days = windows.targets
        scores[part] = compute_scores(o, p, stations)
        part_of[np.unique(days) if split.periods else rows] = part
        at = rows[stations], days
        observed[at], predicted[at] = o, p
    units = preparation["target_units"]
    attrs = {"units": units, "kind": "target"}
    dims = ("station", "time")
    out = xr.Dataset(
        {"observed": (dims, observed, attrs), "predicted": (dims, predicted, attrs)},
        {**dict(ds.coords), "part": (along, part_of)},
    )
    return Evaluation(scores, out)


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
