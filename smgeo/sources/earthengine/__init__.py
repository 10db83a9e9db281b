"""Google Earth Engine. Importing it does not import `ee`."""
