"""Combination of several observations of one UTC day into its value, for every kind of raster source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from smgeo.catalog import Feature
from smgeo.errors import SmgeoError
from smgeo.sources.pixels.observation import Observation, mean_observation

Rule = Literal["mean", "clearest", "sum", "rate", "accumulated"]

_WORDS = {
    "mean": "mean of a day's observations (UTC)",
    "clearest": "the clearest of a day's observations (UTC), pixel by pixel; where it has no value, the next one",
    "sum": "sum of a day's observations (UTC); missing where one is missing, and on days that lack times",
    "rate": "mean of a day's observations (UTC); missing where one is missing, and on days that lack times",
    "accumulated": "sum since 00 UTC at the end of the day",
}


def choose_rule(asked: str, feature: Feature, *, masked: bool) -> Rule:
    """Return the rule that a recipe sets; `auto` is the clearest if clouds are masked, else the mean.

    Parameters
    ----------
    asked : {"auto", "mean", "clearest", "sum", "accumulated"}
        The source's `daily`.
    feature : Feature
        The variable.
    masked : bool
        True if a quality band marks clear pixels.

    Raises
    ------
    SmgeoError
        If the rule is a sum of decibels.
    """
    if asked == "auto":
        return "clearest" if masked else "mean"
    if asked in ("sum", "accumulated") and feature.units == "dB":
        raise SmgeoError(f"daily: {asked} of {feature.name} in dB has no meaning; choose mean or clearest")
    return asked  # type: ignore[return-value]


def rule_in_words(rule: Rule, feature: Feature) -> str:
    """Return a variable's attribute `daily_rule`."""
    power = " in linear power, stored in dB" if rule == "mean" and feature.units == "dB" else ""
    return _WORDS[rule] + power


def combine_day(observations: Sequence[Observation], rule: Rule, *, decibels: bool) -> Observation:
    """Return a day's observations as one, NaN where missing; the mean of decibels as linear power.

    Parameters
    ----------
    observations : sequence of Observation
        Observations of one day, all of one shape; for `clearest` the clearest first.
    rule : {"mean", "clearest", "sum", "rate"}
        How they are combined. A mean skips missing values; a sum is missing where one of them is, and so is a rate, which is their mean.
    decibels : bool
        True for a variable in dB, whose mean is taken in linear power.

    Examples
    --------
    >>> scenes = [Observation(np.array([1.0, np.nan])), Observation(np.array([3.0, 4.0]))]
    >>> combine_day(scenes, "clearest", decibels=False).stored().tolist()
    [1.0, 4.0]
    """
    if len(observations) == 1:
        return observations[0]
    if rule == "mean":
        numbers = np.stack([o.linear() if decibels else o.values for o in observations])
        return mean_observation(Observation(numbers, power=decibels), decibels=decibels)
    values = [o.stored() for o in observations]
    if rule in ("sum", "rate"):
        total = np.sum(np.stack(values), axis=0, dtype="float64")
        return Observation(total if rule == "sum" else total / len(values))
    out = values[0].copy()
    for later in values[1:]:
        missing = np.isnan(out)
        if not missing.any():
            break
        out[missing] = later[missing]
    return Observation(out)
