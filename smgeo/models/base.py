"""The contract that every model keeps: scikit-learn's, with windows as input besides arrays and tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self, cast

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.utils import Tags

from smgeo.errors import SmgeoError
from smgeo.files import JsonObject, versions_of
from smgeo.models.applicability import Applicability
from smgeo.models.calibration import Calibration
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.inputs import check_shape, shape_of, take_known, take_training, take_validation
from smgeo.models.model_file import APPLICABILITY_FILE, CALIBRATION_FILE, Manifest, write_model
from smgeo.models.parameters import check_types, plain_number
from smgeo.models.rows import Input, Rows, Validation, WindowSource
from smgeo.models.team import Team
from smgeo.prepare.places import places_as_json
from smgeo.prepare.steps import Preparation

if TYPE_CHECKING:
    import dask.array as da

# Scores of an epoch by name.
Epochs = Generator[dict[str, float], None, None]


class ModelNotFittedError(SmgeoError, NotFittedError):  # type: ignore[misc] # scikit-learn has no types
    """A model was asked for estimates before `fit`."""


class SoilMoistureModel(RegressorMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Base class of all models: scikit-learn's contract, plus `Windows` as input and a model file.

    Attributes
    ----------
    kind : str
        Name in recipes.
    uses_window : bool
        X is several days, (n, length, channels), rather than one, (n, features).
    uses_validation : bool
        `fit` stops early on validation data.
    uses_series : bool
        The model is trained on whole series (`mode="sequence"`): X is then Windows of that mode, and estimates are (n, days).
    preparation_ : Preparation or None
        Features, units, gap filling, scaler and window of the training data; None after fitting on bare arrays.
    n_features_in_ : int
        Channels of X.
    input_shape_ : tuple of int or None
        Shape of one row of X; the days of whole series are None.
    feature_names_in_ : numpy.ndarray of str
        Columns of X, if it was a table.
    has_spread : bool
        `predict_spread` is available.
    calibration_ : Calibration or None
        Widths of prediction intervals (`smgeo.calibrate`).
    applicability_ : Applicability or None
        Area of applicability (`smgeo.find_applicability`).
    digest_ : str or None
        Digest of the file that the model was read from; None once it has changed.
    """

    kind: ClassVar[str]

    preparation_: Preparation | None
    input_shape_: tuple[int | None, ...]
    feature_names_in_: np.ndarray
    training_: JsonObject
    calibration_: Calibration | None = None
    applicability_: Applicability | None = None
    digest_: str | None = None

    @property
    def uses_window(self) -> bool:
        """True if X is several days, (n, length, channels), rather than one, (n, features)."""
        return False

    @property
    def uses_validation(self) -> bool:
        """True if `fit` stops early on validation data."""
        return False

    @property
    def has_spread(self) -> bool:
        """True if `predict_spread` is available."""
        return False

    @property
    def uses_series(self) -> bool:
        """True if the model is trained on whole series, sequence to sequence."""
        return False

    @property
    def window_mode(self) -> Literal["window", "sequence"]:
        """Mode of the Windows that the model takes."""
        return "sequence" if self.uses_series else "window"

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = not self.uses_window
        tags.input_tags.three_d_array = self.uses_window
        return tags

    # ---- training

    def fit(
        self,
        X: Input,
        y: ArrayLike | None = None,
        *,
        validation: Validation | None = None,
        checkpoint: Checkpoint | None = None,
        progress: Callable[..., None] | None = None,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : numpy.ndarray, pandas.DataFrame or Windows
            (n, features), (n, length, channels), or windows, which bring their y. Converted to float32. Whole series are
            `Windows(..., mode="sequence")`.
        y : numpy.ndarray, optional
            (n,), in the units of the prepared target.
        validation : (X, y) or Windows, optional
            Data to score each epoch on, and to stop early on with `patience`.
        checkpoint : Checkpoint, optional
            File in which the training of a network is kept after epochs, and from which it continues to the same numbers as an
            uninterrupted training.
        progress : callable, optional
            Called with (done, total, dict of scores).

        Raises
        ------
        SmgeoError
            If a parameter is impossible, or X has another rank than the model needs, is empty, or contains missing values.
        """
        with closing(self.fit_by_epoch(X, y, validation=validation, checkpoint=checkpoint)) as epochs:
            for scores in epochs:
                if progress:
                    progress(int(scores["epoch"]), int(scores["epochs"]), scores)
        return self

    def fit_by_epoch(
        self,
        X: Input,
        y: ArrayLike | None = None,
        *,
        validation: Validation | None = None,
        checkpoint: Checkpoint | None = None,
        team: Team | None = None,
    ) -> Epochs:
        """Fit as `fit` does, and yield after each epoch; arguments and errors are those of `fit`.

        Epochs of a checkpoint are yielded again, without training. With a `team` this process trains its share of each batch
        (`smgeo.models.data_parallel`).

        Yields
        ------
        dict
            `epoch` from 1, `epochs` (maximum), and for networks `rmse` and, with validation data, `val_rmse`, in the units of y. Of trees, which
            are grown some at a time, both are numbers of trees; a model of scikit-learn yields once. If iteration stops early, the model keeps
            the epochs done (with validation data and `patience`, the best of them).
        """
        self.check_types()
        self.check_params()
        self.check_installed()
        x, target, preparation = take_training(self, X, y)
        self.__dict__.pop("training_", None)  # not fitted, until the first epoch is done
        self.calibration_ = self.applicability_ = self.digest_ = None
        stations: JsonObject = {}
        for prefix, source in (("", X), ("validation_", validation)):
            if isinstance(source, WindowSource):
                stations[f"{prefix}stations"] = [str(s) for s in source.stations]
                stations[f"{prefix}places"] = places_as_json(getattr(source, "places", ()))
        self.params_ = self._file_params()
        self.n_features_in_ = int(x.shape[-1])
        self.input_shape_ = shape_of(x)
        self.preparation_ = preparation
        held_out = None if validation is None else take_validation(self, validation)
        return self._record_epochs(x, self._fit(x, target, held_out, checkpoint, team), stations)

    def _record_epochs(self, x: Rows, training: Epochs, stations: JsonObject) -> Epochs:
        with closing(training) as epochs:
            for scores in epochs:
                self.training_ = {"rows": x.count, "versions": _versions(), **self._describe_training(), **stations}
                yield scores

    def check_types(self) -> None:
        """Refuse parameters of another type than the constructor names."""
        check_types(self.kind, self)

    # ---- estimates

    def predict(self, X: Input) -> np.ndarray:
        """Return estimates, in the units of the y that the model was fitted on.

        Parameters
        ----------
        X : numpy.ndarray, pandas.DataFrame, Windows, dask.array.Array or dask.dataframe.DataFrame
            As in `fit`. For a model that was fitted on windows of one day, the columns of a DataFrame are chosen by name, and must be
            prepared as the windows were; units in `X.attrs["units"]` are compared.

        Returns
        -------
        numpy.ndarray or dask.array.Array
            (n,) float32; lazy if X is a Dask collection, one chunk of rows at a time. For whole series (n, days), with every day.

        Raises
        ------
        SmgeoError
            If X lacks a feature, or has one in another unit (named), or has another shape than the model was fitted on.
        """
        self._check_fitted("predict")
        if type(X).__module__.startswith("dask."):
            return self._predict_lazily(cast("da.Array", X))
        if isinstance(X, xr.Dataset):
            raise SmgeoError(
                f"{self.kind}: predict takes windows, arrays and tables; for a cube use evaluate(model, cube, split) at stations, or "
                "predict_map(model, cube, out) on a grid"
            )
        x = take_known(self, X)
        return self._predict(x) if len(x) else _no_estimates(x)

    def predict_spread(self, X: Input) -> tuple[np.ndarray, np.ndarray]:
        """Return estimates as `predict` does, and the standard deviation over the model's parts (the trees of a forest).

        Raises
        ------
        SmgeoError
            If the model has no parts, and as `predict`.
        """
        self._check_fitted("predict_spread")
        if not self.has_spread:
            raise SmgeoError(f"{self.kind} has no parts to compute a spread from; use predict")
        x = take_known(self, X)
        return self._predict_spread(x) if len(x) else (_no_estimates(x), _no_estimates(x))

    def score(self, X: Input, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> float:
        """Return R2 of the estimates; for windows, which bring their y, over the values that count."""
        if not isinstance(X, WindowSource):
            return float(super().score(X, y, sample_weight))
        observed = X.y if y is None else np.asarray(y)
        if observed is None:
            raise SmgeoError(f"{self.kind}: score needs windows with a target")
        return float(r2_score(X.pick(observed), X.pick(self.predict(X)), sample_weight=sample_weight))

    def _check_fitted(self, use: str) -> None:
        if not hasattr(self, "training_"):
            raise ModelNotFittedError(f"this {self.kind} model is not fitted yet; call fit before {use}")

    def _predict_lazily(self, X: da.Array) -> np.ndarray:
        from dask_ml.wrappers import ParallelPostFit

        if X.ndim != 2:
            raise SmgeoError(
                f"{self.kind} predicts Dask arrays of shape (n, features); got {X.ndim} dimensions. Give Windows, or a computed array"
            )
        if not hasattr(X, "columns"):
            check_shape(self, X.shape, "X")
        lazy: np.ndarray = ParallelPostFit(self, predict_meta=np.empty(0, dtype="float32")).predict(X)
        return lazy

    # ---- the model file

    def save(self, path: str | Path) -> Path:
        """Write the model to a folder, under another name first and renamed when complete.

        The folder contains `model.json` (kind, parameters, preparation, training, checksums) and the weights.
        """
        self._check_fitted("save")
        names = getattr(self, "feature_names_in_", None)
        about: Manifest = {
            "kind": self.kind,
            "params": {k: plain_number(v) for k, v in self.params_.items()},
            "n_features": self.n_features_in_,
            "input_shape": list(self.input_shape_),
            "feature_names": None if names is None else list(names),
            "preparation": self.preparation_,
            "training": self.training_,
            "calibration": None if self.calibration_ is None else self.calibration_.to_dict(),
            "applicability": None,
        }

        def write(folder: Path) -> None:
            self._save_weights(folder)
            area = self.applicability_
            about["applicability"] = None if area is None else area.save(folder / APPLICABILITY_FILE)
            if self.calibration_ is not None and self.calibration_.local is not None:
                self.calibration_.local.save(folder / CALIBRATION_FILE)

        return write_model(path, about, write)

    def restore(self, about: Manifest, folder: Path, trusted: Collection[str] = ()) -> None:
        """Become the fitted model of a folder that `save` wrote; `trusted` as for `load_model`."""
        shape = about["input_shape"]
        if len(shape) != (2 if self.uses_window else 1) or (shape[0] is None) != getattr(self, "uses_series", False):
            raise SmgeoError(
                f"{folder}: a {self.kind} with these parameters has no input of shape {shape}; train the model again"
            )
        self.n_features_in_ = about["n_features"]
        self.input_shape_ = tuple(about["input_shape"])
        self.preparation_, self.training_, self.params_ = about["preparation"], about["training"], about["params"]
        if about["calibration"] is not None:
            self.calibration_ = Calibration.from_dict(about["calibration"], folder / CALIBRATION_FILE)
            local = self.calibration_.local
            other = local is not None and (
                self.preparation_ is None or local.center.size != len(self.preparation_["features"])
            )
            if other or (self.calibration_.offset is not None) != self.has_spread:
                raise SmgeoError(f"{folder}: its intervals are those of another kind of model; calibrate it again")
        if about["applicability"] is not None:
            self.applicability_ = Applicability.load(folder / APPLICABILITY_FILE, about["applicability"])
        if about["feature_names"]:
            self.feature_names_in_ = np.array(about["feature_names"], dtype=object)
        self._load_weights(folder, trusted)
        self.digest_ = about["digest"]

    # ---- what each kind of model implements

    def check_params(self) -> None:
        """Refuse parameters that make no model; called before every `fit`."""
        raise NotImplementedError

    def check_installed(self) -> None:
        """Refuse a model whose library is not installed; called before every `fit`."""

    def _fit(
        self,
        x: Rows,
        y: np.ndarray,
        validation: tuple[Rows, np.ndarray] | None,
        checkpoint: Checkpoint | None,
        team: Team | None,
    ) -> Epochs:
        """Train; yield the scores of each epoch. A model without epochs uses neither `checkpoint` nor `team`."""
        raise NotImplementedError

    def _predict(self, x: Rows) -> np.ndarray:
        raise NotImplementedError

    def _predict_spread(self, x: Rows) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def _save_weights(self, folder: Path) -> None:
        raise NotImplementedError

    def _load_weights(self, folder: Path, trusted: Collection[str]) -> None:
        raise NotImplementedError

    def _describe_training(self) -> JsonObject:
        return {}

    def _file_params(self) -> JsonObject:
        """Return the parameters as JSON types."""
        return dict(self.get_params(deep=False))


def _no_estimates(x: Rows) -> np.ndarray:
    return np.empty((0, x.shape[1]) if x.mask is not None else 0, dtype="float32")


@cache
def _versions() -> dict[str, str]:
    return versions_of(
        ("smgeo", "keras", "tensorflow", "jax", "ydf", "scikit-learn", "lightgbm", "xgboost", "xgboost-cpu", "numpy")
    )
