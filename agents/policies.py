"""The policies by their settings. Adding one is one file and one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

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
else:  # what the dict holds
    PolicyConfig = Union[tuple(POLICIES)]  # noqa: UP007
