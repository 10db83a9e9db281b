"""Outlines (fields, catchments) of vector files: polygons in the CRS of a grid, and which pixels they hold."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from rasterio.features import geometry_mask
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from smgeo.errors import SmgeoError

# Bytes of the envelope by its code in the flags: OGC 12-128r18 (GeoPackage 1.3), clause 2.1.3.
_ENVELOPE = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}


def read_outline(path: str | Path, crs: Any) -> BaseGeometry:
    """The polygons of a GeoPackage or GeoJSON file, united, in the given CRS.

    Parameters
    ----------
    path : str or Path
        A file that ends in .gpkg (with one layer of features) or .geojson or .json (in EPSG:4326, or in what its member
        `crs` says, as older files have it).
    crs : anything pyproj takes
        The CRS wanted.

    Returns
    -------
    shapely.Polygon or shapely.MultiPolygon
        Coordinates (x, y).

    Raises
    ------
    SmgeoError
        If the file is missing or of another kind, can't be read, says no known CRS, or holds anything but polygons.
    """
    path = Path(path)
    if not path.is_file():
        raise SmgeoError(f"polygon file {path} not found (relative paths in a recipe start at --data)")
    readers = {".gpkg": _read_geopackage, ".geojson": _read_geojson, ".json": _read_geojson}
    if path.suffix.lower() not in readers:
        raise SmgeoError(f"outline {path}: give a GeoPackage (.gpkg) or GeoJSON (.geojson, .json) file")
    try:
        shapes, own = readers[path.suffix.lower()](path)
        own_crs = CRS(own)
    except (
        sqlite3.Error,
        shapely.errors.ShapelyError,
        CRSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise SmgeoError(f"outline {path} can't be read: {error}") from None
    other = sorted({s.geom_type for s in shapes} - {"Polygon", "MultiPolygon"})
    if other or not shapes:
        raise SmgeoError(f"outline {path} holds {', '.join(other) or 'no features'}; it must hold polygons alone")
    outline = shapely.union_all([shapely.make_valid(shapely.force_2d(s)) for s in shapes])
    moved = _reproject(outline, own_crs, CRS(crs))
    if not np.isfinite(moved.bounds).all():
        raise SmgeoError(f"outline {path} has no place in {CRS(crs).name}; check its CRS")
    return moved


def _reproject(geometry: BaseGeometry, source: CRS, target: CRS) -> BaseGeometry:
    if source == target:
        return geometry
    move = Transformer.from_crs(source, target, always_xy=True).transform
    return shapely.transform(geometry, lambda xy: np.column_stack(move(xy[:, 0], xy[:, 1])))


def _read_geojson(path: Path) -> tuple[list[BaseGeometry], str]:
    content = json.loads(path.read_text(encoding="utf-8"))
    # RFC 7946 knows EPSG:4326 alone; GeoJSON of 2008 says another CRS in this member.
    crs = content.get("crs", {}).get("properties", {}).get("name", "EPSG:4326")
    features = content["features"] if content["type"] == "FeatureCollection" else [content]
    geometries = [f["geometry"] if f["type"] == "Feature" else f for f in features]
    return [shape(g) for g in geometries if g is not None], crs


def _read_geopackage(path: Path) -> tuple[list[BaseGeometry], str]:
    # Immutable: a folder that can't be written to holds no journal.
    with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True)) as database:
        layers = database.execute("SELECT table_name, column_name, srs_id FROM gpkg_geometry_columns").fetchall()
        if len(layers) != 1:
            raise ValueError(f"it has {len(layers)} layers ({', '.join(n for n, _, _ in layers)}); keep one")
        table, column, srs = layers[0]
        organisation, code, definition = database.execute(
            "SELECT organization, organization_coordsys_id, definition FROM gpkg_spatial_ref_sys WHERE srs_id = ?",
            (srs,),
        ).fetchone() or ("NONE", srs, "undefined")
        table, column = (name.replace('"', '""') for name in (table, column))
        rows = database.execute(f'SELECT "{column}" FROM "{table}"').fetchall()  # noqa: S608 - names quoted, file read-only
    crs = f"{organisation}:{code}" if organisation.upper() in ("EPSG", "ESRI") else definition
    return [_read_blob(blob) for (blob,) in rows if blob is not None], crs


def _read_blob(blob: bytes) -> BaseGeometry:
    """A geometry as GeoPackage stores it: `GP`, version, flags, CRS, envelope, then WKB."""
    if blob[:2] != b"GP":
        raise ValueError("a geometry does not begin with GP")
    return shapely.from_wkb(blob[8 + _ENVELOPE[blob[3] >> 1 & 7] :])


def pixels_inside(outline: BaseGeometry, box: GeoBox) -> np.ndarray:
    """Which pixels of a grid have their centre inside an outline: bool (y, x).

    Raises
    ------
    SmgeoError
        If there is none.
    """
    inside = geometry_mask([mapping(outline)], out_shape=box.shape.yx, transform=box.affine, invert=True)
    if not inside.any():
        raise SmgeoError(
            f"the outline (bounds {tuple(round(v, 6) for v in outline.bounds)}) holds no pixel of the grid "
            f"(bounds {tuple(box.boundingbox.bbox)}, {box.crs}); give another grid or outline"
        )
    return np.asarray(inside)


def write_geojson(outline: BaseGeometry, crs: Any, path: Path) -> None:
    """Write an outline as GeoJSON, in EPSG:4326 as RFC 7946 has it."""
    degrees = _reproject(outline, CRS(crs), CRS("EPSG:4326"))
    feature = {"type": "Feature", "properties": {}, "geometry": mapping(degrees)}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}), encoding="utf-8")
