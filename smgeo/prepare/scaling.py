"""Scaling of the variables of a cube, or the columns of a table, fitted on training stations."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, cast, overload

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from smgeo.cube.schema import check_known_units, check_numbers, crs_encoding, units_of, variables_of_kind
from smgeo.errors import SmgeoError, nearest
from smgeo.files import load_json, write_json
from smgeo.prepare import scale_values
from smgeo.prepare.scale_statistics import STATISTICS, CenterScale, learn_columns, learn_variables
from smgeo.prepare.steps import steps_of, with_step, without_last_step

ScalerKind = Literal["minmax", "robust", "standard"]
Table = ArrayLike | pd.DataFrame

_SCALED_KINDS = ("dynamic", "static", "calendar", "target")


class ScalerState(TypedDict):
    """All that a scaler learned, as JSON types: its kind, and by variable the center, the scale and the unit."""

    kind: ScalerKind
    center: dict[str, float]
    scale: dict[str, float]
    units: dict[str, str]


class UnfittedScalerError(SmgeoError, NotFittedError):  # type: ignore[misc] # scikit-learn has no types
    """A scaler was used before `fit`; also scikit-learn's error, which its tools look for."""


class _TableScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Tables of numbers: scikit-learn's part of `Scaler`, which wraps `transform` in the output that `set_output` requests."""

    kind: ScalerKind
    center_: dict[str, float]
    scale_: dict[str, float]
    units_: dict[str, str]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X: Table, y: object = None) -> Self:
        X = self._check_table(X, reset=True)
        names = [str(n) for n in self.get_feature_names_out()]
        found = dict(zip(names, learn_columns(self.kind, X), strict=True))
        self._learn(found, dict.fromkeys(names, ""), f"in {X.shape[0]} rows")
        return self

    def transform(self, X: Table) -> Any:  # an array or a table, by `set_output`
        X = self._check_table(X)
        out = np.subtract(X, [*self.center_.values()], dtype=np.float64)
        out /= [*self.scale_.values()]
        return out.astype(X.dtype, copy=False)

    def inverse_transform(self, X: Table) -> np.ndarray:
        X = self._check_table(X)
        out: np.ndarray = np.multiply(X, [*self.scale_.values()], dtype=np.float64)
        out += [*self.center_.values()]
        return out.astype(X.dtype, copy=False)

    def _check_table(self, X: Table, reset: bool = False) -> np.ndarray:
        table: np.ndarray = validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan"
        )
        return table

    def _learn(self, found: Mapping[str, CenterScale], units: dict[str, str], where: str) -> None:
        bad = [n for n, numbers in found.items() if not np.isfinite(numbers).all()]
        if bad:
            raise SmgeoError(
                f"scaler: no value of {', '.join(bad)} {where} that it is fitted on (infinite ones are missing); leave the variable out"
            )
        self.center_ = {n: center for n, (center, _) in found.items()}
        self.scale_ = {n: scale for n, (_, scale) in found.items()}
        self.units_ = units

    def _name_features(self, names: list[str]) -> None:
        """Set scikit-learn's attributes; a table without column names has the names x0, x1, ... and no `feature_names_in_`."""
        self.n_features_in_ = len(names)
        self.feature_names_in_ = np.array(names, dtype=object)
        if names == [f"x{i}" for i in range(len(names))]:
            del self.feature_names_in_


# Scikit-learn wraps the methods of subclasses of TransformerMixin for `set_output`. It must not wrap those of _CubeScaler,
# which is therefore a subclass only for type checkers; `Scaler` inherits from both.
if TYPE_CHECKING:
    _ForTables = _TableScaler
else:
    _ForTables = object


class _CubeScaler(_ForTables):
    """Datasets: in and out independent of `set_output`, which supports only arrays and tables."""

    def fit(self, X: xr.Dataset | Table, y: object = None) -> Self:
        """Learn center and scale in one pass over the values; missing and infinite values are left out.

        Parameters
        ----------
        X : xarray.Dataset, or array or DataFrame (rows, columns)
            Training stations only. The dynamic, static, calendar and target variables of a cube are scaled; masks (kind
            "flag") are not. For Dask input, one chunk per thread is in memory ("standard": the whole series of a chunk's
            stations; "robust": all non-missing values of the variables in work, because quartiles are exact).
        y : ignored

        Raises
        ------
        SmgeoError
            If there is no such variable, or one is not numeric or has no value.
        """
        _check_kind(self.kind)
        if not isinstance(X, xr.Dataset):
            return super().fit(X, y)
        names = [n for n in variables_of_kind(X, *_SCALED_KINDS) if X[n].dtype != bool]
        if not names:
            raise SmgeoError(
                f"scaler: the cube has no dynamic, static, calendar or target variable to scale, but {_names_of(X)}"
            )
        check_numbers(X, names, "scaler")
        variables = {n: X.variables[n] for n in names}
        units = {n: str(v.attrs.get("units", "")) for n, v in variables.items()}
        where = f"at the {X.sizes['station']} stations" if "station" in X.sizes else "in the cube"
        self._learn(learn_variables(self.kind, variables), units, where)
        self._name_features(names)
        return self

    @overload
    def transform(self, X: xr.Dataset) -> xr.Dataset: ...
    @overload
    def transform(self, X: Table) -> Any: ...
    def transform(self, X: xr.Dataset | Table) -> Any:
        """Return `(X - center) / scale`, computed in float64.

        Parameters
        ----------
        X : xarray.Dataset, or array or DataFrame (rows, columns)
            Station or grid cube: variables that the scaler knows are scaled, others are kept. A table needs the columns of
            `fit`, in their order.

        Returns
        -------
        xarray.Dataset, array or table
            For a Dataset, a Dataset as lazy as `X` (one Dask layer per variable): float32, missing where `X` is, units `"1"`,
            the previous unit in `unscaled_units`, and the step in its record. Variables that are computed at once share one
            block of memory, which is freed when none of them is left. For a table, the output that `set_output` requests,
            in the dtype of the table.

        Raises
        ------
        SmgeoError
            If the scaler is not fitted, or a Dataset has none of its variables, one that is already scaled, or one in
            another unit than in `fit` (if both units are known).
        """
        self._check_fitted()
        if not isinstance(X, xr.Dataset):
            return super().transform(X)
        names = self._known(X)
        scaled = [n for n in names if "unscaled_units" in X[n].attrs]
        if scaled:
            raise SmgeoError(
                f"scaler: {', '.join(scaled)} of the cube is scaled already (attrs['unscaled_units']); undo that with "
                "ds.smgeo.unscale(), or use the cube as it was before"
            )
        check_known_units(units_of(X, names), self.units_, "the cube to scale")
        attrs = {n: {**X.variables[n].attrs, "units": "1", "unscaled_units": self.units_[n]} for n in names}
        return with_step(self._map(scale_values.scale, X, attrs), "scale", scaler=self.to_dict())

    @overload
    def inverse_transform(self, X: xr.Dataset) -> xr.Dataset: ...
    @overload
    def inverse_transform(self, X: Table) -> np.ndarray: ...
    def inverse_transform(self, X: xr.Dataset | Table) -> xr.Dataset | np.ndarray:
        """Return values in physical units, `X * scale + center`, in and out as `transform`; arrays stay arrays.

        Raises
        ------
        SmgeoError
            If the scaler is not fitted, a Dataset has none of its variables, or the last step in its record is not this
            scaling: later steps were applied to scaled values.
        """
        self._check_fitted()
        if not isinstance(X, xr.Dataset):
            return super().inverse_transform(X)
        steps = steps_of(X)
        if steps and steps[-1] != {"step": "scale", "scaler": self.to_dict()}:
            raise SmgeoError(
                f"inverse_transform undoes the last step of a cube, which must be the scaling by this scaler; its steps are "
                f"{', '.join(s['step'] for s in steps)}. Undo the scaling before other steps, or apply them before scaling"
            )
        attrs = {n: {**X.variables[n].attrs, "units": self.units_[n]} for n in self._known(X)}
        for of_variable in attrs.values():
            of_variable.pop("unscaled_units", None)
        out = self._map(scale_values.unscale, X, attrs)
        return without_last_step(out) if steps else out

    @overload
    def fit_transform(self, X: xr.Dataset, y: object = None) -> xr.Dataset: ...
    @overload
    def fit_transform(self, X: Table, y: object = None) -> Any: ...
    def fit_transform(self, X: xr.Dataset | Table, y: object = None) -> Any:
        """Return `fit(X).transform(X)`."""
        return self.fit(X, y).transform(X)

    def to_dict(self) -> ScalerState:
        """Return all that was learned, as JSON types."""
        self._check_fitted()
        return {"kind": self.kind, "center": self.center_, "scale": self.scale_, "units": self.units_}

    def _map(
        self, kernel: scale_values.Kernel, ds: xr.Dataset, attrs: Mapping[str, dict[Hashable, object]]
    ) -> xr.Dataset:
        params = {n: (self.center_[n], self.scale_[n]) for n in attrs}
        old = {n: ds.variables[n] for n in attrs}
        values = scale_values.map_variables(kernel, old, params)
        return ds.assign({n: xr.Variable(v.dims, values[n], attrs[n], crs_encoding(ds[n])) for n, v in old.items()})

    def _known(self, ds: xr.Dataset) -> list[str]:
        names = [str(n) for n in ds.data_vars if n in self.center_]
        if not names:
            raise SmgeoError(
                f"scaler: it knows {', '.join(self.center_)}; the cube has none of them, but {_names_of(ds)}"
            )
        return names

    def _check_fitted(self) -> None:
        if not hasattr(self, "center_"):
            raise UnfittedScalerError("this Scaler is not fitted yet; call fit on the training stations first")


class Scaler(_CubeScaler, _TableScaler):
    """Scale every variable of a cube, or every column of a table: `(x - center) / scale`.

    Equals scikit-learn's MinMaxScaler, RobustScaler and StandardScaler on float64. Like these it ignores missing values,
    which stay missing. Fit it only on training stations: `Scaler("minmax").fit(ds.sel(station=list(split.train)))`.
    For a station cube the numbers are the same to the last bit for any chunking; for a grid cube "standard" may differ by
    1e-12. It is also a scikit-learn transformer for tables, in pipelines and with `set_output`.

    Parameters
    ----------
    kind : {"minmax", "robust", "standard"}
        Minimum and range; median and interquartile range; mean and (population) standard deviation.

    Attributes
    ----------
    center_, scale_ : dict of str to float
        By variable, in its unit; float64. A spread of 0 is replaced by 1. As in scikit-learn, so is a range below 2.2e-15 and
        a standard deviation that rounding could explain.
    units_ : dict of str to str
        Unit of each variable before scaling; "" for a table.
    n_features_in_, feature_names_in_ : int, array of str
        Number and names of the variables or columns; no names if the table had none.

    Examples
    --------
    >>> import xarray as xr
    >>> ds = xr.Dataset({"sm": ("station", [0.1, 0.2, 0.5], {"units": "m3 m-3"})})
    >>> Scaler("minmax").fit(ds).transform(ds)["sm"].values
    array([0.  , 0.25, 1.  ], dtype=float32)
    """

    def __init__(self, kind: ScalerKind = "minmax") -> None:
        _check_kind(kind)
        self.kind = kind

    @classmethod
    def from_dict(cls, state: ScalerState) -> Self:
        """Return the scaler with this state, from `to_dict`.

        Raises
        ------
        SmgeoError
            If it is the state of none; it may come from a file.
        """
        if problem := _problem_of(state):
            raise SmgeoError(f"this is not the state of a scaler: {problem}")
        scaler = cls(state["kind"])
        scaler.center_, scaler.scale_ = ({n: float(v) for n, v in state[part].items()} for part in ("center", "scale"))
        scaler.units_ = dict(state["units"])
        scaler._name_features(list(scaler.center_))
        return scaler

    def save(self, path: str | Path) -> None:
        """Write the scaler as JSON: to a file next to `path`, then renamed. Numbers are kept to the last bit."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote.

        Raises
        ------
        SmgeoError
            If the file is damaged or contains something else.
        """
        state = load_json(Path(path), "use a file that Scaler.save wrote", finite=False)
        if problem := _problem_of(state):
            raise SmgeoError(f"{path} is not a scaler: {problem}; use a file that Scaler.save wrote")
        return cls.from_dict(cast(ScalerState, state))


def _names_of(ds: xr.Dataset) -> str:
    return ", ".join(map(str, ds.data_vars)) or "nothing"


def _check_kind(kind: str) -> None:
    if kind not in STATISTICS:
        raise SmgeoError(f"unknown scaler {kind!r}; {nearest(str(kind), list(STATISTICS))}")


def _problem_of(state: object) -> str:
    """Return the first problem of a scaler's state, or an empty string."""
    if not isinstance(state, dict) or set(state) != {"kind", "center", "scale", "units"}:
        return "expected exactly the keys kind, center, scale and units"
    if state["kind"] not in list(STATISTICS):
        return f"its kind is {state['kind']!r}; known kinds: {', '.join(STATISTICS)}"
    parts = [state[part] for part in ("center", "scale", "units")]
    if not all(isinstance(part, dict) and set(part) == set(parts[0]) for part in parts):
        return "center, scale and units must name the same variables"
    center, scale, units = (list(part.values()) for part in parts)
    if (
        not all(type(v) in (int, float) and abs(v) <= sys.float_info.max for v in center + scale)
        or min(scale, default=1) <= 0
    ):
        return "center and scale must be finite numbers, with scale above 0"
    return "" if all(isinstance(unit, str) for unit in units) else "units must be text"
