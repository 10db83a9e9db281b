"""Items of a STAC API or a static catalogue, found by collection, area, days and query, with retries.

Imported only where a recipe names a STAC source: `pystac-client` is an extra.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
from odc.geo.geobox import GeoBox
from pystac_client import Client
from pystac_client.conformance import ConformanceClasses
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from urllib3.exceptions import NewConnectionError

from smgeo.addresses import MissingSecretError, hide_in_logs, is_remote, plain, with_secrets
from smgeo.errors import SmgeoError, nearest
from smgeo.files import JsonObject
from smgeo.sources.pixels.warp import crs_text, transformer
from smgeo.sources.retry import Backoff
from smgeo.threads import within

hide_in_logs("urllib3.connectionpool", "pystac_client", "pystac_client.stac_api_io")
_PATIENCE = Backoff(tries=8, first_s=0.2, longest_s=12.8)
_TRIES_UNREACHED = 3  # if the server does not exist, or is too slow, which seldom changes
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_THREADS = 4
_PAGE = 100
# Seconds for a connection, for the next bytes of an answer, and for a whole one.
_TIMEOUT_S, _WHOLE_S = (20.0, 60.0), 300.0

Area = tuple[float, float, float, float]  # west, south, east, north, degrees


class PatientIO(StacApiIO):
    """JSON over HTTP: requests that fail, are cut short or return no JSON are retried with exponential backoff.

    A server that refuses the connection, whose name is not found or that takes minutes is tried three times, any other eight times.
    """

    def __init__(self, address: str = "") -> None:
        super().__init__(timeout=_TIMEOUT_S, max_retries=None)
        self._address = address

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: JsonObject | None = None,
    ) -> str:
        """Return the text of an answer, which is JSON.

        Raises
        ------
        APIError
            If the server refuses the request (4xx).
        SmgeoError
            If all attempts fail.
        """
        problem, number = "", 0
        for number in _PATIENCE.attempts():
            try:
                # Only the address that the user gave has secrets: another, from the catalogue, could carry them to any server.
                address = with_secrets(href) if href == self._address else href
                text = within(_WHOLE_S, partial(super().request, address, method, headers, parameters))
                json.loads(text)
                return text
            except APIError as error:
                status = getattr(error, "status_code", None)
                if status is not None and status not in _AGAIN:
                    error.add_note(plain(href))
                    raise
                problem = f"answered {status}" if status is not None else "did not answer"
                if _is_unreached(error):
                    problem = "cannot be reached (connection refused, or name not found)"
                    if number >= _TRIES_UNREACHED:
                        break
            except TimeoutError:
                problem = f"sent no complete answer within {_WHOLE_S:g} s"
                if number >= _TRIES_UNREACHED:
                    break
            except json.JSONDecodeError:
                problem = "did not answer with JSON"
            except MissingSecretError as error:
                raise SmgeoError(str(error.args[0])) from None
        raise SmgeoError(
            f"stac {plain(href)} {problem}; tried {number} times. Is it the address of a STAC API or catalogue?"
        )


def _is_unreached(error: BaseException) -> bool:
    """Return True if there was no connection: it was refused, or no server has that name."""
    cause = error.__cause__ or error.__context__
    # requests wraps urllib3's error, which has the `reason`.
    reason = getattr(cause.args[0] if cause is not None and cause.args else None, "reason", None)
    return isinstance(reason, NewConnectionError)


@dataclass(frozen=True)
class Search:
    """The items to find.

    Attributes
    ----------
    collection : str
        ID of their collection.
    areas : tuple of (west, south, east, north)
        Degrees; an item that touches one of them is found. Empty for everywhere.
    period : (Timestamp, Timestamp) or None
        First and last UTC day.
    query : mapping
        Property -> {operator: value}, as in the STAC API query extension.
    """

    collection: str
    areas: tuple[Area, ...] = ()
    period: tuple[pd.Timestamp, pd.Timestamp] | None = None
    query: Mapping[str, object] | None = None


def open_catalogue(url: str) -> Client:
    """Open the root of a STAC API or a static catalogue, at a URL or a path.

    Raises
    ------
    SmgeoError
        If it cannot be read, or is not a catalogue.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a static catalogue conforms to no API, which is valid
            root = PatientIO(url).read_stac_object(url)
    except SmgeoError:
        raise
    except Exception as error:  # of the network, or pystac's for an answer that is damaged
        raise _unreadable(url, error) from None
    if not isinstance(root, pystac.Catalog):
        raise SmgeoError(f"stac {plain(url)} is one STAC {type(root).__name__}, not a catalogue")
    if root.get_self_href() is None:
        root.set_self_href(url)
    return root  # type: ignore[return-value]


def find_items(catalogue: Client, search: Search) -> list[pystac.Item]:
    """Return the items of one collection, in order of their IDs; empty if there are none.

    Raises
    ------
    SmgeoError
        If the catalogue has no such collection, or does not answer.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not _is_api(catalogue):
                found = _walk(catalogue, search)
            else:
                found = _ask(catalogue, search)
                if catalogue.conforms_to(ConformanceClasses.QUERY):
                    search = replace(search, query=None)  # the server has applied it, and may know more operators
            items = {item.id: item for item in found if _fits(item, search)}
    except SmgeoError:
        raise
    except Exception as error:  # of the network, or pystac's for an answer that is damaged
        raise _unreadable(catalogue.self_href, error) from None
    return [items[i] for i in sorted(items)]


def _unreadable(url: str, error: Exception) -> SmgeoError:
    """Return the error for an answer or a file of a catalogue that cannot be used."""
    if isinstance(error, APIError):
        status = getattr(error, "status_code", None)
        where = next(iter(getattr(error, "__notes__", ())), plain(url))
        detail = "" if str(error).lstrip().startswith("<") else f": {' '.join(str(error).split())[:200]}"
        hint = "; the server asks for credentials" if status in (401, 403) else ""
        return SmgeoError(f"stac {where} refuses the request ({status}){detail}{hint}")
    if isinstance(error, OSError):
        return SmgeoError(
            f"stac {plain(url)} cannot be read: {error.filename or ''} {error.strerror or type(error).__name__}"
        )
    return SmgeoError(f"stac {plain(url)} is not a STAC catalogue: {' '.join(str(error).split())[:200]}")


def _no_collection(catalogue: pystac.Catalog, wanted: str, known: Iterable[str]) -> SmgeoError:
    names = sorted(set(known))
    hint = nearest(wanted, names) if len(names) <= 20 or "?" in nearest(wanted, names) else f"it has {len(names)}"
    return SmgeoError(f"stac {plain(catalogue.self_href)} has no collection {wanted!r}; {hint}")


# APIs


def _is_api(catalogue: Client) -> bool:
    return isinstance(catalogue, Client) and any(link.rel == "search" for link in catalogue.links)


def _ask(catalogue: Client, search: Search) -> list[pystac.Item]:
    """Return the items that the API finds, area by area, a few areas at a time."""
    has_collections = catalogue.conforms_to(ConformanceClasses.COLLECTIONS) or catalogue.conforms_to(
        ConformanceClasses.FEATURES
    )
    if has_collections and catalogue.get_collection(search.collection) is None:
        raise _no_collection(catalogue, search.collection, (c.id for c in catalogue.get_collections()))
    methods = {str(link.extra_fields.get("method", "GET")) for link in catalogue.links if link.rel == "search"}
    days = None
    if search.period is not None:
        days = f"{search.period[0]:%Y-%m-%d}T00:00:00Z/{search.period[1]:%Y-%m-%d}T23:59:59Z"

    def ask(area: Area | None) -> list[pystac.Item]:
        asked = catalogue.search(
            method="POST" if "POST" in methods else "GET",
            collections=[search.collection],
            bbox=area,
            datetime=days,
            query=dict(search.query) if search.query else None,
            limit=_PAGE,
        )
        return list(asked.items())

    with ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(ask, search.areas or (None,)))
    return [item for part in parts for item in part]


# Static catalogues


def _walk(catalogue: pystac.Catalog, search: Search) -> list[pystac.Item]:
    """Return the items of a collection in all catalogues below the root."""
    seen: list[str] = []
    hrefs = list(_item_links(catalogue, search.collection, False, seen))
    if not hrefs and search.collection not in seen:
        raise _no_collection(catalogue, search.collection, seen)
    io = catalogue._stac_io

    def read(href: str) -> pystac.Item:
        item = pystac.Item.from_file(href, stac_io=io)
        if item.collection_id is None:
            item.collection_id = search.collection
        return item

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(read, hrefs))


def _item_links(node: pystac.Catalog, wanted: str, inside: bool, seen: list[str]) -> Iterator[str]:
    """Yield the addresses of the items of a collection; add the IDs of the collections on the way to `seen`."""
    if isinstance(node, pystac.Collection):
        seen.append(node.id)
        if node.id != wanted and not inside:
            return
    inside = inside or node.id == wanted
    if inside:
        yield from (str(link.get_absolute_href()) for link in node.get_item_links())
    for link in node.get_child_links():
        child = link.resolve_stac_object(root=node.get_root()).target
        if isinstance(child, pystac.Catalog):
            yield from _item_links(child, wanted, inside, seen)


# Items are checked here too: a server may ignore conditions that it does not know, and a static catalogue has no server.


def _fits(item: pystac.Item, search: Search) -> bool:
    return (
        item.collection_id in (None, search.collection)
        and (not search.areas or any(_touches(item, area) for area in search.areas))
        and (search.period is None or _overlaps(item, search.period))
        and all(_passes(item, name, tests) for name, tests in (search.query or {}).items())
    )


def _touches(item: pystac.Item, area: Area) -> bool:
    if not item.bbox:
        return True
    half = len(item.bbox) // 2
    west, south, east, north = *item.bbox[:2], *item.bbox[half : half + 2]
    return any(
        s <= area[3] and n >= area[1] and w <= area[2] and e >= area[0]
        for w, s, e, n in split_area(west, south, east, north)
    )


def item_times(item: pystac.Item) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the first and last moment of an item, UTC without a time zone.

    Raises
    ------
    SmgeoError
        If it has none.
    """
    common = item.common_metadata
    first, last = item.datetime or common.start_datetime, item.datetime or common.end_datetime or common.start_datetime
    if first is None or last is None:
        raise SmgeoError(f"STAC item {item.id} has neither datetime nor start_datetime, so its day is unknown")
    start, stop = (
        t.tz_convert("UTC").tz_localize(None) if t.tzinfo else t for t in map(pd.Timestamp, (str(first), str(last)))
    )
    return start, stop


def _overlaps(item: pystac.Item, period: tuple[pd.Timestamp, pd.Timestamp]) -> bool:
    start, stop = item_times(item)
    return bool(stop >= period[0] and start < period[1] + pd.Timedelta(days=1))


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "neq": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
    "startsWith": lambda a, b: str(a).startswith(b),
    "endsWith": lambda a, b: str(a).endswith(b),
    "contains": lambda a, b: b in a,
}


def _passes(item: pystac.Item, name: str, tests: object) -> bool:
    """Return True if the item has the property and it passes the tests of a query (STAC API query extension)."""
    tests = tests if isinstance(tests, Mapping) else {"eq": tests}
    for operator in tests:
        if operator not in _OPERATORS:
            raise SmgeoError(
                f"query: {name} has the unknown operator {operator!r}; {nearest(operator, list(_OPERATORS))}"
            )
    value = item.id if name == "id" else item.properties.get(name)
    return value is not None and all(_OPERATORS[o](value, limit) for o, limit in tests.items())


# Areas


def areas_of_grid(box: GeoBox) -> tuple[Area, ...]:
    """Return the area of a grid, or one on each side of the 180th meridian."""
    bounds = transformer(crs_text(box), "EPSG:4326").transform_bounds(*box.boundingbox.bbox, densify_pts=21)
    return split_area(*bounds)


def areas_of_stations(lons: np.ndarray, lats: np.ndarray, margin: float = 0.02) -> tuple[Area, ...]:
    """Return an area for the stations of each cell of one degree, so that no ocean is searched.

    >>> areas_of_stations(np.array([8.4, 8.6, -70.5]), np.array([50.5, 50.1, 10.0]), margin=0)
    ((-70.5, 10.0, -70.5, 10.0), (8.4, 50.1, 8.6, 50.5))
    """
    cells: dict[tuple[int, int], list[int]] = {}
    lons = (np.asarray(lons) + 180) % 360 - 180
    for i, (lon, lat) in enumerate(zip(lons, lats, strict=True)):
        cells.setdefault((int(np.floor(lon)), int(np.floor(lat))), []).append(i)
    out: list[Area] = []
    for _, members in sorted(cells.items()):
        x, y = lons[members], np.asarray(lats)[members]
        out += split_area(x.min() - margin, y.min() - margin, x.max() + margin, y.max() + margin)
    return tuple(out)


def split_area(west: float, south: float, east: float, north: float) -> tuple[Area, ...]:
    """Return an area within -180 to 180, or one on each side of the 180th meridian if it crosses it (west > east, or beyond 180).

    >>> split_area(170.0, -5.0, -175.0, 5.0)
    ((170.0, -5.0, 180.0, 5.0), (-180.0, -5.0, -175.0, 5.0))
    """
    south, north = max(float(south), -90.0), min(float(north), 90.0)
    if not np.isfinite([west, east]).all() or east - west >= 360:
        return ((-180.0, south, 180.0, north),)
    turns = np.floor((west + 180) / 360) * 360
    west, east = round(float(west - turns), 9), round(float(east - turns), 9)
    if west > east:  # how PROJ expresses bounds across the meridian
        east += 360
    if east <= 180:
        return ((west, south, east, north),)
    return ((west, south, 180.0, north), (-180.0, south, east - 360, north))


def local_or_remote(url: str, root: Path) -> str:
    """Return a URL as given, or a path joined to `root`."""
    return url if is_remote(url) else str(root / url)
