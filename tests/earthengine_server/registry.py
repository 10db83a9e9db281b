"""Where the functions of expressions are kept, by Earth Engine's names.

Modules `functions_*` fill it. Each function says whose documented behaviour it follows: "API reference" is the page of
that name under developers.google.com/earth-engine/apidocs; guides are under developers.google.com/earth-engine/guides.
Names of parameters are those of Earth Engine's list of algorithms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FUNCTIONS: dict[str, Callable[..., Any]] = {}


def function(*names: str) -> Callable[[Callable], Callable]:
    """Registers a function under Earth Engine's name for it."""

    def keep(body: Callable) -> Callable:
        FUNCTIONS.update(dict.fromkeys(names, body))
        return body

    return keep


def as_list(value: Any) -> list:
    """A single value where a list is meant."""
    return list(value) if isinstance(value, list | tuple) else [value]
