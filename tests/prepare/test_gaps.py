"""Gap filling against pandas, series by series."""

import dask
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (gives `.rio`)
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import smgeo
from smgeo.cube.reading import open_cube
from smgeo.cube.schema import variables_of_kind
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError
from smgeo.prepare import (
    Scaler,
    fill_gaps,
    flag_out_of_range,
    flag_outliers,
    measure_revisit,
    repeat_steps,
    split_stations,
    steps_of,
)

NAN = np.nan


def _cube(values, name="s1_vv", **attrs):
    values = np.asarray(values, dtype="float32")
    coords = {
        "station": [f"N/{i}" for i in range(len(values))],
        "time": pd.date_range("2020-01-01", periods=values.shape[1]),
    }
    return xr.Dataset({name: (("station", "time"), values, {"kind": "dynamic", **attrs})}, coords)


def _of_each(*days):
    """Attributes of a cube of `_cube` whose revisit was measured at each station."""
    return {"revisit_days": list(days), "revisit_stations": [f"N/{i}" for i in range(len(days))]}


def _pandas(series, limit):
    """What pandas makes of one series; it refuses a limit of 0, which here fills nothing."""
    if limit == 0:
        return np.asarray(series, dtype="float32")
    filled = pd.Series(np.asarray(series, dtype="float64")).interpolate(
        method="linear", limit=limit, limit_direction="both"
    )
    return filled.to_numpy("float32")


gappy = st.lists(
    st.lists(st.one_of(st.just(NAN), st.just(NAN), st.floats(-40, 40, width=32)), min_size=17, max_size=17),
    min_size=1,
    max_size=4,
)


@given(gappy, st.integers(0, 18))
@settings(max_examples=150, deadline=None)
def test_equals_pandas_per_series(values, limit):
    expected = [_pandas(v, limit) for v in values]
    np.testing.assert_allclose(fill_gaps(_cube(values), limit)["s1_vv"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0, [NAN, NAN, 1, NAN, NAN, NAN, NAN, NAN, 7, NAN]),
        (1, [NAN, 1, 1, 2, NAN, NAN, NAN, 6, 7, 7]),
        (2, [1, 1, 1, 2, 3, NAN, 5, 6, 7, 7]),
        (3, [1, 1, 1, 2, 3, 4, 5, 6, 7, 7]),
    ],
)
def test_by_hand(limit, expected):
    series = [NAN, NAN, 1, NAN, NAN, NAN, NAN, NAN, 7, NAN]
    np.testing.assert_array_equal(fill_gaps(_cube([series]), limit)["s1_vv"], np.array([expected], "float32"))


def test_half_of_the_revisit_in_the_attribute():
    series = [[1] + 9 * [NAN] + [11] + 9 * [NAN]] * 2
    for days, limit in ((6, 3), (5, 2), (1, 0)):
        np.testing.assert_allclose(
            fill_gaps(_cube(series, revisit_days=days))["s1_vv"], [_pandas(s, limit) for s in series]
        )
    per_station = fill_gaps(_cube(series, **_of_each(2, 7)))["s1_vv"]
    np.testing.assert_allclose(per_station, [_pandas(series[0], 1), _pandas(series[1], 3)])


def test_half_of_the_measured_revisit():
    every_four = [1 if t % 4 == 0 else NAN for t in range(25)]
    every_four[8] = every_four[12] = NAN  # steps 4, 12, 4, 4, 4: the median stays 4, so L = 2
    once = [NAN] * 12 + [5] + [NAN] * 12  # the catalogue's 6 days for Sentinel-1: L = 3
    never = [NAN] * 25
    expected = [_pandas(every_four, 2), _pandas(once, 3), never]
    np.testing.assert_allclose(
        fill_gaps(_cube([every_four, once, never], revisit_days=20), revisit="measured")["s1_vv"], expected
    )
    np.testing.assert_allclose(fill_gaps(_cube([every_four, once, never]))["s1_vv"], expected)
    np.testing.assert_allclose(fill_gaps(_cube([every_four, once, never], **_of_each(4, NAN, NAN)))["s1_vv"], expected)


def test_measured_revisit_is_the_median_step():
    values = [[1, NAN, 1, NAN, NAN, 1, 1, 1], [NAN] * 7 + [1], [1, NAN, NAN, NAN, NAN, NAN, NAN, 1]]
    np.testing.assert_array_equal(measure_revisit(_cube(values)["s1_vv"]), [np.median([2, 3, 1, 1]), NAN, 7])


def test_a_variable_outside_the_catalogue_seen_once_is_not_filled():
    once = [[NAN, NAN, 3, NAN, NAN]]
    np.testing.assert_array_equal(fill_gaps(_cube(once, name="mine"))["mine"], np.array(once, "float32"))


@given(
    st.integers(1, 6),
    st.integers(1, 20),
    st.sampled_from(["half-revisit", 1, 4]),
    st.sampled_from(["measured", "attribute"]),
)
@settings(max_examples=10, deadline=None)
def test_chunks_do_not_matter_for_stations(make_station_cube, per_station, per_time, limit, revisit):
    ds = make_station_cube(stations=6, days=20, gaps=0.7)
    lazy = fill_gaps(ds.chunk(station=per_station, time=per_time), limit, revisit=revisit)
    assert lazy["s1_vv"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), fill_gaps(ds, limit, revisit=revisit))


@given(st.integers(1, 20), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=8, deadline=None)
def test_chunks_do_not_matter_for_grids(make_grid_cube, t, y, x):
    ds = make_grid_cube(days=20, height=3, width=4, gaps=0.7)
    whole = fill_gaps(ds, 2)
    xr.testing.assert_identical(fill_gaps(ds.chunk(time=t, y=y, x=x), 2).compute(), whole)
    assert whole["s1_vv"].dims == ("time", "y", "x")
    for i, j in np.ndindex(3, 4):
        np.testing.assert_allclose(whole["s1_vv"][:, i, j], _pandas(ds["s1_vv"][:, i, j], 2), rtol=1e-5)


@given(gappy, st.sampled_from(["half-revisit", 0, 1, 3]))
@settings(max_examples=60, deadline=None)
def test_a_filled_day_lies_within_the_limit_of_an_observation_of_its_own_station(values, limit):
    ds = _cube(values)
    filled = fill_gaps(ds, limit, revisit="measured")["s1_vv"].values
    for before, after in zip(ds["s1_vv"].values, filled, strict=True):
        seen = np.flatnonzero(np.isfinite(before))
        most = limit
        if limit == "half-revisit":
            most = int(np.median(np.diff(seen)) // 2) if seen.size > 1 else 3
        near = np.array([seen.size > 0 and np.abs(seen - t).min() <= most for t in range(before.size)])
        np.testing.assert_array_equal(np.isfinite(after), near)
        np.testing.assert_array_equal(after[seen], before[seen])


def _hold(series, limit):
    """Forward filling day by day; `limit` None is half the median gap of the observations so far, or of 6 days."""
    out, seen = [], []
    for t, value in enumerate(series):
        if not np.isnan(value):
            seen.append(t)
        most = limit
        if limit is None:
            most = np.median(np.diff(seen)) // 2 if len(seen) > 1 else 3
        out.append(series[seen[-1]] if seen and t - seen[-1] <= most else NAN)
    return np.array(out, dtype="float32")


@given(gappy, st.sampled_from([None, 0, 1, 4]), st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_causal_holds_the_last_observation(values, limit, per_chunk):
    ds = _cube(values)
    filled = fill_gaps(ds, "half-revisit" if limit is None else limit, revisit="measured", causal=True)
    np.testing.assert_array_equal(filled["s1_vv"], [_hold(v, limit) for v in ds["s1_vv"].values])
    lazy = fill_gaps(
        ds.chunk(station=per_chunk, time=5), "half-revisit" if limit is None else limit, revisit="measured", causal=True
    )
    xr.testing.assert_identical(lazy.compute(), filled)


@given(
    gappy,
    st.integers(1, 17),
    st.sampled_from([("half-revisit", "measured"), ("half-revisit", "attribute"), (2, "measured")]),
    st.sampled_from([None, 5, "each"]),
)
@settings(max_examples=80, deadline=None)
def test_causal_depends_on_nothing_later(values, day, how, attribute):
    ds = _cube(values)
    if attribute == "each":  # as a station cube has it: measured over the whole series
        ds["s1_vv"].attrs |= _of_each(*measure_revisit(ds["s1_vv"]).values.tolist())
    elif attribute:
        ds["s1_vv"].attrs["revisit_days"] = attribute
    known = ds.isel(time=slice(day))
    if attribute == "each":
        known["s1_vv"].attrs |= _of_each(*measure_revisit(known["s1_vv"]).values.tolist())
    limit, revisit = how
    np.testing.assert_array_equal(
        fill_gaps(ds, limit, revisit=revisit, causal=True)["s1_vv"][:, :day],
        fill_gaps(known, limit, revisit=revisit, causal=True)["s1_vv"],
    )


@pytest.mark.parametrize("causal", [False, True])
def test_steps_are_repeated_on_stations_and_grids(make_station_cube, make_grid_cube, causal):
    ds, grid = make_station_cube(gaps=0.6), make_grid_cube(gaps=0.6)
    filled = fill_gaps(ds, revisit="measured", causal=causal)
    again = repeat_steps(ds, steps_of(filled))
    xr.testing.assert_identical(again, filled)
    on_grid = repeat_steps(grid, steps_of(filled))["s1_vv"]
    for y, x in np.ndindex(4, 5):
        series = grid["s1_vv"].values[:, y, x]
        limit = int(measure_revisit(grid["s1_vv"])[y, x] // 2)
        expected = _hold(series, None) if causal else _pandas(series, limit)
        np.testing.assert_allclose(on_grid[:, y, x], expected, rtol=1e-5)


def test_a_record_of_before_the_causal_mode_is_understood(make_station_cube):
    ds = make_station_cube(gaps=0.6)
    old = [{"step": "fill_gaps", "limit": {"s1_vv": 2}, "revisit": "measured"}]
    filled = fill_gaps(ds, {"s1_vv": 2}, revisit="measured")
    xr.testing.assert_identical(repeat_steps(ds, old), filled)
    xr.testing.assert_identical(repeat_steps(filled, old), filled)


def test_the_target_is_filled_when_asked_and_not_repeated(make_station_cube):
    ds = make_station_cube(gaps=0.5)
    ds["sm"][:, 5:9] = NAN
    filled = fill_gaps(ds, 1, target=True)
    np.testing.assert_allclose(filled["sm"], [_pandas(s, 1) for s in ds["sm"].values], rtol=1e-5)
    xr.testing.assert_identical(filled.drop_vars("sm"), fill_gaps(ds, 1).drop_vars("sm"))
    xr.testing.assert_identical(repeat_steps(ds, steps_of(filled))["sm"], ds["sm"])
    alone = fill_gaps(ds, {"sm": 2}, target=True)
    np.testing.assert_allclose(alone["sm"], [_pandas(s, 2) for s in ds["sm"].values], rtol=1e-5)


@pytest.mark.parametrize("chunked", [False, True])
def test_masks_say_what_was_filled(make_station_cube, chunked):
    ds = make_station_cube(gaps=0.6)
    ds["s1_vv"].attrs["ancillary_variables"] = "s1_quality"
    source = ds.chunk(station=2) if chunked else ds
    out = fill_gaps(source, 2, mask=True)
    assert sorted(set(out.data_vars) - set(ds.data_vars)) == [
        f"{n}_filled" for n in ("precipitation", "s1_vv", "temperature")
    ]
    for name in ("precipitation", "s1_vv", "temperature"):
        flag = out[f"{name}_filled"]
        assert (flag.dtype, flag.dims, flag.attrs["kind"]) == (bool, ("station", "time"), "flag")
        assert (flag.chunks is not None) == chunked
        np.testing.assert_array_equal(flag, ds[name].isnull().values & out[name].notnull().values)
        assert flag.any()
    assert out["s1_vv"].attrs["ancillary_variables"] == "s1_quality s1_vv_filled"
    assert set(out["s1_vv_filled"].attrs) <= {"kind", "long_name", "grid_mapping"}  # no unit, no revisit
    assert "ancillary_variables" not in ds["temperature"].attrs
    plain = fill_gaps(source, 2)
    np.testing.assert_array_equal(out["s1_vv"], plain["s1_vv"])
    xr.testing.assert_identical(repeat_steps(ds, steps_of(out)), out.compute())


def test_masks_are_no_features_anywhere(make_station_cube, tmp_path):
    ds = make_station_cube(gaps=0.6)
    out, plain = fill_gaps(ds, 2, mask=True), fill_gaps(ds, 2)
    flags = [n for n in out.data_vars if n.endswith("_filled")]
    assert not set(flags) & set(variables_of_kind(out, "dynamic", "static", "calendar", "target"))
    scaler = Scaler("standard").fit(out)
    assert scaler.to_dict() == Scaler("standard").fit(plain).to_dict()
    xr.testing.assert_identical(scaler.transform(out)[flags], out[flags].assign_attrs(scaler.transform(out).attrs))
    assert not set(flags) & set(flag_outliers(out, 3).data_vars)
    again = fill_gaps(out, 1, mask=True)  # no masks of masks
    assert set(again.data_vars) == set(out.data_vars)
    assert split_stations(out, (0.4, 0.3, 0.3)) == split_stations(plain, (0.4, 0.3, 0.3))
    write_cube(out, tmp_path / "filled.zarr")
    back = open_cube(tmp_path / "filled.zarr").compute()
    xr.testing.assert_equal(back, out)
    for name in flags:
        assert back[name].dtype == bool
        assert back[name].attrs == out[name].attrs


@pytest.mark.parametrize("chunked", [False, True])
def test_real_stations_equal_pandas(data, chunked):
    archive = data / "ismn" / "ISMN_DWD_SMOSMANIA_20240825_20250825.zip"
    ds = smgeo.open_stations(archive, kind="ismn", variables=["soil_temperature"]).compute()
    _compare_with_pandas(ds.chunk(station=4, time=100) if chunked else ds)


def test_real_cells_equal_pandas(data):
    variables = {"sm": "SMAP_AM", "precipitation": {"file": "APCP_FORA", "scale": 24.0}}
    folder = data / "hydrodl_smap" / "CONUSv4f1"
    # The third year has no target.
    ds = smgeo.open_stations(folder, kind="matrix", variables=variables, years=["2015", "2016"]).compute()
    assert _compare_with_pandas(ds) > 10_000


def _compare_with_pandas(ds):
    """Fixed limits, and half the revisit as measured, of target and features; how many days were filled."""
    names, count = variables_of_kind(ds, "dynamic", "target"), 0
    for limit in (1, 5, "half-revisit"):
        filled = fill_gaps(ds, limit, revisit="measured", target=True).compute()
        for name in names:
            series = ds[name].values
            for before, after in zip(series, filled[name].values, strict=True):
                seen = np.flatnonzero(np.isfinite(before))
                most = int(np.median(np.diff(seen)) // 2) if limit == "half-revisit" and seen.size > 1 else limit
                if most == "half-revisit":  # one observation or none, and a nominal revisit of 1 day
                    most = 0
                np.testing.assert_array_equal(after, _pandas(before, most))
                count += int(np.isfinite(after).sum() - seen.size)
    return count


def test_graphs_are_small(make_station_cube):
    lazy = make_station_cube(stations=6, gaps=0.5).chunk(station=2)
    before, after = (len(dict(d["s1_vv"].__dask_graph__())) for d in (lazy, fill_gaps(lazy)))
    assert after - before <= 3  # one task a chunk


def test_per_station_revisit_follows_chunks():
    values = np.full((4, 20), NAN)
    values[:, 9] = 1
    ds = _cube(values, **_of_each(2, 4, 6, 8))
    filled = fill_gaps(ds.chunk(station=1, time=7))["s1_vv"].values
    assert np.isfinite(filled).sum(axis=1).tolist() == [3, 5, 7, 9]


def test_nothing_is_computed_on_lazy_input(make_station_cube):
    def forbidden(dsk, keys, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=forbidden):
        out = fill_gaps(make_station_cube(gaps=0.5).chunk(station=2))
    assert out["s1_vv"].chunks is not None


def test_a_station_without_values_takes_none_from_its_neighbours():
    filled = fill_gaps(_cube([[1, 2, 3, 4], [NAN] * 4, [5, 6, 7, 8]]), 4)["s1_vv"]
    assert np.isnan(filled[1]).all()


def test_target_static_and_calendar_stay_as_they_are(make_station_cube):
    ds = make_station_cube(gaps=0.5)
    ds["sm"][:, 5:9] = NAN
    ds["clay"][2] = NAN
    ds["doy_sin"] = ("time", np.where(np.arange(30) % 3, 0.5, NAN).astype("float32"), {"kind": "calendar"})
    out = fill_gaps(ds, 3)
    for name in ("sm", "clay", "doy_sin"):
        xr.testing.assert_identical(out[name], ds[name])
    assert int(out["s1_vv"].isnull().sum()) < int(ds["s1_vv"].isnull().sum())
    assert out["s1_vv"].attrs == ds["s1_vv"].attrs | {"gaps_filled": 3}


def test_the_catalogue_says_what_the_target_is_where_the_cube_does_not(make_station_cube):
    ds = make_station_cube()
    ds["sm"][:, 5] = NAN
    ds["sm"].attrs = {}
    xr.testing.assert_identical(fill_gaps(ds, 3)["sm"], ds["sm"])


def test_a_mapping_fills_only_what_it_names(make_station_cube):
    ds = make_station_cube(gaps=0.5)
    out = fill_gaps(ds, {"s1_vv": 2})
    np.testing.assert_allclose(out["s1_vv"], [_pandas(s, 2) for s in ds["s1_vv"].values], rtol=1e-5)
    xr.testing.assert_identical(out["temperature"], ds["temperature"])
    assert steps_of(out) == [{"step": "fill_gaps", "limit": {"s1_vv": 2}, "revisit": "attribute"}]


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("half", "half-revisit"),
        (-1, "whole number"),
        (1.5, "whole number"),
        (NAN, "whole number"),
        (np.inf, "whole number"),
        (None, "whole number.*got None"),
        (True, "whole number.*got True"),
        ({"s1_vv": "weekly"}, "'half-revisit' or a whole number.*got 'weekly'"),
        ({"s1_vv": None}, "limit for 's1_vv'"),
        ({"s1_v": 2}, "'s1_vv'"),
        ({"sm": 2}, "not a dynamic variable"),
    ],
)
def test_limits_refused(make_station_cube, limit, message):
    with pytest.raises(SmgeoError, match=message):
        fill_gaps(make_station_cube(), limit)


def test_a_way_to_the_revisit_that_there_is_not(make_station_cube):
    with pytest.raises(SmgeoError, match="'attribute' or 'measured'; got 'mesured'"):
        fill_gaps(make_station_cube(), revisit="mesured")


@pytest.mark.parametrize("chunked", [False, True])
def test_masks_are_of_all_fillings(make_station_cube, chunked):
    ds = make_station_cube(days=40, gaps=0.8)
    source = ds.chunk(station=2) if chunked else ds
    for second in ({"mask": True}, {}):
        out = fill_gaps(fill_gaps(source, 1, mask=True), 2, **second)
        for name in ("precipitation", "s1_vv", "temperature"):
            filled = ds[name].isnull().values & out[name].notnull().values
            np.testing.assert_array_equal(out[f"{name}_filled"], filled)
            assert filled.sum() > (fill_gaps(ds, 1)[name].notnull() & ds[name].isnull()).sum()
        xr.testing.assert_identical(repeat_steps(ds, steps_of(out)), out.compute())


@pytest.mark.parametrize("dtype", ["float16", ">f4", ">f8", "float64"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_other_floats_are_filled_too(dtype, chunked, causal):
    series = [[1, NAN, NAN, NAN, 5, NAN, NAN], [NAN, 2, NAN, 4, NAN, NAN, 7]]
    ds = _cube(series)
    other = ds.astype(dtype)
    other["s1_vv"].attrs = ds["s1_vv"].attrs
    other = other.chunk(station=1, time=3) if chunked else other
    filled = fill_gaps(other, 1, causal=causal)["s1_vv"]
    assert filled.dtype == filled.compute().dtype == ("float64" if dtype in (">f8", "float64") else "float32")
    np.testing.assert_array_equal(filled, fill_gaps(ds, 1, causal=causal)["s1_vv"])
    np.testing.assert_array_equal(measure_revisit(other["s1_vv"]), measure_revisit(ds["s1_vv"]))


def test_whole_numbers_have_no_gaps_and_text_is_refused():
    ds = _cube([[1, 2, 3]])
    whole = ds.assign(s1_vv=ds["s1_vv"].astype("int16").assign_attrs(ds["s1_vv"].attrs))
    for cube in (whole, whole.chunk(time=1)):
        filled = fill_gaps(cube, 2)["s1_vv"]
        assert filled.dtype == "int16"
        np.testing.assert_array_equal(filled, ds["s1_vv"])
    text = ds.assign(
        soil=(("station", "time"), [["wet", "dry", "dry"]]), day=(("station", "time"), [ds["time"].values])
    )
    xr.testing.assert_identical(fill_gaps(text, 2)[["soil", "day"]].drop_attrs(deep=False), text[["soil", "day"]])
    text["soil"].attrs["kind"] = "dynamic"
    with pytest.raises(SmgeoError, match="fill_gaps: expected numeric variables, found soil"):
        fill_gaps(text, 2)


@given(
    st.lists(st.one_of(st.just(NAN), st.sampled_from([-np.inf, np.inf, 1.0, 3.0])), min_size=9, max_size=9),
    st.integers(1, 9),
)
@settings(max_examples=100, deadline=None)
def test_infinite_values_are_gaps(series, limit):
    finite = [v if np.isfinite(v) else NAN for v in series]
    filled = fill_gaps(_cube([series]), limit, mask=True)
    np.testing.assert_allclose(filled["s1_vv"], [_pandas(finite, limit)], rtol=1e-6)
    np.testing.assert_array_equal(filled["s1_vv_filled"], np.isfinite(filled["s1_vv"]) & ~np.isfinite([series]))


def test_a_grid_keeps_its_place(make_grid_cube, tmp_path):
    grid = make_grid_cube(gaps=0.5)
    opened = open_cube(write_cube(grid, tmp_path / "grid.zarr"))
    out = fill_gaps(opened, 1, mask=True)
    flags = [flag_outliers(opened, 3), flag_outliers(opened, 3, per_station=True), flag_out_of_range(opened)]
    for made in (out, *flags):
        for variable in made.data_vars.values():
            assert variable.rio.grid_mapping == "spatial_ref"
            assert {**variable.attrs, **variable.encoding}["grid_mapping"] == "spatial_ref"
    back = open_cube(write_cube(out, tmp_path / "filled.zarr"))
    assert back["s1_vv_filled"].encoding["grid_mapping"] == "spatial_ref"


def test_time_must_be_daily(make_station_cube):
    ds = make_station_cube(days=10)
    with pytest.raises(SmgeoError, match="2020-01-04.*2020-01-06"):
        fill_gaps(ds.isel(time=[0, 1, 2, 3, 5, 6]), 1)
    with pytest.raises(SmgeoError, match="daily"):
        fill_gaps(ds.drop_vars("time"), 1)


@given(st.permutations(range(6)), st.integers(1, 6), st.sampled_from(["isel", "sel", "sortby", "concat", "stored"]))
@settings(max_examples=40, deadline=None)
def test_a_revisit_stays_with_its_station(tmp_path_factory, order, count, how):
    """Seen once, on day 9 of 20; filled by L = 0, 1, 2, ... days on either side, whatever became of the cube."""
    values = np.full((6, 20), NAN)
    values[:, 9] = 1
    ds = _cube(values, **_of_each(0, 2, 4, 6, 8, 10))
    chosen = {
        "isel": lambda: ds.isel(station=order[:count]),
        "sel": lambda: ds.sel(station=[f"N/{i}" for i in order[:count]]),
        "sortby": lambda: ds.sortby(xr.DataArray(order, dims="station")),
        "concat": lambda: xr.concat([ds.isel(station=order[:count]), ds.isel(station=order[count:])], "station"),
        "stored": lambda: open_cube(write_cube(ds.isel(station=order), tmp_path_factory.mktemp("revisit") / "s.zarr")),
    }[how]()
    filled = fill_gaps(chosen)["s1_vv"].notnull().sum("time")
    assert filled.values.tolist() == [1 + 2 * int(s[2:]) for s in chosen["station"].values.tolist()]


def test_a_station_that_the_revisit_does_not_name_is_measured():
    series = [1 if t % 6 == 0 else NAN for t in range(25)]
    ds = _cube([series] * 3, revisit_days=[2, 4], revisit_stations=["N/2", "elsewhere"])
    np.testing.assert_allclose(fill_gaps(ds)["s1_vv"], [_pandas(series, 3), _pandas(series, 3), _pandas(series, 1)])


def test_a_revisit_without_names_is_that_of_the_stations_in_their_order(tmp_path):
    series = [1 if t % 10 == 0 else NAN for t in range(25)]
    ds = _cube([series] * 2, revisit_days=[8.0, 4.0])
    opened = open_cube(write_cube(ds, tmp_path / "s.zarr"))
    np.testing.assert_allclose(fill_gaps(opened)["s1_vv"], [_pandas(series, 4), _pandas(series, 2)])
    with pytest.raises(SmgeoError, match="has 2 numbers for 1 stations"):
        fill_gaps(opened.isel(station=[1]))
    with pytest.raises(SmgeoError, match="has 2 numbers for 3 stations"):
        fill_gaps(_cube([series] * 2, revisit_days=[8, 4], revisit_stations=["N/0", "N/1", "N/2"]))
    np.testing.assert_allclose(fill_gaps(opened.isel(station=[1]), revisit="measured")["s1_vv"], [_pandas(series, 5)])
