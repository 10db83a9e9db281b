"""CSV grids, plain or gz: rows from north to south, columns from west to east.

NASA Earth Observations' files (neo.gsfc.nasa.gov, DATASET_2016-01-01.CSV.gz) cover the globe without a header and contain
99999 where there is no value.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
import pandas as pd

from smgeo.errors import SmgeoError
from smgeo.files import LimitedStream
from smgeo.sources.gridded.files import File, in_words, open_binary


@contextmanager
def open_text(file: File) -> Iterator[IO[str]]:
    """Open a CSV, plain or gz, as text."""
    with open_binary(file) as raw:
        packed = str(file).lower().endswith(".gz")
        plain = io.BufferedReader(LimitedStream(gzip.GzipFile(fileobj=raw))) if packed else raw
        with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as text:
            yield text


def csv_header(file: File) -> tuple[bool, int, str]:
    """Return True if the first row is longitudes, the number of columns of values, and that row's longitudes."""
    try:
        with open_text(file) as raw:
            row = next(csv.reader(raw))
    except StopIteration:
        raise SmgeoError(f"{file} cannot be read as a CSV grid: it is empty") from None
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise SmgeoError(f"{file} cannot be read as a CSV grid: {in_words(error)}") from None
    try:
        float(row[0])
    except ValueError:
        return True, len(row) - 1, ",".join(row[1:])
    return False, len(row), ""


def read_csv(file: File, _run: slice, rows: slice, columns: slice) -> np.ndarray:
    """Return (1, y, x) of the table of values, in the order of the file."""
    header, width, _ = csv_header(file)
    try:
        with open_text(file) as raw:
            table = pd.read_csv(
                raw,
                header=None,
                skiprows=rows.start + int(header),
                nrows=rows.stop - rows.start,
                usecols=range(columns.start + int(header), columns.stop + int(header)),
                dtype="float64",
            ).to_numpy()
    except (OSError, ValueError, EOFError) as error:
        raise SmgeoError(
            f"{file}: rows {rows.start + 1} to {rows.stop} cannot be read as numbers: {in_words(error)}"
        ) from None
    if len(table) != rows.stop - rows.start:
        raise SmgeoError(
            f"{file} ends after {rows.start + len(table)} rows of values; a grid of {width} columns has more"
        )
    return table[None]
