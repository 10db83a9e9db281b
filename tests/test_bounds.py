"""Bounds of numbers and days, and sizes weighed against the machine."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest

import smgeo
from smgeo.bounds import Bound, check_day, check_number, check_period, in_bytes, weigh_disk, weigh_memory
from smgeo.errors import SmgeoError
from smgeo.models.calibration import check_stations


@pytest.mark.parametrize(
    "day",
    [
        "2020-01-31",
        "2020-01-31T12:00",
        dt.date(2020, 1, 31),
        np.datetime64("2020-01-31"),
        pd.Timestamp("2020-01-31", tz="UTC"),
    ],
)
def test_a_day_in_each_of_its_forms(day):
    assert check_day("x", day) == dt.date(2020, 1, 31)


@pytest.mark.parametrize(
    "day",
    [
        "2020",
        "20200131",
        20200131,
        0,
        True,
        None,
        "2020-02-30",
        "1899-12-31",
        "2201-01-01",
        "NaT",
        pd.NaT,
        np.datetime64("NaT"),
        1.5,
    ],
)
def test_what_is_no_day_is_refused(day):
    with pytest.raises(SmgeoError, match="x: a day is a date from 1900 to 2200, such as 2020-01-31; got"):
        check_day("x", day)


@pytest.mark.parametrize(
    ("period", "words"),
    [
        ((2020, 2021), "period: a day is a date"),
        ("2020-01-01", "period must be a first and a last day"),
        ((), "period must be a first and a last day"),
        (("2020-01-02", "2020-01-01"), "period ends before it begins: 2020-01-02 to 2020-01-01"),
    ],
)
def test_what_is_no_period_is_refused(period, words):
    with pytest.raises(SmgeoError, match=words):
        check_period("open_stations", period)


def test_the_ends_of_a_bound_are_said_and_kept():
    bound = Bound(0, 1, whole=False, open_low=True)
    check_number("x", "share", 1, bound)
    for value in (0, 1.1, float("nan"), True, "1"):
        with pytest.raises(SmgeoError, match="x: share must be a number above 0 and at most 1; got"):
            check_number("x", "share", value, bound)


def test_work_larger_than_the_machine_is_refused_with_both_sizes(tmp_path, monkeypatch):
    total = psutil.virtual_memory().total
    with pytest.raises(
        SmgeoError,
        match=rf"a forest needs about 4,000 PB, and .* of memory are free, of {in_bytes(total)}; .*SMGEO_ANY_SIZE=1",
    ):
        weigh_memory("a forest", 4e18)
    with pytest.raises(SmgeoError, match="a world needs about 4,000 PB, and .* of disk are free at"):
        weigh_disk("a world", 4e18, tmp_path / "not" / "there")
    weigh_memory("a tree", 1000)
    monkeypatch.setenv("SMGEO_ANY_SIZE", "1")
    weigh_memory("a forest", 4e18)


def test_a_world_larger_than_the_machine_is_refused_before_any_work(tmp_path):
    with pytest.raises(
        SmgeoError, match="a world of 10,000,000 stations, 100,000 days and 1,000,000 x 1,000,000 pixels needs about"
    ):
        smgeo.simulate(tmp_path / "w", 10_000_000, 100_000, (1_000_000, 1_000_000))
    assert not list(tmp_path.iterdir())


def test_a_forest_larger_than_the_machine_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6, total=2 * 10**6))
    x = np.zeros((1000, 2), dtype="float32")
    with pytest.raises(
        SmgeoError,
        match="a forest of 500 trees on 1,000 rows .*needs about 1.6 MB, and 1 MB of memory are free, of 2 MB",
    ):
        smgeo.make_model("rf", trees=500, min_examples=5, engine="sklearn").fit(x, x[:, 0])


@pytest.mark.parametrize(("level", "fewest"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_intervals_need_as_many_stations_as_their_quantile(level, fewest):
    # The smallest K with ceil((K + 1) level) <= K.
    check_stations(level, fewest, "the split has")
    with pytest.raises(SmgeoError, match=f"need {fewest} stations to learn from; the split has {fewest - 1}"):
        check_stations(level, fewest - 1, "the split has")
