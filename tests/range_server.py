"""A web server for tests: a folder with range requests, and a STAC API over items in memory; it misbehaves on demand."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

FAULTS = ("429", "500", "503", "cut", "html")


class RangeServer:
    """Serves `folder` at `url`, and the items of `features` by the STAC API below `url`/api.

    Attributes
    ----------
    requests : list of (method, path)
        What was asked for, in order.
    faults : tuple of str
        What may go wrong: a status, `cut` (half of the body), `html` (a page with status 200).
    share : float
        Share of the requests that go wrong.
    fails : callable, optional
        path -> fault or None; instead of the share.
    needs : str
        What the query of a request below /private must hold; 403 otherwise.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        self.features: list[dict[str, Any]] = []
        self.methods = ("POST", "GET")
        self.conforms = ("item-search", "query")
        self.page = 7
        self.faults: tuple[str, ...] = FAULTS
        self.share = 0.0
        self.fails: Callable[[str], str | None] | None = None
        self.needs = ""
        self.requests: list[tuple[str, str]] = []
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._server = _Quiet(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> RangeServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def gets(self, ending: str) -> list[str]:
        """Paths asked for that end so."""
        return [p for _, p in self.requests if p.endswith(ending)]

    def fault(self, method: str, path: str) -> str | None:
        """Note a request, and say what goes wrong with it."""
        with self._lock:
            self.requests.append((method, path))
            if self.fails is not None:
                return self.fails(path)
            return self._random.choice(self.faults) if self._random.random() < self.share else None

    # The STAC API: https://api.stacspec.org/v1.0.0/core and /item-search

    def landing(self) -> dict[str, Any]:
        api = f"{self.url}/api"
        links = [
            {"rel": "self", "href": api},
            {"rel": "root", "href": api},
            {"rel": "data", "href": f"{api}/collections"},
        ]
        links += [
            {"rel": "search", "href": f"{api}/search", "type": "application/geo+json", "method": m}
            for m in self.methods
        ]
        root = "https://api.stacspec.org/v1.0.0"
        conforms = [f"{root}/core", f"{root}/item-search", f"{root}/collections"]
        conforms += [f"{root}/item-search#query"] if "query" in self.conforms else []
        return {
            "type": "Catalog",
            "id": "test",
            "description": "a test",
            "stac_version": "1.0.0",
            "conformsTo": conforms,
            "links": links,
        }

    def collections(self) -> dict[str, dict[str, Any]]:
        ids = dict.fromkeys(f["collection"] for f in self.features)
        return {i: collection(i, f"{self.url}/api/collections/{i}") for i in ids}

    def search(self, asked: dict[str, Any], method: str) -> dict[str, Any]:
        """One page of items, with a link to the next in the way of the method."""
        found = [f for f in self.features if _found(f, asked, query="query" in self.conforms)]
        start = int(asked.get("token", 0))
        size = min(int(asked.get("limit", 10)), self.page)
        links = []
        if start + size < len(found):
            following = {**asked, "token": start + size}
            href = f"{self.url}/api/search"
            if method == "POST":
                links.append({"rel": "next", "href": href, "method": "POST", "body": following})
            else:
                flat = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in following.items()}
                flat = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in flat.items()}
                links.append({"rel": "next", "href": f"{href}?{urlencode(flat)}", "method": "GET"})
        return {"type": "FeatureCollection", "features": found[start : start + size], "links": links}


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up whenever they like."""


def collection(name: str, href: str) -> dict[str, Any]:
    """A STAC collection that says no more than it must."""
    return {
        "type": "Collection",
        "id": name,
        "description": name,
        "stac_version": "1.0.0",
        "license": "other",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        "links": [{"rel": "self", "href": href}],
    }


def _found(feature: dict[str, Any], asked: dict[str, Any], *, query: bool) -> bool:
    if asked.get("collections") and feature["collection"] not in asked["collections"]:
        return False
    if box := asked.get("bbox"):
        west, south, east, north = feature["bbox"]
        if west > box[2] or east < box[0] or south > box[3] or north < box[1]:
            return False
    moment = feature["properties"]["datetime"] or feature["properties"]["start_datetime"]
    if span := asked.get("datetime"):
        first, last = span.split("/")
        if not first <= moment <= last:
            return False
    # Of the query extension, what the tests use.
    for name, tests in (asked.get("query") or {}).items() if query else ():
        value = feature["properties"].get(name)
        if value is None or ("lt" in tests and not value < tests["lt"]) or ("eq" in tests and value != tests["eq"]):
            return False
    return True


def _handler(server: RangeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer("GET")

        def do_HEAD(self) -> None:
            self._answer("HEAD")

        def do_POST(self) -> None:
            self._answer("POST")

        def _answer(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            fault = server.fault(method, address.path)
            if fault is not None and fault.isdigit():
                return self._send(int(fault), b"no", "text/plain")
            if fault == "html":
                return self._send(200, b"<html>come back later</html>", "text/html")
            if address.path.startswith("/private") and server.needs not in address.query:
                return self._send(403, b"no", "text/plain")
            if address.path.startswith("/sas"):
                return self._json({"token": server.needs, "msft:expiry": "2999-01-01T00:00:00Z"})
            if address.path.startswith("/api"):
                return self._api(method, address.path, parse_qs(address.query), body, cut=fault == "cut")
            return self._file(address.path, cut=fault == "cut")

        def _api(self, method: str, path: str, query: dict[str, list[str]], body: bytes, *, cut: bool) -> None:
            if path == "/api":
                return self._json(server.landing(), cut=cut)
            if path == "/api/collections":
                return self._json({"collections": list(server.collections().values()), "links": []}, cut=cut)
            if path.startswith("/api/collections/"):
                found = server.collections().get(path.rsplit("/", 1)[1])
                return (
                    self._json(found, cut=cut)
                    if found
                    else self._send(404, b'{"code": "NotFound"}', "application/json")
                )
            if path == "/api/search" and method in server.methods:
                asked = json.loads(body) if method == "POST" else _typed({k: v[0] for k, v in query.items()})
                return self._json(server.search(asked, method), cut=cut)
            return self._send(404 if path != "/api/search" else 405, b"{}", "application/json")

        def _file(self, path: str, *, cut: bool) -> None:
            file = server.folder / path.removeprefix("/private").lstrip("/")
            if not file.is_file():
                return self._send(404, b"no such file", "text/plain")
            content = file.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if asked is None:
                return self._send(200, content, "application/octet-stream", cut=cut)
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            if first > last:
                return self._send(416, b"", "text/plain", {"Content-Range": f"bytes */{len(content)}"})
            where = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            return self._send(206, content[first : last + 1], "application/octet-stream", where, cut=cut)

        def _json(self, values: Any, *, cut: bool = False) -> None:
            self._send(200, json.dumps(values).encode(), "application/json", cut=cut)

        def _send(
            self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None, *, cut: bool = False
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Accept-Ranges", "bytes")
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.close_connection = True

    return Handler


def _typed(asked: dict[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = dict(asked)
    if "collections" in asked:
        out["collections"] = asked["collections"].split(",")
    if "bbox" in asked:
        out["bbox"] = [float(v) for v in asked["bbox"].split(",")]
    if "query" in asked:
        out["query"] = json.loads(asked["query"])
    return out
