"""Files and folders appear complete or not at all."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import os
import re
import shutil
import subprocess
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio

import smgeo
from smgeo.errors import SmgeoError
from smgeo.files import folder_beside, load_json, read_json, write_json, written_beside
from smgeo.sources.gridded.csv_grids import csv_header
from smgeo.sources.stations.archive import Archive


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_takes_its_place_when_it_is_complete(tmp_path, shared):
    path = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with written_beside(path, shared=shared) as part:
            assert part.name == (f"a.txt.{os.getpid()}.part" if shared else "a.txt.part")
            part.write_text(text)
            assert path.exists() == (text == "second")
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_beside(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_takes_its_place_when_it_is_complete(tmp_path):
    path = tmp_path / "model"
    left = tmp_path / "model.part" / "of a killed write"
    left.mkdir(parents=True)
    for text in ("first", "second"):
        with folder_beside(path, "model.json") as part:
            assert list(part.iterdir()) == []
            (part / "model.json").write_text(text)
        assert (path / "model.json").read_text() == text
    with pytest.raises(ZeroDivisionError), folder_beside(path, "model.json"):
        raise ZeroDivisionError
    assert (path / "model.json").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_another_kind_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(SmgeoError, match=r"no model.json in it\); give another path"),
        folder_beside(tmp_path, "model.json"),
    ):
        pytest.fail("the body must not run")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


# ---- small archives that unpack to more than memory holds


@pytest.fixture
def limit(monkeypatch):
    monkeypatch.setattr("smgeo.files.UNPACKED_LIMIT", 2**20)


def _bomb() -> bytes:
    return b"station,time,sm\n" + b"0" * (3 * 2**20)


@pytest.mark.parametrize("form", ["zip", "gz", "bz2", "xz"])
def test_a_packed_table_is_read_up_to_the_limit(form, limit, tmp_path):

    file = tmp_path / f"table.csv.{form}"
    if form == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("table.csv", _bomb())
    else:
        file.write_bytes({"gz": gzip, "bz2": bz2, "xz": lzma}[form].compress(_bomb()))
    assert file.stat().st_size < 2**14
    with pytest.raises(SmgeoError, match="it unpacks to more than 1 MiB; unpack it"):
        smgeo.open_stations(file, kind="csv", columns={"station": "station", "time": "time", "sm": "sm"})


def test_a_member_of_an_archive_of_stations_is_read_up_to_the_limit(limit, tmp_path):

    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.stm", _bomb())
        archive.writestr("small.stm", b"one\ntwo\n")
    with Archive(tmp_path / "a.zip") as archive:
        assert archive.read("small.stm") == b"one\ntwo\n"
        for read in (archive.read, archive.ends):
            with pytest.raises(ValueError, match="more than 1 MiB"):
                read("big.stm")


def test_a_packed_grid_is_read_up_to_the_limit(limit, tmp_path):

    (tmp_path / "grid.csv.gz").write_bytes(gzip.compress(_bomb()[16:]))
    with pytest.raises(SmgeoError, match=r"grid\.csv\.gz cannot be read as a CSV grid"):
        csv_header(tmp_path / "grid.csv.gz")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"is not JSON \(Expecting value"),
        (b'{"a": [1, 2', r"is not JSON \(Expecting"),
        (b"\x93NUMPY\x01\x00\xff", r"is not JSON \("),
        (b"\xff\xfe", r"is not JSON \("),
        (b'{"a": NaN}', r"is not JSON \(NaN is not a number in JSON\)"),
        (b'{"a": -Infinity}', r"is not JSON \(-Infinity is not a number in JSON\)"),
        (b"[" * 100_000, r"is not JSON \(it is nested too deeply\)"),
        (b"[]", r"is damaged \(expected a JSON object, found a list\)"),
        (b"null", r"is damaged \(expected a JSON object, found a NoneType\)"),
        (b"3", r"is damaged \(expected a JSON object, found a int\)"),
    ],
)
def test_damaged_json_is_one_sentence(tmp_path, content, words):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(SmgeoError, match=f"a.json {words}.*; train it again$"):
        load_json(file, "train it again")
    assert read_json(file) == {}
    with pytest.raises(FileNotFoundError):
        load_json(tmp_path / "none.json", "")
    assert read_json(tmp_path / "none.json") == {}


def test_what_json_cannot_hold_is_not_written(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(SmgeoError, match=r"a.json is not written: models.rf.rmse, curve.1 is infinite or not a number"):
        write_json(file, {"models": {"rf": {"rmse": math.nan, "r": None}}, "curve": [0.5, -math.inf]})
    assert read_json(file) == {"a": 1}


def test_json_files_are_read_in_one_place():
    # What others made, and what is no file of smgeo's own.
    others = {"polygons.py", "sources/earthengine/session.py"}
    home = Path(smgeo.__file__).parent
    found = {
        p.relative_to(home).as_posix()
        for p in home.rglob("*.py")
        if re.search(r"json\.loads?\(.*(read_|open\(|file|path)", p.read_text(encoding="utf-8"))
    }
    assert found == others


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only a user who may mount can make a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def _write_text(part):
    part.write_text("x" * 2 * 2**20, encoding="utf-8")


def _write_raster(part):
    profile = {"driver": "GTiff", "width": 1024, "height": 1024, "count": 1, "dtype": "float32"}
    with rasterio.open(part, "w", **profile) as file:
        file.write(np.random.default_rng(0).random((1, 1024, 1024), dtype="float32"))


@pytest.mark.parametrize("write", [_write_text, _write_raster])
def test_a_full_disk_is_a_sentence_and_the_old_file_stays(write, small_disk):
    path = small_disk / "a.tif"
    path.write_text("old", encoding="utf-8")
    with (
        pytest.raises(SmgeoError, match=r"no space left on the disk of .*a\.tif \(\d+ MiB free\): make space and run"),
        written_beside(path) as part,
    ):
        write(part)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(small_disk.iterdir()) == [path]


@contextmanager
def limited_files(size):
    """No file of this process may be larger."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("write", [_write_text, _write_raster])
def test_a_file_above_the_users_limit_is_a_sentence_and_the_old_file_stays(write, tmp_path):
    path = tmp_path / "a.tif"
    path.write_text("old", encoding="utf-8")
    with (
        limited_files(2**20),
        pytest.raises(SmgeoError, match=r"a file of .*a\.tif is larger .*ulimit -f: 1 MiB.*: raise the limit"),
        written_beside(path) as part,
    ):
        write(part)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_world_that_finds_no_space_is_a_sentence(tmp_path):
    with limited_files(2**11), pytest.raises(SmgeoError, match=r"a file of .*world is larger than .*: raise the limit"):
        smgeo.simulate(tmp_path / "world", stations=16, days=30, shape=(16, 16))
