"""Stores: what is written is what is read, whole or not at all."""

import json
import pickle

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (gives `.rio`)
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.cube.chunks import plan_chunks
from smgeo.cube.ledger import read_ledger
from smgeo.cube.reading import open_cube, without_dask
from smgeo.cube.schema import (
    check_daily,
    check_units,
    is_grid,
    kind_of,
    select_stations,
    text_of,
    units_of,
    variables_of_kind,
)
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError


@pytest.mark.parametrize("chunks", [None, {"station": 2, "time": 11}])
def test_station_cube_comes_back(make_station_cube, tmp_path, chunks):
    ds = make_station_cube(gaps=0.3).assign_attrs(title="here", smgeo_steps="[]")
    ds = ds.assign_coords(
        station=np.array(["N/a", "NETWORK_WITH_A_LONG_NAME/Übersee-7", "N/c", "M/d", "M/e", "M/f"], dtype=object),
        network=("station", np.array(["N", "NETWORK_WITH_A_LONG_NAME", "N", "M", "M", "M"], dtype=object)),
    )
    ds["s1_vv"].attrs["revisit_days"] = [6.0, 12.0, 6.0, 5.5, 6.0, 6.0]
    assert write_cube(ds.chunk(chunks) if chunks else ds, tmp_path / "s.zarr") == tmp_path / "s.zarr"
    back = open_cube(tmp_path / "s.zarr")
    assert back.sizes == ds.sizes
    assert back.attrs == ds.attrs
    assert text_of(back["station"]).tolist() == ds["station"].values.tolist()
    assert text_of(back["network"]).tolist() == ds["network"].values.tolist()
    for name in ds.data_vars:
        np.testing.assert_array_equal(back[name], ds[name])
        assert (back[name].dtype, back[name].dims, back[name].attrs) == (ds[name].dtype, ds[name].dims, ds[name].attrs)
        assert back[name].chunks is not None
    np.testing.assert_array_equal(back["latitude"], ds["latitude"])
    assert back.indexes["time"].equals(ds.indexes["time"])
    assert back["sm"].sel(station="NETWORK_WITH_A_LONG_NAME/Übersee-7").shape == (30,)


def test_stations_are_chosen_by_their_ids(make_station_cube):
    ds = make_station_cube()
    xr.testing.assert_identical(select_stations(ds, ("N/s4", "N/s1")), ds.isel(station=[4, 1]))
    numbered = ds.assign_coords(station=[7, 5, 3, 1, 0, 2])
    for ids in (["5", "0"], [5, 0]):
        xr.testing.assert_identical(select_stations(numbered, ids), numbered.isel(station=[1, 4]))
    with pytest.raises(SmgeoError, match="no station 'N/s11', 'zz'; did you mean 'N/s1'"):
        select_stations(ds, ["N/s0", "N/s11", "zz"])


def test_grid_cube_keeps_its_crs_and_attributes(make_grid_cube, tmp_path):
    ds = make_grid_cube(days=4)
    back = open_cube(write_cube(ds, tmp_path / "g.zarr"))
    again = open_cube(write_cube(back, tmp_path / "h.zarr"))
    for got in (back, again):
        assert "spatial_ref" in got.coords
        assert got.rio.crs.to_epsg() == 32632
        assert got.odc.geobox == ds.odc.geobox
        np.testing.assert_array_equal(got["s1_vv"], ds["s1_vv"])
        assert got["s1_vv"].attrs["units"] == "dB"


@pytest.mark.parametrize("how", ["attribute", "rioxarray", "reopened"])
def test_every_variable_names_its_grid_mapping_in_the_store(make_grid_cube, tmp_path, how):
    """CF: a reader finds the CRS of a variable by the variable's attribute `grid_mapping`."""
    ds = make_grid_cube(days=2)
    if how == "rioxarray":
        for variable in ds.data_vars.values():
            variable.attrs.pop("grid_mapping")
        ds = ds.drop_vars("spatial_ref").rio.write_crs("EPSG:32632")
    if how == "reopened":
        ds = open_cube(write_cube(ds, tmp_path / "first.zarr"))
    group = zarr.open_group(write_cube(ds, tmp_path / "g.zarr"), mode="r")
    assert {n: group[n].attrs.get("grid_mapping") for n in ("s1_vv", "clay")} == {
        "s1_vv": "spatial_ref",
        "clay": "spatial_ref",
    }


@given(st.integers(1, 70), st.integers(1, 300), st.integers(1, 300), st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_any_dask_chunks_give_the_source(tmp_path_factory, t, y, x, seed):
    values = np.random.default_rng(seed).random((31 + 11 * seed, 270 - 100 * (seed % 2), 260), dtype="float32")
    coords = {
        "time": pd.date_range("2020-01-01", periods=len(values)),
        "y": np.arange(values.shape[1])[::-1] * 1.0,
        "x": np.arange(260.0),
    }
    lazy = da.from_array(values, chunks=(max(t, 8), max(y, 70), max(x, 70)))
    ds = xr.Dataset({"sm": (("time", "y", "x"), lazy), "clay": (("y", "x"), lazy[0])}, coords)
    path = write_cube(ds, tmp_path_factory.mktemp("c") / "g.zarr")
    back = open_cube(path)
    np.testing.assert_array_equal(back["sm"], values)
    np.testing.assert_array_equal(back["clay"], values[0])
    array = zarr.open_group(path, mode="r")["sm"]
    assert array.chunks == (30, 128, 128)
    assert array.shards == (30, 256, 256)


def test_an_opened_and_cut_cube_can_be_written_again(tmp_path):
    values = np.random.default_rng(0).random((50, 4, 300), dtype="float32")
    coords = {"time": pd.date_range("2020-01-01", periods=50), "y": np.arange(4.0), "x": np.arange(300.0)}
    ds = xr.Dataset({n: (("time", "y", "x"), values + i) for i, n in enumerate("abc")}, coords)
    cut = open_cube(write_cube(ds, tmp_path / "a.zarr")).isel(time=slice(7, 44), x=slice(30, 290))
    back = open_cube(write_cube(cut, tmp_path / "b.zarr"))
    for i, n in enumerate("abc"):
        np.testing.assert_array_equal(back[n], values[7:44, :, 30:290] + i)


def test_a_cube_can_replace_the_store_it_is_read_from(make_station_cube, tmp_path):
    ds = make_station_cube()
    path = write_cube(ds, tmp_path / "s.zarr")
    opened = open_cube(path)
    write_cube(opened.assign(sm=opened["sm"] + 1), path)
    np.testing.assert_array_equal(open_cube(path)["sm"], ds["sm"] + 1)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_an_interrupted_write_leaves_the_old_store(make_station_cube, tmp_path):
    def broken(block, block_info=None):
        if block_info[None]["chunk-location"][0]:
            raise RuntimeError("power cut")
        return block

    old = make_station_cube()
    path = write_cube(old, tmp_path / "s.zarr")
    new = make_station_cube(stations=600, seed=1)
    lazy = da.from_array(new["sm"].values, chunks=(256, 30)).map_blocks(
        broken, dtype="float32", meta=np.empty((0, 0), "float32")
    )
    with pytest.raises(RuntimeError, match="power cut"):
        write_cube(new.assign(sm=(("station", "time"), lazy)), path)
    np.testing.assert_array_equal(open_cube(path)["sm"], old["sm"])
    assert open_cube(path).sizes["station"] == 6
    write_cube(new, path)
    np.testing.assert_array_equal(open_cube(path)["sm"], new["sm"])


def test_progress_reaches_its_end(make_station_cube, tmp_path):
    seen = []
    write_cube(
        make_station_cube().chunk(station=2),
        tmp_path / "s.zarr",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1][0] == seen[-1][1] > 0
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_masks_are_written_region_by_region(make_grid_cube, tmp_path):
    """A mask is as large as its variable, so it is never computed whole."""
    ds = make_grid_cube(days=40, gaps=0.5).chunk(time=30)
    ds["seen"] = ds["s1_vv"].notnull().assign_attrs(kind="flag")
    back = open_cube(write_cube(ds, tmp_path / "c.zarr"))["seen"]
    assert back.dtype == bool
    np.testing.assert_array_equal(back, ds["seen"])
    records = read_ledger(tmp_path / "c.zarr")
    written = {name for files in records.regions.values() for name in files}
    assert {"seen/c/0/0/0", "seen/c/1/0/0"} <= written


def test_a_mask_that_is_stored_as_int8_is_a_mask(tmp_path):
    """As older versions of xarray write it."""
    values = np.array([[True, False, True]])
    store = zarr.open_group(tmp_path / "c.zarr", mode="w", zarr_format=3)
    for name, data, dims, attributes in (
        ("seen", values.astype("int8"), ("station", "time"), {"dtype": "bool", "kind": "flag"}),
        ("latitude", np.array([50.0]), ("station",), {}),
        ("longitude", np.array([10.0]), ("station",), {}),
        ("time", np.arange(3), ("time",), {"units": "days since 2020-01-01"}),
    ):
        array = store.create_array(name, data=data, dimension_names=dims)
        array.attrs.update(attributes)
    for opened in (open_cube(tmp_path / "c.zarr"), open_cube(tmp_path / "c.zarr", dask=False)):
        found = opened["seen"].compute()
        assert found.dtype == bool
        np.testing.assert_array_equal(found, values)


def test_chunk_plan():
    grid = xr.Dataset(
        {
            "big": (("time", "y", "x"), da.zeros((400, 1000, 200))),
            "small": (("time", "y", "x"), da.zeros((400, 1000, 200))[:, :, :]),
            "flat": (("y", "x"), da.zeros((1000, 200))),
            "doy": (("time",), np.zeros(400)),
        }
    )
    plan = plan_chunks(grid)
    assert plan["big"] == {"chunks": (30, 128, 128), "shards": (30, 256, 256)}
    assert plan["flat"] == {"chunks": (128, 128), "shards": (256, 256)}
    assert plan["doy"] == {"chunks": (30,)}
    tiny = xr.Dataset({"sm": (("time", "y", "x"), np.zeros((5, 12, 128)))})
    assert plan_chunks(tiny)["sm"] == {"chunks": (5, 12, 128)}
    stations = xr.Dataset(
        {
            "sm": (("station", "time"), da.zeros((300, 1684))),
            "clay": (("station",), np.zeros(300)),
            "d": (("time",), np.zeros(1684)),
        }
    )
    assert plan_chunks(stations) == {
        "sm": {"chunks": (256, 1684)},
        "clay": {"chunks": (256,)},
        "d": {"chunks": (1684,)},
    }
    assert plan_chunks(stations, {"station": 64, "time": -1})["sm"] == {"chunks": (64, 1684)}


def test_units_are_compared_by_name():
    check_units({"a": "K", "b": "1"}, {"a": "K"}, "here")
    with pytest.raises(SmgeoError, match="here lacks c; it has a"):
        check_units({"a": "K"}, {"a": "K", "c": "m"}, "here")
    with pytest.raises(SmgeoError, match="a is in 'degC', needed in 'K'; b is in '1', needed in 'percent'"):
        check_units({"a": "degC", "b": "1"}, {"a": "K", "b": "percent"}, "here")


def test_units_of_a_scaled_variable_are_those_before():
    ds = xr.Dataset({"a": ("time", [1.0], {"units": "1", "unscaled_units": "K"}), "b": ("time", [1.0])})
    assert units_of(ds, ["a", "b", "c"]) == {"a": "K", "b": ""}


def test_kinds():
    ds = xr.Dataset(
        {
            "a": (("station", "time"), [[1.0]]),
            "b": (("station",), [1.0]),
            "c": (("time",), [1.0]),
            "d": (("station", "time"), [[1.0]], {"kind": "target"}),
        }
    )
    assert [kind_of(ds[n]) for n in "abcd"] == ["dynamic", "static", "calendar", "target"]
    assert variables_of_kind(ds, "static", "target") == ["b", "d"]
    assert not is_grid(ds)
    with pytest.raises(SmgeoError, match="found"):
        is_grid(xr.Dataset({"a": ("time", [1.0])}))


def test_daily_time():
    days = pd.date_range("2020-02-27", periods=4)
    assert check_daily(xr.Dataset(coords={"time": days})).equals(days)
    with pytest.raises(SmgeoError, match="2020-02-28.*2020-03-01"):
        check_daily(xr.Dataset(coords={"time": days[[0, 1, 3]]}))


def test_no_store(tmp_path):
    with pytest.raises(SmgeoError, match="not a Zarr v3 store"):
        open_cube(tmp_path / "nothing.zarr")
    xr.Dataset({"a": ("time", [1.0])}).to_zarr(tmp_path / "t.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(SmgeoError, match="a cube has dims"):
        open_cube(tmp_path / "t.zarr")
    assert json.loads((tmp_path / "t.zarr" / "zarr.json").read_text())["zarr_format"] == 3


def test_a_cube_is_read_from_its_store_without_dask(make_grid_cube, tmp_path):
    grid = make_grid_cube(days=40, height=5, width=6, gaps=0.3)
    cube = open_cube(write_cube(grid, tmp_path / "g.zarr"))
    changed = cube.assign(clay=cube["clay"] + 1)
    direct = without_dask(changed)
    assert not direct["s1_vv"].chunks
    assert direct["clay"].chunks
    part = {"time": slice(3, 37, 5), "y": [0, 2, 3], "x": 4}
    xr.testing.assert_identical(direct.isel(part).compute(), changed.isel(part).compute())
    xr.testing.assert_identical(direct.isel(y=slice(1, 1)).compute(), changed.isel(y=slice(1, 1)).compute())
    xr.testing.assert_identical(
        direct.isel(time=slice(None, None, -1)).compute(), changed.isel(time=slice(None, None, -1)).compute()
    )
    again = pickle.loads(pickle.dumps(direct.isel(y=slice(0, 2))))
    xr.testing.assert_identical(again.compute(), changed.isel(y=slice(0, 2)).compute())


def test_a_cube_can_be_opened_without_dask(make_grid_cube, tmp_path):
    grid = make_grid_cube(days=40, height=5, width=6, gaps=0.3)
    path = write_cube(grid, tmp_path / "g.zarr")
    lazy, plain = open_cube(path), open_cube(path, dask=False)
    assert not plain.chunks
    assert plain.odc.geobox == grid.odc.geobox
    part = plain.isel(time=slice(3, 37, 5), y=[0, 2], x=4)
    assert len(pickle.dumps(part)) < 20_000  # its values are still in the store
    xr.testing.assert_identical(part.compute(), lazy.isel(time=slice(3, 37, 5), y=[0, 2], x=4).compute())
    xr.testing.assert_identical(plain.load(), lazy.compute())
    # Arrays of the same store have the same name, and another as soon as the store is another.
    assert open_cube(path)["clay"].data.name == lazy["clay"].data.name
    write_cube(grid.assign(clay=grid["clay"] + 5), path)
    assert open_cube(path)["clay"].data.name != lazy["clay"].data.name


def test_what_comes_from_no_store_stays_as_it_is(make_grid_cube, tmp_path):
    grid = make_grid_cube(days=4)
    assert without_dask(grid) is grid
    cube = open_cube(write_cube(grid, tmp_path / "g.zarr"))
    # Other values have been put in its place since.
    write_cube(grid.assign(clay=grid["clay"] + 5), tmp_path / "g.zarr")
    before, after = cube["clay"].values, without_dask(cube)["clay"].values
    np.testing.assert_array_equal(before, after)
