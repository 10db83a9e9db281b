"""The array that the benchmarks of preparation share: as many stations, days and features as the study has.

Imported by the other files of this folder; run by itself it prints what it holds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy.signal import lfilter

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


def moisture_cube(stations: int = 317, days: int = 1684, seed: int = 0) -> xr.Dataset:
    """A complete, scaled station cube with something to learn: 27 features of mean 0 and spread 1, and a target that follows from them.

    Rain wets a store that dries at a rate of the station's own; soil moisture is a saturating function of the store and of what
    the soil holds. Ten features are noisy views of it, ten are weather, seven are of the place. Each station departs by a constant
    that no feature tells (spread 0.04), each day by noise (0.03): an unseen station cannot be estimated better than to 0.05.
    """
    rng = np.random.default_rng(seed)
    place = rng.standard_normal((stations, 7))
    rain = np.maximum(rng.standard_normal((stations, days)) - 1.0, 0.0) * 3
    kept = 0.90 + 0.08 / (1 + np.exp(-place[:, 0]))
    store = np.stack([lfilter([1.0], [1.0, -k], r) for k, r in zip(kept, rain, strict=True)])
    season = np.cos(2 * np.pi * (np.arange(days) / 365.25 + 0.1 * place[:, 1:2]))
    holds = 0.20 + 0.12 * np.tanh(place[:, 2:3] + 0.5 * place[:, 3:4] * place[:, 4:5])
    wet = np.tanh(0.12 * store + 0.35 * season + 0.3 * np.abs(place[:, 5:6]))
    moisture = np.clip(0.03 + holds * (1 + wet) / 1.2, 0.02, 0.6)
    known = moisture.std()
    moisture = moisture + 0.04 * rng.standard_normal((stations, 1)) + 0.03 * rng.standard_normal((stations, days))
    weather = [lfilter([1.0], [1.0, -m], rng.standard_normal((stations, days))) for m in np.linspace(0, 0.95, 8)]
    truth = (np.clip(0.03 + holds * (1 + wet) / 1.2, 0.02, 0.6) - moisture.mean()) / known
    views = [np.tanh((0.5 + 0.1 * i) * truth) + 0.7 * rng.standard_normal((stations, days)) for i in range(10)]
    of_place = [np.broadcast_to(place[:, i : i + 1], (stations, days)) for i in range(7)]
    array = np.stack([*views, rain, season, *weather, *of_place], axis=-1)
    array -= array.mean((0, 1))
    cube = as_cube((array / array.std((0, 1))).astype("float32"))
    return cube.assign(sm=cube["sm"].copy(data=np.clip(moisture, 0.0, 0.7).astype("float32")))


if __name__ == "__main__":
    values = study_array()
    print(f"{values.shape}, {values.nbytes / 2**20:.0f} MiB, {np.isnan(values).mean():.1%} missing")
    print(as_cube(values))
