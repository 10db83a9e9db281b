"""What a SLURM machine is: profiles, its network, a SLURM of one machine to try them on."""
