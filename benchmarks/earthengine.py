"""Requests to Earth Engine: do they stay at the bound, and is the bound used? Against a local server that answers in 50 ms.

Run: python benchmarks/earthengine.py
The server runs in a process of its own and remembers its answers, so that what is measured is the client. Prints, per
bound, the most requests that were in flight at the server, requests a second, their ratio to bound / latency, which
nothing can exceed, and to a loop of as many threads that sends one ready-made body and throws the answers away. Opening
the source is not in the time. Both processes need a core of their own. (Google allows 100 requests a second.)
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from affine import Affine
from odc.geo.geobox import GeoBox
from requests.adapters import HTTPAdapter

sys.path.insert(0, str(Path(__file__).parents[1]))

from smgeo.sources import open_earthengine
from smgeo.sources.earthengine.expressions import day_image
from smgeo.sources.earthengine.products import Band, Product
from smgeo.sources.earthengine.requests import describe_grid
from smgeo.sources.earthengine.session import SCOPES
from tests.earthengine_server import server_process

LATENCY_S = 0.05
BOUNDS = (1, 2, 4, 8, 12)
DAYS = 60
PERIOD = ("2021-06-01", str((pd.Timestamp("2021-06-01") + pd.Timedelta(DAYS - 1, "D")).date()))
# Narrow blocks, two for each request that may be in flight, so that every bound takes about as long.
BOX = GeoBox((2, 256), Affine(10, 0, 283_000, 0, -10, 5_532_300), "EPSG:32633")


def counted(url: str) -> dict:
    with urllib.request.urlopen(f"{url}/counters") as answer:
        return json.load(answer)


def build(url: str, key: Path, bound: int) -> float:
    """Seconds from the first request for values to the last."""
    spec = {
        "bands": ["precipitation"],
        "resampling": "nearest",
        "url": url,
        "credentials": str(key),
        "requests_in_flight": bound,
    }
    box = GeoBox((2, 256 * 2 * bound), BOX.affine, BOX.crs)
    ds = open_earthengine(spec, geobox=box, period=PERIOD)
    start = time.perf_counter()
    ds.compute(scheduler="threads", num_workers=2)
    return time.perf_counter() - start


def plain(url: str, key: Path, bound: int, requests: int) -> float:
    """Seconds that as many requests take whose body is ready and whose answer is not looked at: what the server gives."""
    import ee
    from google.auth.transport.requests import AuthorizedSession
    from google.oauth2 import service_account

    day = 18_779  # 2021-06-01
    product = Product("NASA/GPM_L3/IMERG_V07", (Band("precipitation", 11_132.0),), "mean", images_a_day=48)
    image = day_image([product], day, None)
    body = {"expression": ee.serializer.encode(image), "fileFormat": "NPY", "grid": describe_grid(BOX)}
    credentials = service_account.Credentials.from_service_account_file(str(key), scopes=SCOPES)
    session = AuthorizedSession(credentials)
    session.mount("http://", HTTPAdapter(pool_maxsize=bound))

    def post(_: int) -> None:
        session.post(f"{url}/v1/projects/smgeo-test/image:computePixels", json=body).raise_for_status()

    post(0)
    start = time.perf_counter()
    with ThreadPoolExecutor(bound) as threads:
        list(threads.map(post, range(requests)))
    return time.perf_counter() - start


def main() -> None:
    options = ["--latency", str(LATENCY_S), "--days", str(DAYS), "--half-hours", "1", "--remember"]
    options += ["--per-minute", "1000000"]
    print("bound  most in flight  requests/s  of bound / latency  of what a plain loop reaches", flush=True)
    for bound in BOUNDS:
        with tempfile.TemporaryDirectory() as folder:
            key = Path(folder) / "key.json"
            with server_process(*options, "--key", str(key)) as url:
                build(url, key, bound)  # the server knows its answers then, and the client is warm
                requests = DAYS * 2 * bound
                rate = requests / build(url, key, bound)
                most = counted(url)["most_in_flight"]
                peer = requests / plain(url, key, bound, requests)
        print(
            f"{bound:5d}  {most:14d}  {rate:10.1f}  {rate * LATENCY_S / bound:18.3f}  {rate / peer:28.3f}", flush=True
        )


if __name__ == "__main__":
    main()
