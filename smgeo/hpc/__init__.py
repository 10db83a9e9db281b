"""At the side of the science: site profiles, job scripts, Dask and Ray on SLURM, and a SLURM of one machine to try them on."""
