"""z-scores with statistics of given stations, physical ranges, and the rows that flags cost."""

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError
from smgeo.prepare import Scaler, drop_outlier_rows, flag_out_of_range, flag_outliers
from smgeo.prepare.moments import mean_and_std


def test_statistics_come_from_the_given_stations_alone(make_station_cube):
    ds = make_station_cube(stations=5, gaps=0.3, seed=4)
    ds["s1_vv"][4] += 50
    train = ["N/s0", "N/s2", "N/s3"]
    flags = flag_outliers(ds, 1.5, train)
    for name in ("s1_vv", "sm", "clay", "precipitation", "temperature"):
        values = ds[name].values.astype("float64")
        learn = values[[0, 2, 3]]
        with np.errstate(invalid="ignore"):
            expected = np.abs(values - np.nanmean(learn)) > 1.5 * np.nanstd(learn)
        np.testing.assert_array_equal(flags[name], expected)
        assert flags[name].dtype == bool
    assert flags["s1_vv"][4].values[ds["s1_vv"][4].notnull()].all()
    shifted = ds.copy(deep=True)
    shifted["s1_vv"][[1, 4]] += 1000
    xr.testing.assert_identical(
        flag_outliers(shifted, 1.5, train).isel(station=[0, 2, 3]), flags.isel(station=[0, 2, 3])
    )


def test_no_stations_means_all(make_station_cube):
    ds = make_station_cube(stations=3)
    xr.testing.assert_identical(flag_outliers(ds, 2), flag_outliers(ds, 2, ["N/s0", "N/s1", "N/s2"]))


def test_a_constant_and_missing_values_are_no_outliers():
    values = np.array([[0.1, np.nan, 0.1, 0.1]], dtype="float32")
    ds = xr.Dataset({"s1_vv": (("station", "time"), values)}, {"station": ["a"]})
    assert not flag_outliers(ds, 3)["s1_vv"].any()


def test_lazy_flags_equal_computed_ones(make_station_cube):
    ds = make_station_cube(gaps=0.3)
    lazy = flag_outliers(ds.chunk(station=2, time=7), 1.2, ["N/s1", "N/s4"])
    assert lazy["s1_vv"].chunks is not None
    xr.testing.assert_equal(lazy.compute(), flag_outliers(ds, 1.2, ["N/s1", "N/s4"]))


def test_a_threshold_must_be_positive(make_station_cube):
    with pytest.raises(SmgeoError, match="z must be a number above 0"):
        flag_outliers(make_station_cube(), 0)


@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_statistics_are_the_same_to_the_last_bit_for_any_chunks(make_station_cube, per_station, per_time, seed):
    ds = make_station_cube(gaps=0.4, seed=seed)
    names = list(ds.data_vars)
    found = mean_and_std(ds.chunk(station=per_station, time=per_time), names)
    assert found == mean_and_std(ds, names)
    for name in names:
        values = ds[name].values.astype("float64")
        assert found[name] == pytest.approx((np.nanmean(values), np.nanstd(values)), rel=1e-12)


def test_statistics_of_a_variable_without_values_and_far_from_zero(make_station_cube):
    ds = make_station_cube(stations=2, days=4)
    ds["temperature"][:] = np.nan
    ds["precipitation"] = ds["precipitation"].astype("float64") * 0 + 1e9 + np.arange(4)
    found = mean_and_std(ds, ["temperature", "precipitation"])
    assert np.isnan(found["temperature"]).all()
    assert found["precipitation"] == pytest.approx((1e9 + 1.5, np.sqrt(1.25)), rel=1e-12)
    assert not flag_outliers(ds, 3)["temperature"].any()


def test_grids_are_flagged_too(make_grid_cube):
    ds = make_grid_cube(gaps=0.3)
    for name, flags in flag_outliers(ds.chunk(time=7, y=3, x=2), 1.5).items():
        values = ds[name].values.astype("float64")
        with np.errstate(invalid="ignore"):
            expected = np.abs(values - np.nanmean(values)) > 1.5 * np.nanstd(values)
        np.testing.assert_array_equal(flags, expected)


@pytest.mark.parametrize("chunked", [False, True])
def test_each_station_by_its_own_statistics(make_station_cube, chunked):
    ds = make_station_cube(stations=4, gaps=0.3, seed=2)
    ds["temperature"][1] += 500  # far from the others, not from itself
    ds["temperature"][2, :] = np.nan
    flags = flag_outliers(ds.chunk(station=3, time=8) if chunked else ds, 1.5, per_station=True)
    assert set(flags.data_vars) == {"s1_vv", "precipitation", "temperature", "sm"}
    for name in flags.data_vars:
        assert (flags[name].chunks is not None) == chunked
        for values, found in zip(ds[name].values.astype("float64"), flags[name].values, strict=True):
            seen = values[np.isfinite(values)]
            expected = [abs(v - seen.mean()) > 1.5 * seen.std() if np.isfinite(v) else False for v in values]
            np.testing.assert_array_equal(found, expected)
    assert 0 < int(flags["temperature"][1].sum()) < 10


def test_own_statistics_and_those_of_some_stations_exclude_each_other(make_station_cube):
    with pytest.raises(SmgeoError, match="leave one of the two out"):
        flag_outliers(make_station_cube(), 3, ["N/s0"], per_station=True)


def test_values_that_cannot_be(make_station_cube):
    ds = make_station_cube()
    ds["sm"][0, :4] = [-0.01, 0.0, 1.0, 1.2]
    ds["clay"][1] = 101
    ds["temperature"][2, 3] = np.nan
    ds["mine"] = ds["sm"] * 99
    flags = flag_out_of_range(ds.chunk(station=2))
    assert set(flags.data_vars) == {"s1_vv", "precipitation", "temperature", "clay", "sm"}
    assert flags["sm"].chunks is not None
    assert flags["sm"].dtype == bool
    assert flags["sm"][0, :4].values.tolist() == [True, False, False, True]
    assert int(flags["sm"].sum()) == 2
    assert flags["clay"].values.tolist() == [False, True, False, False, False, False]
    assert not flags["temperature"][2, 3]
    own = {"mine": Feature("mine", "mine", "", "dynamic", "me", (0.0, 30.0))}
    ds["mine"].attrs = {"units": ""}
    assert bool(flag_out_of_range(ds, own)["mine"].any())


def test_ranges_are_not_checked_in_other_units(make_station_cube):
    ds = make_station_cube()
    with pytest.raises(SmgeoError, match="scaled"):
        flag_out_of_range(Scaler("minmax").fit(ds).transform(ds))
    ds["temperature"].attrs["units"] = "K"
    with pytest.raises(SmgeoError, match="temperature is in 'K', needed in 'degC'"):
        flag_out_of_range(ds)


def test_flags_compute_nothing_but_statistics(make_station_cube):
    lazy = make_station_cube().chunk(station=2)

    def forbidden(dsk, keys, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=forbidden):
        flag_out_of_range(lazy)
        with pytest.raises(AssertionError, match="computed"):
            flag_outliers(lazy, 3)


def _flags(ds):
    flags = xr.zeros_like(ds[["sm", "s1_vv", "precipitation", "clay"]]).astype(bool)
    flags["s1_vv"][0, 1] = True  # no target there: nothing to drop
    flags["s1_vv"][0, 2] = True
    flags["sm"][0, 2] = True  # the same row twice
    flags["sm"][0, 4] = True
    flags["s1_vv"][1, 0] = True  # not a training station
    flags["precipitation"][2, 3] = True  # heavy rain
    flags["clay"][2] = True  # a static outlier: all six rows
    return flags


@pytest.mark.parametrize("chunked", [False, True])
def test_only_training_rows_lose_their_target(make_station_cube, chunked):
    ds = make_station_cube(stations=3, days=6)
    ds["sm"][0, 1] = np.nan
    source, train = ds.chunk(station=1) if chunked else ds, ["N/s0", "N/s2"]
    kept, lost = drop_outlier_rows(source, _flags(ds), train)
    expected = ds["sm"].values.copy()
    expected[0, [2, 4]] = np.nan
    np.testing.assert_array_equal(kept["sm"], expected)
    assert (lost.rows, lost.by_variable) == (2, {"sm": 2, "s1_vv": 1})
    assert kept["sm"].dtype == "float32"
    assert kept["sm"].attrs == ds["sm"].attrs
    xr.testing.assert_identical(kept.drop_vars("sm").compute(), ds.drop_vars("sm"))
    kept, lost = drop_outlier_rows(source, _flags(ds), train, variables=["precipitation", "clay"])
    expected = ds["sm"].values.copy()
    expected[2] = np.nan
    np.testing.assert_array_equal(kept["sm"], expected)
    assert (lost.rows, lost.by_variable) == (6, {"precipitation": 1, "clay": 6})


def test_what_is_heavy_tailed_is_said_by_the_cube_before_the_catalogue(make_station_cube):
    ds = make_station_cube(stations=3, days=6)
    assert [n for n, f in FEATURES.items() if f.heavy_tailed] == [
        "precipitation",
        "precipitation_3d",
        "precipitation_7d",
        "precipitation_30d",
    ]
    del ds["precipitation"].attrs["heavy_tailed"]  # a cube written before it was said
    assert set(drop_outlier_rows(ds, _flags(ds), ["N/s0"])[1].by_variable) == {"sm", "s1_vv"}
    ds["precipitation"].attrs["heavy_tailed"] = 0
    ds["s1_vv"].attrs["heavy_tailed"] = 1
    assert set(drop_outlier_rows(ds, _flags(ds), ["N/s0"])[1].by_variable) == {"sm", "precipitation"}


@pytest.mark.parametrize("per_station", [False, True])
def test_flags_have_neither_unit_nor_kind_of_their_variable(make_station_cube, per_station):
    for flags in (
        flag_outliers(make_station_cube(), 3, per_station=per_station),
        flag_out_of_range(make_station_cube()),
    ):
        assert [v.attrs for v in flags.data_vars.values()] == [{"kind": "flag"}] * len(flags.data_vars)


def test_stations_that_are_not_there_are_named(make_station_cube):
    ds = make_station_cube(stations=3, days=6)
    with pytest.raises(SmgeoError, match="no station 'zz'"):
        flag_outliers(ds, 3, ["N/s0", "zz"])
    with pytest.raises(SmgeoError, match="stations is empty"):
        flag_outliers(ds, 3, [])
    with pytest.raises(SmgeoError, match="no station 'zz'"):
        drop_outlier_rows(ds, _flags(ds), ["N/s0", "zz"])


def test_stations_whose_ids_are_numbers(make_station_cube):
    ds = make_station_cube(stations=3, days=6)
    numbered = ds.assign_coords(station=[10, 11, 12])
    expected, lost = drop_outlier_rows(ds, _flags(ds), ["N/s0"])
    flags = _flags(ds).assign_coords(station=[10, 11, 12])
    for ids in (["10"], [10]):
        kept, found = drop_outlier_rows(numbered, flags, ids)
        np.testing.assert_array_equal(kept["sm"], expected["sm"])
        assert found == lost
    xr.testing.assert_equal(flag_outliers(numbered, 1.5, ["10", "12"]), flag_outliers(numbered, 1.5, [10, 12]))


def test_an_infinite_value_is_missing(make_station_cube):
    ds, lacking = make_station_cube(gaps=0.3), make_station_cube(gaps=0.3)
    for name in ("s1_vv", "sm"):
        ds[name][1, 3], ds[name][1, 4] = np.inf, -np.inf
        lacking[name][1, 3:5] = np.nan
    for options in ({}, {"stations": ["N/s1"]}, {"stations": ["N/s0", "N/s2"]}, {"per_station": True}):
        flags = flag_outliers(ds, 1.5, **options)
        xr.testing.assert_equal(flags, flag_outliers(lacking, 1.5, **options))
        assert flags["s1_vv"].any()
        assert not flags["s1_vv"][1, 3:5].any()
    assert not flag_out_of_range(ds)["s1_vv"][1, 3:5].any()
    assert drop_outlier_rows(ds, flags, ["N/s1"])[1] == drop_outlier_rows(lacking, flags, ["N/s1"])[1]


def test_what_is_no_number_has_no_flags(make_station_cube):
    ds = make_station_cube(stations=3)
    ds["soil"] = ("station", ["loam", "clay", "sand"])
    ds["since"] = ("station", np.array(["2001-01-01"] * 3, dtype="datetime64[ns]"))
    ds["open"] = ("station", [True, False, True])
    assert not {"soil", "since", "open"} & set(flag_outliers(ds, 3).data_vars)
    assert not {"soil", "since", "open"} & set(Scaler().fit(ds).center_)
    ds["soil"].attrs["kind"] = "static"
    for use in (lambda: flag_outliers(ds, 3), lambda: Scaler().fit(ds)):
        with pytest.raises(SmgeoError, match="expected numeric variables, found soil"):
            use()


@pytest.mark.parametrize("dtype", ["float16", ">f4", "int64"])
def test_other_types_are_flagged_too(make_station_cube, dtype):
    ds = make_station_cube(stations=4)
    ds["s1_vv"] = (ds["s1_vv"] * 10).round()
    other = ds.assign(s1_vv=ds["s1_vv"].astype(dtype))
    for per_station in (False, True):
        for cube in (other, other.chunk(station=3, time=7)):
            flags = flag_outliers(cube, 1.5, per_station=per_station)
            np.testing.assert_array_equal(flags["s1_vv"], flag_outliers(ds, 1.5, per_station=per_station)["s1_vv"])


def test_a_target_of_whole_numbers_is_missing_where_it_was_dropped(make_station_cube):
    ds = make_station_cube(stations=3, days=6)
    whole = ds.assign(sm=(ds["sm"] * 100).astype("int32"))
    kept, lost = drop_outlier_rows(whole, _flags(ds), ["N/s0"])
    assert np.flatnonzero(kept["sm"].isnull().values.ravel()).tolist() == [1, 2, 4]
    assert lost.rows == 3
    np.testing.assert_array_equal(kept["sm"][1:], whole["sm"][1:])


def test_rows_cannot_be_dropped_by_a_variable_without_flags(make_station_cube):
    ds = make_station_cube(stations=3, days=6)
    with pytest.raises(SmgeoError, match="flags has no variable 's1_v'.*'s1_vv'"):
        drop_outlier_rows(ds, _flags(ds), ["N/s0"], variables=["s1_v"])
