"""Agents that act by a deadline, and decide in the background while they act."""
