"""Grid of a variable of a gridded file: its axes, coordinates and CRS, and the order of its rows and columns.

Coordinates and grid mappings follow the CF conventions 1.11 (chapters 4, 5 and 7), or common names if a file does not follow
them. Pixels are evenly spaced along x and y, unevenly (a Gaussian or EASE grid in degrees), or each has a latitude and longitude of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS
from pyproj.exceptions import CRSError

from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import GriddedSource
from smgeo.sources.gridded.cuts import Layout
from smgeo.sources.gridded.files import File, Stored
from smgeo.sources.gridded.lattices import Curved, Uneven
from smgeo.sources.gridded.packing import unpack_coordinate
from smgeo.sources.gridded.selection import list_values
from smgeo.sources.pixels.warp import same_pixels

_X_NAMES = ("lon", "longitude", "x", "nlon", "easting", "rlon")
_Y_NAMES = ("lat", "latitude", "y", "nlat", "northing", "rlat")
T_NAMES = ("time", "t", "date", "valid_time")
_EVEN = 0.01  # share of a step that is rounding
_ROUNDING = 0.005  # share of a pixel: coordinates that are further from evenly spaced ones are used as they are
_ANGLES = {"rad": 1.0, "radian": 1.0, "radians": 1.0, "urad": 1e-6, "microradian": 1e-6, "microradians": 1e-6}
_SMOOTH = 1.7  # neighbouring steps of an unevenly spaced axis differ by less; where a row is missing they differ by 2


def read_layout(
    variables: Mapping[str, Stored],
    stored: Stored,
    band: str,
    file: File,
    source: GriddedSource,
    known: dict[Hashable, Layout],
) -> Layout:
    """Return the order of a variable in its file, and its grid; `known` caches layouts by what they are made from.

    Raises
    ------
    SmgeoError
        If its dimensions, coordinates or CRS are not known or invalid.
    """
    axes = find_axes(variables, stored, band, file, source.select)
    places = _two_dimensional(variables, stored, axes, source.crs)
    if places is not None:
        return _curved_layout(variables, places, axes, file, source, known)
    height = _height(_mapping(variables, stored))
    (x, x_degrees), (y, y_degrees) = (_positions(variables, axes[a], file, height) for a in ("x", "y"))
    crs = _crs(variables, stored, band, file, source.crs, x_degrees and y_degrees)
    sizes = source.pixel_size or (None, None)
    given = [_edges(variables, axes[a], v, size, height) for a, v, size in (("x", x, sizes[0]), ("y", y, sizes[1]))]
    key = (*sorted(axes.items()), *(None if v is None else np.asarray(v).tobytes() for v in (x, y, *given)), crs)
    if key not in known:
        known[key] = lay_out(x, y, crs, axes, file, given)
    return known[key]


# Axes


def find_axes(
    variables: Mapping[str, Stored], stored: Stored, band: str, file: File, select: Mapping[str, int | float | str]
) -> dict[str, str]:
    """Return the dimension of each axis: x, y, and t if there is one.

    Raises
    ------
    SmgeoError
        If there is no x or y, or a longer dimension is none of them and not selected.
    """
    axes: dict[str, str] = {}
    others: list[str] = []
    known = {d: axis_of(variables, d) for d in stored.dims if d not in select}
    if not {"x", "y"} <= set(known.values()):
        known |= _plane(variables, stored)
    for dim, size in zip(stored.dims, stored.shape, strict=True):
        axis = known.get(dim)
        if dim in select:
            continue
        if axis is not None and axis not in axes:
            axes[axis] = dim
        elif size > 1:
            others.append(dim)
    if others:
        raise SmgeoError(_cannot_choose(variables, stored, band, file, others))
    if lacking := {"x", "y"} - set(axes):
        if shared := next(
            (d for d in stored.dims if {"x", "y"} <= {_axis_of_place(v) for v in along(variables, d)}), None
        ):
            raise SmgeoError(
                f"{file}: {band} is a list of pixels along {shared!r} (a reduced Gaussian or unstructured grid), which is not read; bring it onto a "
                "regular grid first, for example: cdo remapnn,r360x180 IN.nc OUT.nc"
            )
        raise SmgeoError(
            f"{file}: {band} has dimensions {', '.join(stored.dims)}, none of which is known as "
            f"{' or '.join(sorted(lacking))}; give their coordinates standard_name or axis (CF), or call them lon, lat or x, y"
        )
    return axes


def _cannot_choose(
    variables: Mapping[str, Stored], stored: Stored, band: str, file: File, others: Sequence[str]
) -> str:
    """Return the message for dimensions of which one position must be selected."""
    sizes = dict(zip(stored.dims, stored.shape, strict=True))
    listed = {d: list_values(variables, d, sizes[d]) for d in others}
    found = " and ".join(
        f"a dimension {d!r} of {sizes[d]} that is neither x, y nor time ({listed[d][0]})" for d in others
    )
    example = ", ".join(f"{d}: {listed[d][1]}" for d in others)
    return f"{file}: {band} has {found}; choose one position by its value, such as select: {{{example}}}"


def axis_of(variables: Mapping[str, Stored], dim: str) -> str | None:
    """Return the axis of a dimension ("x", "y", "t"), by CF attributes, then by common names."""
    for variable in along(variables, dim):
        attrs = variable.attrs
        axis = _axis_of_place(variable)
        if axis is not None:
            return axis
        if attrs.get("standard_name") == "time" or " since " in str(attrs.get("units", "")).lower():
            return "t"
        if (letter := str(attrs.get("axis", "")).upper()) in ("X", "Y", "T"):
            return letter.lower()
    lower = dim.lower()
    return "x" if lower in _X_NAMES else "y" if lower in _Y_NAMES else "t" if lower in T_NAMES else None


def _axis_of_place(variable: Stored) -> str | None:
    """Return "x" or "y" if the attributes of a variable call it longitude or latitude, or coordinates of a projection."""
    units, standard = str(variable.attrs.get("units", "")).lower(), variable.attrs.get("standard_name")
    if standard in (
        "longitude",
        "projection_x_coordinate",
        "projection_x_angular_coordinate",
        "grid_longitude",
    ) or re.match(r"degrees?_?e(ast)?$", units):
        return "x"
    if standard in (
        "latitude",
        "projection_y_coordinate",
        "projection_y_angular_coordinate",
        "grid_latitude",
    ) or re.match(r"degrees?_?n(orth)?$", units):
        return "y"
    return None


def along(variables: Mapping[str, Stored], dim: str) -> Iterator[Stored]:
    """Yield one-dimensional variables along a dimension, its own coordinate first."""
    own = variables.get(dim)
    if own is not None and own.dims == (dim,):
        yield own
    yield from (v for v in (variables[n] for n in variables if n != dim) if v.dims == (dim,))


# Coordinates


def _positions(variables: Mapping[str, Stored], dim: str, file: File, height: float | None) -> tuple[np.ndarray, bool]:
    """Return coordinates along a dimension, in degrees or metres, float64, and True if they are degrees."""
    stored = next(along(variables, dim), None)
    if stored is None:
        raise SmgeoError(f"{file}: dimension {dim!r} has no coordinates, so its place on Earth is unknown")
    units = str(stored.attrs.get("units", "")).lower()
    values = _as_meant(unpack_coordinate(np.asarray(stored.values[:]), stored.packing, f"{file}: {dim}"))
    if not np.isfinite(values).all():
        raise SmgeoError(f"{file}: {dim!r} has a coordinate that is missing, so the place of its pixels is unknown")
    degrees = _is_degrees(stored) or (not units and dim.lower() in (*_X_NAMES[:2], *_Y_NAMES[:2], "nlon", "nlat"))
    values = values * _factor(stored, height)
    if height is not None and values.size > 1 and np.abs(values).max() < 1:
        raise SmgeoError(
            f"{file}: {dim!r} is in {units or 'no unit'!r} and reaches {np.abs(values).max():g}, which is no distance in a projection; if these are "
            "scan angles, write its attribute units: rad"
        )
    return values, degrees


def _factor(stored: Stored, height: float | None) -> float:
    """Return the factor to degrees or metres. Scan angles of a geostationary satellite are metres at its height above the Earth."""
    unit = str(stored.attrs.get("units", "")).lower()
    angle = _ANGLES.get(unit)
    if angle is not None:
        return angle * (math.degrees(1) if height is None else height)
    if height is not None and unit.startswith("degree"):
        return math.radians(height)
    return 1000.0 if unit in ("km", "kilometre", "kilometer") else 1.0


def _mapping(variables: Mapping[str, Stored], stored: Stored) -> Stored | None:
    return variables.get(str(stored.attrs.get("grid_mapping", "")).split(":")[0].strip())


def _height(mapping: Stored | None) -> float | None:
    """Return the height of a geostationary satellite above the Earth; None in another projection."""
    if mapping is None or mapping.attrs.get("grid_mapping_name") != "geostationary":
        return None
    height = mapping.attrs.get("perspective_point_height")
    return float(height) if isinstance(height, int | float) else None


def _as_meant(values: np.ndarray) -> np.ndarray:
    """Return coordinates as float64. As float32, -179.95 is -179.9499969; the shortest number that is stored so was meant."""
    if values.dtype.kind == "f":
        single = values.astype("float32")
        if (single == values).all():  # float64 too, if it was made from float32
            return single.astype("U32").astype("float64")
    return values.astype("float64")


def _edges(
    variables: Mapping[str, Stored], dim: str, centres: np.ndarray, size: float | None, height: float | None
) -> np.ndarray | float | None:
    """Return the edges of the pixels along a dimension (CF 1.11, section 7.1), one more than pixels; else `size`.

    Only pixels whose edges their centres do not show are asked for.
    """
    if centres.size > 1 and _unevenness(centres) <= _ROUNDING:
        return size
    stored = next(along(variables, dim), None)
    names = [] if stored is None else [str(stored.attrs.get("bounds", ""))]
    for name in (*names, *(f"{dim}{end}" for end in ("_bnds", "_bounds", "_bnd"))):
        bounds = variables.get(name)
        if stored is not None and bounds is not None and bounds.shape == (centres.size, 2):
            values = _as_meant(
                unpack_coordinate(np.asarray(bounds.values[...]), bounds.packing or stored.packing, name)
            )
            values = values * _factor(stored, height)
            if np.isfinite(values).all() and np.allclose(values[1:, 0], values[:-1, 1]):
                return np.append(values[:, 0], values[-1, 1])
    return size


def _crs(
    variables: Mapping[str, Stored], stored: Stored, band: str, file: File, given: str | None, degrees: bool
) -> str:
    mapping = _mapping(variables, stored)
    try:
        if mapping is not None and mapping.attrs:
            return _crs_of_mapping(tuple(sorted(mapping.attrs.items())))
        if given is not None:
            return crs_text(CRS.from_user_input(given))
    except (CRSError, KeyError) as error:
        raise SmgeoError(f"{file}: the CRS of {band} is invalid: {error}") from None
    if not degrees:
        raise SmgeoError(f"{file}: {band} has neither a grid mapping nor coordinates in degrees; give crs: EPSG:...")
    return "EPSG:4326"


@lru_cache(maxsize=64)
def _crs_of_mapping(attrs: tuple[tuple[str, object], ...]) -> str:
    return crs_text(CRS.from_cf({k: list(v) if isinstance(v, tuple) else v for k, v in attrs}))


def crs_text(crs: CRS) -> str:
    """Return the EPSG entry if it is certain, else WKT of the parameters."""
    code = crs.to_epsg(min_confidence=100)
    return f"EPSG:{code}" if code is not None else crs.to_wkt()


# Rows and columns, evenly or smoothly spaced


def lay_out(
    x: np.ndarray,
    y: np.ndarray,
    crs: str,
    axes: Mapping[str, str],
    file: File,
    given: Sequence[np.ndarray | float | None] = (None, None),
) -> Layout:
    """Return the layout of rows and columns at coordinates; `given` is the edges of the pixels along x and y, or a pixel's width.

    Raises
    ------
    SmgeoError
        If they are neither evenly nor smoothly spaced, a single one has no width, or y is no latitude.
    """
    geographic = CRS.from_user_input(crs).is_geographic
    if geographic and np.abs(np.diff(x)).max(initial=0) > 180:
        x = np.unwrap(x, period=360)  # 358, 359, 0, 1
    (x, x_step), (y, y_step) = (_spacing(v, axes[a], file, g) for a, v, g in (("x", x, given[0]), ("y", y, given[1])))
    flip_x, flip_y = x_step < 0, y_step > 0
    x, y = x[::-1] if flip_x else x, y[::-1] if flip_y else y
    x_step, y_step = abs(x_step), abs(y_step)
    roll = 0
    if geographic:
        if np.abs(y).max() > 90 + y_step / 2:
            raise SmgeoError(
                f"{file}: {axes['y']!r} reaches {np.abs(y).max():g}, which is not a latitude; set crs if these are coordinates of a "
                "projection, or write x and y in their right order"
            )
        if np.abs(x).max() > 720:
            raise SmgeoError(
                f"{file}: {axes['x']!r} reaches {np.abs(x).max():g}, which is not a longitude; set crs if it is in a projection"
            )
        x, roll = _rolled(x, x_step)
    affine = Affine(x_step, 0, round(x[0] - x_step / 2, 9), 0, -y_step, round(y[0] + y_step / 2, 9))
    box = GeoBox((y.size, x.size), affine, crs)
    lattice = None
    if _unevenness(x) > _ROUNDING or _unevenness(y) > _ROUNDING:
        bounds = given[1] if isinstance(given[1], np.ndarray) else None
        lattice = Uneven.of(x, y, None if bounds is None else np.sort(bounds)[::-1], box)
    return Layout(axes["x"], axes["y"], axes.get("t"), box, roll, flip_x, flip_y, lattice)


def _spacing(values: np.ndarray, dim: str, file: File, given: np.ndarray | float | None) -> tuple[np.ndarray, float]:
    """Return coordinates of pixel centres, and the mean step between them, which is negative if they descend."""
    if values.size < 2:
        if given is None:
            raise SmgeoError(
                f"{file}: {dim!r} has one position and no bounds, so the size of a pixel is unknown; set pixel_size: its width in the units "
                "of the coordinates, or [width, height]"
            )
        if isinstance(given, float):
            return values, given
        return np.array([given.mean()]), abs(float(given[1] - given[0]))
    step = round(float(values[-1] - values[0]) / (values.size - 1), 12)
    steps = np.diff(values)
    worst = int(np.argmax(np.abs(steps - step)))
    if step == 0 or (abs(steps[worst] - step) > _EVEN * abs(step) and not _is_smooth(steps)):
        raise SmgeoError(
            f"{file}: {dim!r} is not evenly spaced: a step of {steps[worst]:g} after {values[worst]:g}, of {step:g} on average"
        )
    return values, step


def _is_smooth(steps: np.ndarray) -> bool:
    """Return True if coordinates go one way, in steps that differ little from one to the next."""
    if steps.size < 2 or not ((steps > 0).all() or (steps < 0).all()):
        return False
    ratios = steps[1:] / steps[:-1]
    return bool(ratios.max() < _SMOOTH and ratios.min() > 1 / _SMOOTH)


def _unevenness(values: np.ndarray) -> float:
    """Return how far coordinates are from evenly spaced ones, in steps."""
    if values.size < 3:
        return 0.0
    even = np.linspace(values[0], values[-1], values.size)
    return float(np.abs(values - even).max() / abs(even[1] - even[0]))


def _rolled(x: np.ndarray, step: float) -> tuple[np.ndarray, int]:
    """Return ascending longitudes that begin within -180 to 180, and the number of columns by which the file's are moved.

    Columns around the Earth begin at -180; others stay together, and go on beyond 180 if they cross that meridian.
    """
    x = x - 360 * np.floor((x[0] + 180 + 1e-9) / 360)
    if abs(x.size * step - 360) > step * 0.01 or x[-1] + step / 2 <= 180 + step * 0.51:
        return x, 0
    beyond = int((x >= 180 - 1e-9).sum())
    return np.concatenate([x[-beyond:] - 360, x[:-beyond]]), x.size - beyond


def in_grid_of(first: Layout, layout: Layout, where: str, first_file: str) -> Layout:
    """Return the order of a variable in a file, on the grid of the first file, from which it may differ by rounding.

    Raises
    ------
    SmgeoError
        If it is on another grid, with the numbers that differ.
    """
    if layout == first:
        return first
    if same_grid(layout, first):
        same_order = replace(layout, box=first.box, lattice=first.lattice)
        return first if same_order == first else same_order
    if layout.box.shape == first.box.shape and (layout.lattice or first.lattice):
        words = "the coordinates of its pixels differ"
    else:
        words = "; ".join(_differences(layout.box, first.box))
    raise SmgeoError(
        f"{where} is on another grid than in {first_file}: {words}. Name files of one grid in path, or bring the others onto it "
        "first, for example by gdalwarp or cdo"
    )


def same_grid(a: Layout, b: Layout) -> bool:
    """Return True if the pixels of two layouts are the same but for rounding of a hundredth of a pixel."""
    if a.lattice is not None and b.lattice is not None:
        return a.lattice.agrees(b.lattice)
    if a.lattice is not None or b.lattice is not None:
        return False
    return same_pixels(a.box, b.box)


def _differences(a: GeoBox, b: GeoBox) -> Iterator[str]:
    """Yield what differs between two grids, with as many digits as show it."""
    if a.crs != b.crs:
        yield f"its CRS is {_short(a)}, not {_short(b)}"
    if a.shape != b.shape:
        yield f"it has {a.shape.y} x {a.shape.x} pixels (rows x columns), not {b.shape.y} x {b.shape.x}"
    for words, p, q in (
        ("pixels are {} wide, not {}", a.affine.a, b.affine.a),
        ("pixels are {} high, not {}", -a.affine.e, -b.affine.e),
        ("it begins at x = {}, not {}", a.affine.c, b.affine.c),
        ("it begins at y = {}, not {}", a.affine.f, b.affine.f),
    ):
        if abs(p - q) > 1e-12 * max(abs(p), abs(q)):
            digits = next((n for n in range(6, 17) if f"{p:.{n}g}" != f"{q:.{n}g}"), 17)
            yield words.format(f"{p:.{digits}g}", f"{q:.{digits}g}")


def _short(box: GeoBox) -> str:
    text = str(box.crs)
    return text if len(text) < 40 else CRS.from_user_input(text).name


# Latitude and longitude of each pixel


def _plane(variables: Mapping[str, Stored], stored: Stored) -> dict[str, str]:
    """Return the dimensions of a variable along which latitude and longitude vary together, as y and x; empty if there are none."""
    found = _latitude_longitude(variables, stored)
    return dict(zip(variables[found[0]].dims[-2:], ("y", "x"), strict=True)) if found else {}


def _latitude_longitude(variables: Mapping[str, Stored], stored: Stored) -> tuple[str, str] | None:
    """Return the names of the two-dimensional latitude and longitude of a variable; None if there are none."""
    named = str(stored.attrs.get("coordinates", "")).split()
    found: dict[str, str] = {}
    for name in (*(n for n in named if n in variables), *variables):
        variable = variables[name]
        times = variable.dims[:-2]  # WRF repeats them at each time
        if len(variable.dims) not in (2, 3) or not set(variable.dims) <= set(stored.dims):
            continue
        if variable is stored or any(axis_of(variables, d) != "t" for d in times):
            continue
        standard = str(variable.attrs.get("standard_name", ""))
        start = name.lower().removeprefix("cell_").removeprefix("x")[:3]
        axis = _axis_of_place(variable) or {"lat": "y", "lon": "x"}.get(start)
        if axis is not None and not standard.startswith(("projection_", "grid_")):
            found.setdefault(axis, name)
    if len(found) < 2 or variables[found["y"]].dims != variables[found["x"]].dims:
        return None
    return found["y"], found["x"]


def _two_dimensional(
    variables: Mapping[str, Stored], stored: Stored, axes: Mapping[str, str], crs: str | None
) -> tuple[str, str] | None:
    """Return the names of latitude and longitude if they place the pixels; None if one-dimensional coordinates do."""
    coordinates = [next(along(variables, axes[a]), None) for a in ("x", "y")]
    mapped = crs is not None or str(stored.attrs.get("grid_mapping", "")).split(":")[0].strip() in variables
    if all(c is not None and (mapped or _is_degrees(c)) for c in coordinates):
        return None
    found = _latitude_longitude(variables, stored)
    return found if found and set(variables[found[0]].dims[-2:]) == {axes["x"], axes["y"]} else None


def _is_degrees(coordinate: Stored) -> bool:
    """Return True if a coordinate is a longitude or a latitude, and not one of a rotated pole."""
    rotated = str(coordinate.attrs.get("standard_name", "")).startswith("grid_")
    return str(coordinate.attrs.get("units", "")).lower().startswith("degree") and not rotated


def _curved_layout(
    variables: Mapping[str, Stored],
    places: tuple[str, str],
    axes: Mapping[str, str],
    file: File,
    source: GriddedSource,
    known: dict[Hashable, Layout],
) -> Layout:
    lattice = Curved.read(variables, (file, source.kind, source.group), places, axes["y"])
    key = (*sorted(axes.items()), lattice)
    if key not in known:
        box = lattice.approximate_box()
        known[key] = Layout(axes["x"], axes["y"], axes.get("t"), box, 0, False, False, lattice)
    return known[key]
