"""Products of Earth Engine: the features of a source, grouped by the image or collection that contains their bands."""

from __future__ import annotations

from dataclasses import dataclass, replace

from smgeo.catalog import EARTHENGINE, EarthEngineBand
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import EarthEngineSource
from smgeo.sources.pixels.warp import suited_to_ratio

# A place is no farther from the centre of its pixel than this share of the pixel's width.
CORNER = 0.7072

S1, S2 = "COPERNICUS/S1_GRD", "COPERNICUS/S2_SR_HARMONIZED"
L8, MODIS = "LANDSAT/LC08/C02/T1_TOA", "MODIS/061/MOD11A1"
# Measures of how clear an image is: a band of it (the greatest wins), or a property (the smallest wins).
_QUALITY_BAND = {S2: "cs"}
_QUALITY_PROPERTY = {L8: "CLOUD_COVER"}
# Runs of IMERG by the property `status` of an image: a provisional one is of the late run, until the final run replaces it.
RUNS = {"NASA/GPM_L3/IMERG_V07": {"permanent": "final", "provisional": "late"}}


@dataclass(frozen=True)
class Band:
    """A band as it is fetched; `power`: requested in dB, kept in linear power until the day's value is made."""

    name: str
    pixel_m: float
    power: bool = False
    resampling: str = "nearest"
    ratio: float = 1.0


@dataclass(frozen=True)
class Product:
    """One image or collection, and the bands to fetch of it. `daily` as in the catalogue."""

    asset: str
    bands: tuple[Band, ...]
    daily: str
    image: bool = False
    images_a_day: int | None = None
    orbit: str | None = None
    masked: bool = True

    @property
    def static(self) -> bool:
        """True if it does not vary in time."""
        return self.daily == "mosaic"

    @property
    def names(self) -> list[str]:
        """The names of its bands, in order."""
        return [b.name for b in self.bands]

    @property
    def runs(self) -> dict[str, str]:
        """The run that made an image, by its property `status`; empty for products without runs."""
        return RUNS.get(self.asset, {})

    def footprint_m(self, radius_m: float | None) -> float | None:
        """Return the radius of a station's disc; None (the station's own pixel) if the disc may miss the centres of all pixels."""
        finest = min(b.pixel_m for b in self.bands)
        return radius_m if radius_m is not None and radius_m >= CORNER * finest else None

    @property
    def quality_band(self) -> str | None:
        """The band whose greatest value marks the clearest image of a day; None if there is none."""
        return _QUALITY_BAND.get(self.asset) if self.daily == "clearest" else None

    @property
    def quality_property(self) -> str | None:
        """The property whose smallest value marks the clearest image of a day; None if there is none."""
        return _QUALITY_PROPERTY.get(self.asset) if self.daily == "clearest" else None


def list_products(source: EarthEngineSource, pixel_m: float | None) -> tuple[Product, ...]:
    """Return the products of a source, each band once; slope and aspect need the band of elevation.

    Parameters
    ----------
    source : EarthEngineSource
        Spec of the source.
    pixel_m : float or None
        Width of the target's pixels in metres; None at stations, where nothing is resampled.

    Raises
    ------
    SmgeoError
        If a product cannot have the requested daily rule.
    """
    found: dict[str, Product] = {}
    for name, feature in source.bands.items():
        entry = EARTHENGINE[feature]
        rule = _daily(source.daily, entry, name)
        band = _resampled(Band(entry.band, entry.pixel_m, entry.daily == "mean_power"), source.resampling, pixel_m)
        product = found.setdefault(
            entry.asset, Product(entry.asset, (), rule, entry.image, entry.images_a_day, source.orbit, source.mask)
        )
        if band not in product.bands:
            found[entry.asset] = replace(product, bands=(*product.bands, band))
    return tuple(found.values())


def _daily(asked: str, entry: EarthEngineBand, name: str) -> str:
    own = "mean" if entry.daily == "mean_power" else entry.daily
    if asked == "auto" or own == "mosaic" or asked == own:
        return own
    if asked == "mean":
        return "mean"
    raise SmgeoError(
        f"earthengine: daily: {asked} is not available for {name} ({entry.asset}), whose rule is {own}; leave daily out, or "
        "move this variable to a source of its own"
    )


def _resampled(band: Band, asked: str, pixel_m: float | None) -> Band:
    if pixel_m is None:
        return band
    ratio = pixel_m / band.pixel_m
    return replace(band, resampling=suited_to_ratio(ratio) if asked == "auto" else asked, ratio=ratio)
