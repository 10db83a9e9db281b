"""The landscape of the built-in world: regions, terrain, soils, canopies, and the parameters behind them.

Sixteen climates are side by side on one grid of 1 km pixels, as warped tiles. Distances between them are not to scale,
and neither is the latitude: each takes its sunshine from the latitude in its row of the table. Within a climate, 1 km
is 1 km.

The parameters were set from the literature and from statistics of real stations, before any model saw the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smgeo.sources.world import physics
from smgeo.sources.world.physics import Array

PIXEL_M = 1000.0
LANDSCAPE_STREAMS = ("regions", "terrain", "texture", "soil_deviation", "soil_product", "plants", "surface")


@dataclass(frozen=True)
class Region:
    """One climate with its soils, plants and network.

    Annual rain in mm, `wet` the share of rainy days, `peak` the day of most rain and `season` its relative excess
    over the mean (0 to 1); mean, half range (positive where July is warm) and day-to-day deviation of air temperature
    in degC; base elevation and relief in m; mean texture in percent; `porosity` (m3 m-3) and `outflow` as in `physics`;
    largest leaf area index; `opacity` of its canopy to radar, relative to crops and grass; `network`, its share of the
    stations relative to the others (most of ISMN is temperate: Dorigo et al. 2021).
    """

    name: str
    climate: str
    latitude: float
    rain: float
    wet: float
    peak: int
    season: float
    warmth: float
    swing: float
    weather: float
    elevation: float
    relief: float
    sand: float
    clay: float
    porosity: float
    outflow: float
    lai: float
    opacity: float
    network: float = 1.0


# Rounded values of typical places: climates after Peel et al. 2007 and Harris et al. 2020 (CRU), soils after SoilGrids
# (Poggio et al. 2021), leaf area after Asner et al. 2003; outflow by judgement: low over rock, clay, ice, groundwater.
REGIONS = tuple(
    Region(*row)
    for row in (
        ("ALPINE", "Dfc", 46.8, 1400, 0.48, 190, 0.3, 4.0, 9.0, 3.5, 1500, 320, 45, 17, 0.08, 0.30, 4.0, 1.2),
        ("ATLANTIC", "Cfb", 51.5, 900, 0.50, 350, 0.3, 10.5, 6.0, 2.8, 90, 50, 30, 24, 0.03, 0.30, 4.0, 1.0, 1.3),
        ("STEPPE", "BSk", 48.0, 330, 0.22, 180, 0.6, 5.0, 15.0, 4.0, 700, 90, 38, 24, 0.00, 0.80, 1.5, 0.8),
        ("PRAIRIE", "Dfa", 42.0, 780, 0.28, 165, 0.5, 9.0, 14.0, 4.5, 330, 40, 20, 31, 0.02, 0.40, 4.5, 1.0, 1.5),
        ("IBERIA", "Csa", 41.0, 520, 0.22, 345, 0.6, 14.0, 8.5, 2.8, 500, 170, 38, 26, -0.01, 0.70, 2.2, 0.9),
        ("DESERT", "BWh", 33.0, 150, 0.06, 20, 0.4, 20.0, 10.0, 2.8, 450, 110, 72, 11, -0.03, 1.00, 0.5, 0.7, 0.5),
        ("MONSOON", "Aw", 21.0, 1200, 0.33, 210, 0.9, 26.0, 4.5, 1.8, 300, 70, 32, 38, 0.00, 0.40, 3.5, 1.0, 0.6),
        ("SAHEL", "BSh", 13.5, 540, 0.17, 225, 0.98, 28.5, 3.0, 1.7, 260, 30, 80, 8, -0.03, 0.90, 1.8, 0.8, 0.4),
        ("BOREAL", "Dfc", 64.0, 560, 0.45, 215, 0.4, 1.5, 14.0, 4.5, 220, 60, 62, 9, 0.07, 0.40, 3.5, 2.0, 0.8),
        ("TUNDRA", "ET", 68.5, 330, 0.35, 220, 0.5, -6.0, 13.0, 4.5, 250, 80, 50, 14, 0.20, 0.05, 1.2, 0.8, 0.5),
        ("LOWLAND", "Cfb", 52.8, 730, 0.47, 200, 0.15, 9.5, 8.5, 3.3, 30, 15, 74, 7, 0.02, 0.35, 3.5, 1.0, 1.3),
        ("LOESS", "Cfb", 50.5, 600, 0.42, 190, 0.3, 9.5, 9.5, 3.3, 170, 50, 12, 22, 0.00, 0.50, 4.0, 1.0, 1.3),
        ("SUBTROPICS", "Cfa", 33.0, 1280, 0.31, 190, 0.1, 17.5, 9.5, 3.4, 120, 50, 60, 17, 0.00, 0.50, 4.5, 1.4, 1.5),
        ("DELTA", "Csa", 37.5, 420, 0.17, 15, 0.8, 16.0, 8.0, 2.4, 12, 5, 17, 46, 0.02, 0.10, 3.0, 1.0),
        ("AUSTRAL", "BSk", -34.8, 410, 0.25, 190, 0.4, 16.5, -7.5, 3.2, 130, 25, 55, 27, -0.02, 0.70, 2.0, 0.9),
        ("PLATEAU", "ETh", 31.5, 430, 0.28, 210, 0.9, 0.5, 9.5, 2.5, 4500, 250, 66, 10, 0.03, 0.60, 1.2, 0.8, 0.7),
    )
)


@dataclass(frozen=True)
class Parameters:
    """Assumptions of the world besides its regions and the constants of `physics`; written to world.json.

    The sources give the order of magnitude; the values are rounded.
    """

    rain_gamma_shape: float = 0.75  # 1; Wilks & Wilby 1999: 0.6 to 0.9
    rain_persistence: float = 0.30  # 1; lag-1 correlation of wet days, 0.2 to 0.4 in Wilks 1998
    rain_shared: float = 0.70  # share of the variance of a region's rain field common to the region (fronts)
    rain_length_px: float = 12.0  # decorrelation of daily rain, 10 to 50 km in Villarini et al. 2008
    rain_product_log_sd: float = 0.55  # 1; multiplicative error of satellite rain, Tian et al. 2013
    rain_product_region_sd: float = 0.15  # 1; regional bias, Tan et al. 2016
    rain_product_miss: float = 0.20  # 1; share of light events missed, and of false ones: Tan et al. 2016
    temperature_memory: float = 0.75  # 1; AR(1) of daily air temperature, Richardson 1981
    lapse_degc_km: float = 6.5  # degC km-1, standard atmosphere
    range_dry_degc: float = 13.0  # daily range on dry days; wet: 8 (Dai et al. 1999)
    range_wet_degc: float = 8.0
    soil_temperature_rate: float = 0.2  # d-1; damping of air temperature at 0.05 m, Zheng et al. 1993
    texture_sd: float = 11.0  # percent; within region, of sand; clay two thirds (Poggio et al. 2021)
    texture_product_sd: float = 11.0  # percent; RMSE of SoilGrids sand about 12 to 19, clay 9 to 12 (same)
    porosity_sd: float = 0.055  # m3 m-3; within a texture class, Cosby et al. 1984: 0.04 to 0.09
    log_conductivity_sd: float = 0.45  # 1; same: 0.3 to 0.7
    exponent_sd: float = 0.25  # 1, relative; same: 0.25 to 0.4
    roughness_ks: float = 1.3  # 1; heights of 1.1 cm at C band, middle of Baghdadi et al. 2016
    roughness_log_sd: float = 0.40  # 1; same, over fields
    backscatter_sd_db: float = 1.3  # dB; lasting part of the 2 dB RMSE of Baghdadi et al. 2016
    backscatter_noise_db: float = 0.4  # dB; radiometric accuracy, Sentinel-1 product definition
    looks: float = 9.0  # 1; 3 x 3 GRD pixels of 10 m are about two resolution cells (20 x 22 m) of 4.4 looks
    reflectance_noise: float = 0.01  # 1; plus 4 % of the value: accuracy target 0.005 + 5 % (Doxani et al. 2018)
    missed_clouds: float = 0.04  # share of observations under thin cloud that a mask misses, Skakun et al. 2022
    tirs_noise_k: float = 0.4  # K; TIRS calibration, Barsi et al. 2014
    lst_noise_k: float = 1.5  # K; MODIS LST, Wan 2014
    cloud_base: float = 0.30  # share of cloud in a dry climate; plus 0.6 of the share of wet days
    cloud_length_px: float = 6.0


P = Parameters()


@dataclass(frozen=True)
class Landscape:
    """Static fields, each `(y, x)`; `product` contains the static layers as a user gets them.

    `tilt` is the tangent of the slope, `sunward` a factor on sunshine, `tillage` the phase of the yearly change of
    roughness (share of a year), `rain_bias` the factor of error of the rain product.
    """

    region: Array
    elevation: Array
    tilt: Array
    sunward: Array
    soil: physics.Soil
    outflow: Array
    lai_max: Array
    opacity: Array
    brightness: Array
    roughness: Array
    backscatter_db: tuple[Array, Array]
    tillage: Array
    rain_bias: Array
    product: dict[str, Array]

    def of(self, attribute: str) -> Array:
        """Return an attribute of the regions at each of their pixels, float32."""
        return np.array([getattr(r, attribute) for r in REGIONS], np.float32)[self.region]


def _texture_fields(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return two fields of unit variance: 0.6 of it smooth over some km, the rest from pixel to pixel."""
    smooth = physics.random_fields(rng, physics.spectral_filter(shape, length=6.0))
    rough = physics.random_fields(rng, physics.spectral_filter(shape))
    first, second = (np.sqrt(0.6) * s + np.sqrt(0.4) * r for s, r in zip(smooth, rough, strict=True))
    return first, second


def _regions(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Return the index of the region of each pixel `(y, x)`: nearest of 4 x 4 shuffled, shaken centres, on warped coordinates."""
    y, x = np.meshgrid((np.arange(shape[0]) + 0.5) / shape[0], (np.arange(shape[1]) + 0.5) / shape[1], indexing="ij")
    warp_y, warp_x = physics.random_fields(rng, physics.spectral_filter(shape, length=max(shape) / 16))
    centres = (np.stack(np.divmod(np.arange(16), 4), axis=1) + 0.5 + rng.uniform(-0.15, 0.15, (16, 2))) / 4
    square = (y + 0.012 * warp_y - centres[:, 0, None, None]) ** 2 + (
        x + 0.012 * warp_x - centres[:, 1, None, None]
    ) ** 2
    return np.asarray(rng.permutation(16)[np.argmin(square, axis=0)])


def _smooth(field: Array, length: float) -> Array:
    """Return a Gaussian mean over `length` pixels, on a torus of twice the size (mirrored edges)."""
    mirrored = np.block([[field, field[:, ::-1]], [field[::-1], field[::-1, ::-1]]])
    k = np.hypot(np.fft.fftfreq(mirrored.shape[0])[:, None], np.fft.rfftfreq(mirrored.shape[1])[None, :])
    smoothed = np.fft.irfft2(np.fft.rfft2(mirrored) * np.exp(-2.0 * (np.pi * length * k) ** 2), s=mirrored.shape)
    return smoothed[: field.shape[0], : field.shape[1]].astype(np.float32)


def make_landscape(shape: tuple[int, int], rng: dict[str, np.random.Generator]) -> Landscape:
    """Make the regions, terrain, soils and canopies of `shape`."""
    region = _regions(shape, rng["regions"])

    def of(name: str, blend: float = 2.0) -> Array:
        return _smooth(np.array([getattr(r, name) for r in REGIONS], np.float32)[region], blend)

    fractal, _ = physics.random_fields(rng["terrain"], physics.spectral_filter(shape, slope=3.2))
    elevation = np.maximum(of("elevation", 3.0) + of("relief", 3.0) * fractal, 0.0)
    slope, aspect = physics.slope_aspect(elevation, PIXEL_M)

    sand_field, clay_field = _texture_fields(rng["texture"], shape)
    sand, clay = _texture(
        of("sand") + P.texture_sd * sand_field, of("clay") + P.texture_sd * (0.55 * clay_field - 0.35 * sand_field)
    )
    own = rng["soil_deviation"]
    by_region = own.standard_normal((3, len(REGIONS))).astype(np.float32)
    local = (*_texture_fields(own, shape), _texture_fields(own, shape)[0])
    deviation = [np.sqrt(0.25) * by_region[i][region] + np.sqrt(0.75) * local[i] for i in range(3)]
    soil = physics.soil_hydraulics(
        sand,
        clay,
        porosity=of("porosity") + P.porosity_sd * deviation[0],
        log_conductivity=P.log_conductivity_sd * deviation[1],
        exponent=np.exp(P.exponent_sd * deviation[2]),
    )
    soil = physics.Soil(*(np.asarray(v, np.float32) for v in soil))

    wet_feet, patch = _texture_fields(rng["plants"], shape)
    outflow = np.clip(of("outflow") * np.exp(0.9 * wet_feet), 0.005, 1.0)
    lai_max = np.clip(of("lai") * (1.0 + 0.35 * patch), 0.2, 7.0)

    surface = rng["surface"]
    colour, rough = _texture_fields(surface, shape)
    structure = _texture_fields(surface, shape)
    region_rough = surface.normal(0.0, 0.5, len(REGIONS))[region]
    tillage = surface.random(len(REGIONS)).astype(np.float32)[region]
    rain_bias = np.exp(P.rain_product_region_sd * surface.standard_normal(len(REGIONS)))[region]
    product = _static_product(sand, clay, elevation, slope, aspect, rng["soil_product"])
    towards_sun = np.where(of("latitude") > 0, -1.0, 1.0) * np.cos(np.radians(aspect))
    return Landscape(
        region=region,
        elevation=elevation,
        tilt=np.tan(np.radians(slope)).astype(np.float32),
        sunward=(1.0 + np.sin(np.radians(slope)) * towards_sun).astype(np.float32),
        soil=soil,
        outflow=outflow,
        lai_max=lai_max,
        opacity=np.maximum(of("opacity") * (1.0 + 0.25 * patch), 0.3),
        brightness=np.clip(1.0 + 0.2 * colour, 0.5, 1.6),
        roughness=(P.roughness_ks * np.exp(P.roughness_log_sd * (0.85 * rough + region_rough))).astype(np.float32),
        backscatter_db=(
            P.backscatter_sd_db * structure[0],
            P.backscatter_sd_db * (0.7 * structure[0] + 0.7 * structure[1]),
        ),
        tillage=tillage,
        rain_bias=rain_bias,
        product=product,
    )


def _texture(sand: Array, clay: Array) -> tuple[Array, Array]:
    """Return sand and clay, percent, within 3 to 95 and 2 to 70, leaving 2 or more for silt."""
    sand, clay = np.clip(sand, 3.0, 95.0), np.clip(clay, 2.0, 70.0)
    scale = np.minimum(98.0 / (sand + clay), 1.0)
    return sand * scale, clay * scale


def _static_product(
    sand: Array, clay: Array, elevation: Array, slope: Array, aspect: Array, rng: np.random.Generator
) -> dict[str, Array]:
    """Return the static layers as published: the true terrain, and texture smoothed and with its error."""
    errors = (*_texture_fields(rng, sand.shape), _texture_fields(rng, sand.shape)[0])
    sand_2, clay_2 = _texture(
        _smooth(sand, 2.0) + P.texture_product_sd * errors[0],
        _smooth(clay, 2.0) + 0.65 * P.texture_product_sd * errors[1],
    )
    other = np.clip(_smooth(sand, 4.0) + 1.2 * P.texture_product_sd * errors[2], 0.0, 100.0)
    layers = {"sand": sand_2, "silt": 100.0 - sand_2 - clay_2, "clay": clay_2, "texture_sand": other}
    return layers | {"elevation": elevation, "slope": slope, "aspect": aspect}
