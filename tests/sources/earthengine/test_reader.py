"""Earth Engine through its real client, against a local server whose world is known: values to the pixel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

pytest.importorskip("ee", reason="needs smgeo[gee]")

from smgeo.catalog import FEATURES
from smgeo.cube.tally import counting_dropped
from smgeo.recipe.rasters import EarthEngineSource
from smgeo.sources import open_earthengine
from smgeo.sources.earthengine.products import list_products
from smgeo.terrain import pixel_sizes_m, slope_aspect
from tests.earthengine_server import Server, build_world
from tests.earthengine_server.world import CENTRE, GLO30, IMERG, L8, MODIS, S1, S2

PERIOD = ("2021-06-01", "2021-06-10")
DAYS = pd.date_range(*PERIOD)
UTM, DEGREES = "EPSG:32633", "EPSG:4326"


@pytest.fixture(scope="module")
def world():
    return build_world(levels=False)


@pytest.fixture(scope="module")
def server(world, tmp_path_factory):
    with Server(world, require_token=True) as running:
        running.key = running.write_key_file(tmp_path_factory.mktemp("ee") / "key.json")
        yield running


@pytest.fixture
def ask(server):
    """Opens a source; counts from zero."""
    server.reset_counters()

    def opened(bands, **options):
        place = {k: options.pop(k) for k in ("geobox", "stations", "catalog") if k in options}
        period = options.pop("period", PERIOD)
        spec = {"bands": bands, "orbit": "ascending", "url": server.url, "credentials": str(server.key), **options}
        return open_earthengine(spec, period=period, **place)

    return opened


def box_around(crs, pixel, height, width, lon=CENTRE.lon, lat=CENTRE.lat, shift=(0.0, 0.0)):
    """A grid near a place whose corner lies on a multiple of 60 (or as many degrees), moved by `shift` pixels."""
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    step = 60 if crs != DEGREES else 6 * pixel
    left, top = round(x / step) * step - width // 2 * pixel, round(y / step) * step + height // 2 * pixel
    corner = Affine.translation(left + shift[0] * pixel, top + shift[1] * pixel)
    return GeoBox((height, width), corner * Affine.scale(pixel, -pixel), crs)


def stations_at(lons, lats):
    ids = np.array([f"N/s{i}" for i in range(len(lons))], dtype=object)
    return xr.Dataset(coords={"station": ids, "longitude": ("station", lons), "latitude": ("station", lats)})


# The slow reference: one place, one image at a time -------------------------------------------------------------


def images_of(world, collection, day, **properties):
    """(properties, bands) of a day's images, in the order of time."""
    found = []
    for asset, bands in world.stored.items():
        known = world.images[asset].properties
        if (
            asset.rsplit("/", 1)[0] != collection
            or pd.Timestamp(known["system:time_start"], unit="ms").floor("D") != day
        ):
            continue
        if all(known[k] == v for k, v in properties.items()):
            found.append((known, bands))
    return sorted(found, key=lambda f: f[0]["system:time_start"])


def ascending(world, day):
    wanted = {"instrumentMode": "IW", "orbitProperties_pass": "ASCENDING"}
    found = images_of(world, S1, day, **wanted)
    return [bands for known, bands in found if {"VV", "VH"} <= set(known["transmitterReceiverPolarisation"])]


def pixel(stored, row, col):
    """A stored pixel; NaN where masked or outside."""
    for p in stored.patches:
        r, c = row - p.row, col - p.col
        if 0 <= r < p.values.shape[0] and 0 <= c < p.values.shape[1] and p.valid[r, c]:
            return float(p.values[r, c])
    return np.nan


def touches(stored, lon, lat):
    """Whether a place lies on the image, masked or not."""
    col, row = (int(np.floor(v)) for v in stored.projection.from_lonlat(np.float64(lon), np.float64(lat)))
    return any(0 <= row - p.row < p.values.shape[0] and 0 <= col - p.col < p.values.shape[1] for p in stored.patches)


def bilinear(stored, lon, lat, change=lambda value, row, col: value):
    """Between the four nearest centres; missing where one that has weight is."""
    col, row = (float(v) - 0.5 for v in stored.projection.from_lonlat(np.float64(lon), np.float64(lat)))
    c, r, total = int(np.floor(col)), int(np.floor(row)), 0.0
    for j in (0, 1):
        for i in (0, 1):
            weight = (row - r if j else 1 - row + r) * (col - c if i else 1 - col + c)
            if weight > 1e-6:
                total += weight * change(pixel(stored, r + j, c + i), r + j, c + i)
    return total


def centres(box):
    """Longitudes and latitudes of a grid's pixel centres, (y, x)."""
    rows, cols = np.mgrid[0 : box.shape.y, 0 : box.shape.x] + 0.5
    a = box.affine
    return Transformer.from_crs(str(box.crs), 4326, always_xy=True).transform(
        a.a * cols + a.b * rows + a.c, a.d * cols + a.e * rows + a.f
    )


def over(box, value):
    """value(lon, lat) at each pixel's centre."""
    lons, lats = centres(box)
    return np.array([value(*place) for place in zip(lons.flat, lats.flat, strict=True)]).reshape(box.shape.yx)


def decibels(power):
    return 10 * np.log10(power)


def mean_power(values):
    """Mean in linear power of the values there are."""
    there = [10 ** (v / 10) for v in values if np.isfinite(v)]
    return decibels(np.mean(there)) if there else np.nan


# Grids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crs", "pixel_size"),
    [(UTM, 10), (UTM, 7), (DEGREES, 1e-4), ("+proj=laea +lat_0=49.9 +lon_0=12 +datum=WGS84 +units=m", 9)],
)
def test_nearest_is_exact_to_the_pixel(ask, world, crs, pixel_size):
    box = box_around(crs, pixel_size, 14, 17, shift=(0.13, 0.21))
    ds = ask(["s1_vv", "s1_vh", "l8_b10"], geobox=box, resampling="nearest", mask=False).compute()
    assert ds.odc.geobox == box
    assert list(ds["time"].values) == list(DAYS.values)
    seen = 0
    for i, day in enumerate(DAYS):
        passes = ascending(world, day)
        for name, band in (("s1_vv", "VV"), ("s1_vh", "VH")):
            truth = over(box, lambda lon, lat: mean_power([s[band].value(lon, lat) for s in passes]))
            np.testing.assert_allclose(ds[name].values[i], truth, rtol=2e-6)
            seen += np.isfinite(truth).sum()
        scenes = sorted(images_of(world, L8, day), key=lambda f: f[0]["CLOUD_COVER"])
        truth = over(box, lambda lon, lat: first_value(b["B10"].value(lon, lat) for _, b in scenes))
        np.testing.assert_allclose(ds["l8_b10"].values[i], truth, rtol=1e-6)
    assert seen > 500


def first_value(values):
    return next((v for v in values if np.isfinite(v)), np.nan)


def test_pixels_of_the_same_grid_are_those_stored(ask, world):
    bands = ascending(world, DAYS[1])[0]
    grid, patch = bands["VV"].projection.transform, bands["VV"].patches[0]
    corner = Affine.translation(grid[2] + 10 * (patch.col + 20), grid[5] - 10 * (patch.row + 5))
    box = GeoBox((12, 9), corner * Affine.scale(10, -10), UTM)
    ds = ask(["s1_vv"], geobox=box).compute()
    stored = np.where(patch.valid, patch.values, np.nan)[5:17, 20:29]
    np.testing.assert_allclose(ds["s1_vv"].values[1], stored, rtol=1e-6)


@pytest.mark.parametrize(("crs", "pixel_size"), [(UTM, 8.0), (DEGREES, 1.1e-4)])
def test_bilinear_in_the_images_own_pixels(ask, world, crs, pixel_size):
    box = box_around(crs, pixel_size, 9, 11, shift=(0.3, 0.4))
    ds = ask(["s1_vv", "s1_incidence", "s2_b11"], geobox=box, resampling="bilinear", mask=False).compute()
    passes = ascending(world, DAYS[1])
    power = lambda v, r, c: 10 ** (v / 10)  # noqa: E731
    for name, truth in (
        ("s1_vv", over(box, lambda lon, lat: decibels(nanmean([bilinear(s["VV"], lon, lat, power) for s in passes])))),
        ("s1_incidence", over(box, lambda lon, lat: nanmean([bilinear(s["angle"], lon, lat) for s in passes]))),
    ):
        np.testing.assert_allclose(ds[name].values[1], truth, rtol=1e-5)
        assert np.isfinite(truth).sum() > 40


def nanmean(values):
    there = [v for v in values if np.isfinite(v)]
    return np.mean(there) if there else np.nan


def test_coarser_pixels_are_means_in_power(ask, world):
    box = box_around(UTM, 30, 8, 8, lat=CENTRE.lat + 0.006)  # one of the two slices
    ds = ask(["s1_vv", "s1_incidence"], geobox=box).compute()
    (product,) = list_products(
        EarthEngineSource(kind="earthengine", bands=["s1_vv", "s1_incidence"], orbit="ascending"), 30
    )
    assert [b.resampling for b in product.bands] == ["average", "bilinear"]
    truth = np.full(box.shape.yx, np.nan)
    for y in range(8):
        for x in range(8):
            powers = []
            for bands in ascending(world, DAYS[1]):
                left, top = box.affine * (x, y)
                grid = bands["VV"].projection.transform
                col, row = round((left - grid[2]) / 10), round((grid[5] - top) / 10)
                values = [pixel(bands["VV"], row + j, col + i) for j in range(3) for i in range(3)]
                powers += [10 ** (v / 10) for v in values if np.isfinite(v)]
            truth[y, x] = decibels(np.mean(powers)) if powers else np.nan
    assert np.isfinite(truth).all()
    np.testing.assert_allclose(ds["s1_vv"].values[1], truth, rtol=1e-5)


def test_coarser_pixels_in_degrees(ask, world):
    box = box_around(DEGREES, 5e-4, 4, 5)
    ds = ask(["l8_b10"], geobox=box, resampling="average", mask=False).compute()
    scenes = sorted(images_of(world, L8, DAYS[3]), key=lambda f: f[0]["CLOUD_COVER"])
    steps = (np.arange(40) + 0.5) / 40
    for y in range(4):
        for x in range(5):
            places = [box.affine * (x + i, y + j) for j in steps for i in steps]
            truth = first_value(nanmean([b["B10"].value(*p) for p in places]) for _, b in scenes)
            assert ds["l8_b10"].values[3, y, x] == pytest.approx(truth, abs=0.02)


def test_the_clearest_image_of_a_day_is_taken_where_it_is_clear(ask, world):
    box = box_around(UTM, 10, 30, 40)
    ds = ask(["s2_b3", "s2_b8"], geobox=box, resampling="nearest").compute()
    shown = set()
    for i in (0, 2, 5):
        tiles = []
        for known, bands in images_of(world, S2, DAYS[i]):
            score = world.stored.get(f"GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED/{known['system:index']}")
            if score is not None:  # without a score nothing says that it is clear
                tiles.append((score["cs"], bands))

        def clearest(lon, lat, band, tiles=tiles):
            seen = [(s.value(lon, lat), b[band].value(lon, lat)) for s, b in tiles]
            good = [(score, v) for score, v in seen if score >= 0.60]
            return max(good)[1] * 1e-4 if good else np.nan

        for name, band in (("s2_b3", "B3"), ("s2_b8", "B8")):
            truth = over(box, lambda lon, lat: clearest(lon, lat, band))
            np.testing.assert_allclose(ds[name].values[i], truth, rtol=1e-5)
            shown |= {bool(v) for v in np.isfinite(truth).ravel()}
    assert shown == {True, False}
    assert ds["s2_b3"].attrs["daily_rule"].startswith("the clearest")


def test_quality_bits_of_landsat_and_modis(ask, world):
    box = box_around(UTM, 30, 40, 40, shift=(0.2, 0.2))
    ds = ask(["l8_b11", "temperature"], geobox=box, resampling="nearest").compute()
    scenes = sorted(images_of(world, L8, DAYS[3]), key=lambda f: f[0]["CLOUD_COVER"])

    def clear(bands, lon, lat):
        quality = bands["QA_PIXEL"].value(lon, lat)
        return bands["B11"].value(lon, lat) if np.isfinite(quality) and int(quality) & 0b11111 == 0 else np.nan

    truth = over(box, lambda lon, lat: first_value(clear(b, lon, lat) for _, b in scenes))
    np.testing.assert_allclose(ds["l8_b11"].values[3], truth, rtol=1e-6)
    assert 0.05 < np.isnan(truth).mean() < 0.95
    missing = 0
    for i, day in enumerate(DAYS):
        ((_, bands),) = images_of(world, MODIS, day)

        def kelvin(lon, lat, bands=bands):
            good = int(bands["QC_Day"].value(lon, lat)) & 3 < 2
            return bands["LST_Day_1km"].value(lon, lat) * 0.02 - 273.15 if good else np.nan

        truth = over(box, kelvin)
        np.testing.assert_allclose(ds["temperature"].values[i], truth, rtol=1e-5)
        missing += np.isnan(truth).any()
    assert missing


def test_rain_is_the_days_sum(ask, world):
    box = box_around(DEGREES, 0.05, 3, 4, shift=(0.2, 0.2))
    ds = ask(["precipitation"], geobox=box, resampling="nearest").compute()
    for i in (0, 9):
        halves = [bands["precipitation"] for _, bands in images_of(world, IMERG, DAYS[i])]
        assert len(halves) == 48
        # A half hour that is missing makes the sum unknown.
        truth = over(box, lambda lon, lat: np.mean([h.value(lon, lat) for h in halves]) * 24)
        assert np.isfinite(truth).any()
        np.testing.assert_allclose(ds["precipitation"].values[i], truth, rtol=1e-5)
    assert ds["precipitation"].attrs["units"] == "mm d-1"
    assert ds["precipitation"].attrs["run"] == "final on 8 days, late on 2 days"


@pytest.mark.parametrize("at_stations", [False, True])
def test_a_day_of_rain_that_lacks_a_half_hour_is_missing(ask, server, world, at_stations):
    """The third day lacks an image; on the other days a place is missing where one of 48 images is masked."""
    box = GeoBox((4, 5), Affine(0.1, 0, CENTRE.lon - 0.23, 0, -0.1, CENTRE.lat + 0.22), DEGREES)
    lons, lats = centres(box)
    whole = server.world.collections[IMERG]
    third = [i for i in whole if pd.Timestamp(i.properties["system:time_start"], unit="ms").floor("D") == DAYS[2]]
    server.world.collections[IMERG] = [i for i in whole if i is not third[7]]
    try:
        where = {"stations": stations_at(lons.ravel(), lats.ravel())} if at_stations else {"geobox": box}
        rain = ask(["precipitation"], **where, resampling="nearest")["precipitation"].compute()
    finally:
        server.world.collections[IMERG] = whole
    got = rain.transpose("time", ...).values.reshape(10, -1)
    lacking = 0
    for i, day in enumerate(DAYS):
        halves = [bands["precipitation"] for _, bands in images_of(world, IMERG, day)]
        truth = np.array([np.mean([h.value(*p) for h in halves]) * 24 for p in zip(lons.flat, lats.flat, strict=True)])
        np.testing.assert_allclose(got[i], truth if i != 2 else np.full(truth.shape, np.nan), rtol=1e-5)
        lacking += np.isnan(truth).sum()
    assert 0 < lacking < 100


def test_values_that_arrive_are_screened_and_counted(ask, world):
    box = box_around(UTM, 10, 12, 12)
    narrow = {**FEATURES, "s1_vv": replace(FEATURES["s1_vv"], valid_range=(-12.0, 10.0))}
    everything = ask(["s1_vv", "elevation"], geobox=box, resampling="nearest").compute()
    narrow["elevation"] = replace(FEATURES["elevation"], missing=(float(everything["elevation"][3, 3]),))
    lazy = ask(["s1_vv", "elevation"], geobox=box, resampling="nearest", catalog=narrow)
    with counting_dropped() as dropped:
        got = lazy.compute(scheduler="synchronous")
    low = everything["s1_vv"] < -12
    assert 0 < low.sum() < np.isfinite(everything["s1_vv"]).sum()
    xr.testing.assert_equal(got["s1_vv"], everything["s1_vv"].where(~low))
    assert dropped == {"s1_vv": {"outside the valid range": int(low.sum())}}
    assert np.isnan(got["elevation"].values[3, 3])
    assert np.isfinite(got["elevation"]).sum() < np.isfinite(everything["elevation"]).sum() <= 144


def test_variables_say_what_they_refer_to(ask):
    stations = stations_at([CENTRE.lon], [CENTRE.lat])
    ds = ask(["s1_vv", "s1_incidence", "elevation", "clay"], stations=stations, refers_to={"clay": "fine earth"})
    assert ds["s1_vv"].attrs["backscatter"] == "sigma0"
    assert ds["s1_incidence"].attrs["incidence_angle"] == "ellipsoid"
    assert ds["elevation"].attrs["vertical_datum"] == "EGM2008 geoid"
    assert ds["clay"].attrs["refers_to"] == "fine earth"


def test_layers_that_do_not_change(ask, world):
    box = box_around(UTM, 20, 12, 12, shift=(0.3, 0.3))
    ds = ask(["clay", "texture_sand", "elevation"], geobox=box, resampling="nearest").compute()
    assert ds["clay"].dims == ("y", "x")
    assert "time" not in ds.coords
    soil = world.stored["projects/soilgrids-isric/clay_mean"]["clay_0-5cm_mean"]
    np.testing.assert_allclose(ds["clay"].values, over(box, soil.value) / 10, rtol=1e-6)
    tiles = [b["DEM"] for asset, b in world.stored.items() if asset.startswith(GLO30)]
    truth = over(box, lambda lon, lat: first_value(t.value(lon, lat) for t in tiles))
    np.testing.assert_allclose(ds["elevation"].values, truth, rtol=1e-6)


@pytest.mark.parametrize(("crs", "pixel_size"), [(UTM, 30), (DEGREES, 3e-4)])
def test_slope_and_aspect_are_those_of_the_whole_elevation(ask, crs, pixel_size):
    box = box_around(crs, pixel_size, 12, 270)  # two blocks
    ds = ask(["elevation", "slope", "aspect"], geobox=box).compute()
    wider = GeoBox((14, 272), box.affine * Affine.translation(-1, -1), box.crs)
    around = ask(["elevation"], geobox=wider).compute()["elevation"].values
    np.testing.assert_array_equal(ds["elevation"].values, around[1:-1, 1:-1])
    slope, aspect = slope_aspect(around, *pixel_sizes_m(wider))
    np.testing.assert_array_equal(ds["slope"].values, slope[1:-1, 1:-1])
    np.testing.assert_array_equal(ds["aspect"].values, aspect[1:-1, 1:-1])
    assert np.isfinite(ds["slope"].values).mean() > 0.3


def test_where_there_is_no_tile_elevation_is_missing(ask, server):
    box = box_around(DEGREES, 1e-3, 3, 3, lon=-30.0, lat=20.0)
    ds = ask(["elevation", "s1_vv"], geobox=box)
    assert np.isnan(ds.compute()["elevation"].values).all()
    assert server.counters.requests["pixels"] == 0


# Stations --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scattered():
    """130 stations: three batches, around the centre and at the far places."""
    rng = np.random.default_rng(0)
    lons, lats = CENTRE.lon + rng.uniform(-8e-3, 8e-3, 130), CENTRE.lat + rng.uniform(-6e-3, 6e-3, 130)
    lons[40:45], lats[40:45] = 149.03 + rng.uniform(-2e-3, 2e-3, 5), -35.02 + rng.uniform(-2e-3, 2e-3, 5)
    lons[100], lats[100] = -105.02, 40.01
    lons[129], lats[129] = 0.5, 10.5  # nothing but global products
    return stations_at(lons, lats)


def test_stations_get_the_pixel_they_lie_in(ask, server, world, scattered):
    names = ["s1_vv", "s1_incidence", "l8_b10", "temperature", "precipitation", "clay", "elevation"]
    ds = ask(names, stations=scattered, mask=False)
    listed = sum(server.counters.requests[k] for k in ("value", "pixels"))
    assert listed == 3 + 3 + 1 + 1 + 3  # Sentinel-1, Landsat and tiles by batch; MODIS and IMERG once
    ds = ds.compute()
    sent = sum(server.counters.requests[k] for k in ("value", "pixels"))
    assert sent == ds.attrs["requests"] == listed + 6 * 3  # a product and 64 stations each
    assert server.counters.longest_list <= 5000
    assert ds["s1_vv"].dims == ("station", "time")
    for s in range(130):
        lon, lat = float(ds["longitude"][s]), float(ds["latitude"][s])
        for i, day in enumerate(DAYS):
            passes = [b for b in ascending(world, day) if touches(b["VV"], lon, lat)]
            assert_close(ds["s1_vv"], s, i, mean_power([b["VV"].value(lon, lat) for b in passes]))
            assert_close(ds["s1_incidence"], s, i, nanmean([b["angle"].value(lon, lat) for b in passes]))
            scenes = sorted(images_of(world, L8, day), key=lambda f: f[0]["CLOUD_COVER"])
            assert_close(ds["l8_b10"], s, i, first_value(b["B10"].value(lon, lat) for _, b in scenes))
            ((_, bands),) = images_of(world, MODIS, day)
            assert_close(ds["temperature"], s, i, bands["LST_Day_1km"].value(lon, lat) * 0.02 - 273.15)
        rain = [b["precipitation"].value(lon, lat) for _, b in images_of(world, IMERG, DAYS[4])]
        assert_close(ds["precipitation"], s, 4, np.mean(rain) * 24)
        soil = world.stored["projects/soilgrids-isric/clay_mean"]["clay_0-5cm_mean"]
        assert ds["clay"].values[s] == pytest.approx(soil.value(lon, lat) / 10, nan_ok=True)
        tiles = [b["DEM"] for asset, b in world.stored.items() if asset.startswith(GLO30)]
        truth = first_value(t.value(lon, lat) for t in tiles)
        assert ds["elevation"].values[s] == pytest.approx(truth, nan_ok=True)


def test_stations_footprint_is_the_mean_of_pixels_whose_centres_lie_within(ask, world):
    stations = stations_at([12.0003, 11.9971, 149.0301], [49.9004, 49.8979, -35.0203])
    names = ["s1_vv", "s1_vh", "s2_b3", "s2_b11", "clay", "elevation"]
    radius = 45.0
    ds = ask(names, stations=stations, radius_m=radius, mask=False).compute()
    assert "footprint" in ds["s1_vv"].attrs
    assert "footprint" not in ds["clay"].attrs  # 250 m pixels: the disc may miss all centres
    soil = world.stored["projects/soilgrids-isric/clay_mean"]["clay_0-5cm_mean"]
    tiles = [b["DEM"] for asset, b in world.stored.items() if asset.startswith(GLO30)]
    found = 0
    for s in range(3):
        place = float(ds["longitude"][s]), float(ds["latitude"][s])
        for i, day in enumerate(DAYS):
            for name, band in (("s1_vv", "VV"), ("s1_vh", "VH")):
                passes = [disc(b[band], *place, radius, lambda v: 10 ** (v / 10)) for b in ascending(world, day)]
                truth = decibels(nanmean(passes))
                assert_close(ds[name], s, i, truth)
                found += np.isfinite(truth)
        assert ds["clay"].values[s] == pytest.approx(soil.value(*place) / 10, nan_ok=True)
        truth = nanmean([v for t in tiles for v in within(t, *place, radius)])  # the first station's disc has two tiles
        assert ds["elevation"].values[s] == pytest.approx(truth, rel=1e-6, nan_ok=True)
        tiles_of_day = []
        for known, bands in images_of(world, S2, DAYS[0]):
            score = world.stored[f"GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED/{known['system:index']}"]["cs"]
            means = [disc(b, *place, radius, float) for b in (score, bands["B3"], bands["B11"])]
            tiles_of_day += [means] if np.isfinite(means[0]) else []
        best = max(tiles_of_day) if tiles_of_day else [np.nan] * 3
        assert_close(ds["s2_b3"], s, 0, best[1] * 1e-4)
        assert_close(ds["s2_b11"], s, 0, best[2] * 1e-4)
    assert found > 4


def disc(stored, lon, lat, radius_m, change):
    """Mean of the valid pixels whose centres lie within a radius."""
    return nanmean([change(v) for v in within(stored, lon, lat, radius_m)])


def within(stored, lon, lat, radius_m):
    """Pixels whose centres lie within a radius, on the ellipsoid."""
    col, row = (int(np.floor(v)) for v in stored.projection.from_lonlat(np.float64(lon), np.float64(lat)))
    back = Transformer.from_crs(stored.projection.crs, 4326, always_xy=True)
    values = []
    for r in range(row - 8, row + 9):
        for c in range(col - 8, col + 9):
            x, y = stored.projection.to_crs(c + 0.5, r + 0.5)
            _, _, metres = Geod(ellps="WGS84").inv(*back.transform(x, y), lon, lat)
            if metres <= radius_m and np.isfinite(value := pixel(stored, r, c)):
                values.append(value)
    return values


def test_slope_at_stations_is_that_of_interpolated_elevations_around(ask, world):
    stations = stations_at([12.0103, 11.9871, 149.0301], [49.9104, 49.8979, -35.0203])
    ds = ask(["slope", "aspect"], stations=stations).compute()
    tiles = [b["DEM"] for asset, b in world.stored.items() if asset.startswith(GLO30)]
    for s in range(3):
        lon, lat = float(ds["longitude"][s]), float(ds["latitude"][s])
        north, east = 30 / 111_200, 30 / (111_320 * np.cos(np.radians(lat)))
        z = np.array(
            [
                [first_value(bilinear(t, lon + i * east, lat + j * north) for t in tiles) for i in (-1, 0, 1)]
                for j in (1, 0, -1)
            ]
        )
        slope, aspect = slope_aspect(z, 30.0, 30.0)
        assert ds["slope"].values[s] == pytest.approx(slope[1, 1], abs=0.3)
        assert abs((ds["aspect"].values[s] - aspect[1, 1] + 180) % 360 - 180) < 2


def test_static_products_have_the_size_of_their_pixels(ask):
    stations = stations_at([12.0103], [49.9104])
    ds = ask(["s1_vv", "clay", "elevation", "slope"], stations=stations)
    sizes = {n: ds[n].attrs["pixel_size_m"] for n in ds.data_vars if "pixel_size_m" in ds[n].attrs}
    assert sizes == {"clay": 250.0, "elevation": 30.9}  # the slope is that of the station's own place


def test_the_day_is_that_of_utc(ask, world):
    """In the south a pass begins 30 s before midnight; its second slice begins 25 s later, on the same day."""
    stations = stations_at([149.0301], [-35.0203])
    ds = ask(["s1_vv"], stations=stations).compute()
    seen = [str(d.date()) for d in pd.DatetimeIndex(ds["time"].values[np.isfinite(ds["s1_vv"].values[0])])]
    assert seen == ["2021-06-02", "2021-06-08"]


def assert_close(variable, station, time, truth):
    assert variable.values[station, time] == pytest.approx(truth, rel=2e-6, nan_ok=True), (station, time)
