"""Training that is stopped and goes on: the numbers of a training that never stopped."""

from __future__ import annotations

import numpy as np
import pytest

import smgeo
from smgeo.errors import SmgeoError
from smgeo.hpc.machine import LocalMachine
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.data_parallel import fit_parallel
from smgeo.models.team import Share
from smgeo.prepare import Windows


def make_data(seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(600, 5, 3)).astype("float32")
    y = (0.3 * x[:, -1, 0] + 0.2 * x[:, -3, 1]).astype("float32")
    return (x[100:], y[100:]), (x[:100], y[:100])


def new_model(**params):
    return smgeo.make_model("gru", **{"units": 4, "epochs": 4, "dropout": 0.3, "schedule": "cosine", **params})


def stop_after(model, epochs, data, held, checkpoint):
    training = model.fit_by_epoch(*data, validation=held, checkpoint=checkpoint)
    for scores in training:
        if scores["epoch"] == epochs:
            break
    training.close()


def test_a_stopped_training_goes_on_to_the_same_numbers(tmp_path):
    data, held = make_data()
    whole = new_model().fit(*data, validation=held)
    file = tmp_path / "kept" / "gru.npz"
    stop_after(new_model(), 2, data, held, Checkpoint(file))
    told = []
    again = new_model().fit(*data, validation=held, checkpoint=Checkpoint(file), progress=lambda *a: told.append(a[0]))
    assert told == [1, 2, 3, 4]  # epochs of the checkpoint are yielded again
    assert again.history_ == whole.history_
    assert np.array_equal(again.predict(data[0]), whole.predict(data[0]))


def test_early_stopping_counts_on(tmp_path):
    data, held = make_data()
    # A rate so high that the first epochs are the best: stopped after `patience` more.
    params = {"learning_rate": 1.0, "schedule": "constant", "patience": 2, "epochs": 30}
    whole = new_model(**params).fit(*data, validation=held)
    stopped_at = len(whole.history_["rmse"])
    assert 3 <= stopped_at < 30
    for epochs in (1, stopped_at - 1, stopped_at):
        file = tmp_path / f"{epochs}.npz"
        stop_after(new_model(**params), epochs, data, held, Checkpoint(file))
        again = new_model(**params).fit(*data, validation=held, checkpoint=Checkpoint(file))
        assert again.history_ == whole.history_
        assert np.array_equal(again.predict(held[0]), whole.predict(held[0]))


@pytest.mark.parametrize(
    "change", ["params", "data", *(pytest.param(n, marks=pytest.mark.soak) for n in ("validation", "key")), "damage"]
)
def test_a_checkpoint_of_another_training_is_not_taken(change, tmp_path):
    data, held = make_data()
    file = tmp_path / "gru.npz"
    stop_after(new_model(), 2, data, held, Checkpoint(file, key="a"))
    params, key = {}, "a"
    if change == "params":
        params = {"units": 5}
    elif change == "data":
        data = make_data(1)[0]
    elif change == "validation":
        held = make_data(1)[1]
    elif change == "key":
        key = "b"
    else:
        file.write_bytes(file.read_bytes()[:-100])
    whole = new_model(**params).fit(*data, validation=held)
    told = new_model(**params).fit(*data, validation=held, checkpoint=Checkpoint(file, key=key))
    assert told.history_ == whole.history_


def test_a_checkpoint_holds_no_pickle(tmp_path):
    data, held = make_data()
    file = tmp_path / "gru.npz"
    stop_after(new_model(), 1, data, held, Checkpoint(file))
    with np.load(file, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)
    assert [f.name for f in tmp_path.iterdir()] == ["gru.npz"]


def test_a_checkpoint_is_written_when_it_is_time(tmp_path):
    data, held = make_data()
    file = tmp_path / "gru.npz"
    stop_after(new_model(), 2, data, held, Checkpoint(file, every_s=3600))
    assert not file.exists()


class Numbers:
    """Rows 0, 1, 2, ... as a source of batches."""

    def batch(self, rows):
        return rows[:, None].astype("float32"), rows.astype("float32")


def test_processes_share_every_batch():
    rows = np.array([4, 1, 7, 0, 3])
    parts = [Share(Numbers(), rank, 2).batch(rows) for rank in (0, 1)]
    assert [y.tolist() for _, y, _ in parts] == [[4, 7, 3], [1, 0]]
    # Fewer rows than processes: each row counts once all the same.
    parts = [Share(Numbers(), rank, 3).batch(rows[:2]) for rank in range(3)]
    assert [(y.tolist(), w.tolist()) for _, y, w in parts] == [([4], [True]), ([1], [True]), ([4], [False])]


@pytest.mark.parametrize("mode", ["window", pytest.param("sequence", marks=pytest.mark.soak)])
def test_training_by_two_processes_equals_training_by_one(mode, make_station_cube, tmp_path):
    cube = make_station_cube(stations=8, days=60)
    features = ["s1_vv", "temperature"]
    length = {"length": 5} if mode == "window" else {"length": 5, "mode": "sequence"}
    scaled = smgeo.Scaler("standard").fit(cube[[*features, "sm"]]).transform(cube[[*features, "sm"]])
    fill = [0.0, 0.0] if mode == "sequence" else None
    train, held = (Windows(scaled.isel(station=s), features, fill=fill, **length) for s in (slice(0, 6), slice(6, 8)))
    params = {
        "units": 4,
        "epochs": 2,
        "dropout": 0.0,
        "input_dropout": 0.0,
        "mode": mode,
        "batch_size": 30 if mode == "window" else 4,
    }
    if mode == "sequence":
        params["crop_days"] = 20
    one = smgeo.make_model("gru", **params).fit(train, validation=held)
    told = []
    two = fit_parallel(
        smgeo.make_model("gru", **params),
        train,
        validation=held,
        workers=2,
        start=lambda command, log: LocalMachine().start(command, log, 2),
        folder=tmp_path / "training",
        checkpoint=Checkpoint(tmp_path / "gru.npz"),
        progress=lambda *a: told.append(a),
    )
    for a, b in zip(one._model.get_weights(), two._model.get_weights(), strict=True):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(a).max() + 1e-7
    for name, values in one.history_.items():
        assert np.allclose(values, two.history_[name], rtol=1e-4)
    assert two.training_["rows"] == one.training_["rows"]
    assert told
    assert not (tmp_path / "training").exists()


def test_what_processes_cannot_train_together_is_refused(tmp_path, monkeypatch):
    asked = {"workers": 2, "start": None, "folder": tmp_path / "t", "checkpoint": Checkpoint(tmp_path / "c")}
    with pytest.raises(SmgeoError, match="rf is not trained in epochs"):
        fit_parallel(smgeo.make_model("rf"), None, **asked)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(SmgeoError, match="set KERAS_BACKEND=tensorflow"):
        fit_parallel(smgeo.make_model("gru"), None, **asked)


def test_processes_that_die_again_and_again_are_given_up(tmp_path, make_station_cube):
    features = ["s1_vv", "temperature"]
    train = Windows(make_station_cube()[[*features, "sm"]], features, length=3)
    started = []

    def start(command, log):
        started.append(command)
        return LocalMachine().start(["/bin/sh", "-c", "echo no luck; exit 5"], log, 2)

    with pytest.raises(SmgeoError, match=r"ended 4 times before an epoch was done \(exit code 5\).*no luck"):
        fit_parallel(
            smgeo.make_model("gru"),
            train,
            workers=2,
            start=start,
            folder=tmp_path / "t",
            checkpoint=Checkpoint(tmp_path / "c.npz"),
        )
    assert len(started) == 4
