"""Many trainings as one experiment: compare, ablate and reproduce."""
