"""Datasets that are recorded on this machine, and the controllers that record them."""
