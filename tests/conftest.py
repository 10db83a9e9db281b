"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from filelock import FileLock
from hypothesis import settings
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from smgeo.catalog import FEATURES

# `make soak` runs each property test many times. A test keeps its own number of examples, which bounds the time of one round.
settings.register_profile("soak", deadline=None, print_blob=True)


# Files that take minutes each: they come first, so that no process is left with one of them while the others have nothing to do.
_LONGEST = (
    "hpc/test_slurm.py",
    "tuning/test_tuning.py",
    "study/test_study.py",
    "recipes/test_real_data.py",
    "recipes/test_study.py",
    "models/test_checkpoint.py",
)


def pytest_collection_modifyitems(items):
    """Sort the longest files to the front."""
    items.sort(
        key=lambda item: next((i for i, f in enumerate(_LONGEST) if item.path.as_posix().endswith(f)), len(_LONGEST))
    )


def pytest_generate_tests(metafunc):
    """Repeat property tests `SOAK_ROUNDS` times; each round draws new random examples."""
    rounds = os.environ.get("SOAK_ROUNDS")
    if rounds and getattr(metafunc.function, "is_hypothesis_test", False):
        metafunc.fixturenames.append("soak_round")
        metafunc.parametrize("soak_round", range(int(rounds)))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data, $SMGEO_DATA: absent, a user's tests skip and CI fails."""
    given = os.environ.get("SMGEO_DATA")
    if given and Path(given).is_dir():
        return Path(given)
    reason = f"real data not found: SMGEO_DATA is {given!r}; set it to the folder that holds ismn/ and cookfarm/"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


_LEVEL = {"s1_vv": -12.0, "precipitation": 3.0, "temperature": 12.0, "clay": 25.0, "sm": 0.25}


def _fields(rng, series, places, gaps):
    """name -> (is dynamic, values, attributes) of a few variables, with gaps in the dynamic features."""
    out = {}
    for name, level in _LEVEL.items():
        dynamic = FEATURES[name].kind != "static"
        values = (level * (1 + 0.2 * rng.standard_normal(series if dynamic else places))).astype("float32")
        if dynamic and name != "sm":
            values[rng.random(series) < gaps] = np.nan
        out[name] = (dynamic, values, FEATURES[name].attrs())
    return out


@pytest.fixture(scope="session")
def make_station_cube():
    """(stations, days, seed, gaps) -> a station cube of s1_vv, precipitation, temperature, clay and sm."""

    def make(stations=6, days=30, seed=0, gaps=0.0):
        fields = _fields(np.random.default_rng(seed), (stations, days), (stations,), gaps)
        coords = {
            "station": np.array([f"N/s{i}" for i in range(stations)], dtype=object),
            "time": pd.date_range("2020-01-01", periods=days),
            "latitude": ("station", 45.0 + 0.01 * np.arange(stations)),
            "longitude": ("station", 9.0 + 0.01 * np.arange(stations)),
        }
        return xr.Dataset(
            {n: (("station", "time") if d else ("station",), v, a) for n, (d, v, a) in fields.items()}, coords
        )

    return make


@pytest.fixture(scope="session")
def make_grid_cube():
    """(days, height, width, seed, gaps) -> a grid cube of the same features, 100 m pixels in UTM 32 N."""

    def make(days=30, height=4, width=5, seed=0, gaps=0.0):
        fields = _fields(np.random.default_rng(seed), (days, height, width), (height, width), gaps)
        coords = {
            "time": pd.date_range("2020-01-01", periods=days),
            **xr_coords(
                GeoBox((height, width), Affine(100, 0, 500_000, 0, -100, 5_000_000), "EPSG:32632"), dims=("y", "x")
            ),
        }
        return xr.Dataset(
            {
                n: (("time", "y", "x") if d else ("y", "x"), v, {**a, "grid_mapping": "spatial_ref"})
                for n, (d, v, a) in fields.items()
                if n != "sm"
            },
            coords,
        )

    return make


@pytest.fixture(scope="session")
def station_table():
    """(seed) -> six stations over 60 days as a table, a tenth of the rows missing; stations differ by their mean, days by temperature."""

    def make(seed=0):
        random = np.random.default_rng(seed)
        stations, days = 6, 60
        temperature = np.sin(np.arange(days) / 5) + random.normal(0, 0.2, (stations, days))
        sm = 0.05 + 0.05 * np.arange(stations)[:, None] + 0.02 * temperature
        rows = {
            "id": np.repeat([f"s{i}" for i in range(stations)], days),
            "day": np.tile(pd.date_range("2020-01-01", periods=days), stations),
            "lat": 45 + np.repeat(np.arange(stations) % 2, days),
            "lon": 9.0,
            "sm": sm.ravel(),
            "t": temperature.ravel(),
        }
        return pd.DataFrame(rows)[random.random(stations * days) > 0.1]

    return make


@pytest.fixture(scope="session")
def table_study():
    """(folder, rows, changes of the recipe) -> the run of a study of such a table, split in time."""
    import smgeo

    columns = {"station": "id", "time": "day", "latitude": "lat", "longitude": "lon", "sm": "sm", "temperature": "t"}
    recipe = {
        "name": "intime",
        "stations": [{"kind": "csv", "path": "table.csv", "columns": columns}],
        "features": ["temperature", "lat", "doy_sin", "target_mean"],
        "prepare": {
            "fill": {"limit": 2},
            "outliers": {"z": 3},
            "scale": "standard",
            "window": {"length": 5, "missing": 0.5},
            "split": {"periods": {"train": ["2020-01-01", "2020-02-09"], "test": ["2020-02-10", "2020-02-29"]}},
        },
        "models": {"HistGradientBoostingRegressor": {"max_iter": 20}},
        "importance": True,
    }

    def study(folder, rows, **changes):
        folder.mkdir()
        rows.to_csv(folder / "table.csv", index=False)
        return smgeo.run({**recipe, **changes}, out=folder / "run", data=folder)

    return study


@pytest.fixture(scope="session")
def toy_recipe() -> dict:
    """The quickstart recipe at toy size; a fresh copy is the caller's duty."""
    import yaml

    values = yaml.safe_load((Path(__file__).parents[1] / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
    values["world"] = {"stations": 20, "days": 70, "shape": [24, 24], "seed": 0}
    values["prepare"]["window"] = {"length": 8, "missing": 0.5}
    values["prepare"]["split"]["extremes_to_train"] = False
    values["models"] = {
        "rf": {"trees": 5},
        "ann": {"units": 4, "epochs": 2},
        "gru": {"units": 4, "epochs": 1},
        "lstm": {"units": 4, "epochs": 1},
    }
    values["maps"] = {"dates": ["2016-02-10", "2016-03-01"]}
    del (
        values["intervals"],
        values["applicability"],
    )  # two validation stations are too few: tests/recipes/test_uncertainty.py
    return values


@pytest.fixture(scope="session")
def toy_run(toy_recipe, tmp_path_factory):
    """The quickstart study, run once at toy size by the first process that needs it; tests only read it."""
    import smgeo

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with FileLock(folder / "toy.lock"):
        return smgeo.run(toy_recipe, out=folder / "toy")
