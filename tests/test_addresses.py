"""Secrets in addresses reach the server that they are for, and nothing else: no file, no message, no other server."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import requests
from rasterio.transform import from_origin

import smgeo
from smgeo.addresses import find_address_faults, hide, plain, with_secrets
from smgeo.errors import SmgeoError
from smgeo.sources import open_rasters
from tests.range_server import RangeServer

WORD, SIGNATURE = "pass-w0rd-5561", "sv=2022&sig=Zm9v%2Bb8842"


@pytest.fixture
def secrets(monkeypatch):
    monkeypatch.setenv("SMGEO_SECRET_WORD", WORD)
    monkeypatch.setenv("SMGEO_SECRET_SAS", SIGNATURE)
    monkeypatch.setenv("OTHER", "other-value")


def test_a_text_for_people_has_no_password_and_no_query(secrets):
    assert plain("https://me:word@a.org:8080/b.tif?x=1#c") == "https://a.org:8080/b.tif"
    assert plain("/vsicurl?pc_url_signing=yes&url=https%3A%2F%2Fa.org%2Fb.tif%3Fsig%3D1") == "https://a.org/b.tif"
    assert plain("data/what?.tif") == "data/what?.tif"
    text = "'s3://key:word@b/c.nc?d=e', http://me@f.org/g?h and http://i.org/j; 1 / 2 ? 3"
    assert hide(text) == "'s3://b/c.nc?...', http://f.org/g?... and http://i.org/j; 1 / 2 ? 3"
    assert hide(f"bad login {WORD}") == "bad login ${SMGEO_SECRET_WORD}"
    assert str(SmgeoError("https://me:word@a.org/b?c=d")) == "https://a.org/b?..."


def test_values_are_filled_in_at_their_place_alone(secrets):
    found = with_secrets(
        "https://me:${SMGEO_SECRET_WORD}@a.org/${SMGEO_SECRET_WORD}/b.tif?v=${OTHER}&${SMGEO_SECRET_SAS}"
    )
    assert found == f"https://me:{WORD}@a.org/${{SMGEO_SECRET_WORD}}/b.tif?v=${{OTHER}}&{SIGNATURE}"
    assert with_secrets("a/${SMGEO_SECRET_WORD}.tif") == "a/${SMGEO_SECRET_WORD}.tif"


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("https://me:word@a.org/b.tif", "a password may not stand in a recipe"),
        ("https://a.org/b.tif?sig=1", "a query may be a secret"),
        ("https://a.org/b.tif?v=1&${SMGEO_SECRET_SAS}", "a query may be a secret"),
        ("https://${SMGEO_SECRET_WORD}@a.org/b.tif", "only in the password or the query"),
        ("https://a.org/${SMGEO_SECRET_WORD}/b.tif", "only in the password or the query"),
        ("https://${SMGEO_SECRET_WORD}.a.org/b.tif", "only in the password or the query"),
        ("https://a.org/b.tif?${OTHER}", "only ${SMGEO_SECRET_NAME} is filled in"),
        ("https://a.org/b.tif?${SMGEO_SECRET_MISSING}", "the environment variable SMGEO_SECRET_MISSING is not set"),
    ],
)
def test_what_a_recipe_may_not_have(address, fault, secrets):
    found = "; ".join(find_address_faults(address))
    assert fault in found
    assert "word" not in found.replace("password", "")
    assert "sig=1" not in found


@pytest.mark.parametrize(
    "address",
    [
        "a/b?.tif",
        "https://me@a.org/b.tif",
        "https://me:${SMGEO_SECRET_WORD}@a.org/{band}.tif?${SMGEO_SECRET_SAS}",
        "s3://a/b.tif?x=${SMGEO_SECRET_SAS}&y=${SMGEO_SECRET_WORD}",
    ],
)
def test_what_a_recipe_may_have(address, secrets):
    assert list(find_address_faults(address)) == []


# ---- with servers


@contextmanager
def _serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Serve on a port of its own; yields `host:port`, and the path and the login of each request."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            answer(self)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def _give(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes = b"") -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(content)


def _guarded(file: Path, elsewhere: str = "") -> Callable[[BaseHTTPRequestHandler], None]:
    """Give a file to who has user, password and query; below /moved, send to another server."""
    expected = "Basic " + base64.b64encode(f"me:{WORD}".encode()).decode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        if request.headers.get("Authorization") != expected or query != SIGNATURE:
            _give(request, 401, {"WWW-Authenticate": "Basic"})
        elif path.startswith("/moved"):
            _give(request, 302, {"Location": f"{elsewhere}/{file.name}"})
        else:
            _give(request, 200, {}, file.read_bytes())

    return answer


@pytest.fixture
def clay(tmp_path):
    file = tmp_path / "served" / "clay.tif"
    file.parent.mkdir()
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "height": 8, "width": 8, "crs": "EPSG:4326"}
    with rasterio.open(file, "w", **profile, transform=from_origin(10, 50, 0.1, 0.1)) as dst:
        dst.write(np.arange(64, dtype="float32").reshape(8, 8), 1)
    return file


def _recipe(tmp_path: Path, address: str) -> dict:
    rng = np.random.default_rng(0)
    places = [(f"s{i}", 10.05 + 0.1 * (i % 8), 49.95 - 0.1 * (i // 8)) for i in range(20)]
    days = pd.date_range("2020-01-01", periods=10)
    rows = [(s, d, 0.1 + 0.3 * rng.random(), lon, lat) for s, lon, lat in places for d in days]
    table = pd.DataFrame(rows, columns=["station", "date", "sm", "lon", "lat"])
    table.to_csv(tmp_path / "sm.csv", index=False)
    columns = {
        "station": "station",
        "time": "date",
        "latitude": "lat",
        "longitude": "lon",
        "sm": {"column": "sm", "depth": 0.05},
    }
    return {
        "name": "guarded",
        "stations": [{"kind": "csv", "path": str(tmp_path / "sm.csv"), "columns": columns}],
        "rasters": [{"kind": "geotiff", "path": address, "bands": {"clay": 1}}],
        "features": ["clay"],
        "prepare": {"window": {"length": 1}},
        "models": {"linear": {"kind": "Ridge"}},
    }


def _holds(folder: Path, *words: str) -> list[str]:
    """Files that contain one of the words, in their content or their name."""
    found = []
    for file in folder.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        found += [f"{file}: {w}" for w in words if w.encode() in content or w in file.name]
    return found


def test_a_run_keeps_the_name_of_a_secret_and_not_the_secret(secrets, clay, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    with _serving(_guarded(clay)) as (host, _):
        address = f"http://me:${{SMGEO_SECRET_WORD}}@{host}/clay.tif?${{SMGEO_SECRET_SAS}}"
        run = smgeo.run(_recipe(tmp_path, address), out=tmp_path / "run")
        assert run.results["models"]["linear"]["test"]["n"] > 0
        assert "${SMGEO_SECRET_SAS}" in (run.folder / "recipe.yaml").read_text()
        again = smgeo.run(run.folder / "recipe.yaml", out=tmp_path / "run")  # it can be run again
        assert again.results == run.results
    out, err = capfd.readouterr()
    (tmp_path / "run" / "printed.txt").write_text(out + err + caplog.text)
    assert _holds(tmp_path / "run", WORD, SIGNATURE, "Zm9v", base64.b64encode(f"me:{WORD}".encode()).decode()) == []


def test_a_server_that_refuses_is_named_without_secrets(secrets, clay, tmp_path, capfd, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    with _serving(_guarded(clay)) as (host, _):
        monkeypatch.setenv("SMGEO_SECRET_SAS", "sig=wrong-7719")
        address = f"http://me:${{SMGEO_SECRET_WORD}}@{host}/clay.tif?${{SMGEO_SECRET_SAS}}"
        with pytest.raises(SmgeoError, match=f"http://{host}/clay.tif cannot be opened") as error:
            open_rasters({"kind": "geotiff", "path": address, "bands": {"clay": 1}})
    out, err = capfd.readouterr()
    said = str(error.value) + out + err + caplog.text
    assert WORD not in said
    assert "7719" not in said


def test_another_server_gets_no_secret(secrets, clay, tmp_path):
    """A redirect to another server is followed without user, password and query."""
    with (
        _serving(lambda request: _give(request, 200, {}, clay.read_bytes())) as (thief, heard),
        _serving(_guarded(clay, f"http://{thief.replace('127.0.0.1', 'localhost')}")) as (host, _),
    ):
        address = f"http://me:${{SMGEO_SECRET_WORD}}@{host}/moved/clay.tif?${{SMGEO_SECRET_SAS}}"
        ds = open_rasters({"kind": "geotiff", "path": address, "bands": {"clay": 1}})
        np.testing.assert_array_equal(ds["clay"].values, np.arange(64).reshape(8, 8))
    assert heard
    assert set(heard) == {("/clay.tif", None)}


def test_a_catalogue_cannot_ask_for_a_secret(secrets, tmp_path):
    """An address that a catalogue gives is never filled in, nor is one that redirects to it."""
    pytest.importorskip("pystac_client")
    from smgeo.sources.stac.search import PatientIO

    with RangeServer(tmp_path) as server:
        (tmp_path / "root.json").write_text("{}")
        given = f"{server.url}/root.json?${{SMGEO_SECRET_SAS}}"
        asked: list[str] = []
        transport = requests.Session.send

        def send(self, request, **options):
            asked.append(request.url)
            return transport(self, request, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(requests.Session, "send", send)
            io = PatientIO(given)
            io.request(given)
            io.request(f"{server.url}/root.json?other=${{SMGEO_SECRET_SAS}}")
    assert SIGNATURE in asked[0]
    assert "Zm9v" not in asked[1]


def test_a_literal_secret_is_refused_before_any_work(tmp_path):
    recipe = _recipe(tmp_path, f"https://me:{WORD}@a.org/clay.tif?sig=8842")
    with pytest.raises(SmgeoError) as error:
        smgeo.run(recipe, out=tmp_path / "run")
    assert "rasters.0.path: https://a.org/clay.tif: a password may not stand in a recipe" in str(error.value)
    assert "rasters.0.path: https://a.org/clay.tif: a query may be a secret" in str(error.value)
    assert WORD not in str(error.value)
    assert "8842" not in str(error.value)
    assert not (tmp_path / "run").exists()
