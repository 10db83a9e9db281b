"""Contents of the variables of a cube, against NumPy and counts by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import smgeo.report.variables
from smgeo.catalog import FEATURES, Feature
from smgeo.cli import app
from smgeo.cube.ledger import read_dropped
from smgeo.cube.tally import note_dropped, with_dropped
from smgeo.cube.writing import write_cube
from smgeo.report.run_tables import features_table
from smgeo.report.schema import GridVariable
from smgeo.report.variables import count_dropped, describe_variables


@pytest.fixture
def cube(make_station_cube):
    return make_station_cube(stations=3, days=8, gaps=0.4)


def written(ds, tmp_path, name="cube.zarr"):
    return write_cube(ds.chunk(), tmp_path / name)


def info(path) -> str:
    found = CliRunner().invoke(app, ["info", str(path)], catch_exceptions=False)
    assert found.exit_code == 0
    return found.output


def test_numbers_of_stations_are_those_of_numpy(cube, tmp_path):
    cube["clay"][1] = np.nan
    found = describe_variables(written(cube, tmp_path))
    assert set(found) == set(cube.data_vars)
    for name, about in found.items():
        values = cube[name].values.astype("float64")
        numbers = [about[key] for key in ("minimum", "median", "maximum", "valid_share")]
        by_hand = [np.nanmin(values), np.nanmedian(values), np.nanmax(values), np.isfinite(values).mean()]
        np.testing.assert_allclose(numbers, by_hand, rtol=1e-6)
        assert (about["units"], about["source"]) == (FEATURES[name].units, FEATURES[name].source)
        assert "days" not in about


def test_numbers_of_a_grid_in_many_blocks_are_those_of_numpy(make_grid_cube, tmp_path):
    ds = make_grid_cube(days=65, height=130, width=140, gaps=0.3)
    found = describe_variables(written(ds, tmp_path))
    for name in ("s1_vv", "clay"):
        values = ds[name].values.astype("float64")
        numbers = [found[name][key] for key in ("minimum", "median", "maximum", "valid_share")]
        by_hand = [np.nanmin(values), np.nanmedian(values), np.nanmax(values), np.isfinite(values).mean()]
        np.testing.assert_allclose(numbers, by_hand, rtol=1e-6)
    assert found["s1_vv"]["days"] == 65


def test_median_of_a_large_variable_is_of_a_sample_and_the_rest_of_all_values(make_grid_cube, tmp_path, monkeypatch):
    ds = make_grid_cube(days=40, height=40, width=140)
    monkeypatch.setattr(smgeo.report.variables, "EXACT_VALUES", 20_000)
    found = describe_variables(written(ds, tmp_path), ["s1_vv"])["s1_vv"]
    values = ds["s1_vv"].values
    assert (found["minimum"], found["maximum"]) == pytest.approx((values.min(), values.max()), rel=1e-6)
    assert found["median"] != pytest.approx(np.median(values), rel=1e-7)
    # A median of n values is about 1.25 standard deviations / sqrt(n) from the true one.
    assert found["median"] == pytest.approx(np.median(values), abs=6 * 1.25 * values.std() / np.sqrt(11_200))


def test_what_is_odd_is_noted(cube, tmp_path):
    cube["temperature"][:] = np.nan
    cube["precipitation"][:] = 0.0
    cube["s1_vv"].values[:] = -12.0
    cube["s1_vv"].values[0, :3] = [-11.0, -10.0, np.inf]
    cube["own"] = cube["sm"] * 2
    catalog = {**FEATURES, "own": Feature("own", "own", "1", "dynamic", "the recipe", (-3.0e38, 3.0e38))}
    found = describe_variables(written(cube, tmp_path), catalog=catalog)
    assert {name: about["notes"] for name, about in found.items()} == {
        "s1_vv": ["91% are -12", "1 infinite values"],
        "precipitation": ["constant"],
        "temperature": ["no value"],
        "clay": [],
        "sm": [],
        "own": ["no valid range given"],
    }
    assert "minimum" not in found["temperature"]
    assert found["temperature"]["valid_share"] == 0
    assert (found["s1_vv"]["maximum"], found["s1_vv"]["valid_share"]) == (-10, pytest.approx(23 / 24, abs=1e-6))


def test_rain_that_is_mostly_0_is_not_odd(cube, tmp_path):
    cube["precipitation"].values[:] = 0.0
    cube["precipitation"].values[0, 0] = 5.0
    assert describe_variables(written(cube, tmp_path))["precipitation"]["notes"] == []


def dropping(name, number):
    def work(block):
        note_dropped(name, "infinite", number)
        return block

    return work


def test_dropped_values_are_those_of_the_ledger_of_earlier_stores_and_of_the_readers_counts(cube, tmp_path):
    lazy = cube.chunk({"station": 3})
    lazy["s1_vv"] = lazy["s1_vv"].copy(data=lazy["s1_vv"].data.map_blocks(dropping("s1_vv", 2), dtype="float32"))
    lazy["clay"] = lazy["clay"].copy(data=lazy["clay"].data.map_blocks(dropping("elevation", 5), dtype="float32"))
    for name, values in {
        "rows_without_target": [1, 2, 0],
        "rows_same_day": [4, 4, 4],
        "days_outside": [0, 0, 0],
    }.items():
        words = {"long_name": name.replace("_", " "), "kind": "diagnostic"}
        lazy[name] = xr.DataArray(np.array(values), dims="station", attrs=words)
    earlier = [{"s1_vv": {"infinite": 1, "outside the valid range": 7}}, {"s1_vv": {"infinite": 10}}]
    path = write_cube(with_dropped(lazy, earlier), tmp_path / "cube.zarr")
    assert read_dropped(path) == {"s1_vv": {"infinite": 2}, "elevation": {"infinite": 5}}
    expected = {"s1_vv": {"infinite": 13, "outside the valid range": 7}, "elevation": {"infinite": 5}}
    assert count_dropped(path) == expected
    found = describe_variables(path, target="sm")
    assert found["s1_vv"]["dropped"] == expected["s1_vv"]
    assert found["sm"]["dropped"] == {"rows without target": 3}
    assert found["clay"]["dropped"] == {}
    assert "rows_same_day" not in found
    # Elevation is only read for other features.
    assert (found["elevation"]["kind"], found["elevation"]["units"]) == ("input", "m")
    text = info(path)
    assert "infinite 13" in text
    assert "rows without target" in text


def test_table_shows_unit_range_and_source_and_marks_what_is_odd():
    features = {
        "elevation": GridVariable(
            kind="static", units="m", source="dem.tif", minimum=-3.25, median=0.05, maximum=8848.86, valid_share=0.5
        ),
        "s1_vv": GridVariable(kind="dynamic", units="dB", dropped={"infinite": 1200, "outside the valid range": 3}),
    }
    table = features_table(features, "features", "Station cube")
    assert table.text == [
        ["elevation", "m", "static", "-3.25", "0.05", "8,849", "50.0 %", "–", "dem.tif"],
        ["s1_vv", "dB", "dynamic", "–", "–", "–", "–", "infinite 1,200, outside the valid range 3", "–"],
    ]
    assert [row.marked for row in table.rows] == [False, True]
    assert table.frame["dropped"][1] == '{"infinite": 1200, "outside the valid range": 3}'
    assert "infinite 1,200" in table.to_latex()
    assert {"valid", "source", "made missing"} < {c.heading for c in table.on("page").columns}


def test_info_shows_any_cube(cube, tmp_path):
    cube["missing"] = xr.full_like(cube["sm"], np.nan).assign_attrs({})
    cube["words"] = ("station", np.array(["a", "", "ü"], dtype=object))
    cube["when"] = ("station", pd.date_range("2020-01-01", periods=3))
    cube["clear"] = ("station", np.array([True, False, True]))
    cube["count"] = ("station", np.array([1, 2, 4]))
    cube["scalar"] = xr.DataArray(7.5)
    path = written(cube, tmp_path)
    text = info(path)
    assert "<xarray.Dataset>" in text
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert set(cube.data_vars) <= set(rows)
    assert "no value" in rows["missing"]
    assert "text" in rows["words"]
    assert "datetime64" in rows["when"]
    assert [cell.strip() for cell in rows["count"].split("│")][3:7] == ["1", "2", "4", "100.0 %"]
    assert rows["scalar"].count("7.5") == 3


def test_info_of_a_store_that_xarray_wrote(tmp_path):
    times = pd.date_range("2020-01-01", periods=2)
    values = np.array([[1.0, np.nan], [3.0, 4.0]])
    ds = xr.Dataset({"packed": (("station", "time"), values), "empty": (("station", "none"), np.empty((2, 0)))})
    ds = ds.assign_coords(time=times, station=["a", "b"])
    packing = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}
    ds.to_zarr(tmp_path / "x.zarr", zarr_format=3, consolidated=False, encoding={"packed": packing})
    found = describe_variables(tmp_path / "x.zarr")
    assert [found["packed"][key] for key in ("minimum", "median", "maximum", "valid_share")] == [1, 3, 4, 0.75]
    assert found["empty"]["notes"] == ["no value"]
    assert "packed" in info(tmp_path / "x.zarr")


def test_info_reads_some_blocks_of_a_large_cube(make_grid_cube, tmp_path):
    ds = make_grid_cube(days=90, height=4, width=5)
    ds["s1_vv"][:30] = -10.0
    ds["s1_vv"][30:60] = -20.0  # a block that is not read
    ds["s1_vv"][60:] = -11.0
    found = describe_variables(written(ds, tmp_path), ["s1_vv"], most=1000)["s1_vv"]
    assert [found[key] for key in ("minimum", "maximum", "valid_share")] == [-11, -10, 1]
