"""Random forest: by ydf with the hyperparameter template of the study, or by scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from smgeo.errors import SmgeoError, missing_extra, nearest
from smgeo.models.estimator import SoilMoistureModel
from smgeo.models.rows import Rows
from smgeo.models.sklearn_file import read_sklearn, write_sklearn

_ENGINES = ("ydf", "sklearn")
# TF Decision Forests' `better_default`, which lives on in ydf under this name.
_TEMPLATES = {"better_default": "better_defaultv1", "none": None}
# Rows predicted at once, so that windows are gathered block by block.
_BLOCK = 65_536
_SKLEARN_FILE = "forest.skops"


class Forest(SoilMoistureModel):
    """Random forest (Breiman 2001).

    Parameters
    ----------
    engine : {"ydf", "sklearn"}
        The library that grows the trees. scikit-learn's tries every feature at each split, ydf's some of them.
    trees : int
        Number of trees.
    max_depth : int
        Depth a tree may reach.
    min_examples : int
        Least rows in a leaf.
    template : {"better_default", "none"}
        ydf's hyperparameter template; the study used `better_default`. scikit-learn has none.
    threads : int or None
        Threads; all cores by default. The result does not depend on it.
    seed : int
    """

    kind: ClassVar[str] = "rf"

    def __init__(
        self,
        *,
        engine: str = "ydf",
        trees: int = 300,
        max_depth: int = 16,
        min_examples: int = 5,
        template: str = "better_default",
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.engine = engine
        self.trees = trees
        self.max_depth = max_depth
        self.min_examples = min_examples
        self.template = template
        self.threads = threads
        self.seed = seed

    def check_params(self) -> None:
        """Refuse what the library would refuse later."""
        for name, known in (("engine", _ENGINES), ("template", tuple(_TEMPLATES))):
            value = getattr(self, name)
            if value not in known:
                raise SmgeoError(f"rf: unknown {name} {value!r}; {nearest(value, known)}")
        if min(self.trees, self.max_depth, self.min_examples, self.threads or 1) < 1:
            raise SmgeoError("rf: trees, max_depth, min_examples and threads must be 1 or more")
        if self.engine == "ydf" and find_spec("ydf") is None:
            raise missing_extra("the random forest by ydf (engine='sklearn' needs nothing more)", "forest")

    def _fit(
        self, x: Rows, y: np.ndarray, validation: tuple[Rows, np.ndarray] | None, **aids: Any
    ) -> Generator[dict[str, float], None, None]:
        self._model = self._train_ydf(x.all(), y) if self.engine == "ydf" else self._train_sklearn(x.all(), y)
        yield {"epoch": 1, "epochs": 1}

    def _train_ydf(self, x: np.ndarray, y: np.ndarray) -> Any:
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
        return learner.train({"x": x, "y": y})

    def _train_sklearn(self, x: np.ndarray, y: np.ndarray) -> Any:
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(
            self.trees,
            max_depth=self.max_depth,
            min_samples_leaf=self.min_examples,
            n_jobs=self.threads or -1,
            random_state=self.seed,
        ).fit(x, y)
        # Several threads over trees would add these up in the order in which they finish; threads are over rows instead.
        return forest.set_params(n_jobs=1)

    def _predict(self, x: Rows) -> np.ndarray:
        out = np.empty(len(x), dtype="float32")
        predict = self._predict_ydf if self.engine == "ydf" else self._predict_sklearn
        for start in range(0, len(x), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(x)))
            out[rows] = predict(x.take(rows))
        return out

    def _predict_ydf(self, x: np.ndarray) -> np.ndarray:
        return cast(np.ndarray, self._model.predict({"x": x}, num_threads=self.threads))

    def _predict_sklearn(self, x: np.ndarray) -> np.ndarray:
        threads = min(self.threads or os.cpu_count() or 1, len(x))
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(self._model.predict, np.array_split(x, threads))))

    def _save_weights(self, folder: Path) -> None:
        if self.engine == "sklearn":
            write_sklearn(folder / _SKLEARN_FILE, {"forest": self._model})
        else:
            self._model.save(str(folder / "forest"))

    def _load_weights(self, folder: Path) -> None:
        if self.engine == "sklearn":
            self._model = read_sklearn(folder / _SKLEARN_FILE, ["forest"])["forest"]
            return
        import ydf

        ydf.verbose(0)
        self._model = ydf.load_model(str(folder / "forest"))
