"""Environments: tasks, data recipes, rollouts and scores, and world models as environments.

`__init__.pyi` lists the names. Importing this package registers gentraj's own environments with Gymnasium.
"""

from pkgutil import extend_path

import lazy_loader

from . import worlds as worlds

__path__ = extend_path(__path__, __name__)  # an `envs` folder in your own project stays visible

# The names are imported when they are first used: making an environment needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
