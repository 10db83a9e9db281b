"""Times of gridded files: the day of each value and the sum of a day, by hand."""

from __future__ import annotations

import shutil

import cftime
import h5netcdf
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smgeo.cube.tally import counting_dropped
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.sources.gridded.reader import open_gridded

NAN = np.nan
RAIN = {"kind": "netcdf", "path": "*.nc", "bands": {"precipitation": "pr"}}
WARM = {"kind": "netcdf", "path": "*.nc", "bands": {"temperature": "pr"}}


def series(path, times, values, *, bounds=None, units="mm", attrs=None, time_attrs=None, dim="time"):
    """A file of 2 x 2 pixels, all alike; `bounds` are the starts and ends of intervals."""
    values = np.asarray(values, dtype="f4")[:, None, None] * np.ones((1, 2, 2), "f4")
    ds = xr.Dataset(
        {"pr": ((dim, "lat", "lon"), values, {"units": units, **(attrs or {})})},
        {dim: (dim, times, time_attrs or {}), "lat": [1.0, 0], "lon": [0.0, 1]},
    )
    encoding = {}
    if bounds is not None:
        ds["time_bnds"] = (dim, "bnds"), np.stack(bounds, axis=1)
        ds[dim].attrs["bounds"] = "time_bnds"
        encoding = {n: {"units": "hours since 2000-01-01", "dtype": "f8"} for n in (dim, "time_bnds")}
    ds.to_netcdf(path, engine="h5netcdf", encoding=encoding)


def days(root, spec=RAIN, **keys):
    """Day -> value of the first pixel."""
    (found,) = open_gridded({**spec, **keys}, root=root).data_vars.values()
    return dict(zip(found["time"].dt.strftime("%m-%d").values.tolist(), found.values[:, 0, 0].tolist(), strict=True))


def hours(first, last, freq="h"):
    return pd.date_range(first, last, freq=freq)


@pytest.mark.parametrize("bounds", [False, True])
def test_totals_of_several_days_are_not_those_of_a_day(tmp_path, bounds):
    starts = pd.to_datetime(["2020-06-01", "2020-06-11"][: 1 if bounds else 2])  # one time shows no step, its bounds do
    ends = starts + pd.Timedelta("10D")
    series(tmp_path / "a.nc", starts, [30.0, 50.0][: len(starts)], bounds=(starts, ends) if bounds else None)
    with pytest.raises(
        SmgeoError, match="precipitation is in 'mm' and its times are 10 days apart.*variable of your own"
    ):
        days(tmp_path)
    # Totals of single days, some days apart.
    assert days(tmp_path, scale={"precipitation": 1})["06-01"] == 30


# Each time once


@pytest.mark.parametrize("rule", ["sum", "mean"])
def test_a_time_in_two_files_counts_once(tmp_path, rule):
    times = hours("2020-06-01", "2020-06-03 23:00")
    series(tmp_path / "a.nc", times[:26], np.ones(26))
    series(tmp_path / "b.nc", times[24:], np.full(48, 3.0))
    scale = {"scale": {"precipitation": 24 if rule == "mean" else 1}}
    with pytest.warns(SmgeoWarning, match=r"2 times again .*2020-06-02 00:00, 2020-06-02 01:00.*/a\.nc and .*/b\.nc"):
        got = days(tmp_path, daily=rule, **scale)
    assert got == {"06-01": 24, "06-02": 2 + 22 * 3, "06-03": 72}


def test_a_file_that_is_there_twice_counts_once(tmp_path):
    series(tmp_path / "a.nc", hours("2020-06-01", "2020-06-01 23:00"), np.ones(24))
    shutil.copy(tmp_path / "a.nc", tmp_path / "a (1).nc")
    with pytest.warns(SmgeoWarning, match="24 times again"):
        assert days(tmp_path, daily="sum") == {"06-01": 24}


def test_one_value_a_day_given_twice(tmp_path):
    series(tmp_path / "a.nc", pd.to_datetime(["2020-06-01", "2020-06-02", "2020-06-02"]), [1, 2, 5])
    with pytest.warns(SmgeoWarning, match=r"1 time again .*2020-06-02 00:00; the first in .*/a\.nc\)"):
        assert days(tmp_path) == {"06-01": 1, "06-02": 2}


# A whole day


@pytest.mark.parametrize(("freq", "times"), [("30min", 48), ("h", 24), ("3h", 8), ("6h", 4)])
def test_a_whole_day_is_known_from_the_step(tmp_path, freq, times):
    # No day is whole: each lacks its last time.
    every = hours("2020-06-01", "2020-06-03 23:59", freq)
    kept = every[np.arange(every.size) % times != times - 1]
    series(tmp_path / "a.nc", kept, np.ones(kept.size))
    assert all(np.isnan(v) for v in days(tmp_path, daily="sum").values())
    series(tmp_path / "a.nc", every, np.ones(every.size))
    assert list(days(tmp_path, daily="sum").values()) == [times] * 3


def test_times_of_few_digits(tmp_path):
    # Hours as float32 days since 1900 are up to three minutes off.
    offsets = (hours("2020-06-01", "2020-06-02 23:00") - pd.Timestamp("1900-01-01")) / pd.Timedelta(1, "D")
    series(
        tmp_path / "a.nc", offsets.to_numpy().astype("f4"), np.ones(48), time_attrs={"units": "days since 1900-01-01"}
    )
    assert days(tmp_path, daily="sum") == {"06-01": 24, "06-02": 24}


def test_one_hour_is_no_day(tmp_path):
    at = pd.to_datetime(["2020-06-01 05:00"])
    series(tmp_path / "a.nc", at, [3], bounds=(at - pd.Timedelta(1, "h"), at))
    assert np.isnan(days(tmp_path, daily="sum")["06-01"])
    with pytest.raises(SmgeoError, match="1 time on 2020-06-01 .UTC., of 1 h; set how they are combined"):
        days(tmp_path)


def test_steps_that_do_not_divide_a_day(tmp_path):
    times = hours("2020-06-01", "2020-06-03 23:00", "5h")
    series(tmp_path / "a.nc", times, np.ones(times.size))
    with pytest.raises(SmgeoError, match="times 5 h apart, which do not divide a day"):
        days(tmp_path, daily="sum")


def test_more_times_than_the_step_gives(tmp_path):
    times = hours("2020-06-01", "2020-06-02 23:00").append(pd.to_datetime(["2020-06-01 00:30"])).sort_values()
    series(tmp_path / "a.nc", times, np.ones(49))
    with pytest.raises(SmgeoError, match="25 times on 2020-06-01, but its step of 1 h gives 24 a day"):
        days(tmp_path, daily="sum")


def test_times_in_file_names(tmp_path):
    for hour in range(0, 24, 6):
        ds = xr.Dataset(
            {"pr": (("lat", "lon"), np.full((2, 2), 1.0), {"units": "mm"})}, {"lat": [1.0, 0], "lon": [0.0, 1]}
        )
        ds.to_netcdf(tmp_path / f"r_20200601_{hour:02d}.nc", engine="h5netcdf")
    spec = {**RAIN, "daily": "sum"}
    assert days(tmp_path, spec, dates="r_%Y%m%d_%H.nc") == {"06-01": 4}
    with pytest.raises(SmgeoError, match="4 files on 2020-06-01, whose hours are unknown.* put %H and %M in dates"):
        days(tmp_path, spec, dates="r_%Y%m%d_*.nc")
    (tmp_path / "r_20200601_18.nc").unlink()
    assert np.isnan(days(tmp_path, {**spec, "stamp": "start"}, dates="r_%Y%m%d_%H.nc")["06-01"])
    # The mean of what there is needs no hours.
    warm = {**WARM, "daily": "mean", "scale": {"temperature": 2}}
    assert days(tmp_path, warm, dates="r_%Y%m%d_*.nc") == {"06-01": 2}


# The day of a value


@pytest.mark.parametrize("given", ["bounds", "key"])
def test_times_at_the_end_of_their_interval(tmp_path, given):
    def write(times, length, values):
        bounds = (times - pd.Timedelta(length, "h"), times) if given == "bounds" else None
        series(tmp_path / "a.nc", times, values, bounds=bounds)

    keys = {} if given == "bounds" else {"stamp": "end"}
    write(hours("2020-01-02", "2020-01-03", "D"), 24, [24, 48])
    assert days(tmp_path, **keys) == {"01-01": 24, "01-02": 48}
    times = hours("2020-01-01 01:00", "2020-01-03")
    write(times, 1, np.where(times <= "2020-01-02", 1, 2))
    assert days(tmp_path, daily="sum", **keys) == {"01-01": 24, "01-02": 48}


def test_the_day_that_contains_most_of_an_interval(tmp_path):
    # Rain from 06 to 06 UTC belongs mostly to the first day.
    times = hours("2020-01-02 06:00", "2020-01-03 06:00", "D")
    series(tmp_path / "a.nc", times, [1, 2], bounds=(times - pd.Timedelta(24, "h"), times))
    assert days(tmp_path) == {"01-01": 1, "01-02": 2}
    # Composites of eight days have the day of their time, which is the last of them if it is their end.
    times = hours("2020-01-01", "2020-01-09", "8D")
    series(tmp_path / "a.nc", times, [1, 2], units="degC", bounds=(times, times + pd.Timedelta(8, "D")))
    assert days(tmp_path, WARM) == {"01-01": 1, "01-09": 2}
    series(tmp_path / "a.nc", times, [1, 2], units="degC", bounds=(times - pd.Timedelta(8, "D"), times))
    assert days(tmp_path, WARM) == {"12-31": 1, "01-08": 2}
    # Instants.
    times = hours("2020-01-01", "2020-01-02", "D")
    series(tmp_path / "a.nc", times, [1, 2], bounds=(times, times))
    assert days(tmp_path) == {"01-01": 1, "01-02": 2}


def test_bounds_that_the_file_lacks(tmp_path):
    series(tmp_path / "a.nc", hours("2020-01-01", "2020-01-02", "D"), [1, 2], time_attrs={"bounds": "time_bnds"})
    with pytest.warns(SmgeoWarning, match="'time_bnds', the file lacks, .* set stamp: end"):
        assert days(tmp_path) == {"01-01": 1, "01-02": 2}


# Sums since 00 UTC

ACCUM = {"GRIB_stepType": "accum"}


def since_midnight(first="2020-06-01 01:00", last="2020-06-04 00:00", freq="h"):
    """1 mm in each hour, summed up since 00 UTC."""
    times = hours(first, last, freq)
    return times, np.array([h or 24 for h in times.hour])


@pytest.mark.parametrize("freq", ["h", "3h"])
def test_sums_since_midnight_give_the_day_before(tmp_path, freq):
    first = "2020-06-01 01:00" if freq == "h" else "2020-06-01 03:00"
    times, values = since_midnight(first, freq=freq)
    series(tmp_path / "a.nc", times, values / 1000, units="m", attrs=ACCUM, dim="valid_time")
    keys = {"scale": {"precipitation": 1000}}
    for rule in ("sum", "mean", "auto"):
        with pytest.raises(
            SmgeoError, match=r"accumulated \(GRIB_stepType: accum\).* daily: accumulated .* stamp: end"
        ):
            days(tmp_path, daily=rule, **keys)
    got = days(tmp_path, daily="accumulated", **keys)
    assert got == pytest.approx({"06-01": 24, "06-02": 24, "06-03": 24})
    with pytest.raises(SmgeoError, match=r"set scale: \{precipitation: 1000\}"):
        days(tmp_path, daily="accumulated")


def test_a_day_whose_sum_is_not_closed_is_missing(tmp_path):
    times, values = since_midnight()
    kept = times != "2020-06-03"
    series(tmp_path / "a.nc", times[kept], values[kept], attrs=ACCUM)
    assert days(tmp_path, daily="accumulated") == {"06-01": 24, "06-03": 24}
    kept = times.hour != 0
    series(tmp_path / "a.nc", times[kept], values[kept], attrs=ACCUM)
    with pytest.raises(SmgeoError, match="no time at 00 UTC"):
        days(tmp_path, daily="accumulated")


def test_only_the_closing_times(tmp_path):
    series(tmp_path / "a.nc", hours("2020-06-02", "2020-06-04", "D"), [24, 12, 6], attrs=ACCUM)
    assert days(tmp_path, daily="accumulated") == {"06-01": 24, "06-02": 12, "06-03": 6}
    assert days(tmp_path, stamp="end") == {"06-01": 24, "06-02": 12, "06-03": 6}
    with pytest.raises(SmgeoError, match="daily: accumulated"):
        days(tmp_path)


def test_bounds_that_grow_say_that_values_add_up(tmp_path):
    times, values = since_midnight()
    series(tmp_path / "a.nc", times, values, bounds=((times - pd.Timedelta(1, "s")).floor("D"), times))
    with pytest.raises(SmgeoError, match="bounds of its times begin together"):
        days(tmp_path, daily="sum")
    assert days(tmp_path, daily="accumulated") == {"06-01": 24, "06-02": 24, "06-03": 24}


def test_totals_of_each_hour_with_the_same_attribute(tmp_path):
    # As ERA5 has them: GRIB_stepType accum, but each value is the total of the hour that ends at its time.
    times = hours("2020-06-01 01:00", "2020-06-03")
    values = np.where(times.hour % 2, 1.0, 0.5)
    series(tmp_path / "a.nc", times, values, attrs=ACCUM)
    with pytest.raises(SmgeoError, match="stamp: end and daily: sum"):
        days(tmp_path, daily="sum")
    assert days(tmp_path, daily="sum", stamp="end") == {"06-01": 18, "06-02": 18}
    series(tmp_path / "b.nc", times, values, attrs=ACCUM, bounds=(times - pd.Timedelta(1, "h"), times))
    assert days(tmp_path, path="b.nc", daily="sum") == {"06-01": 18, "06-02": 18}


def test_values_that_fall_within_a_day_are_no_sums(tmp_path):
    times = hours("2020-06-01", "2020-06-03 05:00")
    series(tmp_path / "a.nc", times, np.where(times.hour % 2, 1.0, 0.5))
    with pytest.raises(SmgeoError, match="falls from one time to the next within a day.* set daily: sum"):
        days(tmp_path, daily="accumulated")
    series(tmp_path / "a.nc", times, np.ones(times.size), attrs={"GRIB_stepType": "instant"})
    with pytest.raises(SmgeoError, match="has GRIB_stepType: instant, so it is not a sum"):
        days(tmp_path, daily="accumulated")


def test_values_that_rise_through_each_day_are_refused(tmp_path):
    # Older files of ERA5-Land have no attribute that says so.
    times, values = since_midnight("2020-06-01 00:00", "2020-06-04 23:00")
    series(tmp_path / "a.nc", times, values)
    with pytest.raises(
        SmgeoError, match="rises through each day of a sample and falls after 00 UTC.*set daily: accumulated"
    ):
        days(tmp_path, daily="sum")
    assert days(tmp_path, daily="accumulated") == {"05-31": 24, "06-01": 24, "06-02": 24, "06-03": 24}
    assert days(tmp_path, daily="sum", stamp="start")["06-02"] == sum(range(1, 25))
    # Nor do values that go on rising, or that fall at 00 UTC, add up from 00 UTC on.
    series(tmp_path / "a.nc", times, np.arange(times.size))
    assert days(tmp_path, daily="sum")["06-01"] == sum(range(24))
    series(tmp_path / "a.nc", times, times.hour.to_numpy())
    assert days(tmp_path, daily="sum")["06-02"] == sum(range(24))


def test_sums_of_decibels_have_no_meaning(tmp_path):
    times, values = since_midnight()
    series(tmp_path / "a.nc", times, -values, units="dB")
    with pytest.raises(SmgeoError, match="accumulated of s1_vv in dB"):
        days(tmp_path, {**RAIN, "bands": {"s1_vv": "pr"}}, daily="accumulated")


# Calendars, and times that are none


def numbered(path, numbers, units="days since 2020-01-01", calendar="standard", **attrs):
    numbers = np.asarray(numbers)
    with h5netcdf.File(path, "w") as f:
        f.dimensions = {"time": numbers.size, "lat": 2, "lon": 2}
        t = f.create_variable("time", ("time",), numbers.dtype, data=numbers)
        t.attrs.update({"units": units, "calendar": calendar, **attrs})
        f.create_variable("lon", ("lon",), "f8", data=[0.0, 1])
        f.create_variable("lat", ("lat",), "f8", data=[1.0, 0])
        data = np.arange(1.0, numbers.size + 1)[:, None, None] * np.ones((1, 2, 2))
        f.create_variable("pr", ("time", "lat", "lon"), "f4", data=data.astype("f4"))


@pytest.mark.parametrize(
    ("calendar", "expected"),
    [
        ("standard", ["02-28", "02-29", "03-01"]),
        ("proleptic_gregorian", ["02-28", "02-29", "03-01"]),
        ("noleap", ["02-28", "03-01", "03-02"]),
        ("365_day", ["02-28", "03-01", "03-02"]),
        ("366_day", ["02-28", "02-29", "03-01"]),
        ("julian", ["02-28", "02-29", "03-01"]),  # IMERG's
    ],
)
def test_calendars(tmp_path, calendar, expected):
    numbered(tmp_path / "a.nc", [58, 59, 60], calendar=calendar)
    if calendar not in ("julian",):
        dates = cftime.num2date([58, 59, 60], "days since 2020-01-01", calendar)
        assert [f"{d.month:02d}-{d.day:02d}" for d in dates] == expected
    assert list(days(tmp_path, WARM)) == expected


def test_calendars_with_other_days_are_refused(tmp_path):
    numbered(tmp_path / "a.nc", [0, 1], calendar="360_day")
    with pytest.raises(
        SmgeoError, match=r"a\.nc: the calendar 360_day .*convert_calendar\('standard', align_on='year'"
    ):
        days(tmp_path, WARM)
    # What the message says to do.
    ds = xr.open_dataset(tmp_path / "a.nc").convert_calendar("standard", align_on="year", use_cftime=False)
    ds.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    assert list(days(tmp_path, WARM, path="b.nc")) == ["01-01", "01-02"]
    numbered(tmp_path / "c.nc", [60000, 60001], "days since 1850-01-01", "julian")
    with pytest.raises(SmgeoError, match="julian, whose days are not those of the standard calendar"):
        days(tmp_path, WARM, path="c.nc")
    numbered(tmp_path / "e.nc", [0, 1], "months since 2020-01-01")
    with pytest.raises(SmgeoError, match="'months since 2020-01-01'.* cannot be decoded .* rewrite them"):
        days(tmp_path, WARM, path="e.nc")
    numbered(tmp_path / "d.nc", [59 + 366, 60 + 366], calendar="all_leap")  # 29 February 2021
    with pytest.raises(SmgeoError, match="cannot be decoded to days of the standard calendar"):
        days(tmp_path, WARM, path="d.nc")


@pytest.mark.parametrize(
    ("numbers", "attrs"),
    [
        (np.array([0, np.nan, 2]), {}),
        (np.array([0, -999.0, 2]), {"_FillValue": -999.0}),
        (np.array([0, -1, 2], "i4"), {"missing_value": np.int32(-1)}),
        (np.array([0, 9.969209968386869e36, 2]), {}),
        (np.array([0, -2147483647, 2], "i4"), {}),
        (np.array([0, np.iinfo("i8").min, 2]), {}),  # xarray's missing time
    ],
)
def test_a_time_that_is_a_fill_value_is_named(tmp_path, numbers, attrs):
    numbered(tmp_path / "a.nc", numbers, **attrs)
    with pytest.raises(SmgeoError, match=r"a\.nc: position 1 of time .counted from 0, of 3. is a fill value"):
        days(tmp_path, WARM)


# Runs of IMERG


def imerg(path, day, value, **attrs):
    series(path, pd.to_datetime([day]), [value], units="mm/day")
    with h5netcdf.File(path, "a") as f:
        f.attrs.update(attrs)


@pytest.mark.parametrize(
    ("name", "attrs", "run"),
    [
        ("3B-DAY.MS.MRG.3IMERG.20200101-S000000-E235959.V07B.nc", {}, "final"),
        ("3B-DAY-L.MS.MRG.3IMERG.20200101-S000000-E235959.V07B.nc", {}, "late"),
        ("3B-HHR-E.MS.MRG.3IMERG.20200101-S000000-E002959.0000.V07B.nc", {}, "early"),
        ("a.nc", {"DOI": "10.5067/GPM/IMERGDL/DAY/07"}, "late"),
        ("a.nc", {"DOI": "10.5067/GPM/IMERG/3B-HH-L/07"}, "late"),
        (
            "a.nc",
            {"title": "GPM IMERG Final Precipitation L3 1 day 0.1 degree x 0.1 degree V07 (GPM_3IMERGDF)"},
            "final",
        ),
        (
            "a.nc",
            {
                "FileHeader": "AlgorithmID=3IMERGHH;\nFileName=3B-HHR-L.MS.MRG.3IMERG.20200101-S000000-E002959.0000.V07B.HDF5;"
            },
            "late",
        ),
        ("a.nc", {"title": "rain"}, None),
    ],
)
def test_the_run_of_imerg_is_recorded(tmp_path, name, attrs, run):
    imerg(tmp_path / name, "2020-01-01", 1, **attrs)
    assert open_gridded(RAIN, root=tmp_path)["precipitation"].attrs.get("run") == run


def test_the_final_run_is_used_before_the_late_one(tmp_path):
    imerg(tmp_path / "3B-DAY-L.MS.MRG.3IMERG.20200101-S000000-E235959.V07B.nc", "2020-01-01", 1)
    imerg(tmp_path / "3B-DAY-L.MS.MRG.3IMERG.20200102-S000000-E235959.V07B.nc", "2020-01-02", 2)
    imerg(tmp_path / "3B-DAY.MS.MRG.3IMERG.20200101-S000000-E235959.V07B.nc", "2020-01-01", 3)
    with pytest.warns(SmgeoWarning) as told:
        rain = open_gridded(RAIN, root=tmp_path)["precipitation"]
    assert rain.values[:, 0, 0].tolist() == [3, 2]
    assert rain.attrs["run"] == "final (1 file), late (2 files)"
    assert ["mixes runs" in str(w.message) for w in told].count(True) == 1
    assert ["1 time again" in str(w.message) for w in told].count(True) == 1


def test_a_daily_value_of_imerg_from_fewer_half_hours_is_missing(tmp_path):
    path = tmp_path / "3B-DAY.MS.MRG.3IMERG.20200101-S000000-E235959.V07B.nc"
    imerg(path, "2020-01-01", 5)
    with h5netcdf.File(path, "a") as f:
        f.create_variable("pr_cnt", ("time", "lat", "lon"), "i1", data=np.array([[[48, 47], [0, 48]]], "i1"))
    with counting_dropped() as dropped:
        rain = open_gridded(RAIN, root=tmp_path)["precipitation"].compute(scheduler="synchronous")
    np.testing.assert_array_equal(rain.values[0], [[5, NAN], [NAN, 5]])
    assert dropped["precipitation"] == {"lacks half hours": 2}
