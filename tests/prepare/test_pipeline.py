"""A recipe's whole preparation: its numbers come from training stations alone."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.errors import SmgeoError
from smgeo.prepare import Split, choose_outliers, prepare_cube, repeat_steps, steps_of
from smgeo.recipe.preparation import PrepareSpec

FEATURES = ["s1_vv", "precipitation", "temperature", "clay"]
TRAIN = ["N/s0", "N/s2", "N/s5"]


def _spec(scale="minmax", z=1.8, **fill):
    return PrepareSpec.model_validate({"scale": scale, "outliers": {"z": z} if z else None, "fill": fill or None})


@pytest.mark.parametrize("scale", ["minmax", "robust", "standard"])
def test_by_formula(make_station_cube, scale):
    ds = make_station_cube(gaps=0.4, seed=3)
    prepared = prepare_cube(ds, _spec(scale, limit=2), FEATURES, "sm", TRAIN)
    rows = [0, 2, 5]
    filled, outlier = {}, np.zeros((6, 30), dtype=bool)
    for name in [*FEATURES, "sm"]:
        values = ds[name].values.astype("float64")
        if name in FEATURES[:3]:
            values = (
                np.array([pd.Series(v).interpolate(limit=2, limit_direction="both") for v in values])
                .astype("float32")
                .astype("float64")
            )
        filled[name] = values
        mean, std = np.nanmean(values[rows]), np.nanstd(values[rows])
        if name not in ("precipitation", "clay"):  # heavy-tailed; static
            outlier |= np.abs(values - mean) > 1.8 * std
    outlier[[1, 3, 4]] = False
    assert prepared.outlier_rows == int(outlier.sum()) > 0
    filled["sm"] = np.where(outlier, np.nan, filled["sm"])
    for name in [*FEATURES, "sm"]:
        learn = filled[name][rows]
        center, width = {
            "minmax": lambda v: (np.nanmin(v), np.nanmax(v) - np.nanmin(v)),
            "robust": lambda v: (np.nanmedian(v), np.subtract(*np.nanquantile(v, [0.75, 0.25]))),
            "standard": lambda v: (np.nanmean(v), np.nanstd(v)),
        }[scale](learn)
        np.testing.assert_allclose(prepared.ds[name], (filled[name] - center) / width, rtol=1e-4, atol=1e-5)
        if name != "sm":
            assert prepared.fill[name] == pytest.approx((np.nanmean(learn) - center) / width, rel=1e-4, abs=1e-5)


FILLS = [None, {"limit": 2}, {"revisit": "measured"}, {"revisit": "attribute", "causal": True}, {"causal": True}]
OUTLIERS = [
    None,
    {"z": 1.8},
    {"z": 1.8, "per_station": True},
    {"z": 1.8, "variables": FEATURES},
    {"z": "choose"},
    {"z": "choose", "per_station": True, "variables": ["s1_vv", "sm"]},
]


@given(
    st.integers(0, 10**6),
    st.sampled_from(["minmax", "robust", "standard"]),
    st.sampled_from(FILLS),
    st.sampled_from(OUTLIERS),
    st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_test_stations_change_no_number_that_is_learned(make_station_cube, seed, scale, fill, outliers, chunked):
    rng = np.random.default_rng(seed)
    ds = make_station_cube(gaps=0.3)
    other = ds.copy(deep=True)
    for i in (1, 3):
        for name in [*FEATURES[:3], "sm"]:
            other[name][i] = np.where(rng.random(30) < 0.3, np.nan, rng.normal(0, 10.0 ** rng.integers(0, 6), 30))
        other["clay"][i] = rng.normal(0, 1000)
    if chunked:
        ds, other = ds.chunk(station=4), other.chunk(station=1, time=11)
    split = Split(tuple(TRAIN), ("N/s4",), ("N/s1", "N/s3"))
    spec = PrepareSpec.model_validate({"scale": scale, "fill": fill, "outliers": outliers})
    if outliers is not None and outliers["z"] == "choose":
        found = [choose_outliers(d, spec, FEATURES, "sm", split) for d in (ds, other)]
        assert found[0].to_dict() == found[1].to_dict()
        spec = spec.model_copy(update={"outliers": spec.outliers.model_copy(update={"z": found[0].z})})
    a, b = (prepare_cube(d, spec, FEATURES, "sm", TRAIN) for d in (ds, other))
    assert (a.scaler.to_dict(), a.fill, a.outliers) == (b.scaler.to_dict(), b.fill, b.outliers)
    known = [*TRAIN, "N/s4"]
    xr.testing.assert_identical(a.ds.sel(station=known).compute(), b.ds.sel(station=known).compute())


@pytest.mark.parametrize("attrs", [{}, {"kind": "dynamic", "revisit_days": 6.0}])
def test_the_target_is_never_filled_whatever_its_name_says(make_station_cube, attrs):
    ds = make_station_cube(gaps=0.4).rename(sm="theta")
    ds["theta"].attrs = attrs
    ds["theta"][:, 5:9] = np.nan
    for limit in (2, "half-revisit"):
        prepared = prepare_cube(ds, _spec(z=None, limit=limit), FEATURES, "theta", TRAIN)
        np.testing.assert_array_equal(prepared.ds["theta"].isnull(), ds["theta"].isnull())
        again = repeat_steps(ds, steps_of(prepared.ds))
        np.testing.assert_array_equal(again["theta"], prepared.ds["theta"])


def test_a_threshold_still_to_be_chosen_is_refused(make_station_cube):
    with pytest.raises(SmgeoError, match="still to be chosen"):
        prepare_cube(make_station_cube(), _spec(z="choose"), FEATURES, "sm", TRAIN)


def test_what_costs_a_row_is_counted_by_variable(make_station_cube):
    ds = make_station_cube(gaps=0.4, seed=3)
    spec = PrepareSpec.model_validate({"outliers": {"z": 1.8, "variables": ["precipitation"]}, "fill": None})
    prepared = prepare_cube(ds, spec, FEATURES, "sm", TRAIN)
    rain = ds["precipitation"].values[[0, 2, 5]].astype("float64")
    expected = int((np.abs(rain - np.nanmean(rain)) > 1.8 * np.nanstd(rain)).sum())
    assert expected > 0
    assert prepared.outlier_rows == expected
    assert prepared.outliers.by_variable == {"precipitation": expected}


def test_steps_can_be_repeated_on_new_data(make_station_cube):
    ds = make_station_cube(gaps=0.4)
    prepared = prepare_cube(ds, _spec(limit=2), FEATURES, "sm", TRAIN)
    steps = steps_of(prepared.ds)
    assert [s["step"] for s in steps] == ["fill_gaps", "scale"]
    again = repeat_steps(ds, steps)
    for name in FEATURES:
        xr.testing.assert_identical(again[name], prepared.ds[name])
    xr.testing.assert_identical(repeat_steps(again, steps), again)
    np.testing.assert_array_equal(again["sm"].isnull(), ds["sm"].isnull())
    with pytest.raises(SmgeoError, match="prepared otherwise"):
        repeat_steps(prepare_cube(ds, _spec("robust", limit=2), FEATURES, "sm", TRAIN).ds, steps)
    with pytest.raises(SmgeoError, match="unknown preparation step 'whiten'"):
        repeat_steps(ds, [{"step": "whiten"}])


def test_without_fill_and_outliers(make_station_cube):
    ds = make_station_cube(gaps=0.4)
    prepared = prepare_cube(ds, _spec(z=None), FEATURES, "sm", TRAIN)
    assert prepared.outlier_rows == 0
    np.testing.assert_array_equal(prepared.ds["s1_vv"].isnull(), ds["s1_vv"].isnull())


def test_windows_fill_with_the_training_mean(make_station_cube):
    ds = make_station_cube(gaps=0.4)
    prepared = prepare_cube(ds, _spec(z=None), FEATURES, "sm", TRAIN)
    windows = prepared.windows(["N/s1"], 1, 0.5)
    x = windows.gather(np.arange(len(windows)))[:, 0]
    unseen = x[:, 4] == 0
    assert unseen.any()
    np.testing.assert_allclose(x[unseen, 0], prepared.fill["s1_vv"], rtol=1e-6)
