"""A search of `smgeo.tune`, against plain Ray Tune around plain Keras `fit`.

Run: python benchmarks/search.py KIND [--trials N] [--concurrent N] [--scheduler asha|none] [--search random|ax|optuna] [--plain] [--out DIR]
KIND: `ann` (the study's space; 100 trials), `gru`, `lstm` (one layer of 16 to 64 units; 20 trials, about 100,000 windows of 30 days),
`gru-sequence`, `lstm-sequence` (20 trials on the whole series of all training stations). All on a complete array of the study's size
(study_array.moisture_cube): 254 training stations, 427,736 rows, and 32 validation stations; at most 5 epochs (`ann`) or 3; two trials at
once, a CPU and a thread each. With `--plain` the same trials are then run by Ray Tune as its guide shows it: a function that builds a
Keras model, calls `fit` with its default batch of 32, and reports; data by `tune.with_parameters`, the same scheduler. Printed: minutes;
the share of the workers' time that is not in training and scoring (a process's import of Keras is in its first trial); the best validation
RMSE (m3 m-3); peak memory of all processes together, imports of about 0.8 GB in each of the two workers included (pages that several
share count once). With the same seed all schedulers get the same parameters.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from study_array import moisture_cube

import smgeo
from smgeo.prepare import Split
from smgeo.recipe.search import Range
from smgeo.study.memory import PeakMemory
from smgeo.tuning.space import default_space, sample_params

TRAIN, HELD, FEW = 254, 32, 60
ONE_LAYER = {
    "layers": [1],
    "units": Range(integer=(16, 64)),
    "dropout": Range(uniform=(0.0, 0.3)),
    "optimizer": ["adam", "rmsprop"],
}
RATES = Range(log=(0.0005, 0.02))


def task(kind: str) -> tuple[str, dict[str, Any], Any, Split, int]:
    """Kind of model, arguments of `tune`, cube, split, epochs."""
    name, _, mode = kind.partition("-")
    cube = moisture_cube()
    ids = [str(s) for s in cube["station"].values]
    few = name != "ann" and not mode
    split = Split(tuple(ids[: FEW if few else TRAIN]), tuple(ids[TRAIN : TRAIN + HELD]), tuple(ids[TRAIN + HELD :]))
    if name == "ann":
        return name, {"space": None, "params": {}}, cube, split, 5
    space = {**ONE_LAYER, "learning_rate": RATES}
    # As Keras' users train; dropout is in the space.
    params = {"input_dropout": 0.0, "schedule": "constant", **({"mode": mode} if mode else {})}
    return name, {"space": space, "params": params}, cube, split, 3


def search(kind: str, asked: argparse.Namespace, out: str) -> None:
    name, options, cube, split, epochs = task(kind)
    params = {**options["params"], "patience": epochs}
    start = time.perf_counter()
    with PeakMemory() as memory:
        found = smgeo.tune(
            name,
            cube,
            split,
            out=out,
            trials=asked.trials,
            search=asked.search,
            scheduler=asked.scheduler,
            space=options["space"],
            params=params,
            epochs=epochs,
            concurrent=asked.concurrent,
            seed=0,
            progress=tell(),
        )
    wall, peak, table = time.perf_counter() - start, memory.bytes / 1e6, found.table
    print(
        f"{kind}: {len(table)} trials, search {asked.search}, scheduler {asked.scheduler}, at most {epochs} epochs, {asked.concurrent} at once"
    )
    busy = float(table["seconds"].sum()) / asked.concurrent
    print(
        f"smgeo.tune: {wall / 60:.1f} min; {1 - busy / wall:.1%} of the workers' time not in training and scoring; peak {peak:,.0f} MB in all"
    )
    print(f"status {table['status'].value_counts().to_dict()}, epochs run {int(table['epochs'].sum())}")
    print(f"best validation RMSE {found.best['validation_rmse']:.4f} with {found.params}", flush=True)


def tell() -> Any:
    last = [0.0]

    def say(done: int, total: int, note: str) -> None:
        if time.monotonic() - last[0] > 60:
            last[0] = time.monotonic()
            print(f"  {time.strftime('%H:%M:%S')} {done} of {total}; {note}", file=sys.stderr, flush=True)

    return say


def plain_trial(config: dict[str, Any], x: Any, y: Any, hx: Any, hy: Any, epochs: int, kind: str) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    from ray import tune

    params = config["params"]
    layers = keras.layers
    if kind == "ann":
        hidden = [
            layer
            for _ in range(params["layers"])
            for layer in (layers.Dense(params["units"], params["activation"]), layers.Dropout(params["dropout"]))
        ]
    else:
        hidden = [getattr(layers, kind.upper())(params["units"]), layers.Dropout(params["dropout"])]
    model = keras.Sequential([keras.Input(x.shape[1:]), *hidden, layers.Dense(1)])
    optimizers = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD}
    model.compile(
        optimizers[params["optimizer"]](params["learning_rate"]),
        "mse",
        metrics=[keras.metrics.RootMeanSquaredError(name="rmse")],
    )
    seen: list[float] = []

    def tell_ray(epoch: int, logs: dict[str, float]) -> None:
        seen.append(logs["val_rmse"])
        tune.report({"val_rmse": seen[-1], "best": min(seen)})

    report = keras.callbacks.LambdaCallback(on_epoch_end=tell_ray)
    model.fit(x, y, validation_data=(hx, hy), epochs=epochs, callbacks=[report], verbose=0)


@contextmanager
def ray_of_two() -> Iterator[None]:
    import ray

    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    one = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": one},
    )
    try:
        yield
    finally:
        ray.shutdown()


def plain(kind: str, trials: int, scheduler: str) -> float:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    name, options, cube, split, epochs = task(kind)
    features = [str(n) for n in cube.data_vars if n != "sm"]
    length = 1 if name == "ann" else 30
    parts = [smgeo.Windows(cube.sel(station=list(p)), features, length=length) for p in (split.train, split.validation)]
    (x, y), (hx, hy) = (w.to_arrays(flatten=name == "ann") for w in parts)
    space = options["space"] or default_space(name)
    every = [sample_params(space, t, 0) for t in range(trials)]
    start = time.perf_counter()
    with PeakMemory() as memory, ray_of_two(), tempfile.TemporaryDirectory() as folder:
        asha = ASHAScheduler(max_t=epochs, grace_period=1, reduction_factor=3) if scheduler == "asha" else None
        tuner = tune.Tuner(
            tune.with_parameters(plain_trial, x=x, y=y, hx=hx, hy=hy, epochs=epochs, kind=name),
            param_space={"params": tune.grid_search(every)},
            tune_config=tune.TuneConfig(metric="val_rmse", mode="min", scheduler=asha),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
    wall = time.perf_counter() - start
    if results.errors:
        raise results.errors[0]
    last = [r.metrics for r in results]
    best, run = min(m["best"] for m in last), sum(m["training_iteration"] for m in last)
    print(
        f"plain Ray Tune and Keras fit: {trials} trials in {wall / 60:.1f} min, {run} epochs, best validation RMSE {best:.4f}"
    )
    print(f"peak {memory.bytes / 1e6:,.0f} MB in all")
    return wall / trials


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["ann", "gru", "lstm", "gru-sequence", "lstm-sequence"])
    parser.add_argument("--trials", type=int)
    parser.add_argument("--concurrent", type=int, default=2)
    parser.add_argument("--scheduler", default="asha", choices=["asha", "none"])
    parser.add_argument("--search", default="random", choices=["random", "ax", "optuna"])
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--out")
    asked = parser.parse_args(words)
    asked.trials = asked.trials or (100 if asked.kind == "ann" else 20)
    return asked


def main() -> None:
    asked = arguments()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        search(asked.kind, asked, asked.out or folder)
        mine = (time.perf_counter() - start) / asked.trials
    if asked.plain:
        theirs = plain(asked.kind, asked.trials, asked.scheduler)
        print(f"a trial: {mine:.1f} s against {theirs:.1f} s, {theirs / mine:.1f} times as fast")


if __name__ == "__main__":
    main()
