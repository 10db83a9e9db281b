"""Forward models of the built-in world: fields, weather, soil water, plants, radar, reflectance, temperature.

Pure functions on float arrays of any one shape, usually `(y, x)`; state goes in and comes out. Each function names the
equation it computes, each constant its source (of its order of magnitude; values are rounded). None was chosen by looking at how
well a model retrieves moisture.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SECONDS_PER_DAY = 86400.0
SURFACE_DEPTH_MM = 100.0  # top layer, 0-0.10 m: the depth that a probe at 0.05 m integrates
ROOT_DEPTH_MM = 500.0  # second layer, 0.10-0.60 m
ROOTS_IN_SURFACE = 0.42  # Jackson et al. 1996, Y = 1 - beta^d with beta = 0.95: 0.40 of 0.95 is above 0.10 m
DEGREE_DAY_MM = 4.0  # mm degC-1 d-1, mid-range of Hock 2003
SNOW_RAIN_DEGC = 1.0  # air temperature below which it snows, Jennings et al. 2018
RUNOFF_EXPONENT = 4.0  # HBV's beta, 1 to 6 in Seibert 1997
CAPILLARY_PER_DAY = 0.05  # restoring rate of the surface to the root zone, order of C2/tau of Noilhan & Planton 1989
CANOPY_EXTINCTION = 0.5  # Beer-Lambert for spherical leaf angles, Monsi & Saeki 1953
INTERCEPTION_MM_PER_LAI = 0.2  # Dickinson 1984


class Soil(NamedTuple):
    """Hydraulic properties, each `(y, x)`.

    Saturation (m3 m-3), exponent b (1), suction at saturation (mm, positive), conductivity at saturation (mm d-1),
    field capacity and wilting point (m3 m-3).
    """

    theta_s: Array
    b: Array
    psi_s: Array
    k_s: Array
    theta_fc: Array
    theta_wp: Array


class Water(NamedTuple):
    """Water stored, mm, each `(y, x)`: surface layer, root layer, snow (water equivalent)."""

    surface: Array
    root: Array
    snow: Array


class Fluxes(NamedTuple):
    """Water that left in one day, mm, each `(y, x)`; the storage change is precipitation minus their sum."""

    evapotranspiration: Array
    runoff: Array
    percolation: Array


class Spectrum(NamedTuple):
    """Reflectance (1) of Sentinel-2 bands B3, B4, B8, B11, B12."""

    b3: float
    b4: float
    b8: float
    b11: float
    b12: float


# Typical of the mineral soils in Lobell & Asner 2002 and of green canopies in Jacquemoud & Baret 1990 (PROSPECT).
DRY_SOIL = Spectrum(0.14, 0.19, 0.27, 0.38, 0.34)
SATURATED_SOIL = Spectrum(0.06, 0.08, 0.13, 0.16, 0.11)
SOIL_DECAY = Spectrum(9.0, 9.0, 8.0, 5.0, 5.0)  # per m3 m-3: the visible saturates at lower moisture than the SWIR
GREEN_LEAVES = Spectrum(0.06, 0.03, 0.45, 0.20, 0.09)
WILTED_LEAVES = Spectrum(0.08, 0.06, 0.38, 0.29, 0.17)
SNOW = Spectrum(0.85, 0.83, 0.75, 0.12, 0.09)  # Dozier 1989

# (K1, K2, optical depth per cm of water vapour) of TIRS bands; K1, K2 from the Landsat 8 Data Users Handbook, and the
# depth so that B11 absorbs about 1.3 times as much as B10 (Jimenez-Munoz et al. 2014).
TIRS = {"l8_b10": (774.8853, 1321.0789, 0.10), "l8_b11": (480.8883, 1201.1442, 0.13)}


# ---------------------------------------------------------------- random fields and weather


def spectral_filter(shape: tuple[int, int], *, length: float = 0.0, slope: float = 0.0) -> Array:
    """Return the amplitude that turns white noise into a field of unit variance, on a torus.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    length : float
        Correlation length in pixels (Gaussian covariance exp(-d^2 / (2 length^2))); 0 for white noise.
    slope : float
        Exponent of a power-law spectrum k^-slope (3 to 4 for terrain, Turcotte 1997, ch. 7), in place of `length`.

    Returns
    -------
    (rows, columns) float32
    """
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :])
    if slope:
        power = np.where(k > 0, np.maximum(k, 1e-9) ** -slope, 0.0)
    else:
        power = np.exp(-2.0 * (math.pi * length * k) ** 2)
        power[0, 0] = 0.0 if length else 1.0
    return np.asarray(np.sqrt(power * power.size / power.sum()).astype(np.float32))


def random_fields(rng: np.random.Generator, amplitude: Array) -> tuple[Array, Array]:
    """Return two independent Gaussian fields of zero mean and unit variance with the spectrum `amplitude`, float32."""
    white = rng.standard_normal(amplitude.shape, dtype=np.float32) + 1j * rng.standard_normal(
        amplitude.shape, dtype=np.float32
    )
    field = np.fft.ifft2(np.fft.fft2(white) * amplitude)
    return field.real.astype(np.float32), field.imag.astype(np.float32)


def normal_cdf(z: Array) -> Array:
    """Return the standard normal distribution function by Zelen & Severo 1964, eq. 26.2.17 (absolute error below 7.5e-8)."""
    t = 1.0 / (1.0 + 0.2316419 * np.abs(z))
    poly = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    upper = np.exp(-0.5 * np.square(z)) / math.sqrt(2.0 * math.pi) * poly
    return np.where(np.asarray(z) >= 0, 1.0 - upper, upper)


def gamma_quantiles(shape: float, probability: Array) -> Array:
    """Return quantiles of the gamma distribution with mean 1, from its density integrated in steps of log(x).

    Daily rain amounts are gamma with a shape of 0.6 to 0.9 (Wilks & Wilby 1999); relative error below 1e-3 for
    probabilities of 0.001 to 0.9999.
    """
    log_x = np.linspace(-25.0, 4.0, 20001)
    # with x = exp(u), the density of u is x^shape exp(-shape x)
    density = np.exp(shape * log_x - shape * np.exp(log_x))
    cdf = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return np.exp(np.interp(probability, cdf / cdf[-1], log_x))


def wet_probability(was_wet: Array, wet_fraction: Array, persistence: float) -> Array:
    """Return the chance of rain today in the two-state Markov chain, Richardson 1981.

    `wet_fraction` is its stationary share of wet days and `persistence` its lag-1 correlation p11 - p01 (Wilks 1998).
    """
    return np.where(was_wet, wet_fraction + persistence * (1.0 - wet_fraction), wet_fraction * (1.0 - persistence))


def extraterrestrial_radiation(latitude: Array, day_of_year: int) -> Array:
    """Return daily radiation above the atmosphere, MJ m-2 d-1, FAO-56 (Allen et al. 1998), eq. 21; latitude in degrees."""
    phi = np.radians(latitude)
    angle = 2.0 * math.pi * day_of_year / 365.0
    declination = 0.409 * math.sin(angle - 1.39)
    sunset = np.arccos(np.clip(-np.tan(phi) * math.tan(declination), -1.0, 1.0))
    geometry = sunset * np.sin(phi) * math.sin(declination) + np.cos(phi) * math.cos(declination) * np.sin(sunset)
    return 24.0 * 60.0 / math.pi * 0.0820 * (1.0 + 0.033 * math.cos(angle)) * geometry


def potential_evaporation(radiation: Array, mean_degc: Array, range_degc: Array) -> Array:
    """Return reference evapotranspiration, mm d-1, Hargreaves & Samani 1985 (FAO-56, eq. 52); `radiation` MJ m-2 d-1 aloft."""
    return np.maximum(0.0023 * 0.408 * radiation * (mean_degc + 17.8) * np.sqrt(range_degc), 0.0)


# ---------------------------------------------------------------- soil, water, plants


def soil_hydraulics(sand: Array, clay: Array, *, porosity: Array, log_conductivity: Array, exponent: Array) -> Soil:
    """Return hydraulic properties by Cosby et al. 1984 (univariate), with a local deviation independent of texture.

    Parameters
    ----------
    sand, clay : percent
    porosity : m3 m-3, added to the saturation
    log_conductivity : added to log10 of the conductivity
    exponent : factor on b

    Notes
    -----
    Field capacity is where gravity drains 0.1 mm a day (Hillel 1998), the wilting point is at 150 m of suction, both
    on the curves of Clapp & Hornberger 1978.
    """
    theta_s = np.clip(0.489 - 0.00126 * sand + porosity, 0.28, 0.80)
    b = np.maximum((2.91 + 0.159 * clay) * exponent, 2.0)
    psi_s = 10.0 * 10.0 ** (1.88 - 0.0131 * sand)
    k_s = 0.0070556 * 10.0 ** (-0.884 + 0.0153 * sand + log_conductivity) * SECONDS_PER_DAY
    theta_fc = theta_s * np.minimum(0.1 / k_s, 1.0) ** (1.0 / (2.0 * b + 3.0))
    theta_wp = theta_s * (psi_s / 150_000.0) ** (1.0 / b)
    return Soil(theta_s, b, psi_s, k_s, theta_fc, theta_wp)


def drained(saturation: Array, b: Array, k_s: Array, storage_mm: Array) -> Array:
    """Return the degree of saturation after a day of gravity drainage, K = k_s S^(2b+3) (Clapp & Hornberger 1978), exactly.

    dS/dt = -k_s S^n / storage, hence S(t) = (S0^(1-n) + (n-1) k_s t / storage)^(1/(1-n)).
    """
    m = 2.0 * b + 2.0
    s = np.maximum(saturation, 1e-3)
    return saturation * (1.0 + m * k_s / storage_mm * s**m) ** (-1.0 / m)


def liquid_water(theta: Array, soil_degc: Array, soil: Soil) -> Array:
    """Return unfrozen water, m3 m-3, by the freezing-point depression of Niu & Yang 2006."""
    below = np.maximum(-soil_degc, 1e-6)
    suction_mm = 3.34e5 * below / (9.81 * (273.15 - below)) * 1000.0
    limit = soil.theta_s * np.minimum((suction_mm / soil.psi_s) ** (-1.0 / soil.b), 1.0)
    return np.where(soil_degc < 0.0, np.minimum(theta, limit), theta)


def step_water(
    water: Water,
    soil: Soil,
    *,
    rain: Array,
    air_degc: Array,
    soil_degc: Array,
    demand: Array,
    lai: Array,
    tilt: Array,
    outflow: Array,
) -> tuple[Water, Fluxes]:
    """Step one day of the water balance of snow, a surface layer and a root layer.

    Parameters
    ----------
    water : Water
        Storage at the start of the day, mm.
    soil : Soil
        Properties of both layers.
    rain, demand : mm d-1
        Precipitation, and reference evapotranspiration.
    air_degc, soil_degc : degC
    lai : leaf area index, m2 m-2
    tilt : tangent of the slope, which adds to runoff
    outflow : factor on the conductivity below the root layer (1 drains freely, 0 stands on rock or groundwater)

    Notes
    -----
    In this order: snow by degree days (Hock 2003); interception (Dickinson 1984); runoff by HBV (Bergstrom 1995);
    bare-soil evaporation (Lee & Pielke 1992) and transpiration (FAO-56, eq. 84, p = 0.5); gravity drainage (`drained`),
    ice excluded; rise to a drier surface; water above saturation fills the layer above, then runs off. Closes to
    rounding.
    """
    capacity = (SURFACE_DEPTH_MM * soil.theta_s, ROOT_DEPTH_MM * soil.theta_s)
    snowfall = np.where(air_degc < SNOW_RAIN_DEGC, rain, 0.0)
    melt = np.minimum(water.snow, DEGREE_DAY_MM * np.maximum(air_degc, 0.0))
    snow = water.snow + snowfall - melt
    demand = np.where(snow > 1.0, 0.0, demand)
    intercepted = np.minimum(np.minimum(rain - snowfall, INTERCEPTION_MM_PER_LAI * lai), demand)
    supply = rain - snowfall + melt - intercepted
    wetness = np.minimum((water.surface + water.root) / (capacity[0] + capacity[1]), 1.0)
    runoff = supply * np.minimum(wetness**RUNOFF_EXPONENT * (1.0 + tilt), 1.0)
    surface = water.surface + supply - runoff
    root = water.root

    left = demand - intercepted
    cover = canopy_cover(lai)
    theta_1, theta_2 = surface / SURFACE_DEPTH_MM, root / ROOT_DEPTH_MM
    liquid = liquid_water(theta_1, soil_degc, soil) / np.maximum(theta_1, 1e-6)
    bare = 0.25 * (1.0 - np.cos(np.pi * np.minimum(theta_1 / soil.theta_fc, 1.0))) ** 2
    stress = [
        np.clip((t - soil.theta_wp) / (0.5 * (soil.theta_fc - soil.theta_wp)), 0.0, 1.0) for t in (theta_1, theta_2)
    ]
    from_surface = left * liquid * ((1.0 - cover) * bare + cover * ROOTS_IN_SURFACE * stress[0])
    from_surface = np.minimum(from_surface, 0.5 * surface)
    from_root = np.minimum(left * liquid * cover * (1.0 - ROOTS_IN_SURFACE) * stress[1], 0.5 * root)
    surface, root = surface - from_surface, root - from_root

    down = surface - capacity[0] * drained(
        np.minimum(surface / capacity[0], 1.0), soil.b, soil.k_s * liquid, capacity[0]
    )
    up = (
        CAPILLARY_PER_DAY
        * SURFACE_DEPTH_MM
        * np.maximum(root / ROOT_DEPTH_MM - (surface - down) / SURFACE_DEPTH_MM, 0.0)
    )
    surface, root = surface - down + up, root + down - up
    percolation = root - capacity[1] * drained(
        np.minimum(root / capacity[1], 1.0), soil.b, soil.k_s * outflow, capacity[1]
    )
    percolation = np.where(root > capacity[1], percolation - (root - capacity[1]), percolation)
    root = root - percolation
    excess = np.maximum(root - capacity[1], 0.0)
    root, surface = root - excess, surface + excess
    spilled = np.maximum(surface - capacity[0], 0.0)
    return Water(surface - spilled, root, snow), Fluxes(
        intercepted + from_surface + from_root, runoff + spilled, percolation
    )


def canopy_cover(lai: Array) -> Array:
    """Return the share of the ground under green leaves, 1 - exp(-k LAI) (Monsi & Saeki 1953)."""
    return 1.0 - np.exp(-CANOPY_EXTINCTION * lai)


def step_greenness(greenness: Array, air_degc: Array, root_wetness: Array) -> Array:
    """Return the growing-season index, 0 to 1, of the next day: Jolly et al. 2005, with a 21-day memory.

    Warmth rises from -2 to 5 degC as in the paper (on the minimum; here the mean less 5 K), root-zone wetness (0 at the
    wilting point, 1 at field capacity) stands for the vapour-pressure deficit.
    """
    warmth = np.clip((air_degc - 5.0 + 2.0) / 7.0, 0.0, 1.0)
    return np.asarray(greenness + (warmth * np.clip(root_wetness, 0.0, 1.0) - greenness) / 21.0)


# ---------------------------------------------------------------- satellites


def soil_backscatter(theta: Array, incidence: Array, roughness: Array) -> tuple[Array, Array]:
    """Return VV and VH of bare soil, linear power, Baghdadi et al. 2016, eq. 6-7.

    Parameters
    ----------
    theta : m3 m-3
    incidence : degree
    roughness : k s, the wave number times the standard deviation of heights (1)
    """
    angle = np.radians(incidence)
    moisture = 100.0 * theta / np.tan(angle)
    vv = 10.0**-1.138 * np.cos(angle) ** 1.528 * 10.0 ** (0.008 * moisture) * roughness ** (0.71 * np.sin(angle))
    vh = 10.0**-2.325 * np.cos(angle) ** -0.01 * 10.0 ** (0.011 * moisture) * roughness ** (0.44 * np.sin(angle))
    return vv, vh


# A and B for a canopy described by its NDVI, Baghdadi et al. 2017.
WATER_CLOUD = {"s1_vv": (0.0950, 0.5513), "s1_vh": (0.0413, 1.1662)}


def water_cloud(soil_power: Array, ndvi: Array, incidence: Array, *, a: float, b: Array | float) -> Array:
    """Return the backscatter of soil under a canopy, linear power, by the water-cloud model of Attema & Ulaby 1978.

    A V cos(i) (1 - T) + T soil, with T = exp(-2 B V / cos(i)) and V the NDVI; incidence i in degrees.
    """
    cosine = np.cos(np.radians(incidence))
    v = np.maximum(ndvi, 0.0)
    transmitted = np.exp(-2.0 * b * v / cosine)
    return np.asarray(a * v * cosine * (1.0 - transmitted) + transmitted * soil_power)


def speckle(rng: np.random.Generator, shape: tuple[int, ...], looks: float) -> Array:
    """Return multiplicative speckle of mean 1 and variance 1 / looks, gamma distributed (Ulaby et al. 1986), float32."""
    return rng.standard_gamma(looks, size=shape, dtype=np.float32) / np.float32(looks)


def soil_reflectance(band: str, theta: Array, brightness: Array) -> Array:
    """Return the reflectance of bare soil, darker when wet, Lobell & Asner 2002: R_sat + (R_dry - R_sat) exp(-c theta)."""
    dry, wet, decay = getattr(DRY_SOIL, band), getattr(SATURATED_SOIL, band), getattr(SOIL_DECAY, band)
    return np.asarray(brightness * (wet + (dry - wet) * np.exp(-decay * theta)))


def surface_reflectance(
    band: str, theta: Array, *, brightness: Array, cover: Array, stress: Array, snow_cover: Array
) -> Array:
    """Return the reflectance (1) of one Sentinel-2 band: linear mixture of soil, leaves (`stress`: 1 is wilted) and snow."""
    leaf = getattr(GREEN_LEAVES, band) + stress * (getattr(WILTED_LEAVES, band) - getattr(GREEN_LEAVES, band))
    ground = cover * leaf + (1.0 - cover) * soil_reflectance(band, theta, brightness)
    return np.asarray(snow_cover * getattr(SNOW, band) + (1.0 - snow_cover) * ground)


def surface_temperature(air_degc: Array, radiation: Array, evaporative_fraction: Array, lai: Array) -> Array:
    """Return the clear-sky land-surface temperature in the late morning, degC: air + r_a H / (rho c_p).

    The sensible heat H is the available energy less evaporation. Incoming short wave is 0.75 of that aloft
    (FAO-56, eq. 37), 2.2 times its daily mean in the late morning; albedo 0.23 (FAO-56), net long wave -80 W m-2,
    ground heat 0.1 of net. The aerodynamic resistance falls from 75 s m-1 (FAO-56, eq. 4 at 2.8 m s-1) as the canopy
    grows.
    """
    net = np.maximum((1.0 - 0.23) * 0.75 * radiation * 1e6 / SECONDS_PER_DAY * 2.2 - 80.0, 0.0)
    resistance = 75.0 / (1.0 + 0.25 * lai)
    return air_degc + resistance * 0.9 * net * (1.0 - evaporative_fraction) / (1.2 * 1013.0)


def brightness_temperature(band: str, surface_degc: Array, air_degc: Array, cover: Array) -> Array:
    """Return the Landsat 8 brightness temperature at the top of the atmosphere, K, by the Handbook's K1, K2 form of Planck's law.

    One absorbing layer: emissivity 0.97 (soil) to 0.99 (leaves) (Sobrino et al. 2008); water vapour from the air
    temperature at 60 % humidity, w = 0.14 e + 0.2 cm with e in hPa (Leckner 1978, rounded); air radiates 10 K below
    that at the ground, upwards and downwards alike.
    """
    k1, k2, depth = TIRS[band]
    emissivity = 0.97 + 0.02 * cover
    vapour_cm = 0.14 * 0.6 * 6.108 * np.exp(17.27 * air_degc / (air_degc + 237.3)) + 0.2
    transmitted = np.exp(-depth * vapour_cm)
    ground = k1 / np.expm1(k2 / (surface_degc + 273.15))
    sky = (1.0 - transmitted) * k1 / np.expm1(k2 / (air_degc + 263.15))
    radiance = transmitted * (emissivity * ground + (1.0 - emissivity) * sky) + sky
    return k2 / np.log1p(k1 / radiance)


def slope_aspect(elevation: Array, pixel_m: float) -> tuple[Array, Array]:
    """Return slope and aspect (degree; aspect clockwise from north, downhill) of a north-up grid by Horn 1981."""
    z = np.pad(elevation.astype(np.float64), 1, mode="edge")
    west = z[:-2, :-2] + 2.0 * z[1:-1, :-2] + z[2:, :-2]
    east = z[:-2, 2:] + 2.0 * z[1:-1, 2:] + z[2:, 2:]
    north = z[:-2, :-2] + 2.0 * z[:-2, 1:-1] + z[:-2, 2:]
    south = z[2:, :-2] + 2.0 * z[2:, 1:-1] + z[2:, 2:]
    dz_dx, dz_dy = (east - west) / (8.0 * pixel_m), (north - south) / (8.0 * pixel_m)
    return np.degrees(np.arctan(np.hypot(dz_dx, dz_dy))), np.degrees(np.arctan2(-dz_dx, -dz_dy)) % 360.0
