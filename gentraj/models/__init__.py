"""What all models of trajectories share (sampling, plug-ins, conditioning), and the Gaussian model."""
