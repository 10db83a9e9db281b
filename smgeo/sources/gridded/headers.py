"""Headers of gridded files: the grid of a variable, its order in each file, its unit and its times.

Coordinates are those of `grids`, times those of `times`.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError

from smgeo.cube.damage import check_files
from smgeo.errors import SmgeoError, nearest
from smgeo.files import JsonObject
from smgeo.recipe.rasters import GriddedSource
from smgeo.sources.gridded.csv_grids import csv_header, open_text
from smgeo.sources.gridded.cuts import Layout
from smgeo.sources.gridded.files import File, Stored, open_variables
from smgeo.sources.gridded.grids import T_NAMES, along, crs_text, in_grid_of, lay_out, read_layout
from smgeo.sources.gridded.imerg import run_of
from smgeo.sources.gridded.selection import positions, selectable
from smgeo.sources.gridded.times import Times, read_times

_TILE = 256  # pixels a side: stations of one tile are read together


@dataclass(frozen=True)
class Header:
    """Header of one variable, from those of all files.

    Attributes
    ----------
    layout : Layout
        Its order in the first file, and its grid.
    orders : tuple of Layout
        Its order in each file.
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
    orders: tuple[Layout, ...]
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
    dims: set[str] = set()
    for file in files:
        if isinstance(file, Path):  # a store of smgeo's own knows its files; of others a missing chunk is fill value
            check_files(file)
        with open_variables(file, source.kind, source.group) as variables:
            runs.append(run_of(file, variables.file_attrs if not runs or runs[0] else dict))
            for name, band in source.bands.items():
                item = _describe(variables, str(band), name, file, source, known)
                first = found[name][0] if found[name] else item
                if item.units != first.units:
                    raise SmgeoError(f"{file}: {name} is in {item.units!r}, but in {files[0]} in {first.units!r}")
                layout = in_grid_of(first.layout, item.layout, f"{file}: {name}", str(files[0]))
                found[name].append(item._replace(layout=layout))
                dims |= {*variables[str(band)].dims, *selectable(variables, layout.time, source.select)}
    if unknown := [d for d in source.select if d not in dims]:
        raise SmgeoError(
            f"{source.label}: select names {unknown[0]!r}, which no file has; {nearest(unknown[0], sorted(dims))}"
        )
    return {name: _header(items, tuple(runs)) for name, items in found.items()}


def _header(items: list[_Item], runs: tuple[str | None, ...]) -> Header:
    first = items[0]
    return Header(
        layout=first.layout,
        orders=tuple(i.layout for i in items),
        units=first.units,
        tile=first.tile,
        times=tuple(i.times for i in items),
        runs=runs,
        step=first.step,
        fill=next((i.fill for i in items if i.fill is not None), None),
        counts=first.counts if runs[0] is not None else None,
    )


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
    layout = read_layout(variables, stored, band, file, source, known)
    positions(variables, stored, band, file, source.select)
    units = stored.attrs.get("units", stored.attrs.get("Units"))
    times = _times(variables, layout.time, file)
    count = dict(zip(stored.dims, stored.shape, strict=True)).get(layout.time or "", 1)
    if times is None and count > 1:
        raise SmgeoError(
            f"{file}: {band} has {count} times along {layout.time!r}, and no coordinate in units such as 'days since 1970-01-01' "
            "dates them"
        )
    unit = None if units is None else str(units)
    counts = f"{band}_cnt" if f"{band}_cnt" in variables else None
    return _Item(layout, unit, _tile(stored, layout), times, _step_in_words(stored.attrs), stored.fill, counts)


def _tile(stored: Stored, layout: Layout) -> tuple[int, int]:
    """Return rows and columns of whole chunks, about 256 a side, so that no chunk is read for two tiles."""
    chunks = dict(zip(stored.dims, stored.chunks or (), strict=False))
    y, x = (chunks.get(d, _TILE) for d in (layout.y, layout.x))
    return y * max(1, _TILE // y), x * max(1, _TILE // x)


def _times(variables: Mapping[str, Stored], dim: str | None, file: File) -> Times | None:
    """Return the times along a dimension, or the one of the file; None if the file has none."""
    candidates = along(variables, dim) if dim else (variables[n] for n in T_NAMES if n in variables)
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
        raise SmgeoError(f"{other} has other columns than {files[0]}; name files of one grid in path")
    x, y = _csv_positions(files[0], *first)
    try:
        crs = crs_text(CRS.from_user_input(source.crs or "EPSG:4326"))
    except CRSError as error:
        raise SmgeoError(f"{source.label}: crs {source.crs!r} is invalid: {error}") from None
    given = source.pixel_size or (None, None)
    layout = lay_out(x, y, crs, {"x": "longitude", "y": "latitude"}, files[0], given)
    # Text must be read from its beginning, so all stations are read at once.
    none = (None,) * len(files)
    return {n: Header(layout, (layout,) * len(files), None, layout.box.shape.yx, none, none) for n in source.bands}


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
