"""Colours for soil moisture, from sand to deep blue, in steps that look equal."""

from __future__ import annotations

from functools import cache

import numpy as np
from matplotlib.colors import ListedColormap
from scipy.interpolate import PchipInterpolator

# CIELAB (L*, a*, b*, D65) of dry sand, ochre, sage, steel and wet navy. Lightness decreases throughout, and hue goes from yellow to blue,
# which people with red-green colour blindness can distinguish.
_STOPS = np.array(
    [[93.0, 1.0, 18.0], [76.0, 5.0, 38.0], [60.0, -9.0, 14.0], [41.0, -9.0, -22.0], [20.0, 8.0, -36.0]], dtype="float64"
)
_COLOURS, _STEPS = 256, 4096
_WHITE = np.array([0.95047, 1.0, 1.08883])
# IEC 61966-2-1 (sRGB), from CIE XYZ.
_TO_RGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)


@cache
def soil_moisture() -> ListedColormap:
    """Return the colour map, from dry to wet. Equal steps are equally far apart in CIELAB (1976); missing values are transparent."""
    path = PchipInterpolator(np.arange(len(_STOPS)), _STOPS)(np.linspace(0, len(_STOPS) - 1, _STEPS))
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    even = np.interp(np.linspace(0, length[-1], _COLOURS), length, np.arange(_STEPS))
    lab = np.stack([np.interp(even, np.arange(_STEPS), column) for column in path.T], axis=1)
    return ListedColormap(_rgb_of_lab(lab), name="soil_moisture")


def _rgb_of_lab(lab: np.ndarray) -> np.ndarray:
    """Convert CIELAB (n, 3) to sRGB between 0 and 1 (CIE 15:2004; IEC 61966-2-1)."""
    y = (lab[:, 0] + 16) / 116
    f = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _WHITE
    linear = np.clip(xyz @ _TO_RGB.T, 0, 1)
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))
