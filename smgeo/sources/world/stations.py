"""The probes of the built-in world, as an archive of the International Soil Moisture Network (headers and values).

A probe sees a point, not a pixel: its series is the pixel's, shifted and stretched by the local conditions of the point and the
calibration of the probe and the network, with drift, noise, ice, spikes and gaps; then flagged as ISMN flags (Dorigo et
al. 2013, doi:10.2136/vzj2012.0097), which finds most errors but not all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from smgeo.sources.world.landscape import Region
from smgeo.sources.world.physics import Array

STATION_STREAMS = ("places", "probes", "gaps", "noise")
SENSORS = ("ThetaProbe-ML2X", "5TM", "Hydraprobe", "CS650", "EC-TM", "Sentek-Drill-and-drop", "TDR-TRIME", "SM300")
FLAGS = ("G", "C01", "C02", "C03", "D01", "D06", "M", "C03,D01")
_G, _C01, _C02, _C03, _D01, _D06, _M, _C03_D01 = range(len(FLAGS))
DEEPER_M = (0.10, 0.20, 0.30)
MEMORY_DAYS = {0.05: 0.0, 0.10: 2.0, 0.20: 6.0, 0.30: 12.0}  # exponential filter's T, Albergel et al. 2008
ROOT_SHARE = {0.05: 0.0, 0.10: 0.2, 0.20: 0.6, 0.30: 0.9}  # weight of the root layer (0.10-0.60 m); depth by geometry
MISSING = -9999


@dataclass(frozen=True)
class Probes:
    """Differences of probes from their pixel, m3 m-3 unless another unit is given."""

    point_sd: float = (
        0.035  # lasting offset of a point in 1 km; Famiglietti et al. 2008: 0.05 to 0.07 in all at this extent
    )
    gain_sd: float = 0.15  # 1; stretch of the anomalies, same origin
    network_sd: float = 0.012  # calibration of a network's probe type, Cosh et al. 2005 and makers' data: 0.01 to 0.03
    probe_sd: float = 0.015  # calibration of one probe, same
    drift_sd: float = (
        0.012  # slow error, AR(1) with 30 days of memory: upscaling error less its lasting part, Crow et al. 2012
    )
    noise_sd: float = 0.003  # white, hourly; makers' data
    diurnal: float = 0.004  # half range of the temperature effect on the probe, Kapilaratne & Lu 2017: below 0.01
    deeper_share: float = 0.4  # share of stations with a second probe
    spikes_per_year: float = 8.0
    spikes_found: float = 0.85  # share that gets D06
    impossible_per_year: float = 3.0  # bursts of values below 0 or above 0.6
    hours_lost: float = 0.01  # share of hours without a line
    outages_per_year: float = 1.2  # of 4 to 60 days
    late_or_early: float = 0.25  # share of stations that begin late or end early


PROBES = Probes()


@dataclass(frozen=True)
class Station:
    """One station and its place; `sensors` are the depths (m) of its probes, `offset` the first one's lasting error."""

    station: str
    network: str
    region: str
    row: int
    col: int
    latitude: float
    longitude: float
    sensors: tuple[float, ...] = (0.05,)
    offset: float = 0.0


def place_stations(
    count: int,
    region: Array,
    regions: Sequence[Region],
    lonlat: Callable[[Array, Array], tuple[Array, Array]],
    rng: dict[str, np.random.Generator],
) -> list[Station]:
    """Place `count` stations on different pixels, one network a region, its size by `Region.network` and chance."""
    pixels = np.bincount(region.ravel(), minlength=len(regions))
    weight = rng["places"].uniform(0.7, 1.4, len(regions)) * [r.network for r in regions]
    share = np.zeros(len(regions), int)
    for _ in range(count):  # one station at a time to the region furthest below its share
        need = np.where(share < pixels // 2, weight / (share + 0.5), -1.0)
        share[int(np.argmax(need))] += 1
    placed = []
    for index, name in enumerate(r.name for r in regions):
        flat = np.flatnonzero(region.ravel() == index)
        chosen = np.sort(rng["places"].choice(flat, share[index], replace=False)) if len(flat) else flat[:0]
        rows, cols = np.divmod(chosen, region.shape[1])
        lon, lat = lonlat(rows, cols)
        placed += [
            Station(
                f"R{index + 1:02d}-S{i + 1:03d}",
                f"SIM{name}",
                name,
                int(r),
                int(c),
                round(float(a), 5),
                round(float(o), 5),
            )
            for i, (r, c, a, o) in enumerate(zip(rows, cols, lat, lon, strict=True))
        ]
    return placed


def write_archive(
    root: Path,
    placed: list[Station],
    series: dict[str, Array],
    days: pd.DatetimeIndex,
    site: dict[str, Array],
    climates: Sequence[str],
    rng: dict[str, np.random.Generator],
) -> list[Station]:
    """Write `NETWORK/STATION/*.stm` and `*_static_variables.csv` under `root`.

    Parameters
    ----------
    placed : list of Station
    series : dict
        Dims `(day, station)`: `surface`, `root` and `liquid` moisture (m3 m-3), `soil_degc` (degC).
    days : DatetimeIndex
    site : dict
        Dims `(station,)`: `elevation` (m), `sand`, `silt`, `clay` (percent), `porosity` (m3 m-3).
    climates : Koeppen-Geiger class of each station
    rng : streams `probes`, `gaps`, `noise`

    Returns
    -------
    list of Station
        `placed`, with sensors and offsets filled in.
    """
    probes = rng["probes"]
    networks = sorted({s.network for s in placed})
    bias = {n: PROBES.network_sd * probes.standard_normal() for n in networks}
    sensor = {n: SENSORS[i % len(SENSORS)] for i, n in enumerate(networks)}
    stamps = _stamps(days)
    done = []
    for i, station in enumerate(placed):
        point = PROBES.point_sd * probes.standard_normal()
        gain = float(np.clip(1.0 + PROBES.gain_sd * probes.standard_normal(), 0.5, 1.6))
        depths = (0.05,) if probes.random() > PROBES.deeper_share else (0.05, float(probes.choice(DEEPER_M)))
        folder = root / station.network / station.station
        folder.mkdir(parents=True)
        stem = f"{station.network}_{station.network}_{station.station}"
        alive = _alive(len(days) * 24, rng["gaps"])
        mine = {k: v[:, i].astype(np.float64) for k, v in series.items()}
        offset = point + bias[station.network]
        first_probe = 0.0
        for depth in depths:
            own = PROBES.probe_sd * probes.standard_normal()
            first_probe = own if depth == depths[0] else first_probe
            daily = _probe_series(mine, depth, offset + own, gain, probes)
            ends = f"{days[0]:%Y%m%d}_{days[-1]:%Y%m%d}"
            name = f"{stem}_sm_{depth:.6f}_{depth:.6f}_{sensor[station.network]}_{ends}.stm"
            place = (
                f"{station.latitude:.5f} {station.longitude:.5f} {site['elevation'][i]:15.1f} {depth:.4f} {depth:.4f}"
            )
            head = (
                f"{station.network:<10} {station.network:<10} {station.station:<15} {place} {sensor[station.network]}\n"
            )
            lines = _lines(stamps, *_hourly(daily, mine["soil_degc"], alive, float(site["porosity"][i]), rng))
            (folder / name).write_bytes(head.encode("ascii") + lines)
        table = _static_table(station, {k: float(v[i]) for k, v in site.items()}, climates[i])
        (folder / f"{stem}_static_variables.csv").write_text(table, encoding="utf-8")
        done.append(replace(station, sensors=depths, offset=round(offset + first_probe, 4)))
    return done


def _probe_series(mine: dict[str, Array], depth: float, offset: float, gain: float, rng: np.random.Generator) -> Array:
    """Return daily readings of one probe, `(day,)`, m3 m-3: the pixel's moisture at its depth with the errors of point and probe."""
    theta = mine["surface"]
    days = len(theta)
    weight = 1.0 - np.exp(-1.0 / MEMORY_DAYS[depth]) if MEMORY_DAYS[depth] else 1.0
    slow = theta.copy()
    drift = np.zeros(days)
    memory = np.exp(-1.0 / 30.0)
    kicks = PROBES.drift_sd * np.sqrt(1.0 - memory**2) * rng.standard_normal(days)
    drift[0] = PROBES.drift_sd * rng.standard_normal()
    for t in range(1, days):
        slow[t] = slow[t - 1] + weight * (theta[t] - slow[t - 1])
        drift[t] = memory * drift[t - 1] + kicks[t]
    layered = (1.0 - ROOT_SHARE[depth]) * slow + ROOT_SHARE[depth] * mine["root"]
    read = layered.mean() + gain * (layered - layered.mean()) + offset + drift
    frozen = mine["liquid"] / np.maximum(theta, 1e-6)  # a probe does not measure ice
    return np.asarray(np.maximum(read, 0.01) * frozen if depth <= 0.10 else np.maximum(read, 0.01))


def _alive(hours: int, rng: np.random.Generator) -> Array:
    """Return for each hour 0 (no line), 1 (a value) or 2 (a line with a missing value): late starts, early ends, outages."""
    alive = np.ones(hours, np.uint8)
    for _ in range(rng.poisson(PROBES.outages_per_year * hours / 8766.0)):
        begin = int(rng.integers(hours))
        alive[begin : begin + int(24 * rng.uniform(4.0, 60.0))] = rng.choice([0, 2])
    alive[rng.random(hours) < PROBES.hours_lost] = 0
    if rng.random() < PROBES.late_or_early:
        cut = int(hours * rng.uniform(0.05, 0.4))
        alive[slice(None, cut) if rng.random() < 0.5 else slice(hours - cut, None)] = 0
    if not (alive == 1).any():  # one outage may cover a short period
        alive[: hours // 2] = 1
    return alive


def _hourly(
    daily: Array, soil_degc: Array, alive: Array, porosity: float, rng: dict[str, np.random.Generator]
) -> tuple[Array, Array, Array]:
    """Return thousandths of m3 m-3 (int, or MISSING), index into FLAGS, and True if there is a line, each `(hour,)`.

    Within a day values are on a line through the day's value at noon, with the smaller slope of its two neighbours (0
    at a turning point; van Leer 1979), so that the mean of 24 hours is the day's value.
    """
    noise, gaps = rng["noise"], rng["gaps"]
    step = np.diff(daily, prepend=daily[0], append=daily[-1])
    slope = np.where(step[:-1] * step[1:] > 0, np.sign(step[1:]) * np.minimum(np.abs(step[:-1]), np.abs(step[1:])), 0.0)
    hour = np.arange(24)
    value = daily[:, None] + slope[:, None] * (hour - 11.5) / 24.0
    value = value + np.where(daily > 0.05, PROBES.diurnal, 0.001)[:, None] * np.cos(2.0 * np.pi * (hour - 15) / 24.0)
    value = (value + PROBES.noise_sd * noise.standard_normal(value.shape)).ravel()
    hours = value.size
    flag = np.full(hours, _G, np.uint8)
    value = np.maximum(value, 0.0)

    years = hours / 8766.0
    at = gaps.integers(hours, size=gaps.poisson(PROBES.spikes_per_year * years))
    value[at] += gaps.choice([-1.0, 1.0, 1.0], at.size) * gaps.uniform(0.08, 0.25, at.size)
    flag[at[gaps.random(at.size) < PROBES.spikes_found]] = _D06
    for begin in gaps.integers(hours, size=gaps.poisson(PROBES.impossible_per_year * years)):
        value[begin : begin + gaps.integers(1, 24)] = gaps.choice([-0.05, 0.75, 1.1]) + gaps.uniform(-0.03, 0.03)
    saturation = np.clip(porosity, 0.4, 0.6)  # ISMN takes it from the HWSD, which is coarse
    frozen = np.repeat(soil_degc < 0.0, 24)
    flag[frozen & (flag == _G)] = _D01
    flag[value > saturation] = np.where(frozen, _C03_D01, _C03)[value > saturation]
    flag[value > 0.6] = _C02
    flag[value < 0.0] = _C01
    flag[alive == 2] = _M
    thousandths = np.where(alive == 2, MISSING, np.rint(1000.0 * value)).astype(np.int32)
    return thousandths, flag, alive > 0


def _bytes_table(texts: Sequence[str]) -> Array:
    """Return `(len(texts), longest)` uint8, short ones filled with zeros."""
    fixed = np.array([t.encode("ascii") for t in texts])
    return fixed.view(np.uint8).reshape(len(texts), -1)


def _stamps(days: pd.DatetimeIndex) -> Array:
    """Return `YYYY/MM/DD HH:00 ` of each hour, `(hour, 17)` uint8."""
    return _bytes_table([f"{d} {h:02d}:00 " for d in days.strftime("%Y/%m/%d") for h in range(24)])


_LEAST, _MOST = -400, 1600
_VALUES = _bytes_table([f"{v / 1000.0:.3f}" for v in range(_LEAST, _MOST)] + [str(MISSING)])
_TAILS = _bytes_table([f" {flag} M\n" for flag in FLAGS])


def _lines(stamps: Array, thousandths: Array, flag: Array, present: Array) -> bytes:
    """Return all lines of a file, such as `2024/08/25 00:00 0.234 G M`: fixed-width bytes without their padding."""
    row = np.where(thousandths == MISSING, len(_VALUES) - 1, np.clip(thousandths, _LEAST, _MOST - 1) - _LEAST)
    text = np.concatenate([stamps[present], _VALUES[row[present]], _TAILS[flag[present]]], axis=1)
    return bytes(text[text != 0].tobytes())


def _static_table(station: Station, site: dict[str, float], climate: str) -> str:
    """Return the station's static variables as ISMN writes them, with the soil of the map, not the true one."""
    about = ("name", "description", "provider", "version", "resolution", "timerange", "url")
    columns = "quantity_name;unit;depth_from[m];depth_to[m];value;description;"
    columns += "".join(f"quantity_source_{name};" for name in about)
    origin = f"SIM;{station.region.title()} of the built-in world;smgeo;1;1 km;None;None;"
    soil = {
        "clay fraction": site["clay"],
        "sand fraction": site["sand"],
        "silt fraction": site["silt"],
        "organic carbon": 1.5,
    }
    rows = [f"saturation;m^3*m^-3;0.00;0.30;{np.clip(site['porosity'], 0.4, 0.6):.2f};;{origin}"]
    rows += [f"{name};% weight;0.00;0.30;{value:.2f};;{origin}" for name, value in soil.items()]
    cover = f"land cover classification;;;;130;Grassland;CCI_landcover_2010;{origin[4:]}"
    rows += [cover, f"climate classification;;;;{climate};;koeppen_geiger_2007;{origin[4:]}"]
    return "\n".join([columns, *rows]) + "\n"
