"""Values of one observation, and the mean of several.

Backscatter is averaged and interpolated in linear power and stored in decibels. An `Observation` carries power from the
first mean to the last, so that a block converts to decibels once, at its end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def to_power(decibels: np.ndarray) -> np.ndarray:
    """Return linear power in the input's floating-point type."""
    ten = decibels.dtype.type(10)
    return np.asarray(np.power(ten, decibels / ten))


def to_decibels(power: np.ndarray) -> np.ndarray:
    """Return decibels in the input's floating-point type; missing where the power is not positive, which has no logarithm."""
    return np.asarray(power.dtype.type(10) * np.log10(known_power(power)))


def known_power(power: np.ndarray) -> np.ndarray:
    """Return power with NaN where it is not positive: thermal noise removal and cubic weights give such values."""
    return np.where(power > 0, power, power.dtype.type(np.nan))


class Observation(NamedTuple):
    """Values of a variable: in its own unit or, if that is dB, in linear power (`power`)."""

    values: np.ndarray
    power: bool = False

    def linear(self) -> np.ndarray:
        """Return linear power of a variable in dB, float64: the way back gives the same float32."""
        values = self.values.astype("float64")
        return values if self.power else to_power(values)

    def stored(self) -> np.ndarray:
        """Return float32 values in the variable's own unit."""
        return np.asarray(to_decibels(self.values) if self.power else self.values, dtype="float32")


def mean_observation(values: Observation, *, decibels: bool) -> Observation:
    """Return the mean over axis 0 of the values that are not missing, float64; of decibels, as linear power.

    >>> mean_observation(Observation(np.array([0.0, 10.0, np.nan])), decibels=True)  # of the powers 1 and 10
    Observation(values=np.float64(5.5), power=True)
    """
    numbers = values.linear() if decibels else values.values.astype("float64")
    seen = np.isfinite(numbers)
    total = np.where(seen, numbers, 0).sum(axis=0)
    return Observation(total / np.where(seen.any(axis=0), seen.sum(axis=0), np.nan), power=decibels)
