"""Agents: planners, policies and model-predictive control, and their components. `__init__.pyi` lists them."""

from pkgutil import extend_path

import lazy_loader

__path__ = extend_path(__path__, __name__)  # a folder of that name in your own project stays visible

# The names are imported when they are first used: a policy needs no planner, and `--help` needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
