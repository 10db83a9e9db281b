"""Any scikit-learn regressor as a model: trained on windows, saved without pickle, used for maps."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, clone, is_regressor

from smgeo.errors import SmgeoError
from smgeo.files import JsonObject
from smgeo.models.base import Epochs, SoilMoistureModel
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.estimator_checks import numbers_a_row
from smgeo.models.estimator_description import check_fitted
from smgeo.models.estimator_file import names_in, read_estimators, write_estimators
from smgeo.models.rows import Rows
from smgeo.models.team import Team

_PARTS = ("estimator", "fitted")
# Numbers that are held at once: a kernel machine makes one of each row and each training row. And the most for one row.
_NUMBERS, _MOST_NUMBERS = 2**25, 2 * 10**7


class Regressor(SoilMoistureModel):
    """A scikit-learn regressor, or a pipeline that ends in one.

    Windows of several days become long rows: the channels of the first day, then of the second, and so on.

    Parameters
    ----------
    estimator : scikit-learn regressor
        Not changed; a copy of it is fitted. X and y are float64, because linear models lose digits in float32.
    seed : int
        Sets every `random_state` of the estimator and its parts that is None.

    Attributes
    ----------
    estimator_ : scikit-learn regressor
        The fitted copy.
    """

    kind: ClassVar[str] = "sklearn"

    def __init__(self, estimator: BaseEstimator | None = None, *, seed: int = 0) -> None:
        self.estimator = estimator
        self.seed = seed

    def check_params(self) -> None:
        """Refuse anything but a regressor, and parameters that scikit-learn would refuse later."""
        model: BaseEstimator = self.estimator
        known = hasattr(model, "__sklearn_tags__") and not isinstance(model, type | SoilMoistureModel)
        if not known or not is_regressor(model):
            raise SmgeoError(
                f"make_model needs a scikit-learn regressor, such as HistGradientBoostingRegressor(), or a pipeline that ends in "
                f"one; got {model!r}"
            )
        for part in (model, *model.get_params().values()):
            if isinstance(part, BaseEstimator) and hasattr(part, "_parameter_constraints"):
                try:
                    part._validate_params()
                except ValueError as error:
                    raise SmgeoError(str(error)) from None

    def _fit(
        self,
        x: Rows,
        y: np.ndarray,
        validation: tuple[Rows, np.ndarray] | None,
        checkpoint: Checkpoint | None,
        team: Team | None,
    ) -> Epochs:
        estimator = clone(self.estimator)
        unset = [n for n, v in estimator.get_params().items() if v is None and n.split("__")[-1] == "random_state"]
        estimator.set_params(**dict.fromkeys(unset, self.seed))
        try:
            self.estimator_ = estimator.fit(x.all().astype("float64"), y.astype("float64"))
        except ValueError as error:
            raise SmgeoError(f"{type(estimator).__name__}: {error}") from error
        yield {"epoch": 1, "epochs": 1}

    def _predict(self, x: Rows) -> np.ndarray:
        out = np.empty(len(x), dtype="float32")
        for block, values in x.blocks(max(_NUMBERS // self._numbers, 1)):
            out[block] = self._estimate(values.astype("float64"))
        return out

    @property
    def _numbers(self) -> int:
        """Numbers that the estimator holds for each row."""
        return numbers_a_row(self.estimator_, self.n_features_in_)

    def _weigh(self) -> None:
        if self._numbers > _MOST_NUMBERS:
            raise SmgeoError(
                f"{type(self.estimator_).__name__} holds {self._numbers:,} numbers for each row that it estimates; at most {_MOST_NUMBERS:,} are "
                "saved and read"
            )

    def _estimate(self, x: np.ndarray) -> np.ndarray:
        """Return estimates of rows (n, features): (n,).

        Raises
        ------
        SmgeoError
            If the estimator cannot, or returns anything but one number a row.
        """
        name = type(self.estimator_).__name__
        try:
            made = np.asarray(self.estimator_.predict(x))
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, MemoryError) as error:
            raise SmgeoError(f"{name} does not estimate: {type(error).__name__}: {error}") from error
        if made.shape not in ((len(x),), (len(x), 1)) or made.dtype.kind not in "fiu":
            raise SmgeoError(f"{name} gives {made.dtype} of shape {made.shape} for {len(x)} rows, not one number a row")
        return made.reshape(len(x))

    def _file_params(self) -> JsonObject:
        return {"seed": self.seed}

    def _describe_training(self) -> JsonObject:
        return {"estimator": repr(self.estimator)}

    def _save_weights(self, folder: Path) -> None:
        write_estimators(folder, dict(zip(_PARTS, (self.estimator, self.estimator_), strict=True)))
        try:  # what cannot be read is not written
            copy.copy(self)._load_weights(folder, names_in(folder))
        except SmgeoError as error:
            raise SmgeoError(
                f"{type(self.estimator_).__name__} cannot be saved without pickle: {str(error).replace(str(folder), 'its file')}"
            ) from None

    def _load_weights(self, folder: Path, trusted: Collection[str]) -> None:
        parts = read_estimators(folder, _PARTS, trusted)
        self.estimator, self.estimator_ = (parts[name] for name in _PARTS)
        self.check_params()
        try:
            check_fitted(self.estimator, self.estimator_)
        except ValueError as error:
            raise SmgeoError(f"{folder}: {error}; train the model again") from None
        self._weigh()
        # Arrays that do not fit each other are found before a map is begun with them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 0 may be outside of what it has learned
            try:
                self._estimate(np.zeros((2, self.n_features_in_)))
            except SmgeoError as error:
                raise SmgeoError(f"{folder}: {error}; train the model again") from error
