"""CSV files of stations, read with errors that name the file."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from smgeo.errors import SmgeoError
from smgeo.recipe.stations import PLACE_COLUMNS


def read_csv(
    file: Path, *, rows: int | None = None, columns: Callable[[str], bool] | None = None, as_text: bool = False
) -> pd.DataFrame:
    """Return a CSV file with a header: all of it, its first rows, or some columns; with `as_text`, `station` stays text.

    Raises
    ------
    SmgeoError
        If the file is not a table.
    """
    dtype: Mapping[str, type] | None = {"station": str} if as_text else None
    try:
        table: pd.DataFrame = pd.read_csv(file, nrows=rows, usecols=columns, dtype=dtype, low_memory=False)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise SmgeoError(f"{file} cannot be read as a table: {error}") from None
    return table


def read_places(file: Path, *, projected: bool, as_text: bool = False) -> pd.DataFrame:
    """Return a table of stations' positions: station (text), latitude, longitude (or x, y) and other columns of places.

    Parameters
    ----------
    projected : bool
        Accept x, y in place of latitude, longitude.
    as_text : bool
        Keep numbers among the stations' names as written (`007`).

    Raises
    ------
    SmgeoError
        If the file or a column is missing, or a station has two rows.
    """
    if not file.is_file():
        raise SmgeoError(f"table of stations {file} not found (relative paths start at --data)")
    places = read_csv(file, as_text=as_text)
    placed = {"latitude", "longitude"} <= set(places) or (projected and {"x", "y"} <= set(places))
    if "station" not in places or not placed:
        needed = "station, latitude, longitude" + (" (or station, x, y)" if projected else "")
        raise SmgeoError(f"{file} needs columns {needed}; it has {', '.join(map(str, places))}")
    places = places[[c for c in places.columns if c in PLACE_COLUMNS]].astype({"station": str})
    twice = places.loc[places["station"].duplicated(), "station"]
    if not twice.empty:
        raise SmgeoError(f"{file} has several rows of stations: {', '.join(twice[:10])}; keep one of each")
    return places
