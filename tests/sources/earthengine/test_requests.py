"""Requests to Earth Engine: how many, how many at once, what happens when they fail, and that no secret leaves."""

from __future__ import annotations

import json
import logging
import pickle
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

pytest.importorskip("ee", reason="needs smgeo[gee]")

from smgeo.catalog import EARTHENGINE
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import EarthEngineSource
from smgeo.sources import open_earthengine
from smgeo.sources.earthengine import expressions as earthengine_expressions
from smgeo.sources.earthengine import plan as earthengine_plan
from smgeo.sources.earthengine import requests as earthengine_requests
from smgeo.sources.earthengine import session as earthengine_session
from smgeo.sources.earthengine.plan import cut_days
from smgeo.sources.earthengine.requests import Gate
from smgeo.sources.earthengine.session import find_access
from tests.earthengine_server import Faults, Quotas, Server, build_world
from tests.earthengine_server.faults import KINDS

PERIOD, LONG = ("2021-06-01", "2021-06-10"), ("2021-06-01", "2021-06-30")
BOX = GeoBox((30, 270), Affine(10, 0, 283_000, 0, -10, 5_532_300), "EPSG:32633")  # two blocks


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    # Two images of rain a day in place of 48 are as good for what is asked.
    rain = replace(EARTHENGINE["precipitation"], images_a_day=2)
    with (
        pytest.MonkeyPatch.context() as patch,
        Server(build_world(days=30, half_hours=2), require_token=True) as running,
    ):
        patch.setitem(EARTHENGINE, "precipitation", rain)
        running.key = running.write_key_file(tmp_path_factory.mktemp("ee") / "key.json")
        yield running


@pytest.fixture(autouse=True)
def _fresh(server):
    server.faults, server.quotas, server.latency_s = Faults(), Quotas(), 0.0
    server.reset_counters()


@pytest.fixture
def quick(monkeypatch):
    """Short waits before another attempt."""
    monkeypatch.setattr(earthengine_requests, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(earthengine_requests, "LONGEST_WAIT_S", 0.2)


def spec_of(server, bands=("s1_vv", "s1_vh", "l8_b10", "precipitation", "elevation"), **options):
    return {"bands": list(bands), "orbit": "ascending", "url": server.url, "credentials": str(server.key), **options}


def on_grid(server, period=PERIOD, **options):
    return open_earthengine(spec_of(server, **options), geobox=BOX, period=period)


def sent(server):
    """Requests for values and pixels that reached the server."""
    return sum(server.counters.requests[k] for k in ("value", "pixels"))


def shards(store: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(store)): p.read_bytes()
        for p in sorted(store.rglob("*"))
        if p.is_file() and "ledger" not in str(p)
    }


# Laziness and the plan -------------------------------------------------------------------------------------------


def test_nothing_but_the_listing_is_asked_before_values_are_computed(server):
    ds = on_grid(server)
    listed = sent(server)
    assert server.counters.requests["pixels"] == 0
    assert listed == 4  # three collections and the tiles
    assert all(dask.is_dask_collection(v) for v in ds.data_vars.values())
    ds["s1_vv"].isel(time=0).mean()
    assert sent(server) == listed
    ds["s1_vv"].compute()
    assert server.counters.requests["pixels"] == 2 * 10  # blocks x days, of which all have rain


def test_all_variables_of_a_block_come_from_the_same_requests(server):
    ds = on_grid(server)
    ds.compute()
    assert server.counters.requests["pixels"] == 2 * 10 + 2
    assert sent(server) == ds.attrs["requests"]
    assert ds["s1_vv"].data.chunks == ((10,), (30,), (256, 14))


def test_days_without_images_are_not_asked_for(server):
    ds = on_grid(server, bands=("s1_vv", "l8_b10"))
    ds.compute()
    assert server.counters.requests["pixels"] == 2 * 3  # Sentinel-1 on two days, Landsat on one
    assert sent(server) == ds.attrs["requests"]


def test_names_of_arrays_say_what_they_hold(server):
    names = lambda **o: {n: v.data.name for n, v in on_grid(server, **o).data_vars.items()}  # noqa: E731
    first = names()
    assert names() == first
    assert names(requests_in_flight=3, budget=500, timeout_s=9.0, project="another-project") == first
    assert names(mask=False)["l8_b10"] != first["l8_b10"]
    images = server.world.collections["COPERNICUS/S1_GRD"]
    server.world.collections["COPERNICUS/S1_GRD"] = [
        i for i in images if "20210602" not in i.properties["system:index"]
    ]
    try:
        assert names()["s1_vv"] != first["s1_vv"]
    finally:
        server.world.collections["COPERNICUS/S1_GRD"] = images


def test_a_listing_that_may_be_cut_is_asked_for_in_halves(server, monkeypatch):
    whole, at_places = on_grid(server), at_stations(server)
    for module in (earthengine_expressions, earthengine_plan):
        monkeypatch.setattr(module, "MOST_ELEMENTS", 3)
    halved = on_grid(server)
    assert {n: v.data.name for n, v in halved.data_vars.items()} == {n: v.data.name for n, v in whole.data_vars.items()}
    assert halved.attrs["requests"] > whole.attrs["requests"]
    assert list(at_stations(server)["day_inputs"].values) == list(at_places["day_inputs"].values)


def test_days_are_cut_into_requests():
    assert cut_days(dict.fromkeys(range(100), 64), 0, 512) == [tuple(range(64)), tuple(range(64, 100))]
    assert cut_days(dict.fromkeys(range(100), 100), 0, 512) == [tuple(range(50)), tuple(range(50, 100))]
    assert cut_days({5: 1, 9: 1, 10: 1}, 0, 10) == [(5, 9), (10,)]
    assert cut_days({7: 9000}, 0, 512) == [(7,)]
    assert cut_days({}, 0, 512) == []


# Faults ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faultless(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faultless")
    server.faults = Faults()
    write_cube(on_grid(server), folder / "grid.zarr")
    write_cube(on_grid(server, LONG), folder / "long.zarr")
    write_cube(at_stations(server), folder / "stations.zarr")
    return folder


def at_stations(server, **options):
    rng = np.random.default_rng(1)
    coords = {
        "station": np.array([f"N/s{i}" for i in range(150)], dtype=object),
        "longitude": ("station", 12.0 + rng.uniform(-8e-3, 8e-3, 150)),
        "latitude": ("station", 49.9 + rng.uniform(-6e-3, 6e-3, 150)),
    }
    return open_earthengine(spec_of(server, **options), stations=xr.Dataset(coords=coords), period=PERIOD)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_cube_built_through_faults_is_the_same_to_the_bit(server, faultless, quick, tmp_path, seed):
    assert np.isfinite(open_cube(faultless / "long.zarr")["s1_vv"].values).sum() > 1000
    server.faults = Faults(0.2, seed, KINDS, hang_s=20)
    write_cube(on_grid(server, LONG, timeout_s=2.0, requests_in_flight=6), tmp_path / "long.zarr")
    write_cube(at_stations(server, timeout_s=2.0, requests_in_flight=6), tmp_path / "stations.zarr")
    for store in ("long.zarr", "stations.zarr"):
        assert shards(tmp_path / store) == shards(faultless / store)
    # Shapes and types of arrays go wrong in pixels alone, and a drip is the last in turn, so theirs may not come.
    assert set(server.faults.done) >= set(KINDS) - {"shape", "dtype", "drip"}


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_costs_one_request(server, quick, kind):
    ds = on_grid(server, bands=("s1_vv",), timeout_s=1.0).isel(time=[1], x=slice(0, 10))
    server.faults = Faults(hang_s=20)
    server.faults.fail_next(kind)
    before = sent(server)
    ds.compute(scheduler="sync")
    assert server.faults.done == {kind: 1}
    assert sent(server) - before == 2 + 1  # two days of the block


def test_an_interrupted_cube_goes_on_where_it_stopped(server, faultless, quick, tmp_path):
    # The listing, two static blocks and the ten days of one block are answered; then nothing is.
    server.faults.fail_next(*[None] * (4 + 2 + 10), *["503"] * 40)
    with dask.config.set(scheduler="sync"), pytest.raises(SmgeoError, match="attempts failed"):
        write_cube(on_grid(server, retries=1), tmp_path / "grid.zarr")
    server.faults = Faults()
    server.reset_counters()
    write_cube(on_grid(server), tmp_path / "grid.zarr")
    assert sent(server) == 4 + 10
    assert shards(tmp_path / "grid.zarr") == shards(faultless / "grid.zarr")


def test_writing_a_cube_asks_for_everything_once(server, tmp_path):
    ds = on_grid(server)
    write_cube(ds, tmp_path / "grid.zarr")
    assert sent(server) == ds.attrs["requests"] == 4 + 2 * (10 + 1)


def test_a_day_with_a_new_image_is_known_by_it(server):
    before = on_grid(server)["day_inputs"].values
    assert len(set(before)) == 10
    images = server.world.collections["COPERNICUS/S1_GRD"]
    server.world.collections["COPERNICUS/S1_GRD"] = [
        i for i in images if "20210602" not in i.properties["system:index"]
    ]
    try:
        after = on_grid(server)["day_inputs"].values
    finally:
        server.world.collections["COPERNICUS/S1_GRD"] = images
    assert [i for i in range(10) if before[i] != after[i]] == [1]


def test_a_request_that_always_fails_says_so(server, quick):
    ds = on_grid(server, retries=2)
    server.faults = Faults(1.0, kinds=["503"])
    with pytest.raises(SmgeoError, match=r"pixels of 2021-06-\d\d: 3 attempts failed, the last with HTTP 503.*go"):
        ds.compute(scheduler="sync")
    assert sent(server) < 4 + 3 * 10  # others of the block were given up with it


def test_a_refused_request_is_not_repeated(server, quick):
    with pytest.raises(SmgeoError, match=r"400.*not found.*asked for the listing of COPERNICUS/DEM/GLO30"):
        server_without(server, "COPERNICUS/DEM/GLO30")
    assert server.counters.statuses[400] == 1


def test_a_server_that_is_none_of_earth_engine_says_so(server):
    with pytest.raises(SmgeoError, match=r"refused a request.*earthengine"):
        open_earthengine({**spec_of(server), "url": f"{server.url}/nowhere"}, geobox=BOX, period=PERIOD)


def server_without(server, collection):
    kept = server.world.collections.pop(collection)
    try:
        on_grid(server, bands=("elevation",))
    finally:
        server.world.collections[collection] = kept


# Bound and budget ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [1, 3, 6])
def test_requests_in_flight_stay_at_the_bound(server, bound):
    ds = on_grid(server, requests_in_flight=bound)
    server.latency_s, server.quotas = 0.05, replace(Quotas(), in_flight=bound)
    with dask.config.set(num_workers=4):
        ds.compute()
    assert server.counters.most_in_flight == bound
    assert 429 not in server.counters.statuses


def test_a_plan_beyond_the_budget_is_refused_before_a_pixel_is_asked(server):
    needed = on_grid(server).attrs["requests"]
    assert on_grid(server, budget=needed).attrs["requests"] == needed
    server.reset_counters()
    with pytest.raises(SmgeoError, match=rf"needs {needed} requests \(4 are sent\), the budget is {needed - 1}"):
        on_grid(server, budget=needed - 1)
    with pytest.raises(SmgeoError, match="budget of 2 requests is used up"):
        on_grid(server, budget=2)
    assert server.counters.requests["pixels"] == 0


def test_repeated_requests_count_too(server, quick):
    needed = on_grid(server).attrs["requests"]
    server.reset_counters()
    ds = on_grid(server, budget=needed + 3)
    server.faults = Faults(0.5, kinds=["503"])
    with pytest.raises(SmgeoError, match=f"budget of {needed + 3} requests is used up.*Raise budget"):
        ds.compute(scheduler="sync")
    assert sent(server) == needed + 3


# Worker processes ------------------------------------------------------------------------------------------------

BUILD = """
import sys, json
from dataclasses import replace
from affine import Affine
from distributed import Client
from odc.geo.geobox import GeoBox
from smgeo.catalog import EARTHENGINE
from smgeo.cube import write_cube
from smgeo.sources import open_earthengine

if __name__ == "__main__":
    spec, store = json.loads(sys.argv[1]), sys.argv[2]
    EARTHENGINE["precipitation"] = replace(EARTHENGINE["precipitation"], images_a_day=2)
    box = GeoBox((30, 270), Affine(10, 0, 283_000, 0, -10, 5_532_300), "EPSG:32633")
    with Client(n_workers=2, threads_per_worker=2, dashboard_address=None):
        write_cube(open_earthengine(spec, geobox=box, period=("2021-06-01", "2021-06-10")), store)
"""


def build_on_workers(server, tmp_path, **options):
    script = tmp_path / "build.py"
    script.write_text(textwrap.dedent(BUILD))
    command = [sys.executable, str(script), json.dumps(spec_of(server, **options)), str(tmp_path / "c.zarr")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_worker_processes_sign_in_by_themselves_and_share_the_bound(server, faultless, tmp_path):
    server.latency_s, server.quotas = 0.05, replace(Quotas(), in_flight=3)
    done = build_on_workers(server, tmp_path, requests_in_flight=3)
    assert done.returncode == 0, done.stderr
    assert shards(tmp_path / "c.zarr") == shards(faultless / "grid.zarr")
    assert server.counters.requests["token"] == 3  # the one that opens, and two workers
    assert server.counters.most_in_flight == 3
    assert 429 not in server.counters.statuses
    assert not secrets_in(server, done.stdout + done.stderr)


@pytest.mark.soak
def test_worker_processes_share_the_budget(server, tmp_path):
    needed = on_grid(server).attrs["requests"]
    server.reset_counters()
    server.faults.fail_next(*[None] * 4, *["503"] * 8)  # after the listing
    done = build_on_workers(server, tmp_path, budget=needed + 2)
    assert done.returncode != 0
    assert f"budget of {needed + 2} requests is used up" in done.stderr
    assert sent(server) <= needed + 2


# Credentials -----------------------------------------------------------------------------------------------------


def secrets_in(server, text: str | bytes) -> list[str]:
    """Which of the key and the granted tokens a text holds, whole or by a line of the key."""
    given = text if isinstance(text, bytes) else text.encode()
    info = json.loads(Path(server.key).read_text())
    lines = [line for line in info["private_key"].splitlines() if "-----" not in line]
    return [s for s in (*lines, info["private_key_id"], *server.tokens.granted) if s.encode() in given]


def test_the_search_finds_a_secret(server):
    on_grid(server)
    assert secrets_in(server, Path(server.key).read_bytes())
    assert secrets_in(server, f"Authorization: Bearer {server.tokens.granted[0]}")


def test_no_secret_is_in_logs_graphs_stores_or_errors(server, quick, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    ds = on_grid(server, timeout_s=2.0, requests_in_flight=6)
    server.faults = Faults(0.3, kinds=KINDS, hang_s=20)
    write_cube(ds, tmp_path / "c.zarr")
    assert server.tokens.granted
    assert not secrets_in(server, pickle.dumps({n: dict(v.__dask_graph__()) for n, v in ds.data_vars.items()}))
    assert not any(secrets_in(server, p.read_bytes()) for p in (tmp_path / "c.zarr").rglob("*") if p.is_file())
    assert not secrets_in(server, repr(ds) + str(ds.attrs) + str({n: v.attrs for n, v in ds.data_vars.items()}))
    known, keys = server.tokens.granted, dict(server.tokens.keys)
    server.faults = Faults()
    server.tokens.keys.clear()  # the account is gone
    server.tokens.revoke()
    try:
        with pytest.raises(SmgeoError) as error:
            ds.compute(scheduler="sync")
    finally:
        server.tokens.keys.update(keys)
    assert "did not accept" in str(error.value)
    everything = caplog.text + str(error.value) + repr(error.getrepr())
    assert not secrets_in(server, everything)
    assert not any(token in everything for token in known)


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A machine without any credentials of Google."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "EARTHENGINE_PROJECT", "GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def test_missing_credentials_say_what_to_do(server, nobody, tmp_path):
    bare = {"bands": ["clay"], "url": server.url}
    with pytest.raises(
        SmgeoError, match="no credentials found.*earthengine authenticate.*GOOGLE_APPLICATION_CREDENTIALS"
    ):
        open_earthengine({**bare, "bands": ["elevation"]}, geobox=BOX, period=PERIOD)
    with pytest.raises(SmgeoError, match=r"key file .*nowhere.json is not there"):
        open_earthengine({**bare, "credentials": "nowhere.json"}, root=tmp_path, geobox=BOX, period=PERIOD)
    (tmp_path / "bad.json").write_text(
        '{"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\\nc2VjcmV0\\n"}'
    )
    with pytest.raises(SmgeoError, match=r"bad.json cannot be read as a key file") as error:
        open_earthengine(
            {**bare, "bands": ["elevation"], "credentials": "bad.json"}, root=tmp_path, geobox=BOX, period=PERIOD
        )
    assert "c2VjcmV0" not in str(error.value)


def test_a_missing_project_says_what_to_do(server, nobody, tmp_path, monkeypatch):
    info = {k: v for k, v in json.loads(Path(server.key).read_text()).items() if k != "project_id"}
    (tmp_path / "key.json").write_text(json.dumps(info))
    spec = {**spec_of(server), "credentials": "key.json"}
    with pytest.raises(SmgeoError, match=r"no Cloud project.*project:.*EARTHENGINE_PROJECT"):
        open_earthengine(spec, root=tmp_path, geobox=BOX, period=PERIOD)
    monkeypatch.setenv("EARTHENGINE_PROJECT", "from-the-environment")
    assert open_earthengine(spec, root=tmp_path, geobox=BOX, period=PERIOD).attrs["requests"]
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(server.key))
    assert open_earthengine({**spec, "credentials": None}, geobox=BOX, period=PERIOD).attrs["requests"]


def test_missing_credentials_and_project_are_said_at_once(server, nobody):
    bare = {"bands": ["elevation"], "url": server.url}
    with pytest.raises(SmgeoError, match=r"no credentials found.*no Cloud project is named.*EARTHENGINE_PROJECT"):
        open_earthengine(bare, geobox=BOX, period=PERIOD)
    with pytest.raises(SmgeoError, match="no credentials found") as error:
        open_earthengine({**bare, "project": "named"}, geobox=BOX, period=PERIOD)
    assert "no Cloud project" not in str(error.value)


def test_relative_key_of_the_environment_starts_at_the_current_folder(server, nobody, tmp_path, monkeypatch):
    here, root = tmp_path / "here", tmp_path / "root"
    here.mkdir()
    root.mkdir()
    (here / "key.json").write_bytes(Path(server.key).read_bytes())
    monkeypatch.chdir(here)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    of_environment = {**spec_of(server, bands=("elevation",)), "credentials": None}
    assert open_earthengine(of_environment, root=root, geobox=BOX, period=PERIOD).attrs["requests"]
    with pytest.raises(SmgeoError, match=r"key file .*/root/key\.json is not there"):
        open_earthengine({**of_environment, "credentials": "key.json"}, root=root, geobox=BOX, period=PERIOD)


def test_folder_given_as_key_says_so(server, tmp_path):
    with pytest.raises(SmgeoError, match=r"is a folder; name the key file in it"):
        open_earthengine({**spec_of(server), "credentials": "."}, root=tmp_path, geobox=BOX, period=PERIOD)


@pytest.fixture
def silent():
    """An address at which nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listened at
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("part", ["sign-in", "discovery"])
def test_no_connection_at_first_contact_names_the_address_and_gives_up_soon(
    server, silent, tmp_path, monkeypatch, caplog, part
):
    monkeypatch.setattr(earthengine_session, "SIGN_IN_WAIT_S", 0.01)
    caplog.set_level(logging.DEBUG, logger="urllib3")
    info = json.loads(Path(server.key).read_text())
    spec = spec_of(server, url=f"http://{silent}" if part == "discovery" else f"{server.url}/", retries=8)
    if part == "sign-in":
        (tmp_path / "key.json").write_text(json.dumps({**info, "token_uri": f"http://{silent}/token"}))
        spec["credentials"] = str(tmp_path / "key.json")
    for _ in range(2):  # the second is tried anew
        caplog.clear()
        with pytest.raises(
            SmgeoError, match=rf"signing in failed 3 times: no connection to {silent} .*machine online\?"
        ):
            open_earthengine(spec, geobox=BOX, period=PERIOD)
        assert sum("Starting new HTTP connection" in r.message and silent in r.message for r in caplog.records) == 3


def test_no_connection_once_signed_in_is_tried_as_often_as_any_request(server, silent, quick):
    source = EarthEngineSource(**{"kind": "earthengine", **spec_of(server, bands=("elevation",), retries=4)})
    gate, transport = Gate(find_access(source, ".")), earthengine_session._Transport()
    says = rf"pixels: 5 attempts failed, the last with no connection to {silent} .*online"
    with pytest.raises(SmgeoError, match=says) as error:
        gate.ask(lambda: transport.request(f"http://name:secret@{silent}/v1"), "pixels")
    assert "secret" not in str(error.value)


def test_refused_before_anything_is_sent(server):
    spec = spec_of(server, bands=("s1_vv", "s2_b3"))
    for options, says in (
        ({}, "either a grid or stations"),
        ({"geobox": BOX, "stations": xr.Dataset()}, "either a grid or stations"),
        ({"geobox": BOX, "period": None}, "give a period"),
        ({"geobox": BOX, "period": ("2021-06-02", "2021-06-01")}, "ends before it begins"),
    ):
        with pytest.raises(SmgeoError, match=says):
            open_earthengine(spec, **{"period": PERIOD, **options})
    with pytest.raises(SmgeoError, match=r"daily: clearest is not available for s1_vv .*rule is mean"):
        open_earthengine({**spec, "daily": "clearest"}, geobox=BOX, period=PERIOD)
    with pytest.raises(SmgeoError, match="needs orbit"):
        open_earthengine({**spec, "orbit": None}, geobox=BOX, period=PERIOD)
    with pytest.raises(SmgeoError, match="not a known variable"):
        open_earthengine({**spec, "bands": {"vv_up": "s1_vv"}}, geobox=BOX, period=PERIOD)
    assert sent(server) == 0
