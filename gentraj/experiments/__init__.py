"""Experiments of many trainings: compare, sweep and reproduce, on one engine."""
