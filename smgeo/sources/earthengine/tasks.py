"""What tasks of a source share: which products are fetched, and how their bands become variables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize

from smgeo.catalog import EARTHENGINE
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import EarthEngineSource
from smgeo.sources.earthengine.expressions import FILL
from smgeo.sources.earthengine.products import Product, list_products
from smgeo.sources.earthengine.session import Access
from smgeo.terrain import TERRAIN


@dataclass(frozen=True)
class Variable:
    """Where a variable's values come from: a product and a band of it, by number, and what is done to the numbers."""

    name: str
    feature: str
    product: int
    band: int
    scale: float
    offset: float

    @property
    def terrain(self) -> bool:
        """Whether it is made of elevation."""
        return self.feature in TERRAIN


@dataclass(frozen=True)
class Task:
    """What every task of a source knows."""

    access: Access
    products: tuple[Product, ...]
    variables: tuple[Variable, ...]

    @property
    def wants_terrain(self) -> bool:
        """Whether slope or aspect are asked for."""
        return any(v.terrain for v in self.variables)


@dataclass(frozen=True)
class Opened:
    """What opening gives: variable -> lazy array, the requests of a build, and a digest of what each day is made from."""

    arrays: dict[str, da.Array]
    requests: int
    day_inputs: list[str]


def split_tasks(source: EarthEngineSource, access: Access, pixel_m: float | None) -> tuple[Task, Task]:
    """The products and variables that vary in time, and those that do not."""
    products = list_products(source, pixel_m)
    moving, lasting = (tuple(p for p in products if p.static == static) for static in (False, True))
    return Task(access, moving, _variables(source, moving)), Task(access, lasting, _variables(source, lasting))


def _variables(source: EarthEngineSource, products: tuple[Product, ...]) -> tuple[Variable, ...]:
    number = {p.asset: i for i, p in enumerate(products)}
    out = []
    for name, feature in source.bands.items():
        entry = EARTHENGINE[feature]
        if entry.asset in number:
            i = number[entry.asset]
            band = products[i].names.index(entry.band)
            out.append(Variable(name, feature, i, band, entry.scale, entry.offset))
    return tuple(out)


def make_token(source: EarthEngineSource, *what: Any) -> str:
    """What values depend on: the spec but for the account and its limits, the place, the period and the listing."""
    account = {"project", "credentials", "url", "requests_in_flight", "budget", "timeout_s", "retries"}
    return str(tokenize(source.model_dump(exclude=account), *what))


def check_plan(access: Access, values: int) -> None:
    """Refuse a build whose requests for values go beyond what the listing left of its budget, before one is sent."""
    if access.budget is not None and access.sent + values > access.budget:
        raise SmgeoError(
            f"earthengine: this build needs {access.sent + values} requests ({access.sent} are sent), the budget is "
            f"{access.budget}. Raise budget, or ask for fewer days, stations, pixels or products"
        )


def stack_array(
    task: Task, read: Callable[..., np.ndarray], chunks: tuple[tuple[int, ...], ...], name: str
) -> dict[str, da.Array]:
    """Variable -> its part of one array (variable, ...) with one chunk along variables: a block's requests serve them all."""
    array = da.map_blocks(
        partial(read, task),
        chunks=((len(task.variables),), *chunks),
        dtype="float32",
        meta=np.empty((0,) * (1 + len(chunks)), "float32"),
        name=name,
    )
    return {v.name: array[i] for i, v in enumerate(task.variables)}


def in_units(variable: Variable, numbers: np.ndarray) -> np.ndarray:
    """What the band's numbers mean; `FILL` is missing."""
    values = numbers.astype("float64") * variable.scale + variable.offset
    return np.where(numbers == FILL, np.nan, values).astype("float32")
