"""Outlines: polygons of vector files, and the pixels inside them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from smgeo.errors import SmgeoError
from smgeo.polygons import pixels_inside, polygon_files, read_outline, write_geojson

SQUARE = shapely.box(500_010, 5_000_010, 500_030, 5_000_040)
GRID = GeoBox((5, 5), Affine(10, 0, 500_000, 0, -10, 5_000_050), "EPSG:32632")


def write_geopackage(path, shapes, srs=(32632, "EPSG", 32632, "undefined"), layers=1, envelope=0):
    """Write by OGC 12-128r18 the tables that a reader needs, and geometries with an envelope of the given code."""
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA application_id = 1196444487")
        database.execute("PRAGMA user_version = 10300")
        database.execute(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_name, srs_id INTEGER, organization, organization_coordsys_id INTEGER, definition)"
        )
        database.execute("INSERT INTO gpkg_spatial_ref_sys VALUES ('name', ?, ?, ?, ?)", srs)
        database.execute(
            "CREATE TABLE gpkg_contents (table_name, data_type, identifier, description, last_change, min_x, min_y, max_x, max_y, srs_id)"
        )
        database.execute(
            "CREATE TABLE gpkg_geometry_columns (table_name, column_name, geometry_type_name, srs_id, z, m)"
        )
        for k in range(layers):
            database.execute(
                "INSERT INTO gpkg_geometry_columns VALUES (?, 'the geom', 'POLYGON', ?, 0, 0)", (f"l{k}", srs[0])
            )
            database.execute(f'CREATE TABLE l{k} (fid INTEGER PRIMARY KEY, "the geom" POLYGON)')
            database.execute(
                "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) VALUES (?, 'features', ?, ?)",
                (f"l{k}", f"l{k}", srs[0]),
            )
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


FIELD = SQUARE.difference(shapely.box(500_010, 5_000_020, 500_020, 5_000_030))  # with a hole
PLOTS = [FIELD, shapely.MultiPolygon([shapely.box(500_035, 5_000_010, 500_040, 5_000_020), shapely.box(0, 0, 9, 9)])]


def write_vector(path, driver, shapes, crs="EPSG:32632", **options):
    from pyogrio.raw import write

    geometries = np.array([None if s is None else s.wkb for s in shapes], dtype=object)
    kinds = {s.geom_type for s in shapes if s is not None}
    kind = kinds.pop() if len(kinds) == 1 or driver == "ESRI Shapefile" else "Unknown"
    kind += " Z" * any(s.has_z for s in shapes if s is not None)
    if driver == "FlatGeobuf" and None in shapes:
        options["SPATIAL_INDEX"] = "NO"
    write(path, geometries, field_data=[], fields=[], geometry_type=kind, crs=crs, driver=driver, **options)
    return path


FORMATS = [("f.shp", "ESRI Shapefile"), ("a b.fgb", "FlatGeobuf"), ("F.GPKG", "GPKG"), ("f.geojson", "GeoJSON")]


@pytest.mark.parametrize(("name", "driver"), FORMATS)
def test_polygons_of_every_format_in_another_crs(tmp_path, name, driver):
    # GeoJSON is written in degrees; the others in the CRS of the plots.
    more = {"RFC7946": "YES", "COORDINATE_PRECISION": 12} if driver == "GeoJSON" else {}
    path = write_vector(tmp_path / name, driver, PLOTS[1:] + PLOTS[:1] if driver == "GPKG" else PLOTS, **more)
    move = Transformer.from_crs("EPSG:32632", "EPSG:32633", always_xy=True).transform
    expected = shapely.transform(shapely.union_all(PLOTS), lambda xy: np.column_stack(move(*xy.T)))
    found = read_outline(path, "EPSG:32633")
    assert found.symmetric_difference(expected).area < 1e-3 * expected.area
    assert read_outline(path, "EPSG:32632").symmetric_difference(shapely.union_all(PLOTS)).area < 1e-2


@pytest.mark.parametrize(("name", "driver"), FORMATS[:3])
def test_polygons_in_their_own_crs_are_those_of_the_file(tmp_path, name, driver):
    path = write_vector(tmp_path / name, driver, [shapely.force_3d(s, 7.0) if s else s for s in (FIELD, None, SQUARE)])
    assert read_outline(path, "EPSG:32632").equals(SQUARE)
    assert not read_outline(path, "EPSG:32632").has_z


def test_a_shapefile_without_crs_or_index(tmp_path):
    path = write_vector(tmp_path / "f.shp", "ESRI Shapefile", [SQUARE])
    assert [p.name for p in polygon_files(path)] == ["f.shp", "f.shx", "f.prj"]
    assert polygon_files(tmp_path / "f.gpkg") == [tmp_path / "f.gpkg"]
    (tmp_path / "f.prj").unlink()
    with pytest.raises(SmgeoError, match=r"f\.shp cannot be read: it has no CRS; set one"):
        read_outline(path, "EPSG:32632")
    (tmp_path / "f.shx").unlink()
    with pytest.raises(SmgeoError, match=r"f\.shp cannot be read: .*f\.shx"):
        read_outline(path, "EPSG:32632")


def test_tables_beside_the_layer_of_a_geopackage_do_not_matter(tmp_path):
    path = write_geopackage(tmp_path / "f.gpkg", [SQUARE])
    with sqlite3.connect(path) as database:  # as QGIS keeps its styles
        database.execute("CREATE TABLE layer_styles (id INTEGER PRIMARY KEY, name TEXT)")
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('layer_styles', 'attributes', 's')"
        )
    database.close()
    assert read_outline(path, "EPSG:32632").equals(SQUARE)


def test_a_real_geopackage_is_what_its_bytes_say(tmp_path):
    source = Path(os.environ.get("SMGEO_DATA", "/nowhere")) / "s2_lachish" / "lachish.gpkg"
    if not source.is_file():
        pytest.skip("needs the data of the shipped recipe lachish")
    path = Path(shutil.copy(source, tmp_path))
    with sqlite3.connect(path) as database:
        blobs = [b for (b,) in database.execute("SELECT geom FROM lachish")]
    database.close()
    sizes = {0: 8, 1: 40, 2: 56, 3: 56, 4: 72}  # of the header by the code of the envelope
    fields = [shapely.from_wkb(b[sizes[b[3] >> 1 & 7] :]) for b in blobs]
    assert read_outline(path, "EPSG:4326").equals(shapely.union_all(fields))
    move = Transformer.from_crs("EPSG:4326", "EPSG:32636", always_xy=True).transform
    expected = shapely.transform(shapely.union_all(fields), lambda xy: np.column_stack(move(*xy.T)))
    assert read_outline(path, "EPSG:32636").symmetric_difference(expected).area < 1e-6


def test_the_reader_is_imported_only_for_a_file_that_needs_it():
    code = "import smgeo, smgeo.polygons, sys; print('pyogrio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


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
    with pytest.raises(SmgeoError, match="contains no pixel of the grid"):
        pixels_inside(shapely.box(0, 0, 1, 1), GRID)


NO_CRS = {"type": "name", "properties": {"name": "nonsense"}}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "no.gpkg", "not found"),
        (lambda p: _text(p / "f.kml", ""), r"unknown format '.kml'; give a GeoPackage"),
        (lambda p: _text(p / "f.shp", ""), "not that of a .shp file"),
        (lambda p: _text(p / "f.geojson", "no json"), "cannot be read"),
        (lambda p: _text(p / "f.gpkg", "no database"), "not that of a .gpkg file"),
        (lambda p: _cut(write_vector(p / "f.fgb", "FlatGeobuf", [SQUARE]), 60), "cannot be read"),
        # A virtual file of GDAL may name any other file.
        (lambda p: _text(p / "f.gpkg", "<OGRVRTDataSource></OGRVRTDataSource>"), "not that of a .gpkg file"),
        (lambda p: write_json(p / "f.geojson", shapely.Point(0, 0)), "contains Point; only polygons"),
        (lambda p: write_vector(p / "f.fgb", "FlatGeobuf", [shapely.Point(0, 0)]), "contains Point; only polygons"),
        (lambda p: write_json(p / "f.geojson", SQUARE, crs=NO_CRS), "cannot be read"),
        (lambda p: write_geopackage(p / "f.gpkg", []), "contains no features"),
        (lambda p: write_geopackage(p / "f.gpkg", [SQUARE], layers=2), r"2 layers of features \(l0, l1\)"),
        (lambda p: write_geopackage(p / "f.gpkg", [SQUARE], srs=(0, "NONE", 0, "undefined")), "Undefined geographic"),
        (lambda p: write_vector(p / "f.gpkg", "GPKG", [SQUARE], crs=None), "cannot be read"),
        (lambda p: write_vector(p / "f.fgb", "FlatGeobuf", [SQUARE], crs=None), "no CRS"),
    ],
)
def test_files_that_are_no_outline(tmp_path, make, message):
    with pytest.raises(SmgeoError, match=message):
        read_outline(make(tmp_path), "EPSG:32632")


def _cut(path, count):
    path.write_bytes(path.read_bytes()[:count])
    return path


def _text(path, content):
    path.write_text(content)
    return path


# Across the 180th meridian


def inside_columns(outline, left, width=10):
    box = GeoBox((2, width), Affine(1, 0, left, 0, -1, 1), "EPSG:4326")
    return np.flatnonzero(pixels_inside(outline, box).any(axis=0)).tolist()


CUT = shapely.MultiPolygon([shapely.box(178, -1, 180, 1), shapely.box(-180, -1, -177, 1)])
SHORT = shapely.Polygon([(178, -1), (-177, -1), (-177, 1), (178, 1)])
LONG = shapely.box(178, -1, 183, 1)


@pytest.mark.parametrize("field", [CUT, SHORT, LONG])
def test_a_field_across_the_180th_meridian(tmp_path, field):
    """By RFC 7946 cut in two, as one polygon with an edge from 178 to -177, or from 178 to 183."""
    outline = read_outline(write_json(tmp_path / "f.geojson", field), "EPSG:4326")
    assert inside_columns(outline, 175) == [3, 4, 5, 6, 7]
    assert inside_columns(outline, -185) == [3, 4, 5, 6, 7]
    assert inside_columns(outline, -180, 360) == [0, 1, 2, 358, 359]
    assert inside_columns(outline, 0, 360) == [178, 179, 180, 181, 182]
    write_geojson(outline, "EPSG:4326", tmp_path / "out.geojson")
    (feature,) = json.loads((tmp_path / "out.geojson").read_text())["features"]
    assert shapely.geometry.shape(feature["geometry"]).equals(CUT)
    # In UTM the halves meet: zone 60's own coordinates go on beyond the meridian.
    zone = read_outline(write_json(tmp_path / "f.geojson", field), "EPSG:32660")
    there = Transformer.from_crs(4326, 32660, always_xy=True).transform
    assert zone.contains(shapely.Point(*there(179, 0)))
    assert zone.contains(shapely.Point(*there(-179, 0)))
    assert not zone.contains(shapely.Point(*there(177, 0)))
    write_geojson(zone, "EPSG:32660", tmp_path / "zone.geojson")
    (feature,) = json.loads((tmp_path / "zone.geojson").read_text())["features"]
    back = shapely.geometry.shape(feature["geometry"])
    assert back.is_valid
    assert back.symmetric_difference(CUT).area < 0.01


def test_a_grid_of_0_to_360_and_a_field_in_the_west(tmp_path):
    outline = read_outline(write_json(tmp_path / "f.geojson", shapely.box(-98, -1, -96, 1)), "EPSG:4326")
    assert inside_columns(outline, 0, 360) == [262, 263]
    assert inside_columns(outline, -180, 360) == [82, 83]


def test_an_edge_that_may_go_either_way_is_refused(tmp_path):
    path = write_json(tmp_path / "f.geojson", shapely.box(-170, 10, 30, 20))
    with pytest.raises(SmgeoError, match=r"edge of 200 degrees of longitude, which may be meant to cross"):
        read_outline(path, "EPSG:4326")
    assert read_outline(write_json(path, shapely.box(-180, 10, 180, 20)), "EPSG:4326").equals(
        shapely.box(-180, 10, 180, 20)
    )


def test_an_outline_around_a_pole_is_valid_geojson(tmp_path):
    write_geojson(shapely.Point(0, 0).buffer(1_000_000), "EPSG:3031", tmp_path / "pole.geojson")
    (feature,) = json.loads((tmp_path / "pole.geojson").read_text())["features"]
    cap = shapely.geometry.shape(feature["geometry"])
    assert cap.is_valid
    assert cap.contains(shapely.Point(100, -85))
    assert cap.contains(shapely.Point(-100, -85))
    assert not cap.intersects(shapely.Point(100, -75))
    assert cap.bounds[1] == -90
