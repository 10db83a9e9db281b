"""Maps: rate against the model itself and against peers, memory, writing, and what intervals and areas cost.

Run: python benchmarks/maps.py WHAT [--side N] [--days N]
Every WHAT is one run, on one grid cube that is made first (27 features: 15 that vary in time, 9 that do not, 3 of the calendar;
scenes with clouds on half of their days, float32, written by smgeo):

  ann         predict_map against the same network's predict on an array in memory
  rf          against scikit-learn's forest of 50 trees of the same depth, both cores, on an array in memory; and against dask-ml's
              ParallelPostFit of the same scikit-learn forest, from the same cube (already prepared) into the same Zarr
  gru, lstm   30 days of 300 x 300 pixels against the network's predict on windows in memory
  uncertainty ann and rf with intervals and the area of applicability against without
  layers      ann with each layer of the area of applicability; fields are random, so that no pixel is like its neighbour
  memory      rf and ann for 10^6, 10^7 and 10^8 pixel-days: peak above imports, and time
  series      the same of gru: 30 days of 128 x 256 pixels, of cubes of 60, 365 and 1,684 days
  writing     the same random blocks by predict_map's writers against plain loops of Zarr and of rasterio's COG driver
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import rasterio
import xarray as xr
import zarr
from affine import Affine
from memory import forget_peak, peak_mb
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import smgeo
from smgeo.catalog import FEATURES, STUDY_FEATURES
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.prepare import Split, prepare_cube
from smgeo.recipe.preparation import PrepareSpec

STATIONS, STATION_DAYS = 60, 400
TRAIN = [f"N/{i}" for i in range(40)]
SPLIT = Split(tuple(TRAIN), tuple(f"N/{i}" for i in range(40, 60)), ())
DYNAMIC = [f for f in STUDY_FEATURES if FEATURES[f].kind == "dynamic"]
STATIC = [f for f in STUDY_FEATURES if FEATURES[f].kind == "static"]
CALENDAR = [f for f in STUDY_FEATURES if FEATURES[f].kind == "calendar"]


def _values(name: str, random: np.ndarray) -> np.ndarray:
    """Random numbers within a feature's valid range."""
    low, high = FEATURES[name].valid_range
    low, high = max(low, -1000), min(high, 1000)
    return (low + (high - low) * (0.4 + 0.2 * random)).astype("float32")


def make_stations() -> xr.Dataset:
    rng = np.random.default_rng(0)
    time = pd.date_range("2020-01-01", periods=STATION_DAYS)
    data: dict[str, Any] = {}
    for name in DYNAMIC:
        values = _values(name, rng.random((STATIONS, STATION_DAYS)))
        values[rng.random(values.shape) < 0.3] = np.nan
        data[name] = (("station", "time"), values, FEATURES[name].attrs())
    for name in STATIC:
        data[name] = (("station",), _values(name, rng.random(STATIONS)), FEATURES[name].attrs())
    for name in CALENDAR:
        data[name] = (("time",), np.sin(np.arange(STATION_DAYS) / 58).astype("float32"), FEATURES[name].attrs())
    x = np.nan_to_num(np.stack([data[n][1] / FEATURES[n].valid_range[1] for n in DYNAMIC[:4]])).sum(axis=0)
    sm = 0.2 + 0.05 * np.sin(9 * x) + 0.02 * rng.normal(size=x.shape)
    data["sm"] = (("station", "time"), sm.astype("float32"), FEATURES["sm"].attrs())
    return xr.Dataset(data, {"station": np.array([f"N/{i}" for i in range(STATIONS)], dtype=object), "time": time})


def fit(kind: str, length: int = 1, **params: Any) -> tuple[Any, xr.Dataset]:
    """A model of the training stations, prepared as the study's are; and the stations."""
    stations = make_stations()
    spec = PrepareSpec.model_validate({"fill": {"limit": 3}, "outliers": None, "scale": "minmax"})
    prepared = prepare_cube(stations, spec, STUDY_FEATURES, "sm", TRAIN)
    return smgeo.make_model(kind, **params).fit(prepared.windows(TRAIN, length, 0.5)), stations


MODELS: dict[str, tuple[int, dict[str, Any]]] = {
    "ann": (1, {"units": 254, "layers": 2, "epochs": 1}),
    "rf": (1, {"trees": 50, "engine": "sklearn", "max_depth": 16}),
    "gru": (30, {"units": 64, "epochs": 1}),
    "lstm": (30, {"units": 64, "epochs": 1}),
}


def make_grid(folder: Path, height: int, width: int, days: int) -> Path:
    """A grid cube on disk; made block by block."""
    time = pd.date_range("2020-03-01", periods=days)
    box = GeoBox((height, width), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32632")
    shards = (min(30, days), min(256, height), min(256, width))
    state = da.random.default_rng(1)
    data: dict[str, Any] = {}
    for number, name in enumerate(DYNAMIC):
        values = state.random((days, height, width), chunks=shards, dtype="float32").map_blocks(
            lambda a, n=name: _values(n, a), dtype="float32"
        )
        seen = (np.arange(days) + number) % 2 == 0
        data[name] = (
            ("time", "y", "x"),
            da.where(seen[:, None, None], values, np.float32(np.nan)),
            FEATURES[name].attrs(),
        )
    for name in STATIC:
        values = state.random((height, width), chunks=shards[1:], dtype="float32")
        data[name] = (
            ("y", "x"),
            values.map_blocks(lambda a, n=name: _values(n, a), dtype="float32"),
            FEATURES[name].attrs(),
        )
    for name in CALENDAR:
        data[name] = (("time",), np.sin(np.arange(days) / 58).astype("float32"), FEATURES[name].attrs())
    ds = xr.Dataset(data, {"time": time, **xr_coords(box, dims=("y", "x"))})
    for name in (*DYNAMIC, *STATIC):
        ds[name].attrs["grid_mapping"] = "spatial_ref"
    return write_cube(ds, folder / "grid.zarr")


def seconds(work: Any, runs: int = 1) -> float:
    best = np.inf
    for _ in range(runs):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def say(what: str, rate: float, unit: str = "rows/s", more: str = "") -> None:
    print(f"{what:44} {rate:12,.0f} {unit}{more}", flush=True)


def map_rate(model: Any, folder: Path, out: str = "map.zarr", last: int | None = None, **options: Any) -> float:
    """Pixel-days a second, reading and writing included; the second of two maps, since the first compiles."""
    cube = open_cube(folder / "grid.zarr")
    options = {"intervals": False, "applicability": False, **options}
    times = list(cube["time"].values[-(last or cube.sizes["time"]) :])
    corner = cube.isel(y=slice(0, 64), x=slice(0, 64))
    smgeo.predict_map(model, corner, folder / "warm.zarr", times[-1:], resume=False, **options)
    took = seconds(lambda: smgeo.predict_map(model, cube, folder / out, times, resume=False, **options))
    return len(times) * cube.sizes["y"] * cube.sizes["x"] / took


def in_turn(own: Callable[[], float], made: Callable[[], float], rounds: int = 3) -> tuple[float, float, float]:
    """Rates of two pieces of work that take turns, since a machine is not equally fast all the time: medians, and the median ratio."""
    pairs = [(own(), made()) for _ in range(rounds)]
    first, second = (float(np.median(r)) for r in zip(*pairs, strict=True))
    return first, second, float(np.median([b / a for a, b in pairs]))


def array_of(model: Any, rows: int) -> np.ndarray:
    shape = (rows, *model.input_shape_)
    return np.random.default_rng(3).random(shape, dtype="float32")


def compare_ann(folder: Path) -> None:
    model, _ = fit("ann", 1, **MODELS["ann"][1])
    x = array_of(model, 2_000_000)
    model.predict(x[:20_000])
    own, made, ratio = in_turn(lambda: len(x) / seconds(lambda: model.predict(x)), lambda: map_rate(model, folder))
    say("ann: predict on an array in memory", own)
    say("ann: predict_map", made, more=f"   ratio {ratio:.2f} (at least 0.8 wanted)")


def compare_rf(folder: Path) -> None:
    from dask_ml.wrappers import ParallelPostFit
    from sklearn.ensemble import RandomForestRegressor

    model, _ = fit("rf", 1, **MODELS["rf"][1])
    # The same number of nodes as on the study's table: 200,000 rows, all 54 channels.
    rng = np.random.default_rng(0)
    x = rng.random((200_000, 54), dtype="float32")
    y = x[:, 0] * x[:, 1] + x[:, 2] + np.sin(9 * x[:, 3]) + 0.2 * rng.random(len(x), dtype="float32")
    peer = RandomForestRegressor(
        50, max_depth=16, min_samples_leaf=5, max_features=1 / 3, n_jobs=2, random_state=0
    ).fit(x, y)
    from smgeo.models.trees import trees_of_sklearn

    model._trees = trees_of_sklearn(peer)
    nodes = sum(t.tree_.node_count for t in peer.estimators_)
    print(f"50 trees, {nodes:,} nodes, depth {max(t.tree_.max_depth for t in peer.estimators_)}")
    query = array_of(model, 300_000)
    theirs = len(query) / seconds(lambda: peer.predict(query), 2)
    say("rf: scikit-learn's predict in memory", theirs)
    model.predict(query[:1000])
    say("rf: smgeo's predict in memory", len(query) / seconds(lambda: model.predict(query), 2))
    made = map_rate(model, folder)
    say("rf: predict_map", made, more=f"   ratio {made / theirs:.2f} (at least 1, 2 wanted)")
    wrapped = ParallelPostFit(peer.set_params(n_jobs=1))
    cube = open_cube(folder / "grid.zarr").isel(time=slice(0, 2))

    def with_dask_ml() -> None:
        days, height, width = (cube.sizes[d] for d in ("time", "y", "x"))
        block = (days, min(128, height), min(128, width))
        layers = []
        for name in STUDY_FEATURES:
            values = da.asarray(cube[name].data)
            shape = (slice(None), None, None) if values.ndim == 1 else (None,) if values.ndim == 2 else ()
            values = da.broadcast_to(values[shape] if shape else values, (days, height, width)).rechunk(block)
            layers.append(da.nan_to_num(values))
        both = da.stack([*layers, *layers], axis=-1).rechunk((*block, -1))
        out = both.map_blocks(
            lambda b: wrapped.predict(b.reshape(-1, b.shape[-1])).reshape(b.shape[:3]).astype("float32"),
            drop_axis=3, dtype="float32", chunks=both.chunks[:3],
        )  # fmt: skip
        da.to_zarr(out, str(folder / "peer.zarr"), overwrite=True)

    peer_rate = cube.sizes["time"] * cube.sizes["y"] * cube.sizes["x"] / seconds(with_dask_ml)
    say(
        "rf: dask-ml's ParallelPostFit into Zarr",
        peer_rate,
        more=f"   predict_map is {made / peer_rate:.2f} times as fast (1.5 wanted)",
    )


def compare_recurrent(kind: str, folder: Path) -> None:
    length, params = MODELS[kind]
    model, _ = fit(kind, length, **params)
    x = array_of(model, 60_000)
    model.predict(x[:9000])
    own, made, ratio = in_turn(
        lambda: len(x) / seconds(lambda: model.predict(x), 2), lambda: map_rate(model, folder, last=30), 2
    )
    say(f"{kind}: predict on windows in memory", own, "windows/s")
    say(f"{kind}: predict_map", made, "windows/s", f"   ratio {ratio:.2f} (at least 0.8 wanted)")


def compare_uncertainty(folder: Path) -> None:
    for kind in ("ann", "rf"):
        model, stations = fit(kind, 1, **MODELS[kind][1])
        smgeo.calibrate(model, stations, SPLIT)
        smgeo.find_applicability(model, stations, SPLIT)
        plain, both, ratio = in_turn(
            lambda m=model: map_rate(m, folder),
            lambda m=model: map_rate(m, folder, "both.zarr", intervals=0.9, applicability=True),
        )
        say(f"{kind}: alone", plain)
        say(f"{kind}: with intervals and area", both, more=f"   {1 / ratio:.2f} times the time (at most 2 wanted)")


def compare_layers(folder: Path) -> None:
    model, stations = fit("ann", 1, **MODELS["ann"][1])
    smgeo.find_applicability(model, stations, SPLIT)
    area = model.applicability_
    print(f"{len(area.reference):,} rows of {len(np.unique(area.group))} places, {area.reference.shape[1]} features")
    say("ann: alone", map_rate(model, folder))
    for layer in ("dissimilarity", "expected_error", "local_point_density"):
        say(f"ann: with {layer}", map_rate(model, folder, "layer.zarr", layers=[layer]))


def measure_memory(folder: Path) -> None:
    for kind in ("rf", "ann"):
        for side in (183, 578, 1826):
            measure_in_process(kind, folder / f"{side}", (side, side, 30))


def measure_series(folder: Path) -> None:
    for days in (60, 365, 1684):
        measure_in_process("gru", folder / f"{days}", (128, 256, days))


def measure_in_process(kind: str, place: Path, shape: tuple[int, int, int]) -> None:
    """Peak and time of a map of the last 30 days of such a cube, in a process of its own."""
    if not (place / "grid.zarr").exists():
        place.mkdir(exist_ok=True)
        make_grid(place, *shape)
    command = [sys.executable, __file__, "one", "--kind", kind, "--folder", str(place)]
    took, peak = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:])
    n = shape[0] * shape[1] * 30
    print(
        f"{kind}, {shape[2]:5} days in the cube: {n:12,} pixel-days {took:8.1f} s, {n / took:10,.0f} a second, peak {peak:6.0f} MB above imports",
        flush=True,
    )


def measure_one(kind: str, folder: Path) -> None:
    length, params = MODELS[kind]
    model, _ = fit(kind, length, **params)
    model.predict(array_of(model, 20_000))
    cube = open_cube(folder / "grid.zarr")
    times = list(cube["time"].values[-30:])
    forget_peak()
    before = peak_mb()
    took = seconds(lambda: smgeo.predict_map(model, cube, folder / "map.zarr", times, resume=False))
    print(took, peak_mb() - before)


def compare_writing(folder: Path, side: int, days: int) -> None:
    from smgeo.cube.store import StorePlan, regions_of, write_store
    from smgeo.maps import layout, write_cogs

    rng = np.random.default_rng(0)
    box = GeoBox((side, side), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32632")
    blocks = [rng.random((days, 128, 128), dtype="float32") for _ in range(8)]
    attrs = {"units": "m3 m-3", "long_name": "estimate", "source": "benchmark", "grid_mapping": "spatial_ref"}
    template = xr.Dataset(
        {"sm": (("time", "y", "x"), da.zeros((days, side, side), dtype="float32"), attrs)},
        {"time": pd.date_range("2020-01-01", periods=days), **xr_coords(box, dims=("y", "x"))},
    )
    plan = layout.plan_map(template)
    regions = regions_of(template, plan, ["sm"])

    class Job:
        def __init__(self, region: Any) -> None:
            self.region = region

        def compute(self) -> dict[str, np.ndarray]:
            _, y, x = self.region.slices
            return {"sm": blocks[(y.start + x.start) // 128 % 8][:, : y.stop - y.start, : x.stop - x.start]}

    def ours() -> None:
        content = StorePlan(template, plan, regions, {r.name: "" for r in regions}, Job)
        write_store(content, folder / "ours.zarr", resume=False)

    def plain() -> None:
        sizes = {k: plan["sm"].get(k) for k in ("chunks", "shards")}
        shape = (days, side, side)
        array = zarr.create_array(
            str(folder / "plain.zarr"), shape=shape, dtype="float32", fill_value=np.nan, overwrite=True, **sizes
        )
        for region in regions:
            array[region.slices] = Job(region).compute()["sm"]

    size = days * side * side * 4 / 2**20
    theirs, own = size / seconds(plain), size / seconds(ours)
    say("Zarr: a plain loop of the same blocks", theirs, "MB/s")
    say("Zarr: predict_map's writer, with checksums", own, "MB/s", f"   ratio {own / theirs:.2f} (at least 0.7 wanted)")
    profile = {"driver": "COG", "dtype": "float32", "count": 1, "height": side, "width": side, "crs": "EPSG:32632", "transform": box.affine,
               "nodata": np.nan, "compress": "DEFLATE", "predictor": "YES", "overview_resampling": "average"}  # fmt: skip
    array = zarr.open_array(str(folder / "plain.zarr"))

    def plain_cogs() -> None:
        for t in range(days):
            with rasterio.open(folder / f"plain_{t}.tif", "w", **profile) as dst:
                dst.write(array[t], 1)

    theirs = size / seconds(plain_cogs)
    own = size / seconds(lambda: write_cogs(folder / "ours.zarr", folder / "cogs"))
    say("COG: a plain loop with rasterio's driver", theirs, "MB/s")
    say("COG: write_cogs", own, "MB/s", f"   ratio {own / theirs:.2f} (at least 0.7 wanted)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "what", choices=["ann", "rf", "gru", "lstm", "uncertainty", "layers", "memory", "series", "writing", "one"]
    )
    parser.add_argument("--side", type=int, default=0)
    parser.add_argument("--days", type=int, default=0)
    parser.add_argument("--kind", default="rf")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.what == "one":
        measure_one(asked.kind, asked.folder)
        return
    recurrent = asked.what in ("gru", "lstm")
    side, days = asked.side or (300 if recurrent else 768), asked.days or 30
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.what in ("memory", "series"):
            {"memory": measure_memory, "series": measure_series}[asked.what](folder)
            return
        if asked.what == "writing":
            compare_writing(folder, side, days)
            return
        make_grid(folder, side, side, 59 if recurrent else days)
        print(f"{side} x {side} pixels, {days} days; {dask.system.CPU_COUNT} CPUs", flush=True)
        {"ann": compare_ann, "rf": compare_rf, "uncertainty": compare_uncertainty, "layers": compare_layers}.get(
            asked.what, lambda f: compare_recurrent(asked.what, f)
        )(folder)


if __name__ == "__main__":
    main()
