"""What all generators of trajectories share: sampling, plug-ins, conditioning; and the Gaussian model."""
