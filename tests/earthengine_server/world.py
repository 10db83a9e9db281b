"""The fixed world: a few kilometres where UTM zones 32 and 33 meet, and two far places, with the products' own grids.

`build_world()` gives the same arrays every time. Truth is plain NumPy: `world.stored[image_id][band]` has `projection`
and `patches` (`values`, `valid`, `row`, `col`), and `value(lon, lat)`.

Layouts follow the Earth Engine catalogue (developers.google.com/earth-engine/datasets/catalog/...): COPERNICUS_S1_GRD,
COPERNICUS_S2_SR_HARMONIZED, GOOGLE_CLOUD_SCORE_PLUS_V1_S2_HARMONIZED, LANDSAT_LC08_C02_T1_TOA, NASA_GPM_L3_IMERG_V07,
MODIS_061_MOD11A1, COPERNICUS_DEM_GLO30, OpenLandMap_SOL_SOL_SAND-WFRACTION_USDA-3A1A1A_M_v02, and the community's
projects/soilgrids-isric.
"""

from __future__ import annotations

import datetime as dt
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import shapely

from .grids import LONLAT, SINUSOIDAL, Projection, convert
from .images import Image, Patch, stored_band

S1 = "COPERNICUS/S1_GRD"
S2 = "COPERNICUS/S2_SR_HARMONIZED"
CLOUD_SCORE = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
L8 = "LANDSAT/LC08/C02/T1_TOA"
IMERG = "NASA/GPM_L3/IMERG_V07"
MODIS = "MODIS/061/MOD11A1"
GLO30 = "COPERNICUS/DEM/GLO30"
OPENLANDMAP = "OpenLandMap/SOL/SOL_SAND-WFRACTION_USDA-3A1A1A_M/v02"
SOILGRIDS = "projects/soilgrids-isric/"

START = dt.date(2021, 6, 1)
DEGREE_M = 111_320.0

Bands = dict[str, "Stored"]


@dataclass(frozen=True)
class Place:
    """Where images are: the centre in degrees, half the width of Sentinel's arrays in metres."""

    name: str
    lon: float
    lat: float
    half_m: float = 1000.0

    @property
    def zone(self) -> int:
        """Its UTM zone."""
        return int((self.lon + 180) // 6) + 1

    def utm(self, zone: int) -> str:
        """Code of a zone on its hemisphere."""
        return f"EPSG:{326 if self.lat >= 0 else 327}{zone:02d}"


CENTRE = Place("middle", 12.0, 49.9)
FAR = (Place("west", -105.02, 40.01, 400.0), Place("south", 149.03, -35.02, 400.0))


@dataclass(frozen=True, eq=False)
class Stored:
    """A band as it is stored: `patches` in pixels of `projection`; everything else is masked."""

    projection: Projection
    dtype: str
    patches: tuple[Patch, ...]
    pyramid: str = "mean"

    @property
    def values(self) -> np.ndarray:
        """Of the first patch, NaN where masked."""
        return np.where(self.patches[0].valid, self.patches[0].values, np.nan)

    def value(self, lon: float, lat: float) -> float:
        """Of the pixel that a place lies in; NaN where masked."""
        col, row = (int(np.floor(v)) for v in self.projection.from_lonlat(lon, lat))
        for p in self.patches:
            r, c = row - p.row, col - p.col
            if 0 <= r < p.values.shape[0] and 0 <= c < p.values.shape[1] and p.valid[r, c]:
                return float(p.values[r, c])
        return float("nan")


@dataclass
class World:
    """Images by ID and collections by ID, and what they are made of."""

    places: tuple[Place, ...]
    levels: bool = True
    stored: dict[str, Bands] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    collections: dict[str, list[Image]] = field(default_factory=dict)

    def image(self, asset: str) -> Image | None:
        """An image by its ID, or None."""
        return self.images.get(asset)

    def collection(self, asset: str) -> list[Image] | None:
        """The images of a collection in the order of their index, or None."""
        return self.collections.get(asset)

    def add(self, asset: str, bands: Bands, properties: dict | None = None, footprint: object = None) -> None:
        """Adds an image; one whose ID begins with a collection's and a slash belongs to it (see `collect`)."""
        index = asset.rsplit("/", 1)[-1]
        made = tuple(
            stored_band(name, b.projection, b.dtype, b.patches, b.pyramid, self.levels) for name, b in bands.items()
        )
        given = {"system:index": index, "system:id": asset, **(properties or {})}
        self.stored[asset] = bands
        self.images[asset] = Image(made, given, _footprint(bands) if footprint is None else footprint)

    def collect(self, *collections: str) -> None:
        """Makes collections of the images whose IDs lie under theirs."""
        for name in collections:
            ids = sorted(i for i in self.images if i.rsplit("/", 1)[0] == name)
            self.collections[name] = [self.images[i] for i in ids]


def build_world(
    places: Sequence[Place] = (CENTRE, *FAR),
    days: int = 10,
    *,
    start: dt.date = START,
    half_hours: int = 48,
    levels: bool = True,
) -> World:
    """The world: `days` from `start`, at `places`; `half_hours` IMERG images a day; `levels=False`: no pyramids."""
    world = World(tuple(places), levels)
    dates = [start + dt.timedelta(days=d) for d in range(days)]
    for place in places:
        for day, date in enumerate(dates):
            _sentinel1(world, place, day, date)
            _sentinel2(world, place, day, date)
            _landsat8(world, place, day, date)
        _elevation(world, place)
    for date in dates:
        _modis(world, date)
        _imerg(world, date, half_hours)
    _soil(world)
    world.collect(S1, S2, CLOUD_SCORE, L8, IMERG, MODIS, GLO30)
    return world


# Values ----------------------------------------------------------------------------------------------------------


def _rng(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32("/".join(map(str, key)).encode()))


def _field(
    rng: np.random.Generator, lon: np.ndarray, lat: np.ndarray, level: float, swing: float, noise: float
) -> np.ndarray:
    """Waves of 300 m to 3 km, and noise of each pixel."""
    x, y = lon * DEGREE_M * np.cos(np.radians(np.nanmean(lat))), lat * DEGREE_M
    out = np.full(np.shape(lon), level, float)
    for _ in range(4):
        length, angle, phase = rng.uniform(300, 3000), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
        out += swing / 4 * np.sin(2 * np.pi / length * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return out + noise * rng.standard_normal(out.shape)


def _block(projection: Projection, place: Place, half_m: float) -> tuple[int, int, int, int]:
    """Row, column, height, width of the pixels round a place."""
    col, row = projection.from_lonlat(place.lon, place.lat)
    half = max(2, round(half_m / projection.nominal_scale))
    return int(row) - half, int(col) - half, 2 * half, 2 * half


@lru_cache(maxsize=64)
def _degrees(projection: Projection, block: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    row, col, height, width = block
    rows, cols = np.mgrid[row : row + height, col : col + width]
    return convert(projection, Projection(LONLAT), cols + 0.5, rows + 0.5)


def _patch(
    rng: np.random.Generator,
    projection: Projection,
    block: tuple[int, int, int, int],
    look: tuple[float, float, float],
    *,
    finish: Callable[[np.ndarray], np.ndarray] = lambda v: v.astype("float32"),
    holes: float = 0.02,
) -> Patch:
    """A block of values (level, swing, noise), with a share of masked pixels."""
    lon, lat = _degrees(projection, block)
    values = finish(_field(rng, lon, lat, *look))
    return Patch(block[0], block[1], values, rng.random(values.shape) >= holes)


def _cut(patch: Patch, rows: slice = slice(None), cols: slice = slice(None)) -> Patch:
    """Part of a patch."""
    top, left = rows.indices(patch.values.shape[0])[0], cols.indices(patch.values.shape[1])[0]
    return Patch(patch.row + top, patch.col + left, patch.values[rows, cols], patch.valid[rows, cols])


def _footprint(bands: Bands) -> shapely.Geometry:
    """The outline of all patches of the first band, in degrees."""
    first = next(iter(bands.values()))
    parts = []
    for p in first.patches:
        box = shapely.box(p.col, p.row, p.col + p.values.shape[1], p.row + p.values.shape[0])
        parts.append(
            shapely.transform(box, lambda c: np.column_stack(convert(first.projection, Projection(LONLAT), *c.T)))
        )
    return shapely.union_all(parts)


def _whole(low: float, high: float, dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda v: np.clip(np.round(v), low, high).astype(dtype)


def _ms(date: dt.date, hours: float) -> int:
    return int((dt.datetime(date.year, date.month, date.day, tzinfo=dt.UTC).timestamp() + hours * 3600) * 1000)


def _utm_grid(place: Place, zone: int, pixel: float, shift: float = 0.0) -> Projection:
    """A north-up grid of a zone whose origin lies north-west of the place, on whole pixels (plus a shift)."""
    plain = Projection(place.utm(zone))
    x, y = plain.from_lonlat(place.lon, place.lat)
    left, top = (np.round((v + d) / 60) * 60 + shift for v, d in ((x, -6000), (y, 6000)))
    return Projection(plain.crs, (pixel, 0.0, float(left), 0.0, -pixel, float(top)))


# Products --------------------------------------------------------------------------------------------------------


def _sentinel1(world: World, place: Place, day: int, date: dt.date) -> None:
    """Ascending (two slices on one day) every sixth day from the second; descending, in the next zone, from the third.

    On the fourth day an EW image (HH, HV), on the fifth one with VV alone. In the south a pass is a second before midnight.
    """
    late = place.name == "south"
    if day % 6 == 1:
        hours = 24 - 30 / 3600 if late else 17.0
        for number, rows in enumerate((slice(0, 0.6), slice(0.4, 1.0))):
            _s1_image(world, place, date, hours + number * 25 / 3600, place.zone, "ASCENDING", "DV", rows)
    if day % 6 == 2:
        other = place.zone - 1 if place is CENTRE else place.zone
        _s1_image(world, place, date, 5.3, other, "DESCENDING", "DV", slice(0, 1.0))
    if day % 6 == 3:
        _s1_image(world, place, date, 17.1, place.zone, "ASCENDING", "DH", slice(0, 1.0))
    if day % 6 == 4:
        _s1_image(world, place, date, 17.2, place.zone, "ASCENDING", "SV", slice(0, 1.0))


def _s1_image(
    world: World, place: Place, date: dt.date, hours: float, zone: int, orbit: str, mode: str, rows: slice
) -> None:
    polarisations = {"DV": ("VV", "VH"), "DH": ("HH", "HV"), "SV": ("VV",)}[mode]
    name = "EW" if mode == "DH" else "IW"
    index = f"S1A_{name}_GRDH_1S{mode}_{date:%Y%m%d}T{round(hours * 3600):05d}_{orbit[:3]}_{place.name}"
    rng = _rng(index)
    grid = _utm_grid(place, zone, 10.0)
    block = _block(grid, place, place.half_m)
    cut = slice(round(rows.start * block[2]), round(rows.stop * block[2]))
    levels = {"VV": -11.0, "VH": -17.0, "HH": -10.0, "HV": -18.0}
    bands = {
        p: Stored(grid, "float64", (_cut(_patch(rng, grid, block, (levels[p], 4.0, 1.0)), cut),)) for p in polarisations
    }
    # The angle is stored on a coarse, sheared grid of its own.
    left, top = grid.transform[2], grid.transform[5]
    coarse = Projection(grid.crs, (1290.0, -330.0, left + 4000.0, 440.0, -1990.0, top + 4000.0))
    angle = _patch(rng, coarse, _block(coarse, place, place.half_m + 8000), (38.0, 4.0, 0.5), holes=0.0)
    bands["angle"] = Stored(coarse, "float32", (angle,))
    properties = {
        "system:time_start": _ms(date, hours),
        "system:time_end": _ms(date, hours + 25 / 3600),
        "instrumentMode": name,
        "orbitProperties_pass": orbit,
        "transmitterReceiverPolarisation": list(polarisations),
        "resolution_meters": 10,
    }
    world.add(f"{S1}/{index}", bands, properties)


def _sentinel2(world: World, place: Place, day: int, date: dt.date) -> None:
    """Two overlapping tiles of two zones (one tile at far places), on days 1, 3 and 6 of every ten; Cloud Score+ beside.

    The third day's last tile has no Cloud Score+.
    """
    if day % 10 not in (0, 2, 5):
        return
    zones = (place.zone - 1, place.zone) if place is CENTRE else (place.zone,)
    for number, zone in enumerate(zones):
        tile = f"{zone:02d}U{place.name[:2].upper()}"
        index = f"{date:%Y%m%d}T101559_{date:%Y%m%d}T101555_T{tile}_{place.name}"
        rng = _rng("s2", index)
        fine, coarse = _utm_grid(place, zone, 10.0), _utm_grid(place, zone, 20.0)
        share = slice(0, 0.7) if number == 0 else slice(0.3, 1.0)
        share = slice(0, 1.0) if len(zones) == 1 else share
        bands = {}
        for name, level in (("B3", 800), ("B4", 900), ("B8", 2800), ("B11", 2000), ("B12", 1500)):
            grid = coarse if name in ("B11", "B12") else fine
            bands[name] = Stored(grid, "uint16", (_s2_patch(rng, grid, place, share, (level, 600, 40)),))
        properties = {
            "system:time_start": _ms(date, 10.27),
            "CLOUDY_PIXEL_PERCENTAGE": round(float(rng.uniform(0, 60)), 3),
            "MGRS_TILE": tile,
        }
        world.add(f"{S2}/{index}", bands, properties)
        if (day % 10, number) != (5, len(zones) - 1) or place is not CENTRE:
            low = lambda v: np.clip(v, 0, 1).astype("float32")  # noqa: E731
            score = _cut(_patch(rng, fine, _block(fine, place, place.half_m), (0.62, 0.7, 0.05), finish=low, holes=0.0))
            cut = _share(score, share)
            world.add(
                f"{CLOUD_SCORE}/{index}",
                {"cs": Stored(fine, "float64", (cut,)), "cs_cdf": Stored(fine, "float64", (cut,))},
                {"system:time_start": _ms(date, 10.27)},
            )


def _s2_patch(
    rng: np.random.Generator, grid: Projection, place: Place, share: slice, look: tuple[float, float, float]
) -> Patch:
    patch = _patch(rng, grid, _block(grid, place, place.half_m), look, finish=_whole(1, 10000, "uint16"), holes=0.01)
    return _share(patch, share)


def _share(patch: Patch, share: slice) -> Patch:
    width = patch.values.shape[1]
    return _cut(patch, cols=slice(round(share.start * width), round(share.stop * width)))


def _landsat8(world: World, place: Place, day: int, date: dt.date) -> None:
    """Every eighth day from the fourth: two rows of a path that overlap; the second is cloudier on the first such day."""
    if day % 8 != 3:
        return
    zones = (place.zone, place.zone - 1) if place is CENTRE else (place.zone, place.zone)
    for number, (zone, rows) in enumerate(zip(zones, (slice(0, 0.7), slice(0.3, 1.0)), strict=True)):
        index = f"LC08_{100 + place.zone:03d}{25 + number:03d}_{date:%Y%m%d}"
        rng = _rng("l8", place.name, index)
        grid = _utm_grid(place, zone, 30.0, 15.0)
        block = _block(grid, place, 3 * place.half_m)
        cut = slice(round(rows.start * block[2]), round(rows.stop * block[2]))
        bands = {
            name: Stored(grid, "float32", (_cut(_patch(rng, grid, block, (level, 6.0, 0.3), holes=0.0), cut),))
            for name, level in (("B10", 295.0), ("B11", 292.0))
        }
        quality = _patch(rng, grid, block, (0, 1, 0.2), finish=_landsat_quality, holes=0.0)
        bands["QA_PIXEL"] = Stored(grid, "uint16", (_cut(quality, cut),), "sample")
        cover = (12.5, 40.0) if (day // 8) % 2 == 0 else (33.0, 8.0)
        world.add(
            f"{L8}/{index}_{place.name}" if place is not CENTRE else f"{L8}/{index}",
            bands,
            {"system:time_start": _ms(date, 10.03 + number * 24 / 3600), "CLOUD_COVER": cover[number]},
        )


def _landsat_quality(value: np.ndarray) -> np.ndarray:
    """Clear (bit 6, 21824) in most places, cloud (bit 3, 22280), shadow (bit 4, 23888) and cirrus (bit 2) elsewhere."""
    out = np.full(value.shape, 21824, "uint16")
    out[value > 0.35] = 22280
    out[value < -0.45] = 23888
    out[(value > 0.3) & (value <= 0.35)] = 21828
    return out


def _modis(world: World, date: dt.date) -> None:
    """One image of the world a day, on the sinusoidal grid; quality 0 to 3 in bits 0-1."""
    rng = _rng("modis", date)
    side = 926.625433055833
    grid = Projection(SINUSOIDAL, (side, 0.0, -20015109.354, 0.0, -side, 10007554.677))
    blocks = [_block(grid, p, 6000) for p in world.places]
    kelvin = [_patch(rng, grid, b, (14900, 300, 60), finish=_whole(7500, 65535, "uint16"), holes=0.08) for b in blocks]
    quality = [_patch(rng, grid, b, (0.7, 0, 0.9), finish=_modis_quality, holes=0.0) for b in blocks]
    bands = {
        "LST_Day_1km": Stored(grid, "uint16", tuple(kelvin)),
        "QC_Day": Stored(grid, "uint8", tuple(quality), "sample"),
    }
    world.add(f"{MODIS}/{date:%Y_%m_%d}", bands, {"system:time_start": _ms(date, 0)}, shapely.box(-180, -90, 180, 90))


def _modis_quality(value: np.ndarray) -> np.ndarray:
    """0 to 3 in the mandatory bits, with an emissivity bit above."""
    mandatory = np.clip(np.floor(value), 0, 3).astype("uint8")
    return mandatory + np.where(value > 1.5, 64, 0).astype("uint8")


def _imerg(world: World, date: dt.date, half_hours: int) -> None:
    """Half-hourly images of the world, mm h-1, at 0.1 degree; few pixels of some images are masked.

    From the 9th of a month on they are provisional.
    """
    grid = Projection(LONLAT, (0.1, 0.0, -180.0, 0.0, -0.1, 90.0))
    for number in range(half_hours):
        at = dt.datetime(date.year, date.month, date.day) + dt.timedelta(minutes=30 * number)
        rng = _rng("imerg", at)
        rain = [
            _patch(
                rng,
                grid,
                _block(grid, p, 30000),
                (0.2, 0.6, 0.8),
                finish=lambda v: np.maximum(v, 0).astype("float32"),
                holes=0.002,
            )
            for p in world.places
        ]
        world.add(
            f"{IMERG}/{at:%Y%m%d%H%M%S}",
            {"precipitation": Stored(grid, "float32", tuple(rain))},
            {
                "system:time_start": _ms(date, number / 2),
                "status": "provisional" if date.day >= 9 else "permanent",
            },
            shapely.box(-180, -90, 180, 90),
        )


def _elevation(world: World, place: Place) -> None:
    """Tiles of one degree at one arc second, pixel centres on whole degrees; the middle lies where two tiles meet."""
    second = 1 / 3600
    south = int(np.floor(place.lat))
    for west in sorted({int(np.floor(place.lon - 0.06)), int(np.floor(place.lon + 0.06))}):
        grid = Projection(LONLAT, (second, 0.0, west - second / 2, 0.0, -second, south + 1 + second / 2))
        row, col, height, width = _block(grid, place, 3.5 * place.half_m)
        # Half as wide again in longitude, so that the block has about the same metres both ways.
        left, right = max(0, col - width // 4), min(3600, col + width + width // 4)
        if left >= right:
            continue
        block = (row, left, height, right - left)
        rng = _rng("glo30", place.name)
        bands = {"DEM": Stored(grid, "float32", (_patch(rng, grid, block, (420.0, 90.0, 0.5), holes=0.002),))}
        north, east = ("N" if south >= 0 else "S"), ("E" if west >= 0 else "W")
        # Only the pixels around a place are kept, so places of one tile have an image each.
        index = f"Copernicus_DSM_COG_10_{north}{abs(south):02d}_00_{east}{abs(west):03d}_00_DEM_{place.name}"
        world.add(f"{GLO30}/{index}", bands, {"system:time_start": _ms(dt.date(2010, 12, 1), 0)})


def _soil(world: World) -> None:
    """SoilGrids in Homolosine at 250 m (g kg-1), OpenLandMap in degrees (percent): single images of the world."""
    globe = shapely.box(-180, -90, 180, 90)
    grid = Projection(HOMOLOSINE, (250.0, 0.0, -19949750.0, 0.0, -250.0, 8361000.0))
    for part, level in (("sand", 450), ("silt", 330), ("clay", 220)):
        rng = _rng("soil", part)
        bands = {}
        for depth in ("0-5cm", "5-15cm"):
            patches = [
                _patch(rng, grid, _block(grid, p, 5000), (level, 80, 10), finish=_whole(0, 1000, "int16"))
                for p in world.places
            ]
            bands[f"{part}_{depth}_mean"] = Stored(grid, "int16", tuple(patches))
        world.add(f"{SOILGRIDS}{part}_mean", bands, None, globe)
    side = 1 / 480
    plain = Projection(LONLAT, (side, 0.0, -180.0, 0.0, -side, 87.37))
    rng = _rng("openlandmap")
    bands = {}
    for name in ("b0", "b10"):
        patches = [
            _patch(rng, plain, _block(plain, p, 5000), (45, 20, 3), finish=_whole(0, 100, "uint8"))
            for p in world.places
        ]
        bands[name] = Stored(plain, "uint8", tuple(patches))
    world.add(OPENLANDMAP, bands, None, globe)


HOMOLOSINE = "+proj=igh +lat_0=0 +lon_0=0 +datum=WGS84 +units=m +no_defs"
