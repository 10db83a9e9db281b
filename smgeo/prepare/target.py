"""The target and its features: their names, and the way back from a model's output to m3 m-3."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from smgeo.cube.schema import is_grid, variables_of_kind
from smgeo.errors import SmgeoError, nearest
from smgeo.prepare.scaling import Scaler
from smgeo.prepare.steps import Preparation


def target_scale(preparation: Preparation) -> tuple[float, float] | None:
    """Return center and scale of a model's output; None if the target was not scaled."""
    scalers = [Scaler.from_dict(s["scaler"]) for s in preparation["steps"] if s["step"] == "scale"]
    target = preparation["target"]
    found = [(s.center_[target], s.scale_[target]) for s in scalers if target in s.center_]
    return found[-1] if found else None


def target_scaler(preparation: Preparation) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that converts a model's output to the target's unit."""
    found = target_scale(preparation)
    if found is None:
        return lambda y: y.astype("float32")
    center, scale = found
    return lambda y: (y.astype("float64") * scale + center).astype("float32")


def known_features(ds: xr.Dataset, target: str) -> list[str]:
    """Return the dynamic, static and calendar variables except the target, sorted because stores do not keep their order."""
    return sorted(n for n in variables_of_kind(ds, "dynamic", "static", "calendar") if n != target)


def choose_features(ds: xr.Dataset, features: Sequence[str] | None, target: str, what: str) -> list[str]:
    """Return the features requested from a station cube, by default those of `known_features`; `what` starts the errors."""
    if is_grid(ds):
        raise SmgeoError(f"{what}: needs a station cube with dims station and time; got a grid cube")
    names = known_features(ds, target) if features is None else list(features)
    if not names:
        raise SmgeoError(f"{what}: no feature is named, and the cube has no dynamic, static or calendar variable")
    if target in names:
        raise SmgeoError(f"{what}: the target {target!r} is among the features; leave it out of them")
    return names


def check_target_is_observed(ds: xr.Dataset, target: str) -> None:
    """Refuse a cube without the target, and one in which its gaps were filled: models are scored on observations."""
    if target not in ds:
        raise SmgeoError(f"the cube has no target {target!r}; {nearest(target, list(map(str, ds.data_vars)))}")
    limit = ds[target].attrs.get("gaps_filled", 0)
    if limit != 0:
        raise SmgeoError(
            f"gaps of the target {target!r} were filled (limit {limit}), and models are scored on observations; use the cube with the "
            "observed target, and set attrs['kind'] to 'target' so that it is not filled by default"
        )
