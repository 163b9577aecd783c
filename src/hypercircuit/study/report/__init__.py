"""Pages about runs, studies and sweeps: one HTML file each that needs nothing else."""
