"""Layout that the cubes of all station sources share: the axis of days, coordinates and counts."""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from smgeo.errors import SmgeoWarning

Day: TypeAlias = str | dt.date | np.datetime64
Period: TypeAlias = tuple[Day, Day]
# Dimensions, values (NumPy or Dask) and attributes of a variable, as xarray takes them.
Entry: TypeAlias = tuple[tuple[str, ...], object, Mapping[str, object]]
_NAMED = 10  # stations that a message names


def day_axis(first: Day, last: Day) -> pd.DatetimeIndex:
    """Return every day from the first to the last, without zone."""
    return pd.date_range(pd.Timestamp(first), pd.Timestamp(last), freq="D", name="time")


def station_coordinates(
    ids: Sequence[str],
    times: pd.DatetimeIndex,
    latitude: ArrayLike,
    longitude: ArrayLike,
    *,
    elevation: ArrayLike,
    networks: Sequence[str],
    sensors: Sequence[str],
    target: str | None,
) -> dict[str, object]:
    """Return the coordinates of a station cube.

    Parameters
    ----------
    ids : sequence of str
        `NETWORK/NAME`.
    times : DatetimeIndex
        Days, UTC.
    latitude, longitude : array-like
        EPSG:4326 degrees.
    elevation : array-like
        m, NaN if unknown.
    networks : sequence of str
    sensors : sequence of str
        JSON list per station: the sensors of its target; `[]` if unknown.
    target : str or None
        None if no sensors are known.
    """
    _warn_of_no_place(ids, latitude, longitude)
    long_name = "sensors, JSON" if target is None else f"sensors that {target} is made of, JSON"
    return {
        "station": np.array(ids, dtype=object),
        "time": times,
        "latitude": ("station", latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("station", longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        "station_elevation": ("station", elevation, {"units": "m"}),
        "network": ("station", np.array(networks, dtype=object)),
        "sensors": ("station", np.array(sensors, dtype=object), {"long_name": long_name}),
    }


def _warn_of_no_place(ids: Sequence[str], latitude: ArrayLike, longitude: ArrayLike) -> None:
    """Warn of stations at exactly 0, 0, which is in the sea and what an unknown place often becomes."""
    nowhere = (np.asarray(latitude) == 0) & (np.asarray(longitude) == 0)
    if nowhere.any():
        named = [ids[i] for i in np.flatnonzero(nowhere).tolist()]
        more = ", ..." if len(named) > _NAMED else ""
        warnings.warn(
            f"{len(named)} station(s) are at latitude 0, longitude 0, as stations whose place is unknown often are: {', '.join(named[:_NAMED])}{more}; "
            "correct their coordinates, or leave them out",
            SmgeoWarning,
            stacklevel=3,
        )


def count(values: object, long_name: str, source: str) -> Entry:
    """Return a diagnostic variable: a count per station."""
    return ("station",), values, {"kind": "diagnostic", "units": "1", "long_name": long_name, "source": source}
