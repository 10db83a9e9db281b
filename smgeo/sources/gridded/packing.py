"""From the numbers in a gridded file to values: fill values, valid range, signedness, scale and offset.

Fill values and packing follow the CF conventions 1.11 (2.5.1 and 8.1), `_Unsigned`, `valid_range` and its ends the NetCDF Users
Guide (appendix A, attribute conventions), default fill values netcdf.h.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from smgeo.errors import SmgeoError

OUTSIDE_FILE_RANGE = "outside the file's valid_range"
PACKING_KEYS = (
    *("_FillValue", "missing_value", "valid_min", "valid_max", "valid_range"),
    *("scale_factor", "add_offset", "_Unsigned"),
)
# NC_FILL_SHORT, ...: numbers that were never written. Bytes have none: all their values are in use.
_FLOAT_FILL = 9.9692099683868690e36
_DEFAULT_FILLS = {
    "i2": -(2**15) + 1,
    "u2": 2**16 - 1,
    "i4": -(2**31) + 1,
    "u4": 2**32 - 1,
    "i8": -(2**63) + 2,
    "u8": 2**64 - 2,
    "f4": _FLOAT_FILL,
    "f8": _FLOAT_FILL,
}


@dataclass(frozen=True)
class Packing:
    """How the numbers of a variable of one file become values.

    Attributes
    ----------
    dtype : numpy.dtype
        The type in which the stored bits are read, in the machine's byte order: another than the stored one by `_Unsigned`.
    fills : tuple of numbers
        Those that mean missing, in this type.
    low, high : number or None
        Ends of the file's valid range.
    of_values : bool
        True if the valid range is in the unit of the unpacked values, False if in that of the stored numbers.
    scale, offset : float
        value = number * scale + offset.
    """

    dtype: np.dtype
    fills: tuple[np.generic, ...]
    low: float | None
    high: float | None
    of_values: bool
    scale: float
    offset: float

    def numbers(self, stored: np.ndarray) -> np.ndarray:
        """Return stored numbers with the right sign."""
        return stored.view(self.dtype.newbyteorder(stored.dtype.byteorder))

    def missing(self, numbers: np.ndarray) -> np.ndarray:
        """Return where a number is one that means missing, or NaN."""
        found = np.isnan(numbers) if self.dtype.kind == "f" else np.zeros(numbers.shape, dtype=bool)
        for fill in self.fills:
            found |= numbers == fill
        return found

    def unpack(self, stored: np.ndarray) -> tuple[np.ndarray, int]:
        """Return values, missing as NaN, and the number of values that the file's own valid range excludes.

        They are float64 if float32 could lose digits, else float32.
        """
        numbers = self.numbers(stored)
        missing = self.missing(numbers)
        plain = self.scale == 1 and self.offset == 0
        small = self.dtype == np.float32 or self.dtype.itemsize <= 2
        values = numbers.astype("float32" if plain and small else "float64")
        if not plain:
            values = values * self.scale + self.offset
        excluded = 0
        if self.low is not None or self.high is not None:
            outside = self._outside(values if self.of_values else numbers) & ~missing
            excluded = int(outside.sum())
            missing |= outside
        values[missing] = np.nan
        return values, excluded

    def _outside(self, values: np.ndarray) -> np.ndarray:
        low, high = (-math.inf if self.low is None else self.low), (math.inf if self.high is None else self.high)
        if self.of_values:  # both are rounded: 6 * 0.1 is not 0.6
            slack = 1e-6 * abs(self.scale)
            low, high = low - slack - 1e-7 * abs(low), high + slack + 1e-7 * abs(high)
        elif self.dtype.kind == "f":
            with np.errstate(over="ignore"):
                low, high = self.dtype.type(low), self.dtype.type(high)
        return np.asarray((values < low) | (values > high))


def read_packing(
    dtype: np.dtype,
    attrs: Mapping[str, object],
    where: str,
    *,
    default_fills: bool = False,
    nodata: tuple[float, ...] = (),
    honour_valid_range: bool = True,
) -> Packing:
    """Return how the numbers of a variable are unpacked.

    Parameters
    ----------
    dtype : numpy.dtype
        Type of the stored numbers.
    attrs : mapping
        Attributes of `PACKING_KEYS`, with their types.
    where : str
        Names the file and the variable in messages.
    default_fills : bool
        netCDF's default fill values mean missing, unless `_FillValue` is another.
    nodata : tuple of float
        Numbers that mean missing too, by the recipe.
    honour_valid_range : bool
        Values outside the file's valid range are missing.

    Raises
    ------
    SmgeoError
        If the variable is not numeric, or scale or offset are not one number.
    """
    if dtype.kind not in "iufb":
        raise SmgeoError(f"{where} contains no numbers but {dtype}; name another variable in bands")
    parsed = {k: _numbers(attrs[k]) for k in PACKING_KEYS if k in attrs and k != "_Unsigned"}
    read_as, flipped = _signed(dtype, attrs.get("_Unsigned"))
    fills: dict[object, np.generic] = {}
    for key in ("_FillValue", "missing_value"):
        # A fill value has the variable's own type, so that 255 for a signed byte can only mean its bits.
        for number in parsed.get(key, ()):
            fills |= {f.item(): f for f in _in_type(number, read_as, wrap=flipped or key == "_FillValue")}
    if default_fills and not len(parsed.get("_FillValue", ())) and dtype.str[1:] in _DEFAULT_FILLS:
        fills |= {f.item(): f for f in _in_type(_DEFAULT_FILLS[dtype.str[1:]], read_as, wrap=True)}
    for number in nodata:
        fills |= {f.item(): f for f in _in_type(number, read_as, wrap=flipped)}
    scale, offset = (_one_number(parsed, k, d, where) for k, d in (("scale_factor", 1.0), ("add_offset", 0.0)))
    low, high, of_values = _valid_range(parsed, read_as, flipped) if honour_valid_range else (None, None, False)
    return Packing(read_as, tuple(fills.values()), low, high, of_values, scale, offset)


def unpack_coordinate(stored: np.ndarray, attrs: Mapping[str, object], where: str) -> np.ndarray:
    """Return coordinates as they are meant, missing as NaN: they are packed like any variable (CF 1.11, section 8.1).

    >>> unpack_coordinate(np.array([5020, 5010], "int16"), {"scale_factor": 0.01}, "a.nc: lat").round(6).tolist()
    [50.2, 50.1]
    """
    return read_packing(stored.dtype, attrs, where, honour_valid_range=False).unpack(stored)[0]


def _signed(dtype: np.dtype, unsigned: object) -> tuple[np.dtype, bool]:
    """Return the type in which the bits are read, and True if its sign is another than the stored type's."""
    if dtype.kind == "b":
        return np.dtype("u1"), False
    text = unsigned.decode() if isinstance(unsigned, bytes) else str(unsigned)
    kind = {("i", "true"): "u", ("u", "false"): "i"}.get((dtype.kind, text.strip().lower()), dtype.kind)
    return np.dtype(f"{kind}{dtype.itemsize}"), kind != dtype.kind


def _numbers(value: object) -> np.ndarray:
    """Return an attribute as one-dimensional numbers in its own type, from text too; empty if it has none."""
    found = np.atleast_1d(np.asarray(value)).ravel()
    if found.dtype.kind in "SUO":
        texts = (v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in found.tolist())
        words = [w for t in texts for w in re.split(r"[,\s]+", t.strip()) if w]
        try:
            found = np.array([float(w) for w in words])
        except ValueError:
            return np.empty(0)
    # In the machine's byte order, so that types can be compared: those of classic netCDF files are big-endian.
    return found.astype(found.dtype.newbyteorder("=")) if found.dtype.kind in "iuf" else np.empty(0)


def _in_type(number: object, dtype: np.dtype, *, wrap: bool) -> list[np.generic]:
    """Return a number in the type of the stored ones; none if they cannot be it. `wrap`: its bits may be meant, 255 for -1.

    >>> _in_type(-1, np.dtype("uint8"), wrap=True), _in_type(0.5, np.dtype("int16"), wrap=True)
    ([np.uint8(255)], [])
    """
    value = number.item() if isinstance(number, np.generic) else number
    assert isinstance(value, int | float)
    if math.isnan(value):
        return []
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            found = [dtype.type(value)]
        if isinstance(number, np.float32) and dtype.itemsize == 8:
            found.append(dtype.type(str(number)))  # -9999.9, whose float32 is -9999.900390625
        return found
    if not (math.isfinite(value) and float(value).is_integer()):
        return []
    whole, bits, info = int(value), 8 * dtype.itemsize, np.iinfo(dtype)
    if wrap and not info.min <= whole <= info.max and -(2 ** (bits - 1)) <= whole < 2**bits:
        whole += 2**bits if whole < 0 else -(2**bits)
    return [dtype.type(whole)] if info.min <= whole <= info.max else []


def _one_number(parsed: Mapping[str, np.ndarray], key: str, default: float, where: str) -> float:
    if key not in parsed:
        return default
    if parsed[key].size != 1 or not np.isfinite(parsed[key][0]):
        raise SmgeoError(f"{where}: {key} is not one number; correct the attribute")
    return float(parsed[key][0])


def _valid_range(
    parsed: Mapping[str, np.ndarray], dtype: np.dtype, flipped: bool
) -> tuple[float | None, float | None, bool]:
    """Return the ends of the valid range, and True if they are in the unit of the unpacked values."""
    if parsed.get("valid_range", np.empty(0)).size == 2:
        given = parsed["valid_range"]
        ends: list[np.ndarray] = [given[:1], given[1:]]
    else:
        ends = [parsed.get(k, np.empty(0)) for k in ("valid_min", "valid_max")]
    of_values = False
    found: list[float | None] = []
    packing = [parsed[k].dtype for k in ("scale_factor", "add_offset") if k in parsed]
    unpacked = np.result_type(*packing) if packing else None
    for end in ends:
        if end.size != 1 or np.isnan(end[0]):
            found.append(None)
            continue
        # The Users Guide: in unpacked units if of the scale's type and this is wider than the stored one, else in packed units.
        of_values = of_values or (unpacked is not None and end.dtype == unpacked and _is_wider(unpacked, dtype))
        if end.dtype.kind in "iu" and dtype.kind in "iu" and end.dtype.itemsize == dtype.itemsize:
            end = end.view(dtype)
        elif flipped and end.dtype == np.int64:  # of JSON, which has no types
            end = np.array(_in_type(end[0], dtype, wrap=True) or end)
        found.append(end[0].item())
    return found[0], found[1], of_values


def _is_wider(one: np.dtype, other: np.dtype) -> bool:
    return (one.kind == "f", one.itemsize) > (other.kind == "f", other.itemsize)
