"""Work on the nodes of a job: Dask, Ray and processes that train together."""
