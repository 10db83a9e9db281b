"""Hostile values for every argument of the public calls: each is refused in a sentence, or is a value that means something."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import smgeo
from smgeo.errors import SmgeoError

HOSTILE = [
    0,
    -1,
    1e9,
    10**9,
    math.inf,
    -math.inf,
    math.nan,
    True,
    "",
    "a",
    "5",
    [],
    None,
    2**63,
    1.5,
    (),
    {},
    20200101,
    b"x",
]
# Hostile values that mean something, by argument.
MEANT = {
    "seed": {"0", "1000000000", "20200101"},
    "gap_days": {"0"},
    "limit": {"0", "1000000000.0", "1000000000", "20200101", "{}"},
    "causal": {"True"},
    "forward_only": {"True"},
    "z": {"1.5"},
    "block_km": {"1.5", "None"},
    "stations": {"None"},
    "extremes_to_train": {"True"},
    "importance": {"None"},
    "missing": {"0"},
    "fill": {"None"},
    "variables": {"None", "[]", "()"},
    "groups": {"None"},
    "folds": {"None"},
    "validation": {"None"},
    "size": {"1000000000", "20200101"},
    "shuffle": {"True"},
    "min_examples": {"1000000000", "20200101"},
    "threads": {"None", "0"},
    "ends": {"None", "[]", "()"},
    "target": {"None"},
    "period": {"None"},
    "names": {"[]", "()"},
}


@pytest.fixture(scope="module")
def calls(make_station_cube, tmp_path_factory):
    """Name -> (call, arguments)."""
    number = itertools.count()
    out, empty = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("empty")
    ds = make_station_cube(stations=12, days=90)
    names = [str(v) for v in ds.data_vars if ds[v].attrs["kind"] == "dynamic"][:2]
    split = smgeo.split_stations(ds, (0.5, 0.25, 0.25), extremes_to_train=False)
    train = ds.sel(station=list(split.train))
    model = smgeo.make_model("rf", trees=2, engine="sklearn").fit(smgeo.Windows(train, names, length=1))
    smgeo.calibrate(model, ds, split)
    quick = {"features": names, "model": LinearRegression()}
    days = {"train": ("2020-01-01", "2020-01-02"), "test": ("2020-02-01", "2020-02-02")}
    return {
        "cv_folds": (lambda **k: smgeo.cv_folds(ds, "group-k-fold", **k), ["folds", "seed", "gap_days"]),
        "blocks": (lambda **k: smgeo.cv_folds(ds, "spatial-blocks", 2, **k), ["block_km"]),
        "knndm": (
            lambda **k: smgeo.cv_folds(ds, "knndm", 2, **{"prediction": [[45.0, 9.0], [45.1, 9.1]], **k}),
            ["prediction", "space"],
        ),
        "temporal": (lambda **k: smgeo.cv_folds(ds, "temporal", 2, **{"gap_days": 2, **k}), ["forward_only"]),
        "fill_gaps": (lambda **k: smgeo.fill_gaps(ds, **k), ["limit", "causal", "revisit"]),
        "flag_outliers": (lambda **k: smgeo.flag_outliers(ds, **{"z": 3.0, **k}), ["z", "stations"]),
        "split_stations": (lambda **k: smgeo.split_stations(ds, **k), ["fractions", "seed"]),
        "split_periods": (lambda **k: smgeo.split_periods(ds, **{**days, **k}), ["train", "test"]),
        "windows": (
            lambda **k: smgeo.Windows(ds, **{"features": names, **k}),
            ["length", "missing", "buffer", "fill", "ends", "features", "target"],
        ),
        "batches": (
            lambda **k: next(smgeo.Windows(ds, names, length=1).batches(**{"size": 4, **k})),
            ["size", "seed", "shuffle"],
        ),
        "choose_z": (
            lambda **k: smgeo.choose_z(ds, split, **{**quick, "thresholds": (3.0,), **k}),
            ["thresholds", "seed", "features"],
        ),
        "audit_leakage": (
            lambda **k: smgeo.audit_leakage(ds, **{**quick, "folds": 2, "gap_days": 2, **k}),
            ["folds", "gap_days"],
        ),
        "importance": (
            lambda **k: smgeo.permutation_importance(model, ds, split, **{"repeats": 1, **k}),
            ["repeats", "seed", "groups", "part"],
        ),
        "coverage": (lambda **k: smgeo.interval_coverage(model, ds, split, **k), ["level", "part"]),
        "applicability": (
            lambda **k: smgeo.find_applicability(model, ds, split, dict.fromkeys(names, 1.0), **k),
            ["rows", "seed"],
        ),
        "derive": (lambda **k: smgeo.derive_features(ds, **k), ["names"]),
        "simulate": (
            lambda **k: smgeo.simulate(
                out / f"w{next(number)}", **{"stations": 12, "days": 30, "shape": (16, 16), **k}
            ),
            ["stations", "days", "shape", "seed", "start"],
        ),
        "rf": (
            lambda **k: smgeo.make_model("rf", engine="sklearn", **k),
            ["trees", "max_depth", "min_examples", "seed", "threads"],
        ),
        "stations": (lambda **k: smgeo.open_stations(empty, kind="ismn", **k), ["period", "depth_m"]),
        "write_cube": (
            lambda chunk: smgeo.write_cube(ds, out / "c.zarr", chunks={"station": chunk}),
            ["chunk"],
        ),
    }


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_a_hostile_value_is_refused_in_a_sentence(calls, value):
    wrong = []
    for name, (call, arguments) in calls.items():
        for argument in arguments:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    call(**{argument: value})
                except SmgeoError:
                    continue
                except Exception as error:
                    wrong.append(f"{name}({argument}={value!r}): {error!r}")
                    continue
            known = MEANT.get(argument, set()) | ({"1000000000", "20200101", "-1"} if argument == "chunk" else set())
            if repr(value) not in known:
                wrong.append(f"{name}({argument}={value!r}) is accepted")
    assert not wrong, "\n".join(wrong)


def test_numbers_of_numpy_are_numbers(calls):
    calls["cv_folds"][0](folds=np.int64(3), seed=np.uint32(1))
    calls["flag_outliers"][0](z=np.float32(3))
