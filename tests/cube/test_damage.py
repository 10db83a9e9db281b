"""A damaged store is an error that names variable, days, place and what repairs it: never a number, never a fill value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from smgeo.cube import chunks, damage, store
from smgeo.cube.ledger import LEDGER, find_damage
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError, SmgeoWarning

AGAIN = "run the command that wrote the store again, which rebuilds what is damaged and keeps the rest"


def grid(days: int = 45) -> xr.Dataset:
    """Two shards in time, two along y (each of two chunks, or of one), every value another."""
    t, r, c = np.meshgrid(np.arange(days), np.arange(300), np.arange(10), indexing="ij")
    values = (t * 1e5 + r * 100 + c).astype("float32")
    times = pd.date_range("2020-01-01", periods=days, name="time")
    return xr.Dataset(
        {
            "s1_vv": (("time", "y", "x"), da.from_array(values, chunks=(30, 256, 10))),
            "sand": (("y", "x"), values[0]),
            "name": ("y", np.array([f"row {i}" for i in range(300)], dtype=object)),
        },
        {"time": times, "y": 5000.0 - 10 * np.arange(300), "x": 10.0 * np.arange(10), "spatial_ref": np.int64(7)},
    )


def stations() -> xr.Dataset:
    ids = np.array(["N/a", "N/b", "N/c"], dtype=object)
    values = np.arange(30, dtype="float32").reshape(3, 10)
    return xr.Dataset(
        {"sm": (("station", "time"), values)},
        {"station": ids, "time": pd.date_range("2020-01-01", periods=10), "latitude": ("station", [1.0, 2.0, 3.0])},
    )


def flip(file: Path, place: int | None = None) -> None:
    """Change one bit of a file, by default of the byte in its middle; its size stays."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def of(folder: Path, **options: object) -> Path:
    return write_cube(grid(), folder / "c.zarr", token="t", **options)


@pytest.mark.parametrize("name", ["s1_vv", "sand", "time", "y", "name"])
def test_every_array_has_checksums(tmp_path: Path, name: str) -> None:
    metadata = zarr.open_array(str(of(tmp_path) / name), mode="r").metadata
    codecs = metadata.codecs
    inner = codecs[0].codecs if isinstance(codecs[0], ShardingCodec) else codecs
    assert [type(c) for c in inner][-1] is Crc32cCodec


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("s1_vv/c/1/0/0", "s1_vv, 2020-01-31 to 2020-02-14, y 5000.0 to 2450.0, x 0.0 to 90.0"),
        ("sand/c/1/0", "sand, y 2440.0 to 2010.0, x 0.0 to 90.0"),
    ],
)
@pytest.mark.parametrize("harm", [Path.unlink, cut])
def test_a_lost_or_cut_chunk_is_found_on_opening(
    tmp_path: Path, file: str, part: str, harm: Callable[[Path], None]
) -> None:
    path = of(tmp_path)
    size = (path / file).stat().st_size
    harm(path / file)
    what = "missing" if harm is Path.unlink else f"{size // 2} bytes instead of {size}"
    with pytest.raises(SmgeoError) as raised:
        open_cube(path)
    assert str(raised.value) == f"{path} is damaged: {file} ({part}): {what}; {AGAIN}"
    of(tmp_path)  # the advice is true
    np.testing.assert_array_equal(open_cube(path)["s1_vv"].values, grid()["s1_vv"].values)


def test_many_damaged_files_are_counted(tmp_path: Path) -> None:
    path = of(tmp_path)
    for file in path.glob("s1_vv/c/*/*/*"):
        file.unlink()
    with pytest.raises(
        SmgeoError, match="s1_vv/c/0/0/0 .*; s1_vv/c/0/1/0 .*; s1_vv/c/1/0/0 .*: missing and 1 more; run"
    ):
        open_cube(path)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("harm", [Path.unlink, flip])
def test_a_lost_or_changed_chunk_is_found_on_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lazy: bool, harm: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(damage, "LISTED", 0)  # as of a store with too many files to list
    path = of(tmp_path)
    file = path / "s1_vv/c/0/0/0"
    harm(file)
    cube = open_cube(path, dask=lazy)
    whole = grid()["s1_vv"]
    np.testing.assert_array_equal(cube["s1_vv"][30:].values, whole[30:].values)
    with pytest.raises(SmgeoError) as raised:
        cube["s1_vv"][3, :, 4].values  # noqa: B018
    remove = "" if harm is Path.unlink else f"remove {file} and "
    chunk = "5000.0 to 2450.0" if harm is Path.unlink else "3720.0 to 2450.0"  # the inner chunk that the byte is in
    reason = "it is missing" if harm is Path.unlink else "the checksum of a chunk does not match"
    part = f"s1_vv, 2020-01-01 to 2020-01-30, y {chunk}, x 0.0 to 90.0"
    assert str(raised.value) == f"{path} is damaged: {part}: {reason}; {remove}{AGAIN}"
    file.unlink(missing_ok=True)
    of(tmp_path)
    np.testing.assert_array_equal(open_cube(path)["s1_vv"].values, whole.values)


def test_no_flipped_bit_of_a_chunk_becomes_a_number(tmp_path: Path) -> None:
    path = of(tmp_path)
    truth = open_cube(path).load()
    rng = np.random.default_rng(0)
    for name in ("s1_vv/c/1/1/0", "sand/c/0/0", "name/c/0", "time/c/0", "y/c/0", "spatial_ref/c"):
        file = path / name
        before = file.read_bytes()
        for place in {0, len(before) - 1, *map(int, rng.integers(0, len(before), 6))}:
            flip(file, place)
            try:
                found = open_cube(path, dask=False).load()
            except SmgeoError as error:
                assert name.split("/")[0] in str(error)
                assert AGAIN in str(error)
            else:  # a bit that means nothing to the decoder
                assert found.identical(truth), (name, place)
            file.write_bytes(before)


def test_chunks_of_stations_are_named_by_their_ids(tmp_path: Path) -> None:
    path = write_cube(stations(), tmp_path / "s.zarr")
    flip(path / "sm/c/0/0")
    with pytest.raises(SmgeoError, match=r"sm, station N/a to N/c \(3\), 2020-01-01 to 2020-01-10: the checksum"):
        open_cube(path)["sm"].values  # noqa: B018
    write_cube(stations(), path)
    flip(path / "latitude/c/0")
    with pytest.raises(SmgeoError, match=r"latitude, station N/a to N/c \(3\): the checksum"):
        open_cube(path)["latitude"].values  # noqa: B018
    write_cube(stations(), path)
    flip(path / "station/c/0")
    with pytest.raises(
        SmgeoError, match=r"cannot be opened as a Zarr store because of station .*remove .*/station and run"
    ):
        open_cube(path)


def test_two_chunks_exchanged_are_found_by_their_checksums(tmp_path: Path) -> None:
    path = of(tmp_path)
    a, b, c = path / "s1_vv/c/0/0/0", path / "s1_vv/c/1/0/0", tmp_path / "aside"
    a.rename(c), b.rename(a), c.rename(b)
    assert find_damage(path) == {"time.y.x/0.0.0": ["s1_vv/c/0/0/0"], "time.y.x/1.0.0": ["s1_vv/c/1/0/0"]}
    of(tmp_path)
    np.testing.assert_array_equal(open_cube(path)["s1_vv"].values, grid()["s1_vv"].values)


@pytest.mark.parametrize("file", ["zarr.json", "s1_vv/zarr.json", "time/zarr.json"])
@pytest.mark.parametrize("harm", [Path.unlink, cut, flip])
def test_damaged_metadata_is_found_on_opening(tmp_path: Path, file: str, harm: Callable[[Path], None]) -> None:
    path = of(tmp_path)
    harm(path / file)
    with pytest.raises(SmgeoError, match=f"{file}: (missing|changed|[0-9]+ bytes instead of [0-9]+).*; {AGAIN}"):
        open_cube(path)
    of(tmp_path)
    np.testing.assert_array_equal(open_cube(path)["s1_vv"].values, grid()["s1_vv"].values)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"\x80\0", b'{"a": NaN}', b'{"attributes": 1}', b"[" * 99_999]
)
def test_a_damaged_ledger_is_refused_and_written_again(tmp_path: Path, content: bytes) -> None:
    path = of(tmp_path)
    file = path / LEDGER / "zarr.json"
    file.write_bytes(content)
    with pytest.raises(
        SmgeoError, match=r"zarr.json is (damaged|not JSON) \(.*\); run the command that wrote the store again"
    ):
        open_cube(path)
    with pytest.warns(SmgeoWarning, match=r"zarr.json is .*; all of its regions are written again"):
        of(tmp_path)
    assert find_damage(path) == {}
    np.testing.assert_array_equal(open_cube(path)["s1_vv"].values, grid()["s1_vv"].values)


@pytest.mark.parametrize(
    "line", [b"null", b"[]", b'{"region": 1}', b'{"region": "a", "files": 3, "inputs": ""}', b"\xff"]
)
def test_a_line_of_the_ledger_that_is_none_counts_for_nothing(tmp_path: Path, line: bytes) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            (tmp_path / "c.zarr.part" / LEDGER / "zzz.jsonl").write_bytes(line + b"\n")
            raise KeyboardInterrupt

    with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
        of(tmp_path, progress=stop)
    np.testing.assert_array_equal(open_cube(of(tmp_path))["s1_vv"].values, grid()["s1_vv"].values)


def test_chunks_that_are_all_fill_value_are_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = grid()
    ds["s1_vv"] = ds["s1_vv"].where(ds["time"] > ds["time"][29])
    path = write_cube(ds, tmp_path / "c.zarr", token="t")
    assert not (path / "s1_vv/c/0").exists()
    for listed in (10, 0):
        monkeypatch.setattr(damage, "LISTED", listed)
        np.testing.assert_array_equal(open_cube(path)["s1_vv"].values, ds["s1_vv"].values)


def test_stores_without_checksums_are_read_and_checked_for_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (chunks, store):
        monkeypatch.setattr(module, "CODECS", chunks.CODECS[:1])
    path = of(tmp_path)
    monkeypatch.undo()
    (sharding,) = zarr.open_array(str(path / "sand"), mode="r").metadata.codecs
    assert [type(c) for c in sharding.codecs] == [BytesCodec, ZstdCodec]
    np.testing.assert_array_equal(open_cube(path)["s1_vv"].values, grid()["s1_vv"].values)
    # Ledgers of that time had no sizes.
    file = path / LEDGER / "zarr.json"
    file.write_text(file.read_text().replace('"sizes"', '"other"'))
    np.testing.assert_array_equal(open_cube(path)["s1_vv"].values, grid()["s1_vv"].values)
    (path / "s1_vv/c/1/0/0").unlink()
    with pytest.raises(SmgeoError, match="s1_vv/c/1/0/0 .*: missing"):
        open_cube(path)
    # Days are appended to it, and all of it then has checksums.
    of(tmp_path)
    write_cube(grid(70), path, append=True)
    np.testing.assert_array_equal(open_cube(path)["s1_vv"].values, grid(70)["s1_vv"].values)


def test_a_file_that_may_not_be_read_is_no_damage(tmp_path: Path) -> None:
    path = of(tmp_path)
    file = path / "sand/c/0/0"
    content = file.read_bytes()
    cube = open_cube(path, dask=False)
    file.unlink()
    file.mkdir()  # reading a folder is an error of the system for every user
    with pytest.raises(IsADirectoryError):
        cube["sand"].values  # noqa: B018
    file.rmdir()
    file.write_bytes(content)
    np.testing.assert_array_equal(cube["sand"].values, grid()["sand"].values)
