"""z-scores with statistics of given stations, and the rows that they cost."""

import numpy as np
import pytest
import xarray as xr

from smgeo.errors import SmgeoError
from smgeo.prepare import drop_outlier_rows, flag_outliers


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
    with pytest.raises(SmgeoError, match="positive"):
        flag_outliers(make_station_cube(), 0)


@pytest.mark.parametrize("chunked", [False, True])
def test_only_training_rows_lose_their_target(make_station_cube, chunked):
    ds = make_station_cube(stations=3, days=6)
    ds["sm"][0, 1] = np.nan
    flags = xr.zeros_like(ds[["sm", "s1_vv", "clay"]]).astype(bool)
    flags["s1_vv"][0, 1] = True  # no target there: nothing to drop
    flags["s1_vv"][0, 2] = True
    flags["sm"][0, 2] = True  # the same row twice
    flags["sm"][0, 4] = True
    flags["s1_vv"][1, 0] = True  # not a training station
    flags["clay"][2] = True  # a static outlier: all six rows
    kept, count = drop_outlier_rows(ds.chunk(station=1) if chunked else ds, flags, ["N/s0", "N/s2"])
    expected = ds["sm"].values.copy()
    expected[0, [2, 4]] = np.nan
    expected[2] = np.nan
    np.testing.assert_array_equal(kept["sm"], expected)
    assert count == 8
    assert kept["sm"].dtype == "float32"
    assert kept["sm"].attrs == ds["sm"].attrs
    xr.testing.assert_identical(kept.drop_vars("sm").compute(), ds.drop_vars("sm"))
