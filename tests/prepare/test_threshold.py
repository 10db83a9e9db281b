"""The chosen threshold of outliers against the same steps done by hand with NumPy."""

import json

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LinearRegression

from smgeo.errors import SmgeoError
from smgeo.prepare import Split, choose_z

FEATURES = ["s1_vv", "temperature", "clay"]
SPLIT = Split(("N/s0", "N/s2", "N/s5", "N/s6"), ("N/s1", "N/s7", "N/s8"), ("N/s3", "N/s4"))
TRAIN, VALIDATION, TEST = [0, 2, 5, 6], [1, 7, 8], [3, 4]
THRESHOLDS = (2.0, 3.0, 5.0)


@pytest.fixture
def ds(make_station_cube):
    """Nine stations whose moisture follows backscatter; some training rows have a target that is far off."""
    ds = make_station_cube(stations=9, days=60, seed=1)
    rng = np.random.default_rng(5)
    ds["sm"][:] = 0.25 + 0.01 * (ds["s1_vv"] + 12) + rng.normal(0, 0.004, (9, 60))
    ds["sm"][0, 4] = np.nan
    for t in range(0, 60, 15):
        ds["sm"][TRAIN, t] += np.array([0.12, 0.14, 0.16, 0.25])  # with 56 more rows: between 2 and 5 deviations
    return ds


def _table(ds, features):
    columns = [
        np.broadcast_to(v[:, None] if v.ndim == 1 else v, ds["sm"].shape) for v in (ds[f].values for f in features)
    ]
    return np.stack(columns, axis=-1).astype("float64")


def _squared_errors(ds, z):
    """Of ordinary least squares at the validation stations, (3, 60), after dropping training rows beyond z; and how many."""
    y, x = ds["sm"].values.astype("float64"), _table(ds, FEATURES)
    bad = np.zeros(y.shape, dtype=bool)
    for values in (y, ds["s1_vv"].values.astype("float64"), ds["temperature"].values.astype("float64")):
        learn = values[TRAIN]
        bad |= np.abs(values - np.nanmean(learn)) > z * np.nanstd(learn)
    rows = np.isfinite(y[TRAIN]) & ~bad[TRAIN]
    design = np.column_stack([np.ones(rows.sum()), x[TRAIN][rows]])
    weights = np.linalg.lstsq(design, y[TRAIN][rows], rcond=None)[0]
    error = (x[VALIDATION] @ weights[1:] + weights[0] - y[VALIDATION]) ** 2
    return error, int((np.isfinite(y[TRAIN]) & bad[TRAIN]).sum())


def test_by_hand(ds):
    found = choose_z(ds, SPLIT, THRESHOLDS, features=FEATURES, model=LinearRegression())
    table = found.table.set_index("z")
    assert table.index.tolist() == [2.0, 3.0, 5.0, np.inf]
    by_hand = {z: _squared_errors(ds, z) for z in (*THRESHOLDS, 1e9)}
    np.testing.assert_array_equal(table["rows_dropped"], [n for _, n in by_hand.values()])
    np.testing.assert_allclose(table["validation_rmse"], [np.sqrt(e.mean()) for e, _ in by_hand.values()], rtol=1e-4)
    best = min(THRESHOLDS, key=lambda z: by_hand[z][0].mean())
    within = []
    for z, (error, _) in by_hand.items():
        # Stations have as many rows each here, so that this is the standard error of the mean of three stations.
        means = (error - by_hand[best][0]).mean(axis=1)
        assert table["standard_error"].iloc[list(by_hand).index(z)] == pytest.approx(
            means.std(ddof=1) / 3**0.5, rel=1e-2
        )
        within += [z] if z in THRESHOLDS and means.mean() <= means.std(ddof=1) / 3**0.5 else []
    assert found.z == max(within)
    assert found.z < 5  # there is something to be gained in this cube
    assert table["validation_rmse"][found.z] < table["validation_rmse"][np.inf]


def test_thresholds_may_be_an_array(ds):
    options = {"features": FEATURES, "model": LinearRegression()}
    of_array = choose_z(ds, SPLIT, np.array(THRESHOLDS), **options)
    assert of_array.to_dict() == choose_z(ds, SPLIT, THRESHOLDS, **options).to_dict()


def test_where_nothing_is_gained_the_greatest_is_taken(make_station_cube):
    ds = make_station_cube(stations=9, days=30, seed=3)
    ds["sm"] = ds["sm"].clip(0.2, 0.3)
    found = choose_z(ds, SPLIT, (8.0, 5.0, 9.0), features=FEATURES, model=LinearRegression())
    assert found.z == 9.0
    assert found.table["rows_dropped"].tolist() == [0, 0, 0, 0]
    assert found.table["z"].tolist() == [5.0, 8.0, 9.0, np.inf]
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["thresholds"][-1]["z"] is None


def test_one_validation_station_has_no_standard_error(ds):
    split = Split(SPLIT.train, ("N/s1",), SPLIT.test)
    found = choose_z(ds, split, THRESHOLDS, features=FEATURES, model=LinearRegression())
    assert (found.table["standard_error"] == 0).all()
    assert found.z == found.table["z"][found.table["validation_rmse"][:-1].idxmin()]


@pytest.mark.parametrize("per_station", [False, True])
@pytest.mark.parametrize("garbage", [np.nan, 1e30])
def test_values_of_test_stations_change_nothing(ds, garbage, per_station):
    other = ds.copy(deep=True)
    for name in [*FEATURES, "sm"]:
        other[name][TEST] = garbage
    options = {"features": FEATURES, "per_station": per_station, "seed": 1}
    a, b = (choose_z(d, SPLIT, THRESHOLDS, **options) for d in (ds, other))
    assert a.z == b.z
    assert a.table.equals(b.table)


def test_test_stations_are_not_even_computed(ds):
    def read(block, block_info=None):
        assert block_info[0]["chunk-location"][0] not in TEST
        return block

    lazy = ds.chunk(station=1)
    for name in [*FEATURES, "sm"]:
        data = da.map_blocks(read, lazy[name].data, dtype="float32", meta=np.empty((0,) * ds[name].ndim, "float32"))
        lazy[name] = lazy[name].copy(data=data)
    a, b = (choose_z(d, SPLIT, THRESHOLDS, features=FEATURES, model=LinearRegression()) for d in (ds, lazy))
    assert a.table.equals(b.table)


def test_gaps_and_other_rules_of_what_costs_a_row(make_station_cube):
    ds = make_station_cube(stations=9, days=30, gaps=0.4)
    calls = []
    found = choose_z(ds, SPLIT, (1.5,), features=FEATURES, variables=["clay"], progress=lambda *a: calls.append(a))
    assert calls == [(1, 2), (2, 2)]
    clay = ds["clay"].values[TRAIN].astype("float64")
    flagged = int((np.abs(clay - clay.mean()) > 1.5 * clay.std()).sum())
    assert found.table["rows_dropped"].tolist() == [30 * flagged, 0]
    xr.testing.assert_identical(ds, make_station_cube(stations=9, days=30, gaps=0.4))


def test_refusals(ds):
    for none in ((), np.arange(0)):
        with pytest.raises(SmgeoError, match="thresholds must be a list of one number or more"):
            choose_z(ds, SPLIT, none, features=FEATURES)
    with pytest.raises(SmgeoError, match="no station 'zz'"):
        choose_z(ds, Split(("N/s0", "zz"), ("N/s1",), ()), features=FEATURES)
    empty = ds.copy(deep=True)
    empty["sm"][VALIDATION] = np.nan
    with pytest.raises(SmgeoError, match="validation stations have no row"):
        choose_z(empty, SPLIT, features=FEATURES)
    with pytest.raises(SmgeoError, match="no row left"):
        choose_z(ds, SPLIT, (1e-9,), features=FEATURES)
