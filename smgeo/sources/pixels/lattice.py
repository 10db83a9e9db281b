"""Positions of the pixels of a grid whose rows and columns are not evenly spaced."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Lattice(Protocol):
    """Positions of pixels by their coordinates; hashable, and equal if the pixels are the same.

    `crs` is the CRS of the coordinates; `nearly_even` is True if evenly spaced rows and columns are close.
    """

    @property
    def crs(self) -> str:
        """The CRS of the coordinates, as text."""

    @property
    def nearly_even(self) -> bool:
        """True if a grid of evenly spaced pixels is close."""

    @property
    def heights(self) -> np.ndarray | None:
        """The relative heights of all rows, where they differ."""

    def __hash__(self) -> int: ...

    def agrees(self, other: object) -> bool:
        """Return True if another lattice has the same pixels but for rounding."""

    def find(self, xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return columns and rows of places, 0 at the left and upper edge; NaN or outside the grid where it has no pixel."""

    def centres(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of pixel centres."""
