"""Days from names of files, and days of a period."""

from __future__ import annotations

import datetime as dt

import pandas as pd
import pytest

from smgeo.errors import SmgeoError
from smgeo.sources.pixels.dates import date_in_name, day_axis


@pytest.mark.parametrize(
    ("name", "pattern", "day"),
    [
        ("S1A_IW_GRDH_1SDV_20200107T235959_20200108T000024_x.tif", "S1A_*_%Y%m%dT%H%M%S_*.tif", "2020-01-07"),
        ("LC08_L1TP_014032_20180115_20180120_01_T1_B10.TIF", "LC08_*_*_%Y%m%d_*_B10.TIF", "2018-01-15"),
        ("A2020060.tif", "A%Y%j.tif", "2020-02-29"),
    ],
)
def test_a_pattern_tells_the_day(name, pattern, day):
    assert date_in_name(name, pattern) == pd.Timestamp(day)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("s_%m%d.tif", "needs a year"),
        ("s_20200101.tif", "needs a year"),
        ("s_%Y%m%d_%Y%m%d.tif", "each of %Y, %m, %d, ... once"),
        ("s_%Y-%m-%d.tif", "does not match"),
        ("s_%Y.%m%d.tif", "does not match"),
        ("s_%d%m%Y.tif", "date would be day 20, month 20, year 0101, which does not exist"),
    ],
)
def test_a_pattern_that_tells_no_day_is_refused(pattern, why):
    with pytest.raises(SmgeoError, match=why):
        date_in_name("s_20200101.tif", pattern)


def test_a_period_is_of_whole_utc_days():
    expected = ["2020-01-01", "2020-01-02"]
    for period in (
        ("2020-01-01", dt.date(2020, 1, 2)),
        (pd.Timestamp("2020-01-01 12:00"), pd.Timestamp("2020-01-02 06:00")),
        ("2020-01-01T01:00+01:00", "2020-01-03T00:30+01:00"),
    ):
        assert [f"{d:%Y-%m-%d}" for d in day_axis([], period)] == expected
        assert day_axis([], period).tz is None


@pytest.mark.parametrize(
    ("period", "why"),
    [
        (("2020-02-01", "2020-01-01"), "2020-01-01 is before 2020-02-01"),
        (("2020-01-01", "soon"), "'soon' is not a date"),
    ],
)
def test_a_period_that_is_none_is_refused(period, why):
    with pytest.raises(SmgeoError, match=why):
        day_axis([], period)
