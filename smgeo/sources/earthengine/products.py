"""What is wanted of Earth Engine: the features of a source as products, each an image or a collection with its bands."""

from __future__ import annotations

from dataclasses import dataclass, replace

from smgeo.catalog import EARTHENGINE, EarthEngineBand
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import EarthEngineSource
from smgeo.sources.pixels.warp import suited_to_ratio

# A place lies no farther from the centre of its pixel than this share of the pixel's width.
CORNER = 0.7072

S1, S2 = "COPERNICUS/S1_GRD", "COPERNICUS/S2_SR_HARMONIZED"
L8, MODIS = "LANDSAT/LC08/C02/T1_TOA", "MODIS/061/MOD11A1"
# What says how clear an image is: a band of it (the greatest wins), or a property (the smallest wins).
_QUALITY_BAND = {S2: "cs"}
_QUALITY_PROPERTY = {L8: "CLOUD_COVER"}


@dataclass(frozen=True)
class Band:
    """A band as it is fetched; `power`: asked for in dB, kept in linear power until the day's value is made."""

    name: str
    pixel_m: float
    power: bool = False
    resampling: str = "nearest"
    ratio: float = 1.0


@dataclass(frozen=True)
class Product:
    """One image or collection, and what is wanted of it. `daily` as in the catalogue."""

    asset: str
    bands: tuple[Band, ...]
    daily: str
    image: bool = False
    images_a_day: int | None = None
    orbit: str | None = None
    masked: bool = True

    @property
    def static(self) -> bool:
        """Whether it does not vary in time."""
        return self.daily == "mosaic"

    @property
    def names(self) -> list[str]:
        """Names of its bands, in order."""
        return [b.name for b in self.bands]

    def footprint_m(self, radius_m: float | None) -> float | None:
        """Radius of a station's disc; None (the pixel it lies in) where the disc may miss the centres of all pixels."""
        finest = min(b.pixel_m for b in self.bands)
        return radius_m if radius_m is not None and radius_m >= CORNER * finest else None

    @property
    def quality_band(self) -> str | None:
        """Band whose greatest value says which image of a day is the clearest; None where there is none."""
        return _QUALITY_BAND.get(self.asset) if self.daily == "clearest" else None

    @property
    def quality_property(self) -> str | None:
        """Property whose smallest value says which image of a day is the clearest; None where there is none."""
        return _QUALITY_PROPERTY.get(self.asset) if self.daily == "clearest" else None


def list_products(source: EarthEngineSource, pixel_m: float | None) -> tuple[Product, ...]:
    """The products of a source, each band once; slope and aspect need the band of elevation.

    Parameters
    ----------
    source : EarthEngineSource
        What is wanted.
    pixel_m : float or None
        Width of the target's pixels in metres; None at stations, where nothing is resampled.

    Raises
    ------
    SmgeoError
        If a daily rule is asked for that a product cannot have.
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
        f"earthengine: daily: {asked} cannot be had for {name} ({entry.asset}), whose rule is {own}; leave daily out, or "
        "put this variable into a source of its own"
    )


def _resampled(band: Band, asked: str, pixel_m: float | None) -> Band:
    if pixel_m is None:
        return band
    ratio = pixel_m / band.pixel_m
    return replace(band, resampling=suited_to_ratio(ratio) if asked == "auto" else asked, ratio=ratio)
