"""Summaries of a run for `results.json` and `provenance.json`; `smgeo.report.schema` defines their keys."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.cube.reading import open_cube
from smgeo.cube.schema import observed, select_stations, station_positions, text_of
from smgeo.evaluation.clusters import clusters_of
from smgeo.evaluation.intervals import FEW_CLUSTERS, Interval, interval_of_mean
from smgeo.evaluation.parts import Evaluation, compare_models
from smgeo.evaluation.scores import Scores, compute_scores
from smgeo.files import JsonObject, versions_of
from smgeo.models.backend import keras_backend
from smgeo.prepare import OutlierRows, Split, part_rows
from smgeo.prepare.places import GROUP, group_numbers
from smgeo.recipe.preparation import OutlierSpec
from smgeo.report.texture import classify_texture

_PACKAGES = (
    "smgeo",
    "numpy",
    "pandas",
    "xarray",
    "zarr",
    "dask",
    "rasterio",
    "scikit-learn",
    "keras",
    "ydf",
    "lightgbm",
    "xgboost",
    "xgboost-cpu",
    "ismn",
)


def score_map(store: Path, target: str, truth: Path | None) -> JsonObject:
    """Return the scores of a map against the truth at every pixel, under `truth`; nothing if the truth is not known."""
    if truth is None:
        return {}
    estimate = open_cube(store)[target]
    known, values = open_truth(truth, estimate).values, estimate.values
    seen = np.isfinite(values) & np.isfinite(known)
    scores = compute_scores(known[seen], values[seen], np.zeros(int(seen.sum()), dtype="int8"))
    pixels = int(seen.any(axis=0).sum())
    return {"truth": {**{k: scores[k] for k in ("rmse", "ubrmse", "bias", "r", "n")}, "pixels": pixels}}


def open_truth(path: Path, estimate: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Return the truth of the built-in world on the days and pixels of a map; lazy."""
    truth: xr.DataArray = xr.open_zarr(path, consolidated=False, decode_coords="all")["sm"]
    return truth.sel(time=estimate["time"]).sel(y=estimate["y"], x=estimate["x"], method="nearest")


def describe_models(
    folder: Path, scores: Mapping[str, dict[str, Scores]], cube: xr.Dataset, cluster: str | None = None
) -> JsonObject:
    """Return `intervals`, `over_stations`, `comparisons` and `groups` of the results, from the predictions in a run's folder.

    `cluster` is what intervals and tests take for independent, see `smgeo.evaluation.parts.Evaluation`.

    Groups of test stations are networks, climate classes if the archive has them, and USDA texture classes if the cube has sand, silt and clay.
    """
    evaluations = open_evaluations(folder, scores, cluster)
    groups = {
        label: {name: records_of(e.by(of_station), "group") for name, e in evaluations.items()}
        for label, of_station in _station_groups(cube).items()
    }
    return {
        "intervals": {name: e.intervals for name, e in evaluations.items()},
        "over_stations": {name: e.over_stations for name, e in evaluations.items()},
        "comparisons": records_of(compare_models(evaluations)),
        "groups": {label: of_models for label, of_models in groups.items() if any(of_models.values())},
    }


def describe_baseline(
    folder: Path,
    scores: Mapping[str, dict[str, Scores]],
    name: str,
    baseline: dict[str, Scores],
    store: Path,
    cluster: str | None = None,
) -> JsonObject:
    """Return `baselines` and `against_baseline` of the results: scores of a plain model, and each model's paired test against it.

    Parameters
    ----------
    folder : Path
        A run's folder with the predictions of its models.
    scores : mapping
        Scores of the models.
    name, baseline, store : str, dict, Path
        Name, scores and estimates of the plain model.
    cluster : str, optional
        As for `describe_models`.
    """
    evaluations = open_evaluations(folder, scores, cluster)
    plain = Evaluation(baseline, open_cube(store, dask=False), cluster)
    # A model may have the baseline's name.
    key = f"{name} (baseline)"
    found = compare_models({**evaluations, key: plain}, pairs=[(model, key) for model in scores])
    return {
        "baselines": {name: {**plain.scores}},
        "against_baseline": [{**r, "second": name} for r in records_of(found)],
    }


def describe_coverage(table: pd.DataFrame, cube: xr.Dataset, cluster: str | None = None) -> JsonObject:
    """Return the share of observations inside intervals: over all rows, as the mean over stations, and both by groups of stations.

    Parameters
    ----------
    table : pandas.DataFrame
        From `smgeo.interval_coverage`.
    cube : xarray.Dataset
        Station cube, for the groups.
    cluster : str, optional
        What the interval of the share over places takes for independent, see `smgeo.evaluation.clusters.clusters_of`.
    """
    clusters = clusters_of(select_stations(cube, table.index.tolist()), cluster)
    table = table.assign(cluster=clusters.number(table.index))
    groups = {}
    for label, of_station in _station_groups(cube).items():
        named = table.groupby(table.index.map(of_station))
        groups[label] = [{"group": str(name), **_coverage_of(part)} for name, part in named]
    return {**_coverage_of(table), "groups": groups}


def _coverage_of(table: pd.DataFrame) -> JsonObject:
    rows, inside = int(table["rows"].sum()), table["covered"] * table["rows"]
    of_group = table["rows"].groupby(table["group"]).sum()
    over_groups = (inside.groupby(table["group"]).sum() / of_group).to_numpy()
    cluster = table["cluster"].groupby(table["group"]).first().to_numpy()
    return {
        "covered": float(inside.sum() / rows) if rows else None,
        "covered_stations": float(table["covered"].mean()) if rows else None,
        "covered_groups": float(over_groups.mean()) if rows else None,
        "covered_groups_interval": _interval_of_shares(over_groups, cluster),
        "places": len(over_groups),
        "width": float((table["width"] * table["rows"]).sum() / rows) if rows else None,
        "stations": len(table),
        "rows": rows,
    }


def _interval_of_shares(shares: np.ndarray, cluster: np.ndarray) -> Interval:
    """Return the interval of the mean of shares: none of few clusters, or of equal ones, where most shares are 1 and say little of the rest."""
    if len(set(cluster.tolist())) < FEW_CLUSTERS or np.ptp(shares) == 0:
        return [None, None]
    return [None if end is None else min(max(end, 0.0), 1.0) for end in interval_of_mean(shares, cluster)]


def open_evaluations(
    folder: Path, scores: Mapping[str, dict[str, Scores]], cluster: str | None = None
) -> dict[str, Evaluation]:
    """Return the scores of each model with the predictions in a run's folder."""
    return {name: Evaluation(scores[name], ds, cluster) for name, ds in open_predictions(folder, scores).items()}


def open_predictions(folder: Path, models: Iterable[str]) -> dict[str, xr.Dataset]:
    """Open the predictions of models in a run's folder, see `smgeo.evaluation.parts.Evaluation.predictions`."""
    stores = {name: folder / "predictions" / f"{name}.zarr" for name in models}
    return {name: open_cube(store, dask=False) for name, store in stores.items()}


def _station_groups(cube: xr.Dataset) -> dict[str, dict[str, str]]:
    """Return the groupings: label -> station -> group."""
    ids = text_of(cube["station"]).tolist()
    groups = {}
    for label in ("network", "climate"):
        if label in cube.coords:
            named = zip(ids, text_of(cube[label]).tolist(), strict=True)
            groups[label] = {station: name for station, name in named if name}
    parts = [cube[n] for n in ("sand", "silt", "clay") if n in cube and cube[n].dims == ("station",)]
    if len(parts) == 3:
        groups["texture"] = dict(zip(ids, classify_texture(*(p.values for p in parts)).tolist(), strict=True))
    return groups


def records_of(table: pd.DataFrame, index: str | None = None) -> list[JsonObject]:
    """Return the rows of a table as JSON objects, with None for NaN and infinity."""
    if index is not None:
        table = table.rename_axis(index).reset_index()
    return [
        {str(k): None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in table.to_dict("records")
    ]


def describe_split(split: Split, cube: xr.Dataset) -> JsonObject:
    """Return `split` of the results.

    It has the stations of each part, and those forced into training with their extremes. A split by stations also has those in the
    buffer, and what was held out together: the attributes of the coordinate `group` of the cube, and the number of groups.
    """
    total = sum(len(p) for p in split.parts().values())
    out: JsonObject = {
        **{p: list(ids) for p, ids in split.parts().items()},
        "forced": {k: list(v) for k, v in split.forced.items()},
        "forced_share": round(len(split.forced) / total, 4),
    }
    if split.periods:
        return {**out, "periods": {part: list(days) for part, days in split.periods.items()}}
    return {**out, "in_buffer": list(split.in_buffer), **_describe_groups(split, cube)}


def _describe_groups(split: Split, cube: xr.Dataset) -> JsonObject:
    """Return `groups` of a split: how the cube was grouped, and the number of groups that its stations belong to."""
    about = cube[GROUP].attrs if GROUP in cube.coords else {}
    if "by" not in about:
        return {}
    used = station_positions(cube, [*(s for ids in split.parts().values() for s in ids), *split.in_buffer])
    known = {k: about[k] for k in ("by", "same_place_m", "buffer_km", "km") if k in about}
    return {"groups": {**known, "number": np.unique(group_numbers(cube)[used]).size}}


def _row(step: str, stations: int | None, rows: int | None, removed: int) -> JsonObject:
    return {"step": step, "stations": stations, "rows": rows, "removed": removed}


def count_station_rows(cube: xr.Dataset, target: str) -> JsonObject:
    """Count the rows of a station cube and those that reading removed (`steps`), from the diagnostics of the sources."""

    def total(name: str) -> int:
        return int(np.nansum(cube[name].values))

    n, steps = cube.sizes["station"], []
    if "hours_read" in cube:
        read, flagged = total("hours_read"), total("hours_flagged")
        steps.append(_row("hours read", n, read, 0))
        steps.append(_row("hours without a value or with a rejected quality flag", n, read - flagged, flagged))
        days = total("days_incomplete")
        steps.append(
            _row(
                "days (from here on rows are days) with too few valid hours", n, int(cube[target].notnull().sum()), days
            )
        )
    if "files_unreadable" in cube and total("files_unreadable"):
        steps.append(_row("files broken after their header", None, None, total("files_unreadable")))
    if "rows_read" in cube:
        read, other = total("rows_read"), total("rows_other_depth")
        steps.append(_row("table rows read", n, read, 0))
        steps.append(_row("rows of another depth", n, read - other, other))
        without, same = total("rows_without_target"), total("rows_same_day")
        steps.append(_row("rows without a possible value of the target", n, read - other - without, without))
        steps.append(_row("rows averaged into one with others of their day", n, read - other - without - same, same))
    return {"steps": steps, "stations": n, "rows": int(cube[target].notnull().sum())}


def count_used(cube: xr.Dataset, split: Split, target: str) -> int:
    """Count the rows of all parts of a split."""
    return sum(int(part_rows(cube[[target]], split, part, target)[target].notnull().sum()) for part in split.periods)


def count_in_buffer(cube: xr.Dataset, split: Split, target: str) -> int:
    """Count the rows of the stations in the buffer of a split, which are in no part."""
    near = cube[target].isel(station=station_positions(cube, split.in_buffer))
    return int(observed(near).sum()) if split.in_buffer else 0


def broken_stations(cube: xr.Dataset) -> dict[str, str]:
    """Return the stations with files that could not be read to their end, and the number of these files."""
    if "files_unreadable" not in cube:
        return {}
    counts = cube["files_unreadable"].values
    return {
        str(s): f"{n} file(s) broken after the header" for s, n in zip(cube["station"].values, counts, strict=True) if n
    }


def describe_outliers(
    spec: OutlierSpec | None, lost: OutlierRows, chosen: Mapping[str, object] | None = None
) -> JsonObject:
    """Return `outliers` of the results, or nothing without `spec`; `chosen` is the choice of the threshold."""
    if spec is None:
        return {}
    choice = {} if chosen is None else {"thresholds": chosen["thresholds"]}
    about = {"z": spec.z, "per_station": spec.per_station, "rows": lost.rows, "by_variable": lost.by_variable}
    return {"outliers": {**about, **choice}}


def count_rows(
    counts: JsonObject,
    kept: int,
    outlier_rows: int,
    models: Mapping[str, JsonObject],
    used: int | None = None,
    buffered: tuple[int, int] = (0, 0),
) -> list[JsonObject]:
    """Return `rows` of the results: rows (station-days with a target) left and removed by each step.

    Parameters
    ----------
    counts : dict
        From `count_station_rows`.
    kept : int
        Stations with any row.
    outlier_rows : int
        Rows dropped as outliers, of training stations, or of all stations without models.
    models : mapping
        Model -> its `scores` and `training`.
    used : int, optional
        Rows on the days of the parts of a split in time, at stations with a target on training days.
    buffered : (int, int)
        Stations in the buffer around held-out stations, and their rows.
    """
    start = counts["rows"]
    rows = [*counts["steps"], _row("station cube: days with a target", counts["stations"], start, 0)]
    if used is None:
        rows.append(_row("stations without any target left out", kept + buffered[0], start, 0))
        if buffered[0]:
            start -= buffered[1]
            rows.append(_row("stations in the buffer around held-out stations", kept, start, buffered[1]))
    else:
        rows.append(
            _row("days in no period, and stations without a target in the training days", kept, used, start - used)
        )
        start = used
    after = start - outlier_rows
    rows += [
        _row(f"outliers of {'training' if models else 'all'} stations (z-score)", kept, after, outlier_rows),
    ]
    for name, model in models.items():
        own, left = model["training"]["outlier_rows"], start - model["training"]["outlier_rows"]
        if own != outlier_rows:
            rows.append(
                _row(f"{name}: outliers of training stations, with this model's own preparation", None, left, own)
            )
        n = sum(s["n"] for p, s in model["scores"].items() if p != "train") + model["training"]["rows"]
        step = f"{name}: windows of {model['training']['window_days']} day(s) with enough values"
        rows.append(_row(step, None, n, left - n))
    return rows


def find_versions() -> dict[str, str]:
    """Return versions of Python and of the libraries that do the work, among them only the backend that Keras uses."""
    return {"python": platform.python_version(), **versions_of([*_PACKAGES, keras_backend()])}


def describe_provenance(
    recipe: str, seed: int, inputs: Mapping[str, str], stages: Mapping[str, JsonObject]
) -> JsonObject:
    """Return `provenance.json`: versions, seed, hash of every input; key, seconds and peak memory of every stage."""
    return {
        "recipe": recipe,
        "seed": seed,
        "versions": find_versions(),
        "platform": platform.platform(),
        "inputs": dict(inputs),
        "stages": {n: {k: v for k, v in d.items() if k != "skipped"} for n, d in stages.items()},
    }
