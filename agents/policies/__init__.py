"""Policies: one file each, what they share, and the registry."""

from .registry import POLICIES, PolicyConfig, register

__all__ = ["POLICIES", "PolicyConfig", "register"]
