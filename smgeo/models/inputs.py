"""Input of models: X and y as rows, checked against what a model needs and what it was fitted on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_array, column_or_1d, validate_data

from smgeo.cube.schema import check_references, check_units
from smgeo.errors import SmgeoError
from smgeo.models.protocol import Model
from smgeo.models.rows import Input, Rows, Validation, WindowSource
from smgeo.prepare.steps import Preparation, lasting_steps


@runtime_checkable
class _Table(Protocol):
    """A table with named columns, such as a pandas.DataFrame."""

    @property
    def columns(self) -> Iterable[object]: ...

    def __getitem__(self, names: list[str]) -> ArrayLike: ...


class Taken(NamedTuple):
    """X as rows, y, and how X was prepared (None for arrays and tables)."""

    rows: Rows
    y: np.ndarray
    preparation: Preparation | None


def take_training(model: Model, X: Input, y: ArrayLike | None) -> Taken:
    """Return rows and target to fit on; the model learns the names of a table's columns."""
    rows, preparation = _take_rows(model, X, model.uses_series, reset=True)
    if isinstance(X, WindowSource):
        model.__dict__.pop("feature_names_in_", None)
    target = _take_target(model, X, y, rows, model.uses_series)
    if not len(rows):
        raise SmgeoError(f"{model.kind}: no rows to train on")
    return Taken(rows, target, preparation)


def take_validation(model: Model, validation: Validation) -> tuple[Rows, np.ndarray] | None:
    """Return rows and target to stop early on, or None if there are none; of the kind that the model is being fitted on."""
    X, y = (validation, None) if isinstance(validation, WindowSource) else validation
    series = _fitted_on_series(model)
    rows, preparation = _take_rows(model, X, series)
    target = _take_target(model, X, y, rows, series)
    _check_preparation(model, preparation, "validation")
    check_shape(model, rows.shape, "validation")
    return (rows, target) if len(rows) else None


def take_known(model: Model, X: Input) -> Rows:
    """Return X as rows, after checking that it is what the model was fitted on."""
    rows, preparation = _take_rows(model, X, _fitted_on_series(model))
    _check_preparation(model, preparation, "X")
    _check_steps(model, preparation)
    check_shape(model, rows.shape, "X")
    return rows


def shape_of(rows: Rows) -> tuple[int | None, ...]:
    """Return the shape of one row; the days of whole series are None, because new data may have more or fewer."""
    return (None, rows.shape[2]) if rows.mask is not None else tuple(int(n) for n in rows.shape[1:])


def check_shape(model: Model, shape: tuple[int, ...], what: str) -> None:
    """Refuse rows of another shape than those of the fit."""
    need = model.input_shape_
    if len(shape) != len(need) + 1 or any(n not in (None, m) for n, m in zip(need, shape[1:], strict=True)):
        wanted = ", ".join("days" if n is None else str(n) for n in need)
        raise SmgeoError(
            f"{model.kind}: {what} has shape (n, {', '.join(map(str, shape[1:]))}); the model was fitted on (n, {wanted})"
        )


def _fitted_on_series(model: Model) -> bool:
    return model.input_shape_[0] is None


# ---- X


def _take_rows(model: Model, X: Input, series: bool, *, reset: bool = False) -> tuple[Rows, Preparation | None]:
    """Return X as rows that a model can gather from, and how it was prepared; `series` if it must be whole series."""
    if not isinstance(X, WindowSource):
        return Rows(_take_array(model, X, reset)), None
    _check_mode(model.kind, wanted=series, given=X.mask is not None)
    return Rows(X, flat=not model.uses_window), X.preparation


def _check_mode(kind: str, *, wanted: bool, given: bool) -> None:
    """Refuse windows for a model of whole series, and the other way round."""
    if wanted and not given:
        raise SmgeoError(
            f"{kind} with mode='sequence' takes whole series; make them with Windows(..., mode='sequence')"
        )
    if given and not wanted:
        raise SmgeoError(
            f"{kind} with these parameters takes windows, and these are whole series (mode='sequence'); make windows, or a gru or "
            "lstm with mode='sequence'"
        )


def _take_array(model: Model, X: ArrayLike, reset: bool) -> np.ndarray:
    """Return an array or table as float32, checked as scikit-learn's estimators check it."""
    if not reset and model.preparation_ and isinstance(X, _Table):
        X = _select_columns(model.kind, X, model.preparation_)
    wanted = "(n, length, features)" if model.uses_window else "(n, features)"
    checks = {"dtype": np.float32, "ensure_all_finite": False, "ensure_min_samples": 0}
    try:
        if model.uses_window:
            array = check_array(X, ensure_2d=False, allow_nd=True, input_name="X", **checks)
        else:
            array = validate_data(model, X, reset=reset, **checks)
    except ValueError as error:
        raise SmgeoError(f"{model.kind} needs X of shape {wanted}. {error}") from None
    if array.ndim != (3 if model.uses_window else 2):
        raise SmgeoError(f"{model.kind} needs X of shape {wanted}; got {array.shape}")
    if gaps := _count_gaps(array):
        raise SmgeoError(
            f"{model.kind}: X contains {gaps} missing values (NaN) or infinite ones (inf); fill them, or train from Windows with "
            "missing > 0"
        )
    return np.asarray(array)


def _select_columns(kind: str, table: _Table, preparation: Preparation) -> np.ndarray:
    """Return the columns of a table that are the channels of the windows that the model was fitted on."""
    if preparation["length"] != 1:
        raise SmgeoError(
            f"{kind} was fitted on windows of {preparation['length']} days, which a table of rows does not contain; give Windows"
        )
    names = list(preparation["features"])
    if preparation["missing"] > 0:
        names += [f"{n} observed" for n in preparation["features"]]
    need = dict.fromkeys(names, "") | preparation["units"]
    given = getattr(table, "attrs", {}).get("units")
    units = given if isinstance(given, Mapping) else {}
    check_units({n: units.get(n, need.get(n, "")) for n in map(str, table.columns)}, need, "the table X")
    return np.asarray(table[names])


def _count_gaps(values: np.ndarray) -> int:
    return int(values.size - np.isfinite(values).sum())


# ---- y


def _take_target(model: Model, X: Input, y: ArrayLike | None, rows: Rows, series: bool) -> np.ndarray:
    """Return y as float32; windows bring it, unless it is given."""
    own = X.y if isinstance(X, WindowSource) else None
    if series:
        return _take_series_target(model.kind, X, own if y is None else y)
    return _take_row_target(model.kind, own if y is None else y, len(rows))


def _take_series_target(kind: str, X: Input, y: ArrayLike | None) -> np.ndarray:
    """Return the target of whole series, (n, days), 0 on days that do not count."""
    if not isinstance(X, WindowSource) or X.y is None or y is not X.y:
        raise SmgeoError(
            f"{kind} with mode='sequence' is trained on Windows(..., mode='sequence') with a target, which bring y and the days "
            "that count; give only these"
        )
    if X.preparation["fill"] is None:
        raise SmgeoError(
            f"{kind} with mode='sequence': give these Windows fill, one finite number for each feature (their means at the training "
            "stations), for missing values of the series that are estimated later"
        )
    return np.asarray(X.y)


def _take_row_target(kind: str, y: ArrayLike | None, rows: int) -> np.ndarray:
    if y is None:
        raise SmgeoError(
            f"{kind}: fit requires y to be passed, but the target y is None; give it, or windows with a target"
        )
    try:
        target = np.asarray(column_or_1d(y, dtype=np.float32, warn=True, input_name="y"))
    except ValueError as error:
        raise SmgeoError(f"{kind} needs y of shape (n,). {error}") from None
    if target.size != rows:
        raise SmgeoError(f"{kind}: X has {rows} rows, y has {target.size}")
    if gaps := _count_gaps(target):
        raise SmgeoError(f"{kind}: y contains {gaps} missing values (NaN) or infinite ones (inf)")
    return target


# ---- preparation


def _check_preparation(model: Model, preparation: Preparation | None, what: str) -> None:
    """Refuse windows of other features, or in other units, than those of the fit."""
    if not preparation or not model.preparation_:
        return
    check_units(preparation["units"], model.preparation_["units"], what)
    check_references(preparation.get("references", {}), model.preparation_.get("references", {}), what)
    if preparation["features"] != model.preparation_["features"]:
        raise SmgeoError(
            f"{model.kind}: {what} has the features {', '.join(preparation['features'])}; the model was fitted on "
            f"{', '.join(model.preparation_['features'])}, in this order"
        )


def _check_steps(model: Model, preparation: Preparation | None) -> None:
    """Refuse windows of a cube that was not prepared as the training data were: estimates would be silently wrong."""
    if not preparation or not model.preparation_:
        return
    given, wanted = (lasting_steps(p["steps"]) for p in (preparation, model.preparation_))
    if given != wanted:
        had, need = (", ".join(s["step"] for s in steps) or "not prepared" for steps in (given, wanted))
        raise SmgeoError(
            f"{model.kind}: the windows come from a cube that was prepared otherwise ({had}) than the training data ({need}, with "
            "numbers learned there); use evaluate(model, cube, split) or predict_map(model, cube, ...), which prepare a cube as it was opened"
        )
