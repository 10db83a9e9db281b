"""Sources into cubes: stations merged, rasters extracted at stations, rasters aligned on a grid."""

from smgeo.assemble.extraction import extract
from smgeo.assemble.grid import build_grid_cube, open_grid
from smgeo.assemble.stations import build_station_cube

__all__ = ["build_grid_cube", "build_station_cube", "extract", "open_grid"]
