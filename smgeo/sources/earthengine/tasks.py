"""Parts that all tasks of a source share: the products to fetch, and how their bands become variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import dask.array as da
import numpy as np
from dask.base import tokenize

from smgeo.catalog import EARTHENGINE, Feature
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import EarthEngineSource
from smgeo.sources.earthengine.expressions import FILL
from smgeo.sources.earthengine.products import Product, list_products
from smgeo.sources.earthengine.session import Access
from smgeo.sources.pixels.gate import screen
from smgeo.terrain import TERRAIN


@dataclass(frozen=True)
class Variable:
    """Source of a variable: number of a product and of a band of it, and the scale and offset of the band's numbers."""

    output: Feature
    feature: str
    product: int
    band: int
    scale: float
    offset: float

    @property
    def name(self) -> str:
        """The variable's name."""
        return self.output.name

    @property
    def terrain(self) -> bool:
        """True if it is made from elevation."""
        return self.feature in TERRAIN


@dataclass(frozen=True)
class Task:
    """A task of a source, on a grid or at stations."""

    access: Access
    products: tuple[Product, ...]
    variables: tuple[Variable, ...]

    @property
    def wants_terrain(self) -> bool:
        """True if slope or aspect are requested."""
        return any(v.terrain for v in self.variables)


@dataclass(frozen=True)
class Opened:
    """Result of opening.

    Attributes
    ----------
    arrays : dict
        Variable -> lazy array.
    requests : int
        Number of requests of a build.
    day_inputs : list of str
        A digest of the inputs of each day.
    runs : dict of str to str
        The runs that made the images of a product (IMERG), by its asset.
    """

    arrays: dict[str, da.Array]
    requests: int
    day_inputs: list[str]
    runs: dict[str, str]


def split_tasks(
    source: EarthEngineSource, access: Access, catalog: Mapping[str, Feature], pixel_m: float | None = None
) -> tuple[Task, Task]:
    """Return the products and variables that vary in time, and those that do not."""
    products = list_products(source, pixel_m)
    moving, lasting = (tuple(p for p in products if p.static == static) for static in (False, True))
    first, second = (Task(access, p, _variables(source, p, catalog)) for p in (moving, lasting))
    return first, second


def _variables(
    source: EarthEngineSource, products: tuple[Product, ...], catalog: Mapping[str, Feature]
) -> tuple[Variable, ...]:
    number = {p.asset: i for i, p in enumerate(products)}
    out = []
    for name, feature in source.bands.items():
        entry = EARTHENGINE[feature]
        if entry.asset in number:
            i = number[entry.asset]
            band = products[i].names.index(entry.band)
            out.append(Variable(catalog[name], feature, i, band, entry.scale, entry.offset))
    return tuple(out)


def make_token(source: EarthEngineSource, *what: object) -> str:
    """Return a digest of all that values depend on: `what` (place, period, listing) and the spec without account and limits."""
    account = {"project", "credentials", "url", "requests_in_flight", "budget", "timeout_s", "retries"}
    return str(tokenize(source.model_dump(exclude=account), *what))


def check_plan(access: Access, values: int) -> None:
    """Raise an error if the requests for values exceed what the listing left of the budget, before one is sent."""
    if access.budget is not None and access.sent + values > access.budget:
        raise SmgeoError(
            f"earthengine: this build needs {access.sent + values} requests ({access.sent} are sent), the budget is "
            f"{access.budget}. Raise budget, or request fewer days, stations, pixels or products"
        )


def stack_array(
    task: Task, read: Callable[..., np.ndarray], chunks: tuple[tuple[int, ...], ...], name: str
) -> dict[str, da.Array]:
    """Return variable -> its part of one array (variable, ...), one chunk along variables: a block's requests serve them all."""
    array = da.map_blocks(
        partial(_read_block, read, task),
        chunks=((len(task.variables),), *chunks),
        dtype="float32",
        meta=np.empty((0,) * (1 + len(chunks)), "float32"),
        name=name,
    )
    return {v.name: array[i] for i, v in enumerate(task.variables)}


def _read_block(
    read: Callable[..., np.ndarray],
    task: Task,
    block_info: Mapping[int | None, Mapping[str, list[tuple[int, int]]]],
) -> np.ndarray:
    """Call `read(task, *(first, last) of the block along each dimension but that of variables)`, and screen its values.

    In the task's own thread, which counts what is dropped; requests have threads of their own.
    """
    values = read(task, *block_info[None]["array-location"][1:])
    for variable, part in zip(task.variables, values, strict=True):
        screen(part, variable.output)
    return values


def in_units(variable: Variable, numbers: np.ndarray) -> np.ndarray:
    """Return the band's numbers in the variable's unit, NaN where they are `FILL` or a missing number of the variable."""
    values = numbers.astype("float64") * variable.scale + variable.offset
    missing = np.isin(numbers, np.array([FILL, *variable.output.missing], dtype=numbers.dtype))
    return np.where(missing, np.nan, values).astype("float32")
