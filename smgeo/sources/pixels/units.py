"""Names of units in raster files, translated to those of the catalogue."""

from __future__ import annotations

import re

# Written as `_spelled` returns them. A kilogram of water on a square metre is a millimetre.
_SYNONYMS = {
    "mm d-1": ("mm/d", "kg m-2 d-1", "kg/m2/d", "kg/(m2 d)"),
    "mm h-1": ("mm/h", "kg m-2 h-1", "kg/m2/h", "kg/(m2 h)"),
    "mm s-1": ("mm/s", "kg m-2 s-1", "kg/m2/s", "kg/(m2 s)"),
    "m d-1": ("m/d",),
    "m s-1": ("m/s",),
    "mm": ("millimetre", "millimetres", "millimeter", "millimeters", "kg m-2", "kg/m2"),
    "degC": ("C", "celsius", "deg C", "degree_Celsius", "degrees_Celsius", "degreeC", "degrees C", "°C"),
    "dB": ("decibel", "decibels"),
    "K": ("kelvin", "degK", "deg K", "degrees K"),
    "percent": ("%",),
    "1": ("", "-", "unitless", "dimensionless", "none"),
    "m3 m-3": ("m3/m3", "cm3/cm3", "cm3 cm-3"),
    "m": ("metre", "metres", "meter", "meters"),
    "degree": ("degrees", "deg"),
}
_OF_RATES = ", and daily: mean if a day has several times"
_HINTS = {
    ("K", "degC"): "set offset: {%s: -273.15}",
    ("degC", "K"): "set offset: {%s: 273.15}",
    ("mm s-1", "mm d-1"): f"set scale: {{%s: 86400}}{_OF_RATES}",
    ("mm h-1", "mm d-1"): f"set scale: {{%s: 24}}{_OF_RATES}",
    ("m d-1", "mm d-1"): "set scale: {%s: 1000}",
    ("m s-1", "mm d-1"): f"set scale: {{%s: 86400000}}{_OF_RATES}",
    ("percent", "m3 m-3"): "set scale: {%s: 0.01}",
    ("percent", "1"): "set scale: {%s: 0.01}",
}
_TIMES = ((r"\bdays?\b", "d"), (r"\b(hours?|hr|hrs)\b", "h"), (r"\b(seconds?|sec)\b", "s"))


def _spelled(text: str) -> str:
    """Return a unit in lower case, without signs of powers and products, and with short names of times."""
    text = text.strip().lower().replace("**", "").replace("^", "").replace(".", " ")
    for pattern, short in _TIMES:
        text = re.sub(pattern, short, text)
    return text


_CANONICAL = {_spelled(s): unit for unit, names in _SYNONYMS.items() for s in (unit, *names)}


def known_unit(text: str) -> str:
    """Return the catalogue's name of a unit, or the text itself if the unit is unknown.

    >>> known_unit("Metre"), known_unit("kg m**-2 day**-1"), known_unit("furlong")
    ('m', 'mm d-1', 'furlong')
    """
    return _CANONICAL.get(_spelled(text), text.strip())


def conversion_in_words(found: str, wanted: str) -> str:
    """Return what a recipe sets to convert one unit to another, with `%s` for the variable's name.

    >>> conversion_in_words("kelvin", "degC")
    'set offset: {%s: -273.15}'
    """
    return _HINTS.get((known_unit(found), wanted), "convert it with scale and offset")
