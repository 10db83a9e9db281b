"""The local Earth Engine's protocol, quotas, faults and fixed world, through the real client."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from smgeo.catalog import EARTHENGINE
from tests.earthengine_server import EMAIL, Faults, Quotas, Server, build_world, server_process
from tests.earthengine_server.auth import Tokens
from tests.earthengine_server.sketch import DAY, GRID, fetch, grid_of, initialize, ramp, sign_in, sketch, values
from tests.earthengine_server.world import CENTRE, CLOUD_SCORE, GLO30, IMERG, L8, MODIS, S1, S2

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


# Protocol --------------------------------------------------------------------------------------------------------


def test_a_service_account_gets_a_token_and_needs_it(small, tmp_path):
    import google.auth.exceptions

    with Server(small, require_token=True) as guarded:
        key = guarded.write_key_file(tmp_path / "key.json")
        initialize(guarded, ee.ServiceAccountCredentials(EMAIL, str(key)))
        assert ee.Number(1).add(2).getInfo() == 3
        assert guarded.counters.requests["token"] == 1
        guarded.tokens.revoke()  # the client fetches another
        assert ee.Number(1).add(2).getInfo() == 3
        assert guarded.counters.requests["token"] == 2
        # The client tries to refresh what can't be.
        with pytest.raises(google.auth.exceptions.InvalidOperation, match="cannot be refreshed"):
            initialize(guarded)
        forged = Tokens().write_key_file(tmp_path / "forged.json", guarded.url)  # a key that the server does not know
        with pytest.raises(google.auth.exceptions.RefreshError, match="invalid_grant"):
            initialize(guarded, ee.ServiceAccountCredentials(EMAIL, str(forged)))
    ee.Reset()


def raw(server, path, body):
    """Status and JSON of a POST without the client."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


ONE = {"values": {"0": {"constantValue": 1}}, "result": "0"}
PIXELS = {
    "expression": {
        "values": {
            "0": {
                "functionInvocationValue": {
                    "functionName": "Image.constant",
                    "arguments": {"value": {"constantValue": 1}},
                }
            }
        },
        "result": "0",
    },
    "fileFormat": "NPY",
    "grid": grid_of(GRID),
}


def without(name):
    return {k: v for k, v in PIXELS.items() if k != name}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("value:compute", {"expression": ONE, "colour": 1}, 'Unknown name "colour"'),
        ("value:compute", {}, 'lacks "expression"'),
        ("value:compute", {"expression": {"values": {}}}, 'lacks "result"'),
        (
            "value:compute",
            {"expression": {"values": {"0": {"constantValue": 1, "valueReference": "0"}}, "result": "0"}},
            "one of",
        ),
        ("value:compute", {"expression": {"values": {"0": {"integerValue": 3}}, "result": "0"}}, "expected string"),
        ("value:compute", b"{", "Invalid JSON"),
        ("image:computePixels", without("grid"), 'lacks "grid"'),
        ("image:computePixels", PIXELS | {"fileFormat": "BMP"}, "enum"),
        ("image:computePixels", PIXELS | {"grid": {**PIXELS["grid"], "crsWkt": "x"}}, "exactly one of crsCode, crsWkt"),
        (
            "image:computePixels",
            PIXELS | {"grid": {**PIXELS["grid"], "dimensions": {"width": 2.5, "height": 2}}},
            "integer",
        ),
        ("image:computePixels", PIXELS | {"grid": {**PIXELS["grid"], "crsCode": "EPSG:0"}}, "parse CRS"),
    ],
)
def test_bodies_that_are_not_of_the_schema_are_refused(server, path, body, says):
    for version in ("v1", "v1alpha"):
        code, answer = raw(server, f"/{version}/projects/p/{path}", body)
        assert code == 400
        assert answer["error"]["status"] == "INVALID_ARGUMENT"
        assert says in answer["error"]["message"]


def test_unknown_paths_are_not_found(server):
    assert raw(server, "/v1/projects/p/nothing:here", {})[0] == 404


def call(name, **arguments):
    node = {
        "functionInvocationValue": {
            "functionName": name,
            "arguments": {k: {"constantValue": v} for k, v in arguments.items()},
        }
    }
    return {"expression": {"values": {"0": node}, "result": "0"}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (call("Image.fly", image=1), "not found"),
        (call("Image.cumulativeCost", cost=1, source=1, maxDistance=1), "not available on this server"),
        (call("Image.select", input=1), "'bandSelectors' is required"),
        (call("Image.log10", value=1, base=2), "Unrecognized argument"),
        (call("Image.load", id="TEST/none"), "Image asset 'TEST/none' not found"),
        (call("ImageCollection.load", id="TEST/none"), "not found"),
        (call("Collection.size", collection=1), "required to be of type FeatureCollection"),
    ],
)
def test_calls_are_checked_against_the_list_of_algorithms(server, body, says):
    code, answer = raw(server, "/v1/projects/p/value:compute", body)
    assert code == 400
    assert says in answer["error"]["message"]


def test_errors_reach_the_client_in_words(server):
    with pytest.raises(ee.EEException, match="did not match any bands"):
        fetch(ramp().select("z"))


# Quotas ----------------------------------------------------------------------------------------------------------


def test_quotas_of_pixels_and_bands(small):
    with Server(small, quotas=Quotas(pixel_bytes=4 * 4 * 4, side=8, bands=2, payload=20_000)) as strict:
        initialize(strict)
        assert fetch(ramp()).shape == (4, 4)
        with pytest.raises(ee.EEException, match=r"Total request size \(80 bytes\)"):
            fetch(ramp(), shape=(4, 5))
        with pytest.raises(ee.EEException, match="dimensions"):
            fetch(ramp(), shape=(1, 9))
        with pytest.raises(ee.EEException, match="number of bands"):
            fetch(ramp().addBands(ramp()).addBands(ramp()))
        with pytest.raises(ee.EEException, match="payload"):
            ee.List(["x" * 20_000]).getInfo()
    ee.Reset()


def test_a_collection_of_more_than_5000_elements_is_not_returned(server):
    many = ee.FeatureCollection(ee.List.sequence(1, 5001).map(lambda n: ee.Feature(None, {"n": n})))
    with pytest.raises(ee.EEException, match="after accumulating over 5000 elements"):
        many.getInfo()
    assert len(many.limit(5000).getInfo()["features"]) == 5000
    assert many.size().getInfo() == 5001


def test_requests_in_flight_are_bounded_and_counted(small):
    with Server(small, latency_s=0.2, quotas=Quotas(in_flight=3)) as strict:
        codes = []
        threads = [
            threading.Thread(
                target=lambda: codes.append(raw(strict, "/v1/projects/p/value:compute", {"expression": ONE})[0])
            )
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(codes) == [200, 200, 200, 429, 429]
        assert strict.counters.statuses[429] == 2
        assert raw(strict, "/v1/projects/p/value:compute", {"expression": ONE})[0] == 200


def test_requests_of_a_minute_are_bounded(small):
    with Server(small, quotas=Quotas(per_minute=2)) as strict:
        codes = [raw(strict, "/v1/projects/p/value:compute", {"expression": ONE})[0] for _ in range(3)]
        assert codes == [200, 200, 429]


# Faults ----------------------------------------------------------------------------------------------------------


def test_each_fault_reaches_the_client(small):
    import requests

    with Server(small, faults=Faults(hang_s=20)) as bad:
        url = f"{bad.url}/v1/projects/p/image:computePixels"
        for status in ("429", "500", "503"):
            bad.faults.fail_next(status)
            answer = requests.post(url, json=PIXELS, timeout=5)
            assert (answer.status_code, answer.json()["error"]["code"]) == (int(status), int(status))
        good = requests.post(url, json=PIXELS, timeout=5).content
        bad.faults.fail_next("cut")
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            requests.post(url, json=PIXELS, timeout=5)
        bad.faults.fail_next("short", "html", "shape", "dtype")
        assert requests.post(url, json=PIXELS, timeout=5).content == good[: len(good) // 2]
        page = requests.post(url, json=PIXELS, timeout=5)
        assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html")
        initialize(bad)
        bad.faults = Faults(hang_s=20)
        bad.faults.fail_next("shape", "dtype")
        assert fetch(ramp()).shape == (5, 4)
        assert fetch(ramp()).dtype == [("a", "<f8")]
        bad.faults.fail_next("hang")
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.post(url, json=PIXELS, timeout=0.2)
        deadline = time.monotonic() + 5
        while bad.counters.in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        assert bad.counters.in_flight == 0  # the server noticed that the client had gone
    ee.Reset()


def test_remembered_answers_are_not_evaluated_again(small):
    with Server(small, remember=True) as quick:
        initialize(quick)
        first = fetch(ramp())
        evaluated = dict(quick.counters.functions)
        np.testing.assert_array_equal(fetch(ramp()), first)
        assert dict(quick.counters.functions) == evaluated
        assert quick.counters.requests["pixels"] == 2
        quick.faults.fail_next("shape")
        assert fetch(ramp()).shape == (5, 4)
    ee.Reset()


def test_a_share_of_faults_is_the_same_for_a_seed():
    def picks(seed):
        faults = Faults(0.2, seed)
        return [faults.pick(True) for _ in range(400)]

    assert picks(1) == picks(1)
    assert picks(1) != picks(2)
    failed = [p for p in picks(1) if p is not None]
    assert 40 < len(failed) < 120
    assert set(failed) == {"429", "500", "503", "hang", "cut", "short", "html", "shape"}


def test_the_server_as_a_process(tmp_path):
    path = str(tmp_path / "key.json")
    with server_process("--days", "1", "--half-hours", "1", "--key", path) as url:
        ee.Reset()
        ee.Initialize(ee.ServiceAccountCredentials(EMAIL, path), project="smgeo-test", url=url)
        assert ee.ImageCollection(IMERG).size().getInfo() == 1
        with urllib.request.urlopen(f"{url}/counters", timeout=10) as answer:
            assert json.load(answer)["requests"]["value"] == 1
    with pytest.raises(urllib.error.URLError):  # it has ended
        urllib.request.urlopen(f"{url}/counters", timeout=10)
    ee.Reset()


# The fixed world -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    with Server(build_world(days=6, half_hours=4)) as running:
        yield running
    ee.Reset()


@pytest.fixture
def fixed(world):
    sign_in(world)
    return world


def test_every_asset_and_band_of_the_catalogue_is_there(fixed):
    for name, where in EARTHENGINE.items():
        if where.image:
            bands = ee.Image(where.asset).bandNames().getInfo()
        else:
            images = ee.ImageCollection(where.asset).filterBounds(ee.Geometry.Point([CENTRE.lon, CENTRE.lat]))
            bands = images.first().bandNames().getInfo()
        assert where.band in bands or where.asset == S1, name
    assert ee.ImageCollection(IMERG).size().getInfo() == 24


@pytest.mark.parametrize("asset", [S1, S2, CLOUD_SCORE, L8, IMERG, MODIS, GLO30, "projects/soilgrids-isric/clay_mean"])
def test_every_product_gives_its_stored_values_on_its_own_grid(fixed, asset):
    image = next(i for i in fixed.world.stored if i == asset or i.startswith(asset + "/"))
    for name, band in fixed.world.stored[image].items():
        patch = band.patches[0]
        a, b, _, d, e, _ = band.projection.transform
        origin = (a * patch.col + b * patch.row, d * patch.col + e * patch.row)
        got = values(ee.Image(image).select(name), band.projection, patch.values.shape, origin)
        np.testing.assert_allclose(got, np.where(patch.valid, patch.values, np.nan), rtol=1e-6, err_msg=name)


def test_the_world_has_what_the_rules_are_about(fixed):
    world = fixed.world
    utc = lambda asset: [(i.properties["system:time_start"] // DAY, i) for i in world.collections[asset]]  # noqa: E731
    middle = [(d, i) for d, i in utc(S1) if "middle" in i.properties["system:index"]]
    iw = [(d, i) for d, i in middle if i.properties["instrumentMode"] == "IW" and len(i.bands) == 3]
    assert {i.properties["orbitProperties_pass"] for _, i in iw} == {"ASCENDING", "DESCENDING"}
    assert {i.bands[0].projection.crs for _, i in iw} == {"EPSG:32632", "EPSG:32633"}
    assert max(np.unique([d for d, _ in iw], return_counts=True)[1]) == 2  # two slices of one day
    assert {i.properties["instrumentMode"] for _, i in middle} == {"IW", "EW"}
    tiles = [i for _, i in utc(S2) if i.properties["MGRS_TILE"].endswith("MI")]
    assert {t.bands[0].projection.crs for t in tiles} == {"EPSG:32632", "EPSG:32633"}
    scores = {i.properties["system:index"] for i in world.collections[CLOUD_SCORE]}
    lacking = [i for i in world.collections[S2] if i.properties["system:index"] not in scores]
    assert len(lacking) == 1
    assert len({i.properties["CLOUD_COVER"] for i in world.collections[L8]}) == 2
    assert len(world.collections[GLO30]) == 4
    south = [i.properties["system:time_start"] % DAY for _, i in utc(S1) if "south" in i.properties["system:index"]]
    assert max(south) > DAY - 60_000  # a pass just before midnight


def test_the_same_world_every_time():
    one, two = build_world(days=2, half_hours=1), build_world(days=2, half_hours=1)
    assert list(one.stored) == list(two.stored)
    for image, bands in one.stored.items():
        for name, band in bands.items():
            np.testing.assert_array_equal(band.values, two.stored[image][name].values)


def test_truth_can_be_read_at_a_place(fixed):
    image = next(i for i in fixed.world.stored if i.startswith(S2))
    lon, lat = CENTRE.lon, CENTRE.lat
    where = ee.FeatureCollection([ee.Feature(ee.Geometry.Point([lon, lat]))])
    picture = ee.Image(image).select("B8")
    got = picture.reduceRegions(where, ee.Reducer.first(), crs=picture.projection()).aggregate_array("first").getInfo()
    assert got == [fixed.world.stored[image]["B8"].value(lon, lat)]
