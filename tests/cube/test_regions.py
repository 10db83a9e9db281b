"""Writing region by region: what is planned, what is kept, what is found damaged, what is written again."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smgeo.cube.executor import jobs_of
from smgeo.cube.ledger import Records, find_damage, read_ledger
from smgeo.cube.reading import open_cube
from smgeo.cube.regions import plan_regions, shard_file
from smgeo.cube.store import StorePlan, regions_of
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError
from smgeo.files import exchange_folders, replace_folder


def values_of(days: int, y: int = 300, x: int = 40) -> np.ndarray:
    """Every value different: day * 100,000 + row * 100 + column."""
    t, r, c = np.meshgrid(np.arange(days), np.arange(y), np.arange(x), indexing="ij")
    return (t * 1e5 + r * 100 + c).astype("float32")


def grid_cube(days: int, log: Path | None = None, start: str = "2020-01-01", first: int = 0) -> xr.Dataset:
    """A lazy cube in two shards along y, and one along time for each 30 days; each computed block leaves a line."""
    values = values_of(first + days)[first:]

    def block(block_info: dict | None = None) -> np.ndarray:
        where = block_info[None]["array-location"]
        if log is not None:
            with log.open("a") as handle:
                handle.write(f"{where}\n")
        return values[tuple(slice(*w) for w in where)]

    chunks = (tuple(min(30, days - i) for i in range(0, days, 30)), (256, 44), (40,))
    lazy = da.map_blocks(block, chunks=chunks, dtype="float32", meta=np.empty((0, 0, 0), "float32"))
    times = pd.date_range(start, periods=days, name="time")
    return xr.Dataset(
        {"s1_vv": (("time", "y", "x"), lazy), "sand": (("y", "x"), values_of(1)[0])},
        {"time": times, "y": np.arange(300.0), "x": np.arange(40.0)},
    )


def files_of(store: Path) -> dict[str, bytes]:
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def test_regions_cover_every_cell_once() -> None:
    seen = np.zeros((5, 7), dtype=int)
    regions = plan_regions({"a": ("y", "x"), "b": ("y", "x")}, {"a": (5, 7), "b": (5, 7)}, {"a": (2, 3), "b": (2, 3)})
    for region in regions:
        assert region.variables == ("a", "b")
        seen[region.slices] += 1
    assert (seen == 1).all()
    assert [r.name for r in regions[:4]] == ["y.x/0.0", "y.x/0.1", "y.x/1.0", "y.x/1.1"]  # in squares


def test_the_ledger_names_every_shard_with_its_checksum(tmp_path: Path) -> None:
    store = write_cube(grid_cube(45), tmp_path / "c.zarr")
    records = read_ledger(store)
    assert records is not None
    assert set(records.regions) == {"y.x/0.0", "y.x/1.0", *(f"time.y.x/{t}.{y}.0" for t in (0, 1) for y in (0, 1))}
    on_disk = {f for f in files_of(store) if "/c/" in f and f.split("/")[0] in ("s1_vv", "sand")}
    assert {f for files in records.regions.values() for f in files} == on_disk
    assert {"zarr.json", "s1_vv/zarr.json", "time/c/0"} <= set(records.metadata)
    assert find_damage(store) == {}


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "cluster"])
def test_every_scheduler_writes_the_same_bytes(tmp_path: Path, scheduler: str) -> None:
    with dask.config.set(scheduler="synchronous"):
        truth = files_of(write_cube(grid_cube(65), tmp_path / "truth.zarr", token="t"))
    if scheduler == "cluster":
        from distributed import Client

        with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
            store = write_cube(grid_cube(65), tmp_path / "c.zarr", token="t")
    else:
        with dask.config.set(scheduler=scheduler):
            store = write_cube(grid_cube(65), tmp_path / "c.zarr", token="t")
    assert files_of(store) == truth  # the ledger too, whatever the order in which regions were finished
    np.testing.assert_array_equal(open_cube(store)["s1_vv"].values, values_of(65))


def test_an_interrupted_write_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def stop_at_three(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(KeyboardInterrupt):
            write_cube(grid_cube(65, log), tmp_path / "c.zarr", token="t", progress=stop_at_three)
        assert not (tmp_path / "c.zarr").exists()
        before = len(log.read_text().splitlines())
        steps: list[tuple[int, int]] = []
        write_cube(grid_cube(65, log), tmp_path / "c.zarr", token="t", progress=lambda a, b: steps.append((a, b)))
    assert before + len(log.read_text().splitlines()[before:]) == 6  # blocks: 3 in time x 2 in y, none twice
    assert steps[0] == (8 - len(steps) + 1, 8)
    np.testing.assert_array_equal(open_cube(tmp_path / "c.zarr")["s1_vv"].values, values_of(65))


def test_what_an_interrupted_write_of_other_data_left_is_not_used(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(KeyboardInterrupt):
            write_cube(grid_cube(65) + 1, tmp_path / "c.zarr", token="other", progress=stop)
        write_cube(grid_cube(65), tmp_path / "c.zarr", token="t")
    np.testing.assert_array_equal(open_cube(tmp_path / "c.zarr")["s1_vv"].values, values_of(65))


def interrupted(ds: xr.Dataset, path: Path, regions: int = 3, token: str = "t", **options: bool) -> Path:
    """What is left of a write that stops after so many regions."""

    def stop(done: int, total: int) -> None:
        if done >= regions:
            raise KeyboardInterrupt

    with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
        write_cube(ds, path, token=token, progress=stop, **options)
    return path.with_name(path.name + ".part")


@pytest.mark.parametrize("file", ["sand/c/0/0", "s1_vv/c/0/0/0", "time/c/0", "s1_vv/zarr.json"])
@pytest.mark.parametrize("harm", ["remove", "flip"])
def test_what_was_lost_of_an_interrupted_write_is_written_again(tmp_path: Path, file: str, harm: str) -> None:
    part = interrupted(grid_cube(65), tmp_path / "c.zarr")
    content = bytearray((part / file).read_bytes())
    content[len(content) // 2] ^= 1
    (part / file).unlink()
    if harm == "flip":
        (part / file).write_bytes(content)
    store = write_cube(grid_cube(65), tmp_path / "c.zarr", token="t")
    assert open_cube(store).identical(open_cube(write_cube(grid_cube(65), tmp_path / "truth.zarr", token="t")))
    np.testing.assert_array_equal(open_cube(store)["s1_vv"].values, values_of(65))
    assert find_damage(store) == {}


def test_a_spoilt_line_of_the_ledger_costs_its_region_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    part = interrupted(grid_cube(65), tmp_path / "c.zarr", regions=5)
    (lines,) = (part / "smgeo_ledger").glob("*.jsonl")
    whole = lines.read_bytes().splitlines(keepends=True)
    lines.write_bytes(b"".join(whole[:3]) + whole[3][:-9] + b"\xff\0\n" + whole[4])
    with dask.config.set(scheduler="synchronous"):
        write_cube(grid_cube(65, log), tmp_path / "c.zarr", token="t")
    # Two static ones and three of six in time were done; one of them is lost.
    assert len(log.read_text().splitlines()) == 4
    assert find_damage(tmp_path / "c.zarr") == {}


def test_lines_of_what_is_written_again_do_not_outlive_it(tmp_path: Path) -> None:
    part = interrupted(grid_cube(65) + 1, tmp_path / "c.zarr", token="other")
    (lines,) = (part / "smgeo_ledger").glob("*.jsonl")
    lines.rename(lines.with_name("zzz.jsonl"))  # read after those of the next writer
    write_cube(grid_cube(65), tmp_path / "c.zarr", token="t")
    assert find_damage(tmp_path / "c.zarr") == {}


def test_leavings_of_a_killed_writer_are_not_in_the_store(tmp_path: Path) -> None:
    part = interrupted(grid_cube(65), tmp_path / "c.zarr")
    (part / "s1_vv/c/0/0/0.4711.part").write_bytes(b"half a shard")
    store = write_cube(grid_cube(65), tmp_path / "c.zarr", token="t")
    truth = write_cube(grid_cube(65), tmp_path / "truth.zarr", token="t")
    assert set(files_of(store)) == set(files_of(truth))


def test_small_variables_of_an_interrupted_write_of_other_data_are_not_used(tmp_path: Path) -> None:
    def cube(yes: bool, text: str, number: float) -> xr.Dataset:
        return grid_cube(65).assign(
            flag=(("y", "x"), np.full((300, 40), yes)),
            text=("y", np.array([text] * 300, dtype=object)),
            number=((), np.float32(number)),
        )

    interrupted(cube(False, "old", 1), tmp_path / "c.zarr")
    new = open_cube(write_cube(cube(True, "new", 2), tmp_path / "c.zarr", token="t"))
    assert (new["flag"].values.all(), set(new["text"].values.tolist()), float(new["number"])) == (True, {"new"}, 2)


@pytest.mark.parametrize("harm", ["data type", "metadata"])
def test_shards_that_the_new_store_could_not_read_are_not_kept(tmp_path: Path, harm: str) -> None:
    store = write_cube(grid_cube(45), tmp_path / "c.zarr", token="t")
    if harm == "metadata":
        (store / "s1_vv" / "zarr.json").write_text("{")
    ds = grid_cube(45).astype("float64") if harm == "data type" else grid_cube(45)
    write_cube(ds, store, token="t")
    np.testing.assert_array_equal(open_cube(store)["s1_vv"].values, values_of(45))
    assert find_damage(store) == {}


@pytest.mark.parametrize("harm", ["flip", "remove", "cut"])
def test_a_damaged_region_is_named_and_rebuilt_alone(tmp_path: Path, harm: str) -> None:
    log = tmp_path / "log"
    store = write_cube(grid_cube(45, log), tmp_path / "c.zarr", token="t")
    truth = files_of(store)
    shard = store / shard_file("s1_vv", (1, 0, 0))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "remove":
        shard.unlink()
    else:
        shard.write_bytes(bytes(content if harm == "flip" else content[:-100]))
    assert find_damage(store) == {"time.y.x/1.0.0": ["s1_vv/c/1/0/0"]}
    log.write_text("")
    write_cube(grid_cube(45, log), store, token="t")
    assert log.read_text().splitlines() == ["[(30, 45), (0, 256), (0, 40)]"]
    assert {f: b for f, b in files_of(store).items() if "/c/" in f} == {f: b for f, b in truth.items() if "/c/" in f}
    assert find_damage(store) == {}


def test_damaged_metadata_is_named(tmp_path: Path) -> None:
    store = write_cube(grid_cube(45), tmp_path / "c.zarr")
    (store / "time" / "c" / "0").write_bytes(b"\0")
    assert find_damage(store) == {"metadata": ["time/c/0"]}


@pytest.mark.parametrize("whole", [True, False])
def test_later_days_are_appended_and_full_regions_stay(tmp_path: Path, whole: bool) -> None:
    log = tmp_path / "log"
    store = write_cube(grid_cube(45, log), tmp_path / "c.zarr")
    inode = (store / "s1_vv/c/0/0/0").stat().st_ino
    log.write_text("")
    later = grid_cube(70, log) if whole else grid_cube(25, log, "2020-02-15", first=45)
    write_cube(later, store, append=True)
    cube = open_cube(store)
    np.testing.assert_array_equal(cube["s1_vv"].values, values_of(70))
    np.testing.assert_array_equal(cube["sand"].values, values_of(1)[0])
    assert cube.indexes["time"].equals(pd.date_range("2020-01-01", periods=70, name="time"))
    assert (store / "s1_vv/c/0/0/0").stat().st_ino == inode
    if whole:
        assert "(0, 30)" not in log.read_text()
    assert find_damage(store) == {}


def test_days_that_do_not_follow_are_refused(tmp_path: Path) -> None:
    store = write_cube(grid_cube(45), tmp_path / "c.zarr")
    with pytest.raises(SmgeoError, match="ends on 2020-02-14, the new days begin on 2020-03-01"):
        write_cube(grid_cube(5, start="2020-03-01"), store, append=True)
    with pytest.raises(SmgeoError, match="contains s1_vv, sand, but the new days contain s1_vv"):
        write_cube(grid_cube(70).drop_vars("sand"), store, append=True)


@pytest.mark.parametrize("days", [70, 25])
def test_days_that_are_not_of_the_cube_are_refused(tmp_path: Path, days: int) -> None:
    def in_units(ds: xr.Dataset, units: str) -> xr.Dataset:
        return ds.assign(s1_vv=ds["s1_vv"].assign_attrs(units=units))

    later = grid_cube(70) if days == 70 else grid_cube(25, start="2020-02-15", first=45)
    store = write_cube(in_units(grid_cube(45), "dB"), tmp_path / "c.zarr")
    with pytest.raises(SmgeoError, match="new days do not match: s1_vv is in '1', needed in 'dB'"):
        write_cube(in_units(later, "1"), store, append=True)
    with pytest.raises(SmgeoError, match="y of the new days differs from that"):
        write_cube(in_units(later, "dB").isel(y=slice(9)), store, append=True)
    with pytest.raises(SmgeoError, match="y of the new days differs from that"):
        write_cube(in_units(later, "dB").drop_vars("y"), store, append=True)
    with pytest.raises(
        SmgeoError, match="time must be daily without gaps; 2020-02-19 00:00:00 is followed by 2020-02-21"
    ):
        write_cube(in_units(later, "dB").isel(time=np.r_[0 : days - 20, days - 19 : days]), store, append=True)
    with pytest.raises(SmgeoError, match="c.zarr: the cube to write is empty along time"):
        write_cube(grid_cube(45).isel(time=slice(0, 0)), store)


def test_an_append_keeps_nothing_of_an_interrupted_write_of_other_data(tmp_path: Path) -> None:
    store = write_cube(grid_cube(60), tmp_path / "c.zarr")
    interrupted(grid_cube(90) + 1, store, regions=6)
    write_cube(grid_cube(90), store, append=True)
    np.testing.assert_array_equal(open_cube(store)["s1_vv"].values, values_of(90))


def test_an_interrupted_append_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    store = write_cube(grid_cube(60), tmp_path / "c.zarr")
    # Two regions that do not vary in time and four of the old days are kept; four of the new days are to come.
    part = interrupted(grid_cube(120, log), store, regions=7, token="new", append=True)
    records = read_ledger(part)
    assert records is not None
    written = len(log.read_text().splitlines())
    assert len(records.regions) == 6 + written > 6
    with dask.config.set(scheduler="synchronous"):
        write_cube(grid_cube(120, log), store, append=True, token="new")
    assert len(log.read_text().splitlines()) == 4
    np.testing.assert_array_equal(open_cube(store)["s1_vv"].values, values_of(120))


def test_later_days_alone_are_not_appended_to_a_damaged_cube(tmp_path: Path) -> None:
    store = write_cube(grid_cube(45), tmp_path / "c.zarr")
    (store / shard_file("s1_vv", (1, 0, 0))).unlink()
    with pytest.raises(SmgeoError, match=r"is damaged \(time.y.x/1.0.0\).*append all days"):
        write_cube(grid_cube(25, start="2020-02-15", first=45), store, append=True)
    write_cube(grid_cube(70), store, append=True)
    np.testing.assert_array_equal(open_cube(store)["s1_vv"].values, values_of(70))


def test_a_reader_finds_a_store_at_every_moment(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir(), b.mkdir()
    if not exchange_folders(a, b):
        pytest.skip("this file system can't exchange two folders in one step")
    path, part, marker = tmp_path / "c.zarr", tmp_path / "c.zarr.part", tmp_path / "c.zarr" / "zarr.json"
    path.mkdir()
    marker.touch()
    found, over = [], threading.Event()

    def watch() -> None:
        while not over.is_set():
            found.append(marker.is_file())

    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(watch)
        for _ in range(2000):
            part.mkdir()
            (part / "zarr.json").touch()
            replace_folder(part, path, "zarr.json")
        over.set()
        watching.result()
    assert len(found) > 100
    assert all(found)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c.zarr"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 5 MB; only root can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_the_write_goes_on_after(tmp_path: Path, small_disk: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(65, 300, 40)).astype("float32")  # 3 MB that no codec makes smaller
    cube = grid_cube(65).assign(s1_vv=(("time", "y", "x"), da.from_array(noise, chunks=(30, 256, 40))))
    cube = cube.assign(s1_vh=cube["s1_vv"] + 1)
    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(
            SmgeoError, match="no space left on the disk.*regions are written and kept; make space and run the same"
        ):
            write_cube(cube, small_disk / "c.zarr", token="t")
        assert not (small_disk / "c.zarr").exists()
        kept = read_ledger(small_disk / "c.zarr.part")
        assert kept is not None
        assert kept.regions
        subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
        steps: list[int] = []
        write_cube(cube, small_disk / "c.zarr", token="t", progress=lambda done, total: steps.append(done))
    assert steps[0] == len(kept.regions)
    np.testing.assert_array_equal(open_cube(small_disk / "c.zarr")["s1_vh"].values, noise + 1)
    assert find_damage(small_disk / "c.zarr") == {}


def test_a_disk_that_is_full_at_the_start_is_said(small_disk: Path) -> None:
    with pytest.raises(OSError), (small_disk / "other").open("wb", buffering=0) as other:
        while True:
            other.write(bytes(4096))
    with pytest.raises(SmgeoError, match=r"no space left on the disk of .*c.zarr \(0 MiB free\): make space"):
        write_cube(grid_cube(65), small_disk / "c.zarr", token="t")
    (small_disk / "other").unlink()
    store = write_cube(grid_cube(65), small_disk / "c.zarr", token="t")
    np.testing.assert_array_equal(open_cube(store)["s1_vv"].values, values_of(65))


def test_what_variables_share_is_computed_once(tmp_path: Path) -> None:
    log: list[int] = []

    def read(block_info: object = None) -> np.ndarray:
        log.append(1)
        return np.ones((2, 4, 8, 8), dtype="float32")

    both = da.map_blocks(read, chunks=((2,), (4,), (8,), (8,)), dtype="float32", meta=np.empty((0,) * 4, "float32"))
    dims = ("time", "y", "x")
    ds = xr.Dataset(
        {"a": (dims, both[0] * 2), "b": (dims, both[1] + 1)},
        {"time": pd.date_range("2020-01-01", periods=4), "y": np.arange(8.0), "x": np.arange(8.0)},
    )
    write_cube(ds, tmp_path / "c.zarr", token="t")
    assert log == [1]
    assert float(open_cube(tmp_path / "c.zarr")["a"].sum()) == 2 * 4 * 64


def test_graphs_of_several_layers_are_computed_on_workers(tmp_path: Path) -> None:
    from distributed import Client

    both = da.ones((2, 45, 8, 8), chunks=(2, 30, 8, 8), dtype="float32")
    dims = ("time", "y", "x")
    ds = xr.Dataset(
        {"a": (dims, both[0] * 2), "b": (dims, both[1] + 1)},
        {"time": pd.date_range("2020-01-01", periods=45), "y": np.arange(8.0), "x": np.arange(8.0)},
    )
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        write_cube(ds, tmp_path / "c.zarr", token="t")
    cube = open_cube(tmp_path / "c.zarr")
    assert float(cube["a"].sum()) == 2 * 45 * 64
    assert float(cube["b"].sum()) == 2 * 45 * 64


def test_regions_go_to_the_workers_that_reach_the_internet(tmp_path: Path) -> None:
    from distributed import Client, Nanny, Scheduler, SpecCluster

    log = tmp_path / "log"
    options = {"nthreads": 1, "dashboard_address": None}
    workers = {
        "inside": {"cls": Nanny, "options": options},
        "outside": {"cls": Nanny, "options": {**options, "resources": {"internet": 1}}},
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": None, "port": 0}}
    with SpecCluster(workers, scheduler) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        write_cube(grid_cube(95, log), tmp_path / "c.zarr", token="t")
        where = client.run(lambda dask_worker: (dask_worker.name, len(dask_worker.state.log)))
        ledger = read_ledger(tmp_path / "c.zarr")
    assert ledger is not None
    assert len(ledger.regions) == 10
    ran = dict(where.values())
    assert ran["inside"] == 0
    assert ran["outside"] > 0


def die(block: np.ndarray) -> np.ndarray:
    """Take the worker with it, as the system does where memory is out."""
    if block.max() >= 3:
        os._exit(9)
    return block


def test_a_region_that_ends_every_worker_is_named(tmp_path: Path) -> None:
    from distributed import Client

    values = da.from_array(np.arange(4, dtype="float32").reshape(4, 1), chunks=1)
    dead = values.map_blocks(die, meta=np.empty((0, 0), "float32"))
    coords = {"station": [f"N/{i}" for i in range(4)], "time": pd.date_range("2020-01-01", periods=1)}
    ds = xr.Dataset({"a": (("station", "time"), dead, {"units": "1"})}, coords)
    told = r"2 workers died one after the other at region station.time/3.0 \(a; positions station 3 to 3, time 0 to 0\)"
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        Client(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50),
        pytest.raises(SmgeoError, match=told),
    ):
        write_cube(ds, tmp_path / "a.zarr", chunks={"station": 1, "time": 1})


@pytest.fixture
def plan() -> StorePlan:
    """A store of four regions, made from "0" to "3", whose summaries are wanted."""
    template = xr.Dataset({"a": (("y", "x"), np.zeros((4, 4)))})
    regions = regions_of(template, {"a": {"chunks": (1, 4)}}, ["a"])
    inputs = {r.name: str(i) for i, r in enumerate(regions)}
    return StorePlan(template, {"a": {"chunks": (1, 4)}}, regions, inputs, jobs_of({"a": np.zeros((4, 4))}), dict)


A, B, C, D = (f"y.x/{i}.0" for i in range(4))


def records(**inputs: str) -> Records:
    """Regions A to D as they are in a ledger, made from `inputs`, each with a summary."""
    names = {"a": A, "b": B, "c": C, "d": D}
    made = {names[k]: v for k, v in inputs.items()}
    return Records("", {n: {f"{n}.file": f"sum {v}"} for n, v in made.items()}, made, {}, {n: {} for n in made})


def test_regions_of_a_finished_store_stay_if_they_are_made_from_the_same(plan: StorePlan) -> None:
    finished = records(a="0", b="another", c="2")
    assert plan.find_kept(finished) == {A, C}
    # Those of an append stay whatever their digests are, if they are there at all.
    assert plan.find_kept(finished, {A, B, D}) == {A, B, C}
    del finished.summaries[A]
    assert plan.find_kept(finished) == {C}
    assert replace(plan, summarise=None).find_kept(finished) == {A, C}


def test_regions_are_to_do_that_neither_write_has_finished(plan: StorePlan) -> None:
    def todo(begun: Records, finished: Records, kept: set[str]) -> list[str]:
        return [r.name for r in plan.find_todo(begun, finished, kept)]

    assert todo(Records(), Records(), set()) == [A, B, C, D]
    assert todo(records(a="0", c="2"), Records(), set()) == [B, D]
    # Begun from other data: to do, unless it was adopted from the finished store.
    begun = records(a="old", b="old", c="2")
    assert todo(begun, Records(), set()) == [A, B, D]
    assert todo(begun, records(a="old", b="newer"), {A, B}) == [B, D]
    del begun.summaries[C]
    assert todo(begun, records(a="old"), {A}) == [B, C, D]
    # Only what is in the unfinished store is done.
    assert todo(Records(), records(a="0"), {A}) == [A, B, C, D]
