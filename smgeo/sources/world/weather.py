"""State of the built-in world, day by day: weather, soil water and plants."""

from __future__ import annotations

import numpy as np
import pandas as pd

from smgeo.sources.world import physics
from smgeo.sources.world.landscape import REGIONS, Landscape, P
from smgeo.sources.world.physics import Array


class State:
    """Weather, water and plants on one day; `step` advances to the next. Arrays are `(y, x)`, float32."""

    def __init__(self, land: Landscape, rng: dict[str, np.random.Generator]) -> None:
        self.land, self.rng = land, rng
        shape = land.region.shape
        self._wide = physics.spectral_filter(shape, length=min(P.rain_length_px, min(shape) / 6))
        self._clouds = physics.spectral_filter(shape, length=min(P.cloud_length_px, min(shape) / 8))
        self._probability = np.linspace(0.0, 1.0, 4001)[1:-1]
        self._amounts = physics.gamma_quantiles(P.rain_gamma_shape, self._probability)
        self._warm = np.zeros(len(REGIONS), np.float32)
        self._of = {k: land.of(k) for k in ("rain", "wet", "peak", "season", "warmth", "swing", "weather", "latitude")}
        base = land.of("elevation")
        self._lapse = (-P.lapse_degc_km / 1000.0 * (land.elevation - base)).astype(np.float32)
        self.wet = np.zeros(shape, bool)
        self.soil_degc = self._of["warmth"].copy()
        self.greenness = np.full(shape, 0.3, np.float32)
        start = land.soil.theta_fc
        self.water = physics.Water(
            physics.SURFACE_DEPTH_MM * start, physics.ROOT_DEPTH_MM * start, np.zeros(shape, np.float32)
        )

    def step(self, date: pd.Timestamp) -> None:
        """Advance one day: weather, then water, then plants."""
        self.doy = date.day_of_year
        self._weather(self.doy)
        land, soil = self.land, self.land.soil
        self.lai = (0.1 + (land.lai_max - 0.1) * self.greenness).astype(np.float32)
        before = self.water
        self.water, fluxes = physics.step_water(
            self.water,
            soil,
            rain=self.rain,
            air_degc=self.air_degc,
            soil_degc=self.soil_degc,
            demand=self.demand,
            lai=self.lai,
            tilt=land.tilt,
            outflow=land.outflow,
        )
        self.evaporative_fraction = np.clip(fluxes.evapotranspiration / np.maximum(self.demand, 0.3), 0.05, 1.0)
        # the day's mean, between its start and its end: rain falls at any hour
        self.theta = (0.5 * (before.surface + self.water.surface) / physics.SURFACE_DEPTH_MM).astype(np.float32)
        self.theta_root = 0.5 * (before.root + self.water.root) / physics.ROOT_DEPTH_MM
        self.liquid = physics.liquid_water(self.theta, self.soil_degc, soil)
        self.root_wetness = np.clip((self.theta_root - soil.theta_wp) / (soil.theta_fc - soil.theta_wp), 0.0, 1.0)
        self.greenness = physics.step_greenness(self.greenness, self.air_degc, self.root_wetness)

    def _weather(self, doy: int) -> None:
        """Set rain and demand (mm d-1), air and soil temperature (degC), radiation aloft (MJ m-2 d-1), cloud (bool)."""
        of, region = self._of, self.land.region
        seasonal = 1.0 + of["season"] * np.cos(2.0 * np.pi * (doy - of["peak"]) / 365.25)
        wet_fraction = np.clip(of["wet"] * seasonal**0.6, 0.0, 0.95)
        front = self._mixed("occurrence", self._wide, P.rain_shared)
        self.wet = physics.normal_cdf(front) < physics.wet_probability(self.wet, wet_fraction, P.rain_persistence)
        heavy = physics.normal_cdf(self._mixed("amount", self._wide, 0.4))
        mean_mm = of["rain"] * seasonal / 365.25 / np.maximum(wet_fraction, 0.01)
        lift = np.clip(1.0 - self._lapse / 6.5 * 0.2, 0.6, 1.6)  # 20 % more rain per km of elevation
        amount = np.interp(heavy, self._probability, self._amounts) * mean_mm * lift
        self.rain = np.where(self.wet, amount, 0.0).astype(np.float32)

        noise = self.rng["temperature"].standard_normal(len(REGIONS)).astype(np.float32)
        self._warm = P.temperature_memory * self._warm + np.sqrt(1.0 - P.temperature_memory**2) * noise
        season = of["swing"] * np.cos(np.float32(2.0 * np.pi * (doy - 201) / 365.25))  # warmest on 20 July
        calm = of["warmth"] + season + of["weather"] * self._warm[region] + self._lapse
        self.air_degc = (calm - np.where(self.wet, 1.0, 0.0)).astype(np.float32)
        self.radiation = (physics.extraterrestrial_radiation(of["latitude"], doy) * self.land.sunward).astype(
            np.float32
        )
        spread = np.where(self.wet, P.range_wet_degc, P.range_dry_degc).astype(np.float32)
        self.demand = physics.potential_evaporation(self.radiation, self.air_degc, spread)
        covered = np.where(self.water.snow > 10.0, 0.25, 1.0)  # snow insulates
        self.soil_degc = self.soil_degc + P.soil_temperature_rate * covered * (self.air_degc - self.soil_degc)

        share = np.clip(P.cloud_base + 0.6 * wet_fraction + np.where(self.wet, 0.35, -0.05), 0.03, 0.98)
        self.cloudy = physics.normal_cdf(self._mixed("clouds", self._clouds, 0.4)) < share

    def _mixed(self, stream: str, amplitude: Array, shared: float) -> Array:
        """Return a field of unit variance, `shared` of it common to each region."""
        local, _ = physics.random_fields(self.rng[stream], amplitude)
        common = self.rng[stream].standard_normal(len(REGIONS)).astype(np.float32)[self.land.region]
        return np.float32(np.sqrt(shared)) * common + np.float32(np.sqrt(1.0 - shared)) * local
