"""Runs that build cubes alone: a grid cube of drawn scenes, a station cube without models, what a second run skips."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

import smgeo
from smgeo.errors import SmgeoError
from smgeo.recipe.study import parse_recipe, read_recipe
from smgeo.report.page import write_report

DAYS = ("2020-06-01", "2020-06-03", "2020-06-04")
TRANSFORM = rasterio.transform.from_origin(500_000, 5_000_040, 10, 10)
RED = np.arange(20, dtype="int16").reshape(4, 5) * 100 + 1000
# 1 is cloud. The first day is clear, the second has two clouds, the third is all cloud.
FLAGS = {d: np.zeros((4, 5), "int16") for d in DAYS}
FLAGS[DAYS[1]][0, 0] = FLAGS[DAYS[1]][2, 2] = 1
FLAGS[DAYS[2]][:] = 1


def write(path, *bands):
    profile = {"driver": "GTiff", "height": 4, "width": 5, "count": len(bands), "dtype": "int16"}
    with rasterio.open(path, "w", **profile, crs="EPSG:32632", transform=TRANSFORM) as dst:
        for i, band in enumerate(bands):
            dst.write(band, i + 1)


@pytest.fixture
def folder(tmp_path):
    """Scenes of red, near infrared (500 more) and flags; one pixel of the first day has no data (0)."""
    for k, day in enumerate(DAYS):
        red = RED + k
        if k == 0:
            red = np.where(np.arange(20).reshape(4, 5) == 19, 0, red).astype("int16")
        write(tmp_path / f"s_{day}.tif", red, (red + 500) * (red > 0), FLAGS[day])
    write(tmp_path / "dem.tif", np.full((4, 5), 120, "int16"))
    # Columns 0 and 1.
    field = [
        [500_000, 5_000_040],
        [500_020, 5_000_040],
        [500_020, 5_000_000],
        [500_000, 5_000_000],
        [500_000, 5_000_040],
    ]
    crs = {"type": "name", "properties": {"name": "EPSG:32632"}}
    (tmp_path / "field.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [field], "crs": crs}))
    return tmp_path


@pytest.fixture
def recipe():
    return {
        "name": "cube",
        "period": ["2020-06-01", "2020-06-05"],
        "rasters": [
            {
                "kind": "geotiff",
                "path": "s_*.tif",
                "dates": "s_%Y-%m-%d.tif",
                "bands": {"s2_b4": 1, "s2_b8": 2},
                "scale": {"s2_b4": 1e-4, "s2_b8": 1e-4},
                "nodata": 0,
                "mask": {"band": 3, "classes": [1]},
            },
            {"kind": "geotiff", "path": "dem.tif", "bands": {"elevation": 1}},
        ],
        "grid": {"like": "dem.tif"},
        "features": ["s2_b8", "s2_b4", "ndvi", "elevation", "doy_sin"],
        "report": {"rgb": ["s2_b8", "s2_b4", "ndvi"], "series": ["s2_b4"], "outline": "field.geojson"},
    }


@pytest.fixture
def finished(folder, recipe):
    return smgeo.run(recipe, out=folder / "run", data=folder)


def done_of(run) -> dict[str, int]:
    records = [p for p in (run / ".stages").glob("*.json") if p.name != "hashes.json"]
    return {json.loads(p.read_text())["stage"]: p.stat().st_mtime_ns for p in records}


def rerun(recipe, folder) -> set[str]:
    """Stages that a further run does again."""
    before = done_of(folder / "run")
    smgeo.run(recipe, out=folder / "run", data=folder)
    after = done_of(folder / "run")
    return {n for n in after if after[n] != before.get(n)}


def names_in(folder) -> set[str]:
    return {p.name for p in folder.iterdir() if not p.name.startswith(".")}


def test_folder_holds_the_cube_and_nothing_of_stations_or_models(finished):
    files = {"recipe.yaml", "provenance.json", "grid.zarr", "results.json", "report.html", "outline.geojson"}
    assert names_in(finished.folder) == files
    assert finished.maps == []
    assert finished.results["models"] == {}


def test_cube_holds_the_values_of_the_scenes(finished):
    cube = smgeo.open_cube(finished.folder / "grid.zarr").load()
    assert [str(d)[:10] for d in cube["time"].values] == [f"2020-06-0{d}" for d in range(1, 6)]
    expected = (RED + 1) * 1e-4
    expected[FLAGS[DAYS[1]] == 1] = np.nan
    np.testing.assert_allclose(cube["s2_b4"].sel(time="2020-06-03"), expected, rtol=1e-6)
    nir, red = (RED[1, 3] + 501) * 1e-4, (RED[1, 3] + 1) * 1e-4
    assert float(cube["ndvi"].sel(time="2020-06-03")[1, 3]) == pytest.approx((nir - red) / (nir + red), rel=1e-5)
    assert bool(cube["s2_b4"].sel(time=["2020-06-02", "2020-06-04", "2020-06-05"]).isnull().all())


def test_results_say_what_the_cube_holds(finished):
    grid = finished.results["grid"]
    assert (grid["crs"], grid["shape"], grid["resolution"]) == ("EPSG:32632", [4, 5], [10, 10])
    assert grid["days"] == {"first": "2020-06-01", "last": "2020-06-05", "count": 5}
    assert list(grid["variables"]) == ["s2_b8", "s2_b4", "ndvi", "elevation", "doy_sin"]
    red = grid["variables"]["s2_b4"]
    # 19 and 18 of 20 pixels on the two days with any; of the 59 values in the files, 2 + 20 lie under cloud.
    assert (red["days"], red["first_day"], red["last_day"]) == (2, "2020-06-01", "2020-06-03")
    assert red["valid_share"] == pytest.approx(37 / 40)
    assert red["masked_share"] == pytest.approx(22 / 59, abs=1e-6)
    assert grid["variables"]["elevation"] == {"kind": "static", "units": "m", "valid_share": 1.0}
    assert "masked_share" not in grid["variables"]["ndvi"]
    assert grid["variables"]["doy_sin"] == {"kind": "calendar", "units": "1"}


def test_series_is_the_mean_over_the_outline(finished):
    series, outline = finished.results["grid"]["series"]["s2_b4"], finished.results["grid"]["outline"]
    assert outline["pixels"] == 8
    field = RED[:, :2].astype(float)
    second = field + 1
    second[0, 0] = np.nan
    assert series["days"] == ["2020-06-01", "2020-06-03"]
    assert series["pixels"] == [8, 7]
    assert series["mean"] == pytest.approx([field.mean() * 1e-4, np.nanmean(second) * 1e-4], rel=1e-6)


def test_report_shows_them(finished, tmp_path):
    page = finished.report.read_text(encoding="utf-8")
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) == 2
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    text = re.sub(r"<[^>]+>", " ", page)
    for said in ("2-98 % stretch", "Red s2_b8, green s2_b4, blue ndvi", "37.3 %", "92.5 %", "32632", "field.geojson"):
        assert said in text
    for absent in ("Scores", "Test stations", "Rows removed", "Estimated against"):
        assert absent not in text
    write_report(finished.folder, pictures=tmp_path / "png")
    assert names_in(tmp_path / "png") == {"rgb.png", "daily_means.png"}


def test_report_is_written_again_without_the_data(finished, folder):
    for path in folder.glob("*.tif"):
        path.unlink()
    (folder / "field.geojson").unlink()
    before = finished.report.read_bytes()
    write_report(finished.folder)
    assert finished.report.read_bytes() == before


def test_without_a_report_block_a_map_a_variable(recipe, folder, tmp_path):
    recipe.pop("report")
    found = smgeo.run(recipe, out=folder / "run", data=folder)
    assert not (found.folder / "outline.geojson").exists()
    write_report(found.folder, pictures=tmp_path / "png")
    assert names_in(tmp_path / "png") == {"last_days.png"}


def test_days_without_a_value_are_drawn_and_said(recipe, folder):
    recipe["period"] = ["2020-06-04", "2020-06-05"]  # one scene, all cloud
    found = smgeo.run(recipe, out=folder / "run", data=folder)
    assert found.results["grid"]["rgb"]["dates"] == []
    assert found.results["grid"]["series"]["s2_b4"]["mean"] == []
    assert found.results["grid"]["variables"]["s2_b4"]["days"] == 0
    assert "No day has a pixel" in found.report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"period": ["2020-07-01", "2020-07-02"]}, "no source has an observation between 2020-07-01 and 2020-07-02"),
        (
            {"grid": {"crs": "EPSG:32632", "resolution": 10, "bounds": [600_000, 5_000_000, 600_050, 5_000_040]}},
            r"none of the 3 scenes touches the grid .*s_2020-06-01\.tif",
        ),
    ],
    ids=["period", "grid"],
)
def test_a_cube_that_would_be_empty_is_refused(recipe, folder, change, message):
    del recipe["report"]
    with pytest.raises(SmgeoError, match=message):
        smgeo.run({**recipe, **change}, out=folder / "run", data=folder)
    assert not (folder / "run" / "grid.zarr").exists()


def test_values_in_another_unit_are_refused(recipe, folder):
    del recipe["rasters"][0]["scale"]
    with pytest.raises(
        SmgeoError,
        match=r"100 % of a sample of s2_b4 is outside 0 to 1.5 1 \(median 1\d\d\d\).*scale: \{s2_b4: 0\.0001\}",
    ):
        smgeo.run(recipe, out=folder / "run", data=folder)
    assert not (folder / "run" / "grid.zarr").exists()


def test_second_run_skips_every_stage(finished, recipe, folder):
    results = (finished.folder / "results.json").read_bytes()
    assert rerun(recipe, folder) == set()
    assert (finished.folder / "results.json").read_bytes() == results
    assert read_recipe(finished.folder / "recipe.yaml") == parse_recipe(recipe)
    assert rerun(finished.folder / "recipe.yaml", folder) == set()


def test_another_picture_builds_no_cube_again(finished, recipe, folder):
    recipe["report"]["dates"] = ["2020-06-03"]
    assert rerun(recipe, folder) == {"grid shown", "report"}
    assert smgeo.run(recipe, out=folder / "run", data=folder).results["grid"]["rgb"]["dates"] == ["2020-06-03"]


def test_another_outline_changes_the_means_alone(finished, recipe, folder):
    path = folder / "field.geojson"
    path.write_text(path.read_text().replace("500020", "500010"))
    assert rerun(recipe, folder) == {"grid shown", "report"}
    results = json.loads((folder / "run" / "results.json").read_text())
    assert results["grid"]["series"]["s2_b4"]["pixels"] == [4, 3]
    assert "field.geojson" in json.loads((folder / "run" / "provenance.json").read_text())["inputs"]


def test_another_scene_builds_the_cube_again(finished, recipe, folder):
    write(folder / f"s_{DAYS[2]}.tif", RED, RED + 500, FLAGS[DAYS[0]])
    assert rerun(recipe, folder) == {"grid", "grid contents", "grid shown", "report"}
    assert smgeo.run(recipe, out=folder / "run", data=folder).results["grid"]["variables"]["ndvi"]["days"] == 3


def test_lost_cube_is_made_again(finished, recipe, folder):
    before = smgeo.open_cube(finished.folder / "grid.zarr").load()
    chunks = [p for p in (finished.folder / "grid.zarr" / "s2_b4" / "c").rglob("*") if p.is_file()]
    assert chunks
    for path in chunks:
        path.unlink()
    assert "grid" in rerun(recipe, folder)
    assert smgeo.open_cube(finished.folder / "grid.zarr").load().equals(before)


def test_bad_input_is_refused_before_anything_is_written(recipe, folder):
    recipe["report"]["outline"] = "none.gpkg"
    with pytest.raises(SmgeoError, match=r"none.gpkg not found"):
        smgeo.run(recipe, out=folder / "run", data=folder)
    recipe["report"].pop("outline")
    recipe["rasters"][0]["path"] = "t_*.tif"
    with pytest.raises(SmgeoError, match="no raster matches"):
        smgeo.run(recipe, out=folder / "run", data=folder)
    assert not (folder / "run").exists()


def test_command_line_prints_the_cube(recipe, folder):
    (folder / "cube.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "smgeo", "run", "cube.yaml", "--out", "run"]
    environment = {**os.environ, "SMGEO_DATA": str(folder)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "RMSE" not in done.stdout
    assert re.search(r"s2_b4.*2020-06-01.*2020-06-03.*92\.5 %.*37\.3 %", done.stdout)


# ---- stations without models


def make_station_recipe(folder: Path) -> dict:
    """Three stations of five days, at the middle of pixels of the lowest row."""
    rows = [f"s{i},2020-06-0{d},5000{i}5,5000005,0.{d}{i}" for i in range(3) for d in range(1, 6)]
    (folder / "t.csv").write_text("id,day,e,n,vw\n" + "\n".join(rows) + "\n")
    columns = {"station": "id", "time": "day", "x": "e", "y": "n", "sm": "vw"}
    return {
        "name": "stations",
        "stations": [{"kind": "csv", "path": "t.csv", "crs": "EPSG:32632", "columns": columns}],
        "features": ["doy_sin"],
        "prepare": {"outliers": {"z": 1.4}},
    }


def test_station_cube_without_models(tmp_path):
    found = smgeo.run(make_station_recipe(tmp_path), out=tmp_path / "run", data=tmp_path)
    files = {"recipe.yaml", "provenance.json", "stations.zarr", "results.json", "report.html", "tables"}
    assert names_in(found.folder) == files
    assert {p.stem for p in (found.folder / "tables").iterdir()} == {"index", "rows"}
    assert found.results["models"] == {}
    assert "split" not in found.results
    assert found.results["stations"] == ["TABLE/s0", "TABLE/s1", "TABLE/s2"]
    steps = {r["step"]: (r["rows"], r["removed"]) for r in found.results["rows"]}
    assert steps["station cube: days with a target"] == (15, 0)
    # Values are 0.1 to 0.5 plus 0.00, 0.01 or 0.02: mean 0.31, standard deviation 0.1417, so beyond 0.1983 lie 0.10 and 0.11,
    # and 0.51 and 0.52.
    assert steps["outliers of all stations (z-score)"] == (11, 4)
    cube = smgeo.open_cube(found.folder / "stations.zarr")
    assert float(cube["sm"].sel(station="TABLE/s1", time="2020-06-02")) == pytest.approx(0.21)
    text = found.report.read_text(encoding="utf-8")
    assert "Rows removed" in text
    assert "3 stations with the target" in text
    assert "Scores" not in text
    again = smgeo.run(make_station_recipe(tmp_path), out=tmp_path / "run", data=tmp_path)
    assert again.results == found.results


def test_stations_and_grid_without_models_give_both_cubes(recipe, folder):
    stations = make_station_recipe(folder)
    found = smgeo.run({**recipe, "stations": stations["stations"]}, out=folder / "run", data=folder)
    at = smgeo.open_cube(found.folder / "stations.zarr").load()
    grid = smgeo.open_cube(found.folder / "grid.zarr").load()
    np.testing.assert_array_equal(at["s2_b4"].sel(station="TABLE/s2").values, grid["s2_b4"].values[:, 3, 2])
    assert float(at["s2_b4"].sel(station="TABLE/s2", time="2020-06-03")) == pytest.approx((RED[3, 2] + 1) * 1e-4)
    assert found.results["grid"]["series"]["s2_b4"]["pixels"] == [8, 7]
    assert found.report.read_text(encoding="utf-8").count("data:image/png;base64,") == 3
