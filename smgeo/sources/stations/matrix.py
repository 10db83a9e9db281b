# Functions of dask.array have no types.
# mypy: untyped-calls-exclude="dask"
"""A folder of matrices, cells by days, one CSV a variable and year, as a lazy station cube whose stations are the cells.

The layout is that of hydroDL's database (Fang et al. 2017, arXiv:1707.06611; its DATA.md): `YEAR/VARIABLE.csv` without
a header, one row a cell and one column a day; `YEAR/timeStr.csv` with the days as text, or `time.csv` as Matlab's day
numbers; `const/VARIABLE.csv` with one value a cell; `crd.csv` with latitude and longitude of each cell. A year's folder may run
from April to March: its days are those of its table.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.delayed import delayed

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, SmgeoWarning, nearest
from smgeo.recipe.stations import MatrixFile, MatrixSource
from smgeo.sources.stations.layout import Entry, Period, count, day_axis, station_coordinates

# Matlab counts days from year 0; its 719529 is 1970-01-01.
_MATLAB_EPOCH = 719529
CELLS_PER_TASK = 4096
_CELLS_CHECKED = 100


@dataclass(frozen=True)
class _Matrix:
    """How the files of one variable are read."""

    name: str
    file: str
    scale: float
    offset: float
    missing: float
    valid_range: tuple[float, float]
    units: str


def open_matrix(
    spec: MatrixSource,
    *,
    root: str | Path = ".",
    target: str = "sm",
    depth_m: tuple[float, float] | None = None,
    period: Period | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
    cells_per_task: int = CELLS_PER_TASK,
) -> xr.Dataset:
    """Return the cells of a folder of matrices as a lazy daily station cube.

    Parameters
    ----------
    spec, root, target, period, catalog
        As in `smgeo.sources.stations.ismn.open_ismn`.
    depth_m : optional
        Not used: a matrix has no depth, and the range of a recipe describes its values.
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
        first 100 cells are impossible; and, when computed, if a matrix has another shape than cells by days or contains a word.
    """
    path = Path(root) / spec.path
    _check_variables(spec, target, catalog, path)
    latitude, longitude = _read_coordinates(path / spec.coordinates)
    cells = latitude.size
    folders = _read_days(path, spec.years, spec.dates)
    times = _days_of(path, folders, period)
    blocks = [(i, min(i + cells_per_task, cells)) for i in range(0, cells, cells_per_task)]
    data: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    for name, file in spec.variables.items():
        matrix = _describe(name, file, spec, catalog)
        values, absent = _lazy_series(path, matrix, folders, times, blocks)
        left_out |= absent
        if name == target:
            data |= _counts(values, matrix)
        attrs = {**catalog[name].attrs(), "source": f"{matrix.file}.csv"}
        data[name] = ("station", "time"), _within(values, matrix), attrs
    for name, file in spec.static.items():
        matrix = _describe(name, file, spec, catalog)
        attrs = {**catalog[name].attrs(), "source": f"{spec.static_folder}/{matrix.file}.csv"}
        data[name] = ("station",), _lazy_layer(path / spec.static_folder, matrix, blocks), attrs
    if left_out:
        warnings.warn(
            f"{path}: {len(left_out)} file(s) are missing, and so are their days: {', '.join(sorted(left_out)[:10])}",
            SmgeoWarning,
        )
    width = max(4, len(str(cells)))
    coords = station_coordinates(
        [f"{spec.network}/cell_{i:0{width}d}" for i in range(1, cells + 1)],
        times,
        latitude,
        longitude,
        elevation=np.full(cells, np.nan),
        networks=[spec.network] * cells,
        sensors=["[]"] * cells,
        target=None,
    )
    return xr.Dataset(data, coords, {"left_out": json.dumps(left_out)})


def _check_variables(spec: MatrixSource, target: str, catalog: Mapping[str, Feature], path: Path) -> None:
    faults = [
        f"matrices for unknown variable {n!r}; {nearest(n, list(catalog))}; or describe it in variables"
        for n in [*spec.variables, *spec.static]
        if n not in catalog
    ]
    if target not in spec.variables:
        faults.append(f"`variables` does not name the file of the target {target!r}")
    if faults:
        raise SmgeoError(f"{path}: {'; '.join(faults)}")


def _describe(name: str, file: MatrixFile, spec: MatrixSource, catalog: Mapping[str, Feature]) -> _Matrix:
    feature, stem = catalog[name], file.file.removesuffix(".csv")
    return _Matrix(name, stem, file.scale, file.offset, spec.missing, feature.valid_range, feature.units)


def _read_coordinates(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise SmgeoError(f"{path} not found: a folder of matrices needs it for latitude and longitude of each cell")
    table = _numbers_of(path)
    if table.shape[1] != 2 or not (np.abs(table[:, 0]) <= 90).all() or not (np.abs(table[:, 1]) <= 360).all():
        raise SmgeoError(
            f"{path} must contain two columns, latitude and longitude in degrees, without a header; found {table.shape[1]} columns"
        )
    return table[:, 0], table[:, 1]


def _numbers_of(path: Path, skip: int = 0, rows: int | None = None) -> np.ndarray:
    """Return the numbers of a CSV without header (rows, columns) float64; a word raises an error with its line."""
    try:
        table = pd.read_csv(path, header=None, dtype="float64", skiprows=skip, nrows=rows)
    except ValueError as error:
        words = pd.read_csv(
            path, header=None, dtype=str, names=range(4000), index_col=False, skiprows=skip, nrows=rows
        ).dropna(axis=1, how="all")
        numbers = words.apply(pd.to_numeric, errors="coerce")
        bad = np.argwhere((numbers.isna() & words.notna()).to_numpy())
        if bad.size:
            row, column = bad[0]
            raise SmgeoError(f"{path}, line {row + skip + 1}: {words.iloc[row, column]!r} is not a number") from None
        raise SmgeoError(f"{path} cannot be read as a matrix: {error}") from None
    return np.asarray(table)


def _read_days(root: Path, years: Sequence[int | str] | None, names: Sequence[str]) -> dict[str, pd.DatetimeIndex]:
    """Return the days of each folder, in the order of time."""
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
        raise SmgeoError(f"{root}: no folder contains a table of days ({' or '.join(names)})")
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
        raise SmgeoError(f"{path}, line {bad[0] + 1 if bad.size else 1}: {found} is not a day such as 2015-04-01")
    steps = np.flatnonzero(np.diff(days.to_numpy()) != np.timedelta64(1, "D"))
    if steps.size:
        i = int(steps[0])
        raise SmgeoError(
            f"{path}, line {i + 2}: {days[i].date()} is followed by {days[i + 1].date()}; days must be consecutive"
        )
    return days


def _days_of(root: Path, folders: Mapping[str, pd.DatetimeIndex], period: Period | None) -> pd.DatetimeIndex:
    pairs = list(folders.items())
    for (a, earlier), (b, later) in pairwise(pairs):
        if later[0] <= earlier[-1]:
            raise SmgeoError(f"{root}: {a} and {b} both contain {later[0].date()}; name the folders to read in years")
    start, end = pairs[0][1][0], pairs[-1][1][-1]
    times = day_axis(*(period or (start, end)))
    if not any(days.isin(times).any() for days in folders.values()):
        raise SmgeoError(
            f"{root}: no day between {times[0].date()} and {times[-1].date()}; it has {start.date()} to {end.date()}"
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
    blocks: Sequence[tuple[int, int]],
) -> tuple[da.Array, dict[str, str]]:
    """Return a variable on all days (cells, time), NaN between folders; and the files that are missing."""
    absent: dict[str, str] = {}
    parts: list[da.Array] = []
    cells, done, checked = blocks[-1][1], 0, False
    for year, days in folders.items():
        here = np.flatnonzero(days.isin(times))
        if not here.size:
            continue
        start = int(times.get_indexer(days[here[:1]])[0])
        parts.append(_nothing(cells, start - done))
        file = root / year / f"{matrix.file}.csv"
        if file.is_file():
            if not checked:
                _check_unit(file, matrix)
                checked = True
            rows = [_lazy_block(file, matrix, block, days.size) for block in blocks]
            parts.append(da.concatenate(rows)[:, here[0] : here[-1] + 1])
        else:
            absent[f"{year}/{file.name}"] = f"no such file: {matrix.name} is missing on its days"
            parts.append(_nothing(cells, here.size))
        done = start + here.size
    if not checked:
        _existing(root / next(iter(folders)), matrix.file)
        raise SmgeoError(f"{root}: no folder of the period contains {matrix.file}.csv")
    parts.append(_nothing(cells, times.size - done))
    series: da.Array = da.concatenate([p for p in parts if p.shape[1]], axis=1).rechunk({1: -1})
    return series, absent


def _lazy_layer(folder: Path, matrix: _Matrix, blocks: Sequence[tuple[int, int]]) -> da.Array:
    """Return a variable that does not vary in time (cells,)."""
    file = _existing(folder, matrix.file)
    _check_unit(file, matrix)
    return _within(da.concatenate([_lazy_block(file, matrix, block, 1) for block in blocks])[:, 0], matrix)


def _nothing(cells: int, days: int) -> da.Array:
    nothing: da.Array = da.full((cells, days), np.nan, dtype="float32", chunks=(cells, days))
    return nothing


def _lazy_block(file: Path, matrix: _Matrix, block: tuple[int, int], columns: int) -> da.Array:
    task = delayed(_read_block, pure=True)(file, matrix, block, columns)
    lazy: da.Array = da.from_delayed(task, (block[1] - block[0], columns), dtype="float32")
    return lazy


def _read_block(file: Path, matrix: _Matrix, block: tuple[int, int], columns: int) -> np.ndarray:
    """Return rows of one matrix in the catalogue's unit, float32, NaN where missing."""
    rows = block[1] - block[0]
    table = _numbers_of(file, block[0], rows)
    if table.shape != (rows, columns):
        raise SmgeoError(
            f"{file}: {table.shape[0]} rows of {table.shape[1]} columns from line {block[0] + 1}, expected {rows} cells "
            f"and {columns} days; a row is a cell, a column a day"
        )
    return _convert(table, matrix).astype("float32")


def _convert(table: np.ndarray, matrix: _Matrix) -> np.ndarray:
    return np.where(table == matrix.missing, np.nan, table) * matrix.scale + matrix.offset


def _check_unit(file: Path, matrix: _Matrix) -> None:
    """Refuse a variable most of whose values are impossible, by the first cells of a file; the others are read lazily."""
    values = _convert(_numbers_of(file, rows=_CELLS_CHECKED), matrix)
    given = values[np.isfinite(values)]
    low, high = matrix.valid_range
    middle = float(np.median(given)) if given.size else low
    if not low <= middle <= high:
        raise SmgeoError(
            f"{file}: half of the values of {matrix.name} are beyond {middle:g}, outside {low:g} to {high:g} {matrix.units}; is "
            "the matrix in another unit? Convert it with scale and offset"
        )


def _within(values: da.Array, matrix: _Matrix) -> da.Array:
    low, high = matrix.valid_range
    inside: da.Array = da.where((values >= low) & (values <= high), values, np.float32(np.nan))
    return inside


def _counts(values: da.Array, matrix: _Matrix) -> dict[str, Entry]:
    """Return the days of the target per cell: read, missing, outside the valid range."""
    missing = da.isnan(values).sum(axis=1).astype("int64")
    outside = da.isnan(_within(values, matrix)).sum(axis=1).astype("int64") - missing
    read = da.full(values.shape[0], values.shape[1], dtype="int64", chunks=values.chunks[0])
    source = f"{matrix.file}.csv"
    return {
        "days_read": count(read, "days of the period", source),
        "days_missing": count(missing, "days without a value", source),
        "days_outside": count(outside, "days removed because their value is outside the valid range", source),
    }
