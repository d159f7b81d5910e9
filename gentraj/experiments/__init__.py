"""Experiments with many runs: sweep and reproduce, on one engine, and compare."""
