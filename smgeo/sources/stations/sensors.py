"""Sensors of station archives, and the choice of those that a station's series are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import pandas as pd

from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.stations import SensorSource

# Measured above ground, so the range of depths does not apply.
ABOVE_GROUND = frozenset({"precipitation"})

Form = TypeVar("Form")


@dataclass(frozen=True)
class Sensor(Generic[Form]):
    """One sensor's series of one variable, as its files describe it.

    Attributes
    ----------
    network, station : str
        Names; `id` is `NETWORK/STATION`.
    variable : str
        Name in the catalogue.
    depth : (float, float)
        Upper and lower end, m below the surface.
    latitude, longitude, elevation : float
        EPSG:4326 degrees; m.
    first, last : Timestamp
        Times of the first and last row, UTC without zone.
    name : str
        The instrument.
    files : tuple of str
        Paths in the archive.
    form : Form
        Format of the files, for the function that reads them.
    """

    network: str
    station: str
    variable: str
    depth: tuple[float, float]
    latitude: float
    longitude: float
    elevation: float
    first: pd.Timestamp
    last: pd.Timestamp
    name: str
    files: tuple[str, ...]
    form: Form

    @property
    def id(self) -> str:
        """The station's id in a cube."""
        return f"{self.network}/{self.station}"

    @property
    def middle(self) -> float:
        """Middle of the depths, m."""
        return sum(self.depth) / 2

    def record(self) -> dict[str, object]:
        """Return the cube's record of the sensor."""
        return {
            "sensor": self.name,
            "depth_m": [round(d, 4) for d in self.depth],
            "first": str(self.first.date()),
            "last": str(self.last.date()),
        }


# Station -> variable -> its sensors.
Chosen = dict[str, dict[str, list[Sensor[Form]]]]


def name_variables(spec: SensorSource, target: str, known: Sequence[str], what: str) -> list[str]:
    """Return the target and the other variables of a source.

    Raises
    ------
    SmgeoError
        Listing the variables that the source cannot give.
    """
    names = list(dict.fromkeys([target, *spec.variables]))
    if wrong := [f"{n!r} ({nearest(n, tuple(known))})" for n in names if n not in known]:
        raise SmgeoError(f"{what} does not contain {', '.join(wrong)}")
    return names


def choose_sensors(
    sensors: Sequence[Sensor[Form]], spec: SensorSource, target: str, depth_m: tuple[float, float], where: object
) -> tuple[Chosen[Form], dict[str, str]]:
    """Return the sensors of each station and variable by the spec's rule, and the stations left out with the reason.

    Parameters
    ----------
    depth_m : (float, float)
        A sensor counts if all of it is in this range (m); precipitation has no depth.
    where : object
        Path of the archive, for messages.

    Raises
    ------
    SmgeoError
        If `nearest_to_m` does not fit, or no station has the target in the range of depths.
    """
    low, high = depth_m
    rule, aim = spec.depth_rule, (low + high) / 2 if spec.nearest_to_m is None else spec.nearest_to_m
    if spec.nearest_to_m is not None and (rule == "mean" or not low <= aim <= high):
        raise SmgeoError(
            f"{where}: nearest_to_m {aim:g} needs depth_rule nearest and must be within depth_m {low:g} to {high:g} m; "
            f"depth_rule is {rule!r}"
        )
    found: Chosen[Form] = {}
    for sensor in sensors:
        inside = low - 1e-9 <= sensor.depth[0] and sensor.depth[1] <= high + 1e-9
        if inside or sensor.variable in ABOVE_GROUND:
            found.setdefault(sensor.id, {}).setdefault(sensor.variable, []).append(sensor)
    chosen = {
        station: by_name if rule == "mean" else {n: _nearest(c, aim) for n, c in by_name.items()}
        for station, by_name in sorted(found.items())
        if target in by_name
    }
    left_out = {s.id: f"no {target} sensor between {low:g} and {high:g} m" for s in sensors if s.id not in chosen}
    if not chosen:
        depths = sorted({s.middle for s in sensors if s.variable == target})
        there = ", ".join(f"{d:g}" for d in depths) or "none"
        raise SmgeoError(
            f"{where}: no station has {target} between {low:g} and {high:g} m; middles of the sensors' depths in the "
            f"archive: {there} m. Change target.depth_m"
        )
    return chosen, left_out


def _nearest(candidates: list[Sensor[Form]], aim: float) -> list[Sensor[Form]]:
    best = min(candidates, key=lambda s: (round(abs(s.middle - aim), 6), s.depth))
    return [s for s in candidates if s.depth == best.depth]
