"""NetCDF, HDF5, Zarr and CSV grids: which files, their variables, and parts of them.

How a variable lies in its file (order of dimensions and rows, longitudes of 0 to 360) is undone as it is read: callers
see rows from north to south and columns from west to east.

Formats: CF conventions 1.11 for packing; GPM IMERG daily as the product's HDF5 headers
and the data set's page say (time, lon, lat, fill -9999.9; doi:10.5067/GPM/IMERGDF/DAY/07); NASA Earth Observations' CSV
(neo.gsfc.nasa.gov, DATASET_2016-01-01.CSV.gz: rows from north to south over the globe, 99999 where there is no value).
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox

from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import GriddedSource
from smgeo.sources.pixels.footprint import Footprints, tiles_of

File = Path | str  # a path, or a URL
# Values as they lie in the file, (time, y, x), of a run of times, rows and columns.
Cut = Callable[[slice, slice, slice], np.ndarray]

_HDF5_OWN = {"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates"}
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"


@dataclass(frozen=True, eq=False)
class Stored:
    """A variable as it lies in a file: `values[index]` reads a part of it, packed as it is."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    attrs: Mapping[str, Any]
    chunks: tuple[int, ...] | None
    values: Any


@dataclass(frozen=True)
class Layout:
    """How a variable lies in its file, and the grid it lies on once columns and rows are in order.

    Attributes
    ----------
    x, y, time : str
        Names of its dimensions; `time` is None where it has none.
    box : GeoBox
        The grid, north up.
    roll, flip_x, flip_y : int, bool, bool
        Ordered column i is the file's (i + roll) modulo the width, counted from the other end where flipped.
    """

    x: str
    y: str
    time: str | None
    box: GeoBox
    roll: int
    flip_x: bool
    flip_y: bool

    def in_file(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the file for those of the ordered grid."""
        height, width = self.box.shape.yx
        columns = (columns + self.roll) % width
        return height - 1 - rows if self.flip_y else rows, width - 1 - columns if self.flip_x else columns


@dataclass(frozen=True)
class Reading:
    """How one variable is read: value = (what the file's own packing gives, but for `nodata`) * scale + offset."""

    kind: str
    band: str
    group: str | None
    layout: Layout
    tile: tuple[int, int]
    scale: float
    offset: float
    nodata: float | None


# Which files


def list_files(source: GriddedSource, root: str | Path) -> list[File]:
    """The files a source reads (folders, for Zarr; URLs as they are), in the order of its patterns.

    Raises
    ------
    SmgeoError
        If a pattern matches nothing, or a URL is a pattern or carries a password or a query.
    """
    out: dict[File, None] = {}
    for pattern in source.patterns:
        found = [_checked_url(pattern)] if "://" in pattern else _matches(pattern, Path(root))
        if not found:
            raise SmgeoError(f"no {source.kind} grid matches {Path(root) / pattern} (relative paths start at --data)")
        out |= dict.fromkeys(found)
    return list(out)


def _matches(pattern: str, root: Path) -> list[File]:
    absolute = root / pattern
    if not re.search(r"[*?\[]", pattern):
        return [absolute] if absolute.exists() else []
    anchor = Path(absolute.anchor) if Path(pattern).is_absolute() else root
    return sorted(anchor.glob(str(absolute.relative_to(anchor))))


def _checked_url(url: str) -> File:
    if re.search(r"[*\[]", url):
        raise SmgeoError(f"{url}: files behind a URL cannot be listed by a pattern; give a list of URLs")
    if "?" in url or "@" in url:
        # A key in it would be kept in graphs and stores.
        raise SmgeoError(
            f"{re.split('[?]', url.split('@')[-1])[0]}: a URL with a password or a query; download the file"
        )
    return url


def file_state(file: File) -> tuple[Any, ...]:
    """Size and times of change; of a Zarr store, those of its root metadata; nothing of a URL."""
    if isinstance(file, str):
        return ()
    names = ("zarr.json", ".zmetadata", ".zgroup")
    stat = next((file / n for n in names if (file / n).is_file()), file).stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _file_system(url: str) -> Any:
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)[0]
    except ImportError as error:
        raise SmgeoError(
            f"{url}: reading a URL needs another package ({error}); pip install it, or download the file"
        ) from None


# Opening


@contextmanager
def open_variables(file: File, kind: str, group: str | None) -> Iterator[Mapping[str, Stored]]:
    """The variables of a NetCDF, HDF5 or Zarr group, and of the groups around it; values unread.

    Raises
    ------
    SmgeoError
        If the file cannot be opened as such, or has no such group.
    """
    with ExitStack() as stack:
        try:
            variables = (_zarr if kind == "zarr" else _netcdf)(file, group, stack)
        except (OSError, ValueError, KeyError, ImportError) as error:
            if isinstance(error, SmgeoError):
                raise
            where = f" (group {group!r})" if group else ""
            raise SmgeoError(f"{file}{where} cannot be opened as {kind}: {error}") from None
        yield variables


def _zarr(file: File, group: str | None, stack: ExitStack) -> Mapping[str, Stored]:
    if isinstance(file, str):
        _file_system(file)
    # Without this, a store that was not consolidated is read with a warning.
    listed = None if isinstance(file, str) or (file / (group or "") / ".zmetadata").is_file() else False
    return _of_dataset(
        stack.enter_context(xr.open_zarr(file, group=group, chunks=None, decode_cf=False, consolidated=listed))
    )


def _netcdf(file: File, group: str | None, stack: ExitStack) -> Mapping[str, Stored]:
    raw = stack.enter_context(_open_binary(file))
    classic = raw.read(3) == b"CDF"
    raw.seek(0)
    if classic:
        return _of_dataset(
            stack.enter_context(
                xr.open_dataset(raw if isinstance(file, str) else file, engine="scipy", decode_cf=False)
            )
        )
    opened = stack.enter_context(h5py.File(raw if isinstance(file, str) else file, "r", locking=False))
    return _Hdf5(opened[group] if group else opened)


def _open_binary(file: File) -> Any:
    return _file_system(file).open(file, "rb") if isinstance(file, str) else file.open("rb")


def _of_dataset(ds: xr.Dataset) -> dict[str, Stored]:
    return {
        str(n): Stored(tuple(map(str, v.dims)), v.shape, _plain(v.attrs), v.encoding.get("chunks"), v)
        for n, v in ds.variables.items()
    }


class _Hdf5(Mapping[str, Stored]):
    """Variables of an HDF5 group and those around it, by h5py alone: a tenth of the time xarray takes to open one."""

    def __init__(self, group: h5py.Group) -> None:
        self.scopes = [group]
        while self.scopes[-1].name != "/":
            self.scopes.append(self.scopes[-1].parent)
        self.known: dict[str, Stored] = {}

    def __getitem__(self, name: str) -> Stored:
        if name not in self.known:
            self.known[name] = self._find(name)
        return self.known[name]

    def _find(self, name: str) -> Stored:
        for scope in self.scopes:
            item = scope.get(name)
            if isinstance(item, h5py.Dataset) and not _text(item.attrs.get("NAME", "")).startswith(_NO_VARIABLE):
                attrs = _plain({k: item.attrs[k] for k in item.attrs if k not in _HDF5_OWN})
                return Stored(_hdf5_dims(item), item.shape, attrs, item.chunks, item)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys(n for scope in self.scopes for n in scope)
        return (n for n in names if n in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _hdf5_dims(item: h5py.Dataset) -> tuple[str, ...]:
    """Names of the scales of a dataset's dimensions; a scale's own name is that of its dimension."""
    if item.is_scale and item.ndim == 1:
        return (item.name.rsplit("/", 1)[-1],)
    scales = [d[0].name if len(d) else f"dimension {i + 1}" for i, d in enumerate(item.dims)]
    return tuple(str(s).rsplit("/", 1)[-1] for s in scales)


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as text, numbers and tuples of them."""
    out: dict[str, Any] = {}
    for key, value in attrs.items():
        value = np.asarray("" if isinstance(value, h5py.Empty) else value)
        items = [_text(v) if isinstance(v, bytes) else v for v in value.ravel().tolist()]
        out[str(key)] = items[0] if len(items) == 1 else tuple(items)
    return out


# CSV grids


@contextmanager
def open_text(file: File) -> Iterator[IO[str]]:
    """A CSV, plain or gz, as NEO's archive keeps them."""
    with _open_binary(file) as raw:
        plain = gzip.GzipFile(fileobj=raw) if str(file).lower().endswith(".gz") else raw
        with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as text:
            yield text


def csv_header(file: File) -> tuple[bool, int, str]:
    """Whether the first row names longitudes, the number of columns of values, and that row's longitudes."""
    try:
        with open_text(file) as raw:
            row = next(csv.reader(raw))
    except StopIteration:
        raise SmgeoError(f"{file} cannot be read as a CSV grid: it is empty") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SmgeoError(f"{file} cannot be read as a CSV grid: {error}") from None
    try:
        float(row[0])
    except ValueError:
        return True, len(row) - 1, ",".join(row[1:])
    return False, len(row), ""


def _read_csv(file: File, _run: slice, rows: slice, columns: slice) -> np.ndarray:
    """(1, y, x) of the table of values, as they lie in the file."""
    header, width, _ = csv_header(file)
    try:
        with open_text(file) as raw:
            table = pd.read_csv(
                raw,
                header=None,
                skiprows=rows.start + int(header),
                nrows=rows.stop - rows.start,
                usecols=range(columns.start + int(header), columns.stop + int(header)),
                dtype="float32",
            ).to_numpy()
    except (ValueError, EOFError) as error:
        raise SmgeoError(f"{file}: rows {rows.start + 1} to {rows.stop} cannot be read as numbers: {error}") from None
    if len(table) != rows.stop - rows.start:
        raise SmgeoError(
            f"{file} ends after {rows.start + len(table)} rows of values; a grid of {width} columns has more"
        )
    return table[None]


# Reading


@contextmanager
def open_band(file: File, reading: Reading) -> Iterator[Cut]:
    """The variable of an opened file, from which parts are cut: float32, missing as NaN, in the cube's units.

    Raises
    ------
    SmgeoError
        If the file cannot be opened or read.
    """
    with ExitStack() as stack:
        if reading.kind == "csv_grid":
            read: Cut = partial(_read_csv, file)
            attrs: Mapping[str, Any] = {}
        else:
            stored = stack.enter_context(open_variables(file, reading.kind, reading.group))[reading.band]
            read, attrs = partial(_read_stored, stored, reading.layout), stored.attrs
        try:
            yield lambda run, rows, columns: _convert(_unpack(read(run, rows, columns), attrs), reading)
        except OSError as error:
            raise SmgeoError(f"{file}: {reading.band} cannot be read: {error}") from None


def _read_stored(stored: Stored, layout: Layout, run: slice, rows: slice, columns: slice) -> np.ndarray:
    """(time, y, x) as it lies in the file, packed."""
    wanted: dict[str | None, slice] = {layout.x: columns, layout.y: rows, layout.time: run}
    values = np.asarray(stored.values[tuple(wanted.get(d, 0) for d in stored.dims)])
    kept = [d for d in stored.dims if d in wanted]
    values = values.transpose([kept.index(d) for d in (layout.time, layout.y, layout.x) if d is not None])
    return values if layout.time is not None else values[None]


def _unpack(raw: np.ndarray, attrs: Mapping[str, Any]) -> np.ndarray:
    """What packed values mean, float32 (CF 1.11, sections 2.5.1 and 8.1; `_Unsigned` is the netCDF libraries')."""
    missing = np.zeros(raw.shape, dtype=bool)
    for key in ("_FillValue", "missing_value"):
        for value in np.atleast_1d(attrs.get(key, ())):
            if np.issubdtype(value.dtype, np.number):
                missing |= raw == value.item()
    if str(attrs.get("_Unsigned", "")).lower() == "true" and raw.dtype.kind == "i":
        raw = raw.view(f"u{raw.dtype.itemsize}")
    scale, offset = (float(attrs.get(k, d)) for k, d in (("scale_factor", 1), ("add_offset", 0)))
    plain = scale == 1 and offset == 0
    values = raw.astype("float32") if plain else (raw.astype("float64") * scale + offset).astype("float32")
    values[missing] = np.nan
    return values


def _convert(values: np.ndarray, reading: Reading) -> np.ndarray:
    if reading.nodata is not None:
        values[values == np.float32(reading.nodata)] = np.nan
    if reading.scale != 1 or reading.offset != 0:
        values = (values.astype("float64") * reading.scale + reading.offset).astype("float32")
    return values


def cut_window(cut: Cut, layout: Layout, run: slice, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """(time, y, x) of rows and columns of the ordered grid."""
    height, width = layout.box.shape.yx
    ((y, turn_y),) = segments(*rows, height, 0, layout.flip_y)
    parts = [
        cut(run, y, x)[:, :, :: -1 if turn else 1] for x, turn in segments(*columns, width, layout.roll, layout.flip_x)
    ]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
    return np.ascontiguousarray(values[:, ::-1] if turn_y else values)


def segments(start: int, stop: int, size: int, roll: int, flip: bool) -> list[tuple[slice, bool]]:
    """Where ordered positions start..stop lie in the file, as slices in order, each to be turned round or not.

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
        How many pixels.
    tiles : list of (positions, rows, columns, row, column)
        Positions among the pixels, the window of the file that holds them, and the row and column of each in it.
    """

    count: int
    tiles: list[tuple[np.ndarray, slice, slice, np.ndarray, np.ndarray]]

    @property
    def largest(self) -> int:
        """Values in the largest window."""
        return max(((y.stop - y.start) * (x.stop - x.start) for _, y, x, _, _ in self.tiles), default=1)


def scatter(pixels: Footprints, reading: Reading) -> Scattered:
    """The tiles of the file that hold the stations' pixels."""
    rows, columns = reading.layout.in_file(pixels.rows, pixels.columns)
    tiles = []
    for mine in tiles_of(rows, columns, reading.tile):
        (y0, y1), (x0, x1) = ((int(v[mine].min()), int(v[mine].max()) + 1) for v in (rows, columns))
        tiles.append((mine, slice(y0, y1), slice(x0, x1), rows[mine] - y0, columns[mine] - x0))
    return Scattered(len(rows), tiles)


def cut_pixels(cut: Cut, scattered: Scattered, run: slice) -> np.ndarray:
    """(time, pixel), each tile read once."""
    out = np.empty((run.stop - run.start, scattered.count), dtype="float32")
    for mine, y, x, rows, columns in scattered.tiles:
        out[:, mine] = cut(run, y, x)[:, rows, columns]
    return out
