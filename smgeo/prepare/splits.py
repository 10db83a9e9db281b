"""Splits into training, validation and test part: whole groups of stations, as in the study, or periods.

A group is a place unless the cube says otherwise (`smgeo.prepare.places`).

A split in time has the same stations in each part and names the days of each (`periods`). `learnable` hides all other days from
what is learned, as temporal folds do, and `part_rows` gives the rows of a part.

If several stations share an extreme value, the first of them goes to training. Were it all of them, a day without rain would
send every station there.
"""

# mypy: untyped-calls-exclude="dask"

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from dask.base import compute

from smgeo.bounds import check_arguments, check_each, check_period, checked
from smgeo.cube.schema import observed, select_stations, variables_of_kind
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject
from smgeo.prepare.places import buffer_of, coordinates_of, group_numbers, grouped, near_stations
from smgeo.recipe.preparation import find_period_problem

PARTS = ("train", "validation", "test")
# Anything that pandas reads as a day.
Day = str | dt.date | np.datetime64


@dataclass(frozen=True)
class Split:
    """Station ids of each part; disjoint, unless the parts are periods.

    Attributes
    ----------
    train, validation, test : tuple of str
        Station ids of the cube, in its order.
    forced : dict of str to tuple of str
        Stations that are in training because they have an extreme value -> the variables of these values.
    left_out : tuple of str
        Stations without any value of the target, which are in no part.
    periods : dict of str to (str, str)
        For a split in time: first and last day of each part, such as `2015-04-01`. Stations are then in several parts.
    in_buffer : tuple of str
        Stations in no part: they would be in training or validation, but are nearer to a test (or validation) station than the buffer.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    forced: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    periods: dict[str, tuple[str, str]] = field(default_factory=dict)
    in_buffer: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, ids in self.parts().items():
            if len(set(ids)) < len(ids):
                twice = sorted({str(s) for s in ids if ids.count(s) > 1})
                raise SmgeoError(f"split: stations are twice in {name}: {', '.join(twice)}")
        if self.periods:
            if problem := find_period_problem(self.periods):
                raise SmgeoError(f"split: {problem}")
            return
        parts = [set(self.train), set(self.validation), set(self.test)]
        for i, a in enumerate(parts):
            for b in parts[i + 1 :]:
                if a & b:
                    raise SmgeoError(f"split: stations in two parts: {', '.join(sorted(map(str, a & b)))}")

    @classmethod
    def from_dict(cls, parts: JsonObject) -> Split:
        """Return the split that a run's results describe: ids by part, and optionally the others."""
        forced = {str(k): tuple(v) for k, v in parts.get("forced", {}).items()}
        train, validation, test, left_out, near = (tuple(parts.get(n, ())) for n in (*PARTS, "left_out", "in_buffer"))
        periods = {str(k): (str(a), str(b)) for k, (a, b) in parts.get("periods", {}).items()}
        return cls(train, validation, test, forced, left_out, periods, near)

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Return part name -> station ids."""
        return {name: getattr(self, name) for name in PARTS}


def split_periods(
    ds: xr.Dataset, train: tuple[Day, Day], test: tuple[Day, Day], validation: tuple[Day, Day] | None = None
) -> Split:
    """Split in time: all parts have the same stations, but different days.

    Stations without a value of the target in the training days are in no part.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube.
    train, test, validation : (date, date)
        First and last day of each part, both included, in the order train, validation, test.

    Returns
    -------
    Split
        Split with `periods`.

    Raises
    ------
    SmgeoError
        If periods overlap or are out of order, or a part has no day with a target.
    """
    given = {"train": train, "validation": validation, "test": test}
    periods = {}
    for part, asked in given.items():
        if ends := check_period(f"split: {part}", asked if part == "validation" else asked or ()):
            periods[part] = str(ends[0]), str(ends[1])
    if problem := find_period_problem(periods):
        raise SmgeoError(f"split: {problem}")
    for part, (first, last) in periods.items():
        try:
            known = _has_target(ds.sel(time=slice(first, last)))
        except SmgeoError:
            days = ds["time"].values[[0, -1]].astype("datetime64[D]")
            raise SmgeoError(
                f"split: no station has a value of the target from {first} to {last} ({part}); the cube's days are {days[0]} to {days[1]}"
            ) from None
        if part == "train":
            trained = known
    ids = ds["station"].values
    used, left_out = tuple(ids[trained].tolist()), tuple(ids[~trained].tolist())
    return Split(used, used if validation is not None else (), used, left_out=left_out, periods=periods)


def part_rows(ds: xr.Dataset, split: Split, part: str, target: str) -> xr.Dataset:
    """Select the stations of a part, lazily; in a split in time, with the target only on its days and no value of later days.

    Features of earlier days are kept: they are the past of a row, which users have too.
    """
    out = select_stations(ds, getattr(split, part))
    if part not in split.periods:
        return out
    day, (first, last) = _day_numbers(out), _ends_of(split, part)
    out = out.assign(hide_days(out, day > last))
    kept = out[target].where((day >= first) & (day <= last))
    return out.assign({target: kept.assign_attrs(out[target].attrs)})


def learnable(ds: xr.Dataset, split: Split) -> xr.Dataset:
    """Select all data that may be learned from, lazily: the training stations, in a split in time only on the training days."""
    out = select_stations(ds, split.train)
    if not split.periods:
        return out
    day, (first, last) = _day_numbers(out), _ends_of(split, "train")
    return out.assign(hide_days(out, (day < first) | (day > last)))


def hide_days(ds: xr.Dataset, hidden: xr.DataArray | Mapping[Hashable, xr.DataArray]) -> dict[Hashable, xr.DataArray]:
    """Return the variables in time with hidden days missing, without a revisit per station, which was measured over all days.

    `hidden` is bool (time,), for all variables or by name.
    """
    out = {}
    for name, variable in ds.data_vars.items():
        if "time" in variable.dims:
            days = hidden[name] if isinstance(hidden, Mapping) else hidden
            out[name] = variable.where(~days).assign_attrs(variable.attrs)
            if np.ndim(variable.attrs.get("revisit_days", 0)):  # per station: measured over the whole series
                for key in ("revisit_days", "revisit_stations"):
                    out[name].attrs.pop(key, None)
    return out


def _ends_of(split: Split, part: str) -> tuple[np.datetime64, np.datetime64]:
    """Return first and last day of a part."""
    first, last = split.periods[part]
    return np.datetime64(first), np.datetime64(last)


def _day_numbers(ds: xr.Dataset) -> xr.DataArray:
    """Return the day of each time, datetime64[D] (time,)."""
    return xr.DataArray(ds["time"].values.astype("datetime64[D]"), dims="time")


def find_extremes(ds: xr.Dataset) -> dict[str, tuple[str, ...]]:
    """Find the stations with the minimum or maximum of a dynamic or static variable or of the target.

    Calendar variables are left out, because they are equal at all stations. If several stations share an extreme (many have
    a day without rain), only the first in the cube is taken: otherwise no station would be left to test on.

    Returns
    -------
    dict
        Station id -> names of the extremes, such as `"min s1_vv"`.
    """
    names = variables_of_kind(ds, "dynamic", "static", "target")
    least, greatest = _least_and_greatest(ds[names])
    if any(np.isinf(v.values).any() for found in (least, greatest) for v in found.data_vars.values()):
        least, greatest = _least_and_greatest(xr.Dataset({n: ds[n].where(observed(ds[n])) for n in names}))
    ids = ds["station"].values.tolist()
    found: dict[str, list[str]] = {}
    for name in names:
        for word, values, pick in (
            ("min", least[name].values, np.nanargmin),
            ("max", greatest[name].values, np.nanargmax),
        ):
            if np.isfinite(values).any() and np.nanmin(values) < np.nanmax(values):
                found.setdefault(ids[pick(values)], []).append(f"{word} {name}")
    return {k: tuple(v) for k, v in found.items()}


def _least_and_greatest(per_station: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    found: tuple[xr.Dataset, xr.Dataset] = (
        compute(per_station.min("time"), per_station.max("time"))
        if "time" in per_station.dims
        else compute(per_station, per_station)
    )
    return found


@checked
def split_stations(
    ds: xr.Dataset,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    extremes_to_train: bool = True,
    seed: int = 0,
) -> Split:
    """Split stations at random; stations with an extreme value go to training, as in the study.

    Stations without any value of the target (a variable of kind "target"; of any, if there are several) are in no part.
    Validation and test get their shares of all other stations, drawn from those that are not forced to training. If too few
    of these are left, they are divided between the two parts in proportion. The stations of a place (no farther apart than 30 m) are in one
    part, or those of a group, if the cube has the coordinate `group`: from a table's column, or from `group_stations`.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube. Without a target, every station is split.
    fractions : (float, float, float)
        Shares of training, validation and test, which sum to 1. Validation or test stays empty if its share is 0.
    extremes_to_train : bool
        Apply the rule of extremes. It uses values of all stations, as the study does: it changes the test set, but fits
        nothing.
    seed : int
        Seed of the random order.

    Returns
    -------
    Split
        `left_out` contains the stations without a target, `in_buffer` those too near to others.

    Raises
    ------
    SmgeoError
        If the fractions do not sum to 1, no station has a target, or a part with a share stays empty.
    """
    check_arguments("split", seed=seed)
    check_each("split", "fractions", fractions, "share")
    if len(fractions) != 3 or not (fractions[0] > 0 <= min(fractions) and abs(sum(fractions) - 1) <= 1e-6):
        raise SmgeoError(
            "fractions must be three shares (train, validation, test) that sum to 1, with training above 0; got "
            f"{tuple(fractions)}"
        )
    ds = grouped(ds)
    known = _has_target(ds)
    left_out = ds["station"].values[~known].tolist()
    ds = ds.isel(station=known)
    ids = ds["station"].values.tolist()
    forced = find_extremes(ds) if extremes_to_train else {}
    groups = dict(zip(ids, group_numbers(ds).tolist(), strict=True))
    taken = {groups[s] for s in forced}
    free = [s for s in ids if groups[s] not in taken]
    n_val, n_test = (round(f * len(ids)) for f in fractions[1:])
    if n_val + n_test > len(free):
        share = len(free) / (n_val + n_test)
        n_test = max(round(n_test * share), 1) if n_test else 0
        n_val = len(free) - n_test
    validation, test = _draw(free, groups, n_val, n_test, seed)
    degrees, km = coordinates_of(ds), buffer_of(ds)
    tested, validated = (np.array([s in part for s in ids]) for part in (test, validation))
    # Validation stops networks and chooses parameters, so that it must not lie beside the test either.
    near = near_stations(degrees, tested, km) & ~tested
    validated &= ~near
    near |= near_stations(degrees, validated, km) & ~tested & ~validated
    in_buffer = tuple(s for s, is_near in zip(ids, near, strict=True) if is_near)
    split = Split(
        train=tuple(s for s, out in zip(ids, near | validated | tested, strict=True) if not out),
        validation=tuple(s for s, inside in zip(ids, validated, strict=True) if inside),
        test=tuple(s for s in ids if s in test),
        forced={s: extremes for s, extremes in forced.items() if s not in in_buffer},
        left_out=tuple(left_out),
        in_buffer=in_buffer,
    )
    empty = [name for share, (name, part) in zip(fractions, split.parts().items(), strict=True) if share and not part]
    if empty:
        raise SmgeoError(
            f"split: {' and '.join(empty)} would have no station: {len(ids)} stations"
            f"{f' with a target ({len(left_out)} without)' if left_out else ''}, {len(forced)} of them forced to "
            f"training by extreme values, {len(in_buffer)} in the buffer, fractions {tuple(fractions)}. Use more stations, larger "
            "fractions, smaller groups or buffers, or extremes_to_train: false"
        )
    return split


def _draw(
    free: list[str], groups: Mapping[Hashable, Hashable], n_val: int, n_test: int, seed: int
) -> tuple[set[str], set[str]]:
    """Return stations of validation and test: whole groups in random order, as long as a part has room for them.

    A group that is larger than the room stays in training. A part that would stay empty takes the smallest group that is left.
    """
    members: dict[Hashable, list[str]] = {}
    for station in free:
        members.setdefault(groups[station], []).append(station)
    units = list(members.values())
    order = [units[i] for i in np.random.default_rng(seed).permutation(len(units))]
    parts: tuple[set[str], set[str]] = (set(), set())
    left = []
    for unit in order:
        for part, number in zip(parts, (n_val, n_test), strict=True):
            if len(part) + len(unit) <= number:
                part.update(unit)
                break
        else:
            left.append(unit)
    left.sort(key=len)
    for part, number in zip(parts, (n_val, n_test), strict=True):
        if number and not part and left:
            part.update(left.pop(0))
    return parts


def _has_target(ds: xr.Dataset) -> np.ndarray:
    """Return a mask of the stations with a value of a target, bool (station,); all if the cube has no target."""
    targets = variables_of_kind(ds, "target")
    if not targets:
        return np.ones(ds.sizes["station"], dtype=bool)
    some = [observed(ds[n]).any([d for d in ds[n].dims if d != "station"]) for n in targets]
    known: np.ndarray = np.logical_or.reduce([values.values for values in compute(*some)])
    if not known.any():
        raise SmgeoError(
            f"split: none of the {known.size} stations has a value of the target {' or '.join(targets)}; open stations with "
            "observations, or drop the variable to split all stations"
        )
    return known
