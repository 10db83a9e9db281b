# The decorators of xarray have no types.
# mypy: untyped-calls-exclude="xarray"
"""Steps of preparation as methods of a Dataset: `ds.smgeo.fill_gaps(limit=3)` is `smgeo.fill_gaps(ds, limit=3)`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import MethodType
from typing import Any, Literal

import xarray as xr


class _Step:
    """A function of smgeo whose first argument is the Dataset; imported at first use, with its own signature and help."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, accessor: SmgeoAccessor | None, owner: type | None = None) -> Any:
        function = getattr(importlib.import_module("smgeo"), self._name)
        return function if accessor is None else MethodType(function, accessor._ds)


@xr.register_dataset_accessor("smgeo")
class SmgeoAccessor:
    """`ds.smgeo`: the steps of preparation of a station cube or a grid cube, in their order.

    Each method is the function of that name with the Dataset as its first argument, and as lazy as that. The steps
    done to the Dataset are in `ds.attrs["smgeo_steps"]`.

    Examples
    --------
    >>> import numpy as np, pandas as pd, xarray as xr, smgeo
    >>> time = pd.date_range("2020-01-01", periods=4)
    >>> rain = xr.DataArray([[0.0, np.nan, 2.0, 4.0]], dims=("station", "time"), attrs={"units": "mm d-1"})
    >>> ds = xr.Dataset({"rain": rain}, {"station": ["N/a"], "time": time})
    >>> ready = ds.smgeo.fill_gaps(limit=1).smgeo.scale("minmax")
    >>> ready["rain"].values, ready.smgeo.unscale()["rain"].values
    (array([[0.  , 0.25, 0.5 , 1.  ]], dtype=float32), array([[0., 1., 2., 4.]], dtype=float32))
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    derive_features = _Step("derive_features")
    split_stations = _Step("split_stations")
    cv_folds = _Step("cv_folds")
    fill_gaps = _Step("fill_gaps")
    flag_out_of_range = _Step("flag_out_of_range")
    flag_outliers = _Step("flag_outliers")
    choose_z = _Step("choose_z")
    drop_outlier_rows = _Step("drop_outlier_rows")
    windows = _Step("Windows")
    audit_leakage = _Step("audit_leakage")

    def scale(
        self, kind: Literal["minmax", "robust", "standard"] = "minmax", stations: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return the Dataset scaled by a `Scaler` that is fitted on `stations`, the ids of the training stations; by default all.

        Raises
        ------
        SmgeoError
            If the Dataset lacks one of the stations, or is already scaled.
        """
        from smgeo.cube.schema import select_stations
        from smgeo.prepare import Scaler

        learn = self._ds if stations is None else select_stations(self._ds, stations)
        scaled: xr.Dataset = Scaler(kind).fit(learn).transform(self._ds)
        return scaled

    def unscale(self) -> xr.Dataset:
        """Return the Dataset in physical units, if scaling was the last step.

        Raises
        ------
        SmgeoError
            If it was not.
        """
        from smgeo.errors import SmgeoError
        from smgeo.prepare import Scaler, steps_of

        steps = steps_of(self._ds)
        if not steps or steps[-1]["step"] != "scale":
            raise SmgeoError(
                f"the Dataset was not scaled last: its steps are {', '.join(s['step'] for s in steps) or 'none'}"
            )
        unscaled: xr.Dataset = Scaler.from_dict(steps[-1]["scaler"]).inverse_transform(self._ds)
        return unscaled
