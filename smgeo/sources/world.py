"""The built-in world: a seeded landscape with weather, soil water, satellites and stations, written as a user would have it.

Sixteen climates lie side by side on one grid of 1 km pixels, as warped tiles. Distances between them are not to scale, and
neither is the latitude: each takes its sunshine from the latitude in its row of the table. Within a climate, 1 km is 1 km.

Every random process has a stream of its own, so that the number of stations leaves the landscape and its weather as they
are. The parameters were set from the literature and from statistics of real stations, before any model saw the data.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyproj
import rasterio
import xarray as xr

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError
from smgeo.sources import physics
from smgeo.sources.physics import Array
from smgeo.sources.world_stations import STATION_STREAMS, Station, place_stations, write_archive

ORIGIN = (372_000.0, 5_700_000.0)  # west and north edge, m, EPSG:32632
EPSG = 32632
COARSE = 4  # pixels a side of a cell of the precipitation and temperature products
SPIN_UP_DAYS = 365
SLAB_DAYS = 30
DAILY_STREAMS = ("occurrence", "amount", "temperature", "clouds", "rain_product", "temperature_product", "s1", "s2", "l8")


def simulate(
    out: str | os.PathLike[str],
    stations: int = 317,
    days: int = 1684,
    shape: tuple[int, int] = (256, 256),
    seed: int = 0,
    *,
    start: str = "2016-01-01",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """A folder with stations, satellite scenes, weather, static layers, and the soil moisture behind them all.

    Parameters
    ----------
    out : path
        Folder to make; it appears when complete (before that, `out` + ".part" grows beside it).
    stations, days, shape, seed : int, int, (rows, columns), int
        Size and seed. The same arguments give the same values.
    start : str
        First day, `YYYY-MM-DD`.
    progress : callable, optional
        Called as `progress(done, total)` in days.

    Returns
    -------
    Path
        `out`, with `ismn/` (headers and values, hourly, m3 m-3), `rasters/` (GeoTIFF, float32, NaN where not seen),
        `truth.zarr` (`sm`, m3 m-3, dims `(time, y, x)`, mean of 0-0.10 m at the end of each day) and `world.json`.

    Raises
    ------
    SmgeoError
        Where an argument is out of bounds, or `out` exists and is not empty.

    Notes
    -----
    Works day by day: memory is some 100 arrays of one day's size, 30 days of truth, and the stations' daily series.
    """
    target = Path(out)
    first = _check(target, stations, days, shape, seed, start)
    part = target.parent / (target.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)

    names = (*LANDSCAPE_STREAMS, *DAILY_STREAMS, *STATION_STREAMS)
    seeds = np.random.SeedSequence(seed).spawn(len(names))
    rng = {name: np.random.default_rng(s) for name, s in zip(names, seeds, strict=True)}
    land = make_landscape(shape, rng)
    placed = place_stations(stations, land.region, [r.name for r in REGIONS], _lonlat, rng)
    writer = _Rasters(part / "rasters", shape)
    writer.write("static", "soil", {k: land.product[k] for k in ("sand", "silt", "clay", "texture_sand")})
    writer.write("static", "terrain", {k: land.product[k] for k in ("elevation", "slope", "aspect")})

    days_index = pd.date_range(first, periods=days)
    rows, cols = np.array([s.row for s in placed]), np.array([s.col for s in placed])
    series = {k: np.empty((days, stations), np.float32) for k in ("surface", "root", "liquid", "soil_degc")}
    slab = np.empty((min(SLAB_DAYS, days), *shape), np.float32)
    state = _State(land, rng)
    for day in range(-SPIN_UP_DAYS, days):
        date = first + pd.Timedelta(days=day)
        state.step(date)
        if day < 0:
            continue
        for product, layers in observe(state, land, day, rng).items():
            writer.write(product, f"{product}_{date:%Y%m%d}", layers)
        for key, field in (("surface", state.theta), ("root", state.theta_root), ("liquid", state.liquid), ("soil_degc", state.soil_degc)):
            series[key][day] = field[rows, cols]
        slab[day % SLAB_DAYS] = state.theta
        if day % SLAB_DAYS == SLAB_DAYS - 1 or day == days - 1:
            begin = day - day % SLAB_DAYS
            _append_truth(part / "truth.zarr", slab[: day - begin + 1], days_index[begin : day + 1])
        if progress is not None:
            progress(day + 1, days)

    site = {k: v[rows, cols] for k, v in land.product.items()} | {"porosity": land.soil.theta_s[rows, cols]}
    climates = [REGIONS[land.region[s.row, s.col]].climate for s in placed]
    placed = write_archive(part / "ismn", placed, series, days_index, site, climates, rng)
    arguments = {"stations": stations, "days": days, "shape": list(shape), "seed": seed, "start": str(first.date())}
    _write_json(part / "world.json", arguments, land, placed)
    if target.exists():
        target.rmdir()
    os.replace(part, target)
    return target


def _check(out: Path, stations: int, days: int, shape: tuple[int, int], seed: int, start: str) -> pd.Timestamp:
    """Refuse what cannot be simulated; the first day."""
    if len(shape) != 2 or min(shape) < 16:
        raise SmgeoError(f"shape is {tuple(shape)}, but the world needs two sides of 16 pixels or more, such as (64, 64).")
    if days < 30:
        raise SmgeoError(f"days is {days}, but the world needs 30 or more (the longest sum of rain takes 30 days).")
    if stations < 12:
        raise SmgeoError(f"stations is {stations}, but the world needs 12 or more, to leave some climates out of training.")
    if stations > shape[0] * shape[1] // 4:
        most = shape[0] * shape[1] // 4
        raise SmgeoError(f"stations is {stations}, but shape {tuple(shape)} has room for {most} (one in four pixels); take a larger shape.")
    if seed < 0:
        raise SmgeoError(f"seed is {seed}, but must be 0 or more.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SmgeoError(f"{out} exists and is not an empty folder. Name a new one, or delete it first.")
    try:
        return pd.Timestamp(pd.to_datetime(start, format="%Y-%m-%d"))
    except ValueError as error:
        raise SmgeoError(f"start is {start!r}, but must be a day such as '2016-01-01'.") from error


# ---------------------------------------------------------------- one day after the other


class _State:
    """Weather, water and plants on one day; `step` moves on to the next. Arrays are `(y, x)`, float32."""

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
        self.water = physics.Water(physics.SURFACE_DEPTH_MM * start, physics.ROOT_DEPTH_MM * start, np.zeros(shape, np.float32))

    def step(self, date: pd.Timestamp) -> None:
        """One day of weather, then of water, then of plants."""
        self._weather(date.dayofyear)
        land, soil = self.land, self.land.soil
        self.lai = (0.1 + (land.lai_max - 0.1) * self.greenness).astype(np.float32)
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
        self.theta = (self.water.surface / physics.SURFACE_DEPTH_MM).astype(np.float32)
        self.theta_root = self.water.root / physics.ROOT_DEPTH_MM
        self.liquid = physics.liquid_water(self.theta, self.soil_degc, soil)
        self.root_wetness = np.clip((self.theta_root - soil.theta_wp) / (soil.theta_fc - soil.theta_wp), 0.0, 1.0)
        self.greenness = physics.step_greenness(self.greenness, self.air_degc, self.root_wetness)

    def _weather(self, doy: int) -> None:
        """Rain (mm d-1), air and soil temperature (degC), demand (mm d-1), radiation aloft (MJ m-2 d-1), cloud (bool)."""
        of, region = self._of, self.land.region
        seasonal = 1.0 + of["season"] * np.cos(2.0 * np.pi * (doy - of["peak"]) / 365.25)
        wet_fraction = np.clip(of["wet"] * seasonal**0.6, 0.0, 0.95)
        front = self._mixed("occurrence", self._wide, P.rain_shared)
        self.wet = physics.normal_cdf(front) < physics.wet_probability(self.wet, wet_fraction, np.float32(P.rain_persistence))
        heavy = physics.normal_cdf(self._mixed("amount", self._wide, 0.4))
        mean_mm = of["rain"] * seasonal / 365.25 / np.maximum(wet_fraction, 0.01)
        lift = np.clip(1.0 - self._lapse / 6.5 * 0.2, 0.6, 1.6)  # a fifth more rain a km up
        amount = np.interp(heavy, self._probability, self._amounts) * mean_mm * lift
        self.rain = np.where(self.wet, amount, 0.0).astype(np.float32)

        noise = self.rng["temperature"].standard_normal(len(REGIONS)).astype(np.float32)
        self._warm = P.temperature_memory * self._warm + np.sqrt(1.0 - P.temperature_memory**2) * noise
        season = of["swing"] * np.cos(np.float32(2.0 * np.pi * (doy - 201) / 365.25))  # warmest on 20 July
        calm = of["warmth"] + season + of["weather"] * self._warm[region] + self._lapse
        self.air_degc = (calm - np.where(self.wet, 1.0, 0.0)).astype(np.float32)
        self.radiation = (physics.extraterrestrial_radiation(of["latitude"], doy) * self.land.sunward).astype(np.float32)
        spread = np.where(self.wet, P.range_wet_degc, P.range_dry_degc).astype(np.float32)
        self.demand = physics.potential_evaporation(self.radiation, self.air_degc, spread)
        covered = np.where(self.water.snow > 10.0, 0.25, 1.0)  # snow insulates
        self.soil_degc = self.soil_degc + P.soil_temperature_rate * covered * (self.air_degc - self.soil_degc)

        share = np.clip(P.cloud_base + 0.6 * wet_fraction + np.where(self.wet, 0.35, -0.05), 0.03, 0.98)
        self.cloudy = physics.normal_cdf(self._mixed("clouds", self._clouds, 0.4)) < share

    def _mixed(self, stream: str, amplitude: Array, shared: float) -> Array:
        """A field of unit variance, `shared` of it common to each region."""
        local, _ = physics.random_fields(self.rng[stream], amplitude)
        common = self.rng[stream].standard_normal(len(REGIONS)).astype(np.float32)[self.land.region]
        return np.float32(np.sqrt(shared)) * common + np.float32(np.sqrt(1.0 - shared)) * local


