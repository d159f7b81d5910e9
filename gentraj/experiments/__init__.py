"""Experiments of many trainings: compare, ablate and reproduce, on one engine."""
