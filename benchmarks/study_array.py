"""The array that the benchmarks of preparation share: as many stations, days and features as the study has.

Imported by the other files of this folder; run by itself it prints what it holds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.catalog import FEATURES, STUDY_FEATURES


def study_array(
    stations: int = 317, days: int = 1684, features: int = 27, missing: float = 0.7, seed: int = 0
) -> np.ndarray:
    """Random values (station, time, feature), float32, a share of `missing` of them NaN; the same for the same seed."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((stations, days, features), dtype="float32")
    values[rng.random(values.shape, dtype="float32") < missing] = np.nan
    return values


def as_cube(array: np.ndarray) -> xr.Dataset:
    """The array as a station cube: each feature a dynamic variable of its own, and a target `sm` without gaps."""
    stations, days, features = array.shape
    names = [*STUDY_FEATURES, *(f"feature_{i}" for i in range(len(STUDY_FEATURES), features))][:features]
    rng = np.random.default_rng(stations + days)
    moisture = 0.25 + 0.05 * np.tanh(rng.standard_normal((stations, days), dtype="float32"))
    cube = xr.Dataset(
        {"sm": (("station", "time"), moisture, FEATURES["sm"].attrs())},
        {
            "station": np.array([f"N/s{i}" for i in range(stations)], dtype=object),
            "time": pd.date_range("2016-01-01", periods=days),
            "latitude": ("station", rng.uniform(35, 60, stations)),
            "longitude": ("station", rng.uniform(-10, 30, stations)),
            "network": ("station", np.full(stations, "N", dtype=object)),
        },
    )
    for i, name in enumerate(names):
        units = FEATURES[name].units if name in FEATURES else "1"
        attrs = {"units": units, "long_name": name, "kind": "dynamic"}
        cube[name] = (("station", "time"), np.ascontiguousarray(array[:, :, i]), attrs)
    return cube


if __name__ == "__main__":
    values = study_array()
    print(f"{values.shape}, {values.nbytes / 2**20:.0f} MiB, {np.isnan(values).mean():.1%} missing")
    print(as_cube(values))
