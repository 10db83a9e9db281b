"""The built-in world, which writes the files of a user: an ISMN archive and GeoTIFFs."""
