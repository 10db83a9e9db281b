"""An ensemble: the mean, weighted or not, of several models that are trained on the same rows, windows or series."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from smgeo.bounds import LARGEST_SEED
from smgeo.errors import SmgeoError, nearest
from smgeo.files import JsonObject
from smgeo.models.base import Epochs, SoilMoistureModel
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.parameters import plain_number
from smgeo.models.rows import Rows
from smgeo.models.team import Team
from smgeo.recipe.models import STACK_FOLDS

# Numbers of windows or series that are held at once while members estimate.
_NUMBERS = 2**25
_MOST_MEMBERS = 32
# Seeds of members lie so far apart for neighbouring seeds of the ensemble.
_SEEDS = 1009


class Ensemble(SoilMoistureModel):
    """Mean of several models (Dietterich 2000, MCS 2000, LNCS 1857), or stacked ones (Breiman 1996, Machine Learning 24, 49-64).

    All members learn from the same rows. If one of them sees windows, those that see one day get the last day of each window; if one runs
    along whole series (`mode: sequence`), they get each day that counts. Members are trained one after the other.

    Parameters
    ----------
    members : sequence of str or dict
        Kinds, or kinds with their parameters: `["extra_trees", {"kind": "lstm", "mode": "sequence"}]`. In a recipe, names of its models.
    seeds : sequence of int, optional
        Each member once for each of these seeds, counted from `seed`. By default once, with its own seed, or `seed`.
    combine : {"mean", "stacked"}
        Weights of the members: equal; or those, not negative and 1 in sum, with which their mean errs least at places that they did not
        see. For these each member is trained five times more, each time without a fifth of the places (or groups of stations). Scaling of
        features is learned from all training stations. Needs `Windows`, which know places.
    seed : int
        Seed of members that have none.

    Attributes
    ----------
    members_ : list of fitted models
        In order; with `seeds`, the first seed of all members first.
    weights_ : numpy.ndarray
        Of each member, float64.
    """

    kind: ClassVar[str] = "ensemble"

    def __init__(
        self,
        *,
        members: Sequence[str | Mapping[str, object]] = ("extra_trees", "boosting"),
        seeds: Sequence[int] | None = None,
        combine: str = "mean",
        seed: int = 0,
    ) -> None:
        self.members = members
        self.seeds = seeds
        self.combine = combine
        self.seed = seed

    @property
    def uses_window(self) -> bool:
        """True if a member sees several days."""
        return any(m.uses_window for m in self._unfitted())

    @property
    def uses_validation(self) -> bool:
        """True if a member stops early on validation data."""
        return any(m.uses_validation for m in self._unfitted())

    @property
    def uses_series(self) -> bool:
        """True if a member runs along whole series."""
        return any(m.uses_series for m in self._unfitted())

    @property
    def has_spread(self) -> bool:
        """True: the spread of the members."""
        return True

    def check_params(self) -> None:
        """Refuse members that cannot be trained together."""
        if isinstance(self.members, str) or not isinstance(self.members, Sequence) or not self.members:
            raise SmgeoError(
                "ensemble: members must be a list of kinds, or of kinds with parameters, such as [extra_trees, {kind: lstm, units: 32}]; got "
                f"{self.members!r}"
            )
        if self.combine not in ("mean", "stacked"):
            raise SmgeoError(
                f"ensemble: unknown combine {self.combine!r}; {nearest(str(self.combine), ['mean', 'stacked'])}"
            )
        seeds = self.seeds
        if seeds is not None and (
            not isinstance(seeds, Sequence) or not seeds or not all(type(s) is int and s >= 0 for s in seeds)
        ):
            raise SmgeoError(
                f"ensemble: seeds must be a list of whole numbers from 0, such as [0, 1, 2]; got {seeds!r}"
            )
        count = len(self.members) * (1 if seeds is None else len(seeds))
        if not 2 <= count <= _MOST_MEMBERS:
            raise SmgeoError(
                f"ensemble: {count:,} members (each once for each seed); there must be 2 to {_MOST_MEMBERS}"
            )
        told = [json.dumps(part, sort_keys=True, default=repr) for part in self._described()]
        if twice := next((part for part in told if told.count(part) > 1), None):
            raise SmgeoError(
                f"ensemble: two members are the same model, {twice}; give them other seeds or parameters, or drop one"
            )
        made = self._unfitted()
        if any(m.uses_series for m in made) and any(m.uses_window and not m.uses_series for m in made):
            raise SmgeoError(
                "ensemble: a member runs along whole series (mode: sequence) and another sees windows; give both the same mode, or make two "
                "ensembles"
            )

    def check_installed(self) -> None:
        """Refuse members whose library is not installed."""
        for member in self._unfitted():
            member.check_installed()

    def _described(self) -> list[dict[str, object]]:
        """Return kind and parameters of each member; with `seeds`, all members of the first seed first."""
        out: list[dict[str, object]] = []
        for extra in (None,) if self.seeds is None else self.seeds:
            for member in self.members:
                known = {"kind": member} if isinstance(member, str) else member if isinstance(member, Mapping) else {}
                params = {str(k): plain_number(v) for k, v in known.items()}
                if not isinstance(params.get("kind"), str) or params["kind"] == self.kind:
                    raise SmgeoError(
                        f"ensemble: a member must be a kind of model, or a mapping with kind and parameters, and no ensemble; got {member!r}"
                    )
                # Other seeds of the ensemble are other seeds of all members.
                seed = self.seed if extra is None else (_SEEDS * self.seed + extra) % (LARGEST_SEED + 1)
                out.append({"seed": seed, **params} if extra is None else {**params, "seed": seed})
        return out

    def _unfitted(self) -> list[SoilMoistureModel]:
        """Return new members."""
        from smgeo.models.registry import unfitted_model

        return [
            unfitted_model(str(told["kind"]), {k: v for k, v in told.items() if k != "kind"})
            for told in self._described()
        ]

    # ---- training

    def _fit(
        self,
        x: Rows,
        y: np.ndarray,
        validation: tuple[Rows, np.ndarray] | None,
        checkpoint: Checkpoint | None,
        team: Team | None,
    ) -> Epochs:
        if team is not None:
            raise SmgeoError("ensemble: members are trained in one process; leave workers out")
        folds = self._folds(x) if self.combine == "stacked" else []
        held = None if validation is None else _Data(*validation)
        count = len(self._described())
        total, done = 100 * count * (len(folds) + 1), 0
        self.members_: list[SoilMoistureModel] = []
        self.weights_ = np.full(count, 1 / count)
        # (values that count, members) of each fold: estimate less target.
        errors: list[np.ndarray] = []
        for fold, rows in enumerate([*folds, None]):
            if rows is None and errors:
                self.weights_ = least_weights(np.concatenate(errors))
            part = _Data(x, y) if rows is None else _Data(x.only(rows[0]), y[rows[0]])
            made = self._unfitted()
            for number, member in enumerate(made):
                # A checkpoint of its own: members that were done are read from theirs.
                name = str(number) if rows is None else f"{number}-without-{fold}"
                file = None if checkpoint is None else checkpoint.part(name)
                for share in self._train(member, part, held, file):
                    if rows is None and len(self.members_) == number:
                        self.members_.append(member)
                    yield {"epoch": round(100 * (done + share)), "epochs": total}
                done += 1
            if rows is not None:
                errors.append(self._errors(made, x.only(rows[1]), y[rows[1]]))

    def _folds(self, x: Rows) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return rows to train on and rows held out, bool (n,), of each fold of places."""
        folds = x.place_folds(STACK_FOLDS, self.seed)
        if folds is None:
            raise SmgeoError(
                "ensemble: combine='stacked' leaves places out, and an array does not say which place a row is of; give Windows, or "
                "combine='mean'"
            )
        return folds

    def _train(
        self, member: SoilMoistureModel, data: _Data, held: _Data | None, checkpoint: Checkpoint | None
    ) -> Iterator[float]:
        """Train a member; yield the share that is done."""
        x, y = data.of(member)
        self._tell(member, x)
        stops = None if held is None or not member.uses_validation else held.of(member)
        for scores in member._fit(x, y, stops, checkpoint, None):
            member.training_ = member._describe_training()
            yield min(scores["epoch"] / scores["epochs"], 1.0)

    def _errors(self, members: Sequence[SoilMoistureModel], x: Rows, y: np.ndarray) -> np.ndarray:
        """Return estimate less target of each value that counts, (values, members)."""
        parts = []
        for block, values in _blocks(x):
            error = np.stack([self._estimate(member, values) - y[block] for member in members], axis=-1)
            parts.append(error if x.mask is None else error[x.mask[block]])
        return np.concatenate(parts)

    def _tell(self, member: SoilMoistureModel, x: Rows) -> None:
        """Give a member what `fit` learns before training."""
        member.params_ = member._file_params()
        member.n_features_in_ = int(x.shape[-1])
        series = x.mask is not None
        member.input_shape_ = (None, int(x.shape[-1])) if series else tuple(int(n) for n in x.shape[1:])
        member.preparation_ = self.preparation_
        if hasattr(self, "feature_names_in_"):
            member.feature_names_in_ = self.feature_names_in_

    # ---- estimates

    def _predict(self, x: Rows) -> np.ndarray:
        return self._predict_spread(x)[0]

    def _predict_spread(self, x: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted mean over the members, and their standard deviation, in which each counts alike.

        Weights differ from fold to fold where intervals are learned, and the spread must mean the same in all of them.
        """
        if not self.members_:
            raise SmgeoError("ensemble: training was stopped before the first member; fit it again")
        weights = self.weights_[: len(self.members_)]  # of those done, where training was stopped
        weights = weights / weights.sum() if weights.any() else np.full(len(weights), 1 / len(weights))
        series = self.input_shape_[0] is None
        mean, spread = (np.empty(x.shape[:2] if series else x.shape[:1], dtype="float32") for _ in range(2))
        for block, values in _blocks(x):
            each = np.stack([self._estimate(member, values) for member in self.members_])
            mean[block], spread[block] = np.tensordot(weights, each, axes=1), each.std(axis=0)
        return mean, spread

    def _estimate(self, member: SoilMoistureModel, x: np.ndarray) -> np.ndarray:
        """Return a member's estimates of rows, windows or series: float64, (n,) or (n, days)."""
        if member.uses_window or x.ndim == 2:
            return member._predict(Rows(x)).astype("float64")
        days = x if self.input_shape_[0] is None else x[:, -1]
        rows = np.ascontiguousarray(days.reshape(-1, days.shape[-1]))
        return member._predict(Rows(rows)).astype("float64").reshape(days.shape[:-1])

    # ---- the file

    def _file_params(self) -> JsonObject:
        members = [m if isinstance(m, str) else {k: plain_number(v) for k, v in m.items()} for m in self.members]
        # Without `combine` where it is the default, so that other models' files stay as they are.
        combine = {} if self.combine == "mean" else {"combine": self.combine}
        seeds = None if self.seeds is None else list(self.seeds)
        return {"members": members, "seeds": seeds, **combine, "seed": self.seed}

    def _describe_training(self) -> JsonObject:
        members = [{"kind": m.kind, **m.training_} for m in self.members_]
        return {"members": members, "weights": self.weights_.tolist()}

    def _save_weights(self, folder: Path) -> None:
        if len(self.members_) < (count := len(self._described())):
            raise SmgeoError(
                f"ensemble: training was stopped after {len(self.members_)} of {count} members; fit it to the end before it is saved"
            )
        for number, member in enumerate(self.members_):
            part = folder / str(number)
            part.mkdir()
            member._save_weights(part)

    def _load_weights(self, folder: Path, trusted: Collection[str]) -> None:
        made, told = self._unfitted(), self.training_.get("members")
        if not isinstance(told, list) or len(told) != len(made) or not all(isinstance(t, dict) for t in told):
            raise SmgeoError(f"{folder}: its members are not those that its parameters describe; train the model again")
        # A file without weights is of an equal mean.
        weights = self.training_.get("weights", [1 / len(made)] * len(made))
        if (
            not isinstance(weights, list)
            or len(weights) != len(made)
            or not all(isinstance(w, int | float) and w >= 0 for w in weights)
            or not math.isclose(sum(weights), 1, rel_tol=1e-6)
            or (self.combine == "mean" and len(set(weights)) > 1)
        ):
            raise SmgeoError(f"{folder}: the weights of its members are not shares of 1; train the model again")
        self.weights_ = np.array(weights, dtype="float64")
        one_day = (self.n_features_in_,)
        for number, (member, training) in enumerate(zip(made, told, strict=True)):
            member.n_features_in_, member.preparation_ = self.n_features_in_, self.preparation_
            member.input_shape_ = self.input_shape_ if member.uses_window else one_day
            member.training_, member.params_ = training, member._file_params()
            member._load_weights(folder / str(number), trusted)
        self.members_ = made


class _Data:
    """Rows, windows or series, and their days for members that see one, gathered when the first of them needs them."""

    def __init__(self, x: Rows, y: np.ndarray) -> None:
        self._x, self._y = x, y
        self._days: tuple[Rows, np.ndarray] | None = None

    def of(self, member: SoilMoistureModel) -> tuple[Rows, np.ndarray]:
        """Return what a member sees: all days, or the last of each window, or each one of a series that counts."""
        if member.uses_window or len(self._x.shape) == 2:
            return self._x, self._y
        if self._days is None:
            mask = self._x.mask
            parts = [values[:, -1] if mask is None else values[mask[block]] for block, values in _blocks(self._x)]
            self._days = Rows(np.concatenate(parts)), self._y if mask is None else self._y[mask]
        return self._days


def least_weights(errors: np.ndarray) -> np.ndarray:
    """Return weights, not negative and 1 in sum, with which the weighted mean of errors (values, members) has the least square.

    >>> least_weights(np.array([[1.0, -1.0], [-1.0, 3.0]])).round(6).tolist()
    [0.7, 0.3]
    """
    from scipy.optimize import nnls

    # A triangle whose product with weights is as long as that of all errors.
    triangle = np.asarray(np.linalg.qr(np.asarray(errors, dtype="float64") / np.sqrt(len(errors)), mode="r"))
    # The weights that keep the sum near 1 at the least cost have the proportions of those that keep it there.
    found = nnls(np.vstack([triangle, np.ones((1, errors.shape[1]))]), np.append(np.zeros(len(triangle)), 1.0))[0]
    weights: np.ndarray = found / found.sum()
    return weights


def _blocks(x: Rows) -> Iterator[tuple[slice, np.ndarray]]:
    """Iterate over windows or series, so many at a time that they fit in memory."""
    return x.blocks(max(_NUMBERS // int(np.prod(x.shape[1:])), 1))
