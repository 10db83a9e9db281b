"""Scaling of a cube's variables, fitted on training stations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import dask
import numpy as np
import xarray as xr

from smgeo.cube import variables_of_kind
from smgeo.errors import SmgeoError, nearest
from smgeo.prepare.steps import steps_of, with_step, without_last_step

ScalerKind = Literal["minmax", "robust", "standard"]


def _minmax(ds: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    least = ds.min()
    return least, ds.max() - least


def _robust(ds: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    whole = ds.chunk(-1) if any(v.chunks is not None for v in ds.variables.values()) else ds
    q = whole.quantile([0.25, 0.5, 0.75], skipna=True)
    return q.sel(quantile=0.5, drop=True), q.sel(quantile=0.75, drop=True) - q.sel(quantile=0.25, drop=True)


def _standard(ds: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    return ds.mean(), ds.std()


_STATISTICS = {"minmax": _minmax, "robust": _robust, "standard": _standard}


class Scaler:
    """Scale every variable of a cube: `(x - center) / scale`.

    Equal to scikit-learn's MinMaxScaler, RobustScaler and StandardScaler on complete data; missing values are
    left out of the statistics and stay missing. Fit it on training stations alone:
    `Scaler("minmax").fit(ds.sel(station=list(split.train)))`.

    Parameters
    ----------
    kind : {"minmax", "robust", "standard"}
        Minimum and range; median and interquartile range; mean and (population) standard deviation.

    Attributes
    ----------
    center_, scale_ : dict of str to float
        Per variable, in its unit; a range of 0 is taken as 1.
    units_ : dict of str to str
        Unit of each variable before scaling.
    """

    def __init__(self, kind: ScalerKind = "minmax") -> None:
        if kind not in _STATISTICS:
            raise SmgeoError(f"unknown scaler {kind!r}; {nearest(kind, list(_STATISTICS))}")
        self.kind = kind

    def fit(self, ds: xr.Dataset) -> Scaler:
        """Learn center and scale of the dynamic, static, calendar and target variables of `ds`, in one pass.

        Raises
        ------
        SmgeoError
            If a variable has no value at all.
        """
        names = variables_of_kind(ds, "dynamic", "static", "calendar", "target")
        center, scale = dask.compute(*_STATISTICS[self.kind](ds[names].astype("float64")))
        empty = [n for n in names if not np.isfinite(float(center[n]))]
        if empty:
            raise SmgeoError(
                f"scaler: no value of {', '.join(empty)} at the {ds.sizes.get('station', 0)} stations it is fitted on"
            )
        self.center_ = {n: float(center[n]) for n in names}
        self.scale_ = {n: float(scale[n]) or 1.0 for n in names}
        self.units_ = {n: str(ds[n].attrs.get("units", "")) for n in names}
        return self

    def transform(self, ds: xr.Dataset) -> xr.Dataset:
        """Scale the variables of `ds` that the scaler knows; float32, as lazy as `ds`, units `"1"`."""
        self._check_fitted()
        out = {}
        for n in self._known(ds):
            attrs = {**ds[n].attrs, "units": "1", "unscaled_units": self.units_[n]}
            out[n] = (
                ((ds[n].astype("float64") - self.center_[n]) / self.scale_[n]).astype("float32").assign_attrs(attrs)
            )
        return with_step(ds.assign(out), "scale", scaler=self.to_dict())

    def inverse_transform(self, ds: xr.Dataset) -> xr.Dataset:
        """Back to physical units; float32, as lazy as `ds`."""
        self._check_fitted()
        out = {}
        for n in self._known(ds):
            attrs = {k: v for k, v in ds[n].attrs.items() if k != "unscaled_units"} | {"units": self.units_[n]}
            out[n] = (ds[n].astype("float64") * self.scale_[n] + self.center_[n]).astype("float32").assign_attrs(attrs)
        result = ds.assign(out)
        steps = steps_of(ds)
        return without_last_step(result) if steps and steps[-1]["step"] == "scale" else result

    def to_dict(self) -> dict[str, Any]:
        """All that was learned, as JSON types."""
        self._check_fitted()
        return {"kind": self.kind, "center": self.center_, "scale": self.scale_, "units": self.units_}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Scaler:
        """The scaler whose `to_dict` gave `state`."""
        scaler = cls(state["kind"])
        scaler.center_, scaler.scale_, scaler.units_ = dict(state["center"]), dict(state["scale"]), dict(state["units"])
        return scaler

    def save(self, path: str | Path) -> None:
        """Write the scaler as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Scaler:
        """Read what `save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def _known(self, ds: xr.Dataset) -> list[str]:
        return [str(n) for n in ds.data_vars if n in self.center_]

    def _check_fitted(self) -> None:
        if not hasattr(self, "center_"):
            raise SmgeoError("this Scaler is not fitted yet; call fit on the training stations first")
