"""The gate of every pixel: a value that enters a cube is finite and within its variable's range, or it is missing and counted.

Pixels are checked as they are read, before they are averaged or resampled: one fill value in a mean makes a wrong value that looks right.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from smgeo.catalog import Feature
from smgeo.cube.tally import note_dropped
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.threads import compiled

_Any = TypeVar("_Any")
INFINITE = "infinite"
OUTSIDE = "outside the valid range"
# Share of a sample's values that must be outside for the source to be in another unit, and least number of values that show it.
_MOST = 0.5
_NEARLY_ALL = 0.9
_LEAST = 4
# Share of a range's greater end by which rounding may miss it.
_ROUNDING = 1e-6
_ZEROS = 0.01  # share of a sample of decibels that is 0 by chance, at most
# Reflectance of dark surfaces is a little below 0 after correction; so much of it so far below 0 is an offset of -0.1 applied twice.
_DARK, _TOO_DARK, _MANY = -0.01, -0.25, 0.1


def screen(values: np.ndarray, feature: Feature, *, power: bool = False) -> np.ndarray:
    """Make values that are infinite or outside the valid range missing, in place, and count them.

    A value that misses an end of the range by no more than rounding becomes that end.

    Parameters
    ----------
    values : numpy.ndarray
        Floating-point values in the unit of the feature.
    feature : Feature
        Gives the valid range.
    power : bool
        The values are linear power of a feature in dB.

    Returns
    -------
    numpy.ndarray
        `values`.

    Examples
    --------
    >>> from smgeo.catalog import FEATURES
    >>> screen(np.array([0.2, np.inf, -5.0, np.nan]), FEATURES["sm"]).tolist()
    [0.2, nan, nan, nan]
    """
    low, high = _limits(feature, values.dtype, power=power)
    # Hardly any block has a value outside, and the least and the greatest are found four times as fast as each is looked at.
    if not values.size or (np.fmin.reduce(values, axis=None) >= low and np.fmax.reduce(values, axis=None) <= high):
        return values
    # Scale and offset round: 500 * 0.0001 - 0.05 may be a little below 0.
    ends = [abs(v) for v in feature.valid_range if math.isfinite(v)]
    slack = values.dtype.type(0 if power else _ROUNDING * max(ends, default=0))
    flat = values.reshape(-1)
    infinite, outside = _screen(flat, low, high, slack)
    if not np.may_share_memory(flat, values):
        values[...] = flat.reshape(values.shape)
    if infinite or outside:
        note_dropped(feature.name, INFINITE, infinite)
        note_dropped(feature.name, OUTSIDE, outside)
    return values


def _limits(feature: Feature, dtype: np.dtype, *, power: bool) -> tuple[np.floating, np.floating]:
    """Return the valid range in a data type: 0.6 is stored as 0.60000002, which must not be outside 0 to 0.6."""
    low, high = feature.valid_range
    kind = dtype.type
    if not power:
        return kind(max(low, np.finfo(dtype).min)), kind(min(high, np.finfo(dtype).max))
    # -40 dB and back again is not quite -40 dB.
    return kind(10 ** (low / 10) * (1 - 1e-6)), kind(10 ** (high / 10) * (1 + 1e-6))


@compiled()
def _screen(values: np.ndarray, low: np.floating, high: np.floating, slack: np.floating) -> tuple[int, int]:
    infinite = outside = 0
    for i in range(values.size):
        value = values[i]
        if not low <= value <= high and value == value:  # only NaN differs from itself
            if low - slack <= value <= high + slack:
                values[i] = low if value < low else high
                continue
            values[i] = np.nan
            if np.isinf(value):
                infinite += 1
            else:
                outside += 1
    return infinite, outside


def spread(items: Sequence[_Any], most: int) -> list[_Any]:
    """Return at most so many items, from the first to the last, evenly spread."""
    return [items[i] for i in sorted({round(p) for p in np.linspace(0, len(items) - 1, most)})] if items else []


def refuse_other_unit(values: np.ndarray, feature: Feature, where: str) -> None:
    """Refuse a sample of a source that shows another unit than the cube's.

    Parameters
    ----------
    values : numpy.ndarray
        A sample of the source's values in what should be the feature's unit, missing as NaN.
    feature : Feature
        The variable.
    where : str
        Names the source in the message.

    Raises
    ------
    SmgeoError
        If most values are outside the valid range, or nearly all values of backscatter in dB are above 0, as linear power is.
    """
    seen = np.asarray(values, dtype="float64")
    seen = seen[np.isfinite(seen)]
    if not seen.size:
        return
    low, high = feature.valid_range
    limits = _limits(feature, np.dtype("float32"), power=False)
    out = seen[(seen < limits[0]) | (seen > limits[1])]
    if out.size > _MOST * seen.size:
        numbers, counts = np.unique(out, return_counts=True)
        common = numbers[counts.argmax()]
        middle = float(np.median(seen))
        fill = (
            f"if {common:g} stands for missing, set nodata: {common:g}"
            if np.unique(seen).size > 1 and counts.max() > _MOST * out.size
            else ""
        )
        advice = (
            "; ".join(filter(None, (fill, _likely_conversion(seen, feature)))) or "convert them with scale and offset"
        )
        raise SmgeoError(
            f"{where}: {100 * out.size / seen.size:.0f} % of a sample of {feature.name} is outside {low:g} to {high:g} {feature.units} "
            f"(median {middle:g}), as in another unit; {advice}"
        )
    seen = seen[seen != 0]  # borders without a tag are 0
    if is_backscatter(feature) and seen.size >= _LEAST and (seen > 0).mean() > _NEARLY_ALL:
        raise SmgeoError(
            f"{where}: {100 * (seen > 0).mean():.0f} % of a sample of {feature.name} is above 0 (median {np.median(seen):g}), as linear power "
            f"is and decibels are not; set convert: {{{feature.name}: power_to_db}}"
        )


def refuse_decibels(power: np.ndarray, feature: Feature, where: str) -> None:
    """Refuse a sample that is to be converted to dB and is in dB already: what is not positive has no logarithm.

    Raises
    ------
    SmgeoError
        If most values are below 0.
    """
    seen = power[np.isfinite(power) & (power != 0)]
    if seen.size and (seen < 0).mean() > _MOST:
        raise SmgeoError(
            f"{where}: {100 * (seen < 0).mean():.0f} % of a sample of {feature.name} is below 0 (median {np.median(seen):g}), as decibels "
            f"are and linear power is not; set convert: {{{feature.name}: none}}"
        )


def refuse_double_offset(values: np.ndarray, feature: Feature, where: str) -> None:
    """Refuse a sample of reflectance in which so much is below 0 that an offset of -0.1 has been applied twice.

    Sentinel-2 has the offset from processing baseline 04.00 on. Catalogues that apply it to the numbers may still list it.

    Raises
    ------
    SmgeoError
        If more than a tenth of the values is below -0.01.
    """
    if feature.units != "1" or not (feature.name.startswith("s2_") or "reflectance" in feature.long_name.lower()):
        return
    seen = values[np.isfinite(values)]
    dark = (seen < _DARK) & (seen > _TOO_DARK)
    if seen.size >= _LEAST and dark.mean() > _MANY:
        raise SmgeoError(
            f"{where}: {100 * dark.mean():.0f} % of a sample of {feature.name} is below {_DARK:g} (median {np.median(seen):g}), as "
            f"reflectance is if an offset is applied that its numbers already include; set offset: {{{feature.name}: 0}}, or leave such "
            "scenes out"
        )


def warn_of_zeros(values: np.ndarray, feature: Feature, where: str) -> None:
    """Warn of a sample of backscatter in which more than a hundredth is exactly 0 dB, as masked pixels are after some exports."""
    seen = values[np.isfinite(values)]
    zeros = np.count_nonzero(seen == 0)
    if is_backscatter(feature) and zeros >= max(_LEAST, _ZEROS * seen.size):
        warnings.warn(
            f"{where}: {100 * zeros / seen.size:.0f} % of a sample of {feature.name} is exactly 0 dB, as masked pixels are after "
            "some exports; they are kept as values. If 0 stands for missing, set nodata: 0",
            SmgeoWarning,
            stacklevel=2,
        )


def is_backscatter(feature: Feature) -> bool:
    """Return True for a feature in dB whose range is mostly below 0, so that values which are all positive cannot be decibels."""
    return feature.units == "dB" and sum(feature.valid_range) < 0


# From what is found to what the cube stores: the unit to check, words for it, and the conversion that a recipe would name.
_CONVERSIONS: dict[str, tuple[tuple[str, Callable[[np.ndarray], np.ndarray], str], ...]] = {
    "1": (
        ("percent", lambda v: v / 100, "scale: {%s: 0.01}"),
        ("counts of 1/10000", lambda v: v / 10000, "scale: {%s: 0.0001}"),
    ),
    "m3 m-3": (("percent", lambda v: v / 100, "scale: {%s: 0.01}"),),
    "percent": (("g/kg or per mille", lambda v: v / 10, "scale: {%s: 0.1}"),),
    "degC": (
        ("kelvin", lambda v: v - 273.15, "offset: {%s: -273.15}"),
        ("degrees Fahrenheit", lambda v: (v - 32) / 1.8, "scale: {%s: 0.555556} and offset: {%s: -17.7778}"),
    ),
    "K": (
        ("degrees Celsius", lambda v: v + 273.15, "offset: {%s: 273.15}"),
        ("MODIS counts of 0.02 K", lambda v: v * 0.02, "scale: {%s: 0.02}"),
    ),
    "dB": (("hundredths of dB", lambda v: v / 100, "scale: {%s: 0.01}"),),
    "mm d-1": (("hundredths of mm", lambda v: v / 100, "scale: {%s: 0.01}"),),
    "m": (
        ("centimetres", lambda v: v / 100, "scale: {%s: 0.01}"),
        ("millimetres", lambda v: v / 1000, "scale: {%s: 0.001}"),
    ),
}


def _likely_conversion(values: np.ndarray, feature: Feature) -> str:
    """Return the first known conversion that puts nearly all values inside the range, in words; else nothing."""
    low, high = feature.valid_range
    for words, convert, key in _CONVERSIONS.get(feature.units, ()):
        found = convert(values)
        if ((found >= low) & (found <= high)).mean() > _NEARLY_ALL:
            return f"if it is in {words}, set {key.replace('%s', feature.name)}"
    if is_backscatter(feature) and (values > 0).mean() > _NEARLY_ALL and math.isfinite(high):
        return f"if it is linear power, set convert: {{{feature.name}: power_to_db}}"
    return ""
