"""Scaling of a cube's variables, or of a table's columns, fitted on training stations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import dask
import dask.array as da
import numba
import numpy as np
import xarray as xr
from dask.delayed import Delayed
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import validate_data

from smgeo.cube.schema import check_known_units, check_numbers, crs_encoding, units_of, variables_of_kind
from smgeo.errors import SmgeoError, nearest
from smgeo.files import write_json
from smgeo.prepare.moments import as_float, combine_moments, moments_of_rows
from smgeo.prepare.steps import steps_of, with_step, without_last_step
from smgeo.threads import map_threads

ScalerKind = Literal["minmax", "robust", "standard"]

_SCALED_KINDS = ("dynamic", "static", "calendar", "target")
_EPS = float(np.finfo(np.float64).eps)


class UnfittedScalerError(SmgeoError, NotFittedError):
    """A scaler was used before `fit`; scikit-learn's error too, which its tools look for."""


# What a block of values tells of its variable. Blocks are combined in their order, by the functions below.


def _extremes(x: np.ndarray) -> np.ndarray:
    """Least and largest value; NaN where there is none."""
    ends = [ufunc.reduce(as_float(x), axis=None, initial=np.nan) for ufunc in (np.fmin, np.fmax)]
    return np.array(ends, dtype=np.float64)


def _observed(x: np.ndarray) -> np.ndarray:
    """The values that are not missing, in one row."""
    x = as_float(x)
    return x[~np.isnan(x)]


def _moments(x: np.ndarray) -> np.ndarray:
    """Moments of each station's series (of each day's pixels in a grid cube)."""
    x = np.ascontiguousarray(as_float(x))  # at least one dim
    return moments_of_rows(x.reshape(x.shape[0], math.prod(x.shape[1:])))


# From the blocks of a variable to its center and scale.


def _minmax(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    ends = np.array(parts)
    least, largest = float(np.fmin.reduce(ends[:, 0])), float(np.fmax.reduce(ends[:, 1]))
    return least, _unless_constant(largest - least)


def _robust(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate(parts)
    if not values.size:
        return math.nan, math.nan
    place = np.array([0.25, 0.5, 0.75]) * (values.size - 1)
    below = place.astype(int)
    above = np.minimum(below + 1, values.size - 1)
    values.partition(np.unique([below, above]))
    low, high = values[below].astype(np.float64), values[above].astype(np.float64)
    lower, median, upper = (low + (high - low) * (place - below)).tolist()
    return median, _unless_constant(upper - lower)


def _standard(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    count, mean, squares = combine_moments(np.concatenate(parts))
    if not count:
        return math.nan, math.nan
    variance = squares / count
    # scikit-learn's bound of what rounding alone can make of a constant (Chan, Golub and LeVeque 1983).
    rounding = count * _EPS * variance + (count * mean * _EPS) ** 2
    return mean, 1.0 if variance <= rounding else math.sqrt(variance)


def _unless_constant(spread: float) -> float:
    """`spread`, or 1 where it is so small that values beside it would overflow; scikit-learn's limit for float64."""
    return 1.0 if spread < 10 * _EPS else spread


# kind -> what a block tells, and what all blocks together do.
_STATISTICS: dict[str, tuple[Callable[..., np.ndarray], Callable[..., tuple[float, float]]]] = {
    "minmax": (_extremes, _minmax),
    "robust": (_observed, _robust),
    "standard": (_moments, _standard),
}


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _scale(x: np.ndarray, center: float, scale: float, out: np.ndarray) -> None:
    for i in range(x.size):
        out[i] = (np.float64(x[i]) - center) / scale


@numba.njit(cache=True, nogil=True)
def _unscale(x: np.ndarray, center: float, scale: float, out: np.ndarray) -> None:
    for i in range(x.size):
        out[i] = np.float64(x[i]) * scale + center


def _map_block(x: np.ndarray, work: Callable[..., None], center: float, scale: float) -> np.ndarray:
    return _map_array(as_float(x), work, center, scale, np.empty(x.size, dtype=np.float32))


def _map_array(x: np.ndarray, work: Callable[..., None], center: float, scale: float, out: np.ndarray) -> np.ndarray:
    """`work` on `x` into the memory `out`, in the order in which `x` lies there: filled series have time last."""
    axes = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    ordered = x.transpose(axes)
    work(np.ravel(ordered), center, scale, out)
    return out.reshape(ordered.shape).transpose(np.argsort(axes))


def _is_lazy(variable: xr.Variable) -> bool:
    return variable.chunks is not None


def _blocks(variable: xr.Variable, whole_rows: bool) -> list[Delayed]:
    """The chunks of a lazy variable in C order; with `whole_rows` each holds whole series of its stations."""
    data = variable.data
    if whole_rows and "y" not in variable.dims:
        data = data.rechunk(dict.fromkeys(range(1, data.ndim), -1))
    # As they are: an optimisation of each variable alone would read twice what several share.
    return list(data.to_delayed(optimize_graph=False).ravel())


def _statistics(kind: str, variables: Mapping[str, xr.Variable]) -> dict[str, tuple[float, float]]:
    """Center and scale of each variable; the lazy ones are computed together, in one pass over their chunks."""
    of_block, of_all = _STATISTICS[kind]
    lazy = [n for n, v in variables.items() if _is_lazy(v)]
    tasks = [
        dask.delayed(of_all)([dask.delayed(of_block)(b) for b in _blocks(variables[n], kind == "standard")])
        for n in lazy
    ]
    held = [n for n in variables if n not in lazy]
    done = map_threads(lambda n: of_all([of_block(variables[n].values)]), held)
    found = dict(zip([*held, *lazy], [*done, *dask.compute(*tasks)], strict=True))
    return {n: found[n] for n in variables}


def _map_values(
    work: Callable[..., None], variables: Mapping[str, xr.Variable], params: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    """`work` on the values of each variable with its center and scale: float32, one Dask layer for a lazy one."""
    lazy = {n: v.data for n, v in variables.items() if _is_lazy(v)}
    out = _map_held(work, {n: v.values for n, v in variables.items() if n not in lazy}, params)
    for n, data in lazy.items():
        empty = np.empty((0,) * data.ndim, dtype=np.float32)
        out[n] = da.map_blocks(_map_block, data, work, *params[n], dtype=np.float32, meta=empty)
    return out


def _map_held(
    work: Callable[..., None], values: Mapping[str, np.ndarray], params: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    """The same of arrays, on threads."""
    ends = np.cumsum([0, *(x.size for x in values.values())])
    # Parts of one array: large memory comes in large pages, without which getting it takes longer than the work.
    together = np.empty(ends[-1], dtype=np.float32)
    out = {n: together[a:b] for n, a, b in zip(values, ends[:-1], ends[1:], strict=True)}
    made = map_threads(lambda n: _map_array(as_float(values[n]), work, *params[n], out[n]), values)
    return dict(zip(values, made, strict=True))


class _TableScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Tables of numbers: scikit-learn's part of `Scaler`, which wraps its `transform` in what `set_output` asks for."""

    kind: ScalerKind
    center_: dict[str, float]
    scale_: dict[str, float]
    units_: dict[str, str]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        X = self._check_table(X, reset=True)
        names = [str(n) for n in self.get_feature_names_out()]
        of_block, of_all = _STATISTICS[self.kind]
        # A column is given as one row, as a station's series is.
        found = map_threads(lambda j: of_all([of_block(X[:, j][None])]), range(X.shape[1]))
        self._learn(dict(zip(names, found, strict=True)), dict.fromkeys(names, ""), f"in {X.shape[0]} rows")
        return self

    def transform(self, X: Any) -> Any:
        X = self._check_table(X)
        out = np.subtract(X, [*self.center_.values()], dtype=np.float64)
        out /= [*self.scale_.values()]
        return out.astype(X.dtype, copy=False)

    def inverse_transform(self, X: Any) -> Any:
        X = self._check_table(X)
        out = np.multiply(X, [*self.scale_.values()], dtype=np.float64)
        out += [*self.center_.values()]
        return out.astype(X.dtype, copy=False)

    def _check_table(self, X: Any, reset: bool = False) -> np.ndarray:
        return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan")

    def _learn(self, found: Mapping[str, tuple[float, float]], units: dict[str, str], where: str) -> None:
        bad = [n for n, numbers in found.items() if not np.isfinite(numbers).all()]
        if bad:
            raise SmgeoError(
                f"scaler: no value of {', '.join(bad)} {where} it is fitted on, or an infinite one; leave the variable out, "
                "or mask what is infinite with ds.where(np.isfinite(ds))"
            )
        self.center_ = {n: center for n, (center, _) in found.items()}
        self.scale_ = {n: scale for n, (_, scale) in found.items()}
        self.units_ = units


class _CubeScaler:
    """Datasets: in and out whatever `set_output` says, which knows of arrays and tables alone."""

    kind: ScalerKind
    center_: dict[str, float]
    scale_: dict[str, float]
    units_: dict[str, str]

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn center and scale, in one pass over the values; missing values are left out.

        Parameters
        ----------
        X : xarray.Dataset, or array or DataFrame (rows, columns)
            Of a cube the dynamic, static, calendar and target variables, of the training stations alone; masks (kind
            "flag") have no scale. On Dask input one chunk a thread is held ("standard": the whole series of a chunk's
            stations; "robust": all non-missing values of the variables in work, because quartiles are exact).
        y : ignored

        Raises
        ------
        SmgeoError
            If there is no such variable, or one holds no numbers, no value at all, or an infinite one.
        """
        _check_kind(self.kind)
        if not isinstance(X, xr.Dataset):
            return super().fit(X, y)  # type: ignore[misc]
        names = [n for n in variables_of_kind(X, *_SCALED_KINDS) if X[n].dtype != bool]
        if not names:
            raise SmgeoError(
                f"scaler: the cube has no dynamic, static, calendar or target variable to scale, but {', '.join(map(str, X.data_vars)) or 'nothing'}"
            )
        check_numbers(X, names, "scaler")
        variables = {n: X.variables[n] for n in names}
        units = {n: str(v.attrs.get("units", "")) for n, v in variables.items()}
        where = f"at the {X.sizes['station']} stations" if "station" in X.sizes else "in the cube"
        self._learn(_statistics(self.kind, variables), units, where)  # type: ignore[attr-defined]
        _name_features(self, names)
        return self

    def transform(self, X: Any) -> Any:
        """`(X - center) / scale`, computed in float64.

        Parameters
        ----------
        X : xarray.Dataset, or array or DataFrame (rows, columns)
            Station or grid cube: the variables that the scaler knows are scaled, others kept as they are. A table needs
            the columns of `fit`, in their order.

        Returns
        -------
        xarray.Dataset, array or table
            Of a Dataset a Dataset, as lazy as `X` (one Dask layer a variable): float32, missing where `X` is, units
            `"1"`, the unit of before in `unscaled_units`, the step in its record. What is computed at once is one block
            of memory, freed when no variable of it is left. Of a table what `set_output` says, in its own dtype.

        Raises
        ------
        SmgeoError
            If the scaler is not fitted, or a Dataset has none of its variables, one that is scaled already, or one in another
        unit than it was fitted in (where both say theirs).
        """
        self._check_fitted()
        if not isinstance(X, xr.Dataset):
            return super().transform(X)  # type: ignore[misc]
        names = self._known(X)
        scaled = [n for n in names if "unscaled_units" in X[n].attrs]
        if scaled:
            raise SmgeoError(
                f"scaler: {', '.join(scaled)} of the cube is scaled already (attrs['unscaled_units']); bring it back first with "
                "ds.smgeo.unscale(), or give the cube as it was before"
            )
        check_known_units(units_of(X, names), self.units_, "the cube to scale")
        attrs = {n: {**X.variables[n].attrs, "units": "1", "unscaled_units": self.units_[n]} for n in names}
        return with_step(self._map(_scale, X, attrs), "scale", scaler=self.to_dict())

    def inverse_transform(self, X: Any) -> Any:
        """Back to physical units: `X * scale + center`, in and out as `transform`; arrays stay arrays.

        Raises
        ------
        SmgeoError
            If the scaler is not fitted, or a Dataset has none of its variables, or a record of steps whose last is not
            this scaling: what was done later was done to scaled values.
        """
        self._check_fitted()
        if not isinstance(X, xr.Dataset):
            return super().inverse_transform(X)  # type: ignore[misc]
        steps = steps_of(X)
        if steps and steps[-1] != {"step": "scale", "scaler": self.to_dict()}:
            raise SmgeoError(
                f"inverse_transform undoes the last step of a cube, which must be the scaling by this scaler; its steps are "
                f"{', '.join(s['step'] for s in steps)}. Bring the cube back before other steps, or do them before scaling"
            )
        attrs = {n: {**X.variables[n].attrs, "units": self.units_[n]} for n in self._known(X)}
        for of_variable in attrs.values():
            of_variable.pop("unscaled_units", None)
        out = self._map(_unscale, X, attrs)
        return without_last_step(out) if steps else out

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """`fit(X)`, then `transform(X)`."""
        return self.fit(X, y).transform(X)

    def to_dict(self) -> dict[str, Any]:
        """All that was learned, as JSON types."""
        self._check_fitted()
        return {"kind": self.kind, "center": self.center_, "scale": self.scale_, "units": self.units_}

    def _map(self, work: Callable[..., None], ds: xr.Dataset, attrs: Mapping[str, dict[str, Any]]) -> xr.Dataset:
        params = {n: (self.center_[n], self.scale_[n]) for n in attrs}
        old = {n: ds.variables[n] for n in attrs}
        values = _map_values(work, old, params)
        return ds.assign({n: xr.Variable(v.dims, values[n], attrs[n], crs_encoding(ds[n])) for n, v in old.items()})

    def _known(self, ds: xr.Dataset) -> list[str]:
        names = [str(n) for n in ds.data_vars if n in self.center_]
        if not names:
            raise SmgeoError(
                f"scaler: it knows {', '.join(self.center_)}; the cube has none of them, but {', '.join(map(str, ds.data_vars)) or 'nothing'}"
            )
        return names

    def _check_fitted(self) -> None:
        if not hasattr(self, "center_"):
            raise UnfittedScalerError("this Scaler is not fitted yet; call fit on the training stations first")


# Only methods that a class defines itself does scikit-learn wrap for `set_output`: those of _CubeScaler stay as they are.
class Scaler(_CubeScaler, _TableScaler):
    """Scale every variable of a cube, or every column of a table: `(x - center) / scale`.

    Equal to scikit-learn's MinMaxScaler, RobustScaler and StandardScaler on float64, and like these blind to missing
    values, which stay missing. Fit it on training stations alone: `Scaler("minmax").fit(ds.sel(station=list(split.train)))`.
    Of a station cube the numbers are the same to the last bit however it is chunked; of a grid cube "standard" may differ
    by 1e-12. It is also a transformer of scikit-learn's for tables, in pipelines and with `set_output`.

    Parameters
    ----------
    kind : {"minmax", "robust", "standard"}
        Minimum and range; median and interquartile range; mean and (population) standard deviation.

    Attributes
    ----------
    center_, scale_ : dict of str to float
        Per variable, in its unit; float64. A spread of 0 is taken as 1, and as in scikit-learn also a range below 2.2e-15
        and a standard deviation that rounding alone could give.
    units_ : dict of str to str
        Unit of each variable before scaling; "" for a table.
    n_features_in_, feature_names_in_ : int, array of str
        Number and names of the variables or columns; no names where the table had none.

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
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """The scaler whose `to_dict` gave `state`."""
        scaler = cls(state["kind"])
        scaler.center_, scaler.scale_, scaler.units_ = dict(state["center"]), dict(state["scale"]), dict(state["units"])
        _name_features(scaler, list(scaler.center_))
        return scaler

    def save(self, path: str | Path) -> None:
        """Write the scaler as JSON: beside `path`, then renamed. Numbers come back to the last bit."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        SmgeoError
            If the file is damaged or holds something else.
        """
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise SmgeoError(f"{path} is no JSON ({error}); give a file that Scaler.save wrote") from None
        problem = _problem_of(state)
        if problem:
            raise SmgeoError(f"{path} holds no scaler: {problem}; give a file that Scaler.save wrote")
        return cls.from_dict(state)


def _check_kind(kind: str) -> None:
    if kind not in _STATISTICS:
        raise SmgeoError(f"unknown scaler {kind!r}; {nearest(str(kind), list(_STATISTICS))}")


def _name_features(scaler: Any, names: list[str]) -> None:
    """scikit-learn's attributes; a table without column names has the names x0, x1, ... and no `feature_names_in_`."""
    scaler.n_features_in_ = len(names)
    scaler.feature_names_in_ = np.array(names, dtype=object)
    if names == [f"x{i}" for i in range(len(names))]:
        del scaler.feature_names_in_


def _problem_of(state: Any) -> str:
    """What of a scaler's `to_dict` is not as it must be; nothing where all is well."""
    if not isinstance(state, dict) or set(state) != {"kind", "center", "scale", "units"}:
        return "needed are exactly kind, center, scale and units"
    if state["kind"] not in list(_STATISTICS):
        return f"its kind is {state['kind']!r}, known are {', '.join(_STATISTICS)}"
    parts = [state[part] for part in ("center", "scale", "units")]
    if not all(isinstance(part, dict) and set(part) == set(parts[0]) for part in parts):
        return "center, scale and units must name the same variables"
    center, scale, units = (list(part.values()) for part in parts)
    if not all(type(v) in (int, float) and math.isfinite(v) for v in center + scale) or min(scale, default=1) <= 0:
        return "center and scale must be finite numbers, scale above 0"
    return "" if all(isinstance(unit, str) for unit in units) else "units must be text"
