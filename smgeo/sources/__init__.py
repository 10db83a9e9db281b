"""One module a kind of source; each turns a spec into a lazy Dataset and knows nothing of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from smgeo.errors import SmgeoError, nearest
from smgeo.sources.ismn import open_ismn
from smgeo.sources.matrix import open_matrix
from smgeo.sources.rasters import open_rasters
from smgeo.sources.tables import open_table
from smgeo.sources.tereno import open_tereno
from smgeo.sources.world import simulate

__all__ = ["open_rasters", "open_stations", "simulate"]


def _open_table(path: Any, depth_m: Any, period: Any, flags: Any, **options: Any) -> xr.Dataset:
    return open_table(path, depth_m, period, **options)


def _open_matrix(path: Any, depth_m: Any, period: Any, flags: Any, **options: Any) -> xr.Dataset:
    return open_matrix(path, depth_m, period, **options)


_KINDS: dict[str, Callable[..., xr.Dataset]] = {
    "ismn": open_ismn,
    "tereno": open_tereno,
    "csv": _open_table,
    "matrix": _open_matrix,
}


def open_stations(
    path: str | Path,
    kind: str = "ismn",
    depth_m: tuple[float, float] = (0.0, 0.10),
    period: tuple[Any, Any] | None = None,
    flags: Sequence[str] = ("G",),
    **options: Any,
) -> xr.Dataset:
    """Station series of an archive, a table or matrices, as a lazy daily station cube.

    Parameters
    ----------
    path : str or Path
        Archive, table or folder.
    kind : {"ismn", "tereno", "csv", "matrix"}
        Reader. Its own options are those of

        - `smgeo.sources.ismn.open_ismn`: `target`, `variables`, `networks`, `min_valid_share`, `depth_rule`, `nearest_to_m`;
        - `smgeo.sources.tereno.open_tereno`: the same without `networks`, and `columns`, `stations`, `network`, `time_column`,
          `time_format`, `utc_offset_hours`, `separator`, `missing`;
        - `smgeo.sources.tables.open_table`: `columns`, `target`, `layout`, `stations`, `crs`, `network`, `min_valid_share`,
          `utc_offset_hours`;
        - `smgeo.sources.matrix.open_matrix`: `variables`, `static`, `target`, `years`, `missing`, `network`, `coordinates`,
          `dates`, `static_folder`.
    depth_m : (float, float)
        Range of sensor depths, m below the surface; a matrix has none.
    period : (date, date), optional
        First and last day.
    flags : sequence of str
        Quality flags that count as valid: ISMN's, or TERENO's (`G` stands for its `ok`). Tables and matrices have none.

    Returns
    -------
    xarray.Dataset
        Dims (station, time), float32, days in UTC; what was left out, and why, in `attrs["left_out"]` (JSON); what was counted
        on the way in variables of kind `diagnostic`; what a station's target is made of in the coordinate `sensors` (JSON).

    Raises
    ------
    SmgeoError
        If the kind is unknown, or the reader refuses the input.
    """
    if kind not in _KINDS:
        raise SmgeoError(f"unknown kind of stations {kind!r}; {nearest(kind, list(_KINDS))}")
    return _KINDS[kind](path, depth_m, period, flags, **options)
