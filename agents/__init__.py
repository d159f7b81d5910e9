"""What acts: planners, policies and model-predictive control, and what they are made of. `__init__.pyi` lists them."""

import lazy_loader

# Imported when they are first used: who takes a policy needs no planner, and `--help` no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
