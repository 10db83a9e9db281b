"""Maps: a model applied to a grid cube, block by block, as Zarr and Cloud-Optimised GeoTIFF. Draws nothing."""

from smgeo.maps.check import evaluate_map, open_map
from smgeo.maps.cog import list_maps, write_cogs
from smgeo.maps.predict import predict_map, predict_map_files
from smgeo.maps.request import MapOptions
from smgeo.maps.stac import write_stac
from smgeo.maps.strips import StripReader, Thinned
from smgeo.maps.summary import MapSummary, read_summary

__all__ = [
    "MapOptions",
    "MapSummary",
    "StripReader",
    "Thinned",
    "evaluate_map",
    "list_maps",
    "open_map",
    "predict_map",
    "predict_map_files",
    "read_summary",
    "write_cogs",
    "write_stac",
]
