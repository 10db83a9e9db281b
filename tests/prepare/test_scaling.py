"""The scaler against scikit-learn's, blind to missing values, and invertible."""

import json
import threading
from types import SimpleNamespace

import dask
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401 - the accessor
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError
from smgeo.prepare import Scaler, fill_gaps, repeat_steps, steps_of

PEERS = {"minmax": MinMaxScaler, "robust": RobustScaler, "standard": StandardScaler}
KINDS = list(PEERS)


@pytest.mark.parametrize("chunks", [None, {"station": 2, "time": 7}])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_scikit_learn_on_complete_data(make_station_cube, kind, chunks):
    ds = make_station_cube(stations=5, days=21, seed=2)
    train, other = ds.isel(station=slice(0, 3)), ds
    ours = Scaler(kind).fit(train.chunk(chunks) if chunks else train).transform(other)
    for name in ds.data_vars:
        peer = PEERS[kind]().fit(train[name].values.reshape(-1, 1).astype("float64"))
        expected = peer.transform(other[name].values.reshape(-1, 1).astype("float64")).reshape(other[name].shape)
        np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=1e-6)
        assert ours[name].dtype == "float32"
        assert ours[name].attrs["units"] == "1"


@pytest.mark.parametrize("kind", KINDS)
def test_missing_values_leave_no_trace(make_station_cube, kind):
    ds = make_station_cube(stations=4, days=15, gaps=0.4)
    scaler = Scaler(kind).fit(ds)
    values = ds["s1_vv"].values
    seen = values[np.isfinite(values)].reshape(-1, 1).astype("float64")
    peer = PEERS[kind]().fit(seen)
    out = scaler.transform(ds)["s1_vv"].values
    np.testing.assert_array_equal(np.isnan(out), np.isnan(values))
    np.testing.assert_allclose(out[np.isfinite(values)], peer.transform(seen)[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.floats(-1000, 1000, width=32), min_size=2, max_size=30), st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_inverse_is_exact_to_float32(kind, values, gaps):
    x = np.array([[*values, *[np.nan] * gaps]], dtype="float32")
    ds = xr.Dataset({"a": (("station", "time"), x, {"units": "K"})}, {"station": ["s"]})
    scaler = Scaler(kind).fit(ds)
    back = scaler.inverse_transform(scaler.transform(ds))
    # One rounding of the scaled value, magnified by the scale, and one of the result.
    scaled = (x.astype("float64") - scaler.center_["a"]) / scaler.scale_["a"]
    allowed = np.nanmax(np.abs(scaled)) * scaler.scale_["a"] * 2**-24 + np.nanmax(np.abs(x)) * 2**-24 + 1e-30
    assert np.nanmax(np.abs(back["a"].values.astype("float64") - x)) <= allowed
    assert back["a"].attrs["units"] == "K"
    assert steps_of(back) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.1, 287.3, -12.7])
@pytest.mark.parametrize("n", [3, 7, 10, 101])
def test_a_constant_keeps_its_size_elsewhere(kind, value, n):
    """As in scikit-learn: no spread in training means a scale of 1, however the mean is rounded."""
    train = xr.Dataset(
        {"slope": (("station",), np.full(n, value, dtype="float32"))}, {"station": [f"s{i}" for i in range(n)]}
    )
    other = train + 2
    np.testing.assert_allclose(Scaler(kind).fit(train).transform(other)["slope"], 2, rtol=1e-5)


def test_by_hand_and_round_trips(tmp_path):
    ds = xr.Dataset(
        {"a": (("station", "time"), [[1.0, 2.0, 3.0], [4.0, np.nan, 9.0]], {"units": "mm"})}, {"station": ["x", "y"]}
    )
    scaler = Scaler("minmax").fit(ds)
    np.testing.assert_array_equal(scaler.transform(ds)["a"], [[0, 0.125, 0.25], [0.375, np.nan, 1]])
    scaler.save(tmp_path / "s.json")
    assert Scaler.load(tmp_path / "s.json").to_dict() == scaler.to_dict()
    assert Scaler.from_dict(scaler.to_dict()).to_dict() == {
        "kind": "minmax",
        "center": {"a": 1.0},
        "scale": {"a": 8.0},
        "units": {"a": "mm"},
    }


def test_variables_chunked_differently(make_station_cube):
    ds = make_station_cube(stations=4)
    uneven = ds.assign(s1_vv=ds["s1_vv"].chunk(station=1), sm=ds["sm"].chunk(station=2))
    assert Scaler("robust").fit(uneven).center_ == pytest.approx(Scaler("robust").fit(ds).center_)


def test_transform_is_lazy(make_station_cube):
    ds = make_station_cube().chunk(station=2)
    assert Scaler("standard").fit(ds).transform(ds)["s1_vv"].chunks is not None


def test_refusals(make_station_cube):
    ds = make_station_cube()
    with pytest.raises(SmgeoError, match="'minmax'"):
        Scaler("minmx")
    for error in (SmgeoError, NotFittedError):
        with pytest.raises(error, match="not fitted"):
            Scaler().transform(ds)
    ds["s1_vv"][:] = np.nan
    with pytest.raises(SmgeoError, match="no value of s1_vv"):
        Scaler().fit(ds)


@pytest.mark.parametrize("kind", ["minmax", "robust", "standard"])
@pytest.mark.parametrize("chunks", [None, {"station": 2}])
def test_an_infinite_value_is_missing(make_station_cube, kind, chunks):
    ds, lacking = make_station_cube(), make_station_cube()
    ds["s1_vv"][1, 3], ds["sm"][2, 4] = np.inf, -np.inf
    lacking["s1_vv"][1, 3] = lacking["sm"][2, 4] = np.nan
    if chunks:
        ds, lacking = ds.chunk(chunks), lacking.chunk(chunks)
    scaler = Scaler(kind).fit(ds)
    assert scaler.to_dict() == Scaler(kind).fit(lacking).to_dict()
    xr.testing.assert_equal(scaler.transform(ds), scaler.transform(lacking))


def test_other_units_are_refused(make_station_cube, make_grid_cube):
    """A unit in the attributes that is not the scaler's is not written over."""
    ds, grid = make_station_cube(), make_grid_cube()
    scaler = Scaler("standard").fit(ds)
    for cube in (ds, grid, ds.chunk(station=2)):
        kelvin = cube.assign(temperature=(cube["temperature"] + 273.15).assign_attrs(units="K"))
        with pytest.raises(SmgeoError, match="temperature is in 'K', needed in 'degC'"):
            scaler.transform(kelvin)
        with pytest.raises(SmgeoError, match="temperature is in 'K'"):
            repeat_steps(kelvin, steps_of(scaler.transform(ds)))
    # Where one of the two says nothing there is nothing to compare.
    silent = ds.drop_attrs()
    np.testing.assert_array_equal(scaler.transform(silent)["sm"], scaler.transform(ds)["sm"])
    np.testing.assert_array_equal(Scaler().fit(silent).transform(ds)["sm"], Scaler().fit(ds).transform(ds)["sm"])


def test_scaling_twice_is_refused(make_station_cube):
    ds = make_station_cube()
    once = Scaler().fit(ds).transform(ds)
    for scaler in (Scaler().fit(ds), Scaler("robust").fit(once)):
        with pytest.raises(
            SmgeoError, match="s1_vv, precipitation, temperature, clay, sm of the cube is scaled already"
        ):
            scaler.transform(once)
    # Variables of their own may have a scaler of their own.
    features, target = Scaler().fit(ds.drop_vars("sm")), Scaler("robust").fit(ds[["sm"]])
    both = target.transform(features.transform(ds))
    back = features.inverse_transform(target.inverse_transform(both))
    xr.testing.assert_allclose(back, ds, rtol=1e-5)
    assert back["sm"].attrs == ds["sm"].attrs
    # New data without the target: its step is recorded, and there is nothing to scale.
    new = ds.drop_vars("sm")
    repeated = repeat_steps(new, steps_of(both))
    xr.testing.assert_equal(repeated, features.transform(new))
    assert steps_of(repeated) == steps_of(both)


def test_the_inverse_undoes_the_last_step_alone(make_station_cube):
    ds = make_station_cube(gaps=0.3)
    scaler = Scaler().fit(ds)
    scaled = scaler.transform(ds)
    with pytest.raises(SmgeoError, match="its steps are scale, fill_gaps"):
        scaler.inverse_transform(fill_gaps(scaled, 1))
    with pytest.raises(SmgeoError, match="by this scaler; its steps are scale"):
        Scaler("robust").fit(ds).inverse_transform(scaled)
    # Values without a record, such as a model's, come back.
    bare = scaled[["sm"]].drop_attrs()
    np.testing.assert_allclose(scaler.inverse_transform(bare)["sm"], ds["sm"], rtol=1e-5)


def test_nothing_to_scale_is_said(make_station_cube):
    ds = make_station_cube()
    mask = ds[["sm"]].notnull().rename(sm="seen")
    with pytest.raises(SmgeoError, match="no dynamic, static, calendar or target variable to scale, but seen"):
        Scaler().fit(mask)
    scaler = Scaler().fit(ds[["sm", "clay"]])
    for use in (scaler.transform, scaler.inverse_transform):
        with pytest.raises(SmgeoError, match="it knows sm, clay; the cube has none of them, but s1_vv"):
            use(ds[["s1_vv"]])


# Numbers learned, against scikit-learn's on float64.


def peer_numbers(kind, values):
    """Center and scale of scikit-learn's scaler, fitted on all values of one variable."""
    peer = PEERS[kind]().fit(np.asarray(values, dtype="float64").reshape(-1, 1))
    if kind == "minmax":
        return SimpleNamespace(center=peer.data_min_[0], scale=1 / peer.scale_[0])
    return SimpleNamespace(center=peer.mean_[0] if kind == "standard" else peer.center_[0], scale=peer.scale_[0])


@st.composite
def station_series(draw):
    """(stations, days) float32 with gaps, the first value there; levels far from 0 and hardly any spread among them."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 12)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    level = draw(st.sampled_from([0.0, 280.0, -1e4]))
    spread = draw(st.sampled_from([0.0, 1e-5, 1.0, 1e3]))
    x = (level + spread * rng.standard_normal(shape)).astype("float32")
    x[rng.random(shape) < draw(st.sampled_from([0, 0.3, 0.8]))] = np.nan
    x[0, 0] = level
    return x


def as_cube(x):
    return xr.Dataset(
        {"temperature": (("station", "time"), x), "sm": (("station", "time"), -x), "clay": (("station",), x[:, 0])},
        {"station": [f"N/s{i}" for i in range(x.shape[0])], "time": pd.date_range("2020-01-01", periods=x.shape[1])},
    )


@pytest.mark.parametrize("kind", KINDS)
@given(station_series())
@settings(max_examples=60, deadline=None)
def test_numbers_equal_scikit_learns(kind, x):
    ds = as_cube(x).drop_vars("clay")
    scaler = Scaler(kind).fit(ds)
    for name in ds.data_vars:
        expected = peer_numbers(kind, ds[name])
        assert scaler.center_[name] == pytest.approx(expected.center, rel=1e-12, abs=1e-12)
        assert scaler.scale_[name] == pytest.approx(expected.scale, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@given(station_series(), st.data())
@settings(max_examples=60, deadline=None)
def test_station_cubes_give_the_same_bits_however_chunked(kind, x, data):
    ds = as_cube(x)
    ds["clay"] = ds["clay"].fillna(20)
    chunks = {d: data.draw(st.integers(1, n), label=d) for d, n in ds.sizes.items()}
    assert Scaler(kind).fit(ds.chunk(chunks)).to_dict() == Scaler(kind).fit(ds).to_dict()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunks", [{"time": 1, "y": 1, "x": 1}, {"time": 7, "y": 3, "x": 2}, {"time": -1}])
def test_grid_cubes_give_the_same_numbers_however_chunked(make_grid_cube, kind, chunks):
    ds = make_grid_cube(days=20, height=5, width=6, gaps=0.3)
    lazy, held = Scaler(kind).fit(ds.chunk(chunks)), Scaler(kind).fit(ds)
    for name in ds.data_vars:
        expected = peer_numbers(kind, ds[name])
        for scaler in (lazy, held):
            assert scaler.center_[name] == pytest.approx(expected.center, rel=1e-12)
            assert scaler.scale_[name] == pytest.approx(expected.scale, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(-1e6, 1e6) | st.just(np.nan))
@settings(max_examples=30, deadline=None)
def test_other_stations_change_no_number(make_station_cube, kind, seed, chunk, value):
    ds = make_station_cube(stations=6, days=12, seed=1, gaps=0.3).chunk(station=chunk)
    rng = np.random.default_rng(seed)
    train = rng.permutation(ds["station"].values)[:3]
    changed = ds.where(ds["station"].isin(train), value)
    for name in ds.data_vars:
        changed[name].attrs = ds[name].attrs
    a, b = (Scaler(kind).fit(d.sel(station=train)).to_dict() for d in (ds, changed))
    assert a == b


def test_quartiles_by_hand():
    ds = xr.Dataset({"a": (("station", "time"), [[4.0, np.nan, 1.0], [3.0, 2.0, np.nan]])})
    scaler = Scaler("robust").fit(ds.chunk(station=1, time=2))
    assert (scaler.center_, scaler.scale_) == ({"a": 2.5}, {"a": 1.5})  # quartiles 1.75, 2.5, 3.25


@pytest.mark.parametrize("kind", ["minmax", "robust"])
def test_a_spread_near_zero_is_none(kind):
    """The range, and the interquartile range, are 1e-38 beside a value of 4; float32 must not overflow."""
    train = np.array([[0, 0, 0, 1.1754944e-38]], dtype="float32")
    ds = xr.Dataset({"a": (("station", "time"), train)})
    scaler = Scaler(kind).fit(ds)
    peer = peer_numbers(kind, train)
    assert scaler.scale_["a"] == peer.scale == 1.0
    other = xr.Dataset({"a": (("station", "time"), np.full((1, 4), 4, dtype="float32"))})
    np.testing.assert_array_equal(scaler.transform(other)["a"], 4)


@pytest.mark.parametrize("n", [10, 49, 1000])
@pytest.mark.parametrize("value", [0.1, 287.3])
def test_rounding_of_a_mean_is_no_spread(value, n):
    """The mean of n float64 values of 0.1 is not 0.1: what is left of it must not become the scale."""
    train = np.full((1, n), value)
    scaler = Scaler("standard").fit(xr.Dataset({"a": (("station", "time"), train)}))
    assert scaler.scale_["a"] == peer_numbers("standard", train).scale == 1.0


def test_what_is_no_float32(make_station_cube):
    """Whole numbers and float64 are scaled; masks are not."""
    days = np.arange(6).reshape(2, 3)
    ds = xr.Dataset(
        {
            "whole": (("station", "time"), days),
            "fine": (("station", "time"), days + 1e-9),
            "mask": (("station", "time"), days > 2),
            "flagged": (("station", "time"), days.astype("float32"), {"kind": "flag"}),
        }
    )
    scaler = Scaler("minmax").fit(ds)
    out = scaler.transform(ds)
    assert scaler.center_ == {"whole": 0.0, "fine": 1e-9}
    np.testing.assert_allclose(out["whole"], days / 5, rtol=1e-6)
    xr.testing.assert_identical(out[["mask", "flagged"]].drop_attrs(deep=False), ds[["mask", "flagged"]])


# Datasets in and out.


def test_a_grid_keeps_its_place_and_its_steps(make_station_cube, make_grid_cube, tmp_path):
    """Fitted on stations, used on an opened grid cube: CRS, coordinates, attributes, and by formula."""
    grid = make_grid_cube(gaps=0.2)
    write_cube(grid, tmp_path / "grid.zarr")
    opened = open_cube(tmp_path / "grid.zarr")
    scaler = Scaler("standard").fit(make_station_cube())
    out = scaler.transform(opened)
    for name in grid.data_vars:
        expected = (grid[name].astype("float64") - scaler.center_[name]) / scaler.scale_[name]
        np.testing.assert_array_equal(out[name], expected.astype("float32"))
        assert out[name].rio.grid_mapping == "spatial_ref"
        assert (out[name].attrs["units"], out[name].attrs["unscaled_units"]) == ("1", grid[name].attrs["units"])
    assert out.rio.crs == grid.rio.crs
    assert set(out.coords) == set(opened.coords)
    xr.testing.assert_identical(repeat_steps(opened, steps_of(out)).compute(), out.compute())
    back = scaler.inverse_transform(out)
    assert [back[n].attrs["units"] for n in grid.data_vars] == [grid[n].attrs["units"] for n in grid.data_vars]
    assert "unscaled_units" not in back["clay"].attrs
    xr.testing.assert_allclose(back.drop_attrs().compute(), grid.drop_attrs(), rtol=1e-5)


def test_an_encoding_of_other_values_is_left_behind():
    """A variable read from packed integers must not be packed so again."""
    ds = xr.Dataset({"a": (("station", "time"), [[280.0, 290.0]])})
    ds["a"].encoding = {"dtype": "int16", "scale_factor": 0.1, "grid_mapping": "spatial_ref"}
    assert Scaler().fit(ds).transform(ds)["a"].encoding == {"grid_mapping": "spatial_ref"}


def test_only_known_variables_are_scaled(make_station_cube):
    ds = make_station_cube()
    scaler = Scaler().fit(ds[["s1_vv", "sm"]])
    out = scaler.transform(ds.drop_vars("sm"))
    xr.testing.assert_identical(out["clay"], ds["clay"])
    assert out["s1_vv"].attrs["units"] == "1"
    assert "sm" not in out


def test_nothing_is_computed_by_transform(make_station_cube):
    def refuse(dsk, keys, **kwargs):
        raise AssertionError("computed")

    ds = make_station_cube()
    scaler = Scaler("robust").fit(ds)
    lazy = ds.chunk(station=2, time=10)
    with dask.config.set(scheduler=refuse):
        there = scaler.transform(lazy)
        back = scaler.inverse_transform(there)
    for name in ds.data_vars:
        assert len(there[name].data.dask.layers) == len(lazy[name].data.dask.layers) + 1
        assert len(back[name].data.dask.layers) == len(lazy[name].data.dask.layers) + 2
        assert there[name].chunks == lazy[name].chunks
    xr.testing.assert_identical(there.compute(), scaler.transform(ds))


@pytest.mark.parametrize("kind", KINDS)
def test_fit_reads_each_chunk_once(make_station_cube, kind):
    ds = make_station_cube(stations=6, days=20)
    reads, lock = [], threading.Lock()

    def read(block, block_info=None):
        with lock:
            reads.append(tuple(block_info[0]["chunk-location"]))
        return block

    # Two variables that share what they are read from, as bands of one file do.
    shared = ds["s1_vv"].chunk(station=2, time=5).data.map_blocks(read, dtype="float32", meta=np.empty((0, 0), "f4"))
    lazy = xr.Dataset({"a": (("station", "time"), shared + 1), "b": (("station", "time"), shared * 2)})
    Scaler(kind).fit(lazy)
    assert sorted(reads) == [(i, j) for i in range(3) for j in range(4)]


@pytest.mark.parametrize("kind", KINDS)
def test_through_a_cluster(make_station_cube, kind):
    from distributed import Client

    ds = make_station_cube(gaps=0.3)
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None):
        scaler = Scaler(kind).fit(ds.chunk(station=2))
        out = scaler.transform(ds.chunk(station=2)).compute()
    assert scaler.to_dict() == Scaler(kind).fit(ds).to_dict()
    xr.testing.assert_identical(out, scaler.transform(ds))


# Files.


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=9), st.sampled_from(KINDS))
@settings(max_examples=40, deadline=None)
def test_a_file_brings_every_bit_back(tmp_path_factory, values, kind):
    ds = xr.Dataset({"a": (("station", "time"), [values], {"units": "µm"})})
    scaler = Scaler(kind).fit(ds)
    path = tmp_path_factory.mktemp("scaler") / "s.json"
    scaler.save(path)
    assert Scaler.load(path).to_dict() == scaler.to_dict()
    assert [p.name for p in path.parent.iterdir()] == ["s.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"kind": "minmax", "center": {"a"', "is not JSON"),
        ("[1, 2]", "expected a JSON object, found a list"),
        ('{"weights": []}', "expected exactly the keys kind"),
        ('{"kind": "log", "center": {}, "scale": {}, "units": {}}', "its kind is 'log'"),
        ('{"kind": "minmax", "center": {"a": 1}, "scale": {}, "units": {"a": "K"}}', "the same variables"),
        ('{"kind": "minmax", "center": {"a": NaN}, "scale": {"a": 1}, "units": {"a": "K"}}', "finite numbers"),
        ('{"kind": "minmax", "center": {"a": 1}, "scale": {"a": 0}, "units": {"a": "K"}}', "with scale above 0"),
        ('{"kind": "minmax", "center": {"a": "1"}, "scale": {"a": 1}, "units": {"a": "K"}}', "finite numbers"),
        ('{"kind": "minmax", "center": {"a": 1}, "scale": {"a": 1}, "units": {"a": 3}}', "units must be text"),
        ('{"kind": ["minmax"], "center": {"a": 1}, "scale": {"a": 1}, "units": {"a": "K"}}', "its kind is"),
    ],
)
def test_a_file_of_something_else(tmp_path, text, message):
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(SmgeoError, match=message) as caught:
        Scaler.load(path)
    assert "s.json" in str(caught.value)
    assert "Scaler.save" in str(caught.value)


def test_a_binary_file(tmp_path):
    (tmp_path / "s.json").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(SmgeoError, match="is not JSON"):
        Scaler.load(tmp_path / "s.json")


# scikit-learn.

FAILS = {
    "check_do_not_raise_errors_in_init_or_set_params": "a wrong kind is refused at once, with the nearest name",
    # The check takes every class named Scaler for the StandardScaler of old, and sets its with_mean.
    "check_estimator_sparse_array": "there is no parameter with_mean",
    "check_estimator_sparse_matrix": "there is no parameter with_mean",
}


@parametrize_with_checks([Scaler(kind) for kind in KINDS], expected_failed_checks=lambda estimator: FAILS)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    x = rng.normal([280, 0.2, -12], [10, 0.1, 3], (50, 3))
    x[rng.random(x.shape) < 0.2] = np.nan
    return pd.DataFrame(x, columns=["temperature", "sm", "s1_vv"], index=pd.RangeIndex(100, 150))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_tables_equal_scikit_learns(table, kind, dtype):
    x = table.to_numpy(dtype)
    ours, peer = Scaler(kind).fit(x), PEERS[kind]().fit(x.astype("float64"))
    assert ours.transform(x).dtype == dtype
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(ours.transform(x), peer.transform(x.astype("float64")), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(ours.inverse_transform(ours.transform(x)), x, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_and_a_cube_learn_the_same(table, kind):
    cube = xr.Dataset({n: (("station", "time"), table[n].to_numpy()[None]) for n in table})
    of_cube, of_table = Scaler(kind).fit(cube), Scaler(kind).fit(table)
    assert of_cube.to_dict() == of_table.to_dict()
    assert list(of_cube.feature_names_in_) == list(of_table.get_feature_names_out()) == list(table)
    # What was fitted on one serves the other.
    np.testing.assert_array_equal(of_cube.transform(table), of_table.transform(table))
    xr.testing.assert_identical(of_cube.transform(cube), of_table.transform(cube))
    # Columns stay in their order where some variables are lazy.
    partly = Scaler(kind).fit(cube.assign(temperature=cube["temperature"].chunk(time=7)))
    np.testing.assert_array_equal(partly.transform(table), of_table.transform(table))


def test_columns_are_checked(table):
    scaler = Scaler().fit(table)
    with pytest.raises(ValueError, match="same order"):
        scaler.transform(table[["sm", "temperature", "s1_vv"]])
    with pytest.raises(ValueError, match="expecting 3 features"):
        Scaler().fit(table.to_numpy()).transform(table.to_numpy()[:, :2])
    with pytest.raises(SmgeoError, match="no value of sm in 50 rows"):
        Scaler().fit(table.assign(sm=np.nan))


def test_set_output_is_for_tables(table, make_station_cube):
    ds = make_station_cube()
    scaler = Scaler().set_output(transform="pandas")
    out = scaler.fit_transform(table)
    pd.testing.assert_frame_equal(out, pd.DataFrame(Scaler().fit(table).transform(table), table.index, table.columns))
    assert isinstance(scaler.transform(table), pd.DataFrame)
    xr.testing.assert_identical(scaler.fit_transform(ds), Scaler().fit(ds).transform(ds))
    assert scaler.n_features_in_ == 5


def test_pipelines(table):
    y = np.arange(50.0)
    complete = table.fillna(0)
    ours = make_pipeline(Scaler("standard"), Ridge()).fit(complete, y)
    peer = make_pipeline(StandardScaler(), Ridge()).fit(complete, y)
    np.testing.assert_allclose(ours.predict(complete), peer.predict(complete), rtol=1e-10)
    both = ColumnTransformer([("a", Scaler(), ["sm"]), ("b", Scaler("robust"), ["s1_vv", "temperature"])])
    out = both.set_output(transform="pandas").fit_transform(table)
    assert list(out) == ["a__sm", "b__s1_vv", "b__temperature"]
    np.testing.assert_allclose(
        out[["b__s1_vv", "b__temperature"]], RobustScaler().fit_transform(table[["s1_vv", "temperature"]])
    )


def test_parameters(table):
    scaler = Scaler("robust").fit(table)
    assert scaler.get_params() == {"kind": "robust"}
    assert not hasattr(clone(scaler), "center_")
    with pytest.raises(SmgeoError, match="'robust'"):
        scaler.set_params(kind="robst").fit(table)


def test_names_come_back_from_a_file(table, tmp_path):
    for x in (table, table.to_numpy()):
        scaler = Scaler().fit(x)
        scaler.save(tmp_path / "s.json")
        back = Scaler.load(tmp_path / "s.json")
        np.testing.assert_array_equal(back.transform(x), scaler.transform(x))
        assert list(back.get_feature_names_out()) == list(scaler.get_feature_names_out())
        assert hasattr(back, "feature_names_in_") == isinstance(x, pd.DataFrame)


def test_the_record_of_a_step_is_the_scaler(make_station_cube):
    ds = make_station_cube()
    scaler = Scaler("robust").fit(ds)
    assert steps_of(scaler.transform(ds)) == [{"step": "scale", "scaler": json.loads(json.dumps(scaler.to_dict()))}]
