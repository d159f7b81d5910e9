"""Policies, each in a file of its own, what they share, and their registry.

A new policy is one file and one line in `POLICIES`, or, outside of this package, a call of `register`.
"""

from __future__ import annotations

from gentraj.config import Registry

from .actor import Actor
from .bc import BC, BCConfig
from .diffusion_ql import DiffusionQL, DiffusionQLConfig
from .drol import DROL, DROLConfig
from .fql import FQL, FQLConfig
from .gfp import GFP, GFPConfig
from .idql import IDQL, IDQLConfig
from .iql import IQL, IQLConfig
from .meanflow_ql import MeanFlowQL, MeanFlowQLConfig
from .policy import Policy, PolicyConfig
from .student import Student, StudentActor, StudentConfig
from .swift import Swift, SwiftConfig
from .td3bc import TD3BC, TD3BCConfig

__all__ = ["ACTORS", "POLICIES", "PolicyConfig", "register"]

POLICIES: Registry[PolicyConfig, Policy] = Registry({
    "bc": (BCConfig, BC),
    "iql": (IQLConfig, IQL),
    "idql": (IDQLConfig, IDQL),
    "td3bc": (TD3BCConfig, TD3BC),
    "diffusion-ql": (DiffusionQLConfig, DiffusionQL),
    "fql": (FQLConfig, FQL),
    "gfp": (GFPConfig, GFP),
    "meanflow-ql": (MeanFlowQLConfig, MeanFlowQL),
    "drol": (DROLConfig, DROL),
    "swift": (SwiftConfig, Swift),
    "student": (StudentConfig, Student),
})
"""The policies by their kinds: the class of the settings, and the class of the policy."""

ACTORS: dict[type[Policy], type[Actor]] = {Student: StudentActor}
"""The agents of policies for which there is a faster way to act than an `Actor`."""


def register(kind: str, config: type[PolicyConfig], policy: type[Policy]) -> None:
    """Registers a policy and its settings, a frozen dataclass, so that it is trained, saved and loaded as any other.

    `kind` is the policy's name in the config.json of a run; it replaces a policy that is registered by that name.
    Raises ValueError for settings that are not derived from `PolicyConfig`, or are registered by another name already.
    """
    if not issubclass(config, PolicyConfig):
        raise ValueError(f"{config.__name__} is not derived from PolicyConfig, which has the settings of every policy; "
                         "derive it from that")
    if others := [name for name, (registered, _) in POLICIES.items() if registered is config and name != kind]:
        raise ValueError(f"{config.__name__} is registered as '{others[0]}' already; give '{kind}' settings of its own")
    POLICIES[kind] = config, policy
