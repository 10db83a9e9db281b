"""The leakage audit: worlds whose answer is known, scores against scikit-learn, distances by brute force."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from typer.testing import CliRunner

import smgeo
from smgeo import cli
from smgeo.errors import SmgeoError
from smgeo.evaluation.leakage import METHODS, _fit, audit_leakage
from smgeo.prepare import cv_folds

STATIONS, DAYS = 20, 200


def world(seed=0, **variables):
    """A cube of given variables, (station, time), (station,) or (time,); stations a degree apart on the equator."""
    rng = np.random.default_rng(seed)
    series = (STATIONS, DAYS)
    coords = {
        "station": [f"N/{i}" for i in range(STATIONS)],
        "time": pd.date_range("2020-01-01", periods=DAYS),
        "latitude": ("station", np.zeros(STATIONS)),
        "longitude": ("station", np.arange(STATIONS, dtype=float)),
    }
    names = {(STATIONS,): ("station",), (DAYS,): ("time",), series: ("station", "time")}
    arrays = {"noise": rng.normal(size=series), **variables}
    ds = xr.Dataset({n: (names[np.shape(v)], np.asarray(v, dtype="float32")) for n, v in arrays.items()}, coords)
    ds["sm"].attrs["units"] = "m3 m-3"
    return ds


def r2(audit):
    return audit.table["r2_pooled"]


def test_features_that_name_the_station_fool_random_rows_and_periods_but_not_locations():
    rng = np.random.default_rng(1)
    level = rng.uniform(0.1, 0.4, STATIONS)
    sm = level[:, None] + 0.005 * rng.normal(size=(STATIONS, DAYS))
    ds = world(sm=sm, clay=rng.permutation(STATIONS).astype(float))  # clay knows the station and nothing else of it
    audit = audit_leakage(ds)
    assert list(audit.table.index) == list(METHODS)
    assert r2(audit)["random"] > 0.97
    assert r2(audit)["temporal"] > 0.97
    assert r2(audit)["leave-location-out"] < 0.2
    assert audit.table["r2_station_means"]["leave-location-out"] < 0.2
    assert (
        f"R2 is {r2(audit)['random']:.2f} there, but {r2(audit)['leave-location-out']:.2f} at locations that it was not"
        in str(audit)
    )


def test_the_forest_gives_the_same_digits_each_time():
    """Threads that add the estimates of trees as they come would change the last digits from run to run."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2000, 5)).astype("float32"), rng.uniform(0.1, 0.4, 2000)
    forest = _fit(None, x, y, seed=0)
    in_order = np.zeros(len(x))
    for tree in forest.estimators_:
        in_order += tree.predict(x)
    for _ in range(3):
        assert np.array_equal(forest.predict(x), in_order / len(forest.estimators_))


def test_features_that_name_the_day_fool_random_rows_and_locations_but_not_periods():
    rng = np.random.default_rng(2)
    level = rng.uniform(0.1, 0.4, DAYS)
    sm = level[None, :] + 0.005 * rng.normal(size=(STATIONS, DAYS))
    audit = audit_leakage(world(sm=sm, day_of_year=np.arange(DAYS, dtype=float)), ["day_of_year"])
    assert r2(audit)["random"] > 0.9
    assert r2(audit)["leave-location-out"] > 0.9
    assert r2(audit)["temporal"] < 0.2
    assert f"{r2(audit)['temporal']:.2f} in periods that it was not trained on" in audit.meaning
    assert "at locations" not in audit.meaning
    assert audit.meaning.endswith("expect the latter for another year.")


def test_without_effects_of_station_or_day_the_three_agree():
    rng = np.random.default_rng(3)
    rain = rng.normal(size=(STATIONS, DAYS))
    sm = 0.25 + 0.05 * rain + 0.01 * rng.normal(size=rain.shape)
    audit = audit_leakage(world(sm=sm, precipitation=rain))
    assert r2(audit).max() - r2(audit).min() < 0.02
    assert r2(audit).min() > 0.9
    assert "R2 by less than 0.05" in audit.meaning


def gappy(seed=4):
    rng = np.random.default_rng(seed)
    sm = rng.uniform(0.05, 0.45, (STATIONS, DAYS))
    ndvi = sm + rng.normal(scale=0.1, size=sm.shape)
    sm[rng.random(sm.shape) < 0.7] = np.nan
    return world(sm=sm, ndvi=ndvi, clay=rng.uniform(5, 40, STATIONS), doy_sin=np.sin(np.arange(DAYS) / 58.0))


def frame_of(ds, features):
    """Rows with a target, as pandas sees them, in the order of the cube."""
    frame = ds.transpose("station", "time").to_dataframe().reset_index()
    return frame[frame["sm"].notna()][["station", "time", "sm", *features]].astype(dict.fromkeys(features, "float64"))


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_scikit_learn_fold_by_fold(method):
    ds, features = gappy(), ["ndvi", "clay", "doy_sin"]
    audit = audit_leakage(ds, features, folds=4, model=LinearRegression(), seed=6, gap_days=10)
    frame = frame_of(ds, features)
    x, y = frame[features].to_numpy(dtype="float32"), frame["sm"].to_numpy(dtype="float64")
    rows = ds["sm"].notnull().values
    predicted, of_folds = np.full(y.size, np.nan), []
    for train, held in cv_folds(ds, method, 4, seed=6, gap_days=10):
        t, h = train[rows], held[rows]
        predicted[h] = LinearRegression().fit(x[t], y[t]).predict(x[h])
        of_folds.append(np.corrcoef(predicted[h], y[h])[0, 1] ** 2)
    means = pd.DataFrame({"o": y, "p": predicted, "s": frame["station"].to_numpy()}).groupby("s").mean()
    row = audit.table.loc[method]
    error = predicted - y
    assert row["n"] == y.size
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-6)
    assert row["ubrmse"] == pytest.approx(error.std(), rel=1e-6)
    assert row["bias"] == pytest.approx(error.mean(), abs=1e-8)
    assert row["r"] == pytest.approx(np.corrcoef(y, predicted)[0, 1], rel=1e-6)
    assert row["r2_pooled"] == pytest.approx(r2_score(y, predicted), rel=1e-6)
    assert row["r2_mean_of_folds"] == pytest.approx(np.mean(of_folds), rel=1e-6)
    assert row["r2_station_means"] == pytest.approx(r2_score(means["o"], means["p"]), rel=1e-6)
    assert (audit.model, audit.features, audit.stations) == ("LinearRegression", tuple(features), STATIONS)


def test_distances_in_features_by_brute_force():
    ds, features = gappy().isel(station=slice(6), time=slice(100)), ["ndvi", "clay", "temperature"]
    ds["temperature"] = ("time", np.full(100, 7.0, dtype="float32"))  # tells no rows apart
    ds["ndvi"][2, ::3] = np.nan
    audit = audit_leakage(ds, features, folds=3, model=DummyRegressor(), gap_days=5)
    frame, rows = frame_of(ds, features), ds["sm"].notnull().values
    assert rows.sum() < 300  # so that no row is left out of the measuring
    for method in METHODS:
        to_training, between = [], []
        for train, held in cv_folds(ds, method, 3, gap_days=5):
            t = frame[train[rows]]
            z = (
                ((frame[features] - t[features].mean()) / t[features].std(ddof=0))
                .replace([np.inf, -np.inf], np.nan)
                .fillna(0)
            )
            z, station, t = z.to_numpy(), frame["station"].to_numpy(), np.flatnonzero(train[rows])
            to_training += [min(np.linalg.norm(z[h] - z[i]) for i in t) for h in np.flatnonzero(held[rows])]
            between += [min(np.linalg.norm(z[j] - z[i]) for i in t if station[i] != station[j]) for j in t]
        row = audit.table.loc[method]
        expected = [np.median(to_training), np.min(to_training), np.max(to_training), np.median(between)]
        found = row[["feature_median", "feature_min", "feature_max", "feature_between_stations"]].tolist()
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_distances_on_the_ground_by_hand():
    """A degree of the equator is 111.195 km of a sphere of 6371.0088 km; random rows have their own station in training."""
    ds = gappy()
    ds["longitude"] = ("station", np.repeat(np.arange(STATIONS // 2) * 10.0, 2) + np.tile([0, 1.0], STATIONS // 2))
    table = audit_leakage(ds, ["ndvi"], folds=STATIONS, model=DummyRegressor(), gap_days=0).table
    for method in ("random", "temporal"):
        assert table.loc[method, ["km_median", "km_min", "km_max"]].tolist() == [0, 0, 0]
    # One station a fold: the other of its pair is a degree away.
    assert table.loc["leave-location-out", ["km_median", "km_min", "km_max"]].tolist() == pytest.approx(
        [111.195] * 3, rel=1e-5
    )


def test_locations_that_are_neighbours_are_said():
    """Pairs 60 m apart are two places, but no two locations for a map; 200 m apart they are."""
    ds = gappy()
    said = "so near to each other that leaving one out is close to a random split; use groups or clusters"
    for metres, expected in ((60, True), (200, False)):
        step = metres / 111_195
        ds["longitude"] = ("station", np.repeat(np.arange(STATIONS // 2) * 10.0, 2) + np.tile([0, step], STATIONS // 2))
        audit = audit_leakage(ds, ["ndvi"], folds=STATIONS, model=DummyRegressor(), gap_days=0)
        assert (said in audit.meaning) == (said in str(audit)) == expected


def test_places_that_are_not_known_are_said():
    ds = gappy()
    few = audit_leakage(
        ds.assign_coords(latitude=ds["latitude"].where(ds["longitude"] > 2)), folds=4, model=LinearRegression()
    )
    assert "leave out 3 of 20 stations" in str(few)
    assert few.table.loc["leave-location-out", "km_min"] == pytest.approx(111.195, rel=1e-5)
    none = audit_leakage(ds.drop_vars(["latitude", "longitude"]), folds=4, model=LinearRegression())
    assert "has no latitude and longitude" in str(none)
    assert none.table["km_median"].isna().all()
    assert none.to_dict()["splits"]["random"]["km_median"] is None
    assert r2(none).to_dict() == r2(audit_leakage(ds, folds=4, model=LinearRegression())).to_dict()


def test_chunks_and_dims_change_nothing_and_the_seed_gives_the_same_again(tmp_path):
    ds = gappy().isel(station=slice(8))
    ds["ndvi"][:, ::4] = np.nan  # the forest takes missing values
    one = audit_leakage(ds, folds=3, seed=5)
    smgeo.write_cube(ds, tmp_path / "c.zarr")
    for other in (
        ds,
        ds.chunk(station=3, time=37),
        ds.transpose("time", "station"),
        smgeo.open_cube(tmp_path / "c.zarr"),
    ):
        again = audit_leakage(other, folds=3, seed=5)
        pd.testing.assert_frame_equal(again.table, one.table)
        assert str(again) == str(one)
    assert not r2(audit_leakage(ds, folds=3, seed=6)).equals(r2(one))


def test_features_are_those_of_the_cube_where_none_is_named_and_diagnostics_are_none():
    ds = gappy()
    ds["rows_read"] = ("station", np.arange(STATIONS), {"kind": "diagnostic"})
    audit = audit_leakage(ds.drop_vars("noise"), folds=2, model=LinearRegression())
    assert audit.features == ("clay", "doy_sin", "ndvi")


def test_a_target_that_does_not_vary_has_no_r2():
    audit = audit_leakage(world(sm=np.full((STATIONS, DAYS), 0.2)), folds=2, model=LinearRegression())
    assert "the target is constant" in str(audit)
    assert audit.to_dict()["splits"]["temporal"]["r2_pooled"] is None


def test_progress_counts_folds():
    seen = []
    audit_leakage(
        gappy(), ["ndvi"], folds=2, model=LinearRegression(), progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(i, 6) for i in range(1, 7)]


def test_text_is_aligned_and_says_what_the_table_says():
    audit = audit_leakage(gappy(), folds=3, model=LinearRegression())
    lines = str(audit).splitlines()
    assert "4 features" in lines[0]
    assert f"{int(audit.table['n'].iloc[0]):,} rows at 20 stations; LinearRegression, 3 folds" in lines[0]
    for block in (lines[2:6], lines[9:13]):
        assert [line.split()[0] for line in block[1:]] == list(METHODS)
        assert len({len(line) for line in block}) == 1
    assert f"{audit.table.loc['temporal', 'rmse']:.3f}" in lines[4]


def test_what_cannot_be_is_refused_by_name(make_grid_cube):
    ds = gappy()
    with pytest.raises(SmgeoError, match="no feature 'ndwi'; did you mean 'ndvi'"):
        audit_leakage(ds, ["ndwi"])
    with pytest.raises(SmgeoError, match="the target 'sm' is among the features"):
        audit_leakage(ds, ["sm"])
    with pytest.raises(SmgeoError, match="no feature is named"):
        audit_leakage(ds[["sm"]])
    with pytest.raises(SmgeoError, match="needs a station cube"):
        audit_leakage(make_grid_cube())
    with pytest.raises(SmgeoError, match="no target 'moisture'"):
        audit_leakage(ds, ["ndvi"], "moisture")
    with pytest.raises(SmgeoError, match="21 folds of 20 places"):
        audit_leakage(ds, ["ndvi"], folds=21)


def test_an_infinite_value_is_missing():
    ds, lacking = gappy(), gappy()
    ds["ndvi"][3, 2:5], lacking["ndvi"][3, 2:5] = np.inf, np.nan
    ds["sm"][1, 4], lacking["sm"][1, 4] = -np.inf, np.nan
    assert audit_leakage(ds, ["ndvi"]).to_dict() == audit_leakage(lacking, ["ndvi"]).to_dict()


# ---- in a run and on the command line

STUDY = {
    "name": "audited",
    "stations": [
        {"kind": "csv", "path": "t.csv", "columns": {n: n for n in ("station", "time", "latitude", "longitude")}}
    ],
    "features": ["precipitation", "doy_sin"],
    "leakage_audit": {"folds": 3, "gap_days": 5, "seed": 4},
}


@pytest.fixture
def study(tmp_path):
    """Eight stations of 60 days in a table, with rain, and the recipe that audits them without models."""
    rng = np.random.default_rng(8)
    station, day = np.divmod(np.arange(8 * 60), 60)
    table = pd.DataFrame({"station": station, "time": pd.Timestamp("2021-01-01") + pd.to_timedelta(day, "D")})
    table["latitude"], table["longitude"] = 48.0 + station / 10, 11.0
    table["precipitation"] = rng.gamma(1.0, 4.0, len(table)).round(2)
    table["sm"] = (0.1 + 0.03 * station + 0.002 * table["precipitation"]).round(4)
    table.to_csv(tmp_path / "t.csv", index=False)
    recipe = copy.deepcopy(STUDY)
    recipe["stations"][0]["columns"] |= {"precipitation": "precipitation", "sm": "sm"}
    return tmp_path, recipe


def test_a_run_holds_the_audit_as_a_stage_of_its_own(study):
    folder, recipe = study
    run = smgeo.run(recipe, out=folder / "run", data=folder)
    cube = smgeo.open_cube(run.folder / "stations.zarr")
    expected = audit_leakage(cube, recipe["features"], folds=3, gap_days=5, seed=4)
    found = json.loads((run.folder / "results.json").read_text())["leakage_audit"]
    # A forest's trees are summed in the order in which threads finish.
    splits = pd.DataFrame.from_dict(found.pop("splits"), orient="index")
    pd.testing.assert_frame_equal(splits, expected.table, check_exact=False)
    assert found == {k: v for k, v in expected.to_dict().items() if k != "splits"}
    assert splits.loc["random", "n"] == 480
    stages = {p: p.stat().st_mtime_ns for p in (run.folder / ".stages").glob("*leakage*")}
    assert len(stages) == 1
    assert smgeo.run(recipe, out=folder / "run", data=folder).results == run.results
    assert {p: p.stat().st_mtime_ns for p in stages} == stages
    again = smgeo.run({**recipe, "leakage_audit": {"folds": 2, "gap_days": 0}}, out=folder / "run", data=folder)
    assert again.results["leakage_audit"]["folds"] == 2
    assert "leakage_audit" not in smgeo.run({**recipe, "leakage_audit": False}, out=folder / "run", data=folder).results


def test_the_report_and_info_show_the_audit(study):
    folder, recipe = study
    run = smgeo.run(recipe, out=folder / "run", data=folder)
    audit = run.results["leakage_audit"]
    page = run.report.read_text(encoding="utf-8")
    assert audit["meaning"] in page
    told = CliRunner().invoke(cli.app, ["info", str(run.folder)], terminal_width=200).output
    assert "Leakage audit" in told
    for method, scores in audit["splits"].items():
        assert method in told
        for text in (page, told):
            assert f"{scores['rmse']:.3f}" in text
            assert f"{scores['r2_pooled']:.3f}" in text


def test_command_prints_the_audit_of_a_cube(study):
    folder, recipe = study
    smgeo.run(recipe, out=folder / "run", data=folder)
    cube = folder / "run" / "stations.zarr"
    options = ["--features", "precipitation, doy_sin", "--folds", "3", "--seed", "2", "--gap-days", "4"]
    told = CliRunner().invoke(cli.app, ["audit", str(cube), *options])
    assert told.exit_code == 0
    expected = audit_leakage(smgeo.open_cube(cube), ["precipitation", "doy_sin"], folds=3, seed=2, gap_days=4)
    assert str(expected) in told.output


def test_more_folds_than_stations_are_refused_before_anything_is_written(study):
    folder, recipe = study
    with pytest.raises(SmgeoError, match="leakage_audit.folds: 9 folds of 8 groups of stations"):
        smgeo.run({**recipe, "leakage_audit": {"folds": 9}}, out=folder / "run", data=folder)
    assert not (folder / "run").exists()


def test_periods_in_which_other_places_were_measured_are_told():
    """Ten stations of the first month and ten of the second, 100 km apart: what is held out in time is held out in space."""
    random = np.random.default_rng(0)
    days, stations = 60, 20
    sm = random.uniform(0.1, 0.4, (stations, days)).astype("float32")
    sm[:10, 30:], sm[10:, :30] = np.nan, np.nan
    coords = {
        "station": np.array([f"N/s{i}" for i in range(stations)], dtype=object),
        "time": pd.date_range("2020-01-01", periods=days),
        "latitude": ("station", 50 + 0.01 * np.arange(stations) + np.where(np.arange(stations) < 10, 0, 1)),
        "longitude": ("station", np.full(stations, 8.0)),
    }
    x = random.uniform(0, 1, (stations, days)).astype("float32")
    ds = xr.Dataset(
        {
            "sm": (("station", "time"), sm, {"units": "m3 m-3", "kind": "target"}),
            "ndvi": (("station", "time"), x, {"units": "1", "kind": "dynamic"}),
        },
        coords,
    )
    found = audit_leakage(ds, ["ndvi"], folds=2, gap_days=0)
    assert found.table.loc["temporal", "km_median"] > 90
    assert "Periods are other places here" in found.meaning
