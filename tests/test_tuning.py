"""Searches with a real Ray: what a table says is true, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.tree import DecisionTreeRegressor

import smgeo
from smgeo.errors import SmgeoError
from smgeo.objective import Objective
from smgeo.prepare import Split, Windows
from smgeo.search_space import sample_params
from smgeo.search_specs import Range
from smgeo.trials import OtherSearchError, Trial, read_trials
from smgeo.tuning import choose_stations

ray = pytest.importorskip("ray")
FEATURES = ["clay", "precipitation", "s1_vv", "temperature"]


class Constant(RegressorMixin, BaseEstimator):
    """Predicts `value`; or does what `how` says. Each fit leaves a line in `log`."""

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
        return self

    def predict(self, X):
        return np.full(len(X), np.nan if self.how == "is nan" else self.value)


@pytest.fixture(scope="module", autouse=True)
def _one_ray():
    """One Ray for all searches of this module."""
    from smgeo import ray_trials

    with ray_trials.start_ray(2):
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
    with pytest.raises(OtherSearchError, match="data was"):
        smgeo.tune(Constant(), cube.assign(sm=cube["sm"] + np.float32(0.1)), split, out=tmp_path / "a", **options)
    with pytest.raises(OtherSearchError, match="scheduler was .asha. and is .none."):
        smgeo.tune(Constant(), cube, split, out=tmp_path / "a", scheduler="none", **options)
    with pytest.raises(SmgeoError, match="resume is false"):
        smgeo.tune(Constant(), cube, split, out=tmp_path / "a", resume=False, **options)
    with pytest.raises(SmgeoError, match="no trial 9"):
        found.retrain(9)


def test_trials_that_fail_are_recorded_and_the_search_goes_on(cube, split, tmp_path):
    space = {"how": ["well", "raises", "dies", "is nan"]}
    asked = [sample_params(space, n, 5)["how"] for n in range(8)]
    assert set(asked) == set(space["how"])
    log = tmp_path / "log"
    fixed = {"value": 0.3, "log": str(log)}
    found = smgeo.tune(Constant(), cube, split, trials=8, space=space, params=fixed, seed=5, out=tmp_path / "out")
    errors = {"raises": "RuntimeError: no model of 0.3", "dies": "process that ran it ended", "is nan": "RMSE is nan"}
    for how, (_, row) in zip(asked, found.table.iterrows(), strict=True):
        assert row["status"] == ("finished" if how == "well" else "failed")
        assert errors.get(how, "") in row["error"]
        assert "\n" not in row["error"]
    assert len(log.read_text().splitlines()) == 8
    with pytest.raises(SmgeoError, match=r"all 2 trials failed; trial 0 with RuntimeError: no model of 0\.0"):
        smgeo.tune(
            Constant(),
            cube,
            split,
            trials=2,
            space={"value": [0.0, 0.01]},
            params={"how": "raises"},
            out=tmp_path / "b",
        )


SCRIPT = """
import sys
from pathlib import Path
import xarray as xr
from test_tuning import search_slowly, split_in_order

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
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
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


def test_asha_compares_with_the_trials_of_an_earlier_run():
    from smgeo import ray_trials

    def decide(kept, rmse):
        scheduler = ray_trials.make_scheduler("asha", 9, kept)
        trial = ray.tune.experiment.Trial("new", stub=True)
        scheduler.on_trial_add(None, trial)
        return scheduler.on_trial_result(None, trial, {"training_iteration": 1, "validation_rmse": rmse})

    earlier = [Trial(n, {}, 0, None, "stopped", [], [0.1 * (n + 1)]) for n in range(3)]
    assert decide([], 0.25) == "CONTINUE"
    assert decide(earlier, 0.25) == "STOP"
    assert decide(earlier, 0.05) == "CONTINUE"


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
        ("rf", {"objective": 9}, "9 folds of 8 stations"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(cube, split, tmp_path, kind, options, message):
    with pytest.raises(SmgeoError, match=message):
        smgeo.tune(kind, cube, split, out=tmp_path / "out", **{"trials": 2, **options})
    assert not (tmp_path / "out").exists()


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
    # Another split is other data: the table is made anew.
    other = {**recipe, "seed": 5}
    smgeo.run(other, out=out)
    assert sorted(read_trials(table.parent)) == [0, 1]
    done = CliRunner().invoke(cli.app, [*command, "--model", "ann"])
    assert "--model 'ann' is not in the recipe's models" in str(done.exception)
