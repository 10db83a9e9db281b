"""Each function that the local Earth Engine evaluates, against truth by hand, through the real client."""

from __future__ import annotations

import numpy as np
import pytest

from tests.earthengine_server import Server
from tests.earthengine_server.grids import Projection
from tests.earthengine_server.sketch import (
    COLS,
    DAY,
    GRID,
    GRID20,
    LEFT,
    RAMP,
    ROWS,
    TOP,
    Q,
    box,
    fetch,
    grid_of,
    initialize,
    place,
    points,
    ramp,
    sign_in,
    sketch,
    stored,
    values,
)
from tests.earthengine_server.world import World

ee = pytest.importorskip("ee")


@pytest.fixture(scope="module")
def small():
    return sketch()


@pytest.fixture(scope="module")
def running(small):
    with Server(small) as started:
        yield started
    ee.Reset()


@pytest.fixture
def server(running):
    """The server of the small world, with the client signed in to it."""
    sign_in(running)
    return running


def test_numbers_lists_and_functions_of_the_expression(server):
    assert ee.Number(1).add(2).getInfo() == 3
    assert ee.List([1, 2, 3]).map(lambda x: ee.Number(x).multiply(2)).getInfo() == [2, 4, 6]
    nested = ee.List([1, 2]).map(lambda x: ee.List([10, 20]).map(lambda y: ee.Number(y).add(x)))
    assert nested.flatten().getInfo() == [11, 21, 12, 22]
    assert ee.Dictionary({"a": 1}).get("a").getInfo() == 1
    assert ee.List.sequence(1, 7, 3).getInfo() == [1, 4, 7]
    assert ee.Algorithms.If(0, "yes", "no").getInfo() == "no"
    assert ee.Date("2021-06-01").advance(1, "day").millis().getInfo() == 1622592000000
    assert ee.List([None, 5, 6]).reduce(ee.Reducer.firstNonNull()).getInfo() == 5
    assert server.counters.requests["discovery"] >= 1
    assert server.counters.requests["algorithms"] >= 1


# Filters and collections -----------------------------------------------------------------------------------------


def days():
    return ee.ImageCollection("TEST/days")


def names(collection):
    return collection.aggregate_array("system:index").getInfo()


def test_filters(server):
    assert names(days().filterDate(0, DAY)) == ["a", "b"]  # the end is not in
    assert names(days().filterDate("1970-01-01T12:00", "1970-01-03")) == ["b", "c"]
    assert names(days().filterDate(0)) == ["a"]
    assert names(days().filter(ee.Filter.eq("cover", 2))) == ["c"]
    assert names(days().filter(ee.Filter.eq("only", "a"))) == ["a"]
    assert names(days().filter(ee.Filter.listContains("pol", "VH"))) == ["a", "c"]
    assert names(days().filter(ee.Filter.inList("cover", [1, 3]))) == ["a", "b"]
    assert names(days().filter(ee.Filter.notNull(["only"]))) == ["a", "c"]
    assert names(days().filter(ee.Filter.And(ee.Filter.gte("cover", 2), ee.Filter.lt("cover", 3)))) == ["c"]
    assert names(days().filter(ee.Filter.Or(ee.Filter.lt("cover", 2), ee.Filter.gt("cover", 2)))) == ["a", "b"]
    assert names(days().filter(ee.Filter.eq("cover", 2).Not())) == ["a", "b"]
    assert names(days().filterBounds(ee.Geometry.Point(place(2, 2)))) == ["a", "b", "c"]
    assert names(days().filterBounds(ee.Geometry.Point(place(5, 2)))) == []
    assert names(days().filterBounds(points((9, 9), (1, 1)))) == ["a", "b", "c"]


def test_order_first_limit_sort_and_merge(server):
    assert days().aggregate_array("only").getInfo() == ["a", "c"]  # nulls are left out
    assert names(days().sort("cover")) == ["b", "c", "a"]
    assert names(days().sort("cover", False).limit(2)) == ["a", "c"]
    assert names(days().sort("only", False)) == ["c", "a", "b"]  # what has no such property comes last
    assert days().sort("cover").first().get("system:index").getInfo() == "b"
    assert days().size().getInfo() == 3
    assert names(days().limit(1).merge(days().limit(1))) == ["1_a", "2_a"]
    assert names(ee.ImageCollection(days().toList(2, 1))) == ["b", "c"]


def test_properties(server):
    image = ramp()
    assert image.get("name").getInfo() == "ramp"
    assert image.get("none").getInfo() is None
    assert image.add(1).get("system:time_start").getInfo() is None  # arithmetic keeps no metadata
    assert image.select("a").rename("b").unmask(0).get("name").getInfo() == "ramp"
    copied = image.add(1).copyProperties(image)
    assert [copied.get("name").getInfo(), copied.get("system:time_start").getInfo()] == ["ramp", None]
    assert image.add(1).copyProperties(image, ["system:time_start"]).get("system:time_start").getInfo() == 5 * DAY
    assert image.set("x", 1, "y", 2).toDictionary(["x", "y"]).getInfo() == {"x": 1, "y": 2}
    mapped = days().map(lambda i: i.select("v").add(1))
    assert names(mapped) == ["a", "b", "c"]


def test_tables(server):
    table = ee.FeatureCollection(
        [ee.Feature(None, {"n": 1, "v": 5}), ee.Feature(None, {"n": 2}), ee.Feature(None, {"n": 3, "v": 7})]
    )
    rows = table.reduceColumns(ee.Reducer.toList(2), ["n", "v"]).get("list").getInfo()
    assert rows == [[1, 5], [3, 7]]  # the row with a null is gone
    rows = table.reduceColumns(ee.Reducer.toList(2, 1), ["n", "v"]).get("list").getInfo()
    assert rows == [[1, 5], [2, None], [3, 7]]
    assert table.reduceColumns(ee.Reducer.toList(), ["v"]).getInfo() == {"list": [5, 7]}
    assert table.reduceColumns(ee.Reducer.toList().repeat(2), ["n", "v"]).get("list").getInfo() == [[1, 2, 3], [5, 7]]
    filled = table.map(lambda f: f.set("v", ee.List([f.get("v"), -1]).reduce(ee.Reducer.firstNonNull())))
    assert filled.aggregate_array("v").getInfo() == [5, -1, 7]
    assert table.select(["v"], ["w"]).aggregate_array("w").getInfo() == [5, 7]
    nested = ee.FeatureCollection([table, table.limit(1)])
    assert nested.flatten().aggregate_array("n").getInfo() == [1, 2, 3, 1]
    page = ee.data.computeFeatures({"expression": table, "pageSize": 2})
    assert [f["properties"]["n"] for f in page["features"]] == [1, 2]
    assert page["nextPageToken"] == "2"


# Pixels ----------------------------------------------------------------------------------------------------------


def test_an_own_grid_gives_the_stored_values(server):
    got = fetch(ee.Image("TEST/holed"))
    assert got.dtype == [("a", "<f4"), ("b", "<f4")]
    assert got.shape == (4, 4)
    want = RAMP.copy()
    want[1, 2] = 0  # masked pixels are 0
    np.testing.assert_array_equal(got["a"], want)
    np.testing.assert_array_equal(got["b"], 2 * RAMP)
    bits = fetch(ee.Image("TEST/bits"))
    assert bits.dtype == [("qa", "<u2")]


def test_the_nearest_pixel_is_the_default(server):
    # Centres lie 4 m, then 6 m east of those of the pixels.
    np.testing.assert_array_equal(values(ramp(), shift=(4.0, 0.0)), RAMP)
    np.testing.assert_array_equal(
        values(ramp(), shift=(6.0, 0.0)), [[1, 2, 3, Q], [11, 12, 13, Q], [21, 22, 23, Q], [31, 32, 33, Q]]
    )
    fine = Projection(GRID.crs, (5.0, 0.0, LEFT, 0.0, -5.0, TOP))
    np.testing.assert_array_equal(values(ramp(), fine, (8, 8)), np.kron(RAMP, np.ones((2, 2))))


def test_another_zone_is_reprojected_exactly(server):
    from pyproj import Transformer

    there = Transformer.from_crs("EPSG:32633", "EPSG:32632", always_xy=True)
    x, y = there.transform(LEFT + 20, TOP - 20)
    grid = Projection("EPSG:32632", (7.0, 0.0, x - 21, 0.0, -7.0, y + 21))
    got = values(ramp(), grid, (6, 6))
    rows, cols = np.mgrid[0:6, 0:6]
    back = Transformer.from_crs("EPSG:32632", "EPSG:32633", always_xy=True)
    east, north = back.transform(x - 21 + 7 * (cols + 0.5), y + 21 - 7 * (rows + 0.5))
    c, r = np.floor((east - LEFT) / 10), np.floor((TOP - north) / 10)
    want = np.where((c >= 0) & (c < 4) & (r >= 0) & (r < 4), 10 * r + c, np.nan)
    assert np.isfinite(want).sum() > 20
    np.testing.assert_array_equal(got, want)


def test_coarser_scales_read_the_pyramid(server):
    holed = ee.Image("TEST/holed").select("a")
    # Means of the valid ones of 2 x 2 pixels; at 25 m the level of 20 m.
    np.testing.assert_allclose(values(holed, GRID20, (2, 2)), [[5.5, (2 + 3 + 13) / 3], [25.5, 27.5]])
    np.testing.assert_allclose(values(holed.mask(), GRID20, (2, 2)), [[1, 0.75], [1, 1]])  # masks are averaged too
    grid25 = Projection(GRID.crs, (25.0, 0.0, LEFT, 0.0, -25.0, TOP))
    np.testing.assert_allclose(values(ramp(), grid25, (1, 1)), [[5.5]])
    np.testing.assert_allclose(values(ee.Image("TEST/bits"), GRID20, (2, 2)), [[0, 2], [8, 10]])  # first of the four
    with Server(World((), levels=False)) as plain:
        plain.world.add("TEST/ramp", {"a": stored(RAMP)})
        initialize(plain)
        np.testing.assert_allclose(values(ramp(), GRID20, (2, 2)), [[11, 13], [31, 33]])
    ee.Reset()


def test_bilinear_and_bicubic(server):
    smooth = ramp().resample("bilinear")
    np.testing.assert_array_equal(values(smooth), RAMP)  # on its own grid nothing changes
    got = values(smooth, shape=(3, 3), shift=(5.0, -5.0))  # the corners between four pixels
    np.testing.assert_allclose(got, RAMP[:3, :3] + 5.5)
    got = values(smooth, shape=(1, 4), shift=(2.5, 0.0))
    np.testing.assert_allclose(got, [[0.25, 1.25, 2.25, Q]])  # half a pixel at the edge has no neighbour
    got = values(ee.Image("TEST/holed").select("a").resample("bilinear"), shape=(3, 3), shift=(5.0, -5.0))
    np.testing.assert_array_equal(np.isnan(got), [[False, True, True], [False, True, True], [False] * 3])
    cubic = values(ramp().resample("bicubic"), shape=(3, 3), shift=(5.0, -5.0))
    np.testing.assert_allclose(cubic[1, 1], 16.5)  # a plane is kept
    assert np.isnan(np.delete(cubic.ravel(), 4)).all()


def test_reduce_resolution_weighs_by_the_covered_share(server):
    mean = ramp().reduceResolution(ee.Reducer.mean())
    np.testing.assert_allclose(values(mean, GRID20, (2, 2)), [[5.5, 7.5], [25.5, 27.5]])
    grid15 = Projection(GRID.crs, (15.0, 0.0, LEFT, 0.0, -15.0, TOP))
    # 15 m: one pixel whole and half of the next, each way: (0 * 2 + 1 * 1) / 3 of a step.
    np.testing.assert_allclose(values(mean, grid15, (1, 1)), [[11 / 3]], rtol=1e-6)
    holed = ee.Image("TEST/holed").select("a").reduceResolution(ee.Reducer.mean())
    np.testing.assert_allclose(values(holed, GRID20, (2, 2))[0, 1], (2 + 3 + 13) / 3)
    with pytest.raises(ee.EEException, match="Too many input pixels"):
        values(ramp().reduceResolution(ee.Reducer.mean(), False, 3), GRID20, (2, 2))
    # Partly outside: what is there counts.
    np.testing.assert_allclose(values(mean, GRID20, (1, 1), shift=(70 - 40.0, 0.0)), [[(3 + 13) / 2]])


def test_reduce_resolution_across_zones_is_the_mean_over_the_pixel(server):
    from pyproj import Transformer

    there = Transformer.from_crs("EPSG:32633", "EPSG:32632", always_xy=True)
    x, y = there.transform(LEFT + 20, TOP - 20)
    grid = Projection("EPSG:32632", (20.0, 0.0, x - 10, 0.0, -20.0, y + 10))
    got = values(ramp().reduceResolution(ee.Reducer.mean(), False, 100), grid, (1, 1))
    step = (np.arange(400) + 0.5) / 400 * 20
    east, north = np.meshgrid(x - 10 + step, y + 10 - step)
    back = Transformer.from_crs("EPSG:32632", "EPSG:32633", always_xy=True)
    e, n = back.transform(east, north)
    want = (10 * np.floor((TOP - n) / 10) + np.floor((e - LEFT) / 10)).mean()
    np.testing.assert_allclose(got, [[want]], atol=0.2)


def test_masks_intersect_and_unmask_fills(server):
    holed = ee.Image("TEST/holed")
    total = values(holed.select("a").add(holed.select("b")))
    assert np.isnan(total[1, 2])
    np.testing.assert_array_equal(np.delete(total.ravel(), 6), 3 * np.delete(RAMP.ravel(), 6))
    kept = values(ramp().updateMask(ramp().gte(20)))
    np.testing.assert_array_equal(np.isnan(kept), ROWS < 2)
    again = kept[2:] == RAMP[2:]
    assert again.all()
    # updateMask by an image that is masked itself masks.
    assert np.isnan(values(ramp().updateMask(holed.select("a").gte(0)))[1, 2])
    inside = holed.select("a").unmask(7)
    wide = fetch(inside, shape=(4, 6), shift=(-10.0, 0.0))["a"]
    assert wide[1, 3] == 7
    assert wide[0, 0] == 0  # outside the footprint it is masked still
    assert fetch(holed.select("a").unmask(7, False), shape=(4, 6), shift=(-10.0, 0.0))["a"][0, 0] == 7
    np.testing.assert_array_equal(values(holed.select("a").mask()), np.where((ROWS == 1) & (COLS == 2), 0, 1))


def test_arithmetic(server):
    image = ramp()
    cases = {
        "add": (image.add(1.5), RAMP + 1.5),
        "subtract": (image.subtract(image), RAMP * 0),
        "multiply": (image.multiply(0.5), RAMP / 2),
        "divide": (image.divide(4), RAMP / 4),
        "by zero": (image.divide(0), RAMP * 0),
        "pow": (ee.Image(10).pow(image.divide(10)), 10 ** (RAMP / 10)),
        "exp": (image.divide(10).exp(), np.exp(RAMP / 10)),
        "log10": (image.add(1).log10(), np.log10(RAMP + 1)),
        "lt": (image.lt(12), RAMP < 12),
        "eq": (image.eq(12), RAMP == 12),
        "and": (image.gt(3).And(image.lte(21)), (RAMP > 3) & (RAMP <= 21)),
        "not": (image.gt(3).Not(), RAMP <= 3),
        "to int": (image.divide(4).toInt16(), np.trunc(RAMP / 4)),
    }
    for name, (expression, want) in cases.items():
        np.testing.assert_allclose(values(expression), want, rtol=1e-6, err_msg=name)
    bits = ee.Image("TEST/bits")
    np.testing.assert_array_equal(values(bits.rightShift(2).bitwiseAnd(1)), ((ROWS * 4 + COLS) >> 2) & 1)
    assert np.isnan(values(image.log10())[0, 0])  # not finite: masked
    two = ee.Image("TEST/holed")
    got = fetch(two.select(["b", "a"]).subtract(two).unmask(-1, False))  # matched by name
    assert got.dtype.names == ("b", "a")
    assert (got["b"] == 0).all()


def test_bands(server):
    both = ramp().addBands(ramp()).addBands(ee.Image(5).rename("c"))
    assert both.bandNames().getInfo() == ["a", "a_1", "c"]
    assert ee.Image.cat(ramp(), ramp()).rename(["x", "y"]).bandNames().getInfo() == ["x", "y"]
    assert both.select(["c", "a"], ["z", "w"]).bandNames().getInfo() == ["z", "w"]
    assert both.select("a.*").bandNames().getInfo() == ["a", "a_1"]
    over = ramp().addBands(ramp().multiply(2), None, True)
    np.testing.assert_array_equal(values(over), 2 * RAMP)
    got = fetch(both.select("c"))
    assert (got["c"] == 5).all()
    request = {"expression": both, "fileFormat": "NUMPY_NDARRAY", "grid": grid_of(GRID), "bandIds": ["c"]}
    assert ee.data.computePixels(request).dtype.names == ("c",)
    with pytest.raises(ee.EEException, match="names for 1 bands"):
        fetch(ramp().rename(["x", "y"]))


# Composites ------------------------------------------------------------------------------------------------------


def test_mosaic_mean_and_quality_mosaic(server):
    v = days().select("v")
    hole = np.zeros((4, 4), bool)
    hole[0, 0] = True
    np.testing.assert_array_equal(values(v.mosaic()), np.where(hole, 2, 3))  # the last that is valid
    np.testing.assert_array_equal(values(v.sort("cover", False).mosaic()), 2 * np.ones((4, 4)))
    np.testing.assert_allclose(values(v.mean()), np.where(hole, 1.5, 2))
    best = days().qualityMosaic("q")  # 9, 8, 7: the first
    np.testing.assert_array_equal(values(best.select("v")), np.ones((4, 4)))
    worst = days().map(lambda i: i.addBands(i.select("q").multiply(-1), None, True)).qualityMosaic("q")
    np.testing.assert_array_equal(values(worst.select("v")), np.where(hole, 2, 3))
    assert v.reduce(ee.Reducer.mean()).bandNames().getInfo() == ["v_mean"]
    assert v.mean().bandNames().getInfo() == ["v"]
    empty = v.filterDate(5 * DAY, 6 * DAY).mean()
    assert empty.bandNames().getInfo() == []
    with pytest.raises(ee.EEException, match="no bands"):
        fetch(empty)
    with pytest.raises(ee.EEException, match="homogeneous"):
        fetch(ee.ImageCollection([ramp(), ramp().rename("b")]).mean())


def test_default_projections(server):
    assert ramp().projection().getInfo() == {
        "type": "Projection",
        "crs": "EPSG:32633",
        "transform": list(GRID.transform),
    }
    assert ramp().projection().nominalScale().getInfo() == 10
    assert ramp().multiply(2).select(0).projection().crs().getInfo() == "EPSG:32633"
    composite = days().mean().select("v").projection()
    assert composite.getInfo() == {"type": "Projection", "crs": "EPSG:4326", "transform": [1, 0, 0, 0, 1, 0]}
    assert composite.nominalScale().getInfo() == pytest.approx(111319.49, abs=0.01)
    given = days().mean().select("v").setDefaultProjection(ramp().projection())
    assert given.projection().nominalScale().getInfo() == 10
    with pytest.raises(ee.EEException, match="different projections"):
        ee.Image("TEST/mixed").projection().getInfo()
    # A composite has pixels of one degree: bilinear between them finds no image there, nor does a mean over them.
    assert np.isnan(values(days().mean().select("v").resample("bilinear"))).all()
    np.testing.assert_allclose(values(given.reduceResolution(ee.Reducer.mean()), GRID20, (2, 2))[1, 1], 2)


def test_reproject_computes_in_the_given_projection(server):
    coarse = ramp().reproject(ee.Projection("EPSG:32633", list(GRID20.transform)))
    np.testing.assert_allclose(values(coarse), np.kron([[5.5, 7.5], [25.5, 27.5]], np.ones((2, 2))))


def test_link_collection(server):
    linked = days().linkCollection(ee.ImageCollection("TEST/scores"), ["cs"], ["score"])
    assert linked.first().bandNames().getInfo() == ["v", "q", "cs"]
    assert linked.aggregate_array("score").getInfo() == [7]
    np.testing.assert_array_equal(values(linked.first().select("cs")), np.full((4, 4), 0.5))
    last = linked.filter(ee.Filter.eq("system:index", "c")).first()
    assert np.isnan(values(last.select("cs"))).all()  # no match: masked
    assert np.isfinite(values(last.select("v"))).any()


# Regions ---------------------------------------------------------------------------------------------------------


def column(collection, name):
    return collection.aggregate_array(name).getInfo()


def test_points_take_the_pixel_they_lie_in(server):
    where = points((0.5, 0.5), (1.9, 2.9), (1.5, 2.5), (9.5, 0.5))
    got = ramp().reduceRegions(where, ee.Reducer.first(), crs=ramp().projection())
    assert column(got, "first") == [0, 12, 12]  # the last is outside: no value
    assert column(got, "n") == [0, 1, 2, 3]
    holed = ee.Image("TEST/holed").reduceRegions(where, ee.Reducer.first(), crs=ramp().projection())
    assert column(holed, "a") == [0]  # several bands: their names; masked: no value
    assert column(holed, "b") == [0, 24, 24]
    named = ramp().reduceRegions(where, ee.Reducer.first().setOutputs(["a"]))  # the image's own projection
    assert column(named, "a") == [0, 12, 12]


def test_regions_weigh_pixels_or_take_those_with_their_centre_inside(server):
    def one(reducer, geometry, **kwargs):
        got = ramp().reduceRegions(ee.FeatureCollection([ee.Feature(geometry)]), reducer, **kwargs)
        return column(got, "mean")

    plain, weighted = ee.Reducer.mean().unweighted(), ee.Reducer.mean()
    assert one(plain, box(0, 0, 2, 2.6)) == [6]  # columns 0, 1 and 2 (its centre is at 2.5)
    assert one(plain, box(0, 0, 2, 2.4)) == [5.5]
    assert one(weighted, box(0, 0, 2, 1.5))[0] == pytest.approx((0 + 10 + 0.5 * (1 + 11)) / 3, abs=0.01)
    assert one(plain, box(0.1, 0.1, 0.4, 0.4)) == []  # no centre inside
    assert one(weighted, box(0.1, 0.1, 0.4, 0.4)) == [0]
    assert one(plain, box(0, 0, 4, 4), scale=20) == [16.5]
    at20 = ramp().reduceRegions(points((0.5, 0.5)), ee.Reducer.first(), scale=20)
    assert column(at20, "first") == [5.5]  # the pyramid's level


def test_buffers_are_circles_in_metres(server):
    disc = ee.Geometry.Point(place(2, 2)).buffer(14)
    got = ramp().reduceRegions(ee.FeatureCollection([ee.Feature(disc)]), ee.Reducer.mean().unweighted())
    assert column(got, "mean") == [np.mean([11, 12, 21, 22])]  # centres at 7.1 m are in, at 15.8 m not
    assert ee.Feature(ee.Geometry.Point([12, 50]), {"k": 1}).buffer(14).get("k").getInfo() == 1
