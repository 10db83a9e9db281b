"""YAML of recipes: 1e-3 is a number, and a repeated key or an impossible date is an error."""

from __future__ import annotations

import re
from collections.abc import Hashable

import yaml


class RecipeLoader(yaml.SafeLoader):
    """Reads 1e-3 as a number, and refuses a key given twice and a day that no month has."""

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
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\.inf|\.nan)$"),
    list("-+0123456789."),
)
# Whole numbers stay integers only if their resolver comes first.
for _first, _resolvers in RecipeLoader.yaml_implicit_resolvers.items():
    _resolvers.sort(key=lambda pair: pair[0] == "tag:yaml.org,2002:float")


class RecipeDumper(yaml.SafeDumper):
    """Quotes text that `RecipeLoader` would read as a number."""


RecipeDumper.yaml_implicit_resolvers = RecipeLoader.yaml_implicit_resolvers
