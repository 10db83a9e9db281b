"""Dates of raster sources that are one day, as a recipe and its dump have them."""

from __future__ import annotations

import datetime as dt

import pytest

from smgeo.recipe.rasters import parse_raster


@pytest.mark.parametrize("kind", ["geotiff", "netcdf", "zarr", "csv_grid"])
def test_one_day_survives_a_dump(kind):
    spec = {"kind": kind, "path": "a", "bands": {"temperature": "t" if kind != "geotiff" else 1}}
    for day in (dt.date(2020, 1, 31), "2020-01-31"):
        source = parse_raster({**spec, "dates": day}, "rasters.0")
        assert source.dates == dt.date(2020, 1, 31)
        assert parse_raster(source.model_dump(mode="json"), "rasters.0") == source
    assert parse_raster({**spec, "dates": "a_%Y-%m-%d"}, "rasters.0").dates == "a_%Y-%m-%d"
