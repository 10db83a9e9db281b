"""Evaluates expression graphs (REST reference: Expression, ValueNode) for a world."""

from __future__ import annotations

import inspect
import json
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from . import functions_collections, functions_images, functions_pixels, functions_values  # noqa: F401 (they fill FUNCTIONS)
from .errors import EarthEngineError
from .grids import Projection
from .images import Image, constant
from .registry import FUNCTIONS
from .values import Collection, Date, DateRange, Feature, to_date, to_geometry

# Guide "Debugging": "Collection query aborted after accumulating over 5000 elements".
MOST_ELEMENTS = 5000


@cache
def algorithms() -> dict[str, dict]:
    """The list of algorithms that ships with the client: name -> signature."""
    text = resources.files("ee.tests").joinpath("algorithms.json").read_text(encoding="utf-8")
    return {a["name"].removeprefix("algorithms/"): a for a in json.loads(text)["algorithms"]}


@cache
def needs_world(name: str) -> bool:
    """Whether a function loads something."""
    return "world" in inspect.signature(FUNCTIONS[name]).parameters


@cache
def known_arguments(name: str) -> dict[str, dict]:
    """Arguments of an algorithm by their names."""
    return {a["argumentName"]: a for a in algorithms()[name].get("arguments", [])}


class Scope(dict):
    """Arguments of a call of an expression's own function; `known`: named values that were computed with them."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.known: dict[str, Any] = {}


class Evaluator:
    """One expression: `Evaluator(world, expression).result()`."""

    def __init__(self, world: Any, expression: dict) -> None:
        self.world, self.values, self.name = world, expression["values"], expression["result"]
        self.known: dict[Any, Any] = {}
        self.used: dict[str, int] = {}
        self._free: dict[Any, frozenset[str]] = {}

    def result(self) -> Any:
        """Its value."""
        return self.reference(self.name, Scope())

    def reference(self, name: str, scope: Scope) -> Any:
        """A named value; computed once where it depends on no argument, and once a call where it does."""
        if name not in self.values:
            raise EarthEngineError(f"Invalid expression: value '{name}' is not defined.")
        known = scope.known if self.free(name) else self.known
        if name not in known:
            known[name] = self.value(self.values[name], scope if known is scope.known else Scope())
        return known[name]

    def value(self, node: dict, scope: Scope) -> Any:
        """A ValueNode's value, with the arguments in scope."""
        ((kind, body),) = node.items()
        if kind == "constantValue":
            return body
        if kind == "integerValue":
            return int(body)
        if kind == "valueReference":
            return self.reference(body, scope)
        if kind == "argumentReference":
            if body not in scope:
                raise EarthEngineError(f"Invalid expression: argument '{body}' is not in scope.")
            return scope[body]
        if kind == "arrayValue":
            return [self.value(v, scope) for v in body["values"]]
        if kind == "dictionaryValue":
            return {k: self.value(v, scope) for k, v in body["values"].items()}
        if kind == "functionDefinitionValue":
            return self.definition(body, scope)
        if kind == "functionInvocationValue":
            if not scope or self._free_of(node):
                return self.invocation(body, scope)
            # What the client wrote into a function's body and does not depend on its arguments.
            if id(node) not in self.known:
                self.known[id(node)] = self.invocation(body, scope)
            return self.known[id(node)]
        raise EarthEngineError(f"Invalid expression: '{kind}' is not available on this server.")

    def definition(self, body: dict, scope: Scope) -> Any:
        """A function of the expression's own."""
        names = body["argumentNames"]

        def call(*given: Any) -> Any:
            return self.reference(body["body"], Scope({**scope, **dict(zip(names, given, strict=True))}))

        return call

    def invocation(self, body: dict, scope: Scope) -> Any:
        """A call, its arguments checked against the list of algorithms."""
        given = {k: self.value(v, scope) for k, v in body.get("arguments", {}).items()}
        if "functionReference" in body:
            return self.reference(body["functionReference"], scope)(*given.values())
        return self.call(body["functionName"], given)

    def call(self, name: str, given: dict[str, Any]) -> Any:
        """An algorithm by name."""
        if name not in algorithms():
            raise EarthEngineError(f"Algorithm '{name}' not found.")
        if name not in FUNCTIONS:
            raise EarthEngineError(f"Algorithm '{name}' is not available on this server.")
        self.used[name] = self.used.get(name, 0) + 1
        arguments = checked(name, given)
        if needs_world(name):
            arguments["world"] = self.world
        try:
            return FUNCTIONS[name](**arguments)
        except (TypeError, AttributeError, KeyError, IndexError, ValueError) as error:
            raise EarthEngineError(f"{name}: {type(error).__name__}: {error}") from error

    def free(self, name: str) -> frozenset[str]:
        """Arguments that a named value needs from outside."""
        if name not in self._free:
            self._free[name] = frozenset()
            self._free[name] = self._free_of(self.values[name]) if name in self.values else frozenset()
        return self._free[name]

    def _free_of(self, node: dict) -> frozenset[str]:
        if id(node) not in self._free:
            self._free[id(node)] = self._found_free(node)
        return self._free[id(node)]

    def _found_free(self, node: dict) -> frozenset[str]:
        ((kind, body),) = node.items()
        if kind == "argumentReference":
            return frozenset({body})
        if kind == "valueReference":
            return self.free(body)
        if kind == "functionDefinitionValue":
            return self.free(body["body"]) - set(body["argumentNames"])
        if kind == "arrayValue":
            return frozenset().union(*(self._free_of(v) for v in body["values"]))
        if kind == "dictionaryValue":
            return frozenset().union(*(self._free_of(v) for v in body["values"].values()))
        if kind == "functionInvocationValue":
            parts = [self._free_of(v) for v in body.get("arguments", {}).values()]
            parts += [self.free(body["functionReference"])] if "functionReference" in body else []
            return frozenset().union(*parts)
        return frozenset()


def checked(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the signature: known names, the required ones there, simple types promoted."""
    known = known_arguments(name)
    if unknown := [k for k in given if k not in known]:
        raise EarthEngineError(f"{name}: Unrecognized argument(s): {', '.join(unknown)}.")
    for key, argument in known.items():
        if not argument.get("optional") and given.get(key) is None:
            raise EarthEngineError(f"{name}: Parameter '{key}' is required and may not be null.")
    return {k: promoted(name, known[k], v) for k, v in given.items() if v is not None or not known[k].get("optional")}


def promoted(name: str, argument: dict, value: Any) -> Any:
    """A number to an image, text to a projection or a date, an element to its geometry."""
    kind = argument["type"].split("<")[0]
    if kind == "Image" and isinstance(value, int | float):
        return Image((constant(value),))
    if kind == "Projection" and isinstance(value, str):
        return Projection(value)
    if kind == "Date" and not isinstance(value, Date):
        return to_date(value)
    if kind == "Geometry" and value is not None:
        return to_geometry(value)
    expected = {"Image": Image, "ImageCollection": Collection, "FeatureCollection": Collection}.get(kind)
    if expected and not isinstance(value, expected):
        raise EarthEngineError(
            f"{name}: Parameter '{argument['argumentName']}' is required to be of type {kind}; got {type(value).__name__}."
        )
    return value


# What goes back --------------------------------------------------------------------------------------------------


def encoded(value: Any) -> Any:
    """A value as `value:compute` gives it: JSON, with `getInfo()` dictionaries for objects."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, np.generic):
        return encoded(value.item())
    if isinstance(value, list | tuple):
        return [encoded(v) for v in value]
    if isinstance(value, dict):
        return {k: encoded(v) for k, v in value.items()}
    if isinstance(value, Date):
        return {"type": "Date", "value": value.ms}
    if isinstance(value, DateRange):
        return {"type": "DateRange", "dates": [value.start, value.end]}
    if isinstance(value, Projection):
        return value.info()
    if isinstance(value, BaseGeometry):
        return json.loads(shapely.to_geojson(value))
    if isinstance(value, Feature):
        return _feature(value)
    if isinstance(value, Image):
        return _image(value)
    if isinstance(value, Collection):
        return _collection(value)
    raise EarthEngineError(f"Object of type {type(value).__name__} cannot be returned.")


def _feature(feature: Feature) -> dict:
    properties = {k: v for k, v in feature.properties.items() if k != "system:index"}
    return {
        "type": "Feature",
        "geometry": encoded(feature.geometry),
        "id": str(feature.properties.get("system:index", "")),
        "properties": encoded(properties),
    }


def _image(image: Image) -> dict:
    bands = [
        {
            "id": b.name,
            "data_type": {"type": "PixelType", "precision": _precision(b.dtype)},
            "crs": b.projection.crs,
            "crs_transform": list(b.projection.transform),
        }
        for b in image.bands
    ]
    properties = {k: v for k, v in image.properties.items() if k not in ("system:index", "system:id")}
    known = {"id": image.properties["system:id"]} if "system:id" in image.properties else {}
    return {"type": "Image", "bands": bands, **known, "properties": encoded(properties)}


def _precision(dtype: np.dtype) -> str:
    return {"float32": "float", "float64": "double"}.get(dtype.name, "int")


def _collection(collection: Collection) -> dict:
    if len(collection.elements) > MOST_ELEMENTS:
        raise EarthEngineError(f"Collection query aborted after accumulating over {MOST_ELEMENTS} elements.")
    kind = "ImageCollection" if collection.images else "FeatureCollection"
    extra: dict[str, Any] = {"bands": []} if collection.images else {"columns": {}}
    return {"type": kind, **extra, "features": [encoded(e) for e in collection.elements]}
