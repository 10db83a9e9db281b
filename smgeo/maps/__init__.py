"""Model × grid cube -> blocks -> Zarr and Cloud-Optimised GeoTIFF. Draws nothing."""

from smgeo.maps.check import evaluate_map, open_map
from smgeo.maps.cog import list_maps, write_cogs
from smgeo.maps.predict import predict_map
from smgeo.maps.stac import write_stac

__all__ = ["evaluate_map", "list_maps", "open_map", "predict_map", "write_cogs", "write_stac"]
