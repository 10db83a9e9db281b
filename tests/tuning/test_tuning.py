"""Searches with a real Ray: the table is true, whatever is killed."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.random import RandomState
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeRegressor

import smgeo
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.models.backend import keras_backend
from smgeo.prepare import Split, Windows, prepare_cube
from smgeo.recipe.search import RECIPE_TRIALS, TUNE_TRIALS, Range, SearchSpec
from smgeo.recipe.study import parse_recipe
from smgeo.tuning.identity import identify
from smgeo.tuning.objective import Objective
from smgeo.tuning.search import choose_stations
from smgeo.tuning.space import sample_params
from smgeo.tuning.trials import OtherSearchError, Trial, read_trials

ray = pytest.importorskip("ray")
FEATURES = ["clay", "precipitation", "s1_vv", "temperature"]


class Constant(RegressorMixin, BaseEstimator):
    """Predicts `value`, or fails as `how` names. Each fit leaves a line in `log`."""

    def __init__(self, value=0.0, how="well", log=None, seconds=0.0):
        self.value, self.how, self.log, self.seconds = value, how, log, seconds

    def fit(self, X, y):
        if self.log:
            with open(self.log, "a") as handle:
                handle.write(f"{self.value!r}\n")
        time.sleep(self.seconds)
        if self.how == "raises":
            raise RuntimeError(f"no model\nof {self.value:.1f}")
        if self.how == "dies":
            os._exit(1)
        if self.how == "dies once" and len(Path(self.log).read_text().splitlines()) == 1:
            os._exit(1)
        if self.how == "lacks a file" and self.value > 0.1:
            Path("/nowhere/data").read_text()
        if self.how == "finds a full disk" and len(Path(self.log).read_text().splitlines()) <= 2:
            Path("/dev/full").write_text("x")
        return self

    def predict(self, X):
        return np.full(len(X), np.nan if self.how == "is nan" else self.value)


@pytest.fixture(scope="module", autouse=True)
def _one_ray():
    """One Ray for all searches of this module."""
    from smgeo.tuning.ray_session import start_ray

    with start_ray(2):
        yield


@pytest.fixture(scope="module")
def cube(make_station_cube):
    """Ten stations, 40 days, s1_vv and sm that depend on each other."""
    ds = make_station_cube(stations=10, days=40, seed=3)
    return ds.assign(sm=ds["sm"].copy(data=(0.3 + 0.02 * (ds["s1_vv"] + 12)).astype("float32")))


@pytest.fixture(scope="module")
def split(cube):
    return split_in_order(cube)


def split_in_order(cube):
    ids = [str(s) for s in cube["station"].values]
    return Split(tuple(ids[:6]), tuple(ids[6:8]), tuple(ids[8:]))


def expected_rmse(cube, stations, value):
    return float(np.sqrt(np.mean((cube["sm"].sel(station=list(stations)).values.astype("float64") - value) ** 2)))


def test_the_best_of_a_search_is_truly_the_least_and_test_stations_are_never_read(cube, split, tmp_path):
    said = []
    options = {"trials": 5, "space": {"value": {"uniform": [0.0, 0.6]}}, "seed": 4, "concurrent": 2}
    found = smgeo.tune(Constant(), cube, split, out=tmp_path / "a", progress=lambda *a: said.append(a), **options)
    table = found.table
    assert table["trial"].tolist() == [0, 1, 2, 3, 4]
    assert set(table["status"]) == {"finished"}
    truth = [expected_rmse(cube, split.validation, v) for v in table["params.value"]]
    np.testing.assert_allclose(table["validation_rmse"], truth, rtol=1e-5)
    assert found.best["trial"] == int(np.argmin(truth))
    assert found.params == {"seed": 4, "value": table["params.value"][int(np.argmin(truth))]}
    assert found.retrain().predict(np.zeros((2, 4), "float32")).tolist() == [np.float32(found.params["value"])] * 2
    assert found.path == tmp_path / "a" / "trials.parquet"
    assert json.loads((tmp_path / "a" / "search.json").read_text())["kind"] == {
        "class": f"{Constant.__module__}.Constant",
        "params": {"value": 0.0, "how": "well", "log": None, "seconds": 0.0},
    }
    assert table["params.value"].tolist() == [
        sample_params({"value": Range(uniform=(0.0, 0.6))}, n, 4)["value"] for n in range(5)
    ]
    assert said[-1] == (5, 5, f"best RMSE {min(truth):.4f} (trial {np.argmin(truth)}), 0 running")
    # The same call again begins nothing; more trials continue it, and other values at test stations change nothing.
    where = cube["station"].isin(list(split.test))
    changed = cube.assign({n: cube[n].where(~where, np.float32(9)) for n in ("sm", "s1_vv")})
    more = smgeo.tune(Constant(), changed, split, out=tmp_path / "a", **{**options, "trials": 7})
    assert more.table[:5].drop(columns="rmse").equals(table.drop(columns="rmse"))
    assert more.table["trial"].tolist() == list(range(7))
    with pytest.raises(OtherSearchError, match="the data differ"):
        smgeo.tune(Constant(), cube.assign(sm=cube["sm"] + np.float32(0.1)), split, out=tmp_path / "a", **options)
    with pytest.raises(OtherSearchError, match="scheduler was .asha. and is .none."):
        smgeo.tune(Constant(), cube, split, out=tmp_path / "a", scheduler="none", **options)
    with pytest.raises(SmgeoError, match="resume is false"):
        smgeo.tune(Constant(), cube, split, out=tmp_path / "a", resume=False, **options)
    with pytest.raises(SmgeoError, match="no trial 9"):
        found.retrain(9)


def test_a_search_by_a_spec_is_the_search_by_keywords(cube, split, tmp_path):
    given = {"trials": 2, "space": {"value": {"uniform": [0.0, 0.6]}}, "seed": 4}
    by_keywords = smgeo.tune(Constant(), cube, split, out=tmp_path / "a", **given)
    by_spec = smgeo.tune(Constant(), cube, split, out=tmp_path / "b", spec=SearchSpec.model_validate(given))
    columns = ["trial", "status", "seed", "params", "validation_rmse"]
    assert by_spec.table[columns].equals(by_keywords.table[columns])
    described = [json.loads((tmp_path / n / "search.json").read_text()) for n in "ab"]
    assert described[0] == described[1]
    # A mapping is continued as the spec that it is: nothing is left to search.
    again = smgeo.tune(Constant(), cube, split, out=tmp_path / "b", spec=given)
    assert again.table[columns].equals(by_spec.table[columns])
    # A spec has a recipe's number of trials, the keywords their own; values that stand in both places are refused.
    assert SearchSpec().trials == RECIPE_TRIALS == 20
    assert inspect.signature(smgeo.tune).parameters["trials"].default == TUNE_TRIALS == 100
    with pytest.raises(SmgeoError, match="spec and trials, seed are both given; set trials, seed in spec"):
        smgeo.tune(Constant(), cube, split, out=tmp_path / "d", spec=given, trials=3, seed=1)
    with pytest.raises(SmgeoError, match="tune: spec: unknown key 'trial'; did you mean 'trials'"):
        smgeo.tune(Constant(), cube, split, out=tmp_path / "d", spec={"trial": 3})
    assert not (tmp_path / "d").exists()


def test_trials_that_fail_are_recorded_and_the_search_goes_on(cube, split, tmp_path):
    space = {"how": ["well", "raises", "dies", "is nan"]}
    asked = [sample_params(space, n, 23)["how"] for n in range(5)]
    assert set(asked) == set(space["how"])
    log = tmp_path / "log"
    fixed = {"value": 0.3, "log": str(log)}
    found = smgeo.tune(Constant(), cube, split, trials=5, space=space, params=fixed, seed=23, out=tmp_path / "out")
    errors = {"raises": "RuntimeError: no model of 0.3", "dies": "process that ran it ended", "is nan": "RMSE is nan"}
    statuses = {"well": "finished", "dies": "lost"}
    for how, (_, row) in zip(asked, found.table.iterrows(), strict=True):
        assert row["status"] == statuses.get(how, "failed")
        assert errors.get(how, "") in row["error"]
        assert "\n" not in row["error"]
    dying = asked.count("dies")  # each is given a second process at once
    assert len(log.read_text().splitlines()) == 5 + dying
    # Those whose process died may do better another time.
    again = smgeo.tune(Constant(), cube, split, trials=5, space=space, params=fixed, seed=23, out=tmp_path / "out")
    assert len(log.read_text().splitlines()) == 5 + 3 * dying
    ended = found.table["status"] != "lost"
    assert again.table["started"][ended].equals(found.table["started"][ended])
    # If none has a score, the next search starts from scratch.
    log.unlink()
    for _ in range(2):
        with pytest.raises(SmgeoError, match=r"all 2 trials failed; trial 0 with RuntimeError: no model of 0\.0"):
            smgeo.tune(
                Constant(),
                cube,
                split,
                trials=2,
                space={"value": [0.0, 0.01]},
                params={"how": "raises", "log": str(log)},
                out=tmp_path / "b",
            )
    assert len(log.read_text().splitlines()) == 4


def test_an_error_beside_the_trials_ends_the_search_and_keeps_its_table(cube, split, tmp_path):
    def fill_the_disk(done, total, note):
        raise OSError("no space left on device")

    options = {"trials": 6, "space": {"value": {"uniform": [0.0, 0.6]}}, "out": tmp_path, "concurrent": 1}
    with pytest.raises(OSError, match="no space left"):
        smgeo.tune(Constant(), cube, split, progress=fill_the_disk, **options)
    before = read_trials(tmp_path)
    assert 1 <= len(before) < 6
    smgeo.tune(Constant(), cube, split, **options)
    after = read_trials(tmp_path)
    assert sorted(after) == list(range(6))
    assert all(after[n] == t for n, t in before.items() if t.status == "finished")


def test_a_trial_whose_process_dies_once_is_run_again_at_once(cube, split, tmp_path):
    log = tmp_path / "log"
    found = smgeo.tune(
        Constant(),
        cube,
        split,
        trials=3,
        space={"value": [0.2]},
        params={"how": "dies once", "log": str(log)},
        concurrent=1,
        out=tmp_path,
    )
    assert found.table["status"].tolist() == ["finished"] * 3
    assert found.table["epochs"].tolist() == [1] * 3
    assert len(log.read_text().splitlines()) == 4


def test_a_trial_that_lacks_a_file_fails_by_itself(cube, split, tmp_path):
    """Not every error of reading is the machine's: the search goes on."""
    options = {"space": {"value": [0.05, 0.2]}, "params": {"how": "lacks a file"}, "out": tmp_path, "seed": 1}
    found = smgeo.tune(Constant(), cube, split, trials=6, **options).table
    failed = np.array([json.loads(p)["value"] > 0.1 for p in found["params"]])
    assert 0 < failed.sum() < 6
    assert found["status"].tolist() == np.where(failed, "failed", "finished").tolist()
    assert found["error"][failed].str.contains("FileNotFoundError: .*nowhere").all()


def test_a_trial_that_finds_a_full_disk_has_not_failed(cube, split, tmp_path):
    log = tmp_path / "log"
    options = {
        "space": {"value": [0.2]},
        "params": {"how": "finds a full disk", "log": str(log)},
        "out": tmp_path,
        "concurrent": 2,
    }
    with pytest.raises(SmgeoError, match=r"trial \d on .*: OSError: \[Errno 28\] No space left on device"):
        smgeo.tune(Constant(), cube, split, trials=5, **options)
    assert {t.status for t in read_trials(tmp_path).values()} == {"lost"}
    assert all("Errno 28" in t.error for t in read_trials(tmp_path).values())
    found = smgeo.tune(Constant(), cube, split, trials=5, **options)
    assert found.table["status"].tolist() == ["finished"] * 5
    assert found.table["error"].tolist() == [""] * 5


@pytest.mark.soak
def test_choices_of_any_json_type_are_continued(cube, split, tmp_path):
    pytest.importorskip("optuna")
    options = {
        "space": {"hidden_layer_sizes": [(4,), (4, 2), (2,)], "alpha": {"log": [1e-4, 1e-2]}},
        "params": {"max_iter": 20, "solver": "lbfgs"},
        "search": "optuna",
        "out": tmp_path,
        "length": 1,
    }
    smgeo.tune("MLPRegressor", cube, split, trials=2, **options)
    table = smgeo.tune("MLPRegressor", cube, split, trials=4, **options).table
    assert table["status"].tolist() == ["finished"] * 4
    assert {json.dumps(json.loads(p)["hidden_layer_sizes"]) for p in table["params"]} <= {"[4]", "[4, 2]", "[2]"}


@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGINT, marks=pytest.mark.soak)])
def test_an_interrupted_search_leaves_nothing_running_and_goes_on(cube, split, tmp_path, number):
    def interrupt(done, total, note):
        if done == 3:
            os.kill(os.getpid(), number)

    options = {"trials": 9, "space": {"value": {"uniform": [0.0, 0.6]}}, "params": {"seconds": 0.2}, "concurrent": 2}
    handler = signal.getsignal(number)
    expected = KeyboardInterrupt if number == signal.SIGINT else SmgeoError
    with pytest.raises(expected) as error:  # and is kept, as IPython does
        smgeo.tune(Constant(), cube, split, out=tmp_path, progress=interrupt, **options)
    if number == signal.SIGUSR1:
        assert re.match(r"the search was interrupted after \d of 9 trials; the same command", str(error.value))
    assert signal.getsignal(number) is handler
    until = time.monotonic() + 30
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"] and time.monotonic() < until:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]
    before = read_trials(tmp_path)
    assert len(before) < 9
    assert {t.status for t in before.values()} <= {"finished", "running"}
    found = smgeo.tune(Constant(), cube, split, out=tmp_path, **options)
    after = read_trials(tmp_path)
    assert found.table["status"].tolist() == ["finished"] * 9
    assert all(after[n] == t for n, t in before.items() if t.status == "finished")
    assert all(after[n].params == t.params for n, t in before.items())


SCRIPT = """
import sys
from pathlib import Path
import xarray as xr
from tests.tuning.test_tuning import search_slowly, split_in_order

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    cube = xr.open_dataset(folder / "cube.nc")
    search_slowly(cube, split_in_order(cube), folder, lambda done, total, note: print(done, flush=True))
"""


def search_slowly(cube, split, folder, progress=None):
    return smgeo.tune(
        Constant(),
        cube,
        split,
        trials=14,
        space={"value": {"uniform": [0.0, 0.6]}},
        params={"log": str(folder / "log"), "seconds": 0.4},
        out=folder / "out",
        concurrent=2,
        progress=progress,
    )


def test_a_killed_search_goes_on_without_losing_or_repeating_a_trial(cube, split, tmp_path):
    cube.to_netcdf(tmp_path / "cube.nc")
    (tmp_path / "run.py").write_text(SCRIPT)
    child = subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert child.stdout is not None
    assert any(int(line) >= 5 for line in child.stdout)
    below = psutil.Process(child.pid).children(recursive=True)
    assert any("raylet" in p.name() for p in below)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert psutil.wait_procs(below, timeout=30)[1] == []

    before = read_trials(tmp_path / "out")
    ended = {n: t for n, t in before.items() if t.status != "running"}
    cut_off = {n: t for n, t in before.items() if t.status == "running"}
    assert 5 <= len(ended) < 14
    assert cut_off
    found = search_slowly(cube, split, tmp_path)
    after = read_trials(tmp_path / "out")
    assert sorted(after) == list(range(14))
    assert {t.status for t in after.values()} == {"finished"}
    assert {n: after[n] for n in ended} == ended
    assert all(after[n].params == t.params and after[n].started > t.started for n, t in cut_off.items())
    fits = [float(line) for line in (tmp_path / "log").read_text().splitlines()]
    values = {n: t.params["value"] for n, t in after.items()}
    assert all(fits.count(values[n]) == 1 for n in set(after) - set(cut_off))
    truth = [expected_rmse(cube, split.validation, values[n]) for n in sorted(values)]
    np.testing.assert_allclose(found.table["validation_rmse"], truth, rtol=1e-5)


@pytest.mark.soak
def test_asha_stops_bad_trials_and_a_row_is_trained_again_to_its_score(cube, split, tmp_path):
    pytest.importorskip("keras")
    # The second trial is the only one that learns; those after it are stopped.
    space = {"learning_rate": [0.003, 0.3, 0.4, 0.5], "units": [160]}
    found = smgeo.tune("ann", cube, split, trials=5, space=space, epochs=4, seed=5, out=tmp_path, concurrent=1)
    table = found.table
    assert set(table["status"]) == {"finished", "stopped"}
    assert found.best["params.learning_rate"] == 0.003
    assert set(table["status"][2:]) == {"stopped"}
    assert (table["epochs"] == table["validation_rmse_curve"].map(len)).all()
    assert (table["epochs"] == table["rmse"].map(len)).all()
    assert table.loc[table["status"] == "stopped", "epochs"].max() < 4
    assert json.loads((tmp_path / "search.json").read_text())["epochs"] == 4
    stopped = table[table["status"] == "stopped"].iloc[0]
    for row in (found.best, stopped):
        model = found.retrain(int(row["trial"]))
        windows = Windows(cube.sel(station=list(split.validation)), FEATURES, "sm", 1)
        error = model.predict(windows).astype("float64") - windows.y
        assert np.sqrt(np.mean(error**2)) == pytest.approx(row["validation_rmse"], rel=1e-5)
        assert model.preparation_["features"] == FEATURES


def test_a_recurrent_trial_is_trained_again_to_the_score_of_its_best_epoch(cube, split, tmp_path):
    """Networks that keep their last epoch elsewhere keep the best one in a search, and wherever its parameters are used."""
    pytest.importorskip("keras")
    found = smgeo.tune(
        "gru",
        cube,
        split,
        trials=1,
        length=5,
        space={"learning_rate": [0.1], "units": [32]},
        params={"schedule": "constant", "dropout": 0.0, "input_dropout": 0.0, "batch_size": 16},
        epochs=12,
        out=tmp_path,
        concurrent=1,
    )
    row = found.best
    assert row["best_epoch"] < row["epochs"]  # of a rate that is far too high
    assert found.params["patience"] == found.params["epochs"] == 12
    windows = Windows(cube.sel(station=list(split.validation)), FEATURES, "sm", 5)
    error = found.retrain().predict(windows).astype("float64") - windows.y
    assert np.sqrt(np.mean(error**2)) == pytest.approx(row["validation_rmse"], rel=1e-5)


def test_asha_compares_with_the_trials_of_an_earlier_run():
    from smgeo.tuning import ray_trials

    def decide(kept, rmse):
        scheduler = ray_trials.make_scheduler("asha", 9, kept)
        trial = ray.tune.experiment.Trial("new", stub=True)
        scheduler.on_trial_add(None, trial)
        return scheduler.on_trial_result(None, trial, {"training_iteration": 1, "validation_rmse": rmse})

    earlier = [Trial(n, {}, 0, None, "stopped", [], [0.1 * (n + 1)]) for n in range(3)]
    assert decide([], 0.25) == "CONTINUE"
    assert decide(earlier, 0.25) == "STOP"
    assert decide(earlier, 0.05) == "CONTINUE"


def test_asha_told_of_earlier_trials_decides_as_if_it_had_seen_them():
    from smgeo.tuning import ray_trials

    rng = np.random.default_rng(0)
    for _ in range(40):
        curves = rng.random((rng.integers(1, 9), 9)).round(2)
        live = ray_trials.make_scheduler("asha", 9, [])
        running = {k: ray.tune.experiment.Trial(f"t{k}", stub=True) for k in range(len(curves))}
        for trial in running.values():
            live.on_trial_add(None, trial)
        kept = {k: [] for k in running}
        while running:
            k = int(rng.choice(list(running)))
            kept[k].append(float(curves[k, len(kept[k])]))
            result = {"training_iteration": len(kept[k]), "validation_rmse": kept[k][-1]}
            if live.on_trial_result(None, running[k], result) == "STOP":
                live.on_trial_complete(None, running.pop(k), result)
        earlier = [Trial(k, {}, 0, None, "stopped", [], curve) for k, curve in kept.items()]
        told = ray_trials.make_scheduler("asha", 9, earlier)
        new = rng.random(9).round(2)
        decisions = []
        for scheduler in (live, told):
            trial = ray.tune.experiment.Trial("new", stub=True)
            scheduler.on_trial_add(None, trial)
            results = [{"training_iteration": e, "validation_rmse": float(v)} for e, v in enumerate(new, 1)]
            decisions.append([scheduler.on_trial_result(None, trial, r) for r in results])
        assert decisions[0] == decisions[1]


def test_folds_hold_out_whole_stations_and_pool_their_rows(cube, split):
    pairs = choose_stations(cube, split, 3, "sm", seed=1)
    held = [s for _, stations in pairs for s in stations]
    assert sorted(held) == sorted([*split.train, *split.validation])
    for train, scored in pairs:
        assert set(train) | set(scored) == set(held)
        assert not set(train) & set(scored)
    # A missing day, so that folds have not the same number of rows.
    sm = cube["sm"].copy()
    sm[0, :30] = np.nan
    cube = cube.assign(sm=sm)
    windows = [[Windows(cube.sel(station=list(ids)), FEATURES, "sm", 1) for ids in pair] for pair in pairs]
    objective = Objective("DecisionTreeRegressor", {"seed": 0}, windows)
    (scores,) = objective.run({"max_depth": 2})
    errors = []
    for train, scored in windows:
        x, y = train.to_arrays()
        tree = DecisionTreeRegressor(max_depth=2, random_state=0).fit(x.astype("float64"), y.astype("float64"))
        x, y = scored.to_arrays()
        errors.append(tree.predict(x.astype("float64")) - y)
    assert scores["validation_rmse"] == pytest.approx(np.sqrt(np.mean(np.concatenate(errors) ** 2)), rel=1e-5)


def test_each_fold_counts_with_its_best_epoch(cube, split):
    pytest.importorskip("keras")
    pairs = choose_stations(cube, split, 2, "sm", seed=1)
    windows = [[Windows(cube.sel(station=list(ids)), FEATURES, "sm", 1) for ids in pair] for pair in pairs]
    # The rate is too large, so that curves go up and down; the second fold stops early.
    params = {"units": 4, "layers": 1, "dropout": 0.0, "learning_rate": 0.3, "epochs": 7, "patience": 2}
    curves = []
    for train, held in windows:
        training = smgeo.make_model("ann", **params).fit_by_epoch(train, validation=held)
        curves.append(np.minimum.accumulate([s["val_rmse"] for s in training]))
    last = max(map(len, curves))
    best = np.array([np.pad(c, (0, last - len(c)), mode="edge") for c in curves])
    rows = [len(held) for _, held in windows]
    expected = np.sqrt(np.average(best**2, axis=0, weights=rows))
    scores = [s["validation_rmse"] for s in Objective("ann", params, windows).run({})]
    assert scores == pytest.approx(expected, rel=1e-4)


def test_a_forest_has_one_thread_in_a_trial_unless_told_otherwise():
    pytest.importorskip("ydf")
    assert Objective("rf", {}, []).make({}).threads == 1
    assert Objective("rf", {}, []).make({"threads": 3}).threads == 3


@pytest.mark.parametrize(
    ("settings", "backend"), [(None, "tensorflow"), ({"backend": "jax"}, "jax"), ("{", "tensorflow")]
)
def test_the_backend_is_found_as_keras_finds_it(settings, backend, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if settings is not None:
        (tmp_path / "keras.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
    assert keras_backend() == backend
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert keras_backend() == "torch"


def test_a_change_of_one_value_is_other_data(cube, split, tmp_path):
    options = {"trials": 1, "space": {"value": [0.1, 0.2]}}
    first = str(split.train[0])
    smgeo.tune(Constant(), cube, split, out=tmp_path, **options)
    for name in ("s1_vv", "sm"):
        changed = cube.assign({name: cube[name].copy(deep=True)})
        changed[name].loc[{"station": first, "time": cube["time"][5]}] += np.float32(0.01)
        with pytest.raises(OtherSearchError, match="the data differ"):
            smgeo.tune(Constant(), changed, split, out=tmp_path, **options)
    smgeo.tune(Constant(), cube.chunk(station=2), split, out=tmp_path, **options)


def test_an_estimator_is_known_by_names_and_values():
    pipeline = make_pipeline(FunctionTransformer(np.log1p, kw_args={"a": (1, 2)}), Constant(0.5))
    found = json.loads(json.dumps(identify(pipeline)))
    assert found["class"] == "sklearn.pipeline.Pipeline"
    (_, function), (_, constant) = found["params"]["steps"]
    assert function["params"]["func"] == "numpy.log1p"
    assert function["params"]["kw_args"] == {"a": [1, 2]}
    assert constant["params"]["value"] == 0.5
    again = make_pipeline(FunctionTransformer(np.log1p, kw_args={"a": (1, 2)}), Constant(0.5))
    assert identify(again) == identify(pipeline)
    assert identify(make_pipeline(FunctionTransformer(np.log), Constant(0.5))) != identify(pipeline)


@pytest.mark.skipif(find_spec("ax") is None, reason="ax is not installed")
def test_a_search_is_checked_without_its_libraries():
    code = """
import sys
from smgeo.recipe.search import SearchSpec
from sklearn.linear_model import Ridge
from smgeo.tuning.plan import check_libraries, check_search
spec = SearchSpec(search="ax", space={"alpha": (1, 2)})
check_search(Ridge(), spec, {})
check_libraries(spec)
print([name for name in ("ax", "torch", "optuna", "ray", "keras") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:10001", "a search cannot run through Ray's client"),
        ("nonsense", "RAY_ADDRESS is 'nonsense', and no cluster lets this process in"),
        ("127.0.0.1:1", "RAY_ADDRESS is '127.0.0.1:1', and no cluster lets this process in"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_refused(address, message):
    assert message in join(address)


def join(address):
    """What is said when a search joins the cluster of an address."""
    code = """
from smgeo.tuning.ray_session import start_ray
with start_ray(1):
    pass
"""
    environment = {**os.environ, "RAY_ADDRESS": address}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize(
    ("answer", "message"),
    [(b"", "no answer within 10 s"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is not Ray")],
)
def test_a_server_that_is_not_ray_is_not_waited_for(answer, message):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection = server.accept()[0]
            connection.sendall(answer)
            kept.append(connection)  # open, so that the client waits

        kept = []
        threading.Thread(target=serve, daemon=True).start()
        assert message in join(f"127.0.0.1:{server.getsockname()[1]}")
        kept[0].close()


GPU_SCRIPT = """
import json, os, sys, time
from pathlib import Path
import ray
from smgeo.recipe.search import SearchSpec
from smgeo.tuning.plan import SearchPlan
from smgeo.tuning.ray_session import gpu_share, start_ray
from smgeo.tuning.ray_trials import run_trials
from smgeo.tuning.searchers import make_searcher
from smgeo.tuning.trials import TrialTable


class Network:
    is_network = True

    def __init__(self, folder):
        self.folder = folder

    def run(self, params, checkpoint=None):
        seen = [os.environ["CUDA_VISIBLE_DEVICES"], ray.get_runtime_context().get_assigned_resources()["GPU"]]
        begun = time.time()
        time.sleep(3)
        Path(self.folder, f"{os.getpid()}.json").write_text(json.dumps([*seen, begun, time.time()]))
        yield {"validation_rmse": 0.1}


if __name__ == "__main__":
    ray.init(address="local", num_cpus=3, num_gpus=1, include_dashboard=False, log_to_driver=False)
    plan = SearchPlan("ann", SearchSpec(trials=2, scheduler="none"), {"x": [1, 2]}, {"seed": 0}, 1)
    with start_ray(2), TrialTable.open(Path(sys.argv[1], "out"), {}, resume=True) as table:
        searcher = make_searcher("random", plan.space, 0)
        run_trials(Network(sys.argv[1]), searcher, table, plan, concurrent=2)
        print([gpu_share(n) for n in (1, 2, 3)])
"""


@pytest.mark.soak
def test_networks_share_a_gpu(tmp_path):
    (tmp_path / "run.py").write_text(GPU_SCRIPT)
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "[1.0, 0.5, 0.3333]\n", done.stderr
    one, other = (json.loads(p.read_text()) for p in tmp_path.glob("*.json"))
    assert one[:2] == other[:2] == ["0", 0.5]
    assert max(one[2], other[2]) < min(one[3], other[3])  # at once


FULL_SCRIPT = """
import sys
from pathlib import Path
import ray
from smgeo.errors import SmgeoError
from smgeo.recipe.search import SearchSpec
from smgeo.tuning import ray_session
from smgeo.tuning.plan import SearchPlan
from smgeo.tuning.ray_trials import retrain_apart, run_trials
from smgeo.tuning.searchers import make_searcher
from smgeo.tuning.trials import TrialTable


class Never:
    is_network = False


if __name__ == "__main__":
    ray_session.START_S, ray_session._SAY_S = 4, 1
    ray.init(address="local", num_cpus=0, include_dashboard=False, log_to_driver=False)
    plan = SearchPlan("rf", SearchSpec(trials=2, scheduler="none"), {"x": [1, 2]}, {"seed": 0}, 1)
    with ray_session.start_ray(2), TrialTable.open(Path(sys.argv[1], "out"), {}, resume=True) as table:
        searcher = make_searcher("random", plan.space, 0)
        for work in (
            lambda: run_trials(Never(), searcher, table, plan, concurrent=2),
            lambda: retrain_apart("rf", {}, (None, None), 1, 2),
        ):
            try:
                work()
            except SmgeoError as error:
                print(error)
        print([t.status for t in table.trials.values()])
"""


def test_a_ray_without_room_is_not_waited_for_without_a_limit(tmp_path):
    (tmp_path / "run.py").write_text(FULL_SCRIPT)
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    *said, states = done.stdout.splitlines()
    waits = "for 4 s: 0 of 0 CPUs are free. Add nodes, or wait until others have left some free; the same command continues it"
    names = ("the search's trials", "the training of the best trial's network")
    assert said == [f"Ray gave no process to {name} {waits}" for name in names], done.stderr
    assert states == "['running', 'running']"  # the same command begins them
    for name in names:
        assert f"{name} waits for a process of Ray: 0 of 0 CPUs are free; it ends after 4 s" in done.stderr


def test_a_training_whose_process_is_killed_is_said(cube, split):
    from smgeo.tuning.ray_trials import retrain_apart

    pair = [Windows(cube.sel(station=list(ids)), FEATURES, "sm", 1) for ids in (split.train, split.validation)]
    with pytest.raises(
        SmgeoError, match="the process that trained the best trial's network again ended: .*memory may have"
    ):
        retrain_apart(Constant(how="dies"), {}, tuple(pair), 1, 2)


def test_scores_are_in_the_unit_of_the_target(cube, split):
    scaled = smgeo.Scaler("minmax").fit(cube[[*FEATURES, "sm"]]).transform(cube)
    parts = [Windows(scaled.sel(station=list(ids)), FEATURES, "sm", 1) for ids in (split.train, split.validation)]
    (tree,) = Objective("DecisionTreeRegressor", {}, [parts]).run({"max_depth": 2})
    model = smgeo.make_model("DecisionTreeRegressor", max_depth=2).fit(parts[0])
    scale = float(cube["sm"].max() - cube["sm"].min())
    error = (model.predict(parts[1]) - parts[1].y) * scale
    assert tree["validation_rmse"] == pytest.approx(float(np.sqrt(np.mean(error**2))), rel=1e-4)
    pytest.importorskip("keras")
    ann = list(Objective("ann", {"epochs": 2, "units": 8}, [parts]).run({}))
    model = smgeo.make_model("ann", epochs=2, units=8)
    curves = list(model.fit_by_epoch(parts[0], validation=parts[1]))
    assert [s["validation_rmse"] for s in ann] == pytest.approx([s["val_rmse"] * scale for s in curves], rel=1e-5)
    assert [s["rmse"] for s in ann] == pytest.approx([s["rmse"] * scale for s in curves], rel=1e-5)


def test_data_lie_in_shared_memory_and_cannot_be_written(cube, split):
    parts = [Windows(cube.sel(station=list(ids)), FEATURES, "sm", 5) for ids in (split.train, split.validation)]

    @ray.remote
    def look(objective):
        shared = []
        with open("/proc/self/maps") as handle:
            for line in handle:
                if "plasma" in line or "/dev/shm" in line:
                    shared.append([int(end, 16) for end in line.split()[0].split("-")])
        arrays = [a for pair in objective.pairs for w in pair for a in (w.flat_index()[0], w.y)]
        addresses = [a.__array_interface__["data"][0] for a in arrays]
        sums = [float(w.gather(np.arange(len(w))).sum()) for w in objective.pairs[0]]
        return [any(a <= at < b for a, b in shared) for at in addresses], [a.flags.writeable for a in arrays], sums

    inside, writeable, sums = ray.get(look.remote(ray.put(Objective("rf", {}, [parts]))))
    assert inside == [True] * 4
    assert writeable == [False] * 4
    assert sums == [float(w.gather(np.arange(len(w))).sum()) for w in parts]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("ann", {"space": {"epochs": [1, 2]}}, "epochs is not searched"),
        ("rf", {"epochs": 3}, "not trained in epochs"),
        ("ann", {"space": {"unit": [1, 2]}}, "no parameter 'unit'"),
        ("ann", {"scheduler": "hyperband"}, "scheduler"),
        ("ann", {"trials": 0}, "trials"),
        ("Ridge", {}, "give its parameters in space"),
        ("ann", {"features": []}, "no feature is named"),
        ("gru", {"length": 99}, "the training stations have no row"),
        ("rf", {"objective": 9}, "9 folds of 8 groups"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(cube, split, tmp_path, kind, options, message):
    with pytest.raises(SmgeoError, match=message):
        smgeo.tune(kind, cube, split, out=tmp_path / "out", **{"trials": 2, **options})
    assert not (tmp_path / "out").exists()


@pytest.mark.soak
def test_a_recipes_folds_are_prepared_anew_and_its_epochs_are_kept(toy_recipe, tmp_path):
    pytest.importorskip("keras")
    recipe = {k: v for k, v in toy_recipe.items() if k not in ("maps", "grid", "report")}
    recipe["prepare"] = {**recipe["prepare"], "outliers": {"z": 2.0}}
    recipe["models"] = {"tree": {"kind": "DecisionTreeRegressor"}, "ann": {"units": 4, "epochs": 3}}
    recipe["search"] = {
        "tree": {"trials": 1, "objective": 2, "space": {"max_depth": [3]}},
        "ann": {"trials": 1, "epochs": 1, "space": {"layers": [1]}},
    }
    found = smgeo.run(recipe, out=tmp_path).results
    checked = parse_recipe(recipe)
    cube = smgeo.open_cube(tmp_path / "stations.zarr").load()
    split = Split(*(tuple(found["split"][part]) for part in ("train", "validation", "test")))
    errors = []
    assert found["outliers"]["rows"] > 0  # in folds others
    for train, held in choose_stations(cube, split, 2, "sm", checked.seed):
        prepared = prepare_cube(cube, checked.prepare, checked.features, "sm", train)
        missing = checked.prepare.window.missing
        x, y = prepared.windows(train, 1, missing).to_arrays()
        tree = DecisionTreeRegressor(max_depth=3, random_state=checked.seed).fit(x, y)
        x, y = prepared.windows(held, 1, missing).to_arrays()
        errors.append((tree.predict(x) - y) * prepared.scaler.scale_["sm"])
    (trial,) = found["search"]["tree"]["trials"]
    assert trial["validation_rmse"] == pytest.approx(np.sqrt(np.mean(np.concatenate(errors) ** 2)), rel=1e-5)
    assert json.loads((tmp_path / "models" / "ann" / "model.json").read_text())["params"]["epochs"] == 1


def test_more_folds_than_stations_are_refused_before_anything_is_built(toy_recipe, tmp_path):
    recipe = {k: v for k, v in toy_recipe.items() if k not in ("maps", "grid", "report")}
    recipe["search"] = {"rf": {"objective": 21}}
    with pytest.raises(SmgeoError, match=r"search\.rf\.objective: 21 folds of 20 groups of stations"):
        smgeo.run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_command_tunes_and_run_takes_what_was_found(toy_recipe, tmp_path):
    import yaml
    from typer.testing import CliRunner

    from smgeo import cli

    recipe = {k: v for k, v in toy_recipe.items() if k not in ("maps", "grid", "report")}
    recipe["models"] = {"rf": {"trees": 3}}
    recipe["search"] = {"rf": {"trials": 2, "space": {"max_depth": {"integer": [1, 12]}}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "run"
    command = ["tune", str(tmp_path / "r.yaml"), "--out", str(out)]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    table = out / "search" / "rf" / "trials.parquet"
    assert str(table) in done.stdout.replace("\n", "")
    before = read_trials(table.parent)
    assert sorted(before) == [0, 1]
    done = CliRunner().invoke(cli.app, [*command, "--trials", "3"])
    assert done.exit_code == 0, done.output
    results = smgeo.run(recipe, out=out).results["search"]["rf"]
    after = read_trials(table.parent)
    assert {n: after[n] for n in before} == before
    assert [(t["trial"], t["status"]) for t in results["trials"]] == [(n, "finished") for n in range(3)]
    assert results["best"] == min(after, key=lambda n: after[n].validation_rmse[0])
    # Another split is other data: the table is kept aside, and a new one made.
    other = {**recipe, "seed": 5}
    with pytest.warns(
        SmgeoWarning, match="seed was 0 and is 5; the data differ.*it is kept in .*rf.1, and a new search"
    ):
        smgeo.run(other, out=out)
    assert sorted(read_trials(table.parent)) == [0, 1]
    assert read_trials(table.parent.with_name("rf.1")) == after
    done = CliRunner().invoke(cli.app, [*command, "--model", "ann"])
    assert "--model 'ann' is not in the recipe's models" in str(done.exception)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": ["sm", "s1_vv"]}, "the target 'sm' is among the features"),
        ({"space": {"value": {0.1, 0.2}}}, "value is a set, whose order changes"),
        ({"space": {"value": [0.1, float("nan")]}}, "choices must be finite numbers"),
        ({"params": {"seconds": float("nan")}}, "parameters must be finite numbers"),
        ({"seed": 2**64}, "seed: needs a number not above 4294967295"),
    ],
)
def test_what_would_spoil_a_search_is_refused_before_it_begins(cube, split, tmp_path, changes, message):
    options = {"trials": 1, "space": {"value": [0.1, 0.2]}, **changes}
    with pytest.raises(SmgeoError, match=message):
        smgeo.tune(Constant(), cube, split, out=tmp_path / "s", **options)
    assert not (tmp_path / "s" / "search.json").exists()


def test_a_filled_target_is_not_searched_on(cube, split, tmp_path):
    filled = cube.assign(sm=cube["sm"].assign_attrs(gaps_filled=3))
    with pytest.raises(SmgeoError, match="models are scored on observations"):
        smgeo.tune(Constant(), filled, split, out=tmp_path / "s", trials=1, space={"value": [0.1]})


def test_a_table_that_another_program_changed_is_refused(cube, split, tmp_path):
    options = {"trials": 1, "space": {"value": [0.1, 0.2]}, "out": tmp_path / "s"}
    found = smgeo.tune(Constant(), cube, split, **options)
    found.table.assign(params='{"zz": 5}').to_parquet(found.path)
    with pytest.raises(SmgeoError, match="trial 0 has the parameters zz, and the search has value"):
        smgeo.tune(Constant(), cube, split, **options)
    (tmp_path / "s" / "search.json").write_text("[]")
    with pytest.raises(SmgeoError, match="is damaged"):
        smgeo.tune(Constant(), cube, split, **options)
    (tmp_path / "s" / "search.json").unlink()
    for resume in (True, False):
        with pytest.raises(SmgeoError, match=r"trials.parquet without search.json"):
            smgeo.tune(Constant(), cube, split, resume=resume, **options)


def test_a_search_that_never_began_blocks_no_other(cube, split, tmp_path):
    (tmp_path / "search.json").write_text('{"seed": 99}')
    found = smgeo.tune(Constant(), cube, split, out=tmp_path, trials=1, space={"value": [0.1]})
    assert found.table["status"].tolist() == ["finished"]
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SmgeoError, match="is a file, or below one"):
            smgeo.tune(Constant(), cube, split, out=out, trials=1, space={"value": [0.1]})


def test_different_estimators_are_known_apart():
    def power(n):
        return lambda x: x**n

    pairs = [
        (FunctionTransformer(lambda x: x * 0), FunctionTransformer(lambda x: x)),
        (FunctionTransformer(power(2)), FunctionTransformer(power(3))),
        (FunctionTransformer(partial(np.clip, a_min=0)), FunctionTransformer(partial(np.clip, a_min=5))),
        (RidgeCV(cv=KFold(3)), RidgeCV(cv=KFold(9))),
        (DecisionTreeRegressor(random_state=RandomState(0)), DecisionTreeRegressor(random_state=RandomState(1))),
        (SimpleImputer(), SimpleImputer(missing_values=0.0)),
    ]
    for a, b in pairs:
        assert identify(a) == identify(clone(a)) != identify(b)
        json.dumps(identify(a), allow_nan=False)


def test_numbers_of_numpy_are_numbers(cube, split, tmp_path):
    space = {"max_depth": list(np.arange(2, 4))}
    found = smgeo.tune(
        "DecisionTreeRegressor",
        cube,
        split,
        out=tmp_path,
        trials=1,
        space=space,
        params={"min_samples_leaf": np.int64(3)},
    )
    assert found.params["max_depth"] in (2, 3)
    assert found.params["min_samples_leaf"] == 3
