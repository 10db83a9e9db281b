"""Recipes: what is read, what is refused, and what a refusal says."""

from __future__ import annotations

import copy
import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import yaml

from smgeo.catalog import STUDY_FEATURES
from smgeo.errors import SmgeoError
from smgeo.recipe.study import dump_recipe, find_recipe, parse_recipe, read_recipe, shipped_recipes
from smgeo.sources import open_stations

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))

MINIMAL = {
    "name": "small",
    "period": ["2020-01-01", "2020-01-31"],
    "stations": [
        {"kind": "csv", "path": "t.csv", "columns": {"station": "id", "time": "day", "x": "e", "y": "n", "sm": "vw"}}
    ],
    "rasters": [{"kind": "geotiff", "path": "s1_*.tif", "dates": "s1_%Y%m%d.tif", "bands": ["s1_vv", "s1_vh"]}],
    "grid": {"crs": "EPSG:32632", "resolution": 100.0, "bounds": [0, 0, 1000, 1000]},
    "features": ["s1_vv", "s1_cross_ratio", "doy_sin"],
    "models": {"rf": {}, "small": {"kind": "ann", "units": 8}},
    "maps": {"dates": ["2020-01-15"]},
}


def changed(**parts):
    return {**copy.deepcopy(MINIMAL), **parts}


def refusal(values) -> str:
    with pytest.raises(SmgeoError) as error:
        parse_recipe(values)
    return str(error.value)


def test_minimal_recipe_is_read_as_it_is_written():
    recipe = parse_recipe(MINIMAL)
    assert recipe.period == (dt.date(2020, 1, 1), dt.date(2020, 1, 31))
    assert recipe.stations[0].columns["sm"].column == "vw"
    assert recipe.stations[0].columns["sm"].scale == 1.0
    assert recipe.rasters[0].bands == {"s1_vv": "s1_vv", "s1_vh": "s1_vh"}
    assert (recipe.models["small"].kind, recipe.models["small"].params) == ("ann", {"units": 8})
    assert (recipe.models["rf"].kind, recipe.models["rf"].params) == ("rf", {})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipe_is_read(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert recipe.models or recipe.grid


def test_recipes_ship_and_are_found_by_name():
    assert {"quickstart", "ismn", "cookfarm", "lachish", "newyork"} <= set(shipped_recipes())
    assert find_recipe("quickstart").read_text(encoding="utf-8").startswith("#")


def test_study_features_are_the_27():
    assert read_recipe("quickstart").features == STUDY_FEATURES
    assert len(STUDY_FEATURES) == 27


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_dump_then_read_gives_an_equal_recipe(path, tmp_path):
    recipe = read_recipe(path)
    copy_path = tmp_path / "copy.yaml"
    copy_path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert read_recipe(copy_path) == recipe


def test_fill_null_survives_the_round_trip(tmp_path):
    recipe = parse_recipe(changed(prepare={"fill": None, "outliers": None}))
    assert recipe.prepare.fill is None
    (tmp_path / "copy.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    again = read_recipe(tmp_path / "copy.yaml")
    assert again.prepare.fill is None
    assert again.prepare.outliers is None
    assert again == recipe


def test_text_that_looks_like_a_number_survives_the_round_trip(tmp_path):
    own = {"own": {"units": "1e5", "long_name": "x", "kind": "static"}}
    recipe = parse_recipe(changed(variables=own))
    (tmp_path / "copy.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert read_recipe(tmp_path / "copy.yaml").variables["own"].units == "1e5"


@pytest.mark.parametrize("name", ["../escaped", "/tmp/x", "a/b", "", "rf.part", "1e5"])
def test_names_that_would_lead_to_another_folder_are_refused(name):
    with pytest.raises(SmgeoError, match="letters"):
        parse_recipe(changed(name=name))
    with pytest.raises(SmgeoError, match="letters"):
        parse_recipe(changed(models={name: {"kind": "rf"}}))


@pytest.mark.parametrize(
    ("values", "place", "hint"),
    [
        (changed(modles={}), "modles", "models"),
        (changed(prepare={"windw": {}}), "prepare", "window"),
        (changed(prepare={"window": {"lenght": 3}}), "prepare.window", "length"),
        (changed(stations=[{**MINIMAL["stations"][0], "netwrk": "A"}]), "stations.0", "network"),
        (changed(rasters=[{**MINIMAL["rasters"][0], "resampleing": "nearest"}]), "rasters.0", "resampling"),
        (
            changed(stations=[{**MINIMAL["stations"][0], "columns": {"sm": {"column": "a", "scal": 1}}}]),
            "columns.sm",
            "scale",
        ),
        (changed(cross_validation=[{"fold": 3}]), "cross_validation.0", "folds"),
    ],
)
def test_unknown_key_is_refused_with_its_place_and_the_nearest(values, place, hint):
    message = refusal(values)
    assert place in message
    assert f"did you mean '{hint}'?" in message


def test_every_unknown_key_of_a_shipped_recipe_names_its_place():
    values = yaml.safe_load(SHIPPED[0].read_text(encoding="utf-8"))
    values["prepare"]["window"]["mising"] = 0
    message = refusal(values)
    assert "prepare.window" in message
    assert "'missing'" in message


RASTER, STATIONS = MINIMAL["rasters"][0], MINIMAL["stations"][0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (changed(rasters=[{**RASTER, "kind": "geotif"}]), "rasters.0: unknown kind 'geotif'; did you mean 'geotiff'?"),
        (changed(stations=[{**STATIONS, "kind": "ismm"}]), "stations.0: unknown kind 'ismm'; did you mean 'ismn'?"),
        (
            changed(stations=[{k: v for k, v in STATIONS.items() if k != "kind"}]),
            "stations.0: kind is missing; known: csv, ismn, matrix, tereno",
        ),
        (
            changed(rasters=[{k: v for k, v in RASTER.items() if k != "kind"}]),
            "rasters.0: kind is missing; known: csv_grid, earthengine, geotiff, netcdf, stac, zarr",
        ),
    ],
)
def test_kind_that_is_unknown_or_missing_names_the_kinds(values, says):
    assert refusal(values) == f"recipe: {says}"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            changed(rasters=[{**RASTER, "daily": "men"}]),
            "rasters.0.daily: needs 'auto', 'mean', 'clearest' or 'sum'; got 'men'",
        ),
        (changed(rasters=[{k: v for k, v in RASTER.items() if k != "path"}]), "rasters.0.path is missing"),
        (changed(rasters=[{**RASTER, "path": 3}]), "rasters.0.path: needs text or a list; got 3"),
        # Of the three forms of dates, the one that was begun.
        (
            changed(rasters=[{**RASTER, "dates": ["2020-01-01", "x"]}]),
            "rasters.0.dates.1: needs a date such as 2020-01-31; got 'x'",
        ),
        (
            changed(rasters=[{**RASTER, "mask": {"band": 1, "fields": [[1, 2]]}}]),
            "rasters.0.mask.fields.0: needs 3 values; got [1, 2]",
        ),
        (changed(stations=STATIONS), "stations: needs a list; got a mapping"),
        (changed(stations=["a.csv"]), "stations.0: needs a mapping (key: value); got 'a.csv'"),
        (changed(period="2020-01-01"), "period: needs a list; got '2020-01-01'; write [2020-01-01]"),
        (changed(period=["2020-01-01"]), "period: needs 2 values; got ['2020-01-01']"),
        (changed(period=[1, 2, 3]), "period: needs no more than 2 values; got [1, 2, 3]"),
        (changed(period=["2020-01-01", "2020-02-31"]), "period.1: needs a date such as 2020-01-31; got '2020-02-31'"),
        (changed(grid={**MINIMAL["grid"], "bounds": [0, 0, 1]}), "grid.bounds: needs 4 values; got [0, 0, 1]"),
        (changed(grid={**MINIMAL["grid"], "resolution": 0}), "grid.resolution: needs a number above 0; got 0"),
        (changed(features=None), "features: needs a list; got nothing"),
        (changed(name=3), "name: needs text; got 3; put it in quotes"),
        (changed(maps={"dates": []}), "maps.dates: needs 1 or more values; got []"),
        (changed(maps={}), "maps.dates is missing"),
        (
            changed(prepare={"scale": "robust", "window": {"length": 2.5, "missing": "no"}}),
            "prepare.window.length: needs a whole number; got 2.5; prepare.window.missing: needs a number; got 'no'",
        ),
    ],
)
def test_wrong_value_says_where_and_what_is_needed_and_what_was_found(values, says):
    assert refusal(values) == f"recipe: {says}"


def test_missing_features_are_named_beside_other_mistakes():
    values = {k: v for k, v in changed(seed="x").items() if k != "features"}
    assert refusal(values) == "recipe: seed: needs a whole number; got 'x'; features is missing"


def test_key_in_a_url_is_not_shown():
    message = refusal(changed(rasters=[{**RASTER, "radius_m": "https://a.org/b.tif?sig=secret"}]))
    assert "https://a.org/b.tif?..." in message
    assert "secret" not in message


def test_resolution_in_metres_of_a_grid_in_degrees():
    grid = {"crs": "EPSG:4326", "resolution": 5000, "bounds": [34, 31, 36, 32.5]}
    message = refusal(changed(grid=grid))
    assert "grid: resolution 5000 is wider than the bounds, 2 x 1.5: 1 x 1 pixels" in message
    assert "units of EPSG:4326 (degrees for EPSG:4326)" in message
    one = {"crs": "EPSG:32632", "resolution": 100, "bounds": [0, 0, 300, 100]}
    assert parse_recipe(changed(grid=one)).grid.resolution == 100


def test_unknown_variable_names_the_nearest():
    message = refusal(changed(features=["s1_vvv"]))
    assert "'s1_vvv'" in message
    assert "did you mean 's1_vv'?" in message


def test_feature_that_no_source_gives():
    message = refusal(changed(features=["s1_vv", "clay"], maps=None))
    assert "'clay'" in message
    assert "no source gives it" in message


def test_derived_feature_names_what_it_is_derived_from():
    message = refusal(changed(features=["s1_vv", "ndvi"], maps=None))
    assert "'ndvi'" in message
    assert "s2_b8" in message
    assert "s2_b4" in message


def test_feature_of_the_stations_alone_cannot_be_mapped():
    stations = [{**MINIMAL["stations"][0], "columns": {**MINIMAL["stations"][0]["columns"], "clay": "c"}}]
    message = refusal(changed(stations=stations, features=["s1_vv", "clay"]))
    assert "'clay'" in message
    assert "no raster gives it" in message
    assert parse_recipe(changed(stations=stations, features=["s1_vv", "clay"], maps=None)).features == ("s1_vv", "clay")


def test_units_of_a_station_column_must_be_the_cubes():
    columns = {**MINIMAL["stations"][0]["columns"], "sm": {"column": "vw", "units": "percent"}}
    message = refusal(changed(stations=[{**MINIMAL["stations"][0], "columns": columns}]))
    assert "'percent'" in message
    assert "'m3 m-3'" in message
    assert "t.csv" in message


def test_units_of_a_raster_must_be_the_cubes():
    message = refusal(changed(rasters=[{**MINIMAL["rasters"][0], "units": {"s1_vv": "1"}}]))
    assert "'1'" in message
    assert "'dB'" in message
    assert "s1_*.tif" in message


def test_maps_need_a_grid():
    assert "grid" in refusal(changed(grid=None))


@pytest.mark.parametrize(
    "grid",
    [
        {"crs": "EPSG:32632", "resolution": 100.0},
        {"like": "a.tif", "crs": "EPSG:32632", "resolution": 100.0, "bounds": [0, 0, 1, 1]},
        {"crs": "EPSG:32632", "resolution": 100.0, "bounds": [1000, 0, 0, 1000]},
        {"crs": "EPSG:32632", "resolution": -1.0, "bounds": [0, 0, 1000, 1000]},
    ],
)
def test_half_or_double_or_reversed_grid_is_refused(grid):
    assert "grid" in refusal(changed(grid=grid))


def test_period_reversed():
    message = refusal(changed(period=["2020-02-01", "2020-01-01"]))
    assert "2020-02-01" in message
    assert "2020-01-01" in message


def test_grid_period_reversed():
    message = refusal(changed(grid={**MINIMAL["grid"], "period": ["2020-01-20", "2020-01-10"]}))
    assert "2020-01-20" in message


def test_map_outside_the_period():
    assert "2021-01-01" in refusal(changed(maps={"dates": ["2021-01-01"]}))


def test_map_outside_the_grids_period():
    message = refusal(changed(grid={**MINIMAL["grid"], "period": ["2020-01-01", "2020-01-10"]}))
    assert "2020-01-15" in message


def test_model_of_maps_that_is_not_there():
    message = refusal(changed(maps={"dates": ["2020-01-15"], "models": ["smal"]}))
    assert "did you mean 'small'?" in message


def test_target_among_the_features():
    assert "'sm'" in refusal(changed(features=["s1_vv", "sm"]))


def test_moving_band_without_dates():
    raster = {k: v for k, v in MINIMAL["rasters"][0].items() if k != "dates"}
    assert "s1_vv" in refusal(changed(rasters=[raster]))


def test_band_given_by_two_sources():
    assert "'s1_vv'" in refusal(changed(rasters=[MINIMAL["rasters"][0], {**MINIMAL["rasters"][0], "bands": ["s1_vv"]}]))


def test_depths_upside_down():
    assert "target" in refusal(changed(target={"depth_m": [0.3, 0.1]}))


def test_fractions_that_do_not_sum_to_one():
    assert "fractions" in refusal(changed(prepare={"split": {"fractions": [0.8, 0.1, 0.2]}}))


def test_yaml_syntax_error_names_the_line(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("name: a\nseed: 0\nfeatures: [a, b\nmodels: {}\n", encoding="utf-8")
    with pytest.raises(SmgeoError, match=r"broken\.yaml, line 4"):
        read_recipe(path)


@pytest.mark.parametrize("value", ["2018-06-31", "2018-13-01", "2018-01-01T25:00:00"])
def test_day_that_no_month_has_names_its_line(tmp_path, value):
    path = tmp_path / "june.yaml"
    path.write_text(f"name: a\nperiod: [2018-01-01,\n  {value}]\n", encoding="utf-8")
    with pytest.raises(SmgeoError, match=rf"june\.yaml, line 3: .*'{value}' is no date") as error:
        read_recipe(path)
    assert "\n" not in str(error.value)


def test_duplicate_key_is_refused_and_named(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\nmodels:\n  rf: {}\n  rf: {trees: 3}\n", encoding="utf-8")
    with pytest.raises(SmgeoError, match="'rf' is given twice"):
        read_recipe(path)


def test_numbers_and_dates_as_users_write_them(tmp_path):
    values = copy.deepcopy(MINIMAL)
    path = tmp_path / "numbers.yaml"
    text = yaml.safe_dump({k: v for k, v in values.items() if k not in ("models", "maps")})
    text += "models:\n  ann: {a: 1e-3, b: 2.5E4, c: 12, d: -3, e: .5, f: 1.0, g: name, h: true}\nmaps: {dates: [2020-01-15]}\n"
    path.write_text(text, encoding="utf-8")
    recipe = read_recipe(path)
    params = recipe.models["ann"].params
    assert params == {"a": 0.001, "b": 25000.0, "c": 12, "d": -3, "e": 0.5, "f": 1.0, "g": "name", "h": True}
    assert [type(params[k]) for k in "acdg"] == [float, int, int, str]
    assert recipe.maps.dates == (dt.date(2020, 1, 15),)


def test_a_list_is_no_recipe(tmp_path):
    (tmp_path / "list.yaml").write_text("- a\n- b\n", encoding="utf-8")
    with pytest.raises(SmgeoError, match="mapping"):
        read_recipe(tmp_path / "list.yaml")


def test_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(SmgeoError, match=r"bytes\.yaml"):
        read_recipe(tmp_path / "bytes.yaml")


def test_missing_recipe_names_those_that_ship():
    with pytest.raises(SmgeoError, match="quickstart"):
        read_recipe("no_such_recipe.yaml")


def test_every_kind_of_stations_says_what_its_reader_needs(tmp_path):
    """A recipe's source opens with the options it gives, here on a folder of matrices."""
    (tmp_path / "cells" / "2015").mkdir(parents=True)
    (tmp_path / "cells" / "const").mkdir()
    (tmp_path / "cells" / "crd.csv").write_text("50.0,10.0\n51.0,11.0\n")
    (tmp_path / "cells" / "2015" / "timeStr.csv").write_text("2015-04-01\n2015-04-02\n2015-04-03\n")
    (tmp_path / "cells" / "2015" / "SM.csv").write_text("0.1,-9999,0.3\n0.2,0.25,0.3\n")
    (tmp_path / "cells" / "2015" / "P.csv").write_text("0,0.5,0\n0.25,0,1\n")
    (tmp_path / "cells" / "const" / "Sand.csv").write_text("40\n60\n")
    source = {
        "kind": "matrix",
        "path": "cells",
        "variables": {"sm": "SM", "precipitation": {"file": "P", "scale": 24}},
        "static": {"sand": "Sand"},
    }
    values = {"name": "m", "stations": [source], "features": ["precipitation", "sand"], "models": {"rf": {}}}
    recipe = parse_recipe(values)
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
    spec = recipe.stations[0]
    cube = open_stations(spec, root=tmp_path)
    np.testing.assert_allclose(cube["precipitation"].values, [[0, 12, 0], [6, 0, 24]])
    np.testing.assert_allclose(cube["sm"].values, [[0.1, np.nan, 0.3], [0.2, 0.25, 0.3]], rtol=1e-6)
    assert cube["sand"].values.tolist() == [40, 60]


def test_a_tereno_source_resolves_its_files_and_columns(tmp_path):
    source = {
        "kind": "tereno",
        "path": "export.txt",
        "stations": "places.csv",
        "columns": {"SWC_5": {"variable": "sm", "depth_m": 0.05, "units": "%"}},
    }
    values = {"name": "t", "stations": [source], "features": ["doy_sin"], "models": {"rf": {}}}
    spec = parse_recipe(values).stations[0]
    assert spec.more_files(tmp_path) == [tmp_path / "places.csv"]
    assert spec.columns["SWC_5"].depth == (0.05, 0.05)
    assert spec.columns["SWC_5"].units == "%"
    with pytest.raises(SmgeoError, match="did you mean 'depth_m'"):
        parse_recipe({**values, "stations": [{**source, "columns": {"a": {"variable": "sm", "depth": 0.05}}}]})


# ---- cubes alone

CUBE = {
    **{k: MINIMAL[k] for k in ("name", "period", "rasters", "grid")},
    "features": ["s1_vv", "s1_vh", "s1_cross_ratio", "doy_sin"],
}


def test_grid_and_period_are_enough_for_a_grid_cube():
    recipe = parse_recipe(CUBE)
    assert recipe.builds_grid
    assert recipe.grid_period == (dt.date(2020, 1, 1), dt.date(2020, 1, 31))
    own = parse_recipe({**CUBE, "period": None, "grid": {**CUBE["grid"], "period": ["2020-01-02", "2020-01-03"]}})
    assert own.grid_period == (dt.date(2020, 1, 2), dt.date(2020, 1, 3))


def test_resolved_recipe_of_a_grid_cube_says_nothing_of_what_needs_stations(tmp_path):
    recipe = parse_recipe(CUBE)
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert {"target", "prepare"}.isdisjoint(yaml.safe_load((tmp_path / "r.yaml").read_text()))
    assert read_recipe(tmp_path / "r.yaml") == recipe


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("models", {"rf": {}}),
        ("maps", {"dates": ["2020-01-15"]}),
        ("cross_validation", {"method": "random"}),
        ("search", {"rf": {"space": {"trees": [1, 2]}}}),
        ("target", {"depth_m": [0.0, 0.05]}),
        ("prepare", {"scale": "robust"}),
        ("leakage_audit", True),
    ],
)
def test_without_stations_nothing_that_needs_them(key, value):
    message = refusal({**CUBE, key: value})
    assert f"{key}: needs stations" in message


def test_without_stations_the_days_must_be_given():
    assert "period: without stations" in refusal({**CUBE, "period": None})


def test_neither_stations_nor_grid():
    assert "names stations, or a grid" in refusal({**CUBE, "grid": None})


def test_grid_cube_needs_a_raster_for_every_feature():
    assert "'clay'" in refusal({**CUBE, "features": ["s1_vv", "clay"]})
    assert "a grid cube needs one that a raster gives" in refusal({**CUBE, "features": ["doy_sin"]})


def test_soil_moisture_of_a_raster_is_no_target_without_stations():
    raster = {"kind": "geotiff", "path": "sm_*.tif", "dates": "sm_%Y%m%d.tif", "bands": ["sm"]}
    assert parse_recipe({**CUBE, "rasters": [raster], "features": ["sm"]}).features == ("sm",)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("maps", {"dates": ["2020-01-15"]}),
        ("cross_validation", {"method": "random"}),
        ("search", {"rf": {"space": {"trees": [1]}}}),
        ("intervals", True),
        ("applicability", {"models": ["rf"]}),
    ],
)
def test_without_models_nothing_that_needs_them(key, value):
    alone = {k: v for k, v in MINIMAL.items() if k not in ("models", "maps")}
    assert parse_recipe(alone).builds_grid
    assert not parse_recipe({**alone, "grid": None}).builds_grid
    assert f"{key}: needs models" in refusal({**alone, key: value})


def test_report_block():
    report = {
        "rgb": ["s1_vv", "s1_vh", "s1_cross_ratio"],
        "dates": ["2020-01-10"],
        "series": ["s1_vv"],
        "outline": "f.gpkg",
    }
    assert parse_recipe({**CUBE, "report": report}).report.dates == (dt.date(2020, 1, 10),)
    assert parse_recipe(changed(report={"series": ["s1_vv"]}, maps=None)).builds_grid


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({}, "give rgb"),
        ({"outline": "f.gpkg"}, "give rgb"),
        ({"series": ["s1_vv"], "dates": ["2020-01-10"]}, "dates are the days of rgb"),
        ({"series": ["s1_w"]}, "report.series: 's1_w' is not in features"),
        ({"rgb": ["s1_vv", "s1_vh", "doy_sin"]}, "report.rgb: 'doy_sin' does not vary in time and place"),
        ({"rgb": ["s1_vv", "s1_vh"]}, "report.rgb"),
        ({"rgb": ["s1_vv", "s1_vh", "s1_vv"], "dates": ["2021-01-10"]}, "2021-01-10"),
        ({"seris": ["s1_vv"]}, "series"),
    ],
)
def test_report_block_that_cannot_be(report, message):
    assert message in refusal({**CUBE, "report": report})


def test_report_needs_a_grid():
    assert "report: shows the grid cube" in refusal(changed(report={"series": ["s1_vv"]}, maps=None, grid=None))


@pytest.mark.parametrize(
    "spec",
    [
        {"method": "group-k-fold", "folds": 4},
        {"method": "spatial-blocks", "block_km": 50},
        {"method": "temporal", "gap_days": 0, "forward_only": True},
        {"method": "leave-location-and-time-out", "folds": 3, "gap_days": 0, "forward_only": True},
        {"method": "leave-location-out"},
        {"method": "random", "seed": 3},
        {"method": "knndm"},
        {"method": "knndm", "folds": 5, "space": "feature"},
    ],
)
def test_every_method_of_cross_validation_and_its_own_options(spec):
    parsed = parse_recipe(changed(cross_validation=spec)).cross_validation[0]
    assert parsed.method == spec["method"]
    assert parsed.options == {k: v for k, v in spec.items() if k in ("block_km", "gap_days", "forward_only", "space")}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"method": "temporal", "block_km": 5}, "block_km belongs to method spatial-blocks; this one is temporal"),
        ({"method": "random", "gap_days": 5}, "gap_days belongs to method temporal"),
        ({"forward_only": True}, "forward_only belongs to method temporal"),
        ({"method": "spatial-blocks", "block_km": 0}, "cross_validation.0.block_km"),
        ({"method": "temporal", "gap_days": -1}, "cross_validation.0.gap_days"),
        ({"method": "stations"}, "leave-location-out"),
        ({"method": "group-k-fold", "space": "geographic"}, "space belongs to method knndm; this one is group-k-fold"),
        ({"method": "knndm", "space": "time"}, "cross_validation.0.space"),
        ({"method": "knndm", "block_km": 5}, "block_km belongs to method spatial-blocks"),
    ],
)
def test_options_of_another_method_are_refused(spec, message):
    assert message in refusal(changed(cross_validation=[spec]))


def test_knndm_builds_the_grid_and_needs_it():
    spec = {"method": "knndm", "folds": 5}
    assert not parse_recipe(changed(maps=None)).builds_grid
    assert parse_recipe(changed(maps=None, cross_validation=[spec])).builds_grid
    assert "knndm holds places out that are as far from training places as the pixels of the grid" in refusal(
        changed(maps=None, grid=None, cross_validation=[spec])
    )
    assert "groups.buffer_km: changes the distances to held-out places, which knndm" in refusal(
        changed(groups={"buffer_km": 5}, cross_validation=[spec])
    )


def test_leakage_audit_is_yes_no_or_a_block():
    assert parse_recipe(changed()).leakage_audit is None
    assert parse_recipe(changed(leakage_audit=False)).leakage_audit is None
    assert parse_recipe(changed(leakage_audit=True)).leakage_audit.folds == 5
    audit = parse_recipe(changed(leakage_audit={"folds": 3, "seed": 7})).leakage_audit
    assert (audit.folds, audit.seed) == (3, 7)
    assert "leakage_audit.folds" in refusal(changed(leakage_audit={"folds": 1}))
    assert "did you mean 'folds'" in refusal(changed(leakage_audit={"fold": 3}))


def test_preparation_of_outliers_and_gaps():
    prepare = parse_recipe(MINIMAL).prepare
    assert (prepare.outliers.z, prepare.outliers.per_station, prepare.outliers.variables) == (4.0, False, None)
    assert prepare.fill.causal is False
    said = {"fill": {"causal": True}, "outliers": {"z": "choose", "per_station": True, "variables": ["s1_vv", "sm"]}}
    recipe = parse_recipe(changed(prepare=said))
    assert recipe.prepare.fill.causal
    assert recipe.prepare.outliers.z == "choose"
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
    own = {"hail": {"units": "mm", "long_name": "hail", "kind": "dynamic", "heavy_tailed": True}}
    assert parse_recipe(changed(variables=own)).catalog["hail"].attrs()["heavy_tailed"] == 1


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"prepare": {"outliers": {"z": 0}}}, ["prepare.outliers.z", "above 0"]),
        ({"prepare": {"outliers": {"z": "chose"}}}, ["prepare.outliers.z", "choose"]),
        ({"prepare": {"outliers": {"variables": ["s1_v"]}}}, ["prepare.outliers.variables", "'s1_v'", "s1_vv"]),
        ({"prepare": {"fill": {"limit": {"s1_v": 2}}}}, ["prepare.fill.limit", "'s1_v'", "s1_vv"]),
        ({"prepare": {"outliers": {"z": "choose"}}, "cross_validation": {"folds": 3}}, ["cross_validation", "chosen"]),
        ({"prepare": {"outliers": {"z": "choose"}}, "models": {}, "maps": None}, ["prepare.outliers.z", "models"]),
    ],
)
def test_preparation_refused(parts, words):
    message = refusal(changed(**parts))
    for word in words:
        assert word in message


PERIODS = {"train": ["2020-01-01", "2020-01-20"], "test": ["2020-01-21", "2020-01-31"]}
IN_TIME = {
    **{k: v for k, v in MINIMAL.items() if k not in ("grid", "maps")},
    "features": ["s1_vv", "lat", "target_mean"],
    "prepare": {"split": {"periods": PERIODS}},
}


def test_a_stations_own_mean_is_a_feature_of_splits_in_time_alone():
    recipe = parse_recipe(IN_TIME)
    assert recipe.cube_features == ("s1_vv", "lat")
    assert (recipe.catalog["target_mean"].units, recipe.catalog["target_mean"].kind) == ("m3 m-3", "static")
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
    assert "a station that is held out does not have" in refusal({**IN_TIME, "prepare": {}})
    assert "leave-location-out holds stations out" in refusal({**IN_TIME, "cross_validation": {"folds": 3}})
    parse_recipe({**IN_TIME, "cross_validation": {"method": "temporal", "folds": 3}})
    with_maps = {**IN_TIME, "grid": MINIMAL["grid"], "maps": MINIMAL["maps"]}
    assert "no pixel has the feature 'target_mean'" in refusal(with_maps)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            {**PERIODS, "validation": ["2020-01-19", "2020-01-20"]},
            "validation begins on 2020-01-19, and train ends on 2020-01-20",
        ),
        (
            {**PERIODS, "test": ["2020-01-31", "2020-01-21"]},
            "the test period ends before it begins: 2020-01-31 to 2020-01-21",
        ),
        ({"train": PERIODS["train"]}, "prepare.split.periods.test is missing"),
    ],
)
def test_periods_out_of_order_are_refused(split, message):
    assert message in refusal({**IN_TIME, "prepare": {"split": {"periods": split}}})


def test_periods_take_no_other_split_and_no_stations_held_out():
    both = {"periods": PERIODS, "fractions": [0.7, 0.2, 0.1]}
    assert "fractions split stations, and periods splits days" in refusal({**IN_TIME, "prepare": {"split": both}})
    assert "learning_curve: adds training stations" in refusal({**IN_TIME, "learning_curve": True})
    assert "search.rf: with prepare.split.periods a trial" in refusal({**IN_TIME, "search": {"rf": {}}})
    assert "importance.part: validation needs" in refusal({**IN_TIME, "importance": {"part": "validation"}})
    own = {"target_mean": {"units": "1", "long_name": "mine", "kind": "static"}}
    assert "variables: 'target_mean' is a station's mean" in refusal({**IN_TIME, "variables": own})
    learned = {"split": {"periods": PERIODS}, "outliers": {"variables": ["target_mean"]}}
    assert "prepare.outliers.variables: 'target_mean' is not in features" in refusal({**IN_TIME, "prepare": learned})
    choose = {"split": {"periods": PERIODS}, "outliers": {"z": "choose"}}
    assert "choose scores validation stations" in refusal({**IN_TIME, "prepare": choose})


def test_a_model_may_be_prepared_otherwise():
    models = {
        "rf": {},
        "robust": {"kind": "ann", "units": 8, "prepare": {"scale": "robust", "outliers": None}},
        "short": {"kind": "gru", "prepare": {"window": {"length": 5}}},
    }
    recipe = parse_recipe(changed(models=models, prepare={"scale": "standard", "window": {"missing": 0}}))
    assert recipe.prepare_of("rf") == recipe.prepare
    robust, short = recipe.prepare_of("robust"), recipe.prepare_of("short")
    assert (robust.scale, robust.outliers, robust.fill) == ("robust", None, recipe.prepare.fill)
    assert (short.window.length, short.window.missing, short.scale) == (5, 0.5, "standard")
    assert recipe.models["robust"].params == {"units": 8}
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"split": {}}, "models.rf.prepare: unknown key 'split'"),
        ({"scale": "minmaxx"}, "models.rf.prepare.scale: "),
        ({"fill": {"limit": {"s1_w": 3}}}, "models.rf.prepare.fill.limit: 's1_w' is not in features"),
        ({"outliers": {"variables": ["s1_w"]}}, "models.rf.prepare.outliers.variables: 's1_w' is not in features"),
        ({"outliers": {"z": "choose"}}, "models.rf.prepare.outliers.z: choose is for prepare.outliers of the recipe"),
    ],
)
def test_a_models_own_preparation_is_checked(own, message):
    assert message in refusal(changed(models={"rf": {"prepare": own}}))


def test_yaml_merges_keys_of_another_mapping(tmp_path):
    text = yaml.safe_dump(changed(models={}), sort_keys=False).replace(
        "models: {}", "models:\n  ann: &best {units: 8, layers: 1}\n  other: {kind: ann, <<: *best, units: 16}"
    )
    (tmp_path / "merged.yaml").write_text(text)
    models = read_recipe(tmp_path / "merged.yaml").models
    assert models["other"].params == {"units": 16, "layers": 1}
    assert models["ann"].params == {"units": 8, "layers": 1}
    (tmp_path / "twice.yaml").write_text(text.replace("units: 16}", "units: 16, units: 17}"))
    with pytest.raises(SmgeoError, match="key 'units' is given twice"):
        read_recipe(tmp_path / "twice.yaml")


def test_features_are_selected_where_locations_are_held_out():
    parse_recipe(changed(cross_validation={"folds": 3, "select_features": True}))
    wrong = refusal(changed(cross_validation={"method": "random", "select_features": True}))
    assert "select_features holds locations out, and method random trains on all of them" in wrong
    one = changed(features=["s1_vv"], cross_validation={"select_features": True})
    assert "select_features needs two or more features" in refusal(one)


@pytest.mark.parametrize("key", ["valid", "valid_range"])
def test_an_own_variable_has_a_valid_range_and_missing_numbers(tmp_path, key):
    own = {"units": "m3 m-3", "long_name": "soil water", "kind": "dynamic", key: [0, 1], "missing": [-9999, 1e20]}
    recipe = parse_recipe(changed(variables={"swc": own}))
    (tmp_path / "copy.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    for found in (recipe, read_recipe(tmp_path / "copy.yaml")):
        assert found.catalog["swc"].valid_range == (0.0, 1.0)
        assert found.catalog["swc"].missing == (-9999.0, 1e20)
    assert parse_recipe(changed(variables={"swc": {**own, "missing": -1}})).catalog["swc"].missing == (-1.0,)
    plain = {k: v for k, v in own.items() if k in ("units", "long_name", "kind")}
    assert parse_recipe(changed(variables={"swc": plain})).catalog["swc"].missing == ()
    assert "variables.swc" in (said := refusal(changed(variables={"swc": {**own, key: [1, 0]}})))
    assert "valid is [least, greatest possible value]; got [1.0, 0.0]" in said
    assert "unknown key 'valit'; did you mean 'valid'" in refusal(
        changed(variables={"swc": {**plain, "valit": [0, 1]}})
    )
    both = {**own, "valid": [0, 1], "valid_range": [0, 2]}
    assert "unknown key 'valid_range'" in refusal(changed(variables={"swc": both}))


ENSEMBLE = {"kind": "ensemble", "members": ["rf", "extra_trees"]}


@pytest.mark.parametrize("members", [3, None, "rf"])
def test_members_that_are_no_list_are_no_traceback(members):
    """The model says what is wrong with them, when models are checked."""
    recipe = changed(models={"rf": {}, "mean": {"kind": "ensemble", "members": members}}, maps=None)
    parse_recipe({**recipe, "period": ["2020-01-01", "2020-12-31"]})


def test_an_ensemble_of_a_searched_model_is_held_to_the_rules_of_one():
    with_search = changed(models={"rf": {}, "mean": ENSEMBLE}, search={"rf": {"trials": 2}}, maps=None)
    said = refusal({**with_search, "cross_validation": {"models": ["mean"]}})
    assert "mean is searched on the split's validation stations" in said


@pytest.mark.parametrize(
    "models",
    [
        {"rf": {"seed": 3}, "mean": ENSEMBLE},
        {"mean": {"kind": "ensemble", "members": [{"kind": "rf", "seed": 3}, "extra_trees"]}},
    ],
)
def test_seeds_of_a_run_and_of_members_are_refused_together(models):
    assert "seeds: models.mean has a seed of its own" in refusal(changed(models=models, seeds=[0, 1], maps=None))
