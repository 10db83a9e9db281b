"""Scores of a fitted model on the parts of a split, and tests between models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.cube.schema import check_known_units, station_positions, text_of
from smgeo.errors import SmgeoError
from smgeo.evaluation.clusters import clusters_of
from smgeo.evaluation.intervals import Clusters, Interval
from smgeo.evaluation.scores import (
    NAMES,
    Moments,
    Scores,
    StationScores,
    adjust_holm,
    compare_pair,
    compute_scores,
    score_groups,
    score_intervals,
    score_stations,
)
from smgeo.models.protocol import Model
from smgeo.prepare import PARTS, Split, Windows, part_rows, repeat_steps, windows_like
from smgeo.prepare.places import find_unseen, grouped
from smgeo.prepare.target import check_target_is_observed, target_scaler


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model.

    Attributes
    ----------
    scores : dict
        Part -> scores as in `results.json`, in the target's unit.
    predictions : xarray.Dataset
        `observed` and `predicted` (station, time), in the target's unit, missing where there is no estimate; and `part`, by
        station, or by day if the split is in time. Its coordinates are those of the cube, and the groups of stations.
    cluster : str or None
        What intervals and tests take for independent: `place`, `station`, `group`, or a coordinate of the stations, such as `network`. By
        default networks, if the stations of a part are of ten or more, else groups, which are places unless the cube says otherwise.
    """

    scores: dict[str, Scores]
    predictions: xr.Dataset
    cluster: str | None = None

    @property
    def table(self) -> pd.DataFrame:
        """Scores with one row per part: rmse, ubrmse, bias, r, n, stations, medians over stations, ends of 95 % intervals.

        The ends are named `rmse_low`, `rmse_high`, and so on; see `smgeo.evaluation.scores.score_intervals`.
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
    def intervals(self) -> dict[str, dict[str, Interval]]:
        """95 % intervals of the pooled scores over clusters of stations: part -> score -> [low, high]."""
        return {part: score_intervals(*self.rows(part), self.clusters(part)) for part in self.scores}

    @property
    def over_stations(self) -> dict[str, StationScores]:
        """Mean and median of the scores over stations, with their intervals, see `smgeo.evaluation.scores.score_stations`."""
        return {part: score_stations(*self.rows(part), self.clusters(part)) for part in self.scores}

    def clusters(self, part: str) -> Clusters:
        """Return the cluster of each station of a part that has an estimate.

        Raises
        ------
        SmgeoError
            If the stations have no coordinate of that name.
        """
        return _clusters_of(rows_in_part(self.predictions, part), self.cluster)

    @property
    def stations(self) -> pd.DataFrame:
        """Scores with one row per station that has an estimate: part, network if known, n, rmse, ubrmse, bias, r."""
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
        """Return observed, predicted and station id of every row of a part that has both values, each (n,)."""
        ds = rows_in_part(self.predictions, part)
        observed, predicted = (ds[n].transpose("station", "time").values for n in ("observed", "predicted"))
        at = np.isfinite(observed) & np.isfinite(predicted)
        return observed[at], predicted[at], text_of(ds["station"])[np.nonzero(at)[0]]

    def by(self, group: Mapping[str, str], part: str = "test") -> pd.DataFrame:
        """Return the scores of groups of stations: one row per group, with stations, n and the four pooled scores.

        Parameters
        ----------
        group : mapping
            Station id -> name of its group, such as a network, climate or texture class. Other stations are left out.
        part : {"train", "validation", "test"}
            Part of the split.
        """
        return score_groups(*self.rows(part), group)


def _clusters_of(predictions: xr.Dataset, by: str | None) -> Clusters:
    seen = xr.ufuncs.isfinite(predictions["observed"]) & xr.ufuncs.isfinite(predictions["predicted"])
    return clusters_of(predictions.isel(station=np.flatnonzero(seen.any("time").values)), by)


def split_unseen(model: Model, ds: xr.Dataset) -> Split:
    """Return a split whose test part is every station of a cube that a model has not seen, and whose other parts are empty.

    Stations of its training and validation are left out, and stations at the places of these.

    Raises
    ------
    SmgeoError
        If none is left.
    """
    training = model.training_ or {}
    seen = [*training.get("stations", ()), *training.get("validation_stations", ())]
    places = [*training.get("places", ()), *training.get("validation_places", ())]
    away, _ = find_unseen(ds, seen, places)
    ids = text_of(ds["station"])
    if not away.any():
        raise SmgeoError(
            f"the model saw all {ids.size} stations of the cube in training or validation, or others at their places; give a cube with others"
        )
    return Split((), (), tuple(ids[away].tolist()), left_out=tuple(ids[~away].tolist()))


def rows_in_part(predictions: xr.Dataset, part: str) -> xr.Dataset:
    """Select the stations of a part from `Evaluation.predictions`; its days, if the split is in time."""
    (dim,) = predictions["part"].dims
    return predictions.isel({dim: np.flatnonzero(text_of(predictions["part"]) == part)})


def compare_models(
    evaluations: Mapping[str, Evaluation], part: str = "test", *, pairs: Iterable[tuple[str, str]] | None = None
) -> pd.DataFrame:
    """Test pairs of models against each other, each pair on the rows that both models estimated.

    A model that needs more days before a row is scored on fewer rows. So two models are compared only on common rows. Stations of a
    cluster (see `Evaluation.cluster`; that of the first model) count as one, because they are not independent.

    Parameters
    ----------
    evaluations : mapping
        Name of the model -> its `Evaluation`. Evaluations may come from different cubes or splits: rows count that are in
        the part of both and have the same observation.
    part : {"train", "validation", "test"}
        Part of the split.
    pairs : iterable of (str, str), optional
        Pairs to compare; all by default.

    Returns
    -------
    pandas.DataFrame
        One row per pair: `first`, `second`, and the result of `smgeo.evaluation.scores.compare_pair`. `p_adjusted` is the
        p-value adjusted for the number of pairs (Holm). Pairs without a common row are left out.
    """
    rows = []
    for first, second in combinations(evaluations, 2) if pairs is None else pairs:
        a, b = (rows_in_part(evaluations[n].predictions, part) for n in (first, second))
        a, b = xr.align(a, b, join="inner")
        clusters = _clusters_of(a, evaluations[first].cluster)
        observed, too, of_a, of_b = (
            d[n].transpose("station", "time").values for n in ("observed", "predicted") for d in (a, b)
        )
        # Observations were scaled and scaled back by each model, so their last digits may differ.
        at = np.isclose(observed, too, rtol=1e-5, atol=1e-6) & np.isfinite(of_a) & np.isfinite(of_b)
        if at.any():
            station = text_of(a["station"])[np.nonzero(at)[0]]
            found = compare_pair(observed[at], of_a[at], of_b[at], station, clusters)
            rows.append({"first": first, "second": second, **found})
    table = pd.DataFrame(rows)
    if len(table):
        table["p_adjusted"] = adjust_holm([None if p is None or np.isnan(p) else p for p in table["p_value"]])
    return table


def predict_stations(model: Model, ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray, Windows]:
    """Return observed and predicted target of every row of a prepared cube, in the target's unit, and the windows.

    `Windows.targets` gives the station and day of each row.
    """
    preparation = model.preparation_
    assert preparation is not None
    windows = windows_like(preparation, ds)
    have, need = ({p["target"]: p["target_units"]} for p in (windows.preparation, preparation))
    check_known_units(have, need, "the cube with the observations")
    back = target_scaler(preparation)
    assert windows.y is not None
    predicted = model.predict(windows) if len(windows) else np.empty(windows.y.shape, dtype="float32")
    return back(windows.pick(windows.y)), back(windows.pick(predicted)), windows


def evaluate(model: Model, ds: xr.Dataset, split: Split, cluster: str | None = None) -> Evaluation:
    """Score a fitted model on each part of a split, in the target's unit (m3 m-3).

    Parameters
    ----------
    model : fitted model
        From `make_model(...).fit(windows)` or `load_model`.
    ds : xarray.Dataset
        Station cube, as opened (it is then prepared as the model's training data were) or already prepared.
    split : Split
        Stations of each part, or its days (`split_periods`). Every row of the test part is scored that has enough values
        for a window.
    cluster : str, optional
        What intervals and tests take for independent, see `Evaluation.cluster`.

    Returns
    -------
    Evaluation
        Scores and estimates.

    Raises
    ------
    SmgeoError
        If the model was fitted on bare arrays, or if the cube was prepared in another way than the training data, is in
        other units, or has a target with filled gaps: models are scored on observations.
    """
    preparation = getattr(model, "preparation_", None)
    if not preparation:
        raise SmgeoError(
            "evaluate: the model was fitted on bare arrays, so its preparation is unknown; fit it on Windows"
        )
    ds = grouped(ds)
    clusters_of(ds, cluster)  # says what is wrong with it before any work
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
    return Evaluation(scores, out, cluster)
