"""The contract of a model, as evaluation, searches, maps and studies see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from smgeo.files import JsonObject
from smgeo.models.applicability import Applicability
from smgeo.models.calibration import Calibration
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.rows import Input, Validation
from smgeo.prepare.steps import Preparation


class Model(Protocol):
    """An estimator of soil moisture; `smgeo.models.base.SoilMoistureModel` is its base class.

    Attributes
    ----------
    kind : str
        Name in recipes.
    uses_window : bool
        X is (n, length, channels) rather than (n, features).
    uses_validation : bool
        `fit` stops early on validation data.
    has_spread : bool
        `predict_spread` gives the standard deviation over the model's parts.
    preparation_ : Preparation or None
        How the training data were prepared; None after fitting on bare arrays.
    input_shape_ : tuple of int or None
        Shape of one row of X; the days of whole series are None.
    training_ : dict
        Record of the training, JSON types: rows, versions, stations, and what the kind adds.
    calibration_ : Calibration or None
        Widths of prediction intervals.
    applicability_ : Applicability or None
        Area of applicability.
    training_ : dict
        Description of the training, as JSON types; `stations` are those that it was trained on.
    digest_ : str or None
        Digest of the file that the model was read from; None once it has changed.
    """

    kind: ClassVar[str]
    preparation_: Preparation | None
    input_shape_: tuple[int | None, ...]
    training_: JsonObject
    calibration_: Calibration | None
    applicability_: Applicability | None
    digest_: str | None

    @property
    def uses_window(self) -> bool:
        """True if X is several days rather than one."""
        ...

    @property
    def uses_validation(self) -> bool:
        """True if `fit` stops early on validation data."""
        ...

    @property
    def has_spread(self) -> bool:
        """True if `predict_spread` is available."""
        ...

    @property
    def uses_series(self) -> bool:
        """True if X is whole series, and estimates are (n, days)."""
        ...

    @property
    def window_mode(self) -> Literal["window", "sequence"]:
        """Mode of the Windows that it takes."""
        ...

    def fit(
        self,
        X: Input,
        y: ArrayLike | None = None,
        *,
        validation: Validation | None = None,
        checkpoint: Checkpoint | None = None,
        progress: Callable[..., None] | None = None,
    ) -> Self:
        """Fit the model; see `smgeo.models.base.SoilMoistureModel.fit`."""
        ...

    def predict(self, X: Input) -> np.ndarray:
        """Return estimates in the units of y, (n,) float32; of whole series (n, days)."""
        ...

    def predict_spread(self, X: Input) -> tuple[np.ndarray, np.ndarray]:
        """Return estimates, and the standard deviation over the model's parts."""
        ...

    def save(self, path: str | Path) -> Path:
        """Write the model to a folder."""
        ...
