"""Cubes from sources: stations merged, rasters extracted at stations, rasters aligned on a grid."""

from smgeo.assemble.extraction import extract

__all__ = ["extract"]
