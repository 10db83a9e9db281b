"""The contract that every model keeps: scikit-learn's, with windows as input beside arrays and tables."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Self, cast, get_args, get_type_hints

import numpy as np
import xarray as xr
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, column_or_1d, validate_data

from smgeo.cube.schema import check_units
from smgeo.errors import SmgeoError
from smgeo.files import versions_of
from smgeo.models.applicability import Applicability
from smgeo.models.calibration import Calibration
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.model_file import APPLICABILITY_FILE, write_model
from smgeo.models.rows import Rows, WindowSource
from smgeo.models.team import Team
from smgeo.prepare.steps import lasting_steps


class ModelNotFittedError(SmgeoError, NotFittedError):
    """A model was asked for estimates before `fit`."""


class SoilMoistureModel(RegressorMixin, BaseEstimator):
    """Base of all models: scikit-learn's contract, plus `Windows` as input and a model file.

    Attributes
    ----------
    kind : str
        Name in recipes.
    uses_window : bool
        Whether it looks at several days (X is (n, length, channels)) or at one (X is (n, features)).
    uses_validation : bool
        Whether `fit` stops early on validation data.
    uses_series : bool
        Whether it is trained on whole series (`mode="sequence"`): X is then Windows of that mode, and estimates are (n, days).
    preparation_ : dict or None
        Features, units, gap filling, scaler and window of the training data; None after fitting on bare arrays.
    n_features_in_ : int
        Channels of X.
    feature_names_in_ : numpy.ndarray of str
        Columns of X, where it was a table.
    has_spread : bool
        Whether `predict_spread` says how far its parts differ.
    calibration_ : Calibration or None
        How wide prediction intervals are (`smgeo.calibrate`).
    applicability_ : Applicability or None
        Where it is asked for what its training data were like (`smgeo.find_applicability`).
    digest_ : str or None
        Of the file it was read from; None once it has changed.
    """

    kind: ClassVar[str]
    uses_window: ClassVar[bool] = False
    uses_validation: ClassVar[bool] = False
    has_spread: ClassVar[bool] = False

    preparation_: dict[str, Any] | None
    feature_names_in_: np.ndarray
    calibration_: Calibration | None = None
    applicability_: Applicability | None = None
    digest_: str | None = None

    @property
    def uses_series(self) -> bool:
        """Whether it is trained on whole series, sequence to sequence."""
        return False

    @property
    def window_mode(self) -> Literal["window", "sequence"]:
        """The mode of the Windows it takes."""
        return "sequence" if self.uses_series else "window"

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = not self.uses_window
        tags.input_tags.three_d_array = self.uses_window
        return tags

    def fit(
        self,
        X: Any,
        y: np.ndarray | None = None,
        *,
        validation: WindowSource | tuple[Any, np.ndarray] | None = None,
        checkpoint: Checkpoint | None = None,
        progress: Callable[..., None] | None = None,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : numpy.ndarray, pandas.DataFrame or Windows
            (n, features), (n, length, channels), or windows, which bring their y. Taken as float32. Whole series come as
            `Windows(..., mode="sequence")`.
        y : numpy.ndarray, optional
            (n,), in the units of the prepared target.
        validation : (X, y) or Windows, optional
            Data to stop early on, for networks.
        checkpoint : Checkpoint, optional
            Of networks: where the training is kept after epochs, and goes on from, to the same numbers as if it had never stopped.
        progress : callable, optional
            Called with (done, total, dict of scores).

        Raises
        ------
        SmgeoError
            If a parameter is impossible, or X has another rank than the model needs, is empty, or holds missing values.
        """
        with closing(self.fit_by_epoch(X, y, validation=validation, checkpoint=checkpoint)) as epochs:
            for scores in epochs:
                if progress:
                    progress(int(scores["epoch"]), int(scores["epochs"]), scores)
        return self

    def fit_by_epoch(
        self,
        X: Any,
        y: np.ndarray | None = None,
        *,
        validation: WindowSource | tuple[Any, np.ndarray] | None = None,
        checkpoint: Checkpoint | None = None,
        team: Team | None = None,
    ) -> Generator[dict[str, float], None, None]:
        """Fit as `fit` does, and tell of each epoch when it is done; arguments and errors are those of `fit`.

        Epochs that a checkpoint holds are told again, in no time. With a `team` this process takes its share of each batch
        (`smgeo.models.data_parallel`).

        Yields
        ------
        dict
            `epoch` from 1, `epochs` (most), and of networks `rmse` and, with validation data, `val_rmse`, in the units of y. A model without
            epochs yields once. Who stops asking has a model of the epochs so far (of the best of them, with validation data).
        """
        self.check_types()
        self.check_params()
        x, target, preparation = self._take(X, y, reset=True)
        if len(x) == 0:
            raise SmgeoError(f"{self.kind}: no rows to train on")
        self.__dict__.pop("training_", None)  # not fitted, until the first epoch is done
        self.calibration_ = self.applicability_ = self.digest_ = None
        stations = {
            name: [str(s) for s in source.stations]
            for name, source in (("stations", X), ("validation_stations", validation))
            if isinstance(source, WindowSource)
        }
        self.params_ = self._file_params()
        self.n_features_in_ = int(x.shape[-1])
        self.input_shape_ = self._input_shape(x)
        self.preparation_ = preparation
        held = None if validation is None else self._take_validation(validation)
        return self._tell_epochs(x, target, held, stations, checkpoint, team)

    def _tell_epochs(
        self,
        x: Rows,
        y: np.ndarray,
        validation: tuple[Rows, np.ndarray] | None,
        stations: dict[str, list[str]],
        checkpoint: Checkpoint | None,
        team: Team | None,
    ) -> Generator[dict[str, float], None, None]:
        with closing(self._fit(x, y, validation, checkpoint=checkpoint, team=team)) as epochs:
            for scores in epochs:
                self.training_ = {"rows": x.count, "versions": _versions(), **self._describe_training(), **stations}
                yield scores

    def predict(self, X: Any) -> Any:
        """Estimates, in the units of the y the model was fitted on.

        Parameters
        ----------
        X : numpy.ndarray, pandas.DataFrame, Windows, dask.array.Array or dask.dataframe.DataFrame
            As in `fit`. To a model that was fitted on windows of one day, a DataFrame brings its columns by name, prepared as the
            windows were; where `X.attrs["units"]` holds the unit of columns, these are compared.

        Returns
        -------
        numpy.ndarray or dask.array.Array
            (n,) float32; lazy where X is a Dask collection, a chunk of rows at a time. Of whole series (n, days), every day of them.

        Raises
        ------
        SmgeoError
            If X lacks a feature, or has one in another unit (named), or is of another shape than the model was fitted on.
        """
        self._check_fitted()
        if type(X).__module__.startswith("dask."):
            return self._predict_lazily(X)
        if isinstance(X, xr.Dataset):
            raise SmgeoError(
                f"{self.kind}: predict takes windows, arrays and tables; for a cube use evaluate(model, cube, split) at stations, or "
                "predict_map(model, cube, out) on a grid"
            )
        x = self._take_known(X)
        return self._predict(x) if len(x) else self._nothing(x)

    def predict_spread(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Estimates as `predict` gives them, and the standard deviation over the model's parts (the trees of a forest).

        Raises
        ------
        SmgeoError
            If the model has no parts, and as `predict`.
        """
        self._check_fitted()
        if not self.has_spread:
            raise SmgeoError(f"{self.kind} has no parts whose spread could be told; use predict")
        x = self._take_known(X)
        return self._predict_spread(x) if len(x) else (self._nothing(x), self._nothing(x))

    def _check_fitted(self) -> None:
        if not hasattr(self, "training_"):
            raise ModelNotFittedError(f"this {self.kind} model is not fitted yet; call fit first")

    def _take_known(self, X: Any) -> Rows:
        """X as rows, checked to be what the model was fitted on."""
        x, _, preparation = self._take(X, need_y=False)
        self._check_preparation(preparation, "X")
        self._check_steps(preparation)
        self._check_shape(x.shape, "X")
        return x

    def _nothing(self, x: Rows) -> np.ndarray:
        return np.empty((0, x.shape[1]) if self.input_shape_[0] is None else 0, dtype="float32")

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """R2 of the estimates; of windows, which bring their y, over the values that count."""
        if not isinstance(X, WindowSource):
            return float(super().score(X, y, sample_weight))
        observed = X.y if y is None else y
        if observed is None:
            raise SmgeoError(f"{self.kind}: score needs windows with a target")
        return float(r2_score(X.pick(observed), X.pick(self.predict(X)), sample_weight=sample_weight))

    def _predict_lazily(self, X: Any) -> Any:
        from dask_ml.wrappers import ParallelPostFit

        if X.ndim != 2:
            raise SmgeoError(
                f"{self.kind} predicts Dask arrays of shape (n, features); got {X.ndim} dimensions. Give Windows, or a computed array"
            )
        if not hasattr(X, "columns"):
            self._check_shape(X.shape, "X")
        return ParallelPostFit(self, predict_meta=np.empty(0, dtype="float32")).predict(X)

    def check_types(self) -> None:
        """Refuse parameters of another type than the constructor names."""
        hints = get_type_hints(type(self).__init__)
        for name, value in self.get_params(deep=False).items():
            _check_type(self.kind, name, value, hints[name])

    # ---- what each kind of model does

    def check_params(self) -> None:
        """Refuse parameters that make no model; called before every `fit`."""
        raise NotImplementedError

    def _fit(
        self, x: Rows, y: np.ndarray, validation: tuple[Rows, np.ndarray] | None, **aids: Any
    ) -> Generator[dict[str, float], None, None]:
        """Train; yield the scores of each epoch. `aids` are a `checkpoint` and a `team`: a model without epochs needs none."""
        raise NotImplementedError

    def _predict(self, x: Rows) -> np.ndarray:
        raise NotImplementedError

    def _predict_spread(self, x: Rows) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def _save_weights(self, folder: Path) -> None:
        raise NotImplementedError

    def _load_weights(self, folder: Path) -> None:
        raise NotImplementedError

    def _describe_training(self) -> dict[str, Any]:
        return {}

    def _file_params(self) -> dict[str, Any]:
        """Parameters as JSON types."""
        return self.get_params(deep=False)

    # ---- input

    def _take(
        self, X: Any, y: Any = None, *, need_y: bool = True, reset: bool = False
    ) -> tuple[Rows, np.ndarray, dict[str, Any] | None]:
        """X as rows that a model can gather from, y, and how X was prepared; with `reset`, names of columns are learned."""
        preparation = None
        series = self.uses_series if reset else self.input_shape_[0] is None
        if isinstance(X, WindowSource):
            self._check_mode(series, X.mask is not None)
            if reset and hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
            rows = Rows(X, flat=not self.uses_window)
            y = X.y if y is None else y
            preparation = X.preparation
        else:
            rows = Rows(self._take_array(X, reset))
        if not need_y:
            return rows, np.empty(0, dtype="float32"), preparation
        if series:
            return rows, self._take_series_target(X, y), preparation
        return rows, self._take_target(y, len(rows)), preparation

    def _check_mode(self, wanted: bool, given: bool) -> None:
        """Whether whole series are wanted, and given."""
        if wanted and not given:
            raise SmgeoError(
                f"{self.kind} with mode='sequence' takes whole series; make them with Windows(..., mode='sequence')"
            )
        if given and not wanted:
            raise SmgeoError(
                f"{self.kind} as it is takes windows, and these are whole series (mode='sequence'); make windows, or a gru or lstm with "
                "mode='sequence'"
            )

    def _check_preparation(self, preparation: dict[str, Any] | None, what: str) -> None:
        """Refuse windows of other features, or in other units, than those of the fit."""
        if not preparation or not self.preparation_:
            return
        check_units(preparation["units"], self.preparation_["units"], what)
        if preparation["features"] != self.preparation_["features"]:
            raise SmgeoError(
                f"{self.kind}: {what} has the features {', '.join(preparation['features'])}; the model was fitted on "
                f"{', '.join(self.preparation_['features'])}, in this order"
            )

    def _check_steps(self, preparation: dict[str, Any] | None) -> None:
        """Refuse windows of a cube that was not prepared as the training data were: numbers would be wrong without a word."""
        if not preparation or not self.preparation_:
            return
        given, wanted = (lasting_steps(p["steps"]) for p in (preparation, self.preparation_))
        if given != wanted:
            had, need = (", ".join(s["step"] for s in steps) or "not prepared" for steps in (given, wanted))
            raise SmgeoError(
                f"{self.kind}: the windows come from a cube that was prepared otherwise ({had}) than the training data ({need}, with "
                "numbers of their own); evaluate(model, cube, split) and predict_map(model, cube, ...) prepare a cube as it was opened"
            )

    def _take_series_target(self, X: Any, y: Any) -> np.ndarray:
        """The target of whole series, (n, days), 0 on days that do not count."""
        if not isinstance(X, WindowSource) or X.y is None or y is not X.y:
            raise SmgeoError(
                f"{self.kind} with mode='sequence' is trained on Windows(..., mode='sequence') with a target, which bring y and the days "
                "that count; give these alone"
            )
        if X.preparation["fill"] is None:
            raise SmgeoError(
                f"{self.kind} with mode='sequence': give these Windows fill, one finite number for each feature (their means at the training "
                "stations), to stand where the series that are estimated later have a gap"
            )
        return X.y

    def _take_validation(self, validation: Any) -> tuple[Rows, np.ndarray] | None:
        x, y, preparation = self._take(validation) if isinstance(validation, WindowSource) else self._take(*validation)
        self._check_preparation(preparation, "validation")
        self._check_shape(x.shape, "validation")
        return (x, y) if len(x) else None

    def _take_array(self, X: Any, reset: bool) -> np.ndarray:
        """An array or table as float32, checked as scikit-learn's estimators check it."""
        if not reset and self.preparation_ and hasattr(X, "columns"):
            X = self._select_columns(X)
        checks: dict[str, Any] = {"dtype": np.float32, "ensure_all_finite": False, "ensure_min_samples": 0}
        wanted = "(n, length, features)" if self.uses_window else "(n, features)"
        try:
            if self.uses_window:
                array = check_array(X, ensure_2d=False, allow_nd=True, input_name="X", **checks)
            else:
                array = validate_data(self, X, reset=reset, **checks)
        except ValueError as error:
            raise SmgeoError(f"{self.kind} needs X of shape {wanted}. {error}") from None
        if array.ndim != (3 if self.uses_window else 2):
            raise SmgeoError(f"{self.kind} needs X of shape {wanted}; got {array.shape}")
        gaps = array.size - int(np.isfinite(array).sum())
        if gaps:
            raise SmgeoError(
                f"{self.kind}: X holds {gaps} missing values (NaN) or infinite ones (inf); fill them, or train from Windows with "
                "missing > 0"
            )
        return cast(np.ndarray, array)

    def _take_target(self, y: Any, rows: int) -> np.ndarray:
        if y is None:
            raise SmgeoError(
                f"{self.kind}: fit requires y to be passed, but the target y is None; give it, or windows with a target"
            )
        try:
            target = column_or_1d(y, dtype=np.float32, warn=True, input_name="y")
        except ValueError as error:
            raise SmgeoError(f"{self.kind} needs y of shape (n,). {error}") from None
        if target.size != rows:
            raise SmgeoError(f"{self.kind}: X has {rows} rows, y has {target.size}")
        gaps = int((~np.isfinite(target)).sum())
        if gaps:
            raise SmgeoError(f"{self.kind}: y holds {gaps} missing values (NaN) or infinite ones (inf)")
        return cast(np.ndarray, target)

    def _select_columns(self, table: Any) -> np.ndarray:
        """The columns of a table that are the channels of the windows which the model was fitted on."""
        preparation = self.preparation_
        assert preparation is not None
        if preparation["length"] != 1:
            raise SmgeoError(
                f"{self.kind} was fitted on windows of {preparation['length']} days, which a table of rows does not hold; give Windows"
            )
        names = list(preparation["features"])
        if preparation["missing"] > 0:
            names += [f"{n} observed" for n in preparation["features"]]
        need = dict.fromkeys(names, "") | preparation["units"]
        given = table.attrs.get("units") if hasattr(table, "attrs") else None
        units = given if isinstance(given, Mapping) else {}
        check_units({n: units.get(n, need.get(n, "")) for n in map(str, table.columns)}, need, "the table X")
        return np.asarray(table[names])

    def _input_shape(self, x: Rows) -> tuple[int | None, ...]:
        """Shape of one row; the days of whole series are None, because new data may have more or fewer."""
        return (None, x.shape[2]) if x.mask is not None else tuple(int(n) for n in x.shape[1:])

    def _check_shape(self, shape: tuple[int, ...], what: str) -> None:
        need = self.input_shape_
        if len(shape) != len(need) + 1 or any(n not in (None, m) for n, m in zip(need, shape[1:], strict=True)):
            wanted = ", ".join("days" if n is None else str(n) for n in need)
            raise SmgeoError(
                f"{self.kind}: {what} has shape (n, {', '.join(map(str, shape[1:]))}); the model was fitted on (n, {wanted})"
            )

    # ---- the model file

    def save(self, path: str | Path) -> Path:
        """Write the model to a folder, beside it first, renamed when complete.

        The folder holds `model.json` (kind, parameters, preparation, training, checksums) and the weights.
        """
        if not hasattr(self, "training_"):
            raise ModelNotFittedError(f"this {self.kind} model is not fitted yet; call fit before save")
        names = getattr(self, "feature_names_in_", None)
        params = {k: v.item() if isinstance(v, np.generic) else v for k, v in self.params_.items()}
        about = {
            "kind": self.kind,
            "params": params,
            "n_features": self.n_features_in_,
            "input_shape": list(self.input_shape_),
            "feature_names": None if names is None else list(names),
            "preparation": self.preparation_,
            "training": self.training_,
            "calibration": None if self.calibration_ is None else self.calibration_.to_dict(),
        }

        def write(folder: Path) -> None:
            self._save_weights(folder)
            area = self.applicability_
            about["applicability"] = None if area is None else area.save(folder / APPLICABILITY_FILE)

        return write_model(path, about, write)


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "nothing"}


@cache
def _versions() -> dict[str, str]:
    return versions_of(("smgeo", "keras", "tensorflow", "jax", "ydf", "scikit-learn", "skops", "numpy"))


def _check_type(kind: str, name: str, value: Any, expected: Any) -> None:
    options = get_args(expected) if isinstance(expected, UnionType) else (expected,)
    if not set(options) <= set(_WORDS):
        return  # a type of the model's own, which its `check_params` knows
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) not in options and not (type(value) is int and float in options):
        raise SmgeoError(f"{kind}: {name} must be {' or '.join(_WORDS[t] for t in options)}; got {value!r}")
    if name == "seed" and value < 0:
        raise SmgeoError(f"{kind}: seed must be 0 or more; got {value}")
