"""Any damage of any file of a store is an error that names what repairs it, or changes no value."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smgeo.cube import damage
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError

HARMS = {
    "remove": lambda content, random: None,
    "cut": lambda content, random: content[: random.integers(len(content))],
    "empty": lambda content, random: b"",
    "flip": lambda content, random: _changed(content, random, 1),
    "change": lambda content, random: _changed(content, random, 5),
    "zeros": lambda content, random: bytes(len(content)),
    "longer": lambda content, random: content + random.bytes(9),
    "json": lambda content, random: random.choice([b"null", b"[]", b"{}", b"3"]),
}


def _changed(content: bytes, random: np.random.Generator, times: int) -> bytes:
    out = np.frombuffer(content, dtype="u1").copy()
    out[random.integers(0, len(out), times)] ^= np.uint8(1 << random.integers(8))
    return out.tobytes()


def grid() -> xr.Dataset:
    values = np.random.default_rng(0).random((45, 140, 6)).astype("float32")
    days = pd.date_range("2020-01-01", periods=45)
    text = np.array([f"row {i}" for i in range(140)], dtype=object)
    place = {"time": days, "y": 10.0 * np.arange(140), "x": 10.0 * np.arange(6), "spatial_ref": np.int64(7)}
    return xr.Dataset({"s1_vv": (("time", "y", "x"), values), "name": ("y", text)}, place)


def stations() -> xr.Dataset:
    ids = np.array(["N/a", "N/b", "N/c"], dtype=object)
    values = np.random.default_rng(0).random((3, 20)).astype("float32")
    place = {"station": ids, "time": pd.date_range("2020-01-01", periods=20), "latitude": ("station", [1.0, 2.0, 3.0])}
    return xr.Dataset({"sm": (("station", "time"), values), "clay": ("station", values[:, 0])}, place)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """(cube, store, values as they are read) of both kinds."""
    folder = tmp_path_factory.mktemp("stores")
    made = [(ds, write_cube(ds, folder / f"{i}.zarr", token="t")) for i, ds in enumerate((grid(), stations()))]
    return [(ds, path, open_cube(path).load()) for ds, path in made]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, 1),
    file=st.integers(0, 10**6),
    harm=st.sampled_from(sorted(HARMS)),
    listed=st.booleans(),
    lazy=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_no_damage_is_silent(stores, which, file, harm, listed, lazy, seed):
    ds, store, truth = stores[which]
    files = sorted(p for p in store.rglob("*") if p.is_file())
    target = files[file % len(files)]
    before = target.read_bytes()
    after = HARMS[harm](before, np.random.default_rng(seed))
    target.unlink() if after is None else target.write_bytes(after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(damage, "LISTED", 10_000 if listed else 0)
        try:
            assert open_cube(store, dask=lazy).load().identical(truth)
        except SmgeoError as error:
            _repair(str(error), ds, store)
            assert open_cube(store).load().identical(truth)
        else:
            target.write_bytes(before)


def _repair(message: str, ds: xr.Dataset, store: Path) -> None:
    """Do what the message says."""
    assert "run the command that wrote the store again" in message
    if found := re.search(r"remove (\S+) and run", message):
        path = Path(found[1])
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_cube(ds, store, token="t")
