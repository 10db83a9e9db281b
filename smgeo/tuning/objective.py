"""How one trial is trained and scored, epoch by epoch; independent of how trials are chosen and run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smgeo.models.base import SoilMoistureModel
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.registry import Kind, make_model
from smgeo.prepare import Windows
from smgeo.prepare.target import target_scale, target_scaler
from smgeo.recipe.models import is_network

Pair = tuple[Windows, Windows]
# Name of a trial's score.
METRIC = "validation_rmse"
# Threads of a trial: small networks lose more by waiting for each other's threads than they gain, and two trials with a thread each
# use two cores.
THREADS = 1
# A trial is kept after so many seconds, so that one of minutes costs no writing.
_KEPT_S = 30


@dataclass(frozen=True)
class Objective:
    """All that the trials of a search have in common.

    Attributes
    ----------
    kind : str or scikit-learn regressor
        As for `make_model`.
    params : mapping
        Parameters that are not searched.
    pairs : sequence of (Windows, Windows)
        Training and validation windows: one pair, or one a fold.
    """

    kind: Kind
    params: Mapping[str, object]
    pairs: Sequence[Pair]

    def run(self, params: Mapping[str, object], checkpoint: Path | None = None) -> Iterator[dict[str, float]]:
        """Train a trial, one epoch of every fold at a time.

        Parameters
        ----------
        params : mapping
            Parameters of this trial.
        checkpoint : Path, optional
            Files in which the trial is kept now and then, one a fold, and from which it continues: the path without its ending.

        Yields
        ------
        dict
            `validation_rmse`, and for networks `rmse`, after each epoch, in the target's unit: over all rows of all folds. With
            several folds each counts with its best epoch so far, whose weights it would keep.
        """
        given = {**self.params, **params}
        files = [
            None if checkpoint is None else Checkpoint(f"{checkpoint}-{n}.npz", _KEPT_S) for n in range(len(self.pairs))
        ]
        folds = [
            _Fold(self.make(given), *pair, file, self.is_network) for pair, file in zip(self.pairs, files, strict=True)
        ]
        while sum(fold.advance() for fold in folds):
            parts = [(f.held_rmse if len(folds) == 1 else f.best_rmse, f.held_rows) for f in folds]
            scores = {METRIC: _pool(parts)}
            if all(fold.rmse is not None for fold in folds):
                scores["rmse"] = _pool([(f.rmse or 0.0, f.rows) for f in folds])
            yield scores

    def make(self, params: Mapping[str, object]) -> SoilMoistureModel:
        """Return the model, with one thread if its number of threads is not set, as trials run side by side."""
        model = make_model(self.kind, **params)
        unset = model.get_params(deep=False).get("threads", THREADS) is None
        return make_model(self.kind, **{**params, "threads": THREADS}) if unset else model

    @property
    def is_network(self) -> bool:
        """True if the model is trained in epochs, and could use a GPU."""
        return is_network(self.kind)


def fit_epochs(model: SoilMoistureModel, pair: Pair, epochs: int) -> SoilMoistureModel:
    """Return the model after at most so many epochs, if it is a network, with the weights of the best of them."""
    training = model.fit_by_epoch(pair[0], validation=pair[1])
    for scores in training:
        if is_network(model.kind) and scores["epoch"] >= epochs:
            break
    training.close()
    return model


class _Fold:
    """One model in training.

    Attributes
    ----------
    rmse, held_rmse : float or None, float
        Training and validation RMSE of the last epoch, in the target's unit.
    best_rmse : float
        Least `held_rmse`; NaN as soon as one was.
    rows, held_rows : int
        Number of training and validation rows.
    """

    def __init__(
        self,
        model: SoilMoistureModel,
        train: Windows,
        validation: Windows,
        checkpoint: Checkpoint | None,
        by_epoch: bool,
    ) -> None:
        self._model, self._validation, self._by_epoch = model, validation, by_epoch
        # Target units in one unit of the prepared target.
        self._scale = float((target_scale(train.preparation) or (0.0, 1.0))[1])
        self._epochs = model.fit_by_epoch(train, validation=validation, checkpoint=checkpoint)
        self.rows, self.held_rows = train.count, validation.count
        self.rmse: float | None = None
        self.held_rmse = self.best_rmse = np.inf

    def advance(self) -> bool:
        """Train one more epoch, or a model that is no network to its end; return False if there was none."""
        scores = next(self._epochs, None)
        if scores is None:
            return False
        if not self._by_epoch:
            for _ in self._epochs:
                pass
            scores = {}
        self.rmse = scores["rmse"] * self._scale if "rmse" in scores else None
        self.held_rmse = scores["val_rmse"] * self._scale if "val_rmse" in scores else self._score()
        self.best_rmse = float(np.minimum(self.best_rmse, self.held_rmse))
        return True

    def _score(self) -> float:
        back, held = target_scaler(self._validation.preparation), self._validation
        assert held.y is not None
        error = back(self._model.predict(held)).astype("float64") - back(held.y)
        return float(np.sqrt(np.mean(error**2)))


def _pool(parts: Sequence[tuple[float, int]]) -> float:
    """Return the RMSE over the rows of all parts, from the RMSE and the number of rows of each.

    >>> round(_pool([(3.0, 1), (1.0, 3)]), 6) == round(((9 + 3) / 4) ** 0.5, 6)
    True
    """
    return float(np.sqrt(np.average([rmse**2 for rmse, _ in parts], weights=[n for _, n in parts])))
