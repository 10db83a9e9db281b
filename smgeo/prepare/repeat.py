"""Repeat the preparation of the training data on other data: the steps of a cube, and the windows of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypedDict, Unpack

import xarray as xr

from smgeo.catalog import TARGET_MEAN
from smgeo.cube.schema import is_grid
from smgeo.errors import SmgeoError
from smgeo.prepare.derive import derive_features
from smgeo.prepare.gaps import GapLimit, fill_gaps
from smgeo.prepare.scaling import Scaler, ScalerState
from smgeo.prepare.steps import Preparation, Step, lasting_steps, steps_of, with_step
from smgeo.prepare.target_mean import add_target_mean
from smgeo.prepare.windows import Windows


def _repeat_derive(ds: xr.Dataset, features: list[str]) -> xr.Dataset:
    return derive_features(ds, features)


def _repeat_scale(ds: xr.Dataset, scaler: ScalerState) -> xr.Dataset:
    # A grid cube has no target, and the target may have a scaler of its own.
    if not set(scaler["center"]) & set(ds.data_vars):
        return with_step(ds, "scale", scaler=scaler)
    return Scaler.from_dict(scaler).transform(ds)


def _repeat_fill(
    ds: xr.Dataset,
    limit: GapLimit,
    revisit: Literal["attribute", "measured"],
    causal: bool = False,
    mask: bool = False,
) -> xr.Dataset:
    if isinstance(limit, dict):
        limit = {n: days for n, days in limit.items() if n in ds}
    # On a grid each pixel's own revisit counts: the attribute is the catalogue's, not that of the training stations.
    return fill_gaps(ds, limit, revisit="measured" if is_grid(ds) else revisit, causal=causal, mask=mask)


_REPEAT: dict[str, Callable[..., xr.Dataset]] = {
    "derive": _repeat_derive,
    "fill_gaps": _repeat_fill,
    "scale": _repeat_scale,
    TARGET_MEAN: add_target_mean,
}


def repeat_steps(ds: xr.Dataset, steps: list[Step]) -> xr.Dataset:
    """Repeat the steps of another cube on `ds`, and record them. Steps that `ds` already went through are skipped.

    Raises
    ------
    SmgeoError
        If `ds` went through other steps, or a step is unknown to this version of smgeo.
    """
    done, wanted = lasting_steps(steps_of(ds)), lasting_steps(steps)
    if done != wanted[: len(done)]:
        raise SmgeoError(
            f"the cube was prepared in another way ({', '.join(s['step'] for s in done)}) than the model's training data "
            f"({', '.join(s['step'] for s in wanted)}, with their own numbers); use the cube as it was opened"
        )
    skipped = 0
    for step in steps:
        if step["step"] not in _REPEAT:
            raise SmgeoError(f"unknown preparation step {step['step']!r}; this model was written by a newer smgeo")
        if step["step"] != "derive" and skipped < len(done):
            skipped += 1
        else:
            try:
                ds = _REPEAT[step["step"]](ds, **{k: v for k, v in step.items() if k != "step"})
            except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
                if isinstance(error, SmgeoError):
                    raise
                raise SmgeoError(
                    f"the model's preparation step {step['step']!r} cannot be repeated ({error!r}); its file is damaged, so train the model again"
                ) from None
    return ds


class WindowChanges(TypedDict, total=False):
    """Arguments of `Windows` that may differ from those of the training data."""

    target: str | None
    ends: Sequence[int] | None


def windows_like(preparation: Preparation, ds: xr.Dataset, **changes: Unpack[WindowChanges]) -> Windows:
    """Return windows of a prepared cube, made as those of a model's training data except for `changes`."""
    return Windows(
        ds,
        preparation["features"],
        changes.get("target", preparation["target"]),
        preparation["length"],
        preparation["missing"],
        preparation["fill"],
        mode=preparation["mode"],
        ends=changes.get("ends"),
    )
