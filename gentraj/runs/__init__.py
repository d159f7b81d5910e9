"""Runs: a planner, a policy or a world model that is trained into a folder and loaded from it.

`__init__.pyi` lists the names.
"""

import lazy_loader

# The names are imported when they are first used, so that a run, which is below them, can call what is done with runs.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
