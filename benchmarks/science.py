"""Scores at real stations and fields that were left out, beside plain scikit-learn on the same folds in the same run.

Run: python benchmarks/science.py DATA [NAME ...]     (`make benchmarks-science DATA=...`; all by default; the names are the keys of STUDIES)

For each recipe in `recipes/`, the station cube is built, and its stations (or fields) are divided into ten folds by place or group. On these
folds two plain tools and smgeo's models are trained, each once, with one seed:

  plain forest     scikit-learn: 100 trees, leaves of 5 rows, a third of the features at a split, 60,000 rows a tree
  plain boosting   scikit-learn's histogram boosting, 300 iterations
  smgeo NAME       the trees of the recipe, and for data with series an LSTM along them
  smgeo ensemble   the mean of extra_trees, boosting and, where there is one, the LSTM

Plain tools get the features of the cube as they are, missing values included (zero for the forest), on every row with a target; smgeo's models
need rows whose windows have enough values. All are scored on the held-out rows that all of them estimated, of all folds: pooled RMSE, mean over
stations with its 95 % interval over clusters, medians over stations of RMSE, ubRMSE and r; and against the plain forest: how much less the pooled
RMSE is, its interval, and p of the paired test over clusters, adjusted for the tools of the table (Holm).

`scan` and `uscrn` are one network each, so they are also scored in blocks of 500 km, and `scan` at places and in periods that are both held out
(each place in one of ten periods of five months; without the LSTM). `scan` is scored again on the days with radar, with and without radar and
Landsat: what they add. `transfer` trains on SCAN and tests on USCRN, with what both have.

`scan intervals` and `uscrn intervals`: coverage at the test stations of intervals of 90 %, learned from five folds of the training stations and at
the validation stations, of all places and of the 30 that are nearest in feature space; and the RMSE inside the area of applicability, beside the one
that is expected there. Means over random splits of the stations, with the standard deviation of the coverage over splits.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import smgeo
from smgeo.cube.schema import observed, select_stations, text_of
from smgeo.evaluation.clusters import clusters_of
from smgeo.evaluation.cross_validation import Learner, fit_fold
from smgeo.evaluation.held_out import estimate_held_out
from smgeo.evaluation.parts import predict_stations
from smgeo.evaluation.scores import adjust_holm, compare_pair, compute_scores, score_stations
from smgeo.evaluation.uncertainty import cross_calibrate, find_applicability, interval_coverage, score_applicability
from smgeo.models.protocol import Model
from smgeo.prepare import Folds, cv_folds, group_stations, repeat_steps, split_stations, training_windows
from smgeo.prepare.quick_forest import fit_repeatably, table_of
from smgeo.recipe import PrepareSpec
from smgeo.recipe.study import read_recipe

STUDIES = (
    "scan",
    "scan radar",
    "scan blocks",
    "scan places and periods",
    "uscrn",
    "uscrn blocks",
    "poland",
    "ismn",
    "transfer",
    "scan intervals",
    "uscrn intervals",
)
FOREST = "plain forest"
# Methods that hold out places, with their options.
FOLDS_OF: dict[str, tuple[str, dict[str, float], str]] = {
    "blocks": ("spatial-blocks", {"block_km": 500.0}, "folds of blocks of 500 km"),
    "places and periods": (
        "leave-location-and-time-out",
        {},
        "each place scored in one period, of which no day was trained on",
    ),
}
PLACES: tuple[str, dict[str, float], str] = ("group-k-fold", {}, "")
TREES = ("rf", "extra_trees", "boosting")
# Splits by which intervals of each model are judged.
SPLITS = {"extra_trees": 10, "boosting": 10, "lstm": 3}
NEAREST = 30
FOLDS, SEED = 10, 0
RADAR = ("s1_vv", "l8_b4", "l8_b5", "l8_b6", "l8_b7")
# What `scan` and `uscrn` both have, in the same units.
SHARED = ["precipitation", "precipitation_3d", "precipitation_7d", "precipitation_30d", "air_temperature", "temperature_max",
          "temperature_min", "humidity", "lat", "lon", "doy_sin", "doy_cos"]  # fmt: skip
LSTM = {"mode": "sequence"}
# Published, with another protocol or other data; the numbers lie side by side, and do not compare.
PUBLISHED = {
    "scan": "Huang et al. 2020 (Front. Water 2, 578367), Sentinel-1, SMAP, soil, terrain, quantile forest: RMSE .07, between networks .08-.10",
    "uscrn": "Han et al. 2023 (Geosci. Model Dev. 16, 5825), the best model on each test set: RMSE .0786 on unseen stations, .0379 on random rows",
    "poland": "none by field",
    "ismn": "Batchu et al. 2023 (J. Hydrometeorol. D-22-0118): ubRMSE of each sensor .055 (the column ubRMSE)",
}

Fit = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def plain_forest(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        100, min_samples_leaf=5, max_features=1 / 3, max_samples=min(len(y), 60_000), n_jobs=-1, random_state=SEED
    )
    fitted = fit_repeatably(forest, np.nan_to_num(x), y)
    return lambda rows: fitted.predict(np.nan_to_num(rows))


def plain_boosting(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    fitted = HistGradientBoostingRegressor(max_iter=300, random_state=SEED).fit(x, y)
    return lambda rows: np.asarray(fitted.predict(rows))


PLAIN: dict[str, Fit] = {FOREST: plain_forest, "plain boosting": plain_boosting}


def held_out(ds: xr.Dataset, features: Sequence[str], fit: Fit, folds: Folds) -> np.ndarray:
    """Return the estimates (station, time) of a plain tool at the held-out rows of all folds; NaN where no target was observed."""
    x, y, _ = table_of(ds, features, "sm")
    rows = observed(ds["sm"]).transpose("station", "time").values
    estimates = np.full(len(y), np.nan)
    for train, held in folds:
        estimates[held[rows]] = fit(x[train[rows]], y[train[rows]])(x[held[rows]])
    return laid_out(estimates, rows)


def laid_out(estimates: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return estimates of the rows of a mask (station, time) in its shape, NaN elsewhere."""
    out = np.full(rows.shape, np.nan)
    out[rows] = estimates
    return out


def held_out_by_smgeo(
    ds: xr.Dataset, features: Sequence[str], learner: Learner, prepare: PrepareSpec, folds: Folds
) -> np.ndarray:
    """Return the same of a model of smgeo, prepared anew in each fold; NaN also where its window has too few values."""
    estimates = np.full((ds.sizes["station"], ds.sizes["time"]), np.nan)
    for k in range(len(folds)):
        estimate_into(estimates, ds, *fit_fold(learner, ds, folds, k, prepare, features, "sm"))
    return estimates


def estimate_into(estimates: np.ndarray, ds: xr.Dataset, model: Model, prepared: xr.Dataset) -> None:
    """Write the estimates of a model for some rows of `ds`, prepared as its training data were, into an array (station, time)."""
    _, found, windows = predict_stations(model, prepared)
    at, when = windows.targets
    station, day = pd.Index(text_of(ds["station"])), pd.Index(ds["time"].values)
    estimates[station.get_indexer(text_of(prepared["station"])[at]), day.get_indexer(prepared["time"].values[when])] = (
        found
    )


def learners_of(recipe: smgeo.recipe.Recipe, series: bool) -> dict[str, tuple[Learner, PrepareSpec]]:
    """Return trees, as the recipe has them or with their defaults, and for data with series an LSTM; and how their data are prepared."""
    made = {}
    for name in TREES:
        params = recipe.models[name].params if name in recipe.models else {}
        prepare = recipe.prepare_of(name) if name in recipe.models else recipe.prepare
        made[name] = (Learner.of(partial(smgeo.make_model, name, **{"seed": SEED, **params}), 1), prepare)
    if series:
        lstm = partial(smgeo.make_model, "lstm", seed=SEED, **LSTM)
        made["lstm"] = (Learner.of(lstm, recipe.prepare.window.length), recipe.prepare)
    return made


def report(estimates: dict[str, np.ndarray], seconds: dict[str, float], ds: xr.Dataset) -> None:
    """Print the scores of all tools on the rows that all of them estimated, and each against the plain forest."""
    truth, ids = ds["sm"].transpose("station", "time").values, text_of(ds["station"])
    common = np.isfinite([truth, *estimates.values()]).all(axis=0)
    station = ids[np.nonzero(common)[0]]
    clusters = clusters_of(select_stations(ds, dict.fromkeys(station.tolist())))
    print(
        f"  {int(common.sum()):,} rows at {len(set(station))} stations that all estimated; intervals over {clusters.by}"
    )
    print(f"  {'':<20}{'pooled':>8}{'mean RMSE of stations':>27}{'median':>9}{'ubRMSE':>9}{'r':>8}"
          f"{'less than forest':>27}{'p':>8}{'own rows':>10}{'s':>7}")  # fmt: skip
    tested = [name for name in estimates if name != FOREST]
    pairs = [
        compare_pair(truth[common], estimates[FOREST][common], estimates[n][common], station, clusters) for n in tested
    ]
    adjusted = dict(zip(tested, adjust_holm([pair["p_value"] for pair in pairs]), strict=True))
    against = dict(zip(tested, pairs, strict=True))
    for name, values in estimates.items():
        rows = truth[common], values[common], station
        each = score_stations(*rows, clusters)
        low, high = (np.nan if v is None else v for v in each["rmse"]["mean_interval"])
        ubrmse, r = (np.nan if each[n]["median"] is None else each[n]["median"] for n in ("ubrmse", "r"))
        better = f"{'':27}{'':8}"
        if name in against:
            ends = (np.nan if v is None else v for v in against[name]["interval"])
            better = (
                f"{against[name]['difference']:9.4f} ({next(ends):.4f}, {next(ends):.4f})".rjust(27)
                + f"{adjusted[name]:8.3f}"
            )
        print(
            f"  {name:<20}{compute_scores(*rows)['rmse']:8.4f}{each['rmse']['mean']:9.4f} ({low:.4f}-{high:.4f}){each['rmse']['median']:9.4f}"
            f"{ubrmse:9.4f}{r:8.3f}{better}{int(np.isfinite(values).sum()):10,}{seconds[name]:7.0f}",
            flush=True,
        )


class Tools:
    """Estimates of each tool (station, time), and the seconds that they took."""

    def __init__(self) -> None:
        self.estimates: dict[str, np.ndarray] = {}
        self.seconds: dict[str, float] = {}

    def add(self, name: str, make: Callable[[], np.ndarray]) -> None:
        begin = time.monotonic()
        self.estimates[name] = make()
        self.seconds[name] = time.monotonic() - begin

    def add_ensemble(self) -> None:
        """Add the mean of smgeo's models but the forest, as the docs recommend it."""
        members = [n for n in self.estimates if n in ("smgeo extra_trees", "smgeo boosting", "smgeo lstm")]
        self.estimates["smgeo ensemble"] = np.mean([self.estimates[n] for n in members], axis=0)
        self.seconds["smgeo ensemble"] = sum(self.seconds[n] for n in members)


def compare(
    title: str,
    ds: xr.Dataset,
    features: Sequence[str],
    recipe: smgeo.recipe.Recipe,
    note: str,
    series: bool,
    method: tuple[str, dict[str, float], str] = PLACES,
) -> None:
    """Print the table of one study."""
    print(f"\n{title}\n  {note}", flush=True)
    tools, folds = Tools(), cv_folds(ds, method[0], FOLDS, seed=SEED, **method[1])
    for name, fit in PLAIN.items():
        tools.add(name, partial(held_out, ds, features, fit, folds))
    for name, (learner, prepare) in learners_of(recipe, series).items():
        tools.add(f"smgeo {name}", partial(held_out_by_smgeo, ds, features, learner, prepare, folds))
    tools.add_ensemble()
    report(tools.estimates, tools.seconds, ds)


def transfer(scan: xr.Dataset, uscrn: xr.Dataset) -> None:
    """Train on all SCAN stations (an LSTM stops early on a tenth of them), test on all USCRN stations."""
    print("\ntransfer: trained on SCAN, tested on USCRN\n  weather, place and season only, which both have", flush=True)
    x, y, _ = table_of(scan, SHARED, "sm")
    x_test, _, _ = table_of(uscrn, SHARED, "sm")
    rows = observed(uscrn["sm"]).transpose("station", "time").values
    tools, recipe = Tools(), read_recipe("scan")
    for name, fit in PLAIN.items():
        tools.add(name, lambda fit=fit: laid_out(fit(x, y)(x_test), rows))
    split = split_stations(scan[[*SHARED, "sm"]], (0.9, 0.1, 0.0), False, SEED)

    def transferred(learner: Learner, prepare: PrepareSpec) -> np.ndarray:
        ids = (split.train, split.validation) if learner.needs_validation else (text_of(scan["station"]), None)
        train, validation = (None if some is None else select_stations(scan, some) for some in ids)
        _, windows, stops = training_windows(
            train, validation, prepare, SHARED, "sm", length=learner.length, mode=learner.mode
        )
        model = learner.make().fit(windows, validation=stops)
        estimates = np.full(rows.shape, np.nan)
        estimate_into(estimates, uscrn, model, repeat_steps(uscrn, windows.preparation["steps"]))
        return estimates

    for name, (learner, prepare) in learners_of(recipe, True).items():
        tools.add(f"smgeo {name}", partial(transferred, learner, prepare))
    tools.add_ensemble()
    report(tools.estimates, tools.seconds, uscrn)


def judge_intervals(title: str, ds: xr.Dataset, recipe: smgeo.recipe.Recipe) -> None:
    """Print coverage and width of intervals, and expected errors, of trees and of an LSTM."""
    print(f"\n{title}\n  coverage of 90 % intervals at test stations, mean over places; width in m3 m-3")
    print(
        f"  {'':<12}{'splits':>7}{'covered':>9}{'sd':>6}{'width':>8}{'nearest':>9}{'sd':>6}{'width':>8}{'inside':>8}{'RMSE':>8}{'expected':>9}"
    )
    for name, count in SPLITS.items():
        rows = [judge_split(ds, recipe, name, seed) for seed in range(count)]
        means, sd = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
        covered = f"{means[0]:9.1%}{100 * sd[0]:6.1f}{means[1]:8.3f}{means[2]:9.1%}{100 * sd[2]:6.1f}{means[3]:8.3f}"
        print(f"  {name:<12}{count:7}{covered}{means[4]:8.1%}{means[5]:8.4f}{means[6]:9.4f}", flush=True)


def judge_split(ds: xr.Dataset, recipe: smgeo.recipe.Recipe, name: str, seed: int) -> list[float]:
    """Return coverage and width of both kinds of intervals; share inside the area, RMSE there, and the one expected."""
    features, prepare = list(recipe.features), recipe.prepare
    kind, params = ("lstm", LSTM) if name == "lstm" else (recipe.models[name].kind, recipe.models[name].params)
    length = prepare.window.length if name == "lstm" else 1
    learner = Learner.of(lambda: smgeo.make_model(kind, **{"seed": SEED, **params}), length)
    split = split_stations(ds[[*features, "sm"]], prepare.split.fractions, False, seed)
    train, validation = (select_stations(ds, ids) for ids in (split.train, split.validation))
    _, windows, stops = training_windows(train, validation, prepare, features, "sm", length=length, mode=learner.mode)
    model = learner.make().fit(windows, validation=stops if learner.needs_validation else None)
    held = estimate_held_out(model, learner, ds, split, prepare, seed=seed)
    find_applicability(model, ds, split, seed=seed, held=held)
    found = []
    for nearest in (None, NEAREST):
        cross_calibrate(model, held, ds, split, nearest=nearest)
        table = interval_coverage(model, ds, split)
        found += [float(table.groupby("group")["covered"].mean().mean()), float(table["width"].mean())]
    area = score_applicability(model, ds, split)
    return [
        *found,
        *(float("nan") if area[k] is None else area[k] for k in ("share_inside", "rmse_inside", "rmse_expected")),
    ]


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    data, names = Path(sys.argv[1]), sys.argv[2:] or STUDIES
    cubes: dict[str, xr.Dataset] = {}
    with tempfile.TemporaryDirectory() as folder:

        def cube_of(name: str) -> xr.Dataset:
            if name not in cubes:
                run = smgeo.build_cubes(name, Path(folder) / name, data)
                ds = smgeo.open_cube(run / "stations.zarr")
                recipe = read_recipe(name)
                ds = group_stations(ds, recipe.groups.by, **recipe.groups.model_dump(exclude={"by"}))
                cubes[name] = ds.isel(station=np.flatnonzero(observed(ds["sm"]).any("time").values)).load()
            return cubes[name]

        for name in names:
            if name == "transfer":
                transfer(cube_of("scan"), cube_of("uscrn"))
            elif name.endswith(" intervals"):
                of = name.removesuffix(" intervals")
                judge_intervals(name, cube_of(of), read_recipe(of))
            elif name == "scan radar":
                ds, recipe = cube_of("scan"), read_recipe("scan")
                ds = ds.assign(sm=ds["sm"].where(observed(ds["s1_vv"])).assign_attrs(ds["sm"].attrs))
                ds = ds.isel(station=np.flatnonzero(observed(ds["sm"]).any("time").values))
                without = [f for f in recipe.features if f not in RADAR]
                for words, features in (("with radar and Landsat", recipe.features), ("without", without)):
                    compare(
                        f"scan, days with radar: {words}",
                        ds,
                        list(features),
                        recipe,
                        "rows on which radar looked",
                        series=False,
                    )
            elif name.partition(" ")[2] in FOLDS_OF:
                of, _, kind = name.partition(" ")
                recipe, method = read_recipe(of), FOLDS_OF[kind]
                compare(name, cube_of(of), list(recipe.features), recipe, method[2], False, method)
            else:
                recipe, ds = read_recipe(name), cube_of(name)
                compare(
                    name, ds, list(recipe.features), recipe, f"published: {PUBLISHED[name]}", series=name != "poland"
                )


if __name__ == "__main__":
    main()
