"""Training a GRU from Windows, against the same `fit` on windows that lie in memory as one array.

Run: python benchmarks/training.py [STATIONS] [UNITS]
Stations x 1,684 days x 27 features, complete; windows of 30 days, batches of 256. One model (a GRU, a dense output; Adam, mean
squared error) is compiled once and fitted an epoch at a time, in turn, from the array of all windows (Keras' own
shuffling), from `Windows.to_keras`, from `Windows.to_tf`, and from windows read block by block from Zarr; five rounds, the
best of each counts, the first epochs of all not timed. Printed are windows a second and their share of the array's.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from study_array import as_cube, study_array

from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.prepare import Windows, series

BATCH, LENGTH, ROUNDS = 256, 30, 5


def main() -> None:
    stations, units = (int(a) for a in (sys.argv[1:] + ["64", "64"][len(sys.argv) - 1 :])[:2])
    cube = as_cube(study_array(stations, missing=0.0))
    features = [str(n) for n in cube.data_vars if n != "sm"]
    windows = Windows(cube, features, length=LENGTH)
    x, y = windows.to_arrays(flatten=False)
    model = keras.Sequential([keras.Input((LENGTH, len(features))), keras.layers.GRU(units), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    with tempfile.TemporaryDirectory() as folder:
        store = write_cube(cube, Path(folder) / "stations.zarr", chunks={"station": max(stations // 4, 1), "time": -1})
        # Blocks of a quarter of the stations, so that this cube is read as one larger than memory is.
        series._BLOCK_BYTES = 4 * 1684 * len(features) * (stations // 4)  # type: ignore[assignment]
        read = Windows(open_cube(store), features, length=LENGTH, in_memory=False, buffer=2)
        ways = {
            "array of all windows": lambda: model.fit(x, y, batch_size=BATCH, verbose=0),
            "Windows.to_keras": lambda: model.fit(windows.to_keras(BATCH), shuffle=False, verbose=0),
            "Windows.to_tf": lambda: model.fit(windows.to_tf(BATCH), verbose=0),
            f"to_keras from Zarr, {len(read._series)} blocks, 2 held": lambda: model.fit(
                read.to_keras(BATCH), shuffle=False, verbose=0
            ),
        }
        best = dict.fromkeys(ways, np.inf)
        for round_ in range(ROUNDS + 1):
            for way, fit in ways.items():
                start = time.perf_counter()
                fit()
                if round_:
                    best[way] = min(best[way], time.perf_counter() - start)
    print(f"keras {version('keras')} on {keras.backend.backend()}; {len(windows):,} windows; GRU of {units} units")
    for way, seconds in best.items():
        print(f"{way:40s}{len(windows) / seconds:10,.0f} windows/s{best['array of all windows'] / seconds:8.3f}")


if __name__ == "__main__":
    main()
