"""Cubes in memory and as Zarr stores: their schema, writing region by region, resuming, and reading."""

from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube

__all__ = ["open_cube", "write_cube"]
