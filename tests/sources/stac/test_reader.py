"""STAC: an API and a static catalogue of real scenes over HTTP; every valid pixel of a day kept, numbers as items say."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import dask
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import xarray as xr
from dask.distributed import Client
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.transform import from_origin
from rasterio.warp import Resampling, calculate_default_transform, reproject

from smgeo.catalog import Feature
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.recipe.rasters import StacSource
from smgeo.sources import retry
from smgeo.sources.scenes import files
from smgeo.sources.stac import search as stac_search
from smgeo.sources.stac.reader import _areas, open_stac
from tests.range_server import RangeServer, collection

S2 = {"bands": {"s2_b3": "s2_b3", "s2_b4": "s2_b4"}}
PERIOD = ("2022-11-01", "2023-03-31")
EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
]


def forbid(*args, **kwargs):
    raise AssertionError("computed, where nothing must be")


# The catalogue: files of real values, and items as the large catalogues write them


def write(path, values, crs, transform, nodata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    tile = {"tiled": True, "blockxsize": 64, "blockysize": 64} if values.shape[0] >= 64 else {}
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype=values.dtype, crs=crs,
        transform=transform, nodata=nodata, compress="deflate", **tile,
    ) as dst:  # fmt: skip
        dst.write(values, 1)
    return path


def item_of(name, moment, files, collection, folder, bands=None, **properties):
    """An item over files that lie in `folder`; assets say their grids, and `bands` what else they say."""
    assets, boxes = {}, []
    for key, path in files.items():
        with rasterio.open(path) as src:
            boxes.append(rasterio.warp.transform_bounds(src.crs, "EPSG:4326", *src.bounds))
            assets[key] = {
                "href": path.relative_to(folder).as_posix(),
                "type": "image/tiff; application=geotiff",
                "roles": ["data"],
                "proj:shape": list(src.shape),
                "proj:transform": list(src.transform)[:6],
                **(bands or {}).get(key, {}),
            }
            properties["proj:epsg"] = src.crs.to_epsg()
    west, south, east, north = (f(b[i] for b in boxes) for i, f in enumerate((min, min, max, max)))
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": EXTENSIONS,
        "id": name,
        "collection": collection,
        "bbox": [west, south, east, north],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": moment, **properties},
        "links": [],
        "assets": assets,
    }


# How the numbers of Sentinel-2 are written: what is added to the reflectance * 10000, and what the item says of it.
STYLES = [
    (1000, {"s2:processing_baseline": "05.09"}, {}),
    (0, {"s2:processing_baseline": "03.01"}, {}),
    (
        0,
        {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True},
        {"raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]},
    ),
    (500, {"s2:processing_baseline": "05.09"}, {"raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.05}]}),
    (500, {}, {"bands": [{"nodata": 0, "raster:scale": 0.0001, "raster:offset": -0.05}]}),
]


def lachish(data, folder):
    """Items of the real Sentinel-2 scenes, one tile name in each of two zones, pixels blanked and clouded at random."""
    rng = np.random.default_rng(7)
    features, truth = [], {}
    for n, path in enumerate(sorted((data / "s2_lachish" / "BOA").glob("*.tif"))):
        _, date, tile = path.stem.split("_")
        name = f"S2_{tile}_{date}"
        crs = "EPSG:32636" if tile == "T36RXV" else "EPSG:32637"
        added, properties, said = STYLES[n % len(STYLES)]
        with rasterio.open(path) as src:
            transform, width, height = calculate_default_transform(
                src.crs, crs, src.width, src.height, *src.bounds, resolution=10
            )
            blank = rng.random((height, width)) < 0.3
            cloud = np.kron(rng.random((-(-height // 10), -(-width // 10))) < 0.2, np.ones((5, 5), bool))
            scl = np.where(cloud[: -(-height // 2), : -(-width // 2)], 9, 4).astype("uint8")
            written, reflectance = {}, {}
            for key, band in (("B03", 3), ("B04", 4)):
                moved = np.full((height, width), np.nan, dtype="float32")
                reproject(
                    src.read(band), moved, src_transform=src.transform, src_crs=src.crs, src_nodata=np.nan,
                    dst_transform=transform, dst_crs=crs, dst_nodata=np.nan, resampling=Resampling.nearest,
                )  # fmt: skip
                moved[blank] = np.nan
                numbers = np.where(np.isnan(moved), 0, np.round(moved) + added).astype("uint16")
                written[key] = write(folder / name / f"{key}.tif", numbers, crs, transform)
                found = (numbers - float(added)) / 10000
                # The number 0 is no data: a pixel of reflectance 0 that nothing was added to is one. Beyond 0 to 1.5 there is none.
                reflectance[key] = np.where((numbers == 0) | (found < 0) | (found > 1.5), np.nan, found)
        wide = rasterio.Affine(20, 0, transform.c, 0, -20, transform.f)
        written["SCL"] = write(folder / name / "SCL.tif", scl, crs, wide)
        cover = float(rng.integers(0, 90))
        features.append(
            item_of(
                name, f"{date}T08:2{n % 10}:00Z", written, "sentinel-2-l2a", folder,
                {"B03": said, "B04": said}, **properties, **{"eo:cloud_cover": cover, "sat:orbit_state": "descending"},
            )
        )  # fmt: skip
        masked = np.kron(scl == 9, np.ones((2, 2), bool))[:height, :width]
        truth[name] = SimpleNamespace(
            day=date, cloud=cover, crs=crs, transform=transform, masked=masked, values=reflectance
        )
    return features, truth


def newyork(data, folder):
    """Items of the real Landsat 8 scenes, as level 1 of collection 1 has them."""
    features = []
    for scene in sorted((data / "l8_newyork" / "L8NY18").iterdir()):
        parts = scene.name.split("_")
        written = {}
        for key in ("B10", "B11", "BQA"):
            (source,) = scene.glob(f"*_{key}.TIF")
            target = folder / "l8" / source.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(source.read_bytes())
            written[key] = target
        radiance = {"raster:bands": [{"nodata": 0, "scale": 3.342e-4, "offset": 0.1}]}
        date = f"{parts[3][:4]}-{parts[3][4:6]}-{parts[3][6:]}"
        cover = {"eo:cloud_cover": float(int(parts[3]) % 37)}
        bands = {"B10": radiance, "B11": radiance}
        features.append(item_of(scene.name, f"{date}T15:40:00Z", written, "landsat-c1-l1", folder, bands, **cover))
    return features


def radar(folder):
    """Two passes a day of 2 x 3 pixels of linear power, ascending and descending, RTC; and one of GRD."""
    features = []
    for name, state, power, kind in (
        ("a1", "ascending", 0.1, "rtc"),
        ("a2", "ascending", 0.01, "rtc"),
        ("d1", "descending", 1.0, "rtc"),
        ("g1", "ascending", 0.5, "grd"),
    ):
        path = write(
            folder / "s1" / f"{name}.tif",
            np.full((2, 3), power, "float32"),
            "EPSG:32636",
            from_origin(700000, 3500000, 10, 10),
        )
        features.append(
            item_of(
                name, "2020-06-01T03:00:00Z", {"vv": path}, f"sentinel-1-{kind}", folder,
                {"vv": {"raster:bands": [{"nodata": -32768, "data_type": "float32"}]}},
                **{"sat:orbit_state": state, "sar:product_type": kind.upper()},
            )
        )  # fmt: skip
    return features


def static_catalogue(folder, features):
    """catalog.json -> a catalogue in between -> collections -> years -> items, all by relative links."""

    def put(path, values):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def catalog(name, links):
        links = [{"rel": "child", "href": h} for h in links]
        return {"type": "Catalog", "id": name, "description": name, "stac_version": "1.0.0", "links": links}

    ids = list(dict.fromkeys(f["collection"] for f in features))
    put(folder / "catalog.json", catalog("root", ["./space/catalog.json"]))
    put(folder / "space" / "catalog.json", catalog("space", [f"./{c}/collection.json" for c in ids]))
    for c in ids:
        mine = [f for f in features if f["collection"] == c]
        years = sorted({f["properties"]["datetime"][:4] for f in mine})
        links = [{"rel": "child", "href": f"./{y}/catalog.json"} for y in years]
        put(folder / "space" / c / "collection.json", {**collection(c, "."), "links": links})
        for y in years:
            here = [f for f in mine if f["properties"]["datetime"].startswith(y)]
            links = [{"rel": "item", "href": f"./{f['id']}.json"} for f in here]
            put(folder / "space" / c / y / "catalog.json", {**catalog(y, []), "links": links})
            for f in here:
                assets = {k: {**a, "href": f"../../../{a['href']}"} for k, a in f["assets"].items()}
                put(folder / "space" / c / y / f"{f['id']}.json", {**f, "assets": assets})


def absolute(features, url):
    out = copy.deepcopy(features)
    for asset in (a for feature in out for a in feature["assets"].values()):
        asset["href"] = f"{url}/{asset['href']}"
    return out


@pytest.fixture(scope="module")
def world(data, tmp_path_factory):
    """The folder, its items with relative addresses, and what is true of the Sentinel-2 scenes."""
    folder = tmp_path_factory.mktemp("stac")
    s2, truth = lachish(data, folder)
    features = s2 + newyork(data, folder) + radar(folder)
    static_catalogue(folder, features)
    with rasterio.open(next((data / "s2_lachish" / "BOA").glob("*.tif"))) as src:
        box = GeoBox(src.shape, src.transform, src.crs)
    return SimpleNamespace(folder=folder, features=features, truth=truth, box=box, data=data)


@pytest.fixture
def server(world):
    with RangeServer(world.folder) as server:
        server.features = absolute(world.features, server.url)
        yield server


@pytest.fixture
def quick(monkeypatch):
    """Pauses before trying again are short."""
    monkeypatch.setattr(retry.time, "sleep", lambda s: None)
    monkeypatch.setitem(files._REMOTE, "GDAL_HTTP_RETRY_DELAY", "0.01")


def api(server):
    return {"url": f"{server.url}/api"}


def static(server):
    return {"url": f"{server.url}/catalog.json"}


def moved(own, scene, box, method):
    """One file's values on the grid: of the pixel that holds a centre, or interpolated between the four around it."""
    columns, rows = np.meshgrid(np.arange(box.shape.x) + 0.5, np.arange(box.shape.y) + 0.5)
    x, y = box.affine * (columns, rows)
    x, y = Transformer.from_crs(str(box.crs), scene.crs, always_xy=True).transform(x, y)
    c, r = ~scene.transform * (np.asarray(x), np.asarray(y))
    padded = np.pad(own, 1, constant_values=np.nan)  # pixel (i, j) is at (i + 1, j + 1), and what is beside it missing

    def at(i, j):
        return padded[np.clip(i + 1, 0, own.shape[0] + 1), np.clip(j + 1, 0, own.shape[1] + 1)]

    holder = at(np.floor(r).astype(int), np.floor(c).astype(int))
    if method == "nearest":
        return holder
    top, left = np.floor(r - 0.5).astype(int), np.floor(c - 0.5).astype(int)
    total, weight = np.zeros(c.shape), np.zeros(c.shape)
    for i in (0, 1):
        for j in (0, 1):
            value = at(top + i, left + j)
            w = (1 - abs(r - 0.5 - top - i)) * (1 - abs(c - 0.5 - left - j)) * np.isfinite(value)
            total, weight = total + w * np.nan_to_num(value), weight + w
    # As in GDAL, interpolation does not reach under a cloud.
    return np.where(np.isnan(holder), np.nan, total / np.where(weight > 0, weight, np.nan)).astype("float32")


def reference(world, key, masked=True, method="bilinear"):
    """day -> values on the grid, slowly: each file moved by itself, the clearest first, all others where it has none."""
    days = {}
    for name in sorted(world.truth, key=lambda n: (world.truth[n].cloud, n)):
        scene = world.truth[name]
        own = np.where(scene.masked & masked, np.nan, scene.values[key]).astype("float32")
        here = moved(own, scene, world.box, method)
        so_far = days.setdefault(scene.day, np.full_like(here, np.nan))
        for i in range(here.shape[0]):
            for j in range(here.shape[1]):
                if np.isnan(so_far[i, j]):
                    so_far[i, j] = here[i, j]
    return dict(sorted(days.items()))


# Values on a grid


def test_every_valid_pixel_of_a_day_is_kept(server, world):
    ds = open_stac({**api(server), **S2}, geobox=world.box, period=PERIOD)
    assert ds["s2_b3"].dims == ("time", "y", "x")
    assert ds["s2_b3"].dtype == "float32"
    assert ds.sizes["time"] == 151
    days = [str(d)[:10] for d in ds["time"].values]
    for key, name in (("B03", "s2_b3"), ("B04", "s2_b4")):
        values = ds[name].values
        truth = reference(world, key)
        assert len(truth) == 11
        for day, expected in truth.items():
            np.testing.assert_allclose(values[days.index(day)], expected, rtol=1e-5, atol=1e-8, err_msg=day)
        others = [i for i, d in enumerate(days) if d not in truth]
        assert np.isnan(values[others]).all()
    # Two files of one day give more pixels than the one that has most.
    alone = reference(
        SimpleNamespace(**{**vars(world), "truth": {k: v for k, v in world.truth.items() if "SXA" in k}}), "B03"
    )
    both = truth["2022-11-11"]
    assert np.isfinite(both).sum() > 1.1 * np.isfinite(alone["2022-11-11"]).sum()


def test_values_are_the_originals_within_resampling(server, world):
    """Reflectance times 10000 lies between the least and the largest of the original's pixels around it."""
    ds = open_stac({**api(server), **S2, "mask": False}, geobox=world.box)
    assert ds.sizes["time"] == 11
    path = world.data / "s2_lachish" / "BOA" / "BOA_2022-12-31_T36SXA.tif"
    with rasterio.open(path) as src:
        original = src.read(4)
    padded = np.pad(original, 3, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, (7, 7)).reshape(*original.shape, 49)
    got = ds["s2_b4"].sel(time="2022-12-31").values * 10000
    seen = np.isfinite(got)
    assert seen.mean() > 0.2
    low, high = np.min(around, -1, where=np.isfinite(around), initial=np.inf), np.nanmax(np.nan_to_num(around), -1)
    assert (got[seen] >= low[seen] - 1).all()
    assert (got[seen] <= high[seen] + 1).all()


def test_masked_pixels_are_missing_and_mask_false_reads_them(server, world):
    clear = open_stac({**api(server), **S2}, geobox=world.box)["s2_b3"].values
    all_of_it = open_stac({**api(server), **S2, "mask": False}, geobox=world.box)["s2_b3"].values
    assert np.isfinite(all_of_it[np.isfinite(clear)]).all()
    assert np.isfinite(all_of_it).sum() > 1.02 * np.isfinite(clear).sum()
    # Without a quality band it is the mean of a day's scenes, of one scene its own values.
    expected = reference(world, "B03", masked=False)["2023-01-10"]
    np.testing.assert_allclose(all_of_it[list(reference(world, "B03")).index("2023-01-10")], expected, rtol=1e-5)


def test_api_by_get_or_post_and_static_catalogue_give_the_same(server, world):
    first = open_stac({**api(server), **S2}, geobox=world.box, period=PERIOD).compute()
    assert {m for m, p in server.requests if p == "/api/search"} == {"POST"}
    assert len(server.gets("/api/search")) == 3  # 20 items by 7
    server.requests.clear()
    server.methods = ("GET",)
    again = open_stac({**api(server), **S2}, geobox=world.box, period=PERIOD).compute()
    assert {m for m, p in server.requests if p == "/api/search"} == {"GET"}
    walked = open_stac({**static(server), **S2}, geobox=world.box, period=PERIOD).compute()
    on_disk = open_stac({"url": "catalog.json", **S2}, root=world.folder, geobox=world.box, period=PERIOD).compute()
    for other in (again, walked, on_disk):
        xr.testing.assert_equal(first.drop_vars("day_inputs"), other.drop_vars("day_inputs"))
    assert np.isfinite(first["s2_b3"].values).any()


def test_landsat_with_its_quality_bits(server, world):
    """Brightness temperature (USGS LSDS-1574) and BQA bits (LSDS-1656), computed by hand on one scene's own grid."""
    folder = world.folder / "l8"
    (b10,) = folder.glob("LC08_L1TP_014032_20180615_B10.TIF")
    with rasterio.open(b10) as src:
        numbers, box = src.read(1).astype("float64"), GeoBox(src.shape, src.transform, src.crs)
    with rasterio.open(str(b10).replace("B10", "BQA")) as src:
        flags = src.read(1).astype(int)
    spec = {
        **static(server),
        "collections": ["landsat-c1-l1"],
        "bands": {"l8_b10": "B10"},
        "quality": {"band": "BQA", "rule": "landsat_c1"},
        "convert": {"l8_b10": "landsat8_b10_to_kelvin"},
    }
    got = open_stac(spec, geobox=box, period=("2018-06-15", "2018-06-15"))["l8_b10"]
    assert got.attrs["units"] == "K"
    assert "clearest" in got.attrs["daily_rule"]
    expected = np.full(numbers.shape, np.nan)
    for i in range(numbers.shape[0]):
        for j in range(numbers.shape[1]):
            f = flags[i, j]
            bad = f & 1 or f >> 4 & 1 or f >> 7 & 3 == 3 or f >> 11 & 3 == 3
            if not bad and numbers[i, j]:
                expected[i, j] = 1321.0789 / np.log(774.8853 / (3.342e-4 * numbers[i, j] + 0.1) + 1)
    assert 0.1 < np.isfinite(expected).mean() < 0.9
    np.testing.assert_allclose(got.values[0], expected, rtol=1e-5)


def test_recipe_goes_before_item_and_table(server, world):
    spec = {
        **api(server),
        "bands": ["s2_b3"],
        "scale": {"s2_b3": 5e-5},
        "offset": {"s2_b3": 0},
        "nodata": 7,
        "mask": False,
    }
    got = open_stac({**spec, "resampling": "nearest"}, geobox=world.box, period=("2023-01-10", "2023-01-10"))["s2_b3"]
    scene = world.truth["S2_T36RXV_2023-01-10"]
    with rasterio.open(world.folder / "S2_T36RXV_2023-01-10" / "B03.tif") as src:
        stored = src.read(1)
    assert scene.crs == "EPSG:32636"
    numbers = got.values[np.isfinite(got.values)] / 5e-5
    np.testing.assert_allclose(numbers, np.round(numbers), atol=0.01)
    assert set(np.round(numbers)) <= set(stored.ravel())
    assert (got.values == 0).any()  # the missing value that the item gives is one no more


# Sentinel-1


RADAR_BOX = GeoBox((2, 3), from_origin(700000, 3500000, 10, 10), "EPSG:32636")
S1 = {"bands": ["s1_vv"]}


def test_one_kind_of_pass_averaged_in_linear_power(server):
    ds = open_stac({**api(server), **S1, "orbit": "ascending"}, geobox=RADAR_BOX)
    # (0.1 + 0.01) / 2 = 0.055; 10 log10(0.055) = -12.596 dB
    np.testing.assert_allclose(ds["s1_vv"].values, np.full((1, 2, 3), -12.596373), rtol=1e-6)
    assert "ascending passes" in ds["s1_vv"].attrs["source"]
    assert "gamma0" in ds["s1_vv"].attrs["source"]
    down = open_stac({**api(server), **S1, "orbit": "descending"}, geobox=RADAR_BOX)
    np.testing.assert_allclose(down["s1_vv"].values, np.zeros((1, 2, 3)), atol=1e-6)


def test_both_passes_are_refused(server):
    with pytest.raises(SmgeoError, match="orbit: ascending or descending"):
        open_stac({**api(server), **S1}, geobox=RADAR_BOX)


def test_sigma0_and_gamma0_are_not_mixed(server):
    for feature in server.features:
        if feature["collection"] == "sentinel-1-grd":  # calibrated and geocoded by someone
            feature["collection"] = "my-sigma0"
    spec = {**api(server), **S1, "orbit": "ascending", "collections": ["sentinel-1-rtc", "my-sigma0"]}
    with pytest.raises(SmgeoError, match=r"sigma0 \(GRD\) and gamma0 \(RTC\)"):
        open_stac(spec, geobox=RADAR_BOX)
    only = open_stac({**spec, "collections": ["my-sigma0"]}, geobox=RADAR_BOX)["s1_vv"]
    assert only.attrs["backscatter"] == "sigma0"
    assert "gamma0" not in only.attrs["source"]
    np.testing.assert_allclose(only, np.full((1, 2, 3), -3.0103), rtol=1e-6)  # 10 log10(0.5)


@pytest.mark.parametrize("bands", [{"s1_vv": "s1_vv"}, {"s1_vv": "vv"}])
def test_digital_numbers_of_grd_are_refused(server, bands):
    spec = {**api(server), "bands": bands, "orbit": "ascending", "collections": ["sentinel-1-grd"]}
    with pytest.raises(SmgeoError, match=r"sentinel-1-grd has digital numbers .*collections: \[sentinel-1-rtc\]"):
        open_stac(spec, geobox=RADAR_BOX)
    assert not server.requests  # before the catalogue is searched


def test_orbit_is_no_matter_of_optical_scenes(server, world):
    ds = open_stac({**api(server), "bands": ["s2_b3"], "orbit": "ascending"}, geobox=world.box)
    assert ds.sizes["time"] == 11


# Choice of items


def test_cloudy_items_are_left_out(server, world):
    worst = sorted(s.cloud for s in world.truth.values())[8]
    ds = open_stac({**api(server), "bands": ["s2_b3"], "max_cloud_cover": worst}, geobox=world.box)
    expected = {s.day for s in world.truth.values() if s.cloud <= worst}
    assert {str(d)[:10] for d in ds["time"].values} == expected


@pytest.mark.parametrize("conforms", [("item-search", "query"), ("item-search",)])
@pytest.mark.parametrize("where", [api, static])
def test_query_holds_whoever_answers_it(server, world, where, conforms):
    server.conforms = conforms
    spec = {**where(server), "bands": ["s2_b3"], "query": {"s2:processing_baseline": {"eq": "03.01"}}}
    ds = open_stac(spec, geobox=world.box)
    features = [f for f in world.features if f["properties"].get("s2:processing_baseline") == "03.01"]
    assert {str(d)[:10] for d in ds["time"].values} == {f["properties"]["datetime"][:10] for f in features}


@pytest.mark.parametrize(
    ("baseline", "scale", "expected"),
    [("03.01", 1e-4, 0.3), ("05.09", 1e-4, 0.2), ("05.09", 1, 2000), ("05.09", None, 2000)],
)
def test_a_sentinel_2_band_by_its_assets_name_has_its_offset_too(tmp_path, baseline, scale, expected):
    """The number 3000 is reflectance 0.3 before baseline 04.00, 0.2 from it on, whatever the variable is called."""
    path = write(
        tmp_path / "b02.tif", np.full((2, 3), 3000, "uint16"), "EPSG:32636", from_origin(700000, 3500000, 10, 10)
    )
    item = item_of(
        "x", "2022-06-01T08:00:00Z", {"B02": path}, "sentinel-2-l2a", tmp_path, **{"s2:processing_baseline": baseline}
    )
    static_catalogue(tmp_path, [item])
    blue = Feature("blue", "reflectance, blue", "1", "dynamic", "Sentinel-2", (0.0, 1e4), 5.0)
    spec = {"url": str(tmp_path / "catalog.json"), "bands": {"blue": "B02"}, "collections": ["sentinel-2-l2a"]}
    spec |= {} if scale is None else {"scale": {"blue": scale}}
    found = open_stac(spec, catalog={"blue": blue})["blue"].values
    np.testing.assert_allclose(found, np.full((1, 2, 3), expected), rtol=1e-6)


def test_period_and_day_are_utc(server, world):
    for feature in server.features:
        if feature["id"] == "a1":
            feature["properties"] |= {
                "datetime": None,
                "start_datetime": "2020-06-01T23:59:59Z",
                "end_datetime": "2020-06-02T00:00:30Z",
            }
    ds = open_stac({**api(server), **S1, "orbit": "ascending"}, geobox=RADAR_BOX, period=("2020-06-01", "2020-06-01"))
    np.testing.assert_allclose(ds["s1_vv"].values, np.full((1, 2, 3), -12.596373), rtol=1e-6)


def test_areas_of_stations_skip_what_lies_between():
    lons, lats = np.array([8.4, 8.6, 179.99, -70.5]), np.array([50.5, 50.1, 0.0, 10.0])
    areas = stac_search.areas_of_stations(lons, lats, margin=0.05)
    expected = [
        (-70.55, 9.95, -70.45, 10.05),
        (8.35, 50.05, 8.65, 50.55),
        (179.94, -0.05, 180, 0.05),
        (-180, -0.05, -179.96, 0.05),
    ]
    np.testing.assert_allclose(areas, expected)


def test_grid_over_the_180th_meridian_is_two_areas():
    box = GeoBox((10, 10), from_origin(800000, 1000000, 20000, 20000), "EPSG:32660")
    west, east = stac_search.areas_of_grid(box)
    assert west[2] == 180
    assert east[0] == -180
    assert west[1] == east[1]


# Stations


def stations_of(world, rows, columns):
    x, y = world.box.affine * (np.array(columns) + 0.5, np.array(rows) + 0.5)
    ids = np.array([f"N/s{i}" for i in range(len(rows))], dtype=object)
    return xr.Dataset(coords={"station": ids, "latitude": ("station", y), "longitude": ("station", x)})


def test_stations_get_the_pixel_they_lie_in(server, world):
    rows, columns = [40, 55, 60, 70], [50, 60, 75, 80]
    stations = stations_of(world, rows, columns)
    ds = open_stac({**api(server), "bands": ["s2_b3"]}, stations=stations, period=PERIOD)
    assert ds["s2_b3"].dims == ("station", "time")
    days = [str(d)[:10] for d in ds["time"].values]
    got = ds["s2_b3"].values
    nearest = reference(world, "B03", method="nearest")
    expected = np.full(got.shape, np.nan, dtype="float32")
    for day, values in nearest.items():
        expected[:, days.index(day)] = values[rows, columns]
    assert np.isfinite(expected).sum() > 5
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert json.loads(ds.attrs["left_out"]) == {}


def test_footprint_is_the_mean_of_the_pixels_around(server, world):
    stations = stations_of(world, [55], [60])
    spec = {**api(server), "bands": ["s2_b3"], "radius_m": 35, "mask": False}
    got = open_stac(spec, stations=stations, period=("2023-01-10", "2023-01-10"))["s2_b3"].values
    scene = world.truth["S2_T36RXV_2023-01-10"]
    x, y = rasterio.warp.transform("EPSG:4326", scene.crs, stations["longitude"].values, stations["latitude"].values)
    total = []
    for i in range(scene.values["B03"].shape[0]):
        for j in range(scene.values["B03"].shape[1]):
            px, py = scene.transform * (j + 0.5, i + 0.5)
            # 35 m on the ellipsoid are 35.01 m in the projection here; no pixel's centre lies in between.
            if np.hypot(px - x[0], py - y[0]) <= 35.005 and np.isfinite(scene.values["B03"][i, j]):
                total.append(scene.values["B03"][i, j])
    assert len(total) > 10
    np.testing.assert_allclose(got, [[np.mean(total)]], rtol=1e-5)


def test_station_that_no_item_covers_is_left_out(server, world):
    stations = stations_of(world, [55, 5000], [60, 60])
    ds = open_stac({**api(server), "bands": ["s2_b3"]}, stations=stations, period=PERIOD)
    assert list(json.loads(ds.attrs["left_out"])) == ["N/s1"]
    assert np.isnan(ds["s2_b3"].values[1]).all()


# Laziness, items without a projection


def test_opening_asks_only_for_samples_of_two_items(server, world):
    with dask.config.set(scheduler=forbid):
        ds = open_stac({**api(server), **S2}, geobox=world.box, period=PERIOD)
    assert len({p.split("/")[1] for p in server.gets(".tif")}) == 2
    server.requests.clear()
    assert len(ds["s2_b3"].data.__dask_graph__().to_dict()) == 2 * 6  # 151 days in blocks of 30
    ds["s2_b3"].isel(time=slice(0, 30)).compute()
    assert {p.split("/")[1] for p in server.gets(".tif")} == {"S2_T36RXV_2022-11-11", "S2_T36SXA_2022-11-11"}


def test_items_that_do_not_say_their_projection_are_read_by_their_headers(server, world):
    expected = open_stac({**api(server), **S2}, geobox=world.box).compute()
    for n, feature in enumerate(server.features):
        if n % 3 == 0:  # nothing of it
            feature["stac_extensions"] = EXTENSIONS[1:]
            feature["properties"].pop("proj:epsg")
        for asset in feature["assets"].values():
            if n % 3 == 0 or (n % 3 == 1 and asset["href"].endswith("B03.tif")):  # of one asset
                asset.pop("proj:shape"), asset.pop("proj:transform")
    got = open_stac({**api(server), **S2}, geobox=world.box).compute()
    xr.testing.assert_equal(got.drop_vars("day_inputs"), expected.drop_vars("day_inputs"))


@pytest.mark.parametrize(
    "names",
    [
        {"eo:bands": [{"name": "rain"}, {"name": "snow"}], "raster:bands": [{"scale": 1}, {"scale": 10}]},
        {"bands": [{"name": "rain"}, {"name": "snow", "raster:scale": 10}]},
    ],
)
def test_band_of_many_in_an_asset_is_found_by_its_name(tmp_path, names):
    values = np.stack([np.full((2, 3), v, "float32") for v in (1, 2)])
    path = tmp_path / "both.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=2, width=3, count=2, dtype="float32", crs="EPSG:32636",
        transform=RADAR_BOX.affine,
    ) as dst:  # fmt: skip
        dst.write(values)
    feature = item_of("x", "2020-01-01T00:00:00Z", {"image": path}, "weather", tmp_path, {"image": names})
    static_catalogue(tmp_path, [feature])
    spec = {"url": str(tmp_path / "catalog.json"), "collections": ["weather"], "bands": {"precipitation": "snow"}}
    ds = open_stac(spec)
    assert ds.odc.geobox == RADAR_BOX
    np.testing.assert_allclose(ds["precipitation"].values, np.full((1, 2, 3), 20))


def many_bands(path, values, names=(), **tags):
    """A file of one uint16 number a band, 2 x 3 pixels."""
    with rasterio.open(
        path, "w", driver="GTiff", height=2, width=3, count=len(values), dtype="uint16", crs="EPSG:32636",
        transform=RADAR_BOX.affine,
    ) as dst:  # fmt: skip
        dst.write(np.stack([np.full((2, 3), v, "uint16") for v in values]))
        for number, name in enumerate(names, start=1):
            dst.set_band_description(number, name)
        for name, value in tags.items():
            setattr(dst, name, value)
    return path


def one_item(folder, files, collection_id, bands=None, **properties):
    """The address of a static catalogue of one item, of 2022-06-01."""
    item = item_of("x", "2022-06-01T08:00:00Z", files, collection_id, folder, bands, **properties)
    item["stac_extensions"] = EXTENSIONS[:1]  # what it says of bands it does not declare
    static_catalogue(folder, [item])
    return {"url": str(folder / "catalog.json"), "collections": [collection_id]}


NUMBERS = range(1000, 13000, 1000)  # band n of 12 has 1000 n
TWELVE = [f"B{n:02d}" for n in range(1, 13)]
LISTS = [
    {},
    {"bands": [{"name": n} for n in TWELVE]},
    {"eo:bands": [{"name": n, "common_name": f"c{n}"} for n in TWELVE]},
    {"raster:bands": [{"name": n} for n in TWELVE]},
]
AS_THEY_ARE = {"scale": {"s2_b4": 1e-4}, "mask": False}


@pytest.mark.parametrize("said", LISTS)
def test_asset_of_many_bands_is_read_by_the_number_or_name_of_one(tmp_path, said):
    where = one_item(tmp_path, {"boa": many_bands(tmp_path / "boa.tif", NUMBERS, TWELVE)}, "mine", {"boa": said})
    for band in ("boa:4", "boa:B04", *(["boa:cB04"] if "eo:bands" in said else [])):
        found = open_stac({**where, **AS_THEY_ARE, "bands": {"s2_b4": band}})["s2_b4"]
        np.testing.assert_allclose(found.values, np.full((1, 2, 3), 0.4), rtol=1e-6)


@pytest.mark.parametrize("said", LISTS)
def test_asset_of_many_bands_is_refused_where_none_is_named(tmp_path, said):
    where = one_item(tmp_path, {"boa": many_bands(tmp_path / "boa.tif", NUMBERS, TWELVE)}, "mine", {"boa": said})
    with pytest.raises(
        SmgeoError, match=r"asset boa has 12 bands \(1 B01, 2 B02.*such as boa:1, or by its name, boa:B01"
    ):
        open_stac({**where, **AS_THEY_ARE, "bands": {"s2_b4": "boa"}})
    for band in ("boa:13", "boa:B13", "boa:0", "boa:"):
        with pytest.raises(SmgeoError, match=rf"asset boa has no band '{band[4:]}'"):
            open_stac({**where, **AS_THEY_ARE, "bands": {"s2_b4": band}})


def test_quality_band_of_many_is_named_too(tmp_path):
    files = {
        "b4": many_bands(tmp_path / "b4.tif", [3000]),
        "flags": many_bands(tmp_path / "flags.tif", [4, 9], ["scl", "clouds"]),
    }
    spec = {**one_item(tmp_path, files, "mine"), "bands": {"s2_b4": "b4"}, "scale": {"s2_b4": 1e-4}}
    with pytest.raises(SmgeoError, match="asset flags has 2 bands"):
        open_stac({**spec, "quality": {"band": "flags", "rule": "s2_scl"}})
    for band, expected in (("flags:1", 0.3), ("flags:scl", 0.3), ("flags:2", np.nan)):
        found = open_stac({**spec, "quality": {"band": band, "rule": "s2_scl"}})["s2_b4"]
        np.testing.assert_allclose(found.values, np.full((1, 2, 3), expected), rtol=1e-6)


# What the catalogue adds to assets of other names


@pytest.mark.parametrize(("baseline", "expected"), [("03.01", 0.4), ("05.09", 0.3)])
def test_catalogue_holds_for_any_asset_of_its_collection(tmp_path, baseline, expected):
    files = {"boa": many_bands(tmp_path / "boa.tif", NUMBERS), "SCL": many_bands(tmp_path / "scl.tif", [4])}
    where = one_item(tmp_path, files, "sentinel-2-l2a", **{"s2:processing_baseline": baseline})
    spec = {**where, "bands": {"s2_b4": "boa:4"}}
    np.testing.assert_allclose(open_stac(spec)["s2_b4"].values, np.full((1, 2, 3), expected), rtol=1e-6)
    many_bands(tmp_path / "scl.tif", [9])
    assert np.isnan(open_stac(spec)["s2_b4"].values).all()
    found = open_stac({**spec, "mask": False})["s2_b4"]
    np.testing.assert_allclose(found.values, np.full((1, 2, 3), expected), rtol=1e-6)


def test_scale_that_nothing_says_is_asked_for(tmp_path):
    where = one_item(tmp_path, {"red": many_bands(tmp_path / "a.tif", [3000])}, "mine")
    spec = {**where, "bands": {"s2_b8": "red"}, "mask": False}
    with pytest.raises(SmgeoError, match=r"nothing gives the scale of s2_b8 in asset red of mine; set scale: \{s2_b8"):
        open_stac(spec)
    found = open_stac({**spec, "scale": {"s2_b8": 0.0002}, "offset": {"s2_b8": 0.1}})["s2_b8"]
    np.testing.assert_allclose(found.values, np.full((1, 2, 3), 0.7), rtol=1e-6)
    # The file says it, by its tags.
    many_bands(tmp_path / "a.tif", [3000], scales=(0.0001,), offsets=(0.05,))
    np.testing.assert_allclose(open_stac(spec)["s2_b8"].values, np.full((1, 2, 3), 0.35), rtol=1e-6)


def test_feature_without_a_quality_rule_says_so(tmp_path):
    where = one_item(tmp_path, {"red": many_bands(tmp_path / "a.tif", [3000])}, "mine")
    spec = {**where, "bands": {"s2_b8": "red"}, "scale": {"s2_b8": 1e-4}}
    with pytest.warns(SmgeoWarning, match=r"s2_b8 \(red\) of mine is read without a quality rule.*mask: false"):
        open_stac(spec)
    open_stac({**spec, "mask": False})  # warnings are errors here


# Faults


def test_a_fifth_of_all_requests_failing_changes_nothing(server, world, quick):
    files._read_header.cache_clear()
    expected = open_stac({"url": "catalog.json", **S2}, root=world.folder, geobox=world.box, period=PERIOD).compute()
    server.share = 0.2
    got = open_stac({**api(server), **S2}, geobox=world.box, period=PERIOD).compute(scheduler="threads", num_workers=4)
    xr.testing.assert_equal(got.drop_vars("day_inputs"), expected.drop_vars("day_inputs"))
    assert len(server.requests) > 50


@pytest.mark.parametrize("fault", ["500", "cut", "html"])
def test_asset_that_fails_for_good_is_named(server, world, quick, fault):
    server.fails = lambda path: fault if path.endswith("B03.tif") else None
    with pytest.raises(SmgeoError, match=r"S2_T36RXV_2023-01-10/B03\.tif"):
        open_stac({**api(server), "bands": ["s2_b3"]}, geobox=world.box, period=("2023-01-10", "2023-01-10"))


@pytest.mark.parametrize(("fault", "words"), [("503", "answered 503"), ("html", "did not answer with JSON")])
def test_catalogue_that_fails_for_good_is_named(server, world, quick, fault, words):
    server.fails = lambda path: fault
    with pytest.raises(SmgeoError, match=words) as caught:
        open_stac({"url": f"{server.url}/api?key=secret", **S2}, geobox=world.box)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/stac", "http://nowhere.invalid/stac"])
def test_server_that_is_not_there_is_given_up_soon(quick, monkeypatch, address):
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(SmgeoError, match=rf"{address} cannot be reached \(.*\); tried 3 times"):
        open_stac({"url": f"{address}?key=secret", **S2}, geobox=RADAR_BOX)


def test_connection_that_breaks_is_tried_as_often_as_any_failure(quick, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                accepted.append(connection)
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(SmgeoError, match="did not answer; tried 8 times"):
            open_stac({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/", **S2}, geobox=RADAR_BOX)
    assert len(accepted) == 8


def test_answer_that_drips_is_given_up(quick, monkeypatch):
    """A byte now and then keeps every read of the socket within its limit."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(stac_search, "_WHOLE_S", 0.8)
    asked, over = [], threading.Event()

    class Dripping(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            with contextlib.suppress(OSError):
                while not over.wait(0.1):
                    self.wfile.write(b" ")

        def log_message(self, *args):
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Dripping) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        with pytest.raises(SmgeoError, match=r"sent no complete answer within 0\.8 s; tried 3 times"):
            open_stac({"url": f"http://127.0.0.1:{http.server_address[1]}/", **S2}, geobox=RADAR_BOX)
        over.set()
        http.shutdown()
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"geobox": "EPSG:4326"}, "open_stac: geobox must be an odc.geo.geobox.GeoBox.*got a str"),
        ({"stations": pd.DataFrame({"latitude": [1.0]})}, "stations must be an xarray.Dataset.*got a DataFrame"),
        ({"stations": xr.Dataset({"latitude": ("x", [1.0])})}, "dimension station.*got one without it"),
        ({"geobox": "EPSG:4326", "stations": []}, "not both"),
    ],
)
def test_target_of_another_kind_is_refused(target, words):
    with pytest.raises(SmgeoError, match=words):
        open_stac({"url": "http://127.0.0.1:9/", **S2}, **target)


def test_two_worker_processes_give_the_same(server, world):
    lazy = open_stac({**api(server), **S2}, geobox=world.box, period=PERIOD)
    expected = lazy.compute(scheduler="synchronous")
    server.requests.clear()
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        got = lazy.compute()
    xr.testing.assert_equal(got, expected)
    assert server.gets("B03.tif")


# What cannot be


def test_no_such_collection_names_the_nearest(server, world):
    spec = {"collections": ["sentinel-2-l2"], **S2}
    for where in (api(server), static(server)):
        with pytest.raises(SmgeoError, match="no collection 'sentinel-2-l2'; did you mean 'sentinel-2-l2a'"):
            open_stac({**spec, **where}, geobox=world.box)


def test_no_such_asset_names_the_nearest(server, world):
    spec = {**api(server), "collections": ["landsat-c1-l1"], "bands": {"l8_b10": "BQ"}}
    with pytest.raises(SmgeoError, match="asset BQ for l8_b10; did you mean 'BQA'"):
        open_stac(spec)
    with pytest.raises(SmgeoError, match="give collections too"):
        open_stac({**api(server), "bands": {"l8_b10": "B10"}})


def test_no_items_says_what_was_looked_for(server, world):
    with pytest.raises(SmgeoError, match=r"no items of sentinel-2-l2a from 2001-01-01 to 2001-02-01 within \(34\.9"):
        open_stac({**api(server), **S2}, geobox=world.box, period=("2001-01-01", "2001-02-01"))
    with pytest.raises(SmgeoError, match=r"20 left out by max_cloud_cover: 0"):
        open_stac({**api(server), **S2, "max_cloud_cover": 0}, geobox=world.box)


def test_item_without_the_quality_band_is_not_read_unmasked(server, world):
    server.features[3]["assets"].pop("SCL")
    with pytest.raises(SmgeoError, match="has no quality asset SCL or scl.*mask: false"):
        open_stac({**api(server), **S2}, geobox=world.box)


def test_grids_that_differ_need_a_target(server):
    with pytest.raises(SmgeoError, match="is on another grid"):
        open_stac({**api(server), **S2})


def test_address_that_is_no_catalogue(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(SmgeoError, match="is not a STAC catalogue"):
        open_stac({"url": "x.json", **S2}, root=tmp_path)
    with pytest.raises(SmgeoError, match=r"none\.json cannot be read"):
        open_stac({"url": "none.json", **S2}, root=tmp_path)


def test_item_that_is_gone_is_named(tmp_path):
    path = write(tmp_path / "a.tif", np.ones((2, 3), "float32"), "EPSG:32636", RADAR_BOX.affine)
    feature = item_of("x", "2020-01-01T00:00:00Z", {"rain": path}, "weather", tmp_path)
    static_catalogue(tmp_path, [feature])
    spec = {"collections": ["weather"], "bands": {"precipitation": "rain"}}
    (tmp_path / "space" / "weather" / "2020" / "x.json").unlink()
    with pytest.raises(SmgeoError, match=r"2020/x\.json No such file"):
        open_stac({"url": "catalog.json", **spec}, root=tmp_path)
    with RangeServer(tmp_path) as server, pytest.raises(SmgeoError, match=r"2020/x\.json refuses the request \(404\)"):
        open_stac({**static(server), **spec})


def test_missing_packages_say_what_to_install(monkeypatch):
    for name in [m for m in sys.modules if m in ("smgeo.sources.stac.items", "smgeo.sources.stac.search")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "odc.stac", None)
    with pytest.raises(SmgeoError, match=r"pip install 'smgeo\[stac\]'"):
        open_stac({"url": "catalog.json", **S2})


# Signatures


def test_assets_are_signed_when_read_and_the_signature_is_nowhere(server, world, quick, monkeypatch, caplog):
    """GDAL asks the (local) token service, and each request for an asset carries the token."""
    server.needs = "sig=SECRET"
    server.features = absolute(world.features, f"{server.url}/private")
    # Elsewhere this is the service of Planetary Computer.
    monkeypatch.setenv("VSICURL_PC_SAS_TOKEN_URL", f"{server.url}/sas/")
    expected = open_stac({"url": "catalog.json", **S2}, root=world.folder, geobox=world.box).compute()
    lazy = open_stac({**api(server), **S2, "sign": "planetary_computer"}, geobox=world.box)
    assert b"SECRET" not in pickle.dumps(lazy["s2_b3"].data.__dask_graph__().to_dict())
    with caplog.at_level("DEBUG"):
        got = lazy.compute()
    xr.testing.assert_equal(got.drop_vars("day_inputs"), expected.drop_vars("day_inputs"))
    assert len(server.gets("/sas/sentinel-2-l2a")) >= 1
    assert "SECRET" not in caplog.text
    with pytest.raises(SmgeoError, match="B0"):
        open_stac({**api(server), **S2}, geobox=world.box)


# Across the 180th meridian


@pytest.mark.parametrize(
    ("bbox", "areas"),
    [
        ((170, -5, -170, 5), ((170, -5, 180, 5), (-180, -5, -170, 5))),
        ((170, -5, 190, 5), ((170, -5, 180, 5), (-180, -5, -170, 5))),
        ((-190, -5, -170, 5), ((170, -5, 180, 5), (-180, -5, -170, 5))),
        ((190, -5, 200, 5), ((-170, -5, -160, 5),)),
        ((-180, -90, 180, 90), ((-180, -90, 180, 90),)),
        ((8, 50, 9, 51), ((8, 50, 9, 51),)),
    ],
)
def test_a_box_is_searched_on_both_sides_of_the_180th_meridian(bbox, areas):
    assert stac_search.split_area(*bbox) == areas
    source = StacSource.model_validate({"kind": "stac", "url": "x", "bands": ["s2_b4"], "bbox": bbox})
    assert _areas(source, None, None) == areas


@pytest.mark.parametrize(
    "item_box", [(178, -1, -178, 1), (178, -1, 182, 1), (-182, -1, -178, 1), (178, -1, 0, -178, 1, 9)]
)
def test_an_item_across_the_180th_meridian_touches_both_sides(item_box):
    item = pystac.Item("a", None, list(item_box), pd.Timestamp("2020-01-01").to_pydatetime(), {})
    for area, touches in (((170, -5, 180, 5), True), ((-180, -5, -179, 5), True), ((-170, -5, 170, 5), False)):
        assert stac_search._touches(item, area) is touches


def test_areas_of_grids_beyond_180_and_at_a_pole():
    for left in (170, -190):
        box = GeoBox((2, 20), from_origin(left, 1, 1, 1), "EPSG:4326")
        assert stac_search.areas_of_grid(box) == ((170, -1, 180, 1), (-180, -1, -170, 1))
    ((west, south, east, north),) = stac_search.areas_of_grid(
        GeoBox((20, 20), from_origin(-1e6, 1e6, 1e5, 1e5), "EPSG:3413")
    )
    assert (west, east, north) == (-180, 180, 90)
    assert 76 < south < 78


# What numbers mean


def numbers_at(folder, numbers, key, collection, dtype="uint16", said=None, name="x", **properties):
    """A static catalogue of one item, whose asset has these numbers."""
    numbers = np.atleast_2d(np.asarray(numbers, dtype=dtype))
    path = write(folder / f"{name}.tif", numbers, "EPSG:32636", from_origin(700000, 3500000, 10, 10))
    bands = {key: {"raster:bands": [said]}} if said else None
    return item_of(name, "2022-06-01T08:00:00Z", {key: path}, collection, folder, bands, **properties)


def open_numbers(folder, items, bands, **spec):
    static_catalogue(folder, items)
    collections = list(dict.fromkeys(i["collection"] for i in items))
    return open_stac(
        {"url": str(folder / "catalog.json"), "bands": bands, "collections": collections, "mask": False, **spec}
    )


@pytest.mark.parametrize(
    ("collection", "key", "said", "properties", "expected"),
    [
        # Planetary Computer: numbers as ESA distributes them; the item gives no scale.
        ("sentinel-2-l2a", "B04", None, {"s2:processing_baseline": "05.09"}, 0.2),
        ("sentinel-2-l2a", "B04", None, {"s2:processing_baseline": "02.12"}, 0.3),
        # Earth Search: the offset is in the numbers, and listed all the same.
        (
            "sentinel-2-l2a", "red", {"nodata": 0, "scale": 1e-4, "offset": -0.1},
            {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}, 0.3,
        ),
        (
            "sentinel-2-c1-l2a", "red", {"nodata": 0, "scale": 1e-4, "offset": -0.1},
            {"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": False}, 0.2,
        ),
        ("sentinel-s2-l2a-cogs", "B04", None, {"sentinel:processing_baseline": "04.00"}, 0.2),
        (
            "sentinel-s2-l2a-cogs", "B04", None,
            {"sentinel:processing_baseline": "04.00", "sentinel:boa_offset_applied": True}, 0.3,
        ),
        # Copernicus Data Space and others: the baseline as the version of the processing.
        ("sentinel-2-l2a", "B04_10m", {"scale": 1e-4, "offset": -0.1}, {"processing:version": "05.11"}, 0.2),
        ("sentinel-2-l2a", "B04", None, {"processing:version": "05.11"}, 0.2),
        ("s2", "red", {"scale": 1e-4}, {"processing:version": "N0510", "platform": "sentinel-2b"}, 0.2),
        ("sentinel-2-l2a", "B04", None, {"processing:version": "02.14"}, 0.3),
        # Of another satellite the version means nothing.
        ("hls", "B04", {"scale": 1e-4}, {"processing:version": "05.11", "platform": "landsat-8"}, 0.3),
    ],
)  # fmt: skip
def test_the_offset_of_sentinel_2_is_applied_once(tmp_path, collection, key, said, properties, expected):
    item = numbers_at(tmp_path, np.full((2, 3), 3000), key, collection, said=said, **properties)
    found = open_numbers(tmp_path, [item], {"s2_b4": key})["s2_b4"]
    np.testing.assert_allclose(found, np.full((1, 2, 3), expected), rtol=1e-6)


def test_an_offset_that_numbers_include_is_refused_and_the_advice_works(tmp_path):
    """Earth Search says of some items that it has not applied the offset which it has (Element84/earth-search, issue 71)."""
    said = {"nodata": 0, "scale": 1e-4, "offset": -0.1}
    flag = {"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": False}
    dark = [[200, 300, 400], [350, 3000, 500]]
    right = numbers_at(tmp_path, np.array(dark) + 1000, "red", "sentinel-2-l2a", said=said, name="a", **flag)
    wrong = numbers_at(tmp_path, dark, "red", "sentinel-2-l2a", said=said, name="b", **flag)
    found = open_numbers(tmp_path, [right], {"s2_b4": "red"})["s2_b4"]
    np.testing.assert_allclose(found[0], np.array(dark) / 1e4, rtol=1e-5)
    with pytest.raises(SmgeoError, match=r"^b: 83 % of a sample of s2_b4 is below -0.01 .*offset: \{s2_b4: 0\}"):
        open_numbers(tmp_path, [right, wrong], {"s2_b4": "red"})
    found = open_numbers(tmp_path, [wrong], {"s2_b4": "red"}, offset={"s2_b4": 0})["s2_b4"]
    np.testing.assert_allclose(found[0], np.array(dark) / 1e4, rtol=1e-5)


def test_landsat_9_is_not_read_as_landsat_8(tmp_path):
    def item(name, number, **properties):
        return numbers_at(tmp_path, np.full((2, 3), number), "lwir11", "landsat-c2-l2", name=name, **properties)

    eight, nine = item("e", 41000, platform="landsat-8"), item("n", 42000, platform="landsat-9")
    old, new = item("LC08_L2SP_1", 41000), item("LC09_L2SP_1", 42000)
    kelvin = 41000 * 0.00341802 + 149
    for items in ([eight, nine], [old, new]):
        found = open_numbers(tmp_path, items, ["l8_b10"])["l8_b10"]
        np.testing.assert_allclose(found, np.full((1, 2, 3), kelvin), rtol=1e-6)
    with pytest.raises(SmgeoError, match="items of other satellites than Landsat 8 are left out"):
        open_numbers(tmp_path, [nine], ["l8_b10"])
    own = Feature("surface", "surface temperature", "K", "dynamic", "Landsat", (200.0, 350.0), 8.0)
    static_catalogue(tmp_path, [eight, nine])
    spec = {"url": str(tmp_path / "catalog.json"), "collections": ["landsat-c2-l2"], "bands": {"surface": "lwir11"}}
    scaled = {"scale": {"surface": 0.00341802}, "offset": {"surface": 149}, "mask": False}
    found = open_stac({**spec, **scaled}, catalog={"surface": own})["surface"]
    np.testing.assert_allclose(found, np.full((1, 2, 3), (kelvin + 42000 * 0.00341802 + 149) / 2), rtol=1e-6)


def test_heights_of_catalogues_say_their_datum_and_are_not_mixed(tmp_path):
    def tile(name, collection):
        return numbers_at(tmp_path, np.full((2, 3), 400), "data", collection, "float32", name=name)

    glo, nasa = tile("glo", "cop-dem-glo-30"), tile("nasa", "nasadem")
    assert open_numbers(tmp_path, [glo], ["elevation"])["elevation"].attrs["vertical_datum"] == "EGM2008 geoid"
    assert open_numbers(tmp_path, [nasa], {"elevation": "data"})["elevation"].attrs["vertical_datum"] == "EGM96 geoid"
    with pytest.raises(SmgeoError, match=r"EGM2008 geoid \(glo\), EGM96 geoid \(nasa\), which are not comparable"):
        open_numbers(tmp_path, [glo, nasa], {"elevation": "data"})


def test_static_layers_at_stations_keep_the_size_of_their_pixels(tmp_path):
    static_catalogue(tmp_path, [numbers_at(tmp_path, np.full((2, 3), 400), "data", "cop-dem-glo-30", "float32")])
    spec = {"url": str(tmp_path / "catalog.json"), "bands": ["elevation"], "collections": ["cop-dem-glo-30"]}
    x, y = rasterio.warp.transform("EPSG:32636", "EPSG:4326", [700_015], [3_499_995])
    stations = xr.Dataset(coords={"station": ["N/a"], "latitude": ("station", y), "longitude": ("station", x)})
    # 10 m of the map; 200 km east of the central meridian a metre of it is nearly one of the ground.
    assert open_stac(spec, stations=stations)["elevation"].attrs["pixel_size_m"] == pytest.approx(9.999, abs=2e-3)


def test_declared_units_are_checked_in_python_too(tmp_path):
    item = numbers_at(tmp_path, np.full((2, 3), 3000), "B04", "sentinel-2-l2a")
    with pytest.raises(SmgeoError, match="s2_b4 is given in 'percent', but the cube needs '1'"):
        open_numbers(tmp_path, [item], {"s2_b4": "B04"}, units={"s2_b4": "percent"})
