"""The table of trials: what is written is read back, and a folder belongs to one search."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.errors import SmgeoError
from smgeo.tuning.trials import OtherSearchError, Trial, TrialTable, read_trials

NOW = pd.Timestamp("2026-01-02 03:04:05.678901", tz="UTC")
VALUES = st.one_of(
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.booleans(),
    st.none(),
    st.lists(st.integers(0, 9), max_size=3),
)
CURVE = st.lists(st.floats(0, 1e6), max_size=4)
TRIALS = st.lists(
    st.builds(
        Trial,
        number=st.integers(0, 50),
        params=st.fixed_dictionaries({"units": VALUES, "activation": VALUES}),
        seed=st.integers(0, 2**31),
        started=st.just(NOW),
        status=st.sampled_from(["running", "finished", "stopped", "failed", "lost"]),
        rmse=CURVE,
        validation_rmse=CURVE,
        seconds=st.floats(0, 1e6),
        node=st.text(max_size=5),
        pid=st.integers(0, 10**6),
        error=st.text(max_size=20),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda t: t.number,
)


@given(trials=TRIALS)
@settings(max_examples=40, deadline=None)
def test_trials_are_read_back_as_they_were(tmp_path_factory, trials):
    folder = tmp_path_factory.mktemp("table")
    table = TrialTable(folder, {t.number: t for t in trials})
    table.write()
    back = read_trials(folder)
    assert back == {t.number: t for t in trials}
    for trial in back.values():
        for name, value in trial.params.items():
            assert type(value) is type(table.trials[trial.number].params[name])


def test_columns_of_the_table_by_hand(tmp_path):
    a = Trial(1, {"units": 8, "rate": 0.1}, 0, NOW, "finished", [0.5, 0.4], [0.3, 0.1, 0.2], 2.5, "n1", 7)
    b = Trial(0, {"units": 16, "rate": 0.2}, 0, NOW, "failed", error="ValueError: no")
    TrialTable(tmp_path, {1: a, 0: b}).write()
    rows = pd.read_parquet(tmp_path / "trials.parquet")
    assert rows["trial"].tolist() == [0, 1]
    assert rows["status"].tolist() == ["failed", "finished"]
    assert rows["params.units"].tolist() == [16, 8]
    assert rows["params.rate"].tolist() == [0.2, 0.1]
    assert rows["epochs"].tolist() == [0, 3]
    assert rows["best_epoch"].tolist() == [0, 2]
    assert np.isnan(rows["validation_rmse"][0])
    assert rows["validation_rmse"][1] == 0.1
    assert list(rows["validation_rmse_curve"][1]) == [0.3, 0.1, 0.2]
    assert str(rows["started"].dt.tz) == "UTC"
    assert rows["error"].tolist() == ["ValueError: no", ""]


def test_a_table_in_which_every_trial_failed_or_was_lost_begins_anew(tmp_path):
    failed, lost = Trial(0, {}, 0, NOW, "failed", error="no"), Trial(1, {}, 0, NOW, "lost", [], [0.2])
    assert lost.score is None
    for rows, kept in (([failed, lost], []), ([failed, lost, Trial(2, {}, 0, NOW)], [0, 1, 2])):
        TrialTable(tmp_path, {t.number: t for t in rows}).write()
        (tmp_path / "search.json").write_text('{"seed": 0}')
        with TrialTable.open(tmp_path, {"seed": 0}, resume=True) as table:
            assert sorted(table.trials) == kept


@pytest.mark.parametrize("cut", [0, 100, -20])
def test_a_damaged_table_is_named(tmp_path, cut):
    TrialTable(tmp_path, {0: Trial(0, {"units": 8}, 0, NOW)}).write()
    path = tmp_path / "trials.parquet"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SmgeoError, match=r"trials\.parquet is damaged"):
        read_trials(tmp_path)


def test_the_best_trial_has_not_failed(tmp_path):
    def trial(number, status, *curve):
        return Trial(number, {}, 0, NOW, status, [], list(curve))

    rows = [trial(0, "failed", 0.1), trial(1, "running", 0.1), trial(2, "stopped", 0.3, 0.2), trial(3, "finished", 0.2)]
    table = TrialTable(tmp_path, {})
    assert table.best() is None
    table.trials = {t.number: t for t in rows}
    assert table.best().number == 2
    assert table.count("finished", "stopped") == 2


def test_a_folder_belongs_to_one_search(tmp_path):
    search = {"kind": "rf", "seed": 0, "trials": 3, "concurrent": None}
    with (
        TrialTable.open(tmp_path, search, resume=True),
        pytest.raises(SmgeoError, match="another search"),
        TrialTable.open(tmp_path, search, resume=True),
    ):
        pass
    with TrialTable.open(tmp_path, {**search, "trials": 5, "concurrent": 2}, resume=True) as table:
        table.trials[0] = Trial(number=0, params={}, seed=0, started=NOW, status="finished", validation_rmse=[0.1])
        table.write()
    with (
        pytest.raises(OtherSearchError, match="seed was 0 and is 1; the data differ"),
        TrialTable.open(tmp_path, {**search, "seed": 1, "data": "abc"}, resume=True),
    ):
        pass
    with pytest.raises(SmgeoError, match="resume is false"), TrialTable.open(tmp_path, search, resume=False):
        pass
    assert json.loads((tmp_path / "search.json").read_text())["trials"] == 5
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(SmgeoError, match=r"search.json is not JSON"), TrialTable.open(tmp_path, search, resume=True):
        pass
