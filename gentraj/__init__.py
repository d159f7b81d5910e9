"""Generative models of trajectories for control. `__init__.pyi` lists the names.

    run = gentraj.train("pointmaze-umaze", folder="runs/umaze")
    run = gentraj.load("runs/umaze")
    x_BNHD = run.model.sample(gentraj.Condition.empty(run.model.spec), num_samples=16)
"""

import os

import lazy_loader

# MKL reads this at its first matrix product. Products then round the same on any number of threads, at no measurable
# cost. Without it, some CPUs split the sums among the threads for few rows, but not for many.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# torch reads this at its first product on a GPU. `training.deterministic` needs it, and it costs nothing without that.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# The names are imported when they are first used: `--help` needs no torch, and a model needs no environment.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
