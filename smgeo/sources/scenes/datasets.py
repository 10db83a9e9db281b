"""Scenes of any source as a Dataset: on a grid or at stations, with the attributes of each variable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from smgeo.addresses import is_remote, plain
from smgeo.catalog import Feature, reference_attr
from smgeo.cube.schema import DAY_INPUTS
from smgeo.errors import SmgeoError
from smgeo.sources.pixels.daily import choose_rule, rule_in_words
from smgeo.sources.pixels.footprint import station_places, stations_dataset
from smgeo.sources.pixels.gate import refuse_decibels, refuse_double_offset, refuse_other_unit, spread, warn_of_zeros
from smgeo.sources.pixels.sizes import pixel_size
from smgeo.sources.pixels.warp import same_pixels
from smgeo.sources.scenes.blocks import (
    Reading,
    boxes_of_layer,
    inputs_of_days,
    scenes_at_stations,
    scenes_on_grid,
)
from smgeo.sources.scenes.layers import Scene, sample_layer

# Number of scenes whose middle shows the unit of a variable.
_SAMPLES, _SAMPLES_REMOTE = 5, 2


@dataclass(frozen=True)
class Variable:
    """One variable of a Dataset of scenes.

    Attributes
    ----------
    feature : Feature
        Its name, unit and kind.
    source : str
        Its attribute `source`.
    masked : bool
        True if a quality band marks its clear pixels.
    daily : str
        The recipe's rule for several scenes a day.
    refers_to : str
        What its numbers refer to (see `smgeo.catalog.reference_attr`); empty if that is not known.
    """

    feature: Feature
    source: str
    masked: bool = False
    daily: str = "auto"
    refers_to: str = ""

    @property
    def static(self) -> bool:
        """True if it does not vary in time."""
        return self.feature.kind == "static"

    @property
    def attrs(self) -> dict[str, object]:
        """The attributes in the Dataset."""
        attrs: dict[str, object] = {**self.feature.attrs(), "source": self.source}
        if self.refers_to:
            attrs[reference_attr(self.feature.name)] = self.refers_to
        if not self.static:
            attrs["daily_rule"] = rule_in_words(choose_rule(self.daily, self.feature, masked=self.masked), self.feature)
        return attrs


def dataset_on_grid(
    scenes: Sequence[Scene],
    variables: Sequence[Variable],
    box: GeoBox,
    days: pd.DatetimeIndex | None,
    resampling: str = "auto",
) -> xr.Dataset:
    """Return scenes on a grid: (time, y, x), and (y, x) for static variables; float32, lazy, CRS in `spatial_ref`.

    The coordinate `day_inputs` on `time` is a digest of the inputs of each day.
    """
    _check_samples(scenes, variables)
    data: dict[str, xr.Variable] = {}
    for chosen, axis in _by_time(variables, days):
        mine = _with(scenes, chosen)
        arrays = scenes_on_grid(mine, _reading(mine, chosen, resampling), box, axis)
        dims = ("time", "y", "x") if axis is not None else ("y", "x")
        for v in chosen:
            data[v.feature.name] = xr.Variable(dims, arrays[v.feature.name], {**v.attrs, "grid_mapping": "spatial_ref"})
    coords = dict(xr_coords(box, dims=("y", "x"))) | _time(scenes, variables, days, box, resampling)
    return xr.Dataset({v.feature.name: data[v.feature.name] for v in variables}, coords, _observed(scenes, days))


def _observed(scenes: Sequence[Scene], days: pd.DatetimeIndex | None) -> dict[str, int]:
    """Return the number of days that have a scene, as an attribute."""
    return {} if days is None else {"days_observed": len({s.day for s in scenes} & set(days))}


def dataset_at_stations(
    scenes: Sequence[Scene],
    variables: Sequence[Variable],
    stations: xr.Dataset,
    days: pd.DatetimeIndex | None,
    radius_m: float | None,
    label: str,
) -> xr.Dataset:
    """Return scenes at stations: (station, time), and (station,) for static variables; float32, lazy.

    `attrs["left_out"]` (JSON) names the stations that no scene covers, whose values are missing.
    """
    _check_samples(scenes, variables)
    lons, lats = station_places(stations)
    data: dict[str, xr.Variable] = {}
    covered = np.zeros(len(lons), dtype=bool)
    for chosen, axis in _by_time(variables, days):
        mine = _with(scenes, chosen)
        arrays, held = scenes_at_stations(mine, _reading(mine, chosen), lons, lats, axis, radius_m)
        covered |= held
        dims = ("station", "time") if axis is not None else ("station",)
        for v in chosen:
            attrs = v.attrs
            if radius_m is not None:
                attrs["footprint"] = f"mean of the pixels within {radius_m:g} m"
            if v.static:
                attrs |= pixel_size(boxes_of_layer(mine, v.feature.name), lons, lats)
            data[v.feature.name] = xr.Variable(dims, arrays[v.feature.name], attrs)
    data = {v.feature.name: data[v.feature.name] for v in variables}
    time = _time(scenes, variables, days, (lons, lats, radius_m))
    return stations_dataset(data, stations, covered, label).assign_coords(time)


def _check_samples(scenes: Sequence[Scene], variables: Sequence[Variable]) -> None:
    """Refuse variables that are in another unit, by samples of a few scenes that are spread over all.

    Raises
    ------
    SmgeoError
        Naming a scene, the variable, and the likely conversion.
    """
    for variable in variables:
        feature = variable.feature
        mine = [s for s in scenes if any(n == feature.name for n, _ in s.layers)]
        most = _SAMPLES_REMOTE if mine and is_remote(dict(mine[0].layers)[feature.name].href) else _SAMPLES
        chosen = spread(mine, most)
        found = []
        for scene in chosen:
            sample = sample_layer(scene, feature)
            if sample.power:
                refuse_decibels(sample.values, feature, plain(scene.name))
            found.append(sample.stored().ravel())
            refuse_double_offset(found[-1], feature, plain(scene.name))
        if found:
            sampled = np.concatenate(found)
            refuse_other_unit(sampled, feature, plain(chosen[0].name))
            if not sample.power:  # of linear power, 0 dB is 1
                warn_of_zeros(sampled, feature, plain(chosen[0].name))


def _by_time(
    variables: Sequence[Variable], days: pd.DatetimeIndex | None
) -> list[tuple[list[Variable], pd.DatetimeIndex | None]]:
    """Return the variables that vary in time, with the days, and those that do not."""
    moving, lasting = [v for v in variables if not v.static], [v for v in variables if v.static]
    return [(chosen, axis) for chosen, axis in ((moving, days), (lasting, None)) if chosen]


def _with(scenes: Sequence[Scene], variables: Sequence[Variable]) -> list[Scene]:
    names = {v.feature.name for v in variables}
    return [s for s in scenes if any(n in names for n, _ in s.layers)]


def _reading(scenes: Sequence[Scene], variables: Sequence[Variable], resampling: str = "auto") -> Reading:
    rules = tuple("clearest" if v.static else choose_rule(v.daily, v.feature, masked=v.masked) for v in variables)
    whole = tuple(
        _scenes_a_day(scenes, v.feature.name) if rule == "sum" else 1 for v, rule in zip(variables, rules, strict=True)
    )
    return Reading(tuple(v.feature for v in variables), rules, resampling, whole)


def _scenes_a_day(scenes: Sequence[Scene], name: str) -> int:
    """Return the number of scenes of a whole day of a variable, that of the fullest. A sum of fewer would be too low.

    Raises
    ------
    SmgeoError
        If they are on different grids: a sum would count pixels twice that two of them cover.
    """
    mine = [s for s in scenes if any(n == name for n, _ in s.layers)]
    if other := next((s for s in mine if not same_pixels(s.box, mine[0].box)), None):
        raise SmgeoError(
            f"daily: sum of {name} needs all its files on one grid; {plain(other.name)} is on another than "
            f"{plain(mine[0].name)}. Choose mean, or join the tiles of a time into one file"
        )
    return max(Counter(s.day for s in mine).values(), default=1)


def _time(
    scenes: Sequence[Scene],
    variables: Sequence[Variable],
    days: pd.DatetimeIndex | None,
    where: object,
    resampling: str = "auto",
) -> dict[Hashable, object]:
    """Return the coordinates on `time`: the days, and the digest of the inputs of each."""
    if days is None:
        return {}
    moving = [v for v in variables if not v.static]
    mine = _with(scenes, moving)
    inputs = inputs_of_days(mine, _reading(mine, moving, resampling), where, days)
    return {"time": xr.DataArray(days, dims="time", name="time"), DAY_INPUTS: ("time", inputs)}
