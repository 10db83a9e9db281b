"""Specs of maps, and of the report's pictures of the grid cube."""

from __future__ import annotations

import datetime as dt
from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from smgeo.recipe.spec import Spec

# Layers of a map that tell of the area of applicability, besides its flag; see `smgeo.predict_map`.
DISSIMILARITY, DENSITY, EXPECTED_ERROR = "dissimilarity", "local_point_density", "expected_error"
MapLayer: TypeAlias = Literal["dissimilarity", "local_point_density", "expected_error"]


class MapSpec(Spec):
    """Days to map, models to map with, and the region: (left, bottom, right, top) in the grid's CRS, or a polygon file.

    `layers` tell more of the models' area of applicability, which the recipe then has to ask for.
    """

    dates: tuple[dt.date, ...] = Field(min_length=1)
    models: tuple[str, ...] | None = None
    region: tuple[float, float, float, float] | str | None = None
    layers: tuple[MapLayer, ...] = ()


class ReportSpec(Spec):
    """Pictures of the grid cube in the report.

    `rgb`: variables drawn as red, green and blue, on `dates` (by default the days with the most pixels). `series`: variables
    whose daily means are drawn, over the grid or over the polygons of the vector file `outline`.
    """

    rgb: tuple[str, str, str] | None = None
    dates: tuple[dt.date, ...] = ()
    series: tuple[str, ...] = ()
    outline: str | None = None

    @model_validator(mode="after")
    def _shows_something(self) -> ReportSpec:
        if self.rgb is None and not self.series:
            raise ValueError("give rgb: [red, green, blue], series: [variable, ...], or both")
        if self.dates and self.rgb is None:
            raise ValueError("dates are the days of rgb, which is not given")
        return self
