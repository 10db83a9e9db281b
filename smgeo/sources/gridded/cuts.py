"""Parts of a variable of a gridded file, unpacked, in the order of the grid.

The order of dimensions and rows in a file, and longitudes of 0 to 360, are undone here: callers see rows from north to
south and columns from west to east. See `packing` for its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from odc.geo.geobox import GeoBox

from smgeo.cube.tally import note_dropped
from smgeo.errors import SmgeoError
from smgeo.sources.gridded.csv_grids import read_csv
from smgeo.sources.gridded.file_formats import explain_read
from smgeo.sources.gridded.files import File, Stored, open_variables
from smgeo.sources.gridded.imerg import HALF_HOURS, LACKS_HALF_HOURS
from smgeo.sources.gridded.packing import OUTSIDE_FILE_RANGE, Packing, read_packing
from smgeo.sources.gridded.selection import Wanted, other_times, positions
from smgeo.sources.pixels.footprint import Footprints, tiles_of
from smgeo.sources.pixels.lattice import Lattice

# Values in the order of the file, (time, y, x), of a run of times, rows and columns.
Cut = Callable[[slice, slice, slice], np.ndarray]


@dataclass(frozen=True)
class Layout:
    """Order of a variable in its file, and its grid once columns and rows are in order.

    Attributes
    ----------
    x, y, time : str
        Names of its dimensions; `time` is None if it has none.
    box : GeoBox
        The grid, north up; with a lattice, a grid of as many pixels of the typical size.
    roll, flip_x, flip_y : int, bool, bool
        Ordered column i is the file's (i + roll) modulo the width, counted from the other end where flipped.
    lattice : Lattice or None
        Where the pixels are, if they are not evenly spaced.
    """

    x: str
    y: str
    time: str | None
    box: GeoBox
    roll: int
    flip_x: bool
    flip_y: bool
    lattice: Lattice | None = None

    def in_file(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns of the file for those of the ordered grid."""
        height, width = self.box.shape.yx
        columns = (columns + self.roll) % width
        return height - 1 - rows if self.flip_y else rows, width - 1 - columns if self.flip_x else columns


@dataclass(frozen=True)
class Reading:
    """How one variable is read: value = (unpacked value) * scale + offset.

    Attributes
    ----------
    name : str
        Its name in the cube.
    kind, band, group : str, str, str or None
        Kind of file, its name there, and the group that contains it.
    layout : Layout
        Its order in the file.
    tile : (int, int)
        Rows and columns of a file that are best read together.
    scale, offset : float
        Of the recipe, after those of the file.
    nodata : tuple of float
        Numbers in the file that mean missing, besides those that the file declares.
    power : bool
        Values are linear power of a variable in dB.
    honour_valid_range : bool
        Values outside the file's own valid range are missing.
    counts : str or None
        Variable of a daily file of IMERG with the number of half hours that each value is made from.
    select : tuple of (dimension, value)
        The position along each further dimension.
    others : tuple of (file, Layout)
        The layouts of files that have another order than `layout`.
    """

    name: str
    kind: str
    band: str
    group: str | None
    layout: Layout
    tile: tuple[int, int]
    scale: float
    offset: float
    nodata: tuple[float, ...]
    power: bool
    honour_valid_range: bool
    counts: str | None = None
    select: tuple[tuple[str, Wanted], ...] = ()
    others: tuple[tuple[File, Layout], ...] = ()

    def layout_in(self, file: File) -> Layout:
        """Return the order of the variable in a file."""
        return next((layout for other, layout in self.others if other == file), self.layout)

    def convert(self, values: np.ndarray) -> np.ndarray:
        """Return unpacked values in the cube's unit, or in linear power; float32."""
        if self.scale != 1 or self.offset != 0:
            values = values.astype("float64", copy=False) * self.scale + self.offset
        with np.errstate(over="ignore"):
            return values.astype("float32", copy=False)


@contextmanager
def open_band(file: File, reading: Reading) -> Iterator[Cut]:
    """Open the variable of a file and give a function that cuts parts of it: float32, missing as NaN, in the cube's units.

    Raises
    ------
    SmgeoError
        If the file cannot be opened or read.
    """
    counts: Cut | None = None
    other: np.ndarray | None = None
    with ExitStack() as stack:
        if reading.kind == "csv_grid":
            read: Cut = partial(read_csv, file)
            packing = read_packing(np.dtype("float64"), {}, str(file), nodata=reading.nodata)
        else:
            variables = stack.enter_context(open_variables(file, reading.kind, reading.group))
            stored = variables[reading.band]
            layout, select = reading.layout_in(file), dict(reading.select)
            picked = positions(variables, stored, reading.band, file, select) if select else {}
            other = other_times(variables, layout.time, select)
            read, packing = partial(_read_stored, stored, layout, picked), packing_of(stored, file, reading)
            if reading.counts is not None and reading.counts in variables:
                counts = partial(_read_stored, variables[reading.counts], layout, picked)

        def cut(run: slice, rows: slice, columns: slice) -> np.ndarray:
            try:
                numbers = read(run, rows, columns)
                half_hours = None if counts is None else counts(run, rows, columns)
            except (OSError, ValueError, RuntimeError) as error:  # of HDF5; of a Zarr store's codecs
                if isinstance(error, SmgeoError):
                    raise
                raise SmgeoError(f"{file}: {reading.band} cannot be read: {explain_read(error)}") from None
            values, excluded = packing.unpack(numbers)
            note_dropped(reading.name, OUTSIDE_FILE_RANGE, excluded)
            if half_hours is not None:
                part = (half_hours < HALF_HOURS) & ~np.isnan(values)
                note_dropped(reading.name, LACKS_HALF_HOURS, int(part.sum()))
                values[part] = np.nan
            if other is not None:  # times that are not selected
                values[other[run]] = np.nan
            return reading.convert(values)

        yield cut


def packing_of(stored: Stored, file: File, reading: Reading) -> Packing:
    """Return how the numbers of a stored variable are unpacked."""
    return read_packing(
        stored.values.dtype,
        stored.packing,
        f"{file}: {reading.band}",
        default_fills=reading.kind == "netcdf",
        nodata=reading.nodata,
        honour_valid_range=reading.honour_valid_range,
    )


def _read_stored(
    stored: Stored, layout: Layout, picked: dict[str, int], run: slice, rows: slice, columns: slice
) -> np.ndarray:
    """Return (time, y, x) in the order of the file, packed."""
    wanted: dict[str | None, slice] = {layout.x: columns, layout.y: rows, layout.time: run}
    values = np.asarray(stored.values[tuple(wanted.get(d, picked.get(d, 0)) for d in stored.dims)])
    kept = [d for d in stored.dims if d in wanted]
    values = values.transpose([kept.index(d) for d in (layout.time, layout.y, layout.x) if d is not None])
    return values if layout.time is not None else values[None]


def cut_window(cut: Cut, layout: Layout, run: slice, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """Return (time, y, x) of rows and columns of the ordered grid."""
    height, width = layout.box.shape.yx
    ((y, turn_y),) = segments(*rows, height, 0, layout.flip_y)
    parts = [
        cut(run, y, x)[:, :, :: -1 if turn else 1] for x, turn in segments(*columns, width, layout.roll, layout.flip_x)
    ]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
    return np.ascontiguousarray(values[:, ::-1] if turn_y else values)


def segments(start: int, stop: int, size: int, roll: int, flip: bool) -> list[tuple[slice, bool]]:
    """Return the positions in the file of ordered positions start..stop, as slices in order, each to be reversed or not.

    >>> segments(0, 4, 6, 4, False)  # columns of the file from its fifth on, then from its first
    [(slice(4, 6, None), False), (slice(0, 2, None), False)]
    >>> segments(0, 2, 6, 0, True)
    [(slice(4, 6, None), True)]
    """
    pieces = []
    for a, b, shift in ((start, min(stop, size - roll), roll), (max(start, size - roll), stop, roll - size)):
        if a < b:
            a, b = a + shift, b + shift
            pieces.append((slice(size - b, size - a) if flip else slice(a, b), flip))
    return pieces


@dataclass(frozen=True, eq=False)
class Scattered:
    """Pixels of a file, in tiles.

    Attributes
    ----------
    count : int
        Number of pixels.
    tiles : list of (positions, rows, columns, row, column)
        Positions among the pixels, the window of the file that contains them, and the row and column of each in it.
    """

    count: int
    tiles: list[tuple[np.ndarray, slice, slice, np.ndarray, np.ndarray]]

    @property
    def largest(self) -> int:
        """The number of values in the largest window."""
        return max(((y.stop - y.start) * (x.stop - x.start) for _, y, x, _, _ in self.tiles), default=1)


def scatter(pixels: Footprints, layout: Layout, tile: tuple[int, int]) -> Scattered:
    """Return the tiles of the file that contain the stations' pixels."""
    rows, columns = layout.in_file(pixels.rows, pixels.columns)
    tiles = []
    for mine in tiles_of(rows, columns, tile):
        (y0, y1), (x0, x1) = ((int(v[mine].min()), int(v[mine].max()) + 1) for v in (rows, columns))
        tiles.append((mine, slice(y0, y1), slice(x0, x1), rows[mine] - y0, columns[mine] - x0))
    return Scattered(len(rows), tiles)


def cut_pixels(cut: Cut, scattered: Scattered, run: slice) -> np.ndarray:
    """Return (time, pixel); each tile is read once."""
    out = np.empty((run.stop - run.start, scattered.count), dtype="float32")
    for mine, y, x, rows, columns in scattered.tiles:
        out[:, mine] = cut(run, y, x)[:, rows, columns]
    return out
