"""One position along a dimension that is neither x, y nor time (depth, step, expver, ensemble member), chosen by its value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.errors import SmgeoError
from smgeo.sources.gridded.files import File, Stored
from smgeo.sources.gridded.packing import unpack_coordinate

Wanted = int | float | str
_ROUNDING = 1e-3  # share of a value: 0.05 is 0.0500000007 as float32, and some files store two digits
# Units of durations (CF 1.11, section 4.4) -> those of pandas.
_SPANS = {
    "day": "D",
    "d": "D",
    "hour": "h",
    "hr": "h",
    "h": "h",
    "minute": "min",
    "min": "min",
    "second": "s",
    "sec": "s",
    "s": "s",
}
_SPANS |= {"millisecond": "ms", "microsecond": "us", "nanosecond": "ns"}
_MANY = 20  # values that a message lists


def positions(
    variables: Mapping[str, Stored], stored: Stored, band: str, file: File, select: Mapping[str, Wanted]
) -> dict[str, int]:
    """Return the position along each selected dimension that a variable has.

    Raises
    ------
    SmgeoError
        If a dimension has no such value.
    """
    sizes = dict(zip(stored.dims, stored.shape, strict=True))
    found = {}
    for dim, wanted in select.items():
        if dim in sizes:
            found[dim] = _position(variables, dim, sizes[dim], wanted, f"{file}: {band}")
        elif dim in variables and variables[dim].dims == ():  # a dimension of one position that was dropped
            _position(variables, dim, 1, wanted, f"{file}: {band}")
    return found


def selectable(variables: Mapping[str, Stored], time: str | None, select: Mapping[str, Wanted]) -> list[str]:
    """Return the selected names that are no dimension, but a single value of the file or a coordinate along time."""
    return [n for n in select if n in variables and n != time and variables[n].dims[:1] in ((), (time,))]


def other_times(variables: Mapping[str, Stored], time: str | None, select: Mapping[str, Wanted]) -> np.ndarray | None:
    """Return the times at which a coordinate along time has another value than the selected one; None if there is no such coordinate.

    ERA5's newer files have expver as text along time.
    """
    out = None
    for name in selectable(variables, time, select):
        if variables[name].dims:
            values = _values(variables, name, variables[name].shape[0])
            other = np.array([_match([v], select[name]) is None for v in values or ()])
            out = other if out is None else out | other
    return out


def _position(variables: Mapping[str, Stored], dim: str, size: int, wanted: Wanted, where: str) -> int:
    values = _values(variables, dim, size)
    if values is None:
        if isinstance(wanted, int) and 0 <= wanted < size:
            return wanted
        raise SmgeoError(
            f"{where}: select {dim}: {wanted}: this dimension has no coordinate, so it is chosen by position, 0 to {size - 1}"
        )
    if (found := _match(values, wanted)) is not None:
        return found
    raise SmgeoError(f"{where}: select {dim}: {wanted}: there is no such value; it has {_listed(values)}")


def _match(values: Sequence[object], wanted: Wanted) -> int | None:
    """Return the position of a value: equal, or the nearest number within rounding; None if there is none."""
    for kind in (_as_time, _as_number):
        target = kind(wanted)
        numbers = [kind(v) for v in values]
        if target is None or any(n is None for n in numbers):
            continue
        away = [abs(n - target) for n in numbers if n is not None]
        nearest = min(range(len(away)), key=away.__getitem__)
        return nearest if away[nearest] <= _ROUNDING * abs(target) + 1e-9 else None
    texts = [str(v).strip() for v in values]
    return texts.index(str(wanted).strip()) if str(wanted).strip() in texts else None


def _as_number(value: object) -> float | None:
    """Return a number, or text that is one (the `0001` of ERA5's expver); None for others."""
    if isinstance(value, pd.Timedelta | pd.Timestamp):
        return None
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _as_time(value: object) -> float | None:
    """Return the seconds of a duration or of a date; None for numbers and other text."""
    if isinstance(value, pd.Timedelta):
        return value.total_seconds()
    if isinstance(value, pd.Timestamp):
        return value.timestamp()
    if _as_number(value) is not None:
        return None
    for parse in (pd.Timedelta, pd.Timestamp):
        try:
            parsed = parse(str(value))
        except (ValueError, TypeError):
            continue
        if not pd.isna(parsed):
            return parsed.total_seconds() if isinstance(parsed, pd.Timedelta) else pd.Timestamp(parsed).timestamp()
    return None


def _values(variables: Mapping[str, Stored], dim: str, size: int) -> list[object] | None:
    """Return the values of a coordinate: numbers, text, durations or dates; None if the dimension has none."""
    stored = variables.get(dim)
    if stored is None:
        return None
    raw = np.asarray(stored.values[...])
    if raw.dtype.kind == "S" and raw.ndim == 2:  # netCDF-3 stores text as rows of characters
        raw = np.array([b"".join(row) for row in raw])
    raw = raw.reshape(-1)
    if raw.size != size:
        return None
    units = str(stored.attrs.get("units", ""))
    if raw.dtype.kind in "iuf":
        if {"scale_factor", "add_offset"} & set(stored.packing) and " since " not in units:
            raw = unpack_coordinate(raw, stored.packing, dim)
        if " since " in units:
            decoded = xr.coding.times.CFDatetimeCoder().decode(xr.Variable(("t",), raw, dict(stored.attrs)), name=dim)
            return [pd.Timestamp(str(t)) for t in decoded.to_numpy()]
        if (span := _SPANS.get(units.lower()) or _SPANS.get(units.lower().rstrip("s"))) is not None:
            return [pd.Timedelta(f"{float(v)} {span}") for v in raw]
        return [v.item() for v in raw]
    return [v.decode(errors="replace").strip("\x00 ") if isinstance(v, bytes) else str(v) for v in raw]


def list_values(variables: Mapping[str, Stored], dim: str, size: int) -> tuple[str, str]:
    """Return in words the values along a dimension, and one of them as a recipe would name it."""
    values = _values(variables, dim, size)
    if values is None:
        return f"positions 0 to {size - 1}, without a coordinate", "0"
    return _listed(values), _shown(values[0])


def _listed(values: Sequence[object]) -> str:
    more = ", ..." if len(values) > _MANY else ""
    return f"values {', '.join(map(_shown, values[:_MANY]))}{more}"


def _shown(value: object) -> str:
    if isinstance(value, pd.Timedelta):
        hours = value / pd.Timedelta("1h")
        return f"{hours:g}h"
    if isinstance(value, pd.Timestamp):
        return str(value.date() if value == value.normalize() else value)
    return f"{value:g}" if isinstance(value, float) else str(value)
