"""Planners and their components."""
