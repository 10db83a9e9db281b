"""Layers of one scene: their files, the scale of their numbers, and the pixels that their quality band leaves out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox

from smgeo.catalog import Conversion, Feature, Mask
from smgeo.sources.pixels.gate import screen
from smgeo.sources.pixels.observation import Observation
from smgeo.sources.pixels.warp import aligned_shift, look_up, resample
from smgeo.sources.scenes.files import Header, file_state, read_header, read_mask, read_window

# Landsat 8 TIRS, K1 in W m-2 sr-1 um-1 and K2 in K: Landsat 8 Data Users Handbook (USGS LSDS-1574), table of thermal
# constants; the brightness temperature is K2 / ln(K1 / L + 1).
_TIRS = {"landsat8_b10_to_kelvin": (774.8853, 1321.0789), "landsat8_b11_to_kelvin": (480.8883, 1201.1442)}
_SAMPLE = (128, 512)  # rows and columns of the part of a scene that shows its unit
_ENOUGH = 16  # values that show it; another part is read if one has fewer
# Middle of these parts, as shares of the scene's rows and columns.
_MIDDLES = ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))


@dataclass(frozen=True)
class Layer:
    """One variable of one scene: its file, and the scale of its numbers.

    Attributes
    ----------
    href : str
        A file's path or URL.
    band : int
        Its band, from 1.
    nodata, scale, offset : float, optional
        Values of the recipe or the catalogue; None for the file's own tags.
    convert : str
        Conversion after scale and offset.
    """

    href: str
    band: int = 1
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    convert: Conversion = "none"


@dataclass(frozen=True)
class Scene:
    """The layers of one place on one day.

    Attributes
    ----------
    name : str
        For messages, and the order of scenes that are as clear as each other.
    day : pandas.Timestamp or None
        UTC day; None for static layers.
    layers : tuple of (str, Layer)
        Its variables.
    box : GeoBox
        The grid of its first layer, which decides the blocks and stations it touches.
    quality : Layer, optional
        Band of flags; `mask` defines which of them leave a pixel out.
    mask : Mask, optional
        See `quality`.
    cloud : float
        Share of cloud, or another order of the scenes of a day: the least is the clearest.
    state : hashable
        Identifies the content (size and time of change of the files).
    """

    name: str
    day: pd.Timestamp | None
    layers: tuple[tuple[str, Layer], ...]
    box: GeoBox
    quality: Layer | None = None
    mask: Mask | None = None
    cloud: float = 0.0
    state: Hashable = None


def clip_window(
    shift: tuple[int, int], shape: tuple[int, int], own: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the window of a file that a block on the same pixels covers, or None."""
    (r0, r1), (c0, c1) = ((max(0, s), min(n, s + size)) for s, size, n in zip(shift, shape, own, strict=True))
    return ((r0, r1), (c0, c1)) if r0 < r1 and c0 < c1 else None


def read_layers(
    scene: Scene,
    header: Header,
    layers: Sequence[tuple[str, Layer]],
    features: Mapping[str, Feature],
    window: tuple[tuple[int, int], tuple[int, int]],
    pixels: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[tuple[str, Observation]]:
    """Return the layers of one file in a window: float32, NaN where masked or missing, in the cube's units or linear power.

    Values that are infinite or outside their feature's valid range are missing, and are counted where they are not masked.

    With `pixels` (rows and columns of the window), only their values.
    """
    found = _read_unscreened(scene, header, layers, features, window, pixels)
    for name, values in found:
        screen(values.values, features[name], power=values.power)
    return found


def _read_unscreened(
    scene: Scene,
    header: Header,
    layers: Sequence[tuple[str, Layer]],
    features: Mapping[str, Feature],
    window: tuple[tuple[int, int], tuple[int, int]],
    pixels: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[tuple[str, Observation]]:
    raw = read_window(header.href, [layer.band for _, layer in layers], window)
    left_out = _left_out(scene, header, window)
    if header.masked:
        outside = read_mask(header.href, window)
        left_out = outside if left_out is None else left_out | outside
    if pixels is not None:
        # Only a few of a tile's numbers are needed: the others need not be converted.
        raw = raw[:, *pixels]
        left_out = left_out[pixels] if left_out is not None else None
    out = []
    for (name, layer), numbers in zip(layers, raw, strict=True):
        found = _values(numbers, layer, header, features[name].missing)
        if left_out is not None:
            found.values[left_out] = np.nan
        out.append((name, found))
    return out


def sample_layer(scene: Scene, feature: Feature) -> Observation:
    """Return values of a layer, not yet screened: from the middle of its scene, or from around it if the middle has few."""
    layer = dict(scene.layers)[feature.name]
    header = read_header(layer.href)
    found = Observation(np.empty(0, "float32"))
    for window in dict.fromkeys(_sample_window(header.box.shape.yx, middle) for middle in _MIDDLES):
        ((_, found),) = _read_unscreened(scene, header, [(feature.name, layer)], {feature.name: feature}, window)
        # A border without a tag is 0, which backscatter in a scene is not.
        seen = np.isfinite(found.values) & ((found.values != 0) | (feature.units != "dB"))
        if np.count_nonzero(seen) >= _ENOUGH:
            break
    return found


def _sample_window(shape: tuple[int, int], middle: tuple[float, float]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the window of a sample around a place in a scene, moved inside it.

    >>> _sample_window((100, 2000), (0.5, 0.25))
    ((0, 100), (244, 756))
    """
    sides = [(min(n, s), n, share) for n, s, share in zip(shape, _SAMPLE, middle, strict=True)]
    (top, tall), (left, wide) = ((min(max(int(n * share) - size // 2, 0), n - size), size) for size, n, share in sides)
    return (top, top + tall), (left, left + wide)


def _values(numbers: np.ndarray, layer: Layer, header: Header, missing: Sequence[float] = ()) -> Observation:
    """Convert the numbers of a file to values; `missing` are further numbers that mean missing."""
    nodata = layer.nodata if layer.nodata is not None else header.nodata[layer.band - 1]
    scale = layer.scale if layer.scale is not None else header.scales[layer.band - 1]
    offset = layer.offset if layer.offset is not None else header.offsets[layer.band - 1]
    is_scaled = scale != 1 or offset != 0
    # float32 has 24 bits: it loses digits of larger whole numbers, which a scale may still need.
    values = np.array(numbers, dtype="float32" if not is_scaled or numbers.dtype.itemsize <= 2 else "float64")
    for number in (*missing, *(() if nodata is None or math.isnan(nodata) else (nodata,))):
        values[_equal(numbers, number)] = np.nan
    if is_scaled:
        values = (values * values.dtype.type(scale) + values.dtype.type(offset)).astype("float32", copy=False)
    return _convert(values, layer.convert)


def _equal(numbers: np.ndarray, nodata: float) -> np.ndarray:
    """Return where numbers are the missing value, as their type stores it; nowhere if it cannot."""
    if numbers.dtype.kind == "f":  # -3.4e38 as float64 is not a float32
        return np.asarray(numbers == np.asarray(nodata).astype(numbers.dtype))
    # -32768 turned into an unsigned number would be 32768, which is a value.
    return np.asarray(numbers == int(nodata)) if float(nodata).is_integer() else np.zeros(numbers.shape, dtype=bool)


def _convert(values: np.ndarray, convert: Conversion) -> Observation:
    if convert == "none":
        return Observation(values)
    if convert == "power_to_db":
        return Observation(values, power=True)
    k1, k2 = _TIRS[convert]
    # A radiance that is not positive is 0 K, which is outside the valid range and counted there.
    with np.errstate(divide="ignore"):
        kelvin = k2 / np.log(k1 / np.where(values <= 0, 0, values) + 1)
    return Observation(kelvin.astype("float32"))


def _left_out(scene: Scene, header: Header, window: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray | None:
    """Return the pixels of a window that the quality band leaves out, each by the flag of the quality band's pixel at it."""
    if scene.quality is None or scene.mask is None:
        return None
    crop = header.box[slice(*window[0]), slice(*window[1])]
    return _masked(scene.quality, file_state(scene.quality.href), scene.mask, crop)


# The bands of a scene follow each other, and share its flags.
@lru_cache(maxsize=8)
def _masked(quality: Layer, state: Hashable, mask: Mask, crop: GeoBox) -> np.ndarray:
    flags = read_header(quality.href)
    out = np.ones(crop.shape.yx, dtype=bool)  # outside the quality band no pixel is known to be clear
    shift = aligned_shift(crop, flags.box)
    inside = clip_window(shift, crop.shape.yx, flags.box.shape.yx) if shift is not None else None
    if shift is not None and inside is not None:
        (r0, r1), (c0, c1) = inside
        values = read_window(flags.href, [quality.band], inside)[0]
        out[r0 - shift[0] : r1 - shift[0], c0 - shift[1] : c1 - shift[1]] = is_masked(values, mask)
    elif shift is None and (found := look_up(crop, flags.box, "nearest")) is not None:
        values = is_masked(read_window(flags.href, [quality.band], found.window)[0], mask).astype("float32")
        moved = np.empty(crop.shape.yx, dtype="float32")
        resample(values, found, flags.box, moved)
        out = ~(moved == 0)
    out.flags.writeable = False
    return out


def is_masked(flags: np.ndarray, mask: Mask) -> np.ndarray:
    """Return which values of a quality band leave their pixel out; NaN and infinite values do.

    >>> is_masked(np.array([0, 1, 16, 384]), Mask(bits=(0, 4), fields=((7, 8, 3),))).tolist()
    [False, True, True, True]
    """
    out = ~np.isfinite(flags)
    # Whole numbers stay as they are stored: as int64 those of a large window would take gigabytes.
    whole = flags if flags.dtype.kind in "iu" else np.where(out, 0, flags).astype("int64")
    for bit in mask.bits:
        out |= (whole >> bit) & 1 == 1
    for first, last, least in mask.fields:
        out |= (whole >> first) & ((1 << (last - first + 1)) - 1) >= least
    if mask.classes:
        out |= np.isin(whole, mask.classes)
    return np.asarray(out)
