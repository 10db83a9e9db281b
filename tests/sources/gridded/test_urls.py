"""Gridded files behind URLs, from a server of this test's own that gives parts of files."""

from __future__ import annotations

import gzip
import importlib.util
import re
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import xarray as xr

from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import GriddedSource
from smgeo.sources.gridded import files
from smgeo.sources.gridded.reader import gridded_files, open_gridded

SAND = {"kind": "netcdf", "bands": {"sand": "v"}}


class Ranged(SimpleHTTPRequestHandler):
    """Files of a folder, by parts."""

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            super().do_GET()
            return
        with open(self.translate_path(self.path), "rb") as f:
            body = f.read()
        first, last = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(body[first : last + 1])

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranged, directory=tmp_path))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_urls(tmp_path, served):
    ds = xr.Dataset({"v": (("lat", "lon"), np.array([[1.0, 2], [3, 4]]))}, {"lon": [0.0, 1], "lat": [1.0, 0]})
    ds.to_netcdf(tmp_path / "new.nc", engine="h5netcdf")
    ds.to_netcdf(tmp_path / "old.nc", engine="scipy")
    ds.to_zarr(tmp_path / "s.zarr", zarr_format=2, consolidated=True)
    if importlib.util.find_spec("aiohttp") is None:
        for kind, name in (("netcdf", "new.nc"), ("zarr", "s.zarr")):
            with pytest.raises(SmgeoError, match="aiohttp"):
                open_gridded({**SAND, "kind": kind, "path": f"{served}/{name}"})
        return
    for kind, name in (("netcdf", "new.nc"), ("netcdf", "old.nc"), ("zarr", "s.zarr")):
        spec = {**SAND, "kind": kind, "path": f"{served}/{name}"}
        np.testing.assert_array_equal(open_gridded(spec)["sand"].values, [[1, 2], [3, 4]])
        assert gridded_files(GriddedSource.model_validate(spec), tmp_path) == []
    table = np.arange(32, dtype=float).reshape(4, 8)
    rows = "\n".join(",".join(map(str, r)) for r in table)
    (tmp_path / "MOD_2016-01-01.CSV.gz").write_bytes(gzip.compress(rows.encode()))
    neo = {"kind": "csv_grid", "path": f"{served}/MOD_2016-01-01.CSV.gz", "bands": {"temperature": "lst"}}
    got = open_gridded({**neo, "dates": "MOD_%Y-%m-%d.CSV.gz"})["temperature"]
    np.testing.assert_array_equal(got.values[0], table)
    with pytest.raises(SmgeoError, match=r"nothing\.nc cannot be opened"):
        open_gridded({**SAND, "path": f"{served}/nothing.nc"})


@pytest.mark.parametrize("kind", ["netcdf", "zarr", "csv_grid"])
def test_a_server_that_never_answers_is_not_waited_for_without_a_limit(monkeypatch, kind):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(files, "_SILENT_S", 0.5)
    told = r"a\.x.* cannot be .*: no complete answer of its server \(20 s without a connection, 0.5 s without a byte"
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SmgeoError, match=told):
        open_gridded({**SAND, "kind": kind, "path": f"http://127.0.0.1:{silent.getsockname()[1]}/a.x"})


def test_urls_that_can_not_be_used():
    with pytest.raises(SmgeoError, match="cannot be listed by a pattern"):
        open_gridded({**SAND, "path": "https://example.org/3B*.nc4"})
    for url in ("https://me:hush@example.org/a.nc", "https://example.org/a.nc?key=hush"):
        with pytest.raises(SmgeoError, match="a password may not stand|a query may be a secret") as error:
            open_gridded({**SAND, "path": url})
        assert "hush" not in str(error.value)
