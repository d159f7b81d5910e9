"""Offline datasets: `Episodes` in memory, readers and writers of files, and the `Windows` that models train on.

`__init__.pyi` lists the names.
"""

import lazy_loader

# The names are imported when they are first used: the processes that step environments need no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
