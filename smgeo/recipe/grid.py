"""Spec of a study's grid."""

from __future__ import annotations

import math

from pydantic import Field, FiniteFloat, model_validator

from smgeo.bounds import MOST_PIXELS
from smgeo.recipe.spec import Day, Spec


class GridSpec(Spec):
    """The target grid: that of the raster `like`, or CRS with resolution and bounds (left, bottom, right, top) in units of the CRS.

    `period` limits the grid cube to fewer days than the stations have.
    """

    like: str | None = None
    crs: str | None = None
    resolution: FiniteFloat | None = Field(None, gt=0)
    bounds: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = None
    period: tuple[Day, Day] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> GridSpec:
        full = [self.crs, self.resolution, self.bounds]
        if (self.like is None) == any(v is None for v in full):
            raise ValueError("give either like: RASTER, or all of crs, resolution and bounds")
        if self.period is not None and self.period[0] > self.period[1]:
            raise ValueError(f"period ends before it begins: {self.period[0]} to {self.period[1]}")
        if self.bounds is not None and not (self.bounds[0] < self.bounds[2] and self.bounds[1] < self.bounds[3]):
            raise ValueError(f"bounds are left, bottom, right, top; got {self.bounds}")
        if self.bounds is not None and self.resolution is not None:
            width, height = self.bounds[2] - self.bounds[0], self.bounds[3] - self.bounds[1]
            if not math.isfinite(width + height):
                raise ValueError(f"bounds are too far apart; got {self.bounds}")
            if self.resolution > min(width, height):
                x, y = (math.ceil(side / self.resolution) for side in (width, height))
                raise ValueError(
                    f"resolution {self.resolution:g} is wider than the bounds, {width:g} x {height:g}: {x} x {y} pixels; "
                    f"resolution and bounds are in the units of {self.crs} (degrees for EPSG:4326)"
                )
            pixels = (width / self.resolution) * (height / self.resolution)  # may be infinite
            if pixels > MOST_PIXELS:
                raise ValueError(
                    f"resolution {self.resolution:g} makes {pixels:.2g} pixels of the bounds, {width:g} x {height:g} in the units of "
                    f"{self.crs}; at most {MOST_PIXELS:g} make a grid, so build it in parts"
                )
        return self
