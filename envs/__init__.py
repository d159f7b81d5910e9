"""Environments: tasks, data recipes, rollouts and scores, and worlds as environments. `__init__.pyi` lists the names.

Importing it registers gentraj's own with Gymnasium.
"""

from pkgutil import extend_path

import lazy_loader

from . import worlds as worlds

__path__ = extend_path(__path__, __name__)  # a folder of that name in your own project stays visible

# Imported when they are first used: who makes an environment needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
