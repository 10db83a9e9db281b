"""What heights and angles refer to, by names of files and bands and by CRS; two references are not mixed."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from smgeo.errors import SmgeoError
from smgeo.sources import open_rasters


def write(path, values, *, crs="EPSG:4326", band=None, left=8.0):
    values = np.asarray(values, dtype="float32")
    shape = {"height": values.shape[0], "width": values.shape[1]}
    where = {"crs": crs, "transform": from_origin(left, 47.0, 0.5, 0.5)}
    with rasterio.open(path, "w", driver="GTiff", count=1, dtype="float32", **shape, **where) as dst:
        dst.write(values, 1)
        if band:
            dst.set_band_description(1, band)
    return path


TILE = np.full((2, 2), 400.0)


@pytest.mark.parametrize(
    ("name", "crs", "datum"),
    [
        ("TDM1_DEM__30_N46E008_DEM.tif", "EPSG:4326", "WGS84 ellipsoid"),
        ("Copernicus_DSM_COG_10_N46_00_E008_00_DEM.tif", "EPSG:4326", "EGM2008 geoid"),
        ("srtm_38_03.tif", "EPSG:4326", "EGM96 geoid"),
        ("N46E008.hgt.tif", "EPSG:4326", "EGM96 geoid"),
        ("dem.tif", "EPSG:4326+5773", "EGM96 geoid"),
        ("dem.tif", "EPSG:9518", "EGM2008 geoid"),
        ("dem.tif", "EPSG:4326", None),
    ],
)
def test_heights_say_their_datum(tmp_path, name, crs, datum):
    write(tmp_path / name, TILE, crs=crs)
    ds = open_rasters({"path": name, "bands": {"elevation": 1}}, root=tmp_path)
    assert ds["elevation"].attrs.get("vertical_datum") == datum


def test_tiles_above_two_surfaces_are_refused(tmp_path):
    write(tmp_path / "TDM1_DEM__30_N46E008_DEM.tif", TILE)
    write(tmp_path / "Copernicus_DSM_COG_10_N46_00_E009_00_DEM.tif", TILE, left=9.0)
    spec = {"path": "*.tif", "bands": {"elevation": 1}}
    with pytest.raises(SmgeoError, match=r"EGM2008 geoid .*WGS84 ellipsoid .*TDM1.*refers_to: \{elevation"):
        open_rasters(spec, root=tmp_path)
    ds = open_rasters({**spec, "refers_to": {"elevation": "EGM2008 geoid"}}, root=tmp_path)
    assert ds["elevation"].attrs["vertical_datum"] == "EGM2008 geoid"


@pytest.mark.parametrize(
    ("band", "angle"),
    [
        ("localIncidenceAngle", "local"),
        ("projectedLocalIncidenceAngle", "local"),
        ("incidenceAngleFromEllipsoid", "ellipsoid"),
        (None, None),
    ],
)
def test_an_incidence_angle_says_of_what_surface_it_is(tmp_path, band, angle):
    write(tmp_path / "a.tif", [[3.0, 88.0]], band=band)  # slopes make local angles of 0 to 90
    ds = open_rasters({"path": "a.tif", "bands": {"s1_incidence": 1}, "dates": "2020-01-01"}, root=tmp_path)
    assert ds["s1_incidence"].attrs.get("incidence_angle") == angle
    assert ds["s1_incidence"].values.tolist() == [[[3.0, 88.0]]]


def test_refers_to_names_a_variable_of_the_source(tmp_path):
    with pytest.raises(SmgeoError, match="refers_to names 'elevaton', which is not in bands; did you mean 'elevation'"):
        open_rasters({"path": "a.tif", "bands": {"elevation": 1}, "refers_to": {"elevaton": "x"}}, root=tmp_path)
