"""Planners and what they are made of."""
