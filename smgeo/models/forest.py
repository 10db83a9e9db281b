"""Random forest by ydf, with the hyperparameter template of the study."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from smgeo.errors import SmgeoError, missing_extra, nearest
from smgeo.models.estimator import Rows, SoilMoistureModel

# TF Decision Forests' `better_default`, which lives on in ydf under this name.
_TEMPLATES = {"better_default": "better_defaultv1", "none": None}
# Rows predicted at once, so that windows are gathered block by block.
_BLOCK = 65_536


class Forest(SoilMoistureModel):
    """Random forest (Breiman 2001).

    Parameters
    ----------
    trees : int
        Number of trees.
    max_depth : int
        Depth a tree may reach.
    min_examples : int
        Least rows in a leaf.
    template : {"better_default", "none"}
        ydf's hyperparameter template; the study used `better_default`.
    threads : int or None
        Threads; all cores by default. The result does not depend on it.
    seed : int
    """

    kind: ClassVar[str] = "rf"

    def __init__(
        self,
        *,
        trees: int = 300,
        max_depth: int = 16,
        min_examples: int = 5,
        template: str = "better_default",
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.trees = trees
        self.max_depth = max_depth
        self.min_examples = min_examples
        self.template = template
        self.threads = threads
        self.seed = seed

    def check_params(self) -> None:
        """Refuse what ydf would refuse later."""
        if find_spec("ydf") is None:
            raise missing_extra("the random forest", "forest")
        if self.template not in _TEMPLATES:
            raise SmgeoError(f"rf: unknown template {self.template!r}; {nearest(self.template, list(_TEMPLATES))}")
        if min(self.trees, self.max_depth, self.min_examples) < 1:
            raise SmgeoError("rf: trees, max_depth and min_examples must be 1 or more")

    def _fit(
        self, x: Rows, y: np.ndarray, validation: tuple[Rows, np.ndarray] | None, progress: Callable[..., None] | None
    ) -> None:
        import ydf

        ydf.verbose(0)
        params: dict[str, Any] = {
            "num_trees": self.trees,
            "max_depth": self.max_depth,
            "min_examples": self.min_examples,
        }
        template = _TEMPLATES[self.template]
        if template is not None:
            params = {**ydf.RandomForestLearner.hyperparameter_templates()[template], **params}
        learner = ydf.RandomForestLearner(
            label="y",
            task=ydf.Task.REGRESSION,
            random_seed=self.seed,
            num_threads=self.threads,
            compute_oob_performances=False,
            pure_serving_model=True,
            **params,
        )
        self._model = learner.train({"x": x.all(), "y": y})
        if progress:
            progress(1, 1, {})

    def _predict(self, x: Rows) -> np.ndarray:
        out = np.empty(len(x), dtype="float32")
        for start in range(0, len(x), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(x)))
            out[rows] = self._model.predict({"x": x.take(rows)}, num_threads=self.threads)
        return out

    def _save_weights(self, folder: Path) -> None:
        self._model.save(str(folder / "forest"))

    def _load_weights(self, folder: Path) -> None:
        import ydf

        ydf.verbose(0)
        self._model = ydf.load_model(str(folder / "forest"))
