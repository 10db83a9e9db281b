"""What a cube is, in memory and as a Zarr store: written region by region, resumed, and read back."""

from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube

__all__ = ["open_cube", "write_cube"]
