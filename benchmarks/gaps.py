"""Gap filling: against pandas' `interpolate` series by series, and xarray's `interpolate_na`.

Run: python benchmarks/gaps.py [STATIONS] [DAYS] [FEATURES]
The array of `study_array.py`, as variables in memory and as Dask variables (chunks of 64 stations, whole series; from graph to
result on the threaded scheduler). L is 3 days for every variable, then half the revisit measured for each series; pandas
and xarray are given the latter, which smgeo has to find in its own time. Results are compared with pandas'. xarray differs: its
`limit` counts days forward from the last observation alone, it holds nothing before the first and after the last one, and it takes
one limit for all, so it stands beside the first case only. Everything is compiled before; each way runs three times, in turn; the best counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import dask
import numba
import numpy as np
import pandas as pd
import xarray as xr
from study_array import as_cube, study_array

from smgeo.prepare import fill_gaps, measure_revisit

RUNS = 3
LIMIT = 3


def by_pandas(cube: xr.Dataset, limits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    out = {}
    for name, each in limits.items():
        rows = [
            pd.Series(x).interpolate(method="linear", limit=int(days), limit_direction="both") if days else x
            for x, days in zip(cube[name].values, each, strict=True)
        ]
        out[name] = np.array(rows)
    return out


def by_xarray(cube: xr.Dataset, names: list[str]) -> xr.Dataset:
    return cube[names].interpolate_na("time", method="linear", limit=LIMIT, use_coordinate=False)


def time_all(ways: dict[str, Callable[[], object]]) -> tuple[dict[str, float], dict[str, object]]:
    """Best seconds and result of each way, run in turn."""
    best, results = dict.fromkeys(ways, np.inf), {}
    for _ in range(RUNS):
        for way, work in ways.items():
            start = time.perf_counter()
            results[way] = work()
            best[way] = min(best[way], time.perf_counter() - start)
    return best, results


def is_equal(ours: xr.Dataset, peers: dict[str, np.ndarray]) -> bool:
    return all(np.allclose(ours[n].values, v, rtol=1e-5, atol=0, equal_nan=True) for n, v in peers.items())


def main() -> None:
    given = [int(a) for a in sys.argv[1:]]
    stations, days, features = given + [317, 1684, 27][len(given) :]
    cube = as_cube(study_array(stations, days, features))
    lazy = cube.chunk(station=64, time=-1)
    names = [str(n) for n in cube.data_vars if n != "sm"]
    versions = {m.__name__: m.__version__ for m in (pd, xr, numba, np, dask)}
    print(
        f"{stations} stations x {days} days x {features} variables, float32, {np.isnan(cube[names[0]]).mean():.0%} missing"
    )
    print(f"{dask.system.CPU_COUNT} cores; {', '.join(f'{n} {v}' for n, v in versions.items())}")
    measured = {n: measure_revisit(cube[n]).values // 2 for n in names}
    cases = {
        f"L = {LIMIT} days": (dict.fromkeys(names, np.full(stations, LIMIT)), {"limit": LIMIT}),
        "L = half the measured revisit": (measured, {"limit": "half-revisit", "revisit": "measured"}),
    }
    for title, (limits, options) in cases.items():
        ways: dict[str, Callable[[], object]] = {
            "pandas": lambda limits=limits: by_pandas(cube, limits),
            "smgeo, in memory": lambda options=options: fill_gaps(cube, **options),
            "smgeo, Dask": lambda options=options: fill_gaps(lazy, **options).compute(scheduler="threads"),
        }
        if "revisit" not in options:
            ways["xarray interpolate_na"] = lambda: by_xarray(cube, names)
        ways["smgeo, in memory"](), ways["smgeo, Dask"]()
        best, results = time_all(ways)
        print(title)
        for way, seconds in best.items():
            note = ""
            if way.startswith("smgeo"):
                note = f"  {best['pandas'] / seconds:6.1f} times as fast as pandas"
                note += "" if is_equal(results[way], results["pandas"]) else "  NOT EQUAL"
            print(f"  {way:22s} {seconds:7.3f} s{note}", flush=True)


if __name__ == "__main__":
    main()
