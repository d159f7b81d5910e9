"""Faster networks for sampling and acting, by compilers that are measured and checked on the user's machine.

    fast = gentraj.accelerate(run.model, "openvino")
    agent = gentraj.accelerate(run.agent(space), "openvino-bf16")

Models, agents and samplers know nothing of it: the `body` of each of their networks is replaced.
"""

from .accelerate import BACKENDS, BackendName, accelerate, backend_of

__all__ = ["BACKENDS", "BackendName", "accelerate", "backend_of"]
