"""YAML of recipes: 1e-3 is a number, 0123 and 12:30 are text, a repeated key or an impossible date is an error; what is written reads back."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Hashable, Mapping
from typing import Annotated, Any, TypeAlias

import yaml
from pydantic import BeforeValidator

# Limits of a recipe: characters, values with those of aliases, and levels.
_LONGEST, _MOST_VALUES, _DEEPEST = 4_000_000, 200_000, 50


class RecipeLoader(yaml.SafeLoader):
    """Reads 1e-3 as a number and 0123 and 12:30 as text, and refuses a key given twice and a day that no month has."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        """Return the value of a node; the error for an invalid number or date names its line."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            what = "date" if node.tag.endswith("timestamp") else "number"
            problem = f"{node.value!r} is no {what} ({error}); correct it, or put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """Return a mapping; the error for a key given twice names its line."""
        own = [k for k, _ in node.value if not k.tag.endswith(":merge")]  # `<<: *other` adds keys of another mapping
        keys = [self.construct_object(k, deep=True) for k in own]
        seen: set[object] = set()
        for key in keys:
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
            seen.add(key if isinstance(key, Hashable) else id(key))
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 0123 in base 8 and 12:30 in base 60, which silently changes a station's id and a time of day; and 1e-3 as text.
_NUMBERS = {
    "int": r"[-+]?(0|[1-9][0-9_]*|0b[01][01_]*|0x[0-9a-fA-F][0-9a-fA-F_]*)",
    "float": r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?\d+)?|\.[0-9][0-9_]*([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
}
RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.split(":")[-1] not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, _form in _NUMBERS.items():
    RecipeLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^({_form})$"), list("-+0123456789."))


class RecipeDumper(yaml.SafeDumper):
    """Quotes text that `RecipeLoader` or another reader of YAML would take for something else."""

    def ignore_aliases(self, data: object) -> bool:
        """Write a list that is used twice twice."""
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Return text; escaped if it contains line breaks that YAML would read as others."""
        style = '"' if re.search("[\r\x85\u2028\u2029]", data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", str(data), style)


RecipeDumper.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()),
        *RecipeLoader.yaml_implicit_resolvers.get(first, ()),
    ]
    for first in {**yaml.SafeDumper.yaml_implicit_resolvers, **RecipeLoader.yaml_implicit_resolvers}
}
RecipeDumper.add_representer(str, RecipeDumper.represent_str)


def load_yaml(text: str) -> Any:
    """Return the value of YAML text.

    Raises
    ------
    yaml.YAMLError
        If it is not YAML, gives a key twice, contains an invalid number or date, or is larger or deeper than any recipe.
    """
    if len(text) > _LONGEST:
        raise yaml.YAMLError(f"it has {len(text):,} characters, and at most {_LONGEST:,} are read")
    loader = RecipeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError(f"it is more than {_DEEPEST} levels deep") from None
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Refuse values that are deep, and aliases (`*name`) that stand for very many values: a few lines can mean billions of them."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if depth > _DEEPEST:
            raise yaml.constructor.ConstructorError(
                None, None, f"it is more than {_DEEPEST} levels deep", node.start_mark
            )
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise yaml.constructor.ConstructorError(None, None, "a value contains itself", node.start_mark)
            return sizes[id(node)]
        sizes[id(node)] = 0
        parts = [node.value] if isinstance(node.value, str) else node.value
        parts = [p for pair in parts for p in pair] if isinstance(node, yaml.MappingNode) else parts
        total = 1 + sum(size(p, depth + 1) for p in parts if isinstance(p, yaml.Node))
        if total > _MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"it means more than {_MOST_VALUES:,} values", node.start_mark
            )
        sizes[id(node)] = total
        return total

    size(root, 0)


def dump_yaml(values: object, width: int = 80) -> str:
    """Return values as YAML text that `load_yaml` reads as equal values, tuples as lists."""
    return yaml.dump(values, Dumper=RecipeDumper, sort_keys=False, allow_unicode=True, width=width)


_SCALARS = (type(None), bool, int, float, str, dt.date, dt.datetime, bytes, set)


def as_yaml_value(value: object) -> object:
    """Return a value of a recipe that was given in Python as YAML would give it: tuples and arrays as lists, numbers as Python's.

    Raises
    ------
    ValueError
        If YAML has no form for it.

    Examples
    --------
    >>> import numpy as np
    >>> as_yaml_value({"units": (64, 32), "rate": np.float32(0.5)})
    {'units': [64, 32], 'rate': 0.5}
    """
    if hasattr(value, "tolist"):  # of NumPy
        value = value.tolist()
    if isinstance(value, Mapping):
        return {as_yaml_value(key): as_yaml_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_yaml_value(item) for item in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if type(value) in _SCALARS:
        return value
    raise ValueError(f"a recipe contains numbers, text, dates, lists and mappings; got a {type(value).__name__}")


# A value whose type the recipe leaves to others, such as a model's parameter.
YamlValue: TypeAlias = Annotated[Any, BeforeValidator(as_yaml_value)]
