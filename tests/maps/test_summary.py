"""Summaries of maps are those of their values, whether blocks are new or kept; and a finished map is read once for all that comes after."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
import xarray as xr

import smgeo
from smgeo.cube import reading
from smgeo.cube.ledger import LEDGER
from smgeo.cube.reading import open_cube
from smgeo.cube.shards import read_region
from smgeo.errors import SmgeoError
from smgeo.maps import MapOptions, Thinned, layout, open_map, predict_map_files, read_summary
from smgeo.polygons import write_geojson
from smgeo.prepare import Split, prepare_cube
from smgeo.recipe.preparation import PrepareSpec
from smgeo.report import write_slider

FEATURES = ["s1_vv", "precipitation", "clay"]
SPLIT = Split(
    tuple(f"N/s{i}" for i in range(8)), tuple(f"N/s{i}" for i in range(8, 20)), tuple(f"N/s{i}" for i in range(20, 24))
)


@pytest.fixture(scope="module")
def model(make_station_cube):
    """A forest with intervals and an area of applicability."""
    cube = make_station_cube(stations=24, days=20, gaps=0.1)
    spec = PrepareSpec.model_validate({"fill": {"limit": 2}, "outliers": None, "scale": "minmax"})
    prepared = prepare_cube(cube, spec, FEATURES, "sm", SPLIT.train)
    made = smgeo.make_model("rf", trees=5, threads=1).fit(prepared.windows(SPLIT.train, 1, 0.0))
    smgeo.calibrate(made, cube, SPLIT)
    smgeo.find_applicability(made, cube, SPLIT, dict.fromkeys(FEATURES, 1.0), folds=4)
    return made


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(layout, "MAP_CHUNK", {"time": 4, "y": 4, "x": 4})


@pytest.fixture(scope="module")
def grid(make_grid_cube):
    """A grid cube of 6 blocks; no pixel has a value on the first day, too far from others to be filled, and none of the first block at all."""
    grid = make_grid_cube(days=6, height=7, width=11, seed=1, gaps=0.3).copy(deep=True)
    grid["precipitation"][:5] = np.nan
    grid["clay"][:4, :4] = np.nan
    return grid


def _by_hand(path, pixels):
    ds = open_map(path).load()
    values = ds["sm"].values
    known = np.isfinite(values)
    days = []
    for day in ds["sm"]:
        found = day.values[np.isfinite(day.values)].astype("float64")
        numbers = (found.mean(), found.min(), found.max()) if found.size else (None,) * 3
        days.append({"share": found.size / pixels, **dict(zip(("mean", "min", "max"), numbers, strict=True))})
    inside = ds["applicable"].values[np.isfinite(ds["applicable"].values)]
    return {"nodata_share": 1 - known.sum() / (6 * pixels), "share_inside": inside.mean(), "days": days}


def _check(summary, expected):
    assert summary["dates"] == [f"2020-01-0{i}" for i in range(1, 7)]
    for name in ("nodata_share", "share_inside"):
        assert summary[name] == pytest.approx(expected[name], abs=1e-6)
    assert summary["impossible_share"] == 0
    assert [d.pop("date") for d in summary["days"]] == summary["dates"]
    for day, wanted in zip(summary["days"], expected["days"], strict=True):
        assert day == {k: None if v is None else pytest.approx(v, abs=1e-6) for k, v in wanted.items()}
    assert summary["days"][0] == {"share": 0, "mean": None, "min": None, "max": None}


def test_a_summary_is_that_of_the_values(model, grid, tmp_path):
    path = smgeo.predict_map(model, grid, tmp_path / "m.zarr")
    _check(read_summary(path), _by_hand(path, 77))


def test_a_summary_counts_the_pixels_of_the_region(model, grid, tmp_path):
    triangle = shapely.Polygon([(500_000, 4_999_300), (501_130, 4_999_300), (500_000, 5_000_030)])
    write_geojson(triangle, "EPSG:32632", tmp_path / "field.geojson")
    path = smgeo.predict_map(model, grid, tmp_path / "m.zarr", region=tmp_path / "field.geojson")
    made = open_map(path)
    inside = int(shapely.contains_xy(triangle, *np.meshgrid(made["x"], made["y"])).sum())
    assert 0 < inside < made["sm"][0].size
    _check(read_summary(path), _by_hand(path, inside))


def test_blocks_that_are_kept_keep_their_summary(model, grid, tmp_path):
    model = smgeo.load_model(model.save(tmp_path / "rf"))
    path = smgeo.predict_map(model, grid, tmp_path / "m.zarr")
    before = {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    (path / "sm" / "c" / "0" / "1" / "1").unlink()
    steps = []
    smgeo.predict_map(model, grid, path, progress=lambda *p: steps.append(p))
    assert steps == [(5, 6), (6, 6)]
    assert {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    # A store from before there were summaries is made again.
    ledger = path / LEDGER / "zarr.json"
    old = json.loads(ledger.read_text())
    del old["attributes"]["summaries"]
    ledger.write_text(json.dumps(old))
    smgeo.predict_map(model, grid, path, progress=lambda *p: steps.append(p))
    assert steps[2:] == [(i, 6) for i in range(7)]
    assert {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def _content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_one_call_writes_what_two_would(model, grid, tmp_path, monkeypatch):
    model = smgeo.load_model(model.save(tmp_path / "rf"))
    alone = smgeo.predict_map(model, grid, tmp_path / "alone.zarr", intervals=0.8)
    cogs = smgeo.predict_map(model, grid, tmp_path / "alone", intervals=0.8)
    read = 0

    def count(array, slices, folder, was_written):
        nonlocal read
        read += np.prod([s.stop - s.start for s in slices]) if folder.name == "sm" else 0
        return read_region(array, slices, folder, was_written)

    monkeypatch.setattr(reading, "read_region", count)
    thinned = Thinned(days=4, pixels=4)
    summary = predict_map_files(
        model, grid, tmp_path / "m.zarr", tmp_path / "m", options=MapOptions(intervals=0.8), readers=[thinned]
    )
    assert read == 6 * 7 * 11  # each value of the estimate, once
    assert _content(tmp_path / "m.zarr") == _content(alone)
    assert _content(tmp_path / "m") == _content(cogs)
    assert summary == read_summary(alone)
    xr.testing.assert_identical(
        thinned.dataset, open_cube(alone).isel(time=[0, 2, 3, 5], y=[1, 4], x=[1, 4, 7, 10]).load()
    )
    # The files are there, and readers see all of the map nevertheless.
    again = Thinned(days=4, pixels=4)
    predict_map_files(
        model,
        grid,
        tmp_path / "m.zarr",
        tmp_path / "m",
        options=MapOptions(intervals=0.8),
        readers=[again],
        title="Mine",
    )
    xr.testing.assert_identical(again.dataset, thinned.dataset)
    assert json.loads((tmp_path / "m" / "collection.json").read_text())["title"] == "Mine"


@pytest.mark.parametrize("up", [False, True])
def test_a_page_of_thinned_frames_is_that_of_the_map(model, grid, tmp_path, up):
    grid = grid.sortby("y") if up else grid
    thinned = Thinned()
    predict_map_files(model, grid, tmp_path / "m.zarr", tmp_path / "m", readers=[thinned])
    pages = [write_slider(m, tmp_path / "p.html").read_bytes() for m in (tmp_path / "m.zarr", thinned.dataset)]
    assert pages[0] == pages[1]


def test_places_that_do_not_fit_are_refused(model, grid, tmp_path):
    with pytest.raises(SmgeoError, match=r"a map's store ends in .zarr and its folder of GeoTIFFs does not"):
        predict_map_files(model, grid, tmp_path / "m", tmp_path / "m.zarr")
    smgeo.predict_map(model, grid, tmp_path / "m", ["2020-01-05"], intervals=0.8)
    with pytest.raises(SmgeoError, match="another model, place or level"):
        predict_map_files(model, grid, tmp_path / "m.zarr", tmp_path / "m", ["2020-01-06"])
    assert not (tmp_path / "m.zarr").exists()
