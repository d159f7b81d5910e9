"""Policies, each in a file of its own, which adds it to the registry: a new one is a file and its name in this list."""

from . import bc, diffusion_ql, expo, fql, iql, qc, steering, swift, td3bc  # noqa: F401
from .policy import POLICIES, PRESETS, PolicyConfig
from .student import ACTORS

__all__ = ["ACTORS", "POLICIES", "PRESETS", "PolicyConfig"]
