"""Derived features against their formulas, worked out by hand."""

import math

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.errors import SmgeoError
from smgeo.prepare import derive_features, steps_of

NAN = np.nan


def _cube(start="2020-01-01", **variables):
    n = max(len(v) for v in variables.values())
    data = {k: (("station", "time"), np.array([v], dtype="float32")) for k, v in variables.items()}
    return xr.Dataset(data, {"station": ["N/a"], "time": pd.date_range(start, periods=n)})


def test_day_of_year_and_its_angle():
    ds = _cube("2020-12-30", s1_vv=[0, 0, 0, 0])
    out = derive_features(ds, ["day_of_year", "doy_sin", "doy_cos"])
    assert out["day_of_year"].values.tolist() == [365, 366, 1, 2]
    for i, doy in enumerate([365, 366, 1, 2]):
        angle = 2 * math.pi * (doy - 1) / 365.25
        assert out["doy_sin"].values[i] == pytest.approx(math.sin(angle), abs=1e-6)
        assert out["doy_cos"].values[i] == pytest.approx(math.cos(angle), abs=1e-6)
    assert out["doy_sin"].dims == ("time",)
    assert out["doy_sin"].attrs["kind"] == "calendar"
    assert (out["doy_sin"].values[2], out["doy_cos"].values[2]) == (0, 1)


def test_ratios_and_indices():
    ds = _cube(
        s1_vv=[-10, -12, NAN],
        s1_vh=[-17, NAN, -20],
        s2_b8=[0.4, 0.5, 0.0],
        s2_b4=[0.1, NAN, 0.0],
        s2_b11=[0.2, 0.5, 0.3],
    )
    out = derive_features(ds, ["s1_cross_ratio", "ndvi", "ndmi"])
    np.testing.assert_allclose(out["s1_cross_ratio"], [[-7, NAN, NAN]])
    np.testing.assert_allclose(out["ndvi"], [[0.3 / 0.5, NAN, NAN]], rtol=1e-6)
    np.testing.assert_allclose(out["ndmi"], [[0.2 / 0.6, 0, -1]], rtol=1e-6)
    assert {str(out[n].dtype) for n in out.data_vars} == {"float32"}
    assert out["ndvi"].attrs["units"] == "1"


def test_antecedent_sums_need_all_their_days():
    out = derive_features(_cube(precipitation=[1, 2, 0, 4, NAN, 1, 1, 1.5]), ["precipitation_3d"])["precipitation_3d"]
    np.testing.assert_array_equal(out, [[NAN, NAN, 3, 6, NAN, NAN, NAN, 3.5]])
    assert out.attrs["units"] == "mm"


@given(
    st.lists(st.one_of(st.just(NAN), st.floats(0, 300, width=32)), min_size=1, max_size=40), st.sampled_from([3, 7, 30])
)
@settings(max_examples=60, deadline=None)
def test_antecedent_sums_against_slices(rain, days):
    out = derive_features(_cube(precipitation=rain), [f"precipitation_{days}d"])[f"precipitation_{days}d"].values[0]
    r = np.array(rain, dtype="float32").astype("float64")
    expected = [r[t - days + 1 : t + 1].sum() if t >= days - 1 else NAN for t in range(len(r))]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", ">f4", "int16", "float64"])
def test_sums_of_other_types(dtype):
    ds = _cube(precipitation=[1, 2, 0, 4, 3])
    other = ds.astype(dtype)
    for cube in (other, other.chunk(time=2)):
        out = derive_features(cube, ["precipitation_3d"])["precipitation_3d"]
        np.testing.assert_array_equal(out, [[NAN, NAN, 3, 6, 7]])
        assert out.dtype == "float32"


def test_other_units_are_refused():
    """The feature's unit is the catalogue's, so that of what it is made from must be."""
    ds = _cube(precipitation=[1, 2, 3])
    ds["precipitation"].attrs["units"] = "m d-1"
    with pytest.raises(
        SmgeoError, match="'precipitation_3d' is derived from do not match: precipitation is in 'm d-1'"
    ):
        derive_features(ds, ["precipitation_3d"])


def test_dry_days_sum_to_nothing_after_rain():
    out = derive_features(_cube(precipitation=[0.1, 0.2, 0.3, 0, 0, 0, 0.7]), ["precipitation_3d"])["precipitation_3d"]
    assert out.values[0, 5] == 0


def test_grids_any_chunks_and_lazy(make_grid_cube):
    ds = make_grid_cube(days=12, gaps=0.1)
    ds["s1_vh"] = ds["s1_vv"] - 6
    names = ["precipitation_3d", "s1_cross_ratio", "doy_cos"]
    whole = derive_features(ds, names)

    def forbidden(dsk, keys, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=forbidden):
        lazy = derive_features(ds.chunk(time=5, y=3, x=2), names)
    assert lazy["precipitation_3d"].chunks is not None
    assert lazy["s1_cross_ratio"].chunks is not None
    assert lazy["precipitation_3d"].dims == ("time", "y", "x")
    xr.testing.assert_identical(lazy.compute(), whole)
    np.testing.assert_allclose(
        whole["precipitation_3d"][4], ds["precipitation"][2:5].sum("time", skipna=False), rtol=1e-5
    )


def test_what_is_there_stays_and_the_record_names_what_was_added():
    ds = _cube(s1_vv=[1, 2], s1_vh=[3, 5], ndvi=[0.1, 0.2])
    out = derive_features(ds, ["ndvi", "s1_cross_ratio"])
    np.testing.assert_array_equal(out["ndvi"], ds["ndvi"])
    assert steps_of(out) == [{"step": "derive", "features": ["s1_cross_ratio"]}]
    assert steps_of(derive_features(out, ["ndvi"])) == steps_of(out)


def test_what_cannot_be_derived_is_named():
    with pytest.raises(SmgeoError, match="lacks s1_vh"):
        derive_features(_cube(s1_vv=[1]), ["s1_cross_ratio"])
    with pytest.raises(SmgeoError, match="'clay'"):
        derive_features(_cube(s1_vv=[1]), ["clay"])


@pytest.mark.parametrize("chunks", [1, 7, 30, (30, 5, 30, 5), 70])
@pytest.mark.parametrize("days", [3, 30])
def test_sums_do_not_depend_on_chunks_along_time(chunks: int | tuple[int, ...], days: int) -> None:
    rng = np.random.default_rng(0)
    rain = rng.gamma(0.3, 5, size=(70, 3, 2)).astype("float32")
    rain[40, 1, 1] = np.nan
    ds = xr.Dataset({"precipitation": (("time", "y", "x"), rain)}, {"time": pd.date_range("2020-01-01", periods=70)})
    lazy = derive_features(ds.chunk(time=chunks, y=2), [f"precipitation_{days}d"])[f"precipitation_{days}d"]
    assert lazy.chunks is not None
    assert lazy.chunksizes["time"] == ds.chunk(time=chunks).chunksizes["time"]
    expected = np.full(rain.shape, np.nan, dtype="float64")
    for t in range(days - 1, 70):
        expected[t] = rain[t - days + 1 : t + 1].astype("float64").sum(axis=0)
    np.testing.assert_allclose(lazy.values, expected, rtol=1e-6)


def test_a_sum_reads_no_more_than_the_chunk_before() -> None:
    read: list[int] = []

    def block(block_info: dict | None = None) -> np.ndarray:
        read.append(block_info[None]["chunk-location"][0])
        return np.ones([b - a for a, b in block_info[None]["array-location"]], dtype="float32")

    rain = da.map_blocks(block, chunks=((30,) * 20, (4,), (4,)), dtype="float32", meta=np.empty((0, 0, 0), "float32"))
    ds = xr.Dataset({"precipitation": (("time", "y", "x"), rain)}, {"time": pd.date_range("2020-01-01", periods=600)})
    derive_features(ds, ["precipitation_30d"])["precipitation_30d"].isel(time=slice(300, 330)).compute()
    assert sorted(read) == [9, 10]


def test_places_of_stations_and_of_pixels_in_degrees(make_station_cube, make_grid_cube):
    ds = make_station_cube(stations=3, days=2)
    at = derive_features(ds, ["lat", "lon"])
    assert at["lat"].values.tolist() == ds["latitude"].astype("float32").values.tolist()
    assert at["lon"].values.tolist() == ds["longitude"].astype("float32").values.tolist()
    assert (at["lat"].attrs["units"], at["lat"].attrs["kind"], at["lat"].dims) == (
        "degrees_north",
        "static",
        ("station",),
    )
    grid = derive_features(make_grid_cube(days=1, height=2, width=3), ["lat", "lon"])
    # 500 km east in UTM 32 N is the meridian of 9 degrees; pixel centres are 50 m inside, and 100 m are 1 / 1112 degrees.
    assert grid["lon"].dims == ("y", "x")
    np.testing.assert_allclose(grid["lon"].values[0], 9 + np.array([50, 150, 250]) / 78_800, atol=1e-5)
    np.testing.assert_allclose(np.diff(grid["lat"].values, axis=0), -1 / 1112, rtol=1e-2)
    lazy = derive_features(make_grid_cube(days=1, height=2, width=3).chunk(y=1, x=2), ["lat", "lon"])
    assert {lazy[n].chunks for n in ("lat", "lon")} == {((1, 1), (2, 1))}
    for name in ("lat", "lon"):
        np.testing.assert_array_equal(lazy[name], grid[name])
    with pytest.raises(SmgeoError, match="the cube has no latitude"):
        derive_features(ds.drop_vars("latitude"), ["lat"])


@pytest.mark.parametrize("turn", [0, 360, -360])
def test_a_place_has_one_longitude(turn):
    """A grid of 0 to 360 and one of -180 to 180, and stations in either form, have the same feature `lon`."""
    from affine import Affine
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_coords

    for left, expected in ((-98, [-97.5, -96.5]), (179, [179.5, -179.5]), (8, [8.5, 9.5])):
        box = GeoBox((1, 2), Affine(1, 0, left + turn, 0, -1, 40), "EPSG:4326")
        ds = xr.Dataset({"clay": (("y", "x"), np.zeros((1, 2), "float32"))}, xr_coords(box, dims=("y", "x")))
        for one in (ds, ds.chunk(x=1)):
            np.testing.assert_allclose(derive_features(one, ["lon"])["lon"].values, [expected])
        places = {"longitude": ("station", np.array(expected) + turn), "latitude": ("station", [39.5, 39.5])}
        stations = xr.Dataset({"clay": ("station", [0.0, 0.0])}, {"station": ["a", "b"], **places})
        np.testing.assert_allclose(derive_features(stations, ["lon"])["lon"].values, expected)
