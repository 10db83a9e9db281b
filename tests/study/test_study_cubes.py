"""What a run builds again: after damage, for later days, for other scenes; at stations too."""

from __future__ import annotations

import io
import json

import dask
import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import from_origin
from typer.testing import CliRunner

import smgeo
from smgeo.cli import app
from smgeo.cube.ledger import find_damage
from smgeo.cube.reading import open_cube
from smgeo.cube.regions import shard_file
from smgeo.errors import SmgeoError
from smgeo.sources.scenes import layers
from smgeo.study.progress import Reporter

DAYS = pd.date_range("2020-01-01", "2020-04-29")  # four regions of 30 days
TRANSFORM = from_origin(500000, 5600000, 100, 100)


def write_scene(folder, day, value):
    path = folder / f"p_{day:%Y%m%d}.tif"
    profile = {"driver": "GTiff", "height": 4, "width": 4, "count": 1, "dtype": "float32", "crs": "EPSG:32632"}
    with rasterio.open(path, "w", **profile, transform=TRANSFORM) as dst:
        dst.write(value + np.arange(16, dtype="float32").reshape(4, 4), 1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A scene every tenth day, and two stations, 9.000 E 50.55 N at its middle."""
    data = tmp_path / "data"
    data.mkdir()
    for i, day in enumerate(DAYS[::10]):
        write_scene(data, day, 100.0 * i)
    rows = [f"{s},{day:%Y-%m-%d},0.2,{lon},50.5501" for s, lon in (("a", 9.0011), ("b", 9.0038)) for day in DAYS]
    (data / "sm.csv").write_text("\n".join(["station,day,sm,lon,lat", *rows]))
    return tmp_path


@pytest.fixture
def read(monkeypatch):
    """Names of the files that blocks of a run are read from; the sample that shows a source's unit is read at each opening."""
    names: list[str] = []
    plain = layers.read_layers

    def counted(scene, header, *args):
        names.append(header.href.rsplit("_")[-1].removesuffix(".tif"))
        return plain(scene, header, *args)

    monkeypatch.setattr("smgeo.sources.scenes.blocks.read_layers", counted)
    return names


RASTERS = [{"kind": "geotiff", "path": "p_*.tif", "dates": "p_%Y%m%d.tif", "bands": {"precipitation": 1}}]
GRID = {
    "name": "grid",
    "period": [str(DAYS[0].date()), str(DAYS[-1].date())],
    "rasters": RASTERS,
    "grid": {"like": "p_20200101.tif"},
    "features": ["precipitation", "precipitation_3d"],
}
STATIONS = {
    "name": "stations",
    "period": GRID["period"],
    "stations": [
        {"kind": "csv", "path": "sm.csv", "columns": {"station": "station", "time": "day", "sm": "sm", "longitude": "lon", "latitude": "lat"}}
    ],
    "rasters": RASTERS,
    "features": ["precipitation", "precipitation_3d"],
}  # fmt: skip


def run(recipe, folder, name="run"):
    with dask.config.set(scheduler="synchronous"):
        return smgeo.run(recipe, out=folder / name, data=folder / "data", reporter=Reporter(quiet=True)).folder


def bytes_of(store):
    return {f.relative_to(store): f.read_bytes() for f in store.rglob("c/*") if f.is_file()}


@pytest.mark.parametrize("recipe", [GRID, STATIONS], ids=["grid", "stations"])
def test_later_days_are_added_to_a_cube(folder, read, recipe):
    short = {**recipe, "period": [recipe["period"][0], str(DAYS[59].date())]}
    run(short, folder)
    assert sorted(set(read)) == [f"{d:%Y%m%d}" for d in DAYS[:60:10]]
    read.clear()
    out = run(recipe, folder)
    # On a grid the sums over three days look back into the region before.
    assert sorted(set(read)) == [f"{d:%Y%m%d}" for d in DAYS[30 if recipe is GRID else 60 :: 10]]
    # The same as a build at once.
    whole = run(recipe, folder, "whole")
    store = "grid.zarr" if recipe is GRID else "stations.zarr"
    assert open_cube(out / store).identical(open_cube(whole / store))
    assert bytes_of(out / store) == bytes_of(whole / store)


def test_a_new_scene_is_read_with_its_region_and_the_one_before_alone(folder, read):
    run(GRID, folder)
    read.clear()
    write_scene(folder / "data", DAYS[115], 7.0)
    out = run(GRID, folder)
    assert sorted(set(read)) == [f"{DAYS[i]:%Y%m%d}" for i in (60, 70, 80, 90, 100, 110, 115)]
    assert open_cube(out / "grid.zarr")["precipitation"].values[115, 0, 0] == 7


def test_a_flipped_byte_is_named_and_its_region_rebuilt_alone(folder, read):
    out = run(GRID, folder)
    before = bytes_of(out / "grid.zarr")
    shard = out / "grid.zarr" / shard_file("precipitation", (2, 0, 0))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    told = CliRunner().invoke(app, ["info", "--verify", str(out)])
    assert isinstance(told.exception, SmgeoError)
    assert "time.y.x/2.0.0: precipitation/c/2/0/0" in told.stdout
    shard.unlink()
    read.clear()
    run(GRID, folder)
    # The region's days, and the last two before them for its sums over three days.
    assert set(read) <= {f"{d:%Y%m%d}" for d in DAYS[30:90:10]}
    assert {"20200301", "20200311", "20200321"} & set(read)
    assert bytes_of(out / "grid.zarr") == before
    assert find_damage(out / "grid.zarr") == {}


def test_a_lost_chunk_is_built_again_by_the_same_command(folder, read):
    out = run(GRID, folder)
    before = bytes_of(out / "grid.zarr")
    lost = out / "grid.zarr" / shard_file("precipitation", (3, 0, 0))
    lost.unlink()
    with pytest.raises(SmgeoError, match=r"precipitation/c/3/0/0 \(precipitation, 2020-03-31 to 2020-04-29, .*missing"):
        open_cube(out / "grid.zarr")
    read.clear()
    run(GRID, folder)
    assert set(read) <= {f"{d:%Y%m%d}" for d in DAYS[60:120:10]}
    assert bytes_of(out / "grid.zarr") == before


@pytest.mark.parametrize("recipe", [GRID, STATIONS], ids=["grid", "stations"])
def test_a_run_that_verifies_finds_a_flipped_byte_and_builds_its_region_again(folder, capsys, recipe):
    out = run(recipe, folder)
    store = out / ("grid.zarr" if recipe is GRID else "stations.zarr")
    before = bytes_of(store)
    shard = store / shard_file("precipitation", (2, 0, 0) if recipe is GRID else (0, 0))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    smgeo.run({**recipe, "verify": True}, out=out, data=folder / "data", reporter=Reporter())
    first, last = ("2020-03-01", "2020-03-30") if recipe is GRID else ("2020-01-01", "2020-04-29")
    said = " ".join(capsys.readouterr().err.split())
    assert "is damaged; it is made again" in said
    assert f"{first} to {last}" in said
    assert bytes_of(store) == before
    assert find_damage(store) == {}


def test_what_a_source_gives_at_the_stations_is_not_read_again(folder, read):
    out = run(STATIONS, folder)
    assert len(read) > 10
    values = open_cube(out / "stations.zarr")["precipitation"]
    assert (
        values.sel(time=DAYS[10]).values.tolist()
        == open_cube(out / "parts" / "0-geotiff.zarr")["precipitation"].sel(time=DAYS[10]).values.tolist()
    )
    read.clear()
    run({**STATIONS, "features": ["precipitation"]}, folder)
    assert read == []


def write_catalogue(folder):
    """A static STAC catalogue of one item, whose file is the only one of the folder's scenes named e.tif."""
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "e", "collection": "dem", "links": [],
        "properties": {"datetime": "2020-01-01T00:00:00Z"}, "bbox": [8.9, 50.4, 9.1, 50.6],
        "geometry": {"type": "Polygon", "coordinates": [[[8.9, 50.4], [9.1, 50.4], [9.1, 50.6], [8.9, 50.6], [8.9, 50.4]]]},
        "assets": {"data": {"href": "./e.tif", "type": "image/tiff; application=geotiff"}},
    }  # fmt: skip
    extent = {"spatial": {"bbox": [[8.9, 50.4, 9.1, 50.6]]}, "temporal": {"interval": [["2020-01-01T00:00:00Z", None]]}}
    common = {"stac_version": "1.0.0", "description": "x"}
    collection = {**common, "type": "Collection", "id": "dem", "license": "other", "extent": extent}
    root = {**common, "type": "Catalog", "id": "root", "links": [{"rel": "child", "href": "./collection.json"}]}
    (folder / "item.json").write_text(json.dumps(item))
    (folder / "collection.json").write_text(
        json.dumps({**collection, "links": [{"rel": "item", "href": "./item.json"}]})
    )
    (folder / "catalog.json").write_text(json.dumps(root))


def test_a_remote_source_that_changed_is_not_mixed_with_what_it_was(folder):
    """A lost shard has the stage run again; of a catalogue no file is hashed, so that its key is the same."""
    data = folder / "data"
    write_catalogue(data)
    write_scene(data, DAYS[0], 500.0)
    (data / "p_20200101.tif").rename(data / "e.tif")
    write_scene(data, DAYS[0], 0.0)
    stac = {"kind": "stac", "url": "catalog.json", "collections": ["dem"], "bands": {"elevation": "data"}}
    recipe = {**STATIONS, "rasters": [*RASTERS, stac], "features": ["precipitation", "elevation"]}
    out = run(recipe, folder)
    before = open_cube(out / "stations.zarr")["elevation"].values
    write_scene(data, DAYS[0], 700.0)
    (data / "p_20200101.tif").rename(data / "e.tif")
    write_scene(data, DAYS[0], 0.0)
    (out / "stations.zarr" / shard_file("precipitation", (0, 0))).unlink()
    run(recipe, folder)
    assert open_cube(out / "stations.zarr")["elevation"].values.tolist() == (before + 200).tolist()


def test_values_made_missing_are_counted_in_cube_report_and_log(folder):
    write_scene(folder / "data", DAYS[10], np.inf)  # both stations, and 16 pixels
    write_scene(folder / "data", DAYS[20], -8.0)  # 8 of the 16 pixels are below 0
    recipe = {**STATIONS, "grid": GRID["grid"], "features": ["precipitation"]}
    log = io.StringIO()
    with dask.config.set(scheduler="synchronous"):
        found = smgeo.run(recipe, out=folder / "run", data=folder / "data", reporter=Reporter(log))
    grid = found.results["grid"]["variables"]["precipitation"]
    assert grid["dropped"] == {"infinite": 16, "outside the valid range": 8}
    # 12 scenes of 16 pixels; 24 are missing.
    assert grid["valid_share"] == pytest.approx((12 * 16 - 24) / (11 * 16), abs=1e-6)
    assert (grid["minimum"], grid["maximum"]) == (0, 1115)
    said = "precipitation: values made missing: infinite 16, outside the valid range 8"
    assert f"warning: grid.zarr: {said}" in log.getvalue()
    stations = found.results["features"]["precipitation"]
    values = open_cube(folder / "run" / "stations.zarr")["precipitation"].values
    assert stations["dropped"]["infinite"] >= 2
    assert stations["valid_share"] == pytest.approx(np.isfinite(values).mean(), abs=1e-6)
    assert "warning: stations.zarr: precipitation: values made missing: infinite" in log.getvalue()
    assert said.replace("precipitation: values made missing: ", "") in (folder / "run" / "report.html").read_text()
    told = CliRunner().invoke(app, ["info", str(folder / "run" / "stations.zarr")], terminal_width=200)
    assert "infinite" in told.stdout
