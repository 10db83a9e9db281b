"""Site profiles, addresses on their networks, and a SLURM on one machine."""
