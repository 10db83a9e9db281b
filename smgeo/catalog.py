"""Every feature of the study in one table: name, unit, valid range, nominal revisit, and how derived ones are made.

The table is data. A recipe may add variables of its own (its `variables` block); those are `Feature`s too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["dynamic", "static", "calendar", "target"]


@dataclass(frozen=True)
class Feature:
    """One variable of a cube.

    Attributes
    ----------
    name : str
        The variable's name in every store.
    long_name : str
        Plain words, for axes and reports.
    units : str
        Unit after reading, as UDUNITS writes it; `"1"` for a pure number.
    kind : {"dynamic", "static", "calendar", "target"}
        `dynamic` and `target` vary in place and time, `static` in place, `calendar` in time.
    source : str
        Where the study takes it from.
    valid_range : (float, float)
        Physically possible values, in `units`.
    revisit_days : float or None
        Nominal days between observations of one place; None for what does not vary in time.
    derived_from : tuple of str
        Names it is computed from (see `smgeo.prepare.derive`); empty for what is observed.
    """

    name: str
    long_name: str
    units: str
    kind: Kind
    source: str
    valid_range: tuple[float, float]
    revisit_days: float | None = None
    derived_from: tuple[str, ...] = ()

    def attrs(self) -> dict[str, str | float]:
        """The attributes a cube's variable carries."""
        attrs: dict[str, str | float] = {
            "units": self.units,
            "long_name": self.long_name,
            "source": self.source,
            "kind": self.kind,
        }
        if self.revisit_days is not None:
            attrs["revisit_days"] = self.revisit_days
        return attrs


_S1 = "Sentinel-1 GRD, sigma0"
_S2 = "Sentinel-2 L2A, surface reflectance"
_L8 = "Landsat 8 TIRS, top-of-atmosphere brightness temperature"
_SOIL = "SoilGrids 250 m, 0-5 cm"
_DEM = "TanDEM-X 90 m"

FEATURES: dict[str, Feature] = {
    f.name: f
    for f in (
        Feature("sm", "surface soil moisture", "m3 m-3", "target", "ISMN, TERENO", (0.0, 1.0), 1.0),
        Feature("s1_vv", "backscatter, VV", "dB", "dynamic", _S1, (-40.0, 10.0), 6.0),
        Feature("s1_vh", "backscatter, VH", "dB", "dynamic", _S1, (-50.0, 5.0), 6.0),
        Feature("s1_incidence", "local incidence angle", "degree", "dynamic", _S1, (15.0, 60.0), 6.0),
        Feature("s2_b3", "reflectance, green (B3)", "1", "dynamic", _S2, (0.0, 1.5), 5.0),
        Feature("s2_b4", "reflectance, red (B4)", "1", "dynamic", _S2, (0.0, 1.5), 5.0),
        Feature("s2_b8", "reflectance, near infrared (B8)", "1", "dynamic", _S2, (0.0, 1.5), 5.0),
        Feature("s2_b11", "reflectance, short-wave infrared (B11)", "1", "dynamic", _S2, (0.0, 1.5), 5.0),
        Feature("s2_b12", "reflectance, short-wave infrared (B12)", "1", "dynamic", _S2, (0.0, 1.5), 5.0),
        Feature("l8_b10", "brightness temperature, 10.9 um (B10)", "K", "dynamic", _L8, (180.0, 360.0), 16.0),
        Feature("l8_b11", "brightness temperature, 12.0 um (B11)", "K", "dynamic", _L8, (180.0, 360.0), 16.0),
        Feature("precipitation", "precipitation", "mm d-1", "dynamic", "GPM IMERG, daily sum", (0.0, 1500.0), 1.0),
        Feature(
            "temperature", "land-surface temperature", "degC", "dynamic", "NASA Earth Observations", (-80.0, 80.0), 1.0
        ),
        Feature("sand", "sand fraction", "percent", "static", _SOIL, (0.0, 100.0)),
        Feature("silt", "silt fraction", "percent", "static", _SOIL, (0.0, 100.0)),
        Feature("clay", "clay fraction", "percent", "static", _SOIL, (0.0, 100.0)),
        Feature("texture_sand", "sand fraction of the topsoil texture", "percent", "static", "ISRIC", (0.0, 100.0)),
        Feature("elevation", "elevation above the geoid", "m", "static", _DEM, (-500.0, 9000.0)),
        Feature("slope", "terrain slope", "degree", "static", _DEM, (0.0, 90.0)),
        Feature("aspect", "terrain aspect, clockwise from north", "degree", "static", _DEM, (0.0, 360.0)),
        Feature("doy_sin", "sine of the day of year", "1", "calendar", "computed", (-1.0, 1.0), None, ("time",)),
        Feature("doy_cos", "cosine of the day of year", "1", "calendar", "computed", (-1.0, 1.0), None, ("time",)),
        Feature("day_of_year", "day of year", "d", "calendar", "computed", (1.0, 366.0), None, ("time",)),
        Feature(
            "s1_cross_ratio", "cross ratio VH/VV", "dB", "dynamic", "computed", (-30.0, 10.0), 6.0, ("s1_vv", "s1_vh")
        ),
        Feature(
            "ndvi",
            "normalised difference vegetation index",
            "1",
            "dynamic",
            "computed",
            (-1.0, 1.0),
            5.0,
            ("s2_b8", "s2_b4"),
        ),
        Feature(
            "ndmi",
            "normalised difference moisture index",
            "1",
            "dynamic",
            "computed",
            (-1.0, 1.0),
            5.0,
            ("s2_b8", "s2_b11"),
        ),
        Feature(
            "precipitation_3d",
            "precipitation of 3 days",
            "mm",
            "dynamic",
            "computed",
            (0.0, 3000.0),
            1.0,
            ("precipitation",),
        ),
        Feature(
            "precipitation_7d",
            "precipitation of 7 days",
            "mm",
            "dynamic",
            "computed",
            (0.0, 5000.0),
            1.0,
            ("precipitation",),
        ),
        Feature(
            "precipitation_30d",
            "precipitation of 30 days",
            "mm",
            "dynamic",
            "computed",
            (0.0, 9000.0),
            1.0,
            ("precipitation",),
        ),
        Feature("soil_temperature", "soil temperature", "degC", "dynamic", "ISMN, TERENO", (-60.0, 60.0), 1.0),
    )
}

# The 27 features of the design, in its order. `day_of_year` is in the table, and left to those who want it.
STUDY_FEATURES: tuple[str, ...] = tuple(n for n in FEATURES if n not in ("sm", "day_of_year", "soil_temperature"))
