"""The contract that every model keeps, and the folder a fitted model is saved to.

A model file holds JSON and the library's own weight format: no pickle, and loading one runs no code of it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Protocol, Self, cast, get_args, get_type_hints, runtime_checkable

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from smgeo.cube import check_replaceable, check_units, replace_folder
from smgeo.errors import SmgeoError, nearest

FORMAT = 1

# kind -> where its class is; imported when asked for, so that a forest needs no Keras.
_KINDS = {
    "rf": ("smgeo.models.forest", "Forest"),
    "ann": ("smgeo.models.networks", "Ann"),
    "cnn": ("smgeo.models.networks", "Cnn"),
    "gru": ("smgeo.models.networks", "Gru"),
    "lstm": ("smgeo.models.networks", "Lstm"),
}


@runtime_checkable
class WindowSource(Protocol):
    """What a model needs of `smgeo.Windows`."""

    y: np.ndarray | None
    mask: np.ndarray | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(windows, length, channels)."""
        ...

    @property
    def preparation(self) -> dict[str, Any]:
        """How the windows were made, as JSON types."""
        ...

    def __len__(self) -> int: ...

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Windows at `rows`: (len(rows), length, channels) float32."""
        ...

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Positions in the order of an epoch."""
        ...


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
    preparation_ : dict or None
        Features, units, gap filling, scaler and window of the training data; None after fitting on bare arrays.
    n_features_in_ : int
        Channels of X.
    """

    kind: ClassVar[str]
    uses_window: ClassVar[bool] = False
    uses_validation: ClassVar[bool] = False

    preparation_: dict[str, Any] | None

    def fit(
        self,
        X: np.ndarray | WindowSource,
        y: np.ndarray | None = None,
        *,
        validation: WindowSource | tuple[np.ndarray, np.ndarray] | None = None,
        progress: Callable[..., None] | None = None,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : numpy.ndarray or Windows
            (n, features), (n, length, channels), or windows, which bring their y.
        y : numpy.ndarray, optional
            (n,), in the units of the prepared target.
        validation : (X, y) or Windows, optional
            Data to stop early on, for networks.
        progress : callable, optional
            Called with (done, total, dict of scores).

        Raises
        ------
        SmgeoError
            If X has another rank than the model needs, is empty, or holds missing values.
        """
        x, target, preparation = self._take(X, y)
        if len(x) == 0:
            raise SmgeoError(f"{self.kind}: no rows to train on")
        held = (
            None
            if validation is None
            else (self._take(validation) if isinstance(validation, WindowSource) else self._take(*validation))
        )
        self.n_features_in_ = int(x.shape[-1])
        self.input_shape_ = tuple(int(n) for n in x.shape[1:])
        self.preparation_ = preparation
        self._fit(x, target, held[:2] if held is not None and len(held[0]) else None, progress)
        self.training_ = {"rows": len(x), "versions": _versions(), **self._describe_training()}
        return self

    def predict(self, X: np.ndarray | WindowSource) -> np.ndarray:
        """Estimates (n,) float32, in the units of the y the model was fitted on."""
        if not hasattr(self, "input_shape_"):
            raise SmgeoError(f"this {self.kind} model is not fitted yet; call fit first")
        x, _, preparation = self._take(X, need_y=False)
        if preparation and self.preparation_:
            check_units(preparation["units"], self.preparation_["units"], "X")
            if preparation["features"] != self.preparation_["features"]:
                raise SmgeoError(
                    f"{self.kind}: X has the features {', '.join(preparation['features'])}; the model was fitted on "
                    f"{', '.join(self.preparation_['features'])}, in this order"
                )
        if tuple(x.shape[1:]) != self.input_shape_:
            raise SmgeoError(
                f"{self.kind}: X has shape (n, {', '.join(map(str, x.shape[1:]))}); the model was fitted on "
                f"(n, {', '.join(map(str, self.input_shape_))})"
            )
        return self._predict(x) if len(x) else np.empty(0, dtype="float32")

    # ---- what each kind of model does

    def _fit(
        self, x: Rows, y: np.ndarray, validation: tuple[Rows, np.ndarray] | None, progress: Callable[..., None] | None
    ) -> None:
        raise NotImplementedError

    def _predict(self, x: Rows) -> np.ndarray:
        raise NotImplementedError

    def _save_weights(self, folder: Path) -> None:
        raise NotImplementedError

    def _load_weights(self, folder: Path) -> None:
        raise NotImplementedError

    def _describe_training(self) -> dict[str, Any]:
        return {}

    # ---- input

    def _take(
        self, X: np.ndarray | WindowSource, y: np.ndarray | None = None, *, need_y: bool = True
    ) -> tuple[Rows, np.ndarray, dict[str, Any] | None]:
        """X as rows that a model can gather from, y, and how X was prepared."""
        preparation = None
        if isinstance(X, WindowSource):
            if X.mask is not None:
                raise SmgeoError(
                    f"{self.kind} trains on windows; whole series (mode='sequence') are for networks of your own that give a value "
                    "for each day: feed these with windows.to_keras(...)"
                )
            rows = Rows(X, flat=not self.uses_window)
            y = X.y if y is None else y
            preparation = X.preparation
        else:
            array = np.asarray(X, dtype="float32")
            rank = 3 if self.uses_window else 2
            if array.ndim != rank:
                wanted = "(n, length, features)" if self.uses_window else "(n, features)"
                raise SmgeoError(f"{self.kind} needs X of shape {wanted}; got {array.shape}")
            gaps = int(np.isnan(array).sum())
            if gaps:
                raise SmgeoError(
                    f"{self.kind}: X holds {gaps} missing values; fill them, or train from Windows with missing > 0"
                )
            rows = Rows(array)
        if not need_y:
            return rows, np.empty(0, dtype="float32"), preparation
        if y is None:
            raise SmgeoError(f"{self.kind}: fit needs y; give it, or windows with a target")
        y = np.asarray(y, dtype="float32").reshape(-1)
        if y.size != len(rows):
            raise SmgeoError(f"{self.kind}: X has {len(rows)} rows, y has {y.size}")
        gaps = int((~np.isfinite(y)).sum())
        if gaps:
            raise SmgeoError(f"{self.kind}: y holds {gaps} missing or infinite values")
        return rows, y, preparation

    # ---- the model file

    def save(self, path: str | Path) -> Path:
        """Write the model to a folder, beside it first, renamed when complete.

        The folder holds `model.json` (kind, parameters, preparation, training, checksums) and the weights.
        """
        path = Path(path)
        check_replaceable(path, "model.json")
        part = path.with_name(path.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        self._save_weights(part)
        files = sorted(p for p in part.rglob("*") if p.is_file())
        manifest = {
            "format": FORMAT,
            "kind": self.kind,
            "params": self.get_params(),
            "n_features": self.n_features_in_,
            "input_shape": list(self.input_shape_),
            "preparation": self.preparation_,
            "training": self.training_,
            "files": {p.relative_to(part).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
        }
        manifest["sha256"] = _checksum(manifest)
        (part / "model.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        replace_folder(part, path, "model.json")
        return path


class Rows:
    """Rows of X, as an array or gathered from windows batch by batch."""

    def __init__(self, source: np.ndarray | WindowSource, flat: bool = False) -> None:
        self._source, self._flat = source, flat
        n, *rest = source.shape
        # A window of one day is a row; one of several days is a long row, for models that look at one.
        self.shape: tuple[int, ...] = (n, int(np.prod(rest))) if flat else (n, *rest)

    def __len__(self) -> int:
        return int(self.shape[0])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """float32 rows at positions `rows`."""
        if isinstance(self._source, np.ndarray):
            return cast(np.ndarray, self._source[rows])
        x = self._source.gather(rows)
        return x.reshape(len(rows), -1) if self._flat else x

    def order(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Positions of all rows, shuffled by `rng`, in an order in which the source is quick to read."""
        if not isinstance(self._source, np.ndarray):
            return self._source.order(rng)
        return np.arange(len(self)) if rng is None else rng.permutation(len(self))

    def all(self) -> np.ndarray:
        """Every row at once."""
        return self.take(np.arange(len(self)))


def _versions() -> dict[str, str]:
    out = {}
    for package in ("smgeo", "keras", "tensorflow", "jax", "ydf", "numpy"):
        try:
            out[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _class_of(kind: str) -> type[SoilMoistureModel]:
    if kind not in _KINDS:
        raise SmgeoError(f"unknown model {kind!r}; {nearest(kind, list(_KINDS))}")
    module, name = _KINDS[kind]
    found: type[SoilMoistureModel] = getattr(importlib.import_module(module), name)
    return found


def _check_type(kind: str, name: str, value: Any, expected: Any) -> None:
    accepted = {int: ((int,), "a whole number"), float: ((int, float), "a number"), str: ((str,), "text")}
    options = [accepted.get(e, ((e,), "nothing")) for e in get_args(expected) or (expected,)]
    if isinstance(value, bool) or not any(isinstance(value, types) for types, _ in options):
        raise SmgeoError(f"{kind}: {name} must be {' or '.join(words for _, words in options)}; got {value!r}")
    if name == "seed" and value < 0:
        raise SmgeoError(f"{kind}: seed must be 0 or more; got {value}")


def make_model(kind: str, **params: Any) -> SoilMoistureModel:
    """An unfitted model.

    Parameters
    ----------
    kind : {"rf", "ann", "cnn", "gru", "lstm"}
        Random forest, dense network, 1-D convolution, recurrent networks.
    **params
        The model's own parameters (see its class), `seed` among them.

    Raises
    ------
    SmgeoError
        If the kind or a parameter is unknown, or the library it needs is not installed.
    """
    found = _class_of(kind)
    known = list(inspect.signature(found).parameters)
    hints = get_type_hints(found.__init__)
    for name in params:
        if name not in known:
            raise SmgeoError(f"{kind} has no parameter {name!r}; {nearest(name, known)}")
    for name, value in params.items():
        _check_type(kind, name, value.item() if isinstance(value, np.generic) else value, hints[name])
    # Numbers of NumPy, as a search space gives them, are taken as Python's: libraries and JSON want these.
    model = found(**{k: v.item() if isinstance(v, np.generic) else v for k, v in params.items()})
    model.check_params()  # type: ignore[attr-defined]
    return model


def load_model(path: str | Path) -> SoilMoistureModel:
    """A fitted model from the folder that `save` wrote.

    Raises
    ------
    SmgeoError
        If the folder is no model, is of a newer format, or a file in it is missing or damaged.
    """
    path = Path(path)
    if not (path / "model.json").is_file():
        raise SmgeoError(
            f"{path} holds no model (no model.json); give a folder that model.save wrote, such as RUN/models/rf"
        )
    try:
        manifest = json.loads((path / "model.json").read_text(encoding="utf-8"))
        if manifest["format"] > FORMAT:
            raise SmgeoError(f"{path} was written by a newer smgeo (model format {manifest['format']}, known {FORMAT})")
        if manifest.pop("sha256", None) != _checksum(manifest):
            raise SmgeoError(
                f"{path}/model.json is damaged or was edited (its checksum does not fit); save the model again"
            )
        kind, params, files = manifest["kind"], manifest["params"], manifest["files"]
        n_features, shape, preparation, training = (
            manifest["n_features"],
            manifest["input_shape"],
            manifest["preparation"],
            manifest["training"],
        )
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise SmgeoError(f"{path}/model.json is damaged ({error!r}); save the model again") from None
    for name, expected in files.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise SmgeoError(f"{path}/model.json names a file outside the model: {name!r}; nothing is loaded")
        file = path / inside
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise SmgeoError(
                f"{file} is missing or damaged (its checksum is not the one in model.json); save the model again"
            )
    model = make_model(kind, **params)
    model.n_features_in_ = int(n_features)
    model.input_shape_ = tuple(shape)
    model.preparation_, model.training_ = preparation, training
    model._load_weights(path)
    return model
