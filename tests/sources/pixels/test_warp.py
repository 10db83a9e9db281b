"""Resampling against GDAL, against slow formulas, and by hand on grids of a few pixels."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from smgeo.catalog import FEATURES
from smgeo.sources.pixels.warp import aligned_shift, choose_resampling, look_up, pixel_metres, resample, split_blocks

METHODS = ["nearest", "bilinear", "average", "cubic"]
UTM, WGS84, LAEA = "EPSG:32632", "EPSG:4326", "EPSG:3035"
NAN = np.nan


def box(shape, left, top, pixel, crs=UTM):
    return GeoBox(shape, Affine(pixel, 0, left, 0, -pixel, top), crs)


def warp(values, own, target, method):
    values = np.asarray(values, dtype="float32")
    out = np.full(target.shape.yx, 7e9, dtype="float32")
    found = look_up(target, own, method)
    if found is None:
        out[:] = NAN
    else:
        resample(np.ascontiguousarray(values[tuple(slice(*w) for w in found.window)]), found, own, out)
    return out


@pytest.fixture
def gdal(tmp_path):
    """GDAL's own warp, without its approximation of the transformation (which rasterio 1.4 cannot switch off)."""
    if shutil.which("gdalwarp") is None:
        if os.environ.get("CI"):
            pytest.fail("gdalwarp not found; install gdal-bin")
        pytest.skip("gdalwarp not found")

    def warped(values, own, target, method):
        shape = {"height": own.shape.y, "width": own.shape.x, "count": 1, "dtype": "float32"}
        with rasterio.open(tmp_path / "a.tif", "w", transform=own.affine, crs=str(own.crs), **shape) as dst:
            dst.write(np.asarray(values, dtype="float32"), 1)
        a, (height, width) = target.affine, target.shape.yx
        bounds = [str(v) for v in (a.c, a.f + height * a.e, a.c + width * a.a, a.f)]
        words = ["-q", "-overwrite", "-et", "0", "-r", method, "-srcnodata", "nan", "-dstnodata", "nan"]
        words += ["-t_srs", str(target.crs), "-te", *bounds, "-ts", str(width), str(height)]
        subprocess.run(["gdalwarp", *words, str(tmp_path / "a.tif"), str(tmp_path / "b.tif")], check=True)
        with rasterio.open(tmp_path / "b.tif") as src:
            return src.read(1)

    return warped


def noise(shape, gaps=0.0, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(10, 3, shape).astype("float32")
    values[rng.random(shape) < gaps] = NAN
    return values


# Source and target around 9 E, 50 N: in degrees, UTM and equal-area; refining and coarsening.
DEGREES = box((60, 80), 8.013, 50.917, 0.02, WGS84)
METRES = box((70, 90), 431_234.5, 5_641_987.5, 1500)
AREAL = box((50, 60), 4_180_333, 3_088_111, 1700, LAEA)
FINE = {UTM: box((150, 170), 455_017, 5_600_029, 313), WGS84: box((120, 140), 8.403, 50.5071, 0.0031, WGS84)}
COARSE = {UTM: box((14, 17), 440_017, 5_630_029, 6113), WGS84: box((11, 13), 8.103, 50.7071, 0.0637, WGS84)}


@pytest.mark.parametrize("own", [DEGREES, METRES, AREAL], ids=["degrees", "utm", "laea"])
@pytest.mark.parametrize("crs", [UTM, WGS84])
@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_nearest_and_bilinear_are_gdal_s(own, crs, gaps, gdal):
    values = noise(own.shape.yx, gaps)
    for method in ("nearest", "bilinear"):
        ours, theirs = warp(values, own, FINE[crs], method), gdal(values, own, FINE[crs], method)
        assert np.isfinite(theirs).mean() > 0.4
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        np.testing.assert_allclose(ours, theirs, rtol=0 if method == "nearest" else 1e-4)


def test_cubic_is_gdal_s_inside(gdal):
    values = noise(METRES.shape.yx)
    inner = box((100, 120), 455_017, 5_600_029, 313)
    np.testing.assert_allclose(warp(values, METRES, inner, "cubic"), gdal(values, METRES, inner, "cubic"), rtol=1e-4)


@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_average_is_gdal_s(gaps, gdal):
    # Within one CRS both take the same rectangles, with their fractions of pixels.
    values = noise(METRES.shape.yx, gaps)
    ours, theirs = warp(values, METRES, COARSE[UTM], "average"), gdal(values, METRES, COARSE[UTM], "average")
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    # Between two, GDAL spans its rectangle from two corners of a pixel, ours holds all four: not quite the same pixels.
    smooth = np.add.outer(np.arange(60.0), np.arange(80.0))
    ours, theirs = warp(smooth, DEGREES, COARSE[UTM], "average"), gdal(smooth, DEGREES, COARSE[UTM], "average")
    both = np.isfinite(ours) & np.isfinite(theirs)
    assert both.sum() > 100
    np.testing.assert_allclose(ours[both], theirs[both], atol=0.25)


def test_average_by_hand():
    own = box((2, 2), 0, 20, 10)
    values = [[1, 2], [3, NAN]]
    # A pixel of 15 m from the corner: 100, 50, 50 and 25 m2 of the four, the last of which is missing.
    assert warp(values, own, box((1, 1), 0, 20, 15), "average")[0, 0] == np.float32((100 * 1 + 50 * 2 + 50 * 3) / 200)
    # Half beyond the source: the mean of what there is.
    assert warp(values, own, box((1, 1), -10, 20, 20), "average")[0, 0] == np.float32((1 + 3) / 2)
    assert np.isnan(warp(values, own, box((1, 1), 10, 10, 10), "average")[0, 0])


def test_bilinear_by_hand():
    own = box((2, 2), 0, 20, 10)
    one = box((1, 1), 5, 15, 5)  # centre at x 7.5, y 12.5: a quarter of the way from 5 to 15, and from 15 down to 5
    weights = np.array([[0.75 * 0.75, 0.25 * 0.75], [0.75 * 0.25, 0.25 * 0.25]])
    values = np.array([[1.0, 2], [3, 8]])
    assert warp(values, own, one, "bilinear")[0, 0] == pytest.approx((weights * values).sum())
    values[1, 1] = NAN
    assert warp(values, own, one, "bilinear")[0, 0] == pytest.approx(np.nansum(weights * values) / (1 - 0.0625))
    # Not under a cloud: the pixel that holds the centre is missing.
    values[:] = [[NAN, 2], [3, 8]]
    assert np.isnan(warp(values, own, one, "bilinear")[0, 0])
    # Between the outermost centres and the edge there is one neighbour.
    assert warp([[1, 2], [3, 4]], own, box((1, 1), 0, 20, 2), "bilinear")[0, 0] == 1


def keys(d):
    """Cubic convolution with a = -1/2 (Keys 1981, equation 15)."""
    d = abs(d)
    if d < 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0


@pytest.mark.parametrize(("method", "kernel"), [("cubic", keys), ("bilinear", lambda d: max(0.0, 1 - abs(d)))])
@pytest.mark.parametrize("gaps", [0.0, 0.25])
def test_interpolation_is_the_sum_over_all_pixels(method, kernel, gaps):
    own, target = box((5, 6), 0, 50, 10), box((13, 17), -4, 53, 3.7)
    values = noise((5, 6), gaps, seed=3)
    truth = np.full(target.shape.yx, NAN)
    for i, j in itertools.product(range(13), range(17)):
        x, y = target.affine * (j + 0.5, i + 0.5)
        c, r = x / 10, (50 - y) / 10
        if not (0 <= r < 5 and 0 <= c < 6) or np.isnan(values[int(r), int(c)]):
            continue
        weights = np.array([[kernel(r - 0.5 - k) * kernel(c - 0.5 - m) for m in range(6)] for k in range(5)])
        seen = np.isfinite(values)
        truth[i, j] = (weights[seen] * values[seen]).sum() / weights[seen].sum()
    np.testing.assert_allclose(warp(values, own, target, method), truth, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("own", [DEGREES, METRES, AREAL], ids=["degrees", "utm", "laea"])
@pytest.mark.parametrize(
    "target",
    [FINE[UTM], FINE[WGS84], COARSE[UTM], box((61, 67), 8 + 1 / 3, 50.7, 1 / 97, WGS84)],
    ids=["utm", "degrees", "coarse", "thirds"],
)
def test_no_bit_depends_on_blocks(method, own, target):
    values = noise(own.shape.yx, 0.1)
    whole = warp(values, own, target, method)
    parts = np.empty_like(whole)
    for (y, h), (x, w) in itertools.product(*(cuts(n, s) for n, s in zip(target.shape.yx, (9, 16), strict=True))):
        parts[y : y + h, x : x + w] = warp(values, own, target[y : y + h, x : x + w], method)
    np.testing.assert_array_equal(parts, whole)


def cuts(size, step):
    return [(i, min(step, size - i)) for i in range(0, size, step)]


@pytest.mark.parametrize("method", METHODS)
def test_pixels_beyond_the_source_are_missing(method):
    own = box((4, 4), 0, 40, 10)
    ones = np.ones((4, 4))
    around = box((8, 8), -20, 60, 10)
    inside = np.zeros((8, 8), dtype=bool)
    inside[2:6, 2:6] = True
    np.testing.assert_array_equal(warp(ones, own, around, method), np.where(inside, 1, NAN).astype("float32"))
    assert look_up(box((2, 2), 1000, 40, 10), own, method) is None


def test_a_centre_on_an_edge_falls_to_the_same_side_everywhere():
    # Centres of the target lie on edges of the source; 0.1 degrees are no binary fractions.
    own = box((4, 40), 9.0, 50.4, 0.1, WGS84)
    values = np.tile(np.arange(40.0), (4, 1))
    got = warp(values, own, box((4, 38), 9.05, 50.4, 0.1, WGS84), "nearest")
    np.testing.assert_array_equal(got, np.tile(np.arange(1.0, 39.0), (4, 1)))


def test_longitudes_go_round_the_earth():
    globe = box((2, 36), -180, 10, 10, WGS84)
    values = np.tile(np.arange(36.0), (2, 1))
    # 175 to 195 degrees east, in pixels of 5 degrees: the last column twice, then the first.
    beyond = box((1, 4), 170, 10, 5, WGS84)
    np.testing.assert_array_equal(warp(values, globe, beyond, "nearest"), [[35, 35, 0, 0]])
    # One pixel from 175 to 185 degrees: half of the last column, half of the first; not the world's mean.
    across = box((1, 1), 175, 10, 10, WGS84)
    assert warp(values, globe, across, "average")[0, 0] == 17.5
    values[:] = np.arange(36.0) == 35
    assert warp(values, globe, across, "average")[0, 0] == 0.5
    # UTM zone 60, whose eastern half lies beyond the 180th meridian.
    zone = box((1, 40), 660_000, 500_000, 20_000, "EPSG:32660")
    lon, _ = Transformer.from_crs("EPSG:32660", WGS84, always_xy=True).transform(
        660_000 + 20_000 * (np.arange(40) + 0.5), np.full(40, 490_000)
    )
    numbers = np.tile(np.arange(36.0), (2, 1))
    np.testing.assert_array_equal(
        warp(numbers, globe, zone, "nearest")[0], np.floor((lon + 180) / 10).astype("float32")
    )
    means = warp(numbers, globe, zone, "average")[0]
    assert set(means[(lon > 170) & (lon < 179.5)]) == {35.0}
    assert set(means[lon < -179.5]) == {0.0}
    # A regional source that lies across the meridian, as 170 to 190 degrees.
    region = box((1, 2), 170, 10, 10, WGS84)
    np.testing.assert_array_equal(warp([[1, 2]], region, box((1, 2), -190, 10, 10, WGS84), "nearest"), [[1, 2]])


def test_where_a_projection_has_no_place():
    # The far side of the globe in an orthographic view.
    own = box((13, 13), -6_500_000, 6_500_000, 1_000_000, "+proj=ortho +lat_0=0 +lon_0=0 +ellps=sphere")
    got = warp(np.ones((13, 13)), own, box((1, 4), -180, 45, 90, WGS84), "nearest")
    np.testing.assert_array_equal(got, [[NAN, 1, 1, NAN]])
    assert np.isnan(warp(np.ones((13, 13)), own, box((1, 1), 100, 5, 10, WGS84), "average")).all()


def test_a_south_up_target_is_turned():
    own = box((2, 2), 0, 20, 10)
    upside_down = GeoBox((2, 2), Affine(10, 0, 0, 0, 10, 0), UTM)
    for method in METHODS:
        np.testing.assert_array_equal(warp([[1, 2], [3, 4]], own, upside_down, method), [[3, 4], [1, 2]])


def test_choice_of_the_method():
    elevation, aspect = FEATURES["elevation"], FEATURES["aspect"]
    own = box((10, 10), 500_000, 5_600_000, 100)
    assert choose_resampling("auto", elevation, own, own) == "nearest"
    assert choose_resampling("auto", elevation, box((10, 10), 500_000, 5_600_000, 149), own) == "bilinear"
    assert choose_resampling("auto", elevation, box((10, 10), 500_000, 5_600_000, 151), own) == "average"
    assert choose_resampling("auto", elevation, box((10, 10), 500_000, 5_600_000, 30), own) == "bilinear"
    assert choose_resampling("auto", aspect, box((10, 10), 500_000, 5_600_000, 300), own) == "nearest"
    assert choose_resampling("cubic", aspect, own, own) == "cubic"
    # In metres: 0.002 degrees at 50 N are 143 by 222 m, a pixel of 178 m.
    degrees = box((10, 10), 9.0, 50.55, 0.002, WGS84)
    assert choose_resampling("auto", elevation, degrees, own) == "average"
    assert choose_resampling("auto", elevation, own, degrees) == "bilinear"


def test_the_method_on_a_grid_around_the_pole():
    """At its centre meridians meet, and a sinusoidal map ends: the pixels beside it tell, 25 km against 2.5 and 11 km."""
    polar = box((100, 100), -1_250_000, 1_250_000, 25_000, "EPSG:3413")
    globe = GeoBox((1800, 3600), Affine(0.1, 0, -180, 0, -0.1, 90), "EPSG:4326")
    coarse = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    modis = GeoBox((1200, 1200), Affine(926.6, 0, 0, 0, -926.6, 10_007_554), "+proj=sinu +R=6371007.181 +units=m")
    found = [choose_resampling("auto", FEATURES["elevation"], polar, own) for own in (globe, coarse, modis)]
    assert found == ["average", "bilinear", "average"]


def test_a_pixel_in_metres():
    # One degree of the meridian and of the parallel on WGS84 at 50 N: 111,229 and 71,696 m.
    width, height = pixel_metres(box((1, 1), 9.5, 50.5, 0.01, WGS84), 9.5, 50.0)
    assert (width, height) == pytest.approx((716.96, 1112.29), rel=1e-4)
    # UTM's scale on the central meridian is 0.9996.
    assert pixel_metres(METRES, 9.0, 50.5) == pytest.approx((1500 / 0.9996,) * 2, rel=1e-5)


def test_grids_of_the_same_pixels():
    own = box((10, 10), 500_000, 5_600_000, 100)
    assert aligned_shift(own[3:5, 2:7], own) == (3, 2)
    assert aligned_shift(own.pad(2), own) == (-2, -2)
    assert aligned_shift(box((2, 2), 500_050, 5_600_000, 100), own) is None
    assert aligned_shift(box((2, 2), 500_000, 5_600_000, 50), own) is None
    assert aligned_shift(box((2, 2), 500_000, 5_600_000, 100, "EPSG:32633"), own) is None


def test_blocks():
    assert split_blocks((70, 4), (30, 256)) == ((30, 30, 10), (4,))
    assert math.prod(map(len, split_blocks((0, 4), (30, 2)))) == 0
