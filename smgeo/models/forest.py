"""Forests: random ones by ydf, with the hyperparameter template of the study, or by scikit-learn; and extremely randomised trees.

Whichever library grew the trees, compiled code evaluates them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
from dask.system import CPU_COUNT

from smgeo.bounds import weigh_memory
from smgeo.errors import SmgeoError, missing_extra, nearest
from smgeo.files import JsonObject
from smgeo.models.base import Epochs, SoilMoistureModel
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.rows import Rows
from smgeo.models.team import Team
from smgeo.models.trees import NODE_BYTES, Trees, check_width, trees_of_sklearn, trees_of_ydf

_ENGINES = ("ydf", "sklearn")
# TF Decision Forests' `better_default`, which lives on in ydf under this name.
_TEMPLATES = {"better_default": "better_defaultv1", "none": None}
_FILE = "trees.npz"
# Trees that are grown at a time: neither library tells how far it is.
_STEP = 50


@dataclass(kw_only=True, eq=False, repr=False)
class _Forest(SoilMoistureModel):
    """Trees that are grown independently of each other, some at a time, and whose mean is the estimate.

    A dataclass, as networks are: each kind changes the defaults of these parameters, and adds its own.
    """

    trees: int = 300
    max_depth: int | None = None
    min_examples: int = 5
    feature_share: float = 1.0
    sample_rows: int | None = None
    threads: int | None = None
    seed: int = 0

    @property
    def has_spread(self) -> bool:
        """True: the trees' spread."""
        return True

    def check_params(self) -> None:
        """Refuse values that the library would refuse later."""
        counts = (self.trees, self.max_depth, self.min_examples, self.sample_rows, self.threads)
        if min(n for n in counts if n is not None) < 1:
            raise SmgeoError(f"{self.kind}: trees, max_depth, min_examples, sample_rows and threads must be 1 or more")
        if not 0 < self.feature_share <= 1:
            raise SmgeoError(f"{self.kind}: feature_share must be above 0 and at most 1; got {self.feature_share:g}")

    def _fit(
        self,
        x: Rows,
        y: np.ndarray,
        validation: tuple[Rows, np.ndarray] | None,
        checkpoint: Checkpoint | None,
        team: Team | None,
    ) -> Epochs:
        check_width(self.kind, x.shape[-1])
        self._weigh(len(y))
        rows = x.all()
        parts: list[Trees] = []
        for first in range(0, self.trees, _STEP):
            done = min(first + _STEP, self.trees)
            parts.append(self._grow(rows, y, done - first, _seed_of(self.seed, first)))
            self._trees = Trees.join(parts)
            yield {"epoch": done, "epochs": self.trees}

    def _grow(self, x: np.ndarray, y: np.ndarray, trees: int, seed: int) -> Trees:
        raise NotImplementedError

    def _grow_by_sklearn(self, kind: type, x: np.ndarray, y: np.ndarray, trees: int, seed: int) -> Trees:
        forest = kind(
            trees,
            max_depth=self.max_depth,
            min_samples_leaf=self.min_examples,
            max_features=self.feature_share,
            bootstrap=True,
            max_samples=self._drawn(len(y)),
            n_jobs=self.threads or -1,
            random_state=seed,
        )
        return trees_of_sklearn(forest.fit(x, y))

    def _drawn(self, rows: int) -> int:
        """Return the number of rows that are drawn for each tree."""
        return rows if self.sample_rows is None else min(self.sample_rows, rows)

    def _weigh(self, rows: int) -> None:
        """Refuse a forest that would not fit in memory: a tree has two nodes a leaf, and a leaf about twice `min_examples` rows."""
        deepest = 60 if self.max_depth is None else min(self.max_depth + 1, 60)
        nodes = self.trees * min(max(self._drawn(rows) / self.min_examples, 1), 2.0**deepest)
        weigh_memory(
            f"a forest of {self.trees:,} trees on {rows:,} rows (about {nodes:,.0f} nodes)", nodes * NODE_BYTES
        )

    def _predict(self, x: Rows) -> np.ndarray:
        return self._predict_spread(x)[0]

    def _predict_spread(self, x: Rows) -> tuple[np.ndarray, np.ndarray]:
        out = np.empty((2, len(x)), dtype="float32")
        for block, values in x.blocks():
            out[:, block] = self._trees.predict(values, self.threads or CPU_COUNT)
        return out[0], out[1]

    def _save_weights(self, folder: Path) -> None:
        self._trees.save(folder / _FILE)

    def _load_weights(self, folder: Path, trusted: Collection[str]) -> None:
        if not (folder / _FILE).is_file():
            raise SmgeoError(f"{folder} was saved by an older smgeo (no {_FILE} in it); train the model again")
        trees = Trees.load(folder / _FILE, self.n_features_in_)
        deepest = int(trees.depths.max())
        if len(trees.depths) != self.trees or (self.max_depth is not None and deepest > self.max_depth):
            levels = "any number of" if self.max_depth is None else f"up to {self.max_depth}"
            raise SmgeoError(
                f"{folder}: {len(trees.depths)} trees of up to {deepest} levels are not the {self.trees} of {levels} that "
                "its parameters describe; train the model again"
            )
        self._trees = trees


@dataclass(kw_only=True, eq=False, repr=False)
class Forest(_Forest):
    """Random forest (Breiman 2001).

    By default fewer features are tried at a split than libraries do, a third: trees that differ more from each other err less at places without
    a station (`docs/models.md` has the table).

    Parameters
    ----------
    engine : {"ydf", "sklearn"}
        Library that trains the trees.
    trees : int
        Number of trees.
    max_depth : int
        Maximum depth of a tree.
    min_examples : int
        Minimum number of rows in a leaf.
    feature_share : float
        Share of the features that are tried at each split, above 0 and at most 1.
    sample_rows : int or None
        Number of rows that are drawn for each tree, with replacement, if there are more; None for as many as there are.
    template : {"better_default", "none"}
        ydf's hyperparameter template; the study used `better_default`. scikit-learn has none.
    threads : int or None
        Number of threads; all cores by default. The result does not depend on it.
    seed : int
    """

    kind: ClassVar[str] = "rf"

    engine: str = "ydf"
    max_depth: int = 16
    feature_share: float = 0.15
    sample_rows: int | None = 100_000
    template: str = "better_default"

    def check_params(self) -> None:
        """Refuse values that the library would refuse later."""
        for name, known in (("engine", _ENGINES), ("template", tuple(_TEMPLATES))):
            value = getattr(self, name)
            if value not in known:
                raise SmgeoError(f"rf: unknown {name} {value!r}; {nearest(value, known)}")
        super().check_params()

    def check_installed(self) -> None:
        """Refuse ydf where it is not installed."""
        if self.engine == "ydf" and find_spec("ydf") is None:
            raise missing_extra("the random forest by ydf (engine='sklearn' needs nothing more)", "forest")

    def _grow(self, x: np.ndarray, y: np.ndarray, trees: int, seed: int) -> Trees:
        if self.engine == "ydf":
            return self._grow_by_ydf(x, y, trees, seed)
        from sklearn.ensemble import RandomForestRegressor

        return self._grow_by_sklearn(RandomForestRegressor, x, y, trees, seed)

    def _grow_by_ydf(self, x: np.ndarray, y: np.ndarray, trees: int, seed: int) -> Trees:
        import ydf

        ydf.verbose(0)
        params: JsonObject = {
            "num_trees": trees,
            "max_depth": self.max_depth,
            "min_examples": self.min_examples,
            "num_candidate_attributes_ratio": self.feature_share,
            "bootstrap_size_ratio": self._drawn(len(y)) / len(y),
        }
        template = _TEMPLATES[self.template]
        if template is not None:
            params = {**ydf.RandomForestLearner.hyperparameter_templates()[template], **params}
        learner = ydf.RandomForestLearner(
            label="y",
            task=ydf.Task.REGRESSION,
            random_seed=seed,
            num_threads=self.threads,
            compute_oob_performances=False,
            pure_serving_model=True,
            **params,
        )
        try:
            forest = learner.train({"x": x, "y": y})
        except ValueError as error:
            if "interrupted by user" not in str(error):
                raise
            raise KeyboardInterrupt from None  # ydf handles Ctrl-C itself, and calls it an invalid argument
        if forest.num_trees() < trees:  # or, in older versions, returns the trees that it has
            raise KeyboardInterrupt
        return trees_of_ydf(forest)


@dataclass(kw_only=True, eq=False, repr=False)
class ExtraTrees(_Forest):
    """Extremely randomised trees (Geurts, Ernst and Wehenkel 2006, Mach. Learn. 63, 3-42), by scikit-learn.

    Of each feature one threshold is drawn at random at each split, and the best of these is taken. Trees learn a station by heart less easily
    than those of a random forest do, and estimate unseen places better for it.

    Parameters
    ----------
    trees : int
        Number of trees.
    max_depth : int, optional
        Maximum depth of a tree; none by default.
    min_examples : int
        Minimum number of rows in a leaf.
    feature_share : float
        Share of the features that are tried at each split, above 0 and at most 1.
    sample_rows : int or None
        Number of rows that are drawn for each tree, with replacement, if there are more; None for as many as there are.
    threads : int or None
        Number of threads; all cores by default. The result does not depend on it.
    seed : int
    """

    kind: ClassVar[str] = "extra_trees"

    sample_rows: int | None = 10_000

    def _grow(self, x: np.ndarray, y: np.ndarray, trees: int, seed: int) -> Trees:
        from sklearn.ensemble import ExtraTreesRegressor

        return self._grow_by_sklearn(ExtraTreesRegressor, x, y, trees, seed)


def _seed_of(seed: int, first: int) -> int:
    """Return a seed for the trees from number `first` on; the forest's own for the first ones.

    >>> _seed_of(7, 0), _seed_of(7, 50) != _seed_of(8, 50)
    (7, True)
    """
    return seed if first == 0 else int(np.random.SeedSequence([seed, first]).generate_state(1)[0] >> 1)
