"""Functions of expressions: images, their bands, arithmetic and masks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .errors import EarthEngineError
from .grids import Pixels
from .images import (
    Answer,
    Band,
    Image,
    apply,
    constant,
    unmasked,
)
from .registry import FUNCTIONS, as_list, function
from .values import (
    Collection,
    with_properties,
)

# Loading ---------------------------------------------------------------------------------------------------------


@function("Image.load")
def image_load(world: Any, id: str, version: float = -1) -> Image:
    """API reference: ee.Image: an image by its asset ID, those of collections too."""
    if (image := world.image(id)) is None:
        raise EarthEngineError(
            f"Image.load: Image asset '{id}' not found (does not exist or caller does not have access)."
        )
    return image


@function("ImageCollection.load")
def collection_load(world: Any, id: str, version: float | None = None) -> Collection:
    """API reference: ee.ImageCollection: images in the order of their index."""
    if (images := world.collection(id)) is None:
        raise EarthEngineError(
            f"ImageCollection.load: ImageCollection asset '{id}' not found (does not exist or caller does not have access)."
        )
    return Collection(tuple(images), images=True)


# Bands of images -------------------------------------------------------------------------------------------------


@function("Image.constant")
def image_constant(value: Any) -> Image:
    """API reference: ee.Image.constant: everywhere; bands of a list are constant_0, constant_1, ..."""
    if isinstance(value, list):
        return Image(tuple(constant(v, f"constant_{i}") for i, v in enumerate(value)))
    return Image((constant(value),))


@function("Image.select")
def image_select(input: Image, bandSelectors: Any, newNames: list[str] | None = None) -> Image:
    """API reference: ee.Image.select: by name, regular expression or index; optionally renamed."""
    chosen: list[Band] = []
    for selector in as_list(bandSelectors):
        if isinstance(selector, str):
            found = [b for b in input.bands if b.name == selector]
            found = found or [b for b in input.bands if re.fullmatch(selector, b.name)]
            chosen += found or [input.band(selector)]
        elif 0 <= int(selector) < len(input.bands):
            chosen.append(input.bands[int(selector)])
        else:
            raise EarthEngineError(f"Image.select: Band index {selector} is out of range.")
    return image_rename(input.kept(chosen), newNames) if newNames is not None else input.kept(chosen)


@function("Image.rename")
def image_rename(input: Image, names: list[str]) -> Image:
    """API reference: ee.Image.rename: as many names as bands."""
    names = as_list(names)
    if len(names) != len(input.bands):
        raise EarthEngineError(f"Image.rename: Got {len(names)} names for {len(input.bands)} bands.")
    return input.kept([replace(b, name=n) for b, n in zip(input.bands, names, strict=True)])


@function("Image.addBands")
def image_add_bands(dstImg: Image, srcImg: Image, names: Any = None, overwrite: bool = False) -> Image:
    """API reference: ee.Image.addBands: metadata and footprint of the first; a name that is taken gets a suffix."""
    bands = {b.name: b for b in dstImg.bands}
    new = srcImg.bands if names is None else [srcImg.band(n) for n in as_list(names)]
    for band in new:
        name, number = band.name, 0
        while name in bands and not overwrite:
            number += 1
            name = f"{band.name}_{number}"
        bands[name] = replace(band, name=name)
    return dstImg.kept(list(bands.values()))


@function("Image.cat")
def image_cat(images: list[Image]) -> Image:
    """API reference: ee.Image.cat: the bands of all images."""
    out = images[0]
    for image in images[1:]:
        out = image_add_bands(out, image)
    return out


@function("Image.bandNames")
def image_band_names(image: Image) -> list[str]:
    """API reference: ee.Image.bandNames."""
    return image.names


@function("Image.linkCollection")
def image_link(
    input: Image,
    imageCollection: Collection,
    linkedBands: Any = None,
    linkedProperties: Any = None,
    matchPropertyName: str = "system:index",
) -> Image:
    """API reference: ee.Image.linkCollection: bands and properties of the image with the same index.

    Without a match the bands are fully masked and the properties null; the footprint stays.
    """
    key = input.properties.get(matchPropertyName)
    match = next((i for i in imageCollection.elements if i.properties.get(matchPropertyName) == key), None)
    names = [] if linkedBands is None else as_list(linkedBands)
    if match is None:
        like = imageCollection.elements[0] if imageCollection.elements else None
        bands = [_empty(like.band(n) if like else constant(0.5, n)) for n in names]
    else:
        bands = [match.band(n) for n in names]
    out = image_add_bands(input, Image(tuple(bands)), overwrite=True)
    wanted = [] if linkedProperties is None else as_list(linkedProperties)
    return with_properties(out, {n: None if match is None else match.properties.get(n) for n in wanted})


def _empty(band: Band) -> Band:
    """A band without a valid pixel."""
    return replace(band, read=lambda pixels: (np.zeros(pixels.cols.shape), np.zeros(pixels.cols.shape)))


# Arithmetic ------------------------------------------------------------------------------------------------------


def pairs(image1: Image, image2: Image) -> list[tuple[Band, Band, str]]:
    """API reference: ee.Image.add: how bands of two images are matched.

    One band goes with all of the other's; otherwise by name where the names are the same, else in order.
    """
    one, two = image1.bands, image2.bands
    if len(one) == 1 or len(two) == 1:
        count = max(len(one), len(two)) if one and two else 0
        one, two = (b * count if len(b) == 1 else b for b in (one, two))
    elif len(one) != len(two):
        raise EarthEngineError(
            f"Image: If one image has more than 1 band, the other must have 1 or as many. Got {len(one)} and {len(two)}."
        )
    elif set(image1.names) == set(image2.names):
        two = tuple(image2.band(n) for n in image1.names)
    names = image1.names if len(image1.bands) >= len(image2.bands) else image2.names
    return list(zip(one, two, names, strict=True))


def as_integers(operation: Callable) -> Callable:
    """Bit operations."""
    return lambda a, b: operation(a.astype(np.int64), b.astype(np.int64)).astype(float)


def safe_divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """0 where the divisor is 0, as the API reference says of ee.Image.divide."""
    return np.where(b == 0, 0, a / np.where(b == 0, 1, b))


# Name -> (operation, type of the result: of the inputs, boolean, integer, or double).
BINARY: dict[str, tuple[Callable, str]] = {
    "add": (np.add, "union"),
    "subtract": (np.subtract, "union"),
    "multiply": (np.multiply, "union"),
    "divide": (safe_divide, "double"),
    "pow": (np.power, "double"),
    "mod": (np.fmod, "union"),
    "max": (np.maximum, "union"),
    "min": (np.minimum, "union"),
    "lt": (np.less, "boolean"),
    "lte": (np.less_equal, "boolean"),
    "gt": (np.greater, "boolean"),
    "gte": (np.greater_equal, "boolean"),
    "eq": (np.equal, "boolean"),
    "neq": (np.not_equal, "boolean"),
    "and": (lambda a, b: (a != 0) & (b != 0), "boolean"),
    "or": (lambda a, b: (a != 0) | (b != 0), "boolean"),
    "bitwiseAnd": (as_integers(np.bitwise_and), "integer"),
    "bitwiseOr": (as_integers(np.bitwise_or), "integer"),
    "leftShift": (as_integers(np.left_shift), "integer"),
    "rightShift": (as_integers(np.right_shift), "integer"),
}
UNARY: dict[str, tuple[Callable, str]] = {
    "not": (lambda a: a == 0, "boolean"),
    "log10": (np.log10, "double"),
    "log": (np.log, "double"),
    "exp": (np.exp, "double"),
    "sqrt": (np.sqrt, "double"),
    "abs": (np.abs, "union"),
    "floor": (np.floor, "union"),
    "round": (np.round, "union"),
}
CASTS = {
    "Float": "float32",
    "Double": "float64",
    "Byte": "uint8",
    "Uint8": "uint8",
    "Int8": "int8",
    "Int16": "int16",
    "Short": "int16",
    "Uint16": "uint16",
    "Int": "int32",
    "Int32": "int32",
    "Uint32": "uint32",
    "Int64": "int64",
    "Long": "int64",
}


def result_type(rule: str, *bands: Band) -> np.dtype:
    """The pixel type of a result."""
    if rule == "union":
        return np.result_type(*(b.dtype for b in bands))
    return np.dtype({"boolean": "uint8", "integer": "int64", "double": "float64"}[rule])


def binary(operation: Callable, rule: str) -> Callable[..., Image]:
    """API reference: ee.Image.add and its like; masks intersect (guide "Masking"); metadata are not kept."""

    def compute(image1: Image, image2: Image) -> Image:
        bands = [apply(operation, (a, b), n, result_type(rule, a, b)) for a, b, n in pairs(image1, image2)]
        whose = image1 if image1.footprint is not None else image2
        return replace(image1.computed(bands), footprint=whose.footprint)

    return compute


def unary(operation: Callable, rule: str) -> Callable[..., Image]:
    """API reference: ee.Image.log10 and its like; values that are not finite are masked."""

    def compute(value: Image) -> Image:
        return value.computed([apply(operation, (b,), b.name, result_type(rule, b)) for b in value.bands])

    return compute


def cast(kind: str) -> Callable[..., Image]:
    """API reference: ee.Image.toFloat and its like."""
    dtype = np.dtype(kind)
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (-np.inf, np.inf)

    def convert(values: np.ndarray) -> np.ndarray:
        return np.clip(np.trunc(values), low, high) if dtype.kind in "iu" else values.astype(dtype).astype(float)

    def compute(value: Image) -> Image:
        return value.computed([apply(convert, (b,), b.name, dtype) for b in value.bands])

    return compute


FUNCTIONS.update({f"Image.{name}": binary(*how) for name, how in BINARY.items()})
FUNCTIONS.update({f"Image.{name}": unary(*how) for name, how in UNARY.items()})
FUNCTIONS.update({f"Image.to{name}": cast(kind) for name, kind in CASTS.items()})
FUNCTIONS.update({f"Image.{name.lower()}": cast(kind) for name, kind in CASTS.items()})
for _snake in ("bitwise_and", "bitwise_or", "left_shift", "right_shift"):
    FUNCTIONS[f"Image.{_snake}"] = FUNCTIONS["Image." + re.sub("_(.)", lambda m: m[1].upper(), _snake)]


# Masks -----------------------------------------------------------------------------------------------------------


@function("Image.updateMask")
def image_update_mask(image: Image, mask: Image) -> Image:
    """API reference: ee.Image.updateMask: where the mask is 0 or masked the image is masked; metadata stay."""
    if len(mask.bands) not in (1, len(image.bands)):
        raise EarthEngineError(f"Image.updateMask: The mask has {len(mask.bands)} bands, the image {len(image.bands)}.")
    masks = mask.bands * len(image.bands) if len(mask.bands) == 1 else mask.bands

    def masked(band: Band, by: Band) -> Band:
        def read(pixels: Pixels) -> Answer:
            (values, own), (other, there) = band.at(pixels), by.at(pixels)
            return values, np.minimum(own, np.clip(other, 0, 1) * (there > 0))

        return replace(band, read=read)

    return image.kept([masked(b, m) for b, m in zip(image.bands, masks, strict=True)])


@function("Image.selfMask")
def image_self_mask(image: Image) -> Image:
    """API reference: ee.Image.selfMask."""
    return image_update_mask(image, image)


@function("Image.mask")
def image_mask(image: Image, mask: Image | None = None) -> Image:
    """API reference: ee.Image.mask: the image's mask as an image; with a second argument as updateMask."""
    if mask is not None:
        return image_update_mask(image, mask)

    def own_mask(band: Band) -> Band:
        def read(pixels: Pixels) -> Answer:
            _, m = band.at(pixels)
            return m, np.ones(m.shape)

        return replace(band, dtype=np.dtype("float64"), read=read)

    return image.kept([own_mask(b) for b in image.bands])


@function("Image.unmask")
def image_unmask(input: Image, value: Image | None = None, sameFootprint: bool = True) -> Image:
    """API reference: ee.Image.unmask: 0 by default, within the footprint unless sameFootprint is false."""
    other = value.bands if value is not None else (constant(0),)
    if len(other) not in (1, len(input.bands)):
        raise EarthEngineError("Image.unmask: The value must have 1 band or as many as the image.")
    others = other * len(input.bands) if len(other) == 1 else other
    where = input.footprint if sameFootprint else None
    bands = [unmasked(b, o, where) for b, o in zip(input.bands, others, strict=True)]
    if sameFootprint or (value is not None and value.footprint is not None):
        return input.kept(bands)
    return replace(input, bands=tuple(bands), footprint=None)
