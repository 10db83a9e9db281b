"""A folder of matrices, cells by days, one CSV a variable and year: as a lazy station cube whose stations are the cells.

The layout is that of hydroDL's database (Fang et al. 2017, arXiv:1707.06611; its DATA.md): `YEAR/VARIABLE.csv` without
a header, one row a cell and one column a day; `YEAR/timeStr.csv` with the days as text, or `time.csv` as Matlab's day
numbers; `const/VARIABLE.csv` with one value a cell; `crd.csv` with latitude and longitude of each cell. A year's folder may run
from April to March: its days are what its table says.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, SmgeoWarning, nearest

# Matlab counts days from year 0; its 719529 is 1970-01-01.
_MATLAB_EPOCH = 719529
CELLS_PER_TASK = 4096
_CELLS_LOOKED_AT = 100


@dataclass(frozen=True)
class _Matrix:
    """How the files of one variable are read."""

    name: str
    file: str
    scale: float
    offset: float
    valid_range: tuple[float, float]
    units: str


def open_matrix(
    path: str | Path,
    depth_m: Any = None,
    period: tuple[Any, Any] | None = None,
    *,
    variables: Mapping[str, str | Mapping[str, Any]],
    static: Mapping[str, str | Mapping[str, Any]] | None = None,
    target: str = "sm",
    years: Sequence[int | str] | None = None,
    missing: float = -9999.0,
    network: str = "CELLS",
    coordinates: str = "crd.csv",
    dates: Sequence[str] = ("timeStr.csv", "time.csv"),
    static_folder: str = "const",
    catalog: Mapping[str, Feature] = FEATURES,
    cells_per_task: int = CELLS_PER_TASK,
) -> xr.Dataset:
    """Cells of a folder of matrices, as a lazy daily station cube.

    Parameters
    ----------
    path : str or Path
        The folder that holds the years' folders and `coordinates`.
    depth_m : optional
        Not used: a matrix has no depth.
    period : (date, date), optional
        First and last day; all days of the years by default.
    variables : mapping
        Variable -> name of its file without `.csv`, or a mapping with `file`, `scale`, `offset`: value = number * scale + offset,
        in the catalogue's unit. The target is among them.
    static : mapping, optional
        The same for variables that do not change, in `static_folder`.
    target : str
        The variable cells must have.
    years : sequence, optional
        Names of the folders; by default all that hold a table of days.
    missing : float
        The number that stands for a missing value.
    network : str
        Ids are `NETWORK/cell_0001`, counted from 1 in the order of rows.
    coordinates : str
        File of latitude, longitude without a header, one row a cell.
    dates : sequence of str
        Names of the table of days in a year's folder; the first that is there counts.
    static_folder : str
        Folder of the variables that do not change.
    catalog : mapping
        Kind, unit and valid range of each variable.
    cells_per_task : int
        Rows that one task reads; a task's memory is this times the days of a year.

    Returns
    -------
    xarray.Dataset
        Dims (station, time), float32, lazy: one task a file and block of cells. Diagnostics per cell, of the target:
        `days_read`, `days_missing`, `days_outside` (outside the catalogue's valid range, made missing). A file that is missing
        in some years is in `attrs["left_out"]` (JSON) and warned about.

    Raises
    ------
    SmgeoError
        If a folder, file or variable is missing, tables of days overlap or have gaps, or half of the values of a variable's
        first 100 cells are impossible; and, when computed, if a matrix has another shape than cells by days or a word is no number.
    """
    root = Path(path)
    if target not in variables:
        raise SmgeoError(f"{root}: variables does not say which file holds the target {target!r}")
    series = {n: _describe(n, v, catalog) for n, v in variables.items()}
    layers = {n: _describe(n, v, catalog) for n, v in (static or {}).items()}
    latitude, longitude = _read_coordinates(root / coordinates)
    cells = latitude.size
    folders = _read_days(root, years, dates)
    times = _days_of(root, folders, period)
    blocks = [(i, min(i + cells_per_task, cells)) for i in range(0, cells, cells_per_task)]
    data: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, matrix in series.items():
        values, absent = _lazy_series(root, matrix, folders, times, blocks, missing)
        left_out |= absent
        attrs = {**catalog[name].attrs(), "source": f"{matrix.file}.csv"}
        if name == target:
            data |= _counts(values, matrix)
        data[name] = (("station", "time"), _within(values, matrix), attrs)
    for name, matrix in layers.items():
        file = _existing(root / static_folder, matrix.file)
        _check_unit(file, matrix, missing)
        parts = [_lazy_block(file, matrix, block, 1, missing) for block in blocks]
        attrs = {**catalog[name].attrs(), "source": f"{static_folder}/{matrix.file}.csv"}
        data[name] = (("station",), _within(da.concatenate(parts)[:, 0], matrix), attrs)
    if left_out:
        warnings.warn(
            f"{root}: {len(left_out)} file(s) are missing, and so are their days: {', '.join(sorted(left_out)[:10])}",
            SmgeoWarning,
        )
    return xr.Dataset(data, _coordinates(network, latitude, longitude, times), {"left_out": json.dumps(left_out)})


def _describe(name: str, given: str | Mapping[str, Any], catalog: Mapping[str, Feature]) -> _Matrix:
    if name not in catalog:
        raise SmgeoError(
            f"matrices for unknown variable {name!r}; {nearest(name, list(catalog))}; or describe it in variables"
        )
    spec = {"file": given} if isinstance(given, str) else dict(given)
    if unknown := sorted(set(spec) - {"file", "scale", "offset"}):
        raise SmgeoError(f"variables.{name}: unknown {unknown[0]!r}; known: file, offset, scale")
    if not isinstance(spec.get("file"), str):
        raise SmgeoError(f"variables.{name} needs file: the matrix's name without .csv")
    feature = catalog[name]
    scale, offset = float(spec.get("scale", 1.0)), float(spec.get("offset", 0.0))
    return _Matrix(name, spec["file"].removesuffix(".csv"), scale, offset, feature.valid_range, feature.units)


def _read_coordinates(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise SmgeoError(f"{path} not found: a folder of matrices needs it for latitude and longitude of each cell")
    table = _numbers_of(path)
    if table.shape[1] != 2 or not (np.abs(table[:, 0]) <= 90).all() or not (np.abs(table[:, 1]) <= 360).all():
        raise SmgeoError(
            f"{path} must hold two columns, latitude and longitude, without a header; found {table.shape[1]} columns"
        )
    return table[:, 0], table[:, 1]


def _numbers_of(path: Path, **options: Any) -> np.ndarray:
    """Numbers of a CSV without header (rows, columns) float64; a word that is none is named with its line."""
    try:
        return pd.read_csv(path, header=None, dtype="float64", **options).to_numpy()
    except ValueError as error:
        first = options.get("skiprows", 0)
        words = pd.read_csv(path, header=None, dtype=str, names=range(4000), index_col=False, **options).dropna(
            axis=1, how="all"
        )
        numbers = words.apply(pd.to_numeric, errors="coerce")
        bad = np.argwhere((numbers.isna() & words.notna()).to_numpy())
        if bad.size:
            row, column = bad[0]
            raise SmgeoError(f"{path}, line {row + first + 1}: {words.iloc[row, column]!r} is no number") from None
        raise SmgeoError(f"{path} can't be read as a matrix: {error}") from None


def _read_days(root: Path, years: Sequence[int | str] | None, names: Sequence[str]) -> dict[str, pd.DatetimeIndex]:
    """Folder -> its days, in the order of time."""
    if not root.is_dir():
        raise SmgeoError(f"folder of matrices {root} not found (relative paths start at --data)")
    there = sorted(p.name for p in root.iterdir() if p.is_dir() and any((p / n).is_file() for n in names))
    wanted = [str(y) for y in years] if years is not None else there
    for year in wanted:
        if year not in there:
            raise SmgeoError(
                f"{root}: no folder {year!r} with a table of days ({' or '.join(names)}); {nearest(year, there)}"
            )
    if not wanted:
        raise SmgeoError(f"{root}: no folder holds a table of days ({' or '.join(names)})")
    folders = {
        year: _parse_days(next(root / year / n for n in names if (root / year / n).is_file())) for year in wanted
    }
    return dict(sorted(folders.items(), key=lambda item: item[1][0]))


def _parse_days(path: Path) -> pd.DatetimeIndex:
    words = [w.strip() for w in path.read_text(encoding="utf-8").split()]
    if words and all(w.isdigit() and len(w) == 6 for w in words):
        days = pd.DatetimeIndex(pd.to_datetime([int(w) - _MATLAB_EPOCH for w in words], unit="D"))
    else:
        days = pd.DatetimeIndex(pd.to_datetime(pd.Series(words, dtype=str), format="%Y-%m-%d", errors="coerce"))
    bad = np.flatnonzero(days.isna())
    if bad.size or not words:
        found = repr(words[bad[0]]) if bad.size else "nothing"
        raise SmgeoError(f"{path}, line {bad[0] + 1 if bad.size else 1}: {found} is no day such as 2015-04-01")
    steps = np.flatnonzero(np.diff(days.to_numpy()) != np.timedelta64(1, "D"))
    if steps.size:
        i = int(steps[0])
        raise SmgeoError(
            f"{path}, line {i + 2}: {days[i].date()} is followed by {days[i + 1].date()}; days must follow each other"
        )
    return days


def _days_of(root: Path, folders: Mapping[str, pd.DatetimeIndex], period: tuple[Any, Any] | None) -> pd.DatetimeIndex:
    pairs = list(folders.items())
    for (a, earlier), (b, later) in pairwise(pairs):
        if later[0] <= earlier[-1]:
            raise SmgeoError(f"{root}: {a} and {b} both hold {later[0].date()}; name the folders to be read in years")
    first, last = (pairs[0][1][0], pairs[-1][1][-1]) if period is None else map(pd.Timestamp, period)
    times = pd.date_range(first, last, freq="D", name="time")
    if not any(days.isin(times).any() for days in folders.values()):
        raise SmgeoError(
            f"{root}: no day between {first.date()} and {last.date()}; it has {pairs[0][1][0].date()} to {pairs[-1][1][-1].date()}"
        )
    return times


def _existing(folder: Path, stem: str) -> Path:
    file = folder / f"{stem}.csv"
    if not file.is_file():
        there = [p.stem for p in folder.glob("*.csv")] if folder.is_dir() else []
        raise SmgeoError(f"{file} not found; {nearest(stem, there)}")
    return file


def _lazy_series(
    root: Path,
    matrix: _Matrix,
    folders: Mapping[str, pd.DatetimeIndex],
    times: pd.DatetimeIndex,
    blocks: list[tuple[int, int]],
    missing: float,
) -> tuple[da.Array, dict[str, str]]:
    """A variable on all days (cells, time), NaN between folders; and files that are missing."""
    absent = {}
    parts: list[da.Array] = []
    cells, done, looked = blocks[-1][1], 0, False
    for year, days in folders.items():
        here = np.flatnonzero(days.isin(times))
        if not here.size:
            continue
        start = int(times.get_indexer(days[here[:1]])[0])
        parts.append(_nothing(cells, start - done))
        file = root / year / f"{matrix.file}.csv"
        if file.is_file():
            if not looked:
                _check_unit(file, matrix, missing)
                looked = True
            rows = [_lazy_block(file, matrix, block, days.size, missing) for block in blocks]
            parts.append(da.concatenate(rows)[:, here[0] : here[-1] + 1])
        else:
            absent[f"{year}/{file.name}"] = f"no such file: {matrix.name} is missing on its days"
            parts.append(_nothing(cells, here.size))
        done = start + here.size
    if not looked:
        _existing(root / next(iter(folders)), matrix.file)
        raise SmgeoError(f"{root}: no folder of the period holds {matrix.file}.csv")
    parts.append(_nothing(cells, times.size - done))
    return da.concatenate([p for p in parts if p.shape[1]], axis=1).rechunk({1: -1}), absent


def _nothing(cells: int, days: int) -> da.Array:
    return da.full((cells, days), np.nan, dtype="float32", chunks=(cells, days))


def _lazy_block(file: Path, matrix: _Matrix, block: tuple[int, int], columns: int, missing: float) -> da.Array:
    task = dask.delayed(_read_block, pure=True)(file, matrix, block, columns, missing)
    return da.from_delayed(task, (block[1] - block[0], columns), dtype="float32")


def _read_block(file: Path, matrix: _Matrix, block: tuple[int, int], columns: int, missing: float) -> np.ndarray:
    """Rows of one matrix in the catalogue's unit, float32, NaN where missing."""
    table = _numbers_of(file, skiprows=block[0], nrows=block[1] - block[0])
    if table.shape != (block[1] - block[0], columns):
        raise SmgeoError(
            f"{file}: {table.shape[0]} rows of {table.shape[1]} columns from line {block[0] + 1}, where {block[1] - block[0]} cells "
            f"and {columns} days must be; a row is a cell, a column a day"
        )
    values = np.where(table == missing, np.nan, table) * matrix.scale + matrix.offset
    return values.astype("float32")


def _check_unit(file: Path, matrix: _Matrix, missing: float) -> None:
    """Refuse a variable most of whose values are impossible, by the first cells of a file; the others are read lazily."""
    table = _numbers_of(file, nrows=_CELLS_LOOKED_AT)
    given = table[np.isfinite(table) & (table != missing)] * matrix.scale + matrix.offset
    low, high = matrix.valid_range
    middle = float(np.median(given)) if given.size else low
    if not low <= middle <= high:
        raise SmgeoError(
            f"{file}: half of the values of {matrix.name} lie beyond {middle:g}, outside {low:g} to {high:g} {matrix.units}; is "
            "the matrix in another unit? Convert it with scale and offset"
        )


def _within(values: da.Array, matrix: _Matrix) -> da.Array:
    low, high = matrix.valid_range
    return da.where((values >= low) & (values <= high), values, np.float32(np.nan))


def _counts(values: da.Array, matrix: _Matrix) -> dict[str, Any]:
    """Days of the target per cell: read, missing, outside the valid range."""
    missing = da.isnan(values).sum(axis=1).astype("int64")
    outside = da.isnan(_within(values, matrix)).sum(axis=1).astype("int64") - missing
    read = da.full(values.shape[0], values.shape[1], dtype="int64", chunks=values.chunks[0])
    words = {
        "days_read": (read, "days of the period"),
        "days_missing": (missing, "days without a value"),
        "days_outside": (outside, "days removed because their value is outside the valid range"),
    }
    attrs = {"kind": "diagnostic", "units": "1", "source": f"{matrix.file}.csv"}
    return {n: (("station",), v, {**attrs, "long_name": w}) for n, (v, w) in words.items()}


def _coordinates(network: str, latitude: np.ndarray, longitude: np.ndarray, times: pd.DatetimeIndex) -> dict[str, Any]:
    cells = latitude.size
    width = max(4, len(str(cells)))
    return {
        "station": np.array([f"{network}/cell_{i:0{width}d}" for i in range(1, cells + 1)], dtype=object),
        "time": times,
        "latitude": ("station", latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("station", longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        "station_elevation": ("station", np.full(cells, np.nan), {"units": "m"}),
        "network": ("station", np.array([network] * cells, dtype=object)),
        # As the other readers of stations, so that cubes can be put together.
        "sensors": ("station", np.array(["[]"] * cells, dtype=object), {"long_name": "sensors, JSON"}),
    }
