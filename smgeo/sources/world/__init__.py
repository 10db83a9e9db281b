"""The built-in world, which writes what a user would have: an ISMN archive and GeoTIFFs."""
