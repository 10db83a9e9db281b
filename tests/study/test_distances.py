"""Distances, groups and buffer in the results of a small run of stations whose places are known by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

import smgeo

DEGREE_KM = 111.195
# Stations on a meridian, 0.1 degrees apart; pairs of them are in one pixel of 0.2 degrees.
STATIONS, STEP = 10, 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    days = [f"2020-01-{d:02d}" for d in range(1, 11)]
    names = [f"s{i}" for i in range(STATIONS)]
    rows = [",".join(["day", *names])]
    rows += [",".join([d, *(f"0.{(k + i) % 9 + 1}" for i in range(STATIONS))]) for k, d in enumerate(days)]
    (folder / "wide.csv").write_text("\n".join(rows) + "\n")
    places = [f"{n},0.{i}5,0.05" for i, n in enumerate(names)]
    (folder / "places.csv").write_text("\n".join(["station,latitude,longitude", *places]) + "\n")
    profile = {"driver": "GTiff", "height": 5, "width": 5, "count": 1, "dtype": "float32", "crs": "EPSG:4326"}
    with rasterio.open(
        folder / "clay.tif", "w", transform=rasterio.transform.from_origin(0, 1, 0.2, 0.2), **profile
    ) as dst:
        dst.write(np.arange(10, 35, dtype="float32").reshape(5, 5), 1)
    return folder


def run(folder, name, **groups):
    table = {"kind": "csv", "path": "wide.csv", "layout": "wide", "stations": "places.csv", "columns": {"time": "day"}}
    recipe = {
        "name": name,
        "stations": [table],
        "rasters": [{"kind": "geotiff", "path": "clay.tif", "bands": {"clay": 1}}],
        "grid": {"like": "clay.tif"},
        "features": ["clay", "doy_sin"],
        "prepare": {
            "fill": None,
            "split": {"fractions": [0.6, 0.2, 0.2], "extremes_to_train": False},
            "window": {"length": 1},
        },
        "models": {"HistGradientBoostingRegressor": {"max_iter": 5}},
        "maps": {"dates": ["2020-01-05"]},
        **({"groups": groups} if groups else {}),
    }
    return smgeo.run(recipe, out=folder / name, data=folder)


@pytest.fixture(scope="module")
def plain(folder):
    return run(folder, "plain")


def numbers_of(part):
    return np.array([int(s.removeprefix("TABLE/s")) for s in part])


def test_results_have_the_distances_of_the_split(plain):
    results = json.loads((plain.folder / "results.json").read_text())
    parts = {p: numbers_of(results["split"][p]) for p in ("train", "validation", "test")}
    for part in ("validation", "test"):
        steps = np.abs(parts[part][:, None] - parts["train"]).min(axis=1)
        km = STEP * DEGREE_KM * steps
        found = results["distances"][part]
        assert [found["km_min"], found["km_median"], found["km_max"]] == pytest.approx(
            [km.min(), np.median(km), km.max()], rel=1e-4
        )
        assert found["within_1_km"] == 0
        of_pixel = set(parts["train"] // 2)
        assert found["shared_pixels"] == {"clay": sum(n // 2 in of_pixel for n in parts[part])}
    pixels = [(0.2 * r + 0.1, 0.2 * c + 0.1) for r in range(5) for c in range(5)]
    km = [min(DEGREE_KM * np.hypot(lat - (STEP * n + 0.05), lon - 0.05) for n in parts["train"]) for lat, lon in pixels]
    found = results["distances"]["map"]
    assert found == pytest.approx({"pixels": 25, "km_median": np.median(km), "km_max": max(km)}, rel=1e-3)
    assert "map is farther" in results["distances"]["warning"]


def test_results_say_what_is_held_out_together(plain):
    split = plain.results["split"]
    assert split["groups"] == {"by": "place", "same_place_m": 30.0, "buffer_km": 0.0, "number": STATIONS}
    assert split["in_buffer"] == []
    page = (plain.folder / "report.html").read_text(encoding="utf-8")
    assert "Held out together: stations of a place, no farther apart than 30 m (10 groups)." in page
    assert "Distance to the nearest training station" in page
    assert plain.results["distances"]["warning"] in page
    assert (plain.folder / "tables" / "distances.csv").is_file()


def test_another_run_of_the_same_does_nothing_again(plain, folder):
    def stamps():
        files = [*(plain.folder / ".stages").glob("*.json"), plain.folder / "stations.zarr" / "zarr.json"]
        return {f.name: f.stat().st_mtime_ns for f in files if f.name != "hashes.json"}

    before = stamps()
    again = run(folder, "plain")
    assert stamps() == before
    assert again.results == plain.results


def test_a_buffer_is_counted_and_said(folder):
    found = run(folder, "buffer", buffer_km=12.0)
    split, rows = found.results["split"], {r["step"]: r for r in found.results["rows"]}
    assert split["groups"] == {"by": "place", "same_place_m": 30.0, "buffer_km": 12.0, "number": STATIONS}
    held = np.concatenate([numbers_of(split[p]) for p in ("validation", "test")])
    near = {i for i in range(STATIONS) if i not in held and np.abs(held - i).min() == 1}
    assert set(numbers_of(split["in_buffer"])) == near
    assert near
    assert rows["stations without any target left out"]["stations"] == STATIONS
    buffered = rows["stations in the buffer around held-out stations"]
    assert buffered["stations"] == STATIONS - len(near)
    assert (buffered["rows"], buffered["removed"]) == (10 * (STATIONS - len(near)), 10 * len(near))
    assert found.results["distances"]["test"]["shared_pixels"] == {"clay": 0}
    assert found.results["distances"]["test"]["km_min"] > 12
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert f"{len(near)} stations are in no part, because they are nearer than 12 km to a held-out station." in page
