"""Scores by hand and against pytesmo; folds that never see what they are scored on."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.errors import SmgeoError
from smgeo.evaluation.cross_validation import Learner, cross_validate, explained, score_folds
from smgeo.evaluation.parts import Evaluation, compare_models, evaluate
from smgeo.evaluation.scores import compute_scores
from smgeo.prepare import Split, Windows, cv_folds, derive_features, fill_gaps, prepare_cube
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.validation import CrossValidationSpec

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


@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(1, 40), st.booleans())
@settings(max_examples=30, deadline=None)
def test_medians_over_stations_agree_with_pandas_in_any_order_of_rows(seed, n, stations, text):
    rng = np.random.default_rng(seed)
    observed, predicted = rng.uniform(0, 0.5, (2, n)).astype("float32")
    station = rng.integers(0, stations, n) * 7
    scores = compute_scores(observed, predicted, station.astype(str) if text else station)
    table = pd.DataFrame({"o": observed, "p": predicted, "s": station}).astype({"o": "float64", "p": "float64"})
    groups = table.groupby("s")
    error = groups.apply(lambda t: (t["p"] - t["o"]).pow(2).mean() ** 0.5)
    assert (scores["n"], scores["stations"]) == (n, error.size)
    assert scores["per_station"]["rmse_median"] == pytest.approx(error.median())
    assert scores["per_station"]["bias_median"] == pytest.approx((groups["p"].mean() - groups["o"].mean()).median())
    r = groups.apply(lambda t: t["o"].corr(t["p"]) if len(t) > 1 else np.nan).median()
    assert scores["per_station"]["r_median"] == (pytest.approx(r) if np.isfinite(r) else None)


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


@pytest.mark.parametrize("scaled", [True, False])
def test_evaluate_refuses_other_units(make_station_cube, scaled):
    ds = make_station_cube()
    names = [*FEATURES, "sm"]
    train = ds[names].sel(station=list(PARTS.train))
    model = _fitted(ds) if scaled else _unscaled(Windows(train, FEATURES, length=1))
    for name, units, factor in (("s1_vv", "1", 0.1), ("clay", "1", 0.01), ("sm", "%", 100.0)):
        other = ds.assign({name: (ds[name] * factor).assign_attrs(ds[name].attrs | {"units": units})})
        if scaled or name == "sm":  # features are compared by the models themselves too
            with pytest.raises(SmgeoError, match=f"{name} is in '{units}', needed in '{ds[name].attrs['units']}'"):
                evaluate(model, other, PARTS)
    assert evaluate(model, ds, PARTS).scores["test"]["n"] == 60


def _unscaled(windows):
    model = Recorder()
    model.preparation_ = windows.preparation
    return model


@pytest.mark.parametrize("name", ["sm", "theta"])
def test_filled_targets_are_not_scored(make_station_cube, name):
    """Filled when asked, or because nothing said that it is a target."""
    ds = make_station_cube(gaps=0.3)[[*FEATURES, "sm"]].rename(sm=name)
    ds[name][:, 5:9] = np.nan
    if name == "theta":
        del ds[name].attrs["kind"]
    filled = fill_gaps(ds, 1, target=name == "sm")
    model = _unscaled(Windows(filled.sel(station=list(PARTS.train)), FEATURES, name, length=1))
    with pytest.raises(SmgeoError, match=f"'{name}' were filled .limit 1., and models are scored on observations"):
        evaluate(model, filled, PARTS)
    with pytest.raises(SmgeoError, match="scored on observations"):
        cross_validate(Learner(Recorder), filled, CrossValidationSpec(method="random", folds=2), PLAIN, FEATURES, name)
    if name == "sm":  # not repeated on new data
        assert (
            evaluate(model, ds, PARTS).scores["test"]["n"]
            == (ds["sm"].notnull() & fill_gaps(ds, 1)["s1_vv"].notnull())[4:].sum()
        )
    else:
        with pytest.raises(SmgeoError, match="scored on observations"):
            evaluate(model, ds, PARTS)


def test_evaluate_with_a_part_left_empty(make_station_cube):
    ds = make_station_cube()
    scores = evaluate(_fitted(ds), ds, Split(PARTS.train, (), PARTS.test)).scores
    assert scores["validation"]["n"] == 0
    assert scores["test"]["n"] == 60


def test_evaluate_a_split_of_stations_that_have_numbers(make_station_cube):
    ds = make_station_cube()
    numbered = ds.assign_coords(station=np.arange(10, 16))
    split = Split((10, 11, 12), (13,), (14, 15))
    model = Recorder().fit(prepare_cube(numbered, PLAIN, FEATURES, "sm", split.train).windows(split.train, 1, 0.0))
    a, b = evaluate(model, numbered, split), evaluate(_fitted(ds), ds, PARTS)
    assert a.scores == b.scores
    np.testing.assert_array_equal(a.predictions["predicted"], b.predictions["predicted"])


def test_evaluate_needs_a_model_that_knows_its_preparation(make_station_cube):
    with pytest.raises(SmgeoError, match="bare arrays"):
        evaluate(Recorder(), make_station_cube(), PARTS)


def _numbered(make_station_cube, stations=8):
    """Clay is the station's number, so that a row says where it is from."""
    ds = make_station_cube(stations=stations, days=12, seed=5)
    ds["clay"][:] = np.arange(stations)
    ds["s1_vv"] = (-20 + 30 * ds["sm"] + 0.2 * ds["s1_vv"]).assign_attrs(ds["s1_vv"].attrs)
    return ds


def _held_out(folds, seed=3, stations=8):
    """Stations of each fold: dealt out one after the other in the order of the seed, as since the first version."""
    order = np.random.default_rng(seed).permutation(stations)
    return [sorted(order[k::folds].tolist()) for k in range(folds)]


def _cross_validate(ds, method, folds, needs_validation=False, prepare=PLAIN, length=1, **options):
    made = []

    def make():
        made.append(Recorder())
        return made[-1]

    spec = CrossValidationSpec(method=method, folds=folds, seed=3, **options)
    learner = Learner(make, length, needs_validation=needs_validation)
    scores = cross_validate(learner, ds, spec, prepare, FEATURES, "sm")
    return scores, made


@pytest.mark.parametrize("needs_validation", [False, True])
@pytest.mark.parametrize("folds", [3, 8])
def test_held_out_stations_are_never_trained_on(make_station_cube, folds, needs_validation):
    ds = _numbered(make_station_cube)
    scores, made = _cross_validate(ds, "leave-location-out", folds, needs_validation)
    for model, held in zip(made, _held_out(folds), strict=True):
        trained = set(model.trained[:, 0].round(3))
        validated = set(model.validated[:, 0].round(3)) if needs_validation else set()
        assert trained | validated == {float(i) for i in range(8) if i not in held}
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
    predicted, of_folds = np.empty_like(sm), []
    for h in _held_out(4):
        t = [i for i in range(8) if i not in h]
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
    ds["s1_vv"].attrs["revisit_stations"] = ds["station"].values.tolist()
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


@pytest.mark.parametrize("needs_validation", [False, True])
@pytest.mark.parametrize("method", ["group-k-fold", "spatial-blocks"])
def test_whole_stations_are_held_out_and_set_apart(make_station_cube, method, needs_validation):
    ds = _numbered(make_station_cube)
    scores, made = _cross_validate(ds, method, 4, needs_validation)
    held_out = []
    for model in made:
        trained = set(model.trained[:, 0].round(3))
        validated = set(model.validated[:, 0].round(3)) if needs_validation else set()
        assert not trained & validated
        assert bool(validated) == needs_validation
        held_out += [i for i in range(8) if float(i) not in trained | validated]
    assert sorted(held_out) == list(range(8))
    assert (scores["method"], scores["folds"], scores["n"]) == (method, 4, 8 * 12)


def test_locations_are_their_own_folds_where_no_number_is_said(make_station_cube):
    scores, made = _cross_validate(_numbered(make_station_cube), "leave-location-out", None)
    assert scores["folds"] == len(made) == len(scores["r2_of_folds"]) == 8


@pytest.mark.parametrize("method", ["temporal", "leave-location-and-time-out"])
@pytest.mark.parametrize("forward_only", [False, True])
def test_days_of_a_held_out_period_change_nothing_that_is_learned(make_station_cube, forward_only, method):
    """Values of a period, and in forward folds of the days after it, change no number of the fold that holds it out."""
    spec = PrepareSpec.model_validate({"fill": {"limit": 3}, "outliers": {"z": 3}, "scale": "standard"})

    def fold_of_changed_days(ds, fold):
        options = {"gap_days": 2, "forward_only": forward_only, "prepare": spec, "needs_validation": True}
        return _cross_validate(ds, method, 3, **options)[1][fold]

    ds = make_station_cube(stations=5, days=40, seed=2, gaps=0.3)
    # Days of the second fold: thirds of 40 days, and quarters of them from the second on.
    first, last = (20, 30) if forward_only else (14, 27)
    changed = ds.copy(deep=True)
    for name in ("s1_vv", "sm"):
        changed[name][:, first : None if forward_only else last] = 0.4
    a, b = fold_of_changed_days(ds, 1), fold_of_changed_days(changed, 1)
    assert a.preparation_ == b.preparation_
    np.testing.assert_array_equal(a.trained, b.trained)
    np.testing.assert_array_equal(a.validated, b.validated)
    other = fold_of_changed_days(changed, 2)
    assert fold_of_changed_days(ds, 2).preparation_ != other.preparation_


class Shown:
    """Remembers all of the windows it was shown, and all numbers of their preparation."""

    def fit(self, windows, validation=None):
        self.preparation_ = windows.preparation
        self.shown = [(w.gather(np.arange(len(w))), w.y) for w in (windows, validation) if w is not None]
        return self

    def predict(self, windows):
        return np.zeros(len(windows), dtype="float32")


SUMS = ["precipitation_3d", "precipitation_30d"]


def _temporal(ds, length, folds, needs_validation=True, fill=None, method="temporal", **options):
    """Scores, and the model of each fold, of a cube whose sums of rain are derived here."""
    made = []

    def make():
        made.append(Shown())
        return made[-1]

    features = ["s1_vv", "precipitation", *SUMS, "clay"]
    spec = CrossValidationSpec(method=method, folds=folds, **options)
    prepare = PrepareSpec.model_validate(
        {"fill": fill or {}, "outliers": {"z": 3}, "window": {"length": length, "missing": 0.5}}
    )
    learner = Learner(make, length, needs_validation=needs_validation)
    scores = cross_validate(learner, derive_features(ds, SUMS), spec, prepare, features, "sm")
    return scores, made


@st.composite
def _changes(draw, days):
    """(variable, station, day, value), some days of one fold's period."""
    name = draw(st.sampled_from(["s1_vv", "precipitation", "temperature", "sm"]))
    value = draw(st.floats(-1e4, 1e4, width=32) if name == "sm" else st.sampled_from([np.nan, 0.0, 1e3, -1e3]))
    return name, draw(st.integers(0, 2)), draw(st.sampled_from(days)), value


def test_held_out_places_change_nothing_that_places_and_periods_learn(make_station_cube):
    """Neither their values in the period, nor those of any other day."""
    ds = make_station_cube(stations=6, days=330, seed=3, gaps=0.4)
    ds["precipitation"] = ds["precipitation"].fillna(0.0).assign_attrs(ds["precipitation"].attrs)
    options = {"folds": 3, "method": "leave-location-and-time-out", "fill": {"limit": 9}, "gap_days": 5}
    folds = cv_folds(ds, "leave-location-and-time-out", 3, gap_days=5)
    scores, made = _temporal(ds, 1, **options)
    assert scores["gap_days"] == 5
    assert scores["n"] <= sum(int(held.sum()) for _, held in folds)
    for k, (_, held) in enumerate(folds):
        changed = ds.copy(deep=True)
        for name in ("s1_vv", "sm", "clay"):
            changed[name][held.any(axis=1)] = changed[name][held.any(axis=1)] * 0.5 + 1
        again = _temporal(changed, 1, **options)[1][k]
        assert made[k].preparation_ == again.preparation_
        for (x, y), (x_2, y_2) in zip(made[k].shown, again.shown, strict=True):
            np.testing.assert_array_equal(x, x_2)
            np.testing.assert_array_equal(y, y_2)


def test_features_are_selected_without_the_period_that_is_held_out(make_station_cube, monkeypatch):
    """Of places and periods held out at once: no value of the period, no sum that reaches into it, no row within 30 days of it."""
    from smgeo.evaluation import cross_validation as module

    ds = derive_features(make_station_cube(stations=6, days=330, seed=3).fillna(0.0), SUMS)
    spec = CrossValidationSpec(method="leave-location-and-time-out", folds=3, select_features=True)
    shown = []

    def select(seen, names, target, seed):
        shown.append(seen.load())
        return SimpleNamespace(features=names)

    monkeypatch.setattr(module, "select_features", select)
    module.select_in_folds(ds, spec, ["s1_vv", *SUMS], "sm")
    folds = cv_folds(ds, spec.method, 3)
    for k, seen in enumerate(shown):
        first, last = folds.held_out_days(k)
        assert seen["s1_vv"][:, first : last + 1].isnull().all()
        assert seen["precipitation_30d"][:, first : min(last + 30, 330)].isnull().all()
        rows = seen["sm"].notnull().any("station").values
        near = np.abs(np.arange(330) - np.clip(np.arange(330), first, last)) <= 30
        assert not rows[near].any()
        assert rows[~near].any()


@given(
    seed=st.integers(0, 10**6),
    length=st.sampled_from([1, 30]),
    gap=st.sampled_from([None, 0, 7]),
    fold=st.integers(0, 1),
    limit=st.sampled_from(["half-revisit", 0, 9]),
    gaps=st.sampled_from([0.4, 0.95]),
    data=st.data(),
)
@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("method", ["temporal", "leave-location-and-time-out"])
@pytest.mark.parametrize("forward_only", [False, True])
def test_no_value_of_a_held_out_period_is_in_anything_learned(
    make_station_cube, forward_only, method, seed, length, gap, fold, limit, gaps, data
):
    """Changed before sums are derived from it, whatever the window, the gap and how far filling reaches both ways."""
    ds = make_station_cube(stations=3, days=330, seed=seed, gaps=gaps)
    ds["precipitation"] = ds["precipitation"].fillna(0.0).assign_attrs(ds["precipitation"].attrs)
    needs_validation = method == "temporal"  # of three places a fold has two or one to train on
    options = {"folds": 2, "method": method, "forward_only": forward_only, "gap_days": gap, "fill": {"limit": limit}}
    options["needs_validation"] = needs_validation
    held = cv_folds(ds, "temporal", 2, forward_only=forward_only)[fold][1]
    changed = ds.copy(deep=True)
    for name, station, day, value in data.draw(
        st.lists(_changes(np.flatnonzero(held.any(axis=0)).tolist()), min_size=1, max_size=20)
    ):
        changed[name][station, day] = value
    (_, a), (_, b) = _temporal(ds, length, **options), _temporal(changed, length, **options)
    assert a[fold].preparation_ == b[fold].preparation_
    for (x, y), (x_2, y_2) in zip(a[fold].shown, b[fold].shown, strict=True):
        np.testing.assert_array_equal(x, x_2)
        np.testing.assert_array_equal(y, y_2)


@pytest.mark.parametrize("forward_only", [False, True])
def test_a_revisit_measured_over_the_whole_series_is_measured_again_without_the_period(make_station_cube, forward_only):
    """As a station cube holds it: one number a station, which denser days in the held-out period would change."""

    def first_model(every):
        ds = make_station_cube(stations=3, days=200, seed=4)
        seen = np.zeros(200, dtype=bool)
        seen[::8] = True
        first, last = (67, 133) if forward_only else (0, 100)
        seen[first:last:every] = True
        ds["s1_vv"] = ds["s1_vv"].where(xr.DataArray(seen, dims="time"))
        ds["s1_vv"].attrs["revisit_days"] = [float(np.median(np.diff(np.flatnonzero(seen))))] * 3
        ds["s1_vv"].attrs["revisit_stations"] = ds["station"].values.tolist()
        ds["s1_vv"].attrs["revisit_stations"] = ds["station"].values.tolist()
        options = {"forward_only": forward_only, "gap_days": 0, "fill": {"revisit": "attribute"}}
        return _temporal(ds, 1, 2, **options)[1][0]

    a, b = first_model(8), first_model(1)
    for (x, _), (x_2, _) in zip(a.shown, b.shown, strict=True):
        np.testing.assert_array_equal(x, x_2)


@pytest.mark.parametrize(("length", "gap"), [(1, 30), (30, 58)])
def test_the_gap_is_what_windows_and_sums_look_back_where_none_is_said(make_station_cube, length, gap):
    """Then no window after the period lacks a sum whose days are held out: 29 days of the window and 29 of the sum."""
    ds = make_station_cube(stations=3, days=330, seed=1)
    scores, (first, _) = _temporal(ds, length, 2, needs_validation=False)
    assert scores["gap_days"] == gap
    ((x, _),) = first.shown
    assert (x[..., 5:] == 1).all()
    assert "gap_days" not in _cross_validate(ds, "random", 2)[0]


def test_temporal_folds_train_before_and_after_the_gap_and_stop_on_the_last_days(make_station_cube):
    ds = _numbered(make_station_cube)
    days = np.arange(12, dtype="float32")
    ds["sm"][:] = np.broadcast_to(days / 100, (8, 12))
    scores, made = _cross_validate(ds, "temporal", 3, True, gap_days=1)
    shown = [
        (sorted(set((m.trained[:, 1] * 100).round())), sorted(set((m.validated[:, 1] * 100).round()))) for m in made
    ]
    # Held out: days 0-3, 4-7, 8-11; a day on either side of them is in neither part.
    assert shown == [([5, 6, 7, 8, 9, 10], [11]), ([0, 1, 2, 9, 10], [11]), ([0, 1, 2, 3, 4, 5], [6])]
    assert scores["n"] == 8 * 12


def test_nothing_left_to_train_on_beside_rows_set_apart(make_station_cube):
    ds = _numbered(make_station_cube, stations=2)
    assert _cross_validate(ds, "leave-location-out", 2)[0]["n"] == 24
    with pytest.raises(SmgeoError, match="has no row left to train on after rows were set apart"):
        _cross_validate(ds, "leave-location-out", 2, needs_validation=True)


def _kept(values, parts, observed):
    dims = ("station", "time")
    return xr.Dataset(
        {"observed": (dims, np.array(observed)), "predicted": (dims, np.array(values))},
        {"station": ["a", "b", "c"], "time": pd.date_range("2020-01-01", periods=2), "part": ("station", parts)},
    )


def test_models_are_compared_on_rows_that_both_estimated():
    nan, parts = np.nan, ["test", "test", "train"]
    observed = [[0.1, 0.2], [0.3, 0.4], [0.5, 0.5]]
    first = Evaluation({"test": {}}, _kept([[0.2, nan], [0.3, 0.6], [9.0, 9.0]], parts, observed))
    second = Evaluation({"test": {}}, _kept([[0.1, 0.2], [0.4, nan], [9.0, 9.0]], parts, observed))
    pair = compare_models({"one": first, "two": second}).iloc[0]
    assert (pair["first"], pair["second"], pair["n"], pair["stations"]) == ("one", "two", 2, 2)
    assert pair["rmse_first"] == pytest.approx(np.sqrt((0.1**2 + 0.0) / 2))
    assert pair["rmse_second"] == pytest.approx(np.sqrt((0.0 + 0.1**2) / 2))
    assert compare_models({"one": first}).empty


def test_stations_and_groups_of_an_evaluation():
    observed = [[0.1, 0.2], [0.3, 0.4], [0.5, 0.5]]
    values = [[0.2, 0.3], [0.3, 0.6], [0.5, 0.6]]
    found = Evaluation({"train": {}, "test": {}}, _kept(values, ["test", "test", "train"], observed))
    table = found.stations
    assert table.index.tolist() == ["c", "a", "b"]
    assert table["part"].tolist() == ["train", "test", "test"]
    assert table.loc["a", "bias"] == pytest.approx(0.1)
    assert table.loc["b", "rmse"] == pytest.approx(np.sqrt(0.2**2 / 2))
    groups = found.by({"a": "dry", "b": "wet", "c": "wet"})
    assert groups["n"].to_dict() == {"dry": 2, "wet": 2}
    assert groups.loc["dry", "rmse"] == pytest.approx(0.1)


def test_a_fold_without_a_row_has_no_score_and_spoils_none():
    some, none = np.array([0.1, 0.2, 0.4]), np.empty(0)
    scores = score_folds([some, none], [some**2, none], [np.array(["a", "a", "b"]), np.empty(0, dtype=object)])
    assert scores["r2_of_folds"] == [pytest.approx(np.corrcoef(some, some**2)[0, 1] ** 2), None]
    assert scores["n"] == 3
