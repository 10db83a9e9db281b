"""The built-in world: a seeded landscape with weather, soil water, satellites and stations, as a user would have them.

`landscape` contains the static fields (sixteen climates side by side, not to scale), `physics` the equations, `weather`
the state of a day, `satellites` their products and `stations` the archive of probes. Every random process has a stream of
its own, so that the number of stations changes neither the landscape nor its weather.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from smgeo.bounds import check_arguments, check_day, check_each, weigh_disk, weigh_memory
from smgeo.errors import SmgeoError
from smgeo.files import explain_full_disk, replace_folder
from smgeo.sources.world.landscape import LANDSCAPE_STREAMS, REGIONS, Landscape, make_landscape
from smgeo.sources.world.physics import Array
from smgeo.sources.world.satellites import observe
from smgeo.sources.world.stations import STATION_STREAMS, place_stations, write_archive
from smgeo.sources.world.weather import State
from smgeo.sources.world.writing import SLAB_DAYS, Rasters, append_truth, pixel_places, write_description

SPIN_UP_DAYS = 365
START = "2016-01-01"
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


# For estimates of what a world takes, measured on one of 64 x 64 pixels, 40 stations and 60 days.
_ARRAYS_OF_A_DAY = 100
_BYTES_OF_PIXEL_DAY = 10
_BYTES_OF_STATION_DAY = 920


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
    """Simulate a folder with stations, satellite scenes, weather, static layers, and the true soil moisture.

    Parameters
    ----------
    out : path
        Folder to make; it appears when complete (before that, `out` + ".part" grows next to it).
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
        If an argument is out of bounds, or `out` exists and is not empty.

    Notes
    -----
    It runs day by day: memory is some 100 arrays of one day's size, 30 days of truth, and the stations' daily series.
    """
    target = Path(out)
    first = _check(target, stations, days, shape, seed, start)
    part = target.parent / (target.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    with explain_full_disk(target):
        _write_world(part, first, stations, days, shape, seed, progress)
        replace_folder(part, target, "world.json")
    return target


def _write_world(
    part: Path,
    first: pd.Timestamp,
    stations: int,
    days: int,
    shape: tuple[int, int],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the whole world into a folder."""
    names = (*LANDSCAPE_STREAMS, *DAILY_STREAMS, *STATION_STREAMS)
    seeds = np.random.SeedSequence(seed).spawn(len(names))
    rng = {name: np.random.default_rng(s) for name, s in zip(names, seeds, strict=True)}
    land = make_landscape(shape, rng)
    placed = place_stations(stations, land.region, REGIONS, pixel_places, rng)
    pixels = np.array([s.row for s in placed]), np.array([s.col for s in placed])
    index = pd.date_range(first, periods=days)
    series = _write_days(part, land, index, pixels, rng, progress)

    site = {k: v[pixels] for k, v in land.product.items()} | {"porosity": land.soil.theta_s[pixels]}
    climates = [REGIONS[land.region[s.row, s.col]].climate for s in placed]
    placed = write_archive(part / "ismn", placed, series, index, site, climates, rng)
    arguments = {"stations": stations, "days": days, "shape": list(shape), "seed": seed, "start": str(first.date())}
    write_description(part / "world.json", arguments, land, placed, SPIN_UP_DAYS)


def _write_days(
    part: Path,
    land: Landscape,
    days: pd.DatetimeIndex,
    pixels: tuple[Array, Array],
    rng: dict[str, np.random.Generator],
    progress: Callable[[int, int], None] | None,
) -> dict[str, Array]:
    """Write the rasters and the truth of all days; return the series `(day, station)` at the stations' pixels."""
    shape = land.region.shape
    writer = Rasters(part / "rasters", shape)
    writer.write("static", "soil", {k: land.product[k] for k in ("sand", "silt", "clay", "texture_sand")})
    writer.write("static", "terrain", {k: land.product[k] for k in ("elevation", "slope", "aspect")})
    fields = {"surface": "theta", "root": "theta_root", "liquid": "liquid", "soil_degc": "soil_degc"}
    series = {k: np.empty((len(days), pixels[0].size), np.float32) for k in fields}
    slab = np.empty((min(SLAB_DAYS, len(days)), *shape), np.float32)
    state = State(land, rng)
    for day in range(-SPIN_UP_DAYS, len(days)):
        date = days[0] + pd.Timedelta(days=day)
        state.step(date)
        if day < 0:
            continue
        for product, layers in observe(state, land, day, rng).items():
            writer.write(product, f"{product}_{date:%Y%m%d}", layers)
        for key, field in fields.items():
            series[key][day] = getattr(state, field)[pixels]
        slab[day % SLAB_DAYS] = state.theta
        if day % SLAB_DAYS == SLAB_DAYS - 1 or day == len(days) - 1:
            begin = day - day % SLAB_DAYS
            append_truth(part / "truth.zarr", slab[: day - begin + 1], days[begin : day + 1])
        if progress is not None:
            progress(day + 1, len(days))
    with warnings.catch_warnings():  # zarr warns that consolidated metadata is not yet part of the format's text
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(part / "truth.zarr")
    return series


def _check(out: Path, stations: int, days: int, shape: tuple[int, int], seed: int, start: str) -> pd.Timestamp:
    """Check the arguments and return the first day."""
    check_arguments("simulate", stations=stations, days=days, seed=seed)
    check_each("simulate", "shape", shape, "side")
    if len(shape) != 2 or min(shape) < 16:
        raise SmgeoError(
            f"shape is {tuple(shape)}, but the world needs two sides of 16 pixels or more, such as (64, 64)."
        )
    if stations > shape[0] * shape[1] // 4:
        most = shape[0] * shape[1] // 4
        raise SmgeoError(
            f"stations is {stations}, but shape {tuple(shape)} has room for {most} (1 in 4 pixels); set a larger one."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SmgeoError(f"{out} exists and is not an empty folder. Name a new one, or delete it first.")
    pixels = shape[0] * shape[1]
    what = f"a world of {stations:,} stations, {days:,} days and {shape[0]:,} x {shape[1]:,} pixels"
    weigh_memory(what, 4 * (_ARRAYS_OF_A_DAY + min(SLAB_DAYS, days)) * pixels + 16 * days * stations)
    weigh_disk(what, _BYTES_OF_PIXEL_DAY * pixels * days + _BYTES_OF_STATION_DAY * stations * days, out)
    return pd.Timestamp(check_day("simulate: start", start))
