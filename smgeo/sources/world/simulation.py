"""The built-in world: a seeded landscape with weather, soil water, satellites and stations, as a user would have it.

`world_landscape` holds what does not change (sixteen climates side by side, not to scale), `physics` the equations and
`world_stations` the archive of probes. Every random process has a stream of its own, so that the number of stations
leaves the landscape and its weather as they are.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyproj
import rasterio
import xarray as xr
import zarr

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError
from smgeo.files import replace_folder
from smgeo.sources.world import physics
from smgeo.sources.world.landscape import LANDSCAPE_STREAMS, PIXEL_M, REGIONS, Landscape, P, make_landscape
from smgeo.sources.world.physics import Array
from smgeo.sources.world.stations import PROBES, STATION_STREAMS, Station, place_stations, write_archive

ORIGIN = (372_000.0, 5_700_000.0)  # west and north edge, m, EPSG:32632
EPSG = 32632
COARSE = 4  # pixels a side of a cell of the precipitation and temperature products
SPIN_UP_DAYS = 365
START = "2016-01-01"
SLAB_DAYS = 30
DAILY_STREAMS = (
    "occurrence",
    "amount",
    "temperature",
    "clouds",
    "rain_product",
    "temperature_product",
    "s1",
    "s2",
    "l8",
)


def simulate(
    out: str | os.PathLike[str],
    stations: int = 317,
    days: int = 1684,
    shape: tuple[int, int] = (256, 256),
    seed: int = 0,
    *,
    start: str = START,
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
        `truth.zarr` (`sm`, m3 m-3, dims `(time, y, x)`, mean of 0-0.10 m and of the day) and `world.json`.

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
    placed = place_stations(stations, land.region, REGIONS, _lonlat, rng)
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
        for key, field in (
            ("surface", state.theta),
            ("root", state.theta_root),
            ("liquid", state.liquid),
            ("soil_degc", state.soil_degc),
        ):
            series[key][day] = field[rows, cols]
        slab[day % SLAB_DAYS] = state.theta
        if day % SLAB_DAYS == SLAB_DAYS - 1 or day == days - 1:
            begin = day - day % SLAB_DAYS
            _append_truth(part / "truth.zarr", slab[: day - begin + 1], days_index[begin : day + 1])
        if progress is not None:
            progress(day + 1, days)

    with warnings.catch_warnings():  # zarr warns that consolidated metadata is not yet part of the format's text
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(part / "truth.zarr")
    site = {k: v[rows, cols] for k, v in land.product.items()} | {"porosity": land.soil.theta_s[rows, cols]}
    climates = [REGIONS[land.region[s.row, s.col]].climate for s in placed]
    placed = write_archive(part / "ismn", placed, series, days_index, site, climates, rng)
    arguments = {"stations": stations, "days": days, "shape": list(shape), "seed": seed, "start": str(first.date())}
    _write_json(part / "world.json", arguments, land, placed)
    replace_folder(part, target, "world.json")
    return target


def _check(out: Path, stations: int, days: int, shape: tuple[int, int], seed: int, start: str) -> pd.Timestamp:
    """Refuse what cannot be simulated; the first day."""
    if len(shape) != 2 or min(shape) < 16:
        raise SmgeoError(
            f"shape is {tuple(shape)}, but the world needs two sides of 16 pixels or more, such as (64, 64)."
        )
    if days < 30:
        raise SmgeoError(f"days is {days}, but the world needs 30 or more (the longest sum of rain takes 30 days).")
    if stations < 12:
        raise SmgeoError(
            f"stations is {stations}, but the world needs 12 or more, to leave some climates out of training."
        )
    if stations > shape[0] * shape[1] // 4:
        most = shape[0] * shape[1] // 4
        raise SmgeoError(
            f"stations is {stations}, but shape {tuple(shape)} has room for {most} (1 in 4 pixels); take a larger one."
        )
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
        self.water = physics.Water(
            physics.SURFACE_DEPTH_MM * start, physics.ROOT_DEPTH_MM * start, np.zeros(shape, np.float32)
        )

    def step(self, date: pd.Timestamp) -> None:
        """One day of weather, then of water, then of plants."""
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
        # the day's mean, between its begin and its end: rain falls at any hour
        self.theta = (0.5 * (before.surface + self.water.surface) / physics.SURFACE_DEPTH_MM).astype(np.float32)
        self.theta_root = 0.5 * (before.root + self.water.root) / physics.ROOT_DEPTH_MM
        self.liquid = physics.liquid_water(self.theta, self.soil_degc, soil)
        self.root_wetness = np.clip((self.theta_root - soil.theta_wp) / (soil.theta_fc - soil.theta_wp), 0.0, 1.0)
        self.greenness = physics.step_greenness(self.greenness, self.air_degc, self.root_wetness)

    def _weather(self, doy: int) -> None:
        """Rain and demand (mm d-1), air and soil temperature (degC), radiation aloft (MJ m-2 d-1), cloud (bool)."""
        of, region = self._of, self.land.region
        seasonal = 1.0 + of["season"] * np.cos(2.0 * np.pi * (doy - of["peak"]) / 365.25)
        wet_fraction = np.clip(of["wet"] * seasonal**0.6, 0.0, 0.95)
        front = self._mixed("occurrence", self._wide, P.rain_shared)
        self.wet = physics.normal_cdf(front) < physics.wet_probability(self.wet, wet_fraction, P.rain_persistence)
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
        """A field of unit variance, `shared` of it common to each region."""
        local, _ = physics.random_fields(self.rng[stream], amplitude)
        common = self.rng[stream].standard_normal(len(REGIONS)).astype(np.float32)[self.land.region]
        return np.float32(np.sqrt(shared)) * common + np.float32(np.sqrt(1.0 - shared)) * local


def observe(
    state: _State, land: Landscape, day: int, rng: dict[str, np.random.Generator]
) -> dict[str, dict[str, Array]]:
    """The products of a day and their layers, NaN where not seen; the coarse ones on cells of `COARSE` pixels.

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
    """Mean of the finite values in cells of `COARSE` pixels, NaN where fewer than a quarter are; edge cells are cut."""
    pad = [(0, -n % COARSE) for n in values.shape]
    padded = np.pad(values.astype(np.float64), pad, constant_values=np.nan)
    cells = padded.reshape(padded.shape[0] // COARSE, COARSE, -1, COARSE)
    count = np.isfinite(cells).sum(axis=(1, 3))
    inside = np.pad(np.ones(values.shape), pad).reshape(cells.shape).sum(axis=(1, 3))
    mean = np.nansum(cells, axis=(1, 3)) / np.maximum(count, 1)
    return np.where(count >= 0.25 * inside, mean, np.nan).astype(np.float32)


def _rain_product(rain: Array, land: Landscape, rng: np.random.Generator) -> Array:
    """Daily rain of a satellite product: log-normal errors, a regional bias, light events missed or made up."""
    cells = _coarse(rain)
    noise = rng.standard_normal((3, *cells.shape)).astype(np.float32)
    factor = np.exp(P.rain_product_log_sd * noise[0] - 0.5 * P.rain_product_log_sd**2) * _coarse(land.rain_bias)
    chance = physics.normal_cdf(noise[1])
    missed = (cells < 5.0) & (chance < P.rain_product_miss)
    false = (cells < 0.1) & (chance > 1.0 - P.rain_product_miss * _coarse(land.of("wet")))
    return np.where(false, 2.0 * noise[2] ** 2, np.where(missed, 0.0, cells * factor)).astype(np.float32)


def _temperature_product(lst: Array, cloudy: Array, rng: np.random.Generator) -> Array:
    """Daily land-surface temperature, clear pixels alone."""
    cells = _coarse(np.where(cloudy, np.nan, lst))
    return cells + P.lst_noise_k * rng.standard_normal(cells.shape, dtype=np.float32)


def _radar(state: _State, land: Landscape, track: int, rng: np.random.Generator) -> dict[str, Array]:
    """Sentinel-1 on one of three tracks, each half as wide as the grid, at 30 to 46 degrees (IW swath)."""
    rows, cols = land.region.shape
    across = np.arange(cols)[None, :] / cols + 0.2 * np.arange(rows)[:, None] / rows  # tracks lean by 11 degrees
    position = (across - 0.4 * track + 0.05) / 0.5
    inside = (position >= 0.0) & (position < 1.0)
    # the slope's component towards a sensor in the west, looking east, is taken off
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
    state: _State, land: Landscape, cover: Array, snow_cover: Array, rng: np.random.Generator
) -> dict[str, Array]:
    """Sentinel-2 where the sky is clear, with the thin clouds that its mask misses."""
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


# ---------------------------------------------------------------- writing


class _Rasters:
    """Writes GeoTIFFs of one grid, or of its coarse cells, under a folder."""

    def __init__(self, root: Path, shape: tuple[int, int]) -> None:
        self.root, self.shape = root, shape
        self._crs = rasterio.CRS.from_epsg(EPSG)

    def write(self, folder: str, name: str, layers: dict[str, Array]) -> None:
        """Write `layers` (name -> `(y, x)`) as the bands of one float32 file, NaN where missing."""
        data = np.stack(list(layers.values())).astype(np.float32)
        pixel = PIXEL_M if data.shape[1:] == self.shape else PIXEL_M * COARSE
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        options = {"driver": "GTiff", "dtype": "float32", "nodata": np.nan, "compress": "deflate", "zlevel": 1}
        size = {"count": data.shape[0], "height": data.shape[1], "width": data.shape[2]}
        place = {"crs": self._crs, "transform": rasterio.transform.from_origin(*ORIGIN, pixel, pixel)}
        with rasterio.open(self.root / folder / f"{name}.tif", "w", **options, **size, **place) as file:
            file.write(data)
            file.descriptions = tuple(layers)
            file.units = tuple(FEATURES[key].units for key in layers)


def _append_truth(path: Path, slab: Array, times: pd.DatetimeIndex) -> None:
    """Append days of soil moisture `(time, y, x)` to the Zarr store, making it first."""
    _, rows, cols = slab.shape
    attrs = {
        "units": "m3 m-3",
        "long_name": FEATURES["sm"].long_name,
        "source": "smgeo built-in world",
        "kind": "target",
    }
    west, north = ORIGIN
    geo = {**pyproj.CRS.from_epsg(EPSG).to_cf(), "GeoTransform": f"{west} {PIXEL_M} 0.0 {north} 0.0 {-PIXEL_M}"}
    axes = {
        "x": (
            "x",
            west + PIXEL_M * (np.arange(cols) + 0.5),
            {"standard_name": "projection_x_coordinate", "units": "m"},
        ),
        "y": (
            "y",
            north - PIXEL_M * (np.arange(rows) + 0.5),
            {"standard_name": "projection_y_coordinate", "units": "m"},
        ),
    }
    ds = xr.Dataset(
        {"sm": (("time", "y", "x"), slab, attrs)}, {"time": times, **axes, "spatial_ref": ((), np.int64(0), geo)}
    )
    if path.exists():
        ds["sm"].encoding["grid_mapping"] = "spatial_ref"
        ds.to_zarr(path, append_dim="time", consolidated=False)
        return
    encoding = {
        "sm": {"chunks": (SLAB_DAYS, min(rows, 256), min(cols, 256)), "grid_mapping": "spatial_ref"},
        "time": {"units": f"days since {times[0]:%Y-%m-%d}", "dtype": "int64"},
    }
    ds.to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)


def _lonlat(rows: Array, cols: Array) -> tuple[Array, Array]:
    """Longitude and latitude (degree) of pixel centres."""
    to_degrees = pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True)
    lon, lat = to_degrees.transform(ORIGIN[0] + PIXEL_M * (cols + 0.5), ORIGIN[1] - PIXEL_M * (rows + 0.5))
    return np.asarray(lon), np.asarray(lat)


def _write_json(path: Path, arguments: dict[str, object], land: Landscape, placed: list[Station]) -> None:
    """What the world was made of, for whoever wants to know the answer."""
    constants = {k: v for k, v in vars(physics).items() if k.isupper()}
    pixels = np.bincount(land.region.ravel(), minlength=len(REGIONS))
    content = {
        "arguments": arguments,
        "grid": {"crs": f"EPSG:{EPSG}", "origin_m": ORIGIN, "pixel_m": PIXEL_M, "coarse_pixels": COARSE},
        "note": "Climates lie side by side; distances and latitudes between them are not to scale.",
        "parameters": asdict(P) | asdict(PROBES) | {"spin_up_days": SPIN_UP_DAYS},
        "constants": {k: v._asdict() if hasattr(v, "_asdict") else v for k, v in constants.items()},
        "regions": [asdict(r) | {"pixels": int(n)} for r, n in zip(REGIONS, pixels, strict=True)],
        "stations": [asdict(s) for s in placed],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
