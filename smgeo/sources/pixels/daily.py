"""How several observations of one UTC day become its value, for every kind of raster source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from smgeo.catalog import Feature
from smgeo.errors import SmgeoError

Rule = Literal["mean", "clearest", "sum"]

_WORDS = {
    "mean": "mean of a day's observations (UTC)",
    "clearest": "the clearest of a day's observations (UTC), pixel by pixel; where it has no value, the next one",
    "sum": "sum of a day's observations (UTC); missing where one is missing, and on days that have fewer than others",
}


def choose_rule(asked: str, feature: Feature, *, masked: bool) -> Rule:
    """The rule a recipe asks for; `auto` takes the clearest of what clouds hide, and the mean of the rest.

    Parameters
    ----------
    asked : {"auto", "mean", "clearest", "sum"}
        The source's `daily`.
    feature : Feature
        What is observed.
    masked : bool
        Whether a quality band says which pixels are clear.

    Raises
    ------
    SmgeoError
        If a sum of decibels is asked for.
    """
    if asked == "auto":
        return "clearest" if masked else "mean"
    if asked == "sum" and feature.units == "dB":
        raise SmgeoError(f"daily: sum of {feature.name} in dB has no meaning; choose mean or clearest")
    return asked  # type: ignore[return-value]


def rule_in_words(rule: Rule, feature: Feature) -> str:
    """What a variable's attribute `daily_rule` says."""
    power = " in linear power, stored in dB" if rule == "mean" and feature.units == "dB" else ""
    return _WORDS[rule] + power


def combine_day(values: Sequence[np.ndarray], rule: Rule, *, decibels: bool) -> np.ndarray:
    """One array of a day's observations, float32, NaN where missing.

    Parameters
    ----------
    values : sequence of array
        Observations of one day, all of one shape; for `clearest` the clearest first.
    rule : {"mean", "clearest", "sum"}
        What becomes of them. The mean is of the values there are; a sum is missing where one of them is.
    decibels : bool
        Whether a mean is taken in linear power.

    Examples
    --------
    >>> combine_day([np.array([1.0, np.nan]), np.array([3.0, 4.0])], "clearest", decibels=False).tolist()
    [1.0, 4.0]
    """
    if len(values) == 1:
        return np.asarray(values[0], dtype="float32")
    if rule == "mean":
        return mean_of_day(np.stack(values), decibels=decibels)
    if rule == "sum":
        return np.sum(np.stack(values), axis=0, dtype="float64").astype("float32")
    out = np.array(values[0], dtype="float32")
    for later in values[1:]:
        missing = np.isnan(out)
        if not missing.any():
            break
        out[missing] = later[missing]
    return out


def mean_of_day(values: np.ndarray, *, decibels: bool) -> np.ndarray:
    """Mean over axis 0 of the values there are, float32; of decibels, in linear power.

    >>> mean_of_day(np.array([0.0, 10.0, np.nan]), decibels=True).round(3)  # of the powers 1 and 10
    np.float32(7.404)
    """
    power = 10 ** (values.astype("float64") / 10) if decibels else values.astype("float64")
    seen = np.isfinite(power)
    total = np.where(seen, power, 0).sum(axis=0)
    # A day on which two passes of power zero meet is missing: its decibels would be minus infinity.
    with np.errstate(divide="ignore"):
        mean = total / np.where(seen.any(axis=0), seen.sum(axis=0), np.nan)
        mean = 10 * np.log10(np.where(mean > 0, mean, np.nan)) if decibels else mean
    return np.asarray(mean, dtype="float64").astype("float32")
