"""Scaling: against scikit-learn, on the study's array.

Run: python benchmarks/scaling.py [STATIONS] [DAYS]
Fit and transform of 27 float32 variables, 70 % of their values missing, for each kind of scaler. smgeo gets the Dataset
of 27 variables (station, time), in memory, and then as Dask arrays in chunks of 256 stations over the same memory (its
transform is computed). scikit-learn gets the same values as one float32 array of 27 columns, as it wants them. Each runs
five times, in turn; the best counts. The scaled values are compared: scikit-learn's statistics of float32 are float32
where smgeo's are float64, so they agree to about 1e-6 of the largest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import dask
import numpy as np
import sklearn
import xarray as xr
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from study_array import as_cube, study_array

import smgeo

RUNS = 5
PEERS = {"minmax": MinMaxScaler, "robust": RobustScaler, "standard": StandardScaler}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def fit_and_transform(scaler: Any, data: Any) -> tuple[float, float, Any]:
    """Seconds of either, and what came of it; computed where it is lazy."""
    fitting, fitted = timed(lambda: scaler.fit(data))
    transforming, out = timed(lambda: dask.compute(fitted.transform(data))[0])
    return fitting, transforming, out


def as_table(values: Any) -> np.ndarray:
    """The columns of scikit-learn's array."""
    if isinstance(values, xr.Dataset):
        return np.stack([v.values.ravel() for v in values.data_vars.values()], axis=1)
    return values


def compare(ways: dict[str, tuple[Callable[[], Any], Any]]) -> None:
    """Run each in turn; the best seconds of each, and how many times as fast as the peer's they are."""
    best: dict[str, np.ndarray] = {}
    results = {}
    for _ in range(RUNS):
        for way, (make, data) in ways.items():
            *seconds, results[way] = fit_and_transform(make(), data)
            best[way] = np.minimum(best.get(way, np.inf), seconds)
    peer = list(ways)[-1]
    expected = as_table(results[peer])
    largest = np.nanmax(np.abs(expected))
    for way, seconds in best.items():
        fit, transform = best[peer] / seconds
        both = best[peer].sum() / seconds.sum()
        off = np.nanmax(np.abs(as_table(results[way]) - expected)) / largest
        same = np.array_equal(np.isnan(as_table(results[way])), np.isnan(expected)) and off < 1e-5
        print(
            f"  {way:15s} fit {seconds[0] * 1e3:6.1f} ms ({fit:4.1f} x)   transform {seconds[1] * 1e3:6.1f} ms "
            f"({transform:4.1f} x)   both {both:4.1f} x   off by {off:.0e}{'' if same else '  NOT EQUAL'}",
            flush=True,
        )


def main() -> None:
    given = [int(a) for a in sys.argv[1:]]
    stations, days = given + [317, 1684][len(given) :]
    values = study_array(stations, days)
    cube = as_cube(values).drop_vars("sm")
    lazy = cube.chunk(station=256)  # as `open_cube` gives
    table = values.reshape(-1, values.shape[-1])
    print(f"{stations} stations x {days} days x {table.shape[1]} features, {np.isnan(table).mean():.0%} missing, "
          f"{dask.system.CPU_COUNT} cores; scikit-learn {sklearn.__version__}, NumPy {np.__version__}, Dask {dask.__version__}")  # fmt: skip
    for kind, peer in PEERS.items():
        print(kind)
        compare({
            "smgeo": (lambda kind=kind: smgeo.Scaler(kind), cube),
            "smgeo on Dask": (lambda kind=kind: smgeo.Scaler(kind), lazy),
            "scikit-learn": (peer, table),
        })  # fmt: skip


if __name__ == "__main__":
    main()
