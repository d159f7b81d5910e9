"""Environments: tasks, data recipes, rollouts and scores, and world models as environments.

`__init__.pyi` lists the names. Importing this package registers gentraj's own environments with Gymnasium.
"""

import lazy_loader

from . import worlds as worlds

# The names are imported when they are first used: making an environment needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
