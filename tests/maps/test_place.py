"""Where maps are written and what is beside them: no cube, no other map and no file of others is lost or mixed up."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pystac
import pytest
import rasterio
import rioxarray  # noqa: F401  (gives `.rio`)
import xarray as xr
import zarr

import smgeo
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.files import only_writer
from smgeo.maps import evaluate_map, open_map
from smgeo.prepare import Split, derive_features, prepare_cube
from smgeo.recipe.preparation import PrepareSpec
from smgeo.report import draw_map

FEATURES = ["s1_vv", "precipitation", "clay"]
STATIONS = [f"N/s{i}" for i in range(24)]
DAYS = ["2020-01-05", "2020-01-14"]


@pytest.fixture(scope="module")
def cube(make_station_cube):
    return make_station_cube(stations=24, days=20)


@pytest.fixture(scope="module")
def grid(make_grid_cube):
    return make_grid_cube(days=20, height=6, width=7, seed=1, gaps=0.3)


def _fit(cube, train=STATIONS[:8], features=FEATURES, validation=None):
    spec = PrepareSpec.model_validate({"fill": {"limit": 2}, "outliers": None, "scale": "minmax"})
    prepared = prepare_cube(derive_features(cube, features), spec, features, "sm", train)
    held = None if validation is None else prepared.windows(validation, 1, 0.0)
    return smgeo.make_model("rf", trees=5, threads=1).fit(prepared.windows(train, 1, 0.0), validation=held)


@pytest.fixture(scope="module")
def model(cube):
    return _fit(cube)


def test_the_cube_and_other_stores_are_not_written_over(model, grid, tmp_path):
    path = write_cube(grid, tmp_path / "grid.zarr")
    other = write_cube(grid, tmp_path / "other.zarr")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(SmgeoError, match="is the cube to map"):
        smgeo.predict_map(model, open_cube(path), path, DAYS)
    with pytest.raises(SmgeoError, match="is a Zarr store but not a map"):
        smgeo.predict_map(model, open_cube(path), other, DAYS)
    with pytest.raises(SmgeoError, match="not a folder of maps"):
        model.save(tmp_path / "rf")
        smgeo.predict_map(model, open_cube(path), tmp_path / "rf", DAYS)
    with pytest.raises(SmgeoError, match="is a file; give a folder"):
        smgeo.predict_map(model, open_cube(path), tmp_path / "sm.tif", DAYS)
    assert {p: p.read_bytes() for p in before} == before


def test_copies_of_the_users_own_are_kept(model, grid, tmp_path):
    path = smgeo.predict_map(model, grid, tmp_path / "m.zarr", DAYS)
    mine = tmp_path / "m.zarr.old" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    smgeo.predict_map(model, grid, path, DAYS)
    assert mine.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.zarr", "m.zarr.old"]


def test_two_writers_of_the_same_map_are_told(model, grid, tmp_path):
    with only_writer(tmp_path / "m.zarr"), pytest.raises(SmgeoError, match="another process is writing"):
        smgeo.predict_map(model, grid, tmp_path / "m.zarr", DAYS)
    smgeo.predict_map(model, grid, tmp_path / "m.zarr", DAYS)  # the lock is gone
    # A lock that a killed process left keeps nobody out.
    (tmp_path / ".m.zarr.lock").touch()
    smgeo.predict_map(model, grid, tmp_path / "m.zarr", DAYS)


SCRIPT = """
import sys, time
import smgeo
from smgeo.maps import block
work = block.estimate
block.estimate = lambda *a: (time.sleep(0.2), work(*a))[1]
model, grid, out, *days = sys.argv[1:]
smgeo.predict_map(smgeo.load_model(model), smgeo.open_cube(grid), out, days)
"""


def test_days_of_one_map_may_be_made_at_the_same_time(model, make_grid_cube, tmp_path):
    grid = write_cube(make_grid_cube(days=20, height=140, width=140, gaps=0.3), tmp_path / "grid.zarr")
    path = model.save(tmp_path / "rf")
    days = (["2020-01-03", "2020-01-04"], ["2020-01-10", "2020-01-11"])
    command = [sys.executable, "-c", SCRIPT, str(path), str(grid), str(tmp_path / "maps")]
    started = [subprocess.Popen([*command, *d]) for d in days]
    assert [p.wait(120) for p in started] == [0, 0]
    whole = open_cube(
        smgeo.predict_map(smgeo.load_model(path), open_cube(grid), tmp_path / "w.zarr", [*days[0], *days[1]])
    )
    got = open_map(tmp_path / "maps")
    np.testing.assert_array_equal(got["sm"].values, whole["sm"].values)
    assert not list((tmp_path / "maps").glob(".map*"))


def test_a_folder_holds_one_map(model, cube, grid, tmp_path):
    folder = smgeo.predict_map(model, grid, tmp_path / "maps", DAYS[:1])
    smgeo.predict_map(model, grid, folder, DAYS[1:])  # more days of the same map
    assert open_map(folder).sizes["time"] == 2
    other = _fit(cube, STATIONS[16:])
    before = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(SmgeoError, match="another model, place or level"):
        smgeo.predict_map(other, grid, folder, DAYS[1:])
    with pytest.raises(SmgeoError, match="another model, place or level"):
        smgeo.predict_map(model, grid, folder, DAYS[1:], region=(500_100, 4_999_500, 500_600, 4_999_900))
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    # All days anew.
    smgeo.predict_map(other, grid, folder, DAYS)
    assert json.loads(open_map(folder).attrs["smgeo_training_stations"]) == STATIONS[16:]
    # Put there by hand.
    last = smgeo.predict_map(model, grid, tmp_path / "others", DAYS[1:])
    (last / f"sm_{DAYS[1]}.tif").replace(folder / f"sm_{DAYS[1]}.tif")
    with pytest.raises(SmgeoError, match="days of 2 maps"):
        open_map(folder)


def test_files_of_others_and_damaged_ones(model, grid, tmp_path):
    folder = smgeo.predict_map(model, grid, tmp_path / "maps", DAYS)
    good = (folder / f"sm_{DAYS[0]}.tif").read_bytes()
    with rasterio.open(
        folder / "dem_2020-01-01.tif", "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8"
    ) as dst:
        dst.write(np.ones((1, 2, 2), "uint8"))
    smgeo.predict_map(model, grid, folder, DAYS)
    assert open_map(folder).sizes["time"] == 2
    assert len(list(pystac.Collection.from_file(str(folder / "collection.json")).get_items())) == 2
    # Cut files are made again; of other days they are named before any work.
    for kept in (len(good) - 300, 40):
        (folder / f"sm_{DAYS[0]}.tif").write_bytes(good[:kept])
        with (
            pytest.raises(SmgeoError, match=r"sm_2020-01-05.tif has the name of a map")
            if kept == 40
            else pytest.MonkeyPatch.context()
        ):
            smgeo.predict_map(model, grid, folder, DAYS[1:])
        smgeo.predict_map(model, grid, folder, DAYS)
        assert (folder / f"sm_{DAYS[0]}.tif").read_bytes() == good


def test_a_cube_that_changed_in_its_place_is_mapped_anew(model, grid, tmp_path):
    path = write_cube(grid, tmp_path / "grid.zarr")
    before = open_cube(smgeo.predict_map(model, open_cube(path), tmp_path / "m.zarr", DAYS)).load()
    array = zarr.open_array(str(path / "clay"), mode="r+")
    array[:] = array[:] + 20
    after = open_cube(smgeo.predict_map(model, open_cube(path), tmp_path / "m.zarr", DAYS)).load()
    fresh = open_cube(smgeo.predict_map(model, open_cube(path).load(), tmp_path / "f.zarr", DAYS)).load()
    assert not np.array_equal(before["sm"], after["sm"], equal_nan=True)
    np.testing.assert_array_equal(after["sm"], fresh["sm"])


@pytest.mark.parametrize(
    "encoding", [{"_FillValue": np.float32(-9999)}, {"scale_factor": np.float32(0.01), "dtype": "float32"}]
)
def test_stores_of_others_are_decoded(model, make_grid_cube, tmp_path, encoding):
    """Numbers that stand for missing values, and packed ones, though they are float32 as what they mean."""
    grid = make_grid_cube(days=20, height=6, width=7, gaps=0.8)
    grid.drop_encoding().to_zarr(
        tmp_path / "g.zarr", zarr_format=3, consolidated=False, encoding=dict.fromkeys(grid.data_vars, encoding)
    )
    got = open_cube(smgeo.predict_map(model, open_cube(tmp_path / "g.zarr"), tmp_path / "a.zarr", DAYS)).load()
    held = xr.open_zarr(tmp_path / "g.zarr", consolidated=False, decode_coords="all").load()
    expected = open_cube(smgeo.predict_map(model, held, tmp_path / "b.zarr", DAYS)).load()
    assert np.isnan(expected["sm"]).any()
    np.testing.assert_array_equal(got["sm"], expected["sm"])


def test_a_grid_from_south_to_north_is_the_same_map(model, grid, cube, tmp_path):
    up = grid.sortby("y")
    maps = {
        name: open_map(smgeo.predict_map(model, g, tmp_path / f"{name}.zarr", DAYS)).load()
        for name, g in (("down", grid), ("up", up))
    }
    np.testing.assert_array_equal(maps["up"]["sm"].sortby("y", ascending=False), maps["down"]["sm"])
    pictures = [draw_map(m, DAYS[0]).axes[0].images[0] for m in maps.values()]
    np.testing.assert_array_equal(pictures[0].get_array(), pictures[1].get_array())
    assert pictures[0].get_extent() == pictures[1].get_extent()
    # Compared with each other they do not differ.
    difference = draw_map(maps["up"], DAYS[0], against=maps["down"]).axes[1].images[0].get_array()
    assert np.nanmax(np.abs(difference)) == 0
    with pytest.raises(SmgeoError, match="another grid"):
        draw_map(maps["up"], DAYS[0], against=maps["down"].assign_coords(x=maps["down"]["x"] + 10_000))
    with pytest.raises(SmgeoError, match="has no 2020-01-05"):
        draw_map(maps["up"], DAYS[0], against=maps["down"].isel(time=[1]))
    folder = smgeo.predict_map(model, up, tmp_path / "maps", DAYS)
    with rasterio.open(folder / f"sm_{DAYS[0]}.tif") as src:
        assert src.transform.e == -100
        np.testing.assert_array_equal(src.read(1), maps["down"]["sm"][0])
    item = json.loads((folder / f"sm_{DAYS[0]}.json").read_text())
    left, bottom, right, top = item["properties"]["proj:bbox"]
    assert left < right
    assert bottom < top


def test_grids_that_are_none(model, grid, tmp_path):
    for bad in (grid.isel(x=[0, 1, 3, 6]), grid.drop_vars("y"), grid.isel(y=[0, 1, 3])):
        with pytest.raises(SmgeoError, match="centres of pixels of one size"):
            smgeo.predict_map(model, bad, tmp_path / "m.zarr", DAYS)


def test_a_region_says_its_own_place(model, grid, tmp_path):
    path = smgeo.predict_map(model, grid, tmp_path / "m.zarr", DAYS, region=(500_200, 4_999_600, 500_500, 4_999_900))
    attrs = xr.open_zarr(path, consolidated=False, decode_coords="all")["spatial_ref"].attrs
    assert list(map(float, attrs["GeoTransform"].split())) == [500_200, 100, 0, 4_999_900, 0, -100]


def test_days_are_days(model, grid, tmp_path):
    noon = grid.assign_coords(time=grid["time"] + np.timedelta64(12, "h"))
    got = open_map(smgeo.predict_map(model, noon, tmp_path / "n.zarr", ["2020-01-05"]))
    expected = open_map(smgeo.predict_map(model, grid, tmp_path / "m.zarr", ["2020-01-05T00:00Z"]))
    np.testing.assert_array_equal(got["sm"].values, expected["sm"].values)
    with pytest.raises(SmgeoError, match="a day is a date from 1900 to 2200, such as 2020-01-31; got 20200105"):
        smgeo.predict_map(model, grid, tmp_path / "m.zarr", [20200105])
    with pytest.raises(SmgeoError, match=r"load_model\('rf'\)"):
        smgeo.predict_map("rf", grid, tmp_path / "m.zarr", DAYS)


def test_a_model_of_the_calendar_alone(cube, grid, tmp_path):
    both = [
        ds.assign(doy_sin=("time", np.sin(np.arange(20) / 9).astype("float32"), {"units": "1", "kind": "calendar"}))
        for ds in (cube, grid)
    ]
    made = open_map(smgeo.predict_map(_fit(both[0], features=["doy_sin"]), both[1], tmp_path / "m.zarr", DAYS))
    assert made["sm"].shape == (2, 6, 7)
    assert float((made["sm"].max(("y", "x")) - made["sm"].min(("y", "x"))).max()) == 0
    assert made.rio.crs.to_epsg() == 32632


def test_maps_of_nothing_and_of_the_impossible_are_warned_of(model, grid, tmp_path):
    with pytest.warns(SmgeoWarning, match="no pixel of the map has a value"):
        smgeo.predict_map(model, grid.assign(clay=grid["clay"] * np.nan), tmp_path / "m.zarr", DAYS)
    wet = smgeo.make_model("rf", trees=2, threads=1)
    rng = np.random.default_rng(0)
    wet.fit(rng.random((50, 3)).astype("float32"), np.full(50, 30.0, "float32"))
    wet.preparation_ = model.preparation_
    with pytest.warns(SmgeoWarning, match=r"100.000% of the map's values of sm are outside 0 to 1"):
        path = smgeo.predict_map(wet, grid, tmp_path / "w.zarr", DAYS)
    assert open_map(path)["sm"].attrs["impossible_share"] == 1


def test_stations_of_validation_are_not_unseen(cube, grid, tmp_path):
    from pyproj import Transformer

    lon, lat = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform(
        500_050 + 100 * (np.arange(24) % 7), 4_999_950 - 100 * (np.arange(24) % 6)
    )
    moved = cube.assign_coords(latitude=("station", lat), longitude=("station", lon))
    model = _fit(cube, validation=STATIONS[8:11])
    found = evaluate_map(smgeo.predict_map(model, grid, tmp_path / "m.zarr"), moved)
    assert found["left_out"] == {"trained on": 8, "validated on": 3, "at a place of these": 0, "outside the map": 0}
    assert found["scores"]["stations"] == 13
    # Intervals are learned at stations too.
    smgeo.calibrate(model, cube, Split(tuple(STATIONS[:8]), tuple(STATIONS[8:20]), tuple(STATIONS[20:])))
    found = evaluate_map(smgeo.predict_map(model, grid, tmp_path / "c.zarr", intervals=0.8), moved)
    assert found["left_out"]["validated on"] == 12
    assert found["scores"]["stations"] == 4
