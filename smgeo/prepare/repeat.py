"""What was done to the training data done to other data: steps that a cube carries, windows that a model was fitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import xarray as xr

from smgeo.catalog import TARGET_MEAN
from smgeo.cube.schema import is_grid
from smgeo.errors import SmgeoError
from smgeo.prepare.derive import derive_features
from smgeo.prepare.gaps import fill_gaps
from smgeo.prepare.scaling import Scaler
from smgeo.prepare.steps import lasting_steps, steps_of, with_step
from smgeo.prepare.target_mean import add_target_mean
from smgeo.prepare.windows import Windows


def _repeat_derive(ds: xr.Dataset, features: list[str]) -> xr.Dataset:
    return derive_features(ds, features)


def _repeat_scale(ds: xr.Dataset, scaler: dict[str, Any]) -> xr.Dataset:
    # A grid cube has no target, which may have been scaled by a scaler of its own.
    if not set(scaler["center"]) & set(ds.data_vars):
        return with_step(ds, "scale", scaler=scaler)
    return Scaler.from_dict(scaler).transform(ds)


def _repeat_fill(ds: xr.Dataset, limit: Any, revisit: Any, causal: bool = False, mask: bool = False) -> xr.Dataset:
    if isinstance(limit, dict):
        limit = {n: days for n, days in limit.items() if n in ds}
    # On a grid every pixel's own revisit counts: its attribute is the catalogue's, not that of the training stations.
    return fill_gaps(ds, limit, revisit="measured" if is_grid(ds) else revisit, causal=causal, mask=mask)


_REPEAT: dict[str, Callable[..., xr.Dataset]] = {
    "derive": _repeat_derive,
    "fill_gaps": _repeat_fill,
    "scale": _repeat_scale,
    TARGET_MEAN: add_target_mean,
}


def repeat_steps(ds: xr.Dataset, steps: list[dict[str, Any]]) -> xr.Dataset:
    """Do to `ds` what was done to another cube, and record it; steps that `ds` went through already are not repeated.

    Raises
    ------
    SmgeoError
        If `ds` went through other steps, or a step is unknown to this version of smgeo.
    """
    done, wanted = lasting_steps(steps_of(ds)), lasting_steps(steps)
    if done != wanted[: len(done)]:
        raise SmgeoError(
            f"the cube was prepared otherwise ({', '.join(s['step'] for s in done)}) than the model's training data "
            f"({', '.join(s['step'] for s in wanted)}, with its own numbers); give the cube as it was opened"
        )
    skipped = 0
    for step in steps:
        if step["step"] not in _REPEAT:
            raise SmgeoError(f"unknown preparation step {step['step']!r}; this model was written by a newer smgeo")
        if step["step"] != "derive" and skipped < len(done):
            skipped += 1
        else:
            ds = _REPEAT[step["step"]](ds, **{k: v for k, v in step.items() if k != "step"})
    return ds


def windows_like(preparation: Mapping[str, Any], ds: xr.Dataset, **changes: Any) -> Windows:
    """Windows of a prepared cube as a model's training data had them, but for `changes` (arguments of `Windows`)."""
    same = {name: preparation[name] for name in ("features", "target", "length", "missing", "fill", "mode")}
    return Windows(ds, **{**same, **changes})
