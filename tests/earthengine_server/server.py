"""Earth Engine's REST protocol on a local port: discovery, tokens, algorithms, values and pixels; quotas and faults."""

from __future__ import annotations

import gzip
import io
import json
import select
import socket
import threading
import time
import urllib.parse
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

import numpy as np

from . import schema
from .auth import Tokens
from .errors import EarthEngineError
from .evaluate import Evaluator, encoded
from .faults import Faults
from .grids import Projection, parse_crs, window
from .images import Image
from .values import Collection
from .world import World, build_world

HTML = b"<!DOCTYPE html><html><head><title>Error</title></head><body><p>The service is unavailable.</p></body></html>"


@dataclass(frozen=True)
class Quotas:
    """What Earth Engine documents (guide "Quotas"; REST reference: projects.image.computePixels).

    Attributes
    ----------
    in_flight : int
        Requests that are being answered at one time; more get a 429.
    per_minute : int
        Requests in 60 seconds; more get a 429.
    pixel_bytes, side, bands : int
        Of one `computePixels` request: uncompressed bytes, pixels a side, bands.
    payload : int
        Bytes of a request's body.
    """

    in_flight: int = 40
    per_minute: int = 6000
    pixel_bytes: int = 50_331_648
    side: int = 32_768
    bands: int = 1024
    payload: int = 10_485_760


@dataclass
class Counters:
    """What the server has seen.

    `requests` by kind (`discovery`, `token`, `algorithms`, `value`, `pixels`, `features`); `statuses` by code; most
    requests for values and pixels `most_in_flight` at one time; `functions` by name; `longest_list` returned;
    `seen`: (kind, body) of each request for values or pixels where `Server(keep=True)`.
    """

    requests: Counter = field(default_factory=Counter)
    statuses: Counter = field(default_factory=Counter)
    functions: Counter = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0
    longest_list: int = 0
    pixels: int = 0
    seen: list = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For `GET /counters`."""
        return {
            "requests": dict(self.requests),
            "statuses": {str(k): v for k, v in self.statuses.items()},
            "functions": dict(self.functions),
            "most_in_flight": self.most_in_flight,
            "longest_list": self.longest_list,
            "pixels": self.pixels,
        }


class Server:
    """The server, on a thread of this process: `with Server() as server: ee.Initialize(..., url=server.url)`.

    Parameters
    ----------
    world : World, optional
        What it serves; the fixed world where not given.
    latency_s : float
        Least time that a request for values or pixels takes.
    require_token : bool
        Whether such requests need a token that this server granted; a token that is sent is always checked.
    quotas, faults
        See `Quotas` and `Faults`; both may be replaced while the server runs.
    remember : bool
        Whether the answer to a body that was asked before is given again without evaluation (for benchmarks).
    keep : bool
        Whether the bodies of requests are kept in `counters.seen`.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        latency_s: float = 0.0,
        require_token: bool = False,
        token_s: float = 3600.0,
        quotas: Quotas | None = None,
        faults: Faults | None = None,
        remember: bool = False,
        keep: bool = False,
        port: int = 0,
    ) -> None:
        self.world = build_world() if world is None else world
        self.latency_s, self.require_token, self.keep = latency_s, require_token, keep
        self.answers: dict[tuple[str, bytes], bytes] | None = {} if remember else None
        self.quotas = quotas or Quotas()
        self.faults = faults or Faults()
        self.tokens = Tokens(token_s)
        self.counters = Counters()
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self._came: deque[float] = deque()
        self._http = _Listener(("127.0.0.1", port), _Handler)
        self._http.server = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def start(self) -> Server:
        """Begins to answer."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends, hanging requests too."""
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def write_key_file(self, path: Any, **given: str) -> Any:
        """A service account's key file whose token endpoint is this server."""
        return self.tokens.write_key_file(path, self.url, **given)

    def reset_counters(self) -> None:
        """Counts from zero."""
        with self.lock:
            self.counters = Counters(in_flight=self.counters.in_flight)

    # Answers -----------------------------------------------------------------------------------------------------

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Counts a request that is being answered; refuses it where too many are."""
        now = time.monotonic()
        with self.lock:
            while self._came and self._came[0] < now - 60:
                self._came.popleft()
            self._came.append(now)
            self.counters.in_flight += 1
            self.counters.most_in_flight = max(self.counters.most_in_flight, self.counters.in_flight)
            too_many = self.counters.in_flight > self.quotas.in_flight or len(self._came) > self.quotas.per_minute
        try:
            if too_many:
                raise EarthEngineError(
                    "Too Many Requests: Request was rejected because the request rate or concurrency limit was exceeded.",
                    429,
                )
            yield
        finally:
            with self.lock:
                self.counters.in_flight -= 1

    def evaluate(self, body: dict) -> Any:
        """The value of a request's expression."""
        evaluator = Evaluator(self.world, body["expression"])
        try:
            return evaluator.result()
        except RecursionError as error:
            raise EarthEngineError("Expression is nested too deeply.") from error
        finally:
            with self.lock:
                self.counters.functions.update(evaluator.used)

    def value(self, body: dict) -> bytes:
        """`value:compute`."""
        result = self.evaluate(body)
        with self.lock:
            self.counters.longest_list = max(self.counters.longest_list, _longest(result))
        return json.dumps({"result": encoded(result)}, allow_nan=False).encode()

    def features(self, body: dict) -> bytes:
        """`table:computeFeatures`: a page of a collection."""
        result = self.evaluate(body)
        if not isinstance(result, Collection):
            raise EarthEngineError("Expression does not evaluate to a table.")
        size, first = int(body.get("pageSize", 1000)), int(body.get("pageToken") or 0)
        page = {"type": "FeatureCollection", "features": [encoded(e) for e in result.elements[first : first + size]]}
        if first + size < len(result.elements):
            page["nextPageToken"] = str(first + size)
        return json.dumps(page).encode()

    def pixels(self, body: dict, fault: str | None) -> bytes:
        """`image:computePixels` as NPY: a structured array (height, width), a field a band; 0 where masked."""
        image = self.evaluate(body)
        if not isinstance(image, Image):
            raise EarthEngineError("Expression does not evaluate to an image.")
        if body["fileFormat"] != "NPY":
            raise EarthEngineError(f"fileFormat {body['fileFormat']} is not available on this server; use NPY.")
        bands = [image.band(n) for n in body["bandIds"]] if body.get("bandIds") else list(image.bands)
        kinds = np.dtype([(b.name, b.dtype) for b in bands])
        width, height = (int(body["grid"]["dimensions"][k]) for k in ("width", "height"))
        self._check_pixels(width, height, len(bands), kinds.itemsize)
        grid = window(grid_projection(body["grid"]), width, height)
        out = np.zeros((height, width), kinds)
        for band in bands:
            values, mask = band.at(grid)
            out[band.name] = np.where(mask > 0, values, 0).astype(band.dtype)
        with self.lock:
            self.counters.pixels += width * height * len(bands)
        if fault == "shape":
            out = np.zeros((height + 1, width), kinds)
        if fault == "dtype":
            out = out.astype([(n, "f8" if out.dtype[n] != np.float64 else "f4") for n in out.dtype.names or ()])
        buffer = io.BytesIO()
        np.save(buffer, out)
        return buffer.getvalue()

    def _check_pixels(self, width: int, height: int, bands: int, itemsize: int) -> None:
        """REST reference: projects.image.computePixels, and guide "Quotas"."""
        q = self.quotas
        if bands == 0:
            raise EarthEngineError("Image has no bands.")
        if bands > q.bands:
            raise EarthEngineError(f"Total number of bands ({bands}) must be less than or equal to {q.bands}.")
        if width < 1 or height < 1 or max(width, height) > q.side:
            raise EarthEngineError(f"Pixel grid dimensions ({width}x{height}) must be between 1 and {q.side}.")
        if (size := width * height * itemsize) > q.pixel_bytes:
            raise EarthEngineError(
                f"Total request size ({size} bytes) must be less than or equal to {q.pixel_bytes} bytes."
            )


def grid_projection(grid: dict) -> Projection:
    """REST reference: PixelGrid, AffineTransform."""
    crs = grid.get("crsCode") or grid["crsWkt"]
    parse_crs(crs)
    names = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
    transform = tuple(float(grid["affineTransform"].get(n, 0.0)) for n in names)
    if transform[0] * transform[4] == transform[1] * transform[3]:
        raise EarthEngineError("Invalid affine transform: its scale is zero.")
    return Projection(crs, transform)


def _longest(value: Any) -> int:
    """Elements of the longest list, inside dictionaries too."""
    if isinstance(value, Collection):
        return len(value.elements)
    if isinstance(value, dict):
        return max((_longest(v) for v in value.values()), default=0)
    if isinstance(value, list):
        return max(len(value), max((_longest(v) for v in value if isinstance(v, list | dict)), default=0))
    return 0


# HTTP ------------------------------------------------------------------------------------------------------------


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    server: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: _Listener

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    @property
    def owner(self) -> Server:
        return self.server.server

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        parts = [urllib.parse.unquote(p) for p in path.strip("/").split("/")]
        if parts == ["$discovery", "rest"]:
            version = urllib.parse.parse_qs(query).get("version", ["v1"])[0]
            self._count("discovery")
            self._send(200, schema.discovery(self.owner.url, version).encode())
        elif parts[-1] == "algorithms":
            self._count("algorithms")
            self._guarded(lambda: resources.files("ee.tests").joinpath("algorithms.json").read_bytes())
        elif parts == ["counters"]:
            self._send(200, json.dumps(self.owner.counters.as_dict()).encode())
        else:
            self._count("other")
            self._fail(EarthEngineError(f"Method not found: {path}", 404))

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        path = urllib.parse.unquote(self.path.partition("?")[0])
        if path == "/token":
            self._count("token")
            self._token(body)
            return
        kind = {"value:compute": "value", "image:computePixels": "pixels", "table:computeFeatures": "features"}.get(
            path.rsplit("/", 1)[-1]
        )
        if kind is None:
            self._count("other")
            self._fail(EarthEngineError(f"Method not found: {path}", 404))
            return
        self._count(kind)
        self._compute(kind, body)

    def _body(self) -> bytes | None:
        size = int(self.headers.get("Content-Length") or 0)
        if size > self.owner.quotas.payload:
            self.close_connection = True
            self._fail(EarthEngineError(f"Request payload size exceeds the limit: {self.owner.quotas.payload} bytes."))
            return None
        return self.rfile.read(size)

    def _token(self, body: bytes) -> None:
        try:
            granted = self.owner.tokens.grant(body.decode(), f"{self.owner.url}/token")
        except EarthEngineError as error:
            name, _, text = error.message.partition(": ")
            self._send(400, json.dumps({"error": name, "error_description": text}).encode())
        else:
            self._send(200, json.dumps(granted).encode())

    def _compute(self, kind: str, body: bytes) -> None:
        """Answers inside the count of requests in flight; the answer leaves after the count went down."""
        owner, fault, began = self.owner, None, time.monotonic()
        try:
            owner.tokens.check(self.headers.get("Authorization"), owner.require_token)
            with owner.in_flight():
                fault = owner.faults.pick(kind == "pixels")
                if fault == "hang":
                    self._hang()
                    return
                if fault in ("429", "500", "503"):
                    raise EarthEngineError("A fault on demand.", int(fault))
                answer = self._answer(kind, body, fault)
                time.sleep(max(0.0, owner.latency_s - (time.monotonic() - began)))
        except EarthEngineError as error:
            self._fail(error)
        except Exception as error:  # a bug of this server must show in the client's test
            self._fail(EarthEngineError(f"Internal error of the test server: {type(error).__name__}: {error}", 500))
        else:
            self._reply(kind, answer, fault)

    def _answer(self, kind: str, body: bytes, fault: str | None) -> bytes:
        owner = self.owner
        if owner.answers is not None and fault is None and (kind, body) in owner.answers:
            return owner.answers[kind, body]
        try:
            request = json.loads(body)
        except ValueError as error:
            raise EarthEngineError("Invalid JSON payload received. Unexpected token.") from error
        name = {"value": "ComputeValueRequest", "pixels": "ComputePixelsRequest", "features": "ComputeFeaturesRequest"}
        schema.check(name[kind], request)
        if owner.keep:
            with owner.lock:
                owner.counters.seen.append((kind, request))
        if fault == "html":
            return HTML
        make = {"value": owner.value, "features": owner.features}.get(kind)
        answer = make(request) if make else owner.pixels(request, fault)
        if owner.answers is not None and fault is None:
            owner.answers[kind, body] = answer
        return answer

    def _reply(self, kind: str, answer: bytes, fault: str | None) -> None:
        content = "application/octet-stream" if kind == "pixels" else "application/json; charset=UTF-8"
        if fault == "html":
            self._send(200, answer, "text/html")
        elif fault == "short":
            self._send(200, answer[: len(answer) // 2], content)
        elif fault == "cut":
            self._send(200, answer, content, upto=len(answer) // 2)
        elif fault == "drip":
            self._send(200, answer, content, upto=1)
            self._drip(answer[1:])
        else:
            self._send(200, answer, content)

    def _hang(self) -> None:
        """Waits until the client has gone, the longest hang is over, or the server stops; then closes."""
        ends = time.monotonic() + self.owner.faults.hang_s
        self.close_connection = True
        while time.monotonic() < ends and not self.owner.stopping.wait(0.02):
            readable, _, _ = select.select([self.connection], [], [], 0)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def _drip(self, answer: bytes) -> None:
        """Sends a byte five times a second until the answer, the longest hang or the server ends; then closes."""
        self.close_connection = True
        ends = time.monotonic() + self.owner.faults.hang_s
        for byte in answer:
            if time.monotonic() > ends or self.owner.stopping.wait(0.2):
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()

    def _guarded(self, make: Any) -> None:
        try:
            self.owner.tokens.check(self.headers.get("Authorization"), self.owner.require_token)
            self._send(200, make())
        except EarthEngineError as error:
            self._fail(error)

    def _count(self, kind: str) -> None:
        with self.owner.lock:
            self.owner.counters.requests[kind] += 1

    def _fail(self, error: EarthEngineError) -> None:
        self._send(error.code, json.dumps(error.body()).encode())

    def _send(
        self, status: int, body: bytes, content: str = "application/json; charset=UTF-8", upto: int | None = None
    ) -> None:
        with self.owner.lock:
            self.owner.counters.statuses[status] += 1
        self.send_response(status)
        self.send_header("Content-Type", content)
        if (
            len(body) > 2000
            and "json" in content
            and "gzip" in self.headers.get("Accept-Encoding", "")
            and upto is None
        ):
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body[:upto])
        self.wfile.flush()
        if upto is not None:
            self.close_connection = True
