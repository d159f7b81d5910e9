"""Agents: planners, policies and model-predictive control, and their components. `__init__.pyi` lists them."""

import lazy_loader

# The names are imported when they are first used: a policy needs no planner, and `--help` needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
