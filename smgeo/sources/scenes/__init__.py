"""Scenes, each in its own CRS, onto a grid or to stations; GeoTIFFs among them."""
