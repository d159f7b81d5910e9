"""Environments: tasks, data recipes, rollouts and scores, and worlds as environments. `__init__.pyi` lists the names.

Importing it registers gentraj's own with Gymnasium.
"""

import gymnasium
import lazy_loader

gymnasium.register("gentraj/WorldModel-v0", "gentraj.runs.environment:make",
                   vector_entry_point="gentraj.runs.environment:make_vec",
                   disable_env_checker=True)

# Imported when they are first used: who makes an environment needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
