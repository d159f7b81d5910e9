"""The policies by the kind that their settings say. Adding one is one file and one line here, or from outside a call of
`register`."""

from __future__ import annotations

from gentraj.config import Kinds

from .bc import BC, BCConfig
from .diffusion_ql import DiffusionQL, DiffusionQLConfig
from .fql import FQL, FQLConfig
from .idql import IDQL, IDQLConfig
from .iql import IQL, IQLConfig
from .policy import Policy, PolicyConfig
from .swift import Swift, SwiftConfig
from .td3bc import TD3BC, TD3BCConfig

POLICIES: Kinds[PolicyConfig, Policy] = Kinds({
    "bc": (BCConfig, BC),
    "iql": (IQLConfig, IQL),
    "idql": (IDQLConfig, IDQL),
    "td3bc": (TD3BCConfig, TD3BC),
    "diffusion-ql": (DiffusionQLConfig, DiffusionQL),
    "fql": (FQLConfig, FQL),
    "swift": (SwiftConfig, Swift),
})


def register(kind: str, config: type[PolicyConfig], policy: type[Policy]) -> None:
    """Adds a policy by its settings, a frozen dataclass: from then on it is trained, saved and loaded as any other.

    `kind` is what a run's config.json calls it; a policy that was registered by that name gives way. Raises ValueError
    for settings that are not derived from `PolicyConfig`, and for those that have another name already.
    """
    if not issubclass(config, PolicyConfig):
        raise ValueError(f"{config.__name__} is not derived from PolicyConfig, which says what every policy has; "
                         "derive it")
    if others := [name for name, (known, _) in POLICIES.items() if known is config and name != kind]:
        raise ValueError(f"{config.__name__} is registered as '{others[0]}' already; give '{kind}' settings of its own")
    POLICIES[kind] = config, policy
