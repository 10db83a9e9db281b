"""Functions of expressions: filters, dates, lists, dictionaries, numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import EarthEngineError
from .images import (
    Image,
)
from .reducers import Reducer, reduce_columns
from .registry import FUNCTIONS, function
from .values import (
    FILTERS,
    UNITS,
    Date,
    advanced,
    property_of,
    to_date,
    to_range,
)

# Filters ---------------------------------------------------------------------------------------------------------

FUNCTIONS.update({f"Filter.{name}": make for name, make in FILTERS.items()})


@function("Filter.and")
def filter_and(filters: list) -> Callable[..., bool]:
    """API reference: ee.Filter.and."""
    return lambda left, right=None: all(f(left, right) for f in filters)


@function("Filter.or")
def filter_or(filters: list) -> Callable[..., bool]:
    """API reference: ee.Filter.or."""
    return lambda left, right=None: any(f(left, right) for f in filters)


@function("Filter.not")
def filter_not(filter: Callable[..., bool]) -> Callable[..., bool]:
    """API reference: ee.Filter.not."""
    return lambda left, right=None: not filter(left, right)


@function("Filter.notNull")
def filter_not_null(properties: list[str]) -> Callable[..., bool]:
    """API reference: ee.Filter.notNull."""
    return lambda left, right=None: all(property_of(left, p) is not None for p in properties)


# Dates -----------------------------------------------------------------------------------------------------------


@function("Date")
def date_of(value: Any, timeZone: str | None = None) -> Date:
    """API reference: ee.Date, UTC."""
    return to_date(value)


@function("Date.millis")
def date_millis(date: Date) -> int:
    """API reference: ee.Date.millis."""
    return date.ms


@function("Date.advance")
def date_advance(date: Date, delta: float, unit: str, timeZone: str | None = None) -> Date:
    """API reference: ee.Date.advance."""
    return advanced(date, delta, unit)


@function("Date.difference")
def date_difference(date: Date, start: Date, unit: str) -> float:
    """API reference: ee.Date.difference: date minus start."""
    return (date.ms - start.ms) / UNITS[unit.lower().removesuffix("s")]


@function("Image.date")
def image_date(image: Image) -> Date:
    """API reference: ee.Image.date: of its system:time_start."""
    return to_date(image.properties.get("system:time_start"))


@function("DateRange")
def date_range(start: Any, end: Any = None, timeZone: str | None = None) -> Any:
    """API reference: ee.DateRange."""
    return to_range(start, end)


# Lists, dictionaries, numbers ------------------------------------------------------------------------------------


@function("If")
def if_else(condition: Any = None, trueCase: Any = None, falseCase: Any = None) -> Any:
    """API reference: ee.Algorithms.If: null, 0, an empty string and False are false."""
    return trueCase if condition is not None and condition not in (0, "", False) else falseCase


@function("List.map")
def list_map(list: list, baseAlgorithm: Callable, dropNulls: bool = False) -> list:
    """API reference: ee.List.map."""
    out = [baseAlgorithm(v) for v in list]
    return [v for v in out if v is not None] if dropNulls else out


@function("List.get")
def list_get(list: list, index: int) -> Any:
    """API reference: ee.List.get: negative indices count from the end."""
    if not -len(list) <= int(index) < len(list):
        raise EarthEngineError(f"List.get: List index must be between 0 and {len(list) - 1}, or -{len(list)} and -1.")
    return list[int(index)]


@function("List.size", "List.length")
def list_size(list: list) -> int:
    """API reference: ee.List.size."""
    return len(list)


@function("List.contains")
def list_contains(list: list, element: Any) -> bool:
    """API reference: ee.List.contains."""
    return element in list


@function("List.cat")
def list_cat(list: list, other: list) -> list:
    """API reference: ee.List.cat."""
    return [*list, *other]


@function("List.add")
def list_add(list: list, element: Any) -> list:
    """API reference: ee.List.add."""
    return [*list, element]


@function("List.zip")
def list_zip(list: list, other: list) -> list:
    """API reference: ee.List.zip."""
    return [[a, b] for a, b in zip(list, other, strict=False)]


@function("List.flatten")
def list_flatten(list: list) -> list:
    """API reference: ee.List.flatten."""
    out: Any = []
    for value in list:
        out += list_flatten(value) if isinstance(value, type(list)) else [value]
    return out


@function("List.sequence")
def list_sequence(start: float, end: float | None = None, step: float = 1, count: int | None = None) -> list:
    """API reference: ee.List.sequence: the end is inclusive."""
    if count is not None:
        return (
            np.linspace(start, end, int(count)).tolist()
            if end is not None
            else [start + step * i for i in range(int(count))]
        )
    return (start + step * np.arange(int(np.floor((end - start) / step + 1e-9)) + 1)).tolist()  # type: ignore[operator]


@function("List.distinct")
def list_distinct(list: list) -> list:
    """API reference: ee.List.distinct."""
    return [v for i, v in enumerate(list) if v not in list[:i]]


@function("List.reduce")
def list_reduce(list: list, reducer: Reducer) -> Any:
    """API reference: ee.List.reduce: the value itself where the reducer has one output."""
    return reduce_columns(reducer, [[v] for v in list])[reducer.outputs[0]]


@function("Dictionary")
def dictionary_of(input: Any = None) -> dict:
    """API reference: ee.Dictionary."""
    return dict(input or {})


@function("Dictionary.get")
def dictionary_get(dictionary: dict, key: str, defaultValue: Any = None) -> Any:
    """API reference: ee.Dictionary.get: an error where the key is absent and no default is given."""
    if key not in dictionary and defaultValue is None:
        raise EarthEngineError(f"Dictionary.get: Dictionary does not contain key: '{key}'.")
    return dictionary.get(key, defaultValue)


@function("Dictionary.set")
def dictionary_set(dictionary: dict, key: str, value: Any) -> dict:
    """API reference: ee.Dictionary.set."""
    return {**dictionary, key: value}


@function("Dictionary.combine")
def dictionary_combine(first: dict, second: dict, overwrite: bool = True) -> dict:
    """API reference: ee.Dictionary.combine."""
    return {**first, **second} if overwrite else {**second, **first}


NUMBERS: dict[str, Callable[[float, float], Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "eq": lambda a, b: int(a == b),
    "gt": lambda a, b: int(a > b),
    "gte": lambda a, b: int(a >= b),
    "lt": lambda a, b: int(a < b),
    "lte": lambda a, b: int(a <= b),
}


def _number(operation: Callable[[float, float], Any]) -> Callable[..., Any]:
    def compute(left: float, right: float) -> Any:
        """API reference: ee.Number."""
        return operation(left, right)

    return compute


FUNCTIONS.update({f"Number.{name}": _number(operation) for name, operation in NUMBERS.items()})
