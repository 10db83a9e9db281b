"""Models of a recipe: kinds, parameters, and their own values of `prepare`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from smgeo.recipe.spec import Spec
from smgeo.recipe.yaml_format import YamlValue

# Names become folders, so nothing in them may lead elsewhere or look like a store or an unfinished file.
# Of a recipe or a model: names of folders, to which other words are added; file systems allow 255 bytes.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
# Kinds of model that are trained in epochs, and could use a GPU.
NETWORKS = ("ann", "cnn", "gru", "lstm")
# Those that see a window of days.
OF_WINDOWS = ("cnn", "gru", "lstm")
# Folds of places from whose held-out estimates the weights of a stacked ensemble are learned.
STACK_FOLDS = 5


def is_network(kind: object) -> bool:
    """Return True if a model's kind (a name, or an estimator of scikit-learn) is a network.

    >>> is_network("gru"), is_network("rf")
    (True, False)
    """
    return isinstance(kind, str) and kind in NETWORKS


class ModelSpec(Spec):
    """A model's kind, its fixed parameters, and its own values for keys of `prepare`."""

    kind: str
    params: dict[str, YamlValue] = Field({})
    prepare: dict[str, YamlValue] = Field({})


def is_stacked(model: ModelSpec) -> bool:
    """Return True for an ensemble whose weights are learned at places left out."""
    return model.kind == "ensemble" and model.params.get("combine") == "stacked"


def names_within(models: Mapping[str, ModelSpec], name: str) -> list[str]:
    """Return a model's name, and of an ensemble those of its members that are models of the recipe."""
    members = models[name].params.get("members") if models[name].kind == "ensemble" else None
    named = members if isinstance(members, list | tuple) else ()
    return [name, *(m for m in named if isinstance(m, str) and m in models and m != name)]


def parts_of(
    models: Mapping[str, ModelSpec], name: str, found: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Return a model's parameters, `found` by a search over its own; of an ensemble, members that are models of the recipe with theirs.

    >>> models = {"lstm": ModelSpec(kind="lstm", params={"units": 8}), "mean": ModelSpec(kind="ensemble", params={"members": ["rf", "lstm"]})}
    >>> parts_of(models, "mean", {"lstm": {"units": 32}})
    {'members': ['rf', {'kind': 'lstm', 'units': 32}]}
    """
    over = (found or {}).get(name, {})
    params: dict[str, Any] = {**models[name].params, **over}
    members = params.get("members")
    if models[name].kind != "ensemble" or not isinstance(members, list | tuple):
        return params

    def resolve(member: object) -> object:
        if not isinstance(member, str) or member not in models:
            return member
        kind = models[member].kind
        return {"kind": kind} if kind == "ensemble" else {"kind": kind, **parts_of(models, member, found)}

    return {**params, "members": [resolve(member) for member in members]}


def name_kinds(value: object) -> object:
    """Return a recipe's `models` with every kind: `ann: {units: 64}` means kind ann; `small: {kind: ann, units: 64}` names it.

    Raises
    ------
    ValueError
        If a model is not a mapping of parameters, or its name is not allowed.
    """
    if not isinstance(value, Mapping):
        return value
    out: dict[str, dict[str, Any]] = {}
    for name, params in value.items():
        if params is not None and not isinstance(params, Mapping):
            raise ValueError(f"model {name!r} takes a mapping of parameters, such as {{units: 64}}; got {params!r}")
        if not NAME.fullmatch(str(name)):
            raise ValueError(
                f"model name {str(name)[:150]!r} must consist of letters, digits, '_' or '-', with a letter first, at most 100 characters"
            )
        params = dict(params or {})
        if set(params) <= {"kind", "params", "prepare"} and "params" in params:
            out[name] = params
        else:
            own = {k: params.pop(k) for k in ("prepare",) if k in params}
            out[name] = {"kind": params.pop("kind", name), "params": params, **own}
    return out
