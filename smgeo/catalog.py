"""The features of the study in one table: name, unit, valid range, nominal revisit, and what derived ones are made of.

Further tables say where Earth Engine, STAC catalogues and files keep each. A recipe may add variables of its own (its `variables`
block); those are `Feature`s too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["dynamic", "static", "calendar", "target"]
# Applied to a raw number after scale and offset: linear power to dB; Landsat 8 radiance to kelvin.
Conversion = Literal["none", "power_to_db", "landsat8_b10_to_kelvin", "landsat8_b11_to_kelvin"]


@dataclass(frozen=True)
class Feature:
    """One variable of a cube.

    Attributes
    ----------
    name : str
        The variable's name in every store.
    long_name : str
        Name in plain words, for axes and reports.
    units : str
        Unit after reading, as UDUNITS writes it; `"1"` for a pure number.
    kind : {"dynamic", "static", "calendar", "target"}
        `dynamic` and `target` vary in place and time, `static` in place, `calendar` in time.
    source : str
        Product from which the study takes it.
    valid_range : (float, float)
        Physically possible values, in `units`.
    revisit_days : float or None
        Nominal days between observations of one place; None if it does not vary in time.
    derived_from : tuple of str
        Names it is computed from (see `smgeo.prepare.derive`); empty if it is observed.
    cyclic : bool
        Its values are angles on a circle (aspect), which are never averaged or interpolated.
    heavy_tailed : bool
        Values far from the mean are signal (rain), so that a z-score does not make them outliers.
    looks_back_days : int
        Number of earlier days that a value is made from; 29 for a sum over 30 days.
    missing : tuple of float
        Numbers that mean missing, as files have them: before scale, offset and conversion.
    """

    name: str
    long_name: str
    units: str
    kind: Kind
    source: str
    valid_range: tuple[float, float]
    revisit_days: float | None = None
    derived_from: tuple[str, ...] = ()
    cyclic: bool = False
    heavy_tailed: bool = False
    looks_back_days: int = 0
    missing: tuple[float, ...] = ()

    def attrs(self) -> dict[str, str | float]:
        """Return the attributes of the variable in a cube."""
        attrs: dict[str, str | float] = {
            "units": self.units,
            "long_name": self.long_name,
            "source": self.source,
            "kind": self.kind,
        }
        if self.revisit_days is not None:
            attrs["revisit_days"] = self.revisit_days
        if self.heavy_tailed:
            attrs["heavy_tailed"] = 1  # NetCDF has no booleans
        return attrs


_S1 = "Sentinel-1 GRD, sigma0"
_S2 = "Sentinel-2 L2A, surface reflectance"
_L8 = "Landsat 8 TIRS, top-of-atmosphere brightness temperature"
_SOIL = "SoilGrids 250 m, 0-5 cm"
_DEM = "TanDEM-X 90 m"
_GPM = "GPM IMERG, daily sum"
_NEO = "NASA Earth Observations"
_ASPECT = "terrain aspect, clockwise from north"


def _index(name: str, long_name: str, *bands: str) -> Feature:
    return Feature(
        name, f"normalised difference {long_name} index", "1", "dynamic", "computed", (-1.0, 1.0), 5.0, bands
    )


def _rain(days: int, most: float) -> Feature:
    name, long_name = f"precipitation_{days}d", f"precipitation of {days} days"
    of, valid = ("precipitation",), (0.0, most)
    return Feature(
        name, long_name, "mm", "dynamic", "computed", valid, 1.0, of, heavy_tailed=True, looks_back_days=days - 1
    )


FEATURES: dict[str, Feature] = {
    f.name: f
    for f in (
        Feature("sm", "surface soil moisture", "m3 m-3", "target", "ISMN, TERENO", (0.0, 1.0), 1.0),
        Feature("s1_vv", "backscatter, VV", "dB", "dynamic", _S1, (-40.0, 10.0), 6.0),
        Feature("s1_vh", "backscatter, VH", "dB", "dynamic", _S1, (-50.0, 5.0), 6.0),
        Feature("s1_incidence", "incidence angle", "degree", "dynamic", _S1, (0.0, 90.0), 6.0),
        Feature("s2_b3", "reflectance, green (B3)", "1", "dynamic", _S2, (0.0, 1.5), 5.0),
        Feature("s2_b4", "reflectance, red (B4)", "1", "dynamic", _S2, (0.0, 1.5), 5.0),
        Feature("s2_b8", "reflectance, near infrared (B8)", "1", "dynamic", _S2, (0.0, 1.5), 5.0),
        Feature("s2_b11", "reflectance, short-wave infrared (B11)", "1", "dynamic", _S2, (0.0, 1.5), 5.0),
        Feature("s2_b12", "reflectance, short-wave infrared (B12)", "1", "dynamic", _S2, (0.0, 1.5), 5.0),
        Feature("l8_b10", "brightness temperature, 10.9 um (B10)", "K", "dynamic", _L8, (180.0, 360.0), 16.0),
        Feature("l8_b11", "brightness temperature, 12.0 um (B11)", "K", "dynamic", _L8, (180.0, 360.0), 16.0),
        Feature("precipitation", "precipitation", "mm d-1", "dynamic", _GPM, (0.0, 1500.0), 1.0, heavy_tailed=True),
        Feature("temperature", "land-surface temperature", "degC", "dynamic", _NEO, (-80.0, 80.0), 1.0),
        Feature("sand", "sand fraction", "percent", "static", _SOIL, (0.0, 100.0)),
        Feature("silt", "silt fraction", "percent", "static", _SOIL, (0.0, 100.0)),
        Feature("clay", "clay fraction", "percent", "static", _SOIL, (0.0, 100.0)),
        Feature("texture_sand", "sand fraction of the topsoil texture", "percent", "static", "ISRIC", (0.0, 100.0)),
        Feature("elevation", "terrain elevation", "m", "static", _DEM, (-500.0, 9000.0)),
        Feature("slope", "terrain slope", "degree", "static", _DEM, (0.0, 90.0), None, ("elevation",)),
        Feature("aspect", _ASPECT, "degree", "static", _DEM, (0.0, 360.0), None, ("elevation",), cyclic=True),
        Feature("doy_sin", "sine of the day of year", "1", "calendar", "computed", (-1.0, 1.0), None, ("time",)),
        Feature("doy_cos", "cosine of the day of year", "1", "calendar", "computed", (-1.0, 1.0), None, ("time",)),
        Feature("day_of_year", "day of year", "d", "calendar", "computed", (1.0, 366.0), None, ("time",)),
        Feature(
            "s1_cross_ratio", "cross ratio VH/VV", "dB", "dynamic", "computed", (-30.0, 10.0), 6.0, ("s1_vv", "s1_vh")
        ),
        _index("ndvi", "vegetation", "s2_b8", "s2_b4"),
        _index("ndmi", "moisture", "s2_b8", "s2_b11"),
        _rain(3, 3000.0),
        _rain(7, 5000.0),
        _rain(30, 9000.0),
        Feature("lat", "latitude", "degrees_north", "static", "computed", (-90.0, 90.0), None, ("latitude",)),
        Feature("lon", "longitude", "degrees_east", "static", "computed", (-180.0, 180.0), None, ("longitude",)),
        Feature("soil_temperature", "soil temperature", "degC", "dynamic", "ISMN, TERENO", (-60.0, 60.0), 1.0),
    )
}

# The 27 features of the study, in its order; the other rows of the table are optional.
_MORE = ("sm", "day_of_year", "lat", "lon", "soil_temperature")
STUDY_FEATURES: tuple[str, ...] = tuple(n for n in FEATURES if n not in _MORE)

# Coordinates of every cube, from which features may be derived.
COORDINATES = ("time", "latitude", "longitude")

# A station's own mean of the target, learned from its training days: a feature of models that are split in time.
TARGET_MEAN = "target_mean"

# Attribute that names what the numbers of a variable refer to; numbers of two references are not comparable.
_REFERENCE_ATTRS = {
    "elevation": "vertical_datum",
    "s1_incidence": "incidence_angle",
    "s1_vv": "backscatter",
    "s1_vh": "backscatter",
}
EGM2008, EGM96, ELLIPSOID = "EGM2008 geoid", "EGM96 geoid", "WGS84 ellipsoid"


def reference_attr(name: str) -> str:
    """Return the attribute that names what a variable refers to: a vertical datum, an angle, or a kind of backscatter.

    >>> reference_attr("elevation"), reference_attr("canopy_height")
    ('vertical_datum', 'refers_to')
    """
    return _REFERENCE_ATTRS.get(name, "refers_to")


@dataclass(frozen=True)
class Mask:
    """Pixels to mask, by a quality band of the same scene.

    Attributes
    ----------
    bits : tuple of int
        Masked where one of these bits is set.
    fields : tuple of (first bit, last bit, least value)
        Masked where the number in these bits is at least the least value (confidence fields).
    classes : tuple of int
        Masked where the band has one of these values.
    """

    bits: tuple[int, ...] = ()
    fields: tuple[tuple[int, int, int], ...] = ()
    classes: tuple[int, ...] = ()


MASKS: dict[str, Mask] = {
    # Landsat Collection 1 Level-1 BQA (USGS LSDS-1656): 0 fill, 4 cloud, 5-6 cloud confidence, 7-8 shadow, 9-10 snow
    # and ice, 11-12 cirrus; confidence 3 is high (66-100 %).
    "landsat_c1": Mask(bits=(0, 4), fields=((7, 8, 3), (11, 12, 3))),
    # Landsat Collection 2 QA_PIXEL (USGS LSDS-1619): 0 fill, 1 dilated cloud, 2 cirrus, 3 cloud, 4 cloud shadow.
    "landsat_c2": Mask(bits=(0, 1, 2, 3, 4)),
    # Sentinel-2 L2A scene classification: 0 no data, 1 saturated, 3 cloud shadow, 8 and 9 cloud, 10 cirrus.
    "s2_scl": Mask(classes=(0, 1, 3, 8, 9, 10)),
    # MODIS MOD11A1 QC: mandatory bits 0-1, 2 and 3: not produced.
    "modis_lst": Mask(fields=((0, 1, 2),)),
}


@dataclass(frozen=True)
class EarthEngineBand:
    """The band of Google Earth Engine that gives a feature.

    Attributes
    ----------
    asset : str
        Image or ImageCollection ID.
    band : str
        Band name.
    scale, offset : float
        Feature = band * scale + offset.
    image : bool
        The asset is one image; otherwise a collection.
    daily : {"mean_power", "clearest", "mean", "mosaic"}
        How the images of one UTC day become one value: mean in linear power, the clearest, the mean, or (static) the
        first tile that has a value.
    mask : str
        Quality rule applied before that (see `smgeo.sources.earthengine.reader`); empty for none.
    note : str
        Product that it replaces, if it is not the one the study used.
    pixel_m : float
        Width of its own pixels in metres; of grids in degrees, at the equator.
    images_a_day : int or None
        Images a day of products that cover the globe; None if the orbit decides which days have images of a place.
    refers_to : str
        What its numbers refer to (see `reference_attr`); empty if that is clear.
    """

    asset: str
    band: str
    scale: float = 1.0
    offset: float = 0.0
    image: bool = False
    daily: Literal["mean_power", "clearest", "mean", "mosaic"] = "mean"
    mask: str = ""
    note: str = ""
    pixel_m: float = 10.0
    images_a_day: int | None = None
    refers_to: str = ""


def _s1(
    band: str, refers_to: str, daily: Literal["mean_power", "mean"] = "mean_power", pixel_m: float = 10.0
) -> EarthEngineBand:
    mask = "IW mode, both polarisations, one orbit direction"
    return EarthEngineBand("COPERNICUS/S1_GRD", band, daily=daily, mask=mask, pixel_m=pixel_m, refers_to=refers_to)


def _s2(band: str, pixel_m: float) -> EarthEngineBand:
    # The harmonised collection has the offset of -1000 of baseline 04.00 already applied.
    return EarthEngineBand(
        "COPERNICUS/S2_SR_HARMONIZED", band, 1e-4, daily="clearest", mask="cloud score+ cs >= 0.60", pixel_m=pixel_m
    )


def _l8(band: str) -> EarthEngineBand:
    # Measured at 100 m, delivered at 30 m.
    return EarthEngineBand("LANDSAT/LC08/C02/T1_TOA", band, daily="clearest", mask="QA_PIXEL, landsat_c2", pixel_m=30.0)


def _soil(part: str) -> EarthEngineBand:
    return EarthEngineBand(
        f"projects/soilgrids-isric/{part}_mean", f"{part}_0-5cm_mean", 0.1, image=True, daily="mosaic", pixel_m=250.0
    )


_GLO30 = "Copernicus GLO-30 (made from TanDEM-X) for TanDEM-X 90 m"


def _dem(note: str) -> EarthEngineBand:
    # 1 arc second.
    return EarthEngineBand("COPERNICUS/DEM/GLO30", "DEM", daily="mosaic", note=note, pixel_m=30.9)


EARTHENGINE: dict[str, EarthEngineBand] = {
    "s1_vv": _s1("VV", "sigma0"),
    "s1_vh": _s1("VH", "sigma0"),
    # On the sparse grid of the product's tie points, so that it is interpolated on every grid of interest.
    "s1_incidence": _s1("angle", "ellipsoid", "mean", 15_000.0),
    "s2_b3": _s2("B3", 10.0),
    "s2_b4": _s2("B4", 10.0),
    "s2_b8": _s2("B8", 10.0),
    "s2_b11": _s2("B11", 20.0),
    "s2_b12": _s2("B12", 20.0),
    "l8_b10": _l8("B10"),
    "l8_b11": _l8("B11"),
    # mm h-1 in 48 images a day: the mean of all 48 times 24 h.
    "precipitation": EarthEngineBand(
        "NASA/GPM_L3/IMERG_V07", "precipitation", 24.0, daily="mean", pixel_m=11_132.0, images_a_day=48
    ),
    "temperature": EarthEngineBand(
        "MODIS/061/MOD11A1",
        "LST_Day_1km",
        0.02,
        -273.15,
        mask="QC_Day, modis_lst",
        note="MODIS Terra day-time land-surface temperature for NASA Earth Observations, which is made from it",
        pixel_m=926.6,
        images_a_day=1,
    ),
    "sand": _soil("sand"),
    "silt": _soil("silt"),
    "clay": _soil("clay"),
    "texture_sand": EarthEngineBand(
        "OpenLandMap/SOL/SOL_SAND-WFRACTION_USDA-3A1A1A_M/v02",
        "b0",
        image=True,
        daily="mosaic",
        note="OpenLandMap sand fraction at 0 cm for ISRIC's texture of sand",
        pixel_m=250.0,
    ),
    "elevation": replace(_dem(_GLO30), refers_to=EGM2008),
    "slope": _dem(f"{_GLO30}; Horn 1981"),
    "aspect": _dem(f"{_GLO30}; Horn 1981"),
}


@dataclass(frozen=True)
class StacBand:
    """The assets of STAC catalogues that give a feature.

    Attributes
    ----------
    collection : str
        Collection ID, as Planetary Computer and Earth Search write it.
    assets : tuple of str
        Asset keys of it, in the order in which they are tried.
    scale, offset : float
        Used if the item itself gives none (`raster:bands`).
    nodata : float or None
        Missing value, if the item gives none; None takes the file's tag.
    conversion : str
        Applied after scale and offset.
    quality : tuple of str
        Asset keys of the quality band.
    mask : str
        Its rule in `MASKS`; empty for none.
    note : str
        Product that it replaces, if it is not the one the study used.
    """

    collection: str
    assets: tuple[str, ...]
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    conversion: Conversion = "none"
    quality: tuple[str, ...] = ()
    mask: str = ""
    note: str = ""


def _s2_stac(*assets: str) -> StacBand:
    # The product's specification defines 0 as no data; files may lack the tag.
    return StacBand("sentinel-2-l2a", assets, 1e-4, nodata=0.0, quality=("SCL", "scl"), mask="s2_scl")


_RTC = "gamma0, terrain-corrected (RTC), for sigma0 (GRD); never mix the two in one study"

STAC: dict[str, StacBand] = {
    "s1_vv": StacBand("sentinel-1-rtc", ("vv",), conversion="power_to_db", note=_RTC),
    "s1_vh": StacBand("sentinel-1-rtc", ("vh",), conversion="power_to_db", note=_RTC),
    "s2_b3": _s2_stac("B03", "green"),
    "s2_b4": _s2_stac("B04", "red"),
    "s2_b8": _s2_stac("B08", "nir"),
    "s2_b11": _s2_stac("B11", "swir16"),
    "s2_b12": _s2_stac("B12", "swir22"),
    "l8_b10": StacBand(
        "landsat-c2-l2",
        ("lwir11", "ST_B10"),
        0.00341802,
        149.0,
        0.0,
        quality=("qa_pixel",),
        mask="landsat_c2",
        note="surface temperature (collection 2 level 2) for top-of-atmosphere brightness temperature; level 2 has no B11",
    ),
    "elevation": StacBand("cop-dem-glo-30", ("data",), note=_GLO30),
}


@dataclass(frozen=True)
class FileBand:
    """The layout of a feature in files of the published product, as recipes need it."""

    product: str
    layout: str
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    mask: str = ""


def _l8_file(conversion: Conversion) -> FileBand:
    layout = f"geotiff, a file a band; convert: {conversion}"
    return FileBand("Landsat 8 level 1", layout, 3.342e-4, 0.1, 0.0, "landsat_c1, landsat_c2")


_S1_FILE = FileBand(
    "Sentinel-1 GRD or RTC, processed to GeoTIFF", "geotiff; in dB, or linear with convert: power_to_db"
)
_S2_LAYOUT = "geotiff; offset -0.1 from baseline 04.00 on"
_S2_FILE = FileBand("Sentinel-2 L2A, GeoTIFF or JPEG2000 per band", _S2_LAYOUT, 1e-4, 0.0, 0.0, "s2_scl")
_SOILGRIDS_FILE = FileBand("SoilGrids 2.0", "geotiff or VRT in Homolosine (ESRI:54052), g kg-1", 0.1, 0.0, -32768.0)
_TANDEM_FILE = FileBand("TanDEM-X 90 m DEM, DLR", "geotiff tiles of 1 degree, float32, EPSG:4326", 1.0, 0.0, -32767.0)

FILES: dict[str, FileBand] = {
    **dict.fromkeys(("s1_vv", "s1_vh", "s1_incidence"), _S1_FILE),
    **dict.fromkeys(("s2_b3", "s2_b4", "s2_b8", "s2_b11", "s2_b12"), _S2_FILE),
    "l8_b10": _l8_file("landsat8_b10_to_kelvin"),
    "l8_b11": _l8_file("landsat8_b11_to_kelvin"),
    "precipitation": FileBand(
        "GPM IMERG final daily (GPM_3IMERGDF)",
        "netcdf; variable precipitation (time, lon, lat), mm d-1",
        nodata=-9999.9,
    ),
    "temperature": FileBand("NEO land-surface temperature", "geotiff or csv_grid, degC", nodata=99999.0),
    **dict.fromkeys(("sand", "silt", "clay", "texture_sand"), _SOILGRIDS_FILE),
    "elevation": _TANDEM_FILE,
    **dict.fromkeys(("slope", "aspect"), FileBand("computed from elevation", "Horn 1981")),
}
