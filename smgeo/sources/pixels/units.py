"""Names of units in raster files, translated to those of the catalogue."""

from __future__ import annotations

_SYNONYMS = {
    "mm d-1": ("mm/day", "mm/d", "mm day-1", "mm day^-1", "mm d^-1"),
    "degC": ("C", "celsius", "deg C", "degree_Celsius", "degrees_Celsius", "degreeC", "degrees C", "°C"),
    "dB": ("decibel", "decibels"),
    "K": ("kelvin", "degK", "deg K", "degrees K"),
    "percent": ("%",),
    "1": ("", "-", "unitless", "dimensionless", "none"),
    "m3 m-3": ("m3/m3", "m^3 m^-3", "m**3 m**-3", "m^3/m^3", "m3.m-3", "cm3/cm3", "cm**3/cm**3", "cm^3/cm^3"),
    "m": ("metre", "metres", "meter", "meters"),
    "degree": ("degrees", "deg"),
}
_CANONICAL = {s.lower(): unit for unit, names in _SYNONYMS.items() for s in (unit, *names)}


def known_unit(text: str) -> str:
    """Return the catalogue's name of a unit, or the text itself if the unit is unknown.

    >>> known_unit("Metre"), known_unit("mm/day"), known_unit("furlong")
    ('m', 'mm d-1', 'furlong')
    """
    return _CANONICAL.get(text.strip().lower(), text.strip())
