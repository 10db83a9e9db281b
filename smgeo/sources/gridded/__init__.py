"""NetCDF, HDF5, Zarr and CSV grids."""
