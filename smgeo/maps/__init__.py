"""Model × grid cube -> blocks -> Zarr and Cloud-Optimised GeoTIFF."""

from smgeo.maps.check import evaluate_map, open_map
from smgeo.maps.cog import list_maps, write_cogs
from smgeo.maps.pictures import draw_map
from smgeo.maps.predict import predict_map
from smgeo.maps.slider import write_animation, write_slider
from smgeo.maps.stac import write_stac

__all__ = [
    "draw_map",
    "evaluate_map",
    "list_maps",
    "open_map",
    "predict_map",
    "write_animation",
    "write_cogs",
    "write_slider",
    "write_stac",
]
