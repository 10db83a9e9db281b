"""Satellite products of a day of the built-in world, with their swaths, clouds and errors."""

from __future__ import annotations

import numpy as np

from smgeo.sources.world import physics
from smgeo.sources.world.landscape import Landscape, P
from smgeo.sources.world.physics import Array
from smgeo.sources.world.weather import State

COARSE = 4  # pixels a side of a cell of the precipitation and temperature products


def observe(
    state: State, land: Landscape, day: int, rng: dict[str, np.random.Generator]
) -> dict[str, dict[str, Array]]:
    """Return the products of a day and their layers, NaN where not seen; the coarse ones on cells of `COARSE` pixels.

    Sentinel-1 passes every 6 days on each of three overlapping tracks, 2 days apart; Sentinel-2 every 5 days; Landsat 8
    every 16 days on each of two paths, 8 days apart.
    """
    snow_cover = np.clip(state.water.snow / 20.0, 0.0, 1.0)  # full from 20 mm on, Niu & Yang 2007 in short
    cover = physics.canopy_cover(state.lai)
    lst = physics.surface_temperature(state.air_degc, state.radiation, state.evaporative_fraction, state.lai)
    lst = np.where(snow_cover > 0.5, np.minimum(lst, 0.0), lst).astype(np.float32)
    products = {
        "precipitation": {"precipitation": _rain_product(state.rain, land, rng["rain_product"])},
        "temperature": {"temperature": _temperature_product(lst, state.cloudy, rng["temperature_product"])},
    }
    if day % 2 == 0:
        products["s1"] = _radar(state, land, (day // 2) % 3, rng["s1"])
    if day % 5 == 1:
        products["s2"] = _optical(state, land, cover, snow_cover, rng["s2"])
    if day % 8 == 3:
        across = np.arange(cover.shape[1]) / cover.shape[1]
        seen = ~state.cloudy & ((across < 0.55) if day % 16 == 3 else (across > 0.45))
        layers = {b: physics.brightness_temperature(b, lst, state.air_degc, cover) for b in physics.TIRS}
        products["l8"] = {
            b: _seen(v + P.tirs_noise_k * rng["l8"].standard_normal(v.shape), seen) for b, v in layers.items()
        }
    return products


def _seen(values: Array, where: Array) -> Array:
    return np.where(where, values, np.nan).astype(np.float32)


def _coarse(values: Array) -> Array:
    """Return the mean of the finite values in cells of `COARSE` pixels, NaN where fewer than a quarter are; edge cells are cut."""
    pad = [(0, -n % COARSE) for n in values.shape]
    padded = np.pad(values.astype(np.float64), pad, constant_values=np.nan)
    cells = padded.reshape(padded.shape[0] // COARSE, COARSE, -1, COARSE)
    count = np.isfinite(cells).sum(axis=(1, 3))
    inside = np.pad(np.ones(values.shape), pad).reshape(cells.shape).sum(axis=(1, 3))
    mean = np.nansum(cells, axis=(1, 3)) / np.maximum(count, 1)
    return np.where(count >= 0.25 * inside, mean, np.nan).astype(np.float32)


def _rain_product(rain: Array, land: Landscape, rng: np.random.Generator) -> Array:
    """Return the daily rain of a satellite product: log-normal errors, a regional bias, light events missed or added."""
    cells = _coarse(rain)
    noise = rng.standard_normal((3, *cells.shape)).astype(np.float32)
    factor = np.exp(P.rain_product_log_sd * noise[0] - 0.5 * P.rain_product_log_sd**2) * _coarse(land.rain_bias)
    chance = physics.normal_cdf(noise[1])
    missed = (cells < 5.0) & (chance < P.rain_product_miss)
    false = (cells < 0.1) & (chance > 1.0 - P.rain_product_miss * _coarse(land.of("wet")))
    return np.where(false, 2.0 * noise[2] ** 2, np.where(missed, 0.0, cells * factor)).astype(np.float32)


def _temperature_product(lst: Array, cloudy: Array, rng: np.random.Generator) -> Array:
    """Return daily land-surface temperature, only of clear pixels."""
    cells = _coarse(np.where(cloudy, np.nan, lst))
    return np.asarray(cells + P.lst_noise_k * rng.standard_normal(cells.shape, dtype=np.float32))


def _radar(state: State, land: Landscape, track: int, rng: np.random.Generator) -> dict[str, Array]:
    """Return Sentinel-1 on one of three tracks, each half as wide as the grid, at 30 to 46 degrees (IW swath)."""
    rows, cols = land.region.shape
    across = np.arange(cols)[None, :] / cols + 0.2 * np.arange(rows)[:, None] / rows  # tracks lean by 11 degrees
    position = (across - 0.4 * track + 0.05) / 0.5
    inside = (position >= 0.0) & (position < 1.0)
    # the slope's component towards a sensor in the west, looking east, is subtracted
    incidence = np.clip(
        30.0 + 16.0 * position - land.product["slope"] * np.cos(np.radians(land.product["aspect"] - 270.0)), 18.0, 58.0
    )
    cover = physics.canopy_cover(state.lai)
    ndvi = 0.15 + 0.75 * cover  # bare 0.15, full 0.9: Gutman & Ignatov 1998, rounded
    tilled = land.roughness * np.exp(0.2 * np.sin(2.0 * np.pi * (state.doy / 365.25 + land.tillage)))
    wet_snow = np.where(
        (state.water.snow > 5.0) & (state.air_degc > 0.0), -4.0, 0.0
    )  # Nagler & Rott 2000: -3 dB or less
    layers: dict[str, Array] = {}
    soils = physics.soil_backscatter(state.liquid, incidence, tilled)
    for (name, (a, b)), soil, lasting in zip(physics.WATER_CLOUD.items(), soils, land.backscatter_db, strict=True):
        power = physics.water_cloud(soil, ndvi, incidence, a=a, b=b * land.opacity)
        grain = physics.speckle(rng, incidence.shape, P.looks)
        noise_db = lasting + wet_snow + P.backscatter_noise_db * rng.standard_normal(incidence.shape)
        layers[name] = _seen(10.0 * np.log10(power * grain) + noise_db, inside)
    return layers | {"s1_incidence": _seen(incidence, inside)}


def _optical(
    state: State, land: Landscape, cover: Array, snow_cover: Array, rng: np.random.Generator
) -> dict[str, Array]:
    """Return Sentinel-2 where the sky is clear, with the thin clouds that its mask misses."""
    shape = cover.shape
    haze = np.where(rng.random(shape) < P.missed_clouds, rng.uniform(0.02, 0.15, shape), 0.0)
    haze += P.reflectance_noise * rng.standard_normal(shape)
    stress = 1.0 - state.root_wetness
    layers: dict[str, Array] = {}
    for band in physics.DRY_SOIL._fields:
        clear = physics.surface_reflectance(
            band, state.theta, brightness=land.brightness, cover=cover, stress=stress, snow_cover=snow_cover
        )
        noisy = clear * (1.0 + 0.04 * rng.standard_normal(shape)) + haze
        layers[f"s2_{band}"] = _seen(np.clip(noisy, 0.001, 1.5), ~state.cloudy)
    return layers
