"""A damaged map is an error that names days and place, and the command that made it repairs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ShardingCodec

import smgeo
from smgeo.cube import damage
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError
from smgeo.maps import layout
from smgeo.maps.check import open_map
from smgeo.prepare import Split, prepare_cube
from smgeo.recipe.preparation import PrepareSpec

FEATURES = ["s1_vv", "precipitation", "clay"]


@pytest.fixture(scope="module")
def model(make_station_cube):
    """A forest with an area of applicability."""
    cube = make_station_cube(stations=12, days=20)
    split = Split(tuple(f"N/s{i}" for i in range(10)), ("N/s10",), ("N/s11",))
    spec = PrepareSpec.model_validate({"fill": {"limit": 2}, "outliers": None, "scale": "minmax"})
    prepared = prepare_cube(cube, spec, FEATURES, "sm", split.train)
    made = smgeo.make_model("rf", trees=3, threads=1).fit(prepared.windows(split.train, 1, 0.0))
    smgeo.find_applicability(made, cube, split, dict.fromkeys(FEATURES, 1.0), folds=2)
    return made


@pytest.fixture
def cube(make_grid_cube, tmp_path):
    return write_cube(make_grid_cube(days=6, height=9, width=8), tmp_path / "grid.zarr")


@pytest.fixture
def make(model, cube, tmp_path, monkeypatch):
    """A map of 3 x 2 blocks with flags; the function makes it, or makes it again."""
    monkeypatch.setattr(layout, "MAP_CHUNK", {"time": 6, "y": 4, "x": 4})
    return lambda out="m.zarr", **options: smgeo.predict_map(model, open_cube(cube), tmp_path / out, **options)


def content(path: Path) -> dict[Path, bytes]:
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def flip(file: Path) -> None:
    bits = bytearray(file.read_bytes())
    bits[len(bits) // 2] ^= 1
    file.write_bytes(bits)


def test_all_arrays_of_a_map_and_its_overviews_have_checksums(make, monkeypatch):
    monkeypatch.setattr("smgeo.maps.overviews._LARGEST", 4)
    path = make(overviews=True)
    arrays = [p.parent for p in path.rglob("zarr.json") if '"array"' in p.read_text()]
    assert {p.parent.name for p in arrays} == {"m.zarr", "2", "4"}
    for folder in arrays:
        codecs = zarr.open_array(str(folder), mode="r").metadata.codecs
        inner = codecs[0].codecs if isinstance(codecs[0], ShardingCodec) else codecs
        assert isinstance(inner[-1], Crc32cCodec), folder


@pytest.mark.parametrize("name", ["sm", "applicable"])
def test_a_lost_block_is_found_and_made_again(make, monkeypatch, name):
    path = make()
    before = content(path)
    (path / name / "c/0/1/1").unlink()
    part = f"{name}, 2020-01-01 to 2020-01-06, y 4999550.0 to 4999250.0, x 500450.0 to 500750.0"
    for read in (open_map, open_cube):
        with pytest.raises(
            SmgeoError, match=rf"m.zarr is damaged: {name}/c/0/1/1 \({part}\): missing; run the command"
        ):
            read(path)
    monkeypatch.setattr(damage, "LISTED", 0)
    with pytest.raises(SmgeoError, match=f"m.zarr is damaged: {part}: it is missing; run the command"):
        open_map(path)[name].load()
    make()
    assert content(path) == before


@pytest.mark.parametrize("name", ["sm", "applicable"])
def test_a_flipped_byte_is_no_estimate(make, name):
    path = make()
    before = content(path)
    file = path / name / "c/0/2/0"
    flip(file)
    part = f"{name}, 2020-01-01 to 2020-01-06, y 4999150.0 to 4999150.0, x 500050.0 to 500350.0"
    with pytest.raises(
        SmgeoError, match=f"m.zarr is damaged: {part}: the checksum of a chunk does not match; remove {file}"
    ):
        open_map(path)[name].load()
    make()
    assert content(path) == before


def test_a_map_of_a_damaged_cube_is_not_made(make, cube, tmp_path):
    flip(cube / "s1_vv/c/0/0/0")
    with pytest.raises(
        SmgeoError, match="grid.zarr is damaged: s1_vv, 2020-01-01 to 2020-01-06, y .*, x .*: the checksum"
    ):
        make()
    (cube / "s1_vv/c/0/0/0").unlink()
    with pytest.raises(SmgeoError, match="grid.zarr is damaged: s1_vv/c/0/0/0 .*: missing"):
        make()
    assert not (tmp_path / "m.zarr").exists()


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"attributes": 3}'])
def test_a_store_whose_kind_is_unknown_is_not_replaced(make, tmp_path, text):
    path = make()
    (path / "zarr.json").write_text(text)
    with pytest.raises(SmgeoError, match="m.zarr"):
        make()
    assert (path / "zarr.json").read_text() == text
    (path / "zarr.json").unlink()
    with pytest.raises(SmgeoError, match=r"no zarr.json in it\); give another path, or remove it"):
        make()
    with pytest.raises(SmgeoError, match="m.zarr is damaged: zarr.json: missing"):
        open_map(path)


def test_a_lost_geotiff_is_found_and_made_again(make):
    folder = make("maps")
    before = content(folder)
    lost = folder / "sm_2020-01-03.tif"
    lost.unlink()
    with pytest.raises(SmgeoError, match=r"maps lacks 1 of its maps \(sm_2020-01-03.tif\).*make the map again"):
        open_map(folder)
    make("maps")
    assert content(folder) == before
    lost.write_bytes(before[Path(lost.name)][:-200])
    with pytest.raises(SmgeoError, match="sm_2020-01-03.tif"):
        open_map(folder)["sm"].load()
    make("maps")
    np.testing.assert_array_equal(open_map(folder)["sm"].values, open_map(make("other"))["sm"].values)
