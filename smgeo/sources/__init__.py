"""One module a kind of source; each turns a spec into a lazy Dataset and knows nothing of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from smgeo.errors import SmgeoError, nearest
from smgeo.sources.ismn import open_ismn
from smgeo.sources.rasters import open_rasters
from smgeo.sources.tables import open_table
from smgeo.sources.world import simulate

__all__ = ["open_rasters", "open_stations", "simulate"]


def _open_table(path: Any, depth_m: Any, period: Any, flags: Any, **options: Any) -> xr.Dataset:
    return open_table(path, depth_m, period, **options)


_KINDS: dict[str, Callable[..., xr.Dataset]] = {"ismn": open_ismn, "csv": _open_table}


def open_stations(
    path: str | Path,
    kind: str = "ismn",
    depth_m: tuple[float, float] = (0.0, 0.10),
    period: tuple[Any, Any] | None = None,
    flags: Sequence[str] = ("G",),
    **options: Any,
) -> xr.Dataset:
    """Station series of an archive or a table, as a lazy daily station cube.

    Parameters
    ----------
    path : str or Path
        Archive or table.
    kind : {"ismn", "csv"}
        Reader; its own options are those of `smgeo.sources.ismn.open_ismn` and `smgeo.sources.tables.open_table`.
    depth_m : (float, float)
        Range of sensor depths, m below the surface.
    period : (date, date), optional
        First and last day.
    flags : sequence of str
        ISMN quality flags that count as valid.

    Returns
    -------
    xarray.Dataset
        Dims (station, time), float32; what was left out, and why, in `attrs["left_out"]` (JSON).

    Raises
    ------
    SmgeoError
        If the kind is unknown, or the reader refuses the input.
    """
    if kind not in _KINDS:
        raise SmgeoError(f"unknown kind of stations {kind!r}; {nearest(kind, list(_KINDS))}")
    return _KINDS[kind](path, depth_m, period, flags, **options)
