"""Policies, each in a file of its own, what they share, and their registry."""

from .registry import POLICIES, PolicyConfig, register

__all__ = ["POLICIES", "PolicyConfig", "register"]
