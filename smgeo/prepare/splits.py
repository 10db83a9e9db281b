"""The study's split: whole stations to training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dask
import numpy as np
import xarray as xr

from smgeo.cube import variables_of_kind
from smgeo.errors import SmgeoError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Station ids of each part; disjoint.

    Attributes
    ----------
    train, validation, test : tuple of str
        Station ids as the cube has them, in its order.
    forced : dict of str to tuple of str
        Stations sent to training because they hold an extreme value, and of which variables.
    left_out : tuple of str
        Stations without any value of the target, which are in no part.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    forced: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, ids in self.parts().items():
            if len(set(ids)) < len(ids):
                twice = sorted({str(s) for s in ids if ids.count(s) > 1})
                raise SmgeoError(f"split: stations named twice in {name}: {', '.join(twice)}")
        parts = [set(self.train), set(self.validation), set(self.test)]
        for i, a in enumerate(parts):
            for b in parts[i + 1 :]:
                if a & b:
                    raise SmgeoError(f"split: stations in two parts: {', '.join(sorted(map(str, a & b)))}")

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Split:
        """The split that a run's results describe: lists of ids by part, and where there are any `forced` and `left_out`."""
        forced = {str(k): tuple(v) for k, v in parts.get("forced", {}).items()}
        train, validation, test, left_out = (tuple(parts.get(name, ())) for name in (*PARTS, "left_out"))
        return cls(train, validation, test, forced, left_out)

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Part name -> station ids."""
        return {name: getattr(self, name) for name in PARTS}


def find_extremes(ds: xr.Dataset) -> dict[str, tuple[str, ...]]:
    """Stations that hold the least or the greatest value of a dynamic or static variable or of the target.

    Calendar variables are left out: all stations have them alike.

    Where several stations share an extreme (as many share a day without rain), the first of the cube is
    taken: were all of them, no station would be left to test on.

    Returns
    -------
    dict
        Station id -> names of the variables, as `"min s1_vv"`.
    """
    names = variables_of_kind(ds, "dynamic", "static", "target")
    per_station = ds[names]
    if "time" in per_station.dims:
        least, greatest = per_station.min("time"), per_station.max("time")
    else:
        least = greatest = per_station
    least, greatest = dask.compute(least, greatest)
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


def split_stations(
    ds: xr.Dataset,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    extremes_to_train: bool = True,
    seed: int = 0,
) -> Split:
    """Split stations at random; those that hold an extreme value go to training, as in the study.

    Stations without any value of the target (a variable of kind "target"; of any, where there are several) are in no
    part. Validation and test get their share of all others, drawn from those that are not forced; where too few of these
    are left, they are shared out between the two in proportion.

    Parameters
    ----------
    ds : xarray.Dataset
        Station cube. Without a target every station is split.
    fractions : (float, float, float)
        Shares of training, validation and test; they sum to 1. Validation or test stays empty where its share is 0.
    extremes_to_train : bool
        Whether the extreme rule holds. It looks at values of all stations, as the study does: it shapes the
        test set, and fits nothing.
    seed : int
        Of the random order.

    Returns
    -------
    Split
        `left_out` names the stations without a target.

    Raises
    ------
    SmgeoError
        If the fractions don't sum to 1, no station has a target, or a part stays empty that was to have stations.
    """
    if len(fractions) != 3 or not (fractions[0] > 0 <= min(fractions) and abs(sum(fractions) - 1) <= 1e-6):
        raise SmgeoError(
            "fractions must be three shares (train, validation, test) that sum to 1, that of training above 0; got "
            f"{tuple(fractions)}"
        )
    known = _has_target(ds)
    left_out = ds["station"].values[~known].tolist()
    ds = ds.isel(station=known)
    ids = ds["station"].values.tolist()
    forced = find_extremes(ds) if extremes_to_train else {}
    free = [s for s in ids if s not in forced]
    n_val, n_test = (round(f * len(ids)) for f in fractions[1:])
    if n_val + n_test > len(free):
        share = len(free) / (n_val + n_test)
        n_test = max(round(n_test * share), 1) if n_test else 0
        n_val = len(free) - n_test
    order = np.random.default_rng(seed).permutation(len(free))
    validation = {free[i] for i in order[:n_val]}
    test = {free[i] for i in order[n_val : n_val + n_test]}
    split = Split(
        train=tuple(s for s in ids if s not in validation and s not in test),
        validation=tuple(s for s in ids if s in validation),
        test=tuple(s for s in ids if s in test),
        forced=forced,
        left_out=tuple(left_out),
    )
    empty = [name for share, (name, part) in zip(fractions, split.parts().items(), strict=True) if share and not part]
    if empty:
        raise SmgeoError(
            f"split: {' and '.join(empty)} would hold no station: {len(ids)} stations"
            f"{f' with a target ({len(left_out)} without)' if left_out else ''}, {len(forced)} of them forced to "
            f"training by extreme values, fractions {tuple(fractions)}. Use more stations, larger fractions, or "
            "extremes_to_train: false"
        )
    return split


def _has_target(ds: xr.Dataset) -> np.ndarray:
    """Which stations have a value of a target, bool (station,); all where the cube has no target."""
    targets = variables_of_kind(ds, "target")
    if not targets:
        return np.ones(ds.sizes["station"], dtype=bool)
    some = [ds[n].notnull().any([d for d in ds[n].dims if d != "station"]) for n in targets]
    known = np.logical_or.reduce([values.values for values in dask.compute(*some)])
    if not known.any():
        raise SmgeoError(
            f"split: none of the {known.size} stations has a value of the target {' or '.join(targets)}; open stations with "
            "observations, or drop the variable to split all"
        )
    return known
