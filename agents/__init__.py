"""What acts: planners, policies and model-predictive control, and what they are made of. `__init__.pyi` lists them."""

from pkgutil import extend_path

import lazy_loader

__path__ = extend_path(__path__, __name__)  # a folder of that name in your own project stays visible

# Imported when they are first used: who takes a policy needs no planner, and `--help` no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
