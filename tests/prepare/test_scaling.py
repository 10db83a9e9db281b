"""The scaler against scikit-learn's, blind to missing values, and invertible."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from smgeo.errors import SmgeoError
from smgeo.prepare import Scaler, steps_of

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
    with pytest.raises(SmgeoError, match="not fitted"):
        Scaler().transform(ds)
    ds["s1_vv"][:] = np.nan
    with pytest.raises(SmgeoError, match="no value of s1_vv"):
        Scaler().fit(ds)
