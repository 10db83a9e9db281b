"""GeoTIFFs on a disk that becomes full at any point, also in the last blocks, which GDAL writes without an error when it closes a file."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import smgeo
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError
from smgeo.maps.cog import write_cogs


@contextmanager
def small_disk(folder, kib):
    """A file system of so many KiB."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only a user who may mount can make a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A map of two days, 300 x 300 pixels of noise that no codec makes smaller."""
    folder = tmp_path_factory.mktemp("map")
    grid = GeoBox((300, 300), Affine(100, 0, 500_000, 0, -100, 5_000_000), "EPSG:32632")
    values = np.random.default_rng(0).random((2, 300, 300), dtype="float32")
    values[0, :3] = np.nan
    coords = {"time": pd.date_range("2020-01-01", periods=2), **xr_coords(grid, dims=("y", "x"))}
    about = {"units": "m3 m-3", "grid_mapping": "spatial_ref"}
    ds = xr.Dataset({"sm": (("time", "y", "x"), values, about)}, coords, {"smgeo_model": "m"})
    return write_cube(ds, folder / "m.zarr", token="a")


def test_no_damaged_geotiff_is_left_whenever_the_disk_becomes_full(store, tmp_path):
    whole = {p.name: p.read_bytes() for p in write_cogs(store, tmp_path / "whole").iterdir()}
    assert len(whole) == 2
    needs = sum(map(len, whole.values())) // 1024
    outcomes = []
    for kib in range(needs // 8, 5 * needs, needs // 6):
        with small_disk(tmp_path / "disk", kib) as disk:
            try:
                write_cogs(store, disk / "maps")
            except SmgeoError as error:
                assert "make space and run the same command again" in str(error)
                outcomes.append("refused")
            else:
                outcomes.append("written")
                assert len(list((disk / "maps").iterdir())) == 2
            for file in (disk / "maps").glob("*"):
                assert file.read_bytes() == whole[file.name]
    assert outcomes == sorted(outcomes)  # refused up to a size, then written
    assert set(outcomes) == {"refused", "written"}


def test_a_map_larger_than_the_disk_is_refused_before_it_is_made(make_station_cube, make_grid_cube, tmp_path):
    names = ["s1_vv", "temperature"]
    model = smgeo.make_model("rf", trees=2, engine="sklearn").fit(smgeo.Windows(make_station_cube(), names, length=1))
    grid = make_grid_cube(days=30, height=128, width=128)
    with small_disk(tmp_path / "disk", 1_000) as disk:
        with pytest.raises(
            SmgeoError, match=r"a map as 30 uncompressed GeoTIFF\(s\) of 128 x 128 pixels needs about 1.97 MB"
        ):
            smgeo.predict_map(model, grid, disk / "maps")
        assert not list((disk / "maps").glob("*"))
        smgeo.predict_map(model, grid, disk / "maps", ["2020-01-02"])
        assert len(list((disk / "maps").glob("*.tif"))) == 1
