"""Windows of 30 days: rate against xbatcher, from memory and from Zarr; memory, growth, and how well batches are mixed.

Run: python benchmarks/windows.py          (pip install 'smgeo[bench]' brings xbatcher)
The array: 317 stations x 1,684 days x 27 features float32, complete. Rates are of shuffled batches of 4,096 windows, ready
as NumPy arrays with their targets, best of three; xbatcher is asked for x and y window by window, as its loader for Keras
does, and they are stacked; then the same in order. Memory is the peak of a process of its own above what it held before the windows were made
(the cube itself, one array a variable). For growth, and for Zarr, stations are 1, 4 and 16 times as many; a cube that is
read block by block is read anew in every epoch. Mixing: each station has a level of its own as target; the spread of the
batches' mean target, as a multiple of what a full shuffle gives, is 1 where batches are as well mixed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from study_array import as_cube, study_array

from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.prepare import Windows

SIZE, LENGTH, RUNS = 4096, 30, 3
STATIONS = 317


def features_of(cube: xr.Dataset) -> list[str]:
    return [str(n) for n in cube.data_vars if n != "sm"]


def rate(windows: Windows, shuffle: bool = True) -> float:
    """Windows a second over one epoch, the best of `RUNS`."""
    best = np.inf
    for seed in range(RUNS):
        start = time.perf_counter()
        for _ in windows.batches(SIZE, shuffle=shuffle, seed=seed):
            pass
        best = min(best, time.perf_counter() - start)
    return len(windows) / best


def xbatcher_rates(cube: xr.Dataset, array: np.ndarray) -> tuple[float, float, int]:
    """xbatcher's windows and targets a second, shuffled and in order, over some batches, and how many windows it finds."""
    import xbatcher

    values = xr.DataArray(array, dims=("station", "time", "feature"))
    x, y = (
        xbatcher.BatchGenerator(v, {"station": 1, "time": LENGTH}, {"time": LENGTH - 1}) for v in (values, cube["sm"])
    )
    count = 5 * SIZE
    order = np.random.default_rng(0).permutation(len(x))[:count]
    best = [np.inf, np.inf]
    for _ in range(RUNS):
        for way, rows in enumerate((order, np.arange(count))):
            start = time.perf_counter()
            for first in range(0, count, SIZE):
                batch = [int(i) for i in rows[first : first + SIZE]]
                np.concatenate([x[i].data for i in batch])
                np.array([y[i].data[0, -1] for i in batch])
            best[way] = min(best[way], time.perf_counter() - start)
    return count / best[0], count / best[1], len(x)


def status_mb(what: str) -> float:
    return int(Path("/proc/self/status").read_text().split(what)[1].split()[0]) / 1024


class Peak:
    """Peak resident memory (MB) in a `with` block, above that before it (Linux)."""

    def __enter__(self) -> Peak:
        Path("/proc/self/clear_refs").write_text("5")
        self.before = status_mb("VmRSS:")
        return self

    def __exit__(self, *error: object) -> None:
        self.mb = status_mb("VmHWM:") - self.before


def measure_held(stations: int) -> dict[str, float]:
    cube = as_cube(study_array(stations, missing=0.0))
    Windows(cube.isel(station=[0]), features_of(cube), length=LENGTH).gather(np.arange(4))  # compiled before
    with Peak() as peak:
        start = time.perf_counter()
        windows = Windows(cube, features_of(cube), length=LENGTH)
        built = time.perf_counter() - start
        start = time.perf_counter()
        for _ in windows.batches(SIZE):
            pass
        epoch = time.perf_counter() - start
    return {"windows": len(windows), "build": built, "epoch": epoch, "mb": peak.mb, "rate": rate(windows)}


def measure_read(store: str) -> dict[str, float]:
    cube = open_cube(store)
    features = features_of(cube)
    Windows(cube.isel(station=[0]).load(), features, length=LENGTH).gather(np.arange(4))
    with Peak() as peak:
        start = time.perf_counter()
        windows = Windows(cube, features, length=LENGTH, in_memory=False)
        built = time.perf_counter() - start
        speed = rate(windows)
    blocks = len(windows._series)
    return {"windows": len(windows), "build": built, "mb": peak.mb, "rate": speed, "blocks": blocks}


def measure_materialised(stations: int) -> dict[str, float]:
    cube = as_cube(study_array(stations, missing=0.0))
    windows = Windows(cube, features_of(cube), length=LENGTH)
    with Peak() as peak:
        start = time.perf_counter()
        windows.to_arrays()
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "mb": peak.mb}


def measure_index(stations: int) -> dict[str, float]:
    """An index of 10^8 windows, over one feature that is made as it is read."""
    days = 1684
    dims = ("station", "time")
    lazy = da.zeros((stations, days), chunks=(4096, days), dtype="float32")
    cube = xr.Dataset(
        {"rain": (dims, lazy, {"kind": "dynamic"}), "sm": (dims, lazy, {"kind": "target"})},
        {"station": np.arange(stations).astype(str).astype(object), "time": pd.date_range("2016-01-01", periods=days)},
    )
    with Peak() as peak:
        start = time.perf_counter()
        windows = Windows(cube, ["rain"], length=LENGTH, in_memory=False)
        seconds = time.perf_counter() - start
    index_mb = (windows._index.last_days.nbytes + windows._index.offsets.nbytes) / 2**20
    assert windows.y is not None
    with Peak() as shuffled:
        order = windows.order(np.random.default_rng(0))
    return {
        "windows": len(windows),
        "seconds": seconds,
        "mb": peak.mb,
        "index_mb": index_mb,
        "y_mb": windows.y.nbytes / 2**20,
        "order_mb": order.nbytes / 2**20,
        "order_peak_mb": shuffled.mb,
    }


def spread(windows: Windows) -> float:
    order = windows.order(np.random.default_rng(0))
    assert windows.y is not None
    y = windows.y[order][: len(order) // SIZE * SIZE].reshape(-1, SIZE)
    return float(y.mean(axis=1).std())


def measure_mixing(store: str) -> dict[str, float]:
    cube = open_cube(store)
    features = features_of(cube)[:1]
    level = xr.DataArray(np.random.default_rng(1).normal(size=cube.sizes["station"]).astype("float32"), dims="station")
    cube["sm"] = (xr.zeros_like(cube["sm"]) + level).chunk(dict(cube["sm"].variable.chunksizes))
    full = spread(Windows(cube, features, length=LENGTH, in_memory=True))
    out = {}
    for buffer in (1, 2, 4, 8):
        # All 27 features decide the blocks, as in training.
        out[str(buffer)] = (
            spread(Windows(cube, features_of(cube), length=LENGTH, in_memory=False, buffer=buffer)) / full
        )
    return out


MEASURES = {
    "held": lambda arg: measure_held(int(arg)),
    "read": measure_read,
    "materialised": lambda arg: measure_materialised(int(arg)),
    "index": lambda arg: measure_index(int(arg)),
    "mixing": measure_mixing,
}


def in_own_process(what: str, arg: object) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, what, str(arg)], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def lines() -> Iterator[str]:
    yield f"xbatcher {version('xbatcher')}, xarray {version('xarray')}, zarr {version('zarr')}, numpy {version('numpy')}"
    array = study_array(STATIONS, missing=0.0)
    cube = as_cube(array)
    features = features_of(cube)
    windows = Windows(cube, features, length=LENGTH)
    masked = Windows(cube, features, length=LENGTH, missing=0.5, fill=[0.0] * len(features))
    rate(windows), rate(masked)
    shuffled, ordered, count = xbatcher_rates(cube, array)
    ours, ours_ordered = rate(windows), rate(windows, shuffle=False)
    assert count == STATIONS * (1684 - LENGTH + 1) == len(windows)
    yield f"windows a second, batches of {SIZE}     shuffled    in order"
    yield f"  xbatcher                         {shuffled:12,.0f}{ordered:12,.0f}"
    yield f"  Windows                          {ours:12,.0f}{ours_ordered:12,.0f}"
    yield f"  ratio                            {ours / shuffled:12.0f}{ours_ordered / ordered:12.0f}"
    yield f"  Windows, missing=0.5 (54 channels) {rate(masked):10,.0f}{rate(masked, shuffle=False):12,.0f}"
    all_at_once = in_own_process("materialised", STATIONS)
    yield f"all windows as one array: {all_at_once['seconds']:.1f} s, {all_at_once['mb']:.0f} MB"
    yield "stations   windows  build s  epoch s  peak MB above the cube  (cube MB)"
    held = {}
    for times in (1, 4, 16):
        held[times] = found = in_own_process("held", STATIONS * times)
        size = STATIONS * times * 1684 * 28 * 4 / 2**20
        yield (
            f"{STATIONS * times:8d}{found['windows']:10,.0f}{found['build']:9.2f}{found['epoch']:9.2f}"
            f"{found['mb']:24.0f}{size:12.0f}"
        )
    with tempfile.TemporaryDirectory() as folder:
        store = write_cube(as_cube(study_array(STATIONS * 16, missing=0.0)), Path(folder) / "stations.zarr")
        found = in_own_process("read", store)
        yield (
            f"from Zarr, {STATIONS * 16} stations in {found['blocks']} blocks, 4 held: {found['rate']:,.0f} windows/s, "
            f"{found['rate'] / held[16]['rate']:.2f} of memory's {held[16]['rate']:,.0f}; index {found['build']:.1f} s; "
            f"peak {found['mb']:.0f} MB"
        )
        mixing = in_own_process("mixing", store)
        yield "mixing, spread of batch means / full shuffle's, by blocks held: " + ", ".join(
            f"{k}: {v:.2f}" for k, v in mixing.items()
        )
    found = in_own_process("index", 60_500)
    yield (
        f"index of {found['windows']:,.0f} windows: {found['index_mb']:.0f} MB, y {found['y_mb']:.0f} MB, "
        f"peak while made {found['mb']:.0f} MB ({found['seconds']:.1f} s); a shuffled order {found['order_mb']:.0f} MB "
        f"(peak {found['order_peak_mb']:.0f})"
    )


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(MEASURES[sys.argv[1]](sys.argv[2])))
        return
    for line in lines():
        print(line, flush=True)


if __name__ == "__main__":
    main()
