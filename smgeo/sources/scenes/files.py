"""GeoTIFFs and COGs, on disk or remote: headers, and windows of bands. The only module that opens them."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar
from urllib.parse import quote

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError, RasterioIOError

from smgeo.addresses import MissingSecretError, hide_in_logs, is_remote, plain, with_secrets
from smgeo.errors import SmgeoError
from smgeo.sources.retry import Backoff

# Open files fill GDAL's memory of blocks, 5 % of the machine's by default, whatever a cube's chunks are. GDAL reads the
# limit once, when it first needs it; one that the user has set stays.
os.environ.setdefault("GDAL_CACHEMAX", "128")  # MB
_OPEN_FILES = 64  # open files of a thread: opening takes as long as reading a block
_HEADERS_AT_ONCE = 16
_PATIENCE = Backoff(tries=10, first_s=0.2, longest_s=10.0)
_REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_USE_HEAD": "NO",
    # Answers of a failing server must be dropped when the file is closed, or retries would get them again.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl:/vsis3:/vsigs",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
}
_SIGNED = "/vsicurl?pc_url_signing=yes&"
_opened = threading.local()
hide_in_logs("rasterio", "rasterio._base", "rasterio._env", "rasterio._io", "rasterio.session")
T = TypeVar("T")


@dataclass(frozen=True)
class Header:
    """The header of a file.

    Attributes
    ----------
    href : str
        The file.
    box : GeoBox
        Its grid.
    names, units : tuple of (str or None)
        Description and unit of each band.
    nodata, scales, offsets : tuple
        Of each band; NaN is the missing value of floating-point bands without a tag.
    tile : (int, int)
        Rows and columns of a block of the file.
    masked : bool
        True if a mask or an alpha band of the file marks where it has values.
    """

    href: str
    box: GeoBox
    names: tuple[str | None, ...]
    units: tuple[str | None, ...]
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    tile: tuple[int, int]
    masked: bool = False


def signed_by_planetary_computer(href: str, collection: str) -> str:
    """Return a URL that GDAL signs at each request, so that no signature is in a graph, a log or a message.

    With a collection one token serves all its files, until it expires and GDAL gets the next.

    >>> plain(signed_by_planetary_computer("https://a.blob.core.windows.net/b.tif", "c"))
    'https://a.blob.core.windows.net/b.tif'
    """
    token = f"pc_collection={quote(collection, safe='')}&" if collection else ""
    return f"{_SIGNED}{token}url={quote(href, safe='')}"


def file_state(href: str) -> tuple[str, ...]:
    """Return a file and its state, so that the name of an array identifies the content it is read from; a URL as it is.

    The time of the inode's change is part of it: a copy with the same size and time of content is another file.
    """
    if is_remote(href):
        return (plain(href),)
    state = os.stat(href)
    return href, str(state.st_size), str(state.st_mtime_ns), str(state.st_ctime_ns)


def read_header(href: str) -> Header:
    """Return the header of a file, which is read once until the file changes.

    Raises
    ------
    SmgeoError
        If it cannot be opened as a raster, or has no grid on Earth.
    """
    return _read_header(href, _state(href))


def read_headers(hrefs: Iterable[str]) -> None:
    """Read the headers of remote files, many at a time, so that `read_header` has them: each takes several round trips.

    Raises
    ------
    SmgeoError
        As `read_header`.
    """
    remote = [h for h in dict.fromkeys(hrefs) if is_remote(h)]
    pool = ThreadPoolExecutor(_HEADERS_AT_ONCE)
    try:
        for header in [pool.submit(read_header, h) for h in remote]:
            header.result()
    finally:
        pool.shutdown(cancel_futures=True)  # if one fails, the user need not wait for the others


def _state(href: str) -> tuple[str, ...]:
    try:
        return file_state(href)
    except OSError as error:
        raise SmgeoError(f"{href} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=20_000)
def _read_header(href: str, state: tuple[str, ...]) -> Header:
    def work() -> Header:
        with _whole_header():
            return _header_of(href, _dataset(href))

    return _retried(href, "opened as a raster", work)


@contextmanager
def _whole_header() -> Iterator[None]:
    """Raise an error if a tag cannot be read: GDAL continues without scale, missing value or CRS, and only warns."""
    lost: list[str] = []
    thread = threading.get_ident()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread and "IO error" in (text := record.getMessage()):
                lost.append(text)

    ear, log = Ear(logging.WARNING), logging.getLogger("rasterio._env")
    log.addHandler(ear)
    try:
        yield
    finally:
        log.removeHandler(ear)
        if lost:  # also if the header was refused because the tag is missing
            raise RasterioIOError(lost[0])


def _header_of(href: str, src: rasterio.DatasetReader) -> Header:
    _check_placed(href, src)
    floating = [np.issubdtype(np.dtype(d), np.floating) for d in src.dtypes]
    nodata = tuple(float("nan") if n is None and f else n for n, f in zip(src.nodatavals, floating, strict=True))
    return Header(
        href,
        GeoBox((src.height, src.width), src.transform, str(src.crs)),
        tuple(src.descriptions),
        tuple(src.units),
        nodata,
        tuple(src.scales),
        tuple(src.offsets),
        tuple(src.block_shapes[0]),
        any(MaskFlags.per_dataset in flags for flags in src.mask_flag_enums),
    )


def _check_placed(href: str, src: rasterio.DatasetReader) -> None:
    """Refuse a raster without a grid on Earth, or of complex numbers, with a command that makes one of it.

    Raises
    ------
    SmgeoError
        If it is placed by control points, coefficients or arrays, has no transform or CRS, its latitudes or longitudes are none, or it is complex.
    """
    file = plain(href)
    made = f"{os.path.splitext(os.path.basename(file))[0]}_grid.tif"
    if src.transform.is_identity or src.transform.is_degenerate or not all(map(math.isfinite, src.transform)):
        placed = (
            (len(src.gcps[0]), "ground control points", ""),
            (src.rpcs is not None, "rational polynomial coefficients", "-rpc "),
            (bool(src.tags(ns="GEOLOCATION")), "geolocation arrays", "-geoloc "),
        )
        for count, words, option in placed:
            if count:
                raise SmgeoError(
                    f"{file} is placed by {words} and has no grid; make one first: gdalwarp {option}-t_srs EPSG:4326 -r near {file} {made} "
                    "(-t_srs may be the CRS of your grid), and name that file in path"
                )
        raise SmgeoError(
            f"{file} has no grid: its transform is {_in_words(src.transform)}, so the place of its pixels is unknown; if you know it, write it "
            f"first: gdal_translate -a_srs EPSG:... -a_ullr LEFT TOP RIGHT BOTTOM {file} {made}, and name that file in path"
        )
    if src.crs is None:
        raise SmgeoError(
            f"{file} has no CRS, so its place on Earth is unknown; add one with: rio edit-info --crs EPSG:... {file}"
        )
    if any(np.issubdtype(np.dtype(_numpy_type(d)), np.complexfloating) for d in src.dtypes):
        raise SmgeoError(
            f"{file} contains complex numbers ({src.dtypes[0]}), of which smgeo reads none; take their power first: gdal_calc.py -A {file} "
            f"--calc='abs(A)**2' --type=Float32 --outfile={made}, calibrate it to backscatter, and read that file with convert: power_to_db"
        )
    # Beyond the antimeridian longitudes may go on, a turn at most.
    for side, low, high, most, step in (
        ("row", src.bounds.bottom, src.bounds.top, 90, src.transform.e),
        ("column", src.bounds.left, src.bounds.right, 540, src.transform.a),
    ):
        if src.crs.is_geographic and not max(abs(low), abs(high)) <= most + abs(step):
            raise SmgeoError(
                f"{file}: its CRS is {src.crs}, but its {side}s reach from {low:g} to {high:g}, which are no "
                f"{'latitudes' if side == 'row' else 'longitudes'}; set the CRS that its coordinates are in: rio edit-info --crs EPSG:... {file}"
            )


def _numpy_type(name: str) -> str:
    return "complex64" if name.startswith("complex_") else name  # GDAL's CInt16 has no type in numpy


def _in_words(transform: Affine) -> str:
    return (
        "the identity (columns and rows)"
        if transform.is_identity
        else f"{tuple(transform)[:6]}, of pixels without an area"
    )


def read_window(href: str, bands: Sequence[int], window: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    """Return numbers as stored, (band, row, column), of a window given as ((first row, last), (first column, last)), ends excluded.

    Raises
    ------
    SmgeoError
        If the file is damaged, or a remote one does not answer after several tries.
    """
    return _retried(href, "read", lambda: _dataset(href).read(list(bands), window=window))


def read_mask(href: str, window: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    """Return where a file has no values by its own mask or alpha band: bool, (row, column).

    Raises
    ------
    SmgeoError
        As `read_window`.
    """
    return _retried(href, "read", lambda: np.asarray(_dataset(href).read_masks(1, window=window) == 0))


def _dataset(href: str) -> rasterio.DatasetReader:
    """Return an open file of this thread; GDAL's handles must not be shared between threads."""
    files: OrderedDict[tuple[str, tuple[str, ...]], rasterio.DatasetReader] = _opened.__dict__.setdefault(
        "files", OrderedDict()
    )
    key = (href, _state(href))
    if key in files:
        files.move_to_end(key)
        return files[key]
    while len(files) >= _OPEN_FILES:
        files.popitem(last=False)[1].close()
    try:
        files[key] = rasterio.open(with_secrets(href))
    except MissingSecretError as error:
        raise SmgeoError(str(error.args[0])) from None
    return files[key]


@contextmanager
def _environment(href: str) -> Iterator[None]:
    if not is_remote(href):
        yield
        return
    with rasterio.Env(**_REMOTE):
        yield


def _retried(href: str, doing: str, work: Callable[[], T]) -> T:
    """Return the result of `work`; reads of a remote file are retried with exponential backoff."""
    tries = _PATIENCE.tries if is_remote(href) else 1
    for number in _PATIENCE.attempts():
        try:
            with _environment(href):
                return work()
        except RasterioError as error:
            _forget(href)
            if number == tries or "response code: 404" in str(error):
                hint = f"; tried {number} times" if number > 1 else ""
                raise SmgeoError(f"{plain(href)} cannot be {doing}: {error}{hint}") from None
    raise AssertionError("unreachable")


def _forget(href: str) -> None:
    """Close this thread's handles of a file that failed."""
    files = _opened.__dict__.get("files", {})
    for key in [k for k in files if k[0] == href]:
        files.pop(key).close()
