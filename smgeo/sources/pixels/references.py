"""References of heights, angles and backscatter in a file, by its CRS and by the names that products give files and bands."""

from __future__ import annotations

import re
from collections.abc import Iterable

from odc.geo.geobox import GeoBox
from pyproj import CRS

from smgeo.catalog import EGM96, EGM2008, ELLIPSOID
from smgeo.errors import SmgeoError
from smgeo.sources.pixels.warp import crs_text

_HEIGHTS = (
    # DLR, TanDEM-X 90 m and 30 m (EDEM): ellipsoidal heights.
    (ELLIPSOID, r"TDM1_|TanDEM"),
    (EGM2008, r"Copernicus_DSM|cop-?dem|GLO-?(?:30|90)"),
    (EGM96, r"SRTM|NASADEM|AW3D|ALPSMLC|ASTGTM|^[NS]\d{2}[EW]\d{3}\.hgt"),
)
_BACKSCATTER = (("gamma0", r"gamma_?0|gamma_?nought|[_-]RTC"), ("sigma0", r"sigma_?0|sigma_?nought"))
# ESA SNAP names its bands localIncidenceAngle, projectedLocalIncidenceAngle and incidenceAngleFromEllipsoid.
_NAMES = {
    "elevation": _HEIGHTS,
    "s1_incidence": (("local", r"local"), ("ellipsoid", r"ellipsoid")),
    "s1_vv": _BACKSCATTER,
    "s1_vh": _BACKSCATTER,
}


# Variables whose files may say what their numbers refer to.
NAMED = frozenset(_NAMES)


def known_reference(variable: str, names: Iterable[str], box: GeoBox) -> str:
    """Return what a variable of a file refers to, or nothing if neither its CRS nor a name says it.

    Parameters
    ----------
    variable : str
        Name in the catalogue.
    names : iterable of str
        Names of the file and of the band.
    box : odc.geo.geobox.GeoBox
        Grid of the file; its CRS may have a vertical part.
    """
    if variable == "elevation" and (datum := _vertical_datum(box)):
        return datum
    text = list(names)
    for reference, pattern in _NAMES.get(variable, ()):
        if any(re.search(pattern, name, re.IGNORECASE) for name in text):
            return reference
    return ""


def _vertical_datum(box: GeoBox) -> str:
    """Return the vertical datum of a CRS: that of a compound CRS, or the ellipsoid of one with three axes."""
    crs = CRS.from_user_input(crs_text(box))
    heights = [part.name for part in crs.sub_crs_list if part.is_vertical]
    if heights:
        return heights[0].replace(" height", " geoid")
    return ELLIPSOID if len(crs.axis_info) == 3 else ""


def one_reference(found: dict[str, str], variable: str, label: str) -> str:
    """Return the one reference of a variable's files; nothing if none is known.

    Parameters
    ----------
    found : dict of str to str
        Reference -> a file or item that has it.
    variable, label : str
        For the message.

    Raises
    ------
    SmgeoError
        If there are two: their numbers are not comparable.
    """
    known = {reference: name for reference, name in found.items() if reference}
    if len(known) > 1:
        listed = ", ".join(f"{reference} ({name})" for reference, name in known.items())
        raise SmgeoError(
            f"{label}: {variable} would mix values that refer to {listed}, which are not comparable; read one of them, or convert "
            f"the files and set refers_to: {{{variable}: ...}}"
        )
    return next(iter(known), "")
