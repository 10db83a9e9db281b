"""The recipes on real data, at toy size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import yaml

import smgeo
from smgeo.polygons import write_geojson

pytest.importorskip("tensorflow")
pytest.importorskip("ydf")
pytest.importorskip("ismn")

RECIPES = Path(__file__).parents[2] / "recipes"
CROSS_VALIDATION = {"method", "folds", "r2_mean_of_folds", "r2_pooled", "r2_station_means", "rmse_pooled"}


def shipped(name):
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cookfarm(data, tmp_path_factory):
    recipe = shipped("cookfarm")
    recipe["period"] = ["2011-10-01", "2012-06-30"]
    recipe["models"] = {"rf": {"trees": 5}, "ann": {"units": 4, "epochs": 1}}
    recipe["leakage_audit"] = None  # of this field: tests/recipes/test_leakage.py
    recipe["cross_validation"] = [
        {"method": "leave-location-out", "folds": 2, "models": ["rf"]},
        {"method": "random", "folds": 2, "models": ["rf"]},
        {"method": "leave-location-out", "folds": 2, "models": ["rf"], "select_features": True},
    ]
    return smgeo.run(recipe, out=tmp_path_factory.mktemp("cookfarm"), data=data)


def test_cookfarm_map_lies_on_its_grid_and_is_missing_where_the_predictors_are(cookfarm, data):
    assert {p.parent.name for p in cookfarm.maps} == {"rf", "ann"}
    with rasterio.open(data / "cookfarm" / "predictors_2012-03-25.tif") as src:
        expected, transform = np.isnan(src.read(masked=True).filled(np.nan)).any(axis=0), src.transform
    assert expected.any()
    for path in cookfarm.maps:
        with rasterio.open(path) as src:
            assert src.crs.to_epsg() == 26911
            assert src.shape == (58, 101)
            assert src.res == (10.0, 10.0)
            assert src.transform == transform
            values = src.read(1, masked=True).filled(np.nan)
        np.testing.assert_array_equal(np.isnan(values), expected)
        assert 0 < np.nanmean(values) < 0.6


def test_cookfarms_grid_has_the_weather_of_the_loggers_on_its_day(cookfarm):
    stations, grid = (smgeo.open_cube(cookfarm.folder / f"{name}.zarr") for name in ("stations", "grid"))
    moving = [str(n) for n, v in grid.data_vars.items() if "time" in v.dims]
    assert len(moving) == 5
    for name in moving:
        of_loggers = float(stations[name].sel(time="2012-03-25").mean())
        assert float(grid[name].mean()) == pytest.approx(of_loggers, rel=1e-5), name


def test_cookfarm_counts_its_stations(cookfarm):
    split = cookfarm.results["split"]
    assert [len(split[p]) for p in ("train", "validation", "test")] == [34, 4, 4]


def test_cookfarm_cross_validation_has_the_keys_of_the_contract(cookfarm):
    found = cookfarm.results["cross_validation"]
    assert all(set(entry) >= CROSS_VALIDATION for entry in found.values())
    methods = {entry["method"]: entry for name, entry in found.items() if name != "rf_selected"}
    chosen = found["rf_selected"]["selected"]
    assert len(chosen) == 2
    assert all(2 <= len(names) <= 11 and set(names) <= set(shipped("cookfarm")["features"]) for names in chosen)
    assert set(methods) == {"leave-location-out", "random"}
    assert all(entry["folds"] == 2 for entry in found.values())
    # Random rows share their station and their days with the training rows, which flatters any forest on this field.
    assert methods["random"]["r2_pooled"] > methods["leave-location-out"]["r2_pooled"]


def test_cookfarm_run_continues_from_its_own_resolved_recipe(cookfarm, data):
    again = smgeo.run(cookfarm.folder / "recipe.yaml", out=cookfarm.folder, data=data)
    assert again.results == cookfarm.results


def test_ismn(data, tmp_path):
    recipe = shipped("ismn")
    recipe["period"] = ["2024-09-01", "2024-11-30"]
    recipe["models"] = {"rf": {"trees": 5}, "gru": {"units": 4, "epochs": 1}}
    recipe["prepare"]["window"] = {"length": 5, "missing": 0.5}
    recipe["cross_validation"] = {"method": "leave-location-out", "folds": 2, "models": ["rf"]}
    results = smgeo.run(recipe, out=tmp_path / "run", data=data).results
    assert sum(len(results["split"][p]) for p in ("train", "validation", "test")) == 24
    assert len(results["left_out"]) == 2
    assert set(results["models"]) == {"rf", "gru"}
    assert set(results["cross_validation"]["rf"]) >= CROSS_VALIDATION
    assert results["cross_validation"]["rf"]["stations"] == 24
    assert results["models"]["rf"]["test"]["n"] > 0
    assert set(results["leakage_audit"]["splits"]) == {"random", "temporal", "leave-location-out"}
    assert {row["group"] for row in results["groups"]["climate"]["rf"]} <= {"Cfa", "Cfb", "Csa"}
    assert not (tmp_path / "run" / "grid.zarr").exists()


# ---- grid cubes of real scenes, as they ship


@pytest.fixture(scope="module")
def lachish(data, tmp_path_factory):
    return smgeo.run(shipped("lachish"), out=tmp_path_factory.mktemp("lachish"), data=data)


def test_lachish_cube_is_the_files(lachish, data):
    cube = smgeo.open_cube(lachish.folder / "grid.zarr").load()
    numbers = {"s2_b2": 2, "s2_b3": 3, "s2_b4": 4, "s2_b8": 8, "s2_b11": 11, "s2_b12": 12}
    days = set()
    for path in sorted((data / "s2_lachish" / "BOA").glob("*.tif")):
        day = path.stem.split("_")[1]
        days.add(day)
        with rasterio.open(path) as src:
            assert src.shape == (117, 145)
            for name, band in numbers.items():
                np.testing.assert_allclose(cube[name].sel(time=day), src.read(band) * 1e-4, rtol=1e-6)
            red, nir = src.read(4).astype("float64"), src.read(8).astype("float64")
            swir = src.read(11).astype("float64")
            np.testing.assert_allclose(cube["ndvi"].sel(time=day), (nir - red) / (nir + red), atol=1e-5)
            np.testing.assert_allclose(cube["ndmi"].sel(time=day), (nir - swir) / (nir + swir), atol=1e-5)
    assert len(days) == 11
    seen = cube["s2_b8"].notnull().any(("y", "x"))
    assert {str(d)[:10] for d in cube["time"].values[seen]} == days
    with rasterio.open(data / "s2_lachish" / "BOA" / "BOA_2022-11-11_T36RXV.tif") as src:
        assert cube.odc.geobox.affine == src.transform


def test_lachish_vegetation_index_agrees_with_the_one_beside_the_files(lachish, data):
    """Made by others from the same scenes, before resampling: alike but at the rim; of other bands it is not."""
    cube = smgeo.open_cube(lachish.folder / "grid.zarr").load()
    for path in sorted((data / "s2_lachish" / "NDVI").glob("*.tif")):
        with rasterio.open(path) as src:
            theirs = src.read(1)
        ours = cube["ndvi"].sel(time=path.stem.split("_")[1]).values
        assert np.nanmedian(np.abs(ours - theirs)) < 1e-3


def test_lachish_pixel_by_hand(lachish, data):
    """Row 40, column 60 on 2023-03-01, read from the file as bytes on disk say."""
    with rasterio.open(data / "s2_lachish" / "BOA" / "BOA_2023-03-01_T36SXA.tif") as src:
        raw = src.read(8, window=((40, 41), (60, 61)))[0, 0]
        x, y = src.xy(40, 60)
    assert 1000 < raw < 5000
    cube = smgeo.open_cube(lachish.folder / "grid.zarr")
    value = float(cube["s2_b8"].sel(time="2023-03-01").sel(x=x, y=y, method="nearest"))
    assert value == pytest.approx(raw / 10_000, rel=1e-6)


def test_lachish_series_is_the_fields_mean(lachish, data):
    grid = lachish.results["grid"]
    assert grid["outline"]["pixels"] == 4584
    assert set(grid["series"]) == {"ndvi", "s2_b8"}
    with rasterio.open(data / "s2_lachish" / "BOA" / "BOA_2023-01-20_T36RXV.tif") as src:
        values, transform = src.read(8) * 1e-4, src.transform
    outline = json.loads((lachish.folder / "outline.geojson").read_text())["features"][0]["geometry"]
    fields = [shapely.Polygon(rings[0], rings[1:]) for rings in outline["coordinates"]]
    assert len(fields) == 3
    columns, rows = np.meshgrid(np.arange(145) + 0.5, np.arange(117) + 0.5)
    x, y = transform * (columns, rows)
    inside = np.any([shapely.contains_xy(f, x, y) for f in fields], axis=0)
    series = grid["series"]["s2_b8"]
    at = series["days"].index("2023-01-20")
    assert series["pixels"][at] == np.isfinite(values[inside]).sum() == 4584
    assert series["mean"][at] == pytest.approx(values[inside].astype("float64").mean(), rel=1e-6)
    # A field in a Mediterranean winter: it greens from November to January.
    ndvi = dict(zip(grid["series"]["ndvi"]["days"], grid["series"]["ndvi"]["mean"], strict=True))
    assert 0.4 < ndvi["2022-11-11"] < ndvi["2023-01-20"] < 0.9


def test_lachish_report_has_both_pictures(lachish):
    page = lachish.report.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    for said in ("Red s2_b4, green s2_b3, blue s2_b2", "2-98 % stretch", "lachish.gpkg", "4,584 pixels", "28.7 %"):
        assert said in page


@pytest.fixture(scope="module")
def newyork(data, tmp_path_factory):
    return smgeo.run(shipped("newyork"), out=tmp_path_factory.mktemp("newyork"), data=data)


def clear_and_filled(flags):
    """Bits of the BQA of collection 1, one by one: 0 fill, 4 cloud, 7-8 shadow, 11-12 cirrus, both bits for high."""
    bit = [(flags.astype("int64") // 2**k) % 2 == 1 for k in range(16)]
    return ~(bit[4] | (bit[7] & bit[8]) | (bit[11] & bit[12])) & ~bit[0], bit[0]


def scenes_of(data):
    """Scene -> day, and its bands as opened files."""
    for flags in sorted((data / "l8_newyork" / "L8NY18").glob("*/*_BQA.TIF")):
        yield pd.Timestamp(flags.stem.split("_")[3]), flags


def at_centres(cube, src):
    """Row and column in a scene of each pixel's centre, and which lie in it."""
    x, y = np.meshgrid(cube["x"].values, cube["y"].values)
    columns, rows = ~src.transform * (x, y)
    inside = (rows >= 0) & (columns >= 0) & (rows < src.height) & (columns < src.width)
    return np.where(inside, rows, 0).astype(int), np.where(inside, columns, 0).astype(int), inside


def test_newyork_has_a_value_where_a_scene_is_clear_and_only_there(newyork, data):
    """A pixel has a value where the scene's pixel that holds its centre is neither cloud nor fill, in any scene of the day."""
    cube = smgeo.open_cube(newyork.folder / "grid.zarr")[["l8_b10"]].load()
    clear, given = {}, {}
    for day, path in scenes_of(data):
        with rasterio.open(path) as src:
            rows, columns, inside = at_centres(cube, src)
            ok, fill = clear_and_filled(src.read(1))
        none = np.zeros(inside.shape, bool)
        clear[day] = clear.get(day, none) | (inside & ok[rows, columns])
        given[day] = given.get(day, none) | (inside & ~fill[rows, columns])
    assert len(clear) == 17  # 19 scenes, two days with two of them
    for day, expected in clear.items():
        np.testing.assert_array_equal(cube["l8_b10"].sel(time=day).notnull().values, expected)
    assert not cube["l8_b10"].drop_sel(time=list(clear)).notnull().any()
    about = newyork.results["grid"]["variables"]["l8_b10"]
    seen, there = (sum(int(m.sum()) for m in part.values()) for part in (clear, given))
    assert about["masked_share"] == pytest.approx(1 - seen / there, abs=1e-6)
    assert about["valid_share"] == pytest.approx(seen / (17 * 133 * 123), abs=1e-6)
    assert 0.1 < about["masked_share"] < 0.4


def test_newyork_pixel_series_by_hand(newyork, data):
    """One pixel in the Hudson valley, from the four scene pixels around it that are clear, on every clear day with one scene."""
    pixel = smgeo.open_cube(newyork.folder / "grid.zarr").load().sel(x=580_000, y=4_560_000, method="nearest")
    days = 0
    for day, flags in scenes_of(data):
        with rasterio.open(flags) as src:
            column, row = ~src.transform * (float(pixel["x"]), float(pixel["y"]))
            inside = 1 <= row < src.height - 1 and 1 <= column < src.width - 1
            ok, _ = clear_and_filled(src.read(1))
        if (
            not inside
            or not ok[int(row), int(column)]
            or day in (pd.Timestamp("2018-04-28"), pd.Timestamp("2018-09-03"))
        ):
            continue
        days += 1
        corners = [(int(row - 0.5) + i, int(column - 0.5) + j) for i in (0, 1) for j in (0, 1)]
        weights = [(1 - abs(row - 0.5 - i)) * (1 - abs(column - 0.5 - j)) * ok[i, j] for i, j in corners]
        for band, convert in (("B10", kelvin), ("B4", lambda n: n * 2e-5 - 0.1)):
            with rasterio.open(str(flags).replace("BQA", band)) as src:
                values = convert(src.read(1).astype("float64"))
            expected = sum(w * values[at] for w, at in zip(weights, corners, strict=True)) / sum(weights)
            assert float(pixel[f"l8_{band.lower()}"].sel(time=day)) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert days >= 5


def kelvin(numbers):
    """Landsat 8 Data Users Handbook, equations of radiance and of brightness temperature, band 10."""
    return 1321.0789 / np.log(774.8853 / (numbers * 3.342e-4 + 0.1) + 1)


def test_newyork_temperatures_follow_the_season(newyork):
    cube = smgeo.open_cube(newyork.folder / "grid.zarr").load()
    months = cube["l8_b10"].mean(("y", "x")).groupby("time.month").mean()
    assert 255 < float(months.sel(month=1)) < 275
    assert 290 < float(months.sel(month=7)) < 305
    assert float(months.max()) == float(months.sel(month=[6, 7, 8, 9]).max())
    assert float(cube["l8_b10"].min()) > 240
    assert float(cube["l8_b10"].max()) < 330
    assert float(cube["l8_b2"].min()) > -0.01
    # Both thermal bands see the same ground, the second through more water vapour.
    assert abs(float((cube["l8_b10"] - cube["l8_b11"]).mean())) < 3


def test_newyork_continues_from_its_own_resolved_recipe(newyork, data):
    again = smgeo.run(newyork.folder / "recipe.yaml", out=newyork.folder, data=data)
    assert again.results == newyork.results
    assert newyork.report.read_text(encoding="utf-8").count("data:image/png;base64,") == 2


def test_smap_learns_one_year_and_scores_every_row_of_the_next(data, tmp_path):
    recipe = shipped("smap")
    recipe["models"] = {"lstm_0": {**recipe["models"]["lstm_0"], "units": 4, "epochs": 1}}
    recipe["leakage_audit"] = None
    run = smgeo.run(recipe, out=tmp_path / "run", data=data)
    folder = data / "hydrodl_smap" / "CONUSv4f1"
    observed = {year: np.loadtxt(folder / year / "SMAP_AM.csv", delimiter=",") for year in ("2015", "2016")}
    known = {year: int(((values >= 0) & (values <= 1)).sum()) for year, values in observed.items()}
    scores = run.results["models"]["lstm_0"]
    assert {p: (s["n"], s["stations"]) for p, s in scores.items()} == {
        "train": (known["2015"], 412),
        "test": (known["2016"], 412),
    }
    model = smgeo.load_model(run.folder / "models" / "lstm_0")
    (means,) = [s["values"] for s in model.preparation_["steps"] if s["step"] == "target_mean"]
    year = np.where(observed["2015"] == -9999, np.nan, observed["2015"])
    np.testing.assert_allclose(
        [means[f"SMAP/cell_{i + 1:04d}"] for i in range(412)], np.nanmean(year, axis=1), rtol=1e-5
    )


@pytest.mark.soak
@pytest.mark.parametrize(("script", "count"), [("smap_tuning.py", 4), ("smap_inputs.py", 6)])
def test_scripts_of_smap_at_toy_size(data, script, count):
    command = [sys.executable, RECIPES / script, data, "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if "ubRMSE" in line]
    assert len(lines) == count
    assert all(0.01 < float(line.split("RMSE ")[1].split()[0]) < 0.3 for line in lines)


@pytest.mark.soak
def test_map_of_cookfarm_and_of_more_days_by_the_script(data, tmp_path):
    recipe = shipped("map_cookfarm")
    recipe["models"] = {"rf": {"trees": 5}, "ann": {"units": 4, "epochs": 1}}
    run = smgeo.run(recipe, out=tmp_path / "run", data=data)
    assert set(run.results["prediction_intervals"]) == {"rf", "ann"}
    field = shapely.box(493_400, 5_180_700, 493_800, 5_181_000)
    write_geojson(field, "EPSG:26911", tmp_path / "field.geojson")
    command = [
        sys.executable,
        str(RECIPES / "predict_region.py"),
        str(run.folder),
        str(tmp_path / "maps"),
        str(tmp_path / "field.geojson"),
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.count("m3 m-3") == 2 * 13
    with rasterio.open(tmp_path / "maps" / "rf" / "sm_2012-03-25.tif") as src, rasterio.open(run.maps[-1]) as whole:
        assert src.descriptions == ("sm", "sm_lower", "sm_upper", "applicable")
        assert src.shape == (30, 40)
        window = rasterio.windows.from_bounds(*src.bounds, transform=whole.transform).round()
        # The loggers' weather of that day is that of the grid, as the run had it.
        np.testing.assert_allclose(src.read(1), whole.read(1, window=window), atol=2e-3)
