"""Footprints of STAC items next to maps, across the 180th meridian and around a pole, by RFC 7946 and the package antimeridian."""

from __future__ import annotations

import json

import antimeridian
import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer
from rasterio.transform import from_origin
from shapely.geometry import shape

from smgeo.maps.stac import write_stac


def write_map(folder, crs, left, top, size, shape_yx):
    path = folder / "sm_2020-06-01.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=shape_yx[0], width=shape_yx[1], count=1, dtype="float32", crs=crs,
        transform=from_origin(left, top, size, size),
    ) as dst:  # fmt: skip
        dst.write(np.zeros((1, *shape_yx), "float32"))
        dst.set_band_description(1, "sm")
        dst.update_tags(date="2020-06-01", model="m")
    write_stac(folder)
    item = json.loads((folder / "sm_2020-06-01.json").read_text())
    return item, json.loads((folder / "collection.json").read_text())["extent"]["spatial"]["bbox"][0]


@pytest.mark.parametrize(
    ("crs", "left", "top", "size", "shape_yx", "bbox"),
    [
        ("EPSG:4326", 8, 51, 0.5, (2, 4), [8, 50, 10, 51]),
        ("EPSG:4326", 170, 51, 1, (2, 20), [170, 49, -170, 51]),
        ("EPSG:4326", -190, 51, 1, (2, 20), [170, 49, -170, 51]),
        ("EPSG:4326", 190, 51, 1, (2, 20), [-170, 49, -150, 51]),
        ("EPSG:4326", 350, 51, 1, (2, 20), [-10, 49, 10, 51]),
        ("EPSG:4326", -180, 90, 10, (18, 36), [-180, -90, 180, 90]),
        ("EPSG:4326", 0, 90, 10, (18, 36), [-180, -90, 180, 90]),
        ("EPSG:32660", 700_000, 1_000_000, 20_000, (10, 10), [178.8114, 7.2231, -179.3628, 9.0421]),
    ],
)
def test_footprint(tmp_path, crs, left, top, size, shape_yx, bbox):
    item, extent = write_map(tmp_path, crs, left, top, size, shape_yx)
    outline = shape(item["geometry"])
    assert outline.is_valid
    assert antimeridian.fix_shape(item["geometry"], great_circle=False) == antimeridian.fix_shape(
        antimeridian.fix_shape(item["geometry"], great_circle=False), great_circle=False
    )
    west, south, east, north = outline.bounds
    assert -180 <= west < east <= 180
    assert -90 <= south < north <= 90
    np.testing.assert_allclose(item["bbox"], bbox, atol=0.05)
    np.testing.assert_allclose(extent, bbox, atol=0.05)
    # Pixel centres are inside, and places next to the map are not.
    height, width = shape_yx
    move = Transformer.from_crs(crs, 4326, always_xy=True).transform
    for row, column, inside in ((0.5, 0.5, True), (height - 0.5, width - 0.5, True), (height / 2, width / 2, True)):
        lon, lat = move(left + column * size, top - row * size)
        assert outline.buffer(1e-9).contains(shapely.Point((lon + 180) % 360 - 180, lat)) is inside
    if width * size < 360:
        lon, lat = move(left - 3 * size, top - size)
        assert not outline.contains(shapely.Point((lon + 180) % 360 - 180, lat))


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_footprint_around_a_pole(tmp_path, crs, pole):
    item, extent = write_map(tmp_path, crs, -1_000_000, 1_000_000, 100_000, (20, 20))
    outline = shape(item["geometry"])
    assert outline.is_valid
    for lon in range(-175, 180, 10):
        assert outline.contains(shapely.Point(lon, pole * 0.95))
        assert not outline.intersects(shapely.Point(lon, pole * 0.8))
        assert not outline.intersects(shapely.Point(lon, -pole * 0.5))
    assert item["bbox"] == extent
    assert item["bbox"][0] == -180
    assert item["bbox"][2] == 180
    assert pole in item["bbox"]
