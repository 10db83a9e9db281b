"""Model × grid cube -> blocks -> Zarr and Cloud-Optimised GeoTIFF."""

from smgeo.maps.cog import list_maps, write_cogs
from smgeo.maps.predict import predict_map

__all__ = ["list_maps", "predict_map", "write_cogs"]
