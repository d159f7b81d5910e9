"""What all models of trajectories share (sampling, plug-ins, conditioning), the Gaussian model, and MIP."""
