"""The identity of a search: its model's code, its data and its settings.

Neither joblib's hash nor Dask's token sees that the body of a function changed, so the digest is our own.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import TypeAlias

import numpy as np

from smgeo.errors import SmgeoError
from smgeo.files import JsonObject, versions_of
from smgeo.models.backend import keras_backend
from smgeo.prepare import Windows
from smgeo.recipe.models import is_network
from smgeo.recipe.search import Range
from smgeo.tuning.objective import Pair
from smgeo.tuning.plan import SearchPlan

# A value as JSON knows it.
Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | None"
# Libraries that change a trial's score, or which trial is suggested.
LIBRARIES = (
    "smgeo",
    "numpy",
    "keras",
    "tensorflow",
    "jax",
    "ydf",
    "scikit-learn",
    "lightgbm",
    "xgboost",
    "xgboost-cpu",
    "ray",
    "ax-platform",
    "optuna",
)
# Windows read at once for the digest of the data.
_DIGEST_ROWS = 4096


def describe_inputs(plan: SearchPlan, pairs: Sequence[Pair]) -> JsonObject:
    """Return all that identifies a search, as JSON types."""
    kind, spec = plan.kind, plan.spec
    about = {
        "kind": kind if isinstance(kind, str) else identify(kind),
        "params": dict(plan.fixed),
        "space": {
            n: c.model_dump(exclude_none=True, mode="json") if isinstance(c, Range) else list(c)
            for n, c in plan.space.items()
        },
        "search": spec.search,
        "scheduler": spec.scheduler,
        "objective": spec.objective,
        "epochs": plan.epochs,
        "seed": spec.seed or 0,
        "trials": spec.trials,
        "concurrent": spec.concurrent,
        "versions": versions_of(LIBRARIES),
        "data": _digest(pairs),
    }
    if is_network(kind):
        about["keras_backend"] = keras_backend()
    try:
        json.dumps(about, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SmgeoError(
            f"search: parameters must be finite numbers, text, true, false, null or lists of these ({error})"
        ) from None
    return about


def identify(part: object) -> Json:
    """Return what identifies an estimator or a parameter of one, as JSON types: names and values, never an address in memory."""
    if hasattr(part, "get_params") and not isinstance(part, type):
        params = {name: identify(value) for name, value in part.get_params(deep=False).items()}
        return {"class": _name_of(type(part)), "params": params}
    if isinstance(part, list | tuple):
        return [identify(value) for value in part]
    if isinstance(part, Mapping):
        return {str(name): identify(value) for name, value in part.items()}
    if isinstance(part, float) and not math.isfinite(part):
        return repr(part)
    if part is None or isinstance(part, str | int | float):
        return part
    if isinstance(part, np.generic | np.ndarray):
        return identify(part.tolist())
    if isinstance(part, np.random.RandomState):
        return {"class": _name_of(type(part)), "state": identify(part.get_state(legacy=False))}
    if isinstance(part, partial):
        return {"function": identify(part.func), "args": identify(part.args), "keywords": identify(part.keywords)}
    if isinstance(part, FunctionType):
        code = part.__code__.replace(co_filename="", co_firstlineno=1)
        held = [identify(cell.cell_contents) for cell in part.__closure__ or ()]
        return {"function": _name_of(part), "code": hashlib.sha256(marshal.dumps(code)).hexdigest(), "closure": held}
    if hasattr(part, "__qualname__"):
        return _name_of(part)
    return {"class": _name_of(type(part)), "state": identify(getattr(part, "__dict__", {}))}


def _name_of(part: object) -> str:
    return f"{getattr(part, '__module__', None)}.{getattr(part, '__qualname__', None)}"


def _digest(pairs: Sequence[Pair]) -> str:
    """Return the SHA-256 of features, targets and preparation of all windows."""
    sums = hashlib.sha256()
    for windows in (w for pair in pairs for w in pair):
        sums.update(json.dumps([windows.shape, windows.preparation], sort_keys=True).encode())
        for part in _arrays(windows):
            sums.update(np.ascontiguousarray(part).data)
    return sums.hexdigest()


def _arrays(windows: Windows) -> Iterator[np.ndarray]:
    """Return the arrays of windows, what they share once; batch by batch if they are read block by block."""
    try:
        held = windows.flat_index()
    except SmgeoError:
        for batch in windows.batches(_DIGEST_ROWS, shuffle=False):
            yield from batch
        return
    yield from (a for a in (*held, windows.y, windows.mask) if a is not None)
