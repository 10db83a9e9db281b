"""From source pixels to the grid's or a station's, and to one value a day; shared by all rasters."""
