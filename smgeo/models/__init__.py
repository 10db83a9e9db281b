"""One estimator contract for forests, networks and scikit-learn's regressors, and the model file.

Importing this package loads neither TensorFlow nor ydf.
"""

from __future__ import annotations

from smgeo.models.base import SoilMoistureModel
from smgeo.models.registry import load_model, make_model
from smgeo.models.rows import WindowSource

__all__ = ["SoilMoistureModel", "WindowSource", "load_model", "make_model"]
