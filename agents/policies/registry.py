"""The policies by their settings. Adding one is one file and one line here, or from outside a call of `register`."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Union

from .bc import BC, BCConfig
from .diffusion_ql import DiffusionQL, DiffusionQLConfig
from .fql import FQL, FQLConfig
from .idql import IDQL, IDQLConfig
from .iql import IQL, IQLConfig
from .policy import Policy
from .swift import Swift, SwiftConfig
from .td3bc import TD3BC, TD3BCConfig

POLICIES: dict[type, type[Policy]] = {BCConfig: BC, IQLConfig: IQL, IDQLConfig: IDQL, TD3BCConfig: TD3BC,
                                      DiffusionQLConfig: DiffusionQL, FQLConfig: FQL, SwiftConfig: Swift}

if TYPE_CHECKING:
    PolicyConfig = (BCConfig | IQLConfig | IDQLConfig | TD3BCConfig | DiffusionQLConfig | FQLConfig
                    | SwiftConfig)
else:

    def __getattr__(name: str) -> Any:
        """`PolicyConfig`, the union of what the dict holds by now."""
        if name == "PolicyConfig":
            return Union[tuple(POLICIES)]  # noqa: UP007
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def register(config: type, policy: type[Policy]) -> None:
    """Adds a policy by its settings, a frozen dataclass: from then on it is trained, saved and loaded as any other.

    Raises ValueError for settings of the same names as another's: in a run's config.json they tell which policy it is.
    """
    names = {field.name for field in fields(config)}
    for other in POLICIES.keys() - {config}:
        if {field.name for field in fields(other)} == names:
            raise ValueError(f"{config.__name__} has the settings of {other.__name__}, {', '.join(sorted(names))}; a "
                             "saved run could not tell them apart, so give it a setting of its own")
    POLICIES[config] = policy
