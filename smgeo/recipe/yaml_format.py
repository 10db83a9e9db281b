"""YAML as users of recipes mean it."""

from __future__ import annotations

import re
from typing import Any

import yaml


class RecipeLoader(yaml.SafeLoader):
    """YAML as users mean it: 1e-3 is a number, and a key given twice or a day that no month has is an error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; one that is no number or date after all is named with its line."""
        try:
            return super().construct_object(node, deep)  # type: ignore[no-untyped-call]
        except ValueError as error:
            what = "date" if node.tag.endswith("timestamp") else "number"
            problem = f"{node.value!r} is no {what} ({error}); correct it, or put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a key given twice is named with its line."""
        own = [k for k, _ in node.value if not k.tag.endswith(":merge")]  # `<<: *other` adds keys of another mapping
        keys = [self.construct_object(k, deep=True) for k in own]  # type: ignore[no-untyped-call]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\.inf|\.nan)$"),
    list("-+0123456789."),
)
# Whole numbers stay integers: their resolver is asked first only if it is registered first.
for _first, _resolvers in RecipeLoader.yaml_implicit_resolvers.items():
    _resolvers.sort(key=lambda pair: pair[0] == "tag:yaml.org,2002:float")


class RecipeDumper(yaml.SafeDumper):
    """Puts in quotes what `RecipeLoader` would read as a number."""


RecipeDumper.yaml_implicit_resolvers = RecipeLoader.yaml_implicit_resolvers
