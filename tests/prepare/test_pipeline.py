"""A recipe's whole preparation: its numbers come only from training stations, and a kept cube gives the same windows."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError
from smgeo.prepare import (
    Prepared,
    Split,
    choose_outliers,
    derive_features,
    part_rows,
    preparation_key,
    prepare_cube,
    repeat_steps,
    split_periods,
    steps_of,
    training_windows,
    windows_of_parts,
)
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
    with pytest.raises(SmgeoError, match="prepared in another way"):
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


def _assert_same_windows(a, b):
    """Index, preparation and every bit of x, y and mask."""
    assert (a.preparation, a.left_out, a.shape) == (b.preparation, b.left_out, b.shape)
    assert len(a) > 0
    for one, other in zip((*a.targets, a.station_index), (*b.targets, b.station_index), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(a.batch(a.order()), b.batch(b.order()), strict=True):
        assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())


def _kept(ds, path):
    return open_cube(write_cube(ds, path))


BLOCKS = [
    {"scale": "minmax", "outliers": {"z": 1.8}},
    {"scale": "standard", "outliers": {"z": 1.8, "per_station": True}, "fill": {"limit": {"s1_vv": 2}}},
    {"scale": "robust", "outliers": None, "fill": {"causal": True}},
    {"scale": "standard", "outliers": {"z": 1.5, "variables": ["s1_vv", "sm"]}, "fill": None},
]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_kept_cube_gives_the_same_windows_to_the_last_bit(make_station_cube, tmp_path, block, chunked):
    ds = make_station_cube(gaps=0.4, seed=3)
    ds["s1_vv"].attrs["revisit_days"] = [6.0, 12.0, 6.0, 5.5, 6.0, 6.0]
    ds["s1_vv"].attrs["revisit_stations"] = ds["station"].values.tolist()
    ds["clay"][1] = np.nan
    ds = ds.chunk(station=4, time=11) if chunked else ds
    spec = PrepareSpec.model_validate(block)
    prepared = prepare_cube(ds, spec, FEATURES, "sm", TRAIN)
    again = Prepared.from_cube(_kept(prepared.to_cube(), tmp_path / "prepared.zarr"))
    assert steps_of(again.ds) == steps_of(prepared.ds)
    assert (again.features, again.target, again.fill) == (prepared.features, prepared.target, prepared.fill)
    assert again.scaler.to_dict() == prepared.scaler.to_dict()
    assert again.outliers == prepared.outliers
    assert again.ds.attrs == prepared.ds.attrs
    for length, missing, mode in ((1, 0.5, "window"), (5, 0.4, "window"), (5, 0.4, "sequence"), (1, 0.0, "window")):
        for stations in (TRAIN, ["N/s3", "N/s1"]):
            a, b = (p.windows(stations, length, missing, mode) for p in (prepared, again))
            if missing or stations is TRAIN:
                _assert_same_windows(a, b)
    # Other stations are prepared by the kept numbers as by the learned ones.
    raw = ds.isel(station=[1, 3])
    xr.testing.assert_identical(again.repeat(raw).compute(), prepared.repeat(raw).compute())


@pytest.mark.parametrize("mode", ["window", "sequence"])
def test_kept_parts_of_a_training_give_its_windows(make_station_cube, tmp_path, mode):
    """Also where the split is in time, and a feature is each station's own mean."""
    ds = make_station_cube(days=60, gaps=0.3, seed=5)
    split = split_periods(ds, ("2020-01-01", "2020-01-30"), ("2020-02-11", "2020-02-29"), ("2020-01-31", "2020-02-10"))
    train, held = (part_rows(ds, split, part, "sm") for part in ("train", "validation"))
    spec, features = PrepareSpec.model_validate({"window": {"missing": 0.4}}), [*FEATURES, "target_mean"]
    prepared, windows, validation = training_windows(train, held, spec, features, "sm", length=4, mode=mode)
    kept = Prepared.from_cube(_kept(prepared.to_cube(), tmp_path / "train.zarr"))
    kept_held = _kept(prepared.repeat(held), tmp_path / "validation.zarr")
    made = windows_of_parts(kept, kept_held, length=4, missing=0.4, mode=mode)
    for a, b in zip((windows, validation), made, strict=True):
        _assert_same_windows(a, b)
    assert windows_of_parts(kept, None, length=4, missing=0.4)[1] is None


def test_preparing_changes_neither_the_cube_nor_its_next_preparation(make_station_cube):
    ds = make_station_cube(gaps=0.4)
    before = ds.copy(deep=True)
    first, second = (prepare_cube(ds, _spec(limit=2), FEATURES, "sm", TRAIN) for _ in range(2))
    xr.testing.assert_identical(ds, before)
    xr.testing.assert_identical(first.ds, second.ds)
    assert (first.fill, first.outliers) == (second.fill, second.outliers)


def test_a_cube_that_was_not_kept_is_refused(make_station_cube):
    prepared = prepare_cube(make_station_cube(), _spec(limit=2), FEATURES, "sm", TRAIN)
    with pytest.raises(SmgeoError, match="no attribute 'smgeo_prepared'"):
        Prepared.from_cube(prepared.ds)


def test_the_key_of_a_preparation_has_what_shapes_it_and_nothing_else(make_station_cube):
    """Each field of the recipe's block either changes key and values, or neither."""
    changes = {
        "fill": [None, {"limit": 1}, {"causal": True}, {"limit": {"s1_vv": 3}}],
        "outliers": [None, {"z": 1.5}, {"z": 1.5, "per_station": True}, {"z": 1.5, "variables": ["clay"]}],
        "scale": ["robust", "standard"],
        "split": [{"fractions": [0.5, 0.25, 0.25]}, {"seed": 3}],
        "window": [{"length": 7}, {"missing": 0.1}],
    }
    assert set(changes) == set(PrepareSpec.model_fields)
    ds = make_station_cube(gaps=0.4, seed=3)

    def made(block, features=tuple(FEATURES), target="sm", train=tuple(TRAIN)):
        spec = PrepareSpec.model_validate({"outliers": {"z": 1.8}, **block})
        prepared = prepare_cube(ds, spec, features, target, train)
        return preparation_key(spec, features, target, train), prepared.to_cube()

    key, cube = made({})
    for name, values in changes.items():
        for value in values:
            other_key, other = made({name: value})
            shapes = name not in ("split", "window")
            assert (other_key != key) == shapes
            assert other.identical(cube) != shapes
    for more in ({"features": ("s1_vv", "clay")}, {"train": ("N/s0", "N/s1")}, {"target": "temperature"}):
        more = {"features": ("s1_vv", "precipitation", "clay"), **more} if "target" in more else more
        other_key, other = made({}, **more)
        assert other_key != key
        assert not other.identical(cube)
    # A limit of a variable that is not used shapes nothing.
    limits = [{"s1_vv": 3}, {"s1_vv": 3, "s2_b4": 2}]
    (a, of_a), (b, of_b) = (made({"fill": {"limit": limit}}) for limit in limits)
    assert a == b
    assert of_a.identical(of_b)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("fill", [{"limit": 2}, None])
@pytest.mark.parametrize("scale", ["minmax", "robust", "standard"])
def test_an_infinite_value_is_prepared_as_a_missing_one(make_station_cube, lazy, fill, scale):
    """In training, validation and new rows alike: numbers learned, windows and targets are the same."""
    spec = PrepareSpec.model_validate({"fill": fill, "outliers": {"z": 3.0}, "scale": scale})
    features, train = ["s1_vv", "precipitation_3d", "clay", "doy_sin"], [f"N/s{i}" for i in range(6)]
    made = []
    for bad in (np.nan, np.inf, -np.inf):
        ds = make_station_cube(stations=8, gaps=0.1)
        ds["s1_vv"][[1, 6], 5] = ds["precipitation"][2, 7] = ds["sm"][[3, 7], 8] = ds["clay"][4] = bad
        ds = derive_features(ds.chunk(station=3) if lazy else ds, features)
        prepared = prepare_cube(ds, spec, features, "sm", train)
        parts = [prepared.windows(part, 3, 0.4) for part in (train, ["N/s6", "N/s7"])]
        new = prepared.repeat(
            make_station_cube(stations=2, seed=5)
            .assign(s1_vv=lambda d: d["s1_vv"].where(d["s1_vv"] < -12, bad))
            .pipe(derive_features, features)
        )
        made.append(
            (
                prepared.scaler.to_dict(),
                prepared.fill,
                prepared.outliers,
                *[w.batch(np.arange(len(w))) for w in parts],
                new["s1_vv"].values,
            )
        )
    for other in made[1:]:
        assert other[:3] == made[0][:3]
        for a, b in zip(other[3:5], made[0][3:5], strict=True):
            np.testing.assert_array_equal(a[0], b[0])
            np.testing.assert_array_equal(a[1], b[1])
        np.testing.assert_array_equal(other[5], made[0][5])
    assert len(made[0][3][0]) > 50
