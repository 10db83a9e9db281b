"""Polygons of vector files (fields, catchments) in the CRS of a grid, and the pixels inside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import antimeridian
import numpy as np
import shapely
from odc.geo.crs import SomeCRS
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from rasterio.features import geometry_mask
from shapely.affinity import translate
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from smgeo.errors import SmgeoError

# First bytes of each format. GDAL goes by the content whatever the name, and some of its formats refer to other files.
_MAGIC = {".gpkg": b"SQLite format 3\x00", ".shp": b"\x00\x00\x27\x0a", ".fgb": b"fgb"}
_FORMATS = "a GeoPackage (.gpkg), shapefile (.shp), FlatGeobuf (.fgb) or GeoJSON (.geojson, .json) file"
# Edges that are longer, in degrees of longitude, cross the 180th meridian: no field or catchment has one.
_CROSSES, _UNCLEAR = 270.0, 180.0


def read_outline(path: str | Path, crs: SomeCRS) -> BaseGeometry:
    """Return the polygons of a vector file, united, in the given CRS.

    Parameters
    ----------
    path : str or Path
        A GeoPackage (.gpkg, with one layer of features), shapefile (.shp, with its .shx and .prj), FlatGeobuf (.fgb) or GeoJSON
        file (.geojson or .json, in EPSG:4326 or in the CRS of its member `crs`, as older files have it).
    crs : CRS, str or int
        The CRS wanted.

    Returns
    -------
    shapely.Polygon or shapely.MultiPolygon
        Coordinates (x, y).

    Raises
    ------
    SmgeoError
        If the file is missing, of another format or cannot be read, its CRS is missing or unknown, or it contains anything but polygons.
    """
    path = Path(path)
    if not path.is_file():
        raise SmgeoError(f"polygon file {path} not found (relative paths in a recipe start at --data)")
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise SmgeoError(f"outline {path}: unknown format {path.suffix!r}; give {_FORMATS}")
    try:
        shapes, own = read(path)
        own_crs = CRS(own)
    except (
        RuntimeError,
        shapely.errors.ShapelyError,
        CRSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise SmgeoError(f"outline {path} cannot be read: {error}") from None
    if own_crs.name.startswith("Undefined"):  # a GeoPackage's srs_id 0 or -1
        raise SmgeoError(f"outline {path} cannot be read: its CRS is {own_crs.name!r}; set the layer's CRS")
    other = sorted({s.geom_type for s in shapes} - {"Polygon", "MultiPolygon"})
    if other or not shapes:
        raise SmgeoError(f"outline {path} contains {', '.join(other) or 'no features'}; only polygons can be used")
    flat = [shapely.force_2d(s) for s in shapes]
    if own_crs.is_geographic:
        flat = [_cut_if_across(s, path) for s in flat]
    outline = shapely.union_all([shapely.make_valid(s) for s in flat])
    moved = _reproject(outline, own_crs, CRS(crs))
    if not np.isfinite(moved.bounds).all():
        raise SmgeoError(f"outline {path} has no place in {CRS(crs).name}; check its CRS")
    return moved


def cut_at_antimeridian(geometry: BaseGeometry) -> BaseGeometry:
    """Return polygons in degrees as RFC 7946 has them: within -180 to 180, cut where they cross the 180th meridian or contain a pole.

    Vertices more than 180 degrees of longitude apart are taken to be on two sides of that meridian. A ring around a pole must
    go counter-clockwise around its inside, as seen from above.
    """
    return shapely.union_all([part for polygon in shapely.get_parts(geometry) for part in _cut(polygon)])


def _cut(polygon: shapely.Polygon) -> list[BaseGeometry]:
    outer, *holes = (_continuous(shapely.get_coordinates(ring)) for ring in shapely.get_rings(polygon))
    if abs(outer[-1, 0] - outer[0, 0]) > 1:
        return [antimeridian.fix_polygon(polygon, fix_winding=False, great_circle=False)]
    middle = outer[:, 0].mean()
    holes = [hole - (360 * np.round((hole[:, 0].mean() - middle) / 360), 0) for hole in holes]
    whole = shapely.make_valid(shapely.Polygon(outer, holes))
    turns = np.floor((np.array([outer[:, 0].min(), outer[:, 0].max()]) + 180) / 360).astype(int)
    parts = []
    for turn in range(turns[0], turns[1] + 1):
        inside = shapely.clip_by_rect(whole, 360 * turn - 180, -91, 360 * turn + 180, 91)
        parts += [p for p in shapely.get_parts(translate(inside, -360.0 * turn)) if p.area > 0]
    return parts


def _continuous(ring: np.ndarray) -> np.ndarray:
    """Return a ring (vertex, x and y) with longitudes that go on beyond 180 where it crosses that meridian."""
    steps, along = np.diff(ring, axis=0).T
    # An edge around the whole Earth, along a parallel, crosses nothing.
    crosses = (np.abs(steps) > 180) & ((np.abs(steps) < 360 - 1e-9) | (along != 0))
    out = ring.copy()
    out[1:, 0] -= 360 * np.cumsum(np.where(crosses, np.round(steps / 360), 0))
    return out


def _cut_if_across(geometry: BaseGeometry, path: Path) -> BaseGeometry:
    """Cut polygons with edges such as from 179 to -179, which are meant to be short."""
    rings = [r for part in shapely.get_parts(geometry) for r in shapely.get_rings(part)]
    longest = max((float(np.abs(np.diff(shapely.get_coordinates(r)[:, 0])).max()) for r in rings), default=0.0)
    if longest <= _UNCLEAR or longest >= 360:
        return geometry
    if longest < _CROSSES:
        raise SmgeoError(
            f"outline {path} has an edge of {longest:g} degrees of longitude, which may be meant to cross the 180th meridian or not; add "
            "vertices along it, or cut the polygon at that meridian (RFC 7946, section 3.1.9)"
        )
    return cut_at_antimeridian(geometry)


def polygon_files(path: str | Path) -> list[Path]:
    """Return the files that `read_outline` reads: `path`, and the .shx and .prj files of a shapefile."""
    path = Path(path)
    parts = [path.with_suffix(end) for end in (".shx", ".prj")] if path.suffix.lower() == ".shp" else []
    return [path, *(p for p in parts if p.is_file())]


def _reproject(geometry: BaseGeometry, source: CRS, target: CRS) -> BaseGeometry:
    if source == target:
        return geometry
    move = Transformer.from_crs(source, target, always_xy=True).transform
    return shapely.transform(geometry, lambda xy: np.column_stack(move(xy[:, 0], xy[:, 1])))


def _read_geojson(path: Path) -> tuple[list[BaseGeometry], str]:
    # GDAL silently takes EPSG:4326 for a CRS that it does not know, and drops a geometry that it cannot read.
    content = json.loads(path.read_text(encoding="utf-8"))
    crs = content.get("crs", {}).get("properties", {}).get("name", "EPSG:4326")
    features = content["features"] if content["type"] == "FeatureCollection" else [content]
    geometries = [f["geometry"] if f["type"] == "Feature" else f for f in features]
    return [shape(g) for g in geometries if g is not None], crs


def _read_layer(path: Path) -> tuple[list[BaseGeometry], str]:
    """Geometries and CRS of a file with one layer."""
    with path.open("rb") as file:
        magic = _MAGIC[path.suffix.lower()]
        if file.read(len(magic)) != magic:
            raise ValueError(f"its content is not that of a {path.suffix.lower()} file")
    import pyogrio  # with a GDAL of its own, which only those pay for who read such a file
    from pyogrio.raw import read

    layers = [name for name, geometry_type in pyogrio.list_layers(path) if geometry_type is not None]
    if len(layers) != 1:
        raise ValueError(f"it has {len(layers)} layers of features ({', '.join(layers)}); keep one")
    about, _, geometries, _ = read(path, layer=layers[0], columns=[])
    if about["crs"] is None:
        raise ValueError("it has no CRS; set one (for a shapefile in its .prj file)")
    return [shapely.from_wkb(g) for g in geometries if g is not None], about["crs"]


_READERS: dict[str, Callable[[Path], tuple[list[BaseGeometry], str]]] = {
    **dict.fromkeys((".geojson", ".json"), _read_geojson),
    **dict.fromkeys(_MAGIC, _read_layer),
}


def pixels_inside(outline: BaseGeometry, box: GeoBox) -> np.ndarray:
    """Return which pixels of a grid have their centre inside an outline: bool (y, x).

    Raises
    ------
    SmgeoError
        If there is none.
    """
    turned = [outline]
    if box.crs is not None and box.crs.geographic:  # a grid of 0 to 360, or one that crosses the 180th meridian
        wide = box.boundingbox
        turned = [
            moved
            for turn in (0.0, -360.0, 360.0)
            if (moved := translate(outline, turn)).bounds[0] <= wide.right and moved.bounds[2] >= wide.left
        ] or turned
    inside = geometry_mask(list(map(mapping, turned)), out_shape=box.shape.yx, transform=box.affine, invert=True)
    if not inside.any():
        raise SmgeoError(
            f"the outline (bounds {tuple(round(v, 6) for v in outline.bounds)}) contains no pixel of the grid "
            f"(bounds {tuple(box.boundingbox.bbox)}, {box.crs}); give another grid or outline"
        )
    return np.asarray(inside)


def write_geojson(outline: BaseGeometry, crs: SomeCRS, path: Path) -> None:
    """Write an outline as GeoJSON, in EPSG:4326 as RFC 7946 has it: cut at the 180th meridian."""
    turned = shapely.union_all([orient(part) for part in shapely.get_parts(outline)])
    degrees = cut_at_antimeridian(_reproject(turned, CRS(crs), CRS("EPSG:4326")))
    feature = {"type": "Feature", "properties": {}, "geometry": mapping(degrees)}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}), encoding="utf-8")
