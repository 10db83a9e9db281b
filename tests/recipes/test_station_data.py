"""Recipes of stations and fields without maps, on real data at toy size, against tables read by pandas."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import smgeo
from smgeo.prepare.places import group_numbers

pytest.importorskip("ydf")

RECIPES = Path(__file__).parents[2] / "recipes"


def shipped(name):
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))


def test_poland_holds_out_fields(data, tmp_path):
    recipe = shipped("poland")
    recipe["models"] = {"rf": {"trees": 20}}
    recipe["intervals"]["folds"] = 2
    recipe["leakage_audit"] = False
    recipe["cross_validation"] = [{"method": "group-k-fold", "folds": 5}, {"method": "random", "folds": 5}]
    with pytest.warns(match="20 row"):  # samples at one place and time
        run = smgeo.run(recipe, out=tmp_path / "run", data=data)
    table = pd.read_csv(data / "poland_s1" / "input_data.csv").set_index("id")
    field = {
        part: {table.loc[[s.split("/")[1]], "field_id"].iloc[0] for s in run.results["split"][part]}
        for part in ("train", "validation", "test")
    }
    assert not field["train"] & field["test"]
    assert not field["validation"] & field["test"]
    assert run.results["split"]["groups"]["by"] == "group"
    by_field, random = (run.results["cross_validation"][name] for name in ("rf", "rf_random"))
    assert by_field["n"] == random["n"] == len(table) - 20 - table["assumed_clay_content"].isna().sum()
    # Plain forests err by .068 where fields are held out, and by .054 on random rows.
    assert 0.058 < by_field["rmse_pooled"] < 0.078
    assert random["rmse_pooled"] < 0.85 * by_field["rmse_pooled"]
    assert by_field["over_stations"]["clusters"] == table.dropna(subset=["assumed_clay_content"])["field_id"].nunique()


def test_uscrn_is_what_its_files_say(data, tmp_path):
    run = smgeo.build_cubes("uscrn", tmp_path / "run", data)
    cube = smgeo.open_cube(run / "stations.zarr").load()
    known = cube["sm"].notnull()
    assert int(known.any("time").sum()) == 111
    assert int(known.sum()) == 33_924
    with zipfile.ZipFile(data / "uscrn" / "uscrn_daily_2020.zip") as archive:
        rows = pd.read_csv(archive.open("CRND0103-2020-03047.txt"), sep=r"\s+", header=None, dtype={1: str})
    station = cube.sel(station="USCRN/3047" if "USCRN/3047" in cube["station"].values else "USCRN/03047")
    for name, column, missing in (
        ("sm", 18, -99),
        ("air_temperature", 8, -9999),
        ("precipitation", 9, -9999),
        ("humidity", 17, -9999),
    ):
        expected = rows[column].where(rows[column] != missing).to_numpy()
        np.testing.assert_allclose(station[name].values, expected, rtol=1e-6, err_msg=name)


def test_scan_is_what_its_table_says(data, tmp_path):
    run = smgeo.build_cubes("scan", tmp_path / "run", data)
    cube = smgeo.open_cube(run / "stations.zarr").load()
    table = pd.read_parquet(data / "scan_s1" / "station_days.parquet")
    assert cube.sizes["station"] == 93 == np.unique(group_numbers(cube)).size
    assert int(cube["sm"].notnull().sum()) == table["sm"].notna().sum()
    with_radar = table["sigma"].notna() & table["sm"].notna()
    assert int((cube["s1_vv"].notnull() & cube["sm"].notnull()).sum()) == with_radar.sum()
    one = (
        table[table["site"] == 2057] if (table["site"] == 2057).any() else table[table["site"] == table["site"].iloc[0]]
    )
    station = cube.sel(station=f"SCAN/{one['site'].iloc[0]}")
    assert float(station["elevation"]) == pytest.approx(one["elev"].iloc[0] * 0.3048)
    assert np.isnan(cube["clay"].values).sum() == (table.groupby("site")["clay_fract"].first() == -999).sum()
    days = pd.DatetimeIndex(one["date"])
    np.testing.assert_allclose(station["sm"].sel(time=days).values, one["sm"].to_numpy(), rtol=1e-6)
