"""Parameters of models: the types that a constructor names."""

from __future__ import annotations

import math
from types import UnionType
from typing import get_args, get_type_hints

import numpy as np
from sklearn.base import BaseEstimator

from smgeo.bounds import LARGEST_SEED
from smgeo.errors import SmgeoError

# Greatest values of parameters that are sizes or counts: a typing error should not fill the memory.
_MOST = {
    "seed": LARGEST_SEED,
    "trees": 100_000,
    "max_depth": 10_000,
    "max_leaves": 2**20,
    "min_examples": 2**31,
    "sample_rows": 2**31,
    "threads": 4_096,
    "layers": 32,
    "units": 65_536,
    "filters": 65_536,
    "kernel": 1_000,
    "batch_size": 2**24,
    "epochs": 1_000_000,
    "patience": 1_000_000,
    "crop_days": 100_000,
}
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "nothing"}


def check_types(kind: str, model: BaseEstimator) -> None:
    """Refuse parameters of another type than the constructor of the model names."""
    hints = get_type_hints(type(model).__init__)
    for name, value in model.get_params(deep=False).items():
        _check_type(kind, name, plain_number(value), hints[name])


def plain_number(value: object) -> object:
    """Return a number of NumPy, as a search space gives them, as Python's: libraries and JSON need these."""
    return value.item() if isinstance(value, np.generic) else value


def _check_type(kind: str, name: str, value: object, expected: object) -> None:
    options = get_args(expected) if isinstance(expected, UnionType) else (expected,)
    if not set(options) <= set(_WORDS):
        return  # a type of the model's own, which its `check_params` knows
    if type(value) not in options and not (type(value) is int and float in options):
        raise SmgeoError(f"{kind}: {name} must be {' or '.join(_WORDS[t] for t in options)}; got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SmgeoError(f"{kind}: {name} must be finite; got {value}")
    if name == "seed" and isinstance(value, int) and not 0 <= value <= _MOST["seed"]:
        raise SmgeoError(f"{kind}: seed must be from 0 to {_MOST['seed']}; got {value}")
    if name in _MOST and isinstance(value, int) and value > _MOST[name]:
        raise SmgeoError(
            f"{kind}: {name} is {value}, more than any machine can hold; at most {_MOST[name]:,} are allowed"
        )
