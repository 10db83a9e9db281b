"""Checks of request bodies, and the discovery document with the schemas in it.

The document that ships with the client (`ee/tests/cloud_api_discovery_document.json`) has every method and path but
says `any` for every body. The schemas of the bodies that this server takes are added from the REST reference
(developers.google.com/earth-engine/reference/rest/v1: projects.value.compute, projects.image.computePixels,
projects.table.computeFeatures, Expression, ValueNode, PixelGrid), in the form of a discovery document.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from .errors import EarthEngineError


def _object(**properties: Any) -> dict:
    return {"type": "object", "properties": properties}


def _ref(name: str) -> dict:
    return {"$ref": name}


STRING, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
FORMATS = [
    "AUTO_JPEG_PNG",
    "GEO_TIFF",
    "JPEG",
    "MULTI_BAND_IMAGE_TILE",
    "NPY",
    "PNG",
    "TF_RECORD_IMAGE",
    "ZIPPED_GEO_TIFF",
]

SCHEMAS: dict[str, dict] = {
    "ComputeValueRequest": _object(expression=_ref("Expression"), workloadTag=STRING),
    "ComputePixelsRequest": _object(
        expression=_ref("Expression"),
        fileFormat={"type": "string", "enum": FORMATS},
        grid=_ref("PixelGrid"),
        bandIds={"type": "array", "items": STRING},
        visualizationOptions={"type": "any"},
        workloadTag=STRING,
    ),
    "ComputeFeaturesRequest": _object(
        expression=_ref("Expression"), pageSize=INTEGER, pageToken=STRING, workloadTag=STRING
    ),
    "PixelGrid": _object(
        crsCode=STRING, crsWkt=STRING, dimensions=_ref("GridDimensions"), affineTransform=_ref("AffineTransform")
    ),
    "GridDimensions": _object(width=INTEGER, height=INTEGER),
    "AffineTransform": _object(
        scaleX=NUMBER, shearX=NUMBER, translateX=NUMBER, shearY=NUMBER, scaleY=NUMBER, translateY=NUMBER
    ),
    "Expression": _object(values={"type": "object", "additionalProperties": _ref("ValueNode")}, result=STRING),
    "ValueNode": _object(
        constantValue={"type": "any"},
        integerValue={"type": "string", "format": "int64"},
        bytesValue=STRING,
        valueReference=STRING,
        argumentReference=STRING,
        arrayValue=_ref("ArrayValue"),
        dictionaryValue=_ref("DictionaryValue"),
        functionDefinitionValue=_ref("FunctionDefinition"),
        functionInvocationValue=_ref("FunctionInvocation"),
    ),
    "ArrayValue": _object(values={"type": "array", "items": _ref("ValueNode")}),
    "DictionaryValue": _object(values={"type": "object", "additionalProperties": _ref("ValueNode")}),
    "FunctionDefinition": _object(argumentNames={"type": "array", "items": STRING}, body=STRING),
    "FunctionInvocation": _object(
        functionName=STRING,
        functionReference=STRING,
        arguments={"type": "object", "additionalProperties": _ref("ValueNode")},
    ),
}
REQUIRED = {
    "ComputeValueRequest": {"expression"},
    "ComputePixelsRequest": {"expression", "fileFormat", "grid"},
    "ComputeFeaturesRequest": {"expression"},
    "PixelGrid": {"dimensions", "affineTransform"},
    "GridDimensions": {"width", "height"},
    "Expression": {"values", "result"},
    "FunctionDefinition": {"argumentNames", "body"},
}
# Fields of which exactly one is set (unions of the protocol).
ONE_OF = {
    "ValueNode": set(SCHEMAS["ValueNode"]["properties"]),
    "FunctionInvocation": {"functionName", "functionReference"},
    "PixelGrid": {"crsCode", "crsWkt"},
}
METHODS = {
    ("value", "compute"): "ComputeValueRequest",
    ("image", "computePixels"): "ComputePixelsRequest",
    ("table", "computeFeatures"): "ComputeFeaturesRequest",
}
# The client refuses to send deeper expressions than half of it; the service's own bound (ee/serializer.py).
DEEPEST = 100


@cache
def _document() -> str:
    text = resources.files("ee.tests").joinpath("cloud_api_discovery_document.json").read_text(encoding="utf-8")
    document = json.loads(text)
    document["schemas"] = SCHEMAS
    for (resource, method), schema in METHODS.items():
        document["resources"]["projects"]["resources"][resource]["methods"][method]["request"] = _ref(schema)
    return json.dumps(document)


def discovery(url: str, version: str) -> str:
    """The discovery document, with the server's own URL and the version that was asked for."""
    text = _document().replace("https://earthengine.googleapis.com/", url.rstrip("/") + "/")
    return text.replace("v1alpha", version)


def check(name: str, body: Any) -> None:
    """An error in Google's words where a body is not of a schema."""
    _check(_ref(name), body, "", 0)


def _fail(path: str, what: str) -> None:
    where = f" at '{path}'" if path else ""
    raise EarthEngineError(f"Invalid JSON payload received. {what}{where}.")


def _check(schema: dict, value: Any, path: str, depth: int) -> None:
    if depth > 3 * DEEPEST:
        _fail(path, "Message too deep")
    if "$ref" in schema:
        _check_object(schema["$ref"], value, path, depth)
        return
    kind = schema["type"]
    if kind == "any":
        return
    if kind == "object":
        if not isinstance(value, dict):
            _fail(path, "Expected an object")
        for key, inner in value.items():
            _check(schema["additionalProperties"], inner, f"{path}[{key}]", depth + 1)
    elif kind == "array":
        if not isinstance(value, list):
            _fail(path, "Expected a list")
        for number, inner in enumerate(value):
            _check(schema["items"], inner, f"{path}[{number}]", depth + 1)
    else:
        _check_scalar(schema, value, path)


def _check_scalar(schema: dict, value: Any, path: str) -> None:
    kinds: dict[str, Any] = {"string": str, "number": (int, float), "integer": int}
    if isinstance(value, bool) or not isinstance(value, kinds[schema["type"]]):
        _fail(path, f"Invalid value, expected {schema['type']}: {str(value)[:40]!r}")
    if "enum" in schema and value not in schema["enum"]:
        _fail(path, f"Invalid value, not one of the enum: {value!r}")
    if schema.get("format") == "int64" and not value.lstrip("-").isdigit():
        _fail(path, f"Invalid value, expected int64: {value!r}")


def _check_object(name: str, value: Any, path: str, depth: int) -> None:
    if not isinstance(value, dict):
        _fail(path, f"Expected {name}")
    properties = SCHEMAS[name]["properties"]
    for key in value:
        if key not in properties:
            _fail(path, f'Unknown name "{key}": Cannot find field')
    for key in sorted(REQUIRED.get(name, ())):
        if key not in value:
            _fail(path, f'{name} lacks "{key}"')
    if name in ONE_OF and len(given := sorted(ONE_OF[name] & set(value))) != 1:
        _fail(path, f"{name} needs exactly one of {', '.join(sorted(ONE_OF[name]))}; got {given}")
    for key, inner in value.items():
        _check(properties[key], inner, f"{path}.{key}".lstrip("."), depth + 1)
