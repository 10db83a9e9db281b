"""Outlines: polygons of GeoPackage and GeoJSON, and the pixels they hold."""

from __future__ import annotations

import json
import sqlite3
import struct

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from smgeo.errors import SmgeoError
from smgeo.polygons import pixels_inside, read_outline, write_geojson

SQUARE = shapely.box(500_010, 5_000_010, 500_030, 5_000_040)
GRID = GeoBox((5, 5), Affine(10, 0, 500_000, 0, -10, 5_000_050), "EPSG:32632")


def write_geopackage(path, shapes, srs=(32632, "EPSG", 32632, "undefined"), layers=1, envelope=0):
    """As OGC 12-128r18 has it: the tables that a reader needs, and geometries with an envelope of the given code."""
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_id, organization, organization_coordsys_id, definition)"
        )
        database.execute("INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?)", srs)
        database.execute(
            "CREATE TABLE gpkg_geometry_columns (table_name, column_name, geometry_type_name, srs_id, z, m)"
        )
        for k in range(layers):
            database.execute(
                "INSERT INTO gpkg_geometry_columns VALUES (?, 'the geom', 'POLYGON', ?, 0, 0)", (f"l{k}", srs[0])
            )
            database.execute(f'CREATE TABLE l{k} (fid, "the geom")')
        for i, geometry in enumerate(shapes):
            x0, y0, x1, y1 = geometry.bounds
            box = {0: b"", 1: struct.pack("<4d", x0, x1, y0, y1), 2: struct.pack("<6d", x0, x1, y0, y1, 0, 0)}[envelope]
            blob = b"GP\x00" + bytes([1 | envelope << 1]) + struct.pack("<i", srs[0]) + box + geometry.wkb
            database.execute("INSERT INTO l0 VALUES (?, ?)", (i, blob))
    database.close()
    return path


def write_json(path, geometry, **more):
    feature = {"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(geometry))}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature], **more}))
    return path


@pytest.mark.parametrize("envelope", [0, 1, 2])
def test_geopackage_polygons_are_united(tmp_path, envelope):
    other = shapely.box(500_030, 5_000_010, 500_040, 5_000_020)
    path = write_geopackage(tmp_path / "a field.gpkg", [SQUARE, other], envelope=envelope)
    assert read_outline(path, "EPSG:32632").equals(SQUARE.union(other))


def test_geojson_is_in_degrees_and_comes_in_the_crs_wanted(tmp_path):
    to_degrees = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform
    degrees = shapely.Polygon([to_degrees(x, y) for x, y in SQUARE.exterior.coords])
    found = read_outline(write_json(tmp_path / "f.geojson", degrees), "EPSG:32632")
    np.testing.assert_allclose(found.exterior.coords, SQUARE.exterior.coords, atol=1e-6)


def test_older_geojson_says_its_crs(tmp_path):
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    assert read_outline(write_json(tmp_path / "f.json", SQUARE, crs=crs), "EPSG:32632").equals(SQUARE)


def test_written_outline_is_read_again(tmp_path):
    write_geojson(SQUARE, "EPSG:32632", tmp_path / "o.geojson")
    again = read_outline(tmp_path / "o.geojson", "EPSG:32632")
    assert again.symmetric_difference(SQUARE).area < 1e-3


def test_pixels_are_inside_by_their_centre():
    # Columns 1 and 2 (x from 10 to 30 m), rows 1 to 3 (y from 40 down to 10 m).
    expected = np.zeros((5, 5), bool)
    expected[1:4, 1:3] = True
    np.testing.assert_array_equal(pixels_inside(SQUARE, GRID), expected)
    moved = shapely.affinity.translate(SQUARE, 4.9, 4.9)  # less than half a pixel
    np.testing.assert_array_equal(pixels_inside(moved, GRID), expected)


def test_a_hole_is_outside():
    ring = SQUARE.difference(shapely.box(500_010, 5_000_020, 500_020, 5_000_030))
    assert not pixels_inside(ring, GRID)[2, 1]
    assert pixels_inside(ring, GRID).sum() == 5


def test_outline_beside_the_grid():
    with pytest.raises(SmgeoError, match="holds no pixel of the grid"):
        pixels_inside(shapely.box(0, 0, 1, 1), GRID)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "no.gpkg", "not found"),
        (lambda p: _text(p / "f.shp", ""), "GeoPackage"),
        (lambda p: _text(p / "f.geojson", "no json"), "can't be read"),
        (lambda p: _text(p / "f.gpkg", "no database"), "can't be read"),
        (lambda p: write_json(p / "f.geojson", shapely.Point(0, 0)), "holds Point; it must hold polygons"),
        (lambda p: write_geopackage(p / "f.gpkg", []), "holds no features"),
        (lambda p: write_geopackage(p / "f.gpkg", [SQUARE], layers=2), "2 layers"),
        (lambda p: write_geopackage(p / "f.gpkg", [SQUARE], srs=(0, "NONE", 0, "undefined")), "can't be read"),
    ],
)
def test_files_that_are_no_outline(tmp_path, make, message):
    with pytest.raises(SmgeoError, match=message):
        read_outline(make(tmp_path), "EPSG:32632")


def _text(path, content):
    path.write_text(content)
    return path
