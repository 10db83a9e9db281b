"""Scores by hand and against pytesmo; folds that never see what they are scored on."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.errors import SmgeoError
from smgeo.evaluation import compute_scores, cross_validate, evaluate, explained
from smgeo.prepare import Split, prepare_cube, station_folds
from smgeo.recipe import CrossValidationSpec, PrepareSpec

FEATURES = ["s1_vv", "clay"]
PLAIN = PrepareSpec.model_validate({"fill": None, "outliers": None, "scale": "minmax"})
PARTS = Split(("N/s0", "N/s1", "N/s2"), ("N/s3",), ("N/s4", "N/s5"))


class Recorder:
    """Predicts its first feature as it is, scaled; remembers what it was shown, in physical units."""

    def fit(self, windows, validation=None):
        self.preparation_ = windows.preparation
        self.trained = self._shown(windows)
        self.validated = self._shown(validation) if validation is not None else None
        return self

    def predict(self, windows):
        return windows.gather(np.arange(len(windows)))[:, -1, 0]

    def _shown(self, windows):
        """(clay, target) of every row."""
        scaler = windows.preparation["steps"][-1]["scaler"]
        x = windows.gather(np.arange(len(windows)))[:, -1].astype("float64")
        center, scale = scaler["center"], scaler["scale"]
        return np.stack([x[:, 1] * scale["clay"] + center["clay"], windows.y * scale["sm"] + center["sm"]], axis=1)


def _fitted(ds, spec=PLAIN, length=1):
    return Recorder().fit(prepare_cube(ds, spec, FEATURES, "sm", PARTS.train).windows(PARTS.train, length, 0.0))


def test_scores_by_hand():
    observed, predicted = np.array([0.1, 0.2, 0.3, 0.2]), np.array([0.2, 0.2, 0.4, 0.5])
    # errors 0.1, 0, 0.1, 0.3: mean 0.125, mean square 0.11 / 4
    scores = compute_scores(observed, predicted, np.array([0, 0, 1, 1]))
    assert scores["bias"] == pytest.approx(0.125)
    assert scores["rmse"] == pytest.approx(0.0275**0.5)
    assert scores["ubrmse"] == pytest.approx((0.0275 - 0.125**2) ** 0.5)
    # deviations -0.1, 0, 0.1, 0 and -0.125, -0.125, 0.075, 0.175
    assert scores["r"] == pytest.approx(0.02 / (0.02 * 0.0675) ** 0.5)
    assert (scores["n"], scores["stations"]) == (4, 2)
    # by station: rmse sqrt(0.005), sqrt(0.05); bias 0.05, 0.2; r none (constant prediction), -1
    assert scores["per_station"] == pytest.approx(
        {
            "rmse_median": (0.005**0.5 + 0.05**0.5) / 2,
            "ubrmse_median": (0.05 + 0.1) / 2,
            "bias_median": 0.125,
            "r_median": -1.0,
        }
    )


@given(st.integers(0, 10**6), st.integers(3, 60))
@settings(max_examples=25, deadline=None)
def test_scores_agree_with_pytesmo(seed, n):
    metrics = pytest.importorskip("pytesmo.metrics")
    rng = np.random.default_rng(seed)
    observed, predicted = rng.uniform(0, 0.5, (2, n))
    scores = compute_scores(observed, predicted, np.zeros(n))
    assert scores["rmse"] == pytest.approx(metrics.rmsd(predicted, observed))
    assert scores["ubrmse"] == pytest.approx(metrics.ubrmsd(predicted, observed))
    assert scores["bias"] == pytest.approx(
        metrics.bias(predicted, observed)
    )  # mean of the first less mean of the second
    assert scores["r"] == pytest.approx(np.ravel(metrics.pearsonr(predicted, observed))[0])


@pytest.mark.parametrize("n", [3, 6, 7, 10, 100, 1001])
@pytest.mark.parametrize("value", [0.1, 0.3, 0.217])
def test_correlation_with_a_constant_is_none(value, n):
    scores = compute_scores(np.linspace(0, 1, n), np.full(n, value), np.zeros(n))
    assert scores["r"] is None
    assert scores["per_station"]["r_median"] is None
    assert compute_scores(np.full(n, value), np.linspace(0, 1, n), np.zeros(n))["r"] is None


def test_no_rows():
    empty = np.empty(0)
    scores = compute_scores(empty, empty, empty)
    assert (scores["rmse"], scores["n"], scores["per_station"]["r_median"]) == (None, 0, None)


def test_explained_by_hand():
    assert explained(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == 1 - 8 / 2
    assert np.isnan(explained(np.ones(3), np.ones(3)))


def test_evaluate_in_physical_units(make_station_cube):
    ds = make_station_cube(gaps=0.3)
    ds["sm"][4, 3:6] = np.nan
    model = _fitted(ds)
    result = evaluate(model, ds.chunk(station=2), PARTS)
    train = ds.isel(station=[0, 1, 2])
    low, high = (float(f(train["s1_vv"])) for f in (np.nanmin, np.nanmax))
    least, most = float(train["sm"].min()), float(train["sm"].max())
    predicted = ((ds["s1_vv"] - low) / (high - low) * (most - least) + least).where(ds["sm"].notnull())
    np.testing.assert_allclose(result.predictions["predicted"], predicted, rtol=1e-5)
    np.testing.assert_allclose(result.predictions["observed"], ds["sm"].where(ds["s1_vv"].notnull()), rtol=1e-5)
    assert result.predictions["part"].values.tolist() == ["train"] * 3 + ["validation"] + ["test"] * 2
    error = (predicted - ds["sm"]).isel(station=[4, 5]).values
    assert result.scores["test"]["bias"] == pytest.approx(np.nanmean(error), rel=1e-4)
    assert result.scores["test"]["rmse"] == pytest.approx(np.sqrt(np.nanmean(error**2)), rel=1e-4)
    assert result.scores["test"]["n"] == np.isfinite(error).sum()
    assert result.scores["test"]["stations"] == 2
    assert result.table.loc["test", "rmse"] == result.scores["test"]["rmse"]
    assert list(result.table.index) == ["train", "validation", "test"]


def test_evaluate_takes_opened_and_prepared_cubes_alike(make_station_cube):
    ds = make_station_cube(gaps=0.4)
    spec = PrepareSpec.model_validate({"fill": {"limit": 2}, "outliers": None, "scale": "standard"})
    model = _fitted(ds, spec, length=2)
    prepared = prepare_cube(ds, spec, FEATURES, "sm", PARTS.train).ds
    a, b = evaluate(model, ds, PARTS), evaluate(model, prepared, PARTS)
    assert a.scores == b.scores
    xr.testing.assert_equal(a.predictions, b.predictions)


def test_evaluate_with_a_part_left_empty(make_station_cube):
    ds = make_station_cube()
    scores = evaluate(_fitted(ds), ds, Split(PARTS.train, (), PARTS.test)).scores
    assert scores["validation"]["n"] == 0
    assert scores["test"]["n"] == 60


def test_evaluate_needs_a_model_that_knows_its_preparation(make_station_cube):
    with pytest.raises(SmgeoError, match="bare arrays"):
        evaluate(Recorder(), make_station_cube(), PARTS)


def _numbered(make_station_cube, stations=8):
    """Clay is the station's number, so that a row says where it is from."""
    ds = make_station_cube(stations=stations, days=12, seed=5)
    ds["clay"][:] = np.arange(stations)
    ds["s1_vv"] = (-20 + 30 * ds["sm"] + 0.2 * ds["s1_vv"]).assign_attrs(ds["s1_vv"].attrs)
    return ds


def _cross_validate(ds, method, folds, needs_validation=False, prepare=PLAIN, length=1):
    made = []

    def make():
        made.append(Recorder())
        return made[-1]

    spec = CrossValidationSpec(method=method, folds=folds, seed=3)
    scores = cross_validate(make, ds, spec, prepare, FEATURES, "sm", length=length, needs_validation=needs_validation)
    return scores, made


@pytest.mark.parametrize("needs_validation", [False, True])
@pytest.mark.parametrize("folds", [3, 8])
def test_held_out_stations_are_never_trained_on(make_station_cube, folds, needs_validation):
    ds = _numbered(make_station_cube)
    scores, made = _cross_validate(ds, "leave-location-out", folds, needs_validation)
    ids = [str(s) for s in ds["station"].values]
    for model, (_, held) in zip(made, station_folds(ids, folds, 3), strict=True):
        trained = set(model.trained[:, 0].round(3))
        validated = set(model.validated[:, 0].round(3)) if needs_validation else set()
        assert trained | validated == {float(i) for i, s in enumerate(ids) if s not in held}
        assert not trained & validated
    assert (scores["n"], scores["stations"], len(scores["r2_of_folds"])) == (8 * 12, 8, folds)


@pytest.mark.parametrize("needs_validation", [False, True])
def test_random_folds_hold_each_row_out_once(make_station_cube, needs_validation):
    ds = _numbered(make_station_cube)
    scores, made = _cross_validate(ds, "random", 4, needs_validation)
    every = {(float(i), round(float(v), 5)) for i in range(8) for v in ds["sm"].values[i]}
    shown = [
        {
            (a, round(b, 5))
            for a, b in np.concatenate([m.trained, *([m.validated] if needs_validation else [])]).round(5)
        }
        for m in made
    ]
    held = [every - s for s in shown]
    assert sum(len(h) for h in held) == len(every) == scores["n"]
    assert set().union(*held) == every


def test_the_three_r2_by_hand(make_station_cube):
    ds = _numbered(make_station_cube)
    scores, _ = _cross_validate(ds, "leave-location-out", 4)
    sm, vv = ds["sm"].values.astype("float64"), ds["s1_vv"].values.astype("float64")
    ids = [str(s) for s in ds["station"].values]
    predicted, of_folds = np.empty_like(sm), []
    for train, held in station_folds(ids, 4, 3):
        t, h = [ids.index(s) for s in train], [ids.index(s) for s in held]
        predicted[h] = (vv[h] - vv[t].min()) / np.ptp(vv[t]) * np.ptp(sm[t]) + sm[t].min()
        of_folds.append(np.corrcoef(sm[h].ravel(), predicted[h].ravel())[0, 1] ** 2)
    o, p = sm.mean(axis=1), predicted.mean(axis=1)
    assert scores["r2_of_folds"] == pytest.approx(of_folds, rel=1e-4)
    assert scores["r2_mean_of_folds"] == pytest.approx(np.mean(of_folds), rel=1e-4)
    assert scores["r2_pooled"] == pytest.approx(
        1 - ((sm - predicted) ** 2).sum() / ((sm - sm.mean()) ** 2).sum(), rel=1e-4
    )
    assert scores["r2_station_means"] == pytest.approx(1 - ((o - p) ** 2).sum() / ((o - o.mean()) ** 2).sum(), rel=1e-3)
    assert scores["rmse_pooled"] == pytest.approx(np.sqrt(np.mean((sm - predicted) ** 2)), rel=1e-4)


def test_a_revisit_for_each_station_goes_with_its_station(make_station_cube):
    """As the written station cube holds it: one number a station, in the cube's order."""
    ds = _numbered(make_station_cube)
    seen = np.zeros((8, 12), dtype=bool)
    seen[:, 6] = True
    ds["s1_vv"] = ds["s1_vv"].where(xr.DataArray(seen, dims=("station", "time")))
    ds["s1_vv"].attrs["revisit_days"] = [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 2.0, 4.0]
    prepare = PrepareSpec.model_validate(
        {"fill": {"revisit": "attribute"}, "outliers": None, "window": {"missing": 0.0}}
    )
    for needs_validation in (False, True):
        scores, made = _cross_validate(ds, "leave-location-out", 4, needs_validation, prepare)
        # L = 0, 1, 2, 3, 4, 5, 1, 2 days on either side of day 6, and no more days than there are
        rows = dict(zip(range(8), [1, 3, 5, 7, 9, 11, 3, 5], strict=True))
        assert scores["n"] == sum(rows.values())
        for model in made:
            shown = np.concatenate([model.trained, model.validated]) if needs_validation else model.trained
            stations, counts = np.unique(shown[:, 0].round(3), return_counts=True)
            assert {s: c for s, c in zip(stations, counts, strict=True)} == {s: rows[int(s)] for s in stations}
