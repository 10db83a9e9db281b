"""A world that one can draw on paper, and short ways to ask for its pixels through the real client."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyproj import Transformer

from .grids import Projection
from .images import Patch
from .server import Server
from .world import Stored, World

LEFT, TOP = 300_000.0, 5_500_000.0
GRID = Projection("EPSG:32633", (10.0, 0.0, LEFT, 0.0, -10.0, TOP))
GRID20 = Projection("EPSG:32633", (20.0, 0.0, LEFT, 0.0, -20.0, TOP))
ROWS, COLS = np.mgrid[0:4, 0:4]
RAMP = (10.0 * ROWS + COLS).astype("float32")  # the value tells row and column
DAY = 86_400_000
Q = float("nan")
Shape = tuple[int, int]
Shift = tuple[float, float]


def stored(values: Any, grid: Projection = GRID, dtype: str = "float32", pyramid: str = "mean") -> Stored:
    """A band of one block at the origin; NaN is masked."""
    values = np.asarray(values, float)
    return Stored(grid, dtype, (Patch(0, 0, np.nan_to_num(values), np.isfinite(values)),), pyramid)


def flat(value: float, quality: float, hole: tuple[int, int] | None = None) -> dict[str, Stored]:
    """A 4 x 4 image of one value, with a quality band; `hole` is masked in the value."""
    v, q = np.full((4, 4), float(value)), np.full((4, 4), float(quality))
    if hole is not None:
        v[hole] = q[hole] = np.nan
    return {"v": stored(v), "q": stored(q)}


def sketch() -> World:
    """A world of images that one can draw on paper."""
    world = World(())
    holed = RAMP.copy()
    holed[1, 2] = np.nan
    world.add("TEST/ramp", {"a": stored(RAMP)}, {"name": "ramp", "system:time_start": 5 * DAY})
    world.add("TEST/holed", {"a": stored(holed), "b": stored(2 * RAMP)}, {"cover": 3})
    world.add("TEST/mixed", {"fine": stored(RAMP), "coarse": stored(np.ones((2, 2)), GRID20)})
    world.add("TEST/bits", {"qa": stored(ROWS * 4 + COLS, dtype="uint16", pyramid="sample")})
    days = {"a": (0, 3.0), "b": (DAY // 2, 1.0), "c": (DAY, 2.0)}
    for number, (index, (ms, cover)) in enumerate(days.items(), 1):
        bands = flat(number, 10 - number, hole=(0, 0) if index == "c" else None)
        properties = {"system:time_start": ms, "cover": cover, "pol": ["VV"] if index == "b" else ["VV", "VH"]}
        world.add(f"TEST/days/{index}", bands, properties | ({} if index == "b" else {"only": index}))
    world.add("TEST/scores/a", {"cs": stored(np.full((4, 4), 0.5))}, {"score": 7})
    world.collect("TEST/days", "TEST/scores")
    return world


# The client ------------------------------------------------------------------------------------------------------

# URL of the server that this process's client last signed in to.
SIGNED_IN: list[str] = []


def sign_in(server: Server) -> None:
    """Signs in unless the last one was to this server."""
    import ee

    if not ee.data.is_initialized() or [server.url] != SIGNED_IN:
        initialize(server)


def initialize(server: Server, credentials: Any = None) -> None:
    """Signs in, anonymously where no credentials are given; the client's own retries are off."""
    import ee
    from google.auth.credentials import AnonymousCredentials

    ee.Reset()
    SIGNED_IN[:] = [server.url]
    ee.data.setMaxRetries(0)
    ee.Initialize(credentials or AnonymousCredentials(), project="smgeo-test", url=server.url)


def grid_of(projection: Projection, shape: Shape = (4, 4), shift: Shift = (0.0, 0.0)) -> dict[str, Any]:
    """A `PixelGrid` of `shape` (rows, columns) at the origin of a projection, shifted in its units."""
    a, b, c, d, e, f = projection.transform
    names = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
    transform = dict(zip(names, (a, b, c + shift[0], d, e, f + shift[1]), strict=True))
    crs = {"crsCode": projection.crs} if ":" in projection.crs[:12] else {"crsWkt": projection.crs}
    return {"dimensions": {"width": shape[1], "height": shape[0]}, "affineTransform": transform, **crs}


def fetch(image: Any, projection: Projection = GRID, shape: Shape = (4, 4), shift: Shift = (0.0, 0.0)) -> np.ndarray:
    """The structured array of `ee.data.computePixels`."""
    import ee

    request = {"expression": image, "fileFormat": "NUMPY_NDARRAY", "grid": grid_of(projection, shape, shift)}
    return ee.data.computePixels(request)


def values(image: Any, *args: Any, **kwargs: Any) -> np.ndarray:
    """The first band, NaN where masked."""
    got = fetch(image.toFloat().unmask(-9999, False), *args, **kwargs)
    (first, *_) = got.dtype.names or ()
    out = got[first]
    return np.where(out == -9999, np.nan, out)


def ramp() -> Any:
    """Values 10 * row + column, 4 x 4 pixels of 10 m."""
    import ee

    return ee.Image("TEST/ramp")


def place(row: float, col: float) -> list[float]:
    """Degrees of a position in pixel space of `GRID`."""
    back = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    return list(back.transform(LEFT + 10 * col, TOP - 10 * row))


def points(*positions: tuple[float, float]) -> Any:
    """Features, numbered `n`, at positions (row, column)."""
    import ee

    return ee.FeatureCollection([ee.Feature(ee.Geometry.Point(place(*p)), {"n": i}) for i, p in enumerate(positions)])


def box(top: float, left: float, bottom: float, right: float) -> Any:
    """A rectangle of pixel space as a polygon."""
    import ee

    ring = [place(top, left), place(top, right), place(bottom, right), place(bottom, left), place(top, left)]
    return ee.Geometry.Polygon([ring], None, False)
