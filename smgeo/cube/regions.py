"""The regions of a store: shard-aligned parts of all variables that share their dims, the unit of work and of loss.

Zarr and Dask have no such unit: their tasks write one variable's chunk each, so that what variables share would be computed once for each,
and nothing records which chunks of an interrupted write are complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Region:
    """One part of the variables that share `dims`; `index` counts shards along each dim."""

    dims: tuple[str, ...]
    index: tuple[int, ...]
    slices: tuple[slice, ...]
    variables: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name in the ledger and in messages: `time.y.x/0.1.0`."""
        return f"{'.'.join(self.dims)}/{'.'.join(map(str, self.index))}"


def plan_regions(
    dims: Mapping[str, tuple[str, ...]], shapes: Mapping[str, tuple[int, ...]], shards: Mapping[str, tuple[int, ...]]
) -> list[Region]:
    """Return all regions of a store in the order in which they are written: static layers first, and time varies slowest.

    Parameters
    ----------
    dims, shapes, shards : mapping
        Dims, sizes and shard sizes of each variable.

    Examples
    --------
    >>> [r.name for r in plan_regions({"a": ("y", "x")}, {"a": (3, 4)}, {"a": (2, 4)})]
    ['y.x/0.0', 'y.x/1.0']
    """
    groups: dict[tuple[tuple[str, ...], tuple[int, ...]], list[str]] = {}
    for name in dims:
        groups.setdefault((dims[name], shards[name]), []).append(name)
    regions = []
    for (where, shard), names in sorted(groups.items(), key=lambda g: len(g[0][0])):
        shape = shapes[names[0]]
        counts = [range(-(-n // s)) for n, s in zip(shape, shard, strict=True)]
        order = _by_squares if where[-2:] == ("y", "x") else None
        for index in sorted(itertools.product(*counts), key=order):
            slices = tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(index, shard, shape, strict=True))
            regions.append(Region(where, index, slices, tuple(names)))
    return regions


def _by_squares(index: tuple[int, ...]) -> tuple[int, ...]:
    """Order shards of a grid in squares of 2 x 2: they share the tiles of files, which are then still in memory.

    >>> sorted([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)], key=_by_squares)
    [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2)]
    """
    *lead, y, x = index
    return (*lead, y // 2, x // 2, y % 2, x % 2)


def shard_file(variable: str, index: Iterable[int]) -> str:
    """Return the path of a shard in a Zarr v3 store, relative to the store.

    >>> shard_file("sm", (0, 2))
    'sm/c/0/2'
    """
    return "/".join([variable, "c", *map(str, index)])
