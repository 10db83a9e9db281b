"""Checks of a finished map: against stations, in time, and along the borders of its blocks."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import rasterio
import rioxarray  # noqa: F401  registers `.rio` and the engine "rasterio"
import xarray as xr

from smgeo.assemble.extraction import extract
from smgeo.cube.ledger import is_store
from smgeo.cube.reading import open_cube
from smgeo.cube.schema import check_known_units, select_stations, text_of, units_of
from smgeo.errors import SmgeoError
from smgeo.evaluation.clusters import clusters_of
from smgeo.evaluation.scores import compute_scores, finite_or_none, score_intervals, score_stations
from smgeo.files import JsonObject
from smgeo.maps.block import APPLICABLE
from smgeo.maps.cog import find_cogs
from smgeo.maps.layout import IDENTITY, MAP_CHUNK
from smgeo.prepare.places import find_unseen

# Least number of days for an autocorrelation, and of months for scores of monthly means.
_LEAST_DAYS = 30
_LEAST_MONTHS = 6


def open_map(path: str | Path) -> xr.Dataset:
    """Open a map that `predict_map` wrote as a lazy Dataset (time, y, x) with its CRS.

    Parameters
    ----------
    path : str or Path
        A Zarr store, or a folder of COGs.

    Raises
    ------
    SmgeoError
        If there is no map at `path`, or files of it are missing.
    """
    path = Path(path)
    if is_store(path):
        return open_cube(path)
    found = find_cogs(path)
    if not found:
        inside = [
            p.name for p in sorted(path.glob("*")) if p.is_dir() and (p.suffix == ".zarr" or any(p.glob("*.tif")))
        ]
        more = f" (its folders {', '.join(inside[:5])} may)" if inside else ""
        raise SmgeoError(
            f"{path} contains no map{more}; give a Zarr store or a folder of GeoTIFFs that predict_map wrote"
        )
    if lost := [
        p.stem for p in sorted(path.glob("*.json")) if p.stem != "collection" and not p.with_suffix(".tif").exists()
    ]:
        raise SmgeoError(
            f"{path} lacks {len(lost)} of its maps ({', '.join(f'{name}.tif' for name in lost[:3])}), which have STAC items; make the map "
            "again, or remove their .json files too"
        )
    makers = {tags.get(IDENTITY) for _, tags in found.values()}
    if len(makers) > 1:
        raise SmgeoError(
            f"{path} contains days of {len(makers)} maps (other models, places or levels); keep one map in a folder"
        )
    return _open_cogs({day: file for day, (file, _) in found.items()})


def _open_cogs(files: dict[str, Path]) -> xr.Dataset:
    """Open GeoTIFFs of one grid, by day.

    rioxarray opens the first, whose grid and CRS are those of all; it takes six times as long as rasterio to open a file, so rasterio checks
    and reads the others, and the tags of bands, which rioxarray merges with their names.
    """
    first = next(iter(files.values()))
    with xr.open_dataset(first, engine="rasterio") as image:
        place, grid = image.coords, (image.rio.shape, image.rio.transform())
    with rasterio.open(first) as src:
        names, tags = src.descriptions, src.tags()
        attrs = {
            n: {**src.tags(i), "units": src.units[i - 1] or "", "grid_mapping": "spatial_ref"}
            for i, n in enumerate(names, 1)
        }
    for file in files.values():
        with rasterio.open(file) as src:
            if ((src.shape, src.transform), src.descriptions) != (grid, names):
                raise SmgeoError(f"{file} has another grid or other bands than {first.name}; keep one map in a folder")
    paths = list(map(str, files.values()))
    chunks = ((1,) * len(files), *((n,) for n in grid[0]))
    data = {
        n: (
            ("time", "y", "x"),
            da.map_blocks(
                partial(_read_day, paths, i), chunks=chunks, dtype="float32", meta=np.empty((0, 0, 0), "float32")
            ),
            attrs[n],
        )
        for i, n in enumerate(names, 1)
    }
    about = {
        f"smgeo_{k}": v
        for k, v in tags.items()
        if k
        in (
            "model",
            IDENTITY,
            "training_stations",
            "training_places",
            "validation_stations",
            "validation_places",
            "versions",
        )
    }
    coords = {"time": pd.DatetimeIndex([*files]), **{n: place[n] for n in ("y", "x", "spatial_ref")}}
    return xr.Dataset(data, coords, about)


def _read_day(paths: list[str], band: int, block_info: dict[None, JsonObject]) -> np.ndarray:
    """Read a band of the file of a block: (1, y, x).

    Raises
    ------
    SmgeoError
        If the file is damaged.
    """
    path = paths[block_info[None]["chunk-location"][0]]
    try:
        with rasterio.open(path) as src:
            return np.asarray(src.read([band]))
    except rasterio.errors.RasterioIOError as error:
        raise SmgeoError(f"{path} is damaged ({error}); remove it, and make the map again") from None


def evaluate_map(path: str | Path, stations: xr.Dataset | str | Path, *, target: str = "sm") -> JsonObject:
    """Score a map at stations that its model never saw, and check its course in time and the borders of its blocks.

    Parameters
    ----------
    path : str or Path
        As for `open_map`.
    stations : xarray.Dataset, str or Path
        Station cube with the target, as opened. Stations outside the map are left out, and those that the map lists as used in its
        model's training or validation (which stopped it, or calibrated its intervals).
    target : str
        Variable of both.

    Returns
    -------
    dict
        `scores` (as in `results.json`, at the pixels of stations), `intervals` and `over_stations` (95 %, over clusters of stations), `left_out`
        (number of stations by reason), `coverage` if the map has intervals, `applicability` if it has the flag: rows and RMSE
        inside and outside; `time`: medians over stations of the autocorrelation of one day (map, stations), and of RMSE and r of monthly
        means; `seams`: see `measure_seams`.

    Raises
    ------
    SmgeoError
        If there is no map, it lacks the target or has it in another unit, or no station is left.
    """
    stations = open_cube(stations) if isinstance(stations, str | Path) else stations
    made = open_map(path)
    for where, ds in ((f"{path}", made), ("the station cube", stations)):
        if target not in ds:
            raise SmgeoError(f"{where} lacks {target!r}; it contains {', '.join(map(str, ds.data_vars))}")
    check_known_units(units_of(made, [target]), units_of(stations, [target]), "the map")
    trained, validated = (
        json.loads(made.attrs.get(f"smgeo_{kind}_stations", "[]")) for kind in ("training", "validation")
    )
    ids = text_of(stations["station"])
    places = [p for k in ("training", "validation") for p in json.loads(made.attrs.get(f"smgeo_{k}_places", "[]"))]
    away, beside = find_unseen(stations, [*trained, *validated], places)
    unseen = stations.isel(station=np.flatnonzero(away))
    left_out = {
        "trained on": int(np.isin(ids, trained).sum()),
        "validated on": int(np.isin(ids, validated).sum()),
        "at a place of these": int(beside.sum()),
    }
    if not unseen.sizes["station"]:
        raise SmgeoError(
            f"the map's model saw all {len(ids)} stations in training or validation; give a cube with others"
        )
    at = extract(made, unseen).compute()
    left_out["outside the map"] = unseen.sizes["station"] - at.sizes["station"]
    days = pd.DatetimeIndex(made.indexes["time"]).intersection(pd.DatetimeIndex(stations.indexes["time"]))
    observed = unseen[target].sel(station=at["station"], time=days).transpose("station", "time").values
    known = {n: at[n].sel(time=days).transpose("station", "time").values for n in at.data_vars if "time" in at[n].dims}
    predicted = known[target]
    seen = np.isfinite(observed) & np.isfinite(predicted)
    if not seen.any():
        raise SmgeoError("no station that the model never saw has a value on a day and a place of the map")
    station = text_of(at["station"])[np.nonzero(seen)[0]]
    rows = observed[seen], predicted[seen], station
    clusters = clusters_of(select_stations(unseen, dict.fromkeys(station.tolist())))
    out: JsonObject = {
        "scores": compute_scores(*rows),
        "intervals": score_intervals(*rows, clusters),
        "over_stations": score_stations(*rows, clusters),
        "left_out": left_out,
        "days": len(days),
        "time": _describe_time(np.where(seen, observed, np.nan), np.where(seen, predicted, np.nan), days),
        "seams": measure_seams(made[target]),
    }
    if f"{target}_lower" in known:
        lower, upper = known[f"{target}_lower"][seen], known[f"{target}_upper"][seen]
        covered = (rows[0] >= lower) & (rows[0] <= upper)
        each = pd.Series(covered).groupby(station).mean()
        level = made[f"{target}_lower"].attrs.get("coverage")
        out["coverage"] = {
            "level": None if level is None else float(level),
            "covered": float(covered.mean()),
            "covered_stations": float(each.mean()),
            "width": float((upper - lower).mean()),
        }
    if APPLICABLE in known:
        errors, inside = (rows[1] - rows[0]).astype("float64"), known[APPLICABLE][seen] == 1
        out["applicability"] = {
            name: {"rows": int(part.sum()), "rmse": finite_or_none(_rms(errors[part]))}
            for name, part in (("inside", inside), ("outside", ~inside))
        }
    return out


def _rms(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2))) if errors.size else float("nan")


def _describe_time(observed: np.ndarray, predicted: np.ndarray, days: pd.DatetimeIndex) -> JsonObject:
    """Return medians over stations, for arrays (station, day) that are missing in the same places."""
    apart = np.diff(days) == np.timedelta64(1, "D")
    lag = {}
    for name, series in (("map", predicted), ("stations", observed)):
        lag[name] = _median([_correlation(s[:-1][apart], s[1:][apart]) for s in series])
    months = days.to_period("M")
    errors, agreement = [], []
    for o, p in zip(observed, predicted, strict=True):
        means = pd.DataFrame({"o": o, "p": p}).groupby(months).mean().dropna()
        if len(means) >= _LEAST_MONTHS:
            errors.append(_rms((means["p"] - means["o"]).to_numpy()))
            agreement.append(float(means["o"].corr(means["p"])))
    return {
        "autocorrelation_1d": lag,
        "monthly_rmse_median": _median(errors),
        "monthly_r_median": _median(agreement),
        "stations_with_months": len(errors),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < _LEAST_DAYS or not (np.ptp(a[both]) and np.ptp(b[both])):
        return float("nan")
    return float(np.corrcoef(a[both], b[both])[0, 1])


def _median(values: list[float]) -> float | None:
    known = [v for v in values if np.isfinite(v)]
    return float(np.median(known)) if known else None


def measure_seams(estimate: xr.DataArray, block: int = MAP_CHUNK["y"]) -> JsonObject:
    """Compare the differences of neighbouring pixels across the borders of blocks with those elsewhere.

    Parameters
    ----------
    estimate : xarray.DataArray
        (time, y, x); read a day at a time.
    block : int
        Pixels of a block along a side.

    Returns
    -------
    dict
        `ratio`: mean absolute step across borders, divided by that across the lines of pixels next to them; about 1 without seams,
        None if the map has no border. `steps`: number of steps across borders.
    """
    sums, counts = np.zeros(2), np.zeros(2, dtype=np.int64)
    for day in estimate.transpose("time", "y", "x"):
        values = day.values
        for axis in (0, 1):
            steps = np.abs(np.diff(values, axis=axis))
            borders = np.arange(block, values.shape[axis], block) - 1
            beside = np.setdiff1d(np.unique(np.concatenate([borders - 1, borders + 1])), borders)
            beside = beside[(beside >= 0) & (beside < steps.shape[axis])]
            for i, lines in enumerate((borders, beside)):
                found = np.take(steps, lines, axis=axis)
                sums[i] += np.nansum(found, dtype="float64")
                counts[i] += np.isfinite(found).sum()
    means = sums / np.maximum(counts, 1)
    ratio = float(means[0] / means[1]) if counts.all() and means[1] > 0 else None
    return {"ratio": ratio, "steps": int(counts[0])}
