"""Texture classes of soils."""

from __future__ import annotations

import numpy as np

CLASSES = (
    "sand",
    "loamy sand",
    "sandy loam",
    "loam",
    "silt loam",
    "silt",
    "sandy clay loam",
    "clay loam",
    "silty clay loam",
    "sandy clay",
    "silty clay",
    "clay",
)


def classify_texture(sand: np.ndarray, silt: np.ndarray, clay: np.ndarray) -> np.ndarray:
    """Return USDA texture classes (Soil Survey Manual, USDA Handbook 18, 2017, chapter 3).

    Parameters
    ----------
    sand, silt, clay : numpy.ndarray
        Percent by mass, all of one shape. They are scaled to a sum of 100, because layers that were interpolated one by one do not have it.

    Returns
    -------
    numpy.ndarray of object
        The class; "" if one of the three is missing or all are 0.

    Examples
    --------
    >>> classify_texture(np.array([40.0, 10.0, 90.0]), np.array([40.0, 30.0, 5.0]), np.array([20.0, 60.0, 5.0])).tolist()
    ['loam', 'clay', 'sand']
    """
    sand, silt, clay = (np.asarray(v, dtype="float64") for v in (sand, silt, clay))
    total = sand + silt + clay
    known = np.isfinite(total) & (total > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        sand, silt, clay = (np.where(known, 100 * v / total, np.nan) for v in (sand, silt, clay))
        conditions = [
            silt + 1.5 * clay < 15,
            (silt + 1.5 * clay >= 15) & (silt + 2 * clay < 30),
            (silt + 2 * clay >= 30) & (((clay >= 7) & (clay < 20) & (sand > 52)) | ((clay < 7) & (silt < 50))),
            (clay >= 7) & (clay < 27) & (silt >= 28) & (silt < 50) & (sand <= 52),
            (silt >= 50) & (((clay >= 12) & (clay < 27)) | ((silt < 80) & (clay < 12))),
            (silt >= 80) & (clay < 12),
            (clay >= 20) & (clay < 35) & (silt < 28) & (sand > 45),
            (clay >= 27) & (clay < 40) & (sand > 20) & (sand <= 45),
            (clay >= 27) & (clay < 40) & (sand <= 20),
            (clay >= 35) & (sand > 45),
            (clay >= 40) & (silt >= 40),
            (clay >= 40) & (sand <= 45) & (silt < 40),
        ]
    return np.select(conditions, np.array(CLASSES, dtype=object), default="")
