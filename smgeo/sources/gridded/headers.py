"""Headers of gridded files: the grid of a variable, its order in the file, its unit and its times.

Coordinates and grid mappings follow the CF conventions 1.11 (chapters 4 and 5.6), or common names if a file does
not follow them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS
from pyproj.exceptions import CRSError

from smgeo.errors import SmgeoError, nearest
from smgeo.files import JsonObject
from smgeo.recipe.rasters import GriddedSource
from smgeo.sources.gridded.csv_grids import csv_header, open_text
from smgeo.sources.gridded.cuts import Layout
from smgeo.sources.gridded.files import File, Stored, open_variables
from smgeo.sources.gridded.imerg import run_of
from smgeo.sources.gridded.times import Times, read_times

_X_NAMES = ("lon", "longitude", "x", "nlon", "easting")
_Y_NAMES = ("lat", "latitude", "y", "nlat", "northing")
_T_NAMES = ("time", "t", "date", "valid_time")
_TILE = 256  # pixels a side: stations of one tile are read together


@dataclass(frozen=True)
class Header:
    """Header of one variable, from those of all files.

    Attributes
    ----------
    layout : Layout
        Its order in each file, and its grid.
    units : str or None
        As written in the files.
    tile : (int, int)
        Rows and columns of a file that are best read together.
    times : tuple
        Its times in each file; None if a file has none.
    runs : tuple
        The run of IMERG of each file; None if it is of another product.
    step : str or None
        The attribute that says how a value relates to the time step, such as `GRIB_stepType: accum`.
    fill : float or None
        A fill value of a Zarr array that no attribute declares.
    counts : str or None
        Variable with the number of half hours that each value is made from (daily files of IMERG).
    """

    layout: Layout
    units: str | None
    tile: tuple[int, int]
    times: tuple[Times | None, ...]
    runs: tuple[str | None, ...]
    step: str | None = None
    fill: float | None = None
    counts: str | None = None


class _Item(NamedTuple):
    """Header of one variable of one file."""

    layout: Layout
    units: str | None
    tile: tuple[int, int]
    times: Times | None
    step: str | None
    fill: float | None
    counts: str | None


def read_headers(files: list[File], source: GriddedSource) -> dict[str, Header]:
    """Return the header of each variable, in which all files must agree.

    Raises
    ------
    SmgeoError
        If a variable, its coordinates, CRS or times are missing or invalid, coordinates are not evenly spaced,
        or a file has another grid or unit than the first.
    """
    if source.kind == "csv_grid":
        return _csv_headers(files, source)
    found: dict[str, list[_Item]] = {n: [] for n in source.bands}
    known: dict[Hashable, Layout] = {}
    runs: list[str | None] = []
    for file in files:
        with open_variables(file, source.kind, source.group) as variables:
            runs.append(run_of(file, variables.file_attrs if not runs or runs[0] else dict))
            for name, band in source.bands.items():
                item = _describe(variables, str(band), name, file, source, known)
                found[name].append(item)
                _refuse_another(file, files[0], name, item, found[name][0])
    out = {}
    for name, items in found.items():
        first, fill = items[0], next((i.fill for i in items if i.fill is not None), None)
        times, counts = tuple(i.times for i in items), first.counts if runs[0] is not None else None
        out[name] = Header(first.layout, first.units, first.tile, times, tuple(runs), first.step, fill, counts)
    return out


def _describe(
    variables: Mapping[str, Stored],
    band: str,
    name: str,
    file: File,
    source: GriddedSource,
    known: dict[Hashable, Layout],
) -> _Item:
    """Describe one variable of one file. `known` caches layouts by their coordinates and CRS."""
    if band not in variables:
        names = [n for n in variables if len(variables[n].dims) > 1] or ["(no variable: is a group missing?)"]
        raise SmgeoError(f"{file} has no variable {band!r} (for {name}); {nearest(band, names)}")
    stored = variables[band]
    axes = _axes(variables, stored, band, file)
    (x, x_degrees), (y, y_degrees) = (_positions(variables, axes[a], file) for a in ("x", "y"))
    crs = _crs(variables, stored, band, file, source.crs, x_degrees and y_degrees)
    key = (*sorted(axes.items()), x.tobytes(), y.tobytes(), crs)
    if key not in known:
        known[key] = _lay_out(x, y, crs, axes, file)
    units = stored.attrs.get("units", stored.attrs.get("Units"))
    times = _times(variables, axes.get("t"), file)
    count = dict(zip(stored.dims, stored.shape, strict=True)).get(axes.get("t", ""), 1)
    if times is None and count > 1:
        raise SmgeoError(
            f"{file}: {band} has {count} times along {axes['t']!r}, and no coordinate in units such as 'days since 1970-01-01' "
            "dates them"
        )
    unit = None if units is None else str(units)
    counts = f"{band}_cnt" if f"{band}_cnt" in variables else None
    return _Item(known[key], unit, _tile(stored, axes), times, _step_in_words(stored.attrs), stored.fill, counts)


def _refuse_another(file: File, first_file: File, name: str, item: _Item, first: _Item) -> None:
    layout, units, first_layout, first_units = item.layout, item.units, first.layout, first.units
    if layout != first_layout:
        a, b = layout.box, first_layout.box
        raise SmgeoError(
            f"{file}: {name} is on another grid ({a.shape.yx} pixels from {a.affine.c:g}, {a.affine.f:g}) than in {first_file} "
            f"({b.shape.yx} from {b.affine.c:g}, {b.affine.f:g}); give one source for each grid"
        )
    if units != first_units:
        raise SmgeoError(f"{file}: {name} is in {units!r}, but in {first_file} in {first_units!r}")


def _tile(stored: Stored, axes: Mapping[str, str]) -> tuple[int, int]:
    """Return rows and columns of whole chunks, about 256 a side, so that no chunk is read for two tiles."""
    chunks = dict(zip(stored.dims, stored.chunks or (), strict=False))
    y, x = (chunks.get(axes[a], _TILE) for a in ("y", "x"))
    return y * max(1, _TILE // y), x * max(1, _TILE // x)


def _axes(variables: Mapping[str, Stored], stored: Stored, band: str, file: File) -> dict[str, str]:
    """Return the dimension of each axis: x, y, and t if there is one."""
    axes: dict[str, str] = {}
    for dim, size in zip(stored.dims, stored.shape, strict=True):
        axis = _axis_of(variables, dim)
        if axis is not None and axis not in axes:
            axes[axis] = dim
        elif size > 1:
            raise SmgeoError(f"{file}: {band} has a dimension {dim!r} of {size} that is neither x, y nor time")
    if lacking := {"x", "y"} - set(axes):
        raise SmgeoError(
            f"{file}: {band} has dimensions {', '.join(stored.dims)}, none of which is known as "
            f"{' or '.join(sorted(lacking))}; give their coordinates standard_name or axis (CF), or call them lon, lat or x, y"
        )
    return axes


def _axis_of(variables: Mapping[str, Stored], dim: str) -> str | None:
    """Return the axis of a dimension ("x", "y", "t"), by CF attributes, then by common names."""
    for variable in _along(variables, dim):
        attrs = variable.attrs
        units = str(attrs.get("units", "")).lower()
        standard, axis = attrs.get("standard_name"), str(attrs.get("axis", "")).upper()
        if standard in ("longitude", "projection_x_coordinate") or re.match(r"degrees?_?e(ast)?$", units):
            return "x"
        if standard in ("latitude", "projection_y_coordinate") or re.match(r"degrees?_?n(orth)?$", units):
            return "y"
        if standard == "time" or " since " in units:
            return "t"
        if axis in ("X", "Y", "T"):
            return axis.lower()
    lower = dim.lower()
    return "x" if lower in _X_NAMES else "y" if lower in _Y_NAMES else "t" if lower in _T_NAMES else None


def _along(variables: Mapping[str, Stored], dim: str) -> Iterator[Stored]:
    """Yield one-dimensional variables along a dimension, its own coordinate first."""
    own = variables.get(dim)
    if own is not None and own.dims == (dim,):
        yield own
    yield from (v for v in (variables[n] for n in variables if n != dim) if v.dims == (dim,))


def _positions(variables: Mapping[str, Stored], dim: str, file: File) -> tuple[np.ndarray, bool]:
    """Return coordinates along a dimension, in degrees or metres, float64, and True if they are degrees."""
    stored = next(_along(variables, dim), None)
    if stored is None:
        raise SmgeoError(f"{file}: dimension {dim!r} has no coordinates, so its place on Earth is unknown")
    units = str(stored.attrs.get("units", "")).lower()
    values = np.asarray(stored.values[:])
    # As float32, -179.95 is -179.9499969; the shortest number that is stored so was meant.
    values = (values.astype("U32") if values.dtype == np.float32 else values).astype("float64")
    degrees = units.startswith("degree") or (
        not units and dim.lower() in (*_X_NAMES[:2], *_Y_NAMES[:2], "nlon", "nlat")
    )
    return (values * 1000 if units in ("km", "kilometre", "kilometer") else values), degrees


def _crs(
    variables: Mapping[str, Stored], stored: Stored, band: str, file: File, given: str | None, degrees: bool
) -> str:
    mapping = variables.get(str(stored.attrs.get("grid_mapping", "")).split(":")[0].strip())
    try:
        if mapping is not None and mapping.attrs:
            return _crs_of_mapping(tuple(sorted(mapping.attrs.items())))
        if given is not None:
            return _crs_text(CRS.from_user_input(given))
    except (CRSError, KeyError) as error:
        raise SmgeoError(f"{file}: the CRS of {band} is invalid: {error}") from None
    if not degrees:
        raise SmgeoError(f"{file}: {band} has neither a grid mapping nor coordinates in degrees; give crs: EPSG:...")
    return "EPSG:4326"


@lru_cache(maxsize=64)
def _crs_of_mapping(attrs: tuple[tuple[str, object], ...]) -> str:
    return _crs_text(CRS.from_cf({k: list(v) if isinstance(v, tuple) else v for k, v in attrs}))


def _crs_text(crs: CRS) -> str:
    """Return the EPSG entry if it is certain, else WKT of the parameters."""
    code = crs.to_epsg(min_confidence=100)
    return f"EPSG:{code}" if code is not None else crs.to_wkt()


def _lay_out(x: np.ndarray, y: np.ndarray, crs: str, axes: Mapping[str, str], file: File) -> Layout:
    x_step, y_step = _step(x, axes["x"], file), _step(y, axes["y"], file)
    flip_x, flip_y = x_step < 0, y_step > 0
    x, y = x[::-1] if flip_x else x, y[::-1] if flip_y else y
    x_step, y_step = abs(x_step), abs(y_step)
    roll = 0
    if CRS.from_user_input(crs).is_geographic:
        if abs(y).max() > 90 + y_step / 2:
            raise SmgeoError(f"{file}: {axes['y']} reaches {abs(y).max():g}, which is not a latitude")
        x, roll = _rolled(x, x_step, axes["x"], file)
    affine = Affine(x_step, 0, round(x[0] - x_step / 2, 9), 0, -y_step, round(y[0] + y_step / 2, 9))
    return Layout(axes["x"], axes["y"], axes.get("t"), GeoBox((y.size, x.size), affine, crs), roll, flip_x, flip_y)


def _step(values: np.ndarray, dim: str, file: File) -> float:
    if values.size < 2:
        raise SmgeoError(f"{file}: {dim!r} has one position, so the size of a pixel is unknown")
    step = round(float(values[-1] - values[0]) / (values.size - 1), 12)
    steps = np.diff(values)
    worst = int(np.argmax(np.abs(steps - step)))
    if step == 0 or abs(steps[worst] - step) > 0.01 * abs(step):
        raise SmgeoError(
            f"{file}: {dim!r} is not evenly spaced: a step of {steps[worst]:g} after {values[worst]:g}, of {step:g} on average"
        )
    return step


def _rolled(x: np.ndarray, step: float, dim: str, file: File) -> tuple[np.ndarray, int]:
    """Return longitudes within -180 to 180, and the number of columns by which the file's are moved."""
    beyond = int((x >= 180 - 1e-9).sum()) if x[-1] + step / 2 > 180 + step * 0.51 else 0
    if beyond == 0:
        return x, 0
    if beyond == x.size:
        return x - 360, 0
    if abs(x.size * step - 360) > step * 0.01:
        raise SmgeoError(
            f"{file}: {dim!r} goes from {x[0]:g} to {x[-1]:g}, across the 180th meridian but not around the Earth; "
            "cut it there into two sources"
        )
    return np.concatenate([x[-beyond:] - 360, x[:-beyond]]), x.size - beyond


def _times(variables: Mapping[str, Stored], dim: str | None, file: File) -> Times | None:
    """Return the times along a dimension, or the one of the file; None if the file has none."""
    candidates = _along(variables, dim) if dim else (variables[n] for n in _T_NAMES if n in variables)
    stored = next((v for v in candidates if " since " in str(v.attrs.get("units", ""))), None)
    if stored is None or (dim is None and np.prod(stored.shape) != 1):
        return None
    return read_times(stored, variables, file)


def _step_in_words(attrs: JsonObject) -> str | None:
    if "GRIB_stepType" in attrs:
        return f"GRIB_stepType: {attrs['GRIB_stepType']}"
    methods = str(attrs.get("cell_methods", ""))
    return f"cell_methods: {methods}" if "accum" in methods.lower() else None


# CSV grids


def _csv_headers(files: list[File], source: GriddedSource) -> dict[str, Header]:
    first = csv_header(files[0])
    if other := next((f for f in files[1:] if csv_header(f)[1:] != first[1:]), None):
        raise SmgeoError(f"{other} has other columns than {files[0]}; give one source for each grid")
    x, y = _csv_positions(files[0], *first)
    try:
        crs = _crs_text(CRS.from_user_input(source.crs or "EPSG:4326"))
    except CRSError as error:
        raise SmgeoError(f"{source.label}: crs {source.crs!r} is invalid: {error}") from None
    layout = _lay_out(x, y, crs, {"x": "longitude", "y": "latitude"}, files[0])
    # Text must be read from its beginning, so all stations are read at once.
    none = (None,) * len(files)
    return {n: Header(layout, None, layout.box.shape.yx, none, none) for n in source.bands}


def _csv_positions(file: File, header: bool, width: int, row: str) -> tuple[np.ndarray, np.ndarray]:
    """Return longitudes and latitudes: those of the table's header and first column, or without a header the globe's."""
    if not header:
        if width < 4 or width % 2:
            raise SmgeoError(
                f"{file} has {width} columns and no header, so it is not a grid of square pixels over the globe"
            )
        step = 360 / width
        return -180 + step * (np.arange(width) + 0.5), 90 - step * (np.arange(width // 2) + 0.5)
    try:
        x = np.array([float(v) for v in row.split(",")])
        with open_text(file) as raw:
            y = np.array([float(line.split(",", 1)[0]) for line in itertools.islice(raw, 1, None) if line.strip()])
    except ValueError as error:
        raise SmgeoError(
            f"{file}: longitudes (first row) or latitudes (first column) are not numbers: {error}"
        ) from None
    return x, y
